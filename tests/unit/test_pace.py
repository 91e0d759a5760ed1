"""Whoever asks the service has a tenth of the loop's time, and to wait costs next to nothing."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from fastscp.admin import pace
from fastscp.admin.accepting import Accepting
from fastscp.admin.pace import SHARE, Pace, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


class Counted(Pace):
    """Counts how often it looks whether it is time."""

    looks = 0

    def _go(self) -> None:
        self.looks += 1
        super()._go()


def test_a_wait_of_parts_of_a_millisecond() -> None:
    """Nobody goes round and round until it is over."""

    async def test() -> None:
        for cost_us in range(5, 400, 10):
            counted, done = Counted(), asyncio.Event()
            counted.spend(time.monotonic() - cost_us / 1e6)
            counted.ask(done.set)
            await done.wait()
            # A timer may call a millisecond early, and then once again.
            assert counted.looks <= 3

    run(test)


def test_a_turn_of_parts_of_a_millisecond() -> None:
    async def test() -> None:
        sleeps = 0

        class Looked(Share):
            def left_s(self) -> float:
                nonlocal sleeps
                sleeps += 1
                return super().left_s()

        for cost_us in range(5, 400, 10):
            share, sleeps = Looked(), 0
            share.spend(time.monotonic() - cost_us / 1e6)
            await share.turn()
            # Two looks a round.
            assert sleeps <= 2 * 3

    run(test)


def test_a_rest_of_parts_of_a_millisecond() -> None:
    """A timer for less than half a one is none: accepting would go on at once, and rest again."""

    class Nothing(Accepting):
        def _accept(self) -> None:
            raise AssertionError

    async def test() -> None:
        waits: list[float] = []
        with socket.create_server(("127.0.0.1", 0)) as sock:
            accepting: Any = Nothing(sock)
            accepting._loop = SimpleNamespace(call_later=lambda wait, _go: waits.append(wait))
            for seconds in (1e-9, 0.0004, 0.0011, 0.5):
                accepting._pause_for(seconds)
        assert waits == [0.001, 0.001, 0.0011, 0.5]

    run(test)


@pytest.mark.parametrize("cost_s", [1e-5, 7e-5, 2e-4, 1e-3, 0.02])
def test_those_who_ask_in_circles_have_a_tenth(
    monkeypatch: pytest.MonkeyPatch, cost_s: float
) -> None:
    """Also where timers call early, and what is due soon is due."""
    now, rng = 1000.0, random.Random(2)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now))
    share = Share()
    for _ in range(2000):
        while wait := share.left_s():
            now += max(1e-6, wait - rng.random() * 0.0009)
        since, now = now, now + cost_s
        share.spend(since)
    took, spent = now - 1000.0, 2000 * cost_s
    # The last one has not been made up for.
    assert 0.97 * took < spent * SHARE < took + SHARE * cost_s + 0.001

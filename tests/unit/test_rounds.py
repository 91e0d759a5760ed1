"""The turns of connections in turns of the loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fastscp.worker import rounds as room
from fastscp.worker.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


async def _turns_of_the_loop(until: Callable[[], object]) -> int:
    """How many pass until something is so."""
    count = 0
    while not until():
        await asyncio.sleep(0)
        count += 1
        assert count < 1000
    return count


def test_a_round_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left comes next, in its order; what takes no time is all done in one."""
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    done: list[int] = []

    def turn(number: int, takes: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal clock
            clock += takes
            done.append(number)

        return call

    async def run() -> None:
        rounds = Rounds()
        for number in range(100):
            rounds.add(turn(number, 0.0))
        assert await _turns_of_the_loop(lambda: done) == 1
        assert done == list(range(100))
        done.clear()
        half = room._ROUND_S / 2
        for number in range(7):
            rounds.add(turn(number, half))
        seen = []
        while len(done) < 7:
            await asyncio.sleep(0)
            seen.append(len(done))
        assert seen == [2, 4, 6, 7]
        assert done == list(range(7))
        # One that takes far too long still has its turn.
        rounds.add(turn(7, 1.0))
        rounds.add(turn(8, 1.0))
        assert await _turns_of_the_loop(lambda: len(done) == 9) == 2

    asyncio.run(run())


def test_who_asks_again_waits_for_the_loop() -> None:
    """Once each time: sockets are looked at between."""
    done = 0

    async def run() -> None:
        rounds = Rounds()

        def again() -> None:
            nonlocal done
            done += 1
            rounds.add(again)

        rounds.add(again)
        for passed in range(1, 10):
            await asyncio.sleep(0)
            assert done == passed

    asyncio.run(run())


def test_a_turn_that_raises_ends_no_other() -> None:
    done: list[str] = []
    said: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: said.append(about))
        rounds = Rounds()

        def wrong() -> None:
            raise RuntimeError("a bug")

        rounds.add(wrong)
        rounds.add(lambda: done.append("next"))
        await _turns_of_the_loop(lambda: done)
        rounds.add(lambda: done.append("later"))
        await _turns_of_the_loop(lambda: len(done) == 2)

    asyncio.run(run())
    assert (done, len(said)) == (["next", "later"], 1)

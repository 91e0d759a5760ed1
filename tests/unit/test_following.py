"""Which rules the workers go by: each is told, and main knows who follows. The test plays them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.main import following as module
from fastscp.main.following import Following
from fastscp.main.members import Worker
from fastscp.messages.channel import Channel
from fastscp.messages.configuration import Configuration, pack, unpack
from fastscp.messages.worker import Configured, FromWorker, Holds, ToWorker
from tests.books import configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class Told:
    """A worker's end, as the test plays it."""

    def __init__(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        loop = asyncio.get_running_loop()
        self.end = Channel(theirs, ToWorker)
        self.worker = Worker(
            number, f"run-w{number}", Channel(ours, FromWorker), loop.create_future(), 0.0,
            is_ready=True, generation=0,
        )  # fmt: skip
        self.worker.channel.write_with(loop.add_writer, loop.remove_writer)

    def heard(self) -> list[tuple[int, Configuration | None]]:
        """The generations it was told of since the last look, with what came along."""
        found: list[tuple[int, Configuration | None]] = []
        for message, fd in self.end.receive():
            assert isinstance(message, Configured)
            found.append((message.generation, unpack(fd) if fd is not None else None))
            if fd is not None:
                os.close(fd)
        return found

    def close(self) -> None:
        self.end.close()
        self.worker.channel.close()


class Follows:
    """Workers that are told what to go by."""

    def __init__(self, count: int) -> None:
        self.told = [Told(number) for number in range(count)]
        self.living = [one.worker for one in self.told]
        self.held: list[int] = []
        listener: Any = SimpleNamespace(held=self.held.append)
        self.following = Following(configuration(), listener, lambda: self.living)

    def configure(self, generation: int) -> None:
        told = configuration(generation=generation)
        self.following.configure(told, pack(told))

    def close(self) -> None:
        for one in self.told:
            one.close()
        self.following.close()


def follow(test: Callable[[Follows], Coroutine[Any, Any, None]], count: int = 2) -> None:
    async def play() -> None:
        follows = Follows(count)
        try:
            await test(follows)
        finally:
            follows.close()

    asyncio.run(play())
    gc.collect()


def test_each_worker_is_told_and_the_oldest_in_use_is_known() -> None:
    async def test(follows: Follows) -> None:
        first, second = follows.told
        for generation in (1, 2):
            follows.configure(generation)
        for one in follows.told:
            assert one.heard() == [(n, configuration(generation=n)) for n in (1, 2)]
        follows.following.heard(first.worker, 2)
        assert follows.held == [0]
        follows.following.heard(second.worker, 1)
        follows.following.heard(second.worker, 2)
        assert follows.held == [0, 1, 2]
        assert await follows.following.laggards(60) == []
        # Who starts now is told the newest alone.
        third = Told(2)
        follows.told.append(third)
        follows.following.tell(third.worker)
        assert third.heard() == [(2, configuration(generation=2))]

    follow(test)


def test_a_worker_that_is_gone_keeps_no_rules_alive() -> None:
    async def test(follows: Follows) -> None:
        first, second = follows.told
        follows.configure(1)
        follows.following.heard(first.worker, 1)
        waiting = asyncio.create_task(follows.following.laggards(60))
        await asyncio.sleep(0)
        follows.living.remove(second.worker)
        follows.following.left()
        assert await waiting == []
        assert follows.held[-1] == 1
        # Nor does one whose end has not been seen yet.
        second.worker.channel.closed = True
        follows.configure(2)
        assert [n for n, _what in first.heard()] == [1, 2]
        follows.living.clear()
        follows.following.left()

    follow(test)


def test_one_that_follows_late_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def test(follows: Follows) -> None:
        first, second = follows.told
        follows.configure(1)
        follows.following.heard(first.worker, 1)
        assert await follows.following.laggards(0.01) == [second.worker]
        assert caplog.text == ""
        follows.following.heard(second.worker, 1)
        follows.following.heard(second.worker, 1)

    follow(test)
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert said.getMessage() == "worker 1 goes by the newest rules now"


def test_one_that_could_not_take_them_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system had no descriptor left for it: it says that it goes by the old ones."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.001)

    async def test(follows: Follows) -> None:
        (one,) = follows.told
        follows.configure(1)
        assert [n for n, _what in one.heard()] == [1]
        follows.following.heard(one.worker, 0)
        while not (told := one.heard()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        assert told == [(1, configuration(generation=1))]
        follows.following.heard(one.worker, 1)
        await asyncio.sleep(0.01)
        assert one.heard() == []

    follow(test, 1)


def test_one_that_cannot_be_told_now_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its channel is full, and main has no descriptor to keep what waits."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.001)

    async def test(follows: Follows) -> None:
        (one,) = follows.told
        real, tried = os.dup, []

        def none_left(fd: int) -> int:
            tried.append(fd)
            if len(tried) < 3:
                raise OSError(24, "Too many open files")
            return real(fd)

        while not one.worker.channel._backlog:
            one.worker.channel.send(Configured(0))
        monkeypatch.setattr(os, "dup", none_left)
        follows.configure(1)
        while len(tried) < 3:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        told: list[tuple[int, Configuration | None]] = []
        while (1, configuration(generation=1)) not in told:
            told += one.heard()
            await asyncio.sleep(0.001)
        assert told[-1] == (1, configuration(generation=1))

    follow(test, 1)


def test_a_bug_in_telling_one_keeps_no_other_from_being_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.001)

    async def test(follows: Follows) -> None:
        first, second = follows.told
        real = first.worker.channel.send
        failed: list[int] = []

        def send(message: Configured, fd: int) -> None:
            if not failed:
                failed.append(fd)
                raise KeyError("a bug")
            real(message, fd)

        monkeypatch.setattr(first.worker.channel, "send", send)
        follows.configure(1)
        assert [n for n, _what in second.heard()] == [1]
        while not (told := first.heard()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        assert told == [(1, configuration(generation=1))]

    follow(test)
    assert caplog.text.count("cannot tell worker 0 of newer rules") == 1


def test_what_a_worker_holds_travels() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    main, worker = Channel(ours, FromWorker), Channel(theirs, ToWorker)
    worker.send(Holds(7))
    assert [message for message, _fd in main.receive()] == [Holds(7)]
    main.close()
    worker.close()

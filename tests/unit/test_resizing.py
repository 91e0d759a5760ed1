"""More workers and fewer of them while the service runs; the test plays the processes."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.errors import BootError
from fastscp.main import remains as remaining
from fastscp.main import workers
from fastscp.main.members import WORKERS_MOST, Place, Worker, first_to_go, free_numbers
from fastscp.main.workers import Workers
from fastscp.messages.channel import Channel
from fastscp.messages.worker import Drain, Leaving, Retire, Stop, ToWorker
from fastscp.store.lives import SweepReport
from fastscp_ext import Shared
from tests.books import configuration
from tests.unit.test_survival import a_store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

CONFIG = ServeConfig(workers=2, drain_timeout=0.0)


pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class Played:
    """Workers of which the test plays the processes, and hears what they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections: dict[int, int] = {}
        self.over: list[int] = []
        self.held: list[int] = []
        self.settled = self.swept = 0
        self.cannot: OSError | None = None
        self._started: list[Channel] = []
        self._ends: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        monkeypatch.setattr(workers, "spawn", self._spawn)
        monkeypatch.setattr(remaining, "sweep_incoming", self._sweep)
        monkeypatch.setattr(remaining, "settle_beside", self._settle)
        listener: Any = SimpleNamespace(
            joined=lambda worker: self._ends.update({worker.life: self._started[-1]}),
            came_up=lambda _worker: None,
            heard=lambda *_: None,
            left=lambda worker: self.connections.pop(worker.number, 0),
            held=self.held.append,
            connections_of=lambda worker: self.connections.get(worker.number, 0),
        )
        self._dir_fd = os.open("/", os.O_PATH)
        store = a_store(
            lock_fd=-1,
            facts=SimpleNamespace(noreplace=True, nameless=0),
            mixed=False,
            suspect=False,
        )
        store.dir_fd = self._dir_fd
        self.workers = Workers(
            configuration(CONFIG), store, Shared(), listener,
            background=self._background, over=self.over.append,
        )  # fmt: skip

    def _spawn(self, descriptors: Sequence[int]) -> Any:
        if self.cannot is not None:
            raise self.cannot
        end = Channel(socket.socket(fileno=os.dup(descriptors[0])), ToWorker)
        self._started.append(end)
        process = SimpleNamespace(pid=77, code=None)
        process.has_ended = lambda: process.code is not None
        process.kill = lambda: None
        return process

    def _sweep(self, _fd: int) -> SweepReport:
        self.swept += 1
        return SweepReport(0, 0, 0)

    def _settle(self, fd: int, *_: object) -> tuple[str, ...]:
        os.close(fd)
        self.settled += 1
        return ()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Wait for all that goes on beside."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def worker(self, number: int) -> Worker:
        worker = self.workers._places[number].worker
        assert worker is not None
        return worker

    def told(self, number: int) -> list[object]:
        """What a worker was told of its end since the last look."""
        told = self._ends[self.worker(number).life].receive()
        found: list[object] = []
        for message, fd in told:
            if fd is not None:
                os.close(fd)
            if isinstance(message, Drain | Retire | Stop):
                found.append(message)
        return found

    def up(self) -> None:
        """All that were started are ready."""
        for worker in self.workers._living():
            if not worker.is_ready:
                self.workers._came_up(worker)

    async def ended(self, number: int, code: int = 0) -> None:
        """A worker's process ends, and all that follows from that is through."""
        worker = self.worker(number)
        process: Any = worker.process
        process.code = code
        self._ends[worker.life].close()
        self.workers._reap(worker)
        await self.idle()

    def numbers(self) -> tuple[list[int], list[int]]:
        """Of the workers that there are to be, and of the retired ones."""
        wanted = sorted(n for n, place in self.workers._places.items() if place.is_wanted)
        return wanted, sorted(set(self.workers._places) - set(wanted))

    async def start(self, count: int) -> None:
        starting = asyncio.get_running_loop().create_task(self.workers.start(count))
        while len(self.workers._living()) < count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        self.up()
        await starting

    async def resize(self, count: int, linger_s: float = 60.0) -> None:
        self.workers.resize(count, linger_s)
        await self.idle()
        self.up()

    async def close(self) -> None:
        self.workers.stopping = True
        await self.idle()
        for worker in self.workers._living():
            asyncio.get_running_loop().remove_reader(worker.channel.fileno())
            worker.channel.close()
        for end in self._started:
            end.close()
        self.workers.close()
        os.close(self._dir_fd)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[[Callable[[Played], Coroutine[Any, Any, None]]], None]]:
    caplog.set_level(logging.INFO)

    async def with_workers(test: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
        played = Played(monkeypatch)
        try:
            await test(played)
        finally:
            await played.close()

    yield lambda test: asyncio.run(with_workers(test))
    # The shared block is a descriptor, and goes with the cycle around the workers.
    gc.collect()


def test_fewer_retire_those_with_the_fewest_associations(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(played: Played) -> None:
        await played.start(4)
        played.connections.update({0: 3, 1: 1, 2: 5, 3: 2})
        await played.resize(2, 1800.0)
        assert played.numbers() == ([0, 2], [1, 3])
        assert [played.told(n) for n in range(4)] == [[], [Retire(1800.0)], [], [Retire(1800.0)]]
        # Told once, however often the number stays.
        await played.resize(2, 1800.0)
        assert [played.told(n) for n in range(4)] == [[], [], [], []]
        await played.ended(1)
        assert played.numbers() == ([0, 2], [3])
        assert (played.settled, played.swept) == (0, 0)

    run(test)
    assert "worker 1 (process 77) is retired: it takes no more" in caplog.text
    assert "with the last of the 1 that it has, in 1800 s at most (--reload-linger)" in caplog.text
    assert "worker 1, which was retired, has ended in order" in caplog.text
    assert {one.levelno for one in caplog.records} == {logging.INFO}


def test_a_shorter_time_holds_for_those_that_are_retired_already(
    run: Callable[..., None],
) -> None:
    async def test(played: Played) -> None:
        await played.start(2)
        await played.resize(1, 3600.0)
        assert played.told(1) == [Retire(3600.0)]
        await played.resize(1, 7200.0)
        assert played.told(1) == []
        await played.resize(1, 600.0)
        (told,) = played.told(1)
        assert isinstance(told, Retire)
        # It counts from when it was retired.
        assert 500 < told.seconds < 600
        await played.resize(1, 0.0)
        assert played.told(1) == [Retire(0.0)]

    run(test)


def test_a_retired_worker_that_dies_is_not_replaced(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """But it is said, what it left is put in order, and the service does not end as if clean."""

    async def test(played: Played) -> None:
        await played.start(2)
        played.connections.update({0: 9, 1: 4})
        await played.resize(1)
        await played.ended(1, -9)
        assert played.numbers() == ([0], [])
        assert played.workers.lost
        assert (played.settled, played.swept) == (1, 1)
        assert not played.workers.tell_missing()

    run(test)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert said.startswith("worker 1 ended unexpectedly (killed by SIGKILL): 4 associations lost")
    assert "starting another" not in said


def test_growing_again_takes_other_numbers(run: Callable[..., None]) -> None:
    """Each living worker has a number of its own, also among the counters that they share."""

    async def test(played: Played) -> None:
        await played.start(3)
        await played.resize(1)
        assert played.numbers() == ([0], [1, 2])
        lives = {played.worker(n).life for n in range(3)}
        await played.resize(3)
        assert played.numbers() == ([0, 3, 4], [1, 2])
        await played.ended(1)
        await played.resize(4)
        assert played.numbers() == ([0, 1, 3, 4], [2])
        assert played.worker(1).life not in lives

    run(test)


def test_there_are_so_many_numbers_and_no_more(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has none starts once a retired worker gives its own back."""
    assert WORKERS_MOST == 256
    Shared().liveness.clear(WORKERS_MOST - 1)
    with pytest.raises(IndexError):
        Shared().liveness.clear(WORKERS_MOST)
    monkeypatch.setattr("fastscp.main.members.WORKERS_MOST", 4)

    async def test(played: Played) -> None:
        await played.start(3)
        await played.resize(1)
        await played.resize(4)
        assert played.numbers() == ([0, 3], [1, 2])
        for retired in (2, 1):
            await played.ended(retired)
            assert retired in played.numbers()[0]
        assert played.numbers() == ([0, 1, 2, 3], [])

    run(test)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert said.startswith("2 more workers start as soon as so many of the retired ones (2) have ")


def test_a_place_that_is_empty_goes_first(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody starts in it any more, though one was about to."""

    async def test(played: Played) -> None:
        await played.start(3)
        played.cannot = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        worker = played.worker(0)
        process: Any = worker.process
        process.code = -9
        played.workers._reap(worker)
        while not played.workers._places[0].told:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        played.workers.resize(2, 60.0)
        assert played.numbers() == ([1, 2], [])
        played.cannot = None
        started = len(played._started)
        await played.idle()
        assert len(played._started) == started
        assert not played.workers.tell_missing()

    run(test)
    assert "worker 0 was gone, and is not replaced: fewer are wanted" in caplog.text


def test_one_that_drains_for_another_goes_before_one_that_takes_connections(
    run: Callable[..., None],
) -> None:
    """A signal of its own recycles it; when it is retired instead, nobody follows it."""

    async def test(played: Played) -> None:
        await played.start(2)
        played.connections.update({0: 9, 1: 1})
        played._ends[played.worker(0).life].send(Leaving())
        while not played.worker(0).is_leaving:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        await played.resize(1)
        assert played.numbers() == ([1], [0])
        await played.ended(0)
        assert played.numbers() == ([1], [])

    run(test)


def test_one_that_is_retired_while_it_starts(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whether or not it comes up: it is no start that failed."""

    async def test(played: Played) -> None:
        await played.start(1)
        played.workers.resize(3, 60.0)
        await played.idle()
        played.workers.resize(1, 60.0)
        assert played.numbers() == ([0], [1, 2])
        await played.ended(1, 3)
        played.workers.resize(2, 60.0)
        await played.idle()
        assert played.numbers() == ([0, 1], [2])
        # It has to be told of another that does not come up, which is tried again.
        await played.ended(1, 3)
        assert played.numbers() == ([0, 1], [2])

    run(test)
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("cannot start worker 1: it ended while it was starting")


def test_the_end_of_the_service_is_that_of_retired_workers_too(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        await played.start(2)
        await played.resize(1)
        played.told(1)
        played.workers.drain()
        assert [played.told(n) for n in (0, 1)] == [[Drain(0.0)], [Drain(0.0)]]
        # Nobody is started or retired any more.
        await played.resize(5)
        assert played.numbers() == ([0], [1])
        played.workers.stop()
        assert [played.told(n) for n in (0, 1)] == [[Stop()], [Stop()]]
        await played.ended(0)
        assert played.over == []
        await played.ended(1)
        assert played.over == [0]

    run(test)


def test_who_goes_first() -> None:
    def place(number: int, **facts: bool) -> Place:
        worker: Any = SimpleNamespace(
            **{"number": number, "is_ready": True, "is_leaving": False} | facts
        )
        return Place(number, worker)

    loads = {1: 5, 2: 3, 3: 3, 4: 8, 5: 9}
    places = [
        Place(0), place(1), place(2), place(3), place(4, is_leaving=True), place(5, is_ready=False),
    ]  # fmt: skip
    order = first_to_go(places, lambda worker: loads[worker.number])
    assert [one.number for one in order] == [0, 4, 5, 3, 2, 1]


def test_free_numbers() -> None:
    assert free_numbers({0, 2, 3}, 3) == [1, 4, 5]
    assert free_numbers(set(), 0) == []
    assert free_numbers(set(), -1) == []
    assert len(free_numbers({7}, 1000)) == WORKERS_MOST - 1


def test_numbers_of_a_predecessor_are_nobodys(
    run: Callable[[Callable[[Played], Coroutine[Any, Any, None]]], None],
) -> None:
    """What is counted under a number is one worker's, whoever its main is."""

    async def test(played: Played) -> None:
        workers = played.workers
        workers._reserved = frozenset(range(WORKERS_MOST))
        with pytest.raises(BootError, match="belong to a predecessor"):
            await workers.start(2)
        workers._reserved = frozenset(range(1, WORKERS_MOST))
        assert workers._free_numbers(2) == [0]
        workers.release()
        assert workers._free_numbers(2) == [0, 1]

    run(test)

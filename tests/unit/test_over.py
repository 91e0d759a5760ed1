"""Whatever is told as an error is told as over, at the level at which it was told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.main import dispatch
from fastscp.main import remains as remaining
from fastscp.main.acceptor import Acceptor, bind
from fastscp.main.dispatch import Dispatch
from fastscp.main.indexing import Indexing
from fastscp.main.members import Place
from fastscp.main.remains import Remains
from fastscp.main.spawn import Process
from fastscp.main.storewatch import Look, StoreWatch
from fastscp.main.watching import Watching
from fastscp.main.workers import Workers
from fastscp.store.lives import SweepReport
from fastscp.worker.jobs import Jobs
from fastscp_ext import Counts, LineIndex
from tests.kit import wait_for
from tests.unit.test_survival import a_store

if TYPE_CHECKING:
    from collections.abc import Callable


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Levels and messages since the last look."""
    found = [(one.levelno, one.getMessage()) for one in caplog.records]
    caplog.clear()
    return found


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages since the last look; all have to be errors."""
    found = told(caplog)
    assert {level for level, _text in found} <= {logging.ERROR}
    return [text for _level, text in found]


def test_space(caplog: pytest.LogCaptureFixture) -> None:
    watching: Any = SimpleNamespace(
        _watch=StoreWatch(1 << 20),
        _shared=SimpleNamespace(store=SimpleNamespace(set_state=lambda *_: None)),
        _admission=SimpleNamespace(congested=""),
    )
    for look in (Look(0, "gone"), Look(1, None), Look(3 << 19, None), Look(9 << 20, None)):
        Watching._judge(watching, look)
    gone, full, slow, fine = errors(caplog)
    assert gone.startswith("the store is gone: ")
    assert full.startswith("the store is there again, disk full: 0 MiB free, below ")
    assert "receiving again" in slow
    assert fine == "9 MiB free: receiving without limits again"


@pytest.mark.parametrize("why", ["blind", "a bug"])
def test_looks_at_the_store(caplog: pytest.LogCaptureFixture, why: str) -> None:
    watching: Any = SimpleNamespace(
        _blind="Too many open files" if why == "blind" else "", has_failed=why == "a bug",
        _judge=lambda _seen: None,
    )  # fmt: skip
    looked: Any = SimpleNamespace(result=lambda: Look(1, None))
    for _ in range(2):
        Watching._see(watching, looked)
    assert errors(caplog) == ["the store is looked at again"]


def a_worker(service: Any, place: Any) -> Any:
    worker: Any = SimpleNamespace(
        number=place.number, is_ready=True, is_retired=False, started=0.0, why="", channel=None,
        ready=SimpleNamespace(done=lambda: True, set_result=lambda _none: None),
    )  # fmt: skip
    place.worker = worker
    return worker


def test_a_worker_that_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(0)
    service: Any = SimpleNamespace(
        _places={0: place}, _is_abandoned=False, _is_started=True, stopping=False,
        _shared=SimpleNamespace(liveness=SimpleNamespace(end_batches=lambda _n: None)),
        _hear_out=lambda _one: None, _miss=lambda *_: None,
        following=SimpleNamespace(left=lambda: None),
        _listener=SimpleNamespace(left=lambda _one: 3, came_up=lambda _one: None),
    )  # fmt: skip
    Workers._came_up(service, a_worker(service, place))
    assert told(caplog) == []
    Workers._ended(service, place, a_worker(service, place), -9)
    Workers._came_up(service, a_worker(service, place))
    Workers._came_up(service, a_worker(service, place))
    ended, again = errors(caplog)
    assert ended.startswith("worker 0 ended unexpectedly (killed by SIGKILL): 3 associations lost")
    assert again == "worker 0 is up again"
    # As it was told to by a signal: no error, and nothing that is over.
    Workers._ended(service, place, a_worker(service, place), 0)
    Workers._came_up(service, a_worker(service, place))
    assert told(caplog) == []


def test_a_worker_that_could_not_be_replaced(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(0)
    service: Any = SimpleNamespace(
        _places={0: place}, _living=list, _listener=SimpleNamespace(came_up=lambda _one: None)
    )
    Workers._failed(service, place, "no space")
    Workers._came_up(service, a_worker(service, place))
    _failed, again = errors(caplog)
    assert again == "worker 0 is up again, after 1 try that failed"


def test_a_loop_that_stood_still(caplog: pytest.LogCaptureFixture) -> None:
    service: Any = SimpleNamespace(_watch=SimpleNamespace(patience_s=lambda _up: 60.0))
    worker: Any = SimpleNamespace(number=1, is_ready=True, process=SimpleNamespace(pid=7))
    for what in ("named", "goes on"):
        Workers._tell_still(service, worker, SimpleNamespace(what=what, for_s=12.0))  # type: ignore[arg-type]
    assert errors(caplog)[1] == "worker 1 goes on after 12 s"


def test_sweeps(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[SweepReport | OSError] = [
        OSError(errno.EIO, "Input/output error"),
        SweepReport(0, 0, 0, 2, "Is a directory"),
        SweepReport(0, 0, 0, 0, ""),
        SweepReport(0, 0, 0, 0, ""),
    ]

    def sweep(_fd: int) -> SweepReport:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async def use() -> None:
        nobody: Any = None
        remains = Remains(a_store(), nobody, "run")
        while outcomes:
            await remains.sweep()

    monkeypatch.setattr(remaining, "sweep_incoming", sweep)
    asyncio.run(use())
    failed, left, again, nothing = sorted(
        errors(caplog), key=lambda text: ("cannot" not in text, "2 entries" in text)
    )
    assert "cannot remove unfinished instances" in failed
    assert "cannot remove 2 entries" in left
    assert "are removed again from /s/.fastscp/incoming" in again + nothing
    assert "holds nothing any more that has to go" in again + nothing


class Target:
    """A worker of a dispatch, whose loop is inside a file call since `since_ms`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.since_ms = 0
        self.runs = False
        self.now_s = 1000.0
        process: Any = SimpleNamespace(is_runnable=lambda: self.runs)
        worker: Any = SimpleNamespace(number=0, process=process)
        self.target = dispatch._Target(worker)
        liveness = SimpleNamespace(disk_since=lambda _n: self.since_ms)
        self._dispatch: Any = SimpleNamespace(
            _shared=SimpleNamespace(liveness=liveness),
            _wants_processor=Dispatch._wants_processor,
        )
        monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def is_blocked(self) -> bool:
        return Dispatch._is_in_call(self._dispatch, self.target)


def test_a_worker_that_waits_for_the_disk(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Target(monkeypatch)
    assert not one.is_blocked()
    one.since_ms = 1_000_000 - 300
    # Nobody is sent there, and it may be over in a moment.
    assert one.is_blocked()
    assert told(caplog) == []
    one.now_s += 1
    assert one.is_blocked()
    assert one.is_blocked()
    one.since_ms = 0
    assert not one.is_blocked()
    assert not one.is_blocked()
    waits, through = errors(caplog)
    assert waits.startswith("worker 0 waits for the disk for 1.3 s: it gets no connections until ")
    assert through == "worker 0 is through with the disk"


def test_one_file_call_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is seen: a call that computes and sleeps by turns is not through in between."""
    one = Target(monkeypatch)
    one.since_ms = 1_000_000 - 2000
    for n in range(40):
        one.runs = bool(n % 2)
        assert one.is_blocked() is not one.runs
    assert len(told(caplog)) == 1
    # It is through, and the next call takes long, too.
    one.since_ms, one.runs = 1_000_000 - 1500, False
    assert one.is_blocked()
    one.since_ms = 0
    one.is_blocked()
    assert ["is through with" in text for text in errors(caplog)] == [True, False, True]


def test_a_worker_that_waits_for_a_processor_does_not_wait_for_the_disk(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Target(monkeypatch)
    one.since_ms, one.runs = 1, True
    assert not one.is_blocked()
    assert told(caplog) == []


def test_who_wants_a_processor_can_be_seen() -> None:
    for text, runs in (("while True: pass", True), ("import time; time.sleep(600)", False)):
        with subprocess.Popen([sys.executable, "-c", text]) as child:
            seen = Process(child.pid)
            wait_for(lambda: seen.is_runnable() is runs, "its state")  # noqa: B023
            child.kill()
    assert not seen.is_runnable()


def test_accepting(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[Callable[[], None]] = []
    loop: dict[str, Any] = {
        "add_reader": lambda *_: None, "remove_reader": lambda _fd: None,
        "call_later": lambda _s, call, *more: later.append(lambda: call(*more)),
    }  # fmt: skip
    (listening,) = bind(["127.0.0.1"], 0)
    acceptor = Acceptor(
        listening, lambda *_: None, turned_away=lambda *_: None, has_room=lambda: True, **loop
    )
    with contextlib.closing(acceptor):
        acceptor.listen()
        for _ in range(2):
            acceptor._rest(OSError(errno.EMFILE, "Too many open files"))
        for call in later:
            call()
        assert vars(caplog.records[-1])["concludes"]
        first, second, over = errors(caplog)
        assert "cannot accept: Too many open files" in first + second
        assert over == "accepting goes on: nothing was lacking for 5 s"


def test_the_index(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    index: Any = SimpleNamespace(state=0, lines=3, size=1 << 20)
    index.set_state = lambda state: setattr(index, "state", state)
    indexing = Indexing(a_store(), index, "run")
    indexing._extended(True)
    ((level, text),) = told(caplog)
    assert (level, "is built" in text) == (logging.INFO, True)
    indexing._failed(OSError(errno.EIO, "Input/output error"))
    assert index.state == LineIndex.READY
    indexing._extended(True)
    cannot, built = errors(caplog)
    assert cannot.startswith("cannot extend the index")
    assert "is built" in built


def test_instances_that_could_not_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    stored = 7
    jobs: Any = SimpleNamespace(
        _failed_at=0.0, _stored_then=0, _shown=str,
        _setup=SimpleNamespace(worker=0),
        _shared=SimpleNamespace(
            rows=SimpleNamespace(totals=lambda _worker: Counts(stored, 0, 0, 0))
        ),
    )  # fmt: skip
    jobs._failed = lambda: Jobs._failed(jobs)
    Jobs.watch(jobs, time.monotonic())
    Jobs.file_error(jobs, "write a part file", errno.ENOSPC, "x")
    assert len(errors(caplog)) == 1
    # Nothing came since, then something did, and soon; then long ago.
    Jobs.watch(jobs, time.monotonic() + 60)
    stored = 9
    Jobs.watch(jobs, time.monotonic() + 1)
    assert told(caplog) == []
    for _ in range(2):
        Jobs.watch(jobs, time.monotonic() + 60)
    # What was counted of the failures is told before.
    assert [vars(record)["concludes"] for record in caplog.records] == [True]
    assert errors(caplog) == ["storing again: 2 instances since the last file call that failed"]

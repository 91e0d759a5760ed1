"""What dead workers logged is recovered by main, however often that takes."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.errors import StartError
from fastscp.main import remains as remaining
from fastscp.main.backoff import BackOff
from fastscp.main.remains import Remains
from fastscp.main.spawn import how
from fastscp.main.storewatch import Look, SpaceState, StoreWatch, look
from fastscp.main.workers import Workers
from fastscp.messages.worker import CHECKPOINT_FAILED
from fastscp.store.redo.recovery import Recovered
from fastscp_ext import Shared
from tests.redo_files import FOLDER, Put, batch, line_of, write_log
from tests.stores import opened
from tests.unit.test_survival import a_store

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

P = "st/se/p.dcm"


class Played:
    """A store whose recovery the test plays."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.asked: list[Collection[str]] = []
        self.store = a_store(recover_beside=self._recover)
        shared: Any = SimpleNamespace(doubts=None)
        self.remains = Remains(self.store, shared, "run")

    def _recover(self, distrust: Collection[str], _doubts: None) -> Recovered:
        self.asked.append(sorted(distrust))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return Recovered(logs=1, records=2, restored=1)


async def until(tried: int, played: Played) -> None:
    async with asyncio.timeout(60):
        while len(played.asked) < tried or played.store.unrecovered:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_a_recovery_that_fails_is_tried_until_it_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BackOff, "failed", lambda _self: 0.001)
    damaged = StartError("the redo log is damaged")
    played = Played(damaged, damaged, OSError(errno.EIO, "Input/output error"), KeyError("a bug"))

    async def use() -> None:
        await played.remains.recover("run-w0-1", distrust=True)
        # The first try is through.
        assert played.asked[0] == ["run-w0-1"]
        await until(5, played)

    asyncio.run(use())
    assert played.asked == [["run-w0-1"]] * 5
    assert caplog.text.count("cannot recover the redo log of a dead worker") == 3
    assert caplog.text.count("the redo log is damaged") == 1
    assert "KeyError" in caplog.text
    assert "recovered 2 instances from the redo log" in caplog.text


def test_of_lives_that_are_recovered_nothing_is_distrusted_any_more() -> None:
    played = Played()

    async def use() -> None:
        await played.remains.recover("run-w0-1", distrust=True)
        await played.remains.recover("run-w0-2")

    asyncio.run(use())
    assert played.asked == [["run-w0-1"], []]


def test_who_dies_while_another_one_is_recovered_is_recovered_as_well() -> None:
    goes_on = threading.Event()
    played = Played()
    recover = played.store.recover_beside

    def slow(distrust: Collection[str], doubts: None) -> Recovered:
        goes_on.wait(60)
        result: Recovered = recover(distrust, doubts)
        return result

    played.store.recover_beside = slow

    async def use() -> None:
        first = asyncio.create_task(played.remains.recover("run-w0-1"))
        await asyncio.sleep(0)
        second = asyncio.create_task(played.remains.recover("run-w1-1", distrust=True))
        await asyncio.sleep(0)
        goes_on.set()
        await asyncio.gather(first, second)
        await until(2, played)

    asyncio.run(use())
    # The first one asks late enough to hear of the second.
    assert played.asked == [["run-w1-1"], ["run-w1-1"]]


def test_what_the_service_cannot_recover_is_said_at_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BackOff, "failed", lambda _self: 0.02)
    played = Played(*[StartError("the redo log is damaged")] * 1000)

    async def use() -> tuple[bool, bool]:
        before = await Played().remains.settled(60)
        await played.remains.recover("run-w0-1")
        after = await played.remains.settled(60)
        tried = len(played.asked)
        # The store is given back meanwhile: nobody is at it any more.
        await asyncio.sleep(0.1)
        assert len(played.asked) == tried
        return before, after

    assert asyncio.run(use()) == (True, False)
    assert "stays in /" in caplog.text
    assert ".fastscp/redo (the redo log is damaged): put the cause right; the next" in caplog.text


def test_a_recovery_that_hangs_keeps_nobody_from_going_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remaining, "_RECOVERY_S", 0.01)
    goes_on = threading.Event()
    played = Played()
    played.store.recover_beside = lambda *_: goes_on.wait(60) and Recovered()

    async def use() -> None:
        await played.remains.recover()
        assert "takes longer than 0.01 s" in caplog.text
        assert not await played.remains.settled(0.01)
        assert ".fastscp/redo (recovering it takes longer than 0.01 s)" in caplog.text
        goes_on.set()
        assert await played.remains.settled(60)

    asyncio.run(use())


@pytest.mark.parametrize(
    ("code", "wanted"), [(CHECKPOINT_FAILED, ["run-w0-1"]), (-9, []), (1, []), (None, [])]
)
def test_a_worker_whose_flush_failed_says_so_with_its_exit_code(
    code: int | None, wanted: list[str]
) -> None:
    played = Played()
    workers: Any = SimpleNamespace(remains=played.remains)
    worker: Any = SimpleNamespace(life="run-w0-1")
    asyncio.run(Workers._recover(workers, worker, code))
    assert played.asked == [wanted]


def test_what_cannot_be_recovered_counts_as_lost() -> None:
    watch = StoreWatch(0)
    state, said = watch.judge(Look(1 << 30, None, None, "no disk"))
    assert state is SpaceState.LOST
    assert "cannot be put in place: no disk; instances are answered A700" in said
    state, said = watch.judge(Look(1 << 30, None))
    assert state is SpaceState.FINE
    assert said.startswith("the redo log is recovered, 1024 MiB free")


def test_an_exit_code_has_its_words() -> None:
    # Not each of them was the disk's.
    assert how(CHECKPOINT_FAILED) == "exit code 75: it gave its redo log up, as it has said"


def test_a_dead_worker_s_log_beside_a_service(tmp_path: Path) -> None:
    """With the store itself: a file that was named is flushed, and gets its line."""
    with opened(tmp_path / "store") as store:
        log = write_log(
            store.path, "6a-w0-1", [batch(1, [Put(5, P, b"x"), Put(6, f"{P}2", b"y")])],
            store_id=store.id,
        )  # fmt: skip
        (store.path / P).parent.mkdir(parents=True)
        (store.path / P).write_bytes(b"x")
        shared = Shared()

        async def use() -> None:
            await Remains(store, shared, "6a").recover("6a-w0-1")

        asyncio.run(use())
        assert not log.exists()
        (segment,) = (store.path / ".fastscp/journal").glob("*.jsonl")
        assert segment.read_bytes() == line_of(5, P, b"x")
        assert not (store.path / f"{P}2").exists()
        assert look(store).unrecovered == ""

        log = write_log(store.path, "6a-w0-2", [], store_id="other")
        remains = Remains(store, shared, "6a")

        async def fail() -> None:
            await remains.recover("6a-w0-2")

        asyncio.run(fail())
        assert "is of the store with the id other" in look(store).unrecovered
        assert log.exists()
        os.rename(store.path / FOLDER, store.path / ".fastscp/elsewhere")
        asyncio.run(fail())
        assert look(store).unrecovered == ""

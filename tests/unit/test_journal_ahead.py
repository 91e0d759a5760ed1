"""The journal files of a worker that does not flush: opened, watched and closed beside its loop."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.store.journal import Segments
from fastscp.store.names import JOURNAL
from fastscp.worker.journal import JournalAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

SECONDS = 20


class Site:
    """A store's journal folder and what a reception would have."""

    def __init__(self, folder: Path, *, prepared: bool) -> None:
        self.journal = folder / JOURNAL
        self.journal.mkdir(parents=True)
        self.store_fd = os.open(folder, os.O_RDONLY)
        self.segments = Segments(self.store_fd, "1", "w0", durable=False)
        self.opened = 0
        self.removed: list[int] = []
        self.ahead = JournalAhead(self.segments, opened=self._is_open, removed=self.removed.append)
        if prepared:
            self.ahead.prepare()

    def _is_open(self) -> None:
        self.opened += 1

    def names(self) -> list[str]:
        return sorted(os.listdir(self.journal))

    async def until(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not look():  # noqa: ASYNC110 - what is looked at has no event
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.ahead.close()
        os.close(self.store_fd)


def name_of(fd: int) -> str:
    return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]]:
    """Runs a test in a loop whose thread opens, closes and looks at nothing."""
    before = sorted(os.listdir("/proc/self/fd"))
    at_work = [False]

    def guard(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if at_work[0] and threading.current_thread() is threading.main_thread():
                at_work[0] = False
                pytest.fail(f"os.{name} on the loop")
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "close", "fstat", "unlink"):
        guard(name)

    def running(test: Callable[[Site], Coroutine[Any, Any, None]], prepared: bool = True) -> None:
        async def whole() -> None:
            at_work[0] = True
            try:
                await test(site)
            finally:
                at_work[0] = False

        site = Site(tmp_path, prepared=prepared)
        try:
            asyncio.run(whole())
        finally:
            site.close()

    yield running
    assert sorted(os.listdir("/proc/self/fd")) == before


Run = Any


def test_one_is_always_at_hand(tmp_path: Path, run: Run) -> None:
    async def test(site: Site) -> None:
        assert site.names() == ["1-w0-1.jsonl"]
        first, size = site.ahead.next()
        assert (name_of(first), size) == ("1-w0-1.jsonl", 0)
        await site.until(lambda: site.opened == 1)
        second, _ = site.ahead.next()
        assert name_of(second) == "1-w0-2.jsonl"
        await site.until(lambda: site.opened == 2)
        # The first one is closed by now: its helper did that before it opened another.
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.set_inheritable(first, False)
        os.write(second, b"line\n")

    run(test)
    # The one that nobody needed is gone again.
    assert sorted(os.listdir(tmp_path / JOURNAL)) == ["1-w0-1.jsonl", "1-w0-2.jsonl"]


def test_nobody_who_writes_nothing_has_a_file(tmp_path: Path, run: Run) -> None:
    """Nor a thread: a worker whose instances are all flushed pays nothing."""

    async def unused(site: Site) -> None:
        threads = threading.active_count()
        for _ in range(3):
            site.ahead.watch()
            await asyncio.sleep(0)
        assert (site.names(), threading.active_count()) == ([], threads)

    async def late(site: Site) -> None:
        with pytest.raises(BlockingIOError):
            site.ahead.next()
        await site.until(lambda: site.opened == 1)
        assert name_of(site.ahead.next()[0]) == "1-w0-1.jsonl"
        site.ahead.watch()
        await site.until(lambda: site.opened == 2)

    run(unused, prepared=False)
    assert os.listdir(tmp_path / JOURNAL) == []
    (tmp_path / JOURNAL).rmdir()
    run(late, prepared=False)
    assert os.listdir(tmp_path / JOURNAL) == ["1-w0-1.jsonl"]


def test_one_that_is_not_there_yet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    async def test(site: Site) -> None:
        real = site.segments.open

        def slow() -> int:
            gate.wait(SECONDS)
            return real()

        monkeypatch.setattr(site.segments, "open", slow)
        site.ahead.next()
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                site.ahead.next()
        assert site.opened == 0
        gate.set()
        await site.until(lambda: site.opened == 1)
        assert name_of(site.ahead.next()[0]) == "1-w0-2.jsonl"

    run(test)


def test_one_that_cannot_be_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told why, once; the next one has a new attempt."""

    async def test(site: Site) -> None:
        real = site.segments.open
        told: list[int | None] = []
        waits = [False]

        def fail() -> int:
            raise OSError(errno.ENOSPC, "full")

        def opened() -> None:
            site.opened += 1
            if waits[0]:
                try:
                    site.ahead.next()
                except OSError as error:
                    told.append(error.errno)

        monkeypatch.setattr(site.segments, "open", fail)
        monkeypatch.setattr(site.ahead, "_opened", opened)
        site.ahead.next()
        await site.until(lambda: site.opened == 1)
        waits[0] = True
        with pytest.raises(BlockingIOError):
            site.ahead.next()
        await site.until(lambda: site.opened == 2)
        assert told == [errno.ENOSPC]
        waits[0] = False
        monkeypatch.setattr(site.segments, "open", real)
        with pytest.raises(BlockingIOError):
            site.ahead.next()
        await site.until(lambda: site.opened == 3)
        assert name_of(site.ahead.next()[0]) == "1-w0-2.jsonl"

    run(test)


def test_files_that_were_removed(run: Run) -> None:
    async def test(site: Site) -> None:
        first, _ = site.ahead.next()
        await site.until(lambda: site.opened == 1)
        site.ahead.watch()
        await asyncio.sleep(0)
        await site.until(lambda: not site.ahead._watching)
        assert site.removed == []
        for name in site.names():
            (site.journal / name).rename(site.journal.parent / "removed")
        os.remove(site.journal.parent / "removed")
        site.ahead.watch()
        await site.until(lambda: site.opened == 2)
        assert site.removed == [first]
        assert site.names() == ["1-w0-3.jsonl"]
        assert name_of(site.ahead.next()[0]) == "1-w0-3.jsonl"

    run(test)


@pytest.mark.parametrize("folder", [False, True])
def test_files_that_lie_elsewhere(run: Run, folder: bool) -> None:
    """Behind a link, or in the folder that was the journal's: they still have names."""

    async def test(site: Site) -> None:
        first, _ = site.ahead.next()
        await site.until(lambda: site.opened == 1)
        aside = site.journal.with_name("aside")
        if folder:
            site.journal.rename(aside)
            site.journal.mkdir()
        else:
            aside.mkdir()
            for name in site.names():
                (site.journal / name).rename(aside / name)
                (site.journal / name).symlink_to(aside / name)
        site.ahead.watch()
        await site.until(lambda: site.opened == 2)
        assert site.removed == [first]
        assert name_of(site.ahead.next()[0]) == "1-w0-3.jsonl"

    run(test)

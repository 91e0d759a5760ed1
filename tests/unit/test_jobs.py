"""Comparing and compressing beside the loop: in turns, and without a thread that waits."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.store import duplicates, restore
from fastscp.store.compress import SLICE, PartCompression
from fastscp.store.journal import append_fact
from fastscp.store.names import JOURNAL, REPLACED
from fastscp.store.waits import take_lock, turn_of
from fastscp.worker.jobs import Jobs
from fastscp.worker.turns import Lane, Turns
from fastscp_ext import Shared, build_meta, status
from tests.kit import CT, ELE, data_set

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 20
# One for all: whoever knows a worker's jobs, as a logged traceback does, keeps it open.
SHARED = Shared()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not look():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)


# Turns -------------------------------------------------------------------------------------------


def test_associations_take_turns() -> None:
    turns: Turns[str] = Turns()
    assert not turns
    for n in range(4):
        turns.add(1, f"a{n}")
    turns.add(2, "b0")
    assert turns.take() == "a0"
    turns.add(3, "c0")
    turns.add(2, "b1")
    assert [turns.take() for _ in range(6)] == ["b0", "a1", "c0", "b1", "a2", "a3"]
    assert not turns


def test_a_lane_keeps_its_threads_busy_and_survives_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> list[tuple[int, object]]:
        found: list[tuple[int, object]] = []
        gate = threading.Event()

        def work(item: int) -> int:
            gate.wait(SECONDS)
            return 10 // item

        def done(item: int, future: asyncio.Future[int]) -> None:
            found.append((item, future.exception() or future.result()))
            if item == 3:
                raise RuntimeError("no idea")

        lane = Lane("test", 2, work, done)
        for item in (1, 0, 3, 5):
            lane.add(7, item)
        gate.set()
        await until(lambda: len(found) == 4)
        await asyncio.to_thread(lane.close)
        return found

    found = asyncio.run(run())
    assert {item: result for item, result in found if item} == {1: 10, 3: 3, 5: 2}
    assert "an instance was lost to a bug" in caplog.text


# Jobs --------------------------------------------------------------------------------------------


class Waiting:
    """Stands for a Duplicate or a Compression; keeps what it was told."""

    def __init__(self, told: list[Any], part: str, path: str, association: int) -> None:
        self.part = part
        self.path = path
        self.association = association
        self.digest = ""
        self.rules = SimpleNamespace(on_duplicate="version", durable=False, compress_level=1)
        self._told = told

    def accept(self, kind: str, path: str, lock_fd: int) -> None:
        self._told.append((self.part, kind, path))
        os.close(lock_fd)

    def refuse(self, code: int, comment: bytes, error_no: int) -> None:
        self._told.append((self.part, "refused", code))

    def done(self, part: str, fd: int) -> None:
        os.close(fd)
        self._told.append((self.part, "compressed", part))

    def failed(self, error_no: int) -> None:
        self._told.append((self.part, "failed", error_no))


class Site:
    """A store with one instance in it, and the jobs of a worker. Made inside a loop."""

    def __init__(self, folder: Path) -> None:
        self.incoming = folder / ".fastscp" / "incoming"
        self.incoming.mkdir(parents=True)
        self.folder = folder
        self.fds = [os.open(one, os.O_RDONLY) for one in (folder, self.incoming)]
        setup: Any = SimpleNamespace(
            use_link=False, suspect=False, run="r", life="r-w0", worker=0,
            config=SimpleNamespace(layout="{SOPInstanceUID}"),
        )  # fmt: skip
        self.jobs = Jobs(setup, self.fds[0], self.fds[1], SHARED)
        self.told: list[Any] = []

    def waiting(self, part: str, path: str, seed: int = 0, association: int = 1) -> Any:
        header = build_meta(CT.encode(), b"1.2.3", ELE.encode(), b"1.9", b"V", b"S", b"US")
        (self.incoming / part).write_bytes(header + data_set(seed=seed))
        if not (self.folder / path).exists():
            (self.folder / path).write_bytes(header + data_set())
        return Waiting(self.told, part, path, association)

    async def settled(self) -> None:
        await until(lambda: self.jobs.under_way == 0)

    async def close(self) -> None:
        await asyncio.to_thread(self.jobs.close)
        for fd in self.fds:
            os.close(fd)


@pytest.mark.usefixtures("no_descriptor_left")
def test_one_path_after_the_other_has_its_line(tmp_path: Path) -> None:
    """The next duplicate of a path begins when the lock of the one before is given back."""

    async def run() -> None:
        site = Site(tmp_path)
        for n in range(3):
            site.jobs.compare(site.waiting(f"{n}.part", "1.dcm", seed=1 + n, association=n))
        for n in range(3):
            # Another path has its turn in between, and the next one of this has not.
            site.jobs.compare(site.waiting(f"other{n}.part", f"other{n}.dcm"))
            await until(lambda: len(site.told) == 2)
            assert {part for part, *_ in site.told} == {f"{n}.part", f"other{n}.part"}
            assert ("version", f"1.dcm~{n + 2}") in [tuple(what) for _, *what in site.told]
            site.told.clear()
            site.jobs.unlocked(turn_of(f"other{n}.dcm"))
            site.jobs.unlocked(turn_of("1.dcm"))
        await site.settled()
        await site.close()

    asyncio.run(run())


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_lock_that_another_worker_has_keeps_no_thread(tmp_path: Path) -> None:
    """More paths are locked elsewhere than there are helper threads; the others are settled."""

    async def run() -> None:
        site = Site(tmp_path)
        taken = [f"{n}.dcm" for n in range(4)]
        locks = {turn_of(path): path for path in taken}
        held = [take_lock(site.fds[0], number) for number in locks]
        for n, path in enumerate(taken):
            site.jobs.compare(site.waiting(f"{n}.part", path, association=n))
        free = next(p for n in range(1000) if turn_of(p := f"free{n}.dcm") not in locks)
        site.jobs.compare(site.waiting("free.part", free, association=9))
        await until(lambda: site.told)
        assert site.told == [("free.part", "identical", free)]
        site.jobs.unlocked(turn_of(free))
        assert site.jobs.under_way == 4
        for fd in held:
            os.close(fd)
        await site.settled()
        assert {part for part, *_ in site.told} == {"free.part", *(f"{n}.part" for n in range(4))}
        await site.close()

    asyncio.run(run())


@pytest.mark.usefixtures("no_descriptor_left")
def test_replacements_that_fail_alike_are_counted_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the names of the files are."""
    doubts = SimpleNamespace(leave=lambda _path: None)
    jobs: Any = SimpleNamespace(_shown=lambda path: path, _doubts=doubts)
    job: Any = SimpleNamespace(
        path="a", settlement=SimpleNamespace(unsure=False, decided=True, beside=False)
    )
    for n in range(2):
        error = OSError(errno.EIO, "I/O error", f"{REPLACED}/{n:032}.record")
        Jobs._tell_left(jobs, job, error)
    one, other = (vars(line)["caused"].kind for line in caplog.records)
    assert one == other
    assert "0000.record" not in one


def test_a_single_duplicate_does_not_wait_for_hundreds_of_another_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    attempt = duplicates.Resolution.attempt

    def gated(resolution: duplicates.Resolution) -> duplicates.Outcome | None:
        gate.wait(SECONDS)
        return attempt(resolution)

    monkeypatch.setattr(duplicates.Resolution, "attempt", gated)

    async def run() -> None:
        site = Site(tmp_path)
        # Paths whose locks differ, so that nothing but the threads is between them.
        paths: dict[int, str] = {}
        for n in range(5000):
            paths.setdefault(turn_of(f"{n}.dcm"), f"{n}.dcm")
        first, *many = list(paths.values())[:200]
        # In the order of their turns: which thread is through first is for the system to say.
        begun: list[str] = []
        turns = site.jobs._comparisons._turns
        take = turns.take

        def noted() -> Any:
            job: Any = take()
            begun.append(job.duplicate.part)
            return job

        monkeypatch.setattr(turns, "take", noted)
        for n, path in enumerate(many):
            site.jobs.compare(site.waiting(f"{n}.part", path))
        site.jobs.compare(site.waiting("single.part", first, association=2))
        gate.set()
        await site.settled()
        # Two are in the threads already, and one more may have its turn.
        assert begun.index("single.part") <= 3
        assert len(site.told) == len(begun) == 200
        await site.close()

    asyncio.run(run())


@pytest.mark.usefixtures("no_descriptor_left")
def test_long_compressions_delay_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    take_slice = PartCompression.take_slice

    def long(compression: PartCompression) -> tuple[str, int] | None:
        gate.wait(SECONDS)
        return take_slice(compression)

    monkeypatch.setattr(PartCompression, "take_slice", long)

    async def run() -> None:
        site = Site(tmp_path)
        for n in range(8):
            site.jobs.compress(site.waiting(f"{n}.part", "9.dcm"))
        site.jobs.compare(site.waiting("a.part", "1.dcm", association=2))
        await until(lambda: site.told)
        assert site.told == [("a.part", "identical", "1.dcm")]
        gate.set()
        await site.settled()
        assert len(site.told) == 9
        await site.close()

    asyncio.run(run())


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_small_compression_waits_for_a_few_slices_of_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many large ones four are begun, and each gives way after a slice."""
    gate = threading.Event()
    taken: list[PartCompression] = []
    begun: set[PartCompression] = set()
    most = 0
    take_slice = PartCompression.take_slice

    def noted(compression: PartCompression) -> tuple[str, int] | None:
        nonlocal most
        gate.wait(SECONDS)
        taken.append(compression)
        begun.add(compression)
        most = max(most, len(begun))
        made = take_slice(compression)
        if made is not None:
            begun.discard(compression)
        return made

    monkeypatch.setattr(PartCompression, "take_slice", noted)

    async def run() -> None:
        site = Site(tmp_path)
        large = [site.waiting(f"{n}.part", "9.dcm", association=n) for n in range(8)]
        for waiting in large:
            with (site.incoming / waiting.part).open("wb") as part:
                part.truncate(20 * SLICE)
            site.jobs.compress(waiting)
        # Every large one had its look, and as many as may be are begun.
        await until(lambda: site.jobs._large == 4 and len(site.jobs._large_later._waiting) == 4)
        site.jobs.compress(site.waiting("small.part", "1.dcm", association=99))
        gate.set()
        await until(lambda: site.told)
        # Two were in the threads, four go before it, and some more end while this loop hears it.
        assert site.told[0][0] == "small.part"
        assert len(taken) < 8 * 20
        await site.settled()
        assert len(site.told) == 9
        assert {what for _part, what, *_ in site.told} == {"compressed"}
        assert len(taken) == 8 * 20 + 1
        # The small one is no large one.
        assert most <= 5
        await site.close()

    asyncio.run(run())


class Refused:
    """Stands for a Replacement whose newer instance was refused."""

    refused = True

    def __init__(self, told: list[Any], path: str) -> None:
        self.path = path
        self.association = 1
        self.rules = SimpleNamespace(durable=True)
        self._told = told

    def settled(self, error_no: int) -> None:
        self._told.append((self.path, error_no))


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("count", [3, 20])
def test_the_journal_is_read_once_for_all_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    gate = threading.Event()
    read: list[int] = []
    settle, known_of = Jobs._settle, restore._known_of

    def gated(jobs: Jobs, job: Any) -> Any:
        gate.wait(SECONDS)
        return settle(jobs, job)

    def noted(store_fd: int, records: Any) -> Any:
        read.append(len(records))
        return known_of(store_fd, records)

    monkeypatch.setattr(Jobs, "_settle", gated)
    monkeypatch.setattr(restore, "_known_of", noted)
    monkeypatch.setattr(restore, "Doubt", lambda _batches: SimpleNamespace(look=lambda: None))

    async def run() -> None:
        site = Site(tmp_path)
        (tmp_path / JOURNAL).mkdir()
        paths = [f"{n}.dcm" for n in range(count)]
        header = build_meta(CT.encode(), b"1.2.3", ELE.encode(), b"1.9", b"V", b"S", b"US")
        with (tmp_path / JOURNAL / "0-w0-1.jsonl").open("ab") as file:
            for path in paths:
                (tmp_path / path).write_bytes(header + data_set())
                fact = {"v": 1, "event": "stored", "seq": 0, "path": path, "bytes": 1}
                append_fact(file.fileno(), fact)
        for path in paths:
            site.jobs._replaced.keep(path, turn_of(path))
            (tmp_path / path).unlink()
            replacement: Any = Refused(site.told, path)
            site.jobs.replaced(replacement)
        gate.set()
        await site.settled()
        assert sorted(site.told) == sorted((path, 0) for path in paths)
        assert all((tmp_path / path).read_bytes() == header + data_set() for path in paths)
        await site.close()

    asyncio.run(run())
    assert read == [count]


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_bug_answers_its_sender_and_hurts_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    identical = duplicates.Resolution._is_identical

    def buggy(resolution: duplicates.Resolution, path: str) -> bool:
        if resolution._part == "0.part":
            raise RuntimeError("no idea")
        return identical(resolution, path)

    monkeypatch.setattr(duplicates.Resolution, "_is_identical", buggy)

    async def run() -> None:
        site = Site(tmp_path)
        for n in range(2):
            site.jobs.compare(site.waiting(f"{n}.part", "1.dcm"))
        await site.settled()
        # Its lock was given back, and the next one has been through.
        assert site.told == [
            ("0.part", "refused", status.OUT_OF_RESOURCES), ("1.part", "identical", "1.dcm")
        ]  # fmt: skip
        await site.close()

    asyncio.run(run())
    assert "cannot compare 1.dcm" in caplog.text
    # The traceback in there knows the jobs.
    caplog.clear()

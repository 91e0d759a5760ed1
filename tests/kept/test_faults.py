"""Disks that fill up, break or go away: the right status, a line that helps, and life goes on."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.errors import reason_for
from fastscp.main.descriptors import main_needs, worker_needs
from fastscp_ext import reason_of
from tests.kept.kit_kept import (
    BEGIN,
    CLOSE,
    FAIL,
    FLUSH,
    HOLD_BEFORE,
    LINK,
    LOOK,
    MKDIR,
    OPEN,
    RENAME,
    SHORT,
    WRITE,
    Interposed,
    Item,
    items,
    send_all,
    standing_still,
)
from tests.kit import (
    Peer,
    Service,
    associate_rq,
    data_set,
    message,
    reject,
    store,
    store_rq,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
FULL: Final = (errno.ENOSPC, errno.EDQUOT)

# Step -> call, part of its path, what the log calls it, whether the file has its name by then.
STEPS: Final = {
    "create a part file": (OPEN, ".part", False, (*DISK, errno.EMFILE)),
    "write a part file": (WRITE, ".part", False, DISK),
    "flush a part file": (FLUSH, ".part", False, DISK),
    "open or make the directory of an instance": (MKDIR, "/store/1.2.", False, DISK),
    "give an instance its final name": (RENAME, "/store/1.2.", False, DISK),
    # What more there is to it: test_unflushed.py.
    "flush a directory": (FLUSH, "/store/1.2.", True, FULL),
    "write the journal": (WRITE, ".jsonl", True, DISK),
}
CASES: Final = [
    (step, kind, path, named, error)
    for step, (kind, path, named, errors) in STEPS.items()
    for error in errors
] + [
    # The same step to the operator, another call.
    ("flush a part file", CLOSE, ".part", False, errno.EFBIG),
    ("open or make the directory of an instance", LOOK, "/store/1.2.", False, errno.EMFILE),
    ("write the journal", FLUSH, ".jsonl", True, errno.ENOLCK),
]
# The same of parts that have no names. What they are called is for the log.
NAMELESS: Final = [
    (step, {RENAME: LINK}.get(kind, kind), path.replace(".part", "/incoming/"), named, error)
    for step, kind, path, named, error in CASES
    if kind != CLOSE
]
ADVICE: Final = {
    errno.ENOLCK: "see /proc/locks",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota",
    errno.EIO: "check it and the kernel's log",
    errno.EROFS: "remount it",
    errno.EMFILE: "raise the limit of open files",
    errno.ENOENT: "is it still mounted?",
}


def segments(service: Service) -> int:
    return len(list((service.store / ".fastscp/journal").iterdir()))


def answered(peer: Peer, number: int, item: Item) -> tuple[int, str]:
    """The status of a C-STORE, and its Error Comment."""
    peer.send(store(number, item.data, sop=item.sop))
    response = peer.read_response()
    return response.status, response.command.error_comment or ""


def put(peer: Peer, number: int, item: Item) -> int:
    return answered(peer, number, item)[0]


def _told(service: Service, *texts: str) -> str:
    """Wait for a log line with all of these, and return it."""

    def look() -> str:
        lines = service.log().splitlines()
        return next((line for line in lines if all(text in line for text in texts)), "")

    return wait_for(look, f"a log line with {texts}")


@pytest.mark.parametrize("nameless", [False, True])
def test_each_failure_costs_an_instance_and_nothing_else(
    tmp_path: Path, library: Path, nameless: bool
) -> None:
    with (
        Interposed(tmp_path, library, log=False, workers=1, nameless=nameless) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, items("0", 1)[0]) == 0
        cases = NAMELESS if nameless else CASES
        for number, (step, kind, path, named, error) in enumerate(cases, 1):
            service.control.clear()
            # Folders of its own, so that every step is met.
            failing, fine = items(f"{number}", 2, studies=2)
            if step == "flush a directory":
                # Except those above it, which get no new name.
                failing, fine, known = items(f"{number}", 3, studies=1, series=1)
                assert put(peer, 1, known) == 0
            before = segments(service)
            rule = service.control.rule([kind], FAIL, error=error, path=path, left=1)
            comment = reason_of(error) or "cannot store now"
            assert answered(peer, 1, failing) == (0xA700, comment), (step, error)
            assert service.control.hits(rule) == 1
            subject = (
                "0000" if step.endswith("a part file") and kind in (OPEN, WRITE) else (failing.path)
            )
            text = f"{reason_for(error)}; answered A700; "
            line = _told(service, f"cannot {step} ({subject}", text)
            assert ADVICE.get(error, "check the store's file system") in line
            # Before the name: no trace. After it: the file stays, and nobody relies on it.
            assert (failing.path in service.instances()) == named
            wait_for(lambda: not service.parts(), "no part left")
            # The same association goes on.
            assert put(peer, 2, fine) == 0
            assert put(peer, 3, failing) == 0
            assert service.data_of(failing.path) == failing.data
            fact = next(f for f in service.journal()[::-1] if f["path"] == failing.path)
            again = "replaced" if step == "flush a directory" else "identical"
            assert fact.get("duplicate") == (again if named else None)
            # A journal file that failed is left alone from then on.
            assert segments(service) == before + (step == "write the journal")
        peer.release()


def test_a_part_that_gets_no_name_to_be_compared_by(tmp_path: Path, library: Path) -> None:
    """It had none, for it was written at once."""
    first, other = (items("1", 1, seed=seed)[0] for seed in (0, 1))
    with (
        Interposed(tmp_path, library, log=False, workers=1, nameless=True) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, first) == 0
        rule = service.control.rule(
            [LINK], FAIL, error=errno.ENOSPC, path="/.fastscp/incoming/", left=1
        )
        assert put(peer, 2, other) == 0xA700
        assert service.control.hits(rule) == 1
        assert "free some space" in service.in_log(
            f"cannot give a part file its name ({other.path}"
        )
        assert service.parts() == []
        assert put(peer, 3, other) == 0
        assert service.instances() == [first.path, f"{first.path}~2"]
        peer.release()


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV, errno.ENOENT])
@pytest.mark.parametrize("path", ["/store/1.2.", "/.fastscp/incoming/"])
def test_names_that_are_refused_to_parts_without_one(
    tmp_path: Path, library: Path, path: str, error: int
) -> None:
    """Though the start found them allowed. It costs one instance: a rename is still allowed."""
    first, other = (items("1", 1, seed=seed)[0] for seed in (0, 1))
    with (
        Interposed(tmp_path, library, log=False, workers=1, nameless=True) as service,
        service.peer() as peer,
    ):
        rule = service.control.rule([LINK], FAIL, error=error, path=path)
        found = [put(peer, number, item) for number, item in enumerate((first, other) * 2, 1)]
        assert sorted(found) == [0, 0, 0, 0xA700]
        assert service.control.hits(rule) == 1
        assert reason_for(error) in service.in_log("; answered A700; ")
        service.ends_parts()
        assert service.instances() == [first.path, f"{first.path}~2"]
        peer.release()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_part_that_cannot_be_closed_is_not_stored(
    tmp_path: Path, library: Path, durability: str
) -> None:
    """Some file systems tell only then that they have no room; a mere signal tells nothing."""
    lost, interrupted = items("1", 2)
    flags = ("--durability", durability)
    with (
        Interposed(tmp_path, library, *flags, log=False, workers=1) as service,
        service.peer() as peer,
    ):
        control = service.control
        control.rule([CLOSE], FAIL, error=errno.EDQUOT, path=".part", left=1)
        assert put(peer, 1, lost) == 0xA700
        assert "raise the quota" in service.in_log(f"cannot flush a part file ({lost.path})")
        assert service.instances() == []
        service.ends_parts()
        control.rule([CLOSE], FAIL, error=errno.EINTR, path=".part", left=1)
        assert put(peer, 2, interrupted) == 0
        assert put(peer, 3, lost) == 0
        peer.release()


def test_a_failed_flush_is_not_tried_again(tmp_path: Path, library: Path) -> None:
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert put(peer, 9, items("9", 1)[0]) == 0
        for number, path in enumerate((".part", "/store/1.2.", ".jsonl"), 1):
            service.control.clear()
            (item,) = items(f"{number}", 1)
            rule = service.control.rule([FLUSH], FAIL, error=errno.EIO, path=path, left=1)
            before = segments(service)
            flushes = service.control.count(FLUSH)
            assert put(peer, number, item) == 0xA700
            assert service.control.hits(rule) == 1
            # Another try would have worked, and been a lie. The mark of a folder takes three.
            most = 8 if path == "/store/1.2." else 5
            assert service.control.count(FLUSH) - flushes <= most
            # The part is gone, and what comes again is written anew; into the folder nothing is.
            service.ends_parts()
            assert (item.path in service.instances()) == (path != ".part")
            assert put(peer, number, item) == (0xA700 if path == "/store/1.2." else 0)
            # A journal file whose flush failed gets no line any more.
            assert segments(service) - before == (path == ".jsonl")
        peer.release()


def test_a_journal_that_cannot_be_opened_again(tmp_path: Path, library: Path) -> None:
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        torn, second, third, fourth = items("1", 4)
        control = service.control
        # Half a line on a disk that fills up...
        short = control.rule([WRITE], SHORT, path=".jsonl", left=1)
        control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 1, torn) == 0xA700
        assert control.hits(short) == 1
        # ... then not even a new file ...
        control.rule([OPEN], FAIL, error=errno.ENOSPC, path=".jsonl", left=1)
        assert put(peer, 2, second) == 0xA700
        line = service.in_log(f"cannot write the journal ({second.path})")
        assert "free some space" in line
        # ... nor its name made durable ...
        control.rule([FLUSH], FAIL, error=errno.EDQUOT, path="/journal", left=1)
        assert put(peer, 3, third) == 0xA700
        assert "raise the quota" in service.in_log(f"cannot write the journal ({third.path})")
        # ... until it can be.
        for number, item in enumerate((fourth, torn, second, third), 4):
            assert put(peer, number, item) == 0
        peer.release()
        lines = [
            line
            for segment in (service.store / ".fastscp/journal").iterdir()
            for line in segment.read_bytes().splitlines(keepends=True)
        ]
        assert sum(not line.endswith(b"\n") for line in lines) == 1
        assert len(lines) == 5


def test_a_failed_folder_costs_only_its_own_instances(tmp_path: Path, library: Path) -> None:
    what = items("1", 24, studies=1, series=2)
    with Interposed(tmp_path, library, log=False, workers=1) as service:
        service.control.rule([FLUSH], FAIL, error=errno.EIO, path="/1.2.1.0/1.2.1.0.1")
        sent = send_all(service.port, what, associations=2, window=12)
        assert not sent.broken
        for item in what:
            broken = item.path.startswith("1.2.1.0/1.2.1.0.1/")
            assert sent.statuses[item.sop] == [0xA700 if broken else 0]
        fine = {item.path for item in what if not item.path.startswith("1.2.1.0/1.2.1.0.1/")}
        assert fine < set(service.instances())


def test_an_existing_instance_is_not_called_kept_without_a_journal_line(
    tmp_path: Path, library: Path
) -> None:
    (item,), (other,) = items("1", 1), items("1", 1, seed=9)
    flags = ("--on-duplicate", "keep")
    with (
        Interposed(tmp_path, library, *flags, log=False, workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, item) == 0
        service.control.rule([WRITE], FAIL, error=errno.EIO, path=".jsonl", left=1)
        assert put(peer, 2, other) == 0xA700
        assert put(peer, 3, other) == 0xB006
        assert service.data_of(item.path) == item.data
        peer.release()


def test_folders_that_vanish(tmp_path: Path) -> None:
    first, second, third, fourth = items("1", 4, studies=1, series=1)
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        assert put(peer, 1, first) == 0
        shutil.rmtree(service.store / first.path.split("/")[0])
        assert put(peer, 2, second) == 0
        assert service.instances() == [second.path]
        life = next(iter((service.store / ".fastscp/incoming").iterdir()))
        hidden = tmp_path / "hidden"
        life.rename(hidden)
        # It follows its own folder wherever that goes...
        assert put(peer, 3, third) == 0
        (hidden / "lock").rename(tmp_path / "lock")
        hidden.rmdir()
        # ... but not into nothing. Some file systems make a file without a name even there.
        status = put(peer, 4, fourth)
        if status == 0:
            assert service.data_of(fourth.path) == fourth.data
        else:
            assert status == 0xA700
            assert ADVICE[errno.ENOENT] in service.in_log("cannot create a part file")
        peer.release()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_journal_that_vanishes(tmp_path: Path, durability: str) -> None:
    first, second, third, fourth = items("1", 4)
    with (
        Service(tmp_path, "--durability", durability, workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, first) == 0
        folder = service.store / ".fastscp/journal"
        # Main looks every second, and has all refused then.
        with standing_still(service.pid):
            shutil.rmtree(folder)
            # The line would go into a file that nobody will ever read.
            if durability == "stable":
                assert put(peer, 2, second) == 0xA700
                assert ADVICE[errno.ENOENT] in service.in_log("cannot write the journal")
        assert "has lost its folder .fastscp/journal" in service.in_log("the store is gone")
        assert put(peer, 3, third) == 0xA700
        folder.mkdir()
        service.in_log("receiving without limits again")
        assert put(peer, 4, fourth) == 0
        assert [fact["path"] for fact in service.journal()] == [fourth.path]
        peer.release()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_a_journal_folder_that_is_moved_aside_and_replaced(tmp_path: Path, durability: str) -> None:
    """Lines that go where no reader looks are noticed: before the answer, or within a second."""
    first, second, third = items("1", 3)
    with (
        # With a log the lines go to the next segment as well, and nobody is refused.
        Service(tmp_path, "--durability", durability, "--redo", "off", workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, first) == 0
        folder = service.store / ".fastscp/journal"
        folder.rename(service.store / ".fastscp/journal-aside")
        folder.mkdir()
        if durability == "stable":
            assert put(peer, 2, second) == 0xA700
            assert ADVICE[errno.ENOENT] in service.in_log("cannot write the journal")
        # The line of each copy goes where it is found, once the file in use is not in its place.
        wait_for(lambda: put(peer, 3, third) == 0 and service.journal(), "a line in the new folder")
        assert {fact["path"] for fact in service.journal()} == {third.path}
        peer.release()


def test_a_store_that_is_moved_away_and_comes_back(tmp_path: Path) -> None:
    first, second, third, fourth = items("1", 4)
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        assert put(peer, 1, first) == 0
        away = tmp_path / "away"
        service.store.rename(away)
        service.store.mkdir()
        assert "mount it again" in service.in_log("the store is gone")
        assert put(peer, 2, second) == 0xA700
        rejected(service)
        assert list(service.store.iterdir()) == []
        service.store.rmdir()
        away.rename(service.store)
        service.in_log("receiving without limits again")
        assert put(peer, 3, third) == 0
        admitted(service, fourth)
        assert service.instances() == sorted(item.path for item in (first, third, fourth))
        peer.release()


def rejected(service: Service) -> None:
    with Peer(service.host, service.port) as peer:
        assert peer.associate(associate_rq()) == reject(2, 3, 1)
        peer.read_until_close()


def admitted(service: Service, item: Item) -> None:
    with service.peer() as peer:
        assert put(peer, 1, item) == 0
        peer.release()


def test_space_runs_short_and_comes_back(tmp_path: Path, library: Path) -> None:
    mib = 1 << 20
    what = items("1", 8)
    flags = ("--min-free-space", "100MiB")
    with (
        Interposed(tmp_path, library, *flags, log=False, workers=1) as service,
        service.peer() as peer,
    ):
        free = service.control.free
        free(150 * mib)
        service.in_log("reading at most")
        assert put(peer, 1, what[0]) == 0
        free(99 * mib)
        service.in_log("99 MiB free, below --min-free-space 100 MiB")
        assert put(peer, 2, what[1]) == 0xA700
        rejected(service)
        # A little more is not enough, or every file removed would let one instance in.
        free(109 * mib)
        rejected(service)
        assert put(peer, 3, what[2]) == 0xA700
        free(111 * mib)
        service.in_log("receiving again, reading at most")
        assert put(peer, 4, what[3]) == 0
        admitted(service, what[4])
        free(300 * mib)
        service.in_log("300 MiB free: receiving without limits again")
        assert put(peer, 5, what[5]) == 0
        peer.release()


def test_reading_slows_down_while_space_is_short(tmp_path: Path, library: Path) -> None:
    mib = 1 << 20
    what = items("1", 24, pixels=100_000)
    flags = ("--min-free-space", "100MiB")
    with Interposed(tmp_path, library, *flags, log=False, workers=1) as service:
        service.control.free(150 * mib)
        service.in_log("reading at most 1024 KiB/s")
        # More than a second's allowance: it is made to wait, and gets through.
        sent = send_all(service.port, what, associations=2)
        assert not sent.broken
        assert len(sent.acknowledged) == len(what)


def test_instances_above_the_size_limit(tmp_path: Path) -> None:
    exact, over = items("1", 2, pixels=3000)
    size = len(exact.data)
    assert len(over.data) == size
    bigger = items("2", 1, pixels=3002)[0]
    with (
        Service(tmp_path, "--max-instance-size", str(size), workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, bigger) == 0xA700
        assert put(peer, 2, exact) == 0
        assert service.instances() == [exact.path]
        wait_for(lambda: not service.parts(), "no part left")
        peer.release()


@contextlib.contextmanager
def mounted(point: Path, size: str) -> Iterator[None]:
    """A small file system in memory at a directory."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "fastscp-test", point], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.usefixtures("privileged")
def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    what = items("1", 60, pixels=100_000)
    with (
        mounted(disk, "2m"),
        Service(tmp_path, "--min-free-space", "0", store=disk / "store", workers=1) as service,
        service.peer() as peer,
    ):
        service.in_log("in memory")
        answers = [answered(peer, number, item) for number, item in enumerate(what, 1)]
        assert set(answers) == {(0, ""), (0xA700, "disk full")}
        good = [item for item, (status, _why) in zip(what, answers, strict=True) if not status]
        assert "free some space" in service.in_log("disk full; answered A700; ")
        for item in good:
            assert service.data_of(item.path) == item.data
        assert {f["path"] for f in service.journal()} == {item.path for item in good}
        (service.store / good[0].path).unlink()
        (service.store / good[1].path).unlink()
        again = next(i for i, (status, _why) in zip(what, answers, strict=True) if status)
        assert put(peer, 99, again) == 0
        peer.release()
        wait_for(lambda: not service.parts(), "no part left")


@pytest.mark.usefixtures("privileged")
def test_the_watermark_on_a_real_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    filler = disk / "filler"
    first, second, third = items("1", 3)
    with (
        mounted(disk, "8m"),
        Service(tmp_path, "--min-free-space", "3MiB", store=disk / "store", workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, 1, first) == 0
        filler.write_bytes(bytes(6 << 20))
        service.in_log("below --min-free-space")
        assert put(peer, 2, second) == 0xA700
        rejected(service)
        filler.unlink()
        service.in_log("receiving without limits again")
        assert put(peer, 3, third) == 0
        peer.release()


@pytest.mark.usefixtures("privileged")
def test_another_file_system_over_the_store(tmp_path: Path) -> None:
    first, second, third = items("1", 3)
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        assert put(peer, 1, first) == 0
        with mounted(service.store, "1m"):
            service.in_log("is another directory now")
            assert put(peer, 2, second) == 0xA700
            rejected(service)
            assert list(service.store.iterdir()) == []
        service.in_log("receiving without limits again")
        assert put(peer, 3, third) == 0
        assert service.instances() == sorted((first.path, third.path))
        peer.release()


def test_the_end_of_a_fault_needs_no_restart(tmp_path: Path, library: Path) -> None:
    what = items("1", 40)
    with Interposed(tmp_path, library, log=False) as service:
        rule = service.control.rule([WRITE, FLUSH, MKDIR], FAIL, error=errno.EIO, path="/store/")
        sent = send_all(service.port, what)
        assert not sent.broken
        assert {tuple(got) for got in sent.statuses.values()} == {(0xA700,)}
        assert service.instances() == []
        service.control.lift(rule)
        service.ends_parts()
        sent = send_all(service.port, what)
        assert sent.acknowledged == {item.sop for item in what}


def test_flushes_of_large_objects_do_not_hold_up_small_ones(tmp_path: Path, library: Path) -> None:
    with (
        Interposed(tmp_path, library, log=False, workers=1) as service,
        contextlib.ExitStack() as closed,
    ):
        # Parts 1 to 32, and the small one has number 33: the rules are for the others.
        large = [closed.enter_context(service.peer()) for _ in range(32)]
        rules = [
            service.control.rule([FLUSH], HOLD_BEFORE, path=path)
            for path in ("/0000000", "/0000001", "/00000020.part")
        ]
        for number, peer in enumerate(large):
            sop = f"1.2.9.{number}"
            data = data_set(sop=sop) + bytes(9 << 20)
            peer.send(message(store_rq(1, sop=sop), data, fragment=120_000))
        # Half of the threads are at it, and the rest stays free.
        wait_for(lambda: sum(map(service.control.hits, rules)) == 16, "the flushes of 16")
        with service.peer() as small:
            assert put(small, 1, items("1", 1)[0]) == 0
        assert sum(map(service.control.hits, rules)) == 16
        for rule in rules:
            service.control.lift(rule)
        for peer in large:
            assert peer.read_statuses(1) == [(1, 0)]


# Open files --------------------------------------------------------------------------------------

DEEP: Final = "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{Modality}/{SOPClassUID}/"


class Limited(Interposed):
    """A service that may open no more files than it counted, for ASSOCIATIONS in one worker."""

    ASSOCIATIONS: Final = 1000
    CONFIG: Final = ServeConfig(workers=1, layout=DEEP + "{SOPInstanceUID}.dcm")

    @classmethod
    def files(cls) -> int:
        return max(worker_needs(cls.CONFIG, cls.ASSOCIATIONS), main_needs(cls.CONFIG))

    @staticmethod
    def program() -> list[str]:
        shell = shutil.which("sh")
        assert shell is not None
        limit = f'ulimit -n {Limited.files()} && exec "$@"'
        return [shell, "-c", limit, "sh", sys.executable, "-m", "fastscp"]


@pytest.mark.long
def test_all_associations_meet_in_one_batch(tmp_path: Path, library: Path) -> None:
    """Each with one instance in folders of its own: more than one batch may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < Limited.files():
        pytest.skip(f"the hard limit of open files is {hard}")
    count = Limited.ASSOCIATIONS
    flags = (
        *("--layout", Limited.CONFIG.layout, "--max-associations", str(count)),
        *("--message-timeout", "300", "--min-free-space", "0"),
    )
    messages = []
    for number in range(count):
        study = f"1.2.5.{number}"
        sop = f"{study}.1.9"
        data = data_set(study=study, series=f"{study}.1", sop=sop, patient_id=f"P{number}")
        messages.append(message(store_rq(1, sop=sop), data))
    with contextlib.ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        service = undo.enter_context(Limited(tmp_path, library, *flags, log=False, workers=1))
        peers = [undo.enter_context(service.peer()) for _ in range(count)]
        for peer, data in zip(peers, messages, strict=True):
            peer.send(data[:-1])
        wait_for(lambda: len(service.parts()) == count, "a part for each", 60)
        # The first one's journal line, until the data of all others are flushed.
        rule = service.control.rule([FLUSH, BEGIN], HOLD_BEFORE, path=".jsonl", left=1)
        flushed = service.control.count(FLUSH)
        peers[0].send(messages[0][-1:])
        wait_for(lambda: service.control.hits(rule) == 1, "the flush of a journal file", 60)
        for peer, data in zip(peers[1:], messages[1:], strict=True):
            peer.send(data[-1:])
        wait_for(lambda: service.control.count(FLUSH) - flushed >= count, "all data flushed", 120)
        service.control.lift(rule)
        assert Counter(peer.read_response().status for peer in peers) == {0: count}
        assert "open files" not in service.log()
        for peer in peers:
            peer.release()

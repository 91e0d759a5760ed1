"""Folders and files whose flush failed: what depends on them is never taken for kept again."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.names import descriptor
from fastscp.store.unflushed import Marks
from fastscp.store.verify import verify
from fastscp_ext import status
from tests.kept.kit_kept import (
    COUNT,
    FAIL,
    FLUSH,
    HOLD_BEFORE,
    LOOK,
    OPEN,
    SYNC,
    Interposed,
    Item,
    apart,
    items,
    send_all,
)
from tests.kit import store, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit import Peer, Response, Service

A700: Final = status.OUT_OF_RESOURCES
REFUSED: Final = "folder could not be flushed"


def answer(peer: Peer, item: Item) -> Response:
    peer.send(store(1, item.data, sop=item.sop))
    return peer.read_response()


def put(peer: Peer, item: Item) -> int:
    return answer(peer, item).status


def folder_of(item: Item) -> str:
    return item.path.rpartition("/")[0]


def inode(service: Service, item: Item) -> int:
    return (service.store / item.path).stat().st_ino


def standing(service: Service) -> list[str]:
    """The folders that a start would not believe."""
    with descriptor(os.open(service.store, os.O_RDONLY)) as fd:
        return [mark.path for mark in Marks(fd).standing()]


def mark_files(service: Service) -> list[Path]:
    folder = service.store / ".fastscp/unflushed"
    return sorted(folder.iterdir()) if folder.exists() else []


def fail_once(service: Interposed, path: str, error: int, *, times: int = 1) -> int:
    return service.control.rule([FLUSH], FAIL, error=error, path=path, left=times)


def fails(service: Interposed, peer: Peer, item: Item, error: int) -> None:
    """The flush of the instance's folder fails once, while that of its file does not."""
    rule = fail_once(service, f"/{folder_of(item)}", error)
    assert put(peer, item) == A700
    assert service.control.hits(rule) == 1
    assert item.path in service.instances()


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS])
def test_all_workers_refuse_what_goes_into_the_folder(
    tmp_path: Path, library: Path, error: int
) -> None:
    known, lost, late, *others = items("1", 6, studies=1, series=1)
    elsewhere = items("2", 4, studies=1, series=1)
    with (
        Interposed(tmp_path, library, log=False) as service,
        apart(service) as (one, other),
    ):
        assert put(one, elsewhere[0]) == put(other, elsewhere[1]) == 0
        assert {fact["worker"] for fact in service.journal()} == {"w0", "w1"}
        assert put(one, known) == 0
        flushes = service.control.rule([FLUSH], COUNT, path=f"/{folder_of(lost)}")
        fails(service, one, lost, error)
        for peer in (one, other):
            for item in (lost, late, *others, known):
                got = answer(peer, item)
                assert (got.status, got.command.error_comment) == (A700, REFUSED)
        # Not once more: it would have succeeded.
        assert service.control.hits(flushes) == 1
        # Nothing of what came later is there, and other folders go on.
        assert {known.path, lost.path} == {
            path for path in service.instances() if path.startswith(folder_of(lost))
        }
        assert put(one, elsewhere[2]) == put(other, elsewhere[3]) == 0
        line = service.in_log(f"cannot flush the folder {folder_of(lost)}: ")
        assert "run `fastscp verify` without the service" in line
        assert service.log().count("cannot flush the folder") == 1
        one.release()
        other.release()


def test_a_folder_above_that_could_not_be_flushed(tmp_path: Path, library: Path) -> None:
    """The entry of a new folder is lost with the flush of the one above it."""
    what = items("1", 6, studies=1, series=3)
    with (
        Interposed(tmp_path, library, log=False) as service,
        apart(service) as (one, other),
    ):
        assert put(one, what[2]) == 0
        # The new folder and the study's.
        fail_once(service, "/1.2.1.0", errno.EIO, times=2)
        assert put(one, what[0]) == A700
        for peer in (one, other):
            for item in (what[0], what[1], what[4]):
                got = answer(peer, item)
                assert (got.status, got.command.error_comment) == (A700, REFUSED)
        # A folder whose entry this worker has flushed before needs no other flush of it. Whether
        # the entry is on the disk the other worker does not know.
        assert (put(one, what[5]), put(other, what[2])) == (0, A700)
        assert len(mark_files(service)) == 2
        one.release()
        other.release()


def test_it_lasts_until_the_machine_restarts(tmp_path: Path, library: Path) -> None:
    lost, late = items("1", 2, studies=1, series=1)
    (elsewhere,) = items("2", 1)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        fails(service, peer, lost, errno.EIO)
        peer.release()
    for _ in range(2):
        with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
            line = service.in_log(f"could not flush the folder {folder_of(lost)} ")
            assert "WARNING" in line.upper()
            assert "run `fastscp verify`" in line
            assert (put(peer, lost), put(peer, late), put(peer, elsewhere)) == (A700, A700, 0)
            peer.release()
    (mark,) = mark_files(service)
    known = json.loads(mark.read_bytes())
    assert (known["path"], known["error"]) == (folder_of(lost), errno.EIO)
    # A mount elsewhere, as of a container that starts anew, is the same file system.
    for member in ("boot", "system" if known["system"] else "mount"):
        mark.write_text(json.dumps({**known, member: "another"}))
        with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
            assert mark_files(service) == []
            assert (put(peer, lost), put(peer, late)) == (0, 0)
            assert "could not flush" not in service.log()
            peer.release()


@pytest.mark.parametrize("held", ["another folder", "the mark"])
def test_all_killed_while_the_disk_hangs(tmp_path: Path, library: Path, held: str) -> None:
    """The failure is noted at once: the next flush of the folder would succeed."""
    bad, hangs, late = items("1", 3, studies=2, series=1)
    assert folder_of(bad) == folder_of(late) != folder_of(hangs)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        control = service.control
        parts = control.rule([FLUSH], HOLD_BEFORE, path="/incoming/", left=2)
        peer.send(store(1, bad.data, sop=bad.sop) + store(2, hangs.data, sop=hangs.sop))
        wait_for(lambda: control.hits(parts) == 2, "both parts")
        fail_once(service, f"/{folder_of(bad)}", errno.EIO)
        path = f"/{folder_of(hangs)}" if held == "another folder" else "/.fastscp/unflushed"
        hanging = control.rule([FLUSH], HOLD_BEFORE, path=path)
        # What is under way at the same time is flushed as one batch.
        control.lift(parts)
        wait_for(lambda: control.hits(hanging) == 1, "the flush that hangs")
        wait_for(lambda: standing(service) == [folder_of(bad)], "the mark")
        service.kill()
        control.clear()
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        service.in_log(f"could not flush the folder {folder_of(bad)} ")
        assert (put(peer, bad), put(peer, late), put(peer, hangs)) == (A700, A700, 0)
        peer.release()
    (mark,) = mark_files(service)
    assert mark.suffix == ".json"
    assert json.loads(mark.read_bytes())["path"] == folder_of(bad)


def test_verify_makes_the_folder_anew(tmp_path: Path, library: Path) -> None:
    kept, lost, late = items("1", 3, studies=1, series=1)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert put(peer, kept) == 0
        fails(service, peer, lost, errno.EIO)
        report = verify(service.store, patience_s=0)
        found = {one.path: one for one in report.findings}[folder_of(lost)]
        assert (found.kind, found.settled) == ("unflushed", "")
        assert "a service is using the store" in found.why
        peer.release()
    before = (service.store / folder_of(lost)).stat().st_ino
    report = verify(service.store, patience_s=0)
    found = {one.path: one for one in report.findings}[folder_of(lost)]
    assert (found.kind, found.settled) == ("unflushed", "made anew")
    assert (service.store / folder_of(lost)).stat().st_ino != before
    assert mark_files(service) == []
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert (put(peer, lost), put(peer, late), put(peer, kept)) == (0, 0, 0)
        assert [service.data_of(one.path) for one in (kept, lost, late)] == [
            one.data for one in (kept, lost, late)
        ]
        assert "could not flush" not in service.log()
        peer.release()
    assert verify(service.store).clean


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.ENOMEM])
def test_what_the_system_lacked_has_the_next_try_named_anew(
    tmp_path: Path, library: Path, error: int
) -> None:
    known, lost, late = items("1", 3, studies=1, series=1)
    with (
        Interposed(tmp_path, library, log=False) as service,
        apart(service) as (one, other),
    ):
        assert put(one, known) == 0
        fails(service, one, lost, error)
        # Whoever it is sent to, it is not adopted; nor is what was there before.
        for peer, item in ((other, lost), (one, lost), (other, known), (one, late)):
            before = inode(service, item) if item is not late else 0
            assert put(peer, item) == 0
            assert inode(service, item) != before
            assert service.data_of(item.path) == item.data
        assert service.journal()[-2]["duplicate"] == "replaced"
        assert mark_files(service) == []
        service.in_log("cannot flush a directory")
        one.release()
        other.release()


def test_new_folders_wait_for_a_restart_where_the_system_lacked_something(
    tmp_path: Path, library: Path
) -> None:
    what = items("1", 4, studies=1, series=2)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        fail_once(service, "/1.2.1.0", errno.ENOSPC, times=2)
        assert put(peer, what[0]) == A700
        # Of a folder whose entry may be lost nobody can say that it is named anew.
        assert (put(peer, what[0]), put(peer, what[1])) == (A700, A700)
        line = service.in_log("cannot flush the folder 1.2.1.0: ")
        assert "free some space" in line
        assert "then restart the service" in line
        # The folder has no mark. The file has: it was put back where its name may be lost.
        assert {json.loads(mark.read_bytes())["what"] for mark in mark_files(service)} == {"file"}
        peer.release()
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert [put(peer, one) for one in what] == [0] * 4
        peer.release()


def test_a_folder_that_cannot_be_opened_is_flushed_when_it_can_be(
    tmp_path: Path, library: Path
) -> None:
    """Nothing was lost: no flush failed."""
    known, late = items("1", 2, studies=1, series=1)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert put(peer, known) == 0
        (item,) = items("2", 1)
        # The series is looked for, both folders are made and opened, the study's to be flushed.
        control = service.control
        control.rule([LOOK], FAIL, error=errno.EMFILE, path="/store/1.2.2.0", skip=3, left=1)
        flushes = control.rule([FLUSH], COUNT, path="/store/1.2.2.0")
        assert put(peer, item) == A700
        assert control.hits(flushes) == 1
        before = inode(service, item)
        assert put(peer, item) == 0
        assert inode(service, item) != before
        assert control.hits(flushes) == 3
        assert put(peer, late) == 0
        peer.release()


def test_too_many_folders_are_all_folders(tmp_path: Path, library: Path) -> None:
    what = items("1", 65, studies=1, series=65)
    (elsewhere,) = items("2", 1)
    with Interposed(tmp_path, library, log=False) as service:
        fail_once(service, "/1.2.1.0", errno.EIO, times=-1)
        sent = send_all(service.port, what)
        assert {tuple(got) for got in sent.statuses.values()} == {(A700,)}
        with service.peer() as peer:
            assert put(peer, elsewhere) == A700
            peer.release()
        service.in_log("or to any other folder, for too many have failed")
        # Once for each place of the table, and for the one too many.
        wait_for(lambda: service.log().count("cannot flush the folder") == 65, "65 lines")
    with Interposed(tmp_path, library, log=False) as service, service.peer() as peer:
        service.in_log("could not flush many folders")
        assert put(peer, elsewhere) == A700
        peer.release()
    assert not verify(service.store, patience_s=0).clean


def test_a_mark_that_cannot_be_left_is_told(tmp_path: Path, library: Path) -> None:
    lost, late = items("1", 2, studies=1, series=1)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        service.control.rule([OPEN], FAIL, error=errno.EROFS, path="/.fastscp/unflushed/")
        fails(service, peer, lost, errno.EIO)
        assert "do not restart the service" in service.in_log("cannot mark in .fastscp")
        assert put(peer, late) == A700
        peer.release()


# Files --------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_flushed_is_replaced_by_what_is_sent_again(
    tmp_path: Path, library: Path
) -> None:
    (item,) = items("1", 1)
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        assert put(peer, item) == 0
        before = inode(service, item)
        rule = fail_once(service, f"/{item.path}", errno.EIO)
        assert put(peer, item) == 0
        assert service.control.hits(rule) == 1
        assert inode(service, item) != before
        assert service.data_of(item.path) == item.data
        assert service.journal()[-1]["duplicate"] == "replaced"
        assert "has taken its place" in service.in_log(f"cannot flush {item.path}")
        peer.release()


def test_a_file_that_cannot_be_flushed_is_not_called_kept(tmp_path: Path, library: Path) -> None:
    (item,), (other,) = items("1", 1), items("1", 1, seed=9)
    flags = ("--on-duplicate", "keep")
    with (
        Interposed(tmp_path, library, *flags, log=False, workers=1) as service,
        service.peer() as peer,
    ):
        assert put(peer, item) == 0
        fail_once(service, f"/{item.path}", errno.EIO)
        for _ in range(2):
            got = answer(peer, other)
            assert got.status == A700
            assert got.command.error_comment == "existing instance may not be on the disk"
        # The first one, sent again, is kept for certain.
        assert put(peer, item) == 0
        peer.release()


def test_a_file_system_that_could_not_be_flushed_is_not_trusted_by_the_next_try(
    tmp_path: Path, library: Path
) -> None:
    (item,) = items("1", 1)
    flags = ("--durability", "buffered")
    with Interposed(tmp_path, library, *flags, log=False, workers=1) as service:
        with service.peer() as peer:
            assert put(peer, item) == 0
            peer.release()
        before = inode(service, item)
        service.control.rule([SYNC], FAIL, error=errno.EIO)
        service.process.terminate()
        service.ends(1)
    # Every file is what its line says, as far as memory tells.
    for _ in range(2):
        report = verify(service.store, patience_s=0)
        assert [(one.kind, one.settled) for one in report.findings] == [("unflushed", "")]
        assert report.mark == "stays"
    with Interposed(tmp_path, library, log=False, workers=1) as service, service.peer() as peer:
        service.in_log("could not flush the file system")
        assert put(peer, item) == 0
        assert inode(service, item) != before
        peer.release()
    (mark,) = mark_files(service)
    mark.write_text(json.dumps({**json.loads(mark.read_bytes()), "boot": "another"}))
    report = verify(service.store, patience_s=0)
    assert (report.findings, report.mark) == ((), "lifted")

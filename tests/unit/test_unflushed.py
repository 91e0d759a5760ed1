"""Marks of what could not be flushed, what is told of them, and folders that are made anew."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import pytest

from fastscp.errors import StartError
from fastscp.store import mounts, replaced, unflushed
from fastscp.store import renew as renewing
from fastscp.store.duplicates import Resolution
from fastscp.store.flushes import Flushes
from fastscp.store.mounts import Mounted
from fastscp.store.names import descriptor, open_file
from fastscp.store.renew import finish, renew
from fastscp.store.restore import Settlement
from fastscp.store.store import Store
from fastscp.store.unflushed import Marks, tell, warnings
from fastscp.store.verify import verify
from fastscp_ext import Shared, exchange, mount_of, rename_noreplace
from tests.disks import MountError, attached, make, program
from tests.disks import mounted as file_system
from tests.stores import FILED, opened, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("no_descriptor_left")

NOW: Final = Mounted("boot", "mount")
SLOTS: Final = 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield store


@pytest.fixture
def folder(store: Store) -> Path:
    """A study with files and series in it."""
    for path in ("1/a.dcm", "1/b.dcm", "1/2/c.dcm", "1/3/d.dcm", "1/3/4/e.dcm"):
        file = store.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    return store.path / "1"


def tree(path: Path) -> dict[str, str]:
    return {str(f.relative_to(path)): f.read_text() for f in path.rglob("*") if f.is_file()}


def own(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / ".fastscp").iterdir())


# The table ----------------------------------------------------------------------------------------


def test_the_table_of_each_doubt_is_bounded() -> None:
    doubts = Shared().doubts
    assert [doubts.refuse(f"{n}") for n in range(SLOTS)] == [True] * SLOTS
    assert [doubts.refuse(f"{n}") for n in range(SLOTS)] == [False] * SLOTS
    assert not doubts.refuses("another")
    assert doubts.refuse("one too many")
    assert doubts.refuses("another")
    assert not doubts.refuse("and another")
    # The other one has places of its own.
    assert not doubts.doubts("0/file")
    assert [doubts.doubt(f"{n}") for n in range(SLOTS + 1)] == [True] * (SLOTS + 1)
    assert doubts.doubts("another/file")


def test_what_one_process_finds_all_know() -> None:
    shared = Shared()
    other = Shared(os.dup(shared.fd), os.dup(shared.common_fd))
    for folder in ("", "1/2", "1/2/3"):
        assert not other.doubts.refuses(folder)
        assert shared.doubts.refuse(folder)
        assert other.doubts.refuses(folder)
        assert not other.doubts.refuse(folder)
    assert not other.doubts.refuses("1")


def test_a_file_is_doubtful_with_its_folder_alone() -> None:
    doubts = Shared().doubts
    doubts.doubt("1/2")
    doubts.doubt("3/a.dcm")
    found = [path for path in ("1/2/a", "1/2/b~2", "1/a", "1/2/3/a", "2/a") if doubts.doubts(path)]
    assert found == ["1/2/a", "1/2/b~2"]
    assert (doubts.doubts("3/a.dcm"), doubts.doubts("3/b.dcm")) == (True, False)


def test_all() -> None:
    doubts = Shared().doubts
    doubts.doubt_all()
    assert (doubts.doubts("any/file"), doubts.refuses("any")) == (True, False)
    doubts.refuse_all()
    assert doubts.refuses("any")


# Marks --------------------------------------------------------------------------------------------


def test_a_mark_holds_for_this_boot_mount_and_folder(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd, NOW)
    assert marks.standing() == ()
    marks.leave("folder", "1", errno.EIO, "shown")
    (mark,) = marks.standing()
    assert (mark.path, mark.shown, mark.error) == ("1", "shown", errno.EIO)
    assert mark.inode == folder.stat().st_ino
    for now in (replace(NOW, boot="next"), replace(NOW, mount="next")):
        assert Marks(store.dir_fd, now).standing() == ()
    # Another folder in its place is none that failed.
    folder.rename(store.path / "old")
    assert marks.standing() == ()
    folder.mkdir()
    assert marks.standing() == ()
    folder.rmdir()
    (store.path / "old").rename(folder)
    assert marks.standing() == (mark,)
    # Twice is once.
    marks.leave("folder", "1", errno.EIO, "shown")
    assert marks.standing() == (mark,)
    marks.clear()
    assert marks.standing() == (mark,)
    Marks(store.dir_fd, replace(NOW, boot="next")).clear()
    assert marks.left() == ()


def test_what_the_system_says_holds_until_it_changes(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_system_of", lambda _fd: "")
    Marks(store.dir_fd).leave("folder", "1", errno.EIO)
    assert len(Marks(store.dir_fd).standing()) == 1
    assert mount_of(store.dir_fd) == mount_of(store.lock_fd) != ""
    with monkeypatch.context() as patch:
        patch.setattr(mounts, "mount_of", lambda _fd: "another")
        assert Marks(store.dir_fd).standing() == ()
    other = folder / "boot_id"
    other.write_text("another\n")
    monkeypatch.setattr(mounts, "_BOOT_ID", other)
    assert Marks(store.dir_fd).standing() == ()


def test_the_file_system_decides_where_it_can_be_told() -> None:
    """Another place where the same one is seen, as of a container that starts anew, is no mount."""
    then = Mounted("boot", "mount", "7")
    assert not then.is_over(Mounted("boot", "another", "7"))
    assert then.is_over(Mounted("boot", "mount", "8"))
    assert then.is_over(Mounted("next", "mount", "7"))
    # It cannot be told now, or could not then.
    assert not then.is_over(Mounted("boot", "another"))
    assert NOW.is_over(Mounted("boot", "another", "7"))
    assert not NOW.is_over(Mounted("boot", "mount", "7"))


def test_the_same_file_system_at_another_place(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with descriptor(os.open(disk, os.O_RDONLY)) as fd:
        here = mounts.mounted(fd)
    assert here.system
    subprocess.run([program("mount", "mount"), "--bind", disk, other], check=True)
    try:
        with descriptor(os.open(other, os.O_RDONLY)) as fd:
            there = mounts.mounted(fd)
    finally:
        subprocess.run([program("umount", "mount"), other], check=True)
    assert here.mount != there.mount
    assert here.system == there.system
    assert not here.is_over(there)


def test_a_file_system_that_is_mounted_anew(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make("ext4", image)
    found = []
    for n in range(2):
        try:
            with (
                attached("ext4", image, tmp_path / f"at{n}") as point,
                descriptor(os.open(point, os.O_RDONLY)) as fd,
            ):
                found.append(mounts.mounted(fd))
        except MountError as error:
            pytest.skip(f"ext4 cannot be mounted here: {error}")
    assert found[0].is_over(found[1])


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
def test_an_older_kernel_tells_the_file_system_by_its_device_or_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with file_system(kind, tmp_path) as point, descriptor(os.open(point, os.O_RDONLY)) as fd:
        known = mounts.mounted(fd).system
        call = fcntl.ioctl

        def ioctl(fd: int, what: int, *more: Any) -> Any:
            if what == mounts._GET_OBJECT:
                raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
            return call(fd, what, *more)

        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        assert mounts.mounted(fd).system == known != ""


def spoil(store: Store, text: bytes = b'{"what": "fol') -> Path:
    """Have the only mark be one that cannot be read."""
    (file,) = (store.path / ".fastscp/unflushed").iterdir()
    file.write_bytes(text)
    return file


@pytest.mark.parametrize("name", ["", "x.json"])
def test_a_start_says_when_a_mark_is_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """So a reboot lifts it, as any other one, and nobody has to remove it."""
    path = tmp_path / "store"
    with opened(path) as store:
        (path / "1").mkdir()
        Marks(store.dir_fd).leave("folder", "1", errno.EIO)
        file = spoil(store)
        if name:
            file.rename(file.with_name(name))
    with opened(path) as store:
        (mark,) = store.unflushed
        assert (mark.what, mark.unread) == ("all folders", True)
        (said,) = [one for one in store.warnings if "cannot be read" in one]
        assert "run `fastscp verify` without the service" in said
        assert "(`fastscp recover` where a redo log was left)" in said
        assert "restart the machine" in said
    with opened(path) as store:
        assert store.unflushed == (mark,)
        after = Marks(store.dir_fd, Mounted("next", "next", "next"))
        assert after.standing() == ()
        after.clear()
        assert after.left() == ()


@pytest.mark.parametrize("stated", [False, True])
def test_verify_finds_out_what_a_mark_was_left_for(
    store: Store, folder: Path, stated: bool
) -> None:
    marks = Marks(store.dir_fd)
    marks.leave("folder", "1/3", errno.EIO)
    spoil(store)
    if stated:
        marks.restate()
    before = (folder / "3").stat().st_ino
    content = tree(store.path / "1")
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert (found.path, found.settled) == ("1/3", "made anew")
    assert (folder / "3").stat().st_ino != before
    assert tree(store.path / "1") == content
    assert marks.left() == ()


def test_verify_finds_the_file_that_a_mark_was_left_for(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd)
    marks.leave("file", "1/3/d.dcm", errno.EIO)
    spoil(store)
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert (found.path, found.settled) == ("1/3/d.dcm", "")
    (mark,) = marks.standing()
    assert (mark.what, mark.path, mark.unread) == ("file", "1/3/d.dcm", False)


def test_a_mark_of_what_is_gone_goes(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd)
    marks.leave("folder", "1/3", errno.EIO)
    spoil(store, b"")
    shutil.rmtree(folder / "3")
    assert renew(store.path, store.dir_fd, alone=True) == []
    assert marks.left() == ()


def test_a_mark_that_nobody_can_tell_holds_from_now_on(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd)
    (store.path / ".fastscp/unflushed").mkdir()
    (store.path / ".fastscp/unflushed/all-folders.json").write_bytes(b"")
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert (found.path, found.settled) == (".fastscp/unflushed/all-folders.json", "")
    assert "restart the machine" in found.why
    (mark,) = marks.standing()
    assert (mark.what, mark.unread, bool(mark.boot)) == ("all folders", True, True)


def test_what_cannot_be_looked_at_keeps_the_mark(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Marks(store.dir_fd)
    marks.leave("folder", "1/3", errno.EIO)
    spoil(store)

    def refuse(_dir_fd: int, _name: str) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(renewing, "read_folder", refuse)
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert not found.settled
    assert [mark.what for mark in marks.standing()] == ["all folders"]


def test_a_store_that_is_moved_to_a_new_directory_has_another_folder(tmp_path: Path) -> None:
    """What the operator is told to do where the store's own folder could not be flushed."""
    path = tmp_path / "store"
    with opened(path) as store:
        (path / "1").mkdir()
        Marks(store.dir_fd).leave("folder", "", errno.EIO)
        (found,) = renew(store.path, store.dir_fd, alone=True)
        (said,) = warnings(Marks(store.dir_fd).standing())
    for words in (found.why, said):
        assert unflushed.MOVED in words
    new = tmp_path / "new"
    new.mkdir()
    for name in os.listdir(path):
        (path / name).rename(new / name)
    path.rmdir()
    new.rename(path)
    with opened(path) as store:
        assert store.unflushed == ()
        assert (path / "1").exists()


def test_a_mark_that_cannot_be_read_counts_for_all(store: Store) -> None:
    marks = Marks(store.dir_fd, NOW)
    marks.leave("folder", "", errno.EIO)
    (file,) = (store.path / ".fastscp/unflushed").iterdir()
    file.write_bytes(b'{"what": "fol')
    (mark,) = marks.standing()
    assert (mark.what, mark.boot) == ("all folders", "")
    # What was never finished is no mark.
    file.rename(file.with_suffix(".json.1.new"))
    assert marks.standing() == ()
    marks.clear()
    assert not list((store.path / ".fastscp/unflushed").iterdir())


def being_left(store: Store, monkeypatch: pytest.MonkeyPatch, folder: str) -> Path:
    """A mark whose own flush fails, as that of somebody who is killed over it never ends."""

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            Marks(store.dir_fd).leave("folder", folder, errno.EIO)
    (file,) = (store.path / ".fastscp/unflushed").glob("*.new")
    return file


def test_a_mark_holds_before_it_is_flushed(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Marks(store.dir_fd)
    file = being_left(store, monkeypatch, "1/3")
    (mark,) = marks.standing()
    assert (mark.what, mark.path, mark.error) == ("folder", "1/3", errno.EIO)
    marks.clear()
    assert marks.standing() == (mark,)
    assert file.exists()
    # A start gives it its name.
    marks.restate()
    marks.clear()
    assert [one.name for one in file.parent.iterdir()] == [mark.name]
    assert marks.standing() == (mark,)
    # As much as any other one it is lifted, and does not come back.
    being_left(store, monkeypatch, "1/3")
    assert marks.standing() == (mark,)
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert (found.path, found.settled) == ("1/3", "made anew")
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("step", ["open", "fdopen", "rename", "fsync"])
def test_a_mark_is_there_whenever_whoever_gives_it_its_name_is_killed(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also by a thread with the number of the one that left it, as there is in a container."""
    marks = Marks(store.dir_fd)
    being_left(store, monkeypatch, "1/3")
    (mark,) = marks.standing()
    real = getattr(os, step)
    seen = []

    def look(*args: Any, **more: Any) -> Any:
        # What a kill before and behind the call would leave.
        with monkeypatch.context() as patch:
            patch.setattr(os, step, real)
            seen.append(Marks(store.dir_fd).standing())
            done = real(*args, **more)
            seen.append(Marks(store.dir_fd).standing())
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, step, look)
        marks.restate()
    assert len(seen) >= 2
    assert set(seen) == {(mark,)}
    assert [one.name for one in (store.path / ".fastscp/unflushed").iterdir()] == [mark.name]


def test_a_mark_that_gets_its_name_meanwhile_is_read(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Marks(store.dir_fd)
    file = being_left(store, monkeypatch, "1/3")
    (mark,) = marks.left()
    names = marks._names()
    file.rename(file.with_name(mark.name))
    monkeypatch.setattr(marks, "_names", lambda: names)
    assert marks.left() == (mark,)
    file.with_name(mark.name).unlink()
    assert marks.left() == ()


@pytest.mark.parametrize("text", [None, b"", b'{"what": "fol', bytes(512)])
def test_a_mark_that_was_not_written_to_its_end_is_none(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, text: bytes | None
) -> None:
    """It was cut off with the power, which lifts it; or has nobody's name."""
    file = being_left(store, monkeypatch, "1/3")
    if text is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(text)
    assert Marks(store.dir_fd).left() == ()
    Marks(store.dir_fd).clear()
    assert file.exists() == (text is None)


def test_what_a_mark_covers(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd, NOW)
    marks.leave("folder", "1/3", errno.EIO)
    marks.leave("file", "1/a.dcm", errno.EIO)
    found = [path for path in sorted(tree(store.path)) if marks.covers(path)]
    assert found == ["1/3/4/e.dcm", "1/3/d.dcm", "1/a.dcm"]
    marks.leave("file system", "", errno.EIO)
    assert marks.covers("1/b.dcm")


@pytest.mark.parametrize(("what", "then"), [("file", "file system"), ("folder", "all folders")])
def test_marks_of_a_kind_are_bounded(
    store: Store,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Literal["file", "folder"],
    then: str,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    marks = Marks(store.dir_fd, NOW)
    marks.leave("folder" if what == "file" else "file", "1", errno.EIO)
    for n in range(70):
        (folder / f"n{n}").mkdir()
        if n == SLOTS:
            # Whatever has a mark keeps it.
            marks.leave(what, "1/n5", errno.EROFS)
            assert not any(mark.what == then for mark in marks.standing())
        marks.leave(what, f"1/n{n}", errno.EIO, "shown")
    standing = marks.standing()
    kinds: list[str] = [mark.what for mark in standing]
    assert (kinds.count(what), kinds.count(then)) == (SLOTS, 1)
    assert [mark.error for mark in standing if mark.path == "1/n5"] == [errno.EROFS]
    (rest,) = [mark for mark in standing if mark.what == then]
    assert (rest.path, rest.shown) == ("", "")


def test_the_marks_are_read_once_for_all_files(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Marks(store.dir_fd, NOW)
    marks.leave("folder", "1/3", errno.EIO)
    opened_files: list[str] = []

    def look(name: str, dir_fd: int) -> int:
        opened_files.append(name)
        return open_file(name, dir_fd)

    monkeypatch.setattr(unflushed, "open_file", look)
    for _ in range(100):
        assert [marks.covers(path) for path in ("1/a.dcm", "1/3/d.dcm")] == [False, True]
    assert len(opened_files) == 1
    # What it does itself counts at once.
    marks.leave("file", "1/a.dcm", errno.EIO)
    assert marks.covers("1/a.dcm")
    for mark in marks.left():
        marks.lift(mark)
    assert not marks.covers("1/3/d.dcm")


def test_what_the_workers_and_the_operator_are_told(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd, NOW)
    marks.leave("folder", "1", errno.EIO, "{PatientID}")
    marks.leave("folder", "", errno.EIO)
    marks.leave("file", "1/a.dcm", errno.EIO)
    doubts = Shared().doubts
    tell(marks.standing(), doubts)
    assert [path for path in ("", "1", "1/2") if doubts.refuses(path)] == ["", "1"]
    assert [path for path in ("1/a.dcm", "1/b.dcm") if doubts.doubts(path)] == ["1/a.dcm"]
    said = sorted(warnings(marks.standing()))
    assert len(said) == 3
    assert all("Input/output error" in one and "restart the machine" in one for one in said)
    assert not any("1/a.dcm" in one for one in said)
    assert sum("{PatientID}" in one and "`fastscp verify`" in one for one in said) == 1
    marks.leave("all folders", "", errno.EIO)
    marks.leave("file system", "", errno.EIO)
    tell(marks.standing(), doubts)
    assert doubts.refuses("any")
    assert doubts.doubts("any/file")
    assert len(list(warnings(marks.standing()))) == 5


def test_the_start_takes_away_what_holds_no_more(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        Marks(store.dir_fd).leave("folder", "", errno.EIO)
        Marks(store.dir_fd, NOW).leave("file system", "", errno.EIO)
    with opened(path) as store:
        assert [mark.what for mark in store.unflushed] == ["folder"]
        assert sum("could not flush" in one for one in store.warnings) == 1
        assert len(Marks(store.dir_fd).left()) == 1


# Made anew ----------------------------------------------------------------------------------------


def test_names_are_exchanged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        exchange("a", "b", one_dir_fd=fd, other_dir_fd=fd)
        assert ((tmp_path / "a").read_text(), (tmp_path / "b").is_dir()) == ("b", True)
        with pytest.raises(FileNotFoundError) as caught:
            exchange("a", "c", one_dir_fd=fd, other_dir_fd=fd)
        assert (caught.value.filename, caught.value.filename2) == ("a", "c")
    finally:
        os.close(fd)


def test_a_folder_is_made_anew(store: Store, folder: Path) -> None:
    folder.chmod(0o2770)
    before, there = folder.stat(), tree(store.path)
    inodes = {path: path.stat().st_ino for path in folder.rglob("*")}
    Marks(store.dir_fd).leave("folder", "1", errno.EIO)
    (found,) = renew(store.path, store.dir_fd, alone=True)
    assert (found.kind, found.path, found.settled) == ("unflushed", "1", "made anew")
    after = folder.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode, before.st_uid, before.st_gid,
    )  # fmt: skip
    assert tree(store.path) == there
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == inodes
    assert all(path.stat().st_nlink == 1 for path in folder.rglob("*.dcm"))
    assert Marks(store.dir_fd).left() == ()
    assert "anew" not in own(store)
    assert renew(store.path, store.dir_fd, alone=True) == []


def test_folders_in_one_another(store: Store, folder: Path) -> None:
    there = tree(store.path)
    paths = ("1/3", "1", "1/3/4")
    for path in paths:
        Marks(store.dir_fd).leave("folder", path, errno.EIO)
    before = [(store.path / path).stat().st_ino for path in paths]
    found = renew(store.path, store.dir_fd, alone=True)
    assert [one.path for one in found] == ["1", "1/3", "1/3/4"]
    assert all(one.settled for one in found)
    # The number of one that went may be another one's by now.
    after = [(store.path / path).stat().st_ino for path in paths]
    assert all(new != old for new, old in zip(after, before, strict=True))
    assert tree(store.path) == there


class _Cut(BaseException):
    """The process ends."""


CALLS: Final = (
    *((renewing, name) for name in ("exchange", "rename_noreplace")),
    *((os, name) for name in ("fsync", "mkdir", "rmdir", "link", "unlink", "fchmod")),
)


def _interrupt(
    monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool, error: int = 0
) -> Callable[[], int]:
    """Let the call with this number be the last one, or fail; returns how many there were."""
    calls = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at and not after:
                raise OSError(error, os.strerror(error)) if error else _Cut
            result = real(*arguments, **more)
            if calls == at:
                raise _Cut
            return result

        return call

    for place, name in CALLS:
        monkeypatch.setattr(place, name, wrap(getattr(place, name)))
    return lambda: calls


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", ["start", "verify"])
def test_cut_off_anywhere_it_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, then: str
) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"{at}"
        with opened(path) as store:
            for name in ("1/a.dcm", "1/b.dcm", "1/2/c.dcm", "1/3/d.dcm"):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(name)
            there = tree(path / "1")
            before = (path / "1").stat().st_ino
            Marks(store.dir_fd).leave("folder", "1", errno.EIO)
            with monkeypatch.context() as patched:
                calls = _interrupt(patched, at, after=after)
                with contextlib.suppress(_Cut):
                    renew(path, store.dir_fd, alone=True)
                if calls() < at:
                    break
            # No file is lost, and each that lies in the folder itself has its name all the time.
            assert {"a.dcm", "b.dcm"} <= set(tree(path / "1"))
            if then == "start":
                finish(store.dir_fd)
                # Made anew, or as it was and marked.
                is_old = (path / "1").stat().st_ino == before
                assert bool(Marks(store.dir_fd).standing()) == is_old
            else:
                renew(path, store.dir_fd, alone=True)
                assert Marks(store.dir_fd).left() == ()
                assert (path / "1").stat().st_ino != before
            assert tree(path / "1") == there
            assert not list((path / ".fastscp").glob("anew/*"))
    assert at > 15


def test_a_failure_anywhere_leaves_the_mark_and_all_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"{at}"
        with opened(path) as store:
            for name in ("1/a.dcm", "1/2/c.dcm"):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(name)
            there = tree(path / "1")
            before = (path / "1").stat().st_ino
            Marks(store.dir_fd).leave("folder", "1", errno.EIO)
            with monkeypatch.context() as patched:
                calls = _interrupt(patched, at, after=False, error=errno.EIO)
                try:
                    found = renew(path, store.dir_fd, alone=True)
                except OSError:
                    # The marks themselves cannot be removed.
                    found = []
                if calls() < at:
                    break
            if not all(one.settled for one in found):
                # The removal of the mark may be what failed.
                is_anew = (path / "1").stat().st_ino != before and "anew" not in own(store)
                assert Marks(store.dir_fd).standing() or is_anew
            # Whatever it was, another try ends well, except that the store's own folder cannot be
            # made anew, and so the name of the other one is not sure before the next mount.
            found = renew(path, store.dir_fd, alone=True)
            root = any(one.path == "." for one in found)
            assert all(one.settled or root for one in found)
            assert tree(path / "1") == there
            now = Mounted("next", "next")
            assert all(one.settled for one in renew(path, store.dir_fd, alone=True, now=now))
            assert Marks(store.dir_fd).left() == ()
            assert not list((path / ".fastscp").glob("anew/*"))
            assert tree(path / "1") == there
    assert at > 15


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("above", [False, True])
def test_what_was_set_aside_stays_until_a_flush_means_something(
    store: Store, monkeypatch: pytest.MonkeyPatch, times: int, above: bool
) -> None:
    """The new folder, or the one around it, cannot be flushed either: the old one has the names."""
    for path in ("0/1/a.dcm", "0/1/2/c.dcm"):
        (store.path / path).parent.mkdir(parents=True, exist_ok=True)
        (store.path / path).write_text(path)
    folder = store.path / "0/1"
    there, first = tree(store.path / "0"), folder.stat().st_ino
    Marks(store.dir_fd).leave("folder", "0/1", errno.EIO)
    real_fsync, real_unlink = os.fsync, os.unlink
    fails, flushed, failed = [times], set(), set()
    bad = folder.parent if above else folder

    def fsync(fd: int) -> None:
        about = os.fstat(fd)
        if fails[0] and os.readlink(f"/proc/self/fd/{fd}") == str(bad):
            fails[0] -= 1
            failed.add(about.st_ino)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(fd)
        flushed.add(about.st_ino)

    def unlink(path: str, *, dir_fd: int) -> None:
        if "/anew/" in os.readlink(f"/proc/self/fd/{dir_fd}"):
            for one in (folder, folder.parent):
                assert one.stat().st_ino in flushed - failed
        real_unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "unlink", unlink)
    for _ in range(times):
        assert not any(one.settled for one in renew(store.path, store.dir_fd, alone=True))
        assert tree(store.path / "0") == there
        # Nor does a start take it for sure.
        assert finish(store.dir_fd) == []
        assert "0/1" in {mark.path for mark in Marks(store.dir_fd).standing()}
        assert list((store.path / ".fastscp/anew").glob(f"*.{first:x}/a.dcm"))
    assert all(one.settled for one in renew(store.path, store.dir_fd, alone=True))
    assert fails == [0]
    assert tree(store.path / "0") == there
    assert (Marks(store.dir_fd).left(), "anew" in own(store)) == ((), False)


def _begin(path: Path, dir_fd: int, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder anew, and die when the folders inside it are to move."""
    Marks(dir_fd).leave("folder", folder, errno.EIO)

    def rename(name: str, new: str, **more: int) -> None:
        if name == new:
            raise _Cut
        rename_noreplace(name, new, **more)

    with monkeypatch.context() as patched:
        patched.setattr(renewing, "rename_noreplace", rename)
        with pytest.raises(_Cut):
            renew(path, dir_fd, alone=True)
    assert not any(one.is_dir() for one in (path / folder).iterdir())


@pytest.mark.parametrize("missing", ["", "1"])
def test_what_is_in_its_place_stays_and_nothing_is_lost(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Whoever did not find a folder that had not moved may have made it."""
    there = tree(store.path)
    _begin(store.path, store.dir_fd, "1", monkeypatch)
    if missing:
        shutil.rmtree(folder)
    else:
        (folder / "3/4").mkdir(parents=True)
        (folder / "3/4/e.dcm").write_text("other")
        (folder / "3/new.dcm").write_text("new")
        (folder / "2").write_text("a file")
        there |= {
            "1/3/4/e.dcm": "other", "1/3/4/e.dcm~2": "1/3/4/e.dcm", "1/3/new.dcm": "new",
            "1/2": "a file", "1/2~2/c.dcm": there.pop("1/2/c.dcm"),
        }  # fmt: skip
    finish(store.dir_fd)
    assert tree(store.path) == there
    assert (Marks(store.dir_fd).left(), "anew" in own(store)) == ((), False)


def test_a_start_that_cannot_finish_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        (path / "1/3").mkdir(parents=True)
        (path / "1/3/d.dcm").write_text("d")
        _begin(path, store.dir_fd, "1", monkeypatch)
        (path / "1/3").touch()
        for n in range(2, 10):
            (path / f"1/3~{n}").touch()
    with pytest.raises(StartError, match=r"\.fastscp/anew.*move what is in") as refused:
        Store.open(path, FILED)
    assert os.strerror(errno.EEXIST) in str(refused.value)
    (path / "1/3").unlink()
    with opened(path):
        assert (path / "1/3/d.dcm").read_text() == "d"


def test_verify_finishes_it_before_it_looks_for_a_file_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path below a folder that has not moved yet seems to hold nothing."""
    from tests.unit.test_replaced import NEW, Site

    path = tmp_path / "store"
    with opened(path):
        pass
    site = Site(path)
    site.replace()
    site.journal(NEW, 200)
    replaced.decide(Flushes(site.fd), site.path.relative_to(path).as_posix())
    _begin(path, site.fd, "1.2", monkeypatch)
    site.close()
    assert not site.path.exists()
    found = [(one.kind, one.settled) for one in verify(path, patience_s=0).findings]
    assert found[:2] == [("unflushed", "made anew"), ("replaced", "holds the newer instance")]
    assert site.path.read_bytes() == NEW
    with opened(path):
        assert site.path.read_bytes() == NEW


def test_one_that_is_begun_hides_none_inside_it(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a folder is made anew those in it are not at their paths, and their marks wait."""
    there = tree(store.path)
    Marks(store.dir_fd).leave("folder", "1", errno.EIO)
    with monkeypatch.context() as patched:
        patched.setattr(renewing, "rename_noreplace", _cut)
        with pytest.raises(_Cut):
            renew(store.path, store.dir_fd, alone=True)
    assert not (folder / "3").exists()
    moved = next((store.path / ".fastscp/anew").iterdir()) / "3"
    Marks(store.dir_fd).leave("folder", str(moved.relative_to(store.path)), errno.EIO)
    (file,) = [
        file for file in (store.path / ".fastscp/unflushed").iterdir() if b"/3" in file.read_bytes()
    ]
    known = msgspec.json.decode(file.read_bytes())
    file.write_bytes(msgspec.json.encode({**known, "path": "1/3"}))
    before = moved.stat().st_ino
    found = renew(store.path, store.dir_fd, alone=True)
    assert [(one.path, one.settled) for one in found] == [("1", "made anew"), ("1/3", "made anew")]
    assert (folder / "3").stat().st_ino != before
    assert tree(store.path) == there


def _cut(*_arguments: object, **_more: object) -> None:
    raise _Cut


@pytest.mark.parametrize("mark", ["damaged", "lost", "renamed", "restated"])
@pytest.mark.parametrize("then", ["start", "start after a reboot", "verify", "renew"])
def test_one_that_is_begun_is_finished_without_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, then: str
) -> None:
    """What has not moved yet is in anew/ alone, whatever became of the mark."""
    path = tmp_path / "store"
    with opened(path) as store:
        there = _begun_without_its_mark(path, store.dir_fd, mark, monkeypatch)
        if then == "renew":
            found = renew(path, store.dir_fd, alone=True)
            # One that may be of any folder stays.
            assert all(one.settled for one in found) == (mark != "renamed")
    if then == "verify":
        found = [one for one in verify(path, patience_s=0).findings if one.kind == "unflushed"]
        settled = "" if mark == "renamed" else "made anew"
        assert ("1", settled) in [(one.path, one.settled) for one in found]
    with monkeypatch.context() as patched:
        if then == "start after a reboot":
            patched.setattr(unflushed, "mounted", lambda _fd: Mounted("next", "next", "next"))
        with opened(path) as store:
            assert tree(path / "1") == there
            # Whether its names are on the disk is not known before `verify` made it anew.
            if then == "start":
                assert "1" in {one.path for one in store.unflushed}
    # And that goes on.
    with opened(path) as store:
        renew(path, store.dir_fd, alone=True)
        assert tree(path / "1") == there
        assert (path / "1/3/d.dcm").stat().st_nlink == 1
        if mark != "renamed":
            assert (Marks(store.dir_fd).left(), "anew" in own(store)) == ((), False)


def _begun_without_its_mark(
    path: Path, dir_fd: int, mark: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Returns what the folder held."""
    _with_a_journal(path)
    for name in ("1/a.dcm", "1/3/d.dcm"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    there = tree(path / "1")
    _begin(path, dir_fd, "1", monkeypatch)
    (file,) = (path / ".fastscp/unflushed").iterdir()
    match mark:
        case "lost":
            file.unlink()
        case "renamed":
            file.write_bytes(b'{"what": "fol')
            file.rename(file.with_name("x.json"))
        case _:
            file.write_bytes(b'{"what": "fol')
            if mark == "restated":
                Marks(dir_fd).restate()
    return there


def _with_a_journal(path: Path) -> None:
    (path / ".fastscp/journal/1-w0-1-0.jsonl").touch()


def test_two_that_are_begun_inside_one_another_are_finished_without_marks(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tree(folder)
    _begin(store.path, store.dir_fd, "1/3", monkeypatch)
    anew, marks = store.path / ".fastscp/anew", store.path / ".fastscp/unflushed"
    (inner,) = anew.iterdir()
    inner = inner.rename(store.path / "kept")
    shutil.rmtree(marks)
    _begin(store.path, store.dir_fd, "1", monkeypatch)
    shutil.rmtree(marks)
    inner.rename(anew / unflushed.path_name("1/3"))
    finish(store.dir_fd)
    assert tree(folder) == there
    assert {mark.path for mark in Marks(store.dir_fd).standing()} == {"1", "1/3"}
    assert all(one.settled for one in renew(store.path, store.dir_fd, alone=True))
    assert tree(folder) == there
    assert (Marks(store.dir_fd).left(), "anew" in own(store)) == ((), False)


def test_one_that_was_begun_for_nobody_knows_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        _with_a_journal(path)
        (path / "1/3").mkdir(parents=True)
        (path / "1/3/d.dcm").write_text("d")
        _begin(path, store.dir_fd, "1", monkeypatch)
        shutil.rmtree(path / ".fastscp/unflushed")
        (path / "1").rename(path / "2")
    (anew,) = (path / ".fastscp/anew").iterdir()
    with pytest.raises(StartError, match="no folder is there that it was begun for") as refused:
        Store.open(path, FILED)
    assert "move what is in .fastscp/anew to its place by hand" in str(refused.value)
    (found,) = [one for one in verify(path, patience_s=0).findings if one.kind == "unflushed"]
    assert (found.path, found.settled) == (f".fastscp/anew/{anew.name}", "")
    # As it says.
    (anew / "3").rename(path / "2/3")
    with opened(path) as store:
        assert (path / "2/3/d.dcm").read_text() == "d"
        assert "anew" not in own(store)


def test_a_mark_waits_for_what_is_in_its_way_to_its_path(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that cannot be read, of a folder that is in one that has not moved yet."""
    there = tree(store.path)
    marks = Marks(store.dir_fd)
    marks.leave("folder", "1/3", errno.EIO)
    file = spoil(store)
    file.rename(store.path / "kept")
    before = (folder / "3").stat().st_ino
    _begin(store.path, store.dir_fd, "1", monkeypatch)
    (store.path / "kept").rename(file)
    found = renew(store.path, store.dir_fd, alone=True)
    assert {(one.path, one.settled) for one in found} == {("1", "made anew"), ("1/3", "made anew")}
    assert (folder / "3").stat().st_ino != before
    assert tree(store.path) == there


def test_a_mark_that_cannot_be_written_keeps_no_other_from_it(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Marks(store.dir_fd)
    for name in ("a.json", "b.json", "c.json"):
        with contextlib.suppress(FileExistsError):
            (store.path / ".fastscp/unflushed").mkdir()
        (store.path / ".fastscp/unflushed" / name).write_bytes(b"")
    real = os.rename

    def rename(name: str, new: str, **more: int) -> None:
        if new == "a.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(name, new, **more)

    monkeypatch.setattr(os, "rename", rename)
    marks.restate()
    assert {mark.name: mark.unread for mark in marks.left()} == {
        "a.json": False, "b.json": True, "c.json": True,
    }  # fmt: skip


def test_attributes_stay(store: Store, folder: Path) -> None:
    try:
        os.setxattr(folder, "user.kept", b"1")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    Marks(store.dir_fd).leave("folder", "1", errno.EIO)
    renew(store.path, store.dir_fd, alone=True)
    assert os.getxattr(folder, "user.kept") == b"1"


def test_what_cannot_be_made_anew_says_so(store: Store, folder: Path) -> None:
    marks = Marks(store.dir_fd)
    marks.leave("folder", "", errno.EIO)
    marks.leave("file", "1/a.dcm", errno.EIO)
    marks.leave("all folders", "", errno.EIO)
    marks.leave("file system", "", errno.EIO)
    found = renew(store.path, store.dir_fd, alone=True)
    assert len(found) == 4
    assert all("restart the machine" in one.why and not one.settled for one in found)
    assert len(marks.standing()) == 4
    # In another mount there is nothing to be said.
    now = Mounted("next", "next")
    assert renew(store.path, store.dir_fd, alone=True, now=now) == []
    assert marks.left() == ()


def test_verify_beside_a_service_only_tells(store: Store, folder: Path) -> None:
    Marks(store.dir_fd).leave("folder", "1", errno.EIO)
    before = folder.stat().st_ino
    (found,) = [one for one in verify(store.path, patience_s=0).findings if one.path == "1"]
    assert (found.kind, found.settled) == ("unflushed", "")
    assert "a service is using the store" in found.why
    assert folder.stat().st_ino == before


def test_nothing_doubtful_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that failed once succeeds the next time, and the line would promise too much."""
    from tests.unit.test_duplicates import instance

    path = tmp_path / "store"
    with opened(path):
        pass
    file = path / "1.2.3.1/1.2.3.1.1/1.2.3.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(instance())
    real, fails = os.fsync, [True]

    def fsync(fd: int) -> None:
        if fails and os.readlink(f"/proc/self/fd/{fd}").endswith("/1.2.3.dcm"):
            fails.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert not verify(path, adopt=True).clean
    report = verify(path, adopt=True)
    assert not any(one.settled for one in report.findings)
    (why,) = [one.why for one in report.findings if one.kind == "unjournaled"]
    assert "may not be on the disk" in why


# Duplicates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["version", "replace", "keep", "refuse"])
@pytest.mark.parametrize("durable", [False, True])
def test_an_identical_file_that_is_doubtful_is_replaced(
    store: Store, policy: str, durable: bool
) -> None:
    from tests.unit.test_duplicates import instance

    (store.path / "1").mkdir()
    file = store.path / "1/a.dcm"
    part = store.path / ".fastscp/incoming/a.part"
    incoming_fd = os.open(part.parent, os.O_RDONLY)
    doubts = Shared().doubts
    replaced = replacing(store.dir_fd)
    try:
        for doubtful in ("1", "1/a.dcm"):
            file.write_bytes(instance())
            part.write_bytes(instance())
            before = file.stat().st_ino
            doubts.doubt(doubtful)
            outcome = Resolution(
                store.dir_fd, incoming_fd, "a.part", "1/a.dcm",
                policy=policy, durable=durable, doubts=doubts, replaced=replaced,
            ).attempt()  # fmt: skip
            assert outcome is not None
            assert Settlement(replaced, "1/a.dcm", refused=False).attempt() is not None
            os.close(outcome.lock_fd)
            assert (outcome.kind, outcome.path) == ("replaced", "1/a.dcm")
            assert file.stat().st_ino != before
            assert not part.exists()
    finally:
        os.close(incoming_fd)

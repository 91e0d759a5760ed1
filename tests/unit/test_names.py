"""Folders read by descriptor: all that is there now, whoever else reads or has read."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from fastscp.store.names import is_own, names_in, own_folder, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[int, set[str]]]:
    """More names than the system gives out at a time."""
    names = {f"{number:0200}" for number in range(400)}
    for name in names:
        (tmp_path / name).touch()
    before = set(os.listdir("/proc/self/fd"))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, names
    os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before


def test_readings_do_not_disturb_each_other(folder: tuple[int, set[str]]) -> None:
    fd, names = folder
    with os.scandir(fd) as other:
        next(other)
        assert names_in(fd) == names
        with read_folder(fd) as ours:
            first = next(ours).name
            assert names_in(fd) == names
            assert {first, *(entry.name for entry in ours)} == names


def test_what_came_since_is_seen(folder: tuple[int, set[str]], tmp_path: Path) -> None:
    fd, names = folder
    assert names_in(fd) == names
    (tmp_path / "new").touch()
    (tmp_path / "0".zfill(200)).unlink()
    assert names_in(fd) == names - {"0".zfill(200)} | {"new"}


def test_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").touch()
    (tmp_path / "link").symlink_to("below")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with read_folder(fd, "below") as entries:
            assert [(entry.name, entry.is_file()) for entry in entries] == [("file", True)]
        with pytest.raises(OSError, match="link"), read_folder(fd, "link"):
            pass
    finally:
        os.close(fd)


def test_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/.fastscp/b").mkdir(parents=True)
    (tmp_path / "a/.fastscpx").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for path, own in {
        "a": False, "a/.fastscp": True, "a/.fastscp/b": True, "a/.fastscp/none/none": True,
        "a/.fastscpx": False, "a/.fastscp/..": False, "none/.fastscp": False, "loop": False,
    }.items():  # fmt: skip
        assert is_own(tmp_path / path) is own, path
        assert is_own(os.fsencode(tmp_path / path)) is own, path
    monkeypatch.chdir(tmp_path / "a/.fastscp/b")
    assert is_own(".")
    (tmp_path / "a/.fastscp/b").rmdir()
    assert not is_own(".")


def test_a_folder_that_is_not_flushed_into_its_own_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next one that needs it takes it for one that lasts."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    flushed: list[str] = []

    def fsync(folder_fd: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{folder_fd}"))
        if len(flushed) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        with pytest.raises(FileNotFoundError), own_folder("own", fd):
            pass
        with pytest.raises(OSError, match="Input/output"), own_folder("own", fd, make=True):
            pass
        assert not (tmp_path / "own").exists()
        for _ in range(2):
            with own_folder("own", fd, make=True) as own_fd:
                assert os.path.samestat(os.fstat(own_fd), (tmp_path / "own").stat())
        assert flushed == [str(tmp_path)] * 2
    finally:
        os.close(fd)

"""Folders read by descriptor: all that is there now, whoever else reads or has read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fastscp.store.names import is_own, names_in, read_folder

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

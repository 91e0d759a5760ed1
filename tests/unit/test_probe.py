"""What the file system can do, and what the start says where that is not enough."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import StartError
from fastscp.store import probe as module
from fastscp.store.nameless import FAST_COMMITS, NO_JOURNAL, Found
from fastscp.store.store import Store
from fastscp_ext import nameless_way
from tests.stores import FILED, opened

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


def test_facts(store: Store) -> None:
    assert store.facts.link
    assert store.facts.directory_flush
    assert store.facts.file_system != "unknown"


def replacing(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


def unsupported(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def always_taken(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@pytest.mark.parametrize("rename", [replacing, unsupported, always_taken])
def test_linking_stands_in(path: Path, rename: Callable[..., None]) -> None:
    with opened(path, rename_noreplace=rename) as store:
        assert not store.facts.noreplace
        assert store.facts.link
        assert not (path / ".fastscp" / "probe").exists()


def test_neither_rename_nor_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StartError, match="can neither rename without replacing nor link"):
        Store.open(path, FILED, rename_noreplace=unsupported)


def test_directories_that_cannot_be_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def no_directories(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fsync", no_directories)
    with pytest.raises(StartError, match="use --durability buffered"):
        Store.open(path, FILED)
    with opened(path, durability="buffered") as store:
        assert not store.facts.directory_flush


def test_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StartError, match="has no file locks"):
        Store.open(path, FILED)


def test_a_killed_probe_is_cleared(path: Path) -> None:
    with opened(path):
        pass
    probe = path / ".fastscp" / "probe"
    probe.mkdir()
    (probe / "a").touch()
    with opened(path):
        assert not probe.exists()


def test_memory_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_file_system", lambda _: "tmpfs")
    with opened(path) as store:
        (warning,) = store.facts.warnings
        assert "is on tmpfs, in memory" in warning
    with opened(path, durability="buffered") as store:
        assert store.facts.warnings == ()


def test_how_a_part_gets_its_name_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find_way(folder_fd: int, file_system: str) -> Found:
        asked.append((os.readlink(f"/proc/self/fd/{folder_fd}"), file_system))
        return Found(2, None)

    monkeypatch.setattr(module, "find_way", find_way)
    with opened(path) as store:
        assert store.facts.nameless == 2
        assert asked == [(str(path / ".fastscp/probe"), store.facts.file_system)]


@pytest.mark.parametrize(
    ("kind", "is_told"),
    [(NO_JOURNAL, True), (FAST_COMMITS, True), ("ext4", False), (None, False), ("btrfs", False)],
)
def test_where_the_system_forgets_what_it_flushed(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, is_told: bool
) -> None:
    monkeypatch.setattr(module, "_file_system", lambda _: "ext4")
    monkeypatch.setattr(module, "find_way", lambda _fd, _kind: Found(0, kind))
    with opened(path) as store:
        told = [one for one in store.facts.warnings if f"{path} is on {kind}: " in one]
        assert (len(told), len(store.facts.warnings)) == (is_told, is_told)
    with opened(path, durability="buffered") as store:
        assert store.facts.warnings == ()


def test_the_way_that_works_here_is_found(path: Path) -> None:
    """Also where the system has none, which is told by 0."""
    path.mkdir(parents=True)
    folder = os.open(path, os.O_RDONLY)
    try:
        way = nameless_way(folder)
        assert way in (0, 1, 2)
        assert os.listdir(folder) == (["f"] if way else [])
    finally:
        os.close(folder)
    reading = os.open("/proc/self", os.O_RDONLY)
    try:
        assert nameless_way(reading) == 0
    finally:
        os.close(reading)


def test_file_system() -> None:
    assert module._file_system(Path("/proc/self")) == "proc"

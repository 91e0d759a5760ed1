"""The store's directory: who holds it, what it was made with, what it can do, what is swept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.errors import ConfigError, StartError, StoreBusyError
from fastscp.store import directory
from fastscp.store.directory import (
    Store,
    SweepReport,
    create_life,
    remove_life,
    sweep_incoming,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
OTHER_LAYOUT = "{SOPInstanceUID}.dcm"

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "store"


@contextlib.contextmanager
def opened(path: Path, layout: str = LAYOUT, **options: object) -> Iterator[Store]:
    store = Store.open(path, layout, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with opened(path) as store:
        yield store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_store(path: Path, store: Store) -> None:
    assert store.created
    assert store.previous_layout is None
    home = path / ".fastscp"
    assert sorted(entry.name for entry in home.iterdir()) == [
        "incoming",
        "journal",
        "lock",
        "store.toml",
    ]
    for folder in (path.parent, path, home, home / "incoming", home / "journal"):
        assert mode(folder) == 0o750
    for file in (home / "lock", home / "store.toml"):
        assert mode(file) == 0o640
    content = tomllib.loads((home / "store.toml").read_text())
    assert content == {
        "id": store.id,
        "format": 1,
        "layout": LAYOUT,
        "suffix": ".dcm",
        "suffixes": [".dcm"],
    }
    assert (home / "lock").read_text() == f"{os.getpid()}\n"
    assert os.fstat(store.dir_fd).st_ino == path.stat().st_ino
    assert os.get_inheritable(store.lock_fd)
    assert not os.get_inheritable(store.dir_fd)
    assert store.lost() is None


def test_opening_again_keeps_the_id(path: Path) -> None:
    with opened(path) as first:
        pass
    with opened(path, must_exist=True) as second:
        assert second.id == first.id
        assert not second.created


def test_an_odd_layout_survives_its_file(path: Path) -> None:
    layout = 'a "b" c\\d/é/{SOPInstanceUID}.dcm'
    for _ in range(2):
        with opened(path, layout) as store:
            assert store.layout == layout


def test_facts(store: Store) -> None:
    assert store.facts.link
    assert store.facts.directory_flush
    assert store.facts.file_system != "unknown"


def test_the_store_is_busy(path: Path, store: Store) -> None:
    with pytest.raises(StoreBusyError, match=f"in use by process {os.getpid()}; stop") as caught:
        Store.open(path, LAYOUT)
    assert caught.value.exit_code == 3
    assert caught.value.pid == os.getpid()


def test_a_lock_without_a_process_id(path: Path, store: Store) -> None:
    (path / ".fastscp" / "lock").write_bytes(b"\xff")
    with pytest.raises(StoreBusyError, match="in use by another process"):
        Store.open(path, LAYOUT)


def test_a_successor_inherits_the_lock(path: Path) -> None:
    with opened(path) as store:
        successor = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[store.lock_fd]
        )
    try:
        with pytest.raises(StoreBusyError):
            Store.open(path, LAYOUT)
    finally:
        successor.communicate(b"\n")
    with opened(path):
        pass


def test_must_exist(path: Path) -> None:
    with pytest.raises(StartError, match="is not a store") as caught:
        Store.open(path, LAYOUT, must_exist=True)
    assert caught.value.exit_code == 3
    assert not path.parent.exists()
    path.mkdir(parents=True)
    with pytest.raises(StartError, match="mount the file system"):
        Store.open(path, LAYOUT, must_exist=True)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("change", [(OTHER_LAYOUT, ".dcm"), (LAYOUT, ".dcm.zst")])
def test_changed_layout(path: Path, change: tuple[str, str]) -> None:
    layout, suffix = change
    with opened(path) as store:
        identity = store.id
    with pytest.raises(ConfigError, match=r"--layout: .* add --layout-change") as caught:
        Store.open(path, layout, suffix)
    assert caught.value.exit_code == 2
    with opened(path, layout, suffix=suffix, layout_change=True) as store:
        assert store.id == identity
        assert store.previous_layout == LAYOUT
    with opened(path, layout, suffix=suffix, layout_change=True) as store:
        assert store.previous_layout is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"id = ", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'id = "x"\n', "cannot be read"),
        (b'id = "x"\nformat = 2\nlayout = "l"\nsuffix = ".dcm"\n', "has format 2"),
    ],
)
def test_unusable_identity(path: Path, content: bytes, why: str) -> None:
    with opened(path):
        pass
    (path / ".fastscp" / "store.toml").write_bytes(content)
    with pytest.raises(StartError, match=why):
        Store.open(path, LAYOUT)


def test_no_store_in_a_stores_own_folder(path: Path, tmp_path: Path) -> None:
    """The sweep of the one around it would remove its instances."""
    with opened(path):
        pass
    (tmp_path / "link").symlink_to(path / ".fastscp/incoming")
    before = sorted((path / ".fastscp").rglob("*"))
    for inside in (
        path / ".fastscp",
        path / ".fastscp/incoming/x",
        tmp_path / "link/x/y",
        tmp_path / ".fastscp",
    ):
        with pytest.raises(ConfigError, match=r"--store: .* lies in a service's own folder"):
            Store.open(inside, LAYOUT)
    assert sorted((path / ".fastscp").rglob("*")) == before


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"Not a directory; a part of the path is a file"):
        Store.open(tmp_path / "file" / "store", LAYOUT)


def test_no_permission(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root to become somebody else")
    path.mkdir(parents=True)
    os.seteuid(65534)
    try:
        with pytest.raises(
            StartError, match=r"Permission denied; this runs as uid 65534"
        ) as caught:
            Store.open(path, LAYOUT)
    finally:
        os.seteuid(0)
    assert "let it write there" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "mount it writable"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "name another directory"),
    ],
)
def test_advice(path: Path, number: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(directory, "_make_folders", fail)
    with pytest.raises(StartError, match=f"cannot use .*{os.strerror(number)}; .*{advice}"):
        Store.open(path, LAYOUT)


# What the file system can do ---------------------------------------------------------------------


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
        Store.open(path, LAYOUT, rename_noreplace=unsupported)


def test_directories_that_cannot_be_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def no_directories(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fsync", no_directories)
    with pytest.raises(StartError, match="use --durability buffered"):
        Store.open(path, LAYOUT)
    with opened(path, durability="buffered") as store:
        assert not store.facts.directory_flush


def test_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StartError, match="has no file locks"):
        Store.open(path, LAYOUT)


def test_a_killed_probe_is_cleared(path: Path) -> None:
    with opened(path):
        pass
    probe = path / ".fastscp" / "probe"
    probe.mkdir()
    (probe / "a").touch()
    with opened(path):
        assert not probe.exists()


def test_memory_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_file_system", lambda _: "tmpfs")
    with opened(path) as store:
        (warning,) = store.facts.warnings
        assert "is on tmpfs, in memory" in warning
    with opened(path, durability="buffered") as store:
        assert store.facts.warnings == ()


def test_file_system() -> None:
    assert directory._file_system(Path("/proc/self")) == "proc"


# While it runs -----------------------------------------------------------------------------------


def test_lost_when_replaced(path: Path, store: Store) -> None:
    path.rename(path.with_name("moved"))
    lost = store.lost()
    assert lost is not None
    assert "No such file" in lost
    path.mkdir()
    assert store.lost() == f"{path} is another directory now"


def test_lost_when_the_identity_changes(path: Path, store: Store) -> None:
    identity = path / ".fastscp" / "store.toml"
    identity.write_text(identity.read_text().replace(store.id, "another"))
    assert store.lost() == f"{path} has lost its .fastscp/store.toml"
    identity.write_text("nonsense")
    assert "cannot be read" in str(store.lost())
    identity.unlink()
    assert store.lost() == f"{path} has lost its .fastscp/store.toml"


def test_sweep(path: Path, store: Store) -> None:
    incoming = path / ".fastscp" / "incoming"
    alive, alive_lock = create_life(store.dir_fd, "alive")
    over, over_lock = create_life(store.dir_fd, "over")
    try:
        assert mode(incoming / "over") == 0o750
        for life in ("alive", "over"):
            (incoming / life / "1.part").write_bytes(bytes(10))
            (incoming / life / "2.part").write_bytes(bytes(5))
        os.close(over_lock)
        # Died before it had a lock; and a file that is no life.
        (incoming / "begun").mkdir()
        (incoming / "stray").touch()
        assert sweep_incoming(store.dir_fd) == SweepReport(folders=2, parts=2, bytes=15, failed=1)
        assert sorted(entry.name for entry in incoming.iterdir()) == ["alive", "stray"]
        assert len(list((incoming / "alive").iterdir())) == 3
        os.close(alive_lock)
        assert sweep_incoming(store.dir_fd) == SweepReport(folders=1, parts=2, bytes=15, failed=1)
    finally:
        os.close(alive)
        os.close(over)


def test_sweep_of_a_life_that_ends_meanwhile(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part made right before the lock came free is removed with the others."""
    life = path / ".fastscp" / "incoming" / "one"
    for fd in create_life(store.dir_fd, "one"):
        os.close(fd)
    real = fcntl.flock

    def late(fd: int, operation: int) -> None:
        if operation & fcntl.LOCK_NB:
            (life / "1.part").write_bytes(bytes(10))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert sweep_incoming(store.dir_fd) == SweepReport(folders=1, parts=1, bytes=10)
    assert not life.exists()


def test_sweep_follows_no_link(path: Path, store: Store, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    incoming = path / ".fastscp" / "incoming"
    (incoming / "link").symlink_to(precious)
    (incoming / "life").mkdir()
    (incoming / "life" / "part").symlink_to(precious / "file")
    report = sweep_incoming(store.dir_fd)
    assert (report.folders, report.failed) == (1, 1)
    assert (precious / "file").exists()


def test_sweep_of_nothing(store: Store) -> None:
    assert sweep_incoming(store.dir_fd) == SweepReport(0, 0, 0)


def test_a_life_is_new(store: Store) -> None:
    life, lock = create_life(store.dir_fd, "one")
    try:
        with pytest.raises(FileExistsError):
            create_life(store.dir_fd, "one")
    finally:
        os.close(lock)
        os.close(life)


@pytest.mark.parametrize("left_over", [False, True])
def test_a_life_that_ends_in_order(path: Path, store: Store, left_over: bool) -> None:
    folder = path / ".fastscp" / "incoming" / "one"
    for fd in create_life(store.dir_fd, "one"):
        os.close(fd)
    if left_over:
        (folder / "1.part").touch()
    remove_life(store.dir_fd, "one")
    assert folder.exists() is left_over
    remove_life(store.dir_fd, "one")
    assert sweep_incoming(store.dir_fd) == SweepReport(int(left_over), int(left_over), 0)
    assert not folder.exists()

"""Worker lives: their folders are made, removed, and swept once nobody holds them."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from fastscp.store.lives import SweepReport, create_life, remove_life, sweep_incoming
from tests.stores import mode

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.store import Store

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


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
        assert sweep_incoming(store.dir_fd) == SweepReport(2, 2, 15, 1, "Not a directory")
        assert sorted(entry.name for entry in incoming.iterdir()) == ["alive", "stray"]
        assert len(list((incoming / "alive").iterdir())) == 3
        os.close(alive_lock)
        assert sweep_incoming(store.dir_fd) == SweepReport(1, 2, 15, 1, "Not a directory")
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

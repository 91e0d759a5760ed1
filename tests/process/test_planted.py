"""What somebody else puts into a store: files that are none, links, and folders moved away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.verify import verify
from tests.kit import ANY_PORT, SERIES, SOP, STUDY, Service, data_set, path_of, store, wait_for
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSED: Final = 0xA700
BOTH: Final = pytest.mark.parametrize("durability", ["stable", "buffered"])


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        # The name may be longer than an address can be.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    outside = path.parents[3] / "outside"
    outside.write_bytes(b"")
    path.symlink_to(outside)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parents[3] / "nowhere")


@BOTH
@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (_fifo, "what has its name is no regular file"),
        (_socket, "what has its name is no regular file"),
        (_directory, "a directory has its name"),
        (_link, "a symbolic link is in its place or on the way"),
        (_dangling, "a symbolic link is in its place or on the way"),
    ],
)
def test_what_has_the_name_of_an_instance_holds_nobody_up(
    tmp_path: Path, durability: str, plant: Callable[[Path], None], reason: str
) -> None:
    """More of them than there are helpers that compare."""
    names = [f"{SOP}.{n}" for n in range(4)]
    with Service(tmp_path, "--durability", durability, workers=1) as service:
        (service.store / path_of()).parent.mkdir(parents=True)
        for name in names:
            plant(service.store / path_of(name))
        with service.peer() as peer:
            peer.send(b"".join(store(n, sop=name) for n, name in enumerate(names)))
            assert peer.read_statuses(4) == [(n, REFUSED) for n in range(4)]
            peer.send(store(4) + store(5))
            assert peer.read_statuses(2) == [(4, 0), (5, 0)]
        service.in_log(reason)
        service.in_log("answered A700; ")
        assert not (tmp_path / "nowhere").exists()
        assert [fact["path"] for fact in service.journal()] == [path_of(), path_of()]


@BOTH
@pytest.mark.parametrize("above", [1, 2])
def test_a_linked_folder_is_not_followed(tmp_path: Path, durability: str, above: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with Service(tmp_path, "--durability", durability, workers=1) as service:
        link = (service.store / path_of()).parents[above - 1]
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside)
        with service.peer() as peer:
            other = store(2, data_set(study="1.2", series="1.3"))
            peer.send(store(1) + other)
            assert peer.read_statuses(2) == [(1, REFUSED), (2, 0)]
        assert list(outside.iterdir()) == []
        said = service.in_log("a symbolic link is in its place or on the way")
        assert "none is followed" in said


def test_links_are_named_at_the_start(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        path = service.store
    (path / "elsewhere").symlink_to(tmp_path)
    with Service(tmp_path, workers=1) as service:
        assert "elsewhere" in service.in_log("has symbolic links")


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Service(tmp_path, store=tmp_path / "link", workers=1) as service, service.peer() as peer:
        peer.send(store(1) + store(2))
        assert peer.read_statuses(2) == [(1, 0), (2, 0)]
        assert (tmp_path / "real" / path_of()).is_file()


@BOTH
def test_a_folder_that_was_moved_away_gets_no_more_instances(
    tmp_path: Path, durability: str
) -> None:
    """Not for longer than it stays open where nothing is flushed."""
    with (
        Service(tmp_path, "--durability", durability, workers=1) as service,
        service.peer() as peer,
    ):
        peer.send(store(0))
        assert peer.read_statuses(1) == [(0, 0)]
        (service.store / STUDY / SERIES).rename(service.store / STUDY / "moved")
        number = 0

        def arrives() -> bool:
            nonlocal number
            number += 1
            name = f"{SOP}.{number}"
            peer.send(store(number, sop=name))
            assert peer.read_statuses(1) == [(number, 0)]
            return (service.store / path_of(name)).is_file()

        wait_for(arrives, "an instance under its path")


@BOTH
def test_a_folder_that_was_removed_is_made_again(tmp_path: Path, durability: str) -> None:
    with (
        Service(tmp_path, "--durability", durability, workers=1) as service,
        service.peer() as peer,
    ):
        for number in range(3):
            name = f"{SOP}.{number}"
            peer.send(store(number, sop=name))
            assert peer.read_statuses(1) == [(number, 0)]
            assert (service.store / path_of(name)).is_file()
            shutil.rmtree(service.store / STUDY)


def _open_folders(pid: int, below: Path) -> int:
    """Directories of studies and series that a process has open."""
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        # Instances that took the redo log are open until its checkpoint.
        is_ours = path.startswith(f"{below}/") and "/.fastscp" not in path
        found += is_ours and not path.endswith(".dcm")
    return found


@BOTH
def test_few_folders_stay_open(tmp_path: Path, durability: str) -> None:
    with Service(tmp_path, "--durability", durability, workers=1) as service:
        (worker,) = service.worker_pids()
        with service.peer() as peer:
            for number in range(200):
                data = data_set(sop=f"{SOP}.{number}", series=f"{SERIES}.{number}")
                peer.send(store(number, data, sop=f"{SOP}.{number}"))
                assert peer.read_statuses(1) == [(number, 0)]
                assert _open_folders(worker, service.store) <= 64
        wait_for(lambda: _open_folders(worker, service.store) == 0, "all folders closed")


# The service's own --------------------------------------------------------------------------------


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A command that has to end by itself, whatever it meets."""
    return subprocess.run(
        [*Service.program(), *arguments], cwd=cwd, env=Service.environment(),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", "/incoming", "/journal", "/store.toml", "/lock", "/locks"])
def test_no_link_is_followed_in_the_services_own_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store"
    with opened(path):
        pass
    own = path / f".fastscp{name}"
    own.rename(tmp_path / "outside")
    own.symlink_to(tmp_path / "outside")
    before = sorted(tmp_path.joinpath("outside").rglob("*"))
    done = _run("serve", *ANY_PORT, "--store", "store", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert b"symbolic link" in done.stderr
    assert sorted(tmp_path.joinpath("outside").rglob("*")) == before


@pytest.mark.parametrize("name", ["store.toml", "lock", "locks", "journal/0-0-1.jsonl"])
def test_a_fifo_in_the_services_own_folder_stops_the_start(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store"
    with opened(path):
        pass
    own = path / ".fastscp" / name
    own.unlink(missing_ok=True)
    os.mkfifo(own)
    done = _run("serve", *ANY_PORT, "--store", "store", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"{name}: is no regular file".encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("plant", "why"),
    [(_fifo, "what has its name is no regular file"), (_dangling, "a symbolic link is in its")],
)
def test_a_lock_file_that_cannot_be_used_is_named(
    tmp_path: Path, plant: Callable[[Path], None], why: str
) -> None:
    """Not the instance that was to get its name: that one is as it should be."""
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        peer.send(store(1))
        assert peer.read_statuses(1) == [(1, 0)]
        locks = service.store / ".fastscp/locks"
        locks.unlink()
        plant(locks)
        peer.send(store(2))
        assert peer.read_statuses(1) == [(2, REFUSED)]
        said = service.in_log("cannot lock .fastscp/locks, ")
        assert why in said
        assert "move away what is at .fastscp/locks" in said
        assert "cannot compare" not in service.log()
        locks.unlink()
        peer.send(store(3))
        assert peer.read_statuses(1) == [(3, 0)]


def test_commands_pass_over_what_is_no_file(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        peer.send(store(1))
        assert peer.read_statuses(1) == [(1, 0)]
        path = service.store
    instance = path / path_of()
    shutil.move(instance, tmp_path / "kept")
    os.mkfifo(instance)
    os.mkfifo(path / "other.dcm")
    done = _run("verify", "--adopt", "--json", cwd=tmp_path)
    assert done.returncode == 3  # ./dicom-store is not there
    done = _run("verify", "--adopt", "--json", "--store", "store", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count(b"is no regular file") == 2
    for named in (path_of(), str(instance)):
        done = _run("cat", named, "--store", "store", cwd=tmp_path)
        assert done.returncode == 1
        assert b"is no regular file" in done.stderr
    instance.unlink()
    instance.symlink_to(tmp_path / "kept")
    done = _run("cat", path_of(), "--store", "store", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"is a symbolic link" in done.stderr
    assert any("is a symbolic link" in one.why for one in verify(path, patience_s=0.0).findings)

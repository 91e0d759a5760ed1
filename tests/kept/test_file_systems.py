"""The store on real file systems: it starts, sweeps, verifies, and survives a kill on each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.errors import StartError
from fastscp.store.findings import Kind
from fastscp.store.journal import Segments, append_fact, segment_names
from fastscp.store.lives import SweepReport, create_life, sweep_incoming
from fastscp.store.names import names_in
from fastscp.store.store import Store
from fastscp.store.verify import verify
from fastscp_ext import crc32c
from tests import disks
from tests.disks import mounted, program
from tests.kit import (
    CT,
    DEADLINE_S,
    ELE,
    SOP,
    Service,
    data_set,
    open_paths,
    path_of,
    send_signal,
    store,
    wait_for,
)
from tests.scripted import part10, write_files
from tests.stores import FILED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    held = Store.open(path, FILED)
    try:
        yield held
    finally:
        held.close()


def test_start(disk: Path) -> None:
    path = disk / "store"
    with opened(path) as first:
        facts = first.facts
        assert (facts.file_system, facts.warnings) == (disk.name, ())
        assert facts.noreplace
        assert facts.link
        assert facts.directory_flush
        assert first.lost() is None
    probe = path / ".fastscp/probe"
    assert not probe.exists()
    # A probe was killed after each of its steps; and one more left everything.
    left: tuple[str, ...]
    for left in ((), ("a",), ("a", "b"), ("b", "c"), ("b", "c", "d"), ("b", "c", "d", "e")):
        probe.mkdir()
        for name in left:
            (probe / name).touch()
        with opened(path) as again:
            assert (again.id, again.facts) == (first.id, facts)
            assert not probe.exists()


@pytest.mark.parametrize("kind", [*disks.KINDS, *disks.VARIANTS, disks.FAST_COMMITS])
def test_where_a_part_needs_no_name(tmp_path: Path, kind: str) -> None:
    with mounted(kind, tmp_path) as point, opened(point / "store") as held:
        assert (held.facts.nameless > 0) == (kind in ("ext4", "ext4 writeback", "xfs"))


def test_sweep(disk: Path) -> None:
    with opened(disk / "store") as held, contextlib.ExitStack() as closing:
        incoming = disk / "store/.fastscp/incoming"
        locks = {}
        for life in ("in use", "over", "empty"):
            life_fd, locks[life] = create_life(held.dir_fd, life)
            closing.callback(os.close, life_fd)
            for number in range(3) if life != "empty" else ():
                (incoming / life / f"{number}.part").write_bytes(bytes(10))
            # A descriptor that was read before, as far as it went then.
            names_in(life_fd)
            (incoming / life / "late.part").write_bytes(bytes(7))
            assert "late.part" in names_in(life_fd)
        # Its maker died before it had a lock.
        (incoming / "begun").mkdir()
        os.close(locks["over"])
        os.close(locks["empty"])
        assert sweep_incoming(held.dir_fd) == SweepReport(folders=3, parts=5, bytes=44)
        assert os.listdir(incoming) == ["in use"]
        assert len(os.listdir(incoming / "in use")) == 5
        os.close(locks["in use"])
        assert sweep_incoming(held.dir_fd) == SweepReport(folders=1, parts=4, bytes=37)
        assert os.listdir(incoming) == []


def test_a_life_that_ends_while_a_sweep_waits(disk: Path) -> None:
    """The sweep opened the folder before the life was made, and sees it all the same."""
    with opened(disk / "store") as held:
        incoming = disk / "store/.fastscp/incoming"
        holder = os.open(incoming, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_SH)
        found: list[SweepReport] = []
        sweeping = threading.Thread(target=lambda: found.append(sweep_incoming(held.dir_fd)))
        sweeping.start()

        def waits() -> bool:
            # proc(5): a lock that is waited for has an arrow.
            inode = str(incoming.stat().st_ino)
            with open("/proc/locks") as locks:
                return any(
                    "-> FLOCK" in line and line.split(":")[3].split()[0] == inode for line in locks
                )

        try:
            wait_for(waits, "the sweep waiting for its lock")
            for fd in create_life(held.dir_fd, "short"):
                os.close(fd)
            (incoming / "short/0.part").write_bytes(bytes(5))
        finally:
            os.close(holder)
            sweeping.join()
        assert found == [SweepReport(folders=1, parts=1, bytes=5)]


def test_verify(disk: Path) -> None:
    path = disk / "store"
    data = data_set(pixels=20_000)
    with opened(path) as held:
        segments = Segments(held.dir_fd, "1", "w0", durable=True)
        fd, _ = segments.next()
        for number in range(40):
            name = f"{number % 4}/{number % 2}/{number}.dcm"
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(part10(data, sop=f"{SOP}.{number}"))
            fact: dict[str, Any] = {"v": 1, "event": "stored", "seq": number + 1, "path": name}
            append_fact(fd, fact | {"bytes": len(data), "digest": f"crc32c:{crc32c(data):08x}"})
        segments.close()
    # Unfinished ones are none of its business.
    (path / ".fastscp/incoming/x").mkdir()
    (path / ".fastscp/incoming/x/0.part").write_bytes(part10(data))
    report = verify(path, patience_s=0.0)
    assert (report.findings, report.files, report.lines) == ((), 40, 40)

    (path / "1/1/1.dcm").unlink()
    (path / "2/0/2.dcm").write_bytes(part10(data[:-1] + b"\xff"))
    new = path_of(f"{SOP}.41")
    (path / new).parent.mkdir(parents=True)
    (path / new).write_bytes(part10(data_set(sop=f"{SOP}.41"), sop=f"{SOP}.41"))
    segment = path / ".fastscp/journal/1-w0-1.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"seq":10,', b'"seq":99,'))
    report = verify(path, adopt=True, repair_journal=True)
    assert {finding.path: (finding.kind, bool(finding.settled)) for finding in report.findings} == {
        ".fastscp/journal/1-w0-1.jsonl": (Kind.DAMAGED, True),
        "1/1/1.dcm": (Kind.MISSING, False),
        "1/1/9.dcm": (Kind.UNJOURNALED, True),
        "2/0/2.dcm": (Kind.CHANGED, False),
        new: (Kind.UNJOURNALED, True),
    }
    report = verify(path, patience_s=0.0)
    assert {finding.path for finding in report.findings} == {"1/1/1.dcm", "2/0/2.dcm"}
    with opened(path) as held:
        assert len(segment_names(held.dir_fd)) == 2


def test_a_service_that_is_killed_and_started_again(disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_files(folder, 12)
    flags = ("--min-free-space", "0")
    with Service(tmp_path, *flags, store=disk / "store") as service:
        send(service, folder)
        with service.peer((1, CT, ELE)) as peer:
            message = store(1, data_set(sop="1.2.9", pixels=100_000), sop="1.2.9", context=1)
            peer.send(message[:-5000])
            wait_for(service.parts, "the part of an unfinished instance")
            (worker,) = [pid for pid in service.worker_pids() if holds_part(pid)]
            os.kill(worker, signal.SIGKILL)
            # Main sweeps what that one left, while the other is at work.
            service.in_log("ended unexpectedly")
            wait_for(lambda: not service.parts(), "the sweep of the dead worker's part")
        with service.peer((1, CT, ELE)) as peer:
            peer.send(message[:-5000])
            wait_for(service.parts, "the part of an unfinished instance")
            for pid in (service.pid, *service.worker_pids()):
                send_signal(pid, signal.SIGKILL)
        service.process.wait(DEADLINE_S)
        service.kill()
        assert len(service.parts()) == 1
    # With a log the lines would go to a new segment at once.
    with Service(tmp_path, *flags, "--redo", "off", store=disk / "store") as service:
        service.in_log("1 unfinished instance,")
        wait_for(lambda: not service.parts(), "no part left")
        expected = [path_of(f"{SOP}.{number + 1}") for number in range(12)]
        assert service.instances() == sorted(expected)
        # All there already: the files are compared, none is stored twice.
        send(service, folder)
        assert service.instances() == sorted(expected)
        for number in range(12):
            sop = f"{SOP}.{number + 1}"
            assert service.data_of(path_of(sop)) == data_set(sop=sop, seed=number)
        with service.peer((1, CT, ELE)) as peer:
            peer.send(store(1, data_set(sop="1.2.8"), sop="1.2.8", context=1))
            assert peer.read_response().status == 0
            # Whoever removes the journal takes what it says with it.
            for segment in (service.store / ".fastscp/journal").iterdir():
                segment.unlink()
            peer.send(store(2, data_set(sop="1.2.9"), sop="1.2.9", context=1))
            assert peer.read_response().status == 0xA700
            peer.send(store(3, data_set(sop="1.2.9"), sop="1.2.9", context=1))
            assert peer.read_response().status == 0
            peer.release()
    assert verify(service.store, adopt=True).clean


def holds_part(pid: int) -> bool:
    return any(path.endswith(".part") for path in open_paths(pid))


def send(service: Service, folder: Path) -> None:
    done = subprocess.run(
        [*Service.program(), "send", f"{service.host}:{service.port}", folder],
        env=Service.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_subvolumes(tmp_path: Path) -> None:
    """All of them have the inode of the first; a snapshot in the place of a store is another."""
    btrfs = program("btrfs", "btrfs-progs")
    with mounted("btrfs", tmp_path) as disk:
        path = disk / "store"
        subprocess.run([btrfs, "-q", "subvolume", "create", path], check=True)
        with opened(path) as held:
            assert held.lost() is None
            path.rename(disk / "moved")
            subprocess.run([btrfs, "-q", "subvolume", "snapshot", disk / "moved", path], check=True)
            assert held.path.stat().st_ino == os.fstat(held.dir_fd).st_ino
            assert str(held.lost()).startswith(f"{path} is another directory now: ")
        with opened(path):
            pass


@pytest.mark.parametrize("folder", [".fastscp", ".fastscp/incoming"])
@pytest.mark.parametrize("apart", ["mount", "bind", "subvolume"])
def test_parts_on_another_file_system(tmp_path: Path, folder: str, apart: str) -> None:
    """Every single instance would be refused: the start says so."""
    kind = "btrfs" if apart == "subvolume" else "ext4"
    with mounted(kind, tmp_path) as disk, contextlib.ExitStack() as undo:
        path = disk / "store"
        place = path / folder
        place.parent.mkdir(parents=True)
        if apart == "subvolume":
            btrfs = program("btrfs", "btrfs-progs")
            subprocess.run([btrfs, "-q", "subvolume", "create", place], check=True)
        else:
            place.mkdir()
            other = disk / "other"
            other.mkdir()
            how = ["--bind", other] if apart == "bind" else ["-t", "tmpfs", "fastscp-test"]
            subprocess.run(["mount", *how, place], check=True)
            undo.callback(lambda: subprocess.run(["umount", place], check=True))
        with pytest.raises(StartError, match="let both be on the same one"):
            Store.open(path, FILED)


def test_a_folder_on_another_file_system(tmp_path: Path) -> None:
    """What has its path there is refused, with advice; all else is kept."""
    btrfs = program("btrfs", "btrfs-progs")
    with mounted("btrfs", tmp_path) as disk:
        path = disk / "store"
        path.mkdir()
        subprocess.run([btrfs, "-q", "subvolume", "create", path / "1.2.7"], check=True)
        with (
            Service(tmp_path, "--min-free-space", "0", store=path, workers=1) as service,
            service.peer((1, CT, ELE)) as peer,
        ):
            for number, (study, status) in enumerate((("1.2.7", 0xA700), ("1.2.6", 0)), 1):
                sop = f"{study}.1"
                peer.send(store(number, data_set(study=study, sop=sop), sop=sop, context=1))
                assert peer.read_response().status == status
            assert "a subvolume of its own" in service.in_log("Invalid cross-device link")
            peer.release()


# The kit ------------------------------------------------------------------------------------------


def test_nothing_stays_of_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        with mounted("ext4", tmp_path) as disk:
            assert os.path.ismount(disk)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []

    # Still in use at the end: the test fails, and yet it is gone.
    monkeypatch.setattr(disks, "_PATIENCE_S", 0.1)
    with contextlib.ExitStack() as closing:

        def stay() -> None:
            with mounted("ext4", tmp_path) as disk:
                closing.enter_context((disk / "file").open("w"))

        with pytest.raises(AssertionError, match="still in use"):
            stay()
        assert os.listdir(tmp_path) == []


def test_what_skips_and_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "the package some-tools"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=missing):
        program("no-such-program", "some-tools")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=missing):
        program("no-such-program", "some-tools")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="mounting xfs takes root"):
        mounted("xfs", tmp_path).__enter__()
    assert os.listdir(tmp_path) == []

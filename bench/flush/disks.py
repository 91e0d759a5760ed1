"""Disks to measure on: real file systems on loop devices, made, mounted, counted, and gone.

    with slow("ext4", folder, 1000) as disk: ...       # a flush of the device takes 1,000 us more
    with image(folder) as file, direct("ext4", file, folder) as disk: ...    # on the disk below

Both have the file systems that people use, with their journals: what a commit costs there is not
what it costs where there is none. Mounting takes root. All functions raise `Absent` with what is
missing, or with what the program said.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.programs import Absent, compiled, program

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).resolve().parent
# Nothing in the background while something is measured, and no discard: it would give the blocks
# of an image back, to be had again by whoever writes next.
MAKE: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K", "-m", "single"),
}
OPTIONS: Final = {"ext4": "noatime", "xfs": "noatime", "btrfs": "noatime,nodiscard"}
SIZE: Final = 3 << 30
SECTOR: Final = 512
PATIENCE_S: Final = 30.0
# Fields of /sys/block/*/stat, from 0. Source: Documentation/block/stat.rst of Linux.
WRITES, SECTORS_WRITTEN, FLUSHES = 4, 6, 15


@dataclass(frozen=True, slots=True)
class Counted:
    """What a device was asked to do. flushes: those that it did, not those that shared them."""

    flushes: int
    writes: int
    written_bytes: int

    def __sub__(self, before: Counted) -> Counted:
        return Counted(
            self.flushes - before.flushes,
            self.writes - before.writes,
            self.written_bytes - before.written_bytes,
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system. point: where. device: its name in /sys/block."""

    kind: str
    point: Path
    device: str

    def counted(self) -> Counted:
        """All since the device was made."""
        words = Path(f"/sys/block/{self.device}/stat").read_text().split()
        return Counted(
            int(words[FLUSHES]), int(words[WRITES]), int(words[SECTORS_WRITTEN]) * SECTOR
        )


class SlowState:
    """What slowdisk.c and its client share."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4096)

    def slow_down(self, delay_us: int) -> None:
        """From the next flush on."""
        struct.pack_into("<Q", self._memory, 0, delay_us)

    def counted(self) -> Counted:
        return Counted(*struct.unpack_from("<QQQ", self._memory, 8))

    def close(self) -> None:
        self._memory.close()


@dataclass(frozen=True, slots=True)
class SlowDisk(Disk):
    """A disk whose flush takes a time; `state` changes it, and counts for itself."""

    state: SlowState


@contextlib.contextmanager
def slow(kind: str, folder: Path, delay_us: int, size: int = SIZE) -> Iterator[SlowDisk]:
    """A new file system on a disk whose flushes take so long, from the moment it is mounted.

    folder: for what it is made of, best in memory: it holds what is written, `size` bytes at most.
    """
    with contextlib.ExitStack() as undo:
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="disk-", dir=folder)))
        file, shared, served = (place / name for name in ("image", "state", "served"))
        with file.open("xb") as image_file:
            image_file.truncate(size)
        _make(kind, file)
        undo.enter_context(_served(file, shared, served))
        state = SlowState(shared)
        undo.callback(state.close)
        device = undo.enter_context(_mounted(kind, served, place / "mounted", direct_io=False))
        state.slow_down(delay_us)
        # Undone last in, first out: what is left to write at the end waits for nothing.
        undo.callback(state.slow_down, 0)
        yield SlowDisk(kind, place / "mounted", device, state)


@contextlib.contextmanager
def image(folder: Path, size: int = SIZE) -> Iterator[Path]:
    """A file for `direct`, written from end to end: no flush has to write where its blocks are.

    To be used again and again; removing it keeps the disk busy for a while.
    """
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=folder) as file:
        piece = bytes(1 << 20)
        for _ in range(size // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        # The loop device passes the page cache by.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield Path(file.name)


@contextlib.contextmanager
def direct(kind: str, file: Path, folder: Path) -> Iterator[Disk]:
    """A new file system in a file, whose writes and flushes go straight to the disk below."""
    with tempfile.TemporaryDirectory(prefix="disk-", dir=folder) as name:
        _make(kind, file)
        point = Path(name) / "mounted"
        with _mounted(kind, file, point, direct_io=True) as device:
            yield Disk(kind, point, device)


def interposed(shared: Path) -> Counted:
    """What the processes that slow.c is preloaded into share; it knows nothing of writes."""
    return Counted(struct.unpack_from("<Q", shared.read_bytes(), 16)[0], 0, 0)


# --- steps ---


def _run(name: str, *words: str | Path) -> str:
    done = subprocess.run([program(name), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"{name}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout.strip()


def _make(kind: str, file: Path) -> None:
    if os.geteuid() != 0:
        raise Absent(f"mounting {kind} takes root")
    name, *words = MAKE[kind]
    _run(name, *words, file)


@contextlib.contextmanager
def _served(file: Path, shared: Path, point: Path) -> Iterator[None]:
    """Let slowdisk.c serve an image as the file `point`."""
    shared.touch()
    point.touch()
    command = [compiled(HERE / "slowdisk.c"), file, shared, point]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            raise Absent(f"no slow disk: {process.stderr.read().strip()}")
        try:
            yield
        finally:
            try:
                # The loop device lets go of the file a moment after its last unmount.
                _patiently("umount", point)
                process.wait(PATIENCE_S)
            finally:
                process.kill()


@contextlib.contextmanager
def _mounted(kind: str, file: Path, point: Path, *, direct_io: bool) -> Iterator[str]:
    """Mount a file's file system on a new folder; gives the name of the loop device."""
    point.mkdir()
    how = f"--direct-io={'on' if direct_io else 'off'}"
    device = Path(_run("losetup", "--find", "--show", how, file))
    try:
        _run("mount", "-t", kind, "-o", OPTIONS[kind], device, point)
    except BaseException:
        _run("losetup", "--detach", device)
        raise
    # It is in use: from now on the last unmount gives it back, however this program ends.
    _run("losetup", "--detach", device)
    try:
        yield device.name
    finally:
        _patiently("umount", point)


def _patiently(name: str, point: Path) -> None:
    """Unmount as soon as nobody uses it; raises Absent if somebody does not stop."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            _run(name, point)
        except Absent:
            if time.monotonic() > deadline:
                _run(name, "--lazy", point)
                raise
            time.sleep(0.01)
        else:
            return

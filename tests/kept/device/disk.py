"""A file system on a recorded block device, mounted, and gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.disks import MountError, attached, checked, make, program
from tests.kit import DEADLINE_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RecordedDisk", "copy_image", "mounted_again", "recorded", "scratch"]

_FUSE: Final = Path("/dev/fuse")
_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True)
class RecordedDisk:
    """point: where it is mounted. base: its image before anything was mounted. log: the record."""

    kind: str
    point: Path
    base: Path
    log: Path

    def position(self) -> int:
        """How long the record is now, in bytes: what has happened stands before this."""
        return self.log.stat().st_size


@contextlib.contextmanager
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for images, in memory where there is room: no flush is to wait for a real disk."""
    free = shutil.disk_usage(_MEMORY).free if _MEMORY.is_dir() else 0
    where = _MEMORY if free > 4 << 30 else tmp_path
    with tempfile.TemporaryDirectory(prefix="fastscp-test-", dir=where) as folder:
        yield Path(folder)


@contextlib.contextmanager
def recorded(
    kind: str, folder: Path, recorder: Path, image: Path | None = None, size: int = 0
) -> Iterator[RecordedDisk]:
    """A file system of a kind on a recorded device.

    recorder: recorder.c, compiled. image: what is on the disk; None: a new file system, of `size`
    bytes at least. Skips, saying so, without root, /dev/fuse or the program that makes the file
    system. When the block ends the mounts, the loop device and the recorder go; the base image and
    the record stay, for `Cuts`.
    """
    if not _FUSE.exists():
        pytest.skip("the recorded disk takes /dev/fuse (modprobe fuse)")
    base, live, log, served = (folder / name for name in ("base", "live", "record", "served"))
    if image is None:
        make(kind, base, size)
    else:
        copy_image(image, base)
    copy_image(base, live)
    log.touch()
    with contextlib.ExitStack() as undo:
        undo.callback(live.unlink)
        undo.enter_context(_served(recorder, live, log, served))
        try:
            point = undo.enter_context(mounted_again(kind, served, folder / "mounted"))
        except MountError as error:
            pytest.skip(f"{kind} cannot be mounted here: {error}")
        # What mounting wrote belongs to the file system, not to what is tested.
        subprocess.run(["sync", "-f", point], check=True)
        yield RecordedDisk(kind, point, base, log)


@contextlib.contextmanager
def _served(recorder: Path, live: Path, log: Path, point: Path) -> Iterator[None]:
    """Let the recorder serve an image as the file `point`."""
    point.touch()
    umount = program("umount", "mount")
    with subprocess.Popen(
        [recorder, live, log, point], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            process.wait(DEADLINE_S)
            pytest.skip(f"no recorded disk here: {process.stderr.read().strip()}")
        try:
            yield
        finally:
            try:
                # The loop device lets go of the file a moment after its last unmount.
                wait_for(
                    lambda: subprocess.run([umount, point], capture_output=True).returncode == 0,
                    "the end of the recorded disk",
                )
            except AssertionError:
                subprocess.run([umount, "--lazy", point], check=False)
                process.kill()
                raise
            assert process.wait(DEADLINE_S) == 0, process.stderr.read()
            point.unlink()


@contextlib.contextmanager
def mounted_again(kind: str, image: Path, point: Path) -> Iterator[Path]:
    """Mount what a cut left, on a new folder: the kernel replays the file system's own log.

    One that has none is checked before, as at a start of the machine.

    Raises MountError: no cut may leave what cannot be mounted.
    """
    if kind == "btrfs":
        # The kernel remembers the newest generation of a file system that is not mounted any more,
        # and would take this one for a stale copy.
        forget = [program("btrfs", "btrfs-progs"), "device", "scan", "--forget"]
        subprocess.run(forget, check=True)
    checked(kind, image)
    with attached(kind, image, point) as mounted:
        yield mounted


def copy_image(image: Path, to: Path) -> None:
    """Copy an image without its holes."""
    subprocess.run(["cp", "--sparse=always", image, to], check=True)

"""Real file systems for tests: made in a file, mounted, and gone afterwards.

    with mounted("btrfs", tmp_path) as point: ...

or the fixture `disk` of conftest.py, which gives a test each of `KINDS` in turn. Another kind takes
a line in `_KINDS`, and its package one in .ci/run. `make` and `attached` are its two steps, for
whoever puts something between them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.kit import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "FAST_COMMITS",
    "KINDS",
    "VARIANTS",
    "MountError",
    "attached",
    "checked",
    "in_memory",
    "make",
    "mounted",
    "program",
]


class MountError(Exception):
    """What `mount` said."""


class _Kind(NamedTuple):
    """How a file system is made: program and package, and the size below which it refuses.

    options: of its mount. check: what a start of the machine runs before it mounts one that was not
    unmounted.
    """

    make: tuple[str, ...]
    package: str
    size: int
    options: str = ""
    check: tuple[str, ...] = ()


_KINDS: Final = {
    "ext4": _Kind(("mkfs.ext4", "-q", "-F"), "e2fsprogs", 64 << 20),
    "xfs": _Kind(("mkfs.xfs", "-q", "-f"), "xfsprogs", 320 << 20),
    # Every block of its own kind once: it is small.
    "btrfs": _Kind(("mkfs.btrfs", "-q", "-f", "-m", "single"), "btrfs-progs", 144 << 20),
}
KINDS: Final = tuple(_KINDS)
# In trials it lost journal lines that had been flushed, so nothing is promised there.
FAST_COMMITS: Final = "ext4 with fast commits"
# The first word is the kind.
_VARIANTS: Final = {
    "ext4 writeback": _KINDS["ext4"]._replace(options=",data=writeback"),
    "ext4 without journal": _KINDS["ext4"]._replace(
        make=("mkfs.ext4", "-q", "-F", "-O", "^has_journal"), check=("e2fsck", "-f", "-y")
    ),
    FAST_COMMITS: _KINDS["ext4"]._replace(make=("mkfs.ext4", "-q", "-F", "-O", "fast_commit")),
}
VARIANTS: Final = tuple(kind for kind in _VARIANTS if kind != FAST_COMMITS)
# How long whoever still uses a file system has to leave it.
_PATIENCE_S = 5.0


def program(name: str, package: str) -> str:
    """The path of an outside program; a missing one skips, but never in continuous integration."""
    # What only root runs is not on everybody's path.
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        missing = f"{name} is not there: install the package {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def _how(kind: str) -> _Kind:
    return (_KINDS | _VARIANTS)[kind]


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """A new, empty file system; returns where it is mounted, a folder below `folder`.

    Skips, saying so, where this user or this kernel cannot mount it; see `program` for what makes
    it. Nothing of it stays, whatever happens in the block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{kind}.image"
    try:
        make(kind, image)
        with contextlib.ExitStack() as undo:
            try:
                point = undo.enter_context(attached(kind, image, folder / kind))
            except MountError as error:
                pytest.skip(f"{kind} cannot be mounted here: {error}")
            yield point
    finally:
        image.unlink(missing_ok=True)


def make(kind: str, image: Path, size: int = 0) -> None:
    """Make an empty file system in a new file; skips, as `mounted`, without a program or root.

    size: in bytes; 0: as small as it may be.
    """
    how = _how(kind)
    command = program(how.make[0], how.package)
    if os.geteuid() != 0:
        pytest.skip(f"mounting {kind} takes root")
    with image.open("xb") as file:
        file.truncate(max(size, how.size))
    made = _run(command, *how.make[1:], image)
    assert made.returncode == 0, made.stderr


def checked(kind: str, image: Path) -> None:
    """Have a file system put in order that was not unmounted, where its kind needs that.

    MountError: it cannot be put in order.
    """
    how = _how(kind)
    if how.check:
        done = _run(program(how.check[0], how.package), *how.check[1:], image)
        # 1 and 2: there was something, and it is in order now.
        if done.returncode > 3:
            raise MountError(" ".join((done.stdout + done.stderr).split()))


@contextlib.contextmanager
def attached(kind: str, image: Path, point: Path) -> Iterator[Path]:
    """Mount a file with a file system in it on a new folder; MountError where that does not go."""
    mount, umount = program("mount", "mount"), program("umount", "mount")
    point.mkdir()
    try:
        # The loop device that `mount` takes is given back by the last unmount.
        options = f"loop{_how(kind).options}"
        done = _run(mount, "-t", kind.partition(" ")[0], "-o", options, image, point)
        if done.returncode != 0:
            raise MountError(" ".join(done.stderr.split()))
        try:
            yield point
        finally:
            _unmount(umount, point)
    finally:
        point.rmdir()


def _unmount(umount: str, point: Path) -> None:
    """Take it away at once if nobody uses it, else as soon as nobody does, and fail."""
    problem = ""

    def gone() -> bool:
        nonlocal problem
        done = _run(umount, point)
        problem = done.stderr
        return done.returncode == 0

    try:
        wait_for(gone, "the end of the mount", _PATIENCE_S)
    except AssertionError:
        _run(umount, "--lazy", point)
        raise AssertionError(f"still in use at the end of the test: {problem}") from None


@contextlib.contextmanager
def in_memory(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory, mounted in a folder; options: as `size=8m`. Skips without."""
    mount, umount = program("mount", "mount"), program("umount", "mount")
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    point = folder / "small"
    point.mkdir()
    done = _run(mount, "-t", "tmpfs", "-o", options, "tmpfs", point)
    if done.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr}")
    try:
        yield point
    finally:
        _unmount(umount, point)

"""Worker lives: each has a folder for its parts, and is over once nobody holds the lock in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass

from fastscp.errors import reason_for
from fastscp.store.names import (
    FILE_MODE,
    FOLDER_MODE,
    INCOMING,
    LIFE_LOCK,
    descriptor,
    names_in,
    open_file,
    open_folder,
)

__all__ = ["SweepReport", "create_life", "is_over", "remove_life", "sweep_incoming"]


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed; `failed` counts folders that could not be removed, left as they are.

    why: what the system said of the first of those.
    """

    folders: int
    parts: int
    bytes: int
    failed: int = 0
    why: str = ""


def create_life(dir_fd: int, life: str) -> tuple[int, int]:
    """Make `incoming/<life>/` and lock it; returns the descriptors of the folder and of its lock.

    life: a name never used before. The caller owns both descriptors; while the second is open, in
    this process or one that inherited it, no sweep touches the folder.
    """
    with (
        descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd,
        contextlib.ExitStack() as undo,
    ):
        # Shared with other lives, against a sweep: it must not see the folder before its lock.
        fcntl.flock(incoming_fd, fcntl.LOCK_SH)
        os.mkdir(life, FOLDER_MODE, dir_fd=incoming_fd)
        life_fd = open_folder(life, incoming_fd)
        undo.callback(os.close, life_fd)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock_fd = os.open(LIFE_LOCK, flags, FILE_MODE, dir_fd=life_fd)
        undo.callback(os.close, lock_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        undo.pop_all()
    return life_fd, lock_fd


def remove_life(dir_fd: int, life: str) -> None:
    """Remove the folder of a life that ends in order. A later sweep removes what is left in it."""
    with (
        contextlib.suppress(OSError),
        descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd,
    ):
        with descriptor(open_folder(life, incoming_fd)) as life_fd:
            os.unlink(LIFE_LOCK, dir_fd=life_fd)
        os.rmdir(life, dir_fd=incoming_fd)


def is_over(dir_fd: int, life: str) -> bool:
    """Whether nobody holds the lock of a life; its folder may be gone. Raises OSError."""
    try:
        lock_fd = open_file(f"{INCOMING}/{life}/{LIFE_LOCK}", dir_fd)
    except FileNotFoundError:
        return True
    with descriptor(lock_fd):
        try:
            # Shared: two that ask at a time do not take each other for the life.
            fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def sweep_incoming(dir_fd: int) -> SweepReport:
    """Remove the folders of worker lives that are over: those whose lock nobody holds.

    Parts in them were never acknowledged. Blocks on the disk.
    """
    folders = parts = size = failed = 0
    why = ""
    with descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd:
        fcntl.flock(incoming_fd, fcntl.LOCK_EX)
        for life in sorted(names_in(incoming_fd)):
            try:
                removed = _sweep_life(incoming_fd, life)
            except FileNotFoundError:
                continue  # its worker removed it meanwhile
            except OSError as error:
                failed += 1
                why = why or reason_for(error)
                continue
            if removed is not None:
                folders += 1
                parts += removed[0]
                size += removed[1]
    return SweepReport(folders, parts, size, failed, why)


def _sweep_life(incoming_fd: int, life: str) -> tuple[int, int] | None:
    """Remove one folder; returns its number of parts and their bytes, None while it is in use."""
    with descriptor(open_folder(life, incoming_fd)) as life_fd:
        with contextlib.ExitStack() as held:
            # Without a lock file its maker died in between: makers are kept out by our lock.
            with contextlib.suppress(FileNotFoundError):
                lock_fd = held.enter_context(descriptor(open_file(LIFE_LOCK, life_fd, os.O_RDWR)))
                try:
                    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
            # Only now: whoever held the lock may have made parts until it died.
            names = names_in(life_fd)
            size = 0
            for name in sorted(names - {LIFE_LOCK}):
                size += os.stat(name, dir_fd=life_fd, follow_symlinks=False).st_size
                os.unlink(name, dir_fd=life_fd)
            # Last: a folder that could not be emptied stays recognizable as a life that is over.
            if LIFE_LOCK in names:
                os.unlink(LIFE_LOCK, dir_fd=life_fd)
        os.rmdir(life, dir_fd=incoming_fd)
    return len(names - {LIFE_LOCK}), size

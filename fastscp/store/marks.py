"""Marks that buffered lives leave on a store: its files may be less than they seem.

While such a life lasts the mark is called `buffered`. A life that does not end cleanly leaves it,
and the next start calls it `suspect` until every file was compared with its journal line.
"""

from __future__ import annotations

import contextlib
import os
from typing import TypeAlias

from fastscp.store.names import (
    BUFFERED,
    FILE_MODE,
    HOME,
    SUSPECT,
    descriptor,
    flush_folder,
    open_folder,
)
from fastscp_ext import flush_file_system

__all__ = ["Suspicion", "begin_life", "end_life", "suspicion", "trust"]

# Marks by name, each with its inode and its time of change in ns: a new one differs.
Suspicion: TypeAlias = tuple[tuple[str, int, int], ...]


def begin_life(dir_fd: int, *, buffered: bool, flush_directory: bool) -> bool:
    """Leave a mark for a buffered life, and read that of the one before; see `Store.suspect`.

    The mark of an unclean buffered life stays until `trust` is called.
    """
    with contextlib.suppress(FileNotFoundError):
        os.rename(BUFFERED, SUSPECT, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    if buffered:
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(BUFFERED, flags, FILE_MODE, dir_fd=dir_fd))
    if flush_directory:
        with descriptor(open_folder(HOME, dir_fd)) as home_fd:
            os.fsync(home_fd)
        os.fsync(dir_fd)
    try:
        os.stat(SUSPECT, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def end_life(dir_fd: int) -> None:
    """Take the mark of a buffered life away, after flushing all. Blocks on the disk.

    dir_fd: the store's, open since the life began. Raises OSError, and the mark stays, if anything
    that was written since could not be flushed.
    """
    try:
        os.stat(BUFFERED, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    flush_file_system(dir_fd)
    os.unlink(BUFFERED, dir_fd=dir_fd)


def suspicion(dir_fd: int) -> Suspicion:
    """What marks the files as less than they may seem, see `Store.suspect`; empty: nothing does.

    The mark of a life that goes on counts as well. Equal as long as the marks are the same.
    """
    marks = []
    for name in (SUSPECT, BUFFERED):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=dir_fd)
            marks.append((name, found.st_ino, found.st_ctime_ns))
    return tuple(marks)


def trust(dir_fd: int) -> None:
    """Take the marks away: every file was compared with its journal line.

    The lock must be held. What was read may be in memory only yet, so all is flushed first.
    Blocks on the disk. Raises OSError, and the marks stay, if it cannot be flushed.
    """
    flush_file_system(dir_fd)
    for name in (SUSPECT, BUFFERED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=dir_fd)
    with descriptor(open_folder(HOME, dir_fd)) as home_fd:
        flush_folder(home_fd)

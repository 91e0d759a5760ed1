"""Marks that buffered lives leave on a store: its files may be less than they seem.

While such a life lasts the mark is called `buffered`. A life that does not end cleanly leaves it,
and the next start calls it `suspect` until every file was compared with its journal line.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, TypeAlias

from fastscp.store.names import (
    BUFFERED,
    SUSPECT,
    descriptor,
    exists,
    flush_folder,
    home,
    make_file,
    open_file,
)
from fastscp.store.unflushed import Marks
from fastscp_ext import flush_file_system

__all__ = [
    "Suspicion",
    "begin_buffered",
    "begin_life",
    "end_life",
    "suspicion",
    "take_back_buffered",
    "trust",
]

# In the folder of the service's own.
_BUFFERED: Final = BUFFERED.rpartition("/")[2]
_SUSPECT: Final = SUSPECT.rpartition("/")[2]

# Marks by name, each with its inode and its time of change in ns: a new one differs.
Suspicion: TypeAlias = tuple[tuple[str, int, int], ...]


def begin_life(dir_fd: int, *, buffered: bool, flush_directory: bool) -> bool:
    """Leave a mark for a buffered life, and read that of the one before; see `Store.suspect`.

    The mark of an unclean buffered life stays until `trust` is called. Raises OSError, also where
    something else has the name of a mark.
    """
    suspicion(dir_fd)
    with home(dir_fd) as home_fd:
        with contextlib.suppress(FileNotFoundError):
            os.rename(_BUFFERED, _SUSPECT, src_dir_fd=home_fd, dst_dir_fd=home_fd)
        if buffered:
            with contextlib.suppress(FileExistsError):
                os.close(make_file(_BUFFERED, home_fd))
        if flush_directory:
            os.fsync(home_fd)
            os.fsync(dir_fd)
        return exists(_SUSPECT, home_fd)


def begin_buffered(dir_fd: int) -> None:
    """Leave the mark of a buffered life from now on, before anything is stored so.

    For a life that began without one; does nothing to a mark that is there. Raises OSError, also
    where something else has its name: then nothing may be stored that would need it.
    """
    suspicion(dir_fd)
    with home(dir_fd) as home_fd:
        made = False
        with contextlib.suppress(FileExistsError):
            os.close(make_file(_BUFFERED, home_fd))
            made = True
        try:
            # Also one that was there: whoever made it may have been killed before this.
            flush_folder(home_fd)
        except OSError:
            # The next try makes it anew, and does not find a name that may not last.
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(_BUFFERED, dir_fd=home_fd)
            raise


def take_back_buffered(dir_fd: int) -> None:
    """Take away what `begin_buffered` made, as long as nothing was stored so. Raises OSError."""
    with home(dir_fd) as home_fd:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_BUFFERED, dir_fd=home_fd)
        flush_folder(home_fd)


def end_life(dir_fd: int) -> None:
    """Take the mark of a buffered life away, after flushing all. Blocks on the disk.

    dir_fd: the store's, open since the life began. Raises OSError, and the mark stays, if anything
    that was written since could not be flushed. Does nothing where there is no mark.
    """
    with home(dir_fd) as home_fd:
        if exists(_BUFFERED, home_fd):
            _flush(dir_fd)
            os.unlink(_BUFFERED, dir_fd=home_fd)


def suspicion(dir_fd: int) -> Suspicion:
    """What marks the files as less than they may seem, see `Store.suspect`; empty: nothing does.

    The mark of a life that goes on counts as well. Equal as long as the marks are the same. Raises
    OSError, also where something else has the name of a mark, which could never be lifted.
    """
    marks = []
    for mark in (SUSPECT, BUFFERED):
        with (
            contextlib.suppress(FileNotFoundError),
            descriptor(open_file(mark, dir_fd)) as fd,
        ):
            found = os.fstat(fd)
            marks.append((mark, found.st_ino, found.st_ctime_ns))
    return tuple(marks)


def trust(dir_fd: int) -> None:
    """Take the marks away: every file was compared with its journal line.

    The lock must be held. What was read may be in memory only yet, so all is flushed first.
    Blocks on the disk. Raises OSError, and the marks stay, if it cannot be flushed.
    """
    _flush(dir_fd)
    with home(dir_fd) as home_fd:
        for name in (_SUSPECT, _BUFFERED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=home_fd)
        flush_folder(home_fd)


def _flush(dir_fd: int) -> None:
    """Flush the file system, or mark that it could not be: another try would mean nothing.

    Raises OSError.
    """
    try:
        flush_file_system(dir_fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            Marks(dir_fd).leave("file system", "", error.errno or 0)
        raise

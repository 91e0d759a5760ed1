"""What an instance whose path is taken may have to wait for: the path's lock, and a line to come.

Nothing here waits itself: whoever asks is told that it is not yet time, and asks again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.store.compress import SUFFIX
from fastscp.store.names import PATH_LOCKS, holder, make_file, open_file
from fastscp_ext import crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "TURNS", "Batches", "Doubt", "NotYetError", "check_locks", "lock_of", "take_lock", "turn_of",
]  # fmt: skip

# So many locks there were before a commit took them, too; see `turn_of`.
TURNS: Final = 256
# How long a line that is on its way is waited for. A batch lasts as long as its flushes; one that
# takes longer than this is stuck with its disk.
_LINE_S: Final = 10.0


class NotYetError(Exception):
    """Another instance has the lock of the path, or its journal line is on its way."""


class Batches(Protocol):
    """The batches of all workers that may still write journal lines; `fastscp_ext.Liveness`."""

    def batches(self) -> Sequence[tuple[int, int, int]]: ...

    def under_way(self, batch: tuple[int, int, int], /) -> bool: ...


class Doubt:
    """A file that has no line yet, and the batches that may still write it."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._waiting = list(batches.batches())
        self._deadline = time.monotonic() + _LINE_S

    def look(self) -> None:
        """Return once none of the batches is under way. Raises NotYetError, TimeoutError."""
        self._waiting = [one for one in self._waiting if self._batches.under_way(one)]
        if not self._waiting:
            return
        if time.monotonic() > self._deadline:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        raise NotYetError


def lock_of(path: str) -> int:
    """The number of a path's lock, which the commit takes as well; below 2^32.

    Both forms of an instance, compressed or not, have one lock. `fastscp_ext.commit.claims` counts
    the same way.
    """
    return crc32c(os.fsencode(path.removesuffix(SUFFIX)))


def turn_of(path: str) -> int:
    """The number by which comparisons take turns; below 256.

    It is the lock that older versions know, and whose worker may live on through an upgrade.
    """
    return crc32c(os.fsencode(path)) % TURNS


def take_lock(store_fd: int, *numbers: int) -> int:
    """Take some of the locks, all or none; closing the descriptor gives them back.

    Locks of the open file description: they hold between the threads of a process, too.
    Raises NotYetError: somebody has one of them. Raises OSError.
    """
    try:
        fd = open_file(PATH_LOCKS, store_fd, os.O_RDWR)
    except FileNotFoundError:
        _make_locks(store_fd)
        fd = open_file(PATH_LOCKS, store_fd, os.O_RDWR)
    try:
        for number in numbers:
            # struct flock: type, whence, start, length, pid.
            request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError) as error:
        # Either says that it is taken.
        os.close(fd)
        raise NotYetError from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_locks(store_fd: int) -> None:
    """Make the file of locks unless it is there, and try one. Raises OSError."""
    with contextlib.suppress(NotYetError):
        os.close(take_lock(store_fd, 0))


def _make_locks(store_fd: int) -> None:
    with holder(PATH_LOCKS, store_fd) as (home_fd, name), contextlib.suppress(FileExistsError):
        os.close(make_file(name, home_fd))

"""Folders by descriptor: opened, read and flushed.

Nobody reads a directory descriptor that is kept. Its position belongs to everybody who has it, and
a file system may fix the end of a directory when it is opened, as btrfs does: of what came later a
second reading sees nothing. So each reading opens the directory anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HOME",
    "descriptor",
    "flush_folder",
    "names_in",
    "open_folder",
    "read_folder",
]

# The one folder of a store that holds no instances, whatever lies in it.
HOME: Final = ".fastscp"

_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY})


@contextlib.contextmanager
def descriptor(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def open_folder(name: str, dir_fd: int) -> int:
    """A directory below a descriptor, itself no symbolic link. Raises OSError."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


@contextlib.contextmanager
def read_folder(dir_fd: int, name: str = ".") -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a directory below a descriptor, by default of that directory itself.

    Opened anew, so whatever was there before is seen, and no reading disturbs another one. The
    entries can be asked inside the block only. Raises OSError.
    """
    with descriptor(open_folder(name, dir_fd)) as fd, os.scandir(fd) as entries:
        yield entries


def names_in(dir_fd: int) -> set[str]:
    """The names in a directory, given its descriptor, as of now. Raises OSError."""
    with read_folder(dir_fd) as entries:
        return {entry.name for entry in entries}


def flush_folder(folder_fd: int) -> bool:
    """Flush a directory; False where the file system has no such thing. Raises OSError."""
    try:
        os.fsync(folder_fd)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True

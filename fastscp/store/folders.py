"""Folders by descriptor: opened, read and flushed; and which of them is the service's own.

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
    "OWN",
    "descriptor",
    "flush_folder",
    "is_own",
    "names_in",
    "open_folder",
    "read_folder",
]

# The one folder of a store that holds no instances, whatever lies in it.
HOME: Final = ".fastscp"
# Why nothing from there is taken for an instance, after the name of what was asked for.
OWN: Final = (
    f"belongs to a service's own folder {HOME}: not an instance, or an unfinished one; "
    f"name the store itself"
)

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


def is_own(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether a path leads to a service's own folder or into it, links followed.

    By name, whether or not the store around it is in use.
    """
    try:
        resolved = os.fsdecode(os.path.realpath(path))
    except FileNotFoundError:
        return False  # relative to a folder that was removed: nothing is there
    *folders, name = resolved.split("/")
    return HOME in folders or (name == HOME and os.path.isdir(resolved))  # noqa: PTH112

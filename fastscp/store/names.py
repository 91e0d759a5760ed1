"""What a store calls its own, and folders by descriptor: opened, read and flushed.

    STORE/.fastscp/store.toml        id, format, layout, suffix
    STORE/.fastscp/lock              held by the one service that uses the store
    STORE/.fastscp/locks             locks between workers that meet at one path
    STORE/.fastscp/incoming/<life>/  parts of one worker life, beside the `lock` it holds
    STORE/.fastscp/journal/          what was stored, one JSON line per fact
    STORE/.fastscp/buffered          while a life with buffered durability lasts
    STORE/.fastscp/suspect           after one that did not end cleanly
    STORE/.fastscp/probe/            while the start finds out what the file system can do

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
    "BUFFERED",
    "FILE_MODE",
    "FOLDER_MODE",
    "HOME",
    "IDENTITY",
    "INCOMING",
    "JOURNAL",
    "LIFE_LOCK",
    "LOCK",
    "OWN",
    "PATH_LOCKS",
    "PROBE",
    "SUSPECT",
    "descriptor",
    "flush_folder",
    "flush_folder_at",
    "is_own",
    "names_in",
    "open_folder",
    "read_folder",
]

# The one folder of a store that holds no instances, whatever lies in it.
HOME: Final = ".fastscp"
IDENTITY: Final = f"{HOME}/store.toml"
LOCK: Final = f"{HOME}/lock"
PATH_LOCKS: Final = f"{HOME}/locks"
INCOMING: Final = f"{HOME}/incoming"
JOURNAL: Final = f"{HOME}/journal"
# There while a buffered life lasts; a life that finds it there found an unclean end.
BUFFERED: Final = f"{HOME}/buffered"
SUSPECT: Final = f"{HOME}/suspect"
PROBE: Final = f"{HOME}/probe"
# In the folder of a worker life.
LIFE_LOCK: Final = "lock"

FOLDER_MODE: Final = 0o750
FILE_MODE: Final = 0o640

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


def flush_folder_at(dir_fd: int, folder: str) -> bool:
    """Flush a directory below a descriptor, "" for that one itself; else as `flush_folder`."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    with descriptor(fd):
        return flush_folder(fd)


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

"""What a store calls its own; files and folders in it by descriptor: opened, read and flushed.

    STORE/.fastscp/store.toml        id, format, layout, suffix
    STORE/.fastscp/lock              held by the one service that uses the store
    STORE/.fastscp/admin.sock        by which an operator reaches the service, while it runs
    STORE/.fastscp/locks             locks between workers that meet at one path
    STORE/.fastscp/incoming/<life>/  parts of one worker life, beside the `lock` it holds
    STORE/.fastscp/journal/          what was stored, one JSON line per fact
    STORE/.fastscp/redo/             small instances and their lines, until their files are flushed
    STORE/.fastscp/aside/            what lay at a path that an acknowledged instance came back to
    STORE/.fastscp/replaced/         older contents, until the newer line of their path is flushed
    STORE/.fastscp/buffered          while a life with buffered durability lasts
    STORE/.fastscp/suspect           after one that did not end cleanly
    STORE/.fastscp/unflushed/        what could not be flushed, as long as that matters
    STORE/.fastscp/anew/             folders that `verify` makes anew, until they have their names
    STORE/.fastscp/probe/            while the start finds out what the file system can do

Nobody who may write below a store leads anybody out of it, or holds anybody up: whatever lies there
is reached by names below a descriptor, none of them a symbolic link, and only regular files are
opened.

Nobody reads a directory descriptor that is kept. Its position belongs to everybody who has it, and
a file system may fix the end of a directory when it is opened, as btrfs does: a second reading sees
nothing of what came later. So each reading opens the directory anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ANEW",
    "ASIDE",
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
    "REDO",
    "REPLACED",
    "SUSPECT",
    "UNFLUSHED",
    "descriptor",
    "exists",
    "flush_folder",
    "flush_folder_at",
    "give",
    "holder",
    "home",
    "is_own",
    "leads_to",
    "make_file",
    "make_folder",
    "make_way",
    "names_in",
    "open_file",
    "open_folder",
    "own_folder",
    "read_folder",
    "shut",
    "status_at",
    "write_all",
]

# The one folder of a store that holds no instances, whatever lies in it.
HOME: Final = ".fastscp"
IDENTITY: Final = f"{HOME}/store.toml"
LOCK: Final = f"{HOME}/lock"
PATH_LOCKS: Final = f"{HOME}/locks"
INCOMING: Final = f"{HOME}/incoming"
JOURNAL: Final = f"{HOME}/journal"
REDO: Final = f"{HOME}/redo"
ASIDE: Final = f"{HOME}/aside"
REPLACED: Final = f"{HOME}/replaced"
# There while a buffered life lasts; a life that finds it there found an unclean end.
BUFFERED: Final = f"{HOME}/buffered"
SUSPECT: Final = f"{HOME}/suspect"
UNFLUSHED: Final = f"{HOME}/unflushed"
ANEW: Final = f"{HOME}/anew"
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

_LINK: Final = "a symbolic link is on the way, and none is followed in a store"
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY})


@contextlib.contextmanager
def descriptor(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def shut(fd: int) -> None:
    """Close a descriptor that nobody can make more of.

    The number is free again even where the system calls that a failure, and may be somebody else's
    at once: whoever closed it a second time would close his.
    """
    with contextlib.suppress(OSError):
        os.close(fd)


def open_folder(path: str, dir_fd: int) -> int:
    """A directory below a descriptor, reached through no symbolic link. Raises OSError."""
    # Not above: whoever asks for help or names waits for no codec.
    from fastscp_ext import open_beneath

    try:
        return open_beneath(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, _LINK, path) from None
        raise


@contextlib.contextmanager
def home(dir_fd: int) -> Iterator[int]:
    """The folder that holds no instances, as a descriptor. Raises OSError."""
    with descriptor(open_folder(HOME, dir_fd)) as home_fd:
        yield home_fd


@contextlib.contextmanager
def own_folder(
    path: str, dir_fd: int, *, make: bool = False, flushed: bool = True
) -> Iterator[int]:
    """A folder of the service's own, as a descriptor; make: where it is not there. Raises OSError.

    One that is made here is flushed into the folder around it, or goes again; unless the caller
    flushes that one (`flushed` False).
    """
    try:
        fd = open_folder(path, dir_fd)
    except FileNotFoundError:
        if not make:
            raise
        with holder(path, dir_fd) as (above_fd, name):
            with contextlib.suppress(FileExistsError):
                make_folder(name, above_fd)
            try:
                if flushed:
                    flush_folder(above_fd)
            except OSError:
                # The next one finds it missing, and not with a name that may not last.
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=above_fd)
                raise
        fd = open_folder(path, dir_fd)
    with descriptor(fd):
        yield fd


def make_folder(name: str, dir_fd: int) -> None:
    """A new folder, which belongs to whom the one around it does. Raises OSError."""
    os.mkdir(name, FOLDER_MODE, dir_fd=dir_fd)
    if os.geteuid() == 0:
        try:
            with descriptor(open_folder(name, dir_fd)) as fd:
                give(fd, dir_fd)
        except BaseException:
            os.rmdir(name, dir_fd=dir_fd)
            raise


def make_way(path: str, dir_fd: int) -> list[str]:
    """Make the folders above a path that are missing; returns those in which one was made.

    "": the directory of the descriptor itself. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError), holder(path, dir_fd):
        return []
    folders = path.split("/")[:-1]
    grown = []
    for n in range(len(folders)):
        with (
            holder("/".join(folders[: n + 1]), dir_fd) as (above_fd, name),
            contextlib.suppress(FileExistsError),
        ):
            make_folder(name, above_fd)
            grown.append("/".join(folders[:n]))
    return grown


def make_file(name: str, dir_fd: int, flags: int = os.O_WRONLY) -> int:
    """A new file, which belongs to whom the folder does, as a descriptor. Raises OSError."""
    flags |= os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, FILE_MODE, dir_fd=dir_fd)
    try:
        give(fd, dir_fd)
    except BaseException:
        shut(fd)
        os.unlink(name, dir_fd=dir_fd)
        raise
    return fd


def give(fd: int, dir_fd: int) -> None:
    """Give what root made in a folder to whom the folder belongs: the service's user, who needs it.

    Raises OSError.
    """
    if os.geteuid() != 0:
        return
    around = os.fstat(dir_fd)
    if around.st_uid not in (0, os.fstat(fd).st_uid):
        os.fchown(fd, around.st_uid, around.st_gid)


@contextlib.contextmanager
def holder(path: str, dir_fd: int) -> Iterator[tuple[int, str]]:
    """The directory that holds what is called `path`, as a descriptor, and its name there.

    Raises OSError.
    """
    folder, _slash, name = path.rpartition("/")
    with descriptor(open_folder(folder or ".", dir_fd)) as folder_fd:
        yield folder_fd, name


def status_at(path: str, dir_fd: int) -> os.stat_result:
    """What the system says of a name, not of what a link leads to. Raises OSError."""
    with holder(path, dir_fd) as (folder_fd, name):
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)


def exists(path: str, dir_fd: int) -> bool:
    """Whether anything has this name below a descriptor, be it a link. Raises OSError."""
    try:
        status_at(path, dir_fd)
    except FileNotFoundError:
        return False
    return True


def leads_to(path: str, dir_fd: int, fd: int) -> bool:
    """Whether a path below a descriptor leads to the file that is open. Raises OSError."""
    try:
        there = status_at(path, dir_fd)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return os.path.samestat(ours, there) and ours.st_nlink > 0


def open_file(path: str, dir_fd: int, flags: int = os.O_RDONLY) -> int:
    """A regular file below a descriptor, reached through no symbolic link; it has to be there.

    Never waits for whoever might be at the other end of a FIFO, and opens no device. Raises OSError
    with the reason: ELOOP for a link, EISDIR for a directory, ENXIO for what is no file otherwise.
    """
    with holder(path, dir_fd) as (folder_fd, name):
        _refuse_irregular(path, os.stat(name, dir_fd=folder_fd, follow_symlinks=False))
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, flags, dir_fd=folder_fd)
    try:
        # It may be another one by now.
        _refuse_irregular(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write everything, in as many calls as it takes. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _refuse_irregular(path: str, about: os.stat_result) -> None:
    if stat.S_ISREG(about.st_mode):
        return
    if stat.S_ISLNK(about.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link, and none is followed in a store", path)
    if stat.S_ISDIR(about.st_mode):
        raise OSError(errno.EISDIR, "is a directory, no regular file", path)
    raise OSError(errno.ENXIO, "is no regular file", path)


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
    with descriptor(open_folder(folder or ".", dir_fd)) as fd:
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

"""The directory of a store reached, made and locked, and what went wrong said in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, NoReturn

from fastscp.errors import StartError, StoreBusyError
from fastscp.store.identity import read_identity
from fastscp.store.names import (
    FILE_MODE,
    FOLDER_MODE,
    IDENTITY,
    LOCK,
    descriptor,
    flush_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["existing", "explained", "held", "is_store", "make_folders", "open_store", "take_lock"]


def is_store(path: Path) -> bool:
    """Whether there is a store at the path, as far as its store.toml tells."""
    return (path / IDENTITY).is_file()


def open_store(path: Path) -> int:
    """The directory at a path, which may be a symbolic link, as a descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def existing(path: Path) -> Iterator[int]:
    """The directory of a store that is there, as a descriptor. A service may be using it.

    Raises StartError where there is none or it cannot be read.
    """
    with explained(path):
        if not is_store(path):
            raise StartError(
                f"{path} is not a store (it has no {IDENTITY}); name one with --store, or mount "
                f"its file system"
            )
        dir_fd = open_store(path)
    with descriptor(dir_fd):
        read_identity(path, dir_fd)
        yield dir_fd


@contextlib.contextmanager
def held(path: Path, dir_fd: int) -> Iterator[None]:
    """The lock of a store, so that no service uses it meanwhile.

    Raises StoreBusyError if one does, StartError if it cannot be taken.
    """
    with explained(path):
        lock_fd = take_lock(path, dir_fd)
    with descriptor(lock_fd):
        yield


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OSError, in words an operator can act on."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        _refuse(path, str(where), error)


def _refuse(path: Path, where: str, error: OSError) -> NoReturn:
    what = f"cannot use {path} as a store: {where}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        owner = ""
        with contextlib.suppress(OSError):
            found = next(p for p in (path, *path.resolve().parents) if p.exists())
            there = found.stat()
            owner = f" ({found} belongs to uid {there.st_uid}, mode {there.st_mode & 0o7777:04o})"
        advice = f"this runs as uid {os.geteuid()}{owner}; let it write there"
    elif error.errno == errno.EROFS:
        advice = "the file system is mounted read-only; mount it writable"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space"
    elif error.errno == errno.ENOTDIR:
        advice = "a part of the path is a file; name a directory with --store"
    else:
        advice = "name another directory with --store"
    raise StartError(f"{what}; {advice}") from error


def make_folders(path: Path) -> None:
    """Make `path` and what is missing above it, and flush the whole way where possible.

    What is there already may be the work of a life that was killed before it flushed it.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
    for folder in (path, *path.parents):
        try:
            parent_fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            if folder in missing:
                raise
            continue  # not ours, so not made by us
        with descriptor(parent_fd):
            flush_folder(parent_fd)


def take_lock(path: Path, dir_fd: int) -> int:
    """Take the lock and write our process id into it; the descriptor holds it."""
    lock_fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE, dir_fd=dir_fd)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(lock_fd, 32, 0).strip()
            raise StoreBusyError(str(path), int(written) if written.isdigit() else None) from None
        except OSError as error:
            raise StartError(
                f"the file system of {path} has no file locks ({error.strerror}), so two services "
                f"could write to it unnoticed; put the store on another file system"
            ) from error
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)
        os.set_inheritable(lock_fd, True)
    except BaseException:
        os.close(lock_fd)
        raise
    return lock_fd

"""The directory of a store reached, made and locked, and what went wrong said in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from fastscp.errors import StartError, StoreBusyError, reason_for
from fastscp.store.identity import read_identity
from fastscp.store.made import Made
from fastscp.store.names import (
    ANEW,
    HOME,
    IDENTITY,
    INCOMING,
    JOURNAL,
    LOCK,
    REDO,
    REPLACED,
    UNFLUSHED,
    descriptor,
    holder,
    leads_to,
    make_file,
    open_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "denied",
    "existing",
    "explained",
    "held",
    "is_store",
    "lock_holder",
    "open_and_lock",
    "open_store",
    "take_lock",
    "write_holder",
]

# Above any process id: what is written there may be anybody's.
_PID_MOST: Final = 1 << 22
# What a command writes behind its process id.
_COMMAND: Final = b"command\n"
# How often a start goes on after one that failed took away what this one was about to lock.
_RACES_MOST: Final = 50


def is_store(path: Path) -> bool:
    """Whether there is a store at the path, as far as its store.toml tells."""
    return (path / IDENTITY).is_file()


def open_store(path: Path) -> int:
    """The directory at a path, which may be a symbolic link, as a descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def existing(path: Path) -> Iterator[int]:
    """The directory of a store that is there, as a descriptor. A service may be using it.

    One that lost its store.toml, or its journal, is a store yet.
    Raises StartError where there is none or it cannot be read.
    """
    with explained(path):
        if not is_store(path) and not (path / HOME).is_dir():
            raise StartError(
                f"{path} is not a store (it has no {IDENTITY}); name one with --store, or mount "
                f"its file system; if it is a store that lost its {HOME}, start the service once "
                f"with --store-new-life"
            )
        dir_fd = open_store(path)
    with descriptor(dir_fd):
        with explained(path):
            read_identity(path, dir_fd)
        yield dir_fd


@contextlib.contextmanager
def held(path: Path, dir_fd: int) -> Iterator[None]:
    """The lock of a store, so that no service uses it meanwhile; for a command, which ends soon.

    Raises StoreBusyError if one does, StartError if it cannot be taken.
    """
    with explained(path):
        lock_fd = take_lock(path, dir_fd, Made())
    with descriptor(lock_fd):
        with explained(path):
            os.pwrite(lock_fd, _COMMAND, os.fstat(lock_fd).st_size)
        yield


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OSError, in words an operator can act on."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        _refuse(path, str(where), error)


def _whole(path: Path, where: str) -> Path:
    """What a call was refused, as the system names it: by a path, or by a name below a folder."""
    named = Path(where)
    if where == ".":
        return path
    is_below = bool(path.parts) and named.is_relative_to(path)
    if is_below or named.is_absolute() or named in path.parents:
        return named
    if named.parts[0] == HOME:
        return path / named
    for folder in (JOURNAL, INCOMING, REDO, REPLACED, UNFLUSHED, ANEW, HOME):
        if os.path.lexists(path / folder / named):
            return path / folder / named
    # One of an instance has the whole path below the store.
    is_of_instance = len(named.parts) > 1 or os.path.lexists(path / named)
    return path / named if is_of_instance else path / HOME / named


def denied(path: Path, where: str) -> str:
    """What an operator can do where the system refused something of the store at `path`.

    It tells whose that is, or the folder around it where it is not there yet. where: as the system
    named it.
    """
    owner, user = "", "USER"
    for found in (named := _whole(path, where), *named.parents):
        with contextlib.suppress(OSError):
            about = found.stat()
            owner = f" ({found} belongs to uid {about.st_uid}, mode {about.st_mode & 0o7777:04o})"
            break
    with contextlib.suppress(OSError):
        around = (path / HOME).stat()
        if around.st_uid:
            user = f"{around.st_uid}:{around.st_gid}"
    with contextlib.suppress(OSError):
        if not path.exists():
            return (
                f"this runs as uid {os.geteuid()}{owner}, and cannot make {path} there: make it, "
                f"and give it to the user of the service (mkdir -p {path}; chown {user} {path}), "
                f"or name another folder"
            )
    return (
        f"this runs as uid {os.geteuid()}{owner}; let it write there: run it as the user of the "
        f"service, and give that user what root may have left there (chown -R {user} {path})"
    )


def _refuse(path: Path, where: str, error: OSError) -> NoReturn:
    named = _whole(path, where)
    what = f"cannot use {path} as a store: {named}: {reason_for(error)}"
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = denied(path, where)
    elif error.errno == errno.EROFS:
        advice = "the file system is mounted read-only; mount it writable"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space, or inodes (df -i)"
    elif error.errno == errno.ENOTDIR and path / HOME in (named, *named.parents):
        advice = f"{named} has the name of a folder and is none: move it away"
    elif error.errno == errno.ENOTDIR and path in named.parents:
        advice = f"a part of {named} is a file where a folder belongs: move it away"
    elif error.errno == errno.ENOTDIR:
        advice = "a part of the path is a file; name a directory with --store"
    elif error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
        advice = "move it away, or put the file or folder itself in its place"
    elif is_store(path):
        # It could be used before.
        advice = "check the disk (its errors are in the system's log, dmesg), then try again"
    else:
        advice = "name another directory with --store"
    raise StartError(f"{what}; {advice}") from error


def open_and_lock(path: Path, made: Made) -> tuple[int, int]:
    """The directory of a store and its lock, made where they are missing, as descriptors.

    Raises StoreBusyError, StartError, OSError; nothing that was made stays then.
    """
    races = 0
    while True:
        dir_fd = -1
        try:
            if not is_store(path):
                made.folders_above(path)
            dir_fd = open_store(path)
            made.folder(HOME, dir_fd)
            return dir_fd, take_lock(path, dir_fd, made)
        except BaseException as error:
            made.take_away()
            if dir_fd >= 0:
                os.close(dir_fd)
            races += 1
            # A start that failed has removed an empty folder that this one was about to use.
            if not isinstance(error, FileNotFoundError) or races == _RACES_MOST:
                raise


def take_lock(path: Path, dir_fd: int, made: Made) -> int:
    """Take the lock and write our process id into it; the descriptor holds it.

    Only whoever holds a lock file removes it, and a start that fails does so. So whoever takes the
    lock looks whether the file is still the one at the path, and takes the next one if it is not.
    Raises StoreBusyError, StartError, and FileNotFoundError if the folder is gone.
    """
    for _ in range(_RACES_MOST):
        lock_fd = _open_lock(dir_fd)
        try:
            is_held = _flock(path, lock_fd)
            if not leads_to(LOCK, dir_fd, lock_fd):
                os.close(lock_fd)
                continue
            if not is_held:
                pid, is_command = _written_in(lock_fd)
                is_gone = pid is not None and not _is_alive(pid)
                raise StoreBusyError(str(path), pid, is_gone, is_command and not is_gone)
            # Each holder writes its process id: nobody has held an empty one.
            made.hold(LOCK, dir_fd, lock_fd, is_new=os.fstat(lock_fd).st_size == 0)
            write_holder(lock_fd)
        except BaseException:
            # Before the lock is given back.
            made.take_away()
            os.close(lock_fd)
            raise
        return lock_fd
    raise StoreBusyError(str(path), None)


def write_holder(lock_fd: int) -> None:
    """Write our process id into the lock that we hold. Raises OSError."""
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)


def _open_lock(dir_fd: int) -> int:
    """The lock file, made if it is not there."""
    while True:
        with holder(LOCK, dir_fd) as (home_fd, name), contextlib.suppress(FileExistsError):
            os.close(make_file(name, home_fd))
        # A start that failed may have taken it away meanwhile.
        with contextlib.suppress(FileNotFoundError):
            return open_file(LOCK, dir_fd, os.O_RDWR)


def _flock(path: Path, lock_fd: int) -> bool:
    """Whether the lock file is ours now; False: somebody else has it."""
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StartError(
            f"the file system of {path} has no file locks ({reason_for(error)}), so two services "
            f"could write to it unnoticed; put the store on another file system"
        ) from error
    return True


def lock_holder(path: Path) -> int | None:
    """The process that holds the lock of the store at a path, as far as the system tells.

    Nothing is taken or changed: to try the lock would make a start fail that is just taking it.
    None: nobody does, or it cannot be told. Source: proc_locks(5).
    """
    try:
        dir_fd = open_store(path)
        with descriptor(dir_fd), descriptor(open_file(LOCK, dir_fd)) as lock_fd:
            (pid, _is_command), about = _written_in(lock_fd), os.fstat(lock_fd)
        held = Path("/proc/locks").read_text("ascii", "replace").splitlines()
    except (OSError, StartError):
        return None
    # The workers of a main that is gone may have it yet.
    if pid is None or not _is_alive(pid):
        return None
    for line in held:
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5].endswith(f":{about.st_ino}"):
            # The system names whoever took it, which need not be who took it over from him.
            return pid if words[4] == str(pid) or _has_open(pid, about) else None
    # It names nobody where that process is gone.
    return pid if _has_open(pid, about) else None


def _has_open(pid: int, about: os.stat_result) -> bool:
    """Whether a process has a file open, as far as this user may know."""
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(one.stat(), about):
                    return True
    return False


def _written_in(lock_fd: int) -> tuple[int | None, bool]:
    """The process that wrote its id into a lock, None where that says nothing; if it is a command.

    A command wrote so behind its id, where versions before find no id then.
    """
    written, _newline, more = os.pread(lock_fd, 32, 0).partition(b"\n")
    pid = int(written) if written.strip().isdigit() else 0
    return (pid if 0 < pid <= _PID_MOST else None), more == _COMMAND


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that is over may still wait for its parent to take note."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - no more than a few bytes
            return file.read(4096).rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return True

"""The folder of the redo log: the files there of lives that are over.

    STORE/.fastscp/redo/<life>-<n>.log    of a worker's life
    STORE/.fastscp/redo/<life>-<n>.new    one that was being made
    STORE/.fastscp/redo/<seq>.part        of an instance that is on its way back to its path
    STORE/.fastscp/redo/<life>.distrust   a flush failed that the logs of the life were to outlive

Whoever reads them here has the folder's lock: during an upgrade there are two that may.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError, reason_for
from fastscp.log import printable
from fastscp.store.lives import is_over
from fastscp.store.names import (
    ASIDE,
    FILE_MODE,
    REDO,
    descriptor,
    flush_folder,
    make_file,
    names_in,
    open_file,
    open_folder,
    own_folder,
    read_folder,
)
from fastscp.store.redo.records import (
    LOG_MOST,
    Lost,
    inode_in,
    life_of,
    life_of_new,
    log_without_header,
    read_log,
    store_of,
    user_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from fastscp.store.redo.records import Log, Record

__all__ = [
    "DamagedError", "Folder", "folder", "inode_of", "is_anything_in", "is_anything_logged",
    "leave_distrust", "logged_id", "unreadable",
]  # fmt: skip

_PART: Final = ".part"
_DISTRUST: Final = ".distrust"
# ioctl: FS_IOC_GETVERSION, the generation of an inode.
_GET_VERSION: Final = 0x80087601
_HEAD_BYTES: Final = 4096
_STEP: Final = 1 << 20
_DAMAGE_TOLD: Final = 5
# What the system says of a file that is gone, or is no regular one.
_NO_FILE: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
# Files that are read at a time.
_OPEN_MOST: Final = 16


class DamagedError(StartError):
    """Files of the log have lost what was flushed; damage: all that was found, a line each."""

    def __init__(self, damage: tuple[str, ...]) -> None:
        super().__init__(damage)
        self.damage = damage

    def __str__(self) -> str:
        more = len(self.damage) - _DAMAGE_TOLD
        shown = "; ".join(self.damage[:_DAMAGE_TOLD]) + (f"; and {more} more" if more > 0 else "")
        return (
            f"the redo log is damaged, so instances that were acknowledged may be lost: {shown}; "
            f"check the disk, make a copy of {REDO}, then run `fastscp recover --accept-damage`, "
            f"which brings back all that can be read"
        )


def is_anything_in(store_fd: int) -> bool:
    """Whether there is a log, of whatever life. Raises OSError."""
    return bool(_logs_in(store_fd))


def logged_id(store_fd: int) -> str:
    """The id of the store that all logs agree on, "" where there is none or they differ.

    For a store that lost its own. Raises OSError.
    """
    found = set()
    for name in _logs_in(store_fd):
        with descriptor(open_file(f"{REDO}/{name}", store_fd)) as fd:
            found.add(store_of(os.pread(fd, _HEAD_BYTES, 0)))
    found.discard("")
    return found.pop() if len(found) == 1 else ""


def is_anything_logged(store_fd: int) -> bool:
    """Whether there is a log of a life that is over. Raises OSError."""
    return any(is_over(store_fd, life) for life in set(_logs_in(store_fd).values()))


def _logs_in(store_fd: int) -> dict[str, str]:
    """The names of all logs, each with the life that it is of. Raises OSError."""
    try:
        with descriptor(open_folder(REDO, store_fd)) as folder_fd:
            names = names_in(folder_fd)
    except FileNotFoundError:
        return {}
    return _lives(store_fd, names)


def _lives(store_fd: int, names: Iterable[str]) -> dict[str, str]:
    """Those of some names that are of logs, each with the life that it is of. Raises OSError."""
    found = {name: life_of(name) or _life_within(store_fd, name) for name in names}
    return {name: life for name, life in found.items() if life is not None}


def _life_within(store_fd: int, name: str) -> str | None:
    """Whose log a file is that has another name; None: it is none. Raises OSError.

    A copy of a log is none, unless it has the name of one that is being made. Cost: reads it whole
    if it begins like a log, or has such a name.
    """
    if name.endswith((_PART, _DISTRUST)):
        return None
    try:
        with descriptor(open_file(f"{REDO}/{name}", store_fd)) as fd:
            inode = inode_in(os.pread(fd, _HEAD_BYTES, 0))
            is_new = life_of_new(name) is not None
            if not is_new and (inode == 0 or inode != inode_of(fd)):
                return None
            if inode == 0 and os.fstat(fd).st_size > LOG_MOST:
                return None
            data = _content(fd, name)
            user = user_of(data) or log_without_header(name, data)
    except OSError as error:
        # What has another name than a log may be a stranger's: `unreadable` tells of it.
        if error.errno in _NO_FILE or (error.errno in _DENIED and life_of_new(name) is None):
            return None
        raise
    return None if user is None else user[0]


def unreadable(folder_fd: int, store_fd: int) -> Iterator[str]:
    """What an operator has to know of files that are passed over, for nobody may read them.

    folder_fd: of `REDO`. Raises OSError.
    """
    for name in sorted(names_in(folder_fd)):
        if name.endswith((_PART, _DISTRUST)):
            continue
        try:
            os.close(open_file(f"{REDO}/{name}", store_fd))
        except OSError as error:
            if error.errno in _DENIED:
                yield (
                    f"cannot read {REDO}/{printable(name)} ({reason_for(error)}), and passed over "
                    f"it: if it is a file of the redo log that somebody gave another name, "
                    f"instances that were acknowledged may be in it alone; let this user (uid "
                    f"{os.geteuid()}) read it, and start again; if it is not, move it out of there"
                )


def leave_distrust(folder_fd: int, life: str) -> None:
    """Have recoveries of a life believe nothing that was written and not read from the disk again.

    folder_fd: of `REDO`. The life need not be over. Blocks on the disk. Raises OSError; the mark
    may be there then, and last as long as the system runs, which is as long as it is needed.
    """
    name = f"{life}{_DISTRUST}"
    with contextlib.suppress(FileExistsError), descriptor(make_file(name, folder_fd)) as fd:
        os.fsync(fd)
    flush_folder(folder_fd)


@contextlib.contextmanager
def folder(store_fd: int, store_id: str) -> Iterator[Folder | None]:
    """The folder with its lock, as long as the block lasts; None where there is none.

    Waits for whoever has the lock. Raises OSError.
    """
    try:
        fd = open_folder(REDO, store_fd)
    except FileNotFoundError:
        yield None
        return
    with descriptor(fd):
        fcntl.flock(fd, fcntl.LOCK_EX)
        logged = Folder(store_fd, fd, store_id)
        try:
            yield logged
        finally:
            logged.close()


class Folder:
    """The folder of the log, locked. fd: its descriptor, borrowed. store_id: of its store."""

    def __init__(self, store_fd: int, fd: int, store_id: str) -> None:
        self.fd = fd
        self._store_fd = store_fd
        self._store_id = store_id
        self._lock = threading.Lock()
        self._open: dict[str, int] = {}
        self._distrusted: set[str] = set()
        self._lives: set[str] = set()

    def logs(self) -> list[Log]:
        """The logs of lives that are over, by their names; `is_distrusted` tells of the same lives.

        Cost: reads them whole. Raises OSError, also for what is no regular file under the name of a
        log, and ForeignLogError.
        """
        logs, distrusted = self._named()
        over = {
            life for life in {*logs.values(), *distrusted} if is_over(self._store_fd, life)
        }  # fmt: skip
        # Once more: who was alive at the first look may have left a mark before the end.
        logs, distrusted = self._named()
        found = []
        for name in sorted(logs):
            if logs[name] in over:
                # By the whole path, so that an error names it.
                with descriptor(open_file(f"{REDO}/{name}", self._store_fd)) as fd:
                    log = read_log(name, _content(fd, name), self._store_id)
                    log.is_original = log.inode == inode_of(fd)
                    found.append(log)
        self._distrusted = distrusted & over
        _compare_numbers(found)
        self._lives = {log.life for log in found}
        return found

    def _named(self) -> tuple[dict[str, str], set[str]]:
        """The logs, each with its life, and the lives that are distrusted. Raises OSError."""
        names = names_in(self.fd)
        marks = {name.removesuffix(_DISTRUST) for name in names if name.endswith(_DISTRUST)}
        return _lives(self._store_fd, names), {one for one in marks if life_of(f"{one}-1.log")}

    def read(self, record: Record) -> tuple[bytes, bytes]:
        """The journal line of a record, and its file. Raises OSError."""
        data = self._pread(record.log, record.line + record.size, record.at)
        return data[: record.line], data[record.line :]

    def line(self, record: Record) -> bytes:
        """The journal line of a record. Raises OSError."""
        return self._pread(record.log, record.line, record.at)

    def _pread(self, name: str, size: int, at: int) -> bytes:
        with self._lock:
            if name not in self._open:
                if len(self._open) == _OPEN_MOST:
                    os.close(self._open.pop(next(iter(self._open))))
                self._open[name] = open_file(f"{REDO}/{name}", self._store_fd)
            data = os.pread(self._open[name], size, at)
        if len(data) != size:
            raise OSError(errno.EIO, "became shorter meanwhile", f"{REDO}/{name}")
        return data

    def close(self) -> None:
        """Close the files that `read` opened."""
        while self._open:
            os.close(self._open.popitem()[1])

    def remove(self, logs: Collection[Log]) -> None:
        """Remove logs that nothing needs any more, flushed; a damaged one is laid aside.

        Raises OSError.
        """
        voids = [log for log in logs if any(record.is_void for record in log.records)]
        others = [log for log in logs if log not in voids]
        for log in others:
            self._remove_log(log)
        if others and voids:
            # What a void takes back goes before it does.
            flush_folder(self.fd)
        for log in voids:
            self._remove_log(log)
        flush_folder(self.fd)
        self.trust()

    def _remove_log(self, log: Log) -> None:
        if not log.damage:
            self._remove(log.name)
            return
        with own_folder(ASIDE, self._store_fd, make=True) as aside_fd:
            os.rename(log.name, log.name, src_dir_fd=self.fd, dst_dir_fd=aside_fd)
            flush_folder(aside_fd)

    def make_part(self, record: Record, data: bytes) -> str:
        """Write the file of a record anew, flushed; returns its name here. Raises OSError."""
        name = f"{record.seq}{_PART}"
        with os.fdopen(make_file(name, self.fd), "wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        return name

    def remove_part(self, record: Record) -> None:
        """Remove what `make_part` made, if it is still here. Raises OSError."""
        self._remove(f"{record.seq}{_PART}")

    def remove_parts(self) -> None:
        """Remove the parts of a recovery that did not end. Raises OSError."""
        with read_folder(self.fd) as entries:
            parts = [entry.name for entry in entries if entry.name.endswith(_PART)]
        for name in parts:
            self._remove(name)

    def remove_unmade(self) -> None:
        """Remove what lives that are over were making. Raises OSError."""
        for name in names_in(self.fd):
            life = life_of_new(name)
            if (
                life is not None
                and is_over(self._store_fd, life)
                and _life_within(self._store_fd, name) is None
            ):
                self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    # A flush that failed --------------------------------------------------------------------------

    @property
    def is_distrusted(self) -> bool:
        """Whether a flush failed that one of the logs was to outlive."""
        return bool(self._distrusted)

    def trust(self) -> None:
        """None of the logs is left. Marks of other lives stay. Raises OSError."""
        for life in self._distrusted:
            self._remove(f"{life}{_DISTRUST}")
        if self._distrusted:
            flush_folder(self.fd)

    def distrust_at_once(self) -> None:
        """Mark all lives whose logs were read, as far as that works, and flush nothing.

        After a power cut the marks are not needed.
        """
        for life in self._lives:
            with contextlib.suppress(OSError):
                os.mknod(f"{life}{_DISTRUST}", FILE_MODE | stat.S_IFREG, dir_fd=self.fd)

    def distrust(self, lives: Iterable[str]) -> None:
        """As `leave_distrust` for each of some lives, whose logs were read. Raises OSError."""
        for life in lives:
            self._distrusted.add(life)
            leave_distrust(self.fd, life)


def inode_of(fd: int) -> int:
    """What tells the file of a log from a copy of it, as its header has it. Raises OSError."""
    generation = bytes(8)
    with contextlib.suppress(OSError):
        generation = fcntl.ioctl(fd, _GET_VERSION, generation)
    return os.fstat(fd).st_ino ^ (int.from_bytes(generation[:4], sys.byteorder) << 32)


def _content(fd: int, name: str) -> bytes:
    if os.fstat(fd).st_size > LOG_MOST:
        raise OSError(errno.EFBIG, "is longer than any log", f"{REDO}/{name}")
    data = bytearray()
    while more := os.pread(fd, _STEP, len(data)):
        data += more
        if len(data) > LOG_MOST:
            raise OSError(errno.EFBIG, "is longer than any log", f"{REDO}/{name}")
    return bytes(data)


def _compare_numbers(logs: list[Log]) -> None:
    """Note what only several logs of a life can tell: a torn batch that was not its last."""
    last: dict[str, int] = {}
    for log in logs:
        last[log.life] = max(last.get(log.life, 0), log.last)
    for log in logs:
        if 0 < log.torn < last[log.life] and not log.damage:
            log.lost.append(Lost(log.name, 0, log.torn_records, log.last_seq, 0))
            log.damage.append(
                f"has a batch that is not whole, number {log.torn}, though a later one was written"
            )

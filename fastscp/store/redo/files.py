"""The files of records, at their paths: looked at, flushed, and brought back where they are gone.

Whatever a path leads through is below the store and no symbolic link, as everywhere in it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from fastscp.errors import reason_for
from fastscp.log import printable
from fastscp.store.flushes import LACK
from fastscp.store.names import (
    ASIDE,
    HOME,
    descriptor,
    flush_folder,
    flush_folder_at,
    holder,
    make_way,
    own_folder,
)
from fastscp.store.unflushed import LIFTED_BY, Marks
from fastscp_ext import crc32c, exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from fastscp.store.redo.logs import Folder
    from fastscp.store.redo.records import Record

__all__ = ["Doubts", "Files", "There", "side_by_side"]

_T = TypeVar("_T")

# Flushes that wait for the disk at a time.
_THREADS: Final = 32
_PAGE: Final = 4096
# What a file system says that has no second names for a thing, or for this user.
_NO_LINK: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EISDIR}
)
# What the system says of a path that somebody else changed, or may forbid: links or files in the
# place of folders, other permissions, another file system. The disk says none of it.
_BARRED: Final = frozenset(
    {
        errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY,
        errno.EISDIR, errno.ENXIO,
    }
)  # fmt: skip


class Doubts(Protocol):
    """What all workers know; `fastscp_ext.Doubts`."""

    def refuse(self, folder: str, /) -> bool: ...
    def refuses(self, folder: str, /) -> bool: ...


class There(Enum):
    """What a path has: nothing; the bytes of the record; a beginning of them; or something else.

    A beginning is what a power cut leaves of a file that was not flushed: a part of it, or zeros.
    What cannot be reached or read, for somebody changed it, is something else.
    """

    NOTHING = 0
    SAME = 1
    UNFINISHED = 2
    OTHER = 3


class Files:
    """The files of one recovery, and the folders that it has to flush. For several threads.

    doubts: what the workers know; None: there are none. aside: how many things were laid aside.
    unreachable: of the records whose files are in `ASIDE`, for nobody reaches their paths, in
    words. has_gone: a folder was not where it was to be flushed, or not to be opened, so that only
    a flush of the whole file system is sure to have it.
    """

    def __init__(self, store_fd: int, parts: Folder, doubts: Doubts | None) -> None:
        self._store_fd = store_fd
        self._parts = parts
        self._doubts = doubts
        self._lock = threading.Lock()
        marks = Marks(store_fd).standing()
        self._refused = {mark.path for mark in marks if mark.what == "folder"}
        self._is_all_refused = any(mark.what == "all folders" for mark in marks)
        # Folders to be flushed: whether a name in them was written, so that the flush is a new one.
        self._folders: dict[str, bool] = {}
        self.aside = 0
        self.unreachable: list[str] = []
        self.has_gone = False

    def look(self, record: Record) -> There:
        """What is at the path of a record. Raises OSError where no answer can be had."""
        try:
            with _at(record.path, self._store_fd) as (folder_fd, name):
                about = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode) or about.st_size > record.size:
                    return There.OTHER
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with descriptor(os.open(name, flags, dir_fd=folder_fd)) as fd:
                    found = os.pread(fd, record.size + 1, 0)
        except FileNotFoundError:
            return There.NOTHING
        except OSError as error:
            if error.errno in _BARRED:
                return There.OTHER
            raise
        if len(found) == record.size and crc32c(found) == record.crc:
            return There.SAME
        _line, wanted = self._parts.read(record)
        return There.UNFINISHED if _is_beginning(found, wanted) else There.OTHER

    def flush(self, record: Record) -> There:
        """Flush the file at the path of a record, which had its bytes.

        Returns what else is there by now, if anything is. Raises OSError.
        """
        try:
            with _at(record.path, self._store_fd) as (folder_fd, name):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with descriptor(os.open(name, flags, dir_fd=folder_fd)) as fd:
                    self._fsync(fd)
        except FileNotFoundError:
            return There.NOTHING
        except OSError as error:
            if error.errno in _BARRED:
                return There.OTHER
            raise
        self._note(record.path, is_new=False)
        return There.SAME

    def note_gone(self, record: Record) -> None:
        """Have `flush_folders` flush the folders of a path that has no file any more.

        Whoever took it away flushed nothing; a power cut would bring back the name, and perhaps not
        the bytes, when the log is gone.
        """
        self._note(record.path, is_new=False)

    def restore(self, record: Record) -> bool:
        """Write the file of a record anew and give it its path, flushed. Raises OSError.

        What else is there is laid aside. The folders are flushed by `flush_folders`. Returns
        whether the path could be reached; if not, the file is in `ASIDE`.
        """
        _line, data = self._parts.read(record)
        part = self._parts.make_part(record, data)
        try:
            new = make_way(record.path, self._store_fd)
            if self.look(record) is not There.OTHER or not self._lay_aside(record, part):
                with _at(record.path, self._store_fd) as (folder_fd, name):
                    os.rename(part, name, src_dir_fd=self._parts.fd, dst_dir_fd=folder_fd)
        except OSError as error:
            if error.errno not in _BARRED:
                raise
            self._put_aside(record, data, reason_for(error))
            return False
        self._note(record.path, is_new=True)
        with self._lock:
            for folder in new:
                self._folders[folder] = True
        return True

    def refuses(self, path: str) -> bool:
        """Whether a flush of the folder of a path failed before: another one says nothing."""
        return self._is_refused(path.rpartition("/")[0])

    def flush_folders(self) -> None:
        """Flush all folders on the way to what was flushed or written, the deepest first.

        Raises OSError, also where a flush of one failed before in which no name was written since.
        """
        by_depth: dict[int, list[str]] = {}
        for folder in self._folders:
            by_depth.setdefault(folder.count("/") + bool(folder), []).append(folder)
        for depth in sorted(by_depth, reverse=True):
            side_by_side(self._flush_folder, by_depth[depth])

    # Inside ---------------------------------------------------------------------------------------

    def _fsync(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError:
            # Others may be under way for long, and whoever tries again would believe the next one.
            self._parts.distrust_at_once()
            raise

    def _note(self, path: str, *, is_new: bool) -> None:
        with self._lock:
            folder = path.rpartition("/")[0]
            self._folders[folder] = is_new or self._folders.get(folder, False)
            while folder:
                folder = folder.rpartition("/")[0]
                self._folders.setdefault(folder, False)

    def _lay_aside(self, record: Record, part: str) -> bool:
        """Give what is at the path of a record a name of its own; returns whether it left the path.

        It has both names then, or, if it can have no second one, has changed places with the part.
        At no moment the path is free: that would tell that somebody took the instance away.
        """
        with (
            own_folder(ASIDE, self._store_fd, make=True) as aside_fd,
            holder(record.path, self._store_fd) as (folder_fd, name),
        ):
            there = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            to, has_name = _name_aside(aside_fd, record.seq, there)
            try:
                if not has_name:
                    os.link(
                        name, to, src_dir_fd=folder_fd, dst_dir_fd=aside_fd, follow_symlinks=False
                    )
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                os.rename(part, to, src_dir_fd=self._parts.fd, dst_dir_fd=aside_fd)
                exchange(to, name, one_dir_fd=aside_fd, other_dir_fd=folder_fd)
                part = ""
            # Before the path is another one's: else a power cut may leave it nowhere.
            flush_folder(aside_fd)
            flush_folder_at(self._store_fd, HOME)
        with self._lock:
            self.aside += 1
        return not part

    def _put_aside(self, record: Record, data: bytes, why: str) -> None:
        """Have the file of a record in `ASIDE`, flushed, where its path cannot be reached."""
        # It may be anywhere by now.
        self._parts.remove_part(record)
        with own_folder(ASIDE, self._store_fd, make=True) as aside_fd:
            for to in _names_aside(record.seq):
                found = _content(to, aside_fd, record.size)
                if found is None:
                    part = self._parts.make_part(record, data)
                    os.rename(part, to, src_dir_fd=self._parts.fd, dst_dir_fd=aside_fd)
                elif found != data:
                    continue
                # It may be there since a recovery that did not end.
                with descriptor(os.open(to, os.O_RDONLY | os.O_CLOEXEC, dir_fd=aside_fd)) as fd:
                    os.fsync(fd)
                break
            flush_folder(aside_fd)
        flush_folder_at(self._store_fd, HOME)
        with self._lock:
            self.unreachable.append(f"{printable(record.path)} ({why}); it is in {ASIDE}/{to}")

    def _is_refused(self, folder: str) -> bool:
        if self._is_all_refused or folder in self._refused:
            return True
        return self._doubts is not None and self._doubts.refuses(folder)

    def _flush_folder(self, folder: str) -> None:
        if not self._folders[folder] and self._is_refused(folder):
            raise OSError(
                errno.EIO,
                "a flush of the folder failed before: check the disk; then stop the service and "
                f"run `fastscp recover`, which makes the folder anew, or {LIFTED_BY}",
                folder or ".",
            )
        try:
            flush_folder_at(self._store_fd, folder)
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno in _BARRED:
                # Whoever took or changed it flushed nothing.
                self.has_gone = True
                return
            # As in `_fsync`.
            self._parts.distrust_at_once()
            error.filename = folder or "."
            if error.errno not in LACK:
                self._folder_failed(folder, error.errno or errno.EIO)
            raise

    def _folder_failed(self, folder: str, error_no: int) -> None:
        if self._doubts is not None:
            self._doubts.refuse(folder)
        with contextlib.suppress(OSError):
            Marks(self._store_fd).leave("folder", folder, error_no)


@contextlib.contextmanager
def _at(path: str, store_fd: int) -> Iterator[tuple[int, str]]:
    """As `holder`; the errors of the block name the path."""
    try:
        with holder(path, store_fd) as found:
            yield found
    except OSError as error:
        error.filename = path
        raise


def _names_aside(seq: int) -> Iterator[str]:
    return itertools.chain([str(seq)], (f"{seq}.{n}" for n in itertools.count(2)))


def _content(name: str, folder_fd: int, size: int) -> bytes | None:
    """What a file has, up to a byte more than a size, b"" for what is none; None: nothing has it.

    Raises OSError.
    """
    try:
        about = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if not stat.S_ISREG(about.st_mode) or about.st_size != size:
            return b""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with descriptor(os.open(name, flags, dir_fd=folder_fd)) as fd:
            return os.pread(fd, size + 1, 0)
    except FileNotFoundError:
        return None


def _name_aside(aside_fd: int, seq: int, there: os.stat_result) -> tuple[str, bool]:
    """A name for what is laid aside, and whether that has it since a recovery that did not end."""
    for name in _names_aside(seq):
        try:
            found = os.stat(name, dir_fd=aside_fd, follow_symlinks=False)
        except FileNotFoundError:
            return name, False
        if os.path.samestat(found, there):
            return name, True
    raise AssertionError


def _is_beginning(found: bytes, wanted: bytes) -> bool:
    """Whether a file may be what a power cut left of another one: each page its own, or zeros."""
    for at in range(0, len(found), _PAGE):
        page = found[at : at + _PAGE]
        if any(page) and page != wanted[at : at + len(page)]:
            return False
    return len(found) <= len(wanted)


def side_by_side(work: Callable[[_T], None], items: Collection[_T]) -> None:
    """Call `work` for each item, several at a time. Raises the first error, after all have ended.

    In threads of its own, which nobody waits for at the end of the process: a disk may hang.
    """
    waiting = iter(items)
    lock = threading.Lock()
    failed: list[BaseException] = []

    def run() -> None:
        while not failed:
            with lock:
                item = next(waiting, done)
            if item is done:
                return
            try:
                work(item)  # type: ignore[arg-type]
            except BaseException as error:
                failed.append(error)

    done = object()
    threads = [
        threading.Thread(target=run, name="recover", daemon=True)
        for _ in range(min(_THREADS, len(items)) - 1)
    ]
    started = []
    # Without threads this one does it alone.
    with contextlib.suppress(RuntimeError):
        for thread in threads:
            thread.start()
            started.append(thread)
    run()
    for thread in started:
        thread.join()
    if failed:
        raise failed[0]

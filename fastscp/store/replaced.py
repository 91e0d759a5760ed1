"""Older contents of paths, kept while the newer instance that takes the place is on its way.

    STORE/.fastscp/replaced/<id>.record   what is replaced
    STORE/.fastscp/replaced/<id>.undo     the same again, once it is decided that it comes back
    STORE/.fastscp/replaced/<id>.kept     the older content: a second name of its file, or a copy
    STORE/.fastscp/replaced/<id>.copy     another one, on its way to that name or back to the path

The id belongs to the path. Whoever calls here holds the path's lock, so a path has one record.

The order makes every moment tell what it is, also after a power cut, which may keep a later change
and lose an earlier one. A record is flushed, with its name, before the older content has its second
name; that name is flushed before the newer file takes the path. When all is over, the second name
goes first, and that is flushed before the record goes. So a content without a record is none of
ours, and a record without a content tells that the path has not changed, or has it back, or that
the newer line is flushed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.journal import append_fact, parse_line, segment_names
from fastscp.store.names import (
    FILE_MODE,
    FOLDER_MODE,
    JOURNAL,
    REPLACED,
    descriptor,
    exists,
    flush_folder,
    holder,
    names_in,
    open_file,
    open_folder,
    status_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.store.flushes import Flushes

__all__ = [
    "Left",
    "Record",
    "TornError",
    "UnsureError",
    "decide_undo",
    "drop",
    "has_kept",
    "has_same_bytes",
    "highest",
    "is_kept_at",
    "is_left",
    "keep",
    "left",
    "put_back",
    "read_record",
    "remove_torn",
    "stem_of",
    "where",
    "where_kept",
]

_RECORD: Final = ".record"
_UNDO: Final = ".undo"
_KEPT: Final = ".kept"
_COPY: Final = ".copy"
# Bytes: a path has 2,047 at most, and each may be escaped.
_RECORD_MOST: Final = 1 << 16
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# What a file system says that has no second names for a file, or none more for this one.
_NO_LINK: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class UnsureError(OSError):
    """A replacement whose end nobody can tell; both contents stay. Its errno is ENOTRECOVERABLE."""

    def __init__(self, why: str, path: str) -> None:
        super().__init__(errno.ENOTRECOVERABLE, why, path)


class TornError(UnsureError):
    """A record that is not whole. A power cut leaves it, and then nothing was replaced yet."""


@dataclass(frozen=True)
class Record:
    """A replacement that was begun.

    path: below the store. lock: number of the path's lock. sequence: of the journal when it was
    begun; the lines of the older content are below, that of the newer one is above. segment: the
    last file of the journal that had a line then, "" if none had, None if the record does not tell.
    undo: it is decided that the older content comes back.
    """

    path: str
    lock: int
    sequence: int
    segment: str | None = None
    undo: bool = False


@dataclass(frozen=True)
class Left:
    """What is in the folder. torn: ids of records that are not whole. strange: all other names."""

    records: list[Record]
    torn: list[str]
    strange: list[str]


# Keeping -----------------------------------------------------------------------------------------


def keep(flushes: Flushes, path: str, lock: int, sequence: int) -> None:
    """Keep what the file at a path holds, and say so in a record; both are flushed.

    What is in the file, the caller has flushed. The path must have no record. Raises OSError, and
    as far as possible nothing is left then.
    """
    flushes.check(REPLACED)
    store_fd, stem = flushes.store_fd, stem_of(path)
    with _folder(store_fd, make=True) as folder_fd, descriptor(open_file(path, store_fd)) as fd:
        if exists(stem + _KEPT, folder_fd):
            raise OSError(
                errno.EEXIST, "has the name that the older content is to get: move it away",
                f"{REPLACED}/{stem}{_KEPT}",
            )  # fmt: skip
        if exists(stem + _RECORD, folder_fd):
            raise OSError(errno.EEXIST, "is there already", f"{REPLACED}/{stem}{_RECORD}")
        try:
            _write(folder_fd, stem + _RECORD, Record(path, lock, sequence, _last_segment(store_fd)))
            flushes.folder(REPLACED)
            _keep_content(store_fd, path, fd, folder_fd, stem)
            flushes.folder(REPLACED)
        except OSError:
            with contextlib.suppress(OSError):
                _drop(flushes, folder_fd, stem)
            raise


def _last_segment(store_fd: int) -> str | None:
    """The last file of the journal that has something in it; those without may be withdrawn yet.

    "": none has. None: there is no journal.
    """
    try:
        names = segment_names(store_fd)
    except FileNotFoundError:
        return None
    for name in reversed(names):
        with contextlib.suppress(FileNotFoundError):
            if status_at(f"{JOURNAL}/{name}", store_fd).st_size:
                return name
    return ""


def _write(folder_fd: int, name: str, record: Record) -> None:
    """Write a record, flushed; the flush of its name is the caller's."""
    fact: dict[str, Any] = {"path": record.path, "lock": record.lock, "seq": record.sequence}
    if record.segment is not None:
        fact["segment"] = record.segment
    with descriptor(os.open(name, _NEW, FILE_MODE, dir_fd=folder_fd)) as fd:
        append_fact(fd, fact)
        os.fsync(fd)


def _keep_content(store_fd: int, path: str, fd: int, folder_fd: int, stem: str) -> None:
    """Give the file a second name, or copy it. fd: of the file."""
    with holder(path, store_fd) as (from_fd, name):
        _double(name, from_fd, fd, folder_fd, stem)
    os.rename(stem + _COPY, stem + _KEPT, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


def _double(name: str, from_fd: int, fd: int, folder_fd: int, stem: str) -> None:
    """Make `<stem>.copy` of a file: a second name of it, or a copy, flushed. fd: of the file."""
    _unlinked(stem + _COPY, folder_fd)
    try:
        os.link(name, stem + _COPY, src_dir_fd=from_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    else:
        found = os.stat(stem + _COPY, dir_fd=folder_fd, follow_symlinks=False)
        if not os.path.samestat(found, os.fstat(fd)):
            raise OSError(errno.EBUSY, "somebody else changes it", name)
        return
    with (
        os.fdopen(os.dup(fd), "rb") as older,
        os.fdopen(os.open(stem + _COPY, _NEW, FILE_MODE, dir_fd=folder_fd), "wb") as copy,
    ):
        shutil.copyfileobj(older, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


# Ending it ---------------------------------------------------------------------------------------


def drop(flushes: Flushes, path: str) -> None:
    """Let go of the older content: the newer line is flushed, or it is back at its path.

    Raises OSError, and then the record may be left.
    """
    with _folder(flushes.store_fd) as folder_fd:
        _drop(flushes, folder_fd, stem_of(path))


def _drop(flushes: Flushes, folder_fd: int, stem: str) -> None:
    gone = [_unlinked(stem + suffix, folder_fd) for suffix in (_KEPT, _COPY)]
    if any(gone):
        flushes.folder(REPLACED)
    for suffix in (_RECORD, _UNDO):
        _unlinked(stem + suffix, folder_fd)


def _unlinked(name: str, folder_fd: int) -> bool:
    """Remove a name; whether it was there."""
    try:
        os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return False
    return True


def decide_undo(flushes: Flushes, record: Record) -> None:
    """Have it on stable storage that the older content is to come back, whatever the journal says.

    The line of a refused newer instance may be in the journal all the same. Raises OSError.
    """
    if record.undo:
        return
    stem = stem_of(record.path)
    with _folder(flushes.store_fd) as folder_fd:
        # One that is not whole: this was begun before.
        _unlinked(stem + _UNDO, folder_fd)
        _write(folder_fd, stem + _UNDO, record)
        flushes.folder(REPLACED)


def put_back(flushes: Flushes, path: str) -> None:
    """Give the older content its path again, flushed; nothing where it has it. Raises OSError.

    It stays kept meanwhile: the two folders may reach the disk apart from each other. It has the
    path again even where a folder above cannot be flushed any more, and then OSError says so.
    """
    store_fd, stem = flushes.store_fd, stem_of(path)
    with _folder(store_fd) as folder_fd:
        if exists(stem + _KEPT, folder_fd) and not _has_file(store_fd, path):
            _make_way(store_fd, path)
            with (
                descriptor(open_file(stem + _KEPT, folder_fd)) as fd,
                holder(path, store_fd) as (into_fd, name),
            ):
                _double(stem + _KEPT, folder_fd, fd, folder_fd, stem)
                os.rename(stem + _COPY, name, src_dir_fd=folder_fd, dst_dir_fd=into_fd)
    flushes.way(path)


def _has_file(store_fd: int, path: str) -> bool:
    """Whether the path has the very file that is kept."""
    with _both(store_fd, path) as (kept_fd, fd):
        if kept_fd < 0 or fd < 0:
            return False
        return os.path.samestat(os.fstat(kept_fd), os.fstat(fd))


def _make_way(store_fd: int, path: str) -> None:
    """Make the folders above a path where a power cut took them."""
    folders = path.split("/")[:-1]
    for n in range(len(folders)):
        with (
            holder("/".join(folders[: n + 1]), store_fd) as (above_fd, name),
            contextlib.suppress(FileExistsError),
        ):
            os.mkdir(name, FOLDER_MODE, dir_fd=above_fd)


# Looking -----------------------------------------------------------------------------------------


def is_left(store_fd: int, path: str) -> bool:
    """Whether a path has a record, whole or torn, that an earlier holder of its lock left."""
    stem = stem_of(path)
    try:
        with _folder(store_fd) as folder_fd:
            return any(exists(stem + suffix, folder_fd) for suffix in (_UNDO, _RECORD))
    except OSError as error:
        # Something else has the folder's name: the start names it, and only replacing needs it.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def read_record(store_fd: int, path: str) -> Record:
    """The record of a path. Raises FileNotFoundError: it has none; TornError, OSError."""
    with _folder(store_fd) as folder_fd:
        return _read(folder_fd, stem_of(path))


def _read(folder_fd: int, stem: str) -> Record:
    # Nothing came back before it was flushed that it should: one that is not whole says nothing.
    with contextlib.suppress(FileNotFoundError, TornError):
        return replace(_read_one(folder_fd, stem, _UNDO), undo=True)
    return _read_one(folder_fd, stem, _RECORD)


def _read_one(folder_fd: int, stem: str, suffix: str) -> Record:
    with descriptor(open_file(stem + suffix, folder_fd)) as fd:
        text = os.read(fd, _RECORD_MOST)
    fact: dict[str, Any] = parse_line(text.rstrip(b"\n")) or {}
    path, lock, sequence = fact.get("path"), fact.get("lock"), fact.get("seq")
    segment = fact.get("segment")
    if not isinstance(path, str) or not isinstance(lock, int) or not isinstance(sequence, int):
        raise TornError("is not whole", f"{REPLACED}/{stem}{suffix}")
    if stem_of(path) != stem:
        raise TornError("has the name of another one", f"{REPLACED}/{stem}{suffix}")
    return Record(path, lock, sequence, segment if isinstance(segment, str) else None)


def has_kept(store_fd: int, path: str) -> bool:
    """Whether an older content of the path is kept. Raises OSError."""
    with _folder(store_fd) as folder_fd:
        return exists(stem_of(path) + _KEPT, folder_fd)


def is_kept_at(store_fd: int, path: str) -> bool:
    """Whether the path still has, or has again, the very file that is kept.

    True also where nothing has the path. False where nothing is kept. Raises OSError.
    """
    if not exists(path, store_fd):
        return has_kept(store_fd, path)
    return _has_file(store_fd, path)


def has_same_bytes(store_fd: int, path: str) -> bool:
    """Whether the path holds the same bytes as what is kept; reads both where it must.

    A restored store, or a file system without second names, has them apart, and what was sent again
    may be the same. False where one of both is missing. Raises OSError.
    """
    with _both(store_fd, path) as (kept_fd, fd):
        if kept_fd < 0 or fd < 0 or os.fstat(kept_fd).st_size != os.fstat(fd).st_size:
            return False
        return _same_bytes(kept_fd, fd)


@contextlib.contextmanager
def _both(store_fd: int, path: str) -> Iterator[tuple[int, int]]:
    """What is kept of a path, and what is there, as descriptors; -1: nothing is."""
    with contextlib.ExitStack() as opened, _folder(store_fd) as folder_fd:
        fds = []
        for name, dir_fd in ((stem_of(path) + _KEPT, folder_fd), (path, store_fd)):
            try:
                fds.append(opened.enter_context(descriptor(open_file(name, dir_fd))))
            except FileNotFoundError:
                fds.append(-1)
        yield fds[0], fds[1]


def _same_bytes(one_fd: int, other_fd: int) -> bool:
    at = 0
    while True:
        one, other = os.pread(one_fd, 1 << 20, at), os.pread(other_fd, 1 << 20, at)
        if one != other:
            return False
        if not one:
            return True
        at += len(one)


def left(store_fd: int) -> Left:
    """What is in the folder; nothing where there is none. Raises OSError."""
    found = Left([], [], [])
    try:
        with _folder(store_fd) as folder_fd:
            names = names_in(folder_fd)
            stems = {stem for stem, suffix in map(_split, names) if suffix in (_RECORD, _UNDO)}
            for stem in sorted(stems):
                _sort(found, folder_fd, stem)
            for name in sorted(names):
                stem, suffix = _split(name)
                if stem not in stems or suffix not in (_RECORD, _UNDO, _KEPT, _COPY):
                    found.strange.append(name)
    except FileNotFoundError:
        pass
    return found


def _sort(found: Left, folder_fd: int, stem: str) -> None:
    try:
        found.records.append(_read(folder_fd, stem))
    except FileNotFoundError:
        # Gone meanwhile, or a decision alone, which is not whole.
        if exists(stem + _UNDO, folder_fd):
            found.torn.append(stem)
    except TornError:
        found.torn.append(stem)
    except OSError:
        found.strange.append(stem + _RECORD)


def where(path: str) -> str:
    """The record of a path, for an operator: its name tells nothing of a patient."""
    return f"{REPLACED}/{stem_of(path)}{_RECORD}"


def where_kept(path: str) -> str:
    """Where the older content of a path is kept."""
    return f"{REPLACED}/{stem_of(path)}{_KEPT}"


def highest(store_fd: int) -> int:
    """The highest number in a record, 0 for none that can be read.

    A line below it would count for the older content's.
    """
    try:
        return max((record.sequence for record in left(store_fd).records), default=0)
    except OSError:
        return 0


def remove_torn(store_fd: int, stem: str) -> bool:
    """Remove a record that is not whole; False where a content belongs to it.

    Without one it was never flushed, so nothing was replaced. stem: its id. Raises OSError.
    """
    with _folder(store_fd) as folder_fd:
        if exists(stem + _KEPT, folder_fd):
            return False
        for suffix in (_COPY, _RECORD, _UNDO):
            _unlinked(stem + suffix, folder_fd)
        return True


def stem_of(path: str) -> str:
    """The id that a record of the path has."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return stem, dot + suffix


@contextlib.contextmanager
def _folder(store_fd: int, *, make: bool = False) -> Iterator[int]:
    """The folder of older contents, made and flushed if need be. Raises OSError."""
    try:
        fd = open_folder(REPLACED, store_fd)
    except FileNotFoundError:
        if not make:
            raise
        with holder(REPLACED, store_fd) as (home_fd, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=home_fd)
            flush_folder(home_fd)
        fd = open_folder(REPLACED, store_fd)
    with descriptor(fd):
        yield fd

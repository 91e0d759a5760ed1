"""Older contents of paths, kept while the newer instance that takes the place is on its way.

    STORE/.fastscp/replaced/<id>.record   what is replaced
    STORE/.fastscp/replaced/<id>.kept     the older content: a second name of its file, or a copy
    STORE/.fastscp/replaced/<id>.over     the same, once it is decided that the newer one stays
    STORE/.fastscp/replaced/<id>.copy     another one, on its way to that name or back to the path

The id belongs to the path. Whoever calls here holds the path's lock, so a path has one record.

The order makes every moment tell what it is, also after a power cut, which may keep a later change
and lose an earlier one. A record is flushed, with its name, before the older content has its second
name; that name is flushed before the newer file takes the path. The newer instance stays from the
moment on that the content's new name is flushed, and nobody is told before: as long as a content is
kept, it comes back, whatever the journal says, and nothing that fails can make it forgotten. When
it is back, the second name goes first, and that is flushed before the record goes. So what is kept
without a record is none of ours, and a record without it tells that the path has not changed, or
has it back, or that the newer one stays.

Where the flush of that name fails, nobody knows which of both names the disk has. Then the record
itself gets a word behind its line, flushed: the newer instance was refused, whatever the names say.

An instance may also take a free name beside its other form, compressed or not, that it outranks.
Then what is kept is a second name of that other form, which loses nothing; if the newer instance is
refused it goes, or counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.journal import append_fact, parse_line
from fastscp.store.names import (
    FILE_MODE,
    REPLACED,
    descriptor,
    exists,
    holder,
    make_way,
    names_in,
    open_file,
    own_folder,
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
    "decide",
    "drop",
    "has_content",
    "has_path",
    "has_same_bytes",
    "highest",
    "is_in",
    "is_kept",
    "is_kept_at",
    "is_left",
    "is_newer_at",
    "is_over",
    "keep",
    "left",
    "put_back",
    "read_record",
    "refuse",
    "remove_over",
    "remove_torn",
    "stem_of",
    "take_away",
    "where",
]

_RECORD: Final = ".record"
_KEPT: Final = ".kept"
_OVER: Final = ".over"
_COPY: Final = ".copy"
_OURS: Final = frozenset({_RECORD, _KEPT, _OVER, _COPY})
# Bytes: a path has 2,047 at most, and each may be escaped.
_RECORD_MOST: Final = 1 << 16
# Behind the line of a record: its newer instance was refused.
_REFUSED: Final = b"refused\n"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# What a file system says that has no second names for a file, or none more for this one.
_NO_LINK: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class UnsureError(OSError):
    """The note that a newer instance stays could not be flushed: it may be on the disk, or not."""


class TornError(OSError):
    """A record that is not whole. A power cut leaves it, and then nothing was replaced yet."""


@dataclass(frozen=True)
class Record:
    """A replacement that was begun.

    path: below the store. lock: number of the path's lock. sequence: of the journal when it was
    begun; the lines of the older content are below, that of the newer one is above. beside: the
    path was free, and what is kept is the other form of the instance, at this path; "": it is what
    the path held. inode: of the newer file, where it stands beside the other form. doubtful: a
    flush of the older content failed. refused: it is noted that the newer instance was.
    """

    path: str
    lock: int
    sequence: int
    beside: str = ""
    inode: int = 0
    doubtful: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Left:
    """What is in the folder.

    torn: ids of records that are not whole. over: ids of contents that a power cut brought back
    after all was over. strange: all other names.
    """

    records: list[Record]
    torn: list[str]
    over: list[str]
    strange: list[str]


# Keeping -----------------------------------------------------------------------------------------


def keep(flushes: Flushes, record: Record) -> None:
    """Keep what is to be replaced, and say so in its record; both are flushed.

    What is in the file, the caller has flushed. The path must have no record. Raises OSError, and
    as far as possible nothing is left then.
    """
    flushes.check(REPLACED)
    store_fd, stem = flushes.store_fd, stem_of(record.path)
    older = record.beside or record.path
    with _folder(store_fd, make=True) as folder_fd, descriptor(open_file(older, store_fd)) as fd:
        if exists(stem + _KEPT, folder_fd):
            raise OSError(
                errno.EEXIST, "has the name that the older content is to get: move it away",
                f"{REPLACED}/{stem}{_KEPT}",
            )  # fmt: skip
        if exists(stem + _RECORD, folder_fd):
            raise OSError(errno.EEXIST, "is there already", f"{REPLACED}/{stem}{_RECORD}")
        try:
            _unlinked(stem + _OVER, folder_fd)
            _write(folder_fd, stem + _RECORD, record)
            flushes.folder(REPLACED)
            _keep_content(store_fd, older, fd, folder_fd, stem)
            flushes.folder(REPLACED)
        except OSError:
            with contextlib.suppress(OSError):
                _drop(flushes, folder_fd, stem)
            raise


def _write(folder_fd: int, name: str, record: Record) -> None:
    """Write a record, flushed; the flush of its name is the caller's."""
    with descriptor(os.open(name, _NEW, FILE_MODE, dir_fd=folder_fd)) as fd:
        fact = {"path": record.path, "lock": record.lock, "seq": record.sequence}
        more = {"beside": record.beside, "inode": record.inode, "doubtful": record.doubtful}
        append_fact(fd, fact | {name: value for name, value in more.items() if value})
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


def decide(flushes: Flushes, path: str) -> None:
    """Have it on stable storage that the newer instance stays, whose line and file are.

    Nothing was decided where this raises OSError, and the older content has to come back. Raises
    UnsureError: the disk may say otherwise, so that `refuse` has to come first.
    """
    flushes.check(REPLACED)
    stem = stem_of(path)
    with _folder(flushes.store_fd) as folder_fd:
        is_ours = exists(stem + _KEPT, folder_fd)
        if is_ours:
            os.rename(stem + _KEPT, stem + _OVER, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        try:
            flushes.folder(REPLACED)
        except OSError as error:
            # What was decided before stays so.
            if not is_ours:
                raise
            # Whoever finds it is to put it back.
            with contextlib.suppress(OSError):
                os.rename(stem + _OVER, stem + _KEPT, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            raise UnsureError(error.errno, error.strerror, REPLACED) from error


def refuse(store_fd: int, path: str) -> None:
    """Have it on stable storage that the newer instance was refused. Raises OSError.

    It may be tried again: each time the word is written anew, in its place, and no folder changes.
    """
    with _folder(store_fd) as folder_fd:
        name = stem_of(path) + _RECORD
        with descriptor(open_file(name, folder_fd, os.O_RDWR)) as fd:
            line, _newline, _rest = os.pread(fd, _RECORD_MOST, 0).partition(b"\n")
            if os.pwrite(fd, _REFUSED, len(line) + 1) != len(_REFUSED):
                raise OSError(errno.EIO, "a record was written in part", f"{REPLACED}/{name}")
            os.fsync(fd)


def drop(flushes: Flushes, path: str, *, undone: bool = False) -> None:
    """Let go of the older content: the newer one stays, or it is back at its path (undone).

    Raises OSError, and then the record may be left.
    """
    with _folder(flushes.store_fd) as folder_fd:
        _drop(flushes, folder_fd, stem_of(path), undone=undone)


def _drop(flushes: Flushes, folder_fd: int, stem: str, *, undone: bool = False) -> None:
    gone = [_unlinked(stem + suffix, folder_fd) for suffix in (_KEPT, _COPY)]
    # One that has another name only since a note that failed may have its first one on the disk.
    if any(gone) or (undone and exists(stem + _OVER, folder_fd)):
        flushes.folder(REPLACED)
    # Without its record, what is over is nobody's any more.
    for suffix in (_RECORD, _OVER):
        _unlinked(stem + suffix, folder_fd)


def _unlinked(name: str, folder_fd: int) -> bool:
    """Remove a name; whether it was there."""
    try:
        os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return False
    return True


def put_back(flushes: Flushes, record: Record) -> None:
    """Give the older content its path again, flushed; nothing where it has it. Raises OSError.

    It stays kept meanwhile: the two folders may reach the disk apart from each other. It has the
    path again even where a folder above cannot be flushed any more, and then OSError says so. One
    whose flush failed is in doubt at its path as well: its mark may be that of the newer file.
    """
    if record.beside:
        return
    store_fd, path = flushes.store_fd, record.path
    stem = stem_of(path)
    with _folder(store_fd) as folder_fd:
        # The second: the note of the newer one failed, and could not be taken back.
        kept = next((stem + s for s in (_KEPT, _OVER) if exists(stem + s, folder_fd)), None)
        if kept is not None and not _has_file(store_fd, path):
            # A power cut may have taken the folders.
            make_way(path, store_fd)
            with (
                descriptor(open_file(kept, folder_fd)) as fd,
                holder(path, store_fd) as (into_fd, name),
            ):
                _double(kept, folder_fd, fd, folder_fd, stem)
                os.rename(stem + _COPY, name, src_dir_fd=folder_fd, dst_dir_fd=into_fd)
    if record.doubtful:
        flushes.doubt(path)
    flushes.way(path)


def take_away(flushes: Flushes, record: Record) -> None:
    """Remove a refused instance beside its other form, if it is there. Raises OSError."""
    if is_newer_at(flushes.store_fd, record):
        with holder(record.path, flushes.store_fd) as (folder_fd, name):
            os.unlink(name, dir_fd=folder_fd)
    with contextlib.suppress(FileNotFoundError):
        flushes.folder(record.path.rpartition("/")[0])


def is_newer_at(store_fd: int, record: Record) -> bool:
    """Whether the path has the very file that took it beside its other form. Raises OSError."""
    try:
        return status_at(record.path, store_fd).st_ino == record.inode
    except FileNotFoundError:
        return False


def _has_file(store_fd: int, path: str) -> bool:
    """Whether the path has the very file that is kept."""
    with _both(store_fd, path) as (kept_fd, fd):
        if kept_fd < 0 or fd < 0:
            return False
        return os.path.samestat(os.fstat(kept_fd), os.fstat(fd))


# Looking -----------------------------------------------------------------------------------------


def is_left(store_fd: int, path: str) -> bool:
    """Whether a path has a record, whole or torn, that an earlier holder of its lock left."""
    stem = stem_of(path)
    try:
        with _folder(store_fd) as folder_fd:
            return exists(stem + _RECORD, folder_fd)
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
    with descriptor(open_file(stem + _RECORD, folder_fd)) as fd:
        text = os.read(fd, _RECORD_MOST)
    line, _newline, behind = text.partition(b"\n")
    fact: dict[str, Any] = parse_line(line) or {}
    path, lock, sequence = fact.get("path"), fact.get("lock"), fact.get("seq")
    if not isinstance(path, str) or not isinstance(lock, int) or not isinstance(sequence, int):
        raise TornError(errno.ENOTRECOVERABLE, "is not whole", f"{REPLACED}/{stem}{_RECORD}")
    if stem_of(path) != stem:
        raise TornError(
            errno.ENOTRECOVERABLE, "has the name of another one", f"{REPLACED}/{stem}{_RECORD}"
        )
    return Record(
        path,
        lock,
        sequence,
        beside=str(fact.get("beside", "")),
        inode=int(fact.get("inode", 0)),
        doubtful=bool(fact.get("doubtful")),
        refused=behind.startswith(_REFUSED),
    )


def is_kept(store_fd: int, path: str) -> bool:
    """Whether anything is kept of a path, so that it has to come back. Raises OSError."""
    with _folder(store_fd) as folder_fd:
        return exists(stem_of(path) + _KEPT, folder_fd)


def is_over(store_fd: int, path: str) -> bool:
    """Whether it was noted that the newer instance stays at a path. Raises OSError."""
    with _folder(store_fd) as folder_fd:
        return exists(stem_of(path) + _OVER, folder_fd)


def is_kept_at(store_fd: int, path: str) -> bool:
    """Whether the path still has, or has again, the very file that is kept.

    True also where nothing has the path. False where nothing is kept. Raises OSError.
    """
    if not exists(path, store_fd):
        return is_kept(store_fd, path)
    return _has_file(store_fd, path)


def has_path(store_fd: int, path: str) -> bool:
    """Whether what is kept, by either of its names, has its path. Raises OSError."""
    stem = stem_of(path)
    with _folder(store_fd) as folder_fd:
        kept = next((stem + s for s in (_KEPT, _OVER) if exists(stem + s, folder_fd)), None)
        if kept is None or not exists(path, store_fd):
            return False
        with (
            descriptor(open_file(kept, folder_fd)) as kept_fd,
            descriptor(open_file(path, store_fd)) as fd,
        ):
            if os.path.samestat(os.fstat(kept_fd), os.fstat(fd)):
                return True
            return os.fstat(kept_fd).st_size == os.fstat(fd).st_size and _same_bytes(kept_fd, fd)


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
    found = Left([], [], [], [])
    try:
        with _folder(store_fd) as folder_fd:
            names = names_in(folder_fd)
            stems = {stem for stem, suffix in map(_split, names) if suffix == _RECORD}
            for stem in sorted(stems):
                _sort(found, folder_fd, stem)
            for name in sorted(names):
                stem, suffix = _split(name)
                if suffix == _OVER and stem not in stems:
                    found.over.append(stem)
                elif stem not in stems or suffix not in _OURS:
                    found.strange.append(name)
    except FileNotFoundError:
        pass
    return found


def _sort(found: Left, folder_fd: int, stem: str) -> None:
    try:
        found.records.append(_read(folder_fd, stem))
    except FileNotFoundError:
        pass  # gone meanwhile
    except TornError:
        found.torn.append(stem)
    except OSError:
        found.strange.append(stem + _RECORD)


def is_in(name: object) -> bool:
    """Whether the name that an error has is the folder's, or of something in it."""
    return isinstance(name, str) and f"{name}/".startswith(f"{REPLACED}/")


def where(path: str) -> str:
    """The record of a path, for an operator: its name tells nothing of a patient."""
    return f"{REPLACED}/{stem_of(path)}{_RECORD}"


def highest(store_fd: int) -> int:
    """The highest number in a record, 0 for none that can be read.

    A line below it would count for the older content's.
    """
    try:
        return max((record.sequence for record in left(store_fd).records), default=0)
    except OSError:
        return 0


def has_content(store_fd: int, stem: str) -> bool:
    """Whether a content is kept under an id. Raises OSError."""
    with _folder(store_fd) as folder_fd:
        return exists(stem + _KEPT, folder_fd)


def remove_torn(store_fd: int, stem: str) -> bool:
    """Remove a record that is not whole; False where a content belongs to it.

    Without one it was never flushed, so nothing was replaced. stem: its id. Raises OSError.
    """
    with _folder(store_fd) as folder_fd:
        if exists(stem + _KEPT, folder_fd):
            return False
        for suffix in (_COPY, _OVER, _RECORD):
            _unlinked(stem + suffix, folder_fd)
        return True


def remove_over(store_fd: int, stem: str) -> None:
    """Remove a content that a power cut brought back after all was over. Raises OSError."""
    with _folder(store_fd) as folder_fd:
        _unlinked(stem + _OVER, folder_fd)


def stem_of(path: str) -> str:
    """The id that a record of the path has."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return stem, dot + suffix


@contextlib.contextmanager
def _folder(store_fd: int, *, make: bool = False) -> Iterator[int]:
    """The folder of older contents, made and flushed if need be.

    Raises OSError, also of what is done inside; of what is in the folder it tells the whole path.
    """
    try:
        with own_folder(REPLACED, store_fd, make=make) as fd:
            yield fd
    except OSError as error:
        name = error.filename
        if isinstance(name, str) and "/" not in name and _split(name)[1] in _OURS:
            error.filename = f"{REPLACED}/{name}"
        raise

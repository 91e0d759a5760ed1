"""Marks of what could not be flushed: in STORE/.fastscp/unflushed, a JSON object for each.

A flush that fails may cost what was to be written, and the kernel tells of it once: the next flush
succeeds, and means nothing. So the failure itself is kept on the disk. It holds as long as the
kernel may take for written what is not: until the machine starts again, the file system is mounted
anew, or the folder was made anew (`renew`).

A mark is written as `<name>.json.<thread>.draft`, becomes `<name>.json.<thread>.new` when it is
whole, and gets its name once it is flushed. It holds from the moment it is whole: a disk that fails
one flush may hang in the next one until all are killed. In a container a thread of a later process
has the same number, so a `.new` that is there may be the only copy: none is written over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import msgspec

from fastscp.errors import reason_for
from fastscp.store.mounts import Mounted, mounted
from fastscp.store.names import (
    ANEW,
    FILE_MODE,
    HOME,
    UNFLUSHED,
    flush_folder,
    flush_folder_at,
    give,
    names_in,
    open_file,
    own_folder,
    status_at,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = [
    "LIFTED_BY", "MOVED", "RENEWED_BY", "Mark", "Marks", "mark_name", "path_name", "tell",
    "warnings",
]  # fmt: skip

What: TypeAlias = Literal["file", "folder", "all folders", "file system"]

_SUFFIX: Final = ".json"
# Behind that, of one that is being left: see `_name_of`.
_NEW: Final = ".new"
# And of one that is being written: of no mark yet.
_DRAFT: Final = ".draft"
# With as many marks of files one more is one of the file system, and of folders one of all of them.
_OF_A_KIND_MOST: Final = 64
# Those two have a path, and go with what it leads to.
_INSTEAD: Final[dict[str, What]] = {"file": "file system", "folder": "all folders"}
# No mark is near this: whatever is longer is none.
_MOST: Final = 1 << 14
# What the system says of what is no regular file: nobody who leaves a mark makes such a thing.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
# What lifts any mark, for an operator.
LIFTED_BY: Final = "restart the machine, or unmount the file system and mount it again"
# What makes folders anew: `verify` refuses a store with a redo log that was not recovered.
RENEWED_BY: Final = (
    "run `fastscp verify` without the service (`fastscp recover` where a redo log was left)"
)
# What else lifts the mark of the store's own folder, which nobody can exchange for another one.
MOVED: Final = (
    f"stop the service, make a new directory beside the store, move all that is in the store there "
    f"({HOME} too), and give it the store's name"
)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that could not be flushed.

    what: a file; a folder; so many folders that none is told apart from the others; or the file
    system as a whole, as at the end of a buffered life, or because of many files. boot, mount,
    system: when, as in `Mounted`. path, inode: of the file or folder, below the store. shown: the
    path without what is a patient's. error: an errno. unread: it stands for one that could not be
    read. name: of the mark's file.
    """

    what: What
    boot: str = ""
    mount: str = ""
    system: str = ""
    path: str = ""
    inode: int = 0
    shown: str = ""
    error: int = 0
    unread: bool = False
    name: str = ""

    @property
    def unreadable(self) -> str:
        """What is said of a mark that says nothing, or stands for one, after its path; else ""."""
        if self.boot and not self.unread:
            return ""
        said = (
            "cannot be read, so nobody knows what an earlier run could not flush: all instances "
            f"are answered A700. Check the disk; then {RENEWED_BY}, which finds out what it was "
            "left for where its name tells"
        )
        # As long as it does not tell of when it is, nothing else helps.
        return f"{said}, or {LIFTED_BY}" if self.boot else said

    @property
    def when(self) -> Mounted:
        return Mounted(self.boot, self.mount, self.system)


# It may have been one of any folder.
_UNKNOWN: Final = Mark(what="all folders")


class _Doubts(Protocol):
    """What all workers know; `fastscp_ext.Doubts`."""

    def refuse(self, folder: str, /) -> bool: ...
    def refuse_all(self) -> None: ...
    def doubt(self, path: str, /) -> bool: ...
    def doubt_all(self) -> None: ...


def tell(marks: Iterable[Mark], doubts: _Doubts) -> None:
    """Tell the workers of the marks that hold."""
    for mark in marks:
        match mark.what:
            case "file":
                doubts.doubt(mark.path)
            case "folder":
                doubts.refuse(mark.path)
            case "all folders":
                doubts.refuse_all()
            case "file system":
                doubts.doubt_all()


def warnings(marks: Iterable[Mark]) -> Iterator[str]:
    """What the start says of the marks that hold."""
    for mark in marks:
        if mark.unreadable:
            yield f"{UNFLUSHED}/{mark.name} {mark.unreadable}"
            continue
        why = f"({reason_for(mark.error)})" if mark.error else f"({UNFLUSHED}/{mark.name})"
        match mark.what:
            case "file":
                yield (
                    f"an earlier run could not flush a stored file {why}, which {UNFLUSHED}/"
                    f"{mark.name} names: it is written anew when it is sent again. Check the disk; "
                    f"then move the file away and have it sent again, or {LIFTED_BY}"
                )
            case "folder" if mark.path:
                yield (
                    f"an earlier run could not flush the folder {mark.shown or mark.name} {why}, "
                    f"so its names may not be on the disk: its instances are answered A700. Check "
                    f"the disk; then {RENEWED_BY}, which makes the folder anew, or {LIFTED_BY}"
                )
            case "folder":
                yield (
                    f"an earlier run could not flush the store's own folder {why}, so the names in "
                    f"it may not be on the disk: instances that need it flushed again are answered "
                    f"A700. Check the disk; then {LIFTED_BY}; or {MOVED}"
                )
            case "all folders":
                yield (
                    f"an earlier run could not flush many folders {why}: all instances are "
                    f"answered A700. Check the disk; then {LIFTED_BY}"
                )
            case "file system":
                yield (
                    f"an earlier run could not flush the file system {why}: no stored file is "
                    f"taken for one that is sent again, but written anew. Check the disk; then "
                    f"{LIFTED_BY}"
                )


def mark_name(mark: Mark) -> str:
    """What the file of a mark is called, and a folder that is made anew for its sake."""
    if not mark.inode or mark.what not in _INSTEAD:
        return mark.what.replace(" ", "-")
    return path_name(mark.path)


def path_name(path: str) -> str:
    """What the mark of a file or folder is called."""
    return hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()


def _name_of(file: str) -> str:
    """The name of the mark that a file is, or is to become; "": of none."""
    name = file
    if file.endswith(_NEW):
        name = file.removesuffix(_NEW).rpartition(".")[0]
    return name if name.endswith(_SUFFIX) else ""


class Marks:
    """The marks of one store.

    dir_fd: the store's, borrowed. now: what is mounted; None: what the system says.
    """

    def __init__(self, dir_fd: int, now: Mounted | None = None) -> None:
        self._dir_fd = dir_fd
        self._now = now
        # What `covers` has read: the paths that are marked; None: all are.
        self._covered: frozenset[str] | None = frozenset()
        self._has_read = False

    def leave(self, what: What, path: str, error_no: int, shown: str = "") -> None:
        """Mark what could not be flushed, so that a later life knows. Raises OSError.

        path: of a file or folder, "" for the store itself. Blocks on the disk. The mark holds
        before anything of it is flushed, also where that fails or never ends.
        """
        self._has_read = False
        now = self._now or mounted(self._dir_fd)
        inode = status_at(path or ".", self._dir_fd).st_ino
        mark = Mark(
            what=what, boot=now.boot, mount=now.mount, system=now.system, path=path, inode=inode,
            shown=shown, error=error_no,
        )  # fmt: skip
        if what in _INSTEAD and self._are_too_many(mark):
            mark = msgspec.structs.replace(mark, what=_INSTEAD[what], path="", shown="")
        self._write(f"{mark_name(mark)}{_SUFFIX}", mark)

    def _write(self, name: str, mark: Mark) -> None:
        # Two threads, or workers, may meet the same failure.
        mine = f"{name}.{threading.get_native_id()}"
        draft, new = f"{mine}{_DRAFT}", f"{mine}{_NEW}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with own_folder(UNFLUSHED, self._dir_fd, make=True, flushed=False) as folder_fd:
            with os.fdopen(os.open(draft, flags, FILE_MODE, dir_fd=folder_fd), "wb") as file:
                give(file.fileno(), folder_fd)
                file.write(msgspec.json.encode(mark))
                file.flush()
                os.rename(draft, new, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
                os.fsync(file.fileno())
            os.rename(new, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            flush_folder(folder_fd)
        flush_folder_at(self._dir_fd, HOME)

    def restate(self) -> None:
        """Have marks that cannot be read say that they hold from now on, for all folders.

        What they were left for came before, so whatever lifts a mark of now lifts them, too. Marks
        that somebody was killed over get their names. The store's lock is held. Where one cannot be
        written it stays as it is. Raises OSError where they cannot be listed.
        """
        found = self.left()
        if not found:
            return
        now = self._now or mounted(self._dir_fd)
        stated = Mark(
            what="all folders", boot=now.boot, mount=now.mount, system=now.system, unread=True
        )
        names = self._names()
        for mark in found:
            with contextlib.suppress(OSError):
                if not mark.boot:
                    self._write(mark.name, stated)
                elif mark.name not in names:
                    self._write(mark.name, msgspec.structs.replace(mark, name=""))

    def _are_too_many(self, mark: Mark) -> bool:
        """Whether there is no place for a mark beside those of its kind, nor one that it takes."""
        others = [one.name for one in self.left() if one.what == mark.what]
        return len(others) >= _OF_A_KIND_MOST and f"{mark_name(mark)}{_SUFFIX}" not in others

    def standing(self) -> tuple[Mark, ...]:
        """The marks that hold: of this boot and mount, and of what is still the same.

        Raises OSError.
        """
        found = self.left()
        now = (self._now or mounted(self._dir_fd)) if found else None
        return tuple(mark for mark in found if now is not None and self._holds(mark, now))

    def left(self) -> tuple[Mark, ...]:
        """All marks, whether or not they hold. Raises OSError.

        What cannot be understood counts as a mark of all folders; unless it has no name of a mark
        yet: then nobody had come to write it, or a power cut took it, which lifts it.
        """
        found: dict[str, Mark] = {}
        # Those that have their names first.
        for file in sorted(self._names(), key=lambda one: (one.endswith(_NEW), one)):
            name = _name_of(file)
            if name and name not in found:
                mark = self._read(file) if file == name else self._read_new(file, name)
                if mark is not None:
                    found[name] = msgspec.structs.replace(mark, name=name)
        return tuple(found[name] for name in sorted(found))

    def _names(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError), self._folder() as folder_fd:
            return names_in(folder_fd)
        return set()

    def _read(self, name: str) -> Mark:
        """What a file of a mark says, `_UNKNOWN` where it says nothing. Raises OSError."""
        # By the whole path, so that an error names it.
        with os.fdopen(open_file(f"{UNFLUSHED}/{name}", self._dir_fd), "rb") as file:
            data = file.read(_MOST)
        try:
            mark = msgspec.json.decode(data, type=Mark)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _UNKNOWN
        # One that does not say of when is no better.
        return mark if mark.boot else _UNKNOWN

    def _read_new(self, file: str, name: str) -> Mark | None:
        """What a mark says that is being left; None: there is none yet, or no more."""
        try:
            mark = self._read(file)
        except FileNotFoundError:
            # It has its name by now, if nobody lifted it.
            with contextlib.suppress(FileNotFoundError):
                return self._read(name)
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        return mark if mark.boot else None

    def covers(self, path: str) -> bool:
        """Whether a file, or a folder on the way to it, is marked: it may not be on the disk.

        The store's lock is held: what others mark after the first question is not seen, what is
        marked by this object is. Raises OSError.
        """
        if not self._has_read:
            marks = self.standing()
            is_all = any(mark.what not in _INSTEAD for mark in marks)
            self._covered = None if is_all else frozenset(mark.path for mark in marks)
            self._has_read = True
        if self._covered is None:
            return True
        while path and path not in self._covered:
            path = path.rpartition("/")[0]
        return path in self._covered

    def clear(self) -> None:
        """Remove the marks that hold no more. The store's lock is held. Raises OSError."""
        self._has_read = False
        standing = {mark.name for mark in self.standing()}
        with contextlib.suppress(FileNotFoundError), self._folder() as folder_fd:
            names = names_in(folder_fd)
            # Once a mark has its name nothing is left to be written of it.
            self._remove(
                folder_fd,
                {
                    name for name in names - standing
                    if _name_of(name) not in standing or _name_of(name) in names
                },
            )  # fmt: skip

    def lift(self, mark: Mark) -> None:
        """Remove a mark. The store's lock is held. Raises OSError."""
        self._has_read = False
        with self._folder() as folder_fd:
            names = names_in(folder_fd)
            self._remove(folder_fd, {name for name in names if _name_of(name) == mark.name})

    @staticmethod
    def _remove(folder_fd: int, names: Collection[str]) -> None:
        # What is still being written goes first: it would come back with the name.
        for name in sorted(names, key=lambda one: not one.endswith(_NEW)):
            # A folder is nobody's mark, and in nobody's way.
            with contextlib.suppress(IsADirectoryError):
                os.unlink(name, dir_fd=folder_fd)
        if names:
            flush_folder(folder_fd)

    def is_same(self, mark: Mark) -> bool:
        """Whether the path of a mark leads to the file or folder that it was left for.

        Where that cannot be told it counts as the same.
        """
        try:
            return status_at(mark.path or ".", self._dir_fd).st_ino == mark.inode
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)

    def is_begun(self, mark: Mark) -> bool:
        """Whether the folder of a mark is being made anew: until that is done the mark stays.

        Raises OSError.
        """
        return mark.what == "folder" and mark_name(mark) in self.begun()

    def begun(self) -> set[str]:
        """What the marks are called whose folders are being made anew. Raises OSError."""
        try:
            with own_folder(ANEW, self._dir_fd) as anew_fd:
                return {name.partition(".")[0] for name in names_in(anew_fd)}
        except FileNotFoundError:
            return set()

    def is_over(self, path: str) -> bool:
        """Whether a path has a mark, be it one that could not be read, and it holds no more.

        Raises OSError.
        """
        now = self._now or mounted(self._dir_fd)
        return any(
            mark.name == f"{path_name(path)}{_SUFFIX}" and mark.boot and mark.when.is_over(now)
            for mark in self.left()
        )

    def is_in_doubt(self, folder: str) -> bool:
        """Whether a flush of a folder failed since it was made and mounted. Raises OSError.

        Another flush of it tells nothing then.
        """
        now = self._now or mounted(self._dir_fd)
        for mark in self.left():
            if mark.boot and mark.when.is_over(now):
                continue
            if mark.what == "all folders":
                return True
            if mark.what == "folder" and mark.path == folder and self.is_same(mark):
                return True
        return False

    def _holds(self, mark: Mark, now: Mounted) -> bool:
        if not mark.boot:
            # Nobody knows what it says, nor of when.
            return True
        if self.is_begun(mark):
            return True
        if mark.when.is_over(now):
            return False
        return mark.what not in _INSTEAD or self.is_same(mark)

    def _folder(self) -> AbstractContextManager[int]:
        return own_folder(UNFLUSHED, self._dir_fd)

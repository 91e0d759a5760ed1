"""Folders made anew after a failed flush, so that their marks can be lifted. Nobody uses the store.

Whether the names in such a folder are on the disk nobody knows, and another flush of it tells
nothing. So a fresh folder gets every name and is flushed, and takes the old one's place:

1. STORE/.fastscp/anew/<name of the mark> is made, gets a link to each file, and is flushed;
2. both folders are exchanged in one step;
3. the directories they are in are flushed, the folders inside the old one move to the new one,
   which is flushed, and the old one is removed;
4. the mark goes.

Cut off before the second step, all is as it was. After it every file has its name, except those in
folders that have not moved yet: the next start, or `verify`, goes on with the third step first.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError, StoreBusyError
from fastscp.store.access import held
from fastscp.store.findings import Finding, Kind, reason
from fastscp.store.names import (
    ANEW,
    FOLDER_MODE,
    descriptor,
    exists,
    flush_folder,
    holder,
    names_in,
    open_folder,
    own_folder,
    status_at,
)
from fastscp.store.unflushed import LIFTED_BY, Marks, mark_name
from fastscp_ext import exchange, rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.unflushed import Mark, Mounted

__all__ = ["finish", "renew"]

_CHECK: Final = f"check the disk; {LIFTED_BY}"
_UNSURE: Final = "its names were not sure to be on the disk"
_MADE: Final = "made anew"


def renew(path: Path, dir_fd: int, *, alone: bool, now: Mounted | None = None) -> list[Finding]:
    """What could not be flushed, made anew where nobody else uses the store and it can be.

    alone: the caller holds the store's lock; else it is taken, if it can be had. now: what is
    mounted, None: what the system says. Raises OSError where the marks cannot be read or removed.
    """
    marks = Marks(dir_fd, now)
    if not marks.left():
        return []
    try:
        with contextlib.nullcontext() if alone else held(path, dir_fd):
            return list(_renew_all(dir_fd, marks))
    except StoreBusyError:
        why = "a service is using the store: run verify once without it"
    except StartError as error:
        why = str(error)
    return [_found(mark, why) for mark in marks.standing()]


def finish(dir_fd: int) -> list[Mark]:
    """Finish what a `renew` that was cut off began; returns the marks that are lifted by that.

    The store's lock is held. Before that, what lies in such a folder may be missed. Raises OSError.
    """
    marks = Marks(dir_fd)
    lifted = []
    for mark in _deepest_first(marks):
        if marks.is_begun(mark):
            with _anew(dir_fd) as anew_fd:
                _finish(dir_fd, anew_fd, marks, mark)
            if not marks.is_same(mark):
                marks.lift(mark)
                lifted.append(mark)
    return lifted


def _renew_all(dir_fd: int, marks: Marks) -> Iterator[Finding]:
    """One after the other, so that never more than one is begun."""
    failed = ""
    try:
        for mark in finish(dir_fd):
            yield _found(mark, _UNSURE, settled=_MADE)
    except OSError as error:
        failed = f"what was begun cannot be made anew ({reason(error)}): {_CHECK}"
    standing = {mark.name for mark in marks.standing()}
    for mark in _deepest_first(marks):
        if mark.name not in standing:
            continue
        if mark.what != "folder" or not mark.path:
            again = "move it away and have it sent again, or " if mark.what == "file" else ""
            yield _found(mark, f"{again}{LIFTED_BY}")
        elif failed:
            yield _found(mark, failed)
        else:
            try:
                _renew(dir_fd, marks, mark)
            except OSError as error:
                failed = f"it, or one before it, cannot be made anew ({reason(error)}): {_CHECK}"
                yield _found(mark, failed)
            else:
                yield _found(mark, _UNSURE, settled=_MADE)
    if not failed:
        marks.clear()


def _deepest_first(marks: Marks) -> list[Mark]:
    """So that a folder is whole before it moves into one that is made anew itself."""
    return sorted(marks.left(), key=lambda mark: mark.path.count("/"), reverse=True)


def _found(mark: Mark, why: str, settled: str = "") -> Finding:
    error = os.strerror(mark.error) if mark.error else "its mark cannot be read"
    return Finding(
        Kind.UNFLUSHED, mark.path or ".", f"{_WHAT[mark.what]} ({error}); {why}", settled
    )


_WHAT: Final = {
    "file": "it could not be flushed",
    "folder": "it could not be flushed",
    "all folders": "too many folders could not be flushed",
    "file system": "the file system could not be flushed",
}


def _renew(dir_fd: int, marks: Marks, mark: Mark) -> None:
    with _anew(dir_fd) as anew_fd:
        if marks.is_same(mark):
            _exchange(dir_fd, anew_fd, mark)
        _finish(dir_fd, anew_fd, marks, mark)
    marks.lift(mark)


def _exchange(dir_fd: int, anew_fd: int, mark: Mark) -> None:
    """Steps 1 and 2. Raises OSError, and nothing is exchanged."""
    name = mark_name(mark)
    _discard(anew_fd, name)
    os.mkdir(name, FOLDER_MODE, dir_fd=anew_fd)
    with (
        descriptor(open_folder(name, anew_fd)) as new_fd,
        descriptor(open_folder(mark.path, dir_fd)) as old_fd,
    ):
        about = os.fstat(old_fd)
        os.fchown(new_fd, about.st_uid, about.st_gid)
        os.fchmod(new_fd, stat.S_IMODE(about.st_mode))
        _copy_attributes(old_fd, new_fd)
        _link_files(old_fd, new_fd)
        os.fsync(new_fd)
    os.fsync(anew_fd)
    with holder(mark.path, dir_fd) as (above_fd, base):
        exchange(name, base, one_dir_fd=anew_fd, other_dir_fd=above_fd)


def _finish(dir_fd: int, anew_fd: int, marks: Marks, mark: Mark) -> None:
    """Step 3, where the exchange is done; else remove what was begun. Raises OSError."""
    name = mark_name(mark)
    try:
        there = status_at(name, anew_fd)
    except FileNotFoundError:
        return
    with descriptor(open_folder(name, anew_fd)) as old_fd:
        folders = [one for one in names_in(old_fd) if _is_folder(one, old_fd)]
        if there.st_ino == mark.inode or folders:
            # The old one first: what it holds has no other name yet.
            os.fsync(anew_fd)
            with holder(mark.path, dir_fd) as (above_fd, base):
                if not exists(base, above_fd):
                    os.mkdir(base, FOLDER_MODE, dir_fd=above_fd)
                above, shown = (one.rpartition("/")[0] for one in (mark.path, mark.shown))
                _flush(above_fd, marks, above, shown)
            with descriptor(open_folder(mark.path, dir_fd)) as new_fd:
                _link_files(old_fd, new_fd)
                for one in folders:
                    rename_noreplace(one, one, src_dir_fd=old_fd, dst_dir_fd=new_fd)
                _flush(new_fd, marks, mark.path, mark.shown)
        # Else the exchange never came: these are links to files that have their names.
    _discard(anew_fd, name)


def _flush(fd: int, marks: Marks, path: str, shown: str) -> None:
    """Flush a folder, or mark it: another flush would mean nothing. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        marks.leave("folder", path, error.errno or 0, shown)
        raise


def _copy_attributes(old_fd: int, new_fd: int) -> None:
    """Access control lists and the like, as far as this process may."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(old_fd):
            with contextlib.suppress(OSError):
                os.setxattr(new_fd, name, os.getxattr(old_fd, name))


def _link_files(old_fd: int, new_fd: int) -> None:
    """Give each file of one folder its name in another, too. Raises OSError."""
    for one in names_in(old_fd):
        if not _is_folder(one, old_fd):
            with contextlib.suppress(FileExistsError):
                os.link(one, one, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)


def _is_folder(name: str, dir_fd: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)


def _discard(anew_fd: int, name: str) -> None:
    """Remove a folder of links. Raises OSError: a folder inside it is in the way, for one."""
    try:
        with descriptor(open_folder(name, anew_fd)) as fd:
            for one in names_in(fd):
                os.unlink(one, dir_fd=fd)
    except FileNotFoundError:
        return
    os.rmdir(name, dir_fd=anew_fd)
    flush_folder(anew_fd)


@contextlib.contextmanager
def _anew(dir_fd: int) -> Iterator[int]:
    """The folder for what is made anew; it goes again where it is empty."""
    try:
        with own_folder(ANEW, dir_fd, make=True) as anew_fd:
            yield anew_fd
    finally:
        with contextlib.suppress(OSError), holder(ANEW, dir_fd) as (home_fd, name):
            os.rmdir(name, dir_fd=home_fd)

"""Folders made anew after a failed flush, so that their marks can be lifted. Nobody uses the store.

Whether the names in such a folder are on the disk nobody knows, and another flush of it tells
nothing. So a fresh folder gets every name and is flushed, and takes the old one's place:

1. STORE/.fastscp/anew/<name of the mark> is made, gets a link to each file, and is flushed;
2. both folders are exchanged in one step;
3. the old one is set aside, as anew/<name of the mark>.<its inode>; the directories they are in
   are flushed, the folders inside the old one move to the new one, and that is flushed;
4. the old one is removed, and the mark goes.

Cut off before the second step, all is as it was. After it every file has its name, except those in
folders that have not moved yet: the next start, or `verify`, goes on with the third step first.

If the new one cannot be flushed either, or the one around it, that is marked as well, and it is
made anew in its turn. All that was set aside stays until there is a flush that means something.

What is in anew/ is gone on with even where its mark is lost or cannot be read: its name is made
from the path.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError, StoreBusyError, reason_for
from fastscp.store.access import held
from fastscp.store.findings import Finding, Kind
from fastscp.store.names import (
    ANEW,
    UNFLUSHED,
    descriptor,
    flush_folder,
    holder,
    make_folder,
    names_in,
    open_folder,
    own_folder,
    read_folder,
    status_at,
)
from fastscp.store.unflushed import LIFTED_BY, MOVED, Mark, Marks, mark_name, path_name
from fastscp_ext import exchange, rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.mounts import Mounted

__all__ = ["finish", "is_anything_unflushed", "made_anew", "renew"]

_CHECK: Final = f"check the disk; {LIFTED_BY}"
_AGAIN: Final = f"check the disk, then run verify once more, or {LIFTED_BY}"
_UNSURE: Final = "its names were not sure to be on the disk"
_MADE: Final = "made anew"
# What helps where nothing can be made anew.
_OTHERWISE: Final = {
    "file": f"move it away and have it sent again, or {LIFTED_BY}",
    # The store's own.
    "folder": f"{LIFTED_BY}; or {MOVED}",
}
# Marks of all folders, or of the file system, have words for names.
_OF_A_PATH: Final = re.compile(r"[0-9a-f]{24}")
# What a name gets behind it where another file or folder has it, as a version of an instance does.
_VERSIONS: Final = range(2, 10)


def renew(path: Path, dir_fd: int, *, alone: bool, now: Mounted | None = None) -> list[Finding]:
    """What could not be flushed, made anew where nobody else uses the store and it can be.

    alone: the caller holds the store's lock; else it is taken, if it can be had. now: what is
    mounted, None: what the system says. Raises OSError where the marks cannot be read or removed.
    """
    marks = Marks(dir_fd, now)
    if not _is_anything(marks):
        return []
    try:
        with contextlib.nullcontext() if alone else held(path, dir_fd):
            return list(_renew_all(dir_fd, marks))
    except StoreBusyError:
        why = "a service is using the store: run verify once without it"
    except StartError as error:
        why = str(error)
    return [_found(mark, why) for mark in marks.standing()]


def is_anything_unflushed(dir_fd: int) -> bool:
    """Whether there is anything for `renew` to look at. Raises OSError."""
    return _is_anything(Marks(dir_fd))


def _is_anything(marks: Marks) -> bool:
    return bool(marks.left() or marks.begun())


def finish(dir_fd: int) -> list[Mark]:
    """Finish what a `renew` that was cut off began; returns the marks that are lifted by that.

    The store's lock is held. Before that, what lies in such a folder may be missed. Raises OSError.
    """
    return _finish_all(dir_fd, Marks(dir_fd))


def _finish_all(dir_fd: int, marks: Marks) -> list[Mark]:
    lifted = []
    for mark in _outermost_first(marks):
        if marks.is_begun(mark):
            with _anew(dir_fd) as anew_fd:
                done = _finish(dir_fd, anew_fd, marks, mark)
            if done:
                marks.lift(mark)
                lifted.append(mark)
    # Then those around them are where they belong, so their paths can be found.
    _finish_unmarked(dir_fd, marks)
    return lifted


def _finish_unmarked(dir_fd: int, marks: Marks) -> None:
    """Go on with what is begun and has no mark that can be read, and mark it once more.

    Whether both folders are exchanged nobody knows, so nothing is removed, and what is at the path
    is in doubt. Raises OSError, also where no path has such a name.
    """
    done: set[str] = set()
    # Each one may hold the folder of another one. With too many marks it gets none of its own.
    while wanted := _unmarked(dir_fd, marks) - done:
        path = next((path for path in _folders(dir_fd) if path_name(path) in wanted), None)
        if path is None:
            with own_folder(ANEW, dir_fd) as anew_fd:
                lost = min(one for one in names_in(anew_fd) if one.partition(".")[0] in wanted)
            why = "no folder is there that it was begun for"
            raise OSError(errno.ENOENT, why, f"{ANEW}/{lost}")
        mark = Mark(what="folder", path=path, inode=status_at(path, dir_fd).st_ino)
        with _anew(dir_fd) as anew_fd:
            with contextlib.suppress(FileNotFoundError):
                _put_aside(anew_fd, mark_name(mark))
            if not marks.is_over(path):
                marks.leave("folder", path, 0)
            _finish(dir_fd, anew_fd, marks, mark)
        done.add(mark_name(mark))


def _folders(dir_fd: int) -> Iterator[str]:
    return (path for path, is_folder in _paths(dir_fd, "") if is_folder)


def _unmarked(dir_fd: int, marks: Marks) -> set[str]:
    """The names of what is begun and has no mark that can be read; empty ones are removed."""
    known = {mark_name(mark) for mark in marks.left() if mark.what == "folder"}
    found = {name for name in marks.begun() - known if _OF_A_PATH.fullmatch(name)}
    if not found:
        return found
    with _anew(dir_fd) as anew_fd:
        for name in names_in(anew_fd):
            if name.partition(".")[0] in found:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=anew_fd)
    return found & marks.begun()


def _renew_all(dir_fd: int, marks: Marks) -> Iterator[Finding]:
    """One after the other, so that never more than one is begun and can go on."""
    failed = ""
    marks.restate()
    try:
        for mark in _finish_all(dir_fd, marks):
            yield made_anew(mark)
    except OSError as error:
        failed = f"what was begun cannot be made anew ({reason_for(error)}): {_CHECK}"
        if not marks.standing():
            where = error.filename or ""
            yield Finding(Kind.UNFLUSHED, where if where.startswith(ANEW) else ANEW, failed)
    else:
        # Not before: a folder that is not at its path yet would seem to be gone.
        with contextlib.suppress(OSError):
            _find_paths(dir_fd, marks)
    standing = {mark.name for mark in marks.standing()}
    for mark in _outermost_first(marks):
        if mark.name not in standing:
            continue
        if mark.what != "folder" or not mark.path:
            yield _found(mark, _OTHERWISE.get(mark.what, LIFTED_BY))
        elif failed:
            yield _found(mark, failed)
        else:
            try:
                done = _renew(dir_fd, marks, mark)
            except OSError as error:
                failed = (
                    f"it, or one before it, cannot be made anew ({reason_for(error)}): {_CHECK}"
                )
                yield _found(mark, failed)
            else:
                if done:
                    yield made_anew(mark)
                else:
                    yield _found(mark, f"nor could the new one, or the one around it: {_AGAIN}")
    if not failed:
        marks.clear()


def _find_paths(dir_fd: int, marks: Marks) -> None:
    """Find out what marks that cannot be read were left for: their names are made from its path.

    One whose path leads to nothing any more goes, as any other mark of it. Raises OSError.
    """
    wanted = {
        mark.name.partition(".")[0]: mark for mark in marks.left() if mark.unread or not mark.boot
    }
    wanted = {name: mark for name, mark in wanted.items() if _OF_A_PATH.fullmatch(name)}
    if not wanted:
        return
    for path, is_folder in itertools.chain([("", True)], _paths(dir_fd, "")):
        mark = wanted.pop(path_name(path), None)
        if mark is not None:
            marks.leave("folder" if is_folder else "file", path, 0)
            if any(one.name == mark.name and one.unread for one in marks.left()):
                # There are too many, and all folders have a mark.
                marks.lift(mark)
        if not wanted:
            return
    for mark in wanted.values():
        marks.lift(mark)


def _paths(dir_fd: int, folder: str) -> Iterator[tuple[str, bool]]:
    """All files and folders below a folder, each with whether it is one. Raises OSError."""
    with read_folder(dir_fd, folder or ".") as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            yield path, is_folder
            if is_folder:
                yield from _paths(dir_fd, path)


def _outermost_first(marks: Marks) -> list[Mark]:
    """So that a folder is at its path, and that path sure, before it is made anew itself."""
    return sorted(marks.left(), key=lambda mark: mark.path.count("/"))


def made_anew(mark: Mark) -> Finding:
    """That a folder was made anew, so that its mark is lifted."""
    return _found(mark, _UNSURE, settled=_MADE)


def _found(mark: Mark, why: str, settled: str = "") -> Finding:
    if mark.unreadable:
        return Finding(Kind.UNFLUSHED, f"{UNFLUSHED}/{mark.name}", mark.unreadable)
    error = reason_for(mark.error) if mark.error else "why was not kept"
    return Finding(
        Kind.UNFLUSHED, mark.path or ".", f"{_WHAT[mark.what]} ({error}); {why}", settled
    )


_WHAT: Final = {
    "file": "it could not be flushed",
    "folder": "it could not be flushed",
    "all folders": "too many folders could not be flushed",
    "file system": "the file system could not be flushed",
}


def _renew(dir_fd: int, marks: Marks, mark: Mark) -> bool:
    """Whether it is through; else it waits for the folder around it. Raises OSError."""
    with _anew(dir_fd) as anew_fd:
        if marks.is_same(mark):
            _exchange(dir_fd, anew_fd, mark)
        done = _finish(dir_fd, anew_fd, marks, mark)
    if done:
        marks.lift(mark)
    return done


def _exchange(dir_fd: int, anew_fd: int, mark: Mark) -> None:
    """Steps 1 and 2. Raises OSError, and nothing is exchanged."""
    name = mark_name(mark)
    _discard(anew_fd, name)
    make_folder(name, anew_fd)
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
    try:
        os.fsync(anew_fd)
    except OSError:
        # Gone with what is in it, so that the next try has another one.
        _discard(anew_fd, name)
        raise
    with holder(mark.path, dir_fd) as (above_fd, base):
        exchange(name, base, one_dir_fd=anew_fd, other_dir_fd=above_fd)


def _finish(dir_fd: int, anew_fd: int, marks: Marks, mark: Mark) -> bool:
    """Steps 3 and 4, where the exchange is done; else remove what was begun. Raises OSError.

    False: the folder, or the one around it, is in doubt; what was set aside stays.
    """
    name = mark_name(mark)
    _set_aside(anew_fd, name, mark)
    aside = sorted(one for one in names_in(anew_fd) if one.startswith(f"{name}."))
    if not aside:
        return not marks.is_in_doubt(mark.path)
    # The old ones first: what they hold has no other name yet.
    os.fsync(anew_fd)
    is_sure = _way_to(dir_fd, marks, mark)
    with descriptor(open_folder(mark.path, dir_fd)) as new_fd:
        for one in aside:
            with descriptor(open_folder(one, anew_fd)) as old_fd:
                _link_files(old_fd, new_fd)
                _move_folders(old_fd, new_fd)
        if marks.is_in_doubt(mark.path) or not _flush(new_fd, marks, mark.path, mark.shown):
            return False
    if is_sure:
        for one in aside:
            _discard(anew_fd, one)
    return is_sure


def _set_aside(anew_fd: int, name: str, mark: Mark) -> None:
    """Give the old folder a name of its own where the exchange is done; else remove the new one."""
    try:
        there = status_at(name, anew_fd)
    except FileNotFoundError:
        return
    with descriptor(open_folder(name, anew_fd)) as fd:
        has_folders = any(_is_folder(one, fd) for one in names_in(fd))
    # A copy of a store has other inodes; what is begun has links to files alone.
    if there.st_ino == mark.inode or has_folders:
        _put_aside(anew_fd, name)
    else:
        _discard(anew_fd, name)


def _put_aside(anew_fd: int, name: str) -> None:
    """Give it a name that is its own. Raises OSError."""
    aside = f"{name}.{status_at(name, anew_fd).st_ino:x}"
    rename_noreplace(name, aside, src_dir_fd=anew_fd, dst_dir_fd=anew_fd)


def _way_to(dir_fd: int, marks: Marks, mark: Mark) -> bool:
    """Flush the name of the new folder; False: another flush would mean nothing. Raises OSError.

    If it, or a folder above it, was taken away meanwhile, it is made: others go there.
    """
    parts, shown = mark.path.split("/"), mark.shown.split("/")
    is_sure = True
    for n in range(len(parts)):
        is_made = False
        with holder("/".join(parts[: n + 1]), dir_fd) as (above_fd, name):
            with contextlib.suppress(FileExistsError):
                make_folder(name, above_fd)
                is_made = True
            if is_made or n + 1 == len(parts):
                above = "/".join(parts[:n])
                is_sure = is_sure and not marks.is_in_doubt(above)
                if is_sure:
                    is_sure = _flush(above_fd, marks, above, "/".join(shown[:n]))
    return is_sure


def _flush(fd: int, marks: Marks, path: str, shown: str) -> bool:
    """Flush a folder, or mark it: False, and another flush would mean nothing. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        marks.leave("folder", path, error.errno or 0, shown)
        return False
    return True


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


def _move_folders(old_fd: int, new_fd: int) -> None:
    """Move all folders from one folder to another. Raises OSError."""
    for one in names_in(old_fd):
        if _is_folder(one, old_fd):
            _move(one, old_fd, new_fd)


def _move(name: str, old_fd: int, new_fd: int) -> None:
    """Move a file or folder; what has its name there already stays, and gets it inside or beside.

    So nothing is lost: whoever did not find the folder at its path may have made it. Raises OSError
    (EEXIST): all names beside it are taken.
    """
    try:
        rename_noreplace(name, name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
    except FileExistsError:
        if _is_folder(name, old_fd) and _is_folder(name, new_fd):
            with (
                descriptor(open_folder(name, old_fd)) as inside_fd,
                descriptor(open_folder(name, new_fd)) as into_fd,
            ):
                for one in names_in(inside_fd):
                    _move(one, inside_fd, into_fd)
                os.fsync(into_fd)
            os.rmdir(name, dir_fd=old_fd)
        elif os.path.samestat(_about(name, old_fd), _about(name, new_fd)):
            os.unlink(name, dir_fd=old_fd)
        else:
            _move_beside(name, old_fd, new_fd)


def _move_beside(name: str, old_fd: int, new_fd: int) -> None:
    """Move what a name is taken for; as another version of it, which `verify` finds."""
    for version in _VERSIONS:
        with contextlib.suppress(FileExistsError):
            rename_noreplace(name, f"{name}~{version}", src_dir_fd=old_fd, dst_dir_fd=new_fd)
            return
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), f"{name}~{_VERSIONS[-1]}")


def _about(name: str, dir_fd: int) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _is_folder(name: str, dir_fd: int) -> bool:
    return stat.S_ISDIR(_about(name, dir_fd).st_mode)


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

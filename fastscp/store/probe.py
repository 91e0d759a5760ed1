"""What the file system of a store can do, found out by trying it."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.errors import StartError
from fastscp.store.nameless import FAST_COMMITS, NO_JOURNAL, find_way
from fastscp.store.names import (
    FILE_MODE,
    FOLDER_MODE,
    INCOMING,
    PROBE,
    descriptor,
    flush_folder,
    home,
    names_in,
    open_folder,
)

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Facts", "RenameNoReplace", "cannot_be_stable", "probe", "refuse_another_file_system"]

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


class RenameNoReplace(Protocol):
    """A rename that raises FileExistsError rather than replace; OSError where it cannot promise."""

    def __call__(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None: ...


@dataclass(frozen=True)
class Facts:
    """What the file system can do.

    noreplace: a rename that never replaces; without it instances get their names by link and
    unlink. directory_flush: whether a name can be made to survive a power cut. file_system: as
    `/proc/mounts` calls it, or "unknown". warnings: for the log. nameless: how a part that is
    written at once gets its name, as `fastscp_ext.nameless_way` has it; 0: each has a name first.
    """

    file_system: str
    noreplace: bool
    link: bool
    directory_flush: bool
    warnings: tuple[str, ...]
    nameless: int = 0


def probe(
    path: Path, dir_fd: int, durabilities: Collection[str], rename_noreplace: RenameNoReplace
) -> Facts:
    """Try what receiving relies on, in a folder of its own. Raises StartError if it cannot work."""
    name = PROBE.rpartition("/")[2]
    file_system = _file_system(path)
    with home(dir_fd) as home_fd:
        # Left-overs of a probe that was killed are nobody's: we hold the store's lock.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=home_fd)
        with descriptor(open_folder(name, home_fd)) as probe_fd:
            try:
                _refuse_root(path, home_fd, probe_fd)
                _empty(probe_fd)
                noreplace = _can_noreplace(probe_fd, rename_noreplace)
                link = _can_link(probe_fd)
                found = find_way(probe_fd, file_system)
                flush = flush_folder(probe_fd)
            finally:
                _empty(probe_fd)
                os.rmdir(name, dir_fd=home_fd)

    if not (noreplace or link):
        raise StartError(
            f"the file system of {path} can neither rename without replacing nor link, so an "
            f"instance could overwrite another; put the store on another file system"
        )
    if not flush and "stable" in durabilities:
        raise StartError(cannot_be_stable(path))
    warnings = []
    if file_system in _IN_MEMORY and "stable" in durabilities:
        warnings.append(
            f"{path} is on {file_system}, in memory: --durability stable cannot keep anything "
            f"there across a restart of this machine"
        )
    if found.kind in (NO_JOURNAL, FAST_COMMITS) and "stable" in durabilities:
        warnings.append(
            f"{path} is on {found.kind}: Linux may lose there what it has flushed, so a power cut "
            f"may take stable instances; put the store on ext4 with a journal and without fast "
            f"commits, or on xfs"
        )
    return Facts(file_system, noreplace, link, flush, tuple(warnings), found.way)


def cannot_be_stable(path: Path) -> str:
    """Why stable is refused where `Facts.directory_flush` is not, for an operator."""
    return (
        f"the file system of {path} cannot flush a directory, so nothing stored there is sure to "
        f"survive a power cut; put the store on another one, or use --durability buffered"
    )


def refuse_another_file_system(path: Path, dir_fd: int) -> None:
    """Raise StartError where no part can get its name: a mount or a subvolume lies in between."""
    # The system looks at the mounts before it looks for the name; subvolumes differ in the device.
    nothing = str(uuid.uuid4())
    with descriptor(open_folder(INCOMING, dir_fd)) as incoming_fd:
        apart = os.fstat(incoming_fd).st_dev != os.fstat(dir_fd).st_dev
        try:
            os.rename(nothing, nothing, src_dir_fd=incoming_fd, dst_dir_fd=dir_fd)
        except OSError as error:
            apart = apart or error.errno == errno.EXDEV
    if apart:
        raise StartError(
            f"{path / INCOMING} is on another file system, mount or subvolume than {path}, so no "
            f"instance could be moved from there to its name; let both be on the same one"
        )


def _refuse_root(path: Path, home_fd: int, probe_fd: int) -> None:
    """Raise StartError where root would leave files in the store of another user."""
    theirs = os.fstat(home_fd).st_uid
    if os.geteuid() == 0 and os.fstat(probe_fd).st_uid != theirs:
        raise StartError(
            f"{path} is the store of uid {theirs}, and this runs as root: that user could not "
            f"write into the folders it would make; start it as uid {theirs}, or give the store "
            f"to root for good (chown -R 0:0 {path})"
        )


def _create(name: str, dir_fd: int) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=dir_fd))


def _can_noreplace(probe_fd: int, rename_noreplace: RenameNoReplace) -> bool:
    _create("a", probe_fd)
    _create("b", probe_fd)
    try:
        rename_noreplace("a", "b", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except FileExistsError:
        pass
    except OSError:
        return False
    else:
        return False  # it replaced
    try:
        rename_noreplace("a", "c", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except OSError:
        return False
    return names_in(probe_fd) == {"b", "c"}


def _can_link(probe_fd: int) -> bool:
    _create("d", probe_fd)
    try:
        os.link("d", "e", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
        os.link("d", "e", src_dir_fd=probe_fd, dst_dir_fd=probe_fd)
    except FileExistsError:
        return os.stat("d", dir_fd=probe_fd).st_ino == os.stat("e", dir_fd=probe_fd).st_ino
    except OSError:
        return False
    return False  # the second link must be refused


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`: the longest mount point above it, latest."""
    wanted = path.resolve()
    best, kind = -1, "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return kind
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks and backslashes stand in octal there.
        point = fields[1]
        for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(octal, char)
        depth = len(Path(point).parts)
        if wanted.is_relative_to(point) and depth >= best:
            best, kind = depth, fields[2]
    return kind


def _empty(dir_fd: int) -> None:
    for name in names_in(dir_fd):
        os.unlink(name, dir_fd=dir_fd)

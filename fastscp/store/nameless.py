"""Whether a part may go without a name until it gets its path.

Such a part is flushed, or written by the system when it likes, with no link to it; the link comes
later. So a power cut may leave a file on the disk that no name leads to, and what was flushed has
to be there when the name is. Not every file system keeps to that:

- btrfs flushes nothing of a file without a name.
- ext4 with fast commits writes a file without a name to its log, and refuses to replay that: after
  a power cut nobody can mount it before it was checked.
- ext4 without a journal does not flush the count of links with a name: after a power cut the name
  leads to a file that counts as deleted.

Elsewhere only closing may tell of an error, and a part without a name is closed when it has one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from fastscp.store.mounts import device_of
from fastscp.store.names import FILE_MODE, descriptor
from fastscp_ext import nameless_way

__all__ = ["FAST_COMMITS", "NO_JOURNAL", "Found", "find_way"]

_FILE_SYSTEMS: Final = frozenset({"ext4", "xfs", "tmpfs"})
_EXT4: Final = Path("/proc/fs/ext4")
# Only with a journal one of the modes in which it works is among the options of an ext4.
_JOURNAL: Final = re.compile(r"^data=", re.MULTILINE)
# Nothing but these counts tells of fast commits. One may be left out where others flush as well.
_FAST_COMMITS: Final = re.compile(r"^[1-9]\d* (?:commits|ineligible)$", re.MULTILINE)
_FLUSHES: Final = 3
NO_JOURNAL: Final = "ext4 without a journal"
FAST_COMMITS: Final = "ext4 with fast commits"
# What `nameless_way` gives its file.
_BARE: Final = "f"


class Found(NamedTuple):
    """way: how parts without a name get one, as `fastscp_ext.nameless_way` has it; 0: in none.

    kind: of file system, and of an ext4 also what it lacks; None: nobody tells of that.
    """

    way: int
    kind: str | None


def find_way(folder_fd: int, file_system: str) -> Found:
    """Find out whether parts may go without a name. Blocks on the disk.

    Leaves files in the folder, which is for that. file_system: what the folder is on. What cannot
    be found out counts against it.
    """
    kind = _kind_of_ext4(folder_fd) if file_system == "ext4" else file_system
    if kind not in _FILE_SYSTEMS:
        return Found(0, kind)
    way = nameless_way(folder_fd)
    return Found(way if way and _has_usual_rights(folder_fd) else 0, kind)


def _kind_of_ext4(folder_fd: int) -> str | None:
    """Whether it has a journal, and no fast commits; None: nobody tells."""
    try:
        about = _EXT4 / device_of(folder_fd)
        if not _JOURNAL.search((about / "options").read_text("ascii")):
            return NO_JOURNAL
        for _ in range(_FLUSHES):
            _flush_something(folder_fd)
        try:
            counts = (about / "fc_info").read_text("ascii")
        except FileNotFoundError:
            # Linux before 5.10 makes none.
            return "ext4"
    except OSError:
        return None
    return FAST_COMMITS if _FAST_COMMITS.search(counts) else "ext4"


def _has_usual_rights(folder_fd: int) -> bool:
    """Whether the file that got a name later has the rights of one that was made with a name.

    Before Linux 6.0 a file system that knows no ACLs leaves the umask out.
    """
    flags = os.O_WRONLY | os.O_CREAT
    try:
        with descriptor(os.open("named", flags, FILE_MODE, dir_fd=folder_fd)) as fd:
            named = os.fstat(fd)
        bare = os.stat(_BARE, dir_fd=folder_fd)
    except OSError:
        return False
    return (bare.st_mode, bare.st_uid, bare.st_gid) == (named.st_mode, named.st_uid, named.st_gid)


def _flush_something(folder_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with descriptor(os.open("flushed", flags, FILE_MODE, dir_fd=folder_fd)) as fd:
        os.write(fd, b"0")
        os.fsync(fd)

"""Files that trust hangs on, as of users, tokens and keys: read whole, bounded, and guarded.

Guarded is a file that nobody else can change, neither by its own mode nor by that of its folder.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FILE_MOST", "read_guarded", "read_plain", "told"]

# What a file may hold: some 8,000 passwords.
FILE_MOST: Final = 1 << 20
# Mistakes of a file that are told.
_MISTAKES_SHOWN: Final = 5


def read_guarded(path: Path, give: str) -> tuple[bytes, os.stat_result, str]:
    """What is in a file that nobody else may change, what it is, and what is to be told of it.

    It is at most a byte more than `FILE_MOST`. give: what to do where it cannot be read. Raises
    ValueError, which names the file and why.
    """
    try:
        data, about = read_plain(path)
        open_folder = _open_folder(path)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ValueError(f"cannot read {path} ({why}); {give}") from None
    if about.st_mode & _OTHERS_WRITE:
        raise ValueError(
            f"{path} may be changed by others (mode {stat.S_IMODE(about.st_mode):04o}), who could "
            f"let themselves in: take that away (chmod go-w)"
        )
    if open_folder is not None:
        raise ValueError(
            f"{path} is in a folder that everybody may change ({open_folder}), and put another "
            f"file in its place: take that away (chmod o-w)"
        )
    warning = ""
    if about.st_uid not in (0, os.geteuid()):
        warning = f"{path} is of user {about.st_uid}, who can change it and let anybody in"
    return data, about, warning


_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def _open_folder(path: Path) -> Path | None:
    """The folder in which everybody may put another file in the place of this one; None: none.

    Of a symbolic link its own counts, too. Raises OSError.
    """
    for folder in (path.parent, Path(os.path.realpath(path)).parent):
        mode = folder.stat().st_mode
        # As in /tmp, a sticky folder lets only the owner of a name take it away.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return folder
    return None


def read_plain(path: Path, most: int = FILE_MOST) -> tuple[bytes, os.stat_result]:
    """What is in a file, at most a byte more than `most`, and what it is.

    Raises OSError, also for what is no file, and ValueError for what can be none's name.
    """
    # A FIFO would have whoever opens it wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = b""
        while len(data) <= most and (more := os.read(fd, most + 1 - len(data))):
            data += more
        return data, about
    finally:
        os.close(fd)


def told(mistakes: Sequence[str]) -> str:
    """The first few mistakes of a file, and how many there are besides."""
    more = len(mistakes) - _MISTAKES_SHOWN
    return "; ".join(mistakes[:_MISTAKES_SHOWN]) + (f"; and {more} more" if more > 0 else "")

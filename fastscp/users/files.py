"""Files that say who may log in: read whole, bounded, and only where others cannot change them."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FILE_MOST", "read_guarded", "read_plain", "told"]

# What a file may hold: some 8,000 passwords.
FILE_MOST: Final = 1 << 20
# Mistakes of a file that are told.
_MISTAKES_SHOWN: Final = 5


def read_guarded(path: Path, give: str) -> tuple[bytes, int]:
    """What is in a file that nobody else may change, and its mode.

    It is at most a byte more than `FILE_MOST`. give: what to do where it cannot be read. Raises
    ValueError, which names the file and why.
    """
    try:
        data, mode = read_plain(path)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ValueError(f"cannot read {path} ({why}); {give}") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"{path} may be changed by others (mode {mode:04o}), who could let themselves in: take "
            f"that away (chmod go-w)"
        )
    return data, mode


def read_plain(path: Path) -> tuple[bytes, int]:
    """What is in a file, at most a byte more than `FILE_MOST`, and its mode.

    Raises OSError, also for what is no file, and ValueError for what can be none's name.
    """
    # A FIFO would have whoever opens it wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = b""
        while len(data) <= FILE_MOST and (more := os.read(fd, FILE_MOST + 1 - len(data))):
            data += more
        return data, stat.S_IMODE(about.st_mode)
    finally:
        os.close(fd)


def told(mistakes: Sequence[str]) -> str:
    """The first few mistakes of a file, and how many there are besides."""
    more = len(mistakes) - _MISTAKES_SHOWN
    return "; ".join(mistakes[:_MISTAKES_SHOWN]) + (f"; and {more} more" if more > 0 else "")

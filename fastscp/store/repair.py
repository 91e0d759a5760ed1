"""Journal files with damaged lines replaced by ones without. The store's lock is held."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from fastscp.store.journal import parse_line, whole_lines
from fastscp.store.names import JOURNAL, descriptor, flush_folder, make_file, open_file, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["repair"]


def repair(dir_fd: int, segments: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Replace each of these journal files by its whole lines.

    Gives the name of each, and the path of the file that has all its lines now. Raises OSError.
    """
    with descriptor(open_folder(JOURNAL, dir_fd)) as folder_fd:
        for name in segments:
            yield name, f"{JOURNAL}/{_rewrite(folder_fd, name)}"


def _rewrite(folder_fd: int, name: str) -> str:
    """Leave the whole lines of a journal file under its name; returns where all its lines are now.

    At every moment its whole lines have the name. Raises OSError, and it is as it was.
    """
    new = f"{name}.new"
    # A repair that was killed may have left this name. It is removed, not opened: it may be a link.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder_fd)
    kept_fd, kept = _create_beside(folder_fd, name)
    try:
        with (
            os.fdopen(kept_fd, "wb") as original,
            os.fdopen(open_file(name, folder_fd), "rb") as old,
            os.fdopen(make_file(new, folder_fd), "wb") as file,
        ):
            shutil.copyfileobj(old, original)
            old.seek(0)
            for line, _size in whole_lines(old):
                whole = line.rstrip(b"\n")
                if parse_line(whole) is not None:
                    file.write(whole + b"\n")
            for written in (original, file):
                written.flush()
                os.fsync(written.fileno())
        flush_folder(folder_fd)
        os.rename(new, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        flush_folder(folder_fd)
    except OSError:
        for left in (new, kept):
            with contextlib.suppress(OSError):
                os.unlink(left, dir_fd=folder_fd)
        raise
    return kept


def _create_beside(folder_fd: int, damaged: str) -> tuple[int, str]:
    """A new file for a damaged one, under a name that no reader takes for a part of the journal."""
    number = 1
    while True:
        name = f"{damaged}.damaged" if number == 1 else f"{damaged}.damaged{number}"
        try:
            return make_file(name, folder_fd), name
        except FileExistsError:
            number += 1

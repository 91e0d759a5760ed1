"""Journal files with damaged lines replaced by ones without. The store's lock is held."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastscp.store.journal import parse_line
from fastscp.store.names import FILE_MODE, JOURNAL, flush_folder_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastscp.store.findings import Finding

__all__ = ["repair"]


def repair(dir_fd: int, damaged: Iterable[Finding]) -> Iterator[Finding]:
    """Replace each journal file that has a damaged line by its whole lines."""
    kept: dict[str, str] = {}
    for finding in damaged:
        if finding.path not in kept:
            kept[finding.path] = _rewrite(dir_fd, finding.path)
        yield replace(finding, settled=f"repaired, the original is {kept[finding.path]}")


def _rewrite(dir_fd: int, path: str) -> str:
    """Leave the whole lines of a journal file under its name; returns where all its lines are now.

    At every moment its whole lines have the name. Raises OSError, and it is as it was.
    """
    new = f"{path}.new"
    kept_fd, kept = _create_beside(dir_fd, path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with (
            os.fdopen(kept_fd, "wb") as original,
            os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd), "rb") as old,
            os.fdopen(os.open(new, flags, FILE_MODE, dir_fd=dir_fd), "wb") as file,
        ):
            for line in old:
                original.write(line)
                whole = line.rstrip(b"\n")
                if parse_line(whole) is not None:
                    file.write(whole + b"\n")
            for written in (original, file):
                written.flush()
                os.fsync(written.fileno())
        flush_folder_at(dir_fd, JOURNAL)
        os.rename(new, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        flush_folder_at(dir_fd, JOURNAL)
    except OSError:
        for name in (new, kept):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)
        raise
    return kept


def _create_beside(dir_fd: int, path: str) -> tuple[int, str]:
    """A new file for a damaged one, under a name that no reader takes for a part of the journal."""
    number = 1
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        name = f"{path}.damaged" if number == 1 else f"{path}.damaged{number}"
        try:
            return os.open(name, flags, FILE_MODE, dir_fd=dir_fd), name
        except FileExistsError:
            number += 1

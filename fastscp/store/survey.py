"""A look at a store before it is used: does it hold instances, and links that lead nowhere for us?

Bounded: a store of a million studies is looked at as long as one of a thousand.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import TYPE_CHECKING, Final

from fastscp.store.journal import segment_names
from fastscp.store.names import HOME, IDENTITY, JOURNAL, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.store.identity import Identity

__all__ = ["first_instance", "links", "missing"]

# Directories and their entries looked at, of all together.
_LOOKS: Final = 10_000
_LINKS_NAMED: Final = 5
_INSTANCE: Final = re.compile(r"\.dcm(?:\.zst)?(?:~[2-9])?\Z")
_NOT_OURS: Final = frozenset({HOME, "lost+found"})


def missing(dir_fd: int, identity: Identity | None) -> tuple[str, ...]:
    """What of store.toml and the journal is missing; a store that holds instances needs both.

    identity: what store.toml says, None if it is not there. Raises OSError.
    """
    parts = []
    if identity is None:
        parts.append(IDENTITY)
    try:
        if not segment_names(dir_fd):
            parts.append(f"file in {JOURNAL}")
    except FileNotFoundError:
        parts.append(JOURNAL)
    return tuple(parts)


def first_instance(dir_fd: int) -> str | None:
    """The path of some file that has the name of an instance; None: none was met in time."""
    looks = _LOOKS
    # The deepest first: instances are at the ends of the ways.
    folders = [""]
    while folders and looks > 0:
        folder = folders.pop()
        # One for opening it: folders may be empty.
        looks -= 1
        for name, is_folder in _entries(dir_fd, folder, looks):
            looks -= 1
            path = f"{folder}/{name}" if folder else name
            if name in _NOT_OURS or is_folder is None:
                continue
            if is_folder:
                folders.append(path)
            elif _INSTANCE.search(name):
                return path
    return None


def _entries(dir_fd: int, folder: str, most: int) -> Iterator[tuple[str, bool | None]]:
    """Names in a folder, each with whether it is one, None for a link; at most so many.

    Nothing of what cannot be read.
    """
    with contextlib.suppress(OSError), read_folder(dir_fd, folder or ".") as entries:
        for entry in itertools.islice(entries, max(0, most)):
            is_link = entry.is_symlink()
            yield entry.name, None if is_link else entry.is_dir(follow_symlinks=False)


def links(dir_fd: int) -> tuple[str, ...]:
    """Symbolic links at the top of a store, the first few. Raises OSError."""
    found: list[str] = []
    with read_folder(dir_fd) as entries:
        for entry in itertools.islice(entries, _LOOKS):
            if entry.is_symlink():
                found.append(entry.name)
            if len(found) == _LINKS_NAMED:
                break
    return tuple(found)

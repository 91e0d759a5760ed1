"""A look at a store before it is used: does it hold instances, and links that lead nowhere for us?

Bounded: a store of a million studies is looked at as long as one of a thousand.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from fastscp.store.journal import segment_names
from fastscp.store.names import HOME, IDENTITY, JOURNAL, read_folder

if TYPE_CHECKING:
    from fastscp.store.identity import Identity

__all__ = ["first_instance", "links", "look", "missing"]

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
    return look(dir_fd, "")[0]


def look(dir_fd: int, start: str) -> tuple[str | None, bool]:
    """The first instance met below a folder, and whether all was looked at without one."""
    looks = _LOOKS
    is_whole = True
    # The deepest first: instances are at the ends of the ways.
    folders = [start]
    while folders and looks > 0:
        folder = folders.pop()
        # One for opening it: folders may be empty.
        looks -= 1
        try:
            with read_folder(dir_fd, folder or ".") as entries:
                for entry in itertools.islice(entries, looks):
                    looks -= 1
                    if entry.name in _NOT_OURS or entry.is_symlink():
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif _INSTANCE.search(entry.name):
                        return path, False
        except FileNotFoundError:
            continue
        except OSError:
            is_whole = False
    return None, is_whole and looks > 0


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

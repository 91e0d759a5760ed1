"""Which files to send: folders, globs, and what in them is DICOM."""

from __future__ import annotations

import glob
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from fastscp.errors import ConfigError
from fastscp.scu.errors import UnusableInstance
from fastscp.scu.heads import Head, read_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["File", "Finder", "Found", "paths_of"]

# A DICOMDIR is Part 10, but no instance (PS3.10 8.6).
_DIRECTORY: Final = "1.2.840.10008.1.3.10"

# Its path, as the system takes it, and what its head says.
File: TypeAlias = "tuple[bytes, Head]"


@dataclass
class Found:
    """files: to be sent. skipped: files that are not DICOM. failed: path and reason."""

    files: list[File] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)


class Finder:
    """Looks at the files that the arguments name, in a stable order, as far as it is asked to.

    seen: files looked at. complete: there are no more.
    Raises ConfigError at once for an argument that names nothing.
    """

    def __init__(self, arguments: Iterable[str]) -> None:
        self._paths = paths_of(arguments)
        self.seen = 0
        self.complete = False

    def look(self, found: Found, most: int, seconds: float) -> None:
        """Look at so many files, or for so long, and note what they are."""
        until = time.monotonic() + seconds
        last = self.seen + most
        while self.seen < last and time.monotonic() < until:
            path = next(self._paths, None)
            if path is None:
                self.complete = True
                return
            self.seen += 1
            _look_at(path, found)


def paths_of(arguments: Iterable[str]) -> Iterator[bytes]:
    """The files that the arguments name, folders searched to their depths, in a stable order.

    Raises ConfigError at once for an argument that names nothing; folders are read later.
    """
    return _files([name for argument in arguments for name in _named(argument)])


def _named(argument: str) -> list[str]:
    if Path(argument).exists():
        return [argument]
    # A shell that found no match passes the pattern on, and some shells never look.
    names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - absolute ones too
    if not names:
        raise ConfigError("PATH", f"there is no {argument!r}; give files, folders or globs")
    return names


def _files(names: list[str]) -> Iterator[bytes]:
    for name in names:
        if Path(name).is_dir():
            yield from _below(os.fsencode(name))
        else:
            yield os.fsencode(name)


def _below(folder: bytes) -> Iterator[bytes]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        files.sort()
        # To join each of them costs more than the rest.
        start = os.path.join(root, b"")  # noqa: PTH118
        for name in files:
            yield start + name


def _look_at(path: bytes, found: Found) -> None:
    """Read the head of a file and note what it is."""
    try:
        head = read_head(path)
    except OSError as error:
        found.failed.append((path, f"cannot be read: {error.strerror}"))
    except UnusableInstance as error:
        found.failed.append((path, str(error)))
    else:
        if head is None or head.sop_class == _DIRECTORY:
            found.skipped += 1
        else:
            found.files.append((path, head))

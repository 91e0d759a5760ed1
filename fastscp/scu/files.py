"""Which files to send: folders, globs, and what in them is DICOM."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.errors import ConfigError
from fastscp.scu.errors import UnusableInstance
from fastscp.scu.heads import Head, read_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Found", "look_at", "paths_of"]

# A DICOMDIR is Part 10, but no instance (PS3.10 8.6).
_DIRECTORY: Final = "1.2.840.10008.1.3.10"


@dataclass
class Found:
    """files: to be sent. skipped: files that are not DICOM. failed: path and reason."""

    files: list[tuple[str, Head]] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def paths_of(arguments: Iterable[str]) -> Iterator[str]:
    """The files that the arguments name, folders searched to their depths, in a stable order.

    Raises ConfigError for an argument that names nothing.
    """
    for argument in arguments:
        path = Path(argument)
        if path.exists():
            names = [argument]
        else:
            # A shell that found no match passes the pattern on, and some shells never look.
            names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - absolute ones too
            if not names:
                raise ConfigError("PATH", f"there is no {argument!r}; give files, folders or globs")
        for name in names:
            if Path(name).is_dir():
                yield from _below(name)
            else:
                yield name


def _below(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield os.path.join(root, name)  # noqa: PTH118 - a Path each costs more than the rest


def look_at(path: str, found: Found) -> None:
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

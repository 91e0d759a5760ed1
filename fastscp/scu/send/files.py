"""Which files to send: folders, globs, and what in them is DICOM."""

from __future__ import annotations

import glob
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fastscp.errors import ConfigError
from fastscp.log import printable
from fastscp.scu.errors import UnusableInstance
from fastscp.scu.heads import Head, read_head
from fastscp.store.names import HOME, OWN, is_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["File", "Finder", "Found", "paths_of"]

log = logging.getLogger("fastscp.send")

# A DICOMDIR is Part 10, but no instance (PS3.10 8.6).
_DIRECTORY: Final = "1.2.840.10008.1.3.10"

_OWN_NAME: Final = os.fsencode(HOME)

# Its path, as the system takes it, and what its head says.
File: TypeAlias = "tuple[bytes, Head]"


# A path, of a file or a folder, and why it could not be read.
_Failed: TypeAlias = "tuple[bytes, str]"


@dataclass
class Found:
    """files: to be sent. skipped: files that are not DICOM. failed: path and reason."""

    files: list[File] = field(default_factory=list)
    skipped: int = 0
    failed: list[_Failed] = field(default_factory=list)


class Finder:
    """Looks at the files that the arguments name, in a stable order, as far as it is asked to.

    seen: files looked at. complete: there are no more.
    Raises ConfigError at once for an argument that names nothing.
    """

    def __init__(self, arguments: Iterable[str]) -> None:
        self._unread: list[_Failed] = []
        self._paths = paths_of(arguments, self._unread)
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
                break
            self.seen += 1
            _look_at(path, found)
        found.failed += self._unread
        self._unread.clear()


def paths_of(arguments: Iterable[str], unread: list[_Failed]) -> Iterator[bytes]:
    """The files that the arguments name, folders searched to their depths, in a stable order.

    unread: gets the folders that cannot be read, and what belongs to a service's own folder. Such a
    folder below a named one is passed over. Raises ConfigError at once for an argument that names
    nothing; folders are read later.
    """
    return _files([name for argument in arguments for name in _named(argument)], unread)


def _named(argument: str) -> list[str]:
    try:
        os.stat(argument)  # noqa: PTH116 - pathlib's has nothing to add
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        # It may be there: whoever reads it will say what is wrong.
        return [argument]
    else:
        return [argument]
    # A shell that found no match passes the pattern on, and some shells never look.
    names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - absolute ones too
    if not names:
        raise ConfigError("PATH", f"there is no {argument!r}; give files, folders or globs")
    return names


def _files(names: list[str], unread: list[_Failed]) -> Iterator[bytes]:
    own: dict[str, bool] = {}
    for name in names:
        if _belongs_to_service(name, own):
            unread.append((os.fsencode(name), OWN))
        elif os.path.isdir(name):  # noqa: PTH112 - pathlib's raises where it may not look
            yield from _below(os.fsencode(name), unread)
        else:
            yield os.fsencode(name)


def _belongs_to_service(name: str, own: dict[str, bool]) -> bool:
    """Whether a path leads into a service's own folder. own: the folders asked about so far."""
    folder, base = os.path.split(name)
    if base in ("", ".", "..", HOME) or os.path.islink(name):  # noqa: PTH114 - as above
        return is_own(name)
    # Shells name thousands of files of one folder; to resolve a path takes many calls.
    if folder not in own:
        own[folder] = is_own(folder or ".")
    return own[folder]


def _below(top: bytes, unread: list[_Failed]) -> Iterator[bytes]:
    """Its files, then those of its folders; links to folders are not followed."""
    # Not by recursion, which ends long before the depths of a file system.
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        # To join each of them costs more than the rest.
        start = os.path.join(folder, b"")  # noqa: PTH118
        files: list[bytes] = []
        folders: list[bytes] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        if entry.is_symlink() and is_own(start + entry.name):
                            unread.append((start + entry.name, OWN))
                        else:
                            files.append(entry.name)
                    elif entry.name == _OWN_NAME:
                        own = printable(os.fsdecode(start + _OWN_NAME))
                        log.info("%s is passed over: it is a service's own folder", own)
                    elif not entry.is_symlink():
                        folders.append(entry.name)
        except OSError as error:
            unread.append((folder, f"cannot be read: {error.strerror}"))
        files.sort()
        folders.sort(reverse=True)
        for name in files:
            yield start + name
        waiting += (start + name for name in folders)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, say: to open it will tell.
        return False


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

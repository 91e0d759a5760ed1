"""Which files to send: folders, globs, and what in them is DICOM."""

from __future__ import annotations

import glob
import itertools
import logging
import os
import stat
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


# A path, of a file or a folder, and why it is not sent.
_Refused: TypeAlias = "tuple[bytes, str]"

_NOT_PART10: Final = "it is not DICOM: it has no File Meta Information (no DICM at byte 128)"
_IS_DIRECTORY: Final = "a DICOMDIR is no instance"


@dataclass
class Found:
    """files: to be sent. skipped: files in folders that are no instances. failed: what cannot be
    sent, and should be. Both with their path and the reason.
    """

    files: list[File] = field(default_factory=list)
    skipped: list[_Refused] = field(default_factory=list)
    failed: list[_Refused] = field(default_factory=list)


class Finder:
    """Looks at the files that the arguments name, in a stable order, as far as it is asked to.

    listed: further paths of files and folders, read as far as they are looked at; an empty one says
    that there are no more for now. seen: files looked at. complete: there are no more. waits: the
    last look ended because there were no more for now.
    Raises ConfigError at once for an argument that names nothing.
    """

    def __init__(self, arguments: Iterable[str], listed: Iterable[bytes] = ()) -> None:
        self._unread: list[_Refused] = []
        self._paths = itertools.chain(
            paths_of(arguments, self._unread), _listed_paths(listed, self._unread)
        )
        self.seen = 0
        self.complete = False
        self.waits = False

    def look(self, found: Found, most: int, seconds: float) -> None:
        """Look at so many files, or for so long, and note what they are."""
        until = time.monotonic() + seconds
        last = self.seen + most
        self.waits = False
        while self.seen < last and time.monotonic() < until:
            path, named = next(self._paths, (None, False))
            if path is None:
                self.complete = True
                break
            if not path:
                self.waits = True
                break
            self.seen += 1
            _look_at(path, named, found)
        found.failed += self._unread
        self._unread.clear()


def paths_of(arguments: Iterable[str], unread: list[_Refused]) -> Iterator[tuple[bytes, bool]]:
    """The files that the arguments name, folders searched to their depths, in a stable order.

    Each with whether an argument is its name: it was found in a folder, or by a pattern, otherwise.
    unread: gets the folders that cannot be read, and what belongs to a service's own folder. Such a
    folder below a named one is passed over. Raises ConfigError at once for an argument that names
    nothing; folders are read later.
    """
    return _files([name for argument in arguments for name in _meant(argument)], unread)


def _listed_paths(listed: Iterable[bytes], unread: list[_Refused]) -> Iterator[tuple[bytes, bool]]:
    """As `paths_of`, for paths of a list: none of them is a pattern, and none need be there.

    An empty path passes as it is: the list makes a pause there.
    """
    yield from _files(((os.fsdecode(path), True) for path in listed), unread)


def _meant(argument: str) -> list[tuple[str, bool]]:
    """The paths that an argument means, each with whether it is the argument itself."""
    try:
        os.stat(argument)  # noqa: PTH116 - pathlib's has nothing to add
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        # It may be there: whoever reads it will say what is wrong.
        return [(argument, True)]
    else:
        return [(argument, True)]
    # A shell that found no match passes the pattern on, and some shells never look.
    names = sorted(_matches(argument))
    if not names:
        raise ConfigError("PATH", f"there is no {argument!r}; give files, folders or globs")
    return [(name, False) for name in names]


def _matches(pattern: str) -> set[str]:
    """What a pattern matches; `**` is any number of folders, none of which is entered twice.

    Names that begin with a dot are matched by a dot alone, as in a shell. The module's own `**`
    enters a folder by every link that leads to it, without end.
    """
    before, found, after = _parted(pattern)
    if not found:
        return set(glob.glob(pattern))  # noqa: PTH207 - absolute ones too
    tops = sorted(glob.glob(before)) if before else [""]  # noqa: PTH207 - as above
    if not after:
        # A folder stands for all that is in it.
        return {top or "." for top in tops if os.path.isdir(top or ".")}  # noqa: PTH112
    matched: set[str] = set()
    entered: set[tuple[int, int]] = set()
    for top in tops:
        for folder in _folders(top, entered):
            start = os.path.join(folder, "")  # noqa: PTH118
            matched |= _matches(glob.escape(start) + after)
    return matched


def _parted(pattern: str) -> tuple[str, str, str]:
    """A pattern before and behind its first component `**`, which is "" where there is none."""
    parts = pattern.split("/")
    if "**" not in parts:
        return pattern, "", ""
    at = parts.index("**")
    before = "/".join(parts[:at])
    # Two of them in a row say no more than one.
    after = list(itertools.dropwhile(lambda part: part == "**", parts[at:]))
    return before or "/" * (at > 0), "**", "/".join(after)


def _folders(top: str, entered: set[tuple[int, int]]) -> Iterator[str]:
    """A folder ("": the current one) and those below it but for hidden ones; follows links."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            about = os.stat(folder or ".")  # noqa: PTH116 - as the caller gave it
            if not stat.S_ISDIR(about.st_mode) or (about.st_dev, about.st_ino) in entered:
                continue
            entered.add((about.st_dev, about.st_ino))
            with os.scandir(folder or ".") as entries:
                below = sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and (entry.is_dir() or entry.is_symlink())
                )
        except OSError:
            # As a shell does; whoever names the folder itself is told.
            continue
        yield folder
        start = os.path.join(folder, "")  # noqa: PTH118
        waiting += (start + name for name in reversed(below))


def _files(
    names: Iterable[tuple[str, bool]], unread: list[_Refused]
) -> Iterator[tuple[bytes, bool]]:
    own: dict[str, bool] = {}
    entered: set[tuple[int, int]] = set()
    for name, named in names:
        if not name:
            yield b"", False
        elif _belongs_to_service(name, own):
            unread.append((os.fsencode(name), OWN))
        elif os.path.isdir(name):  # noqa: PTH112 - pathlib's raises where it may not look
            for path in _below(os.fsencode(name), entered, unread):
                yield path, False
        else:
            yield os.fsencode(name), named


def _belongs_to_service(name: str, own: dict[str, bool]) -> bool:
    """Whether a path leads into a service's own folder. own: the folders asked about so far."""
    folder, base = os.path.split(name)
    if base in ("", ".", "..", HOME) or os.path.islink(name):  # noqa: PTH114 - as above
        return is_own(name)
    # Shells name thousands of files of one folder; to resolve a path takes many calls.
    if folder not in own:
        own[folder] = is_own(folder or ".")
    return own[folder]


def _below(top: bytes, entered: set[tuple[int, int]], unread: list[_Refused]) -> Iterator[bytes]:
    """Its files, then those of its folders; links to folders are followed.

    entered: device and inode of the folders that were searched; none is searched twice.
    """
    # Not by recursion, which ends long before the depths of a file system.
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if not _enter(folder, entered, unread):
            continue
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
                    elif entry.is_symlink() and is_own(start + entry.name):
                        own = printable(os.fsdecode(start + entry.name))
                        log.info("%s is passed over: it leads to a service's own folder", own)
                    else:
                        folders.append(entry.name)
        except OSError as error:
            unread.append((folder, f"cannot be read: {error.strerror}"))
        files.sort()
        folders.sort(reverse=True)
        for name in files:
            yield start + name
        waiting += (start + name for name in folders)


def _enter(folder: bytes, entered: set[tuple[int, int]], unread: list[_Refused]) -> bool:
    """Whether a folder is to be searched: it was not yet, by whatever way."""
    try:
        about = os.stat(folder)  # noqa: PTH116 - bytes
    except OSError as error:
        unread.append((folder, f"cannot be read: {error.strerror}"))
        return False
    identity = (about.st_dev, about.st_ino)
    if identity in entered:
        log.info("%s is passed over: it was searched already", printable(os.fsdecode(folder)))
        return False
    entered.add(identity)
    return True


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, say: to open it will tell.
        return False


def _why_not(path: bytes) -> str:
    """Why something that has no head is not sent."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - bytes
    except OSError:
        return _NOT_PART10
    if stat.S_ISREG(mode):
        return _NOT_PART10
    if stat.S_ISFIFO(mode):
        return "it is a named pipe, not a file"
    return f"it is a {'socket' if stat.S_ISSOCK(mode) else 'device'}, not a file"


def _look_at(path: bytes, named: bool, found: Found) -> None:
    """Read the head of a file and note what it is. named: whoever named it wants it to be sent."""
    try:
        head = read_head(path)
    except OSError as error:
        found.failed.append((path, f"cannot be read: {error.strerror}"))
    except UnusableInstance as error:
        found.failed.append((path, str(error)))
    else:
        if head is None or head.sop_class == _DIRECTORY:
            refused = found.failed if named else found.skipped
            why = _why_not(path) if head is None else _IS_DIRECTORY
            if named and head is not None:
                why += "; name the folder it lies in"
            refused.append((path, why))
        else:
            found.files.append((path, head))

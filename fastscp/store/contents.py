"""What files of the store were found to hold, as far as a worker remembers it."""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from fastscp.store.names import status_at

__all__ = ["Content", "Contents", "Identity"]

# Files whose contents are remembered by a worker; some hundred bytes each.
_REMEMBERED: Final = 4096


class Content(NamedTuple):
    """A data set. size: bytes, -1 where only reading would tell. crc: CRC-32C, None: not known."""

    transfer_syntax: bytes
    size: int
    crc: int | None = None

    def differs_in_size(self, other: Content) -> bool:
        return self.transfer_syntax != other.transfer_syntax or (
            self.size != other.size and self.size >= 0 and other.size >= 0
        )


class Identity(NamedTuple):
    """What the file system says of a file. It differs once anybody has changed the file."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, store_fd: int, path: str) -> Identity:
        found = status_at(path, store_fd)
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Contents:
    """What files of the store were found to hold, so that a difference is known without reading.

    Bounded: the files that nobody asked about for the longest time are forgotten. For all threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Identity, Content]] = {}

    def of(self, path: str, identity: Identity) -> Content | None:
        with self._lock:
            known = self._known.pop(path, None)
            if known is None or known[0] != identity:
                return None
            self._known[path] = known
            return known[1]

    def remember(self, path: str, identity: Identity, content: Content) -> None:
        with self._lock:
            self._known.pop(path, None)
            self._known[path] = (identity, content)
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]

"""The record of a disk: its writes and flushes, in order; recorder.c wrote it."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Entry", "Record"]

_HEAD: Final = struct.Struct("=IIQ")
_WRITE, _FLUSH = 1, 2


class Entry(NamedTuple):
    """end: where it ends in the record. A flush has size 0. offset: on the disk; all in bytes."""

    end: int
    offset: int
    size: int

    @property
    def is_flush(self) -> bool:
        return self.size == 0


class Record:
    """All entries, and what was written. Used as a context manager; for a record that is whole."""

    def __init__(self, log: Path) -> None:
        with log.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.entries: list[Entry] = []
        at = 0
        while at < len(self._bytes):
            kind, size, offset = _HEAD.unpack_from(self._bytes, at)
            assert (kind == _FLUSH) == (size == 0), f"the record is damaged at {at}"
            assert kind in (_WRITE, _FLUSH), f"the record is damaged at {at}"
            at += _HEAD.size + size
            self.entries.append(Entry(at, offset, size))
        assert at == len(self._bytes), "the record is cut"

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._bytes.close()

    def data(self, entry: Entry) -> bytes:
        return self._bytes[entry.end - entry.size : entry.end]

    def flushes(self) -> int:
        return sum(entry.is_flush for entry in self.entries)

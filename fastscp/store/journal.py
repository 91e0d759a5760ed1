"""The journal: one JSON line per fact, the only hand-over from receiving to everything after.

    STORE/.fastscp/journal/<start>-<writer>-<n>.jsonl

A line is an object whose last member, `crc`, is the CRC-32C (eight hex digits) of the bytes before
`,"crc"`. Files are only ever appended to. A line that is torn, or does not match its checksum, was
never acknowledged; readers pass over it.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp.store.folders import names_in
from fastscp_ext import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FOLDER",
    "Segments",
    "append_fact",
    "describes_file",
    "find_path",
    "last_sequence",
    "parse_line",
    "read_segment",
    "segment_names",
]

FOLDER: Final = ".fastscp/journal"
SUFFIX: Final = ".jsonl"
_MARK: Final = b',"crc":"'
_TAIL: Final = len(b'01234567"}')


class Segments:
    """The files one worker life writes, opened one after the other.

    store_fd: borrowed. start, writer: name the life; together never used before. durable: flush
    the folder with every new file, so that the file itself survives what its lines survive.
    """

    def __init__(self, store_fd: int, start: str, writer: str, *, durable: bool) -> None:
        self._store_fd = store_fd
        self._stem = f"{start}-{writer}"
        self._durable = durable
        self._number = 0
        self._fd = -1

    def next(self) -> tuple[int, int]:
        """Open the next file; returns (descriptor, bytes in it). The file before it is closed.

        Raises OSError, and the file before it stays.
        """
        self._number += 1
        folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._store_fd)
        try:
            fd = os.open(
                f"{self._stem}-{self._number}{SUFFIX}",
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o640,
                dir_fd=folder,
            )
            try:
                if self._durable:
                    os.fsync(folder)
            except OSError:
                os.close(fd)
                raise
        finally:
            os.close(folder)
        self.close()
        self._fd = fd
        return fd, 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def append_fact(fd: int, fact: Mapping[str, Any]) -> int:
    """Append a line to a journal file; returns its bytes. The flush is the caller's.

    fact: all members but the checksum. Raises OSError; what the file holds then is unknown.
    """
    body = msgspec.json.encode(fact)[:-1]
    line = b'%b,"crc":"%08x"}\n' % (body, crc32c(body))
    written = os.write(fd, line)
    if written != len(line):
        raise OSError(errno.EIO, "a line of the journal was written in part")
    return written


def describes_file(fact: Mapping[str, Any]) -> bool:
    """Whether a fact says what the file at its path holds.

    The line of a duplicate that was not kept names the file that was, with its own length.
    """
    return (
        fact.get("event") in ("stored", "adopted")
        and "path" in fact
        and fact.get("duplicate") != "kept"
    )


def segment_names(store_fd: int) -> list[str]:
    """The journal's files, oldest life first."""
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store_fd)
    try:
        return sorted(name for name in names_in(folder) if name.endswith(SUFFIX))
    finally:
        os.close(folder)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object of a line without its newline; None where the checksum says it is not whole."""
    end = len(line) - _TAIL - len(_MARK)
    if end < 1 or line[end : end + len(_MARK)] != _MARK or not line.endswith(b'"}'):
        return None
    try:
        if int(line[end + len(_MARK) : -2], 16) != crc32c(line[:end]):
            return None
        fact = msgspec.json.decode(line)
    except ValueError:
        return None
    return fact if isinstance(fact, dict) else None


def read_segment(store_fd: int, name: str) -> Iterator[dict[str, Any]]:
    """The facts of one file, in order; lines that are not whole are passed over.

    The file may be written meanwhile. Raises OSError.
    """
    fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=store_fd)
    with os.fdopen(fd, "rb") as file:
        for line in file:
            fact = parse_line(line.rstrip(b"\n"))
            if fact is not None:
                yield fact


def find_path(store_fd: int, path: str) -> dict[str, Any] | None:
    """The fact with the highest `seq` about the file at a path, None if there is none.

    Cost: reads the whole journal.
    """
    found: dict[str, Any] | None = None
    # A quick look before the slow one; what JSON escapes is not found by it.
    needle = b"" if re.search(r'[\x00-\x1f"\\\x7f]', path) else path.encode("utf-8")
    for name in segment_names(store_fd):
        fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=store_fd)
        with os.fdopen(fd, "rb") as file:
            for line in file:
                if needle not in line:
                    continue
                fact = parse_line(line.rstrip(b"\n"))
                if fact is None or fact.get("path") != path or not describes_file(fact):
                    continue
                if found is None or fact["seq"] > found["seq"]:
                    found = fact
    return found


def last_sequence(store_fd: int) -> int:
    """The highest `seq` ever given, 0 for a new store.

    Cost: reads the last 64 KiB of every file; within one the numbers only rise.
    """
    highest = 0
    for name in segment_names(store_fd):
        fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=store_fd)
        try:
            size = os.fstat(fd).st_size
            tail = os.pread(fd, 65536, max(0, size - 65536))
        finally:
            os.close(fd)
        for line in reversed(tail.splitlines()):
            fact = parse_line(line)
            if fact is not None:
                highest = max(highest, int(fact.get("seq", 0)))
                break
    return highest

"""What the journal says of the records of a redo log, and what it has to say yet.

A line is known by its `seq`. The lane of small instances flushes no line itself, so after a power
cut a segment may end early, or hold zeros; what it lost comes again, in a segment of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.compress import SUFFIX as COMPRESSED
from fastscp.store.journal import LINE_MOST, SUFFIX, Segments, parse_line, segment_names
from fastscp.store.names import (
    JOURNAL,
    descriptor,
    flush_folder,
    flush_folder_at,
    make_file,
    open_file,
    open_folder,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from fastscp.store.redo.records import Record

__all__ = ["Fact", "Journal", "key_of"]

_BLOCK: Final = 1 << 16
# A segment's numbers rise, except among lines that were written at the same time: so many whole
# lines in a row with lower numbers say that none in front of them has a higher one.
_LOWER_MOST: Final = 1024
# And so many where they are as much lower.
_LOWER: Final = 64
_FAR: Final = 1 << 14
_WRITER: Final = re.compile(r"(.*[0-9])([a-z]*)\Z")
_SEQ: Final = re.compile(rb'\A\{"v":1,"event":"[a-z]{1,32}","seq":([0-9]{1,20}),')
# What a line of an instance says that changed nothing at its path.
_UNCHANGED: Final = ("identical", "kept")
_SEGMENT_BYTES: Final = 64 << 20
_WRITE_BYTES: Final = 1 << 20
_RECOVERED: Final = "recovered"


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the journal with the number of a record.

    changes: it says that the file at the path is another one since. segment: where it stands; "":
    where it does not stay.
    """

    path: str
    changes: bool
    segment: str


def key_of(path: str) -> str:
    """What a path is for which a name is taken, compressed or not."""
    return path.removesuffix(COMPRESSED)


class Journal:
    """The journal, as far as it can tell of some records.

    records: those that are not void. lives: that are over; of their segments of the lane a torn end
    may be cut off. `facts` has the line of each number that has one; `truth` for each `key_of` the
    highest number that changed what is there, those of the records among them.
    """

    def __init__(
        self, store_fd: int, records: Collection[Record], lives: Collection[str], numbers: set[int]
    ) -> None:
        self._store_fd = store_fd
        self._lives = lives
        self._seqs = numbers
        self._lowest = min(numbers, default=0)
        self.facts: dict[int, Fact] = {}
        self.truth: dict[str, int] = {}
        for record in records:
            key = key_of(record.path)
            self.truth[key] = max(record.seq, self.truth.get(key, 0))
        # Of each segment: how many of its bytes were read.
        self._sizes: dict[str, int] = {}
        # Where torn ends begin.
        self._torn: dict[str, int] = {}
        self.highest = max(numbers, default=0)

    # Reading --------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take in what is new. Raises OSError."""
        for name in segment_names(self._store_fd):
            try:
                with descriptor(open_file(f"{JOURNAL}/{name}", self._store_fd)) as fd:
                    size = os.fstat(fd).st_size
                    if size > self._sizes.get(name, 0):
                        self._read(name, fd, size)
            except FileNotFoundError:
                continue  # withdrawn meanwhile

    def _read(self, name: str, fd: int, size: int) -> None:
        """Read a segment from its end to where it was read up to, or has lower numbers only."""
        end = begin = self._sizes.get(name, 0)
        is_cuttable = self._is_of_a_lane(name)
        lower, cut = 0, -1
        for at, line in _lines_from_end(fd, begin, size):
            if not line.endswith(b"\n") and not is_cuttable:
                continue  # somebody may be at it: it is read again
            end = max(end, at + len(line))
            seq = self._take(name, line)
            if seq is None:
                lower = 0
                if is_cuttable:
                    cut = at
                continue
            lower = lower + 1 if seq < self._lowest else 0
            if lower == _LOWER_MOST or (lower > _LOWER and self._lowest - seq > _FAR):
                break
            if seq not in self._seqs:
                # This line may be all there is of it, so no end that begins before it is cut off.
                is_cuttable = False
        self._sizes[name] = end
        if cut >= 0:
            self._torn[name] = cut
            self._forget(name, fd, cut, size)

    def _is_of_a_lane(self, name: str) -> bool:
        """Whether a segment was written by the lane of a life that is over, or by a recovery."""
        found = self._writer_of(name)
        return found is not None and found not in ("", "b")

    def _writer_of(self, name: str) -> str | None:
        """What the names of the segments of a life that is over have behind it; None: it lives."""
        stem = name.removesuffix(SUFFIX).rpartition("-")[0]
        if f"-{_RECOVERED}" in stem:
            return _RECOVERED
        found = _WRITER.match(stem)
        return found[2] if found is not None and found[1] in self._lives else None

    def _take(self, name: str, line: bytes) -> int | None:
        """Note what a line says; returns its number, None where it is not whole."""
        found = _SEQ.match(line)
        if found is not None and int(found[1]) < self._lowest and line.endswith(b'"}\n'):
            return int(found[1])
        fact: dict[str, Any] | None = parse_line(line[:-1]) if line.endswith(b"\n") else None
        if fact is None:
            return None
        seq, path = fact.get("seq"), fact.get("path")
        if type(seq) is not int:
            return 0
        self.highest = max(self.highest, seq)
        if isinstance(path, str) and seq >= self._lowest:
            changes = fact.get("duplicate") not in _UNCHANGED
            key = key_of(path)
            if changes and key in self.truth:
                self.truth[key] = max(seq, self.truth[key])
            if seq in self._seqs and (seq not in self.facts or not self.facts[seq].segment):
                self.facts[seq] = Fact(path, changes, name)
        return seq

    def _forget(self, name: str, fd: int, cut: int, size: int) -> None:
        """The lines behind a torn place were written, and do not stay."""
        for _at, line in _lines_from_end(fd, cut, size):
            fact = parse_line(line[:-1]) or {}
            found = self.facts.get(fact.get("seq", -1))
            if found is not None and found.segment == name:
                self.facts[fact["seq"]] = Fact(found.path, found.changes, "")

    def has_line(self, seq: int) -> bool:
        """Whether a number has a line that stays."""
        return seq in self.facts and bool(self.facts[seq].segment)

    # Writing --------------------------------------------------------------------------------------

    def write(self, lines: Iterable[bytes], start: str) -> int:
        """Write lines into a segment of their own, flushed; returns how many.

        start: of the life that they are of. Raises OSError.
        """
        durable = flush_folder_at(self._store_fd, JOURNAL)
        writer = f"{_RECOVERED}{time.time_ns() // 1000:x}"
        segments = Segments(self._store_fd, start, writer, durable=durable)
        count = size = 0
        fd = -1
        pending = bytearray()
        try:
            for line in lines:
                if fd < 0 or size >= _SEGMENT_BYTES:
                    if fd >= 0:
                        write_all(fd, pending)
                        os.fdatasync(fd)
                    (fd, size), pending = segments.next(), bytearray()
                pending += line
                size += len(line)
                count += 1
                if len(pending) >= _WRITE_BYTES:
                    write_all(fd, pending)
                    pending = bytearray()
            if fd >= 0:
                write_all(fd, pending)
                os.fdatasync(fd)
        finally:
            segments.close()
        return count

    def flush(self, *, distrust: bool) -> None:
        """Flush what has lines of the records, and cut torn ends off.

        distrust: a flush of it may have failed before, so it is written anew. Raises OSError.
        """
        names = {fact.segment for fact in self.facts.values() if fact.segment} | self._torn.keys()
        with descriptor(open_folder(JOURNAL, self._store_fd)) as folder_fd:
            for name in sorted(names):
                if distrust and self._writer_of(name) is not None:
                    self._write_anew(folder_fd, name)
                    continue
                with descriptor(open_file(f"{JOURNAL}/{name}", self._store_fd, os.O_RDWR)) as fd:
                    if name in self._torn:
                        os.ftruncate(fd, self._torn[name])
                    os.fdatasync(fd)
            if names:
                flush_folder(folder_fd)

    def _write_anew(self, folder_fd: int, name: str) -> None:
        """Give a segment's name to a copy of it that is flushed. Nobody writes to it any more."""
        new = f"{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder_fd)
        with (
            descriptor(open_file(f"{JOURNAL}/{name}", self._store_fd)) as old_fd,
            descriptor(make_file(new, folder_fd)) as fd,
        ):
            end = self._torn.get(name, os.fstat(old_fd).st_size)
            at = 0
            while at < end and (data := os.pread(old_fd, min(_WRITE_BYTES, end - at), at)):
                write_all(fd, data)
                at += len(data)
            os.fsync(fd)
        os.rename(new, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


def _lines_from_end(fd: int, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """What is between two places of a segment, line by line, the last one first, with its place.

    begin: where a line begins. Each has its newline, except the last one where it has none. What is
    too long for a line comes in pieces, of which none is a line. Raises OSError.
    """
    at, rest = end, b""
    while at > begin:
        start = max(begin, at - _BLOCK)
        data = os.pread(fd, at - start, start) + rest
        if len(data) > _BLOCK + LINE_MOST:
            # Without a newline so far, or nearly: no line is so long.
            yield start + _BLOCK, data[_BLOCK:]
            data = data[:_BLOCK]
        at = start
        # The first of them may begin further to the front.
        lines = [one + b"\n" for one in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        place = start + len(data)
        for line in reversed(lines[1:] if at > begin else lines):
            place -= len(line)
            if line:
                yield place, line
        rest = lines[0] if at > begin else b""

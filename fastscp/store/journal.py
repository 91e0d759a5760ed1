"""The journal: one JSON line per fact, the only hand-over from receiving to everything after.

    STORE/.fastscp/journal/<start>-<writer>-<n>.jsonl

The writer of buffered instances ends in `b`: nothing of its segments is flushed.

A line is an object whose last member, `crc`, is the CRC-32C (eight hex digits) of the bytes before
`,"crc"`. Segments, the files, are only ever appended to. Readers pass over a line that does not
match its checksum. At the end of a segment, without its newline, and like the beginning of a line,
it is torn: a crash left it. Anything else is damaged, and may have told of an acknowledged
instance: `verify` names it. Readers know a fact by its `seq`, not by its place: after
a power cut a segment may be shorter than before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fastscp.store.names import (
    JOURNAL,
    descriptor,
    make_file,
    names_in,
    open_file,
    open_folder,
    shut,
)
from fastscp_ext import crc32c, lines_about, open_beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

__all__ = [
    "LINE_MOST",
    "SUFFIX",
    "Line",
    "Place",
    "Segments",
    "Tail",
    "append_fact",
    "describes_file",
    "fact_at",
    "facts_about",
    "find_path",
    "journal_bytes",
    "last_sequence",
    "line_blocks",
    "parse_line",
    "path_bytes",
    "says_what_is",
    "segment_names",
    "time_text",
    "whole_lines",
]

SUFFIX: Final = ".jsonl"
# Read at a time where a segment is read from its end.
_STEP: Final = 1 << 16
_MARK: Final = b',"crc":"'
_CRC_END: Final = len(b'01234567"}')
# No line is near this, whatever its path and titles. What is longer is no line, and not kept.
LINE_MOST: Final = 1 << 16
# What every line begins with, what none has in it, and what only a whole one ends with.
_BEGINNING: Final = b'{"v":1,"event":"'
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")
_ENDING: Final = re.compile(_MARK + rb'[0-9a-f]{8}"}\Z')
# Read at a time where a segment is looked through.
_BLOCK: Final = 1 << 18
# The numbers of lines have 64 bits.
_SEQUENCE_MOST: Final = (1 << 64) - 1


# Writing ----------------------------------------------------------------------------------------


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
        # Of each file that is open, by its descriptor.
        self._names: dict[int, str] = {}

    def next(self) -> tuple[int, int]:
        """Open the next file; returns (descriptor, bytes in it). The file before it is closed.

        Raises OSError, and the file before it stays.
        """
        fd = self.open()
        self.close()
        self._fd = fd
        return fd, 0

    def open(self) -> int:
        """Open the next file, beside the one before it; the descriptor is the caller's.

        Raises OSError.
        """
        self._number += 1
        name = self._name()
        with _folder(self._store_fd) as folder_fd:
            fd = make_file(name, folder_fd, os.O_WRONLY | os.O_APPEND)
            try:
                if self._durable:
                    os.fsync(folder_fd)
            except OSError:
                shut(fd)
                raise
        self._names[fd] = name
        return fd

    def path(self, fd: int) -> str:
        """Where a file that was opened here belongs in the store."""
        return f"{JOURNAL}/{self._names[fd]}"

    def is_in_place(self, fd: int) -> bool:
        """Whether a file that was opened here is still what its name leads to, by no link.

        Raises OSError where that cannot be told.
        """
        about = os.fstat(fd)
        try:
            there = open_beneath(self.path(fd), os.O_PATH | os.O_NOFOLLOW, dir_fd=self._store_fd)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                return about.st_nlink > 0
            raise
        with descriptor(there):
            return os.path.samestat(about, os.fstat(there))

    def withdraw(self, fd: int) -> None:
        """Close and remove the file opened last, which nobody wrote to. Raises OSError."""
        shut(fd)
        with _folder(self._store_fd) as folder_fd:
            os.unlink(self._name(), dir_fd=folder_fd)

    def close(self) -> None:
        """Close the file that `next` opened."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            shut(fd)

    def _name(self) -> str:
        return f"{self._stem}-{self._number}{SUFFIX}"


def time_text(moment: datetime) -> str:
    """A time, UTC, as it stands in lines: as text they are in the order of time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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


# Reading ----------------------------------------------------------------------------------------


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
    with _folder(store_fd) as folder_fd:
        return sorted(name for name in names_in(folder_fd) if name.endswith(SUFFIX))


def journal_bytes(store_fd: int) -> int:
    """How much the journal's files hold together. Blocks on the disk. Raises OSError."""
    total = 0
    with _folder(store_fd) as folder_fd:
        for name in names_in(folder_fd):
            if name.endswith(SUFFIX):
                # One may go meanwhile, if somebody removes it.
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_size
    return total


def _folder(store_fd: int) -> AbstractContextManager[int]:
    return descriptor(open_folder(JOURNAL, store_fd))


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object of a line without its newline; None where the checksum says it is not whole."""
    end = len(line) - _CRC_END - len(_MARK)
    if end < 1 or line[end : end + len(_MARK)] != _MARK or not line.endswith(b'"}'):
        return None
    try:
        if int(line[end + len(_MARK) : -2], 16) != crc32c(line[:end]):
            return None
        fact = msgspec.json.decode(line)
    except ValueError:
        return None
    return fact if isinstance(fact, dict) else None


def _is_begun(data: bytes) -> bool:
    """Whether data without a newline may be the beginning of a line, cut off by a crash.

    Zeros are none: a file system leaves them where it lost what was written. Nor is what has its
    checksum, and a wrong one.
    """
    size = min(len(data), len(_BEGINNING))
    return (
        size > 0
        and data[:size] == _BEGINNING[:size]
        and not _CONTROL.search(data)
        and not _ENDING.search(data)
    )


def find_path(store_fd: int, path: str) -> dict[str, Any] | None:
    """The fact with the highest `seq` about the file at a path, None if there is none.

    Of several with the same number the first counts. Cost: reads the whole journal.
    Raises OSError.
    """
    found: dict[str, Any] | None = None
    with _folder(store_fd) as folder_fd:
        for name in segment_names(store_fd):
            try:
                for _offset, fact in facts_about(folder_fd, name, path):
                    if found is None or fact["seq"] > found["seq"]:
                        found = fact
            except FileNotFoundError:
                continue  # withdrawn meanwhile
    return found


def says_what_is(fact: Mapping[str, Any]) -> bool:
    """Whether a fact counts among those about the file at its path.

    It describes the file, and has a path and a number that can be one.
    """
    sequence = fact.get("seq")
    return (
        describes_file(fact)
        and isinstance(fact["path"], str)
        and type(sequence) is int
        and 0 <= sequence <= _SEQUENCE_MOST
    )


def path_bytes(path: str) -> bytes:
    """A path as it stands in a line of the journal, where nothing in it is escaped."""
    return path.encode("utf-8", "surrogateescape")


def facts_about(
    folder_fd: int, name: str, path: str, start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The facts of one segment that say what the file at a path is, each with the line's place.

    start: where a line begins; what is in front of it is not read. Raises OSError.
    """
    wanted = path_bytes(path)
    with descriptor(open_file(name, folder_fd)) as fd:
        for at, block in line_blocks(fd, start):
            for offset, size in lines_about(block, wanted, LINE_MOST):
                fact = parse_line(block[offset : offset + size].rstrip(b"\n"))
                if fact is not None and says_what_is(fact) and fact["path"] == path:
                    yield at + offset, fact


def fact_at(fd: int, offset: int) -> dict[str, Any] | None:
    """The fact of the line that begins at a place of a segment; None: no whole line does.

    Raises OSError.
    """
    line, newline, _rest = os.pread(fd, LINE_MOST, offset).partition(b"\n")
    return parse_line(line) if newline or len(line) < LINE_MOST else None


def line_blocks(fd: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """What a segment holds from a line's beginning on: whole lines, each block with its place.

    The last one may lack its newline. Of what is too long for a line there may be a part, and where
    the end of a file is, none of it is kept. Raises OSError.
    """
    rest = b""
    at, too_long = start, False
    while data := os.pread(fd, _BLOCK, at + len(rest)):
        if too_long:
            end = data.find(b"\n") + 1
            at += end or len(data)
            too_long = not end
            continue
        data = rest + data
        end = data.rfind(b"\n") + 1
        if end:
            yield at, data[:end]
        at, rest = at + end, data[end:]
        if len(rest) >= LINE_MOST:
            at, rest, too_long = at + len(rest), b"", True
    if rest:
        yield at, rest


def last_sequence(store_fd: int) -> int:
    """The highest `seq` ever given, 0 for a new store.

    Cost: reads the last 64 KiB of every segment, and more of one that ends in what is no line;
    within one the numbers only rise, except among lines that were written at the same time.
    """
    return max((_last_in(store_fd, name) for name in segment_names(store_fd)), default=0)


def _last_in(store_fd: int, name: str) -> int:
    """The highest `seq` near the end of a segment, read from there in steps; 0: it has none."""
    with _open_segment(store_fd, name) as file:
        at = os.fstat(file.fileno()).st_size
        rest = b""
        while at > 0:
            start = max(0, at - _STEP)
            data = os.pread(file.fileno(), at - start, start) + rest
            at = start
            first, *lines = data.split(b"\n")
            if at == 0:
                lines.append(first)
            facts = filter(None, map(parse_line, lines))
            given: list[int] = [f["seq"] for f in facts if isinstance(f.get("seq"), int)]
            if given:
                return max(given)
            # The line that begins further to the front. What is too long for one is none, and
            # without its end it has no checksum that fits.
            rest = first if len(first) <= LINE_MOST else b""
    return 0


def whole_lines(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """The lines of a file from where it stands, each with its bytes there.

    One too long for a line of a journal has only its newline, or nothing where it has none.
    """
    while line := file.readline(LINE_MOST):
        size = len(line)
        if size == LINE_MOST and not line.endswith(b"\n"):
            more = line
            while more and not more.endswith(b"\n"):
                more = file.readline(LINE_MOST)
                size += len(more)
            line = more[-1:]
        yield line, size


def _open_segment(store_fd: int, name: str) -> IO[bytes]:
    return os.fdopen(open_file(f"{JOURNAL}/{name}", store_fd), "rb")


class Place(NamedTuple):
    """Where a line of the journal begins: bytes into a segment, and its number there, from 1."""

    segment: str
    offset: int
    number: int


class Line(NamedTuple):
    """A line of the journal.

    size: its bytes. fact: None where the checksum says that it is not whole. ended: it has its
    newline; without one its writer is at it, or died at it, and the next reading gives it again, as
    long as it is then. is_begun: what it has may be the beginning of a line.
    """

    place: Place
    size: int
    fact: dict[str, Any] | None
    ended: bool
    is_begun: bool = True

    @property
    def damaged(self) -> bool:
        """Whether it is not whole and never will be."""
        return self.fact is None and not self.torn

    @property
    def torn(self) -> bool:
        """Whether it stops in the middle; the rest may come."""
        return self.fact is None and not self.ended and self.is_begun


class Tail:
    """Reads a journal that grows, each line that has its newline once, from a cursor on.

    store_fd: borrowed. cursor: of an earlier tail, perhaps of another process; a segment that it
    does not name is read from its beginning.

    A segment that is shorter than the cursor, or has no line's beginning there, is read from its
    beginning again: after a power cut it may have lost what was read, and a repair leaves out
    damaged lines. So a fact may be given twice; readers know it by its `seq`. A repaired segment
    whose lines moved so that one begins where the cursor stands cannot be told from the old one:
    whoever repairs the journal has to make its readers start anew.
    """

    def __init__(self, store_fd: int, cursor: Iterable[Place] = ()) -> None:
        self._store_fd = store_fd
        self._places = {place.segment: place for place in cursor}

    @property
    def cursor(self) -> tuple[Place, ...]:
        """Where the next line of each segment begins, behind those already given."""
        return tuple(self._places.values())

    def read(self) -> Iterator[Line]:
        """The lines that are new, segment by segment.

        A segment that is gone is passed over, and forgotten. Raises OSError.
        """
        names = segment_names(self._store_fd)
        for name in self._places.keys() - set(names):
            del self._places[name]
        for name in names:
            try:
                file = _open_segment(self._store_fd, name)
            except FileNotFoundError:  # withdrawn meanwhile
                self._places.pop(name, None)
                continue
            with file:
                yield from self._read_on(name, file)

    def _read_on(self, name: str, file: IO[bytes]) -> Iterator[Line]:
        place = self._places.get(name, Place(name, 0, 1))
        if place.offset:
            # The newline in front of it tells that a line begins there.
            file.seek(place.offset - 1)
            if file.read(1) != b"\n":
                place = Place(name, 0, 1)
                file.seek(0)
        self._places[name] = place
        for data, size in whole_lines(file):
            ended = data.endswith(b"\n")
            line = Line(place, size, parse_line(data.rstrip(b"\n")), ended, _is_begun(data))
            if ended:
                place = Place(name, place.offset + size, place.number + 1)
                self._places[name] = place
            yield line
            if not ended:
                return

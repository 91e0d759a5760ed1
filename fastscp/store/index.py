"""An index of the journal by path: main builds it once, and the workers look into it.

Only a store that an unclean buffered life left suspect has one: there a file is trusted for its
journal line alone, and to find that line the whole journal would be read for each duplicate. The
index (`fastscp_ext.LineIndex`) says where the lines are that may be about a path. What they say is
read from the journal itself, so the answer is always that of `find_path`.

What was written since is read behind what the index covers. Lines that are not where the index says
mean that somebody changed the journal; then the whole of it is read. Two sorts of segments grow
no more: those of earlier runs, for one service at a time has the store; and those of this run whose
writer has opened the second file after them, for a writer opens at most one ahead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastscp.store.journal import (
    LINE_MOST,
    SUFFIX,
    fact_at,
    facts_about,
    find_path,
    line_blocks,
    parse_line,
    path_bytes,
    says_what_is,
)
from fastscp.store.names import JOURNAL, descriptor, open_file, open_folder, read_folder
from fastscp_ext import LineIndex, index_lines

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

__all__ = ["IndexBuilder", "IndexPendingError", "IndexedJournal", "new_index"]

# Bytes of journal for which there is a chain at most: the longest lines have some 2,000, and even
# they take no more than 32 bytes each with it.
_CHAIN_BYTES: Final = 1024
# Offsets in the index have 32 bits.
_SEGMENT_MOST: Final = (1 << 32) - 1
# Duplicates of a worker that wait for the index, and how long. Those that wait take the places of
# others, and a sender gives up some time: it is better told to come again.
WAITING_MOST: Final = 128
WAIT_S: Final = 20.0
# How long a folder must have looked the same before what is in it is believed to be so: a file
# system notes the time of a change in steps of up to 2 s.
_SETTLED_S: Final = 2.5


class IndexPendingError(Exception):
    """The index is still being built."""


class _StaleError(Exception):
    """The journal is not what the index was made from."""


class _Found(NamedTuple):
    """A fact and its place; the first in order is the one that `find_path` gives."""

    below: int  # its number, negative: the highest comes first
    segment: str
    offset: int
    fact: dict[str, Any]


class _Key(NamedTuple):
    """While it stays the same, so do the names in the journal, and what the index has of them."""

    device: int
    inode: int
    modified_ns: int
    changed_ns: int
    changes: int


class _Seen(NamedTuple):
    """What a look at the journal's folder found.

    since: when the key was seen first, seconds of the monotonic clock. to_read: the segments that
    may have lines that the index has not, each by its number there, 0: none, and its name; None
    until that is to be believed.
    """

    key: _Key | None
    since: float
    to_read: list[tuple[int, str]] | None = None


# Looking into it: a worker ----------------------------------------------------------------------


class IndexedJournal:
    """A journal that is looked into by its index. For all threads of a worker.

    index: as main has made it.
    """

    def __init__(self, index: LineIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, float] = {}
        self._seen = _Seen(None, 0.0)

    def await_built(self, who: Hashable) -> bool:
        """Whether the index is built, or never will be; while it is not, `who` waits.

        Ask again. Raises OSError (EINPROGRESS): `who` has waited for too long, or too many do.
        """
        with self._lock:
            if self._index.state != LineIndex.BUILDING:
                self._waiting.pop(who, None)
                return True
            if who in self._waiting or len(self._waiting) < WAITING_MOST:
                now = time.monotonic()
                if now <= self._waiting.setdefault(who, now + WAIT_S):
                    return False
                del self._waiting[who]
        raise OSError(errno.EINPROGRESS, "the index of the journal is still being built")

    def find_path(self, store_fd: int, path: str) -> dict[str, Any] | None:
        """The fact that `journal.find_path` gives.

        Cost: microseconds for what the index covers, and reading what was written since; the whole
        journal where the index could not be built, or somebody changed the journal since.
        Raises IndexPendingError, OSError.
        """
        state = self._index.state
        if state == LineIndex.BUILDING:
            raise IndexPendingError
        if state == LineIndex.READY:
            with (
                contextlib.suppress(_StaleError),
                descriptor(open_folder(JOURNAL, store_fd)) as folder_fd,
            ):
                # In this order: main covers lines after it has put them into the index.
                found = [*self._since(folder_fd, path), *self._indexed(folder_fd, path)]
                return min(found, key=lambda one: one[:3]).fact if found else None
        return find_path(store_fd, path)

    def _since(self, folder_fd: int, path: str) -> Iterator[_Found]:
        """What stands behind what is covered."""
        for number, name in self._to_read(folder_fd):
            covered = self._index.covered(number) if number else 0
            with contextlib.suppress(FileNotFoundError):  # withdrawn meanwhile
                if os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_size != covered:
                    for offset, fact in facts_about(folder_fd, name, path, covered):
                        yield _Found(-fact["seq"], name, offset, fact)

    def _to_read(self, folder_fd: int) -> list[tuple[int, str]]:
        """The segments that may have lines that the index has not."""
        about = os.fstat(folder_fd)
        key = _Key(
            about.st_dev, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, self._index.changes
        )
        seen = self._seen
        if key == seen.key and seen.to_read is not None:
            return seen.to_read
        now = time.monotonic()
        if key != seen.key:
            self._seen = seen = _Seen(key, now)
        known = {
            os.fsdecode(name): (number, inode, complete)
            for number, name, inode, complete in self._index.segments()
        }
        to_read = []
        for name, inode in _segments_in(folder_fd).items():
            number, known_inode, complete = known.get(name, (0, inode, False))
            if inode != known_inode or (complete and self._has_changed(folder_fd, number, name)):
                # Another file in its place: nothing of what the index has of it counts.
                to_read.append((0, name))
            elif not complete:
                to_read.append((number, name))
        if now - seen.since > _SETTLED_S:
            # Whichever thread is the last: it holds for its key alone.
            self._seen = seen._replace(to_read=to_read)
        return to_read

    def _has_changed(self, folder_fd: int, number: int, name: str) -> bool:
        """Whether a complete segment has another length: a new file may have an old inode."""
        try:
            size = os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return False
        return size != self._index.covered(number)

    def _indexed(self, folder_fd: int, path: str) -> Iterator[_Found]:
        """What stands where the index says, those with the highest number. Raises _StaleError."""
        places, more = self._index.find(path_bytes(path))
        found: int | None = None
        for sequence, number, offset in places:
            if found is not None and sequence < found:
                return
            segment = self._index.segment_name(number)
            if segment is None:
                continue
            name = os.fsdecode(segment)
            try:
                with descriptor(open_file(name, folder_fd)) as fd:
                    fact = fact_at(fd, offset)
            except FileNotFoundError:
                continue  # withdrawn meanwhile
            if fact is None or not says_what_is(fact) or fact["seq"] != sequence:
                raise _StaleError
            if fact["path"] == path:
                found = sequence
                yield _Found(-sequence, name, offset, fact)
        if more:
            # Another one may be among those that were not given.
            raise _StaleError


def _segments_in(folder_fd: int) -> dict[str, int]:
    """The names of the segments, each with its inode."""
    with read_folder(folder_fd) as entries:
        return {entry.name: entry.inode() for entry in entries if entry.name.endswith(SUFFIX)}


# Building it: main ------------------------------------------------------------------------------


def new_index(store_fd: int) -> LineIndex:
    """An index without lines yet, of the size that the journal asks for. Raises OSError."""
    size = 0
    with descriptor(open_folder(JOURNAL, store_fd)) as folder_fd:
        for name in _segments_in(folder_fd):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_size
    return LineIndex(chains=size // _CHAIN_BYTES)


@dataclass(slots=True)
class _Segment:
    """What main knows of a segment in the index; its number there."""

    number: int
    inode: int
    covered: int = 0
    complete: bool = False


class IndexBuilder:
    """Takes the lines of the journal into the index, again and again those that are new.

    store_fd: borrowed for the making; it has a descriptor of its own until `close`. index: nobody
    else adds to it. runs: what the names of all segments that may grow begin with:
    those of this run, and of one that it takes over from. One thread at a time; `stop` may come
    from any. Raises OSError.
    """

    def __init__(self, store_fd: int, index: LineIndex, *runs: str) -> None:
        self._store_fd = os.dup(store_fd)
        self._index = index
        own = "|".join(map(re.escape, runs))
        self._own = re.compile(rf"((?:{own})-.+)-([0-9]+){re.escape(SUFFIX)}\Z")
        self._prefixes = tuple(f"{run}-" for run in runs)
        self._segments: dict[str, _Segment] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let `extend` return soon, not having done all."""
        self._stopped.set()

    def close(self) -> None:
        """Give the descriptor back, once nothing runs."""
        os.close(self._store_fd)

    def extend(self) -> bool:
        """Take in what is new; False: it was stopped. Blocks on the disk.

        Memory: a few blocks of 256 KiB beside the index. Raises OSError: what was taken in stays,
        and the next call goes on there.
        """
        with descriptor(open_folder(JOURNAL, self._store_fd)) as folder_fd:
            # Before anything is read: a file that is not the last but one by then grows no more.
            names = _segments_in(folder_fd)
            last = self._last(names)
            for name in self._segments.keys() - names.keys():
                self._leave_out(name)
            for name in sorted(names):
                segment = self._known(name, names[name])
                if segment.complete:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    is_last = self._may_grow(name, last)
                    self._take(folder_fd, name, segment, is_last)
                if self._stopped.is_set():
                    return False
        return True

    def _last(self, names: dict[str, int]) -> dict[str, int]:
        """The highest number of each writer of these runs."""
        last: dict[str, int] = {}
        for found in filter(None, map(self._own.match, names)):
            last[found[1]] = max(last.get(found[1], 0), int(found[2]))
        return last

    def _may_grow(self, name: str, last: dict[str, int]) -> bool:
        found = self._own.match(name)
        if found is None:
            return name.startswith(self._prefixes)
        # A writer opens the next one ahead.
        return int(found[2]) > last[found[1]] - 2

    def _known(self, name: str, inode: int) -> _Segment:
        segment = self._segments.get(name)
        if segment is not None and segment.inode != inode:
            self._leave_out(name)
            segment = None
        if segment is None:
            number = self._index.add_segment(os.fsencode(name), inode)
            segment = self._segments[name] = _Segment(number, inode)
        return segment

    def _leave_out(self, name: str) -> None:
        self._index.leave_out(self._segments.pop(name).number)

    def _take(self, folder_fd: int, name: str, segment: _Segment, may_grow: bool) -> None:
        with descriptor(open_file(name, folder_fd)) as fd:
            size = os.fstat(fd).st_size
            if size > _SEGMENT_MOST:
                raise OSError(errno.EFBIG, "a file of the journal has more than 4 GiB", name)
            if size < segment.covered:
                # Somebody cut it: what was read of it counts no longer.
                self._leave_out(name)
                segment = self._known(name, segment.inode)
            for at, block in line_blocks(fd, segment.covered):
                if self._stopped.is_set():
                    return
                if may_grow and not block.endswith(b"\n"):
                    return  # its writer is at it, or died at it
                self._add(segment.number, at, block)
                segment.covered = at + len(block)
                self._index.cover(segment.number, segment.covered)
            if not may_grow:
                # Also what is no line at its end, as zeros that a power cut left.
                segment.covered = os.fstat(fd).st_size
                self._index.cover(segment.number, segment.covered)
                segment.complete = True
                self._index.complete(segment.number)

    def _add(self, number: int, at: int, block: bytes) -> None:
        done = 0
        view = memoryview(block)
        while done < len(block):
            plain, odd = index_lines(self._index, number, at + done, view[done:], LINE_MOST)
            done += plain
            if odd:
                fact = parse_line(block[done : done + odd].rstrip(b"\n"))
                if fact is not None and says_what_is(fact):
                    path = path_bytes(fact["path"])
                    self._index.add(path, fact["seq"], number, at + done)
                done += odd

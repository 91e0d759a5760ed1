"""The last lines of the journal, for whoever shows what came last. It blocks on the disk."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

from fastscp.store.journal import SUFFIX, parse_line
from fastscp.store.names import JOURNAL, descriptor, open_file, open_folder, read_folder

__all__ = ["Latest"]

# Of the end of a segment, bytes: some forty lines.
_END_BYTES: Final = 1 << 15


class Latest:
    """Reads the ends of the segments that are written to, again only where one has grown.

    store_fd: borrowed. most: lines that are wanted. For one thread at a time.
    """

    def __init__(self, store_fd: int, most: int) -> None:
        self._store_fd = store_fd
        self._most = most
        # By segment: its bytes, and its last facts.
        self._known: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def read(self) -> list[dict[str, Any]]:
        """The facts with the highest numbers, the newest first. Raises OSError."""
        known, self._known = self._known, {}
        with descriptor(open_folder(JOURNAL, self._store_fd)) as folder_fd:
            # So many lines are in no more segments, those that were written to last.
            for name in _written_last(folder_fd)[: self._most]:
                try:
                    fd = open_file(name, folder_fd)
                except FileNotFoundError:  # withdrawn meanwhile
                    continue
                with descriptor(fd):
                    size = os.fstat(fd).st_size
                    before = known.get(name)
                    if before is None or before[0] != size:
                        before = size, self._end_of(fd, size)
                    self._known[name] = before
        found = [fact for _size, facts in self._known.values() for fact in facts]
        return sorted(found, key=_number, reverse=True)[: self._most]

    def _end_of(self, fd: int, size: int) -> list[dict[str, Any]]:
        start = max(0, size - _END_BYTES)
        lines = os.pread(fd, _END_BYTES, start).split(b"\n")
        # What is in front of the first newline is a part of a line, unless the file begins there;
        # what is behind the last one is not whole yet.
        whole = lines[1 if start else 0 : -1]
        facts = (parse_line(line) for line in whole[-self._most :])
        return [fact for fact in facts if fact is not None and isinstance(fact.get("seq"), int)]


def _number(fact: dict[str, Any]) -> int:
    number: int = fact["seq"]
    return number


def _written_last(folder_fd: int) -> list[str]:
    """The segments that hold anything, the one that was written to last in front."""
    times: list[tuple[int, str]] = []
    with read_folder(folder_fd) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(FileNotFoundError):  # withdrawn meanwhile
                    about = entry.stat(follow_symlinks=False)
                    if about.st_size:
                        times.append((about.st_mtime_ns, entry.name))
    return [name for _time, name in sorted(times, reverse=True)]

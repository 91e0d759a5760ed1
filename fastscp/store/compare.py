"""The journal and the files of a store held against each other.

Works beside a running service. Memory: one small record (about 500 bytes) per journaled path.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastscp.store.findings import Finding, Kind, reason
from fastscp.store.journal import Tail, describes_file
from fastscp.store.names import HOME, JOURNAL, read_folder, status_at
from fastscp.store.reading import difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.store.findings import Watcher
    from fastscp.store.journal import Line

__all__ = ["Comparison", "Records"]

_LOOK_AGAIN_S: Final = 0.2
# File systems have one of their own at the top.
_NOT_OURS: Final = frozenset({HOME, "lost+found"})


@dataclass(slots=True)
class Record:
    """What the latest line of a path says."""

    sequence: int
    size: int
    digest: str
    suspect: bool = False
    seen: bool = False


class Records:
    """What the journal says of every path; `read` goes on where it ended the last time.

    lines: whole lines. torn: segments that end inside a line. damaged: lines, by segment and
    number.
    """

    def __init__(self, dir_fd: int) -> None:
        self._tail = Tail(dir_fd)
        self._lines: dict[str, int] = {}
        self._damaged: dict[str, list[int]] = {}
        self.torn: set[str] = set()
        self.by_path: dict[str, Record] = {}

    @property
    def lines(self) -> int:
        return sum(self._lines.values())

    @property
    def suspect(self) -> int:
        """Files whose line was written from the file itself, after an unclean buffered life."""
        return sum(record.suspect and record.seen for record in self.by_path.values())

    @property
    def damaged(self) -> list[tuple[str, int]]:
        return [(name, number) for name, found in self._damaged.items() for number in found]

    def read(self) -> None:
        """Take in what is new; nothing where the journal is gone. Raises OSError."""
        try:
            for line in self._tail.read():
                self._take(line)
        except FileNotFoundError:
            # The folder of the journal is gone. Where only a segment is gone, the tail raises
            # nothing.
            return

    def _take(self, line: Line) -> None:
        name = line.place.segment
        if line.place.offset == 0:
            # A segment that is new, or was made anew under its name.
            self._lines[name] = 0
            self._damaged[name] = []
        if line.torn:
            self.torn.add(name)
        else:
            self.torn.discard(name)
        if line.damaged:
            self._damaged[name].append(line.place.number)
        elif line.fact is not None:
            self._lines[name] += line.ended
            self._note(line.fact)

    def _note(self, fact: dict[str, Any]) -> None:
        if not describes_file(fact):
            return
        record = self.by_path.get(fact["path"])
        if record is None:
            record = self.by_path[fact["path"]] = Record(-1, 0, "")
        if fact["seq"] > record.sequence:
            record.sequence = fact["seq"]
            record.size = fact["bytes"]
            record.digest = fact.get("digest", "")
            record.suspect = bool(fact.get("suspect"))


@dataclass(slots=True)
class _Doubt:
    """A finding that may be one of the moment: of something named, but not yet journaled."""

    finding: Finding
    sequence: int


class Comparison:
    """One walk over journal and files.

    files, bytes: what was read so far, and the data sets in it.
    """

    def __init__(self, dir_fd: int, watcher: Watcher | None) -> None:
        self._dir_fd = dir_fd
        self._watcher = watcher
        self.journal = Records(dir_fd)
        self.files = 0
        self.bytes = 0

    def run(self, patience_s: float) -> list[Finding]:
        """Look at every file and every line; returns what is wrong with files."""
        journal = self.journal
        journal.read()
        total = sum(record.size for record in journal.by_path.values())
        doubts: dict[str, _Doubt] = {}
        unreachable: list[Finding] = []
        for path in self._walk("", unreachable):
            record = journal.by_path.get(path)
            if record is not None:
                record.seen = True
            self._doubt(doubts, path)
            self.files += 1
            self.bytes += record.size if record is not None else 0
            if self._watcher is not None:
                self._watcher(files=self.files, size=self.bytes, total=total)
        for path in [path for path, record in journal.by_path.items() if not record.seen]:
            self._doubt(doubts, path)
        self._settle(doubts, patience_s)
        return [*unreachable, *(doubt.finding for doubt in doubts.values())]

    def damaged(self) -> Iterator[Finding]:
        for name, number in self.journal.damaged:
            why = f"line {number}: its checksum is wrong"
            yield Finding(Kind.DAMAGED, f"{JOURNAL}/{name}", why)

    def _walk(self, folder: str, unreachable: list[Finding]) -> Iterator[str]:
        """The paths of all files below a folder of the store, none of our own."""
        folders = [folder]
        while folders:
            folder = folders.pop()
            try:
                with read_folder(self._dir_fd, folder or ".") as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if path in _NOT_OURS:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            # A store below this one keeps its own there, as this one does.
                            if entry.name != HOME:
                                folders.append(path)
                        else:
                            yield path
            except FileNotFoundError:
                continue
            except OSError as error:
                unreachable.append(Finding(Kind.UNREADABLE, folder, reason(error)))

    def _doubt(self, doubts: dict[str, _Doubt], path: str) -> None:
        """Look at one path, and keep or drop a doubt about it."""
        record = self.journal.by_path.get(path)
        finding = self._look(path, record)
        if finding is None:
            doubts.pop(path, None)
        else:
            doubts[path] = _Doubt(finding, -1 if record is None else record.sequence)

    def _look(self, path: str, record: Record | None) -> Finding | None:
        try:
            if record is None:
                status_at(path, self._dir_fd)
                return Finding(Kind.UNJOURNALED, path, "the journal has no line for it")
            why = difference(self._dir_fd, path, record.size, record.digest)
            return Finding(Kind.CHANGED, path, why) if why else None
        except (FileNotFoundError, NotADirectoryError):
            if record is None:
                return None  # gone again
            return Finding(Kind.MISSING, path, f"journaled with {record.size} bytes, and not there")
        except OSError as error:
            return Finding(Kind.UNREADABLE, path, reason(error))

    def _settle(self, doubts: dict[str, _Doubt], patience_s: float) -> None:
        """Look again at what may have been journaled meanwhile, waiting for what is young."""
        deadline = time.monotonic() + patience_s
        while doubts:
            self.journal.read()
            for path, doubt in list(doubts.items()):
                record = self.journal.by_path.get(path)
                sequence = -1 if record is None else record.sequence
                if sequence != doubt.sequence:
                    self._doubt(doubts, path)
            if time.monotonic() >= deadline or not any(
                self._is_young(path, patience_s) for path in doubts
            ):
                return
            time.sleep(_LOOK_AGAIN_S)

    def _is_young(self, path: str, patience_s: float) -> bool:
        """Whether the path got its file so short a time ago that its line may be under way."""
        try:
            found = status_at(path, self._dir_fd)
        except OSError:
            return False
        return time.time() - found.st_ctime < patience_s

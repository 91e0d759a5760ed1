"""The journal and the files of a store held against each other.

Works beside a running service: what is found is told once it is no matter of the moment. Memory
does not grow with the store.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastscp.errors import reason_for
from fastscp.store.findings import Finding, Kind
from fastscp.store.names import HOME, exists, read_folder, status_at
from fastscp.store.reading import Pace, difference, is_checked

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from fastscp.store.findings import Watcher
    from fastscp.store.records import Record, Records
    from fastscp.store.selection import Selection
    from fastscp.store.studies import Studies

__all__ = ["Comparison"]

_LOOK_AGAIN_S: Final = 0.2
# File systems have one of their own at the top.
_NOT_OURS: Final = frozenset({HOME, "lost+found"})
# Doubts after which, and seconds after which, the journal is asked again.
_DOUBTS: Final = 256
_DOUBT_S: Final = 1.0
# Young doubts that are kept; with more than that the walk waits.
_DOUBTS_MOST: Final = 4096


@dataclass(slots=True)
class _Doubt:
    """A finding that may be one of the moment: of something named, but not yet journaled.

    sequence: of the line that was looked at, -1 without one.
    """

    finding: Finding
    sequence: int


class Comparison:
    """One walk over journal and files.

    studies: which paths are of the study of `selection`, if it has one.
    alone: nobody else uses the store, so that what is seen is so. patience_s: else, how long a
    young file may wait for its line. files, bytes: what was read so far, and the data sets in it.
    unchecked, unproven: as in `Report`.
    """

    def __init__(
        self,
        dir_fd: int,
        records: Records,
        selection: Selection,
        studies: Studies,
        *,
        alone: bool,
        patience_s: float,
        pace: Pace,
        watcher: Watcher | None,
    ) -> None:
        self._dir_fd = dir_fd
        self._records = records
        self._selection = selection
        self._studies = studies
        self._alone = alone
        self._patience_s = 0.0 if alone else patience_s
        self._pace = pace
        self._watcher = watcher
        self._doubts: dict[str, _Doubt] = {}
        self._asked_at = time.monotonic()
        self._fresh = 0
        self.files = 0
        self.bytes = 0
        self.unchecked = 0
        self.unproven = 0

    def run(self) -> Iterator[Finding]:
        """Look at every file and every line; what is wrong with files, as it is found."""
        self._records.read()
        total = self._records.total
        # Files that come meanwhile are not waited for.
        last = self._records.last_sequence
        for found in self._walk():
            if isinstance(found, Finding):
                yield found
                continue
            path, inside = found
            record = self._records.find(path)
            if record is not None:
                self._records.see(path)
                if not record.wanted:
                    continue
            self._look(path, record, inside)
            self._count(record, total)
            yield from self._told()
        for path in self._records.unseen(last):
            record = self._records.find(path)
            self._look(path, record, "")
            doubt = self._doubts.get(path)
            if doubt is None or doubt.finding.kind is not Kind.MISSING:
                self._count(record, total)
            yield from self._told()
        yield from self._settle()

    def stop(self) -> Iterator[Finding]:
        """After an interruption: what was found until then, except what may be of the moment."""
        if self._doubts:
            yield from self._tell_old()

    @property
    def is_searching(self) -> bool:
        """Whether files without a line are found: else a layout does not tell whose they are."""
        return not self._selection.study or self._studies.tells_all

    def _count(self, record: Record | None, total: int) -> None:
        self.files += 1
        self.bytes += record.size if record is not None else 0
        if self._watcher is not None:
            self._watcher(files=self.files, size=self.bytes, total=total)

    # Looking -------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[tuple[str, str] | Finding]:
        """Every file of the store, with the other store it is in; and folders that are closed."""
        if self._selection.study and not self._studies.tells:
            return
        self._records.push_folder("", "")
        while (found := self._records.pop_folder()) is not None:
            folder, inside = found
            try:
                # A store below this one keeps its own there, as this one does.
                if folder and exists(f"{folder}/{HOME}", self._dir_fd):
                    inside = folder
                with read_folder(self._dir_fd, folder or ".") as entries:
                    yield from self._enter(folder, inside, entries)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                yield Finding(Kind.UNREADABLE, folder, reason_for(error))

    def _enter(
        self, folder: str, inside: str, entries: Iterator[os.DirEntry[str]]
    ) -> Iterator[tuple[str, str]]:
        """The files in a folder; the folders in it are kept for later."""
        studies = self._studies if self._selection.study else None
        way = studies.way(folder) if studies is not None else ()
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if path in _NOT_OURS:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if studies is not None and not studies.takes(way, entry.name, is_folder=is_folder):
                continue
            if not is_folder:
                yield path, inside
            elif entry.name != HOME:
                self._records.push_folder(path, inside)

    def _look(self, path: str, record: Record | None, inside: str) -> None:
        """Look at one path, and keep or drop a doubt about it."""
        finding = self._judge(path, record, inside)
        if finding is None:
            self._doubts.pop(path, None)
        else:
            sequence = -1 if record is None else record.sequence
            self._doubts[path] = _Doubt(finding, sequence)
            self._fresh += 1

    def _judge(self, path: str, record: Record | None, inside: str) -> Finding | None:
        origin = None if record is None else record.origin
        try:
            if record is None:
                return self._judge_unjournaled(path, inside)
            why = difference(
                self._dir_fd, path, record.size, record.digest, record.header, self._pace
            )
        except (FileNotFoundError, NotADirectoryError):
            if record is None:
                return None  # gone again
            why = f"journaled with {record.size} bytes, and not there"
            return Finding(Kind.MISSING, path, why, origin=origin)
        except OSError as error:
            return Finding(Kind.UNREADABLE, path, reason_for(error), origin=origin)
        if why:
            return Finding(Kind.CHANGED, path, why, origin=origin)
        if not is_checked(record.digest):
            self.unchecked += 1
            self.unproven += record.buffered
        return None

    def _judge_unjournaled(self, path: str, inside: str) -> Finding | None:
        found = status_at(path, self._dir_fd)
        since = self._selection.since
        if since is not None and found.st_ctime < since.timestamp():
            return None
        why = "the journal has no line for it"
        if inside:
            why += f"; it is in another store, {inside}: verify that one by itself"
        return Finding(Kind.UNJOURNALED, path, why, inside=inside)

    # Doubts --------------------------------------------------------------------------------------

    def _told(self) -> Iterator[Finding]:
        """From time to time: what is no matter of the moment any more."""
        doubts = self._doubts
        if not doubts:
            return
        late = time.monotonic() - self._asked_at >= _DOUBT_S
        if self._alone or late or self._fresh >= _DOUBTS:
            yield from self._tell_old()
            while len(doubts) > _DOUBTS_MOST:
                time.sleep(_LOOK_AGAIN_S)
                yield from self._tell_old()

    def _tell_old(self) -> Iterator[Finding]:
        """Findings that a line which is still to come cannot explain."""
        self._ask_again()
        for path, doubt in list(self._doubts.items()):
            if self._alone or not self._is_young(path):
                del self._doubts[path]
                yield doubt.finding

    def _ask_again(self) -> None:
        """Look again at what was journaled meanwhile."""
        self._asked_at = time.monotonic()
        if self._alone:
            return
        self._records.read()
        for path, doubt in list(self._doubts.items()):
            record = self._records.find(path)
            sequence = -1 if record is None else record.sequence
            if sequence == doubt.sequence:
                continue
            if doubt.finding.kind is not Kind.MISSING:
                self._records.see(path)
            if record is not None and not record.wanted:
                del self._doubts[path]
            else:
                self._look(path, record, doubt.finding.inside)
        self._fresh = 0

    def _settle(self) -> Iterator[Finding]:
        """Whatever is left, waiting for what is young."""
        deadline = time.monotonic() + self._patience_s
        yield from self._tell_old()
        while self._doubts and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)
            yield from self._tell_old()
        for doubt in self._doubts.values():
            yield doubt.finding
        self._doubts.clear()

    def _is_young(self, path: str) -> bool:
        """Whether the path got its file so short a time ago that its line may be under way."""
        try:
            found = status_at(path, self._dir_fd)
        except OSError:
            return False
        # A file server's clock may be ahead of ours.
        return abs(time.time() - found.st_ctime) < self._patience_s

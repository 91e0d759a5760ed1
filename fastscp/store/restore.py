"""How a replacement ends: the older content goes, or has its path again, by what the journal says.

Theory of operation: while an instance takes the place of another one, `replaced` keeps the older
content. The commit's result decides: once the newer line is flushed, the older content goes; if the
newer instance was refused, the older one comes back, and a line with a higher `seq` says again what
the path holds. Both happen under the path's lock, before anybody else can be at the path. What a
life that was killed left is decided by the journal: whether a line of the path is above the number
in the record. That happens at the next start, in `fastscp verify`, when the main process has buried
the worker, or when the next instance of the path comes, whichever is first.

Each step may be the last one of a life, and all may be taken again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fastscp.store import replaced
from fastscp.store.journal import (
    Segments,
    append_fact,
    describes_file,
    find_path,
    parse_line,
    segment_names,
    time_text,
    whole_lines,
)
from fastscp.store.names import (
    JOURNAL,
    descriptor,
    flush_folder_at,
    names_in,
    open_file,
    open_folder,
)
from fastscp.store.reading import NoInstanceError, describe, difference
from fastscp.store.waits import Doubt, NotYetError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastscp.store.replaced import Record
    from fastscp.store.waits import Batches

__all__ = ["RESTORED", "Known", "Lines", "Replaced", "Secured", "Settled", "Settlement", "known_of"]

# What `duplicate` says in a line that says again what a path holds.
RESTORED: Final = "restored"


# Lines -------------------------------------------------------------------------------------------


class Lines:
    """Writes the lines that say again what a path holds, each flushed. For all threads.

    start, writer: name the life, see `Segments`. number: gives the next `seq`. worker: as it stands
    in the lines. The file is made with the first line.
    """

    def __init__(
        self, store_fd: int, start: str, writer: str, number: Callable[[], int], worker: str
    ) -> None:
        self.number = number
        self._worker = worker
        self._segments = Segments(store_fd, start, writer, durable=True)
        self._lock = threading.Lock()
        self._fd = -1

    def write(self, event: str, members: dict[str, Any]) -> None:
        """Append a line. members: all that is not of the line itself.

        Raises OSError; the next line goes to another file then.
        """
        now = time_text(datetime.now(UTC))
        with self._lock:
            if self._fd < 0:
                self._fd, _size = self._segments.next()
            head = {"v": 1, "event": event, "seq": self.number(), "time": now}
            try:
                append_fact(self._fd, {**head, "worker": self._worker, **members})
                os.fdatasync(self._fd)
                if not self._segments.is_in_place(self._fd):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), JOURNAL)
            except BaseException:
                self._fd = -1
                raise

    def close(self) -> None:
        """Close the file. Off the loop."""
        self._segments.close()


@dataclass
class Known:
    """What the journal says of a path: the latest line below a number, and the latest above it.

    segment: that has the second.
    """

    older: dict[str, Any] | None = None
    newer: dict[str, Any] | None = None
    segment: str = ""

    def note(self, fact: dict[str, Any], sequence: int, segment: str) -> None:
        if fact["seq"] > sequence:
            if self.newer is None or fact["seq"] > self.newer["seq"]:
                self.newer, self.segment = fact, segment
        elif self.older is None or fact["seq"] > self.older["seq"]:
            self.older = fact


_PATH: Final = b'"path":"'


def known_of(store_fd: int, records: Collection[Record]) -> dict[str, Known]:
    """What the journal says of the paths of the records; one reading of all of it."""
    known = {record.path: Known() for record in records}
    sequences = {record.path: record.sequence for record in records}
    wanted = {os.fsencode(path) for path in known}
    try:
        names = segment_names(store_fd)
    except FileNotFoundError:
        return known
    for name in names:
        with (
            contextlib.suppress(FileNotFoundError),
            os.fdopen(open_file(f"{JOURNAL}/{name}", store_fd), "rb") as file,
        ):
            for line, _size in whole_lines(file):
                begin = line.find(_PATH) + len(_PATH)
                path = line[begin : line.find(b'"', begin)]
                # What JSON escapes does not stand in the line as it is.
                if path not in wanted and b"\\" not in path:
                    continue
                fact = parse_line(line.rstrip(b"\n"))
                if fact is not None and fact.get("path") in known and describes_file(fact):
                    known[fact["path"]].note(fact, sequences[fact["path"]], name)
    return known


def _known_at(store_fd: int, record: Record) -> Known:
    """What the journal says of the path of one record."""
    with contextlib.suppress(FileNotFoundError):
        latest = find_path(store_fd, record.path)
        if latest is None or latest["seq"] <= record.sequence:
            return Known(latest)
    return known_of(store_fd, [record])[record.path]


# One path ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settled:
    """How a replacement ended. undone: the older content is at its path again, if it was kept."""

    path: str
    undone: bool


class Replaced:
    """The replacements of one process. batches: those that may still write lines; None: none."""

    def __init__(self, store_fd: int, lines: Lines, batches: Batches | None = None) -> None:
        self.store_fd = store_fd
        self.lines = lines
        self.batches = batches

    def keep(self, path: str, lock: int) -> None:
        """Keep what the file at a path holds, before another one takes the path. Raises OSError."""
        replaced.keep(self.store_fd, path, lock, self.lines.number())

    def failed(self, path: str) -> None:
        """Let go of what was kept, if nothing took the path; else it is left to be settled."""
        with contextlib.suppress(OSError):
            if replaced.is_kept_at(self.store_fd, path):
                replaced.drop(self.store_fd, path)

    def left_at(self, path: str) -> Settlement | None:
        """What settles the replacement that an earlier holder of the path's lock left, if any."""
        return Settlement(self, path) if replaced.is_left(self.store_fd, path) else None


class Settlement:
    """The end of one replacement. The path's lock is held until it is through.

    refused: whether the newer instance was; None: the journal tells, for whoever replaced the older
    content is gone.
    """

    def __init__(self, of: Replaced, path: str, *, refused: bool | None = None) -> None:
        self.path = path
        self._of = of
        self._store_fd = of.store_fd
        self._refused = refused
        self._doubt: Doubt | None = None

    def refuse(self) -> None:
        """The newer instance is refused after all."""
        self._refused = True

    def attempt(self, known: Known | None = None) -> Settled | None:
        """Finish or undo it; None: not yet, a line is on its way: try again.

        known: what the journal says, where somebody has read it. Raises OSError, and what is kept
        stays so, and its record.
        """
        try:
            record = replaced.read_record(self._store_fd, self.path)
        except FileNotFoundError:
            # Nothing was in the place, or all is done.
            return Settled(self.path, undone=False)
        except replaced.TornError:
            if not replaced.remove_torn(self._store_fd, replaced.stem_of(self.path)):
                raise
            return Settled(self.path, undone=False)
        if self._refused is None:
            known = known or _known_at(self._store_fd, record)
            self._refused = not self._has_newer(record, known)
        if not self._refused:
            replaced.drop(self._store_fd, self.path)
            return Settled(self.path, undone=False)
        try:
            self._undo(record, known)
        except NotYetError:
            return None
        return Settled(self.path, undone=True)

    def _has_newer(self, record: Record, known: Known) -> bool:
        """Whether the newer instance was journaled, and is there; both are flushed then.

        Of a buffered one a power cut may have kept the line and not the name.
        """
        if record.undo or known.newer is None or replaced.is_kept_at(self._store_fd, self.path):
            return False
        try:
            with descriptor(open_file(self.path, self._store_fd)) as fd:
                os.fsync(fd)
        except FileNotFoundError:
            return False
        replaced.flush_way(self._store_fd, self.path)
        with descriptor(open_file(f"{JOURNAL}/{known.segment}", self._store_fd)) as fd:
            os.fsync(fd)
        flush_folder_at(self._store_fd, JOURNAL)
        return True

    def _undo(self, record: Record, known: Known | None) -> None:
        """Raises NotYetError, OSError."""
        if self._doubt is None:
            self._decide(record)
            replaced.put_back(self._store_fd, self.path)
        self._wait()
        if known is None or self._doubt is not None:
            known = _known_at(self._store_fd, record)
        if known.older is None and self._doubt is None and self._of.batches is not None:
            self._doubt = Doubt(self._of.batches)
            self._wait()
            known = _known_at(self._store_fd, record)
        self._say_again(known)
        replaced.drop(self._store_fd, self.path)

    def _decide(self, record: Record) -> None:
        """Note that the older content comes back, though a newer line may stand in the journal.

        A disk that is full takes no note, and no line either: then the journal says the same.
        """
        try:
            replaced.decide_undo(self._store_fd, record)
        except OSError:
            if _known_at(self._store_fd, record).newer is not None:
                raise

    def _wait(self) -> None:
        """For the line of the older content, which its commit may not have written yet."""
        # A batch that does not end is stuck with its disk: its instances have no answer.
        with contextlib.suppress(TimeoutError):
            if self._doubt is not None:
                self._doubt.look()

    def _say_again(self, known: Known) -> None:
        """Write the line that is true of the path, above that of a newer instance.

        What was never journaled is not called stored by this. If a line of the refused instance
        stands in the journal, only a line from the file itself takes that back.
        """
        if known.newer is not None and known.newer.get("duplicate") == RESTORED:
            return
        event, members = self._truth(known)
        if not members:
            return
        try:
            self._of.lines.write(event, {**members, "duplicate": RESTORED})
        except OSError:
            # Without a newer line it only hastens what `verify` finds beside a service.
            if known.newer is not None:
                raise

    def _truth(self, known: Known) -> tuple[str, dict[str, Any]]:
        """Event and members of a line that is true of the path; none where nobody needs one."""
        try:
            if known.older is not None and not self._differs(known.older):
                members = {k: v for k, v in known.older.items() if k not in _OF_THE_LINE}
                if known.older.get("duplicate") == "identical":
                    # The file has the titles of whoever sent it first; nobody is to compare them.
                    members.pop("calling_ae", None)
                    members.pop("called_ae", None)
                return known.older["event"], members
            if known.newer is not None:
                return "adopted", describe(self._store_fd, self.path).members | {"suspect": True}
        except (FileNotFoundError, NoInstanceError):
            # `verify` names it: a line without its file, or a file that is no instance.
            pass
        return "", {}

    def _differs(self, fact: dict[str, Any]) -> str:
        return difference(self._store_fd, self.path, fact["bytes"], fact.get("digest", ""))


_OF_THE_LINE: Final = frozenset({"v", "event", "seq", "time", "worker", "duplicate", "crc"})


class Secured:
    """Flushes what a buffered commit wrote, for an instance that took the place of another one.

    stem: what the names of the life's buffered segments begin with. For all threads.
    """

    def __init__(self, store_fd: int, stem: str) -> None:
        self._store_fd = store_fd
        self._stem = f"{stem}-"
        self._sizes: dict[str, int] = {}

    def flush(self, path: str) -> None:
        """Flush the folders above a path, and the lines written so far. Raises OSError."""
        replaced.flush_way(self._store_fd, path)
        with descriptor(open_folder(JOURNAL, self._store_fd)) as folder_fd:
            names = [name for name in names_in(folder_fd) if name.startswith(self._stem)]
            if not names or not self._sizes.keys() <= set(names):
                # The journal, or a file of it, lies elsewhere: with the line, for all we know.
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), JOURNAL)
            for name in names:
                with descriptor(open_file(name, folder_fd)) as fd:
                    size = os.fstat(fd).st_size
                    if self._sizes.get(name) != size:
                        os.fdatasync(fd)
                        self._sizes[name] = size
        flush_folder_at(self._store_fd, JOURNAL)

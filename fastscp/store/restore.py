"""How a replacement ends: the older content goes, or has its path again, by what is noted of it.

Theory of operation: while an instance takes the place of another one, `replaced` keeps the older
content. The commit's result decides: once the newer line is flushed, that is noted, and the older
content goes; if the newer instance was refused, the older one comes back, and a line with a higher
`seq` says again what the path holds. Both happen under the path's lock, before anybody else can be
at the path, and before the sender is answered. So whatever a life left that was killed, or could
not write any more, is decided by the note alone: without it nobody was told that the newer instance
is stored, though its line may stand in the journal, and the older content comes back. That happens
at the next start, in `fastscp verify`, when the main process has buried the worker, or when the
next instance of the path comes, whichever is first.

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
from fastscp.store.compress import twin
from fastscp.store.flushes import Flushes
from fastscp.store.journal import (
    Segments,
    append_fact,
    facts_about,
    find_path,
    parse_line,
    path_bytes,
    says_what_is,
    segment_names,
    time_text,
    whole_lines,
)
from fastscp.store.names import (
    JOURNAL,
    descriptor,
    exists,
    flush_folder_at,
    names_in,
    open_file,
    open_folder,
)
from fastscp.store.reading import NoInstanceError, describe, difference
from fastscp.store.replaced import Record
from fastscp.store.waits import Doubt, NotYetError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from fastscp.store.waits import Batches

__all__ = ["RESTORED", "Lines", "Reading", "Replaced", "Secured", "Settled", "Settlement"]

# As many bytes as the service writes to a file of the journal before it begins another.
_SEGMENT_BYTES: Final = 64 << 20
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
        self._store_fd = store_fd
        self._start = start
        self._writer = writer
        self._segments: Segments | None = None
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0

    def write(self, event: str, members: dict[str, Any]) -> int:
        """Append a line; returns its number. members: all that is not of the line itself.

        Raises OSError; the next line goes to another file then, and one without a line goes.
        """
        now = time_text(datetime.now(UTC))
        with self._lock:
            segments = self._begun()
            if self._fd >= 0 and self._size >= _SEGMENT_BYTES:
                self._leave()
            if self._fd < 0:
                self._fd = segments.open()
            number = self.number()
            head = {"v": 1, "event": event, "seq": number, "time": now}
            try:
                size = append_fact(self._fd, {**head, "worker": self._worker, **members})
                os.fdatasync(self._fd)
                if not segments.is_in_place(self._fd):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), JOURNAL)
            except BaseException:
                if self._size:
                    self._leave()
                else:
                    # A bad disk does not fill the journal with files.
                    fd, self._fd = self._fd, -1
                    with contextlib.suppress(OSError):
                        segments.withdraw(fd)
                raise
            self._size += size
            return number

    def _begun(self) -> Segments:
        if self._segments is None:
            # A file system that cannot flush folders is good enough for a buffered service.
            durable = flush_folder_at(self._store_fd, JOURNAL)
            self._segments = Segments(self._store_fd, self._start, self._writer, durable=durable)
        return self._segments

    def _leave(self) -> None:
        fd, self._fd, self._size = self._fd, -1, 0
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close the file. Off the loop."""
        self._leave()


@dataclass
class Known:
    """What the journal says of a path: the latest line below a number, and the latest above it."""

    older: dict[str, Any] | None = None
    newer: dict[str, Any] | None = None

    def note(self, fact: dict[str, Any], sequence: int) -> None:
        if fact["seq"] > sequence:
            if self.newer is None or fact["seq"] > self.newer["seq"]:
                self.newer = fact
        elif self.older is None or fact["seq"] > self.older["seq"]:
            self.older = fact


_PATH: Final = b'"path":"'
# Paths for which a segment is looked through one after the other, without the interpreter.
_FEW: Final = 8


class Reading:
    """What the journal says of the paths of some records; read once, as much as is asked for.

    Nobody may be about to write a line of these paths. For all threads.
    """

    def __init__(self, store_fd: int, records: Collection[Record]) -> None:
        self._store_fd = store_fd
        self._records = records
        self._known: dict[str, Known] | None = None
        self._lock = threading.Lock()

    def of(self, path: str) -> Known:
        """What it says of one path. Raises OSError."""
        with self._lock:
            if self._known is None:
                self._known = _known_of(self._store_fd, self._records)
            return self._known[path]


def _known_of(store_fd: int, records: Collection[Record]) -> dict[str, Known]:
    """What the journal says of the paths of the records; one reading of all of it."""
    known = {record.path: Known() for record in records}
    sequences = {record.path: record.sequence for record in records}
    with (
        contextlib.suppress(FileNotFoundError),
        descriptor(open_folder(JOURNAL, store_fd)) as folder_fd,
    ):
        for name in segment_names(store_fd):
            with contextlib.suppress(FileNotFoundError):
                for fact in _facts(folder_fd, name, known):
                    known[fact["path"]].note(fact, sequences[fact["path"]])
    return known


def _facts(folder_fd: int, name: str, paths: Collection[str]) -> Iterator[dict[str, Any]]:
    """The facts of a segment that say what the files at these paths are."""
    if len(paths) <= _FEW:
        for path in paths:
            for _offset, fact in facts_about(folder_fd, name, path):
                yield fact
        return
    wanted = set(map(path_bytes, paths))
    for line in _lines_in(folder_fd, name):
        begin = line.find(_PATH) + len(_PATH)
        # What JSON escapes does not stand in the line as it is.
        if line[begin : line.find(b'"', begin)] not in wanted and b"\\" not in line:
            continue
        found = parse_line(line.rstrip(b"\n"))
        if found is not None and says_what_is(found) and found["path"] in paths:
            yield found


def _lines_in(folder_fd: int, name: str) -> Iterator[bytes]:
    """The lines of a file in the journal's folder, see `whole_lines`."""
    with os.fdopen(open_file(name, folder_fd), "rb") as file:
        for line, _size in whole_lines(file):
            yield line


# One path ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settled:
    """How a replacement ended. undone: the older content is at its path again, if it was kept."""

    path: str
    undone: bool


class Replaced:
    """The replacements of one process.

    batches: those that may still write lines; None: none. flushes: of the process; None: it has no
    others.
    """

    def __init__(
        self,
        store_fd: int,
        lines: Lines,
        batches: Batches | None = None,
        flushes: Flushes | None = None,
    ) -> None:
        self.store_fd = store_fd
        self.lines = lines
        self.batches = batches
        self.flushes = flushes or Flushes(store_fd)

    def keep(
        self, path: str, lock: int, *, doubtful: bool = False, beside: str = "", inode: int = 0
    ) -> None:
        """Keep what the file at a path holds, before another one takes the path. Raises OSError.

        doubtful, beside, inode: as in `Record`.
        """
        record = Record(
            path, lock, self.lines.number(), beside=beside, inode=inode, doubtful=doubtful
        )
        replaced.keep(self.flushes, record)

    def failed(self, path: str) -> None:
        """Let go of what was kept, if nothing took the path; else it is left to be settled."""
        with contextlib.suppress(OSError):
            if _is_unchanged(self.store_fd, replaced.read_record(self.store_fd, path)):
                replaced.drop(self.flushes, path)

    def left_at(self, path: str) -> Settlement | None:
        """What settles the replacement that an earlier holder of the path's lock left, if any."""
        return Settlement(self, path) if replaced.is_left(self.store_fd, path) else None


class Settlement:
    """The end of one replacement. The path's lock is held until it is through.

    refused: whether the newer instance was; None: what is kept tells, for whoever replaced the
    older content is gone.

    error_no: why the newer instance is refused after all, 0: it is not. decided: it stays, whatever
    becomes of the older one. beside: it was to stand beside its other form. unsure: a note that it
    stays may be on the disk, and what is kept may have lost its name there: nobody may be told that
    it is refused before `attempt` has changed that.
    """

    def __init__(self, of: Replaced, path: str, *, refused: bool | None = None) -> None:
        self.path = path
        self._of = of
        self._store_fd = of.store_fd
        self._flushes = of.flushes
        self._refused = refused
        self._is_left = refused is None
        self.error_no = 0
        self.decided = False
        self.beside = False
        self.unsure = False
        self._doubt: Doubt | None = None

    def refuse(self, error_no: int) -> None:
        """The newer instance is refused after all."""
        self._refused = True
        self.error_no = error_no

    def attempt(self, reading: Reading | None = None) -> Settled | None:
        """Finish or undo it; None: not yet, a line is on its way: try again.

        reading: of the journal, where somebody has it. Raises OSError, and what is kept stays so,
        and its record.
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
        reading = reading or Reading(self._store_fd, [record])
        self.beside = bool(record.beside)
        if self._refused is None:
            self._refused = record.refused or replaced.is_kept(self._store_fd, self.path)
        if not self._refused and self._is_decided():
            has_newer = replaced.is_over(self._store_fd, self.path)
            replaced.drop(self._flushes, self.path)
            return Settled(self.path, undone=not has_newer)
        try:
            self._undo(record, reading)
        except NotYetError:
            return None
        return Settled(self.path, undone=True)

    def _is_decided(self) -> bool:
        """Note that the newer instance stays; False: that failed, and it is refused.

        Its sender is answered only after that. Raises OSError.
        """
        try:
            replaced.decide(self._flushes, self.path)
        except OSError as error:
            if self._is_left:
                raise
            self.refuse(error.errno or errno.EIO)
            self.unsure = isinstance(error, replaced.UnsureError)
            return False
        self.decided = True
        return True

    def _is_revoked(self) -> bool:
        """Note the refusal where a note that the newer instance stays may be on the disk."""
        # What follows may have the same effect: the older content has its path again, and its line.
        with contextlib.suppress(OSError):
            replaced.refuse(self._store_fd, self.path)
            return True
        return False

    def _withdraw(self, record: Record, known: Known) -> None:
        """Have a refused instance count for nothing that stands beside its other form.

        That one was acknowledged, and is where it was; the line with the highest `seq` counts.
        Raises OSError.
        """
        if known.newer is None:
            # Without a line it would be adopted some day.
            replaced.take_away(self._flushes, record)
        elif exists(record.beside, self._store_fd):
            theirs = find_path(self._store_fd, record.beside)
            if theirs is None or theirs["seq"] < known.newer["seq"]:
                self._say(record.beside, Known(theirs, known.newer))

    def _undo(self, record: Record, reading: Reading) -> None:
        """Raises NotYetError, OSError."""
        is_revoked = self.unsure and self._is_revoked()
        if self._doubt is None:
            try:
                replaced.put_back(self._flushes, record)
            finally:
                # Only once it has its path: the flush that failed was that of the folder where it
                # is kept. If that of the path's folder fails, too, another would mean nothing: the
                # record is all there is, and a rename that is on the disk in one step or not.
                if is_revoked and self._is_back(record):
                    self.unsure = False
        else:
            reading = Reading(self._store_fd, [record])
        self._wait()
        known = reading.of(self.path)
        if known.older is None and self._doubt is None and self._of.batches is not None:
            self._doubt = Doubt(self._of.batches)
            self._wait()
            known = Reading(self._store_fd, [record]).of(self.path)
        if record.beside:
            self._withdraw(record, known)
        else:
            self._say_again(known)
        self.unsure = False
        replaced.drop(self._flushes, self.path, undone=True)

    def _is_back(self, record: Record) -> bool:
        """Whether the older content has its path, as far as memory tells."""
        with contextlib.suppress(OSError):
            return bool(record.beside) or replaced.has_path(self._store_fd, self.path)
        return False

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
            said = known.newer["seq"]
        else:
            said = self._say(self.path, known)
        if said:
            self._say_of_twin(known.older, said)

    def _say_of_twin(self, older: dict[str, Any] | None, said: int) -> None:
        """Where the other form of the instance counted before, its line is the highest again.

        older: what the path's line was before; said: the number of the one that says it again.
        """
        other = twin(self.path)
        if not exists(other, self._store_fd):
            return
        theirs = find_path(self._store_fd, other)
        before = -1 if older is None else older["seq"]
        if theirs is not None and before < theirs["seq"] < said:
            self._say(other, Known(theirs, theirs))

    def _say(self, path: str, known: Known) -> int:
        """Write the line that is true of a path; its number, 0: there is none. Raises OSError."""
        event, members = self._truth(path, known)
        if not members:
            return 0
        try:
            return self._of.lines.write(event, {**members, "duplicate": RESTORED})
        except OSError:
            # Without a newer line it only hastens what `verify` finds beside a service.
            if known.newer is not None:
                raise
            return 0

    def _truth(self, path: str, known: Known) -> tuple[str, dict[str, Any]]:
        """Event and members of a line that is true of the path; none where nobody needs one."""
        try:
            if known.older is not None and not self._differs(path, known.older):
                members = {k: v for k, v in known.older.items() if k not in _OF_THE_LINE}
                if known.older.get("duplicate") == "identical":
                    # The file has the titles of whoever sent it first; nobody is to compare them.
                    members.pop("calling_ae", None)
                    members.pop("called_ae", None)
                return known.older["event"], members
            if known.newer is not None:
                return "adopted", describe(self._store_fd, path).members | {"suspect": True}
        except (FileNotFoundError, NoInstanceError):
            # `verify` names it: a line without its file, or a file that is no instance.
            pass
        return "", {}

    def _differs(self, path: str, fact: dict[str, Any]) -> str:
        """How the file at a path differs from what a line says; "": not at all."""
        size, digest = fact.get("bytes"), fact.get("digest", "")
        if type(size) is not int or not isinstance(digest, str):
            return "the line does not tell what it holds"
        return difference(self._store_fd, path, size, digest)


def _is_unchanged(store_fd: int, record: Record) -> bool:
    """Whether the path holds what is kept of it, or nothing."""
    if record.beside:
        return not replaced.is_newer_at(store_fd, record)
    path = record.path
    return replaced.is_kept_at(store_fd, path) or replaced.has_same_bytes(store_fd, path)


_OF_THE_LINE: Final = frozenset({"v", "event", "seq", "time", "worker", "duplicate", "crc"})


class Secured:
    """Flushes what a buffered commit wrote, for an instance that took the place of another one.

    stem: what the names of the life's buffered segments begin with. flushes: of the process. For
    all threads.
    """

    def __init__(self, store_fd: int, stem: str, flushes: Flushes | None = None) -> None:
        self._store_fd = store_fd
        self._stem = f"{stem}-"
        self._flushes = flushes or Flushes(store_fd)
        self._sizes: dict[str, int] = {}
        # What a segment held when a flush of it failed: no other flush says anything of that.
        self._lost: dict[str, int] = {}

    def flush(self, path: str) -> None:
        """Flush the folders above a path, and the lines written so far. Raises OSError."""
        self._flushes.way(path)
        with descriptor(open_folder(JOURNAL, self._store_fd)) as folder_fd:
            names = [name for name in names_in(folder_fd) if name.startswith(self._stem)]
            if not names or not self._sizes.keys() <= set(names):
                # The journal, or a file of it, lies elsewhere: with the line, for all we know.
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), JOURNAL)
            for name in names:
                with descriptor(open_file(name, folder_fd)) as fd:
                    size = os.fstat(fd).st_size
                    if self._sizes.get(name) != size:
                        self._flush(fd, name)
                        self._sizes[name] = size
            for name, size in list(self._lost.items()):
                *_, last = -1, *(at for at, _fact in facts_about(folder_fd, name, path))
                if 0 <= last < size:
                    raise OSError(errno.EIO, "a flush of the line failed before", JOURNAL)
        self._flushes.folder(JOURNAL)

    def _flush(self, fd: int, name: str) -> None:
        try:
            os.fdatasync(fd)
        except OSError:
            # Also what was written meanwhile.
            self._lost[name] = os.fstat(fd).st_size
            raise

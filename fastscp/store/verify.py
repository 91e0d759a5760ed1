"""The journal and the files held against each other, and what can be put right.

Works beside a running service. Memory: one small record (about 500 bytes) per journaled path.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastscp.errors import StartError, StoreBusyError
from fastscp.store.directory import SUSPECT, existing, held, suspicion, trust
from fastscp.store.folders import HOME, flush_folder, read_folder
from fastscp.store.journal import (
    FOLDER,
    Segments,
    append_fact,
    describes_file,
    last_sequence,
    parse_line,
    segment_names,
)
from fastscp.store.reading import NoInstanceError, describe, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fastscp.store.directory import Suspicion

__all__ = ["Finding", "Kind", "Mark", "Report", "Watcher", "verify"]

# How long something that is younger than this may take to be named and journaled.
_PATIENCE_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.2
# Instances adopted by one flush of the journal, and bytes after which it gets a new file.
_BATCH: Final = 256
_SEGMENT_BYTES: Final = 64 << 20
# File systems have one of their own at the top.
_NOT_OURS: Final = frozenset({HOME, "lost+found"})


class Kind(StrEnum):
    """What may be found."""

    MISSING = "missing"  # journaled, and no file is there
    CHANGED = "changed"  # not what the latest line of the path says
    UNREADABLE = "unreadable"
    UNJOURNALED = "unjournaled"  # a file without a line
    DAMAGED = "damaged"  # a line of the journal, `path` being its file's


class Mark(StrEnum):
    """What became of the mark that an unclean buffered life left on the store."""

    NONE = "none"  # there was none
    LIFTED = "lifted"
    STAYS = "stays"  # something is not as it should be
    IN_USE = "in use"  # it stays, because a service is using the store


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    path: below the store. why: for a reader. settled: how this run put it right, "" if it did not.
    """

    kind: Kind
    path: str
    why: str
    settled: str = ""


@dataclass(frozen=True)
class Report:
    """What a run found.

    lines: whole lines in the journal. files, bytes: what was read, and the data sets in it. torn:
    journal files that end inside a line, as a crash leaves them; never acknowledged, no finding.
    """

    lines: int
    files: int
    bytes: int
    torn: int
    findings: tuple[Finding, ...]
    mark: Mark

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be put right."""
        return all(finding.settled for finding in self.findings)


class Watcher(Protocol):
    """Told how far it is: files, and bytes of their data sets, out of about `total`."""

    def __call__(self, *, files: int, size: int, total: int) -> None: ...


def verify(
    path: Path,
    *,
    adopt: bool = False,
    repair_journal: bool = False,
    watcher: Watcher | None = None,
    patience_s: float = _PATIENCE_S,
) -> Report:
    """Hold the files of the store at `path` against its journal.

    adopt: write lines for unjournaled instances. repair_journal: replace journal files with damaged
    lines by ones without. Both need the store's lock. patience_s: how long a young file may wait
    for its line, where a service may be running.
    Raises StartError where there is no store, StoreBusyError where the lock is needed and not to be
    had, OSError where the store or its journal as a whole cannot be read or written.
    """
    with existing(path) as dir_fd, contextlib.ExitStack() as locked:
        alone = adopt or repair_journal
        if alone:
            locked.enter_context(held(path, dir_fd))
        mark = suspicion(dir_fd)
        run = _Run(dir_fd, watcher)
        findings = sorted(run.compare(0.0 if alone else patience_s), key=_order)
        damaged = list(run.damaged())
        if repair_journal:
            damaged = list(_repair(dir_fd, damaged))
        if adopt:
            adoption = _Adoption(dir_fd, suspect=bool(mark))
            findings = sorted(adoption.adopt(findings), key=_order)
        everything = (*damaged, *findings)
        report = Report(
            run.journal.lines, run.files, run.bytes, len(run.journal.torn), everything, Mark.NONE
        )
        return replace(report, mark=_judge_mark(path, dir_fd, mark, alone, report.clean))


def _order(finding: Finding) -> tuple[str, str]:
    return finding.kind, finding.path


def _judge_mark(path: Path, dir_fd: int, mark: Suspicion, alone: bool, clean: bool) -> Mark:
    """Lift the mark of an unclean end where nothing is wrong and nobody uses the store.

    mark: what it was before anything was read: one that came later says something new.
    """
    if not mark:
        return Mark.NONE
    try:
        with contextlib.nullcontext() if alone else held(path, dir_fd):
            if not clean or suspicion(dir_fd) != mark:
                return Mark.STAYS
            trust(dir_fd)
            return Mark.LIFTED
    except StoreBusyError:
        # Of a buffered life that goes on, the mark says nothing yet.
        return Mark.IN_USE if any(name == SUSPECT for name, *_ in mark) else Mark.NONE
    except StartError:
        return Mark.STAYS


# The journal ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Record:
    """What the latest line of a path says."""

    sequence: int
    size: int
    digest: str
    seen: bool = False


class _Journal:
    """All there is to know from the journal; `read` goes on where it ended the last time."""

    def __init__(self, dir_fd: int) -> None:
        self._dir_fd = dir_fd
        # How far each file was read: bytes and lines.
        self._read: dict[str, tuple[int, int]] = {}
        self.records: dict[str, _Record] = {}
        self.damaged: list[tuple[str, int]] = []
        self.torn: set[str] = set()
        self.lines = 0

    def read(self) -> None:
        """Take in what is new. Raises OSError."""
        for name in segment_names(self._dir_fd):
            with contextlib.suppress(FileNotFoundError):  # compacted away meanwhile
                self._read_segment(name)

    def _read_segment(self, name: str) -> None:
        at, number = self._read.get(name, (0, 0))
        self.torn.discard(name)
        fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dir_fd)
        with os.fdopen(fd, "rb") as file:
            file.seek(at)
            for line in file:
                fact = parse_line(line.rstrip(b"\n"))
                if not line.endswith(b"\n"):
                    # The writer is at it, or died at it. Read again when it is longer.
                    if fact is None:
                        self.torn.add(name)
                    else:
                        self._note(fact)
                    break
                at += len(line)
                number += 1
                if fact is None:
                    self.damaged.append((name, number))
                else:
                    self.lines += 1
                    self._note(fact)
        self._read[name] = (at, number)

    def _note(self, fact: dict[str, Any]) -> None:
        if not describes_file(fact):
            return
        record = self.records.get(fact["path"])
        if record is None:
            record = self.records[fact["path"]] = _Record(-1, 0, "")
        if fact["seq"] > record.sequence:
            record.sequence = fact["seq"]
            record.size = fact["bytes"]
            record.digest = fact.get("digest", "")


# Comparing --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Doubt:
    """A finding that may be one of the moment: of something named, but not yet journaled."""

    finding: Finding
    sequence: int


class _Run:
    """One walk over journal and files."""

    def __init__(self, dir_fd: int, watcher: Watcher | None) -> None:
        self._dir_fd = dir_fd
        self._watcher = watcher
        self.journal = _Journal(dir_fd)
        self.files = 0
        self.bytes = 0

    def compare(self, patience_s: float) -> list[Finding]:
        """Look at every file and every line; returns what is wrong with files."""
        journal = self.journal
        journal.read()
        total = sum(record.size for record in journal.records.values())
        doubts: dict[str, _Doubt] = {}
        unreachable: list[Finding] = []
        for path in self._walk("", unreachable):
            record = journal.records.get(path)
            if record is not None:
                record.seen = True
            self._doubt(doubts, path)
            self.files += 1
            self.bytes += record.size if record is not None else 0
            if self._watcher is not None:
                self._watcher(files=self.files, size=self.bytes, total=total)
        for path in [path for path, record in journal.records.items() if not record.seen]:
            self._doubt(doubts, path)
        self._settle(doubts, patience_s)
        return [*unreachable, *(doubt.finding for doubt in doubts.values())]

    def damaged(self) -> Iterator[Finding]:
        for name, number in self.journal.damaged:
            yield Finding(Kind.DAMAGED, f"{FOLDER}/{name}", f"line {number}: its checksum is wrong")

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
                unreachable.append(Finding(Kind.UNREADABLE, folder, _reason(error)))

    def _doubt(self, doubts: dict[str, _Doubt], path: str) -> None:
        """Look at one path, and keep or drop a doubt about it."""
        record = self.journal.records.get(path)
        finding = self._look(path, record)
        if finding is None:
            doubts.pop(path, None)
        else:
            doubts[path] = _Doubt(finding, -1 if record is None else record.sequence)

    def _look(self, path: str, record: _Record | None) -> Finding | None:
        try:
            if record is None:
                os.stat(path, dir_fd=self._dir_fd, follow_symlinks=False)
                return Finding(Kind.UNJOURNALED, path, "the journal has no line for it")
            why = difference(self._dir_fd, path, record.size, record.digest)
            return Finding(Kind.CHANGED, path, why) if why else None
        except (FileNotFoundError, NotADirectoryError):
            if record is None:
                return None  # gone again
            return Finding(Kind.MISSING, path, f"journaled with {record.size} bytes, and not there")
        except OSError as error:
            return Finding(Kind.UNREADABLE, path, _reason(error))

    def _settle(self, doubts: dict[str, _Doubt], patience_s: float) -> None:
        """Look again at what may have been journaled meanwhile, waiting for what is young."""
        deadline = time.monotonic() + patience_s
        while doubts:
            self.journal.read()
            for path, doubt in list(doubts.items()):
                record = self.journal.records.get(path)
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
            found = os.stat(path, dir_fd=self._dir_fd, follow_symlinks=False)
        except OSError:
            return False
        return time.time() - found.st_ctime < patience_s


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


# Putting right ----------------------------------------------------------------------------------


def _repair(dir_fd: int, damaged: Iterable[Finding]) -> Iterator[Finding]:
    """Replace each journal file that has a damaged line by its whole lines."""
    kept: dict[str, str] = {}
    for finding in damaged:
        if finding.path not in kept:
            kept[finding.path] = _rewrite(dir_fd, finding.path)
        yield replace(finding, settled=f"repaired, the original is {kept[finding.path]}")


def _rewrite(dir_fd: int, path: str) -> str:
    """Leave the whole lines of a journal file under its name; returns where all its lines are now.

    At every moment its whole lines have the name. Raises OSError, and it is as it was.
    """
    new = f"{path}.new"
    kept_fd, kept = _create_beside(dir_fd, path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with (
            os.fdopen(kept_fd, "wb") as original,
            os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd), "rb") as old,
            os.fdopen(os.open(new, flags, 0o640, dir_fd=dir_fd), "wb") as file,
        ):
            for line in old:
                original.write(line)
                whole = line.rstrip(b"\n")
                if parse_line(whole) is not None:
                    file.write(whole + b"\n")
            for written in (original, file):
                written.flush()
                os.fsync(written.fileno())
        _flush_below(dir_fd, FOLDER)
        os.rename(new, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        _flush_below(dir_fd, FOLDER)
    except OSError:
        for name in (new, kept):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)
        raise
    return kept


def _create_beside(dir_fd: int, path: str) -> tuple[int, str]:
    """A new file for a damaged one, under a name that no reader takes for a part of the journal."""
    number = 1
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        name = f"{path}.damaged" if number == 1 else f"{path}.damaged{number}"
        try:
            return os.open(name, flags, 0o640, dir_fd=dir_fd), name
        except FileExistsError:
            number += 1


def _flush_below(dir_fd: int, folder: str) -> bool:
    """Flush a directory below the store, "" for the store itself; False where there is no way."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return flush_folder(fd)
    finally:
        os.close(fd)


class _Adoption:
    """Writes the lines of instances that have none; the store's lock is held.

    suspect: a buffered life ended uncleanly, so that a file may be less than was written to it.
    """

    def __init__(self, dir_fd: int, *, suspect: bool) -> None:
        self._dir_fd = dir_fd
        self._suspect = suspect
        start = f"{time.time_ns() // 1000:x}"
        durable = _flush_below(dir_fd, FOLDER)
        self._segments = Segments(dir_fd, start, f"verify-{os.getpid()}", durable=durable)
        self._sequence = last_sequence(dir_fd)
        self._journal_fd = -1
        self._journal_bytes = 0
        self._flushed: set[str] = set()

    def adopt(self, findings: list[Finding]) -> Iterator[Finding]:
        """The findings, those of adopted instances settled. Raises OSError: some are adopted."""
        try:
            batch: list[tuple[Finding, dict[str, Any]]] = []
            for finding in findings:
                if finding.kind is not Kind.UNJOURNALED:
                    yield finding
                    continue
                try:
                    batch.append((finding, self._prepare(finding.path)))
                except NoInstanceError as error:
                    yield replace(finding, why=f"{finding.why}, and it {error}: not adopted")
                except OSError as error:
                    yield Finding(Kind.UNREADABLE, finding.path, _reason(error))
                if len(batch) == _BATCH:
                    yield from self._journal(batch)
                    batch = []
            yield from self._journal(batch)
        finally:
            self._segments.close()

    def _prepare(self, path: str) -> dict[str, Any]:
        """Read an instance and make it durable; returns the members that it gives its line."""
        found = os.stat(path, dir_fd=self._dir_fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise NoInstanceError("is no regular file")
        members = describe(self._dir_fd, path)
        if self._suspect:
            if members.get("truncated"):
                raise NoInstanceError("ends inside an element after an unclean end of the service")
            members["suspect"] = True
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._dir_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        folder = path
        # All names were given before, so each directory needs it once, in any order.
        while folder:
            folder = folder.rpartition("/")[0]
            if folder not in self._flushed:
                _flush_below(self._dir_fd, folder)
                self._flushed.add(folder)
        return members

    def _journal(self, batch: list[tuple[Finding, dict[str, Any]]]) -> Iterator[Finding]:
        if not batch:
            return
        if self._journal_fd < 0 or self._journal_bytes >= _SEGMENT_BYTES:
            self._journal_fd, self._journal_bytes = self._segments.next()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for _finding, members in batch:
            self._sequence += 1
            head = {"v": 1, "event": "adopted", "seq": self._sequence, "time": now}
            self._journal_bytes += append_fact(
                self._journal_fd, {**head, "worker": "verify", **members}
            )
        os.fdatasync(self._journal_fd)
        for finding, _members in batch:
            yield replace(finding, settled="adopted")

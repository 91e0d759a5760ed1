"""The order of the commit through the redo log, proved by what reached the disk.

log file filled .. flushed < its name .. flushed < its first batch
record written .. flushed < name < journal line < response
files, folders and journal flushed < the log file renewed, or removed < its next batch
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastscp.store.journal import parse_line
from tests.kept.kit_kept import (
    BEGIN,
    FLUSH,
    LINK,
    MKDIR,
    OPEN,
    RENAME,
    SEND,
    UNLINK,
    WRITE,
    acknowledged,
    is_of_a_lane,
)
from tests.kept.redo_log import Record, batch_at
from tests.redo_files import PUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kept.kit_kept import Event

__all__ = ["Order", "lane_violations"]

_HEADER_SALT: Final = slice(16, 24)
# What a log file is called while it is made, and then.
_LOG_NAMES: Final = (".new", ".log")


class _Flush(NamedTuple):
    pid: int
    fd: int
    began: int
    ended: int


@dataclass(eq=False)
class _Logged:
    """An instance in a log. written: when its batch was; over: when the log was renewed or gone."""

    record: Record
    log: int
    pid: int
    written: int
    over: int = 0


@dataclass
class Order:
    """How many instances took the lane, how often a log file was renewed, and what was wrong."""

    laned: int = 0
    renewed: int = 0
    bad: list[str] = field(default_factory=list)


class _Events:
    """What happened, by what it happened to."""

    def __init__(self, events: Sequence[Event], store_ino: int) -> None:
        self.store = store_ino
        self.alive: dict[int, int] = {store_ino: 0}
        self.named: dict[tuple[int, str], list[tuple[int, int]]] = {}
        self.made: dict[int, tuple[int, int]] = {}
        self.folders: dict[tuple[int, str], int] = {}
        self.writes: dict[int, list[tuple[int, int, int]]] = {}
        self.flushes: dict[int, list[_Flush]] = {}
        self.logs: dict[int, list[_Logged]] = {}
        self.all: list[_Logged] = []
        self.renewals: list[tuple[int, int]] = []
        # Log file -> when it got its name, and the folder.
        self.offered: dict[int, tuple[int, int]] = {}
        self.lines: dict[int, tuple[int, int, dict[str, Any]]] = {}
        self.answers: dict[str, list[tuple[int, int]]] = {}
        self._lanes: set[int] = set()
        self._names: dict[int, str] = {}
        self._salts: dict[int, bytes] = {}
        begun: dict[tuple[int, int, int], int] = {}
        for when, event in enumerate(events):
            if event.kind in (OPEN, MKDIR):
                self.alive[event.ino] = when + 1
                self._names[self.of(event.ino)] = event.name
            match event.kind:
                case k if k == MKDIR:
                    self.made[self.of(event.ino)] = (when, self.of(event.parent))
                    self.folders[self.of(event.parent), event.name] = self.of(event.ino)
                case k if k == OPEN and is_of_a_lane(event.name):
                    self._lanes.add(self.of(event.ino))
                case k if k == WRITE:
                    self._write(when, event)
                case k if k == BEGIN:
                    begun[event.pid, event.fd, event.ino] = when
                case k if k == FLUSH and event.result == 0:
                    began = begun[event.pid, event.fd, event.ino]
                    one = _Flush(event.pid, event.fd, began, when)
                    self.flushes.setdefault(self.of(event.ino), []).append(one)
                case k if k in (RENAME, LINK):
                    given = self.named.setdefault((self.of(event.parent2), event.name2), [])
                    given.append((when, self.of(event.ino)))
                    if event.name2.endswith(".log"):
                        self.offered[self.of(event.ino)] = (when, self.of(event.parent2))
                case k if k == UNLINK and event.name.endswith(_LOG_NAMES):
                    self._renewed(when, self.of(event.ino))
                case k if k == SEND:
                    for uid, status in acknowledged(event.data):
                        if status == 0:
                            self.answers.setdefault(uid, []).append((when, event.pid))

    def of(self, ino: int) -> int:
        return self.alive.setdefault(ino, -ino)

    def _write(self, when: int, event: Event) -> None:
        it = self.of(event.ino)
        self.writes.setdefault(it, []).append((when, event.pid, event.fd))
        if it in self._lanes:
            for line in event.data.split(b"\n"):
                if (fact := parse_line(line)) is not None:
                    self.lines[fact["seq"]] = (when, it, fact)
        if not self._names.get(it, "").endswith(_LOG_NAMES):
            return
        if event.offset == 0:
            if event.data[:8] == b"FSCPREDO":
                self._salts[it] = event.data[_HEADER_SALT]
                self._renewed(when, it)
            return
        salt = int.from_bytes(self._salts.get(it, b""), "little")
        found = batch_at(event.data, 0, salt)
        for record in found[1] if found is not None else ():
            one = _Logged(record, it, event.pid, when)
            self.all.append(one)
            self.logs.setdefault(it, []).append(one)

    def _renewed(self, when: int, log: int) -> None:
        for one in self.logs.pop(log, []):
            one.over = when
        self.renewals.append((when, log))

    def flushed(self, it: int, after: int, before: int, pid: int, fd: int = -1) -> bool:
        return any(
            one.pid == pid and one.began > after and one.ended < before and fd in (-1, one.fd)
            for one in self.flushes.get(it, ())
        )


def lane_violations(events: Sequence[Event], store_ino: int) -> Order:
    """Check every instance that was answered 0000 by the lane, and every renewal of a log file."""
    seen = _Events(events, store_ino)
    order = Order(renewed=len(seen.renewals))
    puts = {one.record.seq: one for one in seen.all if one.record.kind == PUT}
    lines = {seq: line for seq, line in seen.lines.items() if seq in puts}
    for seq, line in sorted(seen.lines.items()):
        if seq not in puts:
            order.bad.append(f"{line[2]['sop_instance_uid']}: a line without a record")
    for seq, (written, segment, fact) in sorted(lines.items()):
        order.laned += 1
        uid = fact["sop_instance_uid"]
        bad = _commit(seen, puts[seq], written, fact)
        bad += _checkpoint(seen, puts[seq], written, segment, fact)
        order.bad += [f"{uid}: {one}" for one in bad]
    order.bad += _made(seen) + _batches(seen) + _answers(seen, lines)
    return order


def _way(seen: _Events, path: str) -> list[int]:
    way = [seen.of(seen.store)]
    for one in path.split("/")[:-1]:
        way.append(seen.folders[way[-1], one])
    return way


def _given(seen: _Events, fact: dict[str, Any], before: int) -> tuple[int, int] | None:
    """When the path got its file, and which."""
    folder = _way(seen, fact["path"])[-1]
    name = fact["path"].rpartition("/")[2]
    given = [one for one in seen.named.get((folder, name), ()) if one[0] < before]
    return given[-1] if given else None


def _commit(seen: _Events, one: _Logged, written: int, fact: dict[str, Any]) -> list[str]:
    """Record flushed, then the name, then the line."""
    given = _given(seen, fact, written)
    if given is None:
        return ["journal line before the name"]
    bad = []
    if not seen.flushed(one.log, one.written, given[0], one.pid):
        bad.append("the log not flushed before the name")
    if not seen.flushed(one.log, one.written, written, one.pid):
        bad.append("the log not flushed before the journal line")
    return bad


def _answers(seen: _Events, lines: dict[int, tuple[int, int, dict[str, Any]]]) -> list[str]:
    """No instance is answered before its journal line."""
    bad = []
    for written, _segment, fact in lines.values():
        uid = fact["sop_instance_uid"]
        first = min((when for when, _pid in seen.answers.get(uid, ())), default=None)
        if first is not None and first < written:
            bad.append(f"{uid}: answered before its journal line")
    return bad


def _checkpoint(
    seen: _Events, one: _Logged, written: int, segment: int, fact: dict[str, Any]
) -> list[str]:
    """File, folders and journal flushed before the log file is renewed or removed."""
    given = _given(seen, fact, written)
    if not one.over or given is None:
        return []
    bad = []
    name_given, file = given
    wrote = [write for write in seen.writes.get(file, ()) if write[0] < name_given]
    when, pid, fd = wrote[-1]
    if not seen.flushed(file, when, one.over, pid, fd):
        bad.append("log file renewed before the file is flushed by the descriptor that wrote it")
    way = _way(seen, fact["path"])
    if not seen.flushed(way[-1], name_given, one.over, one.pid):
        bad.append("log file renewed before the folder is flushed")
    for folder in way[1:]:
        made_at, parent = seen.made.get(folder, (-1, 0))
        if made_at >= 0 and not seen.flushed(parent, made_at, one.over, one.pid):
            bad.append("log file renewed before a new folder's name is flushed")
    if not seen.flushed(segment, written, one.over, one.pid):
        bad.append("log file renewed before the journal is flushed")
    return bad


def _made(seen: _Events) -> list[str]:
    """A log file is flushed before it has its name, and that before its first batch is written."""
    bad = []
    for log in {one.log for one in seen.all}:
        first = min(one.written for one in seen.all if one.log == log)
        given, folder = seen.offered.get(log, (-1, 0))
        if not 0 <= given < first:
            bad.append(f"batch at {first} written to a file that is no log")
            continue
        filled, pid, _fd = [write for write in seen.writes[log] if write[0] < given][-1]
        if not seen.flushed(log, filled, given, pid):
            bad.append(f"log file named at {given} before it is flushed")
        if not seen.flushed(folder, given, first, pid):
            bad.append(f"batch at {first} written before the name of its file is flushed")
    return bad


def _batches(seen: _Events) -> list[str]:
    """Batch b is flushed before b+1 is written, and so is what renews a file before its next."""
    bad = []
    for log in {one.log for one in seen.all}:
        whens = sorted({one.written for one in seen.all if one.log == log})
        renewals = [when for when, it in seen.renewals if it == log]
        marks = sorted([*whens, *renewals])
        for before, after in itertools.pairwise(marks):
            if after in whens and not any(
                one.began > before and one.ended < after for one in seen.flushes.get(log, ())
            ):
                bad.append(f"batch at {after} written before what came before it was flushed")
    return bad

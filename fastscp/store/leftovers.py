"""What replacements left that were not through when a worker, or the machine, stopped.

It is settled at the next start, in `fastscp verify`, and when the main process has buried a worker.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fastscp.errors import reason_for
from fastscp.store import replaced
from fastscp.store.compress import twin
from fastscp.store.findings import Finding, Kind
from fastscp.store.flushes import Flushes
from fastscp.store.journal import last_sequence
from fastscp.store.names import REPLACED, descriptor, exists
from fastscp.store.restore import Lines, Reading, Replaced, Settlement
from fastscp.store.waits import NotYetError, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastscp.store.replaced import Record
    from fastscp.store.waits import Batches
    from fastscp_ext import Doubts

__all__ = [
    "AT_ONCE", "Cleared", "is_anything_left", "look_beside", "settle", "settle_alone",
    "settle_beside", "tell_left",
]  # fmt: skip

# Records that are settled at a time, each with the lock of its path.
AT_ONCE: Final = 256
_AGAIN_S: Final = 0.01
_LOOK_AGAIN_S: Final = 0.1


@dataclass(frozen=True)
class Cleared:
    """What became of all that was left.

    findings: for an operator; `settled` is empty for what could not be settled. told: the same for
    a log, without the paths, which may hold a patient's name. sequence: the highest number in a
    record that stays, 0 for none; no line below it may be written, for it would be taken for the
    older content's. left: the paths of the records that stay; None: nobody knows them.
    """

    findings: tuple[Finding, ...] = ()
    told: tuple[str, ...] = ()
    sequence: int = 0
    left: tuple[str, ...] | None = ()

    def and_(self, finding: Finding) -> Cleared:
        """And something else, whose path is in the folder."""
        told = f"{finding.path} {finding.why}" + (f": {finding.settled}" if finding.settled else "")
        return replace(self, findings=(*self.findings, finding), told=(*self.told, told))


def is_anything_left(store_fd: int) -> bool:
    """Whether there is anything to settle, or to name; also where that cannot be told."""
    try:
        found = replaced.left(store_fd)
    except OSError:
        return True
    return bool(found.records or found.torn or found.over or found.strange)


def settle_alone(store_fd: int, worker: str, after: Callable[[], int] = lambda: 0) -> Cleared:
    """Settle everything that is left. The store's lock is held, and nobody stores anything.

    worker: who it is, in journal lines. after: gives the number up to which all are taken, also
    where no line has them yet; asked where anything is left. One reading of a folder where
    nothing is left. Raises what `after` does, and no OSError otherwise: what cannot be settled
    stays, and the report says why.
    """
    try:
        found = replaced.left(store_fd)
        for stem in found.over:
            replaced.remove_over(store_fd, stem)
        if not (found.records or found.torn or found.strange):
            return Cleared()
        last = max([_last(store_fd), *(record.sequence for record in found.records)])
    except OSError as error:
        # Where something else has the folder's name, nothing is kept.
        is_none = error.errno in (errno.ENOTDIR, errno.ELOOP)
        return Cleared(left=() if is_none else None).and_(_unreadable(error))
    numbers = itertools.count(max(last, after()) + 1)
    start = f"{time.time_ns() // 1000:x}"
    lines = Lines(store_fd, start, f"{worker}-{os.getpid()}r", lambda: next(numbers), worker)
    try:
        cleared = settle(Replaced(store_fd, lines), found.records)
    finally:
        lines.close()
    for stem in found.torn:
        cleared = cleared.and_(_remove_torn(store_fd, stem))
    for name in found.strange:
        cleared = cleared.and_(_strange(name))
    return cleared


def look_beside(store_fd: int) -> list[Finding]:
    """What belongs to no replacement, beside a service that has others in hand; nothing is changed.

    Never raises OSError.
    """
    try:
        names, damaged = _odd_ones(store_fd)
        if names or damaged:
            # A folder that changes while it is read shows a name without the one it belongs to.
            time.sleep(_LOOK_AGAIN_S)
            again = _odd_ones(store_fd)
            names, damaged = names & again[0], damaged & again[1]
    except OSError as error:
        return [_unreadable(error)]
    return [*map(_damaged, sorted(damaged)), *map(_strange, sorted(names))]


def _odd_ones(store_fd: int) -> tuple[set[str], set[str]]:
    """Names that belong to no replacement, and ids of damaged records. Raises OSError.

    A record that is not whole, without a content, may be one that is being written.
    """
    found = replaced.left(store_fd)
    return set(found.strange), {one for one in found.torn if replaced.has_content(store_fd, one)}


def _strange(name: str) -> Finding:
    why = (
        "belongs to no replacement: move it out of the store, and keep it if it is an instance "
        "that you want; where its file has a second name, find it with `find -samefile`"
    )
    return Finding(Kind.REPLACED, f"{REPLACED}/{name}", why)


def _unreadable(error: OSError) -> Finding:
    where = error.filename if isinstance(error.filename, str) else REPLACED
    why = (
        f"cannot be read ({reason_for(error)}), so replacements that are not through stay as they "
        f"are, and new ones are answered A700: look at what is there, and move it away"
    )
    return Finding(Kind.REPLACED, where, why)


def _last(store_fd: int) -> int:
    try:
        return last_sequence(store_fd)
    except FileNotFoundError:
        return 0


def _remove_torn(store_fd: int, stem: str) -> Finding:
    path, why = f"{REPLACED}/{stem}.record", "is not whole: a power cut came before its flush"
    try:
        if replaced.remove_torn(store_fd, stem):
            return Finding(Kind.REPLACED, path, why, settled="removed; nothing was replaced yet")
    except OSError as error:
        why = f"{why}, and cannot be removed: {reason_for(error)}"
        return Finding(Kind.REPLACED, path, why)
    return _damaged(stem)


def _damaged(stem: str) -> Finding:
    why = (
        f"is damaged, so nobody can tell which path {stem}.kept beside it held; it is an instance: "
        f"look with `fastscp cat` or `find -samefile` whether the store has it, move both files "
        f"out of the store, and send that instance again if it is not there"
    )
    return Finding(Kind.REPLACED, f"{REPLACED}/{stem}.record", why)


def settle_beside(
    store_fd: int,
    life: str,
    number: Callable[[], int],
    batches: Batches,
    doubts: Doubts | None = None,
) -> tuple[str, ...]:
    """Settle what a dead worker left, beside those that live; returns what a log is to say.

    store_fd: closed at the end, for the service may be over by then. life: names the segment of the
    lines, never used before. number: gives the next `seq`. batches, doubts: of the workers. Never
    raises OSError.
    """
    start, _dash, writer = life.partition("-")
    with descriptor(store_fd):
        lines = Lines(store_fd, start, f"{writer}r", number, "main")
        try:
            cleared = settle(Replaced(store_fd, lines, batches, Flushes(store_fd, doubts)))
        finally:
            lines.close()
    if doubts is not None:
        tell_left(cleared.left, doubts)
    return cleared.told


def settle(of: Replaced, records: Iterable[Record] | None = None) -> Cleared:
    """Settle what was left by lives that are over; whatever somebody has in hand stays his.

    records: those found; None: look for them. Others may store meanwhile: each record's lock is
    taken first, and one that is taken is in hand. Never raises OSError.
    """
    store_fd, ended = of.store_fd, list[_Ended]()
    try:
        found = replaced.left(store_fd).records if records is None else list(records)
        for begin in range(0, len(found), AT_ONCE):
            with contextlib.ExitStack() as held:
                mine = _taken(store_fd, found[begin : begin + AT_ONCE], held)
                ended += _settle_taken(of, mine)
    except OSError as error:
        done = _summary(ended)
        last = max((record.sequence for record in records or ()), default=done.sequence)
        return replace(done, sequence=last, left=None).and_(_unreadable(error))
    return _summary(ended)


def _settle_taken(of: Replaced, mine: dict[int, _Locked]) -> list[_Ended]:
    """Settle the records, each lock given back after its last one.

    A record that has to wait for a line holds up no other one of those, and all wait at the same
    time.
    """
    reading = Reading(of.store_fd, [record for one in mine.values() for record in one.records])
    ended = []
    waiting = {
        record.path: Settlement(of, record.path) for one in mine.values() for record in one.records
    }
    while mine:
        for number, one in list(mine.items()):
            for record in list(one.records):
                done = _settle_one(of, record, waiting[record.path], reading)
                if done is not None:
                    ended.append(done)
                    one.records.remove(record)
            if not one.records:
                mine.pop(number).lock.close()
        if mine:
            time.sleep(_AGAIN_S)
    return ended


@dataclass(frozen=True)
class _Locked:
    """A lock, and the records that are settled under it."""

    lock: contextlib.ExitStack
    records: list[Record]


@dataclass(frozen=True)
class _Ended:
    """A record that was settled, or could not be: then `error` says why."""

    record: Record
    undone: bool = False
    there: bool = True
    error: str = ""

    @property
    def finding(self) -> Finding:
        why = "was being replaced when its worker or the machine stopped, or the disk failed"
        if self.error:
            stays = f"{why}, and what it held before stays in {REPLACED} ({self.error})"
            return Finding(Kind.REPLACED, self.record.path, stays)
        said = "holds the older content again" if self.undone else "holds the newer instance"
        if not self.there:
            said = "is not there, and nothing was kept"
        return Finding(Kind.REPLACED, self.record.path, why, settled=said)


def _summary(ended: list[_Ended]) -> Cleared:
    undone = sum(one.undone for one in ended)
    left = [one for one in ended if one.error]
    done = len(ended) - len(left)
    told = []
    if done:
        told.append(
            f"{done} replacements were not through when a worker or the machine stopped: {undone} "
            f"paths hold the older content again, {done - undone} the newer instance"
        )
    told += [
        f"{replaced.where(one.record.path)}: what a path held before a replacement that was not "
        f"through stays there ({one.error}); put the cause right, and restart the service or run "
        f"`fastscp verify`"
        for one in left
    ]
    sequence = max((one.record.sequence for one in left), default=0)
    return Cleared(
        tuple(one.finding for one in ended), tuple(told), sequence,
        tuple(one.record.path for one in left),
    )  # fmt: skip


def tell_left(left: tuple[str, ...] | None, doubts: Doubts) -> None:
    """Have nobody take a path, even a free one, before what is left there has ended.

    left: as in `Cleared`. doubts: what the workers know.
    """
    if left is None:
        doubts.leave_all()
    for path in left or ():
        doubts.leave(path)
        doubts.leave(twin(path))


def _taken(
    store_fd: int, records: Iterable[Record], held: contextlib.ExitStack
) -> dict[int, _Locked]:
    """The records whose locks could be taken, by lock, as they are now and stay.

    held: gives back the locks that are left.
    """
    mine: dict[int, _Locked] = {}
    others: set[int] = set()
    for record in records:
        if record.lock not in mine and record.lock not in others:
            try:
                fd = take_lock(store_fd, record.lock)
            except NotYetError:
                others.add(record.lock)
                continue
            lock = held.enter_context(contextlib.ExitStack())
            lock.callback(os.close, fd)
            mine[record.lock] = _Locked(lock, [])
        if record.lock in mine:
            with contextlib.suppress(FileNotFoundError, replaced.TornError):
                mine[record.lock].records.append(replaced.read_record(store_fd, record.path))
    return mine


def _settle_one(
    of: Replaced, record: Record, settlement: Settlement, reading: Reading
) -> _Ended | None:
    """None: a line is on its way, try again."""
    try:
        done = settlement.attempt(reading)
        if done is None:
            return None
        return _Ended(record, done.undone, exists(record.path, of.store_fd))
    except OSError as error:
        return _Ended(record, error=reason_for(error))

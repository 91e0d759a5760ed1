"""What replacements left that were not through when a worker, or the machine, stopped.

It is settled at the next start, in `fastscp verify`, and when the main process has buried a worker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fastscp.store import replaced
from fastscp.store.findings import Finding, Kind, reason
from fastscp.store.journal import last_sequence
from fastscp.store.names import REPLACED, exists
from fastscp.store.restore import Known, Lines, Replaced, Settlement, known_of
from fastscp.store.waits import NotYetError, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastscp.store.replaced import Record
    from fastscp.store.waits import Batches

__all__ = ["Cleared", "is_anything_left", "settle", "settle_alone", "settle_beside"]

_AGAIN_S: Final = 0.01


@dataclass(frozen=True)
class Cleared:
    """What became of all that was left.

    findings: for an operator; `settled` is empty for what could not be settled. told: the same for
    a log, without the paths, which may hold a patient's name. sequence: the highest number in a
    record that stays, 0 for none; no line below it may be written, for it would be taken for the
    older content's.
    """

    findings: tuple[Finding, ...] = ()
    told: tuple[str, ...] = ()
    sequence: int = 0

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
    return bool(found.records or found.torn or found.strange)


def settle_alone(store_fd: int, worker: str) -> Cleared:
    """Settle everything that is left. The store's lock is held, and nobody stores anything.

    worker: who it is, in journal lines. One reading of a folder where nothing is left. Never raises
    OSError: what cannot be settled stays, and the report says why.
    """
    try:
        found = replaced.left(store_fd)
        if not (found.records or found.torn or found.strange):
            return Cleared()
        last = max([_last(store_fd), *(record.sequence for record in found.records)])
    except OSError as error:
        return Cleared().and_(_unreadable(error))
    numbers = itertools.count(last + 1)
    start = f"{time.time_ns() // 1000:x}"
    lines = Lines(store_fd, start, f"{worker}-{os.getpid()}r", lambda: next(numbers), worker)
    try:
        cleared = settle(Replaced(store_fd, lines), found.records)
    finally:
        lines.close()
    for stem in found.torn:
        cleared = cleared.and_(_remove_torn(store_fd, stem))
    for name in found.strange:
        why = "is no older content that a replacement kept: look at it, and move it away"
        cleared = cleared.and_(Finding(Kind.REPLACED, f"{REPLACED}/{name}", why))
    return cleared


def _unreadable(error: OSError) -> Finding:
    where = error.filename if isinstance(error.filename, str) else REPLACED
    why = f"cannot be read ({reason(error)}), so replacements that are not through stay as they are"
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
        why = f"{why}, and cannot be removed: {reason(error)}"
        return Finding(Kind.REPLACED, path, why)
    why = f"is damaged: what {stem}.kept beside it holds may have been an instance; look at it"
    return Finding(Kind.REPLACED, path, why)


def settle_beside(
    store_fd: int, life: str, number: Callable[[], int], batches: Batches
) -> tuple[str, ...]:
    """Settle what a dead worker left, beside those that live; returns what a log is to say.

    life: names the segment of the lines, never used before. number: gives the next `seq`. batches:
    of the workers. Never raises OSError.
    """
    start, _dash, writer = life.partition("-")
    lines = Lines(store_fd, start, f"{writer}r", number, "main")
    try:
        return settle(Replaced(store_fd, lines, batches)).told
    finally:
        lines.close()


def settle(of: Replaced, records: Iterable[Record] | None = None) -> Cleared:
    """Settle what was left by lives that are over; whatever somebody has in hand stays his.

    records: those found; None: look for them. Others may store meanwhile: each record's lock is
    taken first, and one that is taken is in hand. Never raises OSError.
    """
    store_fd = of.store_fd
    with contextlib.ExitStack() as held:
        try:
            found = replaced.left(store_fd).records if records is None else records
            mine = _taken(store_fd, found, held)
            known = known_of(store_fd, mine) if mine else {}
        except OSError as error:
            last = max((record.sequence for record in records or ()), default=0)
            return replace(Cleared().and_(_unreadable(error)), sequence=last)
        ended = [_settle_one(of, record, known[record.path]) for record in mine]
    return _summary(ended)


@dataclass(frozen=True)
class _Ended:
    """A record that was settled, or could not be: then `error` says why."""

    record: Record
    undone: bool = False
    there: bool = True
    error: str = ""

    @property
    def finding(self) -> Finding:
        why = "was being replaced when its worker or the machine stopped"
        if self.record.undo:
            why = "was being put back after a newer instance had been refused"
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
    return Cleared(tuple(one.finding for one in ended), tuple(told), sequence)


def _taken(store_fd: int, records: Iterable[Record], held: contextlib.ExitStack) -> list[Record]:
    """The records whose locks could be taken, as they are now that they cannot change any more."""
    locks: dict[int, bool] = {}
    mine = []
    for record in records:
        if record.lock not in locks:
            try:
                held.callback(os.close, take_lock(store_fd, record.lock))
                locks[record.lock] = True
            except NotYetError:
                locks[record.lock] = False
        if locks[record.lock]:
            with contextlib.suppress(FileNotFoundError, replaced.TornError):
                mine.append(replaced.read_record(store_fd, record.path))
    return mine


def _settle_one(of: Replaced, record: Record, known: Known) -> _Ended:
    settlement = Settlement(of, record.path)
    try:
        while (done := settlement.attempt(known)) is None:
            time.sleep(_AGAIN_S)
        return _Ended(record, done.undone, exists(record.path, of.store_fd))
    except OSError as error:
        return _Ended(record, error=reason(error))

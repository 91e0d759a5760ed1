"""What the redo log holds is brought to its files and its lines, after the worker that wrote it.

Theory of operation: a small instance is durable in the log before it has its name, and has its
name and its line before its sender is answered; file, folders and line are flushed later, and then
the log is not needed any more. So after a worker that was killed, or a power cut, each record is
held against its path and the journal. What is newer at the path stays. What is there as recorded is
flushed. What is missing, or is a part of it, is written anew, unless nothing was cut and the
journal tells that it was never named, or was named and taken away since. Lines that are missing are
written. The logs go last, so each step may be the last one, and all may be taken again.

A fact is known by its `seq`; for one path the highest that changed its content is the truth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from fastscp.log import counted, printable
from fastscp.store.mounts import mounted
from fastscp.store.names import ASIDE, REDO
from fastscp.store.redo.files import Files, There, side_by_side
from fastscp.store.redo.lines import Journal, key_of
from fastscp.store.redo.logs import DamagedError, folder, unreadable
from fastscp.store.waits import NotYetError, lock_of, take_lock
from fastscp_ext import flush_file_system

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fastscp.store.identity import Identity
    from fastscp.store.mounts import Mounted
    from fastscp.store.redo.files import Doubts
    from fastscp.store.redo.logs import Folder
    from fastscp.store.redo.records import Log, Lost, Record

__all__ = ["Recovered", "highest_logged", "recover", "refuse_damaged"]

_AGAIN_S: Final = 0.01
# How long whoever has a path's lock may keep it: a worker has it as long as its flushes take.
_LOCK_S: Final = 60.0
# Records that are written anew under their locks together.
_GROUP: Final = 64
# Of instances whose paths could not be reached, so many lines are told.
_TOLD: Final = 20


@dataclass(frozen=True)
class Recovered:
    """What was done.

    logs: files that were read, and are gone. records: instances in them. flushed: files that were
    there. restored: files that were written anew. lines: journal lines written. passed: records of
    which nothing was to be done, for something newer is there, somebody took the file away, or
    nobody was told of it. aside: what lay at a path before, and is in `ASIDE` now. unreachable: of
    instances whose path could not be reached and whose file is in `ASIDE` instead, in words.
    renewed: folders that were made anew before, for a flush of them had failed. unread: files that
    were passed over and may be logs, in words. damage: of the logs, accepted. lost: what that took
    away, as far as it is known. sequence: the highest number in a record or a line beside it, 0 for
    none.
    """

    logs: int = 0
    records: int = 0
    flushed: int = 0
    restored: int = 0
    lines: int = 0
    passed: int = 0
    aside: int = 0
    unreachable: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    sequence: int = 0

    @property
    def told(self) -> tuple[str, ...]:
        """For a log."""
        if not self.logs:
            return self.unread
        said = (
            f"recovered {counted(self.records - self.passed, 'instance')} from the redo log of "
            f"workers that did not end in order: {counted(self.restored, 'file')} written anew, "
            f"{self.flushed:,} flushed, {counted(self.lines, 'journal line')} written"
        )
        return (said, *self._also(), *self.unread)

    def _also(self) -> Iterator[str]:
        for path in self.renewed:
            yield f"{printable(path)} was made anew, for a flush of it had failed"
        if self.passed:
            yield (
                f"of {counted(self.passed, 'more instance')} in that log nothing was to be done: "
                f"nobody was told that they are stored, or a newer one is at the path"
            )
        for one in self.lost:
            yield _told_of(one)
        if self.aside:
            things = counted(self.aside, "thing")
            yield (
                f"{things} that lay where recovered instances belong, and that no journal line "
                f"told of, {'is' if self.aside == 1 else 'are'} in {ASIDE} now, each under the "
                f"`seq` of the instance: look at them, and move them out of the store"
            )
        for path in self.unreachable[:_TOLD]:
            yield (
                f"cannot bring a recovered instance to its path: {path}; see who changed the "
                f"folders there, and move the file to where it belongs"
            )
        if more := len(self.unreachable[_TOLD:]):
            yield f"so it is with {counted(more, 'more instance')}, which are in {ASIDE}, too"
        for what in self.damage:
            yield f"{what}; the file is in {ASIDE} now"


def _told_of(lost: Lost) -> str:
    count = f"{counted(lost.records, 'instance')} of it" if lost.records else "what was there"
    after = f"above {lost.after}" if lost.after else ""
    before = f"below {lost.before}" if lost.before else ""
    numbers = " and ".join(filter(None, (after, before)))
    return (
        f"{REDO}/{lost.log} cannot be read at byte {lost.at:,}: {count} may have been acknowledged "
        f"and is lost{f', with a `seq` {numbers}' if numbers else ''}; `fastscp verify` names "
        f"those that have a journal line, with their senders: have them send again"
    )


def highest_logged(store_fd: int, identity: Identity) -> int:
    """The highest number in the logs of lives that are over, 0 for none.

    Lines that anybody writes before `recover` need higher ones. Raises OSError, ForeignLogError.
    """
    with folder(store_fd, identity.id) as logged:
        logs = logged.logs() if logged is not None else []
    return max((record.seq for log in logs for record in log.records), default=0)


def refuse_damaged(store_fd: int, identity: Identity) -> None:
    """Raise what `recover` would of logs that are damaged or not the store's: nothing is changed.

    Cost: reads them whole. Raises DamagedError, ForeignLogError, OSError.
    """
    with folder(store_fd, identity.id) as logged:
        damage = _damage_of(logged.logs()) if logged is not None else ()
    if damage:
        raise DamagedError(damage)


def _damage_of(logs: list[Log]) -> tuple[str, ...]:
    return tuple(f"{REDO}/{log.name} {one}" for log in logs for one in log.damage)


def recover(
    store_fd: int,
    identity: Identity,
    *,
    alone: bool,
    distrust: Collection[str] = (),
    accept_damage: bool = False,
    doubts: Doubts | None = None,
) -> Recovered:
    """Bring what is in the logs of lives that are over to its files and lines, and remove them.

    identity: of the store. alone: the store's lock is held and nobody stores anything; else the
    lives are of this run of the service, or of the one that it took over from, and others store
    meanwhile. distrust: lives one of whose flushes failed, so that what the system keeps in memory
    is not believed, beside those that marked it themselves; it is asked once the logs are read, and
    may grow until then. accept_damage: bring back what can be read. doubts: what the workers know.
    Blocks on the disk. It may be called again whatever it raised: ForeignLogError, DamagedError,
    TimeoutError where a path's lock is not to be had, OSError.
    """
    with folder(store_fd, identity.id) as logged:
        if logged is None:
            return Recovered()
        logs = logged.logs()
        logged.remove_unmade()
        # Beside a service: its start has told of them.
        unread = tuple(unreadable(logged.fd, store_fd)) if alone else ()
        if not logs:
            logged.trust()
            return Recovered(unread=unread)
        lives = {log.life for log in logs}
        logged.distrust(life for life in lives if life in distrust)
        damage = _damage_of(logs)
        if damage and not accept_damage:
            raise DamagedError(damage)
        logged.remove_parts()
        recovery = _Recovery(
            store_fd, logged, logs, alone=alone, is_damaged=bool(damage), doubts=doubts
        )
        try:
            recovery.run()
        except OSError:
            # Perhaps a flush: the next one may succeed, and mean nothing.
            with contextlib.suppress(OSError):
                logged.distrust(lives)
            raise
        logged.remove(logs)
        return replace(recovery.report(damage), unread=unread)


class _Recovery:
    """One run; the logs are read. alone, doubts: as in `recover`.

    is_damaged: they had more than can be read.
    """

    def __init__(
        self,
        store_fd: int,
        logged: Folder,
        logs: list[Log],
        *,
        alone: bool,
        is_damaged: bool,
        doubts: Doubts | None,
    ) -> None:
        self._store_fd = store_fd
        self._logged = logged
        self._logs = logs
        self._alone = alone
        self._is_distrusted = logged.is_distrusted
        now = mounted(store_fd)
        # The logs of the same mount: nothing that was written has gone since.
        self._same = {log.name for log in logs if not alone or _is_same(log, now)}
        every = [record for log in logs for record in log.records]
        void = {record.seq for record in every if record.is_void}
        self._numbers = {record.seq for record in every}
        # One number stands in two files where a worker was stopped between them.
        puts = {record.seq: record for record in every if record.seq not in void}
        self._puts = [puts[seq] for seq in sorted(puts)]
        lives = {log.life for log in logs}
        self._start = min(lives).partition("-")[0]
        self._journal = Journal(store_fd, self._puts, lives, self._numbers)
        self._files = Files(store_fd, logged, doubts)
        self._flushed: set[int] = set()
        self._restored: set[int] = set()
        self._written = self._passed = 0
        # Whether somebody took or changed what was never flushed, so that nobody knows its place.
        self._has_gone = False
        self._is_damaged = is_damaged

    def run(self) -> None:
        """Do all but remove the logs. Raises OSError."""
        if self._puts:
            self._bring_back()
        # What cannot be read any more may have told of files that are there, and were not flushed.
        if self._has_gone or self._files.has_gone or self._is_damaged:
            flush_file_system(self._store_fd)

    def _bring_back(self) -> None:
        self._journal.read()
        verdicts: dict[int, _Verdict] = {}

        def judge(record: Record) -> None:
            verdicts[record.seq] = self._judge(record)

        side_by_side(judge, self._puts)
        again = [record for record in self._puts if verdicts[record.seq] is _Verdict.RESTORE]
        verdicts |= self._restore_all(again)
        due = [record for record in self._puts if verdicts[record.seq] is not _Verdict.PASS]
        self._passed = len(self._puts) - len(due)
        missing = [record for record in due if not self._journal.has_line(record.seq)]
        lines = map(self._logged.line, missing)
        self._written = self._journal.write(lines, self._start)
        self._journal.flush(distrust=self._is_distrusted)
        self._files.flush_folders()

    def report(self, damage: tuple[str, ...]) -> Recovered:
        return Recovered(
            logs=len(self._logs),
            records=len(self._puts),
            flushed=len(self._flushed),
            restored=len(self._restored),
            lines=self._written,
            passed=self._passed,
            aside=self._files.aside,
            unreachable=tuple(sorted(self._files.unreachable)),
            damage=damage,
            lost=tuple(one for log in self._logs for one in log.lost),
            sequence=max((self._journal.highest, *self._numbers)),
        )

    def _judge(self, record: Record) -> _Verdict:
        """What a record needs; where its file is there, it is flushed. Raises OSError."""
        fact = self._journal.facts.get(record.seq)
        if fact is not None and (fact.path != record.path or not fact.changes):
            # It went another way than by the log.
            return _Verdict.PASS
        # Then whatever has no line was told to nobody.
        is_told = fact is not None or self._is_distrusted or record.log not in self._same
        is_same = record.log in self._same
        if self._journal.truth[key_of(record.path)] > record.seq:
            if is_same and fact is not None:
                # Perhaps it was moved away before, as below.
                self._has_gone = True
            return _Verdict.LINE if is_told else _Verdict.PASS
        there = self._files.look(record)
        if there is There.SAME and not self._is_distrusted:
            if self._files.refuses(record.path):
                return _Verdict.RESTORE
            there = self._files.flush(record)
            if there is There.SAME:
                self._flushed.add(record.seq)
                return _Verdict.LINE
        if there is There.NOTHING and is_same:
            self._files.note_gone(record)
            if fact is not None and not self._is_distrusted:
                # Somebody took it away, as is his right, perhaps to another place here.
                self._has_gone = True
                return _Verdict.LINE
        return _Verdict.RESTORE if is_told else _Verdict.PASS

    def _restore_all(self, records: list[Record]) -> dict[int, _Verdict]:
        """Write files anew; returns what the records need then. Raises OSError."""
        verdicts: dict[int, _Verdict] = {}

        def restore(record: Record) -> None:
            if self._files.restore(record):
                self._restored.add(record.seq)
            verdicts[record.seq] = _Verdict.LINE

        def judge_and_restore(record: Record) -> None:
            verdict = verdicts[record.seq] = self._judge(record)
            if verdict is _Verdict.RESTORE:
                restore(record)

        if self._alone:
            side_by_side(restore, records)
            return verdicts
        for at in range(0, len(records), _GROUP):
            group = records[at : at + _GROUP]
            with _claimed(self._store_fd, group):
                # Others may have been there since the journal was read.
                self._journal.read()
                side_by_side(judge_and_restore, group)
        return verdicts


class _Verdict(Enum):
    """What a record needs: nothing; its line, if that is not there; its file anew, and its line."""

    PASS = 0
    LINE = 1
    RESTORE = 2


def _is_same(log: Log, now: Mounted) -> bool:
    """Whether all that the life of a log wrote is still there, flushed or not.

    Where the file system cannot be told from one that was mounted anew, it counts as that. In a
    copy of the store is what was copied, whatever the log vouches for.
    """
    if log.when is None or not log.is_original or not log.when.system or not now.system:
        return False
    return not log.when.is_over(now)


@contextlib.contextmanager
def _claimed(store_fd: int, records: list[Record]) -> Iterator[None]:
    """The locks of the paths of some records, as long as the block lasts.

    Raises TimeoutError where one is not to be had, OSError.
    """
    deadline = time.monotonic() + _LOCK_S
    with contextlib.ExitStack() as held:
        for number in sorted({lock_of(record.path) for record in records}):
            while True:
                try:
                    held.callback(os.close, take_lock(store_fd, number))
                except NotYetError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            errno.ETIMEDOUT, f"a path's lock is not given back for {_LOCK_S:g} s"
                        ) from None
                    time.sleep(_AGAIN_S)
                else:
                    break
        yield

"""What is done for an instance beside the loop: comparing, replacing, and compressing parts.

Helper threads do the work, for it may block on the disk; results come back on the loop's thread.
No thread waits for anything but the disk: a duplicate whose path is locked, or must not be judged
yet, is put back and tried again. Associations take turns, and comparisons have threads of their
own, beside the long compressions.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fastscp.errors import reason_for
from fastscp.log import caused, concluding, counted, fields
from fastscp.store import duplicates
from fastscp.store.compress import SLICE, PartCompression
from fastscp.store.contents import Contents
from fastscp.store.flushes import Flushes
from fastscp.store.index import IndexedJournal
from fastscp.store.leftovers import tell_left
from fastscp.store.names import HOME, PATH_LOCKS, REPLACED
from fastscp.store.replaced import is_in, read_record
from fastscp.store.restore import Lines, Reading, Replaced, Secured, Settled, Settlement
from fastscp.store.unflushed import LIFTED_BY, RENEWED_BY, Marks
from fastscp.store.waits import TURNS, turn_of
from fastscp.worker.paths import path_shown
from fastscp.worker.turns import Lane, Turns
from fastscp_ext import reason_of, status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastscp.messages.worker import Setup
    from fastscp_ext import Compression, Duplicate, LineIndex, Replacement, Shared

__all__ = ["Jobs"]

log = logging.getLogger("fastscp.worker")

# Threads that compare duplicates, as many that settle what they replaced, and as many that compress
# parts; few, for the receivers need the disk and the processors, too.
_HELPERS: Final = 2
# Compressions of more than one slice begun at a time: each keeps tens of MiB at high levels.
_LARGE_MOST: Final = 4
# How soon a duplicate that was put back is tried again; twice as late each time, within bounds.
_AGAIN_S: Final = 0.002
_AGAIN_MOST_S: Final = 0.05
# After so long without a file call that fails, and with instances stored, it is over.
_OVER_S: Final = 5.0
# How soon a disk that takes no note is asked again.
_DISK_AGAIN_S: Final = 1.0

# What the system's own words do not tell of a store.
_WORDS: Final = {
    errno.ELOOP: "a symbolic link is in its place or on the way",
    errno.ENXIO: "what has its name is no regular file",
    errno.EISDIR: "a directory has its name",
    errno.EINPROGRESS: "the index of the journal, which tells what to trust, is still being built",
    errno.ENOTRECOVERABLE: "an earlier replacement there is not through, and nobody can tell which "
    "of its contents counts",
}
_ADVICE: Final = {
    errno.ENOSPC: "free some space, or inodes (df -i), on the store's file system",
    errno.EDQUOT: "raise the quota of this user, or free some space",
    errno.EROFS: "the file system went read-only: check the disk, then remount it",
    errno.EIO: "the disk reports errors: check it and the kernel's log",
    errno.EMFILE: "raise the limit of open files, or lower --max-associations",
    errno.ENFILE: "the system is out of open files: raise fs.file-max",
    errno.EACCES: "let this user write to the store again",
    errno.EXDEV: "a folder of the store is a mount or a subvolume of its own: put it in its place",
    errno.ELOOP: "put the folder or file itself where the symbolic link is: none is followed",
    errno.ENXIO: "move it away; the sender's next try stores the instance",
    errno.EISDIR: "move it away; the sender's next try stores the instance",
    errno.ENOLCK: "the system, or the server of the file system, is out of locks: see /proc/locks",
    errno.EINPROGRESS: "nothing to do: the sender may try again soon",
    errno.ENOTDIR: "move away the file that has the name of a folder",
    errno.ENOTRECOVERABLE: f"stop the service and run `fastscp verify`: it names what is in "
    f"{REPLACED} and says what to move where",
    errno.EEXIST: f"something is in the way in {REPLACED}: `fastscp verify` names it",
    errno.ENOENT: "a folder of the store has vanished: is it still mounted? if so, put it back",
}
# What says that something is not what its name in the folder of older contents promises.
_IN_THE_WAY: Final = frozenset(
    {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
)
_LIFTED: Final = f"then {RENEWED_BY}, or {LIFTED_BY}"


@dataclass(eq=False)
class _Comparison:
    """A duplicate on its way to an outcome. turn: of its path, see `turn_of`."""

    duplicate: Duplicate
    resolution: duplicates.Resolution
    association: int
    turn: int
    again_s: float = _AGAIN_S


@dataclass(eq=False)
class _Replacing:
    """An instance in the place of another one, whose content goes or comes back.

    reading: of the journal, for all that were refused and waited at the same time.
    """

    replacement: Replacement
    settlement: Settlement
    association: int
    path: str
    is_due: bool
    again_s: float = _AGAIN_S
    reading: Reading | None = None


@dataclass(eq=False)
class _Compressing:
    """A compression under way. large: it takes more than a slice, and has leave to begin."""

    compression: Compression
    large: bool = False
    work: PartCompression | None = None


class Jobs:
    """What the reception asks for, one object per worker.

    store_fd, life_fd: the store and the folder of unfinished instances, owned by the worker. index:
    of a suspect store's journal, if there is one.
    """

    def __init__(
        self,
        setup: Setup,
        store_fd: int,
        life_fd: int,
        shared: Shared,
        index: LineIndex | None = None,
    ) -> None:
        self._setup = setup
        self._store_fd = store_fd
        self._life_fd = life_fd
        self._suspect = shared.liveness if setup.suspect else None
        self._journal = IndexedJournal(index) if index is not None else None
        self._contents = Contents()
        self._doubts = shared.doubts
        self._shared = shared
        # All that a path in hand may be of, also those of rules that hold for old associations.
        self.layouts: tuple[str, ...] = ()
        # When a file call failed last, by the monotonic clock, and what was stored by then; 0.0:
        # none did, or that is over.
        self._failed_at = 0.0
        self._stored_then = 0
        # What is said again of a path is said in a segment of its own, whoever commits meanwhile.
        writer = setup.life.removeprefix(f"{setup.run}-")
        number = shared.store.next_sequence
        self._lines = Lines(store_fd, setup.run, f"{writer}s", number, f"w{setup.worker}")
        flushes = Flushes(store_fd, shared.doubts, self.refused)
        self._replaced = Replaced(store_fd, self._lines, shared.liveness, flushes)
        self._secured = Secured(store_fd, f"{setup.run}-{writer}b", flushes)
        # Refused, and nobody has looked into the journal for them.
        self._unread: list[_Replacing] = []
        self._sharing = threading.Lock()
        self._comparisons = Lane("compare", _HELPERS, _attempt, self._compared)
        self._replacements = Lane("replace", _HELPERS, self._settle, self._settled)
        self._compressions = Lane("compress", _HELPERS, self._compress, self._compressed)
        # The turns that comparisons have, each with its path's lock or trying to get it; and those
        # that come after it.
        self._turns: dict[int, Turns[_Comparison]] = {}
        # Compressions of more than one slice: how many are begun, and those that wait for that.
        self._large = 0
        self._large_later: Turns[_Compressing] = Turns()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """Instances that are neither in the reception nor through the commit."""
        return self._under_way

    def close(self) -> None:
        """End the threads, once nothing is under way. Off the loop."""
        self._comparisons.close()
        self._replacements.close()
        self._compressions.close()
        self._lines.close()

    def compare(self, duplicate: Duplicate) -> None:
        """Settle an instance whose path is taken."""
        rules = duplicate.rules
        resolution = duplicates.Resolution(
            self._store_fd,
            self._life_fd,
            duplicate.part,
            duplicate.path,
            policy=rules.on_duplicate,
            durable=rules.durable,
            replaced=self._replaced,
            use_link=self._setup.use_link,
            mixed=self._shared.store.mixed,
            suspect=self._suspect,
            journal=self._journal,
            digest=duplicate.digest,
            contents=self._contents,
            doubts=self._doubts,
        )
        turn = turn_of(duplicate.path)
        job = _Comparison(duplicate, resolution, duplicate.association, turn)
        self._under_way += 1
        self._queue(job)

    def _queue(self, job: _Comparison) -> None:
        """Have it compared when nothing else of this worker has its turn, nor its association."""
        waiting = self._turns.get(job.turn)
        if waiting is not None:
            waiting.add(job.association, job)
        else:
            self._turns[job.turn] = Turns()
            self._comparisons.add(job.association, job)

    def unlocked(self, path_hash: int) -> None:
        """The line of a duplicate is written, and its path's lock is free: the next one's turn."""
        self._unlock(path_hash % TURNS)

    def replaced(self, replacement: Replacement) -> None:
        """Let go of what an instance took the place of, or put it back if that was refused."""
        settlement = Settlement(self._replaced, replacement.path, refused=replacement.refused)
        # A buffered one is flushed only now, and the older content may be on stable storage.
        is_due = not replacement.refused and not replacement.rules.durable
        job = _Replacing(replacement, settlement, replacement.association, replacement.path, is_due)
        self._under_way += 1
        if replacement.refused:
            with self._sharing:
                self._unread.append(job)
        self._replacements.add(job.association, job)

    def compress(self, compression: Compression) -> None:
        """Compress the part of a complete instance."""
        self._under_way += 1
        self._compressions.add(compression.association, _Compressing(compression))

    def watch(self, now: float) -> None:
        """Say that instances are stored again, once that is so; now: of the monotonic clock.

        It is told at the level at which the failures were.
        """
        if not self._failed_at:
            return
        stored = self._shared.rows.totals(self._setup.worker).instances - self._stored_then
        if now - self._failed_at > _OVER_S and stored > 0:
            self._failed_at = 0.0
            log.error(
                "storing again: %s since the last file call that failed",
                counted(stored, "instance"),
                extra={
                    **concluding(), **fields(stored=stored, worker=self._setup.worker)
                },
            )  # fmt: skip

    def _failed(self) -> None:
        """A file call failed: `watch` looks when that is over."""
        self._failed_at = time.monotonic()
        self._stored_then = self._shared.rows.totals(self._setup.worker).instances

    def file_error(self, step: str, error_no: int, path: str) -> None:
        """Tell of a file call that failed and cost an instance; its sender got A700.

        path: of the instance, or of what every instance needs.
        """
        self._failed()
        if path == PATH_LOCKS:
            # The instance's own name has nothing to do with it.
            _tell_locks(error_no)
            return
        # The same again, from every instance in flight, is one line.
        log.error(
            "cannot %s (%s): %s; answered A700; %s",
            step, self._shown(path), _WORDS.get(error_no) or reason_for(error_no),
            _ADVICE.get(error_no, "check the store's file system"),
            extra={
                **caused(f"cannot {step}: {reason_for(error_no)}", shown=1),
                **fields(
                    status="A700", reason=reason_of(error_no) or reason_for(error_no),
                    worker=self._setup.worker,
                ),
            },
        )  # fmt: skip

    def refused(self, folder: str, error_no: int, lasting: bool, everything: bool) -> None:
        """Tell of a folder that could not be flushed, and mark it where that is lasting.

        Called by a thread of the commit, or by a helper. everything: no folder gets anything from
        now on.
        """
        shown = self._shown(folder)
        # Once for each folder: no worker comes here again for the same one.
        log.error(
            "cannot flush the folder %s: %s; answered A700, and so is all that is sent there from "
            "now on%s: its names may not be on the disk, and another flush would not tell; %s; %s",
            shown or "of the store itself", reason_for(error_no),
            ", or to any other folder, for too many have failed" if everything else "",
            _ADVICE.get(error_no, "check the store's file system"),
            _LIFTED if lasting else "then restart the service",
        )  # fmt: skip
        if not lasting:
            return
        try:
            Marks(self._store_fd).leave(
                "all folders" if everything else "folder", folder, error_no, shown
            )
        except OSError as error:
            log.error(
                "cannot mark in %s that the folder %s was not flushed: %s; do not restart the "
                "service before the machine was restarted or the file system was mounted anew",
                HOME, shown or "of the store itself", reason_for(error),
            )  # fmt: skip

    def knows(self, layouts: Iterable[str]) -> None:
        """Paths may be of these layouts, too, from now on."""
        self.layouts = tuple(dict.fromkeys((*self.layouts, *layouts)))

    def _shown(self, path: str) -> str:
        return path_shown(path, self.layouts)

    # Comparing -----------------------------------------------------------------------------------

    def _compared(
        self, job: _Comparison, future: asyncio.Future[duplicates.Outcome | None]
    ) -> None:
        outcome = self._outcome(job, future)
        if outcome is None:
            loop = asyncio.get_running_loop()
            if job.resolution.awaits_index:
                # Others of its lock need not wait for that.
                self._unlock(job.turn)
                loop.call_later(job.again_s, self._queue, job)
            else:
                loop.call_later(job.again_s, self._comparisons.add, job.association, job)
            job.again_s = min(2 * job.again_s, _AGAIN_MOST_S)
            return
        self._under_way -= 1
        log.debug("%s is taken: %s", self._shown(job.resolution.path), outcome.kind)
        if outcome.kind == "refused":
            self._unlock(job.turn)
            error_no = outcome.error_no
            if error_no:
                self._failed()
            comment = outcome.comment
            if outcome.path == PATH_LOCKS or outcome.why:
                # The instance's own name has nothing to do with it.
                comment = _tell_elsewhere(outcome)
                error_no = 0
            job.duplicate.refuse(outcome.status, comment, error_no)
            return
        if outcome.error_no:
            log.error(
                "cannot flush %s: %s; it was there already, and what was sent again has taken its "
                "place; %s",
                self._shown(outcome.path), reason_for(outcome.error_no),
                _ADVICE.get(outcome.error_no, "check the store's file system"),
                extra=caused("cannot flush an existing instance", shown=1),
            )  # fmt: skip
        kind: Literal["named", "identical", "version", "replaced", "kept"] = outcome.kind  # type: ignore[assignment]
        job.duplicate.accept(kind, outcome.path, outcome.lock_fd)

    def _outcome(
        self, job: _Comparison, future: asyncio.Future[duplicates.Outcome | None]
    ) -> duplicates.Outcome | None:
        try:
            return future.result()
        except Exception:
            # A bug; the sender is answered all the same, and what is there already stays.
            path = job.resolution.path
            log.exception("cannot compare %s", self._shown(path))
            return duplicates.Outcome("refused", path, status=status.OUT_OF_RESOURCES)

    def _unlock(self, turn: int) -> None:
        waiting = self._turns[turn]
        if not waiting:
            del self._turns[turn]
            return
        job = waiting.take()
        self._comparisons.add(job.association, job)

    # Replacing -----------------------------------------------------------------------------------

    def _settle(self, job: _Replacing) -> Settled | None:
        """In a thread. None: not yet. Raises OSError."""
        if job.is_due:
            job.is_due = False
            try:
                self._secured.flush(job.path)
            except OSError as error:
                # What comes again is written and named anew: another flush would mean nothing.
                self._doubts.doubt(job.path)
                job.settlement.refuse(error.errno or errno.EIO)
        if job.reading is None and job.replacement.refused:
            self._share_reading()
        return job.settlement.attempt(job.reading)

    def _share_reading(self) -> None:
        """Have the journal read once for all that are refused and wait; in a thread.

        A disk that is full refuses many at once, and the journal may be long.
        """
        with self._sharing:
            jobs, self._unread = self._unread, []
            known = {}
            for job in jobs:
                # What goes wrong here, the settlement meets again and tells.
                with contextlib.suppress(OSError):
                    known[job.path] = read_record(self._store_fd, job.path)
            reading = Reading(self._store_fd, known.values())
            for job in jobs:
                job.reading = reading if job.path in known else None

    def _settled(self, job: _Replacing, future: asyncio.Future[Settled | None]) -> None:
        try:
            done = future.result()
        except OSError as error:
            self._tell_left(job, error)
            if job.settlement.unsure:
                # Who was told of a refusal would find the instance stored after the next start.
                asyncio.get_running_loop().call_later(
                    _DISK_AGAIN_S, self._replacements.add, job.association, job
                )
                return
            self._refuse_undecided(job, error.errno or errno.EIO)
        except Exception:
            # A bug; the sender is answered all the same, and what is kept stays.
            log.exception("cannot settle what %s held before", self._shown(job.path))
            self._refuse_undecided(job, errno.EIO)
        else:
            if done is None:
                loop = asyncio.get_running_loop()
                loop.call_later(job.again_s, self._replacements.add, job.association, job)
                job.again_s = min(2 * job.again_s, _AGAIN_MOST_S)
                return
            if done.undone:
                log.warning(
                    "%s holds again what it held before: the newer instance was refused",
                    self._shown(job.path), extra=caused("refused replacements", shown=1),
                )  # fmt: skip
        self._under_way -= 1
        job.replacement.settled(job.settlement.error_no)

    def _refuse_undecided(self, job: _Replacing, error_no: int) -> None:
        """Have no sender told that an instance is stored which has to give its place back."""
        if not job.settlement.decided and not job.settlement.error_no:
            job.settlement.refuse(error_no)

    def _tell_left(self, job: _Replacing, error: OSError) -> None:
        """Say what an end that failed has left; and let nobody take the path before it is gone."""
        tell_left((job.path,), self._doubts)
        kind = why = _WORDS.get(error.errno or 0) or reason_for(error)
        advice = _ADVICE.get(error.errno or 0, "check the store's file system")
        if is_in(error.filename):
            why, advice = f"{error.filename}: {why}", _advice_for(error.filename, error.errno or 0)
        if job.settlement.unsure:
            what = (
                "cannot note whether %s holds the newer instance or the older one (%s): both are "
                "kept, the one in %s, and the sender has no answer until the disk takes a note; %s"
            )
        elif job.settlement.decided:
            what = (
                "cannot remove what %s held before (%s): it stays in %s until the next instance of "
                "that path comes, or until the next start; %s"
            )
        elif job.settlement.beside:
            what = (
                "cannot take back the refused instance %s beside its other form (%s): the other "
                "one, which is also in %s, counts again with the next instance of that path or at "
                "the next start; %s"
            )
        else:
            what = (
                "cannot put back what %s held before a refused instance (%s): it is kept in %s, "
                "and comes back with the next instance of that path or at the next start; %s"
            )
        log.error(
            what, self._shown(job.path), why, REPLACED, advice,
            # Of many files one line, whatever their names are.
            extra=caused(f"cannot settle a replacement: {kind}", shown=1),
        )  # fmt: skip

    # Compressing ---------------------------------------------------------------------------------

    def _compress(self, job: _Compressing) -> tuple[str, int] | None:
        """In a thread. None: it is large, and has to get leave, or has slices left."""
        part = job.compression.part
        if job.work is None:
            if not job.large and self._bytes_of(part) > SLICE:
                return None
            level = job.compression.rules.compress_level
            job.work = PartCompression(self._life_fd, part, level)
        return job.work.take_slice()

    def _bytes_of(self, part: str) -> int:
        return os.stat(part, dir_fd=self._life_fd, follow_symlinks=False).st_size

    def _compressed(
        self, job: _Compressing, future: asyncio.Future[tuple[str, int] | None]
    ) -> None:
        if future.exception() is None and future.result() is None:
            self._go_on_compressing(job)
            return
        self._under_way -= 1
        if job.large:
            self._large -= 1
            if self._large_later:
                self._go_on_compressing(self._large_later.take())
        self._hand_back(job.compression, future)

    def _go_on_compressing(self, job: _Compressing) -> None:
        """With the next slice when it is the association's turn again, before its later ones."""
        association = job.compression.association
        if not job.large:
            if self._large >= _LARGE_MOST:
                self._large_later.add(association, job)
                return
            self._large += 1
            job.large = True
        self._compressions.add(association, job, first=True)

    def _hand_back(
        self, compression: Compression, future: asyncio.Future[tuple[str, int] | None]
    ) -> None:
        try:
            made = future.result()
        except OSError as error:
            compression.failed(error.errno or errno.EIO)
        except Exception:
            # A bug must not leave a sender without an answer.
            log.exception("cannot compress %s", compression.part)
            compression.failed(errno.EIO)
        else:
            if made is not None:
                compression.done(*made)


def _tell_elsewhere(outcome: duplicates.Outcome) -> bytes | None:
    """Tell of what is not the instance's own; returns the Error Comment, None: no more to say."""
    if outcome.path == PATH_LOCKS:
        _tell_locks(outcome.error_no)
    else:
        _tell_in_the_way(outcome)
    # What is in the way there is in everybody's way, and not in that of one path.
    reason = None if outcome.error_no in _IN_THE_WAY else reason_of(outcome.error_no)
    return None if reason is None else reason.encode()


def _tell_locks(error_no: int) -> None:
    """Say that nothing can get a name: the file of locks is bad, by which workers take turns."""
    log.error(
        "cannot lock %s, which every instance needs to get its name: %s; answered A700; %s",
        PATH_LOCKS, _WORDS.get(error_no) or reason_for(error_no),
        f"move away what is at {PATH_LOCKS}: the service makes it anew"
        if error_no in _WORDS else _ADVICE.get(error_no, "check the store's file system"),
        extra=caused(f"cannot lock {PATH_LOCKS}: {reason_for(error_no)}", shown=1),
    )  # fmt: skip


def _tell_in_the_way(outcome: duplicates.Outcome) -> None:
    """Say what keeps an existing instance from being replaced; that one is not in the way."""
    log.error(
        "cannot replace an existing instance, which has to be kept meanwhile: %s: %s; answered "
        "A700; %s",
        outcome.path, _WORDS.get(outcome.error_no) or outcome.why,
        _advice_for(outcome.path, outcome.error_no),
        extra=caused(f"cannot replace: {reason_for(outcome.error_no)}", shown=1),
    )  # fmt: skip


def _advice_for(path: str, error_no: int) -> str:
    """What to do about something in the folder of older contents that is not as it must be."""
    if error_no in _IN_THE_WAY:
        return f"look at what is at {path}, and move that away, not the instance"
    return _ADVICE.get(error_no, "check the store's file system")


def _attempt(job: _Comparison) -> duplicates.Outcome | None:
    """In a thread."""
    return job.resolution.attempt()

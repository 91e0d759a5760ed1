"""`fastscp verify`: the journal and the files held against each other, and put right if asked."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastscp.errors import FastscpError, StartError, StoreBusyError, reason_for
from fastscp.store.access import denied, existing, held
from fastscp.store.adopt import ADOPTED, Adoption
from fastscp.store.compare import Comparison
from fastscp.store.findings import Finding, Kind, Mark, Report, Tally
from fastscp.store.identity import read_identity
from fastscp.store.leftovers import is_anything_left, look_beside, settle_alone
from fastscp.store.marks import suspicion, trust
from fastscp.store.names import (
    HOME,
    IDENTITY,
    JOURNAL,
    REDO,
    SUSPECT,
    exists,
    flush_folder,
    home,
    make_folder,
)
from fastscp.store.reading import Pace
from fastscp.store.records import CHECKSUM, Records, records
from fastscp.store.redo.logs import is_anything_logged
from fastscp.store.redo.recovery import highest_logged, recover, refuse_damaged
from fastscp.store.renew import finish, is_anything_unflushed, made_anew, renew
from fastscp.store.repair import repair
from fastscp.store.selection import Selection
from fastscp.store.studies import Studies
from fastscp.store.unrecovered import refuse_unrecovered
from fastscp_ext import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastscp.store.findings import Watcher
    from fastscp.store.identity import Identity
    from fastscp.store.marks import Suspicion

__all__ = ["NothingSelectedError", "Verification", "verify"]

# How long something that is younger than this may take to be named and journaled.
_PATIENCE_S: Final = 10.0
_NEW_LIFE: Final = "start the service once with --store-new-life"


class NothingSelectedError(FastscpError):
    """The store has nothing of what was asked for."""


@dataclass(frozen=True)
class _Store:
    """The store of a run.

    alone: its lock is held, so nothing in it moves, and all may be changed. adopt: as in
    `Verification`. identity: None where store.toml is lost.
    """

    path: Path
    dir_fd: int
    alone: bool
    adopt: bool
    identity: Identity | None

    @property
    def layouts(self) -> tuple[str, ...]:
        """All that files may lie here by, as in `Identity`; none where it is not known."""
        return () if self.identity is None else self.identity.layouts


def _lost(store: _Store) -> Iterator[Finding]:
    """What the store has lost of its own; a journal's folder is made anew for adopted lines."""
    if not exists(IDENTITY, store.dir_fd):
        yield Finding(Kind.MISSING, IDENTITY, f"not there: restore it, or {_NEW_LIFE}")
    if exists(JOURNAL, store.dir_fd):
        return
    why = "not there: restore it; or have it written anew from the files, with --adopt"
    if store.adopt:
        with home(store.dir_fd) as home_fd:
            make_folder(JOURNAL.rpartition("/")[2], home_fd)
            flush_folder(home_fd)
    yield Finding(Kind.MISSING, JOURNAL, why, settled="made anew" if store.adopt else "")


def _unflushed(store: _Store) -> Iterator[Finding]:
    """Folders and files whose flush failed; folders are made anew where that can be."""
    yield from renew(store.path, store.dir_fd, alone=store.alone)


def _replaced(store: _Store) -> Iterator[Finding]:
    """What replacements left that were not through, settled; of a running service's, nothing.

    What is no replacement of anybody is named in any case.
    """
    if not is_anything_left(store.dir_fd):
        return
    try:
        with contextlib.nullcontext() if store.alone else held(store.path, store.dir_fd):
            try:
                lifted = finish(store.dir_fd)
            except OSError:
                # Paths are not all where they seem to be. The next step tries it, too, and tells.
                return
            yield from map(made_anew, lifted)
            cleared = settle_alone(store.dir_fd, "verify", lambda: _highest_logged(store))
            yield from cleared.findings
    except (StoreBusyError, StartError):
        # It has them in hand, and settles what a dead worker left.
        yield from look_beside(store.dir_fd)


def _highest_logged(store: _Store) -> int:
    return highest_logged(store.dir_fd, store.identity) if store.identity is not None else 0


def _logged(store: _Store) -> Iterator[Finding]:
    """What is in the redo log of workers that did not end in order, recovered."""
    if not is_anything_logged(store.dir_fd):
        return
    if not store.alone:
        refuse_unrecovered(store.path, store.dir_fd, use="comparing them")
        return
    if store.identity is None:
        raise StartError(
            f"{store.path} has a redo log in {REDO} and has lost {IDENTITY}, so whether that log "
            f"is its own is not known: restore {IDENTITY}, or start the service once with "
            f"--store-new-life, which takes the id from the log and recovers it"
        )
    # It may not go before these are on the disk.
    if is_anything_unflushed(store.dir_fd):
        refuse_damaged(store.dir_fd, store.identity)
    found = renew(store.path, store.dir_fd, alone=True)
    yield from (one for one in found if one.settled)
    try:
        recovered = recover(store.dir_fd, store.identity, alone=True)
    except (OSError, StartError):
        # Else the last step tells what still stands.
        yield from (one for one in found if not one.settled)
        raise
    if recovered.logs:
        why = "was in the redo log of workers that did not end in order"
        yield Finding(Kind.LOGGED, REDO, why, settled="; ".join(recovered.told))


# Things between two states, before any file is compared. Each step looks for one kind of them; it
# finishes or undoes it if nobody else uses the store (`alone`), and else only tells. The journal is
# read afterwards.
_BETWEEN: Final[tuple[Callable[[_Store], Iterator[Finding]], ...]] = (
    _lost,
    # First, for a file that is marked may come back to its path.
    _replaced,
    # What a replacement held may be back at its path, with a line of its own.
    _logged,
    _unflushed,
)


def verify(path: Path, **options: Any) -> Report:
    """Hold the files of the store at `path` against its journal; see `Verification`."""
    return Verification(path, **options).run()


class Verification:
    """One run over a store.

    adopt: write lines for unjournaled instances. repair_journal: replace journal files with damaged
    lines by ones without. Both need the store's lock. selection: what is looked at. rate: bytes
    read in a second, 0 for no limit. tell: called with each finding; without it the report has them
    all. patience_s: how long a young file may wait for its line, where a service may be running.
    """

    def __init__(
        self,
        path: Path,
        *,
        adopt: bool = False,
        repair_journal: bool = False,
        selection: Selection | None = None,
        rate: int = 0,
        tell: Callable[[Finding], None] | None = None,
        watcher: Watcher | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._path = path
        self._adopt = adopt
        self._repair = repair_journal
        self._selection = selection or Selection()
        self._pace = Pace(rate)
        self._findings: list[Finding] = []
        self._tell = tell or self._findings.append
        self._watcher = watcher
        self._patience_s = patience_s
        self._tally = Tally()
        self._adopted = 0
        self._records: Records | None = None
        self._comparison: Comparison | None = None
        # Of findings, by their paths.
        self._studies = Studies(())

    def run(self) -> Report:
        """Look at everything.

        Raises StartError where there is no store, StoreBusyError where the lock is needed and not
        to be had, OSError where the store or its journal as a whole cannot be read or written,
        FastscpError where the journal cannot be added to, nothing is left to look at, or something
        is in the way of what is the service's own.
        """
        alone = self._adopt or self._repair
        with contextlib.ExitStack() as until:
            dir_fd = until.enter_context(existing(self._path))
            until.enter_context(_in_the_way(self._path))
            identity = self._begin(dir_fd)
            if alone:
                until.enter_context(held(self._path, dir_fd))
            mark = suspicion(dir_fd)
            store = _Store(self._path, dir_fd, alone, self._adopt, identity)
            if not alone:
                # Before anything is changed.
                self._take(_logged(store))
            for step in _BETWEEN:
                self._take(step(store))
            notes = until.enter_context(records(dir_fd, self._selection, self._pace.took))
            self._records = notes
            self._look(store, notes, suspect=bool(mark))
            if self._selection.study and not notes.wanted and not self.report().files:
                raise NothingSelectedError(
                    f"no line of the journal of {self._path} has the study "
                    f"{self._selection.study}, and no file there is of it: give --study what "
                    f"`study_instance_uid` in the journal says"
                )
            suspect = notes.suspect + (self._adopted if mark else 0)
            outcome = self._judge_mark(dir_fd, mark, alone, suspect)
            return self.report(suspect, outcome)

    def report(self, suspect: int = 0, mark: Mark = Mark.NONE) -> Report:
        """What was found so far, where a run was interrupted."""
        comparison, notes = self._comparison, self._records
        return Report(
            lines=notes.lines if notes is not None else 0,
            files=comparison.files if comparison is not None else 0,
            bytes=comparison.bytes if comparison is not None else 0,
            torn=tuple(f"{JOURNAL}/{one}" for one in sorted(notes.torn)) if notes else (),
            suspect=suspect,
            unchecked=comparison.unchecked if comparison is not None else 0,
            unproven=comparison.unproven if comparison is not None else 0,
            left=self._tally.left,
            settled=self._tally.settled,
            findings=tuple(self._findings),
            mark=mark,
            searched=comparison is None or comparison.is_searching,
        )

    def study_depth(self, finding: Finding) -> int:
        """How many components of its path name the study it belongs to."""
        return self._studies.depth(finding.path, finding.origin.study if finding.origin else "")

    def _begin(self, dir_fd: int) -> Identity | None:
        """What store.toml says. Raises StartError where it is not known what the store is."""
        if not exists(IDENTITY, dir_fd) and not exists(JOURNAL, dir_fd):
            raise StartError(
                f"{self._path} has a folder {HOME}, and neither {IDENTITY} nor {JOURNAL} is in it, "
                f"so nothing is known of its instances: mount or restore what is missing; if it is "
                f"gone, {_NEW_LIFE}, stop it, and run `fastscp verify --adopt`"
            )
        identity = read_identity(self._path, dir_fd)
        if identity is None:
            return None
        try:
            for layout in identity.layouts:
                Layout(layout)
        except ValueError as error:
            raise StartError(
                f"{self._path / IDENTITY} cannot be used ({error}); restore it"
            ) from error
        self._studies = Studies(identity.layouts)
        return identity

    def _look(self, store: _Store, notes: Records, *, suspect: bool) -> None:
        comparison = self._comparison = Comparison(
            store.dir_fd,
            notes,
            self._selection,
            Studies(store.layouts, self._selection.study),
            alone=store.alone,
            patience_s=self._patience_s,
            pace=self._pace,
            watcher=self._watcher,
        )
        with contextlib.ExitStack() as until:
            finish = comparison.stop
            take: Callable[[Finding], Iterator[Finding]] = _as_it_is
            if self._adopt:
                adoption = Adoption(
                    store.dir_fd,
                    suspect=suspect,
                    identity=store.identity,
                    has_below=notes.has_below,
                    pace=self._pace,
                )
                until.callback(adoption.close)
                finish, take = adoption.finish, adoption.take
            try:
                for finding in comparison.run():
                    self._take(take(finding))
            except KeyboardInterrupt:
                self._take(finish())
                raise
            self._take(finish())
        self._take(_of_lines(store.dir_fd, notes, repair_journal=self._repair))

    def _take(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            self._tally.take(finding)
            self._adopted += finding.settled == ADOPTED
            self._tell(finding)

    def _judge_mark(self, dir_fd: int, mark: Suspicion, alone: bool, suspect: int) -> Mark:
        """Lift the mark of an unclean end where nothing is wrong and nobody uses the store.

        An adopted file is what its line says, for the line was written from it; whether it is what
        was sent, only its resend can tell. The same holds for a buffered one without a digest.

        mark: what it was before anything was read: one that came later says something new.
        """
        if not mark:
            return Mark.NONE
        try:
            with contextlib.nullcontext() if alone else held(self._path, dir_fd):
                if self._selection:
                    return Mark.PARTIAL
                if self._tally.left.total() or suspicion(dir_fd) != mark:
                    return Mark.STAYS
                if suspect:
                    return Mark.ADOPTED
                if self.report().unproven:
                    return Mark.UNPROVEN
                trust(dir_fd)
                return Mark.LIFTED
        except StoreBusyError:
            # Of a buffered life that goes on, the mark says nothing yet.
            return Mark.IN_USE if any(name == SUSPECT for name, *_ in mark) else Mark.NONE
        except StartError:
            return Mark.PARTIAL if self._selection else Mark.STAYS


@contextlib.contextmanager
def _in_the_way(path: Path) -> Iterator[None]:
    """An OSError because of what lies in the service's own folder and is not its own, in words."""
    try:
        yield
    except PermissionError as error:
        refused = error.filename if isinstance(error.filename, str) else str(path)
        why = f"{reason_for(error)}; {denied(path, refused)}"
        raise FastscpError(f"cannot verify {path}: {refused}: {why}") from error
    except OSError as error:
        where = error.filename
        if (
            error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR)
            or not isinstance(where, str)
            or not where.startswith(f"{HOME}/")
        ):
            raise
        said = reason_for(error)
        if error.errno == errno.ENOTDIR:
            said = "has the name of a folder and is none"
        raise FastscpError(
            f"{path / where}: {said}; it is not what the service put there: look at it, move it "
            f"away, and run `fastscp verify` again"
        ) from error


def _as_it_is(finding: Finding) -> Iterator[Finding]:
    yield finding


def _of_lines(dir_fd: int, notes: Records, *, repair_journal: bool) -> Iterator[Finding]:
    """What is wrong with lines of the journal; repair_journal: damaged ones are taken out."""
    segments = notes.damaged_segments() if repair_journal else []
    kept = dict(repair(dir_fd, segments)) if segments else {}
    for segment, number, why in notes.damaged():
        settled = ""
        if segment in kept and why == CHECKSUM:
            settled = f"repaired, the original is {kept[segment]}"
        yield Finding(Kind.DAMAGED, f"{JOURNAL}/{segment}", f"line {number}: {why}", settled)
    for segment, (number, size) in sorted(notes.tails.items()):
        settled = f"taken out, the original is {kept[segment]}" if segment in kept else ""
        why = (
            f"line {number}: its last {size} bytes are no line, nor the beginning of one that a "
            f"crash cut off: what they held is unknown; if the power failed while a line was "
            f"written, nothing of it was acknowledged"
        )
        yield Finding(Kind.DAMAGED, f"{JOURNAL}/{segment}", why, settled)
    for seq, segment, number, other, other_number in notes.twice():
        where = f"line {other_number} of {f'{JOURNAL}/{other}' if other != segment else 'it'}"
        why = (
            f"line {number}: its `seq` {seq} is also that of {where}, and for one path the highest "
            f"is the truth: keep copies of both files, and take out the line that is not true"
        )
        yield Finding(Kind.TWICE, f"{JOURNAL}/{segment}", why)

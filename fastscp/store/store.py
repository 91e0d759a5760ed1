"""A store held by this process: taken, watched, and given back.

Everything is reached from one directory descriptor: if the file system vanishes under its mount
point, no call writes into the directory that comes to light there.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import ConfigError, FastscpError, StartError, reason_for
from fastscp.log import printable
from fastscp.store.access import explained, is_store, open_and_lock, open_store, write_holder
from fastscp.store.collisions import check
from fastscp.store.filing import refuse
from fastscp.store.identity import (
    FORMAT,
    FORMAT_LOGGED,
    encoded,
    read_identity,
    stamp,
    write_format,
    write_identity,
)
from fastscp.store.leftovers import settle_alone
from fastscp.store.lives import sweep_incoming
from fastscp.store.made import Made
from fastscp.store.marks import begin_buffered, begin_life, end_life, take_back_buffered
from fastscp.store.names import (
    ANEW,
    BUFFERED,
    HOME,
    IDENTITY,
    INCOMING,
    JOURNAL,
    LOCK,
    PATH_LOCKS,
    REDO,
    REPLACED,
    SUSPECT,
    descriptor,
    exists,
    flush_folder_at,
    leads_to,
    names_in,
    open_folder,
    own_folder,
)
from fastscp.store.probe import (
    Facts,
    RenameNoReplace,
    cannot_be_stable,
    probe,
    refuse_another_file_system,
)
from fastscp.store.redo.logs import is_anything_in, logged_id
from fastscp.store.redo.recovery import highest_logged, recover
from fastscp.store.refile import (
    AT_START,
    RUNNING,
    changes,
    differences,
    next_identity,
    second_copies,
)
from fastscp.store.renew import finish
from fastscp.store.survey import first_instance, links, missing
from fastscp.store.unflushed import Mark, Marks
from fastscp.store.unflushed import warnings as of_unflushed
from fastscp.store.unused import Unused
from fastscp.store.waits import check_locks
from fastscp_ext import rename_noreplace as system_rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fastscp.store.filing import Filing, Filings
    from fastscp.store.identity import Identity
    from fastscp.store.redo.files import Doubts
    from fastscp.store.redo.recovery import Recovered

__all__ = ["Store"]

log = logging.getLogger("fastscp.main")

# They say nothing of the store.
_PUT_BACK: Final = (
    "put that back; where it is lost for good, restart the service: the start says what it wants"
)
_OUR_LACK: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# How long killed workers may take to be gone.
_WORKERS_END_S: Final = 2.0
# Of what --layout-change lets be filed otherwise, so many lines are told.
_CHANGES_TOLD: Final = 20


@dataclass(eq=False)
class Store:
    """A store held by this process.

    dir_fd: the store directory, for every `*at` call. lock_fd: the lock; whoever has it, a worker
    or a successor, keeps it held. created: it did not exist before.
    suspect: a buffered life ended without a clean stop, so a file may be less than it seems.
    unflushed: what an earlier run could not flush. sequence: the journal's has to go on above it.
    left: where what a replacement kept stays, as in `Cleared`.
    warnings: for the log. made: what `unmake` takes away. is_inherited: taken over from a service
    that goes on with what it has in hand there.

    unrecovered: set by whoever calls `recover_beside`: why it failed, "" since it did not.

    `refile` changes these: filings: how it is filed now. mixed: it holds compressed and
    uncompressed files, or will. buffered: the mark of a buffered life is there.
    """

    path: Path
    id: str
    filings: Filings
    dir_fd: int
    lock_fd: int
    created: bool
    facts: Facts
    mixed: bool
    buffered: bool
    suspect: bool
    unflushed: tuple[Mark, ...]
    sequence: int
    left: tuple[str, ...] | None
    warnings: tuple[str, ...]
    made: Made
    is_inherited: bool = False
    # Why what dead workers logged cannot be recovered, "": it is.
    unrecovered: str = field(default="", init=False)
    # store.toml as it was when it was last found to be this store's.
    _seen: tuple[int, ...] | None = field(default=None, init=False, repr=False)
    # All that this life has filed by: associations that began before a reload go on as they began.
    _lived: dict[Filing, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._note_lived()

    def _note_lived(self) -> None:
        for key, filing in self.filings:
            self._lived.setdefault(filing, key)

    @classmethod
    def open(
        cls,
        path: Path,
        filings: Filings,
        must_exist: bool = False,
        layout_change: bool = False,
        *,
        new_life: bool = False,
        durabilities: Collection[str] = ("stable",),
        rename_noreplace: RenameNoReplace = system_rename_noreplace,
    ) -> Store:
        """Take the store at `path`, made if it is not there, and find out what it can do.

        must_exist: refuse a directory that is no store yet. layout_change: let `filings` differ
        from what the store was filed by so far. new_life: let a store that holds instances and has
        lost store.toml or its journal begin anew. durabilities: all that the settings and their
        tables name; what they promise must be possible here.
        Raises ConfigError for another layout or suffix of the top level or of a called AE title
        that store.toml knows, for layouts that collide, and for a path inside a service's own
        folder; StoreBusyError if the store is in use, StartError if it cannot be used. Nothing
        stays open then, and nothing that was made stays. Blocks on the disk.
        """
        made = Made()
        check(filings)
        # As messages name it: whoever reads a log does not know the folder of the process.
        path = path.absolute()
        with contextlib.ExitStack() as undo, explained(path):
            _refuse_path(path, must_exist)
            dir_fd, lock_fd = open_and_lock(path, made)
            undo.callback(os.close, dir_fd)
            undo.callback(os.close, lock_fd)
            # Before the lock is given back: the next start may use what is there from then on.
            undo.callback(made.take_away)
            # Every instance needs it to get its name.
            if not exists(PATH_LOCKS, dir_fd):
                made.note(PATH_LOCKS, dir_fd)
            check_locks(dir_fd)

            known = read_identity(path, dir_fd)
            warnings = _begun_anew(path, dir_fd, known, new_life)
            for folder in (INCOMING, JOURNAL, REPLACED):
                made.folder(folder, dir_fd)
            refuse_another_file_system(path, dir_fd)
            facts = probe(path, dir_fd, durabilities, rename_noreplace)
            flush = facts.directory_flush
            if not layout_change:
                refuse(changes(path, known, filings, AT_START, Unused(dir_fd)))
            warnings = (*warnings, *_filed_otherwise(dir_fd, known, filings))
            identity = next_identity(known, filings)
            if known is None and (logged := logged_id(dir_fd)):
                # Else nobody would know whose instances these are.
                identity = msgspec.structs.replace(identity, id=logged, format=FORMAT_LOGGED)
            encoded(identity)
            buffered = "buffered" in durabilities
            if identity != known:
                if known is None:
                    made.note(IDENTITY, dir_fd)
                write_identity(dir_fd, identity, flush_directory=flush)
            past = _settle_past(
                path, dir_fd, made, identity, buffered=buffered, flush_directory=flush
            )
            # What was logged is recovered: whoever begins a log says so first.
            write_format(path, dir_fd, FORMAT, flush_directory=flush)
            warnings = (*facts.warnings, *warnings, *_links(path, dir_fd), *past.warnings)
            undo.pop_all()
        return cls(
            path=path,
            id=identity.id,
            filings=filings,
            dir_fd=dir_fd,
            lock_fd=lock_fd,
            created=known is None,
            facts=facts,
            mixed=len(identity.suffixes) > 1,
            buffered=buffered,
            suspect=past.suspect,
            unflushed=past.unflushed,
            sequence=past.sequence,
            left=past.left,
            warnings=warnings,
            made=made,
        )

    @classmethod
    def inherit(
        cls,
        path: Path,
        lock_fd: int,
        earlier: Mapping[Filing, str],
        *,
        durabilities: Collection[str] = ("stable",),
        rename_noreplace: RenameNoReplace = system_rename_noreplace,
    ) -> Store:
        """Take over a store from a service that goes on with what it has in hand there.

        lock_fd: the lock as that service holds it, owned from here on, also where this raises.
        earlier: what it files by, with its tables; `refile` tells how the caller does. The store
        stays as it is: whatever there is of marks, parts and replacements is that service's.
        Raises StartError, ConfigError; the other one goes on. Blocks on the disk.
        """
        path = path.absolute()
        with contextlib.ExitStack() as undo, explained(path):
            undo.callback(os.close, lock_fd)
            dir_fd = open_store(path)
            undo.callback(os.close, dir_fd)
            known = read_identity(path, dir_fd)
            if known is None or not leads_to(LOCK, dir_fd, lock_fd):
                raise StartError(
                    f"{path} is not the store of the service that is to be taken over from: a "
                    f"service takes its store along; to change it, stop the service and start anew"
                )
            facts = probe(path, dir_fd, durabilities, rename_noreplace)
            unflushed = Marks(dir_fd).standing()
            suspect, buffered = exists(SUSPECT, dir_fd), exists(BUFFERED, dir_fd)
            undo.pop_all()
        store = cls(
            path=path, id=known.id, filings=known.filings, dir_fd=dir_fd, lock_fd=lock_fd,
            created=False, facts=facts, mixed=len(known.suffixes) > 1, buffered=buffered,
            suspect=suspect, unflushed=unflushed, sequence=0, left=(), warnings=facts.warnings,
            made=Made(), is_inherited=True,
        )  # fmt: skip
        for filing, key in earlier.items():
            store._lived.setdefault(filing, key)
        return store

    @property
    def lived(self) -> Mapping[Filing, str]:
        """All that associations may still file by, each with its table."""
        return self._lived

    def take_lock_over(self) -> None:
        """Say in the lock who holds it from now on. Raises OSError."""
        write_holder(self.lock_fd)

    def check_refile(self, filings: Filings, durabilities: Collection[str]) -> None:
        """Raise what `refile` would, and change nothing. Blocks on the disk."""
        self._next(filings, durabilities)

    def _next(
        self, filings: Filings, durabilities: Collection[str]
    ) -> tuple[Identity, Identity, tuple[str, ...]]:
        """What store.toml holds, and is to hold, and what to tell of that; as `refile`."""
        if "stable" in durabilities and not self.facts.directory_flush:
            raise ConfigError("--durability", cannot_be_stable(self.path))
        known = read_identity(self.path, self.dir_fd)
        if known is None or known.id != self.id:
            raise FastscpError(f"{self.path} has lost its {IDENTITY}; restore it")
        refuse(changes(self.path, known, filings, RUNNING, Unused(self.dir_fd)))
        warnings = _filed_otherwise(self.dir_fd, known, filings)
        check(filings, self._lived)
        identity = next_identity(known, filings)
        # Before anything is noted: it may be more than is read again.
        encoded(identity)
        return known, identity, warnings

    def refile(self, filings: Filings, durabilities: Collection[str]) -> bool:
        """Let a running service file by these from now on; returns whether the store is `mixed`.

        To be called before anything is stored so, by one caller at a time. What is noted is flushed
        when it returns. filings, durabilities: as in `open`; no layout and no suffix that
        store.toml knows changes here, unless nothing was filed so. Raises ConfigError where one
        would and for layouts that collide, also with one that this life has filed by so far;
        FastscpError where it cannot be noted. The service then files as before. Blocks on the disk.
        """
        try:
            known, identity, warnings = self._next(filings, durabilities)
            with self._marked(is_needed="buffered" in durabilities):
                if identity != known:
                    flush = self.facts.directory_flush
                    write_identity(self.dir_fd, identity, flush_directory=flush)
        except OSError as error:
            raise FastscpError(
                f"cannot note in {self.path / HOME} how instances are filed from now on "
                f"({reason_for(error)}), so they are filed as before; see that the disk has "
                f"space and that this user may write there, then reload again"
            ) from error
        for warning in warnings:
            log.warning("%s", warning)
        self.filings = filings
        self._note_lived()
        self.mixed = len(identity.suffixes) > 1
        return self.mixed

    @contextlib.contextmanager
    def _marked(self, *, is_needed: bool) -> Iterator[None]:
        """A block with the mark of a buffered life, if that is needed; it stays, if all goes well.

        If not, a mark that was made for the block goes: nothing was stored so, and whoever starts
        after a kill must not suspect the store. Raises OSError.
        """
        is_new = is_needed and not self.buffered
        if is_needed:
            begin_buffered(self.dir_fd)
            self.buffered = True
        try:
            yield
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):
                    take_back_buffered(self.dir_fd)
                    self.buffered = False
            raise

    def lost(self) -> str | None:
        """Why the path no longer leads to this store, and what to do; None while it does.

        Blocks on the disk. Raises OSError where this process lacks the means to look.
        """
        try:
            ours = os.fstat(self.dir_fd)
            there = self.path.stat()
            if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
                return (
                    f"{self.path} is another directory now: mount it again, or put back the one "
                    f"that was there"
                )
            has_identity = self._has_identity()
            missing = [name for name in (INCOMING, JOURNAL) if not self._has(name)]
            is_locked = leads_to(LOCK, self.dir_fd, self.lock_fd)
        except OSError as error:
            if error.errno in _OUR_LACK:
                raise
            why = reason_for(error)
            return f"{self.path} cannot be reached ({why}): mount it again, or put it back"
        except StartError as error:
            return str(error)
        if not has_identity:
            return f"{self.path} has lost its {IDENTITY}: {_PUT_BACK}"
        if missing:
            return f"{self.path} has lost its folder {missing[0]}: {_PUT_BACK}"
        if not is_locked:
            return (
                f"{self.path} has lost the {LOCK} that this service holds, so another service may "
                f"use this store: if somebody only moved it, put it back; else see that no other "
                f"service has the store, and restart this one"
            )
        return None

    def _has_identity(self) -> bool:
        """Whether store.toml is this store's. Raises StartError, OSError.

        It may be long, and main asks every second: it is read only if it has changed.
        """
        now = stamp(self.dir_fd)
        if now is None or now != self._seen:
            identity = read_identity(self.path, self.dir_fd)
            if identity is None or identity.id != self.id:
                return False
            self._seen = now
        return True

    def _has(self, name: str) -> bool:
        try:
            os.close(open_folder(name, self.dir_fd))
        except FileNotFoundError:
            return False
        return True

    def recover_beside(
        self, distrust: Collection[str] = (), doubts: Doubts | None = None
    ) -> Recovered:
        """Recover what dead workers logged, beside the living; distrust, doubts: as in `recover`.

        Blocks on the disk. Raises StartError with what an operator can do.
        """
        with explained(self.path), descriptor(os.dup(self.dir_fd)) as dir_fd:
            identity = read_identity(self.path, dir_fd)
            if identity is None or identity.id != self.id:
                raise StartError(f"{self.path} has lost its {IDENTITY}; restore it")
            return recover(dir_fd, identity, alone=False, distrust=distrust, doubts=doubts)

    def begin_log(self) -> None:
        """Say that there may be a redo log from now on, before there is any. Blocks on the disk.

        Raises OSError, StartError.
        """
        # Noted: a start that fails takes it away.
        self.made.folder(REDO, self.dir_fd)
        with own_folder(REDO, self.dir_fd):
            flush_folder_at(self.dir_fd, HOME)
        self._write_format(FORMAT_LOGGED)

    def end_log(self) -> None:
        """Say that there is no redo log any more, if that is so. Raises OSError, StartError."""
        if not is_anything_in(self.dir_fd):
            self._write_format(FORMAT)

    def _write_format(self, number: int) -> None:
        flush = self.facts.directory_flush
        write_format(self.path, self.dir_fd, number, flush_directory=flush)

    def stopped_cleanly(self) -> None:
        """Take the mark of a buffered life away, after flushing all, and that of a redo log.

        Blocks on the disk. Raises OSError.
        """
        end_life(self.dir_fd)
        # Where store.toml is damaged by now, the next start says so.
        with contextlib.suppress(StartError):
            self.end_log()

    @contextlib.contextmanager
    def unmade_on_failure(self) -> Iterator[None]:
        """A block that begins the service; if it fails, what this start made is taken away."""
        try:
            yield
        except Exception:
            self.unmake()
            raise

    def unmake(self) -> None:
        """Take away what this start made: it failed later on. Blocks for a moment.

        Nothing was stored. Workers that were killed may need that moment to give their folders up.
        """
        deadline = time.monotonic() + _WORKERS_END_S
        with contextlib.suppress(OSError), descriptor(open_folder(INCOMING, self.dir_fd)) as fd:
            while True:
                sweep_incoming(self.dir_fd)
                if not names_in(fd) or time.monotonic() > deadline:
                    break
                time.sleep(0.01)
        if not self.is_inherited:
            # Else others may keep a log, or make one: whoever ends last says that there is none.
            with contextlib.suppress(OSError, StartError):
                self.end_log()
        self.made.take_away()

    def close(self) -> None:
        """Give the store back. A descriptor that a successor inherited keeps it locked."""
        os.close(self.lock_fd)
        os.close(self.dir_fd)


def _refuse_path(path: Path, must_exist: bool) -> None:
    """Raise ConfigError or StartError where no store can be, or where one should be and is not."""
    if HOME in Path(os.path.realpath(path)).parts:
        raise ConfigError(
            "--store",
            f"{path} lies in a service's own folder {HOME}, where nothing is taken for an "
            f"instance and much is removed; name another directory",
        )
    if must_exist and not is_store(path):
        raise StartError(
            f"{path} is not a store (it has no {IDENTITY}), and --store-must-exist is on; "
            f"mount the file system, or start once without that option to make a store"
        )


def _begun_anew(path: Path, dir_fd: int, known: Identity | None, new_life: bool) -> tuple[str, ...]:
    """Raise StartError where a store has instances and lacks what belongs to them.

    new_life: say it instead, for the log.
    """
    lost = missing(dir_fd, known)
    found = first_instance(dir_fd) if lost else None
    if found is None:
        return ()
    what = " and no ".join(lost)
    logged = known is None and logged_id(dir_fd)
    if not new_life:
        raise StartError(
            f"{path} holds instances and has no {what}, so what was acknowledged and how it was "
            f"filed is not known: mount or restore what is missing; or start once with "
            f"--store-new-life, which begins it anew beside those instances"
            + (", with the id that the redo log has, and recovers that" if logged else "")
        )
    begun = (
        f"{path} holds instances and had no {what}: begun anew (--store-new-life); "
        f"`fastscp verify --adopt` writes the journal lines of the instances that have none"
    )
    return (begun,)


def _filed_otherwise(dir_fd: int, known: Identity | None, filings: Filings) -> tuple[str, ...]:
    """For the log: what is filed otherwise from now on, and what of that may come twice."""
    if known is None:
        return ()
    found = [f"filed otherwise from now on: {one}" for one in differences(known, filings)]
    if len(found) > _CHANGES_TOLD:
        found[_CHANGES_TOLD:] = [f"filed otherwise: {len(found) - _CHANGES_TOLD} more"]
    copies = second_copies(known, filings)
    if copies and first_instance(dir_fd) is not None:
        found.append(copies)
    return tuple(found)


def _finish_renewals(path: Path, dir_fd: int, marks: Marks) -> None:
    """Finish what a `renew` that was cut off began. Raises StartError, OSError."""
    # What is wrong with the marks themselves has a name of its own.
    marks.left()
    try:
        finish(dir_fd)
    except OSError as error:
        raise StartError(
            f"{path} has folders that `fastscp verify` had begun to make anew, and they cannot be "
            f"finished ({reason_for(error)}), so instances in them may be in {ANEW} alone: "
            f"check the disk and its free space, then start again; if something is in the way, "
            f"move what is in {ANEW} to its place by hand"
        ) from error


@dataclass(frozen=True)
class _Past:
    """What earlier lives left; each as in `Store`."""

    suspect: bool
    unflushed: tuple[Mark, ...]
    sequence: int
    left: tuple[str, ...] | None
    warnings: tuple[str, ...]


def _settle_past(
    path: Path,
    dir_fd: int,
    made: Made,
    identity: Identity,
    *,
    buffered: bool,
    flush_directory: bool,
) -> _Past:
    """End what earlier lives began, before anybody stores or reads anything; and begin this one.

    Raises StartError, OSError.
    """
    marks = Marks(dir_fd)
    _finish_renewals(path, dir_fd, marks)
    suspect = begin_life(dir_fd, buffered=buffered, flush_directory=flush_directory)
    if buffered:
        # Only now: one that was there is an earlier life's, and has another name by now.
        made.note(BUFFERED, dir_fd)
    cleared = settle_alone(dir_fd, "main", lambda: highest_logged(dir_fd, identity))
    # Only now: what a replacement held may be back at its path, with a line of its own.
    recovered = recover(dir_fd, identity, alone=True)
    marks.restate()
    # Only now: a file that is marked may have come back to its path.
    marks.clear()
    unflushed = marks.standing()
    return _Past(
        suspect=suspect,
        unflushed=unflushed,
        sequence=max(cleared.sequence, recovered.sequence),
        left=cleared.left,
        warnings=(*of_unflushed(unflushed), *cleared.told, *recovered.told),
    )


def _links(path: Path, dir_fd: int) -> tuple[str, ...]:
    found = links(dir_fd)
    if not found:
        return ()
    said = (
        f"{path} has symbolic links ({', '.join(map(printable, found))}): nothing is stored or "
        f"read through them, and an instance that belongs there is answered A700; put the folders "
        f"themselves in their place"
    )
    return (said,)

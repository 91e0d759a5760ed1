"""`fastscp verify`: the journal and the files held against each other, and put right if asked."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError, StoreBusyError
from fastscp.store.access import existing, held
from fastscp.store.adopt import ADOPTED, Adoption
from fastscp.store.compare import Comparison
from fastscp.store.findings import Finding, Kind, Mark, Report
from fastscp.store.marks import suspicion, trust
from fastscp.store.names import (
    FOLDER_MODE,
    IDENTITY,
    JOURNAL,
    SUSPECT,
    exists,
    flush_folder,
    home,
)
from fastscp.store.renew import renew
from fastscp.store.repair import repair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.findings import Watcher
    from fastscp.store.marks import Suspicion

__all__ = ["verify"]

# How long something that is younger than this may take to be named and journaled.
_PATIENCE_S: Final = 10.0
_NEW_LIFE: Final = "start the service once with --store-new-life"


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
        lost = [*_lost(dir_fd, adopt=adopt), *renew(path, dir_fd, alone=alone)]
        comparison = Comparison(dir_fd, watcher)
        findings = sorted(comparison.run(0.0 if alone else patience_s), key=_order)
        damaged = list(comparison.damaged())
        if repair_journal:
            damaged = list(repair(dir_fd, damaged))
        if adopt:
            adoption = Adoption(dir_fd, suspect=bool(mark))
            findings = sorted(adoption.adopt(findings), key=_order)
        everything = (*lost, *damaged, *findings)
        report = Report(
            lines=comparison.journal.lines,
            files=comparison.files,
            bytes=comparison.bytes,
            torn=len(comparison.journal.torn),
            suspect=comparison.journal.suspect
            + sum(one.settled == ADOPTED for one in findings if mark),
            findings=everything,
            mark=Mark.NONE,
        )
        return replace(report, mark=_judge_mark(path, dir_fd, mark, alone, report))


def _lost(dir_fd: int, *, adopt: bool) -> Iterator[Finding]:
    """What the store has lost of its own; adopt: a journal's folder is made anew for the lines."""
    if not exists(IDENTITY, dir_fd):
        yield Finding(Kind.MISSING, IDENTITY, f"not there: restore it, or {_NEW_LIFE}")
    if exists(JOURNAL, dir_fd):
        return
    why = "not there: restore it; or have it written anew from the files, with --adopt"
    if adopt:
        with home(dir_fd) as home_fd:
            os.mkdir(JOURNAL.rpartition("/")[2], FOLDER_MODE, dir_fd=home_fd)
            flush_folder(home_fd)
    yield Finding(Kind.MISSING, JOURNAL, why, settled="made anew" if adopt else "")


def _order(finding: Finding) -> tuple[str, str]:
    return finding.kind, finding.path


def _judge_mark(path: Path, dir_fd: int, mark: Suspicion, alone: bool, report: Report) -> Mark:
    """Lift the mark of an unclean end where nothing is wrong and nobody uses the store.

    An adopted file is what its line says, for the line was written from it; whether it is what was
    sent, only its resend can tell.

    mark: what it was before anything was read: one that came later says something new.
    """
    if not mark:
        return Mark.NONE
    try:
        with contextlib.nullcontext() if alone else held(path, dir_fd):
            if not report.clean or suspicion(dir_fd) != mark:
                return Mark.STAYS
            if report.suspect:
                return Mark.ADOPTED
            trust(dir_fd)
            return Mark.LIFTED
    except StoreBusyError:
        # Of a buffered life that goes on, the mark says nothing yet.
        return Mark.IN_USE if any(name == SUSPECT for name, *_ in mark) else Mark.NONE
    except StartError:
        return Mark.STAYS

"""What `verify` may find in a store, and what it says in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

__all__ = ["Finding", "Kind", "Mark", "Origin", "Report", "Tally", "Watcher"]


class Kind(StrEnum):
    """What may be found."""

    MISSING = "missing"  # journaled, and no file is there
    CHANGED = "changed"  # not what the latest line of the path says
    UNREADABLE = "unreadable"
    UNJOURNALED = "unjournaled"  # a file without a line
    DAMAGED = "damaged"  # a line of the journal, `path` being its file's
    UNFLUSHED = "unflushed"  # may not be on the disk: a flush of the file or folder failed
    TWICE = "twice"  # a line of the journal with the `seq` of another one, `path` as above
    LOGGED = "logged"  # in a redo log, and not everywhere else where it belongs
    REPLACED = "replaced"  # a replacement that was not through; or what lies where these are kept


class Mark(StrEnum):
    """What became of the mark that an unclean buffered life left on the store."""

    NONE = "none"  # there was none
    LIFTED = "lifted"
    STAYS = "stays"  # something is not as it should be
    ADOPTED = "adopted"  # it stays: of an adopted file nobody knows that it is what was sent
    UNPROVEN = "unproven"  # it stays: buffered files whose contents cannot be checked
    IN_USE = "in use"  # it stays, because a service is using the store
    PARTIAL = "partial"  # it stays, because only a part of the store was looked at


@dataclass(frozen=True)
class Origin:
    """Where an instance came from, as its line says; each "" where it does not."""

    calling_ae: str
    peer: str
    time: str
    study: str


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    path: below the store. why: for a reader. settled: how this run put it right, "" if it did not.
    origin: of what is journaled. inside: another store, inside this one, that the file is in.
    """

    kind: Kind
    path: str
    why: str
    settled: str = ""
    origin: Origin | None = None
    inside: str = ""


@dataclass
class Tally:
    """What was found, counted. left: by kind, what was not put right."""

    left: Counter[Kind] = field(default_factory=Counter)
    settled: int = 0

    def take(self, finding: Finding) -> None:
        if finding.settled:
            self.settled += 1
        else:
            self.left[finding.kind] += 1


@dataclass(frozen=True)
class Report:
    """What a run found.

    lines: whole lines in the journal. files: how many were looked at. bytes: of the data sets of
    those that have a line. torn: journal files, below the store, that end inside a line, as a crash
    leaves them; no finding.
    suspect: files whose line was written from the file itself, after an unclean buffered life.
    unchecked: files whose line has no digest that is known here, so that only the header and the
    length were compared. unproven: those of them that were not flushed before their line was
    written: after an unclean buffered life nobody knows what they hold. left: what was not put
    right, by kind. settled: how much was. findings: all of them; empty if somebody was told each
    one instead. searched: files without a line were looked for.
    """

    lines: int
    files: int
    bytes: int
    torn: tuple[str, ...]
    suspect: int
    unchecked: int
    left: Counter[Kind]
    settled: int
    findings: tuple[Finding, ...]
    mark: Mark
    searched: bool = True
    unproven: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be put right."""
        return not self.left.total()


class Watcher(Protocol):
    """Told how far it is: files, and bytes of their data sets, out of about `total`."""

    def __call__(self, *, files: int, size: int, total: int) -> None: ...

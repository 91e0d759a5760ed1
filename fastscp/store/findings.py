"""What `verify` may find in a store, and what it says in the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["Finding", "Kind", "Mark", "Report", "Watcher", "reason"]


class Kind(StrEnum):
    """What may be found."""

    MISSING = "missing"  # journaled, and no file is there
    CHANGED = "changed"  # not what the latest line of the path says
    UNREADABLE = "unreadable"
    UNJOURNALED = "unjournaled"  # a file without a line
    DAMAGED = "damaged"  # a line of the journal, `path` being its file's
    UNFLUSHED = "unflushed"  # may not be on the disk: a flush of the file or folder failed


class Mark(StrEnum):
    """What became of the mark that an unclean buffered life left on the store."""

    NONE = "none"  # there was none
    LIFTED = "lifted"
    STAYS = "stays"  # something is not as it should be
    ADOPTED = "adopted"  # it stays: of an adopted file nobody knows that it is what was sent
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
    suspect: files whose line was written from the file itself, after an unclean buffered life.
    """

    lines: int
    files: int
    bytes: int
    torn: int
    suspect: int
    findings: tuple[Finding, ...]
    mark: Mark

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be put right."""
        return all(finding.settled for finding in self.findings)


class Watcher(Protocol):
    """Told how far it is: files, and bytes of their data sets, out of about `total`."""

    def __call__(self, *, files: int, size: int, total: int) -> None: ...


def reason(error: OSError) -> str:
    """An OSError in a few words."""
    return error.strerror or str(error)

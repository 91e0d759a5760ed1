"""Stores without a service, for the tests of what they are made of."""

from __future__ import annotations

import contextlib
import itertools
import stat
from typing import TYPE_CHECKING, Any

from fastscp.store.compare import Comparison
from fastscp.store.compress import PartCompression
from fastscp.store.filing import Filing, Filings
from fastscp.store.lives import create_life
from fastscp.store.names import shut
from fastscp.store.reading import Pace
from fastscp.store.records import records
from fastscp.store.restore import Lines, Replaced, Settlement
from fastscp.store.selection import Selection
from fastscp.store.store import Store
from fastscp.store.studies import Studies
from tests.kit import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.duplicates import Outcome, Resolution
    from fastscp.store.findings import Finding
    from fastscp.store.waits import Batches
    from fastscp_ext import Replacement

LAYOUT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
FILED = Filings(Filing(LAYOUT))


def said_at_start(store: Store) -> tuple[str, ...]:
    """Its warnings but those of the file system, which is the one that the tests run on."""
    return tuple(one for one in store.warnings if one not in store.facts.warnings)


def filed(layout: str, suffix: str = ".dcm", **ae: Filing) -> Filings:
    """How a service with this at its top level files, and these called AE titles."""
    return Filings(Filing(layout, suffix), ae)


@contextlib.contextmanager
def opened(
    path: Path, filings: Filings = FILED, *, durability: str = "stable", **options: Any
) -> Iterator[Store]:
    store = Store.open(path, filings, durabilities={durability}, **options)
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def living(store_fd: int, life: str) -> Iterator[None]:
    """A worker life that goes on, as long as the block lasts."""
    with contextlib.ExitStack() as until:
        for fd in create_life(store_fd, life):
            until.callback(shut, fd)
        yield


def resolved(resolution: Resolution) -> Outcome:
    """The outcome, however often it has to be asked for."""
    return wait_for(resolution.attempt, "an outcome")


def replacing(store_fd: int, after: int = 0, batches: Batches | None = None) -> Replaced:
    """The replacements of a process whose journal numbers follow `after`."""
    numbers = itertools.count(after + 1)
    return Replaced(store_fd, Lines(store_fd, "t", "r", lambda: next(numbers), "t"), batches)


def end_replacement(of: Replaced, replacement: Replacement) -> None:
    """What a worker does with an instance that took the place of another one, here and now."""
    settlement = Settlement(of, replacement.path, refused=replacement.refused)
    wait_for(settlement.attempt, "the end of a replacement")
    replacement.settled()


def compressed(incoming_fd: int, part: str, level: int) -> tuple[str, int]:
    """The name of the part that a part is compressed into, and its descriptor, the caller's."""
    compression = PartCompression(incoming_fd, part, level)
    while (made := compression.take_slice()) is None:
        pass
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def amiss(store_fd: int) -> list[Finding]:
    """What a comparison of the files with the journal finds, where nobody else is at work."""
    pace, everything = Pace(0), Selection()
    with records(store_fd, everything, pace.took) as notes:
        comparison = Comparison(
            store_fd, notes, everything, Studies(()), alone=True, patience_s=0.0, pace=pace,
            watcher=None,
        )  # fmt: skip
        return list(comparison.run())

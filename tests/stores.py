"""Stores without a service, for the tests of what they are made of."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

from fastscp.store.compress import PartCompression
from fastscp.store.store import Store
from tests.kit import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.duplicates import Outcome, Resolution

LAYOUT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"


@contextlib.contextmanager
def opened(path: Path, layout: str = LAYOUT, **options: object) -> Iterator[Store]:
    store = Store.open(path, layout, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


def resolved(resolution: Resolution) -> Outcome:
    """The outcome, however often it has to be asked for."""
    return wait_for(resolution.attempt, "an outcome")


def compressed(incoming_fd: int, part: str, level: int) -> tuple[str, int]:
    """The name of the part that a part is compressed into, and its descriptor, the caller's."""
    compression = PartCompression(incoming_fd, part, level)
    while (made := compression.take_slice()) is None:
        pass
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)

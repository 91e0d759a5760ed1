"""Stores without a service, for the tests of what they are made of."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

from fastscp.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"


@contextlib.contextmanager
def opened(path: Path, layout: str = LAYOUT, **options: object) -> Iterator[Store]:
    store = Store.open(path, layout, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)

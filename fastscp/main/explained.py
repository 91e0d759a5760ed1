"""What the system refuses a start, as the reason why the service cannot start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fastscp.errors import StartError, reason_for
from fastscp.store.access import denied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["explained", "start_explained"]


@contextlib.contextmanager
def start_explained() -> Iterator[None]:
    """An OSError that nothing else explains, as the reason why the service cannot start."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        raise StartError(
            f"cannot start ({where}{reason_for(error)}): see the limits of this process "
            f"(ulimit -a), free memory and the store's disk"
        ) from error


@contextlib.contextmanager
def explained(store: Path, folder: str) -> Iterator[None]:
    """An OSError about a folder of a store, as the reason why the service cannot start."""
    path = store / folder
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else "something in it"
        if isinstance(error, PermissionError):
            # Of acknowledged instances, for all anybody knows.
            raise StartError(
                f"cannot use {path} ({name}: {reason_for(error)}); {denied(store, name)}"
            ) from error
        raise StartError(
            f"cannot use {path} ({name}: {reason_for(error)}); whatever is there and is not the "
            f"service's own: put it elsewhere, and start again"
        ) from error

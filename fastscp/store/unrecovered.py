"""Whether a store has a redo log that nobody has brought to its files yet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fastscp.errors import StartError, StoreBusyError
from fastscp.store.access import held
from fastscp.store.names import REDO
from fastscp.store.redo.logs import is_anything_logged

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["refuse_unrecovered"]


def refuse_unrecovered(path: Path, dir_fd: int, *, use: str) -> None:
    """Raise StartError where instances may not be under their names yet, and no service is there.

    A service recovers what its dead workers left. dir_fd: of the store at `path`. use: what there
    is no use in, for the words. Blocks on the disk. Raises OSError.
    """
    if not is_anything_logged(dir_fd):
        return
    with contextlib.suppress(StoreBusyError), held(path, dir_fd):
        raise StartError(
            f"{path} has a redo log in {REDO} that was not recovered: instances that were "
            f"acknowledged may not be under their names yet, so there is no use in {use}; run "
            f"`fastscp recover`, or start the service, and try again then"
        )

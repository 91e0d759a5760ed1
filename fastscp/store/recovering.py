"""`fastscp recover`: the redo log of a store that no service uses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastscp.errors import StartError
from fastscp.store.access import existing, explained, held
from fastscp.store.identity import FORMAT, read_identity, write_format
from fastscp.store.leftovers import settle_alone
from fastscp.store.names import IDENTITY, flush_folder
from fastscp.store.redo.logs import is_anything_logged
from fastscp.store.redo.recovery import highest_logged, recover, refuse_damaged
from fastscp.store.renew import finish, is_anything_unflushed, renew

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.redo.recovery import Recovered

__all__ = ["is_recovered", "recover_store"]


def is_recovered(path: Path) -> bool:
    """Whether a store has no log of a life that is over, whoever has it. Raises StartError."""
    with existing(path) as dir_fd, explained(path):
        return not is_anything_logged(dir_fd)


def recover_store(path: Path, *, accept_damage: bool = False) -> Recovered:
    """Do with a store what a start does before anybody may read it, and tell what that was.

    A start leaves folders as they are whose flush failed; here they are made anew where there is a
    log, which may not go before they are on the disk. accept_damage: as in `recover`. Raises
    StoreBusyError where a service uses it, StartError where there is none, or what is there cannot
    be recovered.
    """
    with existing(path) as dir_fd, held(path, dir_fd), explained(path):
        identity = read_identity(path, dir_fd)
        if identity is None:
            raise StartError(
                f"{path} has lost its {IDENTITY}: restore it, and recover it then; or start the "
                f"service once with --store-new-life, which takes the id from the redo log and "
                f"recovers that"
            )
        # Paths have to be where they belong, with what they held before a replacement that was not
        # through.
        finish(dir_fd)
        settle_alone(dir_fd, "recover", lambda: highest_logged(dir_fd, identity))
        found = []
        if is_anything_logged(dir_fd) and is_anything_unflushed(dir_fd):
            if not accept_damage:
                # What is refused changes no folder: nobody would be told of it.
                refuse_damaged(dir_fd, identity)
            found = renew(path, dir_fd, alone=True)
        recovered = recover(dir_fd, identity, alone=True, accept_damage=accept_damage)
        renewed = tuple(one.path for one in found if one.settled)
        write_format(path, dir_fd, FORMAT, flush_directory=flush_folder(dir_fd))
    return dataclasses.replace(recovered, renewed=renewed)

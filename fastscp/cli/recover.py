"""`fastscp recover`: what the redo log holds, brought to its files before anybody reads them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.options import JSON, Store, StoreConfigFile, Umask, store_directory, take_umask
from fastscp.cli.output import os_errors, print_json
from fastscp.errors import StartError, StoreBusyError
from fastscp.log import escape

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.redo.recovery import Recovered

__all__ = ["recover"]

# How long whoever has the store may take to recover it; a unit of systemd has 90 s for its start.
_WAIT_S: Final = 60.0
_LOOK_S: Final = 0.1


def recover(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    accept_damage: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Where the redo log is damaged, bring back what can be read of it, and name the "
            "rest.",
        ),
    ] = False,
    umask: Umask | None = None,
    json: JSON = False,
) -> int:
    """Bring the instances that are in the redo log to their files, as a start of the service does.

    After a power cut the newest files of a store may be empty until that is done. Run it before
    whatever reads the store and may start before the service does.

    Where a service has the store, or another such command, this waits until that has recovered it,
    at most 60 s.

    Exit code: 0 done, or nothing was to be done, 1 an instance is known to be lost to damage that
    was accepted, 3 a service that has the store does not recover it, the disk refuses, no store is
    there, or its redo log is damaged or is not its own.
    """
    path = store_directory(store, config)
    take_umask(umask, config)
    with os_errors():
        recovered, holder = _recovered(path, accept_damage=accept_damage)
    if json:
        print_json(recovered)
    elif not recovered.logs:
        by = f": {holder} has the store, and no log is left" if holder else ""
        print(f"nothing to recover{by}")
    for one in () if json else recovered.told:
        print(escape(one))
    return 1 if recovered.lost else 0


def _recovered(path: Path, *, accept_damage: bool) -> tuple[Recovered, str]:
    """What was done, and who has the store, if this need not do anything; empty: nobody.

    Raises StartError.
    """
    from fastscp.store.recovering import is_recovered, recover_store
    from fastscp.store.redo.recovery import Recovered

    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return recover_store(path, accept_damage=accept_damage), ""
        except StoreBusyError as error:
            holder = f"process {error.pid}" if error.pid is not None else "another process"
            # The workers of a main that is gone recover nothing.
            if not error.is_gone and is_recovered(path):
                return Recovered(), holder
            if time.monotonic() > deadline:
                raise StartError(
                    f"the store {path} is in use by {holder}, which has not recovered it for "
                    f"{_WAIT_S:g} s: see what its log says (`fastscp status`), or stop it and run "
                    f"this then"
                ) from error
        time.sleep(_LOOK_S)

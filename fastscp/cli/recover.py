"""`fastscp recover`: what the redo log holds, brought to its files before anybody reads them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastscp.cli.options import JSON, Store, StoreConfigFile, Umask, store_directory, take_umask
from fastscp.cli.output import os_errors, print_json
from fastscp.errors import StartError, StoreBusyError
from fastscp.log import escape

__all__ = ["recover"]


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

    Exit code: 0 done, or nothing was to be done, 1 the disk refuses, or an instance is known to be
    lost to damage that was accepted, 3 a service uses the store, no
    store is there, or its redo log is damaged or is not its own.
    """
    from fastscp.store.recovering import recover_store

    path = store_directory(store, config)
    take_umask(umask, config)
    with os_errors():
        try:
            recovered = recover_store(path, accept_damage=accept_damage)
        except StoreBusyError as error:
            holder = f"process {error.pid}" if error.pid is not None else "another process"
            raise StartError(
                f"the store {path} is in use by {holder}, which recovers what its workers leave: "
                f"nothing is to be done; to run this, stop that service first"
            ) from error
    if json:
        print_json(recovered)
    elif not recovered.logs:
        print("nothing to recover")
    for one in () if json else recovered.told:
        print(escape(one))
    return 1 if recovered.lost else 0

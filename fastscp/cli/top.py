"""`fastscp top`: a running service, live."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastscp.cli.options import (
    TIMEOUT,
    Store,
    StoreConfigFile,
    store_directory,
)
from fastscp.config.settings import read_value

__all__ = ["top"]


def top(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    interval: Annotated[
        str, Parameter(metavar="TIME", help="From one look to the next. (0.1s to 1h)")
    ] = "2s",
    once: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Show one screen, after two looks, and end; so it is where stdout is no terminal.",
        ),
    ] = False,
) -> int:
    """Show associations, rates, refusals and free space of a running service, live.

    The connections that send the most come first, as many as fit; in ID stands the number at the
    end of what `fastscp associations` and the log name it. Rates are those between two looks: of
    instances stored, with the bytes of their data sets, and of all bytes read from connections. A
    narrow terminal has fewer columns. q ends it. Where the service ends or does not answer, the
    screen says so, and the service, or the one after it, is asked again.

    Exit code: 0 ended by q or shown once, 130 interrupted; where no screen can be shown, 1 the
    service is silent, 2 it cannot be asked (by another user, without a control socket, ...), 3 no
    service runs on the store.
    """
    every_s: float = read_value("--interval", interval, TIMEOUT)
    # Once: a file with settings that changes meanwhile does not lead to another service.
    path = store_directory(store, config)
    from fastscp.cli import top_run

    return top_run.run(path, every_s, once=once)

"""`fastscp pause` and `fastscp resume`: whether a running service admits associations."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from fastscp.cli.operate import moment, running_service
from fastscp.cli.options import JSON, Store, StoreConfigFile  # noqa: TC001 - cyclopts reads them
from fastscp.cli.output import print_json
from fastscp.log import escape

__all__ = ["pause", "resume"]


def pause(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    reason: Annotated[
        str,
        Parameter(
            metavar="TEXT", show_default=False, help="Why, for the log and for `fastscp status`."
        ),
    ] = "",
    json: JSON = False,
) -> int:
    """Have a running service reject new associations (transient, 2,3,1) until `fastscp resume`.

    It still listens, and the associations that exist go on. A reload changes nothing of that; a
    restart ends it.

    Exit code: 0 it is paused now, 1 the service does not answer within 10 s, 3 no service runs on
    the store.
    """
    from fastscp.messages.control import Pause, Paused

    with running_service(store, config) as service:
        # Bytes that are no text came as something that cannot be sent.
        done = service.ask(Pause(why=os.fsencode(reason).decode(errors="replace")), Paused)
    if json:
        print_json(done)
    else:
        said = "paused" if done.changed else "paused already, and nothing changed; it is so"
        print(f"{said} since {moment(done.since)}{escape(done.why and f': {done.why}')}")
    return 0


def resume(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
) -> int:
    """Have a running service admit associations again, after `fastscp pause`.

    Exit code: 0 it is not paused now, 1 the service does not answer within 10 s, 3 no service runs
    on the store.
    """
    from fastscp.messages.control import Paused, Resume

    with running_service(store, config) as service:
        done = service.ask(Resume(), Paused)
    if json:
        print_json(done)
    elif done.changed:
        print(f"resumed; it was paused since {moment(done.since)}")
    else:
        print("it was not paused, and nothing changed")
    return 0

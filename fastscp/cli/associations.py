"""`fastscp associations` and `fastscp abort`: who is connected to a running service."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.operate import duration, running_service
from fastscp.cli.options import JSON, Store, StoreConfigFile  # noqa: TC001 - cyclopts reads them
from fastscp.cli.output import print_columns, print_json
from fastscp.errors import ConfigError
from fastscp.log import address, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastscp.messages.control import AssociationStatus

__all__ = ["HEAD", "NUMBERS", "abort", "associations", "row"]

# Between the two looks that a rate takes.
_BETWEEN_S: Final = 0.5
_NOT_DONE: Final = 1
HEAD: Final = (
    "ID", "CALLING > CALLED", "ADDRESS", "RULES", "PHASE", "STORED", "REFUSED", "BYTES", "RATE",
    "AGE",
)  # fmt: skip
# Columns that are aligned on the right.
NUMBERS: Final = range(5, 10)
_SAID: Final[Mapping[str, str]] = {
    "over": "over",
    "unknown": "there is no such association or connection; see `fastscp associations`",
    "going on": "told to end, and not over yet: its worker may be stopped or hang; see the log",
}


def associations(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
    once: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Look once, and tell no rates: that is quicker."
        ),
    ] = False,
) -> int:
    """Show the connections of a running service, the oldest first.

    Phases: connected (no request yet, or one that the rules refused, or whose user is checked),
    requesting (waits for a place), idle, storing (an instance is on its way, or has no answer yet),
    associated (one of these two), ending (released, aborted, or rejected for want of a place, and
    the peer has not hung up). In parentheses stands the user, where one was checked
    (--user-identity). BYTES are of the data sets stored; RATE is of all that was read from the
    connection, over half a second.
    """
    import msgspec

    from fastscp.messages.control import Associations, AssociationStatus
    from fastscp.messages.rates import each_a_second

    before: dict[str, int] = {}
    seconds = 0.0
    with running_service(store, config) as service:
        found = service.ask(Associations(), list[AssociationStatus])
        if not once:
            before = {one.id: one.received_bytes for one in found}
            began = time.monotonic()
            time.sleep(_BETWEEN_S)
            found = service.ask(Associations(), list[AssociationStatus])
            seconds = time.monotonic() - began
    each = each_a_second(found, before, seconds)
    if json:
        print_json([msgspec.to_builtins(one) | {"rate": each.get(one.id)} for one in found])
    elif found:
        print_columns([HEAD, *(row(one, each.get(one.id)) for one in found)], NUMBERS)
    else:
        print("no connections")
    return 0


def row(one: AssociationStatus, rate: int | None) -> tuple[str, ...]:
    """What stands below `HEAD`, fit to be shown. rate: bytes a second; None: not known."""
    from fastscp.association.account import in_bytes

    titles = f"{printable(one.calling_ae)} > {printable(one.called_ae)}"
    titles += f" ({printable(one.user)})" if one.user else ""
    return (
        one.id,
        titles if one.calling_ae or one.called_ae else "-",
        address(one.host, one.port),
        one.rules or "-",
        printable(one.phase),
        f"{one.stored:,}",
        f"{one.refused:,}",
        in_bytes(one.bytes),
        "-" if rate is None else f"{in_bytes(rate)}/s",
        duration(one.age_s),
    )


def abort(
    ids: Annotated[
        list[str],
        Parameter(
            name="ID",
            help="As `fastscp associations` and the log name it, or the number at its end.",
        ),
    ],
    /,
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
) -> int:
    """End associations of a running service with an A-ABORT, and other connections by closing them.

    A message that is complete is still stored; one that is not goes. Says it when each is over.

    Exit code: 0 all are over, 1 one is not, or there is none of that ID, or the service does not
    answer within 10 s, 3 no service runs on the store.
    """
    from fastscp.messages.control import Abort, Aborted

    if not all(ids):
        raise ConfigError("ID", "is empty; take one from `fastscp associations`")
    with running_service(store, config) as service:
        done = [service.ask(Abort(id=one), Aborted) for one in ids]
    if json:
        print_json(done)
    else:
        for one in done:
            # What did not work is no result.
            file = sys.stdout if one.outcome == "over" else sys.stderr
            became = _SAID.get(one.outcome) or printable(one.outcome)
            print(f"{printable(one.id)}: {became}", file=file)
    return 0 if all(one.outcome == "over" for one in done) else _NOT_DONE

"""`fastscp status`: what a running service is doing, for people and for scripts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp.cli.operate import duration, moment, running_service
from fastscp.cli.options import JSON, Store, StoreConfigFile  # noqa: TC001 - cyclopts reads them
from fastscp.cli.output import print_columns, print_json
from fastscp.errors import FastscpError
from fastscp.log import counted, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.messages.control import RulesStatus, Status

__all__ = ["cannot_ask", "rows", "status"]

_NOT_ACCEPTING: Final = 1
_CANNOT_ASK: Final = 2


def status(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
    quiet: Annotated[
        bool,
        Parameter(
            name="-q", negative="", show_default=False, help="Print nothing; see the exit code."
        ),
    ] = False,
) -> int:
    """Show what a running service is doing, and whether it accepts associations.

    It is asked by its control socket in the store, so by its own user or root, on the same machine.

    Exit code: 0 it accepts associations, 1 it runs and does not (paused, draining, disk full,
    ...) or is silent, 2 it cannot be asked (by another user, without a control socket, ...), 3 no
    service runs on the store.
    """
    from fastscp.messages.control import GetStatus, Status

    try:
        with running_service(store, config) as service:
            answer = service.ask(GetStatus(), Status)
    except FastscpError as error:
        said = cannot_ask(error)
        if quiet:
            return said.exit_code
        raise said from error
    if quiet:
        pass
    elif json:
        print_json(answer)
    else:
        print_columns([(name, escape(value)) for name, value in rows(answer)])
    return 0 if answer.is_ready else _NOT_ACCEPTING


def cannot_ask(error: FastscpError) -> FastscpError:
    """The same error with the exit code that tells why the service cannot be asked."""
    from fastscp.admin.client import NotRunningError, SilentError
    from fastscp.admin.place import ControlSocketError

    if isinstance(error, (NotRunningError, SilentError)):
        return error
    return ControlSocketError(str(error), _CANNOT_ASK)


def rows(now: Status) -> Iterator[tuple[str, str]]:
    """Names, and what is said of each. What came from outside may not print: `escape` it."""
    from fastscp.association.account import in_bytes

    since = f" since {moment(now.since)}, {duration(time.time() - now.since)} ago"
    yield "state", f"{now.state}{since if now.since else ''}{now.why and f': {now.why}'}"
    if now.aids:
        yield "test aids", "; ".join(now.aids)
    yield "version", f"{now.version}, process {now.pid}, up {duration(now.uptime_s)}"
    if now.predecessor:
        yield "predecessor", f"process {now.predecessor} still has associations (TERM drains them)"
    addresses = [*now.addresses, *(f"{one} with TLS" for one in now.tls_addresses)]
    yield "listens on", ", ".join(addresses) or "nothing yet"
    if now.certificate_expires:
        yield "certificate", f"{now.certificate}, {_runs_out('expires', now.certificate_expires)}"
    if now.crl_expires:
        yield "revocations", f"the lists are good {_runs_out('until', now.crl_expires)}"
    for warning in now.warnings:
        yield "warning", warning
    yield "metrics", f"http://{now.admin}/metrics" if now.admin else "off"
    if now.admin:
        yield "page", f"http://{now.admin}/"
    yield "store", f"{now.store.path}, id {now.store.id}"
    free, least = now.store.free_bytes, now.store.min_free_bytes
    known = "not known" if free is None else in_bytes(free)
    mark = f"; nothing is stored below {in_bytes(least)}" if least else ""
    yield "free space", f"{known}{mark}"
    if now.redo:
        yield "redo log", now.redo
    yield "workers", f"{now.workers_up} of {now.workers} up"
    most = f" of at most {now.limit:,}" if now.limit else ""
    in_all = counted(now.connections, "connection")
    yield "associations", f"{now.associations:,}{most}; {in_all} in all"
    kept = f"; not stored (keep) {now.kept:,}" if now.kept else ""
    yield "stored", f"{counted(now.stored, 'instance')}, {in_bytes(now.bytes)}{kept}"
    yield "in flight", f"{in_bytes(now.in_flight_bytes)} of complete instances, not committed yet"
    yield "refused", f"{counted(now.refused, 'instance')}; unfinished {now.unfinished:,}"
    handshakes = counted(now.handshakes_failed, "TLS handshake")
    more = f"; {handshakes} failed" if now.tls_addresses else ""
    yield "rejected", f"{counted(now.rejected, 'association')}{more}"
    yield from _of_rules(now.rules)


def _runs_out(word: str, at: float) -> str:
    left = at - time.time()
    if left <= 0:
        return f"{word} {moment(at)}: out of date, {duration(-left)} ago"
    return f"{word} {moment(at)}, in {duration(left)}"


def _of_rules(rules: RulesStatus) -> Iterator[tuple[str, str]]:
    loaded = moment(rules.loaded_at)
    tables = counted(rules.tables, "table")
    source = f", from {rules.file}" if rules.file else ""
    yield "rules", f"generation {rules.generation}, {tables}, taken {loaded}{source}"
    if rules.waits:
        yield "waits", f"for a restart: {'; '.join(rules.waits)}"
    if rules.refused:
        others = len(rules.refused) - 1 + rules.refused_more
        more = f" (and {others} more)" if others else ""
        why = f"{rules.refused[0]}{more}"
        yield "last reload", f"refused {moment(rules.refused_at)}, nothing was changed: {why}"

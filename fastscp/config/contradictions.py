"""What cannot be meant together, though each value by itself is sound."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.file_tables import TABLE
from fastscp.config.names import close_to
from fastscp.config.settings import TLS_FIELDS, suffix_of
from fastscp.tls.names import is_common_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastscp.config.file_tables import FileTables
    from fastscp.config.settings import ServeConfig
    from fastscp.config.tables import FromTable, Tables
    from fastscp.config.values import AllowRule

__all__ = [
    "COMBINATIONS_MOST",
    "between_settings",
    "between_settings_of_tls",
    "between_tables",
    "log_in_store",
    "uncalled",
]

# Of who, called and certificate, over all [from] tables: each worker keeps an index of them.
COMBINATIONS_MOST: Final = 65_536


# The address that stands for all of its kind, and which are of that kind; names are not known.
_FAMILIES: Final[dict[str, Callable[[str], bool]]] = {
    "0.0.0.0": lambda host: re.fullmatch("[0-9.]+", host) is not None,  # noqa: S104
    "::": lambda host: ":" in host,
}


def between_settings(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of the values that were given, those that cannot be meant together: field, and why."""
    if values.get("port") == 0:
        # The system picks another port for each address.
        return
    hosts: tuple[str, ...] = values.get("host", ())
    for every, is_of in _FAMILIES.items():
        beside = next((host for host in hosts if host != every and is_of(host)), None)
        if every in hosts and beside is not None:
            why = f"{every} listens on {beside}, too; leave one of the two out"
            yield "host", why


def between_settings_of_tls(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """As `between_settings`, of what is about TLS; a file by itself may lack what others give."""
    if not values.get("tls_cert"):
        if values.get("no_plain"):
            yield "no_plain", "leaves nothing to listen on: there is no TLS without a tls-cert"
        for name in ("tls_port", *TLS_FIELDS):
            if values.get(name) is not None:
                yield name, "is of no use without a certificate: add tls-cert, or take it out"
        return
    port, tls_port = values.get("port", 11112), values.get("tls_port", 2762)
    if port == tls_port != 0 and not values.get("no_plain"):
        yield "tls_port", f"{tls_port} is the port without TLS, too; choose another, or no-plain"
    if not values.get("tls_ca"):
        if values.get("tls_crl"):
            yield "tls_crl", "is of no use without the CAs that revoked: add tls-ca"
        if (asked := values.get("tls_client_auth", "none")) != "none":
            why = f"{asked} needs to know who signs the certificates of senders: add tls-ca"
            yield "tls_client_auth", why


def log_in_store(config: ServeConfig) -> str:
    """Why the log cannot go to its file, which is in the store, wherever links lead; "": it can.

    Blocks on the disk.
    """
    if not config.log_file:
        return ""
    # Its own name may be no link, see `fastscp.log.open_log_file`.
    folder = Path(os.path.realpath(Path(config.log_file).parent))
    if not folder.is_relative_to(os.path.realpath(config.store)):
        return ""
    return (
        f"{config.log_file} is in the store {config.store.absolute()}, where only instances and "
        f"what fastscp keeps about them belong; name a file outside"
    )


def between_tables(found: FileTables, config: ServeConfig) -> Iterator[tuple[tuple[str, str], str]]:
    """Tables that cannot be meant: where, as in `FileTables.places`, and why.

    config: what holds in the end, wherever it was given.
    """
    # What the tables that could be read give away, whatever the others are about.
    yield from _shown_by_nobody(found.tables, config)
    yield from _one_path_for_two(found, config)
    if not found.is_whole:
        yield from _never_reached(found)
        return
    if config.check_called_ae:
        yield from _called_by_nobody(found.tables, config.ae_title)
    number = 0
    for table in found.tables.senders:
        number += _combinations(table)
        if number > COMBINATIONS_MOST:
            why = (
                f"with this table the [from] tables have {number} combinations of who, called and "
                f"certificate, and at most {COMBINATIONS_MOST} are taken; name networks, or * "
                f"for any title, instead of single senders"
            )
            yield (table.key, TABLE), why
            return
    yield from _never_reached(found)


def _shown_by_nobody(tables: Tables, config: ServeConfig) -> Iterator[tuple[tuple[str, str], str]]:
    """What has to be seen of a certificate, and never is."""
    if config.tls_cert and config.client_auth != "none":
        return
    for table in tables.senders:
        other = next((one for one in table.certificate if not is_common_name(one)), None)
        if table.certificate and not config.proxy_protocol_from:
            why = (
                "asks for a certificate, and nobody is asked to show one; give tls-ca (and "
                "tls-client-auth), or proxy-protocol-from where a proxy asks, or take it out"
                if config.tls_cert
                else "asks for a certificate, and there is no TLS to show one; give tls-cert and "
                "tls-ca, or proxy-protocol-from where a proxy has TLS, or take it out"
            )
            yield (table.key, "certificate"), why
        elif other is not None:
            why = (
                f"has {other!r} in it, and a proxy tells nothing of a certificate but its common "
                f"name; write subject=NAME"
            )
            yield (table.key, "certificate"), why


def _called_by_nobody(tables: Tables, ae_title: str) -> Iterator[tuple[tuple[str, str], str]]:
    known = {ae_title} | {table.title for table in tables.ae}
    for table in tables.senders:
        for title in table.called:
            if title not in known:
                close = close_to(title, known, 0.6)
                hint = f"did you mean {close}? Else " if close else ""
                why = (
                    f"names {title!r}, which check-called-ae rejects; {hint}give it a table "
                    f'[ae."{title}"], or take it out'
                )
                yield (table.key, "called"), why


def uncalled(found: FileTables, config: ServeConfig) -> Iterator[tuple[tuple[str, str], str]]:
    """The [ae] tables that no sender gets at: where, as in `FileTables.places`, and why.

    That is no mistake: who may call is taken away before what is stored.
    """
    senders = found.tables.senders
    if not found.is_whole or config.allow or not senders:
        return
    if not all(table.called for table in senders):
        return
    called = {title for table in senders for title in table.called}
    for one in found.tables.ae:
        if one.title not in called:
            close = close_to(one.title, called, 0.6)
            hint = f" (one has {close}, which is like it)" if close else ""
            why = (
                f"nobody can call it: there is no allow, and every [from] table has called, "
                f"without {one.title}{hint}; if somebody is to call it, add it to called of one"
            )
            yield (one.key, TABLE), why


def _one_path_for_two(
    found: FileTables, config: ServeConfig
) -> Iterator[tuple[tuple[str, str], str]]:
    """Tables that could give an instance the path that another one gives another.

    Or the same one, compressed by one and not by the other.
    """
    ae = {
        table.title: (
            table.values.get("layout", config.layout),
            suffix_of(table.values.get("compress", config.compress)),
        )
        for table in found.tables.ae
    }
    if set(ae.values()) <= {(config.layout, config.suffix)}:
        return
    # Where it is needed only: a start without such tables need not wait for it.
    from fastscp.store.collisions import collisions
    from fastscp.store.filing import Filing, Filings

    filings = Filings(
        Filing(config.layout, config.suffix), {title: Filing(*of) for title, of in ae.items()}
    )
    for key, name, why in collisions(filings):
        # Of the two it names the table that stands later; the other one may be what sets it.
        yield (key, name if (key, name) in found.places else TABLE), why


def _combinations(table: FromTable) -> int:
    return max(len(table.who), 1) * max(len(table.called), 1) * max(len(table.certificate), 1)


# A table that an earlier one leaves nothing to ----------------------------------------------------

# Of a network: its IP version, the length of its prefix, and its bits.
_Network = tuple[int, int, int]
_EVERYWHERE: Final[_Network] = (0, 0, 0)
_ANY: Final = "*"


def _never_reached(found: FileTables) -> Iterator[tuple[tuple[str, str], str]]:
    """Of the [from] tables those of which an earlier one takes every sender.

    Only what is certain: several networks that make up one are not put together.
    """
    earlier = _Taken()
    for table in found.tables.senders:
        if table.key in found.unread:
            continue
        takers = {earlier.by(*one) for one in _parties(table)}
        if None not in takers:
            places = [found.places[taker, TABLE] for taker in takers if taker is not None]
            first = min(places, key=lambda key: key.line)
            others = " and others" if len(places) > 1 else ""
            why = (
                f"can never match: [{first.written}] in line {first.line}{others} takes all of its "
                f"senders before; put this table first, or take it out"
            )
            yield (table.key, TABLE), why
        if not table.certificate:
            for one in _parties(table):
                earlier.add(*one, table.key)


def _parties(table: FromTable) -> Iterator[tuple[str, str, _Network]]:
    """The combinations of a table: calling title, called title, network."""
    who = [(rule.ae, _network(rule)) for rule in table.who] or [(_ANY, _EVERYWHERE)]
    for called in table.called or (_ANY,):
        for calling, network in who:
            yield calling, called, network


def _network(rule: AllowRule) -> _Network:
    if rule.network is None:
        return _EVERYWHERE
    network = rule.network
    return (network.version, network.prefixlen, int(network.network_address))


class _Taken:
    """Which table takes whom: by titles, then by the length of a prefix, then by network."""

    def __init__(self) -> None:
        self._tables: defaultdict[tuple[str, str], dict[tuple[int, int], dict[int, str]]]
        self._tables = defaultdict(dict)

    def add(self, calling: str, called: str, network: _Network, table: str) -> None:
        version, length, bits = network
        lengths = self._tables[calling, called]
        lengths.setdefault((version, length), {}).setdefault(bits, table)

    def by(self, calling: str, called: str, network: _Network) -> str | None:
        """The key of a table that takes all of these senders, if one does."""
        version, length, bits = network
        for titles in {(a, b) for a in (calling, _ANY) for b in (called, _ANY)}:
            for (its_version, its_length), networks in self._tables.get(titles, {}).items():
                if its_version == 0:
                    return networks[0]
                if its_version == version and its_length <= length:
                    unused = (32 if version == 4 else 128) - its_length
                    table = networks.get(bits >> unused << unused)
                    if table is not None:
                        return table
        return None

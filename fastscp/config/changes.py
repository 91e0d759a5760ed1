"""What is different between two configurations, in words, for the log and whoever reloads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastscp.config.settings import ServeConfig
    from fastscp.config.tables import AeTable, FromTable
    from fastscp.tls.material import Material

__all__ = ["changes"]

_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}
_NOT_SET: Final = "not set"


def changes(old: ServeConfig, new: ServeConfig) -> Iterator[tuple[str, str]]:
    """Each setting and table that differs: its name, and the difference with the name before it.

    A setting's name is its field; a table's its key; that of what is in the files of TLS `tls`.
    """
    for setting in SETTINGS:
        before, after = getattr(old, setting.field), getattr(new, setting.field)
        if before != after:
            show = setting.kind.show if not isinstance(after, Path) else _absolute
            # An empty list says nothing by itself.
            was, now = show(before) or setting.default_text, show(after) or setting.default_text
            # The same words for another thing: it is a file that is different.
            text = f"{was} -> {now}" if was != now else f"{now}: its file has other contents"
            yield setting.field, f"{setting.name}: {text}"
    if old.tls is not None and new.tls is not None:
        for text in _of_tls(old.tls, new.tls):
            yield "tls", text
    yield from _of_tables(old.tables.ae, new.tables.ae, _of_ae)
    yield from _of_tables(old.tables.senders, new.tables.senders, _of_sender)
    yield from _of_order(old.tables.senders, new.tables.senders)


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _of_tls(old: Material, new: Material) -> Iterator[str]:
    """What is different in the files of TLS, wherever they are."""
    if old.chain != new.chain:
        was, now = (
            f"that of {one.subject}, which expires {_date(one.expires)}" for one in (old, new)
        )
        changed = f"{was} -> {now}" if was != now else f"{now}: another one"
        yield f"certificate: {changed}"
    if old.key != new.key:
        yield "key of the certificate: another one"
    if old.ca != new.ca:
        yield f"CAs of tls-ca: {_number(old.ca, _CERTIFICATE)} -> {_number(new.ca, _CERTIFICATE)}"
    if old.crl != new.crl:
        until = f", good until {_date(new.crl_expires)}" if new.crl_expires else ""
        yield f"lists of tls-crl: {_number(old.crl, _LIST)} -> {_number(new.crl, _LIST)}{until}"


def _number(pem: bytes, begin: bytes) -> int:
    return pem.count(begin)


_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_LIST: Final = b"-----BEGIN X509 CRL-----"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _of_tables(
    old: Sequence[Any], new: Sequence[Any], entries: Callable[[Any], dict[str, str]]
) -> Iterator[tuple[str, str]]:
    """The tables of one kind that differ. entries: what a table holds, as text."""
    before = {table.key: table for table in old}
    after = {table.key: table for table in new}
    for key in before:
        if key not in after:
            yield key, f"[{key}]: removed"
    for key, table in after.items():
        if key not in before:
            held = ", ".join(f"{name} = {text}" for name, text in entries(table).items())
            yield key, f"[{key}]: added{f' ({held})' if held else ''}"
        elif before[key] != table:
            yield key, f"[{key}]: {', '.join(_of_entries(entries(before[key]), entries(table)))}"


def _of_entries(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in {**old, **new}:
        was, now = old.get(name, _NOT_SET), new.get(name, _NOT_SET)
        if was != now:
            yield f"{name}: {was} -> {now}"


def _of_ae(table: AeTable) -> dict[str, str]:
    return _shown(table.values)


def _of_sender(table: FromTable) -> dict[str, str]:
    return {
        **({"who": ", ".join(map(str, table.who))} if table.who else {}),
        **({"called": ", ".join(table.called)} if table.called else {}),
        **({"certificate": ", ".join(table.certificate)} if table.certificate else {}),
        **_shown(table.values),
    }


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """What a table sets, in the order of the help, so that its order in a file is no difference."""
    return {
        setting.name: setting.kind.show(values[setting.field])
        for setting in _BY_FIELD.values()
        if setting.field in values
    }


def _of_order(old: Sequence[FromTable], new: Sequence[FromTable]) -> Iterator[tuple[str, str]]:
    """The first table of senders that matches wins, so their order says something."""
    there, now = {one.key for one in old}, {one.key for one in new}
    kept = [table.key for table in new if table.key in there]
    if kept != [table.key for table in old if table.key in now]:
        yield "from", f"[from] tables: now in the order {', '.join(table.name for table in new)}"

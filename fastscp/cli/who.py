"""`fastscp config --who`: what becomes of a sender, and which tables and settings decide that."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from fastscp.cli.output import plain, print_columns, print_json
from fastscp.config.file_tables import MATCHERS
from fastscp.config.settings import read_value
from fastscp.config.tomlfile import written_path
from fastscp.config.values import ExplainedError, Parsed, read_text, read_written_title
from fastscp.errors import ConfigError
from fastscp.log import counted, escape, in_json
from fastscp.rules.rule import TOP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastscp.config.layers import Loaded
    from fastscp.rules.book import Peer
    from fastscp.rules.explain import Decided, Explanation, Judged

__all__ = ["show_who"]

# Tables that do not apply are told of up to here; a file may have thousands.
_MISSES_MOST: Final = 10
# As of any question that is answered with no.
_REJECTED_CODE: Final = 1


def show_who(loaded: Loaded, who: str, certificate: Sequence[str], json: bool) -> int:
    """Tell what becomes of a sender: 0 admitted, 1 rejected.

    certificate: what its own shows. Raises ConfigError for a wrong WHO, or for no such rule.
    """
    # It looks up the names of UIDs, which takes a moment.
    from fastscp.rules.explain import explain

    peer = _peer(loaded, who, certificate)
    found = explain(loaded.config, peer)
    if json:
        print_json(_in_json(loaded, peer, found))
    else:
        _print(loaded, peer, found)
    return _REJECTED_CODE if found.refusal else 0


# What is asked ----------------------------------------------------------------------------------


def _peer(loaded: Loaded, who: str, certificate: Sequence[str]) -> Peer:
    from fastscp.rules.book import Peer

    config = loaded.config
    known = {config.ae_title, *(table.title for table in config.tables.ae)}
    calling_ae, host, called_ae = read_value("--who", who, _WHO)
    if called_ae is None:
        called_ae = config.ae_title
    elif called_ae.isdigit() and called_ae not in known:
        why = (
            f"{who!r} names a network, and one sender is asked for; give AE@ADDRESS, or "
            f"AE@ADDRESS/CALLED with a called AE title"
        )
        raise ConfigError("--who", why)
    kind = MATCHERS["certificate"]
    shown = read_value("--certificate", list(certificate), kind) if certificate else ()
    return Peer(calling_ae, called_ae, host, shown)


def _read_who(raw: object) -> tuple[str, str, str | None]:
    """Calling title, address, and called title if there is one, from `AE@ADDRESS[/CALLED]`.

    Titles may have a @ and a / in them, and an address has none: the first that is one counts.
    """
    text = read_text(raw)
    for at in (place for place, char in enumerate(text) if char == "@"):
        address, slash, called = text[at + 1 :].partition("/")
        host = address.strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        try:
            ipaddress.ip_address(host)
        except ValueError:
            continue
        if text[:at].strip() == "*":
            raise ExplainedError(f"{text!r} names every title, and one sender is asked for")
        return read_written_title(text[:at]), host, read_written_title(called) if slash else None
    raise ValueError("names no address" if "@" in text else "has no @")


_WHO: Final = Parsed(
    _read_who, "WHO", "AE@ADDRESS or AE@ADDRESS/CALLED, such as CT1@10.1.2.3 or CT1@[::1]/PACS"
)


# What is told -----------------------------------------------------------------------------------


def _print(loaded: Loaded, peer: Peer, found: Explanation) -> None:
    asked = f"{peer.calling_ae} from {peer.host}, calling {peer.called_ae}"
    if peer.certificate:
        asked += f", with a certificate of {', '.join(peer.certificate)}"
    if found.refusal is None:
        print(escape(f"{asked}: admitted, rule {found.rule}"))
    else:
        refused = found.refusal
        numbers = f"({refused.result},{refused.source},{refused.reason})"
        print(escape(f"{asked}: rejected with {numbers}: {refused.why}"))
    for line in _judged(found.judged):
        print(f"  {escape(line)}")
    asked_for = loaded.config.user_identity
    if found.refusal is None and asked_for:
        what = "a user name and a passcode" if asked_for.keys is None else "a JSON Web Token"
        how = "it has to show" if asked_for.required else "a wrong one is rejected if it shows"
        print(escape(f"  then {how} {what}: --user-identity {asked_for}"))
    if found.decided:
        print()
        rows = [
            (one.setting.name, escape(_value(one)), _source(loaded, one)) for one in found.decided
        ]
        print_columns([("setting", "value", "source"), *rows])


def _value(one: Decided) -> str:
    """The value; of the limit that holds at each level, what it counts."""
    shown = one.setting.kind.show(one.value)
    if one.setting.name != "max-associations":
        return shown
    whose = "all together" if one.table == TOP_LEVEL else f"those of {_written(one.table)}"
    return f"{shown} ({whose})"


def _judged(judged: tuple[Judged, ...]) -> list[str]:
    lines: list[str] = []
    misses = [one for one in judged if not one.applies]
    told = set(map(id, misses[:_MISSES_MOST]))
    for one in judged:
        if one.applies or id(one) in told:
            where = "" if one.table == TOP_LEVEL else f"{_written(one.table)} "
            word = (
                "" if one.table == TOP_LEVEL else "applies: " if one.applies else "does not apply: "
            )
            lines.append(f"{where}{word}{one.why}")
    if len(misses) > _MISSES_MOST:
        more = counted(len(misses) - _MISSES_MOST, "more table does", "more tables do")
        at = min(_MISSES_MOST, len(lines))
        lines.insert(at, f"and {more} not apply")
    return lines


def _written(table: str) -> str:
    kind, _, name = table.partition(".")
    return f"[{written_path((kind, name))}]"


def _source(loaded: Loaded, one: Decided) -> str:
    if one.table == TOP_LEVEL:
        return escape(loaded.place(one.setting.field))
    return escape(f"{_written(one.table)} {loaded.table_sources[one.table, one.setting.name]}")


def _in_json(loaded: Loaded, peer: Peer, found: Explanation) -> dict[str, object]:
    refused = found.refusal
    settings: dict[str, list[dict[str, object]]] = {}
    for one in found.decided:
        source = (
            loaded.place(one.setting.field)
            if one.table == TOP_LEVEL
            else loaded.table_sources[one.table, one.setting.name]
        )
        told = {"value": plain(one.value), "table": one.table, "source": in_json(source)}
        settings.setdefault(one.setting.name, []).append(told)
    return {
        "calling": peer.calling_ae,
        "address": peer.host,
        "called": peer.called_ae,
        "certificate": list(peer.certificate),
        "admitted": refused is None,
        "rejected": refused and [refused.result, refused.source, refused.reason],
        "why": refused and refused.why,
        "rule": found.rule or None,
        "user_identity": str(loaded.config.user_identity),
        "tables": [
            {"table": one.table, "applies": one.applies, "why": one.why} for one in found.judged
        ],
        "settings": settings,
    }

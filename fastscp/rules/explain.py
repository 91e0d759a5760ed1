"""Why an association gets the rule that it gets, in words: for whoever writes the tables.

`book` decides. What stands here tells of that decision, table by table, and may take its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastscp.config.settings import SETTINGS
from fastscp.rules.book import Refusal, RuleBook
from fastscp.rules.build import build
from fastscp.rules.rule import TOP_LEVEL, rule_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastscp.config.settings import ServeConfig, Setting
    from fastscp.config.tables import FromTable
    from fastscp.rules.book import Peer

__all__ = ["Decided", "Explanation", "Judged", "explain"]


@dataclass(frozen=True)
class Judged:
    """A table that was looked at. table: its key, or TOP_LEVEL. why: why it applies, or not."""

    table: str
    applies: bool
    why: str


@dataclass(frozen=True)
class Decided:
    """A setting that holds for the association, with the key of the table that sets it."""

    setting: Setting
    value: Any
    table: str


@dataclass(frozen=True)
class Explanation:
    """What becomes of a request.

    rule: as log and status call it; empty if the request is rejected. refusal: what it is rejected
    with. judged: in the order in which the tables are looked at. decided: in the order of the help,
    the most specific first where several tables count; empty if the request is rejected.
    """

    rule: str
    refusal: Refusal | None
    judged: tuple[Judged, ...]
    decided: tuple[Decided, ...]


def explain(config: ServeConfig, peer: Peer) -> Explanation:
    """What becomes of a request of this peer, as far as tables and lists decide; limits aside.

    Cost: reads the dictionary of pydicom.
    """
    chosen = RuleBook(build(config, 1)).choose(peer)
    if isinstance(chosen, Refusal):
        # A title that is not ours is rejected before anybody looks at who calls.
        judged = () if chosen.reason == 7 else tuple(_senders(config, peer, ""))
        return Explanation("", chosen, judged, ())
    judged = (*_senders(config, peer, chosen.sender), _called(peer, chosen.ae))
    decided = tuple(_decided(config, chosen.ae, chosen.sender))
    return Explanation(rule_name(chosen.ae, chosen.sender), None, judged, decided)


def _senders(config: ServeConfig, peer: Peer, chosen: str) -> Iterator[Judged]:
    """The tables of senders down to the one that was chosen; all where none was, and --allow."""
    for table in config.tables.senders:
        applies = table.key == chosen
        yield Judged(table.key, applies, _fits(table, peer) if applies else _misses(table, peer))
        if applies:
            return
    if not config.allow:
        if not config.tables.senders:
            yield Judged(TOP_LEVEL, True, "no [from] table and no --allow: everyone may associate")
        return
    fitting = [one for one in config.allow if one.matches(peer.calling_ae, peer.host)]
    why = f"--allow has {fitting[0]}" if fitting else "--allow has no entry for this sender"
    yield Judged(TOP_LEVEL, bool(fitting), why)


def _fits(table: FromTable, peer: Peer) -> str:
    """Why a table applies."""
    parts = [f"who has {one}" for one in table.who if one.matches(peer.calling_ae, peer.host)][:1]
    if table.called:
        parts.append(f"called has {peer.called_ae}")
    parts += [f"certificate has {one}" for one in table.certificate if one in peer.certificate][:1]
    return " and ".join(parts)


def _misses(table: FromTable, peer: Peer) -> str:
    """Why a table does not apply: the first of its lists that the sender is not in."""
    if table.who and not any(one.matches(peer.calling_ae, peer.host) for one in table.who):
        if any(one.ae == peer.calling_ae for one in table.who):
            return f"who has {peer.calling_ae} from other addresses only"
        if any(one.ae != "*" and one.matches(one.ae, peer.host) for one in table.who):
            return f"who has other titles from {peer.host} only"
        if any(one.ae == "*" for one in table.who):
            return f"who has any title (*), but not from {peer.host}"
        return f"who has neither {peer.calling_ae} nor {peer.host}"
    if table.called and peer.called_ae not in table.called:
        return f"called has no {peer.called_ae}"
    if peer.certificate:
        return f"certificate has nothing of what the sender's shows, {', '.join(peer.certificate)}"
    return "certificate asks for one, and --certificate says of none that the sender shows"


def _called(peer: Peer, ae: str) -> Judged:
    if ae:
        return Judged(ae, True, f"the sender calls {peer.called_ae}")
    return Judged(TOP_LEVEL, True, f"{peer.called_ae} has no [ae] table")


def _decided(config: ServeConfig, ae: str, sender: str) -> Iterator[Decided]:
    """What the tables of these keys set, the most specific first, and what the top level does."""
    tables = config.tables
    values: dict[str, Mapping[str, Any]] = {
        **{table.key: table.values for table in tables.senders if table.key == sender},
        **{table.key: table.values for table in tables.ae if table.key == ae},
    }
    for setting in SETTINGS:
        if not setting.tables:
            continue
        at_each = [
            Decided(setting, of[setting.field], key)
            for key, of in values.items()
            if setting.field in of
        ]
        at_each.append(Decided(setting, getattr(config, setting.field), TOP_LEVEL))
        # Of all limits this one holds at each level.
        yield from at_each[: None if setting.name == "max-associations" else 1]

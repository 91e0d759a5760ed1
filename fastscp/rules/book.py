"""Which rule an association gets: by the AE title it calls, and by who it is.

Theory of operation: each combination of a sender, a called title and what a certificate shows is an
entry of one index, with the place of its table in the file: the first table wins, so the smallest
place is all that an entry needs. A peer is looked up under its own title and under any title, in
each length of network that the tables have, and so on. So the cost grows with the kinds of entries,
not with their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fastscp.log import printable, shown
from fastscp.rules.networks import network_part, packed_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.rules.rule import Rule, RuleSet

__all__ = ["ANY", "Peer", "Refusal", "RuleBook", "entry"]

# Of an entry: any title, any certificate or none.
ANY: Final = ""
# Of an entry: any address.
_ANYWHERE: Final = b""
# Rules that are kept once they are made; a peer chooses among the tables alone.
_RULES_KEPT: Final = 1024
# Of a certificate that matches nothing: names that the log has, and characters of each.
_NAMES_SHOWN: Final = 4
_NAME_MOST: Final = 100
# Fields of a rule that stand in a table as the number of a list.
_LISTS: Final = ("sop_classes", "transfer_syntaxes")


class Peer(NamedTuple):
    """Who asks for an association.

    calling_ae, called_ae: in their written form. host: its numeric address, as the socket reports
    it. certificate: what its certificate shows, each as a table of senders names it.
    """

    calling_ae: str
    called_ae: str
    host: str
    certificate: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """What to reject with; `why` is for the log, safe to print. Source: PS3.8 Table 9-21."""

    result: int
    source: int
    reason: int
    why: str


def entry(calling_ae: str, called_ae: str, certificate: str, network: bytes) -> bytes:
    """The key of an entry of the index. No title has a NUL in its written form."""
    return b"\0".join((calling_ae.encode(), called_ae.encode(), certificate.encode(), network))


def _showing(peer: Peer) -> str:
    """That a certificate was shown, by names as tables have them."""
    if not peer.certificate:
        return ""
    names = [shown(one, _NAME_MOST) for one in peer.certificate[:_NAMES_SHOWN]]
    more = ", ..." if len(peer.certificate) > len(names) else ""
    return f"; its certificate shows {', '.join(names)}{more}"


class RuleBook:
    """The rules of a set, matched to peers."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._made: dict[tuple[str, int | None], Rule] = {}

    @property
    def generation(self) -> int:
        return self.rules.generation

    def choose(self, peer: Peer) -> Rule | Refusal:
        """The rule for a peer, or why it gets none.

        Cost: a bounded number of lookups, however many tables there are.
        """
        rules = self.rules
        called = peer.called_ae
        if rules.titles is not None and called not in rules.titles:
            return Refusal(
                1, 1, 7,
                f"called AE title '{printable(called)}' is not ours (--ae-title, --check-called-ae"
                f"{', [ae]' if rules.ae else ''})",
            )  # fmt: skip
        found = min(self._matches(peer), default=None)
        if found is None and rules.is_closed:
            none = "no [from] table and " if rules.senders else ""
            return Refusal(
                1, 1, 3,
                f"'{printable(peer.calling_ae)}' from {peer.host} calling '{printable(called)}' "
                f"matches {none}no --allow entry{_showing(peer)}",
            )  # fmt: skip
        if found is not None and found >= len(rules.senders):
            # Of --allow, which sets nothing.
            found = None
        title = called if called in rules.ae else ANY
        rule = self._made.get((title, found))
        if rule is None:
            if len(self._made) >= _RULES_KEPT:
                self._made.clear()
            rule = self._made[title, found] = self.rule(title, found)
        return rule

    def rule(self, title: str, sender: int | None) -> Rule:
        """The rule of two tables. title: "" for no table; sender: its place, None for none."""
        rules = self.rules
        tables = []
        changes: dict[str, Any] = {}
        if title in rules.ae:
            changes["ae"] = f"ae.{title}"
            tables.append((changes["ae"], rules.ae[title]))
        if sender is not None:
            changes["sender"] = rules.senders[sender].key
            tables.append((changes["sender"], rules.senders[sender].values))
        for key, table in tables:
            for field, value in table.items():
                if field in _LISTS:
                    changes[field] = getattr(rules, field)[value]
                    changes[f"{field}_from"] = key
                elif field in rules.top.__struct_fields__:
                    changes[field] = value
        return msgspec.structs.replace(rules.top, **changes)

    def every_rule(self) -> Iterator[Rule]:
        """The rule of the top level and of each table by itself: all values that any rule has."""
        yield self.rules.top
        for title in self.rules.ae:
            yield self.rule(title, None)
        for place in range(len(self.rules.senders)):
            yield self.rule(ANY, place)

    def _matches(self, peer: Peer) -> Iterator[int]:
        index = self.rules.index
        if not index:
            return
        networks = [_ANYWHERE]
        packed = packed_address(peer.host)
        if packed is not None:
            prefixes = self.rules.prefixes_4 if len(packed) == 4 else self.rules.prefixes_6
            networks += [network_part(packed, prefix) for prefix in prefixes]
        for calling in (peer.calling_ae, ANY):
            for called in (peer.called_ae, ANY):
                for certificate in (*peer.certificate, ANY):
                    for network in networks:
                        place = index.get(entry(calling, called, certificate, network))
                        if place is not None:
                            yield place

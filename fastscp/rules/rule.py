"""A rule, and the set of all that hold at a time, as plain data for the workers."""

from __future__ import annotations

from typing import Any

import msgspec

from fastscp.association.negotiation import Policy
from fastscp.config.settings import suffix_of
from fastscp.store.filing import TOP_LEVEL
from fastscp.uids import SopClassRule, TransferSyntaxRule  # noqa: TC001 - msgspec reads them

__all__ = ["TOP_LEVEL", "Rule", "RuleSet", "Sender", "as_written", "rule_name"]


def rule_name(ae: str, sender: str) -> str:
    """What log and status call the rule of these tables, each a key or empty."""
    return "+".join(key for key in (ae, sender) if key) or TOP_LEVEL


def as_written(name: str, table: str) -> str:
    """A setting as an operator wrote it, where he wrote it. table: its key; empty: in none."""
    return f"[{table}] {name}" if table else f"--{name}"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How one association is treated, as a setting of that name says.

    ae, sender: keys of the tables that it comes from, `ae.TITLE` and `from.NAME`; empty: none.
    sop_classes_from, transfer_syntaxes_from: key of the one that sets this list; empty: none does.
    """

    ae: str = ""
    sender: str = ""
    sop_classes_from: str = ""
    transfer_syntaxes_from: str = ""
    layout: str
    compress: str
    durability: str
    on_duplicate: str
    digest: str
    strict: bool
    sop_classes: SopClassRule
    transfer_syntaxes: TransferSyntaxRule
    max_instance_size: int
    message_timeout: float
    idle_timeout: float
    min_rate: int

    @property
    def name(self) -> str:
        return rule_name(self.ae, self.sender)

    @property
    def durable(self) -> bool:
        """Whether an instance survives a power cut once success is answered."""
        return self.durability == "stable"

    @property
    def suffix(self) -> str:
        """What the names of stored files end in."""
        return suffix_of(self.compress)

    def policy(self, max_pdu_length: int, max_async_operations: int) -> Policy:
        """What decides over a request, with what is the same for all associations."""
        return Policy(
            max_pdu_length=max_pdu_length,
            max_async_operations=max_async_operations,
            strict=self.strict,
            sop_classes=self.sop_classes,
            transfer_syntaxes=self.transfer_syntaxes,
        )


class Sender(msgspec.Struct, frozen=True):
    """A `[from.NAME]` table: its key, and the values as in `RuleSet.ae`."""

    key: str
    values: dict[str, Any]


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of a configuration. Immutable.

    generation: grows with each set. titles: the called AE titles that are known; None: any will do.
    top: the rule of whoever has no table. limits: those of the top level, by field. ae: for each
    called title what its table sets, by field; in it `sop_classes` and `transfer_syntaxes` are
    numbers of the lists here. senders: in the order in which they win.
    is_closed: whoever matches no entry of `index` is refused. index: see `book`. prefixes_4,
    prefixes_6: the lengths of the IPv4 and IPv6 networks in it.
    """

    generation: int
    titles: frozenset[str] | None
    top: Rule
    limits: dict[str, int]
    ae: dict[str, dict[str, Any]]
    senders: tuple[Sender, ...]
    is_closed: bool
    index: dict[bytes, int]
    prefixes_4: tuple[int, ...]
    prefixes_6: tuple[int, ...]
    sop_classes: tuple[SopClassRule, ...]
    transfer_syntaxes: tuple[TransferSyntaxRule, ...]

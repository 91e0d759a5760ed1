"""From the settings to the set of rules that follows from them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastscp import uids
from fastscp.config.settings import SETTINGS
from fastscp.rules.book import ANY, entry
from fastscp.rules.networks import network_part
from fastscp.rules.rule import Rule, RuleSet, Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastscp.config.settings import AllowRule, ServeConfig

__all__ = ["LIMITS", "build", "titles_named"]

_List = TypeVar("_List")

_FIELDS: Final = frozenset(setting.field for setting in SETTINGS)

# The limits of associations, which main counts; no rule of a worker has them.
LIMITS: Final = tuple(
    setting.field
    for setting in SETTINGS
    if setting.tables and setting.field not in Rule.__struct_fields__
)


def build(config: ServeConfig, generation: int) -> RuleSet:
    """The rules of a configuration. Cost: reads the dictionary of pydicom."""
    lists = _Lists()
    tables = config.tables
    index, lengths = _index(config)
    titles = frozenset({config.ae_title, *(table.title for table in tables.ae)})
    top = {field: getattr(config, field) for field in Rule.__struct_fields__ if field in _FIELDS}
    top["sop_classes"] = uids.sop_class_rule(config.sop_classes)
    top["transfer_syntaxes"] = uids.transfer_syntax_rule(config.transfer_syntaxes)
    return RuleSet(
        generation=generation,
        titles=titles if config.check_called_ae else None,
        top=Rule(**top),
        limits={field: getattr(config, field) for field in LIMITS},
        ae={table.title: lists.numbered(table.values) for table in tables.ae},
        senders=tuple(Sender(table.key, lists.numbered(table.values)) for table in tables.senders),
        is_closed=bool(tables.senders or config.allow),
        index=index,
        prefixes_4=tuple(sorted(lengths[4], reverse=True)),
        prefixes_6=tuple(sorted(lengths[16], reverse=True)),
        sop_classes=tuple(lists.sop_classes),
        transfer_syntaxes=tuple(lists.transfer_syntaxes),
    )


def titles_named(config: ServeConfig) -> list[str]:
    """The calling AE titles that a configuration names, once each."""
    who = [one for table in config.tables.senders for one in table.who]
    return list(dict.fromkeys(one.ae for one in (*config.allow, *who) if one.ae != "*"))


class _Lists:
    """The lists of UIDs that tables name, each looked up once, by their words."""

    def __init__(self) -> None:
        self.sop_classes: list[uids.SopClassRule] = []
        self.transfer_syntaxes: list[uids.TransferSyntaxRule] = []
        self._numbers: dict[tuple[str, tuple[str, ...]], int] = {}

    def numbered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a table sets, with the number of a list in place of it."""
        found = dict(values)
        if (names := found.get("sop_classes")) is not None:
            found["sop_classes"] = self._number(
                "sop_classes", names, self.sop_classes, uids.sop_class_rule
            )
        if (names := found.get("transfer_syntaxes")) is not None:
            found["transfer_syntaxes"] = self._number(
                "transfer_syntaxes", names, self.transfer_syntaxes, uids.transfer_syntax_rule
            )
        return found

    def _number(
        self, kind: str, names: tuple[str, ...], known: list[_List], read: Callable[[Any], _List]
    ) -> int:
        number = self._numbers.get((kind, names))
        if number is None:
            number = self._numbers[kind, names] = len(known)
            known.append(read(names))
        return number


def _index(config: ServeConfig) -> tuple[dict[bytes, int], dict[int, set[int]]]:
    """The entries of `book`, and of each size of address the lengths of networks among them."""
    index: dict[bytes, int] = {}
    lengths: dict[int, set[int]] = {4: set(), 16: set()}
    for place, table in enumerate(config.tables.senders):
        # An empty list asks for nothing.
        who = [_who(one, lengths) for one in table.who] or [(ANY, b"")]
        for (calling, network), called, certificate in product(
            who, table.called or (ANY,), table.certificate or (ANY,)
        ):
            index.setdefault(entry(calling, called, certificate, network), place)
    for one in config.allow:
        calling, network = _who(one, lengths)
        index.setdefault(entry(calling, ANY, ANY, network), len(config.tables.senders))
    return index, lengths


def _who(one: AllowRule, lengths: dict[int, set[int]]) -> tuple[str, bytes]:
    """Calling AE title and network of an entry; the length of the network is noted."""
    calling = ANY if one.ae == "*" else one.ae
    if one.network is None:
        return calling, b""
    packed = one.network.network_address.packed
    lengths[len(packed)].add(one.network.prefixlen)
    return calling, network_part(packed, one.network.prefixlen)

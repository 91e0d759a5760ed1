"""How many associations a rule allows: which table's number holds, and whom it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.rules.rule import TOP_LEVEL, as_written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from fastscp.rules.rule import RuleSet

__all__ = ["Bound", "Bounds", "LimitBook"]

# Tables of which the bounds are kept once they are made.
_KEPT: Final = 4096


class Bound(NamedTuple):
    """A number, above 0, and the key of the table that sets it, whose associations it counts."""

    table: str
    number: int

    def told(self, field: str) -> str:
        """The limit as an operator wrote it. field: of the settings."""
        table = "" if self.table == TOP_LEVEL else self.table
        return f"{as_written(field.replace('_', '-'), table)} {self.number}"


class Bounds(NamedTuple):
    """What holds for the associations of a rule; None: no limit.

    tables: keys of the tables it comes from. total: associations at a time of each of the tables.
    per_host, per_ae: of one address, of one calling AE title. rate: new ones of one address in a
    second; unlike the others it counts only those whose bound it is, the top level's, too.
    """

    tables: tuple[str, ...]
    total: tuple[Bound, ...]
    per_host: Bound | None
    per_ae: Bound | None
    rate: Bound | None


class LimitBook:
    """The limits of a set of rules.

    The total of the top level is not among them: it holds for all associations together.
    """

    def __init__(self, rules: RuleSet) -> None:
        self.generation = rules.generation
        self._top = rules.limits
        self._tables: dict[str, Mapping[str, Any]] = {
            **{f"ae.{title}": values for title, values in rules.ae.items()},
            **{sender.key: sender.values for sender in rules.senders},
        }
        self._made: dict[tuple[str, str], Bounds] = {}

    def bounds(self, ae: str, sender: str) -> Bounds:
        """The limits of two tables, each a key or empty; a key that is none sets nothing."""
        found = self._made.get((ae, sender))
        if found is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            found = self._made[ae, sender] = self._bounds(ae, sender)
        return found

    def _bounds(self, ae: str, sender: str) -> Bounds:
        # The most specific first.
        tables = [(key, self._tables.get(key, {})) for key in (sender, ae) if key]
        total = [
            Bound(key, values["max_associations"])
            for key, values in tables
            if values.get("max_associations")
        ]
        return Bounds(
            tuple(key for key, _ in tables),
            tuple(total),
            self._most_specific("max_associations_per_host", tables),
            self._most_specific("max_associations_per_ae", tables),
            self._most_specific("max_association_rate", tables),
        )

    def _most_specific(
        self, field: str, tables: list[tuple[str, Mapping[str, Any]]]
    ) -> Bound | None:
        for key, values in (*tables, (TOP_LEVEL, self._top)):
            if field in values:
                return Bound(key, values[field]) if values[field] else None
        return None

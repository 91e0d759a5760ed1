"""The tables of a configuration file: what holds for a called AE title, or for some senders.

Titles stand in their written form (`fastscp.titles`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastscp.config.values import AllowRule

__all__ = ["AeTable", "FromTable", "Tables"]


@dataclass(frozen=True)
class AeTable:
    """`[ae.TITLE]`: what differs for associations that call this AE title.

    values: field of the settings to its value, as its kind reads it.
    """

    title: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is called in counts, log and status."""
        return f"ae.{self.title}"


@dataclass(frozen=True)
class FromTable:
    """`[from.NAME]`: what differs for associations of these senders.

    who: any of them has to match. called: called AE titles, any of which has to match; empty: all
    do. certificate: what the sender's certificate has to show, any of these; empty: it needs none.
    values: as in `AeTable`.
    """

    name: str
    who: tuple[AllowRule, ...] = ()
    called: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is called in counts, log and status."""
        return f"from.{self.name}"


@dataclass(frozen=True)
class Tables:
    """All tables of a file, each kind in its order.

    places: `FILE:LINE` by a table's key and the name of a key in it; an empty name is the table.
    """

    ae: tuple[AeTable, ...] = ()
    senders: tuple[FromTable, ...] = ()
    places: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.ae or self.senders)

"""How instances are filed: a layout and a suffix for each called AE title that has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Filing", "Filings"]


class Filing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where files go. layout: the template of their paths. suffix: `.dcm` or `.dcm.zst`."""

    layout: str
    suffix: str = ".dcm"

    def __str__(self) -> str:
        return f"{self.layout!r} and suffix {self.suffix!r}"


class Filings(msgspec.Struct, frozen=True):
    """How a service files.

    top: what it is told at the top level. ae: what holds for a called AE title that has a table, by
    the title's written form (`fastscp.titles`): the table's own, or the top level's where the table
    says nothing.
    """

    top: Filing
    ae: Mapping[str, Filing] = {}

    def of(self, title: str) -> Filing:
        """What holds for a called AE title."""
        return self.ae.get(title, self.top)

    @property
    def layouts(self) -> tuple[str, ...]:
        """Each once, the top level's first."""
        return tuple(dict.fromkeys(filing.layout for _key, filing in self))

    def __iter__(self) -> Iterator[tuple[str, Filing]]:
        """Each with the key that a log and an operator know it by: `default`, `ae.TITLE`."""
        yield "default", self.top
        for title, filing in self.ae.items():
            yield f"ae.{title}", filing

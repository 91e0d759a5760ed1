"""How instances are filed: a layout and a suffix for each called AE title that has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["TOP_LEVEL", "Filing", "Filings", "refuse"]

# What the settings outside of any table are called in counts, log and status.
TOP_LEVEL: Final = "default"

# Mistakes named in one message.
_NAMED: Final = 5


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
    says nothing. places: where that is said, `FILE:LINE` by a table's key and the name of a
    setting; an empty name is the table itself.
    """

    top: Filing
    ae: Mapping[str, Filing] = {}
    places: Mapping[tuple[str, str], str] = {}

    def option(self, key: str, setting: str) -> str:
        """A setting of a table, as an error names it: with its place, if that is known."""
        place = self.places.get((key, setting)) or self.places.get((key, ""))
        return f"{place}: [{key}] {setting}" if place else f"[{key}] {setting}"

    def of(self, title: str) -> Filing:
        """What holds for a called AE title."""
        return self.ae.get(title, self.top)

    @property
    def layouts(self) -> tuple[str, ...]:
        """Each once, the top level's first."""
        return tuple(dict.fromkeys(filing.layout for _key, filing in self))

    def __iter__(self) -> Iterator[tuple[str, Filing]]:
        """Each with the key that a log and an operator know it by: `default`, `ae.TITLE`."""
        yield TOP_LEVEL, self.top
        for title, filing in self.ae.items():
            yield f"ae.{title}", filing


def refuse(found: Sequence[ConfigError]) -> None:
    """Raise one error that tells all of them; nothing where there is none."""
    if not found:
        return
    first, *others = found
    why = "; and ".join((first.why, *map(str, others[: _NAMED - 1])))
    if len(found) > _NAMED:
        why += f"; and {len(found) - _NAMED} more"
    raise ConfigError(first.option, why, tuple(map(str, found)))

"""What `fastscp top` shows: the service and its connections, as much as the screen holds.

Whatever is shown goes as `rich.text.Text`, in which nothing is markup, and is cut to the width: a
line of ours is a line of the screen.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from fastscp.cli.associations import HEAD, NUMBERS, row
from fastscp.cli.status import rows
from fastscp.log import counted, escape
from fastscp.messages.rates import a_second, busiest, each_a_second

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from fastscp.messages.control import Overview, Status

__all__ = ["Screen"]

# Of the rows of `fastscp status`, in this order; and those of a screen with few lines.
_ROWS: Final = (
    "state", "test aids", "changed", "version", "predecessor", "free space", "redo log",
    "workers", "associations", "received", "stored", "in flight", "refused", "rejected",
)  # fmt: skip
_FEW_ROWS: Final = ("state", "free space", "associations", "received", "stored", "refused")
_FEW_LINES: Final = 20
_NAME_CELLS: Final = max(map(len, _ROWS)) + 2
# How far a state with its reason may run on.
_STATE_LINES: Final = 3
_GAP: Final = "  "
_ID, _TITLES, _RATE = HEAD.index("ID"), HEAD.index("CALLING > CALLED"), HEAD.index("RATE")
# The columns that a narrow screen does without, first those that can be spared most.
_SPARED: Final = tuple(
    HEAD.index(name)
    for name in ("RULES", "BYTES", "AGE", "ADDRESS", "REFUSED", "PHASE", "ID", "STORED")
)
# Cells that a column has at least, so that the columns rest while the figures change.
_LEAST: Final = {"ID": 4, "PHASE": 10, "STORED": 7, "BYTES": 8, "RATE": 10, "AGE": 11}
# Titles are cut to this before a column goes.
_TITLES_CELLS: Final = 18


@dataclass(frozen=True, slots=True)
class Screen:
    """One look at the service, for rich to render.

    seen: what was seen last; before: what was seen one look before that, of the same process; None:
    nothing, so no rates are known. trouble: why there is no newer look. changed: that another
    process serves than before. foot: the words below all.
    """

    seen: Overview
    before: Overview | None = None
    trouble: str = ""
    changed: str = ""
    foot: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self._lines(options.max_width, options.height or console.height)
        for line in lines:
            line.no_wrap = True
            line.overflow = "crop"
            yield line

    def _lines(self, width: int, height: int) -> list[Text]:
        head = [_cut(line, width) for line in self._head(width, height)]
        # Below it an empty line, the head of the table, and the foot.
        room = max(0, height - len(head) - 3)
        foot = [self.foot] if self.foot else []
        found = self.seen.associations
        if more := max(0, len(found) - room):
            foot.insert(0, f"and {counted(more, 'more connection')}")
        lines = [*head, Text(), *_table(self._busiest(room), width)]
        if not foot:
            return lines[:height]
        # Where little fits, the last line is how to get away.
        return [*lines[: height - 1], _cut(Text("; ".join(foot), "dim"), width)]

    # The service ---------------------------------------------------------------------------------

    def _head(self, width: int, height: int) -> Iterator[Text]:
        status = self.seen.status
        said = dict(rows(status))
        said["received"] = self._received()
        for name in ("stored", "refused", "rejected"):
            # First, for a narrow screen cuts the end.
            said[name] = f"{self._rate(name)}; {said[name]}"
        if self.changed:
            said["changed"] = self.changed
        style = _style(status)
        if self.trouble:
            said["state"], style = self.trouble, "bold red"
        for name in _ROWS if height >= _FEW_LINES else _FEW_ROWS:
            if name not in said:
                continue
            value = escape(said[name])
            if name != "state":
                yield Text.assemble((name.ljust(_NAME_CELLS), "dim"), value)
                continue
            room = max(_NAME_CELLS, width - _NAME_CELLS)
            parts = textwrap.wrap(value, room, max_lines=_STATE_LINES, placeholder=" ...")
            for part, title in zip(parts, [name, *[""] * len(parts)], strict=False):
                yield Text.assemble((title.ljust(_NAME_CELLS), "dim"), (part, style))

    def _seconds(self) -> float:
        """Between the two looks, by the clock of the service; 0: no rates are known."""
        if self.before is None:
            return 0.0
        return max(0.0, self.seen.status.uptime_s - self.before.status.uptime_s)

    def _a_second(self, name: str) -> float | None:
        if self.before is None:
            return None
        now, then = getattr(self.seen.status, name), getattr(self.before.status, name)
        return a_second(now, then, self._seconds())

    def _rate(self, name: str) -> str:
        from fastscp.association.account import in_bytes

        rate, volume = self._a_second(name), self._a_second("bytes")
        if rate is None or volume is None:
            return "-"
        return f"{rate:,.1f}/s" + (f", {in_bytes(volume)}/s" if name == "stored" else "")

    def _received(self) -> str:
        from fastscp.association.account import in_bytes

        rate = self._a_second("received_bytes")
        shown = "-" if rate is None else f"{in_bytes(rate)}/s"
        return f"{shown}; {in_bytes(self.seen.status.received_bytes)} read from connections"

    # Its connections -----------------------------------------------------------------------------

    def _busiest(self, most: int) -> list[tuple[str, ...]]:
        """The rows of those that send the most, and of those alike the oldest."""
        found = self.seen.associations
        each: dict[str, int] = {}
        if self.before is not None:
            before = {one.id: one.received_bytes for one in self.before.associations}
            each = each_a_second(found, before, self._seconds())
        return [
            # The number alone is short, and does for `fastscp abort`.
            (one.id.rpartition(".")[2], *row(one, each.get(one.id))[1:])
            for one in busiest(found, each, most)
        ]


def _style(status: Status) -> str:
    if not status.is_ready:
        return "bold red"
    return "yellow" if status.why else "green"


def _table(shown: Sequence[Sequence[str]], width: int) -> Iterator[Text]:
    if not shown:
        yield _cut(Text("no connections"), width)
        return
    widths = [
        max(_LEAST.get(name, 0), *map(cell_len, column))
        for name, column in zip(HEAD, zip(HEAD, *shown, strict=True), strict=True)
    ]
    kept, least = list(range(len(HEAD))), list(widths)
    least[_TITLES] = min(widths[_TITLES], _TITLES_CELLS)
    spared = iter(_SPARED)
    while _total(least, kept) > width and (column := next(spared, None)) is not None:
        kept.remove(column)
    over = _total(widths, kept) - width
    widths[_TITLES] = max(1, widths[_TITLES] - max(0, over))
    yield _cut(_line(HEAD, kept, widths, "bold"), width)
    for cells in shown:
        yield _cut(_line(cells, kept, widths, ""), width)


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1)


def _line(cells: Sequence[str], kept: Sequence[int], widths: Sequence[int], style: str) -> Text:
    parts = []
    for at in kept:
        cell = _cut(Text(cells[at]), widths[at]).plain
        blank = " " * (widths[at] - cell_len(cell))
        parts.append(blank + cell if at in NUMBERS else cell + blank)
    return Text(_GAP.join(parts).rstrip(), style)


def _cut(line: Text, width: int) -> Text:
    """At most so many cells; what is cut says so in characters that every terminal has."""
    if line.cell_len <= width:
        return line
    end = "..." if width > len("...") else ""
    short = line.copy()
    short.plain = set_cell_size(line.plain, width - len(end)) + end
    return short

"""The tables of what commits cost, as Markdown: a line per point, and a line per receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bench.flush.commits import SCENARIO
from bench.render import NOTHING, number, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLACES: Final = ("disk", "workload", "associations", "workers")
# Name, head of the column, unit.
FIGURES: Final = (
    ("rate", "per s", 1.0),
    ("response_p50_us", "p50 ms", 1000.0),
    ("response_p99_us", "p99 ms", 1000.0),
    ("cpu_us_per_instance", "CPU µs each", 1.0),
    ("device_flushes_per_instance", "device flushes each", 1.0),
    ("written_bytes_per_instance", "KB written each", 1000.0),
)


def markdown(document: Mapping[str, Any]) -> str:
    """Both tables, and what went wrong."""
    cells = [cell for cell in document["cells"] if cell["scenario"] == SCENARIO]
    lines = ["Instances per second: median [least-most] of the rounds; x: the median of the"]
    lines += ["rounds' ratios to the first column.", ""]
    lines += _rates(document, cells)
    lines += _figures(cells)
    lines += [f"- {'/'.join(map(str, _place(cell)))}, {cell['receiver']}: {cell['error']}"
              for cell in cells if cell["error"]]  # fmt: skip
    return "\n".join(lines)


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell["point"][name] for name in PLACES)


def _rates(document: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(cell["receiver"] for cell in cells))
    by_place: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for cell in cells:
        by_place.setdefault(_place(cell), {})[cell["receiver"]] = cell
    ratio = {one["what"]: one["median"] for one in document["ratios"] if one["figure"] == "rate"}
    rows = []
    for place, found in by_place.items():
        row = [str(word) for word in place]
        first = next(iter(found))
        for name in names:
            figure = found[name]["figures"].get("rate") if name in found else None
            if figure is None:
                row.append(NOTHING)
                continue
            spread = f" [{number(figure['least'])}-{number(figure['most'])}]"
            said = number(figure["median"]) + spread * (len(figure["rounds"]) > 1)
            to_first = ratio.get(f"{' '.join(map(str, place))}: {name} to {first}")
            row.append(said if to_first is None else f"{said} {to_first:.2f}x")
        rows.append(row)
    yield from table([*PLACES, *names], rows)


def _figures(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for cell in cells:
        row = [str(word) for word in _place(cell)] + [cell["receiver"]]
        for name, _, unit in FIGURES:
            figure = cell["figures"].get(name)
            row.append(NOTHING if figure is None else number(figure["median"] / unit))
        rows.append(row)
    yield from table([*PLACES, "receiver", *(head for _, head, _ in FIGURES)], rows)

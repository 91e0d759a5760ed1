"""The plots, as SVG. Importing this needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

# The same results give the same file.
mpl.rcParams["svg.hashsalt"] = "bench"
MARKERS = "osv^<>DPX*"


def draw(document: Mapping[str, Any], into: Path) -> list[Path]:
    """Draw what there are figures for; gives the files."""
    cells, sizes = document["cells"], document["sizes"]
    drawn = []
    for name, chosen, plot in (
        ("base", _of(cells, "matrix", "base"), _dots),
        ("sizes", _of(cells, "matrix", "base", "size"), _sizes(sizes)),
        ("associations", _of(cells, "matrix", "base", "associations"), _associations),
        ("arrival", _of(cells, "arrival", "latency"), _arrival),
        ("growth-instances", _of(cells, "growth", "instances"), _stored),
        ("many-associations", _of_size(cells, "3KB"), _associations),
    ):
        if chosen:
            figure = Figure(figsize=(11, 4.5), layout="constrained")
            plot(figure.subplots(1, 2), chosen)
            path = into / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _of(cells: Sequence[Any], scenario: str, *tables: str) -> list[Any]:
    return [
        cell
        for cell in cells
        if cell["scenario"] == scenario and cell["table"] in tables and cell["figures"]
    ]


def _of_size(cells: Sequence[Any], size: str) -> list[Any]:
    return [c for c in _of(cells, "associations", "over") if c["point"]["workload"] == size]


def _dots(axes: Sequence[Axes], cells: Sequence[Any]) -> None:
    """A line per receiver; dots, because a bar has no length where there is no zero."""
    names = [cell["receiver"] for cell in cells]
    for axis, figure, label in (
        (axes[0], "rate", "instances per s"),
        (axes[1], "cpu_us_per_instance", "CPU µs per instance"),
    ):
        values = [cell["figures"][figure]["median"] for cell in cells]
        below = [
            v - cell["figures"][figure]["least"] for v, cell in zip(values, cells, strict=True)
        ]
        above = [cell["figures"][figure]["most"] - v for v, cell in zip(values, cells, strict=True)]
        axis.errorbar(values, names, xerr=(below, above), fmt="o", capsize=2)
        axis.invert_yaxis()
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.set_xscale("log")
        axis.set_xlabel(label)


def _lines(
    axis: Axes,
    cells: Sequence[Any],
    place: Callable[[Mapping[str, Any]], float],
    figure: str,
    labels: tuple[str, str],
) -> None:
    """A line per receiver; the spread as bars."""
    colours = mpl.colormaps["tab20"]
    axis.set_prop_cycle(color=[colours(number) for number in range(20)])
    for number, name in enumerate(dict.fromkeys(cell["receiver"] for cell in cells)):
        points = sorted(
            (place(cell["point"]), one["median"], one["least"], one["most"])
            for cell in cells
            if cell["receiver"] == name and (one := cell["figures"].get(figure))
        )
        if points:
            x, middle, least, most = (list(column) for column in zip(*points, strict=True))
            below = [m - low for m, low in zip(middle, least, strict=True)]
            above = [high - m for m, high in zip(middle, most, strict=True)]
            marker = MARKERS[number % len(MARKERS)]
            axis.errorbar(x, middle, yerr=(below, above), label=name, marker=marker, capsize=2)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    axis.grid(visible=True, which="major", alpha=0.3)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="x-small")


def _sizes(sizes: Mapping[str, int]) -> Callable[[Sequence[Axes], Sequence[Any]], None]:
    def plot(axes: Sequence[Axes], cells: Sequence[Any]) -> None:
        def place(point: Mapping[str, Any]) -> float:
            return sizes[point["workload"]]

        _lines(axes[0], cells, place, "mb_per_s", ("bytes of a data set", "MB/s"))
        _lines(axes[1], cells, place, "cpu_s_per_gb", ("bytes of a data set", "CPU s/GB"))
        _legend(axes[1])

    return plot


def _associations(axes: Sequence[Axes], cells: Sequence[Any]) -> None:
    def place(point: Mapping[str, Any]) -> float:
        return float(point["associations"])

    _lines(axes[0], cells, place, "rate", ("associations", "instances per s"))
    _lines(axes[1], cells, place, "response_p99_us", ("associations", "response p99, µs"))
    _legend(axes[1])


def _arrival(axes: Sequence[Axes], cells: Sequence[Any]) -> None:
    def place(point: Mapping[str, Any]) -> float:
        return float(point["planned"])

    for axis, figure in ((axes[0], "latency_p50_us"), (axes[1], "latency_p99_us")):
        label = figure.removesuffix("_us").replace("_", " ") + ", µs"
        _lines(axis, cells, place, figure, ("planned instances per s", label))
    _legend(axes[1])


def _stored(axes: Sequence[Axes], cells: Sequence[Any]) -> None:
    def place(point: Mapping[str, Any]) -> float:
        return float(point["stored"])

    cells = [cell for cell in cells if "stored" in cell["point"]]
    for axis, figure, label in (
        (axes[0], "rate", "instances per s"),
        (axes[1], "cpu_us_per_instance", "CPU µs per instance"),
    ):
        _lines(axis, cells, place, figure, ("instances in the store", label))
        axis.set_xscale("linear")
        axis.set_yscale("linear")
        axis.set_ylim(bottom=0)
    _legend(axes[1])

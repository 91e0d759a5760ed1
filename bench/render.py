"""Results as Markdown, with plots where matplotlib is installed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from bench.model import LINKS, Host, Need

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

MIB, KIB = 1 << 20, 1 << 10

# Figures by name: the column's head, and what the figure is divided by.
COLUMNS: dict[str, tuple[str, float]] = {
    "rate": ("per s", 1),
    "mb_per_s": ("MB/s", 1),
    "cpu_us_per_instance": ("CPU µs each", 1),
    "cpu_s_per_gb": ("CPU s/GB", 1),
    "cpu_us_per_association": ("CPU µs an association", 1),
    "sender_cpu_us_per_instance": ("sender's CPU µs each", 1),
    "response_p50_us": ("response p50 µs", 1),
    "response_p99_us": ("p99 µs", 1),
    "response_max_us": ("max µs", 1),
    "latency_p50_us": ("latency p50 µs", 1),
    "latency_p99_us": ("latency p99 µs", 1),
    "latency_max_us": ("latency max µs", 1),
    "associate_p50_us": ("associate p50 µs", 1),
    "cpu_us_per_handshake": ("CPU µs each", 1),
    "echo_p50_us": ("echo p50 µs", 1),
    "echo_p99_us": ("echo p99 µs", 1),
    "echo_max_us": ("echo max µs", 1),
    "sync_p50_us": ("window 1: response p50 µs", 1),
    "sync_p99_us": ("p99 µs, window 1", 1),
    "sync_max_us": ("max µs, window 1", 1),
    "async_p50_us": ("window 16: response p50 µs", 1),
    "async_p99_us": ("p99 µs, window 16", 1),
    "async_max_us": ("max µs, window 16", 1),
    "scrape_p50_us": ("scrape p50 µs", 1),
    "scrape_max_us": ("scrape max µs", 1),
    "early_bytes": ("second tenth MiB", MIB),
    "late_bytes": ("last tenth MiB", MIB),
    "slope_bytes": ("MiB an hour", MIB),
    "rss_slope_bytes": ("RSS MiB an hour", MIB),
    "logged": ("by the redo log", 1),
    "slowest_over_fastest": ("slowest / fastest", 1),
    "big_mb_per_s": ("large one MB/s", 1),
    "flushes_per_instance": ("flushes each", 1),
    "calls_per_instance": ("calls each", 1),
    "instances": ("instances", 1),
    "rest_bytes": ("at rest MiB", MIB),
    "worker_rest_bytes": ("a worker at rest MiB", MIB),
    "idle_bytes_each": ("KiB per idle association", KIB),
    "peak_bytes": ("peak MiB", MIB),
    "growth_bytes": ("over rest MiB", MIB),
    "processes": ("processes", 1),
    "threads": ("threads", 1),
}
RUN = ("rate", "mb_per_s", "cpu_us_per_instance", "cpu_s_per_gb")
RESPONSE = ("response_p50_us", "response_p99_us", "response_max_us")
LATENCY = ("latency_p50_us", "latency_p99_us", "latency_max_us")
TABLES: dict[str, tuple[str, ...]] = {
    "matrix": (*RUN, *RESPONSE, "rest_bytes", "peak_bytes"),
    "matrix sender": (*RUN, "sender_cpu_us_per_instance", "rest_bytes", "peak_bytes"),
    "arrival": ("rate", *LATENCY, "cpu_us_per_instance"),
    "targets floor": (*RUN, "peak_bytes"),
    "targets untuned": RUN,
    "targets large objects": ("mb_per_s", "rest_bytes", "peak_bytes", "growth_bytes"),
    "targets echo": ("cpu_us_per_association", "rate", "associate_p50_us", "echo_p50_us"),
    "send": ("rate", "mb_per_s", "sender_cpu_us_per_instance", "cpu_us_per_instance"),
    "growth": (*RUN, "response_p99_us", "peak_bytes"),
    "associations": ("rate", "cpu_us_per_instance", "cpu_us_per_association", *RESPONSE),
    "fair equal": ("slowest_over_fastest", "rate", *RESPONSE),
    "fair C-ECHO in floods": ("rate", "echo_p50_us", "echo_p99_us", "echo_max_us"),
    "fair 34 KB in floods": ("rate", *RESPONSE),
    "beside": ("rate", *RESPONSE, "big_mb_per_s", "cpu_s_per_gb"),
    "crowd good sender": ("rate", *RESPONSE, "echo_p50_us", "echo_p99_us", "echo_max_us"),
    "tls instances": ("cpu_us_per_instance", "cpu_s_per_gb", "peak_bytes"),
    "tls handshakes": ("rate", "cpu_us_per_handshake"),
    "tls idle": ("idle_bytes_each",),
    "soak spans": (
        *("sync_p50_us", "sync_p99_us", "sync_max_us"),
        *("async_p50_us", "async_p99_us", "async_max_us"),
        *("scrape_p50_us", "scrape_max_us"),
    ),
    "soak memory": ("rest_bytes", "early_bytes", "late_bytes", "slope_bytes", "rss_slope_bytes"),
    "soak": ("instances", "logged"),
    "rules": (
        "cpu_us_per_association",
        "rate",
        "associate_p50_us",
        "rest_bytes",
        "worker_rest_bytes",
    ),
    "flush": ("flushes_per_instance", "rate"),
    "calls": ("calls_per_instance",),
}
HEADINGS = {
    "matrix": "Matrix: one base point, varied in one dimension at a time",
    "arrival": "Fixed arrival plan: latency counts from when an instance was due",
    "targets": "Targets",
    "send": "Sending",
    "growth": "Growth",
    "associations": "The same instances over few and many associations",
    "idle": "Memory at rest and of idle associations",
    "fair": "Fairness",
    "beside": "Small instances beside a large one; one worker",
    "crowd": "A good sender in a crowd",
    "tls": "TLS: instances, handshakes and associations that wait; one worker",
    "rules": "Rules: associate, C-ECHO, release with tables of each kind",
    "soak": "Even work for long, with the metrics asked for each second in every second span",
    "flush": "Flushes per instance",
    "calls": "System calls per instance (strace -c)",
}
NOTHING = "–"  # noqa: RUF001  (a table's empty cell)
DETAILED = ("flush", "calls")


def number(value: float) -> str:
    """Three digits that matter, thousands grouped."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def shown(figure: Mapping[str, Any], unit: float = 1) -> str:
    """Median, and the spread if there was more than one round."""
    median = number(figure["median"] / unit)
    if len(figure["rounds"]) < 2:
        return median
    return f"{median} ({number(figure['least'] / unit)}..{number(figure['most'] / unit)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(word.replace('|', '/') for word in row)} |" for row in rows]
    return [*lines, ""]


def markdown(document: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """The whole document. plots: names of files beside it."""
    lines = ["# Benchmark", ""]
    lines += _about(document)
    lines += [f"![{name.partition('.')[0]}]({name})" for name in plots] + [""] * bool(plots)
    for scenario, heading in HEADINGS.items():
        cells = [cell for cell in document["cells"] if cell["scenario"] == scenario]
        ratios = [ratio for ratio in document["ratios"] if ratio["scenario"] == scenario]
        if cells:
            lines += [f"## {heading}", ""]
            if ratios:
                lines += _ratios(ratios)
            for name in dict.fromkeys(cell["table"] for cell in cells):
                # The base point is on every line that leads away from it.
                wanted = (name, "base") if scenario == "matrix" else (name,)
                chosen = [cell for cell in cells if cell["table"] in wanted]
                lines += _cells(scenario, name, chosen)
    lines += _model(document)
    return "\n".join(lines)


def _about(document: Mapping[str, Any]) -> list[str]:
    machine, options = document["machine"], document["options"]
    rows = [("made", document["made"])]
    rows += [(name.replace("_", " "), str(value)) for name, value in machine.items()]
    rows += [("accounting of CPU time", document["accounting"])]
    rows += [(name, version) for name, version in document["senders"].items()]
    rows += [("data sets", ", ".join(f"{k}: {v:,} bytes" for k, v in document["sizes"].items()))]
    rows += [(name.replace("_", " "), json.dumps(value)) for name, value in options.items()]
    lines = table(("", ""), rows)
    lines += ["## Receivers", ""]
    head = ("name", "what", "version", "on stable storage at 0000", "shape", "compared", "command")
    lines += table(
        head,
        (
            (name, one["label"], one["version"], one["durability"], one["shape"],
             one["compared"], f"`{one['command']}`")
            for name, one in document["receivers"].items()
        ),
    )  # fmt: skip
    lines += [f"Absent: {name} ({reason})." for name, reason in document["absent"].items()]
    return [*lines, ""]


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [one["what"], COLUMNS[one["figure"]][0], shown(one), str(len(one["rounds"]))]
        for one in ratios
    ]
    head = ["ratio", "of", "median of rounds", "rounds"]
    if any("verdict" in one for one in ratios):
        head += ["95 % interval of the median", "verdict"]
        rows = [[*row, *_judged(one)] for row, one in zip(rows, ratios, strict=True)]
    return table(head, rows)


def _judged(ratio: Mapping[str, Any]) -> tuple[str, str]:
    if ratio.get("low") is None:
        return NOTHING, ratio.get("verdict", NOTHING)
    return f"{ratio['low']:.3f}..{ratio['high']:.3f}", ratio["verdict"]


def _cells(scenario: str, name: str, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of one kind of cells: coordinates, receiver, figures; then what there is to say."""
    wanted = TABLES.get(f"{scenario} {name}", TABLES.get(scenario, tuple(COLUMNS)))
    columns = [one for one in wanted if any(one in cell["figures"] for cell in cells)]
    places = list(dict.fromkeys(place for cell in cells for place in cell["point"]))
    # What is the same in all rows is said once.
    varied = [p for p in places if len({str(cell["point"].get(p)) for cell in cells}) > 1]
    same = [f"{p} {cells[0]['point'].get(p)}" for p in places if p not in varied]
    head = [*varied, "receiver", *(COLUMNS[one][0] for one in columns)]
    checks = any("same_bytes" in cell["figures"] for cell in cells)
    head += ["verified"] * checks + ["of which"] * (scenario in DETAILED)
    rows, notes = [], list[str]()
    for cell in cells:
        row = [str(cell["point"].get(place, "")) for place in varied]
        row += [cell["receiver"] + " \\*" * bool(cell["note"] or cell["error"])]
        row += [_column(cell, one) for one in columns]
        row += [_check(cell["figures"])] * checks
        row += [_details(cell["figures"])] * (scenario in DETAILED)
        rows.append(row)
        for said in (cell["note"], cell["error"]):
            if said:
                where = "".join(f", {place} {cell['point'].get(place)}" for place in varied)
                notes.append(f"- {cell['receiver']}{where}: {said}")
    lines = [f"### {name[:1].upper()}{name[1:]}", ""]
    lines += [", ".join(same), ""] if same else []
    lines += table(head, rows)
    return [*lines, *dict.fromkeys(notes), *[""] * bool(notes)]


def _column(cell: Mapping[str, Any], name: str) -> str:
    figure = cell["figures"].get(name)
    return NOTHING if figure is None else shown(figure, COLUMNS[name][1])


def _check(figures: Mapping[str, Any]) -> str:
    if "same_bytes" not in figures:
        return NOTHING
    by_value = figures["same_values"]["median"]
    count = figures["same_bytes"]["median"] + by_value
    return f"{count:,.0f}" + (f", {by_value:,.0f} by value" if by_value else "")


def _details(figures: Mapping[str, Any]) -> str:
    hidden = {*COLUMNS, "same_bytes", "same_values"}
    return ", ".join(
        f"{name} {number(one['median'])}" for name, one in figures.items() if name not in hidden
    )


def _model(document: Mapping[str, Any]) -> list[str]:
    """What links would need of a machine, from our own measured costs."""
    sizes: Mapping[str, int] = document["sizes"]
    measured = {
        (cell["receiver"], cell["point"]["workload"]): cell["figures"]["cpu_us_per_instance"]
        for cell in document["cells"]
        if cell["scenario"] == "matrix"
        and cell["table"] in ("base", "size", "mix")
        and cell["receiver"] in ("fastscp", "fastscp-buffered")
        and "cpu_us_per_instance" in cell["figures"]
    }
    host = Host()
    rows = []
    for (receiver, workload), figure in measured.items():
        need = Need(sizes[workload], figure["median"])
        for link, bytes_per_s in LINKS.items():
            stable = receiver == "fastscp"
            part, rate = need.binds_first(bytes_per_s, host, flushed=stable)
            flight = number(need.outstanding(bytes_per_s, host.cycle_s)) if stable else NOTHING
            rows.append(
                (receiver, workload, link, number(need.instances_per_s(bytes_per_s)),
                 number(need.cores(bytes_per_s)), flight, part, number(rate))
            )  # fmt: skip
    if not rows:
        return []
    said = (
        f"From the CPU time above, for a machine with {host.cores} such cores, a disk of"
        f" {host.disk_bytes_per_s / 1e9:g} GB/s, {host.cycle_s * 1e3:g} ms per group of flushes and"
        f" {host.outstanding} instances in flight. bench/README.md has the formulas."
    )
    head = ["receiver", "data sets", "link", "to fill it, per s", "cores", "in flight"]
    head += ["first limit", "per s at that"]
    return ["## Model (computed, not measured)", "", said, "", *table(head, rows)]


def write(document: Mapping[str, Any], into: Path) -> list[Path]:
    """Write results.md and, with matplotlib, the plots; gives the files."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        from bench import plots
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        drawn = []
    else:
        drawn = plots.draw(document, into)
    page = into / "results.md"
    page.write_text(markdown(document, [path.name for path in drawn]))
    return [page, *drawn]

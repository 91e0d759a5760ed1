"""Scenarios of how far a receiver goes: growing stores, many associations, fairness, flushes."""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from bench import senders, trace
from bench.measure import (
    ERRORS,
    RUN_TAG,
    SETTLE_S,
    Bench,
    Point,
    figures,
    measured,
    verified,
    warm_up,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.receiver import Receiver
    from bench.results import Cell
    from bench.senders import Sending
    from bench.workloads import Workload

GROWING = ("fastscp", "fastscp-buffered", "storescp-best", "floor")
GROWTH_STEPS = 20
GROWING_OVER = 2
# Few, many; the most of them cost what the many do, or the receiver has something that grows.
ASSOCIATIONS = (1, 2, 8, 64, 256, 1000)
QUICK_ASSOCIATIONS = (1, 8, 64)
MANY, MOST = -3, -1
# At most, for each number of associations.
OVER_ALL = 200_000
FAIR_ASSOCIATIONS = (8, 64)
# Of tiny requests, over so many associations; `nothing` is what the others are compared with.
FLOODS = ("nothing", "echo", "unknown", "refused", "mixture")
FLOODING = 10
FLOODED = ("fastscp", "fastscp-buffered", "storescp-best", "floor")
TRACED_INSTANCES = 2000
FLUSH_POINTS = (Point(associations=1), Point(associations=8), Point(associations=64),
                Point(associations=1, window=16))  # fmt: skip


def unlimited(receiver: Receiver) -> tuple[str, ...]:
    """Flags to take any number of associations: ours takes 1,000 at its defaults."""
    flag = "--max-associations"
    ours = receiver.has_workers and flag not in receiver.command_line()
    return (flag, "0") if ours else ()


# --- growth ---


def growth(bench: Bench) -> None:
    """Rate and cost from the first to the last instance of one store."""
    _grow(bench)


def _grow(bench: Bench) -> None:
    """Fill one store of each receiver in steps, a cell each; as often as there are rounds."""
    steps = 4 if bench.quick else GROWTH_STEPS
    count = (1000 if bench.quick else bench.instances) // steps // GROWING_OVER
    made = [
        (
            receiver,
            [
                bench.results.cell(
                    "growth",
                    "instances",
                    receiver.name,
                    {"workload": "3KB", "stored": (step + 1) * count * GROWING_OVER},
                )
                for step in range(steps)
            ],
        )
        for receiver in bench.chosen(*GROWING)
    ]
    for receiver, cells in bench.turns(made):
        if cells[0].error:
            continue
        try:
            _fill(bench, receiver, count, cells)
        except ERRORS as error:
            for cell in cells:
                cell.error = str(error) or type(error).__name__
            bench.say(f"growth: {receiver.name}: {cells[0].error}")
        bench.results.save()
    # A quarter, for a single step takes a few seconds, and the machine has moods that last longer.
    quarter = steps // 4
    for receiver, cells in made:
        for name in ("rate", "cpu_us_per_instance"):
            what = f"{receiver.name}: last quarter of {cells[-1].point['stored']} to first"
            bench.results.ratio(what, name, cells[-quarter:], cells[:quarter])
    bench.results.save()


def _fill(bench: Bench, receiver: Receiver, count: int, cells: Sequence[Cell]) -> None:
    workload = bench.material.workload("3KB")
    with bench.new_folder() as folder:
        with receiver.run(folder) as running:
            books = running.accounting
            rest = books.memory()
            sendings = [warm_up(bench, running, workload)]
            for tag, cell in enumerate(cells, start=int(RUN_TAG)):
                before = books.cpu_us()
                with books.sampled(1.0) as peak:
                    sending = senders.load(
                        running.port, workload, str(tag), associations=GROWING_OVER, count=count
                    )
                used = books.cpu_us() - before
                cell.rounds.append(figures(sending, used, rest, peak.memory))
                sendings.append(sending)
                rate = sending.instances / sending.seconds
                bench.say(f"growth: {receiver.name}: {cell.point['stored']}: {rate:.0f}/s")
        cells[-1].rounds[-1] |= verified(running, sendings)


# --- associations ---


def associations(bench: Bench) -> None:
    """The same number of instances over one association up to a thousand.

    What it costs to open and release so many is measured apart, and not in the cost of an instance.
    """
    numbers = QUICK_ASSOCIATIONS if bench.quick else ASSOCIATIONS
    for receiver in bench.receivers:
        if receiver.associations is not None or not receiver.stores:
            continue
        for size in [size for size in ("3KB", "34KB") if size in bench.sizes]:
            workload = bench.material.workload(size)
            most = min(OVER_ALL, bench.instances, bench.budget // workload.size)
            total = 2000 if bench.quick else most
            made = []
            for number in numbers:
                point = {"workload": size, "associations": number}
                cell = bench.results.cell("associations", "over", receiver.name, point)
                made.append((cell, _over_run(bench, receiver, workload, number, total)))
            bench.alternate(made)
            what = f"{receiver.name}, {size}: {numbers[MOST]} associations to {numbers[MANY]}"
            for figure in ("cpu_us_per_instance", "rate"):
                bench.results.ratio(what, figure, made[MOST][0], made[MANY][0])
    bench.results.save()


def _over_run(
    bench: Bench, receiver: Receiver, workload: Workload, associations: int, total: int
) -> Callable[[], dict[str, float]]:
    count = max(1, total // associations)

    def run() -> dict[str, float]:
        flags = unlimited(receiver)
        with bench.new_folder() as folder:
            with receiver.run(folder, *flags) as running:
                books = running.accounting
                warm = warm_up(bench, running, workload)
                marks = [books.cpu_us()]
                with senders.idle_associations(running.port, associations):
                    pass
                time.sleep(SETTLE_S)
                marks.append(books.cpu_us())
                sending = senders.load(
                    running.port, workload, RUN_TAG, associations=associations, count=count
                )
                time.sleep(SETTLE_S)
                marks.append(books.cpu_us())
            opening, all_of_it = (after - before for before, after in pairwise(marks))
            return {
                "rate": sending.instances / sending.seconds,
                "cpu_us_per_instance": (all_of_it - opening) / sending.instances,
                "cpu_us_per_association": opening / associations,
                **sending.figures,
                **verified(running, [warm, sending]),
            }

    return run


# --- idle ---


def idle(bench: Bench) -> None:
    """Memory of every receiver at rest, and of associations that do nothing."""
    for receiver in bench.receivers:
        count = min(bench.idle, receiver.associations or bench.idle)
        point = {"associations": count}
        cell = bench.results.cell("idle", "memory", receiver.name, point)
        bench.alternate([(cell, idle_run(bench, receiver, count))])


def idle_run(bench: Bench, receiver: Receiver, count: int) -> Callable[[], dict[str, float]]:
    """So many associations, opened, looked at and released.

    What the first association brings in for good does not count as an idle one's.
    """

    def run() -> dict[str, float]:
        flags = unlimited(receiver)
        with bench.new_folder() as folder, receiver.run(folder, *flags) as running:
            books = running.accounting
            rest = books.memory()
            warm_up(bench, running, bench.material.workload("3KB"))
            time.sleep(SETTLE_S)
            warm = books.memory()
            with senders.idle_associations(running.port, count):
                time.sleep(SETTLE_S)
                held, processes, threads = books.memory(), len(books.pids()), books.threads()
        return {
            "rest_bytes": rest.pss,
            "idle_bytes_each": (held.pss - warm.pss) / count,
            "idle_bytes": held.pss,
            "processes": processes,
            "threads": threads,
        }

    return run


# --- fair ---


def fair(bench: Bench) -> None:
    """Equal associations; C-ECHOs and instances in floods, all through one worker."""
    for associations in FAIR_ASSOCIATIONS[: 1 if bench.quick else None]:
        cells = []
        for receiver in bench.receivers:
            if receiver.associations is None or receiver.associations >= associations:
                point = {"workload": "34KB", "associations": associations}
                cell = bench.results.cell("fair", "equal", receiver.name, point)
                cells.append((cell, _equal_run(bench, receiver, associations)))
        bench.alternate(cells)
    _in_floods(bench)


def _equal_run(
    bench: Bench, receiver: Receiver, associations: int
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload("34KB")

    def run(port: int, _: Sending) -> Sending:
        return senders.load(
            port, workload, RUN_TAG, associations=associations, fair=max(1.0, bench.seconds)
        )

    return lambda: measured(bench, receiver, workload, run)


def _in_floods(bench: Bench) -> None:
    """C-ECHOs, then instances, of an honest peer beside ten that flood the same worker."""
    for what, run in (("C-ECHO in floods", _pings_run), ("34 KB in floods", _flooded_run)):
        bench.alternate(
            [
                (
                    bench.results.cell("fair", what, receiver.name, {"flood": kind}),
                    run(bench, receiver, kind),
                )
                for kind in FLOODS
                for receiver in bench.chosen(*FLOODED)
            ]
        )


def _flood(port: int, kind: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if kind == "nothing" else senders.flood(port, kind, FLOODING)


def _pings_run(bench: Bench, receiver: Receiver, kind: str) -> Callable[[], dict[str, float]]:
    workers = 1 if receiver.has_workers else None

    def run() -> dict[str, float]:
        with bench.new_folder() as folder, receiver.run(folder, workers=workers) as running:
            senders.pings(running.port, 0.2)
            with _flood(running.port, kind):
                return senders.pings(running.port, bench.seconds)

    return run


def _flooded_run(bench: Bench, receiver: Receiver, kind: str) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload("34KB")
    workers = 1 if receiver.has_workers else None

    def run(port: int, _: Sending) -> Sending:
        with _flood(port, kind):
            return senders.load(port, workload, RUN_TAG, fair=bench.seconds)

    return lambda: measured(bench, receiver, workload, run, workers=workers)


# --- flush and calls ---


def flush(bench: Bench) -> None:
    """Flushes per instance, on the disk; only flushes are traced, all else is at full speed."""
    for point in FLUSH_POINTS[: 1 if bench.quick else None]:
        for receiver in bench.receivers:
            if receiver.stores:
                served = point.served_by(receiver)
                where = {"associations": served.associations, "window": served.window}
                cell = bench.results.cell("flush", "per instance", receiver.name, where)
                bench.alternate([(cell, _flush_run(bench, receiver, served))])


def _traced_count(bench: Bench, associations: int) -> int:
    return max(2, (TRACED_INSTANCES // (20 if bench.quick else 1)) // associations)


def _flush_run(bench: Bench, receiver: Receiver, point: Point) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(point.workload)

    def run() -> dict[str, float]:
        with bench.new_folder(disk=True) as folder:
            folder.mkdir(parents=True)
            log = folder / "strace"
            with receiver.run(folder, before=trace.flush_trace(log)) as running:
                warm = warm_up(bench, running, workload)
                time.sleep(SETTLE_S)
                began = time.time()
                sending = senders.load(
                    running.port,
                    workload,
                    RUN_TAG,
                    associations=point.associations,
                    window=point.window,
                    count=_traced_count(bench, point.associations),
                )
                time.sleep(SETTLE_S)
                ended = time.time()
            found = trace.flushes_in(log.read_text(), began, ended)
            made = {name: found[name] / sending.instances for name in sorted(found)}
            total = sum(found.values()) / sending.instances
            rate = sending.instances / sending.seconds
            kept = verified(running, [warm, sending])
            return {"flushes_per_instance": total, **made, "rate": rate, **kept}

    return run


def calls(bench: Bench) -> None:
    """System calls per instance, counted by `strace -c`."""
    for size in [size for size in ("3KB", "34KB", "525KB") if size in bench.sizes]:
        for receiver in bench.receivers:
            served = Point(associations=1, workload=size)
            cell = bench.results.cell("calls", "per instance", receiver.name, {"workload": size})
            bench.alternate([(cell, _calls_run(bench, receiver, served))])


def _calls_run(bench: Bench, receiver: Receiver, point: Point) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(point.workload)

    def run() -> dict[str, float]:
        with bench.new_folder() as folder:
            with receiver.run(folder) as running:
                warm = warm_up(bench, running, workload)
                time.sleep(SETTLE_S)
                with trace.counted(running.accounting, folder / "strace") as found:
                    count = _traced_count(bench, 4)
                    sending = senders.load(running.port, workload, RUN_TAG, count=count)
                    time.sleep(SETTLE_S)
            kept = verified(running, [warm, sending])
        made = {name: n / sending.instances for name, n in found.most_common(12)}
        return {"calls_per_instance": sum(found.values()) / sending.instances, **made, **kept}

    return run

"""What is measured: every scenario, by name; here the matrix and the fixed arrival plan.

The full product of receivers, senders, sizes, associations, PDU lengths and windows would take
days: the matrix is one base point, varied in one dimension at a time, and a mix.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bench import senders
from bench.measure import PATIENCE, RUN_TAG, Bench, Point, load_run, measured
from bench.scenarios_beside import beside
from bench.scenarios_crowd import crowd
from bench.scenarios_limits import associations, calls, fair, flush, growth, idle
from bench.scenarios_pairs import send, targets
from bench.scenarios_rules import rules
from bench.scenarios_soak import soak
from bench.scenarios_tls import tls
from bench.senders import FILE_SENDERS, UNTUNED, FileSender, SendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.receiver import Receiver
    from bench.results import Cell
    from bench.senders import Sending

BASE = Point()
# Whose CPU time is 1 where sizes are compared.
TO = "storescp-best"
ASSOCIATIONS = (1, 8, 64)
RATES = (100, 500, 1000, 2000)
ARRIVING_OVER = 8


def matrix(bench: Bench) -> None:
    """The base point, varied in one dimension at a time, and the mix."""
    sizes(bench)
    points = []
    if bench.quick:
        points += [("associations", dataclasses.replace(BASE, associations=8))]
    else:
        points += [
            ("associations", dataclasses.replace(BASE, associations=n)) for n in ASSOCIATIONS
        ]
        points += [("PDU length", dataclasses.replace(BASE, pdu=16384))]
    points += [("window", dataclasses.replace(BASE, window=16))]
    points += [("mix", dataclasses.replace(BASE, workload="mix"))] * (not bench.quick)
    for table, point in points:
        if point != BASE:
            _matrix_cells(bench, table, point)
    for sender in FILE_SENDERS:
        _sender_cells(bench, sender)


def sizes(bench: Bench) -> None:
    """The base point with each size: these cells of the matrix alone, beside storescp's best."""
    for size in dict.fromkeys([BASE.workload, *bench.sizes]):
        point = dataclasses.replace(BASE, workload=size)
        cells = _matrix_cells(bench, "base" if point == BASE else "size", point)
        for name, cell in cells.items():
            if name != TO and TO in cells:
                bench.results.ratio(
                    f"{size}: {name} to {TO}", "cpu_us_per_instance", cell, cells[TO]
                )


def _matrix_cells(bench: Bench, table: str, point: Point) -> dict[str, Cell]:
    """By the receivers' names."""
    cells = []
    for receiver in bench.receivers:
        served = point.served_by(receiver)
        # Of which associations the reader asked is the row's; how many there were, the cell's.
        note = _fewer(point, served)
        cell = bench.results.cell("matrix", table, receiver.name, dataclasses.asdict(point), note)
        cells.append((cell, load_run(bench, receiver, served)))
    bench.alternate(cells)
    return {cell.receiver: cell for cell, _ in cells}


def _fewer(asked: Point, served: Point) -> str:
    if asked == served:
        return ""
    return f"serves {served.associations} at a time; measured with so many"


def _sender_cells(bench: Bench, sender: FileSender) -> None:
    """The base point with a program that sends files.

    A receiver that serves one association at a time lets the second sender wait. Where Nagle's
    algorithm meets delayed acknowledgements, an instance takes 40 ms: a tenth of the files goes to
    receivers that were slow in the warm-up, and from untuned senders to all.
    """
    workload = bench.material.workload(BASE.workload)
    many, few = (
        bench.material.files(BASE.workload, count, BASE.associations)
        for count in ((200, 20) if bench.quick else (2000, 200))
    )
    point = dataclasses.asdict(dataclasses.replace(BASE, sender=sender.name))

    def send_some(port: int, warm: Sending) -> Sending:
        expected_s = many.count * warm.seconds / warm.instances
        slow = sender is UNTUNED or expected_s > PATIENCE * bench.seconds
        return sender.send(port, few if slow else many)

    def run(receiver: Receiver) -> Callable[[], dict[str, float]]:
        return lambda: measured(bench, receiver, workload, send_some)

    bench.alternate(
        [
            (bench.results.cell("matrix", "sender", receiver.name, point), run(receiver))
            for receiver in bench.receivers
        ]
    )
    bench.material.drop(many)
    bench.material.drop(few)


def arrival(bench: Bench) -> None:
    """Instances that are due at fixed times, whether the receiver keeps up or not."""
    for rate in RATES[:1] if bench.quick else RATES:
        cells = []
        for receiver in bench.receivers:
            over = Point(associations=ARRIVING_OVER).served_by(receiver).associations
            point = {"workload": BASE.workload, "associations": ARRIVING_OVER, "planned": rate}
            cell = bench.results.cell("arrival", "latency", receiver.name, point)
            if over < ARRIVING_OVER:
                cell.note = f"serves {over} at a time; measured with so many"
            cells.append((cell, _arrival_run(bench, receiver, rate, over)))
        bench.alternate(cells)


def _arrival_run(
    bench: Bench, receiver: Receiver, rate: int, associations: int
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(BASE.workload)
    count = max(1, int(rate * bench.seconds) // associations)

    def arrive(port: int, warm: Sending) -> Sending:
        expected_s = count * warm.seconds / warm.instances
        if expected_s > PATIENCE * bench.seconds:
            reached = warm.instances / warm.seconds
            raise SendError(f"not tried: the warm-up came to {reached:.0f}/s per association")
        return senders.load(
            port, workload, RUN_TAG, associations=associations, count=count, rate=rate
        )

    return lambda: measured(bench, receiver, workload, arrive)


SCENARIOS: dict[str, Callable[[Bench], None]] = {
    "matrix": matrix,
    "sizes": sizes,
    "arrival": arrival,
    "targets": targets,
    "send": send,
    "growth": growth,
    "associations": associations,
    "idle": idle,
    "fair": fair,
    "beside": beside,
    "crowd": crowd,
    "tls": tls,
    "rules": rules,
    "soak": soak,
    "flush": flush,
    "calls": calls,
}
# Scenarios that are a part of another one.
PARTS = {"sizes": "matrix"}


def named(names: Sequence[str]) -> list[str]:
    """What runs for the names, of which one may be `all`: nothing twice."""
    wanted = list(SCENARIOS) if "all" in names else names
    return [name for name in wanted if PARTS.get(name) not in wanted]

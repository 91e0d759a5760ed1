"""What a small instance waits for beside a large one, and the large one for the small ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import senders
from bench.measure import RUN_TAG, Bench, measured

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.receiver import Receiver
    from bench.results import Cell
    from bench.senders import Sending

SMALL, LARGE, QUICK_LARGE, NOTHING = "34KB", "400MB", "100MB", "nothing"
TABLE = "beside a large one"


def beside(bench: Bench) -> None:
    """Small instances over one association, a large one over another, and both at a time.

    Where there are workers all goes through one. The small sender has one outstanding, and sends
    until the large one is answered.
    """
    large = QUICK_LARGE if bench.quick else LARGE
    made = {
        receiver.name: {
            (small, big): (_cell(bench, receiver, small, big), _run(bench, receiver, small, big))
            for small, big in ((SMALL, NOTHING), (SMALL, large), (NOTHING, large))
        }
        for receiver in bench.receivers
        # One that takes a single association at a time has nothing beside it.
        if receiver.associations != 1
    }
    bench.alternate([pair for cells in made.values() for pair in cells.values()])
    for name, cells in made.items():
        both, alone, big_alone = (
            cells[point][0] for point in ((SMALL, large), (SMALL, NOTHING), (NOTHING, large))
        )
        for figure in ("response_p50_us", "response_p99_us"):
            bench.results.ratio(f"{name}: small beside {large} to alone", figure, both, alone)
        what = f"{name}: {large} beside small ones to alone"
        bench.results.ratio(what, "big_mb_per_s", both, big_alone)
    _against_first(bench, made, large)
    bench.results.save()


def _cell(bench: Bench, receiver: Receiver, small: str, big: str) -> Cell:
    point = {"workload": small, "associations": 1, "beside": big}
    return bench.results.cell("beside", TABLE, receiver.name, point)


def _against_first(
    bench: Bench,
    made: dict[str, dict[tuple[str, str], tuple[Cell, Callable[[], dict[str, float]]]]],
    large: str,
) -> None:
    """Every other receiver to the first one: a change is measured by what was before it."""
    first, *others = made
    for name in others:
        for point, figures in (
            ((SMALL, large), ("response_p50_us", "response_p99_us", "big_mb_per_s")),
            ((SMALL, NOTHING), ("response_p50_us", "rate")),
            ((NOTHING, large), ("big_mb_per_s", "cpu_s_per_gb")),
        ):
            what = f"{name} to {first}: {point[0]} beside {point[1]}"
            for figure in figures:
                bench.results.ratio(what, figure, made[name][point][0], made[first][point][0])


def _run(
    bench: Bench, receiver: Receiver, small: str, large: str
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(SMALL)
    big = None if large == NOTHING else bench.material.workload(large)
    associations = 0 if small == NOTHING else 1

    def run(port: int, warm: Sending) -> Sending:
        # With a large one: until it is through.
        count = bench.count(workload.size, warm, 1) if big is None else 0
        return senders.load(
            port, workload, RUN_TAG, big=big, associations=associations, count=count
        )

    workers = 1 if receiver.has_workers else None
    return lambda: measured(bench, receiver, workload, run, workers=workers)

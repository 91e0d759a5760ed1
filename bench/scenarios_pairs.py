"""Scenarios whose figures are ratios: the receiver against the floor, one sender against another.

Rounds alternate, and a ratio is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from bench import senders
from bench.measure import RUN_TAG, SETTLE_S, Bench, measured
from bench.receivers import receivers
from bench.scenarios_limits import idle_run, unlimited
from bench.senders import FASTSCP, STORESCU, UNTUNED, FileSender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.receiver import Receiver
    from bench.results import Cell
    from bench.workloads import Files

SIZES = ("3KB", "34KB", "525KB")
OURS = "fastscp-buffered"
TARGET_COUNTS = {"3KB": 20_000, "34KB": 10_000, "525KB": 1500}
SEND_COUNTS = {"3KB": 60_000, "34KB": 30_000, "525KB": 4000}
# An untuned sender gets some ten instances a second into other receivers, thousands into ours.
UNTUNED_COUNT, UNTUNED_COUNT_OURS = 300, 20_000
ECHOES = 2000
LARGE, LARGE_AT_ONCE, LARGE_EACH = "100MB", 4, 2


def _counts(bench: Bench, own: Mapping[str, int]) -> dict[str, int]:
    """How many files of each size there are to be."""
    if bench.quick:
        own = {name: count // 100 for name, count in own.items()}
    return {name: bench.counts.get(name, own[name]) for name in SIZES if name in bench.sizes}


def _file_run(
    bench: Bench,
    receiver: Receiver,
    sender: FileSender,
    size: str,
    files: Files,
    *,
    window: int = 1,
    workers: int | None = None,
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(size)
    return lambda: measured(
        bench,
        receiver,
        workload,
        lambda port, _: sender.send(port, files, window),
        workers=workers,
    )


# --- targets ---


def targets(bench: Bench) -> None:
    """Our buffered receiver at its defaults against the floor, and in what it is to be good at."""
    for size, count in _counts(bench, TARGET_COUNTS).items():
        _against_floor(bench, size, count)
    if bench.chosen(OURS):
        _untuned(bench, "34KB")
    _memory_and_echo(bench)


def _ours(bench: Bench) -> list[str]:
    """The names of our buffered receiver and of the variants."""
    others = {one.name for one in receivers()} - {OURS}
    return [one.name for one in bench.receivers if one.name not in others]


def _against_floor(bench: Bench, size: str, count: int) -> None:
    files = bench.material.files(size, count, 2)
    point = {"workload": size, "associations": 2, "sender": STORESCU.name}
    made: dict[str, tuple[Cell, Callable[[], dict[str, float]]]] = {}
    ours = _ours(bench)
    for receiver in bench.chosen(*ours, "floor", "storescp-best"):
        cell = bench.results.cell("targets", "floor", receiver.name, point)
        made[receiver.name] = cell, _file_run(bench, receiver, STORESCU, size, files)
    bench.alternate(list(made.values()))
    bench.material.drop(files)
    # The last one shows whether the floor is one.
    for one, other in itertools.product((*ours, "floor"), ("floor", "storescp-best")):
        if one == other:
            continue
        if one in made and other in made:
            for name in ("cpu_us_per_instance", "rate"):
                what = f"{size}: {one} to {other}"
                bench.results.ratio(what, name, made[one][0], made[other][0])
    bench.results.save()


def _untuned(bench: Bench, size: str) -> None:
    """What a sender that nobody tuned gets, at the rate of one that was."""
    part = 10 if bench.quick else 1
    few = bench.material.files(size, UNTUNED_COUNT // part, 2)
    many = bench.material.files(size, UNTUNED_COUNT_OURS // part, 2)
    made: dict[tuple[str, str], tuple[Cell, Callable[[], dict[str, float]]]] = {}
    for receiver in bench.chosen(OURS, "storescp", "storescp-best"):
        ours = receiver.name == OURS
        for sender in (UNTUNED, STORESCU) if ours else (UNTUNED,):
            point = {"workload": size, "associations": 2, "sender": sender.name}
            cell = bench.results.cell("targets", "untuned", receiver.name, point)
            run = _file_run(bench, receiver, sender, size, many if ours else few)
            made[receiver.name, sender.name] = cell, run
    bench.alternate(list(made.values()))
    bench.material.drop(few)
    bench.material.drop(many)
    into_ours = made.get((OURS, UNTUNED.name))
    for key, (cell, _) in made.items():
        if into_ours is not None and cell is not into_ours[0]:
            what = f"{size}: {UNTUNED.name} into {OURS} to {key[1]} into {key[0]}"
            bench.results.ratio(what, "rate", into_ours[0], cell)
    bench.results.save()


def _memory_and_echo(bench: Bench) -> None:
    for receiver in bench.chosen(OURS):
        large = f"{LARGE_AT_ONCE} of {LARGE} at once"
        for table, what, run in (
            ("large objects", large, _large_run(bench, receiver)),
            ("idle", f"{bench.idle} associations", idle_run(bench, receiver, bench.idle)),
            ("rest", "2 workers", _rest_run(bench, receiver)),
            ("echo", "associate, C-ECHO, release", _echo_run(bench, receiver)),
        ):
            cell = bench.results.cell("targets", table, receiver.name, {"what": what})
            bench.alternate([(cell, run)])


def _large_run(bench: Bench, receiver: Receiver) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(LARGE)
    # They pass in less time than the usual interval.
    return lambda: measured(
        bench,
        receiver,
        workload,
        lambda port, _: senders.load(
            port, workload, RUN_TAG, associations=LARGE_AT_ONCE, count=LARGE_EACH
        ),
        interval_s=0.01,
    )


def _rest_run(bench: Bench, receiver: Receiver) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        with bench.new_folder() as folder, receiver.run(folder, workers=2) as running:
            time.sleep(SETTLE_S)
            memory = running.accounting.memory()
            return {"rest_bytes": memory.pss, "rest_rss_bytes": memory.rss}

    return run


def _echo_run(bench: Bench, receiver: Receiver) -> Callable[[], dict[str, float]]:
    count = ECHOES // (20 if bench.quick else 1)

    def run() -> dict[str, float]:
        flags = unlimited(receiver)
        with bench.new_folder() as folder, receiver.run(folder, *flags) as running:
            senders.echoes(running.port, 50)
            before = running.accounting.cpu_us()
            took = senders.echoes(running.port, count)
            time.sleep(SETTLE_S)
            used = running.accounting.cpu_us() - before
        return {"cpu_us_per_association": used / count, **took}

    return run


# --- send ---


def send(bench: Bench) -> None:
    """`fastscp send` against storescu, into our buffered receiver with one worker.

    storescu has neither a window nor a second association: it is compared as it is with a window
    of ours, and one process for each association with associations of ours.
    """
    for size, count in _counts(bench, SEND_COUNTS).items():
        for associations, window in ((1, 1), (1, 16), (4, 1)):
            files = bench.material.files(size, count, associations)
            for receiver in bench.chosen(OURS):
                _pair(bench, receiver, size, files, window)
            bench.material.drop(files)


def _pair(bench: Bench, receiver: Receiver, size: str, files: Files, window: int) -> None:
    pair: dict[str, tuple[Cell, Callable[[], dict[str, float]]]] = {}
    associations = len(files.folders)
    for sender, own_window in ((FASTSCP, window), (STORESCU, 1)):
        point = {
            "workload": size,
            "associations": associations,
            "window": own_window,
            "sender": sender.name,
            "instances": files.count,
        }
        cell = bench.results.cell("send", "senders", receiver.name, point)
        run = _file_run(bench, receiver, sender, size, files, window=own_window, workers=1)
        pair[sender.name] = cell, run
    bench.alternate(list(pair.values()))
    what = f"{size}, {associations} associations, window {window}: fastscp send to storescu"
    for name in ("rate", "sender_cpu_us_per_instance"):
        bench.results.ratio(what, name, pair[FASTSCP.name][0], pair[STORESCU.name][0])
    bench.results.save()

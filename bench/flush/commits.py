"""What a commit costs on a disk: closed-loop senders with window 1, a fresh file system each run.

A run makes the file system, starts the receiver on it, warms it up, and lets every association send
for so many seconds. Rates and times are of these seconds. What the device did, and CPU time, are
counted until what is left for the background is done, too: SETTLE_S later.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench import senders
from bench.flush import disks
from bench.flush.run import ANY_SPACE, slow_library
from bench.measure import RUN_TAG, WARM_UP_TAG, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.flush.disks import Counted
    from bench.measure import Bench
    from bench.receiver import Receiver
    from bench.results import Cell
    from bench.senders import Sending

SCENARIO: Final = "commit"
# Slow ones by the kind of their file system; on the disk below; slow calls instead of a slow disk.
SLOW: Final = ("ext4", "xfs", "btrfs")
LOOPS: Final = {f"loop-{kind}": kind for kind in SLOW}
INTERPOSED: Final = "interposed"
DISKS: Final = (*SLOW, *LOOPS, INTERPOSED)
SIZES: Final = ("3KB", "34KB", "64KB", "128KB", "525KB")
# A checkpoint of the receiver's begins a second after what it is of.
SETTLE_S: Final = 1.5
WARM_UP: Final = 40


class Point(NamedTuple):
    """Where a cell is: its coordinates in the tables."""

    disk: str
    workload: str
    associations: int
    workers: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a receiver stores. environment: for it. counted: what the disk did; bytes where known.

    has_device: whether writes are counted, too.
    """

    point: Path
    counted: Callable[[], Counted]
    environment: dict[str, str]
    has_device: bool = True


class Places:
    """Makes the disks, each fresh. memory: for images of slow ones. below: for those on a disk."""

    def __init__(self, memory: Path, below: Path, delay_us: int) -> None:
        self._memory = memory
        self._below = below
        self._delay_us = delay_us
        self._undo = contextlib.ExitStack()
        self._image: Path | None = None

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @contextlib.contextmanager
    def make(self, disk: str) -> Iterator[Place]:
        """A new, empty disk of that name. Raises Absent."""
        if disk == INTERPOSED:
            with self._interposed() as place:
                yield place
        elif disk in LOOPS:
            if self._image is None:
                # Writing it takes seconds: once for all.
                self._image = self._undo.enter_context(disks.image(self._below))
            with disks.direct(LOOPS[disk], self._image, self._memory) as made:
                yield Place(made.point, made.counted, {})
        else:
            with disks.slow(disk, self._memory, self._delay_us) as made:
                yield Place(made.point, made.counted, {})

    @contextlib.contextmanager
    def _interposed(self) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="disk-", dir=self._memory) as name:
            folder = Path(name)
            shared = folder / "slow"
            environment = {
                "LD_PRELOAD": str(slow_library(folder)),
                "SLOW_FILE": str(shared),
                "SLOW_US": str(self._delay_us),
            }
            yield Place(folder, lambda: disks.interposed(shared), environment, has_device=False)


def commits(
    bench: Bench,
    places: Places,
    disks_: Sequence[str],
    associations: Sequence[int],
    workers: Sequence[int],
) -> None:
    """All points, each with all receivers in turns; every receiver but the first to the first."""
    for point in itertools.starmap(
        Point, itertools.product(disks_, bench.sizes, associations, workers)
    ):
        made: list[tuple[Cell, Callable[[], dict[str, float]]]] = []
        for receiver in bench.receivers:
            if receiver.associations is None or receiver.associations >= point.associations:
                cell = bench.results.cell(SCENARIO, point.disk, receiver.name, point._asdict())
                made.append((cell, _run(bench, places, receiver, point)))
        bench.alternate(made)
        for cell, _ in made[1:]:
            what = f"{' '.join(map(str, point))}: {cell.receiver} to {made[0][0].receiver}"
            for name in ("rate", "response_p99_us", "cpu_us_per_instance"):
                bench.results.ratio(what, name, cell, made[0][0])
        bench.results.save()


def _run(
    bench: Bench, places: Places, receiver: Receiver, point: Point
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload(point.workload)
    workers = point.workers if receiver.has_workers else None
    ours = receiver.has_workers and ANY_SPACE[0] not in receiver.command_line()
    flags = ANY_SPACE if ours else ()

    def send(port: int, tag: str, **options: float) -> Sending:
        return senders.load(port, workload, tag, None, associations=point.associations, **options)

    def run() -> dict[str, float]:
        with places.make(point.disk) as place:
            there = replace(receiver, environment={**receiver.environment, **place.environment})
            with there.run(place.point / "run", *flags, workers=workers) as running:
                few = max(2, WARM_UP // point.associations)
                warm = send(running.port, WARM_UP_TAG, count=few)
                time.sleep(SETTLE_S)
                before, cpu_us = place.counted(), running.accounting.cpu_us()
                sending = send(running.port, RUN_TAG, fair=bench.seconds)
                time.sleep(SETTLE_S)
                used = running.accounting.cpu_us() - cpu_us
                did = place.counted() - before
            return {**figures(sending, used, did, place), **verified(running, [warm, sending])}

    return run


def figures(sending: Sending, cpu_us: int, did: Counted, place: Place) -> dict[str, float]:
    """What one run came to, by the names of the tables."""
    count = sending.instances
    made = {
        "rate": count / sending.seconds,
        "response_p50_us": sending.figures["response_p50_us"],
        "response_p99_us": sending.figures["response_p99_us"],
        "cpu_us_per_instance": cpu_us / count,
        "device_flushes_per_instance": did.flushes / count,
    }
    if place.has_device:
        made["written_bytes_per_instance"] = did.written_bytes / count
    return made | {"instances": count, "seconds": sending.seconds}

"""One run: start a receiver, warm it up, send to it, count the cost, verify what it stored."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from bench import senders
from bench.instances import compare
from bench.programs import Absent
from bench.senders import SendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.accounting import Memory
    from bench.receiver import Receiver, Running, Word
    from bench.results import Cell, Results
    from bench.senders import Sending
    from bench.workloads import Material, Workload

_T = TypeVar("_T")

# What a receiver still does once the sender has gone: children that end, files that are closed.
SETTLE_S = 0.2
WARM_UP_TAG, RUN_TAG = "1", "2"
# What takes longer than so many times the time it should is not waited for.
PATIENCE = 10.0

ERRORS = (Absent, SendError, RuntimeError, OSError, subprocess.SubprocessError)


class NotAsSent(RuntimeError):  # noqa: N818  (a finding, not a failure)
    """What is stored is not what was sent; says how much of it."""


@dataclass(slots=True)
class Bench:
    """What all scenarios share.

    folder: where stores are made, and removed again. disk: the same, of those that are flushed.
    seconds: what a run should take about. budget: bytes of data sets sent in one at most.
    counts: instances of a run, for scenarios where all receivers get the same. minutes: of `soak`.
    """

    folder: Path
    disk: Path
    material: Material
    results: Results
    receivers: Sequence[Receiver]
    sizes: Sequence[str]
    rounds: int = 5
    seconds: float = 3.0
    budget: int = 1 << 30
    counts: dict[str, int] = field(default_factory=dict)
    instances: int = 1_000_000
    idle: int = 2000
    minutes: int = 30
    quick: bool = False
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def say(self, line: str) -> None:
        print(line, flush=True)

    @contextlib.contextmanager
    def new_folder(self, *, disk: bool = False) -> Iterator[Path]:
        """A folder for one run of a receiver."""
        folder = (self.disk if disk else self.folder) / f"run-{next(self._numbers)}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def chosen(self, *names: str) -> list[Receiver]:
        """Those of these names that are to be run."""
        return [receiver for receiver in self.receivers if receiver.name in names]

    def warm_up_count(self) -> int:
        return 10 if self.quick else 50

    def count(self, size: int, warm: Sending, associations: int) -> int:
        """Instances per association for a run of about `seconds`, within the budget.

        The estimate comes from the warm-up, over one association; a large one takes longer than it
        by what it has more bytes.
        """
        each_s = warm.seconds / warm.instances * max(1.0, size * warm.instances / warm.size)
        wanted = max(int(self.seconds / each_s), 4 * associations)
        return max(1, min(wanted, self.budget // size) // associations)

    def turns(self, compared: Sequence[_T]) -> Iterator[_T]:
        """What is compared, once in every round.

        Every second round goes backwards, so that nothing always runs after the same other one.
        """
        for number in range(self.rounds):
            yield from compared if number % 2 == 0 else reversed(compared)

    def alternate(self, cells: Sequence[tuple[Cell, Callable[[], dict[str, float]]]]) -> None:
        """Measure cells that are compared, in turns, and keep what came out.

        A cell that failed is not tried again.
        """
        for cell, run in self.turns(cells):
            if cell.error:
                continue
            where = ", ".join(str(value) for value in cell.point.values())
            head = f"{cell.scenario} {cell.table}: {where}: {cell.receiver}: "
            try:
                cell.rounds.append(run())
            except ERRORS as error:
                cell.error = str(error) or type(error).__name__
                self.say(head + cell.error)
            else:
                self.say(head + _short(cell.rounds[-1]))
        self.results.save()


def _short(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in itertools.islice(figures.items(), 6))


def warm_up(bench: Bench, running: Running, workload: Workload) -> Sending:
    """One association, before anything is counted."""
    if workload.size > 1_000_000:
        workload = bench.material.workload("525KB")
    return senders.load(running.port, workload, WARM_UP_TAG, count=bench.warm_up_count())


def measured(
    bench: Bench,
    receiver: Receiver,
    workload: Workload,
    send: Callable[[int, Sending], Sending],
    *,
    workers: int | None = None,
    flags: Sequence[Word] = (),
    interval_s: float = 0.25,
) -> dict[str, float]:
    """Figures of one run.

    send: sends to a port, knowing how the warm-up with `workload` went. interval_s: how often
    memory is looked at.
    Raises ERRORS.
    """
    with bench.new_folder() as folder:
        with receiver.run(folder, *flags, workers=workers) as running:
            books = running.accounting
            rest = books.memory()
            warm = warm_up(bench, running, workload)
            before = books.cpu_us()
            with books.sampled(interval_s) as peak:
                sending = send(running.port, warm)
            time.sleep(SETTLE_S)
            used = books.cpu_us() - before
        made = figures(sending, used, rest, peak.memory)
        made["processes"], made["threads"] = peak.processes, peak.threads
        return {**made, **verified(running, [warm, sending])}


def figures(sending: Sending, cpu_us: int, rest: Memory, peak: Memory) -> dict[str, float]:
    """What one run came to, by the names of the tables; memory in bytes, GB is 10^9."""
    return {
        "rate": sending.instances / sending.seconds,
        "mb_per_s": sending.size / sending.seconds / 1e6,
        "cpu_us_per_instance": cpu_us / sending.instances,
        "cpu_s_per_gb": cpu_us / 1e6 / (sending.size / 1e9),
        **sending.figures,
        "sender_cpu_us_per_instance": sending.cpu_us / sending.instances,
        "rest_bytes": rest.pss,
        "peak_bytes": peak.pss,
        "growth_bytes": peak.pss - rest.pss,
        "instances": sending.instances,
        "seconds": sending.seconds,
    }


def verified(running: Running, sendings: Sequence[Sending]) -> dict[str, float]:
    """Compare every stored data set with what was sent; how many were the same, and how.

    Raises NotAsSent.
    """
    receiver = running.receiver
    if not receiver.stores:
        return {}
    stored = list(running.stored())
    sent = [instance for sending in sendings for instance in sending.sent(stored)]
    found = compare(stored, sent, by_value=receiver.rewrites)
    if not found.ok:
        raise NotAsSent(f"stored is not what was sent: {found}")
    return {"same_bytes": found.same, "same_values": found.same_values}


@dataclass(frozen=True, slots=True)
class Point:
    """Where a cell of the generator's is. associations: as many as the receiver serves at most."""

    workload: str = "34KB"
    associations: int = 2
    pdu: int = 131072
    window: int = 1
    sender: str = "load"

    def served_by(self, receiver: Receiver) -> Point:
        """This point, with no more associations than the receiver serves at a time."""
        most = receiver.associations or self.associations
        return dataclasses.replace(self, associations=min(self.associations, most))


def load_run(
    bench: Bench,
    receiver: Receiver,
    point: Point,
    *,
    workers: int | None = None,
    flags: Sequence[Word] = (),
) -> Callable[[], dict[str, float]]:
    """A run of the generator, of as many instances in every round as the first one had."""
    workload = bench.material.workload(point.workload)
    kept: list[int] = []

    def send(port: int, warm: Sending) -> Sending:
        if not kept:
            kept.append(bench.count(workload.size, warm, point.associations))
        return senders.load(
            port,
            workload,
            RUN_TAG,
            associations=point.associations,
            count=kept[0],
            window=point.window,
            pdu=point.pdu,
        )

    return lambda: measured(bench, receiver, workload, send, workers=workers, flags=flags)

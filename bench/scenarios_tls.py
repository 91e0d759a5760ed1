"""What TLS costs: CPU of an instance, handshakes, and memory of associations that wait."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from bench import senders
from bench.certificates import KEYS, certificate, tls_port
from bench.measure import SETTLE_S, Bench, figures, verified
from bench.senders import FASTSCP, FASTSCP_TLS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.receiver import Receiver, Running, Word
    from bench.results import Cell
    from bench.workloads import Files

OURS = ("fastscp", "fastscp-buffered")
DCMTK = ("storescp-best",)
# Files of a run, and as many before it, which are not counted.
COUNTS = {"3KB": 3000, "34KB": 2000, "525KB": 600}
ASSOCIATED = 200
HELD = "525KB"


def tls(bench: Bench) -> None:
    """Instances with TLS and without, handshakes, and idle associations; one worker."""
    chosen = bench.chosen(*OURS, *DCMTK)
    for size in COUNTS:
        if size in bench.sizes:
            _instances(bench, chosen, size)
    for kind in KEYS:
        cells = []
        for receiver in chosen:
            cell = bench.results.cell("tls", "handshakes", receiver.name, {"certificate": kind})
            cells.append((cell, _shaking(bench, receiver, kind)))
        bench.alternate(cells)
    count = min(ASSOCIATED, bench.idle)
    cells = []
    for receiver in bench.chosen(*OURS):
        for stored in (False, True):
            after = "an instance" if stored else "the association"
            point = {"associations": count, "after": after}
            cell = bench.results.cell("tls", "idle", receiver.name, point)
            cells.append((cell, _holding(bench, receiver, count, stored=stored)))
    bench.alternate(cells)


def _flags(receiver: Receiver, file: Path) -> Sequence[Word]:
    if receiver.name in OURS:
        return ("--tls-port", "0", "--tls-cert", file)
    return ("+tls", file, file, "--ignore-peer-cert")


def _port(running: Running) -> int:
    """The one with TLS; DCMTK has one port, for one or the other."""
    return tls_port(running.log) if running.receiver.name in OURS else running.port


def _workers(receiver: Receiver) -> int | None:
    return 1 if receiver.has_workers else None


def _instances(bench: Bench, chosen: Sequence[Receiver], size: str) -> None:
    count = COUNTS[size] // 40 if bench.quick else COUNTS[size]
    files = bench.material.files(size, 2 * count, 2)
    halves = [
        dataclasses.replace(
            files, root=folder, folders=(folder,), count=count, size=files.size // 2
        )
        for folder in files.folders
    ]
    cells: dict[tuple[str, bool], Cell] = {}
    for receiver in chosen:
        for secured in (False, True):
            point = {"workload": size, "transport": "TLS" if secured else "plain"}
            made = bench.results.cell("tls", "instances", receiver.name, point)
            cells[receiver.name, secured] = made
    runs = {receiver.name: receiver for receiver in chosen}
    bench.alternate(
        [
            (cell, _sending(bench, runs[name], halves, secured=secured))
            for (name, secured), cell in cells.items()
        ]
    )
    bench.material.drop(files)
    for receiver in chosen:
        mine = cells[receiver.name, True]
        what = f"{receiver.name}, {size}: TLS to plain"
        bench.results.ratio(what, "cpu_us_per_instance", mine, cells[receiver.name, False])
        for other in DCMTK:
            if receiver.name in OURS and other in runs:
                what = f"{receiver.name} to {other}, {size}, both with TLS"
                bench.results.ratio(what, "cpu_us_per_instance", mine, cells[other, True])
    bench.results.save()


def _sending(
    bench: Bench, receiver: Receiver, halves: Sequence[Files], *, secured: bool
) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        flags = _flags(receiver, certificate(bench.folder)) if secured else ()
        sender = FASTSCP_TLS if secured else FASTSCP
        with bench.new_folder() as folder:
            with receiver.run(folder, *flags, workers=_workers(receiver)) as running:
                port = _port(running) if secured else running.port
                books = running.accounting
                rest = books.memory()
                before = sender.send(port, halves[0])
                began = books.cpu_us()
                with books.sampled(0.25) as peak:
                    sending = sender.send(port, halves[1])
                time.sleep(SETTLE_S)
                used = books.cpu_us() - began
            kept = verified(running, [before, sending])
        return {**figures(sending, used, rest, peak.memory), **kept}

    return run


def _shaking(bench: Bench, receiver: Receiver, kind: str) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        flags = _flags(receiver, certificate(bench.folder, kind))
        with (
            bench.new_folder() as folder,
            receiver.run(folder, *flags, workers=_workers(receiver)) as running,
        ):
            port, books = _port(running), running.accounting
            senders.handshakes(port, min(0.5, bench.seconds))
            began = books.cpu_us()
            found = senders.handshakes(port, bench.seconds)
            time.sleep(SETTLE_S)
            used = books.cpu_us() - began
        count = found["handshakes"]
        return {"rate": count / found["seconds"], "cpu_us_per_handshake": used / count}

    return run


def _holding(
    bench: Bench, receiver: Receiver, count: int, *, stored: bool
) -> Callable[[], dict[str, float]]:
    """What PSS grows by, from one association on, which has sent an instance.

    Whoever holds them runs both times: it shares the pages of its libraries with the receiver.
    """
    template = bench.material.template(HELD)

    def run() -> dict[str, float]:
        flags = _flags(receiver, certificate(bench.folder))
        with (
            bench.new_folder() as folder,
            receiver.run(folder, *flags, workers=1) as running,
        ):
            port, books = _port(running), running.accounting
            with senders.tls_associations(port, 1, template):
                time.sleep(SETTLE_S)
                warm = books.memory()
            with senders.tls_associations(port, count, template if stored else None):
                time.sleep(SETTLE_S)
                held = books.memory()
        return {"idle_bytes_each": (held.pss - warm.pss) / (count - 1), "idle_bytes": held.pss}

    return run

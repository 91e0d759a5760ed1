"""What a good sender and its C-ECHOs wait beside peers that take places and give nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import senders
from bench.certificates import certificate, tls_port
from bench.measure import RUN_TAG, Bench, verified, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.receiver import Receiver

OURS = ("fastscp", "fastscp-buffered")
# Silent, trickling and deaf; half of each speak TLS. 700 in all, of the 1,000 places.
CROWD = (500, 100, 100)
SETTLED_US = 5_000.0
# Those that do not read are aborted after a minute.
SETTLE_MOST_S = 40.0


def crowd(bench: Bench) -> None:
    """Instances, then C-ECHOs, over one association, alone and in the crowd; one worker."""
    few = tuple(count // 20 for count in CROWD) if bench.quick else CROWD
    for receiver in bench.chosen(*OURS):
        alone, beside = (
            bench.results.cell("crowd", "good sender", receiver.name, {"crowd": sum(counts)})
            for counts in ((0, 0, 0), few)
        )
        bench.alternate(
            [(alone, _run(bench, receiver, (0, 0, 0))), (beside, _run(bench, receiver, few))]
        )
        for name in ("response_p99_us", "echo_p99_us"):
            bench.results.ratio(f"{receiver.name}: in the crowd to alone", name, beside, alone)
        bench.results.save()


def _run(
    bench: Bench, receiver: Receiver, counts: tuple[int, ...]
) -> Callable[[], dict[str, float]]:
    workload = bench.material.workload("34KB")

    def run() -> dict[str, float]:
        file = certificate(bench.folder)
        flags = ("--tls-port", "0", "--tls-cert", file)
        with bench.new_folder() as folder:
            with receiver.run(folder, *flags, workers=1) as running:
                warm = warm_up(bench, running, workload)
                with senders.crowd(running.port, tls_port(running.log), counts):
                    _settle(running.port)
                    sending = senders.load(running.port, workload, RUN_TAG, fair=bench.seconds)
                    echoes = senders.pings(running.port, bench.seconds)
            kept = verified(running, [warm, sending])
        del echoes["rate"]
        rate = sending.instances / sending.seconds
        return {"rate": rate, **sending.figures, **echoes, **kept}

    return run


def _settle(port: int) -> None:
    """Wait until what the deaf ones asked is answered: a flood is what `fair` measures."""
    end = time.monotonic() + SETTLE_MOST_S
    while senders.pings(port, 0.3)["echo_p90_us"] > SETTLED_US:
        if time.monotonic() > end:
            raise RuntimeError(f"no C-ECHO is answered quickly after {SETTLE_MOST_S:g} s")

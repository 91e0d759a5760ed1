"""Minutes of even work, with the metrics asked for each second in every second of them.

What asking costs shows between neighbouring minutes, which had the same machine. What leaks shows
from the first minutes to the last ones. In the end the metrics have to tell what was sent.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from bench import senders
from bench.measure import ERRORS, RUN_TAG, SETTLE_S, Bench, warm_up
from bench.receiver import free_port
from bench.workloads import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.receiver import Receiver, Running
    from bench.results import Cell

OURS = ("fastscp", "fastscp-buffered")
MINUTE_S, SCRAPE_S, PRUNE_S, MEMORY_S = 60.0, 1.0, 1.0, 10.0
# A folder that nothing came into for so long gets nothing any more.
FOLDER_S = 120.0


@dataclass(frozen=True, slots=True)
class Group:
    """Associations of one kind. rate: instances a second of all together, `burst` at once."""

    name: str
    tag: str
    associations: int
    window: int
    rate: int
    burst: int


# 64 associations, and a good part of what two cores can do with the generator on them.
GROUPS = (
    Group("sync", RUN_TAG, associations=48, window=1, rate=750, burst=1),
    Group("async", "3", associations=16, window=16, rate=256, burst=32),
)
QUICK = (
    Group("sync", RUN_TAG, associations=6, window=1, rate=90, burst=1),
    Group("async", "3", associations=2, window=4, rate=48, burst=8),
)


@dataclass(slots=True)
class Seen:
    """What was looked at in one minute. memory: of main and of its workers, in bytes."""

    scrapes_us: list[float] = field(default_factory=list)
    memory: list[dict[str, float]] = field(default_factory=list)


def soak(bench: Bench) -> None:
    """All groups at once, for the minutes that were asked for."""
    for receiver in bench.chosen(*OURS):
        cells = [
            bench.results.cell("soak", "minutes", receiver.name, {"scraped": scraped})
            for scraped in (False, True)
        ]
        whole = bench.results.cell("soak", "from first to last", receiver.name, {})
        try:
            _soak(bench, receiver, cells, whole)
        except ERRORS as error:
            whole.error = str(error) or type(error).__name__
            bench.say(f"soak: {receiver.name}: {whole.error}")
        for group in GROUPS:
            name = f"{group.name}_p99_us"
            bench.results.ratio(f"{receiver.name}: scraped to not", name, cells[1], cells[0])
        bench.results.save()


def is_scraped(minute: int) -> bool:
    """One of each pair; in every second pair the other one, so that neither is always later."""
    return minute % 4 in (1, 2)


def _soak(bench: Bench, receiver: Receiver, cells: Sequence[Cell], whole: Cell) -> None:
    """Raises ERRORS, also where the metrics, or the files, are not what was sent."""
    groups, minute_s = (QUICK, bench.seconds) if bench.quick else (GROUPS, MINUTE_S)
    # As many with as without.
    minutes = 2 * math.ceil(bench.minutes / 2)
    templates = bench.material.template("34KB"), bench.material.template("525KB")
    workload = Workload("soak", ((templates[0], 4), (templates[1], 1)))
    port = free_port()
    flags = ("--admin", f"127.0.0.1:{port}")
    seen = [Seen() for _ in range(minutes)]
    with bench.new_folder() as folder, receiver.run(folder, *flags) as running:
        rest = _memory(running)
        warm = warm_up(bench, running, bench.material.workload("34KB"))
        with Pruner(folder / "store") as pruner, contextlib.ExitStack() as undo:
            answers = [
                undo.enter_context(_planned(running.port, workload, group, minutes, minute_s))
                for group in groups
            ]
            begun = time.monotonic()
            for minute, now in enumerate(seen):
                end = begun + (minute + 1) * minute_s
                _minute(running, now, end, port if is_scraped(minute) else 0)
                bench.say(f"soak: {receiver.name}: minute {minute + 1} of {minutes}")
        time.sleep(SETTLE_S)
        told = counted(_asked(port).decode("utf-8"))
    for minute, now in enumerate(seen):
        figures = _figures(now)
        for group, answer in zip(groups, answers, strict=True):
            took = answer["slices"][minute]["response_us"]
            figures |= {f"{group.name}_{part}_us": took[part] for part in ("p50", "p99", "max")}
        cells[is_scraped(minute)].rounds.append(figures)
    instances = warm.instances + sum(one["instances"] for one in answers)
    size = warm.size + sum(one["bytes"] for one in answers)
    whole.rounds.append({"instances": instances, "stored_bytes": size, **_grown(rest, seen)})
    for name, value in {**told, "files": pruner.deleted}.items():
        wanted = size if name.endswith("bytes") else instances
        if value != wanted:
            raise RuntimeError(f"{name}: {value:.0f}, and {wanted} were sent")


@contextlib.contextmanager
def _planned(
    port: int, workload: Workload, group: Group, minutes: int, minute_s: float
) -> Iterator[dict[str, Any]]:
    """One group sends inside the context; what it came to is there at its end."""
    # A little more than that, so that the last minute has an end.
    count = math.ceil(group.rate * minute_s * minutes * 1.01 / group.associations) + 1
    with senders.planned(
        port, workload, group.tag, associations=group.associations, window=group.window,
        rate=group.rate, burst=group.burst, count=count, slices=minute_s,
    ) as answer:  # fmt: skip
        yield answer


def _minute(running: Running, seen: Seen, end: float, port: int) -> None:
    """Look at the memory, and, with a port, ask for the metrics, until then."""
    next_scrape = next_memory = time.monotonic()
    while (now := time.monotonic()) < end:
        if now >= next_memory:
            next_memory += MEMORY_S
            seen.memory.append(_memory(running))
        if port and now >= next_scrape:
            next_scrape += SCRAPE_S
            begun = time.perf_counter()
            _asked(port)
            seen.scrapes_us.append((time.perf_counter() - begun) * 1e6)
        due = min(next_memory, next_scrape, end) if port else min(next_memory, end)
        time.sleep(max(0.0, due - time.monotonic()))


def _memory(running: Running) -> dict[str, float]:
    """PSS and RSS of main and of all its workers."""
    books = running.accounting
    main = books.memory([running.pid])
    workers = books.memory([pid for pid in books.pids() if pid != running.pid])
    return {
        "main_bytes": main.pss, "workers_bytes": workers.pss,
        "main_rss_bytes": main.rss, "workers_rss_bytes": workers.rss,
    }  # fmt: skip


def _figures(seen: Seen) -> dict[str, float]:
    made = _median(seen.memory)
    if seen.scrapes_us:
        made["scrape_p50_us"] = statistics.median(seen.scrapes_us)
        made["scrape_max_us"] = max(seen.scrapes_us)
    return made


def _median(memory: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in memory) for name in memory[0]}


def _grown(rest: dict[str, float], seen: Sequence[Seen]) -> dict[str, float]:
    """At rest, in the second tenth of the time, and in the last one.

    In the first tenth the service takes what it keeps.
    """
    tenth = max(1, len(seen) // 10)
    early = _median([one for now in seen[tenth : 2 * tenth] for one in now.memory])
    late = _median([one for now in seen[-tenth:] for one in now.memory])
    made = {}
    for name in ("main", "workers"):
        made[f"{name}_rest_bytes"] = rest[f"{name}_bytes"]
        made[f"{name}_early_bytes"] = early[f"{name}_bytes"]
        made[f"{name}_late_bytes"] = late[f"{name}_bytes"]
    return made


# --- the metrics ---


def _asked(port: int) -> bytes:
    """The metrics. Raises OSError, and RuntimeError for another answer than they."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"/metrics: {answer.status}")
    return body


def counted(text: str) -> dict[str, float]:
    """Each number in the metrics that has to be that of the instances, or of their bytes."""
    made: dict[str, float] = dict.fromkeys(
        ("by status", "by AE title", "by transfer syntax", "answered", "bytes", "AE title bytes",
         "transfer syntax bytes"), 0.0,
    )  # fmt: skip
    wanted: dict[str, tuple[str, Callable[[dict[str, str]], bool]]] = {
        "fastscp_instances_total": ("by status", lambda at: at["status"] == "0000"),
        "fastscp_ae_instances_total": ("by AE title", lambda at: at["outcome"] == "stored"),
        "fastscp_transfer_syntax_instances_total": (
            "by transfer syntax", lambda at: at["outcome"] == "stored",
        ),
        "fastscp_response_seconds_count": ("answered", lambda _: True),
        "fastscp_stored_bytes_total": ("bytes", lambda _: True),
        "fastscp_ae_stored_bytes_total": ("AE title bytes", lambda _: True),
        "fastscp_transfer_syntax_stored_bytes_total": ("transfer syntax bytes", lambda _: True),
    }  # fmt: skip
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in wanted:
                name, counts = wanted[sample.name]
                made[name] += sample.value if counts(sample.labels) else 0.0
    return made


# --- the files ---


class Pruner:
    """Deletes what is stored as it comes, in a thread, and counts it. A context manager."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pruner", daemon=True)
        self.deleted = 0

    def __enter__(self) -> Pruner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the rest, too."""
        self._over.set()
        self._thread.join()
        self._prune()

    def _run(self) -> None:
        while not self._over.wait(PRUNE_S):
            self._prune()

    def _prune(self) -> None:
        for series in self._store.glob("[!.]*/*"):
            before = self.deleted
            for file in os.scandir(series):
                os.unlink(file)
                self.deleted += 1
            if self.deleted == before and time.time() - series.stat().st_mtime > FOLDER_S:
                series.rmdir()

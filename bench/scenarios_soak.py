"""Half an hour of even work, with the metrics asked for each second in every second span of it.

What asking costs shows between neighbouring spans, which had the same machine (spans.py). What
leaks shows from the first tenth of the time to the last one. In the end the metrics have to tell
what was sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import math
import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from bench import machine, senders, spans
from bench.measure import ERRORS, RUN_TAG, SETTLE_S, Bench, warm_up
from bench.receiver import free_port
from bench.workloads import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.accounting import Memory
    from bench.receiver import Receiver, Running
    from bench.results import Cell

# The redo log is on as it is by default on a disk; by itself it is off where the store is here.
OURS = {"fastscp": ("--redo", "on"), "fastscp-buffered": ()}
SPAN_S, SCRAPE_S, PRUNE_S = 10.0, 1.0, 1.0
# Of the order within the pairs.
SEED = 20
# What is asked for: p99 is so many times as long at most. Below so many responses in a span there
# are fewer than 10 above its p99.
MOST, LEAST_RESPONSES = 1.05, 1000
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
class Look:
    """What was looked at in one span. memory: of each process, at its beginning."""

    at: float
    memory: dict[str, Memory]
    scrapes_us: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Soaked:
    """What one receiver came to. answers: what the generator printed for each group."""

    rest: dict[str, Memory]
    looks: list[Look]
    answers: list[dict[str, Any]]
    metrics: str
    instances: int
    size: int


def soak(bench: Bench) -> None:
    """All groups at once, for the minutes that were asked for."""
    for receiver in bench.chosen(*OURS):
        cells = [
            bench.results.cell("soak", "spans", receiver.name, {"scraped": scraped})
            for scraped in (False, True)
        ]
        whole = bench.results.cell("soak", "from first to last", receiver.name, {})
        try:
            _soak(bench, receiver, cells, whole)
        except ERRORS as error:
            whole.error = str(error) or type(error).__name__
            bench.say(f"soak: {receiver.name}: {whole.error}")
        _judge(bench, receiver.name, cells)
        bench.results.save()


def _soak(bench: Bench, receiver: Receiver, cells: Sequence[Cell], whole: Cell) -> None:
    """Raises ERRORS, also where the metrics, or the files, are not what was sent."""
    groups, span_s = (QUICK, bench.seconds) if bench.quick else (GROUPS, SPAN_S)
    scraped = spans.turns(math.ceil(bench.minutes * 60 / (2 * SPAN_S)), SEED)
    with bench.new_folder() as folder:
        done, deleted = _send(bench, receiver, folder, groups, scraped, span_s)
    for number, (look, is_scraped) in enumerate(zip(done.looks, scraped, strict=True)):
        figures = _scrapes(look)
        for group, answer in zip(groups, done.answers, strict=True):
            figures |= _responses(group.name, answer["slices"][number])
        cells[is_scraped].rounds.append(figures)
    figures = {"instances": done.instances, "stored_bytes": done.size}
    whole.rounds.append({**figures, "logged": logged(done.metrics), "files": deleted})
    whole.note = f"the store is on {machine.file_system(bench.folder)}"
    for name, grown in _grown(done.rest, done.looks).items():
        cell = bench.results.cell("soak", "memory", receiver.name, {"process": name})
        cell.rounds.append(grown)
    for name, value in {**counted(done.metrics), "files": deleted}.items():
        wanted = done.size if name.endswith("bytes") else done.instances
        if value != wanted:
            raise RuntimeError(f"{name}: {value:.0f}, and {wanted} were sent")


def _send(
    bench: Bench,
    receiver: Receiver,
    folder: Path,
    groups: Sequence[Group],
    scraped: Sequence[bool],
    span_s: float,
) -> tuple[Soaked, int]:
    """All spans; and how many files there were. Raises ERRORS."""
    templates = bench.material.template("34KB"), bench.material.template("525KB")
    workload = Workload("soak", ((templates[0], 4), (templates[1], 1)))
    port = free_port()
    flags = ("--admin", f"127.0.0.1:{port}", *OURS[receiver.name])
    looks = list[Look]()
    with receiver.run(folder, *flags) as running:
        rest = _memory(running)
        warm = warm_up(bench, running, bench.material.workload("34KB"))
        with Pruner(folder / "store") as pruner, contextlib.ExitStack() as undo:
            # As Prometheus does, on one connection for as long as the service keeps it.
            scraper = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            undo.callback(scraper.close)
            answers = [
                undo.enter_context(_planned(running.port, workload, group, len(scraped), span_s))
                for group in groups
            ]
            begun = time.monotonic()
            for number, is_scraped in enumerate(scraped):
                begin = begun + number * span_s
                looks.append(_span(running, begin, span_s, scraper if is_scraped else None))
                if (number + 1) % 6 == 0:
                    bench.say(f"soak: {receiver.name}: span {number + 1} of {len(scraped)}")
        time.sleep(SETTLE_S)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as last:
            metrics = _asked(last).decode("utf-8")
    instances = warm.instances + sum(one["instances"] for one in answers)
    size = warm.size + sum(one["bytes"] for one in answers)
    return Soaked(rest, looks, answers, metrics, instances, size), pruner.deleted


@contextlib.contextmanager
def _planned(
    port: int, workload: Workload, group: Group, count: int, span_s: float
) -> Iterator[dict[str, Any]]:
    """One group sends inside the context; what it came to is there at its end."""
    # A little more than that, so that the last span has an end.
    each = math.ceil(group.rate * span_s * count * 1.01 / group.associations) + 1
    with senders.planned(
        port, workload, group.tag, associations=group.associations, window=group.window,
        rate=group.rate, burst=group.burst, count=each, slices=span_s,
    ) as answer:  # fmt: skip
        yield answer


def _span(
    running: Running, begin: float, span_s: float, scraper: http.client.HTTPConnection | None
) -> Look:
    """Look at the memory, and, with a scraper, ask for the metrics, until the span is over.

    The generator began its own spans some milliseconds earlier: nothing is asked for near an end.
    """
    seen = Look(time.monotonic(), _memory(running))
    due = begin + min(SCRAPE_S, span_s) / 2
    while scraper is not None and due < begin + span_s:
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.perf_counter()
        _asked(scraper)
        seen.scrapes_us.append((time.perf_counter() - asked) * 1e6)
        due += SCRAPE_S
    time.sleep(max(0.0, begin + span_s - time.monotonic()))
    return seen


def _memory(running: Running) -> dict[str, Memory]:
    """Of main and of each of its workers, by what they call themselves."""
    books = running.accounting
    found = {"main": books.memory([running.pid])}
    for pid in books.pids():
        # One that has just ended counts no more.
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ")
            if title and pid != running.pid:
                found[title.removeprefix("fastscp: ")] = books.memory([pid])
    return found


# --- what it came to ---


def _scrapes(look: Look) -> dict[str, float]:
    took = look.scrapes_us
    return {"scrape_p50_us": statistics.median(took), "scrape_max_us": max(took)} if took else {}


def _responses(group: str, told: Mapping[str, Any]) -> dict[str, float]:
    """Figures of one group in one span. Raises RuntimeError if nothing was answered in it."""
    took = told["response_us"]
    if took is None:
        raise RuntimeError(f"{group}: a span without any response")
    made = {f"{group}_{part}_us": took[part] for part in ("p50", "p99", "max")}
    return {**made, f"{group}_instances": told["instances"]}


def _judge(bench: Bench, receiver: str, cells: Sequence[Cell]) -> None:
    """Each figure of a span with a scrape each second through that of its pair without one."""
    for group in GROUPS:
        counts = [one.get(f"{group.name}_instances", 0) for cell in cells for one in cell.rounds]
        for part in ("p50", "p99"):
            made = bench.results.ratio(
                f"{receiver}: scraped to not", f"{group.name}_{part}_us", cells[1], cells[0]
            )
            if made is None:
                continue
            found = spans.judged(made["rounds"], MOST, min(counts), LEAST_RESPONSES)
            made |= {**dataclasses.asdict(found), "verdict": found.words}
            what = f"soak: {receiver}: {part} of window {group.window}, scraped to not"
            bench.say(f"{what}: {found.held}; {found.words}")


def _grown(rest: Mapping[str, Memory], looks: Sequence[Look]) -> dict[str, dict[str, float]]:
    """Of each process: at rest, in the second tenth of the time, in the last one, and the slope.

    In the first tenth the service takes what it keeps.
    """
    tenth = max(1, len(looks) // 10)
    made = {}
    for name in looks[-1].memory:
        had = [(one.at, one.memory[name]) for one in looks[tenth:] if name in one.memory]
        at = [when for when, _ in had]
        made[name] = {
            "rest_bytes": rest[name].pss if name in rest else had[0][1].pss,
            "early_bytes": statistics.median(one.pss for _, one in had[:tenth]),
            "late_bytes": statistics.median(one.pss for _, one in had[-tenth:]),
            "slope_bytes": spans.slope(at, [one.pss for _, one in had]),
            "rss_slope_bytes": spans.slope(at, [one.rss for _, one in had]),
        }
    return made


# --- the metrics ---


def _asked(connection: http.client.HTTPConnection) -> bytes:
    """The metrics; a connection that is closed is made anew.

    Raises OSError, and RuntimeError for another answer than they.
    """
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
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


def logged(text: str) -> float:
    """How many instances took the redo log."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fastscp_batch_instances_sum" and sample.labels["durability"] == "log"
    )


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

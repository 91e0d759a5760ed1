"""What tables of called AE titles and of senders cost an association, and a worker's memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import senders
from bench.measure import SETTLE_S, Bench
from bench.scenarios_limits import unlimited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.receiver import Receiver, Word

OURS = ("fastscp-buffered",)
# Of each kind.
TABLES = (0, 10, 1000)
ASSOCIATIONS = 4000
# Called AE titles of a run, one after the other, spread over the tables.
TITLES = 10
WORKERS = 2


def rules(bench: Bench) -> None:
    """Associate, C-ECHO, release with no table, 10 and 1,000 of each kind."""
    for receiver in bench.chosen(*OURS):
        cells = {
            tables: bench.results.cell("rules", "tables", receiver.name, {"tables": tables})
            for tables in TABLES
        }
        bench.alternate([(cell, _run(bench, receiver, n)) for n, cell in cells.items()])
        few, most = cells[TABLES[1]], cells[TABLES[2]]
        for name in ("cpu_us_per_association", "worker_rest_bytes"):
            bench.results.ratio(f"{TABLES[1]} tables to none", name, few, cells[0])
            bench.results.ratio(f"{TABLES[2]} tables to {TABLES[1]}", name, most, few)
        bench.results.save()


def _run(bench: Bench, receiver: Receiver, tables: int) -> Callable[[], dict[str, float]]:
    file = bench.folder / f"rules-{tables}.toml"
    write_tables(file, tables)
    count = ASSOCIATIONS // (20 if bench.quick else 1) // TITLES
    titles = [title(number * max(tables, TITLES) // TITLES) for number in range(TITLES)]

    def run() -> dict[str, float]:
        flags: tuple[Word, ...] = ("--config", file, *unlimited(receiver))
        with (
            bench.new_folder() as folder,
            receiver.run(folder, *flags, workers=WORKERS) as running,
        ):
            books = running.accounting
            time.sleep(SETTLE_S)
            memory = books.memory()
            workers = [pid for pid in books.pids() if pid != running.pid]
            rest = {
                "rest_bytes": memory.pss,
                "worker_rest_bytes": books.memory(workers).pss / len(workers),
            }
            # Each rule is made once.
            for called in titles:
                senders.echoes(running.port, 20, called=called)
            time.sleep(SETTLE_S)
            before = books.cpu_us()
            took = [senders.echoes(running.port, count, called=called) for called in titles]
            time.sleep(SETTLE_S)
            used = books.cpu_us() - before
        mean = {name: sum(one[name] for one in took) / len(took) for name in took[0]}
        return {"cpu_us_per_association": used / (count * len(titles)), **mean, **rest}

    return run


def title(number: int) -> str:
    """A called AE title."""
    return f"T{number:04}"


def write_tables(file: Path, tables: int) -> None:
    """So many tables of each kind; who calls a title gets its table and the sender's beside it."""
    text = []
    for number in range(tables):
        text += [
            f"[ae.{title(number)}]",
            f'layout = "_{number:04}/{{StudyInstanceUID}}/{{SOPInstanceUID}}.dcm"',
            'digest = "sha256"',
            "max-associations = 900",
            f"[from.s{number:04}]",
            f'who = ["S{number:04}@10.{number >> 8}.{number & 0xFF}.0/24", "LOAD@127.0.0.0/8"]',
            f'called = ["{title(number)}"]',
            'sop-classes = ["any"]',
            "max-associations = 900",
            "",
        ]
    file.write_text("\n".join(text))

"""What the flushes cost: python -m bench.flush.run slow | disk

slow    over an interposed disk of 5 ms per flush (slow.c): 1 and 64 associations with window 1,
        and 1 association with window 32
disk    on the real disk: 8 associations with window 1 against DCMTK's `storescp +B`, which flushes
        nothing, and against what the disk allows: outstanding instances / measured flush cycle

Rates are instances per second. Rounds alternate between what is compared, and a ratio is the median
over the rounds of the ratio within a round: a machine that is busy with something else for a while
is so for both. Needs a C compiler; `disk` needs storescp.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from bench.programs import compiled
from bench.receivers import receiver
from bench.warmth import leave_page_cache, spare_bytes, warm

HERE = Path(__file__).resolve().parent
# The stores are small, and the disk may be nearly full.
ANY_SPACE = ("--min-free-space", "0")


def slow_library(into: Path) -> Path:
    """The slow disk, to be preloaded."""
    slow = into / "slow.so"
    cc = ["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run([*cc, "-o", slow, HERE / "slow.c", "-lpthread"], check=True)
    return slow


class Load:
    """Runs the generator, with UIDs of its own each time."""

    def __init__(self) -> None:
        self._program = compiled(HERE.parent / "load.c")
        self._tag = int(time.time())

    def __call__(self, port: int, associations: int, count: int, window: int, size: int) -> float:
        self._tag += 1
        given = {
            "associations": associations,
            "count": count,
            "window": window,
            "bytes": size,
            "tag": self._tag,
        }
        words = [f"--{name}={value}" for name, value in given.items()]
        done = subprocess.run(
            [self._program, *words, str(port)], check=True, capture_output=True, text=True
        )
        rate: float = json.loads(done.stdout)["rate"]
        return rate


def slow_disk(folder: Path, load: Load, rounds: int) -> None:
    preloaded = {"LD_PRELOAD": str(slow_library(folder)), "SLOW_FILE": str(folder / "slow")}
    slowed = replace(receiver("fastscp"), environment=preloaded)
    with slowed.run(folder / "fastscp", *ANY_SPACE) as running:
        port = running.port
        load(port, 64, 4, 1, 34000)
        one, many, window = [], [], []
        for _ in range(rounds):
            one.append(load(port, 1, 40, 1, 34000))
            many.append(load(port, 64, 30, 1, 34000))
            window.append(load(port, 1, 640, 32, 34000))
        print(f"1 association, window 1:    {statistics.median(one):8.0f}/s")
        for what, rates in (
            ("64 associations, window 1", many),
            ("1 association, window 32", window),
        ):
            ratio = statistics.median(a / b for a, b in zip(rates, one, strict=True))
            print(f"{what + ':':27} {statistics.median(rates):8.0f}/s   {ratio:.1f}x")


def cycle(folder: Path, outstanding: int, size: int, rounds: int) -> float:
    """Seconds one commit of so many files takes the disk, each of another association and series.

    The files are flushed side by side, then named, then their folders flushed side by side, then a
    journal. As many rounds as a sender of the comparison has instances: disks are quicker in the
    first second than later. The mean of all, for the same reason.
    """
    place = folder / "cycle"
    incoming = place / "incoming"
    incoming.mkdir(parents=True)
    folders = [place / f"{k}" for k in range(outstanding)]
    for one in folders:
        one.mkdir()
    data = os.urandom(size)
    took = []
    folder_fds = [os.open(one, os.O_RDONLY) for one in folders]
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with ThreadPoolExecutor(outstanding) as threads:
        for number in range(rounds):
            parts = [incoming / f"{number}-{k}.part" for k in range(outstanding)]
            files = [os.open(part, os.O_WRONLY | os.O_CREAT) for part in parts]
            for fd in files:
                os.write(fd, data)
            begun = time.perf_counter()
            list(threads.map(os.fdatasync, files))
            for fd, part, one in zip(files, parts, folders, strict=True):
                os.close(fd)
                part.rename(one / f"{number}")
            list(threads.map(os.fsync, folder_fds))
            os.write(journal, bytes(600 * outstanding))
            os.fdatasync(journal)
            took.append(time.perf_counter() - begun)
    for fd in (*folder_fds, journal):
        os.close(fd)
    return statistics.mean(took)


def real_disk(folder: Path, load: Load, rounds: int) -> None:
    for size, count in ((34000, 250), (525000, 60)):
        found: dict[str, list[float]] = {"cycle": [], "fastscp": [], "storescp-best": []}
        orders = list(permutations(found))
        for number in range(rounds):
            # Stores of their own each round: neither slows down as its folders grow. They are
            # removed at the end: freeing the blocks would keep the disk busy.
            place = folder / f"{size}-{number}"
            place.mkdir()
            for name in orders[number % len(orders)]:
                if name == "cycle":
                    rate = 8 / cycle(place, 8, size, count)
                else:
                    options = ANY_SPACE if name == "fastscp" else ()
                    with receiver(name).run(place / name, *options) as running:
                        load(running.port, 8, 5, 1, size)
                        rate = load(running.port, 8, count, 1, size)
                found[name].append(rate)
                leave_page_cache(place)
        bounds, ours, theirs = found.values()
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        reach = statistics.median(a / b for a, b in zip(ours, bounds, strict=True))
        asked = statistics.median(
            a / min(b, 0.8 * c) for a, b, c in zip(ours, theirs, bounds, strict=True)
        )
        print(
            f"{size} bytes, 8 associations, window 1: fastscp {statistics.median(ours):.0f}/s, "
            f"storescp +B {statistics.median(theirs):.0f}/s ({ratio:.2f}x), "
            f"8 / flush cycle {statistics.median(bounds):.0f}/s ({reach:.2f}x); "
            f"{asked:.2f}x the less of storescp's rate and 0.8 of the disk's"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("slow", "disk"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where the stores are made and removed again")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as name,
        warm(spare_bytes() if given.what == "disk" else 0),
    ):
        folder = Path(name)
        measure = slow_disk if given.what == "slow" else real_disk
        measure(folder, Load(), given.rounds)


if __name__ == "__main__":
    main()

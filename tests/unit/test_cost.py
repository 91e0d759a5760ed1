"""What the way of an instance costs, in instructions and calls: no load changes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from tests.kit import data_set, store
from tests.unit.test_receiver import Site

ROOT = Path(__file__).parents[2]
INSTANCES = 200
# What is received and committed, by the functions that the loop and the threads enter it by. Cython
# gives methods numbers in their order.
ENTRIES = (r"Receiver_\d+buffer_updated$", r"Reception_\d+release$", "flusher_thread")
COUNTING = ("rows_count_ended", "rows_count_in")
# All clocks are read for the four stamps and for what is counted.
CLOCK = "clock_gettime"
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")

# Bytes of pixels, for data sets of about that size.
PIXELS: Final = {"3 KB": 2600, "34 KB": 33_600}
# Instructions of the worker's own code for an instance, its socket and its files the kernel's: some
# 3 % above what was measured. Most of what 34 KB cost more is the digest.
MOST: Final = {
    ("buffered", "3 KB"): 27_000,
    ("buffered", "34 KB"): 45_000,
    ("stable", "3 KB"): 30_900,
    ("stable", "34 KB"): 48_800,
}

PROGRAM = """
import sys
from pathlib import Path
from tests.kit import data_set, store
from tests.unit.test_receiver import Site, wire

folder, durability, count, pixels = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
with Site(folder, durable=durability == "stable") as site, wire(site) as on:
    # Nobody is told anything: all that costs is ours.
    on.one.outbox.tell_responses_sent = False
    for number in range(count):
        sop = f"1.2.3.{number}"
        site.feed(on.one, store(1, data_set(sop=sop, pixels=pixels), sop=sop))
        site.settle(on.one)
        on.peer.recv(65536)
    assert site.shared.rows.totals().instances == count
"""


def calls(profile: Path) -> dict[tuple[str, str], int]:
    """The cost of all calls of one function by another, with what these call; see callgrind."""
    names: dict[str, str] = {}
    costs: dict[tuple[str, str], int] = defaultdict(int)
    caller = callee = ""
    is_cost = False

    def name(text: str) -> str:
        found = _NAME.match(text)
        assert found is not None, text
        if found[2]:
            names[found[1]] = found[2]
        return names[found[1]]

    for line in profile.read_text("utf-8", "replace").splitlines():
        if line.startswith("fn="):
            caller = name(line[3:])
        elif line.startswith("cfn="):
            callee = name(line[4:])
        elif line.startswith("calls="):
            is_cost = True
        elif is_cost:
            is_cost = False
            costs[caller, callee] += int(line.split()[1])
    return costs


@pytest.mark.long
@pytest.mark.parametrize("size", ["3 KB", "34 KB"])
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_the_whole_way_and_counting_of_it(tmp_path: Path, durability: str, size: str) -> None:
    """Counting is a fiftieth: every instance in three families, its times, flushes and batches."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        assert not os.environ.get("CI"), "valgrind is missing"
        pytest.skip("there is no valgrind")
    profile = tmp_path / "profile"
    subprocess.run(
        [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={profile}", "-q",
            sys.executable, "-c", PROGRAM, str(tmp_path / "store"), durability, str(INSTANCES),
            str(PIXELS[size]),
        ],
        check=True, cwd=ROOT, timeout=480, env=os.environ | {"PYTHONMALLOC": "malloc"},
    )  # fmt: skip
    found = calls(profile)

    def cost(*wanted: str, outside: bool = False) -> int:
        return sum(
            cost for (caller, callee), cost in found.items()
            if any(re.search(one, callee) for one in wanted)
            and ("fastscp" in caller or "flush" in caller or outside)
        )  # fmt: skip

    # Buffered instances are through when their read is; the flush of stable ones has its threads.
    for entry in ENTRIES[: 1 if durability == "buffered" else None]:
        assert cost(entry, outside=True)
    whole = cost(*ENTRIES, outside=True)
    counting = cost(*COUNTING) + cost(CLOCK)
    # Each was called, and costs something.
    assert whole > INSTANCES * 5000
    assert counting > INSTANCES * 100
    assert counting <= whole / 50, f"{counting / whole:.2%}"
    assert whole / INSTANCES <= MOST[durability, size]


def written() -> int:
    """Calls by which this thread has written to files, sockets apart."""
    text = Path("/proc/thread-self/io").read_text("ascii")
    return int(text.partition("syscw: ")[2].split()[0])


@pytest.mark.parametrize("size", ["3 KB", "34 KB"])
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_one_call_writes_an_instance(tmp_path: Path, durability: str, size: str) -> None:
    """Header and data set, whatever PDUs these came in; and another one the journal line."""
    with Site(tmp_path / "store", durable=durability == "stable") as site:
        one = site.associate()
        for number in range(3):
            sop = f"1.2.3.{number}"
            data = store(1, data_set(sop=sop, pixels=PIXELS[size]), sop=sop, fragment=16_000)
            before = written()
            site.read(one, data)
            # The journal of stable instances is the committer's.
            assert written() - before == (1 if durability == "stable" else 2)
            site.settle(one)
        assert one.statuses() == [0, 0, 0]

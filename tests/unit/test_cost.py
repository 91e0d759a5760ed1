"""What counting costs on the way of an instance, in instructions: no load changes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTANCES = 200
# What is received and committed, by the functions that the loop and the threads enter it by.
ENTRIES = ("Receiver_11buffer_updated", "Reception_5release", "flusher_thread")
COUNTING = ("rows_count_ended", "rows_count_in")
# All clocks are read for the four stamps and for what is counted.
CLOCK = "clock_gettime"
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")

PROGRAM = """
import sys
from pathlib import Path
from tests.kit import data_set, store
from tests.unit.test_receiver import Site

folder, durability, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Site(folder, durable=durability == "stable") as site:
    one = site.associate()
    for number in range(count):
        sop = f"1.2.3.{number}"
        site.feed(one, store(1, data_set(sop=sop), sop=sop))
        site.settle(one)
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
@pytest.mark.parametrize("durability", ["stable", "buffered"])
def test_counting_is_a_fiftieth_of_the_way(tmp_path: Path, durability: str) -> None:
    """The whole of it: every instance in three families, its times, flushes and batches."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        assert not os.environ.get("CI"), "valgrind is missing"
        pytest.skip("there is no valgrind")
    profile = tmp_path / "profile"
    subprocess.run(
        [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={profile}", "-q",
            sys.executable, "-c", PROGRAM, str(tmp_path / "store"), durability, str(INSTANCES),
        ],
        check=True, cwd=ROOT, timeout=240, env=os.environ | {"PYTHONMALLOC": "malloc"},
    )  # fmt: skip
    found = calls(profile)

    def cost(*wanted: str, outside: bool = False) -> int:
        return sum(
            cost for (caller, callee), cost in found.items()
            if any(one in callee for one in wanted)
            and ("fastscp" in caller or "flush" in caller or outside)
        )  # fmt: skip

    whole = cost(*ENTRIES, outside=True)
    counting = cost(*COUNTING) + cost(CLOCK)
    # Each was called, and costs something.
    assert whole > INSTANCES * 5000
    assert counting > INSTANCES * 100
    assert counting <= whole / 50, f"{counting / whole:.2%}"

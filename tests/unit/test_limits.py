"""Which limit is to be raised where no thread can be started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastscp import limits

PROGRAM = """
import resource, sys
from fastscp.limits import _used
from fastscp.worker.helpers import Helpers

name, field = sys.argv[1:]
limit = getattr(resource, name)
resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20))
most = _used(field) + (4 << 20)
resource.setrlimit(limit, (most, most))
try:
    Helpers("compare", 8)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(
    ("name", "field", "told"),
    [("RLIMIT_AS", "VmSize", "ulimit -v"), ("RLIMIT_DATA", "VmData", "ulimit -d")],
)
def test_memory_that_a_limit_keeps_is_no_want_of_threads(name: str, field: str, told: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, field], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert ran.stdout.startswith("cannot start a thread to compare (can't start new thread); raise")
    assert told in ran.stdout
    assert "ulimit -u" not in ran.stdout


def test_else_it_is_their_number() -> None:
    said = limits.no_thread("for stat", RuntimeError("can't start new thread")).strerror
    assert said is not None
    assert said.startswith("cannot start a thread for stat (can't start new thread); raise")
    assert "ulimit -u" in said

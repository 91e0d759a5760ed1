"""What holds for every test: no process is left behind, and the shared material may be absent."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disks import KINDS, mounted
from tests.kit import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


def shared(name: str = "") -> Path:
    """../shared, or what is called `name` in it; skips, naming it, where it is not there."""
    path = (SHARED / name).resolve()
    if not path.exists():
        pytest.skip(f"{path} is not there: the shared vectors and data are no part of this package")
    return path


def _children() -> set[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # the quick answer for nearly all tests
    return set(children_of(os.getpid()))


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of each kind, mounted and empty; see tests/disks.py."""
    with mounted(request.param, tmp_path / "disk") as point:
        yield point


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the test that leaves a child process of its own."""
    before = _children()
    yield
    left = _children() - before
    assert not left, f"processes left behind: {sorted(left)}"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take back what a test set up for the log: its stream is closed for those that follow."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, sys.unraisablehook
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    sys.unraisablehook = raising


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Let the signals through that a service or a worker blocks at its end, run in this process.

    Those who run the tests could not interrupt them, and every program that a later test starts
    would begin with them blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)

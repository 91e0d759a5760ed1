"""What the unit tests of several rooms share."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import DEADLINE_S
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastscp.store.store import Store


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """Let the collector look at what a module makes, not at all that was there before.

    Else each test without descriptors left would go through everything that was imported, twice.
    What lived at the beginning of a module stays out of sight for those that follow, too: to go
    through it once a module takes a third of a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_descriptor_left(request: pytest.FixtureRequest) -> Iterator[None]:
    # What a test leaves to the collector may go at any time: the exceptions of some keep frames.
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    if "unraisable" in request.fixturenames:
        # An exception that nobody takes may be kept, with its frames, by whoever reports it.
        return
    end = time.monotonic() + DEADLINE_S
    # A thread that has told what it found may take a moment to end, and its frame holds what it
    # was called with.
    while (left := _open_besides(before)) and time.monotonic() < end:
        time.sleep(0.005)
    assert left == {}


def _open_besides(before: set[str]) -> dict[str, str]:
    """What is open and was not, by descriptor."""
    gc.collect()
    left = {}
    for fd in set(os.listdir("/proc/self/fd")) - before:
        # The one by which they are listed is gone by now.
        with contextlib.suppress(FileNotFoundError):
            left[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return left


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is no store yet, nor the folder around it."""
    return tmp_path / "a" / "store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A new store at `path`, held."""
    with opened(path) as store:
        yield store

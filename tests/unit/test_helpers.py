"""Threads that are there before there is work, or not at all."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

from fastscp.log.writer import Writer
from fastscp.store.store import Store
from fastscp.worker.helpers import Helpers
from fastscp.worker.turns import Lane
from tests.stores import filed
from tests.unit.test_worker import Played

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads can be started yet; more than that as the system refuses them."""
    left = [1000]
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    return left


def test_calls_in_their_order_and_what_comes_of_them() -> None:
    helpers = Helpers("count", 1)
    order: list[int] = []
    calls = [helpers.call(order.append, n) for n in range(50)]
    failed = helpers.call(int, "x")
    assert [call.result(SECONDS) for call in calls] == [None] * 50
    assert order == list(range(50))
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result(SECONDS)
    # An exception ends no thread.
    assert helpers.call(int, "7").result(SECONDS) == 7
    helpers.close()


def test_a_call_that_nobody_waits_for_any_more() -> None:
    """Cancelled before it began it is not made; later that changes nothing."""
    helpers = Helpers("wait", 1)
    goes_on = threading.Event()
    begun = threading.Event()

    def work() -> int:
        begun.set()
        assert goes_on.wait(SECONDS)
        return 1

    first = helpers.call(work)
    second = helpers.call(pytest.fail, "it was made")
    assert begun.wait(SECONDS)
    assert not first.cancel()
    assert second.cancel()
    goes_on.set()
    assert first.result(SECONDS) == 1
    assert helpers.call(int, "7").result(SECONDS) == 7
    helpers.close()


def test_no_thread_to_be_had(few_threads: list[int]) -> None:
    before = threading.enumerate()
    few_threads[:] = [1]
    with pytest.raises(OSError, match=r"cannot start a thread to compare \(can't start"):
        Helpers("compare", 2)
    # One of another test may have ended meanwhile.
    assert set(threading.enumerate()) <= set(before)
    with pytest.raises(OSError, match="cannot start a thread for the log"):
        Writer(len, lambda _lost: b"")


def test_work_goes_on_where_no_thread_can_be_started_any_more(few_threads: list[int]) -> None:
    """Whoever has a lane has its threads."""

    async def run() -> list[int]:
        ended = asyncio.Event()
        found: list[int] = []

        def done(_item: int, future: asyncio.Future[int]) -> None:
            found.append(future.result())
            if len(found) == 6:
                ended.set()

        lane = Lane("test", 2, abs, done)
        few_threads[:] = [0]
        for item in range(6):
            lane.add(item % 2, -item)
        await asyncio.wait_for(ended.wait(), SECONDS)
        few_threads[:] = [1000]
        await asyncio.to_thread(lane.close)
        return sorted(found)

    assert asyncio.run(run()) == list(range(6))


def test_a_worker_needs_no_thread_after_its_start(few_threads: list[int], tmp_path: Path) -> None:
    """Neither to compare, nor for its end."""
    store = Store.open(tmp_path / "store", filed("{SOPInstanceUID}.dcm"))

    async def live() -> None:
        few_threads[:] = [10]
        played = Played(store)
        assert few_threads == [0]
        await asyncio.wait_for(played.worker._close(), SECONDS)
        played.main.close()

    asyncio.run(live())
    store.close()
    # The worker is a cycle, and its descriptors go with it.
    gc.collect()

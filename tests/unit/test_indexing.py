"""Main at the index of a suspect journal: what fails is said once, and tried again."""

from __future__ import annotations

import asyncio
import errno
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.main import indexing as module
from fastscp.main.indexing import Indexing, index_of
from fastscp.store.index import IndexBuilder
from fastscp_ext import LineIndex
from tests.kit import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

FAILURES = (
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.EIO, os.strerror(errno.EIO), "5f0-w0-1-1.jsonl"),
    ValueError("no idea"),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__ + str(one)[:9])
@pytest.mark.parametrize("when", ["made", "built", "extended"])
def test_what_fails_is_said_once_and_tried_again(
    failure: Exception,
    when: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    states: list[int] = []
    index = LineIndex()
    fails = {"made": 0, "built": 0, "extended": 2}[when]

    class Builder(IndexBuilder):
        def __init__(self, *what: Any) -> None:
            states.append(index.state)
            if when == "made" and len(states) < 4:
                raise failure
            super().__init__(*what)

        def extend(self) -> bool:
            states.append(index.state)
            if when != "made" and fails < len(states) - 1 < fails + 4:
                raise failure
            return super().extend()

    monkeypatch.setattr(module, "IndexBuilder", Builder)
    monkeypatch.setattr(module, "_EVERY_S", 0.001)
    (tmp_path / ".fastscp/journal").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    store: Any = SimpleNamespace(dir_fd=fd)

    async def run() -> None:
        over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(Indexing(store, index, "5f0").run(over))
        async with asyncio.timeout(DEADLINE_S):
            while len(states) < 9 or index.state != LineIndex.READY:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
        over.set_result(0)
        await running

    try:
        with caplog.at_level("INFO"):
            asyncio.run(run())
    finally:
        os.close(fd)
    told = [record.getMessage() for record in caplog.records]
    errors = [one for one in told if one.startswith("cannot")]
    assert len(errors) == 1
    assert (str(failure.args[-1]) if len(failure.args) < 3 else "Input/output") in errors[0]
    if when == "extended":
        # What is in it is right for as long as it goes.
        assert set(states[2:]) == {LineIndex.READY}
        assert "cannot extend" in errors[0]
    else:
        assert LineIndex.FAILED in states
        assert "cannot build" in errors[0]
        assert "the whole journal" in errors[0]
    built = [one for one in told if "is built: 0 lines" in one]
    assert len(built) == (2 if when == "extended" else 1)


def test_no_memory_is_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(_store_fd: int) -> LineIndex:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(module, "new_index", none)
    suspect: Any = SimpleNamespace(dir_fd=-1, suspect=True)
    assert asyncio.run(index_of(suspect)) is None
    assert caplog.text.count("cannot make an index of the journal (Cannot allocate memory)") == 1
    caplog.clear()
    trusted: Any = SimpleNamespace(dir_fd=-1, suspect=False)
    assert asyncio.run(index_of(trusted)) is None
    assert not caplog.records

"""A worker that cannot go on with its redo log leaves word of that before it ends."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.messages.worker import CHECKPOINT_FAILED
from fastscp.worker import redo
from fastscp.worker.redo import RedoLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIFE = "6a-w0-1"


class EndedError(BaseException):
    """The process would be over."""


@pytest.fixture
def worker_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedoLog]:
    """A log whose files nobody needs. What is there when the process ends is `ended`."""

    def end(code: int) -> None:
        raise EndedError(code, sorted(one.name for one in tmp_path.iterdir()))

    monkeypatch.setattr(os, "_exit", end)
    found: Any = RedoLog.__new__(RedoLog)
    found._life = LIFE
    found._folder_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield found
    os.close(found._folder_fd)


def test_a_flush_that_failed_is_noted_before_the_end(worker_log: RedoLog) -> None:
    with pytest.raises(EndedError) as ended:
        worker_log._failed("flush folders", errno.EIO, "fatal")
    assert ended.value.args == (CHECKPOINT_FAILED, [f"{LIFE}.distrust"])


def test_a_log_that_is_only_not_taken_any_more_is_believed(
    worker_log: RedoLog, tmp_path: Path
) -> None:
    for what in ("waits", "off"):
        worker_log._failed("flush the redo log", errno.EIO, what)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_noted_keeps_nobody_from_the_end(
    worker_log: RedoLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_fd: int, _life: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(redo, "leave_distrust", fail)
    with pytest.raises(EndedError):
        worker_log._failed("flush folders", errno.EIO, "fatal")
    assert "cannot note in .fastscp/redo that a flush failed (disk full)" in caplog.text


def test_nor_does_a_disk_that_hangs(worker_log: RedoLog, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(redo, "_MARK_S", 0.01)
    monkeypatch.setattr(redo, "leave_distrust", lambda _fd, _life: goes_on.wait(60))
    with pytest.raises(EndedError):
        worker_log._failed("flush folders", errno.EIO, "fatal")
    goes_on.set()


def test_without_another_thread_it_is_noted_in_this_one(
    worker_log: RedoLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(EndedError) as ended:
        worker_log._failed("flush folders", errno.EIO, "fatal")
    assert ended.value.args[1] == [f"{LIFE}.distrust"]

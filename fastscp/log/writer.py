"""Log lines on their way to a descriptor: a bounded queue, and the thread that writes them."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.limits import no_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lost", "Writer"]

_MOST_BYTES: Final = 1 << 20
_MOST_LINES: Final = 8192
# How soon it tries again to tell of lines that were lost, where nothing can be written.
_RETRY_S: Final = 2.0
# How long the thread lets lines gather.
_COMPANY_S: Final = 0.01
# Who fills what share of the queue. What is worth more finds room where the rest is dropped.
_SHARES: Final = ((logging.INFO, 0.5), (logging.WARNING, 0.75), (logging.ERROR, 0.875))


@dataclass(slots=True)
class Lost:
    """Lines that were dropped. since: seconds since the epoch, of the first."""

    since: float
    lines: int = 0
    errors: int = 0

    def add(self, other: Lost) -> None:
        self.since = min(self.since, other.since)
        self.lines += other.lines
        self.errors += other.errors


class _Line(NamedTuple):
    """A line, end included.

    lost: what it tells of, if it tells of lines that were lost. told: called once it is written, or
    counted among those that were lost.
    """

    text: bytes
    level: int
    lost: Lost | None = None
    told: Callable[[], object] | None = None


class Writer:
    """Takes lines from any thread and never waits; a daemon thread of its own writes them.

    write: the one call that may block; takes bytes, returns how many it wrote, raises OSError.
    tell_lost: makes the line that tells of lost lines. idle: called by the thread before it writes
    or waits; may put lines; returns after how many seconds to call again, None for "not before a
    line comes". ends_whole: whether a line may begin where the next byte goes; None: as far as this
    writer knows. failed: called by the thread where lines could not be written, with the error and
    those of them that are errors.
    Raises OSError where the thread cannot be started.
    """

    def __init__(
        self,
        write: Callable[[memoryview], int],
        tell_lost: Callable[[Lost], bytes],
        *,
        idle: Callable[[], float | None] = lambda: None,
        ends_whole: Callable[[], bool | None] = lambda: None,
        failed: Callable[[OSError, bytes], object] = lambda _error, _lines: None,
        fd: int = -1,
        most_bytes: int = _MOST_BYTES,
        most_lines: int = _MOST_LINES,
    ) -> None:
        self._write = write
        self._tell_lost = tell_lost
        self._idle = idle
        self._ends_whole = ends_whole
        self._failed = failed
        self._fd = fd
        self._most_bytes = most_bytes
        self._most_lines = most_lines
        # With a lock that its holder may take again: a line may come from a finalizer, anywhere.
        self._changed = threading.Condition()
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._lost: Lost | None = None
        # Lines that were dropped, in all.
        self.lines_lost = 0
        self._held = False
        self._writing = False
        self._failing = False
        self._retry_at = 0.0
        # The line on the descriptor has no end yet, and never gets its own.
        self._torn = False
        self._closed = False
        try:
            threading.Thread(target=self._run, name="log", daemon=True).start()
        except RuntimeError as error:
            raise no_thread("for the log", error) from error

    def put(
        self,
        level: int,
        when: float,
        make: Callable[[], bytes],
        told: Callable[[], object] | None = None,
    ) -> None:
        """Queue a line, or drop and count it. make: called only where there is room.

        told: called once it is written or dropped, perhaps by the thread. Must not raise.
        """
        with self._changed:
            if self._lost is not None and self._has_room(0):
                self._queue_lost()
            if not self._has_room(level):
                self._lose(Lost(when, 1, level >= logging.ERROR))
                self.lines_lost += 1
                if told is not None:
                    told()
                return
            self._append(_Line(make(), level, told=told))
            if level >= logging.ERROR:
                self._held = False
            self._changed.notify_all()

    def hold(self) -> None:
        """Write nothing until `go_on`, or until there is an error to tell of."""
        with self._changed:
            self._held = True

    def go_on(self, first: bytes = b"") -> None:
        """Write again; `first` comes before all that waits, and is never dropped."""
        with self._changed:
            self._held = False
            if first:
                self._lines.appendleft(_Line(first, logging.CRITICAL))
                self._bytes += len(first)
            self._changed.notify_all()

    def wake(self) -> None:
        """Have the thread call `idle` soon, also where no line comes."""
        with self._changed:
            self._changed.notify_all()

    def begins_elsewhere(self) -> None:
        """For the thread: what it writes next does not follow what it wrote last."""
        self._torn = False

    def flush(self, seconds: float) -> bool:
        """Wait so long at most until all is written; whether it is."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._lines or self._writing:
                left = end - time.monotonic()
                if left <= 0 or self._held:
                    return False
                self._changed.wait(left)
        return True

    def close(self) -> None:
        """Let the thread end, once it has written what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # With the lock held --------------------------------------------------------------------------

    def _has_room(self, level: int) -> bool:
        share = next((share for below, share in _SHARES if level < below), 1.0)
        return (
            self._bytes < self._most_bytes * share and len(self._lines) < self._most_lines * share
        )

    def _append(self, line: _Line) -> None:
        self._lines.append(line)
        self._bytes += len(line.text)

    def _lose(self, lost: Lost) -> None:
        if self._lost is None:
            self._lost = lost
        else:
            self._lost.add(lost)

    def _queue_lost(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            self._append(_Line(self._tell_lost(lost), logging.CRITICAL, lost))

    def _take(self) -> list[_Line]:
        """The next lines, as many as one call writes whole beside other writers."""
        lines: list[_Line] = []
        # Behind a torn line another end comes first.
        room = select.PIPE_BUF - 1
        while self._lines and (not lines or len(self._lines[0].text) <= room):
            line = self._lines.popleft()
            self._bytes -= len(line.text)
            room -= len(line.text)
            lines.append(line)
        return lines

    # The thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while (lines := self._next()) is not None:
            if lines:
                self._out(lines)

    def _next(self) -> list[_Line] | None:
        """The lines to write now, none where `idle` is due; None at the end."""
        seconds = self._idle()
        with self._changed:
            self._writing = False
            if not self._lines and not self._wait_s():
                self._queue_lost()
            woken = self._held or not self._lines
            if woken:
                if self._closed:
                    return None
                self._changed.notify_all()
                if self._lost is not None and (wait_s := self._wait_s()):
                    seconds = wait_s if seconds is None else min(seconds, wait_s)
                self._changed.wait(seconds)
            self._writing = bool(self._lines) and not self._held
        if woken:
            # Lines come in company. To be woken for each would cost more than to write it. And
            # `idle` has its turn before the first of them.
            time.sleep(_COMPANY_S)
            return []
        with self._changed:
            return [] if self._held else self._take()

    def _out(self, lines: list[_Line]) -> None:
        data = b"".join(line.text for line in lines)
        is_whole = self._ends_whole()
        if self._torn if is_whole is None else not is_whole:
            data = b"\n" + data
        view = memoryview(data)
        written, error = self._write_all(view)
        self._failing = error is not None
        for line in lines:
            if line.told is not None:
                line.told()
        if error is None:
            self._torn = False
            return
        self._retry_at = time.monotonic() + _RETRY_S
        # What is on the descriptor stays there: whoever reads it sees a torn line end.
        self._torn = data[written - 1 : written] != b"\n" if written else self._torn
        at = len(data) - sum(len(line.text) for line in lines)
        errors = b""
        with self._changed:
            for line in lines:
                at += len(line.text)
                if at > written:
                    is_error = line.lost is None and line.level >= logging.ERROR
                    errors += line.text if is_error else b""
                    self.lines_lost += line.lost is None
                    self._lose(line.lost or Lost(time.time(), 1, is_error))
        self._failed(error, errors)

    def _wait_s(self) -> float:
        """How long to wait before a line alone tells of what was lost."""
        return max(0.0, self._retry_at - time.monotonic()) if self._failing else 0.0

    def _write_all(self, view: memoryview) -> tuple[int, OSError | None]:
        """How many bytes were written, and why not all, if that failed."""
        written = 0
        while written < len(view):
            try:
                written += self._write(view[written : _end_of(view, written)])
            except BlockingIOError:
                # Somebody who shares the descriptor has made it non-blocking.
                self._await_room()
            except OSError as error:
                # Nobody there (EPIPE, EBADF), or no space: the next line may fare better.
                return written, error
        return written, None

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()


def _end_of(view: memoryview, at: int) -> int:
    """Up to where one call writes lines whole beside other writers, from `at` on.

    A record with a traceback has many lines, and each of them is a line of the log.
    """
    most = at + select.PIPE_BUF
    if len(view) <= most:
        return len(view)
    lines = bytes(view[at:most]).rfind(b"\n") + 1
    # A longer line, which nobody here makes, is at least not cut.
    return at + (lines or bytes(view[at:]).find(b"\n") + 1 or len(view) - at)

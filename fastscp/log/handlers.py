"""The handlers of the root logger, and how a process sets up its logging."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TextIO

from fastscp.log.fields import fields
from fastscp.log.form import TRACE, JsonFormatter, TextFormatter, timestamp
from fastscp.log.repeats import Repeats
from fastscp.log.target import Target
from fastscp.log.text import counted
from fastscp.log.writer import Lost, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from fastscp.log.repeats import Summary

__all__ = [
    "LEVELS",
    "Direct",
    "Queued",
    "announce",
    "beside",
    "configure",
    "copy_to",
    "flush",
    "hold",
    "lines_lost",
    "once_told",
    "reopen",
]

LEVELS: Final = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_STDERR: Final = 2
# How long the end of a process waits for its last lines.
_LAST_LINES_S: Final = 1.0
# How often stderr is told that a file takes no lines.
_AGAIN_S: Final = 60.0
# How soon the thread looks again, where somebody else was about to do its work.
_SOON_S: Final = 0.05


def once_told(told: Callable[[bool], None]) -> Mapping[str, object]:
    """`extra` for a line of which somebody has to know that the log has it; for `Queued` alone.

    told: called with True once the line is written, or counted among those that were lost; with
    False where it is not shown, but counted with others of its kind. From any thread; must not
    raise.
    """
    return {"once_told": told}


class Direct(logging.StreamHandler[TextIO]):
    """Writes at once, and waits for the reader: for commands whose lines stand among output."""


class Queued(logging.Handler):
    """Hands lines to a writer: whoever logs never waits for whoever reads the log.

    A line is formed where it is logged, for what it tells may change; only writing is put off.
    repeats: which of the lines that peers cause are shown; at level debug and below all are. file:
    to write to instead of what `write` does; raises LogFileError where that cannot be opened.
    """

    def __init__(
        self,
        write: Callable[[memoryview], int] | None,
        formatter: logging.Formatter,
        repeats: Repeats,
        *,
        fd: int = -1,
        file: str = "",
    ) -> None:
        self._repeats = repeats
        self._patience_s = _LAST_LINES_S
        # The writer's thread looks for it.
        self.lock = None
        self.target = Target(self._tell_target)
        # Who wants to see each line that is shown; must not raise.
        self.copy: Callable[[logging.LogRecord], object] | None = None
        # What it is to be: another one than the target's where that cannot be opened.
        self.file = file
        # When it was said last that the file cannot be written.
        self._said_at = -_AGAIN_S
        if file:
            self.target.open(file)
        try:
            self.writer = Writer(
                write or self.target.write, self._lost_line, idle=self._before_next,
                ends_whole=self.target.ends_whole, failed=self._say_instead, fd=fd,
            )  # fmt: skip
        except OSError:
            self.target.close()
            raise
        # From here on the end of the process flushes and closes it: it has to be whole before.
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        why = getattr(record, "caused", None)
        told: Callable[[bool], None] | None = getattr(record, "once_told", None)
        if why is not None and logging.getLogger().level > logging.DEBUG:
            self._say_over()
            if not self._repeats.shows(why, record.levelno):
                if told is not None:
                    told(False)
                return
        if getattr(record, "concludes", False):
            self._say(self._repeats.over_of_ours())
        self._put(record, None if told is None else partial(told, True))

    def flush(self) -> None:
        """Write what waits, within a second in all, however often it is asked for."""
        self.acquire()
        try:
            self._say_over(all_of_them=True)
        finally:
            self.release()
        if not self.writer.flush(self._patience_s):
            self._patience_s = 0.0

    def go_to(self, file: str) -> None:
        """Write to this file, opened anew, from now on; stderr where it is empty."""
        self.file = file
        self.target.ask(file)
        self.writer.wake()

    def close(self) -> None:
        self.writer.close()
        super().close()

    def _put(self, record: logging.LogRecord, told: Callable[[], object] | None = None) -> None:
        self.writer.put(record.levelno, record.created, lambda: self._form(record), told)
        if self.copy is not None:
            # A bug of whoever logs: the line itself says so. Or there is no loop any more to wake.
            with contextlib.suppress(Exception):
                self.copy(record)

    def _form(self, record: logging.LogRecord) -> bytes:
        try:
            return f"{self.format(record)}\n".encode()
        except Exception as error:
            # A bug of whoever logs; it must not cost more than its line.
            text = f"a line of {record.name} cannot be formed ({type(error).__name__})"
            return f"{self.format(_record(logging.ERROR, text))}\n".encode()

    def _say_over(self, *, all_of_them: bool = False) -> None:
        self._say(self._repeats.over(all_of_them=all_of_them))

    def _say(self, counted: Sequence[Summary]) -> None:
        for one in counted:
            self._put(_record(one.level, one.text, one.extra))

    def _before_next(self) -> float | None:
        if self.target.refresh():
            self.writer.begins_elsewhere()
        return self._tell_repeats()

    def _tell_target(self, text: str) -> None:
        # Past the lock, whose holder may wait for the thread that this is.
        self._put(_record(logging.ERROR, text))

    def _say_instead(self, error: OSError, errors: bytes) -> None:
        """Say on stderr what a file does not take: why, now and then, and each error."""
        why, now = self.target.why(error), time.monotonic()
        if not why:
            return
        if now - self._said_at >= _AGAIN_S:
            self._said_at = now
            said = f"fastscp: --log-file: {why}; until that is put right errors are told here\n"
            _written_at_once(said.encode())
        if errors:
            # No more than goes at once.
            _written_at_once(errors[: select.PIPE_BUF - 1].rstrip(b"\n") + b"\n")

    def _tell_repeats(self) -> float | None:
        """For the writer's thread: say what is due; returns when to ask again.

        Does not wait for the lock: its holder may wait for the thread, in `flush`.
        """
        if self.lock is None or not self.lock.acquire(blocking=False):
            return _SOON_S
        try:
            self._say_over()
            due = self._repeats.next_s
        finally:
            self.lock.release()
        return None if due is None else max(_SOON_S, due)

    def _lost_line(self, lost: Lost) -> bytes:
        errors = f", {lost.errors:,} of them errors," if lost.errors else ""
        text = (
            f"{counted(lost.lines, 'line was', 'lines were')} lost since {timestamp(lost.since)}"
            f"{errors} for want of room: whoever reads this log is too slow or stopped, or what it "
            "is written to is full"
        )
        return self._form(_record(logging.WARNING, text, fields(lines_lost=lost.lines)))


def _record(level: int, text: str, extra: Mapping[str, object] | None = None) -> logging.LogRecord:
    record = logging.LogRecord("fastscp.log", level, "", 0, "%s", (text,), None)
    vars(record).update(extra or {})
    return record


def configure(
    role: str,
    level: str = "info",
    form: str = "text",
    stream: TextIO | None = None,
    *,
    queued: bool = False,
    file: str = "",
) -> None:
    """Set up the logging of this process; may be called again to change it.

    role: which process speaks, as `main` or `worker-1`. level: a key of LEVELS. form: `text` or
    `json`. stream: stderr if None. queued: as the service needs it, on stderr or in a file: nobody
    waits for whoever reads the log. file: absolute; empty: stderr.
    Raises LogFileError where the file cannot be opened the first time; later that is logged, and
    the log goes on where it went. Raises OSError where there is no thread to be had.
    """
    logging.addLevelName(TRACE, "TRACE")
    # Neither form names a thread, a process number or a line of code, which are dear to find out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    if queued:
        _keep_standard_descriptors()
    make = JsonFormatter if form == "json" else TextFormatter
    formatter = make(role, for_journal=stream is None and not file and _journal_reads())
    root = logging.getLogger()
    root.setLevel(LEVELS[level])
    before = _queued()
    if queued and before is not None:
        before.setFormatter(formatter)
        if file != before.file:
            before.go_to(file)
        return
    handler: logging.Handler
    if queued:
        handler = Queued(None, formatter, Repeats(), fd=_STDERR, file=file)
        _take_over_tracebacks()
    else:
        handler = Direct(sys.stderr if stream is None else stream)
        handler.setFormatter(formatter)
    for old in [old for old in root.handlers if isinstance(old, Direct | Queued)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)


def _queued() -> Queued | None:
    return next((one for one in logging.getLogger().handlers if isinstance(one, Queued)), None)


def _journal_reads() -> bool:
    """Whether stderr is the socket that systemd made for its journal.

    A service that was started by systemd, and whose stderr somebody redirected, has the variable,
    too: so it names the device and inode. Source: systemd.exec(5).
    """
    device, _colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(_STDERR)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _keep_standard_descriptors() -> None:
    """Fill 0 to 2 where they are closed: a file of the store in their place would get our lines."""
    for fd in range(_STDERR + 1):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _take_over_tracebacks() -> None:
    """Log what the interpreter would print on stderr by itself, and wait for the reader."""
    log = logging.getLogger("fastscp.log")

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        log.critical("the process ends, for nobody expected this", exc_info=(kind, error, trace))

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        error = found.exc_value or found.exc_type()
        log.error(
            "an error that no caller got: %s", found.err_msg or "ignored",
            exc_info=(found.exc_type, error, found.exc_traceback),
        )  # fmt: skip

    def in_thread(found: threading.ExceptHookArgs) -> None:
        error = found.exc_value or found.exc_type()
        log.error("a thread ended", exc_info=(found.exc_type, error, found.exc_traceback))

    sys.excepthook, sys.unraisablehook, threading.excepthook = uncaught, unraisable, in_thread
    logging.captureWarnings(True)


def hold() -> None:
    """Keep the lines of this process back until `announce`, or until one of them is an error.

    Their number is bounded as ever. A log in a file keeps nothing back.
    """
    handler = _queued()
    if handler is not None and not handler.target.path:
        handler.writer.hold()


def announce(lines: Sequence[str] = ()) -> None:
    """Write these lines as they are, before all that was held back, and go on with that.

    A log of JSON lines, or in a file, repeats them in its own form. Where nothing is queued they go
    to stderr directly, and where the log is a file, unless stderr is full.
    """
    text = "".join(f"{line}\n" for line in lines)
    handler = _queued()
    if handler is not None and handler.target.path:
        for line in lines:
            logging.getLogger("fastscp.main").info("%s", line)
        if text and not _written_at_once(text.encode()):
            logging.getLogger("fastscp.main").warning(
                "nobody reads stderr: where the service listens is not written there"
            )
        handler.writer.go_on()
    elif handler is not None:
        if isinstance(handler.formatter, JsonFormatter):
            for line in lines:
                logging.getLogger("fastscp.main").info("%s", line)
        handler.writer.go_on(text.encode())
    elif text:
        print(text, end="", file=sys.stderr, flush=True)  # noqa: T201


def _written_at_once(data: bytes) -> bool:
    """Write to stderr if that needs no waiting; whether it was."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    try:
        return bool(poll.poll(0)) and os.write(_STDERR, data) == len(data)
    except OSError:
        return False


def beside(text: str) -> None:
    """Say on stderr what a log in a file tells where nobody may see it; nothing if it is full."""
    handler = _queued()
    if handler is not None and handler.target.path:
        _written_at_once(f"fastscp: {text}\n".encode())


def reopen() -> None:
    """Have a log in a file opened anew: the file may have been moved away, and another one made.

    The thread that writes does it, before its next line. What cannot be opened is logged, and the
    log goes on where it went.
    """
    handler = _queued()
    if handler is not None and handler.file:
        handler.go_to(handler.file)


def flush() -> None:
    """Write what waits, within about a second, before something else speaks on stderr."""
    handler = _queued()
    if handler is not None:
        handler.flush()


def copy_to(copy: Callable[[logging.LogRecord], object] | None) -> None:
    """Show each line of this process's log that is written to somebody else, too; None: to nobody.

    copy: called from any thread, with locks of the log held: it must not wait.
    """
    handler = _queued()
    if handler is not None:
        handler.copy = copy


def lines_lost() -> int:
    """How many lines of this process's log were dropped by now."""
    handler = _queued()
    return 0 if handler is None else handler.writer.lines_lost

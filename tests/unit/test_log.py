"""Log lines: their form, and that nobody outside can write one."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import select
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fastscp import log
from fastscp.log import TRACE, caused, concluding, in_json, once_told, printable, shown
from fastscp.log.handlers import Queued
from fastscp.log.repeats import Repeats
from fastscp.log.writer import Writer
from tests.kit import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("fastscp.test")


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("CT1", "CT1"),
        (b"CT1\x00", r"CT1\x00"),
        ("a\r\nINFO main: forged", r"a\r\nINFO main: forged"),
        ("tab\t", r"tab\t"),
        ("back\\slash", r"back\\slash"),
        ("\\n", r"\\n"),
        ("\x1b[31m", r"\x1b[31m"),
        ("right\u202eleft", r"right\u202eleft"),
        ("line\u2028end", r"line\u2028end"),
        ("joined\u200d", r"joined\u200d"),
        ("no-break\xa0", r"no-break\xa0"),
        ("\ud800", r"\ud800"),
        ("Müller", "Müller"),
        (b"M\xfcller\x85", r"Müller\x85"),
        ("", ""),
    ],
)
def test_printable(value: bytes | str, expected: str) -> None:
    assert printable(value) == expected
    assert printable(value).isprintable()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a\\b", r"a\\b"),
        (b"a\xff", r"a\xff"),
        (rb"a\xff", r"a\\xff"),
        (b"a\\\xff", r"a\\\xff"),
        ("ü\n".encode(), "ü\n"),
    ],
)
def test_names_in_json(name: bytes, expected: str) -> None:
    """Two names that need an escape never look alike."""
    assert in_json(os.fsdecode(name)) == expected


def configured(level: str = "info", form: str = "text") -> io.StringIO:
    stream = io.StringIO()
    log.configure("worker-1", level, form, stream)
    return stream


def test_text() -> None:
    stream = configured()
    logger.info("association from %s", "10.0.0.1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO worker-1: association from 10\.0\.0\.1\n",
        stream.getvalue(),
    )


def test_time_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured()
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "m", None, None)
    record.created, record.msecs = 0.25, 250.0
    logging.getLogger().handle(record)
    assert stream.getvalue().startswith("1970-01-01T00:00:00.250Z INFO ")


def test_json() -> None:
    stream = configured(form="json", level="debug")
    logger.debug("title %s", "a\nb")
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "debug",
        "role": "worker-1",
        "logger": "fastscp.test",
        "message": r"title a\nb",
    }


def test_a_message_is_one_line() -> None:
    stream = configured()
    logger.warning("title %s", "x\n1970-01-01T00:00:00.000Z INFO main: all is well")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_traceback_cannot_forge_a_line(form: str) -> None:
    stream = configured(form=form)
    try:
        raise RuntimeError("x\n1970-01-01T00:00:00.000Z INFO main: all is well\x1b[2J")
    except RuntimeError:
        logger.exception("it broke")
    lines = stream.getvalue().splitlines()
    if form == "json":
        assert len(lines) == 1
        assert any("all is well" in line for line in json.loads(lines[0])["traceback"])
    else:
        assert lines[0].endswith("ERROR worker-1: it broke")
        assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "shown"),
    [("trace", 4), ("debug", 3), ("info", 2), ("warning", 1), ("error", 0)],
)
def test_levels(level: str, shown: int) -> None:
    stream = configured(level=level)
    logger.log(TRACE, "pdu")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    assert len(stream.getvalue().splitlines()) == shown
    if level == "trace":
        assert " TRACE " in stream.getvalue()


def test_configuring_again_replaces() -> None:
    first, second = configured(), configured()
    logger.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


# Texts of peers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("short", "short"),
        ("x" * 100, "x" * 100),
        ("x" * 300_000, "x" * 100 + "... (300000 characters)"),
        (b"x" * 101, "x" * 100 + "... (101 bytes)"),
        # Escapes count as they are written.
        ("\n" * 60, r"\n" * 50 + "... (60 characters)"),
    ],
)
def test_shown_is_cut(value: bytes | str, expected: str) -> None:
    assert shown(value) == expected


def test_a_long_message_is_cut() -> None:
    stream = configured()
    logger.info("title %s", "x" * 300_000)
    assert len(stream.getvalue()) < 2200
    assert "... (300006 characters)" in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_long_traceback_is_cut(form: str) -> None:
    stream = configured(form=form)

    def deeper(n: int) -> None:
        if n:
            deeper(n - 1)
        raise RuntimeError("x" * 10_000 + "\ny" * 1000)

    try:
        deeper(50)
    except RuntimeError:
        logger.exception("it broke")
    assert len(stream.getvalue()) < 40_000
    assert " lines)" in stream.getvalue()


def test_a_traceback_shows_no_path() -> None:
    """A layout may put a PatientID into a path, and an OSError quotes it."""
    stream = configured()
    try:
        try:
            os.stat("/PAT-4711/1.2.3.dcm")
        except OSError as error:
            raise RuntimeError("cannot compare") from error
    except RuntimeError:
        logger.exception("it broke")
    assert "No such file or directory: (path left out)" in stream.getvalue()
    assert "4711" not in stream.getvalue().replace('os.stat("/PAT-4711/1.2.3.dcm")', "")


# The queue ----------------------------------------------------------------------------------------


class Sink:
    """What a writer writes to: a descriptor whose reader can stop, and that can fail."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.reads = threading.Event()
        self.reads.set()
        self.waited_for = threading.Event()
        self.error = 0
        self.most = 1 << 20

    def write(self, data: memoryview) -> int:
        if not self.reads.is_set():
            self.waited_for.set()
            assert self.reads.wait(60)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.calls.append(bytes(data[: self.most]))
        return len(self.calls[-1])

    @property
    def lines(self) -> list[str]:
        return b"".join(self.calls).decode().splitlines()


class Queue:
    """A writer to a sink, closed at the end."""

    def __init__(self, most_bytes: int = 1 << 20, most_lines: int = 8192) -> None:
        self.sink = Sink()
        self.writer = Writer(
            self.sink.write,
            lambda lost: f"{lost.lines} lost since {lost.since:g}, {lost.errors} errors\n".encode(),
            most_bytes=most_bytes,
            most_lines=most_lines,
        )

    def put(self, text: str, level: int = logging.INFO, when: float = 0.0) -> None:
        self.writer.put(level, when, lambda: f"{text}\n".encode())

    def stop_reading(self) -> None:
        """From here on the thread hangs in a write, with one line in its hands."""
        self.sink.reads.clear()
        self.put("in hand")
        assert self.sink.waited_for.wait(60)

    def go_on(self) -> list[str]:
        """Read again; returns all lines."""
        self.sink.reads.set()
        assert self.writer.flush(20)
        # What was lost is told of once all else is written.
        assert self.writer.flush(20)
        return self.sink.lines


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue(most_bytes=1000, most_lines=1000)
    yield made
    made.sink.reads.set()
    made.writer.close()


def test_lines_come_in_order(queue: Queue) -> None:
    for n in range(100):
        queue.put(str(n))
        if n % 10 == 0:
            assert queue.writer.flush(20)
    assert queue.go_on() == [str(n) for n in range(100)]


def test_a_full_queue_drops_and_counts(queue: Queue) -> None:
    queue.stop_reading()
    for n in range(1000):
        queue.put(f"line {n:04}", when=float(n))
    lines = queue.go_on()
    kept = [line for line in lines if line.startswith("line")]
    # INFO fills three quarters of the queue.
    assert kept == [f"line {n:04}" for n in range(75)]
    assert lines == ["in hand", *kept, "925 lost since 75, 0 errors"]


def test_no_line_of_a_record_with_many_is_cut_in_two_calls(queue: Queue) -> None:
    """As one with a traceback: another process may write between two calls."""
    record = "\n".join(f"{n:02} {'x' * (n * 7 % 300)}" for n in range(99))
    assert len(record) > 3 * select.PIPE_BUF
    queue.put(record)
    assert queue.go_on() == record.split("\n")
    assert max(map(len, queue.sink.calls)) <= select.PIPE_BUF
    assert all(call.endswith(b"\n") for call in queue.sink.calls)
    assert len(queue.sink.calls) < 8


def test_the_number_of_lines_is_bounded_too() -> None:
    queue = Queue(most_lines=8)
    try:
        queue.stop_reading()
        for n in range(20):
            queue.put("", when=float(n))
        assert queue.go_on() == ["in hand", *[""] * 6, "14 lost since 6, 0 errors"]
    finally:
        queue.writer.close()


def test_errors_find_room_where_the_rest_is_dropped(queue: Queue) -> None:
    queue.stop_reading()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        for _ in range(200):
            queue.put(f"{level} xxxxxx", level)
    lines = queue.go_on()
    kept = [sum(line.startswith(f"{level} x") for line in lines) for level in (10, 20, 30, 40)]
    assert kept == [50, 25, 13, 12]
    assert lines[-1] == f"{800 - 100} lost since 0, {200 - 12} errors"


def test_what_was_lost_is_told_before_what_came_after(queue: Queue) -> None:
    queue.stop_reading()
    for _ in range(200):
        queue.put("x" * 9)
    assert queue.go_on()[-1] == "125 lost since 0, 0 errors"
    queue.put("after")
    assert queue.go_on()[-2:] == ["125 lost since 0, 0 errors", "after"]
    assert queue.writer.lines_lost == 125


def test_lines_are_written_whole_and_together() -> None:
    """Lines up to PIPE_BUF are not cut in two calls: others write to the same descriptor."""
    big = Queue()
    try:
        big.stop_reading()
        for n in range(1000):
            big.put(f"{n:050}")
        big.put("x" * 10_000)
        big.go_on()
        assert all(call.endswith(b"\n") for call in big.sink.calls)
        assert max(len(call) for call in big.sink.calls[:-1]) <= select.PIPE_BUF
        assert len(big.sink.calls) < 20
    finally:
        big.writer.close()


def test_a_short_write_is_gone_on_with(queue: Queue) -> None:
    queue.sink.most = 3
    queue.put("a line of some length")
    queue.put("and another")
    assert queue.go_on() == ["a line of some length", "and another"]


@pytest.mark.parametrize("error", [errno.EPIPE, errno.EBADF, errno.ENOSPC, errno.EIO])
def test_a_descriptor_that_fails_ends_nothing(queue: Queue, error: int) -> None:
    queue.sink.error = error
    for _ in range(3):
        queue.put("lost", logging.ERROR)
        assert queue.writer.flush(20)
    queue.sink.error = 0
    queue.put("there again")
    first, second = queue.go_on()
    assert first.startswith("3 lost")
    assert first.endswith("3 errors")
    assert second == "there again"
    # The line that tells of lost ones was lost, too, and counts for none.
    assert queue.writer.lines_lost == 3


def test_a_torn_line_gets_an_end() -> None:
    queue = Queue()
    try:
        queue.sink.most = 4
        written = queue.sink.write

        def fails_later(data: memoryview) -> int:
            n = written(data)
            queue.sink.error = errno.ENOSPC
            return n

        queue.writer._write = fails_later
        queue.put("torn line")
        assert queue.writer.flush(20)
        queue.writer._write = written
        queue.sink.error = 0
        queue.put("whole")
        lines = queue.go_on()
        assert lines[0] == "torn"
        assert lines[1].startswith("1 lost")
        assert lines[2:] == ["whole"]
        # That end counts among what is written at once.
        queue.sink.most = 1 << 20
        queue.writer.hold()
        queue.put("x" * 4000)
        queue.put("y" * (select.PIPE_BUF - 4002))
        queue.writer._torn = True
        queue.writer.go_on()
        queue.go_on()
        assert max(map(len, queue.sink.calls)) <= select.PIPE_BUF
    finally:
        queue.writer.close()


def test_who_waits_for_a_line_hears_once_it_is_written_or_lost(queue: Queue) -> None:
    told: list[int] = []
    queue.stop_reading()
    for n in range(3):
        queue.writer.put(logging.INFO, 0.0, lambda: b"x" * 400 + b"\n", partial(told.append, n))
    # There is room for two.
    assert told == [2]
    queue.go_on()
    assert told == [2, 0, 1]
    queue.sink.error = errno.EPIPE
    queue.writer.put(logging.INFO, 0.0, lambda: b"x\n", partial(told.append, 3))
    assert queue.writer.flush(20)
    assert told == [2, 0, 1, 3]
    queue.sink.error = 0


def test_who_waits_for_a_line_hears_that_it_is_only_counted() -> None:
    told: list[bool] = []
    handler = Queued(lambda data: len(data), logging.Formatter(), Repeats())
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    try:
        for n in range(2):
            one = logging.LogRecord("x", logging.INFO, "", 0, "m", (), None)
            vars(one).update({**caused("released", "10.0.0.7", 1), **once_told(told.append)})
            handler.handle(one)
            handler.writer.flush(20)
            assert told == [True, False][: n + 1]
    finally:
        handler.close()


def test_what_is_held_back_comes_after_the_announcement(queue: Queue) -> None:
    queue.writer.hold()
    for _ in range(200):
        queue.put("x" * 9)
    assert not queue.writer.flush(0)
    assert queue.sink.calls == []
    queue.writer.go_on(b"listening\n")
    lines = queue.go_on()
    assert lines[0] == "listening"
    assert lines[1:] == ["x" * 9] * 75 + ["125 lost since 0, 0 errors"]


def test_an_error_is_not_held_back(queue: Queue) -> None:
    queue.writer.hold()
    queue.put("x")
    assert not queue.writer.flush(0)
    queue.put("broken", logging.ERROR)
    assert queue.writer.flush(20)
    queue.writer.go_on(b"listening\n")
    assert queue.go_on() == ["x", "broken", "listening"]


def test_the_end_waits_for_a_stopped_reader_only_so_long(queue: Queue) -> None:
    queue.stop_reading()
    assert not queue.writer.flush(0.01)


# Repeats ------------------------------------------------------------------------------------------


class Service:
    """The handler of the service, whose repeats have a clock of the test's own."""

    def __init__(self, level: int = logging.INFO) -> None:
        self.now = 0.0
        self.sink = Sink()
        repeats = Repeats(lambda: self.now, interval_s=10.0, pairs=3)
        self.handler = Queued(
            self.sink.write, logging.Formatter("%(levelname)s %(message)s"), repeats
        )
        self.logger = logging.Logger("fastscp.test")
        self.logger.addHandler(self.handler)
        logging.getLogger().setLevel(level)

    def lines(self) -> list[str]:
        assert self.handler.writer.flush(20)
        lines, self.sink.calls = self.sink.lines, []
        return lines


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.handler.close()


def test_what_lines_tell_of_is_added_up(service: Service) -> None:
    for n in range(1239):
        service.logger.info("end %d", n, extra=caused("released", "10.0.0.7", 50, (n, 1)))
    service.logger.info("echoed", extra=caused("released", "10.0.0.8", 50, (0, 0)))
    assert len(service.lines()) == 51
    service.now += 10
    service.logger.info("next", extra=caused("released", "10.0.0.7", 50, (1, 0)))
    stored = sum(range(50, 1239))
    assert service.lines() == [
        (
            "INFO released: and 1,189 more from 10.0.0.7 within 10 s "
            f"(stored {stored:,}, refused 1,189)"
        ),
        "INFO next",
    ]


def test_repeats_are_counted(service: Service) -> None:
    for n in range(1239):
        service.logger.info("rejected %d", n, extra=caused("rejected", "10.0.0.7"))
    service.logger.info("rejected", extra=caused("rejected", "10.0.0.8"))
    service.logger.info("aborted", extra=caused("aborted", "10.0.0.7"))
    service.logger.info("released")
    assert service.lines() == [
        *(f"INFO rejected {n}" for n in range(5)),
        "INFO rejected",
        "INFO aborted",
        "INFO released",
    ]
    service.now = 10.0
    service.logger.info("rejected again", extra=caused("rejected", "10.0.0.7"))
    assert service.lines() == [
        "INFO rejected: and 1,234 more from 10.0.0.7 within 10 s",
        "INFO rejected again",
    ]


def test_what_is_over_is_counted_before_it_is_over(service: Service) -> None:
    """Else a reader takes the count for what came after."""
    for _ in range(4):
        service.logger.error("cannot write", extra=caused("cannot write", shown=1))
        service.logger.info("rejected", extra=caused("rejected", "10.0.0.7", 3))
    service.now = 5.0
    service.logger.error("storing again", extra=concluding())
    service.logger.error("cannot write", extra=caused("cannot write", shown=1))
    assert service.lines()[4:] == [
        "ERROR cannot write: and 3 more within 5 s",
        "ERROR storing again",
        # What is told of now is new. And what peers cause goes on.
        "ERROR cannot write",
    ]
    service.now = 10.0
    service.logger.info("x")
    service.handler.flush()
    assert service.lines() == ["INFO x", "INFO rejected: and 1 more from 10.0.0.7 within 10 s"]


def test_the_highest_level_of_what_is_hidden_is_kept(service: Service) -> None:
    for level in (logging.INFO, logging.ERROR, logging.WARNING):
        service.logger.log(level, "x", extra=caused("x", shown=0))
    service.handler.flush()
    assert service.lines() == ["ERROR x: and 3 more within 1 s"]


def test_the_thread_tells_when_an_interval_is_over(service: Service) -> None:
    """Nobody logs any more."""
    for _ in range(7):
        service.logger.info("x", extra=caused("x", "10.0.0.7"))
    assert service.lines() == ["INFO x"] * 5
    service.now = 9.98
    # The thread asks anew after each line it writes.
    service.logger.info("other")
    service.now = 10.0
    wait_for(lambda: b"2 more" in b"".join(service.sink.calls), "the count")


def test_addresses_take_a_bounded_place(service: Service) -> None:
    for n in range(1000):
        service.logger.info("x", extra=caused("x", f"10.0.{n // 256}.{n % 256}"))
    assert service.lines() == ["INFO x"] * 8
    service.handler.flush()
    assert service.lines() == ["INFO x: and 992 more from other addresses within 1 s"]
    assert service.handler._repeats.next_s is None


def test_debug_shows_every_line() -> None:
    made = Service(logging.DEBUG)
    for _ in range(100):
        made.logger.info("x", extra=caused("x", "10.0.0.7"))
    assert len(made.lines()) == 100
    made.handler.close()


def test_a_line_that_cannot_be_formed_costs_itself(service: Service) -> None:
    service.logger.info("%d", "no number")
    service.logger.info("next")
    assert service.lines() == [
        "ERROR a line of fastscp.test cannot be formed (TypeError)",
        "INFO next",
    ]


def test_configuring_a_queue_again_keeps_it_and_its_lines(service: Service) -> None:
    """A second thread would write into the lines of the first."""
    root = logging.getLogger()
    root.addHandler(service.handler)
    service.sink.reads.clear()
    root.warning("one")
    log.configure("worker-2", "error", "json", queued=True)
    root.warning("hidden")
    root.error("two")
    service.sink.reads.set()
    one, two = service.lines()
    assert one == "WARNING one"
    entry = json.loads(two)
    assert (entry["role"], entry["message"]) == ("worker-2", "two")
    assert [one for one in root.handlers if isinstance(one, Queued)] == [service.handler]

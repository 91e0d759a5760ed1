"""What is kept for the page: points of the last hour, refusals in words, the last instances."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fastscp.admin.page.events import _marked
from fastscp.log import Copies, Line
from fastscp.log.copies import _FIELDS
from fastscp.main.history import HOUR_MOST, LATEST_MOST, History
from fastscp.main.page import Page
from fastscp.main.refusals import LINES_MOST, REFUSALS_MOST, Told, refused_so_far
from fastscp.main.summary import Seen
from fastscp.messages.advice import CONTEXTS, REJECTIONS, STATUSES, plain
from fastscp.messages.channel import _LONGEST
from fastscp.messages.page import Marks
from fastscp.messages.rates import a_second, percentile
from fastscp.messages.totals import Counted
from fastscp.messages.worker import SAID_MOST, Said
from fastscp.store.journal import append_fact
from fastscp.store.latest import Latest
from fastscp.store.names import JOURNAL

if TYPE_CHECKING:
    from pathlib import Path

# Rates and percentiles ----------------------------------------------------------------------------


def test_a_rate_needs_time() -> None:
    assert a_second(30, 10, 2.0) == 10.0
    assert a_second(30, 10, 0.0) is None


def buckets_of(numbers: list[int]) -> list[int]:
    found = [0] * 31
    for number in numbers:
        found[number.bit_length()] += 1
    return found


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_are_right_to_a_factor_of_two(share: float) -> None:
    rng = random.Random(3)
    for _ in range(50):
        numbers = sorted(int(rng.lognormvariate(8, 2)) for _ in range(rng.randrange(1, 300)))
        found = percentile(buckets_of(numbers), share)
        exact = numbers[min(len(numbers) - 1, int(share * len(numbers)))]
        assert found is not None
        # Where the share falls between two numbers, either is right.
        below = numbers[max(0, int(share * len(numbers)) - 1)]
        assert below / 2 <= found <= max(1, exact) * 2, (below, found, exact)


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile([0] * 31, 0.5) is None
    assert percentile([4] + [0] * 30, 0.5) == 0.5


# The last hour ------------------------------------------------------------------------------------


def seen(at: float, stored: int, **more: int) -> Seen:
    return Seen(at, stored=stored, bytes=1000 * stored, received=1100 * stored, **more)


def test_points_are_differences_and_bounded() -> None:
    history = History()
    for number in range(5 * HOUR_MOST + 20):
        # Its clock and ours may differ: rates are by the one that never goes back.
        history.look(1e9 + 2 * number, seen(2.0 * number, 50 * number), buckets_of([900] * number))
    assert len(history.latest) == LATEST_MOST
    assert len(history.hour) == HOUR_MOST
    for points in (history.latest, history.hour):
        assert {one.instances for one in points} == {25.0}
        assert {one.bytes for one in points} == {25_000.0}
        assert {one.received for one in points} == {27_500.0}
        assert {one.p50 for one in points} == {0.768}
    times = [one.at for one in history.hour]
    assert {after - before for before, after in itertools.pairwise(times)} == {10.0}


def test_what_was_refused_counts_in_its_point_alone() -> None:
    history = History()
    none = [0] * 31
    for number, (refused, rejected) in enumerate([(0, 0), (3, 1), (3, 1), (3, 2)]):
        now = seen(2.0 * number, 0, refused=refused, rejected=rejected)
        history.look(2.0 * number, now, none)
    assert [(one.refused, one.rejected) for one in history.latest] == [(3, 1), (0, 0), (0, 1)]
    assert {one.p99 for one in history.latest} == {None}


def test_a_clock_that_is_set_back_hides_no_point() -> None:
    snapshot = SimpleNamespace(
        status=None, by_status={}, rejected={}, contexts_refused={}, journal_bytes=0,
        disk_blocked_s=0.0, workers_waiting=0, worker_restarts={}, log_lines_lost=0,
    )  # fmt: skip
    played: Any = SimpleNamespace(
        snapshot=lambda: snapshot, workers=list, endings=SimpleNamespace(known={})
    )

    async def test() -> None:
        page = Page(played, played, played, played, lambda: seen(0.0, 0))
        marks = Marks()
        for number in range(11):
            # It is an hour earlier from the third look on.
            at = 1e9 + 2 * number - (3600 if number > 1 else 0)
            page._history.look(at, seen(2.0 * number, 0), [0] * 31)
            view = page.view(marks, actions=False)
            assert [one.at for one in view.latest] == [at] * bool(number)
            assert len(view.hour) == (number in (5, 10))
            marks = _marked(view, marks)

    asyncio.run(test())


# Refusals in words --------------------------------------------------------------------------------


def line(text: str = "x", **fields: str) -> Line:
    return Line(1.0, "warning", "worker-0", text, fields)


def test_refusals_are_told_with_what_to_do() -> None:
    told = Told()
    told.add([
        line("an end", ended="released"),
        line(ended="rejected", code="1,1,3", reason="'X' from 10.0.0.1", calling_ae="X",
             peer="10.0.0.1:5"),
        line(status="A700", reason="disk full", calling_ae="CT", peer="10.0.0.2:6"),
        line(status="0000"),
        line(refused_classes="CTImageStorage, 'x'", peer="10.0.0.3:7"),
        line(status="FFFF", reason="odd"),
        line(ended="aborted", code="2,0"),
    ])  # fmt: skip
    assert [(one.n, one.what, one.who, one.why, one.advice) for one in told.refusals] == [
        (2, "association rejected (1,1,3)", "X@10.0.0.1:5", "'X' from 10.0.0.1",
         "add it with --allow, or to a [from] table"),
        (3, "instance answered A700", "CT@10.0.0.2:6", "disk full",
         plain(STATUSES["A700"].advice)),
        (5, "presentation contexts refused", "10.0.0.3:7", "CTImageStorage, 'x'",
         plain(CONTEXTS)),
        (6, "instance answered FFFF", "", "odd", "the log says why"),
    ]  # fmt: skip
    assert [one.n for one in told.lines] == [1, 2, 3, 4, 5, 6, 7]


def test_lines_and_refusals_are_bounded() -> None:
    told = Told()
    told.add([line(status="C000")] * 1000)
    assert (len(told.lines), len(told.refusals)) == (LINES_MOST, REFUSALS_MOST)
    assert told.lines[-1].n == told.refusals[-1].n == 1000


def test_what_was_refused_so_far() -> None:
    found = refused_so_far(
        {("0000", "stored"): Counted(5, 6, 0, 0), ("A700", "disk full"): Counted(0, 0, 7, 0)},
        {"1,1,3": 9, "2,3,1": 0}, {"1.2": 1, "1.3": 2}, {"1.2": "CTImageStorage"},
    )  # fmt: skip
    assert [(one.what, one.why, one.count) for one in found] == [
        ("association rejected (1,1,3)", plain(REJECTIONS["1,1,3"].when), 9),
        ("instance answered A700", "disk full", 7),
        ("presentation context refused", "1.3", 2),
        ("presentation context refused", "CTImageStorage", 1),
    ]
    many = {f"1.{number}": 1 for number in range(500)}
    assert len(refused_so_far({}, {}, many, {})) == 30


# Copies of lines ----------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("fastscp.x", level, "", 0, "%s", (text,), None)
    made.fields = fields
    return made


def test_copies_are_fit_to_be_shown() -> None:
    woken: list[int] = []
    copies = Copies("worker-3", lambda: woken.append(1), Clock())
    copies(record("a\nb\x1b[31m <b>", calling_ae="<i>\u202e", refused_classes=["A", "B"], user="U"))
    copies(record("x" * 5000, reason="y" * 5000))
    assert woken == [1]
    first, second = copies.take()
    assert first.role == "worker-3"
    assert first.level == "warning"
    assert first.text == "a\\nb\\x1b[31m <b>"
    # Who a user is does not belong here.
    assert first.fields == {"calling_ae": "<i>\\u202e", "refused_classes": "A, B"}
    assert len(second.text) < 450
    assert len(second.fields["reason"]) < 160
    assert copies.take() == []


def test_whatever_is_in_them_so_many_lines_are_one_message() -> None:
    clock = Clock()
    copies = Copies("worker-255", lambda: None, clock)
    # What takes the most bytes, escaped.
    most = "\U000e0001" * 1000
    fields: dict[str, Any] = dict.fromkeys(_FIELDS, most)
    for _ in range(64):
        clock.now += 1.0
        copies(record(most, **fields))
    lines = copies.take()
    assert len(lines) > SAID_MOST
    assert len(msgspec.msgpack.encode(Said(lines[:SAID_MOST]))) < _LONGEST


def test_copies_are_few_and_warnings_come_first() -> None:
    clock = Clock()
    copies = Copies("main", lambda: None, clock)
    for _ in range(100):
        copies(record("info", logging.INFO))
    infos = len(copies.take())
    assert 0 < infos <= 10
    for _ in range(100):
        copies(record("warning"))
    assert 20 - infos - 1 <= len(copies.take()) <= 20 - infos
    clock.now += 0.5
    for _ in range(100):
        copies(record("warning"))
    assert 9 <= len(copies.take()) <= 11
    # Who is never asked keeps no more than that.
    for _ in range(1000):
        clock.now += 1.0
        copies(record("warning"))
    assert len(copies.take()) == 64


def test_whoever_cannot_be_woken_costs_no_line() -> None:
    from fastscp.log.handlers import Queued

    written: list[bytes] = []

    def write(data: memoryview) -> int:
        written.append(bytes(data))
        return len(data)

    from fastscp.log.form import TextFormatter
    from fastscp.log.repeats import Repeats

    handler = Queued(write, TextFormatter("main"), Repeats())

    def broken(_record: logging.LogRecord) -> None:
        raise RuntimeError("no loop")

    try:
        handler.copy = broken
        handler.handle(record("one"))
        handler.handle(record("two"))
        handler.flush()
        assert b"".join(written).count(b"\n") == 2
    finally:
        handler.close()


# The last instances -------------------------------------------------------------------------------


def fact(number: int) -> dict[str, object]:
    return {"v": 1, "event": "stored", "seq": number}


def test_the_last_lines_of_all_writers(tmp_path: Path) -> None:
    folder = tmp_path / JOURNAL
    folder.mkdir(parents=True)
    store_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        latest = Latest(store_fd, 5)
        assert latest.read() == []
        # The tenth segment of a writer comes behind the ninth, and may be empty yet.
        for name, numbers in {
            "a-w0-1-9": range(2000), "a-w0-1-10": range(2000, 2003), "a-w1-1-1": [5000],
            "a-w1-1-2": [], "0-w0-1-1": [9],
        }.items():  # fmt: skip
            fd = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT)
            for number in numbers:
                append_fact(fd, fact(number))
            os.close(fd)
        assert [one["seq"] for one in latest.read()] == [5000, 2002, 2001, 2000, 1999]
        path = folder / "a-w1-1-2.jsonl"
        with path.open("ab") as file:
            append_fact(file.fileno(), fact(6000))
            # What is not whole is nobody's business, and no reason to see nothing.
            file.write(b'{"v":1,"event":"stored","seq":7000')
        assert [one["seq"] for one in latest.read()][:2] == [6000, 5000]
        with path.open("ab") as file:
            file.write(b'}\n\0\0\0\n{"seq":"x","crc":"00000000"}\n')
        assert [one["seq"] for one in latest.read()][:2] == [6000, 5000]
        path.unlink()
        assert next(one["seq"] for one in latest.read()) == 5000
    finally:
        os.close(store_fd)


def test_no_writer_is_passed_over(tmp_path: Path) -> None:
    """Each worker has several; that of the newest line may have any name."""
    folder = tmp_path / JOURNAL
    folder.mkdir(parents=True)
    for worker in range(100):
        path = folder / f"a-w{worker}-1-1.jsonl"
        with path.open("ab") as file:
            append_fact(file.fileno(), fact(worker * 7 % 100))
        os.utime(path, (worker * 7 % 100, worker * 7 % 100))
        # Made ahead of its need.
        (folder / f"a-w{worker}-1b-1.jsonl").touch()
    store_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        latest = Latest(store_fd, 50)
        assert [one["seq"] for one in latest.read()] == list(range(99, 49, -1))
    finally:
        os.close(store_fd)


def test_what_has_not_grown_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / JOURNAL
    folder.mkdir(parents=True)
    fd = os.open(folder / "a-w0-1-1.jsonl", os.O_WRONLY | os.O_CREAT)
    append_fact(fd, fact(1))
    read: list[int] = []
    real = os.pread

    def pread(fd: int, size: int, at: int) -> bytes:
        read.append(size)
        return real(fd, size, at)

    monkeypatch.setattr("fastscp.store.latest.os.pread", pread)
    store_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        latest = Latest(store_fd, 5)
        for _ in range(3):
            assert [one["seq"] for one in latest.read()] == [1]
        assert len(read) == 1
        append_fact(fd, fact(2))
        assert [one["seq"] for one in latest.read()] == [2, 1]
        assert len(read) == 2
    finally:
        os.close(store_fd)
        os.close(fd)


# The words ----------------------------------------------------------------------------------------


def test_the_sentences_are_the_readmes() -> None:
    from tests.unit.test_readme import rows

    for title, told in (("Statuses of a C-STORE", STATUSES), ("Rejected associations", REJECTIONS)):
        shown = {key: (when, advice) for key, when, advice in rows(title)}
        assert json.dumps(shown) == json.dumps({key: list(one) for key, one in told.items()})
    assert re.search("`", plain(CONTEXTS)) is None

"""What lines tell as fields, and the priority that systemd's journal takes in front of each."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest

from fastscp import log
from fastscp.log import FIELDS, TRACE, Fields, caused, fields, fields_table
from fastscp.log.form import JsonFormatter, TextFormatter, priority
from fastscp.log.handlers import Queued
from fastscp.log.repeats import Repeats
from tests.kit import Service
from tests.unit.test_readme import README

if TYPE_CHECKING:
    from collections.abc import Mapping


def record(text: str, extra: Mapping[str, object]) -> logging.LogRecord:
    made = logging.LogRecord("fastscp.test", logging.WARNING, "", 0, text, (), None)
    vars(made).update(extra)
    return made


def test_every_field_is_described_where_an_operator_looks() -> None:
    assert set(FIELDS) == set(Fields.__annotations__)
    assert fields_table() in README, "write what fastscp.log.fields_table() returns"


def test_fields_of_several_and_of_a_line() -> None:
    extra = {**fields({"peer": "10.0.0.1:104"}, {"ended": "released"}, stored=3), **caused("x")}
    line = json.loads(JsonFormatter("main").format(record("done", extra)))
    assert {name: line[name] for name in ("message", "peer", "ended", "stored")} == {
        "message": "done", "peer": "10.0.0.1:104", "ended": "released", "stored": 3,
    }  # fmt: skip
    assert list(line)[:5] == ["time", "level", "role", "logger", "message"]
    # In words it is the message that tells.
    assert TextFormatter("main").format(record("done", extra)).endswith("WARNING main: done")


def test_text_of_a_peer_in_a_field_is_escaped_and_cut() -> None:
    extra = fields(called_ae="A\x1b[31m\u202e\ud800", refused_classes=["1.2\n", "x" * 1000])
    text = JsonFormatter("main").format(record("x", extra))
    assert text.isprintable()
    line = json.loads(text)
    assert line["called_ae"] == r"A\x1b[31m\u202e\ud800"
    assert line["refused_classes"] == [r"1.2\n", "x" * 300 + "... (1000 characters)"]


@pytest.mark.parametrize("char", ["x", "\\", '"', "\xe9", "\u20ac", "\n", "\U000e0001", "\udcff"])
@pytest.mark.parametrize("journal", [False, True])
def test_no_line_is_longer_than_what_is_written_at_once(char: str, journal: bool) -> None:
    """Whatever a peer's texts take once they are escaped and encoded: bytes count."""
    told: dict[str, Any] = {}
    for name, kind in get_type_hints(Fields).items():
        told[name] = 1 << 48 if kind is int else char * 1000
    told["seconds"] = 123456.789
    told["refused_classes"] = [char * 1000] * 8
    one = record(char * 5000, {"fields": told})
    for make in (TextFormatter, JsonFormatter):
        line = make("worker-63", for_journal=journal).format(one)
        # Its end, and another one in front where a torn line is to be ended.
        assert len(f"\n{line}\n".encode()) <= select.PIPE_BUF
        assert len(line.encode()) > select.PIPE_BUF / 4
    assert json.loads(line[3 * journal :])["rate"] == 1 << 48
    # And what is short is whole.
    text = JsonFormatter("main").format(record("m" * 2000, fields(called_ae="x" * 300)))
    assert (len(json.loads(text)["message"]), len(json.loads(text)["called_ae"])) == (2000, 300)


def test_a_traceback_comes_on_top() -> None:
    try:
        raise ValueError("\n" * 400)
    except ValueError:
        one = record("\xe9" * 5000, fields(called_ae="x"))
        one.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter("main").format(one))
    assert list(line)[-2:] == ["called_ae", "traceback"]
    assert "ValueError" in "".join(line["traceback"])


@pytest.mark.parametrize("char", ["x", "\\", '"', "\u20ac", "\r", "\U000e0001", "\udcff"])
@pytest.mark.parametrize("journal", [False, True])
def test_no_line_of_a_traceback_is_longer_either(char: str, journal: bool) -> None:
    def deeper(n: int) -> None:
        if n:
            deeper(n - 1)
        raise ValueError(f"{char * 600}\n" * 100)

    try:
        deeper(30)
    except ValueError:
        one = record(char * 5000, fields(called_ae=char * 1000))
        one.exc_info = sys.exc_info()
    for make in (TextFormatter, JsonFormatter):
        text = make("worker-63", for_journal=journal).format(one)
        lines = text.encode().split(b"\n")
        assert max(map(len, lines)) <= select.PIPE_BUF - 2
        assert len(lines) == (1 if make is JsonFormatter else 72)
    traced = json.loads(text[3 * journal :])["traceback"]
    # Its ends are what tells.
    assert traced[0].startswith("Traceback")
    assert " lines)" in text
    assert len(traced) >= 5


def test_an_ordinary_traceback_is_whole() -> None:
    try:
        json.loads("nothing")
    except ValueError:
        one = record("a bug ends it", fields(called_ae="x"))
        one.exc_info = sys.exc_info()
    shown = TextFormatter("main").format(one).split("\n  | ")[1:]
    assert json.loads(JsonFormatter("main").format(one))["traceback"] == shown
    assert shown[-1].startswith("json.decoder.JSONDecodeError")


def test_what_is_counted_has_fields_too() -> None:
    sink = io.StringIO()

    def write(data: memoryview) -> int:
        sink.write(bytes(data).decode())
        return len(data)

    handler = Queued(write, JsonFormatter("main"), Repeats())
    root = logging.getLogger()
    level, root.level = root.level, logging.INFO
    try:
        for _ in range(8):
            extra = caused("released", "10.0.0.7", 2, (1, 2))
            handler.handle(record("x", extra))
        handler.flush()
    finally:
        root.level = level
        handler.close()
    last = json.loads(sink.getvalue().splitlines()[-1])
    assert (last["lines_hidden"], last["peer"]) == (6, "10.0.0.7")
    assert (last["stored"], last["refused"]) == (6, 12)


@pytest.mark.parametrize(
    ("level", "number"),
    [(TRACE, 7), (logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3),
     (logging.CRITICAL, 2)],
)  # fmt: skip
def test_priorities(level: int, number: int) -> None:
    assert priority(level) == number


_SPEAKS = """
import logging, sys
from fastscp import log
log.configure("main", form=sys.argv[1], queued=True)
log.hold()
logging.getLogger("fastscp.x").info("said")
log.announce(["listening on 10.0.0.1:104"])
try:
    raise ValueError("a bug")
except ValueError:
    logging.getLogger("fastscp.x").exception("failed")
log.flush()
"""


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("ours", [True, False])
def test_each_line_has_its_priority_where_the_journal_reads(form: str, ours: bool) -> None:
    """And nowhere else: the variable stays where somebody redirects stderr."""
    reader, writer = os.pipe()
    try:
        found = os.fstat(writer)
        stream = f"{found.st_dev}:{found.st_ino if ours else found.st_ino + 1}"
        environment = {**Service.environment(), "JOURNAL_STREAM": stream}
        subprocess.run(
            [sys.executable, "-c", _SPEAKS, form], env=environment, stderr=writer, timeout=60,
            check=True,
        )  # fmt: skip
        lines = os.read(reader, 1 << 16).decode().splitlines()
    finally:
        os.close(reader)
        os.close(writer)
    # The contract of this one: plain text, always.
    assert lines.pop(0) == "listening on 10.0.0.1:104"
    text = "\n".join(lines)
    assert "said" in text
    assert "a bug" in text
    marks = [line[:3] for line in lines]
    if not ours:
        assert not {"<6>", "<3>"} & set(marks)
        return
    failed = next(n for n, line in enumerate(lines) if "failed" in line)
    assert set(marks[:failed]) == {"<6>"}
    # Those of the traceback, too.
    assert set(marks[failed:]) == {"<3>"}
    if form == "json":
        assert all(json.loads(line[3:])["message"] for line in lines)


def test_a_variable_that_is_none_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", ":", "1", "1:2:3", "x:y"):
        monkeypatch.setenv("JOURNAL_STREAM", value)
        assert not log.handlers._journal_reads()

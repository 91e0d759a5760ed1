"""Log lines: their form, and that nobody outside can write one."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING

import pytest

from fastscp import log
from fastscp.log import TRACE, printable

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


def configured(**arguments: str) -> io.StringIO:
    stream = io.StringIO()
    log.configure("worker-1", stream=stream, **arguments)
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

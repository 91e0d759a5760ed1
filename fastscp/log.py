"""Logging: one format for main and workers, on stderr, that no peer can write lines into."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final, TextIO

import msgspec

__all__ = ["LEVELS", "TRACE", "configure", "printable"]

# Below DEBUG: one line per PDU.
TRACE: Final = 5
LEVELS: Final = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def printable(value: bytes | str) -> str:
    """Text that came from outside, on one line and reversible.

    Whatever does not print is written as an escape: control and format characters (they could end
    the line, or reorder it on screen), separators but for the space, and bytes above ASCII that
    have no character. Backslashes are doubled. Bytes are read as latin-1.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return _escape(text.replace("\\", "\\\\"))


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


class _Formatter(logging.Formatter):
    """What both forms share: the time of a record, and its traceback as lines."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def timestamp(self, record: logging.LogRecord) -> str:
        """UTC, ISO 8601, milliseconds."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"

    def traceback(self, record: logging.LogRecord) -> list[str]:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        return text.strip("\n").split("\n") if text else []


class TextFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO worker-1: message`, then a traceback, marked and escaped."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.timestamp(record)} {record.levelname} {self.role}: "
        # Escaped as a whole: a message may quote a peer through somebody else's exception.
        lines = [head + _escape(record.getMessage())]
        lines += [f"  | {_escape(line)}" for line in self.traceback(record)]
        return "\n".join(lines)


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, role, logger, message, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": self.timestamp(record),
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "message": _escape(record.getMessage()),
        }
        lines = self.traceback(record)
        if lines:
            entry["traceback"] = [_escape(line) for line in lines]
        return msgspec.json.encode(entry).decode("utf-8")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours among the handlers of the root logger, so that configuring twice replaces it."""


def configure(
    role: str, level: str = "info", form: str = "text", stream: TextIO | None = None
) -> None:
    """Set up the logging of this process; may be called again to change it.

    role: which process speaks, as `main` or `worker-1`. level: a key of LEVELS. form: `text` or
    `json`. stream: stderr if None.
    """
    logging.addLevelName(TRACE, "TRACE")
    # Neither form names a thread, a process number or a line of code, which are dear to find out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter(role) if form == "json" else TextFormatter(role))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])

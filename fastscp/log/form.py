"""The two forms of a log line: text and JSON."""

from __future__ import annotations

import logging
import time
from typing import Final

import msgspec

from fastscp.log.text import cut, escape

__all__ = ["TRACE", "JsonFormatter", "TextFormatter"]

# Below DEBUG: one line per PDU.
TRACE: Final = 5

# Bounds of one record, in characters and lines. A line without a traceback stays below PIPE_BUF
# this way, so that main and workers, who share stderr, do not write into each other's lines.
_MESSAGE: Final = 2000
_TRACEBACK_LINE: Final = 500
_TRACEBACK_FIRST: Final = 10
_TRACEBACK_LAST: Final = 60
# Of a text in a field of a JSON line, in characters.
_FIELD: Final = 300


class _Formatter(logging.Formatter):
    """What both forms share: the time of a record, its message, its traceback as lines.

    for_journal: systemd's journal reads the lines, and takes a priority in front of each.
    """

    def __init__(self, role: str, *, for_journal: bool = False) -> None:
        super().__init__()
        self.role = role
        self._for_journal = for_journal

    def joined(self, record: logging.LogRecord, lines: list[str]) -> str:
        """The lines of a record as one text, each with its priority where the journal reads it."""
        if self._for_journal:
            mark = f"<{priority(record.levelno)}>"
            lines = [mark + line for line in lines]
        return "\n".join(lines)

    def timestamp(self, record: logging.LogRecord) -> str:
        """UTC, ISO 8601, milliseconds."""
        return timestamp(record.created)

    def message(self, record: logging.LogRecord) -> str:
        # Escaped as a whole: a message may quote a peer through somebody else's exception.
        return escape(cut(record.getMessage(), _MESSAGE))

    def traceback(self, record: logging.LogRecord) -> list[str]:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        if record.exc_info:
            text = _without_file_names(text, record.exc_info[1])
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        if not text:
            return []
        lines = text.strip("\n").split("\n")
        more = len(lines) - _TRACEBACK_FIRST - _TRACEBACK_LAST
        if more > 0:
            lines[_TRACEBACK_FIRST:-_TRACEBACK_LAST] = [f"... ({more} lines)"]
        return [escape(cut(line, _TRACEBACK_LINE)) for line in lines]


def priority(level: int) -> int:
    """The priority of a level, as syslog and systemd's journal number them.

    Source: sd-daemon(3), RFC 5424 6.2.1.
    """
    known = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((number for least, number in known if level >= least), 7)


def timestamp(seconds: float) -> str:
    """UTC, ISO 8601, milliseconds."""
    whole = int(seconds)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{text}.{int((seconds - whole) * 1000):03d}Z"


def _without_file_names(text: str, error: BaseException | None) -> str:
    """The traceback without the paths in its OSErrors.

    A layout may put a PatientID into the path of an instance, and no line may hold one.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError):
            for name in (error.filename, error.filename2):
                if name:
                    text = text.replace(repr(name), "(path left out)")
        error = error.__cause__ or error.__context__
    return text


class TextFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO worker-1: message`, then a traceback, marked and escaped."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.timestamp(record)} {record.levelname} {self.role}: "
        lines = [head + self.message(record)]
        lines += [f"  | {line}" for line in self.traceback(record)]
        return self.joined(record, lines)


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, role, logger, message, its fields, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": self.timestamp(record),
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "message": self.message(record),
        }
        for name, value in getattr(record, "fields", {}).items():
            entry[name] = _fit(value)
        lines = self.traceback(record)
        if lines:
            entry["traceback"] = lines
        return self.joined(record, [msgspec.json.encode(entry).decode("utf-8")])


def _fit(value: object) -> object:
    """The value of a field; text, which may be a peer's, escaped and cut."""
    if isinstance(value, str):
        return escape(cut(value, _FIELD))
    return [_fit(one) for one in value] if isinstance(value, list) else value

"""The two forms of a log line: text and JSON."""

from __future__ import annotations

import logging
import select
import time
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.log.text import cut, escape

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TRACE", "JsonFormatter", "TextFormatter"]

# Below DEBUG: one line per PDU.
TRACE: Final = 5

# Bounds of one record, in characters and lines.
_MESSAGE: Final = 2000
_TRACEBACK_LINE: Final = 500
_TRACEBACK_FIRST: Final = 10
_TRACEBACK_LAST: Final = 60
# Of a text in a field of a JSON line, in characters.
_FIELD: Final = 300

# Bytes of a line, without its traceback. What is written at once stays within PIPE_BUF this way,
# so that main and workers, who share stderr, do not write into each other's lines. There is room
# for the line's end, and for another one in front, which ends a torn line.
_LINE: Final = select.PIPE_BUF - 2
# Where a line is longer, its texts are cut to fewer and fewer characters: how many bytes each of
# them takes is known only once it is encoded.
_SHORTER: Final = (_MESSAGE, 1000, 500, 240, 120, 60, 30, 10, 5)
# And of a traceback inside it so many lines stay, in order: of the first, of the last.
_FEWER: Final = dict(
    zip(
        _SHORTER,
        ((10, 60), (10, 60), (10, 40), (8, 30), (6, 24), (4, 16), (3, 8), (1, 3), (1, 3)),
        strict=True,
    )
)


class _Formatter(logging.Formatter):
    """What both forms share: the time of a record, its message, its traceback as lines.

    for_journal: systemd's journal reads the lines, and takes a priority in front of each.
    """

    def __init__(self, role: str, *, for_journal: bool = False) -> None:
        super().__init__()
        self.role = role
        self._for_journal = for_journal

    def mark(self, record: logging.LogRecord) -> str:
        """What each line of a record begins with: its priority where the journal reads it."""
        return f"<{priority(record.levelno)}>" if self._for_journal else ""

    def timestamp(self, record: logging.LogRecord) -> str:
        """UTC, ISO 8601, milliseconds."""
        return timestamp(record.created)

    def message(self, record: logging.LogRecord, most: int) -> str:
        # Escaped as a whole: a message may quote a peer through somebody else's exception.
        return escape(cut(record.getMessage(), most))

    def traceback(
        self, record: logging.LogRecord, first: int = _TRACEBACK_FIRST, last: int = _TRACEBACK_LAST
    ) -> list[str]:
        """The lines of its traceback, of many only so many: not escaped, and each as it is."""
        text = self.formatException(record.exc_info) if record.exc_info else ""
        if record.exc_info:
            text = _without_file_names(text, record.exc_info[1])
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        if not text:
            return []
        lines = text.strip("\n").split("\n")
        more = len(lines) - first - last
        if more > 0:
            lines[first:-last] = [f"... ({more} lines)"]
        return lines


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
        mark = self.mark(record)
        head = f"{mark}{self.timestamp(record)} {record.levelname} {self.role}: "
        first = _within(lambda most: head + self.message(record, most))
        return "\n".join([first, *(_traced(mark, line) for line in self.traceback(record))])


def _traced(mark: str, line: str) -> str:
    """A line of a traceback, which is a line of the log."""
    return _within(lambda most: f"{mark}  | {escape(cut(line, min(most, _TRACEBACK_LINE)))}")


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, role, logger, message, its fields, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        mark = self.mark(record)
        return _within(lambda most: mark + _encoded(self._entry(record, most)))

    def _entry(self, record: logging.LogRecord, most: int) -> dict[str, object]:
        """The members of a line, each text cut to `most` characters."""
        entry: dict[str, object] = {
            "time": self.timestamp(record),
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "message": self.message(record, most),
        }
        for name, value in getattr(record, "fields", {}).items():
            entry[name] = _fit(value, min(most, _FIELD))
        lines = self.traceback(record, *_FEWER[most])
        if lines:
            entry["traceback"] = [escape(cut(line, min(most, _TRACEBACK_LINE))) for line in lines]
        return entry


def _encoded(entry: dict[str, object]) -> str:
    return msgspec.json.encode(entry).decode()


def _within(make: Callable[[int], str]) -> str:
    """The line that `make` gives, its texts cut to as many characters as let it be whole."""
    line = ""
    for most in _SHORTER:
        line = make(most)
        if len(line) * 4 <= _LINE or len(line.encode()) <= _LINE:
            break
    return line


def _fit(value: object, most: int) -> object:
    """The value of a field; text, which may be a peer's, escaped and cut."""
    if isinstance(value, str):
        return escape(cut(value, most))
    return [_fit(one, most) for one in value] if isinstance(value, list) else value

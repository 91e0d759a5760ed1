"""Copies of log lines, for somebody who shows the last ones. Nobody waits for them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.log.text import cut, escape

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Copies", "Line"]

# Characters of a line, and of each text beside it.
_TEXT: Final = 400
_FIELD: Final = 120
# Fields that tell who was refused what.
_FIELDS: Final = ("calling_ae", "peer", "ended", "code", "status", "reason", "refused_classes")
# Lines that wait, and lines a second, of one process; below warnings half as many.
_WAITING: Final = 64
A_SECOND: Final = 20


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A line as it was logged, cut and escaped: fit to be shown.

    at: seconds of the epoch. fields: of those that tell of a refusal, as text.
    """

    at: float
    level: str
    role: str
    text: str
    fields: dict[str, str] = {}


class Copies:
    """Takes a copy of each line that is shown, as far as there is room and time for them.

    role: which process speaks. wake: called from any thread once there is something to `take`,
    and not again before that; must not raise. clock: seconds that never go back.
    """

    def __init__(
        self,
        role: str,
        wake: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._role = role
        self._wake = wake
        self._clock = clock
        # A line may come from a finalizer, while its thread has it.
        self._lock = threading.RLock()
        self._waiting: deque[Line] = deque()
        self._is_awake = False
        self._room = float(A_SECOND)
        self._seen = clock()

    def __call__(self, record: logging.LogRecord) -> None:
        """Keep a copy of a line, or drop it."""
        with self._lock:
            if not self._has_room(record.levelno):
                return
            self._room -= 1.0
            self._waiting.append(self._copy(record))
            wakes, self._is_awake = not self._is_awake, True
        if wakes:
            self._wake()

    def take(self) -> list[Line]:
        """What came since the last call, the oldest first."""
        with self._lock:
            lines = list(self._waiting)
            self._waiting.clear()
            self._is_awake = False
        return lines

    def _has_room(self, level: int) -> bool:
        now = self._clock()
        self._room = min(A_SECOND, self._room + (now - self._seen) * A_SECOND)
        self._seen = now
        kept = 1.0 if level >= logging.WARNING else 1.0 + A_SECOND / 2
        return self._room >= kept and len(self._waiting) < _WAITING

    def _copy(self, record: logging.LogRecord) -> Line:
        found = getattr(record, "fields", {})
        told = {name: _text(found[name]) for name in _FIELDS if name in found}
        text = escape(cut(record.getMessage(), _TEXT))
        return Line(record.created, record.levelname.lower(), self._role, text, told)


def _text(value: object) -> str:
    whole = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(cut(whole, _FIELD))

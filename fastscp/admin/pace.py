"""How much of main's time those who ask the service may have: each kind of them a small part.

Over HTTP what they cost is measured step by step: reading, parsing, making an answer, sending it.
"""

from __future__ import annotations

import asyncio
import math
import time
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ["Pace", "Share"]

# One part in so many of the loop's time is theirs.
SHARE: Final = 10
# But nobody waits for longer because of what others have cost: a loop that was late for other
# reasons is soon itself again, and clients lose patience.
TURN_MOST_S: Final = 2.0
# What is due so soon is due: the loop's timers count in milliseconds, and call at once where less
# than half a one is left, so whoever waited for that would go round and round. Nobody has more of
# the time for it, which is counted from when it was due.
_TICK_S: Final = 0.001

_T = TypeVar("_T")


class Share:
    """What some work has cost the loop, and when that is made up for."""

    def __init__(self) -> None:
        # Seconds of the monotonic clock.
        self._free_at = 0.0

    def spend(self, since: float) -> None:
        """Count the time from `since` until now."""
        now = time.monotonic()
        due = max(self._free_at, since) + SHARE * (now - since)
        self._free_at = min(due, now + TURN_MOST_S)

    def left_s(self) -> float:
        """How long to wait until it is made up for, as timers count; 0: it is."""
        left = self._free_at - _TICK_S - time.monotonic()
        return max(0, math.ceil(left / _TICK_S)) * _TICK_S

    async def turn(self) -> None:
        """Wait until it is made up for; in any case let others go on in between."""
        while True:
            await asyncio.sleep(self.left_s())
            if not self.left_s():
                return


class Pace(Share):
    """Lets those go on that have cost something before, one by one, as the time allows."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, go: Callable[[], None]) -> None:
        """Call `go` once it is its turn. What it costs itself is counted."""
        self._waiting.append(go)
        self._wait()

    def close(self) -> None:
        """Nobody has a turn any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_later(self.left_s(), self._go)

    def _go(self) -> None:
        self._timer = None
        began = time.monotonic()
        if self._waiting and not self.left_s():
            # One alone: what it begins is counted before the next one goes.
            self._waiting.popleft()()
            self.spend(began)
        self._wait()

    @types.coroutine
    def metered(self, inner: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
        """Run a coroutine, and count what each of its steps takes; not what it waits for."""
        step: Callable[[Any], Any] = inner.send
        value: Any = None
        while True:
            began = time.monotonic()
            try:
                waited = step(value)
            except StopIteration as end:
                result: _T = end.value
                return result
            finally:
                self.spend(began)
            try:
                step, value = inner.send, (yield waited)
            except BaseException as error:
                step, value = inner.throw, error

"""The turns of a worker's connections, as many in one turn of the loop as others can wait for.

Theory of operation: whoever has more to do than one turn allows goes on in a later turn of the
loop. If all of them did so in the next one, whoever sends little would wait for as many turns as
there are busy connections, for the loop looks at sockets only once each time. So a round ends after
a while, and those that are left come first in the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rounds"]

# How long a round may take, beyond the turn that goes over that: some three turns of a flood.
_ROUND_S: Final = 0.002


class Rounds:
    """Calls that go on with a connection each, in the order in which they came. On the loop."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()
        # Whether a round is to come, or is under way.
        self._is_asked = False

    def add(self, turn: Callable[[], None]) -> None:
        """Have this called in a later turn of the loop, once."""
        self._due.append(turn)
        if not self._is_asked:
            self._ask()

    def _ask(self) -> None:
        self._is_asked = True
        asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        end = time.monotonic() + _ROUND_S
        try:
            # Those that are added meanwhile have the next one.
            for _ in range(len(self._due)):
                self._due.popleft()()
                if time.monotonic() >= end:
                    break
        finally:
            # One that raises what nobody expects is the loop's to log, and ends no other's turn.
            self._is_asked = False
            if self._due:
                self._ask()

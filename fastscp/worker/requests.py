"""The A-ASSOCIATE-RQs of a worker, until main has decided: a few at a time.

To decode and negotiate a request takes as long as some hundred messages if it proposes as much as
it may, and as much memory as some thousand contexts need. So in each pass of the loop requests are
decoded until they come to `PASS_BYTES`; the next ones wait as the bytes that they are. They wait,
too, while main has as many to decide as it may have. Those whose user is checked wait elsewhere and
hold up nobody here; once one is right its turn at main comes before what is not decoded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["DECIDING_MOST", "PASS_BYTES", "Requesting", "Requests"]

# Bytes of requests that are decoded in a pass of the loop: the last one may go beyond.
PASS_BYTES: Final = 65536
# Requests of this worker that main decides at a time.
DECIDING_MOST: Final = 128


class Requesting(Protocol):
    """An association that has received its request."""

    def keep_request(self, pdu: bytes) -> None: ...
    def take_request(self) -> bytes | None: ...
    def request_begins(self, pdu: bytes) -> None: ...
    def ask_main(self) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Requests:
    """The requests that are decoded, and those that wait for it, in order. On the loop's thread."""

    def __init__(self) -> None:
        self._waiting: deque[Requesting] = deque()
        # Their users are right, and main has no room for them yet.
        self._right: deque[Requesting] = deque()
        self._deciding: set[Hashable] = set()
        self._taken = 0
        self._pass_ends = False

    def add(self, one: Requesting, pdu: bytes) -> bool:
        """Have a request decoded, which may be at once; whether it was, else it waits."""
        if self._waiting or self._is_full():
            one.keep_request(pdu)
            self._waiting.append(one)
            return False
        self._take(one, pdu)
        return True

    def let_ask(self, one: Requesting) -> None:
        """Have a decoded request go to main, which may be at once: its user is right."""
        if self._right or len(self._deciding) >= DECIDING_MOST:
            self._right.append(one)
        else:
            one.ask_main()

    def asked(self, number: int) -> None:
        """Main has this one to decide."""
        self._deciding.add(number)

    def decided(self, number: int) -> None:
        """Main has decided, or need not any more."""
        if number in self._deciding:
            self._deciding.remove(number)
            if self._waiting or self._right:
                self._end_pass()

    def _is_full(self) -> bool:
        return self._taken >= PASS_BYTES or len(self._deciding) >= DECIDING_MOST

    def _take(self, one: Requesting, pdu: bytes) -> None:
        self._taken += len(pdu)
        self._end_pass()
        one.request_begins(pdu)

    def _end_pass(self) -> None:
        if not self._pass_ends:
            self._pass_ends = True
            asyncio.get_running_loop().call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._pass_ends = False
        self._taken = 0
        while self._right and len(self._deciding) < DECIDING_MOST:
            one = self._right.popleft()
            try:
                one.ask_main()
            except Exception as error:
                one.failed(error)
        while self._waiting and not self._is_full():
            one = self._waiting.popleft()
            pdu = one.take_request()
            # None: it has ended meanwhile.
            if pdu is not None:
                try:
                    self._take(one, pdu)
                except Exception as error:
                    # The loop would only log it, and the others would wait.
                    one.failed(error)

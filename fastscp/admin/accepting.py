"""Accepting on a listening socket, with rests: what both ways to ask the service have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

__all__ = ["Accepting"]

# The loop's timers count in milliseconds, and call at once where less than half a one is left.
_LEAST_S: Final = 0.001


class Accepting(ABC):
    """Accepts on a listening socket, which it owns. All methods run on its loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._is_accepting = False
        self._is_held = False

    def start(self) -> None:
        """Begin, or begin again, to accept."""
        if not self._is_accepting and not self._is_held and self._sock.fileno() >= 0:
            self._is_accepting = True
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def rest(self) -> None:
        """Stop accepting, whatever else would begin it again; `go_on` ends that."""
        self._is_held = True
        self._pause()

    def go_on(self) -> None:
        """Accept again after `rest`."""
        self._is_held = False
        self.start()

    @abstractmethod
    def _accept(self) -> None:
        """Somebody may be there to be accepted."""

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove_reader(self._sock.fileno())

    def _pause_for(self, seconds: float) -> None:
        self._pause()
        self._loop.call_later(max(seconds, _LEAST_S), self.start)

    def _stop_accepting(self) -> None:
        """Never accept again on this socket, which is closed."""
        self._pause()
        self._sock.close()

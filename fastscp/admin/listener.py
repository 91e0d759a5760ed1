"""Connections for the HTTP of the service: accepted within bounds, and ended where they are slow.

What a client does here costs its own connection alone, and main's loop a small part of its time:
few connections, few of them a second. Nothing of HTTP is known here.
"""

from __future__ import annotations

import logging
import socket
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from fastscp.admin.accepting import Accepting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["HTTP_CONNECTIONS_MOST", "PAGES_MOST", "Bounded", "Listener", "Standing"]

log = logging.getLogger("fastscp.admin")

# At a time, except those that stay. A further one gets the place of whoever has the least right to
# its own: see `Standing`.
HTTP_CONNECTIONS_MOST: Final = 64
# And of those that stay, at a time; a further one is refused.
PAGES_MOST: Final = 128
# Accepted in a second, after a burst of as many.
_RATE: Final = 100
# Of what a client does not read the kernel keeps so much, bytes, and as much again for itself.
_UNREAD_BYTES: Final = 1 << 16
# How long accepting rests where the system has no means for a connection.
_REST_S: Final = 0.5
# And between looks for a place where all are owed an answer.
_FULL_S: Final = 0.1


class Standing(IntEnum):
    """Whose place a newcomer gets first; of several that stand alike, the oldest's.

    IDLE: it has asked nothing for a while, or rests between two requests. SERVED: it has had an
    answer, and has asked again, or does not read. OWED: it has come just now, or waits for its
    first answer; nobody gets its place.
    """

    IDLE = 0
    SERVED = 1
    OWED = 2


class Bounded(Protocol):
    """A connection as the listener knows it."""

    @property
    def standing(self) -> Standing:
        """What right it has to its place."""

    def abort(self) -> None:
        """End it at once."""

    def finish(self) -> None:
        """End it behind the next answer; at once, if that was not the first."""


class Listener(Accepting):
    """Accepts on a listening socket, which it owns. All methods run on its loop.

    make: the protocol of a new connection, which says `joined` and `left`.
    """

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        super().__init__(sock)
        self._make = make
        # The oldest first.
        self._connections: dict[Bounded, None] = {}
        # Those that stay have no part in who goes first.
        self._staying: dict[Bounded, None] = {}
        # Those that are about to be, by what makes them so.
        self._beginning: dict[asyncio.Task[object], socket.socket] = {}
        # How many of these are not among the connections yet.
        self._to_join = 0
        # Up to when the rate is used up, seconds of the monotonic clock.
        self._used_up = 0.0
        # Whether those that are there may have an answer yet, though nobody is accepted any more.
        self._is_leaving = False

    def leave(self) -> None:
        """Leave the port to whoever else has it; those that are there are answered once more."""
        self._stop_accepting()
        self._is_leaving = True
        for connection in [*self._connections, *self._staying]:
            connection.finish()

    def close(self) -> None:
        """Hang up on everybody, and stop; those that are about to be follow."""
        self._stop_accepting()
        self._is_leaving = False
        for connection in [*self._connections, *self._staying]:
            connection.abort()

    def joined(self, connection: Bounded) -> None:
        self._connections[connection] = None
        self._to_join -= 1
        if self._sock.fileno() < 0:
            self._loop.call_soon(connection.finish if self._is_leaving else connection.abort)

    def stays(self, connection: Bounded) -> None:
        """It is answered for as long as it likes: whoever says so counts it, and bounds them."""
        if connection in self._connections:
            del self._connections[connection]
            self._staying[connection] = None
            self.start()

    def left(self, connection: Bounded) -> None:
        self._connections.pop(connection, None)
        self._staying.pop(connection, None)
        self.start()

    @property
    def connections(self) -> int:
        """How many there are, with those that are about to be and those that stay."""
        return self._passing + len(self._staying)

    @property
    def _passing(self) -> int:
        return len(self._connections) + self._to_join

    def _accept(self) -> None:
        now = time.monotonic()
        if self._used_up > now:
            self._pause_for(self._used_up - now)
            return
        if self._passing >= HTTP_CONNECTIONS_MOST and not self._make_room():
            # Until one leaves, or loses its right; the others wait in the backlog.
            self._pause_for(_FULL_S)
            return
        try:
            sock, _address = self._sock.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Of descriptors or memory, which the associations need more.
            log.debug("cannot accept on the port of metrics and health: %s", error.strerror)
            self._pause_for(_REST_S)
            return
        self._used_up = max(self._used_up, now - 1.0) + 1.0 / _RATE
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make, sock)
        )
        self._beginning[task] = sock
        self._to_join += 1
        task.add_done_callback(self._begun)

    def _make_room(self) -> bool:
        """End the connection with the least right to its place; whether there was one."""
        if not self._connections:
            return False
        goes = min(self._connections, key=lambda one: one.standing)
        if goes.standing is Standing.OWED:
            return False
        del self._connections[goes]
        goes.abort()
        return True

    def _begun(self, task: asyncio.Task[object]) -> None:
        sock = self._beginning.pop(task)
        # Else it is the loop's.
        if not task.cancelled() and task.exception() is not None:
            self._to_join -= 1
            sock.close()

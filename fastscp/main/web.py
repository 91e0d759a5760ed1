"""Main's port for HTTP: taken at the start, answered on as soon as main can, left at the end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError
from fastscp.main.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastscp.admin.door import Doors
    from fastscp.admin.web import WebServer
    from fastscp.config.admin import AdminAddress

__all__ = ["Web"]

log = logging.getLogger("fastscp.main")

_BACKLOG: Final = 64
_LOOK_S: Final = 0.02


class Web:
    """The port for metrics, health and the page, where there is to be one. Nothing depends on it.

    token: that whoever asks has to show; empty: none.
    """

    def __init__(self, at: AdminAddress, token: bytes) -> None:
        self._at = at
        self._token = token
        self._sock: socket.socket | None = None
        self._server: WebServer | None = None
        # An upgrade may begin before it answers.
        self._is_held = False

    def bind(self, passed: socket.socket | None = None) -> None:
        """Take the port, or the one that is passed, and let clients wait in its backlog.

        Where it cannot be had and nobody asked for it, the log says so, and the service goes on
        without. Raises StartError where somebody did.
        """
        if passed is not None:
            self._sock = passed
            return
        if not self._at:
            return
        try:
            self._sock = _listening(self._at)
        except OSError as error:
            why = _explained(self._at, error)
            if self._at.is_given:
                raise StartError(why) from error
            log.warning("no metrics, and no health to ask for: %s", why)

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT; empty: nowhere."""
        if self._sock is None:
            return ""
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def fd(self) -> int | None:
        """Of the listening socket, borrowed; None: there is none."""
        return None if self._sock is None else self._sock.fileno()

    async def open(self, doors: Doors, turn: Awaitable[object] | None = None) -> None:
        """Begin to answer. What that takes is imported first, in a thread: it takes a moment.

        turn: to be waited for, then.
        """
        if self._sock is None:
            return
        made = await in_thread(_server)
        if turn is not None:
            await turn
        if self._sock is not None:
            self._server = made(self._sock, doors, self._token)
            if not self._is_held:
                self._server.start()

    def rest(self) -> None:
        """Accept nobody until `go_on`; who comes waits in the backlog."""
        self._is_held = True
        if self._server is not None:
            self._server.rest()

    def go_on(self) -> None:
        """Accept again after `rest`."""
        self._is_held = False
        if self._server is not None:
            self._server.go_on()

    def leave(self) -> None:
        """Leave the port to a successor, which has it, too; who was accepted gets an answer."""
        if self._server is not None:
            self._server.leave()
        elif self._sock is not None:
            self._sock.close()
            self._sock = None

    async def has_answered(self, seconds: float) -> None:
        """Wait until everybody has got an answer that was there at `leave`, or for so long."""
        end = asyncio.get_running_loop().time() + seconds
        while self._server is not None and self._server.connections:
            if asyncio.get_running_loop().time() > end:
                return
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """Hang up on everybody; nobody is answered any more."""
        sock, self._sock = self._sock, None
        if self._server is not None:
            self._server.close()
        elif sock is not None:
            sock.close()


def _server() -> type[WebServer]:
    from fastscp.admin.web import WebServer

    return WebServer


def _listening(at: AdminAddress) -> socket.socket:
    is_v6 = ipaddress.ip_address(at.host).version == 6
    sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((at.host, at.port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _explained(at: AdminAddress, error: OSError) -> str:
    what = f"cannot listen on {at} (--admin): {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{what}; another program has the port, perhaps another fastscp: choose one with "
            f"--admin HOST:PORT, port 0 for any, or --admin off"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}; this machine does not have that address: choose another one"
    return f"{what}; choose another one with --admin HOST:PORT, or --admin off"

"""`/metrics`, `/healthz` and `/readyz`, on main's loop: Starlette answers, uvicorn speaks HTTP.

Whoever reads this port from a browser is not meant: without a token, a name in the header `Host`
that anybody may have given to this address (DNS rebinding) is refused. All answers together have a
tenth of the loop's time, those about health apart from those about metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fastscp.admin.exposition import exposition
from fastscp.admin.health import alive, readiness
from fastscp.admin.listener import Listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from fastscp.admin.door import Measuring

__all__ = ["WebServer"]

# Bytes of a request's line and headers.
_HEAD_BYTES: Final = 16384
# How long a request may take to be there, and its answer to be read.
_EXCHANGE_S: Final = 20.0
# How long a connection may rest between two.
_IDLE_S: Final = 75.0
# Between two reads of one connection: a request comes in one.
_READS_S: Final = 0.02
# What answers of one kind may take of the loop's time; but none waits longer for the one before.
_SHARE: Final = 10
_TURN_S: Final = 2.0
_METHODS: Final = ("GET", "HEAD")
# Those who ask how the service is may be programs that cannot show a token; they learn a word.
_OPEN_PATHS: Final = ("/healthz", "/readyz")


class _Turn:
    """Lets answers have a part of the loop's time; those that wait go in their order."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = 0.0

    async def answer(self, make: Callable[[], Response]) -> Response:
        """What `make` returns, once it is its turn."""
        async with self._lock:
            await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            began = time.monotonic()
            made = make()
            now = time.monotonic()
            self._next = now + min(_TURN_S, (_SHARE - 1) * (now - began))
            return made


class _Answers:
    """What each path is answered with. token: whoever shows it is told all; empty: everybody is."""

    def __init__(self, measuring: Measuring, token: bytes) -> None:
        self._measuring = measuring
        self._token = token
        self._health = _Turn()
        self._metrics = _Turn()

    def knows(self, headers: Headers) -> bool:
        """Whether who asks may be told all. The comparison takes as long whatever it is."""
        scheme, _blank, shown = headers.get("authorization", "").partition(" ")
        given = shown.strip().encode("latin-1", "replace")
        is_right = hmac.compare_digest(given, self._token)
        return not self._token or (scheme.lower() == "bearer" and is_right)

    async def healthz(self, request: Request) -> Response:
        def make() -> Response:
            now = self._measuring.status()
            return JSONResponse(alive(now) if self.knows(request.headers) else {"alive": True})

        return await self._health.answer(make)

    async def readyz(self, request: Request) -> Response:
        def make() -> Response:
            now = self._measuring.status()
            told = readiness(now) if self.knows(request.headers) else {"ready": now.is_ready}
            return JSONResponse(told, 200 if now.is_ready else 503)

        return await self._health.answer(make)

    async def metrics(self, request: Request) -> Response:
        def make() -> Response:
            text, kind = exposition(self._measuring.snapshot(), request.headers.get("accept", ""))
            return Response(text, headers={"content-type": kind})

        return await self._metrics.answer(make)

    def application(self) -> ASGIApp:
        routes = [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]
        inner = Starlette(routes=routes)
        # A redirect would repeat what the client says is our name.
        inner.router.redirect_slashes = False

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["connection"].answering = asyncio.current_task()
            refusal = self._refusal(scope)
            # Where its client has gone nobody is to be told of anything.
            with contextlib.suppress(asyncio.CancelledError):
                await (inner if refusal is None else refusal)(scope, receive, send)

        return guarded

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request is not answered, or None."""
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            return PlainTextResponse(
                "only GET and HEAD are answered here\n", 405, {"allow": ", ".join(_METHODS)}
            )
        if not self._token and not _is_own_address(headers.get("host", "")):
            return PlainTextResponse(
                "the header Host has a name in it: ask by an address, as 127.0.0.1, or have the "
                "service ask for a token (--admin-token-file)\n", 403,
            )  # fmt: skip
        if scope["path"] not in _OPEN_PATHS and not self.knows(headers):
            return PlainTextResponse(
                "show the token of --admin-token-file: Authorization: Bearer TOKEN\n", 401,
                {"www-authenticate": 'Bearer realm="fastscp"'},
            )  # fmt: skip
        return None


def _is_own_address(host: str) -> bool:
    """Whether a header `Host` names this machine by what no other can have: an address.

    Empty: HTTP/1.0, which no browser speaks.
    """
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if not host or name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class _Connection(H11Protocol):
    """A connection that has its time, and is read from no faster than requests come."""

    def __init__(self, listener: Listener, config: Config, state: ServerState) -> None:
        super().__init__(config=config, server_state=state, app_state={"connection": self})
        self._listener = listener
        # What makes the answer to its request.
        self.answering: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_resting = False
        self._is_finishing = False

    @property
    def is_busy(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete
        return not is_answered or self.transport.get_write_buffer_size() > 0

    def abort(self) -> None:
        self.transport.abort()

    def finish(self) -> None:
        self._is_finishing = True
        # Who has asked nothing yet is about to.
        if self.cycle is not None and not self.transport.is_closing():
            self.shutdown()

    def _give(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.abort)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._listener.joined(self)
        self._give(_EXCHANGE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        if self.answering is not None:
            # Else it waits for its turn, and takes it.
            self.answering.cancel()
        self._listener.left(self)

    def data_received(self, data: bytes) -> None:
        if self._is_resting:
            self._is_resting = False
            self._give(_EXCHANGE_S)
        super().data_received(data)
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(_READS_S, self._read_on)

    def _read_on(self) -> None:
        if not (self.transport.is_closing() or self.flow.read_paused):
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        self._is_resting = self.transport.get_write_buffer_size() == 0
        self._give(_IDLE_S if self._is_resting else _EXCHANGE_S)
        super().on_response_complete()
        if self._is_finishing and not self.transport.is_closing():
            self.shutdown()


class WebServer:
    """Answers HTTP on a listening socket, which it owns. All methods run on its loop."""

    def __init__(self, sock: socket.socket, measuring: Measuring, token: bytes) -> None:
        # Lines that a client can cause without an end are nobody's business; a bug is.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = Config(
            _Answers(measuring, token).application(),
            loop="none", ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=int(_IDLE_S), h11_max_incomplete_event_size=_HEAD_BYTES,
        )  # fmt: skip
        config.load()
        state = ServerState()
        self._listener = Listener(sock, lambda: _Connection(self._listener, config, state))

    def start(self) -> None:
        """Begin to accept."""
        self._listener.start()

    def rest(self) -> None:
        """Stop accepting until `go_on`; who comes waits in the backlog."""
        self._listener.rest()

    def go_on(self) -> None:
        """Accept again after `rest`."""
        self._listener.go_on()

    def leave(self) -> None:
        """Leave the port to whoever else has it; those that are there are answered once more."""
        self._listener.leave()

    @property
    def connections(self) -> int:
        return self._listener.connections

    def close(self) -> None:
        """Hang up on everybody, and stop."""
        self._listener.close()

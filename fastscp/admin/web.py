"""Metrics, health and the page, on main's loop: Starlette answers, uvicorn speaks HTTP.

No other site's page reads this port in somebody's browser: without a token, a name in the header
`Host` that anybody may have given to this address (DNS rebinding) is refused. What all of them cost
together, reading and sending too, is a tenth of the loop's time, except the first request of a
connection: those are bounded by how many connections are accepted, and so a probe is answered
soon whatever others do. Making the texts of metrics may take a tenth of its own.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import hmac
import ipaddress
import logging
import termios
import time
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fastscp.admin.exposition import Texts, content_type
from fastscp.admin.health import alive, readiness
from fastscp.admin.listener import Listener, Standing
from fastscp.admin.pace import Pace, Share
from fastscp.admin.page import actions, files
from fastscp.admin.page.events import Events

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fastscp.admin.door import Doors, Measuring

__all__ = ["WebServer"]

# Bytes of a request's line and headers.
_HEAD_BYTES: Final = 16384
# How long a request may take to be there, and its answer to be made and read.
_EXCHANGE_S: Final = 10.0
# How long a connection may rest between two.
_IDLE_S: Final = 75.0
# How many requests one connection may bring, and how long; then it is closed behind an answer.
_REQUESTS_MOST: Final = 100
_AGE_S: Final = 600.0
# A connection that has asked nothing, or not read its answer, for so long gives its place to a
# newcomer.
_SILENT_S: Final = 0.5
# Between two reads of one connection: a request comes in one.
_READS_S: Final = 0.02
_METHODS: Final = ("GET", "HEAD")
_EVENTS: Final = "/events"
# Those who ask how the service is may be programs that cannot show a token; they learn a word. And
# the page has to be there before somebody can write a token into it; it says nothing by itself.
_OPEN_PATHS: Final = ("/healthz", "/readyz", *files.PATHS)


class _Expositions:
    """Texts about metrics, which take long to make: one text is for all that wait for it.

    Nobody gets one from before its request. Making them takes a part of the loop's time.
    """

    def __init__(self, measuring: Measuring) -> None:
        self._measuring = measuring
        self._lock = asyncio.Lock()
        self._share = Share()
        self._texts = Texts()
        # By content type, those that are not begun.
        self._due: dict[str, asyncio.Task[bytes]] = {}
        self._making: set[asyncio.Task[bytes]] = set()

    async def get(self, accept: str) -> tuple[bytes, str]:
        """A text, and its content type. accept: the header of whoever asks."""
        kind = content_type(accept)
        task = self._due.get(kind)
        if task is None:
            task = self._due[kind] = asyncio.ensure_future(self._make(kind, accept))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        # Whoever leaves takes it from nobody else.
        return await asyncio.shield(task), kind

    def close(self) -> None:
        """Make no more."""
        for task in self._making:
            task.cancel()

    async def _make(self, kind: str, accept: str) -> bytes:
        async with self._lock:
            await self._share.turn()
            del self._due[kind]
            began = time.monotonic()
            try:
                return self._texts.text(self._measuring.snapshot(), accept)
            finally:
                self._share.spend(began)


class _Answers:
    """What each path is answered with. token: whoever shows it is told all; empty: everybody is."""

    def __init__(self, doors: Doors, token: bytes) -> None:
        self._measuring = doors.measuring
        self._control = doors.control
        self._token = token
        self.expositions = _Expositions(doors.measuring)
        self.pace = Pace()
        self.events = Events(doors.showing, self.pace, actions=bool(token))

    def knows(self, headers: Headers) -> bool:
        """Whether who asks may be told all. The comparison takes as long whatever it is."""
        scheme, _blank, shown = headers.get("authorization", "").partition(" ")
        given = shown.strip().encode("latin-1", "replace")
        is_right = hmac.compare_digest(given, self._token)
        return not self._token or (scheme.lower() == "bearer" and is_right)

    async def healthz(self, request: Request) -> Response:
        now = self._measuring.status()
        return JSONResponse(alive(now) if self.knows(request.headers) else {"alive": True})

    async def readyz(self, request: Request) -> Response:
        now = self._measuring.status()
        told = readiness(now) if self.knows(request.headers) else {"ready": now.is_ready}
        return JSONResponse(told, 200 if now.is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        text, kind = await self.expositions.get(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    def application(self) -> ASGIApp:
        routes = [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route(_EVENTS, self.events.answer),
            *files.routes(wants_token=bool(self._token)),
            *actions.routes(self._control),
        ]
        inner = Starlette(routes=routes)
        # A redirect would repeat what the client says is our name.
        inner.router.redirect_slashes = False

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            connection: _Connection = scope["state"]["connection"]
            connection.answering = asyncio.current_task()
            refusal = self._refusal(scope)
            send = _closing(send) if connection.is_last() else send
            # Where its client has gone nobody is to be told of anything.
            with contextlib.suppress(asyncio.CancelledError):
                await (inner if refusal is None else refusal)(scope, receive, send)

        async def metered(scope: Scope, receive: Receive, send: Send) -> None:
            await self.pace.metered(guarded(scope, receive, send))

        return metered

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request is not answered, or None."""
        headers = Headers(scope=scope)
        is_action = scope["path"] in actions.PATHS
        methods = ("POST",) if is_action else _METHODS
        if scope["method"] not in methods:
            return PlainTextResponse(
                f"only {' and '.join(methods)} are answered here\n", 405,
                {"allow": ", ".join(methods)},
            )  # fmt: skip
        if not self._token and not _is_own_address(headers.get("host", "")):
            return PlainTextResponse(
                "the header Host has a name in it: ask by an address, as 127.0.0.1, or have the "
                "service ask for a token (--admin-token-file)\n", 403,
            )  # fmt: skip
        if (is_action or scope["path"] == _EVENTS) and actions.is_cross_site(headers):
            return PlainTextResponse("this is for the page of the service alone\n", 403)
        if is_action and not self._token:
            return PlainTextResponse(
                "nothing is done from here unless the service has a token to ask for "
                "(--admin-token-file)\n", 403,
            )  # fmt: skip
        if scope["path"] not in _OPEN_PATHS and not self.knows(headers):
            return PlainTextResponse(
                "show the token of --admin-token-file: Authorization: Bearer TOKEN\n", 401,
                {"www-authenticate": 'Bearer realm="fastscp"'},
            )  # fmt: skip
        return None


def _closing(send: Send) -> Send:
    """Have an answer say that it is the last one of its connection. Source: RFC 9112 9.6."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return told


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
    """A connection that has its time, and is read from no faster than requests come.

    Its first read is looked at at once; what comes then, and each further request, waits for a
    turn of `pace`.
    """

    def __init__(self, listener: Listener, pace: Pace, config: Config, state: ServerState) -> None:
        super().__init__(config=config, server_state=state, app_state={"connection": self})
        self._listener = listener
        self._pace = pace
        # What makes the answer to its request.
        self.answering: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = time.monotonic()
        # When it had its last answer.
        self._answered = self._began
        self._requests = 0
        self._is_resting = False
        self._is_finishing = False
        # Whether it may look at what came, and whether it waits until it may.
        self._has_turn = True
        self._awaits_turn = False

    @property
    def standing(self) -> Standing:
        if not self._requests:
            # Though a part of its request may be there.
            is_new = time.monotonic() - self._began < _SILENT_S
            return Standing.OWED if is_new else Standing.IDLE
        is_answered = self.cycle.response_complete
        is_read = self.transport.get_write_buffer_size() == 0
        if self._requests == 1 and not (is_answered and (is_read or self._is_deaf())):
            return Standing.OWED
        is_at_rest = is_answered and is_read and not self._awaits_turn
        return Standing.IDLE if is_at_rest else Standing.SERVED

    def _is_deaf(self) -> bool:
        """Whether it has had time enough to read the answer that it had last."""
        return time.monotonic() - self._answered >= _SILENT_S

    def abort(self) -> None:
        if self.cycle is not None:
            # Its answer may be given up before the transport says so.
            self.cycle.disconnected = True
        self.transport.abort()

    def finish(self) -> None:
        self._is_finishing = True
        # Who has asked nothing yet is about to; who has asked again is answered once more.
        if self.cycle is None or self._awaits_turn or self.transport.is_closing():
            return
        if not self._is_unread():
            self.shutdown()

    def _is_unread(self) -> bool:
        """Whether bytes have come that nobody has looked at: to hang up would cost them."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except OSError:
            return False
        return waiting[0] > 0

    def stays(self) -> None:
        """Its answer goes on: see `fastscp.admin.page.events.Lasting`."""
        self._listener.stays(self)

    def goes_on(self) -> None:
        """It is told more, and has the time of an answer to read that."""
        self._give(_EXCHANGE_S)

    def is_last(self) -> bool:
        """Whether the request that is answered now is the last one of this connection."""
        return self._requests >= _REQUESTS_MOST or time.monotonic() - self._began > _AGE_S

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
        began = time.monotonic()
        if self._is_resting:
            self._is_resting = False
            self._give(_EXCHANGE_S)
        super().data_received(data)
        if not self.transport.is_closing():
            self.transport.pause_reading()
            if not self._awaits_turn:
                self.loop.call_later(_READS_S, self._read_on)
        self._pace.spend(began)

    def _read_on(self) -> None:
        if not (self.transport.is_closing() or self.flow.read_paused or self._awaits_turn):
            self.transport.resume_reading()

    def handle_events(self) -> None:
        if self._has_turn:
            self._has_turn = False
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                # It may have come behind another one, in the same read.
                self._requests += 1
                self._is_resting = False
                self._give(_EXCHANGE_S)
        elif not self._awaits_turn and self.conn.trailing_data[0]:
            self._awaits_turn = True
            self._pace.ask(self._take_turn)

    def _take_turn(self) -> None:
        self._awaits_turn = False
        if not self.transport.is_closing():
            self._has_turn = True
            self.handle_events()
            self.loop.call_later(_READS_S, self._read_on)
            if self._is_finishing and self.cycle is not None and self.cycle.response_complete:
                # It was a part of a request.
                self.shutdown()

    def on_response_complete(self) -> None:
        self._answered = time.monotonic()
        self._is_resting = self.transport.get_write_buffer_size() == 0
        self._give(_IDLE_S if self._is_resting else _EXCHANGE_S)
        super().on_response_complete()
        if self._is_finishing and not self.transport.is_closing():
            self.shutdown()


class WebServer:
    """Answers HTTP on a listening socket, which it owns. All methods run on its loop."""

    def __init__(self, sock: socket.socket, doors: Doors, token: bytes) -> None:
        # Lines that a client can cause without an end are nobody's business; a bug is.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._answers = _Answers(doors, token)
        pace = self._answers.pace
        config = Config(
            self._answers.application(),
            loop="none", ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=int(_IDLE_S), h11_max_incomplete_event_size=_HEAD_BYTES,
        )  # fmt: skip
        config.load()
        state = ServerState()
        self._listener = Listener(sock, lambda: _Connection(self._listener, pace, config, state))

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
        self._answers.events.close()

    @property
    def connections(self) -> int:
        return self._listener.connections

    def close(self) -> None:
        """Hang up on everybody, and stop."""
        self._listener.close()
        self._answers.events.close()
        self._answers.expositions.close()
        self._answers.pace.close()

"""What pages are told as it happens: each message is made once, for all of them.

A page gets all there is at first, and then what is new at each look of main. One message waits for
a page at most: whoever is slow misses what comes meanwhile, and gets all there is again.
Source: HTML, "Server-sent events" (the form of a message).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from starlette.responses import PlainTextResponse, Response

from fastscp.admin.listener import PAGES_MOST
from fastscp.admin.page.files import GUARDED
from fastscp.messages.page import Marks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from fastscp.admin.door import Showing
    from fastscp.admin.pace import Pace
    from fastscp.messages.page import View

__all__ = ["Events", "Lasting"]

log = logging.getLogger("fastscp.admin")

# So many are told in a turn of the loop, and between two turns it has this time for others.
_AT_ONCE: Final = 8
_BETWEEN_S: Final = 0.005
_HEADERS: Final = {
    **GUARDED, "content-type": "text/event-stream", "cache-control": "no-store",
    # A proxy in front is not to gather messages.
    "x-accel-buffering": "no",
}  # fmt: skip


class Lasting(Protocol):
    """The connection of a page, in the state of its request."""

    def stays(self) -> None:
        """Its answer goes on: it counts as a page from now on."""

    def goes_on(self) -> None:
        """It is told something: it has the time of an answer to read that."""


class _Page:
    """One page that is open: what is to be told to it next.

    message: that waits for it. is_behind: it is to get all there is instead.
    """

    def __init__(self) -> None:
        self.message = b""
        self.is_behind = True
        self.due = asyncio.Event()
        self.due.set()

    def give(self, message: bytes) -> None:
        if self.due.is_set():
            # It has not taken what came before.
            self.message, self.is_behind = b"", True
        else:
            self.message = message
        self.due.set()


class Events:
    """The pages that are open, and who tells them. Nobody looks at anything while there are none.

    actions: whether pages may ask for something to be done.
    """

    def __init__(self, showing: Showing, pace: Pace, *, actions: bool) -> None:
        self._showing = showing
        self._pace = pace
        self._actions = actions
        self._pages: set[_Page] = set()
        self._telling: asyncio.Task[None] | None = None
        self._marks = Marks()
        # All there is, as of the last look; empty: nobody has asked for it since.
        self._whole = b""
        self._is_closed = False

    @property
    def pages(self) -> int:
        return len(self._pages)

    async def answer(self, request: Request) -> Response:
        """What `/events` is answered with: a stream, unless there are too many."""
        if self._is_closed or len(self._pages) >= PAGES_MOST:
            return PlainTextResponse(
                f"{PAGES_MOST} pages are open already: close one, or see who keeps them open\n",
                503, {**GUARDED, "retry-after": "10"},
            )  # fmt: skip
        if request.method == "HEAD":
            return Response(headers=_HEADERS)
        return _Stream(self)

    async def tell(self, send: Send, connection: Lasting) -> None:
        """Tell one page what there is, until its connection ends or `close`."""
        page = _Page()
        self._pages.add(page)
        if self._telling is None or self._telling.done():
            self._look()
            self._telling = asyncio.ensure_future(self._tell_all())
        try:
            connection.stays()
            while True:
                await page.due.wait()
                if self._is_closed:
                    return
                message = self._take(page)
                connection.goes_on()
                await send({"type": "http.response.body", "body": message, "more_body": True})
        finally:
            self._pages.discard(page)

    def close(self) -> None:
        """End all streams: a page that lives on asks again, perhaps somebody else."""
        self._is_closed = True
        for page in self._pages:
            page.due.set()
        if self._telling is not None:
            self._telling.cancel()

    def _take(self, page: _Page) -> bytes:
        page.due.clear()
        message, is_behind = page.message, page.is_behind
        page.message, page.is_behind = b"", False
        if is_behind:
            self._whole = self._whole or _encoded(self._showing.view(None, actions=self._actions))
            return self._whole
        return message

    async def _tell_all(self) -> None:
        """Give every page what is new, at each look of main, until there is none."""
        while self._pages:
            await self._showing.looked()
            began = time.monotonic()
            try:
                news = self._look()
            except Exception:
                log.exception("pages cannot be told what there is, which is a bug")
                continue
            finally:
                self._pace.spend(began)
            for number, page in enumerate(list(self._pages), 1):
                page.give(news)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(_BETWEEN_S)

    def _look(self) -> bytes:
        """Take a look; returns what is new since the last."""
        self._showing.look()
        view = self._showing.view(self._marks, actions=self._actions)
        self._marks = _marked(view, self._marks)
        self._whole = b""
        return _encoded(view)


class _Stream(Response):
    """An answer that goes on. Its connection is in the state of the request, as `Lasting`."""

    def __init__(self, events: Events) -> None:
        super().__init__(headers=_HEADERS)
        self._events = events

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        # One that never ends has no length.
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._events.tell(send, scope["state"]["connection"])
        await send({"type": "http.response.body", "body": b""})


def _marked(view: View, before: Marks) -> Marks:
    return Marks(
        log=view.log[-1].n if view.log else before.log,
        refusals=view.refusals[-1].n if view.refusals else before.refusals,
        latest=view.latest[-1].n if view.latest else before.latest,
        hour=view.hour[-1].n if view.hour else before.hour,
    )


def _encoded(view: View) -> bytes:
    # JSON in one line.
    return b"data: %b\n\n" % msgspec.json.encode(view)

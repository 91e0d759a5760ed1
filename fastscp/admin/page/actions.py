"""What the page may have the service do: end an association, pause, resume.

A browser sends a request to us for whatever site it has open, so each has to show that it is the
page's own: by the token, which no other site has, by a content type that none can send without
asking, and by what the browser says of where it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fastscp.admin.page.files import GUARDED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.datastructures import Headers
    from starlette.requests import Request

    from fastscp.admin.door import Control

__all__ = ["BODY_MOST", "PATHS", "is_cross_site", "routes"]

PATHS: Final = ("/abort", "/pause", "/resume")
# Bytes of what is asked.
BODY_MOST: Final = 4096
_JSON: Final = "application/json"
_NO_STORE: Final = {**GUARDED, "cache-control": "no-store"}

_T = TypeVar("_T")


class _Abort(msgspec.Struct, forbid_unknown_fields=True):
    """id: as in the log."""

    id: str


class _Pause(msgspec.Struct, forbid_unknown_fields=True):
    """reason: for the log and the status; may be empty."""

    reason: str = ""


class _Resume(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _UnusableError(Exception):
    """What came cannot be done. status: of the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def routes(control: Control) -> list[Route]:
    """A route for each of `PATHS`. Whether somebody may is decided before."""

    async def abort(request: Request) -> object:
        asked = await _asked(request, _Abort)
        return await control.abort(asked.id, _by(request))

    async def pause(request: Request) -> object:
        asked = await _asked(request, _Pause)
        return control.pause(asked.reason, _by(request))

    async def resume(request: Request) -> object:
        await _asked(request, _Resume)
        return control.resume(_by(request))

    done = (abort, pause, resume)
    return [
        Route(path, _answering(do), methods=["POST"])
        for path, do in zip(PATHS, done, strict=True)
    ]  # fmt: skip


def is_cross_site(headers: Headers) -> bool:
    """Whether a browser says that somebody else's page asks.

    Source: Fetch Metadata (Sec-Fetch-Site); RFC 6454 7 (Origin). A browser sends the first to
    addresses that it trusts, as https and this machine; over plain HTTP there is the second alone.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _answering(
    do: Callable[[Request], Awaitable[object]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            result: Any = await do(request)
        except _UnusableError as error:
            return PlainTextResponse(f"{error}\n", error.status, _NO_STORE)
        return Response(msgspec.json.encode(result), headers=_NO_STORE, media_type=_JSON)

    return answer


async def _asked(request: Request, kind: type[_T]) -> _T:
    """The body of a request. Raises _UnusableError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise _UnusableError(415, f"send it as {_JSON}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_MOST:
            raise _UnusableError(413, f"a request has at most {BODY_MOST} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _UnusableError(400, "no request that this service knows") from error


def _by(request: Request) -> str:
    """Who asks, for the log."""
    return f"page, {request.client.host}" if request.client else "page"

"""The files of the page, which tell nothing of the service: whoever asks gets them."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["GUARDED", "PATHS", "routes"]

# With every answer of the page. Nothing of another origin is loaded, and nothing that stands inside
# the document runs: text that came from a peer cannot become a program. Nobody frames the page.
# Source: Content Security Policy Level 3, Fetch (`nosniff`, CORP), HTML (COOP).
GUARDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
)
_FOLDER: Final = Path(__file__).parent
# By path: the file, and its type.
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
PATHS: Final = tuple(_FILES)
# What the document says of it.
_WANTED: Final = (b'data-token="none"', b'data-token="wanted"')
# Whoever imports this waits for the disk a moment, and nobody afterwards.
_CONTENT: Final = {name: (_FOLDER / name).read_bytes() for name, _kind in _FILES.values()}


def routes(*, wants_token: bool) -> list[Route]:
    """A route for each file. wants_token: whether the page has to ask for one before anything."""
    return [
        _route(path, _CONTENT[name].replace(*_WANTED) if wants_token else _CONTENT[name], kind)
        for path, (name, kind) in _FILES.items()
    ]


def _route(path: str, content: bytes, kind: str) -> Route:
    # After an upgrade no browser goes on with the old ones.
    headers = {**GUARDED, "content-type": kind, "cache-control": "no-cache"}

    async def answer(_request: Request) -> Response:
        return Response(content, headers=headers)

    return Route(path, answer)

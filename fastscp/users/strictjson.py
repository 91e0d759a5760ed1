"""JSON of which there are no two readings: each name once, and no number that is none."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["read_object"]


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object, in UTF-8. Raises ValueError for anything else, and for what nests too deep.

    Readers differ over a name that stands twice: one checks the first, another uses the second.
    Source: RFC 8259 4, RFC 7519 4.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nests too deep") from None
    if not isinstance(found, dict):
        raise ValueError("is no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has a name twice")
    return found


def _no_number(_word: str) -> NoReturn:
    raise ValueError("has a number that is none")

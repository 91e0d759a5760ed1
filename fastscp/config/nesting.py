"""How deep a TOML text nests, told before any parser comes to it.

What nests costs tomllib time by the square of its depth. This look goes over the text once.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

__all__ = ["DEPTH_MOST", "TooDeepError", "loads", "too_deep"]

# Parts of a key, and brackets within each other. No setting needs more than a few.
DEPTH_MOST: Final = 32
# Whatever has dots and brackets in it that mean nothing, up to its end; and all that counts.
_TOKEN: Final = re.compile(
    r'''#[^\n]*|"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5})?|"(?:[^"\\\n]|\\.)*+"?'''
    r"""|'''(?:[^']|'(?!''))*+(?:'{3,5})?|'[^'\n]*+'?|[\[\]{}.,=\n]""",
    re.DOTALL,
)
# No key stands in a list, and an inline table ends in its line: tomllib goes no further then.
_NEVER_CLOSED: Final = frozenset({("=", "["), ("\n", "{")})


class TooDeepError(ValueError):
    """A text nests deeper than any setting needs."""


def loads(text: str) -> dict[str, Any]:
    """What tomllib makes of a text. Raises ValueError, RecursionError."""
    if too_deep(text):
        raise TooDeepError("nested too deeply")
    return tomllib.loads(text)


def too_deep(text: str) -> int:
    """The line, from 1, where a text nests too deep; 0: nowhere."""
    parts = 0
    # What is open, innermost last.
    opened: list[str] = []
    for found in _TOKEN.finditer(text):
        sign = found[0]
        if sign == ".":
            parts += 1
        elif sign in "[]{}.,=\n":
            parts = 0
            if sign in "[{":
                opened.append(sign)
            elif sign in "]}":
                del opened[-1:]
            elif opened and (sign, opened[-1]) in _NEVER_CLOSED:
                opened.clear()
        if parts >= DEPTH_MOST or len(opened) > DEPTH_MOST:
            return text.count("\n", 0, found.start()) + 1
    return 0

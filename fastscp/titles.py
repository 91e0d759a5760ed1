"""AE titles as they are written for people: printable ASCII, and any other byte as %XX.

One form in rules, journal and log, so that what the log shows can be put into a rule. A percent
sign is %25, or the form would not say which bytes it stands for.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["title_bytes", "title_meant", "title_text"]

_MOST: Final = 16  # PS3.5 6.2 (AE)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")


def title_text(title: bytes | str) -> str:
    """The written form. title: without its padding; characters stand for bytes (latin-1)."""
    text = title if isinstance(title, str) else title.decode("latin-1")
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return "".join(
        chr(b) if 32 <= b <= 126 and b != 37 else f"%{b:02X}" for b in text.encode("latin-1")
    )


def title_bytes(text: str) -> bytes:
    """The bytes that a written form stands for.

    Raises ValueError, its message in words for an operator: what no title of a request can be.
    """
    raw = _unescaped(text)
    if len(raw) > _MOST:
        raise ValueError(f"has {len(raw)} characters")
    if raw != raw.partition(b"\0")[0].strip(b" "):
        raise ValueError("has spaces at an end or a NUL in it, which are padding in a request")
    return raw


def title_meant(text: str) -> tuple[bytes, ...]:
    """All bytes that a title in the journal may stand for, those of the written form first.

    In old lines a character stands for a byte (latin-1), also a percent sign. Empty: some byte of
    the title is not known, for which old lines of adopted files have U+FFFD.
    """
    if "\ufffd" in text:
        return ()
    plain = text.encode("latin-1", "replace")
    try:
        written = _unescaped(text)
    except ValueError:
        return (plain,)
    return (written,) if written == plain else (written, plain)


def _unescaped(text: str) -> bytes:
    if "%" in _ESCAPE.sub("", text):
        raise ValueError("has a % that begins no %XX; a percent sign is written %25")
    if not text.isascii():
        raise ValueError("has a character outside ASCII in it; its bytes are written %XX")
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text).encode("latin-1")

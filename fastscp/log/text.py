"""Text that came from outside, made fit for a log line or for JSON."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["address", "counted", "cut", "escape", "in_json", "printable", "shown"]

# What one text of a peer may take in a line, in characters.
_SHOWN: Final = 100


def address(host: str, port: int) -> str:
    """Of a peer: `10.0.0.1:104`, `[2001:db8::1]:104`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things: `1 worker`, `1,000 workers`. many: where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(value: bytes | str) -> str:
    """Text that came from outside, on one line and reversible.

    Whatever does not print is written as an escape: control and format characters (they could end
    the line, or reorder it on screen), separators except the space, and bytes above ASCII that
    have no character. Backslashes are doubled. Bytes are read as latin-1.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return escape(text.replace("\\", "\\\\"))


def shown(value: bytes | str, most: int = _SHOWN) -> str:
    """The same, cut to `most` characters; what is cut says how long it was."""
    text = printable(value[:most])
    if len(value) <= most and len(text) <= most:
        return text
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"{text[:most]}... ({len(value)} {unit})"


def cut(text: str, most: int) -> str:
    """Text of our own, cut to `most` characters; what is cut says how long it was."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def in_json(name: str) -> str:
    """A file's name, or a text with one in it, with `\\xXX` for what is not UTF-8.

    JSON has no place for that. Every backslash of a name is doubled, so that no two names look
    alike, and each can be told from what is written.
    """
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def escape(text: str) -> str:
    """Text on one line; backslashes stay, for an escape may have been made before."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )

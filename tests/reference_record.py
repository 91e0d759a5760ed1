"""TLS records walked plainly, and what they hold where nothing is encrypted.

Sources: RFC 8446 5.1, 5.2 and 6; RFC 5246 6.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["PLAIN_MOST", "Walked", "records", "walk"]

PLAIN_MOST: Final = 16384
BODY_MOST: Final = 16384 + 2048
# Records in a row without plaintext that are put up with.
EMPTY_MOST: Final = 64
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA, HEARTBEAT = range(20, 25)
CLOSE_NOTIFY: Final = b"\x01\x00"


def records(data: bytes) -> tuple[list[int], bool]:
    """The sizes of the whole records, and whether what follows can be the beginning of another."""
    sizes: list[int] = []
    at = 0
    while True:
        left = data[at:]
        if (left and not CHANGE_CIPHER_SPEC <= left[0] <= HEARTBEAT) or left[1:2] not in (
            b"", b"\x03",
        ):  # fmt: skip
            return sizes, False
        if len(left) < 5:
            return sizes, True
        size = int.from_bytes(left[3:5], "big")
        if size > BODY_MOST:
            return sizes, False
        if len(left) < 5 + size:
            return sizes, True
        sizes.append(5 + size)
        at += 5 + size


class Walked(NamedTuple):
    """plain: all that was sent. ended: by close_notify. broken: by what must not be."""

    plain: bytes
    ended: bool
    broken: bool


def walk(data: bytes) -> Walked:
    """What records bring of which the bodies are not encrypted, up to their end."""
    sizes, may_go_on = records(data)
    plain = bytearray()
    at = empty = 0
    for size in sizes:
        kind, body = data[at], data[at + 5 : at + size]
        at += size
        if kind == ALERT and body == CLOSE_NOTIFY:
            return Walked(bytes(plain), True, False)
        if kind == APPLICATION_DATA and len(body) > PLAIN_MOST:
            return Walked(bytes(plain), False, True)
        if kind not in (APPLICATION_DATA, HANDSHAKE):
            return Walked(bytes(plain), False, True)
        got = body if kind == APPLICATION_DATA else b""
        plain += got
        empty = 0 if got else empty + 1
        if empty > EMPTY_MOST:
            return Walked(bytes(plain), False, True)
    return Walked(bytes(plain), False, not may_go_on)

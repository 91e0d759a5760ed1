"""Whoever speaks another protocol than is due, by the first byte: somebody has the wrong port."""

from __future__ import annotations

from typing import Final

__all__ = ["BEFORE_A_HEADER", "BEFORE_A_REQUEST", "before_a_handshake"]

# What the log calls them: where a PROXY header is expected, and where a request is.
BEFORE_A_HEADER: Final = {
    0x16: "a TLS client on the plain port",
    0x47: "an HTTP client",
    0x48: "an HTTP client",
    0x50: "an HTTP client",
    0x0B: "an HL7 client",
}
BEFORE_A_REQUEST: Final = BEFORE_A_HEADER | {
    0x50: "an HTTP client, or a PROXY header from where --proxy-protocol-from expects none",
    0x0D: "a PROXY header from where --proxy-protocol-from expects none",
}
# The first byte of an A-ASSOCIATE-RQ.
_REQUEST: Final = 0x01


def before_a_handshake(first: int, plain_port: int) -> str:
    """The same where a handshake is expected. plain_port: without TLS; 0: there is none."""
    if first == _REQUEST:
        to_do = (
            f"switch TLS on in the sender, or have it send to port {plain_port}, without TLS"
            if plain_port
            else "switch TLS on in the sender: there is no port without TLS (--no-plain)"
        )
        return f"plain on the TLS port: an A-ASSOCIATE-RQ; {to_do}"
    return BEFORE_A_REQUEST.get(first, f"its first byte is {first:02X}")

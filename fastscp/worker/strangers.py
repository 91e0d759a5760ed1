"""Whoever speaks another protocol than is due, by the first byte: somebody has the wrong port."""

from __future__ import annotations

from typing import Final

__all__ = ["BEFORE_A_HANDSHAKE", "BEFORE_A_HEADER", "BEFORE_A_REQUEST"]

# What the log calls them: where a PROXY header is expected, where a request is, and a handshake.
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
BEFORE_A_HANDSHAKE: Final = {
    **{first: who for first, who in BEFORE_A_REQUEST.items() if first != 0x16},
    0x01: "plain on the TLS port: an A-ASSOCIATE-RQ; switch TLS on in the sender, or have it send "
    "to the port without TLS",
}

"""PROXY headers, annotated: recorded ones of HAProxy 2.6, and others that the standard has.

Addresses, ports and names are made up. Version 2 is big endian: a signature of 12 bytes, version
and command, family and transport, the length of what follows; then addresses and TLVs (type,
length, value). Source: HAProxy's doc/proxy-protocol.txt, 2.1 and 2.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["BROKEN", "LOCAL", "SOUND", "Told", "line", "v2"]


class Told(NamedTuple):
    """What a header says: whom it is from, and the common name of a verified certificate."""

    source: tuple[str, int] | None = None
    common_name: bytes | None = None


_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL: Final = (
    _SIGNATURE + b"\x20\x00\x00\x00"  # version 2, LOCAL; no family; nothing follows: a health check
)
_ADDRESSES: Final = (
    b"\x0a\x01\x02\x03"  # source 10.1.2.3
    b"\x0a\x00\x00\x05"  # destination 10.0.0.5
    b"\x9d\x08"  # source port 40200
    b"\x2b\x68"  # destination port 11112
)
_PEER: Final = ("10.1.2.3", 40200)


def line(host: str, port: int) -> bytes:
    """A header of version 1."""
    kind, to = ("TCP6", "::1") if ":" in host else ("TCP4", "10.0.0.5")
    return f"PROXY {kind} {host} {to} {port} 11112\r\n".encode()


def v2(block: bytes, family: int = 0x11) -> bytes:
    """A header of version 2, PROXY: addresses and TLVs as given."""
    return _SIGNATURE + b"\x21" + bytes((family,)) + len(block).to_bytes(2, "big") + block


SOUND: Final[dict[str, tuple[bytes, Told]]] = {
    # send-proxy; its health checks look the same, with HAProxy's own address.
    "line_4": (b"PROXY TCP4 10.1.2.3 10.0.0.5 40200 11112\r\n", Told(_PEER)),
    "line_6": (b"PROXY TCP6 2001:db8::17 ::1 35636 11112\r\n", Told(("2001:db8::17", 35636))),
    "line_unknown": (b"PROXY UNKNOWN\r\n", Told()),
    "line_unknown_with_more": (
        b"PROXY UNKNOWN"
        + b" ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" * 2
        + b" 65535 65535\r\n",  # the longest, 107 bytes
        Told(),
    ),
    # send-proxy-v2, check-send-proxy
    "local": (LOCAL, Told()),
    "tcp_4": (
        _SIGNATURE
        + b"\x21\x11\x00\x0c"  # version 2, PROXY; TCP over IPv4; 12 bytes
        + _ADDRESSES,
        Told(_PEER),
    ),
    "tcp_6": (
        _SIGNATURE
        + b"\x21\x21\x00\x24"  # version 2, PROXY; TCP over IPv6; 36 bytes
        + b"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17"  # 2001:db8::17
        + b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"  # ::1
        + b"\x8b\x34\x2b\x68",  # ports 35636, 11112
        Told(("2001:db8::17", 35636)),
    ),
    "mapped": (
        _SIGNATURE
        + b"\x21\x21\x00\x24"  # version 2, PROXY; TCP over IPv6; 36 bytes
        + b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03"  # ::ffff:10.1.2.3
        + b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x05"  # ::ffff:10.0.0.5
        + b"\x9d\x08\x2b\x68",  # ports 40200, 11112
        Told(_PEER),
    ),
    # send-proxy-v2-ssl-cn, the client without a certificate: `verify` is 0, too.
    "tls_without_certificate": (
        _SIGNATURE
        + b"\x21\x11\x00\x1e"  # 30 bytes
        + _ADDRESSES
        + b"\x20\x00\x0f"  # PP2_TYPE_SSL, 15 bytes
        + b"\x01"  # client: TLS
        + b"\x00\x00\x00\x00"  # verify
        + b"\x21\x00\x07TLSv1.3",  # PP2_SUBTYPE_SSL_VERSION
        Told(_PEER),
    ),
    "tls_with_certificate": (
        _SIGNATURE
        + b"\x21\x11\x00\x27"  # 39 bytes
        + _ADDRESSES
        + b"\x20\x00\x18"  # PP2_TYPE_SSL, 24 bytes
        + b"\x07"  # client: TLS, certificate in this connection and in its session
        + b"\x00\x00\x00\x00"  # verify: it was
        + b"\x21\x00\x07TLSv1.3"  # PP2_SUBTYPE_SSL_VERSION
        + b"\x22\x00\x06GATE-1",  # PP2_SUBTYPE_SSL_CN
        Told(_PEER, b"GATE-1"),
    ),
    # crt-ignore-err all: the certificate has expired.
    "tls_unverified": (
        _SIGNATURE
        + b"\x21\x11\x00\x1d"  # 29 bytes
        + _ADDRESSES
        + b"\x20\x00\x0e"  # PP2_TYPE_SSL, 14 bytes
        + b"\x07"  # client: TLS, certificate in this connection and in its session
        + b"\x00\x00\x00\x0a"  # verify: X509_V_ERR_CERT_HAS_EXPIRED
        + b"\x22\x00\x06GATE-1",  # PP2_SUBTYPE_SSL_CN
        Told(_PEER),
    ),
    # proxy-v2-options ssl,cert-cn,cert-key,cert-sig,ssl-cipher,authority,crc32c,unique-id
    "all_options": (
        _SIGNATURE
        + b"\x21\x11\x00\x95"  # 149 bytes
        + b"\x7f\x00\x00\x01\x7f\x00\x00\x01\xa9\x12\x80\x97"  # 127.0.0.1, ports 43282, 32919
        + b"\x03\x00\x04\x15\x31\xee\x52"  # PP2_TYPE_CRC32C
        + b"\x02\x00\x0dx.example.com"  # PP2_TYPE_AUTHORITY
        + b"\x05\x00\x249a3bcb75-6e55-4177-8c70-03af099d687d"  # PP2_TYPE_UNIQUE_ID
        + b"\x20\x00\x48"  # PP2_TYPE_SSL, 72 bytes
        + b"\x07\x00\x00\x00\x00"  # client, verify
        + b"\x21\x00\x07TLSv1.3"  # PP2_SUBTYPE_SSL_VERSION
        + b"\x22\x00\x06GATE-1"  # PP2_SUBTYPE_SSL_CN
        + b"\x25\x00\x07RSA2048"  # PP2_SUBTYPE_SSL_KEY_ALG
        + b"\x24\x00\x0aRSA-SHA256"  # PP2_SUBTYPE_SSL_SIG_ALG
        + b"\x23\x00\x16TLS_AES_256_GCM_SHA384",  # PP2_SUBTYPE_SSL_CIPHER
        Told(("127.0.0.1", 43282), b"GATE-1"),
    ),
    "udp": (v2(_ADDRESSES, 0x12), Told()),
    "unix": (v2(b"/run/a".ljust(108, b"\0") * 2 + b"\x04\x00\x01\x00", 0x31), Told()),
    "unspecified": (v2(b"whatever", 0x00), Told()),
    "local_with_a_block": (
        _SIGNATURE
        + b"\x20\x11\x00\x03"  # version 2, LOCAL; a family that means nothing; 3 bytes
        + b"\x04\x00\x09",  # which mean nothing either
        Told(),
    ),
}

# What must be refused, and in which words.
BROKEN: Final[dict[str, tuple[bytes, str]]] = {
    "request": (b"\x01\x00\x00\x00\x00\xb1", "no PROXY header"),
    "tls": (b"\x16\x03\x01\x02\x00\x01", "no PROXY header"),
    "tls_then_header": (b"\x16\x03\x01" + LOCAL, "no PROXY header"),
    "other_word": (b"PROXI TCP4 10.1.2.3 10.0.0.5 40200 11112\r\n", "no PROXY header"),
    "other_signature": (b"\r\n\r\n\x00\r\nQUIT\r", "no PROXY header"),
    "line_feed": (b"PROXY TCP4 10.1.2.3 10.0.0.5 40200 11112\n", "does not end in CR LF"),
    "return": (b"PROXY UNKNOWN\r \n", "does not end in CR LF"),
    "long_line": (b"PROXY UNKNOWN " + b"x" * 93, "its line is longer than 107 bytes"),
    "no_words": (b"PROXY \r\n", "has not the words"),
    "two_spaces": (b"PROXY TCP4  10.1.2.3 10.0.0.5 40200 11112\r\n", "has not the words"),
    "space_behind": (b"PROXY TCP4 10.1.2.3 10.0.0.5 40200 11112 \r\n", "has not the words"),
    "udp_line": (b"PROXY UDP4 10.1.2.3 10.0.0.5 40200 11112\r\n", "neither TCP4, TCP6"),
    "octal": (b"PROXY TCP4 10.01.2.3 10.0.0.5 40200 11112\r\n", "an address that is none"),
    "nul": (b"PROXY TCP4 10.1.2.3\x00 10.0.0.5 40200 11112\r\n", "an address that is none"),
    "other_family": (b"PROXY TCP4 ::1 ::1 40200 11112\r\n", "an address that is none"),
    "zone": (b"PROXY TCP6 fe80::1%eth0 ::1 40200 11112\r\n", "an address that is none"),
    "port": (b"PROXY TCP4 10.1.2.3 10.0.0.5 65536 11112\r\n", "a port that is none"),
    "port_with_zero": (b"PROXY TCP4 10.1.2.3 10.0.0.5 040 11112\r\n", "a port that is none"),
    "version": (_SIGNATURE + b"\x31\x11\x00\x0c" + _ADDRESSES, "neither version 1 nor 2"),
    "command": (_SIGNATURE + b"\x22\x11\x00\x0c" + _ADDRESSES, "neither LOCAL nor PROXY"),
    "family": (v2(_ADDRESSES, 0x41), "an address family or a transport"),
    "transport": (v2(_ADDRESSES, 0x13), "an address family or a transport"),
    "family_of_nothing": (v2(b"", 0x11), "shorter than its addresses"),
    "short": (v2(_ADDRESSES[:-1]), "shorter than its addresses"),
    "huge": (_SIGNATURE + b"\x21\x11\xff\xff", "more than 4096 bytes"),
    "tlv_head": (v2(_ADDRESSES + b"\x04\x00"), "a TLV that runs past the end"),
    "tlv": (v2(_ADDRESSES + b"\x04\x00\x02\x00"), "a TLV that runs past the end"),
    "tls_tlv": (v2(_ADDRESSES + b"\x20\x00\x04\x07\x00\x00\x00"), "a TLV that runs past the end"),
    "tls_inner": (
        v2(_ADDRESSES + b"\x20\x00\x09\x07\x00\x00\x00\x00\x22\x00\x02G"),
        "a TLV that runs past the end",
    ),
    "checksum": (v2(_ADDRESSES + b"\x03\x00\x04\x00\x00\x00\x00"), "a checksum that is wrong"),
    "checksum_of_2": (v2(_ADDRESSES + b"\x03\x00\x02\x00\x00"), "a checksum that is not 4 bytes"),
}

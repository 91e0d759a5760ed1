"""PROXY headers as a plain reading of HAProxy's doc/proxy-protocol.txt has them, for comparison."""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, NamedTuple

__all__ = ["BLOCK_MOST", "SIGNATURE", "Header", "Refused", "crc32c", "header"]

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
BLOCK_MOST: Final = 4096
LINE_MOST: Final = 107
SIZES: Final = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}


class Refused(Exception):  # noqa: N818, a verdict rather than a fault
    """It is no header, or not a sound one."""


class Header(NamedTuple):
    """size: bytes. The rest as in `ProxyHeader`."""

    size: int
    version: int
    is_local: bool = False
    source: tuple[str, int] | None = None
    common_name: bytes | None = None


def header(data: bytes) -> Header | None:
    """The header that `data` begins with; None: there is more to come. Raises Refused."""
    if data[:1] == b"P":
        return line(data)
    if data[:12] != SIGNATURE[: len(data[:12])]:
        raise Refused
    return block(data) if len(data) >= 16 else None


def line(data: bytes) -> Header | None:
    if data[:6] != b"PROXY "[: len(data[:6])]:
        raise Refused
    end = re.search(rb"\r[^\n]|(?<!\r)\n", data[:LINE_MOST])
    whole = data[:LINE_MOST].partition(b"\r\n")
    if end is not None and end.start() < len(whole[0]):
        raise Refused
    if not whole[1]:
        if len(data) >= LINE_MOST:
            raise Refused
        return None
    size = len(whole[0]) + 2
    words = whole[0][6:].split(b" ")
    if words[0] == b"UNKNOWN":
        return Header(size, 1)
    if len(words) != 5 or words[0] not in (b"TCP4", b"TCP6"):
        raise Refused
    kind = ipaddress.IPv4Address if words[0] == b"TCP4" else ipaddress.IPv6Address
    try:
        source, _target = (kind(word.decode("ascii")) for word in words[1:3])
    except (ValueError, UnicodeDecodeError):
        raise Refused from None
    if b"%" in words[1] + words[2]:
        raise Refused
    if not all(re.fullmatch(rb"0|[1-9][0-9]{0,4}", word) for word in words[3:]):
        raise Refused
    if max(map(int, words[3:])) > 65535:
        raise Refused
    return Header(size, 1, source=(written(source.packed), int(words[3])))


def written(packed: bytes) -> str:
    """An address as the system writes it."""
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # Which begins with zeros and ends in an IPv4 address, where Python writes two groups.
        if packed[:12] == bytes(12) and packed[12:14] != bytes(2):
            return f"::{ipaddress.IPv4Address(packed[12:])}"
    return str(address)


def block(data: bytes) -> Header | None:
    command, family, length = data[12], data[13], struct.unpack_from(">H", data, 14)[0]
    if command not in (0x20, 0x21) or length > BLOCK_MOST:
        raise Refused
    size = 16 + length
    is_local = command == 0x20
    if len(data) < size:
        return None
    if is_local or family == 0:
        return Header(size, 2, is_local)
    if family not in SIZES or length < SIZES[family]:
        raise Refused
    source = None
    if family == 0x11:
        source = written(data[16:20]), struct.unpack_from(">H", data, 24)[0]
    elif family == 0x21:
        source = written(data[16:32]), struct.unpack_from(">H", data, 48)[0]
    name = None
    checksums = 0
    for kind, at, value in tlvs(data[:size], 16 + SIZES[family]):
        if kind == 0x03:
            checksums += 1
            blank = data[:at] + bytes(4) + data[at + 4 : size]
            if checksums > 1 or len(value) != 4 or int.from_bytes(value) != crc32c(blank):
                raise Refused
        if kind == 0x20:
            if len(value) < 5:
                raise Refused
            for inner, _at, text in tlvs(value, 5):
                is_verified = value[0] & 6 and value[1:5] == bytes(4)
                if inner == 0x22 and is_verified and name is None:
                    name = text
    return Header(size, 2, source=source, common_name=name)


def tlvs(data: bytes, at: int) -> list[tuple[int, int, bytes]]:
    """Kind, place of the value, and value."""
    found = []
    while at < len(data):
        if at + 3 > len(data):
            raise Refused
        kind, size = struct.unpack_from(">BH", data, at)
        at += 3
        if at + size > len(data):
            raise Refused
        found.append((kind, at, data[at : at + size]))
        at += size
    return found


def crc32c(data: bytes) -> int:
    """A bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

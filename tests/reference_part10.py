"""A Part 10 header inside a data set, found slowly: the oracle for fastscp_ext.dataset.part10."""

from __future__ import annotations

import struct

__all__ = ["strip"]

LONG_FORM = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
CAP = 65536


def begins_meta(raw: bytes) -> bool:
    if len(raw) < 6:
        return False
    group, element = struct.unpack("<HH", raw[:4])
    return group == 2 and element < 0x0200 and is_vr(raw[4:6].decode("latin-1"))


def is_vr(vr: str) -> bool:
    return all("A" <= letter <= "Z" for letter in vr)


def strip(data: bytes) -> tuple[int, bytes] | None:
    """What `strip_embedded` returns: bytes taken off and transfer syntax, or None."""
    if begins_meta(data):
        start = 0
    elif data[128:132] == b"DICM" and begins_meta(data[132:]):
        start = 132
    else:
        return None
    meta = data[start:]
    syntax = b""
    at = 0
    while True:
        if at + 8 > min(len(meta), CAP):
            return None
        group, element = struct.unpack_from("<HH", meta, at)
        if group != 2:
            return start + at, syntax
        vr = meta[at + 4 : at + 6].decode("latin-1")
        if vr in LONG_FORM:
            if at + 12 > min(len(meta), CAP):
                return None
            (size,) = struct.unpack_from("<L", meta, at + 8)
            value_at = at + 12
        elif is_vr(vr):
            (size,) = struct.unpack_from("<H", meta, at + 6)
            value_at = at + 8
        else:
            return None
        if value_at + size > min(len(meta), CAP):
            return None
        if element == 0x0010 and not syntax:
            syntax = meta[value_at : value_at + size].strip(b"\0 \r\n")
        at = value_at + size

"""A Part 10 header inside a data set, found slowly: the oracle for fastscp_ext.dataset.part10."""

from __future__ import annotations

import struct

__all__ = ["strip"]

LONG_FORM = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
CAP = 65536


KNOWN = (
    *LONG_FORM, "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH",
    "SL", "SS", "ST", "TM", "UI", "UL", "US",
)  # fmt: skip


def begins_front(raw: bytes) -> bool:
    if len(raw) < 8:
        return False
    group, element, vr, length = struct.unpack("<HH2s2x", raw[:8]) + struct.unpack("<L", raw[4:8])
    if element >= {0: 0x6000, 2: 0x0200}.get(group, 0):
        return False
    if is_vr(vr.decode("latin-1")):
        return bool(group == 2 or vr.decode() in KNOWN)
    return bool(length <= CAP and (element or length == 4))


def is_vr(vr: str) -> bool:
    return all("A" <= letter <= "Z" for letter in vr)


def strip(data: bytes) -> tuple[int, bytes] | None:
    """What `strip_embedded` returns: bytes taken off and transfer syntax, or None."""
    if data[128:132] == b"DICM" and begins_front(data[132:]):
        start = 132
    elif begins_front(data):
        start = 0
    else:
        return None
    meta = data[start:]
    syntax = b""
    fronts = [0, 2]
    at = 0
    while True:
        if at + 8 > min(len(meta), CAP):
            return None
        group, element = struct.unpack_from("<HH", meta, at)
        if group not in fronts:
            return start + at, syntax
        if group == 2:
            fronts = [2]
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
            (size,) = struct.unpack_from("<L", meta, at + 4)
            value_at = at + 8
        if value_at + size > min(len(meta), CAP):
            return None
        if group == 2 and element == 0x0010 and not syntax:
            syntax = meta[value_at : value_at + size].strip(b"\0 \r\n")
        at = value_at + size

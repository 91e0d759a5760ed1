"""The head of a Part 10 file, read slowly: the oracle for fastscp_ext.dataset.head."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.reference_part10 import LONG_FORM

__all__ = ["Meta", "meta"]


class Meta(NamedTuple):
    """What the File Meta Information tells. offset: of the data set."""

    sop_class: bytes
    sop_instance: bytes
    transfer_syntax: bytes
    offset: int


def elements(data: bytes, at: int) -> list[tuple[int, bytes, int] | None]:
    """Number, value and end of the elements of group 0002; None behind them: one is cut."""
    found: list[tuple[int, bytes, int] | None] = []
    while True:
        if len(data) - at < 2:
            found.append(None)
            break
        if data[at : at + 2] != b"\2\0":
            break
        vr = data[at + 4 : at + 6].decode("latin-1")
        form, size = ("<L", 12) if vr in LONG_FORM else ("<H", 8)
        start = at + size
        if len(data) < start:
            found.append(None)
            break
        (length,) = struct.unpack_from(form, data, start - struct.calcsize(form))
        if len(data) - start < length:
            found.append(None)
            break
        (number,) = struct.unpack_from("<H", data, at + 2)
        at = start + length
        found.append((number, data[start:at], at))
    return found


def meta(data: bytes) -> Meta | None:
    """None: it is not Part 10. An empty transfer syntax at the end of the bytes: it is cut."""
    if data[128:132] != b"DICM":
        return None
    values = {2: b"", 3: b"", 0x10: b""}
    offset, length_end = 132, None
    for found in elements(data, 132):
        if found is None:
            if offset < len(data):
                return Meta(b"", b"", b"", len(data))
            break
        number, value, offset = found
        if number == 0 and length_end is None and len(value) == 4:
            announced = int.from_bytes(value, "little")
            if 0 < announced <= len(data) - offset:
                length_end = offset + announced
        elif number in values and not values[number]:
            values[number] = value.strip(b"\0 \r\n")
        if offset == length_end and values[0x10]:
            break
    return Meta(values[2], values[3], values[0x10], offset)

"""A strict reader: what a data set without any fault says, and nothing of any other.

What is damaged may still read without a fault, another way than it was meant: nobody can tell then.
Source: PS3.5 7.1, 7.5, 6.2.2, A.4.
"""

from __future__ import annotations

import struct
from typing import Final

from tests.datasets.tree import (
    IMPLICIT,
    ITEM,
    ITEM_END,
    LONG_FORM,
    SEQUENCE_END,
    SHORT_FORM,
    UNDEFINED,
    WANTED,
    Coding,
)

__all__ = ["PADDING", "sound"]

PADDING: Final = b" \0\r\n"
PIXELS: Final = 0x7FE00010
DELIMITERS: Final = 0xFFFE


class UnsoundError(Exception):
    """The bytes have a fault."""


class CutError(Exception):
    """The bytes end, and have none up to there."""


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.values: dict[str, bytes] = {}

    def unpack(self, form: str, at: int, end: int) -> tuple[int, ...]:
        size = struct.calcsize(form)
        if at + size > end:
            raise CutError if end == len(self.data) else UnsoundError
        return struct.unpack_from(form, self.data, at)

    def header(self, at: int, end: int, coding: Coding) -> tuple[int, str, int, int]:
        """Tag, VR, length and where the value begins."""
        order = coding.order
        group, number = self.unpack(order + "HH", at, end)
        tag = group << 16 | number
        if coding.implicit or group == DELIMITERS:
            (length,) = self.unpack(order + "L", at + 4, end)
            return tag, "", length, at + 8
        self.unpack("BBBB", at + 4, end)
        vr = self.data[at + 4 : at + 6].decode("latin-1")
        if vr in SHORT_FORM:
            (length,) = self.unpack(order + "H", at + 6, end)
            return tag, vr, length, at + 8
        if vr not in LONG_FORM or self.data[at + 6 : at + 8] != b"\0\0":
            raise UnsoundError
        (length,) = self.unpack(order + "L", at + 8, end)
        return tag, vr, length, at + 12

    def elements(self, at: int, end: int, coding: Coding, *, depth: int, open_: bool) -> int:
        """Read a level to its end; where that is. open_: an end mark closes it."""
        seen: set[int] = set()
        last = 0
        while at < end or open_:
            if at >= end:
                raise CutError if end == len(self.data) else UnsoundError
            tag, vr, length, at = self.header(at, end, coding)
            if tag >> 16 == DELIMITERS:
                if open_ and tag & 0xFFFF == ITEM_END and length == 0:
                    return at
                raise UnsoundError
            if tag in seen or (depth and tag < last) or tag >> 16 in (0, 1, 3, 5, 7, 0xFFFF):
                raise UnsoundError
            seen.add(tag)
            last = tag
            at = self.value(tag, vr, length, at, end, coding, depth)
        return at

    def value(
        self, tag: int, vr: str, length: int, at: int, end: int, coding: Coding, depth: int
    ) -> int:
        if length == UNDEFINED:
            if tag == PIXELS and vr != "SQ":
                return self.fragments(at, end, coding)
            if not coding.implicit and vr not in ("SQ", "UN"):
                raise UnsoundError
            inside = IMPLICIT if vr == "UN" else coding
            return self.items(at, end, inside, depth=depth, open_=True)
        if at + length > end:
            if end != len(self.data):
                raise UnsoundError
            if vr != "SQ":
                raise CutError
        if vr == "SQ":
            return self.items(at, min(at + length, end), coding, depth=depth, open_=False)
        if depth == 0 and tag in WANTED:
            self.values[WANTED[tag]] = self.data[at : at + length].strip(PADDING)
        return at + length

    def items(self, at: int, end: int, coding: Coding, *, depth: int, open_: bool) -> int:
        while at < end or open_:
            if at >= end:
                raise CutError if end == len(self.data) else UnsoundError
            tag, _, length, at = self.header(at, end, coding)
            if tag >> 16 != DELIMITERS:
                raise UnsoundError
            if open_ and tag & 0xFFFF == SEQUENCE_END and length == 0:
                return at
            if tag & 0xFFFF != ITEM:
                raise UnsoundError
            if length == UNDEFINED:
                at = self.elements(at, end, coding, depth=depth + 1, open_=True)
                continue
            if at + length > end and end != len(self.data):
                raise UnsoundError
            stop = min(at + length, end)
            at = self.elements(at, stop, coding, depth=depth + 1, open_=False)
        return at

    def fragments(self, at: int, end: int, coding: Coding) -> int:
        while True:
            if at >= end:
                raise CutError
            tag, _, length, at = self.header(at, end, coding)
            if tag == DELIMITERS << 16 | SEQUENCE_END and length == 0:
                return at
            if tag != DELIMITERS << 16 | ITEM or length == UNDEFINED:
                raise UnsoundError
            at += length
            if at > end:
                raise CutError


def sound(data: bytes, coding: Coding) -> dict[str, bytes] | None:
    """The values at the outermost level; None where there is any fault other than a cut end."""
    reader = Reader(data)
    try:
        reader.elements(0, len(data), coding, depth=0, open_=False)
    except CutError:
        pass
    except UnsoundError:
        return None
    return reader.values

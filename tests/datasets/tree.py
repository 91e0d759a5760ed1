"""A data set as a tree, how it is written (PS3.5 7.1, 7.5, A.4), and what may be wrong with that.

Each node says of itself how it is written; the fields below the word `faults` make it wrong. So a
fault is a few fields set on nodes, and can be taken back.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "IMPLICIT",
    "ITEM",
    "ITEM_END",
    "LONG_FORM",
    "SEQUENCE_END",
    "SHORT_FORM",
    "UNDEFINED",
    "WANTED",
    "Coding",
    "Element",
    "Item",
    "Piece",
    "Tree",
]

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xE000
ITEM_END: Final = 0xE00D
SEQUENCE_END: Final = 0xE0DD

SHORT_FORM: Final = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT"),
    *("PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
)
LONG_FORM: Final = (
    *("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"),
)

WANTED: Final = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080020: "StudyDate",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x00100020: "PatientID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200011: "SeriesNumber",
    0x00200013: "InstanceNumber",
}


@dataclass(frozen=True)
class Coding:
    """How headers are written: with a VR or without, in which byte order."""

    implicit: bool = False
    order: str = "<"

    def tag(self, group: int, number: int) -> bytes:
        return struct.pack(self.order + "HH", group, number)

    def mark(self, number: int, length: int = 0) -> bytes:
        """An item's header, or an end."""
        return struct.pack(self.order + "HHL", 0xFFFE, number, length)


IMPLICIT: Final = Coding(implicit=True)

# Marks are (number, length): ends and items' headers that stand where they should not.
Marks = tuple[tuple[int, int], ...]


@dataclass(eq=False)
class Item:
    elements: list[Element]
    defined: bool = False
    # faults
    bare: bool = False  # no header
    by: int = 0  # the stated length is wrong by this
    end: Marks | None = None  # instead of the end
    behind: Marks = ()

    def __repr__(self) -> str:
        return "item"


@dataclass(eq=False)
class Element:
    """items: of a sequence; fragments: of encapsulated pixel data, else it has a value."""

    tag: int
    vr: str
    value: bytes = b""
    items: list[Item] | None = None
    fragments: list[bytes] | None = None
    defined: bool = False
    # faults
    vr_bytes: bytes | None = None
    long: bool | None = None  # the length form, whatever the VR
    reserved: bytes = b"\0\0"
    other: bool = False  # header without a VR among those with one, or the reverse
    inside: bool | None = None  # whether items are implicit, whatever the VR
    swapped: bool = False
    gap: bytes = b""  # in front of it
    by: int = 0
    end: Marks | None = None
    before: Marks = ()
    behind: Marks = ()
    extra: tuple[Element, ...] = ()  # in front of it

    def __repr__(self) -> str:
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X}) {self.vr}"


@dataclass(frozen=True)
class Piece:
    """Bytes that stand together: a node's header, or what the note says.

    depth: how many items they lie in.
    """

    data: bytes
    note: str
    depth: int
    node: Element | Item | None


@dataclass
class Tree:
    """A whole data set. cut: the node where it ends, and how many bytes behind its beginning."""

    coding: Coding
    elements: list[Element]
    tail: bytes = b""
    cut: tuple[Element | Item, int] | None = None
    truth: dict[str, bytes] = field(default_factory=dict)
    also: dict[str, bytes] = field(default_factory=dict)  # a second value that may be told as well

    def pieces(self) -> list[Piece]:
        found: list[Piece] = []
        _write_all(self.elements, self.coding, 0, found)
        if self.tail:
            found.append(Piece(self.tail, "tail", 0, None))
        return found

    def data(self) -> bytes:
        pieces = self.pieces()
        whole = b"".join(piece.data for piece in pieces)
        if self.cut is None:
            return whole
        node, more = self.cut
        at = 0
        for piece in pieces:
            if piece.node is node:
                return whole[: at + more]
            at += len(piece.data)
        return whole

    def nodes(self) -> Iterator[tuple[Element | Item, int]]:
        """Every element and item, with the number of items around it, in the order written."""

        def walk(elements: list[Element], depth: int) -> Iterator[tuple[Element | Item, int]]:
            for one in elements:
                yield one, depth
                for item in one.items or ():
                    yield item, depth
                    yield from walk(item.elements, depth + 1)

        return walk(self.elements, 0)

    def listing(self) -> str:
        """Each piece with its offset, for whoever looks for the reason."""
        lines = []
        left = len(self.data())
        at = 0
        for piece in self.pieces():
            data = piece.data[: left - at]
            if at >= left:
                break
            shown = data[:40].hex(" ") + (f" ... {len(data)} bytes" if len(data) > 40 else "")
            lines.append(f"{at:6d} {'  ' * piece.depth}{piece.note or piece.node}: {shown}")
            at += len(piece.data)
        return "\n".join(lines)


def _write_all(elements: list[Element], coding: Coding, depth: int, out: list[Piece]) -> None:
    for one in elements:
        _write_all(list(one.extra), coding, depth, out)
        _marks(one.before, coding, depth, out)
        if one.gap:
            out.append(Piece(one.gap, "gap", depth, None))
        _element(one, coding, depth, out)
        _marks(one.behind, coding, depth, out)


def _marks(marks: Marks, coding: Coding, depth: int, out: list[Piece]) -> None:
    for number, length in marks:
        out.append(Piece(coding.mark(number, length), f"FFFE,{number:04X} *", depth, None))


def _element(one: Element, coding: Coding, depth: int, out: list[Piece]) -> None:
    header_coding = Coding(not coding.implicit, "<") if one.other else coding
    if one.swapped:
        other_order = "<" if header_coding.order == ">" else ">"
        header_coding = Coding(header_coding.implicit, other_order)
    body: list[Piece] = []
    undefined = False
    if one.items is not None:
        undefined = not one.defined
        inside = _coding_inside(one, coding)
        for item in one.items:
            _item(item, inside, depth, body)
    elif one.fragments is not None:
        undefined = True
        inside = coding
        for fragment in one.fragments:
            body.append(Piece(coding.mark(ITEM, len(fragment)), "fragment", depth, None))
            body.append(Piece(fragment, "bytes", depth, None))
    elif one.value:
        body.append(Piece(one.value, "value", depth, None))
    if undefined:
        length = UNDEFINED
        _marks(((SEQUENCE_END, 0),) if one.end is None else one.end, inside, depth, body)
    else:
        length = max(0, sum(len(piece.data) for piece in body) + one.by)
        if one.end is not None:
            _marks(one.end, coding, depth, body)
    out.append(Piece(_header(one, header_coding, length), "", depth, one))
    out += body


def _coding_inside(one: Element, coding: Coding) -> Coding:
    """Items of a UN are implicit and little-endian (PS3.5 6.2.2)."""
    implicit = coding.implicit or one.vr == "UN"
    if one.inside is not None:
        implicit = one.inside
    return IMPLICIT if implicit else Coding(False, coding.order)


def _item(item: Item, coding: Coding, depth: int, out: list[Piece]) -> None:
    body: list[Piece] = []
    _write_all(item.elements, coding, depth + 1, body)
    length = UNDEFINED
    if item.defined:
        length = max(0, sum(len(piece.data) for piece in body) + item.by)
        if item.end is not None:
            _marks(item.end, coding, depth, body)
    else:
        _marks(((ITEM_END, 0),) if item.end is None else item.end, coding, depth, body)
    header = b"" if item.bare else coding.mark(ITEM, length)
    out.append(Piece(header, "", depth, item))
    out += body
    _marks(item.behind, coding, depth, out)


def _header(one: Element, coding: Coding, length: int) -> bytes:
    tag = coding.tag(one.tag >> 16, one.tag & 0xFFFF)
    if coding.implicit:
        return tag + struct.pack(coding.order + "L", length)
    vr = one.vr.encode("ascii") if one.vr_bytes is None else one.vr_bytes
    is_long = one.vr not in SHORT_FORM if one.long is None else one.long
    if is_long:
        return tag + vr + one.reserved + struct.pack(coding.order + "L", length)
    return tag + vr + struct.pack(coding.order + "H", min(length, 0xFFFF))

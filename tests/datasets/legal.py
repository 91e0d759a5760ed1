"""Data sets that a sender may send, made from a seed: with whatever can mislead a reader."""

from __future__ import annotations

import random
import struct
from typing import Final

from tests.datasets.tree import (
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_FORM,
    UNDEFINED,
    WANTED,
    Coding,
    Element,
    Item,
    Tree,
)

__all__ = ["FOREIGN", "legal"]

FOREIGN: Final = b"1.9.9.9"  # what every UID inside a sequence begins with

CODINGS: Final = (Coding(), Coding(), Coding(), IMPLICIT, IMPLICIT, Coding(order=">"))

# Standard elements with the VRs that the dictionary has, in ascending order; some of every group.
STANDARD: Final = (
    (0x00080005, "CS"), (0x00080008, "CS"), (0x00080012, "DA"), (0x00080021, "DA"),
    (0x00080030, "TM"), (0x00080070, "LO"), (0x00080090, "PN"), (0x00081030, "LO"),
    (0x0008103E, "LO"), (0x00100010, "PN"), (0x00100030, "DA"), (0x00101010, "AS"),
    (0x001021B0, "LT"), (0x00104000, "LT"), (0x00180050, "DS"), (0x00180060, "DS"),
    (0x00181030, "LO"), (0x00189074, "DT"), (0x00189087, "FD"), (0x00189217, "FD"),
    (0x00200010, "SH"), (0x00200012, "IS"), (0x00200032, "DS"), (0x00200052, "UI"),
    (0x00204000, "LT"), (0x00280002, "US"), (0x00280009, "AT"), (0x00280010, "US"),
    (0x00280011, "US"), (0x00281050, "DS"), (0x00281201, "OW"), (0x00282000, "OB"),
    (0x00400244, "DA"), (0x0040A120, "DT"), (0x0040A160, "UT"), (0x00880140, "UI"),
    (0x60000010, "US"), (0x60003000, "OW"),
)  # fmt: skip
SEQUENCES: Final = (
    0x00081110, 0x00081111, 0x00081115, 0x00081140, 0x00081199, 0x00081250, 0x00089215,
    0x00101002, 0x00189346, 0x00209071, 0x00321064, 0x00400260, 0x00400275, 0x0040A730,
    0x00880200, 0x52009229, 0x54000100, 0xFFFAFFFA,
)  # fmt: skip
PRIVATE_GROUPS: Final = (0x0009, 0x0011, 0x0019, 0x0021, 0x0029, 0x0033, 0x7FE1)
NUMBERS: Final = {
    "AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "OD": 8,
    "OF": 4, "OL": 4, "OV": 8, "OW": 2,
}  # fmt: skip
EVERY_VR: Final = (*SHORT_FORM, "OB", "OD", "OF", "OL", "OV", "OW", "SV", "UC", "UN", "UR", "UT",
                   "UV")  # fmt: skip
PADDINGS: Final = (b"\0", b"\0", b"\0", b" ", b"  ", b"\0\0", b"\r\n", b" \0", b"\n", b"\r")
# Even lengths that spell a VR where an explicit header has one.
SPELLED: Final = tuple(
    struct.unpack("<L", vr)[0]
    for vr in (
        b"DA\0\0",
        b"LO\0\0",
        b"PN\0\0",
        b"DS\0\0",
        b"FD\0\0",
        b"TM\0\0",
        b"LO\1\0",
        b"ZZ\0\0",
    )
)


class Maker:
    """Makes one data set. plain: nothing that is long or rare."""

    def __init__(self, rng: random.Random, coding: Coding, *, plain: bool = False) -> None:
        self.rng = rng
        self.coding = coding
        self.plain = plain
        self.odd = not plain and rng.random() < 0.08
        self.crlf = not plain and rng.random() < 0.15

    # Values

    def uid(self, prefix: bytes) -> bytes:
        parts = [str(self.rng.randrange(1, 10 ** self.rng.randrange(1, 9))).encode()]
        while self.rng.random() < 0.4 and len(prefix) + len(b".".join(parts)) < 50:
            parts.append(str(self.rng.randrange(10**6)).encode())
        return b".".join([prefix, *parts])

    def padded(self, value: bytes, pad: bytes) -> bytes:
        if len(value) % 2 and not self.odd:
            return value + pad
        return value

    def padded_uid(self, value: bytes) -> bytes:
        if self.crlf:
            value += self.rng.choice(PADDINGS)
            if self.rng.random() < 0.2:
                value = b" " + value
        return self.padded(value, b"\0")

    def text(self, most: int) -> bytes:
        letters = b"ABCDEFGHIJ abcdefghij 0123456789.^-_\xe4\xc3"
        return bytes(self.rng.choice(letters) for _ in range(self.rng.randrange(1, most)))

    def opaque(self, most: int) -> bytes:
        """Bytes that look like part of a data set, or like nothing."""
        rng = self.rng
        value = b""
        size = rng.randrange(most)
        while len(value) < size:
            match rng.randrange(6):
                case 0:
                    value += rng.randbytes(rng.randrange(1, 20))
                case 1:
                    value += bytes(rng.randrange(1, 20))
                case 2:
                    number = rng.choice((ITEM, ITEM_END, SEQUENCE_END))
                    length = rng.choice((0, 4, 8, 20, UNDEFINED, rng.getrandbits(32)))
                    value += self.coding.mark(number, length)
                case 3:
                    inside = Tree(rng.choice((self.coding, IMPLICIT)), self.foreign())
                    value += inside.data()
                case 4:
                    nested = self.sequence(0x00081140, 3)
                    inside = Tree(rng.choice((self.coding, IMPLICIT)), [nested])
                    value += inside.data()
                case 5:
                    value += self.text(12)
        return value

    def value(self, vr: str) -> bytes:
        rng = self.rng
        if rng.random() < 0.1:
            return b""
        if vr in ("OB", "UN"):
            return self.padded(self.opaque(40), b"\0")
        if vr in NUMBERS:
            unit = NUMBERS[vr]
            if vr in ("OD", "OF", "OL", "OV", "OW"):
                value = self.opaque(60)
                return value[: len(value) // unit * unit]
            return rng.randbytes(unit * rng.choice((1, 1, 2, 3)))
        match vr:
            case "UI":
                return self.padded_uid(self.uid(FOREIGN))
            case "DA":
                return b"2024%02d%02d" % (rng.randrange(1, 13), rng.randrange(1, 29))
            case "TM":
                return b"%02d%02d%02d" % tuple(rng.randrange(24) for _ in range(3))
            case "DT":
                return b"20240229%02d00" % rng.randrange(24)
            case "AS":
                return b"%03dY" % rng.randrange(100)
            case "IS" | "DS":
                return self.padded(b"%d" % rng.randrange(-999, 99999), b" ")
            case "CS" | "AE":
                return self.padded(
                    rng.choice((b"ISO_IR 100", b"ORIGINAL\\PRIMARY", b"A", b"CT")), b" "
                )
        return self.padded(self.text(30), b" ")

    def long_value(self, vr: str) -> bytes:
        """More than a 16-bit length holds, or a length that spells a VR."""
        rng = self.rng
        if self.coding.implicit and rng.random() < 0.5:
            return bytes(rng.choice(SPELLED))
        if vr in SHORT_FORM:
            return bytes(rng.choice((65534, 32768, 0x4C4C)))
        return bytes(rng.choice((65534, 65536, 65538, 70000)))

    # Elements

    def foreign(self) -> list[Element]:
        """What the tap looks for, of another instance; in ascending order."""
        rng = self.rng
        made = []
        for tag, keyword in WANTED.items():
            if rng.random() < 0.6:
                if keyword.endswith("UID"):
                    made.append(Element(tag, "UI", self.padded(self.uid(FOREIGN), b"\0")))
                else:
                    vr = {"StudyDate": "DA", "PatientID": "LO", "Modality": "CS"}.get(keyword, "IS")
                    text = {"DA": b"19990101", "CS": b"XX"}.get(vr, b"999")
                    made.append(Element(tag, vr, self.padded(text, b" ")))
        return made

    def private(self, depth: int) -> list[Element]:
        """A group of private elements with its creator, of any VR."""
        rng = self.rng
        group = rng.choice(PRIVATE_GROUPS) << 16
        made = [Element(group | 0x10, "LO", self.padded(b"MAKER %d" % rng.randrange(99), b" "))]
        for number in sorted(rng.sample(range(0x1001, 0x10FF), rng.randrange(1, 5))):
            if depth < 3 and rng.random() < 0.2:
                one = self.sequence(group | number, depth + 1)
                one.vr = rng.choice(("SQ", "SQ", "UN"))
                made.append(one)
                continue
            vr = rng.choice(EVERY_VR)
            value = self.value(vr)
            if not self.plain and depth == 0 and rng.random() < 0.01:
                value = self.long_value(vr)
            made.append(Element(group | number, vr, value))
        return made

    def sequence(self, tag: int, depth: int) -> Element:
        rng = self.rng
        count = rng.choice((0, 1, 1, 1, 2, 3))
        if not self.plain and depth <= 1 and rng.random() < 0.01:
            count = rng.choice((40, 300))
            items = [Item([], rng.random() < 0.5) for _ in range(count)]
        else:
            items = [self.item(depth) for _ in range(count)]
        one = Element(tag, "SQ", items=items, defined=rng.random() < 0.45)
        if rng.random() < 0.12 and not self.coding.implicit:
            one.vr = "UN"
        return one

    def item(self, depth: int) -> Item:
        rng = self.rng
        elements: list[Element] = []
        if rng.random() < 0.8:
            elements += self.foreign()
        for tag, vr in rng.sample(STANDARD, rng.randrange(4)):
            elements.append(Element(tag, vr, self.value(vr)))
        elements += [
            Element(tag, "UI", self.padded(self.uid(FOREIGN), b"\0"))
            for tag in (0x00081150, 0x00081155)
            if rng.random() < 0.5
        ]
        if depth < 3:
            elements += [self.sequence(tag, depth + 1) for tag in SEQUENCES if rng.random() < 0.06]
            if rng.random() < 0.1:
                elements += self.private(depth + 1)
        if rng.random() < 0.08:
            elements.append(self.pixels(depth + 1))
        elements = ascending(elements)
        if rng.random() < 0.05:
            inside = IMPLICIT if self.coding.implicit else self.coding
            elements = with_group_lengths(elements, inside)
        return Item(elements, rng.random() < 0.45)

    def pixels(self, depth: int) -> Element:
        rng = self.rng
        if self.coding == Coding() and rng.random() < 0.4:
            fragments = [b"" if rng.random() < 0.5 else bytes(4)]
            fragments += [self.even(self.opaque(60)) for _ in range(rng.randrange(0, 4))]
            return Element(0x7FE00010, "OB", fragments=fragments)
        if depth == 0 and rng.random() < 0.1:
            tag, vr = rng.choice(((0x7FE00008, "OF"), (0x7FE00009, "OD")))
            return Element(tag, vr, bytes(16))
        vr = rng.choice(("OW", "OB"))
        # No image is empty (PS3.3 C.7.6.3).
        return Element(0x7FE00010, vr, self.even(self.opaque(200)) or bytes(2))

    @staticmethod
    def even(value: bytes) -> bytes:
        return value + bytes(len(value) % 2)

    def own(self) -> tuple[list[Element], dict[str, bytes]]:
        """The instance's own elements, and the values that are to be found."""
        rng = self.rng
        texts = {
            "StudyDate": ("DA", b"2024%02d%02d" % (rng.randrange(1, 13), rng.randrange(1, 29))),
            "AccessionNumber": ("SH", b"A%d" % rng.randrange(10**6)),
            "Modality": ("CS", rng.choice((b"CT", b"MR", b"OT", b"US"))),
            "PatientID": ("LO", rng.choice((b"P%d", b"P %d^x", b"\xe4%d")) % rng.randrange(999)),
            "SeriesNumber": ("IS", b"%d" % rng.randrange(1, 99)),
            "InstanceNumber": ("IS", b"%d" % rng.randrange(1, 999)),
        }
        made = []
        truth = {}
        for tag, keyword in WANTED.items():
            if keyword.endswith("UID"):
                classes = keyword == "SOPClassUID"
                value = self.uid(b"1.2.840.10008.5.1.4.1.1" if classes else b"1.2.3")
                one = Element(tag, "UI", self.padded_uid(value))
            else:
                if rng.random() < 0.1:
                    continue
                vr, value = texts[keyword]
                if rng.random() < 0.1:
                    value = b""
                padded = value
                if value and rng.random() < 0.1 and vr != "DA":
                    padded = b" " + value + b" "
                one = Element(tag, vr, self.padded(padded, b" "))
            if not self.plain and not self.coding.implicit and rng.random() < 0.02:
                one.vr = "UN"  # a sender that does not know the element (PS3.5 6.2.2)
            if value:
                truth[keyword] = value
            made.append(one)
        return made, truth


def ascending(elements: list[Element]) -> list[Element]:
    """Sorted, the first of each tag only."""
    found: dict[int, Element] = {}
    for one in elements:
        found.setdefault(one.tag, one)
    return [found[tag] for tag in sorted(found)]


def with_group_lengths(elements: list[Element], coding: Coding) -> list[Element]:
    """The elements of each group behind its length (retired, PS3.5 7.2)."""
    made: list[Element] = []
    groups: dict[int, list[Element]] = {}
    for one in elements:
        groups.setdefault(one.tag >> 16, []).append(one)
    for group, members in groups.items():
        size = len(Tree(coding, members).data())
        made.append(Element(group << 16, "UL", struct.pack(coding.order + "L", size)))
        made += members
    return made


def legal(seed: int | random.Random, *, plain: bool = False, coding: Coding | None = None) -> Tree:
    """A data set without a fault. plain: sorted, small, in one of the usual ways."""
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    coding = coding or rng.choice(CODINGS)
    maker = Maker(rng, coding, plain=plain)
    elements, truth = maker.own()
    for tag, vr in rng.sample(STANDARD, rng.randrange(2, 12)):
        elements.append(Element(tag, vr, maker.value(vr)))
    dense = rng.choice((0.0, 0.1, 0.2))
    elements += [maker.sequence(tag, 1) for tag in SEQUENCES if rng.random() < dense]
    while rng.random() < 0.3:
        elements += maker.private(0)
    if rng.random() < 0.7:
        elements.append(maker.pixels(0))
    elements = ascending(elements)
    if not plain and rng.random() < 0.02 and elements[0].tag not in WANTED:
        elements[0].value = maker.long_value(elements[0].vr)
    if rng.random() < 0.1:
        elements = with_group_lengths(elements, coding)
    if not plain and rng.random() < 0.1:
        elements = unsorted(rng, elements)
    if rng.random() < 0.1:
        elements.append(Element(0xFFFCFFFC, "OB", bytes(rng.choice((0, 2, 128)))))
    return Tree(coding, elements, truth=truth)


def unsorted(rng: random.Random, elements: list[Element]) -> list[Element]:
    """Some moved to the end or shuffled; the first element stays."""
    first, *rest = elements
    if rng.random() < 0.5:
        rng.shuffle(rest)
    else:
        moved = [one for one in rest if rng.random() < 0.3]
        rest = [one for one in rest if one not in moved] + moved
    return [first, *rest]

"""Inputs to begin with, and words to put into them: made here, kept nowhere.

The few written out below reach what chance does not; `generated` adds ordinary ones, `recorded`
what real clients sent, where the vectors are.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING, Final

from tests import streams, wire
from tests.datasets.case import case
from tests.fuzz.checks import TARGETS, pack
from tests.fuzz.generate import BIG, EXPLICIT, IMPLICIT, VRS, WANTED, data_element, sample
from tests.streams.proxied import BROKEN, LOCAL, SOUND, v2
from tests.streams.proxied import line as proxied_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["dictionary", "generated", "recorded", "write", "written"]

UNDEFINED: Final = 0xFFFFFFFF
LARGEST: Final = 2000  # bytes, of a data set made from a tree


class Right(random.Random):
    """No chance at all: every length the generator writes with it is the right one."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start - 1 if stop is None else stop - 1


RIGHT: Final = Right(0)


def pdata(*pdvs: tuple[int, int, bytes], size: int | None = None) -> bytes:
    """A P-DATA-TF PDU of (context, control header, fragment)s."""
    body = b"".join(struct.pack(">LBB", len(f) + 2, context, c) + f for context, c, f in pdvs)
    return struct.pack(">BxL", 4, len(body) if size is None else size) + body


def associate(*items: tuple[int, bytes], kind: int = 1) -> bytes:
    """The fixed fields and items."""
    listed = b"".join(struct.pack(">BxH", number, len(value)) + value for number, value in items)
    body = wire.ASSOCIATE_RQ_BARE[6:] + listed
    return struct.pack(">BxL", kind, len(body)) + body


def framing_seeds() -> Iterator[bytes]:
    command = wire.C_STORE_RQ
    data = (1, 2, b"\x08\0\x05\0CS\0\0")
    yield pdata((1, 3, command), data)
    yield (
        pdata((1, 1, command[:9])) + pdata((1, 3, command[9:])) + pdata((1, 0, b"12"), (1, 2, b""))
    )
    yield pdata((1, 1, b""), (1, 3, command), (1, 0, b""), data)
    yield pdata((1, 3, command)) + pdata((1, 3, command))  # a command inside a data set
    yield pdata((1, 3, command)) + pdata((3, 2, b"x"))  # another context
    yield pdata(data)  # no command before it
    yield pdata((2, 3, command))  # a context nobody accepted
    yield struct.pack(">BxLLBB", 4, 70000, 69000, 1, 1)  # a command set above the cap
    yield pdata((1, 1, bytes(400)), (1, 1, bytes(1000)))  # one that outgrows its place
    yield pdata((1, 3, command), size=7)  # a PDV past its PDU
    yield pdata((1, 3, b"")) + struct.pack(">BxLLBB", 4, 6, 1, 1, 3)  # a PDV without its fields
    yield struct.pack(">BxLLBB", 4, 11, 2, 1, 1) + bytes(5)  # stray bytes
    yield struct.pack(">BxL", 4, 5)
    yield struct.pack(">BxL", 4, UNDEFINED)
    yield struct.pack(">BxL", 1, 67)
    yield struct.pack(">BxL", 2, 1 << 21)
    yield struct.pack(">BxL", 5, 65)
    yield struct.pack(">BxL", 9, 4)
    yield wire.ASSOCIATE_RQ_FULL + wire.ABORT_EMPTY + wire.RELEASE_RQ
    yield associate(*[(0x20, bytes(200))] * 20) + wire.RELEASE_RP  # the PDU's room grows


def pdu_seeds() -> Iterator[bytes]:
    yield from wire.PDUS.values()
    for kind in (1, 2):
        for size in range(4):
            yield associate((0x1F + kind, bytes(size)), kind=kind)
            yield associate(kind=kind) + bytes(size)
        for size in (0, 2, 4, 20, 36, 67):
            yield struct.pack(">BxL", kind, size) + bytes(size)
        yield associate((0x1F + kind, bytes(4)), (0x10, b"1.2"), (0x10, b"1.3"), kind=kind)
        yield associate(*[(0x1F + kind, bytes(4))] * 257, kind=kind)
        many = struct.pack(">BxH", 0x40, 0) * 257
        yield associate((0x1F + kind, bytes(4) + many), kind=kind)
        for number in range(0x51, 0x5A):
            for value in (b"", b"\0", b"\0\1", b"\0\1.", b"\0\1.\0\1", b"\1\0\0\1.\0\5"):
                item = struct.pack(">BxH", number, len(value)) + value
                yield associate((0x50, item), (0x50, b""), kind=kind)
        # Common extended negotiation: related classes of which the last is cut.
        related = b"\0\1.\0\1.\0\5\0\1.\0\3"
        yield associate((0x50, struct.pack(">BxH", 0x57, len(related)) + related), kind=kind)
    above = 1024 * 1024 + 1  # the cap on A-ASSOCIATE
    yield struct.pack(">BxL", 1, above) + bytes(above)
    for size in range(6):
        yield struct.pack(">BxL", 3, size) + bytes(size)
    yield struct.pack(">BxL", 4, 0)
    yield struct.pack(">BxL", 4, 3) + bytes(3)
    yield struct.pack(">BxLL", 4, 4, 9)
    yield struct.pack(">BxLL", 4, 4, 1)
    yield struct.pack(">BxL", 7, 65) + bytes(65)


def command_seeds() -> Iterator[bytes]:
    yield from wire.COMMANDS.values()
    numbers = (0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1031)
    for size in (0, 2, 4):
        element = b"".join(struct.pack("<HHL", 0, n, size) + bytes(size) for n in numbers)
        yield element + element
    for first, second in ((2, 3), (3, 2), (0x1000, 0x1001), (0x1001, 0x1000)):
        yield b"".join(struct.pack("<HHL", 0, n, 3) + b"1.2" for n in (first, second, first))
    for value in (b" AE \0x", b"   ", b"\0", b"AE"):
        yield (struct.pack("<HHL", 0, 0x1030, len(value)) + value) * 2


def level_words(family: int) -> dict[str, bytes]:
    """What a data set is put together of, by the words of LEVELS."""

    def an(tag: int, vr: bytes, value: bytes = b"", size: int | None = None) -> bytes:
        return data_element(RIGHT, family, tag, vr, value, size)

    def plain(tag: int, value: bytes = b"", size: int | None = None) -> bytes:
        return data_element(RIGHT, IMPLICIT, tag, b"", value, size)

    study = 0x0020000D
    item = an(0xFFFEE000, b"", size=UNDEFINED)
    open_sequence = an(0x00081115, b"SQ", size=UNDEFINED)
    everything = b"".join(an(tag, vr, b"1.2.3 ") for tag, vr in WANTED)
    words = {
        "I": item,
        "empty": an(0xFFFEE000, b""),
        "long": an(0xFFFEE000, b"", size=18),
        "IE": an(0xFFFEE00D, b""),
        "SE": an(0xFFFEE0DD, b""),
        "odd": an(0xFFFEE111, b""),
        "open": open_sequence + item,
        "sequence": open_sequence,
        "later": an(0x00081250, b"SQ", size=UNDEFINED) + item,
        "short": an(0x00081115, b"SQ", item),
        "defined": an(0x00081140, b"SQ", an(0xFFFEE000, b"", an(0x00081150, b"UI", b"1.2\0"))),
        "none": an(0x00081140, b"SQ"),
        "un-none": an(0x00091010, b"UN"),
        "un-items": an(0x00091010, b"UN", plain(0xFFFEE000, plain(study, b"1.9\0"))),
        "un-bytes": an(0x00091010, b"UN", b"\xfe\xff\0\1" + bytes(8)),
        "front": an(0x00080005, b"CS", b"ISO_IR 192") + an(0x00080018, b"UI", b"1.2\0"),
        "everything": everything,
        "reference": an(0x00081150, b"UI", b"1.2\0"),
        "other-instance": an(0x00080016, b"UI", b"1.9\0") + an(0x00080018, b"UI", b"1.9\0"),
        "name": an(0x00100010, b"PN", b"A^B "),
        "pid": an(0x00100020, b"LO", b"P9"),
        "study": an(study, b"UI", b"1.2.3\0"),
        "series": an(0x0020000E, b"UI", b"1.2.3.1\0"),
        "number": an(0x00200013, b"IS", b"1 "),
        "described": an(0x00280010, b"US", b"\1\0"),
        "pixels": an(0x7FE00010, b"OW", bytes(8)),
        "floats": an(0x7FE00008, b"OF", bytes(8)),
        "doubles": an(0x7FE00009, b"OD", bytes(8)),
        "fragments": an(0x7FE00010, b"OB", size=UNDEFINED),
        "cut": an(0x00400275, b"LO", size=9),
        # Of one value and another that is it, or is not.
        "padded": an(study, b"UI", b"1.2.3   \0\0"),
        "several": an(study, b"UI", b"1.2.3 \\1.9"),
        "at-once": an(study, b"UI", b"1.2.3\\1.9"),
        "nothing": an(study, b"UI"),
        "foreign": an(study, b"UI", b"1.9.9\0"),
        "longer": an(study, b"UI", b"1.2.3.4\0"),
        "shorter": an(study, b"UI", b"1.2\0"),
        "too-long": an(study, b"UI", b"1.2.3" + b" " * 300),
        "too-long-another": an(study, b"UI", b"1.2.3" + b"1" * 300),
        # UN of undefined length, in which all is Implicit VR little endian.
        "un": an(0x00091010, b"UN", size=UNDEFINED) + plain(0xFFFEE000, size=UNDEFINED),
        "private": an(0x00091010, b"SQ", size=UNDEFINED) + item + plain(study, b"1.9\0"),
        "i-I": plain(0xFFFEE000, size=UNDEFINED),
        "i-IE": plain(0xFFFEE00D),
        "i-SE": plain(0xFFFEE0DD),
        "i-open": plain(0x00091020, size=UNDEFINED) + plain(0xFFFEE000, size=UNDEFINED),
        "i-study": plain(study, b"1.9\0"),
        "i-described": plain(0x00280010, b"\1\0"),
        # Headers that may be of this encoding or that, or of none.
        "?-unknown": an(0x00400275, b"ZZ"),
        "?-letters": b"\x40\0\0\0ZZ\x7f\x7f" + bytes(16),
        "?-lower": b"\x40\0\0\0zz\x02\0" + bytes(16),
        "?-group": b"\0\0\0\0\0\0\0\0" + bytes(8),
        "?-length": b"\x40\0\0\0\0\0\x7f\x7f" + bytes(8),
        "?-undefined": b"\x40\0\0\0" + b"\xff" * 4,
    }
    words["own"] = b"".join(
        words[name] for name in ("name", "pid", "study", "series", "number", "described", "pixels")
    )
    return words


# Levels that are broken, and whether the tap can know it.
LEVELS: Final = (
    # An end that ends nothing, or the item, too.
    "open {e} SE IE SE own",
    "open {e} SE SE own",
    "open {e} SE own",
    "open open {e} SE IE SE IE SE own",
    "open open {e} SE SE IE SE own",
    "open open {e} SE SE own",
    "open open {e} IE SE SE SE IE SE own",
    "open open open {e} SE study SE IE SE series IE SE IE SE own",
    "open {e} IE IE SE own",
    "open {e} SE SE IE IE SE SE own",
    "{e} SE own",
    "{e} IE own",
    "{e} IE SE own",
    "study {e} IE own",
    "study {e} reference IE own",
    "study {e} reference SE own",
    "{e} reference I IE own",
    "{e} I IE SE own",
    "open {e} SE I IE SE own",
    "open {e} SE study I IE SE own",
    "open SE own {e} odd",
    "open {e} odd",
    "sequence study",
    "sequence odd",
    "{e} odd",
    "sequence empty IE empty SE own",
    "sequence long reference IE SE own",
    "sequence long reference series SE own",
    "short study series IE own",
    "short pid foreign study own",
    "short described pixels IE SE own",
    "short study own IE foreign",
    # Doubled, missing, swapped.
    "open reference SE IE own",
    "open reference SE SE IE own",
    "open reference IE IE SE SE own",
    "open reference IE own",
    "open reference IE I study SE own",
    "open SE open SE open SE own",
    "open open IE SE study SE open open SE SE own",
    # Order: it ascends in all readings, in one, in none.
    "study later SE own",
    "pid study later SE study own",
    "pid study later SE name pid study series number",
    "number later series SE number study name own",
    "later reference SE study IE SE study own",
    "open later study SE SE reference pid own",
    "later reference SE front SE own",
    "later reference SE none SE own",
    # What proves the outermost level at the end of the data set, and what does not.
    "open reference SE study",
    "open reference SE study described",
    "open reference SE study pixels",
    "open reference SE study floats",
    "open reference SE own cut",
    "open reference SE own open",
    "open reference SE own sequence",
    "open reference SE own IE",
    "open reference SE own SE",
    "open reference SE own IE SE own",
    "open reference SE own open IE SE",
    "open reference SE own un-bytes",
    "open open reference SE described pixels",
    # Values that contradict each other, and such that do not.
    *(
        f"{before} {value} number"
        for value in ("padded", "several", "at-once", "nothing", "foreign", "longer", "shorter",
                      "too-long", "too-long-another", "foreign study", "other-instance")
        for before in ("study", "study open reference SE", "open SE study", "at-once", "several")
    ),
    "too-long study",
    "too-long-another too-long-another",
    "nothing study",
    "everything everything",
    "other-instance other-instance",
    "everything later IE SE study",
    "defined everything IE study",
    "open reference SE everything foreign IE SE",
    "open reference SE everything",
    # Pixel data.
    "own SE",
    "own SE number",
    "own floats SE study",
    "open pixels SE own",
    "open pixels SE IE SE own",
    "open SE pixels SE own",
    "floats SE doubles SE own",
    "own IE",
    "fragments empty IE",
    "fragments long IE",
    "fragments empty I",
    "fragments empty SE own",
    "fragments empty SE SE own",
    "open fragments empty SE SE own",
    # More readings than are followed, and so many of them that meet.
    "open " * 10 + "SE " * 7 + "own",
    "open " * 10 + "SE " * 8 + "own",
    "open " * 10 + "SE " * 9 + "own",
    "open " * 7 + "SE " * 14 + "own",
    "open " * 5 + "SE SE IE SE reference " * 3 + "own",
    # Implicit items in an explicit data set.
    "un i-study i-IE i-SE own",
    "un i-study i-SE own",
    "un i-study i-SE i-IE i-SE own",
    "un i-study i-SE i-SE own",
    "un i-study i-SE SE own",
    "un i-study i-SE IE SE own",
    "un i-study i-SE i-study i-IE i-SE own",
    "un i-study i-SE i-described i-IE i-SE own",
    "un i-study IE SE own",
    "un i-open i-study i-SE i-IE i-SE own",
    "un i-open i-study i-SE i-SE own",
    "un i-open i-study i-SE own",
    "un i-open i-study i-SE SE own",
    "open un i-study i-SE IE SE own",
    "open un i-study i-SE i-IE i-SE IE SE own",
    "open open SE un i-study i-SE own",
    "open open SE un i-study i-IE i-SE own",
    "open open SE un i-SE i-SE own",
    "open un i-study i-SE SE own",
    "open un i-open i-study i-SE i-SE SE SE own",
    "private i-SE own",
    "private i-IE i-SE own",
    "private SE own",
    "private IE SE own",
    "open SE private IE SE own",
    "open open SE private SE SE own",
    *(
        f"{start} i-study i-SE {header}"
        for start in ("un", "open un", "un i-open")
        for header in ("?-unknown", "?-letters", "?-lower", "?-group", "?-length", "?-undefined",
                       "cut", "pixels", "defined", "un-items")
    ),
)  # fmt: skip
# A sequence that has ended, for an end behind it; "reference" is none.
ENDED: Final = ("reference", "defined", "none", "un-none", "un-items", "un-bytes", "open IE SE")


def level_seeds(family: int) -> Iterator[bytes]:
    words = level_words(family)
    for shape in LEVELS:
        for ended in ENDED if "{e}" in shape else ENDED[:1]:
            names = shape.format(e=ended).split()
            yield b"".join(words[name] for name in ("front", *names))


def tap_seeds() -> Iterator[tuple[int, bytes]]:
    for family in (IMPLICIT, EXPLICIT, BIG):
        yield from ((family, data) for data in level_seeds(family))
    for family in (IMPLICIT, EXPLICIT, BIG):
        head = data_element(RIGHT, family, 0x00080005, b"CS", b"ISO_IR 192")
        yield (
            family,
            head
            + b"".join(data_element(RIGHT, family, tag, vr, b"1.2.3\\4 ") for tag, vr in WANTED)
            + data_element(RIGHT, family, 0x7FE00010, b"OW", bytes(64)),
        )
        yield (
            family,
            head
            + b"".join(
                data_element(RIGHT, family, 0x00091000 + at, vr, b"ab") for at, vr in enumerate(VRS)
            ),
        )
        yield family, head + data_element(RIGHT, family, 0x00100020, b"LO", b" " * 1100)
        open_item = data_element(RIGHT, family, 0x00081250, b"SQ", b"", UNDEFINED)
        open_item += data_element(RIGHT, family, 0xFFFEE000, b"", b"", UNDEFINED)
        yield family, head + open_item * 33
        # In both items the first header is of the implicit form.
        inside = data_element(RIGHT, IMPLICIT, 0x0020000D, b"", b"1.2.3")
        yield family, head + (open_item + inside) * 2
        for vr in (b"--", b"ZZ"):
            yield family, head + data_element(RIGHT, family, 0x00091010, vr, b"") * 3
        for letters in (b"UN", b"OB"):
            begun = head + data_element(RIGHT, family, 0x7FE00010, letters, b"", UNDEFINED)
            yield family, begun + data_element(RIGHT, family, 0xFFFEE000, b"", b"", UNDEFINED)
        item_end = data_element(RIGHT, family, 0xFFFEE00D, b"", b"")
        yield family, head + item_end * 2
        # Behind an item of defined length, which needs no end.
        sequence = data_element(RIGHT, family, 0x00081250, b"SQ", b"", UNDEFINED)
        item = data_element(RIGHT, family, 0xFFFEE000, b"", b"")
        yield family, head + sequence + item + item_end + item + item_end * 2
        # The first header of an item has no VR and no likely length either.
        yield family, head + open_item + b"\x08\0\x09\0\xff\xff\xff\x7f" * 2
    # First headers in which no transfer syntax can be read, or two can.
    for start in (
        bytes(8),
        b"\xff" * 8,
        b"\x08\0\x08\0UI\2\0",
        b"\x08\x08\0\0UI\2\0",
        b"\0\x08\0\x08UI\0\2",
        b"\0\0\x08\0UI\2\0",
        b"\1\1\x08\0UI\2\0",
        b"\x08\0\x08\0ZZ\2\0",
        b"\x08\0\x08\0\0\0\x20\0",
    ):
        for negotiated in range(4):
            yield negotiated, start + b"1\0"  # fmt: skip


def part10_seeds() -> Iterator[bytes]:
    syntax = b"\2\0\x10\0UI\x12\0" + b"1.2.840.10008.1.2\0"
    tail = b"\x08\0\x05\0CS\0\0"
    yield syntax + tail
    yield from (syntax[:size] for size in range(10))
    yield from (bytes(128) + b"DICM" + syntax[:size] for size in range(6))
    yield bytes(128) + b"DICM" + syntax + tail
    yield bytes(128) + b"DICM" + tail * 2
    yield syntax + b"\2\0\1\0OB\0\0\2\0\0\0\0\1" + tail
    yield syntax + syntax + b"\2\0\2\1UI" + struct.pack("<H", 4000) + bytes(4000) + tail
    yield syntax + b"\2\0\1\0OB\0\0\1\0\1\0"  # above the cap
    yield syntax + b"\2\0\2\1UI\xff\xff" + bytes(65535) + b"\2\0\2\1UI\xff\xff"
    yield syntax + b"\2\0\1\0o1\0\0" + tail
    yield from (b"\2\0\1\0" + vr + bytes(6) + tail for vr in VRS)
    yield b"1.2|1.3|1.2.840.10008.1.2|1.4|NAME|SENDER|RECEIVER"
    yield b"|".join([b"9" * 80] * 7)
    yield b"1.2|1.3|||||"


def damaged_seeds(count: int = 50) -> Iterator[tuple[int, bytes]]:
    """Small data sets with faults of each kind, made from trees; and how they are encoded."""
    seed = 0
    while count:
        one = case(seed, broken=True)
        seed += 1
        data = one.tree.data()
        if len(data) < LARGEST:
            coding = one.tree.coding
            yield IMPLICIT if coding.implicit else BIG if coding.order == ">" else EXPLICIT, data
            count -= 1


def layout_seeds() -> Iterator[bytes]:
    # A path that would not fit without the cut of its long values, and fits with it.
    yield b"1.2.3|1.2.3|1.2.3.1|" + b"x" * 36 + b"|" + b"y" * 201
    # The cut itself lies behind the end of the longest path.
    yield b"1.2.3|1.2.3|1.2.3.1|" + b"x" * 70 + b"|" + b"y" * 201
    # A path that ends too late in the longest template, and a name that does in the last one.
    yield b"1" * 64 + b"|1.2.3|1.2.3.1|" + b"x" * 103 + b"|" + b"y" * 100
    yield b"1" * 64 + b"|1.2.3|1.2.3.1|P|A|" + b"M" * 200
    for size in (110, 120, 125, 130):
        yield b"1.2.3|1.2.3|1.2.3.1|" + b"x" * size + b"|" + b"y" * size
    for uid in (b"1.2", b"", b".", b"1..2", b"1" * 65, b"a_b", b"-1", b"1-", b"1/2", b"\xff"):
        yield uid + b"|1.2.3|1.2.3.1|P|A|CT|20240229|AE"
        yield b"1.2.3|" + uid + b"|1.2.3.1|.dcm|a.dcm.zst|" + b"x" * 201
        yield b"1.2.3|1.2.3|" + uid + b"|" + b"\xe4" * 60 + b"|" + b"y" * 190 + b"|" + b"\xe4" * 80


def head_seeds() -> Iterator[bytes]:
    front = bytes(128) + b"DICM"
    syntax = b"\2\0\x10\0UI\x14\0" + b"1.2.840.10008.1.2.1\0"
    deflate = b"\2\0\x10\0UI\x16\0" + b"1.2.840.10008.1.2.1.99"
    names = b"\2\0\2\0UI\4\0" + b"1.2\0" + b"\2\0\3\0UI\4\0" + b"1.3\0"
    own = b"\x08\0\x16\0UI\4\0" + b"1.4\0" + b"\x08\0\x18\0UI\4\0" + b"1.5\0"
    also = b"\2\0\x13\0SH\4\0NAME"
    yield from (front[:size] for size in (0, 127, 131, 132))
    yield from (front + syntax[:size] for size in range(len(syntax) + 1))
    yield from (front + names + syntax + own[:size] for size in (0, 1, 2, 9, 12, 24))
    for length in (0, 1, len(names + syntax), len(names + syntax) + 12, 4000, UNDEFINED):
        group = b"\2\0\0\0UL\4\0" + struct.pack("<L", length)
        yield front + group + names + syntax + also + own
        yield front + group + group + names + syntax + own
    yield front + b"\2\0\0\0UL\2\0\4\0" + names + syntax + own
    yield front + names + names + syntax + syntax + own
    yield front + names + deflate + zlib.compress(own, wbits=-15)
    yield front + names + deflate
    yield front + b"\2\0\1\0OB\0\0\2\0\0\0\0\1" + names + syntax + own
    yield front + b"\2\0\1\0OB\0\0\xff\xff\xff\xff" + names + syntax + own
    yield front + names + syntax + b"\x08\0\x05\0CS\xff\x0f" + bytes(4095) + own


def answer(message_id: int = 1, status: bytes = b"\0\0", **more: bytes | None) -> bytes:
    """The command set of a C-STORE-RSP; more: values by element as `e0902`, None for none."""
    values: dict[int, bytes | None] = {
        0x0100: b"\1\x80", 0x0120: struct.pack("<H", message_id), 0x0800: b"\1\1", 0x0900: status,
    }  # fmt: skip
    values |= {int(name[1:], 16): value for name, value in more.items()}
    return b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value
        for number, value in values.items() if value is not None
    )  # fmt: skip


def sender_seeds() -> Iterator[bytes]:
    first, second = pdata((1, 3, answer())), pdata((3, 3, answer(2)))
    yield b""
    yield first + second + pdata((1, 3, answer(3))) + pdata((3, 3, answer(4)))
    yield second + first
    yield first + first
    yield pdata((1, 3, answer()), (3, 3, answer(2)))
    yield pdata((1, 1, answer()[:9])) + pdata((1, 1, answer()[9:12]), (1, 3, answer()[12:]))
    yield pdata((1, 3, answer(e0800=b"\0\0")), (1, 0, b"data"), (1, 2, b"set")) + second
    yield pdata((1, 3, answer(e0800=None))) + second
    yield pdata((1, 3, answer(e0902=bytes(6000)))) + second
    yield from (
        pdata((1, 3, answer(**more)))
        for more in (
            {"e0100": None}, {"e0100": b"\1"}, {"e0100": b"\1\0"}, {"e0100": b"\x30\x80"},
            {"e0120": None}, {"e0120": b"\1\0\0\0"}, {"e0120": b"\x09\0"}, {"e0900": None},
            {"e0900": b"\0"}, {"e0800": b"\1\1\0\0"},
        )
    )  # fmt: skip
    yield from (
        pdata((1, 3, answer(status=struct.pack("<H", status)))) + second
        for status in (0, 1, 0x0107, 0x0116, 0xB000, 0xBFFF, 0xA700, 0xAFFF, 0xC000, 0xFE00, 0xFFFF)
    )
    yield pdata((1, 3, b"\0\0\0\1\4\0\0\0x"))  # unreadable
    yield pdata((5, 3, answer()))  # another context
    yield pdata(*[(1, 3, answer())] * 40)
    yield pdata(*((1, 1, b"") for _ in range(40)), (1, 3, answer()))
    yield first + wire.RELEASE_RQ
    yield first[:-1]
    yield wire.ABORT_USER + first
    yield b"HTTP/1.1 400 Bad Request"
    yield from framing_seeds()


def proxy_seeds() -> Iterator[bytes]:
    yield from (data for data, _told in SOUND.values())
    yield from (data for data, _why in BROKEN.values())
    sound = proxied_line("10.1.2.3", 40200)
    yield from (sound[:size] for size in range(len(sound)))
    yield from (LOCAL[:size] for size in range(len(LOCAL)))
    yield proxied_line("1" * 60, 1)
    words = [b"TCP4", b"10.1.2.3", b"10.0.0.5", b"7", b"104", b"more"]
    yield from (b"PROXY " + b" ".join(words[:n]) + b"\r\n" for n in range(7))
    yield from (b"PROXY " + b" ".join(words[:n]) + b" \r\n" for n in range(7))
    for port in (b"", b"123456", b"7x", b"/", b"0", b"00"):
        yield b"PROXY " + b" ".join((*words[:3], port, b"104")) + b"\r\n"
        yield b"PROXY " + b" ".join((*words[:4], port)) + b"\r\n"
    yield from (v2(bytes(36) + tlv, 0x22) for tlv in (b"", b"\4", b"\4\0", b"\4\0\0"))
    name = b"\x22\0\1A"
    yield v2(bytes(12) + b"\x20\0\x0d\2" + bytes(4) + name * 2)


def receiver_seeds() -> Iterator[bytes]:
    rng = random.Random(1)
    for context, family in ((1, EXPLICIT), (3, IMPLICIT), (5, BIG), (7, EXPLICIT), (11, EXPLICIT)):
        data = b"".join(
            data_element(RIGHT, family, tag, b"UI", value)
            for tag, value in (
                (0x00080016, b"1.2.840.10008.5.1.4.1.1.2\0"), (0x00080018, b"1.2.3.4\0"),
                (0x0020000D, b"1.2\0"), (0x0020000E, b"1.3\0"),
            )
        )  # fmt: skip
        command = b"".join(
            struct.pack("<HHL", 0, number, len(value)) + value
            for number, value in (
                (0x0002, b"1.2.840.10008.5.1.4.1.1.2\0"), (0x0100, b"\1\0"), (0x0110, b"\1\0"),
                (0x0800, b"\1\0"), (0x1000, b"1.2.3.4\0"),
            )
        )  # fmt: skip
        packed = zlib.compress(data + bytes(3000), wbits=-15)
        contents = [data, data * 3, bytes(128) + b"DICM" + next(part10_seeds()) + data]
        contents += [packed, packed + b"\0", packed[:20], packed[:60] + b"\xff" * 60, b"\xff" * 200]
        contents += [zlib.compress(bytes(1200000) + data, wbits=-15), bytes(140), data[:137]]
        for content in contents:
            message = pdata((context, 3, command)) + pdata((context, 2, content))
            yield message + message + wire.RELEASE_RQ
        yield pdata((context, 3, command), (context, 0, data[:5]), (context, 2, data[5:]))
        yield pdata((context, 3, wire.C_ECHO_RQ)) + wire.ABORT_USER
        yield pdata((context, 3, wire.N_ACTION_RQ), (context, 2, rng.randbytes(20)))


def record_seeds() -> Iterator[bytes]:
    """Whole ones, each kind in its place and out of it, and lengths about their bounds."""
    for kind in range(19, 26):
        for size in (0, 1, 2, 16384, 16385, 16384 + 2048, 16384 + 2049, 65535):
            for version in (0x0301, 0x0303, 0x0203):
                header = struct.pack(">BHH", kind, version, size)
                yield header + bytes(min(size, 20))
    sound = [seed for seed in receiver_seeds() if len(seed) < 2000]
    closing = b"\x15\3\3\0\2\1\0"
    for data in sound:
        for size in (7, 900):
            yield (
                b"".join(
                    struct.pack(">BHH", 23, 0x0303, len(data[at : at + size]))
                    + data[at : at + size]
                    for at in range(0, len(data), size)
                )
                + closing
            )
    for times in (64, 65):
        yield b"\x17\3\3\0\0" * times + b"\x16\3\3\0\1\x18" + closing + b"\x17"
    first = b"\x17\3\3\0\1\4"
    yield from (first[:size] for size in range(len(first)))


def written() -> Iterator[bytes]:
    """The inputs written out here, each with a few settings of its header."""
    for option in (0, 1):
        for allocation in range(4):
            yield from (
                pack("framing", data, option, cut, allocation)
                for data in framing_seeds() for cut in (1, 2)
            )  # fmt: skip
    for data in pdu_seeds():
        yield pack("pdu", data)
        yield pack("pdu", data, 1 | (data[0] & 7) << 1)
    yield from (pack("command", data) for data in command_seeds())
    yield from (pack("proxy", data) for data in proxy_seeds())
    yield from (pack("record", data, 0, 250) for data in record_seeds())
    yield from (pack("tap", data, option) for option, data in tap_seeds())
    yield from (pack("tap", data, option, 3) for option, data in damaged_seeds())
    for allocation in range(4):
        yield from (pack("part10", data, 0, 2, allocation) for data in part10_seeds())
    for option in range(5):
        yield from (pack("layout", data, option) for data in layout_seeds())
        yield from (pack("layout", data, option | 0x80) for data in layout_seeds())
    for option in (1, 3):
        for allocation in range(3):
            yield from (pack("head", data, option, 128, allocation) for data in head_seeds())
    for option in (0, 3, 7, 11, 0x23, 0x40, 0x60):
        for allocation in range(4 if option == 3 else 1):
            yield from (pack("sender", data, option, 3, allocation) for data in sender_seeds())
    if "receiver" in [target.__name__ for target in TARGETS]:
        for option in (0, 1, 2, 4, 8, 16, 32, 64):
            yield from (pack("receiver", data, option, 3) for data in receiver_seeds())
        for cut in range(3):
            yield from (pack("secure", data, 0, cut) for data in record_seeds())


def generated(count: int, seed: int = 1) -> Iterator[bytes]:
    """Inputs of the generator, the targets in turn."""
    for number in range(count):
        yield sample(random.Random(seed * 1_000_003 + number), number % len(TARGETS))


def recorded() -> Iterator[bytes]:
    """The streams of tests/streams, with what other makes sent where ../shared is there."""
    for name in streams.names("*"):
        data = streams.read(name)
        if len(data) > 8000:
            continue
        first = 6 + int.from_bytes(data[2:6], "big")
        yield pack("framing", data)
        yield pack("pdu", data[:first])
        yield pack("sender", data[first:], 3)
        if "receiver" in [target.__name__ for target in TARGETS]:
            yield pack("receiver", data[first:], 0, 3)


def dictionary() -> str:
    """libFuzzer's dictionary: types, tags and UIDs that mean something."""
    words = [struct.pack(">BB", kind, 0) for kind in (*range(1, 8), *range(0x51, 0x5A))]
    words += [bytes((kind, 0)) for kind in (0x10, 0x20, 0x21, 0x30, 0x40, 0x50)]
    words += [struct.pack("<HH", 0, n) for n in (0, 2, 3, 0x100, 0x110, 0x120, 0x800, 0x900)]
    words += [struct.pack("<HH", 0, n) for n in (0x700, 0x1000, 0x1001, 0x1030, 0x1031)]
    tags = [tag for tag, _ in WANTED]
    tags += [0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00020010]
    for tag in tags:
        words += [struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) for order in "<>"]
    words += [*VRS, b"\xff\xff\xff\xff", b"DICM", b"1.2.840.10008.1.2", b"1.2.3.4", b"\1\1"]
    words += [b"PROXY TCP4 ", b"PROXY TCP6 ", b"UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n", b"\x03\0\x04"]
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    return "".join(f'"{line}"\n' for line in lines)


def write(folder: Path, count: int = 2000) -> int:
    """All of them as files in `folder`, which is made; how many there are."""
    folder.mkdir(parents=True)
    number = 0
    for source in (written(), generated(count), recorded()):
        for data in source:
            (folder / f"{number:05d}").write_bytes(data)
            number += 1
    return number

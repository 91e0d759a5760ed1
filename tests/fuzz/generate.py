"""Inputs with structure: well formed ones, and ones that are so almost.

Everything comes from a `random.Random`, so a seed names an input for good.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING, Final

from tests import reference_proxy, wire
from tests.fuzz.checks import HEADER, TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["damage", "mutate", "sample"]

PDUS: Final[list[bytes]] = sorted(wire.PDUS.values())
COMMANDS: Final[list[bytes]] = sorted(wire.COMMANDS.values())
CLASS: Final = b"1.2.840.10008.5.1.4.1.1.2"
SYNTAXES: Final = (
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.3.4",
    b"",
)
UIDS: Final = (
    b"1.2.3", b"1.2.3.4", b"1.2.3\0", b"1.2.3 ", b"", b".", b"1..2", b"..", b"1.2.3/../../etc",
    b"1" * 64, b"1" * 65, b"1.2\0.3", b"A-1_2.z", b"01.2", b"1.2.\xff", CLASS,
)  # fmt: skip
TEXTS: Final = (
    b"", b"P1", b"CT", b"20240229", b" A^B \\ C ", b".hidden", b"a/b", b"x" * 36, b"x" * 201,
    b"\xe4" * 70,
    b"x" * 1500, b"-", b"folder.dcm", b"a.dcm.zst",
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 4, 6, 8, 16, 64, 65, 127, 128, 255, 256, 65535, 65536, 0xFFFFFFFF)


def chance(rng: random.Random, one_in: int) -> bool:
    return rng.randrange(one_in) == 0


def blob(rng: random.Random, most: int = 12) -> bytes:
    return rng.randbytes(rng.randrange(most + 1))


def nearly(rng: random.Random, size: int, limit: int) -> int:
    """A length: mostly the right one."""
    if not chance(rng, 25):
        return size
    return rng.choice((size + 1, abs(size - 1), size + rng.randrange(300), *NUMBERS)) & limit


# PDUs ----------------------------------------------------------------------------------------


def pdu_of(rng: random.Random, kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, rng.randrange(2), nearly(rng, len(body), 0xFFFFFFFF)) + body


def item(rng: random.Random, kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, nearly(rng, len(value), 0xFFFF)) + value


def counted(rng: random.Random, value: bytes) -> bytes:
    return struct.pack(">H", nearly(rng, len(value), 0xFFFF)) + value


def uid(rng: random.Random) -> bytes:
    return rng.choice(UIDS)


def items(rng: random.Random, of: list[Callable[[random.Random], bytes]], most: int) -> bytes:
    listed = [rng.choice(of)(rng) for _ in range(rng.randrange(most + 1))]
    tail = rng.choice((b"", b"", b"", b"", b"\0", b"\0\0\0", b"\0\1"))
    return b"".join(listed) + tail


SUB_ITEMS: Final[list[Callable[[random.Random], bytes]]] = [
    lambda r: item(r, 0x51, r.choice((b"\0\0\x40\0", b"\0\0\0\0", b"\0\0\0", b"\0\0\0\0\0"))),
    lambda r: item(r, 0x52, uid(r)),
    lambda r: item(r, 0x53, r.choice((b"\0\x08\0\1", b"\0", b"\0\0\0\0\0"))),
    lambda r: item(r, 0x54, counted(r, uid(r)) + blob(r, 3)),
    lambda r: item(r, 0x55, r.choice(TEXTS)),
    lambda r: item(r, 0x56, counted(r, uid(r)) + blob(r)),
    lambda r: item(
        r, 0x57,
        counted(r, uid(r)) + counted(r, uid(r))
        + counted(r, b"".join(counted(r, uid(r)) for _ in range(r.randrange(4)))) + blob(r, 2),
    ),
    lambda r: item(r, 0x58, blob(r, 2) + counted(r, blob(r)) + counted(r, blob(r))),
    lambda r: item(r, 0x58, b"\2\1" + counted(r, blob(r)) + counted(r, blob(r))),
    lambda r: item(r, 0x59, counted(r, blob(r))),
    lambda r: item(r, r.randrange(256), blob(r)),
]  # fmt: skip
CONTEXT_ITEMS: Final[list[Callable[[random.Random], bytes]]] = [
    lambda r: item(r, 0x30, uid(r)),
    lambda r: item(r, 0x40, r.choice(SYNTAXES)),
    lambda r: item(r, r.randrange(256), blob(r)),
]


def context(rng: random.Random, most: int) -> bytes:
    return blob(rng, 4) if chance(rng, 9) else b"\1\0\0\0" + items(rng, CONTEXT_ITEMS, most)


ITEMS: Final[list[Callable[[random.Random], bytes]]] = [
    lambda r: item(r, 0x10, uid(r)),
    lambda r: item(r, 0x20, context(r, 5)),
    lambda r: item(r, 0x21, context(r, 3)),
    lambda r: item(r, 0x50, items(r, SUB_ITEMS, 8)),
    lambda r: item(r, r.randrange(256), blob(r)),
]  # fmt: skip


def associate(rng: random.Random) -> bytes:
    kind = rng.choice((1, 2))
    fixed = wire.ASSOCIATE_RQ_BARE[6:]
    if chance(rng, 30):
        # Past the caps on contexts and transfer syntaxes.
        many = item(rng, 0x40, b"1.2") * rng.choice((256, 257)) if chance(rng, 2) else b""
        one = item(rng, 0x1F + kind, b"\1\0\0\0" + many)
        return pdu_of(rng, kind, fixed + one * (1 if many else rng.choice((256, 257))))
    if chance(rng, 20):
        return pdu_of(rng, kind, blob(rng, 70))
    return pdu_of(rng, kind, fixed + items(rng, ITEMS, 6))


def pdvs(rng: random.Random) -> bytes:
    listed = b""
    for _ in range(rng.randrange(4)):
        value = blob(rng, 20)
        listed += struct.pack(">L", nearly(rng, len(value), 0xFFFFFFFF)) + value
    return listed


def any_pdu(rng: random.Random) -> bytes:
    if chance(rng, 20):
        return rng.choice(PDUS)
    if chance(rng, 30):
        return blob(rng, 8)
    kind = rng.choice((0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8))
    if kind == 1:
        return associate(rng)
    if kind == 4:
        return pdu_of(rng, 4, pdvs(rng))
    return pdu_of(rng, kind, bytes(4) if chance(rng, 2) else blob(rng, 70))


# Command sets --------------------------------------------------------------------------------

US: Final = (
    0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x0903, 0x1002, 0x1008, 0x1020, 0x1031,
)  # fmt: skip


def element(rng: random.Random, number: int, value: bytes) -> bytes:
    group = 0 if not chance(rng, 60) else rng.randrange(65536)
    return struct.pack("<HHL", group, number, nearly(rng, len(value), 0xFFFFFFFF)) + value


def any_element(rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return element(
                rng, rng.choice(US), blob(rng, 3) if chance(rng, 4) else rng.randbytes(2)
            )
        case 1:
            return element(rng, rng.choice((0x0002, 0x0003, 0x1000, 0x1001)), uid(rng))
        case 2:
            return element(rng, rng.choice((0x0600, 0x1030, 0x0902)), rng.choice(TEXTS))
        case _:
            return element(rng, rng.choice((0, 0x0901, 0x1005, rng.randrange(65536))), blob(rng))


def any_command(rng: random.Random) -> bytes:
    if chance(rng, 10):
        return rng.choice(COMMANDS)
    return b"".join(any_element(rng) for _ in range(rng.randrange(12)))


def store_rq(rng: random.Random, instance: bytes, data_follows: bool = True) -> bytes:
    """A C-STORE-RQ, mostly in order."""
    listed = [
        element(rng, 0x0002, CLASS + b"\0" if not chance(rng, 15) else uid(rng)),
        element(rng, 0x0100, b"\1\0"),
        element(rng, 0x0110, rng.randbytes(2) if not chance(rng, 30) else b""),
        element(rng, 0x0700, b"\0\0"),
        element(rng, 0x0800, b"\1\0" if data_follows else b"\1\1"),
        element(rng, 0x1000, instance),
    ]
    if chance(rng, 4):
        listed.append(element(rng, 0x1030, rng.choice(TEXTS)[:20]))
        listed.append(element(rng, 0x1031, b"\7\0"))
    if chance(rng, 8):
        rng.shuffle(listed)
    if chance(rng, 20):
        listed.pop(rng.randrange(len(listed)))
    if chance(rng, 60):
        listed.append(element(rng, 0x0902, bytes(rng.choice((400, 3000, 65000)))))
    return b"".join(listed)


# Data sets -----------------------------------------------------------------------------------

WANTED: Final = (
    (0x00080016, b"UI"), (0x00080018, b"UI"), (0x00080020, b"DA"), (0x00080050, b"SH"),
    (0x00080060, b"CS"), (0x00100020, b"LO"), (0x0020000D, b"UI"), (0x0020000E, b"UI"),
    (0x00200011, b"IS"), (0x00200013, b"IS"),
)  # fmt: skip
VRS: Final = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SS ST SV TM UC UI UL UN UR US "
    b"UT UV SQ XX OX UX SX AX DX LX FX CX IX PX TX ab".split()
)
SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
UNDEFINED: Final = 0xFFFFFFFF
IMPLICIT, EXPLICIT, BIG = 1, 2, 3


def data_element(
    rng: random.Random, family: int, tag: int, vr: bytes, value: bytes, size: int | None = None
) -> bytes:
    order = ">" if family == BIG else "<"
    length = nearly(rng, len(value), UNDEFINED) if size is None else size
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if family == IMPLICIT or tag >> 16 == 0xFFFE:
        return head + struct.pack(order + "L", length) + value
    if vr in SHORT or not vr.isupper():
        return head + vr + struct.pack(order + "H", length & 0xFFFF) + value
    return head + vr + b"\0\0" + struct.pack(order + "L", length) + value


def sequence(rng: random.Random, family: int, depth: int) -> bytes:
    vr = rng.choice((b"SQ", b"SQ", b"UN", b"OB"))
    inside = IMPLICIT if vr == b"UN" or chance(rng, 12) else family
    outside = IMPLICIT if vr == b"UN" else family
    tag = rng.choice((0x00081250, 0x00091010, 0x7FE00010 if vr == b"OB" else 0x00880200))
    value = b""
    for _ in range(rng.randrange(3)):
        content = (
            blob(rng) if vr == b"OB" else
            b"".join(any_data_element(rng, inside, depth + 1) for _ in range(rng.randrange(4)))
        )  # fmt: skip
        undefined = chance(rng, 2) and vr != b"OB"
        value += data_element(
            rng, outside, 0xFFFEE000, b"", content, UNDEFINED if undefined else None
        )
        if undefined:
            value += end(rng, outside, 0xFFFEE00D)
    if chance(rng, 2) or vr != b"SQ":
        return data_element(rng, family, tag, vr, value + end(rng, outside, 0xFFFEE0DD), UNDEFINED)
    # Some senders write an end here, too.
    stray = data_element(rng, family, 0xFFFEE0DD, b"", b"") if chance(rng, 4) else b""
    return data_element(rng, family, tag, vr, value) + stray


def end(rng: random.Random, family: int, tag: int) -> bytes:
    """Of an item or a sequence: mostly the right one, else none, two or another."""
    if not chance(rng, 8):
        return data_element(rng, family, tag, b"", b"")
    others = rng.choices((0xFFFEE00D, 0xFFFEE0DD), k=rng.randrange(4))
    return b"".join(data_element(rng, family, other, b"", b"") for other in others)


def any_data_element(rng: random.Random, family: int, depth: int = 0) -> bytes:
    match rng.randrange(12):
        case 0 | 1 | 2:
            tag, vr = rng.choice(WANTED)
            return data_element(
                rng, family, tag, vr, uid(rng) if vr == b"UI" else rng.choice(TEXTS)
            )
        case 3 | 4 if depth < 4:
            return sequence(rng, family, depth)
        case 5:
            tag = rng.choice((0x7FE00010, 0x7FE00008, 0x7FE00009))
            return data_element(rng, family, tag, b"OW", blob(rng, 40))
        case 6:
            tag = rng.choice((0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFEE111))
            return data_element(rng, family, tag, b"", b"", rng.choice((0, UNDEFINED, 5)))
        case _:
            group = rng.choice((0x0008, 0x0009, 0x0010, 0x0020, 0x0028))
            tag = group << 16 | rng.randrange(256)
            return data_element(rng, family, tag, rng.choice(VRS), blob(rng))


def deep(rng: random.Random, family: int) -> bytes:
    """Sequences one in another, about as many as the tap follows."""
    open_item = data_element(rng, family, 0x00081250, b"SQ", b"", UNDEFINED)
    open_item += data_element(rng, family, 0xFFFEE000, b"", b"", UNDEFINED)
    return open_item * rng.choice((31, 32, 33)) + open_item[: len(open_item) // 2]


def any_data_set(
    rng: random.Random, family: int | None = None, instance: bytes = b"1.2.3.4"
) -> bytes:
    """Ten wanted elements in most cases, others between them."""
    if family is None:
        family = rng.choice((IMPLICIT, EXPLICIT, EXPLICIT, BIG))
    parts: list[bytes] = []
    if not chance(rng, 10):
        parts.append(data_element(rng, family, 0x00080005, b"CS", b"ISO_IR 192"))
    if chance(rng, 3):
        texts = dict.fromkeys(range(10), b"")
        parts += [
            data_element(rng, family, tag, vr, texts.get(at) or b"1.2.3.4")
            for at, (tag, vr) in enumerate(WANTED)
        ]
    else:
        parts += [
            data_element(rng, family, 0x00080016, b"UI", CLASS + b"\0"),
            data_element(rng, family, 0x00080018, b"UI", instance),
            data_element(rng, family, 0x0020000D, b"UI", b"1.2.3"),
            data_element(rng, family, 0x0020000E, b"UI", b"1.2.3.1 "),
        ]
    for _ in range(rng.randrange(6)):
        parts.insert(rng.randrange(len(parts) + 1), any_data_element(rng, family))
    if chance(rng, 25):
        parts.append(deep(rng, family))
    if chance(rng, 15):
        rng.shuffle(parts)
    return b"".join(parts)


def deflated(rng: random.Random, data: bytes) -> bytes:
    """A raw deflate stream: sometimes long, damaged or followed by something (PS3.5 A.5)."""
    packer = zlib.compressobj(wbits=-15)
    more = bytes(rng.choice((0, 0, 0, 100000, 2000000 if chance(rng, 20) else 0)))
    packed = packer.compress(data + more) + packer.flush()
    if chance(rng, 4):
        packed = damage(rng, packed)
    return packed + rng.choice((b"", b"", b"\0", b"tail"))


# Part 10 headers -----------------------------------------------------------------------------


def meta_element(rng: random.Random, number: int, vr: bytes, value: bytes) -> bytes:
    group = 0x00020000 if not chance(rng, 60) else rng.randrange(1 << 16) << 16
    return data_element(rng, EXPLICIT, group | number, vr, value)


def part10_header(rng: random.Random) -> bytes:
    preamble = rng.choice((b"", bytes(128) + b"DICM", rng.randbytes(128) + b"DICM", bytes(127)))
    listed = [
        meta_element(rng, 0x0000, b"UL", bytes(4)),
        meta_element(rng, 0x0001, b"OB", b"\0\1"),
        meta_element(rng, 0x0010, b"UI", rng.choice(SYNTAXES)),
    ]
    for _ in range(rng.randrange(4)):
        number = rng.choice((0x0002, 0x0010, 0x0012, 0x0100, 0x0102, rng.randrange(0x300)))
        value = (
            blob(rng, 30) if not chance(rng, 12) else bytes(rng.choice((1000, 3000, 65000, 70000)))
        )
        listed.append(meta_element(rng, number, rng.choice(VRS), value))
    if chance(rng, 8):
        rng.shuffle(listed)
    return preamble + b"".join(listed)


def part10_input(rng: random.Random) -> bytes:
    if chance(rng, 4):
        return b"|".join(rng.choice(UIDS + TEXTS) for _ in range(7))
    return part10_header(rng) + any_data_set(rng, EXPLICIT)


def layout_input(rng: random.Random) -> bytes:
    study = rng.choice(UIDS) if chance(rng, 4) else b"1.2.3"
    uids = [b"1.2.3.4" if not chance(rng, 6) else uid(rng), study, b"1.2.3.1"]
    return b"|".join(uids + [rng.choice(TEXTS) for _ in range(5)])


# Streams -------------------------------------------------------------------------------------


def fragments(rng: random.Random, data: bytes, control: int) -> list[tuple[int, bytes]]:
    out: list[tuple[int, bytes]] = []
    while data:
        size = rng.choice((1, 2, 7, 100, 1000, 20000, len(data), len(data)))
        out.append((control, data[:size]))
        data = data[size:]
    if not out or chance(rng, 6):
        out.append((control, b""))
    if chance(rng, 10):
        out.insert(rng.randrange(len(out) + 1), (control, b""))
    out[-1] = (control | 2, out[-1][1])
    return out


def message(rng: random.Random) -> list[tuple[int, int, bytes]]:
    """The PDVs of a message: context, control header, fragment."""
    context = (
        rng.choice((1, 1, 1, 3, 5, 7, 9, 11, 255)) if not chance(rng, 30) else rng.randrange(256)
    )
    kind = rng.randrange(8)
    if kind == 0:
        pieces = fragments(rng, any_command(rng), 1)
        if chance(rng, 2):
            pieces += fragments(rng, blob(rng, 60), 0)
    else:
        instance = rng.choice((b"1.2.3.4", b"1.2.3.4", b"1.2.3.5\0", uid(rng)))
        follows = not chance(rng, 20)
        pieces = fragments(rng, store_rq(rng, instance, follows), 1)
        if follows and not chance(rng, 40):
            family = {1: EXPLICIT, 3: IMPLICIT, 5: BIG}.get(context, EXPLICIT)
            if chance(rng, 10):
                family = rng.choice((IMPLICIT, EXPLICIT, BIG))
            header = part10_header(rng) if chance(rng, 6) else b""
            data = any_data_set(rng, family, instance)
            if context == 7 and not chance(rng, 6):
                data = deflated(rng, data)
            pieces += fragments(rng, header + data, 0)
    if chance(rng, 40):
        rng.shuffle(pieces)
    high = rng.randrange(64) << 2 if chance(rng, 10) else 0
    return [
        (context if not chance(rng, 200) else rng.randrange(256), control | high, piece)
        for control, piece in pieces
    ]


def stream(rng: random.Random) -> bytes:
    """Messages in P-DATA-TF PDUs, other PDUs now and then between them."""
    out = b""
    body = b""
    for _ in range(rng.randrange(1, 4)):
        for context, control, piece in message(rng):
            length = nearly(rng, len(piece) + 2, 0xFFFFFFFF)
            body += struct.pack(">LBB", length, context, control) + piece
            if not chance(rng, 4):
                out += pdu_of(rng, 4, body + (blob(rng, 5) if chance(rng, 60) else b""))
                body = b""
        if chance(rng, 8):
            out += any_pdu(rng)
    if body:
        out += pdu_of(rng, 4, body)
    if chance(rng, 4):
        out += rng.choice((wire.RELEASE_RQ, wire.ABORT_USER, wire.RELEASE_RP, any_pdu(rng)))
    if chance(rng, 10):
        out = out[: rng.randrange(len(out) + 1)]
    return out


def framing_input(rng: random.Random) -> bytes:
    return any_pdu(rng) + stream(rng) if chance(rng, 2) else stream(rng)


# What is sent, and what is answered ----------------------------------------------------------

STATUSES: Final = (0, 0, 0, 0, 0xA700, 0xA701, 0xB000, 0xB006, 0x0107, 0xC000, 0x0122, 0xFF00, 1)


def part10_file(rng: random.Random) -> bytes:
    """A file to be sent: its header whole, its data set perhaps."""
    syntax = rng.choice(SYNTAXES)
    family = {SYNTAXES[0]: IMPLICIT, SYNTAXES[2]: BIG}.get(syntax, EXPLICIT)
    listed = [
        meta_element(rng, 0x0002, b"UI", rng.choice((CLASS, CLASS + b"\0", uid(rng)))),
        meta_element(rng, 0x0003, b"UI", uid(rng)),
        meta_element(rng, 0x0010, b"UI", syntax),
    ]
    if chance(rng, 3):
        number = rng.choice((0x0001, 0x0012, 0x0013, 0x0100, 0x0102))
        listed.append(meta_element(rng, number, rng.choice(VRS), blob(rng, 30)))
    if chance(rng, 30):
        listed.append(meta_element(rng, 0x0102, b"OB", bytes(rng.choice((4000, 5000)))))
    if chance(rng, 6):
        rng.shuffle(listed)
    if chance(rng, 10):
        listed.pop(rng.randrange(len(listed)))
    meta = b"".join(listed)
    # The length of the group: right, absent, or another one.
    if not chance(rng, 4):
        length = len(meta) if not chance(rng, 4) else rng.randrange(len(meta) + 20)
        meta = meta_element(rng, 0x0000, b"UL", struct.pack("<L", length)) + meta
    data = any_data_set(rng, family)
    if chance(rng, 8):
        # A data set that begins as a header does.
        data = meta_element(rng, 0x0013, b"SH", b"NAME") + data
    if syntax.endswith(b".99"):
        data = deflated(rng, data)
    return bytes(128) + b"DICM" + meta + data


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def any_tlv(rng: random.Random) -> bytes:
    match rng.randrange(6):
        case 0:
            inner = b"".join(
                tlv(rng.choice((0x21, 0x22, 0x22, 0x25)), blob(rng))
                for _ in range(rng.randrange(4))
            )
            verify = bytes(4) if chance(rng, 2) else rng.randbytes(4)
            return tlv(0x20, bytes((rng.randrange(8),)) + verify + inner)
        case 1:
            return tlv(rng.choice((1, 2, 3, 4, 5, 0x20, 0x30, 0xEA)), blob(rng))
        case 2:
            return tlv(4, bytes(rng.choice((0, 1, 300))))
        case _:
            return tlv(rng.randrange(256), blob(rng))


def checked(rng: random.Random, header: bytes) -> bytes:
    """A header of version 2 with a checksum behind it."""
    length = int.from_bytes(header[14:16], "big") + 7
    header = header[:14] + length.to_bytes(2, "big") + header[16:]
    wrong = chance(rng, 8)
    crc = reference_proxy.crc32c(header + tlv(3, bytes(4))) ^ wrong
    return header + tlv(3, crc.to_bytes(4, "big"))


def proxy_line(rng: random.Random) -> bytes:
    family = rng.choice((b"TCP4", b"TCP6", b"UNKNOWN", b"TCP4", b"TCP6", b"UDP4"))
    groups = [b"%x" % rng.randrange(65536) for _ in range(rng.randrange(9))]
    addresses = {
        b"TCP4": b".".join(b"%d" % rng.randrange(260) for _ in range(4)),
        b"TCP6": rng.choice((
            b"::1", b"::ffff:1.2.3.4", b"::1.2.3.4", b"1::2::3", b"2001:DB8::1",
            b":".join(groups), b":".join(groups[:4]) + b"::" + b":".join(groups[4:]),
        )),
    }  # fmt: skip
    own = addresses.get(family, b"1.2.3.4")
    ports = [b"%d" % rng.choice((0, 1, 104, 65535, 65536, rng.randrange(70000))) for _ in range(2)]
    words = [family, own, rng.choice(list(addresses.values())), *ports]
    if not chance(rng, 3):
        words[2] = own
    return b"PROXY " + b" ".join(words) + b"\r\n"


def proxy_input(rng: random.Random) -> bytes:
    behind = rng.choice((b"", b"", wire.ASSOCIATE_RQ_ECHO, rng.randbytes(9)))
    if chance(rng, 3):
        return proxy_line(rng) + behind
    family = rng.choice((0, 0x11, 0x11, 0x12, 0x21, 0x21, 0x22, 0x31, rng.randrange(256)))
    addresses = rng.randbytes(reference_proxy.SIZES.get(family, 0))
    if family == 0x21 and chance(rng, 2):
        zeros = bytes(rng.choice((10, 12, 15)))
        addresses = (zeros + (b"\xff\xff" if chance(rng, 2) else b"") + addresses)[:36]
    block = addresses + b"".join(any_tlv(rng) for _ in range(rng.randrange(4)))
    command = rng.choice((0x20, 0x21, 0x21, 0x21, 0x21, 0x21, rng.randrange(256)))
    fixed = reference_proxy.SIGNATURE + struct.pack(">BBH", command, family, len(block))
    header = fixed + block
    return (checked(rng, header) if chance(rng, 3) else header) + behind


def response(rng: random.Random) -> tuple[int, list[tuple[int, bytes]]]:
    """The fragments of a C-STORE-RSP, its context first: mostly to one of four messages."""
    message_id = rng.choice((1, 2, 3, 4)) if not chance(rng, 20) else rng.randrange(65536)
    context = 1 + 2 * ((message_id - 1) % 2) if not chance(rng, 25) else rng.randrange(256)
    follows = chance(rng, 15)
    listed = [
        element(rng, 0x0002, CLASS + b"\0"),
        element(rng, 0x0100, rng.choice((b"\1\x80",) * 30 + (b"\x30\x80", b"\1\0", b"\1"))),
        element(rng, 0x0120, struct.pack("<H", message_id)),
        element(rng, 0x0800, b"\0\0" if follows else b"\1\1"),
        element(rng, 0x0900, struct.pack("<H", rng.choice(STATUSES))),
    ]
    if chance(rng, 4):
        listed.append(element(rng, 0x0902, rng.choice((*TEXTS, bytes(4000), b"\x1b[2J"))))
    if chance(rng, 4):
        listed.append(element(rng, 0x0901, bytes(4 * rng.randrange(4))))
    if chance(rng, 8):
        rng.shuffle(listed)
    if chance(rng, 12):
        del listed[rng.randrange(len(listed))]
    pieces = fragments(rng, b"".join(listed), 1)
    if follows:
        pieces += fragments(rng, blob(rng, 30), 0)
    return context, pieces


def answers(rng: random.Random) -> bytes:
    """Responses, in order or not, some twice; other PDUs between them and at the end."""
    out = body = b""
    for _ in range(rng.randrange(1, 7)):
        context, pieces = response(rng)
        for control, piece in pieces:
            length = nearly(rng, len(piece) + 2, 0xFFFFFFFF)
            body += struct.pack(">LBB", length, context, control) + piece
            if not chance(rng, 4):
                out += pdu_of(rng, 4, body + (blob(rng, 5) if chance(rng, 60) else b""))
                body = b""
        if chance(rng, 12):
            out += any_pdu(rng)
        if chance(rng, 12):
            out += out[-rng.randrange(200) :]
    if body:
        out += pdu_of(rng, 4, body)
    if chance(rng, 3):
        out += rng.choice((wire.RELEASE_RQ, wire.ABORT_USER, wire.RELEASE_RP, any_pdu(rng)))
    if chance(rng, 8):
        out = out[: rng.randrange(len(out) + 1)]
    return out


def tls_record(rng: random.Random, body: bytes, kind: int = 23) -> bytes:
    length = nearly(rng, len(body), 0xFFFF)
    version = rng.choice((0x0303,) * 30 + (0x0301, 0x0304, 0x0203, 0x8001))
    return struct.pack(">BHH", rng.choice((kind,) * 60 + (19, 20, 24, 25)), version, length) + body


def records(rng: random.Random) -> bytes:
    """Of a stream cut into records of any size, with others between them and at the end."""
    data = stream(rng)
    if chance(rng, 20):
        data += bytes(16384) * rng.randrange(3)
    most = rng.choice((1, 5, 40, 300, 16384)) if len(data) < 500 else rng.choice((300, 16384))
    out = b""
    while data:
        size = rng.randrange(1, most + 1)
        out += tls_record(rng, data[:size])
        data = data[size:]
        if chance(rng, 12):
            out += tls_record(rng, blob(rng), 22) * rng.choice((1, 1, 3, 64, 65))
        if chance(rng, 12):
            out += tls_record(rng, b"") * rng.choice((1, 1, 3, 64, 65))
    if chance(rng, 3):
        out += tls_record(rng, rng.choice((b"\1\0", b"\1\0", b"\2\x28", b"")), 21)
    if chance(rng, 5):
        out += rng.choice((tls_record(rng, blob(rng)), blob(rng), bytes((23, 3, 3, 0x48, 1))))
    if chance(rng, 6):
        out = out[: rng.randrange(len(out) + 1)]
    return out


SAMPLES: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "framing": framing_input,
    "pdu": any_pdu,
    "command": any_command,
    "tap": any_data_set,
    "part10": part10_input,
    "layout": layout_input,
    "head": part10_file,
    "proxy": proxy_input,
    "sender": answers,
    "record": records,
    "receiver": stream,
    "secure": records,
}


def sample(rng: random.Random, target: int | None = None) -> bytes:
    """A whole input for a target, or for any."""
    if target is None:
        target = rng.randrange(len(TARGETS))
    data = SAMPLES[TARGETS[target].__name__](rng)
    if chance(rng, 3):
        data = damage(rng, data)
    allocation = rng.randrange(1, 5) if chance(rng, 10) else 0
    option = rng.randrange(256) & (rng.randrange(256) if chance(rng, 2) else 0xFF)
    return bytes((target, option, rng.randrange(256), allocation)) + data


def damage(rng: random.Random, data: bytes) -> bytes:
    """`data` with a few bytes other, gone, doubled or new."""
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(7):
            case 0:
                body[place : place + 1] = rng.randbytes(1)
            case 1 if place < len(body):
                body[place] = (body[place] + rng.choice((-2, -1, 1, 2))) & 0xFF
            case 2:
                del body[place : place + rng.choice((1, 2, 4, 8, 17))]
            case 3:
                body[place:place] = rng.randbytes(rng.choice((1, 2, 4)))
            case 4:
                body[place:place] = body[place : place + rng.choice((4, 8, 21, 50))]
            case 5:
                size = rng.choice((1, 2, 4))
                number = rng.choice(NUMBERS) & (256**size - 1)
                body[place : place + size] = number.to_bytes(size, rng.choice(("big", "little")))
            case _:
                del body[place:]
    return bytes(body)


def mutate(raw: bytes, seed: int) -> bytes:
    """Another input in place of `raw`: for libFuzzer, which keeps what reaches something new."""
    rng = random.Random(seed)
    if len(raw) < HEADER or chance(rng, 3):
        return sample(rng)
    target = raw[0] % len(TARGETS)
    match rng.randrange(4):
        case 0:
            return sample(rng, target)
        case 1:
            header = bytearray(raw[:HEADER])
            header[rng.randrange(1, HEADER)] = rng.choice((0, 1, 2, rng.randrange(256)))
            return bytes(header) + raw[HEADER:]
        case 2:
            # The first part of this one and the last of another.
            other = sample(rng, target)[HEADER:]
            place = rng.randrange(HEADER, len(raw) + 1)
            return raw[:place] + other[rng.randrange(len(other) + 1) :]
        case _:
            return raw[:HEADER] + damage(rng, raw[HEADER:])

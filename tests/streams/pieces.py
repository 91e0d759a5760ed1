"""What the streams are put together from: items, command elements and data sets, annotated.

PDU and item headers are big endian: type, reserved, length. Command elements are little endian:
group, element, 32 bit length, value. All names, UIDs and titles are made up. Only `pdu`, `pdv` and
`command` count bytes, so that a length that lies is written out where it is used.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "APPLICATION",
    "CALLED",
    "CALLING",
    "CT_CONTEXT",
    "DATA_BIG",
    "DATA_COMMITMENT",
    "DATA_DEFLATED",
    "DATA_EXPLICIT",
    "DATA_EXPLICIT_2",
    "DATA_IMPLICIT",
    "DATA_PRIVATE",
    "DATA_RLE",
    "DATA_UNDEFINED",
    "FIXED",
    "HEAD",
    "INFORMATION",
    "META",
    "OWN",
    "PARTS_OF_ECHO",
    "PARTS_OF_STORE",
    "PIXELS",
    "PREAMBLE",
    "RELEASE_RP",
    "RELEASE_RQ",
    "RQ",
    "command",
    "context",
    "data_pdu",
    "information",
    "pdu",
    "pdv",
]


def pdu(kind: int, *parts: bytes) -> bytes:
    """A PDU: type, reserved, length, and what it consists of."""
    body = b"".join(parts)
    return struct.pack(">BxL", kind, len(body)) + body


def pdv(control: int, fragment: bytes, *, context: int = 1) -> bytes:
    """A PDV: length, context id, message control header (1 command, 2 last), fragment."""
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def data_pdu(control: int, fragment: bytes, *, context: int = 1) -> bytes:
    """A P-DATA-TF with one PDV."""
    return pdu(4, pdv(control, fragment, context=context))


def command(*elements: bytes) -> bytes:
    """A command set: (0000,0000) Command Group Length, 4 bytes, and the elements."""
    body = b"".join(elements)
    return b"\x00\x00\x00\x00\x04\x00\x00\x00" + struct.pack("<L", len(body)) + body


# --- A-ASSOCIATE-RQ (PS3.8 9.3.2) -----------------------------------------------------------------

CALLED: Final = b"OWN_RECEIVER    "
CALLING: Final = b"OWN_SENDER      "
FIXED: Final = (
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"OWN_RECEIVER    "  # called AE title
    b"OWN_SENDER      "  # calling AE title
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)
APPLICATION: Final = (
    b"\x10\x00\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
)
CT_CONTEXT: Final = (
    b"\x20\x00\x00\x38"  # presentation context, 56 bytes
    b"\x01\x00\x00\x00"  # id 1, reserved
    b"\x30\x00\x00\x19"  # abstract syntax, 25 bytes: CT Image Storage
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x40\x00\x00\x13"  # transfer syntax, 19 bytes: Explicit VR Little Endian
    b"1.2.840.10008.1.2.1"
)


def context(number: int, abstract: bytes, *syntaxes: bytes) -> bytes:
    """A presentation context of a request, as CT_CONTEXT is one."""
    body = struct.pack(">B3x", number) + struct.pack(">BxH", 0x30, len(abstract)) + abstract
    body += b"".join(struct.pack(">BxH", 0x40, len(uid)) + uid for uid in syntaxes)
    return struct.pack(">BxH", 0x20, len(body)) + body


def information(*more: bytes, longest: bytes = b"\x00\x00\x40\x00") -> bytes:
    """User information, sub-items behind the usual ones. longest: 16384, or in 4 bytes another."""
    body = (
        b"\x51\x00\x00\x04" + longest  # maximum length
        + b"\x52\x00\x00\x08" + b"1.2.3.71"  # implementation class UID, 8 bytes
        + b"\x55\x00\x00\x09" + b"OWN_BYTES"  # implementation version name, 9 bytes
        + b"".join(more)
    )  # fmt: skip
    return struct.pack(">BxH", 0x50, len(body)) + body


INFORMATION: Final = information()
RQ: Final = pdu(1, FIXED, APPLICATION, CT_CONTEXT, INFORMATION)
RELEASE_RQ: Final = (
    b"\x05\x00\x00\x00\x00\x04"  # A-RELEASE-RQ, 4 bytes
    b"\x00\x00\x00\x00"  # reserved
)
RELEASE_RP: Final = (
    b"\x06\x00\x00\x00\x00\x04"  # A-RELEASE-RP, 4 bytes
    b"\x00\x00\x00\x00"  # reserved
)

# --- Command sets (PS3.7 9.3), element by element ------------------------------------------------

PARTS_OF_STORE: Final = {
    "class": b"\x00\x00\x02\x00\x1a\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00",
    "field": b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x01\x00",  # C-STORE-RQ
    "id": b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x01\x00",  # 1
    "priority": b"\x00\x00\x00\x07\x02\x00\x00\x00"  # (0000,0700) Priority, 2 bytes
    b"\x00\x00",  # medium
    "type": b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x00",  # present
    "instance": b"\x00\x00\x00\x10\x0e\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID, 14
    b"1.2.3.71.1.1.1",
}
PARTS_OF_ECHO: Final = {
    "class": b"\x00\x00\x02\x00\x12\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 18 bytes
    b"1.2.840.10008.1.1\x00",
    "field": b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x30\x00",  # C-ECHO-RQ
    "id": b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x01\x00",  # 1
    "type": b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x01",  # none
}

# --- Data sets (PS3.5 7.1) ------------------------------------------------------------------------
# The trap in each: (0008,1250) stands in front of the own UIDs and has the same elements inside.

HEAD: Final = (
    b"\x08\x00\x05\x00CS\x0a\x00"  # (0008,0005) Specific Character Set, 10 bytes
    b"ISO_IR 100"
    b"\x08\x00\x16\x00UI\x1a\x00"  # (0008,0016) SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x08\x00\x18\x00UI\x0e\x00"  # (0008,0018) SOP Instance UID, 14 bytes
    b"1.2.3.71.1.1.1"
    b"\x08\x00\x20\x00DA\x08\x00"  # (0008,0020) Study Date, 8 bytes
    b"20240229"
    b"\x08\x00\x60\x00CS\x02\x00"  # (0008,0060) Modality, 2 bytes
    b"CT"
)
_DECOYS: Final = (
    b"\x20\x00\x0d\x00UI\x0c\x00"  # (0020,000D) Study Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\x20\x00\x0e\x00UI\x0e\x00"  # (0020,000E) Series Instance UID, 14 bytes
    b"1.2.3.71.666.6"
)
OWN: Final = (
    b"\x10\x00\x10\x00PN\x08\x00"  # (0010,0010) Patient's Name, 8 bytes
    b"Own^Test"
    b"\x10\x00\x20\x00LO\x08\x00"  # (0010,0020) Patient ID, 8 bytes
    b"OWN-0001"
    b"\x20\x00\x0d\x00UI\x0a\x00"  # (0020,000D) Study Instance UID, 10 bytes
    b"1.2.3.71.1"
    b"\x20\x00\x0e\x00UI\x0c\x00"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.1.1"
    b"\x28\x00\x10\x00US\x02\x00"  # (0028,0010) Rows, 2 bytes
    b"\x04\x00"  # 4
    b"\x28\x00\x11\x00US\x02\x00"  # (0028,0011) Columns, 2 bytes
    b"\x08\x00"  # 8
)
_GREY: Final = bytes(range(0x40, 0x60))
PIXELS: Final = (
    b"\xe0\x7f\x10\x00OW\x00\x00\x20\x00\x00\x00"  # (7FE0,0010) Pixel Data, reserved, 32 bytes
    + _GREY
)

# Explicit VR Little Endian; sequence and item have lengths.
DATA_EXPLICIT: Final = (
    HEAD
    + b"\x08\x00\x50\x12SQ\x00\x00\x32\x00\x00\x00"  # (0008,1250) Related Series Sequence, 50
    + b"\xfe\xff\x00\xe0\x2a\x00\x00\x00"  # item, 42 bytes
    + _DECOYS
    + OWN
    + PIXELS
)
# Another instance of that series.
DATA_EXPLICIT_2: Final = DATA_EXPLICIT.replace(
    b"UI\x0e\x001.2.3.71.1.1.1", b"UI\x0e\x001.2.3.71.1.1.2"
)
# Sequence and item of undefined length.
DATA_UNDEFINED: Final = (
    HEAD
    + b"\x08\x00\x50\x12SQ\x00\x00\xff\xff\xff\xff"  # (0008,1250) Related Series Sequence
    + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
    + _DECOYS
    + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
    + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
    + OWN
    + PIXELS
)
# A SOP class of a manufacturer.
DATA_PRIVATE: Final = DATA_UNDEFINED.replace(
    b"UI\x1a\x00" + b"1.2.840.10008.5.1.4.1.1.2\x00",  # 26 bytes
    b"UI\x0e\x00" + b"1.2.3.71.99.55",  # 14 bytes
)
# Pixel data of RLE Lossless: encapsulated.
DATA_RLE: Final = (
    DATA_UNDEFINED[: -len(PIXELS)]
    + b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"  # (7FE0,0010) Pixel Data
    + b"\xfe\xff\x00\xe0\x00\x00\x00\x00"  # item, no offsets
    + b"\xfe\xff\x00\xe0\x42\x00\x00\x00"  # item, 66 bytes
    + b"\x01\x00\x00\x00\x40\x00\x00\x00"  # one segment, it begins at 64
    + bytes(56)
    + b"\xe1\x40"  # 32 times 40
    + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
)
# A deflate stream of one block that is stored as it is (RFC 1951 3.2.4), and a NUL to be even.
DATA_DEFLATED: Final = (
    b"\x01"  # last block, stored
    + struct.pack("<HH", len(DATA_EXPLICIT), len(DATA_EXPLICIT) ^ 0xFFFF)  # length, complement
    + DATA_EXPLICIT
    + b"\x00"
)
# Implicit VR Little Endian.
DATA_IMPLICIT: Final = (
    b"\x08\x00\x05\x00\x0a\x00\x00\x00"  # (0008,0005) Specific Character Set, 10 bytes
    b"ISO_IR 100"
    b"\x08\x00\x16\x00\x1a\x00\x00\x00"  # (0008,0016) SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x08\x00\x18\x00\x0e\x00\x00\x00"  # (0008,0018) SOP Instance UID, 14 bytes
    b"1.2.3.71.1.1.1"
    b"\x08\x00\x20\x00\x08\x00\x00\x00"  # (0008,0020) Study Date, 8 bytes
    b"20240229"
    b"\x08\x00\x60\x00\x02\x00\x00\x00"  # (0008,0060) Modality, 2 bytes
    b"CT"
    b"\x08\x00\x50\x12\xff\xff\xff\xff"  # (0008,1250) Related Series Sequence
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
    b"\x20\x00\x0d\x00\x0c\x00\x00\x00"  # (0020,000D) Study Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\x20\x00\x0e\x00\x0e\x00\x00\x00"  # (0020,000E) Series Instance UID, 14 bytes
    b"1.2.3.71.666.6"
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
    b"\x10\x00\x10\x00\x08\x00\x00\x00"  # (0010,0010) Patient's Name, 8 bytes
    b"Own^Test"
    b"\x10\x00\x20\x00\x08\x00\x00\x00"  # (0010,0020) Patient ID, 8 bytes
    b"OWN-0001"
    b"\x20\x00\x0d\x00\x0a\x00\x00\x00"  # (0020,000D) Study Instance UID, 10 bytes
    b"1.2.3.71.1"
    b"\x20\x00\x0e\x00\x0c\x00\x00\x00"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.1.1"
    b"\x28\x00\x10\x00\x02\x00\x00\x00"  # (0028,0010) Rows, 2 bytes
    b"\x04\x00"  # 4
    b"\x28\x00\x11\x00\x02\x00\x00\x00"  # (0028,0011) Columns, 2 bytes
    b"\x08\x00"  # 8
    b"\xe0\x7f\x10\x00\x20\x00\x00\x00" + _GREY  # (7FE0,0010) Pixel Data, 32 bytes
)
# Explicit VR Big Endian.
DATA_BIG: Final = (
    b"\x00\x08\x00\x05CS\x00\x0a"  # (0008,0005) Specific Character Set, 10 bytes
    b"ISO_IR 100"
    b"\x00\x08\x00\x16UI\x00\x1a"  # (0008,0016) SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x00\x08\x00\x18UI\x00\x0e"  # (0008,0018) SOP Instance UID, 14 bytes
    b"1.2.3.71.1.1.1"
    b"\x00\x08\x00\x20DA\x00\x08"  # (0008,0020) Study Date, 8 bytes
    b"20240229"
    b"\x00\x08\x00\x60CS\x00\x02"  # (0008,0060) Modality, 2 bytes
    b"CT"
    b"\x00\x08\x12\x50SQ\x00\x00\xff\xff\xff\xff"  # (0008,1250) Related Series Sequence
    b"\xff\xfe\xe0\x00\xff\xff\xff\xff"  # item
    b"\x00\x20\x00\x0dUI\x00\x0c"  # (0020,000D) Study Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\x00\x20\x00\x0eUI\x00\x0e"  # (0020,000E) Series Instance UID, 14 bytes
    b"1.2.3.71.666.6"
    b"\xff\xfe\xe0\x0d\x00\x00\x00\x00"  # end of the item
    b"\xff\xfe\xe0\xdd\x00\x00\x00\x00"  # end of the sequence
    b"\x00\x10\x00\x10PN\x00\x08"  # (0010,0010) Patient's Name, 8 bytes
    b"Own^Test"
    b"\x00\x10\x00\x20LO\x00\x08"  # (0010,0020) Patient ID, 8 bytes
    b"OWN-0001"
    b"\x00\x20\x00\x0dUI\x00\x0a"  # (0020,000D) Study Instance UID, 10 bytes
    b"1.2.3.71.1"
    b"\x00\x20\x00\x0eUI\x00\x0c"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.1.1"
    b"\x00\x28\x00\x10US\x00\x02"  # (0028,0010) Rows, 2 bytes
    b"\x00\x04"  # 4
    b"\x00\x28\x00\x11US\x00\x02"  # (0028,0011) Columns, 2 bytes
    b"\x00\x08"  # 8
    b"\x7f\xe0\x00\x10OW\x00\x00\x00\x00\x00\x20"  # (7FE0,0010) Pixel Data, reserved, 32 bytes
    + _GREY
)
# What an N-ACTION-RQ of Storage Commitment asks for, in Implicit VR Little Endian.
DATA_COMMITMENT: Final = (
    b"\x08\x00\x95\x11\x0a\x00\x00\x00"  # (0008,1195) Transaction UID, 10 bytes
    b"1.2.3.71.8"
    b"\x08\x00\x99\x11\xff\xff\xff\xff"  # (0008,1199) Referenced SOP Sequence
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
    b"\x08\x00\x50\x11\x1a\x00\x00\x00"  # (0008,1150) Referenced SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x08\x00\x55\x11\x0e\x00\x00\x00"  # (0008,1155) Referenced SOP Instance UID, 14 bytes
    b"1.2.3.71.1.1.1"
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
)

# --- A Part 10 header that stands inside a data set (PS3.10 7.1) ----------------------------------

PREAMBLE: Final = bytes(128) + b"DICM"
META: Final = (
    b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000) File Meta Information Group Length, 4 bytes
    b"\x2a\x00\x00\x00"  # 42
    b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00"  # (0002,0001) Version, reserved, 2 bytes
    b"\x00\x01"
    b"\x02\x00\x10\x00UI\x14\x00"  # (0002,0010) Transfer Syntax UID, 20 bytes
    b"1.2.840.10008.1.2.1\x00"
)

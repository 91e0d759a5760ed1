"""Data sets that are not as PS3.5 says, as they occur: our own, and those of ../shared/faults.

In each the fault stands in front of the own UIDs, and those of another study may stand in it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.streams.pieces import HEAD, OWN, PIXELS

__all__ = ["Faulty", "faulty", "faulty_names", "patients"]

FAULTS: Final = Path(__file__).resolve().parents[2] / ".." / "shared" / "faults"

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
PRIVATE: Final = "1.3.46.670589.33.1.4.1"


@dataclass(frozen=True)
class Faulty:
    """A data set, the transfer syntax it is sent in, and the instance that it is.

    stripped: bytes in front of it that are no part of it.
    """

    data: bytes
    syntax: str = EXPLICIT
    sop: str = "1.2.3.71.1.1.1"
    study: str = "1.2.3.71.1"
    series: str = "1.2.3.71.1.1"
    stripped: int = 0

    @property
    def plain(self) -> bool:
        """Whether the data set begins with its first byte, as it is encoded."""
        return not self.stripped and self.syntax != DEFLATED


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(data) + packer.flush()
    return packed + bytes(len(packed) % 2)


BEHIND: Final = OWN + PIXELS
# An item of undefined length in (0008,1200): a sequence with a length, then a sequence end that
# ends nothing, and another study behind it.
STRAY_END: Final = (
    b"\x08\x00\x00\x12SQ\x00\x00\xff\xff\xff\xff"  # (0008,1200) Studies Containing Other ...
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
    b"\x08\x00\x15\x11SQ\x00\x00\x1c\x00\x00\x00"  # (0008,1115) Referenced Series Sequence, 28
    b"\xfe\xff\x00\xe0\x14\x00\x00\x00"  # item, 20 bytes
    b"\x20\x00\x0e\x00UI\x0c\x00"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # the stray end of a sequence
    b"\x20\x00\x0d\x00UI\x0c\x00"  # (0020,000D) Study Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
)
STRAY_END_IMPLICIT: Final = (
    b"\x08\x00\x16\x00\x1a\x00\x00\x00"  # (0008,0016) SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x08\x00\x18\x00\x0e\x00\x00\x00"  # (0008,0018) SOP Instance UID, 14 bytes
    b"1.2.3.71.1.1.1"
    b"\x08\x00\x00\x12\xff\xff\xff\xff"  # (0008,1200), as above
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
    b"\x08\x00\x15\x11\x1c\x00\x00\x00"  # (0008,1115), 28 bytes
    b"\xfe\xff\x00\xe0\x14\x00\x00\x00"  # item, 20 bytes
    b"\x20\x00\x0e\x00\x0c\x00\x00\x00"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # the stray end of a sequence
    b"\x20\x00\x0d\x00\x0c\x00\x00\x00"  # (0020,000D) Study Instance UID, 12 bytes
    b"1.2.3.71.666"
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
    b"\x10\x00\x20\x00\x08\x00\x00\x00"  # (0010,0020) Patient ID, 8 bytes
    b"OWN-0001"
    b"\x20\x00\x0d\x00\x0a\x00\x00\x00"  # (0020,000D) Study Instance UID, 10 bytes
    b"1.2.3.71.1"
    b"\x20\x00\x0e\x00\x0c\x00\x00\x00"  # (0020,000E) Series Instance UID, 12 bytes
    b"1.2.3.71.1.1"
    b"\x20\x00\x13\x00\x02\x00\x00\x00"  # (0020,0013) Instance Number, 2 bytes
    b"1 "
    b"\xe0\x7f\x10\x00\x20\x00\x00\x00" + bytes(32)  # (7FE0,0010) Pixel Data, 32 bytes
)

_OWN_FAULTS: Final[dict[str, Faulty]] = {
    "stray_sequence_end": Faulty(HEAD + STRAY_END + BEHIND),
    "stray_sequence_end_implicit": Faulty(STRAY_END_IMPLICIT, IMPLICIT),
    "un_with_explicit_items": Faulty(
        HEAD
        + b"\x09\x00\x01\x10UN\x00\x00\xff\xff\xff\xff"  # (0009,1001), UN of undefined length
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # item
        b"\x08\x00\x00\x01SH\x06\x00"  # (0008,0100) Code Value, explicit where it must not be
        b"OWN-12"
        b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"  # end of the item
        b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"  # end of the sequence
        + BEHIND
    ),
    "sequence_without_items_and_end": Faulty(
        HEAD
        + b"\x08\x00\x32\x10SQ\x00\x00\xff\xff\xff\xff"  # (0008,1032) Procedure Code Sequence
        b"\x08\x00\x3e\x10LO\x08\x00"  # (0008,103E) Series Description, 8 bytes
        b"own head"
        + BEHIND
    ),
    "implicit_element_in_explicit": Faulty(
        HEAD
        + b"\x09\x00\x10\x00LO\x04\x00"  # (0009,0010) Private Creator, 4 bytes
        b"OWN "
        b"\x09\x00\x01\x10\x0e\x00\x00\x00"  # (0009,1001) without a VR, 14 bytes
        b"implicit here."
        + BEHIND
    ),
    "vr_re_16_bit": Faulty(
        HEAD
        + b"\x08\x00\x40\x00RE\x02\x00"  # (0008,0040), VR RE: retired, of 16-bit length, 2 bytes
        b"1 "
        + BEHIND
    ),
    "un_16_bit": Faulty(
        HEAD
        + b"\x09\x00\x30\x10UN\x08\x00"  # (0009,1030), UN with a length in 16 bits, 8 bytes
        b"12345678"
        + BEHIND
    ),
    "first_vr_dashes": Faulty(HEAD.replace(b"CS", b"--", 1) + BEHIND),
    "deflated_1050000_bytes_before_the_uids": Faulty(
        deflated(
            HEAD
            + b"\x09\x00\x10\x10OB\x00\x00"  # (0009,1010), reserved
            + struct.pack("<L", 1_050_000)
            + bytes(1_050_000)
            + BEHIND
        ),
        DEFLATED,
    ),
    "embedded_0002_0003_without_syntax": Faulty(
        b"\x02\x00\x03\x00UI\x0e\x00"  # (0002,0003) Media Storage SOP Instance UID, 14 bytes
        b"1.2.3.71.1.1.1"
        + HEAD + BEHIND,
        stripped=22,
    ),
    "embedded_syntax_is_the_negotiated_private_one": Faulty(
        b"\x02\x00\x10\x00UI\x16\x00"  # (0002,0010) Transfer Syntax UID, 22 bytes
        b"1.3.46.670589.33.1.4.1"
        + HEAD + BEHIND,
        PRIVATE,
        stripped=30,
    ),
    "embedded_jpeg_syntax_native_pixels": Faulty(
        b"\x02\x00\x10\x00UI\x16\x00"  # (0002,0010) Transfer Syntax UID, 22 bytes: JPEG Lossless
        b"1.2.840.10008.1.2.4.70"
        + HEAD + BEHIND,
        stripped=30,
    ),
}  # fmt: skip
# Those of ../shared/faults: file, transfer syntax, end of the SOP Instance UID, bytes stripped.
_SHARED_FAULTS: Final = (
    ("R1a-stray-seqend-other-study-explicit", EXPLICIT, 1, 0),
    ("R1b-stray-seqend-other-study-implicit", IMPLICIT, 2, 0),
    ("R2-deflated-1050000-bytes-before-the-uids", DEFLATED, 5, 0),
    ("R4a-un-undefined-explicit-items", EXPLICIT, 7, 0),
    ("R4c-sequence-without-items-and-end", EXPLICIT, 9, 0),
    ("R4e-implicit-element-in-explicit", EXPLICIT, 11, 0),
    ("R4g-vr-RE-16-bit", EXPLICIT, 13, 0),
    ("R4j-un-16-bit", EXPLICIT, 16, 0),
    ("R4l-first-element-with-vr-dashes", EXPLICIT, 18, 0),
    ("R5a-embedded-0002-0003-no-syntax", EXPLICIT, 20, 24),
    ("R5b-embedded-syntax-is-the-negotiated-private-one", PRIVATE, 21, 30),
    ("R5c-embedded-jpeg-syntax-native-pixels", EXPLICIT, 22, 30),
)


def faulty_names() -> list[str]:
    """All of them; those of ../shared/faults only where it is there."""
    theirs = [name for name, *_ in _SHARED_FAULTS] if FAULTS.is_dir() else []
    return [*_OWN_FAULTS, *theirs]


def faulty(name: str) -> Faulty:
    if name in _OWN_FAULTS:
        return _OWN_FAULTS[name]
    _, syntax, number, stripped = next(one for one in _SHARED_FAULTS if one[0] == name)
    return Faulty(
        (FAULTS / f"{name}.bin").read_bytes(),
        syntax,
        f"1.2.826.0.1.3.{number}",
        "1.2.826.0.1.1",
        "1.2.826.0.1.2",
        stripped,
    )


def patients() -> list[Faulty]:
    """Instances of two patients in turn, whose ids (GB18030) are 8C 5C 30 31 and 8C 5C 30 32."""
    front, behind = HEAD + OWN[:16], OWN[32:]
    found = [
        Faulty(
            front.replace(b"UI\x0e\x001.2.3.71.1.1.1", b"UI\x0e\x00" + sop.encode())
            + b"\x10\x00\x20\x00LO\x04\x00"  # (0010,0020) Patient ID, 4 bytes
            + patient
            + behind,
            sop=sop,
        )
        for sop, patient in (("1.2.3.71.1.1.1", b"\x8c\x5c01"), ("1.2.3.71.1.1.2", b"\x8c\x5c02"))
    ]
    for n in range(2 if FAULTS.is_dir() else 0):
        data = (FAULTS / f"R7-patient-id-{n}.bin").read_bytes()
        found.append(Faulty(data, sop=f"1.2.826.0.1.3.7.{n}"))
    return found

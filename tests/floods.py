"""Messages as small as they get, and long runs of them: what a hostile peer sends.

The standard asks for more elements than these have; the service does not. Numbers are little
endian, in elements of 10 bytes; PDU and PDV heads take 6 bytes each.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from tests.kit import ELE, element, pdu

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ECHO",
    "FLOODS",
    "REFUSED",
    "STRANGE",
    "burst",
    "command_of",
    "instance",
    "number",
    "packed",
    "pdv",
    "tiny_store",
]

MIB: Final = 1 << 20


def pdv(header: int, fragment: bytes, context: int = 1) -> bytes:
    """A PDV with its head. header: bit 0 a command, bit 1 the last fragment."""
    return struct.pack(">IBB", len(fragment) + 2, context, header) + fragment


def number(tag: int, value: int) -> bytes:
    """An element of a command set with a number of 2 bytes."""
    return struct.pack("<HHIH", 0, tag, 2, value)


def text(tag: int, value: bytes) -> bytes:
    """An element of a command set with a text of any length."""
    return struct.pack("<HHI", 0, tag, len(value)) + value


def command_of(field: int, message_id: int, *, data_set: bool = False) -> bytes:
    """The command set of a request, with nothing in it that the service can do without."""
    return (
        number(0x0100, field)
        + number(0x0110, message_id)
        + number(0x0800, 1 if data_set else 0x101)
    )


# A C-ECHO, an operation there is not, and a C-STORE without a data set (C000): 36 bytes each.
ECHO: Final = pdv(3, command_of(0x0030, 9))
STRANGE: Final = pdv(3, command_of(0x0150, 9))
REFUSED: Final = pdv(3, command_of(0x0001, 9))
# A C-STORE with an instance UID that is no name (0117), and its data set of 2 bytes.
UNNAMED: Final = pdv(3, command_of(0x0001, 9, data_set=True) + text(0x1000, b"a/b\0")) + pdv(
    2, b"xy"
)

FLOODS: Final = {
    "echo": (ECHO,),
    "unknown": (STRANGE,),
    "refused": (REFUSED, UNNAMED),
    "mixture": (ECHO, STRANGE, REFUSED, UNNAMED, ECHO, REFUSED),
}


def packed(pdvs: Sequence[bytes], size: int, *, in_pdu: int = 100) -> tuple[bytes, int]:
    """The PDVs over and over, about `size` bytes in PDUs of `in_pdu` messages; and how many."""
    often = max(1, in_pdu // len(pdvs))
    one = pdu(4, b"".join(pdvs) * often)
    times = max(1, size // len(one))
    return one * times, often * len(pdvs) * times


def instance(more: bytes = b"", study: str = "1", series: str = "1") -> bytes:
    """The least data set that is stored: 20 bytes. more: an element behind them."""
    return (
        element(0x0020000D, b"UI", study.encode(), ELE)
        + element(0x0020000E, b"UI", series.encode(), ELE)
        + more
    )


def tiny_store(message_id: int, sop: str, data: bytes, context: int = 1) -> bytes:
    """A C-STORE that is stored, as one PDU: 82 bytes where sop has 6 and data 20."""
    command = command_of(0x0001, message_id, data_set=True) + text(0x1000, sop.encode())
    return pdu(4, pdv(3, command, context) + pdv(2, data, context))


def burst(sops: Iterable[str], data: Iterable[bytes]) -> bytes:
    """Such stores one after the other, with Message IDs from 0 on."""
    return b"".join(
        tiny_store(n & 0xFFFF, sop, one)
        for n, (sop, one) in enumerate(zip(sops, data, strict=True))
    )

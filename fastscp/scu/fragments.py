"""The bytes of a message in P-DATA-TF that a peer takes.

Source: PS3.8 9.3.5, Annex E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp_ext import encode_pdata

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["P_DATA_HEADERS", "batches", "command_pdus"]

# Bytes of a P-DATA-TF that are no fragment: its own header, the PDV's length, id and control.
P_DATA_HEADERS: Final = 12
# P-DATA-TF go to the connection in batches of about this size: a peer that takes tiny ones does not
# cost a call of the system each, and no batch keeps the event loop for long.
_BATCH_BYTES: Final = 65536
# Message control header: bit 0 says command, bit 1 says last fragment.
_MORE_COMMAND, _LAST_COMMAND = 1, 3
_MORE_DATA, _LAST_DATA = 0, 2


def command_pdus(context_id: int, command: bytes, fragment_bytes: int) -> list[bytes]:
    """A whole command set. It is small: 64 KiB at most."""
    ends = range(0, len(command), fragment_bytes)
    return [
        encode_pdata(
            [
                (
                    context_id,
                    _LAST_COMMAND if at + fragment_bytes >= len(command) else _MORE_COMMAND,
                    command[at : at + fragment_bytes],
                )
            ]
        )
        for at in ends
    ]


def batches(
    context_id: int, piece: memoryview, fragment_bytes: int, *, is_last: bool
) -> Iterator[tuple[list[bytes], bool]]:
    """Consecutive bytes of a data set, and with each batch whether it ends the data set.

    piece: a multiple of fragment_bytes, unless it is the last one (is_last).
    """
    step = max(1, _BATCH_BYTES // (fragment_bytes + P_DATA_HEADERS)) * fragment_bytes
    size = len(piece)
    for begin in range(0, size, step):
        end = min(begin + step, size)
        pdus = []
        for at in range(begin, end, fragment_bytes):
            ends = is_last and at + fragment_bytes >= size
            fragment = bytes(piece[at : min(at + fragment_bytes, end)])
            pdus.append(encode_pdata([(context_id, _LAST_DATA if ends else _MORE_DATA, fragment)]))
        yield pdus, is_last and end == size

"""The commands that a requestor sends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fastscp.association.service import C_ECHO_RQ, NO_DATA_SET
from fastscp_ext import encode_command

__all__ = ["C_ECHO_RQ", "C_STORE_RQ", "Priority", "Request"]

C_STORE_RQ: Final = 0x0001
_DATA_SET: Final = 0x0001


class Priority(IntEnum):
    """How urgent a C-STORE is; most receivers take no notice.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     print(await pacs.store("image.dcm", priority=Priority.LOW))
    0000 success

    Source: PS3.7 9.3.1.1 (0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Request:
    """A command that asks for an operation.

    command_field: C_ECHO_RQ or C_STORE_RQ. sop_instance, priority and move_originator (its AE title
    and message id) belong to a C-STORE-RQ alone.
    Source: PS3.7 9.3.1.1, 9.3.5.1.
    """

    command_field: int
    sop_class: str
    sop_instance: str | None = None
    priority: int = Priority.MEDIUM
    move_originator: tuple[str, int] | None = None

    def encode(self, message_id: int) -> bytes:
        """The command set. Raises ValueError for values that none can hold."""
        elements: dict[int, int | bytes | str | tuple[int, ...]] = {
            0x0002: self.sop_class,
            0x0100: self.command_field,
            0x0110: message_id,
            0x0800: NO_DATA_SET,
        }
        if self.sop_instance is not None:
            elements[0x0700] = int(self.priority)
            elements[0x0800] = _DATA_SET
            elements[0x1000] = self.sop_instance
        if self.move_originator is not None:
            elements[0x1030], elements[0x1031] = self.move_originator
        return encode_command(elements)

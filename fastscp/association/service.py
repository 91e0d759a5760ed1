"""DIMSE beside the C-STORE: the answer to every other command. A pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp_ext import status

if TYPE_CHECKING:
    from fastscp_ext import CommandSet

__all__ = ["C_CANCEL_RQ", "C_ECHO_RQ", "Unanswerable", "answer"]

C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101


class Unanswerable(Exception):  # noqa: N818 - it is the command that is
    """A request without the Message ID that a response needs: only an abort can tell the peer."""


def answer(command: CommandSet) -> dict[int, int | bytes] | None:
    """The elements of the response to anything but a C-STORE-RQ; None: it gets none.

    C-ECHO succeeds, on whatever presentation context; a C-CANCEL or a response that answers
    nothing is passed over; every other operation is not recognized. UIDs go back as they came.
    Source: PS3.7 9.3.5, 9.3.2.3, 10.3, Annex C.
    """
    field = command.command_field
    if field is None or field & RESPONSE or field == C_CANCEL_RQ:
        return None
    if command.message_id is None:
        raise Unanswerable(f"command {field:04X} without Message ID")
    succeeded = field == C_ECHO_RQ
    elements: dict[int, int | bytes] = {
        0x0100: field | RESPONSE,
        0x0120: command.message_id,
        0x0800: NO_DATA_SET,
        0x0900: status.SUCCESS if succeeded else status.UNRECOGNIZED_OPERATION,
    }
    # N- requests name the class and instance "requested", their responses call them "affected".
    for affected, requested in ((0x0002, 0x0003), (0x1000, 0x1001)):
        uid = command.elements.get(affected) or command.elements.get(requested)
        if uid and len(uid) <= 128:
            elements[affected] = uid
    if not succeeded:
        elements[0x0902] = b"operation is not supported"
    return elements

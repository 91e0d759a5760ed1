"""What a requestor makes of a peer's bytes, plainly: the oracle for fastscp_ext.send.sender."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests import reference_framing, reference_pdu

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Asked", "Heard", "heard"]

PDATA_CAP = 1 << 20
STORE_RSP = 0x8001


class Asked(NamedTuple):
    """A C-STORE-RQ that is out. whole: all of it is."""

    context_id: int
    whole: bool = True


class Heard(NamedTuple):
    """answered: message ids and statuses, in their order. end: as of `Sender`. text, pdu: of it."""

    answered: list[tuple[int, int]]
    end: str
    text: str
    pdu: bytes


def number(elements: Mapping[int, bytes], tag: int) -> int | None:
    value = elements.get(tag, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def judged(command: bytes, context_id: int, due: Mapping[int, Asked]) -> tuple[int, int] | str:
    """Message id and status of a usable response, or what is wrong with it."""
    try:
        elements = reference_pdu.command_elements(command)
    except reference_pdu.Refused:
        return "it sent an unreadable command set"
    field, answers = number(elements, 0x0100), number(elements, 0x0120)
    if field is None:
        return "it sent a command set without a usable Command Field"
    if not field & 0x8000:
        return f"it invoked an operation ({field:04X}) on our association"
    if answers is None:
        return "it sent a response without a usable Message ID Being Responded To"
    if answers not in due:
        return f"it answered message {answers}, which is not outstanding"
    status = number(elements, 0x0900)
    if field != STORE_RSP:
        return f"it answered message {answers}, a C-STORE-RQ, with a "
    if context_id != due[answers].context_id:
        asked_on = due[answers].context_id
        return (
            f"it answered message {answers}, sent on presentation context {asked_on}, "
            f"on context {context_id}"
        )
    if 0x0900 not in elements:
        return "it sent a response without a status"
    if status is None:
        return f"it answered message {answers} with a Status that is not of 2 bytes"
    if 0x0800 in elements and len(elements[0x0800]) != 2:
        return f"it answered message {answers} with a Command Data Set Type that is not of 2 bytes"
    # PS3.7 Annex C: success, and the warnings.
    kept = status in (0x0000, 0x0001, 0x0107, 0x0116) or status >> 12 == 0xB
    if kept and not due[answers].whole:
        return f"it answered message {answers} with {status:04X} before it had all of it"
    return answers, status


def heard(stream: bytes, asked: Mapping[int, Asked]) -> Heard:
    """All that comes of a peer's bytes, and then the end of the connection."""
    due = dict(asked)
    answered: list[tuple[int, int]] = []
    for frame in reference_framing.frames(stream, None, PDATA_CAP):
        match frame:
            case ("pdu", bytes(pdu)):
                return Heard(answered, "pdu", "", pdu)
            case ("error", _, _, str(text)):
                return Heard(answered, "broken", text, b"")
            case ("command", int(context_id), bytes(command)):
                found = judged(command, context_id, due)
                if isinstance(found, str):
                    return Heard(answered, "broken", found, b"")
                answered.append(found)
                del due[found[0]]
            case _:
                pass
    return Heard(answered, "closed", "", b"")

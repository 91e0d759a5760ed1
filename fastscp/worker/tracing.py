"""What a trace tells beside the PDUs that come and go: the items of the two that make an
association, and the fields of each command set.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from fastscp import status as codes
from fastscp.association.names import COMMAND_NAMES, CONTEXT_RESULTS
from fastscp.log import shown
from fastscp.log.text import cut
from fastscp.titles import title_text
from fastscp_ext import PresentationContextRQ, ae_title, decode_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastscp_ext import AssociateAC, AssociateRQ, PresentationContextAC

__all__ = ["command_line", "item_lines"]

# Characters of what is said once: its fields are what a trace is for, and few fit in the usual.
_SAID_SHOWN: Final = 1500
# Transfer syntaxes of a presentation context; nobody has more without wanting trouble.
_SYNTAXES_SHOWN: Final = 20
_APART: Final = frozenset(
    {"called_ae", "calling_ae", "presentation_contexts", "user_information", "reserved"}
)


def item_lines(pdu: AssociateRQ | AssociateAC, named: Callable[[str], str]) -> Iterator[str]:
    """A line for what is said once, and one for each presentation context.

    named: a UID as the log has it. No line holds credentials.
    Source: PS3.8 9.3.2, 9.3.3.
    """
    told = [f"'{_title(pdu.calling_ae)}' calls '{_title(pdu.called_ae)}'", *_told(pdu)]
    if pdu.user_information is not None:
        told += _told(pdu.user_information)
    yield cut(", ".join(told), _SAID_SHOWN)
    for one in pdu.presentation_contexts:
        yield f"presentation context {one.id}: {_about(one, named)}"


def command_line(context_id: int, command: bytes, named: Callable[[str], str]) -> str:
    """What the command set of a request or a response says.

    command: one that `decode_command` takes.
    Source: PS3.7 9.3.1, 9.3.5.
    """
    said = decode_command(command)
    number = said.command_field
    kind = "a command" if number is None else COMMAND_NAMES.get(number, f"command {number:04X}")
    told = [f"presentation context {context_id}"]
    if said.message_id is not None:
        told.append(f"message {said.message_id}")
    if said.message_id_being_responded_to is not None:
        told.append(f"answers message {said.message_id_being_responded_to}")
    told += [
        f"{what} {named(uid)}"
        for what, uid in (
            ("class", said.affected_sop_class_uid or said.requested_sop_class_uid),
            ("instance", said.affected_sop_instance_uid or said.requested_sop_instance_uid),
        )
        if uid
    ]
    if said.priority is not None:
        told.append(f"priority {said.priority}")
    if said.move_originator_ae is not None:
        told.append(f"moved for '{title_text(said.move_originator_ae)}'")
    if said.move_originator_message_id is not None:
        told.append(f"by its message {said.move_originator_message_id}")
    if said.status is not None:
        told.append(f"status {codes.describe(said.status)}")
    if said.error_comment:
        told.append(f"comment '{shown(said.error_comment)}'")
    return f"{kind}: {', '.join(told)}"


def _told(value: object) -> list[str]:
    """The fields that say something, each by its name."""
    return [
        f"{one.name.replace('_', ' ')} {found!a}"
        for one in fields(value)  # type: ignore[arg-type]
        if one.repr
        and one.name not in _APART
        and (found := getattr(value, one.name)) not in (None, ())
    ]


def _about(one: PresentationContextRQ | PresentationContextAC, named: Callable[[str], str]) -> str:
    if isinstance(one, PresentationContextRQ):
        return _proposal(one, named)
    if one.result:
        return f"result {one.result}, {CONTEXT_RESULTS.get(one.result, 'unknown')}"
    return f"accepted in {named(one.transfer_syntax)}"


def _proposal(one: PresentationContextRQ, named: Callable[[str], str]) -> str:
    syntaxes = [named(uid) for uid in one.transfer_syntaxes[:_SYNTAXES_SHOWN]]
    if more := len(one.transfer_syntaxes) - len(syntaxes):
        syntaxes.append(f"and {more} others")
    return f"{named(one.abstract_syntax)} in {', '.join(syntaxes) or 'nothing'}"


def _title(title: bytes) -> str:
    return title_text(ae_title(title))

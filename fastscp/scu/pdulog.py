"""A line in the log for each PDU of a requestor's association.

No line holds a value of a data set or names an instance: titles, numbers and lengths are all.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fastscp import status as codes
from fastscp.association.names import COMMAND_NAMES
from fastscp.log import TRACE, shown
from fastscp_ext import Abort, AssociateAC, AssociateRJ, AssociateRQ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastscp.scu.link import SeenPDU

__all__ = ["PDULog"]

log = logging.getLogger("fastscp.scu.pdu")

# Characters of a text of the peer.
_SHOWN: Final = 64


class PDULog:
    """Of one association. name: what its lines begin with."""

    def __init__(self, name: str) -> None:
        self._name = name

    @staticmethod
    def wanted() -> bool:
        """Whether anybody would see the lines: to tell of a PDU costs more than to send it."""
        return log.isEnabledFor(TRACE)

    def saw(self, pdu: SeenPDU) -> None:
        """A PDU that the link sent or received."""
        self._line(pdu.sent, pdu.name, pdu.length, _about(pdu))

    def saw_data(
        self,
        sent: bool,
        length: int,
        context_id: int,
        control: int,
        data_bytes: int,
        messages: Sequence[tuple[int, int, int]],
    ) -> None:
        """A P-DATA-TF of a `Sender`; arguments as of its `on_pdu`."""
        about = [f"presentation context {context_id}"]
        about += [_message(*one) for one in messages]
        if data_bytes:
            about.append(f"{data_bytes} bytes of its data set")
        elif control & 1 and not messages:
            about.append("part of a command set")
        if control & 2:
            about.append("last fragment")
        self._line(sent, "P-DATA-TF", length, about)

    def _line(self, sent: bool, name: str, length: int, about: Sequence[str]) -> None:
        did = "sent" if sent else "received"
        log.log(TRACE, "%s", ", ".join((f"{self._name}: {did} {name}", f"length {length}", *about)))


def _message(message_id: int, command_field: int, status: int) -> str:
    named = COMMAND_NAMES.get(command_field, f"command {command_field:04X}")
    words = named if command_field >= 0 else "a command without Command Field"
    if message_id >= 0:
        words += f" {message_id}"
    return words if status < 0 else f"{words} with {codes.describe(status)}"


def _about(pdu: SeenPDU) -> list[str]:
    """What a PDU other than a P-DATA-TF says."""
    match pdu.value:
        case AssociateRQ() as rq:
            contexts = len(rq.presentation_contexts)
            return [f"{_title(rq.calling_ae)} calls {_title(rq.called_ae)}", f"contexts {contexts}"]
        case AssociateAC() as ac:
            accepted = sum(one.result == 0 for one in ac.presentation_contexts)
            about = [f"{accepted} of {len(ac.presentation_contexts)} contexts accepted"]
            said = ac.user_information
            if said is not None:
                about.append(f"maximum length {said.max_pdu_length}")
                about += [
                    f"implementation {shown(text, _SHOWN)}"
                    for text in (said.implementation_version_name, said.implementation_class_uid)
                    if text
                ]
            return about
        case AssociateRJ() as rj:
            return [f"result {rj.result}, source {rj.source}, reason {rj.reason}"]
        case Abort() as abort:
            return [f"source {abort.source}, reason {abort.reason}"]
    return []


def _title(title: bytes) -> str:
    return shown(title.strip(b" "), _SHOWN)

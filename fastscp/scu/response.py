"""What a peer answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from fastscp import status as codes
from fastscp.log import shown
from fastscp.status import StatusClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastscp_ext import CommandSet

__all__ = ["COMMENT_SHOWN", "Response"]

# Characters of an Error Comment (LO, PS3.5 6.2), and tags, that are shown: a peer may send 64 KiB.
COMMENT_SHOWN: Final = 64
_TAGS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Response:
    """What a peer answered. Elements that it did not send are None or ().

    status: Status (0000,0900). message_id: of the request that it answers. error_comment: Error
    Comment (0000,0902). error_id: Error ID (0000,0903). offending_elements: tags (0000,0901), group
    in the upper half. affected_sop_class_uid, affected_sop_instance_uid: (0000,0002), (0000,1000).
    elements: all of them by element number of group 0000, as received.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     response = await pacs.store("nameless.dcm")
    >>> response.ok, f"{response.status:04X}", response.meaning, response.error_id
    (False, 'C000', 'cannot understand', None)
    >>> print(response)
    C000 cannot understand, 'no Study or Series Instance UID found', (0020,000D)

    Source: PS3.7 9.1.1, Annex C.
    """

    status: int
    message_id: int
    error_comment: str | None = None
    error_id: int | None = None
    offending_elements: tuple[int, ...] = ()
    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    elements: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, command: CommandSet) -> Self:
        """From the command set of a usable response. Raises ValueError for another."""
        status, message_id = command.status, command.message_id_being_responded_to
        if status is None or message_id is None:
            raise ValueError("a response has a status, and names the message that it answers")
        return cls(
            status,
            message_id,
            command.error_comment,
            command.error_id,
            command.offending_elements,
            command.affected_sop_class_uid,
            command.affected_sop_instance_uid,
            command.elements,
        )

    @property
    def status_class(self) -> StatusClass:
        """Success, warning, failure, cancel or pending. Source: PS3.7 Annex C."""
        return codes.classify(self.status)

    @property
    def ok(self) -> bool:
        """Whether the operation was done: success, or a warning."""
        return self.status_class in (StatusClass.SUCCESS, StatusClass.WARNING)

    @property
    def meaning(self) -> str:
        """The status in words."""
        return codes.describe(self.status).partition(" ")[2]

    def __str__(self) -> str:
        parts = [codes.describe(self.status)]
        if self.error_comment:
            parts.append(f"'{shown(self.error_comment, COMMENT_SHOWN)}'")
        if self.error_id is not None:
            parts.append(f"error id {self.error_id}")
        tags = self.offending_elements
        parts += [f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags[:_TAGS_SHOWN]]
        if len(tags) > _TAGS_SHOWN:
            parts.append(f"and {len(tags) - _TAGS_SHOWN} more elements")
        return ", ".join(parts)

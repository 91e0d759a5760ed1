"""Command sets: Implicit VR Little Endian, group 0000, whatever transfer syntax was negotiated."""

from collections.abc import Mapping
from typing import final

from typing_extensions import Buffer

__all__ = ["CommandSet", "decode_command", "encode_command", "scan"]

@final
class CommandSet:
    """A decoded command set; its attributes cannot be set.

    A property is None where its element is absent or, for a number, not of 2 bytes. Text is
    latin-1: UIDs without trailing NULs and spaces, AE titles and comments up to the first NUL
    without the spaces around. None of it is safe to show unescaped.
    Source: PS3.7 9.3, 10.3, Annex E.
    """

    def __new__(cls, elements: Mapping[int, bytes]) -> CommandSet: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

    @property
    def elements(self) -> dict[int, bytes]:
        """Element number (group 0000) to value as received, padding included, in wire order."""
    @property
    def command_field(self) -> int | None: ...
    @property
    def message_id(self) -> int | None: ...
    @property
    def message_id_being_responded_to(self) -> int | None: ...
    @property
    def data_set_type(self) -> int | None: ...
    @property
    def has_data_set(self) -> bool | None:
        """Whether a data set follows: Command Data Set Type is anything but 0101.

        None: it is absent, or not of 2 bytes.
        """
    @property
    def priority(self) -> int | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def affected_sop_class_uid(self) -> str | None: ...
    @property
    def affected_sop_instance_uid(self) -> str | None: ...
    @property
    def requested_sop_class_uid(self) -> str | None: ...
    @property
    def requested_sop_instance_uid(self) -> str | None: ...
    @property
    def move_originator_ae(self) -> str | None: ...
    @property
    def move_originator_message_id(self) -> int | None: ...
    @property
    def error_comment(self) -> str | None: ...
    @property
    def error_id(self) -> int | None: ...
    @property
    def offending_elements(self) -> tuple[int, ...]:
        """Tags as 32 bit numbers, group in the upper half; a cut last one is left out."""
    @property
    def action_type_id(self) -> int | None: ...
    @property
    def event_type_id(self) -> int | None: ...

def decode_command(data: Buffer) -> CommandSet:
    """Decode the bytes of all command fragments of a message, joined.

    Takes elements in any order, unknown ones, odd lengths and a wrong or missing group length; of a
    repeated element the first counts. Raises CommandError and nothing else, whatever the bytes are:
    a cut header, a value past the end, a group other than 0000.
    Source: PS3.7 6.3.1.
    """

def encode_command(elements: Mapping[int, int | bytes | str | tuple[int, ...]]) -> bytes:
    """Encode a command set from element number (group 0000) to value, in ascending order.

    int for US, str for UI, AE and Error Comment, tuple of 32 bit tags for AT, bytes for anything:
    sent as they are, with a NUL if odd. The group length is computed; an entry for it is ignored.
    Error Comment is cut to 64 characters, "?" standing for what is not printable ASCII or is a
    backslash. Raises ValueError: a type that does not fit the element, a value out of range.
    Source: PS3.7 6.3.1, 9.3, Annex E; PS3.5 6.2.
    """

def scan(data: Buffer) -> dict[str, int | tuple[bytes, bytes] | None]:
    """What the receiving path sees of a command set, for tests: field to value, if present.

    Numbers are None where their length is wrong; UIDs and AE titles are the value as received and
    trimmed. SOP class and instance are named `affected_` or `requested_`: Affected goes first.
    Raises CommandError exactly where `decode_command` does.
    Source: PS3.7 6.3.1.
    """

"""PDU and PDV framing of the DICOM upper layer."""

from collections.abc import Iterable
from typing import Any, Self, final

from typing_extensions import Buffer

__all__ = ["PDUStream"]

@final
class PDUStream:
    """Frames out of a byte stream, as Python objects. For requestors and tests, not the hot path.

    contexts: the accepted presentation context ids, or None to accept every id.
    pdata_cap: longest P-DATA-TF body tolerated, bytes.
    Source: PS3.8 9.3.1, 9.3.5, Annex E.
    """

    def __new__(cls, contexts: Iterable[int] | None = None, pdata_cap: int = 16777216) -> Self: ...
    def accept(self, contexts: Iterable[int]) -> None:
        """Set the accepted presentation context ids; PDVs on others are errors from now on."""

    def feed(self, data: Buffer) -> list[tuple[Any, ...]]:
        """The frames that `data` completes, as tuples; an `error` is the last one ever.

        ("header", type, length) | ("pdu", bytes) | ("command", context id, bytes)
        | ("data", context id, bytes, last) | ("error", source, reason, text)

        What follows a command set that cannot be read, or whose Command Data Set Type is not of 2
        bytes, is a guess: whoever judges the command set has to end the association there.
        Raises ValueError for 4 GiB or more at a time.
        """

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""

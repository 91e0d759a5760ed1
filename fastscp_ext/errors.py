"""What the codec may raise: nothing else leaves it, whatever the bytes were."""

from __future__ import annotations

__all__ = ["CodecError", "CommandError", "PDUError", "PDULimitError"]


class CodecError(Exception):
    """Received bytes break the standard. `offset` counts from the first byte given."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class PDUError(CodecError):
    """A PDU that cannot be used. `reason` is the A-ABORT reason (PS3.8 Table 9-26)."""

    def __init__(self, message: str, offset: int = 0, reason: int = 6) -> None:
        super().__init__(message, offset)
        self.reason = reason


class PDULimitError(PDUError):
    """A PDU that the standard allows, and that holds more than is taken from anybody."""


class CommandError(CodecError):
    """A command set that cannot be read (PS3.7 6.3)."""

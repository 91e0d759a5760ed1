"""What the codec may raise: nothing else leaves it, whatever the bytes were."""

from __future__ import annotations

__all__ = [
    "CodecError",
    "CommandError",
    "PDUContextsError",
    "PDUError",
    "PDULimitError",
    "ProxyHeaderError",
]


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


class PDUContextsError(PDUError):
    """An A-ASSOCIATE PDU with more presentation contexts than there are ids for (PS3.8 9.3.2.2).

    contexts: how many it has. calling_ae, called_ae: AE titles as they stand in it, 16 bytes.
    """

    def __init__(
        self, contexts: int, offset: int = 0, calling_ae: bytes = b"", called_ae: bytes = b""
    ) -> None:
        super().__init__(f"too many presentation contexts: {contexts}", offset)
        self.contexts = contexts
        self.calling_ae = calling_ae
        self.called_ae = called_ae


class CommandError(CodecError):
    """A command set that cannot be read (PS3.7 6.3)."""


class ProxyHeaderError(CodecError):
    """A PROXY header that cannot be used. is_absent: the bytes do not even begin as one does."""

    is_absent = False

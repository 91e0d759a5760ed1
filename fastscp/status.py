"""DIMSE status codes that a storage SCP and its sender meet.

Source: PS3.7 Annex C, PS3.4 B.2.3.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["StatusClass", "classify", "describe"]

SUCCESS: Final = 0x0000
CANCEL: Final = 0xFE00
PENDING: Final = 0xFF00

# Any DIMSE service (PS3.7 Annex C).
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_SOP_INSTANCE: Final = 0x0111
NO_SUCH_SOP_INSTANCE: Final = 0x0112
INVALID_ARGUMENT_VALUE: Final = 0x0115
INVALID_SOP_INSTANCE: Final = 0x0117
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORIZED: Final = 0x0124
DUPLICATE_INVOCATION: Final = 0x0210
UNRECOGNIZED_OPERATION: Final = 0x0211
MISTYPED_ARGUMENT: Final = 0x0212
RESOURCE_LIMITATION: Final = 0x0213

# C-STORE (PS3.4 B.2.3).
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
COERCION_OF_ELEMENTS: Final = 0xB000
ELEMENTS_DISCARDED: Final = 0xB006
DATA_SET_MISMATCH_WARNING: Final = 0xB007

_MEANINGS: Final[dict[int, str]] = {
    SUCCESS: "success",
    0x0001: "requested optional attributes are not supported",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "attribute list error",
    PROCESSING_FAILURE: "processing failure",
    DUPLICATE_SOP_INSTANCE: "duplicate SOP instance",
    NO_SUCH_SOP_INSTANCE: "no such SOP instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    INVALID_ARGUMENT_VALUE: "invalid argument value",
    0x0116: "attribute value out of range",
    INVALID_SOP_INSTANCE: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    NO_SUCH_ACTION: "no such action",
    NOT_AUTHORIZED: "not authorized",
    DUPLICATE_INVOCATION: "duplicate invocation",
    UNRECOGNIZED_OPERATION: "unrecognized operation",
    MISTYPED_ARGUMENT: "mistyped argument",
    RESOURCE_LIMITATION: "resource limitation",
    COERCION_OF_ELEMENTS: "coercion of data elements",
    ELEMENTS_DISCARDED: "elements discarded",
    DATA_SET_MISMATCH_WARNING: "data set does not match SOP class (stored)",
    CANCEL: "cancelled",
    PENDING: "pending",
    0xFF01: "pending, optional keys not supported",
}

# C-STORE gives these meanings to whole ranges; the low bits are the implementation's own.
_RANGES: Final[tuple[tuple[int, int, str], ...]] = (
    (0xA700, 0xA7FF, "out of resources"),
    (0xA900, 0xA9FF, "data set does not match SOP class"),
    (0xB000, 0xBFFF, "warning"),
    (0xC000, 0xCFFF, "cannot understand"),
)

_WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116})


class StatusClass(Enum):
    """What a status says about the operation (PS3.7 Annex C)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


def classify(status: int) -> StatusClass:
    """The class of a status; a code without a meaning of its own is a failure.

    Source: PS3.7 Annex C.
    """
    if status == SUCCESS:
        return StatusClass.SUCCESS
    if status in _WARNINGS or 0xB000 <= status <= 0xBFFF:
        return StatusClass.WARNING
    if status == CANCEL:
        return StatusClass.CANCEL
    if 0xFF00 <= status <= 0xFFFF:
        return StatusClass.PENDING
    return StatusClass.FAILURE


def describe(status: int) -> str:
    """A status for people: `A700 out of resources`."""
    meaning = _MEANINGS.get(status)
    if meaning is None:
        meaning = next(
            (text for low, high, text in _RANGES if low <= status <= high),
            classify(status).value,
        )
    return f"{status:04X} {meaning}"

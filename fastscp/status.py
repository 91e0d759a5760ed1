"""What the DIMSE statuses say that a storage SCP and its sender meet.

Source: PS3.7 Annex C, PS3.4 B.2.3.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from fastscp_ext import status as codes

__all__ = ["StatusClass", "classify", "describe"]

_MEANINGS: Final[dict[int, str]] = {
    codes.SUCCESS: "success",
    codes.OPTIONAL_ATTRIBUTES_NOT_SUPPORTED: "requested optional attributes are not supported",
    codes.NO_SUCH_ATTRIBUTE: "no such attribute",
    codes.INVALID_ATTRIBUTE_VALUE: "invalid attribute value",
    codes.ATTRIBUTE_LIST_ERROR: "attribute list error",
    codes.PROCESSING_FAILURE: "processing failure",
    codes.DUPLICATE_SOP_INSTANCE: "duplicate SOP instance",
    codes.NO_SUCH_SOP_INSTANCE: "no such SOP instance",
    codes.NO_SUCH_EVENT_TYPE: "no such event type",
    codes.NO_SUCH_ARGUMENT: "no such argument",
    codes.INVALID_ARGUMENT_VALUE: "invalid argument value",
    codes.ATTRIBUTE_VALUE_OUT_OF_RANGE: "attribute value out of range",
    codes.INVALID_SOP_INSTANCE: "invalid SOP instance",
    codes.NO_SUCH_SOP_CLASS: "no such SOP class",
    codes.CLASS_INSTANCE_CONFLICT: "class-instance conflict",
    codes.MISSING_ATTRIBUTE: "missing attribute",
    codes.MISSING_ATTRIBUTE_VALUE: "missing attribute value",
    codes.SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    codes.NO_SUCH_ACTION: "no such action",
    codes.NOT_AUTHORIZED: "not authorized",
    codes.DUPLICATE_INVOCATION: "duplicate invocation",
    codes.UNRECOGNIZED_OPERATION: "unrecognized operation",
    codes.MISTYPED_ARGUMENT: "mistyped argument",
    codes.RESOURCE_LIMITATION: "resource limitation",
    codes.COERCION_OF_ELEMENTS: "coercion of data elements",
    codes.ELEMENTS_DISCARDED: "elements discarded",
    codes.DATA_SET_MISMATCH_WARNING: "data set does not match SOP class (stored)",
    codes.CANCEL: "cancelled",
    codes.PENDING: "pending",
    codes.PENDING_OPTIONAL_KEYS: "pending, optional keys not supported",
}

# C-STORE gives these meanings to whole ranges; the low bits are the implementation's own.
_RANGES: Final[tuple[tuple[int, int, str], ...]] = (
    (codes.OUT_OF_RESOURCES, codes.OUT_OF_RESOURCES_LAST, "out of resources"),
    (codes.DATA_SET_MISMATCH, codes.DATA_SET_MISMATCH_LAST, "data set does not match SOP class"),
    (codes.COERCION_OF_ELEMENTS, codes.WARNING_LAST, "warning"),
    (codes.CANNOT_UNDERSTAND, codes.CANNOT_UNDERSTAND_LAST, "cannot understand"),
)


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
    if status == codes.SUCCESS:
        return StatusClass.SUCCESS
    if codes.is_warning(status):
        return StatusClass.WARNING
    if status == codes.CANCEL:
        return StatusClass.CANCEL
    if codes.PENDING <= status <= codes.PENDING_LAST:
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

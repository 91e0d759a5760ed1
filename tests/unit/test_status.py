"""DIMSE statuses: their class and their words."""

from __future__ import annotations

import pytest

from fastscp import status
from fastscp.status import StatusClass, classify, describe


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0x0000, StatusClass.SUCCESS),
        (0x0001, StatusClass.WARNING),
        (0x0107, StatusClass.WARNING),
        (0x0116, StatusClass.WARNING),
        (0xB000, StatusClass.WARNING),
        (0xBFFF, StatusClass.WARNING),
        (0xFE00, StatusClass.CANCEL),
        (0xFF00, StatusClass.PENDING),
        (0xFF01, StatusClass.PENDING),
        (0x0110, StatusClass.FAILURE),
        (0x0117, StatusClass.FAILURE),
        (0xA700, StatusClass.FAILURE),
        (0xA9FF, StatusClass.FAILURE),
        (0xC123, StatusClass.FAILURE),
        (0xD000, StatusClass.FAILURE),
        (0xFE01, StatusClass.FAILURE),
    ],
)
def test_class(code: int, expected: StatusClass) -> None:
    assert classify(code) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (status.SUCCESS, "0000 success"),
        (status.OUT_OF_RESOURCES, "A700 out of resources"),
        (0xA7FF, "A7FF out of resources"),
        (0xA901, "A901 data set does not match SOP class"),
        (status.ELEMENTS_DISCARDED, "B006 elements discarded"),
        (0xB123, "B123 warning"),
        (0xC0DE, "C0DE cannot understand"),
        (status.SOP_CLASS_NOT_SUPPORTED, "0122 SOP class not supported"),
        (0xD000, "D000 failure"),
    ],
)
def test_words(code: int, expected: str) -> None:
    assert describe(code) == expected

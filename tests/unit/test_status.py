"""DIMSE statuses: their class and their words, and that each code stands in the list alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fastscp.status import StatusClass, classify, describe
from fastscp_ext import status
from tests.unit.test_linters import ROOT

if TYPE_CHECKING:
    from pathlib import Path


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


# The list ----------------------------------------------------------------------------------------

LIST = ROOT / "fastscp_ext" / "status.pxd"
# Of an element, a command or a mask as well: a status where the line says so.
OTHERS_TOO = {0x0000, 0x0001, 0x0110, 0x0120, 0xFFFF}


class Status(NamedTuple):
    """A status of the list."""

    name: str
    code: int
    condition: str


def listed(text: str) -> list[Status]:
    """The statuses in a part of the list."""
    found = re.findall(r"((?:^    # .*\n)*)^    (\w+) = 0x([0-9A-F]{4})$", text, re.MULTILINE)
    return [
        Status(name, int(code, 16), " ".join(said.replace("    # ", " ").split()))
        for said, name, code in found
    ]


def sent() -> list[Status]:
    """What the service sends: the first part of the list."""
    return listed(LIST.read_text("utf-8").split("cpdef enum:\n")[1])


def sources(*folders: str) -> list[Path]:
    found = [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.p*"))
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi") and path != LIST
    ]
    assert found
    return found


def test_the_list_is_what_python_has() -> None:
    every = listed(LIST.read_text("utf-8"))
    numbers = {name: number for name, number in vars(status).items() if name.isupper()}
    assert {one.name: one.code for one in every} == numbers
    assert len({one.code for one in every}) == len(every) > 30
    assert all(one.condition for one in sent())


def test_the_service_sends_what_the_list_says() -> None:
    """The receiving rooms name every status of the first part of the list, and no other."""
    names = "|".join(one.name for one in listed(LIST.read_text("utf-8")))
    used = set()
    for path in sources("fastscp_ext/receive", "fastscp_ext/commit", "fastscp_ext/shared"):
        used |= set(re.findall(rf"\b(?:{names})\b", path.read_text("utf-8")))
    for path in sources("fastscp/association", "fastscp/store", "fastscp/worker"):
        used |= set(re.findall(rf"\b(?:status|codes)\.({names})\b", path.read_text("utf-8")))
    assert used == {one.name for one in sent()}


STATUSES_ALONE = {one.code for one in listed(LIST.read_text("utf-8"))} - OTHERS_TOO


def bare(line: str) -> list[str]:
    """The numbers of a line that are statuses."""
    found = [
        number
        for number in re.findall(r"\b0x[0-9A-Fa-f]+\b", line)
        if int(number, 16) in STATUSES_ALONE or 0xA700 <= int(number, 16) <= 0xCFFF
    ]
    compared = r"status\b\s*(?:[!=]=|=|in)\s*[({]?\s*[0-9]\w*"
    return found + re.findall(rf"{compared}|(?:instance_|\.)refuse\((?:[^,]*, *)?\d", line)


def test_no_status_is_a_bare_number() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources("fastscp_ext", "fastscp")
        for line in path.read_text("utf-8").splitlines()
        if bare(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "    (0xA700, None, 0),",
        "x = 0xb123",
        "i.status = 0x0110",
        "if i.status == 0:",
        "if status in {0x0001, 0x0107}:",
        'instance_refuse(i, 272, b"failed")',
        "Outcome(status=0xC000)",
    ],
)
def test_a_bare_number_is_seen(line: str) -> None:
    assert bare(line)

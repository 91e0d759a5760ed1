"""What a requestor takes for an answer: the whole of it, as a table."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscp.scu import Response
from fastscp_ext import CommandError, CommandSet, decode_command, encode_command, judge_response

if TYPE_CHECKING:
    from collections.abc import Mapping

# A C-STORE on context 5 that is out, one that is not, a C-ECHO, and an N-ACTION.
OUTSTANDING = {
    0: (0x0001, 1, True),
    7: (0x0001, 5, True),
    8: (0x0001, 5, False),
    9: (0x0030, 7, True),
    10: (0x0130, 3, True),
    11: (0x7ABC, 3, True),
}
USUAL = {0x0100: b"\1\x80", 0x0120: b"\7\0", 0x0800: b"\1\1", 0x0900: b"\0\0"}


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def command(elements: Mapping[int, bytes | None], *, group: int = 0) -> bytes:
    """A C-STORE-RSP to message 7, success, with these in place of the usual ones; None: without."""
    whole = {k: v for k, v in {**USUAL, **elements}.items() if v is not None}
    return b"".join(struct.pack("<HHL", group, k, len(v)) + v for k, v in whole.items())


@pytest.mark.parametrize("status", [0, 0x0107, 0xB000, 0xA700, 0xC123, 0x0122, 0xFF00, 0xFFFF])
@pytest.mark.parametrize(
    "elements",
    [
        {},
        # What careless peers leave out, pad, or have in their own way.
        {0x0800: None},
        {0x0800: b"\1\0"},
        {0x0800: b"\0\0"},
        {0x0800: b"\2\2"},
        {0x0002: b"1.2.840.10008.5.1.4.1.1.2\0", 0x1000: b"1.2.3 "},
        {0x0002: b"1.2.9", 0x1000: b"another"},
        {0x0000: b"\xff"},
        {0x0110: b"", 0x0700: b"\1", 0x0903: b"odd", 0x5678: b"unknown"},
    ],
)
def test_usable(status: int, elements: dict[int, bytes | None]) -> None:
    raw = command({0x0900: us(status), **elements})
    assert judge_response(raw, 5, OUTSTANDING) == (7, status)


def test_in_any_order_and_the_first_of_a_repeated_element_counts() -> None:
    backwards = dict(reversed(USUAL.items()))
    raw = b"".join(struct.pack("<HHL", 0, k, len(v)) + v for k, v in backwards.items())
    assert judge_response(raw, 5, OUTSTANDING) == (7, 0)
    more = struct.pack("<HHL", 0, 0x0900, 4) + b"\0\xa7\0\0"
    assert judge_response(raw + more, 5, OUTSTANDING) == (7, 0)
    with pytest.raises(CommandError, match="Status that is not of 2 bytes"):
        judge_response(more + raw, 5, OUTSTANDING)


def test_any_request() -> None:
    assert judge_response(command({0x0120: us(0)}), 1, OUTSTANDING) == (0, 0)
    echo = {0x0120: us(9), 0x0100: us(0x8030)}
    assert judge_response(command(echo), 7, OUTSTANDING) == (9, 0)
    action = {0x0120: us(10), 0x0100: us(0x8130), 0x0900: us(0x0110)}
    assert judge_response(command(action), 3, OUTSTANDING) == (10, 0x0110)


NO_ID = "it sent a response without a usable Message ID Being Responded To"
NO_FIELD = "it sent a command set without a usable Command Field"
LENGTHS = [b"", b"\1", b"\0\0\0", b"\1\0\0\0", b"\0\xa7\0\0"]


@pytest.mark.parametrize(
    ("elements", "context_id", "text"),
    [
        ({0x0100: None}, 5, NO_FIELD),
        *(({0x0100: value}, 5, NO_FIELD) for value in LENGTHS),
        ({0x0100: us(0x0001)}, 5, "it invoked an operation (0001) on our association"),
        ({0x0100: us(0x0FFF)}, 5, "it invoked an operation (0FFF) on our association"),
        ({0x0120: None}, 5, NO_ID),
        *(({0x0120: value}, 5, NO_ID) for value in LENGTHS),
        ({0x0120: us(6)}, 5, "it answered message 6, which is not outstanding"),
        (
            {0x0100: us(0x8030)},
            5,
            "it answered message 7, a C-STORE-RQ, with a C-ECHO-RSP",
        ),
        (
            {0x0120: us(9)},
            7,
            "it answered message 9, a C-ECHO-RQ, with a C-STORE-RSP",
        ),
        (
            {0x0120: us(11), 0x0100: us(0x8ABC)},
            3,
            (
                "it answered message 11, a message of Command Field 7ABC, "
                "with a message of Command Field 8ABC"
            ),
        ),
        *(
            (
                {},
                other,
                f"it answered message 7, sent on presentation context 5, on context {other}",
            )
            for other in (0, 1, 4, 77, 255)
        ),
        ({0x0900: None}, 5, "it sent a response without a status"),
        *(
            ({0x0900: value}, 5, "it answered message 7 with a Status that is not of 2 bytes")
            for value in LENGTHS
        ),
        *(
            (
                {0x0800: value},
                5,
                "it answered message 7 with a Command Data Set Type that is not of 2 bytes",
            )
            for value in LENGTHS
        ),
        *(
            (
                {0x0120: us(8), 0x0900: us(kept)},
                5,
                f"it answered message 8 with {kept:04X} before it had all of it",
            )
            for kept in (0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB007, 0xBFFF)
        ),
    ],
)
def test_violations(elements: dict[int, bytes | None], context_id: int, text: str) -> None:
    with pytest.raises(CommandError) as error:
        judge_response(command(elements), context_id, OUTSTANDING)
    assert str(error.value) == text


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0122, 0xFE00, 0xFF00])
def test_what_has_not_come_may_be_refused(status: int) -> None:
    raw = command({0x0120: us(8), 0x0900: us(status)})
    assert judge_response(raw, 5, OUTSTANDING) == (8, status)


def test_what_cannot_be_read_is_no_answer_whatever_stood_before() -> None:
    whole = command({})
    for raw in (whole[:-1], whole + b"\0", whole + b"\x08\0\0\0\0\0\0\0", command({}, group=8)):
        with pytest.raises(CommandError, match=r"^it sent an unreadable command set$"):
            judge_response(raw, 5, OUTSTANDING)
    with pytest.raises(CommandError, match=NO_FIELD):
        judge_response(b"", 5, OUTSTANDING)


def test_cut_anywhere() -> None:
    """No part of a response is one: not even what ends between two elements."""
    raw = command({})
    for size in range(len(raw)):
        with pytest.raises(CommandError):
            judge_response(raw[:size], 5, OUTSTANDING)


@given(
    st.dictionaries(st.sampled_from([0, *USUAL]), st.binary(max_size=4)), st.sampled_from([5, 7])
)
def test_nothing_but_command_errors(elements: dict[int, bytes], context_id: int) -> None:
    """And what is taken is what a plain reading of the elements gives."""
    raw = command(elements)
    whole = {**USUAL, **elements}
    numbers = [int.from_bytes(whole[k], "little") for k in (0x0120, 0x0900)]
    due = OUTSTANDING.get(numbers[0])
    usable = (
        all(len(whole[k]) == 2 for k in USUAL)
        and due is not None
        and due[1] == context_id
        and whole[0x0100] == us(due[0] | 0x8000)
    )
    if not usable:
        with pytest.raises(CommandError):
            judge_response(raw, context_id, OUTSTANDING)
    elif due == (0x0001, 5, True):
        assert judge_response(raw, context_id, OUTSTANDING) == tuple(numbers)


@given(st.binary(max_size=64))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(CommandError):
        judge_response(raw, 5, {})


def test_misuse() -> None:
    with pytest.raises(OverflowError):
        judge_response(command({}), 256, OUTSTANDING)
    with pytest.raises(TypeError):
        judge_response(bytearray(command({})), 5, OUTSTANDING)  # type: ignore[arg-type]


def test_a_response_without_a_status_is_none() -> None:
    """What was not judged never turns into a success."""
    lacking: list[dict[int, bytes | None]] = [
        {0x0900: None}, {0x0900: b"\0\0\0\0"}, {0x0120: None}, {0x0120: b""},
    ]  # fmt: skip
    for elements in lacking:
        with pytest.raises(ValueError, match="has a status, and names the message"):
            Response.of(decode_command(command(elements)))
    with pytest.raises(ValueError, match="has a status"):
        Response.of(CommandSet({}))
    raw = encode_command({0x0100: 0x8001, 0x0120: 7, 0x0900: 0xA700, 0x0902: "full"})
    response = Response.of(decode_command(raw))
    assert (response.status, response.message_id, response.error_comment) == (0xA700, 7, "full")

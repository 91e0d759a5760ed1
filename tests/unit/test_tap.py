"""The tap: values out of a passing data set, whatever it is cut into and whatever it is."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp_ext.dataset.tap import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    KEYWORDS,
    SYNTAX_UNKNOWN,
    Tap,
)
from tests import reference_tap, streams
from tests.reference_tap import LONG, SHORT, UNDEFINED, WANTED, Outcome

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
FAMILIES = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]
TAGS = {keyword: tag for tag, keyword in WANTED.items()}

many = settings(max_examples=200, deadline=None, derandomize=True)


def outcome_of(data: bytes, negotiated: int, cuts: list[int] | None = None) -> Outcome:
    """The tap's outcome, fed in the slices between `cuts`."""
    tap = Tap(negotiated)
    places = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(places):
        tap.feed(data[start:end])
    settled = tap.settled
    early = tap.values()
    tap.end()
    assert tap.settled
    # What is settled no later byte changes: of a deflated stream none is looked at.
    assert not settled or early == tap.values()
    return Outcome(tap.syntax, tap.sniffed, tap.stopped, tap.truncated, settled, tap.values())


def check(data: bytes, negotiated: int, cuts: list[int] | None = None) -> Outcome:
    """Whole, cut, byte by byte and the reference, where that tells: one outcome."""
    outcome = outcome_of(data, negotiated)
    told = reference_tap.tap(data, negotiated)
    if told is not None:
        # Several ways to read one header may keep it open for longer.
        assert outcome.settled <= told.settled
        assert outcome == replace(told, settled=outcome.settled)
    if cuts:
        assert outcome_of(data, negotiated, cuts) == outcome
    if len(data) <= 4096:
        assert outcome_of(data, negotiated, list(range(len(data)))) == outcome
    return outcome


# Encoding, straight from PS3.5 7.1: what the tests build their data sets with. ------------------


def element(tag: int, vr: str, value: bytes, family: int, length: int | None = None) -> bytes:
    order = ">" if family == EXPLICIT_BE else "<"
    size = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if family == IMPLICIT_LE:
        return head + struct.pack("<L", size) + value
    two = vr.encode("latin-1")
    if vr in SHORT or not reference_tap.capitals(vr):
        return head + two + struct.pack(order + "H", size & 0xFFFF) + value
    return head + two + bytes(2) + struct.pack(order + "L", size) + value


def delimiter(number: int, length: int, family: int) -> bytes:
    return struct.pack(">HHL" if family == EXPLICIT_BE else "<HHL", 0xFFFE, number, length)


def sequence(
    tag: int, items: list[bytes], family: int, vr: str = "SQ", defined: bool = False
) -> bytes:
    inside = IMPLICIT_LE if vr == "UN" and not defined else family
    if defined:
        body = b"".join(delimiter(0xE000, len(item), inside) + item for item in items)
        return element(tag, vr, body, family)
    body = b"".join(
        delimiter(0xE000, UNDEFINED, inside) + item + delimiter(0xE00D, 0, inside) for item in items
    )
    return element(tag, vr, body + delimiter(0xE0DD, 0, inside), family, UNDEFINED)


def pixels(fragments: list[bytes], family: int) -> bytes:
    body = b"".join(delimiter(0xE000, len(one), family) + one for one in [b"", *fragments])
    body += delimiter(0xE0DD, 0, family)
    return element(0x7FE00010, "OB", body, family, UNDEFINED)


def uid(tag: int, value: bytes, family: int) -> bytes:
    return element(tag, "UI", value + bytes(len(value) % 2), family)


def decoys(family: int) -> bytes:
    return uid(0x0020000D, b"6.6.1", family) + uid(0x0020000E, b"6.6.2", family)


def plain(family: int) -> bytes:
    """A small sorted data set with all ten values and decoys in front of them."""
    un = IMPLICIT_LE if family != IMPLICIT_LE else family
    return b"".join([
        element(0x00080005, "CS", b"ISO_IR 100", family),
        uid(0x00080016, b"1.2.840.10008.5.1.4.1.1.2", family),
        uid(0x00080018, b"1.2.3.4", family),
        element(0x00080020, "DA", b"20240229", family),
        element(0x00080050, "SH", b" A1 ", family),
        element(0x00080060, "CS", b"CT", family),
        sequence(0x00081110, [decoys(family)], family, defined=True),
        sequence(0x00081250, [decoys(family), b""], family),
        sequence(0x00091010, [decoys(un)], family, vr="UN"),
        element(0x00100020, "LO", b"P^1\\P2", family),
        uid(0x0020000D, b"1.2.3", family),
        uid(0x0020000E, b"1.2.3.1", family),
        element(0x00200011, "IS", b"7 ", family),
        element(0x00200013, "IS", b"12", family),
        element(0x7FE00010, "OW", bytes(300), family),
    ])  # fmt: skip


def flat(family: int) -> bytes:
    """All ten values, and no sequence."""
    return b"".join(
        element(tag, "UI" if keyword.endswith("UID") else "LO", b"1.2", family)
        for tag, keyword in WANTED.items()
    )


EXPECTED = {
    "SOPClassUID": b"1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": b"1.2.3.4",
    "StudyDate": b"20240229",
    "AccessionNumber": b"A1",
    "Modality": b"CT",
    "PatientID": b"P^1\\P2",
    "StudyInstanceUID": b"1.2.3",
    "SeriesInstanceUID": b"1.2.3.1",
    "SeriesNumber": b"7",
    "InstanceNumber": b"12",
}


# Examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("negotiated", [SYNTAX_UNKNOWN, *FAMILIES])
def test_finds_all_values_and_no_decoys(family: int, negotiated: int) -> None:
    outcome = check(plain(family), negotiated)
    sniffed = negotiated not in (SYNTAX_UNKNOWN, family)
    assert outcome == Outcome(family, sniffed, False, False, False, EXPECTED)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_end(family: int) -> None:
    data = plain(family)
    whole = 0
    for end in range(len(data)):
        outcome = check(data[:end], family)
        assert not outcome.stopped
        assert outcome.values.items() <= EXPECTED.items()
        whole += not outcome.truncated
    assert whole == 15  # in front of each element, the first one included


@pytest.mark.parametrize("family", FAMILIES)
def test_settles_only_when_nothing_changes(family: int) -> None:
    data = plain(family)
    tap = Tap(family)
    for at in range(len(data)):
        tap.feed(data[at : at + 1])
        # Behind a sequence something may still turn up that contradicts them.
        assert not tap.settled
    assert tap.values() == EXPECTED
    # Without one the last of the ten settles them.
    data = flat(family)
    tap = Tap(family)
    for at in range(len(data)):
        assert not tap.settled
        tap.feed(data[at : at + 1])
    assert tap.settled


def test_unsorted_first_wins_and_pixel_data_does_not_end_the_search() -> None:
    family = EXPLICIT_LE
    data = b"".join([
        element(0x00200013, "IS", b"1 ", family),
        uid(0x00080018, b"1.2", family),
        uid(0x00080018, b"9.9", family),
        element(0x00080060, "CS", b"", family),
        element(0x00080060, "CS", b"MR", family),
        element(0x7FE00010, "OW", bytes(8), family),
        uid(0x0020000D, b"1.2.3", family),
    ])  # fmt: skip
    outcome = check(data, family)
    assert outcome.values == {
        "InstanceNumber": b"1",
        "SOPInstanceUID": b"1.2",
        "StudyInstanceUID": b"1.2.3",
    }
    assert not outcome.settled
    assert not outcome.truncated


def test_nested_pixel_data_settles_nothing() -> None:
    family = EXPLICIT_LE
    icon = element(0x00280010, "US", b"\1\0", family) + pixels([b"abcd"], family)
    data = sequence(0x00880200, [icon], family) + uid(0x0020000D, b"1.2.3", family)
    outcome = check(data, family)
    assert outcome.values == {"StudyInstanceUID": b"1.2.3"}
    assert not outcome.settled


def test_encapsulated_pixel_data() -> None:
    data = plain(EXPLICIT_LE)[:-312] + pixels([bytes(999), b"odd"], EXPLICIT_LE)
    assert not check(data, EXPLICIT_LE).truncated
    for cut in range(1, 40):
        assert check(data[:-cut], EXPLICIT_LE).truncated
    assert not check(data + element(0xFFFCFFFC, "OB", b"", EXPLICIT_LE), EXPLICIT_LE).truncated
    endless = element(0x7FE00010, "OB", delimiter(0xE000, UNDEFINED, 2), EXPLICIT_LE, UNDEFINED)
    assert check(endless, EXPLICIT_LE).stopped


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1.2\0", b"1.2"),
        (b"1.2 \0 ", b"1.2"),
        (b" 1.2", b"1.2"),
        (b"\r\n 1.2\0\r\n", b"1.2"),
        (b" \r\n", b""),
        (b"1.2\\3.4\0", b"1.2\\3.4"),
        (b"1.2 \\3.4", b"1.2 \\3.4"),
        (b"1\0.2", b"1\0.2"),
        (b"1.2.3", b"1.2.3"),
        (b"../x", b"../x"),
        (b"1" * 300, b"1" * 256),
    ],
)
def test_uid_padding(raw: bytes, value: bytes) -> None:
    data = element(0x00080018, "UI", raw, EXPLICIT_LE)
    assert check(data, EXPLICIT_LE).values == ({"SOPInstanceUID": value} if value else {})


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"  A B ", b"A B"),
        (b"A\0\0", b"A"),
        (b"A\\B", b"A\\B"),
        (b"\\B", b"\\B"),
        (b"\x8c\x5c01 ", b"\x8c\x5c01"),  # GB18030: one character of two bytes, then "01"
        (b"  ", b""),
        (b"x" * 3000, b"x" * 1024),
    ],
)
def test_text_padding(raw: bytes, value: bytes) -> None:
    data = element(0x00100020, "LO", raw, EXPLICIT_LE)
    assert check(data, EXPLICIT_LE).values == ({"PatientID": value} if value else {})


@pytest.mark.parametrize("family", FAMILIES)
def test_two_values_that_differ_behind_a_backslash(family: int) -> None:
    one = element(0x00100020, "LO", b"\x8c\x5c01", family)
    two = element(0x00100020, "LO", b"\x8c\x5c02", family)
    head = element(0x00080005, "CS", b"GB18030 ", family)
    assert check(head + one + one, family).values == {"PatientID": b"\x8c\x5c01"}
    assert check(head + one + two, family).values == {}


def test_long_texts_leave_room_for_the_uids() -> None:
    family = IMPLICIT_LE
    texts = [tag for tag, keyword in WANTED.items() if not keyword.endswith("UID")]
    uids = [tag for tag, keyword in WANTED.items() if keyword.endswith("UID")]
    data = b"".join(element(tag, "LO", b"%08X" % tag * 500, family) for tag in texts)
    data += b"".join(element(tag, "UI", b"%08X" % tag * 100, family) for tag in uids)
    outcome = check(data, family)
    assert len(outcome.values) == 10
    for tag, keyword in WANTED.items():
        assert outcome.values[keyword] == (b"%08X" % tag * 500)[: 256 if tag in uids else 1024]


@pytest.mark.parametrize("levels", [1, 31, 32, 33, 5000])
def test_any_depth(levels: int) -> None:
    opening = element(0x00081110, "SQ", delimiter(0xE000, UNDEFINED, 2), EXPLICIT_LE, UNDEFINED)
    closing = delimiter(0xE00D, 0, 2) + delimiter(0xE0DD, 0, 2)
    first = uid(0x00080018, b"1.2", EXPLICIT_LE)
    last = uid(0x0020000D, b"1.2.3", EXPLICIT_LE)
    outcome = check(first + opening * levels + closing * levels + last, EXPLICIT_LE)
    assert not outcome.stopped
    assert outcome.values == {"SOPInstanceUID": b"1.2", "StudyInstanceUID": b"1.2.3"}


def test_no_number_of_headers_is_too_many() -> None:
    """140,000 items of undefined length, and 10 MiB of empty elements: legal."""
    for family in FAMILIES:
        items = [uid(0x00081155, b"1.2", family)] * 140_000
        data = sequence(0x00081140, items, family)
        data += element(0x00091010, "OB", b"", family) * 900_000
        data += uid(0x0020000D, b"1.2.3", family)
        outcome = outcome_of(data, family)
        assert outcome == Outcome(family, values={"StudyInstanceUID": b"1.2.3"})


def test_length_far_beyond_the_end() -> None:
    data = uid(0x00080018, b"1.2", EXPLICIT_LE)
    data += element(0x00091010, "OB", b"abc", EXPLICIT_LE, 0xFFFFFFFE)
    outcome = check(data, EXPLICIT_LE)
    assert outcome.truncated
    assert outcome.values == {"SOPInstanceUID": b"1.2"}
    cut_off = element(0x0020000D, "UI", b"1.2.840", EXPLICIT_LE, 10)
    assert check(cut_off, EXPLICIT_LE).values == {}


@pytest.mark.parametrize("vr", ["--", "  ", "\0\0", "lo", "L1", "\xff\xff"])
def test_invalid_vr_takes_16_bits(vr: str) -> None:
    first = uid(0x00080018, b"1.2", EXPLICIT_LE)
    odd = element(0x00091010, vr, b"abcd", EXPLICIT_LE)
    last = uid(0x0020000D, b"1.2.3", EXPLICIT_LE)
    outcome = check(first + odd + last, EXPLICIT_LE)
    assert outcome.values == {"SOPInstanceUID": b"1.2", "StudyInstanceUID": b"1.2.3"}
    twice = first + odd + element(0x00091011, vr, b"", EXPLICIT_LE) + last
    assert len(check(twice, EXPLICIT_LE).values) == 2
    wrong = first + odd + b"\1\0\2\0not a header at all" + last
    assert check(wrong, EXPLICIT_LE).stopped
    assert check(first + odd, EXPLICIT_LE).stopped is False


def test_private_vr_takes_32_bits() -> None:
    data = uid(0x00080018, b"1.2", EXPLICIT_LE)
    data += element(0x00091010, "ZZ", bytes(70000), EXPLICIT_LE)
    data += uid(0x0020000D, b"1.2.3", EXPLICIT_LE)
    assert len(check(data, EXPLICIT_LE).values) == 2


def test_implicit_items_in_a_private_sequence() -> None:
    items = [decoys(IMPLICIT_LE), decoys(EXPLICIT_LE), b""]
    data = uid(0x00080018, b"1.2", EXPLICIT_LE) + sequence(0x00091010, items, EXPLICIT_LE)
    data += uid(0x0020000D, b"1.2.3", EXPLICIT_LE)
    outcome = check(data, EXPLICIT_LE)
    assert outcome.values == {"SOPInstanceUID": b"1.2", "StudyInstanceUID": b"1.2.3"}
    assert not outcome.truncated


def test_ends_that_end_nothing_and_ends_left_out() -> None:
    family = EXPLICIT_LE
    item_end = delimiter(0xE00D, 0, family)
    sequence_end = delimiter(0xE0DD, 0, family)
    last = uid(0x0020000D, b"1.2.3", family)
    open_item = element(0x00081250, "SQ", delimiter(0xE000, UNDEFINED, family), family, UNDEFINED)
    defined = element(0x00081250, "SQ", delimiter(0xE000, 0, family) + item_end, family, UNDEFINED)
    for oddity in (
        open_item + decoys(family) + sequence_end,
        defined + sequence_end,
        element(0x00080060, "CS", b"CT", family) + item_end + sequence_end,
    ):
        outcome = check(oddity + last, family)
        assert outcome.values["StudyInstanceUID"] == b"1.2.3"
        assert not outcome.truncated


def test_an_item_in_front_of_no_sequence_stops() -> None:
    data = uid(0x00080018, b"1.2", EXPLICIT_LE) + delimiter(0xE000, 4, EXPLICIT_LE) + b"abcd"
    assert check(data, EXPLICIT_LE).stopped


def test_a_sequence_without_items_or_an_item_without_a_start() -> None:
    """Either way nothing shows whose values they are: nothing behind group 0020 follows."""
    no_item = element(0x00081250, "SQ", decoys(EXPLICIT_LE), EXPLICIT_LE, UNDEFINED)
    assert check(no_item, EXPLICIT_LE).values == {}


@pytest.mark.parametrize("negotiated", [SYNTAX_UNKNOWN, *FAMILIES])
@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\0\x16\0UI\0"])
def test_too_short_for_a_header(data: bytes, negotiated: int) -> None:
    assert check(data, negotiated) == Outcome(negotiated, truncated=len(data) > 0)


def test_sniffing() -> None:
    def first(head: bytes, negotiated: int) -> tuple[int, bool]:
        outcome = check(head + bytes(4), negotiated)
        return outcome.syntax, outcome.stopped

    little = b"\x08\0\x16\0"
    unknown_vr = little + b"ZZ\0\0"
    assert first(unknown_vr, EXPLICIT_LE) == (EXPLICIT_LE, False)
    assert first(unknown_vr, EXPLICIT_BE)[0] == EXPLICIT_BE
    # Implicit VR would make its length 23,130: the data set ends in front of that.
    assert first(unknown_vr, IMPLICIT_LE) == (EXPLICIT_LE, False)
    assert first(unknown_vr, SYNTAX_UNKNOWN) == (EXPLICIT_LE, False)
    long_enough = unknown_vr + bytes(0x5A5A - 4)
    assert first(long_enough, IMPLICIT_LE) == (IMPLICIT_LE, False)
    # Both byte orders alike: the negotiated one.
    assert first(b"\x08\x08\x16\0UI\0\0", EXPLICIT_BE)[0] == EXPLICIT_BE
    assert first(b"\x08\x08\x16\0UI\4\0", IMPLICIT_LE)[0] == EXPLICIT_LE
    # An implicit length that spells a VR, or an explicit one without a value: the negotiated.
    assert first(b"\x08\x08\x16\0UI\0\0", IMPLICIT_LE)[0] == IMPLICIT_LE
    # A VR of zeros: no first element is as long as 1 MiB.
    assert first(little + b"\0\0\x10\0", EXPLICIT_LE) == (EXPLICIT_LE, False)
    assert first(little + b"\xff\xff\xff\xff", EXPLICIT_LE)[0] == IMPLICIT_LE
    assert first(bytes(8), EXPLICIT_LE)[1]
    assert first(b"\xff\xd8\xff\xe0\0\x10JF", EXPLICIT_LE)[1]


def test_a_first_header_without_a_vr_or_a_length() -> None:
    """The group is what an Explicit VR Big Endian data set may begin with: read as negotiated."""
    data = bytes.fromhex("00fee000ffffffff") + plain(EXPLICIT_BE)
    assert check(data, EXPLICIT_BE).syntax == EXPLICIT_BE


def test_a_tap_refuses_what_is_no_family() -> None:
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="transfer syntax family"):
            Tap(wrong)


def test_names_agree_with_pydicom() -> None:
    from pydicom.datadict import tag_for_keyword
    from pydicom.valuerep import VR

    assert set(KEYWORDS) == set(TAGS)
    assert [tag_for_keyword(keyword) for keyword in KEYWORDS] == [TAGS[k] for k in KEYWORDS]
    known = SHORT | LONG | {"SQ", "UN"}
    assert {vr.value for vr in VR if len(vr.value) == 2} == known
    for vr in known:
        value = delimiter(0xE000, 0, EXPLICIT_LE) if vr == "SQ" else b"abcd"
        data = element(0x00091010, vr, value, EXPLICIT_LE) + uid(0x0020000D, b"1", EXPLICIT_LE)
        assert check(data, EXPLICIT_LE).values == {"StudyInstanceUID": b"1"}


# Generated data sets --------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """An element: a value, or items; `style` says how the items are written."""

    tag: int
    vr: str
    value: bytes
    items: tuple[tuple[Node, ...], ...] | None = None
    style: str = "undefined"


def encode(nodes: tuple[Node, ...], family: int) -> bytes:
    return b"".join(encode_node(node, family) for node in nodes)


def encode_node(node: Node, family: int) -> bytes:
    if node.items is None:
        return element(node.tag, node.vr, node.value, family)
    if node.style == "fragments" and family != IMPLICIT_LE:
        body = b"".join(delimiter(0xE000, len(node.value), family) + node.value for _ in "ab")
        return element(node.tag, "OB", body + delimiter(0xE0DD, 0, family), family, UNDEFINED)
    vr = "UN" if node.style == "un" else "SQ"
    defined = node.style == "defined"
    inside = IMPLICIT_LE if vr == "UN" else family
    items = [encode(item, inside) for item in node.items]
    return sequence(node.tag, items, family, vr=vr, defined=defined)


wanted_tags = st.sampled_from(sorted(WANTED))
other_tags = st.sampled_from(
    [0x00080005, 0x00080008, 0x00091010, 0x00100010, 0x00191001, 0x00280010, 0x00880200]
)
vrs = st.sampled_from([*sorted(SHORT | LONG), "UN", "ZZ"])
values = st.one_of(
    st.sampled_from([b"", b"1.2.840\0", b"1.2", b" AB \\ C ", b"x" * 1500]),
    st.binary(max_size=30),
)
leaves = st.builds(Node, st.one_of(wanted_tags, other_tags), vrs, values)
nodes = st.recursive(
    leaves,
    lambda inner: st.builds(
        Node,
        other_tags,
        st.just("SQ"),
        st.binary(max_size=9),
        st.lists(st.lists(inner, max_size=3).map(tuple), max_size=3).map(tuple),
        st.sampled_from(["undefined", "defined", "un", "fragments"]),
    ),
    max_leaves=12,
)
# Begins like a real one, or the sniff may read the rest otherwise.
heads = st.sampled_from([Node(0x00080005, "CS", b"ISO_IR 192"), Node(0x00080016, "UI", b"1.2")])
data_sets = st.builds(lambda head, rest: (head, *rest), heads, st.lists(nodes, max_size=8))


def expected_values(data_set: tuple[Node, ...]) -> dict[str, bytes]:
    raw: dict[str, list[bytes]] = {}
    for node in data_set:
        # With the last of the ten the first values are settled.
        if node.items is None and node.tag in WANTED and len(raw) < len(WANTED):
            keyword = WANTED[node.tag]
            if node.value or keyword not in raw:
                raw.setdefault(keyword, []).append(reference_tap.first_value(keyword, node.value))
    # Two values are none, except where the command tells.
    found = {
        keyword: reference_tap.trimmed(keyword, values[0])
        for keyword, values in raw.items()
        if len(set(values)) == 1 or keyword.startswith("SOP")
    }
    return {keyword: value for keyword, value in found.items() if value}


@many
@given(data_sets, st.sampled_from(FAMILIES), st.lists(st.integers(0, 3000), max_size=6))
def test_well_formed(data_set: tuple[Node, ...], family: int, cuts: list[int]) -> None:
    data = encode(data_set, family)
    outcome = check(data, family, [cut for cut in cuts if cut < len(data)])
    assert outcome.values == expected_values(data_set)
    assert (outcome.syntax, outcome.sniffed) == (family, False)
    assert not outcome.stopped
    assert not outcome.truncated


@many
@given(
    data_sets,
    st.sampled_from(FAMILIES),
    st.sampled_from([SYNTAX_UNKNOWN, *FAMILIES]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    st.integers(0, 1 << 16),
)
def test_damaged(
    data_set: tuple[Node, ...],
    family: int,
    negotiated: int,
    damage: list[tuple[int, int]],
    end: int,
) -> None:
    data = bytearray(encode(data_set, family))
    for place, byte in damage:
        data[place % len(data)] = byte
    check(bytes(data[: end % (len(data) + 1)]) if end % 2 else bytes(data), negotiated)


@many
@given(st.binary(max_size=200), st.sampled_from([SYNTAX_UNKNOWN, *FAMILIES]))
def test_random_bytes(data: bytes, negotiated: int) -> None:
    check(data, negotiated)
    check(b"\x08\0\x05\0CS\0\0" + data, negotiated)
    check(b"\0\x08\0\x05CS\0\0" + data, negotiated)
    check(b"\x08\0\x05\0\0\0\0\0" + data, negotiated)


@many
@given(st.binary(max_size=300), st.sampled_from(FAMILIES))
def test_settled_is_final(data: bytes, family: int) -> None:
    whole = flat(family) + data
    tap = Tap(family)
    settled: dict[str, bytes] | None = None
    for at in range(0, len(whole), 7):
        tap.feed(whole[at : at + 7])
        if settled is None and tap.settled:
            settled = tap.values()
    tap.end()
    assert settled == tap.values() == dict.fromkeys(KEYWORDS, b"1.2")


@many
@given(
    st.lists(
        st.sampled_from([
            delimiter(0xE000, UNDEFINED, 2), delimiter(0xE000, 0, 2), delimiter(0xE000, 3, 2),
            delimiter(0xE00D, 0, 2), delimiter(0xE0DD, 0, 2), delimiter(0xE0DD, 5, 2),
            delimiter(0xE111, 0, 2), b"\0",
            element(0x00081250, "SQ", b"", EXPLICIT_LE, UNDEFINED),
            element(0x00091250, "UN", b"", EXPLICIT_LE, UNDEFINED),
            element(0x7FE00010, "OB", b"", EXPLICIT_LE, UNDEFINED),
            element(0x00091010, "--", b"", EXPLICIT_LE),
            element(0x00091011, "  ", b"ab", EXPLICIT_LE),
            element(0x00091012, "ZZ", b"ab", EXPLICIT_LE),
            uid(0x0020000D, b"1.2.3", EXPLICIT_LE), decoys(IMPLICIT_LE),
        ]),
        max_size=12,
    )
)  # fmt: skip
def test_structure_out_of_place(parts: list[bytes]) -> None:
    check(uid(0x00080016, b"1.2", EXPLICIT_LE) + b"".join(parts), EXPLICIT_LE)


# Real data sets -------------------------------------------------------------------------------


def real_files() -> list[Path]:
    shared = SHARED / "data"
    files = sorted(shared.glob("*.dcm")) if shared.is_dir() else [shared]
    return files + sorted(PYDICOM_FILES.glob("*.dcm"))


def data_set_of(path: Path) -> tuple[bytes, int] | None:
    """The data set behind the file meta, inflated, and its family; None without meta."""
    if not path.exists():
        pytest.skip(f"{path} is not here")
    raw = path.read_bytes()
    if raw[128:132] != b"DICM" or raw[132:140] != b"\2\0\0\0UL\4\0":
        return None
    start = 144 + int(struct.unpack_from("<L", raw, 140)[0])
    at = 144
    syntax = ""
    while at < start:
        _, number, vr, size = struct.unpack_from("<HH2sH", raw, at)
        at += 8
        if vr == b"OB":
            size, at = struct.unpack_from("<L", raw, at)[0], at + 4
        if number == 0x0010:
            syntax = raw[at : at + size].decode().rstrip("\0 ")
        at += size
    if not syntax:
        return None
    data = raw[start:]
    if syntax == "1.2.840.10008.1.2.1.99":
        data = zlib.decompressobj(-15).decompress(data)
    family = {"1.2.840.10008.1.2": IMPLICIT_LE, "1.2.840.10008.1.2.2": EXPLICIT_BE}
    return data, family.get(syntax, EXPLICIT_LE)


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_files(path: Path) -> None:
    read = data_set_of(path)
    if read is None:
        pytest.skip("no file meta with a transfer syntax")
    data, family = read
    rng = random.Random(path.name)
    outcome = check(data, family, [rng.randrange(len(data)) for _ in range(20)])
    check(data, SYNTAX_UNKNOWN, list(range(min(len(data), 20_000))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = pydicom.dcmread(path, specific_tags=list(KEYWORDS), defer_size=4096)
        for keyword in KEYWORDS:
            value = told.get(keyword)
            text = "" if value is None else str(value)
            assert outcome.values.get(keyword, b"").decode("latin-1") == text, keyword


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_files_damaged(path: Path) -> None:
    read = data_set_of(path)
    if read is None:
        pytest.skip("no file meta with a transfer syntax")
    data, family = read
    rng = random.Random(path.name)
    for _ in range(30):
        damaged = bytearray(data[: rng.randrange(1, min(len(data), 60_000) + 1)])
        for _ in range(rng.randrange(4)):
            damaged[rng.randrange(min(len(damaged), 3000))] = rng.choice([0, 255, 8, 65])
        cuts = [rng.randrange(len(damaged)) for _ in range(4)]
        check(bytes(damaged), rng.choice([SYNTAX_UNKNOWN, family, *FAMILIES]), cuts)


def data_sets_in(stream: bytes) -> list[bytes]:
    """The reassembled data sets of a recorded client-to-server stream (PS3.8 9.3.5)."""
    found, passing, at = [], b"", 0
    while at + 6 <= len(stream):
        kind, size = struct.unpack_from(">BxL", stream, at)
        at, end = at + 6, at + 6 + size
        while kind == 4 and at + 6 <= end:
            length, _, control = struct.unpack_from(">LBB", stream, at)
            if control & 1 == 0:
                passing += stream[at + 6 : at + 4 + length]
            if control & 3 == 2:
                found.append(passing)
                passing = b""
            at += 4 + length
        at = end
    return found


OF_OUR_OWN = {
    "StudyInstanceUID": b"1.2.3.71.1",
    "SeriesInstanceUID": b"1.2.3.71.1.1",
    "PatientID": b"OWN-0001",
    "Modality": b"CT",
    "StudyDate": b"20240229",
}
OF_OTHERS = OF_OUR_OWN | {
    "StudyInstanceUID": b"1.2.826.0.1.3680043.8.498.7100.1",
    "SeriesInstanceUID": b"1.2.826.0.1.3680043.8.498.7100.1.1",
    "PatientID": b"VEC-0001",
}


def test_streams() -> None:
    seen = 0
    for name in streams.told():
        if "preamble" in name or "naction" in name or "commitment" in name:
            continue
        wanted = OF_OUR_OWN if name.startswith("own/") else OF_OTHERS
        for data in data_sets_in(streams.read(name)):
            if "deflated" in name:
                data = zlib.decompressobj(-15).decompress(data)
            outcome = check(data, SYNTAX_UNKNOWN, list(range(0, len(data), 3)))
            assert outcome.values.items() >= wanted.items(), name
            assert (outcome.stopped, outcome.truncated) == (False, False), name
            seen += 1
    assert seen > 35
    for name in streams.names("*/bad_dataset_truncated.c2s"):
        (cut,) = data_sets_in(streams.read(name))
        outcome = check(cut, EXPLICIT_LE)
        assert "StudyInstanceUID" not in outcome.values
        assert outcome.truncated

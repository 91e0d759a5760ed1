"""Data sets that are not as PS3.5 says, and what the tap reads of them all the same.

Each fault stands in front of the own UIDs, so that it has to be read past. Foreign UIDs stand where
a wrong step would find them.
"""

from __future__ import annotations

import mmap
import struct
import time

import pytest

from fastscp_ext.dataset.tap import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Tap
from tests.reference_tap import LONG, SHORT, UNDEFINED, Outcome
from tests.streams.faulty import faulty, faulty_names
from tests.unit.test_tap import check, decoys, delimiter, element, outcome_of, pixels, sequence, uid

FAMILIES = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]
EXPLICIT = [EXPLICIT_LE, EXPLICIT_BE]
OWN = {
    "SOPInstanceUID": b"1.2.826",
    "PatientID": b"P1",
    "StudyInstanceUID": b"1.2.3",
    "SeriesInstanceUID": b"1.2.3.1",
}


def front(family: int) -> bytes:
    return element(0x00080005, "CS", b"ISO_IR 100", family) + uid(0x00080018, b"1.2.826", family)


def own(family: int) -> bytes:
    return b"".join([
        element(0x00100020, "LO", b"P1", family),
        uid(0x0020000D, b"1.2.3", family),
        uid(0x0020000E, b"1.2.3.1", family),
        element(0x00280010, "US", b"\1\0", family),
        element(0x7FE00010, "OW", bytes(64), family),
    ])  # fmt: skip


def short(tag: int, vr: bytes, value: bytes, family: int) -> bytes:
    """With a 16-bit length, whatever the VR."""
    order = ">" if family == EXPLICIT_BE else "<"
    head = struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    return head + value


def long(tag: int, vr: bytes, value: bytes, family: int) -> bytes:
    order = ">" if family == EXPLICIT_BE else "<"
    head = struct.pack(order + "HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value))
    return head + value


def implicit(tag: int, value: bytes, family: int) -> bytes:
    order = ">" if family == EXPLICIT_BE else "<"
    return struct.pack(order + "HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def finds_all(fault: bytes, family: int) -> Outcome:
    outcome = check(front(family) + fault + own(family), family)
    assert outcome.values == OWN
    assert not outcome.stopped
    assert not outcome.truncated
    return outcome


@pytest.mark.parametrize("name", [name for name in faulty_names() if faulty(name).plain])
def test_seen_in_the_wild(name: str) -> None:
    seen = faulty(name)
    family = IMPLICIT_LE if seen.syntax == "1.2.840.10008.1.2" else EXPLICIT_LE
    outcome = check(seen.data, family)
    assert outcome.values["StudyInstanceUID"] == seen.study.encode()
    assert outcome.values["SeriesInstanceUID"] == seen.series.encode()
    assert (outcome.syntax, outcome.stopped, outcome.truncated) == (family, False, False)


# Forms of the length --------------------------------------------------------------------------


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("vr", [*sorted(LONG), "UN", "RE", "ZZ"])
@pytest.mark.parametrize("value", [b"", b"abcd", bytes(6), b"0 ", b"LO\0\0" * 30])
@pytest.mark.parametrize("times", [1, 3])
def test_a_16_bit_length_where_32_bits_belong(
    family: int, vr: str, value: bytes, times: int
) -> None:
    fault = b"".join(short(0x00091001 + n, vr.encode(), value, family) for n in range(times))
    finds_all(fault, family)


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("vr", sorted(SHORT))
@pytest.mark.parametrize("value", [b"", b"ab", b"Series", b"SERIES", bytes(8), b"1.2.3 " * 50])
@pytest.mark.parametrize("times", [1, 3])
def test_32_bits_where_a_16_bit_length_belongs(
    family: int, vr: str, value: bytes, times: int
) -> None:
    fault = b"".join(long(0x00091001 + n, vr.encode(), value, family) for n in range(times))
    finds_all(fault, family)


@pytest.mark.parametrize("family", EXPLICIT)
def test_the_own_uids_in_the_wrong_form(family: int) -> None:
    for form in (short, long):
        for vr in (b"UN", b"UI"):
            if form is short and vr == b"UI":
                continue
            data = front(family) + element(0x00100020, "LO", b"P1", family)
            data += form(0x0020000D, vr, b"1.2.3\0", family)
            data += form(0x0020000E, vr, b"1.2.3.1\0", family)
            data += element(0x00280010, "US", b"\1\0", family)
            assert check(data, family).values == OWN, (form, vr)


# VRs ------------------------------------------------------------------------------------------

BAD_VRS = [b"--", b"  ", b"\0\0", b"??", b"lo", b"ob", b"L1", b"\xff\xff", b"\xe4\xf6"]


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("vr", BAD_VRS)
@pytest.mark.parametrize("value", [b"", b"abcd", b"1.2 " * 20])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("form", [short, long])
def test_a_vr_that_is_none(family: int, vr: bytes, value: bytes, times: int, form: type) -> None:
    finds_all(b"".join(form(0x00091001 + n, vr, value, family) for n in range(times)), family)


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("vr", [*BAD_VRS, b"RE"])
def test_in_the_very_first_element(family: int, vr: bytes) -> None:
    data = short(0x00080005, vr, b"ISO_IR 100", family)
    data += uid(0x00080018, b"1.2.826", family) + own(family)
    outcome = check(data, family)
    assert outcome.values == OWN
    assert (outcome.syntax, outcome.sniffed) == (family, False)


@pytest.mark.parametrize("negotiated", EXPLICIT)
def test_implicit_data_are_still_told_apart(negotiated: int) -> None:
    outcome = check(front(IMPLICIT_LE) + own(IMPLICIT_LE), negotiated)
    assert outcome.values == OWN
    assert (outcome.syntax, outcome.sniffed) == (IMPLICIT_LE, True)


# Implicit among explicit, and the reverse -----------------------------------------------------


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("value", [b"", b"ab", b"implicit value! ", bytes(300), b"x" * 70_000])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_implicit_elements_among_explicit_ones(family: int, value: bytes, times: int) -> None:
    finds_all(b"".join(implicit(0x00091001 + n, value, family) for n in range(times)), family)


def test_implicit_from_one_element_on() -> None:
    data = front(EXPLICIT_LE) + own(IMPLICIT_LE)
    assert check(data, EXPLICIT_LE).values == OWN


@pytest.mark.parametrize("vr", ["LO", "UI", "OB", "UN", "UT"])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_explicit_elements_among_implicit_ones(vr: str, times: int) -> None:
    fault = b"".join(element(0x00091001 + n, vr, b"1.2.3 ", EXPLICIT_LE) for n in range(times))
    finds_all(fault, IMPLICIT_LE)


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("levels", [1, 3])
def test_un_of_undefined_length_with_explicit_items(family: int, levels: int) -> None:
    def inside(left: int) -> bytes:
        item = element(0x00080100, "SH", b"T-A0100 ", family)
        if left > 1:
            item += inside(left - 1)
        item += decoys(family)
        body = delimiter(0xE000, UNDEFINED, family) + item + delimiter(0xE00D, 0, family)
        body += delimiter(0xE0DD, 0, family)
        return element(0x00091001, "UN", body, family, UNDEFINED)

    finds_all(inside(levels), family)


@pytest.mark.parametrize("family", EXPLICIT)
def test_un_of_undefined_length_as_it_should_be(family: int) -> None:
    """An explicit reading of it is wrong, and found to be."""
    items = [element(0x00080100, "SH", b"LO\4\0abcd", IMPLICIT_LE) + decoys(IMPLICIT_LE), b""]
    finds_all(sequence(0x00091001, items, family, vr="UN"), family)


# Items and ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vr", ["SQ", "UN"])
def test_a_sequence_without_items_and_end(family: int, vr: str) -> None:
    finds_all(element(0x00081032, vr, b"", family, UNDEFINED), family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", ["items", "end", "both"])
def test_it_proves_nothing_where_an_item_has_no_start(family: int, cut: str) -> None:
    """The same bytes, but what follows is an item's: foreign values are never told."""
    foreign = uid(0x0020000D, b"1.9", family) + uid(0x0020000E, b"1.9", family)
    data = front(family) + element(0x00081032, "SQ", b"", family, UNDEFINED) + foreign
    if cut != "both":
        data += delimiter(0xE00D, 0, family)
    if cut == "items":
        data += delimiter(0xE0DD, 0, family) + own(family)
    values = check(data, family).values
    assert b"1.9" not in values.values()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_sequence_is_missing(family: int) -> None:
    item = delimiter(0xE000, UNDEFINED, family) + decoys(family) + delimiter(0xE00D, 0, family)
    finds_all(element(0x00081140, "SQ", item * 2, family, UNDEFINED), family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_an_item_is_missing(family: int) -> None:
    item = delimiter(0xE000, UNDEFINED, family) + decoys(family)
    end = delimiter(0xE00D, 0, family) + delimiter(0xE0DD, 0, family)
    finds_all(element(0x00081140, "SQ", item * 3 + end, family, UNDEFINED), family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("behind", [bytes(64), None])
def test_uids_behind_the_pixel_data(family: int, behind: bytes | None) -> None:
    picture = pixels([b"abcd"], family)
    if behind is not None:
        picture = element(0x7FE00010, "OW", behind, family)
    last = len(element(0x7FE00010, "OW", bytes(64), family))
    data = front(family) + picture + own(family)[:-last]
    assert check(data, family).values.items() >= {"StudyInstanceUID": b"1.2.3"}.items()


# Legal, and not to be taken for anything else -------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tag", [0x00091001, 0x00282000, 0x60003000])
def test_bytes_that_begin_like_items(family: int, tag: int) -> None:
    like = delimiter(0xE000, 4, IMPLICIT_LE) + b"abcd" + decoys(IMPLICIT_LE) + b"12345"
    for value in (like, like[:9], like[:16] + b"\0"):
        data = front(family)
        if tag == 0x00091001:
            data += element(tag, "UN", value, family)
        data += own(family)[:-90]
        if tag != 0x00091001:
            data += element(tag, "OB", value, family)
        outcome = check(front(family) + element(tag, "UN", value, family) + own(family), family)
        assert outcome.values == OWN
        assert not outcome.stopped


@pytest.mark.parametrize("length", [0x4F4C, 0x64F4C, 0x5153, 0x4E55])
def test_an_implicit_length_that_spells_a_vr(length: int) -> None:
    outcome = finds_all(implicit(0x00091001, bytes(length), IMPLICIT_LE), IMPLICIT_LE)
    assert not outcome.sniffed


@pytest.mark.parametrize("length", [0x00200010, 0x0010_0010 + 2, 0x00130020])
def test_a_length_that_reads_as_the_next_tag(length: int) -> None:
    finds_all(element(0x00091001, "OB", bytes(length), EXPLICIT_LE), EXPLICIT_LE)


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_elements_in_any_order(family: int) -> None:
    empty = element(0x00090010, "LO", b"", family) + element(0x00080090, "PN", b"", family)
    finds_all(empty * 3, family)


def test_an_implicit_first_element_whose_length_spells_a_vr() -> None:
    data = implicit(0x00080005, bytes(0x4144), IMPLICIT_LE)  # DA
    data += uid(0x00080018, b"1.2.826", IMPLICIT_LE) + own(IMPLICIT_LE)
    outcome = check(data, IMPLICIT_LE)
    assert outcome.values == OWN
    assert not outcome.sniffed


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stray_ends_take_back_no_other_value_replaces(family: int) -> None:
    strays = delimiter(0xE0DD, 0, family) * 2
    foreign = uid(0x0020000D, b"1.9", family) + element(0x00280011, "US", b"ab", family)
    data = uid(0x0020000D, b"1.2.3", family) + strays + foreign
    assert "StudyInstanceUID" not in check(data, family).values


def test_an_odd_length_that_leads_into_an_item() -> None:
    """By chance, to the start of an element in it; an end at the outermost level tells."""
    family = EXPLICIT_LE
    inside = uid(0x00080016, b"1.9.9.9.9662448.833107", family) + element(
        0x00080020, "DA", b"19990101", family
    )
    inside += element(0x00100020, "LO", b"999 ", family) + uid(0x0020000D, b"1.9", family)
    inside += uid(0x0020000E, b"1.9", family) + element(0x0040A730, "SQ", b"", family)
    items = delimiter(0xE000, UNDEFINED, family) + inside + delimiter(0xE00D, 0, family)
    items += delimiter(0xE000, UNDEFINED, family) + delimiter(0xE00D, 0, family)
    data = uid(0x00080018, b"1.2.826", family) + element(0x00081030, "LO", b"9 ", family, 1)
    data += element(0x00081199, "SQ", items, family) + own(family)
    assert check(data, family).values.items() <= OWN.items()


# Another data set inside a value ----------------------------------------------------------------


def swallowing(family: int) -> bytes:
    """An element that is longer than all that follows."""
    return element(0x00211001, "OB", b"", family, 0xFFFF0)


def inner(family: int, number: int = 9) -> bytes:
    """Another instance's values; whoever reads them as elements comes to no end."""
    foreign = b"1.9.9.%d" % number
    return b"".join([
        element(0x00100010, "PN", b"A^B ", family),
        element(0x00100020, "LO", b"P999", family),
        uid(0x0020000D, foreign, family),
        uid(0x0020000E, foreign + b".1", family),
        element(0x00200011, "IS", b"%d " % number, family),
        element(0x00200013, "IS", b"%d " % number, family),
        swallowing(family),
    ])  # fmt: skip


def unlike(family: int) -> bytes:
    """Own UIDs that are as long as those in the values, or not."""
    return b"".join([
        element(0x00100020, "LO", b"P1", family),
        uid(0x0020000D, b"1.2.840.1", family),
        uid(0x0020000E, b"1.3.12.2.1107.5", family),
        element(0x00280010, "US", b"\1\0", family),
        element(0x7FE00010, "OW", bytes(64), family),
    ])  # fmt: skip


UNLIKE = OWN | {"StudyInstanceUID": b"1.2.840.1", "SeriesInstanceUID": b"1.3.12.2.1107.5"}


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("form", ["UN", "OB", "RE", "implicit"])
def test_no_value_takes_the_place_of_another_of_its_own_reading(family: int, form: str) -> None:
    """Study and Series UID of one way to read, while another has found others."""
    if form == "implicit":
        fault = implicit(0x00091001, inner(family), family)
    else:
        order = ">" if family == EXPLICIT_BE else "<"
        text = struct.pack(order + "L", 4) + b"abcd" + inner(family)
        fault = short(0x00091001, form.encode(), text, family)
    assert check(front(family) + fault + unlike(family), family).values == UNLIKE


@pytest.mark.parametrize("count", [1, 2, 5])
def test_legal_values_that_read_as_elements_and_whose_length_spells_a_vr(count: int) -> None:
    data = front(IMPLICIT_LE) + element(0x00090010, "LO", b"ACME", IMPLICIT_LE)
    for n in range(count):
        value = inner(IMPLICIT_LE, n + 1)
        data += implicit(0x00091001 + n, value + bytes(0x4144 - len(value)), IMPLICIT_LE)  # DA
    outcome = check(data + unlike(IMPLICIT_LE), IMPLICIT_LE)
    assert outcome.values == UNLIKE
    assert not outcome.truncated


@pytest.mark.parametrize("form", ["ZZ", "--", "OB", "implicit"])
@pytest.mark.parametrize("swallows", [False, True])
def test_an_unsorted_element_behind_a_fault(form: str, *, swallows: bool) -> None:
    """It makes the right way to read look wrong: what another one found is not told then."""
    family = EXPLICIT_LE
    foreign = uid(0x0020000D, b"1.9.9.9", family) + uid(0x0020000E, b"1.9.9.9.1", family)
    if swallows:
        foreign += element(0x00211001, "UN", b"", family, 0x7FFFFFFF)
    if form == "implicit":
        fault = implicit(0x00091001, foreign, family)
    else:
        text = struct.pack("<L", 4) + b"abcd" + foreign
        fault = short(0x00091001, form.encode(), text, family)
    data = front(family) + element(0x00090010, "LO", b"ACME", family) + fault
    data += element(0x00080060, "CS", b"CT", family) + own(family)
    values = check(data, family).values
    assert values.items() <= (OWN | {"Modality": b"CT"}).items()


# What is settled --------------------------------------------------------------------------------


def complete(family: int) -> bytes:
    return b"".join([
        uid(0x00080016, b"1.2.840.10008.5.1.4.1.1.2", family),
        uid(0x00080018, b"1.2.826", family),
        element(0x00080020, "DA", b"20240101", family),
        element(0x00080050, "SH", b"A1", family),
        element(0x00080060, "CS", b"CT", family),
        element(0x00100020, "LO", b"P1", family),
        uid(0x0020000D, b"1.2.3", family),
        uid(0x0020000E, b"1.2.3.1", family),
        element(0x00200011, "IS", b"1 ", family),
        element(0x00200013, "IS", b"1 ", family),
    ])  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strays", [[0xE00D], [0xE0DD], [0xE000], [0xE00D, 0xE0DD], [0xE0DD] * 3])
def test_a_stray_end_takes_nothing_back_that_is_settled(family: int, strays: list[int]) -> None:
    ends = b"".join(delimiter(number, 0, family) for number in strays)
    behind = element(0x7FE00010, "OW", bytes(64), family)
    data = complete(family) + ends + behind
    for cuts in ([], list(range(len(data)))):
        outcome = outcome_of(data, family, cuts)
        assert outcome.values == outcome_of(complete(family), family).values
        assert len(outcome.values) == 10


def test_nothing_is_settled_while_a_length_is_doubtful() -> None:
    family = EXPLICIT_LE
    whole = complete(family)
    study = element(0x0020000D, "UI", b"1.2.3\0", family)
    at = whole.index(study)
    tap = Tap(family)
    # One byte too many of its value: what follows begins in the middle of it.
    tap.feed(whole[:at] + study + b"\0" + whole[at + len(study) :])
    assert not tap.settled


# Values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", EXPLICIT)
@pytest.mark.parametrize("more", [-2, -1, 1, 2, 3])
def test_a_value_of_a_wrong_length_is_not_told(family: int, more: int) -> None:
    value = b"1.2.3.4.5.6.7.8.9.10"
    study = element(0x0020000D, "UI", value, family, len(value) + more)
    data = front(family) + element(0x00100020, "LO", b"P1", family) + study + own(family)[-120:]
    values = check(data, family).values
    assert values.get("StudyInstanceUID") in (None, b"1.2.3")


# Bounds ---------------------------------------------------------------------------------------


def test_more_ways_than_are_followed() -> None:
    """Each of them leaves a parse that skips for long; what differs then is not told."""
    family = EXPLICIT_LE
    data = front(family)
    for n in range(20):
        head = struct.pack("<HH2sHL", 0x0009, 0x1001 + n, b"UN", 4, 0x40000000)
        data += head
    outcome = check(data + own(family), family)
    assert outcome.values.items() <= OWN.items()


@pytest.mark.parametrize(
    "piece",
    [
        struct.pack("<HH2sH", 0x0009, 0x1001, b"--", 0),
        struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 4, 0),
        element(0x00091001, "UN", b"", EXPLICIT_LE, UNDEFINED),
        element(0x00091001, "LO", b"", EXPLICIT_LE),
        delimiter(0xE0DD, 0, EXPLICIT_LE),
    ],
    ids=["vr", "reserved", "un", "empty", "ends"],
)
def test_a_doubt_at_every_header_costs_no_more_than_time_for_each_byte(piece: bytes) -> None:
    """Four times the bytes: some four times the CPU time."""

    def cost(times: int) -> float:
        data = front(EXPLICIT_LE) + piece * times
        best = float("inf")
        for _ in range(3):
            tap = Tap(EXPLICIT_LE)
            began = time.process_time()
            tap.feed(data)
            best = min(best, time.process_time() - began)
            tap.end()
        return best

    cost(1000)
    assert cost(200_000) < 12 * cost(50_000) + 0.02


def test_a_slice_of_all_but_4_gib_with_bytes_to_read_again() -> None:
    """What is left of the slice and what is read again are more than 32 bits tell."""
    family = EXPLICIT_LE
    fault = struct.pack("<HH2sH", 0x0009, 0x1001, b"UN", 0)
    data = front(family) + element(0x00090010, "LO", b"ACME", family)
    first = len(data) + len(fault) + 3  # all but one byte of a long header
    # As a length, the tag behind it leads to nearly the end.
    data += fault + element(0x0009FFFF, "LO", b"AB", family) + own(family)[:-76]
    length = 0xFFFFFFFF - (len(data) + 12 - first)
    data += struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, length)
    # Of the pages only the first one is touched.
    with mmap.mmap(-1, 0xFFFFFFFF, flags=mmap.MAP_PRIVATE) as memory:
        memory[: len(data) - first] = data[first:]
        tap = Tap(family)
        tap.feed(data[:first])
        tap.feed(memory)
        tap.end()
    assert tap.values() == OWN


def test_the_outcome_does_not_hang_on_cuts_while_several_ways_are_followed() -> None:
    family = EXPLICIT_LE
    gap = element(0x00100010, "PN", b"A^B ", family) + element(0x00100020, "LO", b"P1", family)
    data = front(family) + short(0x00091001, b"UN", b"abcd", family) + gap
    data += implicit(0x00101002, b"implicit", family)
    data += element(0x00101010, "AS", b"040Y", family) + element(0x00101020, "DS", b"", family)
    data += long(0x00101030, b"US", b"\1\0", family) + own(family)[10:]
    whole = outcome_of(data, family)
    assert whole.values == OWN
    for cut in range(1, len(data)):
        assert outcome_of(data, family, [cut]) == whole

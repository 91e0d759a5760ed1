"""Two faults at once: the level is a guess, and what follows it has to show whose the UIDs are.

Where nothing shows it no UIDs are told. The foreign ones here are an item's, and the instance has
none of its own, or they were read over.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from fastscp_ext.dataset.tap import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Tap
from tests.reference_tap import UNDEFINED
from tests.unit.test_tap import check, delimiter, element, sequence, uid
from tests.unit.test_tap_faults import implicit

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]
OWN = {"StudyInstanceUID": b"1.2.3", "SeriesInstanceUID": b"1.2.3.1"}


def places(root: str, family: int) -> bytes:
    study = uid(0x0020000D, root.encode(), family)
    return study + uid(0x0020000E, f"{root}.1".encode(), family)


def front(family: int) -> bytes:
    return element(0x00080005, "CS", b"ISO_IR 100", family) + uid(0x00080018, b"1.2.826", family)


def image(family: int) -> bytes:
    pixels = element(0x7FE00010, "OW", b"\x11\x22" * 64, family)
    return element(0x00280010, "US", b"\0\1", family) + pixels


def opened(tag: int, family: int) -> bytes:
    return element(tag, "SQ", b"", family, UNDEFINED)


def item(family: int) -> bytes:
    return delimiter(0xE000, UNDEFINED, family)


def ends(family: int) -> bytes:
    return delimiter(0xE00D, 0, family) + delimiter(0xE0DD, 0, family)


def reference(family: int) -> bytes:
    return uid(0x00081155, b"1.9.9", family)


def found(data: bytes, family: int) -> dict[str, bytes]:
    values = check(data, family).values
    return {keyword: values[keyword] for keyword in OWN if keyword in values}


# Items of an item's study, and nothing of the instance's own ------------------------------------


def without_a_start(family: int) -> bytes:
    """An item without a start, and neither end."""
    return opened(0x00081110, family) + reference(family) + places("1.9", family)


def behind_an_extra_end(family: int) -> bytes:
    """A sequence end in the middle of an item that has no end of its own."""
    body = opened(0x00081110, family) + item(family) + reference(family)
    return body + delimiter(0xE0DD, 0, family) + places("1.9", family)


def with_a_patient(family: int) -> bytes:
    patient = element(0x00100020, "LO", b"P9", family)
    return opened(0x00081110, family) + reference(family) + patient + places("1.9", family)


def behind_a_lost_header(family: int) -> bytes:
    """In an item, a sequence whose header is lost: its ends seem to be the outer one's."""
    body = opened(0x00081110, family) + item(family) + reference(family)
    return body + item(family) + reference(family) + ends(family) + places("1.9", family)


def behind_two_levels_that_end_early(family: int) -> bytes:
    """The end of the inner level shows that it was left, nothing that the outer one was."""
    inner = opened(0x00081140, family) + item(family) + reference(family)
    body = opened(0x00081110, family) + item(family) + inner + ends(family) * 2
    return body + places("1.8", family) + ends(family) + places("1.9", family)


CUT = (
    without_a_start, behind_an_extra_end, with_a_patient, behind_a_lost_header,
    behind_two_levels_that_end_early,
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", CUT)
@pytest.mark.parametrize("more", ["nothing", "purpose", "description"])
def test_an_items_uids_are_not_the_instances(
    family: int, shape: Callable[[int], bytes], more: str
) -> None:
    """The data set ends in that item, behind its UIDs or behind what else references hold."""
    purpose = element(0x0040A170, "SQ", b"", family)
    behind = {"nothing": b"", "purpose": purpose, "description": image(family)[:10]}[more]
    assert found(front(family) + shape(family) + behind, family) == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [without_a_start, behind_an_extra_end, with_a_patient])
def test_an_image_behind_them_proves_nothing(family: int, shape: Callable[[int], bytes]) -> None:
    data = front(family) + shape(family) + image(family)
    assert found(data, family) == {}
    # Nor is anything told before the end.
    tap = Tap(family)
    tap.feed(data)
    assert not OWN.keys() & tap.values().keys()


# What proves a level ----------------------------------------------------------------------------


def report(family: int) -> bytes:
    flags = element(0x0040A491, "CS", b"COMPLETE", family)
    content = [element(0x0040A040, "CS", b"TEXT", family)]
    return flags + sequence(0x0040A730, content, family)


def structures(family: int) -> bytes:
    return element(0x30060002, "SH", b"RTSTRUCT", family)


def plan(family: int) -> bytes:
    return element(0x300A0002, "SH", b"PLAN", family)


def presentation(family: int) -> bytes:
    return element(0x00700082, "DA", b"20240229", family)


def document(family: int) -> bytes:
    return element(0x00420011, "OB", b"%PDF", family)


ABOUT = [image, report, structures, plan, presentation, document]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("name", ["patient", "number"])
@pytest.mark.parametrize("fault", ["no items", "no item end", "two items"])
def test_what_goes_on_where_the_sequence_stood_is_the_instances(
    family: int, about: Callable[[int], bytes], name: str, fault: str
) -> None:
    body = {
        "no items": b"",
        "no item end": item(family) + reference(family) + delimiter(0xE0DD, 0, family),
        "two items": (item(family) + reference(family)) * 2 + ends(family),
    }[fault]
    patient = element(0x00100020, "LO", b"P1", family) if name == "patient" else b""
    number = element(0x00200013, "IS", b"1 ", family) if name == "number" else b""
    data = front(family) + opened(0x00081110, family) + body + patient
    data += places("1.2.3", family) + number + about(family)
    assert found(data, family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("about", ABOUT)
def test_a_cut_behind_what_the_instance_is_about(
    family: int, about: Callable[[int], bytes]
) -> None:
    """In a later sequence: that one before was read at its right level, for no item holds this."""
    data = front(family) + sequence(0x00081111, [reference(family)], family)
    data += element(0x00100020, "LO", b"P1", family) + places("1.2.3", family) + about(family)
    assert found(data + opened(0x7FE11010, family) + item(family), family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["patient", "nothing"])
def test_the_order_of_tags_shows_that_an_item_has_ended(family: int, name: str) -> None:
    """An item's tags ascend: what is behind its last one, and behind the sequence, is not in it."""
    body = item(family) + places("1.9", family) + delimiter(0xE0DD, 0, family)
    patient = element(0x00100020, "LO", b"P1", family) if name == "patient" else b""
    data = front(family) + opened(0x00081110, family) + body + patient + places("1.2.3", family)
    assert found(data, family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_found_before_a_guess_stays(family: int) -> None:
    data = front(family) + places("1.2.3", family) + opened(0x00291010, family)
    assert found(data + reference(family) + places("1.9", family)[:-8], family) == OWN


# Zeros ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zeros", [8, 12, 16, 24, 600])
@pytest.mark.parametrize("behind", ["image", "nothing"])
def test_zeros_lead_into_no_item(family: int, zeros: int, behind: str) -> None:
    """A value too long ends among the zeros of an item, and its elements follow them."""
    inside = element(0x00091010, "OB", bytes(zeros), family)
    body = inside + places("1.9", family)
    whole = sequence(0x00091011, [body], family, defined=True)
    over = len(whole) - len(body) + len(inside) - zeros
    data = front(family) + element(0x00090010, "OB", b"abcd", family, 4 + over) + whole
    assert found(data + (image(family) if behind == "image" else b""), family) == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zeros", [8, 24])
def test_zeros_between_elements_are_read_past(family: int, zeros: int) -> None:
    data = front(family) + bytes(zeros) + element(0x00100020, "LO", b"P1", family)
    assert found(data + places("1.2.3", family) + image(family), family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_behind_the_last_element_take_nothing_back(family: int) -> None:
    data = front(family) + sequence(0x00081140, [reference(family)], family)
    data += places("1.2.3", family) + element(0x00200013, "IS", b"1 ", family)
    assert found(data + bytes(8), family) == OWN


# Texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_a_text_that_leads_into_an_item_of_defined_length(
    family: int, *, before: bool, last: bool
) -> None:
    """No end shows it, but no text holds the start of an item."""
    body = places("1.9", family) + element(0x00400007, "LO", b"x ", family)
    read_over = places("1.2.3", family) + element(0x00291140, "SQ", b"", family, len(body) + 8)
    read_over += delimiter(0xE000, len(body), family)
    data = front(family)
    if before:
        data += sequence(0x00081140, [reference(family)], family)
    data += element(0x00181030, "LO", b"protocol", family, 8 + len(read_over)) + read_over + body
    data += image(family)
    if last:
        data += element(0x7FE10010, "LO", b"ACME", family)
    assert found(data, family) == {}
    tap = Tap(family)
    tap.feed(data)
    tap.end()
    assert (tap.stopped, tap.stop_tag) == (True, 0x00181030)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vr", ["OB", "UN", "FD"])
def test_bytes_may_hold_the_start_of_an_item(family: int, vr: str) -> None:
    value = b"12345678" + delimiter(0xE000, 8, family) + places("1.9", family)
    value += bytes(-len(value) % 8)
    tag = 0x00189087 if vr == "FD" else 0x00191010
    for before in (b"", sequence(0x00081140, [reference(family)], family)):
        data = front(family) + before + element(tag, vr, value, family)
        assert found(data + places("1.2.3", family) + image(family), family) == OWN


# The first element ------------------------------------------------------------------------------

SPELLED = [b"LO\1\0", b"DA\2\0", b"UI\4\0", b"OB\0\0", b"PN\6\0", b"OW\4\0", b"SQ\1\0"]


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("fill", ["zeros", "elements"])
def test_a_long_first_element_whose_length_spells_a_vr(spelled: bytes, fill: str) -> None:
    family = IMPLICIT_LE
    (length,) = struct.unpack("<L", spelled)
    value = bytes(length)
    if fill == "elements":
        value = (places("1.9", EXPLICIT_LE) + value)[:length]
    data = implicit(0x00080005, value, family) + uid(0x00080018, b"1.2.826", family)
    data += element(0x00100020, "LO", b"P1", family) + places("1.2.3", family) + image(family)
    tap = Tap(family)
    tap.feed(data)
    tap.end()
    assert {keyword: tap.values().get(keyword) for keyword in OWN} == OWN
    assert (tap.syntax, tap.sniffed, tap.stopped, tap.truncated) == (family, False, False, False)


@pytest.mark.parametrize("family", [EXPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize("size", [200, 700_000])
def test_an_explicit_data_set_that_is_called_implicit(family: int, size: int) -> None:
    """Its first element reads as one of some 660 KiB."""
    data = front(family) + element(0x00100020, "LO", b"P1", family) + places("1.2.3", family)
    data += element(0x7FE00010, "OW", b"\x11\x22" * (size // 2), family)
    tap = Tap(IMPLICIT_LE)
    tap.feed(data)
    tap.end()
    assert {keyword: tap.values().get(keyword) for keyword in OWN} == OWN
    assert (tap.syntax, tap.sniffed, tap.stopped, tap.truncated) == (family, True, False, False)

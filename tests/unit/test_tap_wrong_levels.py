"""Where a length leads into an item: what is found there is not the instance's."""

from __future__ import annotations

import pytest

from fastscp_ext.dataset.tap import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Tap
from tests.reference_tap import UNDEFINED
from tests.unit.test_tap import check, delimiter, element, sequence, uid

FAMILIES = [IMPLICIT_LE, EXPLICIT_LE]
ALL_FAMILIES = [*FAMILIES, EXPLICIT_BE]
OWN = {"StudyInstanceUID": b"1.2.3", "SeriesInstanceUID": b"1.2.3.1"}


def places(root: str, family: int) -> bytes:
    study = uid(0x0020000D, root.encode(), family)
    return study + uid(0x0020000E, f"{root}.1".encode(), family)


def image(family: int) -> bytes:
    pixels = element(0x7FE00010, "OW", b"\x11\x22" * 64, family)
    return element(0x00280010, "US", b"\0\1", family) + pixels


def found(data: bytes, family: int) -> dict[str, bytes]:
    values = check(data, family).values
    return {keyword: values[keyword] for keyword in OWN if keyword in values}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("behind", ["sequence", "empty sequence", "pixels", "nothing"])
@pytest.mark.parametrize("defined", [False, True])
def test_a_value_that_leads_into_an_item(family: int, behind: str, *, defined: bool) -> None:
    """An end shows it, also behind a sequence or pixel data of that item."""
    last = {
        "sequence": sequence(0x00400275, [element(0x00400007, "LO", b"x ", family)], family),
        "empty sequence": element(0x00400275, "SQ", b"", family),
        "pixels": element(0x7FE00010, "OW", b"abcd", family),
        "nothing": b"",
    }[behind]
    body = places("1.9", family) + last
    size = len(body) if defined else UNDEFINED
    read_over = places("1.2.3", family) + element(0x00291140, "SQ", b"", family, UNDEFINED)
    read_over += delimiter(0xE000, size, family)
    data = uid(0x00080018, b"1.2.826", family)
    length = 8 + len(read_over)
    data += element(0x00181030, "LO", b"protocol", family, length) + read_over + body
    if not defined:
        data += delimiter(0xE00D, 0, family)
    data += delimiter(0xE0DD, 0, family) + image(family)
    if family == IMPLICIT_LE and defined and behind == "empty sequence":
        assert "1.9" not in str(found(data, family))
    else:
        assert found(data, family) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_items_that_leave_out_their_last_elements(family: int) -> None:
    """All of them: the next sequence cannot be read, and what is found until then is an item's."""

    def items(count: int) -> tuple[bytes, int]:
        reference = uid(0x00081155, b"1.9.9", family)
        item = delimiter(0xE000, len(reference), family) + reference + places("1.9", family)
        return item * count, count * len(places("1.9", family))

    data = uid(0x00080018, b"1.2.826", family)
    for tag, count in ((0x00081110, 1), (0x00081140, 2)):
        body, left_out = items(count)
        data += element(tag, "SQ", body, family, len(body) - left_out)
    assert found(data + places("1.2.3", family) + image(family), family) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_proves_nothing_before_an_image(family: int) -> None:
    """A sequence that ends early, and a cut in the next one."""
    early = delimiter(0xE000, UNDEFINED, family) + uid(0x00081155, b"1.9.9", family)
    early += delimiter(0xE00D, 0, family) + delimiter(0xE0DD, 0, family)
    data = uid(0x00080018, b"1.2.826", family)
    data += element(0x00081110, "SQ", b"", family, UNDEFINED) + early + places("1.9", family)
    data += element(0x00081140, "SQ", b"", family, UNDEFINED)
    data += delimiter(0xE000, UNDEFINED, family) + uid(0x00081155, b"1.9.9", family)
    assert found(data, family) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_in_the_pixel_data_takes_nothing_back(family: int) -> None:
    data = uid(0x00080018, b"1.2.826", family)
    data += sequence(0x00081140, [places("1.9", family)], family) + places("1.2.3", family)
    assert found((data + image(family))[:-40], family) == OWN


@pytest.mark.parametrize("tag", [0x00189087, 0x00189089, 0x00186030])
@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_that_begin_like_an_item(tag: int, family: int) -> None:
    number = bytes.fromhex("feff00e07f854040")
    data = uid(0x00080018, b"1.2.826", family) + element(tag, "UN", number, family)
    data += places("1.2.3", family) + image(family)
    assert found(data, family) == OWN
    assert not check(data, family).stopped


@pytest.mark.parametrize("more", range(0, 16, 2))
@pytest.mark.parametrize("inside", [False, True])
def test_zeros_are_no_elements(more: int, *, inside: bool) -> None:
    """The literal way of an explicit element in an implicit data set ends among them."""
    family = IMPLICIT_LE
    front = uid(0x00080018, b"1.2.826", family)
    zeros = bytes(600_000 + more)
    data = front + element(0x00081030, "LO", b"desc", EXPLICIT_LE)
    data += element(0x00100020, "LO", b"P1", family) + places("1.2.3", family)
    if inside:
        item = front + element(0x00091010, "OB", zeros, family) + places("1.9", family)
        item += element(0x00280010, "US", b"\0\1", family)
        whole = delimiter(0xE000, len(item), family) + item
        data += element(0x00291010, "SQ", whole, family) + image(family)
    else:
        data += element(0x7FE00010, "OW", zeros, family)
    tap = Tap(family)
    tap.feed(data)
    tap.end()
    assert {key: tap.values().get(key) for key in OWN} == OWN


# Where tags begin anew --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("front", ["", "sequence", "first"])
def test_what_stands_in_pixel_data_that_claim_to_be_empty(family: int, front: str) -> None:
    reference = sequence(0x00081140, [uid(0x00081155, b"1.9.9", family)], family)
    inside = uid(0x00080018, b"1.9.8", family) + places("1.9", family)
    inside += element(0x00200013, "IS", b"9 ", family)
    if front == "first":
        inside = reference + inside
    pixels = element(0x7FE00010, "OW", inside, family, 0)
    before = uid(0x00080018, b"1.2.826", family) + (reference if front == "sequence" else b"")
    assert check(before + pixels, family).values == {"SOPInstanceUID": b"1.2.826"}
    # What stood in front of them is the instance's, and nothing there contradicts it.
    assert found(before + places("1.2.3", family) + pixels, family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_pixel_data_in_an_unsorted_data_set(family: int) -> None:
    data = uid(0x00080018, b"1.2.826", family) + element(0x00280010, "US", b"\0\1", family)
    data += element(0x00100020, "LO", b"P1", family) + element(0x7FE00010, "OW", b"", family)
    assert found(data + places("1.2.3", family), family) == OWN


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("patient", [False, True])
def test_an_end_behind_pixel_data_where_tags_begin_anew(family: int, *, patient: bool) -> None:
    """An item too short by some elements and the end of a sequence: the end of its own one.

    patient: it names one, so that it looks like the data set itself.
    """
    rest = element(0x00100020, "LO", b"P9", family) if patient else b""
    rest += uid(0x0020000E, b"1.9.1", family)
    rest += element(0x00200011, "IS", b"9 ", family) + image(family)
    nested = sequence(0x00081140, [uid(0x00081155, b"1.9.9", family)], family)
    size = len(nested) - 8
    data = uid(0x00080018, b"1.2.826", family)
    data += element(0x00081250, "SQ", b"", family, UNDEFINED)
    data += delimiter(0xE000, size, family) + nested + rest + delimiter(0xE0DD, 0, family)
    data += element(0x00100020, "LO", b"P1", family) + places("1.2.3", family)
    data += element(0x00200013, "IS", b"1 ", family) + image(family)
    values = check(data, family).values
    if patient:
        assert "SeriesInstanceUID" not in values
        assert "PatientID" not in values
        return
    assert values.items() >= OWN.items()
    assert (values["PatientID"], values.get("SeriesNumber")) == (b"P1", None)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_end_behind_pixel_data_at_the_end_says_nothing(family: int) -> None:
    data = uid(0x00080018, b"1.2.826", family)
    data += sequence(0x00081140, [places("1.9", family)], family) + places("1.2.3", family)
    data += image(family) + delimiter(0xE0DD, 0, family)
    assert found(data + element(0xFFFCFFFC, "OB", bytes(8), family), family) == OWN


# Values too short for their items ---------------------------------------------------------------


@pytest.mark.parametrize("shown", [8, 30])
@pytest.mark.parametrize("behind", ["nothing", "image", "own"])
def test_a_value_that_holds_the_first_bytes_of_its_item_only(shown: int, behind: str) -> None:
    """Where the item ends as it says, what stands behind the value is in it."""
    family = IMPLICIT_LE
    inside = element(0x00081150, "UI", bytes(14), family) + places("1.9", family)
    value = delimiter(0xE000, len(inside), family) + inside
    data = uid(0x00080018, b"1.2.826", family)
    data += element(0x00091010, "UN", value, family, shown)
    patient = element(0x00100020, "LO", b"P1", family)
    own = patient + places("1.2.3", family) + image(family)
    data += {"nothing": b"", "image": patient + image(family), "own": own}[behind]
    assert found(data, family) == (OWN if behind == "own" else {})


@pytest.mark.parametrize("kind", ["empty", "items", "bytes", "bytes behind a sequence"])
def test_a_value_that_ends_behind_an_items_header(kind: str) -> None:
    family = EXPLICIT_LE if kind == "bytes" else IMPLICIT_LE
    reference = sequence(0x00081140, [uid(0x00081155, b"1.9.9", family)], family)
    inside = places("1.9", family) + element(0x00400007, "LO", b"x ", family)
    header = element(0x00291140, "SQ", b"", family, 8 + len(inside))
    header += delimiter(0xE000, len(inside), family)
    body = {
        "empty": b"",
        "items": delimiter(0xE000, UNDEFINED, family) + delimiter(0xE000, 0, family) * 2
        + delimiter(0xE00D, 0, family),
        "bytes": b"abcd", "bytes behind a sequence": b"\1\2\3\4",
    }[kind]  # fmt: skip
    data = uid(0x00080018, b"1.2.826", family)
    if kind == "bytes behind a sequence":
        data += reference
    tag, vr = (0x00091010, "OB") if kind.startswith("bytes") else (0x00081115, "SQ")
    data += element(tag, vr, body, family, len(body) + len(header)) + header + inside
    assert found(data, family) == {}
    assert found(data + image(family), family) == {}


@pytest.mark.parametrize("length", [7, 9, 400])
def test_an_item_that_ends_nowhere_is_none(length: int) -> None:
    family = IMPLICIT_LE
    data = uid(0x00080018, b"1.2.826", family)
    data += element(0x00091010, "UN", delimiter(0xE000, length, family), family)
    assert found(data + places("1.2.3", family) + image(family), family) == OWN


def bytes_before(value: bytes, family: int) -> bytes:
    """A private value in front of the instance's UIDs, which an item in it would end between."""
    data = uid(0x00080018, b"1.2.826", family) + element(0x00191010, "OB", value, family)
    return data + places("1.2.3", family) + image(family)


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("inside", [b"", bytes.fromhex("000000fe")], ids=["nothing", "number"])
@pytest.mark.parametrize("front", ["zeros", "text", "end", "sequence that ends elsewhere"])
def test_an_item_without_a_sequence_is_none(family: int, front: str, inside: bytes) -> None:
    """Legal: the bytes of a private value are its own, wherever they lead by chance."""
    size = len(inside) + len(uid(0x0020000D, b"1.2.3", family))
    value = {
        "zeros": bytes(20),
        "text": b"ISO_IR 100 and so on",
        "end": bytes(4) + delimiter(0xE0DD, 0, family),
        "sequence that ends elsewhere": element(0x00191011, "SQ", b"", family, size + 10),
    }[front]
    value += delimiter(0xE000, size, family) + inside
    assert found(bytes_before(value, family), family) == OWN


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("cut", [None, 4, 20])
def test_a_value_that_ends_behind_the_header_of_a_later_item(
    family: int, count: int, cut: int | None
) -> None:
    """Its sequence ends with it, as the length says that stands in front of the first one."""
    item = uid(0x00081155, b"1.9.9", family)
    item = delimiter(0xE000, len(item), family) + item
    inside = places("1.9", family)
    value = element(0x00191011, "SQ", b"", family, count * len(item) + 8 + len(inside))
    value = bytes(12) + value + count * item + delimiter(0xE000, len(inside), family)
    data = uid(0x00080018, b"1.2.826", family) + element(0x00191010, "OB", value, family)
    cuts = None if cut is None else [len(data) - 8 - cut, len(data) - 8]
    assert check(data + inside + image(family), family, cuts).values == {
        "SOPInstanceUID": b"1.2.826"
    }


def test_an_item_that_a_delimiter_follows() -> None:
    """No legal data set has one there: whatever stands in front of the item, it is one."""
    family = IMPLICIT_LE
    nested = sequence(0x00081140, [uid(0x00081155, b"1.9.9", family)], family)
    inside = places("1.9", family) + nested
    header = element(0x00191011, "SQ", b"", family, UNDEFINED)
    header += delimiter(0xE000, len(inside), family)
    data = uid(0x00080018, b"1.2.826", family) + nested
    data += element(0x00191010, "OB", bytes(12) + header, family)
    data += inside + delimiter(0xE0DD, 0, family) + image(family)
    assert found(data, family) == {}


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_an_item_by_chance_does_not_hide_another_one(family: int) -> None:
    inside = places("1.9", family)
    value = element(0x00191011, "SQ", b"", family, 16 + len(inside) + 8)
    value += delimiter(0xE000, len(inside) + 16, family)
    value += element(0x00191012, "SL", delimiter(0xE000, 400, family), family)
    data = uid(0x00080018, b"1.2.826", family)
    data += element(0x00191010, "OB", bytes(12) + value, family)
    assert found(data + inside + image(family), family) == {}


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("behind", ["later", "image"])
@pytest.mark.parametrize("other", ["1.9", "1.2.3"])
def test_a_value_that_leads_to_the_end_of_an_item_in_an_item(
    family: int, behind: str, other: str
) -> None:
    """The rest of the outer item goes on like the data set, whose own image may follow it."""
    reference = sequence(0x00081140, [uid(0x00081155, b"1.9.9", family)], family)
    over = element(0x00081115, "SQ", b"", family, UNDEFINED)
    over += delimiter(0xE000, UNDEFINED, family) + delimiter(0xE00D, 0, family)
    rest = delimiter(0xE0DD, 0, family) + places(other, family)
    rest += element(0x00200013, "IS", b"9 ", family)
    if behind == "later":
        rest += element(0x00400244, "DA", b"19990101", family)
    item = delimiter(0xE000, len(over + rest), family)
    front = element(0x00209171, "SQ", b"", family, len(item + over + rest)) + item + over
    data = uid(0x00080018, b"1.2.826", family) + reference
    # Patient and UIDs are the instance's own.
    data += element(0x00100020, "LO", b"P1", family) + places("1.2.3", family)
    data += element(0x00209128, "US", b"87" + front, family, 2 + len(front)) + rest
    data += image(family) if behind == "image" else b""
    assert found(data, family) == (OWN if other == "1.2.3" else {})

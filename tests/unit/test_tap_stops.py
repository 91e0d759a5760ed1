"""What the tap says of a data set besides its values: where reading stopped, and the pixel data."""

from __future__ import annotations

from typing import Final

import pytest

from fastscp_ext.dataset.tap import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PIXELS_ENCAPSULATED,
    PIXELS_NATIVE,
    PIXELS_NONE,
    Tap,
)
from tests.reference_tap import UNDEFINED
from tests.unit.test_tap import delimiter, element, pixels, sequence, uid

FAMILIES = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]


def read(data: bytes, family: int) -> Tap:
    """Fed whole; fed byte by byte it says the same."""
    whole, cut = Tap(family), Tap(family)
    whole.feed(data)
    whole.end()
    for at in range(len(data)):
        cut.feed(data[at : at + 1])
    cut.end()
    assert (cut.stopped, cut.stop_tag, cut.stop_at) == (
        whole.stopped,
        whole.stop_tag,
        whole.stop_at,
    )
    assert (cut.pixels, cut.values()) == (whole.pixels, whole.values())
    return whole


def front(family: int) -> bytes:
    return element(0x00080005, "CS", b"ISO_IR 100", family) + uid(0x00080018, b"1.2", family)


def studied(family: int) -> bytes:
    return uid(0x0020000D, b"1.2.3", family) + uid(0x0020000E, b"1.2.3.1", family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("found", [False, True])
def test_an_item_in_front_of_no_sequence(family: int, found: bool) -> None:
    """Also where the UIDs were found before."""
    before = front(family) + (studied(family) if found else b"")
    tap = read(before + delimiter(0xE000, 4, family) + b"abcd", family)
    assert tap.stopped
    assert (tap.stop_tag, tap.stop_at) == (0xFFFEE000, len(before))


@pytest.mark.parametrize("family", [EXPLICIT_LE, EXPLICIT_BE])
def test_a_sequence_that_holds_no_items_is_named_itself(family: int) -> None:
    data = front(family) + element(0x00081115, "SQ", b"these are no items", family)
    tap = read(data + studied(family), family)
    assert tap.stopped
    assert (tap.stop_tag, tap.stop_at) == (0x00081115, len(front(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_stop_has_no_place(family: int) -> None:
    tap = read(front(family) + studied(family), family)
    assert (tap.stopped, tap.stop_tag, tap.stop_at) == (False, 0, 0)


def test_what_is_no_data_set_stops_at_its_first_byte() -> None:
    tap = read(b"\xff\xd8\xff\xe0\0\x10JFIF", EXPLICIT_LE)
    assert (tap.stopped, tap.stop_tag, tap.stop_at) == (True, 0xD8FFE0FF, 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009, 0x7FE00010])
def test_native_pixel_data(family: int, tag: int) -> None:
    data = front(family)
    assert read(data, family).pixels == PIXELS_NONE
    data += studied(family) + element(tag, "OW", bytes(40), family)
    assert read(data, family).pixels == PIXELS_NATIVE
    assert read(data + element(0xFFFCFFFC, "OB", b"", family), family).pixels == PIXELS_NATIVE


@pytest.mark.parametrize("family", FAMILIES)
def test_encapsulated_pixel_data(family: int) -> None:
    data = front(family) + studied(family) + pixels([b"abcd"], family)
    assert read(data, family).pixels == PIXELS_ENCAPSULATED
    # Without a fragment it is not known to be encapsulated.
    bare = element(0x7FE00010, "OB", delimiter(0xE0DD, 0, family), family, UNDEFINED)
    assert read(front(family) + bare, family).pixels == PIXELS_NONE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("icon", [PIXELS_NATIVE, PIXELS_ENCAPSULATED])
def test_an_icon_is_not_the_pixel_data(family: int, icon: int) -> None:
    inside = pixels([b"ab"], family)
    if icon == PIXELS_NATIVE:
        inside = element(0x7FE00010, "OW", b"ab", family)
    data = front(family) + sequence(0x00880200, [inside], family)
    assert read(data, family).pixels == PIXELS_NONE
    native = element(0x7FE00010, "OW", bytes(40), family)
    assert read(data + native, family).pixels == PIXELS_NATIVE
    assert read(data + pixels([b"a"], family), family).pixels == PIXELS_ENCAPSULATED


@pytest.mark.parametrize("family", FAMILIES)
def test_pixel_data_of_a_reading_that_falls(family: int) -> None:
    """A sequence end that ends nothing, and in the item behind it an icon."""
    stray = element(0x00081115, "SQ", b"", family) + delimiter(0xE0DD, 0, family)
    opening = element(0x00081200, "SQ", delimiter(0xE000, UNDEFINED, family), family, UNDEFINED)
    icon = element(0x7FE00010, "OW", b"ab", family)
    data = front(family) + opening + stray + icon + delimiter(0xE00D, 0, family)
    tap = read(data + delimiter(0xE0DD, 0, family) + studied(family), family)
    assert tap.pixels == PIXELS_NONE
    assert tap.values()["StudyInstanceUID"] == b"1.2.3"


# Implicit VR Little Endian with several faults; the last value has an item that cannot be one.
BROKEN: Final = bytes.fromhex(
    # (0008,0016), its value cut short
    "08 00 16 00 06 00 00 00 31 2e 32 2e 33 33 20 00"
    # a header that leads nowhere, and the start of an item
    "11 00 9e 00 00 00 fe ff 00 e0 ff ff"
    # (0008,1150) without its end: a text
    "ff ff 08 00 50 11 18 00 00 00 41 42 42 43 43 43 20 41 42 20 5e 42 43 43 20 43 43 5e"
    "41 42 20 43 20 20"
    # (0010,0020), an item inside
    "10 00 20 00 1a 00 00 00 fe ff 00 e0 ff ff ff ff"
    # zeros
    "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    # (0020,000D) with marks for a value, (0020,000E) with a text
    "20 00 0d 00 08 00 00 00 ff fe e0 00 ff fe e0 00 20 00 0e 00 12 00 00 00 43 41 42 5e"
    "20 43 5e 5e 41 43 43 41 42 43 41 43 41 00"
    # (0028,0010), too short
    "28 00 10 00 06 00 00 00 31 2e 32 2e 32 35"
    # (7FE0,0010): the end of an item inside
    "e0 7f 10 00 0c 00 00 00 fe fe fe fe fe fe fe fe fe fe fe fe fe ff 0d e0 00 00 00 00"
    # (7FE0,0010) without a value, (0008,1140)
    "e0 7f 10 00 00 00 00 00 08 00 40 11"
    # (0009,0010), binary
    "ff ff ff ff 09 00 10 00 26 00 00 00 f7 0c 49 c9 d7 46 ff f1 79 ef 3a 91 5f b1 d0 ad"
    "95 08 32 91 0d 7d 4e 31 4f f6 8a e2 29 73 48 af 1e 4d 62 1c dc 00"
    # (0008,0005), the start of an item that is longer than the value
    "08 00 05 00 0a 00 00 00 fe ff 00 e0 00 00 10 00 00 00"
)


def test_what_is_known_does_not_depend_on_cuts() -> None:
    whole = read(BROKEN, IMPLICIT_LE)
    for cut in range(1, len(BROKEN)):
        tap = Tap(IMPLICIT_LE)
        tap.feed(BROKEN[:cut])
        tap.feed(BROKEN[cut:])
        tap.end()
        assert (tap.pixels, tap.stopped, tap.stop_at) == (
            whole.pixels,
            whole.stopped,
            whole.stop_at,
        )

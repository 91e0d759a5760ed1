"""What is told of a data set that is not read to its end, or is not what its label says."""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Final

import pytest

from fastscp_ext import Tap, encoding_of
from tests.kit import (
    BIG,
    DEFLATED,
    ELE,
    ILE,
    SERIES,
    STUDY,
    data_set,
    element,
    message,
    path_of,
    store_rq,
)
from tests.unit.test_embedded import CONTEXT_OF, encapsulated, without_pixels
from tests.unit.test_receiver import JPEG, PRIVATE_SYNTAX, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

# An item where no sequence is: nothing says what it belongs to.
ITEM: Final = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
JFIF: Final = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1" * 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


def where(data: bytes, syntax: str = ELE) -> tuple[int, int]:
    """The tag and the byte where the tap stops."""
    tap = Tap(encoding_of(syntax.encode())[0])
    tap.feed(data)
    tap.end()
    assert tap.stopped
    return tap.stop_tag, tap.stop_at


def in_words(place: tuple[int, int]) -> str:
    tag, at = place
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) at byte {at}"


def broken(syntax: str = ELE) -> bytes:
    """Nothing is read behind the SOP Instance UID."""
    whole = data_set(syntax)
    at = whole.index(struct.pack("<HH", 0x0008, 0x0020))
    return whole[:at] + ITEM + whole[at:]


@pytest.mark.parametrize("fragment", [1, 7, 16000])
def test_where_reading_stopped_is_told_to_the_sender(site: Site, fragment: int) -> None:
    data = broken()
    one = site.associate()
    site.feed(one, message(store_rq(), data, fragment=fragment))
    (response,) = one.responses()
    assert response.status == 0xC000
    assert response.error_comment == f"cannot be read past {in_words(where(data))}"
    assert re.fullmatch(
        r"cannot be read past \([0-9A-F]{4},[0-9A-F]{4}\) at byte \d+", response.error_comment
    )
    # First what could not be read past, then what was not found for it.
    assert response.offending_elements == (where(data)[0], 0x0020000D, 0x0020000E)
    assert one.settled[0][4] == response.error_comment
    assert site.shared.rows.by_status()[(0xC000, "cannot be read past")][2] == 1


def test_what_was_found_is_not_offending(site: Site) -> None:
    whole = data_set()
    at = whole.index(struct.pack("<HH", 0x0020, 0x000E))
    data = whole[:at] + ITEM + whole[at:]
    one = site.associate()
    site.feed(one, message(store_rq(), data))
    assert one.responses()[0].offending_elements == (where(data)[0], 0x0020000E)


def test_what_is_no_data_set_at_all(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(), JFIF))
    assert one.responses()[0].error_comment == f"cannot be read past {in_words(where(JFIF))}"
    assert where(JFIF)[1] == 0


def test_the_longest_words_fit(site: Site) -> None:
    """An Error Comment has 64 characters."""
    assert len(f"cannot be read past {in_words((0xFFFEE000, (1 << 64) - 1))}") <= 64
    filler = element(0x00090001, b"OB", bytes(5 << 20))
    whole = broken()
    at = whole.index(ITEM)
    data = whole[:at] + filler + whole[at:]
    one = site.associate()
    site.feed(one, message(store_rq(), data, fragment=100_000))
    assert one.responses()[0].error_comment == f"cannot be read past {in_words(where(data))}"
    assert where(data)[1] > 5 << 20


def test_of_a_deflated_one_the_inflated_byte_is_told(site: Site) -> None:
    deflate = zlib.compressobj(wbits=-15)
    plain = broken()
    one = site.associate()
    site.feed(
        one,
        message(
            store_rq(), deflate.compress(plain) + deflate.flush(), context=CONTEXT_OF[DEFLATED]
        ),
    )
    assert one.responses()[0].error_comment == f"cannot be read past {in_words(where(plain))}"


@pytest.mark.parametrize("syntax", [ELE, ILE])
@pytest.mark.parametrize("fragment", [1, 16000])
def test_an_instance_that_is_not_read_to_its_end_is_stored_and_told(
    site: Site, syntax: str, fragment: int
) -> None:
    data = data_set(syntax) + ITEM
    one = site.associate()
    sent = message(store_rq(), data, context=CONTEXT_OF[syntax], fragment=fragment)
    site.feed(one, sent)
    assert one.statuses() == [0]
    (fact,) = site.journal()
    assert fact["unread_from"] == in_words(where(data, syntax))
    assert (fact["study_instance_uid"], fact["series_instance_uid"]) == (STUDY, SERIES)
    assert site.files()[path_of()].endswith(data)


def test_one_that_is_read_has_no_such_member(site: Site) -> None:
    one = site.associate()
    site.feed(one, message(store_rq(), data_set()))
    assert "unread_from" not in site.journal()[0]


# The label ----------------------------------------------------------------------------------------

ICON: Final = element(
    0x00880200,
    b"SQ",
    struct.pack("<HHI", 0xFFFE, 0xE000, 76) + element(0x7FE00010, b"OW", bytes(64)),
)
END_OF_PIXELS: Final = encapsulated()[len(without_pixels()) :]


@pytest.mark.parametrize(
    ("syntax", "data", "mismatch"),
    [
        (ELE, data_set(), False),
        (ELE, encapsulated(), True),
        (ILE, data_set(ILE), False),
        (BIG, data_set(BIG), False),
        (JPEG, encapsulated(), False),
        (JPEG, data_set(), True),
        (JPEG, without_pixels(), False),
        (ELE, without_pixels(), False),
        # Of another family, and so mislabelled whatever its pixel data are.
        (JPEG, data_set(ILE), True),
        # An icon is not the pixel data: it may be native where they are encapsulated.
        (JPEG, without_pixels() + ICON, False),
        (JPEG, without_pixels() + ICON + END_OF_PIXELS, False),
        (ELE, without_pixels() + ICON, False),
        # Of such a syntax nothing is known.
        (PRIVATE_SYNTAX, data_set(), False),
        (PRIVATE_SYNTAX, encapsulated(), False),
        (DEFLATED, data_set(DEFLATED), False),
    ],
)
def test_pixel_data_that_contradict_the_syntax(
    site: Site, syntax: str, data: bytes, mismatch: bool
) -> None:
    for fragment in (3, 16000):
        one = site.associate()
        sent = message(store_rq(), data, context=CONTEXT_OF[syntax], fragment=fragment)
        site.feed(one, sent)
        assert one.statuses() == [0]
        fact = site.journal()[-1]
        assert fact.get("syntax_mismatch", False) is mismatch
        assert fact["transfer_syntax_uid"] == syntax
        (site.store / path_of()).unlink()

"""Deflated data sets: what is found in them, and in front of a fault, however they are cut."""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.kit import DEFLATED, data_set, element, message, path_of, store, store_rq
from tests.unit.test_receiver import Site, meta

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

CONTEXT: Final = 7
UID: Final = "1.2.9"
RANDOM: Final = random.Random(5)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


def deflated(data: bytes, level: int = 6) -> bytes:
    deflate = zlib.compressobj(level, wbits=-15)
    return deflate.compress(data) + deflate.flush()


def outcome(
    site: Site, data: bytes, *, fragment: int = 16000, cuts: tuple[int, ...] = ()
) -> tuple[int | None, str]:
    """The status of the one instance, and its path; it goes from the store again."""
    one = site.associate()
    site.feed(one, message(store_rq(1, sop=UID), data, context=CONTEXT, fragment=fragment), cuts)
    (status,) = one.statuses()
    files = site.files()
    for path, content in files.items():
        assert content.endswith(data)
        (site.store / path).unlink()
    return status, next(iter(files), "")


def long_element(data: bytes, tag: int = 0x00090001) -> bytes:
    """Of a private group between 0008 and 0010; the VR has a 32-bit length."""
    return element(tag, b"OB", data)


def with_values_late(filler: bytes) -> bytes:
    """A data set with a long value in front of the Study and Series Instance UID."""
    whole = data_set(sop=UID)
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010))
    return whole[:at] + long_element(filler) + whole[at:]


@pytest.mark.parametrize(
    ("size", "level"), [(1 << 20, 0), (1 << 20, 9), ((1 << 20) + 2, 1), (3 << 20, 0), (40 << 20, 9)]
)
def test_values_behind_any_number_of_bytes(site: Site, size: int, level: int) -> None:
    data = deflated(with_values_late(bytes(size)), level)
    assert outcome(site, data, fragment=100_000) == (0, path_of(UID))
    assert site.journal()[-1]["bytes"] == len(data)


@pytest.mark.parametrize("fragment", [1, 2, 3, 5, 137, 138, 139, 511, 512, 513, 100_000])
def test_however_it_is_cut(site: Site, fragment: int) -> None:
    data = deflated(with_values_late(RANDOM.randbytes(6000)))
    assert outcome(site, data, fragment=fragment) == (0, path_of(UID))


def test_reads_cut_at_every_byte(site: Site) -> None:
    data = deflated(with_values_late(RANDOM.randbytes(100)))
    for cut in range(len(data) + 150):
        assert outcome(site, data, cuts=(cut,)) == (0, path_of(UID))


@pytest.mark.parametrize("fill", [100, 20_000, 70_000, 300_000])
@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_what_stands_in_front_of_a_fault_is_found(site: Site, fill: int, kind: str) -> None:
    """All of it, and nothing else: the UIDs are whole, or cut in the last byte."""
    filler = RANDOM.randbytes(fill) if kind == "noise" else bytes(fill)
    whole = with_values_late(filler)
    behind_uids = whole.index(struct.pack("<HH", 0x0020, 0x0013)) + 8
    for missing, status in ((0, 0), (9, 0xC000)):
        deflate = zlib.compressobj(wbits=-15)
        front = deflate.compress(whole[: behind_uids - missing])
        # Ends at a byte, and a block of a kind that there is not follows.
        data = front + deflate.flush(zlib.Z_SYNC_FLUSH) + b"\xff" * 50
        cuts = (2, 3, 700, 2048, 5000, 100_000) if fill < 50_000 else (701, 2048, 100_000)
        for fragment in cuts:
            found = outcome(site, data, fragment=fragment)
            assert found == (status, path_of(UID) if status == 0 else ""), fragment


@pytest.mark.parametrize("fragment", [1, 5, 6, 137, 138, 139, 1000])
def test_labelled_deflated_sent_plain(site: Site, fragment: int) -> None:
    data = with_values_late(bytes(9000))
    assert outcome(site, data, fragment=fragment) == (0, path_of(UID))
    assert site.journal()[-1]["syntax_mismatch"] is True
    short = data_set(sop=UID, pixels=0)[:100]
    assert outcome(site, short, fragment=fragment)[0] == 0xC000


def test_a_plain_one_with_its_header(site: Site) -> None:
    one = site.associate()
    data = deflated(data_set(sop=UID))
    head = element(0x00020010, b"UI", DEFLATED.encode())
    site.feed(one, store(1, head + data, sop=UID, fragment=100_000))
    assert one.statuses() == [0]
    assert site.files()[path_of(UID)].endswith(data)
    assert site.journal()[-1]["stripped"] == len(head)


def test_a_tail_is_stored_and_not_inflated(site: Site) -> None:
    # Else the data set behind the end would be read as going on.
    other = element(0x0020000D, b"UI", b"1.9.9") + element(0x0020000E, b"UI", b"1.9.9")
    data = deflated(data_set(sop=UID, pixels=0)) + deflated(other) + bytes(5000)
    for fragment in (1, 100, 2048, 100_000):
        assert outcome(site, data, fragment=fragment) == (0, path_of(UID))
    cut = deflated(data_set(sop=UID, pixels=0, series="")) + deflated(other)
    assert outcome(site, cut)[0] == 0xC000


@pytest.mark.parametrize("header", [b"", element(0x00020010, b"UI", DEFLATED.encode())])
def test_no_turn_inflates_more_than_its_share(site: Site, header: bytes) -> None:
    """Some 512 bytes of a stream that makes 1,030 bytes of one; also right behind a header."""
    data = header + deflated(with_values_late(bytes(64 << 20)), 9)
    stream = store(1, data, sop=UID, context=1 if header else CONTEXT, fragment=1 << 17)
    one, other = site.associate(), site.associate()
    assert site.read(one, stream) == len(stream)
    before = one.rest_bytes
    assert before > len(stream) - 3 * 512
    turns = 0
    while one.rest_bytes:
        site.read(other, store(1, sop="1.2.3.9"))
        assert site.take_turns(1) == 1
        turns += 1
        assert before - one.rest_bytes <= 2 * 512 + 600
        before = one.rest_bytes
    assert turns > 16
    assert one.statuses() == [0]
    assert len(other.statuses()) == turns
    assert path_of(UID) in site.files()


def test_an_ordinary_stream_takes_no_more_turns(site: Site) -> None:
    one = site.associate()
    data = deflated(with_values_late(RANDOM.randbytes(300_000)))
    stream = store(1, data, sop=UID, context=CONTEXT, fragment=100_000)
    assert site.read(one, stream) == len(stream)
    assert site.take_turns() <= 2
    assert one.statuses() == [0]
    assert site.files() == {path_of(UID): meta(UID, DEFLATED) + data}

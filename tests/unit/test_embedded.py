"""What some senders put in front of a data set: taken off, and the transfer syntax that holds."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import pydicom
import pytest

from fastscp_ext import build_meta, crc32c
from tests.kit import (
    BIG,
    CT,
    DEFLATED,
    ELE,
    ILE,
    SOP,
    data_set,
    element,
    message,
    path_of,
    store_rq,
)
from tests.unit.test_receiver import IMPLEMENTATION, JPEG, PRIVATE_SYNTAX, VERSION, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

CONTEXT_OF: Final = {ELE: 1, ILE: 3, BIG: 5, DEFLATED: 7, PRIVATE_SYNTAX: 9, JPEG: 13}
PIXELS: Final = struct.pack("<HH", 0x7FE0, 0x0010)
ANOTHER_JPEG: Final = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


def named(syntax: str) -> bytes:
    """A group 0002 that is a transfer syntax."""
    return element(0x00020010, b"UI", syntax.encode())


def encapsulated(size: int = 300) -> bytes:
    """A data set in Explicit VR Little Endian with two fragments. Source: PS3.5 A.4."""
    whole = data_set(pixels=0)
    whole = whole[: whole.index(PIXELS)]
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, size)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return whole + PIXELS + b"OB\0\0\xff\xff\xff\xff" + item + bytes(size) + end


def without_pixels(syntax: str = ELE) -> bytes:
    whole = data_set(syntax, pixels=0)
    return whole[: whole.index(PIXELS)]


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


def header(syntax: str, other: str = "") -> bytes:
    return build_meta(
        CT.encode(), SOP.encode(), syntax.encode(), IMPLEMENTATION, VERSION, b"SENDER", b"RECEIVER",
        other.encode(),
    )  # fmt: skip


def stored(
    site: Site, negotiated: str, front: bytes, data: bytes, fragment: int = 16000,
    cuts: tuple[int, ...] = (),
) -> bytes | None:  # fmt: skip
    """The file's own header, where the data set is stored whole; None: it was refused.

    The store is empty again afterwards.
    """
    one = site.associate()
    sent = message(store_rq(), front + data, context=CONTEXT_OF[negotiated], fragment=fragment)
    site.feed(one, sent, cuts)
    (status,) = one.statuses()
    if status != 0:
        assert status == 0xC000
        assert one.responses()[0].error_comment == "data set does not match its embedded header"
        assert site.files() == {}
        return None
    ((path, content),) = site.files().items()
    assert path == path_of()
    assert content.endswith(data)
    (site.store / path).unlink()
    fact = site.journal()[-1]
    assert (fact["stripped"], fact["bytes"]) == (len(front), len(data))
    assert fact["digest"] == f"crc32c:{crc32c(data):08x}"
    assert "syntax_mismatch" not in fact
    head = content[: len(content) - len(data)]
    assert named(fact["transfer_syntax_uid"]) in head
    return head


# Negotiated, named in front, the data set, and what its file's header is built of: the syntax, and
# the other one where pixel data alone could tell. None: refused.
SYNTAXES: dict[str, tuple[str, str, bytes, tuple[str, ...] | None]] = {
    "nothing named": (ELE, "", data_set(), (ELE,)),
    "nothing named, other data": (ELE, "", data_set(ILE), None),
    "nothing named, pixels that no such syntax has": (ELE, "", encapsulated(), None),
    "the same": (ELE, ELE, data_set(), (ELE,)),
    "the same, and private": (PRIVATE_SYNTAX, PRIVATE_SYNTAX, data_set(), (PRIVATE_SYNTAX,)),
    "one nobody knows": (ELE, "1.2.3.4.9", data_set(), (ELE,)),
    "one nobody knows, in a private context": (
        PRIVATE_SYNTAX, "1.2.3.4.9", data_set(ILE), (PRIVATE_SYNTAX,)
    ),
    "one too long": (ELE, "1.2." + "3" * 70, data_set(), (ELE,)),
    "JPEG, and it is": (ELE, JPEG, encapsulated(), (JPEG, ELE)),
    "JPEG, and it is native": (ELE, JPEG, data_set(), (ELE, JPEG)),
    "JPEG, without pixel data": (ELE, JPEG, without_pixels(), (JPEG, ELE)),
    "JPEG, in an implicit context": (ILE, JPEG, encapsulated(), (JPEG,)),
    "JPEG, native, in an implicit context": (ILE, JPEG, data_set(), None),
    "JPEG, and it is implicit": (ILE, JPEG, data_set(ILE), (ILE,)),
    "JPEG, and it is neither": (ELE, JPEG, data_set(ILE), None),
    "JPEG, native, in a private context": (
        PRIVATE_SYNTAX, JPEG, data_set(), (PRIVATE_SYNTAX, JPEG)
    ),
    "native, and it is JPEG": (JPEG, ELE, encapsulated(), (JPEG, ELE)),
    "native, and it is": (JPEG, ELE, data_set(), (ELE, JPEG)),
    "another JPEG": (JPEG, ANOTHER_JPEG, encapsulated(), (ANOTHER_JPEG,)),
    "another JPEG, native": (JPEG, ANOTHER_JPEG, data_set(), None),
    "implicit, and it is": (ELE, ILE, data_set(ILE), (ILE,)),
    "implicit, and it is explicit": (ELE, ILE, data_set(), (ELE,)),
    "implicit, and it is neither": (ELE, ILE, data_set(BIG), None),
    "big endian, and it is": (ELE, BIG, data_set(BIG), (BIG,)),
    "deflated, and it is": (ELE, DEFLATED, data_set(DEFLATED), (DEFLATED,)),
    "deflated, and it is plain": (ELE, DEFLATED, data_set(), (ELE,)),
    "deflated, and it is implicit": (ELE, DEFLATED, data_set(ILE), None),
    "plain, and it is": (DEFLATED, ELE, data_set(), (ELE,)),
    "implicit, and it is, in a deflated context": (DEFLATED, ILE, data_set(ILE), (ILE,)),
    "plain, and it is deflated": (DEFLATED, ELE, data_set(DEFLATED), (DEFLATED,)),
    "deflated, in a deflated context": (DEFLATED, DEFLATED, data_set(DEFLATED), (DEFLATED,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM", b"MZ" + b"x" * 126 + b"DICM"])
def test_the_syntax_that_holds(site: Site, name: str, preamble: bytes) -> None:
    negotiated, syntax, data, parts = SYNTAXES[name]
    front = preamble + element(0x00020003, b"UI", SOP.encode())
    front += named(syntax) if syntax else b""
    expected = header(*parts) if parts else None
    for fragment in (1, 7, 139, 16000):
        assert stored(site, negotiated, front, data, fragment) == expected


@pytest.mark.parametrize("name", ["JPEG, and it is native", "deflated, and it is plain"])
def test_cut_at_every_byte(site: Site, name: str) -> None:
    negotiated, syntax, data, parts = SYNTAXES[name]
    assert parts
    for cut in range(len(data) + 200):
        assert stored(site, negotiated, named(syntax), data, cuts=(cut,)) == header(*parts)


@pytest.mark.parametrize("pixels", [100, 70_000, 3 << 20])
@pytest.mark.parametrize("fragment", [1000, 100_000])
def test_a_header_long_written_is_put_right(site: Site, pixels: int, fragment: int) -> None:
    """The label is as wrong as can be until the pixel data come, behind any number of bytes."""
    data = without_pixels() + element(0x00420011, b"OB", bytes(pixels))
    native = data + element(0x7FE00010, b"OW", bytes(pixels))
    cuts = tuple(range(0, len(native), 200_000))
    head = stored(site, ELE, named(JPEG), native, fragment, cuts)
    assert head == header(ELE, JPEG)
    assert len(head) == len(header(JPEG, ELE))


def test_pydicom_reads_the_header_with_its_private_information(site: Site) -> None:
    head = stored(site, ELE, named(JPEG), data_set())
    assert head is not None
    path = site.store / "read.dcm"
    path.write_bytes(head + data_set())
    info = pydicom.dcmread(path).file_meta
    path.unlink()
    assert info.FileMetaInformationGroupLength == len(head) - 144
    assert info.TransferSyntaxUID == ELE
    assert info.PrivateInformationCreatorUID == IMPLEMENTATION.decode()
    assert info.PrivateInformation == JPEG.encode()
    assert len(header(ELE, "1" * 64)) == len(header("1" * 64, ELE)) <= 768


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


COMMAND: Final = (
    implicit(0x00000000, b"\x50\0\0\0") + implicit(0x00000002, CT.encode() + b"\0")
    + implicit(0x00000100, b"\1\0") + implicit(0x00000110, b"\7\0")
    + implicit(0x00001000, SOP.encode() + b"\0" * (len(SOP) % 2))
)  # fmt: skip
FRONTS: Final = {
    "a command set": COMMAND,
    "a command set, explicit": element(0x00000000, b"UL", b"\x50\0\0\0")
    + element(0x00000002, b"UI", CT.encode()) + element(0x00000100, b"US", b"\1\0"),
    "a command set without its length": COMMAND[12:],
    "a command set and a header": COMMAND + named(ELE),
    "an implicit header": implicit(0x00020000, b"\x1e\0\0\0")
    + implicit(0x00020010, ELE.encode() + b"\0"),
    "an implicit element behind explicit ones": named(ELE) + implicit(0x00020013, b"NAME"),
    "an explicit element behind implicit ones": implicit(0x00020013, b"NAME") + named(ELE),
    "a length that is wrong": element(0x00020000, b"UL", b"\xff\0\0\0") + named(ELE),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("fragment", [1, 3, 139, 140, 141, 16000])
def test_groups_in_front(site: Site, name: str, fragment: int) -> None:
    assert stored(site, ELE, FRONTS[name], data_set(), fragment) == header(ELE)
    preamble = bytes(128) + b"DICM"
    assert stored(site, ELE, preamble + FRONTS[name], data_set(), fragment) == header(ELE)


@pytest.mark.parametrize("name", ["a command set", "an implicit header"])
def test_what_is_stored_of_another_syntax(site: Site, name: str) -> None:
    if name == "a command set":
        assert stored(site, ILE, FRONTS[name], data_set(ILE)) == header(ILE)
        assert stored(site, BIG, FRONTS[name], data_set(BIG)) == header(BIG)
    else:
        assert stored(site, ILE, FRONTS[name], data_set(ILE)) == header(ILE)
        assert stored(site, ILE, FRONTS[name], data_set()) == header(ELE)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_deflate_stream_is_no_header(site: Site, level: int) -> None:
    """A stored block of 256 bytes and more begins like elements of group 0000 or 0002."""
    for size in (0x200, 0x1000, 0x4000, 0xFF00):
        data = data_set(pixels=0xFF00)
        deflate = zlib.compressobj(level, wbits=-15)
        packed = deflate.compress(data[:size]) + deflate.flush(zlib.Z_FULL_FLUSH)
        packed += deflate.compress(data[size:]) + deflate.flush()
        one = site.associate()
        site.feed(one, message(store_rq(), packed, context=CONTEXT_OF[DEFLATED]))
        assert one.statuses() == [0]
        assert site.files() == {path_of(): header(DEFLATED) + packed}
        (site.store / path_of()).unlink()
        assert "stripped" not in site.journal()[-1]

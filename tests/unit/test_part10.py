"""The head of a Part 10 file: built and read by pydicom, and taken off in front of a data set."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_file_meta_info

if TYPE_CHECKING:
    from pydicom.dataset import FileMetaDataset

from fastscp_ext.dataset.part10 import build_meta, meta_values, strip_embedded
from tests import reference_part10

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
many = settings(max_examples=200, deadline=None, derandomize=True)

CT = b"1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LE = b"1.2.840.10008.1.2"
EXPLICIT_LE = b"1.2.840.10008.1.2.1"
# Explicit and implicit VR little endian, big endian: how data sets begin.
DATA_SETS = (
    b"\x08\0\x05\0CS\x0a\0ISO_IR 192\x08\0\x16\0UI\x02\x001\0",
    b"\x08\0\x05\0\x0a\0\0\0ISO_IR 192\x08\0\x16\0\2\0\0\x001\0",
    b"\0\x08\0\x05CS\0\x0aISO_IR 192\0\x08\0\x16UI\0\x021\0",
)


def meta(
    sop_class: bytes = CT,
    sop_instance: bytes = b"1.2.3.4",
    transfer_syntax: bytes = EXPLICIT_LE,
    implementation: bytes = b"1.2.3",
    version: bytes = b"NAME_1",
    sender: bytes = b"SENDER",
    receiver: bytes = b"RECEIVER",
) -> bytes:
    return build_meta(
        sop_class, sop_instance, transfer_syntax, implementation, version, sender, receiver
    )


def read_meta(built: bytes) -> FileMetaDataset:
    return pydicom.dcmread(io.BytesIO(built)).file_meta


def element(number: int, vr: bytes, value: bytes, group: int = 2) -> bytes:
    head = struct.pack("<HH2s", group, number, vr)
    if vr in (b"OB", b"OW", b"UN", b"SQ", b"UC", b"UT", b"UR", b"OV"):
        return head + struct.pack("<xxL", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def check(data: bytes) -> tuple[int, bytes] | None:
    """What is taken off `data`: the reference's word, however the bytes come."""
    expected = reference_part10.strip(data)
    assert strip_embedded(data) == expected
    for step in (*range(1, 20), 63, 131, 132, 133, 137, 138, 139, 1000):
        assert strip_embedded(data, step) == expected
    return expected


# Building ---------------------------------------------------------------------------------------


def test_titles_are_what_ae_allows() -> None:
    info = read_meta(meta(sender=b"M\xdc\\L\x1bR", receiver=b"\xff" * 20))
    assert info.SourceApplicationEntityTitle == "M__L_R"
    assert info.SendingApplicationEntityTitle == "M__L_R"
    assert info.ReceivingApplicationEntityTitle == "_" * 16


def test_pydicom_reads_what_was_built(tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(meta() + DATA_SETS[0])
    read = pydicom.dcmread(path)
    info = read.file_meta
    assert read.preamble == bytes(128)
    assert info.FileMetaInformationVersion == b"\0\1"
    assert info.FileMetaInformationGroupLength == len(meta()) - 144
    assert info.MediaStorageSOPClassUID == CT.decode()
    assert info.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert info.TransferSyntaxUID == EXPLICIT_LE.decode()
    assert info.ImplementationClassUID == "1.2.3"
    assert info.ImplementationVersionName == "NAME_1"
    assert info.SourceApplicationEntityTitle == "SENDER"
    assert info.SendingApplicationEntityTitle == "SENDER"
    assert info.ReceivingApplicationEntityTitle == "RECEIVER"
    assert read.SpecificCharacterSet == "ISO_IR 192"


def test_bytes_written_by_hand() -> None:
    assert (
        meta(b"1.2", b"1.2.3", b"1.2", b"1", b"N", b"", b"")
        == (
            bytes(128) + b"DICM"
            b"\2\0\0\0UL\4\0\x48\0\0\0"  # group length: 72 bytes follow
            b"\2\0\1\0OB\0\0\2\0\0\0\0\1"  # version of the header
            b"\2\0\2\0UI\4\x001.2\0"  # SOP class, padded with NUL
            b"\2\0\3\0UI\6\x001.2.3\0"  # SOP instance
            b"\2\0\x10\0UI\4\x001.2\0"  # transfer syntax
            b"\2\0\x12\0UI\2\x001\0"  # implementation class
            b"\2\0\x13\0SH\2\0N "  # implementation version name, padded with a space
        )
    )


def test_empty_titles_are_left_out() -> None:
    info = read_meta(meta(sender=b"", receiver=b""))
    for name in ("Source", "Sending", "Receiving"):
        assert f"{name}ApplicationEntityTitle" not in info
    info = read_meta(meta(sender=b"", receiver=b"R"))
    assert "SourceApplicationEntityTitle" not in info
    assert info.ReceivingApplicationEntityTitle == "R"


def test_too_long_values_are_cut() -> None:
    info = read_meta(meta(*[b"1" * 80] * 4, *[b"A" * 40] * 3))
    for keyword in ("MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID"):
        assert info[keyword].value == "1" * 64
    assert info.ImplementationVersionName == "A" * 16
    assert info.ReceivingApplicationEntityTitle == "A" * 16
    assert len(meta(*[b"1" * 80] * 4, *[b"A" * 40] * 3)) <= 768


numbers_of_uids = st.integers(0, 99_999_999).map(str)
uids = st.lists(numbers_of_uids, min_size=2, max_size=7).map(lambda parts: ".".join(parts).encode())
titles = st.text("ABZ09_ ", min_size=1, max_size=16).map(lambda text: text.strip().encode() or b"X")


@many
@given(uids, uids, uids, uids, titles, titles, st.one_of(st.just(b""), titles))
def test_any_values(
    sop_class: bytes, instance: bytes, syntax: bytes, implementation: bytes, version: bytes,
    sender: bytes, receiver: bytes,
) -> None:  # fmt: skip
    built = build_meta(sop_class, instance, syntax, implementation, version, sender, receiver)
    info = read_meta(built)
    assert len(built) == 144 + info.FileMetaInformationGroupLength
    assert info.MediaStorageSOPClassUID == sop_class.decode()
    assert info.MediaStorageSOPInstanceUID == instance.decode()
    assert info.TransferSyntaxUID == syntax.decode()
    assert info.ImplementationClassUID == implementation.decode()
    assert info.ImplementationVersionName == version.decode()
    assert info.SendingApplicationEntityTitle == sender.decode()
    assert info.get("ReceivingApplicationEntityTitle", "") == receiver.decode()
    for data_set in DATA_SETS:
        assert check(built + data_set) == (len(built), syntax)


# Taking off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_an_ordinary_data_set_is_left_alone(data_set: bytes) -> None:
    assert check(data_set) is None
    assert check(bytes(128) + b"DICM" + data_set) is None


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM", b"x" * 128 + b"DICM"])
def test_with_and_without_preamble(preamble: bytes, data_set: bytes) -> None:
    head = preamble + meta()[132:]
    assert check(head + data_set) == (len(head), EXPLICIT_LE)


def test_cut_anywhere() -> None:
    """Too short, nothing is taken off; long enough, the same whatever follows."""
    head = meta()
    whole = head + DATA_SETS[0]
    for size in range(len(whole) + 1):
        expected = (len(head), EXPLICIT_LE) if size >= len(head) + 8 else None
        assert strip_embedded(whole[:size]) == expected
        assert reference_part10.strip(whole[:size]) == expected
    for step in range(1, len(whole) + 1):
        assert strip_embedded(whole, step) == (len(head), EXPLICIT_LE)


def test_every_byte_changed() -> None:
    whole = meta()[132:] + DATA_SETS[0]
    for place in range(len(whole)):
        for change in (0x01, 0x20, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[place] ^= change
            assert strip_embedded(bytes(changed)) == reference_part10.strip(bytes(changed))
            assert strip_embedded(bytes(changed), 7) == reference_part10.strip(bytes(changed))


@pytest.mark.parametrize(
    ("elements", "syntax"),
    [
        ([element(0x0002, b"UI", b"1.2\0")], b""),  # not there
        ([element(0x0010, b"UI", b"")], b""),  # empty
        ([element(0x0010, b"UI", b"\0 \0")], b""),  # nothing but padding
        ([element(0x0010, b"UI", b"1.2 \0")], b"1.2"),
        ([element(0x0010, b"UI", b"1.2"), element(0x0010, b"UI", b"1.3")], b"1.2"),
        ([element(0x0010, b"UI", b""), element(0x0010, b"UI", b"1.3")], b"1.3"),
        ([element(0x0010, b"UN", b"1.2")], b"1.2"),
        ([element(0x0102, b"OB", bytes(5000)), element(0x0010, b"UI", b"1.2")], b"1.2"),
        ([element(0x0010, b"UI", b"1.2"), element(0x0102, b"OB", bytes(9000))], b"1.2"),
        ([element(0x0000, b"UL", b"\xff\xff\xff\xff"), element(0x0010, b"UI", b"1.2")], b"1.2"),
    ],
)
def test_transfer_syntax(elements: list[bytes], syntax: bytes) -> None:
    head = b"".join(elements)
    assert check(head + DATA_SETS[0]) == (len(head), syntax)


@pytest.mark.parametrize(
    "head",
    [
        element(0x0010, b"UI", b"1.2") + b"\2\0\1\0\0\0\2\0",  # no VR
        element(0x0010, b"UI", b"1.2") + b"\2\0\1\0ob\2\0",
        element(0x0001, b"OB", b"")[:8] + struct.pack("<L", 65537),
        element(0x0001, b"OB", b"")[:8] + b"\xff\xff\xff\xff",
        element(0x0001, b"OB", bytes(65520)) + element(0x0002, b"UI", b"1.2\0"),
        element(0x0001, b"UI", bytes(40000)) + element(0x0002, b"UI", bytes(40000)),
    ],
)
def test_unreadable_or_endless(head: bytes) -> None:
    assert check(head + DATA_SETS[0]) is None


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_cap_counts_the_eight_bytes_behind(spare: int) -> None:
    head = element(0x0001, b"OB", bytes(65536 - 12 - 8 - spare))
    expected = (len(head), b"") if spare >= 0 else None
    assert strip_embedded(head + DATA_SETS[0]) == expected
    assert reference_part10.strip(head + DATA_SETS[0]) == expected


numbers = st.sampled_from([0x0000, 0x0001, 0x0002, 0x0010, 0x0010, 0x0012, 0x0102, 0x01FF, 0x0200])
vrs = st.sampled_from([b"UI", b"UI", b"OB", b"UL", b"UN", b"SH", b"ZZ", b"u1", b"OX"])
elements = st.builds(
    element, numbers, vrs, st.binary(max_size=30), st.sampled_from([2, 2, 2, 2, 2, 2, 8])
)


@many
@given(
    st.sampled_from([b"", bytes(128) + b"DICM", bytes(127)]),
    st.lists(elements, max_size=5),
    st.binary(max_size=20),
)
def test_any_elements(preamble: bytes, listed: list[bytes], tail: bytes) -> None:
    check(preamble + b"".join(listed) + tail)


@many
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    check(data)
    check(b"\2\0\0\0UL" + data)


# The values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM"])
def test_values(preamble: bytes) -> None:
    assert meta_values(preamble + meta()[132:]) == {
        0x0000: struct.pack("<L", len(meta()) - 144).rstrip(b"\0"),
        0x0001: b"\0\1",
        0x0002: CT,
        0x0003: b"1.2.3.4",
        0x0010: EXPLICIT_LE,
        0x0012: b"1.2.3",
        0x0013: b"NAME_1",
        0x0016: b"SENDER",
        0x0017: b"SENDER",
        0x0018: b"RECEIVER",
    }


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"", {}),
        (DATA_SETS[0], {}),
        (bytes(128) + b"DICM" + DATA_SETS[0], {}),
        (element(0x0010, b"UI", b""), {0x0010: b""}),
        (element(0x0010, b"UI", b"1.2") + element(0x0010, b"UI", b"1.3 \0"), {0x0010: b"1.3"}),
        (element(0x0102, b"OB", bytes(9000) + b"1") + DATA_SETS[1], {0x0102: bytes(9000) + b"1"}),
        (element(0x0010, b"UI", b"1.2") + element(0x0002, b"UN", b"1")[:-1], {0x0010: b"1.2"}),
    ],
)
def test_values_of(data: bytes, values: dict[int, bytes]) -> None:
    assert meta_values(data) == values


@many
@given(st.sampled_from([b"", bytes(128) + b"DICM"]), st.lists(elements, max_size=5))
def test_values_cover_what_is_taken_off(preamble: bytes, listed: list[bytes]) -> None:
    data = preamble + b"".join(listed) + DATA_SETS[0]
    taken = strip_embedded(data)
    if taken is not None:
        values = meta_values(data[: taken[0]])
        assert values == meta_values(data)
        assert bool(taken[1]) >= bool(values.get(0x0010))


@many
@given(st.binary(max_size=300))
def test_values_of_anything(data: bytes) -> None:
    meta_values(data)
    meta_values(b"\2\0\0\0UL" + data)


def real_files() -> list[Path]:
    """Part 10 files whose File Meta Information has its length."""
    found = [*sorted((SHARED / "data").glob("*.dcm")), *sorted(PYDICOM_FILES.glob("*.dcm"))]
    return [path for path in found if path.read_bytes()[128:140] == b"DICM\2\0\0\0UL\4\0"]


def test_real_files() -> None:
    seen = 0
    rng = random.Random(1)
    for path in real_files():
        data = path.read_bytes()
        info = read_file_meta_info(path)
        size = 144 + info.FileMetaInformationGroupLength
        assert strip_embedded(data[:100_000]) == (
            size,
            info.get("TransferSyntaxUID", "").encode(),
        ), path
        assert strip_embedded(data[:100_000], rng.randrange(1, 300)) == strip_embedded(data)
        seen += 1
    assert seen > 10

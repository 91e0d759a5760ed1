"""Where the running service files an instance whose sequences are broken: its own study, or none.

Inputs of ../shared/faults are used where they are; the same kinds in bytes of our own always.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydicom
import pytest

from tests.kit import CT, DEFLATED, ELE, ILE, Service, data_set, element, path_of, store

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS: Final = Path(__file__).resolve().parents[2] / ".." / "shared" / "faults"
SYNTAXES: Final = {ELE: (1, CT, ELE), ILE: (1, CT, ILE), DEFLATED: (1, CT, DEFLATED)}
OTHER: Final = b"1.9.9.9.9"
# (FFFE,xxxx) and a length, little endian.
ITEM: Final = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ITEM_END: Final = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("filing")) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    yield running
    running.empty()


def open_sequence(group_element: bytes, syntax: str) -> bytes:
    """Of undefined length. Source: PS3.5 7.1."""
    return group_element + (b"" if syntax == ILE else b"SQ\0\0") + b"\xff\xff\xff\xff"


def broken(syntax: str) -> tuple[bytes, bytes]:
    """A stray sequence end inside an item of (0008,1200), and another study's UIDs behind it.

    Returns it in two parts: up to those UIDs, and the ends that belong behind them.
    """
    inner = ELE if syntax == DEFLATED else syntax
    front = open_sequence(b"\x08\x00\x00\x12", inner) + ITEM
    front += element(0x00081115, b"SQ", b"", inner) + SEQUENCE_END
    front += element(0x0020000D, b"UI", OTHER, inner) + element(0x0020000E, b"UI", OTHER, inner)
    return front, ITEM_END + SEQUENCE_END


def sent(service: Service, syntax: str, data: bytes) -> tuple[int, str]:
    """The status of the one instance, and the Error Comment."""
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        data = deflate.compress(data) + deflate.flush()
        data += bytes(len(data) % 2)
    with service.peer(SYNTAXES[syntax]) as peer:
        peer.send(store(1, data))
        response = peer.read_response()
        peer.release()
    return response.status, response.command.error_comment or ""


def parts_of(syntax: str) -> tuple[bytes, bytes]:
    """A whole data set, cut in front of group 0010."""
    inner = ELE if syntax == DEFLATED else syntax
    whole = data_set(inner)
    at = whole.index(b"\x10\x00\x10\x00" + (b"" if inner == ILE else b"PN"))
    return whole[:at], whole[at:]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_stray_sequence_end_files_nothing_elsewhere(service: Service, syntax: str) -> None:
    before, behind = parts_of(syntax)
    front, ends = broken(syntax)
    assert sent(service, syntax, before + front + ends + behind) == (0, "")
    assert service.instances() == [path_of()]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_item_that_is_cut_is_filed_nowhere(service: Service, syntax: str) -> None:
    before, _ = parts_of(syntax)
    front, _ = broken(syntax)
    status, comment = sent(service, syntax, before + front)
    assert status == 0xC000
    assert "not sure" in comment
    assert service.instances() == []


def test_a_whole_image_in_an_item_proves_nothing(service: Service) -> None:
    """Behind a stray sequence end; what is behind it shows where that image belongs."""
    before, behind = parts_of(DEFLATED)
    front, ends = broken(DEFLATED)
    front = before + front + element(0x00280010, b"US", b"\1\0")
    image = element(0x7FE00010, b"OW", bytes(1 << 20))
    status, _ = sent(service, DEFLATED, front + image + ends + behind)
    assert (status, service.instances()) == (0, [path_of()])


def test_what_stands_behind_a_deflated_stream_is_not_kept(service: Service) -> None:
    before, _ = parts_of(DEFLATED)
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(before) + deflate.flush() + bytes(24 << 20)
    highest = [_highest_memory(pid) for pid in service.worker_pids()]
    with service.peer(SYNTAXES[DEFLATED]) as peer:
        peer.send(store(1, data, fragment=65536))
        assert peer.read_response().status == 0xC000
        peer.release()
    for pid, was in zip(service.worker_pids(), highest, strict=True):
        assert _highest_memory(pid) - was < 8 << 20


def _highest_memory(pid: int) -> int:
    """Bytes that a process had in memory at most."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return next(
        int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")
    )


def test_two_studies_at_once_are_none(service: Service) -> None:
    before, behind = parts_of(ELE)
    status, comment = sent(service, ELE, before + element(0x0020000D, b"UI", OTHER) + behind)
    assert (status, comment) == (0xC000, "two different Study or Series Instance UIDs found")
    assert service.instances() == []


def _input(name: str) -> bytes:
    if not FAULTS.is_dir():
        pytest.skip(f"{FAULTS} is not here")
    return (FAULTS / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "syntax", "sop", "stripped"),
    [
        ("R1a-stray-seqend-other-study-explicit.bin", ELE, "1.2.826.0.1.3.1", 0),
        ("R1b-stray-seqend-other-study-implicit.bin", ILE, "1.2.826.0.1.3.2", 0),
        ("R2-deflated-1050000-bytes-before-the-uids.bin", DEFLATED, "1.2.826.0.1.3.5", 0),
        ("R5a-embedded-0002-0003-no-syntax.bin", ELE, "1.2.826.0.1.3.20", 24),
        (
            "R5b-embedded-syntax-is-the-negotiated-private-one.bin",
            "1.3.46.670589.33.1.4.1",
            "1.2.826.0.1.3.21",
            30,
        ),
        ("R5c-embedded-jpeg-syntax-native-pixels.bin", ELE, "1.2.826.0.1.3.22", 30),
    ],
)
@pytest.mark.parametrize("fragment", [100, 16000])
def test_inputs_of_the_field(
    service: Service, name: str, syntax: str, sop: str, stripped: int, fragment: int
) -> None:
    data = _input(name)
    with service.peer((1, CT, syntax)) as peer:
        peer.send(store(1, data, sop=sop, fragment=fragment))
        assert peer.read_response().status == 0
        peer.release()
    path = path_of(sop, study="1.2.826.0.1.1", series="1.2.826.0.1.2")
    assert service.instances() == [path]
    assert service.data_of(path) == data[stripped:]
    fact = service.journal()[-1]
    assert fact.get("stripped", 0) == stripped
    assert fact["transfer_syntax_uid"] == syntax
    meta = pydicom.filereader.read_file_meta_info(service.store / path)
    assert meta.TransferSyntaxUID == syntax


def test_two_patients_whose_ids_differ_behind_a_5c(tmp_path: Path) -> None:
    """In GB18030 the byte is half of a character."""
    layout = "{PatientID}/{SOPInstanceUID}.dcm"
    with Service(tmp_path, "--layout", layout, workers=1) as service, service.peer() as peer:
        for n in range(2):
            data = _input(f"R7-patient-id-{n}.bin")
            peer.send(store(n, data, sop=f"1.2.826.0.1.3.7.{n}"))
            assert peer.read_response().status == 0
        peer.release()
        assert service.instances() == [f"%8C%5C0{n + 1}/1.2.826.0.1.3.7.{n}.dcm" for n in range(2)]


def test_two_patients_of_our_own_whose_ids_differ_behind_a_5c(tmp_path: Path) -> None:
    """The same in Shift JIS."""
    layout = "{PatientID}/{SOPInstanceUID}.dcm"
    with Service(tmp_path, "--layout", layout, workers=1) as service, service.peer() as peer:
        for n in (1, 2):
            data = data_set(sop=f"1.2.{n}", patient_id=f"\x95\x5c{n}")
            peer.send(store(n, data, sop=f"1.2.{n}"))
            assert peer.read_response().status == 0
        peer.release()
        assert service.instances() == [f"%95%5C{n}/1.2.{n}.dcm" for n in (1, 2)]

"""Where the running service files an instance whose sequences are broken: its own study, or none.

Inputs are those of tests/streams/faulty.py: bytes of our own, and ../shared/faults where it is.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydicom
import pytest

from tests.kit import CT, DEFLATED, ELE, ILE, Service, data_set, element, path_of, store
from tests.streams.faulty import faulty, faulty_names, patients

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize("name", faulty_names())
@pytest.mark.parametrize("fragment", [100, 16000])
def test_inputs_of_the_field(service: Service, name: str, fragment: int) -> None:
    seen = faulty(name)
    with service.peer((1, CT, seen.syntax)) as peer:
        peer.send(store(1, seen.data, sop=seen.sop, fragment=fragment))
        assert peer.read_response().status == 0
        peer.release()
    path = path_of(seen.sop, study=seen.study, series=seen.series)
    assert service.instances() == [path]
    assert service.data_of(path) == seen.data[seen.stripped :]
    fact = service.journal()[-1]
    assert fact.get("stripped", 0) == seen.stripped
    assert fact["transfer_syntax_uid"] == seen.syntax
    meta = pydicom.filereader.read_file_meta_info(service.store / path)
    assert meta.TransferSyntaxUID == seen.syntax


def test_two_patients_whose_ids_differ_behind_a_5c(tmp_path: Path) -> None:
    """In GB18030 the byte is half of a character."""
    layout = "{PatientID}/{SOPInstanceUID}.dcm"
    all_of_them = patients()
    with Service(tmp_path, "--layout", layout, workers=1) as service, service.peer() as peer:
        for n, seen in enumerate(all_of_them):
            peer.send(store(n, seen.data, sop=seen.sop))
            assert peer.read_response().status == 0
        peer.release()
        assert service.instances() == sorted(
            f"%8C%5C0{n % 2 + 1}/{seen.sop}.dcm" for n, seen in enumerate(all_of_them)
        )


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

"""`fastscp verify` compares headers: no byte of one changes unnoticed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from fastscp.store.compress import frame_fault, open_part10
from fastscp.store.header import header_of
from fastscp.store.reading import difference
from fastscp.titles import title_text
from fastscp_ext import build_meta
from tests.kit import CT, ELE, ILE, MR, SOP, Service, data_set, element, path_of, store
from tests.stores import LAYOUT
from tests.unit.test_verify import Shelf, kinds, look, part10, shelf

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["shelf"]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

DATA = data_set()
CONTENT = part10(DATA)
HEADER = len(CONTENT) - len(DATA)


def packed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def differences(shelf: Shelf, contents: list[bytes], name: str = "1.dcm", **more: Any) -> list[str]:
    """What is said of a file with each of these contents, by a line of what belongs there."""
    fact = shelf.fact(name, DATA, **more)
    header = header_of(fact)
    assert header is not None
    said = []
    with shelf.opened() as fd:
        for content in contents:
            shelf.file(name, content)
            said.append(difference(fd, name, fact["bytes"], fact["digest"], header))
    return said


def flips(content: bytes, end: int) -> list[bytes]:
    """Each byte up to `end` with its lowest bit the other way, and with its highest."""
    return [
        content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        for at in range(end)
        for bit in (0x01, 0x80)
    ]


@pytest.mark.parametrize("name", ["1.dcm", "1.dcm.zst"])
def test_no_byte_of_a_header_changes_unnoticed(shelf: Shelf, name: str) -> None:
    form = packed if name.endswith(".zst") else bytes
    assert differences(shelf, [form(CONTENT)], name) == [""]
    said = differences(shelf, [form(one) for one in flips(CONTENT, HEADER)], name)
    assert len(said) == 2 * HEADER
    assert all(said)


def test_no_byte_of_a_compressed_file_changes_unnoticed(shelf: Shelf) -> None:
    """Of a frame without its own window size: that one changes nothing that comes out."""
    content = packed(CONTENT)
    said = differences(shelf, flips(content, len(content)), "1.dcm.zst")
    assert len(said) == 2 * len(content)
    assert all(said)
    behind, cut = differences(shelf, [content + b"more", content[:-1]], "1.dcm.zst")
    assert behind.startswith("cannot be decompressed (")
    assert cut == "cannot be decompressed (the file ends 1 bytes too early)"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 300_000, 1 << 20])
@pytest.mark.parametrize("known", [False, True])
def test_the_end_of_a_frame(tmp_path: Path, size: int, known: bool) -> None:
    data = (os.urandom(max(0, size // 2)) + bytes(size))[:size]
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj(
        size=size if known else -1
    )
    path = tmp_path / "x"
    whole = compressor.compress(data) + compressor.flush()
    for more, fault in ((b"12", "2 bytes are behind its zstandard frame"), (b"", "")):
        path.write_bytes(whole + more)
        with path.open("rb") as file:
            assert frame_fault(file) == fault
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with open_part10("x", folder) as file:
            assert file.read() == data
    finally:
        os.close(folder)


def test_what_is_said_of_a_header(shelf: Shelf) -> None:
    other = [
        part10(DATA, ILE),
        part10(DATA, sop=f"{SOP}.7"),
        part10(DATA, sender="CT2"),
        part10(DATA, receiver=""),
        b"\1" + CONTENT[1:],
        CONTENT[:128] + b"DICN" + CONTENT[132:],
        CONTENT[:200],
        DATA,
    ]
    said = differences(shelf, other)
    same = "; the data set is as journaled"
    assert said[0] == f"the header has {ILE} as Transfer Syntax UID, the service wrote {ELE}{same}"
    assert said[1].startswith(f"the header has {SOP}.7 as Media Storage SOP Instance UID, the ")
    assert "has CT2 as Source Application Entity Title, the service wrote CT1" in said[2]
    assert "has nothing as Receiving Application Entity Title, the service wrote AR" in said[3]
    assert said[4] == f"byte 0 of the header is 01, the service wrote 00{same}"
    assert said[5] == f"byte 131 of the header is 4E, the service wrote 4D{same}"
    assert said[6:] == ["does not begin with a DICOM file header"] * 2
    # A header of another length does not hide what is wrong with the data set.
    (both,) = differences(shelf, [part10(DATA[:-2], sender="LONGER")])
    assert "has LONGER as Source" in both
    assert both.endswith(f"; a data set of {len(DATA) - 2} bytes, journaled with {len(DATA)}")


TITLES = {
    # As sent: as written in a line, as it may stand in a header (PS3.5 6.2).
    b"": ("", ""),
    b"100%": ("100%25", "100%"),
    b"%25": ("%2525", "%25"),
    b"A B": ("A B", "A B"),
    b"CT\\1": ("CT\\1", "CT_1"),
    b"M\xdcLLER": ("M%DCLLER", "M_LLER"),
    b"A\x1b\r\n\x7f": ("A%1B%0D%0A%7F", "A____"),
    b"\xff" * 16: ("%FF" * 16, "_" * 16),
    b"%" * 16: ("%25" * 16, "%" * 16),
}


@pytest.mark.parametrize("title", TITLES)
def test_titles_that_the_header_has_in_another_form(shelf: Shelf, title: bytes) -> None:
    written, plain = TITLES[title]
    content = part10(DATA, sender=plain, receiver=plain)
    assert differences(shelf, [content], calling_ae=written, called_ae=written) == [""]
    (said,) = differences(shelf, [part10(DATA, sender="Z")], calling_ae=written)
    wanted = plain or "nothing"
    assert f"has Z as Source Application Entity Title, the service wrote {wanted};" in said


@pytest.mark.parametrize("title", ["", "CT\\1", "É", "x" * 16, "a b", "100%", "%4", "%41", "%20"])
def test_titles_that_old_lines_have_in_another_form(shelf: Shelf, title: str) -> None:
    """They have what the sender sent, the header what may stand there (PS3.5 6.2)."""
    plain = {"CT\\1": "CT_1", "É": "_"}.get(title, title)
    assert differences(shelf, [part10(DATA, sender=plain)], calling_ae=title) == [""]
    (said,) = differences(shelf, [part10(DATA, sender="Z")], calling_ae=title)
    assert said


def test_the_header_is_that_of_the_first_sender(shelf: Shelf) -> None:
    """An identical one from elsewhere has a line, and no header."""
    shelf.put("1.dcm", DATA)
    shelf.lines(shelf.fact("1.dcm", DATA, duplicate="identical", calling_ae="CT2"))
    assert look(shelf).clean
    shelf.file("1.dcm", part10(DATA, sender="CT2"))
    assert kinds(look(shelf)) == {"1.dcm": "changed"}
    # The line of the first one is lost: whose titles these are nobody knows, all else is.
    shelf.lines(shelf.fact("2.dcm", DATA, duplicate="identical", calling_ae="CT2"))
    shelf.file("1.dcm", CONTENT)
    shelf.file("2.dcm", part10(DATA, sender="CT3"))
    assert look(shelf).clean
    shelf.file("2.dcm", part10(DATA, ILE, sender="CT3"))
    assert kinds(look(shelf)) == {"2.dcm": "changed"}


def test_the_header_is_that_of_the_one_that_replaced_it(shelf: Shelf) -> None:
    shelf.put("1.dcm", DATA)
    new = data_set(seed=1)
    shelf.lines(shelf.fact("1.dcm", new, duplicate="replaced", calling_ae="CT2"))
    shelf.file("1.dcm", part10(new, sender="CT2"))
    assert look(shelf).clean
    shelf.file("1.dcm", part10(new))
    assert kinds(look(shelf)) == {"1.dcm": "changed"}


def test_the_header_of_another_program(shelf: Shelf) -> None:
    """Adopted: its values are in the line, its other bytes are not known."""
    meta = build_meta(CT.encode(), SOP.encode(), ELE.encode(), b"1.2.3", b"OTHER", b"CT1", b"")
    shelf.file(path_of(), meta + DATA)
    assert look(shelf, adopt=True).clean
    assert look(shelf).findings == ()
    shelf.file(path_of(), b"\1" + (meta + DATA)[1:])
    assert look(shelf).findings == ()
    for name, (sop_class, sop, syntax, sender) in {
        "Class": (MR, SOP, ELE, b"CT1"),
        "Instance": (CT, "1.2", ELE, b"CT1"),
        "Transfer": (CT, SOP, ILE, b"CT1"),
        "Source": (CT, SOP, ELE, b"CT2"),
    }.items():
        other = build_meta(
            sop_class.encode(), sop.encode(), syntax.encode(), b"1.2.3", b"OTHER", sender, b""
        )
        shelf.file(path_of(), other + DATA)
        (finding,) = look(shelf).findings
        assert name in finding.why


def test_an_adopted_header_of_ours_is_known_whole(shelf: Shelf) -> None:
    shelf.file(path_of(), CONTENT)
    assert look(shelf, adopt=True).clean
    assert look(shelf).findings == ()
    shelf.file(path_of(), b"\1" + CONTENT[1:])
    assert kinds(look(shelf)) == {path_of(): "changed"}


@pytest.mark.parametrize(
    "title", [b"M\xdcLLER", b"100%", b"A" * 15 + b"\xff\xff\xff", b"A\0B", b" C"]
)
def test_a_title_of_another_program_is_adopted_in_its_written_form(
    shelf: Shelf, title: bytes
) -> None:
    """It may be none of AE, and longer than one."""
    names = {0x0002: CT, 0x0003: SOP, 0x0010: ELE, 0x0012: "1.2.3"}
    values = [(number, b"UI", name.encode()) for number, name in names.items()]
    group = b"".join(
        element(0x00020000 + number, vr, value)
        for number, vr, value in [*values, (0x16, b"AE", title)]
    )
    meta = bytes(128) + b"DICM" + group
    shelf.file(path_of(), meta + DATA)
    assert look(shelf, adopt=True).clean
    (fact,) = shelf.facts()
    assert fact["calling_ae"] == title_text(title.strip(b" "))
    assert look(shelf).findings == ()
    shelf.file(path_of(), meta.replace(title, title[:-1] + b"Z") + DATA)
    (finding,) = look(shelf).findings
    assert "Source Application Entity Title" in finding.why


def test_an_old_line_does_not_tell_every_title(shelf: Shelf) -> None:
    """Of an adopted file it had U+FFFD for a byte outside ASCII."""
    meta = build_meta(CT.encode(), SOP.encode(), ELE.encode(), b"1.2.3", b"OTHER", b"M_LLER", b"")
    shelf.file("1.dcm", meta.replace(b"M_LLER", b"M\xdcLLER") + DATA)
    shelf.lines(shelf.fact("1.dcm", DATA, event="adopted", calling_ae="M\ufffdLLER", called_ae=""))
    assert look(shelf).findings == ()


@pytest.mark.parametrize("layout", [LAYOUT, "{CalledAE}/{CallingAE}/{SOPInstanceUID}.dcm"])
@pytest.mark.parametrize("policy", ["version", "keep", "replace", "refuse"])
def test_what_a_service_writes_of_odd_titles(tmp_path: Path, policy: str, layout: str) -> None:
    """Its files are what the journal tells, and what is adopted when the journal is gone."""
    with Service(tmp_path, "--on-duplicate", policy, "--layout", layout, workers=1) as service:
        for number, title in enumerate(TITLES):
            sop = f"1.2.{number}"
            with service.peer((1, CT, ELE), calling=title or b" ", called=title or b" ") as peer:
                # A first one, itself once more, and another one of that name.
                for message_id, seed in enumerate((0, 0, 1), start=1):
                    data = data_set(sop=sop, seed=seed)
                    peer.send(store(message_id, data, sop=sop))
                    peer.read_response()
                peer.release()
    shelf = Shelf.at(service.store)
    assert look(shelf).findings == ()
    told = {fact["sop_instance_uid"]: fact["calling_ae"] for fact in shelf.facts()}
    assert told == {f"1.2.{n}": written for n, (written, _) in enumerate(TITLES.values())}
    for segment in shelf.journal.iterdir():
        segment.unlink()
    adopted = look(shelf, adopt=True)
    assert adopted.clean
    assert adopted.settled == len(TITLES) * (2 if policy == "version" else 1)
    for fact in shelf.facts():
        _, plain = list(TITLES.values())[int(fact["sop_instance_uid"].rpartition(".")[2])]
        # Of a byte that a header cannot hold the file does not tell.
        expected = title_text(plain)
        assert (fact.get("calling_ae", ""), fact.get("called_ae", "")) == (expected, expected)
    assert look(shelf).findings == ()


@pytest.mark.parametrize("options", [(), ("--compress", "zstd")])
def test_what_a_service_writes(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Its headers are what the journal tells, whoever sent and resent them."""
    with Service(tmp_path, *options, workers=1) as service:
        for calling, seed in (("A", 0), ("B\\b", 0), ("C", 1), ("", 2)):
            with service.peer((1, CT, ELE), calling=calling or " ") as peer:
                peer.send(store(1, data_set(seed=seed)))
                assert peer.read_response().status == 0
                peer.release()
    report = look(Shelf.at(service.store))
    assert report.findings == ()
    assert (report.files, report.lines) == (3, 4)

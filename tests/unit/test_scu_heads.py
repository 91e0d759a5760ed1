"""Heads of Part 10 files, fresh UIDs, which files a path names, and errors in words."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.config.values import read_move_originator
from fastscp.errors import ConfigError, FastscpError
from fastscp.scu import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    ConnectionLost,
    ContextRefused,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
)
from fastscp.scu.heads import Head, read_head, read_head_of
from fastscp.scu.send.files import Finder, Found, paths_of
from fastscp.scu.send.fresh import fresh_uid, uid_places
from fastscp.store.names import OWN
from fastscp_ext import file_mark, part10_head
from tests.kit import BIG, CT, DEFLATED, ELE, ILE, SOP, data_set, element
from tests.scripted import part10, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def meta(*elements: tuple[int, bytes, bytes]) -> bytes:
    """Preamble, prefix and these elements of group 0002."""
    return bytes(128) + b"DICM" + b"".join(element(0x00020000 | e, vr, v) for e, vr, v in elements)


@pytest.mark.parametrize("syntax", [ELE, ILE, BIG, DEFLATED])
def test_head(tmp_path: Path, syntax: str) -> None:
    data = data_set(syntax)
    file = part10(data, syntax=syntax)
    (tmp_path / "file").write_bytes(file)
    head = read_head(tmp_path / "file")
    assert head is not None
    assert head.mark
    assert read_head_of(file) == head._replace(mark=0)
    assert head[:5] == (CT, SOP, syntax, len(file) - len(data), len(data))


@pytest.mark.parametrize(
    ("syntax", "first"),
    [
        (ILE, struct.pack("<HHI", 0x0002, 0x0013, 4) + b"STRY"),
        (ELE, struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", 18) + DEFLATED.encode()[:17] + b"\0"),
        (ELE, struct.pack("<HH2sH", 0x0002, 0x0003, b"UI", 6) + b"1.2.9\0"),
    ],
)
def test_a_group_length_that_is_right_ends_the_meta_information(syntax: str, first: bytes) -> None:
    """A data set that begins with the same group loses nothing, and its elements say nothing."""
    data = first + data_set(syntax)
    file = part10(data, syntax=syntax)
    head = read_head_of(file)
    assert head == Head(CT, SOP, syntax, len(file) - len(data), len(data))


@pytest.mark.parametrize("length", [0, 1, 12, 30, 10_000, 0xFFFFFFFF])
def test_a_group_length_that_is_wrong_counts_for_nothing(length: int) -> None:
    file = bytearray(part10(data_set()))
    at = file.index(struct.pack("<HH2sH", 0x0002, 0, b"UL", 4)) + 8
    file[at : at + 4] = struct.pack("<I", length)
    head = read_head_of(bytes(file))
    assert head == Head(CT, SOP, ELE, len(file) - len(data_set()), len(data_set()))


def test_fresh_uids_for_a_compressed_file(tmp_path: Path) -> None:
    sop, study = "1.2.3.4.5.6.7.8.9", "1.2.3.4.5.6.7.8.10"
    data = data_set(study=study, sop=sop, series="1.2.3.4.5.6.7.8.11")
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(part10(data, sop=sop))
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    head = read_head(packed)
    assert head is not None
    assert head.compressed
    of_plain = read_head(plain)
    assert of_plain is not None
    assert head[:5] == of_plain[:5]
    assert uid_places(str(packed), head) == uid_places(str(plain), of_plain)
    packed.write_bytes(zstandard.compress(plain.read_bytes() + bytes(2)))
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        uid_places(str(packed), head)


def test_the_data_set_names_the_instance(tmp_path: Path) -> None:
    """The command must agree with the data set, whatever the file's header says."""
    file = part10(data_set(sop="1.2.3.9", sop_class="1.2.3.8"))
    head = read_head_of(file)
    assert head is not None
    assert (head.sop_class, head.sop_instance) == ("1.2.3.8", "1.2.3.9")
    # The header's stands in for what the data set lacks.
    head = read_head_of(part10(data_set(sop="", sop_class="")))
    assert head is not None
    assert (head.sop_class, head.sop_instance) == (CT, SOP)


def test_the_head_may_be_far_in(tmp_path: Path) -> None:
    """Long elements before the UIDs, in the header and in the data set; any length of group."""
    long = meta(
        (0x0000, b"UL", bytes(4)),
        (0x0001, b"OB", b"\0\1"),
        (0x0002, b"UI", b"1.2.1"),
        (0x0003, b"UI", b"1.2.2"),
        (0x0010, b"UI", ELE.encode()),
        (0x0102, b"OB", bytes(50_000)),
    )
    data = element(0x00080001, b"OB", bytes(100_000)) + data_set()
    (tmp_path / "file").write_bytes(long + data)
    head = read_head(tmp_path / "file")
    assert head is not None
    with (tmp_path / "file").open("rb") as file:
        assert head == Head(CT, SOP, ELE, len(long), len(data), file_mark(file.fileno()))


def test_what_is_no_instance(tmp_path: Path) -> None:
    for number, other in enumerate((b"", b"DICM", bytes(131), bytes(200), data_set())):
        path = tmp_path / str(number)
        path.write_bytes(other)
        assert read_head(path) is None
        assert read_head_of(other) is None
    os.mkfifo(tmp_path / "pipe")
    assert read_head(tmp_path / "pipe") is None
    assert read_head(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        read_head(tmp_path / "missing")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (meta((0x0002, b"UI", CT.encode())) + data_set(), "has no transfer syntax"),
        (meta((0x0010, b"UI", ELE.encode()))[:-4], "cut short"),
        (meta((0x0010, b"UI", ELE.encode())) + b"\2", "cut short"),
        (meta((0x0010, b"UI", ELE.encode())) + data_set(sop_class=""), "no SOP Class UID"),
        (meta((0x0010, b"UI", ELE.encode())) + data_set(sop=""), "no SOP Instance UID"),
        (part10(b""), "no data set"),
        (part10(data_set(sop_class="1.2.840.abc")), "its SOP Class UID is none: '1.2.840.abc'"),
        (part10(data_set(sop_class="CTImageStorage")), "its SOP Class UID is none"),
        (part10(data_set(), syntax="1.2.99x"), "its Transfer Syntax UID is none: '1.2.99x'"),
        (part10(data_set(sop_class="1.2." + "3" * 70)), "its SOP Class UID is none"),
        (
            meta((0x0003, b"UI", b"1" * 65), (0x0010, b"UI", ELE.encode())) + data_set(sop=""),
            "its SOP Instance UID has more than 64",
        ),
        (meta((0x0010, b"UI", b"x y")) + data_set(), "its Transfer Syntax UID is none: 'x y'"),
    ],
)
def test_what_cannot_be_sent(tmp_path: Path, file: bytes, why: str) -> None:
    (tmp_path / "file").write_bytes(file)
    with pytest.raises(UnusableInstance, match=why):
        read_head(tmp_path / "file")
    with pytest.raises(UnusableInstance, match=why):
        read_head_of(file)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_no_bytes_are_too_strange(data: st.DataObject) -> None:
    """Whatever a file holds: an answer or UnusableInstance, and never an offset past its end."""
    whole = part10(data_set(pixels=16))
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.binary(max_size=64))
    file = whole[:cut] + tail
    found = part10_head(file)
    if found is not None:
        assert found[3] <= len(file)
    try:
        head = read_head_of(file)
    except UnusableInstance:
        return
    if head is not None:
        assert head.offset + head.size == len(file)


# Fresh UIDs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(12, 65))
def test_fresh_uids_have_the_length_of_the_old_and_are_uids(length: int) -> None:
    old = ("1.2." + "3" * 64)[:length]
    new = fresh_uid(old, b"seed")
    assert len(new) == length
    parts = new.split(".")
    assert parts[:2] == ["2", "25"]
    assert all(part.isdigit() and (part == "0" or part[0] != "0") for part in parts)
    assert int(parts[2]) < 1 << 128
    assert fresh_uid(old, b"seed") == new
    assert fresh_uid(old, b"other") != new
    assert fresh_uid(old[:-1] + "4", b"seed") != new


@pytest.mark.parametrize("syntax", [ELE, ILE, BIG])
def test_places_of_uids(tmp_path: Path, syntax: str) -> None:
    """All of them, in nested data sets too, and nothing that only looks like one."""
    study, series, sop = "1.2.3.4.5.6.7.1", "1.2.3.4.5.6.7.22", "1.2.3.4.5.6.7.333"
    nested = element(0x0020000E, b"UI", series.encode(), syntax)
    item = struct.pack(f"{'>' if syntax == BIG else '<'}HHI", 0xFFFE, 0xE000, len(nested)) + nested
    data = element(0x00081115, b"SQ", item, syntax)
    main = data_set(syntax, study=study, series=series, sop=sop, patient_id=sop)
    # In the order of a data set: the sequence belongs between the groups 0008 and 0010.
    at = main.index(element(0x00100010, b"PN", b"KIT^PATIENT", syntax))
    whole = main[:at] + data + main[at:]
    path = tmp_path / "file"
    path.write_bytes(part10(whole, sop=sop, syntax=syntax))
    head = read_head(path)
    assert head is not None
    places = uid_places(str(path), head)
    assert sorted(place.uid for place in places) == sorted([study, series, series, sop])
    for place in places:
        assert whole[place.at :].startswith(place.uid.encode())


def test_uids_that_cannot_be_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sop = "1.2.3.4.5.6.7.8.9"
    for data, syntax, why in (
        (data_set(DEFLATED), DEFLATED, "deflated"),
        (data_set(study="", sop=sop), ELE, "StudyInstanceUID cannot be exchanged"),
        (data_set(study="1.2.3", sop=sop), ELE, "StudyInstanceUID is too short"),
    ):
        path.write_bytes(part10(data, syntax=syntax))
        head = read_head(path)
        assert head is not None
        with pytest.raises(UnusableInstance, match=why):
            uid_places(str(path), head)


@pytest.mark.parametrize(("vr", "padding"), [(b"UI", 3), (b"SH", 1), (b"UI", 0)])
def test_a_uid_that_is_not_where_it_should_be(tmp_path: Path, vr: bytes, padding: int) -> None:
    """It would go out as it is, under a command that says another one."""
    sop = "1.2.3.4.5.6.7.8.9"
    usual = struct.pack("<HH2sH", 8, 0x18, b"UI", len(sop) + 1) + sop.encode() + b"\0"
    odd = struct.pack("<HH2sH", 8, 0x18, vr, len(sop) + padding) + sop.encode() + bytes(padding)
    data = data_set(study="1.2.3.4.5.6.7.8.10", series="1.2.3.4.5.6.7.8.11", sop=sop)
    assert data.count(usual) == 1
    path = tmp_path / "file"
    path.write_bytes(part10(data.replace(usual, odd)))
    head = read_head(path)
    assert head is not None
    assert head.sop_instance == sop
    with pytest.raises(UnusableInstance, match="SOPInstanceUID cannot be exchanged"):
        uid_places(str(path), head)


# Files --------------------------------------------------------------------------------------------


def test_paths(tmp_path: Path) -> None:
    write_files(tmp_path / "b", 2)
    write_files(tmp_path / "a/deep", 1)
    found = list(paths_of([str(tmp_path)], []))
    assert [os.path.relpath(os.fsdecode(path), tmp_path) for path, _ in found] == [
        "a/deep/00000.dcm", "b/00000.dcm", "b/00001.dcm",
    ]  # fmt: skip
    assert not any(named for _, named in found)
    pattern = list(paths_of([f"{tmp_path}/**/*1.dcm"], []))
    assert pattern == [(os.fsencode(tmp_path / "b/00001.dcm"), False)]
    # A file whose name looks like a pattern is that file.
    odd = tmp_path / "[x].dcm"
    odd.write_bytes(b"")
    assert list(paths_of([str(odd)], [])) == [(os.fsencode(odd), True)]
    # Before a file is looked at, wherever among the arguments it stands.
    with pytest.raises(ConfigError, match="there is no"):
        paths_of([str(odd), str(tmp_path / "*.none")], [])


def test_patterns_enter_no_folder_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links to a folder's own folder lead nowhere else, and two of them do not go on for ever."""
    write_files(tmp_path / "in/a", 1)
    write_files(tmp_path / "in/.hidden", 1)
    os.symlink(".", tmp_path / "in/here")
    os.symlink("..", tmp_path / "in/a/up")
    monkeypatch.chdir(tmp_path)
    for pattern, expected in (
        ("in/**/*.dcm", ["in/a/00000.dcm"]),
        ("**/*.dcm", ["in/a/00000.dcm"]),
        ("./**/a/*.dcm", ["./in/a/00000.dcm"]),
        ("i*/**/**/0*", ["in/a/00000.dcm"]),
        (f"{tmp_path}/**/0*", [f"{tmp_path}/in/a/00000.dcm"]),
    ):
        assert [os.fsdecode(path) for path, _ in paths_of([pattern], [])] == expected
    # All that is in it, once.
    everything = [os.path.basename(path) for path, _ in paths_of(["in/**"], [])]
    assert everything == [b"00000.dcm", b"00000.dcm"]


def test_looking(tmp_path: Path) -> None:
    directory = data_set(sop_class="1.2.840.10008.1.3.10")
    (tmp_path / "DICOMDIR").write_bytes(part10(directory, sop_class="1.2.840.10008.1.3.10"))
    (tmp_path / "empty").write_bytes(part10(b""))
    (tmp_path / "text").write_text("text")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    write_files(tmp_path, 1)
    found = Found()
    finder = Finder([str(tmp_path)])
    for number in range(1, 6):
        finder.look(found, 1, 60.0)
        assert (finder.seen, finder.complete) == (number, False)
    finder.look(found, 1, 60.0)
    assert (finder.seen, finder.complete) == (5, True)
    assert [os.path.basename(path) for path, _ in found.files] == [b"00000.dcm"]
    assert dict(found.skipped) == {
        os.fsencode(tmp_path / "DICOMDIR"): "a DICOMDIR is no instance",
        os.fsencode(tmp_path / "text"): "it is not DICOM: it has no File Meta Information "
        "(no DICM at byte 128)",
    }
    assert {os.path.basename(path): why for path, why in found.failed} == {
        b"dangling": "cannot be read: No such file or directory",
        b"empty": "it has no data set",
    }
    ((_path, why),) = look_at_all(tmp_path / "DICOMDIR").failed
    assert why == "a DICOMDIR is no instance; name the folder it lies in"
    in_no_time = Finder([str(tmp_path)])
    in_no_time.look(found, 1000, 0.0)
    assert (in_no_time.seen, in_no_time.complete) == (0, False)


def look_at_all(*arguments: object) -> Found:
    found = Found()
    Finder(map(str, arguments)).look(found, 1_000_000, 60.0)
    return found


def test_what_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be read is a failure; so is an argument that may be there."""
    for name in "abc":
        write_files(tmp_path / name, 1)
    locked = os.fsencode(tmp_path / "b")
    scandir = os.scandir

    def guarded(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
        if folder == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    too_long = tmp_path / ("x" * 300)
    found = look_at_all(tmp_path, too_long)
    assert [path for path, _ in found.files] == [
        os.fsencode(tmp_path / name / "00000.dcm") for name in "ac"
    ]
    assert dict(found.failed) == {
        locked: "cannot be read: Permission denied",
        os.fsencode(too_long): "cannot be read: File name too long",
    }


def test_links_and_other_things(tmp_path: Path) -> None:
    """Links are followed, no folder is searched twice, and the rest is no DICOM."""
    path = write_files(tmp_path / "in/a", 1)[0]
    os.symlink(path, tmp_path / "in/link")
    os.symlink(".", tmp_path / "in/here")
    os.symlink("loop", tmp_path / "in/loop")
    os.mkfifo(tmp_path / "in/pipe")
    # One that was opened would be an error.
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "in/socket"))
    found = look_at_all(tmp_path / "in")
    assert [os.path.relpath(os.fsdecode(one), tmp_path) for one, _ in found.files] == [
        "in/link", "in/a/00000.dcm",
    ]  # fmt: skip
    assert [(os.path.basename(one), why) for one, why in found.skipped] == [
        (b"pipe", "it is a named pipe, not a file"), (b"socket", "it is a socket, not a file"),
    ]  # fmt: skip
    assert [os.path.basename(one) for one, _ in found.failed] == [b"loop"]
    named = look_at_all("/dev/null", tmp_path / "in/pipe")
    assert [why for _, why in named.failed] == [
        "it is a device, not a file", "it is a named pipe, not a file",
    ]  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A store with an instance, an unfinished one, and a folder beside it."""
    write_files(tmp_path / "store/study", 1)
    (part,) = write_files(tmp_path / "store/.fastscp/incoming/life", 1)
    part.rename(part.with_name("0000.part"))
    write_files(tmp_path / "beside/inner", 1)
    return tmp_path / "store"


def names(found: Found) -> list[str]:
    return [os.fsdecode(path) for path, _ in found.files]


def test_a_stores_own_folder_is_passed_over(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it lies below what is named; of a store around the store, too."""
    write_files(kept / "inner/.fastscp/incoming/x", 3)
    (kept / "link").symlink_to(".fastscp/incoming")
    with caplog.at_level("INFO", "fastscp.send"):
        found = look_at_all(kept)
    assert names(found) == [f"{kept}/study/00000.dcm"]
    assert (found.skipped, found.failed) == ([], [])
    # The file system has its own order of what is in a folder.
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{kept}/.fastscp is passed over: it is a service's own folder",
        f"{kept}/inner/.fastscp is passed over: it is a service's own folder",
        f"{kept}/link is passed over: it leads to a service's own folder",
    ]
    monkeypatch.chdir(kept)
    # A glob finds files more than once, and the link as if it were named.
    for argument in (".", "../store", "../store/", "*", "**", "../*", ".fastscp/../study"):
        found = look_at_all(argument)
        assert {os.path.realpath(name) for name in names(found)} - {
            f"{kept.parent}/beside/inner/00000.dcm"
        } == {f"{kept}/study/00000.dcm"}
        assert {path.rpartition(b"link")[1] for path, _ in found.failed} <= {b"link"}


def test_what_is_named_inside_a_stores_own_folder(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly, by glob, by `..`, by links, relative or not: a failure with its name."""
    beside = kept.parent / "beside"
    part = ".fastscp/incoming/life/0000.part"
    (beside / "file").symlink_to(kept / part)
    (beside / "folder").symlink_to(kept / ".fastscp/incoming")
    (beside / "twice").symlink_to("folder/life")
    monkeypatch.chdir(kept / "study")
    for argument, name in {
        kept / ".fastscp": None,
        f"{kept}/.fastscp/": None,
        f"{kept}/.fastscp/incoming/life/..": None,
        kept / part: None,
        f"{kept}/.fastscp/incoming/*/*.part": kept / part,
        f"{kept}/.*": kept / ".fastscp",
        f"{kept}/study/../{part}": None,
        f"../{part}": None,
        beside / "file": None,
        beside / "folder": None,
        beside / "folder/life/0000.part": None,
        f"{beside}/twice/*": beside / "twice/0000.part",
        beside / "inner/../twice": None,
    }.items():
        found = look_at_all(argument)
        assert (found.files, found.skipped) == ([], []), argument
        assert found.failed == [(str(name or argument).encode(), OWN)], argument
    monkeypatch.chdir(kept / ".fastscp/incoming/life")
    for argument in ("0000.part", "*.part", ".", "..", "./0000.part"):
        ((_, why),) = look_at_all(argument).failed
        assert why == OWN
    # A link in it that leads out of it is no way in.
    (kept / ".fastscp/out").symlink_to(beside / "inner")
    assert names(look_at_all(kept / ".fastscp/out")) == [f"{kept}/.fastscp/out/00000.dcm"]


def test_links_into_a_stores_own_folder(kept: Path) -> None:
    beside = kept.parent / "beside"
    part = kept / ".fastscp/incoming/life/0000.part"
    (beside / "direct").symlink_to(part)
    (beside / "inner/again").symlink_to("../direct")
    (beside / "fine").symlink_to(kept / "study/00000.dcm")
    (beside / "gone").symlink_to(part.with_name("0001.part"))
    found = look_at_all(beside)
    assert sorted(names(found)) == [f"{beside}/fine", f"{beside}/inner/00000.dcm"]
    assert dict(found.failed) == {
        os.fsencode(beside / name): OWN for name in ("direct", "inner/again", "gone")
    }


def test_a_file_that_has_the_name(tmp_path: Path) -> None:
    (path,) = write_files(tmp_path, 1)
    path = path.rename(tmp_path / ".fastscp")
    for argument in (path, tmp_path):
        assert names(look_at_all(argument)) == [str(path)]


def test_depths(tmp_path: Path) -> None:
    """Deeper than any recursion gets."""
    folders = [f"{tmp_path}{'/a' * depth}" for depth in range(1, 1201)]
    for folder in folders:
        os.mkdir(folder)
    (path,) = write_files(tmp_path / "file", 1)
    path.rename(f"{folders[-1]}/file")
    try:
        assert [one for one, _ in look_at_all(tmp_path).files] == [f"{folders[-1]}/file".encode()]
    finally:
        # Who cleans up behind the tests does so by recursion.
        os.unlink(f"{folders[-1]}/file")
        for folder in reversed(folders):
            os.rmdir(folder)


def test_a_pipe_in_the_place_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sop = "1.2.3.4.5.6.7.8.9"
    path.write_bytes(part10(data_set(sop=sop), sop=sop))
    head = read_head(path)
    assert head is not None
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        uid_places(str(path), head)


# Words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            AssociationRejected(1, 1, 7),
            ("the association was rejected permanently: called AE title not recognized "
            "(service user; result 1, source 1, reason 7)"),
        ),
        (
            AssociationRejected(1, 1, 3, "CT 1", "PACS"),
            ("the association was rejected permanently: calling AE title not recognized: 'CT 1' "
            "(service user; result 1, source 1, reason 3)"),
        ),
        (
            AssociationRejected(2, 2, 1, "CT 1", "PACS"),
            ("the association was rejected transiently: no reason given "
            "(service provider, ACSE; result 2, source 2, reason 1)"),
        ),
        (
            AssociationRejected(2, 3, 1),
            ("the association was rejected transiently: temporary congestion "
            "(service provider, presentation; result 2, source 3, reason 1)"),
        ),
        (
            AssociationRejected(9, 8, 7),
            ("the association was rejected (result 9): reserved reason 7 "
            "(unknown source 8; result 9, source 8, reason 7)"),
        ),
        (
            AssociationAborted(2, 2),
            ("the peer aborted the association (service provider, unexpected PDU; "
            "source 2, reason 2)"),
        ),
        (
            AssociationAborted(0, 5),
            "the peer aborted the association (service user; source 0, reason 5)",
        ),
        (AssociationAborted(2, 9), ("the peer aborted the association (service provider, "
         "reserved reason 9; source 2, reason 9)")),
        (AssociationReleased(by_peer=True), "the association was released by the peer"),
        (ConnectionFailed("h:1", "no"), "cannot connect to h:1: no"),
        (ConnectionLost("now", "why"), "the connection was lost now (why)"),
        (ConnectionLost("now"), "the connection was lost now"),
        (PeerTimeout("answer", 2.5), "the peer did not answer within 2.5 s"),
        (ProtocolViolation("x"), "the peer broke the protocol: x; association aborted"),
        (
            ContextRefused(CT, DEFLATED, 4),
            ("the peer refused the presentation context for CT Image Storage "
            f"({CT}) in Deflated Explicit VR Little Endian ({DEFLATED}): "
            "transfer syntaxes not supported"),
        ),
        (
            ContextRefused("1.2\n3", ELE, None),
            ("no presentation context was proposed for 1.2\\n3 in Explicit VR Little Endian "
            f"({ELE}): give it to associate()"),
        ),
    ],
)  # fmt: skip
def test_errors_in_words(error: FastscpError, text: str) -> None:
    assert str(error) == text
    assert error.exit_code == 1


def test_move_originator() -> None:
    assert read_move_originator("A:B:7") == ("A:B", 7)
    for wrong in ("A", ":1", "A:", "A:x", "A:65536", "A" * 17 + ":1"):
        with pytest.raises(ValueError, match=r"\w"):
            read_move_originator(wrong)


def test_rejection_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(AssociationRejected(2, 3, 2)))
    assert (again.result, again.source, again.reason) == (2, 3, 2)
    assert again.transient

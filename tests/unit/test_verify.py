"""`fastscp verify` and `fastscp cat`, and what they stand on: the journal read and added to."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pty
import re
import subprocess
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from fastscp import uids
from fastscp.association.account import in_bytes
from fastscp.cli import app as cli
from fastscp.cli.verify_output import Table
from fastscp.errors import FastscpError, StartError, StoreBusyError
from fastscp.store import adopt
from fastscp.store.access import held
from fastscp.store.compare import Comparison
from fastscp.store.findings import Finding, Kind, Mark, Report
from fastscp.store.journal import (
    Segments,
    Tail,
    append_fact,
    find_path,
    last_sequence,
    parse_line,
    segment_names,
)
from fastscp.store.reading import NoInstanceError, describe, difference
from fastscp.store.store import Store
from fastscp.store.verify import Verification, verify
from fastscp_ext import build_meta, crc32c
from tests.kit import (
    BIG,
    CT,
    DEFLATED,
    ELE,
    ILE,
    SERIES,
    SOP,
    STUDY,
    Service,
    data_set,
    element,
    path_of,
    store,
)
from tests.stores import FILED, said_at_start
from tests.unit.test_readme import section

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("no_descriptor_left")


def part10(
    data: bytes,
    syntax: str = ELE,
    *,
    sop: str = SOP,
    sender: str = "CT1",
    receiver: str = "ARCHIVE",
) -> bytes:
    meta = build_meta(
        CT.encode(), sop.encode(), syntax.encode(), uids.IMPLEMENTATION_CLASS_UID.encode(),
        uids.IMPLEMENTATION_VERSION_NAME.encode(), sender.encode(), receiver.encode(),
    )  # fmt: skip
    return meta + data


class Shelf:
    """A store without a service, filled by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        made = Store.open(path, FILED)
        made.close()
        self.journal = path / ".fastscp/journal"
        self._number = 0
        self.sequence = 0

    @classmethod
    def at(cls, path: Path) -> Shelf:
        """A store that somebody else made."""
        self = cls.__new__(cls)
        self.path, self.journal = path, path / ".fastscp/journal"
        self._number = self.sequence = 0
        return self

    def file(self, path: str, content: bytes) -> Path:
        there = self.path / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        return there

    def fact(self, path: str, data: bytes, **more: Any) -> dict[str, Any]:
        self.sequence += 1
        fact = {
            "v": 1,
            "event": "stored",
            "seq": self.sequence,
            "time": "2026-05-31T08:30:00.123456Z",
            "calling_ae": "CT1",
            "called_ae": "ARCHIVE",
            "peer": "10.1.2.3:50012",
            "sop_class_uid": CT,
            "sop_instance_uid": SOP,
            "study_instance_uid": STUDY,
            "series_instance_uid": SERIES,
            "transfer_syntax_uid": ELE,
            "path": path,
            "bytes": len(data),
            "digest": f"crc32c:{crc32c(data):08x}",
        }
        return fact | more

    def put(self, path: str, data: bytes, syntax: str = ELE, **more: Any) -> dict[str, Any]:
        """An instance with its line, which is returned."""
        self.file(path, part10(data, syntax))
        fact = self.fact(path, data, **({"transfer_syntax_uid": syntax} | more))
        self.lines(fact)
        return fact

    def lines(self, *lines: dict[str, Any] | bytes) -> Path:
        """One journal file more, with lines as facts or as they are."""
        self._number += 1
        segment = self.journal / f"{self._number:04x}-w0-1-1.jsonl"
        with segment.open("wb", buffering=0) as file:
            for line in lines:
                if isinstance(line, bytes):
                    file.write(line)
                else:
                    append_fact(file.fileno(), line)
        return segment

    def facts(self) -> list[dict[str, Any]]:
        with self.opened() as fd:
            facts = [line.fact for line in Tail(fd).read() if line.fact is not None]
        return sorted(facts, key=lambda fact: int(fact["seq"]))

    def opened(self) -> Folder:
        return Folder(self.path)


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def look(shelf: Shelf, **options: Any) -> Report:
    return verify(shelf.path, **({"patience_s": 0.0} | options))


def kinds(report: Report) -> dict[str, Kind]:
    assert len({finding.path for finding in report.findings}) == len(report.findings)
    return {finding.path: finding.kind for finding in report.findings}


# Comparing --------------------------------------------------------------------------------------


def test_nothing_to_find(shelf: Shelf) -> None:
    shelf.put("a/1.dcm", data_set())
    shelf.put("a/2.dcm", data_set(ILE), ILE)
    shelf.put("a/3.dcm~2", data_set(BIG), BIG)
    shelf.put("b/4.dcm", data_set(DEFLATED), DEFLATED)
    data = data_set(pixels=3 << 20)
    shelf.put("b/5.dcm", data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
    packed = shelf.fact("b/6.dcm.zst", data)
    shelf.file("b/6.dcm.zst", zstandard.ZstdCompressor(write_checksum=True).compress(part10(data)))
    without = shelf.fact("7.dcm", data)
    del without["digest"]
    shelf.file("7.dcm", part10(data))
    shelf.lines(packed, without)
    report = look(shelf)
    assert report.findings == ()
    assert report.clean
    assert (report.lines, report.files, report.torn, report.mark) == (7, 7, (), Mark.NONE)
    assert report.bytes == sum(fact["bytes"] for fact in shelf.facts())


def test_an_empty_store(shelf: Shelf) -> None:
    assert look(shelf) == Report(0, 0, 0, (), 0, 0, Counter(), 0, (), Mark.NONE)


def test_everything_to_find(shelf: Shelf) -> None:
    data = data_set()
    for name in ("fine", "missing", "short", "flipped", "headless", "empty", "link"):
        shelf.put(f"a/{name}.dcm", data)
    (shelf.path / "a/missing.dcm").unlink()
    (shelf.path / "a/empty.dcm").write_bytes(b"")
    (shelf.path / "a/short.dcm").write_bytes(part10(data[:-10]))
    (shelf.path / "a/flipped.dcm").write_bytes(part10(data[:-1] + b"\xff"))
    (shelf.path / "a/headless.dcm").write_bytes(data)
    (shelf.path / "a/link.dcm").unlink()
    (shelf.path / "a/link.dcm").symlink_to("fine.dcm")
    shelf.file("b/c/extra.dcm", part10(data))
    shelf.file("notes.txt", b"")
    shelf.file(".fastscp/incoming/x/0.part", b"")
    shelf.file("lost+found/x", b"")
    report = look(shelf)
    assert kinds(report) == {
        "a/missing.dcm": Kind.MISSING,
        "a/short.dcm": Kind.CHANGED,
        "a/flipped.dcm": Kind.CHANGED,
        "a/headless.dcm": Kind.CHANGED,
        "a/empty.dcm": Kind.CHANGED,
        "a/link.dcm": Kind.UNREADABLE,
        "b/c/extra.dcm": Kind.UNJOURNALED,
        "notes.txt": Kind.UNJOURNALED,
    }
    assert not report.clean
    why = {finding.path: finding.why for finding in report.findings}
    assert why["a/short.dcm"] == f"a data set of {len(data) - 10} bytes, journaled with {len(data)}"
    assert "journaled with crc32c:" in why["a/flipped.dcm"]
    assert "file header" in why["a/headless.dcm"]


@pytest.mark.parametrize("options", [{}, {"adopt": True}, {"repair_journal": True}])
def test_what_a_store_has_of_its_own(shelf: Shelf, options: dict[str, bool]) -> None:
    """No folder of that name is looked into; a store inside the store has one as well."""
    inner = Shelf(shelf.path / "inner")
    for one in (shelf, inner):
        one.file(".fastscp/incoming/life/0.part", part10(data_set()))
        one.file(".fastscp/journal/x.jsonl.damaged", b"")
    report = look(shelf, **options)
    assert (report.findings, report.files) == ((), 0)


@pytest.mark.parametrize("cut", [-1, -6, 20])
def test_a_cut_compressed_file(shelf: Shelf, cut: int) -> None:
    data = data_set(pixels=100_000)
    shelf.file(
        "1.dcm.zst", zstandard.ZstdCompressor(write_checksum=True).compress(part10(data))[:cut]
    )
    fact = shelf.fact("1.dcm.zst", data)
    shelf.lines(fact)
    (finding,) = look(shelf).findings
    assert finding.kind is Kind.CHANGED
    assert finding.why.startswith("cannot be decompressed (")


def test_a_digest_of_another_time_is_not_compared(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set(), digest="blake9:00")
    assert look(shelf).clean


def test_the_highest_number_counts(shelf: Shelf) -> None:
    old, new = data_set(), data_set(seed=1)
    first = shelf.fact("1.dcm", old)
    second = shelf.fact("1.dcm", new, duplicate="replaced")
    shelf.file("1.dcm", part10(new))
    shelf.lines(second)
    shelf.lines(first)
    assert look(shelf).clean
    shelf.file("1.dcm", part10(old))
    assert kinds(look(shelf)) == {"1.dcm": Kind.CHANGED}


def test_a_kept_instance_and_other_events_say_nothing_of_the_file(shelf: Shelf) -> None:
    fact = shelf.put("1.dcm", data_set())
    shelf.lines(shelf.fact("1.dcm", b"another", duplicate="kept"))
    shelf.lines(shelf.fact("1.dcm", b"", event="looked at"), {"v": 1, "event": "x", "seq": 9})
    assert look(shelf).clean
    with shelf.opened() as fd:
        assert find_path(fd, "1.dcm") == fact | {"crc": find_path(fd, "1.dcm")["crc"]}  # type: ignore[index]


def test_the_watcher_is_told(shelf: Shelf) -> None:
    data = data_set()
    for number in range(3):
        shelf.put(f"{number}.dcm", data)
    told: list[tuple[int, int, int]] = []
    look(shelf, watcher=lambda *, files, size, total: told.append((files, size, total)))
    assert told == [(n, n * len(data), 3 * len(data)) for n in (1, 2, 3)]


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="is not a store") as caught:
        verify(tmp_path)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


# Beside a service -------------------------------------------------------------------------------


def test_a_line_that_comes_after_the_walk(shelf: Shelf) -> None:
    data = data_set()
    shelf.file("1.dcm", part10(data))

    def journaled(**_: int) -> None:
        shelf.lines(shelf.fact("1.dcm", data))

    assert look(shelf, watcher=journaled).clean


def test_a_file_replaced_after_the_journal_was_read(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set())
    new = data_set(seed=1)
    shelf.file("1.dcm", part10(new))

    def journaled(**_: int) -> None:
        shelf.lines(shelf.fact("1.dcm", new, duplicate="replaced"))

    assert look(shelf, watcher=journaled).clean


def test_a_file_that_comes_after_the_walk(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not seen, though the journal has its line: looked at again, not reported missing."""
    shelf.put("1.dcm", data_set())
    monkeypatch.setattr(Comparison, "_walk", lambda *_: iter(()))
    assert look(shelf).clean


@pytest.mark.parametrize("kind", [Kind.UNJOURNALED, Kind.CHANGED])
def test_a_young_file_is_waited_for(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    data = data_set()
    if kind is Kind.CHANGED:
        shelf.put("1.dcm", data_set(seed=1))
    shelf.file("1.dcm", part10(data))
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            shelf.lines(shelf.fact("1.dcm", data))

    monkeypatch.setattr(time, "sleep", sleep)
    assert look(shelf, patience_s=60.0).clean
    assert len(naps) == 3


def test_patience_ends(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.file("1.dcm", part10(data_set()))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    assert kinds(look(shelf, patience_s=5.0)) == {"1.dcm": Kind.UNJOURNALED}
    assert 5.0 <= now[0] < 6.0


def test_a_half_written_line_is_read_when_it_is_whole(shelf: Shelf) -> None:
    data = data_set()
    fact = shelf.fact("1.dcm", data)
    segment = shelf.lines(fact)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:40])
    shelf.file("1.dcm", part10(data))
    report = look(shelf, watcher=lambda **_: segment.write_bytes(whole))
    assert (report.clean, report.lines, report.torn) == (True, 1, ())


def test_a_running_service(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service, service.peer((1, CT, ELE)) as peer:
        for number in range(3):
            sop = f"{SOP}.{number}"
            peer.send(store(number + 1, data_set(sop=sop), sop=sop, context=1))
            assert peer.read_response().status == 0
        report = verify(service.store)
        assert (report.clean, report.files, report.lines) == (True, 3, 3)
        done = command("verify", "--store", str(service.store), "--adopt")
        assert done.returncode == 3
        assert f"in use by process {service.pid}: --adopt".encode() in done.stderr
        assert b"stop that service" in done.stderr
        peer.release()
    assert verify(service.store, adopt=True).clean


@pytest.mark.parametrize("policy", ["version", "replace", "keep"])
@pytest.mark.parametrize("most", [50, pytest.param(500, marks=pytest.mark.long)])
def test_a_busy_service(tmp_path: Path, policy: str, most: int) -> None:
    """New instances and duplicates come in all the time: none of it is ever a finding."""
    with Service(tmp_path, "--on-duplicate", policy) as service:
        done = threading.Event()

        def send() -> None:
            with service.peer((1, CT, ELE)) as peer:
                number = 0
                while not done.is_set():
                    number += 1
                    # Eight different ones at most: no more versions are kept.
                    data = data_set(sop=f"{SOP}.{number // 8}", seed=number % 8)
                    peer.send(store(number % 60000, data, sop=f"{SOP}.{number // 8}", context=1))
                    assert peer.read_response().status in (0, 0xB006)
                peer.release()

        with ThreadPoolExecutor() as pool:
            senders = [pool.submit(send) for _ in range(2)]
            try:
                files = 0
                while files < most:
                    report = verify(service.store)
                    assert report.findings == ()
                    files = report.files
            finally:
                done.set()
            for sender in senders:
                sender.result()
    assert verify(service.store, patience_s=0.0).clean


# A damaged journal ------------------------------------------------------------------------------


def damaged(shelf: Shelf) -> tuple[Path, list[bytes]]:
    """A journal file with four lines, two of them damaged, and a torn end; the files are there."""
    data = data_set()
    facts = [
        shelf.fact(f"{number}.dcm", data, sop_instance_uid=f"{SOP}.{number}") for number in range(5)
    ]
    for number in range(5):
        shelf.file(f"{number}.dcm", part10(data, sop=f"{SOP}.{number}"))
    segment = shelf.lines(*facts)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"stored", b"st0red")
    lines[2] = b"\0\0\0\n"
    lines[4] = lines[4][:30]
    segment.write_bytes(b"".join(lines))
    return segment, lines


def test_damaged_lines(shelf: Shelf) -> None:
    segment, _lines = damaged(shelf)
    report = look(shelf)
    name = f".fastscp/journal/{segment.name}"
    assert report.findings[3:] == (
        Finding(Kind.DAMAGED, name, "line 2: its checksum is wrong"),
        Finding(Kind.DAMAGED, name, "line 3: its checksum is wrong"),
    )
    assert {f.path: f.kind for f in report.findings[:3]} == {
        f"{number}.dcm": Kind.UNJOURNALED for number in (1, 2, 4)
    }
    assert (len(report.torn), report.lines) == (1, 2)


def test_a_journal_made_anew_meanwhile(shelf: Shelf) -> None:
    """What was wrong with the old file is no finding any more, and no line counts twice."""
    segment, lines = damaged(shelf)
    report = look(shelf, watcher=lambda **_: segment.write_bytes(lines[0] + lines[3]))
    assert {finding.kind for finding in report.findings} == {Kind.UNJOURNALED}
    assert (report.torn, report.lines) == ((), 2)


def test_a_torn_end_is_no_finding(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set())
    shelf.lines(b'{"v":1,"event":"stor')
    shelf.lines(shelf.fact("1.dcm", data_set()), b"{")
    before = {path.name: path.read_bytes() for path in shelf.journal.iterdir()}
    report = look(shelf, repair_journal=True)
    assert (report.clean, report.findings) == (True, ())
    torn = [name for name, content in sorted(before.items()) if not content.endswith(b"\n")]
    assert (report.torn, len(torn)) == (tuple(f".fastscp/journal/{name}" for name in torn), 2)
    assert {path.name: path.read_bytes() for path in shelf.journal.iterdir()} == before


def tails() -> dict[str, bytes]:
    """What no crash leaves at the end of a segment by cutting a line off."""
    body = b'{"v":1,"event":"stored","seq":9,"path":"9.dcm"'
    return {
        "zeros": bytes(100),
        "zeros of many blocks": bytes(3 << 16),
        "a beginning and zeros": body + bytes(50),
        "too long": body + b"x" * (1 << 16),
        "another beginning": b"stored" + body,
        "a wrong checksum": body + b',"crc":"00000000"}',
    }


@pytest.mark.parametrize("tail", tails())
def test_a_tail_that_is_no_line_is_a_finding(
    shelf: Shelf, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have been acknowledged lines; it is taken out, and a copy stays."""
    data = tails()[tail]
    shelf.put("1.dcm", data_set())
    segment = shelf.lines(shelf.fact("1.dcm", data_set()), data)
    assert cli.main(["verify", "--store", str(shelf.path)]) == 1
    out = capsys.readouterr().out
    assert f"line 2: its last {len(data)} bytes are no line" in out
    assert "what they held is unknown" in out
    assert "as a crash leaves" not in out
    report = look(shelf, repair_journal=True)
    (finding,) = report.findings
    kept = f".fastscp/journal/{segment.name}.damaged"
    assert (finding.kind, finding.settled) == (Kind.DAMAGED, f"taken out, the original is {kept}")
    assert (report.torn, report.clean) == ((), True)
    assert (shelf.path / kept).read_bytes().endswith(data)
    assert look(shelf).findings == ()


def test_every_cut_of_a_line_is_torn(shelf: Shelf) -> None:
    """Of the lines that a service and `--adopt` write."""
    shelf.file("1.dcm", part10(data_set()))
    shelf.put("2.dcm", data_set())
    look(shelf, adopt=True)
    lines = [part.read_bytes() for part in sorted(shelf.journal.iterdir())]
    cuts = [line[:size] for line in lines if line for size in range(1, len(line) - 1)]
    for segment in shelf.journal.iterdir():
        segment.unlink()
    segment = shelf.lines(b"")
    for cut in cuts[::7] + cuts[-3:]:
        segment.write_bytes(cut)
        with shelf.opened() as fd:
            assert [(one.torn, one.damaged) for one in Tail(fd).read()] == [(True, False)], cut


def test_a_last_line_without_its_newline_is_whole(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set())
    (segment,) = shelf.journal.iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    report = look(shelf)
    assert (report.clean, report.torn) == (True, ())


def test_repair(shelf: Shelf) -> None:
    segment, lines = damaged(shelf)
    original = segment.read_bytes()
    report = look(shelf, repair_journal=True)
    assert segment.read_bytes() == lines[0] + lines[3]
    kept = segment.with_name(segment.name + ".damaged")
    assert kept.read_bytes() == original
    assert {path.name for path in shelf.journal.iterdir()} == {segment.name, kept.name}
    assert [bool(f.settled) for f in report.findings] == [False, False, False, True, True]
    assert report.findings[3].settled == f"repaired, the original is .fastscp/journal/{kept.name}"
    assert not report.clean
    # Once more, by hand: the first original is not lost.
    segment.write_bytes(original)
    look(shelf, repair_journal=True)
    assert segment.with_name(segment.name + ".damaged2").read_bytes() == original


def test_repair_and_adopt(shelf: Shelf) -> None:
    damaged(shelf)
    report = look(shelf, repair_journal=True, adopt=True)
    assert report.clean
    assert [finding.settled[:8] for finding in report.findings] == ["adopted"] * 3 + [
        "repaired"
    ] * 2
    again = look(shelf)
    assert (again.findings, again.lines, again.torn) == ((), 5, ())


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_repair_that_fails_leaves_the_journal(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    segment, _lines = damaged(shelf)
    original = segment.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(OSError, match="failed"):
            look(shelf, repair_journal=True)
    assert [path.name for path in shelf.journal.iterdir()] == [segment.name]
    assert segment.read_bytes() == original


# Adoption ---------------------------------------------------------------------------------------


def test_adopt(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set())
    shelf.sequence = 41
    shelf.put("2.dcm", data_set())
    data = data_set(ILE)
    shelf.file(path_of(), part10(data, ILE))
    report = look(shelf, adopt=True)
    assert report.clean
    assert report.findings == (
        Finding(Kind.UNJOURNALED, path_of(), "the journal has no line for it", "adopted"),
    )
    fact = shelf.facts()[-1]
    assert list(fact)[-1] == "crc"
    assert fact.pop("time").endswith("Z")
    del fact["crc"]
    assert fact == {
        "v": 1,
        "event": "adopted",
        "seq": 43,
        "worker": "verify",
        "calling_ae": "CT1",
        "called_ae": "ARCHIVE",
        "sop_class_uid": CT,
        "sop_instance_uid": SOP,
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "transfer_syntax_uid": ILE,
        "path": path_of(),
        "bytes": len(data),
        "digest": f"crc32c:{crc32c(data):08x}",
    }
    again = look(shelf)
    assert (again.findings, again.lines) == ((), 3)
    with shelf.opened() as fd:
        assert last_sequence(fd) == 43


def test_what_stands_behind_a_deflated_stream_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inflater would keep all of it: it gets no more than the chunk that has the end."""
    fed: list[int] = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inflater = real(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            fed.append(len(data))
            return self._inflater.decompress(data, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inflater, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    # Without a Series Instance UID the tap waits for more until the end.
    data = data_set(DEFLATED, series="") + bytes(8 << 20)
    (tmp_path / "a.dcm").write_bytes(part10(data, DEFLATED))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NoInstanceError, match="series"):
            describe(fd, "a.dcm")
    finally:
        os.close(fd)
    assert len(fed) == 1
    assert fed[0] <= 1 << 20


@pytest.mark.parametrize("whole", [True, False])
def test_values_far_behind_in_a_deflated_stream(tmp_path: Path, whole: bool) -> None:
    """As far as a receiver finds them, also right in front of a fault."""
    plain = element(0x00080005, b"UT", bytes(3 << 20)) + data_set(pixels=0)
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(plain) + deflate.flush(zlib.Z_FINISH if whole else zlib.Z_SYNC_FLUSH)
    (tmp_path / "a.dcm").write_bytes(part10(data if whole else data + b"\xff" * 9, DEFLATED))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert describe(fd, "a.dcm").members["study_instance_uid"] == STUDY
    finally:
        os.close(fd)


@pytest.mark.parametrize("syntax", [ELE, ILE, BIG, DEFLATED])
@pytest.mark.parametrize("packed", [False, True])
def test_adopt_any_form(shelf: Shelf, syntax: str, packed: bool) -> None:
    data = data_set(syntax, pixels=3 << 20)
    content = part10(data, syntax)
    name = path_of() + (".zst" if packed else "")
    shelf.file(
        name, zstandard.ZstdCompressor(write_checksum=True).compress(content) if packed else content
    )
    assert look(shelf, adopt=True).clean
    (fact,) = shelf.facts()
    assert fact["study_instance_uid"] == STUDY
    assert (fact["bytes"], fact["digest"]) == (len(data), f"crc32c:{crc32c(data):08x}")
    assert look(shelf).findings == ()


def test_adopt_what_is_said_beside(shelf: Shelf) -> None:
    """Members that are there only where they say something."""
    content = part10(data_set(sop="1.2.x"), sop="1.2.x", sender="", receiver="")
    shelf.file(path_of("1.2.x") + "~2", content[:-4])
    # Labelled deflated, sent plain.
    shelf.file(path_of("1.3"), part10(data_set(sop="1.3"), DEFLATED, sop="1.3"))
    shelf.file(path_of("1.4"), part10(data_set(sop="1.4"), ILE, sop="1.4"))
    assert look(shelf, adopt=True).clean
    first, second, third = sorted(shelf.facts(), key=lambda fact: str(fact["path"]))
    assert look(shelf).findings == ()
    said = ("duplicate", "truncated", "odd_uid", "calling_ae", "syntax_mismatch")
    assert [first.get(name) for name in said] == ["version", True, True, None, None]
    assert second["study_instance_uid"] == STUDY
    assert third["syntax_mismatch"] is True


def test_what_is_not_adopted(shelf: Shelf) -> None:
    shelf.file("a.txt", b"hello")
    shelf.file("b.dcm", part10(data_set(study=""), ELE))
    shelf.file("c.dcm", part10(data_set(), ELE, sop="../x"))
    shelf.file(
        "d.dcm.zst", zstandard.ZstdCompressor(write_checksum=True).compress(part10(data_set()))[:-9]
    )
    os.mkfifo(shelf.path / "e.dcm")
    shelf.file(path_of(), part10(data_set()))
    (shelf.path / "g.dcm").symlink_to(path_of())
    report = look(shelf, adopt=True)
    why = {
        f.path: f.why.removeprefix("the journal has no line for it, and it ")
        for f in report.findings
    }
    assert why == {
        "a.txt": "does not begin with a DICOM file header: not adopted",
        "b.dcm": "has no usable study instance uid: not adopted",
        "c.dcm": "has no usable sop instance uid: not adopted",
        "d.dcm.zst": "cannot be decompressed (the file ends 1043 bytes too early): not adopted",
        "e.dcm": "is no regular file: not adopted",
        path_of(): "the journal has no line for it",
        "g.dcm": "is no regular file: not adopted",
    } | {"d.dcm.zst": why["d.dcm.zst"]}
    assert why["d.dcm.zst"].startswith("cannot be decompressed (")
    assert [f.path for f in report.findings if f.settled] == [path_of()]
    assert not report.clean
    assert len(shelf.facts()) == 1


def test_adopt_flushes_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then the directories on its way, then the line; each directory once."""
    monkeypatch.setattr(adopt, "_BATCH", 2)
    # So that those of another layout are adopted.
    shelf.put("a/b/0.dcm", data_set())
    for name in ("a/b/1.dcm", "a/b/2.dcm", "a/3.dcm"):
        shelf.file(name, part10(data_set()))
    steps: list[str] = []

    def record(call: Callable[..., Any], say: str = "") -> Callable[..., Any]:
        def recorded(fd: int, *rest: Any) -> Any:
            if rest:
                path = rest[0]["path"]
            else:
                path = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), shelf.path)
                path = "journal" if path.endswith(".jsonl") else path
            steps.append(f"{say} {path}")
            return call(fd, *rest)

        return recorded

    monkeypatch.setattr(os, "fsync", record(os.fsync, "flush"))
    monkeypatch.setattr(os, "fdatasync", record(os.fdatasync, "flush"))
    monkeypatch.setattr(adopt, "append_fact", record(append_fact, "write"))
    assert look(shelf, adopt=True).clean
    # Within a folder they come as the file system names them.
    steps = [re.sub(r"a/b/[12]\.dcm", "a/b/x.dcm", step) for step in steps]
    assert steps[0] == "flush .fastscp/journal"  # can this file system?
    assert steps[1:] == [
        *("flush a/3.dcm", "flush a", "flush ."),
        *("flush a/b/x.dcm", "flush a/b"),
        *("flush .fastscp/journal", "write a/3.dcm", "write a/b/x.dcm", "flush journal"),
        *("flush a/b/x.dcm", "write a/b/x.dcm", "flush journal"),
    ]


def test_adopt_fills_journal_files(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "_BATCH", 1)
    monkeypatch.setattr(adopt, "_SEGMENT_BYTES", 600)
    for number in range(5):
        sop = f"{SOP}.{number}"
        shelf.file(path_of(sop), part10(data_set(sop=sop), sop=sop))
    assert look(shelf, adopt=True).clean
    assert [fact["seq"] for fact in shelf.facts()] == [1, 2, 3, 4, 5]
    assert len(list(shelf.journal.iterdir())) == 3


def test_adopt_fails_at_the_journal(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.file(path_of(), part10(data_set()))

    def fail(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "failed")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(FastscpError, match=r"\(disk full\): 0 instances were adopted.*df -i"):
            look(shelf, adopt=True)


def test_a_name_that_is_no_text_is_not_adopted(
    shelf: Shelf, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line can have it. The others are adopted, and nothing stops."""
    # Nobody is about to write lines of what is young.
    given = Verification.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(Verification.__init__, "__kwdefaults__", given | {"patience_s": 0.0})
    raw = [os.fsencode(shelf.path) + name for name in (b"/M\xfcller.dcm", b"/\xff/1.dcm")]
    (shelf.path / os.fsdecode(b"\xff")).mkdir()
    for there in raw:
        with open(there, "wb") as file:
            file.write(part10(data_set()))
    paths = [f"{SERIES}/{number}.dcm" for number in range(3)]
    for path in paths:
        shelf.file(path, part10(data_set()))
    # Near these nothing else keeps a file from being adopted.
    shelf.put(f"{SERIES}/9.dcm", data_set())
    shelf.put("1.dcm", data_set())
    for options in ((), ("--adopt", "--json"), ("--adopt",)):
        assert cli.main(["verify", "--store", str(shelf.path), *options]) == 1
        out = capfdbinary.readouterr().out
        assert b"no UTF-8" in out or not options
        assert (b"2 unjournaled" in out) == (options == ("--adopt",))
    report = look(shelf, adopt=True)
    assert [os.fsencode(finding.path) for finding in report.findings if not finding.settled] == [
        os.path.relpath(there, os.fsencode(shelf.path)) for there in raw
    ]
    assert {fact["path"] for fact in shelf.facts()} >= set(paths)


@pytest.mark.parametrize("option", ["adopt", "repair_journal"])
def test_putting_right_needs_the_store(shelf: Shelf, option: str) -> None:
    shelf.file("1.dcm", part10(data_set()))
    with shelf.opened() as fd, held(shelf.path, fd):
        with pytest.raises(StoreBusyError) as caught:
            look(shelf, **{option: True})
        assert caught.value.pid == os.getpid()
        # Without, a service does not matter.
        assert kinds(look(shelf)) == {"1.dcm": Kind.UNJOURNALED}


# After an unclean buffered life ------------------------------------------------------------------


@pytest.fixture(params=["suspect", "buffered"])
def mark(shelf: Shelf, request: pytest.FixtureRequest) -> Path:
    """Left by a buffered life that did not end cleanly; another life may have begun since."""
    there: Path = shelf.path / ".fastscp" / request.param
    there.touch()
    return there


def test_the_mark_is_lifted(shelf: Shelf, mark: Path) -> None:
    shelf.put("1.dcm", data_set())
    assert look(shelf).mark is Mark.LIFTED
    assert not mark.exists()
    assert look(shelf).mark is Mark.NONE


def test_the_mark_stays(shelf: Shelf, mark: Path) -> None:
    shelf.put("1.dcm", data_set())
    shelf.file("1.dcm", b"")
    assert look(shelf, adopt=True).mark is Mark.STAYS
    assert mark.exists()


def test_the_mark_stays_while_a_service_runs(shelf: Shelf, mark: Path) -> None:
    with shelf.opened() as fd, held(shelf.path, fd):
        # The one of a buffered life that goes on says nothing yet.
        expected = Mark.IN_USE if mark.name == "suspect" else Mark.NONE
        assert look(shelf).mark is expected
    assert mark.exists()
    assert look(shelf).mark is Mark.LIFTED


def test_a_mark_that_came_meanwhile_stays(shelf: Shelf, mark: Path) -> None:
    shelf.put("1.dcm", data_set())

    def crashed_again(**_: int) -> None:
        mark.with_name("new").touch()
        mark.with_name("new").rename(mark)

    report = look(shelf, watcher=crashed_again)
    assert (report.clean, report.mark) == (True, Mark.STAYS)
    assert mark.exists()


def test_adopt_with_a_mark(shelf: Shelf, mark: Path) -> None:
    """What seems whole is adopted, and its line says in what condition the store was."""
    shelf.file(path_of(), part10(data_set()))
    shelf.file("2.dcm", part10(data_set())[:-4])
    report = look(shelf, adopt=True)
    assert {finding.path: finding.settled for finding in report.findings} == {
        path_of(): "adopted",
        "2.dcm": "",
    }
    assert report.mark is Mark.STAYS
    (fact,) = shelf.facts()
    assert fact["suspect"] is True
    (shelf.path / "2.dcm").unlink()
    # The line was written from the file, so that both agree says nothing of what was sent.
    assert look(shelf).mark is Mark.ADOPTED
    assert look(shelf).suspect == 1
    again = {**fact, "seq": fact["seq"] + 1, "event": "stored"}
    del again["suspect"], again["crc"]
    shelf.lines(again)
    assert look(shelf).mark is Mark.LIFTED


def test_contents_that_cannot_be_checked_keep_the_mark(shelf: Shelf, mark: Path) -> None:
    """Until the instance was sent again: to be flushed, or with a digest."""
    flushed = shelf.put("0.dcm", data_set(), digest="")
    unknown = [
        shelf.put(f"{number}.dcm", data_set(), digest=digest, durability="buffered")
        for number, digest in ((1, ""), (2, "blake9:00"))
    ]
    shelf.put("3.dcm", data_set(), durability="buffered")
    report = look(shelf)
    assert (report.clean, report.unchecked, report.unproven) == (True, 3, 2)
    assert report.mark is Mark.UNPROVEN
    assert mark.exists()
    again = {key: value for key, value in unknown[0].items() if key != "durability"}
    shelf.lines({**again, "seq": shelf.sequence + 1, "duplicate": "identical"})
    assert look(shelf).unproven == 1
    with_digest = {**unknown[1], "digest": f"crc32c:{crc32c(data_set()):08x}"}
    shelf.lines({**with_digest, "seq": shelf.sequence + 2, "duplicate": "identical"})
    report = look(shelf)
    assert (report.unchecked, report.unproven, report.mark) == (2, 0, Mark.LIFTED)
    assert flushed["digest"] == ""


def opened_store(shelf: Shelf) -> tuple[str, ...]:
    """What a start of the service says of the store."""
    there = Store.open(shelf.path, FILED)
    there.close()
    return said_at_start(there)


@pytest.mark.parametrize("content", [b"", b"junk", b'{"what":"file system"}'])
def test_a_flush_mark_that_cannot_be_read(shelf: Shelf, content: bytes) -> None:
    """It holds from now on, so whoever reads of it has to know what lifts it."""
    there = shelf.file(".fastscp/unflushed/x.json", content)
    shelf.put("1.dcm", data_set())
    (warning,) = opened_store(shelf)
    assert warning.startswith(".fastscp/unflushed/x.json cannot be read")
    assert warning.endswith("unmount the file system and mount it again")
    with shelf.opened() as fd, held(shelf.path, fd):
        # A service that runs changes nothing of that.
        (beside,) = look(shelf).findings
    (finding,) = look(shelf).findings
    assert finding == beside
    assert (finding.kind, finding.path) == (Kind.UNFLUSHED, ".fastscp/unflushed/x.json")
    assert finding.why == warning.removeprefix(f"{finding.path} ")
    there.unlink()
    assert opened_store(shelf) == ()
    assert look(shelf).clean


IN_THE_WAY = [
    ("unflushed", "file"),
    *(
        (name, kind)
        for name in ("unflushed/x.json", "buffered", "suspect", "journal/x.jsonl")
        for kind in ("folder", "fifo", "link")
    ),
]


@pytest.mark.parametrize(("name", "kind"), IN_THE_WAY)
def test_what_lies_in_the_way_is_named(shelf: Shelf, name: str, kind: str) -> None:
    """By the start and by `verify`, with its whole path and what to do."""
    there = shelf.path / ".fastscp" / name
    there.parent.mkdir(exist_ok=True)
    match kind:
        case "folder":
            there.mkdir()
        case "fifo":
            os.mkfifo(there)
        case "link":
            there.symlink_to("/etc/passwd")
        case "file":
            there.touch()
    shelf.put("1.dcm", data_set())
    with pytest.raises(FastscpError) as caught:
        look(shelf)
    assert str(caught.value).startswith(f"{there}: ")
    assert "move it away, and run `fastscp verify` again" in str(caught.value)
    if name.startswith("journal/"):
        # Read by the service once it has the store.
        return
    with pytest.raises(StartError, match="move it away") as refused:
        opened_store(shelf)
    assert f"{there}: " in str(refused.value)


def test_a_folder_among_flush_marks_is_in_nobodys_way(shelf: Shelf) -> None:
    (shelf.path / ".fastscp/unflushed/x.json.7.new").mkdir(parents=True)
    assert opened_store(shelf) == ()
    assert look(shelf).clean


# The journal ------------------------------------------------------------------------------------


def test_append_fact(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    fact = {"v": 1, "seq": 3, "path": 'a "b"\\\t\x7fé', "bytes": 2**40}
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        assert append_fact(fd, fact) + append_fact(fd, fact) == path.stat().st_size
    finally:
        os.close(fd)
    first, second = path.read_bytes().splitlines()
    assert first == second
    read = parse_line(first)
    assert read is not None
    assert list(read) == [*fact, "crc"]
    assert read == fact | {"crc": read["crc"]}


def test_append_fact_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _fd, data: len(data) - 1)
    with pytest.raises(OSError, match="in part"):
        append_fact(-1, {"v": 1})


@pytest.mark.parametrize(
    "path", ["a/1.dcm", "é/1.dcm", 'a"b/1.dcm', "a\\b/1.dcm", "a\x7fb\t/1.dcm"]
)
def test_find_path(shelf: Shelf, path: str) -> None:
    fact = shelf.put(path, data_set())
    shelf.put(path + "~2", data_set())
    # As the codec writes it.
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in path)
    body = f'{{"v":1,"event":"stored","seq":9,"path":"{escaped}","bytes":1'.encode()
    with shelf.opened() as fd:
        found = find_path(fd, path)
        assert found is not None
        assert found["seq"] == fact["seq"]
        assert difference(fd, path, found["bytes"], found["digest"]) == ""
        shelf.lines(b'%b,"crc":"%08x"}\n' % (body, crc32c(body)))
        again = find_path(fd, path)
        assert again is not None
        assert (again["seq"], again["bytes"]) == (9, 1)
        assert find_path(fd, "1.dcm") is None


def test_segments_of_one_life(shelf: Shelf) -> None:
    with shelf.opened() as fd:
        segments = Segments(fd, "0", "w", durable=True)
        for number in (1, 2):
            journal_fd, size = segments.next()
            assert size == 0
            append_fact(journal_fd, {"seq": number})
        segments.close()
        assert segment_names(fd) == ["0-w-1.jsonl", "0-w-2.jsonl"]
        assert last_sequence(fd) == 2


# The command line -------------------------------------------------------------------------------


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*Service.program(), *arguments],
        env=Service.environment(options.pop("env", None)),
        capture_output=True,
        check=False,
        **options,
    )


def test_verify_exit_codes(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "--store", str(shelf.path)]
    data = data_set()
    shelf.put("1.dcm", data)
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    size = f"{len(data)} bytes"
    assert captured.out == (
        f"{shelf.path}: 1 files, {size} of journaled data sets, 1 journal lines: nothing found\n"
    )
    assert captured.err == ""
    (shelf.path / "1.dcm").unlink()
    shelf.lines(b'{"v":1,"event":"st')
    assert cli.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"  missing      1.dcm  journaled with {len(data)} bytes, and not there; "
        f"from CT1 at 10.1.2.3:50012, 2026-05-31T08:30:00.123456Z"
    )
    assert lines[1].endswith(": 1 missing")
    assert lines[2].startswith("1 journal files end inside a line")
    (torn,) = [path for path in shelf.journal.iterdir() if not path.read_bytes().endswith(b"\n")]
    assert lines[2].endswith(f": .fastscp/journal/{torn.name}")
    assert lines[3:] == ["missing: have it sent again, or restore it from a backup"]
    assert cli.main(["verify", "--store", str(shelf.path / "no")]) == 3
    assert "there is no such directory" in capsys.readouterr().err
    assert cli.main([*arguments, "--what"]) == 2


def test_a_file_at_the_top_is_not_shown_below_a_study(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Table(print, shelf.path)
    for path in ("1.2/1.3/1.dcm", "1.dcm", "2.dcm", "1.2/1.3/2.dcm"):
        output.finding(Finding(Kind.UNJOURNALED, path, "why"), 1)
    assert [line.split("  why")[0] for line in capsys.readouterr().out.splitlines()] == [
        "1.2/", "  unjournaled  1.3/1.dcm", "./", "  unjournaled  1.dcm", "  unjournaled  2.dcm",
        "1.2/", "  unjournaled  1.3/2.dcm",
    ]  # fmt: skip


def test_verify_json(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.file(path_of(), part10(data_set()))
    odd = os.fsdecode(b"a\xff.txt")
    shelf.file(odd, b"x")
    (shelf.path / ".fastscp/suspect").touch()
    assert cli.main(["verify", "--store", str(shelf.path), "--adopt", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    told = section("Checking a store")
    assert [key for key in shown if f"`{key}`" not in told] == []
    assert shown == {
        "store": str(shelf.path),
        "complete": True,
        "clean": False,
        "unchecked": 0,
        "unproven": 0,
        "searched": True,
        "left": {"unjournaled": 1},
        "settled": 1,
        "lines": 0,
        "suspect": 1,
        "files": 2,
        "bytes": 0,
        "torn": 0,
        "torn_files": [],
        "mark": "stays",
        "findings": [
            {
                "kind": "unjournaled",
                "path": "a\\xff.txt",
                "why": "the journal has no line for it, and it has a name that is no UTF-8, which "
                "no line can have: rename it, or give it to the service with `fastscp send`: not "
                "adopted",
                "settled": "",
            },
            {
                "kind": "unjournaled",
                "path": path_of(),
                "why": "the journal has no line for it",
                "settled": "adopted",
            },
        ],
    }
    (shelf.path / odd).unlink()
    assert cli.main(["verify", "--store", str(shelf.path), "--repair-journal"]) == 0
    out = capsys.readouterr().out
    assert "nothing found\n" in out
    assert "stays: of 1 adopted files nobody knows" in out


def test_verify_takes_the_store_from_the_environment(shelf: Shelf) -> None:
    done = command("verify", "--json", env={"FASTSCP_STORE": str(shelf.path)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["store"] == str(shelf.path)
    assert done.stderr == b""


def test_verify_says_how_far_it_is_without_a_terminal(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("1.dcm", data_set())
    assert cli.main(["verify", "--store", str(shelf.path), "--json"]) == 0
    # Whoever waits a moment is told nothing.
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("fastscp.cli.verify._SAY_S", 0.0)
    assert cli.main(["verify", "--store", str(shelf.path), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["clean"] is True
    size = in_bytes(json.loads(told.out)["bytes"])
    assert told.err.splitlines()[-1] == f"verify: 1 files so far, {size} of about {size}"
    # The unit of `status`.
    assert cli.main(["verify", "--store", str(shelf.path)]) == 0
    assert f": 1 files, {size} of journaled data sets, 1 journal lines: nothing found\n" in (
        capsys.readouterr().out
    )


def test_verify_shows_its_progress_on_a_terminal(shelf: Shelf) -> None:
    shelf.put("1.dcm", data_set())
    ours, theirs = pty.openpty()
    try:
        # So that nobody has to read before it can write.
        os.set_blocking(ours, False)
        done = subprocess.run(
            [*Service.program(), "verify", "--store", str(shelf.path), "--json"],
            env=Service.environment({"TERM": "xterm"}),
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=False,
        )
        assert done.returncode == 0
        assert json.loads(done.stdout)["clean"] is True
        assert b"files" in os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_cat(shelf: Shelf, tmp_path: Path) -> None:
    content = part10(data_set(pixels=3 << 20))
    plain = shelf.file("a/1.dcm", content)
    packed = shelf.file(
        "a/2.dcm.zst~2", zstandard.ZstdCompressor(write_checksum=True).compress(content)
    )
    (tmp_path / "link.dcm").symlink_to(plain)
    for path in ("a/1.dcm", "a/2.dcm.zst~2", str(plain), str(packed), "link.dcm"):
        done = command("cat", path, "--store", str(shelf.path), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == content


def test_cat_needs_no_store(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"anything")
    assert command("cat", "1.dcm", cwd=tmp_path).stdout == b"anything"


def test_cat_of_what_is_the_services_own(shelf: Shelf, tmp_path: Path) -> None:
    """However it is named: below the store, by itself, or through a link."""
    part = shelf.file(".fastscp/incoming/life/0.part", part10(data_set()))
    fine = shelf.file("1.dcm", part10(data_set()))
    (shelf.path / "link").symlink_to(part)
    (tmp_path / "folder").symlink_to(part.parent)
    for path in (
        ".fastscp/incoming/life/0.part", "1/../.fastscp/store.toml", str(part), "link",
        "folder/0.part", str(shelf.journal), "store/.fastscp",
    ):  # fmt: skip
        done = command("cat", path, "--store", str(shelf.path), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, b""), path
    said = command("cat", ".fastscp/store.toml", "--store", str(shelf.path)).stderr
    assert b".fastscp/store.toml belongs to a service's own folder .fastscp" in said
    done = command("cat", ".fastscp/../1.dcm", "--store", str(shelf.path))
    assert done.stdout == fine.read_bytes()


def test_cat_what_cannot_be_read(shelf: Shelf) -> None:
    done = command("cat", "a/1.dcm", "--store", str(shelf.path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"No such file or directory" in done.stderr
    assert done.stderr.count(b"\n") == 1
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(os.urandom(100_000))
    shelf.file("2.dcm.zst", packed[:-9])
    done = command("cat", "2.dcm.zst", "--store", str(shelf.path))
    assert done.returncode == 1
    assert b"fastscp: 2.dcm.zst is damaged: " in done.stderr


def test_cat_refuses_a_terminal(shelf: Shelf) -> None:
    shelf.file("1.dcm", b"x")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*Service.program(), "cat", "1.dcm", "--store", str(shelf.path)],
            env=Service.environment(),
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"binary data to the terminal; redirect it" in done.stderr


def test_cat_into_a_pipe_that_nobody_reads(shelf: Shelf) -> None:
    shelf.file("1.dcm", bytes(10 << 20))
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [*Service.program(), "cat", "1.dcm", "--store", str(shelf.path)],
        env=Service.environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        assert os.read(ours, 100) == bytes(100)
        os.close(ours)
        assert process.communicate()[1] == b""
    assert process.returncode == 1

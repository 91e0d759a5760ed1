"""`fastscp verify` on large stores and parts of stores: what it tells when, and what it costs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

import msgspec
import pytest

from fastscp.cli import app as cli
from fastscp.cli import verify_output
from fastscp.cli.verify_output import Table
from fastscp.errors import FastscpError, StartError
from fastscp.store import compare, records
from fastscp.store.findings import Finding, Kind, Mark, Report
from fastscp.store.selection import Selection
from fastscp.store.store import Store
from fastscp.store.studies import Studies
from fastscp_ext import crc32c
from tests.kit import DEADLINE_S, SOP, STUDY, Service, data_set, path_of, wait_for
from tests.stores import FILED, LAYOUT, filed
from tests.unit.test_verify import Shelf, command, look, part10, shelf

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["shelf"]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

DATA = data_set()


def instance(shelf: Shelf, sop: str, study: str = STUDY, **more: Any) -> str:
    """A stored and journaled instance at its place in the default layout; returns the path."""
    path = path_of(sop, study=study)
    data = data_set(sop=sop, study=study)
    shelf.file(path, part10(data, sop=sop))
    shelf.lines(shelf.fact(path, data, sop_instance_uid=sop, study_instance_uid=study, **more))
    return path


# Cost -------------------------------------------------------------------------------------------


def test_the_journal_is_paced_by_what_is_read(shelf: Shelf) -> None:
    """Each byte once, however often it is asked for what is new; a torn end as often as read."""
    taken: list[int] = []
    for number in range(40):
        instance(shelf, f"1.{number}")
    with shelf.opened() as fd, records.records(fd, Selection(), taken.append) as notes:
        notes.read()
        segments = sorted(shelf.journal.iterdir())
        assert sum(taken) == sum(segment.stat().st_size for segment in segments)
        taken.clear()
        notes.read()
        assert taken == []
        more = segments[0].read_bytes()
        for segment in segments[:2]:
            with segment.open("ab") as file:
                file.write(more)
        notes.read()
        assert taken == [len(more)] * 2
        taken.clear()
        with segments[2].open("ab") as file:
            file.write(more[:-10])
        notes.read()
        notes.read()
        assert taken == [len(more) - 10] * 2


def large(shelf: Shelf, lines: int, files: int) -> None:
    """A store with so many lines whose files are missing, and so many empty files without."""
    fact = shelf.fact("", DATA)
    with (shelf.journal / "1-w0-1.jsonl").open("wb") as segment:
        for number in range(lines):
            sop = f"{SOP}.{number * 7919 % lines}"
            more = {"seq": number + 1, "path": path_of(sop, study=f"{STUDY}.{number // 500}")}
            body = msgspec.json.encode(fact | more | {"sop_instance_uid": sop})[:-1]
            segment.write(b'%b,"crc":"%08x"}\n' % (body, crc32c(body)))
    # In one folder, and each in its own.
    for number in range(files):
        shelf.file(f"flat/{number}" if number % 2 else f"{number}/x", b"")


# What the system says of a process that ended has in it what its parent was, before the exec. The
# cache of the notes is a small one, so that a small store fills it.
MEASURED = """
import re, sys
from fastscp.cli.app import main
from fastscp.store import records
records._CACHE_KIB = 1024
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1], file=sys.stderr)
sys.exit(code)
"""


def peak_kib(shelf: Shelf, *options: str) -> tuple[int, bytes]:
    """The most memory that one run had, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "verify", "--store", str(shelf.path), *options],
        env=Service.environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    # A run that takes long tells of its progress before.
    return int(done.stderr.splitlines()[-1]), done.stdout


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, Shelf]:
    """Stores in which nothing can be repaired; one has ten times as much as the other."""
    folder = tmp_path_factory.mktemp("shelves")
    small, big = Shelf(folder / "small"), Shelf(folder / "big")
    large(small, 5_000, 600)
    large(big, 50_000, 6_000)
    return small, big


@pytest.mark.parametrize("options", [("--repair-journal",), ("--repair-journal", "--json")])
def test_memory_does_not_grow_with_the_store(
    shelves: tuple[Shelf, Shelf], options: tuple[str, ...]
) -> None:
    """Ten times as many lines, files and folders, and findings."""
    small, big = shelves
    before, _out = peak_kib(small, *options)
    after, out = peak_kib(big, *options)
    assert after - before < 2048
    if "--json" in options:
        shown = json.loads(out)
        assert Counter(one["kind"] for one in shown["findings"]) == shown["left"]
        assert shown["left"] == {"missing": 50_000, "unjournaled": 6_000}
    else:
        assert len(out) < 100_000
        assert b": 50000 missing, 6000 unjournaled\n" in out


def test_no_file_is_left_below_tmpdir(shelf: Shelf, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    seen: list[str] = []
    shelf.put("1.dcm", DATA)

    def watch(**_: int) -> None:
        for fd in os.listdir("/proc/self/fd"):
            # The one that read the folder is closed.
            with contextlib.suppress(FileNotFoundError):
                link = os.readlink(f"/proc/self/fd/{fd}")
                if link.startswith(str(notes)):
                    seen.append(link)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(notes))
        look(shelf, watcher=watch)
    assert len(seen) == 1
    assert seen[0].endswith(" (deleted)")
    assert list(notes.iterdir()) == []


def test_a_tmpdir_that_cannot_be_used(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(shelf.path / "none"))
    with pytest.raises(StartError, match=r"/none \(No such file .* in TMPDIR"):
        look(shelf)


def test_a_tmpdir_that_is_full(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    large(shelf, 3000, 0)
    monkeypatch.setattr(records, "_TABLES", records._TABLES + "PRAGMA max_page_count = 40;")
    with pytest.raises(FastscpError, match=r"disk is full\); free some space there, or name a"):
        look(shelf)


# Telling ----------------------------------------------------------------------------------------


def test_what_is_certain_is_told_at_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_DOUBTS", 2)
    for number in range(9):
        shelf.file(f"{number}.dcm", b"")
    told: list[Finding] = []
    when: list[int] = []
    report = look(shelf, tell=told.append, watcher=lambda **_: when.append(len(told)))
    assert when == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert (len(told), report.findings, report.left) == (9, (), {Kind.UNJOURNALED: 9})


def test_time_passes_and_it_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for number in range(3):
        shelf.file(f"{number}.dcm", b"")
    told: list[Finding] = []
    when: list[int] = []

    def watch(**_: int) -> None:
        when.append(len(told))
        now[0] += 2.0

    look(shelf, tell=told.append, watcher=watch)
    assert when == [0, 1, 2]


def test_many_young_files_are_waited_for(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubts are no memory that grows: with too many of them the walk waits."""
    monkeypatch.setattr(compare, "_DOUBTS", 1)
    monkeypatch.setattr(compare, "_DOUBTS_MOST", 2)
    for number in range(6):
        shelf.file(f"{number}.dcm", b"")
    real = time.time
    later = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + later[0])

    def sleep(seconds: float) -> None:
        later[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    told: list[Finding] = []
    walked: list[float] = []
    look(shelf, patience_s=100.0, tell=told.append, watcher=lambda **_: walked.append(later[0]))
    assert len(told) == 6
    assert walked[:3] == [0.0] * 3
    assert walked[3] > 90.0


def finding(path: str, kind: Kind = Kind.UNJOURNALED) -> Finding:
    return Finding(kind, path, "why")


def shown(findings: list[Finding], depth: int, shelf: Shelf, *, early: bool = False) -> list[str]:
    lines: list[str] = []
    table = Table(lines.append, shelf.path)
    for one in findings:
        table.finding(one, depth)
    left = Counter(one.kind for one in findings)
    report = Report(0, 0, 0, (), 0, 0, left, 0, (), Mark.NONE)
    (table.end_early if early else table.end)(report)
    return lines


def test_the_table_is_by_study_and_has_an_end(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_output, "_SHOWN_OF_STUDY", 2)
    monkeypatch.setattr(verify_output, "_SHOWN", 4)
    findings = [finding(f"a/{number}/x.dcm") for number in range(5)]
    findings += [finding("b/1/x.dcm"), finding("top.dcm"), *map(finding, ("c/1", "c/2"))]
    lines = shown(findings, 1, shelf)
    assert lines[:-2] == [
        "a/",
        "  unjournaled  0/x.dcm  why",
        "  unjournaled  1/x.dcm  why",
        "  and 3 more",
        "b/",
        "  unjournaled  1/x.dcm  why",
        "./",
        "  unjournaled  top.dcm  why",
    ]
    assert lines[-2].endswith(": 9 unjournaled")
    assert lines[-1] == "5 of the findings are not shown: --json prints all"
    early = shown(findings, 1, shelf, early=True)
    assert early[-2:] == ["not finished; so far: " + lines[-2], lines[-1]]
    assert shown([finding("a/b/c/d"), finding("a/x"), finding("y")], 2, shelf)[:-1] == [
        "a/b/",
        "  unjournaled  c/d  why",
        "a/",
        "  unjournaled  x  why",
        "./",
        "  unjournaled  y  why",
    ]


@pytest.mark.parametrize(
    ("layout", "depth"),
    [
        (LAYOUT, 1),
        ("{SOPInstanceUID}.dcm", 1),
        ("{CalledAE}/{ReceivedDate}_{StudyInstanceUID}/{SOPInstanceUID}.dcm", 2),
        ("{Modality}/{StudyInstanceUID}_{SOPInstanceUID}.dcm", 1),
    ],
)
def test_how_deep_a_study_is(layout: str, depth: int) -> None:
    assert Studies((layout,)).depth("a/b/c.dcm", "") == depth


def test_names_are_shown_as_text(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.file("a\x1b[31m/b\n.dcm", b"")
    # Another store inside this one is named in words.
    inside = os.fsdecode(b"in\n\x1b\xff")
    Store.open(shelf.path / inside, FILED).close()
    shelf.file(f"{inside}/b\\.dcm", b"")
    arguments = ["verify", "--store", str(shelf.path), "--repair-journal"]
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 5
    assert r"in\n\x1b\udcff/" in out
    assert r"  b\\.dcm  " in out
    assert r"it is in another store, in\n\x1b\udcff: " in out
    assert cli.main([*arguments, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    told = {one["path"]: one["why"] for one in findings}
    assert told.keys() == {"a\x1b[31m/b\n.dcm", "in\n\x1b\\xff/b\\\\.dcm"}
    assert "it is in another store, in\n\x1b\\xff: " in told["in\n\x1b\\xff/b\\\\.dcm"]


def test_help_names_all_that_may_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(kind in out for kind in Kind)
    assert "changes the store without being asked" in out
    assert "130 interrupted" in out


def test_an_interruption(shelf: Shelf) -> None:
    """What was found is shown, the JSON is one whole document, and the exit code is 130."""
    shelf.file("1.txt", b"")
    # Its line takes a moment at that rate, and the file minutes.
    shelf.put(path_of(), data_set(pixels=1 << 20))
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [*Service.program(), "verify", "--store", str(shelf.path), "--repair-journal",
             "--max-rate", "4KiB", *options],
            env=Service.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Whoever runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process, contextlib.ExitStack() as after:  # fmt: skip
            after.callback(process.kill)
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            got = b""

            def is_told(stdout: IO[bytes] = process.stdout) -> bool:
                nonlocal got
                got += stdout.read() or b""
                return b"1.txt" in got

            wait_for(is_told, "the first finding")
            process.send_signal(signal.SIGINT)
            os.set_blocking(process.stdout.fileno(), True)
            out, err = process.communicate(timeout=DEADLINE_S)
            assert (process.returncode, err) == (130, b"fastscp: interrupted\n")
        if options:
            told = json.loads(got + out)
            assert (told["complete"], told["clean"]) == (False, False)
            assert [one["path"] for one in told["findings"]] == ["1.txt"]
        else:
            assert out.startswith(b"not finished; so far: ")
            assert b": 1 unjournaled\n" in out


def test_a_failure_leaves_a_whole_document(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.file(path_of(), part10(DATA))

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert cli.main(["verify", "--store", str(shelf.path), "--adopt", "--json"]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["complete"], told["left"], told["settled"]) == (False, {"unjournaled": 1}, 0)
    assert "(disk full): 0 instances were adopted before" in captured.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_pipe_that_nobody_reads(shelf: Shelf, options: tuple[str, ...]) -> None:
    large(shelf, 0, 3000)
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [*Service.program(), "verify", "--store", str(shelf.path), "--repair-journal", *options],
        env=Service.environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        assert os.read(ours, 10)
        os.close(ours)
        assert process.communicate(timeout=DEADLINE_S)[1] == b""
    assert process.returncode == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_output_that_is_full_is_named(shelf: Shelf, options: tuple[str, ...]) -> None:
    instance(shelf, SOP)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*Service.program(), "verify", "--store", str(shelf.path), *options],
            env=Service.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "fastscp: cannot write the result to stdout (No space left on device); send it "
    )
    assert done.returncode == 1


# What a store lost ------------------------------------------------------------------------------


def test_a_store_that_lost_all_it_knew(shelf: Shelf) -> None:
    shelf.file(path_of(), part10(DATA))
    (shelf.path / ".fastscp/store.toml").unlink()
    shelf.journal.rmdir()
    for options in ({}, {"adopt": True}):
        with pytest.raises(StartError, match=r"neither .*start the service once with --store-new"):
            look(shelf, **options)
    done = command("verify", "--store", str(shelf.path))
    assert (done.returncode, done.stdout) == (3, b"")


def test_contents_without_a_digest(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    for number, digest in enumerate(("", "", "blake9:00")):
        shelf.put(f"{number}.dcm", DATA, digest=digest)
    shelf.put("3.dcm", DATA)
    assert look(shelf).unchecked == 3
    assert cli.main(["verify", "--store", str(shelf.path)]) == 0
    out = capsys.readouterr().out
    assert "the contents of 3 files were not checked, only their headers and lengths" in out


# Lines ------------------------------------------------------------------------------------------


def test_a_number_given_twice(shelf: Shelf) -> None:
    shelf.put("1.dcm", DATA)
    shelf.put("2.dcm", DATA)
    other = shelf.fact("2.dcm", data_set(seed=1))
    first = shelf.lines(shelf.fact("1.dcm", DATA), shelf.fact("2.dcm", DATA, seq=1))
    same = shelf.lines(other | {"seq": 2})
    report = look(shelf, repair_journal=True)
    assert {(one.kind, one.path) for one in report.findings} == {
        (Kind.TWICE, f".fastscp/journal/{first.name}"),
        (Kind.TWICE, f".fastscp/journal/{same.name}"),
    }
    why = sorted(one.why for one in report.findings)
    assert why[0].startswith("line 1: its `seq` 2 is also that of line 1 of .fastscp/journal/0002-")
    assert why[1].startswith("line 2: its `seq` 1 is also that of line 1 of .fastscp/journal/0001-")
    assert not report.clean


def test_a_number_given_twice_in_one_segment(shelf: Shelf) -> None:
    shelf.put("1.dcm", DATA)
    (segment,) = shelf.journal.iterdir()
    segment.write_bytes(segment.read_bytes() * 2)
    (found,) = look(shelf).findings
    assert found.why.startswith("line 2: its `seq` 1 is also that of line 1 of it, ")


def test_a_segment_read_again_gives_no_number_twice(shelf: Shelf) -> None:
    """It became another one, so the reader begins anew; a line without newline comes again."""
    shelf.put("1.dcm", DATA)
    shelf.put("2.dcm", DATA)
    segment = min(shelf.journal.iterdir())
    whole = segment.read_bytes()
    segment.write_bytes(b"x" * 900 + b"\n" + whole[:-1])
    assert {
        one.kind for one in look(shelf, watcher=lambda **_: segment.write_bytes(whole)).findings
    } == set()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seq": "7"}, "it is no line of a journal (Expected `int`, got `str` - at `$.seq`)"),
        ({"seq": -7}, "it has a value that no line has"),
        ({"bytes": 1 << 70}, "it has a value that no line has"),
        ({"path": "a\0b"}, "it has a value that no line has"),
        ({"path": ""}, "it names no file"),
        ({"v": 2}, "it has version 2, and this program knows 1"),
    ],
)
def test_a_line_with_its_checksum_that_says_nothing(
    shelf: Shelf, change: dict[str, Any], why: str
) -> None:
    shelf.put("1.dcm", DATA)
    segment = shelf.lines(shelf.fact("2.dcm", DATA) | change)
    for options in ({}, {"repair_journal": True}):
        (found,) = look(shelf, **options).findings
        assert (found.kind, found.path) == (Kind.DAMAGED, f".fastscp/journal/{segment.name}")
        assert found.why.startswith("line 1: ")
        assert found.why.endswith(why)
        assert found.settled == ""


# Foreign files ----------------------------------------------------------------------------------


def test_another_store_inside(shelf: Shelf) -> None:
    """Its files are named, and not adopted; what the journal of this one has is compared."""
    inner = Shelf(shelf.path / "inner")
    instance(inner, SOP)
    shelf.put("inner/old.dcm", DATA)
    outer = path_of("1.7")
    shelf.file(outer, part10(data_set(sop="1.7"), sop="1.7"))
    report = look(shelf, adopt=True)
    found = {one.path: one for one in report.findings}
    assert {path: bool(one.settled) for path, one in found.items()} == {
        f"inner/{path_of()}": False,
        outer: True,
    }
    why = found[f"inner/{path_of()}"].why
    assert why.endswith("it is in another store, inner: verify that one by itself")
    assert len(shelf.facts()) == 2


@pytest.mark.parametrize(
    "layout", [LAYOUT, "{CallingAE}/{ReceivedDate}/{PatientID}/{SOPInstanceUID}.dcm"]
)
def test_what_lies_where_no_layout_puts_it(tmp_path: Path, layout: str) -> None:
    Store.open(tmp_path / "store", filed(layout)).close()
    shelf = Shelf.at(tmp_path / "store")
    right = path_of() if layout == LAYOUT else f"CT1/20260531/KIT-1/{SOP}.dcm"
    foreign = f"backup/{right}"
    for path in (right, f"{right}~2", foreign, "1.dcm"):
        shelf.file(path, part10(DATA))
    report = look(shelf, adopt=True)
    found = {one.path: one for one in report.findings}
    assert {path for path, one in found.items() if one.settled} == {right, f"{right}~2"}
    assert "is not where this store puts it, which is " in found[foreign].why
    assert found[foreign].why.endswith("`fastscp send`: not adopted")


def test_a_neighbour_that_the_journal_knows(shelf: Shelf) -> None:
    """Under an earlier layout: its line was damaged, those beside it were not."""
    shelf.put("CT/2020/1.dcm", DATA)
    shelf.file("CT/2020/2.dcm", part10(DATA))
    shelf.file("CT/2021/3.dcm", part10(DATA))
    found = {one.path: one.settled for one in look(shelf, adopt=True).findings}
    assert found == {"CT/2020/2.dcm": "adopted", "CT/2021/3.dcm": ""}

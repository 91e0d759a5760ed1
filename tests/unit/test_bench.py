"""The benchmark's own arithmetic, its workloads and its tables. Nothing is measured here."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest

from bench import __main__ as command
from bench import render, results, scenarios, trace
from bench.figures import figure, ratios
from bench.instances import compare, part10
from bench.measure import Point
from bench.model import LINKS, Host, Need
from bench.receiver import Setup
from bench.receivers import receiver, receivers
from bench.scenarios_limits import unlimited
from bench.scenarios_rules import title, write_tables
from bench.scenarios_soak import Pruner, counted, logged
from bench.variants import variant
from bench.workloads import MIX, SOP, STUDY, UID_LENGTH, Material, sent_by_load, uid
from fastscp.config.layers import load
from fastscp.messages.totals import Counted, Distribution
from fastscp.rules.book import Peer, Refusal, RuleBook
from fastscp.rules.build import build
from fastscp.rules.rule import Rule
from tests import measures

ROOT = Path(__file__).resolve().parents[2]


# --- tables of rules ---


def test_who_calls_a_title_of_the_tables_gets_both_of_its_tables(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    write_tables(file, 300)
    config = load({}, {}, file).config
    book = RuleBook(build(config, 1))
    for number in (0, 255, 299):
        rule = book.choose(Peer("LOAD", title(number), "127.0.0.1"))
        assert isinstance(rule, Rule)
        assert rule.name == f"ae.T{number:04}+from.s{number:04}"
    assert isinstance(book.choose(Peer("LOAD", title(300), "127.0.0.1")), Refusal)


# --- arithmetic ---


def test_median_and_spread() -> None:
    assert figure([3.0, 1.0, 10.0]) == {
        "median": 3.0,
        "least": 1.0,
        "most": 10.0,
        "rounds": [3.0, 1.0, 10.0],
    }
    with pytest.raises(ValueError, match="no rounds"):
        figure([])


def test_ratios_are_of_the_same_round() -> None:
    # The machine was busy in the second round: both took four times as long.
    ours, theirs = [10.0, 40.0, 11.0], [20.0, 80.0, 20.0]
    assert ratios(ours, theirs) == [0.5, 0.5, 0.55]
    assert figure(ratios(ours, theirs))["median"] == 0.5
    with pytest.raises(ValueError, match="shorter"):
        ratios(ours, theirs[:2])


def test_percentiles_of_the_generator(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(
        '#define _GNU_SOURCE\n#include "figures.h"\n'
        "int main(void) {\n"
        "    struct samples s = {0};\n"
        "    for (int i = 200; i > 0; i--) add_sample(&s, (uint64_t)i * 1000);\n"
        '    printf("{\\"at\\": %llu", (unsigned long long)(now() && cpu_us() < SECOND));\n'
        '    print_samples("us", &s);\n    puts("}");\n    return 0;\n}\n'
    )
    subprocess.run(["cc", "-I", ROOT / "bench", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert json.loads(out)["us"] == {"p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0}


def test_responses_to_the_generator(tmp_path: Path) -> None:
    """Status and message id count only in the response that was due."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source, program = tmp_path / "r.c", tmp_path / "r"
    source.write_text(
        '#define _GNU_SOURCE\n#include "requestor.h"\n'
        "int main(int n, char **words) {\n"
        "    static uint8_t set[1000];\n    unsigned id = 0, status = 0;\n"
        "    struct span all = {set, fread(set, 1, sizeof set, stdin)};\n"
        "    (void)n, (void)words;\n"
        "    bool read = read_response(all, C_STORE, &id, &status);\n"
        '    printf("%d %u %04X\\n", read, id, status);\n    return 0;\n}\n'
    )
    subprocess.run(
        ["cc", "-Wno-unused-function", "-I", ROOT / "bench", "-o", program, source], check=True
    )

    def read(*elements: tuple[int, bytes]) -> str:
        raw = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
        done = subprocess.run([program], input=raw, check=True, capture_output=True)
        return done.stdout.decode().strip()

    rsp, to, status = (0x0100, b"\1\x80"), (0x0120, b"\7\0"), (0x0900, b"\0\xa7")
    assert read(rsp, to, status) == "1 7 A700"
    assert read(status, to, (0x0800, b"\1\1"), rsp) == "1 7 A700"
    for wrong in (
        (to, status),
        ((0x0100, b"\x30\x80"), to, status),
        ((0x0100, b"\1\0"), to, status),
        (rsp, to, to),
        (rsp, status),
        (rsp, to, (0x0900, b"\0\0\0\0")),
    ):
        assert read(*wrong).startswith("0 ")


def test_the_model_names_what_binds() -> None:
    need, link = Need(size=500_000, cpu_us=250), LINKS["10 GbE"]
    assert need.instances_per_s(link) == pytest.approx(2350)
    assert need.cores(link) == pytest.approx(0.5875)
    assert need.outstanding(link, 0.002) == pytest.approx(4.7)
    for host, flushed, part, rate in (
        (Host(), True, "network", 2350),
        (Host(cores=0), True, "cores", 0),
        (Host(disk_bytes_per_s=1e8), True, "disk", 200),
        (Host(outstanding=1), True, "flushes", 500),
        (Host(outstanding=1), False, "network", 2350),
    ):
        bound, at = need.binds_first(link, host, flushed=flushed)
        assert bound == part
        assert at == pytest.approx(rate)


# --- workloads ---


def test_uids_have_one_length_and_are_distinct() -> None:
    made = [uid(tag, kind, n) for tag in ("1", "21") for kind in (1, 2, 3) for n in (0, 9, 10, 999)]
    assert {len(one) for one in made} == {UID_LENGTH}
    assert len(set(made)) == len(made)
    with pytest.raises(ValueError, match="no room"):
        uid("1", SOP, 10**40)


def test_templates_have_their_sizes_and_can_be_read(tmp_path: Path) -> None:
    with Material(tmp_path / "material") as material:
        for name, about in (("3KB", 3000), ("34KB", 34_000), ("525KB", 525_000)):
            template = material.template(name)
            assert abs(template.size - about) < about * 0.05
            data_set = pydicom.dcmread(template.path)
            assert len(data_set.PixelData) == data_set.Rows * data_set.Columns * 2
        report = pydicom.dcmread(material.template("mix-SR").path)
        assert report.ContentSequence[0].ValueType == "TEXT"
        assert "PixelData" not in report
    assert not (tmp_path / "material").exists()
    assert sum(MIX.values()) == 100


def test_files_differ_in_their_uids_only(tmp_path: Path) -> None:
    with Material(tmp_path / "material") as material:
        files = material.files("3KB", 205, parts=2)
        template = material.template("3KB")
        sent = files.sent()
        assert files.size == 205 * template.size
        assert [len(list(folder.iterdir())) for folder in files.folders] == [103, 102]
        assert len({instance.uid for instance in sent}) == 205
        pixels = pydicom.dcmread(template.path).PixelData
        seen: dict[str, set[str]] = {}
        for path in files.root.rglob("*.dcm"):
            data_set = pydicom.dcmread(path)
            assert path.stat().st_size == template.path.stat().st_size
            assert data_set.SOPInstanceUID == data_set.file_meta.MediaStorageSOPInstanceUID
            assert data_set.PixelData == pixels
            seen.setdefault(data_set.StudyInstanceUID, set()).add(data_set.SeriesInstanceUID)
        assert [len(series) for series in seen.values()] == [3]
        material.drop(files)
        assert not files.root.exists()


def test_what_the_generator_sent_is_found_from_what_was_stored(tmp_path: Path) -> None:
    with Material(tmp_path / "material") as material:
        templates = [material.template(name) for name in ("3KB", "mix-SR")]
        store = tmp_path / "store"
        store.mkdir()
        for number, template in enumerate(templates):
            new = {SOP: uid("2", SOP, number), 2: uid("2", 2, 3000000 + number)}
            data = template.patched(
                template.path.read_bytes(), {kind: one.encode() for kind, one in new.items()}
            )
            (store / f"{number}").write_bytes(data)
        stored = [part10(path) for path in sorted(store.iterdir())]
        assert compare(stored, sent_by_load(stored, templates, "2", 2)).same == 2
        assert compare(stored, sent_by_load(stored, templates, "2", 3)).missing == [
            uid("2", SOP, 2)
        ]
        assert compare(stored, sent_by_load(stored, templates, "3", 0)).unexpected

        broken = bytearray((store / "0").read_bytes())
        broken[-1] ^= 1
        (store / "0").write_bytes(broken)
        found = compare(stored, sent_by_load(stored, templates, "2", 2))
        assert found.different == [uid("2", SOP, 0)]
        assert found.same == 1
        assert not found.ok


def test_every_workload_has_a_study_of_its_own(tmp_path: Path) -> None:
    with Material(tmp_path / "material") as material:
        mix = [material.template(name) for name in ("mix-CT", "mix-MR", "mix-SR", "525KB")]
        assert len({template.own[STUDY] for template in mix}) == 4


def test_a_point_asks_for_no_more_than_a_receiver_serves() -> None:
    by_name = {receiver.name: receiver for receiver in receivers()}
    assert Point(associations=64).served_by(by_name["storescp"]).associations == 1
    assert Point(associations=64).served_by(by_name["storescp-best"]).associations == 64


# --- variants ---


def words_of(text: str) -> str:
    return variant(text).command_line()


def test_a_variant_has_its_own_flags_and_the_usual_ones_it_does_not_name(tmp_path: Path) -> None:
    assert "--durability stable --log-level warning --redo on" in words_of("on=--redo on")
    assert "stable" not in words_of("b=--durability=buffered --on-duplicate keep")
    assert words_of("b=--durability buffered").count("--durability") == 1
    assert variant("plain=").name == "plain"
    assert words_of("plain=") == receiver("fastscp").command_line()

    other = tmp_path / "other"
    for name in ("fastscp/__main__.py", ".venv/bin/python"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).touch()
    found = variant(f"before=@{other} --redo off")
    assert found.tree == other
    setup = Setup(tmp_path, tmp_path / "store", 0, 1, {})
    assert found.command(setup)[0] == f"{other}/.venv/bin/python"
    assert [str(word) for word in found.command(setup)][-4:] == ["--redo", "off", "--workers", "1"]


def test_a_variant_takes_any_number_of_associations_unless_it_says_how_many() -> None:
    assert unlimited(variant("now=")) == ("--max-associations", "0")
    assert unlimited(receiver("fastscp-buffered")) == ("--max-associations", "0")
    assert unlimited(variant("few=--max-associations 10")) == ()
    assert unlimited(receiver("floor")) == ()


def test_a_checkout_that_is_not_built_is_named_at_the_start(tmp_path: Path) -> None:
    """The sources alone, as git gives them: one line says what to run, and nothing is measured."""
    for package in ("bench", "fastscp_ext"):
        for source in (ROOT / package).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    for words in (["bench", "run", "--out", "r.json"], ["bench.suspect"]):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("bench: the extension modules of ")
        assert f"run `{sys.executable} -m pip install -e .` there\n" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


# --- traces ---


def test_flushes_are_counted_once_and_in_their_time() -> None:
    log = (
        "11 100.5 fdatasync(7) = 0\n"
        "12 101.0 fsync(8 <unfinished ...>\n"
        "11 101.2 fdatasync(7) = 0\n"
        "12 101.3 <... fsync resumed>) = 0\n"
        "12 101.4 --- SIGCHLD {si_signo=SIGCHLD} ---\n"
        "12 101.5 +++ exited with 0 +++\n"
        "11 103.0 sync() = 0\n"
    )
    assert trace.flushes_in(log, 101.0, 102.0) == {"fsync": 1, "fdatasync": 1}


def test_table_of_strace() -> None:
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000300           1       300           read\n"
        " 40.00    0.000200           2       100        50 openat\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000500           1       400        50 total\n"
    )
    assert trace.table(text) == {"read": 300, "openat": 100}


# --- results ---


def recorded(path: Path) -> results.Results:
    """Two receivers at the base point, and one of them with an error."""
    about: dict[str, Any] = {
        "machine": {"commit": "0123456789ab", "kernel": "Linux 6.1", "file_system": "tmpfs (rw)"},
        "accounting": "cgroup v2",
        "options": {"rounds": 3},
        "receivers": {
            "fastscp": {
                "label": "fastscp",
                "version": "fastscp 0.1.0",
                "durability": "data, name, folders and journal flushed",
                "shape": "a process",
                "command": "python -m fastscp serve",
                "compared": "byte for byte",
            }
        },
        "absent": {"dcm4che": "no java on PATH"},
        "senders": {"storescu": "DCMTK 3.6.7"},
        "sizes": {"34KB": 33_760},
    }
    made = results.Results(path, about)
    point = {"workload": "34KB", "associations": 2, "window": 1}
    ours = made.cell("matrix", "base", "fastscp", point)
    floor = made.cell("matrix", "base", "floor", point, note="measured with one")
    made.cell("matrix", "base", "orthanc", point).error = "takes no connections"
    for rate, cost in ((1000.0, 50.0), (1200.0, 40.0), (1100.0, 45.0)):
        figures = {"rate": rate, "cpu_us_per_instance": cost, "peak_bytes": 3 << 20}
        ours.rounds.append({**figures, "same_bytes": 1000, "same_values": 10})
        floor.rounds.append({"rate": rate * 2, "cpu_us_per_instance": cost / 2})
    made.ratio("34KB: fastscp to floor", "cpu_us_per_instance", ours, floor)
    return made


def test_a_ratio_of_several_cells_is_that_of_their_means(tmp_path: Path) -> None:
    made = results.Results(tmp_path / "r.json", {})
    cells = [made.cell("growth", "instances", "fastscp", {"stored": step}) for step in range(4)]
    for cell, costs in zip(cells, [(10, 20), (30, 20), (40, 10), (60, 20)], strict=True):
        cell.rounds += [{"cpu_us_per_instance": float(cost)} for cost in costs]
    made.ratio("last half to first", "cpu_us_per_instance", cells[2:], cells[:2])
    (found,) = made.ratios
    assert (found["scenario"], found["rounds"]) == ("growth", [2.5, 0.75])
    # A round that one of them has not had is nothing to compare.
    cells[0].rounds.pop()
    made.ratio("incomplete", "cpu_us_per_instance", cells[2:], cells[:2])
    assert made.ratios == [found]


def test_results_survive_the_file(tmp_path: Path) -> None:
    recorded(tmp_path / "r.json").save()
    document = results.read(tmp_path / "r.json")
    assert document["format"] == 1
    ours, floor, orthanc = document["cells"]
    assert ours["figures"]["rate"] == {
        "median": 1100.0,
        "least": 1000.0,
        "most": 1200.0,
        "rounds": [1000.0, 1200.0, 1100.0],
    }
    assert floor["note"] == "measured with one"
    assert orthanc["figures"] == {}
    assert orthanc["error"] == "takes no connections"
    assert document["ratios"][0]["median"] == 2.0


def test_a_ratio_of_incomplete_cells_is_left_out(tmp_path: Path) -> None:
    made = recorded(tmp_path / "r.json")
    made.ratio("rates", "rate", made.cells[0], made.cells[2])
    made.ratio("nothing", "response_p50_us", made.cells[0], made.cells[1])
    assert len(made.ratios) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "no JSON"])
def test_other_files_are_no_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(results.ResultsError):
        results.read(tmp_path / "r.json")
    assert command.main(["render", str(tmp_path / "r.json"), "--into", str(tmp_path)]) == 2


def test_tables_from_a_recorded_result(tmp_path: Path) -> None:
    recorded(tmp_path / "r.json").save()
    page = render.markdown(results.read(tmp_path / "r.json"), ["base.svg"])
    lines = page.splitlines()
    assert "| commit | 0123456789ab |" in lines
    assert "| file system | tmpfs (rw) |" in lines
    assert "Absent: dcm4che (no java on PATH)." in lines
    assert "![base](base.svg)" in lines
    assert "workload 34KB, associations 2, window 1" in lines
    assert "| receiver | per s | CPU µs each | peak MiB | verified |" in lines
    ours = "| fastscp | 1,100 (1,000..1,200) | 45.0 (40.0..50.0) | 3.00 (3.00..3.00) |"
    assert f"{ours} 1,010, 10 by value |" in lines
    assert any(line.startswith("| floor \\* | 2,200 (2,000..2,400) |") for line in lines)
    assert any(line.startswith("| orthanc \\* | – | – | – | – |") for line in lines)  # noqa: RUF001
    assert "- orthanc: takes no connections" in lines
    assert any("data, name, folders and journal flushed" in line for line in lines)
    assert "## Model (computed, not measured)" in lines
    assert any(line.startswith("| fastscp | 34KB | 10 GbE | 34,805 | 1.57 |") for line in lines)
    for head, rule in itertools.pairwise(lines):
        if rule.startswith("| ---"):
            assert head.count("|") == rule.count("|")


def test_without_matplotlib_there_is_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path / "r.json").save()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "bench.plots", raising=False)
    assert command.main(["render", str(tmp_path / "r.json"), "--into", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.md"]
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    recorded(tmp_path / "r.json").save()
    files = render.write(results.read(tmp_path / "r.json"), tmp_path / "out")
    assert "base.svg" in {path.name for path in files}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.50"),
        (45, "45.0"),
        (999.6, "1,000"),
        (123456, "123,456"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert render.number(value) == text


# --- the command line ---


@pytest.mark.parametrize(
    ("names", "run"),
    [
        (["sizes"], ["sizes"]),
        (["sizes", "matrix"], ["matrix"]),
        (["all"], [name for name in scenarios.SCENARIOS if name != "sizes"]),
    ],
)
def test_a_part_of_a_scenario_that_runs_does_not_run_again(
    names: list[str], run: list[str]
) -> None:
    assert scenarios.named(names) == run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "--out"),
        (["run", "--out", "x", "--scenario", "matrix,speed"], "no scenario 'speed'"),
        (["run", "--out", "x", "--receivers", "fastcsp"], "no receiver 'fastcsp'"),
        (["run", "--out", "x", "--sizes", "5MB"], "no size '5MB'"),
        (["run", "--out", "x", "--rounds", "0"], "no number above 0"),
        (["run", "--out", "x", "--minutes", "0"], "no number above 0"),
        (["run", "--out", "x", "--seconds", "-1"], "no time in seconds"),
        (["run", "--out", "x", "--counts", "3KB=no"], "no number above 0"),
        (["run", "--out", "x", "--folder", "/nowhere"], "no folder"),
        (["run", "--out", "x", "--variant", "--redo on"], "is no NAME="),
        (["run", "--out", "x", "--variant", "old=@/nowhere"], "/nowhere is no checkout"),
        (["render", "x"], "--into"),
        (["measure"], "invalid choice"),
        ([], "required"),
    ],
)
def test_misuse_is_explained(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(words)
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_nothing_is_measured_without_a_receiver_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FASTSCP_BENCH_DCM4CHE", raising=False)
    out = str(tmp_path / "r.json")
    assert command.main(["run", "--receivers", "dcm4che", "--out", out]) == 2
    assert command.main(["run", "--out", str(tmp_path / "no" / "r.json")]) == 2
    assert "dcm4che: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.interop
@pytest.mark.timeout(600)
def test_quick_run_from_end_to_end(tmp_path: Path) -> None:
    if shutil.which("cc") is None or shutil.which("storescu") is None:
        pytest.skip("needs a C compiler and DCMTK")
    bench, out = [sys.executable, "-m", "bench"], tmp_path / "r.json"
    # Enough for what is kept: other tests measure memory of the whole machine.
    run = [*bench, "run", "--quick", "--scenario", "all", "--folder", str(tmp_path)]
    done = subprocess.run([*run, "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
    # Others end a flood, and have no figures there.
    assert done.returncode == 1, done.stdout + done.stderr
    document = results.read(out)
    assert {cell["scenario"] for cell in document["cells"]} == set(render.HEADINGS)
    for cell in document["cells"]:
        if "the receiver ended" in cell["error"]:
            assert cell["scenario"] == "fair", cell
            assert not cell["receiver"].startswith("fastscp"), cell
            continue
        assert cell["figures"], cell
        if "same_bytes" in cell["figures"]:
            assert cell["figures"]["same_values"]["median"] == 0, cell
    assert {ratio["scenario"] for ratio in document["ratios"]} >= {"targets", "send"}
    subprocess.run(
        [*bench, "render", str(out), "--into", str(tmp_path / "page")], cwd=ROOT, check=True
    )
    assert (tmp_path / "page" / "results.md").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "r.json"]


# --- the soak ---


def test_what_the_metrics_have_counted() -> None:
    """Also what was not stored, which is told apart from what was."""
    stored = dict.fromkeys((("0000", "stored"), ("B006", "kept")), Counted(3, 40, 0, 0))
    refused = {("A700", "disk full"): Counted(0, 0, 2, 0)}
    times = dict.fromkeys(
        ("receive", "commit", "answer", "whole", "response"), Distribution((0, 8, *[0] * 29), 9)
    )
    now = measures.snapshot(
        by_status=stored | refused, times=times,
        by_ae={"A": Counted(3, 40, 2, 0), "B": Counted(3, 40, 0, 0)},
        by_transfer_syntax={"1.2": Counted(6, 80, 2, 1)},
    )  # fmt: skip
    assert counted(measures.exposition(now)[0].decode()) == {
        "by status": 3, "by AE title": 6, "by transfer syntax": 6, "answered": 8, "bytes": 80,
        "AE title bytes": 80, "transfer syntax bytes": 80,
    }  # fmt: skip
    batches = {"log": Distribution((0, 2, *[0] * 29), 7), "stable": Distribution((1, *[0] * 30), 1)}
    assert logged(measures.exposition(measures.snapshot(batches=batches))[0].decode()) == 7


def test_what_is_stored_is_deleted_and_counted(tmp_path: Path) -> None:
    series = tmp_path / "1.2" / "1.2.3"
    series.mkdir(parents=True)
    (tmp_path / ".fastscp" / "journal").mkdir(parents=True)
    (tmp_path / ".fastscp" / "journal" / "kept").touch()
    for number in range(5):
        (series / f"{number}.dcm").touch()
    with Pruner(tmp_path) as pruner:
        pass
    assert pruner.deleted == 5
    assert list(series.iterdir()) == []
    # Somebody may be about to write there, until nothing came for long.
    os.utime(series, (0, 0))
    with Pruner(tmp_path) as pruner:
        pass
    assert pruner.deleted == 0
    assert not series.exists()
    assert (tmp_path / ".fastscp" / "journal" / "kept").exists()


@pytest.mark.long
def test_a_soak_of_seconds(tmp_path: Path) -> None:
    """It ends well only if the metrics and the files are what was sent."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    out = tmp_path / "r.json"
    run = [sys.executable, "-m", "bench", "run", "--scenario", "soak", "--receivers", "fastscp"]
    run += ["--quick", "--minutes", "2", "--folder", str(tmp_path), "--out", str(out)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = results.read(out)
    *both, whole, main, _worker, _other = document["cells"]
    assert [cell["point"] for cell in both] == [{"scraped": False}, {"scraped": True}]
    assert ["scrape_p50_us" in cell["figures"] for cell in both] == [False, True]
    assert whole["figures"]["instances"]["median"] > 10
    # One of five is too large for it.
    assert 0 < whole["figures"]["logged"]["median"] < whole["figures"]["instances"]["median"]
    assert whole["note"].startswith("the store is on ")
    assert (main["table"], main["point"]) == ("memory", {"process": "main"})
    assert len(document["ratios"]) == 4
    for one in document["ratios"]:
        # Short spans, few responses: nothing is shown, whatever the machine does.
        assert (len(one["rounds"]), one["verdict"].partition(" (")[0]) == (
            6, "at most 5 % more: not shown",
        )  # fmt: skip
    page = render.markdown(document)
    assert "| scraped | receiver | window 1: response p50 µs |" in page
    assert "| process | receiver | at rest MiB | second tenth MiB |" in page


def test_duplicates_on_a_suspect_store(tmp_path: Path) -> None:
    """Small, so the figures say nothing: each duplicate was answered, by way of the index."""
    run = [sys.executable, "-m", "bench.suspect", "--lines", "40", "--duplicates", "6"]
    run += ["--different", "5", "--associations", "2", "--folder", str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["identical"]["rate"] > 0
    assert figures["different"]["p99_ms"] > 0
    assert " lines, " in figures["index"]
    assert list(tmp_path.iterdir()) == []

"""`fastscp verify` of a part of a store, at a rate, and of the store that the settings name."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from fastscp.cli.verify import _read_rate, _read_since
from fastscp.errors import FastscpError
from fastscp.store.access import held
from fastscp.store.findings import Kind, Mark
from fastscp.store.reading import Pace
from fastscp.store.selection import Selection
from fastscp.store.store import Store
from tests.kit import SERIES, SOP, STUDY, data_set, path_of
from tests.stores import filed
from tests.unit.test_verify import Shelf, command, kinds, look, part10, shelf
from tests.unit.test_verify_run import instance

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["shelf"]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")

DATA = data_set()


def test_one_study(shelf: Shelf) -> None:
    for study in ("1.2.5", "1.2.6"):
        for number in range(2):
            instance(shelf, f"{study}.{number}", study)
        shelf.file(path_of("1.9", study=study), b"")
    (shelf.path / path_of("1.2.5.1", study="1.2.5")).unlink()
    (shelf.path / path_of("1.2.6.1", study="1.2.6")).unlink()
    # Stored under another layout once.
    old = f"old/{SERIES}/1.2.5.7.dcm"
    shelf.lines(shelf.fact(old, DATA, study_instance_uid="1.2.5"))
    report = look(shelf, selection=Selection(study="1.2.5"))
    assert kinds(report) == {
        path_of("1.2.5.1", study="1.2.5"): Kind.MISSING,
        path_of("1.9", study="1.2.5"): Kind.UNJOURNALED,
        old: Kind.MISSING,
    }
    assert (report.files, report.searched) == (2, True)
    with pytest.raises(FastscpError, match=r"no line of the journal .* has the study 1\.2\.7"):
        look(shelf, selection=Selection(study="1.2.7"))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_study_that_is_not_there_is_all_that_is_said(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """Nothing was looked at, so nothing is said of what was found."""
    instance(shelf, SOP)
    arguments = ["verify", "--store", str(shelf.path), "--study", f"{STUDY}.9", *options]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"has the study {STUDY}.9, and no file there is of it" in err


@pytest.mark.parametrize(
    ("layout", "inside", "outside"),
    [
        ("{Modality}/{StudyInstanceUID}/{SOPInstanceUID}.dcm", "CT/1.2.5/x", "CT/1.2.55/x"),
        ("{Modality}/{PatientID}-{StudyInstanceUID}/{SOPInstanceUID}.dcm", "C/p-1.2.5/x", "C/1/x"),
        ("{StudyInstanceUID}_{SOPInstanceUID}.dcm", "1.2.5_7", "1.2.6_7"),
    ],
)
def test_one_study_of_any_layout(tmp_path: Path, layout: str, inside: str, outside: str) -> None:
    Store.open(tmp_path / "store", filed(layout)).close()
    shelf = Shelf.at(tmp_path / "store")
    for path in (inside, outside):
        shelf.file(path, b"")
    report = look(shelf, selection=Selection(study="1.2.5"))
    assert kinds(report) == {inside: Kind.UNJOURNALED}


def test_one_study_of_a_layout_that_does_not_tell_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its lines alone, and it says so."""
    Store.open(tmp_path / "store", filed("{SOPInstanceUID}.dcm")).close()
    shelf = Shelf.at(tmp_path / "store")
    for number in range(3):
        fact = shelf.fact(f"{number}.dcm", DATA, study_instance_uid=f"1.2.{number % 2}")
        shelf.file(f"{number}.dcm", part10(DATA))
        shelf.lines(fact)
    shelf.file("4.dcm", b"")
    assert cli.main(["verify", "--store", str(shelf.path), "--study", "1.2.0"]) == 0
    out = capsys.readouterr().out
    assert ": 2 files, " in out
    assert "files without a journal line were not looked for" in out


def test_since(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time of the line; of a file without one, by that of its inode."""
    old = instance(shelf, "1.5", time="2026-05-30T23:59:59.999999Z")
    new = instance(shelf, "1.6", time="2026-05-31T00:00:00.000000Z")
    # It came once more: that line counts.
    again = instance(shelf, "1.7", time="2026-05-30T00:00:00.000000Z")
    more = {"duplicate": "identical", "time": "2026-05-31T09:00:00.000000Z"}
    shelf.lines(shelf.fact(again, data_set(sop="1.7"), sop_instance_uid="1.7", **more))
    for path in (old, new, again):
        (shelf.path / path).unlink()
    shelf.file("x", b"")
    since = Selection(since=datetime(2026, 5, 31, tzinfo=UTC))
    now = datetime.now(UTC)
    in_file = {"x": Kind.UNJOURNALED} if since.since is not None and since.since < now else {}
    assert kinds(look(shelf, selection=since)) == {
        new: Kind.MISSING, again: Kind.MISSING
    } | in_file  # fmt: skip
    later = Selection(since=now + timedelta(hours=1))
    assert look(shelf, selection=later).findings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-05-31", datetime(2020, 5, 31, tzinfo=UTC)),
        ("2020-05-31T08:30", datetime(2020, 5, 31, 8, 30, tzinfo=UTC)),
        ("2020-05-31 08:30:15+02:00", datetime(2020, 5, 31, 6, 30, 15, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert _read_since(text) == expected
    ago = datetime.now(UTC) - _read_since("36h")
    assert timedelta(hours=35.9) < ago < timedelta(hours=36.1)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--since", "yesterday", "give a time such as"),
        ("--since", "9999-01-01", "is in the future; times without a zone are UTC"),
        ("--max-rate", "0", "would never read anything"),
        ("--max-rate", "fast", "a number of bytes a second such as 50MiB/s"),
        ("--max-rate", "50", "it would be 50 bytes a second; write 50MiB/s or 50KiB/s"),
        ("--max-rate", "50/s", "or 50B/s if that is what you mean"),
        ("--study", " ", "is empty"),
    ],
)
def test_what_options_take(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], option: str, value: str, why: str
) -> None:
    assert cli.main(["verify", "--store", str(shelf.path), option, value]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "rate"), [("50B/s", 50), ("50 KiB", 50 << 10), ("65536", 65536), ("1e", None)]
)
def test_a_rate_with_a_unit_or_a_large_one_is_meant(value: str, rate: int | None) -> None:
    if rate is None:
        with pytest.raises(ValueError, match="unit"):
            _read_rate(value)
    else:
        assert _read_rate(value) == rate


@pytest.mark.parametrize(
    "selection", [Selection(study=STUDY), Selection(since=datetime(2026, 1, 1, tzinfo=UTC))]
)
def test_a_part_lifts_no_mark(shelf: Shelf, selection: Selection) -> None:
    instance(shelf, SOP)
    mark = shelf.path / ".fastscp/suspect"
    mark.touch()
    report = look(shelf, selection=selection)
    assert (report.clean, report.mark) == (True, Mark.PARTIAL)
    assert mark.exists()
    assert cli.main(["verify", "--store", str(shelf.path), "--study", STUDY]) == 0
    assert mark.exists()
    assert look(shelf).mark is Mark.LIFTED


@pytest.mark.parametrize(("name", "said"), [("buffered", Mark.NONE), ("suspect", Mark.IN_USE)])
def test_a_part_beside_a_service_tells_of_no_unclean_end(
    shelf: Shelf, name: str, said: Mark
) -> None:
    instance(shelf, SOP)
    mark = shelf.path / ".fastscp" / name
    mark.touch()
    with shelf.opened() as fd, held(shelf.path, fd):
        assert look(shelf, selection=Selection(study=STUDY)).mark is said
    assert mark.exists()
    # Nobody uses the store: the end was unclean.
    assert look(shelf, selection=Selection(study=STUDY)).mark is Mark.PARTIAL


@pytest.mark.parametrize("adopt", [False, True])
def test_the_rate(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, adopt: bool) -> None:
    """A 3 MiB data set at 1 MiB/s takes three seconds, in steps of an eighth."""
    now = [0.0]
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    data = data_set(pixels=3 << 20)
    if adopt:
        shelf.file(path_of(), part10(data))
    else:
        shelf.put("1.dcm", data)
    assert look(shelf, rate=1 << 20, adopt=adopt).clean
    assert 2.99 < now[0] < 3.1
    assert max(naps) < 0.126
    # What could not be read is not made up for in one go.
    pace = Pace(1 << 20)
    now[0] += 100
    pace.took(1 << 17)
    pace.took(1 << 17)
    assert naps[-1] == pytest.approx(0.125)


# Which store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["flag", "environment", "file", "file of the environment"])
@pytest.mark.parametrize("name", ["verify", "cat"])
def test_the_store_is_the_one_of_the_service(tmp_path: Path, given: str, name: str) -> None:
    """Flag, environment, file, default, as with serve; other settings are not its business."""
    shelf = Shelf(tmp_path / "right")
    path = instance(shelf, SOP)
    file = tmp_path / "site.toml"
    right = str(shelf.path)
    file.write_text(f'store = "{right if given.startswith("file") else "wrong"}"\nport = "odd"\n')
    arguments = [name, path] if name == "cat" else [name, "--json"]
    env = {}
    if given == "flag":
        arguments += ["--store", right, "--config", str(file)]
        env = {"FASTSCP_STORE": "wrong", "FASTSCP_CONFIG": str(tmp_path / "none.toml")}
    elif given == "environment":
        env = {"FASTSCP_STORE": right, "FASTSCP_CONFIG": str(tmp_path / "none.toml")}
    elif given == "file":
        arguments += ["--config", str(file)]
        env = {"FASTSCP_CONFIG": str(tmp_path / "none.toml")}
    else:
        env = {"FASTSCP_CONFIG": str(file)}
    done = command(*arguments, env=env, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    if name == "cat":
        assert done.stdout == (shelf.path / path).read_bytes()
    else:
        assert json.loads(done.stdout)["store"] == right


def test_a_file_with_settings_that_cannot_be_read(tmp_path: Path) -> None:
    for options, env, option in (
        (("--config", "none.toml"), {}, b"--config"),
        ((), {"FASTSCP_CONFIG": "none.toml"}, b"FASTSCP_CONFIG"),
    ):
        done = command("verify", *options, env=env, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(b"fastscp: " + option + b": cannot read none.toml")
    (tmp_path / "odd.toml").write_text("store = 7\n")
    done = command("verify", "--config", "odd.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(b"fastscp: odd.toml:1: store: ")

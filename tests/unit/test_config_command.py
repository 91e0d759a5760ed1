"""`fastscp config` of a file with tables: what it shows, and to whom they apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from fastscp.config.settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """\
check-called-ae = true
[from.gw]
max-associations = 5
who = ["GW@*", "*@::1"]
called = "MR 1, CT1"
[ae."MR 1"]
[ae.CT1]
digest = "none"
min-rate = "2K"
layout = "ct/{SOPInstanceUID}.dcm"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(TABLES, encoding="utf-8")
    return path


def test_tables_stand_below_the_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()[1 + len(SETTINGS) :]
    assert [line.rstrip() for line in lines] == lines
    assert [" ".join(line.split()) for line in lines] == [
        "",
        f'[ae."MR 1"] {file}:6',
        "",
        f"[ae.CT1] {file}:7",
        f"layout ct/{{SOPInstanceUID}}.dcm {file}:10",
        f"digest none {file}:8",
        f"min-rate 2 KiB {file}:9",
        "",
        f"[from.gw] {file}:2",
        f"who GW@*,*@::1/128 {file}:4",
        f"called MR 1,CT1 {file}:5",
        f"max-associations 5 {file}:3",
    ]


def test_tables_stand_below_the_settings_in_json(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings keep their form: scripts read it."""
    assert cli.main(["config", "--config", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == [*(setting.name for setting in SETTINGS), "ae", "from"]
    assert shown["check-called-ae"] == {"value": True, "source": str(file)}
    assert shown["ae"] == {
        "MR 1": {},
        "CT1": {
            "layout": {"value": "ct/{SOPInstanceUID}.dcm", "source": f"{file}:10"},
            "digest": {"value": "none", "source": f"{file}:8"},
            "min-rate": {"value": 2048, "source": f"{file}:9"},
        },
    }
    assert shown["from"] == {
        "gw": {
            "who": {"value": ["GW@*", "*@::1/128"], "source": f"{file}:4"},
            "called": {"value": ["MR 1", "CT1"], "source": f"{file}:5"},
            "max-associations": {"value": 5, "source": f"{file}:3"},
        }
    }


def test_check_covers_the_tables(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TABLES + '[ae.X]\nport = 1\n[from.x]\nwho = ["X"]\n', encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 2
    port, who = capsys.readouterr().err.splitlines()
    assert port.startswith(f"fastscp: {file}:12: ae.X.port: stands at the top of the file only")
    assert who.startswith(f"fastscp: {file}:14: from.x.who: 'X' has no @; give AE@NETWORK")

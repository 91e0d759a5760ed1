"""`fastscp config` of a file with tables: what it shows, and to whom they apply."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.cli import app as cli
from fastscp.config.settings import SETTINGS
from tests.tokens import public, write_keys
from tests.unit.test_linters import ROOT

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


def test_check_tells_of_a_table_that_nobody_can_call(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no mistake: a start takes it, and what was stored under the title stays where it is."""
    tables = '[ae.RESEARCH]\n[ae.CT1]\n[from.a]\ncalled = "CT1"\n[from.b]\ncalled = "RESERCH"\n'
    file.write_text(tables, encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: no mistakes; 1 doubt, see above\n"
    assert err == (
        f"fastscp: {file}:1: ae.RESEARCH: nobody can call it: there is no allow, and every [from] "
        f"table has called, without RESEARCH (one has RESERCH, which is like it); if somebody is "
        f"to call it, add it to called of one\n"
    )
    assert cli.main(["config", "--check", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["mistakes"] == []
    assert [(one["line"], one["key"]) for one in shown["doubts"]] == [(1, "ae.RESEARCH")]
    for more in ('[from.c]\nwho = "X@*"\n', '[from.c]\ncalled = ["RESEARCH"]\n', "[from.c]\n"):
        file.write_text(tables + more, encoding="utf-8")
        cli.main(["config", "--check", str(file)])
        assert "nobody can call" not in capsys.readouterr().err
    file.write_text('allow = "X@*"\n' + tables, encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")


def test_who_names_the_lines_of_the_top(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('idle-timeout = "8h"\n' + TABLES, encoding="utf-8")
    assert cli.main(["config", "--config", str(file), "--who", "GW@10.0.0.1/CT1"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"idle-timeout 8 h {file}:1" in lines
    shown = asked("GW@10.0.0.1/CT1", file, capsys)
    assert shown["settings"]["idle-timeout"][0]["source"] == f"{file}:1"


# Who --------------------------------------------------------------------------------------------


def asked(who: str, file: Path | None, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `config --who` says as JSON; its exit code says the same."""
    config = ["--config", str(file)] if file else []
    code = cli.main(["config", *config, "--who", who, "--json"])
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == (0 if shown["admitted"] else 1)
    return shown


def test_the_file_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of its parties gets what the text below it says, and nobody else gets in."""
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"<!-- rules -->\n```toml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block is not None
    file = tmp_path / "site.toml"
    file.write_text(block[1], encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 0
    capsys.readouterr()

    for modality in ("CT1@10.1.2.3", "MR1@10.1.2.254/ROUTER", "US1@10.1.3.7"):
        shown = asked(modality, file, capsys)
        assert shown["rule"] == "from.modalities"
        values = {name: found[0]["value"] for name, found in shown["settings"].items()}
        assert values["sop-classes"] == ["storage"]
        assert values["idle-timeout"] == 8 * 3600
        assert values["durability"] == "stable"
        assert values["max-associations-per-host"] == 10

    shown = asked("ANYTHING@10.9.255.1/RESEARCH", file, capsys)
    assert shown["rule"] == "ae.RESEARCH+from.research"
    found = shown["settings"]
    assert [one["value"] for one in found["max-associations"]] == [20, 1000]
    assert [one["value"] for one in found["max-associations-per-host"]] == [0]
    assert found["layout"][0]["value"].startswith("+research/{PatientID}/")
    assert (found["durability"][0]["value"], found["durability"][0]["table"]) == (
        "buffered",
        "ae.RESEARCH",
    )

    for gateway in ("GATEWAY@192.0.2.10/CLOUD", "GATEWAY@[2001:db8::10]/CLOUD"):
        shown = asked(gateway, file, capsys)
        assert shown["rule"] == "ae.CLOUD+from.gateway"
        values = {name: found[0]["value"] for name, found in shown["settings"].items()}
        assert (values["strict"], values["max-instance-size"]) == (True, 2 << 30)
        assert (values["max-association-rate"], values["min-rate"]) == (5, 0)

    for stranger in (
        "X@10.1.2.3",
        "CT1@10.1.2.3/CLOUD",
        "CT1@10.9.0.1",
        "GATEWAY@192.0.2.11/CLOUD",
    ):
        assert asked(stranger, file, capsys)["rejected"] == [1, 1, 3]
    assert asked("CT1@10.1.2.3/CT1", file, capsys)["rejected"] == [1, 1, 7]


def test_why_a_table_applies(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", str(file), "--who", "GW@10.0.0.1/CT1"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "GW from 10.0.0.1, calling CT1: admitted, rule ae.CT1+from.gw",
        "[from.gw] applies: who has GW@* and called has CT1",
        "[ae.CT1] applies: the sender calls CT1",
        "",
        "setting value source",
    ]
    assert f"max-associations 5 (those of [from.gw]) [from.gw] {file}:3" in lines
    assert "max-associations 1000 (all together) default" in lines
    assert f"min-rate 2 KiB [ae.CT1] {file}:9" in lines
    assert "strict off default" in lines


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("GW@10.0.0.1/FASTSCP", "[from.gw] does not apply: called has no FASTSCP"),
        ("GX@10.0.0.1/CT1", "[from.gw] does not apply: who has other titles from 10.0.0.1 only"),
        ("GX@10.0.0.1/CT1", "[from.net] does not apply: who has neither GX nor 10.0.0.1"),
        ("CT1@10.1.2.3/CT1", "[from.net] does not apply: who has CT1 from other addresses only"),
        ("CT2@10.9.0.1/CT1", "[from.net] does not apply: who has other titles from 10.9.0.1 only"),
        (
            "A@10.0.0.2/CT1",
            "[from.any] does not apply: who has any title (*), but not from 10.0.0.2",
        ),
        ("A@10.9.9.9/CT1", "[from.any] does not apply: who has other titles from 10.9.9.9 only"),
        ("A@127.0.0.1/CT1", "--allow has no entry for this sender"),
    ],
)
def test_why_a_table_does_not_apply(
    who: str, why: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = '[from.net]\nwho = "CT1@10.9.0.0/16"\n[from.any]\nwho = "*@10.7.0.0/16,Z@10.9.9.9"\n'
    file.write_text(TABLES + tables, encoding="utf-8")
    command = ["config", "--config", str(file), "--allow", "B@*", "--who", who]
    assert cli.main(command) == 1
    told = capsys.readouterr().out.splitlines()
    assert ": rejected with (1,1,3): " in told[0]
    assert f"  {why}" in told[1:]
    assert "setting" not in "".join(told[1:])


def test_whoever_is_in_no_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--who", "A@10.0.0.1"]) == 0
    assert "  no [from] table and no --allow: everyone may associate\n" in capsys.readouterr().out
    assert cli.main(["config", "--allow", "B@*,A@10.0.0.0/8", "--who", "A@10.0.0.1"]) == 0
    assert "  --allow has A@10.0.0.0/8\n" in capsys.readouterr().out
    assert asked("A@10.0.0.1/NOBODY", file, capsys)["rejected"] == [1, 1, 7]
    assert asked("A@10.0.0.1/NOBODY", file, capsys)["tables"] == []


def test_not_every_table_is_told_of(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = "".join(f'[from.t{n}]\nwho = "T{n}@*"\n' for n in range(1000))
    file.write_text(tables + '[from.last]\nwho = "A@*"\n', encoding="utf-8")
    assert cli.main(["config", "--config", str(file), "--who", "A@10.0.0.1"]) == 0
    told = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert len(told) == 14
    assert told[-3:] == [
        "  and 990 more tables do not apply",
        "  [from.last] applies: who has A@*",
        "  FASTSCP has no [ae] table",
    ]


@pytest.mark.parametrize(
    ("who", "calling", "address", "called"),
    [
        ("A@10.0.0.1", "A", "10.0.0.1", "FASTSCP"),
        ("A@B/C@::1/D/E@F", "A@B/C", "::1", "D/E@F"),
        ("A B@[fe80::1%eth0]/M%fcX", "A B", "fe80::1%eth0", "M%FCX"),
        ("A@10.0.0.1@10.0.0.2/24", "A", None, None),
        (" A @ 10.0.0.1 / B ", "A", "10.0.0.1", "B"),
    ],
)
def test_how_a_sender_is_written(
    who: str,
    calling: str,
    address: str | None,
    called: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if address is None:
        assert cli.main(["config", "--who", who]) == 2
        return
    shown = asked(who, None, capsys)
    assert (shown["calling"], shown["address"], shown["called"]) == (calling, address, called)


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("A", "'A' has no @; give AE@ADDRESS or AE@ADDRESS/CALLED, such as CT1@10.1.2.3"),
        ("A@pacs", "'A@pacs' names no address; give AE@ADDRESS"),
        ("A@10.1.2.0/24", "'A@10.1.2.0/24' names a network, and one sender is asked for; give AE@"),
        ("*@10.1.2.0", "'*@10.1.2.0' names every title, and one sender is asked for"),
        ("@10.1.2.0", "is empty"),
        ("A@10.1.2.0/", "is empty"),
        ("SEVENTEEN-LETTERS@::1", "has 17 characters"),
    ],
)
def test_what_is_no_sender(who: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--who", who]) == 2
    told = capsys.readouterr().err
    assert told.startswith("fastscp: --who: ")
    assert why in told


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (
            "jwt:{} issuer=a",
            "then it has to show a JSON Web Token: --user-identity jwt:{} iss",
        ),
        ("jwt?:{}", "then a wrong one is rejected if it shows a JSON Web Token: --user-identity"),
    ],
)
def test_who_tells_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, said: str
) -> None:
    keys = write_keys(tmp_path / "keys.json", public("P-256"))
    config = tmp_path / "fastscp.toml"
    config.write_text(f'user-identity = "{form.format(keys)}"\n')
    asked = ["config", "--config", str(config), "--who", "CT1@10.0.0.1"]
    assert cli.main(asked) == 0
    assert said.format(keys) in capsys.readouterr().out
    assert cli.main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["user_identity"] == form.format(keys)
    keys.write_text("{}")
    assert cli.main(["config", "--check", str(config)]) == 2
    assert 'is no JWK Set, it has no list "keys"' in capsys.readouterr().err


def test_check_looks_at_its_file_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--check", str(file), "--who", "A@::1"]) == 2
    assert "leave --who out" in capsys.readouterr().err

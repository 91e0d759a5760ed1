"""The command line: what reaches the commands, exit codes, and one line per error."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import fastscp
from fastscp.cli import app as cli
from fastscp.config.settings import SETTINGS, ServeConfig
from fastscp.config.values import Switch
from fastscp.errors import FastscpError, StartError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings from the environment, and the root logger as it was."""
    for variable in [name for name in os.environ if name.startswith("FASTSCP_")]:
        monkeypatch.delenv(variable)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeConfig]:
    """Configurations that reached main."""
    import fastscp.main

    seen: list[ServeConfig] = []

    def run(config: ServeConfig) -> int:
        seen.append(config)
        return 0

    stand_in = SimpleNamespace(run=run)
    monkeypatch.setattr(fastscp.main, "serve", stand_in, raising=False)
    return seen


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def only_line() -> str:
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("fastscp: ")
        return captured.err.removeprefix("fastscp: ").rstrip("\n")

    return only_line


def test_serve(served: list[ServeConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTSCP_WORKERS", "3")
    file = tmp_path / "conf.toml"
    file.write_text('ae-title = "FILE"\nport = 1\n')
    arguments = [
        *("serve", "--config", str(file), "--port", "0", "--host", "::1", "--host", "127.0.0.1"),
        *("--strict", "--digest", "none", "--allow", "CT1@*,*@10.0.0.0/8", "-q"),
    ]
    assert cli.main(arguments) == 0
    (config,) = served
    assert (config.workers, config.ae_title, config.port) == (3, "FILE", 0)
    assert config.host == ("::1", "127.0.0.1")
    assert config.strict is True
    assert config.digest == "none"
    assert [str(rule) for rule in config.allow] == ["CT1@*", "*@10.0.0.0/8"]
    assert config.log_level == "warning"


def test_a_switch_of_the_environment_can_be_taken_back(
    served: list[ServeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSCP_STRICT", "1")
    assert cli.main(["serve"]) == 0
    assert cli.main(["serve", "--no-strict"]) == 0
    assert [config.strict for config in served] == [True, False]


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ([], "info"),
        (["-v"], "debug"),
        (["-vv"], "trace"),
        (["-v", "-v"], "trace"),
        (["-q"], "warning"),
    ],
)
def test_verbosity(served: list[ServeConfig], flags: list[str], level: str) -> None:
    assert cli.main(["serve", *flags]) == 0
    assert served[0].log_level == level


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_an_option(
    setting: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main(["serve", "--help"]) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if line.strip("│ ").startswith((setting.flag + " ", setting.flag + "\n"))
    )
    assert f"{setting.text} [default: {setting.default_text}]" in line
    assert isinstance(setting.kind, Switch) or f"{setting.flag} {setting.kind.metavar}" in line


def test_help_has_groups_and_is_light() -> None:
    # In a process of its own: this one has imported everything already.
    code = (
        "import sys; from fastscp.cli.app import main; main(['serve', '--help']);"
        "heavy = {'pydicom', 'uvloop', 'fastscp_ext', 'rich.progress'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    headings = ["Network", "Association", "Store", "Limits and timers", "Logging"]
    places = [done.stdout.index(f"─ {heading} ─") for heading in headings]
    assert places == sorted(places)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastscp {fastscp.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == fastscp.__version__


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastscp", "serve", "--port", "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastscp: --port: 'x' is not a whole number")


def test_show_config(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCP_DIGEST", "sha256")
    assert cli.main(["config", "--port", "104", "--host", "[::1]"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["setting", "value", "source"]
    assert ["port", "104", "flag", "--port"] in rows
    assert ["host", "::1", "flag", "--host"] in rows
    assert ["digest", "sha256", "FASTSCP_DIGEST"] in rows
    assert ["allow", "anyone", "default"] in rows
    assert len(rows) == 1 + len(SETTINGS)


def test_show_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--json", "--allow", "A@*", "--idle-timeout", "5m"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == [setting.name for setting in SETTINGS]
    assert shown["allow"] == {"value": ["A@*"], "source": "flag --allow"}
    assert shown["idle-timeout"] == {"value": 300.0, "source": "flag --idle-timeout"}
    assert shown["store"] == {"value": f"{Path.cwd()}/dicom-store", "source": "default"}
    assert shown["strict"] == {"value": False, "source": "default"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--prot", "5"], "Unknown option: --prot. Did you mean --port?"),
        (["serv"], 'Did you mean "serve"?'),
        (["serve", "--port"], "requires an argument"),
        (["serve", "surplus"], "surplus"),
        (["serve", "--port", "99999"], "--port: '99999' is more than 65535; give"),
        (["serve", "-v", "-q"], "-v: contradicts -q"),
        (["serve", "-v", "--log-level", "info"], "-v: sets the log level, and so does --log-level"),
        (["serve", "--config", "/nonexistent"], "--config: cannot read /nonexistent"),
        (["serve", "--no-layout-change"], "--no-layout-change"),
        (["echo"], "HOST:PORT"),
        (["echo", "host"], "HOST:PORT: 'host' has no port; give HOST:PORT"),
        (["echo", "::1:104"], "IPv6 address without brackets"),
        (["echo", "a:0"], "is less than 1"),
        (["echo", "a:104", "--timeout", "never"], "--timeout: 'never' is not a number"),
        (["echo", "a:104", "--called-ae", "A\\B"], "--called-ae: 'A\\\\B' has a backslash"),
        (["echo", "a:104", "--max-pdu-length", "5"], "--max-pdu-length: '5' is less than 4096"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, error: Callable[[], str]) -> None:
    assert cli.main(arguments) == 2
    assert message in error()


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (FastscpError("it failed"), 1, "it failed"),
        (StartError("cannot start"), 3, "cannot start"),
        (StoreBusyError("/data", 17), 3, "the store /data is in use by process 17; stop"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_of_a_command(
    raised: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], str],
) -> None:
    import fastscp.main

    def run(_: ServeConfig) -> int:
        raise raised

    stand_in = SimpleNamespace(run=run)
    monkeypatch.setattr(fastscp.main, "serve", stand_in, raising=False)
    assert cli.main(["serve"]) == code
    assert error().startswith(message)


def test_the_code_of_a_command_is_the_code_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastscp.main

    stand_in = SimpleNamespace(run=lambda _: 3)
    monkeypatch.setattr(fastscp.main, "serve", stand_in, raising=False)
    assert cli.main(["serve"]) == 3


def test_echo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[object, ...]] = []

    def run_echo(host: str, port: int, **options: object) -> str:
        calls.append((host, port, options))
        return "0000 success"

    monkeypatch.setattr("fastscp.cli.echo.run_echo", run_echo)
    assert cli.main(["echo", "[::1]:104", "--timeout", "500ms", "--calling-ae", "ME"]) == 0
    assert capsys.readouterr().out == "0000 success\n"
    assert calls == [
        (
            "::1",
            104,
            {
                "called_ae": "ANY-SCP",
                "calling_ae": "ME",
                "timeout_s": 0.5,
                "max_pdu_length": 131072,
                "tls": None,
            },
        )
    ]


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bool, bool]] = []

    def run(config: ServeConfig, once: bool, *, keep: bool) -> int:
        calls.append((config.port, once, keep))
        return 0

    monkeypatch.setattr(fastscp.cli, "demonstration", SimpleNamespace(run=run), raising=False)
    assert cli.main(["demo", "--port", "0", "--once"]) == 0
    assert cli.main(["demo", "--store", "here"]) == 0
    assert calls == [(0, True, False), (11112, False, True)]

"""The command line: what reaches the commands, exit codes, and one line per error."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
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
from fastscp.errors import ConfigError, FastscpError, StartError, StoreBusyError
from fastscp.scu import jwt_identity
from fastscp.store.access import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.certificates import Certificates

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

    def run(
        config: ServeConfig, *, load: Callable[[], ServeConfig], file: str, **_more: object
    ) -> int:
        assert not file or Path(file).is_absolute()
        # What a reload would take is what there is.
        assert load() == config
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


def test_what_a_reload_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The flags as they were given, and file and environment as they are now."""
    import fastscp.main

    read: list[ServeConfig] = []
    path = tmp_path / "conf.toml"
    path.write_text('ae-title = "OLD"\nport = 1\n')

    def run(
        config: ServeConfig, *, load: Callable[[], ServeConfig], file: str, **_more: object
    ) -> int:
        assert file == str(path)
        read.append(config)
        path.write_text('ae-title = "NEW"\nport = 2\nlog-level = "error"\n')
        monkeypatch.setenv("FASTSCP_WORKERS", "4")
        read.extend((load(), load()))
        path.write_text("port = -1\nnonsense = 1\n")
        with pytest.raises(ConfigError) as caught:
            load()
        assert [one.partition(": ")[0] for one in caught.value.mistakes] == [
            f"{path}:1",
            f"{path}:2",
        ]
        return 0

    monkeypatch.setattr(fastscp.main, "serve", SimpleNamespace(run=run), raising=False)
    monkeypatch.setenv("FASTSCP_WORKERS", "3")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", "--config", path.name, "--port", "0", "-v"]) == 0
    before, after, again = read
    assert (before.ae_title, before.workers, before.port) == ("OLD", 3, 0)
    assert after == again
    assert (after.ae_title, after.workers, after.port, after.log_level) == ("NEW", 4, 0, "debug")


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
        "heavy = {'pydicom', 'uvloop', 'fastscp_ext', 'rich.progress', 'rich.live'};"
        "heavy &= set(sys.modules);"
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


def test_no_value_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(tmp_path)
    layout = "/".join(["{PatientID}"] * 20) + "/{SOPInstanceUID}.dcm"
    Path("site.toml").write_text(f'layout = "{layout}"\nstore = "data"\n', encoding="utf-8")
    assert cli.main(["config", "--config", "site.toml"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["layout", layout, f"{tmp_path}/site.toml:1"] in rows
    assert ["store", f"{tmp_path}/data", f"{tmp_path}/site.toml:2"] in rows


def test_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What the environment says does not matter.
    monkeypatch.setenv("FASTSCP_PORT", "none")
    file = tmp_path / "site.toml"
    file.write_text("port = 1\n", encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")
    assert cli.main(["config", "--check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "mistakes": [], "doubts": []}
    file.write_text("\nport = 5 GiB\nprot = 1\n", encoding="utf-8")
    assert cli.main(["config", "--check", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f'fastscp: {file}:2:10: port: not TOML (a text stands in quotes); write port = "5 GiB"',
        f"fastscp: {file}:3: prot: no such setting; did you mean port?",
    ]
    assert cli.main(["config", "--check", str(file), "--json"]) == 2
    shown = json.loads(capsys.readouterr().out)["mistakes"]
    assert [(one["line"], one["column"], one["key"]) for one in shown] == [
        (2, 10, "port"), (3, None, "prot"),
    ]  # fmt: skip


@pytest.mark.parametrize("command", [[], *([name] for name in cli.app if name[0] != "-")])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_every_command(
    command: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, flag]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {' '.join(['fastscp', *command])}")


def test_help_breaks_lines_where_the_terminal_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["serve", "--help"]) == 0
    paragraph = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("Every option")
    )
    assert paragraph.rstrip().endswith("Lists repeat the option or use commas.")


def test_the_help_has_no_options_of_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    usages = {
        "send": "fastscp send [OPTIONS] HOST:PORT PATH...",
        "abort": "fastscp abort [OPTIONS] ID...",
        "echo": "fastscp echo [OPTIONS] HOST:PORT",
    }
    for command, usage in usages.items():
        assert cli.main([command, "--help"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"Usage: {usage}\n")
        assert "--log-level" not in said


SEE = "See `fastscp serve --help`."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--prot", "5"], f"serve: Unknown option: --prot. Did you mean --port? {SEE}"),
        (["serve", "--Prot=5"], "Unknown option: --Prot. Did you mean --port?"),
        (["serve", "-port", "5"], "Unknown option: -port. Did you mean --port?"),
        (["serve", "-p", "5"], "Unknown option: -p. Did you mean --port?"),
        (["serve", "--verbose"], "Did you mean -v?"),
        (["serve", "--zzz"], f"serve: Unknown option: --zzz. {SEE}"),
        (["echo", "a:104", "--helpp"], "Did you mean --help?"),
        (["serv"], 'Did you mean "serve"?'),
        (["serve", "--port"], f"--port: requires an argument; write --port PORT. {SEE}"),
        (["serve", "--port", "1", "--port", "2"], "--port: is given more than once; give it once"),
        (["serve", "surplus"], "'surplus' is one word too many; a store is named by an option"),
        (["serve", "-1"], "no option is called '-1'"),
        (["serve", "--min-free-space", "5", "GiB"], "write --min-free-space '5 GiB' or 5GiB."),
        (["serve", "--min-free-space=5", "GiB"], "write --min-free-space '5 GiB' or 5GiB."),
        (["serve", "--ae-title", "MY", "SCP"], "write --ae-title 'MY SCP'."),
        (["serve", "--store", "data", "data"], "in quotes: write --store 'data data'."),
        (["serve", "--strict", "data", "--store", "data"], "--strict takes no value: write"),
        (["serve", "--port", "104", "/data"], "'/data' is one word too many; a store is named by"),
        (["serve", "--host", "::1", "::2"], "use commas: write --host ::1,::2."),
        (["serve", "--allow", "A@*", "B@*"], "repeat the option, or use commas: write --allow"),
        (["serve", "--ae-title", "-CT-"], "joined to it: write --ae-title=-CT-."),
        (["send", "a:1", "x", "--report", "-"], "--report: a value that begins with - is joined"),
        (["serve", "--store", "--port"], "--store: requires an argument; write --store DIR."),
        (["serve", "--help=1"], "serve: --help takes no value: write --help alone."),
        (["serve", "--strict", "yes"], "--strict takes no value: write --strict alone."),
        (["serve", "--strict", "no"], "--strict takes no value: write --no-strict alone."),
        (["serve", "--strict=maybe"], "--strict: 'maybe' is no value for it; write --strict alone"),
        (["serve", "--port", "99999"], "--port: '99999' is more than 65535; give"),
        (["serve", "--port", "-1"], "--port: '-1' is less than 0; give a whole number from 0"),
        (["serve", "--min-free-space", "-1"], "--min-free-space: '-1' is negative; give"),
        (["serve", "--store", ""], "--store: '' is empty; give a directory"),
        (["serve", "--store=~/x"], "write the home directory out"),
        (["serve", "-v", "-q"], "-v: contradicts -q"),
        (["serve", "-v", "--log-level", "info"], "-v: sets the log level, and so does --log-level"),
        (["serve", "--config", "/nonexistent"], "--config: cannot read /nonexistent"),
        (["serve", "--no-layout-change"], "--no-layout-change"),
        (["--port", "5", "serve"], "The command comes first: write `fastscp serve --port 5`."),
        (["--port", "5"], "The command comes before --port: write one of serve, status, top, "),
        (["help", "serve"], "Write `fastscp --help`, or `fastscp serve --help`."),
        (["version"], "Write `fastscp --version`."),
        (["serve", "--config", ""], "--config: '' is empty; give a TOML file with settings"),
        (["config", "--check", ""], "--check: '' is empty; give a TOML file with settings"),
        (["verify", "--config", ""], "--config: '' is empty; give a TOML file with settings"),
        (["config", "a.toml"], "write --config a.toml, or --check a.toml."),
        (["config", "--check", "a.toml", "--port", "1"], "--check: looks at its file alone; leave"),
        (["config", "--check", "/nonexistent"], "--check: cannot read /nonexistent"),
        (["verify", "/data"], "write --store /data."),
        (["verify", "--since"], "--since: requires an argument; write --since TIME."),
        (["status", "/data"], "write --store /data."),
        (["top", "/data"], "write --store /data."),
        (["top", "--interval", "0"], "--interval: '0' is less than allowed; give a time such as"),
        (["pause", "lunch"], "write --reason lunch."),
        (["abort"], "abort: ID is missing: it requires an argument."),
        (["abort", ""], "ID: is empty; take one from `fastscp associations`"),
        (["cat"], "cat: PATH is missing: it requires an argument."),
        (["cat", ""], "PATH: is empty; name a file"),
        (["cat", "a", "b"], "it takes one PATH"),
        (
            ["print", "bash"],
            "WHAT: 'bash' is not known; give bash-completion, zsh-completion, fish-",
        ),
        (["echo"], "echo: HOST:PORT is missing: it requires an argument."),
        (["echo", "host"], "HOST:PORT: 'host' has no port; give HOST:PORT"),
        (["echo", "host", "104"], "write HOST:PORT in one word, as host:104."),
        (["echo", "dicom://pacs:104"], "'dicom://pacs:104' is a URL; give HOST:PORT"),
        (["echo", "dicom://pacs"], "'dicom://pacs' is a URL; give HOST:PORT"),
        (["echo", "::1:104"], "IPv6 address without brackets"),
        (["echo", "a:0"], "HOST:PORT: 'a:0' has a port that is less than 1; give HOST:PORT"),
        (["echo", "a:104", "--timeout", "never"], "--timeout: 'never' is not a number"),
        (["echo", "a:104", "--called-ae", "A\\B"], "--called-ae: 'A\\\\B' has a backslash"),
        (["echo", "a:104", "--max-pdu-length", "5"], "--max-pdu-length: '5' is less than 4096"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, error: Callable[[], str]) -> None:
    assert cli.main(arguments) == 2
    assert message in error()


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "{}"],
        ["serve", "{}"],
        ["config", "a", "{}"],
        ["--port", "{}"],
        ["{}", "serve"],
        ["echo", "a:1", "--tls-ca", "{}"],
        ["send", "a:1", "/", "--password-file", "{}", "--user", "a"],
        ["send", "a:1", "/", "--report", "/nonexistent/{}"],
        ["cat", "a", "--store", "{}"],
        ["serve", "--config", "{}"],
    ],
)
def test_names_reach_no_terminal_as_they_are(
    arguments: list[str], error: Callable[[], str]
) -> None:
    named = [word.replace("{}", "x\x1b[31m\u202e\udc9b") for word in arguments]
    assert cli.main(named) in (1, 2)
    assert error().isprintable()


@pytest.mark.parametrize("store", ["dicom", ".", "a/b"])
@pytest.mark.parametrize("from_store", [True, False])
def test_a_store_is_named_once(store: str, from_store: bool) -> None:
    """By whatever path a call was refused."""
    refused = Path(store, ".fastscp/store.toml") if from_store else Path("store.toml")
    with pytest.raises(StartError) as caught, explained(Path(store)):
        raise PermissionError(errno.EACCES, "Permission denied", str(refused))
    assert f": {Path(store, '.fastscp/store.toml')}: Permission denied" in str(caught.value)


def test_verify_of_a_folder_that_is_not_there(tmp_path: Path, error: Callable[[], str]) -> None:
    assert cli.main(["verify", "--store", str(tmp_path / "typo")]) == 3
    said = error()
    assert said.startswith(f"{tmp_path}/typo: there is no such directory; name the store with")
    assert "--store-new-life" not in said


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "cannot write out /: it is a folder; name one file in it"),
        ("/dev/null", "cannot write out /dev/null: is no regular file"),
        ("nope", "cannot write out nope: No such file or directory, neither below the store"),
    ],
)
def test_cat_of_what_is_no_instance(
    path: str, message: str, error: Callable[[], str], tmp_path: Path
) -> None:
    assert cli.main(["cat", path, "--store", str(tmp_path)]) == 1
    assert error().startswith(message)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["print", f"{shell}-completion"]) == 0
    out = capsys.readouterr().out
    assert "--max-pdu-length" in out
    assert "buffered" in out


def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if (bash := shutil.which("bash")) is None:
        pytest.skip("there is no bash")
    assert cli.main(["print", "bash-completion"]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out, encoding="utf-8")
    ask = """
        source ./completion
        # What the shell itself offers where we know nothing: names of files.
        complete -p fastscp | grep -q -- "-o default" || exit 1
        ask() { COMP_WORDS=(fastscp "$@") COMP_CWORD=$# COMPREPLY=(); _fastscp
                echo "${COMPREPLY[*]}"; }
        ask se; ask to; ask top --in
        ask serve --log; ask serve --durability ""; ask print z; ask cat /et
    """
    done = subprocess.run(
        [bash, "--norc", "--noprofile", "-c", ask],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "serve send", "top", "--interval",
        "--log-instance-size --log-format --log-file --log-level", "stable buffered",
        "zsh-completion", "",
    ]  # fmt: skip


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

    def run(_: ServeConfig, **_more: object) -> int:
        raise raised

    stand_in = SimpleNamespace(run=run)
    monkeypatch.setattr(fastscp.main, "serve", stand_in, raising=False)
    assert cli.main(["serve"]) == code
    assert error().startswith(message)


def test_the_code_of_a_command_is_the_code_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastscp.main

    stand_in = SimpleNamespace(run=lambda _, **_more: 3)
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
                "identity": None,
            },
        )
    ]


def test_echo_shows_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `send` does: whoever tests a receiver that asks for tokens begins with an echo."""
    shown: list[object] = []
    monkeypatch.setattr(
        "fastscp.cli.echo.run_echo", lambda *_who, identity, **_options: shown.append(identity)
    )
    token = tmp_path / "token"
    token.write_text("a.b.c\n")
    assert cli.main(["echo", "h:104", "--jwt-file", str(token)]) == 0
    assert shown == [jwt_identity("a.b.c")]
    assert cli.main(["echo", "h:104", "--jwt-file", str(token), "--user", "u"]) == 2


def test_certificates_of_a_sender_that_cannot_be_used(
    certificates: Certificates, tmp_path: Path, error: Callable[[], str]
) -> None:
    """Each mistake names its file, and what to do."""
    c = certificates
    nothing, none = tmp_path / "nothing", tmp_path / "none"
    nothing.write_text("words")
    client, other = c.client, c.other_client
    for given, why in (
        ([client.cert], f"--tls-cert: {client.cert} has no private key in it; name the file of"),
        ([nothing], f"--tls-cert: {nothing} has no certificate in it"),
        ([client.cert, nothing], f"--tls-key: {nothing} has no private key in it"),
        ([client.cert, none], f"--tls-key: cannot use {none} (No such file or directory)"),
        ([none, client.key], f"--tls-cert: cannot use {none} (No such file or directory)"),
        ([client.cert, other.key], f"--tls-key: {other.key} has the key of another certificate"),
    ):
        words = [
            "--tls-cert",
            str(given[0]),
            *(w for one in given[1:] for w in ("--tls-key", str(one))),
        ]
        assert cli.main(["echo", "h:104", *words]) == 2
        assert why in error()
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    for option, path, more, why in (
        ("--tls-ca", client.key, [], "has no certificate in it; give its file"),
        ("--tls-cert", damaged, ["--tls-key", str(client.key)], "give another, or get it anew"),
    ):
        assert cli.main(["echo", "h:104", option, str(path), *more]) == 2
        told = error()
        assert told.startswith(f"{option}: ")
        assert str(path) in told
        assert why in told
        # Nothing of how a library was built.
        assert "_ssl.c" not in told


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bool, bool]] = []
    hosts: list[str] = []

    def run(config: ServeConfig, once: bool, *, keep: bool) -> int:
        calls.append((config.port, once, keep))
        hosts.extend(config.host)
        return 0

    monkeypatch.setattr(fastscp.cli, "demonstration", SimpleNamespace(run=run), raising=False)
    assert cli.main(["demo", "--port", "0", "--once"]) == 0
    assert cli.main(["demo", "--store", "here"]) == 0
    # Others may reach it where that was asked for.
    assert hosts == ["127.0.0.1", "127.0.0.1"]
    monkeypatch.setenv("FASTSCP_HOST", "0.0.0.0")
    assert cli.main(["demo", "--once"]) == 0
    assert hosts[2:] == ["0.0.0.0"]
    del calls[2:]
    assert calls == [(0, True, False), (11112, False, True)]

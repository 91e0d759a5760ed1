"""The commands: flags to a configuration, errors to one line and an exit code.

The only module that prints. Exit codes: 0 done, 1 failed at run time, 2 bad usage or configuration,
3 could not start. What a command needs is imported when it runs: `--help` stays quick.
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts import Group as HelpGroup

from fastscp import __version__, log
from fastscp.cli import store_commands
from fastscp.config.settings import SETTINGS, Group, Loaded, load, read_value
from fastscp.config.values import (
    Choice,
    Duration,
    Many,
    Parsed,
    Switch,
    Whole,
    read_move_originator,
    read_peer,
    read_title,
)
from fastscp.errors import ConfigError, FastscpError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "main"]

app = App(
    name="fastscp",
    help="DICOM storage SCP for high-volume ingest.",
    version=f"fastscp {__version__}",
    help_flags=["--help"],
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # it would choose the exit code
)

_HELP_GROUPS = {
    group: HelpGroup(group.value, sort_key=order) for order, group in enumerate(Group, start=1)
}
_PEER = Parsed(read_peer, "HOST:PORT", "HOST:PORT, an IPv6 address in brackets")
_TITLE = Parsed(read_title, "TITLE", "1 to 16 ASCII characters without a backslash")
_TIMEOUT = Duration(0.1, 3600.0)
_MAX_PDU_LENGTH = Whole(4096, 16777216, even=True)
_PRIORITY = Choice(("low", "medium", "high"))
_MOVE_ORIGINATOR = Parsed(read_move_originator, "AE:ID", "AE:ID, the id from 0 to 65535")

Verbose = Annotated[
    int,
    Parameter(
        name="-v",
        count=True,
        show_default=False,
        group=_HELP_GROUPS[Group.LOGGING],
        help="Log more: -v is --log-level debug, -vv is trace.",
    ),
]
Quiet = Annotated[
    bool,
    Parameter(
        name="-q",
        negative="",
        show_default=False,
        group=_HELP_GROUPS[Group.LOGGING],
        help="Log less: --log-level warning.",
    ),
]
ConfigFile = Annotated[
    str,
    Parameter(
        name="--config",
        metavar="FILE",
        show_default=False,
        help="TOML file with settings; FASTSCP_CONFIG names one too.",
    ),
]


def _takes_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command one option per setting, as text: reading and layering is config's.

    The command's own keyword parameters come first; the settings that were given arrive in
    `**given`.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
    for setting in SETTINGS:
        switch = isinstance(setting.kind, Switch)
        option = Parameter(
            name=setting.flag,
            metavar=setting.kind.metavar or None,
            group=_HELP_GROUPS[setting.group],
            help=setting.text,
            show_default=setting.default_text,
            # A switch set in the environment must be possible to take back.
            negative=f"--no-{setting.name}" if switch and not setting.flag_only else "",
        )
        given: Any = bool if switch else list[str] if isinstance(setting.kind, Many) else str
        parameters.append(
            inspect.Parameter(
                setting.field,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[given, option],
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _load(given: dict[str, object], config: str | None, verbose: int, quiet: bool) -> Loaded:
    """Layer the settings, with -v and -q standing for a log level."""
    spelled: dict[str, str] = {}
    if verbose or quiet:
        spelling = "-q" if not verbose else "-v" if verbose == 1 else "-vv"
        if verbose and quiet:
            raise ConfigError("-v", "contradicts -q; give one of them")
        if "log_level" in given:
            raise ConfigError(spelling, "sets the log level, and so does --log-level; give one")
        given["log_level"] = "warning" if quiet else "debug" if verbose == 1 else "trace"
        spelled["log_level"] = spelling
    return load(given, file=None if config is None else Path(config), spelled=spelled)


@app.command
@_takes_settings
def serve(
    *,
    config: ConfigFile | None = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Run the receiver.

    Every option below may also be given in the environment (--max-pdu-length as
    FASTSCP_MAX_PDU_LENGTH) or in a TOML file (max-pdu-length = 16384). A flag beats the
    environment, the environment beats the file. Times are seconds or 30s, 5m, 1h; sizes are bytes
    or KiB, MiB, GiB. Lists repeat the option or use commas.
    """
    settings = _load(given, config, verbose, quiet).config
    log.configure("main", settings.log_level, settings.log_format)
    from fastscp.main import serve as service

    code: int = service.run(settings)
    return code


@app.command
def echo(
    peer: Annotated[str, Parameter(name="HOST:PORT", help="Who to ask.")],
    /,
    *,
    called_ae: Annotated[str, Parameter(metavar="TITLE", help="AE title of the peer.")] = "ANY-SCP",
    calling_ae: Annotated[str, Parameter(metavar="TITLE", help="AE title to call as.")] = "FASTSCP",
    timeout: Annotated[
        str, Parameter(metavar="TIME", help="How long the whole exchange may take.")
    ] = "10s",
    max_pdu_length: Annotated[
        str, Parameter(metavar="N", help="Largest P-DATA-TF to announce, in bytes.")
    ] = "131072",
    verbose: Verbose = 0,
) -> int:
    """Ask a peer whether it is there (C-ECHO)."""
    host, port = read_value("HOST:PORT", peer, _PEER)
    options = {
        "called_ae": read_value("--called-ae", called_ae, _TITLE),
        "calling_ae": read_value("--calling-ae", calling_ae, _TITLE),
        "timeout_s": read_value("--timeout", timeout, _TIMEOUT),
        "max_pdu_length": read_value("--max-pdu-length", max_pdu_length, _MAX_PDU_LENGTH),
    }
    log.configure("echo", ("warning", "debug", "trace")[min(verbose, 2)])
    from fastscp.scu import run_echo

    print(run_echo(host, port, **options))  # noqa: T201
    return 0


@app.command
def send(
    peer: Annotated[str, Parameter(name="HOST:PORT", help="Who to send to.")],
    /,
    *paths: Annotated[
        str,
        Parameter(
            name="PATH",
            help="Files, folders (with all below them, .fastscp excepted) or globs; "
            "not DICOM is skipped.",
        ),
    ],
    called_ae: Annotated[str, Parameter(metavar="TITLE", help="AE title of the peer.")] = "ANY-SCP",
    calling_ae: Annotated[str, Parameter(metavar="TITLE", help="AE title to call as.")] = "FASTSCP",
    associations: Annotated[
        str, Parameter(metavar="N", help="Associations in parallel. (1 to 1000)")
    ] = "1",
    window: Annotated[
        str,
        Parameter(
            metavar="N",
            help="Operations outstanding on each, as far as the peer allows. (1 to 65535)",
        ),
    ] = "1",
    max_pdu_length: Annotated[
        str, Parameter(metavar="N", help="Largest P-DATA-TF to announce, in bytes.")
    ] = "131072",
    priority: Annotated[
        str, Parameter(metavar="low|medium|high", help="Priority of the operations.")
    ] = "medium",
    move_originator: Annotated[
        str | None,
        Parameter(metavar="AE:ID", help="Move originator and its message id, to be passed on."),
    ] = None,
    retries: Annotated[
        str,
        Parameter(metavar="N", help="Further attempts after a lost connection or A7xx. (0 to 100)"),
    ] = "3",
    timeout: Annotated[
        str, Parameter(metavar="TIME", help="How long the peer may be silent.")
    ] = "60s",
    repeat: Annotated[
        str, Parameter(metavar="N", help="Send everything N times. (1 to 1000000000)")
    ] = "1",
    new_uids: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Study, series and SOP UIDs fresh each time."
        ),
    ] = False,
    tls: Annotated[bool, Parameter(negative="", show_default=False, help="Use TLS.")] = False,
    tls_ca: Annotated[
        str | None,
        Parameter(metavar="FILE", help="Certificates to trust, instead of the system's."),
    ] = None,
    tls_cert: Annotated[
        str | None, Parameter(metavar="FILE", help="Certificate to show to the peer.")
    ] = None,
    tls_key: Annotated[str | None, Parameter(metavar="FILE", help="Its key.")] = None,
    tls_no_verify: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Trust whoever answers. For tests only."),
    ] = False,
    user: Annotated[str | None, Parameter(metavar="NAME", help="User identity: name.")] = None,
    password_file: Annotated[
        str | None, Parameter(metavar="FILE", help="User identity: file with the password.")
    ] = None,
    jwt_file: Annotated[
        str | None, Parameter(metavar="FILE", help="User identity: file with a JSON Web Token.")
    ] = None,
    report: Annotated[
        str | None, Parameter(metavar="FILE.jsonl", help="Write a line of JSON per instance.")
    ] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print the summary as JSON.")
    ] = False,
    verbose: Verbose = 0,
) -> int:
    """Send DICOM files (C-STORE), their data sets byte for byte as they are.

    Exit code 0 only if everything arrived.
    """
    host, port = read_value("HOST:PORT", peer, _PEER)
    if not paths:
        raise ConfigError("PATH", "nothing to send; give files, folders or globs")
    secure = tls or bool(tls_ca or tls_cert or tls_key or tls_no_verify)
    allowed = read_value("--timeout", timeout, _TIMEOUT)
    log.configure("send", ("warning", "info", "debug")[min(verbose, 2)])
    from fastscp.cli import console
    from fastscp.cli import send_options as options
    from fastscp.scu import Priority, Timeouts

    chosen = console.Options(
        host=host,
        port=port,
        called_ae=read_value("--called-ae", called_ae, _TITLE),
        calling_ae=read_value("--calling-ae", calling_ae, _TITLE),
        associations=read_value("--associations", associations, Whole(1, 1000)),
        window=read_value("--window", window, Whole(1, 65535)),
        max_pdu_length=read_value("--max-pdu-length", max_pdu_length, _MAX_PDU_LENGTH),
        priority=Priority[read_value("--priority", priority, _PRIORITY).upper()],
        move_originator=(
            None
            if move_originator is None
            else read_value("--move-originator", move_originator, _MOVE_ORIGINATOR)
        ),
        retries=read_value("--retries", retries, Whole(0, 100)),
        repeat=read_value("--repeat", repeat, Whole(1, 1_000_000_000)),
        new_uids=new_uids,
        timeouts=Timeouts(associate=min(allowed, 30.0), send=allowed, response=allowed),
        tls=options.tls_context(tls_ca, tls_cert, tls_key, tls_no_verify) if secure else None,
        identity=options.identity(user, password_file, jwt_file),
    )
    summary = console.run_send(
        chosen,
        paths,
        None if report is None else Path(report),
        progress=sys.stderr.isatty() and not verbose,
    )
    if json:
        import msgspec

        print(msgspec.json.encode(summary.as_json()).decode("utf-8"))  # noqa: T201
    else:
        width = max(len(name) for name, _ in console.summary_lines(summary))
        for name, value in console.summary_lines(summary):
            print(f"{name:<{width}}  {value}")  # noqa: T201
    return 0 if summary.ok else FastscpError.exit_code


@app.command(name="config")
@_takes_settings
def show_config(
    *,
    config: ConfigFile | None = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print JSON instead of a table.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Show the effective configuration of the receiver, and where each value comes from.

    Takes the options of serve, and reads the same environment and file.
    """
    loaded = _load(given, config, verbose, quiet)
    if json:
        _print_json(loaded)
    else:
        _print_table(loaded)
    return 0


@app.command
@_takes_settings
def demo(
    *,
    once: Annotated[
        bool, Parameter(negative="", show_default=False, help="Stop after showing it once.")
    ] = False,
    config: ConfigFile | None = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Show a receiver at work: start one, send it something, look at what it kept.

    Takes the options of serve, and reads the same environment and file. Without --store it keeps
    everything in a temporary directory.
    """
    loaded = _load(given, config, verbose, quiet)
    settings = loaded.config
    log.configure("main", settings.log_level, settings.log_format)
    from fastscp.cli import demo as demonstration

    return demonstration.run(settings, once, keep=loaded.sources["store"] != "default")


store_commands.register(app)


def _print_json(loaded: Loaded) -> None:
    import msgspec

    shown = {
        setting.name: {
            "value": _plain(getattr(loaded.config, setting.field)),
            "source": loaded.sources[setting.field],
        }
        for setting in SETTINGS
    }
    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode("utf-8"))  # noqa: T201


def _plain(value: object) -> object:
    """A value as JSON knows it, so that it may go back into a TOML file."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _print_table(loaded: Loaded) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "source", box=None, pad_edge=False, header_style="bold")
    for setting, value, source in loaded.rows():
        # Text, not str: nothing in a value is markup.
        table.add_row(Text(setting.name), Text(value or setting.default_text), Text(source))
    # Lines are cut to a terminal only: another program gets each setting on one line.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. argv: without the program's name."""
    try:
        outcome = app(
            argv if argv is None else list(argv),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} See `fastscp --help`.", ConfigError.exit_code)
    except FastscpError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", FastscpError.exit_code)
    except BrokenPipeError:
        # Who read our output has seen enough; the interpreter must not trip over it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FastscpError.exit_code
    return outcome if isinstance(outcome, int) else 0


def _fail(why: str, code: int) -> int:
    print(f"fastscp: {why}", file=sys.stderr)  # noqa: T201
    return code

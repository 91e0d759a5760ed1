"""`fastscp print`: files that others read, made for this version."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from cyclopts import Parameter

from fastscp.cli.options import (
    ConfigFile,
    Quiet,
    Verbose,
    as_written,
    load_settings,
    takes_settings,
)
from fastscp.config.settings import read_value
from fastscp.config.values import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.readymade.source import Source

__all__ = ["READY_MADE", "RENDERED", "print_ready_made"]


def _completion(shell: str) -> str:
    from fastscp.cli.app import app

    script = app.generate_completion(shell=cast('Literal["bash", "zsh", "fish"]', shell))
    if shell == "bash":
        # The shell's own way with names of files knows folders, and names with spaces in them.
        script = re.sub(r"COMPREPLY=\( \$\(compgen -f .*\) \)", "COMPREPLY=()", script)
        script = script.replace("\ncomplete -F ", "\ncomplete -o default -F ")
    return script


def _grafana_dashboard() -> str:
    from fastscp.cli.monitoring import grafana_dashboard

    return grafana_dashboard()


# By the word that names it: what it is, for the help, and what makes its text. What a text needs is
# imported when it is made.
READY_MADE: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    **{
        f"{shell}-completion": (f"completion for {shell}", partial(_completion, shell))
        for shell in ("bash", "zsh", "fish")
    },
    "grafana-dashboard": ("a dashboard for Grafana to import", _grafana_dashboard),
}


def _systemd_unit(source: Source) -> str:
    from fastscp.readymade import systemd

    return systemd.render(source)


def _dockerfile(source: Source) -> str:
    from fastscp.readymade import container

    return container.render(source)


def _kubernetes(source: Source) -> str:
    from fastscp.readymade import kubernetes

    return kubernetes.render(source)


def _haproxy(source: Source) -> str:
    from fastscp.readymade import haproxy

    return haproxy.render(source)


def _settings_file(source: Source) -> str:
    from fastscp.readymade import settings_file

    return settings_file.render(source)


def _conformance(source: Source) -> str:
    from fastscp.readymade import conformance

    return conformance.render(source)


def _prometheus_rules(source: Source) -> str:
    from fastscp.cli.monitoring import prometheus_rules

    (token_file,) = source.files.get("admin_token_file", ("",))
    return prometheus_rules(source.config.admin, token_file)


# The same of those that are rendered from the effective configuration.
RENDERED: Final[dict[str, tuple[str, Callable[[Source], str]]]] = {
    "systemd-unit": ("a unit file for systemd", _systemd_unit),
    "dockerfile": ("an image for containers", _dockerfile),
    "kubernetes": ("manifests for Kubernetes", _kubernetes),
    "haproxy": ("a balancer in front of receivers", _haproxy),
    "config": ("a TOML file with all settings", _settings_file),
    "prometheus-rules": ("alerts for Prometheus", _prometheus_rules),
    "conformance": ("the DICOM conformance statement", _conformance),
}
_WORDS: Final = (*READY_MADE, *RENDERED)
_WHAT: Final = Choice(_WORDS)
_HELP: Final = ", ".join(f"{word} = {what}" for word, (what, _) in (READY_MADE | RENDERED).items())

if TYPE_CHECKING:
    What = str
else:
    What = Annotated[
        # For the completion of a shell; the command gets it as it was written.
        Literal[_WORDS],
        Parameter(name="WHAT", converter=as_written, show_choices=False, help=f"{_HELP}."),
    ]


@takes_settings
def print_ready_made(
    what: What,
    /,
    *,
    config: ConfigFile | None = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    **given: object,
) -> int:
    """Print a file that another program reads, or whoever connects a sender.

    What depends on the receiver is rendered from its effective configuration: give the options of
    serve as you run it, or --config; the environment counts, too. Each file says at its top what to
    do with it.

    Put a completion where its shell looks for such files; where that folder is missing, make it
    first with mkdir -p:

    fastscp print bash-completion > ~/.local/share/bash-completion/completions/fastscp

    fastscp print zsh-completion > DIR/_fastscp (a DIR of $fpath)

    fastscp print fish-completion > ~/.config/fish/completions/fastscp.fish
    """
    word: str = read_value("WHAT", what, _WHAT)
    if word in RENDERED:
        from fastscp.readymade.source import Source

        loaded = load_settings(given, config, verbose, quiet, for_elsewhere=True)
        text = RENDERED[word][1](Source(loaded, _program()))
    else:
        text = READY_MADE[word][1]()
    print(text, end="")
    return 0


def _program() -> tuple[str, ...]:
    """How this program was called, so that another one can call it from anywhere."""
    called = Path(sys.argv[0]).absolute()
    if called.name == "fastscp" and os.access(called, os.X_OK):
        return (str(called),)
    return (sys.executable, "-m", "fastscp")

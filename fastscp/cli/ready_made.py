"""`fastscp print`: files that others read, made for this version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from cyclopts import Parameter

from fastscp.cli.options import as_written
from fastscp.config.settings import read_value
from fastscp.config.values import Choice

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["print_ready_made"]

_SHELLS: Final = ("bash", "zsh", "fish")
_WHAT: Final = Choice(tuple(f"{shell}-completion" for shell in _SHELLS))


def print_ready_made(
    what: Annotated[
        Literal["bash-completion", "zsh-completion", "fish-completion"],
        Parameter(name="WHAT", converter=as_written, show_choices=False, help=f"{_WHAT.accepts}."),
    ],
    /,
) -> int:
    """Print a file that another program reads: the completion of this command line for a shell.

    Put it where that shell looks for such files; where that folder is missing, make it first with
    mkdir -p:

    fastscp print bash-completion > ~/.local/share/bash-completion/completions/fastscp

    fastscp print zsh-completion > DIR/_fastscp (a DIR of $fpath)

    fastscp print fish-completion > ~/.config/fish/completions/fastscp.fish
    """
    from fastscp.cli.app import app

    word: str = read_value("WHAT", what, _WHAT)
    print(_completion(app, word.removesuffix("-completion")), end="")
    return 0


def _completion(app: App, shell: str) -> str:
    script = app.generate_completion(shell=cast('Literal["bash", "zsh", "fish"]', shell))
    if shell == "bash":
        # The shell's own way with names of files knows folders, and names with spaces in them.
        script = re.sub(r"COMPREPLY=\( \$\(compgen -f .*\) \)", "COMPREPLY=()", script)
        script = script.replace("\ncomplete -F ", "\ncomplete -o default -F ")
    return script

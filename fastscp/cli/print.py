"""`fastscp print`: files that others read, made for this version."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from cyclopts import Parameter

from fastscp.cli.options import as_written
from fastscp.config.settings import read_value
from fastscp.config.values import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READY_MADE", "print_ready_made"]


def _completion(shell: str) -> str:
    from fastscp.cli.app import app

    script = app.generate_completion(shell=cast('Literal["bash", "zsh", "fish"]', shell))
    if shell == "bash":
        # The shell's own way with names of files knows folders, and names with spaces in them.
        script = re.sub(r"COMPREPLY=\( \$\(compgen -f .*\) \)", "COMPREPLY=()", script)
        script = script.replace("\ncomplete -F ", "\ncomplete -o default -F ")
    return script


# By the word that names it: what it is, for the help, and what makes its text. What a text needs is
# imported when it is made.
READY_MADE: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    f"{shell}-completion": (f"completion for {shell}", partial(_completion, shell))
    for shell in ("bash", "zsh", "fish")
}
_WHAT: Final = Choice(tuple(READY_MADE))
_HELP: Final = ", ".join(f"{word} = {what}" for word, (what, _) in READY_MADE.items())

if TYPE_CHECKING:
    What = str
else:
    What = Annotated[
        # For the completion of a shell; the command gets it as it was written.
        Literal[tuple(READY_MADE)],
        Parameter(name="WHAT", converter=as_written, show_choices=False, help=f"{_HELP}."),
    ]


def print_ready_made(what: What, /) -> int:
    """Print a file that another program reads.

    Put a completion where its shell looks for such files; where that folder is missing, make it
    first with mkdir -p:

    fastscp print bash-completion > ~/.local/share/bash-completion/completions/fastscp

    fastscp print zsh-completion > DIR/_fastscp (a DIR of $fpath)

    fastscp print fish-completion > ~/.config/fish/completions/fastscp.fish
    """
    word: str = read_value("WHAT", what, _WHAT)
    _, made = READY_MADE[word]
    print(made(), end="")
    return 0

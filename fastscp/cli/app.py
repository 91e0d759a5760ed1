"""The program: its commands put together, and errors made one line and an exit code.

Exit codes: 0 done, 1 failed at run time, 2 bad usage or configuration, 3 could not start, 130
interrupted. What a command needs is imported when it runs: `--help` stays quick. Results go to
stdout, all else to stderr.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from fastscp import __version__
from fastscp.cli.associations import abort, associations
from fastscp.cli.cat import cat
from fastscp.cli.config import show_config
from fastscp.cli.demo import demo
from fastscp.cli.echo import echo
from fastscp.cli.output import INTERRUPTED_CODE
from fastscp.cli.password import password
from fastscp.cli.pause import pause, resume
from fastscp.cli.print import print_ready_made
from fastscp.cli.recover import recover
from fastscp.cli.reload import reload
from fastscp.cli.send import send
from fastscp.cli.serve import serve
from fastscp.cli.status import status
from fastscp.cli.streams import StreamError, finish
from fastscp.cli.top import top
from fastscp.cli.verify import verify
from fastscp.errors import ConfigError, FastscpError
from fastscp.log import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "main"]

app = App(
    name="fastscp",
    help="DICOM storage SCP for high-volume ingest.",
    version=f"fastscp {__version__}",
    help_flags=["--help", "-h"],
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # it would choose the exit code
)


# Of commands whose arguments repeat: the library would write [ARGS...] for each of them.
_USAGES = {
    "send": "Usage: fastscp send [OPTIONS] HOST:PORT PATH...",
    "abort": "Usage: fastscp abort [OPTIONS] ID...",
}


def _add(name: str, command: Callable[..., int]) -> None:
    # The lines of a docstring end where the source's do; those of a help where the terminal's do.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(command, name=name, help=text, usage=_USAGES.get(name))


_add("serve", serve)
_add("status", status)
_add("top", top)
_add("reload", reload)
_add("associations", associations)
_add("abort", abort)
_add("pause", pause)
_add("resume", resume)
_add("echo", echo)
_add("send", send)
_add("config", show_config)
_add("demo", demo)
_add("password", password)
_add("verify", verify)
_add("recover", recover)
_add("cat", cat)
_add("print", print_ready_made)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. argv: without the program's name."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        outcome = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        finish()
    except CycloptsError as error:
        from fastscp.cli.usage import explained

        return _fail(explained(error, words), ConfigError.exit_code)
    except FastscpError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED_CODE)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        with contextlib.suppress(BrokenPipeError, StreamError):
            finish()
        return FastscpError.exit_code
    return outcome if isinstance(outcome, int) else 0


def _fail(why: str, code: int) -> int:
    # What was found before comes first; that it cannot be written matters less than the error.
    with contextlib.suppress(BrokenPipeError, StreamError):
        finish()
    # It may repeat the name of a file, or what stands in one.
    print(f"fastscp: {escape(why)}", file=sys.stderr)
    return code

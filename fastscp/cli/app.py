"""The program: its commands put together, and errors made one line and an exit code.

Exit codes: 0 done, 1 failed at run time, 2 bad usage or configuration, 3 could not start, 130
interrupted. What a command needs is imported when it runs: `--help` stays quick. Results go to
stdout, all else to stderr.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from fastscp import __version__
from fastscp.cli.cat import cat
from fastscp.cli.config import show_config
from fastscp.cli.demo import demo
from fastscp.cli.echo import echo
from fastscp.cli.output import INTERRUPTED_CODE
from fastscp.cli.send import send
from fastscp.cli.serve import serve
from fastscp.cli.streams import StreamError, finish
from fastscp.cli.verify import verify
from fastscp.errors import ConfigError, FastscpError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
app.command(serve)
app.command(echo)
app.command(send)
app.command(show_config, name="config")
app.command(demo)
app.command(verify)
app.command(cat)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. argv: without the program's name."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        outcome = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        finish()
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} See `fastscp --help`.", ConfigError.exit_code)
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
    print(f"fastscp: {why}", file=sys.stderr)
    return code

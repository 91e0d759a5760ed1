"""How results are printed, as JSON and in columns; and failures of the system, in one line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.errors import FastscpError
from fastscp.log import in_json, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


# The exit code of what a user ended with Ctrl-C, as a shell says it of a program that INT ended.
INTERRUPTED_CODE: Final = 130

__all__ = ["INTERRUPTED_CODE", "os_errors", "plain", "print_columns", "print_json"]


def print_json(shown: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode("utf-8"))


def plain(value: object) -> object:
    """The value of a setting as JSON knows it, so that it may go back into a TOML file."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return in_json(str(value.absolute()))
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def print_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> None:
    """Each value whole however narrow the terminal is: it may be copied from there.

    right: the numbers of the columns that are aligned there, from 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            value.rjust(width) if at in right else value.ljust(width)
            for at, (value, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """A failure of the system, in one line. A broken pipe is left to whoever handles it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = isinstance(error.filename, (str, bytes))
        where = f"{printable(os.fsdecode(error.filename))}: " if named else ""
        raise FastscpError(f"{where}{error.strerror or error}") from error

"""How results are printed as JSON; and failures of the system, in one line."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from fastscp.errors import FastscpError
from fastscp.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


# The exit code of what a user ended with Ctrl-C, as a shell says it of a program that INT ended.
INTERRUPTED_CODE: Final = 130

__all__ = ["INTERRUPTED_CODE", "os_errors", "print_json"]


def print_json(shown: dict[str, object]) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode("utf-8"))


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

"""Standard input and output that are always there, and that say why when they fail.

A shell may close them (`>&-`), and a disk may be full. The interpreter then has no stream at all,
gives its number to the next file that is opened, or ends with a traceback and a code of its own.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

from fastscp.errors import FastscpError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["StreamError", "finish", "prepare"]

_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
# What stands in for a closed one: the wrong way round, so that its use fails as it would have.
_STAND_INS: Final = {_STDIN: os.O_WRONLY, _STDOUT: os.O_RDONLY, _STDERR: os.O_WRONLY}


class StreamError(FastscpError):
    """Standard input or output cannot be used: exit 1."""


class _Stdin(io.FileIO):
    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise StreamError(
                f"cannot read stdin ({_why(error)}); give it a file or a pipe"
            ) from error


class _Stdout(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write(self, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StreamError(
                f"cannot write the result to stdout ({_why(error)}); send it to a file with room, "
                f"a pipe or a terminal"
            ) from error


class _Stderr(io.FileIO):
    """Drops what it cannot write: there is no other place to say so, and the work goes on."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write(self, data)
        except OSError:
            return memoryview(data).nbytes


def _why(error: OSError) -> str:
    return "it is closed" if error.errno == errno.EBADF else str(error.strerror)


def _write(file: io.FileIO, data: ReadableBuffer) -> int:
    """Write some of it, and wait where somebody else made the descriptor non-blocking."""
    while (written := io.FileIO.write(file, data)) is None:
        select.select([], [file.fileno()], [])
    return written


def prepare() -> None:
    """Fill the standard descriptors, and put streams on them that fail in words.

    The first thing a program does: the next file it opens would take a free place.
    """
    for fd, way in _STAND_INS.items():
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest free number, which is this one. Workers inherit it.
            os.set_inheritable(os.open(os.devnull, way), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Stdin(_STDIN, closefd=False)))
    sys.stdout = _text(_Stdout(_STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(_STDERR, "w", closefd=False), sys.stderr, by_lines=True)


def _text(raw: io.FileIO, before: TextIO | None, *, by_lines: bool = False) -> TextIO:
    """A text stream as the one before it, which never fails for a character."""
    errors = "surrogateescape" if getattr(before, "errors", "") == "surrogateescape" else None
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None),
        errors=errors or "backslashreplace",
        line_buffering=by_lines or raw.isatty() or getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )


def finish() -> None:
    """Write what is left of the output. Raises StreamError or BrokenPipeError, and drops it then.

    What stays in the stream would fail once more at the end of the interpreter, which would say so
    in its own words.
    """
    try:
        sys.stdout.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise

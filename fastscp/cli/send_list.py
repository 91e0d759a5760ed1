"""The paths that `send --files-from` lists, read as they come.

The list is read without a buffer of Python's: nobody can close that, or end the interpreter, while
a thread waits in it for whoever writes the list.
"""

from __future__ import annotations

import contextlib
import errno
import io
import select
import sys
from typing import TYPE_CHECKING, Final

from fastscp.errors import ConfigError, FastscpError
from fastscp.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["paths_listed"]

# Read at a time. No path is longer.
_PATH_MOST: Final = 1 << 13
# How long to wait for whoever writes the list before saying that there is nothing for now.
_PAUSE_MS: Final = 100


@contextlib.contextmanager
def paths_listed(files_from: str | None) -> Iterator[Iterable[bytes]]:
    """The paths of a list; none without one. An empty one says: there are no more for now.

    Raises ConfigError for a list that cannot be opened; whoever iterates gets FastscpError for one
    that cannot be read any further.
    """
    if files_from is None:
        yield ()
        return
    named = "stdin" if files_from == "-" else printable(files_from)
    try:
        if files_from == "-":
            file = io.FileIO(sys.stdin.fileno(), closefd=False)
        else:
            file = io.FileIO(files_from)
    except (OSError, ValueError) as error:
        why = _why(error)
        raise ConfigError(
            "--files-from", f"cannot read {named} ({why}); name a readable file, or - for stdin"
        ) from None
    with file:
        yield _paths(_Source(file, named))


def _why(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "it is no name of a file"
    return "it is closed" if error.errno == errno.EBADF else str(error.strerror or error)


class _Source:
    """A file that may be a pipe. named: what an error calls it."""

    def __init__(self, file: io.FileIO, named: str) -> None:
        self._file = file
        self._named = named
        # Not select(), which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)

    def read(self) -> bytes | None:
        """What comes next, b"" at the end; None if nothing comes for a while."""
        try:
            return self._file.read(_PATH_MOST) if self._poll.poll(_PAUSE_MS) else None
        except OSError as error:
            why = f"cannot read {self._named} ({_why(error)}); give it a file or a pipe"
            raise FastscpError(why) from error


def _paths(source: _Source) -> Iterator[bytes]:
    """The paths in a list, read as far as they are asked for; b"" where it makes a pause."""
    chunk = b""
    # A name may hold a newline where NUL ends each; who writes such a list is slow at times.
    while b"\0" not in chunk and len(chunk) < _PATH_MOST:
        more = source.read()
        if more is None:
            if b"\n" in chunk:
                break
            yield b""
        elif more:
            chunk += more
        else:
            break
    end = b"\0" if b"\0" in chunk else b"\n"
    # In pieces, for a line may be longer than any path.
    begun: list[bytes] = []
    more = chunk
    while more != b"":
        if more is None:
            yield b""
        else:
            head, *others = more.split(end)
            begun.append(head)
            if others:
                yield from filter(None, (b"".join(begun), *others[:-1]))
                begun = [others[-1]]
        more = source.read()
    if path := b"".join(begun):
        yield path

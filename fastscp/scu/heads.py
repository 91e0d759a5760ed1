"""What a sender must know of a Part 10 file before it sends it, from the file's first kilobytes.

The data set itself is never parsed: it goes out as it lies in the file.
Source: PS3.10 7.1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import zstandard

from fastscp.log import shown
from fastscp.scu.errors import UnusableInstance
from fastscp.store.compress import is_compressed, part10_of, part10_size
from fastscp.uids import LONGEST_UID, is_uid
from fastscp_ext import (
    Tap,
    encoding_of,
    file_mark,
    part10_head,
    part10_head_of_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "Head",
    "is_part10",
    "open_decompressed",
    "read_head",
    "read_head_of",
    "reading_data_set",
    "tap_identity",
    "tapped",
]

_PREFIX_END: Final = 132
_FIRST_READ: Final = 4096
_CHUNK: Final = 1 << 20
# How far the data set's own UIDs are looked for. They stand in its first group.
_LOOKED_AT: Final = 1 << 20
_IDENTITY: Final = frozenset({"SOPClassUID", "SOPInstanceUID"})
# SOP classes with transfer syntaxes that were judged well before: a few stand for all files.
_good: Final[set[tuple[str, str]]] = set()
_MOST_GOOD: Final = 1024


class Head(NamedTuple):
    """An instance as its file names it.

    offset, size: of the data set, in bytes. mark: of the file (`file_mark`), 0 where it is none.
    compressed: the file is, as a whole; offset and size are those of what it holds.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int
    size: int
    mark: int = 0
    compressed: bool = False


def is_part10(start: bytes) -> bool:
    """Whether a file that starts like this has a preamble and its prefix."""
    return start[128:_PREFIX_END] == b"DICM"


def read_head(path: str | bytes | Path) -> Head | None:
    """The head of a file, which may be compressed; None if it is not Part 10.

    Raises UnusableInstance for a Part 10 file that cannot be sent, OSError.
    """
    found = part10_head_of_file(os.fsencode(path))
    if found is None:
        return _read_compressed(path)
    head, total, mark = found
    if not head[4] and total > _FIRST_READ:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _read_on(lambda at, size: os.pread(fd, size, at), total, mark)
        finally:
            os.close(fd)
    return _judged(head, total, mark)


def _read_compressed(path: str | bytes | Path) -> Head | None:
    """The head of what a compressed file holds; None if it is not compressed, or not Part 10."""
    with open_regular(path) as file:
        if file is None:
            return None
        mark = file_mark(file.fileno())
        if not is_compressed(file.read(_FIRST_READ)):
            return None
        file.seek(0)
        try:
            with part10_of(file) as whole:
                total = part10_size(whole)
                read = _onwards(whole)
                head = None if total < 0 else _read_on(read, total, mark)
        except zstandard.ZstdError as error:
            raise UnusableInstance(f"its compressed content is damaged ({error})") from error
    if total < 0:
        raise UnusableInstance("it is compressed, and does not say how much it holds")
    return None if head is None else head._replace(compressed=True)


def _onwards(whole: IO[bytes]) -> Callable[[int, int], bytes]:
    """A way to read (offset, bytes) of a stream, which has no way back: its beginning is kept."""
    start = b""

    def read(at: int, size: int) -> bytes:
        nonlocal start
        start += whole.read(max(0, at + size - len(start)))
        return start[at : at + size]

    return read


@contextlib.contextmanager
def reading_data_set(path: str | bytes | Path, head: Head) -> Iterator[Callable[[int, int], bytes]]:
    """A way to read (offset, bytes) of the beginning of a file's data set.

    Raises OSError; ESTALE if the file is another one than that whose head was read.
    """
    with open_regular(path) as file:
        if file is None or (head.mark and file_mark(file.fileno()) != head.mark):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        with part10_of(file) as whole:
            read = _onwards(whole)
            yield lambda at, size: read(head.offset + at, size)


@contextlib.contextmanager
def open_regular(path: str | bytes | Path) -> Iterator[IO[bytes] | None]:
    """A file open for reading; None for what is no regular file. Raises OSError."""
    # To open a pipe or a device does something to it; and if it becomes one only now, a pipe
    # without a writer must not hold us up.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as the caller gave it
        yield None
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            yield None
            return
        undo.pop_all()
    with open(fd, "rb", buffering=_FIRST_READ) as file:  # noqa: PTH123 - a descriptor
        yield file


def open_decompressed(path: bytes, head: Head) -> int:
    """The content of a compressed file in a file without a name; its descriptor is the caller's.

    The space is that of the temporary folder (TMPDIR). Raises OSError: ESTALE if the file is
    another one than that whose head was read, EBADMSG if its content is damaged.
    """
    with open_regular(path) as file, tempfile.TemporaryFile() as made:
        if file is None or file_mark(file.fileno()) != head.mark:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        try:
            with part10_of(file) as whole:
                shutil.copyfileobj(whole, made, _CHUNK)
        except zstandard.ZstdError as error:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG)) from error
        if file_mark(file.fileno()) != head.mark:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        made.flush()
        return os.dup(made.fileno())


def read_head_of(data: bytes) -> Head | None:
    """The head of a Part 10 file in memory; None if it is none."""
    return _read_on(lambda at, size: data[at : at + size], len(data))


def _read_on(read: Callable[[int, int], bytes], total: int, mark: int = 0) -> Head | None:
    """Read more and more, until all is found or further bytes are not worth it."""
    start = read(0, _FIRST_READ)
    while True:
        head = part10_head(start)
        if head is None:
            return None
        if head[4] or len(start) >= min(total, _LOOKED_AT):
            return _judged(head, total, mark)
        more = read(len(start), len(start))
        if not more:
            return _judged(head, total, mark)
        start += more


def _judged(head: tuple[str, str, str, int, bool], total: int, mark: int) -> Head:
    sop_class, sop_instance, transfer_syntax, offset, _complete = head
    if not transfer_syntax:
        raise UnusableInstance("its File Meta Information is cut short, or has no transfer syntax")
    if not sop_class or not sop_instance:
        missing = "SOP Class UID" if not sop_class else "SOP Instance UID"
        raise UnusableInstance(f"it has no {missing}")
    if len(sop_instance) > LONGEST_UID:
        # Any other oddity the peer may judge; no command can hold this one.
        raise UnusableInstance(f"its SOP Instance UID has more than {LONGEST_UID} characters")
    pair = (sop_class, transfer_syntax)
    if pair not in _good:
        # These two go into a presentation context, which holds nothing but UIDs.
        for uid, what in zip(pair, ("SOP Class", "Transfer Syntax"), strict=True):
            if not is_uid(uid):
                raise UnusableInstance(f"its {what} UID is none: '{shown(uid)}'")
        if len(_good) < _MOST_GOOD:
            _good.add(pair)
    if offset >= total:
        raise UnusableInstance("it has no data set")
    return Head(sop_class, sop_instance, transfer_syntax, offset, total - offset, mark)


def tap_identity(
    read: Callable[[int, int], bytes], transfer_syntax: str, start: bytes = b""
) -> tuple[str, str]:
    """SOP class and instance of a data set; "" where it has none before the limit.

    read: (offset into the data set, bytes) to bytes. start: what has been read already.
    """
    values, _data, _encoding = tapped(read, transfer_syntax, _IDENTITY, start)
    return _uid(values.get("SOPClassUID", b"")), _uid(values.get("SOPInstanceUID", b""))


def tapped(
    read: Callable[[int, int], bytes],
    transfer_syntax: str,
    wanted: frozenset[str],
    start: bytes = b"",
) -> tuple[dict[str, bytes], bytes, int]:
    """Values of a data set by keyword, all that was read for them, and its encoding.

    Stops once it has those wanted, or where they can no longer come.
    """
    encoding, _deflated = encoding_of(transfer_syntax.encode("latin-1"))
    tap = Tap(encoding)
    chunk = data = start or read(0, _FIRST_READ)
    while chunk:
        tap.feed(chunk)
        values = tap.values()
        if tap.stopped or tap.settled or len(data) >= _LOOKED_AT or wanted <= values.keys():
            break
        chunk = read(len(data), len(data))
        data += chunk
    return tap.values(), data, tap.syntax


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("latin-1")

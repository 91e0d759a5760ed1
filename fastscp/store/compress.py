"""Zstandard at rest: parts compressed before they get their names, files read back as they were."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from typing import IO, TYPE_CHECKING, Final

import zstandard

from fastscp.store.names import FILE_MODE, open_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

__all__ = [
    "SLICE",
    "SUFFIX",
    "PartCompression",
    "frame_fault",
    "is_compressed",
    "level_of",
    "open_part10",
    "part10_of",
    "part10_size",
    "twin",
    "was_compressed",
]

SUFFIX: Final = ".zst"
DEFAULT_LEVEL: Final = 3
_CHUNK: Final = 1 << 20
# Bytes of a part that are compressed in one go: at the highest levels some tenths of a second.
SLICE: Final = 1 << 18
# As much of a frame as may say what it holds (RFC 8878 3.1.1.1).
_FRAME_HEADER: Final = 18


def level_of(form: str) -> int:
    """The level of a `--compress` value, 0 for none."""
    if form == "none":
        return 0
    _name, _colon, level = form.partition(":")
    return int(level) if level else DEFAULT_LEVEL


def twin(path: str) -> str:
    """The name the same instance has in the other form, compressed or not."""
    # A version mark stands behind the suffix, whichever it is.
    stem, mark, version = path.rpartition("~")
    if mark and len(version) == 1 and version.isdigit():
        return twin(stem) + mark + version
    return path.removesuffix(SUFFIX) if path.endswith(SUFFIX) else path + SUFFIX


class PartCompression:
    """A part on its way into a new one beside it, slice by slice. Off the event loop.

    It keeps two descriptors and the compressor's memory until its last slice, or until one fails.
    Raises OSError, and no new part is left; so does `take_slice`.
    """

    def __init__(self, incoming_fd: int, part: str, level: int) -> None:
        self._incoming_fd = incoming_fd
        self._name = part.removesuffix(".part") + SUFFIX
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._source = open_file(part, incoming_fd)
        try:
            self._left = os.fstat(self._source).st_size
            self._stream = compressor.compressobj(size=self._left)
            self._sink = os.open(self._name, flags, FILE_MODE, dir_fd=incoming_fd)
        except BaseException:
            os.close(self._source)
            raise

    def take_slice(self) -> tuple[str, int] | None:
        """Compress the next slice; after the last: (name, descriptor) of the new part.

        The descriptor wrote the new part and is the caller's.
        """
        try:
            data = os.read(self._source, SLICE) if self._left else b""
            if self._left and not data:
                raise OSError(errno.EIO, "a part became shorter while it was compressed")
            self._left -= len(data)
            write_all(self._sink, self._stream.compress(data))
            if self._left > 0:
                return None
            write_all(self._sink, self._stream.flush())
        except BaseException:
            os.close(self._source)
            os.close(self._sink)
            os.unlink(self._name, dir_fd=self._incoming_fd)
            raise
        os.close(self._source)
        return self._name, self._sink


@contextlib.contextmanager
def open_part10(path: str, dir_fd: int) -> Iterator[IO[bytes]]:
    """An instance's file as a readable stream of Part 10 bytes, decompressed where it must be.

    Raises OSError; reading raises zstandard.ZstdError for a damaged or cut compressed file.
    """
    with os.fdopen(open_file(path, dir_fd), "rb") as file, part10_of(file) as whole:
        yield whole


@contextlib.contextmanager
def part10_of(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """An instance's file that is open at its beginning, as `open_part10` gives it."""
    # By content, not by name: a version mark hides the suffix.
    head = file.read(_FRAME_HEADER)
    file.seek(0)
    if not is_compressed(head):
        yield file
        return
    size = zstandard.frame_content_size(head)
    with (
        zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as reader,
        io.BufferedReader(_Inflated(reader, size), _CHUNK) as whole,
    ):
        yield whole


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins like this is compressed."""
    return start.startswith(zstandard.FRAME_HEADER)


def part10_size(file: IO[bytes]) -> int:
    """The bytes of a stream that `open_part10` gave, in all; -1: only reading would tell."""
    raw = getattr(file, "raw", None)
    return raw.size if isinstance(raw, _Inflated) else os.fstat(file.fileno()).st_size


def was_compressed(file: IO[bytes]) -> bool:
    """Whether a stream that `open_part10` gave is decompressed as it is read."""
    return isinstance(getattr(file, "raw", None), _Inflated)


def frame_fault(file: IO[bytes]) -> str:
    """What is wrong around the content of a zstandard file of ours that can be decompressed.

    A decompressor stops at the end of the frame, and takes one without its checksum. "": nothing.
    Source: RFC 8878 3.1.1.
    """
    head = file.read(_FRAME_HEADER)
    about = head[4] if len(head) > 4 else 0
    if not about & 0x04:
        return "its zstandard frame has no checksum"
    if about & 0x10:
        return "byte 4 of its zstandard frame has a bit that is never set"
    single = about >> 5 & 1
    end = 5 + (1 - single) + (0, 1, 2, 4)[about & 3] + (single, 2, 4, 8)[about >> 6]
    last = 0
    while not last:
        file.seek(end)
        raw = file.read(3)
        if len(raw) < 3:
            return "it became shorter meanwhile"
        block = int.from_bytes(raw, "little")
        last, kind = block & 1, block >> 1 & 3
        # One byte stands for all of a block that repeats it.
        end += 3 + (1 if kind == 1 else block >> 3)
    behind = os.fstat(file.fileno()).st_size - end - 4
    if behind < 0:
        return f"cannot be decompressed (the file ends {-behind} bytes too early)"
    return f"{behind} bytes are behind its zstandard frame" if behind else ""


class _Inflated(io.RawIOBase):
    """A decompressing reader that minds its end: the library takes a cut frame for a short one.

    size: what the frame holds, -1 if it does not say.
    """

    def __init__(self, reader: zstandard.ZstdDecompressionReader, size: int) -> None:
        super().__init__()
        self._reader = reader
        self.size = size
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        got = self._reader.readinto(buffer)
        if not got and self._left > 0:
            raise zstandard.ZstdError(f"the file ends {self._left} bytes too early")
        self._left -= got
        return got

"""The shared memory, read and written by its layout alone; see block.pyi and block.pxd."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastscp_ext import Shared

__all__ = ["HEADER", "begin_batch", "end_flush", "put_in_flight", "put_large", "regions"]

# Magic, version, number of regions, size of the whole; then offset and size of each region.
HEADER: Final = struct.Struct("=8sIIQ10Q")
_NAMES: Final = ("store", "claims", "liveness", "rows", "tallies")
# Words of a worker in the region liveness.
_WORDS: Final = 8
# In the common block: words before the batches of the first worker, and of each batch.
_FRONT: Final = 16
_BATCH: Final = 8
_IN_FLIGHT: Final = 2
_LARGE: Final = 3
# In the region rows: what is before the first worker's, and in these before the flushes: a line of
# words, and a histogram for each stretch of time.
_WORKERS: Final = 256
_ROWS_FRONT: Final = 64 + 256 * 32
_BEFORE_FLUSHES: Final = 64 + 5 * 32 * 8


def regions(fd: int) -> dict[str, tuple[int, int]]:
    """Offset and size of each region, by name."""
    _magic, _version, count, _size, *places = HEADER.unpack(os.pread(fd, HEADER.size, 0))
    assert count == len(_NAMES)
    return dict(zip(_NAMES, zip(places[::2], places[1::2], strict=True), strict=True))


def begin_batch(shared: Shared, worker: int, durability: int = 1) -> None:
    """Begin a batch as a worker's commit does. durability: 1 stable, 0 buffered."""
    at = (_FRONT + (worker * 2 + durability) * _BATCH) * 8
    with mmap.mmap(shared.common_fd, 0) as block:
        (begun,) = struct.unpack_from("=Q", block, at)
        struct.pack_into("=Q", block, at, begun + 1)


def end_flush(shared: Shared, worker: int) -> None:
    """Count a flush of a file as a worker's commit does."""
    offset, size = regions(shared.fd)["rows"]
    each = (size - _ROWS_FRONT) // _WORKERS
    at = offset + _ROWS_FRONT + worker * each + _BEFORE_FLUSHES
    with mmap.mmap(shared.fd, 0) as block:
        (count,) = struct.unpack_from("=Q", block, at + 8 * 9)
        struct.pack_into("=Q", block, at + 8 * 9, count + 1)


def put_in_flight(shared: Shared, worker: int, nbytes: int) -> None:
    """Have a worker's commits hold so many bytes."""
    at = regions(shared.fd)["liveness"][0] + (worker * _WORDS + _IN_FLIGHT) * 8
    os.pwrite(shared.fd, struct.pack("=Q", nbytes), at)


def put_large(shared: Shared, worker: int, when_ms: int) -> None:
    """Have a worker have read of a large data set then."""
    at = regions(shared.fd)["liveness"][0] + (worker * _WORDS + _LARGE) * 8
    os.pwrite(shared.fd, struct.pack("=Q", when_ms), at)

"""What a power cut leaves of a recorded disk.

A cut after entry k of the record leaves everything that was written before the last flush up to
there, and of what was written later any part: the disk had it in its cache, and may have put it on
the medium in any order, down to single sectors.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.kept.device.disk import copy_image

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.kept.device.record import Entry, Record

__all__ = ["WAYS", "Cut", "Cuts", "chosen"]

# How much survives of what was not flushed: nothing, all up to some write, some writes, some
# sectors of all writes, everything.
WAYS: Final = ("nothing", "prefix", "subset", "sectors", "everything")
_WEIGHTS: Final = (2, 2, 4, 4, 1)
# What a disk writes as a whole or not at all, in bytes: disks have sectors of 512 bytes or 4 KiB.
# xfs relies on the latter. A block that is torn in its place has a wrong checksum, and the log is
# not replayed over what says that it is newer. ext4 replays whole blocks, unless it has no journal;
# btrfs overwrites none.
_UNIT: Final = {"ext4": 512, "ext4 without journal": 4096, "xfs": 4096, "btrfs": 512}
# That is, except their superblock, which must be whole, too: where it is on the disk. That of an
# ext4 of blocks of 1 KiB, as small ones have, is the second block.
_BLOCK: Final = 4096
_WHOLE: Final = {"ext4": (0, 1024), "xfs": (), "btrfs": (64 << 10, 64 << 20)}


class Cut(NamedTuple):
    """A cut after so many entries; position: where the record stood, in bytes."""

    entries: int
    position: int
    way: str
    pending: int

    def __str__(self) -> str:
        return f"cut after {self.entries} ({self.way} of {self.pending} writes left)"


def chosen(
    record: Record, start: int, count: int, rng: random.Random, end: int | None = None
) -> list[int]:
    """Where to cut: anywhere after position `start`, and every other time as late as possible.

    As late as possible is right before a flush, when most is waiting for it. end: the position
    that no cut is after; None: the record's own end. Rising.
    """
    entries = record.entries
    first = next(k for k, entry in enumerate(entries, 1) if entry.end > start)
    last = sum(entry.end <= end for entry in entries) if end is not None else len(entries)
    found = []
    for number in range(count):
        k = rng.randint(first, last)
        while number % 2 and k < last and not entries[k].is_flush:
            k += 1
        found.append(k)
    return sorted(found)


class Cuts:
    """Makes images of a disk after power cuts, in rising order, in a folder of its own."""

    def __init__(self, kind: str, base: Path, record: Record, folder: Path) -> None:
        self._record = record
        first = kind.partition(" ")[0]
        self._unit = _UNIT.get(kind, _UNIT[first])
        self._whole = _WHOLE[first]
        folder.mkdir()
        self._kept = folder / "kept"
        self._image = folder / "image"
        self._kept_entries = 0
        copy_image(base, self._kept)

    def make(self, entries: int, rng: random.Random) -> tuple[Cut, Path]:
        """Cut after so many entries; the image is the caller's until the next cut."""
        all_entries = self._record.entries
        flush = next(
            (k for k in range(entries, self._kept_entries, -1) if all_entries[k - 1].is_flush),
            self._kept_entries,
        )
        done = all_entries[self._kept_entries : flush]
        self._write(self._kept, ((e.offset, self._record.data(e)) for e in done if e.size))
        self._kept_entries = flush
        pending = all_entries[flush:entries]
        way = rng.choices(WAYS, _WEIGHTS)[0]
        self._image.unlink(missing_ok=True)
        copy_image(self._kept, self._image)
        self._write(self._image, self._surviving(pending, way, rng))
        position = all_entries[entries - 1].end
        return Cut(entries, position, way, len(pending)), self._image

    def _surviving(
        self, pending: Sequence[Entry], way: str, rng: random.Random
    ) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of what reached the medium, in an order that leaves the same there."""
        if way == "prefix":
            pending = pending[: rng.randint(0, len(pending))]
        luck = {"nothing": 0.0, "subset": rng.random(), "sectors": rng.random()}.get(way, 1.0)
        for entry in pending:
            if way != "sectors":
                if rng.random() < luck:
                    yield entry.offset, self._record.data(entry)
                continue
            data = self._record.data(entry)
            at = 0
            while at < len(data):
                where = entry.offset + at
                size = _BLOCK if where in self._whole else self._unit - where % self._unit
                if rng.random() < luck:
                    yield where, data[at : at + size]
                at += size

    @staticmethod
    def _write(image: Path, pieces: Iterator[tuple[int, bytes]]) -> None:
        fd = os.open(image, os.O_WRONLY)
        try:
            for offset, data in pieces:
                assert os.pwrite(fd, data, offset) == len(data)
        finally:
            os.close(fd)

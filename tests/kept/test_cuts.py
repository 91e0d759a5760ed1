"""What a cut leaves of a recorded disk: all that was flushed, and any part of the rest."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from tests.kept.device.cuts import WAYS, Cuts, chosen
from tests.kept.device.record import Record

if TYPE_CHECKING:
    from pathlib import Path

SECTORS = 64
SIZE = SECTORS * 512
FLUSH = (0, b"")


def sectors(*numbers: int) -> bytes:
    return b"".join(bytes([number]) * 512 for number in numbers)


# Two writes, a flush, three more of which the last two are of the same place, a flush, one more.
ENTRIES = [
    (0, sectors(*[1] * 8)),
    (20 * 512, sectors(2, 3)),
    FLUSH,
    (0, sectors(*[4] * 8)),
    (30 * 512, sectors(5, 6, 7)),
    (30 * 512, sectors(8, 9, 10)),
    FLUSH,
    (40 * 512, sectors(11)),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(
        b"".join(
            struct.pack("=IIQ", 1 if data else 2, len(data), at) + data for at, data in ENTRIES
        )
    )
    return path


def cut(
    tmp_path: Path, log: Path, kind: str, entries: int, seed: int
) -> tuple[str, list[int | None]]:
    """How it was cut, and the number in each sector; None: it is torn."""
    base = tmp_path / "base"
    base.write_bytes(bytes(SIZE))
    with Record(log) as record:
        folder = tmp_path / f"{kind}-{entries}-{seed}"
        where, image = Cuts(kind, base, record, folder).make(entries, random.Random(seed))
        raw = image.read_bytes()
    assert len(raw) == SIZE
    found = [raw[at : at + 512] for at in range(0, SIZE, 512)]
    return where.way, [one[0] if one == one[:1] * 512 else None for one in found]


def test_what_was_flushed_stays_and_the_rest_may(tmp_path: Path, log: Path) -> None:
    ways = set()
    seen: dict[int, set[int | None]] = {at: set() for at in range(SECTORS)}
    for seed in range(60):
        way, found = cut(tmp_path, log, "btrfs", 6, seed)
        ways.add(way)
        assert found[20:22] == [2, 3]
        for at, number in enumerate(found):
            seen[at].add(number)
        if way == "nothing":
            assert (found[:8], found[30:33]) == ([1] * 8, [0] * 3)
        if way == "everything":
            assert (found[:8], found[30:33]) == ([4] * 8, [8, 9, 10])
        if way != "sectors":
            assert found[:8] in ([1] * 8, [4] * 8)
            assert found[30:33] in ([0] * 3, [5, 6, 7], [8, 9, 10])
    assert ways == set(WAYS)
    assert seen[0] == seen[7] == {1, 4}
    assert seen[30] == {0, 5, 8}
    assert all(seen[at] == {0} for at in (8, 19, 22, 29, 33, 40, 63))


def test_a_second_flush_keeps_what_came_before_it(tmp_path: Path, log: Path) -> None:
    for seed in range(10):
        _way, found = cut(tmp_path, log, "btrfs", 8, seed)
        assert (found[:8], found[20:22], found[30:33]) == ([4] * 8, [2, 3], [8, 9, 10])
        assert found[40] in (0, 11)


def test_rising_cuts_of_one_disk(tmp_path: Path, log: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(SIZE))
    rng = random.Random(1)
    with Record(log) as record:
        assert record.flushes() == 2
        cuts = Cuts("btrfs", base, record, tmp_path / "cuts")
        for entries in (1, 1, 3, 4, 7, 8):
            where, image = cuts.make(entries, rng)
            raw = image.read_bytes()
            assert where.pending == {1: 1, 3: 0, 4: 1, 7: 0, 8: 1}[entries]
            assert where.position == record.entries[entries - 1].end
            assert raw[20 * 512] == (2 if entries >= 3 else 0)
            assert raw[32 * 512] == (10 if entries >= 7 else 0)


def test_a_superblock_is_not_torn(tmp_path: Path, log: Path) -> None:
    torn = dict.fromkeys(("ext4", "xfs", "btrfs"), False)
    for kind in torn:
        for seed in range(40):
            _way, found = cut(tmp_path, log, kind, 4, seed)
            torn[kind] |= len(set(found[:8])) > 1
    assert torn == {"ext4": False, "xfs": False, "btrfs": True}


def test_where_a_write_is_torn(tmp_path: Path, log: Path) -> None:
    """xfs: only between blocks of 4 KiB, one of which begins with sector 32."""
    seen = {kind: set[tuple[int | None, ...]]() for kind in ("ext4", "xfs")}
    for kind, found in seen.items():
        for seed in range(60):
            found.add(tuple(cut(tmp_path, log, kind, 5, seed)[1][30:33]))
    assert seen["xfs"] == {(0, 0, 0), (5, 6, 0), (0, 0, 7), (5, 6, 7)}
    assert {(5, 0, 0), (0, 6, 0), (0, 6, 7)} & seen["ext4"]


def test_where_to_cut(log: Path) -> None:
    with Record(log) as record:
        ends = [entry.end for entry in record.entries]
        found = chosen(record, ends[0], 40, random.Random(1))
        assert found == sorted(found)
        assert set(found) == {2, 3, 4, 5, 6, 7, 8}
        # Every other one is right before a flush, or at the end.
        assert sum(k in (2, 6, 8) for k in found) >= 20
        assert set(chosen(record, ends[2], 40, random.Random(1), ends[4])) == {4, 5}

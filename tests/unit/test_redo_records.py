"""Files of the redo log read back: what is whole, what is torn, and what is damage."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from fastscp.store.redo.records import ForeignLogError, Log, Lost, life_of, life_of_new, read_log
from fastscp_ext import crc32c
from tests.redo_files import (
    BLOCK,
    ELSEWHEN,
    PUT,
    SALT,
    VOID,
    Put,
    Void,
    batch,
    header,
    line_of,
    log_bytes,
    record,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE = "6a-w0-1"
ID = "3f0e7f1e-0000-4000-8000-000000000000"
NAME = f"{LIFE}-1.log"
SIZE = 96 << 10
A = Put(5, "s/e/a.dcm", b"a" * 3000)
B = Put(6, "s/e/b.dcm", b"b" * 5000)
C = Put(7, "s/e/c.dcm", b"c")


def of(*batches: bytes) -> bytearray:
    return log_bytes(LIFE, batches, store_id=ID, size=SIZE)


def read(data: bytes | bytearray, name: str = NAME) -> Log:
    return read_log(name, bytes(data), ID)


def seqs(log: Log) -> list[int]:
    return [one.seq for one in log.records]


def test_a_log_is_read_as_it_was_written() -> None:
    data = of(batch(1, [A, B]), batch(4, [Void(6, B.path), C]))
    log = read(data)
    assert (log.damage, log.last, log.torn, log.life) == ([], 4, 0, LIFE)
    assert log.when is not None
    assert (log.when.boot, log.when.mount, log.when.system) == ELSEWHEN
    assert [(one.seq, one.path, one.is_void) for one in log.records] == [
        (5, A.path, False), (6, B.path, False), (6, B.path, True), (7, C.path, False),
    ]  # fmt: skip
    for one, put in zip(log.records[:2], (A, B), strict=True):
        line = line_of(put.seq, put.path, put.data)
        assert data[one.at : one.at + one.line] == line
        assert data[one.at + one.line : one.at + one.line + one.size] == put.data
        assert one.crc == crc32c(put.data)


def test_a_log_that_was_not_used_yet_is_empty() -> None:
    log = read(of())
    assert (log.records, log.damage, log.lost) == ([], [], [])


@pytest.mark.parametrize("size", [0, 1, 100, BLOCK, BLOCK + 100, SIZE])
def test_a_log_that_lost_its_header_and_all_else_is_damage(size: int) -> None:
    """It had its header before it had its name."""
    log = read(bytes(size))
    assert (log.records, log.when) == ([], None)
    assert log.damage == ["does not begin like a log" if size else "is empty"]
    assert log.lost == [Lost(NAME, min(BLOCK, size), 0, 0, 0)]


def test_a_lost_header_in_front_of_nothing_that_can_be_read_is_damage() -> None:
    data = of(batch(1, [A]))
    data[:BLOCK] = bytes(BLOCK)
    data[BLOCK + 100] ^= 1
    log = read(data)
    assert (log.records, len(log.damage)) == ([], 1)
    assert log.lost == [Lost(NAME, BLOCK, 0, 0, 0)]


def test_the_last_batch_may_be_torn() -> None:
    whole = of(batch(1, [A]), batch(2, [B]))
    second = len(batch(1, [A])) + BLOCK
    for at in (second, second + 30, second + 61, second + 64, second + 200, second + 4200):
        data = bytearray(whole)
        data[at] ^= 1
        log = read(data)
        assert (seqs(log), log.damage) == ([5], []), at
        assert log.torn == (2 if at >= second + 64 else 0)


def test_at_whatever_block_a_batch_is_torn_nothing_of_it_counts() -> None:
    second = len(batch(1, [A])) + BLOCK
    whole = of(batch(1, [A]), batch(2, [B, C]))
    end = second + len(batch(2, [B, C]))
    for at in range(second, end, BLOCK):
        data = bytearray(whole)
        data[at : at + BLOCK] = bytes(BLOCK)
        assert seqs(read(data)) == [5]
        assert read(data).damage == []


def test_a_whole_batch_behind_a_torn_one_is_damage() -> None:
    data = of(batch(1, [A]), batch(2, [B]), batch(3, [C]))
    data[BLOCK + 100] ^= 1
    log = read(data)
    # What can be read is there for whoever accepts that.
    assert seqs(log) == [6, 7]
    assert len(log.damage) == 1
    assert "behind what is none" in log.damage[0]


def test_what_an_earlier_use_left_is_nothing() -> None:
    old = batch(8, [B], salt=SALT - 1)
    data = of(batch(9, [A]), old)
    assert (seqs(read(data)), read(data).damage) == ([5], [])
    # Also where it is what the file would begin with.
    assert seqs(read(of(old))) == []


def test_a_number_that_does_not_rise_is_damage() -> None:
    log = read(of(batch(2, [A]), batch(2, [B])))
    assert seqs(log) == [5]
    assert log.damage


@pytest.mark.parametrize("at", [0, 7, 8, 12, 16, 23, 24, 32, 40, 80, 130, 192, 240, 263, 264, 267])
def test_a_header_that_lost_a_bit_with_its_batches_behind_it(at: int) -> None:
    data = of(batch(1, [A]), batch(2, [B]))
    data[at] ^= 1
    log = read(data)
    assert (seqs(log), log.lost, log.when) == ([5, 6], [], None)
    assert len(log.damage) == 1


def test_what_used_header_bytes_there_are_fits_one_sector() -> None:
    """So a power cut leaves the old header or the new one, and neither is damage."""
    old, new = (header(LIFE, store_id=ID, salt=salt, size=SIZE) for salt in (SALT, SALT + 1))
    assert old[512:] == new[512:] == bytes(BLOCK - 512)


def test_batches_without_a_header_are_damage() -> None:
    data = of(batch(1, [A]))
    data[:BLOCK] = bytes(BLOCK)
    log = read(data)
    assert (log.damage, seqs(log)) == (["does not begin like a log"], [5])
    log = read(b"x" * SIZE)
    assert log.damage == ["does not begin like a log"]
    assert log.lost == [Lost(NAME, BLOCK, 0, 0, 0)]


def test_without_a_header_the_last_use_of_the_file_counts() -> None:
    old = [batch(1, [A], salt=SALT - 1), batch(2, [B, B, B], salt=SALT - 1)]
    data = of(*old)
    new = batch(3, [C])
    data[BLOCK : BLOCK + len(new)] = new
    assert seqs(read(data)) == [7]
    data[20] ^= 1
    log = read(data)
    assert (seqs(log), len(log.damage)) == ([7], 1)


def test_without_a_header_what_an_instance_holds_is_no_batch() -> None:
    """A sender may know the format, and hope for a header that is lost."""
    false = batch(1 << 40, [Put(99, "s/e/z.dcm", b"z")], salt=1)
    for pad in range(BLOCK):
        put = Put(5, "s/e/a.dcm", bytes(BLOCK + pad) + false)
        # Both headers are in front of it.
        if (64 + len(put.encoded()) - len(false)) % BLOCK == 0:
            break
    data = of(batch(1, [put]), batch(2, [B]))
    assert data.find(false) % BLOCK == 0
    data[:BLOCK] = bytes(BLOCK)
    assert seqs(read(data)) == [5, 6]


def test_a_file_that_became_shorter_is_damage() -> None:
    whole = of(batch(1, [A]), batch(2, [B]))
    second = BLOCK + len(batch(1, [A]))
    for size, lost in (
        (BLOCK, Lost(NAME, BLOCK, 0, 0, 0)),
        (second, Lost(NAME, second, 0, 5, 0)),
        (second + 17, Lost(NAME, second, 0, 5, 0)),
        (second + 4200, Lost(NAME, second, 1, 5, 0)),
    ):
        log = read(whole[:size])
        assert log.damage == [f"has {size:,} bytes, and was made with {SIZE:,}"]
        assert log.lost == [lost]
    # Nothing was behind what is there.
    log = read(whole[: SIZE - BLOCK])
    assert (seqs(log), len(log.damage), log.lost) == ([5, 6], 1, [])
    assert len(read(whole + b"x").damage) == 1
    # Short of a header.
    assert len(read(whole[:100]).damage) == 1


def test_what_is_lost_is_told() -> None:
    data = of(batch(1, [A]), batch(2, [B, B]), batch(3, [C]))
    second = BLOCK + len(batch(1, [A]))
    data[second + 100] ^= 1
    assert read(data).lost == [Lost(NAME, second, 2, 5, 7)]
    # Also how many there were, then.
    data[second + 20] ^= 1
    assert read(data).lost == [Lost(NAME, second, 0, 5, 7)]
    odd = record(PUT, 9, "p", line_of(9, "p", b"x"), b"x", crc=1)
    log = read(of(batch(1, [A, odd, B])))
    assert [(one.records, one.after, one.before) for one in log.lost] == [(2, 5, 0)]


def test_whose_log_it_is() -> None:
    with pytest.raises(ForeignLogError, match=r"is of the store with the id 11.*move it back"):
        read(log_bytes(LIFE, [batch(1, [A])], store_id="11", size=SIZE))
    with pytest.raises(ForeignLogError, match=r"has version 2 .* start the version"):
        read(header(LIFE, store_id=ID, version=2).ljust(SIZE, b"\0"))
    assert read(of(batch(1, [A])), f"{LIFE}-2.log").damage
    assert read(of(batch(1, [A])), "6a-w0-2-1.log").damage


def test_names_of_logs() -> None:
    assert life_of("6a-w0-1-12.log") == "6a-w0-1"
    for name in (
        "6a-w0-1.part",
        "distrust",
        "-1.log",
        "a.log",
        "a-0.log",
        "../a-1.log",
        "a/b-1.log",
        "6a-w0-1-12.new",
    ):
        assert life_of(name) is None, name
    assert life_of_new("6a-w0-1-12.new") == "6a-w0-1"
    for name in ("6a-w0-1-12.log", "a-0.new", "../a-1.new", "-1.new", ".new"):
        assert life_of_new(name) is None, name
    with pytest.raises(ValueError, match="not the name"):
        read(b"", "a.log")


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/..", ".", "./a", "a/.", "a/",
     ".fastscp/store.toml", "a\0b", "x" * 4096],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_damage(path: str) -> None:
    log = read(of(batch(1, [A, Put(9, path, b"x", line_of(9, path, b"x"))])))
    assert seqs(log) == [5]
    assert "names no path that an instance can have" in log.damage[0]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (record(3, 9, "p", line_of(9, "p", b"x"), b"x"), "is of kind 3"),
        (record(PUT, 9, "p", b"", b"x"), "no journal line"),
        (record(PUT, 9, "p", line_of(8, "p", b"x"), b"x"), "no journal line"),
        (record(PUT, 9, "p", line_of(9, "q", b"x"), b"x"), "no journal line"),
        (record(PUT, 9, "p", line_of(9, "p", b"x")[:-1], b"x"), "no journal line"),
        (record(PUT, 9, "p", line_of(9, "p", b"x", more="m" * 65536), b"x"), "no journal line"),
        (record(PUT, 9, "p", line_of(9, "p", b"x"), b"x", crc=1), "does not fit its checksum"),
        (record(VOID, 9, "p", b"", b"x"), "is of kind 2"),
        (record(PUT, 9, "p", line_of(9, "p", b"x"), b"x")[:20], "is cut off"),
        (struct.pack("<BBHIQII", 1, 0, 9, 1 << 31, 9, 1 << 31, 0), "longer than its batch"),
    ],
)
def test_an_odd_record_in_a_whole_batch_is_damage(odd: bytes, why: str) -> None:
    log = read(of(batch(1, [A, odd])))
    assert seqs(log) == [5]
    assert why in log.damage[0]


def test_a_count_that_is_wrong_is_damage() -> None:
    log = read(of(batch(1, [A], count=2)))
    assert (seqs(log), len(log.damage)) == ([5], 1)


def test_no_content_has_no_answer() -> None:
    whole = of(batch(1, [A]), batch(2, [B, Void(5, A.path)]))
    changes: list[Callable[[int], int]] = [lambda one: one ^ 0x80, lambda _one: 0, lambda _one: 255]
    end = BLOCK + len(batch(1, [A])) + len(batch(2, [B, Void(5, A.path)]))
    for at in (*range(0, 300, 7), *range(BLOCK, end, 257)):
        for change in changes:
            data = bytearray(whole)
            data[at] = change(data[at])
            try:
                log = read(data)
            except ForeignLogError:
                assert at < BLOCK
                continue
            assert {5, 6} >= set(seqs(log))
    for cut in range(0, end, 997):
        assert {5, 6} >= set(seqs(read(whole[:cut])))

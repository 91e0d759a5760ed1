"""CRC-32C: the published answers, and the implementations against each other."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fastscp_ext.dataset.digest import crc32c, crc32c_by_steps, crc32c_portable

Checksum = Callable[..., int]

ALL = pytest.mark.parametrize("checksum", [crc32c, crc32c_by_steps, crc32c_portable])
FAST = pytest.mark.parametrize("checksum", [crc32c, crc32c_by_steps])


def bit_by_bit(data: bytes) -> int:
    """The checksum from its polynomial, one bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@ALL
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_known_answers(checksum: Checksum, data: bytes, answer: int) -> None:
    assert checksum(data) == answer


@ALL
def test_a_small_answer_by_hand(checksum: Checksum) -> None:
    data = random.Random(1).randbytes(2000)
    assert checksum(data) == bit_by_bit(data)


@FAST
def test_all_lengths_and_alignments(checksum: Checksum) -> None:
    data = random.Random(2).randbytes(5008)
    view = memoryview(data)
    for size in range(5001):
        start = size % 8
        part = view[start : start + size]
        assert checksum(part) == crc32c_portable(part), size
    for start in range(8):
        for size in (0, 1, 7, 8, 767, 768, 769, 775, 776, 4999):
            part = view[start : start + size]
            assert checksum(part) == crc32c_portable(part), (start, size)


@FAST
def test_long_blocks(checksum: Checksum) -> None:
    data = random.Random(3).randbytes(200_003)
    view = memoryview(data)
    for size in (12287, 12288, 12289, 13055, 13056, 24576, 131072, 200_003):
        assert checksum(view[:size]) == crc32c_portable(view[:size])


@ALL
def test_goes_on_from_any_cut(checksum: Checksum) -> None:
    rng = random.Random(4)
    data = rng.randbytes(40_000)
    whole = checksum(data)
    for _ in range(50):
        cut, later = sorted(rng.randrange(len(data)) for _ in range(2))
        value = checksum(data[:cut])
        value = checksum(data[cut:later], value)
        assert checksum(data[later:], value=value) == whole


@ALL
@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_value_is_32_bits(checksum: Checksum, value: int) -> None:
    with pytest.raises(OverflowError):
        checksum(b"x", value)


def test_reads_what_is_a_buffer() -> None:
    assert crc32c(bytearray(b"123456789")) == crc32c(memoryview(b"123456789")) == 0xE3069283
    with pytest.raises(TypeError):
        crc32c("123456789")  # type: ignore[arg-type]

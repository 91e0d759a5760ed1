"""Reads what `redo_files` writes: the redo log by its format, and by nothing of the service."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from fastscp_ext import crc32c
from tests.redo_files import BLOCK

__all__ = ["Read", "Record", "batch_at", "read"]

_HEAD: Final = struct.Struct("<8sIIQQQ40s48s64s48s24sI")
_BATCH: Final = struct.Struct("<8sQQQII20sI")
_RECORD: Final = struct.Struct("<BBHIQII")


class Record(NamedTuple):
    """A record; a void one has neither line nor data."""

    seq: int
    path: str
    line: bytes
    data: bytes
    kind: int


class Read(NamedTuple):
    """What a file holds.

    boot: "" where block 0 is not valid. damaged: a valid batch stands behind a place that is not.
    """

    boot: str
    records: list[Record]
    damaged: bool


def read(data: bytes) -> Read:
    """The records of a file up to the first batch that is not valid."""
    if len(data) < BLOCK or data[:8] != b"FSCPREDO":
        return Read("", [], False)
    _magic, _version, _number, salt, _zero, _size, _store, boot, *_more, crc = _HEAD.unpack_from(
        data
    )
    if crc32c(data[: _HEAD.size - 4]) != crc:
        return Read("", [], False)
    found: list[Record] = []
    at = BLOCK
    while (got := batch_at(data, at, salt)) is not None:
        found += got[1]
        at = got[0]
    damaged = any(batch_at(data, k, salt) for k in range(at + BLOCK, len(data), BLOCK))
    return Read(boot.rstrip(b"\0").decode(), found, damaged)


def batch_at(data: bytes, at: int, salt: int) -> tuple[int, list[Record]] | None:
    """Where the next batch begins, and the records of the valid one at a place; None: none."""
    if at + _BATCH.size > len(data):
        return None
    magic, theirs, _number, size, count, crc, _zeros, own = _BATCH.unpack_from(data, at)
    payload = data[at + _BATCH.size : at + _BATCH.size + size]
    if (magic, theirs, crc, own) != (
        b"FSCPBTCH", salt, crc32c(payload), crc32c(data[at : at + _BATCH.size - 4]),
    ):  # fmt: skip
        return None
    records = []
    place = 0
    for _ in range(count):
        kind, _zero, path, line, seq, bytes_, _crc = _RECORD.unpack_from(payload, place)
        place += _RECORD.size
        name = payload[place : place + path].decode()
        place += path
        text = payload[place : place + line]
        place += line
        records.append(Record(seq, name, text, payload[place : place + bytes_], kind))
        place += bytes_
    return at + -(-(_BATCH.size + size) // BLOCK) * BLOCK, records

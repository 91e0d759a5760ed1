"""What a file of the redo log holds. No I/O.

    STORE/.fastscp/redo/<life>-<n>.log

A file has this name once it is whole: before that it is `<life>-<n>.new`, and has no batch. Block 0
says whose it is, and has the salt of this use of the file. Batches follow, each at a
multiple of a block, with that salt and with checksums, so that what an earlier use left behind
them, or a power cut tore, is told apart. A worker writes a batch only after the flush of the one
before it has returned. So the first place without a valid batch is the end; a valid one behind it
says that the medium has lost what was flushed.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError
from fastscp.store.journal import LINE_MOST, parse_line
from fastscp.store.mounts import Mounted
from fastscp.store.names import HOME, REDO
from fastscp_ext import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LOG_MOST",
    "ForeignLogError",
    "Log",
    "Lost",
    "Record",
    "inode_in",
    "life_of",
    "life_of_new",
    "log_without_header",
    "read_log",
    "store_of",
    "user_of",
]

# Bytes: no file of a log is longer.
LOG_MOST: Final = 64 << 20

_BLOCK: Final = 4096
_VERSION: Final = 1
_MAGIC: Final = b"FSCPREDO"
_BATCH_MAGIC: Final = b"FSCPBTCH"
# Bytes 0 to 263 of block 0: magic, version, n, salt, mark of the inode, bytes of the file, id of
# the store, boot, life, mount, system; their checksum follows.
_HEAD: Final = struct.Struct("<8sIIQQQ40s48s64s48s24s")
# Bytes 0 to 59: magic, salt, number, bytes of the payload, records, checksum of the payload, zeros.
_BATCH: Final = struct.Struct("<8sQQQII20x")
# Kind, zero, bytes of the path, of the line, number, bytes of the file, their checksum.
_RECORD: Final = struct.Struct("<BBHIQII")
_CRC: Final = struct.Struct("<I")
_BATCH_BYTES: Final = 64
_PUT: Final = 1
_VOID: Final = 2
_PATH_MOST: Final = 4095
_NAME: Final = re.compile(r"([0-9A-Za-z][0-9A-Za-z_-]{0,62})-([1-9][0-9]{0,8})(\.log|\.new)\Z")
_LOG: Final = ".log"
_NEW: Final = ".new"


class ForeignLogError(StartError):
    """A log file that this store, or this version, has not written: it is never removed."""


@dataclass(frozen=True, slots=True)
class Record:
    """An instance, as it was to be named, or the word that it was not (`is_void`).

    log: the name of its file. at: where its journal line begins there; the bytes of the instance's
    file follow it. line: bytes of the line, with its newline. size, crc: of the instance's file.
    """

    log: str
    seq: int
    path: str
    is_void: bool = False
    at: int = 0
    line: int = 0
    size: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """A place of a log that cannot be read any more, and where instances were, or may have been.

    log: the name of its file. at: the byte. records: how many were there, 0: nobody knows. after,
    before: the `seq` of what can be read in front of it and behind it, 0: of nothing. The numbers
    between them need not be all of instances that were here.
    """

    log: str
    at: int
    records: int
    after: int
    before: int


@dataclass
class Log:
    """A file of the redo log.

    when: what was mounted when its life began; None: its header is lost or damaged.
    inode: of the file that was written, as its header says. is_original: it is in that file, not
    in a copy. is_cut: the file became shorter.
    records: in the order of the file, those behind damage among them. damage: what is not as a
    worker left it, in words; lost: what is not known for that. last: the highest number of a whole
    batch. torn: the number of a batch whose payload is not whole, 0 for none, and torn_records: how
    many it says it has.
    """

    name: str
    life: str
    when: Mounted | None = None
    inode: int = 0
    is_original: bool = False
    is_cut: bool = False
    records: list[Record] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    last: int = 0
    torn: int = 0
    torn_records: int = 0

    @property
    def last_seq(self) -> int:
        """Of the last record that can be read, 0 for none."""
        return self.records[-1].seq if self.records else 0


def store_of(head: bytes) -> str:
    """The id of the store that a log is of, by its block 0; "" where that tells none."""
    if head[:8] != _MAGIC or not _is_head(head):
        return ""
    _magic, version, _n, _salt, _inode, _size, its_id, *_texts = _HEAD.unpack_from(head)
    return its_id.rstrip(b"\0").decode("ascii", "replace") if version == _VERSION else ""


def _is_head(head: bytes) -> bool:
    """Whether block 0 fits its checksum."""
    end = _HEAD.size
    return len(head) >= end + _CRC.size and _CRC.unpack_from(head, end)[0] == crc32c(head[:end])


def life_of(name: str) -> str | None:
    """Whose log has this name; None: it is the name of no log."""
    return _life_of(name, _LOG)


def life_of_new(name: str) -> str | None:
    """Who was making a log under this name, which counts for nothing; None: nobody."""
    return _life_of(name, _NEW)


def _life_of(name: str, suffix: str) -> str | None:
    found = _NAME.match(name)
    return found[1] if found is not None and found[3] == suffix else None


def user_of(data: bytes) -> tuple[str, int] | None:
    """Whose log a file is, and its number, by its content; None where no batch is its own.

    What has the salt of another file is not of this one: its blocks had it before.
    """
    head = data[:_BLOCK]
    if head[:8] != _MAGIC or not _is_head(head):
        return None
    _magic, _version, n, salt, _inode, _size, _id, _boot, life, *_texts = _HEAD.unpack_from(head)
    found = (_batch_at(data, at, salt) for at in range(_BLOCK, len(data), _BLOCK))
    if not any(batch is not None and batch.is_whole for batch in found):
        return None
    return life.rstrip(b"\0").decode("ascii", "replace"), n


def log_without_header(name: str, data: bytes) -> tuple[str, int] | None:
    """Whose log a file is, and its number, that lost its header and the name of a log; else None.

    That is one under the name of a log that is being made, with what begins like a batch. In one
    that is being made nothing does, unless its blocks were another log's before; without a header
    nobody can tell then, and what may be needed is not thrown away.
    """
    found = _NAME.match(name)
    if found is None or found[3] != _NEW or (data[:8] == _MAGIC and _is_head(data[:_BLOCK])):
        return None
    blocks = range(_BLOCK, len(data), _BLOCK)
    if not any(data.startswith(_BATCH_MAGIC, at) for at in blocks):
        return None
    return found[1], int(found[2])


def inode_in(head: bytes) -> int:
    """Of the file that was written, by its block 0; 0 where that tells none."""
    return int(_HEAD.unpack_from(head)[4]) if head[:8] == _MAGIC and _is_head(head) else 0


def read_log(name: str, data: bytes, store_id: str) -> Log:
    """What a file of the log holds.

    store_id: of the store that it is in. Raises ForeignLogError, and ValueError for a name that no
    log has, unless it tells whose it is (`user_of`, `log_without_header`); any other content has an
    answer.
    """
    found = _NAME.match(name)
    if found is not None and found[3] == _LOG:
        log, number = Log(name, found[1]), int(found[2])
    elif (user := user_of(data) or log_without_header(name, data)) is not None:
        log, number = Log(name, user[0]), user[1]
        log.damage.append(
            f"is {log.life}-{number}{_LOG} under another name (rename it back, if it is no copy)"
        )
    else:
        raise ValueError(f"{name!r} is not the name of a log")
    head = data[:_BLOCK]
    if head[:8] != _MAGIC:
        # It has had a header for as long as it has had this name.
        log.damage.append("does not begin like a log" if data else "is empty")
        _read_batches(log, data, _newest_salt(data))
        return log
    salt = _read_header(log, head, len(data), number, store_id)
    if log.when is None:
        log.damage.append("has a header whose checksum does not fit")
    _read_batches(log, data, salt or _newest_salt(data))
    return log


def _newest_salt(data: bytes) -> int:
    """The salt of the last use of a file whose header is lost, as far as whole batches tell; or 0.

    Numbers of batches rise over all uses of a file.
    """
    newest = salt = 0
    at = _BLOCK
    while at < len(data):
        its_salt = int.from_bytes(data[at + 8 : at + 16], "little")
        batch = _batch_at(data, at, its_salt)
        if batch is None or not batch.is_whole:
            at += _BLOCK
            continue
        if batch.number > newest:
            newest, salt = batch.number, its_salt
        # An instance in it may hold what looks like a batch.
        at = batch.behind
    return salt


def _read_header(log: Log, head: bytes, length: int, n: int, store_id: str) -> int:
    """Take in block 0; returns the salt, 0 where the header is damaged.

    All that is used of it is in one sector, and a disk writes a sector whole or not at all: so a
    header that does not fit is no sign of a power cut while the file was about to be used again,
    and what is behind it may be needed. length: of the file. Raises ForeignLogError.
    """
    if not _is_head(head):
        return 0
    _magic, version, its_n, salt, inode, size, *texts = _HEAD.unpack_from(head)
    its_id, boot, life, mount, system = (
        one.rstrip(b"\0").decode("ascii", "replace") for one in texts
    )
    if version != _VERSION:
        raise ForeignLogError(
            f"{REDO}/{log.name} has version {version} of the redo log, this program knows "
            f"{_VERSION}: instances may be in it that were acknowledged, so start the version of "
            f"fastscp that wrote it, which brings them to their files, and stop that cleanly"
        )
    if its_id != store_id:
        raise ForeignLogError(
            f"{REDO}/{log.name} is of the store with the id {its_id}, and this one has {store_id}: "
            f"instances may be in it that were acknowledged, so move it back into the folder "
            f"{REDO} of that store, or out of this one if you know that it is not needed"
        )
    log.when = Mounted(boot, mount, system)
    log.inode = inode
    log.is_cut = length < size
    if length != size:
        log.damage.append(f"has {length:,} bytes, and was made with {size:,}")
    if (life, its_n) != (log.life, n):
        log.damage.append(f"has the name of another one, {life}-{its_n}.log")
    return int(salt)


# Batches -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch whose header is whole. start, end: of the payload. is_whole: the payload, too."""

    number: int
    count: int
    start: int
    end: int
    is_whole: bool

    @property
    def behind(self) -> int:
        """Where the next batch begins."""
        return -(-self.end // _BLOCK) * _BLOCK


def _batch_at(data: bytes, at: int, salt: int) -> _Batch | None:
    """The batch that begins at a place of a file; None: none of this use does."""
    start = at + _BATCH_BYTES
    crc_at = at + _BATCH.size
    if data[at : at + 8] != _BATCH_MAGIC or start > len(data):
        return None
    _magic, its_salt, number, size, count, crc = _BATCH.unpack_from(data, at)
    if its_salt != salt or _CRC.unpack_from(data, crc_at)[0] != crc32c(data[at:crc_at]):
        return None
    is_whole = size <= len(data) - start and crc == crc32c(memoryview(data)[start : start + size])
    return _Batch(number, count, start, start + size, is_whole)


def _read_batches(log: Log, data: bytes, salt: int) -> None:
    """Take in the batches of a use. What cannot be read in front of one that can is lost."""
    at, bad = _BLOCK, 0
    # Where what cannot be read begins, and how many records are known to be in it.
    bad_records = 0
    while at < len(data):
        batch = _batch_at(data, at, salt)
        if batch is None or not batch.is_whole or batch.number <= log.last:
            if batch is not None and not batch.is_whole and batch.number > log.last:
                bad_records += batch.count
                if not log.torn and not bad:
                    log.torn, log.torn_records = batch.number, batch.count
            if batch is not None and batch.is_whole:
                log.damage.append(f"has a batch at byte {at} that belongs further to the front")
            bad = bad or at
            at += _BLOCK
            continue
        after = log.last_seq
        log.last = batch.number
        records = list(_records(log, data, batch))
        if bad:
            log.damage.append(f"has a whole batch at byte {at}, behind what is none")
            before = records[0].seq if records else 0
            log.lost.append(Lost(log.name, bad, bad_records, after, before))
            bad = bad_records = 0
        log.records += records
        at = batch.behind
    if log.is_cut and (bad_records or not bad or len(data) - bad < _BATCH_BYTES):
        # No power cut tore what was behind the last one that can be read.
        log.lost.append(Lost(log.name, bad or len(data), bad_records, log.last_seq, 0))
    elif log.when is None and not log.last:
        log.lost.append(Lost(log.name, min(_BLOCK, len(data)), bad_records, 0, 0))


def _records(log: Log, data: bytes, batch: _Batch) -> Iterator[Record]:
    """The records of a whole batch."""
    at = batch.start
    count = seq = 0
    while at < batch.end:
        record = _record_at(log.name, data, at, batch.end)
        if isinstance(record, str):
            log.damage.append(f"has a record at byte {at} that {record}")
            log.lost.append(Lost(log.name, at, max(batch.count - count, 1), seq or log.last_seq, 0))
            return
        yield record
        seq = record.seq
        at = record.at + record.line + record.size
        count += 1
    if count != batch.count:
        log.damage.append(f"has a batch of {count} records that says it has {batch.count}")


def _record_at(name: str, data: bytes, at: int, end: int) -> Record | str:
    """A record of a whole batch, or what is wrong with it."""
    if end - at < _RECORD.size:
        return "is cut off"
    kind, _zero, path_size, line_size, seq, size, crc = _RECORD.unpack_from(data, at)
    path_at = at + _RECORD.size
    line_at = path_at + path_size
    if path_size + line_size + size > end - path_at:
        return "is longer than its batch"
    path = os.fsdecode(data[path_at:line_at])
    if not _is_below(path):
        return "names no path that an instance can have"
    if kind == _VOID and not line_size and not size:
        return Record(name, seq, path, is_void=True, at=line_at)
    if kind != _PUT:
        return f"is of kind {kind}, which this program does not know"
    why = _wrong_line(data[line_at : line_at + line_size], seq, path)
    if why:
        return why
    file_at = line_at + line_size
    if crc != crc32c(memoryview(data)[file_at : file_at + size]):
        return "has a file that does not fit its checksum"
    return Record(name, seq, path, at=line_at, line=line_size, size=size, crc=crc)


def _wrong_line(line: bytes, seq: int, path: str) -> str:
    """What is wrong with the journal line of a record; "": nothing."""
    fact = parse_line(line[:-1]) if line.endswith(b"\n") and len(line) < LINE_MOST else None
    if fact is None or fact.get("seq") != seq or fact.get("path") != path:
        return "has no journal line of its own"
    return ""


def _is_below(path: str) -> bool:
    """Whether a path can only lead to an instance below the store."""
    parts = path.split("/")
    return (
        0 < len(path) <= _PATH_MOST
        and "\0" not in path
        and not any(part in ("", ".", "..") for part in parts)
        and parts[0] != HOME
    )

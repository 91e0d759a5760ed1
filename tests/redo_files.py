"""Files of the redo log as a worker leaves them, written by the format alone, for tests.

All numbers are little-endian, checksums are CRC-32C. Nothing here knows the code under test, except
for the checksum.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp_ext import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

BLOCK: Final = 4096
LOG_BYTES: Final = 8 << 20
FOLDER: Final = ".fastscp/redo"
SALT: Final = 0x5A17_0000_0000_0001
PUT: Final = 1
VOID: Final = 2
# A time at which nothing can be mounted any more: of another boot.
ELSEWHEN: Final = ("00000000-0000-0000-0000-000000000000", "1", "1")


@dataclass(frozen=True)
class Put:
    """A record with a file; line: with its newline, by default `line_of`."""

    seq: int
    path: str
    data: bytes
    line: bytes = b""

    def encoded(self) -> bytes:
        line = self.line or line_of(self.seq, self.path, self.data)
        return record(PUT, self.seq, self.path, line, self.data)


@dataclass(frozen=True)
class Void:
    """A record that takes back the one of its number."""

    seq: int
    path: str

    def encoded(self) -> bytes:
        return record(VOID, self.seq, self.path, b"", b"")


def line_of(seq: int, path: str, data: bytes, **members: object) -> bytes:
    """A line of the journal, with its newline, of an instance that is in a file whole.

    members: put behind all others, or in the place of those that have their names.
    """
    fact: dict[str, Any] = {
        "v": 1, "event": "stored", "seq": seq, "time": "2026-05-31T08:30:00.000000Z",
        "worker": "w0", "calling_ae": "CT1", "called_ae": "FASTSCP", "path": path,
        "bytes": len(data), "digest": f"crc32c:{crc32c(data):08x}",
    }  # fmt: skip
    body = msgspec.json.encode(fact | members)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32c(body))


def record(
    kind: int, seq: int, path: str | bytes, line: bytes, data: bytes, *, crc: int | None = None
) -> bytes:
    name = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    found = crc32c(data) if crc is None else crc
    head = struct.pack("<BBHIQII", kind, 0, len(name), len(line), seq, len(data), found)
    return head + name + line + data


def header(
    life: str,
    n: int = 1,
    *,
    store_id: str,
    salt: int = SALT,
    when: tuple[str, str, str] = ELSEWHEN,
    version: int = 1,
    size: int = LOG_BYTES,
    inode: int = 0,
) -> bytes:
    """Block 0. when: boot, mount and system, as in `Mounted`. inode: as `mark_of` has it."""
    boot, mount, system = (one.encode("ascii") for one in when)
    head = struct.pack(
        "<8sIIQQQ40s48s64s48s24s", b"FSCPREDO", version, n, salt, inode, size,
        store_id.encode("ascii"), boot, life.encode("ascii"), mount, system,
    )  # fmt: skip
    assert len(head) == 264
    return (head + struct.pack("<I", crc32c(head))).ljust(BLOCK, b"\0")


def batch(
    number: int, records: Sequence[Put | Void | bytes], *, salt: int = SALT, count: int = -1
) -> bytes:
    """One batch, padded. bytes: a record as it is to stand there. count: records that it tells."""
    payload = b"".join(one if isinstance(one, bytes) else one.encoded() for one in records)
    head = struct.pack(
        "<8sQQQII20x", b"FSCPBTCH", salt, number, len(payload),
        len(records) if count < 0 else count, crc32c(payload),
    )  # fmt: skip
    assert len(head) == 60
    whole = head + struct.pack("<I", crc32c(head)) + payload
    return whole.ljust(-(-len(whole) // BLOCK) * BLOCK, b"\0")


def log_bytes(
    life: str,
    batches: Iterable[bytes],
    n: int = 1,
    *,
    store_id: str,
    salt: int = SALT,
    when: tuple[str, str, str] = ELSEWHEN,
    size: int = LOG_BYTES,
    inode: int = 0,
) -> bytearray:
    """A whole log file; what is behind the batches is zeros."""
    head = header(life, n, store_id=store_id, salt=salt, when=when, size=size, inode=inode)
    found = bytearray(head + b"".join(batches))
    assert len(found) <= size
    found.extend(bytes(size - len(found)))
    return found


def log_path(store: Path, life: str, n: int = 1) -> Path:
    return store / FOLDER / f"{life}-{n}.log"


def write_log(
    store: Path,
    life: str,
    batches: Iterable[bytes],
    n: int = 1,
    *,
    store_id: str,
    salt: int = SALT,
    when: tuple[str, str, str] = ELSEWHEN,
    size: int = LOG_BYTES,
    inode: int | None = None,
) -> Path:
    """Put a log file into a store, as a life left it that is over.

    inode: None: what the file has.
    """
    path = log_path(store, life, n)
    path.parent.mkdir(mode=0o750, exist_ok=True)
    with path.open("wb") as file:
        own = mark_of(file.fileno()) if inode is None else inode
        file.write(
            log_bytes(
                life, batches, n, store_id=store_id, salt=salt, when=when, size=size, inode=own
            )
        )
    return path


def mark_of(fd: int) -> int:
    """The inode of a file, as the header of a log has it: its number and its generation."""
    try:
        generation = fcntl.ioctl(fd, 0x80087601, bytes(8))
    except OSError:
        generation = bytes(8)
    return os.fstat(fd).st_ino ^ (int.from_bytes(generation[:4], "little") << 32)


def flip(path: Path, offset: int, bit: int = 1) -> None:
    """Turn a bit of a file over, as a bad medium does."""
    with path.open("r+b") as file:
        file.seek(offset)
        was = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([was ^ bit]))

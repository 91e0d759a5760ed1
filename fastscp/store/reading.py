"""Stored instances read back: what is in a file, and whether it is what a journal line says."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import zstandard

from fastscp.store.compress import frame_fault, open_part10, part10_size, was_compressed
from fastscp.store.header import header_difference
from fastscp.store.names import open_file
from fastscp.titles import title_text
from fastscp_ext import (
    UID_AS_NAME,
    UID_STRICT,
    Tap,
    crc32c,
    encoding_of,
    meta_values,
    strip_embedded,
    uid_grade,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.store.header import Header

__all__ = [
    "DataSet",
    "Described",
    "NoInstanceError",
    "Pace",
    "describe",
    "difference",
    "is_checked",
    "open_data_set",
]

_CHUNK: Final = 1 << 20
_LEAST: Final = 1 << 12
# Longer than any header written here; a file with a longer one is none of ours.
_HEADER: Final = 65536
# Of a deflated data set, inflated for the tap in one go.
_INFLATED: Final = 1 << 16
_VERSION: Final = re.compile(r"~[2-9]\Z")
_DIGESTS: Final = ("crc32c", "sha256")
_HEADLESS: Final = "does not begin with a DICOM file header"


class NoInstanceError(Exception):
    """A file that no receiver would have stored; the message says why."""


@dataclass(frozen=True)
class DataSet:
    """What a file holds.

    header: from the preamble to the end of the File Meta Information. transfer_syntax: as it says.
    size: bytes of data set, -1 where only reading would tell. chunks: the data set, once, while
    the file is open; reading raises OSError or zstandard.ZstdError.
    """

    header: bytes
    transfer_syntax: bytes
    size: int
    chunks: Iterator[bytes]


class Pace:
    """Holds up whoever reads faster than a rate.

    rate: bytes/s, of files as they are when decompressed; 0 for none.
    """

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        self._since = time.monotonic()
        self._taken = 0
        # So that a disk is read in small steps, and not in bursts with long pauses.
        self.chunk = _CHUNK if not rate else max(_LEAST, min(_CHUNK, rate // 8))

    def took(self, size: int) -> None:
        """Wait until so many more bytes are due."""
        if not self._rate:
            return
        now = time.monotonic()
        self._taken += size
        ahead = self._taken / self._rate - (now - self._since)
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1:
            # What the disk or somebody else did not let us read is not made up for.
            self._since, self._taken = now, 0


_AT_ONCE: Final = Pace()


@contextlib.contextmanager
def open_data_set(path: str, dir_fd: int, pace: Pace = _AT_ONCE) -> Iterator[DataSet | None]:
    """An instance's file, decompressed where it must be; None: it does not begin with a header.

    Raises OSError, zstandard.ZstdError.
    """
    with open_part10(path, dir_fd) as file:
        head = file.read(_HEADER)
        pace.took(len(head))
        found = strip_embedded(head)
        if found is None:
            yield None
        else:
            header, transfer_syntax = found
            whole = part10_size(file)
            size = whole - header if whole >= 0 else -1
            yield DataSet(head[:header], transfer_syntax, size, _chunks(head[header:], file, pace))


def _chunks(first: bytes, file: IO[bytes], pace: Pace) -> Iterator[bytes]:
    data = first
    while data:
        yield data
        data = file.read(pace.chunk)
        pace.took(len(data))


def is_checked(digest: str) -> bool:
    """Whether `difference` compares contents with it; else it compares lengths."""
    return digest.partition(":")[0] in _DIGESTS


def difference(
    store_fd: int,
    path: str,
    size: int,
    digest: str,
    header: Header | None = None,
    pace: Pace = _AT_ONCE,
) -> str:
    """How the file at a path differs from its journal line; "": it does not.

    size, digest: of the data set, as in the line; digest "" if it has none. header: what belongs in
    front of it, None if that is not known. Raises OSError.
    """
    try:
        with open_part10(path, store_fd) as file:
            head = file.read(_HEADER)
            pace.took(len(head))
            of_header, length = ("", 0) if header is None else header_difference(head, header)
            if of_header or not length:
                found = strip_embedded(head)
                # A damaged header does not tell where it ends; the length of the file may.
                if not length or part10_size(file) - length != size:
                    if found is None:
                        return _HEADLESS
                    length = found[0]
            of_data = _data_difference(_chunks(head[length:], file, pace), size, digest)
            packed = was_compressed(file)
    except zstandard.ZstdError as error:
        return f"cannot be decompressed ({error})"
    if of_header and not of_data:
        of_data = "the data set is as journaled"
    elif packed and not of_data and header is not None and not header.adopted:
        with os.fdopen(open_file(path, store_fd), "rb") as raw:
            of_data = frame_fault(raw)
    return "; ".join(filter(None, (of_header, of_data)))


def _data_difference(chunks: Iterator[bytes], size: int, digest: str) -> str:
    form = digest.partition(":")[0]
    sha256 = hashlib.sha256()
    crc = found_size = 0
    for chunk in chunks:
        found_size += len(chunk)
        if form == "crc32c":
            crc = crc32c(chunk, crc)
        elif form == "sha256":
            sha256.update(chunk)
    if found_size != size:
        return f"a data set of {found_size} bytes, journaled with {size}"
    found = {"crc32c": f"crc32c:{crc:08x}", "sha256": f"sha256:{sha256.hexdigest()}"}
    # A form that is not known here cannot be compared: the length has to do.
    if found.get(form, digest) != digest:
        return f"the data set has {found[form]}, journaled with {digest}"
    return ""


@dataclass(frozen=True)
class Described:
    """What a file says of itself.

    members: of a journal line. values: found in the data set, by keyword, for a layout; the AE
    titles are those of the header.
    """

    members: dict[str, Any]
    values: dict[str, bytes]


def describe(store_fd: int, path: str, pace: Pace = _AT_ONCE) -> Described:
    """What header and data set of a file give for a journal line.

    Reads the whole file. Raises OSError; NoInstanceError for what is no instance, or a damaged one.
    """
    try:
        with open_data_set(path, store_fd, pace) as data:
            if data is None:
                raise NoInstanceError(_HEADLESS)
            return _describe(path, data)
    except zstandard.ZstdError as error:
        raise NoInstanceError(f"cannot be decompressed ({error})") from error


def _describe(path: str, data: DataSet) -> Described:
    meta = meta_values(data.header)
    syntax, deflated = encoding_of(data.transfer_syntax)
    tap = Tap(syntax)
    feed = _inflate if deflated else _pass_on
    size = crc = 0
    for chunk in feed(tap, data.chunks):
        size += len(chunk)
        crc = crc32c(chunk, crc)
    values = tap.values()
    uids = {
        "sop_class_uid": meta.get(0x0002) or values.get("SOPClassUID", b""),
        "sop_instance_uid": meta.get(0x0003) or values.get("SOPInstanceUID", b""),
        "study_instance_uid": values.get("StudyInstanceUID", b""),
        "series_instance_uid": values.get("SeriesInstanceUID", b""),
        "transfer_syntax_uid": data.transfer_syntax,
    }
    # As a receiver takes them.
    uids = {member: uid.strip(b"\0 \r\n") for member, uid in uids.items()}
    for member, uid in uids.items():
        if uid_grade(uid) < UID_AS_NAME:
            raise NoInstanceError(f"has no usable {member.replace('_', ' ')}")
    fact: dict[str, Any] = {}
    titles = {}
    for member, key, element in (
        ("calling_ae", "CallingAE", 0x0016),
        ("called_ae", "CalledAE", 0x0018),
    ):
        if element in meta:
            titles[key] = meta[element].strip(b" ")
            fact[member] = title_text(titles[key])
    fact |= {member: uid.decode("ascii") for member, uid in uids.items()}
    fact |= {"path": path, "bytes": size, "digest": f"crc32c:{crc:08x}"}
    if _VERSION.search(path):
        fact["duplicate"] = "version"
    if tap.truncated and not deflated:
        fact["truncated"] = True
    if tap.sniffed:
        fact["syntax_mismatch"] = True
    names = ("sop_instance_uid", "study_instance_uid", "series_instance_uid")
    if not all(uid_grade(uids[name]) == UID_STRICT for name in names):
        fact["odd_uid"] = True
    return Described(fact, values | titles)


def _pass_on(tap: Tap, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Show every chunk to the tap, and the end."""
    for chunk in chunks:
        tap.feed(chunk)
        yield chunk
    tap.end()


def _inflate(tap: Tap, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Show the tap what the chunks inflate to, until it has all it wants (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-15)
    found = 0
    faulty = False
    for chunk in chunks:
        yield chunk
        pending = chunk
        # Behind its end the inflater would keep all there is.
        while pending and not (faulty or tap.settled or inflater.eof):
            before = inflater.copy()
            try:
                out = inflater.decompress(pending, _INFLATED)
            except zlib.error:
                faulty = True
                out = b"".join(_to_fault(before, pending))
                if not found and not out:
                    # Labelled deflated, sent plain.
                    tap.feed(chunk)
                    yield from _pass_on(tap, chunks)
                    return
            tap.feed(out)
            found += len(out)
            pending = inflater.unconsumed_tail
    tap.end(whole=inflater.eof)


def _to_fault(inflater: zlib._Decompress, pending: bytes) -> Iterator[bytes]:
    """What comes out in front of a fault; a call that fails gives nothing of it."""
    with contextlib.suppress(zlib.error):
        for at in range(len(pending)):
            yield inflater.decompress(pending[at : at + 1])

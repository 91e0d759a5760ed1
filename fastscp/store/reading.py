"""Stored instances read back: what is in a file, and whether it is what a journal line says."""

from __future__ import annotations

import contextlib
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import zstandard

from fastscp.store.compress import open_part10, part10_size
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

__all__ = ["DataSet", "NoInstanceError", "describe", "difference", "open_data_set"]

_CHUNK: Final = 1 << 20
# Longer than any header written here; a file with a longer one is none of ours.
_HEADER: Final = 65536
# Of a deflated data set, inflated for the tap in one go.
_INFLATED: Final = 1 << 16
_VERSION: Final = re.compile(r"~[2-9]\Z")


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


@contextlib.contextmanager
def open_data_set(path: str, dir_fd: int) -> Iterator[DataSet | None]:
    """An instance's file, decompressed where it must be; None: it does not begin with a header.

    Raises OSError, zstandard.ZstdError.
    """
    with open_part10(path, dir_fd) as file:
        head = file.read(_HEADER)
        found = strip_embedded(head)
        if found is None:
            yield None
        else:
            header, transfer_syntax = found
            whole = part10_size(file)
            size = whole - header if whole >= 0 else -1
            yield DataSet(head[:header], transfer_syntax, size, _chunks(head[header:], file))


def _chunks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    data = first
    while data:
        yield data
        data = file.read(_CHUNK)


def difference(store_fd: int, path: str, size: int, digest: str) -> str:
    """How the data set at a path differs from a journal line's length and digest; "": it does not.

    digest: as in the line, "" if it has none. Raises OSError.
    """
    form, _colon, _value = digest.partition(":")
    sha256 = hashlib.sha256()
    crc = found_size = 0
    try:
        with open_data_set(path, store_fd) as data:
            if data is None:
                return "does not begin with a DICOM file header"
            for chunk in data.chunks:
                found_size += len(chunk)
                if form == "crc32c":
                    crc = crc32c(chunk, crc)
                elif form == "sha256":
                    sha256.update(chunk)
    except zstandard.ZstdError as error:
        return f"cannot be decompressed ({error})"
    if found_size != size:
        return f"a data set of {found_size} bytes, journaled with {size}"
    found = {"crc32c": f"crc32c:{crc:08x}", "sha256": f"sha256:{sha256.hexdigest()}"}
    # A form that is not known here cannot be compared: the length has to do.
    if found.get(form, digest) != digest:
        return f"the data set has {found[form]}, journaled with {digest}"
    return ""


def describe(store_fd: int, path: str) -> dict[str, Any]:
    """The members of a journal line, as far as header and data set of a file give them.

    Reads the whole file. Raises OSError; NoInstanceError for what is no instance, or a damaged one.
    """
    try:
        with open_data_set(path, store_fd) as data:
            if data is None:
                raise NoInstanceError("does not begin with a DICOM file header")
            return _describe(path, data)
    except zstandard.ZstdError as error:
        raise NoInstanceError(f"cannot be decompressed ({error})") from error


def _describe(path: str, data: DataSet) -> dict[str, Any]:
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
    for member, element in (("calling_ae", 0x0016), ("called_ae", 0x0018)):
        if element in meta:
            fact[member] = meta[element].strip(b" ").decode("ascii", "replace")
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
    return fact


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

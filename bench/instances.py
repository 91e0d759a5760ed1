"""What was sent and what was stored, and whether they are the same.

Everything a receiver keeps is read back from its files: preamble and File Meta Information are its
own, the data set behind them has to be the one that was sent. Receivers that decode and encode
again are compared by value, and the tables say so.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from hashlib import _Hash as Hash
    from pathlib import Path

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

# Value representations whose values may be padded to an even length, and those whose length has
# four bytes (PS3.5 7.1.2).
TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())  # noqa: SIM905
LONG = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # noqa: SIM905

ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
PIXEL_DATA, PADDING = (0x7FE0, 0x0010), (0xFFFC, 0xFFFC)
UNDEFINED = 0xFFFFFFFF


class NotPart10(ValueError):  # noqa: N818  (a finding, not a failure)
    """The file is not a DICOM Part 10 file."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A data set, where it can be had again, and what it is called.

    open: gives a stream that stands at the first byte of the data set.
    """

    uid: str
    transfer_syntax: str
    open: Callable[[], BinaryIO] = field(repr=False, compare=False)

    def sha256(self) -> str:
        """Digest of the bytes of the data set."""
        digest = hashlib.sha256()
        with self.open() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def values(self) -> str:
        """Digest of its tags and values; needs pydicom's dictionary for implicit VR.

        Group lengths, padding at the end of text and of the data set, and whether a sequence has
        an explicit length leave no trace in it. The byte order does: compare what has the same
        transfer syntax. Raises struct.error and zlib.error for what is no data set.
        """
        with self.open() as stream:
            data = stream.read()
        if self.transfer_syntax == DEFLATED:
            data = zlib.decompress(data, -zlib.MAX_WBITS)
        digest = hashlib.sha256()
        order = ">" if self.transfer_syntax == BIG_ENDIAN else "<"
        _DataSet(data, order).walk(digest, 0, len(data), self.transfer_syntax != IMPLICIT)
        return digest.hexdigest()


@functools.cache
def _implicit_vr(group: int, element: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR((group, element))
    except KeyError:
        return "UN"


@dataclass(frozen=True, slots=True)
class _DataSet:
    """An encoded data set. Lengths are believed; a slice is never longer than the data.

    Source: PS3.5 7.1, 7.5, A.4.
    """

    data: bytes
    order: str

    def tag(self, at: int) -> tuple[int, int]:
        group, element = struct.unpack_from(f"{self.order}HH", self.data, at)
        return group, element

    def length(self, at: int) -> int:
        (length,) = struct.unpack_from(f"{self.order}I", self.data, at)
        return int(length)

    def walk(self, digest: Hash, at: int, end: int, explicit: bool) -> int:
        """Digest elements up to an end, or to the end of the item; gives where the next thing is.

        Raises struct.error if that is no data set.
        """
        while at < end:
            tag = self.tag(at)
            if tag == ITEM_END:
                return at + 8
            vr = self.data[at + 4 : at + 6].decode("latin-1") if explicit else _implicit_vr(*tag)
            if explicit and vr in LONG:
                length, at = self.length(at + 8), at + 12
            elif explicit:
                length, at = struct.unpack_from(f"{self.order}H", self.data, at + 6)[0], at + 8
            else:
                length, at = self.length(at + 4), at + 8
            if tag[1] == 0 or tag == PADDING:
                at += length
                continue
            digest.update(struct.pack("<HH", *tag))
            if length == UNDEFINED:
                # What is UN is implicit within, whatever the transfer syntax (PS3.5 6.2.2).
                at = self.items(digest, at, end, explicit and vr != "UN", tag == PIXEL_DATA)
                continue
            if vr == "SQ":
                self.items(digest, at, at + length, explicit, False)
            elif not (vr == "UN" and self.nested(digest, at, at + length)):
                value = self.data[at : at + length]
                value = value.rstrip(b"\0 ") if vr in TEXT else value
                digest.update(struct.pack("<Q", len(value)) + value)
            at += length
        return at

    def nested(self, digest: Hash, at: int, end: int) -> bool:
        """Digest a value of unknown representation as a sequence, if it can be one."""
        if end - at < 8 or self.tag(at) != ITEM:
            return False
        try:
            self.items(hashlib.sha256(), at, end, False, False)
        except struct.error:
            return False
        self.items(digest, at, end, False, False)
        return True

    def items(self, digest: Hash, at: int, end: int, explicit: bool, fragments: bool) -> int:
        """Digest items up to an end, or to the end of the sequence."""
        while at < end:
            tag, length, at = self.tag(at), self.length(at + 4), at + 8
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise struct.error("no item")
            digest.update(b"<")
            if fragments:
                digest.update(self.data[at : at + length])
                at += length
            else:
                at = self.walk(digest, at, end if length == UNDEFINED else at + length, explicit)
            digest.update(b">")
        return at


def part10(path: Path) -> Instance:
    """The instance in a Part 10 file, or in one inside a zstandard frame (`.zst`).

    Raises NotPart10.
    Source: PS3.10 7.1.
    """
    with _opened(path) as stream:
        start = stream.read(144)
        if len(start) < 144 or start[128:138] != b"DICM\x02\x00\x00\x00UL":
            raise NotPart10(str(path))
        (length,) = struct.unpack_from("<I", start, 140)
        meta = stream.read(length)
    at, uids = 0, {0x0003: "", 0x0010: ""}
    while at + 8 <= len(meta):
        element, vr = struct.unpack_from("<2xH2s", meta, at)
        long = vr in (b"OB", b"UN", b"UT")
        (size,) = struct.unpack_from("<I" if long else "<H", meta, at + (8 if long else 6))
        at += 12 if long else 8
        if element in uids:
            uids[element] = meta[at : at + size].rstrip(b"\0 ").decode("ascii", "replace")
        at += size

    def opened() -> BinaryIO:
        stream = _opened(path)
        # A frame cannot be sought in.
        stream.read(144 + length)
        return stream

    return Instance(uids[0x0003], uids[0x0010], opened)


def _opened(path: Path) -> BinaryIO:
    if path.suffix != ".zst":
        return path.open("rb")
    import zstandard

    return io.BufferedReader(zstandard.open(path, "rb"))


def stored_below(folder: Path) -> Iterator[Instance]:
    """Every instance that was stored in a folder.

    Left out: hidden folders, folders of unfinished files (`incoming`), and what is no Part 10 file.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith(".") and path.name != "incoming":
                yield from stored_below(path)
        elif path.suffix != ".part":
            try:
                yield part10(path)
            except NotPart10:
                continue


@dataclass(slots=True)
class Comparison:
    """How what was stored compares with what was sent, in SOP Instance UIDs."""

    same: int = 0
    same_values: int = 0
    different: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Everything is there, once, and nothing else is."""
        return not (self.different or self.missing or self.unexpected or self.twice)

    def __str__(self) -> str:
        words = [f"{self.same} byte for byte"]
        words += [f"{self.same_values} by value"] * bool(self.same_values)
        for name in ("different", "missing", "unexpected", "twice"):
            if uids := getattr(self, name):
                words.append(f"{len(uids)} {name} ({uids[0]})")
        return ", ".join(words)


def _same_values(one: Instance, other: Instance) -> bool:
    expected = other.values()
    try:
        return one.values() == expected
    except (struct.error, zlib.error):
        # Cut short, or no data set at all.
        return False


def compare(
    stored: Iterable[Instance], sent: Iterable[Instance], *, by_value: bool = False
) -> Comparison:
    """Compare every stored instance with the one of the same UID that was sent.

    by_value: those that differ in their bytes are compared by value. What is expected of an
    instance is computed from `sent` here; nothing is kept but digests and the means to open it.
    """
    found, expected = Comparison(), {instance.uid: instance for instance in sent}
    seen: Counter[str] = Counter()
    for instance in stored:
        seen[instance.uid] += 1
        if instance.uid not in expected:
            found.unexpected.append(instance.uid)
        elif instance.sha256() == expected[instance.uid].sha256():
            found.same += 1
        elif by_value and _same_values(instance, expected[instance.uid]):
            found.same_values += 1
        else:
            found.different.append(instance.uid)
    found.missing = [uid for uid in expected if not seen[uid]]
    found.twice = [uid for uid, times in seen.items() if times > 1]
    return found

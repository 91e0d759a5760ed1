"""A slow, obvious tap over whole data sets: the oracle for fastscp_ext.dataset.tap.

It works on absolute offsets into the whole bytes, and keeps every level of every reading. It reads
headers in the literal way alone. What it says holds where no header is in doubt, and where the
literal way is the legal one; of the rest it says nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace

from pydicom._dicom_dict import DicomDictionary

UNKNOWN, IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE = range(4)

WANTED = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080020: "StudyDate",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x00100020: "PatientID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200011: "SeriesNumber",
    0x00200013: "InstanceNumber",
}
SHORT_LENGTHS = "AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"
LONG_LENGTHS = "OBODOFOLOVOWSVUCURUTUV"
SHORT = {SHORT_LENGTHS[i : i + 2] for i in range(0, len(SHORT_LENGTHS), 2)}
LONG = {LONG_LENGTHS[i : i + 2] for i in range(0, len(LONG_LENGTHS), 2)}
TEXT = (SHORT | {"UC", "UR", "UT"}) - {"AT", "FD", "FL", "SL", "SS", "UL", "US"}
UNDEFINED = 0xFFFFFFFF
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}


class TruncatedError(Exception):
    """The bytes end too early."""


class StoppedError(Exception):
    """The bytes cannot be read any further."""


class DoubtError(Exception):
    """A header that is not legal: others must say how it is read."""


@dataclass
class Outcome:
    syntax: int
    sniffed: bool = False
    stopped: bool = False
    truncated: bool = False
    settled: bool = False  # before the end is known
    values: dict[str, bytes] = field(default_factory=dict)


def capitals(vr: str) -> bool:
    return len(vr) == 2 and all("A" <= letter <= "Z" for letter in vr)


def implicit_is_likely(group: int, length: int) -> bool:
    return 1 <= group <= 0x7FE0 and (length == UNDEFINED or length < 2**20)


NUMBERS = ["AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"]
BYTES = {
    tag
    for tag, entry in DicomDictionary.items()
    if {*["OB", "OD", "OF", "OL", "OV", "OW", "UN"], *NUMBERS} & set(entry[0].split(" or "))
}


def may_hold_bytes(tag: int) -> bool:
    return tag >> 16 & 1 == 1 or tag in BYTES or (tag >> 16 >= 0x5000 and tag != 0x54000100)


KNOWN = SHORT | LONG | {"SQ", "UN"}


def sniff(header: bytes, negotiated: int) -> int | None:
    vr = header[4:6].decode("latin-1")
    explicit = negotiated in (EXPLICIT_LE, EXPLICIT_BE)
    small = [
        syntax
        for syntax, order in ((EXPLICIT_LE, "<H"), (EXPLICIT_BE, ">H"))
        if (group := struct.unpack_from(order, header)[0]) % 2 == 0 and 2 <= group < 256
    ]
    group, length = struct.unpack_from("<H2xL", header)
    likely = implicit_is_likely(group, length)
    if vr in KNOWN:
        if negotiated == IMPLICIT_LE and likely:
            raise DoubtError
        if len(small) == 1:
            return small[0]
        return negotiated if explicit else EXPLICIT_LE
    if capitals(vr) and explicit:
        if likely:
            raise DoubtError
        return negotiated
    if small and (length != UNDEFINED or not likely) and (length >= 0x10000 or min(vr) >= " "):
        raise DoubtError
    return IMPLICIT_LE if likely else None


def room(keyword: str, raw: bytes) -> bytes:
    return raw[: 256 if keyword.endswith("UID") else 1024]


def first_value(keyword: str, raw: bytes) -> bytes:
    if keyword.endswith("UID"):
        return room(keyword, raw).strip(b" \0\r\n")
    return room(keyword, raw).rstrip(b" \0")


def holds_controls(text: bytes) -> bool:
    return any(byte < 0x20 and byte != 0x1B for byte in text[:1024].rstrip(b" \0"))


def trimmed(keyword: str, raw: bytes) -> bytes:
    raw = first_value(keyword, raw)
    return raw if keyword.endswith("UID") else raw.lstrip(b" ")


@dataclass(frozen=True)
class Level:
    implicit: bool
    tag: int = 0  # of its last element; 0: none, or forgotten


@dataclass(frozen=True)
class Reading:
    """Where the reader may be: the data set itself, then a sequence, its item, and so on."""

    levels: tuple[Level, ...]
    guessed: bool = False  # only what follows can prove it

    @property
    def implicit(self) -> bool:
        return self.levels[-1].implicit

    def left(self, count: int, *, guessed: bool = False) -> Reading:
        levels = self.levels[:-count]
        if len(levels) > 1:
            # Only of the outermost level the last tag is remembered.
            levels = (*levels[:-1], replace(levels[-1], tag=0))
        return Reading(levels, self.guessed or guessed)

    def at_tag(self, tag: int) -> Reading:
        return replace(self, levels=(*self.levels[:-1], replace(self.levels[-1], tag=tag)))

    def turned_implicit(self) -> Reading:
        last = replace(self.levels[-1], implicit=True)
        return replace(self, levels=(*self.levels[:-1], last))

    def down(self, *levels: Level) -> Reading:
        return replace(self, levels=(*self.levels, *levels))

    def merged(self, other: Reading) -> Reading:
        if [one.implicit for one in self.levels] != [one.implicit for one in other.levels]:
            raise StoppedError
        outermost = min(self.levels[0].tag, other.levels[0].tag)
        first = replace(self.levels[0], tag=outermost)
        merged = Reading((first, *self.levels[1:]), self.guessed or other.guessed)
        return merged if len(merged.levels) == 1 else merged.at_tag(0)


class _Reader:
    """Reads on one offset; `readings` are the levels it may be at, as in tap.pxd's theory."""

    def __init__(self, data: bytes, outcome: Outcome, order: str, implicit: bool) -> None:
        self.data = data
        self.outcome = outcome
        self.order = order
        self.at = 0
        self.raw: dict[str, bytes] = {}
        self.before_guess: set[str] = set()
        self.before_sequence: dict[str, bytes] | None = None  # the first one at depth 0
        self.conflicts: set[str] = set()
        self.readings = [Reading((Level(implicit=implicit),))]
        self.fragments = False
        self.behind = False  # a sequence ended last
        self.first = False  # of an item
        self.empty = False  # an element with a 16-bit length came last
        self.previous = 0
        self.faults = 0
        self.barred: set[str] = set()  # given back: another one is none either
        self.settled = False  # for sure, not by stopping
        self.fresh = ""  # the keyword of the value that passed last
        self.shaky: set[str] = set()  # those with nothing plausible behind
        self.unproved_for = 0  # headers that have to come
        self.weak: set[str] | None = None  # found before a value that only began like items
        self.unsorted = False  # a tag at depth 0 was below the one before it
        self.pixels_ended = False  # an end that said nothing stood behind native pixel data
        self.pixels_empty = False
        self.held = False  # a value at depth 0 had the start of an item in it
        self.in_doubt = False  # a header that is legal may be meant in another way

    # What is known of the level.

    def shallowest(self) -> Reading:
        return min(self.readings, key=lambda reading: len(reading.levels))

    def outermost(self) -> bool:
        return len(self.shallowest().levels) == 1

    def keep(self, names: set[str]) -> None:
        self.raw = {name: value for name, value in self.raw.items() if name in names}

    def drop(self, wrong: list[Reading]) -> None:
        for reading in wrong:
            if reading == self.shallowest():
                self.keep(self.before_guess)
            self.readings.remove(reading)
        self.settle()

    def settle(self) -> None:
        if len(self.raw) == len(WANTED) and self.before_sequence is None and not self.faults:
            self.outcome.settled = self.settled = True

    def stray_end(self) -> None:
        self.faults += 1
        if self.settled:
            return
        if len(self.readings) > 1:
            self.drop([self.shallowest()])
        elif self.before_sequence is not None:
            self.raw = dict(self.before_sequence)
            self.conflicts = set()
            self.doubt_level()
        else:
            if self.held:
                raise DoubtError
            # No value led into an item while a UID was missing.
            uids = {keyword for keyword in self.raw if keyword.endswith("UID")}
            self.barred |= self.raw.keys() - uids
            self.raw = {keyword: self.raw[keyword] for keyword in uids}

    def tags_begin_anew(self) -> None:
        if self.pixels_ended:
            self.pixels_ended = False
            self.stray_end()
        elif self.pixels_empty and not self.unsorted:
            # What stands in pixel data that claim to be empty.
            self.barred = set(WANTED.values())
        elif not self.faults:
            self.unsorted = True

    def doubt_level(self) -> None:
        self.readings = [replace(one, guessed=True) for one in self.readings]

    def enter(self, implicit: bool | None = None) -> None:
        self.readings = [
            one.down(Level(implicit=one.implicit if implicit is None else implicit))
            for one in self.readings
        ]

    def fork(self, *, more: int, fewer: int) -> None:
        """Each reading may be `more` levels down, or `fewer` up."""
        self.faults += 1
        if len(self.readings) == 1:
            self.before_guess = set(self.raw)
        forked: list[Reading] = []
        for reading in self.readings:
            down = [Level(implicit=reading.implicit)] * more
            ways = [reading.down(*down)]
            if len(reading.levels) > fewer:
                ways.append(reading.left(fewer, guessed=True))
            for way in ways:
                same = [one for one in forked if len(one.levels) == len(way.levels)]
                if not same:
                    forked.append(way)
                    if len(forked) > 8:
                        raise StoppedError
                    continue
                forked.remove(same[0])
                forked.append(same[0].merged(way))
                self.keep(self.before_guess)
        self.readings = forked

    # What is read.

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(form) > len(self.data):
            raise TruncatedError
        return struct.unpack_from(form, self.data, at)

    def read(self) -> None:
        while self.at < len(self.data):
            if self.at + 8 > len(self.data):
                raise TruncatedError
            self.judge_encoding()
            implicit = self.readings[0].implicit
            order = "<" if implicit else self.order
            group, number, length = self.unpack(order + "HHL", self.at)
            if group == 0xFFFE:
                self.at += 8
                self.first = self.empty = False
                self.fresh = ""
                self.delimiter(number, length)
            else:
                self.element(group << 16 | number, order, implicit)
        if not self.outermost():
            raise TruncatedError

    def judge_encoding(self) -> None:
        if len({one.implicit for one in self.readings}) == 1:
            return
        header = self.data[self.at : self.at + 8]
        vr = header[4:6].decode("latin-1")
        group, length = struct.unpack_from("<H2xL", header)
        if group == 0xFFFE:
            if self.order == "<":
                return
            implicit = True
        else:
            known = vr in SHORT | LONG | {"SQ", "UN"}
            implicit = not known and implicit_is_likely(group, length)
        self.drop([one for one in self.readings if one.implicit != implicit])

    def delimiter(self, number: int, length: int) -> None:
        in_items = len(self.readings[0].levels) % 2 == 0
        if self.held and not in_items and self.outermost() and number != 0xE000:
            raise DoubtError
        behind, self.behind = self.behind, number != 0xE000
        if number == 0xE000 and (in_items or self.leave_item()):
            if length != UNDEFINED:
                self.pass_on(length)
            elif self.fragments:
                raise StoppedError
            else:
                self.enter()
                self.first = True
        elif number == 0xE00D and not self.fragments:
            if in_items:
                return
            if self.outermost():
                self.stray_end()
            self.readings = [one.left(1) if len(one.levels) > 1 else one for one in self.readings]
        elif number == 0xE0DD and in_items:
            self.fragments = False
            self.readings = [one.left(1) for one in self.readings]
        elif number == 0xE0DD:
            if self.outermost() and not behind:
                self.behind = False
                if self.previous in PIXELS:
                    self.pixels_ended = True
                else:
                    self.stray_end()
            self.fork(more=0, fewer=2)
        else:
            if not in_items and self.outermost():
                self.stray_end()
            raise StoppedError

    def leave_item(self) -> bool:
        """An item where an element must be: the end of the one before was left out."""
        if self.outermost():
            if len(self.readings) == 1:
                return False
            self.drop([self.shallowest()])
        self.faults += 1
        self.doubt_level()
        self.readings = [one.left(1) for one in self.readings]
        return True

    def pass_on(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise TruncatedError

    def element(self, tag: int, order: str, implicit: bool) -> None:
        at = self.at
        if len(self.readings[0].levels) % 2 == 0:
            vr = self.data[at + 4 : at + 6].decode("latin-1")
            # A header of 12 bytes is only judged when it is there.
            longer = not implicit and capitals(vr) and vr not in SHORT
            if longer and at + 12 > len(self.data):
                raise TruncatedError
            if self.fragments:
                raise StoppedError
            self.fork(more=1, fewer=1)
            self.judge_encoding()
            was, implicit = implicit, self.readings[0].implicit
            order = "<" if implicit else self.order
            if was != implicit and order == ">":
                raise DoubtError  # its tag was read in the other order
        vr = "" if implicit else self.data[at + 4 : at + 6].decode("latin-1")
        if not implicit and not capitals(vr):
            (size,) = self.unpack("<L", at + 4)
            if not (self.first and order == "<" and size < 0x10000):
                raise DoubtError
            if not implicit_is_likely(tag >> 16, size):
                raise DoubtError
            implicit, vr = True, ""
            self.faults += 1
            self.readings = [one.turned_implicit() for one in self.readings]
        if implicit:
            if tag >> 16 == 0:
                raise DoubtError
            length, at = self.unpack("<L", at + 4)[0], at + 8
        elif vr in SHORT:
            length, at = self.unpack(order + "H", at + 6)[0], at + 8
        else:
            reserved, length = self.unpack(order + "HL", at + 6)
            at += 12
            if reserved:
                raise DoubtError
        header = self.is_header(tag, vr, length)
        plausible = header and any(tag > one.levels[-1].tag for one in self.readings)
        if not header:
            text = self.raw.get(self.fresh, b"")
            if self.fresh[-3:] != "UID" and not self.settled and holds_controls(text):
                del self.raw[self.fresh]
            self.shaky |= {self.fresh}
            rest = all(0x20 <= byte < 0x7F for byte in self.data[self.at : self.at + 2])
            self.unproved_for = 2 if rest else 1
        else:
            self.unproved_for -= 1
            if self.unproved_for <= 0:
                self.shaky = set()
        self.fresh = ""
        self.doubt(tag, vr, length, order, plausible=plausible)
        self.empty = vr in SHORT and length == 0
        self.previous, self.first = tag, False
        self.at = at
        self.value(tag, vr, length, implicit)

    def is_header(self, tag: int, vr: str, length: int) -> bool:
        group = tag >> 16
        if group == 0 or (group > 0x7FE0 and group & 1 == 0 and group not in (0xFFFA, 0xFFFC)):
            return False
        if vr:
            return vr in KNOWN and (tag & 0xFFFF != 0 or (length == 4 and vr in SHORT))
        if tag & 0xFFFF == 0:
            return length == 4
        spelled = self.data[self.at + 4 : self.at + 6].decode("latin-1")
        return tag in PIXELS or length == UNDEFINED or (length < 2**20 and spelled not in KNOWN)

    def doubt(self, tag: int, vr: str, length: int, order: str, *, plausible: bool) -> None:
        """Whether the header may be meant in another way than the legal one."""
        if self.empty and not plausible:
            self.in_doubt = True
        if vr == "":
            spelled = self.data[self.at + 4 : self.at + 6].decode("latin-1")
            self.in_doubt = self.in_doubt or spelled in KNOWN
        elif vr not in SHORT:
            behind = length if order == ">" else (length << 16 | length >> 16) & 0xFFFFFFFF
            if behind & 0xFFFF and tag < behind < 0x7FE10000:
                self.in_doubt = True
            if vr == "UN" and length == UNDEFINED:
                self.in_doubt = True

    def value(self, tag: int, vr: str, length: int, implicit: bool) -> None:
        marks = (b"\xfe\xff\0\xe0", b"\xff\xfe\xe0\0")[: 1 + (self.order == ">")]
        passing = self.data[self.at : self.at + length]
        if vr != "SQ" and length != UNDEFINED and any(mark in passing for mark in marks):
            if self.outermost() and (vr in TEXT or vr in ("", "UN")):
                raise DoubtError  # no text holds the start of an item
            if self.outermost() and self.before_sequence is None and not self.held:
                self.held = True
                for found in re.finditer(b"|".join(marks), passing):
                    item = passing[found.start() : found.start() + 8]
                    size = int.from_bytes(item[4:], "big" if item[:1] == b"\xff" else "little")
                    if len(item) == 8 and length - found.start() - 8 < size < UNDEFINED:
                        raise DoubtError  # whether it ends where an element begins
        if len(self.readings) > 1:
            descending = [one for one in self.readings if tag <= one.levels[-1].tag]
            if len(descending) < len(self.readings):
                self.drop(sorted(descending, key=lambda one: len(one.levels)))
        if self.outermost():
            if tag < self.shallowest().levels[0].tag:
                self.tags_begin_anew()
            if tag in PIXELS:
                self.pixels_empty = length == 0
        self.readings = [one.at_tag(tag) for one in self.readings]
        by_look = implicit or vr == "UN"
        self.behind = vr == "SQ" or (by_look and length == 0)
        if vr == "SQ" or length == UNDEFINED:
            self.sequence_passes()
        if length == UNDEFINED:
            self.fragments = vr in LONG or tag in PIXELS
            self.enter(True if vr == "UN" else None)
            return
        start = self.at
        head = self.data[start : start + min(8, length)]
        items = vr == "SQ"
        if by_look and len(head) == 8 and head[:4] == b"\xfe\xff\x00\xe0":
            self.behind = items = True
            self.sequence_passes()
        if items and not self.outcome.settled:
            try:
                self.walk_items(start, length, "<" if by_look else self.order)
            except StoppedError:
                if not by_look or not may_hold_bytes(tag):
                    raise
                self.behind = False
                if self.weak is None:
                    self.weak = set(self.raw)
        self.pass_on(length)
        keyword = WANTED.get(tag)
        if (
            self.outcome.settled
            or not self.outermost()
            or not keyword
            or keyword in self.conflicts | self.barred
        ):
            return
        raw = self.data[start : start + length]
        if keyword not in self.raw:
            self.fresh = keyword
            self.raw[keyword] = raw
            self.settle()
        elif length and not keyword.startswith("SOP"):
            self.fresh = keyword
            if first_value(keyword, self.raw[keyword]) == first_value(keyword, raw):
                return
            if len(self.readings) > 1:
                self.drop([self.shallowest()])
            else:
                del self.raw[keyword]
                self.conflicts.add(keyword)

    def walk_items(self, start: int, length: int, order: str) -> None:
        """Items of defined length must fill the value; one of undefined length is not judged."""
        at = start
        end = start + length
        while at < end:
            if at + 8 > end:
                if end <= len(self.data):
                    raise StoppedError
                return
            if at + 8 > len(self.data):
                return
            group, number, size = self.unpack(order + "HHL", at)
            at += 8
            known = group == 0xFFFE
            if known and number == 0xE000:
                if size == UNDEFINED:
                    return
                at += size
                if at > end:
                    raise StoppedError
            elif not known or not (number == 0xE00D or (number == 0xE0DD and at == end)):
                raise StoppedError

    def sequence_passes(self) -> None:
        if self.before_sequence is None and self.outermost():
            self.before_sequence = dict(self.raw)

    def end(self, *, whole: bool) -> None:
        """Nothing more comes; whole: not inside an element."""
        if self.settled:
            return
        ended = whole and self.outermost()
        if ended and not self.faults:
            return
        if self.weak is not None:
            self.keep(self.weak)
        self.keep(set(self.raw) - self.shaky)


def tap(data: bytes, negotiated: int) -> Outcome | None:
    """What fastscp_ext.dataset.tap must say about `data`; None: the literal way does not tell."""
    try:
        return _tap(data, negotiated)
    except DoubtError:
        return None


def _tap(data: bytes, negotiated: int) -> Outcome | None:
    outcome = Outcome(negotiated)
    if len(data) < 8:
        outcome.truncated = len(data) > 0
        return outcome
    syntax = sniff(data[:8], negotiated)
    if syntax is None:
        outcome.stopped = outcome.settled = True
        return outcome
    outcome.syntax = syntax
    outcome.sniffed = negotiated not in (UNKNOWN, syntax)
    order = ">" if syntax == EXPLICIT_BE else "<"
    reader = _Reader(data, outcome, order, syntax == IMPLICIT_LE)
    whole = False
    try:
        reader.read()
        whole = True
    except StoppedError:
        outcome.stopped = outcome.settled = True
    except TruncatedError:
        outcome.truncated = True
    if reader.in_doubt and (reader.faults or not whole):
        return None
    if reader.shallowest().guessed:
        # What follows a guess must bear it out: the tests of the levels say how.
        return None
    if not whole and not reader.settled and (reader.before_sequence is not None or reader.held):
        # What is found behind a sequence must be borne out: the tests of the levels say how.
        return None
    reader.end(whole=whole)
    values = {keyword: trimmed(keyword, raw) for keyword, raw in reader.raw.items()}
    outcome.values = {keyword: value for keyword, value in values.items() if value}
    return outcome

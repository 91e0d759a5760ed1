"""A slow, obvious tap over whole data sets: the oracle for fastscp_ext.dataset.tap.

It works on absolute offsets into the whole bytes, and keeps every level of every reading.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

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
UNDEFINED = 0xFFFFFFFF
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}


class TruncatedError(Exception):
    """The bytes end too early."""


class StoppedError(Exception):
    """The bytes cannot be read any further."""


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


def sniff(header: bytes, negotiated: int) -> int | None:
    vr = header[4:6].decode("latin-1")
    explicit = negotiated in (EXPLICIT_LE, EXPLICIT_BE)
    if vr in SHORT | LONG | {"SQ", "UN"}:
        small = [
            syntax
            for syntax, order in ((EXPLICIT_LE, "<H"), (EXPLICIT_BE, ">H"))
            if (group := struct.unpack_from(order, header)[0]) % 2 == 0 and 2 <= group < 256
        ]
        if len(small) == 1:
            return small[0]
        return negotiated if explicit else EXPLICIT_LE
    if capitals(vr) and explicit:
        return negotiated
    group, length = struct.unpack_from("<H2xL", header)
    return IMPLICIT_LE if implicit_is_likely(group, length) else None


def room(keyword: str, raw: bytes) -> bytes:
    return raw[: 256 if keyword.endswith("UID") else 1024]


def first_value(keyword: str, raw: bytes) -> bytes:
    return room(keyword, raw).rstrip(b" \0")


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

    @property
    def implicit(self) -> bool:
        return self.levels[-1].implicit

    def left(self, count: int) -> Reading:
        levels = self.levels[:-count]
        if len(levels) > 1:
            # Only of the outermost level the last tag is remembered.
            levels = (*levels[:-1], replace(levels[-1], tag=0))
        return Reading(levels)

    def at_tag(self, tag: int) -> Reading:
        return Reading((*self.levels[:-1], replace(self.levels[-1], tag=tag)))

    def turned_implicit(self) -> Reading:
        return Reading((*self.levels[:-1], replace(self.levels[-1], implicit=True)))

    def merged(self, other: Reading) -> Reading:
        if [one.implicit for one in self.levels] != [one.implicit for one in other.levels]:
            raise StoppedError
        outermost = min(self.levels[0].tag, other.levels[0].tag)
        first = replace(self.levels[0], tag=outermost)
        merged = Reading((first, *self.levels[1:]))
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
        self.image: set[str] = set()  # what of one passed at depth 0 since the last guess
        self.fragments = False
        self.behind = False  # a sequence ended last
        self.suspect = False
        self.first = False  # of an item
        self.previous = 0

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
                self.image = set()
            self.readings.remove(reading)
        self.settle()

    def settle(self) -> None:
        if len(self.raw) == len(WANTED) and self.before_sequence is None:
            self.outcome.settled = True

    def stray_end(self) -> None:
        if len(self.readings) > 1:
            self.drop([self.shallowest()])
        elif self.before_sequence is not None:
            self.raw = dict(self.before_sequence)
            self.conflicts = set()

    def enter(self, implicit: bool | None = None) -> None:
        self.readings = [
            Reading((*one.levels, Level(implicit=one.implicit if implicit is None else implicit)))
            for one in self.readings
        ]

    def fork(self) -> None:
        if len(self.readings) == 1:
            self.before_guess = set(self.raw)
        self.image = set()
        forked: list[Reading] = []
        for reading in self.readings:
            ways = [reading]
            if len(reading.levels) > 1:
                ways.append(reading.left(2))
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
                self.suspect = self.first = False
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
        behind, self.behind = self.behind, number != 0xE000
        if number == 0xE000 and in_items:
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
                if self.previous not in PIXELS:
                    self.stray_end()
            self.fork()
        else:
            if not in_items and self.outermost():
                self.stray_end()
            raise StoppedError

    def pass_on(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise TruncatedError

    def element(self, tag: int, order: str, implicit: bool) -> None:
        at = self.at
        vr = ""
        bad_vr = False
        in_items = len(self.readings[0].levels) % 2 == 0
        if not implicit:
            vr = self.data[at + 4 : at + 6].decode("latin-1")
            bad_vr = not capitals(vr)
        if in_items:
            # A header of 12 bytes is only judged when it is there.
            if not implicit and not bad_vr and vr not in SHORT and at + 12 > len(self.data):
                raise TruncatedError
            raise StoppedError
        if bad_vr and self.first and order == "<":
            (length,) = self.unpack("<L", at + 4)
            if implicit_is_likely(tag >> 16, length):
                implicit, bad_vr, vr = True, False, ""
                self.readings = [one.turned_implicit() for one in self.readings]
        known = vr in SHORT or vr in LONG or vr in ("SQ", "UN")
        if implicit:
            length, at = self.unpack("<L", at + 4)[0], at + 8
        elif bad_vr or vr in SHORT:
            length, at = self.unpack(order + "H", at + 6)[0], at + 8
        else:
            length, at = self.unpack(order + "L", at + 8)[0], at + 12
        next_in_group = tag > self.previous and tag >> 16 == self.previous >> 16
        if self.suspect and not known and not implicit and not next_in_group:
            raise StoppedError
        if self.suspect and implicit and not next_in_group:
            raise StoppedError
        self.suspect, self.previous, self.first = bad_vr, tag, False
        self.at = at
        self.value(tag, vr, length, implicit)

    def value(self, tag: int, vr: str, length: int, implicit: bool) -> None:
        if len(self.readings) > 1:
            descending = [one for one in self.readings if tag <= one.levels[-1].tag]
            if len(descending) < len(self.readings):
                self.drop(sorted(descending, key=lambda one: len(one.levels)))
        self.readings = [one.at_tag(tag) for one in self.readings]
        if self.outermost():
            if tag >> 16 == 0x0028:
                self.image.add("description")
            elif tag in PIXELS:
                self.image.add("pixels")
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
            self.walk_items(start, length, "<" if by_look else self.order)
        self.pass_on(length)
        keyword = WANTED.get(tag)
        if self.outcome.settled or not self.outermost() or not keyword or keyword in self.conflicts:
            return
        raw = self.data[start : start + length]
        if keyword not in self.raw:
            self.raw[keyword] = raw
            self.settle()
        elif (
            length
            and not keyword.startswith("SOP")
            and self.another(first_value(keyword, self.raw[keyword]), room(keyword, raw))
        ):
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

    @staticmethod
    def another(known: bytes, raw: bytes) -> bool:
        return not raw.startswith(known) or raw[len(known) :].strip(b" \0") != b""

    def sequence_passes(self) -> None:
        if self.before_sequence is None and self.outermost():
            self.before_sequence = dict(self.raw)

    def end(self, *, whole: bool) -> None:
        """Nothing more comes; whole: not inside an element."""
        proved = whole and self.outermost() and self.image == {"description", "pixels"}
        if len(self.readings) > 1 and not proved:
            self.keep(self.before_guess)


def tap(data: bytes, negotiated: int) -> Outcome:
    """What fastscp_ext.dataset.tap must say about `data`."""
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
    reader.end(whole=whole)
    values = {keyword: trimmed(keyword, raw) for keyword, raw in reader.raw.items()}
    outcome.values = {keyword: value for keyword, value in values.items() if value}
    return outcome

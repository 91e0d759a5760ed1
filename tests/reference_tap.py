"""A slow, obvious tap over whole data sets: the oracle for fastscp_ext.tap.

It descends through nested levels by calling itself, on absolute offsets into the whole bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

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


def trimmed(keyword: str, raw: bytes) -> bytes:
    raw = raw[: 256 if keyword.endswith("UID") else 1024].split(b"\\")[0].rstrip(b" \0")
    return raw if keyword.endswith("UID") else raw.lstrip(b" ")


class _Reader:
    def __init__(self, data: bytes, outcome: Outcome) -> None:
        self.data = data
        self.outcome = outcome
        self.raw: dict[str, bytes] = {}

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(form) > len(self.data):
            raise TruncatedError
        return struct.unpack_from(form, self.data, at)

    def elements(self, at: int, order: str, implicit: bool, depth: int) -> tuple[int, bool]:
        """Read until the level's end: the offset behind it, and whether it ended the sequence."""
        suspect = False
        previous = 0
        first = True
        while depth > 0 or at < len(self.data):
            if at + 8 > len(self.data):
                raise TruncatedError
            group, element = self.unpack(order + "HH", at)
            tag = group << 16 | element
            if group == 0xFFFE:
                at += 8
                if element == 0xE00D:
                    if depth > 0:
                        return at, False
                elif element == 0xE0DD:
                    if depth > 0:
                        return at, True
                else:
                    raise StoppedError
                suspect = first = False
                continue
            vr = ""
            bad_vr = False
            if not implicit:
                vr = self.data[at + 4 : at + 6].decode("latin-1")
                bad_vr = not capitals(vr)
                if bad_vr and first and depth > 0 and order == "<":
                    (length,) = self.unpack("<L", at + 4)
                    if implicit_is_likely(group, length):
                        implicit, bad_vr, vr = True, False, ""
            known = vr in SHORT or vr in LONG or vr in ("SQ", "UN")
            if implicit:
                length, at = self.unpack("<L", at + 4)[0], at + 8
            elif bad_vr or vr in SHORT:
                length, at = self.unpack(order + "H", at + 6)[0], at + 8
            else:
                length, at = self.unpack(order + "L", at + 8)[0], at + 12
            next_in_group = tag > previous and tag >> 16 == previous >> 16
            if suspect and not known and not next_in_group:
                raise StoppedError
            suspect, previous, first = bad_vr, tag, False
            at = self.value(tag, vr, length, at, order, implicit, depth)
        return at, False

    def value(
        self, tag: int, vr: str, length: int, at: int, order: str, implicit: bool, depth: int
    ) -> int:
        if depth == 0 and tag in PIXELS:
            self.outcome.settled = True
        if length == UNDEFINED:
            if vr == "UN":
                return self.items(at, "<", True, False, depth + 1)
            fragments = vr in LONG or tag in PIXELS
            return self.items(at, order, implicit, fragments, depth + 1)
        if at + length > len(self.data):
            raise TruncatedError
        keyword = WANTED.get(tag)
        if depth == 0 and keyword and not self.outcome.settled and keyword not in self.raw:
            self.raw[keyword] = self.data[at : at + length]
            if len(self.raw) == len(WANTED):
                self.outcome.settled = True
        return at + length

    def items(self, at: int, order: str, implicit: bool, fragments: bool, depth: int) -> int:
        if depth > 64:
            raise StoppedError
        while True:
            if at + 8 > len(self.data):
                raise TruncatedError
            group, element, length = self.unpack(order + "HHL", at)
            at += 8
            if (group, element) == (0xFFFE, 0xE0DD):
                return at
            if (group, element) == (0xFFFE, 0xE00D) and not fragments:
                continue
            if (group, element) != (0xFFFE, 0xE000):
                # A header of 12 bytes is only judged when it is there.
                vr = self.data[at - 4 : at - 2].decode("latin-1")
                long_form = capitals(vr) and vr not in SHORT and not implicit and group != 0xFFFE
                if long_form and at + 4 > len(self.data):
                    raise TruncatedError
                raise StoppedError
            if length != UNDEFINED:
                at += length
                if at > len(self.data):
                    raise TruncatedError
                continue
            if fragments or depth == 64:
                raise StoppedError
            at, sequence_ended = self.elements(at, order, implicit, depth + 1)
            if sequence_ended:
                return at


def tap(data: bytes, negotiated: int) -> Outcome:
    """What fastscp_ext.tap must say about `data`."""
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
    reader = _Reader(data, outcome)
    try:
        reader.elements(0, ">" if syntax == EXPLICIT_BE else "<", syntax == IMPLICIT_LE, 0)
    except StoppedError:
        outcome.stopped = outcome.settled = True
    except TruncatedError:
        outcome.truncated = True
    values = {keyword: trimmed(keyword, raw) for keyword, raw in reader.raw.items()}
    outcome.values = {keyword: value for keyword, value in values.items() if value}
    return outcome

"""Fresh UIDs of equal length for load generation, and where in a data set they have to go."""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NamedTuple

from fastscp.scu.errors import UnusableInstance
from fastscp.scu.heads import Head, reading_data_set, tapped
from fastscp_ext import encoding_of

__all__ = ["UidPlace", "fresh_uid", "uid_places"]

_TAGS: Final = {
    "SOPInstanceUID": (0x0008, 0x0018),
    "StudyInstanceUID": (0x0020, 0x000D),
    "SeriesInstanceUID": (0x0020, 0x000E),
}
_KEYWORDS: Final = frozenset(_TAGS)
# The numbers of the codec: 1 implicit little endian, 2 explicit little, 3 explicit big endian.
_FORMS: Final = {1: "<HHI", 2: "<HH2sH", 3: ">HH2sH"}
_ROOT: Final = "2.25."
# A UUID as a number has at most so many digits (PS3.5 B.2).
_UUID_DIGITS: Final = 39
# With fewer digits than this, fresh UIDs would soon repeat.
_LEAST_DIGITS: Final = 7


class UidPlace(NamedTuple):
    """Where a UID stands in a data set; `at` is the offset of its value, in bytes."""

    at: int
    uid: str


def uid_places(path: str | bytes, head: Head) -> tuple[UidPlace, ...]:
    """Every place that has the Study, Series or SOP Instance UID of a file under its own tag.

    Copies in sequences before the main elements count as well: they refer to the same study.
    Raises UnusableInstance where the UIDs cannot be exchanged, OSError.
    """
    if encoding_of(head.transfer_syntax.encode("latin-1"))[1]:
        raise UnusableInstance("its data set is deflated: its UIDs cannot be exchanged")
    with reading_data_set(path, head) as read:
        values, data, encoding = tapped(read, head.transfer_syntax, _KEYWORDS)
    places: list[UidPlace] = []
    for keyword, tag in _TAGS.items():
        raw = values.get(keyword, b"").rstrip(b"\0 ")
        if not raw or encoding not in _FORMS:
            raise UnusableInstance(f"its {keyword} cannot be exchanged: it was not found")
        uid = raw.decode("latin-1")
        if len(uid) < len(_ROOT) + _LEAST_DIGITS:
            raise UnusableInstance(f"its {keyword} is too short to be exchanged for a fresh one")
        pattern = _element(encoding, tag, len(raw)) + raw
        at = data.find(pattern)
        while at >= 0:
            places.append(UidPlace(at + len(pattern) - len(raw), uid))
            at = data.find(pattern, at + 1)
    _check(places, head.transfer_syntax, data)
    return tuple(places)


def _check(places: list[UidPlace], transfer_syntax: str, data: bytes) -> None:
    """Raise UnusableInstance where a UID of the data set itself is not among its places.

    One that is padded twice, say, or has another VR: the command would name another instance.
    """
    exchanged = bytearray(data)
    for place in places:
        exchanged[place.at : place.at + len(place.uid)] = b"9" * len(place.uid)
    values, _data, _encoding = tapped(
        lambda _at, _size: b"", transfer_syntax, _KEYWORDS, bytes(exchanged)
    )
    for keyword in _TAGS:
        if values.get(keyword, b"").rstrip(b"\0 ").strip(b"9"):
            raise UnusableInstance(
                f"its {keyword} cannot be exchanged: the element has another VR or length than a "
                f"UID has"
            )


def _element(encoding: int, tag: tuple[int, int], size: int) -> bytes:
    """The header of an element with a UID of so many characters, padded to even."""
    length = size + size % 2
    if encoding == 1:
        return struct.pack(_FORMS[encoding], *tag, length)
    return struct.pack(_FORMS[encoding], *tag, b"UI", length)


def fresh_uid(uid: str, seed: bytes) -> str:
    """A UID of the same length, always the same for the same UID and seed.

    Source: PS3.5 B.2, as far as the length allows.
    """
    number = int.from_bytes(hashlib.blake2b(uid.encode(), key=seed).digest())
    digits = len(uid) - len(_ROOT)
    if digits <= _UUID_DIGITS:
        return _ROOT + _number(number, digits)
    first = min(_UUID_DIGITS, digits - 2)
    rest = digits - first - 1
    return f"{_ROOT}{_number(number, first)}.{_number(number >> 256, rest)}"


def _number(number: int, digits: int) -> str:
    """So many digits, the first of them 1 or 2: no leading zero, and below 2 to the 128th."""
    low = 10 ** (digits - 1)
    return str(low + number % (2 * low))

"""What the components of a path can be that a layout makes, and whether two of them can be equal.

A component is an automaton over bytes that takes every name the codec can make of it, and a few
more: so two that have no name in common never have one. What the codec makes of values, see
fastscp_ext/dataset/layout.pyx; what makes a UID, fastscp_ext/dataset/uid.pyx.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ANY_BYTE", "Component", "components", "meet"]

_KEY: Final = re.compile(r"\{([A-Za-z]+)\}")
_SOP: Final = "SOPInstanceUID"
_UIDS: Final = frozenset({"StudyInstanceUID", "SeriesInstanceUID", _SOP})
_TITLES: Final = frozenset({"CallingAE", "CalledAE"})
_DATE: Final = "ReceivedDate"

# Bytes of a name: at least, at most.
_UID_BYTES: Final = (1, 64)
_TITLE_BYTES: Final = (1, 3 * 16)
_VALUE_BYTES: Final = (1, 200)
_DATE_BYTES: Final = (8, 8)
# A name above this many is cut, and gets "~" and a hash of 16 digits: a folder's, a file's without
# its suffix. What is left of it before that has so many, fewer by a part of a character.
_FOLDER_MOST: Final = 255
_STEM_MOST: Final = 245
_CUT: Final = range(147, 151)
_HASH: Final = 16


def _set(characters: str) -> int:
    """Bytes as the bits of a number."""
    return sum(1 << ord(character) for character in characters)


_DIGITS: Final = "0123456789"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_ALPHANUMERIC: Final = _set(_DIGITS + _LETTERS + _LETTERS.upper())
_HEX: Final = _set(_DIGITS + "ABCDEF")
_HASH_HEX: Final = _set(_DIGITS + "abcdef")
_FIRST: Final = _ALPHANUMERIC | _set("_")
ANY_BYTE: Final = (1 << 256) - 1
_REST: Final = _FIRST | _set(".-")


class Component:
    """A folder's name, or a file's without its suffix.

    lead, tail: what every name begins with, and ends with. first: bytes that a name may begin with,
    as the bits of a number. sizes: bytes, at least and at most. is_cut: whether a name can be cut.
    """

    def __init__(self, text: str, *, is_folder: bool) -> None:
        # Literals at even places, keys between them.
        parts = _KEY.split(text)
        self.text = text
        low = high = 0
        for number, part in enumerate(parts):
            least, most = _bytes_of(part) if number % 2 else (len(part.encode()),) * 2
            low, high = low + least, high + most
        # Where a folder's dot is encoded the name has two bytes more.
        high += 2 * is_folder
        self.is_cut = high > (_FOLDER_MOST if is_folder else _STEM_MOST)
        self.sizes = (min(low, _CUT.start), max(_FOLDER_MOST, high)) if self.is_cut else (low, high)
        # A folder's last dot may be encoded, and what is behind the cut is gone.
        self.lead = parts[0].encode().partition(b".")[0][: _CUT.start]
        self.tail = b"" if self.is_cut else parts[-1].encode().rpartition(b".")[2]
        self.first = _first(parts)
        self._parts = parts
        self._is_folder = is_folder
        self._automaton: _Automaton | None = None

    @property
    def automaton(self) -> _Automaton:
        if self._automaton is None:
            self._automaton = _Automaton(self._parts, is_folder=self._is_folder)
        return self._automaton


def _first(parts: list[str]) -> int:
    """parts: of a component, literals at even places. Bytes it may begin with, at least."""
    if parts[0].startswith("."):
        # It may be encoded.
        return ANY_BYTE
    if parts[0]:
        return 1 << parts[0].encode()[0]
    if parts[1] in _UIDS:
        return _ALPHANUMERIC
    return _set(_DIGITS) if parts[1] == _DATE else _FIRST | _set("%")


def _bytes_of(key: str) -> tuple[int, int]:
    if key in _UIDS:
        return _UID_BYTES
    if key in _TITLES:
        return _TITLE_BYTES
    return _DATE_BYTES if key == _DATE else _VALUE_BYTES


@lru_cache(maxsize=4096)
def _component(text: str, is_folder: bool) -> Component:
    return Component(text, is_folder=is_folder)


@lru_cache(maxsize=4096)
def components(layout: str) -> tuple[Component, ...]:
    """The components of a layout, the same object for the same spelling. layout: a valid one."""
    *folders, name = layout.split("/")
    stem = name.removesuffix(".dcm")
    return (*(_component(folder, True) for folder in folders), _component(stem, False))


def meet(one: Component, other: Component) -> bool:
    """Whether both can be the same name, or that is not sure. Both are folders, or both files."""
    if one is other:
        return True
    length = min(len(one.lead), len(other.lead))
    if one.lead[:length] != other.lead[:length]:
        return False
    if one.sizes[0] > other.sizes[1] or other.sizes[0] > one.sizes[1]:
        return False
    length = min(len(one.tail), len(other.tail))
    if length and one.tail[-length:] != other.tail[-length:]:
        return False
    return _meet(one, other)


@lru_cache(maxsize=1 << 16)
def _meet(one: Component, other: Component) -> bool:
    return _share(one.automaton, other.automaton) or (
        (one.is_cut or other.is_cut) and _share_cut(one, other)
    )


# Automata ----------------------------------------------------------------------------------------


class _Automaton:
    """Takes names. State 0 is the first one.

    edges: of each state, sets of bytes with the state that follows. accepts: where a name may end.
    """

    def __init__(self, parts: list[str], *, is_folder: bool) -> None:
        self.edges: list[list[tuple[int, int]]] = [[]]
        ends = [0]
        for number, part in enumerate(parts):
            if number % 2 == 0:
                ends = self._literal(ends, part.encode())
            elif part in _UIDS:
                ends = self._uid(ends)
            elif part == _DATE:
                ends = self._date(ends)
            else:
                ends = self._value(ends, is_cut=part not in _TITLES)
        self.accepts = set(ends)
        if is_folder:
            self._hide_dots()

    def after(self, states: Iterable[int], characters: int) -> set[int]:
        """The states that one of some bytes leads to."""
        return {
            target for state in states for taken, target in self.edges[state] if taken & characters
        }

    def takes(self, state: int, sets: Iterable[int]) -> bool:
        """Whether a name may end after bytes of these sets, one of each."""
        states = {state}
        for characters in sets:
            states = self.after(states, characters)
        return not states.isdisjoint(self.accepts)

    def _state(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def _sets(self, ends: list[int], sets: Iterable[int]) -> list[int]:
        """One byte of each set, from any of the states."""
        for characters in sets:
            state = self._state()
            for end in ends:
                self.edges[end].append((characters, state))
            ends = [state]
        return ends

    def _literal(self, ends: list[int], literal: bytes) -> list[int]:
        return self._sets(ends, (1 << byte for byte in literal))

    def _date(self, ends: list[int]) -> list[int]:
        digit = _set(_DIGITS)
        return self._sets(ends, (*[digit] * 4, _set("01"), digit, _set("0123"), digit))

    def _uid(self, ends: list[int]) -> list[int]:
        """First and last are alphanumeric, and no dot follows a dot."""
        plain, dot, other = (self._state() for _ in range(3))
        for end in ends:
            self.edges[end].append((_ALPHANUMERIC, plain))
        for state in (plain, dot, other):
            self.edges[state] += [(_ALPHANUMERIC, plain), (_set("_-"), other)]
        for state in (plain, other):
            self.edges[state].append((_set("."), dot))
        return [plain]

    def _value(self, ends: list[int], *, is_cut: bool) -> list[int]:
        """Any value, encoded; is_cut: also one that is cut, perhaps inside an encoded byte."""
        plain, percent, digit = (self._state() for _ in range(3))
        for end in ends:
            self.edges[end] += [(_FIRST, plain), (_set("%"), percent)]
        self.edges[plain] += [(_REST, plain), (_set("%"), percent)]
        self.edges[percent].append((_HEX, digit))
        self.edges[digit].append((_HEX, plain))
        if not is_cut:
            return [plain]
        return [plain, *self._sets([plain, percent, digit], _HASHED)]

    def _hide_dots(self) -> None:
        """A folder that would look like a file of the store has its last dot encoded.

        One that would be a store's own folder has that, too.
        """
        for ending in (".dcm", ".zst"):
            sets = [1 << byte for byte in ending.encode()]
            before = [state for state in range(len(self.edges)) if self.takes(state, sets)]
            self.accepts |= set(self._literal(before, f"%2E{ending[1:]}".encode()))
        if self.takes(0, [1 << byte for byte in b".fastscp"]):
            self.accepts |= set(self._literal([0], b"%2Efastscp"))


# What stands at the end of something that was cut.
_HASHED: Final = (_set("~"), *[_HASH_HEX] * _HASH)


def _share(one: _Automaton, other: _Automaton) -> bool:
    """Whether both take some name."""
    seen = {(0, 0)}
    ahead = [(0, 0)]
    while ahead:
        mine, others = ahead.pop()
        if mine in one.accepts and others in other.accepts:
            return True
        new = set(_steps(one, other, mine, others)) - seen
        seen |= new
        ahead += new
    return False


def _steps(one: _Automaton, other: _Automaton, mine: int, others: int) -> list[tuple[int, int]]:
    return [
        (target, other_target)
        for taken, target in one.edges[mine]
        for other_taken, other_target in other.edges[others]
        if taken & other_taken
    ]


def _share_cut(one: Component, other: Component) -> bool:
    """Whether a name of one that is cut can be a name of the other, cut or not."""
    mine, others = one.automaton, other.automaton
    pairs = {(0, 0)}
    for length in range(_CUT.stop):
        if length in _CUT:
            for state, other_state in pairs:
                if (one.is_cut and (other.is_cut or others.takes(other_state, _HASHED))) or (
                    other.is_cut and mine.takes(state, _HASHED)
                ):
                    return True
        pairs = {pair for state, two in pairs for pair in _steps(mine, others, state, two)}
    return False

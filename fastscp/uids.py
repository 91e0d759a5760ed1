"""UIDs fastscp knows by name, and which SOP classes and transfer syntaxes an operator lets in.

The names come from pydicom's dictionary, which only the main process reads; what the functions that
do so return is plain data for the workers.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "APPLICATION_CONTEXT",
    "DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN",
    "EXPLICIT_VR_BIG_ENDIAN",
    "EXPLICIT_VR_LITTLE_ENDIAN",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "IMPLICIT_VR_LITTLE_ENDIAN",
    "JPIP_TRANSFER_SYNTAXES",
    "LONGEST_UID",
    "STORAGE_SERVICE_CLASS",
    "VERIFICATION",
    "SopClassRule",
    "TransferSyntaxRule",
    "UidSelectionError",
    "is_uid",
    "known_non_storage_sop_classes",
    "sop_class_rule",
    "sop_class_uid",
    "storage_sop_classes",
    "transfer_syntax_rule",
    "transfer_syntax_uid",
    "transfer_syntaxes",
    "uid_names",
]

# Characters, without padding (PS3.5 9.1).
LONGEST_UID: Final = 64

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
VERIFICATION: Final = "1.2.840.10008.1.1"
STORAGE_SERVICE_CLASS: Final = "1.2.840.10008.4.2"

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
# Data sets that only point at their pixel data, which the sender would have to keep serving.
JPIP_TRANSFER_SYNTAXES: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.94",
        "1.2.840.10008.1.2.4.95",
        "1.2.840.10008.1.2.4.204",
        "1.2.840.10008.1.2.4.205",
    }
)

# Derived from a random UUID (PS3.5 B.2), fixed for the life of the project.
IMPLEMENTATION_CLASS_UID: Final = "2.25.38390698104501948587209265606003860014"
IMPLEMENTATION_VERSION_NAME: Final = "FASTSCP_010"

# Named "Storage" in the dictionary, but nothing a C-STORE can carry (PS3.4 Annex J, PS3.10 8.6).
_NOT_STORED: Final = frozenset(
    {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}
)
_SERVICE_KINDS: Final = frozenset({"SOP Class", "Meta SOP Class", "Service Class"})
_SYNTAX_KINDS: Final = frozenset({"Transfer Syntax"})

_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_UID_PATTERN: Final = re.compile(r"[0-9.*]*[0-9.][0-9.*]*")


class UidSelectionError(ValueError):
    """A name in a list of SOP classes or transfer syntaxes that selects nothing usable."""


def is_uid(text: str) -> bool:
    """Whether this is a UID to be written down: components of digits, at most 64 characters.

    The codec's `uid_grade` says what a received UID is good for.
    Source: PS3.5 9.1.
    """
    return len(text) <= LONGEST_UID and _UID.fullmatch(text) is not None


class SopClassRule(msgspec.Struct, frozen=True):
    """Which abstract syntaxes are let in. Plain data: it goes to the workers as it is.

    any: also private classes and those the dictionary does not know.
    storage: also an unknown class that its requestor declares to be storage (sub-item 0x57).
    accepted, patterns: UIDs, and UID patterns with `*`. refused: known services that are not
    storage; no other member lets one of these in.
    """

    any: bool = True
    storage: bool = False
    accepted: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()

    def accepts(self, uid: str, *, declared_storage: bool = False) -> bool:
        """Whether a proposed abstract syntax is let in. Verification always is."""
        if uid == VERIFICATION or uid in self.accepted:
            return True
        if uid in self.refused:
            return False
        if self.any or (self.storage and declared_storage):
            return True
        return _matches(uid, self.patterns)


class TransferSyntaxRule(msgspec.Struct, frozen=True):
    """Which transfer syntaxes are let in. Plain data: it goes to the workers as it is."""

    any: bool = True
    accepted: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    def accepts(self, uid: str) -> bool:
        """Whether a proposed transfer syntax is let in.

        Implicit VR Little Endian always is: every requestor may count on it.
        Source: PS3.5 10.1.
        """
        return (
            self.any
            or uid == IMPLICIT_VR_LITTLE_ENDIAN
            or uid in self.accepted
            or _matches(uid, self.patterns)
        )


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    # Neighbouring stars are one star: the matcher then has no needless ways to backtrack.
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)))


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(_expression(pattern).fullmatch(text) for pattern in patterns)


@cache
def _dictionary() -> Mapping[str, tuple[str, str, str, str, str]]:
    """UID to name, kind, information, "Retired" or "", and keyword.

    It is a file of its own in pydicom. The whole package costs 200 ms and 50 MB more, so it is
    imported only where that file is no longer there.
    """
    package = find_spec("pydicom")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "_uid_dict.py")
        spec = spec_from_file_location(f"{__name__}._dictionary", file) if file.is_file() else None
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            if isinstance(found := getattr(module, "UID_dictionary", None), dict):
                return found
    from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

    return UID_dictionary


def storage_sop_classes() -> dict[str, str]:
    """The storage SOP classes of the dictionary, UID to keyword, retired ones too.

    Found by name: several live outside 1.2.840.10008.5.1.4.1.1.
    Source: PS3.6 Annex A, PS3.4 B.5.
    """
    return {
        uid: entry[4]
        for uid, entry in _dictionary().items()
        if entry[1] == "SOP Class" and "Storage" in entry[0] and uid not in _NOT_STORED
    }


def known_non_storage_sop_classes() -> dict[str, str]:
    """The services of the dictionary that a storage SCP does not provide, UID to keyword.

    SOP classes whose name was withdrawn are left out: what they were cannot be told.
    Source: PS3.6 Annex A.
    """
    storage = storage_sop_classes()
    return {
        uid: entry[4]
        for uid, entry in _dictionary().items()
        if entry[1] in _SERVICE_KINDS and entry[0] and uid not in storage and uid != VERIFICATION
    }


def transfer_syntaxes() -> dict[str, str]:
    """The transfer syntaxes of the dictionary, UID to keyword, retired ones too.

    Source: PS3.6 Annex A.
    """
    return {uid: entry[4] for uid, entry in _dictionary().items() if entry[1] in _SYNTAX_KINDS}


def uid_names() -> dict[str, str]:
    """What the log calls SOP classes, services and transfer syntaxes: UID to keyword.

    Cost: reads the dictionary of pydicom.
    """
    found = storage_sop_classes() | known_non_storage_sop_classes() | transfer_syntaxes()
    found[VERIFICATION] = "Verification"
    return {uid: keyword for uid, keyword in found.items() if keyword}


def sop_class_rule(names: Iterable[str]) -> SopClassRule:
    """The rule for a list of `any`, `storage`, keywords, UIDs, and either with `*` in it.

    Raises UidSelectionError naming the first entry that selects nothing we can store.
    Cost: reads the dictionary of pydicom.
    """
    storage = storage_sop_classes()
    other = known_non_storage_sop_classes()
    chosen = _Selection("SOP class", storage | {VERIFICATION: "Verification"})
    with_any = with_storage = False
    for name in names:
        if name.lower() == "any":
            with_any = True
        elif name.lower() == "storage":
            with_storage = True
            chosen.uids.update(storage)
        elif name in other or (name and name in other.values()):
            raise UidSelectionError(
                f"{name!r} is not a storage class, and no service of fastscp; take it out"
            )
        else:
            chosen.add(name)
    return SopClassRule(
        any=with_any,
        storage=with_storage,
        accepted=frozenset(chosen.uids),
        patterns=tuple(chosen.patterns),
        refused=frozenset(other),
    )


def transfer_syntax_rule(names: Iterable[str]) -> TransferSyntaxRule:
    """The rule for a list of `any`, keywords, UIDs, and either with `*` in it.

    Raises UidSelectionError naming the first entry that selects nothing.
    Cost: reads the dictionary of pydicom.
    """
    chosen = _Selection("transfer syntax", transfer_syntaxes())
    with_any = False
    for name in names:
        if name.lower() == "any":
            with_any = True
        else:
            chosen.add(name)
    return TransferSyntaxRule(
        any=with_any, accepted=frozenset(chosen.uids), patterns=tuple(chosen.patterns)
    )


def sop_class_uid(name: str) -> str:
    """The UID of any SOP class, from its keyword; a UID stays what it is.

    Raises UidSelectionError. Cost: a keyword reads the dictionary of pydicom.
    """
    if is_uid(name):
        return name
    known = {uid: one[4] for uid, one in _dictionary().items() if one[1] in _SERVICE_KINDS}
    return _Selection("SOP class", known).only(name)


def transfer_syntax_uid(name: str) -> str:
    """The UID of a transfer syntax, from its keyword; a UID stays what it is.

    Raises UidSelectionError. Cost: a keyword reads the dictionary of pydicom.
    """
    return name if is_uid(name) else _Selection("transfer syntax", transfer_syntaxes()).only(name)


class _Selection:
    """UIDs and UID patterns gathered from an operator's list, over one part of the dictionary."""

    def __init__(self, kind: str, known: Mapping[str, str]) -> None:
        self.kind = kind
        self.kinds = _SYNTAX_KINDS if kind == "transfer syntax" else _SERVICE_KINDS
        self.by_keyword = {keyword: uid for uid, keyword in known.items() if keyword}
        self.uids: set[str] = set()
        self.patterns: list[str] = []

    def add(self, name: str) -> None:
        if "*" in name and (_UID_PATTERN.fullmatch(name) or not name.strip("*")):
            # Kept as a pattern: it may select private UIDs, which no dictionary lists.
            self.patterns.append(name)
        elif "*" in name:
            found = [uid for word, uid in self.by_keyword.items() if _matches(word, (name,))]
            if not found:
                raise UidSelectionError(
                    f"{name!r} matches no {self.kind} keyword; give one of PS3.6 Annex A"
                )
            self.uids.update(found)
        elif name in self.by_keyword:
            self.uids.add(self.by_keyword[name])
        elif is_uid(name):
            self._refuse_other_kind(name)
            self.uids.add(name)
        else:
            raise self._unknown(name)

    def only(self, keyword: str) -> str:
        """The UID with this keyword. Raises UidSelectionError."""
        if keyword not in self.by_keyword:
            raise self._unknown(keyword)
        return self.by_keyword[keyword]

    def _refuse_other_kind(self, uid: str) -> None:
        # One that the dictionary does not know may be private, or newer.
        _name, kind, _more, _retired, keyword = _dictionary().get(uid, ("", "", "", "", ""))
        if kind and kind not in self.kinds:
            raise UidSelectionError(
                f"{uid!r} is {keyword or 'registered'}, of the kind '{kind}', and no {self.kind}; "
                f"take it out"
            )

    def _unknown(self, name: str) -> UidSelectionError:
        return UidSelectionError(
            f"{name!r} is neither a UID nor a {self.kind} keyword{self._hint(name)}"
        )

    def _hint(self, name: str) -> str:
        import difflib

        lowered = {word.lower(): word for word in self.by_keyword}
        close = difflib.get_close_matches(name.lower(), lowered, n=3)
        if not close and name:
            # The beginning of some: the shortest are meant most often.
            begun = (word for word in lowered if word.startswith(name.lower()))
            close = sorted(begun, key=lambda word: (len(word), word))[:3]
        if close:
            return f"; did you mean {' or '.join(lowered[word] for word in close)}?"
        return "; give keywords of PS3.6 Annex A, or UIDs"

"""The header of a stored file held against its journal line.

That is the preamble, the prefix and the File Meta Information (PS3.10 7.1).

The service writes a header from what stands in the line, and from what is the same in all of them.
So the header can be built anew and compared byte for byte.

Two things a line may not tell. An instance that was there already (`duplicate` is `identical`) may
have come from somebody else the first time, and that first line may be lost: the AE titles are not
known then. And an adopted file may have the header of another program: of that one only the values
that are in the line are known.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp.log import printable
from fastscp.titles import title_meant
from fastscp.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from fastscp_ext import build_meta, meta_values

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Header", "header_difference", "header_of"]

# Every name that a version of fastscp has written, the newest first: files of older versions are in
# the stores.
_VERSIONS: Final = (IMPLEMENTATION_VERSION_NAME,)
_OURS: Final = IMPLEMENTATION_CLASS_UID.encode("ascii")

_CLASS: Final = 0x0002
_INSTANCE: Final = 0x0003
_SYNTAX: Final = 0x0010
_IMPLEMENTATION: Final = 0x0012
_SENDER: Final = 0x0016
_RECEIVER: Final = 0x0018
# What is told by its value; of all else the byte is told (PS3.10 Table 7.1-1).
_NAMES: Final = {
    _CLASS: "Media Storage SOP Class UID",
    _INSTANCE: "Media Storage SOP Instance UID",
    _SYNTAX: "Transfer Syntax UID",
    _IMPLEMENTATION: "Implementation Class UID",
    0x0013: "Implementation Version Name",
    _SENDER: "Source Application Entity Title",
    0x0017: "Sending Application Entity Title",
    _RECEIVER: "Receiving Application Entity Title",
}


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What the line of the instance that wrote a file tells of its header.

    calling_ae, called_ae: as in the line; None if not known, "" if the header has no such title.
    adopted: nobody knows which program wrote it.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    calling_ae: str | None
    called_ae: str | None
    adopted: bool


def header_of(fact: Mapping[str, Any]) -> Header | None:
    """What a fact tells of the header of its file, None if that is too little to build one."""
    names = ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
    uids = [fact[name] for name in names if isinstance(fact.get(name), str) and fact[name]]
    if len(uids) != len(names):
        return None
    # A line that says again what a path holds has no titles where they were never known.
    is_first = fact.get("duplicate") not in ("identical", "restored") or (
        fact.get("duplicate") == "restored" and "calling_ae" in fact
    )
    return Header(
        sop_class=uids[0],
        sop_instance=uids[1],
        transfer_syntax=uids[2],
        calling_ae=str(fact.get("calling_ae", "")) if is_first else None,
        called_ae=str(fact.get("called_ae", "")) if is_first else None,
        adopted=fact.get("event") == "adopted",
    )


def header_difference(head: bytes, header: Header) -> tuple[str, int]:
    """How the beginning of a file differs from the header that belongs there; "": it does not.

    Also returns the bytes of that header; 0 if only the file itself can tell its length.
    """
    found = meta_values(head)
    possible = _possible(header, found)
    for expected in possible:
        if head.startswith(expected):
            return "", len(expected)
    if header.adopted and found.get(_IMPLEMENTATION) != _OURS:
        return _other_value(found, _values_of(header, found)), 0
    return _explain(head, possible[0], found), len(possible[0])


def _possible(header: Header, found: Mapping[int, bytes]) -> list[bytes]:
    """All that the service may have written, most likely first."""
    senders, receivers = (
        () if title is None else title_meant(title)
        for title in (header.calling_ae, header.called_ae)
    )
    return [
        build_meta(
            header.sop_class.encode("utf-8"),
            header.sop_instance.encode("utf-8"),
            header.transfer_syntax.encode("utf-8"),
            _OURS,
            version.encode("ascii"),
            sender,
            receiver,
        )
        for version, sender, receiver in product(
            _VERSIONS,
            senders or (found.get(_SENDER, b""),),
            receivers or (found.get(_RECEIVER, b""),),
        )
    ]


def _values_of(header: Header, found: Mapping[int, bytes]) -> dict[int, tuple[bytes, ...]]:
    """The values of which a header of another program must have one each.

    Where such a header has no SOP class or instance, the line has that of the data set.
    """
    values: dict[int, tuple[bytes, ...]] = {
        number: (uid.encode("utf-8"),)
        for number, uid in ((_CLASS, header.sop_class), (_INSTANCE, header.sop_instance))
        if number in found
    }
    values[_SYNTAX] = (header.transfer_syntax.encode("utf-8"),)
    for number, title in ((_SENDER, header.calling_ae), (_RECEIVER, header.called_ae)):
        if title and (meant := title_meant(title)):
            values[number] = meant
    return values


def _other_value(found: Mapping[int, bytes], expected: Mapping[int, tuple[bytes, ...]]) -> str:
    """Which value is another one; "" if none is."""
    for number, name in _NAMES.items():
        value = found.get(number, b"").strip(b" ")
        wanted = [one.strip(b" ") for one in expected.get(number, ())]
        if wanted and value not in wanted:
            said, written = (printable(one) or "nothing" for one in (value, wanted[0]))
            return f"the header has {said} as {name}, the service wrote {written}"
    return ""


def _explain(head: bytes, expected: bytes, found: Mapping[int, bytes]) -> str:
    values = {number: b"" for number in _NAMES if number in found} | meta_values(expected)
    if found and (other := _other_value(found, {at: (one,) for at, one in values.items()})):
        return other
    at = next((at for at in range(len(expected)) if head[at : at + 1] != expected[at : at + 1]), 0)
    if at >= len(head):
        return f"the file ends inside its header, after {len(head)} bytes"
    return f"byte {at} of the header is {head[at]:02X}, the service wrote {expected[at]:02X}"

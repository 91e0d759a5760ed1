"""Whole conversations: long, repetitive and pipelined, and mutated ones of them.

A conversation is a list of pieces, most of them messages. `make` draws them from a grammar, and
`mutate` repeats runs of them up to a thousand times, cuts, splices, changes lengths and swaps
contexts. `due` says what must be answered, and in which order: a plain reading of the bytes that
has them all at hand. Everything comes from a `random.Random`, so a seed names a conversation.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp_ext import CommandError, decode_command, encode_pdata
from tests.floods import FLOODS, command_of, instance, pdv, text, tiny_store
from tests.kit import RELEASE_RQ, abort, data_set, element, pdu

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["CONTEXTS", "Due", "due", "make"]

# Of conversations: storage in Explicit and Implicit VR Little Endian, deflated, and Verification.
CONTEXTS: Final = (1, 3, 7, 9)
PDATA_CAP: Final = 1 << 20
COMMAND_CAP: Final = 65536
C_STORE: Final = 0x0001
C_CANCEL: Final = 0x0FFF
NO_DATA_SET: Final = 0x0101


# The grammar -------------------------------------------------------------------------------------


def _id(rng: random.Random) -> int:
    return rng.randrange(65536)


def _sop(rng: random.Random) -> str:
    # Few names, so that paths meet again, also while the one before is on its way.
    return f"1.{rng.randrange(12)}" if rng.randrange(3) else f"{rng.randrange(10**6):06}"


def _tiny(rng: random.Random) -> bytes:
    more = b"" if rng.randrange(3) else element(0x00204000, b"LT", rng.randbytes(2).hex().encode())
    return tiny_store(_id(rng), _sop(rng), instance(more))


def _fragmented(rng: random.Random) -> bytes:
    """A C-STORE in PDVs and PDUs of any size, with empty fragments between and at the end."""
    data = data_set(sop=_sop(rng), pixels=rng.choice((2, 512, 9000)), seed=rng.randrange(4))
    context = rng.choice((1, 1, 3))
    command = command_of(C_STORE, _id(rng), data_set=True) + text(0x1000, _sop(rng).encode())
    pdvs = [(context, 3, command)]
    step = rng.choice((1, 7, 100, 4000)) if len(data) < 3000 else 4000
    for at in range(0, len(data), step):
        if rng.randrange(9) == 0:
            pdvs.append((context, 0, b""))
        pdvs.append((context, 0, data[at : at + step]))
    if rng.randrange(2):
        pdvs.append((context, 2, b""))
    else:
        pdvs[-1] = (context, 2, pdvs[-1][2])
    cut = rng.choice((1, 2, 50))
    return b"".join(encode_pdata(pdvs[n : n + cut]) for n in range(0, len(pdvs), cut))


def _flood(rng: random.Random) -> bytes:
    chosen = FLOODS[rng.choice(sorted(FLOODS))]
    return pdu(4, b"".join(rng.choice(chosen) for _ in range(rng.randrange(1, 40))))


def _echo(rng: random.Random) -> bytes:
    return pdu(4, pdv(3, command_of(0x0030, _id(rng)), 9))


def _unanswered(rng: random.Random) -> bytes:
    field = rng.choice((C_CANCEL, 0x8030, 0x8001))
    command = command_of(field, _id(rng), data_set=rng.randrange(4) == 0)
    data = pdv(2, b"xy") if command.endswith(b"\1\0") else b""
    return pdu(4, pdv(3, command) + data)


def _strange(rng: random.Random) -> bytes:
    """An operation there is not, with a data set."""
    command = command_of(0x0140, _id(rng), data_set=True)
    return pdu(4, pdv(3, command)) + pdu(4, pdv(2, rng.randbytes(rng.randrange(200))))


GRAMMAR: Final[tuple[tuple[int, Callable[[random.Random], bytes]], ...]] = (
    (30, _tiny), (8, _fragmented), (8, _flood), (8, _echo), (3, _unanswered), (3, _strange),
)  # fmt: skip


def make(seed: int, most: int) -> bytes:
    """A conversation of at most so many bytes, about half of them mutated."""
    rng = random.Random(seed)
    makers = [maker for weight, maker in GRAMMAR for _ in range(weight)]
    # One kind of message alone now and then, which floods are.
    if rng.randrange(4) == 0:
        makers = [rng.choice(makers)]
    pieces = [rng.choice(makers)(rng) for _ in range(rng.randrange(1, 60))]
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        rng.choice(MUTATIONS)(rng, pieces)
    if rng.randrange(3):
        _repeat(rng, pieces)
    if rng.randrange(6) == 0:
        pieces.append(rng.choice((RELEASE_RQ, abort(0, 0), b"\x09\0\0\0\0\4abcd")))
    return b"".join(pieces)[:most]


# Mutations ---------------------------------------------------------------------------------------


def _repeat(rng: random.Random, pieces: list[bytes]) -> None:
    at = rng.randrange(len(pieces))
    run = pieces[at : at + rng.choice((1, 1, 2, 5))]
    pieces[at:at] = run * rng.choice((3, 70, 300, 1000))


def _cut(rng: random.Random, pieces: list[bytes]) -> None:
    at = rng.randrange(len(pieces))
    piece = pieces[at]
    begin, end = sorted(rng.randrange(len(piece) + 1) for _ in range(2))
    pieces[at] = piece[:begin] + piece[end:]


def _splice(rng: random.Random, pieces: list[bytes]) -> None:
    """The head of one piece before the tail of another."""
    one, other = rng.choice(pieces), rng.choice(pieces)
    pieces[rng.randrange(len(pieces))] = (
        one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]
    )


def _length(rng: random.Random, pieces: list[bytes]) -> None:
    """Another length of a PDU or of the PDV that begins it."""
    at = rng.randrange(len(pieces))
    place = rng.choice((2, 6))
    if len(pieces[at]) >= place + 4:
        (length,) = struct.unpack_from(">I", pieces[at], place)
        length = rng.choice(
            (min(length + 1, 0xFFFFFFFF), max(length - 1, 0), 0, 2, 6, 1 << 20, 0xFFFFFFFF)
        )
        pieces[at] = pieces[at][:place] + struct.pack(">I", length) + pieces[at][place + 4 :]


def _swap_context(rng: random.Random, pieces: list[bytes]) -> None:
    at = rng.randrange(len(pieces))
    if len(pieces[at]) > 10:
        context = rng.choice((*CONTEXTS, 5))
        pieces[at] = pieces[at][:10] + bytes((context,)) + pieces[at][11:]


def _flip(rng: random.Random, pieces: list[bytes]) -> None:
    at = rng.randrange(len(pieces))
    if pieces[at]:
        place = rng.randrange(len(pieces[at]))
        pieces[at] = pieces[at][:place] + rng.randbytes(1) + pieces[at][place + 1 :]


def _move(rng: random.Random, pieces: list[bytes]) -> None:
    pieces.insert(rng.randrange(len(pieces)), pieces.pop(rng.randrange(len(pieces))))


MUTATIONS: Final = (_cut, _splice, _length, _swap_context, _flip, _move, _repeat)


# What must come of it ----------------------------------------------------------------------------


class Due(NamedTuple):
    """What a conversation has to lead to.

    answers: Message ID and command field of each response, in the order of the requests.
    stores: C-STOREs that are complete. ended: by a release, an abort, or what breaks the protocol.
    """

    answers: list[tuple[int, int]]
    stores: int
    ended: bool


class _Broken(Exception):  # noqa: N818 - a finding about the bytes
    """The association ends here."""


def due(data: bytes, contexts: Collection[int] = CONTEXTS, pdata_cap: int = PDATA_CAP) -> Due:
    """Read a conversation; PS3.8 9.3.1, 9.3.5 and Annex E, PS3.7 9.3.

    pdata_cap: bytes of a P-DATA-TF that are put up with.
    """
    reader = _Conversation(data, contexts, pdata_cap)
    try:
        ended = reader.read()
    except _Broken:
        ended = True
    return Due(reader.answers, reader.stores, ended)


class _Conversation:
    def __init__(self, data: bytes, contexts: Collection[int], pdata_cap: int) -> None:
        self._data = data
        self._pdata_cap = pdata_cap
        self._contexts = contexts
        self.answers: list[tuple[int, int]] = []
        self.stores = 0
        # Of the message in hand: its context, its command set so far, what it asks for.
        self._context: int | None = None
        self._command = bytearray()
        self._request: tuple[int, int] | None = None
        self._in_data = False

    def read(self) -> bool:
        """Whether a PDU came that ends the association, rather than the bytes."""
        at, data = 0, self._data
        while at + 6 <= len(data):
            kind, _reserved, length = struct.unpack_from(">BBI", data, at)
            if kind in (5, 7) and length <= 64:
                return bool(at + 6 + length <= len(data))
            if kind != 4 or not 6 <= length <= self._pdata_cap:
                raise _Broken
            at = self._pdata(at + 6, at + 6 + length)
        return False

    def _pdata(self, at: int, end: int) -> int:
        """Where the next PDU begins; past the end where these bytes do not suffice."""
        data = self._data
        while at < end:
            if end - at < 6:
                raise _Broken
            if at + 6 > len(data):
                return end
            length, context, control = struct.unpack_from(">IBB", data, at)
            at += 6
            if length < 2 or at + length - 2 > end:
                raise _Broken
            self._check(context, is_command=bool(control & 1), size=length - 2)
            fragment = data[at : at + length - 2]
            at += length - 2
            if len(fragment) == length - 2:
                self._fragment(fragment, is_command=bool(control & 1), is_last=bool(control & 2))
        return at

    def _check(self, context: int, *, is_command: bool, size: int) -> None:
        if self._context is None:
            if context not in self._contexts:
                raise _Broken
        elif context != self._context:
            raise _Broken
        if is_command is self._in_data:
            raise _Broken
        if is_command and len(self._command) + size > COMMAND_CAP:
            raise _Broken
        self._context = context

    def _fragment(self, fragment: bytes, *, is_command: bool, is_last: bool) -> None:
        if is_command:
            self._command += fragment
            if is_last:
                self._commanded()
                if not self._in_data:
                    self._ended()
        elif is_last:
            self._in_data = False
            self._ended()

    def _commanded(self) -> None:
        try:
            command = decode_command(bytes(self._command))
        except CommandError as error:
            raise _Broken from error
        self._command.clear()
        field, message_id = command.command_field, command.message_id
        if field is None or command.data_set_type is None:
            raise _Broken
        self._in_data = command.data_set_type != NO_DATA_SET
        if field & 0x8000 or field == C_CANCEL:
            self._request = None
            return
        if message_id is None:
            raise _Broken
        self._request = (message_id, field | 0x8000)

    def _ended(self) -> None:
        self._context = None
        if self._request is not None:
            self.answers.append(self._request)
            self.stores += self._request[1] == C_STORE | 0x8000
            self._request = None

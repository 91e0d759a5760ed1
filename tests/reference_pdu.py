"""PDUs and command sets decoded slowly and plainly: the oracle for the codec.

Where the codec walks with a cursor, this splits everything into lists first and looks values up in
them. It must accept and refuse the same bytes, with the same values; where and why is left open.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

from fastscp_ext.wire.pdus import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsyncWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    UserIdentity,
    UserInformation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Items", "Refused", "command_elements", "pdu", "split_items", "split_stream"]

Items: TypeAlias = list[tuple[int, bytes]]


class Refused(Exception):  # noqa: N818, a verdict rather than a fault
    """The bytes cannot be used."""


def need(condition: bool) -> None:
    if not condition:
        raise Refused


def split_stream(stream: bytes) -> list[bytes]:
    """The whole PDUs at the start of a byte stream, headers included."""
    pdus = []
    while len(stream) >= 6 and len(stream) >= 6 + int.from_bytes(stream[2:6], "big"):
        size = 6 + int.from_bytes(stream[2:6], "big")
        pdus.append(stream[:size])
        stream = stream[size:]
    return pdus


def split_items(raw: bytes) -> Items:
    items = []
    while len(raw) > 3:
        kind, size = struct.unpack(">BxH", raw[:4])
        need(len(raw) >= 4 + size)
        items.append((kind, raw[4 : 4 + size]))
        raw = raw[4 + size :]
    need(not raw.strip(b"\0"))
    return items


def of_type(items: Items, kind: int) -> list[bytes]:
    return [value for found, value in items if found == kind]


def uid(raw: bytes) -> str:
    return raw.decode("latin-1").strip("\0 \r\n")


def first_uid(items: Items, kind: int) -> str | None:
    return next(map(uid, of_type(items, kind)), None)


def counted(raw: bytes, count: int) -> tuple[list[bytes], bytes]:
    """`count` values behind a 16 bit length each, and what follows them."""
    values = []
    for _ in range(count):
        need(len(raw) >= 2)
        size = int.from_bytes(raw[:2], "big")
        need(len(raw) >= 2 + size)
        values.append(raw[2 : 2 + size])
        raw = raw[2 + size :]
    return values, raw


def role(raw: bytes) -> RoleSelection:
    (sop_class,), roles = counted(raw, 1)
    need(len(roles) >= 2)
    return RoleSelection(uid(sop_class), roles[0] > 0, roles[1] > 0)


def extended(raw: bytes) -> ExtendedNegotiation:
    (sop_class,), information = counted(raw, 1)
    return ExtendedNegotiation(uid(sop_class), information)


def common_extended(raw: bytes) -> CommonExtendedNegotiation:
    (sop_class, service_class, rest), _ = counted(raw, 3)
    related = []
    while rest:
        (one,), rest = counted(rest, 1)
        related.append(uid(one))
    return CommonExtendedNegotiation(uid(sop_class), uid(service_class), tuple(related))


def identity(raw: bytes) -> UserIdentity:
    need(len(raw) >= 2)
    (primary, secondary), _ = counted(raw[2:], 2)
    return UserIdentity(raw[0], raw[1] > 0, primary, secondary)


def user_information(raw: bytes, is_rq: bool) -> UserInformation:
    items = split_items(raw)
    lengths = [struct.unpack(">L", v)[0] for v in of_type(items, 0x51) if len(v) == 4]
    windows = [struct.unpack(">HH", v) for v in of_type(items, 0x53) if len(v) == 4]
    identities = list(map(identity, of_type(items, 0x58))) if is_rq else []
    responses = [] if is_rq else [counted(v, 1)[0][0] for v in of_type(items, 0x59)]
    return UserInformation(
        max_pdu_length=lengths[0] if lengths else None,
        implementation_class_uid=first_uid(items, 0x52),
        implementation_version_name=first_uid(items, 0x55),
        async_window=AsyncWindow(*windows[0]) if windows else None,
        roles=tuple(map(role, of_type(items, 0x54))),
        extended=tuple(map(extended, of_type(items, 0x56))),
        common_extended=tuple(map(common_extended, of_type(items, 0x57))) if is_rq else (),
        identity=identities[0] if identities else None,
        identity_response=responses[0] if responses else None,
    )


def context_items(raw: bytes) -> Items:
    need(len(raw) >= 4)
    items = split_items(raw[4:])
    need(len(of_type(items, 0x40)) <= 256)
    return items


def proposals(contexts: list[bytes]) -> int:
    return sum(len(of_type(context_items(context), 0x40)) for context in contexts)


def context_rq(raw: bytes) -> PresentationContextRQ:
    items = context_items(raw)
    return PresentationContextRQ(
        raw[0], first_uid(items, 0x30) or "", tuple(map(uid, of_type(items, 0x40)))
    )


def context_ac(raw: bytes) -> PresentationContextAC:
    items = context_items(raw)
    return PresentationContextAC(raw[0], raw[2], first_uid(items, 0x40) or "")


def associate_rq(body: bytes) -> AssociateRQ:
    need(68 <= len(body) <= 1024 * 1024)
    version, called, calling, reserved = struct.unpack(">Hxx16s16s32s", body[:68])
    items = split_items(body[68:])
    contexts = of_type(items, 0x20)
    need(len(contexts) <= 256)
    need(proposals(contexts) <= 8192)
    information = [user_information(v, True) for v in of_type(items, 0x50)[:1]]
    return AssociateRQ(
        called_ae=called,
        calling_ae=calling,
        application_context=first_uid(items, 0x10),
        presentation_contexts=tuple(map(context_rq, contexts)),
        user_information=information[0] if information else None,
        protocol_version=version,
        reserved=reserved,
    )


def associate_ac(body: bytes) -> AssociateAC:
    need(68 <= len(body) <= 1024 * 1024)
    version, called, calling, reserved = struct.unpack(">Hxx16s16s32s", body[:68])
    items = split_items(body[68:])
    contexts = of_type(items, 0x21)
    need(len(contexts) <= 256)
    need(proposals(contexts) <= 8192)
    information = [user_information(v, False) for v in of_type(items, 0x50)[:1]]
    return AssociateAC(
        called_ae=called,
        calling_ae=calling,
        application_context=first_uid(items, 0x10),
        presentation_contexts=tuple(map(context_ac, contexts)),
        user_information=information[0] if information else None,
        protocol_version=version,
        reserved=reserved,
    )


def associate_rj(body: bytes) -> AssociateRJ:
    need(len(body) == 4)
    return AssociateRJ(*body[1:])


def release_rq(body: bytes) -> ReleaseRQ:
    need(len(body) <= 64)
    return ReleaseRQ()


def release_rp(body: bytes) -> ReleaseRP:
    need(len(body) <= 64)
    return ReleaseRP()


def abort(body: bytes) -> Abort:
    need(len(body) <= 64)
    return Abort(*body.ljust(4, b"\0")[2:4])


def pdata(body: bytes) -> list[tuple[int, int, bytes]]:
    need(body != b"")
    pdvs = []
    while body:
        need(len(body) >= 4)
        size = int.from_bytes(body[:4], "big")
        need(2 <= size <= len(body) - 4)
        pdvs.append((body[4], body[5], body[6 : 4 + size]))
        body = body[4 + size :]
    return pdvs


BODIES: dict[int, Callable[[bytes], PDU | list[tuple[int, int, bytes]]]] = {
    1: associate_rq,
    2: associate_ac,
    3: associate_rj,
    4: pdata,
    5: release_rq,
    6: release_rp,
    7: abort,
}


def pdu(data: bytes) -> PDU | list[tuple[int, int, bytes]]:
    """What `fastscp_ext.wire.pdu.decode_pdu` returns for the same bytes; raises Refused."""
    need(len(data) >= 6)
    kind, size = struct.unpack(">BxL", data[:6])
    need(kind in BODIES and size == len(data) - 6)
    return BODIES[kind](data[6:])


def elements_in_order(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while raw:
        need(len(raw) >= 8)
        group, element, size = struct.unpack("<HHL", raw[:8])
        need(group == 0 and size <= len(raw) - 8)
        yield element, raw[8 : 8 + size]
        raw = raw[8 + size :]


def command_elements(raw: bytes) -> dict[int, bytes]:
    """Element number to value of the first occurrence; raises Refused."""
    # Filled from the back, so that the first occurrence is written last.
    return dict(reversed(list(elements_in_order(raw))))

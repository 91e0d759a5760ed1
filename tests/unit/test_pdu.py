"""Upper layer PDUs: bytes written by hand, a plain decoder, another stack, real requests."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp_ext.errors import CodecError, PDUError, PDULimitError
from fastscp_ext.wire.pdu import (
    decode_abort,
    decode_associate_ac,
    decode_associate_rj,
    decode_associate_rq,
    decode_pdata,
    decode_pdu,
    decode_release_rp,
    decode_release_rq,
    encode_abort,
    encode_associate_ac,
    encode_associate_rj,
    encode_associate_rq,
    encode_pdata,
    encode_release_rp,
    encode_release_rq,
)
from fastscp_ext.wire.pdus import (
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
    ae_title,
)
from tests import reference_pdu, streams, wire

if TYPE_CHECKING:
    from collections.abc import Callable

many = settings(max_examples=200, deadline=None, derandomize=True)

RECEIVER = b"RECEIVER        "
SENDER = b"SENDER          "
APPLICATION = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"

RQ_ECHO = AssociateRQ(
    called_ae=RECEIVER,
    calling_ae=SENDER,
    application_context=APPLICATION,
    presentation_contexts=(PresentationContextRQ(1, VERIFICATION, (IMPLICIT_LE,)),),
    user_information=UserInformation(
        max_pdu_length=16384,
        implementation_class_uid="1.2.3.4",
        implementation_version_name="MADE_UP",
    ),
)
AC_ECHO = AssociateAC(
    called_ae=RECEIVER,
    calling_ae=SENDER,
    application_context=APPLICATION,
    presentation_contexts=(PresentationContextAC(1, 0, IMPLICIT_LE),),
    user_information=UserInformation(max_pdu_length=131072, implementation_class_uid="1.2.3.9"),
)
MEANINGS = {
    "ASSOCIATE_RQ_ECHO": RQ_ECHO,
    "ASSOCIATE_RQ_BARE": AssociateRQ(RECEIVER, SENDER, None, (), None),
    "ASSOCIATE_RQ_FULL": AssociateRQ(
        called_ae=RECEIVER,
        calling_ae=SENDER,
        application_context=APPLICATION,
        presentation_contexts=(
            PresentationContextRQ(1, CT, (EXPLICIT_LE, IMPLICIT_LE)),
            PresentationContextRQ(255, "1.2.3.4.5", ("1.2.3.4.6",)),
        ),
        user_information=UserInformation(
            max_pdu_length=0,
            implementation_class_uid="1.2.3.4",
            implementation_version_name="MADE_UP",
            async_window=AsyncWindow(8, 1),
            roles=(RoleSelection(CT, True, False),),
            extended=(ExtendedNegotiation(CT, b"\2\0\3\0\0\0"),),
            common_extended=(
                CommonExtendedNegotiation("1.2.3.4.5", "1.2.840.10008.4.2", ("1.", "1.2")),
            ),
            identity=UserIdentity(2, True, b"nurse", b"ward"),
        ),
    ),
    "ASSOCIATE_RQ_ODD": AssociateRQ(
        called_ae=b"RECEIVER\0\0\0\0junk",
        calling_ae=b" " * 16,
        application_context=APPLICATION,
        presentation_contexts=(
            PresentationContextRQ(2, "1.2.3.4", ("1.2",)),
            PresentationContextRQ(2, "1.3", ()),
            PresentationContextRQ(0, "", ()),
        ),
        user_information=UserInformation(
            max_pdu_length=32768,
            implementation_class_uid="1.2.3.4",
            implementation_version_name="OLD\xe9",
        ),
        protocol_version=0x8003,
        reserved=b"\xee" * 32,
    ),
    "ASSOCIATE_AC_ECHO": AC_ECHO,
    "ASSOCIATE_AC_FULL": AssociateAC(
        called_ae=RECEIVER,
        calling_ae=SENDER,
        application_context=APPLICATION,
        presentation_contexts=(
            PresentationContextAC(1, 0, EXPLICIT_LE),
            PresentationContextAC(255, 3, ""),
        ),
        user_information=UserInformation(
            max_pdu_length=131072,
            implementation_class_uid="1.2.3.9",
            async_window=AsyncWindow(8, 1),
            roles=(RoleSelection(CT, True, False),),
            extended=(ExtendedNegotiation(CT, b"\2\0\3\0\0\0"),),
            identity_response=b"yes",
        ),
    ),
    "ASSOCIATE_RJ": AssociateRJ(2, 3, 1),
    "RELEASE_RQ": ReleaseRQ(),
    "RELEASE_RQ_EMPTY": ReleaseRQ(),
    "RELEASE_RP": ReleaseRP(),
    "ABORT_USER": Abort(0, 0),
    "ABORT_PROVIDER": Abort(2, 6),
    "ABORT_EMPTY": Abort(0, 0),
    "PDATA_ECHO": [(1, 3, wire.C_ECHO_RQ)],
    "PDATA_TWO_PDVS": [(3, 0xFD, b""), (3, 2, b"\x08\x00\x05\x00")],
}
DECODERS: dict[int, Callable[[bytes], object]] = {
    1: decode_associate_rq,
    2: decode_associate_ac,
    3: decode_associate_rj,
    4: decode_pdata,
    5: decode_release_rq,
    6: decode_release_rp,
    7: decode_abort,
}


def header(kind: int, body: bytes) -> bytes:
    """A PDU whose length is right."""
    return struct.pack(">BxL", kind, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def request(*items: bytes) -> bytes:
    return header(1, wire.ASSOCIATE_RQ_BARE[6:] + b"".join(items))


def information_of(*items: bytes) -> UserInformation:
    """What a request with these sub-items of user information says."""
    found = decode_associate_rq(request(item(0x50, b"".join(items)))).user_information
    assert found is not None
    return found


def check(data: bytes) -> bool:
    """Codec and reference agree on `data`; whether they take it."""
    try:
        expected = reference_pdu.pdu(data)
    except reference_pdu.Refused:
        with pytest.raises(PDUError) as refused:
            decode_pdu(data)
        assert 0 <= refused.value.offset <= len(data)
        assert refused.value.reason in (1, 2, 6)
        return False
    assert decode_pdu(data) == expected
    return True


# --- bytes written by hand ------------------------------------------------------------------------


def test_every_pdu_of_the_wire_has_a_meaning() -> None:
    assert wire.PDUS.keys() == MEANINGS.keys()


@pytest.mark.parametrize("name", MEANINGS)
def test_decode(name: str) -> None:
    data = wire.PDUS[name]
    assert decode_pdu(data) == MEANINGS[name]
    assert DECODERS[data[0]](data) == MEANINGS[name]
    assert check(data)


@pytest.mark.parametrize("name", MEANINGS)
def test_any_buffer_will_do(name: str) -> None:
    data = wire.PDUS[name]
    changing = bytearray(data)
    decoded = decode_pdu(changing)
    assert decode_pdu(memoryview(data)) == decoded
    changing[:] = b"\xff" * len(changing)
    assert decoded == MEANINGS[name]


@pytest.mark.parametrize("name", MEANINGS)
def test_cut_anywhere_or_continued(name: str) -> None:
    data = wire.PDUS[name]
    for size in range(len(data)):
        with pytest.raises(PDUError):
            decode_pdu(data[:size])
    for tail in (b"\0", b"\0\0\0", b"\xff", data):
        with pytest.raises(PDUError):
            decode_pdu(data + tail)


@pytest.mark.parametrize("name", MEANINGS)
def test_cut_anywhere_with_a_length_that_says_so(name: str) -> None:
    data = wire.PDUS[name]
    for size in range(6, len(data)):
        check(header(data[0], data[6:size]))


@pytest.mark.parametrize("name", MEANINGS)
def test_every_byte_changed(name: str) -> None:
    data = wire.PDUS[name]
    for place in range(len(data)):
        for value in (0x00, 0x01, 0x7F, 0xFF, data[place] ^ 1, data[place] ^ 0x20):
            check(data[:place] + bytes((value,)) + data[place + 1 :])


@pytest.mark.parametrize("wanted", DECODERS)
@pytest.mark.parametrize("name", MEANINGS)
def test_another_type_than_asked_for(name: str, wanted: int) -> None:
    data = wire.PDUS[name]
    if data[0] != wanted:
        with pytest.raises(PDUError, match="unexpected PDU type") as refused:
            DECODERS[wanted](data)
        assert refused.value.reason == 2


@pytest.mark.parametrize("kind", [0x00, 0x08, 0x0B, 0x16, ord("G"), 0xFF])
def test_type_that_does_not_exist(kind: int) -> None:
    with pytest.raises(PDUError, match=f"unrecognized PDU type 0x{kind:02x}") as refused:
        decode_pdu(header(kind, bytes(4)))
    assert refused.value.reason == 1


def test_errors_of_the_codec_have_one_base() -> None:
    with pytest.raises(CodecError):
        decode_pdu(b"")


# --- what is lenient and what is not --------------------------------------------------------------


@pytest.mark.parametrize("kind", [5, 6, 7])
def test_release_and_abort_with_a_length_of_their_own(kind: int) -> None:
    for size in range(65):
        assert check(header(kind, b"\1" * size))
    assert not check(header(kind, bytes(65)))
    assert decode_abort(header(7, b"\0\0\2")) == Abort(2, 0)


def test_reject_has_exactly_4_bytes() -> None:
    for size in range(9):
        assert check(header(3, b"\1" * size)) == (size == 4)


@pytest.mark.parametrize("kind", [1, 2])
def test_associate_length_limits(kind: int) -> None:
    start = wire.ASSOCIATE_RQ_BARE[6:]
    filler = item(0x60, b"\xff" * 65531)
    assert not check(header(kind, start[:67]))
    assert check(header(kind, start))
    full = start + 15 * filler + item(0x60, bytes(1048576 - 68 - 15 * len(filler) - 4))
    assert len(full) == 1048576
    assert check(header(kind, full))
    assert not check(header(kind, full + b"\0"))


@pytest.mark.parametrize("padding", [b"\0", b"\0\0", b"\0\0\0", b"\0\0\0\0"])
def test_zero_bytes_after_the_last_item_are_padding(padding: bytes) -> None:
    assert decode_associate_rq(request(padding)) == decode_associate_rq(wire.ASSOCIATE_RQ_BARE)
    assert information_of(item(0x52, b"1.2"), padding) == UserInformation(
        implementation_class_uid="1.2"
    )
    context = item(0x20, b"\1\0\0\0" + item(0x30, b"1.2") + padding)
    assert decode_associate_rq(request(context)).presentation_contexts == (
        PresentationContextRQ(1, "1.2", ()),
    )


@pytest.mark.parametrize("stray", [b"\1", b"\0\1", b"\0\0\1", b"\1\0\0"])
def test_other_bytes_after_the_last_item_are_not(stray: bytes) -> None:
    for data in (
        request(stray),
        request(item(0x50, item(0x52, b"1.2") + stray)),
        request(item(0x20, b"\1\0\0\0" + item(0x30, b"1.2") + stray)),
    ):
        with pytest.raises(PDUError, match="stray bytes") as refused:
            decode_associate_rq(data)
        assert refused.value.reason == 6
        assert refused.value.offset == len(data) - len(stray)
        assert not check(data)


def test_error_names_the_place_of_the_item() -> None:
    # Behind the fixed 74 bytes: an item of 7, the header of user information, a sub-item of 11.
    broken = item(0x51, b"\0\0\0\1") + item(0x52, b"1.2")
    data = request(
        item(0x10, b"1.2"), item(0x50, broken + b"\x53\0\0\x05\0\0\0\0"), item(0x60, b"")
    )
    with pytest.raises(PDUError, match="item 0x53 runs past its parent") as refused:
        decode_associate_rq(data)
    assert refused.value.offset == 74 + 7 + 4 + len(broken)
    assert refused.value.reason == 6


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(item(0x54, b""), id="54 empty"),
        pytest.param(item(0x54, b"\0\x031.2\1"), id="54 without SCP role"),
        pytest.param(item(0x54, b"\0\x041.2"), id="54 UID"),
        pytest.param(item(0x56, b"\0"), id="56 cut"),
        pytest.param(item(0x56, b"\xff\xff1.2"), id="56 UID"),
        pytest.param(item(0x57, b"\0\x031.2\0\x031.3"), id="57 without related classes"),
        pytest.param(item(0x57, b"\0\x031.2\0\x091.3\0\0"), id="57 service class"),
        pytest.param(item(0x57, b"\0\x031.2\0\x031.3\0\x05\0\x041.4"), id="57 related class"),
        pytest.param(item(0x57, b"\0\x031.2\0\x031.3\0\x01\0"), id="57 related length"),
        pytest.param(item(0x57, b"\0\x031.2\0\x031.3\0\x06\0\x031.4"), id="57 related total"),
        pytest.param(item(0x58, b"\1"), id="58 cut"),
        pytest.param(item(0x58, b"\1\0\0\x04abc"), id="58 primary"),
        pytest.param(item(0x58, b"\1\0\0\x03abc"), id="58 without secondary"),
        pytest.param(item(0x58, b"\2\0\0\x01a\0\x02b"), id="58 secondary"),
    ],
)
def test_inner_length_past_its_item(broken: bytes) -> None:
    good = item(broken[0], b"\0\0\0\0\0\0")
    for parts in ((broken,), (good, broken), (broken, good)):
        data = request(item(0x50, b"".join(parts)))
        with pytest.raises(PDUError, match=f"item 0x{broken[0]:02x}: a length inside") as refused:
            decode_associate_rq(data)
        assert refused.value.reason == 6
        assert not check(data)


def test_inner_length_past_its_item_in_an_acceptance() -> None:
    broken = item(0x50, item(0x59, b"\0\x02a"))
    assert not check(header(2, wire.ASSOCIATE_RQ_BARE[6:] + broken))
    assert check(header(1, wire.ASSOCIATE_RQ_BARE[6:] + broken))


def test_first_of_a_repeated_sub_item() -> None:
    assert information_of(
        *(item(0x51, struct.pack(">L", n)) for n in (5, 6)),
        *(item(0x52, uid) for uid in (b"1.2", b"1.3")),
        *(item(0x53, struct.pack(">HH", n, n)) for n in (7, 8)),
        *(item(0x55, name) for name in (b"A", b"B")),
        *(item(0x58, b"\1\0\0\1" + name + b"\0\0") for name in (b"a", b"b")),
    ) == UserInformation(
        5, "1.2", "A", AsyncWindow(7, 7), identity=UserIdentity(1, False, b"a", b"")
    )


def test_bytes_after_the_fields_of_a_sub_item() -> None:
    assert information_of(
        item(0x54, b"\0\x031.2\1\1tail"),
        item(0x57, b"\0\x031.2\0\x031.3\0\0tail"),
        item(0x58, b"\1\0\0\1a\0\0tail"),
    ) == UserInformation(
        roles=(RoleSelection("1.2", True, True),),
        common_extended=(CommonExtendedNegotiation("1.2", "1.3", ()),),
        identity=UserIdentity(1, False, b"a", b""),
    )


@pytest.mark.parametrize("size", [65, 80, 65000])
def test_long_uid_is_kept_for_the_negotiation_to_judge(size: int) -> None:
    uid = "1" * size
    context = item(0x20, b"\1\0\0\0" + item(0x30, uid.encode()))
    assert decode_associate_rq(request(context)).presentation_contexts == (
        PresentationContextRQ(1, uid, ()),
    )


def test_uid_of_nothing_but_padding() -> None:
    assert information_of(item(0x52, b"\0 \0 ")).implementation_class_uid == ""


def test_number_of_contexts() -> None:
    contexts = [item(0x20, bytes((n & 0xFF, 0, 0, 0))) for n in range(257)]
    assert len(decode_associate_rq(request(*contexts[:256])).presentation_contexts) == 256
    with pytest.raises(PDUError, match="too many presentation contexts"):
        decode_associate_rq(request(*contexts))
    assert not check(request(*contexts))


def test_number_of_transfer_syntaxes_in_all() -> None:
    """As many as 128 contexts with 64 each; what is beyond that is legal, and not taken."""
    contexts = [item(0x20, bytes([n, 0, 0, 0]) + item(0x40, b"1.2") * 64) for n in range(1, 256, 2)]
    assert len(decode_associate_rq(request(*contexts)).presentation_contexts) == 128
    data = request(*contexts, item(0x20, b"\2\0\0\0" + item(0x40, b"1.2")))
    with pytest.raises(PDULimitError, match="more than 8192 transfer syntaxes"):
        decode_associate_rq(data)
    assert not check(data)


def test_number_of_transfer_syntaxes() -> None:
    most = b"\1\0\0\0" + item(0x40, b"1.2") * 256
    (context,) = decode_associate_rq(request(item(0x20, most))).presentation_contexts
    assert context.transfer_syntaxes == ("1.2",) * 256
    data = request(item(0x20, most + item(0x40, b"1.2")))
    with pytest.raises(PDUError, match="too many transfer syntaxes"):
        decode_associate_rq(data)
    assert not check(data)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "without a PDV"),
        (b"\0", "stray bytes"),
        (b"\0\0\0\2\1", "runs past"),
        (b"\0\0\0\0", "below 2"),
        (b"\0\0\0\1\1", "below 2"),
        (b"\0\0\0\2\1\3\0\0\0", "stray bytes"),
        (b"\0\0\0\3\1\3", "runs past"),
        (b"\xff\xff\xff\xff\1\3", "runs past"),
        (b"\xff\xff\xff\xfc\1\3\0\0", "runs past"),
    ],
)
def test_pdata_that_does_not_add_up(body: bytes, why: str) -> None:
    with pytest.raises(PDUError, match=why) as refused:
        decode_pdata(header(4, body))
    assert refused.value.reason == 6
    assert not check(header(4, body))


def test_credentials_do_not_reach_repr() -> None:
    shown = repr(decode_pdu(wire.ASSOCIATE_RQ_FULL))
    assert "UserIdentity(type=2, response_requested=True)" in shown
    assert "nurse" not in shown
    assert "ward" not in shown
    assert "yes" not in repr(decode_pdu(wire.ASSOCIATE_AC_FULL))


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (RECEIVER, "RECEIVER"),
        (b"  CT 1          ", "CT 1"),
        (b"CT1\0\0\0\0\0\0\0\0\0\0\0\0\0", "CT1"),
        (b"CT1 \0EVIL\r\n     ", "CT1"),
        (b" " * 16, ""),
        (bytes(16), ""),
        (b"\xe9          \xff    ", "\xe9          \xff"),
    ],
)
def test_ae_title(raw: bytes, title: str) -> None:
    assert ae_title(raw) == title


# --- encoding -------------------------------------------------------------------------------------


def test_encode_gives_the_bytes_written_by_hand() -> None:
    assert encode_associate_rq(RQ_ECHO) == wire.ASSOCIATE_RQ_ECHO
    assert encode_associate_rq(AssociateRQ(RECEIVER, SENDER, None, (), None)) == (
        wire.ASSOCIATE_RQ_BARE
    )
    assert encode_associate_ac(AC_ECHO) == wire.ASSOCIATE_AC_ECHO
    assert encode_associate_rj(AssociateRJ(2, 3, 1)) == wire.ASSOCIATE_RJ
    assert encode_release_rq() == encode_release_rq(ReleaseRQ()) == wire.RELEASE_RQ
    assert encode_release_rp() == encode_release_rp(ReleaseRP()) == wire.RELEASE_RP
    assert encode_abort(Abort(0, 0)) == wire.ABORT_USER
    assert encode_abort(Abort(2, 6)) == wire.ABORT_PROVIDER
    assert encode_pdata([(1, 3, wire.C_ECHO_RQ)]) == wire.PDATA_ECHO
    assert encode_pdata(iter([(3, 0xFD, b""), (3, 2, b"\x08\x00\x05\x00")])) == wire.PDATA_TWO_PDVS


def test_refused_context_has_a_transfer_syntax_sub_item() -> None:
    accepted = replace(AC_ECHO, presentation_contexts=(PresentationContextAC(1, 3, ""),))
    assert item(0x21, b"\1\0\3\0" + item(0x40, b"")) in encode_associate_ac(accepted)


def rq_with(**changes: Any) -> Callable[[], bytes]:
    return lambda: encode_associate_rq(replace(RQ_ECHO, **changes))


def rq_about(**fields: Any) -> Callable[[], bytes]:
    return rq_with(user_information=UserInformation(**fields))


def ac_with(**changes: Any) -> Callable[[], bytes]:
    return lambda: encode_associate_ac(replace(AC_ECHO, **changes))


CONTEXT = PresentationContextRQ(1, VERIFICATION, (IMPLICIT_LE,))
LONG_UID = "1" * 65
MISUSES: dict[str, Callable[[], bytes]] = {
    "called title of 15 bytes": rq_with(called_ae=b"RECEIVER       "),
    "calling title of 17 bytes": rq_with(calling_ae=b"SENDER           "),
    "reserved of 31 bytes": rq_with(reserved=bytes(31)),
    "version": rq_with(protocol_version=0x10000),
    "application context too long": rq_with(application_context=LONG_UID),
    "application context not ASCII": rq_with(application_context="1.2.\xe9"),
    "context id 256": rq_with(presentation_contexts=(replace(CONTEXT, id=256),)),
    "context id -1": rq_with(presentation_contexts=(replace(CONTEXT, id=-1),)),
    "abstract syntax": rq_with(presentation_contexts=(replace(CONTEXT, abstract_syntax=LONG_UID),)),
    "transfer syntax": rq_with(
        presentation_contexts=(replace(CONTEXT, transfer_syntaxes=(LONG_UID,)),)
    ),
    "257 transfer syntaxes": rq_with(
        presentation_contexts=(replace(CONTEXT, transfer_syntaxes=(IMPLICIT_LE,) * 257),)
    ),
    "257 contexts": rq_with(presentation_contexts=(CONTEXT,) * 257),
    "more than 1 MiB": rq_with(
        presentation_contexts=(replace(CONTEXT, transfer_syntaxes=("1" * 64,) * 256),) * 61
    ),
    "maximum length": rq_about(max_pdu_length=1 << 32),
    "negative maximum length": rq_about(max_pdu_length=-1),
    "class UID": rq_about(implementation_class_uid=LONG_UID),
    "version name of 17": rq_about(implementation_version_name="A" * 17),
    "version name not ASCII": rq_about(implementation_version_name="\xe9"),
    "window": rq_about(async_window=AsyncWindow(65536, 1)),
    "window performed": rq_about(async_window=AsyncWindow(1, -1)),
    "role": rq_about(roles=(RoleSelection(LONG_UID, True, True),)),
    "extended": rq_about(extended=(ExtendedNegotiation(LONG_UID, b""),)),
    "extended too long": rq_about(extended=(ExtendedNegotiation(CT, bytes(65536)),)),
    "information too long": rq_about(extended=(ExtendedNegotiation(CT, bytes(40000)),) * 2),
    "common": rq_about(common_extended=(CommonExtendedNegotiation(LONG_UID, CT, ()),)),
    "common service": rq_about(common_extended=(CommonExtendedNegotiation(CT, LONG_UID, ()),)),
    "common related": rq_about(common_extended=(CommonExtendedNegotiation(CT, CT, (LONG_UID,)),)),
    "common too long": rq_about(
        common_extended=(CommonExtendedNegotiation(CT, CT, ("1" * 64,) * 1000),)
    ),
    "identity type": rq_about(identity=UserIdentity(256, False, b"", b"")),
    "identity primary": rq_about(identity=UserIdentity(1, False, bytes(65536), b"")),
    "identity secondary": rq_about(identity=UserIdentity(1, False, b"", bytes(65536))),
    "response in a request": rq_about(identity_response=b""),
    "identity in an acceptance": ac_with(
        user_information=UserInformation(identity=UserIdentity(1, False, b"", b""))
    ),
    "common extended in an acceptance": ac_with(
        user_information=UserInformation(common_extended=(CommonExtendedNegotiation(CT, CT, ()),))
    ),
    "response too long": ac_with(user_information=UserInformation(identity_response=bytes(65536))),
    "acceptance context id": ac_with(presentation_contexts=(PresentationContextAC(256, 0, CT),)),
    "result": ac_with(presentation_contexts=(PresentationContextAC(1, 256, CT),)),
    "acceptance transfer syntax": ac_with(
        presentation_contexts=(PresentationContextAC(1, 0, LONG_UID),)
    ),
    "acceptance contexts": ac_with(presentation_contexts=(PresentationContextAC(1, 0, CT),) * 257),
    "reject result": lambda: encode_associate_rj(AssociateRJ(256, 1, 1)),
    "reject source": lambda: encode_associate_rj(AssociateRJ(1, -1, 1)),
    "reject reason": lambda: encode_associate_rj(AssociateRJ(1, 1, 256)),
    "abort source": lambda: encode_abort(Abort(256, 0)),
    "abort reason": lambda: encode_abort(Abort(0, -1)),
    "no PDV": lambda: encode_pdata([]),
    "PDV context id": lambda: encode_pdata([(256, 0, b"")]),
    "PDV control header": lambda: encode_pdata([(1, -1, b"")]),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_misuse(misuse: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        misuse()


# --- round trips and random bytes -----------------------------------------------------------------

uids = st.text("0123456789.", max_size=64)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=16)
u8s = st.integers(0, 0xFF)
u16s = st.integers(0, 0xFFFF)
u32s = st.integers(0, 0xFFFFFFFF)
titles = st.binary(min_size=16, max_size=16)
blobs = st.binary(max_size=40)


def tuples(one: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, max_size=3).map(tuple)


both = {
    "max_pdu_length": st.none() | u32s,
    "implementation_class_uid": st.none() | uids,
    "implementation_version_name": st.none() | names,
    "async_window": st.none() | st.builds(AsyncWindow, u16s, u16s),
    "roles": tuples(st.builds(RoleSelection, uids, st.booleans(), st.booleans())),
    "extended": tuples(st.builds(ExtendedNegotiation, uids, blobs)),
}
rq_information = st.builds(
    UserInformation,
    **both,
    common_extended=tuples(st.builds(CommonExtendedNegotiation, uids, uids, tuples(uids))),
    identity=st.none() | st.builds(UserIdentity, u8s, st.booleans(), blobs, blobs),
)
ac_information = st.builds(UserInformation, **both, identity_response=st.none() | blobs)
associate_rqs = st.builds(
    AssociateRQ,
    called_ae=titles,
    calling_ae=titles,
    application_context=st.none() | uids,
    presentation_contexts=tuples(st.builds(PresentationContextRQ, u8s, uids, tuples(uids))),
    user_information=st.none() | rq_information,
    protocol_version=u16s,
    reserved=st.binary(min_size=32, max_size=32),
)
associate_acs = st.builds(
    AssociateAC,
    called_ae=titles,
    calling_ae=titles,
    application_context=st.none() | uids,
    presentation_contexts=tuples(st.builds(PresentationContextAC, u8s, u8s, uids)),
    user_information=st.none() | ac_information,
    protocol_version=u16s,
    reserved=st.binary(min_size=32, max_size=32),
)


@many
@given(associate_rqs)
def test_round_trip_of_requests(value: AssociateRQ) -> None:
    data = encode_associate_rq(value)
    assert decode_associate_rq(data) == value
    assert reference_pdu.pdu(data) == value


@many
@given(associate_acs)
def test_round_trip_of_acceptances(value: AssociateAC) -> None:
    data = encode_associate_ac(value)
    assert decode_associate_ac(data) == value
    assert reference_pdu.pdu(data) == value


@many
@given(u8s, u8s, u8s)
def test_round_trip_of_rejects_and_aborts(result: int, source: int, reason: int) -> None:
    reject = AssociateRJ(result, source, reason)
    assert decode_associate_rj(encode_associate_rj(reject)) == reject
    abort = Abort(source, reason)
    assert decode_abort(encode_abort(abort)) == abort


@many
@given(st.lists(st.tuples(u8s, u8s, blobs), min_size=1, max_size=5))
def test_round_trip_of_pdata(pdvs: list[tuple[int, int, bytes]]) -> None:
    assert decode_pdata(encode_pdata(pdvs)) == pdvs


@many
@given(st.binary(max_size=100))
def test_random_bytes(data: bytes) -> None:
    check(data)
    for kind in DECODERS:
        check(header(kind, data))


# Items with lengths that mostly fit, one in another, so that the decoder gets further down.
kinds = st.sampled_from(
    [0x00, 0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59]
)
leaves = st.binary(max_size=12) | st.builds(
    lambda size, rest: struct.pack(">H", size) + rest, st.integers(0, 6), st.binary(max_size=12)
)


def listed(value: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda head, items, tail: head + b"".join(items) + tail,
        st.sampled_from([b"", b"\1\0\0\0"]),
        st.lists(st.builds(item, kinds, value), max_size=4),
        st.sampled_from([b"", b"", b"", b"\0", b"\0\0\0", b"\1"]),
    )


@many
@given(st.sampled_from([1, 2]), listed(listed(leaves) | leaves))
def test_random_items(kind: int, items: bytes) -> None:
    check(header(kind, wire.ASSOCIATE_RQ_BARE[6:] + items))


# --- real requests --------------------------------------------------------------------------------


def vector_pdus(suffix: str) -> dict[str, bytes]:
    """The first PDU of each stream, the same ones once."""
    found: dict[bytes, str] = {}
    for name in streams.names(f"*.{suffix}"):
        for pdu in reference_pdu.split_stream(streams.read(name))[:1]:
            found.setdefault(pdu, name)
    return {name: pdu for pdu, name in found.items()}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes of its body changed, and mostly with a length that fits again."""
    body = bytearray(data[6:])
    for _ in range(rng.randint(1, 3)):
        # Half of the time among the fixed fields and first items, where the structure is.
        place = rng.randrange(len(body) if rng.random() < 0.5 else min(len(body), 200))
        match rng.randrange(5):
            case 0:
                body[place] = rng.randrange(256)
            case 1:
                body[place] = (body[place] + rng.choice((-2, -1, 1, 2))) & 0xFF
            case 2:
                del body[place : place + rng.choice((1, 2, 4, 17))]
            case 3:
                body[place:place] = rng.randbytes(rng.choice((1, 2, 4)))
            case 4:
                body[place:place] = body[place : place + rng.choice((4, 21, 50))]
        if not body:
            break
    return header(data[0], bytes(body)) if rng.random() < 0.95 else data[:6] + bytes(body)


@pytest.mark.parametrize("suffix", ["c2s", "s2c"])
def test_mutated_vectors(suffix: str) -> None:
    rng = random.Random(1)
    taken = {True: 0, False: 0}
    pdus = vector_pdus(suffix)
    for pdu in pdus.values():
        check(pdu)
        if len(pdu) > 6:
            for _ in range(max(100, 1000 // len(pdus))):
                taken[check(mutated(pdu, rng))] += 1
    assert min(taken.values()) > 100


def test_vectors_as_expected() -> None:
    seen = 0
    for name, expected in streams.told().items():
        for what in {"rq", "ac"} & expected.keys():
            decoded = decode_pdu(streams.first_pdu(name))
            assert isinstance(decoded, AssociateRQ if what == "rq" else AssociateAC)
            compare(expected[what], decoded)
            seen += 1
    assert seen > 40


def compare(expected: dict[str, Any], decoded: AssociateRQ | AssociateAC) -> None:
    assert decoded.protocol_version == int(expected["protocol_version"], 16)
    assert decoded.called_ae.decode() == expected["called"]
    assert decoded.calling_ae.decode() == expected["calling"]
    assert decoded.application_context == expected["application_context"]
    contexts = [
        {"id": c.id, "as": c.abstract_syntax, "ts": list(c.transfer_syntaxes)}
        if isinstance(c, PresentationContextRQ)
        else {"id": c.id, "result": c.result, "ts": [c.transfer_syntax]}
        for c in decoded.presentation_contexts
    ]
    *_, last = expected["contexts"]
    if isinstance(last, str):  # "... 128 in all"
        assert len(contexts) == int(last.split()[1])
        del expected["contexts"][-1], contexts[len(expected["contexts"]) :]
    assert contexts == expected["contexts"]
    information = decoded.user_information
    assert information is not None
    assert information.max_pdu_length == expected["max_pdu"]
    assert information.implementation_class_uid == expected["impl_uid"]
    assert information.implementation_version_name == expected["impl_version"]
    kinds = [int(item["type"], 16) for item in expected["user_items"]]
    assert len(information.roles) == kinds.count(0x54)
    assert len(information.extended) == kinds.count(0x56)
    assert len(information.common_extended) == kinds.count(0x57)
    assert (information.async_window is not None) == (0x53 in kinds)
    assert (information.identity is not None) == (0x58 in kinds)


def in_our_words(theirs: Any) -> AssociateRQ:
    """A request decoded by pynetdicom."""
    said = theirs.user_information
    window = said.async_ops_window
    identity = said.user_identity
    return AssociateRQ(
        called_ae=theirs.called_ae_title.ljust(16).encode(),
        calling_ae=theirs.calling_ae_title.ljust(16).encode(),
        application_context=theirs.application_context_name,
        presentation_contexts=tuple(
            PresentationContextRQ(
                c.presentation_context_id, c.abstract_syntax, tuple(c.transfer_syntax)
            )
            for c in theirs.presentation_context
        ),
        user_information=UserInformation(
            max_pdu_length=said.maximum_length,
            implementation_class_uid=said.implementation_class_uid,
            implementation_version_name=said.implementation_version_name,
            async_window=window
            and AsyncWindow(
                window.maximum_number_operations_invoked,
                window.maximum_number_operations_performed,
            ),
            roles=tuple(
                RoleSelection(uid, bool(role.scu_role), bool(role.scp_role))
                for uid, role in said.role_selection.items()
            ),
            extended=tuple(ExtendedNegotiation(e.uid, e.app_info) for e in said.ext_neg),
            common_extended=tuple(
                CommonExtendedNegotiation(
                    c.sop_class_uid,
                    c.service_class_uid,
                    tuple(c.related_general_sop_class_identification),
                )
                for c in said.common_ext_neg
            ),
            identity=identity
            and UserIdentity(
                identity.id_type,
                bool(identity.response_requested),
                identity.primary,
                identity.secondary or b"",
            ),
        ),
    )


@pytest.mark.parametrize(
    "name",
    streams.names(
        "own/echo.c2s",
        "own/store_one_of_many_contexts.c2s",
        "own/store_extended_negotiation.c2s",
        "own/many_contexts.c2s",
        "own/commitment.c2s",
        "recorded/dcmjsdimse033_echo.c2s",
        "recorded/dcmtk367_storescu_allclasses.c2s",
        "recorded/gdcm3021_store_ct.c2s",
        "recorded/pynetdicom304_128contexts.c2s",
        "recorded/pynetdicom304_extneg.c2s",
        "recorded/pynetdicom304_stgcmt_naction.c2s",
    ),
)
def test_another_stack_reads_the_same(name: str) -> None:
    pdu = pytest.importorskip("pynetdicom.pdu")
    data = streams.first_pdu(name)
    ours = decode_associate_rq(data)
    # What was sent, and what we make of it again.
    for encoded in (data, encode_associate_rq(ours)):
        theirs = pdu.A_ASSOCIATE_RQ()
        theirs.decode(encoded)
        assert in_our_words(theirs) == ours

"""What is made of the user identity item of a request, whatever is in it."""

from __future__ import annotations

import random
import struct
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastscp.association.identity import (
    Credentials,
    Token,
    confirmed,
    refused,
    shown_user,
    to_be_checked,
    too_many,
)
from fastscp.association.negotiation import Accepted, Policy, Rejected, negotiate
from fastscp.users.identities import UserIdentities
from fastscp.users.keys import Keys
from fastscp.users.passwords import parse
from fastscp_ext import (
    AssociateRQ,
    PDUError,
    UserIdentity,
    UserInformation,
    decode_associate_ac,
    decode_associate_rq,
    encode_associate_ac,
)
from tests.fuzz.generate import associate
from tests.kit import associate_rq

OFF: Final = UserIdentities()
REQUIRED: Final = UserIdentities("users", True)
OPTIONAL: Final = UserIdentities("users", False)
TOKENS: Final = UserIdentities("keys", True, keys=Keys(()))
TOKENS_OPTIONAL: Final = UserIdentities("keys", keys=Keys(()))


def requested(identity: UserIdentity | None) -> AssociateRQ:
    information = UserInformation(max_pdu_length=16384, identity=identity)
    return decode_associate_rq(associate_rq(user_information=information))


@given(st.integers(0, 255), st.booleans(), st.binary(max_size=40), st.binary(max_size=40))
@example(2, True, b"", b"")
@example(5, True, b"a.b.c\r\n", b"")
def test_any_identity(kind: int, confirm: bool, primary: bytes, secondary: bytes) -> None:
    """What is asked for is looked at, and nothing else can stand for it."""
    rq = requested(UserIdentity(kind, confirm, primary, secondary))
    assert to_be_checked(rq, OFF) is None
    for wanted in (REQUIRED, OPTIONAL, TOKENS, TOKENS_OPTIONAL):
        found = to_be_checked(rq, wanted)
        if kind == 2 and wanted.keys is None:
            assert found == Credentials(primary, secondary, confirm)
        elif kind == 5 and wanted.keys is not None:
            assert found == Token(primary.strip(b" \t\r\n\0"), confirm)
        elif wanted.required:
            assert isinstance(found, Rejected)
            assert (found.result, found.source, found.reason) == (1, 2, 1)
            assert found.why.isprintable()
        else:
            assert found is None


@pytest.mark.parametrize("rq", [requested(None), AssociateRQ(b"", b"", None, (), None)])
def test_no_identity(rq: AssociateRQ) -> None:
    assert to_be_checked(rq, OPTIONAL) is None
    assert to_be_checked(rq, OFF) is None
    found = to_be_checked(rq, REQUIRED)
    assert isinstance(found, Rejected)
    assert "shows no user identity" in found.why


def test_items_that_are_cut_or_lie() -> None:
    """Each request is refused by the decoder, or its identity is judged; nobody passes unseen."""
    rng = random.Random(17)
    seen = {"broken": 0, "none": 0, "checked": 0, "rejected": 0}
    for _ in range(1500):
        body = rng.randbytes(2 + rng.choice((0, 1, 6)))
        body = rng.choice((b"\2\1", b"\2\0", body[:2]))
        for size in (rng.randrange(5), rng.randrange(5)):
            lied = max(0, size + rng.choice((0, 0, 0, 0, -1, 1, 1000)))
            body += struct.pack(">H", lied) + rng.randbytes(size)
        body = body[: rng.choice((len(body), len(body), rng.randrange(len(body) + 1)))]
        plain = associate_rq(user_information=UserInformation(max_pdu_length=16384))
        item = struct.pack(">BxH", 0x58, len(body)) + body
        at = plain.index(b"\x50\x00\x00\x08\x51")
        pdu = bytearray(plain + item)
        pdu[at + 2 : at + 4] = struct.pack(">H", 8 + len(item))
        pdu[2:6] = struct.pack(">L", len(pdu) - 6)
        seen[judged(bytes(pdu))] += 1
    assert min(seen["broken"], seen["checked"], seen["rejected"]) > 50


def test_generated_requests() -> None:
    rng = random.Random(18)
    for _ in range(1500):
        judged(associate(rng))


def judged(pdu: bytes) -> str:
    try:
        rq = decode_associate_rq(pdu)
    except PDUError:
        return "broken"
    assert to_be_checked(rq, OFF) is None
    found = to_be_checked(rq, REQUIRED)
    assert found is not None
    information = rq.user_information
    identity = information.identity if information is not None else None
    optional = to_be_checked(rq, OPTIONAL)
    if isinstance(found, Credentials):
        assert identity is not None
        assert (identity.type, found) == (2, optional)
        return "checked"
    assert optional is None
    assert identity is None or identity.type != 2
    return "none" if identity is None else "rejected"


def test_a_token_is_in_no_text() -> None:
    one = Token(b"head.claims.signature")
    assert "head" not in f"{one!r}{one}{refused(one, '', 'no').why}{too_many(one).why}"
    assert refused(one, "", "no").why == "JSON Web Token: no"
    assert refused(one, "jo", "no").why == "JSON Web Token of user 'jo': no"
    assert len(refused(one, "x" * 300, "no").why) < 160
    assert too_many(one).result == 2


def test_a_passcode_is_in_no_text() -> None:
    one = Credentials(b"jo", b"sesame")
    assert "sesame" not in f"{one!r}{one}"
    for why in (
        refused(Credentials(b"jo\x1b[2J", b""), "", "no"),
        too_many(Credentials(b"jo\r\n\xff", b"")),
    ):
        assert why.why.isprintable()
    assert refused(one, "", "no") == Rejected(1, 2, 1, "user 'jo': no")
    assert too_many(one).result == 2
    assert shown_user("Zoë".encode()) == "'Zoë'"
    assert shown_user(b"\xff") == r"'\\xff'"
    assert shown_user(b"jo': right, user 'mo") == r"'jo\x27: right, user \x27mo'"
    assert len(shown_user(b"x" * 65535)) < 140


@pytest.mark.parametrize(
    "name",
    [
        b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqbyJ9.c2lnbmVk",
        b"eyJhbGciOiJSUzI1NiIs",
        b"Bearer eyJhbGciOiJSUzI1NiJ9",
        b"correct-horse-battery-staple" * 3,
    ],
)
def test_what_was_meant_for_another_field_is_not_shown(name: bytes) -> None:
    one = Credentials(name, b"")
    for text in (shown_user(name), refused(one, "", "no").why, too_many(one).why):
        assert name[:6].decode() not in text
        assert f"of {len(name)} bytes" in text
    assert shown_user(b"x" * 64) == f"'{'x' * 64}'"
    assert shown_user(b"jo.radiology.example.com") == "'jo.radiology.example.com'"


def test_the_positive_response_is_empty() -> None:
    accepted = negotiate(requested(UserIdentity(2, True, b"jo", b"")), Policy())
    assert isinstance(accepted, Accepted)
    for one, response in ((accepted, None), (confirmed(accepted), b"")):
        information = decode_associate_ac(encode_associate_ac(one.ac)).user_information
        assert information is not None
        assert information.identity_response == response
    assert confirmed(accepted).contexts == accepted.contexts


@given(st.lists(st.binary(max_size=30) | st.just(b"jo:scrypt$ln=14,r=8,p=1$a$b"), max_size=5))
@example([b"a:scrypt$ln=14,r=8,p=1$" + b"A" * 22 + b"$" + b"A" * 43, b"#", b" \t"])
def test_a_file_of_whatever(lines: list[bytes]) -> None:
    """Each line is an entry, nothing, or a mistake that says nothing of what stands there."""
    entries, mistakes = parse(b"\n".join(lines))
    plain = [one.strip() for line in lines for one in line.split(b"\n")]
    told = [one for one in plain if one and not one.startswith(b"#")]
    assert len(entries) + len(mistakes) == len(told)
    assert all(one.startswith("line ") for one in mistakes)
    assert all((len(one.salt), len(one.hash)) == (16, 32) for one in entries)

"""JSON Web Tokens, good and hostile: only what a key of the file has signed, as it was signed."""

from __future__ import annotations

import base64
import hmac
import json
import random
import time
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from fastscp.users.keys import Keys, parse_keys
from fastscp.users.tokens import LEEWAY_S, TOKEN_MOST, Look, Tokens
from tests.tokens import (
    ALGORITHMS,
    claims,
    encoded,
    jwk,
    jwks,
    kind_for,
    private,
    public,
    signed,
    token,
)


def checker(
    *keys: dict[str, Any], audiences: tuple[str, ...] = (), issuers: tuple[str, ...] = ()
) -> Tokens:
    """Of a file with these keys: k1 of P-256 by default."""
    found, mistakes, _ = parse_keys(jwks(*(keys or (public("P-256", "k1"),))))
    assert not mistakes
    return Tokens(Keys(found, audiences, issuers), ("FASTSCP",))


def why(tokens: Tokens, text: bytes) -> str:
    """Why a token is refused; AssertionError: it is not."""
    look = tokens.look(text)
    assert not look.is_right
    assert look.holds_s == 0
    assert look.why.isprintable()
    return look.why


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_right(algorithm: str) -> None:
    tokens = checker(public(kind_for(algorithm), "k1"))
    look = tokens.look(token(claims(sub="Zoë Müller"), algorithm=algorithm))
    assert look[:3] == (True, "Zoë Müller", "")
    assert 590 + LEEWAY_S < look.holds_s <= 600 + LEEWAY_S
    # Another key of the same kind has signed it.
    other = token(algorithm=algorithm, key=private(kind_for(algorithm), 1))
    assert tokens.look(other) == Look(False, "", "its signature is wrong")


def test_ed448() -> None:
    assert checker(public("Ed448", "k1")).look(token(algorithm="EdDSA", key=private("Ed448")))[0]


# Headers that ask for what is not done, with a good signature over them.
HEADERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "critical": ({"crit": ["exp"], "exp": 1}, "its header asks for more than a signature"),
    "critical, known": ({"crit": ["b64"], "b64": True}, "asks for more than a signature"),
    "no base64": ({"b64": False}, "asks for more than a signature"),
    "compressed": ({"zip": "DEF"}, "asks for more than a signature"),
    "encrypted": ({"enc": "A128GCM"}, "asks for more than a signature"),
    "nested": ({"cty": "JWT"}, "asks for more than a signature"),
    "nested, in full": ({"cty": "application/jwt"}, "asks for more than a signature"),
    "another type": ({"typ": "logout+jwt"}, "it is of another type (typ)"),
    "a list as type": ({"typ": ["JWT"]}, "it is of another type (typ)"),
    "an unknown key": ({"kid": "k2"}, "it names a key (kid) that is not in the file"),
    "a path as key": ({"kid": "../../dev/null"}, "it names a key (kid) that is not in the file"),
    "an empty name of a key": ({"kid": ""}, "it names a key (kid) that is not in the file"),
    "a number as key": ({"kid": 1}, "its key (kid) is no name"),
    "nothing as key": ({"kid": None}, "its key (kid) is no name"),
    "no algorithm": ({"alg": None}, "its algorithm (alg) is none that a key of the file goes with"),
    "none": ({"alg": "none"}, "its algorithm (alg) is none that"),
    "None": ({"alg": "None"}, "its algorithm (alg) is none that"),
    "another case": ({"alg": "es256"}, "its algorithm (alg) is none that"),
    "an HMAC": ({"alg": "HS256"}, "its algorithm (alg) is none that"),
    "of another curve": ({"alg": "ES384"}, "its algorithm (alg) is none that"),
    "of another kind": ({"alg": "RS256"}, "its algorithm (alg) is none that"),
    "a list as algorithm": ({"alg": ["ES256"]}, "its algorithm (alg) is none that"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str) -> None:
    more, said = HEADERS[name]
    header = {"alg": "ES256", "kid": "k1"} | more
    text = signed(json.dumps(header).encode(), json.dumps(claims()).encode())
    assert said in why(checker(), text)


def test_headers_that_are_right() -> None:
    tokens = checker()
    for more in (
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"typ": "application/at+JWT"},
        # Nobody goes where these point to.
        {"jku": "https://example.com/keys", "x5u": "file:///dev/zero", "x5c": ["AAAA"]},
        {"cty": "json"},
    ):
        assert tokens.look(token(header=more)).is_right


def test_a_key_in_the_header_is_nothing() -> None:
    """Whoever signs with a key of its own and sends it along has signed nothing."""
    mine = private("P-256", 1)
    text = token(key=mine, header={"jwk": jwk(mine.public_key())})
    assert why(checker(), text) == "its signature is wrong"


def test_which_key() -> None:
    """The one that is named; without a name the only one that the algorithm goes with."""
    rsa, curve = public("RSA", "r"), public("P-256", "e")
    assert checker(rsa, curve).look(token(kid=None)).is_right
    assert checker(rsa, curve).look(token(kid="e")).is_right
    assert "alg" in why(checker(rsa, curve), token(kid="r"))
    several = checker(curve, public("P-256", "f", number=1))
    assert "several that may be it" in why(several, token(kid=None))
    assert several.look(token(kid="f", key=private("P-256", 1))).is_right
    assert why(several, token(kid="f")) == "its signature is wrong"
    # A key without a name is named by none.
    assert checker(public("P-256")).look(token(kid=None)).is_right
    assert "not in the file" in why(checker(public("P-256")), token(kid="e"))


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
def test_a_public_key_is_no_secret(kind: str) -> None:
    """Not in any form in which whoever knows it may have taken it for one: no HMAC is checked."""
    key = private(kind).public_key()
    tokens = checker(public(kind, "k1"))
    forms = (Encoding.PEM, Encoding.DER)
    secrets = [key.public_bytes(one, PublicFormat.SubjectPublicKeyInfo) for one in forms]
    secrets += [json.dumps(jwk(key)).encode(), b""]
    for secret in secrets:
        header = json.dumps({"alg": "HS256", "kid": "k1"}).encode()
        body = encoded(header) + b"." + encoded(json.dumps(claims()).encode())
        text = body + b"." + encoded(hmac.digest(secret, body, "sha256"))
        assert "its algorithm (alg) is none that" in why(tokens, text)


def test_a_key_for_one_algorithm_checks_no_other() -> None:
    tokens = checker(public("RSA", "k1", alg="PS256"))
    assert tokens.look(token(algorithm="PS256")).is_right
    assert "alg" in why(tokens, token(algorithm="RS256"))


def claims_at(now: int) -> dict[str, tuple[dict[str, Any], str]]:
    """Claims, and what is said of them; "" where they are right. now: seconds since 1970."""
    return {
        "expired": ({"exp": now - 3600}, "it expired at "),
        "expired long ago": ({"exp": 0}, "it expired at 1970-01-01T00:00:00Z"),
        "just expired": ({"exp": now - LEEWAY_S // 2}, ""),
        "for ever": ({"exp": None}, "it says not when it expires (exp)"),
        "a fraction": ({"exp": now + 600.5}, ""),
        "a number in a text": ({"exp": str(now + 600)}, "its exp is no time"),
        "true": ({"exp": True}, "its exp is no time"),
        "a list": ({"exp": [now + 600]}, "its exp is no time"),
        "beyond all time": ({"exp": 10**400}, "its exp is no time"),
        "beyond the calendar": ({"exp": 10**18}, "its exp is no time"),
        "before all time": ({"exp": -1}, "its exp is no time"),
        "not yet": ({"nbf": now + 3600}, "it is not valid before "),
        "not yet, as it seems": ({"nbf": now + LEEWAY_S // 2}, ""),
        "not before nothing": ({"nbf": {}}, "its nbf is no time"),
        "not before false": ({"nbf": False}, "its nbf is no time"),
        "from the future": ({"iat": now + 3600}, "it is not valid before "),
        "made by nobody's clock": ({"iat": "now"}, "its iat is no time"),
        "nobody": ({"sub": None}, "it names no user (sub)"),
        "empty": ({"sub": ""}, "it names no user (sub)"),
        "a number": ({"sub": 7}, "it names no user (sub)"),
        "several": ({"sub": ["jo"]}, "it names no user (sub)"),
        "a line": ({"sub": "jo\n2026 INFO main: all is well"}, "its user (sub) is no name"),
        "an escape": ({"sub": "\x1b[2J"}, "its user (sub) is no name"),
        "right to left": ({"sub": "\u202eoj"}, "its user (sub) is no name"),
        "half a character": ({"sub": "\ud800"}, "its user (sub) is no name"),
        "long": ({"sub": "é" * 128}, "its user (sub) is no name"),
        "not so long": ({"sub": "é" * 127}, ""),
        "for us": ({"aud": "FASTSCP"}, ""),
        "for us and others": ({"aud": ["PACS", "FASTSCP"]}, ""),
        "for others": ({"aud": "PACS"}, "it is for others"),
        "in another case": ({"aud": "fastscp"}, "it is for others"),
        "for nobody": ({"aud": []}, "it is for others"),
        "for no name": ({"aud": ""}, "it is for others"),
        "for what is none": ({"aud": {"FASTSCP": 1}}, "it is for others"),
        "for a list with what is none": ({"aud": ["FASTSCP", 1]}, "it is for others"),
        "a number as its own name": ({"jti": 7}, "its claims cannot be read"),
        "whatever else": ({"groups": ["a"] * 100, "azp": {}, "iss": "who"}, ""),
    }


@pytest.mark.parametrize("name", claims_at(0))
def test_claims(name: str) -> None:
    more, said = claims_at(int(time.time()))[name]
    said_of = claims(**more)
    look = checker().look(signed(b'{"alg":"ES256","kid":"k1"}', json.dumps(said_of).encode()))
    assert look.is_right is (not said)
    assert said in look.why
    assert bool(look.why) is bool(said)
    # Who has signed it is known, so its words are somebody's.
    assert look.user == ("" if "sub" in more and said else more.get("sub", "jo"))


def test_who_made_it_and_for_whom() -> None:
    issuer = "https://example.com/realms/a"
    tokens = checker(audiences=("dicom", "store"), issuers=(issuer, "b"))
    good = {"iss": issuer, "aud": "store"}
    assert tokens.look(token(claims(**good))).is_right
    assert tokens.look(token(claims(iss="b", aud=["x", "dicom"]))).is_right
    for more, said in (
        ({"iss": None}, "it is from others"),
        ({"iss": issuer + "/"}, "it is from others"),
        ({"iss": issuer[:-1]}, "it is from others"),
        ({"iss": [issuer]}, "it is from others"),
        ({"aud": None}, "it is for others"),
        # The AE title counts where no audience is asked for.
        ({"aud": "FASTSCP"}, "it is for others"),
        ({"aud": "dico"}, "it is for others"),
    ):
        text = signed(b'{"alg":"ES256"}', json.dumps(claims(**good) | more).encode())
        text = text if more != {"iss": None} else token(claims(aud="store"))
        text = text if more != {"aud": None} else token(claims(iss=issuer))
        assert said in why(tokens, text), more


GOOD: Final = token()
HEAD, BODY, SIGNATURE = GOOD.split(b".")
MALFORMED: Final[dict[str, tuple[bytes, str]]] = {
    "nothing": (b"", "it is not three parts"),
    "dots": (b"..", "it is not three parts"),
    "no signature": (HEAD + b"." + BODY, "it is not three parts"),
    "an empty signature": (HEAD + b"." + BODY + b".", "it is not three parts"),
    "a fourth part": (GOOD + b".AAAA", "it is not three parts"),
    "five parts, as of what is encrypted": (b".".join([HEAD] * 5), "it is not three parts"),
    "padded": (GOOD + b"=", "it is not three parts"),
    "of another alphabet": (GOOD.replace(b".", b"+.", 1), "it is not three parts"),
    "a line's end": (GOOD + b"\n", "it is not three parts"),
    "Bearer": (b"Bearer " + GOOD, "it is not three parts"),
    "JSON": (json.dumps({"payload": BODY.decode(), "signatures": []}).encode(), "not three parts"),
    "not ASCII": (GOOD + "é".encode(), "it is not three parts"),
    "too long": (GOOD + b"A" * TOKEN_MOST, "it has more than 16384 bytes"),
    "a huge header": (
        signed(json.dumps({"alg": "ES256", "kid": "k1", "x": "a" * 20_000}).encode(), b"{}"),
        "it has more than 16384 bytes",
    ),
    "a name twice": (
        signed(b'{"alg":"ES256","kid":"k1"}', b'{"sub":"jo","exp":9999999999,"sub":"root"}'),
        "can be in two ways",
    ),
    "an algorithm twice": (
        signed(b'{"alg":"none","alg":"ES256","kid":"k1"}', json.dumps(claims()).encode()),
        "can be in two ways",
    ),
    "a number that is none": (
        signed(b'{"alg":"ES256","kid":"k1"}', b'{"sub":"jo","exp":Infinity}'),
        "cannot be read",
    ),
    "a number beyond all": (
        signed(b'{"alg":"ES256","kid":"k1"}', b'{"sub":"jo","exp":1e999}'),
        "its exp is no time",
    ),
    "a number without end": (
        signed(b'{"alg":"ES256","kid":"k1"}', b'{"sub":"jo","exp":1' + b"0" * 9000 + b"}"),
        "cannot be read",
    ),
    "deep": (signed(b'{"alg":"ES256","kid":"k1"}', b"[" * 9000), "cannot be read"),
    "deep header": (signed(b'{"a":' * 2000, b"{}"), "cannot be read"),
    "a list": (signed(b'{"alg":"ES256","kid":"k1"}', b'["jo"]'), "cannot be read"),
    "no UTF-8": (signed(b'{"alg":"ES256","kid":"k1"}', b'{"sub":"\xff"}'), "cannot be read"),
    "UTF-16": (signed('{"alg":"ES256"}'.encode("utf-16"), b"{}"), "cannot be read"),
    "a mark of UTF-8": (signed(b'\xef\xbb\xbf{"alg":"ES256"}', b"{}"), "cannot be read"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_token(name: str) -> None:
    text, said = MALFORMED[name]
    assert said in why(checker(), text)


@pytest.mark.parametrize(
    ("algorithm", "count"), [("ES256", 4000), ("EdDSA", 3000), ("RS256", 3000)]
)
def test_no_changed_token_is_right(algorithm: str, count: int) -> None:
    """Bits, bytes, and pieces of a good one changed, moved, doubled and cut."""
    tokens = checker(public(kind_for(algorithm), "k1"))
    good = token(algorithm=algorithm, header={"typ": "JWT"})
    assert tokens.look(good).is_right
    rng = random.Random(17)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\x00\xff"
    for _ in range(count):
        changed = _changed(good, rng, alphabet)
        if changed != good:
            look = tokens.look(changed)
            assert not look.is_right, changed
            assert look.why
            assert look.user == ""


def _changed(good: bytes, rng: random.Random, alphabet: bytes) -> bytes:
    text = bytearray(good)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 1, 2, 30)))
        how = rng.randrange(6)
        if how == 0:
            text[at:end] = bytes(rng.choices(alphabet, k=end - at))
        elif how == 1:
            del text[at:end]
        elif how == 2:
            text[at:at] = text[rng.randrange(len(text) + 1) :][: end - at]
        elif how == 3 and at < len(text):
            text[at] ^= 1 << rng.randrange(8)
        elif how == 4:
            # What the letters stand for, changed and written as it should be.
            parts = good.split(b".")
            which = rng.randrange(3)
            data = bytearray(base64.urlsafe_b64decode(parts[which] + b"=="))
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            parts[which] = encoded(bytes(data))
            text = bytearray(b".".join(parts))
        else:
            parts = bytes(text).split(b".")
            rng.shuffle(parts)
            text = bytearray(b".".join(parts))
    return bytes(text)


TOKENS: Final = checker()
_PARTS: Final = st.lists(st.binary(max_size=20).map(encoded), max_size=4).map(b".".join)
_NAMES: Final = st.sampled_from(["alg", "kid", "typ", "cty", "crit", "exp", "sub", "aud", "nbf"])
_SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_VALUES: Final = _SCALARS | st.lists(_SCALARS, max_size=2)


@given(st.binary(max_size=80) | _PARTS)
def test_whatever(text: bytes) -> None:
    assert why(TOKENS, text)


@given(st.dictionaries(_NAMES, _VALUES))
def test_whatever_is_signed(said: dict[str, Any]) -> None:
    """A header or claims of any kind: refused in our words, or right; and nothing is raised."""
    text = json.dumps(said).encode()
    for one in (signed(text, json.dumps(claims()).encode()), signed(b'{"alg":"ES256"}', text)):
        look = TOKENS.look(one)
        assert look.is_right is not bool(look.why)


def test_a_token_is_in_no_words() -> None:
    tokens = checker()
    for text, _ in MALFORMED.values():
        for part in filter(None, text.split(b".")):
            if len(part) > 8:
                assert part.decode("latin-1") not in why(tokens, text)

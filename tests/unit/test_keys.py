"""Files of keys that check tokens: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.guarded import FILE_MOST
from fastscp.users.keys import KEY_FILE_MOST, KEYS_MOST, Keys, parse_keys, read_keys
from tests.tokens import jwk, jwks, private, public, write_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (public("RSA"), RSA),
        (public("RSA", alg="PS384"), ("PS384",)),
        (public("RSA", use="sig", key_ops=["verify"], x5c=["..."]), RSA),
        (public("P-256"), ("ES256",)),
        (public("P-384"), ("ES384",)),
        (public("P-521"), ("ES512",)),
        (public("Ed25519"), ("EdDSA",)),
        (public("Ed448", alg="EdDSA"), ("EdDSA",)),
    ],
)
def test_a_key_fixes_its_algorithms(key: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    (found,), mistakes, useless = parse_keys(jwks(key))
    assert (found.kid, found.algorithms, mistakes, useless) == ("", algorithms, [], [])
    # What does not count stays behind.
    assert set(json.loads(found.jwk)) <= {"kty", "crv", "n", "e", "x", "y"}


# One key of a file, and what is said of it.
MISTAKES: Final[dict[str, tuple[Any, str]]] = {
    "symmetric": (
        {"kty": "oct", "k": "c2VjcmV0LTQ3MTE", "kid": "a"},
        "is symmetric (kty oct)",
    ),
    "private RSA": (jwk(private("RSA")), "is private, and whoever reads this file can make tokens"),
    "private EC": (jwk(private("P-256")), "is private, and"),
    "private OKP": (jwk(private("Ed25519")), "is private, and"),
    "private for others": (jwk(private("RSA"), use="enc"), "is private, and"),
    "no object": ("abc", "is no object"),
    "no kty": ({"n": "AQAB"}, "has no kty"),
    "a number as kty": ({"kty": 7}, "has no kty"),
    "a list as kty": ({"kty": ["RSA"]}, "has no kty"),
    "a kid that is no text": (public("P-256") | {"kid": 7}, "has a kid that is no text"),
    "an HMAC": (public("RSA", alg="HS256"), "has an alg that does not go with it; one of RS256,"),
    "none": (public("RSA", alg="none"), "has an alg that does not go with it"),
    "of another kind": (public("P-256", alg="RS256"), "does not go with it; one of ES256 does"),
    "of another curve": (public("P-256", alg="ES384"), "does not go with it"),
    "an object as alg": (public("P-256", alg={}), "does not go with it"),
    "no curve": ({"kty": "EC", "x": "AA", "y": "AA"}, "has no crv"),
    "a list as curve": ({"kty": "EC", "crv": ["P-256"]}, "has no crv"),
    "no modulus": ({"kty": "RSA", "e": "AQAB"}, 'has no "n" in base64url'),
    "no base64url": (public("RSA") | {"n": "AQ+/"}, 'has no "n" in base64url'),
    "padded": (public("Ed25519") | {"x": "AAAA="}, 'has no "x" in base64url'),
    "a number as modulus": (public("RSA") | {"n": 5}, 'has no "n" in base64url'),
    "not on the curve": (public("P-256") | {"x": "A" * 43}, "is none: its numbers do not make"),
    "cut": (public("Ed25519") | {"x": "AAAA"}, "is none: its numbers do not make"),
    "of one character": (public("Ed25519") | {"x": "A"}, "is none: its numbers do not make"),
    "weak": (jwk(private("RSA1024").public_key()), "has 1024 bits; an RSA key has 2048 at least"),
    "huge": (public("RSA") | {"n": "A" * 200_000}, 'has an "n" of more than 1367 characters'),
    "of 8208 bits": (public("RSA") | {"n": "_" * 1368}, 'has an "n" of more than'),
    "slow": (public("RSA") | {"e": "AQAAAAAAAQ"}, 'has an "e" of more than 6 characters'),
    "an even exponent": (public("RSA") | {"e": "Ag"}, "is none: its numbers do not make"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_key_that_is_a_mistake(name: str) -> None:
    """It is named by its place, told of whatever stands beside it, and shown to nobody."""
    key, why = MISTAKES[name]
    keys, mistakes, _useless = parse_keys(jwks(public("P-384"), key))
    assert len(keys) == 1
    assert len(mistakes) == 1
    assert mistakes[0].startswith("key 2 ")
    assert why in mistakes[0]
    assert len(mistakes[0]) < 300
    assert "c2VjcmV0" not in mistakes[0]


def test_keys_that_check_nothing_here() -> None:
    """Issuers have keys beside those that sign; kinds to come are told of and left out."""
    keys, mistakes, useless = parse_keys(
        jwks(
            public("RSA", "enc", use="enc", alg="RSA-OAEP"),
            public("RSA", "wrap", key_ops=["wrapKey"]),
            public("RSA", "ops", key_ops="verify"),
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
            {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
            public("Ed25519", "k1"),
        )
    )
    assert [one.kid for one in keys] == ["k1"]
    assert mistakes == []
    assert useless == [
        "key 4 is of a kind (kty) that is not known here",
        "key 5 is of a curve (crv) that is not known here",
    ]


def test_names_that_stand_twice() -> None:
    _keys, mistakes, _ = parse_keys(
        jwks(public("P-256", "a"), public("P-384", "b"), public("RSA", "a"))
    )
    assert mistakes == ["key 3 has the kid of key 1, too"]
    # Without names nothing is the same.
    assert len(parse_keys(jwks(public("P-256"), public("RSA")))[0]) == 2
    text = jwks(public("P-256", "a"))
    twice = text.replace(b'"kty"', b'"kty": "oct", "kty"')
    assert "has a name twice" in parse_keys(twice)[1][0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no JSON text of a JWK Set"),
        (b"-----BEGIN PUBLIC KEY-----", "is no JSON text of a JWK Set"),
        (b"\xff\xfe{}", "is no JSON text of a JWK Set"),
        (b"[]", "is no JSON text of a JWK Set (is no object)"),
        (b"[" * 100_000, "is no JSON text of a JWK Set (nests too deep)"),
        (b'{"keys": NaN}', "(has a number that is none)"),
        (b"{}", 'is no JWK Set, it has no list "keys"'),
        (json.dumps(public("RSA")).encode(), 'is no JWK Set, it has no list "keys"'),
        (b'{"keys": {}}', 'is no JWK Set, it has no list "keys"'),
        (b'{"keys": [' + b" " * KEY_FILE_MOST, "is larger than 262144 bytes"),
        (b'{"keys": [' + b"1," * KEYS_MOST + b"1]}", "has more than 100 keys"),
    ],
)
def test_a_file_that_is_none(data: bytes, why: str) -> None:
    keys, (mistake,), useless = parse_keys(data)
    assert why in mistake
    assert (keys, useless) == ((), [])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(
    ["kty", "crv", "n", "e", "x", "y", "d", "k", "alg", "use", "kid", "key_ops"]
)
_words = st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "ES256"])


@settings(max_examples=50)
@given(st.lists(st.dictionaries(_names, _words | _json, max_size=8) | _json, max_size=4))
def test_keys_of_whatever(several: list[Any]) -> None:
    """Each is a key, a mistake, or none; and nothing else is raised."""
    keys, mistakes, useless = parse_keys(json.dumps({"keys": several}).encode())
    assert len(keys) + len(mistakes) + len(useless) <= len(several)
    assert all(one.isprintable() for one in mistakes + useless)


@given(st.binary(max_size=60))
def test_a_file_of_whatever(data: bytes) -> None:
    assert parse_keys(data)[0] == ()


def test_a_file(tmp_path: Path) -> None:
    file = write_keys(tmp_path / "keys.json", public("P-256", "a"), {"kty": "AKP"})
    keys, warning = read_keys(file)
    assert [one.kid for one in keys] == ["a"]
    assert warning == (
        f"of {file} key 2 is of a kind (kty) that is not known here: nothing is checked with that"
    )
    write_keys(file, public("P-256", "a"))
    assert read_keys(file)[1] == ""
    shown = Keys(keys, ("pacs",), ("https://example.com/a", "b"))
    assert shown.claims == " issuer=https://example.com/a issuer=b audience=pacs"
    assert '"x"' not in repr(shown)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


BAD_FILES: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "not there": (
        lambda file: file.unlink(),
        "cannot read {} (No such file or directory); give the",
    ),
    "a folder": (_folder, "cannot read {} (it is no file); give the public keys of whoever makes"),
    "a FIFO": (_fifo, "cannot read {} (it is no file)"),
    "others write": (
        lambda file: file.chmod(0o664),
        "{} may be changed by others (mode 0664), who",
    ),
    "empty": (lambda file: file.write_bytes(b""), "{}: is no JSON text of a JWK Set"),
    "no keys": (lambda file: write_keys(file), "{} has no key that checks signatures; give"),
    "no use": (
        lambda file: write_keys(file, {"kty": "AKP"}),
        "{} has no key that checks signatures (key 1 is of a kind (kty) that is not known",
    ),
    "too large": (lambda file: file.write_bytes(b" " * (FILE_MOST + 9)), "{}: is larger than"),
    "many mistakes": (
        lambda file: write_keys(file, *[{"kty": "oct"}] * 9),
        "{}: key 1 is symmetric",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_refused(tmp_path: Path, name: str) -> None:
    file = write_keys(tmp_path / "keys.json", public("P-256"))
    spoil, why = BAD_FILES[name]
    spoil(file)
    with pytest.raises(ValueError, match=re.escape(why.format(file))) as caught:
        read_keys(file)
    assert name != "many mistakes" or str(caught.value).endswith("; and 4 more")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user(tmp_path: Path) -> None:
    file = write_keys(tmp_path / "keys.json", public("P-256"))
    os.chown(file, 4711, 4711)
    said = f"{file} is of user 4711, who can change it and let anybody in"
    assert read_keys(file)[1] == said
    write_keys(file, public("P-256"), {"kty": "AKP"})
    assert read_keys(file)[1].startswith(f"{said}; of {file} key 2 is")


def test_a_file_whose_name_others_may_give_away(tmp_path: Path) -> None:
    """Behind a symbolic link it is the folder of the file itself that counts."""
    folder = tmp_path / "open"
    folder.mkdir()
    file = write_keys(folder / "keys.json", public("P-256"))
    link = tmp_path / "keys.json"
    link.symlink_to(file)
    folder.chmod(0o777)
    beside = folder / "beside"
    beside.symlink_to(write_keys(tmp_path / "own.json", public("P-256")))
    for path in (file, link, beside):
        with pytest.raises(ValueError, match=r"a folder that everybody may change \(.*open\)"):
            read_keys(path)
    # In one like /tmp nobody takes away what is another's.
    for mode in (0o1777, 0o775):
        folder.chmod(mode)
        assert len(read_keys(link)[0]) == 1


@pytest.mark.parametrize("module", ["jwt", "cryptography.hazmat.primitives.asymmetric.ec"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    file = write_keys(tmp_path / "keys.json", public("P-256"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=r"in its checkout: pip install '\.\[identity\]'"
    ) as caught:
        read_keys(file)
    assert "need PyJWT and cryptography" in str(caught.value)

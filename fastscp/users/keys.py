"""A file of public keys that check JSON Web Tokens: a JWK Set, read and looked through whole.

Only keys of which the holder can check and not sign are taken: RSA, EC and OKP (Ed25519, Ed448). A
key fixes which algorithms it goes with, so that a token cannot have a public key taken for the
secret of an HMAC, nor be taken unsigned. Source: RFC 7517, RFC 7518 6, RFC 8037 2, RFC 8725 3.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastscp.guarded import read_guarded, told
from fastscp.users.strictjson import read_object

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEYS_MOST", "KEY_FILE_MOST", "Key", "Keys", "parse_keys", "public_key", "read_keys"]

# What a file may hold: far more than any issuer has at a time.
KEY_FILE_MOST: Final = 256 << 10
KEYS_MOST: Final = 100
# Bits of an RSA key: below it is broken, and beyond each check takes long (RFC 7518 3.3).
RSA_LEAST: Final = 2048
RSA_MOST: Final = 8192
# Characters of base64url that are not looked at any more, for the same reason.
_NUMBER_MOST: Final = RSA_MOST // 6 + 2
_EXPONENT_MOST: Final = 6

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
# The members of a public key, and those that are in private ones alone.
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")

_GIVE: Final = (
    "give the public keys of whoever makes the tokens, as a JWK Set (what its jwks_uri sends)"
)
_NOT_INSTALLED: Final = (
    "JSON Web Tokens need PyJWT and cryptography, and they cannot be loaded here ({}): "
    "install fastscp with its extra, in its checkout: pip install '.[identity]'"
)


class Key(msgspec.Struct, frozen=True):
    """One public key.

    kid: its name in tokens; empty: it has none. algorithms: what it checks, as tokens name it. jwk:
    the members of it that count, as JSON.
    """

    kid: str
    algorithms: tuple[str, ...]
    jwk: str


class Keys(msgspec.Struct, frozen=True):
    """The keys of a file, and what is asked of the tokens that they signed.

    audiences: a token names one of them (`aud`); empty: see `tokens`. issuers: it is from one of
    them (`iss`); empty: whoever signed it.
    """

    keys: tuple[Key, ...]
    audiences: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()

    @property
    def claims(self) -> str:
        """What is asked, as an operator writes it behind the file."""
        return "".join(
            f" {word}={one}"
            for word, several in (("issuer", self.issuers), ("audience", self.audiences))
            for one in several
        )

    def __repr__(self) -> str:
        return f"Keys({len(self.keys)} keys{self.claims})"


# The file ----------------------------------------------------------------------------------------


def read_keys(path: Path) -> tuple[tuple[Key, ...], str]:
    """The keys of a file, and what is not as it should be with it, or "".

    Raises ValueError, which names the file, what is wrong and the way out, and nothing secret.
    Cost: the first call imports cryptography, some 13 MiB.
    """
    data, _about, warning = read_guarded(path, _GIVE)
    try:
        import cryptography.hazmat.primitives.asymmetric.ec  # noqa: F401
        import jwt  # noqa: F401
    except ImportError as error:
        raise ValueError(_NOT_INSTALLED.format(error)) from None
    keys, mistakes, useless = parse_keys(data)
    if mistakes:
        raise ValueError(f"{path}: {told(mistakes)}")
    if not keys:
        why = f" ({told(useless)})" if useless else ""
        raise ValueError(f"{path} has no key that checks signatures{why}; {_GIVE}")
    if useless:
        left_out = f"of {path} {told(useless)}: nothing is checked with that"
        warning = f"{warning}; {left_out}" if warning else left_out
    return keys, warning


def parse_keys(data: bytes) -> tuple[tuple[Key, ...], list[str], list[str]]:
    """The keys of a file's contents, all that is wrong with it, and what of it is of no use.

    A set may hold keys for other ends, or of kinds that are not known here: they are left out.
    Source: RFC 7517 5.
    """
    if len(data) > KEY_FILE_MOST:
        return (), [f"is larger than {KEY_FILE_MOST} bytes"], []
    try:
        listed = read_object(data).get("keys")
    except ValueError as error:
        return (), [f"is no JSON text of a JWK Set ({error}); {_GIVE}"], []
    if not isinstance(listed, list):
        return (), [f'is no JWK Set, it has no list "keys"; {_GIVE}'], []
    if len(listed) > KEYS_MOST:
        return (), [f"has more than {KEYS_MOST} keys"], []
    numbers: dict[str, int] = {}
    keys: list[Key] = []
    mistakes: list[str] = []
    useless: list[str] = []
    for number, jwk in enumerate(listed, start=1):
        try:
            key = _key(jwk)
            if key is None:
                continue
            if key.kid and key.kid in numbers:
                raise ValueError(f"has the kid of key {numbers[key.kid]}, too")
        except _UselessError as error:
            useless.append(f"key {number} {error}")
        except ValueError as error:
            mistakes.append(f"key {number} {error}")
        else:
            numbers[key.kid] = number
            keys.append(key)
    return tuple(keys), mistakes, useless


class _UselessError(Exception):
    """A key that may be right, and checks no token here."""


def _key(jwk: object) -> Key | None:
    """A key; None: one for another end, as issuers have beside those that sign."""
    if not isinstance(jwk, dict):
        raise ValueError("is no object")
    kind = jwk.get("kty")
    if kind == "oct":
        raise ValueError(
            "is symmetric (kty oct), and whoever can check with it can make tokens: have the "
            "tokens signed with RS256, ES256 or EdDSA, and give the public key"
        )
    if any(name in jwk for name in _PRIVATE):
        raise ValueError(
            "is private, and whoever reads this file can make tokens: take a new one, and put its "
            "public part here"
        )
    if jwk.get("use", "sig") != "sig" or "verify" not in _list(jwk.get("key_ops", ["verify"])):
        return None
    kid = jwk.get("kid", "")
    if not isinstance(kid, str):
        raise ValueError("has a kid that is no text")
    possible = _algorithms(jwk)
    algorithm = jwk.get("alg")
    if algorithm is not None and algorithm not in possible:
        raise ValueError(f"has an alg that does not go with it; one of {', '.join(possible)} does")
    members = {name: jwk[name] for name in ("kty", "crv", *_PUBLIC[str(kind)]) if name in jwk}
    key = Key(kid, possible if algorithm is None else (algorithm,), json.dumps(members))
    _look_at(public_key(key))
    return key


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _algorithms(jwk: dict[str, Any]) -> tuple[str, ...]:
    """What a key can check. Raises ValueError, and _UselessError for what is not known here."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kind, str):
        raise ValueError("has no kty")
    if kind not in _PUBLIC:
        raise _UselessError("is of a kind (kty) that is not known here")
    if kind != "RSA" and not isinstance(curve, str):
        raise ValueError("has no crv")
    possible = _RSA if kind == "RSA" else _CURVES.get((kind, str(curve)))
    if possible is None:
        raise _UselessError("is of a curve (crv) that is not known here")
    for name in _PUBLIC[kind]:
        value = jwk.get(name)
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            raise ValueError(f'has no "{name}" in base64url')
        most = _EXPONENT_MOST if name == "e" else _NUMBER_MOST
        if len(value) > most:
            raise ValueError(f'has an "{name}" of more than {most} characters')
    return possible


def _look_at(key: Any) -> None:
    """Raise ValueError for an RSA key that is weak or slow."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, RSAPublicKey) and not RSA_LEAST <= key.key_size <= RSA_MOST:
        raise ValueError(
            f"has {key.key_size} bits; an RSA key has {RSA_LEAST} at least and {RSA_MOST} at most"
        )


def public_key(key: Key) -> Any:
    """A key as cryptography knows it. Raises ValueError for one that is none, such as no point."""
    import jwt
    from jwt.algorithms import get_default_algorithms

    try:
        return get_default_algorithms()[key.algorithms[0]].from_jwk(key.jwk)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ValueError("is none: its numbers do not make a public key") from None

"""JSON Web Tokens that requestors show: signed by a key of the file, in time, and for us.

What a token says of itself is looked at before any key is: a form of which there are two readings,
and a header that asks for more than a signature, are refused. The signature and the claims are
PyJWT's to check. Source: RFC 7519, RFC 7515, RFC 8725.
"""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastscp.users.keys import public_key
from fastscp.users.strictjson import read_object

if TYPE_CHECKING:
    from fastscp.users.keys import Key, Keys

__all__ = ["LEEWAY_S", "TOKEN_MOST", "Look", "Tokens"]

# Bytes of a token. One with hundreds of groups in it has some thousands.
TOKEN_MOST: Final = 16384
# By how much clocks may differ.
LEEWAY_S: Final = 30
# Bytes of a user's name, as of one with a password.
_NAME_MOST: Final = 255
# Seconds since 1970 of which a date can be told.
_LATEST: Final = 253402300799

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# What may be behind a name that says what kind of token it is (RFC 7519 5.1, RFC 9068 2.1).
_TYPES: Final = ("jwt", "at+jwt")
# Asks for what is not a signature over these bytes: another part that has to be understood, no
# base64, a token within the token, compression.
_NOT_TAKEN: Final = ("crit", "b64", "zip", "enc")


class Look(NamedTuple):
    """What came of a look at what a requestor shows.

    is_right: whether its user may come in. user: who that is, or whom a key has signed for; empty:
    nobody is known. why: what is wrong with it. holds_s: how long it is right, from now.
    """

    is_right: bool
    user: str = ""
    why: str = ""
    holds_s: float = 0.0


class _Refused(Exception):  # noqa: N818 - it is an answer
    """Why a token is not taken: words of ours, and nothing that is in it."""


class Tokens:
    """Looks at tokens by the keys of a file.

    titles: the AE titles that are ours; one of them has to be among the audiences that a token
    names, if it names any and no others are asked for.
    """

    def __init__(self, keys: Keys, titles: tuple[str, ...]) -> None:
        self._keys = keys
        self._titles = titles
        self._loaded: dict[Key, Any] = {}

    def load(self) -> None:
        """Import what is needed, and make the keys: before the first look, which would wait."""
        import jwt  # noqa: F401

        self._loaded = {key: public_key(key) for key in self._keys.keys}

    def look(self, token: bytes) -> Look:
        """Whether a token is right, and whose it is. Cost: 1 ms of a processor, 3 for P-521."""
        if not self._loaded:
            self.load()
        user = ""
        try:
            header, claims = _read(token)
            key = self._key(header)
            self._verify_signature(token, key, header["alg"])
            # From here on it is known who has made it, and that its words are theirs.
            user = _user(claims)
            self._verify_claims(token, claims, key)
            return Look(True, user, holds_s=claims["exp"] + LEEWAY_S - time.time())
        except _Refused as why:
            return Look(False, user, str(why))

    def _key(self, header: dict[str, Any]) -> Key:
        """The one key that may have signed it."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if kid is None:
            fit = [key for key in self._keys.keys if algorithm in key.algorithms]
            if len(fit) > 1:
                raise _Refused("it names no key (kid), and the file has several that may be it")
        else:
            named = [key for key in self._keys.keys if key.kid == kid and kid]
            if not named:
                raise _Refused("it names a key (kid) that is not in the file")
            fit = [key for key in named if algorithm in key.algorithms]
        if not fit:
            raise _Refused("its algorithm (alg) is none that a key of the file goes with")
        return fit[0]

    def _verify_signature(self, token: bytes, key: Key, algorithm: str) -> None:
        import jwt

        try:
            jwt.api_jws.decode(token, self._loaded[key], [algorithm])
        except (jwt.PyJWTError, ValueError):
            raise _Refused("its signature is wrong") from None

    def _verify_claims(self, token: bytes, claims: dict[str, Any], key: Key) -> None:
        """Its times, whom it is for, and from whom it is. Source: RFC 7519 4.1.

        The signature is looked at once more: no claim is ever read of what was not verified.
        """
        import jwt

        for name in ("exp", "nbf", "iat"):
            if name in claims and not _is_time(claims[name]):
                raise _Refused(f"its {name} is no time")
        wanted = self._keys.audiences or (self._titles if "aud" in claims else ())
        try:
            jwt.decode(
                token,
                self._loaded[key],
                list(key.algorithms),
                {"require": ["exp"], "verify_aud": bool(wanted)},
                audience=wanted or None,
                issuer=self._keys.issuers or None,
                leeway=LEEWAY_S,
            )
        except jwt.ExpiredSignatureError:
            raise _Refused(f"it expired at {_date(claims['exp'])}") from None
        except jwt.ImmatureSignatureError:
            begins = max(claims.get("nbf", 0), claims.get("iat", 0))
            raise _Refused(f"it is not valid before {_date(begins)}") from None
        except jwt.MissingRequiredClaimError as error:
            raise _Refused(_MISSING.get(str(error.claim), "it says too little")) from None
        except jwt.InvalidAudienceError:
            raise _Refused(_MISSING["aud"]) from None
        except jwt.InvalidIssuerError:
            raise _Refused(_MISSING["iss"]) from None
        except jwt.PyJWTError:
            raise _Refused("its claims cannot be read") from None


_MISSING: Final = {
    "exp": "it says not when it expires (exp)",
    "aud": "it is for others: its audience (aud) is none of ours",
    "iss": "it is from others: its issuer (iss) is none of those asked for",
}


def _read(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, of which there is one reading alone. Nothing of them is verified."""
    if len(token) > TOKEN_MOST:
        raise _Refused(f"it has more than {TOKEN_MOST} bytes")
    if not _COMPACT.fullmatch(token):
        raise _Refused("it is not three parts in base64url, with dots between them")
    try:
        parts = [_decoded(part) for part in token.split(b".")]
        header, claims = read_object(parts[0]), read_object(parts[1])
    except ValueError:
        raise _Refused("its header or its claims cannot be read, or can be in two ways") from None
    kind, content = header.get("typ", "jwt"), header.get("cty", "")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise _Refused("it is of another type (typ)")
    if any(name in header for name in _NOT_TAKEN) or "jwt" in str(content).lower():
        raise _Refused("its header asks for more than a signature")
    if not isinstance(header.get("kid", ""), str):
        raise _Refused("its key (kid) is no name")
    return header, claims


def _decoded(part: bytes) -> bytes:
    """One part. Raises ValueError where its last bits say nothing, and could be others."""
    data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise ValueError("has bits that say nothing")
    return data


def _user(claims: dict[str, Any]) -> str:
    user = claims.get("sub")
    if not isinstance(user, str) or not user:
        raise _Refused("it names no user (sub)")
    if not user.isprintable() or len(user.encode("utf-8")) > _NAME_MOST:
        raise _Refused("its user (sub) is no name: it has control characters, or is too long")
    return user


def _is_time(value: object) -> bool:
    """Whether it is a NumericDate (RFC 7519 2) that has a date. A number in a text is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Infinity is beyond it, and what is no number is nowhere.
    return 0 <= value <= _LATEST


def _date(value: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))

"""Keys that sign JSON Web Tokens, the files that check them, and tokens of all kinds."""

from __future__ import annotations

import base64
import functools
import json
import time
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


def private(kind: str, number: int = 0) -> Any:
    """A private key, the same one each time. kind: RSA, a size of it, or a curve. number: which."""
    return _private(kind, number)


@functools.cache
def _private(kind: str, number: int) -> Any:
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def kind_for(algorithm: str) -> str:
    """The kind of key that signs with an algorithm."""
    kinds = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
    return kinds.get(algorithm, "RSA")


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """A key as a JWK: private if it is."""
    kinds = ((rsa.RSAPrivateKey, "RS256"), (rsa.RSAPublicKey, "RS256"))
    curves = ((ec.EllipticCurvePrivateKey, "ES256"), (ec.EllipticCurvePublicKey, "ES256"))
    name = next((one for kind, one in (*kinds, *curves) if isinstance(key, kind)), "EdDSA")
    text = get_default_algorithms()[name].to_jwk(key)
    found = dict(json.loads(text))
    found.pop("key_ops", None)
    return found | more | ({} if kid is None else {"kid": kid})


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def public(kind: str, kid: str | None = None, number: int = 0, **more: Any) -> dict[str, Any]:
    return jwk(private(kind, number).public_key(), kid, **more)


def claims(**more: Any) -> dict[str, Any]:
    """What a token says that is right; None as a value takes one away."""
    found = {"sub": "jo", "exp": int(time.time()) + 600} | more
    return {name: value for name, value in found.items() if value is not None}


def token(
    said: dict[str, Any] | None = None,
    *,
    algorithm: str = "ES256",
    kid: str | None = "k1",
    key: Any = None,
    header: dict[str, Any] | None = None,
) -> bytes:
    """A token, signed with the private key that goes with the algorithm."""
    more = ({} if kid is None else {"kid": kid}) | (header or {})
    key = private(kind_for(algorithm)) if key is None else key
    return jwt.encode(claims() if said is None else said, key, algorithm, more).encode()


def signed(header: bytes, said: bytes, *, algorithm: str = "ES256", key: Any = None) -> bytes:
    """A token of bytes as they are, with a good signature."""
    key = private(kind_for(algorithm)) if key is None else key
    body = b".".join((encoded(header), encoded(said)))
    return body + b"." + encoded(get_default_algorithms()[algorithm].sign(body, key))


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def write_keys(file: Path, *keys: dict[str, Any]) -> Path:
    file.write_bytes(jwks(*keys))
    file.chmod(0o644)
    return file

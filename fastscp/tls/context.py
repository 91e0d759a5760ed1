"""The contexts of TLS that connections are made with: a receiver's, from what was read before, and
a sender's.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import warnings
from typing import TYPE_CHECKING, Final, NoReturn

from fastscp.tls.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.tls.material import Material
    from fastscp.tls.profiles import Profile

__all__ = ["client_context", "lacks_ciphers", "server_context"]

_ASKED_FOR: Final = {
    "none": ssl.CERT_NONE,
    "request": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}
# The group of 2048 bits that everybody knows by name, ffdhe2048. Source: RFC 7919 A.1.
_DH_GROUP: Final = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def server_context(material: Material) -> ssl.SSLContext:
    """A context with what was read; nothing is looked up on the disk.

    It takes no session up again over TLS 1.3, and over 1.2 only one of its own: with a new context
    every peer is verified anew. Raises ssl.SSLError for what `read` would have refused, OSError.
    """
    profile = PROFILES[material.profile]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _keep_to(context, profile)
    # Early data is taken by no default.
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    if any(cipher.startswith("DHE-") for cipher in profile.ciphers):
        with _in_memory(_DH_GROUP) as path:
            context.load_dh_params(path)
    with _in_memory(material.chain) as chain, _in_memory(material.key) as key:
        context.load_cert_chain(chain, key, _nobody_is_asked)
    context.verify_mode = _ASKED_FOR[material.client_auth]
    if material.client_auth != "none":
        with _in_memory(material.ca) as path:
            context.load_verify_locations(path)
        # Whoever is named is trusted, be it a CA below another, or one modality by itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if material.crl:
            with _in_memory(material.crl) as path:
                context.load_verify_locations(path)
            every, leaf = ssl.VERIFY_CRL_CHECK_CHAIN, ssl.VERIFY_CRL_CHECK_LEAF
            context.verify_flags |= every if material.every_crl else leaf
    return context


def client_context(profile: Profile) -> ssl.SSLContext:
    """A context of a sender: it trusts whom the system trusts, and shows no certificate.

    Raises ssl.SSLError where the OpenSSL of this machine has no cipher of the profile, which
    `lacks_ciphers` tells.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    _keep_to(context, profile)
    return context


def lacks_ciphers(error: ssl.SSLError, profile: str) -> str:
    """Why a profile cannot be had on this machine, by its name; "": the error is another one."""
    # Python has an error of its own for a list of ciphers of which there is none.
    if (getattr(error, "reason", None) or "") not in ("", "NO_CIPHER_MATCH"):
        return ""
    return (
        f"{profile!r} has no cipher that the OpenSSL of this machine knows "
        f"({ssl.OPENSSL_VERSION}); choose another profile"
    )


def _keep_to(context: ssl.SSLContext, profile: Profile) -> None:
    """Have a context speak the versions and ciphers of a profile alone."""
    with warnings.catch_warnings():
        # Of the old versions, which the operator was warned of.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion[profile.oldest]
        context.maximum_version = ssl.TLSVersion[profile.newest]
    context.set_ciphers(profile.openssl)
    # Each is the default of some build, and of none for sure.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path by which OpenSSL, which reads files alone, gets at bytes that are in none."""
    fd = os.memfd_create("fastscp-tls", os.MFD_CLOEXEC)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _nobody_is_asked() -> NoReturn:
    # OpenSSL would ask on the terminal.
    raise ssl.SSLError("the key is encrypted")

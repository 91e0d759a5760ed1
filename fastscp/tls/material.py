"""What a receiver needs for TLS, read and checked, on its way to the workers."""

from __future__ import annotations

import msgspec

__all__ = ["Material", "MaterialError"]


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates, key and revocation lists as PEM, with what they are used for. Immutable.

    chain: the certificate of the receiver, then those that lead to its CA. key: its private key,
    not encrypted. ca: the certificates that clients are checked by; empty: none are. crl: lists of
    what these have revoked; every_crl: each of `ca` has one. client_auth: none, request or require.
    profile: see `profiles`. subject: the receiver's certificate, for people. begins, expires: when
    the last of `chain` begins to be valid, and the first ends to be; crl_expires: when the first of
    `crl` does, 0 where there is none; all in seconds of the epoch. crl_file: where that one is.
    warnings: what works, and is not as it should be.
    """

    chain: bytes
    key: bytes
    ca: bytes = b""
    crl: bytes = b""
    every_crl: bool = False
    client_auth: str = "none"
    profile: str
    subject: str
    begins: float
    expires: float
    crl_expires: float = 0.0
    crl_file: str = ""
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # Its key is for nobody's eyes.
        return f"Material({self.subject!r}, {self.profile!r}, {self.client_auth!r})"


class MaterialError(Exception):
    """What is wrong with the files. mistakes: the field of the setting, and why, one or more."""

    def __init__(self, *mistakes: tuple[str, str]) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

"""Certificates for tests: made once a run, of elliptic curves where nothing else is asked for.

`Certificates` makes what a test names; those that most tests need are its attributes. All are PEM
files; a key is beside its certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Authority", "Certificates", "Signed"]

_DAY: Final = datetime.timedelta(days=1)
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Signed:
    """A certificate with its key. cert, key, both: files. both: the chain first, then the key."""

    cert: Path
    key: Path
    both: Path
    certificate: x509.Certificate
    private_key: Key

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Authority:
    """Who signs. cert: its file."""

    cert: Path
    certificate: x509.Certificate
    private_key: Key


def _name(subject: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, subject),
        ]
    )


def _new_key(*, is_rsa: bool = False, bits: int = 2048) -> Key:
    if is_rsa:
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return ec.generate_private_key(ec.SECP256R1())


class Certificates:
    """Makes certificates in a folder. now: what counts as today."""

    def __init__(self, folder: Path, now: datetime.datetime | None = None) -> None:
        self._folder = folder
        self._now = now or datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self._number = 0
        self._keys: dict[bool, Key] = {}

    # What tests have in common -------------------------------------------------------------------

    @cached_property
    def ca(self) -> Authority:
        return self.authority("Test CA")

    @cached_property
    def other_ca(self) -> Authority:
        """One that nobody trusts."""
        return self.authority("Other CA")

    @cached_property
    def intermediate(self) -> Authority:
        """Below `ca`."""
        return self.authority("Intermediate CA", by=self.ca)

    @cached_property
    def server(self) -> Signed:
        """For 127.0.0.1, ::1 and localhost."""
        return self.signed("server", san=LOCAL, usage=[SERVER])

    @cached_property
    def rsa_server(self) -> Signed:
        """The same, of RSA: what old peers and DCMTK's profiles can do."""
        return self.signed("rsa-server", san=LOCAL, usage=[SERVER], is_rsa=True)

    @cached_property
    def chained_server(self) -> Signed:
        """Signed by `intermediate`, whose certificate is in the file."""
        return self.signed("chained-server", by=self.intermediate, san=LOCAL, chain=True)

    @cached_property
    def expired_server(self) -> Signed:
        return self.signed("expired-server", san=LOCAL, days=(-30, -1))

    @cached_property
    def client(self) -> Signed:
        """GATE-1, with each kind of alternative name."""
        return self.signed("GATE-1", san=CLIENT_NAMES, usage=[CLIENT])

    @cached_property
    def other_client(self) -> Signed:
        """GATE-2, without alternative names."""
        return self.signed("GATE-2", usage=[CLIENT])

    @cached_property
    def chained_client(self) -> Signed:
        """Signed by `intermediate`, whose certificate is in the file."""
        return self.signed("GATE-3", by=self.intermediate, usage=[CLIENT], chain=True)

    @cached_property
    def expired(self) -> Signed:
        return self.signed("EXPIRED", usage=[CLIENT], days=(-30, -1))

    @cached_property
    def not_yet(self) -> Signed:
        return self.signed("NOT-YET", usage=[CLIENT], days=(1, 30))

    @cached_property
    def unknown(self) -> Signed:
        """GATE-1 again, of a CA that nobody trusts."""
        return self.signed("GATE-1", by=self.other_ca, usage=[CLIENT])

    @cached_property
    def for_servers(self) -> Signed:
        """GATE-1 again, for TLS servers alone."""
        return self.signed("GATE-1", usage=[SERVER])

    @cached_property
    def self_signed(self) -> Signed:
        """A client without a CA, as modalities make one."""
        return self.signed("MODALITY", alone=True)

    @cached_property
    def revoked(self) -> Signed:
        return self.signed("REVOKED", usage=[CLIENT])

    @cached_property
    def crl(self) -> Path:
        """Of `ca`: `revoked` is in it."""
        return self.revocations(self.ca, [self.revoked])

    @cached_property
    def expired_crl(self) -> Path:
        """The same, out of date."""
        return self.revocations(self.ca, [self.revoked], days=(-30, -1))

    # How they are made ---------------------------------------------------------------------------

    def authority(
        self, subject: str, by: Authority | None = None, *, days: tuple[int, int] = (-1, 365)
    ) -> Authority:
        key = _new_key()
        certificate = self._sign(
            subject, key, by, days,
            x509.BasicConstraints(ca=True, path_length=None),
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False,
            ),
        )  # fmt: skip
        path = self._write(subject, "ca.pem", certificate.public_bytes(Encoding.PEM))
        return Authority(path, certificate, key)

    def signed(
        self,
        subject: str,
        by: Authority | None = None,
        *,
        san: Sequence[x509.GeneralName] = (),
        usage: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
        days: tuple[int, int] = (-1, 365),
        is_rsa: bool = False,
        bits: int = 2048,
        alone: bool = False,
        chain: bool = False,
        passphrase: bytes | None = None,
        extension: x509.ExtensionType | None = None,
    ) -> Signed:
        """A certificate of a machine. by: who signs; `ca` if None. days: from and to, of today.

        alone: it signs itself. chain: the one that signs stands behind it in its files.
        extension: one more, whatever it is.
        """
        by = None if alone else by or self.ca
        key = _new_key(is_rsa=is_rsa, bits=bits)
        certificate = self._sign(
            subject, key, by, days,
            x509.BasicConstraints(ca=False, path_length=None),
            x509.ExtendedKeyUsage(list(usage)) if usage else None,
            x509.SubjectAlternativeName(list(san)) if san else None,
            extension,
        )  # fmt: skip
        pem = certificate.public_bytes(Encoding.PEM)
        if chain and by is not None:
            pem += by.certificate.public_bytes(Encoding.PEM)
        how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        return Signed(
            self._write(subject, "cert.pem", pem),
            self._write(subject, "key.pem", secret),
            self._write(subject, "both.pem", pem + secret),
            certificate,
            key,
        )

    def revocations(
        self, by: Authority, revoked: Sequence[Signed] = (), *, days: tuple[int, int] = (-1, 30)
    ) -> Path:
        """A file with a revocation list."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(by.certificate.subject)
            .last_update(self._now + days[0] * _DAY)
            .next_update(self._now + days[1] * _DAY)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(self._now + days[0] * _DAY).build()
            )
        signed = builder.sign(by.private_key, hashes.SHA256())
        return self._write("list", "crl.pem", signed.public_bytes(Encoding.PEM))

    def joined(self, *paths: Path) -> Path:
        """A file with what others have."""
        return self._write("joined", "all.pem", b"".join(path.read_bytes() for path in paths))

    def _sign(
        self,
        subject: str,
        key: Key,
        by: Authority | None,
        days: tuple[int, int],
        *extensions: x509.ExtensionType | None,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(subject) if by is None else by.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + days[0] * _DAY)
            .not_valid_after(self._now + days[1] * _DAY)
        )
        for one in extensions:
            if one is not None:
                builder = builder.add_extension(one, isinstance(one, x509.BasicConstraints))
        signer = key if by is None else by.private_key
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        return builder.sign(signer, hashes.SHA256())

    def _write(self, subject: str, what: str, data: bytes) -> Path:
        self._number += 1
        path = self._folder / f"{self._number:03}-{subject.replace(' ', '-')}-{what}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        return path

    # Contexts of peers ---------------------------------------------------------------------------

    def client_context(
        self, shown: Signed | None = None, *, ca: Authority | None = None
    ) -> ssl.SSLContext:
        """Of a sender that trusts `ca` alone. shown: its own certificate; None: it has none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations((ca or self.ca).cert)
        if shown is not None:
            context.load_cert_chain(shown.both)
        return context


LOCAL: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)
CLIENT_NAMES: Final = (
    x509.DNSName("gate-1.example.com"),
    x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    x509.RFC822Name("gate@example.com"),
    x509.UniformResourceIdentifier("urn:gate:1"),
)

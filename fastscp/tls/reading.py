"""The files of TLS that the settings name, read and checked whole: all of them, or why not.

Main reads them, so that no worker needs the right to. What is passed on are the certificates and
the key alone, written anew: what else stands in a file makes no difference.
"""

from __future__ import annotations

import re
import ssl
import stat
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.guarded import read_plain
from fastscp.log.text import escape
from fastscp.tls.context import lacks_ciphers, server_context
from fastscp.tls.material import Material, MaterialError
from fastscp.tls.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["CRL_MOST", "FILE_MOST", "Files", "read"]

# Bytes of a file, and of one with revocation lists: a CA of a country revokes many.
FILE_MOST: Final = 1 << 20
CRL_MOST: Final = 64 << 20
_PRIVATE_KEY: Final = b"PRIVATE KEY-----"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_CRL: Final = b"-----BEGIN X509 CRL-----"
# The first or the last line of a block (RFC 7468), or what is left of one.
_BOUNDARY: Final = re.compile(rb"-----(BEGIN|END) ([^\r\n-]*)(-----)?")
_CERTIFICATE_LABELS: Final = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
# How a file ends that is cut before the word is whole.
_CUT_WORD: Final = re.compile(rb"-----(B|BE|BEG|BEGI|BEGIN|E|EN|END)\Z")


@dataclass(frozen=True)
class Files:
    """What the settings name. key: empty: it is in `cert`. client_auth: none, request, require."""

    cert: str
    profile: str
    key: str = ""
    ca: tuple[str, ...] = ()
    crl: tuple[str, ...] = ()
    client_auth: str = "none"


@dataclass
class _Found:
    """What is wrong, or not as it should be, by now."""

    mistakes: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def settle(self) -> None:
        if self.mistakes:
            raise MaterialError(*self.mistakes)


def read(files: Files) -> Material:
    """Read all of it. Raises MaterialError: what is wrong with each file that can be read so far.

    What is out of date is no mistake: see `Material.expires`. Cost: imports cryptography; looks at
    the disk.
    """
    found = _Found()
    chain = _certificates("tls_cert", files.cert, found)
    # What is wrong with a file is told once, though the key may be missing from it, too.
    key = _key(files, found) if chain or files.key else None
    authorities = [one for path in files.ca for one in _authorities(path, found)]
    dated = [(path, one) for path in files.crl for one in _lists(path, authorities, found)]
    lists = [one for _path, one in dated]
    crl_expires, crl_file = min(
        (
            (one.next_update_utc.timestamp(), path)
            for path, one in dated
            if one.next_update_utc is not None
        ),
        default=(0.0, ""),
    )
    found.settle()
    _check_chain(files.cert, chain, key, found)
    found.settle()
    every_crl = _check_crl(authorities, lists, found)
    if not _is_for_servers(chain[0]):
        found.warnings.append(
            f"the certificate of {files.cert} is not for TLS servers (extended key usage): senders "
            f"that look at it refuse it"
        )
    profile = PROFILES[files.profile]
    if profile.warning:
        found.warnings.append(f"--tls-profile {files.profile} {profile.warning}")
    return _usable(
        files,
        Material(
            chain=b"".join(map(_pem, chain)),
            key=_key_pem(key),
            ca=b"".join(dict.fromkeys(map(_pem, authorities))),
            crl=b"".join(dict.fromkeys(map(_pem, lists))),
            every_crl=every_crl,
            client_auth=files.client_auth,
            profile=files.profile,
            subject=_subject(chain[0]),
            begins=max(one.not_valid_before_utc.timestamp() for one in chain),
            expires=min(one.not_valid_after_utc.timestamp() for one in chain),
            crl_expires=crl_expires,
            crl_file=crl_file,
            warnings=tuple(found.warnings),
        ),
    )


def _usable(files: Files, material: Material) -> Material:
    """The material, if OpenSSL takes it as a worker will. Raises MaterialError."""
    try:
        server_context(material)
    except ssl.SSLError as error:
        if why := lacks_ciphers(error, files.profile):
            raise MaterialError(("tls_profile", why)) from None
        reason = error.reason
        said = reason.replace("_", " ").lower() or str(error)
        if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            why = (
                f"the certificate of {files.cert} is too weak for --tls-profile {files.profile} "
                f"({said}); make one with RSA of 2048 bits or P-256, and SHA-256"
            )
        else:
            why = f"OpenSSL cannot use {files.cert} ({said}); have it made anew"
        raise MaterialError(("tls_cert", why)) from None
    return material


# Files -------------------------------------------------------------------------------------------


def _data(setting: str, path: str, found: _Found, most: int = FILE_MOST) -> tuple[bytes, int]:
    """What is in a file, and its mode; b"" where that is a mistake."""
    try:
        data, about = read_plain(Path(path), most)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        found.mistakes.append(
            (setting, f"cannot read {path} ({reason}); give a PEM file that {_US} can read")
        )
        return b"", 0
    why = ""
    if len(data) > most:
        why = f"{path} is larger than {most} bytes, so it is no such file; give another"
    elif not data.strip():
        why = f"{path} is empty; give a PEM file"
    elif b"-----BEGIN " not in data:
        what = "crl" if setting == "tls_crl" else "x509"
        why = f"{path} is not PEM; give a PEM file"
        if data.startswith(b"\x30"):
            why = (
                f"{path} is DER, and PEM is needed: openssl {what} -inform DER -in {path} -out "
                f"{Path(path).stem}.pem"
            )
    else:
        why = _torn(path, data)
    if why:
        found.mistakes.append((setting, why))
        return b"", 0
    return data, stat.S_IMODE(about.st_mode)


_US: Final = "the user of the service"


def _torn(path: str, data: bytes) -> str:
    """Why a PEM file is not whole, as one that was being written or copied; "": it is.

    What reads the blocks passes over one without an end.
    """
    begun, start = b"", 0
    for word, label, end, at in _boundaries(data):
        if not end or (word == b"BEGIN") is bool(begun) or (begun and label != begun):
            break
        begun, start = (label, at) if word == b"BEGIN" else (b"", 0)
    else:
        if not begun and not _CUT_WORD.search(data):
            return ""
    where = "a block of it is cut"
    if begun:
        line = data.count(b"\n", 0, start) + 1
        where = f"the block that begins in line {line} has no end"
    return f"{path} is not whole: {where}; write it anew, to another name, and rename that"


def _boundaries(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """Of each first or last line of a block: the word, the label, its end, and where it stands."""
    for found in _BOUNDARY.finditer(data):
        yield found[1], found[2], found[3] or b"", found.start()


def _certificates(setting: str, path: str, found: _Found) -> list[x509.Certificate]:
    """The certificates of a file; none where that is a mistake."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    data, _mode = _data(setting, path, found)
    if not data:
        return []
    if _CERTIFICATE not in data:
        found.mistakes.append((setting, f"{path} has no certificate in it; {_what_it_has(data)}"))
        return []
    try:
        with warnings.catch_warnings():
            # Certificates that older versions of the library took, too.
            warnings.simplefilter("ignore")
            certificates = x509.load_pem_x509_certificates(data)
            for one in certificates:
                # Each is parsed when it is asked for, and may be wrong.
                _subject(one), one.issuer.rfc4514_string(), one.public_key()
                _ = one.not_valid_before_utc, one.not_valid_after_utc
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = f"a certificate of {path} cannot be read ({error}); get it anew"
        found.mistakes.append((setting, why))
        return []
    there = sum(
        word == b"BEGIN" and label in _CERTIFICATE_LABELS
        for word, label, _end, _at in _boundaries(data)
    )
    if len(certificates) != there:
        why = (
            f"{path} has {there} certificates, and {len(certificates)} of them can be read: begin "
            f"each with {_CERTIFICATE.decode()} (openssl x509 -in OLD -out NEW)"
        )
        found.mistakes.append((setting, why))
        return []
    return certificates


def _what_it_has(data: bytes) -> str:
    if _CRL in data:
        return "it has a revocation list (--tls-crl)"
    if _PRIVATE_KEY in data:
        return "it has a private key (--tls-key)"
    if b"CERTIFICATE REQUEST" in data:
        return "it has a request for one, which a CA has to answer"
    return "give the file of the certificate"


def _key(files: Files, found: _Found) -> PrivateKeyTypes | None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    setting, path = ("tls_key", files.key) if files.key else ("tls_cert", files.cert)
    # What is wrong with the file of the certificate was told before.
    data, mode = _data(setting, path, found if files.key else _Found())
    if not data:
        return None
    why = ""
    key = None
    if _PRIVATE_KEY not in data:
        why = f"{path} has no private key in it; " + (
            "give its file" if files.key else "name the file of its key with --tls-key"
        )
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = (
            f"{path} may be changed by others (mode {mode:04o}), and holds the key: take that away "
            f"(chmod go-w)"
        )
    else:
        # Only its own block: the certificates around it may have the same file.
        start = data.rindex(b"-----BEGIN ", 0, data.index(_PRIVATE_KEY))
        try:
            key = load_pem_private_key(data[start:], None)
        except TypeError:
            why = (
                f"the key of {path} is encrypted, and nobody can type its passphrase: openssl pkey "
                f"-in {path} -out NEW, in a folder of {_US} alone"
            )
        except Exception as error:
            # Of an algorithm that the library does not have, among others.
            why = f"the key of {path} cannot be read ({error}); give another"
    if why:
        found.mistakes.append((setting, why))
    elif mode & stat.S_IROTH:
        found.warnings.append(
            f"every user of this machine can read the private key in {path} (mode {mode:04o}): "
            f"take that away (chmod o-r)"
        )
    return key


def _authorities(path: str, found: _Found) -> list[x509.Certificate]:
    """The certificates that clients are checked by."""
    certificates = _certificates("tls_ca", path, found)
    for one in certificates:
        if not _is_ca(one) and one.issuer != one.subject:
            why = (
                f"{path} has a certificate that is no CA's ({_subject(one)}), signed by "
                f"{escape(one.issuer.rfc4514_string())}: give the certificate of that one"
            )
            found.mistakes.append(("tls_ca", why))
    return certificates


def _lists(
    path: str, authorities: Sequence[x509.Certificate], found: _Found
) -> list[x509.CertificateRevocationList]:
    """The revocation lists of a file, each signed by one of the authorities."""
    from cryptography import x509

    data, _mode = _data("tls_crl", path, found, CRL_MOST)
    blocks = [_CRL + one for one in data.split(_CRL)[1:]]
    if data and not blocks:
        found.mistakes.append(("tls_crl", f"{path} has no revocation list in it; give one"))
    lists = []
    for block in blocks:
        try:
            one = x509.load_pem_x509_crl(block)
            _ = one.issuer.rfc4514_string(), one.next_update_utc
        except (ValueError, TypeError) as error:
            why = f"a revocation list of {path} cannot be read ({error}); get it anew"
            found.mistakes.append(("tls_crl", why))
            continue
        lists.append(one)
        if authorities and not any(_has_signed_list(ca, one) for ca in authorities):
            why = (
                f"{path} has a list of {escape(one.issuer.rfc4514_string())}, which no --tls-ca "
                f"has (or its key is another); give the lists of those CAs"
            )
            found.mistakes.append(("tls_crl", why))
    return lists


# What they are about -----------------------------------------------------------------------------


def _check_chain(
    path: str, chain: Sequence[x509.Certificate], key: PrivateKeyTypes | None, found: _Found
) -> None:
    """Whether the first certificate is of the key, and each next one has signed the one before."""
    if key is None:
        return
    own = _public(key.public_key())
    if _public(chain[0].public_key()) != own:
        if any(_public(one.public_key()) == own for one in chain[1:]):
            why = f"{path}: the certificate of the key has to be the first; put those of CAs behind"
            found.mistakes.append(("tls_cert", why))
        else:
            why = f"the key is not that of the certificate in {path} ({_subject(chain[0])})"
            found.mistakes.append(("tls_key", f"{why}; give the two that belong together"))
        return
    for below, above in pairwise(chain):
        if not _has_signed(above, below):
            why = (
                f"{path}: {_subject(above)} stands behind {_subject(below)}, and has not signed "
                f"it: each certificate is followed by that of its CA; put them in order, and take "
                f"others out"
            )
            found.mistakes.append(("tls_cert", why))
            return


def _check_crl(
    authorities: Sequence[x509.Certificate],
    lists: Sequence[x509.CertificateRevocationList],
    found: _Found,
) -> bool:
    """Whether every authority has a list; warns of those whose clients are refused without it."""
    if not lists:
        return False
    listed = {one.issuer for one in lists}
    without = [one for one in authorities if one.subject not in listed]
    for ca in without:
        # One that has signed the others may have signed nothing else.
        if not any(one is not ca and one.issuer == ca.subject for one in authorities):
            found.warnings.append(
                f"--tls-crl has no list of {_subject(ca)}: every client with a certificate that it "
                f"signed is refused"
            )
    return not without


def _has_signed(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except Exception:
        # Another name, another key, an algorithm that is not known: it has not.
        return False
    return True


def _has_signed_list(ca: x509.Certificate, one: x509.CertificateRevocationList) -> bool:
    if one.issuer != ca.subject:
        return False
    try:
        return one.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except Exception:
        # Of a kind of key that signs nothing.
        return False


def _is_ca(one: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return bool(one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        # Before version 3 nothing said so.
        return one.version is x509.Version.v1
    except ValueError:
        return False


def _is_for_servers(one: x509.Certificate) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usage = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return True
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return any(purpose in usage for purpose in allowed)


def _subject(one: x509.Certificate) -> str:
    return escape(one.subject.rfc4514_string()) or "a certificate without a subject"


def _public(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def _pem(one: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return one.public_bytes(Encoding.PEM)


def _key_pem(key: PrivateKeyTypes | None) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    assert key is not None  # noqa: S101 - else it was a mistake
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

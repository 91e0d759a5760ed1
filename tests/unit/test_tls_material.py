"""The files of TLS: read whole, or refused in words, each with what to do."""

from __future__ import annotations

import os
import ssl
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fastscp.config.settings import ServeConfig
from fastscp.messages.configuration import pack, unpack
from fastscp.tls import reading
from fastscp.tls.context import server_context
from fastscp.tls.material import Material, MaterialError
from fastscp.tls.reading import Files, read
from tests.books import configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.certificates import Certificates


def material(cert: object, profile: str = "8996", **of: Any) -> Material:
    of = {
        name: str(one) if not isinstance(one, list | str) else one
        for name, one in of.items()
    }  # fmt: skip
    for name in ("ca", "crl"):
        of[name] = tuple(map(str, of.get(name, ())))
    return read(Files(str(cert), profile, **of))


def refused(cert: object, profile: str = "8996", **of: Any) -> list[tuple[str, str]]:
    with pytest.raises(MaterialError) as caught:
        material(cert, profile, **of)
    return list(caught.value.mistakes)


def test_what_is_read(certificates: Certificates) -> None:
    c = certificates
    one = material(c.chained_server.cert, key=c.chained_server.key)
    assert one.subject == "CN=chained-server,O=Test"
    assert one.chain.count(b"BEGIN CERTIFICATE") == 2
    leaf, above = c.chained_server.certificate, c.intermediate.certificate
    ends = (leaf.not_valid_after_utc, above.not_valid_after_utc)
    assert one.expires == min(ends).timestamp()
    assert one.begins == leaf.not_valid_before_utc.timestamp()
    assert (one.ca, one.crl, one.crl_expires, one.client_auth) == (b"", b"", 0.0, "none")
    assert one.warnings == ()
    # The same from one file with all in it, in either order, and with words around it.
    assert material(c.chained_server.both) == one
    around = c.joined(c.chained_server.key, c.chained_server.cert)
    around.write_bytes(b"what it is for\n" + around.read_bytes())
    assert material(around) == one


def test_no_key_in_sight(certificates: Certificates) -> None:
    one = material(certificates.server.both)
    assert "PRIVATE" not in repr(one)
    assert "PRIVATE" not in repr(ServeConfig(tls=one))


def test_the_way_to_a_worker(certificates: Certificates) -> None:
    c = certificates
    one = material(c.server.both, ca=[c.ca.cert], crl=[c.crl], client_auth="require")
    fd = pack(msgspec.structs.replace(configuration(), tls=one))
    try:
        assert unpack(fd).tls == one
    finally:
        os.close(fd)


# Each bad file ------------------------------------------------------------------------------------


def changed(folder: Path, name: str, data: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("setting", ["cert", "ca", "crl"])
def test_a_file_that_is_cut_is_not_taken(
    certificates: Certificates, tmp_path: Path, setting: str
) -> None:
    """A block without an end would be passed over, and the file taken for what stands before."""
    c = certificates
    block = (c.crl if setting == "crl" else c.intermediate.cert).read_bytes().rstrip()
    first = {"cert": c.chained_server.both, "ca": c.ca.cert, "crl": c.crl}[setting]
    before = first.read_bytes()
    label = b"X509 CRL" if setting == "crl" else b"CERTIFICATE"
    whole = changed(tmp_path, "whole.pem", before + block)
    of: dict[str, Any] = {"cert": c.server.both}
    if setting == "crl":
        of |= {"ca": [c.ca.cert], "client_auth": "request"}

    def given(path: Path) -> dict[str, Any]:
        return of | {setting: path if setting == "cert" else [path]}

    if setting != "cert":
        material(**given(whole))
    for left in (1, 6, len(label) + 6, len(label) + 8, len(label) + 12, len(block) // 2,
                 len(block) - len(label) - 18, len(block) - 14, len(block) - 7):  # fmt: skip
        cut = changed(tmp_path, "cut.pem", before + block[:-left])
        ((option, why),) = refused(**given(cut))
        assert option == f"tls_{setting}"
        assert f"{cut} is not whole: " in why, (left, why)
        assert "write it anew, to another name" in why
    # One that is passed over for another reason.
    if setting != "crl":
        odd = before + block.replace(b" CERT", b" TRUSTED CERT")
        ((_, why),) = refused(**given(changed(tmp_path, "odd.pem", odd)))
        assert "of them can be read" in why
    # It says where, and reads a file of blocks alone once, not once for each of them.
    blocks = b"-----BEGIN A-----\n-----END A-----\n" * 30_000
    began = time.thread_time()
    ((_, why),) = refused(**given(changed(tmp_path, "many.pem", blocks + before + block[:-1])))
    assert time.thread_time() - began < 2
    begins = 60_001 + before.count(b"\n")
    assert f"the block that begins in line {begins} has no end" in why
    # The ends of lines are no matter.
    material(**given(changed(tmp_path, "crlf.pem", before.replace(b"\n", b"\r\n"))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c, d: {"cert": d / "none.pem"}, "No such file"),
        (lambda c, d: {"cert": d}, "it is no file"),
        (lambda c, d: {"cert": changed(d, "a.pem", b" \n")}, "is empty"),
        (lambda c, d: {"cert": changed(d, "a.pem", b"hello")}, "is not PEM"),
        (
            lambda c, d: {
                "cert": changed(d, "a.crt", c.server.certificate.public_bytes(Encoding.DER))
            },
            "is DER, and PEM is needed: openssl x509 -inform DER",
        ),
        (lambda c, d: {"cert": c.server.key}, "no certificate in it; it has a private key"),
        (lambda c, d: {"cert": c.crl}, "no certificate in it; it has a revocation list"),
        (lambda c, d: {"cert": c.server.cert}, "no private key in it; name the file of its key"),
        (
            lambda c, d: {
                "cert": changed(d, "a.pem", c.server.cert.read_bytes().replace(b"M", b"!", 9))
            },
            "cannot be read",
        ),
        (
            lambda c, d: {"cert": changed(d, "a.pem", b"-----BEGIN " + bytes(reading.FILE_MOST))},
            "is larger than",
        ),
        (lambda c, d: {"cert": c.joined(c.ca.cert, c.server.both)}, "has to be the first"),
        (
            lambda c, d: {"cert": c.joined(c.server.both, c.other_ca.cert)},
            "CN=Other CA,O=Test stands behind CN=server,O=Test, and has not signed it",
        ),
        (
            lambda c, d: {
                "cert": c.joined(c.chained_server.cert, c.ca.cert, c.intermediate.cert),
                "key": c.chained_server.key,
            },
            "put them in order",
        ),
        (
            lambda c, d: {"cert": c.signed("w", is_rsa=True, bits=1024).both},
            "too weak for --tls-profile 8996",
        ),
    ],
)
def test_bad_certificates(
    certificates: Certificates,
    tmp_path: Path,
    make: Callable[[Certificates, Path], dict[str, Any]],
    words: str,
) -> None:
    [(field, why)] = refused(**make(certificates, tmp_path))
    assert field == "tls_cert"
    assert words in why
    assert ";" in why or ":" in why, "says what to do"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c, d: d / "none.pem", "No such file"),
        (lambda c, d: c.server.cert, "no private key in it; give its file"),
        (lambda c, d: c.client.key, "not that of the certificate in"),
        (lambda c, d: c.signed("locked", passphrase=b"secret").key, "is encrypted"),
        (
            lambda c, d: changed(d, "k", c.server.key.read_bytes(), 0o620),
            "may be changed by others",
        ),
        (
            lambda c, d: changed(d, "k", c.server.key.read_bytes(), 0o602),
            "may be changed by others",
        ),
        (lambda c, d: changed(d, "k", c.server.key.read_bytes()[:90] + b"\n"), "is not whole"),
        (
            lambda c, d: changed(d, "k", c.server.key.read_bytes().replace(b"\nM", b"\n!", 1)),
            "cannot be read",
        ),
    ],
)
def test_bad_keys(
    certificates: Certificates, tmp_path: Path, make: Callable[..., Path], words: str
) -> None:
    [(field, why)] = refused(certificates.server.cert, key=make(certificates, tmp_path))
    assert field == "tls_key"
    assert words in why
    assert "secret" not in why


def test_a_key_that_others_can_read_is_told_of(certificates: Certificates, tmp_path: Path) -> None:
    c = certificates
    key = changed(tmp_path, "key.pem", c.server.key.read_bytes(), 0o644)
    [warning] = material(c.server.cert, key=key).warnings
    assert f"can read the private key in {key} (mode 0644)" in warning
    key.chmod(0o640)
    assert material(c.server.cert, key=key).warnings == ()


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda c, d: {"ca": [c.client.cert]}, "tls_ca", "no CA's (CN=GATE-1,O=Test), signed by"),
        (lambda c, d: {"ca": [c.crl]}, "tls_ca", "no certificate in it; it has a revocation list"),
        (lambda c, d: {"ca": [d / "no"]}, "tls_ca", "No such file"),
        (lambda c, d: {"crl": [c.ca.cert]}, "tls_crl", "no revocation list in it"),
        (
            lambda c, d: {"crl": [c.revocations(c.other_ca)]},
            "tls_crl",
            "has a list of CN=Other CA,O=Test, which no --tls-ca has",
        ),
        (
            lambda c, d: {"crl": [c.revocations(c.authority("Test CA"))]},
            "tls_crl",
            "or its key is another",
        ),
        (
            lambda c, d: {"crl": [changed(d, "l", c.crl.read_bytes().replace(b"M", b"!", 9))]},
            "tls_crl",
            "cannot be read",
        ),
    ],
)
def test_bad_authorities_and_lists(
    certificates: Certificates,
    tmp_path: Path,
    make: Callable[[Certificates, Path], dict[str, Any]],
    field: str,
    words: str,
) -> None:
    c = certificates
    of = {"ca": [c.ca.cert], "client_auth": "require"} | make(c, tmp_path)
    [(found, why)] = refused(c.server.both, **of)
    assert (found, words in why) == (field, True), why


def test_all_that_is_wrong_is_told_at_once(certificates: Certificates, tmp_path: Path) -> None:
    c = certificates
    found = refused(
        tmp_path / "a", key=tmp_path / "b", ca=[tmp_path / "c", c.client.cert], crl=[c.server.cert]
    )
    assert [field for field, _ in found] == ["tls_cert", "tls_key", "tls_ca", "tls_ca", "tls_crl"]


def test_a_certificate_whose_subject_is_no_text(certificates: Certificates, tmp_path: Path) -> None:
    """It is parsed late, and is a mistake like any other."""
    der = certificates.server.certificate.public_bytes(Encoding.DER)
    at = der.rindex(b"server")
    odd = der[:at] + b"\xff\xfe\xff\xfe\xff\xfe" + der[at + 6 :]
    pem = ssl.DER_cert_to_PEM_cert(odd).encode() + certificates.server.key.read_bytes()
    [(field, why), *_] = refused(changed(tmp_path, "odd.pem", pem))
    assert (field, "cannot be read" in why) == ("tls_cert", True)
    [(field, why)] = refused(certificates.server.both, ca=[changed(tmp_path, "ca.pem", pem)])
    assert (field, "cannot be read" in why) == ("tls_ca", True)


def test_a_fifo_does_not_hold_the_start_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    [(_, why), *_] = refused(tmp_path / "fifo")
    assert "it is no file" in why


# What is used, and told of ------------------------------------------------------------------------


def test_one_who_signs_itself_may_be_named(certificates: Certificates) -> None:
    c = certificates
    one = material(c.server.both, ca=[c.self_signed.cert, c.ca.cert], client_auth="require")
    assert one.ca.count(b"BEGIN CERTIFICATE") == 2


def test_authorities_without_a_list(certificates: Certificates) -> None:
    c = certificates
    both = [c.ca.cert, c.intermediate.cert]
    one = material(c.server.both, ca=both, crl=[c.crl], client_auth="require")
    assert not one.every_crl
    assert "--tls-crl has no list of CN=Intermediate CA,O=Test" in one.warnings[0]
    # The root may have signed nothing but the other one.
    lists = [c.revocations(c.intermediate)]
    one = material(c.server.both, ca=both, crl=lists, client_auth="require")
    assert (one.every_crl, one.warnings) == (False, ())
    joined = c.joined(c.crl, *lists)
    one = material(c.server.both, ca=both, crl=[joined], client_auth="require")
    assert (one.every_crl, one.warnings, one.crl.count(b"BEGIN X509 CRL")) == (True, (), 2)
    assert one.crl_expires > one.begins
    flags = server_context(one).verify_flags
    assert flags & ssl.VERIFY_CRL_CHECK_CHAIN == ssl.VERIFY_CRL_CHECK_CHAIN


def test_a_certificate_for_clients_is_told_of(certificates: Certificates) -> None:
    [warning] = material(certificates.client.both).warnings
    assert "is not for TLS servers" in warning


def test_out_of_date_is_no_mistake(certificates: Certificates) -> None:
    c = certificates
    one = material(
        c.expired_server.both, ca=[c.ca.cert], crl=[c.expired_crl], client_auth="request"
    )
    assert one.expires == c.expired_server.certificate.not_valid_after_utc.timestamp()
    assert 0 < one.crl_expires < one.expires + 2

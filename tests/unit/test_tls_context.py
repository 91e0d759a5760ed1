"""What a context lets in, what a certificate shows, and the words for what fails."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.config.values import read_certificate_rule
from fastscp.tls.context import client_context, server_context
from fastscp.tls.failures import CLOSED, Failure, failure, failure_within
from fastscp.tls.names import is_common_name, written
from fastscp.tls.profiles import NAMES, PROFILES
from fastscp.tls.reading import Files, read
from fastscp.tls.reasons import Reason, alert_of, reason_of
from fastscp.tls.shown import NAMES_MOST, shown_by, subject_of

if TYPE_CHECKING:
    from fastscp.tls.material import Material
    from tests.certificates import Certificates, Signed

USABLE = [name for name in NAMES if name != "basic"]


def material(c: Certificates, profile: str = "8996", **of: Any) -> Material:
    of = {"client_auth": "require", "ca": (str(c.ca.cert),)} | of
    cert = of.pop("server", c.server)
    return read(Files(str(cert.both), profile, **of))


class Ends:
    """Both ends of a connection in memory."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, **of: Any) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(there, back, server_side=True)
        self.client = client.wrap_bio(back, there, server_hostname="localhost", **of)

    def shake_hands(self) -> ssl.SSLError | None:
        """What it fails for at the server; None: it came about."""
        done: set[ssl.SSLObject] = set()
        failed: ssl.SSLError | None = None
        for _ in range(20):
            for end in (self.client, self.server):
                if end in done:
                    continue
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLError as error:
                    if end is self.server:
                        return error
                    failed = error
                done.add(end)
        if failed is None and len(done) < 2:
            raise AssertionError("it goes on for ever")
        if self.server not in done:
            assert failed is not None
        return None


def fails(server: Material, client: ssl.SSLContext) -> Failure:
    error = Ends(server_context(server), client).shake_hands()
    assert error is not None
    return failure(error, server)


# Profiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USABLE)
def test_no_cipher_outside_a_profile(certificates: Certificates, name: str) -> None:
    """What OpenSSL makes of the list: nothing is added to it but what TLS 1.3 has."""
    profile = PROFILES[name]
    context = server_context(material(certificates, name, server=certificates.rsa_server))
    older = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
    known = {one["name"] for one in _all_ciphers()}
    # In the order of the profile, and all that this OpenSSL knows of.
    assert older == [one for one in profile.ciphers if one in known]
    assert older
    newer = {one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.3"}
    assert newer <= {
        "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    }  # fmt: skip
    assert context.minimum_version.name == profile.oldest
    assert context.maximum_version.name == profile.newest


def _all_ciphers() -> list[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL@SECLEVEL=0")
    return context.get_ciphers()


def test_only_the_profiles_of_today_go_without_a_warning(certificates: Certificates) -> None:
    for name in USABLE:
        of = material(certificates, name, server=certificates.rsa_server)
        assert bool(of.warnings) is (name not in ("8996", "8996-mod")), name
        secret = all(one.startswith(("ECDHE-", "DHE-")) for one in PROFILES[name].ciphers)
        assert secret is (PROFILES[name].oldest == "TLSv1_2"), name


def _client(version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_the_versions_of_a_profile(certificates: Certificates, name: str, version: str) -> None:
    versions = ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    profile = PROFILES[name]
    wanted = versions.index(profile.oldest) <= versions.index(version)
    wanted &= versions.index(version) <= versions.index(profile.newest)
    of = material(certificates, name, server=certificates.rsa_server, client_auth="none", ca=())
    ends = Ends(server_context(of), _client(ssl.TLSVersion[version]))
    error = ends.shake_hands()
    assert (error is None) is wanted
    if error is not None:
        assert failure(error, of).kind == "no common version of TLS"
        assert name in failure(error, of).why


@pytest.mark.parametrize("name", USABLE)
def test_a_sender_offers_its_profile_alone(certificates: Certificates, name: str) -> None:
    profile = PROFILES[name]
    client = client_context(profile)
    client.load_verify_locations(certificates.ca.cert)
    older = [one["name"] for one in client.get_ciphers() if one["protocol"] != "TLSv1.3"]
    known = {one["name"] for one in _all_ciphers()}
    assert older == [one for one in profile.ciphers if one in known]
    assert client.options & ssl.OP_NO_COMPRESSION
    versions = ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    agreed = [one for one in versions if _agrees(certificates, client, one)]
    first, last = versions.index(profile.oldest), versions.index(profile.newest)
    assert agreed == versions[first : last + 1]


def _agrees(certificates: Certificates, client: ssl.SSLContext, version: str) -> bool:
    """Whether a client does with a server that has one version, and all ciphers."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = ssl.TLSVersion[version]
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.load_cert_chain(certificates.rsa_server.both)
    ends = Ends(server, client)
    return ends.shake_hands() is None and ends.server.version() is not None


def test_a_cipher_that_is_not_in_the_profile(certificates: Certificates) -> None:
    of = material(certificates, server=certificates.rsa_server, client_auth="none", ca=())
    for cipher in ("AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384"):
        failed = fails(of, _client(ssl.TLSVersion.TLSv1_2, cipher))
        assert failed.kind == "no common TLS cipher"
    # One of the profile, for a certificate of the other kind.
    failed = fails(of, _client(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"))
    assert failed.kind == "no common TLS cipher"


def test_a_profile_of_ephemeral_groups(certificates: Certificates) -> None:
    of = material(
        certificates, "8996-mod", server=certificates.rsa_server, client_auth="none", ca=()
    )
    ends = Ends(server_context(of), _client(ssl.TLSVersion.TLSv1_2, "DHE-RSA-AES128-GCM-SHA256"))
    assert ends.shake_hands() is None
    cipher = ends.server.cipher()
    assert cipher is not None
    assert cipher[0] == "DHE-RSA-AES128-GCM-SHA256"


def test_a_profile_that_this_openssl_cannot_do(certificates: Certificates) -> None:
    from fastscp.tls.material import MaterialError

    if any(one["name"] == "DES-CBC3-SHA" for one in _all_ciphers()):
        pytest.skip("this OpenSSL has 3DES")
    with pytest.raises(MaterialError) as caught:
        material(certificates, "basic", server=certificates.rsa_server)
    [(field, why)] = caught.value.mistakes
    assert field == "tls_profile"
    assert "has no cipher that the OpenSSL of this machine knows" in why


def test_what_is_off(certificates: Certificates) -> None:
    context = server_context(material(certificates))
    for option in (
        ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_CIPHER_SERVER_PREFERENCE,
    ):  # fmt: skip
        assert context.options & option
    assert context.num_tickets == 0


def test_nothing_stays_open(certificates: Certificates) -> None:
    of = material(certificates, "8996-mod", crl=(str(certificates.crl),))
    before = len(os.listdir("/proc/self/fd"))
    contexts = [server_context(of) for _ in range(3)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(contexts) == 3


# Who is let in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(
    ("which", "kind", "words"),
    [
        ("expired", "client certificate refused", "it has expired"),
        ("not_yet", "client certificate refused", "not valid yet"),
        ("revoked", "client certificate refused", "it is revoked"),
        ("unknown", "client certificate refused", "signed by nobody that is trusted here"),
        ("self_signed", "client certificate refused", "signed by nobody that is trusted here"),
        ("for_servers", "client certificate refused", "for another purpose"),
        (None, "no client certificate", "--tls-client-auth"),
    ],
)
def test_who_is_refused(
    certificates: Certificates, version: str, which: str | None, kind: str, words: str
) -> None:
    c = certificates
    shown = None if which is None else getattr(c, which)
    client = c.client_context(shown)
    client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    failed = fails(material(c, crl=(str(c.crl),)), client)
    assert failed.kind == kind
    assert words in failed.why


def test_lists_that_are_out_of_date_or_missing(certificates: Certificates) -> None:
    c = certificates
    failed = fails(material(c, crl=(str(c.expired_crl),)), c.client_context(c.client))
    assert failed == Failure(
        "client certificate refused",
        "the list of its CA in --tls-crl is out of date: renew it, and reload",
        "crl_expired",
    )
    both = (str(c.ca.cert), str(c.intermediate.cert))
    failed = fails(material(c, ca=both, crl=(str(c.crl),)), c.client_context(c.chained_client))
    assert failed.why == "--tls-crl has no list of the CA that signed it: add it"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_who_is_let_in(certificates: Certificates, version: str) -> None:
    c = certificates
    everybody = c.joined(c.ca.cert, c.self_signed.cert)
    for asked, shown in (
        ("require", c.client), ("require", c.chained_client), ("require", c.self_signed),
        ("request", c.client), ("request", None), ("none", None), ("none", c.unknown),
    ):  # fmt: skip
        client = c.client_context(shown)
        client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
        ends = Ends(server_context(material(c, ca=(str(everybody),), client_auth=asked)), client)
        assert ends.shake_hands() is None, (asked, shown)
        assert bool(shown_by(ends.server)) is (asked != "none" and shown is not None)
    # Who has a wrong one is not taken for one who has none.
    of = material(c, client_auth="request")
    assert fails(of, c.client_context(c.unknown)).kind == "client certificate refused"


def test_an_intermediate_ca_alone_may_be_named(certificates: Certificates) -> None:
    c = certificates
    of = material(c, ca=(str(c.intermediate.cert),))
    assert Ends(server_context(of), c.client_context(c.chained_client)).shake_hands() is None
    assert fails(of, c.client_context(c.client)).why.startswith("it is signed by nobody")


def test_a_new_context_takes_no_session_of_an_old_one_up(certificates: Certificates) -> None:
    c = certificates
    of = material(c)
    client = c.client_context(c.client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    old = server_context(of)
    ends = Ends(old, client)
    assert ends.shake_hands() is None
    session = ends.client.session
    again = Ends(old, client, session=session)
    assert again.shake_hands() is None
    assert again.server.session_reused
    assert shown_by(again.server) == shown_by(ends.server)
    anew = Ends(server_context(of), client, session=session)
    assert anew.shake_hands() is None
    assert not anew.server.session_reused


def test_no_session_outlives_its_certificate(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = certificates
    of = material(c)
    ends = Ends(server_context(of), c.client_context(c.client))
    assert ends.shake_hands() is None
    end = c.client.certificate.not_valid_after_utc.timestamp()
    monkeypatch.setattr(time, "time", lambda: end + 1)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shown_by(ends.server)
    assert "it has expired" in failure(caught.value, of).why


# What is shown ------------------------------------------------------------------------------------


def shown(c: Certificates, client: Signed) -> ssl.SSLObject:
    ends = Ends(server_context(material(c)), c.client_context(client))
    assert ends.shake_hands() is None
    return ends.server


def test_what_a_certificate_shows(certificates: Certificates) -> None:
    c = certificates
    connection = shown(c, c.client)
    assert shown_by(connection) == (
        "subject=GATE-1",
        "subject=CN=GATE-1, O=Test",
        "san=gate-1.example.com",
        "san=10.1.2.3",
        "san=2001:db8::1",
        "san=gate@example.com",
        "san=urn:gate:1",
        f"sha256={c.client.sha256}",
    )
    assert subject_of(connection) == "CN=GATE-1, O=Test"


def test_what_openssl_and_the_log_print_is_what_a_rule_takes(certificates: Certificates) -> None:
    """Each spelling that names this certificate is found in what it shows."""
    c = certificates
    connection = shown(c, c.client)
    shows = shown_by(connection)
    printed = [
        subprocess.run(
            ["openssl", "x509", "-noout", "-subject", *options, "-in", str(c.client.cert)],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for options in ([], *(["-nameopt", form] for form in ("RFC2253", "oneline", "compat")))
    ]  # fmt: skip
    assert len({*printed}) > 1
    fingerprint = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(c.client.cert)],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    for rule in (
        *printed,
        fingerprint,
        f"subject={subject_of(connection)}",
        f"subject={c.client.certificate.subject.rfc4514_string()}",
        "subject=GATE-1", "subject=CN=GATE-1", "subject=CN = GATE-1", "subject=/CN=GATE-1",
        "subject=commonName=GATE-1", "subject=2.5.4.3=GATE-1", 'subject=CN="GATE-1"',
        "subject=O = Test, CN = GATE-1",
        "san=DNS:gate-1.example.com", "san=IP Address:10.1.2.3", "san=IP:10.1.2.3",
        "san=IP Address:2001:DB8:0:0:0:0:0:1", "san=2001:0db8::1", "san=email:gate@example.com",
        "san=URI:urn:gate:1",
    ):  # fmt: skip
        assert read_certificate_rule(rule) in shows, rule
    for rule in (
        "subject=O=Test", "subject=CN=GATE-1, O=Other", "subject=CN=GATE-1, O=Test, C=DE",
        "subject=gate-1", "san=DNS:gate-2.example.com",
    ):  # fmt: skip
        assert read_certificate_rule(rule) not in shows, rule


def test_a_common_name_is_not_taken_for_a_subject(certificates: Certificates) -> None:
    """Whoever gets a CA to sign a name like that is still only that name."""
    c = certificates
    names = ["CN=GATE-1", "CN=GATE-1, O=Test", "GATE-1, O=Test", "O=Test", 'A\\,B"+C']
    for name in names:
        connection = shown(c, c.signed(name))
        shows = shown_by(connection)
        for rule in ("GATE-1", "CN=GATE-1", "CN=GATE-1, O=Test", "O=Test", "/CN=GATE-1"):
            assert read_certificate_rule(f"subject={rule}") not in shows, (name, rule)
        # As the log prints it, it is found, and as nothing else.
        assert read_certificate_rule(f"subject={subject_of(connection)}") in shows
        assert read_certificate_rule(f"subject={written([('CN', name)])}") in shows
        assert is_common_name(read_certificate_rule(f"subject={written([('CN', name)])}"))
    assert not is_common_name(read_certificate_rule("subject=CN=GATE-1, O=Test"))
    assert not is_common_name(read_certificate_rule("subject=O=Test"))


def test_names_that_no_rule_can_have(certificates: Certificates) -> None:
    from cryptography import x509

    c = certificates
    names = [x509.DNSName(f"n{number}.example.com") for number in range(2 * NAMES_MOST)]
    many = shown_by(shown(c, c.signed("MANY", san=names)))
    assert len(many) == NAMES_MOST + 1
    assert many[-1].startswith("sha256=")
    for name in ("A\nB", " A", "A\u202eB"):
        odd = c.signed(name)
        assert shown_by(shown(c, odd)) == (f"sha256={odd.sha256}",)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_name_that_cannot_be_read(certificates: Certificates, version: str) -> None:
    """Its CA has signed it, so the handshake has nothing against it."""
    from cryptography import x509
    from cryptography.x509.oid import ExtensionOID

    c = certificates
    # A GeneralNames with one DNS name, of bytes that are no UTF-8.
    odd = x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x07\x82\x05gat\xe9\xff"
    )
    client = c.client_context(c.signed("ODD", extension=odd))
    client.maximum_version = ssl.TLSVersion[version]
    ends = Ends(server_context(material(c)), client)
    assert ends.shake_hands() is None
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shown_by(ends.server)
    assert failure(caught.value, material(c)) == Failure(
        "client certificate refused",
        "it cannot be trusted (a name or a time in it cannot be read)",
        "untrusted",
    )


# Words --------------------------------------------------------------------------------------------


def _refuses(c: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(c.other_ca.cert)
    return context


def test_a_sender_that_refuses_ours(certificates: Certificates) -> None:
    c = certificates
    of = material(c, client_auth="none", ca=())
    client = _refuses(c)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fails(of, client) == Failure(
        "our certificate refused by the sender", "its alert: unknown_ca", "refuses_ours"
    )


@pytest.mark.parametrize(
    ("feed", "kind"),
    [
        (b"\x01\x00\x00\x00\x00\xd0" + bytes(60), "no TLS"),
        (b"GET / HTTP/1.0\r\n\r\n", "no TLS"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "TLS failed"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "no TLS"),
    ],
)
def test_bytes_that_are_no_handshake(certificates: Certificates, feed: bytes, kind: str) -> None:
    of = material(certificates)
    incoming = ssl.MemoryBIO()
    end = server_context(of).wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    incoming.write(feed)
    with pytest.raises(ssl.SSLError) as caught:
        end.do_handshake()
    assert failure(caught.value, of).kind == kind
    incoming = ssl.MemoryBIO()
    end = server_context(of).wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    incoming.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        end.do_handshake()
    assert failure(caught.value, of) == CLOSED


def _error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def test_every_reason_has_words(certificates: Certificates) -> None:
    of = material(certificates)
    for reason in ("TLSV1_ALERT_UNKNOWN_CA", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "X_ALERT_Y"):
        said = failure(_error(reason), of)
        assert alert_of(_error(reason)) in said.why
        assert said.kind
    assert reason_of(_error("TLSV1_ALERT_INTERNAL_ERROR")) is Reason.OTHER_ALERT
    assert reason_of(_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")) is Reason.OTHER
    said = failure(_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), of)
    assert said == Failure("TLS failed", "decryption failed or bad record mac")
    odd = ssl.SSLCertVerificationError(1, "x")
    odd.verify_code, odd.verify_message = 99, "something new"
    assert failure(odd, of).why == "it cannot be trusted (something new)"


@pytest.mark.parametrize(
    ("reason", "kind", "why"),
    [
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "TLS ended by the sender", "its alert: certificate_e"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "TLS broken off", "changed on its way"),
        ("WRONG_VERSION_NUMBER", "TLS broken off", "what came is not TLS"),
        ("BAD_LENGTH", "TLS broken off", "bad length"),
    ],
)
def test_words_inside_an_association(reason: str, kind: str, why: str) -> None:
    said = failure_within(_error(reason))
    assert said.kind == kind
    assert why in said.why


def test_what_ends_inside_an_association_is_no_handshake() -> None:
    for error in (ssl.SSLEOFError(8, "EOF"), ssl.SSLZeroReturnError(6, "closed")):
        assert "handshake" not in " ".join(failure_within(error))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[SSL] internal error (_ssl.c:2580)", "internal error"),
        ("internal error (_ssl.c:992)", "internal error"),
        ("[SSL: X_Y] x y (s.c:1)", "x y"),
        ("(_ssl.c:1)", "it does not say why"),
    ],
)
def test_no_line_of_a_source_is_told(certificates: Certificates, text: str, said: str) -> None:
    error = ssl.SSLError(1, text)
    assert failure(error, material(certificates)) == Failure("TLS failed", said)
    assert failure_within(error).why == said

"""TLS against the whole service: who is refused in the handshake, and what of it is said.

Rows of ../shared/protocol.md, section 9, that other files have plain alone, are here, too.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509

from fastscp.cli import app as cli
from fastscp.users.passwords import make_entry
from fastscp_ext import UserIdentity, UserInformation
from tests.kit import (
    RELEASE_RP,
    SOP,
    TLS,
    Peer,
    Service,
    abort,
    associate_rq,
    data_set,
    echo,
    path_of,
    reject,
    store,
    wait_for,
)
from tests.process.beside import beside
from tests.secured import SecuredSocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.certificates import Certificates, Signed

VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Service]:
    """It wants a certificate, with a list of those that are revoked; it listens plain, too."""
    flags = (
        *("--tls-cert", str(certificates.server.both), "--tls-ca", str(certificates.ca.cert)),
        *("--tls-crl", str(certificates.crl), "-vvv"),
    )
    tls = TLS(flags, certificates.client_context(certificates.client))
    folder = tmp_path_factory.mktemp("strict")
    with Service(folder, tls=tls, plain=True, workers=1) as service:
        yield service


def refused(service: Service, context: ssl.SSLContext, source: str) -> None:
    """Try the handshake, and see that it leads to nothing: with TLS 1.3 a moment later."""
    try:
        with service.connect(secured=True, tls=context, source=source) as peer:
            peer.send(associate_rq())
            assert peer.read_until_close() == b""
    except (ssl.SSLError, ConnectionError):
        return


def said_of(service: Service, source: str, words: str) -> str:
    """Wait for a line with these words about a peer of that address, and return it."""

    def look() -> str:
        lines = service.log().splitlines()
        return next((one for one in lines if f" {source}:" in one and words in one), "")

    return wait_for(look, f"a line about {source} with {words!r}")


WRONG: Final = {
    "revoked": "it is revoked",
    "expired": "it has expired",
    "not_yet": "it is not valid yet",
    "unknown": "it is signed by nobody that is trusted here",
    "for_servers": "for another purpose than TLS clients",
    "self_signed": "it is signed by nobody that is trusted here",
    "": "no client certificate",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_refused_in_the_handshake_and_why(
    strict: Service, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    for n, (name, words) in enumerate(WRONG.items(), start=2):
        shown: Signed | None = getattr(certificates, name) if name else None
        context = certificates.client_context(shown)
        context.minimum_version = context.maximum_version = version
        source = f"127.0.{int(version == VERSIONS[0])}.{n}"
        refused(strict, context, source)
        said_of(strict, source, words)
    strict.echoes()
    with strict.connect(secured=True) as peer:
        assert (peer.associate(associate_rq()) or b"")[:1] == b"\2"
        peer.release()


def test_a_server_of_another_name_is_refused_by_the_sender(
    tmp_path: Path, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    other = certificates.signed("elsewhere", san=[x509.DNSName("elsewhere.example.com")])
    tls = TLS(("--tls-cert", str(other.both)), certificates.client_context())
    with Service(tmp_path, "-vvv", tls=tls, plain=True, workers=1) as service:
        for authority, words in (
            (certificates.ca, "is for another name than 127.0.0.1"),
            (certificates.other_ca, "signed by nobody who is trusted here"),
        ):
            address = f"127.0.0.1:{service.tls_port}"
            assert cli.main(["echo", address, "--tls-ca", str(authority.cert)]) == 1
            assert words in capsys.readouterr().err
        assert service.in_log("the sender may not trust our certificate")
        # Another sender says why it goes.
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            service.connect(secured=True)
        service.in_log("our certificate refused by the sender")
        service.echoes()


# Rows of section 9 -------------------------------------------------------------------------------


def test_b3_plain_on_the_port_of_tls_is_closed_and_named(strict: Service) -> None:
    for n, (first, words) in enumerate(
        [
            (associate_rq(), "plain on the TLS port"),
            (b"GET / HTTP/1.1\r\n\r\n", "an HTTP client"),
            (b"\x0bMSH|^~\\&|\x1c\r", "an HL7 client"),
            (b"\x80\x2e\x01\x03\x01" + bytes(40), ""),
        ],
        start=2,
    ):
        with Peer(strict.host, strict.tls_port, source=f"127.0.2.{n}") as peer:
            peer.send(first)
            # Nothing that a peer could take for an answer of DICOM.
            assert peer.read_until_close(reset=True)[:1] in (b"", b"\x15")
        said_of(strict, f"127.0.2.{n}", words)
    strict.echoes()


def test_b17_a_wrong_password_inside_tls(tmp_path: Path, secured: TLS) -> None:
    users = tmp_path / "users"
    users.write_text(make_entry("jo", b"sesame-1") + "\n")
    users.chmod(0o600)
    flags = ("--user-identity", f"password:{users}")
    with Service(tmp_path, *flags, tls=secured, workers=1) as service:
        for passcode, is_in in ((b"sesame-1", True), (b"sesame-2", False)):
            information = UserInformation(
                max_pdu_length=16384, identity=UserIdentity(2, False, b"jo", passcode)
            )
            with service.connect() as peer:
                answer = peer.associate(associate_rq(user_information=information))
                assert answer is not None
                assert (answer[0] == 2) if is_in else (answer == reject(1, 2, 1))
                if is_in:
                    peer.release()
        service.stop()
        assert "sesame" not in service.log()


def test_b72_a_worker_killed_in_the_middle(tmp_path: Path, secured: TLS) -> None:
    with Service(tmp_path, tls=secured, workers=1) as service:
        with service.peer() as peer:
            peer.send(store())
            assert peer.read_statuses(1) == [(1, 0)]
            peer.send(store(2, sop=SOP + ".2")[:-20])
            wait_for(service.parts, "a part")
            (worker,) = service.worker_pids()
            os.kill(worker, signal.SIGKILL)
            # FIN or RST, and no close_notify: nobody is left to send one.
            assert peer.read_until_close(reset=True) == b""
        wait_for(lambda: service.worker_pids() not in ([], [worker]), "another worker")
        service.echoes()
        assert service.instances() == [path_of()]
        assert service.data_of(path_of()) == data_set()
        service.ends_parts()


@pytest.mark.parametrize("version", VERSIONS)
def test_b73_a_lost_close_notify_is_a_fin(
    tmp_path: Path, secured: TLS, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    with Service(tmp_path, tls=secured, workers=1) as service:
        for n, told in enumerate((True, False)):
            with service.connect(tls=context) as peer:
                assert (peer.associate(associate_rq()) or b"")[:1] == b"\2"
                peer.send(store(1, sop=f"{SOP}.{n}") + store(2, sop=f"{SOP}.{n}.9")[:-50])
                if told:
                    peer.half_close()
                else:
                    peer.raw.shutdown(socket.SHUT_WR)
                # What is complete is answered, though no more can be asked.
                assert peer.read_statuses(1) == [(1, 0)]
                assert peer.read_until_close() == b""
                assert isinstance(peer.socket, SecuredSocket)
                assert peer.socket.told_of_its_end
        assert service.instances() == [path_of(f"{SOP}.{n}") for n in range(2)]
        service.ends_parts()


def test_b73_the_service_says_that_it_ends(tmp_path: Path, secured: TLS) -> None:
    """Behind a release, a rejection and an abort; a FIN alone could be anybody's."""
    with Service(tmp_path, tls=secured, workers=1) as service:
        for rq, more, wanted in (
            (associate_rq(), b"\5\0\0\0\0\4\0\0\0\0", RELEASE_RP),
            (associate_rq(protocol_version=2), b"", b""),
            (associate_rq(), b"\x09\0\0\0\0\0", abort(2, 1)),
        ):
            with service.connect() as peer:
                assert peer.associate(rq) is not None
                peer.send(more)
                assert peer.read_until_close() == wanted
                assert isinstance(peer.socket, SecuredSocket)
                assert peer.socket.told_of_its_end


def test_b73_a_handshake_must_be_complete_in_time(tmp_path: Path, secured: TLS) -> None:
    with Service(tmp_path, "--artim-timeout", "500ms", tls=secured, workers=1) as service:
        silent, half, unanswered = (Peer(service.host, service.port) for _ in range(3))
        with silent, half, unanswered:
            hello = client_hello()
            half.send(hello[:50])
            unanswered.send(hello)
            for peer in (silent, half, unanswered):
                assert peer.read_until_close(reset=True)[:1] in (b"", b"\x15", b"\x16")
        service.in_log("no complete TLS handshake in time")
        service.echoes()


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("record", "cut"), [(1, 0), (1, 1), (16384, 1), (37, 11)])
def test_records_of_any_size_cut_anywhere(
    tmp_path: Path,
    secured: TLS,
    certificates: Certificates,
    version: ssl.TLSVersion,
    record: int,
    cut: int,
) -> None:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    with Service(tmp_path, tls=secured, workers=1) as service:
        with service.connect(tls=context, record=record, cut=cut) as peer:
            assert (peer.associate(associate_rq()) or b"")[:1] == b"\2"
            peer.send(store() + echo(2))
            assert peer.read_statuses(2) == [(1, 0), (2, 0)]
            peer.release()
        assert service.data_of(path_of()) == data_set()


# Many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.long)])
def test_handshakes_that_stall_beside_a_good_sender(
    tmp_path: Path, secured: TLS, count: int
) -> None:
    """Silent, in the middle of their first message, and behind it."""
    hello = client_hello()
    with (
        Service(tmp_path, tls=secured, workers=1) as service,
        beside(service) as (honest, _worker),
    ):
        peers: list[Peer] = []
        try:
            for n in range(count):
                peers.append(Peer(service.host, service.port))
                peers[-1].send((b"", hello[:100], hello)[n % 3])
            honest.goes_on(60)
        finally:
            for peer in peers:
                peer.close()
        honest.goes_on(20)


@pytest.mark.parametrize("reloads", [4, pytest.param(20, marks=pytest.mark.long)])
def test_certificates_swapped_under_load(
    tmp_path: Path, certificates: Certificates, reloads: int
) -> None:
    """Whoever comes meanwhile is shown the one or the other, and nobody is refused."""
    both = (certificates.server, certificates.chained_server)
    shown = tmp_path / "server.pem"
    shown.write_bytes(both[0].both.read_bytes())
    shown.chmod(0o600)
    tls = TLS(("--tls-cert", str(shown)), certificates.client_context())
    with Service(tmp_path, tls=tls, workers=2) as service:
        over = threading.Event()
        wrong: list[BaseException] = []
        rounds = [0] * 4
        senders = [
            threading.Thread(target=_sends, args=(service, n, over, rounds, wrong), daemon=True)
            for n in range(len(rounds))
        ]
        for sender in senders:
            sender.start()
        try:
            for n in range(1, reloads + 1):
                before = list(rounds)
                new = tmp_path / "new.pem"
                new.write_bytes(both[n % 2].both.read_bytes())
                new.chmod(0o600)
                os.replace(new, shown)
                service.process.send_signal(signal.SIGHUP)
                service.in_log(f"reload {n + 1}: taken")
                # Both workers have it.
                wait_for(lambda: {_shown(service) for _ in range(6)} == {
                    both[n % 2].certificate.serial_number  # noqa: B023
                }, "the new certificate")  # fmt: skip
                wait_for(lambda: wrong or all(
                    now > then for now, then in zip(rounds, before, strict=True)  # noqa: B023
                ), "all senders")  # fmt: skip
        finally:
            over.set()
            for sender in senders:
                sender.join(60)
        assert wrong == []
        assert "refused" not in re.sub("refused 0", "", service.log())
        assert sum(fact["event"] == "stored" for fact in service.journal()) == sum(rounds)


def _sends(
    service: Service, number: int, over: threading.Event, rounds: list[int],
    wrong: list[BaseException],
) -> None:  # fmt: skip
    try:
        while not over.is_set():
            sop = f"1.2.{number + 1}.{rounds[number] + 1}"
            with service.peer() as peer:
                peer.send(store(1, data_set(sop=sop), sop=sop))
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
            rounds[number] += 1
    except BaseException as error:
        wrong.append(error)


def _shown(service: Service) -> int:
    """The serial number of the certificate that a newcomer is shown."""
    with service.connect() as peer:
        assert isinstance(peer.socket, SecuredSocket)
        told = peer.socket.object.getpeercert()
        assert told is not None
        return int(str(told["serialNumber"]), 16)

"""Peers that are not what they were taken for: what is said of them, by `echo` and by `send`."""

from __future__ import annotations

import contextlib
import resource
import shutil
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from fastscp.scu import UsageError, tls_context
from fastscp.scu.send import carrier
from tests.kit import TLS, Service, abort
from tests.scripted import Connection, Scp, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.certificates import Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a certificate, with its key in the same file, for a subject's alternative name."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there")
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str) -> Path:
        path = folder / name.replace(":", "-")
        if not path.exists():
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                    *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=peer"),
                    *("-addext", f"subjectAltName={name}", "-keyout", path, "-out", f"{path}.crt"),
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            with path.open("ab") as file:
                file.write((folder / f"{path.name}.crt").read_bytes())
        return path

    return make


def tls_peer(
    certificate: Path, then: Callable[[ssl.SSLSocket], object], *, asks: bool = False
) -> Callable[[Connection], None]:
    """A script that speaks TLS, if its peer lets it. asks: for a certificate of the peer."""

    def script(connection: Connection) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if asks:
            context.load_verify_locations(certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(connection.socket, server_side=True) as sock,
        ):
            then(sock)

    return script


def _plain(connection: Connection) -> None:
    """What a receiver without TLS makes of our handshake: no PDU."""
    connection.socket.recv(6)
    connection.socket.sendall(abort(2, 1))
    connection.until_closed()


def _hangs_up_in_handshake(connection: Connection) -> None:
    connection.socket.recv(65536)


def _silent(connection: Connection) -> None:
    connection.until_closed()


def _reads(sock: ssl.SSLSocket) -> None:
    sock.recv(65536)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that fails."""
    assert cli.main([*map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (_plain, "the peer does not answer in TLS: this port may be one without TLS (try without"),
        (_hangs_up_in_handshake, "the peer left in the TLS handshake"),
        (_silent, "no answer to our TLS handshake within 0.5 s: this port may be one without TLS"),
    ],
)
def test_peers_without_tls(
    capsys: pytest.CaptureFixture[str], script: Callable[[Connection], None], words: str
) -> None:
    with Scp(script) as scp:
        timeout = "0.5" if script is _silent else "60"
        error = said(capsys, "echo", scp.address, "--tls", "--timeout", timeout)
    assert words in error


def test_certificates(
    capsys: pytest.CaptureFixture[str], certificate: Callable[[str], Path]
) -> None:
    ours, others = certificate("IP:127.0.0.1"), certificate("DNS:elsewhere")
    with Scp(tls_peer(ours, _reads), tls_peer(others, _reads)) as scp:
        unknown = said(capsys, "echo", scp.address, "--tls")
        named = said(capsys, "echo", scp.address, "--tls-ca", others)
    assert "signed by nobody who is trusted here: name the certificate of its CA" in unknown
    assert "is for another name than 127.0.0.1: connect by a name that is in it" in named


def test_a_peer_that_asks_for_a_certificate(
    capsys: pytest.CaptureFixture[str], certificate: Callable[[str], Path]
) -> None:
    ours = certificate("IP:127.0.0.1")
    with Scp(tls_peer(ours, _reads, asks=True)) as scp:
        error = said(capsys, "echo", scp.address, "--tls-ca", ours)
    # Which of both is seen first depends on the moment: its alert, or its end.
    assert "certificate of ours" in error


def test_a_peer_that_hangs_up_behind_the_handshake(
    capsys: pytest.CaptureFixture[str], certificate: Callable[[str], Path]
) -> None:
    ours = certificate("IP:127.0.0.1")
    with Scp(tls_peer(ours, lambda sock: sock.unwrap())) as scp:
        error = said(capsys, "echo", scp.address, "--tls-ca", ours)
    assert "before the association was answered (the peer hung up: it may ask for a" in error


def test_a_plain_sender_and_a_port_with_tls(
    capsys: pytest.CaptureFixture[str], certificate: Callable[[str], Path], tmp_path: Path
) -> None:
    """An alert tells; so does the advice where there is none."""
    write_files(tmp_path / "in", 2)

    def alerts(connection: Connection) -> None:
        connection.read_pdu()
        connection.socket.sendall(b"\x15\x03\x01\0\2\2\x46")

    with Scp(alerts) as scp:
        error = said(capsys, "send", scp.address, tmp_path / "in")
    assert "it answered with TLS: this port expects TLS (--tls)" in error
    for script in (tls_peer(certificate("IP:127.0.0.1"), _reads), Connection.read_pdu):
        with Scp(script) as scp:
            error = said(capsys, "echo", scp.address)
        assert ": a port that expects TLS may do so (--tls)" in error


def test_a_handshake_that_is_cut_is_tried_again(
    capsys: pytest.CaptureFixture[str],
    certificate: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a proxy cuts it whose receiver restarts; another certificate is not tried again."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    write_files(tmp_path / "in", 2)
    ours = certificate("IP:127.0.0.1")
    for script, times in ((_hangs_up_in_handshake, 3), (tls_peer(ours, _reads), 1)):
        with Scp(script) as scp:
            error = said(capsys, "send", scp.address, tmp_path / "in", "--tls", "--retries", "2")
        assert scp.connections == times
        assert "2 instances were not sent: cannot connect to" in error


# Profiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "session"),
    [
        pytest.param(None, "8996", "TLSv1.3 ", marks=pytest.mark.long),
        ("bcp195-rfc-8996", "aes", ""),
        ("aes", "aes", "TLSv1.2 AES128-SHA"),
        pytest.param("aes", "8996", "", marks=pytest.mark.long),
    ],
)
def test_profiles_of_both_sides(
    tmp_path: Path,
    certificates: Certificates,
    capsys: pytest.CaptureFixture[str],
    ours: str | None,
    theirs: str,
    session: str,
) -> None:
    """session: what they agree to; "": nothing."""
    tls = TLS(
        ("--tls-cert", str(certificates.rsa_server.both), "--tls-profile", theirs),
        certificates.client_context(),
    )
    with Service(tmp_path, "--log-level", "debug", tls=tls, workers=1) as service:
        address = f"{service.host}:{service.tls_port}"
        words = ["echo", address, "--tls-ca", str(certificates.ca.cert)]
        words += [] if ours is None else ["--tls-profile", ours]
        assert cli.main(words) == (0 if session else 1)
        error = capsys.readouterr().err
        if session:
            service.in_log(session)
        else:
            assert "agrees to no version or cipher of TLS that we offer (--tls-profile)" in error
        assert (f"--tls-profile {ours} allows TLS 1.0 and 1.1" in error) is (ours == "aes")


def test_a_profile_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """An option of TLS alone asks for it: nothing goes out without."""
    for command in (["echo", "127.0.0.1:1"], ["send", "127.0.0.1:1", "."]):
        assert cli.main([*command, "--tls-profile", "ours"]) == 2
        assert "--tls-profile: 'ours' is not known; give 8996, 8996-mod" in capsys.readouterr().err
    with pytest.raises(UsageError, match="profile is 'ours': write one of 8996, 8996-mod"):
        tls_context("ours")
    assert tls_context("bcp195-extended").get_ciphers() == tls_context("bcp195-ex").get_ciphers()


# Descriptors --------------------------------------------------------------------------------------


def _limited(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_associations_as_there_are_open_files_for(tmp_path: Path, secured: TLS) -> None:
    """The limit is raised to what the system grants; if it does not suffice, nothing is begun."""
    many = 20
    write_files(tmp_path / "in", 8 * many)
    with Service(tmp_path, tls=secured, workers=1) as service:

        def send(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [
                    *(sys.executable, "-m", "fastscp", "send"),
                    f"{service.host}:{service.tls_port}", str(tmp_path / "in"),
                    *("--tls-no-verify", "--associations", str(many)),
                ],
                preexec_fn=_limited(soft, hard), check=False, capture_output=True, text=True,
                timeout=60,
            )  # fmt: skip

        needed = 64 + 6 * many
        enough = send(24, needed)
        assert (enough.returncode, f"associations  {many}" in enough.stdout) == (0, True), enough
        short = send(24, needed - 1)
        assert (short.returncode, short.stdout) == (2, "")
        assert short.stderr == (
            f"fastscp: --associations: {many} at a time take {needed} open files, the limit is "
            f"{needed - 1}; raise it (ulimit -Hn, LimitNOFILE=), or use at most {many - 1}\n"
        )

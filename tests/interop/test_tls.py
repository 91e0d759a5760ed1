"""TLS with others: what openssl finds of each profile, DCMTK, pynetdicom, and HAProxy in front."""

from __future__ import annotations

import re
import shutil
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.cli import app as cli
from fastscp.tls.profiles import PROFILES
from tests.interop.material import dcmtk, made_up, stored
from tests.interop.senders import associated, run
from tests.interop.test_haproxy import haproxy
from tests.interop.test_send import arrived, by_name, program, sent
from tests.kit import TLS, Peer, Service, associate_rq, reject, store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.certificates import Certificates, Signed

pytestmark = pytest.mark.interop
LONG: Final = pytest.mark.long

# As s_client calls them, and as it says which it is.
VERSIONS: Final = {"tls1": "TLSv1", "tls1_1": "TLSv1.1", "tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}
OF_1_3: Final = (
    "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256",
)  # fmt: skip


@pytest.fixture
def openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("openssl is not there")
    return found


def known(openssl: str, version: str, ciphers: str = "ALL:COMPLEMENTOFALL") -> set[str]:
    """What this openssl can speak of a version, whatever its level of security."""
    if version == "tls1_3":
        return set(OF_1_3)
    done = subprocess.run(
        [openssl, "ciphers", "-s", f"-{version}", f"{ciphers}:@SECLEVEL=0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {one for one in done.stdout.strip().split(":") if one and not one.startswith("TLS_")}


def accepted(openssl: str, port: int, version: str) -> set[str]:
    """All ciphers of a version that a port agrees to: each is left out of the next offer."""
    found: set[str] = set()
    offered = known(openssl, version)
    while left := sorted(offered - found):
        option = "-ciphersuites" if version == "tls1_3" else "-cipher"
        listed = ":".join(left) + ("" if version == "tls1_3" else ":@SECLEVEL=0")
        done = subprocess.run(
            [openssl, "s_client", "-brief", f"-{version}", option, listed,
             "-connect", f"127.0.0.1:{port}"],
            input="", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        said = re.search(r"Protocol version: (\S+)\nCiphersuite: (\S+)", done.stdout + done.stderr)
        if said is None:
            break
        assert said[1] == VERSIONS[version]
        assert said[2] in left
        found.add(said[2])
    return found


def due(openssl: str, profile: str, version: str, *, is_rsa: bool) -> set[str]:
    """What a profile has of a version, with a certificate of one kind."""
    one = PROFILES[profile]
    order = list(VERSIONS)
    names = [one.oldest.lower().replace("tlsv", "tls"), one.newest.lower().replace("tlsv", "tls")]
    oldest, newest = (order.index(name) for name in names)
    if not oldest <= order.index(version) <= newest:
        return set()
    if version == "tls1_3":
        # Those that OpenSSL agrees to; `ssl` cannot choose among them.
        return set(OF_1_3[:3])
    ours = {
        name for name in one.ciphers
        if ("ECDSA" not in name if is_rsa else name.startswith("ECDHE-ECDSA"))
    }  # fmt: skip
    return ours & known(openssl, version)


@pytest.mark.parametrize(
    "profiles",
    [("8996",), pytest.param(tuple(PROFILES), marks=pytest.mark.long)],
    ids=["8996", "all"],
)
def test_no_version_and_no_cipher_outside_a_profile(
    tmp_path: Path, certificates: Certificates, openssl: str, profiles: tuple[str, ...]
) -> None:
    """With a certificate of either kind: all of a profile is agreed to, and nothing more."""
    site = tmp_path / "site.toml"

    def write(profile: str, server: Signed) -> None:
        site.write_text(f'tls-profile = "{profile}"\ntls-cert = "{server.both}"\n')

    kinds = {True: certificates.rsa_server, False: certificates.server}
    turns = [(profile, is_rsa) for profile in profiles for is_rsa in kinds]
    write(turns[0][0], kinds[True])
    tls = TLS(("--config", str(site)), certificates.client_context())
    found, wanted, generation = {}, {}, 1
    with Service(tmp_path, tls=tls, workers=1) as service:
        for profile, is_rsa in turns:
            if (profile, is_rsa) != turns[0]:
                write(profile, kinds[is_rsa])
                service.process.send_signal(signal.SIGHUP)
                if not _in_this_openssl(openssl, profile):
                    service.in_log(f"{profile!r} has no cipher that the OpenSSL of this machine")
                    continue
                generation += 1
                service.in_log(f"reload {generation}: taken")
                service.followed()
            for version in VERSIONS:
                turn = (profile, is_rsa, version)
                wanted[turn] = due(openssl, profile, version, is_rsa=is_rsa)
                found[turn] = accepted(openssl, service.port, version)
    assert found == wanted
    # It says something: what is modern is there, and the oldest where it is asked for.
    assert len(wanted["8996", True, "tls1_2"]) == 2
    assert "bcp195" not in profiles or wanted["bcp195", True, "tls1"]


@pytest.mark.parametrize(
    ("profile", "version", "cipher", "agreed"),
    [
        ("8996", "tls1_3", "", True),
        pytest.param("8996", "tls1_2", "ECDHE-RSA-AES256-GCM-SHA384", True, marks=LONG),
        ("8996", "tls1_2", "DHE-RSA-AES128-GCM-SHA256", False),
        pytest.param("8996-mod", "tls1_2", "DHE-RSA-AES128-GCM-SHA256", True, marks=LONG),
        pytest.param("8996", "tls1_1", "ALL", False, marks=LONG),
        pytest.param("bcp195", "tls1", "AES128-SHA", True, marks=LONG),
        ("aes", "tls1_2", "AES128-SHA", True),
        pytest.param("aes", "tls1_3", "", False, marks=LONG),
    ],
)
def test_a_sender_and_openssl(
    certificates: Certificates,
    openssl: str,
    profile: str,
    version: str,
    cipher: str,
    agreed: bool,
) -> None:
    """Another library finds of a sender what its profile has; it speaks no DICOM."""
    words = [openssl, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", f"-{version}"]
    words += ["-cipher", f"{cipher}:@SECLEVEL=0"] if cipher else []
    words += ["-cert", str(certificates.rsa_server.both), "-rev"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as peer:
        try:
            assert peer.stdout is not None
            said = b""
            while not (found := re.search(rb"ACCEPT \S+:(\d+)\n", said)):
                line = peer.stdout.readline()
                assert line, said
                said += line
            address = f"127.0.0.1:{int(found[1])}"
            ours = ["--tls-profile", profile, "--tls-ca", str(certificates.ca.cert)]
            with subprocess.Popen(
                [sys.executable, "-m", "fastscp", "echo", address, *ours, "--timeout", "60"],
                stderr=subprocess.PIPE, text=True,
            ) as sender:  # fmt: skip
                # Until it says what they agreed to, or has gone.
                while b"Ciphersuite: " not in said and (line := peer.stdout.readline()):
                    said += line
                # It would wait for a line of text.
                peer.kill()
                error = sender.communicate(timeout=60)[1]
            assert sender.returncode == 1
        finally:
            peer.kill()
    assert (f"Ciphersuite: {cipher or 'TLS_'}".encode() in said) is agreed, said
    assert ("agrees to no version or cipher of TLS" in error) is not agreed, error


def _in_this_openssl(openssl: str, profile: str) -> bool:
    """Whether there is anything of a profile in the library; 3DES is not, where it is new."""
    ciphers = set(PROFILES[profile].ciphers)
    return any(ciphers & known(openssl, version) for version in ("tls1", "tls1_2"))


# DCMTK -------------------------------------------------------------------------------------------

# Its profiles, and whether ours agree.
PAIRS: Final = (
    ("+py", "8996", True), ("+px", "8996", True), ("+pz", "8996", True), ("+pa", "8996", False),
    ("+pn", "8996", False), ("+pz", "8996-mod", True), ("+py", "bcp195-nd", True),
    ("+pz", "bcp195-ex", True), ("+px", "bcp195", True), ("+pa", "bcp195", True),
    ("+pa", "aes", True), ("+pn", "aes", False),
)  # fmt: skip


@pytest.mark.parametrize("profile", sorted({ours for _, ours, _ in PAIRS}))
def test_storescu(tmp_path: Path, certificates: Certificates, profile: str) -> None:
    """With a certificate of its own, which is asked for; and with none, where none need be."""
    instances = made_up(tmp_path / "files", "1.2.3.60", 2, pixels=300_000)
    server, client = certificates.rsa_server, certificates.client
    tls = TLS(
        ("--tls-cert", str(server.both), "--tls-ca", str(certificates.ca.cert),
         "--tls-client-auth", "request", "--tls-profile", profile),
        certificates.client_context(),
    )  # fmt: skip
    with Service(tmp_path, tls=tls, workers=1) as service:
        address = ("127.0.0.1", str(service.port))
        files = [one.path for one in instances]
        trust = ("+cf", certificates.ca.cert)
        kept = 0
        for option, ours, agrees in PAIRS:
            if ours != profile:
                continue
            own = ("+tls", client.key, client.cert, *trust, option)
            run("storescu", *own, *address, *files, code=0 if agrees else 1)
            kept += agrees
        if profile == "8996":
            run("storescu", "+tla", *trust, *address, *files)
            run("echoscu", "+tla", *trust, *address)
            kept += 1
        facts = stored(service)
        wanted = [one.data_set for one in instances] * kept
        assert [one.data_set for one in facts] == wanted
        if profile == "8996":
            service.in_log("no common TLS cipher")


def test_storescu_without_the_certificate_that_is_asked_for(
    tmp_path: Path, certificates: Certificates
) -> None:
    (instance,) = made_up(tmp_path / "files", "1.2.3.61", 1)
    tls = TLS(
        ("--tls-cert", str(certificates.rsa_server.both), "--tls-ca", str(certificates.ca.cert)),
        certificates.client_context(certificates.client),
    )
    with Service(tmp_path, tls=tls, workers=1) as service:
        run("storescu", "+tla", "+cf", certificates.ca.cert, "127.0.0.1", str(service.port),
            instance.path, code=1)  # fmt: skip
        service.in_log("no client certificate")
        assert service.instances() == []


@pytest.mark.parametrize("option", ["+py", "+px", "+pz"])
def test_our_sender_into_storescp(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, certificates: Certificates, option: str
) -> None:
    """Each wants the other's certificate."""
    made = made_up(tmp_path / "files", "1.2.3.62", 3, pixels=300_000)
    out = tmp_path / "out"
    out.mkdir()
    server, client = certificates.rsa_server, certificates.client
    trust = str(certificates.ca.cert)
    command = [
        dcmtk("storescp"), "+B", "-od", str(out), "+tls", str(server.key), str(server.cert),
        "+cf", trust, option,
    ]  # fmt: skip
    with program(tmp_path, *command) as port:
        address = f"127.0.0.1:{port}"
        own = ("--tls-ca", trust, "--tls-cert", client.cert, "--tls-key", client.key)
        summary = sent(capsys, tmp_path, address, tmp_path / "files", *own)
        assert (summary["code"], summary["stored"]) == (0, 3)
        # Without it there is no association.
        assert cli.main(["echo", address, "--tls-ca", trust]) == 1
    assert arrived(out) == by_name(made)


# pynetdicom --------------------------------------------------------------------------------------


def test_pynetdicom_into_the_service(tmp_path: Path, certificates: Certificates) -> None:
    (instance,) = made_up(tmp_path / "files", "1.2.3.63", 1, pixels=300_000)
    tls = TLS(
        ("--tls-cert", str(certificates.server.both), "--tls-ca", str(certificates.ca.cert)),
        certificates.client_context(certificates.client),
    )
    with Service(tmp_path, tls=tls, workers=1) as service:
        with associated(service, tls_args=(tls.context, "localhost")) as association:
            from pydicom import dcmread

            assert association.send_c_store(dcmread(instance.path)).Status == 0
        assert len(list(stored(service))) == 1
        service.in_log("released")


def test_our_sender_into_pynetdicom(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, certificates: Certificates
) -> None:
    from pynetdicom import AE, evt

    made = made_up(tmp_path / "files", "1.2.3.64", 3, pixels=300_000)
    taken: list[bytes] = []

    def keep(event: evt.Event) -> int:
        request: Any = event.request
        taken.append(request.DataSet.getvalue())
        return 0x0000

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.both)
    context.load_verify_locations(certificates.ca.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    ae = AE()
    for one in made:
        ae.add_supported_context(*one.context)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )  # fmt: skip
    assert server is not None
    try:
        client = certificates.client
        summary = sent(
            capsys, tmp_path, f"127.0.0.1:{server.server_address[1]}", tmp_path / "files",
            "--tls-ca", certificates.ca.cert, "--tls-cert", client.cert, "--tls-key", client.key,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert (summary["code"], summary["stored"]) == (0, 3)
    assert sorted(taken) == sorted(one.data_set for one in made)


# HAProxy -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def behind(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Service]:
    """It believes HAProxy, and knows senders by their certificates."""
    folder = tmp_path_factory.mktemp("behind")
    (folder / "site.toml").write_text(
        'proxy-protocol-from = "127.0.0.1"\n'
        '[from.gate]\nwho = ["GATE@127.0.0.0/8"]\ncertificate = ["subject=GATE-1"]\n'
    )
    tls = TLS(
        ("--tls-cert", str(certificates.server.both), "--tls-ca", str(certificates.ca.cert),
         "--config", str(folder / "site.toml"), "-vvv"),
        certificates.client_context(certificates.client),
    )  # fmt: skip
    with Service(folder, tls=tls, plain=True, workers=1) as running:
        yield running


def test_haproxy_passes_tls_through(
    tmp_path: Path, behind: Service, certificates: Certificates
) -> None:
    """The header is in front of the handshake; the certificate is the sender's own."""
    how = "send-proxy-v2 check inter 100ms"
    with haproxy(tmp_path, behind, how, to=behind.tls_port) as port:
        for shown, is_in in ((certificates.client, True), (certificates.other_client, False)):
            with Peer(
                "127.0.0.1", port, source="127.0.0.5", tls=certificates.client_context(shown)
            ) as peer:
                name = peer.name
                answer = peer.associate(associate_rq(calling="GATE"))
                assert answer is not None
                assert (answer[0] == 2) if is_in else (answer == reject(1, 1, 3))
                if is_in:
                    peer.send(store())
                    assert peer.read_response().status == 0
                    peer.release()
                    assert behind.journal()[-1]["peer"] == name
        # Its checks are no handshakes, and make no noise.
        own = [
            one for one in behind.log().splitlines() if re.search(r" worker-0: \S+ 127.0.0.1:", one)
        ]
        assert own
        assert [one for one in own if " TRACE " not in one] == []


def test_haproxy_ends_tls(tmp_path: Path, behind: Service, certificates: Certificates) -> None:
    """`send-proxy-v2-ssl-cn`: what it verified counts as if we had."""
    server = certificates.rsa_server
    tls = f"ssl crt {server.both} ca-file {certificates.ca.cert} verify required"
    with haproxy(tmp_path, behind, "send-proxy-v2-ssl-cn", tls=tls) as port:
        for shown, is_in in ((certificates.client, True), (certificates.other_client, False)):
            with Peer(
                "127.0.0.1", port, source="127.0.0.6", tls=certificates.client_context(shown)
            ) as peer:
                answer = peer.associate(associate_rq(calling="GATE"))
                assert answer is not None
                assert (answer[0] == 2) if is_in else (answer == reject(1, 1, 3))
                if is_in:
                    peer.release()
    behind.in_log("whose certificate is that of 'GATE-1'")

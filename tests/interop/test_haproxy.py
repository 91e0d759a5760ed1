"""HAProxy in front: its headers, its health checks, and TLS that it ends.

The senders come from addresses of their own in 127.0.0.0/8. HAProxy, which comes from 127.0.0.1, is
the only one whose headers are believed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.kit import Peer, Service, associate_rq, data_set, reject, store, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM: Final = shutil.which("haproxy", path=f"{os.defpath}:/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None and "CI" not in os.environ, reason="haproxy is not installed"
)

README: Final = Path(__file__).resolve().parents[2] / "README.md"
RULES: Final = """
proxy-protocol-from = "127.0.0.1"
log-level = "trace"

[from.ct]
who = ["CT1@127.0.0.3/32"]

[from.gate]
who = ["GATE@127.0.0.0/8"]
certificate = ["subject=GATE-1"]
"""
# `option tcp-check` connects, sends nothing more than the
# header, and closes.
HAPROXY: Final = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend dicom
    bind 127.0.0.1:{port} {tls}
    default_backend fastscp
backend fastscp
    {option}
    server fastscp 127.0.0.1:{to} {how}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("behind")
    (folder / "site.toml").write_text(RULES)
    with Service(folder, "--config", str(folder / "site.toml"), workers=1) as running:
        yield running


@contextlib.contextmanager
def haproxy(
    tmp_path: Path, service: Service, how: str, option: str = "", tls: str = "", to: int = 0
) -> Iterator[int]:
    """Run HAProxy in front of a service; gives the port that it listens on.

    to: the port of the service, where it is not `Service.port`.
    """
    port = free_port()
    text = HAPROXY.format(port=port, to=to or service.port, how=how, option=option, tls=tls)
    with running(tmp_path, text, port):
        yield port


@contextlib.contextmanager
def running(tmp_path: Path, text: str, port: int) -> Iterator[None]:
    """Run HAProxy by a configuration; it listens on that port."""
    (tmp_path / "haproxy.cfg").write_text(text)
    assert PROGRAM is not None, "haproxy is not installed"
    with (tmp_path / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "-db", "-f", tmp_path / "haproxy.cfg"], stdout=log, stderr=log
        )
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, "HAProxy listening")
        assert process.poll() is None, (tmp_path / "haproxy.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


def listens(port: int) -> bool:
    """Whether somebody does; nobody is connected to for that."""
    with open("/proc/net/tcp") as table:
        return any(f" 0100007F:{port:04X} 00000000:0000 0A " in line for line in table)


# However long HAProxy itself takes for one: it is about what they make of the log.
CHECKS: Final = "check inter 100ms fall 1000"


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("option", ["", "option tcp-check"])
def test_senders_are_told_apart_and_checks_make_no_noise(
    tmp_path: Path, service: Service, how: str, option: str
) -> None:
    before = len(service.log())
    with haproxy(tmp_path, service, f"{how} {CHECKS}", option) as port:
        wait_for(lambda: len(checks(service, before)) >= 5, "checks")
        with Peer("127.0.0.1", port, source="127.0.0.3") as peer:
            name = peer.name
            answer = peer.associate(associate_rq(calling="CT1"))
            assert (answer or b"")[:1] == b"\x02"
            sop = f"1.2.3.{port}"
            peer.send(store(data=data_set(sop=sop, pixels=300_000), sop=sop))
            assert peer.read_response().status == 0
            peer.release()
        with Peer("127.0.0.1", port, source="127.0.0.4") as peer:
            assert peer.associate(associate_rq(calling="CT1")) == reject(1, 1, 3)
        number = len(checks(service, before))
        wait_for(lambda: len(checks(service, before)) >= number + 3, "more checks")
    assert service.journal()[-1]["peer"] == name
    service.in_log(f"CT1@{name}: released; stored 1,")
    assert "from 127.0.0.4 calling" in service.in_log("rejected (1,1,3)")
    assert [one for one in loud(service, before) if "@127.0.0." not in one] == []


def checks(service: Service, since: int) -> set[str]:
    """The connections of HAProxy itself that are over. since: characters of the log."""
    own = r" worker-0: (\S+) 127\.0\.0\.1:\d+: closed before a (?:request|PROXY header)"
    return set(re.findall(own, service.log()[since:]))


def loud(service: Service, since: int) -> list[str]:
    """What a worker logged above `trace`."""
    told = service.log()[since:].splitlines()
    return [one for one in told if " worker-0: " in one and " TRACE " not in one]


def test_a_check_of_a_port_that_sends_nothing(tmp_path: Path, service: Service) -> None:
    """`no-check-send-proxy`: HAProxy opens a connection and closes it."""
    before = len(service.log())
    how = f"send-proxy-v2 no-check-send-proxy {CHECKS}"
    with haproxy(tmp_path, service, how, "option tcp-check"):
        wait_for(lambda: len(checks(service, before)) >= 3, "checks")
    assert loud(service, before) == []


def certificate_of(folder: Path, name: str, days: int = 2) -> Path:
    """A self-made certificate for a name, with its key in front."""
    key, certificate = folder / f"{name}-key.pem", folder / f"{name}.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days),
            "-keyout", key, "-out", certificate, "-subj", f"/CN={name}",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / f"{name}-both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


def test_a_certificate_that_haproxy_verified(tmp_path: Path, service: Service) -> None:
    """One that it only looked at, for it knows nobody who signed it, is none."""
    ours, others = certificate_of(tmp_path, "GATE-1"), tmp_path / "others"
    others.mkdir()
    stranger = certificate_of(others, "GATE-1")
    tls = f"ssl crt {ours} ca-file {tmp_path / 'GATE-1.pem'} verify optional crt-ignore-err all"
    options = "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c"
    with haproxy(tmp_path, service, options, tls=f"{tls} ca-ignore-err all") as port:
        for certificate, is_in in ((ours, True), (stranger, False), (None, False)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if certificate is not None:
                context.load_cert_chain(certificate)
            plain = socket.create_connection(("127.0.0.1", port), 60, ("127.0.0.5", 0))
            with context.wrap_socket(plain) as sock:
                sock.sendall(associate_rq(calling="GATE"))
                answer = sock.recv(4096)
            assert (answer[:1] == b"\x02") if is_in else answer == reject(1, 1, 3)
    service.in_log("whose certificate is that of 'GATE-1'")
    assert service.log().count("whose certificate") == 1


def test_the_example_of_the_readme(tmp_path: Path, service: Service) -> None:
    found = re.search(r"<!-- haproxy -->\n```\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    port = free_port()
    text = found[1].replace("bind :104", f"bind 127.0.0.1:{port}")
    text = text.replace("10.0.0.21:11112", f"127.0.0.1:{service.port}")
    with running(tmp_path, text, port), Peer("127.0.0.1", port, source="127.0.0.3") as peer:
        answer = peer.associate(associate_rq(calling="CT1"))
        assert (answer or b"")[:1] == b"\x02"
        peer.release()

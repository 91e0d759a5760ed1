"""What main has to do with TLS: where it listens, what it tells, what a reload takes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.kit import ANY_PORT, ON_LOOPBACK, Service, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates


def told(service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*service.program(), *command, "--store", str(service.store)],
        capture_output=True, text=True, env=service.environment(), timeout=60,
    )  # fmt: skip


def test_where_it_listens_and_what_it_tells(certificates: Certificates, tmp_path: Path) -> None:
    c = certificates
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(c.server.cert.read_bytes())
    key.write_bytes(c.server.key.read_bytes())
    key.chmod(0o644)
    file = tmp_path / "f.toml"
    file.write_text(f'tls-cert = "{cert}"\ntls-key = "{key}"\ntls-port = 0\n')
    with Service(tmp_path, "--config", str(file), workers=1) as service:
        lines = service.log().splitlines()
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+", lines[0])
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+) with TLS", lines[1])
        assert found is not None
        service.in_log(f"can read the private key in {key} (mode 0644)")
        now = json.loads(told(service, "status", "--json").stdout)
        assert now["addresses"] == [f"127.0.0.1:{service.port}"]
        assert now["tls_addresses"] == [f"127.0.0.1:{found[1]}"]
        assert now["certificate"] == "CN=server,O=Test"
        assert now["certificate_expires"] == c.server.certificate.not_valid_after_utc.timestamp()
        with socket.create_connection(("127.0.0.1", int(found[1])), 60) as peer:
            peer.sendall(b"\x01")
            assert peer.recv(16) == b""
        service.in_log(f"have it send to port {service.port}, without TLS")
        wait_for(
            lambda: json.loads(told(service, "status", "--json").stdout)["handshakes_failed"] == 1,
            "main told of it",
        )
        shown = told(service, "status").stdout
        assert "0 associations; 1 TLS handshake failed" in shown
        assert f"127.0.0.1:{found[1]} with TLS" in shown
        assert "CN=server,O=Test, expires " in shown
        # A reload reads the files anew, though no setting is different; a bad one changes nothing.
        cert.write_bytes(c.other_client.cert.read_bytes())
        reload = told(service, "reload")
        assert reload.returncode != 0
        assert "the key is not that of the certificate" in reload.stdout + reload.stderr
        key.write_bytes(c.other_client.key.read_bytes())
        key.chmod(0o600)
        assert told(service, "reload").returncode == 0
        service.in_log("reload 2: certificate: that of CN=server,O=Test, which expires ")
        service.in_log("reload 2: the certificate of " + str(cert) + " is not for TLS servers")
        now = json.loads(told(service, "status", "--json").stdout)
        assert now["certificate"] == "CN=GATE-2,O=Test"


def test_with_tls_alone(certificates: Certificates, tmp_path: Path) -> None:
    c = certificates
    expired = str(c.expired_server.both)
    command = [
        *Service.program(), "serve", *ON_LOOPBACK, "--no-plain", "--tls-port", "0",
        "--tls-cert", expired, "--store", str(tmp_path / "store"), "--workers", "1",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=Service.environment(), stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        wait_for(lambda: "has expired on" in log.read_text(), "what it tells of its certificate")
        first, *rest = log.read_text().splitlines()
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+ with TLS", first)
        assert not any(line.startswith("listening") for line in rest)
        assert " ERROR main: the certificate of CN=expired-server,O=Test has expired" in "".join(
            rest
        )
        process.terminate()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def test_a_port_that_is_taken_is_named(certificates: Certificates, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [
                *Service.program(), "serve", *ANY_PORT, "--tls-port",
                port, "--tls-cert", str(certificates.server.both), "--store", str(tmp_path / "s"),
            ],
            capture_output=True, text=True, env=Service.environment(), timeout=60, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 3
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "choose one with --tls-port" in done.stderr
    assert not (tmp_path / "s").exists()

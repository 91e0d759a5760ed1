"""The files that `fastscp print` renders from a configuration: each checked by who reads it."""

from __future__ import annotations

import json
import re
import resource
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from fastscp import uids
from fastscp.cli.app import main
from fastscp.cli.print import RENDERED
from fastscp.config.layers import load
from fastscp.config.names import BY_VARIABLE
from fastscp.config.settings import SETTINGS, ServeConfig
from fastscp.main.descriptors import REDO_MOST, associations_allowed, redo_files_allowed
from fastscp.main.leaving import DRAIN_AND_S
from fastscp.main.listening import DICOM, TLS
from fastscp.readymade import (
    conformance,
    container,
    haproxy,
    kubernetes,
    settings_file,
    systemd,
)
from fastscp.readymade.source import Source
from fastscp.readymade.statuses import MEANINGS, ONLY_STRICT
from fastscp.users.passwords import make_entry
from fastscp_ext import status_name
from tests.programs import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.certificates import Certificates

PROGRAM = ("/opt/fastscp/bin/fastscp",)
FILE = """\
ae-title = "ROUTER"
layout = "{PatientID}/{SOPInstanceUID}.dcm"
idle-timeout = "15 m"
proxy-protocol-from = ["10.7.0.0/16"]
allow = ["CT1@10.1.2.0/24", "*@192.168.0.0/16"]
max-bytes-in-flight = "2 GiB"
sop-classes = ["CTImageStorage", "1.2.3.*"]

[ae.RESEARCH]
layout = "+research/{SOPInstanceUID}.dcm"
on-duplicate = "keep"
strict = true

[ae."A b%DC"]
durability = "buffered"

[from.modalities]
who = ["MR1@10.9.0.0/16"]
called = ["RESEARCH"]
certificate = ["subject=mr1.example"]
max-associations = 5
"""


def source(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Source:
    return Source(load(flags, environ or {}, file), PROGRAM)


@pytest.fixture
def filed(tmp_path: Path) -> Path:
    file = tmp_path / "fastscp.toml"
    file.write_text(FILE)
    return file


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What `fastscp config` says of a command line: the values, by setting."""

    def show(*words: str) -> dict[str, Any]:
        assert main(["config", "--json", *words]) == 0
        told = json.loads(capsys.readouterr().out)
        return {one.name: told[one.name]["value"] for one in SETTINGS}

    return show


# systemd -----------------------------------------------------------------------------------------

ODD = {
    "store": "/srv/a b/100%/$HOME", "ae_title": "A'B", "port": "104", "allow": ["A@10.0.0.1"],
    "check_called_ae": True, "idle_timeout": "5m", "drain_timeout": "90.5",
}  # fmt: skip


def lines_of(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.replace("\\\n", "").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def socket_of(unit: str) -> str:
    lines = unit[unit.rindex("# [Unit]") :].splitlines()
    return "".join(f"{line.removeprefix('#').removeprefix(' ')}\n" for line in lines)


@pytest.mark.parametrize(
    "flags", [{}, ODD, {"max_associations": "0", "store": "/run/user/7/store"}]
)
def test_systemd_takes_the_unit_and_its_socket(tmp_path: Path, flags: dict[str, object]) -> None:
    analyze = needed("systemd-analyze")
    text = systemd.render(source(flags))
    # The program has to be there, and be one.
    here = shutil.which("true") or "/bin/true"
    unit, sock = tmp_path / "fastscp.service", tmp_path / "fastscp.socket"
    unit.write_text(text.replace(PROGRAM[0], here))
    sock.write_text(socket_of(text))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit, sock], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    if flags.get("port") == "104":
        assert lines_of(text)["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    else:
        assert "AmbientCapabilities" not in text


@pytest.mark.parametrize(("flags", "most"), [({}, 1.8), ({"port": "104"}, 2.0)])
def test_the_unit_exposes_little(tmp_path: Path, flags: dict[str, object], most: float) -> None:
    """10 is a service that may do anything, as root."""
    unit = tmp_path / "fastscp.service"
    unit.write_text(systemd.render(source(flags)))
    done = subprocess.run(
        [needed("systemd-analyze"), "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = re.search(r"exposure level for fastscp\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= most


def exec_start(unit: str) -> list[str]:
    """The words of the command line, as systemd makes them."""
    (line,) = lines_of(unit)["ExecStart"]
    return [one.replace("%%", "%").replace("$$", "$") for one in shlex.split(line)]


def test_the_unit_runs_what_was_asked_for(
    shown: Callable[..., dict[str, Any]], filed: Path
) -> None:
    flags = {**ODD, "fault": ["abort"], "layout_change": True}
    text = systemd.render(source(flags, {"FASTSCP_DIGEST": "sha256"}, filed))
    program, command, *words = exec_start(text)
    assert (program, command) == (PROGRAM[0], "serve")
    told = shown(*words)
    assert told["store"] == ODD["store"]
    assert told["ae-title"] == "A'B"
    assert (told["port"], told["digest"], told["allow"]) == (104, "sha256", ["A@10.0.0.1/32"])
    # Of the file, which is named and not repeated.
    assert told["layout"] == "{PatientID}/{SOPInstanceUID}.dcm"
    assert "PatientID" not in text
    # Consents and test aids are for once.
    assert told["fault"] == []
    assert told["layout-change"] is False
    assert told["store-must-exist"] is True
    assert lines_of(text)["ReadWritePaths"] == ['"/srv/a b/100%%/$$HOME"']


def test_the_store_is_made_as_it_is_served(shown: Callable[..., dict[str, Any]]) -> None:
    """A layout other than the one it was made with would be refused."""
    text = systemd.render(source({**ODD, "layout": "{Modality}/{SOPInstanceUID}.dcm"}))
    (line,) = (one for one in text.splitlines() if "runuser" in one)
    words = shlex.split(line.removeprefix("#"))
    at = words.index("serve")
    assert words[at - 1] == PROGRAM[0]
    told = shown(*words[at + 1 :])
    assert told["layout"] == "{Modality}/{SOPInstanceUID}.dcm"
    assert (told["store"], told["port"], told["host"]) == (ODD["store"], 0, ["127.0.0.1"])
    assert told["store-must-exist"] is False


@pytest.mark.parametrize("drain", ["30s", "0", "90.5"])
def test_there_is_time_to_drain(drain: str) -> None:
    """As much as the service says itself that it takes."""
    made = source({"drain_timeout": drain})
    least = made.config.drain_timeout + DRAIN_AND_S
    assert least <= int(lines_of(systemd.render(made))["TimeoutStopSec"][0]) <= least + 1
    found = re.search(r"--stop-timeout (\d+) ", container.render(made))
    assert found is not None
    assert int(found[1]) >= least
    pods = {one["kind"]: one for one in yaml.safe_load_all(kubernetes.render(made))}
    spec = pods["StatefulSet"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= least


def test_what_the_unit_says_of_an_upgrade_and_of_sockets() -> None:
    text = systemd.render(source({"port": "104", "host": ["10.1.1.1", "::1"]}))
    told = lines_of(text)
    # A process that takes over is the main one before it says anything.
    assert (told["Type"], told["NotifyAccess"]) == (["notify"], ["main"])
    assert "systemctl kill --kill-whom=main -s USR2 fastscp" in text
    socket = lines_of(socket_of(text))
    assert socket["ListenStream"] == ["10.1.1.1:104", "[::1]:104"]
    assert socket["FileDescriptorName"] == [DICOM]


def test_a_unit_with_tls_and_its_sockets(tmp_path: Path, certificates: Certificates) -> None:
    """One more socket, which has the name of what it is for; systemd takes all of it."""
    flags = {"tls_cert": str(certificates.server.both), "tls_port": "992", "port": "11112"}
    text = systemd.render(source(flags))
    assert lines_of(text)["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert "# For port 992, and nothing else." in text
    assert "fastscp.socket fastscp-tls.socket" in text
    _head, *sockets = text.split("# [Unit]\n# Description=fastscp, the port")
    told = [lines_of(socket_of(f"# [Unit]\n# D{one}")) for one in sockets]
    assert [one["FileDescriptorName"] for one in told] == [[DICOM], [TLS]]
    assert [one["ListenStream"][0].rpartition(":")[2] for one in told] == ["11112", "992"]
    unit, sock = tmp_path / "fastscp.service", tmp_path / "fastscp-tls.socket"
    unit.write_text(text.replace(PROGRAM[0], shutil.which("true") or "/bin/true"))
    sock.write_text(socket_of(text))
    done = subprocess.run(
        [needed("systemd-analyze"), "verify", "--man=no", unit, sock],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # Without TLS nobody is to come.
    only = systemd.render(source({**flags, "no_plain": True}))
    assert "FileDescriptorName=dicom" not in only


def test_where_the_unit_may_write() -> None:
    plain = lines_of(systemd.render(source()))
    assert plain["StateDirectory"] == ["fastscp"]
    assert "ReadWritePaths" not in plain
    assert plain["ProtectHome"] == ["yes"]
    flags = {"store": "/run/user/7/store", "log_file": "/var/log/fastscp/x.log"}
    other = lines_of(systemd.render(source(flags)))
    assert "StateDirectory" not in other
    assert other["ReadWritePaths"] == ["/run/user/7/store"]
    assert other["LogsDirectory"] == ["fastscp"]
    assert other["ProtectHome"] == ["read-only"]
    assert other["RequiresMountsFor"] == ["/run/user/7/store"]


def test_open_files_are_those_that_a_start_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for most in ("10", "5000"):
        config = source({"max_associations": most}).config
        files = int(lines_of(systemd.render(Source(load({"max_associations": most}, {}), PROGRAM)))
                    ["LimitNOFILE"][0])  # fmt: skip
        limits = (files, files)
        monkeypatch.setattr(resource, "getrlimit", lambda _what: limits)  # noqa: B023
        monkeypatch.setattr(resource, "setrlimit", lambda *_limits: None)
        assert associations_allowed(config) == int(most)
        # And the log is not to be starved by the unit that the service itself wrote.
        assert redo_files_allowed(config) == REDO_MOST
        assert redo_files_allowed(replace(config, redo="off")) == 0


# Containers --------------------------------------------------------------------------------------


def test_the_image_runs_what_was_asked_for(
    shown: Callable[..., dict[str, Any]], filed: Path
) -> None:
    text = container.render(source({"port": "104", "drain_timeout": "90.5"}, {}, filed))
    instructions = dict(
        line.split(" ", 1) for line in text.splitlines() if line and not line.startswith(("#", " "))
    )
    assert json.loads(instructions["ENTRYPOINT"]) == ["fastscp", "serve"]
    told = shown(*json.loads(instructions["CMD"]))
    assert (told["port"], told["store"], told["ae-title"]) == (104, container.STORE, "ROUTER")
    assert instructions["EXPOSE"] == "104"
    assert instructions["USER"] == f"{container.USER_ID}:{container.GROUP_ID}"
    assert f"-v {filed}:{filed}:ro" in text
    assert "--stop-timeout 121 --ulimit nofile=9216 " in text
    assert "ip_unprivileged_port_start" in text
    assert "ip_unprivileged_port_start" not in container.render(source())


def _manifests(text: str) -> dict[str, Any]:
    return {one["kind"] + " " + one["metadata"]["name"]: one for one in yaml.safe_load_all(text)}


def of_tls(certificates: Certificates) -> dict[str, object]:
    server = certificates.server
    return {"tls_cert": str(server.cert), "tls_key": str(server.key),
            "tls_ca": [str(certificates.ca.cert)], "tls_crl": [str(certificates.crl)],
            "tls_port": "4762", "no_plain": True}  # fmt: skip


@pytest.mark.parametrize("flags", [{}, {"port": "104"}])
def test_kubernetes_takes_the_manifests(filed: Path, flags: dict[str, object]) -> None:
    found = _manifests(kubernetes.render(source(flags, {}, filed)))
    assert sorted(found) == [
        "ConfigMap fastscp", "Service fastscp", "Service fastscp-pods", "StatefulSet fastscp",
    ]  # fmt: skip
    for one in found.values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    wrong = _manifests(kubernetes.render(source()))["Service fastscp"]
    wrong["spec"]["externalTraficPolicy"] = wrong["spec"].pop("externalTrafficPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_what_the_pod_is_told(tmp_path: Path, filed: Path) -> None:
    made = source({"port": "4242", "digest": "sha256"}, {}, filed)
    found = _manifests(kubernetes.render(made))
    pod = found["StatefulSet fastscp"]["spec"]["template"]["spec"]
    assert found["Service fastscp"]["spec"]["externalTrafficPolicy"] == "Local"
    assert pod["enableServiceLinks"] is False
    (one,) = pod["containers"]
    assert one["ports"] == [{"name": "dicom", "containerPort": 4242}]
    # What the probes ask is what it answers, whatever the file says.
    assert one["args"][2:] == [
        "--store", container.STORE, "--store-must-exist", "--admin", "127.0.0.1:8112"
    ]  # fmt: skip
    assert "/readyz" in one["readinessProbe"]["exec"]["command"][-1]
    assert "/healthz" in one["livenessProbe"]["exec"]["command"][-1]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (init,) = pod["initContainers"]
    for either in (one, init):
        assert either["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # It is made with the layout that it is served with.
    assert "--config /etc/fastscp/fastscp.toml" in init["command"][-1]
    # The settings are the same, except those of the place.
    told = tmp_path / "told.toml"
    told.write_text(found["ConfigMap fastscp"]["data"]["fastscp.toml"])
    config = load({}, {}, told).config
    assert config == made.config


def test_tls_in_the_ready_made_files(
    tmp_path: Path, filed: Path, certificates: Certificates
) -> None:
    """The ports, and in Kubernetes the files, which a secret has under names of their own."""
    made = source(of_tls(certificates), {}, filed)
    found = _manifests(kubernetes.render(made))
    for one in found.values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    pod = found["StatefulSet fastscp"]["spec"]["template"]["spec"]
    ports = [{"name": "dicom-tls", "containerPort": 4762}]
    assert pod["containers"][0]["ports"] == ports
    assert [port["port"] for port in found["Service fastscp"]["spec"]["ports"]] == [4762]
    folder = "/etc/fastscp-files"
    for container_of in (*pod["containers"], *pod["initContainers"]):
        assert folder in {mount["mountPath"] for mount in container_of["volumeMounts"]}
    assert "--tls-port 0" in pod["initContainers"][0]["command"][-1]
    secret = tmp_path / "secret"
    secret.mkdir()
    server = certificates.server
    named = {"tls.crt": server.cert, "tls.key": server.key,
             "ca.crt": certificates.ca.cert, "ca.crl": certificates.crl}  # fmt: skip
    for name, path in named.items():
        assert f"--from-file={name}" in kubernetes.render(made)
        (secret / name).write_bytes(path.read_bytes())
        (secret / name).chmod(0o440)
    told = tmp_path / "told.toml"
    told.write_text(found["ConfigMap fastscp"]["data"]["fastscp.toml"].replace(folder, str(secret)))
    config = load({}, {}, told).config
    assert (config.tls_port, config.no_plain, config.tls_crl) == (
        4762,
        True,
        (str(secret / "ca.crl"),),
    )
    assert "EXPOSE 4762\n" in container.render(made)
    assert "-p 4762:4762" in container.render(made)
    assert "bind :4762" in haproxy.render(made)
    assert "bind :11112" not in haproxy.render(made)


def of_files(tmp_path: Path) -> dict[str, object]:
    """Settings that name files of users and of a token."""
    users, token = tmp_path / "users", tmp_path / "token"
    users.write_text(make_entry("u", b"secret") + "\n")
    token.write_text("0123456789abcdef\n")
    for one in (users, token):
        one.chmod(0o600)
    return {"user_identity": f"password:{users}", "admin_token_file": str(token)}


def test_files_that_settings_name_are_in_the_secret(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Those of users and the token, too, and each of several CAs; the port for metrics is kept."""
    other = certificates.authority("OTHER").cert
    flags = of_tls(certificates) | of_files(tmp_path) | {"admin": "0.0.0.0:9000"}
    made = source({**flags, "tls_ca": [str(certificates.ca.cert), str(other)]})
    text = kubernetes.render(made)
    found = _manifests(text)
    for one in found.values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    given = re.findall(r"--from-file=(\S+)=(\S+)", text)
    assert [name for name, _path in given] == [
        "tls.crt", "tls.key", "ca.crt", "ca2.crt", "ca.crl", "users", "admin-token",
    ]  # fmt: skip
    for name, path in given:
        (secret / name).write_bytes(Path(path).read_bytes())
        (secret / name).chmod(0o440)
    told = tmp_path / "told.toml"
    settings = found["ConfigMap fastscp"]["data"]["fastscp.toml"]
    told.write_text(settings.replace("/etc/fastscp-files", str(secret)))
    config = load({}, {}, told).config
    assert len(config.tls_ca) == 2
    assert config.user_identity.entries == made.config.user_identity.entries
    assert config.admin_token_file.token == b"0123456789abcdef"
    pod = found["StatefulSet fastscp"]["spec"]["template"]["spec"]["containers"][0]
    assert pod["args"][-2:] == ["--admin", "0.0.0.0:9000"]
    assert "'http://127.0.0.1:9000/readyz'" in pod["readinessProbe"]["exec"]["command"][-1]
    assert {"name": "metrics", "containerPort": 9000} in pod["ports"]


@pytest.mark.parametrize(
    ("admin", "here"),
    [
        ("off", "127.0.0.1:8112"),
        ("127.0.0.1:0", "127.0.0.1:8112"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("10.1.2.3:9000", "0.0.0.0:9000"),
        ("[2001:db8::1]:9000", "[::]:9000"),
    ],
)
def test_the_port_that_the_probes_ask(tmp_path: Path, admin: str, here: str) -> None:
    """It is the one that was given, as far as they reach it; else the manifest says so."""
    flags = {"admin": admin, "admin_token_file": of_files(tmp_path)["admin_token_file"]}
    text = kubernetes.render(source(flags))
    pod = _manifests(text)["StatefulSet fastscp"]["spec"]["template"]["spec"]["containers"][0]
    assert pod["args"][-2:] == ["--admin", here]
    port = here.rpartition(":")[2]
    host = "[::1]" if "::" in here else "127.0.0.1"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert f"'http://{host}:{port}/" in pod[probe]["exec"]["command"][-1]
    assert (f"not {admin}." in text) == (admin != here)


def test_the_image_is_asked_where_it_answers(tmp_path: Path) -> None:
    token = of_files(tmp_path)["admin_token_file"]

    def asked(admin: str) -> str:
        text = container.render(source({"admin": admin, "admin_token_file": token}))
        return text[text.index("STOPSIGNAL") : text.index("ENTRYPOINT")]

    assert "'http://127.0.0.1:9000/healthz'" in asked("0.0.0.0:9000")
    assert "'http://[::1]:9000/healthz'" in asked("[::]:9000")
    assert "10.1.2.3:9000/healthz'" in asked("10.1.2.3:9000")
    for none in ("off", "127.0.0.1:0"):
        assert "\nHEALTHCHECK" not in asked(none)
        assert f"# No HEALTHCHECK: --admin {none} leaves no port" in asked(none)


def test_the_image_shows_the_admin_port_that_others_reach(tmp_path: Path) -> None:
    token = of_files(tmp_path)["admin_token_file"]
    text = container.render(source({"admin": "0.0.0.0:9000", "admin_token_file": token}))
    assert "\nEXPOSE 11112 9000\n" in text
    assert "-p 11112:11112 -p 9000:9000 " in text
    for inside in ("off", "127.0.0.1:9000", "[::1]:9000"):
        text = container.render(source({"admin": inside}))
        assert "\nEXPOSE 11112\n" in text
        assert "-p 9000" not in text


def test_paths_are_found_from_anywhere(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given relative to this folder, by a flag or in the file, is so in no file made."""
    monkeypatch.chdir(tmp_path)
    for name, path in {"server.pem": certificates.server.both, "ca.pem": certificates.ca.cert,
                       "list.pem": certificates.crl}.items():  # fmt: skip
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "server.pem").chmod(0o600)
    of_files(tmp_path)
    (tmp_path / "users").rename(tmp_path / "users.txt")
    (tmp_path / "token").rename(tmp_path / "token.txt")
    flags = {"tls_cert": "server.pem", "tls_key": "server.pem", "tls_ca": ["ca.pem"],
             "tls_crl": ["list.pem"], "user_identity": "password:users.txt",
             "admin_token_file": "token.txt", "log_file": "logs/x.log"}  # fmt: skip
    named = ["server.pem", "ca.pem", "list.pem", "users.txt", "token.txt"]
    for made in (systemd, container, settings_file, kubernetes):
        text = made.render(source(flags))
        for name in named:
            assert f"{tmp_path}/{name}" in text
            assert not re.search(rf"[\s\":='\[]{name}", text)
    image = container.render(source(flags))
    for name in named:
        assert f"-v {tmp_path}/{name}:{tmp_path}/{name}:ro" in image
    assert f"-v {tmp_path}/logs:{tmp_path}/logs " in image
    # A file keeps what is in it: the service reads it again with each reload.
    file = tmp_path / "site.toml"
    file.write_text('tls-cert = "server.pem"\nuser-identity = "password:users.txt"\n')
    unit = systemd.render(source({}, {}, file))
    assert lines_of(unit)["WorkingDirectory"] == [str(tmp_path)]
    assert f"cd {tmp_path} && runuser " in unit
    assert f"-w {tmp_path} " in container.render(source({}, {}, file))
    file.write_text(f'tls-cert = "{tmp_path}/server.pem"\n')
    assert "WorkingDirectory" not in systemd.render(source({}, {}, file))
    assert f"#   {tmp_path}/server.pem\n" in systemd.render(source({}, {}, file))


def test_a_file_of_tls_may_be_on_another_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--tls-cert", "/srv/none/server.pem", "--tls-ca", "/srv/none/ca.pem"]
    for what in RENDERED:
        assert main(["print", what, *words]) == 0, what
        assert what in ("haproxy", "conformance", "prometheus-rules") or "/srv/none/server.pem" in (
            capsys.readouterr().out
        )
    # The service needs them.
    assert main(["config", *words]) == 2
    assert "cannot read /srv/none/server.pem" in capsys.readouterr().err


def test_the_store_is_made_beside_a_service_that_runs(tmp_path: Path) -> None:
    """Neither its port for metrics nor the folder of its log, which is not there, is in the way."""
    file = tmp_path / "site.toml"
    file.write_text('log-file = "/var/log/fastscp/x.log"\nadmin = "127.0.0.1:8112"\n')
    text = systemd.render(source({}, {}, file))
    folder = "test -d /var/log/fastscp || install -d -o fastscp -g fastscp -m 0750 /var/log/fastscp"
    assert text.index(folder) < text.index("runuser")
    assert "test -d" not in systemd.render(source())
    for made in (text, container.render(source({}, {}, file)),
                 kubernetes.render(source({}, {}, file))):  # fmt: skip
        (line,) = (one for one in made.splitlines() if "--no-store-must-exist" in one)
        assert "--admin off" in line


def test_what_kubernetes_sets_for_the_service_has_names_of_settings() -> None:
    """That is why the pod asks for none of it, though what is written so is passed over."""
    assert BY_VARIABLE["FASTSCP_PORT"].name == "port"
    links = {
        "FASTSCP_PORT": "tcp://10.0.0.1:11112",
        "FASTSCP_SERVICE_HOST": "10.0.0.1",
        "FASTSCP_SERVICE_PORT_DICOM": "11112",
        "FASTSCP_PORT_11112_TCP_ADDR": "10.0.0.1",
    }
    assert load({}, links).config == load({}, {}).config
    # One that Kubernetes writes otherwise some day, or an operator by hand, is a setting.
    assert load({}, {"FASTSCP_PORT": "4242"}).config.port == 4242


# HAProxy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"idle_timeout": "0", "port": "104"}])
def test_haproxy_takes_its_file(tmp_path: Path, flags: dict[str, object]) -> None:
    file = tmp_path / "haproxy.cfg"
    text = haproxy.render(source(flags))
    file.write_text(text)
    done = subprocess.run(
        [needed("haproxy"), "-c", "-f", file], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    assert "balance leastconn" in text
    assert text.count("send-proxy-v2") == 1


def test_the_balancer_ends_nothing_before_the_receiver_does() -> None:
    for idle, least in (("600s", 600), ("2h", 7200), ("0", 3600)):
        text = haproxy.render(source({"idle_timeout": idle}))
        found = re.findall(r"timeout (?:client|server) (\d+)s", text)
        assert len(found) == 2
        assert all(int(one) > least for one in found)


def test_it_says_that_the_receivers_have_to_believe_it() -> None:
    assert "--proxy-protocol-from 10.0.0.10" in haproxy.render(source())
    text = haproxy.render(source({"proxy_protocol_from": ["10.7.0.0/16"]}))
    assert "believe PROXY headers from 10.7.0.0/16" in text
    assert "10.0.0.10" not in text


# config ------------------------------------------------------------------------------------------


def _read(text: str, tmp_path: Path) -> ServeConfig:
    file = tmp_path / "read.toml"
    file.write_text(text)
    return load({}, {}, file).config


def test_the_file_of_defaults_gives_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = settings_file.render(source())
    read, default = _read(text, tmp_path), load({}, {}).config
    for setting in SETTINGS:
        value = getattr(default, setting.field)
        expected = value.absolute() if setting.field == "store" else value
        assert getattr(read, setting.field) == expected, setting.name
        assert (f"\n{setting.name} = " in text or f"\n# {setting.name} = " in text) == (
            not setting.flag_only
        )
    assert max(map(len, text.splitlines())) <= 100


def test_the_file_gives_what_was_given(tmp_path: Path, filed: Path) -> None:
    flags = {"store": str(tmp_path / "s\"t\\ö"), "workers": "3", "umask": "27", "strict": True,
             "log_file": "/var/log/x.log", "min_rate": "3000"}  # fmt: skip
    made = source(flags, {"FASTSCP_MAX_INSTANCE_SIZE": "10GB"}, filed)
    assert _read(settings_file.render(made), tmp_path) == made.config
    assert _read(settings_file.render_given(made), tmp_path) == made.config


# The conformance statement -----------------------------------------------------------------------


def statement(flags: Mapping[str, object] | None = None, file: Path | None = None) -> str:
    return conformance.render(source(flags, {}, file))


def section(text: str, number: str) -> str:
    """What stands below the heading of this number, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(number)} .*?\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found is not None, number
    return found[1]


def test_it_has_the_sections_of_the_template() -> None:
    numbers = re.findall(r"^#+ N\.([0-9.]+) ", statement(), re.MULTILINE)
    assert [one for one in numbers if "." not in one] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert numbers == sorted(numbers, key=lambda one: [int(part) for part in one.split(".")])


def test_its_figures_are_those_of_the_configuration() -> None:
    flags = {
        "port": "4242", "ae_title": "ROUTER", "max_pdu_length": "32768", "max_associations": "77",
        "max_async_operations": "5", "artim_timeout": "12s", "idle_timeout": "77s",
        "max_instance_size": "1000", "durability": "buffered",
    }  # fmt: skip
    before, after = statement(), statement(flags)
    for value in ("4242", "ROUTER", "32,768", "| 77 |", "5 invoked", "12 s", "77 s", "1,000 |"):
        assert value in after, value
    for value in ("4242", "ROUTER", "32,768", "| 77 |", "5 invoked", "12 s", "77 s"):
        assert value not in before, value
    assert uids.IMPLEMENTATION_CLASS_UID in section(before, "N.7.1.1")
    assert "131,072" in section(before, "N.7.1.1")
    assert "stable storage" in section(before, "N.4.1")
    assert "a power cut may still lose it" in section(after, "N.4.1")


def test_its_classes_and_syntaxes_are_those_let_in() -> None:
    everything, few = (
        section(statement(flags), "N.1.1")
        for flags in ({}, {"sop_classes": ["CTImageStorage", "MR*"]})
    )
    assert everything.count("\n| ") == len(uids.storage_sop_classes()) + 3
    assert "| CTImageStorage | 1.2.840.10008.5.1.4.1.1.2 |" in few
    assert "MRImageStorage" in few
    assert "SecondaryCapture" in everything
    assert "SecondaryCapture" not in few
    assert "Verification" in few
    some = statement({"transfer_syntaxes": ["ExplicitVRLittleEndian"]})
    assert "| ExplicitVRLittleEndian |" in some
    assert "| ImplicitVRLittleEndian |" in some
    assert "JPEG" not in some
    assert "JPEGBaseline8Bit" in statement()
    assert "Transfer syntaxes that are not listed are refused." in some


def test_each_table_has_its_part(filed: Path) -> None:
    text = statement({}, filed)
    services = section(text, "N.5.2.5.2")
    assert "| calls RESEARCH | keep: " in services
    assert "| calls A b%DC | version: " in services
    assert "| modalities (MR1@10.9.0.0/16, RESEARCH, subject=mr1.example) |" in services
    assert "`RESEARCH`" in section(text, "N.4.1")
    assert "[from.modalities]: as Top level." in text
    assert "Only these are let in" in section(text, "N.7.2.1.4")
    assert "MR1@10.9.0.0/16" in section(text, "N.7.2.1.4")
    assert "Any calling AE title" in section(statement(), "N.7.2.1.4")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"check_called_ae": True}, "| 1,1,7 |"),
        ({"allow": ["CT1@10.0.0.0/8"]}, "| 1,1,3 |"),
        ({"on_duplicate": "keep"}, "| B006 |"),
        ({"on_duplicate": "refuse"}, "another instance has this UID"),
        ({"strict": True}, "UID is not made of digits and dots"),
    ],
)
def test_what_is_answered_depends_on_it(flags: dict[str, object], said: str) -> None:
    assert said in statement(flags)
    assert said not in statement()


@pytest.mark.parametrize(
    ("form", "said"),
    [("password", "has to show one"), ("password?", "may show one")],
)
def test_users_are_named_where_they_are_asked_for(tmp_path: Path, form: str, said: str) -> None:
    assert "User identities are ignored" in section(statement(), "N.8.5")
    file = tmp_path / "users"
    file.write_text(f"{make_entry('ct1', b'a long enough passcode')}\n")
    file.chmod(0o600)
    text = statement({"user_identity": f"{form}:{file}"})
    assert "type 2, a user name with a passcode" in section(text, "N.8.5")
    assert said in section(text, "N.8.5")
    assert "no user identity, or a wrong one" in section(text, "N.7.3.1")
    assert "no user identity" not in statement()


def test_every_status_of_the_code_has_its_place() -> None:
    known = {status_name(row) for row in range(64)} - {(None, None)}
    statuses = {status for status, _reason in known if status is not None}
    assert statuses <= MEANINGS.keys()
    assert {reason for _status, reason in known} >= ONLY_STRICT
    rows = re.findall(r"^\| ([0-9A-F]{4}) \|", section(statement(), "N.7.3.2"), re.MULTILINE)
    assert {int(one, 16) for one in rows} == MEANINGS.keys() - {0xB006}
    assert "on purpose" not in statement({"fault": ["abort"]})


# The command -------------------------------------------------------------------------------------


def test_each_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in RENDERED:
        assert main(["print", word, "--port", "4242", "--admin", "127.0.0.1:4242"]) == 0
        assert "4242" in capsys.readouterr().out
    assert main(["print", "systemd-unit", "--port", "no"]) == 2
    assert "--port" in capsys.readouterr().err
    # Who wants the completion of a shell has nothing to do with settings.
    monkeypatch.setenv("FASTSCP_PORT", "no")
    assert main(["print", "bash-completion"]) == 0
    assert main(["print", "haproxy"]) == 2

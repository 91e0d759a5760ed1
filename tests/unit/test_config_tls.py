"""The settings of TLS: what goes together, and what is in the files they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.cli import app as cli
from fastscp.config.file import check_file
from fastscp.config.layers import load
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from tests.certificates import Certificates


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


def wrong(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, {})
    return str(caught.value)


def test_what_holds_where_little_is_said(certificates: Certificates) -> None:
    c = certificates
    assert load({}, {}).config.tls is None
    config = load({"tls_cert": str(c.server.both)}, {}).config
    assert config.tls is not None
    assert (config.tls.client_auth, config.tls.profile) == ("none", "8996")
    assert (config.port, config.tls_port, config.no_plain) == (11112, 2762, False)
    config = load({"tls_cert": str(c.server.both), "tls_ca": [str(c.ca.cert)]}, {}).config
    assert config.tls is not None
    assert (config.client_auth, config.tls.client_auth) == ("require", "require")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ('tls-cert = "x.pem"', "x.pem"),
        ('tls-cert = "server.pem"\ntls-ca = ["x.pem"]', "x.pem"),
        ('user-identity = "password:users"', "users"),
        ('user-identity = "jwt:keys"', "keys"),
        ('admin-token-file = "token"', "token"),
        ('store = "st"\nlog-file = "st/x.log"', "st"),
    ],
)
def test_a_mistake_names_files_wherever_it_is_read(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, text: str,
    file: str,
) -> None:  # fmt: skip
    """Whoever reads the log of a service does not know where it was started."""
    (tmp_path / "server.pem").write_bytes(certificates.server.both.read_bytes())
    (tmp_path / "server.pem").chmod(0o600)
    (tmp_path / "site.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, Path("site.toml"))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/site.toml:")
    assert f" {tmp_path}/{file}" in said


@pytest.mark.parametrize(
    ("given", "is_called"),
    [("8996-MOD", "8996-mod"), ("bcp195-rfc-8996", "8996"), ("bcp195-extended", "bcp195-ex")],
)
def test_names_of_profiles(certificates: Certificates, given: str, is_called: str) -> None:
    flags = {"tls_cert": str(certificates.server.both), "tls_profile": given}
    assert load(flags, {}).config.tls_profile == is_called
    said = wrong(tls_cert="x", tls_profile="null")
    assert "give 8996, 8996-mod, bcp195-nd, bcp195-ex, bcp195, aes or basic" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"no_plain": True}, "--no-plain: leaves nothing to listen on"),
        ({"tls_key": "k"}, "--tls-key: is of no use without a certificate: add tls-cert"),
        ({"tls_ca": ["a"]}, "--tls-ca: is of no use without a certificate"),
        ({"tls_port": "0"}, "--tls-port: is of no use without a certificate"),
        ({"tls_profile": "8996"}, "--tls-profile: is of no use without a certificate"),
        ({"tls_cert": "c", "port": "2762"}, "--tls-port: 2762 is the port without TLS, too"),
        ({"tls_cert": "c", "tls_port": "11112"}, "--tls-port: 11112 is the port without TLS, too"),
        ({"tls_cert": "c", "tls_crl": ["l"]}, "--tls-crl: is of no use without the CAs"),
        ({"tls_cert": "c", "tls_client_auth": "require"}, "--tls-client-auth: require needs to"),
        ({"tls_cert": "c", "tls_client_auth": "request"}, "--tls-client-auth: request needs to"),
    ],
)
def test_what_cannot_be_meant_together(flags: dict[str, object], words: str) -> None:
    if flags.get("port") == "2762":
        flags = {**flags, "tls_port": "2762"}
    assert wrong(**flags).startswith(words)


def test_what_does_go_together(certificates: Certificates) -> None:
    cert = str(certificates.server.both)
    load({"no_plain": False}, {})
    load({"tls_cert": cert, "tls_port": "11112", "no_plain": True}, {})
    load({"tls_cert": cert, "port": "0", "tls_port": "0"}, {})
    load({"tls_cert": cert, "tls_client_auth": "none"}, {})


def test_files_are_refused_by_the_name_of_what_gave_them(
    certificates: Certificates, tmp_path: Path
) -> None:
    c = certificates
    said = wrong(tls_cert=str(c.server.cert), tls_key=str(c.client.key))
    assert said.startswith("--tls-key: the key is not that of the certificate in ")
    with pytest.raises(ConfigError) as caught:
        load({}, {"FASTSCP_TLS_CERT": str(tmp_path / "no.pem")})
    assert str(caught.value).startswith("FASTSCP_TLS_CERT: cannot read ")
    # The key that does not belong there is in the file of the certificate.
    both = c.joined(c.server.cert, c.client.key)
    assert wrong(tls_cert=str(both)).startswith("--tls-cert: the key is not that of")
    with pytest.raises(ConfigError) as caught:
        load({"tls_cert": "no", "tls_key": "no", "tls_ca": ["no"]}, {})
    assert [one.partition(":")[0] for one in caught.value.mistakes] == [
        "--tls-cert", "--tls-key", "--tls-ca",
    ]  # fmt: skip


def test_check_tells_of_the_files(certificates: Certificates, tmp_path: Path) -> None:
    c = certificates
    file = tmp_path / "site.toml"
    file.write_text(
        f'tls-cert = "{c.server.cert}"\n'
        f'tls-key = "{c.client.key}"\n'
        f'tls-ca = ["{c.ca.cert}"]\n'
        f'tls-client-auth = "request"\n'
    )
    [mistake] = check_file(file, "--check").mistakes
    assert (mistake.line, mistake.key) == (2, "tls-key")
    file.write_text(file.read_text().replace(str(c.client.key), str(c.server.key)))
    assert check_file(file, "--check").mistakes == []
    file.write_text(file.read_text().replace(str(c.ca.cert), str(c.crl)))
    [mistake] = check_file(file, "--check").mistakes
    assert (mistake.line, mistake.key) == (3, "tls-ca")
    # Others may give the certificate.
    file.write_text(f'tls-ca = ["{c.ca.cert}"]\n')
    assert check_file(file, "--check").mistakes == []


TABLE = """
[from.gate]
certificate = ["subject=GATE-1"]

[from.rest]
certificate = ["san=gate.example.com", "sha256=%s"]
""" % ("ab" * 32)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "there is no TLS to show one; give tls-cert and tls-ca, or proxy-protocol-from"),
        ({"tls": "none"}, "nobody is asked to show one; give tls-ca"),
        ({"tls": "none", "proxy": "::1"}, "a proxy tells nothing of a certificate but its common"),
        ({"tls": "request"}, ""),
        ({"tls": "require"}, ""),
    ],
)
def test_tables_that_ask_for_a_certificate(
    certificates: Certificates, tmp_path: Path, flags: dict[str, str], words: str
) -> None:
    c, given = certificates, {}
    if "tls" in flags:
        given = {"tls_cert": str(c.server.both), "tls_client_auth": flags["tls"]}
        if flags["tls"] != "none":
            given["tls_ca"] = str(c.ca.cert)
    if "proxy" in flags:
        given["proxy_protocol_from"] = flags["proxy"]
    (tmp_path / "t.toml").write_text(TABLE)
    if not words:
        load(given, {}, tmp_path / "t.toml")
        return
    with pytest.raises(ConfigError) as caught:
        load(given, {}, tmp_path / "t.toml")
    assert words in str(caught.value)


def test_who_with_a_certificate(
    certificates: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = certificates
    (tmp_path / "t.toml").write_text(
        f'tls-cert = "{c.server.both}"\ntls-ca = ["{c.ca.cert}"]\n{TABLE}'
    )
    asked = ["config", "--config", str(tmp_path / "t.toml"), "--who", "CT@10.0.0.1"]
    assert run(*asked) == 1
    assert "certificate asks for one, and --certificate says of none" in capsys.readouterr().out
    assert run(*asked, "--certificate", "subject=GATE-1") == 0
    out = capsys.readouterr().out
    assert "with a certificate of subject=GATE-1: admitted, rule from.gate" in out
    assert "[from.gate] applies: certificate has subject=GATE-1" in out
    prints = ":".join(["AB"] * 32)
    assert run(*asked, "--certificate", f"sha256={prints}", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rule"], told["certificate"]) == ("from.rest", [f"sha256={'ab' * 32}"])
    assert run(*asked, "--certificate", "subject=X", "--certificate", "san=Y") == 1
    assert "nothing of what the sender's shows, subject=X, san=Y" in capsys.readouterr().out
    assert run(*asked, "--certificate", "GATE-1") == 2
    assert run("config", "--certificate", "subject=X") == 2
    assert "say of which with --who" in capsys.readouterr().err

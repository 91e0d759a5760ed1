"""Senders of others that show JSON Web Tokens, and our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from fastscp.cli import app as cli
from tests.interop.material import made_up, stored
from tests.interop.senders import associated, run
from tests.kit import Service
from tests.tokens import claims, kind_for, private, public, token, write_keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.interop


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    keys = write_keys(
        tmp_path / "keys.json", public("RSA", "r1"), public("P-256", "k1"), public("Ed25519", "e1")
    )
    with Service(tmp_path, "--user-identity", f"jwt:{keys}", workers=1) as running:
        yield running


@pytest.mark.parametrize(
    ("algorithm", "kid", "confirm"),
    [("RS256", "r1", ()), ("ES256", "k1", ("--pos-response",)), ("EdDSA", "e1", ())],
)
def test_storescu(
    tmp_path: Path, service: Service, algorithm: str, kid: str, confirm: tuple[str, ...]
) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.94", 2)
    file = tmp_path / "token"
    key = private(kind_for(algorithm))
    file.write_bytes(token(algorithm=algorithm, kid=kid, key=key) + b"\n")
    address = (service.host, str(service.port))
    run("storescu", "--jwt", str(file), *confirm, *address, *(one.path for one in instances))
    assert [(one.fact["user"], one.data_set) for one in stored(service)] == [
        ("jo", one.data_set) for one in instances
    ]


def test_storescu_that_may_not(tmp_path: Path, service: Service) -> None:
    (one,) = made_up(tmp_path / "files", "1.2.3.95", 1)
    file = tmp_path / "token"
    file.write_bytes(token(claims(exp=1000)))
    for who, why in (
        (("--user", "jo", "--password", "sesame"), "shows a user name and a passcode"),
        (("--jwt", str(file)), "JSON Web Token of user 'jo': it expired at 1970-01-01T00:16:40Z"),
    ):
        said = run("storescu", *who, service.host, str(service.port), one.path, code=1)
        assert "Rejected Permanent" in said
        service.in_log("rejected (1,2,1): " + why)
    assert service.instances() == []


def test_pynetdicom(tmp_path: Path, service: Service) -> None:
    (one,) = made_up(tmp_path / "files", "1.2.3.96", 1)
    item = UserIdentityNegotiation()
    item.user_identity_type = 5
    item.primary_field = token()
    item.positive_response_requested = True
    with associated(service, ext_neg=[item]) as scu:
        assert scu.acceptor.user_identity is not None
        assert scu.acceptor.user_identity.server_response == b""
        assert scu.send_c_store(one.path).Status == 0
    assert [fact.fact["user"] for fact in stored(service)] == ["jo"]


@pytest.mark.parametrize(("exp", "code"), [(None, 1), (9999999999, 0)], ids=["wrong", "right"])
def test_our_own(
    tmp_path: Path,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    exp: int | None,
    code: int,
) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.97", 3)
    file = tmp_path / "token"
    shown = token(claims(exp=exp))
    file.write_bytes(shown + b"\n")
    address = f"{service.host}:{service.port}"
    who = ("--jwt-file", str(file), "--retries", "0")
    assert cli.main(["send", address, str(tmp_path / "files"), *who]) == code
    said = capsys.readouterr()
    assert len(service.instances()) == (len(instances) if code == 0 else 0)
    assert shown.decode() not in said.out + said.err + service.log()

"""Senders of others that log in, and our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from pynetdicom import AE, build_context
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from fastscp.cli import app as cli
from fastscp.users.passwords import make_entry
from tests.interop.material import made_up, stored
from tests.interop.senders import associated, run
from tests.kit import CT, DEADLINE_S, ELE, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.interop


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    users = tmp_path / "users"
    users.write_text(make_entry("jo", b"sesame") + "\n")
    users.chmod(0o600)
    flags = ("--user-identity", f"password:{users}")
    with Service(tmp_path, *flags, workers=1) as running:
        yield running


@pytest.mark.parametrize("confirm", [(), ("--pos-response",)], ids=["unconfirmed", "confirmed"])
def test_storescu(tmp_path: Path, service: Service, confirm: tuple[str, ...]) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.90", 2)
    who = ("--user", "jo", "--password", "sesame")
    address = (service.host, str(service.port))
    run("storescu", *who, *confirm, *address, *(one.path for one in instances))
    assert [(one.fact["user"], one.data_set) for one in stored(service)] == [
        ("jo", one.data_set) for one in instances
    ]


REFUSED: Final[dict[tuple[str, ...], str]] = {
    (): "shows no user identity",
    ("--user", "jo"): "shows a user name without a passcode",
    ("--user", "jo", "--empty-password"): "user 'jo': the passcode is wrong",
    ("--user", "mo", "--password", "sesame"): "user 'mo': is not in the file",
}


def test_storescu_that_may_not(tmp_path: Path, service: Service) -> None:
    (one,) = made_up(tmp_path / "files", "1.2.3.91", 1)
    for who, why in REFUSED.items():
        said = run("storescu", *who, service.host, str(service.port), one.path, code=1)
        assert "Rejected Permanent" in said
        service.in_log("rejected (1,2,1): " + why)
    assert service.instances() == []


def test_pynetdicom(tmp_path: Path, service: Service) -> None:
    (one,) = made_up(tmp_path / "files", "1.2.3.92", 1)
    item = UserIdentityNegotiation()
    item.user_identity_type = 2
    item.primary_field, item.secondary_field = b"jo", b"sesame"
    item.positive_response_requested = True
    with associated(service, ext_neg=[item]) as scu:
        assert scu.acceptor.user_identity is not None
        assert scu.acceptor.user_identity.server_response == b""
        assert scu.send_c_store(one.path).Status == 0
    assert [fact.fact["user"] for fact in stored(service)] == ["jo"]
    item.secondary_field = b"open"
    ae = AE("PYNETDICOM")
    ae.acse_timeout = ae.network_timeout = DEADLINE_S
    refused = ae.associate(
        service.host, service.port, contexts=[build_context(CT, [ELE])], ext_neg=[item]
    )
    assert refused.is_rejected
    answer = refused.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 2, 1)


@pytest.mark.parametrize(
    ("password", "code"), [("sesame", 0), ("open-says-me", 1)], ids=["right", "wrong"]
)
def test_our_own(
    tmp_path: Path,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    password: str,
    code: int,
) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.93", 3)
    file = tmp_path / "password"
    file.write_text(password + "\n")
    who = ("--user", "jo", "--password-file", str(file))
    address = f"{service.host}:{service.port}"
    assert cli.main(["echo", address, *who]) == code
    assert cli.main(["send", address, str(tmp_path / "files"), *who, "--retries", "0"]) == code
    said = capsys.readouterr()
    assert len(service.instances()) == (len(instances) if code == 0 else 0)
    assert password not in said.out + said.err + service.log()

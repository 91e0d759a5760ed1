"""DCMTK's programs and their options, each against the whole service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.material import made_up, stored
from tests.interop.senders import run
from tests.kit import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.material import Instance

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("dcmtk"), workers=1) as running:
        yield running


@pytest.fixture
def service(running: Service) -> Service:
    return running.anew()


def address(service: Service) -> tuple[str, str]:
    return service.host, str(service.port)


def kept(service: Service, instances: list[Instance]) -> None:
    """Check that exactly these are there, in this order, byte for byte."""
    assert [(one.fact["sop_instance_uid"], one.data_set) for one in stored(service)] == [
        (one.sop_instance, one.data_set) for one in instances
    ]


def test_echoscu(service: Service) -> None:
    said = run("echoscu", "-v", "--repeat", "5", *address(service))
    assert said.count("Received Echo Response (Success)") == 5


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--decompress-never",), id="as they are"),
        pytest.param(("--multi-associations", "--no-uid-checks"), id="several associations"),
    ],
)
def test_dcmsend(tmp_path: Path, service: Service, options: tuple[str, ...]) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.50", 3)
    run("dcmsend", *options, *address(service), *(one.path for one in instances))
    kept(service, instances)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--max-pdu", "4096"), id="takes PDUs of 4096 bytes"),
        pytest.param(("--max-pdu", "131072"), id="takes PDUs of 131072 bytes"),
        pytest.param(("--max-send-pdu", "4096"), id="sends PDUs of 4096 bytes"),
        pytest.param(("--max-send-pdu", "131072"), id="sends PDUs of 131072 bytes"),
        pytest.param(("--combine",), id="transfer syntaxes in one context"),
        pytest.param(("--required",), id="required contexts only"),
        pytest.param(("--user", "somebody"), id="identity user"),
        pytest.param(("--user", "somebody", "--password", "secret"), id="identity password"),
        pytest.param(("--user", "somebody", "--empty-password"), id="identity empty password"),
    ],
)
def test_storescu_options(tmp_path: Path, service: Service, options: tuple[str, ...]) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.51", 3, pixels=300_000)
    run("storescu", *options, *address(service), *(one.path for one in instances))
    kept(service, instances)


@pytest.mark.parametrize("option", ["--jwt", "--saml", "--kerberos"])
def test_storescu_identity_in_a_file(tmp_path: Path, service: Service, option: str) -> None:
    token = tmp_path / "token"
    token.write_bytes(b"header.claims.signature")
    instances = made_up(tmp_path / "files", "1.2.3.52", 1)
    run("storescu", option, token, *address(service), instances[0].path)
    kept(service, instances)


def test_storescu_wants_its_identity_confirmed(tmp_path: Path, service: Service) -> None:
    """What is ignored is not confirmed; a requestor that insists goes away by itself."""
    instances = made_up(tmp_path / "files", "1.2.3.53", 1)
    options = ("--user", "somebody", "--password", "secret", "--pos-response")
    said = run("storescu", *options, *address(service), instances[0].path, code=1)
    assert "positive response" in said.lower()
    assert service.instances() == []
    service.echoes()


def test_storescu_aborts(tmp_path: Path, service: Service) -> None:
    """What was answered before an abort stays."""
    instances = made_up(tmp_path / "files", "1.2.3.54", 3)
    run("storescu", "--abort", *address(service), *(one.path for one in instances))
    service.in_log("aborted by the peer")
    kept(service, instances)
    wait_for(lambda: not service.parts(), "no part left")


def test_storescu_untuned(tmp_path: Path, service: Service) -> None:
    """With Nagle's algorithm at work, as it is by default."""
    instances = made_up(tmp_path / "files", "1.2.3.55", 60)
    run("storescu", *address(service), *(one.path for one in instances))
    kept(service, instances)


def test_storescu_invents_uids(tmp_path: Path, service: Service) -> None:
    """The same files again and again as other instances, series, studies and patients."""
    made_up(tmp_path / "files", "1.2.3.56", 2)
    options = ("--scan-directories", "--repeat", "10", "--invent-study", "2")
    run("storescu", *options, "--invent-series", "3", *address(service), tmp_path / "files")
    facts = [one.fact for one in stored(service)]
    assert len(service.instances()) == len(facts) == 20
    assert len({fact["sop_instance_uid"] for fact in facts}) == 20
    assert len({fact["series_instance_uid"] for fact in facts}) == 7
    assert len({fact["study_instance_uid"] for fact in facts}) == 4

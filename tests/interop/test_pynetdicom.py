"""pynetdicom as requestor, and as a second opinion on what we answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from pydicom import dcmread
from pynetdicom import _config, build_context, build_role, evt
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF
from pynetdicom.pdu_items import (
    AsynchronousOperationsWindowSubItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    SCP_SCU_RoleSelectionSubItem,
)
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from tests.interop.material import made_up, stored
from tests.interop.senders import associated
from tests.kit import (
    CT,
    DEFLATED,
    ELE,
    ILE,
    MR,
    VERIFICATION,
    Peer,
    Service,
    associate_rq,
    echo,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.interop

STORAGE_SERVICE: Final = "1.2.840.10008.4.2"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """At its end nothing that it said has a passcode in it."""
    with Service(tmp_path_factory.mktemp("pynetdicom"), workers=1) as running:
        yield running
        running.stop()
        assert "secret" not in running.all_log()


@pytest.fixture
def service(running: Service) -> Service:
    return running.anew()


def window(invoked: int, performed: int) -> AsynchronousOperationsWindowNegotiation:
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked = invoked
    item.maximum_number_operations_performed = performed
    return item


def extended(sop_class: str, information: bytes) -> SOPClassExtendedNegotiation:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = sop_class
    item.service_class_application_information = information
    return item


def common_extended(sop_class: str) -> SOPClassCommonExtendedNegotiation:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = sop_class
    item.service_class_uid = STORAGE_SERVICE
    return item


def identity(kind: int, primary: bytes, secondary: bytes = b"") -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = primary
    item.secondary_field = secondary
    item.positive_response_requested = False
    return item


def user_items(ac: A_ASSOCIATE_AC) -> dict[type, Any]:
    """The user information of an answer by kind; each must be there once."""
    assert ac.user_information is not None
    items = ac.user_information.user_data
    found = {type(item): item for item in items}
    assert len(found) == len(items)
    return found


def test_move_originator(tmp_path: Path, service: Service) -> None:
    """Instances of a C-MOVE name who asked for them."""
    moved, plain = made_up(tmp_path / "files", "1.2.3.60", 2)
    with associated(service) as scu:
        status = scu.send_c_store(moved.path, originator_aet="MOVER", originator_id=31007)
        assert status.Status == 0
        assert scu.send_c_store(plain.path).Status == 0
    first, second = (one.fact for one in stored(service))
    assert first["sop_instance_uid"] == moved.sop_instance
    assert first["move_originator_ae"] == "MOVER"
    assert first["move_originator_message_id"] == 31007
    assert first["calling_ae"] == "PYNETDICOM"
    assert not {"move_originator_ae", "move_originator_message_id"} & second.keys()


def test_message_ids_and_priorities(tmp_path: Path, service: Service) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.61", 4)
    with associated(service) as scu:
        for one, (number, priority) in zip(
            instances, [(0, 0), (1, 1), (65535, 2), (1, 2)], strict=True
        ):
            assert scu.send_c_store(one.path, msg_id=number, priority=priority).Status == 0
    facts = [one.fact for one in stored(service)]
    assert [fact["message_id"] for fact in facts] == [0, 1, 65535, 1]


def test_c_echo_between(tmp_path: Path, service: Service) -> None:
    instances = made_up(tmp_path / "files", "1.2.3.62", 3)
    contexts = [build_context(CT, [ELE]), build_context(VERIFICATION)]
    with associated(service, contexts) as scu:
        for one in instances:
            assert scu.send_c_echo().Status == 0
            assert scu.send_c_store(one.path).Status == 0
    assert len(list(stored(service))) == 3


def test_maximum_length(tmp_path: Path) -> None:
    """Whatever length the requestor takes; it sends by ours."""
    (instance,) = made_up(tmp_path / "files", "1.2.3.63", 1, pixels=300_000)
    with Service(tmp_path, "--max-pdu-length", "32768", workers=1) as service:
        for length in (0, 1024, 16384, 1 << 20):
            service.anew()
            with associated(service, max_pdu=length) as scu:
                assert scu.acceptor.maximum_length == 32768, length
                assert scu.send_c_store(instance.path).Status == 0, length
            (one,) = stored(service)
            assert one.data_set == instance.data_set, length


def test_extended_negotiation(tmp_path: Path) -> None:
    """All there is to negotiate, at once, and it still stores."""
    received: list[A_ASSOCIATE_AC] = []

    def look(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_AC):
            received.append(event.pdu)

    (instance,) = made_up(tmp_path / "files", "1.2.3.64", 1)
    items: list[Any] = [
        window(0, 7),
        extended(CT, b"\x02\x00\x03\x00\x01\x00"),
        common_extended(CT),
        common_extended("1.2.3.4.5"),
        identity(2, b"somebody", b"secret"),
        build_role(CT, scu_role=True, scp_role=True),
    ]
    contexts = [build_context(CT, [ELE]), build_context("1.2.3.4.5", [ILE])]
    handlers = [(evt.EVT_PDU_RECV, look)]
    with Service(tmp_path, "--max-async-operations", "12", workers=1) as service:
        with associated(service, contexts, ext_neg=items, evt_handlers=handlers) as scu:
            assert [context.abstract_syntax for context in scu.accepted_contexts] == [
                CT,
                "1.2.3.4.5",
            ]
            assert scu.acceptor.asynchronous_operations == (12, 1)
            assert scu.acceptor.sop_class_extended == {CT: b"\x02\x00\x03\x00\x00\x00"}
            assert scu.send_c_store(instance.path).Status == 0
        (one,) = stored(service)
        assert one.data_set == instance.data_set
    (ac,) = received
    role = user_items(ac)[SCP_SCU_RoleSelectionSubItem]
    assert (role.uid, role.scu_role, role.scp_role) == (CT, 1, 0)


@pytest.mark.parametrize(
    ("kind", "primary", "secondary"),
    [
        (1, b"somebody", b""),
        (2, b"somebody", b"secret"),
        (3, b"kerberos ticket", b""),
        (4, b"<saml/>", b""),
        (5, b"header.claims.signature", b""),
    ],
    ids=["user", "password", "kerberos", "saml", "jwt"],
)
def test_identity_is_ignored(
    tmp_path: Path, service: Service, kind: int, primary: bytes, secondary: bytes
) -> None:
    (instance,) = made_up(tmp_path / "files", "1.2.3.65", 1)
    with associated(service, ext_neg=[identity(kind, primary, secondary)]) as scu:
        assert scu.send_c_store(instance.path).Status == 0
    assert len(list(stored(service))) == 1


def test_window(tmp_path: Path, service: Service) -> None:
    """pynetdicom negotiates a window, and uses none of it."""
    instances = made_up(tmp_path / "files", "1.2.3.66", 3)
    for asked, granted in (((1, 1), (1, 1)), ((5, 3), (5, 1)), ((0, 0), (64, 1))):
        with associated(service, ext_neg=[window(*asked)]) as scu:
            assert scu.acceptor.asynchronous_operations == granted
            for one in instances:
                assert scu.send_c_store(one.path).Status == 0


def test_it_reads_our_answer(service: Service) -> None:
    """It decodes our A-ASSOCIATE-AC, and would have encoded the same bytes."""
    rq = associate_rq(
        (1, CT, f"{ELE},{ILE}"), (3, MR, DEFLATED), (5, VERIFICATION, ILE), (255, "1.2.3", "1.2.4"),
        window=3, calling="READER", called="WRITER",
    )  # fmt: skip
    with Peer(service.host, service.port) as peer:
        raw = peer.associate(rq)
        assert raw is not None
        ac = A_ASSOCIATE_AC()
        ac.decode(raw)
        assert ac.encode() == raw
        assert ac.called_ae_title == "WRITER"
        assert ac.calling_ae_title == "READER"
        assert ac.application_context_name == "1.2.840.10008.3.1.1.1"
        assert [
            (one.presentation_context_id, one.result_reason, one.transfer_syntax)
            for one in ac.presentation_context
        ] == [(1, 0, ELE), (3, 0, DEFLATED), (5, 0, ILE), (255, 0, "1.2.4")]
        kinds = user_items(ac)
        assert kinds.keys() == {
            AsynchronousOperationsWindowSubItem,
            ImplementationClassUIDSubItem,
            ImplementationVersionNameSubItem,
            MaximumLengthSubItem,
        }
        assert kinds[MaximumLengthSubItem].maximum_length_received == 131072
        assert kinds[AsynchronousOperationsWindowSubItem].max_operations_invoked == 3

        peer.send(echo(9, context=5))
        raw = peer.read_pdu()
        assert raw is not None
        data = P_DATA_TF()
        data.decode(raw)
        assert data.encode() == raw
        peer.release()


def test_it_reads_our_rejection(tmp_path: Path) -> None:
    with (
        Service(tmp_path, "--check-called-ae", workers=1) as service,
        Peer(service.host, service.port) as peer,
    ):
        raw = peer.associate(associate_rq(called="SOMEBODY"))
        assert raw is not None
        rj = A_ASSOCIATE_RJ()
        rj.decode(raw)
        assert rj.encode() == raw
        assert (rj.result, rj.source, rj.reason_diagnostic) == (1, 1, 7)
        assert peer.read_until_close() == b""


def test_a_whole_file_read_back(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pydicom reads from the stored file is what it reads from the one that was sent."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    (instance,) = made_up(tmp_path / "files", "1.2.3.67", 1)
    with associated(service) as scu:
        assert scu.send_c_store(instance.path).Status == 0
    (one,) = stored(service)
    assert dcmread(one.path) == dcmread(instance.path)
    assert one.meta.SourceApplicationEntityTitle == "PYNETDICOM"
    assert one.meta.FileMetaInformationVersion == b"\x00\x01"

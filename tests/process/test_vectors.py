"""Streams of senders, harmless oddities and malformed ones against the running service.

They are our own, and those of ../shared/vectors where it is there.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pydicom
import pytest

from fastscp.uids import IMPLEMENTATION_CLASS_UID
from fastscp_ext import (
    CommandSet,
    ae_title,
    decode_associate_ac,
    decode_associate_rq,
    decode_command,
    decode_pdata,
)
from tests import streams
from tests.kit import RELEASE_RP, Service, abort, reject, split_pdus, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

C_STORE: Final = 0x0001
ABORTED: Final = streams.names("own/store_abort.c2s", "recorded/dcmtk367_storescu_abort.c2s")
# Their service is for another version: the context is refused, and used all the same.
COMMITMENTS: Final = streams.names("own/commitment.c2s", "recorded/*stgcmt_naction.c2s")
# The study and series of theirs, and of our own; each has others in a sequence in front of them.
STUDY_AND_SERIES: Final = (
    ("1.2.826.0.1.3680043.8.498.7100.1", "1.2.826.0.1.3680043.8.498.7100.1.1"),
    ("1.2.3.71.1", "1.2.3.71.1.1"),
)
# Where group 0002 begins in a data set that should not have it.
EMBEDDED: Final = {
    "derived_preamble_in_dataset.c2s": 132,
    "derived_group2_in_dataset.c2s": 0,
}
GOOD: Final = tuple(
    name
    for name in streams.told()
    if name.endswith(".c2s") and name not in (*ABORTED, *COMMITMENTS)
)


@dataclass(frozen=True)
class Bad:
    """What a malformed stream gets, and nothing else.

    reply: first bytes of the PDU that ends it, after an A-ASSOCIATE-AC where `associates`; b"" is
    a close without a PDU. status: of the only response, before an ordinary release.
    """

    row: str
    reply: bytes = b""
    associates: bool = True
    status: int | None = None
    half_close: bool = False
    stored: int = 0


BAD: Final = {
    "http_get": Bad("B1", abort(0, 0), associates=False),
    "tls_client_hello": Bad("B2", abort(0, 0), associates=False),
    "unknown_first_pdu_type": Bad("B4", abort(0, 0), associates=False),
    "first_pdu_length_ffffffff": Bad("B6", abort(0, 0), associates=False),
    "rq_truncated_then_close": Bad("B8", associates=False, half_close=True),
    "pdata_before_rq": Bad("B9", abort(0, 0), associates=False),
    "release_before_rq": Bad("B9", abort(0, 0), associates=False),
    "rq_item_overruns": Bad("B11", abort(0, 0), associates=False),
    "rq_no_contexts": Bad("B12", reject(1, 2, 1), associates=False),
    "rq_protocol_version_0002": Bad("B13", reject(1, 2, 2), associates=False),
    "rq_protocol_version_0003": Bad("B13", half_close=True),
    "rq_app_context": Bad("B14", reject(1, 1, 2), associates=False),
    "unknown_pdu_type": Bad("B23", abort(2, 1)),
    "second_rq": Bad("B24", abort(2, 2)),
    "ac_from_client": Bad("B24", abort(2, 2)),
    "pdu_length_ffffffff": Bad("B25", abort(2, 6)),
    "pdata_empty": Bad("B27", abort(2, 6)),
    "pdv_length_0": Bad("B28", abort(2, 6)),
    "pdv_length_1": Bad("B28", abort(2, 6)),
    "pdv_longer_than_pdu": Bad("B29", abort(2, 6)),
    "unknown_context_id": Bad("B31", abort(2, 6)),
    "even_context_id": Bad("B31", abort(2, 6)),
    "data_before_command": Bad("B33", abort(2, 5)),
    "command_inside_data": Bad("B34", abort(2, 5)),
    "context_changes_in_data": Bad("B35", abort(2, 5)),
    "truncated_pdata_then_close": Bad("B37", half_close=True),
    "command_element_overruns": Bad("B39", abort(0, 0)),
    "no_message_id": Bad("B41", abort(0, 0)),
    "no_priority": Bad("B42", status=0x0000, stored=1),
    "no_sop_instance_uid": Bad("B43", status=0x0117),
    "cstore_without_dataset": Bad("B44", status=0xC000),
    "unknown_command_field": Bad("B45", status=0x0211),
    "uid_traversal": Bad("B49", status=0x0117),
    "uid_embedded_nul": Bad("B50", status=0x0117),
    "uid_80_chars": Bad("B51", status=0x0117),
    "sop_instance_differs_from_dataset": Bad("B53", status=0xA900),
    "empty_dataset": Bad("B54", status=0xC000),
    "dataset_truncated": Bad("B55", status=0xC000),
}


def _messages(name: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = streams.told()[name].get("messages", [])
    return messages


def _commands(stream: bytes) -> list[CommandSet]:
    """The command sets a client sent, in order."""
    commands = []
    held = b""
    for pdu in split_pdus(stream):
        for _context, header, fragment in decode_pdata(pdu) if pdu[0] == 4 else []:
            if header & 1:
                held += fragment
                if header & 2:
                    commands.append(decode_command(held))
                    held = b""
    return commands


def _data_set(stream: bytes) -> bytes:
    """The data set of the only message."""
    pdvs = [pdv for pdu in split_pdus(stream) if pdu[0] == 4 for pdv in decode_pdata(pdu)]
    return b"".join(fragment for _context, header, fragment in pdvs if not header & 1)


@pytest.fixture(scope="module", params=["stable", "buffered", "TLS"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    durability, tls = request.param, None
    if request.param == "TLS":
        durability, tls = "stable", request.getfixturevalue("secured")
    options = ("--durability", durability, "--max-pdu-length", "16384")
    with Service(tmp_path_factory.mktemp("vectors"), *options, tls=tls) as running:
        yield running


@pytest.fixture
def emptied(service: Service) -> Iterator[Service]:
    """The service, whose store a test finds, and leaves, without an instance."""
    yield service
    service.empty()


class Exchange:
    """One stream replayed: request, wait for the acceptance, then the rest."""

    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self.stream = streams.read(name)
        self.rq = next(split_pdus(self.stream))
        self.rest = self.stream[len(self.rq) :]
        self.facts_before = len(service.journal())
        self.service = service
        self.peer = service.connect()
        answer = self.peer.associate(self.rq)
        assert answer is not None
        self.ac = decode_associate_ac(answer)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_error: object) -> None:
        self.peer.close()

    def check(self, answers: bytes) -> None:
        """Compare what came back, what is on the disk and what is journaled with what is told."""
        pdus = list(split_pdus(answers))
        assert pdus.pop() == RELEASE_RP
        requests = _commands(self.stream)
        expected = _messages(self.name)
        assert [one.command_field for one in requests] == [m["command_field"] for m in expected]
        responses = _commands(b"".join(pdus))
        assert len(responses) == len(requests)
        for request, response in zip(requests, responses, strict=True):
            assert response.command_field == (request.command_field or 0) | 0x8000
            assert response.message_id_being_responded_to == request.message_id
            assert response.status == 0x0000
            assert not response.has_data_set
            # As they came, padding included.
            for number in (0x0002, 0x1000):
                assert response.elements.get(number) == request.elements.get(number)
        self.check_files()

    def check_files(self, **more: object) -> None:
        """more: members of the journal lines beside the usual ones."""
        stores = [m for m in _messages(self.name) if m["command_field"] == C_STORE]
        facts = self.service.journal()[self.facts_before :]
        assert [fact["message_id"] for fact in facts] == [m["message_id"] for m in stores]
        for fact, message in zip(facts, stores, strict=True):
            self._check_instance(fact, message, more)

    def _check_instance(
        self, fact: dict[str, Any], message: dict[str, Any], more: dict[str, object]
    ) -> None:
        syntaxes = {one.id: one.transfer_syntax for one in self.ac.presentation_contexts}
        syntax = syntaxes[message["pc"]]
        stripped = 0
        sop_class = message["affected_sop_class"].rstrip("\0 ")
        sop = message["affected_sop_instance"].rstrip("\0 ")
        study, series = STUDY_AND_SERIES[self.name.startswith("own/")]
        path = f"{study}/{series}/{sop}.dcm"
        assert path in self.service.instances()

        assert (self.service.store / path).read_bytes().startswith(bytes(128) + b"DICM")
        data = self.service.data_of(path)
        digest = message["dataset_sha256"]
        embedded = EMBEDDED.get(self.name.partition("/")[2])
        if embedded is not None:
            sent = _data_set(self.rest)
            assert hashlib.sha256(sent).hexdigest() == digest
            # The group length is the first element, 12 bytes.
            end = embedded + 12
            stripped = end + int.from_bytes(sent[end - 4 : end], "little")
            digest = hashlib.sha256(sent[stripped:]).hexdigest()
        assert len(data) == message["dataset_bytes"] - stripped
        assert hashlib.sha256(data).hexdigest() == digest

        calling, called = (ae_title(raw) for raw in (self.ac.calling_ae, self.ac.called_ae))
        meta = pydicom.filereader.read_file_meta_info(self.service.store / path)
        assert meta.FileMetaInformationVersion == b"\0\1"
        assert meta.MediaStorageSOPClassUID == sop_class
        assert meta.MediaStorageSOPInstanceUID == sop
        assert meta.TransferSyntaxUID == syntax
        assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        # A blank title has nothing to say.
        assert meta.get("SourceApplicationEntityTitle", "") == calling
        assert meta.get("SendingApplicationEntityTitle", "") == calling
        assert meta.get("ReceivingApplicationEntityTitle", "") == called

        wanted = {
            "event": "stored",
            "calling_ae": calling,
            "called_ae": called,
            "peer": self.peer.name,
            "sop_class_uid": sop_class,
            "sop_instance_uid": sop,
            "study_instance_uid": study,
            "series_instance_uid": series,
            "transfer_syntax_uid": syntax,
            "path": path,
            "bytes": len(data),
            **more,
        }
        if stripped:
            wanted["stripped"] = stripped
        if "move_originator_aet" in message:
            wanted["move_originator_ae"] = message["move_originator_aet"]
            wanted["move_originator_message_id"] = message["move_originator_id"]
        assert {key: fact.get(key) for key in wanted} == wanted
        assert "duplicate" not in fact
        assert "truncated" not in fact


def test_each_oddity_and_fault_is_there_in_bytes_of_our_own() -> None:
    ours = {name.partition("/")[2] for name in streams.names("own/*")}
    assert {f"bad_{name}.c2s" for name in BAD} == {one for one in ours if one.startswith("bad_")}
    assert {name.partition("/")[2] for name in streams.names("derived/*", "bad/*")} <= ours
    assert len(ours) == 82


@pytest.mark.parametrize("name", GOOD)
def test_a_recorded_or_harmless_stream_is_stored(emptied: Service, name: str) -> None:
    with Exchange(emptied, name) as exchange:
        exchange.peer.send(exchange.rest)
        exchange.check(exchange.peer.read_until_close())
    wait_for(lambda: not emptied.parts(), "no part left")


@pytest.mark.parametrize(
    "name",
    streams.names(
        "own/store_deflated.c2s",
        "own/store_extended_negotiation.c2s",
        "own/derived_preamble_in_dataset.c2s",
        "own/derived_two_messages_in_one_pdu.c2s",
        "own/derived_zero_length_middle_fragment.c2s",
        "recorded/dcmtk367_storescu_deflated.c2s",
        "recorded/pynetdicom304_extneg.c2s",
    ),
)
def test_a_stream_may_come_byte_by_byte(emptied: Service, name: str) -> None:
    with Exchange(emptied, name) as exchange:
        for at in range(len(exchange.rest)):
            exchange.peer.send(exchange.rest[at : at + 1])
        exchange.check(exchange.peer.read_until_close())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "name",
    streams.names(
        "own/store_small_pdus.c2s",
        "own/store_move_originator.c2s",
        "own/derived_group2_in_dataset.c2s",
        "own/derived_two_byte_fragments.c2s",
        "recorded/dcmtk367_storescu_smallpdu4096.c2s",
        "recorded/pynetdicom304_store_two_moveorig.c2s",
    ),
)
def test_a_stream_may_be_cut_anywhere(emptied: Service, name: str, seed: int) -> None:
    chance = random.Random(f"{name} {seed}")
    with Exchange(emptied, name) as exchange:
        cuts = sorted(chance.sample(range(1, len(exchange.rest)), 9))
        for start, end in zip([0, *cuts], [*cuts, len(exchange.rest)], strict=True):
            exchange.peer.send(exchange.rest[start:end])
        exchange.check(exchange.peer.read_until_close())


PAIRS: Final = (
    ("own/store_small_pdus.c2s", "own/store_another_instance.c2s"),
    ("recorded/dcmtk367_storescu_ct_ele.c2s", "recorded/dcmtk367_storescu_ebe.c2s"),
)


@pytest.mark.parametrize("names", [pair for pair in PAIRS if streams.names(*pair)])
def test_two_streams_may_come_at_once(emptied: Service, names: tuple[str, str]) -> None:
    with Exchange(emptied, names[0]) as one, Exchange(emptied, names[1]) as other:
        # Each keeps the other waiting in the middle of its message.
        step = min(1000, len(one.rest) // 5)
        for at in range(0, max(len(one.rest), len(other.rest)), step):
            for exchange in (one, other):
                exchange.peer.send(exchange.rest[at : at + step])
        answers = [exchange.peer.read_until_close() for exchange in (one, other)]
        facts = emptied.journal()[one.facts_before :]
        assert {fact["sop_instance_uid"] for fact in facts} == {
            m["affected_sop_instance"] for name in names for m in _messages(name)
        }
        for exchange, answer in zip((one, other), answers, strict=True):
            assert list(split_pdus(answer))[-1] == RELEASE_RP
            assert [one.status for one in _commands(answer[: -len(RELEASE_RP)])] == [0]
            message = _messages(exchange.name)[0]
            mine = next(
                f for f in facts if f["sop_instance_uid"] == message["affected_sop_instance"]
            )
            exchange._check_instance(mine, message, {})


@pytest.mark.parametrize("name", ABORTED)
def test_what_was_sent_whole_before_an_abort_is_kept(emptied: Service, name: str) -> None:
    with Exchange(emptied, name) as exchange:
        data, abort = exchange.rest[:-10], exchange.rest[-10:]
        exchange.peer.send(data)
        assert exchange.peer.read_statuses(1) == [(1, 0)]
        exchange.peer.send(abort)
        assert exchange.peer.read_until_close() == b""
        exchange.check_files()


@pytest.mark.parametrize("name", ABORTED)
def test_what_was_sent_whole_with_an_abort_right_behind_is_kept(
    emptied: Service, name: str
) -> None:
    with Exchange(emptied, name) as exchange:
        exchange.peer.send(exchange.rest)
        # An abort may overtake the response; it must not overtake the instance.
        exchange.peer.read_until_close(reset=True)
        wait_for(lambda: len(emptied.journal()) > exchange.facts_before, "the journal line")
        exchange.check_files()


@pytest.mark.parametrize("name", COMMITMENTS)
def test_a_service_not_offered_is_refused_at_its_context(service: Service, name: str) -> None:
    with Exchange(service, name) as exchange:
        assert [one.result for one in exchange.ac.presentation_contexts] == [3]
        exchange.peer.send(exchange.rest)
        assert exchange.peer.read_until_close() == abort(2, 6)


def test_the_acceptance_gives_back_what_the_request_said(service: Service) -> None:
    for name in GOOD:
        with Exchange(service, name) as exchange:
            rq = decode_associate_rq(exchange.rq)
            assert exchange.ac.called_ae == rq.called_ae
            assert exchange.ac.calling_ae == rq.calling_ae
            assert exchange.ac.reserved == rq.reserved
            ids = [one.id for one in rq.presentation_contexts]
            assert [one.id for one in exchange.ac.presentation_contexts] == ids


@pytest.mark.parametrize("name", streams.names("*/bad_*.c2s"))
def test_a_malformed_stream_gets_its_answer(emptied: Service, name: str) -> None:
    service, bad = emptied, BAD[name.partition("/bad_")[2].removesuffix(".c2s")]
    stream = streams.read(name)
    rq = next(split_pdus(stream))
    workers = service.worker_pids()
    facts = len(service.journal())
    with service.connect() as peer:
        if bad.associates:
            answer = peer.associate(rq)
            assert answer is not None
            assert answer[0] == 2
            peer.send(stream[len(rq) :])
        else:
            peer.send(stream)
        if bad.half_close:
            peer.half_close()
        got = peer.read_until_close()
        if bad.status is None:
            # One PDU at most, and nothing behind it.
            assert got == bad.reply
        else:
            _check_response(stream, got, bad.status)
    assert len(service.instances()) == bad.stored
    assert len(service.journal()) == facts + bad.stored
    wait_for(lambda: not service.parts(), "no part left")
    _nothing_outside(service.store)
    assert service.worker_pids() == workers
    service.echoes()


def _check_response(stream: bytes, got: bytes, status: int) -> None:
    assert got.endswith(RELEASE_RP)
    (request,) = _commands(stream)
    (response,) = _commands(got[: -len(RELEASE_RP)])
    assert response.status == status
    assert response.command_field == (request.command_field or 0) | 0x8000
    assert response.message_id_being_responded_to == request.message_id
    if status == 0xC000 and request.has_data_set:
        comment = response.error_comment or ""
        wanted = () if comment == "empty data set" else (0x0020000D, 0x0020000E)
        assert response.offending_elements == wanted


def _nothing_outside(store: Path) -> None:
    """The folder beside the store has what the service puts there: its log."""
    beside = {path.name for path in store.parent.iterdir()}
    assert beside == {"store", "log-0"}

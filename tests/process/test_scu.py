"""The sending side against peers that behave in every way a peer can."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
import zstandard
from pydicom import dcmread

from fastscp.cli import app as cli
from fastscp.scu import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    ConnectionLost,
    ContextRefused,
    PeerError,
    PeerTimeout,
    Priority,
    ProtocolViolation,
    SeenPDU,
    Timeouts,
    UnusableInstance,
    associate,
    jwt_identity,
    password_identity,
    send_files,
)
from fastscp.scu import link as scu_link
from fastscp.scu.send import carrier, shipment
from fastscp.status import StatusClass
from fastscp_ext import AssociateAC, PresentationContextAC, UserInformation, encode_associate_ac
from tests.kit import (
    BIG,
    CT,
    DEFLATED,
    ELE,
    ILE,
    MR,
    RELEASE_RQ,
    SOP,
    VERIFICATION,
    Service,
    abort,
    data_set,
    element,
    message,
    path_of,
    pdu,
    reject,
    store,
    wait_for,
)
from tests.scripted import Connection, Message, Scp, part10, write_files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastscp import scu

# For peers that let a time pass. What comes before that, they do in time.
BRIEF = Timeouts(send=0.3, response=0.3, release=0.3)
CONTEXTS = [(CT, [ELE]), (VERIFICATION, [ILE])]
FILE = part10(data_set())


@pytest.fixture(autouse=True)
def brief_artim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most peers here hang up only when we do: that takes a tenth of its second."""
    monkeypatch.setattr(scu_link, "_ARTIM_S", 0.1)
    monkeypatch.setattr(scu_link.Link.closed, "__defaults__", (0.1,))


def talk(
    scp: Scp | Service,
    use: Callable[[scu.Association], Awaitable[Any]],
    contexts: list[tuple[str, list[str]]] = CONTEXTS,
    **more: Any,
) -> Any:
    """Open an association, use it, leave it."""

    async def run() -> Any:
        async with await associate(scp.host, scp.port, contexts, **more) as association:
            return await use(association)

    return asyncio.run(run(), debug=False)


def serving(**more: Any) -> Callable[[Connection], list[Message]]:
    def script(connection: Connection) -> list[Message]:
        connection.accept(**more)
        return connection.serve()

    return script


# The Python API -----------------------------------------------------------------------------------


def test_store_and_echo(tmp_path: Path) -> None:
    """Path, bytes, data set alone and Dataset arrive byte for byte; the receiver is our own."""
    path = write_files(tmp_path / "in", 1)[0]
    big = data_set(BIG, sop=f"{SOP}.8")
    dataset = dcmread(io.BytesIO(part10(data_set(sop=f"{SOP}.9"), sop=f"{SOP}.9")))
    bare = dcmread(io.BytesIO(data_set(sop=f"{SOP}.7")), force=True)
    del bare.file_meta

    async def use(association: scu.Association) -> None:
        assert str(await association.echo()) == "0000 success"
        for source in (path, str(path), path.read_bytes()):
            response = await association.store(source)
            assert response.status == 0
            assert response.ok
            assert response.meaning == "success"
            assert response.affected_sop_instance_uid == f"{SOP}.1"
        with pytest.raises(ValueError, match="give context_id"):
            await association.store(big)
        with pytest.raises(ValueError, match="99 is not an accepted one"):
            await association.store(big, context_id=99)
        assert (await association.store(big, context_id=5)).ok
        assert (await association.store(dataset)).ok
        assert (await association.store(bare, context_id=1)).ok
        assert not hasattr(bare, "file_meta")

    with Service(tmp_path, workers=1) as service:
        talk(service, use, [*CONTEXTS, (CT, [BIG])], window=4)
        assert service.data_of(path_of(f"{SOP}.8")) == big
        assert service.data_of(path_of(f"{SOP}.9")) == data_set(sop=f"{SOP}.9")
        assert service.data_of(path_of(f"{SOP}.1")) == data_set(sop=f"{SOP}.1")
        assert service.data_of(path_of(f"{SOP}.7")) == data_set(sop=f"{SOP}.7")
        assert len(service.instances()) == 4


def test_all_of_a_request_and_of_a_response() -> None:
    def script(connection: Connection) -> list[Message]:
        connection.accept()
        got = connection.read_message()
        assert got is not None
        connection.respond(
            got, 0xC123, e0002=CT, e1000=SOP, e0901=(0x0020000D, 0x0020000E), e0902="no",
            e0903=7,
        )  # fmt: skip
        connection.serve()
        return [got]

    seen: list[SeenPDU] = []

    async def use(association: scu.Association) -> scu.Response:
        response = await association.store(
            FILE,
            context_id=1,
            message_id=0,
            sop_class=MR,
            sop_instance="1.2.3.4",
            priority=Priority.HIGH,
            move_originator_ae="MOVER",
            move_originator_message_id=77,
        )
        with pytest.raises(ValueError, match="both"):
            await association.store(FILE, move_originator_ae="MOVER")
        return response

    with Scp(script) as scp:
        response = talk(scp, use, on_pdu=seen.append)
    command = scp.results[0][0].command
    assert command.message_id == 0
    assert command.priority == 1
    assert command.affected_sop_class_uid == MR
    assert command.affected_sop_instance_uid == "1.2.3.4"
    assert (command.move_originator_ae, command.move_originator_message_id) == ("MOVER", 77)
    assert response.status == 0xC123
    assert response.status_class is StatusClass.FAILURE
    assert not response.ok
    assert response.meaning == "cannot understand"
    assert (response.error_comment, response.error_id) == ("no", 7)
    assert response.offending_elements == (0x0020000D, 0x0020000E)
    assert (response.affected_sop_class_uid, response.affected_sop_instance_uid) == (CT, SOP)
    assert set(response.elements) == {
        0x0000, 0x0002, 0x0100, 0x0120, 0x0800, 0x0900, 0x0901, 0x0902, 0x0903, 0x1000,
    }  # fmt: skip
    assert str(response) == "C123 cannot understand, 'no', error id 7, (0020,000D), (0020,000E)"
    assert [(one.sent, one.name) for one in seen] == [
        (True, "A-ASSOCIATE-RQ"),
        (False, "A-ASSOCIATE-AC"),
        (True, "P-DATA-TF"),
        (True, "P-DATA-TF"),
        (False, "P-DATA-TF"),
        (True, "A-RELEASE-RQ"),
        (False, "A-RELEASE-RP"),
    ]


def test_what_no_request_can_hold() -> None:
    with Scp(serving()) as scp:
        with pytest.raises(ValueError, match="at most 128"):
            talk(scp, _nothing, [(CT, [ELE])] * 129)
        with pytest.raises(ValueError, match="1 to 16 characters"):
            talk(scp, _nothing, called_ae="X" * 17)
        with pytest.raises(ValueError, match="at least one"):
            talk(scp, _nothing, window=0)
    assert scp.connections == 0


async def _nothing(association: scu.Association) -> None:
    assert association.failure is None


async def _store(association: scu.Association) -> scu.Response:
    return await association.store(FILE)


def test_identity_and_window_are_offered_only_when_asked_for() -> None:
    requests = []

    def script(connection: Connection) -> None:
        connection.accept(window=3)
        requests.append(connection.request)
        connection.serve()

    async def window(association: scu.Association) -> int:
        return association.window

    with Scp(script) as scp:
        assert talk(scp, window) == 1
        assert talk(scp, window, window=9, identity=password_identity("jo", "sesame")) == 3
        assert talk(scp, window, window=2, identity=jwt_identity("a.b.c")) == 2
    plain, password, jwt = (one.user_information for one in requests if one is not None)
    assert plain is not None
    assert plain.identity is None
    assert plain.async_window is None
    assert password is not None
    assert password.identity == password_identity("jo", "sesame")
    assert "sesame" not in repr(password)
    assert jwt is not None
    assert jwt.identity is not None
    assert (jwt.identity.type, jwt.identity.primary) == (5, b"a.b.c")


@pytest.mark.parametrize("max_pdu", [0, 8, 9, 15, 127, 16383, 65535, 262144, None])
def test_maximum_length_is_kept(max_pdu: int | None) -> None:
    """Tiny, odd, absent and without limit: the bytes arrive, in fragments that fit."""
    pixels = 600 if max_pdu and max_pdu < 1000 else 600_000
    data = data_set(pixels=pixels)
    lengths: list[int] = []

    def script(connection: Connection) -> list[Message]:
        connection.accept(max_pdu=max_pdu)
        messages = connection.serve()
        lengths.extend(connection.lengths)
        return messages

    with Scp(script) as scp:
        assert talk(scp, lambda association: association.store(part10(data))).ok
    assert scp.results[0][0].data == data
    assert all(length % 2 == 0 for length in lengths)
    assert max(lengths) <= (max_pdu or {0: 262144, None: 16384}[max_pdu])


def test_maximum_length_in_which_nothing_fits() -> None:
    def script(connection: Connection) -> bytes:
        connection.accept(max_pdu=7)
        return connection.until_closed()

    with Scp(script) as scp, pytest.raises(ProtocolViolation, match="at most 7 bytes"):
        talk(scp, _store)
    assert scp.results == [abort(0, 0)]


def test_contexts_that_are_refused() -> None:
    contexts = [(CT, [ELE]), (CT, [ILE]), (CT, [BIG]), (MR, [ELE]), (MR, [ILE])]

    async def use(association: scu.Association) -> None:
        assert list(association.contexts) == [5]
        assert [one.result for one in association.refused] == [4, 4, 3, 2]
        with pytest.raises(ContextRefused, match="transfer syntaxes not supported") as caught:
            await association.store(FILE)
        assert "Explicit VR Little Endian (1.2.840.10008.1.2.1)" in str(caught.value)
        assert caught.value.result == 4
        with pytest.raises(ContextRefused, match="abstract syntax not supported"):
            await association.store(part10(data_set(sop_class=MR), sop_class=MR))
        with pytest.raises(ContextRefused, match="no reason given"):
            await association.store(part10(data_set(ILE, sop_class=MR), syntax=ILE))
        with pytest.raises(ContextRefused, match="no presentation context was proposed"):
            await association.store(part10(data_set(DEFLATED), syntax=DEFLATED))
        with pytest.raises(ContextRefused):
            await association.echo()
        assert (await association.store(part10(data_set(BIG), syntax=BIG))).ok

    # One refused, one accepted in a transfer syntax nobody proposed, one not answered at all.
    answer = serving(results={1: 4, 7: 3}, syntaxes={3: BIG}, leave_out={9})
    with Scp(answer) as scp:
        talk(scp, use, contexts)


def test_what_cannot_be_sent_leaves_the_association_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not DICOM")
    (tmp_path / "empty").write_bytes(part10(b""))

    async def use(association: scu.Association) -> None:
        for source in (tmp_path / "text", b"short"):
            with pytest.raises((UnusableInstance, ValueError)):
                await association.store(source)
        with pytest.raises(UnusableInstance, match="no data set"):
            await association.store(tmp_path / "empty")
        with pytest.raises(FileNotFoundError):
            await association.store(tmp_path / "missing")
        nameless = element(0x00100010, b"PN", b"A^B ")
        for bare, why in ((b"", "no data set"), (nameless, "no SOP Class UID")):
            with pytest.raises(UnusableInstance, match=why):
                await association.store(bare, context_id=1)
        with pytest.raises(UnusableInstance, match="no SOP Instance UID"):
            await association.store(nameless, context_id=1, sop_class=CT)
        assert (await association.store(nameless, context_id=1, sop_class=CT, sop_instance=SOP)).ok
        assert (await association.store(FILE)).ok

    with Scp(serving()) as scp:
        talk(scp, use)


def test_window_and_responses_out_of_order() -> None:
    """As many as granted are outstanding, never more; each gets the response that is its own."""

    def script(connection: Connection) -> None:
        connection.accept(window=3)
        first = [connection.read_message() for _ in range(3)]
        connection.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        connection.socket.settimeout(60)
        for number, one in enumerate(reversed(first)):
            assert one is not None
            connection.respond(one, 0xB000 + number, e1000=one.command.affected_sop_instance_uid)
        connection.serve()

    async def use(association: scu.Association) -> list[scu.Response]:
        assert association.window == 3
        files = [part10(data_set(sop=f"{SOP}.{n}")) for n in range(5)]
        return await asyncio.gather(*(association.store(one) for one in files))

    with Scp(script) as scp:
        responses = talk(scp, use, window=8)
    assert [one.status for one in responses] == [0xB002, 0xB001, 0xB000, 0, 0]
    assert [one.affected_sop_instance_uid for one in responses[:3]] == [
        f"{SOP}.{n}" for n in range(3)
    ]


def _rejects(connection: Connection) -> None:
    connection.read_request()
    connection.socket.sendall(reject(2, 3, 2))
    connection.until_closed()


def _closes_before(connection: Connection) -> None:
    connection.read_request()


def _resets_before(connection: Connection) -> None:
    connection.read_request()
    connection.reset()


def _silent(connection: Connection) -> None:
    connection.read_request()
    assert connection.until_closed() == abort(0, 0)


def _speaks_http(connection: Connection) -> None:
    connection.read_request()
    connection.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert connection.until_closed() == abort(2, 1)


def _answers_with_data(connection: Connection) -> None:
    connection.read_request()
    connection.respond(1)
    assert connection.until_closed() == abort(2, 2)


def _broken_answer(connection: Connection) -> None:
    connection.read_request()
    connection.socket.sendall(pdu(2, bytes(68) + b"\x10\0\xff\xff"))
    assert connection.until_closed() == abort(2, 6)


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (_rejects, AssociationRejected, r"transiently: local limit exceeded .* reason 2"),
        (_closes_before, ConnectionLost, "before the association was answered"),
        (_resets_before, ConnectionLost, "before the association was answered"),
        (_silent, PeerTimeout, "answer the association request within 0.3 s"),
        (_speaks_http, ProtocolViolation, "it answered with HTTP: this is no DICOM port"),
        (_answers_with_data, ProtocolViolation, "unexpected P-DATA-TF"),
        (_broken_answer, ProtocolViolation, "broke the protocol"),
    ],
)
def test_no_association(
    script: Callable[[Connection], None], error: type[PeerError], words: str
) -> None:
    timeouts = Timeouts(associate=0.3) if error is PeerTimeout else Timeouts()
    with Scp(script) as scp, pytest.raises(error, match=words) as caught:
        talk(scp, _store, timeouts=timeouts)
    if isinstance(caught.value, AssociationRejected):
        assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
        assert caught.value.transient
        assert not AssociationRejected(1, 1, 7).transient


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def run() -> None:
            await associate("127.0.0.1", port)

        with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}: Connection refused"):
            asyncio.run(run())


def _aborts(connection: Connection) -> None:
    connection.accept()
    connection.read_pdu()
    connection.socket.sendall(abort(2, 6))
    connection.until_closed()


def _hangs_up(connection: Connection) -> None:
    connection.accept()
    connection.read_message()


def _never_answers(connection: Connection) -> None:
    connection.accept()
    connection.read_message()
    assert connection.until_closed() == abort(0, 0)


def _answers_another(connection: Connection) -> None:
    connection.accept()
    got = connection.read_message()
    assert got is not None
    connection.respond((got.id + 5) & 0xFFFF)
    assert connection.until_closed() == abort(0, 0)


def _answers_nothing(connection: Connection) -> None:
    connection.accept()
    got = connection.read_message()
    assert got is not None
    connection.respond(got, None)
    assert connection.until_closed() == abort(0, 0)


def _invokes(connection: Connection) -> None:
    connection.accept()
    got = connection.read_message()
    assert got is not None
    connection.respond(got, e0100=0x0030)
    assert connection.until_closed() == abort(0, 0)


def _unreadable(connection: Connection) -> None:
    connection.accept()
    connection.read_message()
    connection.socket.sendall(b"\x04\0\0\0\0\x0a\0\0\0\x06\x01\x03abcd")
    assert connection.until_closed() == abort(0, 0)


def _releases(connection: Connection) -> None:
    connection.accept()
    connection.read_message()
    connection.socket.sendall(RELEASE_RQ)
    assert connection.until_closed().hex() == "06000000000400000000"


def _answers_with(context: int = 1, **elements: bytes) -> Callable[[Connection], None]:
    """Success, with elements of any length, padded by nobody."""

    def script(connection: Connection) -> None:
        connection.accept(results={3: 3})
        got = connection.read_message()
        assert got is not None
        values = {0x0100: b"\1\x80", 0x0120: struct.pack("<H", got.id), 0x0800: b"\1\1"}
        values[0x0900] = b"\0\0"
        values |= {int(name[1:], 16): value for name, value in elements.items()}
        raw = (struct.pack("<HHL", 0, number, len(v)) + v for number, v in values.items())
        connection.socket.sendall(message(b"".join(raw), context=context))
        assert connection.until_closed() == abort(0, 0)

    return script


WRONG_LENGTH = "message 1 with a {} that is not of 2 bytes"
BAD_ENDS = [
    *(
        (_answers_with(e0900=value), ProtocolViolation, WRONG_LENGTH.format("Status"))
        for value in (b"", b"\0", b"\0\0\0", b"\0\0\0\0", b"\0\xa7\0\0")
    ),
    (
        _answers_with(e0800=b"\1"),
        ProtocolViolation,
        WRONG_LENGTH.format("Command Data Set Type"),
    ),
    (_answers_with(e0120=b"\1"), ProtocolViolation, "a usable Message ID Being Responded To"),
    (_answers_with(e0100=b"\1"), ProtocolViolation, "without a usable Command Field"),
    (
        _answers_with(e0100=b"\x30\x80"),
        ProtocolViolation,
        "message 1, a C-STORE-RQ, with a C-ECHO-RSP",
    ),
    *(
        (_answers_with(number), ProtocolViolation, f"context 1, on context {number}")
        for number in (3, 5, 77, 0)
    ),
    (_aborts, AssociationAborted, "aborted the association .*invalid PDU parameter value"),
    (_hangs_up, ConnectionLost, "the connection was lost"),
    (_never_answers, PeerTimeout, "did not answer within 0.3 s"),
    (_answers_another, ProtocolViolation, "it answered message 6, which is not outstanding"),
    (_answers_nothing, ProtocolViolation, "a response without a status"),
    (_invokes, ProtocolViolation, r"it invoked an operation \(0030\)"),
    (_unreadable, ProtocolViolation, "unreadable command set"),
    (_releases, AssociationReleased, "released by the peer"),
]


@pytest.mark.parametrize(("script", "error", "words"), BAD_ENDS)
def test_bad_ends(script: Callable[[Connection], None], error: type[PeerError], words: str) -> None:
    async def use(association: scu.Association) -> None:
        with pytest.raises(error, match=words):
            await association.store(FILE)
        # It stays that way.
        with pytest.raises(error, match=words):
            await association.store(FILE)
        assert isinstance(association.failure, error)

    with Scp(script) as scp:
        talk(scp, use, timeouts=BRIEF if error is PeerTimeout else Timeouts())


def _much(sop: str = SOP) -> bytes:
    """More than the connection and the transport hold while the peer does not read."""
    return part10(data_set(sop=sop, pixels=20_000_000), sop=sop)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0x0107])
def test_kept_before_it_arrived(status: int) -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_pdu()
        connection.read_pdu()
        connection.respond(1, status)
        connection.until_closed()

    words = f"answered message 1 with {status:04X} before it had all of it"
    with Scp(script, receive_buffer=4096) as scp, pytest.raises(ProtocolViolation, match=words):
        talk(scp, lambda association: association.store(_much()))


def test_refused_before_it_arrived() -> None:
    """That may be; but a second answer to the same message is one to nothing."""

    def once(connection: Connection) -> list[Message]:
        connection.accept()
        connection.read_pdu()
        connection.respond(1, 0xA700)
        while (pdu := connection.read_pdu())[:1] == b"\4":
            if pdu[11] == 2:
                break
        return connection.serve()

    def twice(connection: Connection) -> None:
        connection.accept()
        connection.read_pdu()
        connection.respond(1, 0xA700)
        connection.respond(1)
        connection.until_closed()

    async def use(association: scu.Association) -> list[int]:
        return [(await association.store(one)).status for one in (_much(), FILE)]

    with Scp(once, twice, receive_buffer=4096) as scp:
        assert talk(scp, use) == [0xA700, 0]
        with pytest.raises(ProtocolViolation, match="message 1, which is not outstanding"):
            talk(scp, use)


def test_answered_before_anything_of_it_was_sent() -> None:
    """An id that we mean to use is not outstanding yet."""

    def script(connection: Connection) -> None:
        connection.accept(window=2)
        connection.read_pdu()
        connection.respond(2)
        connection.until_closed()

    async def use(association: scu.Association) -> list[scu.Response | BaseException]:
        stores = (association.store(one) for one in (_much(), FILE))
        return await asyncio.gather(*stores, return_exceptions=True)

    with Scp(script, receive_buffer=4096) as scp:
        ends = talk(scp, use, window=2)
    assert [type(end) for end in ends] == [ProtocolViolation] * 2
    assert "answered message 2, which is not outstanding" in str(ends[1])


def test_a_peer_that_does_not_read() -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        scp.over.wait(60)

    async def use(association: scu.Association) -> None:
        with pytest.raises(PeerTimeout, match=r"take our data within 0.3 s"):
            await association.store(part10(data_set(pixels=30_000_000)))

    with Scp(script, receive_buffer=4096) as scp:
        talk(scp, use, timeouts=BRIEF)
        scp.over.set()


def test_a_release_that_nobody_confirms() -> None:
    def script(connection: Connection) -> None:
        connection.accept()
        assert connection.read_pdu() == RELEASE_RQ
        assert connection.until_closed() == abort(0, 0)

    with Scp(script) as scp, pytest.raises(PeerTimeout, match="confirm the release"):
        talk(scp, _nothing, timeouts=BRIEF)


def test_responses_may_come_before_the_release_and_releases_may_collide() -> None:
    def script(connection: Connection) -> bytes:
        connection.accept()
        assert connection.read_pdu() == RELEASE_RQ
        connection.socket.sendall(RELEASE_RQ)
        # Collision: the requestor of the association answers first (PS3.8 9.2.3, AR-8, AR-9).
        assert connection.read_pdu().hex() == "06000000000400000000"
        connection.socket.sendall(bytes.fromhex("06000000000400000000"))
        return connection.until_closed()

    with Scp(script) as scp:
        talk(scp, _nothing)
    assert scp.results == [b""]


def test_a_store_that_is_not_waited_for_any_more_ends_the_association() -> None:
    """Its response would be taken for that of a later message with the same id."""
    arrived = threading.Event()

    def script(connection: Connection) -> bytes:
        connection.accept()
        connection.read_message()
        arrived.set()
        return connection.until_closed()

    async def use(association: scu.Association) -> None:
        first = asyncio.ensure_future(association.store(FILE, message_id=5))
        await asyncio.to_thread(arrived.wait, 60)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(AssociationReleased, match="cancelled before its response"):
            await association.store(FILE, message_id=5)

    with Scp(script) as scp:
        talk(scp, use)
    assert scp.results == [bytes.fromhex("07000000000400000000")]


def test_leaving_with_an_error_aborts() -> None:
    def script(connection: Connection) -> bytes:
        connection.accept()
        return connection.until_closed()

    async def use(association: scu.Association) -> None:
        raise KeyError("of the user")

    with Scp(script) as scp, pytest.raises(KeyError, match="of the user"):
        talk(scp, use)
    assert scp.results == [abort(0, 0)]


# fastscp echo -------------------------------------------------------------------------------------


def test_echo(capsys: pytest.CaptureFixture[str]) -> None:
    def refuses(connection: Connection) -> None:
        connection.accept()
        got = connection.read_message()
        assert got is not None
        connection.respond(got, 0x0122, e0100=0x8030)
        connection.serve()

    def silent(connection: Connection) -> None:
        connection.read_request()
        connection.until_closed()

    def stores(connection: Connection) -> None:
        connection.accept()
        got = connection.read_message()
        assert got is not None
        connection.respond(got, e0100=0x8001)
        connection.until_closed()

    with Scp(serving(), serving(), refuses, _rejects, silent, stores) as scp:
        assert cli.main(["echo", scp.address]) == 0
        assert f"{scp.address}: 0000 success in " in capsys.readouterr().out
        assert cli.main(["echo", scp.address, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer.pop("milliseconds") > 0
        assert answer == {
            "peer": scp.address,
            "status": "0000",
            "meaning": "success",
            "implementation_class_uid": "1.2.3.9",
            "implementation_version_name": None,
        }
        assert cli.main(["echo", scp.address]) == 1
        assert "the peer answered 0122 SOP class not supported" in capsys.readouterr().err
        assert cli.main(["echo", scp.address]) == 1
        assert "local limit exceeded" in capsys.readouterr().err
        assert cli.main(["echo", scp.address, "--timeout", "0.2"]) == 1
        assert "within 0.2 s" in capsys.readouterr().err
        assert cli.main(["echo", scp.address]) == 1
        assert "message 1, a C-ECHO-RQ, with a C-STORE-RSP" in capsys.readouterr().err


# fastscp send -------------------------------------------------------------------------------------


class Sent:
    """What `fastscp send` did: exit code, summary, and the lines of its report by file name."""

    def __init__(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> None:
        report = tmp_path / "report.jsonl"
        self.code = cli.main(["send", *arguments, "--json", "--report", str(report)])
        captured = capsys.readouterr()
        self.errors = captured.err
        self.summary = json.loads(captured.out) if captured.out else {}
        lines = map(json.loads, report.read_text().splitlines()) if report.exists() else []
        self.lines = {}
        self.skipped: dict[str, str] = {}
        for line in lines:
            name = os.path.basename(line["path"])
            if line["outcome"] == "skipped":
                self.skipped[name] = line["error"]
            else:
                self.lines[name] = line
        self.statuses = [line["status"] for _, line in sorted(self.lines.items())]
        self.attempts = [line["attempts"] for _, line in sorted(self.lines.items())]


@pytest.fixture
def send(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Sent]:
    return lambda *arguments: Sent(capsys, tmp_path, *map(str, arguments))


@pytest.mark.parametrize("extra", [[], ["--window", "8"], ["--associations", "3"]])
def test_send(send: Callable[..., Sent], tmp_path: Path, extra: list[str]) -> None:
    """Folders, globs and files into our own receiver, byte for byte; other files are skipped."""
    write_files(tmp_path / "in/a/b", 20)
    big = data_set(BIG, sop="1.2.3.5", pixels=700_000)
    (tmp_path / "in/x.dcm").write_bytes(part10(big, sop="1.2.3.5", syntax=BIG))
    deflated = data_set(DEFLATED, sop="1.2.3.6")
    (tmp_path / "in/y.dcm").write_bytes(part10(deflated, sop="1.2.3.6", syntax=DEFLATED))
    (tmp_path / "in/readme.txt").write_text("not DICOM")
    os.mkfifo(tmp_path / "in/a/pipe")
    with Service(tmp_path) as service:
        address = f"{service.host}:{service.port}"
        sent = send(address, tmp_path / "in/a", f"{tmp_path}/in/[rxy]*", *extra)
        assert sent.code == 0
        assert sent.skipped.keys() == {"pipe", "readme.txt"}
        assert sent.summary["stored"] == 22
        assert sent.summary["failed"] == 0
        assert sent.summary["statuses"] == {"0000": 22}
        assert set(sent.statuses) == {"0000"}
        assert set(sent.attempts) == {1}
        assert service.data_of(path_of("1.2.3.5")) == big
        assert service.data_of(path_of("1.2.3.6")) == deflated
        for number in range(20):
            sop = f"{SOP}.{number + 1}"
            assert service.data_of(path_of(sop)) == data_set(sop=sop, seed=number)
        line = sent.lines["x.dcm"]
        assert line["sop_instance_uid"] == "1.2.3.5"
        assert line["meaning"] == "success"
        assert line["outcome"] == "success"
        assert line["bytes"] == len(big)
        assert line["milliseconds"] > 0
        again = send(address, tmp_path / "in", *extra)
        assert again.code == 0
        assert again.summary["skipped"] == 2
        assert len(service.instances()) == 22


def test_a_full_window_into_a_stable_store(send: Callable[..., Sent], tmp_path: Path) -> None:
    """While some are being committed the next ones arrive; none of them is forgotten."""
    write_files(tmp_path / "in", 600, pixels=20_000)
    with Service(tmp_path, workers=1) as service:
        sent = send(
            f"127.0.0.1:{service.port}", tmp_path / "in", "--window", "32", "--timeout", "60"
        )
        assert (sent.code, sent.summary["stored"]) == (0, 600)
        assert len(service.instances()) == len(service.journal()) == 600


@pytest.mark.parametrize("max_pdu", [0, 8, 10, 131, 16383, 131072])
def test_send_keeps_to_the_maximum_length(
    send: Callable[..., Sent], tmp_path: Path, max_pdu: int
) -> None:
    pixels = 900 if 0 < max_pdu < 1000 else 900_001
    paths = write_files(tmp_path / "in", 3, pixels=pixels)
    lengths: list[int] = []

    def script(connection: Connection) -> list[Message]:
        connection.accept(max_pdu=max_pdu)
        messages = connection.serve()
        lengths.extend(connection.lengths)
        return messages

    with Scp(script) as scp:
        assert send(scp.address, tmp_path / "in").code == 0
    whole = [part10(one.data, sop=f"{SOP}.{n + 1}") for n, one in enumerate(scp.results[0])]
    assert whole == [path.read_bytes() for path in paths]
    assert max(lengths) <= (max_pdu or 262144)
    assert [one.id for one in scp.results[0]] == [1, 2, 3]


def test_send_what_the_options_say(send: Callable[..., Sent], tmp_path: Path) -> None:
    write_files(tmp_path / "in", 1)
    (tmp_path / "secret").write_text("sesame\n")
    requests = []

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        requests.append(connection.request)
        return connection.serve()

    with Scp(script) as scp:
        sent = send(
            *(scp.address, tmp_path / "in", "--called-ae", "YOU", "--calling-ae", "ME"),
            *("--priority", "low", "--move-originator", "MOVER:9", "--max-pdu-length", "8192"),
            *("--user", "jo", "--password-file", tmp_path / "secret"),
        )
        assert sent.code == 0
    (message,) = scp.results[0]
    assert message.command.priority == 2
    assert message.command.move_originator_ae == "MOVER"
    assert message.command.move_originator_message_id == 9
    (request,) = requests
    assert request is not None
    assert (request.called_ae.strip(), request.calling_ae.strip()) == (b"YOU", b"ME")
    assert request.user_information is not None
    assert request.user_information.max_pdu_length == 8192
    assert request.user_information.async_window is None
    assert request.user_information.identity == password_identity("jo", "sesame")
    assert "sesame" not in sent.errors


def test_window_is_used_and_responses_may_come_in_any_order(
    send: Callable[..., Sent], tmp_path: Path
) -> None:
    write_files(tmp_path / "in", 9)

    def script(connection: Connection) -> int:
        connection.accept(window=4)
        first = [connection.read_message() for _ in range(4)]
        for one in reversed(first):
            assert one is not None
            warned = one.command.affected_sop_instance_uid == f"{SOP}.2"
            connection.respond(one, 0xB007 if warned else 0, split=30)
        return 4 + len(connection.serve())

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--window", "16")
    assert scp.results == [9]
    assert sent.code == 0
    assert (sent.summary["stored"], sent.summary["warnings"]) == (8, 1)
    assert sent.statuses == ["0000", "B007", *["0000"] * 7]
    assert sent.lines["00001.dcm"]["outcome"] == "warning"
    assert "B007 data set does not match SOP class (stored)" in sent.errors


def test_a_window_that_is_declined_is_one(send: Callable[..., Sent], tmp_path: Path) -> None:
    write_files(tmp_path / "in", 3)

    def script(connection: Connection) -> None:
        connection.accept()
        one = connection.read_message()
        assert one is not None
        connection.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        connection.socket.settimeout(60)
        connection.respond(one)
        connection.serve()

    with Scp(script) as scp:
        assert send(scp.address, tmp_path / "in", "--window", "16").code == 0


def test_more_contexts_than_an_association_holds(send: Callable[..., Sent], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    classes = [f"1.2.3.77.{number}" for number in range(140)]
    for number, sop_class in enumerate(classes):
        data = data_set(sop=f"1.2.{number + 1}", sop_class=sop_class)
        (tmp_path / f"in/{number:03}").write_bytes(
            part10(data, sop=f"1.2.{number + 1}", sop_class=sop_class)
        )
    with Scp(serving()) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 0
    assert [len(messages) for messages in scp.results] == [128, 12]
    got = [message.command.affected_sop_class_uid for one in scp.results for message in one]
    assert got == classes


def test_refused_contexts_are_failures_that_say_so(
    send: Callable[..., Sent], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name, syntax in (("a", ELE), ("b", DEFLATED), ("c", ELE), ("d", DEFLATED)):
        data = data_set(syntax, sop=f"{SOP}.{ord(name)}")
        (tmp_path / "in" / name).write_bytes(part10(data, sop=f"{SOP}.{ord(name)}", syntax=syntax))
    with Scp(serving(results={3: 4})) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 1
    assert sent.statuses == ["0000", None, "0000", None]
    assert sent.attempts == [1, 0, 1, 0]
    why = sent.lines["b"]["error"]
    assert "Deflated Explicit VR Little Endian (1.2.840.10008.1.2.1.99)" in why
    assert "transfer syntaxes not supported" in why
    assert sent.errors.count("Deflated") == 1


def test_what_is_tried_again_and_what_is_not(send: Callable[..., Sent], tmp_path: Path) -> None:
    write_files(tmp_path / "in", 3)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve(0xA700, 0xC000, 0x0000, 0x0000)

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 1
    assert sent.statuses == ["0000", "C000", "0000"]
    assert sent.attempts == [2, 1, 1]
    assert sent.summary["retried"] == 1
    assert sent.summary["reasons"] == {"C000 cannot understand": 1}


def test_retries_are_not_for_ever(send: Callable[..., Sent], tmp_path: Path) -> None:
    write_files(tmp_path / "in", 1)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve(0xA700, 0xA701, 0xA702)

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "1")
    assert sent.code == 1
    assert sent.statuses == ["A701"]
    assert sent.attempts == [2]


def _aborts_inside(connection: Connection) -> None:
    connection.accept()
    first = connection.read_message()
    assert first is not None
    connection.respond(first)
    for _ in range(3):
        connection.read_pdu()
    connection.socket.sendall(abort(0, 0))
    connection.until_closed()


def _resets_inside(connection: Connection) -> None:
    connection.accept()
    connection.read_pdu()
    connection.read_pdu()
    connection.reset()


@pytest.mark.parametrize("script", [_aborts_inside, _resets_inside, _hangs_up, _releases])
def test_a_lost_association_is_made_again(
    send: Callable[..., Sent], tmp_path: Path, script: Callable[[Connection], None]
) -> None:
    write_files(tmp_path / "in", 4, pixels=2_000_000)
    with Scp(script, serving()) as scp:
        sent = send(scp.address, tmp_path / "in", "--timeout", "60")
    assert sent.code == 0
    assert sent.statuses == ["0000"] * 4
    assert sorted(sent.attempts) == [1, 1, 1, 2]
    assert scp.connections == 2
    assert sent.summary["associations"] == 2


@pytest.mark.parametrize(("script", "error", "words"), BAD_ENDS)
def test_send_to_bad_peers(
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[Connection], None],
    error: type[PeerError],
    words: str,
) -> None:
    """Each ends soon, and the report has every instance with the reason."""
    # How many others are tried is another test's.
    monkeypatch.setattr(shipment, "_LOSSES", 0)
    write_files(tmp_path / "in", 3)
    with Scp(script) as scp:
        # The time it lets pass is that for the association, too, which is answered at once.
        timeout = "1" if error is PeerTimeout else "60"
        sent = send(scp.address, tmp_path / "in", "--retries", "0", "--timeout", timeout)
    words = words.replace("0.3 s", "1 s")
    assert sent.code == 1
    assert (sent.summary["stored"], sent.summary["failed"]) == (0, 3)
    assert sent.statuses == [None] * 3
    assert sent.attempts == [1, 0, 0]
    for line in sent.lines.values():
        assert re.search(words, line["error"]), line


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (_rejects, "local limit exceeded"),
        (_closes_before, "before the association was answered"),
        (_silent, "answer the association request within 0.3 s"),
        (_speaks_http, "this is no DICOM port"),
    ],
)
def test_send_without_an_association(
    send: Callable[..., Sent], tmp_path: Path, script: Callable[[Connection], None], words: str
) -> None:
    write_files(tmp_path / "in", 2)
    with Scp(script) as scp:
        timeout = "0.3" if script is _silent else "60"
        sent = send(scp.address, tmp_path / "in", "--retries", "1", "--timeout", timeout)
    assert scp.connections == (1 if script is _speaks_http else 2)
    assert sent.code == 1
    assert sent.attempts == [0, 0]
    assert all(words in line["error"] for line in sent.lines.values())
    assert sent.errors.count("2 instances were not sent") == 1


def test_send_to_a_peer_that_does_not_read(send: Callable[..., Sent], tmp_path: Path) -> None:
    write_files(tmp_path / "in", 1, pixels=30_000_000)

    def script(connection: Connection) -> None:
        connection.accept()
        scp.over.wait(60)

    with Scp(script, receive_buffer=4096) as scp:
        # Also the time for the association, which is answered at once.
        sent = send(scp.address, tmp_path / "in", "--retries", "0", "--timeout", "2")
        scp.over.set()
    assert sent.code == 1
    assert "take our data within 2 s" in sent.lines["00000.dcm"]["error"]


def test_files_that_change_their_minds(send: Callable[..., Sent], tmp_path: Path) -> None:
    """Others than those that were looked at: their own failure, nobody else's."""
    paths = write_files(tmp_path / "in", 7, pixels=9000)
    replaced = write_files(tmp_path / "small", 1)[0].rename(tmp_path / "in/small.dcm")
    about = replaced.stat()

    def script(connection: Connection) -> list[Message]:
        # Another instance, of the same size and time.
        other = write_files(tmp_path / "other", 2)[1]
        os.utime(other, ns=(0, about.st_mtime_ns))
        assert other.stat().st_size == about.st_size
        other.replace(replaced)
        # Files are opened ahead, so it has to be before the first can be sent.
        gone, shorter, longer, modified, pipe = paths[1:6]
        gone.unlink()
        os.truncate(shorter, shorter.stat().st_size - 10)
        longer.write_bytes(longer.read_bytes() + bytes(10))
        os.utime(modified, ns=(0, modified.stat().st_mtime_ns + 1))
        pipe.unlink()
        os.mkfifo(pipe)
        connection.accept()
        return connection.serve()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "1")
    assert sent.code == 1
    assert sent.statuses == ["0000", *[None] * 5, "0000", None]
    assert "No such file" in sent.lines["00001.dcm"]["error"]
    for name in (*(f"0000{number}" for number in range(2, 6)), "small"):
        assert sent.lines[f"{name}.dcm"]["error"] == "it changed since it was looked at"
    assert scp.connections == 1


def _hangs_up_at(*poisonous: str) -> Callable[[Connection], None]:
    """A peer that cannot take some instances: it dies of them."""

    def script(connection: Connection) -> None:
        connection.accept(window=10)
        while (got := connection.read_message()) is not None:
            if got.command.affected_sop_instance_uid in poisonous:
                return
            connection.respond(got)

    return script


@pytest.mark.parametrize("window", ["1", "5"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_poisonous_instance_blocks_no_other(
    send: Callable[..., Sent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    window: str,
    retries: int,
) -> None:
    """Every other one arrives, wherever it stands; with retries none of them is lost beside it."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    write_files(tmp_path / "in", 20)
    poisonous = (f"{SOP}.1", f"{SOP}.2", f"{SOP}.12")
    with Scp(_hangs_up_at(*poisonous)) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", retries, "--window", window)
    assert sent.code == 1
    failed = {name for name, line in sent.lines.items() if line["status"] is None}
    assert failed >= {"00000.dcm", "00001.dcm", "00011.dcm"}
    if retries or window == "1":
        assert len(failed) == 3
        assert sent.lines["00000.dcm"]["attempts"] == retries + 1
    # Between them there are never more in a row than are worth while.
    assert scp.connections <= 3 + 2 * (retries + 3)
    assert "00000.dcm was under way" in sent.errors or "00000.dcm and" in sent.errors


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_files_from_a_list(send: Callable[..., Sent], tmp_path: Path, end: str) -> None:
    """Each path of the list counts as named; a name that ends with NUL may hold a newline."""
    paths = write_files(tmp_path / "in", 3) + write_files(tmp_path / "other", 1)
    if end == "\0":
        paths[0] = paths[0].rename(tmp_path / "in/a\nb.dcm")
    listed = [*map(str, paths[:3]), "", str(tmp_path / "other"), str(tmp_path / "none*")]
    (tmp_path / "list").write_text(end.join(listed))
    with Scp(serving()) as scp:
        sent = send(scp.address, "--files-from", tmp_path / "list")
    assert sent.code == 1
    assert (sent.summary["stored"], sent.summary["failed"]) == (4, 1)
    assert sent.lines["none*"]["error"] == "cannot be read: No such file or directory"


def test_a_list_on_stdin(
    send: Callable[..., Sent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_files(tmp_path / "in", 300)
    text = "\n".join(map(str, paths)).encode()
    (tmp_path / "list").write_bytes(text)
    with Scp(serving()) as scp, (tmp_path / "list").open(encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        sent = send(scp.address, "--files-from", "-")
    assert (sent.code, sent.summary["stored"]) == (0, 300)


@pytest.mark.parametrize(("name", "sent"), [("-", signal.SIGINT), ("list", signal.SIGTERM)])
def test_a_list_whose_writer_goes_on(tmp_path: Path, name: str, sent: signal.Signals) -> None:
    """What it has listed so far is sent; an interruption does not wait for the rest."""
    paths = write_files(tmp_path / "in", 20)
    os.mkfifo(tmp_path / "list")
    arrived: list[Message] = []

    def script(connection: Connection) -> None:
        connection.accept()
        while (got := connection.read_message()) is not None:
            connection.respond(got)
            arrived.append(got)

    out = tmp_path / "out"
    with (
        Scp(script) as scp,
        out.open("wb") as file,
        # For both ways, or to open it would wait for the other end.
        (tmp_path / "list").open("r+b", buffering=0) as fifo,
    ):
        process = subprocess.Popen(
            [*Service.program(), "send", scp.address, "--files-from", name],
            env=Service.environment(), cwd=tmp_path, stdin=fifo, stdout=file, stderr=file,
        )  # fmt: skip
        try:
            fifo.write("".join(f"{path}\n" for path in paths).encode())
            wait_for(lambda: len(arrived) == 20, "all that is listed being sent")
            process.send_signal(sent)
            assert process.wait(60) == 130
        finally:
            process.kill()
            process.wait()
    assert re.search("^stored +20$", out.read_text(), re.MULTILINE)
    assert "Fatal" not in out.read_text()


def test_a_list_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["send", "127.0.0.1:1", "--files-from", str(tmp_path / "none")]) == 2
    assert "--files-from: cannot read" in capsys.readouterr().err


def test_a_mistake_in_a_path_leaves_an_old_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "old.jsonl").write_text("old")
    command = ["send", "127.0.0.1:1", "--report", str(tmp_path / "old.jsonl")]
    assert cli.main([*command, str(tmp_path / "nothere.dcm")]) == 2
    assert "PATH: there is no" in capsys.readouterr().err
    assert (tmp_path / "old.jsonl").read_text() == "old"


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, extra: list[str]) -> None:
    """It says what a run would send, and what it could not; nobody is connected to."""
    write_files(tmp_path / "in", 3)
    write_files(tmp_path / "in/implicit", 2, syntax=ILE)
    (tmp_path / "in/text").write_text("text")
    command = ["send", "127.0.0.1:1", str(tmp_path / "in"), "--dry-run", *extra]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    if extra:
        plan = json.loads(out)
        assert (plan["instances"], plan["skipped"], plan["failed"]) == (5, 1, 0)
        assert [one["instances"] for one in plan["contexts"]] == [3, 2]
        assert plan["contexts"][1]["transfer_syntax_uid"] == ILE
    else:
        assert re.search(r"to be sent +5 instances", out)
        assert re.search(r"3 x +CT Image Storage .* in Explicit VR Little Endian", out)
    assert cli.main([*command, "--repeat", "3"]) == 0
    assert re.search('"instances": 15,' if extra else "sent +15 instances", capsys.readouterr().out)
    assert cli.main([*command, str(tmp_path / "in/text")]) == 1
    assert "no File Meta Information" in capsys.readouterr().err
    # Whatever it cannot do it does not pass over in silence; and quiet it is, if all is well.
    report = tmp_path / "report"
    assert cli.main([*command, "--report", str(report)]) == 2
    assert "--report" in capsys.readouterr().err
    assert not report.exists()
    assert cli.main([*command, "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out == "", captured.err) == (not extra, "")


def test_a_quiet_run_speaks_of_failures_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_files(tmp_path / "in", 2)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve(0, 0xC000)

    with Scp(serving(), script) as scp:
        assert cli.main(["send", scp.address, str(tmp_path / "in"), "-q"]) == 0
        assert capsys.readouterr() == ("", "")
        assert cli.main(["send", scp.address, str(tmp_path / "in"), "-q"]) == 1
        captured = capsys.readouterr()
        assert "C000 cannot understand" in captured.out
        assert "00001.dcm: C000 cannot understand" in captured.err


def test_a_peer_that_ends_at_every_instance(
    send: Callable[..., Sent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are under way at once: the run ends soon."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    write_files(tmp_path / "in", 40)
    every = [f"{SOP}.{number + 1}" for number in range(40)]
    with Scp(_hangs_up_at(*every)) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "4", "--window", "10")
    assert (sent.code, sent.summary["failed"]) == (1, 40)
    assert scp.connections <= 1 + 4 + 3


def test_a_suspect_that_is_put_off_stays_alone(
    send: Callable[..., Sent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of resources in between: it is sent alone the next time, too."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    write_files(tmp_path / "in", 12)
    suspect = f"{SOP}.1"
    turn = iter(["ends", "A700", "ends", "0000"])

    def script(connection: Connection) -> None:
        connection.accept(window=10)
        while (got := connection.read_message()) is not None:
            status = next(turn) if got.command.affected_sop_instance_uid == suspect else "0000"
            if status == "ends":
                return
            connection.respond(got, int(status, 16))

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--window", "5")
    assert (sent.code, sent.summary["stored"]) == (0, 12)
    assert sent.lines["00000.dcm"]["attempts"] == 4
    assert sum(line["attempts"] for line in sent.lines.values()) <= 4 + 4 * 2 + 7


def test_no_space_to_decompress(
    send: Callable[..., Sent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_files(tmp_path / "in", 1)
    path.with_suffix(".dcm.zst").write_bytes(zstandard.compress(path.read_bytes()))
    path.unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with Scp(serving()) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert sent.code == 1
    error = sent.lines["00000.dcm.zst"]["error"]
    assert error.startswith("cannot be decompressed: No space left on device in ")
    assert error.endswith("TMPDIR")


def test_a_named_file_that_is_no_instance_fails(send: Callable[..., Sent], tmp_path: Path) -> None:
    """In a folder it is skipped, and said so in the report; who names it wants it to be sent."""
    (path,) = write_files(tmp_path / "in", 1)
    bare = tmp_path / "in/bare.dcm"
    bare.write_bytes(data_set())
    with Scp(serving()) as scp:
        sent = send(scp.address, path, bare)
        assert sent.code == 1
        assert "no File Meta Information" in sent.lines["bare.dcm"]["error"]
        assert sent.lines["00000.dcm"]["status"] == "0000"
        assert "bare.dcm" in sent.errors
        sent = send(scp.address, tmp_path / "in")
        assert sent.code == 0
        assert sent.skipped.keys() == {"bare.dcm"}
        assert sent.summary["skipped"] == 1


@pytest.mark.parametrize("extra", [[], ["--window", "4", "--repeat", "2"]])
def test_compressed_files_of_a_store(
    send: Callable[..., Sent], tmp_path: Path, extra: list[str]
) -> None:
    """They are sent as what they hold; one that is cut fails alone."""
    sent_before = write_files(tmp_path / "in", 5, pixels=300_000)
    for path in sent_before:
        packed = path.with_suffix(".dcm.zst")
        packed.write_bytes(zstandard.compress(path.read_bytes()))
    originals = [path.read_bytes() for path in sent_before]
    for path in sent_before:
        path.unlink()
    cut = tmp_path / "in/00004.dcm.zst"
    os.truncate(cut, cut.stat().st_size - 20)
    taken: list[Message] = []

    def script(connection: Connection) -> None:
        connection.accept(window=10)
        taken.extend(connection.serve())

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", *extra)
    assert sent.code == 1
    assert sent.lines["00004.dcm.zst"]["error"] == "its compressed content is damaged"
    assert {line["status"] for name, line in sent.lines.items() if "4" not in name} == {"0000"}
    if "--new-uids" not in extra:
        got = [message.data for message in taken]
        assert all(any(original.endswith(data) for data in got) for original in originals[:4])
    assert {len(message.data) for message in taken} <= {
        len(data_set(pixels=300_000, sop=f"{SOP}.1"))
    }


def sparse(path: Path) -> Path:
    """Make a file so long that it cannot be out before the peer has read much of it."""
    os.truncate(path, 20_000_000)
    return path


def test_a_file_that_no_association_can_be_asked_for(
    send: Callable[..., Sent], tmp_path: Path
) -> None:
    """It fails by name, and takes nobody along."""
    paths = write_files(tmp_path / "in", 2)
    paths[0].write_bytes(part10(data_set(sop_class="1.2.840.abc")))
    with Scp(serving(), serving()) as scp:
        sent = send(scp.address, tmp_path / "in")
        by_script = send_files("127.0.0.1", scp.port, paths)
    assert (sent.code, sent.statuses) == (1, [None, "0000"])
    assert sent.lines["00000.dcm"]["error"] == "its SOP Class UID is none: '1.2.840.abc'"
    assert isinstance(by_script[0].error, UnusableInstance)
    assert [one.ok for one in by_script] == [False, True]


@pytest.mark.parametrize("what", ["an instance", "notes", "its own input"])
def test_a_report_overwrites_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    (path,) = write_files(tmp_path / "in", 1)
    report = path if what == "an instance" else tmp_path / "notes"
    if what != "an instance":
        report.write_text("keep me" if what == "notes" else '{"a": 1}')
    before = report.read_bytes()
    inputs = [path] if what != "its own input" else [path, report]
    assert cli.main(["send", "127.0.0.1:1", *map(str, inputs), "--report", str(report)]) == 2
    assert "name another file" in capsys.readouterr().err
    assert report.read_bytes() == before
    # Nor is an old report gone because an argument is wrong.
    report = tmp_path / "old.jsonl"
    report.write_text('{"path": "x"}\n')
    assert cli.main(["send", "127.0.0.1:1", "missing", "--report", str(report)]) == 2
    assert report.read_text() == '{"path": "x"}\n'
    with Scp(serving()) as scp:
        assert cli.main(["send", scp.address, str(path), "--report", str(report)]) == 0
    assert json.loads(report.read_text())["status"] == "0000"


def test_a_file_that_changes_while_it_is_stored(tmp_path: Path) -> None:
    """It costs its association: a mixture of two states is never stored as an instance."""
    (path,) = write_files(tmp_path / "in", 1)
    sparse(path)

    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_pdu()
        connection.read_pdu()
        with path.open("r+b") as file:
            file.seek(5000)
            file.write(b"other")
        while (last := connection.read_pdu())[:1] == b"\4":
            assert last[11] != 2
        assert last == abort(0, 0)

    async def main(port: int) -> None:
        contexts = [("CTImageStorage", ["ExplicitVRLittleEndian"])]
        async with associate("127.0.0.1", port, contexts) as association:
            with pytest.raises(UnusableInstance, match="changed while it was sent"):
                await association.store(path)

    with Scp(script, receive_buffer=4096) as scp:
        asyncio.run(main(scp.port))


def test_files_that_fail_while_they_are_sent(send: Callable[..., Sent], tmp_path: Path) -> None:
    """They cost their associations, but nothing that is the peer's."""
    paths = write_files(tmp_path / "in", 4)

    def cutting(path: Path) -> Callable[[Connection], None]:
        def script(connection: Connection) -> None:
            connection.accept()
            connection.read_pdu()
            connection.read_pdu()
            os.truncate(path, 1_000_000)
            while (last := connection.read_pdu())[:1] == b"\4":
                pass
            assert last == abort(0, 0)

        return script

    scripts = (cutting(sparse(path)) for path in paths[:3])
    with Scp(*scripts, serving(), receive_buffer=4096) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "0", "--window", "2")
    assert sent.statuses == [None, None, None, "0000"]
    assert sent.lines["00002.dcm"]["error"] == "it changed since it was looked at"
    assert scp.connections == 4


@pytest.mark.parametrize("extra", [[], ["--report", "report"]])
def test_stored_before_it_arrived(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
) -> None:
    """With a report and without: such a success is none."""
    monkeypatch.chdir(tmp_path)
    (path,) = write_files(tmp_path / "in", 1)
    sparse(path)

    def script(connection: Connection) -> None:
        connection.accept()
        connection.read_pdu()
        connection.read_pdu()
        connection.respond(1)
        connection.until_closed()

    with Scp(script, receive_buffer=4096) as scp:
        assert cli.main(["send", scp.address, "in", "--json", *extra]) == 1
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert (summary["stored"], summary["failed"]) == (0, 1)
    assert "answered message 1 with 0000 before it had all of it" in captured.err
    assert scp.connections == 1


@pytest.mark.parametrize("end", [abort(0, 0), RELEASE_RQ])
def test_associations_that_end_as_they_begin(
    send: Callable[..., Sent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    """The end in one segment with the acceptance: a failure like any other."""
    monkeypatch.setattr(carrier, "_FIRST_BACK_OFF_S", 0.01)
    write_files(tmp_path / "in", 3)

    def script(connection: Connection) -> None:
        rq = connection.read_request()
        contexts = (
            PresentationContextAC(one.id, 0, one.transfer_syntaxes[0])
            for one in rq.presentation_contexts
        )
        accepted = AssociateAC(
            rq.called_ae, rq.calling_ae, rq.application_context, tuple(contexts), UserInformation()
        )
        connection.socket.sendall(encode_associate_ac(accepted) + end)
        connection.read_pdu()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", "--retries", "2")
    assert scp.connections == 3
    assert sent.summary["failed"] == 3
    assert sent.errors.count("going on in") == 2


def test_one_association_of_two_for_two_groups(send: Callable[..., Sent], tmp_path: Path) -> None:
    """Who is given one association sends everything over it, one group after the other."""
    (tmp_path / "in").mkdir()
    for number in range(140):
        sop, sop_class = f"1.2.{number + 1}", f"1.2.3.77.{number}"
        data = data_set(sop=sop, sop_class=sop_class)
        (tmp_path / f"in/{number:03}").write_bytes(part10(data, sop=sop, sop_class=sop_class))
    refused = threading.Event()

    def first(connection: Connection) -> list[Message]:
        connection.accept()
        assert refused.wait(60)
        return connection.serve()

    def second(connection: Connection) -> list[Message]:
        connection.read_request()
        connection.socket.sendall(reject(1, 3, 2))
        connection.until_closed()
        refused.set()
        return []

    with Scp(first, second, serving()) as scp:
        sent = send(scp.address, tmp_path / "in", "--associations", "2")
    assert sent.code == 0
    assert sorted(map(len, scp.results)) == [0, 12, 128]
    assert sent.errors.count("going on with fewer associations") == 1


def test_names_that_are_not_utf8(send: Callable[..., Sent], tmp_path: Path) -> None:
    """In the report, and on the screen, as far as they can be written."""
    paths = write_files(tmp_path / "in", 2)
    for name, path in zip((b"\xff.dcm", b"\xfe.dcm"), paths, strict=True):
        os.rename(path, os.fsencode(path.parent / "") + b"/" + name)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve(0xC000)

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in")
    assert {name: line["status"] for name, line in sent.lines.items()} == {
        "\\xfe.dcm": "C000", "\\xff.dcm": "0000",
    }  # fmt: skip
    assert ".dcm: C000 cannot understand" in sent.errors


def test_a_report_on_a_full_disk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Found out while it is written, or when it is closed."""
    for count in (1, 60):
        write_files(tmp_path / "in", count)
        with Scp(serving()) as scp:
            arguments = ["send", scp.address, str(tmp_path / "in"), "--report", "/dev/full"]
            assert cli.main(arguments) == 1
        assert capsys.readouterr().err == (
            "fastscp: cannot write the report /dev/full: No space left on device; make room "
            "there, or name another file (--report)\n"
        )


def test_repeat_with_fresh_uids(send: Callable[..., Sent], tmp_path: Path) -> None:
    """Three rounds are three studies of one series each; all else is as it was."""
    folder = tmp_path / "in"
    folder.mkdir()
    study, series = "1.2.3.4.5.6.7.8.9.10", "1.2.3.4.5.6.7.8.9.10.11"
    sops = ["1.2.3.4.5.6.7.8.9.12", "1.2.3.4.5.6.7.8.9.123"]
    for number, (sop, syntax) in enumerate(zip(sops, (ILE, BIG), strict=True)):
        data = data_set(syntax, sop=sop, study=study, series=series)
        (folder / str(number)).write_bytes(part10(data, sop=sop, syntax=syntax))
    (folder / "deflated").write_bytes(part10(data_set(DEFLATED), syntax=DEFLATED))
    with Scp(serving()) as scp:
        sent = send(scp.address, folder, "--repeat", "3", "--new-uids")
    assert sent.code == 1
    assert (sent.summary["stored"], sent.summary["failed"]) == (6, 3)
    assert "deflated" in sent.lines["deflated"]["error"]
    seen = set()
    studies = []
    for number, got in enumerate(scp.results[0]):
        old = data_set((ILE, BIG)[number % 2], sop=sops[number % 2], study=study, series=series)
        assert len(got.data) == len(old)
        new = dcmread(io.BytesIO(part10(got.data, syntax=(ILE, BIG)[number % 2])), force=True)
        assert new.SOPInstanceUID == got.command.affected_sop_instance_uid
        seen.add(new.SOPInstanceUID)
        studies.append((new.StudyInstanceUID, new.SeriesInstanceUID))
        back = got.data
        for fresh, own in (
            (new.SOPInstanceUID, sops[number % 2]),
            (new.SeriesInstanceUID, series),
            (new.StudyInstanceUID, study),
        ):
            assert len(fresh) == len(own)
            back = back.replace(fresh.encode(), own.encode())
        assert back == old
    assert len(seen) == 6
    assert studies[0::2] == studies[1::2]
    assert len(set(studies)) == 3


def test_what_a_running_service_has_not_finished(
    send: Callable[..., Sent], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its parts are not sent, whether its store is named or they are."""
    with (
        Service(tmp_path / "a", workers=1) as source,
        Service(tmp_path / "b", workers=1) as service,
        source.peer() as p,
    ):
        address = f"{service.host}:{service.port}"
        whole, cut = data_set(), data_set(sop="1.2.3.9", pixels=100_000)
        p.send(store(1, whole))
        assert p.read_response().status == 0
        p.send(store(2, cut, sop="1.2.3.9")[:-5000])
        (part,) = wait_for(source.parts, "the part of an unfinished instance")
        sent = send(address, source.store)
        assert (sent.code, sent.summary["stored"], sent.summary["failed"]) == (0, 1, 0)
        assert sent.summary["skipped"] == 0
        assert service.instances() == [path_of()]
        sent = send(address, source.store / path_of(), part, f"{source.store}/.fastscp")
        assert (sent.code, sent.summary["stored"], sent.summary["failed"]) == (1, 1, 2)
        for name in (part.name, ".fastscp"):
            assert "belongs to a service's own folder .fastscp" in sent.lines[name]["error"]
            assert "name the store itself" in sent.lines[name]["error"]
        assert f"{part}: belongs to a service's own folder" in sent.errors
        sent = send(address, f"{source.store}/.fastscp/incoming/*/*.part")
        assert (sent.code, sent.summary["failed"]) == (1, 1)
        assert cli.main(["send", address, str(source.store), "-v"]) == 0
        assert f"{source.store}/.fastscp is passed over" in capsys.readouterr().err

        async def use(association: scu.Association) -> None:
            with pytest.raises(UnusableInstance, match="belongs to a service's own folder"):
                await association.store(part)

        talk(service, use)
        assert service.instances() == [path_of()]
        p.close()
        wait_for(lambda: not source.parts(), "the end of the unfinished instance")


def test_nothing_to_send(send: Callable[..., Sent], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/text").write_text("not DICOM")
    sent = send("127.0.0.1:9", tmp_path / "in")
    assert sent.code == 1
    assert "there is no DICOM file to send (1 other skipped)" in sent.errors
    assert sent.summary["skipped"] == 1
    assert "no DICM at byte 128" in sent.skipped["text"]
    assert "text is skipped" in send("127.0.0.1:9", tmp_path / "in", "-v").errors
    assert send("127.0.0.1:9", tmp_path / "missing").code == 2
    assert send("127.0.0.1:9").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "--window: '0' is less than 1"),
        (["--priority", "urgent"], "--priority: 'urgent' is not known; give low, medium or high"),
        (["--move-originator", "AE"], "--move-originator: 'AE' has no message id"),
        (["--move-originator", "AE:65536"], "is more than 65535"),
        (["--repeat", "0"], "--repeat"),
        (["--tls-key", "/k"], "--tls-key: is of no use without its certificate"),
        (["--tls-ca", "/nonexistent"], "--tls-ca: cannot use /nonexistent"),
        (["--tls-cert", "/nonexistent"], "--tls-cert: cannot use /nonexistent"),
        (["--password-file", "/x"], "--password-file: is of no use without a name"),
        (["--user", "u", "--password-file", "/nonexistent"], "--password-file: cannot read"),
        (["--user", "u", "--jwt-file", "/x"], "--jwt-file: contradicts --user"),
        (["--user", ""], "--user: '' is empty; give a user name"),
        (["--dry-run", "--report", "/x"], "--report: there is nothing to report with --dry-run"),
        (["--report", "/nonexistent/x"], "--report: cannot write /nonexistent/x"),
    ],
)
def test_bad_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_files(tmp_path, 1)
    assert cli.main(["send", "127.0.0.1:9", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_summary_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_files(tmp_path, 2)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        return connection.serve(0xA900)

    with Scp(script) as scp:
        assert cli.main(["send", scp.address, str(tmp_path)]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["stored", "1"]
    assert rows[1].split() == ["failed", "1"]
    assert rows[-1].split(maxsplit=2) == ["1", "x", "A900 data set does not match SOP class"]


def test_each_pdu_in_the_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With -vv: what it is, and nothing of the data; with -v none of them."""
    write_files(tmp_path / "in", 2, pixels=20_000)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        first = connection.read_message()
        assert first is not None
        connection.respond(first, 0xC000, split=40, e0902="\x1b no")
        return connection.serve()

    with Scp(script, serving()) as scp:
        assert cli.main(["send", scp.address, str(tmp_path / "in"), "-vv"]) == 1
        lines = [
            line.partition("send: association 1: ")[2]
            for line in capsys.readouterr().err.splitlines() if " TRACE " in line
        ]  # fmt: skip
        assert cli.main(["send", scp.address, str(tmp_path / "in"), "-v"]) == 0
        assert "P-DATA-TF" not in capsys.readouterr().err
    sent = [line for line in lines if line.startswith("sent P-DATA-TF")]
    # The command, and the data set in fragments of what the peer takes.
    context = "presentation context 1, C-STORE-RQ"
    size = len(data_set(sop=f"{SOP}.1", pixels=20_000))
    assert sent[0] == f"sent P-DATA-TF, length 114, {context} 1, last fragment"
    assert sent[1] == f"sent P-DATA-TF, length 16384, {context} 1, 16378 bytes of its data set"
    assert sent[2].endswith(f", {context} 1, {size - 16378} bytes of its data set, last fragment")
    assert len(sent) == 6
    assert lines[0].startswith("sent A-ASSOCIATE-RQ, length ")
    assert "FASTSCP calls ANY-SCP, contexts 1" in lines[0]
    assert "1 of 1 contexts accepted, maximum length 16384" in lines[1]
    received = [line for line in lines if line.startswith("received P-DATA-TF")]
    part = "received P-DATA-TF, length 46, presentation context 1, part of a command set"
    assert received[0] == part
    failed = "C-STORE-RSP 1 with C000 cannot understand, last fragment"
    assert any(line.endswith(f"presentation context 1, {failed}") for line in received)
    assert received[-1].endswith("C-STORE-RSP 2 with 0000 success, last fragment")
    assert lines[-2:] == ["sent A-RELEASE-RQ, length 4", "received A-RELEASE-RP, length 4"]


def test_a_new_reason_for_every_instance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of 64 KiB each, with terminal sequences in it: a few short lines."""
    write_files(tmp_path / "in", 60)

    def script(connection: Connection) -> None:
        connection.accept()
        while (got := connection.read_message()) is not None:
            connection.respond(got, 0xC000, e0902=f"\x1b[2J{got.id}".encode() + b"x\x9b" * 30000)

    with Scp(script) as scp:
        report = tmp_path / "report"
        arguments = ["send", scp.address, str(tmp_path / "in"), "--report", str(report)]
        assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert len(captured.err) + len(captured.out) < 10_000
    assert report.stat().st_size < 60 * 600
    rows = captured.out.splitlines()
    assert rows[-1].split(maxsplit=2) == ["50", "x", "and 50 more reasons"]
    for text in (captured.err, captured.out, report.read_text()):
        assert all(line.isprintable() for line in text.split("\n"))


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """Instances, rate and failures while it goes on; the summary alone on stdout."""
    write_files(tmp_path / "in", 3)

    def script(connection: Connection) -> list[Message]:
        connection.accept()
        first = connection.read_message()
        assert first is not None
        connection.respond(first, 0xC000)
        wait_for(lambda: b"1/3" in shown(), "the bar")
        return connection.serve()

    seen = bytearray()
    terminal, end = os.openpty()
    os.set_blocking(terminal, False)

    def shown() -> bytes:
        with contextlib.suppress(OSError):
            seen.extend(os.read(terminal, 65536))
        return bytes(seen)

    with Scp(script) as scp:
        process = subprocess.Popen(
            [*Service.program(), "send", scp.address, str(tmp_path / "in")],
            env=Service.environment({"TERM": "xterm", "COLUMNS": "150"}),
            stdout=subprocess.PIPE, stderr=end,
        )  # fmt: skip
        out, _ = process.communicate(timeout=60)
    text = shown().decode()
    os.close(end)
    os.close(terminal)
    assert process.returncode == 1
    assert "sending" in text
    assert "1 failed" in text
    assert "C000 cannot understand" in text
    assert b"sending" not in out
    assert out.startswith(b"stored")


@contextlib.contextmanager
def full() -> Iterator[str]:
    """The address of a port that lets nobody in: as many wait there as may."""
    with contextlib.ExitStack() as undo:
        listening = undo.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            waiting = undo.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _confirms_nothing(connection: Connection) -> None:
    connection.accept()
    for _ in range(2):
        one = connection.read_message()
        assert one is not None
        connection.respond(one)
    assert connection.read_pdu() == RELEASE_RQ


def catches(pid: int, number: int) -> bool:
    """Whether a process handles a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_the_time_out_is_that_of_every_step(send: Callable[..., Sent], tmp_path: Path) -> None:
    """Of the connection and the release as well, which have shorter ones by default."""
    write_files(tmp_path / "in", 2)
    how = ("--retries", "0", "--timeout", "0.5", "-v")
    with full() as address:
        sent = send(address, tmp_path / "in", *how)
    assert sent.code == 1
    assert "no answer within 0.5 s" in sent.errors

    def script(connection: Connection) -> None:
        _confirms_nothing(connection)
        connection.until_closed()

    with Scp(script) as scp:
        sent = send(scp.address, tmp_path / "in", *how)
    assert sent.statuses == ["0000", "0000"]
    assert "did not confirm the release within 0.5 s" in sent.errors


@pytest.mark.parametrize("step", ["connect", "associate", "release"])
def test_interrupted_with_nothing_on_its_way(tmp_path: Path, step: str) -> None:
    """Once is enough, and however long a peer may be silent."""
    write_files(tmp_path / "in", 2)
    waits = threading.Event()

    def script(connection: Connection) -> None:
        if step == "release":
            _confirms_nothing(connection)
        waits.set()
        connection.until_closed()

    with contextlib.ExitStack() as undo:
        if step == "connect":
            address = undo.enter_context(full())
        else:
            address = undo.enter_context(Scp(script)).address
        log = undo.enter_context((tmp_path / "errors").open("wb"))
        process = subprocess.Popen(
            [*Service.program(), "send", address, str(tmp_path / "in"), "--json", "-v",
             "--timeout", "1h"],
            env=Service.environment(), stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        undo.enter_context(process)
        undo.callback(process.kill)
        if step != "connect":
            assert waits.wait(60)
        # It handles both signals as soon as it has begun.
        wait_for(lambda: catches(process.pid, signal.SIGTERM), "the handler")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    summary = json.loads(out)
    assert summary["interrupted"] is True
    assert (summary["stored"], summary["not_sent"]) == ((2, 0) if step == "release" else (0, 2))


def _begun(scp: Scp, folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A run that sends what is in `in`, with a report; it says what happens to a log."""
    return subprocess.Popen(
        [*Service.program(), "send", scp.address, str(folder / "in"), "--json",
         "--report", str(folder / "report")],
        env=Service.environment(), stdout=subprocess.PIPE, stderr=log,
    )  # fmt: skip


def test_interrupted_while_it_is_refused_again_and_again(tmp_path: Path) -> None:
    """Whoever gives up learns why nothing arrived."""
    write_files(tmp_path / "in", 2)
    answer = "A700 out of resources"

    def script(connection: Connection) -> None:
        connection.accept()
        for _ in range(2):
            one = connection.read_message()
            assert one is not None
            connection.respond(one, 0xA700)
        wait_for(lambda: answer.encode() in errors.read_bytes(), "the answer")
        process.send_signal(signal.SIGINT)
        connection.serve(0xA700, 0xA700)

    errors = tmp_path / "errors"
    with Scp(script) as scp, errors.open("wb") as log:
        process = _begun(scp, tmp_path, log)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    # Whoever was asked once more by then has that answer for its outcome.
    reasons = json.loads(out)["reasons"]
    assert sum(reasons.values()) == 2
    assert reasons.keys() <= {answer, f"interrupted, last answer {answer}"}
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert all(line["status"] == "A700" or answer in line["error"] for line in lines)
    assert errors.read_text().count("; it is tried again") == 1


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted(tmp_path: Path, times: int) -> None:
    """Once: what is on its way is finished and the association released. Twice: it is cut.

    What was answered counts as such in both cases, and what was not has failed.
    """
    write_files(tmp_path / "in", 50)

    def script(connection: Connection) -> bool:
        connection.accept()
        for _ in range(3):
            one = connection.read_message()
            assert one is not None
            connection.respond(one)
        one = connection.read_message()
        assert one is not None
        process.send_signal(signal.SIGINT)
        wait_for(lambda: b"once more" in errors.read_bytes(), "the interruption")
        if times == 2:
            process.send_signal(signal.SIGINT)
            connection.until_closed()
            return True
        connection.respond(one)
        return connection.serve() == []

    errors = tmp_path / "errors"
    with Scp(script) as scp, errors.open("wb") as log:
        process = _begun(scp, tmp_path, log)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert scp.results == [True]
    summary = json.loads(out)
    assert summary["interrupted"] is True
    assert summary["not_sent"] == 46
    assert (summary["stored"], summary["failed"]) == ((4, 0) if times == 1 else (3, 1))
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert [line.get("error") for line in lines] == [
        *[None] * 3, None if times == 1 else "interrupted",
    ]  # fmt: skip

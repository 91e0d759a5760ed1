"""Bad and unusual input against the running service: what each kind of it must get.

The names B.. are rows of ../shared/protocol.md, section 9. What a stream in ../shared/vectors
covers is in test_vectors. All of it happens plain and through TLS.
"""

from __future__ import annotations

import contextlib
import select
import signal
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydicom
import pytest

from fastscp_ext import (
    AssociateRJ,
    UserInformation,
    decode_associate_ac,
    decode_pdata,
    decode_pdu,
    encode_command,
    encode_pdata,
)
from tests.kit import (
    BIG,
    CT,
    DEFLATED,
    ELE,
    ILE,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    SOP,
    TLS,
    VERIFICATION,
    Peer,
    Service,
    abort,
    associate_rq,
    data_set,
    echo,
    element,
    message,
    path_of,
    pdu,
    reject,
    split_pdus,
    store,
    store_rq,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = SOP + ".2"
FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, wire: TLS | None) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("tolerant"), tls=wire) as service:
        yield service


@pytest.fixture(scope="module")
def running_strict(tmp_path_factory: pytest.TempPathFactory, wire: TLS | None) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("strict"), "--strict", tls=wire) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """With default settings; afterwards without instances, and it must still serve."""
    yield from _looked_after(running)


@pytest.fixture
def strict(running_strict: Service) -> Iterator[Service]:
    """With --strict."""
    yield from _looked_after(running_strict)


def _looked_after(service: Service) -> Iterator[Service]:
    workers = service.worker_pids()
    yield service
    service.ends_parts()
    service.echoes()
    assert service.worker_pids() == workers
    service.empty()


def _answer_to(service: Service, data: bytes) -> bytes:
    """All that comes back, the service being the one to close."""
    with service.connect() as peer:
        peer.send(data)
        return peer.read_until_close()


def _status_of(service: Service, stream: bytes, *contexts: tuple[int, str, str]) -> int:
    """Of the one message in the stream."""
    with service.peer(*contexts) as peer:
        peer.send(stream)
        status = peer.read_response().status
        peer.release()
    return status


def _command(*elements: tuple[int, bytes]) -> bytes:
    """A command set in the order given, without a group length."""
    return b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in elements)


# Before the association ---------------------------------------------------------------------------


def test_b5_a_probe_leaves_no_trace(tmp_path: Path, wire: TLS | None) -> None:
    with Service(tmp_path, workers=1, tls=wire) as service:
        # Without a handshake, too.
        with Peer(service.host, service.port) as peer:
            name = peer.name
        reset = Peer(service.host, service.port)
        reset_name = reset.name
        reset.reset()
        service.echoes()
        service.stop()
        assert name not in service.log()
        assert reset_name not in service.log()


@pytest.mark.parametrize("length", [0, 67, (1 << 20) + 1, 0xFFFFFFFF])
def test_b6_a_request_of_impossible_length_is_not_waited_for(service: Service, length: int) -> None:
    assert _answer_to(service, pdu(1, length=length)) == abort(0, 0)


def test_b6_the_smallest_request_is_read(service: Service) -> None:
    body = struct.pack(">HH16s16s32x", 1, 0, b"FASTSCP", b"KIT")
    # It names no application context (B14).
    assert _answer_to(service, pdu(1, body)) == reject(1, 1, 2)


def test_b7_a_request_must_be_complete_in_time(tmp_path: Path, wire: TLS | None) -> None:
    with Service(tmp_path, "--artim-timeout", "500ms", workers=1, tls=wire) as service:
        rq = associate_rq()
        began = time.monotonic()
        with service.connect() as silent, service.connect() as slow:
            at = 0
            while not slow.readable(0.02):
                assert time.monotonic() - began < 10, "still open"
                assert at < len(rq) - 1, "the request is about to be complete"
                # It may end between the look and this.
                with contextlib.suppress(OSError):
                    slow.send(rq[at : at + 1])
                at += 1
            assert slow.read_until_close(reset=True) == b""
            assert silent.read_until_close(reset=True) == b""
            assert time.monotonic() - began > 0.4
        service.in_log("no complete A-ASSOCIATE-RQ in time")
        service.echoes()


def test_b10_an_abort_is_taken_at_once(service: Service) -> None:
    assert _answer_to(service, abort(0, 0)) == b""


# The request --------------------------------------------------------------------------------------


def test_b15_another_called_title_is_refused_where_checked(
    tmp_path: Path, wire: TLS | None
) -> None:
    with Service(
        tmp_path, "--check-called-ae", "--ae-title", "STORE", workers=1, tls=wire
    ) as service:
        assert _answer_to(service, associate_rq(called="FASTSCP")) == reject(1, 1, 7)
        service.peer(called="STORE").close()


def test_b16_a_calling_title_not_allowed_is_refused(tmp_path: Path, wire: TLS | None) -> None:
    allow = ("--allow", "GOOD@127.0.0.0/8", "--allow", "ELSEWHERE@10.0.0.0/8")
    with Service(tmp_path, *allow, workers=1, tls=wire) as service:
        assert _answer_to(service, associate_rq(calling="BAD")) == reject(1, 1, 3)
        assert _answer_to(service, associate_rq(calling="ELSEWHERE")) == reject(1, 1, 3)
        service.peer(calling="GOOD").close()


def test_b16_titles_outside_ascii_in_rules_and_in_a_layout(
    tmp_path: Path, wire: TLS | None
) -> None:
    layout = "{CallingAE}/{CalledAE}/{SOPInstanceUID}.dcm"
    rules = ("--allow", "M%dcLLER@127.0.0.0/8", "--ae-title", "S%E9", "--check-called-ae")
    with Service(tmp_path, *rules, "--layout", layout, workers=1, tls=wire) as service:
        assert _answer_to(service, associate_rq(calling="M_LLER", called=b"S\xe9")) == (
            reject(1, 1, 3)
        )
        assert _answer_to(service, associate_rq(calling=b"M\xdcLLER", called="S_")) == (
            reject(1, 1, 7)
        )
        with service.peer(calling=b"M\xdcLLER", called=b"S\xe9") as peer:
            peer.send(message(store_rq(more={0x1030: b"\xc4%\\"}), data_set()))
            assert peer.read_statuses(1) == [(1, 0)]
            name = peer.name
            peer.release()
        assert service.instances() == [f"M%DCLLER/S%E9/{SOP}.dcm"]
        fact = service.journal()[-1]
        assert (fact["calling_ae"], fact["called_ae"]) == ("M%DCLLER", "S%E9")
        assert fact["move_originator_ae"] == "%C4%25\\"
        said = service.in_log(f"M%DCLLER@{name}: released; ")
        assert "; called 'S%E9', " in said


@pytest.mark.parametrize(
    ("title", "journaled", "in_file"),
    [
        (b" " * 16, "", None),
        (bytes(16), "", None),
        (b"OLD\0\0\0\0\0\0\0\0\0\0\0\0\0", "OLD", "OLD"),
        (b"M\xdcLLER          ", "M%DCLLER", "M_LLER"),
        (b"A%DC            ", "A%25DC", "A%DC"),
        (b"A\\B\x1b[31mC\r\nD    ", "A\\B%1B[31mC%0D%0AD", "A_B_[31mC__D"),
    ],
)
def test_b16_b76_any_calling_title_is_taken(
    service: Service, title: bytes, journaled: str, in_file: str | None
) -> None:
    with service.peer() as ready:
        ready.release()
    with service.connect() as peer:
        answer = peer.associate(associate_rq(calling=title))
        assert answer is not None
        # As it came.
        assert decode_associate_ac(answer).calling_ae == title
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
        name = peer.name
        peer.release()
    assert service.journal()[-1]["calling_ae"] == journaled
    meta = pydicom.filereader.read_file_meta_info(service.store / path_of())
    assert meta.get("SourceApplicationEntityTitle") == in_file
    assert meta.get("SendingApplicationEntityTitle") == in_file
    service.in_log(f"{name}: released")
    # Each line of the log is one that the service meant.
    assert "\x1b" not in service.log()
    assert not any(line.startswith("D") for line in service.log().splitlines())


@pytest.mark.parametrize(
    ("flag", "other_title"),
    [
        ("--max-associations", False),
        ("--max-associations-per-host", False),
        ("--max-associations-per-ae", True),
    ],
)
def test_b18_associations_are_limited(
    tmp_path: Path, wire: TLS | None, flag: str, other_title: bool
) -> None:
    with Service(tmp_path, flag, "2", workers=1, tls=wire) as service:
        with service.peer() as first, service.peer() as second:
            assert _answer_to(service, associate_rq()) == reject(2, 3, 2)
            if other_title:
                service.peer(calling="OTHER").close()
            first.release()
            first.close()
            # The place is free as soon as main knows of it.
            third = wait_for(lambda: _peer_or_none(service), "a place for another association")
            with third:
                for peer in (second, third):
                    peer.send(echo())
                    assert peer.read_response().status == 0
        service.in_log(f"{flag} 2 reached")


def _peer_or_none(service: Service) -> Peer | None:
    peer = service.connect()
    if peer.associate(associate_rq()) == reject(2, 3, 2):
        peer.close()
        return None
    return peer


def test_b19_of_two_contexts_with_one_id_the_first_counts(service: Service) -> None:
    with service.connect() as peer:
        answer = peer.associate(associate_rq((1, CT, ELE), (1, MR, ILE), (3, VERIFICATION, ILE)))
        assert answer is not None
        contexts = decode_associate_ac(answer).presentation_contexts
        assert [(one.id, one.result, one.transfer_syntax) for one in contexts] == [
            (1, 0, ELE),
            (3, 0, ILE),
        ]
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
    assert service.journal()[-1]["sop_class_uid"] == CT


def test_b19_strict_two_contexts_with_one_id_are_refused(strict: Service) -> None:
    assert _answer_to(strict, associate_rq((1, CT, ELE), (1, MR, ILE))) == reject(1, 2, 1)


def test_b20_every_context_id_is_good_for_use(service: Service) -> None:
    contexts = [(n, CT, ELE) for n in range(256)]
    with service.peer(*contexts) as peer:
        for n in (0, 2, 255):
            peer.send(store(n, context=n, sop=f"{SOP}.{n}"))
            response = peer.read_response()
            assert (response.context, response.to, response.status) == (n, n, 0)


def test_b20_256_contexts_are_answered_one_by_one(service: Service) -> None:
    with service.connect() as peer:
        answer = peer.associate(associate_rq(*((n, CT, ELE) for n in range(256))))
        assert answer is not None
        contexts = decode_associate_ac(answer).presentation_contexts
        assert [(one.id, one.result) for one in contexts] == [(n, 0) for n in range(256)]


def test_b20_many_transfer_syntaxes_are_taken(service: Service) -> None:
    private = ",".join(f"1.2.3.{n}" for n in range(200))
    with service.connect() as peer:
        answer = peer.associate(associate_rq((1, CT, f"{private},{ELE}"), (3, CT, ELE)))
        assert answer is not None
        contexts = decode_associate_ac(answer).presentation_contexts
        assert [one.result for one in contexts] == [0, 0]


def test_b20_strict_an_even_context_id_is_refused(strict: Service) -> None:
    with strict.connect() as peer:
        answer = peer.associate(associate_rq((0, CT, ELE), (1, CT, ELE), (2, CT, ELE)))
        assert answer is not None
        contexts = decode_associate_ac(answer).presentation_contexts
        assert [(one.id, one.result) for one in contexts] == [(0, 2), (1, 0), (2, 2)]


def test_b21_an_association_stands_with_all_contexts_refused(
    tmp_path: Path, wire: TLS | None
) -> None:
    with (
        Service(tmp_path, "--transfer-syntaxes", ELE, workers=1, tls=wire) as service,
        service.connect() as peer,
    ):
        rq = associate_rq((1, FIND, ELE), (3, CT, BIG), (5, "", ELE), (7, CT, ""))
        answer = peer.associate(rq)
        assert answer is not None
        contexts = decode_associate_ac(answer).presentation_contexts
        assert [one.result for one in contexts] == [3, 4, 3, 4]
        peer.release()


@pytest.mark.parametrize("length", [1, 6, 7])
def test_b22_a_maximum_nobody_can_answer_in_is_refused(service: Service, length: int) -> None:
    assert _answer_to(service, associate_rq(max_pdu_length=length)) == reject(1, 2, 1)


@pytest.mark.parametrize("length", [8, 9, 16, 64, 16383])
def test_b22_responses_keep_to_the_peers_maximum(service: Service, length: int) -> None:
    with service.peer(max_pdu_length=length) as peer:
        peer.send(store() + echo(2) + RELEASE_RQ)
        got = list(split_pdus(peer.read_until_close()))
    assert got.pop() == RELEASE_RP
    assert all(len(one) - 6 <= length for one in got)
    pdvs = [pdv for one in got for pdv in decode_pdata(one)]
    # Command fragments: the last of each message, and only that, says so.
    assert {header for _context, header, _fragment in pdvs} <= {1, 3}
    ends = [context for context, header, _fragment in pdvs if header == 3]
    assert ends == [1, 7]


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, None])
def test_b22_no_usable_maximum_does_not_hurt(service: Service, length: int | None) -> None:
    with service.peer(max_pdu_length=length) as peer:
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()


def test_b22_a_request_without_user_information_is_taken(service: Service) -> None:
    with service.peer(user_information=UserInformation()) as peer:
        peer.send(echo())
        assert peer.read_statuses(1) == [(1, 0)]


# PDUs ---------------------------------------------------------------------------------------------


def test_b26_strict_a_pdu_above_the_maximum_is_refused(strict: Service) -> None:
    with strict.peer() as peer:
        peer.send(message(store_rq(), bytes(140000), fragment=140000))
        assert peer.read_until_close() == abort(2, 6)


def test_b26_a_pdu_above_the_maximum_is_taken_and_said_once(service: Service) -> None:
    data = data_set(pixels=300000)
    with service.peer() as peer:
        peer.send(store(1, data, fragment=140000))
        assert peer.read_statuses(1) == [(1, 0)]
        name = peer.name
    assert service.data_of(path_of()) == data
    service.in_log(f"{name}: connection closed")
    told = [line for line in service.log().splitlines() if name in line and "140006" in line]
    assert len(told) == 1


@pytest.mark.parametrize("length", [0, 3, 64])
def test_b30_a_release_of_another_length_is_a_release(service: Service, length: int) -> None:
    with service.peer() as peer:
        peer.send(pdu(5, bytes(length)))
        assert peer.read_until_close() == RELEASE_RP


@pytest.mark.parametrize("length", [65, 0xFFFFFFFF])
def test_b30_a_release_that_is_too_long_is_none(service: Service, length: int) -> None:
    with service.peer() as peer:
        peer.send(pdu(5, length=length))
        assert peer.read_until_close() == abort(2, 6)


@pytest.mark.parametrize("length", [0, 64, 65, 0xFFFFFFFF])
def test_b30_an_abort_of_any_length_is_an_abort(service: Service, length: int) -> None:
    with service.peer() as peer:
        peer.send(pdu(7, bytes(length if length < 100 else 0), length=length))
        assert peer.read_until_close(reset=True) == b""


def test_b32_data_before_the_acceptance_is_out_of_place(service: Service) -> None:
    # One write, so that both are there when the request is read.
    assert _answer_to(service, associate_rq() + echo()) == abort(2, 2)


def test_b36_a_message_must_go_on(tmp_path: Path, wire: TLS | None) -> None:
    with (
        Service(tmp_path, "--message-timeout", "500ms", workers=1, tls=wire) as service,
        service.peer() as peer,
    ):
        peer.send(store())
        assert peer.read_statuses(1) == [(1, 0)]
        peer.send(store(2, sop=OTHER)[:-20])
        assert peer.read_until_close() == abort(0, 0)
        service.in_log("silent inside a message")
        assert service.instances() == [path_of()]
        wait_for(lambda: not service.parts(), "no part left")


def test_b36_a_message_may_stop_nowhere(tmp_path: Path, wire: TLS | None) -> None:
    with (
        Service(tmp_path, "--message-timeout", "500ms", workers=1, tls=wire) as service,
        contextlib.ExitStack() as opened,
    ):
        peers = []
        # In a PDU header, a PDV header, the command set, between the two, and in the data set.
        for cut in (1, 5, 6, 7, 11, 12, 100, 118, 119, 125, 200):
            peers.append(opened.enter_context(service.peer()))
            peers[-1].send(store()[:cut])
        for peer in peers:
            assert peer.read_until_close() == abort(0, 0)
        wait_for(lambda: not service.parts(), "no part left")


def test_b36_a_message_must_go_on_at_a_rate(tmp_path: Path, wire: TLS | None) -> None:
    # Long enough that the sender is not taken for silent where the machine is busy.
    flags = ("--message-timeout", "2s", "--min-rate", "1KiB")
    with Service(tmp_path, *flags, workers=1, tls=wire) as service, service.peer() as peer:
        stream = store(1, data_set(pixels=100000))
        at = 200
        peer.send(stream[:at])
        while not peer.readable(0.02):
            peer.send(stream[at : at + 1])
            at += 1
        assert peer.read_until_close(reset=True) == abort(0, 0)
        service.in_log("slower than the minimum rate")
        assert service.instances() == []
        wait_for(lambda: not service.parts(), "no part left")


def test_b37_a_connection_lost_inside_a_message_costs_that_message(service: Service) -> None:
    with service.peer() as fin, service.peer() as reset:
        for n, peer in enumerate((fin, reset)):
            peer.send(store(1, sop=f"{SOP}.{n}"))
            assert peer.read_statuses(1) == [(1, 0)]
            peer.send(store(2, sop=f"{OTHER}.{n}")[:-50])
        wait_for(lambda: len(service.parts()) == 2, "two parts")
        fin.half_close()
        assert fin.read_until_close() == b""
        reset.reset()
        service.ends_parts()
    assert service.instances() == [path_of(f"{SOP}.{n}") for n in range(2)]


def test_b37_what_is_complete_is_answered_after_a_half_close(service: Service) -> None:
    with service.peer() as peer:
        peer.send(store(1) + store(2, sop=OTHER))
        peer.half_close()
        assert peer.read_statuses(2) == [(1, 0), (2, 0)]
        assert peer.read_until_close() == b""
    assert service.instances() == sorted([path_of(), path_of(OTHER)])


def test_b69_an_instance_nobody_was_told_of_can_be_sent_again(service: Service) -> None:
    peer = service.peer()
    peer.send(store())
    peer.reset()
    assert _status_of(service, store()) == 0x0000
    assert service.instances() == [path_of()]
    assert service.data_of(path_of()) == data_set()


@pytest.mark.parametrize("fragment", [100, 16000])
def test_b38_a_command_set_that_does_not_end_is_aborted(service: Service, fragment: int) -> None:
    with service.peer() as peer:
        flood = encode_pdata([(1, 1, bytes(fragment))])
        # The answer may come, and the connection go, while we are still sending.
        with contextlib.suppress(ConnectionError):
            peer.send(flood * (70000 // fragment + 1))
        assert peer.read_until_close() == abort(0, 0)


# Commands -----------------------------------------------------------------------------------------


def _store_command(
    message_id: bytes = b"\1\0",
    field: bytes = b"\1\0",
    kind: bytes = b"\1\0",
    *more: tuple[int, bytes],
) -> bytes:
    return _command(
        (0x0002, CT.encode() + b"\0"),
        (0x0100, field),
        (0x0110, message_id),
        (0x0700, b"\0\0"),
        (0x0800, kind),
        (0x1000, SOP.encode() + b"\0"),
        *more,
    )


def test_b40_of_a_repeated_element_the_first_counts(service: Service) -> None:
    command = _store_command(b"\5\0", b"\1\0", b"\1\0", (0x0110, b"\6\0"), (0x1000, b"1.9\0"))
    with service.peer() as peer:
        peer.send(message(command, data_set()))
        assert peer.read_statuses(1) == [(5, 0)]
    assert service.instances() == [path_of()]


@pytest.mark.parametrize(
    "command",
    [
        _store_command(message_id=b"\1\0\0\0"),
        _store_command(message_id=b"\1"),
        _store_command(field=b"\1\0\0\0"),
        _store_command(kind=b"\1"),
        _store_command(message_id=b""),
    ],
)
def test_b40_a_number_of_another_size_that_is_needed_is_fatal(
    service: Service, command: bytes
) -> None:
    with service.peer() as peer:
        peer.send(message(command, data_set()))
        assert peer.read_until_close() == abort(0, 0)


@pytest.mark.parametrize("priority", [b"", b"\7\0", b"\0", b"\0\0\0\0"])
def test_b42_the_priority_does_not_matter(service: Service, priority: bytes) -> None:
    command = _store_command().replace(_command((0x0700, b"\0\0")), _command((0x0700, priority)), 1)
    assert _status_of(service, message(command, data_set())) == 0


@pytest.mark.parametrize(
    "field", [0x0010, 0x0020, 0x0021, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0042, 0]
)
@pytest.mark.parametrize("with_data", [True, False])
def test_b45_other_operations_are_not_recognized(
    service: Service, field: int, with_data: bool
) -> None:
    kind = 1 if with_data else 0x0101
    command = encode_command({0x0002: CT, 0x0100: field, 0x0110: 3, 0x0800: kind})
    with service.peer() as peer:
        peer.send(message(command, bytes(50000) if with_data else None))
        response = peer.read_response()
        assert response.command.command_field == field | 0x8000
        assert (response.to, response.status) == (3, 0x0211)
        peer.send(store(4))
        assert peer.read_statuses(1) == [(4, 0)]


def test_b46_a_response_that_answers_nothing_is_passed_over(service: Service) -> None:
    stray = encode_command({0x0002: CT, 0x0100: 0x8001, 0x0120: 1, 0x0800: 0x0101, 0x0900: 0})
    with service.peer() as peer:
        peer.send(message(stray) * 3 + echo(4))
        assert peer.read_statuses(1) == [(4, 0)]
        # A peer that has lost its way is told so in the end.
        peer.send(message(stray) * 20)
        assert peer.read_until_close() == abort(0, 0)


def test_b47_a_cancel_is_passed_over(service: Service) -> None:
    cancel = encode_command({0x0100: 0x0FFF, 0x0120: 1, 0x0800: 0x0101})
    with service.peer() as peer:
        peer.send(message(cancel) * 20 + echo(4))
        assert peer.read_statuses(1) == [(4, 0)]
        peer.release()


def test_b48_another_storage_class_than_the_contexts_is_taken(service: Service) -> None:
    assert _status_of(service, store(sop_class=MR)) == 0x0000
    assert service.journal()[-1]["sop_class_uid"] == MR
    meta = pydicom.filereader.read_file_meta_info(service.store / path_of())
    assert meta.MediaStorageSOPClassUID == MR


def test_b48_strict_another_class_than_the_contexts_is_refused(strict: Service) -> None:
    assert _status_of(strict, store(sop_class=MR)) == 0x0122
    assert strict.instances() == []


@pytest.mark.parametrize("sop_class", [VERIFICATION, FIND])
def test_b48_a_class_that_is_not_stored_is_refused(service: Service, sop_class: str) -> None:
    assert _status_of(service, store(sop_class=sop_class)) == 0x0122
    assert service.instances() == []


def test_b48_nothing_is_stored_on_a_verification_context(service: Service) -> None:
    assert _status_of(service, store(sop_class=VERIFICATION, context=7)) == 0x0122
    assert service.instances() == []


# Data sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ELE, ILE, BIG, DEFLATED])
def test_a_data_set_in_any_of_the_uncompressed_syntaxes_is_stored(
    service: Service, syntax: str
) -> None:
    data = data_set(syntax)
    assert _status_of(service, store(1, data), (1, CT, syntax)) == 0
    assert service.data_of(path_of()) == data
    stored = pydicom.dcmread(service.store / path_of())
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert (stored.SOPInstanceUID, stored.PatientID) == (SOP, "KIT-1")


def test_b56_the_data_set_counts_not_its_label(service: Service) -> None:
    data = data_set(ILE)
    assert _status_of(service, store(1, data), (1, CT, ELE)) == 0
    assert service.data_of(path_of()) == data
    fact = service.journal()[-1]
    assert fact["transfer_syntax_uid"] == ELE
    assert fact["syntax_mismatch"] is True


HUGE: Final = struct.pack("<HH2s2xI", 0x0008, 0x2111, b"UT", 0xFFFFFFF0)


def test_b60_a_length_beyond_the_stream_hides_the_uids(service: Service) -> None:
    with service.peer() as peer:
        head = element(0x00080018, b"UI", SOP.encode())
        peer.send(store(1, head + HUGE + bytes(1000)))
        response = peer.read_response()
    assert response.status == 0xC000
    assert response.command.offending_elements == (0x0020000D, 0x0020000E)
    assert service.instances() == []


def test_b55_a_short_tail_is_kept(service: Service) -> None:
    data = data_set()[:-100]
    assert _status_of(service, store(1, data)) == 0x0000
    assert service.data_of(path_of()) == data
    assert service.journal()[-1]["truncated"] is True


def test_b55_strict_a_short_tail_is_refused(strict: Service) -> None:
    assert _status_of(strict, store(1, data_set()[:-100])) == 0xC000
    assert _status_of(strict, store(1, data_set())) == 0x0000
    assert len(strict.journal()) == 1


@pytest.mark.parametrize(("study", "series"), [("", "1.2"), ("1.2", ""), ("", "")])
def test_b55_each_missing_uid_is_named(service: Service, study: str, series: str) -> None:
    with service.peer() as peer:
        peer.send(store(1, data_set(study=study, series=series)))
        response = peer.read_response()
    assert response.status == 0xC000
    missing = [0x0020000D] * (not study) + [0x0020000E] * (not series)
    assert response.command.offending_elements == tuple(missing)


@pytest.mark.parametrize("uid", ["1..2", ".1", "1.", "a/b", "-1.2", "1.2_"])
@pytest.mark.parametrize("where", ["study", "series"])
def test_b49_b52_an_unusable_uid_in_the_data_set_is_refused(
    service: Service, where: str, uid: str
) -> None:
    usable = {"study": "1.2.3.1", "series": "1.2.3.1.1"} | {where: uid}
    data = data_set(study=usable["study"], series=usable["series"])
    assert _status_of(service, store(1, data)) == 0x0117
    assert service.instances() == []


@pytest.mark.parametrize("uid", ["1.2.03", "abc", "1.2-3_4", "1" * 64])
def test_b52_a_uid_that_is_merely_odd_is_kept(service: Service, uid: str) -> None:
    assert _status_of(service, store(sop=uid)) == 0x0000
    assert service.instances() == [path_of(uid)]


@pytest.mark.parametrize(
    ("before", "behind"),
    [(" ", ""), ("", "\r\n"), ("\0 ", "\0\0 "), ("\n\r", " \n"), ("", "\0" * 20)],
)
def test_b50_padding_at_either_end_is_trimmed_and_echoed(
    service: Service, before: str, behind: str
) -> None:
    """Before its length is checked: the longest UID has 64 characters without it."""
    sop, study, series = (f"1.2.{n}" + "5" * 59 for n in (1, 2, 3))
    data = data_set(
        sop=f"{behind}{sop}{before}",
        sop_class=f"{before}{CT}{behind}",
        study=f"{before}{study}{behind}",
        series=f"{behind}{series}{before}",
    )
    raw = f"{before}{sop}{behind}".encode()
    raw_class = f"{behind}{CT}{before}".encode()
    with service.peer() as peer:
        peer.send(message(store_rq(sop=raw, sop_class=raw_class), data))
        response = peer.read_response()
        peer.release()
    assert response.status == 0
    assert response.command.elements[0x1000].rstrip(b"\0") == raw.rstrip(b"\0")
    assert response.command.elements[0x0002].rstrip(b"\0") == raw_class.rstrip(b"\0")
    assert service.instances() == [path_of(sop, study=study, series=series)]
    fact = service.journal()[-1]
    assert fact["sop_instance_uid"] == sop
    assert fact["sop_class_uid"] == CT
    assert (fact["study_instance_uid"], fact["series_instance_uid"]) == (study, series)
    assert service.data_of(path_of(sop, study=study, series=series)) == data
    meta = pydicom.filereader.read_file_meta_info(
        service.store / path_of(sop, study=study, series=series)
    )
    assert (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) == (sop, CT)


@pytest.mark.parametrize(("uid", "status"), [("abc", 0x0117), ("1.2-3", 0x0117), ("1.02", 0)])
def test_b52_strict_a_uid_with_letters_is_refused(strict: Service, uid: str, status: int) -> None:
    assert _status_of(strict, store(sop=uid)) == status


def test_w40_strict_a_file_header_in_the_data_set_is_refused(strict: Service) -> None:
    syntax = element(0x00020010, b"UI", ELE.encode())
    header = element(0x00020000, b"UL", struct.pack("<I", len(syntax))) + syntax
    assert _status_of(strict, store(1, header + data_set())) == 0xC000
    assert _status_of(strict, store(1, bytes(128) + b"DICM" + header + data_set())) == 0xC000
    assert strict.instances() == []


@pytest.mark.parametrize("context", ["1.2.3", None])
def test_b14_strict_or_not_another_application_context_is_refused(
    service: Service, strict: Service, context: str | None
) -> None:
    rq = associate_rq(application_context=context)
    assert _answer_to(service, rq) == reject(1, 1, 2)
    assert _answer_to(strict, rq) == reject(1, 1, 2)


def _nested(depth: int) -> bytes:
    """Sequences of undefined length inside each other that nobody ends."""
    sequence = struct.pack("<HH2s2xI", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF)
    return (sequence + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth


def test_b58_sequences_without_end_only_cost_what_is_behind_them(service: Service) -> None:
    uids = data_set(pixels=0)
    assert _status_of(service, store(1, _nested(10000) + uids)) == 0xC000
    assert service.instances() == []
    assert _status_of(service, store(1, uids + _nested(10000))) == 0x0000
    assert service.data_of(path_of()) == uids + _nested(10000)


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=-15)
    return deflate.compress(data) + deflate.flush()


def test_b59_a_deflate_bomb_does_not_go_off(service: Service) -> None:
    before = _resident(service)
    bomb = _deflated(element(0x00080005, b"UT", bytes(256 << 20)) + data_set())
    assert _status_of(service, store(1, bomb), (1, CT, DEFLATED)) == 0
    assert _resident(service) - before < 16 << 20
    assert service.data_of(path_of()) == bomb


def test_b59_what_is_called_deflated_may_be_plain_or_go_on(service: Service) -> None:
    context = (1, CT, DEFLATED)
    assert _status_of(service, store(1, data_set()), context) == 0
    assert service.data_of(path_of()) == data_set()
    assert service.journal()[-1]["syntax_mismatch"] is True
    with_tail = data_set(DEFLATED, sop=OTHER) + b"tail"
    assert _status_of(service, store(1, with_tail, sop=OTHER), context) == 0
    assert service.data_of(path_of(OTHER)) == with_tail
    # Nothing of it can be read.
    assert _status_of(service, store(1, b"\xff" * 1000), context) == 0xC000


def test_b74_a_flood_of_fragments_is_taken(service: Service) -> None:
    data = data_set(pixels=200000)
    with service.peer() as peer:
        peer.send(message(store_rq(), data, fragment=2))
        assert peer.read_statuses(1) == [(1, 0)]
    assert service.data_of(path_of()) == data


def test_b75_an_instance_above_the_limit_is_refused(tmp_path: Path, wire: TLS | None) -> None:
    with (
        Service(tmp_path, "--max-instance-size", "4KiB", workers=1, tls=wire) as service,
        service.peer() as peer,
    ):
        fits = data_set(pixels=512)
        fits += element(0xFFFCFFFC, b"OB", bytes(4096 - len(fits) - 12))
        assert len(fits) == 4096
        peer.send(store(1, fits + element(0xFFFCFFFC, b"OB", b""), sop=SOP))
        peer.send(store(2, data_set(pixels=200000, sop=OTHER), sop=OTHER))
        peer.send(store(3, fits))
        assert peer.read_statuses(3) == [(1, 0xA700), (2, 0xA700), (3, 0)]
        peer.release()
        assert service.instances() == [path_of()]


def test_b75_an_instance_far_above_the_limit_is_aborted(tmp_path: Path, wire: TLS | None) -> None:
    with (
        Service(tmp_path, "--max-instance-size", "4KiB", workers=1, tls=wire) as service,
        service.peer() as peer,
    ):
        peer.send(message(store_rq()))
        flood = encode_pdata([(1, 0, bytes(131066))])
        with contextlib.suppress(ConnectionError):
            for _ in range((2 << 30) // len(flood)):
                peer.send(flood)
        with contextlib.suppress(ConnectionError):
            assert peer.read_until_close() == abort(0, 0)
        service.in_log("refused data set does not end")


# Duplicates ---------------------------------------------------------------------------------------

FIRST: Final = data_set()
SECOND: Final = data_set(seed=1)


@pytest.mark.parametrize("durability", ["stable", "buffered"])
@pytest.mark.parametrize(
    ("policy", "status", "files", "kind"),
    [
        ("version", 0x0000, {path_of(): FIRST, path_of() + "~2": SECOND}, "version"),
        ("replace", 0x0000, {path_of(): SECOND}, "replaced"),
        ("keep", 0xB006, {path_of(): FIRST}, "kept"),
        ("refuse", 0xC000, {path_of(): FIRST}, None),
    ],
)
def test_b62_a_duplicate_is_treated_as_told(
    tmp_path: Path,
    policy: str,
    status: int,
    files: dict[str, bytes],
    kind: str | None,
    durability: str,
) -> None:
    flags = ("--on-duplicate", policy, "--durability", durability)
    with Service(tmp_path, *flags, workers=1) as service:
        with service.peer() as peer:
            # Identical is no matter of policy.
            for message_id in (1, 2):
                peer.send(store(message_id, FIRST))
                assert peer.read_statuses(1) == [(message_id, 0)]
            assert service.instances() == [path_of()]
            peer.send(store(3, SECOND))
            response = peer.read_response()
            assert (response.to, response.status) == (3, status)
            assert bool(response.command.error_comment) == (status != 0)
            # What is kept now is the one to be identical to.
            kept = list(files.values())[-1]
            peer.send(store(4, kept))
            assert peer.read_statuses(1) == [(4, 0)]
            peer.release()
        assert {name: service.data_of(name) for name in service.instances()} == files
        kinds = [fact.get("duplicate") for fact in service.journal()]
        assert kinds == [None, "identical", *([kind] if kind else []), "identical"]


def test_b62_versions_have_an_end(service: Service) -> None:
    with service.peer() as peer:
        for n in range(9):
            peer.send(store(n, data_set(seed=n)))
            assert peer.read_statuses(1) == [(n, 0)]
        peer.send(store(9, data_set(seed=9)))
        assert peer.read_statuses(1) == [(9, 0xC000)]
        peer.send(store(10, data_set(seed=5)))
        assert peer.read_statuses(1) == [(10, 0)]
    names = [path_of(), *(f"{path_of()}~{n}" for n in range(2, 10))]
    assert service.instances() == names
    assert [service.data_of(name) for name in names] == [data_set(seed=n) for n in range(9)]


def test_b62_duplicates_in_one_go_are_answered_in_order(service: Service) -> None:
    with service.peer() as peer:
        peer.send(
            store(1, FIRST) + store(2, SECOND) + store(3, FIRST) + echo(4) + store(5, sop=OTHER)
        )
        assert peer.read_statuses(5) == [(n, 0) for n in range(1, 6)]
    versions = {path_of(), path_of() + "~2"}
    assert set(service.instances()) == versions | {path_of(OTHER)}
    assert {service.data_of(name) for name in versions} == {FIRST, SECOND}


def test_b62_the_same_instance_at_once_is_kept_once(service: Service) -> None:
    peers = [service.peer() for _ in range(8)]
    with contextlib.ExitStack() as all_closed:
        for peer in peers:
            all_closed.enter_context(peer)
            peer.send(store()[:-1])
        for peer in peers:
            peer.send(store()[-1:])
        assert [peer.read_response().status for peer in peers] == [0] * 8
    assert service.instances() == [path_of()]
    kinds = [fact.get("duplicate") for fact in service.journal()[-8:]]
    assert sorted(kinds, key=str) == [None, *["identical"] * 7]


# Many messages ------------------------------------------------------------------------------------


def test_b63_an_outstanding_message_id_is_refused_within_a_window(service: Service) -> None:
    with service.peer(window=8) as peer:
        # One write, so that the first is outstanding when the second is read.
        peer.send(store(1) + store(1, sop=OTHER))
        assert peer.read_statuses(2) == [(1, 0), (1, 0x0210)]
        peer.send(store(1, sop=OTHER))
        assert peer.read_statuses(1) == [(1, 0)]


def test_b63_message_ids_are_free_without_a_window(service: Service) -> None:
    with service.peer() as peer:
        peer.send(store(1) + store(1, sop=OTHER))
        assert peer.read_statuses(2) == [(1, 0), (1, 0)]


@pytest.mark.parametrize(("asked", "answered"), [(None, None), (1, 1), (8, 8), (0, 64), (999, 64)])
def test_the_window_is_answered_where_it_is_asked_for(
    service: Service, asked: int | None, answered: int | None
) -> None:
    with service.connect() as peer:
        answer = peer.associate(associate_rq(window=asked))
        assert answer is not None
        information = decode_associate_ac(answer).user_information
        assert information is not None
        window = information.async_window
        assert (None if window is None else window.max_invoked) == answered


def test_b64_a_release_inside_a_message_is_granted(service: Service) -> None:
    whole = store(2, data_set(sop=OTHER, pixels=40000), sop=OTHER)
    first_two = b"".join(list(split_pdus(whole))[:2])
    with service.peer() as peer:
        peer.send(store(1) + first_two + RELEASE_RQ)
        name = peer.name
        assert peer.read_statuses(1) == [(1, 0)]
        assert peer.read_until_close() == RELEASE_RP
    assert "release inside a message" in service.in_log(f"{name}: asks for release")
    assert service.instances() == [path_of()]


@pytest.mark.parametrize("behind", [store(2, sop=OTHER), RELEASE_RQ, associate_rq()])
def test_b24_nothing_may_follow_a_request_for_release(service: Service, behind: bytes) -> None:
    with service.peer() as peer:
        # The release waits for the response (Sta8), which an error overtakes.
        peer.send(store(1) + RELEASE_RQ + behind)
        assert peer.read_until_close() == abort(2, 2)
    wait_for(lambda: service.instances() == [path_of()], "the instance sent before")
    with service.peer() as peer:
        # Granted at once: what comes then is not looked at (Sta13).
        peer.send(RELEASE_RQ + behind)
        assert peer.read_until_close() in {RELEASE_RP, RELEASE_RP + abort(0, 0)}
    assert service.instances() == [path_of()]


def test_b65_releases_never_collide(service: Service) -> None:
    """We ask for none (Sta7, Sta10, Sta12): a confirmation is out of place, whenever it comes."""
    with service.peer() as peer:
        peer.send(store(1))
        assert peer.read_statuses(1) == [(1, 0)]
        peer.send(RELEASE_RP)
        assert peer.read_until_close() == abort(2, 2)
    with service.peer() as peer:
        # As whoever believes that both asked; ours is owed a response first (Sta8).
        peer.send(store(2, sop=OTHER) + RELEASE_RQ + RELEASE_RP)
        assert peer.read_until_close() == abort(2, 2)
    with service.peer() as peer:
        # Granted at once, what comes then is not looked at (Sta13).
        peer.send(RELEASE_RQ + RELEASE_RP)
        assert peer.read_until_close() == RELEASE_RP
    wait_for(lambda: service.instances() == sorted({path_of(), path_of(OTHER)}), "both")


def test_b65_a_drain_asks_nobody_for_release(tmp_path: Path, wire: TLS | None) -> None:
    """Whoever asks meanwhile is confirmed; whoever stays is aborted in the end, and never asked."""
    with Service(tmp_path, "--drain-timeout", "60s", workers=1, tls=wire) as service:
        with service.peer() as busy, service.peer() as resting, service.peer() as asks:
            busy.send(store(1)[:-1])
            asks.send(echo())
            assert asks.read_response().status == 0
            service.process.send_signal(signal.SIGTERM)
            service.in_log("SIGTERM")
            asks.send(RELEASE_RQ)
            assert asks.read_until_close() == RELEASE_RP
            busy.send(store(1)[-1:])
            assert busy.read_statuses(1) == [(1, 0)]
            busy.send(RELEASE_RQ)
            assert busy.read_until_close() == RELEASE_RP
            # For the second one nobody is waited for.
            service.process.send_signal(signal.SIGTERM)
            assert resting.read_until_close() == abort(0, 0)
        service.ends(0)


@pytest.mark.parametrize("ending", ["release", "abort", "reject"])
def test_b66_nothing_is_read_after_the_end(service: Service, ending: str) -> None:
    with service.connect() as peer:
        if ending == "reject":
            answer = peer.associate(associate_rq(protocol_version=2))
            assert answer is not None
            assert decode_pdu(answer) == AssociateRJ(1, 2, 2)
        else:
            peer.associate(associate_rq())
            peer.send(RELEASE_RQ if ending == "release" else pdu(9))
            assert peer.read_pdu() == (RELEASE_RP if ending == "release" else abort(2, 1))
        peer.send(associate_rq() + store() + b"GET / HTTP/1.1\r\n\r\n" + RELEASE_RQ)
        # An A-ABORT at the most.
        assert peer.read_until_close() in {b"", abort(0, 0), abort(2, 2)}
    assert service.instances() == []


def test_b66_a_peer_that_does_not_hang_up_is_left(service: Service) -> None:
    with service.peer() as released, service.peer() as aborted, service.peer() as rude:
        released.send(RELEASE_RQ)
        for peer in (aborted, rude):
            peer.send(pdu(9))
        began = time.monotonic()
        assert released.read_until_close() == RELEASE_RP
        assert aborted.read_until_close() == abort(2, 1)
        gone: set[Peer] = set()
        while len(gone) < 3:
            # Bytes for a connection that is no more are answered with RST.
            for peer in {released, aborted, rude} - gone:
                try:
                    peer.send(b"more")
                except ConnectionError:
                    gone.add(peer)
            assert time.monotonic() - began < 20
            time.sleep(0.05)


def test_b67_a_peer_that_does_not_read_stops_being_read(service: Service) -> None:
    before = _resident(service)
    flood = echo(1) * 1000
    with service.connect(receive_buffer=4096) as peer:
        assert peer.associate(associate_rq()) is not None
        sent = 0
        rest = memoryview(flood)
        peer.socket.setblocking(False)
        # Room for half a second means that somebody still reads.
        while select.select([], [peer.socket], [], 0.5)[1]:
            done = peer.socket.send(rest)
            sent += done
            rest = rest[done:] or memoryview(flood)
            assert sent < 256 << 20, "taken in without end"
        peer.socket.settimeout(60)
        assert _resident(service) - before < 32 << 20
        service.echoes()
        # And it goes on where it stopped, with nothing lost.
        size = len(echo(1))
        tail = echo(1)[sent % size :] if sent % size else b""
        sender = threading.Thread(target=peer.send, args=(tail,))
        sender.start()
        for _ in range((sent + len(tail)) // size):
            assert peer.read_response().status == 0
        sender.join()
        peer.release()


def _resident(service: Service) -> int:
    """Bytes in memory of main and workers."""
    return sum(
        int(Path("/proc", str(pid), "statm").read_text().split()[1]) * 4096
        for pid in (service.pid, *service.worker_pids())
    )


def test_b68_an_association_at_rest_is_aborted_in_time(tmp_path: Path, wire: TLS | None) -> None:
    # Long enough that the busy one is not taken for idle where the machine is busy, too.
    with Service(tmp_path, "--idle-timeout", "2s", workers=1, tls=wire) as service:
        began = time.monotonic()
        with service.peer() as idle, service.peer() as busy:
            while not idle.readable(0.05):
                busy.send(echo())
                assert busy.read_response().status == 0
            assert time.monotonic() - began > 1.9
            assert idle.read_until_close() == abort(0, 0)
            busy.send(echo())
            assert busy.read_response().status == 0
            name = idle.name
        assert "idle" in service.in_log(f"{name}: aborted (0,0)")


@pytest.mark.parametrize("window", [None, 4])
def test_b71_200_messages_at_once_are_answered_in_order(
    service: Service, window: int | None
) -> None:
    names = [f"{SOP}.{n}" for n in range(200)]
    stream = b"".join(store(n, sop=name) for n, name in enumerate(names))
    with service.peer(window=window) as peer:
        sender = threading.Thread(target=peer.send, args=(stream,))
        sender.start()
        assert peer.read_statuses(200) == [(n, 0) for n in range(200)]
        sender.join()
        peer.release()
    assert service.instances() == sorted(map(path_of, names))
    assert {service.data_of(path_of(name)) for name in names} == {data_set(sop=n) for n in names}

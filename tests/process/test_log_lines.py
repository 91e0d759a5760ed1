"""What the log of the whole service shows: so much of each peer, and nothing of patients."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
from pathlib import Path

import pytest

from fastscp.log import FIELDS
from fastscp_ext import RoleSelection, UserInformation
from tests.kit import (
    CT,
    ELE,
    ILE,
    RELEASE_RQ,
    SOP,
    Peer,
    Service,
    associate_rq,
    data_set,
    echo,
    message,
    pdu,
    reject,
    store,
    store_rq,
    wait_for,
)


def test_a_json_log_repeats_where_the_service_listens(tmp_path: Path) -> None:
    with Service(tmp_path, "--log-format", "json", workers=1) as service:
        line = service.in_log(f'"message":"listening on 127.0.0.1:{service.port}"')
        assert json.loads(line)["level"] == "info"
        assert service.log().startswith("listening on ")


def _with_version_name(rq: bytes, name: bytes) -> bytes:
    """The request with an implementation version name that an encoder would not write."""
    item = b"\x55\x00\x00\x03KIT"
    assert rq.endswith(item)
    body = bytearray(rq[6 : -len(item)] + struct.pack(">BBH", 0x55, 0, len(name)) + name)
    information = body.index(b"\x50\x00", body.index(ELE.encode()))
    body[information + 2 : information + 4] = struct.pack(">H", len(body) - information - 4)
    return pdu(1, bytes(body))


def test_a_trace_has_each_step_with_the_fields_of_its_association(tmp_path: Path) -> None:
    """Each context that was proposed and accepted, and each command set, among them."""
    with Service(tmp_path, "--log-format", "json", "-vv", workers=1) as service:
        with service.peer((1, CT, ELE), (3, FIND, ELE)) as peer:
            name = peer.name
            more: dict[int, int | bytes | str | tuple[int, ...]] = {0x1030: "MOVER", 0x1031: 9}
            peer.send(message(store_rq(7, more=more), data_set()))
            assert peer.read_statuses(1) == [(7, 0)]
            peer.release()
        service.stop()
        told = [json.loads(line) for line in service.log().splitlines()[1:]]
    lines = [one for one in told if f"@{name}: " in one["message"]]
    for text in (
        "received A-ASSOCIATE-RQ: presentation context 1: CTImageStorage in ExplicitVRLittleEndian",
        "sent A-ASSOCIATE-AC: presentation context 1: accepted in ExplicitVRLittleEndian",
        "sent A-ASSOCIATE-AC: presentation context 3: result 3, abstract syntax not supported",
        (
            "received C-STORE-RQ: presentation context 1, message 7, class CTImageStorage, "
            f"instance '{SOP}', priority 0, moved for 'MOVER', by its message 9"
        ),
        (
            "sent C-STORE-RSP: presentation context 1, answers message 7, class CTImageStorage, "
            f"instance '{SOP}', status 0000 success"
        ),
        "received P-DATA-TF, ", "sent A-RELEASE-RP, ",
    ):  # fmt: skip
        assert any(f"@{name}: {text}" in one["message"] for one in lines), text
    assert len({one["association"] for one in lines}) == 1
    assert {(one["calling_ae"], one["peer"]) for one in lines} == {("KIT", name)}


def test_a_long_version_name_is_a_short_line(tmp_path: Path) -> None:
    """60,000 bytes that do not print would be 240,000 characters."""
    with Service(tmp_path, "-vv", workers=1) as service, Peer(service.host, service.port) as peer:
        answer = peer.associate(_with_version_name(associate_rq(), b"\x01" * 60_000))
        assert answer is not None
        assert answer[0] == 2
        line = service.in_log(f"{peer.name}: associated")
        assert line.endswith("(" + r"\x01" * 25 + "... (60000 characters))")
        peer.release()
        service.in_log("released")
        service.stop()
        assert max(map(len, service.log().splitlines())) < 2200


def test_259_role_requests_are_one_line(tmp_path: Path) -> None:
    classes = [f"{CT}.{n}" for n in range(1, 100)]
    information = UserInformation(
        max_pdu_length=None, roles=tuple(RoleSelection(uid, True, True) for uid in classes)
    )
    contexts = [(2 * n + 1, uid, ELE) for n, uid in enumerate(classes)]
    with Service(tmp_path, workers=1) as service:
        with service.peer(*contexts, user_information=information) as peer:
            name = peer.name
            peer.release()
            service.in_log(f"{name}: released")
            (line,) = [
                line
                for line in service.log().splitlines()
                if name in line and "associated" not in line and "released" not in line
            ]
        assert "asks for the SCP role of '1.2.840.10008.5.1.4.1.1.2.1' and 98 more" in line
        assert "announces no maximum length" in line
        service.stop()


def test_a_thousand_ends_of_one_kind_are_a_few_lines_and_a_count(tmp_path: Path) -> None:
    """Garbage, rejections and aborts; a few associations that end in order have a line each."""
    with Service(tmp_path) as service:
        rejected = associate_rq(application_context="1.2.3")
        for n in range(300):
            with Peer(service.host, service.port) as peer:
                peer.send((b"GET / HTTP/1.0\r\n\r\n", rejected)[n % 2])
                peer.read_until_close(reset=True)
        names = []
        # No more than one worker shows of those without an instance: it may get all of them.
        for _ in range(20):
            with service.peer() as peer:
                names.append(peer.name)
                peer.release()
        for name in names:
            service.in_log(f"{name}: released")
        service.stop()
        lines = service.log().splitlines()
        # Two workers, and as many intervals as a slow machine may need for it.
        garbage = [line for line in lines if "HTTP client" in line or " rejected (" in line]
        assert len(garbage) <= 2 * 2 * 5 * 6
        counted = [re.search(r": and ([\d,]+) more from 127.0.0.1 within", line) for line in lines]
        hidden = sum(int(one[1].replace(",", "")) for one in counted if one)
        assert len(garbage) + hidden == 300


def test_associations_that_bring_nothing_do_not_flood_the_log(tmp_path: Path) -> None:
    """Each that brought instances has its line: the journal has one for each of these."""
    with Service(tmp_path, workers=1) as service:
        for n in range(80):
            with service.peer() as peer:
                peer.release()
            with service.peer() as peer:
                peer.send(store(1, sop=f"1.2.{n}"))
                assert peer.read_statuses(1) == [(1, 0)]
                peer.release()
        service.stop()
        log = service.log()
        shown = re.findall(r": released; stored (\d), refused 0,", log)
        assert shown.count("1") == 80
        # As many intervals as a slow machine may need for it.
        assert shown.count("0") < 80
        hidden = re.findall(r"INFO.* released without an instance: and ([\d,]+) more", log)
        assert shown.count("0") + sum(map(int, hidden)) == 80


# Patients -----------------------------------------------------------------------------------------


def test_no_line_shows_a_path_with_a_patient(tmp_path: Path) -> None:
    layout = "{PatientID}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
    with Service(tmp_path, "-vv", "--layout", layout, workers=1) as service:
        whole = data_set(patient_id="SECRETID")
        with service.peer() as peer:
            peer.send(store(1, whole) + store(2, whole))
            assert peer.read_statuses(2) == [(1, 0), (2, 0)]
            peer.send(store(3, data_set(patient_id="SECRETID", seed=1)))
            assert peer.read_statuses(1) == [(3, 0)]
            # A file where a folder belongs.
            (service.store / "SECRETFILE").write_bytes(b"")
            peer.send(store(4, data_set(patient_id="SECRETFILE")))
            assert peer.read_response().status != 0
            peer.release()
        service.in_log("released")
        service.stop()
        log = service.log()
        assert "{PatientID}/" in log
        assert "SECRET" not in log


# Who is told what ---------------------------------------------------------------------------------

FIND = "1.2.840.10008.5.1.4.31"


def _more_contexts(rq: bytes, most: int) -> bytes:
    """The request with so many contexts: its first one again, with ids that go round."""
    body = rq[6:]
    start = body.index(b"\x20\x00", 68)
    size = 4 + int.from_bytes(body[start + 2 : start + 4], "big")
    one = body[start : start + size]
    again = b"".join(one[:4] + bytes([(2 * n + 1) & 0xFF]) + one[5:] for n in range(1, most))
    return pdu(1, body[: start + size] + again + body[body.index(b"\x50\x00", start) :])


def test_what_an_operator_is_told_at_warning(tmp_path: Path) -> None:
    """And nothing beside it; what is told as an error is told as over."""
    with Service(tmp_path, "-q", workers=1) as service:
        with Peer(service.host, service.port):
            pass
        with service.peer((1, "1.2.840.10008.1.1", ELE), calling="PROBE") as peer:
            peer.send(echo(1, context=1))
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        with Peer(service.host, service.port) as peer:
            assert peer.associate(
                _more_contexts(associate_rq((1, CT, ELE), calling="MANY"), 343)
            ) == reject(1, 2, 1)
        said = service.in_log("rejected (1,2,1): ")
        assert " WARNING worker-0: " in said
        assert " MANY@" in said
        assert "343 presentation contexts are proposed, and there are ids for 128" in said
        with service.peer((1, CT, ELE), (3, FIND, ELE), (5, CT, ELE)) as peer:
            whole = data_set()
            peer.send(store(1, whole[:-3], sop=SOP) + store(2, whole, sop="1..2"))
            peer.send(store(3, data_set(ILE, sop="1.2.3"), sop="1.2.3"))
            assert peer.read_statuses(3) == [(1, 0), (2, 0x0117), (3, 0)]
            name = peer.name
            peer.release()
        said = service.in_log(f"{name}: 1 of 3 presentation contexts refused: ")
        assert said.endswith(" ModalityWorklistInformationModelFind (not storage)")
        said = service.in_log(f"{name}: released; stored 2, refused 1, ")
        assert " WARNING " in said
        assert "; 1 truncated, 1 mislabelled; " in said
        with service.peer() as peer:
            (worker,) = service.worker_pids()
            os.kill(worker, signal.SIGKILL)
            peer.read_until_close(reset=True)
        assert " ERROR main: " in service.in_log("worker 0 is up again")
        service.echoes()
        service.stop()
        lines = service.log().splitlines()[1:]
        assert all(re.search(r" (WARNING|ERROR) ", line) for line in lines)
        assert not any("PROBE" in line or "1.2.3.1.1.1" in line for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_each_association_has_its_line_though_its_worker_dies(tmp_path: Path, form: str) -> None:
    with Service(tmp_path, "--log-format", form) as service, contextlib.ExitStack() as closed:
        peers = [closed.enter_context(service.peer(calling=f"CT{n}")) for n in range(20)]
        names = [peer.name for peer in peers]
        victim = service.worker_of(peers[0])
        for n, peer in enumerate(peers):
            peer.send(store(1, data_set(sop=f"1.2.{n}")[:-2], sop=f"1.2.{n}"))
            assert peer.read_statuses(1) == [(1, 0)]
            # And one more, which does not come to its end.
            peer.send(store(2, sop="1.2.99")[:-100])
        # What a worker has not read yet is nothing that it began.
        wait_for(lambda: len(service.parts()) == len(peers), "all messages begun")
        lost = [peer for peer in peers if service.worker_of(peer) == victim]
        (pid,) = (
            one for one in service.worker_pids()
            if f"worker {victim}" in Path("/proc", str(one), "cmdline").read_text()
        )  # fmt: skip
        os.kill(pid, signal.SIGKILL)
        for peer in peers:
            if peer in lost:
                peer.read_until_close(reset=True)
            else:
                peer.close()
        service.in_log(f"worker {victim} is up again")
        service.stop()
        ids = {fact["calling_ae"]: fact["association"] for fact in service.journal()}
        lines = service.log().splitlines()
        for n, (peer, name) in enumerate(zip(peers, names, strict=True)):
            calling = f"CT{n}"
            (line,) = (one for one in lines if f"{ids[calling]} {calling}@{name}: " in one)
            ended = "lost with its worker" if peer in lost else "connection lost inside a message"
            if form == "text":
                assert f": {ended}" in line
                assert "; stored 1, refused 0, " in line
                assert "; 1 truncated; called 'FASTSCP', 4 of 4 " in line
                continue
            told = json.loads(line)
            assert (told["ended"], told["association"]) == (ended, ids[calling])
            assert (told["stored"], told["truncated"], told["level"]) == (1, 1, "warning")
            assert told["unfinished"] + told["unanswered"] == 1
            assert (told["called_ae"], told["peer"]) == ("FASTSCP", name)


def test_an_end_is_told_once_though_the_worker_dies_right_after_it(tmp_path: Path) -> None:
    """Whether the worker's line is written or still on its way: nobody else ended otherwise."""
    with Service(tmp_path, workers=1) as service, contextlib.ExitStack() as closed:
        peers = [closed.enter_context(service.peer(calling=f"CT{n}")) for n in range(30)]
        (pid,) = service.worker_pids()
        for peer in peers:
            peer.send(RELEASE_RQ)
        for peer in peers:
            peer.read_until_close()
        os.kill(pid, signal.SIGKILL)
        service.in_log("worker 0 is up again")
        service.stop()
        lines = service.log().splitlines()
    ends = [line for line in lines if re.search(r" CT\d+@\S+: (released|lost)", line)]
    assert not any("lost with its worker" in line for line in ends)
    names = [line.split(" CT")[1].split("@")[0] for line in ends]
    assert len(set(names)) == len(names)
    hidden = [re.search(r"released without an instance: and (\d+) more", line) for line in lines]
    # Of those that no line names main counts as many as its own twenty leave over.
    assert len(names) + sum(int(found[1]) for found in hidden if found) == 30
    assert any("0 associations lost" in line for line in lines)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a member twice"
    return found


def test_json_lines_are_strict_and_their_fields_are_described(tmp_path: Path) -> None:
    ordinary = {"time", "level", "role", "logger", "message", "traceback"}
    title = b'A"\\\x1b\xff'
    with Service(tmp_path, "--log-format", "json", "-v", workers=1) as service:
        with service.peer((1, CT, ELE), (3, FIND, ELE), calling=title) as peer:
            peer.send(store(1) + store(2, sop="1..2"))
            assert peer.read_statuses(2) == [(1, 0), (2, 0x0117)]
            peer.release()
        with Peer(service.host, service.port) as peer:
            answer = peer.associate(associate_rq(application_context="1.2\n{}"))
            assert answer == reject(1, 1, 2)
        service.stop()
        lines = service.log().splitlines()[1:]
        told = [json.loads(line, object_pairs_hook=_once) for line in lines]
        fields = set().union(*told) - ordinary
        assert fields <= set(FIELDS)
        # Of the association, of an instance, of a rejection, and of the service at its end.
        assert {"association", "peer", "calling_ae", "called_ae", "ended", "rate"} <= fields
        assert {"sop_instance_uid", "status", "reason", "code", "refused_classes"} <= fields
        assert "associations_begun" in fields
        (end,) = (one for one in told if one.get("ended") == "released")
        fact = service.journal()[-1]
        assert (end["association"], end["calling_ae"]) == (fact["association"], fact["calling_ae"])
        assert end["calling_ae"] == 'A"\\%1B%FF'
        refused = [one for one in told if one.get("status") == "0117"]
        assert [(one["sop_instance_uid"], one["level"]) for one in refused] == [("1..2", "warning")]


def test_a_health_check_is_a_line_at_debug_and_a_probe_is_none(tmp_path: Path) -> None:
    with Service(tmp_path, "-v", workers=1) as service:
        with Peer(service.host, service.port):
            pass
        with service.peer((1, "1.2.840.10008.1.1", ELE), calling="PROBE") as peer:
            peer.send(echo(1, context=1))
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        service.stop()
        (line,) = (one for one in service.log().splitlines() if " worker-0: " in one)
        assert " DEBUG worker-0: " in line
        assert "PROBE@" in line

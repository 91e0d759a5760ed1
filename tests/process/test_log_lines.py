"""What the log of the whole service shows: so much of each peer, and nothing of patients."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING

from fastscp_ext import RoleSelection, UserInformation
from tests.kit import CT, ELE, Peer, Service, associate_rq, data_set, pdu, store

if TYPE_CHECKING:
    from pathlib import Path


def test_a_json_log_repeats_where_the_service_listens(tmp_path: Path) -> None:
    with Service(tmp_path, "--log-format", "json") as service:
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


def test_a_long_version_name_is_a_short_line(tmp_path: Path) -> None:
    """60,000 bytes that do not print would be 240,000 characters."""
    with Service(tmp_path, "-vv") as service, Peer(service.host, service.port) as peer:
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
    with Service(tmp_path) as service:
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


def test_associations_that_end_in_order_do_not_flood_the_log(tmp_path: Path) -> None:
    """Those that brought nothing go first; of the others the instances are added up."""
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
        # As many intervals as a slow machine may need for it.
        shown = re.findall(r": released; stored (\d), refused 0,", log)
        assert len(shown) < 160
        hidden = re.findall(r"INFO.* released( without an instance)?: and ([\d,]+) more", log)
        assert len(shown) + sum(int(count) for _kind, count in hidden) == 160
        added = re.findall(r"more from 127.0.0.1 within \d+ s \(stored (\d+), refused 0\)", log)
        assert shown.count("1") + sum(map(int, added)) == 80


# Patients -----------------------------------------------------------------------------------------


def test_no_line_shows_a_path_with_a_patient(tmp_path: Path) -> None:
    layout = "{PatientID}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
    with Service(tmp_path, "-vv", "--layout", layout) as service:
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

"""The test aids of the service: it stores nothing, or fails on purpose, and always says so."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import Peer, Service, abort, associate_rq, data_set, reject, store, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def _status(service: Service) -> dict[str, object]:
    done = subprocess.run(
        [*service.program(), "status", "--store", str(service.store), "--json"],
        env=service.environment(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("more", [(), ("--durability", "buffered", "--compress", "zstd")])
def test_discard_checks_and_keeps_nothing(tmp_path: Path, more: tuple[str, ...]) -> None:
    with Service(tmp_path, "--discard", "--digest", "sha256", *more, workers=1) as service:
        service.in_log("WARNING main: test aid: --discard")
        with service.peer() as peer:
            for number in range(1, 4):
                peer.send(store(message_id=number))
                assert peer.read_response().status == 0
            # UIDs and values are checked as ever.
            peer.send(store(message_id=4, sop="1.2/3"))
            assert peer.read_response().status == 0x0117
            peer.send(store(5, data_set(study="")))
            assert peer.read_response().status == 0xC000
            service.ends_parts()
            peer.release()
        assert service.instances() == []
        assert service.journal() == []
        told = _status(service)
        assert told["aids"] == ["--discard"]
        assert told["stored"] == 3
        assert told["refused"] == 2


def test_a_fault_refuses_each_so_many(tmp_path: Path) -> None:
    with Service(tmp_path, "--fault", "every=3 status=A7AB", workers=1) as service:
        service.in_log("WARNING main: test aid: --fault 'every=3 status=A7AB'")
        with service.peer() as peer:
            statuses = []
            for number in range(1, 7):
                peer.send(store(message_id=number, sop=f"1.2.3.{number}"))
                answer = peer.read_response()
                statuses.append(answer.status)
            peer.release()
        assert statuses == [0, 0, 0xA7AB, 0, 0, 0xA7AB]
        # What was refused is not there, and no line says that it is.
        assert len(service.instances()) == 4
        assert {fact["sop_instance_uid"] for fact in service.journal()} == {
            f"1.2.3.{n}" for n in (1, 2, 4, 5)
        }
        service.ends_parts()
        service.in_log("refused on purpose")
        assert _status(service)["aids"] == ["--fault 'every=3 status=A7AB'"]


def test_a_delay_keeps_responses_back_and_nobody_else(tmp_path: Path) -> None:
    with (
        Service(tmp_path, "--fault", "ae=SLOW delay=30s", workers=1) as service,
        service.peer(calling="SLOW") as slow,
        service.peer(calling="QUICK") as quick,
    ):
        began = time.monotonic()
        slow.send(store(sop="1.2.3.1"))
        # It is kept at once; only the answer waits, and the loop does not.
        wait_for(lambda: len(service.journal()) == 1, "a journal line")
        quick.send(store(sop="1.2.3.2"))
        assert quick.read_response().status == 0
        assert time.monotonic() - began < 30
        quick.release()
        slow.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.socket.recv(1)


def test_a_delay_whose_peer_goes_leaves_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, "--fault", "delay=0.5s", workers=1) as service:
        for number in range(3):
            with service.peer() as peer:
                peer.send(store(sop=f"1.2.3.{number}"))
                wait_for(lambda: len(service.journal()) > number, "a journal line")  # noqa: B023
        with service.peer() as peer:
            began = time.monotonic()
            peer.send(store(sop="1.2.3.9"))
            assert peer.read_response().status == 0
            # The loop's timers count in milliseconds.
            assert time.monotonic() - began > 0.498
            peer.release()
        wait_for(lambda: _status(service)["connections"] == 0, "the end of all connections")


def test_abort_and_close_end_the_association(tmp_path: Path) -> None:
    flags = ("--fault", "ae=A every=2 abort", "--fault", "ae=C close")
    with Service(tmp_path, *flags, workers=1) as service:
        with service.peer(calling="A") as peer:
            peer.send(store(sop="1.2.3.1"))
            assert peer.read_response().status == 0
            peer.send(store(sop="1.2.3.2", message_id=2))
            assert peer.read_until_close() == abort(0, 0)
        with service.peer(calling="C") as peer:
            peer.send(store(sop="1.2.3.3"))
            assert peer.read_until_close(reset=True) == b""
        line = service.in_log("on purpose (--fault 'ae=A every=2 abort')")
        assert "stored 1, refused 0, unfinished 1, " in line
        line = service.in_log("on purpose (--fault 'ae=C close')")
        assert "stored 0, refused 0, unfinished 1, " in line
        assert [fact["sop_instance_uid"] for fact in service.journal()] == ["1.2.3.1"]
        service.ends_parts()
        # The worker has no more of them, and serves on.
        with service.peer() as peer:
            peer.send(store(sop="1.2.3.4"))
            assert peer.read_response().status == 0
            peer.release()


def test_reject_answers_the_request(tmp_path: Path) -> None:
    with Service(tmp_path, "--fault", "reject=1,1,2 ae=XA", workers=1) as service:
        with Peer(service.host, service.port) as peer:
            assert peer.associate(associate_rq(calling="XA")) == reject(1, 1, 2)
        service.in_log("on purpose (--fault 'reject=1,1,2 ae=XA')")
        with service.peer(calling="CT1") as peer:
            peer.send(store())
            assert peer.read_response().status == 0
            peer.release()

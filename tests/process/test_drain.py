"""The end of the service under load: what was acknowledged is there, whenever it comes."""

from __future__ import annotations

import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import (
    Peer,
    Service,
    associate_rq,
    data_set,
    reject,
    split_pdus,
    store,
    wait_for,
)
from tests.process.test_reload import LONG, REDO

if TYPE_CHECKING:
    from pathlib import Path


class Sender(threading.Thread):
    """Associates and stores until the service does not let it any more.

    turned_away: how it learned that: rejected (2,3,1), or nobody was there.
    """

    def __init__(self, service: Service, number: int) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._number = number
        self.stored: list[str] = []
        self.wrong: list[object] = []
        self.turned_away = ""

    def run(self) -> None:
        n = 0
        while not self.turned_away and not self.wrong:
            n += 1
            try:
                with Peer(self._service.host, self._service.port) as peer:
                    self._associate(peer, n)
            except ConnectionError:
                # Between two associations: nobody listens any more.
                self.turned_away = "gone"
            except (OSError, AssertionError) as error:
                self.wrong.append(repr(error))

    def _associate(self, peer: Peer, n: int) -> None:
        answer = peer.associate(associate_rq(calling="CT"))
        if answer is None or answer == reject(2, 3, 1):
            self.turned_away = "rejected" if answer else "gone"
            return
        for part in range(3):
            sop = f"1.2.{self._number}.{n}.{part}"
            peer.send(store(part + 1, data_set(sop=sop), sop=sop))
            # A message begun in time is answered, and with success.
            assert peer.read_statuses(1) == [(part + 1, 0)]
            self.stored.append(sop)
        peer.release()


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=LONG)])
def test_drains_under_load(tmp_path: Path, rounds: int) -> None:
    for n in range(rounds):
        with Service(tmp_path / f"{n}", *REDO) as service:
            senders = [Sender(service, number) for number in range(1, 5)]
            for one in senders:
                one.start()
            wait_for(lambda senders=senders: all(one.stored for one in senders), "traffic")  # type: ignore[misc]
            service.process.send_signal(signal.SIGTERM)
            service.ends(0)
            assert "redo log: on" in service.log()
            for one in senders:
                one.join(60)
                assert (one.wrong, one.turned_away != "") == ([], True)
            facts = {fact["sop_instance_uid"] for fact in service.journal()}
            assert facts == {sop for one in senders for sop in one.stored}


def test_a_message_that_the_kernel_keeps_is_in_hand(tmp_path: Path) -> None:
    """Of a fast sender nothing is read before a data set has begun; what has come counts."""
    service = Service(
        tmp_path, "--durability", "buffered", "--drain-timeout", "0", workers=1
    )  # fmt: skip
    with service, service.peer() as peer:
        peer.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(1, 400):
            for piece in split_pdus(stored(number)):
                peer.send(piece)
                # Long enough for each to be read by itself.
                time.sleep(0.0005)
            assert peer.read_statuses(1) == [(number, 0)]
        command, data = split_pdus(stored(400))
        peer.send(command)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM: " in service.log(), "the end to begin")
        # Whoever has nothing in hand is aborted at once.
        assert not peer.readable(0.2)
        peer.send(data)
        assert peer.read_statuses(1) == [(400, 0)]
        peer.close()
        service.ends(0)


def stored(number: int) -> bytes:
    sop = f"1.2.9.{number}"
    return store(number, data_set(sop=sop, pixels=2000), sop=sop)

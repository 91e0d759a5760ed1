"""Connections on their way to workers: who gets one, and what becomes of one that nobody takes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.main import dispatch as module
from fastscp.main.admission import Admission, Limits
from fastscp.main.dispatch import Dispatch
from fastscp.main.workers import Worker
from fastscp.messages.channel import Channel
from fastscp.messages.worker import Ask, FromWorker, Gone, Offer, Taken, ToWorker, Verdict
from fastscp_ext import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Played:
    """A dispatch with workers of which the test plays the other end."""

    def __init__(self, limits: Limits) -> None:
        self.shared = Shared()
        self.admission = Admission(limits)
        # No cycle from them to this object: the shared block has to go when a test ends.
        later: list[Callable[[], None]] = []
        turned_away: list[None] = []
        self.later, self.turned_away = later, turned_away
        loop: Any = SimpleNamespace(call_later=lambda _seconds, call: later.append(call))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "get_running_loop", lambda: loop)
            self.dispatch = Dispatch(
                self.admission, self.shared, lambda work: turned_away.append(work.close())
            )
        self.ends: list[Channel] = []
        self.peers: list[socket.socket] = []
        self.copies: list[socket.socket] = []

    def worker(self, number: int, *, up: bool = True) -> tuple[Worker, Channel]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ready: Any = None
        worker = Worker(number, f"life-{number}", Channel(ours, FromWorker), ready, 1e18)
        end = Channel(theirs, ToWorker)
        self.ends += [worker.channel, end]
        self.dispatch.joined(worker)
        if up:
            worker.is_ready = True
            self.dispatch.came_up(worker)
        return worker, end

    def connect(self) -> None:
        ours, peer = socket.socketpair()
        self.peers.append(peer)
        self.copies.append(ours)
        self.dispatch.connected(ours, "10.0.0.1", 104)

    def closed(self, peer: int) -> bool:
        """Whether nobody has the other end of a connection any more."""
        self.peers[peer].setblocking(False)
        try:
            return self.peers[peer].recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def played(no_descriptor_left: None) -> Iterator[Played]:
    played = Played(Limits())
    yield played
    played.dispatch.close()
    played.later.clear()
    for end in played.ends:
        end.close()
    for one in played.peers + played.copies:
        one.close()
    # pytest keeps the object for a while, and with it the shared block.
    vars(played).clear()


def numbers(end: Channel) -> list[int]:
    """The connections offered to a worker; it drops their descriptors."""
    found = []
    for message, fd in end.receive():
        assert isinstance(message, Offer)
        assert fd is not None
        os.close(fd)
        found.append(message.number)
    return found


def test_the_least_busy_worker_gets_it(played: Played) -> None:
    _first, one = played.worker(0)
    _second, other = played.worker(1)
    for _ in range(4):
        played.connect()
    assert (numbers(one), numbers(other)) == ([1, 3], [2, 4])


def test_main_keeps_its_copy_until_it_is_taken(played: Played) -> None:
    worker, end = played.worker(0)
    played.connect()
    assert numbers(end) == [1]
    assert not played.closed(0)
    played.dispatch.heard(worker, Taken(1))
    assert played.closed(0)


def test_what_a_worker_asks_and_tells(played: Played) -> None:
    worker, end = played.worker(0)
    played.connect()
    numbers(end)
    played.dispatch.heard(worker, Ask(1, "CT", "US"))
    assert [message for message, _fd in end.receive()] == [Verdict(1)]
    assert played.admission.admitted == 1
    played.dispatch.heard(worker, Gone(1))
    assert (played.admission.admitted, played.admission.connections) == (0, 0)
    played.dispatch.heard(worker, Taken(1))


def test_it_waits_for_a_worker_to_be_there(played: Played) -> None:
    worker, end = played.worker(0, up=False)
    played.connect()
    assert numbers(end) == []
    worker.is_ready = True
    played.dispatch.came_up(worker)
    assert len(numbers(end)) == 1


def test_so_many_wait_and_none_while_shutting_down(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WAITING_MOST", 1)
    played.connect()
    played.connect()
    assert [played.closed(0), played.closed(1)] == [False, True]
    assert "10.0.0.1:104: no worker takes the connection; closed" in caplog.text
    played.dispatch.close()
    played.admission.draining = "shutting down"
    played.dispatch._hand_over_waiting()
    assert played.closed(0)


def test_a_dead_worker_loses_what_it_has_not_taken(played: Played) -> None:
    first, one = played.worker(0)
    played.connect()
    played.dispatch.heard(first, Taken(1))
    played.dispatch.heard(first, Ask(1, "CT", "US"))
    played.connect()
    _second, other = played.worker(1)
    assert played.dispatch.left(first) == 1
    assert numbers(other) == [3]
    assert not played.shared.claims.claim(2)
    assert (played.admission.load(0), played.admission.load(1)) == (0, 1)
    # Its place is free for another life.
    played.worker(0)
    assert played.dispatch.left(first) == 0
    played.connect()
    assert one.closed is False


def test_what_a_silent_worker_leaves_lying_goes_on(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _first, one = played.worker(0)
    played.connect()
    played.connect()
    assert played.shared.claims.claim(1)
    _second, other = played.worker(1)
    played.dispatch.start()
    later = time.monotonic() + 3.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    played.later.pop()()
    # The first was claimed, which main did not hear yet; the second was not.
    assert numbers(one) == [1, 2]
    assert numbers(other) == [3]
    assert "worker 0 is silent; 10.0.0.1:104 goes on" in caplog.text
    assert len(played.later) == 1


def test_all_wait_for_the_disk(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    _worker, end = played.worker(0)
    liveness = SimpleNamespace(disk_since=lambda _number: 1)
    blocked: Any = SimpleNamespace(liveness=liveness)
    monkeypatch.setattr(played.dispatch, "_shared", blocked)
    played.connect()
    assert (len(played.turned_away), numbers(end)) == (1, [])

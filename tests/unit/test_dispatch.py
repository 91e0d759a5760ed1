"""Connections on their way to workers: who gets one, and what becomes of one that nobody takes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import socket
import ssl
import struct
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.association.account import Ending, Terms
from fastscp.main import dispatch as module
from fastscp.main.admission import Admission, Limits
from fastscp.main.dispatch import Dispatch
from fastscp.main.members import Worker
from fastscp.messages.channel import Channel
from fastscp.messages.worker import (
    Abandon,
    Ask,
    Displace,
    Displaced,
    End,
    FromWorker,
    Gone,
    Idle,
    Leaving,
    Offer,
    Over,
    Relayed,
    SeekIdle,
    Taken,
    ToWorker,
    Unshaken,
    Verdict,
)
from fastscp_ext import Shared
from tests.block import end_flush, put_in_flight, put_large, regions
from tests.books import limit
from tests.kit import associate_rq, reject
from tests.streams.proxied import SOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


class PlayedTask:
    """A task that never gets its turn."""

    def __init__(self, work: Coroutine[object, object, None]) -> None:
        work.close()
        self.done: Callable[[Any], object] = print
        self.is_cancelled = False

    def add_done_callback(self, done: Callable[[Any], object]) -> None:
        self.done = done

    def cancel(self) -> None:
        self.is_cancelled = True
        self.done(self)

    def cancelled(self) -> bool:
        return self.is_cancelled


class Played:
    """A dispatch with workers of which the test plays the other end."""

    def __init__(self, limits: Limits) -> None:
        self.shared = Shared()
        self.admission = Admission(limits)
        limit(self.admission, limits.associations, limits.pending)
        self.later: list[Callable[[], None]] = []
        self.turned_away: list[PlayedTask] = []
        loop: Any = SimpleNamespace(call_later=self._call_later, create_task=self._create_task)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "get_running_loop", lambda: loop)
            self.dispatch = Dispatch(self.admission, self.shared, "run")
        self.ends: list[Channel] = []
        self.peers: list[socket.socket] = []
        self.copies: list[socket.socket] = []

    def _call_later(self, _seconds: float, call: Callable[..., None], *arguments: object) -> None:
        self.later.append(lambda: call(*arguments))

    def _create_task(self, work: Coroutine[object, object, None]) -> PlayedTask:
        self.turned_away.append(PlayedTask(work))
        return self.turned_away[-1]

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

    def connect(self, host: str = "10.0.0.1") -> None:
        ours, peer = socket.socketpair()
        self.peers.append(peer)
        self.copies.append(ours)
        self.dispatch.connected(ours, host, 104)

    def closed(self, peer: int) -> bool:
        """Whether nobody has the other end of a connection any more."""
        self.peers[peer].setblocking(False)
        try:
            return self.peers[peer].recv(1) == b""
        except BlockingIOError:
            return False


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
    gc.collect()


def offers(end: Channel) -> list[Offer]:
    """The connections offered to a worker; it drops their descriptors."""
    found = []
    for message, fd in end.receive(10_000):
        assert isinstance(message, Offer)
        assert fd is not None
        os.close(fd)
        found.append(message)
    return found


def numbers(end: Channel) -> list[int]:
    return [offer.number for offer in offers(end)]


def test_the_least_busy_worker_gets_it(played: Played) -> None:
    _first, one = played.worker(0)
    _second, other = played.worker(1)
    for _ in range(4):
        played.connect()
    assert (numbers(one), numbers(other)) == ([1, 3], [2, 4])


def test_newcomers_stay_away_from_a_large_data_set(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    _first, one = played.worker(0)
    _second, other = played.worker(1)
    now = time.monotonic()
    put_large(played.shared, 0, int(now * 1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 0.9))
    for _ in range(module._LARGE_LOAD):
        played.connect()
    assert (numbers(one), numbers(other)) == ([], [1, 2, 3, 4, 5, 6, 7, 8])
    # They prefer, and do not crowd.
    for _ in range(4):
        played.connect()
    assert (numbers(one), numbers(other)) == ([9, 11], [10, 12])
    # It was through a second ago.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 1.1))
    for _ in range(4):
        played.connect()
    assert numbers(one) == [13, 14, 15, 16]


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
    monkeypatch.setattr(module, "WAITING_MOST", 2)
    played.connect()
    assert played.dispatch.has_room
    played.connect()
    # Nobody is closed for that: who accepts leaves the next ones to the kernel.
    assert [played.dispatch.has_room] == [False]
    assert [played.closed(0), played.closed(1), len(played.turned_away)] == [False, False, 0]
    played.admission.draining = "shutting down"
    played.dispatch._hand_over_waiting()
    assert len(played.turned_away) == 2
    assert played.dispatch.has_room
    assert "10.0.0.1:104: rejected (2,3,1): shutting down" in caplog.text
    played.dispatch.close()
    assert [played.closed(0), played.closed(1)] == [True, True]


def test_nobody_waits_for_ever(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not while there is no worker, and not while the only one is silent."""
    _worker, end = played.worker(0, up=False)
    played.connect()
    played.dispatch.start()
    now = time.monotonic()
    for past, away in ((4.0, 0), (6.0, 1)):
        later = SimpleNamespace(monotonic=lambda past=past: now + past)
        monkeypatch.setattr(module, "time", later)
        played.later.pop()()
        assert len(played.turned_away) == away
    assert numbers(end) == []
    assert "10.0.0.1:104: rejected (2,3,1): no worker takes the connection" in caplog.text


def test_a_dead_worker_loses_what_it_has_not_taken(played: Played) -> None:
    first, one = played.worker(0)
    played.connect()
    played.dispatch.heard(first, Taken(1))
    played.dispatch.heard(first, Ask(1, "CT", "US"))
    played.connect()
    _second, other = played.worker(1)
    assert played.dispatch.left(first) == 1
    assert numbers(other) == [3]
    assert not any(played.shared.claims.claim(slot, 2) for slot in range(module.OFFERED_MOST))
    assert (played.admission.load(0), played.admission.load(1)) == (0, 1)
    # Its place is free for another life.
    third, end = played.worker(0)
    played.connect()
    (offer,) = offers(end)
    # Whatever is told of the old life, late or twice, says nothing of the new one.
    played.dispatch.heard(first, Taken(offer.number))
    assert not played.closed(len(played.peers) - 1)
    played.dispatch.heard(third, Taken(offer.number))
    played.dispatch.heard(third, Ask(offer.number, "CT", "US"))
    assert played.dispatch.left(first) == 0
    assert (played.admission.admitted, played.admission.load(0)) == (1, 1)
    assert one.closed is False


def _end(shared: Shared, slot: int, ending: Ending) -> None:
    """Note how the association in a slot ended, as its worker does."""
    at = regions(shared.fd)["tallies"][0] + (slot * 16 + 15) * 8
    os.pwrite(shared.fd, struct.pack("=Q", ending.number), at)


def test_main_tells_of_associations_whose_worker_died(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: not of those that their worker has told of, nor of those that were none."""
    played.admission._tallies = played.shared.tallies
    worker, end = played.worker(0)
    for n in range(5):
        played.connect(f"10.0.0.{n}")
    for offer in offers(end):
        played.dispatch.heard(worker, Taken(offer.number))
        if offer.number < 5:
            played.dispatch.heard(worker, Ask(offer.number, "CT", "ROUTER", Terms(1, 2)))
    played.dispatch.heard(worker, Over(2))
    _end(played.shared, 2, Ending("released"))
    played.shared.tallies.tell(2, True)
    caplog.clear()
    assert played.dispatch.left(worker) == 2
    told = [one.getMessage().partition("; ")[0] for one in caplog.records]
    assert told == [
        f"run.{n} CT@10.0.0.{n - 1}:104: lost with its worker: worker 0 ended" for n in (1, 4)
    ]
    assert "called 'ROUTER', 1 of 2 presentation contexts" in caplog.text
    assert {one.levelno for one in caplog.records} == {logging.WARNING}


def test_main_tells_of_ends_that_their_worker_could_not_write(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    """How they ended its worker has noted: none of them is lost."""
    caplog.set_level(logging.INFO)
    played.admission._tallies = played.shared.tallies
    worker, end = played.worker(0)
    for _ in range(4):
        played.connect("2001:db8::1")
    for offer in offers(end):
        played.dispatch.heard(worker, Taken(offer.number))
        played.dispatch.heard(worker, Ask(offer.number, "CT", "ROUTER", Terms(1, 2)))
    # Its connection is still there, its place is another's, it is gone, and only counted.
    for slot in range(4):
        _end(played.shared, slot, Ending("released"))
    _end(played.shared, 1, Ending("aborted", "2,6"))
    played.dispatch.heard(worker, Over(2))
    played.dispatch.heard(worker, Gone(3))
    played.shared.tallies.tell(3, False)
    caplog.clear()
    assert played.dispatch.left(worker) == 0
    why = "told by main, for worker 0 ended before it could"
    told = sorted(one.getMessage().partition("; ")[0] for one in caplog.records)
    assert told == [
        f"run.{n} CT@[2001:db8::1]:104: {how}: {why}"
        for n, how in enumerate(["released", "aborted (2,6)", "released", "released"], 1)
    ]
    # They brought nothing, and are as many as a peer likes.
    assert all(vars(one)["caused"].host == "2001:db8::1" for one in caplog.records)
    assert {one.levelno for one in caplog.records} == {logging.INFO}


def test_of_one_without_a_slot_nothing_is_made_up(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    worker, end = played.worker(0)
    for _ in range(2):
        played.connect("10.0.0.1")
    for offer in offers(end):
        played.dispatch.heard(worker, Taken(offer.number))
        played.dispatch.heard(worker, Ask(offer.number, "CT", "ROUTER", Terms(1, 2)))
    played.dispatch.heard(worker, Over(2))
    caplog.clear()
    assert played.dispatch.left(worker) == 1
    (line,) = caplog.records
    assert line.getMessage() == (
        "run.1 CT@10.0.0.1:104: lost with its worker: worker 0 ended; what it did is not known"
    )
    assert "stored" not in vars(line)["fields"]


def test_rejections_are_counted(played: Played) -> None:
    worker, end = played.worker(0)
    played.connect()
    offers(end)
    played.dispatch.heard(worker, Taken(1))
    # As it is sent: the peer may not hang up, and the worker may die.
    played.dispatch.heard(worker, Over(1, "2,3,1"))
    assert played.dispatch.rejected == 1
    played.dispatch.heard(worker, Gone(1))
    played.dispatch.heard(worker, Gone(2))
    assert played.dispatch.rejected == 1


def test_a_worker_that_leaves_gets_no_more(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    first, one = played.worker(0)
    for _ in range(2):
        played.connect()
    claimed, unclaimed = offers(one)
    assert played.shared.claims.claim(claimed.slot, claimed.number)
    played.dispatch.heard(first, Taken(claimed.number))
    _second, other = played.worker(1)
    played.dispatch.heard(first, Leaving())
    # At once, and as if it had never been offered.
    assert numbers(other) == [3]
    assert not played.shared.claims.claim(unclaimed.slot, unclaimed.number)
    assert (played.admission.load(0), played.admission.load(1)) == (1, 1)
    assert len(played.dispatch._free_slots) == module.OFFERED_MOST - 1
    for _ in range(4):
        played.connect()
    assert (numbers(one), len(numbers(other))) == ([], 4)
    # What it has goes on: its request is decided.
    played.dispatch.heard(first, Ask(claimed.number, "CT", "US"))
    assert played.admission.admitted == 1
    assert "silent" not in caplog.text


def test_a_connection_waits_for_the_successor_of_the_only_worker(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, one = played.worker(0)
    # One of another life says nothing of this one.
    stranger, _end = played.worker(5)
    played.dispatch.left(stranger)
    played.dispatch.heard(stranger, Leaving())
    played.connect()
    assert len(numbers(one)) == 1
    played.dispatch.heard(first, Leaving())
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 15))
    played.dispatch._hand_over_waiting()
    assert (len(played.dispatch._waiting), len(played.turned_away)) == (1, 0)
    played.dispatch.left(first)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 19))
    successor, end = played.worker(0, up=False)
    played.dispatch._hand_over_waiting()
    assert not played.turned_away
    successor.is_ready = True
    played.dispatch.came_up(successor)
    assert len(numbers(end)) == 1


def test_a_drain_that_takes_long_keeps_nobody_waiting(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _end = played.worker(0)
    played.dispatch.heard(first, Leaving())
    played.connect()
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 21))
    played.dispatch._hand_over_waiting()
    assert (len(played.dispatch._waiting), len(played.turned_away)) == (0, 1)


def test_nobody_waits_for_a_successor_that_does_not_come(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _one = played.worker(0)
    played.dispatch.heard(first, Leaving())
    played.connect()
    played.dispatch.left(first)
    assert not played.turned_away
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 6))
    played.dispatch._hand_over_waiting()
    assert len(played.turned_away) == 1


def test_what_a_silent_worker_leaves_lying_goes_on(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _first, one = played.worker(0)
    played.connect()
    played.connect()
    first, second = offers(one)
    assert played.shared.claims.claim(first.slot, 1)
    second_worker, other = played.worker(1)
    played.dispatch.start()
    later = time.monotonic() + 3.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    played.later.pop()()
    # The first was claimed, which main did not hear yet; the second was not.
    (third,) = offers(other)
    assert [first.number, second.number, third.number] == [1, 2, 3]
    # The silent one wakes up: it is too late, though the slot is another's now.
    played.connect()
    assert not played.shared.claims.claim(second.slot, second.number)
    assert played.shared.claims.claim(third.slot, third.number)
    assert len(played.later) == 1
    # Not before it does.
    assert caplog.text == ""
    played.dispatch.heard(second_worker, Taken(third.number))
    assert "worker 0 is silent; 10.0.0.1:104 goes on in worker 1" in caplog.text


@pytest.mark.parametrize("draining", [False, True])
def test_what_nobody_takes_does_not_go_on(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    draining: bool,
) -> None:  # fmt: skip
    worker, one = played.worker(0)
    played.connect()
    played.connect()
    assert numbers(one) == [1, 2]
    played.dispatch.start()
    later = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    if draining:
        played.admission.draining = "shutting down"
        worker.is_ready = False
    for _ in range(3):
        later += 3.0
        played.later.pop()()
    assert played.dispatch.rejected == 2
    assert "goes on" not in caplog.text
    assert caplog.text.count("rejected (2,3,1)") == 2


def test_who_takes_one_while_draining_is_not_told_of(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker, one = played.worker(0)
    played.connect()
    played.dispatch.start()
    later = time.monotonic() + 3.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    played.later.pop()()
    assert numbers(one) == [1, 2]
    played.admission.draining = "shutting down"
    played.dispatch.heard(worker, Taken(2))
    assert "goes on" not in caplog.text


def test_all_wait_for_the_disk(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    _worker, end = played.worker(0)
    liveness = SimpleNamespace(disk_since=lambda _number: 1)
    blocked: Any = SimpleNamespace(liveness=liveness)
    monkeypatch.setattr(played.dispatch, "_shared", blocked)
    played.connect()
    assert (len(played.turned_away), numbers(end)) == (1, [])


def test_commits_that_get_nowhere_wait_for_the_disk(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    """A flush that hangs holds up no loop: only what is not flushed tells of it."""
    worker, end = played.worker(0)
    worker.started = time.monotonic() + 1000

    def look(times: int) -> None:
        for _ in range(times):
            played.dispatch._watch()
            played.later.pop()

    put_in_flight(played.shared, 0, 1000)
    looks = int(module._STUCK_S / module._LOAD_EVERY_S)
    look(looks)
    assert played.dispatch.takers == (1, 1, 1)
    # A flush that ends, if only now and then, is none that hangs; nor is one of very many bytes.
    for _ in range(3):
        end_flush(played.shared, 0)
        look(looks)
        assert played.dispatch.takers == (1, 1, 1)
    put_in_flight(played.shared, 0, 10 * module._STUCK_RATE)
    look(5)
    assert played.dispatch.takers == (1, 1, 1)
    assert caplog.text == ""
    put_in_flight(played.shared, 0, 1000)
    before = played.dispatch.blocked_s
    look(5)
    assert played.dispatch.takers == (1, 1, 0)
    assert played.dispatch.blocked_s > before
    assert caplog.text.count("worker 0 has not flushed anything for 1") == 1
    played.connect()
    assert (len(played.turned_away), numbers(end)) == (1, [])
    # It goes on by itself.
    end_flush(played.shared, 0)
    look(1)
    assert played.dispatch.takers == (1, 1, 1)
    assert caplog.text.count("worker 0 flushes again") == 1
    # And where nothing waits nothing hangs.
    look(looks + 5)
    assert played.dispatch.takers == (1, 1, 0)
    put_in_flight(played.shared, 0, 0)
    look(1)
    assert played.dispatch.takers == (1, 1, 1)
    # A loop that stands still is another trouble.
    put_in_flight(played.shared, 0, 1000)
    worker.started = 0.0
    look(looks + 5)
    assert played.dispatch.takers == (1, 0, 0)


def test_who_is_killed_over_a_flush_that_hangs_does_not_flush_again(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    """The system does not end a process inside of such a call: it is only silent until then."""
    worker, _end = played.worker(0)
    looks = int((module._STUCK_S + 1) / module._LOAD_EVERY_S) + 1

    def look(times: int, *, is_silent: bool) -> None:
        worker.started = 0.0 if is_silent else time.monotonic() + 1000
        for _ in range(times):
            played.dispatch._watch()
            played.later.pop()

    put_in_flight(played.shared, 0, 1000)
    look(looks, is_silent=False)
    assert played.dispatch.takers == (1, 1, 0)
    told = "worker 0 has not flushed anything for "
    look(5, is_silent=True)
    assert (caplog.text.count(told), "flushes again" in caplog.text) == (1, False)
    # One that was only stopped is told once, and goes on.
    look(looks, is_silent=False)
    assert played.dispatch.takers == (1, 1, 0)
    assert (caplog.text.count(told), "flushes again" in caplog.text) == (1, False)
    look(1, is_silent=True)
    end_flush(played.shared, 0)
    look(1, is_silent=False)
    assert caplog.text.count("worker 0 flushes again") == 1
    look(looks, is_silent=False)
    look(5, is_silent=True)
    played.shared.liveness.end_batches(0)
    played.dispatch.left(worker)
    played.worker(0)
    look(5, is_silent=False)
    assert (caplog.text.count(told), caplog.text.count("flushes again")) == (2, 1)


def test_how_many_take_connections(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    assert played.dispatch.takers == (0, 0, 0)
    first, _end = played.worker(0)
    played.worker(1)
    played.worker(2, up=False)
    assert played.dispatch.takers == (2, 2, 2)
    liveness = SimpleNamespace(disk_since=lambda number: number, alive_ms=lambda _number: 0)
    blocked: Any = SimpleNamespace(liveness=liveness)
    monkeypatch.setattr(played.dispatch, "_shared", blocked)
    assert played.dispatch.takers == (2, 2, 1)
    played.dispatch.heard(first, Leaving())
    assert played.dispatch.takers == (1, 1, 0)


def test_who_stands_still_takes_none(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for the disk stands still, too, and is told as that."""
    for number in range(3):
        worker, _end = played.worker(number)
        worker.started = time.monotonic()
    now = int(time.monotonic() * 1000)
    played.shared.liveness.heartbeat(1, now + 3000)
    later = time.monotonic() + 3.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    assert played.dispatch.takers == (3, 1, 1)
    monkeypatch.setattr(played.dispatch, "_is_blocked", lambda target: target.worker.number == 2)
    assert played.dispatch.takers == (3, 2, 1)


def test_what_an_operator_ends(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker, end = played.worker(0)
    for _ in range(3):
        played.connect()
    first, _second, third = offers(end)
    # The worker has taken it, and says so; has taken it, which main did not hear; has not.
    played.dispatch.heard(worker, Taken(1))
    assert played.shared.claims.claim(third.slot, 3)
    for number in (1, 2, 3, 77):
        played.dispatch.end(number, "by the operator")
    assert [message for message, _fd in end.receive()] == [
        End(1, "by the operator"), End(3, "by the operator"),
    ]  # fmt: skip
    assert [played.admission.booked(number) is None for number in (1, 2, 3)] == [False, True, False]
    assert [played.closed(n) for n in range(3)] == [True, True, False]
    assert first.slot in played.dispatch._free_slots
    assert "run.2 10.0.0.1:104: by the operator" in caplog.text


def test_nobody_waits_for_a_worker_while_paused(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    played.admission.paused = "paused by the operator"
    played.connect()
    assert len(played.turned_away) == 1
    assert "10.0.0.1:104: rejected (2,3,1): paused by the operator" in caplog.text


def test_those_turned_away_are_bounded(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURNED_AWAY_MOST", 3)
    played.worker(0)
    liveness = SimpleNamespace(disk_since=lambda _number: 1)
    blocked: Any = SimpleNamespace(liveness=liveness)
    monkeypatch.setattr(played.dispatch, "_shared", blocked)
    for _ in range(5):
        played.connect()
    # The oldest go, and are closed though their tasks never began.
    assert [task.is_cancelled for task in played.turned_away] == [True, True, False, False, False]
    assert [played.closed(n) for n in range(5)] == [True, True, False, False, False]
    played.dispatch.close()
    assert all(played.closed(n) for n in range(5))


def test_how_one_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOBODY_S", -1.0)
    rq = associate_rq()

    async def run(pieces: list[bytes]) -> bytes:
        loop = asyncio.get_running_loop()
        dispatch = Dispatch(Admission(Limits()), Shared(), "run")
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        with peer:
            dispatch.connected(ours, "10.0.0.1", 104)
            for piece in pieces:
                await loop.sock_sendall(peer, piece)
                await asyncio.sleep(0)
            answer = b""
            while data := await loop.sock_recv(peer, 4096):
                answer += data
            peer.shutdown(socket.SHUT_WR)
            await asyncio.gather(*dispatch._turned_away)
        return answer

    every = [rq] + [header + rq for header, _told in SOUND.values()]
    for sent in every:
        assert asyncio.run(run([sent])) == reject(2, 3, 1)
    for pieces in ([sent[n : n + 1] for n in range(len(sent))] for sent in every[:3]):
        assert asyncio.run(run(pieces)) == reject(2, 3, 1)
    gc.collect()


def test_how_one_with_tls_is_turned_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In an alert that its handshake ends with, which says that it is about us."""
    monkeypatch.setattr(module, "_NOBODY_S", -1.0)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        dispatch = Dispatch(Admission(Limits()), Shared(), "run")
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="a")
        with peer:
            dispatch.connected(ours, "10.0.0.1", 104, tls=True)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            await loop.sock_sendall(peer, outgoing.read())
            while data := await loop.sock_recv(peer, 4096):
                incoming.write(data)
            peer.shutdown(socket.SHUT_WR)
            await asyncio.gather(*dispatch._turned_away)
        assert (dispatch.handshakes_failed["turned_away"], dispatch.rejected) == (1, 0)
        with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_INTERNAL_ERROR"):
            client.do_handshake()

    asyncio.run(run())
    # What was sent, which is no A-ASSOCIATE-RJ.
    (line,) = caplog.messages
    assert line == (
        "10.0.0.1:104: turned away before its TLS handshake (alert: internal_error): no worker "
        "takes the connection"
    )
    gc.collect()


def test_handshakes_that_fail_are_counted(played: Played) -> None:
    worker, _end = played.worker(0)
    played.dispatch.heard(worker, Unshaken(1, "revoked"))
    counted = played.dispatch.handshakes_failed
    assert (counted["revoked"], sum(counted.values())) == (1, 1)


def test_a_worker_hears_to_which_port_one_came(played: Played) -> None:
    _worker, end = played.worker(0)
    for tls in (False, True):
        ours, peer = socket.socketpair()
        played.peers.append(peer)
        played.copies.append(ours)
        played.dispatch.connected(ours, "10.0.0.1", 104, tls=tls)
    assert [offer.tls for offer in offers(end)] == [False, True]


def test_no_offer_takes_anothers_place(played: Played) -> None:
    """However many come while a worker takes none: each that it takes in the end is its own."""
    _worker, end = played.worker(0)
    most = module.OFFERED_MOST
    assert most <= played.shared.claims.slots
    played.dispatch._free_slots = [0, 1, 2]
    for _ in range(10):
        played.connect()
    first = offers(end)
    assert [offer.number for offer in first] == [1, 2, 3]
    assert len({offer.slot for offer in first}) == 3
    # Those that find no slot wait, and go on in order as soon as there is one.
    for offer in first:
        assert played.shared.claims.claim(offer.slot, offer.number)
        played.dispatch.heard(_worker, Taken(offer.number))
        played.dispatch.heard(_worker, Taken(offer.number))
    second = offers(end)
    assert len(second) == 3
    assert all(played.shared.claims.claim(offer.slot, offer.number) for offer in second)
    assert len(played.dispatch._waiting) == 4


def test_a_channel_that_is_full(played: Played) -> None:
    worker, end = played.worker(0)
    while worker.channel._try(b"x" * 4096):
        pass
    for _ in range(3):
        played.connect()
    assert (len(played.dispatch._waiting), played.admission.connections) == (3, 0)
    assert len(played.dispatch._free_slots) == module.OFFERED_MOST
    with contextlib.suppress(BlockingIOError):
        while end._sock.recv(65536):
            pass
    played.dispatch._hand_over_waiting()
    assert len(numbers(end)) == 3
    assert not played.dispatch._waiting


@pytest.mark.parametrize("seed", range(4))
def test_counts_stay_exact_whatever_is_told(played: Played, seed: int) -> None:
    """Random events, messages twice, late and for what is gone; lives that end with all they had.

    The workers are played: each knows what it has taken, and main's books have to say the same.
    """
    random_ = random.Random(seed)
    limit(played.admission, 6, 8, max_associations_per_ae=5)
    workers = {n: played.worker(n) for n in range(3)}
    taken: dict[int, dict[int, str]] = {n: {} for n in workers}  # number: host
    inside: dict[int, dict[int, str]] = {n: {} for n in workers}  # number: title
    asked: dict[int, str] = {}
    answered: set[int] = set()
    asleep: set[int] = set()
    said: list[tuple[Worker, object]] = []

    def tell(n: int, message: object) -> None:
        said.append((workers[n][0], message))
        played.dispatch.heard(workers[n][0], message)

    def close(n: int, number: int) -> None:
        taken[n].pop(number)
        inside[n].pop(number, None)
        tell(n, Gone(number))

    def listen(n: int) -> None:
        for message, fd in list(workers[n][1].receive(10_000)):
            match message:
                case Offer():
                    assert fd is not None
                    os.close(fd)
                    if played.shared.claims.claim(message.slot, message.number):
                        taken[n][message.number] = message.host
                        tell(n, Taken(message.number))
                        if random_.random() < 0.3:
                            # A proxy says so.
                            host = f"10.0.0.{random_.choice([1, 1, 2, 3])}"
                            taken[n][message.number] = host
                            tell(n, Relayed(message.number, host, 104))
                case Verdict():
                    answered.add(message.number)
                    if message.number in taken[n] and not message.result:
                        assert message.number not in inside[n]
                        inside[n][message.number] = asked[message.number]
                case Abandon() if message.number in taken[n]:
                    if message.number not in asked or random_.random() < 0.5:
                        close(n, message.number)
                case SeekIdle():
                    idle = [m for m in inside[n] if taken[n][m] == message.host]
                    if random_.random() < 0.8:
                        number = random_.choice(idle) if idle else 0
                        tell(n, Idle(message.newcomer, number, random_.random()))
                case Displace():
                    done = message.number in inside[n] and random_.random() < 0.7
                    if done:
                        del inside[n][message.number]
                    tell(n, Displaced(message.number, message.newcomer, done))

    def settle() -> None:
        for _ in range(20):
            for n in workers.keys() - asleep:
                listen(n)

    for _ in range(600):
        n = random_.randrange(3)
        mine = list(taken[n])
        if random_.random() < 0.1:
            asleep ^= {n}
        match random_.randrange(9):
            case 0 | 1 | 2:
                played.connect(f"10.0.0.{random_.choice([1, 1, 1, 1, 2, 3])}")
            case 3 | 4 if mine:
                number = random_.choice(mine)
                if number not in asked:
                    asked[number] = f"AE{random_.randrange(3)}"
                    tell(n, Ask(number, asked[number], "X"))
            case 5 if mine:
                close(n, random_.choice(mine))
            case 6 if said:
                # Again, or of a life that is over.
                worker, message = random_.choice(said)
                if not isinstance(message, Ask | Displaced):
                    live = isinstance(message, Gone | Taken) or worker is workers[worker.number][0]
                    if live:
                        played.dispatch.heard(worker, message)
            case 7 if played.later:
                played.later.pop(random_.randrange(len(played.later)))()
            case 8 if random_.random() < 0.3:
                played.dispatch.left(workers[n][0])
                workers[n][0].channel.close()
                taken[n], inside[n] = {}, {}
                workers[n] = played.worker(n)
        settle()
        hosts: dict[str, int] = {}
        titles: dict[str, int] = {}
        for worker_, numbers_ in inside.items():
            for number, title in numbers_.items():
                host = taken[worker_][number]
                hosts[host] = hosts.get(host, 0) + 1
                titles[title] = titles.get(title, 0) + 1
        books = played.admission
        assert (
            books.admitted == sum(books._by_host.values()) == sum(books._by_table_ae.values()) <= 6
        )
        assert all(books._by_host[host] >= count for host, count in hosts.items())
        if not asleep:
            # Who is asleep has not heard yet of some whom main has admitted.
            assert dict(books._by_host) == hosts
            assert {title: n for (_, title), n in books._by_table_ae.items()} == titles
        offered = {n: played.dispatch._targets[n].offered for n in workers}
        assert {n: books.load(n) for n in workers} == {
            n: len(taken[n].keys() | offered[n].keys()) for n in workers
        }
        free = len(played.dispatch._free_slots)
        assert free + sum(map(len, offered.values())) == module.OFFERED_MOST
        # Nobody waits for a place that is there.
        assert not played.dispatch._places._waiting or books.admitted == 6
        if not asleep:
            assert free == module.OFFERED_MOST
    asleep.clear()
    settle()
    while played.later:
        played.later.pop(0)()
        settle()
    # Whoever asked and is still there was answered.
    assert not {number for numbers_ in taken.values() for number in numbers_} & (
        asked.keys() - answered
    )
    for n, numbers_ in taken.items():
        for number in list(numbers_):
            close(n, number)
        settle()
    assert played.admission.connections == 0
    assert not played.admission._pending_by_host


@pytest.mark.parametrize("how", ["displaced", "over", "gone"])
def test_a_newcomer_when_all_places_are_taken(played: Played, how: str) -> None:
    played.admission._limits = Limits(2)
    worker, end = played.worker(0)
    for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        played.connect(host)
    for number in numbers(end):
        played.dispatch.heard(worker, Taken(number))
        played.dispatch.heard(worker, Ask(number, "CT", "US"))
    told = [Verdict(1), Verdict(2), SeekIdle(3, "10.0.0.1")]
    assert [message for message, _fd in end.receive()] == told
    if how == "gone":
        played.dispatch.heard(worker, Gone(1))
    elif how == "over":
        # Its peer need not have hung up.
        played.dispatch.heard(worker, Over(1))
        played.dispatch.heard(worker, Over(1))
    else:
        played.dispatch.heard(worker, Idle(3, 1, 5.0))
        told = [Displace(1, 3, "run.3 CT@10.0.0.2")]
        assert [message for message, _fd in end.receive()] == told
        played.dispatch.heard(worker, Displaced(1, 3, done=True))
    assert [message for message, _fd in end.receive()] == [Verdict(3)]
    assert played.admission.admitted == 2

"""A worker's side of what main tells it about connections; the test plays main and the peers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from setproctitle import getproctitle, setproctitle

from fastscp.association.account import Ending, Terms
from fastscp.config.settings import ServeConfig
from fastscp.messages.channel import Channel
from fastscp.messages.worker import (
    Abandon,
    Ask,
    Displace,
    Displaced,
    Drain,
    End,
    FromWorker,
    Gone,
    Holds,
    Idle,
    Leaving,
    Offer,
    Over,
    Ready,
    Retire,
    SeekIdle,
    Setup,
    Stop,
    Taken,
    ToWorker,
    Verdict,
)
from fastscp.store.lives import remove_life
from fastscp.store.store import Store
from fastscp.worker import association, establish, process, requested
from fastscp.worker.process import Worker
from fastscp.worker.rules import Going
from fastscp_ext import Receiver, Shared
from tests.books import configuration
from tests.kit import DEADLINE_S, abort, associate_rq, echo, reject, split_pdus, store
from tests.stores import filed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

CLIENT, NEWCOMER = "10.0.0.1", "run.9 NEW@10.0.0.2"
# What the kit's request gets.
TERMS = Terms(4, 4, 1, 16384, "KIT")


class Played:
    """A worker on this process's loop, with main's end of its channel."""

    def __init__(self, store_: Store) -> None:
        self.shared = Shared()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.main = Channel(ours, FromWorker)
        setup = Setup(
            worker=0, life="run-w0-1", run="run",
            use_link=not store_.facts.noreplace, suspect=False,
        )  # fmt: skip
        self.worker = Worker(
            setup, configuration(), Channel(theirs, ToWorker), store_.dir_fd, self.shared
        )
        self.heard: list[Any] = []
        self.peers: list[socket.socket] = []

    def offer(self, number: int, *, host: str = CLIENT, tls: bool = False) -> socket.socket:
        """Offer a connection; returns the peer's end."""
        listening = socket.create_server(("127.0.0.1", 0))
        with listening:
            peer = socket.create_connection(listening.getsockname())
            sock, _address = listening.accept()
        with sock:
            self.shared.claims.offer(number, number)
            assert self.main.offer(Offer(number, number, host, 104, tls), sock.fileno())
        peer.setblocking(False)
        self.peers.append(peer)
        return peer

    async def until(self, kind: type[Any], count: int = 1) -> list[Any]:
        """Wait for so many messages of this kind; returns all that were heard, and forgets them."""
        end = time.monotonic() + DEADLINE_S
        while sum(isinstance(message, kind) for message in self.heard) < count:
            assert time.monotonic() < end, self.heard
            self.heard += [message for message, _fd in self.main.receive()]
            await asyncio.sleep(0.001)
        heard, self.heard = self.heard, []
        return heard

    async def associated(self, number: int, *, host: str = CLIENT) -> socket.socket:
        loop = asyncio.get_running_loop()
        peer = self.offer(number, host=host)
        await loop.sock_sendall(peer, associate_rq(calling="CT"))
        assert await self.until(Ask) == [Taken(number), Ask(number, "CT", "FASTSCP", TERMS)]
        self.main.send(Verdict(number))
        assert (await loop.sock_recv(peer, 4096))[0] == 2
        return peer


async def all_of(peer: socket.socket) -> bytes:
    """All that comes until the worker closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(peer, 4096), DEADLINE_S
        ):
            got += data
    return got


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Played], Coroutine[Any, Any, None]]], None]]:
    """Run a test beside a living worker, which is drained in the end.

    No connection is closed there only because its peer takes too long to hang up.
    """
    monkeypatch.setattr(association, "_HANG_UP_S", 1e9)
    store_ = Store.open(tmp_path / "store", filed("{SOPInstanceUID}.dcm"))
    stopped = signal.getsignal(signal.SIGTTOU)

    async def both(test: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
        played = Played(store_)
        living = asyncio.get_running_loop().create_task(played.worker.live())
        try:
            assert await played.until(Ready) == [Holds(0), Ready()]
            # However long its start took: who is ready is asked at once who is idle, for example.
            assert played.shared.liveness.alive_ms(0) > 0
            await test(played)
        finally:
            for peer in played.peers:
                peer.close()
            played.main.send(Drain(0.0))
            await asyncio.wait_for(living, DEADLINE_S)
            played.main.close()

    def run_(test: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(both(test))

    yield run_
    signal.signal(signal.SIGTTOU, stopped)
    store_.close()


def test_an_offer_that_is_another_workers_by_now(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        before = len(os.listdir("/proc/self/fd"))
        peer = played.offer(1)
        assert played.shared.claims.claim(1, 1)
        assert await all_of(peer) == b""
        # The slot has another connection meanwhile.
        peer = played.offer(2)
        played.shared.claims.offer(2, 77)
        assert await all_of(peer) == b""
        assert played.shared.claims.claim(2, 77)
        assert len(os.listdir("/proc/self/fd")) == before + 2
        assert played.heard == []

    run(test)


def test_a_bug_in_one_associations_verdict_ends_that_one(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its peer is told, and whoever is decided behind it is associated."""

    def failing(receiver: Receiver, *args: Any, **more: Any) -> None:
        if receiver.number == 1:
            raise RuntimeError("a bug")
        establish.establish(receiver, *args, **more)

    monkeypatch.setattr(requested, "establish", failing)

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        peers = {}
        for number in (1, 2):
            peers[number] = played.offer(number)
            await loop.sock_sendall(peers[number], associate_rq(calling="CT"))
            assert await played.until(Ask) == [Taken(number), Ask(number, "CT", "FASTSCP", TERMS)]
        for number in (1, 2):
            played.main.send(Verdict(number))
        assert list(split_pdus(await all_of(peers[1]))) == [abort(0, 0)]
        assert (await loop.sock_recv(peers[2], 4096))[0] == 2

    run(test)
    assert ": a bug ends it" in caplog.text


def test_too_many_before_it_was_taken_over(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        # Both messages are there when the worker looks.
        peer = played.offer(1)
        played.main.send(Abandon(1))
        assert await all_of(peer) == b""
        assert await played.until(Gone) == [Taken(1), Gone(1)]
        played.main.send(Abandon(1))
        played.main.send(Abandon(99))

    run(test)


def test_too_many_after_the_rejection(run: Callable[..., None]) -> None:
    """A peer that was rejected and does not hang up holds a socket all the same."""

    async def test(played: Played) -> None:
        peer = played.offer(1)
        await asyncio.get_running_loop().sock_sendall(peer, associate_rq())
        await played.until(Ask)
        # While main decides it is none to close.
        played.main.send(Abandon(1))
        played.main.send(Verdict(1, 2, 3, 2, "full"))
        assert await all_of(peer) == reject(2, 3, 2)
        assert played.heard == []
        # Told at once.
        assert list(played.main.receive()) == [(Over(1, "2,3,2"), None)]
        played.main.send(Abandon(1))
        assert await played.until(Gone) == [Gone(1)]

    run(test)


def test_who_is_idle_and_who_goes(run: Callable[..., None]) -> None:
    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        peers = {number: await played.associated(number) for number in (1, 2, 3)}
        await played.associated(4, host="10.0.0.4")
        # The first is at work; the second was the last to say something.
        data = store()
        # Its command set is there, which lasts, and some of the data set.
        await loop.sock_sendall(peers[1], data[:400])
        while played.worker._associations[1].idle_since:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        later = played.worker._associations[3].idle_since
        while played.worker._associations[2].idle_since <= later:
            await loop.sock_sendall(peers[2], echo(1))
            assert (await loop.sock_recv(peers[2], 4096))[0] == 4
        played.main.send(SeekIdle(9, CLIENT))
        (answer,) = await played.until(Idle)
        assert answer == Idle(9, 3, answer.since)
        assert 0 < answer.since <= time.monotonic()
        played.main.send(SeekIdle(9, "10.0.0.5"))
        assert await played.until(Idle) == [Idle(9)]
        for number in (1, 3, 3, 77):
            played.main.send(Displace(number, 9, NEWCOMER))
        assert await played.until(Displaced, 4) == [
            Displaced(1, 9, done=False),
            Displaced(3, 9, done=True),
            Displaced(3, 9, done=False),
            Displaced(77, 9, done=False),
        ]
        assert list(split_pdus(await all_of(peers[3]))) == [abort(0, 0)]
        # It need not hang up: main may close it now like one that was never associated.
        played.main.send(Abandon(3))
        played.main.send(Abandon(2))
        assert await played.until(Gone) == [Gone(3, ended=Ending("aborted", "0,0").number)]
        await loop.sock_sendall(peers[1], data[400:])
        assert (await loop.sock_recv(peers[1], 4096))[0] == 4

    run(test)


def test_what_an_operator_ends(run: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    why = "by the operator"

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        # Not even taken over yet.
        peer = played.offer(1)
        played.main.send(End(1, why))
        assert await all_of(peer) == b""
        assert await played.until(Gone) == [Taken(1), Gone(1)]
        # While main decides over its request; idle; and inside a message, at progress or not.
        deciding = played.offer(2)
        await loop.sock_sendall(deciding, associate_rq())
        await played.until(Ask)
        idle, storing = [await played.associated(number) for number in (3, 4)]
        await loop.sock_sendall(storing, store()[:400])
        while played.worker._associations[4].idle_since:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        for number in (2, 3, 4, 77):
            played.main.send(End(number, why))
        for peer in (deciding, idle, storing):
            assert await all_of(peer) == abort(0, 0)
        # Once more, for peers that do not hang up; one of them counted as no association.
        for number in (2, 3, 4):
            played.main.send(End(number, why))
        heard = await played.until(Gone, 3)
        assert {message.number for message in heard if isinstance(message, Gone)} == {2, 3, 4}

    run(test)
    told = [record.getMessage() for record in caplog.records if why in record.getMessage()]
    assert [one.partition(" 10.0.0.1:104")[2] for one in told[:1]] == [f": {why}"]
    assert [f": aborted (0,0): {why}" in one for one in told] == [False, True, True, True]
    assert "unfinished 1" in told[3]


def test_the_end_comes_right_behind_an_offer(run: Callable[..., None]) -> None:
    """The connection was taken: it is served before the worker goes."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        peer = played.offer(1)
        played.main.send(Drain(60.0))
        await loop.sock_sendall(peer, associate_rq())
        await played.until(Ask)
        played.main.send(Verdict(1, 2, 3, 1, "shutting down"))
        assert await all_of(peer) == reject(2, 3, 1)

    run(test)


def test_who_rests_holds_up_no_drain(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that rests already is aborted at once, another once it does; no message is cut off."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        played.worker.going.tick_s = 0.01
        resting, begun, storing = [await played.associated(number) for number in (1, 2, 3)]
        stream = store(2)
        await loop.sock_sendall(storing, stream[:-50])
        await loop.sock_sendall(begun, store())
        assert (await loop.sock_recv(begun, 4096))[0] == 4
        silent = played.offer(4)
        await played.until(Taken)
        # The limit is as far off as the last of them has rested.
        known = {one.number: one for one in played.worker._associations.values()}
        monkeypatch.setattr(process, "_RESTING_S", time.monotonic() - known[1].idle_since)
        played.main.send(Drain(600.0))
        assert await all_of(resting) == abort(0, 0)
        monkeypatch.setattr(process, "_RESTING_S", 0.05)
        assert await all_of(begun) == abort(0, 0)
        assert await all_of(silent) == b""
        assert not known[3].idle_since
        await loop.sock_sendall(storing, stream[-50:])
        assert [part[0] for part in split_pdus(await all_of(storing))] == [4, 7]

    run(test)


@pytest.mark.parametrize("how", ["Retire", "TERM"])
def test_who_rests_stays_where_the_service_goes_on(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(process, "_RESTING_S", 0.0)
        played.worker.going.tick_s = 0.01
        peer = await played.associated(1)
        if how == "TERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            played.main.send(Retire(600.0))
        await played.until(Leaving)
        ticks = played.worker._next_tick + 0.05
        while played.worker._next_tick < ticks:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await loop.sock_sendall(peer, store())
        assert (await loop.sock_recv(peer, 4096))[0] == 4
        peer.close()

    run(test)


@pytest.mark.parametrize("how", ["TERM", "Drain", "Retire", "Stop"])
def test_a_worker_that_ends_takes_no_more(run: Callable[..., None], how: str) -> None:
    """It says so at once, and leaves to main what it had not claimed by then."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        peer = await played.associated(1)
        match how:
            case "TERM":
                os.kill(os.getpid(), signal.SIGTERM)
                assert await played.until(Leaving) == [Leaving()]
            case "Drain":
                played.main.send(Drain(60.0))
            case "Retire":
                played.main.send(Retire(3600.0))
            case _:
                played.main.send(Stop())
        played.offer(2)
        if how != "TERM":
            assert await played.until(Leaving) in ([Leaving()], [Leaving(), Over(1)])
        if how != "Stop":
            # What it has it serves.
            await loop.sock_sendall(peer, store())
            assert (await loop.sock_recv(peer, 4096))[0] == 4
        peer.close()
        heard = await played.until(Gone)
        assert Taken(2) not in heard
        assert played.shared.claims.claim(2, 2)

    run(test)


def test_a_worker_that_leaves_the_store_takes_no_more(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may take its time over that: meanwhile its descriptors become others'."""
    goes_on = threading.Event()
    leaves = threading.Event()

    def slow(store_fd: int, life: str) -> None:
        leaves.set()
        assert goes_on.wait(DEADLINE_S)
        remove_life(store_fd, life)

    monkeypatch.setattr(process, "remove_life", slow)

    async def test(played: Played) -> None:
        try:
            played.main.send(Drain(0.0))
            await played.until(Leaving)
            assert await asyncio.to_thread(leaves.wait, DEADLINE_S)
            peer = played.offer(1)
            # Its copy of the descriptor is closed, and ours: nobody else has it.
            assert await all_of(peer) == b""
            assert played.shared.claims.claim(1, 1)
        finally:
            goes_on.set()

    run(test)


@pytest.mark.parametrize("state", ["connected", "asked", "associated"])
def test_a_worker_that_is_replaced_serves_who_has_just_come(
    run: Callable[..., None], state: str
) -> None:
    """Its drain time is over at once: one message of each it has taken is answered all the same."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        played.worker.going = Going(configuration(ServeConfig(workers=1, drain_timeout=0.0)))
        if state == "associated":
            peer = await played.associated(1)
        else:
            peer = played.offer(1)
            await played.until(Taken)
        if state == "asked":
            await loop.sock_sendall(peer, associate_rq(calling="CT"))
            await played.until(Ask)
        os.kill(os.getpid(), signal.SIGTERM)
        await played.until(Leaving)
        while not played.worker.ending:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        if state == "connected":
            await loop.sock_sendall(peer, associate_rq(calling="CT"))
            await played.until(Ask)
        if state != "associated":
            played.main.send(Verdict(1))
            assert (await loop.sock_recv(peer, 4096))[0] == 2
        await loop.sock_sendall(peer, store())
        assert [pdu[0] for pdu in split_pdus(await all_of(peer))] == [4, 7]

    run(test)


def test_a_worker_that_is_replaced_ends_what_is_idle(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "_RESTED_S", 0.0)

    async def test(played: Played) -> None:
        played.worker.going = Going(configuration(ServeConfig(workers=1, drain_timeout=0.0)))
        peer = await played.associated(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await all_of(peer) == abort(0, 0)

    caplog.set_level(logging.INFO)
    run(test)
    assert "(0,0): its worker was told to end (TERM to it), and --drain-timeout is" in caplog.text


def test_a_retired_worker_shows_it_and_ends_its_associations_in_time(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """What is in the middle of a message finishes that; what rests is aborted."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        at_work = await played.associated(1)
        data = store()
        await loop.sock_sendall(at_work, data[:400])
        while played.worker._associations[1].idle_since:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        rests = await played.associated(2)
        played.worker._associations[2].tick(time.monotonic())
        played.main.send(Retire(1.5))
        assert Leaving() in await played.until(Leaving)
        assert getproctitle() == "fastscp: worker 0, retired"
        assert list(split_pdus(await all_of(rests))) == [abort(0, 0)]
        await loop.sock_sendall(at_work, data[400:])
        assert [pdu[0] for pdu in split_pdus(await all_of(at_work))] == [4, 7]

    before = getproctitle()
    caplog.set_level(logging.INFO)
    try:
        run(test)
    finally:
        setproctitle(before)
    why = "(0,0): its worker was retired by a reload, and --reload-linger is over"
    assert caplog.text.count(why) == 2


@pytest.mark.parametrize("how", ["Drain", "Stop"])
def test_a_retired_worker_ends_with_the_service(
    run: Callable[..., None], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it might have lived for its associations."""

    async def test(played: Played) -> None:
        peer = await played.associated(1)
        played.main.send(Retire(3600.0))
        assert Leaving() in await played.until(Leaving)
        played.main.send(Drain(0.0) if how == "Drain" else Stop())
        assert await all_of(peer) == abort(0, 0)

    caplog.set_level(logging.INFO)
    run(test)
    assert "(0,0): shutting down" in caplog.text


def test_an_index_that_cannot_be_used_keeps_no_worker_from_its_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert process._index_of(os.memfd_create("test")) is None
    assert "cannot use the index of the journal" in caplog.text
    assert "the whole journal" in caplog.text

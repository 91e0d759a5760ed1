"""What an association does where it paused in the middle of what it read, and where it fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.association.account import Ending
from fastscp.association.machine import Event, State
from fastscp.worker.association import Association
from fastscp.worker.connection import Origin
from fastscp.worker.rounds import Rounds
from tests.books import top_rule
from tests.kit import (
    RELEASE_RQ,
    abort,
    associate_rq,
    data_set,
    message,
    reject,
    split_pdus,
    store,
    store_rq,
)
from tests.unit.test_receiver import ECHO_RQ, FakeTransport, Site, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ECHO = message(ECHO_RQ, context=11)
COMMAND, DATA = split_pdus(store(7))
LAST = COMMAND + DATA


def _origin() -> Origin:
    return Origin("127.0.0.1", 104, time.monotonic())


@dataclass
class Transport(FakeTransport):
    """A transport as the loop's, over a socket; notes how it was ended."""

    ours: socket.socket | None = None
    ended: list[str] = field(default_factory=list)
    limit: int = 0
    undecrypted: bool | None = None

    def get_extra_info(self, name: str) -> object:
        return {"socket": self.ours, "undecrypted": self.undecrypted}.get(name)

    def set_write_buffer_limits(self, high: int) -> None:
        self.limit = high

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")


@dataclass
class Met:
    """An association in data transfer, and the other end of its connection."""

    one: Association
    transport: Transport
    peer: socket.socket

    def read(self, data: bytes) -> None:
        with memoryview(self.one.get_buffer(-1)) as view:
            view[: len(data)] = data
            self.one.buffer_updated(len(data))

    def sent(self) -> list[int]:
        """The types of the PDUs that were sent; what the socket did not take is the transport's."""
        self.peer.setblocking(False)
        got = b""
        with contextlib.suppress(BlockingIOError):
            while more := self.peer.recv(1 << 20):
                got += more
        return [pdu[0] for pdu in split_pdus(got + bytes(self.transport.sent))]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "store") as made:
        yield made


@pytest.fixture
def met(site: Site) -> Iterator[Met]:
    owner: Any = SimpleNamespace(
        going=SimpleNamespace(config=SimpleNamespace(artim_timeout=30)),
        ending="", gone=lambda _one: None, run="run", names={}, rounds=Rounds(),
    )  # fmt: skip
    one = Association(site.reception, 1, owner, _origin(), max_pdu_length=131072)
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        transport = Transport(ours=ours)
        one.connection_made(transport)  # type: ignore[arg-type]
        for event in (Event.EVT6, Event.EVT7):
            one._machine.handle(event)
        site.establish(one)  # type: ignore[arg-type]
        one._rule = top_rule(min_rate=0, idle_timeout=0.0)
        assert one.state is State.STA6
        yield Met(one, transport, peer)
        one.connection_lost(None)


# Going before there is an association ------------------------------------------------------------

RQ = associate_rq()


class Waiting:
    """Requests that all wait to be decoded, or go to main one by one."""

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits

    def add(self, one: Association, pdu: bytes) -> bool:
        if self.waits:
            one.keep_request(pdu)
        else:
            one.request_begins(pdu)
        return not self.waits


@contextlib.contextmanager
def newcomer(site: Site, *, waits: bool = False) -> Iterator[Met]:
    config = SimpleNamespace(artim_timeout=30)
    owner: Any = SimpleNamespace(
        going=SimpleNamespace(config=config), ending="", gone=lambda _one: None, run="run",
        names={}, requests=Waiting(waits=waits), over=lambda _one: None, codes=(codes := []),
        rejected=lambda _number, code: codes.append(code),
    )  # fmt: skip
    one = Association(site.reception, 1, owner, _origin(), max_pdu_length=131072)
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        transport = Transport(ours=ours)
        one.connection_made(transport)  # type: ignore[arg-type]
        yield Met(one, transport, peer)
        one.connection_lost(None)


def _answer(met: Met) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return met.peer.recv(100, socket.MSG_DONTWAIT)
    return b""


@pytest.mark.parametrize("end", ["drop", "end_now"])
@pytest.mark.parametrize("waits", ["in the socket", "to be decoded"])
def test_a_request_that_is_there_is_rejected_when_its_connection_has_to_go(
    site: Site, waits: str, end: str
) -> None:
    with newcomer(site, waits=True) as met:
        met.peer.send(RQ)
        if waits == "to be decoded":
            assert met.transport.ours is not None
            met.read(met.transport.ours.recv(1 << 20))
            assert met.one.request_waits
        getattr(met.one, end)("too many at a time")
        assert met.one.state is State.STA13
        assert met.one._owner.codes == ["2,3,1"]  # type: ignore[attr-defined]
        assert _answer(met) == reject(2, 3, 1)
        # With FIN, which overtakes nothing.
        assert met.transport.ended == ["closed"]


@pytest.mark.parametrize("sent", [b"", RQ[:-1], RQ[:3]])
def test_a_connection_without_a_whole_request_is_dropped(site: Site, sent: bytes) -> None:
    with newcomer(site) as met:
        met.peer.send(sent)
        met.one.drop("too many at a time")
        assert _answer(met) == b""
        assert met.transport.ended == ["aborted"]


def test_what_was_sent_last_arrives_though_the_connection_has_to_go(site: Site) -> None:
    with newcomer(site) as met:
        met.read(b"\4\0\0\0\0\2\0\0")
        assert met.one.state is State.STA13
        met.one.drop("too many at a time")
        assert met.transport.ended == ["closed"]
        assert _answer(met)[0] == 7
    with newcomer(site) as met:
        met.read(b"\4\0\0\0\0\2\0\0")
        met.transport.held = 1
        met.one.drop("too many at a time")
        # A peer that reads nothing would have it wait.
        assert met.transport.ended == ["aborted"]


def test_a_request_that_waits_for_too_long_is_rejected(site: Site) -> None:
    with newcomer(site, waits=True) as met:
        met.read(RQ)
        met.one.tick(time.monotonic() + 25)
        assert _answer(met) == reject(2, 3, 1)
        assert met.transport.ended == ["closed"]


def in_loop(act: Callable[[], object], until: Callable[[], object]) -> None:
    """Act in an event loop, which then runs until something is so."""

    async def run() -> None:
        act()
        while not until():  # noqa: ASYNC110 - turns of the loop are what it is about
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_association_that_has_ended_gives_its_place_back(site: Site) -> None:
    """Once, and though its peer does not hang up."""
    told: list[int] = []
    going = SimpleNamespace(config=SimpleNamespace(artim_timeout=30))
    owner: Any = SimpleNamespace(
        going=going, ending="", gone=lambda _one: None, run="r", names={},
        rejected=lambda *_told: None, over=lambda one: told.append(one.number),
        ask=lambda *_asked: None,
    )  # fmt: skip
    one = Association(site.reception, 5, owner, _origin(), max_pdu_length=131072)
    ours, peer = socket.socketpair()
    with ours, peer:
        one.connection_made(Transport(ours=ours))  # type: ignore[arg-type]
        one._machine.handle(Event.EVT6)
        one._has_place = True
        one._machine.handle(Event.EVT7)
        site.establish(one)  # type: ignore[arg-type]
        one.tick(time.monotonic())
        assert told == []
        one.end_now("its time is over")
        assert one.state is State.STA13
        for _ in range(3):
            one.tick(time.monotonic())
        assert told == [5]
        one.connection_lost(None)


def test_what_was_read_is_answered_before_the_end_of_the_stream(site: Site, met: Met) -> None:
    """An end that is heard while the rest of a read waits comes behind it."""
    stores = b"".join(store(n, sop=f"1.2.{n}") for n in range(100))

    def act() -> None:
        met.read(stores + ECHO * 100 + store(7, sop="1.2.99999")[:-1])
        assert met.one.rest_bytes
        assert met.one.eof_received()

    in_loop(act, lambda: met.transport.ended)
    assert met.transport.ended == ["closed"]
    assert met.sent() == [4] * 200
    assert len(site.files()) == 100
    assert site.parts() == []


def test_each_turn_is_another_one_of_the_loop(met: Met) -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        if met.one.rest_bytes:
            asyncio.get_running_loop().call_soon(count)

    def act() -> None:
        met.read(ECHO * 1000)
        asyncio.get_running_loop().call_soon(count)

    in_loop(act, lambda: not met.one.rest_bytes)
    # Of some 64 each.
    assert turns > 10
    assert met.sent() == [4] * 1000


def test_the_transport_tells_early_that_the_peer_does_not_read(met: Met) -> None:
    assert met.transport.limit == 65536
    met.one.pause_writing()
    met.read(ECHO * 10)
    assert met.one.rest_bytes
    in_loop(met.one.resume_writing, lambda: not met.one.rest_bytes)
    assert met.sent() == [4] * 10


@pytest.mark.parametrize("where", ["command_received", "responses_sent"])
def test_a_bug_in_a_later_turn_ends_the_association(
    met: Met, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(*_args: object) -> None:
        raise RuntimeError("a bug")

    def act() -> None:
        met.read(ECHO * 100)
        met.one.outbox.tell_responses_sent = True
        setattr(met.one, where, raising)

    with caplog.at_level(logging.ERROR, "fastscp.association"):
        in_loop(act, lambda: met.one.state is not State.STA6)
    assert met.one.state is State.STA13
    assert met.sent()[-1] == 7
    assert not met.one.rest_bytes
    assert "a bug ends it" in caplog.text


def _stores(count: int) -> bytes:
    return b"".join(store(n, sop=f"1.2.{n}") for n in range(count))


@pytest.mark.parametrize("how", ["lost", "not read", "told to finish"])
def test_what_was_read_is_stored_though_nobody_is_left_to_be_answered(
    site: Site, met: Met, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    gone: list[Association] = []
    met.one._owner.gone = gone.append  # type: ignore[method-assign, assignment]

    def act() -> None:
        if how == "not read":
            met.one.pause_writing()
        met.read(_stores(300) + store(7, sop="1.2.99999")[:-1])
        assert met.one.rest_bytes
        met.one.connection_lost(None)
        if how == "told to finish":
            met.one._owner.ending = "shutting down"
            met.one.finish(0)
        assert not gone
        # It has no time-outs any more.
        met.one.tick(time.monotonic() + 3600)

    with caplog.at_level(logging.INFO, "fastscp.association"):
        in_loop(act, lambda: gone)
    assert gone == [met.one]
    assert len(site.files()) == 300
    assert site.parts() == []
    assert site.reception.rests == 0
    assert "connection lost inside a message; stored 300, refused 0" in caplog.text
    answered = met.sent()
    assert len(answered) < 300
    assert [fact.get("responded", True) for fact in site.journal()].count(False) == (
        300 - len(answered)
    )


@pytest.mark.parametrize(
    ("came", "follows", "sent"),
    [
        (LAST[:60], LAST[60:], [4, 7]),
        (COMMAND, DATA, [4, 7]),
        (LAST, b"", [4, 7]),
        (RELEASE_RQ, b"", [6]),
        (b"", b"", [7]),
    ],
    ids=["60 bytes", "a command set", "a message", "a release", "nothing"],
)
def test_what_the_loop_has_not_come_to_is_in_hand(
    site: Site, met: Met, came: bytes, follows: bytes, sent: list[int]
) -> None:
    met.one._owner.ending = "shutting down"
    met.peer.sendall(came)

    def act() -> None:
        met.one.finish(0)
        if follows:
            assert met.sent() == []
            met.read(follows)

    in_loop(act, lambda: met.one.state is State.STA13)
    assert met.sent() == sent
    assert len(site.files()) == sent.count(4)


def test_a_bug_in_what_has_come_leaves_the_others_their_end(
    met: Met, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    met.one._owner.ending = "shutting down"
    monkeypatch.setattr(met.one, "buffer_updated", _bug)
    met.peer.sendall(ECHO)
    with caplog.at_level(logging.ERROR, "fastscp.association"):
        in_loop(lambda: met.one.finish(0), lambda: met.one.state is State.STA13)
    assert met.sent() == [7]
    assert "a bug ends it" in caplog.text


def _bug(_nbytes: int) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("how", ["closed", "cut", "A-ABORT", "A-RELEASE-RQ"])
def test_the_end_is_noted_where_it_outlives_the_worker(
    site: Site, met: Met, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """How it ended at once, before it is gone; that this is told once the log has the line."""
    caplog.set_level(logging.INFO, "fastscp.association")
    site.establish(met.one, tally=2)  # type: ignore[arg-type]
    met.read(store(1) + store(2, sop="1.2.7")[: -3 if how == "cut" else None])
    if how == "A-ABORT":
        met.read(abort(0, 0))
    elif how == "A-RELEASE-RQ":
        met.read(b"\5\0\0\0\0\4\0\0\0\0")
    met.one.connection_lost(None)
    done = site.shared.tallies.read(2)
    kind = {
        "closed": "connection closed", "cut": "connection lost inside a message",
        "A-ABORT": "aborted by the peer", "A-RELEASE-RQ": "released",
    }[how]  # fmt: skip
    assert Ending.numbered(done.ended).kind == kind
    assert (done.stored, done.unfinished) == ((1, 1) if how == "cut" else (2, 0))
    assert done.is_untold
    (line,) = caplog.records
    assert f": {kind}" in line.getMessage()
    vars(line)["once_told"](True)
    assert site.shared.tallies.read(2).is_told


def test_who_hangs_up_before_the_answer_has_asked(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastscp.association")
    going = SimpleNamespace(config=SimpleNamespace(artim_timeout=30))
    owner: Any = SimpleNamespace(
        going=going,
        ending="",
        gone=lambda _one: None,
        rejected=lambda *_told: None,
        run="r",
        names={},
    )
    one = Association(site.reception, 5, owner, _origin(), max_pdu_length=131072)
    ours, peer = socket.socketpair()
    with ours, peer:
        one.connection_made(Transport(ours=ours))  # type: ignore[arg-type]
        one._machine.handle(Event.EVT6)
        assert one.state is State.STA3
        one.connection_lost(None)
    assert "connection closed: before its request was answered" in caplog.text


def test_how_large_an_instance_may_be_is_told(
    site: Site, met: Met, caplog: pytest.LogCaptureFixture
) -> None:
    site.establish(met.one, rules=rules(max_instance_size=10))  # type: ignore[arg-type]
    sent = message(store_rq(), data_set(), fragment=100)
    met.read(sent)
    (line,) = caplog.records
    found = re.search(
        r"A700 \(data set above the size limit: max-instance-size 10, and it has at least "
        r"(\d+) bytes\)$", line.getMessage(),
    )  # fmt: skip
    assert found is not None
    assert 10 < int(found[1]) <= len(data_set())


def test_how_large_an_instance_may_be_is_told_of_large_ones_alone(
    site: Site, met: Met, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_set(study="")
    site.establish(met.one, rules=rules(max_instance_size=len(data)))  # type: ignore[arg-type]
    met.read(message(store_rq(), data))
    (line,) = caplog.records
    assert "answered C000" in line.getMessage()
    assert "max-instance-size" not in line.getMessage()


def test_how_it_ended_is_noted_before_the_peer_knows(site: Site, met: Met) -> None:
    site.establish(met.one, tally=2)  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    trace = lambda _sent, pdu_type, _length: seen.append(  # noqa: E731
        (pdu_type, site.shared.tallies.read(2).ended)
    )
    met.one.outbox.trace = True
    met.one.pdu_traced = trace  # type: ignore[method-assign]
    met.read(b"\5\0\0\0\0\4\0\0\0\0")
    assert seen[-1] == (6, Ending("released").number)


@pytest.mark.parametrize("how", ["A-ABORT", "stop", "bug"])
def test_the_rest_of_a_lost_connection_ends_with(site: Site, met: Met, how: str) -> None:
    gone: list[Association] = []
    met.one._owner.gone = gone.append  # type: ignore[method-assign, assignment]

    def raising(*_args: object) -> None:
        raise RuntimeError("a bug")

    def act() -> None:
        middle = {"A-ABORT": abort(0, 0), "stop": b"", "bug": ECHO}[how]
        later = b"".join(store(n, sop=f"1.3.{n}") for n in range(300))
        met.one.command_received = raising  # type: ignore[method-assign, assignment]
        met.read(_stores(200) + middle + later)
        met.one.connection_lost(None)
        assert not gone
        if how == "stop":
            met.one.end_now("shutting down")

    in_loop(act, lambda: gone)
    assert gone == [met.one]
    assert met.one.state is State.STA1
    assert 0 < len(site.files()) <= 200
    assert site.parts() == []
    assert site.reception.rests == 0


def test_a_drain_waits_for_what_was_read(site: Site, met: Met) -> None:
    def act() -> None:
        met.read(_stores(300))
        met.one._owner.ending = "shutting down"
        met.one.finish(0)

    in_loop(act, lambda: met.one.state is not State.STA6)
    assert len(site.files()) == 300
    assert met.sent() == [4] * 300 + [7]


def test_a_drain_waits_for_what_is_not_decrypted(site: Site, met: Met) -> None:
    """What TLS keeps while nobody asks for it was read, too, and is answered."""
    met.transport.undecrypted = True
    met.one._owner.ending = "shutting down"
    met.one.finish(0)
    met.read(store(1))
    met.one.tick(time.monotonic())
    assert met.one.state is State.STA6
    met.transport.undecrypted = False
    met.read(store(2, sop="1.2.7"))
    assert met.sent() == [4, 4, 7]
    assert len(site.files()) == 2


def test_a_drain_waits_no_longer_than_there_is_something(met: Met) -> None:
    """A piece of a message was behind it, which nobody can answer."""
    # As where it was accepted: its request came in time.
    met.one._deadline = None
    met.transport.undecrypted = True
    met.one._owner.ending = "shutting down"
    met.one.finish(0)
    met.transport.undecrypted = False
    met.read(ECHO[:8])
    met.one.tick(time.monotonic())
    assert met.sent() == [7]


def test_a_send_that_fails_ends_the_connection(
    site: Site, met: Met, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before what the peer sent is read, which does not take for ever."""
    met.peer.close()
    met.read(ECHO)
    met.read(store(1))
    assert met.transport.ended == []
    assert len(site.files()) == 1
    met.one.tick(time.monotonic())
    assert met.transport.ended == []
    met.one.tick(time.monotonic() + 6)
    assert met.transport.ended == ["aborted"]
    with caplog.at_level(logging.INFO, "fastscp.association"):
        met.one.connection_lost(None)
    assert f"cannot send: {os.strerror(errno.EPIPE)}" in caplog.text

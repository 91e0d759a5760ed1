"""Who gets a place when all are taken, and that there are open files for all who have one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import selectors
import shutil
import signal
import socket
import stat
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.config.settings import ServeConfig
from fastscp.main.admission import PENDING_MOST
from fastscp.main.descriptors import main_needs, worker_needs
from tests.kit import (
    DEADLINE_S,
    SOP,
    Peer,
    Service,
    abort,
    associate_rq,
    data_set,
    echo,
    reject,
    store,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The newcomer's address; the others come from 127.0.0.1.
ELSEWHERE: Final = "127.0.0.9"


def _answer(service: Service, peers: contextlib.ExitStack, source: str) -> tuple[Peer, bytes]:
    peer = peers.enter_context(Peer(service.host, service.port, source=source))
    answer = peer.associate(associate_rq(calling="NEW"))
    assert answer is not None
    return peer, answer


def _echo(peer: Peer) -> None:
    peer.send(echo(1))
    assert peer.read_response().status == 0


def test_one_address_cannot_take_all_places(tmp_path: Path) -> None:
    with Service(tmp_path, "--max-associations", "5") as service, contextlib.ExitStack() as peers:
        crowd = [peers.enter_context(service.peer()) for _ in range(5)]
        message = store()
        # The first has a message in hand; of the others the second is idle for the longest time.
        for peer in crowd[1:]:
            _echo(peer)
        crowd[0].send(message[:200])
        _, answer = _answer(service, peers, "")
        assert answer == reject(2, 3, 2)
        first, answer = _answer(service, peers, ELSEWHERE)
        assert answer[0] == 2
        # That one was told, and its place is another's though it does not hang up.
        assert crowd[1].read_pdu() == abort(0, 0)
        service.in_log("its address has the most associations: its place goes to ")
        assert f" NEW@{ELSEWHERE}; stored 0" in service.in_log("aborted (0,0): idle for ")
        # One of five is fewer than half as many as four, two are not fewer than half of three.
        second, answer = _answer(service, peers, ELSEWHERE)
        assert answer[0] == 2
        assert crowd[2].read_pdu() == abort(0, 0)
        _, answer = _answer(service, peers, ELSEWHERE)
        assert answer == reject(2, 3, 2)
        for peer in (*crowd[3:], first, second):
            _echo(peer)
        crowd[0].send(message[200:])
        assert crowd[0].read_statuses(1) == [(1, 0)]


def test_nobody_goes_who_is_at_work(tmp_path: Path) -> None:
    with Service(tmp_path, "--max-associations", "3") as service, contextlib.ExitStack() as peers:
        crowd = [peers.enter_context(service.peer()) for _ in range(3)]
        for n, peer in enumerate(crowd):
            peer.send(store(1, sop=f"{SOP}.{n}")[:200])
        _, answer = _answer(service, peers, ELSEWHERE)
        assert answer == reject(2, 3, 2)
        for n, peer in enumerate(crowd):
            peer.send(store(1, sop=f"{SOP}.{n}")[200:])
            assert peer.read_statuses(1) == [(1, 0)]


def test_a_byte_in_each_keeps_nobody_out(tmp_path: Path) -> None:
    """Nor does a message that stopped; those that go on stay."""
    message = store(1, data_set(sop=SOP, pixels=4_000_000), fragment=16_000)
    with Service(tmp_path, "--max-associations", "4") as service, contextlib.ExitStack() as peers:
        crowd = [peers.enter_context(service.peer()) for _ in range(4)]
        at_work = crowd[2:]
        crowd[0].send(b"\x04")
        for peer in crowd[1:]:
            peer.send(message[:2000])
        sent, sent_at = 2000, time.monotonic()

        def is_let_in(source: str) -> bool:
            nonlocal sent, sent_at
            if time.monotonic() > sent_at + 0.2:
                for peer in at_work:
                    peer.send(message[sent : sent + 8000])
                sent, sent_at = sent + 8000, time.monotonic()
            newcomer, answer = _answer(service, peers, source)
            if answer[0] != 2:
                newcomer.close()
            return answer[0] == 2

        # The byte first, then what stopped.
        for peer, source in ((crowd[0], "127.0.0.9"), (crowd[1], "127.0.0.10")):
            wait_for(partial(is_let_in, source), "a place", 60)
            assert peer.read_pdu() == abort(0, 0)
        service.in_log("aborted (0,0): without progress inside a message for ")
        # Half as many as two would be enough for this one, but both go on.
        assert not is_let_in("127.0.0.11")
        for peer in at_work:
            peer.send(message[sent:])
            assert peer.read_statuses(1) == [(1, 0)]


def test_nobody_is_a_crowd_alone(tmp_path: Path) -> None:
    """Where each address has one place, the newcomer gets none of them."""
    with (
        Service(tmp_path, "--max-associations", "2", workers=1) as service,
        contextlib.ExitStack() as peers,
    ):
        holders = [_answer(service, peers, f"127.0.0.{n}") for n in (2, 3)]
        assert [answer[0] for _peer, answer in holders] == [2, 2]
        _, answer = _answer(service, peers, ELSEWHERE)
        assert answer == reject(2, 3, 2)
        for peer, _answered in holders:
            _echo(peer)


def test_a_newcomer_does_not_wait_for_a_silent_worker(tmp_path: Path) -> None:
    with Service(tmp_path, "--max-associations", "2") as service, contextlib.ExitStack() as peers:
        crowd = [peers.enter_context(service.peer()) for _ in range(2)]
        stopped = service.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        peers.callback(os.kill, stopped, signal.SIGCONT)
        # The other worker has one, too.
        _, answer = _answer(service, peers, ELSEWHERE)
        assert answer[0] == 2
        os.kill(stopped, signal.SIGCONT)
        aborted = 0
        for peer in crowd:
            peer.send(echo(1))
            got = peer.read_pdu()
            aborted += got == abort(0, 0)
        assert aborted == 1


class _Limited(Service):
    """The service with a limit of open files."""

    files = 0

    @classmethod
    def program(cls) -> list[str]:
        shell = shutil.which("sh")
        assert shell is not None
        limit = f'ulimit -n {cls.files} && exec "$@"'
        return [shell, "-c", limit, "sh", sys.executable, "-m", "fastscp"]


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process's own limit: it is the other end of all the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("limit", ["40", "0"])
def test_there_are_files_for_all_who_have_a_place(tmp_path: Path, limit: str) -> None:
    """All places taken, each with a part, and everybody else there may be at the same time."""
    places = 40
    config = ServeConfig(workers=1, max_associations=places)
    _Limited.files = max(main_needs(config), worker_needs(config, places))
    with (
        _Limited(tmp_path, "--max-associations", limit, workers=1) as service,
        contextlib.ExitStack() as peers,
    ):
        senders = [peers.enter_context(service.peer()) for _ in range(places)]
        for n, peer in enumerate(senders):
            peer.send(store(1, sop=f"{SOP}.{n}")[:400])
        # Those who are rejected and do not hang up, and those who never ask.
        for _ in range(20):
            _, answer = _answer(service, peers, "")
            assert answer == reject(2, 3, 2)
        silent = [
            peers.enter_context(Peer(service.host, service.port)) for _ in range(PENDING_MOST + 20)
        ]
        # The oldest without an association went for them, those who were rejected first.
        assert silent[19].read_until_close(reset=True) == b""
        wait_for(lambda: len(service.parts()) == places, "all parts")
        for n, peer in enumerate(senders):
            peer.send(store(1, sop=f"{SOP}.{n}")[400:])
            assert peer.read_statuses(1) == [(1, 0)]
        # Duplicates, side by side: each is compared under a lock.
        for n, peer in enumerate(senders):
            peer.send(store(2, sop=f"{SOP}.{n}"))
        for peer in senders:
            assert peer.read_statuses(1) == [(2, 0)]
        (worker,) = service.worker_pids()
        assert len(os.listdir(f"/proc/{worker}/fd")) <= _Limited.files
        assert "Too many open files" not in service.log()
        if limit == "0":
            service.in_log("the limit of open files allows 40 at a time")


def _flood(service: Service, requests: Mapping[socket.socket, bytes]) -> dict[bytes, int]:
    """Connect and ask, one after the other, and wait for nothing; how many had which answer.

    Nobody hangs up before all have one.
    """
    got = dict.fromkeys(requests, b"")
    with selectors.DefaultSelector() as ready:
        for one, request in requests.items():
            one.settimeout(DEADLINE_S)
            one.connect((service.host, service.port))
            one.sendall(request)
            ready.register(one, selectors.EVENT_READ)
        end = time.monotonic() + DEADLINE_S
        while ready.get_map():
            assert time.monotonic() < end, "no answers to all requests"
            for key, _ in ready.select(1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                got[sock] += (more := sock.recv(100))
                if not more or len(got[sock]) >= 10:
                    ready.unregister(sock)
    answers = list(got.values())
    return {answer: answers.count(answer) for answer in answers}


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("count", [600, pytest.param(9999, id="9999", marks=[pytest.mark.long])])
def test_every_request_of_a_flood_is_answered(tmp_path: Path, count: int) -> None:
    """All places are taken, and there are as many open files as that needs, and no more."""
    places = 40
    config = ServeConfig(workers=1, max_associations=places)
    _Limited.files = max(main_needs(config), worker_needs(config, places))
    requests = (
        # Rejected because all places are taken, by the negotiation, and as another title's.
        (associate_rq(calling="FLOOD"), reject(2, 3, 2)),
        (associate_rq(calling="FLOOD", application_context="1.2.3"), reject(1, 1, 2)),
        (associate_rq(calling="FLOOD", called="OTHER"), reject(1, 1, 7)),
    )
    with (
        _Limited(tmp_path, "--max-associations", "40", "--check-called-ae", workers=1) as service,
        contextlib.ExitStack() as stack,
    ):
        senders = [stack.enter_context(service.peer()) for _ in range(places)]
        for n, peer in enumerate(senders):
            peer.send(store(1, sop=f"{SOP}.{n}")[:400])
        asking = [stack.enter_context(socket.socket()) for _ in range(count)]
        answers = _flood(service, {one: requests[n % 3][0] for n, one in enumerate(asking)})
        assert answers == {answer: count // 3 for _, answer in requests}
        for n, peer in enumerate(senders):
            peer.send(store(1, sop=f"{SOP}.{n}")[400:])
            assert peer.read_statuses(1) == [(1, 0)]
        assert "cannot accept" not in service.log()
        assert "Too many open files" not in service.log()


def test_a_peer_that_is_gone_without_a_word_is_noticed_in_a_minute(tmp_path: Path) -> None:
    """By keepalive: what the service set on its end of a connection."""
    with Service(tmp_path, workers=1) as service, service.peer() as peer:
        (worker,) = service.worker_pids()
        with _their_end(worker, peer) as theirs:
            assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            tcp = [
                theirs.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            assert tcp == [30, 10, 3]


@contextlib.contextmanager
def _their_end(worker: int, peer: Peer) -> Iterator[socket.socket]:
    """The worker's end of a peer's connection: its descriptor, taken out of the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(worker)
    try:
        for number in os.listdir(f"/proc/{worker}/fd"):
            # pidfd_getfd(2), on every architecture.
            fd = libc.syscall(438, process, int(number), 0)
            if fd < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                pytest.skip("no process may take another one's descriptors here")
            if fd < 0:
                continue
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            with socket.socket(fileno=fd) as one, contextlib.suppress(OSError):
                if one.getpeername() == peer.socket.getsockname():
                    yield one
                    return
    finally:
        os.close(process)
    raise AssertionError("the worker has no such connection")


@pytest.mark.usefixtures("many_files")
def test_more_places_than_files_are_no_start(tmp_path: Path) -> None:
    config = ServeConfig(workers=1, max_associations=40)
    _Limited.files = max(main_needs(config), worker_needs(config, 40)) - 1
    with (
        pytest.raises(AssertionError, match="ended with 2"),
        _Limited(tmp_path, "--max-associations", "40", workers=1),
    ):
        pass

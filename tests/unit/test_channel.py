"""Main and a worker on their socket pair: messages whole and in order, descriptors owned."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import tempfile
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from fastscp.association.account import Terms
from fastscp.messages.channel import Channel
from fastscp.messages.worker import (
    Abandon,
    Ask,
    Drain,
    Failed,
    FromWorker,
    Gone,
    Leaving,
    Offer,
    Over,
    Ready,
    Setup,
    Stop,
    Taken,
    ToWorker,
    Verdict,
)
from fastscp.uids import uid_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETUP = Setup(
    worker=3, life="1-w3-1", run="1", use_link=False, suspect=False,
)  # fmt: skip

TO_WORKER = [
    SETUP,
    Offer(1, 0, "::1", 104),
    Verdict(1),
    Verdict(2, 2, 3, 1, "draining"),
    Abandon(3),
    Drain(30.0),
    Stop(),
]
FROM_WORKER = [
    Ready(),
    Failed("no disk"),
    Taken(1),
    Ask(1, "CT", "FASTSCP", Terms(1, 2)),
    Over(1, "2,3,1"),
    Gone(1, 1),
]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Main's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    main, worker = Channel(ours, FromWorker), Channel(theirs, ToWorker)
    yield main, worker
    main.close()
    worker.close()


class Loop:
    """The part of an event loop that a channel uses to write later."""

    def __init__(self) -> None:
        self.writers: dict[int, Callable[[], None]] = {}

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        assert fd not in self.writers
        self.writers[fd] = call

    def remove_writer(self, fd: int) -> None:
        self.writers.pop(fd, None)

    def run(self) -> None:
        for call in list(self.writers.values()):
            call()


def received(channel: Channel) -> list[object]:
    return [message for message, _fd in channel.receive()]


def test_every_message_arrives_as_it_was(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    for message in TO_WORKER:
        main.send(message)
    assert received(worker) == TO_WORKER
    for message in FROM_WORKER:
        worker.send(message)
    assert received(main) == FROM_WORKER
    assert received(main) == received(worker) == []


def test_the_longest_setup(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    setup = msgspec.structs.replace(SETUP, names=uid_names())
    main.send(setup)
    assert worker.wait() == (setup, None)


def test_a_descriptor_travels_with_its_offer(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    read_end, write_end = os.pipe()
    assert main.offer(Offer(7, 0, "10.0.0.1", 104), write_end)
    os.close(write_end)
    main.send(Stop())
    ((offer, fd), (stop, nothing)) = worker.receive()
    assert offer == Offer(7, 0, "10.0.0.1", 104)
    assert stop == Stop()
    assert nothing is None
    assert fd is not None
    os.write(fd, b"hello")
    os.close(fd)
    assert os.read(read_end, 10) == b"hello"
    os.close(read_end)


def test_at_most_so_many_at_a_time(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    for number in range(10):
        worker.send(Gone(number))
    assert [message for message, _ in main.receive(4)] == [Gone(n) for n in range(4)]
    assert received(main) == [Gone(n) for n in range(4, 10)]


def test_a_closed_end_is_noticed(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    worker.send(Ready())
    worker.close()
    assert received(main) == [Ready()]
    assert received(main) == []
    assert main.closed
    # Nobody is there: no error, and an offer is not taken.
    main.send(Stop())
    with open(os.devnull) as file:
        assert not main.offer(Offer(1, 0, "h", 1), file.fileno())


def test_sending_to_an_end_that_just_closed(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    worker.close()
    main.send(Stop())
    with open(os.devnull) as file:
        assert not main.offer(Offer(1, 0, "h", 1), file.fileno())
    main.close()
    assert loop.writers == {}


def test_wait(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(worker.wait()))
    thread.start()
    main.send(SETUP)
    thread.join(60)
    assert got == [(SETUP, None)]
    main.close()
    assert worker.wait() == (None, None)


def test_what_does_not_fit_follows_in_order(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    loop = Loop()
    worker.write_with(loop.add_writer, loop.remove_writer)
    count = 5000
    for number in range(count):
        worker.send(Gone(number))
    assert loop.writers, "all of it fitted"
    got: list[object] = []
    while len(got) < count:
        before = len(got)
        got += received(main)
        loop.run()
        assert len(got) > before
    assert got == [Gone(number) for number in range(count)]
    assert loop.writers == {}
    # And the way is free again.
    worker.send(Gone(count))
    assert received(main) == [Gone(count)]


def test_an_offer_does_not_overtake(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    sent = 0
    while not loop.writers:
        main.send(Abandon(sent))
        sent += 1
    with open(os.devnull) as file:
        assert not main.offer(Offer(1, 0, "h", 1), file.fileno())
        assert len(received(worker)) > 0
        loop.run()
        assert loop.writers == {}
        assert main.offer(Offer(2, 0, "h", 1), file.fileno())
    last: tuple[object, int | None] | None = None
    while waiting := list(worker.receive()):
        last = waiting[-1]
    assert last is not None
    assert last[0] == Offer(2, 0, "h", 1)
    assert last[1] is not None
    os.close(last[1])


def test_a_descriptor_keeps_its_place_in_what_waits(pair: tuple[Channel, Channel]) -> None:
    """Its sender may close it at once; behind it and before it the order is kept."""
    main, worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    sent = 0
    while not loop.writers:
        main.send(Abandon(sent))
        sent += 1
    with tempfile.TemporaryFile() as file:
        file.write(b"rules")
        file.flush()
        main.send(Stop(), file.fileno())
        # As it is written by now, and by a number that is another file's soon.
    main.send(Abandon(sent))
    got: list[tuple[object, int | None]] = []
    while len(got) < sent + 2:
        before = len(got)
        got += worker.receive()
        loop.run()
        assert len(got) > before
    assert [message for message, _fd in got] == [*map(Abandon, range(sent)), Stop(), Abandon(sent)]
    assert [n for n, (_message, fd) in enumerate(got) if fd is not None] == [sent]
    fd = got[sent][1]
    assert fd is not None
    assert os.pread(fd, 10, 0) == b"rules"
    os.close(fd)


@pytest.mark.parametrize("who", ["this end", "the other end"])
def test_descriptors_that_wait_are_closed_with_the_channel(
    pair: tuple[Channel, Channel], who: str
) -> None:
    main, worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    while not loop.writers:
        main.send(Abandon(1))
    open_now = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as file:
        main.send(Stop(), file.fileno())
        main.send(Stop(), file.fileno())
    assert len(os.listdir("/proc/self/fd")) == open_now + 2
    if who == "the other end":
        worker.close()
        assert received(main) == []
        # Nobody will ever read it, so nothing is kept for that.
        with open(os.devnull) as file:
            main.send(Stop(), file.fileno())
        open_now -= 1
    main.close()
    assert len(os.listdir("/proc/self/fd")) == open_now - 1
    assert loop.writers == {}


def test_a_descriptor_that_cannot_be_kept_is_not_sent(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the message would mislead; what comes behind goes on."""
    main, worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    sent = 0
    while not loop.writers:
        main.send(Abandon(sent))
        sent += 1

    def none_left(_fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", none_left)
    with open(os.devnull) as file, pytest.raises(OSError, match="Too many open files"):
        main.send(Stop(), file.fileno())
    main.send(Abandon(sent))
    got: list[object] = []
    while len(got) < sent + 1:
        got += received(worker)
        loop.run()
    assert got == [Abandon(n) for n in range(sent + 1)]


def test_closing_with_a_backlog(pair: tuple[Channel, Channel]) -> None:
    main, _worker = pair
    loop = Loop()
    main.write_with(loop.add_writer, loop.remove_writer)
    while not loop.writers:
        main.send(Abandon(1))
    main.close()
    assert loop.writers == {}
    main.close()


def test_a_message_of_the_other_direction_is_an_error(pair: tuple[Channel, Channel]) -> None:
    main, worker = pair
    with contextlib.suppress(BlockingIOError):
        main.send(Ready())
    with pytest.raises(msgspec.ValidationError):
        received(worker)


def test_waits_on_a_descriptor_above_1023() -> None:
    """select() cannot: a service may have that many files open before it starts a worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    theirs.close()
    main, worker = Channel(ours, FromWorker), Channel(socket.socket(fileno=high), ToWorker)
    assert worker.fileno() > 1023
    main.send(Drain(2.0))
    assert worker.wait() == (Drain(2.0), None)
    main.close()
    assert worker.wait() == (None, None)
    worker.close()


def test_last_words_of_one_that_has_not_heard_all() -> None:
    """It hangs up with messages unread, and what it said before is heard all the same."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    main, worker = Channel(ours, FromWorker), Channel(theirs, ToWorker)
    main.send(Drain(2.0))
    worker.send(Ready())
    worker.send(Leaving())
    worker.close()
    heard = []
    while not main.closed:
        heard += [message for message, _fd in main.receive()]
    assert heard == [Ready(), Leaving()]
    main.close()

"""An honest peer beside others in one worker, and what that worker takes meanwhile.

`beside` lets it store and echo for as long as the block lasts. It judges at the end: nothing of it
was refused, it did not wait long, and the worker's memory and descriptors stayed within bounds.

Waits are measured twice: by the wall, which only a generous bound can judge on a busy machine, and
by the CPU time that the worker's loop used from the request to its response, which a busy machine
does not change.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from fastscp.config.settings import ServeConfig
from fastscp.main.descriptors import REDO_MOST, log_needs, worker_needs
from tests.kit import Peer, Service, data_set, echo, message, pdu, store, store_rq, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "COMMIT_DESCRIPTORS",
    "Honest",
    "Talk",
    "Worker",
    "answers",
    "at_once",
    "beside",
    "converse",
    "deaf_peer",
    "widen",
]

MIB: Final = 1 << 20
# So many parts may be open for the commit (UNCOMMITTED_MOST), with a lock or a second file each,
# and the directories of a batch.
COMMIT_DESCRIPTORS: Final = 4 * 256 + 64
# The redo log keeps those parts besides that it named, until a checkpoint; and it has a few open
# for itself.
LOG_DESCRIPTORS: Final = log_needs(ServeConfig(), REDO_MOST)
LOG_BESIDE: Final = LOG_DESCRIPTORS - REDO_MOST
# Bounds of the judgement.
GROWTH: Final = 48 * MIB
WAIT_S: Final = 10.0
LOOP_S: Final = 1.5
# How long nothing at all may move in a conversation.
PATIENCE_S: Final = 60.0
# Between two rounds of the honest peer: one that never rests takes the loop from the helpers, and
# a core from the machine. It is far less than what the bounds above would notice.
REST_S: Final = 0.005


class Worker:
    """The only worker of a service, seen from outside. has_log: it has a redo log."""

    def __init__(self, service: Service) -> None:
        (self.pid,) = service.worker_pids()
        self._proc = Path("/proc", str(self.pid))
        self._store = f"{service.store.resolve()}/"
        # The log says so behind its first line, if it may: else all counts as the worker's.
        quiet = "error" in cast("list[str]", service.process.args)
        self.has_log = not quiet and "redo log: on" in service.in_log("main: redo log: ")

    def _status(self, name: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)

    def memory(self) -> int:
        """Resident bytes."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most there was since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        (self._proc / "clear_refs").write_text("5")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it do nothing for a while, as a busy machine may."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def open_files(self) -> tuple[int, int]:
        """How many descriptors it has, and how many of these its redo log may keep.

        That is: of files that have their final names. Without a log all count as the worker's.
        """
        names = os.listdir(self._proc / "fd")
        return len(names), sum(map(self._is_named, names)) if self.has_log else 0

    def _is_named(self, name: str) -> bool:
        fd = self._proc / "fd" / name
        try:
            path = os.readlink(fd).removesuffix(" (deleted)")
            inside = path.removeprefix(self._store)
            if "/#" in inside:
                # It was made without a name, and the system calls it so for good.
                return path != inside and os.stat(fd).st_nlink > 0
        except FileNotFoundError:
            return False  # closed since
        return (
            path != inside
            and not inside.startswith(".fastscp/")
            and inside.endswith((".dcm", ".dcm.zst"))
        )

    def descriptors(self) -> int:
        """Without those that its redo log keeps."""
        count, kept = self.open_files()
        return count - kept

    def loop_s(self) -> float:
        """CPU seconds of the thread that runs the loop."""
        schedstat = self._proc / "task" / str(self.pid) / "schedstat"
        return int(schedstat.read_text().split()[0]) / 1e9


@dataclass
class Waits:
    """What an honest peer's requests of one kind waited, in seconds."""

    wall: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)

    @staticmethod
    def at(values: list[float], share: float) -> float:
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self) -> str:
        return (
            f"{len(self.wall)} waits: median {self.at(self.wall, 0.5) * 1000:.1f} ms, "
            f"p99 {self.at(self.wall, 0.99) * 1000:.1f} ms, worst {max(self.wall) * 1000:.1f} ms; "
            f"of the loop p99 {self.at(self.loop, 0.99) * 1000:.1f} ms, "
            f"worst {max(self.loop) * 1000:.1f} ms"
        )


class Honest(threading.Thread):
    """Stores and echoes in turn until it is told to finish."""

    def __init__(self, service: Service, worker: Worker) -> None:
        super().__init__(daemon=True)
        self._worker = worker
        self._peer = service.peer(calling="HONEST")
        self._peer.socket.settimeout(PATIENCE_S)
        self._over = threading.Event()
        self.rounds = 0
        self.refused: list[int] = []
        self.stores, self.echoes = Waits(), Waits()
        self.error: BaseException | None = None
        self.most_descriptors = self.most_open = 0
        self._watch = threading.Thread(target=self._count, daemon=True)

    def run(self) -> None:
        try:
            while not self._over.is_set():
                sop = f"1.9.{self.rounds + 1}"
                self._ask(store(1, data_set(sop=sop, study="1.9", series="1.9.1"), sop=sop),
                          self.stores)  # fmt: skip
                self._ask(echo(7), self.echoes)
                self.rounds += 1
                self._over.wait(REST_S)
            self._peer.release()
        except BaseException as error:
            self.error = error
        finally:
            self._peer.close()

    def _ask(self, request: bytes, waits: Waits) -> None:
        used, began = self._worker.loop_s(), time.monotonic()
        self._peer.send(request)
        status = self._peer.read_response().status
        waits.wall.append(time.monotonic() - began)
        waits.loop.append(self._worker.loop_s() - used)
        if status:
            self.refused.append(status)

    def _count(self) -> None:
        while not self._over.wait(0.01):
            with contextlib.suppress(OSError):
                count, kept = self._worker.open_files()
                self.most_open = max(self.most_open, count)
                self.most_descriptors = max(self.most_descriptors, count - kept)

    def begin(self) -> None:
        self.start()
        self._watch.start()

    def goes_on(self, rounds: int) -> None:
        """Wait until it has done so many rounds more."""
        wanted = self.rounds + rounds
        wait_for(
            lambda: self.rounds >= wanted or self.error,
            f"{rounds} rounds of the honest peer", 2 * PATIENCE_S,
        )  # fmt: skip
        assert self.error is None, f"the honest peer: {self.error!r}"

    def forget(self) -> None:
        """What was so far only warmed up."""
        self.stores, self.echoes = Waits(), Waits()
        self.most_descriptors = self.most_open = 0

    def finish(self) -> None:
        self._over.set()
        self.join(2 * PATIENCE_S)
        self._watch.join()
        assert not self.is_alive(), "the honest peer still waits"


@contextlib.contextmanager
def beside(
    service: Service,
    *,
    growth: int = GROWTH,
    loop_s: float = LOOP_S,
    p99_loop_s: float | None = None,
    more_descriptors: int | None = None,
) -> Iterator[tuple[Honest, Worker]]:
    """Run an honest peer beside the block's; the service has one worker.

    growth: bytes that the worker may take more. loop_s, p99_loop_s: CPU of the loop in the worst
    of its waits, and in all of them except one in a hundred. more_descriptors: how many the worker
    may have beside those it begins with, and beside those of its redo log if it has one; it may
    never have more than the start counted with.
    """
    worker = Worker(service)
    honest = Honest(service, worker)
    honest.begin()
    try:
        honest.goes_on(20)
        honest.forget()
        memory, descriptors = worker.memory(), worker.descriptors()
        worker.forget_peak()
        yield honest, worker
        honest.goes_on(5)
    finally:
        honest.finish()
    grown = worker.peak() - memory
    opened = honest.most_descriptors - descriptors
    print(f"stores: {honest.stores}\nechoes: {honest.echoes}")
    kept = honest.most_open - honest.most_descriptors
    print(f"memory: {grown / MIB:+.1f} MiB, descriptors: {opened:+d}, of the log: {kept:+d}")
    assert honest.error is None, f"the honest peer: {honest.error!r}"
    assert honest.refused == [], "the honest peer was refused"
    assert grown <= growth, f"{grown / MIB:.0f} MiB more than before"
    log, log_beside = (LOG_DESCRIPTORS, LOG_BESIDE) if worker.has_log else (0, 0)
    counted = worker_needs(ServeConfig(), ServeConfig().max_associations)
    assert honest.most_open <= counted + log, f"{honest.most_open} descriptors"
    assert honest.most_descriptors <= counted + log_beside, f"{honest.most_descriptors} descriptors"
    if more_descriptors is not None:
        assert opened <= more_descriptors + log_beside, f"{opened} descriptors more than before"
    for what, waits in (("store", honest.stores), ("echo", honest.echoes)):
        assert max(waits.loop) < loop_s, f"{what}: the loop did others' work meanwhile"
        assert max(waits.wall) < WAIT_S, f"{what}: waited too long"
        if p99_loop_s is not None:
            assert waits.at(waits.loop, 0.99) < p99_loop_s, f"{what}: too much beside it"


# Many peers at once ------------------------------------------------------------------------------


@dataclass(eq=False)
class Talk:
    """What one peer has to say, and what it heard.

    due: PDUs it waits for. endless: it says the same again and again. deaf: it reads nothing.
    keep: what it heard stays, for `answers`. step: bytes handed over at a time.
    """

    peer: Peer
    out: bytes
    due: int = 0
    endless: bool = False
    deaf: bool = False
    keep: bool = True
    step: int = 1 << 18
    at: int = 0
    heard: int = 0
    got: bytearray = field(default_factory=bytearray)
    _parsed: int = 0

    @property
    def said(self) -> bool:
        return self.at == len(self.out)

    @property
    def over(self) -> bool:
        return self.said and (self.deaf or self.heard >= self.due)

    def say(self) -> bool:
        """Hand over more; whether the kernel took any."""
        if self.said:
            if not self.endless:
                return False
            self.at = 0
        try:
            n = self.peer.socket.send(memoryview(self.out)[self.at : self.at + self.step])
        except BlockingIOError:
            return False
        self.at += n
        return True

    def hear(self) -> bool:
        try:
            more = self.peer.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        assert more, f"closed after {self.heard} of {self.due} answers"
        self.got += more
        while len(self.got) >= self._parsed + 6:
            (length,) = struct.unpack_from(">I", self.got, self._parsed + 2)
            if len(self.got) < self._parsed + 6 + length:
                break
            self._parsed += 6 + length
            self.heard += 1
        if not self.keep:
            del self.got[: self._parsed]
            self._parsed = 0
        return True


def converse(talks: Iterable[Talk], until: Callable[[], bool] | None = None) -> None:
    """Let them speak and hear at once until all is over, or `until` says so.

    AssertionError where nothing moves any more, or the service closes one.
    """
    talks = list(talks)
    until = until or (lambda: all(talk.over for talk in talks))
    with selectors.DefaultSelector() as selector:
        for talk in talks:
            talk.peer.socket.setblocking(False)
            if _interest(talk):
                selector.register(talk.peer.socket, _interest(talk), talk)
        moved_at = time.monotonic()
        while not until():
            for key, events in selector.select(0.05):
                talk = key.data
                moved = bool(events & selectors.EVENT_READ) and talk.hear()
                moved |= bool(events & selectors.EVENT_WRITE) and talk.say()
                if moved:
                    moved_at = time.monotonic()
                wanted = _interest(talk)
                if wanted != key.events:
                    if wanted:
                        selector.modify(key.fileobj, wanted, talk)
                    else:
                        selector.unregister(key.fileobj)
            still = time.monotonic() - moved_at
            assert still < PATIENCE_S, "nothing moves any more"
    for talk in talks:
        talk.peer.socket.settimeout(PATIENCE_S)


def _interest(talk: Talk) -> int:
    reads = 0 if talk.deaf else selectors.EVENT_READ
    return reads | (selectors.EVENT_WRITE if talk.endless or not talk.said else 0)


def answers(talk: Talk) -> list[tuple[int, int]]:
    """Message ID and status of each response it heard, where each is one PDU."""
    found = []
    for at in _pdus(talk.got):
        command = memoryview(talk.got)[at + 12 :]
        values = {0x0120: 0, 0x0900: 0}
        size = int.from_bytes(talk.got[at + 2 : at + 6], "big") - 6
        place = 0
        while place < size:
            _group, tag, length = struct.unpack_from("<HHI", command, place)
            if tag in values:
                (values[tag],) = struct.unpack_from("<H", command, place + 8)
            place += 8 + length
        found.append((values[0x0120], values[0x0900]))
    return found


def _pdus(data: bytearray) -> Iterator[int]:
    at = 0
    while at < len(data):
        yield at
        at += 6 + int.from_bytes(data[at + 2 : at + 6], "big")


def widen(peer: Peer, context: int = 1) -> None:
    """Bring the kernel to keep some MiB for the service, as behind a long transfer.

    The data set is refused for its instance's name, and dropped.
    """
    data = bytes(1 << 20)
    peer.send(message(store_rq(1, sop="a/b"), None, context=context))
    for n in range(12):
        header = 2 if n == 11 else 0
        peer.send(pdu(4, struct.pack(">IBB", len(data) + 2, context, header) + data))
    assert peer.read_response().status == 0x0117


def at_once(worker: Worker, talks: Iterable[Talk]) -> None:
    """Let each say all that the kernel takes before the worker reads a byte of it."""
    with worker.stopped():
        for talk in talks:
            talk.peer.socket.setblocking(False)
            while not talk.said and talk.say():
                pass


def deaf_peer(service: Service, rq: bytes) -> Peer:
    """A peer that is associated, in whose receive buffer hardly anything fits."""
    peer = service.connect(receive_buffer=1024)
    try:
        answer = peer.associate(rq)
        assert answer is not None
        assert answer[0] == 2, answer
        widen(peer)
    except BaseException:
        peer.close()
        raise
    return peer

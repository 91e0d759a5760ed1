"""Which worker gets a connection: offered, claimed, taken back, or turned away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.association.account import ENDS_SHOWN, Account, Ending, Who, in_bytes
from fastscp.log import address, caused, fields
from fastscp.main.places import Places
from fastscp.messages.page import WorkerStatus
from fastscp.messages.worker import (
    Abandon,
    Ask,
    Displaced,
    End,
    Gone,
    Idle,
    Leaving,
    Offer,
    Over,
    Relayed,
    Taken,
    Unshaken,
)
from fastscp.tls.reasons import COUNTED, TURNED_AWAY
from fastscp_ext import (
    AssociateRJ,
    ProxyHeader,
    ProxyHeaderError,
    Tally,
    encode_associate_rj,
)

if TYPE_CHECKING:
    import msgspec

    from fastscp.main.admission import Admission, Lost
    from fastscp.main.members import Worker
    from fastscp.messages.page import Standing
    from fastscp_ext import Shared

__all__ = ["OFFERED_MOST", "TURNED_AWAY_MOST", "WAITING_MOST", "Dispatch", "Takers"]

log = logging.getLogger("fastscp.main")

# How long a worker may leave an offered connection unclaimed before another gets it.
_CLAIM_S: Final = 2.0
# Bytes a second that weigh as much as one association more, when choosing a worker.
_BYTES_PER_LOAD: Final = 8 << 20
_LOAD_EVERY_S: Final = 0.5
# So many associations more weighs a large data set, of which the worker has read within that time:
# whoever is beside it waits for its reads and writes, as for so many others' small ones.
_LARGE_LOAD: Final = 8
_LARGE_S: Final = 1.0
# A file call of a worker's loop that takes longer than this: the disk is blocked.
_BLOCKED_MS: Final = 250
# And than this: the log is told.
_TOLD_MS: Final = 1000
# Commits of a worker that end no flush and no batch for so long wait for the disk, too: flushes of
# a busy one may take seconds, and those of many bytes longer, at so many a second.
_STUCK_S: Final = 10.0
_STUCK_RATE: Final = 16 << 20
# With which main itself rejects: transient, temporary congestion (PS3.8 Table 9-21).
_CONGESTED: Final = "2,3,1"
# How long a peer may take to send the request that main itself rejects.
_TURN_AWAY_S: Final = 5.0
# Connections on their way to workers; each has a slot among the shared claims.
OFFERED_MOST: Final = 512
# Connections that wait for a worker to be there; as long as there are so many nobody accepts more.
WAITING_MOST: Final = 256
# Connections that main itself rejects at a time; beyond that the oldest is closed.
TURNED_AWAY_MOST: Final = 256
# How long a connection may go from worker to worker, or wait for one, before main rejects it.
_NOBODY_S: Final = 5.0
# The same while all workers drain, each to be followed by another.
_SUCCESSOR_S: Final = 20.0
# Between looks whether all that was accepted has come to a worker.
_SETTLE_LOOK_S: Final = 0.01


# A record of TLS, an alert: fatal, internal error.
_INTERNAL_ERROR: Final = b"\x15\x03\x03\x00\x02\x02\x50"


class _Connection(NamedTuple):
    """A connection, or main's copy of it; whoever holds it owns the socket.

    since: its accept. tls: whether it came to the port where TLS is spoken. left_by: the number of
    the silent worker that left it lying last; -1: none.
    """

    sock: socket.socket
    host: str
    port: int
    since: float
    tls: bool = False
    left_by: int = -1


class _Offered(NamedTuple):
    """A connection on its way to a worker, in which slot of the claims, and since when."""

    connection: _Connection
    slot: int
    when: float


class Takers(NamedTuple):
    """How many workers take connections.

    ready: that are up, and do not leave. answering: of these, those whose loop goes on, or waits
    for the disk. free: of these, those that do not wait for the disk.
    """

    ready: int
    answering: int
    free: int


@dataclass(eq=False)
class _Target:
    """A worker as a target of offers.

    told_of: when the file call began of which the log was told, ms; 0: of none. steps: of its
    commits, when it was last looked at; still_s: for how long they are at the same. is_stuck: that
    is too long; is_stuck_told: the log has it, and nothing of its end. offered: those on their way
    to it, by number. is_leaving: it drains, and takes none any more.
    """

    worker: Worker
    told_of: int = 0
    steps: int = 0
    still_s: float = 0.0
    is_stuck: bool = False
    is_stuck_told: bool = False
    is_leaving: bool = False
    last_bytes: int = 0
    rate: float = 0.0
    offered: dict[int, _Offered] = field(default_factory=dict)

    @property
    def is_followed(self) -> bool:
        """Whether it drains, and another takes its place then."""
        return self.is_leaving and not self.worker.is_retired


class Dispatch:
    """Hands connections to workers, and answers what workers ask about them.

    run_id: what the ids of associations begin with. `rejected`, `blocked_s` and
    `handshakes_failed`, of TLS by reason, only grow.
    """

    def __init__(self, admission: Admission, shared: Shared, run_id: str) -> None:
        self._admission = admission
        self._shared = shared
        self._run = run_id
        # Seconds that workers waited for the disk, all together.
        self.blocked_s = 0.0
        # Handshakes that failed, by reason, all that there can be; these only grow.
        self.handshakes_failed: dict[str, int] = dict.fromkeys(COUNTED, 0)
        self._loop = asyncio.get_running_loop()
        self._places = Places(
            admission, run_id=run_id, tell=self._tell, listens=self._listens,
            call_later=self._loop.call_later,
        )  # fmt: skip
        self._targets: dict[int, _Target] = {}
        self._free_slots = list(range(OFFERED_MOST))
        self._waiting: deque[_Connection] = deque()
        # Those that main rejects, the oldest first.
        self._turned_away: dict[asyncio.Task[None], socket.socket] = {}
        self._number = 0
        # When a worker that drained was last gone: its successor is due then.
        self._last_left = 0.0

    def start(self) -> None:
        """Begin to weigh the workers."""
        self._loop.call_later(_LOAD_EVERY_S, self._watch)

    def close(self) -> None:
        """Close the connections that no worker has."""
        while self._waiting:
            self._waiting.popleft().sock.close()
        for task in list(self._turned_away):
            task.cancel()

    @property
    def has_room(self) -> bool:
        """Whether another connection can be taken; the kernel keeps it until then."""
        return len(self._waiting) < WAITING_MOST

    @property
    def is_settled(self) -> bool:
        """Whether every connection that was taken has come to a worker."""
        return not self._waiting and not any(one.offered for one in self._targets.values())

    async def settled(self, seconds: float) -> None:
        """Wait until that is so, at most for so long. Nobody accepts meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # They come one by one, from several processes; a look now and then is simpler.
                while not self.is_settled:  # noqa: ASYNC110
                    await asyncio.sleep(_SETTLE_LOOK_S)

    def connected(self, sock: socket.socket, host: str, port: int, *, tls: bool = False) -> None:
        """Take an accepted connection. tls: it came to the port where TLS is spoken."""
        self._hand_over(_Connection(sock, host, port, time.monotonic(), tls))

    # What an operator asks for -------------------------------------------------------------------

    @property
    def takers(self) -> Takers:
        """How many workers take connections, and how soon."""
        standings = list(map(self._standing, self._targets.values()))
        up = standings.count("up")
        answering = up + standings.count("waits for the disk")
        return Takers(answering + standings.count("does not answer"), answering, up)

    def workers(self) -> list[WorkerStatus]:
        """How each worker stands, and what it has."""
        return [
            WorkerStatus(
                number=number, state=self._standing(target),
                connections=self._admission.load(number), rate=round(target.rate),
            )
            for number, target in sorted(self._targets.items())
        ]  # fmt: skip

    def _standing(self, target: _Target) -> Standing:
        if not target.worker.is_ready:
            return "starting"
        if target.is_leaving:
            return "leaving"
        if self._is_blocked(target):
            return "waits for the disk"
        return "does not answer" if self._is_silent(target) else "up"

    def end(self, number: int, why: str) -> None:
        """End an association, or a connection; its worker tells of the end as of any other."""
        booked = self._admission.booked(number)
        target = None if booked is None else self._targets.get(booked.worker)
        if target is None:
            return
        offered = target.offered.get(number)
        if offered is not None and self._shared.claims.claim(offered.slot, number):
            # Its worker has not even looked at it, and may never do so.
            connection = self._claimed_back(target, number)
            connection.sock.close()
            peer = address(connection.host, connection.port)
            log.info("%s.%d %s: %s", self._run, number, peer, why, extra=fields(peer=peer))
        else:
            target.worker.channel.send(End(number, why))

    def _ready(self) -> list[_Target]:
        """The workers that take connections, or would if it were not for the disk."""
        return [
            target
            for target in self._targets.values()
            if target.worker.is_ready and not target.is_leaving
        ]

    def turn_away(self, sock: socket.socket, host: str, port: int, *, tls: bool = False) -> None:
        """Reject an accepted connection, for which there is nothing but its own descriptor."""
        connection = _Connection(sock, host, port, time.monotonic(), tls)
        self._turn_away(connection, "main is out of open files, or of memory")

    # What is told of workers ---------------------------------------------------------------------

    def joined(self, worker: Worker) -> None:
        # It goes on counting where the one before it ended.
        received = self._shared.rows.received(worker.number)
        self._targets[worker.number] = _Target(worker, last_bytes=received)

    def held(self, generation: int) -> None:
        self._admission.forget(before=generation)

    def came_up(self, worker: Worker) -> None:  # noqa: ARG002 - whoever waits, waits for any
        self._hand_over_waiting()

    def heard(self, worker: Worker, message: object) -> None:
        match message:
            case Relayed():
                self._admission.relayed(message.number, message.host, message.port)
            case Ask():
                self._places.ask(worker.number, message)
            case Idle():
                self._places.idle(worker.number, message)
            case Displaced():
                self._places.displaced(worker.number, message)
            case Unshaken():
                self.handshakes_failed[message.reason] += 1
            case Over():
                if message.rejected:
                    self._admission.endings.rejected[message.rejected] += 1
                self._admission.over(message.number)
                self._places.closed(message.number)
            case Gone():
                if message.ended:
                    self._admission.endings.end(message.ended)
                self._admission.closed(message.number)
                self._places.closed(message.number)
            case Leaving():
                self._leaving(worker)
            case Taken():
                offered = self._offered_to(worker).pop(message.number, None)
                if offered is not None:
                    offered.connection.sock.close()
                    self._free_slots.append(offered.slot)
                    self._tell_found(offered.connection, worker)
                    # There is a slot, and a worker that listens.
                    self._hand_over_waiting()

    def _tell_found(self, connection: _Connection, worker: Worker) -> None:
        """Say that a connection which a worker left lying is in good hands now.

        Not before: it may be turned away yet. At the end nobody goes on.
        """
        if connection.left_by < 0 or self._admission.draining:
            return
        peer = address(connection.host, connection.port)
        log.warning(
            "worker %d is silent; %s goes on in worker %d",
            connection.left_by, peer, worker.number,
            extra={
                **caused("taken back from a silent worker", connection.host),
                **fields(peer=peer, worker=connection.left_by),
            },
        )  # fmt: skip

    def _leaving(self, worker: Worker) -> None:
        """Hand on what is on its way to a worker that takes none any more; its others go on."""
        target = self._targets.get(worker.number)
        if target is None or target.worker is not worker:
            return
        target.is_leaving = True
        for number, (_connection, slot, _when) in list(target.offered.items()):
            # What it claimed it has told of before.
            if self._shared.claims.claim(slot, number):
                self._take_back(target, number)

    def left(self, worker: Worker) -> int:
        """Hand on what was on its way to a worker that is gone.

        Returns how many associations are lost.
        """
        offered = self._offered_to(worker)
        if worker.number not in self._targets or self._targets[worker.number].worker is not worker:
            # What the books hold of this number is another life's.
            return 0
        if self._targets.pop(worker.number).is_followed:
            self._last_left = time.monotonic()
        found = self._admission.lost(worker.number)
        self._count_lost(found)
        associations = sum([self._tell_lost(one, worker.number) for one in found])
        self._admission.died(worker.number)
        self._places.left(worker.number)
        for number, (connection, slot, _when) in offered.items():
            # Claimed or not: a dead worker serves nobody.
            self._shared.claims.claim(slot, number)
            self._free_slots.append(slot)
            self._hand_over(connection)
        return associations

    def connections_of(self, worker: Worker) -> int:
        return self._admission.load(worker.number)

    @property
    def rejected(self) -> int:
        """Associations that were rejected, by whomever."""
        return self._admission.endings.rejected.total()

    def _count_lost(self, found: list[Lost]) -> None:
        """Count the ends that a dead worker did not come to tell of."""
        for lost in found:
            if self._admission.booked(lost.number) is not None:
                done = Tally() if lost.tally < 0 else self._shared.tallies.read(lost.tally)
                self._admission.endings.end(done.ended)

    def _tell_lost(self, lost: Lost, worker: int) -> bool:
        """Write the line of an association's end in the stead of its worker, which cannot.

        Returns whether it was lost: it may have ended, and its worker had not come to write that.
        """
        done = Tally() if lost.tally < 0 else self._shared.tallies.read(lost.tally)
        if done.is_told or (lost.is_over and not done.ended):
            return False
        peer = address(lost.host, lost.port)
        who = Who(f"{self._run}.{lost.number}", peer, lost.calling_ae, lost.called_ae)
        why = f"worker {worker} ended"
        if done.ended:
            ending = Ending.numbered(done.ended, f"told by main, for {why} before it could")
        else:
            ending = Ending("lost with its worker", why=why)
        account = Account(who, lost.rules, lost.terms, done, time.monotonic() - lost.since)
        did, told = account.text(), account.fields()
        if lost.tally < 0:
            # More associations than slots: only their worker counted what they did.
            did, told = "what it did is not known", who.fields()
        extra = dict(fields(told, ending.fields(), worker=worker))
        if done.ended and not (done.stored or done.kept):
            kind = ending.kind
            if kind == "released":
                kind = "released without an instance"
            extra.update(caused(kind, lost.host, ENDS_SHOWN, (0, done.refused)))
        is_costly = account.is_costly or not done.ended
        log.log(
            logging.WARNING if is_costly else logging.INFO,
            "%s: %s; %s", who.name, ending.text, did, extra=extra,
        )  # fmt: skip
        return not done.ended

    def _tell(self, number: int, message: msgspec.Struct) -> None:
        if number in self._targets:
            self._targets[number].worker.channel.send(message)

    def _listens(self, number: int) -> bool:
        """Whether a worker can be expected to answer soon."""
        target = self._targets.get(number)
        return target is not None and not self._is_blocked(target) and not self._is_silent(target)

    def _offered_to(self, worker: Worker) -> dict[int, _Offered]:
        """What is on its way to a worker; nothing where another life has its place."""
        target = self._targets.get(worker.number)
        return target.offered if target is not None and target.worker is worker else {}

    # Handing over --------------------------------------------------------------------------------

    def _hand_over(self, connection: _Connection) -> None:
        """Give a connection to a worker, behind those that wait for one."""
        self._waiting.append(connection)
        self._hand_over_waiting()

    def _hand_over_waiting(self) -> None:
        """Give those that wait to the workers with the least load, as far as these take them.

        The others wait on: all workers are starting, too busy to listen, or about to be replaced.
        """
        while self._waiting:
            ready = self._ready()
            free = [target for target in ready if not self._is_blocked(target)]
            connection = self._waiting[0]
            if ready and not free:
                self._turn_away(connection, "every worker waits for the disk")
            elif not ready and (why := self._admission.draining or self._admission.paused):
                self._turn_away(connection, why)
            elif self._waited_for_nothing(connection, is_any_ready=bool(ready)):
                self._turn_away(connection, "no worker takes the connection")
            elif not self._offer_to_one(sorted(free, key=self._load), connection):
                return
            self._waiting.popleft()

    def _waited_for_nothing(self, connection: _Connection, *, is_any_ready: bool) -> bool:
        """Whether a connection has waited long enough; for a successor it does for longer.

        A worker that drains ends within its time, and its place is taken then. Peers give up after
        half a minute or so.
        """
        if not is_any_ready and any(target.is_followed for target in self._targets.values()):
            return time.monotonic() - connection.since > _SUCCESSOR_S
        return time.monotonic() - max(connection.since, self._last_left) > _NOBODY_S

    def _offer_to_one(self, targets: list[_Target], connection: _Connection) -> bool:
        """Offer a connection to the first worker that takes an offer."""
        if not self._free_slots:
            return False
        self._number += 1
        slot = self._free_slots[-1]
        if not any(self._offer(target, slot, self._number, connection) for target in targets):
            return False
        self._free_slots.pop()
        return True

    def _offer(self, target: _Target, slot: int, number: int, connection: _Connection) -> bool:
        """Offer a connection to a worker; whether the offer is on its way."""
        sock, host, port, since, tls, _left_by = connection
        worker = target.worker
        self._shared.claims.offer(slot, number)
        if not worker.channel.offer(Offer(number, slot, host, port, tls), sock.fileno()):
            return False
        target.offered[number] = _Offered(connection, slot, time.monotonic())
        opened = self._admission.opened(number, host, worker.number, port, since)
        for other, at in opened:
            self._tell(at, Abandon(other))
        return True

    # Turning away --------------------------------------------------------------------------------

    def _turn_away(self, connection: _Connection, why: str) -> None:
        """Reject an association where no worker can; beyond a number the oldest is closed."""
        sock, host, port, _since, tls, _left_by = connection
        peer = address(host, port)
        if tls:
            self.handshakes_failed[TURNED_AWAY] += 1
            ended = "turned away before its TLS handshake"
            log.warning(
                "%s: %s (alert: internal_error): %s", peer, ended, why,
                extra={**caused(ended, host), **fields(peer=peer, ended=ended, reason=why)},
            )  # fmt: skip
        else:
            self._admission.endings.rejected[_CONGESTED] += 1
            log.warning(
                "%s: rejected (2,3,1): %s", peer, why,
                extra={
                    **caused("rejected", host),
                    **fields(peer=peer, ended="rejected", code="2,3,1", reason=why),
                },
            )  # fmt: skip
        task = self._loop.create_task(self._hang_up(sock) if tls else self._reject(sock))
        self._turned_away[task] = sock
        task.add_done_callback(self._rejected)
        for oldest in list(self._turned_away)[:-TURNED_AWAY_MOST]:
            oldest.cancel()

    def _rejected(self, task: asyncio.Task[None]) -> None:
        # One that was cancelled may not have begun, and has not closed it.
        self._turned_away.pop(task).close()
        if not task.cancelled() and task.exception() is not None:
            log.error(
                "a connection was closed because of a bug",
                exc_info=task.exception(), extra=caused("bug"),
            )  # fmt: skip

    async def _hang_up(self, sock: socket.socket) -> None:
        """Say in an alert that it cannot be: main speaks no TLS, and reads what comes first alone.

        Source: RFC 8446 6.2 (internal_error), 5.1.
        """
        with contextlib.suppress(OSError, asyncio.TimeoutError), sock:
            sock.setblocking(False)
            async with asyncio.timeout(_TURN_AWAY_S):
                if await self._loop.sock_recv(sock, 4096):
                    await self._loop.sock_sendall(sock, _INTERNAL_ERROR)
                sock.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(sock, 4096):
                    pass

    async def _reject(self, sock: socket.socket) -> None:
        """Send an A-ASSOCIATE-RJ: transient, temporary congestion.

        The request is read first: a peer may not look at an answer that comes before it. A PROXY
        header may stand in front; it does not matter here whether anybody believes it.
        Source: PS3.8 9.3.4.
        """
        with contextlib.suppress(OSError, asyncio.TimeoutError), sock:
            sock.setblocking(False)
            async with asyncio.timeout(_TURN_AWAY_S):
                head = await self._behind_header(sock)
                while len(head) < 6 and (data := await self._loop.sock_recv(sock, 6 - len(head))):
                    head += data
                length = int.from_bytes(head[2:6], "big") if head[:1] == b"\x01" else 0
                left = 6 + length - len(head) if length <= 1 << 20 else 0
                while left > 0 and (data := await self._loop.sock_recv(sock, min(left, 4096))):
                    left -= len(data)
                await self._loop.sock_sendall(sock, encode_associate_rj(AssociateRJ(2, 3, 1)))
                sock.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(sock, 4096):
                    pass

    async def _behind_header(self, sock: socket.socket) -> bytes:
        """Read a PROXY header; returns what was read of something else, as of a request."""
        header = ProxyHeader()
        data = b""
        with contextlib.suppress(ProxyHeaderError):
            while header.least and (data := await self._loop.sock_recv(sock, header.least)):
                header.feed(data)
        return b"" if header.is_whole else data

    # Weighing workers ----------------------------------------------------------------------------

    def _is_blocked(self, target: _Target) -> bool:
        """Whether the worker waits for the disk: nothing is sent there, nobody kills it."""
        return self._is_in_call(target) or target.is_stuck

    def _look_at_commits(self, target: _Target) -> None:
        """See whether the threads of the worker's commits get anywhere; the loop waits for none.

        Looks are counted, not the clock: a main that was stopped blames no disk.
        """
        number = target.worker.number
        waits = self._shared.liveness.bytes_in_flight(number)
        steps = self._shared.rows.commit_steps(number)
        is_through = not waits or steps != target.steps
        # That its loop is silent does not say that they are through: the process may have been
        # killed, and a flush that hangs keeps it from ending.
        is_silent = self._is_silent(target)
        target.still_s = 0.0 if is_through or is_silent else target.still_s + _LOAD_EVERY_S
        target.steps = steps
        target.is_stuck = target.still_s >= _STUCK_S + waits / _STUCK_RATE
        if target.is_stuck and not target.is_stuck_told:
            target.is_stuck_told = True
            log.error(
                "worker %d has not flushed anything for %.0f s, and %s wait for that: it "
                "gets no connections until it is through; check the store's disk",
                number, target.still_s, in_bytes(waits), extra=fields(worker=number),
            )  # fmt: skip
        elif target.is_stuck_told and is_through:
            target.is_stuck_told = False
            log.error("worker %d flushes again", number, extra=fields(worker=number))

    def _is_in_call(self, target: _Target) -> bool:
        """Whether the worker's loop is inside a file call, and waits there for the disk."""
        number = target.worker.number
        # Our clock first: a stamp that is made while main itself has to wait is not old.
        now_ms = time.monotonic() * 1000
        since = self._shared.liveness.disk_since(number)
        for_ms = now_ms - since if since else 0.0
        blocked = for_ms > _BLOCKED_MS and not self._wants_processor(target)
        if target.told_of and since != target.told_of:
            # That it was seen to compute meanwhile is no end of the call.
            target.told_of = 0
            log.error("worker %d is through with the disk", number, extra=fields(worker=number))
        if blocked and for_ms > _TOLD_MS and not target.told_of:
            target.told_of = since
            log.error(
                "worker %d waits for the disk for %.1f s: it gets no connections until it is "
                "through; check the store's disk",
                number, for_ms / 1000, extra=fields(worker=number),
            )  # fmt: skip
        return blocked

    @staticmethod
    def _wants_processor(target: _Target) -> bool:
        """Whether the worker's loop is inside a file call because others have the processors.

        Under a load a file system in memory takes a second for a call, too, and no disk is to
        blame. A loop that waits for a disk, or for whoever serves it, sleeps.
        """
        process = target.worker.process
        return process is not None and process.is_runnable()

    def _load(self, target: _Target) -> tuple[bool, float]:
        """For sorting: whether its loop stands still, then what it has to do."""
        load = self._admission.load(target.worker.number) + target.rate / _BYTES_PER_LOAD
        if self._has_large(target):
            load += _LARGE_LOAD
        return self._is_silent(target), load

    def _has_large(self, target: _Target) -> bool:
        """Whether the worker has a large data set in hand, which its rate may not tell yet."""
        read_at = self._shared.liveness.large_ms(target.worker.number) / 1000
        return time.monotonic() - read_at < _LARGE_S

    def _is_silent(self, target: _Target) -> bool:
        """Whether the worker's loop stands still."""
        heartbeat = self._shared.liveness.alive_ms(target.worker.number) / 1000
        return time.monotonic() - max(target.worker.started, heartbeat) > _CLAIM_S

    def _watch(self) -> None:
        """Weigh the workers, and take back connections that one of them leaves lying."""
        self._loop.call_later(_LOAD_EVERY_S, self._watch)
        now = time.monotonic()
        self._hand_over_waiting()
        for target in list(self._targets.values()):
            self._look_at_commits(target)
            if self._is_blocked(target):
                self.blocked_s += _LOAD_EVERY_S
            received = self._shared.rows.received(target.worker.number)
            target.rate = (target.rate + (received - target.last_bytes) / _LOAD_EVERY_S) / 2
            target.last_bytes = received
            for number, (_connection, slot, when) in list(target.offered.items()):
                if now - when > _CLAIM_S and self._shared.claims.claim(slot, number):
                    left = self._claimed_back(target, number)
                    self._hand_over(left._replace(left_by=target.worker.number))

    def _take_back(self, target: _Target, number: int) -> None:
        """Hand on a connection that was offered, and that main has claimed itself."""
        self._hand_over(self._claimed_back(target, number))

    def _claimed_back(self, target: _Target, number: int) -> _Connection:
        """A connection that was offered and that main has claimed itself: nobody's again."""
        connection, slot, _when = target.offered.pop(number)
        self._free_slots.append(slot)
        self._admission.closed(number)
        return connection

"""Which worker gets a connection: offered, claimed, taken back, or turned away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.messages.worker import Abandon, Ask, Gone, Offer, Taken
from fastscp_ext import AssociateRJ, encode_associate_rj

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastscp.main.admission import Admission
    from fastscp.main.workers import Worker
    from fastscp_ext import Shared

__all__ = ["Dispatch"]

log = logging.getLogger("fastscp.main")

# How long a worker may leave an offered connection unclaimed before another gets it.
_CLAIM_S: Final = 2.0
# Bytes a second that weigh as much as one association more, when choosing a worker.
_BYTES_PER_LOAD: Final = 8 << 20
_LOAD_EVERY_S: Final = 0.5
# A file call of a worker's loop that takes longer than this: the disk is blocked.
_BLOCKED_MS: Final = 250
# How long a peer may take to send the request that main itself rejects.
_TURN_AWAY_S: Final = 5.0
# Connections that wait for a worker to be there.
_WAITING_MOST: Final = 256


class _Connection(NamedTuple):
    """A connection, or main's copy of it; whoever holds it owns the socket."""

    sock: socket.socket
    host: str
    port: int


@dataclass(eq=False)
class _Target:
    """A worker as a target of offers.

    offered: those on their way to it, by number, each with the time of the offer.
    """

    worker: Worker
    is_blocked: bool = False
    last_bytes: int = 0
    rate: float = 0.0
    offered: dict[int, tuple[_Connection, float]] = field(default_factory=dict)


class Dispatch:
    """Hands connections to workers, and answers what workers ask about them.

    background(work): lets a coroutine run beside the others.
    """

    def __init__(
        self,
        admission: Admission,
        shared: Shared,
        background: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        self._admission = admission
        self._shared = shared
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._targets: dict[int, _Target] = {}
        self._waiting: list[_Connection] = []
        self._number = 0

    def start(self) -> None:
        """Begin to weigh the workers."""
        self._loop.call_later(_LOAD_EVERY_S, self._watch)

    def close(self) -> None:
        """Close the connections that no worker has."""
        for connection in self._waiting:
            connection.sock.close()

    def connected(self, sock: socket.socket, host: str, port: int) -> None:
        """Take an accepted connection."""
        self._hand_over(_Connection(sock, host, port))

    # What is told of workers ---------------------------------------------------------------------

    def joined(self, worker: Worker) -> None:
        # It goes on counting where the one before it ended.
        received = self._shared.rows.received(worker.number)
        self._targets[worker.number] = _Target(worker, last_bytes=received)

    def came_up(self, worker: Worker) -> None:  # noqa: ARG002 - whoever waits, waits for any
        self._hand_over_waiting()

    def heard(self, worker: Worker, message: object) -> None:
        match message:
            case Ask():
                worker.channel.send(
                    self._admission.ask(message.number, message.calling_ae, message.called_ae)
                )
            case Gone():
                self._admission.closed(message.number)
            case Taken():
                offered = self._targets[worker.number].offered.pop(message.number, None)
                if offered is not None:
                    connection, _when = offered
                    connection.sock.close()

    def left(self, worker: Worker) -> int:
        """Hand on what was on its way to a worker that is gone.

        Returns how many associations are lost.
        """
        target = self._targets.get(worker.number)
        if target is not None and target.worker is worker:
            del self._targets[worker.number]
            for number, (connection, _when) in target.offered.items():
                # Claimed or not: a dead worker serves nobody.
                self._shared.claims.claim(number)
                self._admission.closed(number)
                self._hand_over(connection)
        associations, _connections = self._admission.died(worker.number)
        return associations

    # Handing over --------------------------------------------------------------------------------

    def _hand_over(self, connection: _Connection) -> None:
        """Give a connection to the worker with the least load that takes it."""
        self._number += 1
        number = self._number
        ready = [target for target in self._targets.values() if target.worker.is_ready]
        free = [target for target in ready if not self._is_blocked(target)]
        if ready and not free:
            self._background(self._turn_away(connection))
            return
        if any(self._offer(target, number, connection) for target in sorted(free, key=self._load)):
            return
        if not self._admission.draining and len(self._waiting) < _WAITING_MOST:
            # All are starting, or too busy to listen: the next one that is there gets it.
            self._waiting.append(connection)
            return
        log.warning(
            "%s:%d: no worker takes the connection; closed", connection.host, connection.port
        )
        connection.sock.close()

    def _offer(self, target: _Target, number: int, connection: _Connection) -> bool:
        """Offer a connection to a worker; whether the offer is on its way."""
        sock, host, port = connection
        worker = target.worker
        self._shared.claims.offer(number)
        if not worker.channel.offer(Offer(number, host, port), sock.fileno()):
            return False
        target.offered[number] = (connection, time.monotonic())
        too_many = self._admission.opened(number, host, worker.number)
        if too_many is not None:
            other, at = too_many
            if at in self._targets:
                self._targets[at].worker.channel.send(Abandon(other))
        return True

    def _hand_over_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._hand_over(connection)

    async def _turn_away(self, connection: _Connection) -> None:
        """Reject an association where no worker can: transient, temporary congestion.

        The request is read first: a peer may not look at an answer that comes before it.
        Source: PS3.8 9.3.4.
        """
        sock, host, port = connection
        log.warning("%s:%d: rejected (2,3,1): every worker waits for the disk", host, port)
        with contextlib.suppress(OSError, asyncio.TimeoutError), sock:
            sock.setblocking(False)
            async with asyncio.timeout(_TURN_AWAY_S):
                head = await self._loop.sock_recv(sock, 6)
                left = int.from_bytes(head[2:6], "big") if len(head) == 6 and head[0] == 1 else 0
                while 0 < left <= 1 << 20 and (data := await self._loop.sock_recv(sock, left)):
                    left -= len(data)
                await self._loop.sock_sendall(sock, encode_associate_rj(AssociateRJ(2, 3, 1)))
                sock.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(sock, 4096):
                    pass

    # Weighing workers ----------------------------------------------------------------------------

    def _is_blocked(self, target: _Target) -> bool:
        """Whether the worker's loop waits for the disk: nothing is sent there, nobody kills it."""
        number = target.worker.number
        since = self._shared.liveness.disk_since(number)
        blocked = since > 0 and time.monotonic() * 1000 - since > _BLOCKED_MS
        if blocked != target.is_blocked:
            target.is_blocked = blocked
            if blocked:
                log.error(
                    "worker %d waits for the disk: it gets no connections until it is through; "
                    "check the store's disk",
                    number,
                )
            else:
                log.info("worker %d is through with the disk", number)
        return blocked

    def _load(self, target: _Target) -> tuple[bool, float]:
        """For sorting: whether its loop stands still, then what it has to do."""
        number = target.worker.number
        alive = max(target.worker.started, self._shared.liveness.alive_ms(number) / 1000)
        silent = time.monotonic() - alive > _CLAIM_S
        return silent, self._admission.load(number) + target.rate / _BYTES_PER_LOAD

    def _watch(self) -> None:
        """Weigh the workers, and take back connections that one of them leaves lying."""
        self._loop.call_later(_LOAD_EVERY_S, self._watch)
        now = time.monotonic()
        self._hand_over_waiting()
        for target in list(self._targets.values()):
            self._is_blocked(target)
            received = self._shared.rows.received(target.worker.number)
            target.rate = (target.rate + (received - target.last_bytes) / _LOAD_EVERY_S) / 2
            target.last_bytes = received
            for number, (connection, when) in list(target.offered.items()):
                if now - when > _CLAIM_S and self._shared.claims.claim(number):
                    self._take_back(target, number, connection)

    def _take_back(self, target: _Target, number: int, connection: _Connection) -> None:
        log.warning(
            "worker %d is silent; %s:%d goes on",
            target.worker.number, connection.host, connection.port,
        )  # fmt: skip
        del target.offered[number]
        self._admission.closed(number)
        self._hand_over(connection)

"""Main: opens the store, starts the workers, hands them connections, and sees them off.

It never touches a payload. Everything here runs on one loop; what may block on the disk runs in
its executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop
from setproctitle import setproctitle

from fastscp import __version__, uids
from fastscp.association.negotiation import Policy
from fastscp.errors import BootError, ConfigError, FastscpError, StoreBusyError
from fastscp.main.acceptor import Acceptor, bind
from fastscp.main.admission import Admission, Limits
from fastscp.main.storewatch import SpaceState, StoreWatch, look
from fastscp.messages.channel import Channel
from fastscp.messages.worker import (
    Abandon,
    Ask,
    Drain,
    Failed,
    FromWorker,
    Gone,
    Offer,
    Ready,
    Setup,
    Stop,
    Taken,
)
from fastscp.store.directory import Store, sweep_incoming
from fastscp.store.journal import last_sequence
from fastscp_ext import AssociateRJ, Shared, encode_associate_rj, rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.config.settings import ServeConfig, WorkerConfig

__all__ = ["Supervisor", "policy_of", "run"]

log = logging.getLogger("fastscp.main")

# How long a worker may leave an offered connection unclaimed before another gets it.
_CLAIM_S: Final = 2.0
# A worker that dies sooner than this after its start did not come far; so many in a row are enough.
_SHORT_LIFE_S: Final = 2.0
_SHORT_LIVES: Final = 5
# Bytes a second that weigh as much as one association more, when choosing a worker.
_BYTES_PER_LOAD: Final = 8 << 20
_LOAD_EVERY_S: Final = 0.5
# Between looks at the store.
_LOOK_EVERY_S: Final = 1.0
_CONGESTED: Final = {
    SpaceState.FULL: "out of disk space",
    SpaceState.LOST: "the store is not there",
}
# A file call of a worker's loop that takes longer than this: the disk is blocked.
_BLOCKED_MS: Final = 250
# How long a peer may take to send the request that main itself rejects.
_TURN_AWAY_S: Final = 5.0
# How long the workers of a killed main may hold the store: they finish the message in hand.
_ORPHANS_S: Final = 8.0
# Rounds of reading what a dead worker has left to say: far more than it can have said.
_LAST_WORDS: Final = 4096
# Connections that wait for a worker to be there.
_HOMELESS: Final = 256
# After the drain time and the last message: then workers are killed.
_PATIENCE_S: Final = 10.0

_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fastscp.worker.process import main; main(sys.argv[2:])"
)

_T = TypeVar("_T")


@dataclass(eq=False)
class _Worker:
    """Main's side of a worker process."""

    number: int
    life: str
    channel: Channel
    ready: asyncio.Future[None]
    started: float
    process: asyncio.SubprocessTransport | None = None
    is_ready: bool = False
    is_blocked: bool = False
    last_bytes: int = 0
    rate: float = 0.0
    # Connections on their way, with main's copy: number -> (socket, host, port, when).
    offered: dict[int, tuple[socket.socket, str, int, float]] = field(default_factory=dict)


class _Exit(asyncio.SubprocessProtocol):
    """Tells of a worker's end."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def process_exited(self) -> None:
        self._ended()


def policy_of(config: WorkerConfig) -> Policy:
    """The settings that decide over a request, with the names in them looked up.

    Each has the name it has in the configuration. Cost: imports pydicom.
    """
    values: dict[str, Any] = {name: getattr(config, name) for name in Policy.__struct_fields__}
    values["sop_classes"] = uids.sop_class_rule(config.sop_classes)
    values["transfer_syntaxes"] = uids.transfer_syntax_rule(config.transfer_syntaxes)
    return Policy(**values)


class Supervisor:
    """The service, from its start to its end; `serve` runs it."""

    def __init__(self, config: ServeConfig, *, ready: Callable[[list[str]], None]) -> None:
        self._config = config
        self._tell_ready = ready
        self._loop = asyncio.get_running_loop()
        self._run = f"{time.time_ns() // 1000:x}"
        self._admission = Admission(
            Limits(
                config.max_associations,
                config.max_associations_per_host,
                config.max_associations_per_ae,
            ),
            config.allow,
        )
        self._workers: dict[int, _Worker] = {}
        self._acceptors: list[Acceptor] = []
        self._number = 0
        self._lives = 0
        self._short_lives = 0
        self._spawning = 0
        self._stopping = False
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = Shared()
        self._homeless: list[tuple[socket.socket, str, int]] = []
        self._store: Store | None = None
        self._store_watch = StoreWatch(config.min_free_space)
        self._lost_workers = False

    async def serve(self) -> int:
        """Run until told to stop; returns the exit code. Raises FastscpError if it cannot start."""
        config = self._config
        _raise_descriptor_limit(config)
        with contextlib.ExitStack() as undo:
            store = self._store = await self._open_store()
            undo.callback(store.close)
            listening = bind(config.host, config.port)
            for sock in listening:
                undo.callback(sock.close)
            swept = await self._in_executor(lambda: sweep_incoming(store.dir_fd))
            self._shared.begin_sequence(
                await self._in_executor(lambda: last_sequence(store.dir_fd))
            )
            self._policy = await self._in_executor(lambda: policy_of(config))
            self._acceptors = [
                Acceptor(
                    sock,
                    self._connected,
                    add_reader=self._loop.add_reader,
                    remove_reader=self._loop.remove_reader,
                    call_later=self._loop.call_later,
                )
                for sock in listening
            ]
            for acceptor in self._acceptors:
                undo.callback(acceptor.close)
            undo.callback(self._kill_all)
            for name in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(name, self._signalled, name)
            workers = [await self._spawn(number) for number in range(config.workers)]
            await asyncio.gather(*(worker.ready for worker in workers))
            setproctitle(f"fastscp: main, port {listening[0].getsockname()[1]}")
            for acceptor in self._acceptors:
                acceptor.start()
            self._tell_ready([acceptor.address for acceptor in self._acceptors])
            self._say_start(store, swept.folders, swept.parts, swept.bytes)
            self._loop.call_later(_LOAD_EVERY_S, self._watch)
            self._background(self._watch_store(store))
            code = await self._done
            for acceptor in self._acceptors:
                acceptor.close()
            for sock, _host, _port in self._homeless:
                sock.close()
            await self._in_executor(lambda: sweep_incoming(store.dir_fd))
            if code == 0 and not self._lost_workers:
                await self._in_executor(store.stopped_cleanly)
        log.info("stopped")
        return code

    async def _open_store(self) -> Store:
        """Take the store; where its last main was killed, its workers may need a moment yet."""
        config = self._config
        deadline = time.monotonic() + _ORPHANS_S
        while True:
            try:
                return await self._in_executor(
                    lambda: Store.open(
                        config.store,
                        config.layout,
                        config.suffix,
                        config.store_must_exist,
                        config.layout_change,
                        durability=config.durability,
                        rename_noreplace=rename_noreplace,
                    )
                )
            except StoreBusyError as error:
                if error.pid is None or _is_alive(error.pid) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def _watch_store(self, store: Store) -> None:
        """Look at the store every second, and tell everybody what state it is in."""
        while not self._done.done():
            started = time.monotonic()
            self._store_watch.received(
                sum(self._shared.counters(number)[0] for number in range(self._config.workers))
            )
            seen = await self._in_executor(lambda: look(store))
            state, said = self._store_watch.judge(seen)
            if said:
                log.log(logging.INFO if state is SpaceState.FINE else logging.ERROR, "%s", said)
                self._shared.set_store(state, self._store_watch.slow_rate // self._config.workers)
            self._admission.congested = _CONGESTED.get(state, "")
            await asyncio.sleep(max(0.05, _LOOK_EVERY_S - (time.monotonic() - started)))

    def pause(self) -> None:
        """Stop accepting connections; associations go on."""
        for acceptor in self._acceptors:
            acceptor.pause()

    def resume(self) -> None:
        """Accept connections again."""
        for acceptor in self._acceptors:
            acceptor.start()

    async def _in_executor(self, work: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(None, work)

    def _say_start(self, store: Store, folders: int, parts: int, size: int) -> None:
        facts = store.facts
        log.info(
            "fastscp %s: AE title '%s', %d workers, store %s (%s, %s names, %s), id %s",
            __version__, self._config.ae_title, self._config.workers, store.path,
            facts.file_system, "rename" if facts.noreplace else "link", self._config.durability,
            store.id,
        )  # fmt: skip
        for warning in facts.warnings:
            log.warning("%s", warning)
        if folders:
            log.warning(
                "swept %d part folders of an earlier run: %d unfinished instances, %d bytes, "
                "none of them acknowledged",
                folders, parts, size,
            )  # fmt: skip
        if store.suspect:
            log.warning(
                "an earlier run with --durability buffered did not stop cleanly: a stored file "
                "that its journal line does not vouch for is replaced when it is sent again; "
                "`fastscp verify` checks all of them and lifts this"
            )
        if self._config.durability == "buffered":
            log.warning(
                "--durability buffered: a power cut may lose instances already acknowledged"
            )

    # Workers -------------------------------------------------------------------------------------

    async def _spawn(self, number: int) -> _Worker:
        """Start a worker process; it is up once its `ready` is done."""
        self._spawning += 1
        try:
            worker = await self._start(number)
        finally:
            self._spawning -= 1
        if self._stopping:
            # It was not there yet when the others were told.
            worker.channel.send(Drain(self._config.drain_timeout))
        return worker

    async def _start(self, number: int) -> _Worker:
        store = self._store
        assert store is not None  # noqa: S101 - set before the first worker
        config = self._config
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lives += 1
        worker = _Worker(
            number,
            f"{self._run}-w{number}-{self._lives}",
            Channel(ours, FromWorker),
            self._loop.create_future(),
            time.monotonic(),
        )
        self._shared.clear(number)
        # The lock goes along: the store is free when its last worker is gone, not before.
        descriptors = (theirs.fileno(), self._shared.fd, store.dir_fd, store.lock_fd)
        try:
            transport, _protocol = await self._loop.subprocess_exec(
                lambda: _Exit(lambda: self._ended(worker)),
                sys.executable,
                "-c",
                _BOOTSTRAP,
                json.dumps(sys.path),
                *map(str, descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=None,
                stderr=None,
                pass_fds=descriptors,
                # A terminal's ^C is for main alone: it drains its workers. Not a session each: the
                # kernel shares processor time out by sessions, and would break into the senders'
                # work for each worker.
                preexec_fn=os.setpgrp,
            )
        except OSError as error:
            ours.close()
            raise BootError(f"cannot start a worker process: {error.strerror}") from error
        finally:
            theirs.close()
        worker.process = transport
        worker.channel.write_with(self._loop.add_writer, self._loop.remove_writer)
        self._workers[number] = worker
        self._loop.add_reader(ours.fileno(), self._messages, worker)
        worker.channel.send(
            Setup(
                worker=number,
                life=worker.life,
                run=self._run,
                config=config.for_workers(),
                policy=self._policy,
                use_link=not store.facts.noreplace,
                mixed=store.mixed,
                suspect=store.suspect,
            )
        )
        return worker

    def _messages(self, worker: _Worker) -> None:
        for message, _fd in worker.channel.receive():
            match message:
                case Ask():
                    worker.channel.send(
                        self._admission.ask(message.number, message.calling_ae, message.called_ae)
                    )
                case Gone():
                    self._admission.closed(message.number)
                case Taken():
                    offered = worker.offered.pop(message.number, None)
                    if offered is not None:
                        offered[0].close()
                case Ready():
                    worker.is_ready = True
                    self._house()
                    if not worker.ready.done():
                        worker.ready.set_result(None)
                case Failed():
                    if not worker.ready.done():
                        worker.ready.set_exception(BootError(message.why))
        if worker.channel.closed:
            self._loop.remove_reader(worker.channel.fileno())

    def _ended(self, worker: _Worker) -> None:
        """A worker process is over, as planned or not."""
        code = worker.process.get_returncode() if worker.process else None
        self._shared.end_batches(worker.number)
        before = 0
        while not worker.channel.closed and before < _LAST_WORDS:
            # They may still wait, and the end of the channel is behind them.
            self._messages(worker)
            before += 1
        if not worker.channel.closed:
            self._loop.remove_reader(worker.channel.fileno())
        worker.channel.close()
        if worker.process is not None:
            worker.process.close()
        waiting = list(worker.offered.items())
        worker.offered.clear()
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]
        for number, (sock, host, port, _when) in waiting:
            # Claimed or not: a dead worker serves nobody.
            self._shared.claim(number)
            self._admission.closed(number)
            self._hand_over(sock, host, port)
        associations, _connections = self._admission.died(worker.number)
        if not worker.ready.done():
            worker.ready.set_exception(
                BootError(f"worker {worker.number} ended while starting ({_how(code)})")
            )
        if self._stopping:
            if not self._workers and not self._spawning and not self._done.done():
                self._done.set_result(0)
            return
        if not worker.is_ready:
            return
        self._lost_workers = True
        log.error(
            "worker %d ended unexpectedly (%s): %d associations lost; their unfinished instances "
            "are dropped, acknowledged ones are kept; starting another",
            worker.number, _how(code), associations,
        )  # fmt: skip
        short = time.monotonic() - worker.started < _SHORT_LIFE_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _SHORT_LIVES:
            log.critical("workers keep dying right after their start: giving up")
            self._give_up(1)
            return
        self._background(self._replace(worker.number))

    async def _replace(self, number: int) -> None:
        store = self._store
        assert store is not None  # noqa: S101 - set before the first worker
        try:
            report = await self._in_executor(lambda: sweep_incoming(store.dir_fd))
            if report.parts:
                log.info("swept %d unfinished instances of a dead worker", report.parts)
            await asyncio.sleep(0.1 * self._short_lives)
            if self._stopping:
                return
            worker = await self._spawn(number)
            await worker.ready
        except (FastscpError, OSError) as error:
            if not self._stopping:
                log.critical("cannot replace worker %d: %s", number, error)
                self._give_up(1)
            elif not self._workers and not self._done.done():
                self._done.set_result(0)

    def _give_up(self, code: int) -> None:
        self._stopping = True
        if not self._done.done():
            self._done.set_result(code)

    def _kill_all(self) -> None:
        for worker in list(self._workers.values()):
            if worker.process is not None and worker.process.get_returncode() is None:
                worker.process.kill()

    # Connections ---------------------------------------------------------------------------------

    def _connected(self, sock: socket.socket, host: str, port: int) -> None:
        self._hand_over(sock, host, port)

    def _hand_over(self, sock: socket.socket, host: str, port: int) -> None:
        """Give a connection to the worker with the least load that takes it."""
        self._number += 1
        number = self._number
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        free = [worker for worker in ready if not self._is_blocked(worker)]
        if ready and not free:
            self._background(self._turn_away(sock, host, port))
            return
        for worker in sorted(free, key=self._load):
            self._shared.offer(number)
            if worker.channel.offer(Offer(number, host, port), sock.fileno()):
                worker.offered[number] = (sock, host, port, time.monotonic())
                too_many = self._admission.opened(number, host, worker.number)
                if too_many is not None:
                    other, at = too_many
                    if at in self._workers:
                        self._workers[at].channel.send(Abandon(other))
                return
        if not self._stopping and len(self._homeless) < _HOMELESS:
            # All are starting, or too busy to listen: the next one that is there gets it.
            self._homeless.append((sock, host, port))
            return
        log.warning("%s:%d: no worker takes the connection; closed", host, port)
        sock.close()

    def _is_blocked(self, worker: _Worker) -> bool:
        """Whether the worker's loop waits for the disk: nothing is sent there, nobody kills it."""
        since = self._shared.disk_since(worker.number)
        blocked = since > 0 and time.monotonic() * 1000 - since > _BLOCKED_MS
        if blocked != worker.is_blocked:
            worker.is_blocked = blocked
            if blocked:
                log.error(
                    "worker %d waits for the disk: it gets no connections until it is through; "
                    "check the store's disk",
                    worker.number,
                )
            else:
                log.info("worker %d is through with the disk", worker.number)
        return blocked

    async def _turn_away(self, sock: socket.socket, host: str, port: int) -> None:
        """Reject an association where no worker can: transient, temporary congestion.

        The request is read first: a peer may not look at an answer that comes before it.
        Source: PS3.8 9.3.4.
        """
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

    def _house(self) -> None:
        homeless, self._homeless = self._homeless, []
        for connection in homeless:
            self._hand_over(*connection)

    def _load(self, worker: _Worker) -> tuple[bool, float]:
        """For sorting: whether its loop stands still, then what it has to do."""
        alive = max(worker.started, self._shared.counters(worker.number)[3] / 1000)
        silent = time.monotonic() - alive > _CLAIM_S
        return silent, self._admission.load(worker.number) + worker.rate / _BYTES_PER_LOAD

    def _watch(self) -> None:
        """Weigh the workers, and take back connections that one of them leaves lying."""
        self._loop.call_later(_LOAD_EVERY_S, self._watch)
        now = time.monotonic()
        self._house()
        for worker in list(self._workers.values()):
            self._is_blocked(worker)
            received = self._shared.counters(worker.number)[0]
            worker.rate = (worker.rate + (received - worker.last_bytes) / _LOAD_EVERY_S) / 2
            worker.last_bytes = received
            for number, (sock, host, port, when) in list(worker.offered.items()):
                if now - when > _CLAIM_S and self._shared.claim(number):
                    log.warning("worker %d is silent; %s:%d goes on", worker.number, host, port)
                    del worker.offered[number]
                    self._admission.closed(number)
                    self._hand_over(sock, host, port)

    # The end -------------------------------------------------------------------------------------

    def _signalled(self, name: signal.Signals) -> None:
        if self._stopping:
            log.warning("%s again: ending at once", name.name)
            for worker in self._workers.values():
                worker.channel.send(Stop())
            self._loop.call_later(2.0, self._kill_all)
            return
        self._stopping = True
        self._admission.draining = "shutting down"
        log.info(
            "%s: %d associations may go on for %g s, new ones are rejected",
            name.name, self._admission.admitted, self._config.drain_timeout,
        )  # fmt: skip
        if not self._workers and not self._spawning:
            self._done.set_result(0)
            return
        for worker in self._workers.values():
            worker.channel.send(Drain(self._config.drain_timeout))
        self._loop.call_later(self._config.drain_timeout + 5.0 + _PATIENCE_S, self._kill_all)

    def _background(self, work: object) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _how(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _raise_descriptor_limit(config: ServeConfig) -> None:
    """Take all descriptors the system grants, and check that they are enough."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # All associations may end up in one worker: a socket and a part each, and the commit's own.
    needed = 2 * (config.max_associations or 1000) + 512
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigError(
            "--max-associations",
            f"{config.max_associations or 1000} associations need {needed} open files, the limit "
            f"is {hard}; raise it (ulimit -Hn, LimitNOFILE=) or allow fewer associations",
        )


def run(config: ServeConfig, *, ready: Callable[[list[str]], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    ready: called with the addresses once the service accepts. Without it `listening on
    HOST:PORT` goes to stderr, one line each and first of all: the log's lines wait for it.
    Raises ConfigError or StartError before any connection is accepted.
    """
    waiting = logging.handlers.MemoryHandler(1 << 16, logging.CRITICAL + 1)
    root = logging.getLogger()
    handlers = root.handlers[:]
    for handler in handlers:
        root.removeHandler(handler)
    root.addHandler(waiting)

    def release() -> None:
        root.removeHandler(waiting)
        for handler in handlers:
            root.addHandler(handler)
        for record in waiting.buffer:
            root.handle(record)
        waiting.buffer.clear()

    def announce(addresses: list[str]) -> None:
        for address in addresses:
            print(f"listening on {address}", file=sys.stderr, flush=True)  # noqa: T201
        if ready is not None:
            ready(addresses)
        release()

    async def serve() -> int:
        return await Supervisor(config, ready=announce).serve()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        if waiting in root.handlers:
            release()

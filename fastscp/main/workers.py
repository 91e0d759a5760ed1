"""Worker processes: started, heard, missed and replaced."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastscp import uids
from fastscp.association.negotiation import Policy
from fastscp.errors import BootError, FastscpError
from fastscp.messages.channel import Channel
from fastscp.messages.worker import Drain, Failed, FromWorker, Ready, Setup, Stop
from fastscp.store.lives import sweep_incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastscp.config.settings import WorkerConfig
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["Listener", "Worker", "Workers", "policy_of"]

log = logging.getLogger("fastscp.main")

# A worker that dies sooner than this after its start did not come far; so many in a row are enough.
_SHORT_LIFE_S: Final = 2.0
_SHORT_LIVES: Final = 5
# Rounds of reading what a dead worker has left to say: far more than it can have said.
_LAST_WORDS: Final = 4096
# What a message in hand may take after the drain time, and then some: then workers are killed.
_PATIENCE_S: Final = 5.0 + 10.0
# After a second signal.
_AT_ONCE_S: Final = 2.0

_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fastscp.worker.process import main; main(sys.argv[2:])"
)


@dataclass(eq=False)
class Worker:
    """Main's side of a worker process. `ready` is done once it is up, or has failed to be."""

    number: int
    life: str
    channel: Channel
    ready: asyncio.Future[None]
    started: float
    process: asyncio.SubprocessTransport | None = None
    is_ready: bool = False


class Listener(Protocol):
    """Who is told of workers, and of their messages about connections."""

    def joined(self, worker: Worker) -> None:
        """A worker process was started; it is not ready yet."""

    def came_up(self, worker: Worker) -> None:
        """It is ready."""

    def heard(self, worker: Worker, message: object) -> None:
        """It said something that is not about itself."""

    def left(self, worker: Worker) -> int:
        """It is gone; returns how many associations are lost."""


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


class Workers:
    """The worker processes of one run of the service.

    background(work): lets a coroutine run beside the others. over(code): called when the last
    worker has gone as it was told to (0), or when there is no use in going on (1); maybe twice.
    """

    def __init__(
        self,
        config: WorkerConfig,
        policy: Policy,
        store: Store,
        shared: Shared,
        listener: Listener,
        *,
        background: Callable[[Coroutine[object, object, None]], None],
        over: Callable[[int], None],
    ) -> None:
        self._config = config
        self._policy = policy
        self._store = store
        self._shared = shared
        self._listener = listener
        self._background = background
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._run = f"{time.time_ns() // 1000:x}"
        self._all: dict[int, Worker] = {}
        self._lives = 0
        self._short_lives = 0
        self._spawning = 0
        self.stopping = False
        # Whether one of them ended unexpectedly.
        self.lost = False

    # Beginning and end ---------------------------------------------------------------------------

    async def start(self, count: int) -> None:
        """Start so many and wait until all are up. Raises BootError."""
        workers = [await self._spawn(number) for number in range(count)]
        await asyncio.gather(*(worker.ready for worker in workers))

    def drain(self) -> None:
        """Let associations go on for the drain time, then end them and the workers."""
        self.stopping = True
        if not self._all and not self._spawning:
            self._over(0)
            return
        for worker in self._all.values():
            worker.channel.send(Drain(self._config.drain_timeout))
        self._loop.call_later(self._config.drain_timeout + _PATIENCE_S, self.kill)

    def stop(self) -> None:
        """End every association, and the workers, at once."""
        for worker in self._all.values():
            worker.channel.send(Stop())
        self._loop.call_later(_AT_ONCE_S, self.kill)

    def kill(self) -> None:
        """Kill those that are still there."""
        for worker in list(self._all.values()):
            if worker.process is not None and worker.process.get_returncode() is None:
                worker.process.kill()

    def _give_up(self) -> None:
        self.stopping = True
        self._over(1)

    # Starting one --------------------------------------------------------------------------------

    async def _spawn(self, number: int) -> Worker:
        """Start a worker process; it is up once its `ready` is done."""
        self._spawning += 1
        try:
            worker = await self._start(number)
        finally:
            self._spawning -= 1
        if self.stopping:
            # It was not there yet when the others were told.
            worker.channel.send(Drain(self._config.drain_timeout))
        return worker

    async def _start(self, number: int) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lives += 1
        worker = Worker(
            number,
            f"{self._run}-w{number}-{self._lives}",
            Channel(ours, FromWorker),
            self._loop.create_future(),
            time.monotonic(),
        )
        self._shared.liveness.clear(number)
        try:
            worker.process = await self._execute(worker, theirs)
        except OSError as error:
            ours.close()
            raise BootError(f"cannot start a worker process: {error.strerror}") from error
        finally:
            theirs.close()
        worker.channel.write_with(self._loop.add_writer, self._loop.remove_writer)
        self._all[number] = worker
        self._listener.joined(worker)
        self._loop.add_reader(ours.fileno(), self._messages, worker)
        worker.channel.send(
            Setup(
                worker=number,
                life=worker.life,
                run=self._run,
                config=self._config,
                policy=self._policy,
                use_link=not self._store.facts.noreplace,
                mixed=self._store.mixed,
                suspect=self._store.suspect,
            )
        )
        return worker

    async def _execute(self, worker: Worker, theirs: socket.socket) -> asyncio.SubprocessTransport:
        # The lock goes along: the store is free when its last worker is gone, not before.
        descriptors = (
            theirs.fileno(), self._shared.fd, self._store.dir_fd, self._store.lock_fd,
        )  # fmt: skip
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
        return transport

    # Hearing and missing one ---------------------------------------------------------------------

    def _messages(self, worker: Worker) -> None:
        for message, _fd in worker.channel.receive():
            match message:
                case Ready():
                    worker.is_ready = True
                    self._listener.came_up(worker)
                    if not worker.ready.done():
                        worker.ready.set_result(None)
                case Failed():
                    if not worker.ready.done():
                        worker.ready.set_exception(BootError(message.why))
                case _:
                    self._listener.heard(worker, message)
        if worker.channel.closed:
            self._loop.remove_reader(worker.channel.fileno())

    def _ended(self, worker: Worker) -> None:
        """A worker process is over, as planned or not."""
        code = worker.process.get_returncode() if worker.process else None
        self._shared.liveness.end_batches(worker.number)
        self._hear_out(worker)
        if worker.process is not None:
            worker.process.close()
        if self._all.get(worker.number) is worker:
            del self._all[worker.number]
        associations = self._listener.left(worker)
        if not worker.ready.done():
            worker.ready.set_exception(
                BootError(f"worker {worker.number} ended while starting ({_how(code)})")
            )
        if self.stopping:
            if not self._all and not self._spawning:
                self._over(0)
            return
        if not worker.is_ready:
            return
        self.lost = True
        log.error(
            "worker %d ended unexpectedly (%s): %d associations lost; their unfinished instances "
            "are dropped, acknowledged ones are kept; starting another",
            worker.number, _how(code), associations,
        )  # fmt: skip
        short = time.monotonic() - worker.started < _SHORT_LIFE_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _SHORT_LIVES:
            log.critical("workers keep dying right after their start: giving up")
            self._give_up()
            return
        self._background(self._replace(worker.number))

    def _hear_out(self, worker: Worker) -> None:
        """Read what a dead worker has said, and close the channel."""
        rounds = 0
        while not worker.channel.closed and rounds < _LAST_WORDS:
            # Messages may still wait, and the end of the channel is behind them.
            self._messages(worker)
            rounds += 1
        if not worker.channel.closed:
            self._loop.remove_reader(worker.channel.fileno())
        worker.channel.close()

    async def _replace(self, number: int) -> None:
        try:
            report = await asyncio.to_thread(sweep_incoming, self._store.dir_fd)
            if report.parts:
                log.info("swept %d unfinished instances of a dead worker", report.parts)
            await asyncio.sleep(0.1 * self._short_lives)
            if self.stopping:
                return
            worker = await self._spawn(number)
            await worker.ready
        except (FastscpError, OSError) as error:
            if not self.stopping:
                log.critical("cannot replace worker %d: %s", number, error)
                self._give_up()
            elif not self._all:
                self._over(0)


def _how(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"

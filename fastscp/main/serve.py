"""The service: opens the store, starts the rest of main, waits, and sees everybody off.

Main never touches a payload. Everything here runs on one loop; what may block on the disk runs in
its executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import uvloop
from setproctitle import setproctitle

from fastscp import __version__
from fastscp.errors import StoreBusyError
from fastscp.main.acceptor import Acceptor, bind
from fastscp.main.admission import Admission, Limits
from fastscp.main.descriptors import associations_allowed
from fastscp.main.dispatch import Dispatch
from fastscp.main.storewatch import SpaceState, StoreWatch, look
from fastscp.main.workers import Workers, policy_of
from fastscp.store.journal import last_sequence
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING
from fastscp.store.store import Store
from fastscp_ext import Shared, rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastscp.config.settings import ServeConfig
    from fastscp.store.lives import SweepReport

__all__ = ["Service", "run"]

log = logging.getLogger("fastscp.main")

# Between looks at the store.
_LOOK_EVERY_S: Final = 1.0
_CONGESTED: Final = {
    SpaceState.FULL: "out of disk space",
    SpaceState.LOST: "the store is not there",
}
# How long the workers of a killed main may hold the store: they finish the message in hand.
_ORPHANS_S: Final = 8.0


class Service:
    """The service, from its start to its end; `serve` runs it, once."""

    def __init__(self, config: ServeConfig, *, ready: Callable[[list[str]], None]) -> None:
        self._config = config
        self._tell_ready = ready
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = Shared()
        self._admission = Admission(
            Limits(
                associations_allowed(config),
                config.max_associations_per_host,
                config.max_associations_per_ae,
                by_files=not config.max_associations,
            ),
            config.allow,
            self._shared.rows,
        )
        self._dispatch = Dispatch(self._admission, self._shared)
        self._store_watch = StoreWatch(config.min_free_space)

    async def serve(self) -> int:
        """Run until told to stop; returns the exit code. Raises FastscpError if it cannot start."""
        config = self._config
        with contextlib.ExitStack() as undo:
            store = await _open_store(config)
            undo.callback(store.close)
            acceptors = self._bind(undo)
            swept = await asyncio.to_thread(sweep_incoming, store.dir_fd)
            last = await asyncio.to_thread(last_sequence, store.dir_fd)
            self._shared.store.begin_sequence(last)
            workers = await self._make_workers(store)
            undo.callback(workers.kill)
            for name in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(name, self._signalled, name, workers)
            await workers.start(config.workers)
            port = acceptors[0].address.rpartition(":")[2]
            setproctitle(f"fastscp: main, port {port}")
            for acceptor in acceptors:
                acceptor.start()
            self._tell_ready([acceptor.address for acceptor in acceptors])
            self._say_start(store, swept)
            self._dispatch.start()
            self._background(self._watch_store(store))
            code = await self._done
            for acceptor in acceptors:
                acceptor.close()
            self._dispatch.close()
            if not await self._leave(store, clean=code == 0 and not workers.lost):
                code = code or 1
        log.info("stopped")
        return code

    async def _leave(self, store: Store, *, clean: bool) -> bool:
        """Leave the store in order; returns whether it is, and says so if not."""
        try:
            await asyncio.to_thread(sweep_incoming, store.dir_fd)
        except OSError as error:
            log.error(
                "cannot remove unfinished instances (%s: %s); the next start tries again; is the "
                "store's file system still there?",
                error.filename or INCOMING, error.strerror,
            )  # fmt: skip
            return False
        if not clean:
            return True
        try:
            await asyncio.to_thread(store.stopped_cleanly)
        except OSError as error:
            log.error(
                "cannot flush %s (%s): instances that were acknowledged may not be on the disk; "
                "the mark of an unclean end stays; check the disk, then run `fastscp verify`",
                store.path, error.strerror,
            )  # fmt: skip
            return False
        return True

    def _bind(self, undo: contextlib.ExitStack) -> list[Acceptor]:
        """Listen on every address; nothing is accepted yet."""
        listening = bind(self._config.host, self._config.port)
        for sock in listening:
            undo.callback(sock.close)
        acceptors = [
            Acceptor(
                sock,
                self._dispatch.connected,
                has_room=lambda: self._dispatch.has_room,
                add_reader=self._loop.add_reader,
                remove_reader=self._loop.remove_reader,
                call_later=self._loop.call_later,
            )
            for sock in listening
        ]
        for acceptor in acceptors:
            undo.callback(acceptor.close)
        return acceptors

    async def _make_workers(self, store: Store) -> Workers:
        config = self._config.for_workers()
        return Workers(
            config,
            await asyncio.to_thread(policy_of, config),
            store,
            self._shared,
            self._dispatch,
            background=self._background,
            over=self._over,
        )

    async def _watch_store(self, store: Store) -> None:
        """Look at the store every second, and tell everybody what state it is in."""
        while not self._done.done():
            started = time.monotonic()
            self._store_watch.received(self._shared.rows.received())
            seen = await asyncio.to_thread(look, store)
            state, said = self._store_watch.judge(seen)
            if said:
                log.log(logging.INFO if state is SpaceState.FINE else logging.ERROR, "%s", said)
                self._shared.store.set_state(state, self._store_watch.slow_rate)
            self._admission.congested = _CONGESTED.get(state, "")
            await asyncio.sleep(max(0.05, _LOOK_EVERY_S - (time.monotonic() - started)))

    def _say_start(self, store: Store, swept: SweepReport) -> None:
        facts = store.facts
        log.info(
            "fastscp %s: AE title '%s', %d workers, store %s (%s, %s names, %s), id %s",
            __version__, self._config.ae_title, self._config.workers, store.path,
            facts.file_system, "rename" if facts.noreplace else "link", self._config.durability,
            store.id,
        )  # fmt: skip
        for warning in facts.warnings:
            log.warning("%s", warning)
        if swept.folders:
            log.warning(
                "swept %d part folders of an earlier run: %d unfinished instances, %d bytes, "
                "none of them acknowledged",
                swept.folders, swept.parts, swept.bytes,
            )  # fmt: skip
        if store.suspect:
            log.warning(
                "an earlier run with --durability buffered did not stop cleanly: a stored file "
                "that its journal line does not vouch for is replaced when it is sent again; "
                "`fastscp verify` checks all of them and lifts this"
            )
        if not self._config.durable:
            log.warning(
                "--durability buffered: a power cut may lose instances already acknowledged"
            )

    def _signalled(self, name: signal.Signals, workers: Workers) -> None:
        if workers.stopping:
            log.warning("%s again: ending at once", name.name)
            workers.stop()
            return
        self._admission.draining = "shutting down"
        log.info(
            "%s: %d associations may go on for %g s, new ones are rejected",
            name.name, self._admission.admitted, self._config.drain_timeout,
        )  # fmt: skip
        workers.drain()

    def _over(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    def _background(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _open_store(config: ServeConfig) -> Store:
    """Take the store; where its last main was killed, its workers may need a moment yet."""
    deadline = time.monotonic() + _ORPHANS_S
    while True:
        try:
            return await asyncio.to_thread(
                Store.open,
                config.store,
                config.layout,
                config.suffix,
                config.store_must_exist,
                config.layout_change,
                durability=config.durability,
                rename_noreplace=rename_noreplace,
            )
        except StoreBusyError as error:
            if error.pid is None or _is_alive(error.pid) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
        return await Service(config, ready=announce).serve()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        if waiting in root.handlers:
            release()

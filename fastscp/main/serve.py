"""The service: opens the store, starts the rest of main, waits, and sees everybody off.

Main never touches a payload. Everything here runs on one loop; what may block on the disk runs in
threads that nobody has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop
from setproctitle import setproctitle

from fastscp import log as logs
from fastscp import uids
from fastscp.errors import StartError, StoreBusyError
from fastscp.log import counted, fields
from fastscp.main.acceptor import Acceptor, bind
from fastscp.main.admission import Admission, Limits
from fastscp.main.aids import aids, told_of_aids
from fastscp.main.backoff import BackOff
from fastscp.main.control import ControlSocket, Facts, MainControl, taken
from fastscp.main.descriptors import associations_allowed
from fastscp.main.dispatch import Dispatch
from fastscp.main.expiry import LOOK_EVERY_S
from fastscp.main.explained import explained, start_explained
from fastscp.main.exposure import exposed, overheard, told_of_files
from fastscp.main.indexing import Indexing, index_of
from fastscp.main.loss import told_of_loss
from fastscp.main.measured import Measured
from fastscp.main.prepared import Prepared, prepare
from fastscp.main.reload import FIRST, Reloader, Reloads
from fastscp.main.remains import tell_failed
from fastscp.main.signals import heard
from fastscp.main.startline import start_line
from fastscp.main.storewatch import HANGS_S, Look, SpaceState, StoreWatch, look
from fastscp.main.summary import INTERVAL_S, Seen, Summary
from fastscp.main.threads import in_thread
from fastscp.main.web import Web
from fastscp.main.workers import Workers, new_run_id
from fastscp.store.journal import last_sequence
from fastscp.store.leftovers import tell_left
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING, JOURNAL
from fastscp.store.store import Store
from fastscp.store.unflushed import tell as tell_unflushed
from fastscp_ext import Counts, Shared, rename_noreplace
from fastscp_ext import status as codes

if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from fastscp.config.settings import ServeConfig
    from fastscp.store.lives import SweepReport
    from fastscp_ext import LineIndex

__all__ = ["Service", "run"]

log = logging.getLogger("fastscp.main")

_T = TypeVar("_T")

# Between looks at the store.
_LOOK_EVERY_S: Final = 1.0
_CONGESTED: Final = {
    SpaceState.FULL: "out of disk space",
    SpaceState.LOST: "the store is not there, or does not answer",
}
# After so long a start says that it still waits for the disk, and again.
_WAITS_S: Final = 10.0
# How long the end may wait for the disk, all calls together; the second where it has to flush.
_LEAVE_S: Final = 10.0
_FLUSH_S: Final = 60.0
# Under which status and reason the rows have instances for which another one stays.
_KEPT: Final = (codes.ELEMENTS_DISCARDED, "existing instance kept")
_NONE: Final = Counts(0, 0, 0, 0)
# How long a start may keep the log back, so that `listening on` is its first line.
_SILENT_S: Final = 5.0
# How long the workers of a killed main may hold the store: they finish the message in hand.
_ORPHANS_S: Final = 8.0


class Service:
    """The service, from its start to its end; `serve` runs it, once."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        ready: Callable[[Sequence[str], Sequence[str]], None],
        signalled: Callable[[signal.Signals], None] = lambda name: None,  # noqa: ARG005
        load: Callable[[], ServeConfig] | None = None,
        file: str = "",
    ) -> None:
        self._config = config
        self._tell_ready = ready
        self._tell_signalled = signalled
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared = Shared()
        limits = Limits(associations_allowed(config), by_files=not config.max_associations)
        self._admission = Admission(limits, self._shared.rows, self._shared.tallies)
        self._run_id = new_run_id()
        self._dispatch = Dispatch(self._admission, self._shared, self._run_id)
        self._summary = Summary(self._seen())
        self._store_watch = StoreWatch(config.min_free_space)
        self._facts = Facts(
            self._run_id, config.workers, config.min_free_space, taken(config, FIRST, file),
            aids=aids(config), tls=config.tls,
        )  # fmt: skip
        control = MainControl(
            self._facts, self._admission, self._dispatch, self._store_watch, self._shared.tallies,
            self._shared.liveness, self._seen,
        )  # fmt: skip
        self._control_socket = ControlSocket(control)
        self._web = Web(config.admin, config.admin_token_file.token)
        self._measured = Measured(
            control.status, self._shared.rows, self._admission, self._dispatch
        )
        self._load = load or (lambda: config)
        self._reloads = Reloads(self._background, self._reopen_logs)
        self._facts.reload = self._reloads.reload
        # Why the last look at the store could not be taken, as it stands in the log.
        self._blind = ""
        self._workers: Workers | None = None
        # To end, before there were workers.
        self._is_told = False
        # Whether the start has waited for the disk for so long that it said so.
        self._has_waited = False
        # Whether the log was told that it waits, for whatever.
        self._has_said_so = False
        # Whether a look at the store failed because of a bug, and none was through since.
        self._has_failed = False

    async def serve(self) -> int:
        """Run until told to stop; returns the exit code. Raises FastscpError if it cannot start."""
        self._loop.call_later(_SILENT_S, logs.announce)
        serving = self._loop.create_task(self._serve())
        with heard(self._loop, lambda name: self._signalled(name, serving), self._reloads.hung_up):
            try:
                code = await serving
            except asyncio.CancelledError:
                if not self._is_told:
                    raise
                # While it started: there is nobody to drain, and whatever still hangs is left.
                code = 1 if self._has_waited else 0
        log.info("stopped")
        return code

    async def _serve(self) -> int:
        config = self._config
        with contextlib.ExitStack() as undo:
            beginning = undo.enter_context(contextlib.ExitStack())
            beginning.enter_context(start_explained())
            # First of all: a start that gets no port has made no store.
            acceptors = self._bind(undo)
            undo.callback(self._web.close)
            self._web.bind()
            self._facts.admin = self._web.address
            waiting = undo.enter_context(self._tell_waiting())
            prepared = await in_thread(prepare, config, FIRST)
            store = await _open_store(prepared)
            held = undo.enter_context(contextlib.ExitStack())
            held.callback(store.close)
            starting = undo.enter_context(contextlib.ExitStack())
            starting.enter_context(store.unmade_on_failure())
            with explained(store.path, INCOMING):
                swept = await in_thread(sweep_incoming, store.dir_fd)
            with explained(store.path, JOURNAL):
                last = await in_thread(last_sequence, store.dir_fd)
            self._shared.store.begin_sequence(max(last, store.sequence))
            self._shared.store.mixed = store.mixed
            self._facts.path, self._facts.store_id = str(store.path.absolute()), store.id
            starting.callback(self._control_socket.abandon)
            await self._control_socket.open(store)
            self._background(self._web.open(self._measured))
            tell_unflushed(store.unflushed, self._shared.doubts)
            tell_left(store.left, self._shared.doubts)
            index = await index_of(store)
            ports = _port_of(acceptors, tls=False), _port_of(acceptors, tls=True)
            self._workers = workers = await self._make_workers(prepared, store, index, ports)
            undo.callback(workers.close)
            undo.callback(workers.abandon)
            await workers.start(config.workers)
            if not workers.stopping:
                for acceptor in acceptors:
                    acceptor.listen()
            starting.pop_all()
            waiting.close()
            beginning.pop_all()
            if not workers.stopping:
                self._open(acceptors, store, swept)
                self._reloads.begin(self._reloader(store, workers))
                if index is not None:
                    indexing = Indexing(store, index, workers.run_id)
                    self._background(indexing.run(self._done))
            code = await self._done
            self._tell_summary()
            self._control_socket.close()
            self._web.close()
            for acceptor in acceptors:
                acceptor.close()
            self._dispatch.close()
            clean = code == 0 and not workers.lost
            if workers.tell_missing():
                code = 1
            if not await self._leave(store, held, clean=clean):
                code = 1
        return code

    def _tell_waiting(self) -> contextlib.ExitStack:
        """Until it is closed: say now and then that the start still waits."""
        began = self._loop.time()

        def tell() -> None:
            if self._workers is not None and self._workers.stopping:
                # It has been told, and only waits for them to end.
                return
            self._has_waited = self._workers is None
            log.warning(
                "the start still waits for %s after %.0f s; TERM ends the start",
                f"the disk of {self._config.store} (check the disk or its mount)"
                if self._has_waited else "workers to come up",
                self._loop.time() - began,
            )  # fmt: skip
            self._has_said_so = True
            again()

        def again() -> None:
            timer = self._loop.call_later(_WAITS_S, tell)
            waiting.callback(timer.cancel)

        def over() -> None:
            # At the level at which it was told.
            if self._has_said_so and self._workers is not None and not self._workers.stopping:
                log.warning("the start is through, after %.0f s", self._loop.time() - began)

        waiting = contextlib.ExitStack()
        waiting.callback(over)
        again()
        return waiting

    def _open(self, acceptors: list[Acceptor], store: Store, swept: SweepReport) -> None:
        """All is there: let peers in."""
        setproctitle(f"fastscp: main, port {acceptors[0].port}")
        for acceptor in acceptors:
            acceptor.start()
        self._facts.addresses = tuple(one.address for one in acceptors if not one.tls)
        self._facts.tls_addresses = tuple(one.address for one in acceptors if one.tls)
        self._facts.is_open = True
        self._tell_ready(self._facts.addresses, self._facts.tls_addresses)
        self._say_start(store, swept)
        self._dispatch.start()
        self._background(self._for_ever(lambda: self._watch_store(store), looks=True))
        self._background(self._for_ever(self._sum_up))
        if self._web.address:
            self._background(self._for_ever(lambda: self._measured.measure_journal(store)))
        self._background(self._for_ever(self._control_socket.keep))
        if self._facts.tls is not None:
            self._background(self._for_ever(self._watch_expiry))

    def _reloader(self, store: Store, workers: Workers) -> Reloader:
        return Reloader(
            self._config, load=self._load, facts=self._facts, shared=self._shared, store=store,
            store_watch=self._store_watch, admission=self._admission, workers=workers,
        )  # fmt: skip

    async def _leave(self, store: Store, held: contextlib.ExitStack, *, clean: bool) -> bool:
        """Leave the store in order; returns whether it is, and says so if not.

        held: gives the store back when it is closed. All is done side by side, so that calls that
        hang do so at the same time.
        """
        began = self._loop.time()
        swept = in_thread(sweep_incoming, store.dir_fd)
        lost = in_thread(store.lost)
        calls: list[asyncio.Future[Any]] = [swept, lost, in_thread(self._control_socket.remove)]
        # A reload may be about to set the mark that a clean end takes away.
        is_settled = await self._reloads.end(_LEAVE_S)
        seconds = _FLUSH_S if store.buffered else _LEAVE_S
        flushed = in_thread(store.stopped_cleanly) if clean and is_settled else None
        if flushed is not None:
            calls.append(flushed)
        await asyncio.wait(calls, timeout=max(0.0, began + seconds - self._loop.time()))
        has_failed, left = not is_settled, 0
        if not is_settled:
            log.error(
                "a reload still waits for the disk after %g s, and is left to it: whether %s "
                "remembers what it asks for is not known; check the disk; the next start goes by "
                "the file as it is then, and the mark of an unclean end stays, if there is one",
                _LEAVE_S, store.path,
            )  # fmt: skip
        try:
            report = _result(swept, seconds)
            tell_failed(report, store.path / INCOMING)
            left = report.failed
        except OSError as error:
            log.error(
                "cannot remove unfinished instances (%s: %s); the next start tries again; is the "
                "store's file system still there? if it is, see that %s is a folder",
                error.filename or INCOMING, error.strerror, store.path / INCOMING,
            )  # fmt: skip
            has_failed = True
        try:
            if flushed is not None:
                _result(flushed, seconds)
        except OSError as error:
            log.error(
                "cannot flush %s (%s): instances that were acknowledged may not be on the disk; "
                "the mark of an unclean end stays; check the disk, restart the machine or mount "
                "the file system anew, then run `fastscp verify`",
                store.path, error.strerror,
            )  # fmt: skip
            has_failed = True
        is_there = self._tell_lost(lost, seconds)
        is_marked = is_settled and flushed is None and store.buffered
        if is_marked:
            log.error(
                "a worker did not end in order, so the mark of an unclean end stays in %s: run "
                "`fastscp verify`, which checks what it may have left and takes the mark away",
                store.path,
            )  # fmt: skip
        if not has_failed:
            await asyncio.wait([in_thread(held.close)], timeout=seconds)
        else:
            # A thread may still be at it; the end of the process gives the store back.
            held.pop_all()
        return is_there and not (has_failed or left or is_marked)

    @staticmethod
    def _tell_lost(lost: asyncio.Future[str | None], seconds: float) -> bool:
        """Say that the store is gone at the end; returns whether it is there."""
        try:
            why = _result(lost, seconds)
        except OSError as error:
            why = f"it cannot be looked at ({error.strerror})"
        if why is not None:
            log.error(
                "the store is gone at the end: %s; see that it is where it belongs, whole and this "
                "service's own again (mounted, restored), then run `fastscp verify`",
                why,
            )  # fmt: skip
        return why is None

    def _bind(self, undo: contextlib.ExitStack) -> list[Acceptor]:
        """Take every address; nobody listens yet."""
        config = self._config
        listening: list[tuple[socket.socket, bool]] = []
        for tls, port, flag in (
            (False, config.port, "--port"),
            (True, config.tls_port, "--tls-port"),
        ):
            if config.no_plain if not tls else config.tls is None:
                continue
            for sock in bind(config.host, port, flag):
                undo.callback(sock.close)
                listening.append((sock, tls))
        acceptors = [
            Acceptor(
                sock,
                partial(self._dispatch.connected, tls=tls),
                tls=tls,
                turned_away=partial(self._dispatch.turn_away, tls=tls),
                has_room=lambda: self._dispatch.has_room,
                add_reader=self._loop.add_reader,
                remove_reader=self._loop.remove_reader,
                call_later=self._loop.call_later,
            )
            for sock, tls in listening
        ]
        for acceptor in acceptors:
            undo.callback(acceptor.close)
        return acceptors

    async def _make_workers(
        self, prepared: Prepared, store: Store, index: LineIndex | None, ports: tuple[int, int]
    ) -> Workers:
        self._admission.limit(prepared.limits, prepared.book, prepared.titles)
        names = await in_thread(uids.uid_names)
        self._admission.endings.known = names
        self._measured.workers = Workers(
            prepared.configuration,
            store,
            self._shared,
            self._dispatch,
            index=index,
            run_id=self._run_id,
            names=names,
            ports=ports,
            background=self._background,
            over=self._over,
        )
        return self._measured.workers

    def _seen(self) -> Seen:
        """What was counted by now."""
        counts = self._shared.rows.totals()
        # They count among the stored there, for their senders are told a success.
        kept = self._shared.rows.by_status().get(_KEPT, _NONE)
        return Seen(
            time.monotonic(), counts.instances - kept.instances, counts.bytes - kept.bytes,
            counts.refused, counts.unfinished, self._shared.rows.received(), self._admission.begun,
            self._dispatch.rejected, self._admission.admitted, kept.instances,
        )  # fmt: skip

    async def _sum_up(self) -> None:
        """Say every minute what was done, if anything was; `_serve` says the rest at the end."""
        while not self._done.done():
            await asyncio.wait([self._done], timeout=INTERVAL_S)
            if not self._done.done():
                self._tell_summary()

    async def _watch_expiry(self) -> None:
        """See what of TLS runs out: a reload may have renewed it."""
        await asyncio.wait([self._done], timeout=LOOK_EVERY_S)
        if not self._done.done():
            self._facts.expiry.look(self._facts.tls)

    def _tell_summary(self) -> None:
        said = self._summary.say(self._seen())
        if said is not None:
            text, told = said
            log.info("%s", text, extra=fields(told))

    async def _for_ever(
        self, watch: Callable[[], Coroutine[object, object, None]], *, looks: bool = False
    ) -> None:
        """Let a watch go on whatever befalls it, until the service is over.

        looks: it is the one that looks at the store.
        """
        back_off = BackOff()
        while not self._done.done():
            try:
                await watch()
            except Exception:
                delay = back_off.failed()
                self._has_failed |= looks
                log.exception("a watch failed, which is a bug; it goes on in %g s", delay)
                await asyncio.sleep(delay)

    async def _watch_store(self, store: Store) -> None:
        """Look at the store every second, and tell everybody what state it is in."""
        looking: asyncio.Future[Look] | None = None
        hanging_s = 0.0
        while not self._done.done():
            started = time.monotonic()
            self._store_watch.received(self._shared.rows.received())
            if looking is None:
                # One at a time: each of those that hang would take a thread.
                looking, hanging_s = in_thread(look, store), 0.0
            await asyncio.wait([looking], timeout=_LOOK_EVERY_S)
            if looking.done():
                looked, looking = looking, None
                self._see(looked)
            elif hanging_s > HANGS_S:
                self._judge(Look.hanging(store))
            await asyncio.sleep(max(0.05, _LOOK_EVERY_S - (time.monotonic() - started)))
            # Time that main itself was stopped or late says nothing of the disk.
            hanging_s += min(time.monotonic() - started, 2 * _LOOK_EVERY_S)

    def _see(self, looked: asyncio.Future[Look]) -> None:
        blind = ""
        try:
            self._judge(looked.result())
            if self._blind or self._has_failed:
                self._has_failed = False
                log.error("the store is looked at again")
        except OSError as error:
            # Out of descriptors, memory or threads: that is main's own trouble, not the store's.
            blind = error.strerror or str(error)
            if blind != self._blind:
                log.error("cannot look at the store: %s; its state counts as before", blind)
        self._blind = blind

    def _judge(self, seen: Look) -> None:
        state, said = self._store_watch.judge(seen, time.monotonic())
        if said:
            # The end of it, too: whoever is told of an error is told that it is over.
            log.error("%s", said)
            self._shared.store.set_state(state, self._store_watch.slow_rate)
        self._admission.congested = _CONGESTED.get(state, "")

    def _say_start(self, store: Store, swept: SweepReport) -> None:
        log.info("%s", start_line(self._config, self._facts.rules.file, store))
        config, facts = self._config, self._facts
        if facts.admin:
            log.info("metrics and health: http://%s/metrics, /healthz, /readyz", facts.admin)
        warnings = [
            *told_of_aids(config), exposed(config, facts.addresses, facts.tls_addresses),
            overheard(config, facts.addresses), *told_of_files(config),
            config.admin_token_file.warning, *store.warnings,
        ]  # fmt: skip
        for warning in filter(None, warnings):
            log.warning("%s", warning)
        facts.expiry.look(facts.tls)
        if swept.folders:
            log.warning(
                "swept %s of an earlier run: %s, %s, none of them acknowledged",
                counted(swept.folders, "part folder"), counted(swept.parts, "unfinished instance"),
                counted(swept.bytes, "byte"),
            )  # fmt: skip
        if self._workers is not None:
            self._workers.remains.tell_left(swept)
        if store.suspect:
            log.warning(
                "an earlier run that "
                "stored buffered, by --durability or a table, did not stop cleanly: a stored file "
                "that its journal line does not vouch for is replaced when it is sent again; "
                "`fastscp verify` checks all of them and lifts this"
            )
        if warning := told_of_loss(self._config):
            log.warning("%s", warning)

    def _signalled(self, name: signal.Signals, task: asyncio.Task[int]) -> None:
        """Drain the workers and end; at the second signal end them at once.

        task: runs `_serve`; a signal before there are workers cancels it.
        """
        self._tell_signalled(name)
        # Whoever ends a start wants to know what it is about.
        logs.announce()
        workers = self._workers
        if self._done.done():
            log.warning("%s again: the end is under way", name.name)
        elif workers is None:
            hung = ", which waits for the disk" if self._has_waited else ""
            log.info("%s: ending before the start is through%s", name.name, hung)
            self._is_told = True
            task.cancel()
        elif workers.stopping:
            log.warning("%s again: ending at once", name.name)
            workers.stop()
        else:
            self._admission.draining = "shutting down"
            log.info(
                "%s: %s may go on for %g s, new ones are rejected",
                name.name, counted(self._admission.admitted, "association"),
                workers.following.config.drain_timeout,
            )  # fmt: skip
            workers.drain()

    def _reopen_logs(self) -> None:
        """Have all processes open the file of their log anew."""
        logs.reopen()
        if self._workers is not None:
            self._workers.reopen_logs()

    def _over(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    def _background(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of main failed, which is a bug", exc_info=task.exception())


def _port_of(acceptors: list[Acceptor], *, tls: bool) -> int:
    """The port where TLS is spoken, or the other; 0: nobody listens there."""
    return next((one.port for one in acceptors if one.tls is tls), 0)


def _result(call: asyncio.Future[_T], seconds: float) -> _T:
    """What the call returned, or raised. Raises TimeoutError, an OSError, if it has not ended."""
    if not call.done():
        call.cancel()
        raise TimeoutError(errno.ETIMEDOUT, f"given up after {seconds:g} s")
    return call.result()


async def _open_store(prepared: Prepared) -> Store:
    """Take the store; where its last main was killed, its workers may need a moment yet."""
    config = prepared.config
    deadline = time.monotonic() + _ORPHANS_S
    while True:
        try:
            return await in_thread(
                lambda: Store.open(
                    config.store,
                    prepared.filings,
                    config.store_must_exist,
                    config.layout_change,
                    new_life=config.store_new_life,
                    durabilities=prepared.durabilities,
                    rename_noreplace=rename_noreplace,
                )
            )
        except StoreBusyError as error:
            if not error.is_gone or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def run(
    config: ServeConfig,
    *,
    ready: Callable[[Sequence[str], Sequence[str]], None] | None = None,
    signalled: Callable[[signal.Signals], None] = lambda name: None,  # noqa: ARG005
    load: Callable[[], ServeConfig] | None = None,
    file: str = "",
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. signalled: told of each of these.

    load(): reads the configuration anew, for a reload; raises ConfigError, and runs in a thread.
    file: that it reads, absolute; empty: there is none.
    ready: called with the addresses once the service accepts, those without TLS and those with it.
    `listening on HOST:PORT` goes to stderr then, one line each, and first of all: the log's lines
    wait for it, unless the start takes long, has an error to tell of, or is ended by a signal.
    Raises ConfigError or StartError before any connection is accepted.
    """
    logs.hold()
    # Before the loop: it takes descriptors, too, and its end cannot do without.
    associations_allowed(config)

    def announce(plain: Sequence[str], tls: Sequence[str]) -> None:
        lines = [f"listening on {address}" for address in plain]
        logs.announce([*lines, *(f"listening on {address} with TLS" for address in tls)])
        if ready is not None:
            ready(plain, tls)

    async def serve() -> int:
        try:
            service = Service(config, ready=announce, signalled=signalled, load=load, file=file)
        except OSError as error:
            raise StartError(
                f"cannot set up the memory that the main process and its workers share "
                f"({error.strerror}): raise the limits of this process (ulimit -a: file size, "
                f"open files, memory), or free some memory"
            ) from error
        return await service.serve()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        logs.announce()
        logs.flush()

"""The service: opens the store, starts the rest of main, waits, and sees everybody off.

Main never touches a payload. Everything here runs on one loop; what may block on the disk runs in
threads that nobody has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import uvloop
from setproctitle import setproctitle

from fastscp import log as logs
from fastscp import uids
from fastscp.admin.door import Doors
from fastscp.errors import StartError, StoreBusyError
from fastscp.log import counted, fields, printable
from fastscp.main.acceptor import Acceptor
from fastscp.main.admission import Admission, Limits
from fastscp.main.aids import aids
from fastscp.main.backoff import BackOff
from fastscp.main.control import ControlSocket, Facts, MainControl, taken
from fastscp.main.descriptors import associations_allowed, redo_files_allowed, redo_files_wanted
from fastscp.main.dispatch import Dispatch
from fastscp.main.expiry import LOOK_EVERY_S
from fastscp.main.explained import explained, start_explained
from fastscp.main.indexing import Indexing, index_of
from fastscp.main.inherited import KEPT, Inherited
from fastscp.main.leaving import DRAIN_AND_S, FLUSH_S, LEAVE_S, leave
from fastscp.main.listening import ADMIN, TLS, listening_for
from fastscp.main.measured import Measured
from fastscp.main.origin import Origin
from fastscp.main.page import Page
from fastscp.main.prepared import Prepared, prepare
from fastscp.main.redo import Redo, decide, say
from fastscp.main.reload import FIRST, Reloader, Reloads
from fastscp.main.signals import heard
from fastscp.main.startline import say_start
from fastscp.main.storewatch import StoreWatch
from fastscp.main.summary import INTERVAL_S, Seen, Summary
from fastscp.main.takeover import Takeover, kept_settings
from fastscp.main.threads import in_thread
from fastscp.main.upgrade import Parts, Upgrade
from fastscp.main.waiting import Waiting
from fastscp.main.watching import Watching
from fastscp.main.web import Web
from fastscp.main.workers import Workers, new_run_id
from fastscp.messages.handover import COMMON
from fastscp.store.journal import last_sequence
from fastscp.store.leftovers import tell_left
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING, JOURNAL
from fastscp.store.store import Store
from fastscp.store.unflushed import tell as tell_unflushed
from fastscp_ext import Counts, Shared, rename_noreplace

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from fastscp.config.settings import ServeConfig
    from fastscp.store.lives import SweepReport
    from fastscp_ext import LineIndex

__all__ = ["Service", "run"]

log = logging.getLogger("fastscp.main")

# Between looks at what a service manager is told.
_STATUS_EVERY_S: Final = 5.0
# How long what was accepted may take to come to a worker, before these drain.
_SETTLES_S: Final = 2.0
# How long who asked by HTTP before a successor took over may take to be answered.
_ANSWERS_S: Final = 2.0
_SHUTTING_DOWN: Final = "shutting down"
_NONE: Final = Counts(0, 0, 0, 0)
# How long a start may keep the log back, so that `listening on` is its first line.
_SILENT_S: Final = 5.0
# How long the workers of a killed main may hold the store: they finish the message in hand.
_ORPHANS_S: Final = 8.0
# And a command, as `fastscp recover`, which may have a full log of each worker before it.
_COMMAND_S: Final = 60.0


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
        origin: Origin | None = None,
    ) -> None:
        self._config = config
        self._origin = origin or Origin()
        self._notify = self._origin.notify
        self._tell_ready = ready
        self._tell_signalled = signalled
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        before = self._origin.predecessor
        self._shared = Shared(-1, before.take(COMMON) if before is not None else -1)
        limits = Limits(associations_allowed(config), by_files=not config.max_associations)
        self._admission = Admission(limits, self._shared.rows, self._shared.tallies)
        self._run_id = new_run_id()
        self._dispatch = Dispatch(self._admission, self._shared, self._run_id)
        self._inherited = Inherited(self._shared.rows, self._admission.endings)
        self._summary = Summary(self._seen())
        self._store_watch = StoreWatch(config.min_free_space)
        self._facts = Facts(
            self._run_id, config.workers, config.min_free_space, taken(config, FIRST, file),
            aids=aids(config), tls=config.tls,
        )  # fmt: skip
        control = MainControl(
            self._facts, self._admission, self._dispatch, self._store_watch, self._shared.tallies,
            self._shared.liveness, lambda: self._inherited.added_to(self._seen()),
        )  # fmt: skip
        self._control = control
        self._control_socket = ControlSocket(control)
        self._web = Web(config.admin, config.admin_token_file.token)
        self._measured = Measured(
            control.status, self._shared.rows, self._admission, self._dispatch, self._inherited
        )
        self._page = Page(control, self._measured, self._admission, self._dispatch, self._seen)
        self._load = load or (lambda: config)
        self._reloads = Reloads(self._background, self._reopen_logs, self._notify)
        self._facts.reload = self._reloads.reload
        self._watching = Watching(
            self._store_watch, self._facts.refusing, self._shared, self._admission, self._done
        )
        self._takeover = (
            None if before is None
            else Takeover(
                before, config, self._shared, self._facts, self._control_socket, self._inherited
            )
        )  # fmt: skip
        self._workers: Workers | None = None
        self._acceptors: list[Acceptor] = []
        # From the end of the start on, where there is a program to upgrade to.
        self._upgrade: Upgrade | None = None
        # To end, before there were workers.
        self._is_told = False
        # Because whom it was to take over from was gone.
        self._is_orphaned = False
        self._waiting = Waiting(config.store.absolute(), self._notify)

    async def serve(self) -> int:
        """Run until told to stop; returns the exit code. Raises FastscpError if it cannot start."""
        self._loop.call_later(_SILENT_S, logs.announce)
        serving = self._loop.create_task(self._serve())
        if self._takeover is not None:
            self._takeover.watch(lambda: self._orphaned(serving))
        with heard(
            self._loop, lambda name: self._signalled(name, serving), self._reloads.hung_up,
            self._upgrade_wanted,
        ):  # fmt: skip
            try:
                code = await serving
            except asyncio.CancelledError:
                if not self._is_told:
                    raise
                # While it started: there is nobody to drain, and whatever still hangs is left.
                code = 1 if self._waiting.has_waited or self._is_orphaned else 0
        log.info("stopped")
        return code

    async def _serve(self) -> int:
        config = self._config
        with contextlib.ExitStack() as undo:
            beginning = undo.enter_context(contextlib.ExitStack())
            beginning.enter_context(start_explained())
            if self._takeover is not None:
                undo.callback(self._takeover.close)
            # First of all: a start that gets no port has made no store.
            acceptors = self._acceptors = self._bind(undo)
            undo.callback(self._web.close)
            self._web.bind(next((s for name, s in self._origin.sockets if name == ADMIN), None))
            self._facts.admin = self._web.address
            if self._web.address:
                self._page.open()
                undo.callback(self._page.close)
            waiting = undo.enter_context(self._waiting.told())
            prepared = await in_thread(prepare, config, FIRST)
            store = await self._take_store(prepared)
            held = undo.enter_context(contextlib.ExitStack())
            held.callback(store.close)
            starting = undo.enter_context(contextlib.ExitStack())
            starting.enter_context(store.unmade_on_failure())
            with explained(store.path, INCOMING):
                swept = await in_thread(sweep_incoming, store.dir_fd)
            if self._takeover is None:
                with explained(store.path, JOURNAL):
                    last = await in_thread(last_sequence, store.dir_fd)
                self._shared.store.begin_sequence(max(last, store.sequence))
                self._shared.store.mixed = store.mixed
                tell_unflushed(store.unflushed, self._shared.doubts)
                tell_left(store.left, self._shared.doubts)
            self._facts.path, self._facts.store_id = printable(str(store.path.absolute())), store.id
            starting.callback(self._control_socket.abandon)
            # A successor imports now what it answers with, and answers in its turn.
            may_answer = self._loop.create_future()
            doors = Doors(self._measured, self._page, self._control)
            self._background(self._web.open(doors, may_answer))
            if self._web.address:
                self._background(self._for_ever(self._page.keep))
            if self._takeover is None:
                await self._control_socket.open(store)
                may_answer.set_result(None)
            index = await index_of(store)
            ports = _port_of(acceptors, tls=False), _port_of(acceptors, tls=True)
            older = self._takeover is not None and not self._takeover.has_claims
            files = redo_files_allowed(config)
            wanted = redo_files_wanted(config)
            redo = await in_thread(
                partial(decide, prepared, store, files, wanted, beside_older=older)
            )
            self._facts.redo = redo.why
            if redo.is_on:
                await in_thread(store.begin_log)
            self._workers = workers = await self._make_workers(prepared, store, index, ports, redo)
            self._waiting.workers = workers
            undo.callback(workers.close)
            undo.callback(workers.abandon)
            await workers.start(config.workers)
            if self._takeover is not None and not workers.stopping:
                await self._takeover.finish(prepared, store, workers, self._done)
                if not workers.stopping:
                    may_answer.set_result(None)
            if not workers.stopping:
                for acceptor in acceptors:
                    acceptor.listen()
            starting.pop_all()
            waiting.close()
            beginning.pop_all()
            if not workers.stopping:
                self._open(acceptors, store, swept)
                self._begin_changes(store, workers)
                if index is not None:
                    self._background(self._indexing(store, index, workers).run(self._done))
            code = await self._done
            if not await self._end(workers, store, held, in_order=code == 0):
                code = 1
        return code

    async def _end(
        self, workers: Workers, store: Store, held: contextlib.ExitStack, *, in_order: bool
    ) -> bool:
        """No worker is left; returns whether all ends in order. in_order: whether they went so."""
        self._tell_summary()
        self._control_socket.close()
        if self._upgrade is not None and self._upgrade.has_handed_over:
            await self._web.has_answered(_ANSWERS_S)
        self._web.close()
        for acceptor in self._acceptors:
            acceptor.close()
        self._dispatch.close()
        if self._takeover is not None and not await self._takeover.end():
            in_order = False
        if not await workers.remains.settled(LEAVE_S):
            in_order = False
        is_recovered, clean = in_order, in_order and not workers.lost
        if workers.tell_missing():
            in_order = False
        return await self._leave(store, held, clean=clean, is_recovered=is_recovered) and in_order

    # A successor --------------------------------------------------------------------------------

    def _begin_changes(self, store: Store, workers: Workers) -> None:
        """The start is through: take another configuration, or another program, when told to."""
        reloader = self._reloader(store, workers)
        self._reloads.begin(reloader)
        if not self._origin.command:
            return
        # What the sockets are by, though somebody may have changed the settings meanwhile.
        kept = kept_settings(self._config)
        if self._origin.predecessor is not None:
            # It may have had none for HTTP.
            kept = {**kept, **self._origin.predecessor.told.kept}
        self._upgrade = Upgrade(
            Parts(
                command=self._origin.command, kept=kept,
                linger_s=lambda: reloader.config.reload_linger, totals=self._measured.totals,
                is_activated=self._origin.is_activated, shared=self._shared, store=store,
                admission=self._admission, dispatch=self._dispatch, workers=workers,
                acceptors=self._acceptors, control_socket=self._control_socket,
                web=self._web, notify=self._notify, facts=self._facts, background=self._background,
            )
        )  # fmt: skip

    def _upgrade_wanted(self) -> None:
        """USR2: start the program that is there now, and let it take over."""
        upgrade, workers = self._upgrade, self._workers
        if self._done.done() or (workers is not None and workers.stopping):
            why = "the service is ending"
        elif not self._origin.command:
            why = "this command cannot be upgraded; end it, and start it anew"
        elif upgrade is None:
            why = "the start is not through yet: try again then"
        elif self._reloads.is_under_way:
            why = "a reload is under way: try again when it is through"
        else:
            why = upgrade.refused()
        if why or upgrade is None:
            log.warning("USR2: no upgrade: %s", why)
        else:
            log.info("USR2: upgrading")
            upgrade.begin()

    def _indexing(self, store: Store, index: LineIndex, workers: Workers) -> Indexing:
        before = self._origin.predecessor
        runs = (workers.run_id,) if before is None else (workers.run_id, before.told.run)
        return Indexing(store, index, *runs)

    async def _take_store(self, prepared: Prepared) -> Store:
        if self._takeover is not None:
            return await self._takeover.store(prepared)
        return await _open_store(prepared)

    def _orphaned(self, task: asyncio.Task[int]) -> None:
        """Whom it was to take over from is gone, and it is nobody's service yet."""
        self._is_told = self._is_orphaned = True
        task.cancel()

    async def _leave(
        self, store: Store, held: contextlib.ExitStack, *, clean: bool, is_recovered: bool = False
    ) -> bool:
        upgrade = self._upgrade
        is_handed_over = upgrade is not None and upgrade.has_handed_over
        if not is_handed_over:
            self._notify.extend(FLUSH_S + LEAVE_S)
        done = await leave(
            store, held, self._reloads, self._control_socket,
            clean=clean, is_recovered=is_recovered, is_handed_over=is_handed_over,
        )  # fmt: skip
        if upgrade is not None:
            # Last: whoever takes over looks at the store when it hears this.
            upgrade.leave(clean=clean and done)
        return done

    # The start -----------------------------------------------------------------------------------

    def _open(self, acceptors: list[Acceptor], store: Store, swept: SweepReport) -> None:
        """All is there: let peers in."""
        setproctitle(f"fastscp: main, port {acceptors[0].port}")
        for acceptor in acceptors:
            acceptor.start()
        self._facts.addresses = tuple(one.address for one in acceptors if not one.tls)
        self._facts.tls_addresses = tuple(one.address for one in acceptors if one.tls)
        self._facts.is_open = True
        self._tell_ready(self._facts.addresses, self._facts.tls_addresses)
        self._background(self._tell_up())
        say_start(self._config, self._facts, store, swept)
        if self._workers is not None:
            say(self._workers.redo, self._config.redo)
            self._workers.remains.tell_left(swept)
        self._dispatch.start()
        self._background(self._for_ever(lambda: self._watching.go_on(store), looks=True))
        self._background(self._for_ever(self._sum_up))
        if self._web.address:
            self._page.stores_in(store)
            self._background(self._for_ever(lambda: self._measured.measure_journal(store)))
        self._background(self._for_ever(self._control_socket.keep))
        if self._facts.tls is not None:
            self._background(self._for_ever(self._watch_expiry))
        self._background(self._for_ever(self._tell_manager))

    def _reloader(self, store: Store, workers: Workers) -> Reloader:
        return Reloader(
            self._config, load=self._load, facts=self._facts, shared=self._shared, store=store,
            store_watch=self._store_watch, admission=self._admission, workers=workers,
        )  # fmt: skip

    def _bind(self, undo: contextlib.ExitStack) -> list[Acceptor]:
        """Take every address; nobody listens yet."""
        origin = self._origin
        listening = listening_for(origin.sockets, self._config, is_activated=origin.is_activated)
        for _name, sock in listening:
            undo.callback(sock.close)
        acceptors = [
            Acceptor(
                sock,
                partial(self._dispatch.connected, tls=name == TLS),
                tls=name == TLS,
                turned_away=partial(self._dispatch.turn_away, tls=name == TLS),
                has_room=lambda: self._dispatch.has_room,
                add_reader=self._loop.add_reader,
                remove_reader=self._loop.remove_reader,
                call_later=self._loop.call_later,
            )
            for name, sock in listening
        ]
        for acceptor in acceptors:
            undo.callback(acceptor.close)
        return acceptors

    async def _make_workers(
        self,
        prepared: Prepared,
        store: Store,
        index: LineIndex | None,
        ports: tuple[int, int],
        redo: Redo,
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
            redo=redo,
            background=self._background,
            reserved=self._takeover.workers if self._takeover is not None else (),
            said=self._page.said if self._web.address else None,
            over=self._over,
        )
        return self._measured.workers

    def _seen(self) -> Seen:
        """What was counted by now, by this process and its workers."""
        counts = self._shared.rows.totals()
        # They count among the stored there, for their senders are told a success.
        kept = self._shared.rows.by_status().get(KEPT, _NONE)
        return Seen(
            time.monotonic(), counts.instances - kept.instances, counts.bytes - kept.bytes,
            counts.refused, counts.unfinished, self._shared.rows.received(), self._admission.begun,
            self._dispatch.rejected, self._admission.admitted, kept.instances,
            sum(self._dispatch.handshakes_failed.values()),
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

    def _status(self) -> str:
        """In a line, for a service manager."""
        now = self._control.status()
        state = f"{now.state}: {now.why}" if now.why else now.state
        return (
            f"{state}; {counted(now.associations, 'association')}, "
            f"{counted(now.stored, 'instance')} stored"
        )

    async def _tell_up(self) -> None:
        """Say that this process is the service, to its predecessor first."""
        if self._takeover is not None:
            await self._takeover.serving()
        self._notify.ready(self._status())

    async def _tell_manager(self) -> None:
        """Tell a service manager how it is, and that it is at all, as long as workers are, too.

        Where the loops of all workers stand still only a restart helps, unless main gets others up.
        """
        feed_s = self._notify.feed_every_s
        await asyncio.wait([self._done], timeout=min(feed_s or _STATUS_EVERY_S, _STATUS_EVERY_S))
        takers = self._dispatch.takers
        if feed_s and (takers.answering or not takers.ready):
            self._notify.alive()
        self._notify.status(self._status())

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
                self._watching.has_failed |= looks
                log.exception("a watch failed, which is a bug; it goes on in %g s", delay)
                await asyncio.sleep(delay)

    def _signalled(self, name: signal.Signals, task: asyncio.Task[int]) -> None:
        """Drain the workers and end; at the second signal end them at once.

        task: runs `_serve`; a signal before there are workers cancels it.
        """
        self._tell_signalled(name)
        # Whoever ends a start wants to know what it is about.
        logs.announce()
        workers = self._workers
        upgrade = self._upgrade
        if self._done.done():
            log.warning("%s again: the end is under way", name.name)
        elif upgrade is not None and upgrade.has_handed_over:
            log.info("%s: what this process has left is drained; its successor goes on", name.name)
            upgrade.end()
        elif workers is None:
            hung = ", which waits for the disk" if self._waiting.has_waited else ""
            log.info("%s: ending before the start is through%s", name.name, hung)
            self._is_told = True
            task.cancel()
        elif workers.stopping:
            log.warning("%s again: ending at once", name.name)
            workers.stop()
            if self._takeover is not None:
                self._takeover.drain(0.0)
        else:
            self._drain(name, workers)

    def _drain(self, name: signal.Signals, workers: Workers) -> None:
        seconds = workers.following.config.drain_timeout
        if self._upgrade is not None and self._upgrade.is_under_way:
            log.info("%s: the upgrade that is under way is given up", name.name)
            self._upgrade.give_up()
        self._notify.stopping(seconds + DRAIN_AND_S)
        if self._takeover is not None:
            self._takeover.drain(seconds)
        is_kept = self._origin.is_activated
        if not is_kept:
            self._admission.draining = _SHUTTING_DOWN
        log.info(
            "%s: %s may go on for %g s, new ones %s",
            name.name, counted(self._admission.admitted, "association"), seconds,
            "wait for the next start in the sockets of the service manager" if is_kept
            else "are rejected",
        )  # fmt: skip
        if not is_kept:
            workers.drain()
            return
        # Who was let in is served; who was not is the next one's.
        self._facts.draining = _SHUTTING_DOWN
        for acceptor in self._acceptors:
            acceptor.hold()
        workers.stopping = True
        self._background(self._drain_settled(workers))

    async def _drain_settled(self, workers: Workers) -> None:
        await self._dispatch.settled(_SETTLES_S)
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


async def _open_store(prepared: Prepared) -> Store:
    """Take the store; workers of a main that was killed, or a command, may need a moment yet."""
    config = prepared.config
    began = time.monotonic()
    is_told = False
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
            most = _ORPHANS_S if error.is_gone else _COMMAND_S if error.is_command else 0.0
            if time.monotonic() - began > most or not most:
                raise
            if error.is_command and not is_told:
                is_told = True
                log.info("%s; waits for it, at most %g s", error, _COMMAND_S)
        await asyncio.sleep(0.1)


def run(
    config: ServeConfig,
    *,
    ready: Callable[[Sequence[str], Sequence[str]], None] | None = None,
    signalled: Callable[[signal.Signals], None] = lambda name: None,  # noqa: ARG005
    load: Callable[[], ServeConfig] | None = None,
    file: str = "",
    command: Sequence[str] = (),
    given: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. signalled: told of each of these.

    load(): reads the configuration anew, for a reload; raises ConfigError, and runs in a thread.
    file: that it reads, absolute; empty: there is none. command: the command line of this service,
    for an upgrade; empty: there is none. given: what was set of host and ports, by option: where.
    ready: called with the addresses once the service accepts, those without TLS and those with it.
    `listening on HOST:PORT` goes to stderr then, one line each, and first of all: the log's lines
    wait for it, unless the start takes long, has an error to tell of, or is ended by a signal.
    Raises ConfigError or StartError before any connection is accepted.
    """
    logs.hold()
    # Before the loop: it takes descriptors, too, and its end cannot do without.
    associations_allowed(config)
    origin = Origin.found(command, given)

    def announce(plain: Sequence[str], tls: Sequence[str]) -> None:
        lines = [f"listening on {address}" for address in plain]
        logs.announce([*lines, *(f"listening on {address} with TLS" for address in tls)])
        if ready is not None:
            ready(plain, tls)

    async def serve() -> int:
        try:
            service = Service(
                config, ready=announce, signalled=signalled, load=load, file=file, origin=origin
            )
        except OSError as error:
            raise StartError(
                f"cannot set up the memory that the main process and its workers share "
                f"({error.strerror}): raise the limits of this process (ulimit -a: file size, "
                f"open files, memory), or free some memory"
            ) from error
        except ValueError as error:
            raise StartError(
                f"cannot take over from the service that started this one: {error}; stop that one, "
                f"and start this version"
            ) from error
        return await service.serve()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        logs.announce()
        logs.flush()

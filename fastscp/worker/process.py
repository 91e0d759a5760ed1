"""A worker process: its life, its loop, and what main tells it.

Main starts it with five descriptors, or six where there is an index of the journal; it takes
everything else from the first message.
It lives until it is told to drain or stop, or until main is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop
from setproctitle import setproctitle

from fastscp import log as logs
from fastscp import uids
from fastscp.association.machine import State
from fastscp.errors import words_of
from fastscp.log import address
from fastscp.messages.channel import Channel
from fastscp.messages.configuration import unpack
from fastscp.messages.worker import (
    HELD_OFF,
    SAID_MOST,
    Abandon,
    Ask,
    Configured,
    Displace,
    Displaced,
    Drain,
    End,
    Failed,
    Gone,
    Holds,
    Idle,
    Leaving,
    Offer,
    Over,
    Ready,
    Relayed,
    Reopen,
    Retire,
    Said,
    SeekIdle,
    Setup,
    Stop,
    Taken,
    ToWorker,
    Unshaken,
    Verdict,
)
from fastscp.store.journal import Segments
from fastscp.store.lives import create_life, remove_life
from fastscp.store.names import INCOMING, shut
from fastscp.worker.association import Association
from fastscp.worker.connection import Headers, Origin, prepare
from fastscp.worker.faults import Faults, FaultyAssociation
from fastscp.worker.handshakes import Handshakes
from fastscp.worker.helpers import Helpers
from fastscp.worker.identities import Identities
from fastscp.worker.jobs import Jobs
from fastscp.worker.journal import JournalAhead
from fastscp.worker.redo import RedoLog
from fastscp.worker.requests import Requests
from fastscp.worker.rounds import Rounds
from fastscp.worker.rules import Going
from fastscp.worker.taking import Taking
from fastscp_ext import LineIndex, Reception, Rules, Shared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastscp.config.settings import WorkerConfig
    from fastscp.messages.configuration import Configuration
    from fastscp.rules.rule import Rule
    from fastscp_ext import Secured

__all__ = ["Worker", "main"]

log = logging.getLogger("fastscp.worker")

# Why associations end with the service, for the log.
_SHUTTING_DOWN: Final = "shutting down"
# What rests for so long holds up no drain of the service: associations without traffic, and
# connections that have not sent a request since their accept.
_RESTING_S: Final = 5.0
# After the drain time: how long a message in hand may take to finish.
_LAST_MESSAGE_S: Final = 5.0
# Of a worker that ends while the service goes on: an association that has rested for a shorter time
# when its time is over may send one more message, in the time of the last.
_RESTED_S: Final = 1.0
# Between looks at who may read on, while space is short.
_REFILL_S: Final = 0.02
# Between two looks at what short messages the kernel keeps: a release waits for one or two.
_SHORT_S: Final = 0.004
# How long the disk may take for what is in hand, after the drain time or when told to stop: a
# little less than main's patience, so that the worker can still say why it ends.
_DISK_S: Final = 14.0
_DISK_AT_ONCE_S: Final = 1.5


class Worker:
    """The process's one object. All methods run on its loop."""

    def __init__(
        self,
        setup: Setup,
        configuration: Configuration,
        channel: Channel,
        store_fd: int,
        shared: Shared,
        index: LineIndex | None = None,
    ) -> None:
        self._setup = setup
        self._channel = channel
        self._shared = shared
        self._store_fd = store_fd
        # Of its log, as far as they are counted where main reads it.
        self._lines_lost = 0
        self._copies = self._make_copies() if setup.shows_log else None
        self.going = Going(configuration)
        self.run = setup.run
        self.names: Mapping[str, str] = setup.names
        self._associations: dict[int, Association] = {}
        self._headers = Headers(setup.run, self._relayed, self._closed)
        self.rounds = Rounds()
        self.requests = Requests()
        self.identities = Identities()
        self.identities.use(self.going.config.user_identity, self.going.config.ae_title)
        # Of `--fault`, which no reload changes.
        faults = self.going.config.fault
        self._faults = Faults(faults) if faults else None
        self._taking = Taking(self._configured, self._tell_configured)
        self._refilling = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        # The service ends, and with it associations that rest.
        self._ends_resting = False
        # Told to end while the service goes on: by a signal of its own, or since fewer are wanted.
        self._is_alone = False
        # Why associations end, once they are to; and why they would then.
        self.ending = ""
        self._why = _SHUTTING_DOWN
        self._closing = False
        self._finished: asyncio.Event = asyncio.Event()
        self._end_by = math.inf
        self._deadline: asyncio.Timeout | None = None
        self._next_tick = 0.0
        self._leaver = Helpers("leave", 1)
        self._life_fd, self._life_lock_fd = create_life(store_fd, setup.life)
        self._jobs = Jobs(setup, store_fd, self._life_fd, shared, index)
        self._jobs.knows(self.going.layouts)
        # Stable lines, and buffered ones in files of their own: nobody waits for the other's flush.
        writer = setup.life.removeprefix(f"{setup.run}-")
        self._segments = Segments(store_fd, setup.run, writer, durable=True)
        self._journal = self._make_journal(f"{writer}b")
        self._reception = self._make_reception()
        self._redo = RedoLog(setup, store_fd, writer, self._reception)
        self._handshakes = Handshakes(
            setup.run, self._reception, self._shaken, self._closed, self._unshaken, self.rounds,
            plain_port=setup.port,
        )  # fmt: skip

    def _make_copies(self) -> logs.Copies:
        wake = partial(asyncio.get_running_loop().call_soon_threadsafe, self._say)
        return logs.Copies(f"worker-{self._setup.worker}", wake)

    def _make_journal(self, writer: str) -> JournalAhead:
        journal = JournalAhead(
            Segments(self._store_fd, self._setup.run, writer, durable=False),
            opened=lambda: self._reception.journal_opened(),
            removed=lambda fd: self._reception.leave_journal(fd),
        )
        if self.going.is_buffered_somewhere:
            journal.prepare()
        return journal

    def _next_journal(self, durable: bool) -> tuple[int, int] | tuple[int, int, str]:
        """For stable lines on a thread of the commit, for buffered ones on the loop."""
        if not durable:
            return self._journal.next()
        fd, size = self._segments.next()
        return fd, size, self._segments.path(fd)

    def _make_reception(self) -> Reception:
        setup = self._setup
        return Reception(
            store_fd=self._store_fd,
            incoming_fd=self._life_fd,
            shared=self._shared,
            worker=setup.worker,
            name=f"w{setup.worker}",
            use_link=setup.use_link,
            nameless=setup.nameless,
            implementation=uids.IMPLEMENTATION_CLASS_UID.encode(),
            version=uids.IMPLEMENTATION_VERSION_NAME.encode(),
            new_journal=self._next_journal,
            on_duplicate=self._jobs.compare,
            on_error=self._jobs.file_error,
            on_complete=self._jobs.compress,
            on_unlocked=self._jobs.unlocked,
            on_refused=self._jobs.refused,
            on_replaced=self._jobs.replaced,
            on_short=self._watch_short,
            max_bytes_in_flight=self.going.config.max_bytes_in_flight,
        )

    # Life ----------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Work until drained or stopped."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reception.done_fd, self._reception.release)
        loop.add_reader(self._channel.fileno(), self._messages)
        self._channel.write_with(loop.add_writer, loop.remove_writer)
        # Main hears signals and speaks for all; one sent to a worker itself only recycles it.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._recycle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_OFF)
        # Main asks nobody anything who has shown no sign of life for a while; a start may be long.
        self._shared.liveness.heartbeat(self._setup.worker, int(time.monotonic() * 1000))
        if self._copies is not None:
            logs.copy_to(self._copies)
        self._channel.send(Holds(self.going.book.generation))
        self._channel.send(Ready())
        self._next_tick = time.monotonic() + self.going.tick_s
        loop.call_later(self.going.tick_s, self._tick)
        await self._finished.wait()
        await self._close()
        # Its exit code is decided: no signal that comes now changes it.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_OFF)

    async def _close(self) -> None:
        # The loop that hears of them ends.
        logs.copy_to(None)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._end_by) as self._deadline:
                await self._finish_in_hand()
                await asyncio.wrap_future(self._leaver.call(self._redo.checkpoint))
                # Whoever is still connected may have stored something meanwhile.
                await self._finish_in_hand()
                loop.remove_reader(self._reception.done_fd)
                # From here on nothing begins that needs the store. Whoever is still connected
                # meets no descriptor of it, for its number may be another file's soon.
                self._closing = True
                self._reception.close()
                if not self._channel.closed:
                    loop.add_reader(self._channel.fileno(), self._last_messages)
                await asyncio.wrap_future(self._leaver.call(self._leave_store))
                self._leaver.close()
        except TimeoutError:
            self._give_up()
        loop.remove_reader(self._channel.fileno())
        # What peers that do not hang up leave is in the log: main need not tell of it.
        logs.flush()
        for association in list(self._associations.values()):
            self.gone(association)
        self._channel.close()

    async def _finish_in_hand(self) -> None:
        # All finish by way of threads; a look now and then is simpler than an event for each.
        reception = self._reception
        while reception.uncommitted or self._jobs.under_way or reception.removals:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def _leave_store(self) -> None:
        """Close and remove what is this life's alone. Off the loop: each call may hang."""
        self._taking.close()
        self.identities.close()
        self._jobs.close()
        self._journal.close()
        self._segments.close()
        self._redo.close()
        shut(self._life_fd)
        remove_life(self._store_fd, self._setup.life)
        shut(self._life_lock_fd)

    def _end_within(self, seconds: float) -> None:
        """Wait no longer than that for the disk, once the associations are gone."""
        self._end_by = min(self._end_by, asyncio.get_running_loop().time() + seconds)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self._end_by)

    def _give_up(self) -> None:
        """End though threads hang in the disk. Nothing waits for them, as an ordinary end would."""
        log.error(
            "the disk hangs: ending without %s, %s and %s to be removed; a later start sweeps "
            "them; check the disk",
            logs.counted(self._reception.uncommitted, "unanswered instance"),
            logs.counted(
                self._jobs.under_way, "comparison or compression", "comparisons or compressions"
            ),
            logs.counted(self._reception.removals, "part"),
        )  # fmt: skip
        logging.shutdown()
        os._exit(1)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        late = now - self._next_tick
        tick_s = self.going.tick_s
        self._next_tick = now + tick_s
        loop.call_later(tick_s, self._tick)
        self._shared.liveness.heartbeat(self._setup.worker, int(now * 1000))
        self._count_lost_lines()
        if not self._refilling:
            self._refill()
        if not self._closing:
            self._journal.watch()
            self._jobs.watch(now)
        # After a stall the sockets are read first: what arrived meanwhile is not late.
        if late < 2 * tick_s:
            artim_s = self.going.config.artim_timeout
            if self._ends_resting:
                artim_s = min(artim_s, _RESTING_S)
            self._headers.tick(now, artim_s)
            self._handshakes.tick(now, artim_s)
            for association in list(self._associations.values()):
                association.tick(now)
            self._end_resting(now)

    def _end_resting(self, now: float) -> None:
        """In a drain of the service: end associations and connections in which nothing goes on."""
        if not self._ends_resting:
            return
        for association in list(self._associations.values()):
            since = association.rests_since
            if since and now - since >= _RESTING_S:
                association.end_now(f"{_SHUTTING_DOWN}, and it rests for {now - since:.0f} s")

    def _count_lost_lines(self) -> None:
        lost = logs.lines_lost()
        if lost != self._lines_lost:
            self._shared.rows.lose_lines(self._setup.worker, lost - self._lines_lost)
            self._lines_lost = lost

    def _say(self) -> None:
        """Let main have a copy of what was logged; where it does not listen, it has none."""
        lines = [] if self._copies is None else self._copies.take()
        for at in range(0, len(lines), SAID_MOST):
            self._channel.offer(Said(lines[at : at + SAID_MOST]))

    def _refill(self) -> None:
        """Let those read on who may; while space is short, often."""
        self._refilling = self._reception.refill(time.monotonic())
        if self._refilling:
            asyncio.get_running_loop().call_later(_REFILL_S, self._refill)

    def _watch_short(self) -> None:
        asyncio.get_running_loop().call_later(_SHORT_S, self._let_short_in)

    def _let_short_in(self) -> None:
        if self._reception.let_short_in():
            self._watch_short()

    def _recycle(self) -> None:
        if not self._draining:
            self._is_alone = True
            self._why = "its worker was told to end (TERM to it), and --drain-timeout is over"
            self._drain(self.going.config.drain_timeout)

    def _drain_with_service(self, seconds: float) -> None:
        """Drain, and let nobody who only rests make the service wait."""
        self._is_alone, self._why, self._ends_resting = False, _SHUTTING_DOWN, True
        now = time.monotonic()
        if now - self._next_tick < self.going.tick_s:
            # Else the loop stood still, and what arrived meanwhile is read first.
            self._end_resting(now)
        self._drain(seconds)

    def _retire(self, seconds: float) -> None:
        """Others take the connections from now on; nobody takes this worker's place."""
        setproctitle(f"fastscp: worker {self._setup.worker}, retired")
        self._is_alone = True
        self._why = "its worker was retired by a reload, and --reload-linger is over"
        self._drain(seconds)

    def _take_no_more(self) -> None:
        """Let main hand connections to others from now on."""
        if not self._draining:
            self._draining = True
            self._channel.send(Leaving())

    def _drain(self, seconds: float) -> None:
        """Let associations go on for a while, and end when the last has.

        Told so again, it ends after the shorter time.
        """
        self._take_no_more()
        loop = asyncio.get_running_loop()
        self._end_within(seconds + _DISK_S)
        loop.call_later(seconds, self._drained)
        self._maybe_finished()

    def _drained(self) -> None:
        """The drain time is over: idle associations end now, a message in hand may finish.

        A worker that ends alone lets those begin their message, too, that have just come: it took
        them, and nobody else can have them.
        """
        if self.ending:
            return
        self.ending = self._why
        rested_s = _RESTED_S if self._is_alone else 0.0
        if not self._is_alone:
            self._headers.drop_all(self.ending)
            self._handshakes.drop_all(self.ending)
        for association in list(self._associations.values()):
            association.finish(rested_s)
        asyncio.get_running_loop().call_later(_LAST_MESSAGE_S, self._stop)

    def _stop(self) -> None:
        self._take_no_more()
        self._headers.drop_all(self._why)
        self._handshakes.drop_all(self._why)
        for association in list(self._associations.values()):
            association.end_now(self._why)
        # Peers that do not hang up are left behind.
        asyncio.get_running_loop().call_later(0.5, self._finished.set)
        self._maybe_finished()

    def _maybe_finished(self) -> None:
        waiting = len(self._headers) + len(self._handshakes)
        if self._draining and not self._associations and not waiting:
            self._finished.set()

    # Main's messages -----------------------------------------------------------------------------

    def _messages(self) -> None:
        for message, fd in self._channel.receive():
            match message:
                case Offer():
                    if fd is not None:
                        self._offered(message, fd)
                case Verdict():
                    self._decided(message)
                case Configured():
                    self._taking.add(message.generation, fd)
                case Abandon():
                    self._abandon(message.number)
                case SeekIdle():
                    self._channel.send(self._longest_idle(message))
                case Displace():
                    done = self._displace(message)
                    self._channel.send(Displaced(message.number, message.newcomer, done))
                case End():
                    self._end(message)
                case Reopen():
                    # It may be on stderr since it could not be opened.
                    self._set_up_log()
                    logs.reopen()
                case Drain():
                    self._drain_with_service(message.seconds)
                case Retire():
                    self._retire(message.seconds)
                case Stop():
                    self._end_within(_DISK_AT_ONCE_S)
                    self._why = _SHUTTING_DOWN
                    self._stop()
        if self._channel.closed:
            # Main is gone: nobody admits anybody any more.
            log.error("the main process is gone; finishing what is in hand")
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            # Nor does a drain time hold that it gave: another service waits for the store.
            self._end_within(_LAST_MESSAGE_S + _DISK_AT_ONCE_S)
            self._draining = True
            self._why = "the main process is gone"
            self._drained()
            self._maybe_finished()

    def _decided(self, verdict: Verdict) -> None:
        self.requests.decided(verdict.number)
        association = self._associations.get(verdict.number)
        if association is None:
            return
        try:
            if verdict.result:
                association.rejected(verdict)
            else:
                association.admitted(verdict)
        except Exception as error:
            # The loop would only log it, and the peer would wait for its answer for ever.
            association.failed(error)

    def _configured(self, going: Going) -> None:
        """Go by other settings and rules from now on. What is there keeps what it began with."""
        if self._closing:
            return
        self.going = going
        self.identities.use(going.config.user_identity, going.config.ae_title)
        self._jobs.knows(going.layouts)
        self._reception.max_bytes_in_flight = going.config.max_bytes_in_flight
        self._set_up_log()

    def _tell_configured(self) -> None:
        self._channel.send(Holds(self.going.book.generation))

    def _set_up_log(self) -> None:
        set_up_log(self._setup, self.going.config)
        for association in self._associations.values():
            association.follow_log_level()

    def codec_rules(self, rule: Rule) -> Rules:
        return self.going.codec_rules(rule)

    def _last_messages(self) -> None:
        """Hear, while the store is left, only what makes that a matter of less time."""
        for message, fd in self._channel.receive():
            if fd is not None:
                os.close(fd)
            if isinstance(message, Stop):
                self._end_within(_DISK_AT_ONCE_S)
        if self._channel.closed:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._end_within(_LAST_MESSAGE_S + _DISK_AT_ONCE_S)

    def _offered(self, offer: Offer, fd: int) -> None:
        # While this worker drains, main hands it on: it has been told, or reads so next. What
        # cannot be claimed, main has given to somebody else meanwhile.
        if self._draining or not self._shared.claims.claim(offer.slot, offer.number):
            os.close(fd)
            return
        self._channel.send(Taken(offer.number))
        sock = socket.socket(fileno=fd)
        try:
            prepare(sock)
        except OSError as error:
            log.debug(
                "%s: gone before it was taken over (%s)", address(offer.host, offer.port), error
            )
            sock.close()
            self._closed(offer.number)
            return
        if offer.host in self.going.proxies:
            self._headers.expect(offer.number, sock, offer.host, offer.port, tls=offer.tls)
        else:
            origin = Origin(offer.host, offer.port, time.monotonic())
            self._begin(offer.number, sock, origin, offer.tls)

    def _relayed(self, number: int, sock: socket.socket, origin: Origin, tls: bool) -> None:
        """A PROXY header is whole: main counts by whose the connection is from now on."""
        self._channel.send(Relayed(number, origin.host, origin.port))
        self._begin(number, sock, origin, tls)

    def _begin(self, number: int, sock: socket.socket, origin: Origin, tls: bool) -> None:
        """It is known whose the connection is. tls: a handshake comes first."""
        if not tls:
            self._associate(number, sock, origin)
        elif self.going.tls is not None:
            self._handshakes.expect(number, sock, origin, self.going.tls)
        else:
            # A listener outlives no reload that takes its certificate away.
            log.error("%s: no certificate for TLS", address(origin.host, origin.port))
            sock.close()
            self._closed(number)

    def _shaken(self, number: int, origin: Origin, secured: Secured) -> None:
        """A handshake is done."""
        secured.open(self._new_association(number, origin))

    def _unshaken(self, number: int, reason: str) -> None:
        """A handshake has failed: main counts it."""
        self._channel.send(Unshaken(number, reason))

    def _new_association(self, number: int, origin: Origin) -> Association:
        association = self._make_association(number, origin)
        self._associations[number] = association
        return association

    def _associate(self, number: int, sock: socket.socket, origin: Origin) -> None:
        association = self._new_association(number, origin)
        task = asyncio.get_running_loop().create_task(self._take_over(association, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_association(self, number: int, origin: Origin) -> Association:
        kind = FaultyAssociation if self._faults is not None else Association
        association = kind(
            self._reception, number, self, origin, max_pdu_length=self.going.config.max_pdu_length
        )
        if isinstance(association, FaultyAssociation) and self._faults is not None:
            association.faults = self._faults
        return association

    async def _take_over(self, association: Association, sock: socket.socket) -> None:
        try:
            # A buffered protocol by its methods, not by its bases.
            await asyncio.get_running_loop().connect_accepted_socket(  # type: ignore[type-var]
                lambda: association, sock
            )
        except Exception as error:
            if isinstance(error, OSError):
                log.debug("%s: gone before it was taken over (%s)", association.name, error)
            else:
                log.exception(
                    "%s: cannot be taken over, which is a bug", association.name,
                    extra=logs.caused("bug"),
                )  # fmt: skip
            # In any case: main counts it, and waits for its end.
            sock.close()
            self.gone(association)

    def _abandon(self, number: int) -> None:
        """Close a connection that is no association, or none any more."""
        why = "too many connections without an association"
        # The loop may not have come to a header that is there.
        self._headers.look(number)
        association = self._associations.get(number)
        if association is None:
            self._headers.drop(number, why)
            self._handshakes.drop(number, why)
        elif association.state is State.STA1:
            # It is about to be taken over, or gone.
            asyncio.get_running_loop().call_soon(self._abandon, number)
        elif association.state in (State.STA2, State.STA13) or association.is_checked:
            # Else it has become an association while the message was on its way, or is about to.
            try:
                association.drop(why)
            except Exception as error:
                association.failed(error)

    def _end(self, order: End) -> None:
        """End an association or a connection whatever it does; main hears of it as of any end."""
        self._headers.look(order.number)
        association = self._associations.get(order.number)
        if association is None:
            self._headers.drop(order.number, order.why)
            self._handshakes.drop(order.number, order.why)
        elif association.state is State.STA1:
            # It is about to be taken over, or gone.
            asyncio.get_running_loop().call_soon(self._end, order)
        elif association.state is State.STA13:
            association.drop(order.why)
        else:
            association.end_now(order.why)

    def _longest_idle(self, sought: SeekIdle) -> Idle:
        # Those inside a message only where no other one is there.
        found = [
            (stuck, since, number)
            for number, association in self._associations.items()
            if association.host == sought.host
            for stuck, since in [self._idle(association)]
            if since
        ]
        stuck, since, number = min(found, default=(False, 0.0, 0))
        return Idle(sought.newcomer, number, since, stuck)

    def _idle(self, association: Association) -> tuple[bool, float]:
        """Whether it is stuck inside a message, and since when it is idle or stuck; 0.0: neither.

        Progress protects an association, however long its message takes.
        """
        since = association.idle_since
        if since:
            return False, since
        return True, association.stuck_for_others(time.monotonic())

    def _displace(self, order: Displace) -> bool:
        """Abort an association that is still idle, or stuck; whether it was."""
        association = self._associations.get(order.number)
        stuck, since = self._idle(association) if association is not None else (False, 0.0)
        if association is None or not since:
            return False
        seconds = time.monotonic() - since
        what = "without progress inside a message" if stuck else "idle"
        association.end_now(
            f"{what} for {seconds:.1f} s, and its address has the most associations: its place "
            f"goes to {order.whom}"
        )
        return True

    # What associations ask for -------------------------------------------------------------------

    def ask(self, asked: Ask) -> None:
        self.requests.asked(asked.number)
        self._channel.send(asked)

    def rejected(self, number: int, code: str) -> None:
        self._channel.send(Over(number, code))

    def over(self, association: Association) -> None:
        self._channel.send(Over(association.number))

    def gone(self, association: Association) -> None:
        self.requests.decided(association.number)
        if self._associations.pop(association.number, None) is not None:
            self._closed(association.number, association.ended_as)
        self._maybe_finished()

    def _closed(self, number: int, ended: int = 0) -> None:
        self._channel.send(Gone(number, ended))
        self._maybe_finished()


def set_up_log(setup: Setup, config: WorkerConfig) -> None:
    """Log as the settings have it. A file that cannot be opened is no reason to receive nothing."""
    configure = partial(
        logs.configure, f"worker-{setup.worker}", config.log_level, config.log_format, queued=True
    )
    try:
        configure(file=config.log_file)
    except logs.LogFileError as error:
        configure()
        log.error(
            "--log-file: %s; the log of this worker goes to stderr until a reload finds it",
            error.strerror, extra=logs.fields(worker=setup.worker),
        )  # fmt: skip


async def _live(
    setup: Setup,
    configuration: Configuration,
    channel: Channel,
    store_fd: int,
    shared: Shared,
    index: LineIndex | None,
) -> None:
    try:
        worker = Worker(setup, configuration, channel, store_fd, shared, index)
    except (OSError, ValueError) as error:
        # Its folder has a new name each time, the reason has not.
        channel.send(Failed(words_of(error).replace(setup.life, f"{INCOMING}/...")))
        raise SystemExit(3) from error
    # What is there now stays: collecting it again and again costs and finds nothing.
    gc.collect()
    gc.freeze()
    await worker.live()


def _index_of(fd: int) -> LineIndex | None:
    """The index of a suspect store's journal; None, and a line in the log, if it cannot be had."""
    try:
        return LineIndex(fd)
    except (OSError, ValueError) as error:
        log.error(
            "cannot use the index of the journal (%s): each instance that differs from the file "
            "under its path costs reading the whole journal; restart this worker (TERM), or the "
            "service",
            error,
        )
        return None


def main(arguments: Sequence[str]) -> None:
    """Run a worker; arguments: descriptors of channel, shared block, common block,
    store, its lock, index.

    The index of the journal is there in a suspect store alone. The lock is only held, by being
    open, until the process ends.
    """
    for name in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_IGN)
    # Some terminals stop background processes that write to them: a line on stderr must not stop
    # it.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    channel_fd, shared_fd, common_fd, store_fd, _lock_fd, *index_fd = map(int, arguments)
    channel = Channel(socket.socket(fileno=channel_fd), ToWorker)
    setup, _none = channel.wait()
    configured, configured_fd = channel.wait()
    if not isinstance(setup, Setup) or not isinstance(configured, Configured):
        # Main went away before it said what to do.
        return
    setproctitle(f"fastscp: worker {setup.worker}")
    try:
        with os.fdopen(configured_fd or -1, "rb") as memory:
            configuration = unpack(memory.fileno())
        config = configuration.config
        set_up_log(setup, config)
        shared = Shared(shared_fd, common_fd)
    except (OSError, ValueError) as error:
        channel.send(Failed(words_of(error)))
        raise SystemExit(3) from error
    index = _index_of(index_fd[0]) if index_fd else None
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_live(setup, configuration, channel, store_fd, shared, index))

"""An upgrade of the running service: a successor is started, and takes over once it is ready.

Theory of operation: nothing is given up before the successor could take over at once. Then this
process stops accepting, says so, and the successor begins to; in between connections wait in the
backlog of the listening sockets, which both have. What this process still has in hand it ends as a
reload ends a retired worker's. Where anything is wrong before that, it goes on as if nothing had
been.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from setproctitle import setproctitle

from fastscp.errors import reason_for
from fastscp.log import counted
from fastscp.main.listening import ADMIN, DICOM, TLS
from fastscp.main.successor import Successor
from fastscp.main.threads import in_thread
from fastscp.messages.handover import (
    COMMON,
    HANDOVER_VERSION,
    LOCK,
    Counting,
    DrainToo,
    Go,
    Handover,
    Left,
    Named,
    Prepared,
    Serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from fastscp.main.acceptor import Acceptor
    from fastscp.main.admission import Admission
    from fastscp.main.control import ControlSocket, Facts
    from fastscp.main.dispatch import Dispatch
    from fastscp.main.notify import Notify
    from fastscp.main.web import Web
    from fastscp.main.workers import Workers
    from fastscp.messages.totals import Totals
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["Parts", "Upgrade"]

log = logging.getLogger("fastscp.main")

# How long a successor may take until it could take over.
_PREPARES_S: Final = 60.0
# And then until it accepts.
_TAKES_OVER_S: Final = 20.0
# How long a service manager may take to hear of the successor.
_NAMES_S: Final = 5.0
# How long what was accepted may take to come to a worker.
_SETTLES_S: Final = 5.0
# Between two times that a successor is told what was counted here.
_COUNTS_S: Final = 1.0
# Which socket is there by which setting; the host is that of several.
_PORTS: Final = {"port": DICOM, "tls_port": TLS, "admin": ADMIN}
_UNDER_WAY: Final = "an upgrade is under way: try again when it is through"


@dataclass(frozen=True)
class Parts:
    """What an upgrade has to do with. background(work): lets a coroutine run beside the others.

    command: the command line of the service, to be run anew. kept: the settings that the successor
    may not change, as text, by field. linger_s(): how long associations may go on here. totals():
    what was counted until now.
    """

    command: Sequence[str]
    kept: Mapping[str, str]
    linger_s: Callable[[], float]
    totals: Callable[[], Totals]
    is_activated: bool
    shared: Shared
    store: Store
    admission: Admission
    dispatch: Dispatch
    workers: Workers
    acceptors: Sequence[Acceptor]
    control_socket: ControlSocket
    web: Web
    notify: Notify
    facts: Facts
    background: Callable[[Coroutine[object, object, None]], None]


@dataclass(eq=False)
class _Stage:
    """What a successor has come to: futures, and why it is gone, if it is."""

    prepared: asyncio.Future[str] = field(default_factory=lambda: _future())
    serving: asyncio.Future[str] = field(default_factory=lambda: _future())


def _future() -> asyncio.Future[str]:
    return asyncio.get_running_loop().create_future()


class Upgrade:
    """Hands the service over to a successor, once. All methods run on the loop.

    `has_handed_over`: the successor is the service, and this process has only what it had in hand.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._successor: Successor | None = None
        self._stage = _Stage()
        self.has_handed_over = False
        # Whether the successor knows what to do with counters.
        self._is_counting = False
        # Whether what this process still has was told to end, and soon.
        self._is_ending = False

    @property
    def is_under_way(self) -> bool:
        return bool(self._parts.facts.upgrading) and not self.has_handed_over

    def refused(self) -> str:
        """Why no upgrade can begin now; empty: it can."""
        if self.is_under_way or self.has_handed_over:
            return "one is under way already"
        if self._parts.facts.predecessor:
            return (
                f"the process that this one took over from ({self._parts.facts.predecessor}) still "
                f"has associations: wait for its end, or drain it with TERM"
            )
        if os.getpid() == 1:
            return (
                "this is process 1 of its container, which ends with it: replace the container, or "
                "run the service below an init"
            )
        return ""

    def begin(self) -> None:
        """Start a successor, and let it take over; the log tells what becomes of it."""
        self._parts.facts.upgrading = _UNDER_WAY
        self._stage = _Stage()
        self._parts.background(self._run())

    def give_up(self) -> None:
        """End a successor that has not taken over yet: the service is to end."""
        if self._successor is not None and not self.has_handed_over:
            self._successor.kill()

    def end(self, seconds: float | None = None) -> None:
        """End what this process still has: in so long, or in the drain time; again: at once."""
        workers = self._parts.workers
        if self._is_ending or seconds == 0:
            workers.stop()
        if not self._is_ending:
            self._is_ending = True
            workers.drain(seconds)

    def leave(self, *, clean: bool) -> None:
        """Tell the successor that nothing is left here; the end of this process is next."""
        if self._successor is not None:
            if self.has_handed_over:
                self._successor.send(Left(clean, self._parts.totals()))
            self._successor.close()

    # Handing over --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            why = await self._hand_over()
        except OSError as error:
            why = f"the new program cannot be started ({reason_for(error)})"
        except Exception:
            log.exception("upgrade: a bug ends it")
            why = "a bug, which the line before tells of"
        successor = self._successor
        if successor is not None and not why:
            await self._linger(successor)
            await self._parts.dispatch.settled(_SETTLES_S)
            self._retire(successor)
            if self._is_counting:
                await self._tell_counts(successor)
            return
        if successor is not None:
            successor.kill()
            successor.close()
            self._successor = None
        self._parts.facts.upgrading = ""
        log.error(
            "upgrade: %s; this process (%d) goes on as before: put the cause right, and send USR2 "
            "again",
            why, os.getpid(),
        )  # fmt: skip

    async def _hand_over(self) -> str:
        """Let a successor take over; returns why it did not. Raises OSError: it cannot begin."""
        parts = self._parts
        self._successor = successor = self._start()
        log.warning(
            "upgrade: process %d starts (%s), and takes over once it is ready",
            successor.pid, " ".join(parts.command[:4]),
        )  # fmt: skip
        if why := await self._until(self._stage.prepared, _PREPARES_S):
            return f"the new program (process {successor.pid}) is not ready: {why}"
        if parts.workers.stopping:
            return "the service was told to end meanwhile"
        self._hold()
        try:
            successor.send(Go(self._parts.totals()))
            why = await self._until(self._stage.serving, _TAKES_OVER_S)
            self.has_handed_over = not why
        finally:
            # Whatever fails here, peers are let in again.
            if not self.has_handed_over:
                successor.kill()
                self._go_on()
        if why:
            # It may have come so far as to write its own name there.
            await in_thread(parts.store.take_lock_over)
            return f"the new program (process {successor.pid}) does not take over: {why}"
        return ""

    def _hold(self) -> None:
        """Accept nobody: who comes waits in the backlogs."""
        for acceptor in self._parts.acceptors:
            acceptor.hold()
        self._parts.control_socket.rest()
        self._parts.web.rest()

    def _go_on(self) -> None:
        for acceptor in self._parts.acceptors:
            acceptor.go_on()
        self._parts.control_socket.go_on()
        self._parts.web.go_on()

    def _start(self) -> Successor:
        parts = self._parts
        passed = [(LOCK, parts.store.lock_fd), (COMMON, parts.shared.common_fd)]
        passed += [(TLS if one.tls else DICOM, one.fd) for one in parts.acceptors]
        if parts.web.fd is not None:
            passed.append((ADMIN, parts.web.fd))
        names = {name for name, _fd in passed}
        handover = Handover(
            version=HANDOVER_VERSION,
            pid=os.getpid(),
            run=parts.workers.run_id,
            passed=len(passed),
            filings=[(key, one.layout, one.suffix) for one, key in parts.store.lived.items()],
            workers=parts.workers.pids(),
            # A port that is not there a successor may open.
            kept={
                field: text
                for field, text in parts.kept.items()
                if _PORTS.get(field) in {None, *names}
            },
            is_activated=parts.is_activated,
            claims=True,
        )
        environment = {**os.environ, **parts.notify.environment()}
        return Successor(
            parts.command, environment, handover, passed, told=self._told, gone=self._gone
        )

    async def _until(self, stage: asyncio.Future[str], seconds: float) -> str:
        """Wait for a stage of the successor; returns why it does not come to it."""
        await asyncio.wait([stage], timeout=seconds)
        return stage.result() if stage.done() else f"no answer for {seconds:g} s"

    def _told(self, message: object) -> None:
        match message:
            case Prepared(counts):
                self._is_counting = counts
                self._reach(self._stage.prepared)
            case Serving():
                self._reach(self._stage.serving)
            case DrainToo(seconds):
                log.info("the successor of this process ends, and so does what is left here")
                self.end(seconds)

    @staticmethod
    def _reach(stage: asyncio.Future[str], why: str = "") -> None:
        if not stage.done():
            stage.set_result(why)

    def _gone(self, why: str) -> None:
        """The successor is gone."""
        if not self.has_handed_over:
            said = f"it ended ({why}); what it wrote to the log or stderr says more"
            self._reach(self._stage.prepared, said)
            self._reach(self._stage.serving, said)
            return
        # The next service waits for the store, and not for long.
        log.error(
            "the successor of this process is gone (%s): ending, a message in hand may finish", why
        )
        self.end_for_next()

    def end_for_next(self) -> None:
        """End as workers do whose main is gone, so that the store is free soon."""
        self._is_ending = True
        self._parts.workers.drain(0.0)

    # What is left --------------------------------------------------------------------------------

    async def _linger(self, successor: Successor) -> None:
        parts = self._parts
        for acceptor in parts.acceptors:
            acceptor.close()
        parts.control_socket.leave()
        parts.web.leave()
        setproctitle("fastscp: main, has handed over")
        # The manager hears the successor only after it was told of it.
        parts.notify.main_is(successor.pid)
        await parts.notify.close(_NAMES_S)
        successor.send(Named())

    def _retire(self, successor: Successor) -> None:
        linger_s = self._parts.linger_s()
        log.warning(
            "upgrade: process %d is the service now; this one (%d) ends with the last of its %s, in"
            " %g s at most (--reload-linger)",
            successor.pid, os.getpid(),
            counted(self._parts.admission.connections, "connection"), linger_s,
        )  # fmt: skip
        if not self._is_ending:
            self._parts.workers.retire_all(linger_s)

    async def _tell_counts(self, successor: Successor) -> None:
        """Tell it what is counted here, until this process ends: it shows both counts as one."""
        told = None
        while True:
            await asyncio.sleep(_COUNTS_S)
            totals = self._parts.totals()
            if totals != told and successor.offer(Counting(totals)):
                told = totals

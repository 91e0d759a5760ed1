"""What an operator learns of the service and does to it, and the socket for that.

Nothing here looks at the disk except what `ControlSocket` does in threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp import __version__
from fastscp.admin.control import ControlServer, Listening
from fastscp.admin.place import ControlSocketError
from fastscp.errors import reason_for
from fastscp.log import fields, shown
from fastscp.main.expiry import Expiry, expiring
from fastscp.main.members import WORKERS_MOST
from fastscp.main.refusing import Refusing
from fastscp.main.storewatch import SpaceState
from fastscp.main.threads import in_thread
from fastscp.messages.control import (
    Aborted,
    AssociationStatus,
    Paused,
    Reloaded,
    RulesStatus,
    Status,
    StoreStatus,
)
from fastscp.store.names import HOME, open_folder
from fastscp_ext import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fastscp.admin.door import Control
    from fastscp.config.settings import ServeConfig
    from fastscp.main.admission import Admission, Booked
    from fastscp.main.dispatch import Dispatch, Takers
    from fastscp.main.storewatch import StoreWatch
    from fastscp.main.summary import Seen
    from fastscp.messages.control import Phase, State
    from fastscp.store.store import Store
    from fastscp.tls.material import Material
    from fastscp_ext import Liveness, Tallies

__all__ = ["ControlSocket", "Facts", "MainControl", "taken"]

log = logging.getLogger("fastscp.main")

# How long the end of an association may take that an operator wants: its worker ends it at once,
# and a peer that does not read what it is told has 5 s.
_ABORT_S: Final = 8.0
_LOOK_S: Final = 0.05
# Between looks at the control socket.
_KEEP_S: Final = 1.0
# Of the reason that an operator gives, in characters.
_REASON_MOST: Final = 200
_NO_TALLY: Final = Tally()


@dataclass
class Facts:
    """What the service knows of itself; it fills that in as it comes up.

    run: what the ids of associations begin with. workers: how many there are to be. rules: the
    configuration in force, set anew by whoever takes or refuses one. aids: the test aids in use.
    addresses, tls_addresses: where it listens, as HOST:PORT. tls: what it shows and asks for there;
    expiry: tells what of it runs out. refusing: whether all instances are refused. reload: takes
    the configuration anew; None: there is no way to. draining: why it ends, though nobody is
    rejected for that. upgrading: why no configuration can be taken; empty: it can. predecessor: the
    process that it took over from and that still has associations; 0: none. redo: whether there is
    a redo log, in words; empty: that is not decided yet.
    """

    run: str
    workers: int
    min_free: int
    rules: RulesStatus
    aids: tuple[str, ...] = ()
    path: str = ""
    store_id: str = ""
    addresses: tuple[str, ...] = ()
    tls_addresses: tuple[str, ...] = ()
    tls: Material | None = None
    expiry: Expiry = field(default_factory=Expiry)
    refusing: Refusing = field(default_factory=Refusing)
    admin: str = ""
    is_open: bool = False
    draining: str = ""
    upgrading: str = ""
    predecessor: int = 0
    redo: str = ""
    reload: Callable[[], Awaitable[Reloaded]] | None = None
    began: float = field(default_factory=time.monotonic)


def taken(config: ServeConfig, generation: int, file: str = "") -> RulesStatus:
    """What the status tells of a configuration that is taken now. file: that it is from."""
    tables = len(config.tables.ae) + len(config.tables.senders)
    now = round(time.time(), 3)
    return RulesStatus(generation=generation, tables=tables, loaded_at=now, file=file)


class MainControl:
    """Main's `Control`. seen: what was counted by now. See `fastscp.admin.door`."""

    def __init__(
        self,
        facts: Facts,
        admission: Admission,
        dispatch: Dispatch,
        watch: StoreWatch,
        tallies: Tallies,
        liveness: Liveness,
        seen: Callable[[], Seen],
    ) -> None:
        self._facts = facts
        self._admission = admission
        self._dispatch = dispatch
        self._watch = watch
        self._tallies = tallies
        self._liveness = liveness
        self._seen = seen
        # The pause there is, or was last.
        self._pause = Paused(False)

    # What there is -------------------------------------------------------------------------------

    def status(self) -> Status:
        facts, seen, admission = self._facts, self._seen(), self._admission
        takers = self._dispatch.takers
        state, why, since = self._state(takers)
        look = self._watch.seen
        return Status(
            version=__version__,
            pid=os.getpid(),
            run=facts.run,
            addresses=facts.addresses,
            tls_addresses=facts.tls_addresses,
            certificate="" if facts.tls is None else facts.tls.subject,
            certificate_expires=0.0 if facts.tls is None else facts.tls.expires,
            crl_expires=0.0 if facts.tls is None else facts.tls.crl_expires,
            aids=facts.aids,
            uptime_s=round(time.monotonic() - facts.began, 3),
            state=state,
            why=why,
            since=since,
            store=StoreStatus(
                path=facts.path,
                id=facts.store_id,
                free_bytes=None if look is None or look.lost is not None else look.free,
                min_free_bytes=facts.min_free,
            ),
            rules=facts.rules,
            workers=facts.workers,
            workers_up=takers.answering,
            associations=admission.admitted,
            limit=admission.places,
            connections=admission.connections,
            stored=seen.stored,
            bytes=seen.bytes,
            received_bytes=seen.received,
            refused=seen.refused,
            unfinished=seen.unfinished,
            kept=seen.kept,
            rejected=seen.rejected,
            handshakes_failed=seen.handshakes_failed,
            admin=facts.admin,
            predecessor=facts.predecessor,
            redo=facts.redo,
            warnings=() if facts.tls is None else _warnings(facts.tls),
            in_flight_bytes=sum(map(self._liveness.bytes_in_flight, range(WORKERS_MOST))),
        )

    def _state(self, takers: Takers) -> tuple[State, str, float]:
        """Whether associations are accepted, why not, and since when; in the order of refusals."""
        admission, watch = self._admission, self._watch
        watched = round(time.time() - (time.monotonic() - watch.since), 3)
        if why := admission.draining or self._facts.draining:
            return "draining", why, 0.0
        if not self._facts.is_open:
            return "starting", "nobody is let in before all workers are up", 0.0
        if admission.paused:
            return "paused", self._pause.why, self._pause.since
        if admission.congested:
            state: State = "store lost" if watch.state is SpaceState.LOST else "disk full"
            return state, watch.why() or admission.congested, watched
        if not takers.ready:
            return "no worker", "no worker is up: the log says why", 0.0
        if not takers.answering:
            why = (
                "the loop of every worker stands still: see that nobody has stopped them, and that "
                "the machine has processors for them; the log names those that stand still for long"
            )
            return "no worker answers", why, 0.0
        if not takers.free:
            return "waiting for the disk", "every worker waits for the disk: check it", 0.0
        if why := self._facts.refusing.why:
            since = time.time() - (time.monotonic() - self._facts.refusing.since)
            return "refusing all", why, round(since, 3)
        if why := watch.why():
            return "accepting", why, watched
        if admission.places and admission.admitted >= admission.places:
            return "accepting", "all places are taken, as --max-associations or files allow", 0.0
        return "accepting", "", 0.0

    def associations(self) -> list[AssociationStatus]:
        now = time.monotonic()
        return [self._association(one, now) for one in self._admission.all_booked()]

    def _association(self, one: Booked, now: float) -> AssociationStatus:
        done = _NO_TALLY if one.tally < 0 else self._tallies.read(one.tally)
        return AssociationStatus(
            id=f"{self._facts.run}.{one.number}",
            calling_ae=one.calling_ae or "",
            called_ae=one.called_ae,
            host=one.host,
            port=one.port,
            worker=one.worker,
            rules=one.rules,
            user=one.user,
            phase=_phase(one, done),
            stored=done.stored + done.kept,
            refused=done.refused,
            bytes=done.bytes,
            received_bytes=done.received,
            age_s=round(now - one.since, 3),
        )

    # What is done --------------------------------------------------------------------------------

    async def abort(self, id_: str, by: str) -> Aborted:
        run, dot, digits = id_.rpartition(".")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 0
        booked = self._admission.booked(number)
        whole = f"{self._facts.run}.{number}"
        if booked is None or (dot and run != self._facts.run):
            return Aborted(id_, "unknown")
        log.warning("%s: the operator (%s) ends it", whole, by)
        self._dispatch.end(number, f"by the operator ({by})")
        end = time.monotonic() + _ABORT_S
        # Over is what has no place any more, or never had one and is gone. The books tell nobody of
        # it, for nobody else asks; a look now and then is simpler.
        while (left := self._admission.booked(number)) and left.has_place >= booked.has_place:
            if time.monotonic() > end:
                return Aborted(whole, "going on")
            await asyncio.sleep(_LOOK_S)
        return Aborted(whole, "over")

    def pause(self, why: str, by: str) -> Paused:
        before, admission = self._pause, self._admission
        if admission.paused:
            return Paused(False, before.why, before.since)
        why = shown(why, _REASON_MOST)
        self._pause = Paused(True, why, round(time.time(), 3))
        admission.paused = "paused by the operator" + (f": {why}" if why else "")
        log.warning(
            "paused by the operator (%s)%s: new associations are rejected until "
            "`fastscp resume` or a restart; those that exist go on",
            by, f": {why}" if why else "", extra=fields(reason=admission.paused),
        )  # fmt: skip
        return self._pause

    def resume(self, by: str) -> Paused:
        if not self._admission.paused:
            return Paused(False)
        self._admission.paused = ""
        # At the level at which it was told.
        log.warning(
            "resumed by the operator (%s) after %.0f s: associations are admitted",
            by, time.time() - self._pause.since,
        )  # fmt: skip
        return Paused(True, self._pause.why, self._pause.since)

    async def reload(self, by: str) -> Reloaded:
        reload = self._facts.reload
        if reload is None:
            why = "this service cannot take a configuration anew: restart it instead"
            rules = self._facts.rules
            return Reloaded(mistakes=(why,), generation=rules.generation, file=rules.file)
        log.info("the operator (%s) wants the configuration taken anew", by)
        return msgspec.structs.replace(await reload(), file=self._facts.rules.file)


def _warnings(material: Material) -> tuple[str, ...]:
    return tuple(one.text for one in expiring(material, time.time()))


def _phase(one: Booked, done: Tally) -> Phase:
    if one.is_over or done.ended:
        return "ending"
    if not one.has_place:
        return "connected" if one.calling_ae is None else "requesting"
    if one.tally < 0:
        return "associated"
    return "storing" if done.unanswered else "idle"


class ControlSocket:
    """The control socket of the service, if it has one: nothing depends on it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._listening: Listening | None = None
        self._store: Store | None = None
        self._server: ControlServer | None = None
        # Held by the thread that makes or removes it.
        self._lock = threading.Lock()
        self._is_over = False
        # Why it could not be made anew, as it stands in the log.
        self._told = ""

    async def open(self, store: Store) -> None:
        """Make it, and begin to answer; where that cannot be, say why, and go on."""
        try:
            self._listening = await in_thread(_listen, store.dir_fd, store.path)
        except (ControlSocketError, OSError) as error:
            log.warning(
                "no control socket, so `fastscp status`, `reload` and the like cannot reach this "
                "service: %s; then restart the service",
                error,
            )  # fmt: skip
            return
        self._store = store
        self._server = ControlServer(self._listening.sock, self._control)
        self._server.start()

    async def keep(self) -> None:
        """Have a look at it after a second, and make it anew where somebody has removed it."""
        await asyncio.sleep(_KEEP_S)
        if self._server is None or self._is_over:
            return
        try:
            made = await in_thread(self._make_anew)
        except ControlSocketError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning(
                    "the control socket was removed, and cannot be made anew yet: %s", error
                )
            return
        except OSError:
            # Whoever looks at the store says so.
            return
        self._told = ""
        if made is None:
            return
        self._server.listen_on(made.sock)
        log.warning("the control socket %s was removed, and is made anew", made.path)

    def _make_anew(self) -> Listening | None:
        """The socket in the place of one that is not there any more; None: it is. Blocks.

        None, too, where the store is ours no more: the socket there is that of whoever has it.
        """
        with self._lock:
            before = self._listening
            if before is None or self._is_over or before.is_there():
                return None
            if self._store is None or self._store.lost() is not None:
                return None
            self._listening = before.made_anew()
            before.leave()
            return self._listening

    def rest(self) -> None:
        """Answer nobody who comes from now on, and leave the socket alone; `go_on` ends that."""
        self._is_over = True
        if self._server is not None:
            self._server.rest()

    def go_on(self) -> None:
        """Answer again after `rest`; `keep` sees to it that clients find the socket."""
        self._is_over = False
        if self._server is not None:
            self._server.go_on()

    def leave(self) -> None:
        """Leave its name to a successor, which has made another socket there."""
        self.close()
        with self._lock:
            listening, self._listening = self._listening, None
            if listening is not None:
                listening.leave()

    def close(self) -> None:
        """Hang up on everybody; nobody is answered any more."""
        self._is_over = True
        if self._server is not None:
            self._server.close()

    def remove(self) -> None:
        """Take it away from the store, also if it was not closed. Blocks on the disk."""
        with self._lock:
            listening, self._listening = self._listening, None
            if listening is None:
                return
            try:
                listening.remove()
            except OSError as error:
                # The next service does it.
                log.warning("cannot remove %s: %s", listening.path, reason_for(error))

    def abandon(self) -> None:
        """Leave none behind: the start failed."""
        self.close()
        self.remove()


def _listen(dir_fd: int, store: Path) -> Listening:
    """The socket in a store. Blocks on the disk. Raises ControlSocketError, OSError."""
    return Listening(open_folder(HOME, dir_fd), store / HOME)

"""Worker processes: started, heard, missed and replaced, for as long as the service lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from fastscp.errors import BootError, reason_for
from fastscp.log import counted, fields
from fastscp.main.following import Following
from fastscp.main.loopwatch import LOOK_S, LoopWatch, Pulse
from fastscp.main.members import WORKERS_MOST, Place, Worker, first_to_go, free_numbers
from fastscp.main.redo import NO_REDO, Redo
from fastscp.main.remains import Remains
from fastscp.main.spawn import how, spawn
from fastscp.main.storewatch import REMIND_S
from fastscp.messages.channel import Channel
from fastscp.messages.worker import (
    CHECKPOINT_FAILED,
    Drain,
    Failed,
    FromWorker,
    Holds,
    Leaving,
    Ready,
    Reopen,
    Retire,
    Said,
    Setup,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from fastscp.log import Line
    from fastscp.main.loopwatch import Still
    from fastscp.main.members import Listener
    from fastscp.messages.configuration import Configuration
    from fastscp.store.store import Store
    from fastscp_ext import LineIndex, Shared

__all__ = ["Workers", "new_run_id"]

log = logging.getLogger("fastscp.main")

# A worker that dies sooner than this after its start counts as one that did not come up.
_SHORT_LIFE_S: Final = 10.0
# Rounds of reading what a dead worker has left to say: far more than it can have said.
_LAST_WORDS: Final = 4096
# How long a message in hand may take after the drain time, and more; main kills workers then.
_PATIENCE_S: Final = 5.0 + 10.0
# After a second signal. A worker takes half a second of it for peers that do not hang up.
_AT_ONCE_S: Final = 5.0
# Between looks at a process that is about to be over.
_REAP_S: Final = 0.02
# How long the system may take to end a process that was killed.
_KILLED_S: Final = 5.0


def new_run_id() -> str:
    """The name of a run of the service: later ones are greater."""
    return f"{time.time_ns() // 1000:x}"


class Workers:
    """The worker processes of one run of the service; `close` it at the end.

    configuration: what they go by. Raises OSError where there is no memory to hand it to them in.
    index: of the journal, for every worker to look into; None: there is none. background(work):
    lets a coroutine run beside the others. over(code): called when the last worker has gone as it
    was told to: with 0 if all of them went in order, else with 1. run_id: what the names of this
    run's segments, and the ids of its associations, begin with; a new one by default. names: of
    UIDs, for the log. ports: without TLS and with it; 0: nobody listens there. redo: of the log
    that they keep. reserved: numbers that workers of a predecessor have, until `release`.
    said(lines): told of lines of their logs; None: nobody is.

    Only `start` gives up. Later a place whose worker is gone gets another, with longer and longer
    waits in between while that fails. `resize` makes places, and gives them up.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        shared: Shared,
        listener: Listener,
        *,
        index: LineIndex | None = None,
        run_id: str = "",
        names: Mapping[str, str] | None = None,
        ports: tuple[int, int] = (0, 0),
        redo: Redo = NO_REDO,
        reserved: Iterable[int] = (),
        said: Callable[[Sequence[Line]], None] | None = None,
        background: Callable[[Coroutine[object, object, None]], None],
        over: Callable[[int], None],
    ) -> None:
        self._store = store
        self._shared = shared
        self._listener = listener
        self._index = index
        self._background = background
        self._over = over
        self._said = said
        self._loop = asyncio.get_running_loop()
        self.run_id = run_id or new_run_id()
        self._names = dict(names or {})
        self._ports = ports
        self.redo = redo
        # By number. A retired worker keeps its own until it is gone.
        self._places: dict[int, Place] = {}
        self._reserved = frozenset(reserved)
        self._wanted = 0
        self._lives = 0
        self._watch = LoopWatch()
        self.following = Following(configuration, listener, self._living)
        self.remains = Remains(store, shared, self.run_id)
        self._is_started = False
        self._is_abandoned = False
        # Whether all that went since `drain` went as they were told to.
        self._in_order = True
        self.stopping = False
        # Whether one of them ended unexpectedly.
        self.lost = False
        # Workers that were missed, by whether a signal had asked for that; these only grow.
        self.restarts = {"no": 0, "yes": 0}

    # Beginning and end ---------------------------------------------------------------------------

    async def start(self, count: int) -> None:
        """Start so many and wait until all are up. Raises BootError; some may be there then."""
        self._loop.call_later(LOOK_S, self._look)
        self._wanted = count
        workers = []
        if not self._free_numbers(count):
            raise BootError(f"all {WORKERS_MOST} workers that there can be belong to a predecessor")
        try:
            for number in self._free_numbers(count):
                place = self._places[number] = Place(number)
                workers.append(self._spawn(place))
                # Signals, and those that are up already, in between.
                await asyncio.sleep(0)
                if self.stopping:
                    break
            await asyncio.gather(*(worker.ready for worker in workers))
        except OSError as error:
            self.stopping = True
            raise BootError(f"cannot start a worker process: {reason_for(error)}") from error
        except BootError:
            # Nobody is replaced any more.
            self.stopping = True
            raise
        self._is_started = True

    def drain(self, seconds: float | None = None) -> None:
        """Let associations go on for a time, then end them and the workers.

        seconds: by default the drain time of the configuration.
        """
        drain_s = self.following.config.drain_timeout if seconds is None else seconds
        # Before the start is through there is no association to go on.
        self._end_all(Drain(drain_s), drain_s if self._is_started else 0.0)

    def retire_all(self, linger_s: float) -> None:
        """Let all associations go on for so long, while a successor takes the connections."""
        self._end_all(Retire(linger_s), linger_s)

    def _end_all(self, order: Drain | Retire, seconds: float) -> None:
        """Tell all to end, and end those by force that take longer."""
        self.stopping = True
        if not self._living():
            self._all_gone()
            return
        for worker in self._living():
            worker.channel.send(order)
        self._loop.call_later(_PATIENCE_S + seconds, self._end_by_force, _PATIENCE_S + seconds)

    def reopen_logs(self) -> None:
        """Have them open the file of their log anew, if it is one."""
        if self.following.config.log_file:
            for worker in self._living():
                worker.channel.send(Reopen())

    def stop(self) -> None:
        """End every association, and the workers, at once."""
        for worker in self._living():
            worker.channel.send(Stop())
        self._loop.call_later(_AT_ONCE_S, self._end_by_force, _AT_ONCE_S)

    def abandon(self) -> None:
        """Kill those that are still there: the start failed, and says itself why."""
        self.stopping = self._is_abandoned = True
        self._kill()

    def _kill(self) -> None:
        for worker in self._living():
            if worker.process is not None:
                worker.process.kill()

    def tell_missing(self) -> bool:
        """Say which places have no worker at the end, since none came up; whether there is one."""
        places = [place for place in self._places.values() if place.told and place.is_wanted]
        for place in places:
            log.error(
                "worker %d was dead and not replaced at the end (%s): put the cause right before "
                "the next start",
                place.number, place.told,
            )  # fmt: skip
        return bool(places)

    def _living(self) -> list[Worker]:
        return [place.worker for place in self._places.values() if place.worker is not None]

    def _end_by_force(self, seconds: float) -> None:
        """Kill each worker that did not end in time. The service ends with code 1 then."""
        for worker in self._living():
            log.error(
                "worker %d did not end within %g s: killed, with what it had in hand",
                worker.number, seconds,
            )  # fmt: skip
        self._kill()
        self._loop.call_later(_KILLED_S, self._leave_behind)

    def _leave_behind(self) -> None:
        """Go without those whom not even a kill could end: the system holds them."""
        for worker in self._living():
            log.error(
                "worker %d (process %d) is still there after a kill, perhaps in a disk call that "
                "hangs: it keeps the store until it is gone; check the store's disk",
                worker.number, worker.process.pid if worker.process else 0,
            )  # fmt: skip
            # A start that waits for it goes on, to its end.
            if not worker.ready.done():
                worker.ready.set_result(None)
        if self._living():
            self._over(1)

    def _all_gone(self) -> None:
        self._over(0 if self._in_order else 1)

    def close(self) -> None:
        """Give back what is shared with workers; none is started any more."""
        self.following.close()

    # More and fewer ------------------------------------------------------------------------------

    def resize(self, count: int, linger_s: float) -> None:
        """Have so many workers: start more, or retire those with the fewest associations.

        linger_s: how long a retired one may live for the sake of its associations; a shorter time
        than before holds for those that are retired already, too. Whatever cannot be started now is
        once it can, and the log says why.
        """
        if self.stopping:
            return
        self._wanted = count
        self._hasten(linger_s)
        places = first_to_go(self._there_to_be(), self._listener.connections_of)
        for place in places[: max(0, len(places) - count)]:
            self._retire(place, linger_s)
        self._fill_up()
        missing = count - len(self._there_to_be())
        if missing > 0:
            log.warning(
                "%s as soon as so many of the retired ones (%d) have ended: there can be %d at a "
                "time; a shorter --reload-linger ends them sooner",
                counted(missing, "more worker starts", "more workers start"), self.retired,
                WORKERS_MOST,
            )  # fmt: skip

    @property
    def retired(self) -> int:
        """How many are still there, and take no connections any more."""
        return len(self._places) - len(self._there_to_be())

    def _there_to_be(self) -> list[Place]:
        return [place for place in self._places.values() if place.is_wanted]

    def _fill_up(self) -> None:
        """Start the workers that are wanted and have no place yet, as far as there are numbers."""
        for number in self._free_numbers(self._wanted - len(self._there_to_be())):
            place = self._places[number] = Place(number, is_added=True)
            self._background(self._start_in(place))

    def _free_numbers(self, count: int) -> list[int]:
        return free_numbers(self._places.keys() | self._reserved, count)

    def release(self) -> None:
        """The workers of the predecessor are gone: their numbers are free."""
        self._reserved = frozenset()
        if self._is_started and not self.stopping:
            self._fill_up()

    def settle_lost(self) -> None:
        """Put in order what others left who did not end in order; this end is none either."""
        self.lost = True
        self._background(self._bury())

    def pids(self) -> dict[int, int]:
        """The processes that live, by the numbers of their workers."""
        living = self._living()
        return {worker.number: worker.process.pid for worker in living if worker.process}

    def _retire(self, place: Place, linger_s: float) -> None:
        """Give up a place: at once, or with the worker that has it."""
        worker = place.worker
        about = fields(worker=place.number)
        if worker is None:
            del self._places[place.number]
            log.info(
                "worker %d was gone, and is not replaced: fewer are wanted",
                place.number, extra=about,
            )  # fmt: skip
            return
        worker.is_retired, worker.retired_at = True, time.monotonic()
        worker.ends_by = worker.retired_at + linger_s
        worker.channel.send(Retire(linger_s))
        log.info(
            "worker %d (process %d) is retired: it takes no more connections, and ends with the "
            "last of the %d that it has, in %g s at most (--reload-linger)",
            place.number, worker.process.pid if worker.process else 0,
            self._listener.connections_of(worker), linger_s, extra=about,
        )  # fmt: skip

    def _hasten(self, linger_s: float) -> None:
        """Have those that are retired end as soon as another time allows them, not later."""
        now = time.monotonic()
        for worker in self._living():
            ends_by = worker.retired_at + linger_s
            if worker.is_retired and ends_by < worker.ends_by:
                worker.ends_by = ends_by
                worker.channel.send(Retire(max(0.0, ends_by - now)))

    def _retired_went(self, worker: Worker, code: int | None) -> None:
        """Nobody takes its place, but its number, and what it may have left, are seen to."""
        if code == 0:
            log.info(
                "worker %d, which was retired, has ended in order",
                worker.number, extra=fields(worker=worker.number),
            )  # fmt: skip
        else:
            self._background(self._bury(worker, code))
        self._fill_up()

    # Starting one --------------------------------------------------------------------------------

    def _spawn(self, place: Place) -> Worker:
        """Start a worker process; it is up once its `ready` is done. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            self._lives += 1
            worker = Worker(
                place.number,
                f"{self.run_id}-w{place.number}-{self._lives}",
                Channel(ours, FromWorker),
                self._loop.create_future(),
                time.monotonic(),
            )
            self._shared.liveness.clear(place.number)
            # The lock goes along: the store is free when its last worker is gone, not before.
            index = () if self._index is None else (self._index.fd,)
            worker.process = spawn(
                (
                    theirs.fileno(), self._shared.fd, self._shared.common_fd, self._store.dir_fd,
                    self._store.lock_fd, *index,
                )
            )  # fmt: skip
            undo.pop_all()
        worker.channel.write_with(self._loop.add_writer, self._loop.remove_writer)
        place.worker = worker
        self._listener.joined(worker)
        self._loop.add_reader(ours.fileno(), self._messages, worker)
        worker.channel.send(
            Setup(
                worker=place.number,
                life=worker.life,
                run=self.run_id,
                use_link=not self._store.facts.noreplace,
                nameless=self._store.facts.nameless,
                suspect=self._store.suspect,
                names=self._names,
                port=self._ports[0],
                tls_port=self._ports[1],
                redo_bytes=self.redo.bytes,
                redo_files=self.redo.files,
                store_id=self._store.id,
                boot=self.redo.mounted.boot,
                mount=self.redo.mounted.mount,
                system=self.redo.mounted.system,
                shows_log=self._said is not None,
            )
        )
        self.following.tell(worker)
        return worker

    # Hearing and missing one ---------------------------------------------------------------------

    def _messages(self, worker: Worker) -> None:
        for message, _fd in worker.channel.receive():
            match message:
                case Ready():
                    self._came_up(worker)
                case Holds(generation):
                    self.following.heard(worker, generation)
                case Failed():
                    # It ends now, and is missed then.
                    worker.why = message.why
                case Leaving():
                    worker.is_leaving = True
                    self._listener.heard(worker, message)
                case Said(lines):
                    if self._said is not None:
                        self._said(lines)
                case _:
                    self._listener.heard(worker, message)
        if worker.channel.closed:
            self._loop.remove_reader(worker.channel.fileno())
            self._reap(worker)

    def _came_up(self, worker: Worker) -> None:
        worker.is_ready = True
        place = self._places[worker.number]
        # What was told as an error is over: told at the same level.
        if place.told:
            log.error(
                "worker %d is up again, after %s that failed",
                worker.number, counted(place.back_off.failures, "try", "tries"),
                extra=fields(worker=worker.number),
            )  # fmt: skip
        elif place.is_missed:
            log.error("worker %d is up again", worker.number, extra=fields(worker=worker.number))
        elif place.is_added and not worker.is_retired:
            log.info("worker %d is up", worker.number, extra=fields(worker=worker.number))
        place.told, place.is_missed, place.is_added = "", False, False
        self._listener.came_up(worker)
        if not worker.ready.done():
            worker.ready.set_result(None)

    def _reap(self, worker: Worker) -> None:
        """A worker has closed its channel, as its end does: wait for the process, too.

        The loop would keep SIGCHLD for children of its own.
        """
        place = self._places.get(worker.number)
        if place is None or place.worker is not worker or worker.process is None:
            return
        if worker.process.has_ended():
            self._ended(place, worker, worker.process.code)
        else:
            self._loop.call_later(_REAP_S, self._reap, worker)

    def _ended(self, place: Place, worker: Worker, code: int | None) -> None:
        """A worker process is over, as planned or not."""
        place.worker = None
        self._shared.liveness.end_batches(worker.number)
        associations = 0
        try:
            self._hear_out(worker)
            associations = self._listener.left(worker)
        except Exception:
            # A bug about the dead must not keep the living from their place.
            log.exception("cannot settle what worker %d left", worker.number)
        if worker.is_retired:
            del self._places[worker.number]
        self.following.left()
        if worker.is_ready and code != 0 and not self._is_abandoned:
            self.lost = place.is_missed = True
            log.error(
                "worker %d ended unexpectedly (%s): %s lost; their unfinished "
                "instances are dropped, acknowledged ones are kept%s",
                worker.number, how(code), counted(associations, "association"),
                "" if self.stopping or worker.is_retired else "; starting another",
                extra=fields(worker=worker.number, reason=how(code)),
            )  # fmt: skip
        if self.stopping:
            self._went(worker, code)
        elif worker.is_retired:
            self._retired_went(worker, code)
        elif not worker.is_ready and not self._is_started:
            worker.ready.set_exception(
                BootError(f"cannot start worker {worker.number}: {self._why(worker, code)}")
            )
        else:
            self._miss(place, worker, code)

    def _went(self, worker: Worker, code: int | None) -> None:
        if not worker.ready.done():
            worker.ready.set_result(None)
        if code != 0:
            self._in_order = False
            if not self._is_abandoned:
                self._background(self._recover(worker, code))
        if not self._living():
            self._all_gone()

    def _miss(self, place: Place, worker: Worker, code: int | None) -> None:
        """Give the place of a worker that is gone to another."""
        was_asked = worker.is_ready and code == 0
        self.restarts["yes" if was_asked else "no"] += 1
        if was_asked:
            log.info(
                "worker %d ended as it was told to by a signal; starting another", worker.number
            )
        if not worker.is_ready:
            self._failed(place, self._why(worker, code))
        elif time.monotonic() - worker.started < _SHORT_LIFE_S:
            place.back_off.failed()
        else:
            place.back_off.reset()
        self._background(self._replace(place, worker, code))

    @staticmethod
    def _why(worker: Worker, code: int | None) -> str:
        return worker.why or f"it ended while it was starting ({how(code)})"

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

    # Replacing one -------------------------------------------------------------------------------

    async def _replace(self, place: Place, worker: Worker, code: int | None) -> None:
        """Start another worker in the place of one that is gone."""
        await self._bury(worker, code)
        await self._start_in(place)

    async def _bury(self, worker: Worker | None = None, code: int | None = None) -> None:
        """Put in order what a dead worker left; None: what others left."""
        self._background(self.remains.settle_replaced())
        # While its folder tells that it is over.
        await self._recover(worker, code)
        await self.remains.sweep()

    async def _recover(self, worker: Worker | None, code: int | None) -> None:
        life = "" if worker is None else worker.life
        await self.remains.recover(life, distrust=code == CHECKPOINT_FAILED)

    async def _start_in(self, place: Place) -> None:
        """Start a worker in a place; one that does not come up is missed like any other."""
        while True:
            await asyncio.sleep(place.back_off.delay_s)
            if self.stopping or self._places.get(place.number) is not place:
                return
            try:
                self._spawn(place)
            except Exception as error:
                self._failed(place, f"cannot start a worker process: {_said(error)}")
                await self.remains.sweep()
            else:
                return

    def _failed(self, place: Place, why: str) -> None:
        """Count a worker that did not come up, and say so once for each reason."""
        delay = place.back_off.failed()
        now = time.monotonic()
        if why == place.told and now - place.told_at < REMIND_S:
            return
        place.told, place.told_at = why, now
        up = sum(worker.is_ready for worker in self._living())
        log.error(
            "cannot %s worker %d: %s; tried again in %g s, then less and less often, at "
            "least every 30 s: put the cause right, no restart is needed; %s",
            "start" if place.is_added else "replace", place.number, why, delay,
            f"{counted(up, 'worker serves', 'workers serve')} meanwhile" if up
            else "no worker is left: new associations are rejected until one is up",
        )  # fmt: skip

    # Loops that stand still ----------------------------------------------------------------------

    def _look(self) -> None:
        """Name workers whose loop stands still, and end those that hang."""
        self._loop.call_later(LOOK_S, self._look)
        liveness = self._shared.liveness
        pulses = [
            Pulse(
                worker.number,
                worker.life,
                liveness.alive_ms(worker.number),
                worker.is_ready,
                liveness.disk_since(worker.number) > 0,
            )
            for worker in self._living()
        ]
        for still in self._watch.look(time.monotonic(), pulses):
            place = self._places.get(still.number)
            self._tell_still(place.worker if place else None, still)

    def _tell_still(self, worker: Worker | None, still: Still) -> None:
        if worker is None or worker.process is None:
            return
        match still.what:
            case "named":
                log.error(
                    "worker %d (process %d) does not answer for %.0f s, and does not wait for the "
                    "disk: %s; if it is not stopped on purpose, it is killed and replaced after "
                    "%g s",
                    worker.number, worker.process.pid, still.for_s,
                    "its associations stand still" if worker.is_ready else "it is still starting",
                    self._watch.patience_s(worker.is_ready),
                )  # fmt: skip
            case "goes on":
                log.error("worker %d goes on after %.0f s", worker.number, still.for_s)
            case _:
                if not worker.is_killed:
                    worker.is_killed = True
                    log.error(
                        "worker %d (process %d) hangs for %.0f s: killed",
                        worker.number, worker.process.pid, still.for_s,
                    )  # fmt: skip
                worker.process.kill()


def _said(error: BaseException) -> str:
    """An error in words, alike whenever its cause is."""
    if isinstance(error, OSError) and error.strerror:
        return reason_for(error)
    return f"{type(error).__name__}: {error}"

"""What dead workers leave in the store: unfinished instances, what they logged, and replacements
that were not through."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from fastscp.errors import FastscpError, reason_for, words_of
from fastscp.log import counted
from fastscp.main.backoff import BackOff
from fastscp.main.threads import in_thread
from fastscp.store.leftovers import settle_beside
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING, REDO

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.lives import SweepReport
    from fastscp.store.redo.recovery import Recovered
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["Remains", "tell_failed"]

log = logging.getLogger("fastscp.main")

# How long a worker's place waits for the parts of the dead one to be removed.
_SWEEP_S: Final = 5.0
# And for what it logged to be recovered: then it goes on without.
_RECOVERY_S: Final = 30.0


class Remains:
    """Puts in order what dead workers leave, beside the living; says what it cannot.

    run_id: of this run of the service.
    """

    def __init__(self, store: Store, shared: Shared, run_id: str) -> None:
        self._store = store
        self._shared = shared
        self._run = run_id
        self._settlings = 0
        self._recovering: asyncio.Future[Recovered] | None = None
        # Whether somebody died since that one began.
        self._is_due = False
        # The store is given back: the next start recovers what is left.
        self._is_over = False
        # Lives one of whose flushes failed.
        self._distrusted: set[str] = set()
        self._back_off = BackOff()
        self._sweeping: asyncio.Future[SweepReport] | None = None
        # What the last one could not remove, and why, as it stands in the log.
        self._left = (0, "")
        # Why the last sweep failed, as it stands in the log.
        self._not_swept = ""

    async def recover(self, life: str = "", *, distrust: bool = False) -> None:
        """Bring what dead workers logged to its files and lines; returns after one try.

        life: of one of them. distrust: as in `recover`. Where it fails the store counts as lost
        until it does not, and it is tried again.
        """
        if distrust:
            self._distrusted.add(life)
        self._is_due = True
        self._begin_recovery()
        recovering = self._recovering
        if recovering is not None and not recovering.done():
            # Others may wait for the same one, and it goes on without us.
            await asyncio.wait([recovering], timeout=_RECOVERY_S)
            if not recovering.done():
                log.error(
                    "recovering the redo log of a dead worker takes longer than %g s: it goes on, "
                    "and so does the service; check the store's disk",
                    _RECOVERY_S,
                )  # fmt: skip

    def _begin_recovery(self) -> None:
        is_under_way = self._recovering is not None and not self._recovering.done()
        if self._is_due and not is_under_way and not self._is_over:
            self._is_due = False
            # Of processes that are over, so their logs are among those that it reads. It asks the
            # set itself: of others whose logs it reads, the exit code may come meanwhile.
            known = frozenset(self._distrusted)
            self._recovering = in_thread(
                self._store.recover_beside, self._distrusted, self._shared.doubts
            )
            self._recovering.add_done_callback(partial(self._recovered, known))

    def _recovered(self, known: frozenset[str], recovery: asyncio.Future[Recovered]) -> None:
        """Say what a recovery did; where it failed, try it again."""
        if recovery.cancelled():
            return
        error = recovery.exception()
        if error is None:
            self._distrusted -= known
            self._store.unrecovered = ""
            self._back_off.reset()
            for one in recovery.result().told:
                log.warning("%s", one)
            # Of somebody who died meanwhile.
            self._begin_recovery()
            return
        is_bug = not isinstance(error, (FastscpError, OSError))
        why = f"{type(error).__name__}: {error}" if is_bug else words_of(error)
        if why != self._store.unrecovered:
            log.error(
                "cannot recover the redo log of a dead worker: %s; nothing is stored until that is "
                "done; it is tried again",
                why, exc_info=error if is_bug else None,
            )  # fmt: skip
        self._store.unrecovered = why
        self._is_due = True
        asyncio.get_running_loop().call_later(self._back_off.failed(), self._begin_recovery)

    async def settled(self, seconds: float) -> bool:
        """Wait for a recovery that is under way, at the end; none begins after that.

        Returns whether all is recovered, and says so if it is not; the next start does the rest.
        """
        why = ""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # One may follow upon another.
        while self._recovering is not None and not self._recovering.done():
            if loop.time() >= end:
                why = f"recovering it takes longer than {seconds:g} s"
                break
            await asyncio.wait([self._recovering], timeout=end - loop.time())
        self._is_over = True
        why = self._store.unrecovered or why
        if why:
            log.error(
                "the redo log of a dead worker stays in %s (%s): put the cause right; the next "
                "start, or `fastscp recover`, puts in place what it has",
                self._store.path / REDO, why,
            )  # fmt: skip
        return not why

    async def settle_replaced(self) -> None:
        """End the replacements that a dead worker had in hand, before anybody meets its files."""
        self._settlings += 1
        own_fd = -1
        try:
            # Nobody waits for the thread at the end, and by then the number may be another file's.
            own_fd = os.dup(self._store.dir_fd)
            told = await in_thread(
                settle_beside,
                own_fd,
                f"{self._run}-main-{self._settlings}",
                self._shared.store.next_sequence,
                self._shared.liveness,
                self._shared.doubts,
            )
        except OSError as error:
            # It raises none itself, so there was no thread, or no descriptor.
            if own_fd >= 0:
                os.close(own_fd)
            why = f"cannot look for replacements that were not through ({reason_for(error)})"
            told = (f"{why}: the next instance of their paths, or the next start, settles them",)
        for one in told:
            log.warning("%s", one)

    async def sweep(self) -> None:
        """Remove the parts of dead workers, as far as that works; says once why it does not."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = in_thread(sweep_incoming, self._store.dir_fd)
            self._sweeping.add_done_callback(self._swept)
        why = ""
        try:
            async with asyncio.timeout(_SWEEP_S):
                # Others may wait for the same sweep, and it goes on without us.
                await asyncio.shield(self._sweeping)
        except TimeoutError:
            why = f"no answer for {_SWEEP_S:g} s"
        except OSError as error:
            why = f"{error.filename or INCOMING}: {reason_for(error)}"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        if why and why != self._not_swept:
            log.error(
                "cannot remove unfinished instances from %s (%s): they stay there for now",
                self._store.path / INCOMING, why,
            )  # fmt: skip
        elif self._not_swept and not why:
            log.error("unfinished instances are removed again from %s", self._store.path / INCOMING)
        self._not_swept = why

    def _swept(self, sweep: asyncio.Future[SweepReport]) -> None:
        """Say what a sweep did: once, however many places wait for it."""
        if sweep.cancelled() or sweep.exception() is not None:
            return
        report = sweep.result()
        if report.parts:
            said = counted(report.parts, "unfinished instance")
            log.info("swept %s of dead workers", said)
        self.tell_left(report)

    def tell_left(self, report: SweepReport) -> None:
        """Say what a sweep had to leave, unless the one before left the same."""
        left = (report.failed, report.why)
        if left != self._left:
            tell_failed(report, self._store.path / INCOMING)
        if self._left[0] and not report.failed:
            log.error("%s holds nothing any more that has to go", self._store.path / INCOMING)
        self._left = left


def tell_failed(report: SweepReport, path: Path) -> None:
    """Say what a sweep had to leave."""
    if report.failed:
        log.error(
            "cannot remove %s of %s (%s): they are no folders of unfinished instances, or "
            "the disk refuses; the next sweep tries again; look at them",
            counted(report.failed, "entry", "entries"), path, report.why,
        )  # fmt: skip

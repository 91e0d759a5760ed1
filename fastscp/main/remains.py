"""What dead workers leave in the store: unfinished instances, and replacements not through."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

from fastscp.log import counted
from fastscp.main.threads import in_thread
from fastscp.store.leftovers import settle_beside
from fastscp.store.lives import sweep_incoming
from fastscp.store.names import INCOMING

if TYPE_CHECKING:
    from pathlib import Path

    from fastscp.store.lives import SweepReport
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["Remains", "tell_failed"]

log = logging.getLogger("fastscp.main")

# How long a worker's place waits for the parts of the dead one to be removed.
_SWEEP_S: Final = 5.0


class Remains:
    """Puts in order what dead workers leave, beside the living; says what it cannot.

    run_id: of this run of the service.
    """

    def __init__(self, store: Store, shared: Shared, run_id: str) -> None:
        self._store = store
        self._shared = shared
        self._run = run_id
        self._settlings = 0
        self._sweeping: asyncio.Future[SweepReport] | None = None
        # What the last one could not remove, and why, as it stands in the log.
        self._left = (0, "")
        # Why the last sweep failed, as it stands in the log.
        self._not_swept = ""

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
            why = f"cannot look for replacements that were not through ({error.strerror})"
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
            why = f"{error.filename or INCOMING}: {error.strerror}"
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

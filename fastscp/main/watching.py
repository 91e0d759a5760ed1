"""Main looks at the store every second, and tells everybody what state it is in."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fastscp.main.storewatch import HANGS_S, Look, SpaceState, look
from fastscp.main.threads import in_thread

if TYPE_CHECKING:
    from fastscp.main.admission import Admission
    from fastscp.main.refusing import Refusing
    from fastscp.main.storewatch import StoreWatch
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["Watching"]

log = logging.getLogger("fastscp.main")

# Between looks at the store.
_LOOK_EVERY_S: Final = 1.0
_CONGESTED: Final = {
    SpaceState.FULL: "disk full",
    SpaceState.LOST: "the store is not there, or does not answer",
}
_UNRECOVERED: Final = "the redo log of a dead worker cannot be recovered"


class Watching:
    """Lets workers and the admission know what `watch` judges, until the service is over.

    refusing: is told what becomes of instances. over: done then. `has_failed`: whether a look
    failed because of a bug, and none was through since; whoever catches that sets it.
    """

    def __init__(
        self,
        watch: StoreWatch,
        refusing: Refusing,
        shared: Shared,
        admission: Admission,
        over: asyncio.Future[int],
    ) -> None:
        self._watch = watch
        self._refusing = refusing
        self._shared = shared
        self._admission = admission
        self._over = over
        # Why the last look at the store could not be taken, as it stands in the log.
        self._blind = ""
        self.has_failed = False

    async def go_on(self, store: Store) -> None:
        """Look at the store every second, and tell everybody what state it is in."""
        looking: asyncio.Future[Look] | None = None
        hanging_s = 0.0
        while not self._over.done():
            started = time.monotonic()
            rows = self._shared.rows
            self._watch.received(rows.received())
            said = self._refusing.see(rows.by_status(), self._shared.doubts, time.monotonic())
            if said:
                log.error("%s", said)
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
            if self._blind or self.has_failed:
                self.has_failed = False
                log.error("the store is looked at again")
        except OSError as error:
            # Out of descriptors, memory or threads: that is main's own trouble, not the store's.
            blind = error.strerror or str(error)
            if blind != self._blind:
                log.error("cannot look at the store: %s; its state counts as before", blind)
        self._blind = blind

    def _judge(self, seen: Look) -> None:
        state, said = self._watch.judge(seen, time.monotonic())
        is_log = state is SpaceState.LOST and seen.lost is None
        self._admission.congested = _UNRECOVERED if is_log else _CONGESTED.get(state, "")
        if said:
            # Before the line: what that says is so by then.
            self._shared.store.set_state(state, self._watch.slow_rate)
            # The end of it, too: whoever is told of an error is told that it is over.
            log.error("%s", said)

"""What a service takes over from the one that started it, which ends with it at the latest."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from fastscp.config.settings import SETTINGS
from fastscp.main.threads import in_thread
from fastscp.messages.handover import LOCK
from fastscp.store.filing import Filing
from fastscp.store.store import Store
from fastscp_ext import rename_noreplace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastscp.config.settings import ServeConfig
    from fastscp.main.control import ControlSocket, Facts
    from fastscp.main.inherited import Inherited
    from fastscp.main.predecessor import Predecessor
    from fastscp.main.prepared import Prepared
    from fastscp.main.workers import Workers
    from fastscp.messages.totals import Totals
    from fastscp_ext import Shared

__all__ = ["Takeover", "kept_settings"]

log = logging.getLogger("fastscp.main")

# Settings that a successor takes no notice of: it has the sockets that there are.
_OF_SOCKETS: Final = ("host", "port", "tls_port", "admin")
# How long the rest of a predecessor may take to end, once it has been told to end at once.
_ENDS_S: Final = 20.0


def kept_settings(config: ServeConfig) -> dict[str, str]:
    """The settings that a successor keeps whatever its own say, as text, by field."""
    return {
        setting.field: setting.kind.show(getattr(config, setting.field))
        for setting in SETTINGS
        if setting.field in _OF_SOCKETS
    }


class Takeover:
    """Takes a service over from its predecessor; what of that is left, ends with this one.

    before: who it is. The others are this service's own.
    """

    def __init__(
        self,
        before: Predecessor,
        config: ServeConfig,
        shared: Shared,
        facts: Facts,
        control_socket: ControlSocket,
        inherited: Inherited,
    ) -> None:
        self._before = before
        self._config = config
        self._shared = shared
        self._facts = facts
        self._control_socket = control_socket
        self._inherited = inherited
        self._has_totals = False
        self._workers: Workers | None = None
        self._has_taken_over = False

    @property
    def workers(self) -> Iterable[int]:
        """The numbers of the predecessor's workers, which nobody else may have meanwhile."""
        return self._before.workers

    @property
    def has_claims(self) -> bool:
        """Whether the predecessor's workers claim a path before they name anything there."""
        return self._before.told.claims

    def watch(self, orphaned: Callable[[], None]) -> None:
        """Hear the predecessor. orphaned(): called if it is gone before it lets this one go on."""

        def tell() -> None:
            log.error(
                "the main process that started this one to take over from it is gone: this one "
                "ends, too; start the service anew"
            )
            orphaned()

        self._before.watch(tell, self._left, self._counted)

    def close(self) -> None:
        self._before.close()

    async def store(self, prepared: Prepared) -> Store:
        """The store, which the predecessor goes on to use. Raises FastscpError: it cannot be."""
        told, before = self._before.told, self._before
        for field, text in kept_settings(self._config).items():
            # What it has no socket by, it does not tell.
            if told.kept.get(field, text) != text:
                log.warning(
                    "upgrade: another %s (%s) waits for a restart of the service: it goes on with "
                    "the listening sockets that there are", field, text,
                )  # fmt: skip
        earlier = {Filing(layout, suffix): key for key, layout, suffix in told.filings}
        store = await in_thread(
            lambda: Store.inherit(
                self._config.store, before.take(LOCK), earlier,
                durabilities=prepared.durabilities, rename_noreplace=rename_noreplace,
            )
        )  # fmt: skip
        try:
            # All that may fail comes before anybody is let go on.
            await in_thread(store.check_refile, prepared.filings, prepared.durabilities)
        except BaseException:
            store.close()
            raise
        return store

    async def finish(
        self, prepared: Prepared, store: Store, workers: Workers, over: asyncio.Future[int]
    ) -> None:
        """All is there but the connections: let the predecessor stop, and go on in its place.

        over: done if this service ends before that. Raises FastscpError: it goes on itself.
        """
        self._workers = workers
        either: list[asyncio.Future[Any]] = [self._before.prepared(), over]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if workers.stopping:
            return
        if not self._has_totals:
            log.warning(
                "upgrade: the counters begin anew: process %d is of a version that does not hand "
                "its own over", self._before.told.pid,
            )  # fmt: skip
        self._shared.store.mixed = await in_thread(
            store.refile, prepared.filings, prepared.durabilities
        )
        await in_thread(store.take_lock_over)
        await self._control_socket.open(store)
        self._facts.predecessor = self._before.told.pid

    async def serving(self) -> None:
        """Say that this process accepts; returns once the service manager may be told."""
        self._has_taken_over = True
        self._before.serving()
        await self._before.named()

    def drain(self, seconds: float) -> None:
        """Have what is left of the predecessor end in so many seconds; 0: at once."""
        if self._has_taken_over and not self._before.is_gone:
            self._before.drain(seconds)

    async def end(self) -> bool:
        """Wait for the end of the predecessor, which ends with this service; whether it has."""
        if not self._has_taken_over or self._before.is_gone:
            return True
        self._before.drain(0.0)
        if await self._before.left(_ENDS_S):
            return True
        log.error(
            "the predecessor (process %d) is still there: it keeps the store until it is gone; see "
            "what it waits for, or kill it",
            self._before.told.pid,
        )  # fmt: skip
        return False

    def _counted(self, totals: Totals) -> None:
        self._has_totals = True
        self._inherited.take(totals)

    def _left(self, clean: bool) -> None:
        """Nothing is left of the predecessor, and nobody else sees to what its workers left."""
        for number in self._before.workers:
            self._shared.liveness.end_batches(number)
        self._facts.predecessor = 0
        workers, pid = self._workers, self._before.told.pid
        if workers is None:
            return
        workers.release()
        if clean:
            log.info("the predecessor (process %d) is gone: all is here now", pid)
            return
        log.error(
            "the predecessor (process %d) did not end in order: its associations are lost, their "
            "unfinished instances are dropped, acknowledged ones are kept", pid,
        )  # fmt: skip
        workers.settle_lost()

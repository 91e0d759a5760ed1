"""The index of a suspect store's journal: built and extended while the service runs."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from fastscp.association.account import in_bytes
from fastscp.errors import reason_for
from fastscp.log import counted
from fastscp.main.backoff import BackOff
from fastscp.main.threads import in_thread
from fastscp.store.index import IndexBuilder, new_index
from fastscp_ext import LineIndex

if TYPE_CHECKING:
    from fastscp.store.store import Store

__all__ = ["Indexing", "index_of"]

log = logging.getLogger("fastscp.main")

# Between looks for new lines. A worker reads what was written since the last one for each duplicate
# that it has to look up.
_EVERY_S: Final = 0.5


async def index_of(store: Store) -> LineIndex | None:
    """What the index of a suspect store is built in; None: it needs none, or there is no memory."""
    if not store.suspect:
        return None
    try:
        return await in_thread(new_index, store.dir_fd)
    except OSError as error:
        log.error(
            "cannot make an index of the journal (%s): each instance that differs from the file "
            "under its path costs reading the whole journal until a restart; free some memory, or "
            "run `fastscp verify` while the service is stopped, which makes the index needless",
            reason_for(error),
        )
        return None


class Indexing:
    """Builds an index, and adds to it what is journaled while the service runs.

    store: not closed before `run` is under way. run_ids: as in the names of this run's segments,
    and of those of a run that it takes over from.
    """

    def __init__(self, store: Store, index: LineIndex, *run_ids: str) -> None:
        self._store_fd = store.dir_fd
        self._index = index
        self._run_ids = run_ids
        self._back_off = BackOff()
        self._began = time.monotonic()
        # Why it does not work, as it stands in the log.
        self._told = ""

    async def run(self, over: asyncio.Future[int]) -> None:
        """Until the service is over, or for ever where the disk hangs."""
        builder: IndexBuilder | None = None
        extending: asyncio.Future[bool] | None = None
        try:
            while not over.done():
                try:
                    builder = builder or IndexBuilder(self._store_fd, self._index, *self._run_ids)
                    extending = in_thread(builder.extend)
                    either: list[asyncio.Future[Any]] = [extending, over]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    if not extending.done():
                        builder.stop()
                        await asyncio.wait([extending])
                    delay = self._extended(extending.result())
                except Exception as error:
                    delay = self._failed(error)
                await asyncio.wait([over], timeout=delay)
        finally:
            if builder is not None:
                builder.stop()
                if extending is None or extending.done():
                    builder.close()

    def _extended(self, whole: bool) -> float:
        """Say once that it works; returns after how many seconds there may be more to add."""
        self._back_off.reset()
        if whole and (self._told or self._index.state != LineIndex.READY):
            self._index.set_state(LineIndex.READY)
            # At the level at which the log was told that it does not work.
            level, self._told = logging.ERROR if self._told else logging.INFO, ""
            log.log(
                level,
                "the index of the journal is built: %s, %s, after %.1f s",
                counted(self._index.lines, "line"), in_bytes(self._index.size),
                time.monotonic() - self._began,
            )  # fmt: skip
        return _EVERY_S

    def _failed(self, error: Exception) -> float:
        """Say once what is wrong; returns after how many seconds it is tried again."""
        is_built = self._index.state == LineIndex.READY
        if not is_built:
            # Whoever waits for it reads the journal instead.
            self._index.set_state(LineIndex.FAILED)
        if isinstance(error, OSError):
            where = f"{error.filename}: " if isinstance(error.filename, str) else ""
            why = f"{where}{reason_for(error)}"
        else:
            why = f"a bug: {type(error).__name__}: {error}"
        delay = self._back_off.failed()
        if why == self._told:
            return delay
        self._told = why
        log.error(
            "cannot %s the index of the journal (%s): each instance that differs from the file "
            "under its path costs reading %s; tried again, at least every 30 s: check the store's "
            "disk and the free memory",
            "extend" if is_built else "build", why,
            "what was journaled since" if is_built else "the whole journal",
            exc_info=None if isinstance(error, OSError) else error,
        )  # fmt: skip
        return delay

"""What main measures of the service, put together for whoever shows it.

Only `measure_journal` looks at the disk, in a thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp import log as logs
from fastscp.main.threads import in_thread
from fastscp.messages.metrics import Snapshot
from fastscp.messages.totals import OTHER, Counted, Distribution, Totals
from fastscp.store.journal import journal_bytes
from fastscp.titles import title_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastscp.main.admission import Admission
    from fastscp.main.dispatch import Dispatch
    from fastscp.main.inherited import Inherited
    from fastscp.main.workers import Workers
    from fastscp.messages.control import Status
    from fastscp.store.store import Store
    from fastscp_ext import Counts, Rows, Times

__all__ = ["Measured"]

_NONE: Final = Counted(0, 0, 0, 0)
# Between looks at the journal.
_JOURNAL_S: Final = 60.0


class Measured:
    """Takes snapshots. status: what the service is doing, as `fastscp status` tells it.

    before: what was counted by whom this process took over from. workers: None until there are any.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        rows: Rows,
        admission: Admission,
        dispatch: Dispatch,
        before: Inherited,
    ) -> None:
        self._status = status
        self._rows = rows
        self._admission = admission
        self._dispatch = dispatch
        self._before = before
        # Whoever watches a counter grow has to see it before it does: 0 of each that there can be.
        self._statuses = {_status_key(*key): _NONE for key in rows.known_statuses()}
        self.workers: Workers | None = None
        self._journal_bytes: int | None = None

    def status(self) -> Status:
        """Where the service stands, which costs less than all the numbers."""
        return self._status()

    def snapshot(self) -> Snapshot:
        takers = self._dispatch.takers
        return Snapshot(
            **msgspec.structs.asdict(self.totals()),
            status=self._status(),
            workers_waiting=takers.answering - takers.free,
            journal_bytes=self._journal_bytes,
        )

    def totals(self) -> Totals:
        """All that was counted since the start of the service, whichever process it was then."""
        return self._own().plus(self._before.totals)

    def _own(self) -> Totals:
        rows, admission = self._rows, self._admission
        endings = admission.endings
        return Totals(
            by_ae=_counted(rows.by_ae(), title_text),
            by_transfer_syntax=_counted(rows.by_transfer_syntax(), str),
            by_status=self._by_status(),
            received_bytes=rows.received(),
            times=_distributions(rows.times()),
            flushes=_distributions(rows.flushes()),
            batches=_distributions(rows.batches()),
            redo_ways=rows.redo_ways(),
            throttled_us=rows.throttled_us(),
            accepted=admission.begun,
            rejected=dict(endings.rejected),
            ended=dict(endings.ended),
            aborted=dict(endings.aborted),
            contexts_refused=dict(endings.contexts_refused),
            worker_restarts=dict(self.workers.restarts) if self.workers else {},
            disk_blocked_s=self._dispatch.blocked_s,
            log_lines_lost=logs.lines_lost() + rows.lines_lost(),
            handshakes_failed=dict(self._dispatch.handshakes_failed),
        )

    def response_times(self) -> Distribution:
        """From the last byte of an instance to its response, of all so far."""
        return _distribution(self._rows.times()["response"])

    async def measure_journal(self, store: Store) -> None:
        """See how large the journal is, and wait until that is due again."""
        try:
            self._journal_bytes = await in_thread(journal_bytes, store.dir_fd)
        except OSError:
            # Whoever looks at the store says so.
            self._journal_bytes = None
        await asyncio.sleep(_JOURNAL_S)

    def _by_status(self) -> dict[tuple[str, str], Counted]:
        """What was counted by status and reason, and 0 of each that there can be."""
        found = dict(self._statuses)
        for key, counts in self._rows.by_status().items():
            found[_status_key(*key)] = _one_counted(counts)
        return found


def _one_counted(counts: Counts) -> Counted:
    return Counted(counts.instances, counts.bytes, counts.refused, counts.unfinished)


def _counted(found: Mapping[str | None, Counts], text: Callable[[str], str]) -> dict[str, Counted]:
    return {
        OTHER if key is None else text(key): _one_counted(counts) for key, counts in found.items()
    }


def _status_key(status: int | None, reason: str | None) -> tuple[str, str]:
    return "none" if status is None else f"{status:04X}", reason or OTHER


def _distributions(found: Mapping[str, Times]) -> dict[str, Distribution]:
    return {name: _distribution(times) for name, times in found.items()}


def _distribution(times: Times) -> Distribution:
    return Distribution(times.buckets, times.total_us)

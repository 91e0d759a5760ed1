"""What the page shows, kept and put together; its numbers are made elsewhere, each once.

Only `_read_journal` looks at the disk, in a thread, and only while somebody looks at the page.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from fastscp import log as logs
from fastscp.main.history import LOOK_EVERY_S, History
from fastscp.main.refusals import Told, refused_so_far
from fastscp.main.threads import in_thread
from fastscp.messages.page import Connection, Disk, Marks, Stored, View
from fastscp.messages.rates import busiest, each_a_second
from fastscp.store.latest import Latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fastscp.admin.door import Control
    from fastscp.main.admission import Admission
    from fastscp.main.dispatch import Dispatch
    from fastscp.main.measured import Measured
    from fastscp.main.summary import Seen
    from fastscp.messages.control import AssociationStatus
    from fastscp.store.store import Store

__all__ = ["Page"]

# Connections that are shown, and instances.
CONNECTIONS_MOST: Final = 100
STORED_MOST: Final = 50
# Rates are of two looks, the first of them not older than that.
_OLD_S: Final = 3 * LOOK_EVERY_S
# By what a journal line says of a path that was taken; `kept` has another status.
_KEPT: Final = "kept"
_STATUSES: Final = {_KEPT: "B006"}
_OUTCOMES: Final = {
    "identical": "there already", "version": "kept as a version", "replaced": "replaced another",
    _KEPT: "not stored (keep)", "restored": "restored",
}  # fmt: skip


class Page:
    """Main's `Showing`: see `fastscp.admin.door`. seen: what was counted by now.

    It takes copies of the lines of the log from `open` on.
    """

    def __init__(
        self,
        control: Control,
        measured: Measured,
        admission: Admission,
        dispatch: Dispatch,
        seen: Callable[[], Seen],
    ) -> None:
        self._control = control
        self._measured = measured
        self._admission = admission
        self._dispatch = dispatch
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._history = History()
        self._told = Told()
        self._copies = logs.Copies("main", self._wake)
        self._looked: asyncio.Future[None] = self._loop.create_future()
        self._found: list[AssociationStatus] = []
        self._found_at = 0.0
        self._rates: Mapping[str, int] = {}
        self._latest: Latest | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stored: Sequence[Stored] = ()

    # Kept, whether somebody looks or not ---------------------------------------------------------

    def open(self) -> None:
        """Take copies of the lines of main's log from now on."""
        logs.copy_to(self._copies)

    def stores_in(self, store: Store) -> None:
        """Instances come into this store from now on."""
        self._latest = Latest(store.dir_fd, STORED_MOST)

    def close(self) -> None:
        logs.copy_to(None)
        self._latest = None

    async def keep(self) -> None:
        """Wait until the next look at the counters is due, and take it."""
        await asyncio.sleep(LOOK_EVERY_S)
        self._history.look(time.time(), self._seen(), self._measured.response_times().buckets)
        looked, self._looked = self._looked, self._loop.create_future()
        looked.set_result(None)

    def said(self, lines: Iterable[logs.Line]) -> None:
        """Lines of a worker's log."""
        self._told.add(lines)

    def _wake(self) -> None:
        # From any thread, and from this one: lines come in the order in which they are taken.
        self._loop.call_soon_threadsafe(lambda: self._told.add(self._copies.take()))

    # For whoever looks ---------------------------------------------------------------------------

    async def looked(self) -> None:
        await asyncio.shield(self._looked)

    def look(self) -> None:
        now = time.monotonic()
        before = {one.id: one.received_bytes for one in self._found}
        self._found = self._control.associations()
        seconds = now - self._found_at
        self._found_at = now
        self._rates = each_a_second(self._found, before, seconds) if seconds < _OLD_S else {}
        if self._latest is not None and (self._reading is None or self._reading.done()):
            self._reading = self._loop.create_task(self._read_journal(self._latest))

    def view(self, since: Marks | None, *, actions: bool) -> View:
        is_whole, since = since is None, since or Marks()
        now = self._measured.snapshot()
        shown = busiest(self._found, self._rates, CONNECTIONS_MOST)
        return View(
            whole=is_whole,
            actions=actions,
            now=round(time.time(), 3),
            status=now.status,
            connections=[Connection(about=one, rate=self._rates.get(one.id)) for one in shown],
            more=len(self._found) - len(shown),
            workers=self._dispatch.workers(),
            disk=Disk(
                journal_bytes=now.journal_bytes, disk_blocked_s=now.disk_blocked_s,
                workers_waiting=now.workers_waiting, worker_restarts=now.worker_restarts,
                log_lines_lost=now.log_lines_lost,
            ),
            refused=refused_so_far(
                now.by_status, now.rejected, now.contexts_refused, self._admission.endings.known
            ),
            latest=[one for one in self._history.latest if one.n > since.latest],
            hour=[one for one in self._history.hour if one.n > since.hour],
            refusals=[one for one in self._told.refusals if one.n > since.refusals],
            stored=self._stored,
            log=[one for one in self._told.lines if one.n > since.log],
        )  # fmt: skip

    async def _read_journal(self, latest: Latest) -> None:
        try:
            found = await in_thread(latest.read)
        except OSError:
            # Whoever looks at the store says so.
            return
        self._stored = [self._of_journal(fact) for fact in found]

    def _of_journal(self, fact: Mapping[str, Any]) -> Stored:
        """What may be shown of a line of the journal. It is as whoever may write there left it."""
        uid, duplicate = _text(fact, "sop_class_uid"), _text(fact, "duplicate")
        size = fact.get("bytes")
        return Stored(
            at=_text(fact, "time"),
            sop_class=self._admission.endings.known.get(uid, uid),
            calling_ae=_text(fact, "calling_ae"),
            called_ae=_text(fact, "called_ae"),
            bytes=size if isinstance(size, int) else 0,
            status=_STATUSES.get(duplicate, "0000"),
            outcome=_OUTCOMES.get(duplicate, _text(fact, "event")),
        )


def _text(fact: Mapping[str, Any], name: str) -> str:
    return logs.shown(str(fact.get(name, "")))

"""A run as a whole: how many associations, which group each works on, and how it is interrupted.

Theory of operation: every association works on one group's queue at a time (`Carrier`), while the
rest of the files is looked for (`Source`). A worker whose association cannot be had gives up,
unless it is the last: then the instances that are left fail with what stopped it.
After an interruption the run begins nothing more: what is on its way ends, and an association that
is not there yet, or whose release is not confirmed, is left. After a second one it cuts its
connections, and whatever was sent and not answered fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fastscp.log import printable
from fastscp.scu.connect import associate
from fastscp.scu.errors import AssociationRejected, ConnectionFailed, PeerError, PeerTimeout
from fastscp.scu.pdulog import PDULog
from fastscp.scu.send.carrier import FIRST_BATCH, Carrier, End, back_off
from fastscp.scu.send.news import News
from fastscp.scu.send.outcomes import Outcomes
from fastscp.scu.send.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.scu.association import Association
    from fastscp.scu.send.files import Finder, Found
    from fastscp.scu.send.group import FileParcel, Group
    from fastscp.scu.send.options import Options
    from fastscp.scu.send.outcomes import Summary

__all__ = ["Shipment"]

log = logging.getLogger("fastscp.send")


# Associations in a row that end inside instances, before others are given up.
_LOSSES: Final = 3
# How long whoever interrupts waits for a release.
_RELEASE_S: Final = 1.0


class Shipment:
    """One run of `fastscp send`.

    found: what `finder` has found so far; the rest is looked for while sending. summary: takes
    every outcome. say: a line for people. source: what is to be sent.
    """

    def __init__(
        self,
        options: Options,
        finder: Finder,
        found: Found,
        summary: Summary,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._summary = summary
        self._say = say
        self._news = News()
        self._outcomes = Outcomes(summary, say)
        self.source = Source(options, finder, found, self._outcomes, self._news)
        self._workers = options.associations
        # One thread per association: the default pool is smaller than some wish to test with.
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="send")
        self._tasks: list[asyncio.Task[None]] = []
        self._carriers: set[Carrier] = set()
        self._sent_before = 0
        self._opened = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the system so far, by all associations."""
        return self._sent_before + sum(carrier.sent_bytes for carrier in self._carriers)

    @property
    def answered(self) -> int:
        """Instances with an outcome, those that are not yet counted included."""
        summary = self._summary
        waiting = sum(carrier.uncounted for carrier in self._carriers)
        return summary.stored + summary.warned + summary.failed + waiting

    def interrupt(self) -> None:
        """Finish what is on its way and release; asked again, break off."""
        self._news.interrupts += 1
        self._summary.interrupted = True
        self._news.tell()
        for carrier in self._carriers:
            carrier.stop()
        if self._news.interrupts > 1:
            self._break_off()

    def _break_off(self) -> None:
        """Cut every connection, and leave off whatever else is waited for."""
        self._news.interrupts = max(2, self._news.interrupts)
        for carrier in self._carriers:
            carrier.break_off()
        for task in self._tasks:
            task.cancel()

    async def run(self) -> None:
        """Send everything; returns when every instance has its outcome, or after `interrupt`."""
        began = time.monotonic()
        works = (self.source.look_ahead(), *(self._work() for _ in range(self._workers)))
        self._tasks += map(asyncio.ensure_future, works)
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # Where one of them failed, the others have to end as well.
            self._break_off()
            ends = await asyncio.gather(*self._tasks, return_exceptions=True)
            self._pool.shutdown()
            self._summary.seconds = time.monotonic() - began
        for end in ends:
            if isinstance(end, Exception):
                raise end
        for parcel in self.source.tried():
            self._outcomes.interrupt(parcel)
        summary = self._summary
        summary.left = self.source.instances - summary.stored - summary.warned - summary.failed
        self._outcomes.say_lost()

    async def _work(self) -> None:
        """One association after the other, as long as there is anything to send."""
        failures = losses = 0
        while (group := await self.source.choose()) is not None:
            # Taken before the association is there, or others would open theirs for the same.
            batch = group.take(FIRST_BATCH) or group.take_suspect()
            self._news.tell()
            if not batch:
                continue
            group.workers += 1
            try:
                end = await self._associate(group, batch)
            finally:
                group.workers -= 1
                self._news.tell()
            if end.answered:
                failures = losses = 0
            why = end.why
            if why is None or group.finished or self._news.interrupts:
                continue
            failures += 1
            losses += bool(end.suspects) and not end.known
            if self._goes_on(end, failures, losses):
                delay = back_off(failures)
                self._say(f"{_told(end)}; going on in {delay:g} s")
                await self._news.until(self.source.over, delay)
            elif self._workers > 1:
                # The others have the association that this one was not given, or will be the last.
                self._workers -= 1
                self._say(f"going on with fewer associations: {why}")
                return
            else:
                if isinstance(why, (ConnectionFailed, AssociationRejected)):
                    self.source.abandon_all(why)
                else:
                    self.source.abandon(group, why)
                failures = losses = 0

    def _goes_on(self, end: End, failures: int, losses: int) -> bool:
        """Whether another association is worth while.

        failures: in a row, none with a response. losses: those of them that ended inside an
        instance that was under way for the first time.
        """
        if end.suspects:
            # It may be the instance: the others deserve a try, whatever becomes of this one. A peer
            # that ends at each is not tried for ever.
            retries = self._options.retries
            return losses <= max(retries, _LOSSES) and failures <= retries + _LOSSES
        return end.why is not None and end.why.transient and failures <= self._options.retries

    async def _associate(self, group: Group, batch: list[FileParcel]) -> End:
        """One association's life. batch: what is sent first."""
        options = self._options
        self._opened += 1
        pdus = PDULog(f"association {self._opened}") if PDULog.wanted() else None
        try:
            association = await self._open(group, pdus)
        except BaseException as error:
            group.give_back(batch)
            if isinstance(error, PeerError):
                return End(error)
            raise
        if association is None:
            group.give_back(batch)
            return End(None)
        self._summary.associations += 1
        if association.window < options.window:
            log.info("the peer allows %d outstanding operations", association.window)
        carrier = Carrier(
            association, group, options, self.source, self._outcomes, self._news, self._pool, pdus
        )
        try:
            self._carriers.add(carrier)
            try:
                end = await carrier.carry(batch)
            finally:
                self._carriers.remove(carrier)
                self._sent_before += carrier.sent_bytes
            if association.failure is None:
                await self._release(association)
            return end
        finally:
            await association.abort()

    async def _open(self, group: Group, pdus: PDULog | None) -> Association | None:
        """An association; None: the run was interrupted first. Raises PeerError."""
        options = self._options
        opening = asyncio.ensure_future(
            associate(
                options.host,
                options.port,
                group.contexts,
                calling_ae=options.calling_ae,
                called_ae=options.called_ae,
                max_pdu_length=options.max_pdu_length,
                window=options.window,
                timeouts=options.timeouts,
                on_pdu=None if pdus is None else pdus.saw,
                tls=options.tls,
                identity=options.identity,
            )
        )
        try:
            await self._news.attend(opening)
        finally:
            await _left(opening)
        return None if opening.cancelled() else opening.result()

    async def _release(self, association: Association) -> None:
        release = asyncio.ensure_future(association.release())
        try:
            if not await self._news.attend(release, _RELEASE_S):
                link = association.link
                link.give_up(PeerTimeout("confirm the release", _RELEASE_S))
                link.transport.abort()
                await asyncio.wait([release])
        finally:
            await _left(release)
        error = None if release.cancelled() else release.exception()
        if isinstance(error, PeerError):
            # Every instance has its response: how it ends matters to nobody.
            log.info("at the end of an association: %s", error)
        elif error is not None:
            raise error


async def _left(work: asyncio.Future[Any]) -> None:
    """Leave off what is not done by now."""
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
    if not work.cancelled():
        # Whoever is cancelled here asks no more what became of it.
        work.exception()


def _told(end: End) -> str:
    """What ended an association, and which instances may be the reason."""
    if not end.suspects:
        return str(end.why)
    name = printable(os.fsdecode(end.suspects[0]))
    more = len(end.suspects) - 1
    others = f" and {more} more were" if more else " was"
    return f"{end.why}; {name}{others} under way"

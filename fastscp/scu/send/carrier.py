"""One association at work: it carries a group's instances, a batch at a time.

Theory of operation: the codec moves the messages (`Sender`), a batch at a time in a thread of its
own; between batches the event loop counts and decides what goes back to the queue. A context that
turns up after an association was opened is none of its own: when nothing except such instances is
next, the association ends, and the next one proposes all contexts that are known by then.
An instance is tried again after a lost connection and after A7xx; nothing else would end otherwise
the next time. One that was under way when an association ended may be the reason: it is tried again
behind all others, and with nothing else outstanding, so that it can take none of them along.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from fastscp.scu.errors import (
    ConnectionLost,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
)
from fastscp.scu.send.outcomes import file_error
from fastscp_ext import Sender
from fastscp_ext import status as codes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from fastscp.scu.association import Association
    from fastscp.scu.pdulog import PDULog
    from fastscp.scu.send.files import File
    from fastscp.scu.send.group import FileParcel, Group
    from fastscp.scu.send.news import News
    from fastscp.scu.send.options import Options
    from fastscp.scu.send.outcomes import Outcomes
    from fastscp.scu.send.source import Source

__all__ = ["FIRST_BATCH", "Carrier", "End", "back_off"]

_T = TypeVar("_T")

# Taken from the queue before there is an association to carry them.
FIRST_BATCH: Final = 8
# A batch should take about so long: short enough to share work and to count, long enough that the
# hop between thread and loop does not show.
_BATCH_S: Final = 0.1
_LARGEST_BATCH: Final = 512
_FIRST_BACK_OFF_S: Final = 0.5
_LONGEST_BACK_OFF_S: Final = 30.0


class End(NamedTuple):
    """How an association ended: what ended it before its time, and the number of responses.

    suspects: the files of the instances that were under way then. known: they had been before, too.
    """

    why: PeerError | None
    answered: int = 0
    suspects: Sequence[bytes] = ()
    known: bool = False


class Carrier:
    """Sends from a group over an association that has just been established.

    pool: has a thread for every association. pdus: gets a line for each P-DATA-TF, if it is there.
    """

    def __init__(
        self,
        association: Association,
        group: Group,
        options: Options,
        source: Source,
        outcomes: Outcomes,
        news: News,
        pool: Executor,
        pdus: PDULog | None = None,
    ) -> None:
        self._association = association
        self._group = group
        self._timeouts = options.timeouts
        self._retries = options.retries
        self._source = source
        self._outcomes = outcomes
        self._news = news
        self._pool = pool
        self._pdus = pdus
        self._sender: Sender[File] | None = None
        self._counted = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the system so far."""
        return 0 if self._sender is None else self._sender.sent_bytes

    @property
    def uncounted(self) -> int:
        """Instances that were answered, and are not counted yet."""
        return 0 if self._sender is None else self._sender.answered - self._counted

    def stop(self) -> None:
        """Begin nothing more."""
        if self._sender is not None:
            self._sender.stop()

    def break_off(self) -> None:
        """Cut the connection."""
        if self._sender is not None:
            self._sender.stop()
            self._sender.break_off()

    async def carry(self, batch: list[FileParcel]) -> End:
        """Send a batch, and from the group's queue until it is empty."""
        link = self._association.link
        if link.failure is not None:
            # The end came right behind the acceptance.
            self._group.give_back(batch)
            return End(link.failure)
        async with link.lend() as fd:
            sender: Sender[File] = Sender(
                fd,
                self._association.fragment_bytes,
                self._association.window,
                self._timeouts.send,
                self._timeouts.response,
                None if self._pdus is None else self._pdus.saw_data,
            )
            self._sender = sender
            await self._batches(sender, batch)
        failure = self._conclude(sender)
        lost = sender.unanswered
        ours = sender.end == "file"
        suspects = [] if ours else [parcel.path for parcel in lost]
        known = all(self._group.is_suspect(parcel) for parcel in lost)
        for parcel in lost:
            assert failure is not None  # noqa: S101 - nothing else leaves them unanswered
            if parcel.error:
                self._outcomes.count(parcel.item, parcel, error=file_error(parcel))
            elif self._news.interrupts > 1:
                self._outcomes.interrupt(parcel)
            elif ours:
                self._again(parcel, 0)
            elif failure.transient and self._may_repeat(parcel):
                self._outcomes.summary.retried += 1
                parcel.again()
                self._group.suspect(parcel)
            else:
                self._outcomes.count(parcel.item, parcel, error=str(failure))
        if ours or (sender.end in ("closed", "pdu") and not lost and sender.answered):
            # A file of ours failed; or the peer left when it owed us nothing, as it may.
            return End(None, sender.answered)
        return End(failure, sender.answered, suspects, known)

    async def _batches(self, sender: Sender[File], batch: list[FileParcel]) -> None:
        group, source = self._group, self._source
        window = self._association.window
        size = max(FIRST_BATCH, window)
        while not self._news.interrupts:
            # Between messages the peer may leave, and should not be sent the next one then.
            sender.look()
            if sender.end:
                break
            batch += group.take(size - len(batch))
            batch = batch or group.take_suspect()
            if batch:
                self._news.tell()
            batch, late = self._sendable(batch)
            if batch:
                alone = group.is_suspect(batch[0])
                if alone:
                    await self._in_thread(sender, sender.finish)
                began = time.monotonic()
                begun = await self._in_thread(sender, sender.run, batch)
                group.give_back(batch[begun:])
                batch = []
                if alone:
                    await self._in_thread(sender, sender.finish)
                self._account(sender)
                pace = _BATCH_S / max(time.monotonic() - began, 1e-6)
                size = max(1, min(_LARGEST_BATCH, int(size * min(pace, 4.0))))
                size = max(size, min(window, _LARGEST_BATCH))
                continue
            await self._in_thread(sender, sender.finish)
            self._account(sender)
            if late:
                break
            await self._news.until(
                lambda: source.anything_ready() or (source.complete and group.finished),
                group.wait_s(),
            )
            if group.wait_s() != 0 and (group.finished or source.anything_ready()):
                break
        group.give_back(batch)
        await self._in_thread(sender, sender.finish)
        self._account(sender)

    async def _in_thread(
        self, sender: Sender[File], call: Callable[..., _T], *arguments: list[FileParcel]
    ) -> _T:
        """What it returns. If cancelled, it is broken off; what it has done counts all the same.

        Whoever cancels has interrupted the run: nothing more is begun afterwards.
        """
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, call, *arguments)
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                sender.stop()
                sender.break_off()
        return running.result()

    def _sendable(self, taken: list[FileParcel]) -> tuple[list[FileParcel], bool]:
        """Those that this association carries, and whether others need a context it has not.

        These are given back: they may wait until nothing else is left, and share the next one.
        """
        association = self._association
        last = 2 * (len(association.contexts) + len(association.refused))
        late = [parcel for parcel in taken if parcel.context_id > last]
        if late:
            self._group.give_back(late)
            taken = [parcel for parcel in taken if parcel.context_id <= last]
        return [parcel for parcel in taken if self._acceptable(parcel)], bool(late)

    def _acceptable(self, parcel: FileParcel) -> bool:
        """Whether the peer accepted its context; counts a parcel that the peer did not."""
        if parcel.context_id in self._association.contexts:
            return True
        refused = self._association.refused
        self._outcomes.refuse(parcel, next(one for one in refused if one.id == parcel.context_id))
        return False

    def _conclude(self, sender: Sender[File]) -> PeerError | None:
        """Tell the link how the sender's part ended; returns it as an error, None if well."""
        link = self._association.link
        number, text, pdu = sender.detail
        why: PeerError
        match sender.end:
            case "":
                return link.failure
            case "pdu":
                link.data_received(pdu)
                return link.failure or link.give_up(ProtocolViolation("unexpected PDU"))
            case "broken":
                why = ProtocolViolation(text)
            case "file":
                why = UnusableInstance(
                    f"a file failed while it was being sent ({os.strerror(number)}); "
                    "association aborted"
                )
                why.transient = True
            case "response timeout":
                why = PeerTimeout("answer", self._timeouts.response)
            case "send timeout":
                why = PeerTimeout("take our data", self._timeouts.send)
            case _:
                when = "inside a message" if sender.mid_message else "while a response was due"
                why = ConnectionLost(when, os.strerror(number) if number else "")
        why = link.give_up(why)
        if sender.end in ("closed", "send timeout"):
            # An abort has no way to the peer.
            link.transport.abort()
        return why

    def _account(self, sender: Sender[File]) -> None:
        """Count what has an outcome, or put it back to be tried again."""
        outcomes = self._outcomes
        summary = outcomes.summary
        plain = summary.report is None
        for parcel in sender.take_done():
            if parcel.error:
                outcomes.count(parcel.item, parcel, error=file_error(parcel))
            elif parcel.status == codes.SUCCESS and plain:
                summary.stored_plainly(parcel.size)
            elif (
                codes.OUT_OF_RESOURCES <= parcel.status <= codes.OUT_OF_RESOURCES_LAST
                and self._may_repeat(parcel)
            ):
                self._again(parcel, back_off(parcel.attempts))
            else:
                outcomes.count(parcel.item, parcel)
        self._counted = sender.answered

    def _may_repeat(self, parcel: FileParcel) -> bool:
        return parcel.attempts <= self._retries and not self._news.interrupts

    def _again(self, parcel: FileParcel, delay: float) -> None:
        self._outcomes.summary.retried += 1
        self._outcomes.put_off(parcel)
        parcel.again()
        self._group.put_off(parcel, delay)


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures, one after the other."""
    return min(_FIRST_BACK_OFF_S * 2.0 ** (failures - 1), _LONGEST_BACK_OFF_S)

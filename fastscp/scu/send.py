"""Sending many instances: which contexts, over how many associations, and what to try again.

Theory of operation: the files' heads tell which presentation contexts are needed. At most 128 fit
an association, so they are dealt into groups, and each group has a queue. Every association works
on one queue at a time and moves its messages in the codec (`Sender`), a batch at a time in a thread
of its own; between batches the event loop counts, reports and decides what goes back to the queue.
An instance is tried again after a lost connection and after A7xx; nothing else would end otherwise
the next time. Instances that no association can take any more fail with what stopped the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import logging
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fastscp.log import printable
from fastscp.scu.association import (
    MAX_CONTEXTS,
    Association,
    Priority,
    Timeouts,
    associate,
    store_command,
)
from fastscp.scu.errors import (
    AssociationRejected,
    ConnectionFailed,
    ConnectionLost,
    ContextRefused,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
)
from fastscp.scu.fresh import UidPlace, fresh_uid, uid_places
from fastscp_ext import Parcel, Sender, decode_command, encode_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from fastscp.scu.heads import Head
    from fastscp.scu.outcome import Summary
    from fastscp_ext import UserIdentity

__all__ = ["Options", "Shipment"]

log = logging.getLogger("fastscp.send")

# A batch should take about so long: short enough to share work and to count, long enough that the
# hop between thread and loop does not show.
_BATCH_S: Final = 0.1
_LARGEST_BATCH: Final = 512
_FIRST_BACK_OFF_S: Final = 0.5
_LONGEST_BACK_OFF_S: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to send. See the options of `fastscp send`."""

    host: str
    port: int
    called_ae: str = "ANY-SCP"
    calling_ae: str = "FASTSCP"
    associations: int = 1
    window: int = 1
    max_pdu_length: int = 131072
    priority: Priority = Priority.MEDIUM
    move_originator: tuple[str, int] | None = None
    retries: int = 3
    repeat: int = 1
    new_uids: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: ssl.SSLContext | None = None
    identity: UserIdentity | None = None


@dataclass(slots=True, eq=False)
class _Item:
    """A file to be sent; `command` and `places` are made when they are first needed."""

    path: str
    head: Head
    context_id: int
    command: bytes = b""
    places: tuple[UidPlace, ...] | None = None


_Parcel: TypeAlias = "Parcel[_Item]"


class _Group:
    """The instances that share a set of presentation contexts, and those to be tried again."""

    def __init__(self, contexts: Sequence[tuple[str, str]]) -> None:
        self.contexts = [(abstract, (syntax,)) for abstract, syntax in contexts]
        self.items: list[_Item] = []
        self.workers = 0
        self._fresh: Iterator[_Parcel] = iter(())
        self._returned: deque[_Parcel] = deque()
        self._later: list[tuple[float, int, _Parcel]] = []
        self._number = 0
        self.exhausted = False

    def begin(self, parcels: Iterator[_Parcel]) -> None:
        self._fresh = parcels

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be taken, now or later."""
        return self.exhausted and not self._returned and not self._later

    def take(self, most: int) -> list[_Parcel]:
        """Up to so many parcels whose time has come."""
        taken: list[_Parcel] = []
        now = time.monotonic()
        while self._later and len(taken) < most and self._later[0][0] <= now:
            taken.append(heapq.heappop(self._later)[2])
        while self._returned and len(taken) < most:
            taken.append(self._returned.popleft())
        while not self.exhausted and len(taken) < most:
            parcel = next(self._fresh, None)
            if parcel is None:
                self.exhausted = True
            else:
                taken.append(parcel)
        return taken

    def give_back(self, parcels: Sequence[_Parcel]) -> None:
        """Parcels that were taken and not sent, to be next again."""
        self._returned.extendleft(reversed(parcels))

    def put_off(self, parcel: _Parcel, seconds: float) -> None:
        """To be tried again, but not at once."""
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._number, parcel))

    def wait_s(self) -> float | None:
        """Until the next parcel's time comes; None if none waits."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def clear(self) -> Iterator[_Parcel]:
        """All that is left, for who gives up on it."""
        yield from self._returned
        self._returned.clear()
        while self._later:
            yield heapq.heappop(self._later)[2]
        if not self.exhausted:
            self.exhausted = True
            yield from self._fresh


class Shipment:
    """One run of `fastscp send`. summary: takes every outcome. say: a line for people."""

    def __init__(
        self,
        options: Options,
        files: Sequence[tuple[str, Head]],
        summary: Summary,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._summary = summary
        self._say = say
        self._seed = os.urandom(32)
        self._said: set[str] = set()
        self._commands: dict[tuple[str, int], bytes] = {}
        self._senders: dict[Sender[_Item], int] = {}
        self._interrupts = 0
        self._wake = asyncio.Event()
        self._sent_before = 0
        self._pool: ThreadPoolExecutor | None = None
        self._groups = self._dealt(files)
        self.instances = len(files) * options.repeat
        self.bytes = sum(head.size for _, head in files) * options.repeat

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the system so far, by all associations."""
        return self._sent_before + sum(sender.sent_bytes for sender in self._senders)

    @property
    def answered(self) -> int:
        """Instances with an outcome, those that are not yet counted included."""
        summary = self._summary
        waiting = sum(sender.answered - seen for sender, seen in self._senders.items())
        return summary.stored + summary.warned + summary.failed + waiting

    def interrupt(self) -> None:
        """Finish what is on its way and release; asked again, break off."""
        self._interrupts += 1
        self._summary.interrupted = True
        self._wake.set()
        for sender in self._senders:
            sender.stop()
            if self._interrupts > 1:
                sender.break_off()

    async def run(self) -> None:
        """Send everything; returns when every instance has its outcome, or after `interrupt`."""
        began = time.monotonic()
        number = self._options.associations
        # One thread per association: the default pool is smaller than some wish to test with.
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="send")
        try:
            await asyncio.gather(*(self._work() for _ in range(number)))
        finally:
            for sender in self._senders:
                sender.break_off()
            self._pool.shutdown()
            self._summary.seconds = time.monotonic() - began

    # Work ----------------------------------------------------------------------------------------

    def _dealt(self, files: Sequence[tuple[str, Head]]) -> list[_Group]:
        """The files in groups of at most 128 contexts, in the order of their first appearance."""
        needed = dict.fromkeys((head.sop_class, head.transfer_syntax) for _, head in files)
        pairs = list(needed)
        groups: list[_Group] = []
        place: dict[tuple[str, str], tuple[_Group, int]] = {}
        for at in range(0, len(pairs), MAX_CONTEXTS):
            group = _Group(pairs[at : at + MAX_CONTEXTS])
            groups.append(group)
            for number, pair in enumerate(pairs[at : at + MAX_CONTEXTS]):
                place[pair] = (group, 2 * number + 1)
        for path, head in files:
            group, context_id = place[head.sop_class, head.transfer_syntax]
            group.items.append(_Item(path, head, context_id))
        for group in groups:
            group.begin(self._parcels(group.items))
        return groups

    def _parcels(self, items: list[_Item]) -> Iterator[_Parcel]:
        for round_number in range(self._options.repeat):
            for item in items:
                try:
                    yield self._parcel(item, round_number)
                except (UnusableInstance, OSError) as error:
                    why = str(error) if isinstance(error, UnusableInstance) else error.strerror
                    self._count(item, error=why or "")

    def _parcel(self, item: _Item, round_number: int) -> _Parcel:
        head, options = item.head, self._options
        patches: tuple[tuple[int, bytes], ...] = ()
        if options.new_uids:
            command, patches = self._renamed(item, round_number)
        else:
            command = item.command = item.command or self._command(head)
        return Parcel(
            item, os.fsencode(item.path), command, item.context_id, head.offset, head.size, patches
        )

    def _command(self, head: Head) -> bytes:
        """The command set of an instance; those of a class differ in nothing but their UIDs."""
        key = (head.sop_class, len(head.sop_instance))
        template = self._commands.get(key)
        if template is None:
            stand_in = "?" * len(head.sop_instance)
            options = self._options
            template = encode_command(
                store_command(
                    0, head.sop_class, stand_in, options.priority, options.move_originator
                )
            )
            self._commands[key] = template
        own = head.sop_instance.encode("latin-1")
        return template.replace(b"?" * len(own), own, 1)

    def _renamed(
        self, item: _Item, round_number: int
    ) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """Command and patches of an instance that nobody has seen before.

        Instances of one series stay in one series, in each round another.
        """
        if item.places is None:
            item.places = uid_places(item.path, item.head)
        seed = self._seed + round_number.to_bytes(8)
        fresh = {uid: fresh_uid(uid, seed) for uid in {place.uid for place in item.places}}
        own = item.head.sop_instance
        renamed = fresh.get(own) or fresh_uid(own, seed)
        return (
            self._command(item.head._replace(sop_instance=renamed)),
            tuple((place.at, fresh[place.uid].encode()) for place in item.places),
        )

    async def _work(self) -> None:
        """One association after the other, as long as there is anything to send."""
        failures = 0
        while (group := self._choose()) is not None:
            group.workers += 1
            try:
                why, useful = await self._associate(group)
            finally:
                group.workers -= 1
            if useful:
                failures = 0
            if why is None:
                continue
            failures += 1
            if not why.transient or failures > self._options.retries:
                if group.workers:
                    # The others have the association that this one was not given.
                    self._say(f"going on with fewer associations: {why}")
                    return
                lasting = isinstance(why, (ConnectionFailed, AssociationRejected))
                for lost in self._groups if lasting else [group]:
                    self._abandon(lost, why)
                failures = 0
                continue
            if group.finished:
                continue
            delay = _back_off(failures)
            self._say(f"{why}; trying again in {delay:g} s")
            await self._sleep(delay)

    def _choose(self) -> _Group | None:
        """The group with the fewest workers that has work left."""
        if self._interrupts:
            return None
        left = [group for group in self._groups if not group.finished]
        return min(left, key=lambda group: group.workers, default=None)

    async def _associate(self, group: _Group) -> tuple[PeerError | None, bool]:
        """One association's life; returns what ended it before its time, and if it was of use."""
        options = self._options
        try:
            association = await associate(
                options.host,
                options.port,
                group.contexts,
                calling_ae=options.calling_ae,
                called_ae=options.called_ae,
                max_pdu_length=options.max_pdu_length,
                window=options.window,
                timeouts=options.timeouts,
                tls=options.tls,
                identity=options.identity,
            )
        except PeerError as error:
            return error, False
        self._summary.associations += 1
        if association.window < options.window:
            log.info("the peer allows %d outstanding operations", association.window)
        try:
            failure, answered = await self._move(association, group)
            if failure is None:
                await association.release()
            return failure, answered > 0
        except PeerError as error:
            # Every instance has its response: how the association ends matters to nobody.
            log.info("at the end of an association: %s", error)
            return None, True
        finally:
            await association.abort()

    async def _move(self, association: Association, group: _Group) -> tuple[PeerError | None, int]:
        """Send from the group's queue until it is empty.

        Returns what ended it earlier, and the number of responses.
        """
        timeouts = self._options.timeouts
        link = association.link
        async with link.lend() as fd:
            sender: Sender[_Item] = Sender(
                fd,
                association.fragment_bytes,
                association.window,
                timeouts.send,
                timeouts.response,
            )
            self._senders[sender] = 0
            try:
                await self._batches(sender, association, group)
            except BaseException:
                sender.stop()
                sender.break_off()
                raise
            finally:
                del self._senders[sender]
                self._sent_before += sender.sent_bytes
        failure = self._conclude(sender, association)
        for parcel in sender.unanswered:
            assert failure is not None  # noqa: S101 - nothing else leaves them unanswered
            if parcel.error:
                self._count(parcel.item, parcel, error=os.strerror(parcel.error))
            elif failure.transient and parcel.attempts <= self._options.retries:
                self._again(group, parcel, 0)
            else:
                self._count(parcel.item, parcel, error=str(failure))
        return failure, sender.answered

    async def _batches(
        self, sender: Sender[_Item], association: Association, group: _Group
    ) -> None:
        loop = asyncio.get_running_loop()
        size = max(8, association.window)
        while not sender.end and not self._interrupts:
            batch = [parcel for parcel in group.take(size) if self._acceptable(parcel, association)]
            if not batch:
                await loop.run_in_executor(self._pool, sender.finish)
                self._account(sender, group)
                wait = group.wait_s()
                if sender.end or (wait is None and group.finished):
                    return
                if wait:
                    await self._sleep(wait)
                continue
            began = time.monotonic()
            begun = await loop.run_in_executor(self._pool, sender.run, batch)
            group.give_back(batch[begun:])
            self._account(sender, group)
            pace = _BATCH_S / max(time.monotonic() - began, 1e-6)
            size = max(1, min(_LARGEST_BATCH, int(size * min(pace, 4.0))))
            size = max(size, min(association.window, _LARGEST_BATCH))
        await loop.run_in_executor(self._pool, sender.finish)
        self._account(sender, group)

    def _acceptable(self, parcel: _Parcel, association: Association) -> bool:
        if parcel.context_id in association.contexts:
            return True
        refused = next(one for one in association.refused if one.id == parcel.context_id)
        syntax = refused.transfer_syntaxes[0]
        why = str(ContextRefused(refused.abstract_syntax, syntax, refused.result))
        self._count(parcel.item, parcel, error=why, quiet=True)
        if why not in self._said:
            # Once: it is the same for every instance of the kind.
            self._said.add(why)
            self._say(why)
        return False

    def _conclude(self, sender: Sender[_Item], association: Association) -> PeerError | None:
        """Tell the link how the sender's part ended; returns it as an error, None if well."""
        link = association.link
        number, text, pdu = sender.detail
        timeouts = self._options.timeouts
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
                why = PeerTimeout("answer", timeouts.response)
            case "send timeout":
                why = PeerTimeout("take our data", timeouts.send)
            case _:
                when = "inside a message" if sender.mid_message else "while a response was due"
                why = ConnectionLost(when, os.strerror(number) if number else "")
        why = link.give_up(why)
        if sender.end in ("closed", "send timeout"):
            # An abort has no way to the peer.
            link.transport.abort()
        return why

    # Outcomes ------------------------------------------------------------------------------------

    def _account(self, sender: Sender[_Item], group: _Group) -> None:
        """Count what has an outcome, or put it back to be tried again."""
        summary = self._summary
        plain = summary.report is None
        for parcel in sender.take_done():
            if parcel.status == 0 and plain:
                summary.stored_plainly(parcel.size)
            elif parcel.error:
                self._count(parcel.item, parcel, error=f"cannot be read: {_file_error(parcel)}")
            elif 0xA700 <= parcel.status <= 0xA7FF and parcel.attempts <= self._options.retries:
                self._again(group, parcel, _back_off(parcel.attempts))
            else:
                self._count(parcel.item, parcel)
        self._senders[sender] = sender.answered

    def _again(self, group: _Group, parcel: _Parcel, delay: float) -> None:
        self._summary.retried += 1
        parcel.again()
        group.put_off(parcel, delay)

    def _abandon(self, group: _Group, why: PeerError) -> None:
        lost = 0
        for parcel in group.clear():
            self._count(parcel.item, parcel, error=str(why), quiet=True)
            lost += 1
        if lost:
            self._say(f"{lost} instances were not sent: {why}")

    def _count(
        self,
        item: _Item,
        parcel: _Parcel | None = None,
        *,
        error: str = "",
        quiet: bool = False,
    ) -> None:
        answered = parcel is not None and parcel.status >= 0
        said = self._summary.add(
            self._summary.outcome(
                item.path,
                item.head,
                status=parcel.status if parcel is not None and answered else None,
                command=parcel.response if parcel is not None else None,
                nanoseconds=parcel.nanoseconds if parcel is not None else 0,
                attempts=parcel.attempts if parcel is not None else 0,
                error=error,
                sop_instance=_sent_uid(parcel) if parcel is not None else "",
            )
        )
        if said is not None and not quiet:
            self._say(printable(said))

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless an interruption comes first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


def _back_off(failures: int) -> float:
    return min(_FIRST_BACK_OFF_S * 2.0 ** (failures - 1), _LONGEST_BACK_OFF_S)


def _file_error(parcel: _Parcel) -> str:
    if parcel.error == errno.EIO:
        return "it is shorter than it was, or the disk failed"
    return os.strerror(parcel.error)


def _sent_uid(parcel: _Parcel) -> str:
    """Under --new-uids not that of the file."""
    return decode_command(parcel.command).affected_sop_instance_uid or ""

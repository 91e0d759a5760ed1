"""Sending many instances: which contexts, over how many associations, and what to try again.

Theory of operation: the files' heads tell which presentation contexts are needed. At most 128 fit
an association, so they are dealt into groups, and each group has a queue. Every association works
on one queue at a time and moves its messages in the codec (`Sender`), a batch at a time in a thread
of its own; between batches the event loop counts, reports and decides what goes back to the queue.
Meanwhile the rest of a large collection is looked at, a bounded number of files ahead. A context
that turns up after an association was opened is none of its own: when nothing but such instances
is next, the association is released, and opened again with all contexts that are known by then.
An instance is tried again after a lost connection and after A7xx; nothing else would end otherwise
the next time. A worker whose association cannot be had gives up, unless it is the last: then the
instances that are left fail with what stopped it.
Interrupted, nothing more is begun; interrupted again, connections are cut, and whatever has been
sent and not answered fails. Nobody waits for the disk that files are looked for on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

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
from fastscp.scu.files import File, Found
from fastscp.scu.fresh import UidPlace, fresh_uid, uid_places
from fastscp.scu.group import FileParcel, Group
from fastscp_ext import Parcel, Sender, decode_command, encode_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from fastscp.scu.files import Finder
    from fastscp.scu.heads import Head
    from fastscp.scu.outcome import Summary
    from fastscp_ext import UserIdentity

__all__ = ["Options", "Shipment"]

log = logging.getLogger("fastscp.send")

_T = TypeVar("_T")

# Taken from the queue before there is an association to carry them.
_FIRST_BATCH: Final = 8
# A batch should take about so long: short enough to share work and to count, long enough that the
# hop between thread and loop does not show.
_BATCH_S: Final = 0.1
_LARGEST_BATCH: Final = 512
# Files looked at with one hop between thread and loop, and how many may wait to be sent: enough to
# know contexts early, for some 20 MB.
_LOOK_FILES: Final = 1024
_LOOK_S: Final = 0.1
_LOOK_AHEAD: Final = 50_000
_FIRST_BACK_OFF_S: Final = 0.5
_LONGEST_BACK_OFF_S: Final = 30.0
_INTERRUPTED: Final = "interrupted"


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


class Shipment:
    """One run of `fastscp send`.

    found: what `finder` has found so far; the rest is looked for while sending. summary: takes
    every outcome. say: a line for people. instances: to be sent, as far as they are known;
    `complete` says whether all are.
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
        self._finder = finder
        self._summary = summary
        self._say = say
        self._seed = os.urandom(32)
        self._said: set[str] = set()
        self._commands: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self._places: dict[bytes, tuple[UidPlace, ...]] = {}
        self._senders: dict[Sender[File], int] = {}
        self._interrupts = 0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._workers = options.associations
        self._sent_before = 0
        self._pool: ThreadPoolExecutor | None = None
        self._groups: list[Group] = []
        self._contexts: dict[tuple[str, str], tuple[Group, int]] = {}
        self._hopeless: PeerError | None = None
        self._lost: Counter[str] = Counter()
        self.instances = 0
        self.complete = finder.complete
        self._take_in(found)

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
        self._tell()
        for sender in self._senders:
            sender.stop()
        if self._interrupts > 1:
            self._break_off()

    def _break_off(self) -> None:
        """Cut every connection, and leave off whatever else is waited for."""
        self._interrupts = max(2, self._interrupts)
        for sender in self._senders:
            sender.stop()
            sender.break_off()
        for task in self._tasks:
            task.cancel()

    async def run(self) -> None:
        """Send everything; returns when every instance has its outcome, or after `interrupt`."""
        began = time.monotonic()
        # One thread per association: the default pool is smaller than some wish to test with.
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="send")
        works = (self._look_ahead(), *(self._work() for _ in range(self._workers)))
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
        for parcel in (parcel for group in self._groups for parcel in group.tried()):
            self._count(parcel.item, parcel, error=_INTERRUPTED)
        for why, lost in self._lost.items():
            self._say(f"{lost} instances were not sent: {why}")

    # Work ----------------------------------------------------------------------------------------

    async def _look_ahead(self) -> None:
        """Take in what is found, so far ahead as is good, until there is no more."""
        loop = asyncio.get_running_loop()
        while not self.complete:
            await self._until(lambda: sum(group.fresh for group in self._groups) < _LOOK_AHEAD)
            if self._interrupts:
                return
            found = loop.create_future()
            # No thread of a pool: a disk may hang, and nobody waits for the end of this one.
            threading.Thread(target=self._look, args=(found,), daemon=True).start()
            await self._until(found.done)
            if not found.done():
                return
            self._take_in(found.result())
            self.complete = self._finder.complete
            self._tell()

    def _look(self, looked: asyncio.Future[Found]) -> None:
        """Look for more files, in a thread of its own."""
        found = Found()
        problem: Exception | None = None
        try:
            self._finder.look(found, _LOOK_FILES, _LOOK_S)
        except Exception as error:
            problem = error

        def deliver() -> None:
            if problem is None:
                looked.set_result(found)
            else:
                looked.set_exception(problem)
            self._tell()

        # After an interruption there is no loop any more.
        with contextlib.suppress(RuntimeError):
            looked.get_loop().call_soon_threadsafe(deliver)

    def _take_in(self, found: Found) -> None:
        """Count the files that are none, and deal the others to their groups."""
        summary = self._summary
        summary.skipped += found.skipped
        for path, why in found.failed:
            said = summary.add(summary.outcome(path, None, error=why))
            if said is not None:
                self._say(printable(said))
        for file in found.files:
            head = file[1]
            place = self._contexts.get((head.sop_class, head.transfer_syntax))
            group = self._new_context(head) if place is None else place[0]
            if group.abandoned is None:
                group.add(file)
            else:
                self._lose(file, None, group.abandoned)
        self.instances += len(found.failed) + len(found.files) * self._options.repeat
        # Whoever still holds it shall not keep them in memory.
        found.files.clear()
        found.failed.clear()

    def _new_context(self, head: Head) -> Group:
        """Give a context to its group: the last one, if there is room, or a new one."""
        if not self._groups or len(self._groups[-1].contexts) == MAX_CONTEXTS:
            self._groups.append(Group(self._options.repeat, self._parcel))
            self._groups[-1].abandoned = self._hopeless
        group = self._groups[-1]
        context_id = 2 * len(group.contexts) + 1
        self._contexts[head.sop_class, head.transfer_syntax] = (group, context_id)
        group.contexts.append((head.sop_class, (head.transfer_syntax,)))
        return group

    def _parcel(self, file: File, round_number: int) -> FileParcel | None:
        path, head = file
        patches: tuple[tuple[int, bytes], ...] = ()
        if self._options.new_uids:
            try:
                command, patches = self._renamed(file, round_number)
            except (UnusableInstance, OSError) as error:
                why = str(error) if isinstance(error, UnusableInstance) else error.strerror
                self._count(file, error=why or "")
                return None
        else:
            command = self._command(head.sop_class, head.sop_instance)
        context_id = self._contexts[head.sop_class, head.transfer_syntax][1]
        return Parcel(
            file, path, command, context_id, head.offset, head.size, patches, head.modified_ns
        )

    def _command(self, sop_class: str, sop_instance: str) -> bytes:
        """The command set of an instance; those of a class differ in nothing but their UIDs."""
        key = (sop_class, len(sop_instance))
        around = self._commands.get(key)
        if around is None:
            stand_in = "?" * len(sop_instance)
            options = self._options
            command = encode_command(
                store_command(0, sop_class, stand_in, options.priority, options.move_originator)
            )
            before, _, after = command.partition(stand_in.encode())
            around = self._commands[key] = (before, after)
        return around[0] + sop_instance.encode("latin-1") + around[1]

    def _renamed(
        self, file: File, round_number: int
    ) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """Command and patches of an instance that nobody has seen before.

        Instances of one series stay in one series, in each round another.
        """
        path, head = file
        places = self._places.get(path)
        if places is None:
            places = uid_places(path, head)
            if self._options.repeat > 1:
                self._places[path] = places
        seed = self._seed + round_number.to_bytes(8)
        fresh = {uid: fresh_uid(uid, seed) for uid in {place.uid for place in places}}
        own = head.sop_instance
        renamed = fresh.get(own) or fresh_uid(own, seed)
        return (
            self._command(head.sop_class, renamed),
            tuple((place.at, fresh[place.uid].encode()) for place in places),
        )

    async def _work(self) -> None:
        """One association after the other, as long as there is anything to send."""
        failures = 0
        while (group := await self._choose()) is not None:
            # Taken before the association is there, or others would open theirs for the same.
            batch = group.take(_FIRST_BATCH)
            self._tell()
            if not batch:
                continue
            group.workers += 1
            try:
                why, useful = await self._associate(group, batch)
            finally:
                group.workers -= 1
                self._tell()
            if useful:
                failures = 0
            if why is None or group.finished or self._interrupts:
                continue
            failures += 1
            if why.transient and failures <= self._options.retries:
                delay = _back_off(failures)
                self._say(f"{why}; trying again in {delay:g} s")
                await self._until(self._over, delay)
            elif self._workers > 1:
                # The others have the association that this one was not given, or will be the last.
                self._workers -= 1
                self._say(f"going on with fewer associations: {why}")
                return
            else:
                lasting = isinstance(why, (ConnectionFailed, AssociationRejected))
                if lasting:
                    self._hopeless = why
                for lost in self._groups if lasting else [group]:
                    self._abandon(lost, why)
                failures = 0

    async def _choose(self) -> Group | None:
        """The group with the fewest workers that has something to send; waits for one.

        None once all is over: as long as others are at work, something may come back.
        """
        while not self._interrupts:
            ready = self._ready()
            if ready:
                return min(ready, key=lambda group: group.workers)
            if self._over():
                return None
            waits = (group.wait_s() for group in self._groups)
            soonest = min((wait for wait in waits if wait is not None), default=None)
            await self._until(lambda: bool(self._ready()) or self._over(), soonest)
        return None

    def _ready(self) -> list[Group]:
        return [group for group in self._groups if group.wait_s() == 0]

    def _over(self) -> bool:
        return self.complete and all(group.finished and not group.workers for group in self._groups)

    async def _associate(
        self, group: Group, batch: list[FileParcel]
    ) -> tuple[PeerError | None, bool]:
        """One association's life; returns what ended it before its time, and if it was of use.

        batch: what is sent first.
        """
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
        except BaseException as error:
            group.give_back(batch)
            if isinstance(error, PeerError):
                return error, False
            raise
        self._summary.associations += 1
        if association.window < options.window:
            log.info("the peer allows %d outstanding operations", association.window)
        try:
            failure, answered = await self._move(association, group, batch)
            if association.failure is None:
                try:
                    await association.release()
                except PeerError as error:
                    # Every instance has its response: how it ends matters to nobody.
                    log.info("at the end of an association: %s", error)
            return failure, answered > 0
        finally:
            await association.abort()

    async def _move(
        self, association: Association, group: Group, batch: list[FileParcel]
    ) -> tuple[PeerError | None, int]:
        """Send a batch, and from the group's queue until it is empty.

        Returns what ended it earlier, and the number of responses.
        """
        timeouts = self._options.timeouts
        link = association.link
        if link.failure is not None:
            # The end came right behind the acceptance.
            group.give_back(batch)
            return link.failure, 0
        async with link.lend() as fd:
            sender: Sender[File] = Sender(
                fd,
                association.fragment_bytes,
                association.window,
                timeouts.send,
                timeouts.response,
            )
            self._senders[sender] = 0
            try:
                await self._batches(sender, association, group, batch)
            finally:
                del self._senders[sender]
                self._sent_before += sender.sent_bytes
        failure = self._conclude(sender, association)
        lost = sender.unanswered
        ours = sender.end == "file"
        for parcel in lost:
            assert failure is not None  # noqa: S101 - nothing else leaves them unanswered
            if parcel.error:
                self._count(parcel.item, parcel, error=_file_error(parcel))
            elif self._interrupts > 1:
                self._count(parcel.item, parcel, error=_INTERRUPTED)
            elif ours or (failure.transient and self._may_repeat(parcel)):
                self._again(group, parcel, 0)
            else:
                self._count(parcel.item, parcel, error=str(failure))
        if ours or (sender.end in ("closed", "pdu") and not lost and sender.answered):
            # A file of ours failed; or the peer left when it owed us nothing, as it may.
            return None, sender.answered
        return failure, sender.answered

    async def _batches(
        self,
        sender: Sender[File],
        association: Association,
        group: Group,
        batch: list[FileParcel],
    ) -> None:
        size = max(_FIRST_BATCH, association.window)
        while not self._interrupts:
            # Between messages the peer may leave, and should not be sent the next one then.
            sender.look()
            if sender.end:
                break
            batch += group.take(size - len(batch))
            if batch:
                self._tell()
            batch, late = self._sendable(association, group, batch)
            if batch:
                began = time.monotonic()
                begun = await self._in_thread(sender, sender.run, batch)
                group.give_back(batch[begun:])
                batch = []
                self._account(sender, group)
                pace = _BATCH_S / max(time.monotonic() - began, 1e-6)
                size = max(1, min(_LARGEST_BATCH, int(size * min(pace, 4.0))))
                size = max(size, min(association.window, _LARGEST_BATCH))
                continue
            await self._in_thread(sender, sender.finish)
            self._account(sender, group)
            if late:
                break
            await self._until(
                lambda: bool(self._ready()) or (self.complete and group.finished), group.wait_s()
            )
            if group.wait_s() != 0 and (group.finished or self._ready()):
                break
        group.give_back(batch)
        await self._in_thread(sender, sender.finish)
        self._account(sender, group)

    async def _in_thread(
        self, sender: Sender[File], call: Callable[..., _T], *arguments: list[FileParcel]
    ) -> _T:
        """What it returns. Cancelled, it is broken off, and what it has done counts all the same.

        Nobody but `_break_off` cancels: nothing more is begun afterwards.
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

    def _sendable(
        self, association: Association, group: Group, taken: list[FileParcel]
    ) -> tuple[list[FileParcel], bool]:
        """Those that this association carries, and whether others need a context it has not.

        These are given back: they may wait until nothing else is left, and share the next one.
        """
        proposed = len(association.contexts) + len(association.refused)
        late = [parcel for parcel in taken if parcel.context_id > 2 * proposed]
        if late:
            group.give_back(late)
            taken = [parcel for parcel in taken if parcel.context_id <= 2 * proposed]
        return [parcel for parcel in taken if self._acceptable(parcel, association)], bool(late)

    def _acceptable(self, parcel: FileParcel, association: Association) -> bool:
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

    def _conclude(self, sender: Sender[File], association: Association) -> PeerError | None:
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

    def _account(self, sender: Sender[File], group: Group) -> None:
        """Count what has an outcome, or put it back to be tried again."""
        summary = self._summary
        plain = summary.report is None
        for parcel in sender.take_done():
            if parcel.error:
                self._count(parcel.item, parcel, error=_file_error(parcel))
            elif parcel.status == 0 and plain:
                summary.stored_plainly(parcel.size)
            elif 0xA700 <= parcel.status <= 0xA7FF and self._may_repeat(parcel):
                self._again(group, parcel, _back_off(parcel.attempts))
            else:
                self._count(parcel.item, parcel)
        self._senders[sender] = sender.answered

    def _may_repeat(self, parcel: FileParcel) -> bool:
        return parcel.attempts <= self._options.retries and not self._interrupts

    def _again(self, group: Group, parcel: FileParcel, delay: float) -> None:
        self._summary.retried += 1
        parcel.again()
        group.put_off(parcel, delay)

    def _abandon(self, group: Group, why: PeerError) -> None:
        group.abandoned = why
        for parcel in group.clear():
            self._lose(parcel.item, parcel, why)
        self._tell()

    def _lose(self, file: File, parcel: FileParcel | None, why: PeerError) -> None:
        self._count(file, parcel, error=str(why), quiet=True)
        self._lost[str(why)] += 1

    def _count(
        self,
        file: File,
        parcel: FileParcel | None = None,
        *,
        error: str = "",
        quiet: bool = False,
    ) -> None:
        answered = parcel is not None and parcel.status >= 0
        said = self._summary.add(
            self._summary.outcome(
                *file,
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

    def _tell(self) -> None:
        """Let whoever waits look again: files were found or taken, or it is over."""
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, true: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until it is true, so long at most, unless an interruption comes first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (true() or self._interrupts):
                    await self._news.wait()


def _back_off(failures: int) -> float:
    return min(_FIRST_BACK_OFF_S * 2.0 ** (failures - 1), _LONGEST_BACK_OFF_S)


def _file_error(parcel: FileParcel) -> str:
    if parcel.error == errno.ESTALE:
        return "it changed since it was looked at"
    return f"cannot be read: {os.strerror(parcel.error)}"


def _sent_uid(parcel: FileParcel) -> str:
    """Under --new-uids not that of the file."""
    return decode_command(parcel.command).affected_sop_instance_uid or ""

"""An established association: echo, store, release, abort.

Theory of operation: `store` and `echo` may be called from many tasks at once; as many operations
as the peer granted are outstanding, the rest wait. An instance is opened only when its turn is
near: `_AHEAD` of an association are open at a time, whatever the number of callers. It takes a turn
once it is open: instances whose files are slow are overtaken. Messages are never interleaved on the
wire, and responses may come in any order. The codec says what a response must be, for `fastscp
send` as well (`judge_response`). Whatever ends the association ends every operation with the same
typed error; where that was an operation of ours, it alone has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from fastscp import uids
from fastscp.scu import arguments
from fastscp.scu.commands import C_ECHO_RQ, C_STORE_RQ, Priority, Request
from fastscp.scu.contexts import answered, context_for
from fastscp.scu.errors import (
    AssociationReleased,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
    UsageError,
)
from fastscp.scu.fragments import batches, command_pdus
from fastscp.scu.opening import Instance, Source, check_source, open_instance
from fastscp.scu.response import Response
from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    CommandError,
    UserInformation,
    decode_command,
    judge_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from fastscp.scu.contexts import Context
    from fastscp.scu.link import Link
    from fastscp.scu.timeouts import Timeouts

__all__ = ["Association"]

# Larger PDUs than this gain nothing, whatever a peer may be able to take.
_LARGEST_PDU: Final = 262144
# The maximum length of a peer that announces none (PS3.8 D.1 knows no default; every peer takes
# it).
_UNSAID_PDU: Final = 16384
# A PDV's own six bytes; and no fragment is odd (PS3.8 Annex E), so the least room is for two more.
_PDV_HEADER: Final = 6
# Instances that are open at a time: the one being sent, and those whose heads are read meanwhile.
_AHEAD: Final = 4
# How long the end waits for operations that a disk may hold.
_OPERATIONS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Message:
    """A message about to be sent. instance: its data set, if there is one."""

    request: Request
    context_id: int
    instance: Instance | None


class Association:
    """An established association; `associate` makes one. Of one event loop, and one thread.

    contexts: accepted ones by id. refused: the others. max_pdu_length: the longest P-DATA-TF the
    peer takes, 0 without limit. window: operations that may be outstanding.
    implementation_class_uid, implementation_version_name, identity_response: what the peer said of
    itself, or None. `async with` releases it at the end of the block, and aborts it where the block
    ends with an exception, or with operations outstanding: it leaves nothing open.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     print(pacs.contexts[1].transfer_syntax, pacs.refused, pacs.window)
    1.2.840.10008.1.2.1 () 1
    """

    contexts: dict[int, Context]
    refused: tuple[Context, ...]
    max_pdu_length: int
    window: int
    implementation_class_uid: str | None
    implementation_version_name: str | None
    identity_response: bytes | None

    def __init__(self, link: Link, request: AssociateRQ, answer: AssociateAC, timeouts: Timeouts):
        information = answer.user_information or UserInformation()
        self._link = link
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Response]] = {}
        # Message id to Command Field, context and whether all of it is sent: what may be answered.
        self._due: dict[int, tuple[int, int, bool]] = {}
        self._sending = asyncio.Lock()
        self._ahead = asyncio.Semaphore(_AHEAD)
        # When the last response came.
        self._heard = 0.0
        self._operations = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._next_id = 0
        contexts = answered(request, answer)
        self.contexts = {one.id: one for one in contexts if one.result == 0}
        self.refused = tuple(one for one in contexts if one.result != 0)
        said = information.max_pdu_length
        self.max_pdu_length = _UNSAID_PDU if said is None else said
        self.fragment_bytes = (
            min(self.max_pdu_length or _LARGEST_PDU, _LARGEST_PDU) - _PDV_HEADER
        ) & ~1
        self.window = _granted(request, information)
        self._window = asyncio.Semaphore(self.window)
        self.implementation_class_uid = information.implementation_class_uid
        self.implementation_version_name = information.implementation_version_name
        self.identity_response = information.identity_response

    @property
    def link(self) -> Link:
        """The connection, for those who send by other means."""
        return self._link

    @property
    def failure(self) -> PeerError | None:
        """What ended the association; None while it lives."""
        return self._link.failure

    async def echo(self, *, message_id: int | None = None) -> Response:
        """Ask whether the peer is there (C-ECHO).

        message_id: any that is not outstanding; the next one if None. Raises UsageError,
        ContextRefused without an accepted context for Verification, and other PeerErrors, after
        which the association is over.

        >>> async with associate("pacs", 104) as pacs:
        ...     print(await pacs.echo())
        0000 success

        Source: PS3.7 9.3.5.
        """
        self._check("echo", message_id)
        context_id = context_for(self.contexts.values(), self.refused, uids.VERIFICATION, None)
        message = _Message(Request(C_ECHO_RQ, uids.VERIFICATION), context_id, None)
        return await self._perform(contextlib.nullcontext(message), message_id)

    async def store(
        self,
        source: Source,
        *,
        context_id: int | None = None,
        message_id: int | None = None,
        sop_class: str | None = None,
        sop_instance: str | None = None,
        priority: Priority = Priority.MEDIUM,
        move_originator_ae: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> Response:
        """Send an instance (C-STORE), its data set byte for byte as it is.

        source: the path or the bytes of a Part 10 file; bytes of a data set alone; or a pydicom
        Dataset, which is encoded. A file is opened when its turn is near, read in helper threads,
        and decompressed if it is one of ours (`.dcm.zst`). context_id: an accepted context; found
        by SOP class and transfer syntax if None. message_id: any that is not outstanding; the next
        one if None. sop_class (UID or keyword), sop_instance: for the command, instead of the data
        set's own. A response with a failure status is returned, not raised. Raises UsageError,
        ContextRefused, UnusableInstance and OSError, after which the association lives on unless
        its `failure` says otherwise, and other PeerErrors, after which it does not. If it is
        cancelled after its first byte was sent, or its file cannot be read any further, the
        association is aborted, and the others end with AssociationReleased.

        >>> contexts = [("CTImageStorage", ["ExplicitVRLittleEndian"])]
        >>> async with associate("pacs", 104, contexts) as pacs:
        ...     response = await pacs.store("image.dcm", priority=Priority.HIGH)
        ...     print(response.status, response.meaning, response.affected_sop_instance_uid)
        0 success 1.2.3.4

        Source: PS3.7 9.3.1.
        """
        self._check("store", message_id)
        check_source(source)
        if sop_class is not None:
            sop_class = arguments.sop_class_uid("sop_class", sop_class)
        if sop_instance is not None:
            sop_instance = arguments.sop_instance_uid(sop_instance)
        priority = arguments.priority(priority)
        originator = arguments.move_originator(move_originator_ae, move_originator_message_id)

        @contextlib.asynccontextmanager
        async def message() -> AsyncIterator[_Message]:
            async with self._ahead:
                # Those that waited until the end open nothing any more.
                self._link.check()
                instance = await open_instance(
                    source, self.contexts, context_id, sop_class, sop_instance
                )
                with contextlib.closing(instance):
                    head = instance.head
                    chosen = context_id or context_for(
                        self.contexts.values(), self.refused, head.sop_class, head.transfer_syntax
                    )
                    names = sop_class or head.sop_class, sop_instance or head.sop_instance
                    if not all(names):
                        missing = "Instance" if names[0] else "Class"
                        raise UnusableInstance(f"it has no SOP {missing} UID")
                    request = Request(C_STORE_RQ, *names, priority, originator)
                    yield _Message(request, chosen, instance)

        return await self._perform(message(), message_id)

    async def release(self) -> None:
        """Release the association and close the connection; `async with` does it by itself.

        Raises UsageError while operations are outstanding, or if it is over, and PeerError.

        >>> pacs = await associate("pacs", 104)
        >>> await pacs.release()
        >>> print(pacs.failure)
        the association was released

        Source: PS3.8 7.2.
        """
        self._check("release")
        if self._operations:
            raise UsageError(
                f"release with {self._operations} operations outstanding: await them first, or "
                f"abort"
            )
        self._leaving = True
        try:
            await self._link.release(self._timeouts.release)
        finally:
            await self._link.closed()

    async def abort(self) -> None:
        """Abort the association and close the connection; does nothing if it is over.

        Operations that are outstanding end with AssociationReleased.

        >>> pacs = await associate("pacs", 104)
        >>> await pacs.abort()

        Source: PS3.8 7.3.
        """
        self._link.give_up(AssociationReleased(by_peer=False))
        await self._link.closed()
        # Those that read a file may wait for its disk: not for long here.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPERATIONS_S):
                await self._idle.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._link.failure is None and not self._operations:
            await self.release()
        else:
            await self.abort()

    # Operations ----------------------------------------------------------------------------------

    def _check(self, what: str, message_id: int | None = None) -> None:
        """Raise for what cannot be done now: UsageError, or what ended the association."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(
                f"{what} in another event loop than the association's: open and use it inside the "
                f"same asyncio.run(); a script without asyncio has send_files"
            )
        failure = self._link.failure
        ours = isinstance(failure, AssociationReleased) and not (failure.by_peer or failure.why)
        if ours or (self._leaving and failure is None):
            raise UsageError(
                f"{what} on an association that is over, released or aborted here: open another "
                f"one with associate()"
            )
        self._link.check()
        if message_id is not None:
            arguments.whole(
                "message_id", message_id, 0, arguments.MESSAGE_ID_MOST, "one that is not in use"
            )
            self._check_free(message_id)

    def _check_free(self, message_id: int) -> None:
        if message_id in self._pending:
            raise UsageError(f"message {message_id} is outstanding: write another message_id")

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        self._operations += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._operations -= 1
            if not self._operations:
                self._idle.set()

    async def _perform(
        self,
        message: contextlib.AbstractAsyncContextManager[_Message],
        message_id: int | None,
    ) -> Response:
        """Send a message once the window allows, and wait for its response.

        message: entered first, so that one whose file is slow takes nobody's turn; it is left once
        all is sent.
        """
        with self._under_way():
            async with contextlib.AsyncExitStack() as sending:
                outgoing = await sending.enter_async_context(message)
                async with self._window:
                    await sending.enter_async_context(self._sending)
                    return await self._exchange(outgoing, message_id, sending)

    async def _exchange(
        self, message: _Message, message_id: int | None, sending: contextlib.AsyncExitStack
    ) -> Response:
        """Send it and wait. sending: what is to be left in between."""
        self._link.check()
        number = self._take_id(message_id)
        try:
            command = message.request.encode(number)
        except ValueError as error:
            raise UsageError(f"no command can hold this: {error}") from None
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._pending[number] = answer
        self._due[number] = message.request.command_field, message.context_id, False
        is_sent = False
        try:
            await self._send(number, message, command)
            is_sent = True
            await sending.aclose()
            return await self._answered(answer)
        except BaseException:
            if not is_sent:
                # Half a message is out: nothing else can follow it.
                why = "an instance was broken off while it was being sent"
                self._link.give_up(AssociationReleased(by_peer=False, why=why))
            elif answer.cancelled() or not answer.done():
                # Its response is still due, and must not be taken for that of a later message.
                why = "an operation was cancelled before its response"
                self._link.give_up(AssociationReleased(by_peer=False, why=why))
            raise
        finally:
            del self._pending[number]
            self._due.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()

    async def _answered(self, answer: asyncio.Future[Response]) -> Response:
        """Wait for a response. The peer has its time anew with each one that it sends."""
        limit = self._timeouts.response
        sent = self._loop.time()
        while (left := max(sent, self._heard) + limit - self._loop.time()) > 0:
            await asyncio.wait([answer], timeout=left)
            if answer.done():
                return answer.result()
        raise self._link.give_up(PeerTimeout("answer", limit))

    async def _send(self, number: int, message: _Message, command: bytes) -> None:
        """All of a message, in batches; the event loop has a turn between them."""
        size = self.fragment_bytes
        pdus = command_pdus(message.context_id, command, size)
        if message.instance is None:
            await self._push(number, pdus, is_last=True)
            return
        left = message.instance.head.size
        while left:
            piece = await message.instance.read(size)
            left -= len(piece)
            for more, is_last in batches(message.context_id, piece, size, is_last=not left):
                await self._push(number, pdus + more, is_last=is_last)
                pdus = []

    async def _push(self, number: int, pdus: list[bytes], *, is_last: bool) -> None:
        # Gone, it was refused already.
        if is_last and (due := self._due.get(number)):
            # Before it is waited for: the response may come as soon as the peer has it.
            self._due[number] = (*due[:2], True)
        await self._link.send_data(pdus, self._timeouts.send)
        if not is_last:
            await asyncio.sleep(0)

    def _take_id(self, wanted: int | None) -> int:
        if wanted is not None:
            self._check_free(wanted)
            return wanted
        while True:
            self._next_id = self._next_id % 0xFFFF + 1
            if self._next_id not in self._pending:
                return self._next_id

    def responded(self, context_id: int, command: bytes) -> None:
        """Take a command set from the link, and the presentation context that it came on."""
        try:
            message_id, _status = judge_response(command, context_id, self._due)
        except CommandError as error:
            self._link.give_up(ProtocolViolation(str(error)))
            return
        self._heard = self._loop.time()
        # A request that was answered is not due any more, even if it is still being sent.
        del self._due[message_id]
        answer = self._pending[message_id]
        if not answer.done():
            answer.set_result(Response.of(decode_command(command)))

    def ended(self, why: PeerError) -> None:
        """Take the end of the association from the link."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(why)


def _granted(request: AssociateRQ, information: UserInformation) -> int:
    """Operations that may be outstanding. Source: PS3.7 D.3.3.3."""
    asked = request.user_information.async_window if request.user_information else None
    if asked is None or information.async_window is None:
        return 1
    # 0 is without limit, which does not lift our own.
    return min(asked.max_invoked, information.async_window.max_invoked or asked.max_invoked)

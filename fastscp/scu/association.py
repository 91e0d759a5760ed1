"""An established association: echo, store, release, abort.

Theory of operation: `store` and `echo` may be called from many tasks at once; as many operations
as the peer granted are outstanding, the rest wait. Messages are never interleaved on the wire, and
responses may come in any order. The codec says what a response must be, for `fastscp send` as well
(`judge_response`). Whatever ends the association ends every operation with the same typed error.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from fastscp import uids
from fastscp.scu.commands import C_ECHO_RQ, C_STORE_RQ, Priority, Request
from fastscp.scu.contexts import answered, context_for
from fastscp.scu.errors import (
    AssociationReleased,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
)
from fastscp.scu.opening import Source, open_instance
from fastscp.scu.response import Response
from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    CommandError,
    UserInformation,
    decode_command,
    encode_pdata,
    judge_response,
)

if TYPE_CHECKING:
    import io
    from types import TracebackType

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
_READ_BYTES: Final = 1 << 20

# The data set of a message: a stream that stands at its beginning, and its bytes.
_Body: TypeAlias = "tuple[io.BufferedIOBase, int]"


class Association:
    """An established association; `associate` makes one. Not for several event loops.

    contexts: accepted ones by id. refused: the others. max_pdu_length: the longest P-DATA-TF the
    peer takes, 0 without limit. window: operations that may be outstanding.
    """

    def __init__(self, link: Link, request: AssociateRQ, answer: AssociateAC, timeouts: Timeouts):
        information = answer.user_information or UserInformation()
        self._link = link
        self._timeouts = timeouts
        self._pending: dict[int, asyncio.Future[Response]] = {}
        # Message id to Command Field, context and whether all of it is sent: what may be answered.
        self._due: dict[int, tuple[int, int, bool]] = {}
        self._sending = asyncio.Lock()
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
        """Ask whether the peer is there (C-ECHO). Raises PeerError.

        Source: PS3.7 9.3.5.
        """
        context_id = context_for(self.contexts.values(), self.refused, uids.VERIFICATION, None)
        return await self._perform(
            Request(C_ECHO_RQ, uids.VERIFICATION), context_id, message_id, None
        )

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
        Dataset, which is encoded. context_id: an accepted context; found by SOP class and transfer
        syntax if None. message_id: any that is not outstanding; the next one if None.
        sop_class, sop_instance: for the command, instead of the data set's own.
        A response with a failure status is returned, not raised. Raises ContextRefused,
        UnusableInstance and OSError, after which the association lives on, and other PeerErrors,
        after which it does not.
        Source: PS3.7 9.3.1.
        """
        if (move_originator_ae is None) != (move_originator_message_id is None):
            raise ValueError("a Move Originator has both an AE title and a message id")
        originator = (
            None
            if move_originator_ae is None or move_originator_message_id is None
            else (move_originator_ae, move_originator_message_id)
        )
        with contextlib.ExitStack() as undo:
            head, stream = await open_instance(source, self.contexts, context_id, undo)
            if context_id is None:
                context_id = context_for(
                    self.contexts.values(), self.refused, head.sop_class, head.transfer_syntax
                )
            elif context_id not in self.contexts:
                raise ValueError(f"presentation context {context_id} is not an accepted one")
            if sop_class is None:
                sop_class = head.sop_class
            if sop_instance is None:
                sop_instance = head.sop_instance
            if not sop_class or not sop_instance:
                raise UnusableInstance(f"it has no SOP {'Instance' if sop_class else 'Class'} UID")
            request = Request(C_STORE_RQ, sop_class, sop_instance, priority, originator)
            return await self._perform(request, context_id, message_id, (stream, head.size))

    async def release(self) -> None:
        """Release the association and close the connection. Raises PeerError.

        Not while operations are outstanding.
        """
        if self._pending:
            raise ValueError("operations are outstanding; await them, or abort")
        try:
            await self._link.release(self._timeouts.release)
        finally:
            await self._link.closed()

    async def abort(self) -> None:
        """Abort the association and close the connection; does nothing if it is over."""
        self._link.give_up(AssociationReleased(by_peer=False))
        await self._link.closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._link.failure is None and not self._pending:
            await self.release()
        else:
            await self.abort()

    # Operations ----------------------------------------------------------------------------------

    async def _perform(
        self,
        request: Request,
        context_id: int,
        message_id: int | None,
        body: _Body | None,
    ) -> Response:
        """Send a message once the window allows, and wait for its response."""
        if message_id is not None and message_id in self._pending:
            raise ValueError(f"message {message_id} is outstanding")
        async with self._window:
            self._link.check()
            message_id = self._take_id(message_id)
            command = request.encode(message_id)
            answer = asyncio.get_running_loop().create_future()
            self._pending[message_id] = answer
            begun = sent = False
            try:
                async with self._sending:
                    begun = True
                    self._due[message_id] = request.command_field, context_id, False
                    await self._send(message_id, context_id, command, body)
                    begun, sent = False, True
                async with asyncio.timeout(self._timeouts.response):
                    response: Response = await answer
                    return response
            except TimeoutError:
                silent = PeerTimeout("answer", self._timeouts.response)
                raise self._link.give_up(silent) from None
            except BaseException:
                if begun:
                    # Half a message is out: nothing else can follow it.
                    self._link.give_up(UnusableInstance("sending was broken off"))
                elif sent and answer.cancelled():
                    # Its response is still due, and must not be taken for that of a later message.
                    self._link.give_up(UnusableInstance("a response was not waited for"))
                raise
            finally:
                del self._pending[message_id]
                self._due.pop(message_id, None)
                if answer.done() and not answer.cancelled():
                    answer.exception()

    async def _send(
        self,
        message_id: int,
        context_id: int,
        command: bytes,
        body: _Body | None,
    ) -> None:
        async def fragment(control: int, piece: bytes, *, last: bool) -> None:
            pdu = encode_pdata([(context_id, control, piece)])
            # Gone, it was refused already.
            if last and (due := self._due.get(message_id)):
                # Before it is waited for: the response may come as soon as the peer has it.
                self._due[message_id] = (*due[:2], True)
            await self._link.send_data(pdu, self._timeouts.send)

        size = self.fragment_bytes
        for at in range(0, len(command), size):
            ends = at + size >= len(command)
            piece = command[at : at + size]
            await fragment(3 if ends else 1, piece, last=ends and body is None)
        if body is None:
            return
        stream, left = body
        chunk = b""
        while left:
            if len(chunk) < min(size, left):
                more = stream.read(min(max(_READ_BYTES, size), left - len(chunk)))
                if not more:
                    raise UnusableInstance("the file became shorter while it was being sent")
                chunk += more
                continue
            piece, chunk = chunk[:size], chunk[size:]
            left -= len(piece)
            await fragment(0 if left else 2, piece, last=not left)

    def _take_id(self, wanted: int | None) -> int:
        if wanted is not None:
            if wanted in self._pending:
                raise ValueError(f"message {wanted} is outstanding")
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

"""The Python API of the sending side: open an association, echo, store, release.

    async with await associate("pacs", 104, [(CT, [EXPLICIT])], called_ae="PACS") as association:
        response = await association.store("image.dcm")
        print(response)

Theory of operation: `store` and `echo` may be called from many tasks at once; as many operations
as the peer granted are outstanding, the rest wait. Messages are never interleaved on the wire, and
responses may come in any order. What a response must be, the codec says, for `fastscp send` as well
(`judge_response`). Whatever ends the association ends every operation with the same typed error.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import os
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from fastscp import status as codes
from fastscp import uids
from fastscp.scu.errors import (
    AssociationReleased,
    ConnectionFailed,
    ContextRefused,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
    UnusableInstance,
)
from fastscp.scu.heads import Head, is_part10, read_head_of, tap_identity
from fastscp.scu.link import Link, SeenPDU
from fastscp.status import StatusClass
from fastscp_ext import (
    AssociateAC,
    AssociateRQ,
    AsyncWindow,
    CommandError,
    CommandSet,
    PresentationContextRQ,
    UserIdentity,
    UserInformation,
    decode_command,
    encode_command,
    encode_pdata,
    judge_response,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from pydicom.dataset import Dataset

__all__ = [
    "Association",
    "Context",
    "Priority",
    "Response",
    "Timeouts",
    "associate",
    "jwt_identity",
    "password_identity",
    "store_command",
]

MAX_CONTEXTS: Final = 128
# Larger PDUs than this gain nothing, whatever a peer may be able to take.
LARGEST_PDU: Final = 262144
# What a peer takes that does not say (PS3.8 D.1 knows no default; every implementation takes it).
_UNSAID_PDU: Final = 16384
# A PDV's own six bytes; and no fragment is odd (PS3.8 Annex E), so the least room is for two more.
_PDV_HEADER: Final = 6
_READ_BYTES: Final = 1 << 20

_C_STORE_RQ: Final = 0x0001
_C_ECHO_RQ: Final = 0x0030
_NO_DATA_SET: Final = 0x0101
_DATA_SET: Final = 0x0001

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Dataset"


class Priority(IntEnum):
    """Source: PS3.7 9.3.1.1 (0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for a peer, in seconds.

    connect: for TCP and TLS. associate: for the answer to the request. send: while it takes none
    of our data. response: for the response to a message that is sent. release: for its
    confirmation.
    """

    connect: float = 10.0
    associate: float = 30.0
    send: float = 60.0
    response: float = 60.0
    release: float = 10.0


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context as the peer answered it. result: 0 is accepted.

    transfer_syntaxes: as proposed; of an accepted one, `transfer_syntax` is the peer's choice.
    Source: PS3.8 9.3.3.2.
    """

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Response:
    """What a peer answered. Elements that it did not send are None or ().

    elements: all of them by element number of group 0000, as received.
    Source: PS3.7 9.1.1, Annex C.
    """

    status: int
    message_id: int
    error_comment: str | None = None
    error_id: int | None = None
    offending_elements: tuple[int, ...] = ()
    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    elements: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, command: CommandSet) -> Self:
        """From the command set of a usable response. Raises ValueError for another."""
        status, message_id = command.status, command.message_id_being_responded_to
        if status is None or message_id is None:
            raise ValueError("a response has a status, and names the message that it answers")
        return cls(
            status,
            message_id,
            command.error_comment,
            command.error_id,
            command.offending_elements,
            command.affected_sop_class_uid,
            command.affected_sop_instance_uid,
            command.elements,
        )

    @property
    def status_class(self) -> StatusClass:
        return codes.classify(self.status)

    @property
    def ok(self) -> bool:
        """Whether the operation was done: success, or a warning."""
        return self.status_class in (StatusClass.SUCCESS, StatusClass.WARNING)

    @property
    def meaning(self) -> str:
        """The status in words."""
        return codes.describe(self.status).partition(" ")[2]

    def __str__(self) -> str:
        from fastscp.log import printable

        parts = [codes.describe(self.status)]
        if self.error_comment:
            parts.append(f"'{printable(self.error_comment)}'")
        if self.error_id is not None:
            parts.append(f"error id {self.error_id}")
        parts += [f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in self.offending_elements]
        return ", ".join(parts)


def password_identity(user: str, password: str | None = None) -> UserIdentity:
    """A user name, with a passcode if there is one. In clear text unless TLS hides it.

    Source: PS3.7 D.3.3.7.
    """
    secret = None if password is None else password.encode()
    return UserIdentity(1 if secret is None else 2, False, user.encode(), secret or b"")


def jwt_identity(token: str) -> UserIdentity:
    """A JSON Web Token. In clear text unless TLS hides it. Source: PS3.7 D.3.3.7."""
    return UserIdentity(5, False, token.encode(), b"")


def store_command(
    message_id: int,
    sop_class: str,
    sop_instance: str,
    priority: int = Priority.MEDIUM,
    move_originator: tuple[str, int] | None = None,
) -> dict[int, int | bytes | str | tuple[int, ...]]:
    """The elements of a C-STORE-RQ. Source: PS3.7 9.3.1.1."""
    elements: dict[int, int | bytes | str | tuple[int, ...]] = {
        0x0002: sop_class,
        0x0100: _C_STORE_RQ,
        0x0110: message_id,
        0x0700: int(priority),
        0x0800: _DATA_SET,
        0x1000: sop_instance,
    }
    if move_originator is not None:
        elements[0x1030], elements[0x1031] = move_originator
    return elements


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
        contexts = _answered(request, answer)
        self.contexts = {one.id: one for one in contexts if one.result == 0}
        self.refused = tuple(one for one in contexts if one.result != 0)
        said = information.max_pdu_length
        self.max_pdu_length = _UNSAID_PDU if said is None else said
        self.fragment_bytes = (
            min(self.max_pdu_length or LARGEST_PDU, LARGEST_PDU) - _PDV_HEADER
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
        context_id = self._context_for(uids.VERIFICATION, None)
        elements: dict[int, int | bytes | str | tuple[int, ...]] = {
            0x0002: uids.VERIFICATION,
            0x0800: _NO_DATA_SET,
        }
        return await self._perform(_C_ECHO_RQ, context_id, message_id, elements, None)

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
            head, body = await self._open(source, context_id, undo)
            if context_id is None:
                context_id = self._context_for(head.sop_class, head.transfer_syntax)
            elif context_id not in self.contexts:
                raise ValueError(f"presentation context {context_id} is not an accepted one")
            if sop_class is None:
                sop_class = head.sop_class
            if sop_instance is None:
                sop_instance = head.sop_instance
            if not sop_class or not sop_instance:
                raise UnusableInstance(f"it has no SOP {'Instance' if sop_class else 'Class'} UID")
            command = store_command(0, sop_class, sop_instance, priority, originator)
            return await self._perform(
                _C_STORE_RQ, context_id, message_id, command, (body, head.size)
            )

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

    def _context_for(self, abstract_syntax: str, transfer_syntax: str | None) -> int:
        """An accepted context for these. Raises ContextRefused."""
        for context in self.contexts.values():
            if context.abstract_syntax == abstract_syntax and (
                transfer_syntax in (None, context.transfer_syntax)
            ):
                return context.id
        proposed = [
            context.result
            for context in (*self.refused, *self.contexts.values())
            if context.abstract_syntax == abstract_syntax
            and (transfer_syntax is None or transfer_syntax in context.transfer_syntaxes)
        ]
        # Accepted, but with another of the proposed transfer syntaxes, refuses this one.
        result = (proposed[0] or 4) if proposed else None
        raise ContextRefused(abstract_syntax, transfer_syntax or "", result)

    async def _perform(
        self,
        command_field: int,
        context_id: int,
        message_id: int | None,
        elements: dict[int, int | bytes | str | tuple[int, ...]],
        body: tuple[io.BufferedIOBase, int] | None,
    ) -> Response:
        if message_id is not None and message_id in self._pending:
            raise ValueError(f"message {message_id} is outstanding")
        async with self._window:
            self._link.check()
            elements[0x0100] = command_field
            elements[0x0110] = message_id = self._take_id(message_id)
            command = encode_command(elements)
            answer = asyncio.get_running_loop().create_future()
            self._pending[message_id] = answer
            begun = False
            try:
                async with self._sending:
                    begun = True
                    self._due[message_id] = command_field, context_id, False
                    await self._send(message_id, context_id, command, body)
                    begun = False
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
        body: tuple[io.BufferedIOBase, int] | None,
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

    async def _open(
        self, source: Source, context_id: int | None, undo: contextlib.ExitStack
    ) -> tuple[Head, io.BufferedIOBase]:
        """The instance's head, and a stream that stands at its data set."""
        stream: io.BufferedIOBase
        if isinstance(source, (str, os.PathLike)):
            from fastscp.scu.heads import read_head
            from fastscp.store.folders import OWN, is_own

            if await asyncio.to_thread(is_own, os.fspath(source)):
                raise UnusableInstance(f"{os.fspath(source)} {OWN}")
            head = await asyncio.to_thread(read_head, os.fspath(source))
            if head is None:
                raise UnusableInstance(f"{os.fspath(source)} is not a DICOM Part 10 file")
            stream = await asyncio.to_thread(open, os.fspath(source), "rb")
            undo.callback(stream.close)
        else:
            if not isinstance(source, (bytes, bytearray, memoryview)):
                source = self._encoded(source, context_id)
            data = bytes(source)
            head = read_head_of(data) if is_part10(data[:132]) else self._bare(data, context_id)
            if head is None:
                raise UnusableInstance("the bytes are not a DICOM Part 10 file")
            stream = io.BytesIO(data)
        stream.seek(head.offset)
        return head, stream

    def _bare(self, data: bytes, context_id: int | None) -> Head:
        """The head of a data set without a file around it."""
        if context_id is None:
            raise ValueError("a data set alone does not tell its transfer syntax: give context_id")
        if context_id not in self.contexts:
            raise ValueError(f"presentation context {context_id} is not an accepted one")
        if not data:
            raise UnusableInstance("it has no data set")
        syntax = self.contexts[context_id].transfer_syntax
        sop_class, sop_instance = tap_identity(lambda at, size: data[at : at + size], syntax)
        return Head(sop_class, sop_instance, syntax, 0, len(data))

    def _encoded(self, dataset: Any, context_id: int | None) -> bytes:
        """A pydicom Dataset as Part 10, in its own transfer syntax or the context's."""
        from pydicom import dcmwrite
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID

        meta = getattr(dataset, "file_meta", None)
        syntax = getattr(meta, "TransferSyntaxUID", None)
        if syntax is None:
            syntaxes = (
                one.transfer_syntax
                for one in self.contexts.values()
                if one.id == context_id
                or (context_id is None and one.abstract_syntax == dataset.SOPClassUID)
            )
            syntax = UID(next(syntaxes, ""))
            if not syntax:
                raise ContextRefused(str(dataset.SOPClassUID), "", None)
        whole = FileMetaDataset()
        whole.TransferSyntaxUID = syntax
        whole.MediaStorageSOPClassUID = dataset.SOPClassUID
        whole.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        out = io.BytesIO()
        # Shallow: only the copy gets another header.
        ours = copy.copy(dataset)
        ours.file_meta = whole
        dcmwrite(out, ours, enforce_file_format=True)
        return out.getvalue()

    def responded(self, context_id: int, command: bytes) -> None:
        """Take a command set from the link, and the presentation context that it came on."""
        try:
            message_id, _status = judge_response(command, context_id, self._due)
        except CommandError as error:
            self._link.give_up(ProtocolViolation(str(error)))
            return
        # Answered once, it is not due any more, even if it is still being sent.
        del self._due[message_id]
        answer = self._pending[message_id]
        if not answer.done():
            answer.set_result(Response.of(decode_command(command)))

    def ended(self, why: PeerError) -> None:
        """Take the end of the association from the link."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(why)


def _answered(request: AssociateRQ, answer: AssociateAC) -> list[Context]:
    """The proposed contexts with their results; one that was not answered counts as refused."""
    results = {one.id: one for one in reversed(answer.presentation_contexts)}
    contexts = []
    for proposed in request.presentation_contexts:
        found = results.get(proposed.id)
        result = 2 if found is None else found.result
        syntax = found.transfer_syntax if found is not None and result == 0 else ""
        if result == 0 and syntax not in proposed.transfer_syntaxes:
            # Accepted in a transfer syntax that nobody proposed: of no use.
            result, syntax = 4, ""
        contexts.append(
            Context(
                proposed.id, proposed.abstract_syntax, proposed.transfer_syntaxes, result, syntax
            )
        )
    return contexts


def _granted(request: AssociateRQ, information: UserInformation) -> int:
    """Operations that may be outstanding. Source: PS3.7 D.3.3.3."""
    asked = request.user_information.async_window if request.user_information else None
    if asked is None or information.async_window is None:
        return 1
    # 0 is without limit, which does not lift our own.
    return min(asked.max_invoked, information.async_window.max_invoked or asked.max_invoked)


def _title(title: str) -> bytes:
    raw = title.encode("latin-1")
    if not 1 <= len(raw) <= 16:
        raise ValueError(f"an AE title has 1 to 16 characters: {title!r}")
    return raw.ljust(16)


async def associate(
    host: str,
    port: int,
    contexts: Iterable[tuple[str, Sequence[str]]] = (),
    *,
    calling_ae: str = "FASTSCP",
    called_ae: str = "ANY-SCP",
    max_pdu_length: int = 131072,
    window: int = 1,
    timeouts: Timeouts | None = None,
    on_pdu: Callable[[SeenPDU], object] | None = None,
    tls: ssl.SSLContext | None = None,
    identity: UserIdentity | None = None,
) -> Association:
    """Connect and negotiate. Raises PeerError.

    contexts: SOP class and transfer syntaxes of each presentation context, at most 128; their ids
    are 1, 3, 5 and so on. Verification alone if there are none. window: outstanding operations to
    ask for. on_pdu: called with every PDU sent and received. identity: see `password_identity`,
    `jwt_identity`.
    Source: PS3.8 7.1.
    """
    timeouts = timeouts or Timeouts()
    proposed = list(contexts) or [(uids.VERIFICATION, [uids.IMPLICIT_VR_LITTLE_ENDIAN])]
    if len(proposed) > MAX_CONTEXTS:
        raise ValueError(f"an association has at most {MAX_CONTEXTS} presentation contexts")
    if window < 1:
        raise ValueError("at least one operation is outstanding")
    request = AssociateRQ(
        _title(called_ae),
        _title(calling_ae),
        uids.APPLICATION_CONTEXT,
        tuple(
            PresentationContextRQ(2 * number + 1, str(abstract), tuple(map(str, syntaxes)))
            for number, (abstract, syntaxes) in enumerate(proposed)
        ),
        UserInformation(
            max_pdu_length=max_pdu_length,
            implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
            implementation_version_name=uids.IMPLEMENTATION_VERSION_NAME,
            # Unasked, it makes some peers hang up: only who wants more than one offers it.
            async_window=AsyncWindow(window, 1) if window > 1 else None,
            identity=identity,
        ),
    )
    association: Association | None = None
    early: list[tuple[int, bytes]] = []

    def on_command(context_id: int, command: bytes) -> None:
        if association is None:
            early.append((context_id, command))
        else:
            association.responded(context_id, command)

    def on_failure(why: PeerError) -> None:
        if association is not None:
            association.ended(why)

    link = await _connect(
        host, port, lambda: Link(request, on_command, on_failure, on_pdu), tls, timeouts.connect
    )
    try:
        async with asyncio.timeout(timeouts.associate):
            answer = await link.answer
    except TimeoutError:
        why = link.give_up(PeerTimeout("answer the association request", timeouts.associate))
        await link.closed()
        raise why from None
    except BaseException:
        if link.state.name != "STA1":
            link.transport.abort()
        await asyncio.shield(link.closed())
        raise
    association = Association(link, request, answer, timeouts)
    if association.fragment_bytes < 2:
        what = f"takes P-DATA-TF of at most {association.max_pdu_length} bytes: none can be sent"
        why = link.give_up(ProtocolViolation(f"it {what}"))
        await link.closed()
        raise why
    for context_id, command in early:
        association.responded(context_id, command)
    return association


async def _connect(
    host: str,
    port: int,
    make: Callable[[], Link],
    tls: ssl.SSLContext | None,
    timeout_s: float,
) -> Link:
    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _transport, link = await loop.create_connection(
                make, host, port, ssl=tls, server_hostname=host if tls is not None else None
            )
    except TimeoutError:
        raise ConnectionFailed(peer, f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        # ssl.SSLError is an OSError too; its text says what did not agree.
        # What asyncio makes of a refused connection has no words for it, only the number. Resolvers
        # and TLS have words, and numbers of their own.
        plain = type(error).__module__ == "builtins" and error.errno is not None
        why = os.strerror(error.errno or 0) if plain else error.strerror or str(error)
        raise ConnectionFailed(peer, why, transient=plain) from None
    return link

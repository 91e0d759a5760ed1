"""One association on its connection, as its requestor: events to the machine, actions to the wire.

Theory of operation: the link knows the upper layer and nothing of DIMSE. It hands complete command
sets up and takes PDUs down; however the association ends, `failure` says so from then on, and
`ended` is set once nothing more can happen.
Source: PS3.8 9.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from fastscp.association.machine import Action, Event, Machine, State, abort_for
from fastscp.association.names import P_DATA_TF, PDU_EVENTS, PDU_NAMES, PDU_NAMES_OF_EVENTS
from fastscp.scu.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionLost,
    PeerError,
    PeerTimeout,
    ProtocolViolation,
)
from fastscp.scu.strangers import lost_words, stranger_words
from fastscp_ext import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDUError,
    PDUStream,
    decode_pdu,
    encode_abort,
    encode_associate_rq,
    encode_release_rp,
    encode_release_rq,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

__all__ = ["Link", "SeenPDU"]

# How long a peer that was told the end may take to hang up (Sta13). Nothing more is expected of it;
# but whoever closes at once may destroy the A-ABORT on its way.
_ARTIM_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class SeenPDU:
    """A PDU that went by, for the `on_pdu` of `associate`.

    sent: by us; else it was received. type: its number on the wire. length: of its body, bytes.
    value: None for a P-DATA-TF, whose body is not kept.

    >>> def show(pdu):
    ...     print("sent" if pdu.sent else "received", pdu.name)
    >>> async with associate("pacs", 104, on_pdu=show) as pacs:
    ...     pass
    sent A-ASSOCIATE-RQ
    received A-ASSOCIATE-AC
    sent A-RELEASE-RQ
    received A-RELEASE-RP

    Source: PS3.8 9.3.1.
    """

    sent: bool
    type: int
    length: int
    value: PDU | None

    @property
    def name(self) -> str:
        """The standard's name of its type."""
        return PDU_NAMES.get(self.type, f"PDU type {self.type:02X}")


class Link(asyncio.Protocol):
    """The connection of an association; the event loop calls the protocol's methods.

    on_command: takes presentation context ids and command sets, whatever they are: whoever knows
    what was asked judges them. on_pdu: sees every PDU, or None.
    """

    def __init__(
        self,
        request: AssociateRQ,
        on_command: Callable[[int, bytes], None],
        on_failure: Callable[[PeerError], None],
        on_pdu: Callable[[SeenPDU], object] | None,
    ) -> None:
        self._request = request
        self._on_command = on_command
        self._on_failure = on_failure
        self._on_pdu = on_pdu
        self._machine = Machine(is_requestor=True)
        self._stream = PDUStream()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._artim: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._relay: _Relay | None = None
        self.answer: asyncio.Future[AssociateAC] = self._loop.create_future()
        self.ended = asyncio.Event()
        self.failure: PeerError | None = None
        self._machine.handle(Event.EVT1)

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 - nobody gets a link before its connection
        return self._transport

    # What the event loop calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of another loop than asyncio's, as uvloop's, is none by class.
        self._transport = cast("asyncio.Transport", transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._machine.handle(Event.EVT2)
        self._send(encode_associate_rq(self._request), self._request)

    def data_received(self, data: bytes) -> None:
        if self.state is State.STA13:
            # The peer was told the end; what it had on the way means nothing any more.
            return
        # A peer that sends a PDU in pieces holds the next one back until we acknowledge the last
        # (Nagle's algorithm), and we would wait 40 ms for company. The system forgets this soon.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self._relay is not None:
            self._relay.transport.write(data)
            return
        for frame in self._stream.feed(data):
            match frame:
                case ("header", 0x04, int(length)):
                    self._saw(False, P_DATA_TF, length)
                    # Tells P-DATA where none belongs; elsewhere it is delivered (DT-2, AR-6).
                    self._act(self._machine.handle(Event.EVT10), Event.EVT10)
                case ("pdu", bytes(pdu)):
                    self._pdu_received(pdu)
                case ("command", int(context_id), bytes(command)):
                    if self.state in (State.STA6, State.STA7):
                        self._on_command(context_id, command)
                case ("error", _, int(reason), str(text)):
                    if self.state is State.STA5:
                        text = stranger_words(data) or text
                    self._act(self._machine.handle(Event.EVT19), Event.EVT19, reason, text)
            if self.state in (State.STA1, State.STA13):
                return

    def connection_lost(self, error: Exception | None) -> None:
        before = self.state
        action = self._machine.handle(Event.EVT17)
        self._stop_artim()
        if action is Action.AA_4:
            when = {
                State.STA5: "before the association was answered",
                State.STA7: "before the release was confirmed",
            }.get(before, "without a word")
            tls = self.transport.get_extra_info("ssl_object") is not None
            answered = before is not State.STA5
            self._fail(ConnectionLost(when, lost_words(error, tls=tls, answered=answered)))
        self._writable.set()
        if self._relay is not None:
            self._relay.transport.close()
        self.ended.set()

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._relay is not None:
            self._relay.transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        if self._relay is not None and not self._relay.transport.is_closing():
            self._relay.transport.resume_reading()

    # What the association calls ------------------------------------------------------------------

    def check(self) -> None:
        """Raise what has ended the association, if something has."""
        if self.failure is not None:
            # Many may be told the same: it would keep the frames of all of them.
            raise self.failure.with_traceback(None)

    async def send_data(self, pdus: Sequence[bytes], timeout_s: float) -> None:
        """Send P-DATA-TF, and wait until the peer takes our data. Raises PeerError."""
        self.check()
        self._act(self._machine.handle(Event.EVT9), Event.EVT9)
        if self._on_pdu is not None:
            for pdu in pdus:
                self._saw(True, P_DATA_TF, len(pdu) - 6)
        self.transport.write(b"".join(pdus))
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._writable.wait()
            except TimeoutError:
                raise self.give_up(PeerTimeout("take our data", timeout_s)) from None
            self.check()

    async def release(self, timeout_s: float) -> None:
        """Ask for release and wait for its confirmation. Raises PeerError."""
        self.check()
        self._act(self._machine.handle(Event.EVT11), Event.EVT11)
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        except TimeoutError:
            raise self.give_up(PeerTimeout("confirm the release", timeout_s)) from None
        assert self.failure is not None  # noqa: S101 - the end always has a reason
        if not isinstance(self.failure, AssociationReleased):
            raise self.failure

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[int]:
        """A blocking descriptor over which somebody else moves P-DATA-TF meanwhile.

        The connection's own; under TLS one end of a pair whose bytes this loop carries over.
        Whoever borrows it reads no further than the end of a PDU, and passes on to `data_received`
        what it read and cannot use.
        """
        self.check()
        if self.transport.get_extra_info("ssl_object") is not None:
            async with self._relayed() as fd:
                yield fd
            return
        fd = self._socket.fileno()
        self.transport.pause_reading()
        os.set_blocking(fd, True)
        try:
            yield fd
        finally:
            os.set_blocking(fd, False)
            if not self.transport.is_closing():
                self.transport.resume_reading()

    @contextlib.asynccontextmanager
    async def _relayed(self) -> AsyncIterator[int]:
        ours, theirs = socket.socketpair()
        with theirs:
            relay = _Relay(self.transport)
            await self._loop.create_connection(lambda: relay, sock=ours)
            self._relay = relay
            try:
                yield theirs.fileno()
            finally:
                self._relay = None
                relay.transport.abort()
                relay.resume_writing()
                theirs.setblocking(False)
                with contextlib.suppress(OSError):
                    if rest := theirs.recv(65536):
                        self.data_received(rest)

    def give_up(self, why: PeerError) -> PeerError:
        """Abort as the service user, unless it is over already; returns what ended it."""
        if self.state not in (State.STA1, State.STA2, State.STA13):
            self._fail(why)
            self._act(self._machine.handle(Event.EVT15), Event.EVT15)
        return self.failure or why

    async def closed(self, timeout_s: float = _ARTIM_S) -> None:
        """Wait until the connection is gone; make it go when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        except TimeoutError:
            self.transport.abort()
            await self.ended.wait()
        except BaseException:
            # Whoever is cancelled here does not come back.
            self.transport.abort()
            raise

    # PDUs and actions ----------------------------------------------------------------------------

    def _pdu_received(self, pdu: bytes) -> None:
        event = PDU_EVENTS[pdu[0]]
        try:
            value = decode_pdu(pdu)
        except PDUError as error:
            self._act(self._machine.handle(Event.EVT19), Event.EVT19, error.reason, str(error))
            return
        assert not isinstance(value, list)  # noqa: S101 - P-DATA-TF does not come here
        self._saw(False, pdu[0], len(pdu) - 6, value)
        self._act(self._machine.handle(event), event, value=value)

    def _act(
        self,
        action: Action,
        event: Event,
        reason: int = 1,
        text: str = "",
        value: PDU | None = None,
    ) -> None:
        match action:
            case Action.AE_3:
                assert isinstance(value, AssociateAC)  # noqa: S101 - EVT3
                if not self.answer.done():
                    self.answer.set_result(value)
            case Action.AE_4:
                assert isinstance(value, AssociateRJ)  # noqa: S101 - EVT4
                sent = (self._request.calling_ae, self._request.called_ae)
                calling, called = (title.decode("ascii", "replace").strip() for title in sent)
                self._fail(
                    AssociationRejected(value.result, value.source, value.reason, calling, called)
                )
                self._close()
            case Action.AR_1:
                self._send(encode_release_rq(), None)
            case Action.AR_2:
                # An acceptor that wants to leave has its reasons; what is outstanding is lost.
                self._fail(AssociationReleased(by_peer=True))
                self._act(self._machine.handle(Event.EVT14), Event.EVT14)
            case Action.AR_3:
                self._fail(AssociationReleased(by_peer=False))
                self._close()
            case Action.AR_4:
                self._send(encode_release_rp(), None)
                self._start_artim()
            case Action.AR_8:
                self._act(self._machine.handle(Event.EVT14), Event.EVT14)
            case Action.AR_9:
                self._send(encode_release_rp(), None)
            case Action.AA_1 | Action.AA_8:
                if action is Action.AA_8:
                    text = text or f"unexpected {PDU_NAMES_OF_EVENTS[event]}"
                    self._fail(ProtocolViolation(text))
                abort = Abort(*abort_for(action, event, reason))
                self._send(encode_abort(abort), abort)
                self._start_artim()
            case Action.AA_2:
                self._close()
            case Action.AA_3:
                assert isinstance(value, Abort)  # noqa: S101 - EVT16
                self._fail(AssociationAborted(value.source, value.reason))
                self._close()
            case _:
                # Delivered elsewhere (DT-1, DT-2, AR-6), or nothing to do (AA-6, no connection).
                pass

    def _send(self, pdu: bytes, value: PDU | None) -> None:
        self._saw(True, pdu[0], len(pdu) - 6, value)
        self.transport.write(pdu)

    def _saw(self, sent: bool, pdu_type: int, length: int, value: PDU | None = None) -> None:
        if self._on_pdu is None:
            return
        try:
            self._on_pdu(SeenPDU(sent, pdu_type, length, value))
        except Exception as error:
            # Not the peer's fault, and no reason to end the association.
            self._loop.call_exception_handler(
                {"message": "on_pdu raised an exception", "exception": error, "protocol": self}
            )

    def _fail(self, why: PeerError) -> None:
        """The association is over; the first reason counts."""
        if self.failure is not None:
            return
        self.failure = why
        if not self.answer.done():
            self.answer.set_exception(why)
            # Whoever waits hears of it; if nobody does, that is no news for the log.
            self.answer.exception()
        # Who waits for the peer to take data waits in vain.
        self._writable.set()
        self._on_failure(why)

    def _close(self) -> None:
        self._stop_artim()
        self.transport.close()

    def _start_artim(self) -> None:
        self._stop_artim()
        self._artim = self._loop.call_later(_ARTIM_S, self._artim_expired)

    def _stop_artim(self) -> None:
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None

    def _artim_expired(self) -> None:
        if self.state is State.STA13:
            self._machine.handle(Event.EVT18)
            self.transport.abort()


class _Relay(asyncio.Protocol):
    """Carries bytes from a local socket to the connection; on the way back the link writes."""

    transport: asyncio.Transport

    def __init__(self, to: asyncio.Transport) -> None:
        self._to = to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._to.is_closing():
            self._to.write(data)

    def pause_writing(self) -> None:
        # The borrower does not read what the peer sends: it is not kept here instead.
        if not self._to.is_closing():
            self._to.pause_reading()

    def resume_writing(self) -> None:
        if not self._to.is_closing():
            self._to.resume_reading()

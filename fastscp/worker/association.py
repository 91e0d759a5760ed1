"""One association on its socket: events to the machine, its actions to the wire, and the timers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, Protocol

from fastscp import uids
from fastscp.association import service
from fastscp.association.account import Ending
from fastscp.association.machine import Action, Event, State, abort_for
from fastscp.association.names import PDU_EVENTS, PDU_NAMES
from fastscp.association.negotiation import Rejected
from fastscp.log import TRACE, shown
from fastscp.worker.arrived import take_arrived
from fastscp.worker.requested import ADMISSION as _ADMISSION
from fastscp.worker.requested import Asking, Requested
from fastscp.worker.strangers import BEFORE_A_REQUEST
from fastscp.worker.tracing import command_line
from fastscp_ext import (
    Abort,
    CommandError,
    PDUError,
    Reception,
    decode_abort,
    decode_command,
    encode_abort,
    encode_command,
    encode_release_rp,
)
from fastscp_ext import status as codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastscp.worker.connection import Origin
    from fastscp.worker.rounds import Rounds

__all__ = ["Association", "Reception"]

log = logging.getLogger("fastscp.association")

# A hold on reading, as the receiver counts them.
_SENDING: Final = 4

# How long, and for how many bytes, a peer that was told the end may take to hang up (Sta13).
_HANG_UP_S: Final = 5.0
_HANG_UP_BYTES: Final = 16 << 20
# How long a peer may leave our PDUs unread, and how many bytes of them before what it sends waits.
_SEND_S: Final = 60.0
_UNSENT_BYTES: Final = 65536
# Messages that are no request and answer none, tolerated per association.
_STRAY_RESPONSES: Final = 8


class Owner(Asking, Protocol):
    """What an association needs of the worker it lives in.

    ending: why associations are to end now; empty: they are not. rounds: takes their turns.
    """

    ending: str
    rounds: Rounds

    def over(self, association: Association) -> None: ...
    def gone(self, association: Association) -> None: ...


class Association(Requested):
    """An association from its connection to its end, as its acceptor.

    number: main's. origin: whose the connection is. The event loop owns the transport; this object
    is done with it when `connection_lost` has been called.
    """

    def __init__(
        self,
        reception: Reception,
        number: int,
        owner: Owner,
        origin: Origin,
        *,
        max_pdu_length: int,
    ) -> None:
        super().__init__(reception, number, owner, origin, max_pdu_length=max_pdu_length)
        self._owner: Owner = owner
        self._began = origin.began
        self._half_closed = False
        # The peer went inside a message.
        self._is_cut = False
        # Heard before all that was read is taken in.
        self._eof = False
        # The connection is gone, and what was read of it is still being taken in.
        self._lost = False
        self._why_lost: Exception | None = None
        # It ends with what it has in hand.
        self._is_finishing = False
        self._stray = 0
        # Whom to tell that the log has the line of its end.
        self._told: Callable[[bool], None] | None = None
        # Whether its end was handed to the log.
        self._is_told = False
        self.follow_log_level()

    def follow_log_level(self) -> None:
        """Tell the log of PDUs and of what is stored, or not, as its level has it now."""
        self.outbox.trace = log.isEnabledFor(TRACE)
        self.outbox.verbose = log.isEnabledFor(logging.DEBUG)

    @property
    def ended_as(self) -> int:
        """How it ended, as `Ending` numbers it; 0: it was no association."""
        if self.rules is None:
            return 0
        return (self._ending or Ending("ended")).number

    @property
    def _strict(self) -> bool:
        return self.rules is not None and self.rules.strict

    # What the event loop calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(_UNSENT_BYTES)
        self._machine.handle(Event.EVT5)
        # ARTIM runs from the accept, not from the last byte.
        self._deadline = self._began + self._owner.going.config.artim_timeout
        sock = transport.get_extra_info("socket")
        self.attach(transport, sock.fileno(), direct=not self._origin.tls)
        log.log(TRACE, "%s: connected", self.name, extra=self._telling.about())

    def eof_received(self) -> bool:
        """The peer will send no more. What it completed is still committed and answered."""
        if self.rest_bytes:
            self._eof = True
            return True
        self._is_cut = self.drop_message()
        if self.outbox.owed and self.state in (State.STA6, State.STA8):
            self._half_closed = self.outbox.tell_responses_sent = True
            return True
        # The loop closes once all is sent, which a peer that does not read can put off for ever.
        self._deadline = time.monotonic() + _HANG_UP_S
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone. Messages complete in what was read are still stored."""
        self._transport = None
        self._lost = True
        self._why_lost = error
        self._deadline = None
        self.disconnected()
        if self.state is not State.STA6:
            self.stop()
        self._end_if_lost()

    def _end_if_lost(self) -> None:
        """End the association, once its connection is lost and what was read is used up."""
        if not self._lost or self.rest_bytes:
            return
        self._lost = False
        before = self.state
        self._is_cut |= self.mid_message
        self._machine.handle(Event.EVT17)
        self.stop()
        if before in (State.STA6, State.STA8) and self._ending is None:
            why = shown(str(self._why_lost)) if self._why_lost else ""
            self._ending = self._closed_by_peer(why)
        elif before is State.STA3 and self._ending is None:
            self._ending = Ending("connection closed", why="before its request was answered")
        # While the slot that counts what it did is its own.
        self._tell_end()
        self.abandon()
        self._owner.gone(self)

    def _closed_by_peer(self, why: str = "") -> Ending:
        kind = "connection lost inside a message" if self._is_cut else "connection closed"
        return Ending(kind, why=why)

    def pause_writing(self) -> None:
        self.pace.hold(_SENDING)

    def resume_writing(self) -> None:
        self.pace.go_on(_SENDING)

    # What the receiver calls ---------------------------------------------------------------------

    def pdu_received(self, pdu_type: int, pdu: bytes) -> None:
        event = PDU_EVENTS[pdu_type]
        if event is Event.EVT6 and self.state is State.STA2:
            if self.request_waits:
                self._out_of_place(Event.EVT19, "A-ASSOCIATE-RQ behind another one")
            else:
                self._request_received(pdu)
            return
        if event is Event.EVT16:
            self._aborted(pdu)
            return
        if event is Event.EVT12 and self.state is State.STA6:
            self._release_requested()
            return
        self._out_of_place(event, f"{PDU_NAMES[pdu_type]} in {self.state}")

    def framing_failed(self, source: int, reason: int, text: str, pdu_type: int) -> None:
        if pdu_type == 0x07:
            # An A-ABORT of impossible length is still an abort.
            self._aborted(b"")
            return
        if self.state is State.STA2 and pdu_type in BEFORE_A_REQUEST:
            text = f"{text} {pdu_type:02X}: {BEFORE_A_REQUEST[pdu_type]}?"
        if source == 0:
            self._abort(text)
        else:
            self._out_of_place(Event.EVT19, text, reason)

    def command_received(self, context_id: int, command: bytes) -> bytes | None:
        try:
            request = decode_command(command)
            elements = service.answer(request)
        except (CommandError, service.Unanswerable) as error:
            self._abort(str(error))
            return None
        field = request.command_field or 0
        if elements is None:
            if field != service.C_CANCEL_RQ:
                self._stray += 1
                if self._stray > _STRAY_RESPONSES:
                    self._abort("responses to nothing")
            return None
        if field == service.C_ECHO_RQ:
            self._telling.echoed()
        else:
            log.debug(
                "%s: command %04X on context %d answered %04X",
                self.name, field, context_id, elements[0x0900], extra=self._telling.about(),
            )  # fmt: skip
        return encode_command(elements)

    def class_judged(self, context_id: int, sop_class: bytes) -> int:
        """The status for an instance whose class its presentation context does not name."""
        uid = sop_class.decode("latin-1")
        classes = self._rule.sop_classes if self._rule is not None else None
        if self._strict or uid == uids.VERIFICATION or classes is None or not classes.accepts(uid):
            return codes.SOP_CLASS_NOT_SUPPORTED
        log.debug(
            "%s: class %s on context %d for another one", self.name, shown(uid), context_id,
            extra=self._telling.about(),
        )  # fmt: skip
        return codes.SUCCESS

    def long_pdu(self, length: int) -> bool:
        """The first P-DATA-TF above what we announced; whether to put up with it."""
        if self._strict:
            return False
        log.info(
            "%s: sends a P-DATA-TF of %d bytes though we announced %d; accepted, said once",
            self.name, length, self._max_pdu_length,
            extra=self._telling.about("P-DATA-TF too long"),
        )  # fmt: skip
        return True

    def turn_ended(self) -> None:
        self._owner.rounds.add(self._turn_begins)

    def _turn_begins(self) -> None:
        had_rest = self.rest_bytes > 0
        try:
            self.next_turn()
        except Exception as error:
            # The loop would only log it.
            self.failed(error)
        if self.rest_bytes:
            return
        if self._eof and self._transport is not None:
            self._eof = False
            if not self.eof_received():
                self._transport.close()
        elif had_rest and self._owner.ending:
            self._finish_if_done()
        self._end_if_lost()

    def failed(self, error: Exception) -> None:
        """Something of this association raised what nobody expects: a bug, which ends it."""
        log.error("%s: a bug ends it", self.name, exc_info=error, extra=self._telling.about("bug"))
        # That may be where the bug is.
        self.outbox.trace = self.outbox.verbose = False
        self.end_now("internal error")

    def send_failed(self, error_no: int) -> None:
        why = Ending("cannot send", why=os.strerror(error_no))
        if self.state is not State.STA6:
            self._drop_connection(why)
            return
        # What the peer sent before it went may still be there to be read, and counts.
        self._ending = self._ending or why
        self._deadline = time.monotonic() + _HANG_UP_S

    def responses_sent(self) -> None:
        if self.state is State.STA8:
            self._release()
        elif self._half_closed:
            self._close(self._closed_by_peer())
        elif self._owner.ending:
            # The message in hand was the last one, unless more was read with it.
            self._finish_if_done()

    def instance_answered(
        self,
        instance: str,
        status: int,
        path: str,  # noqa: ARG002 - a layout may put a PatientID into it, which no log may hold
        size: int,
        comment: str,
        uid: tuple[str, bytes | None] | None,
    ) -> None:
        limit = self.rules.max_instance_size if self.rules is not None else 0
        # No more is read of one that is larger.
        if 0 < limit < size:
            comment += f": max-instance-size {limit}, and it has at least {size} bytes"
        self._telling.instance_answered(instance, status, size, comment, uid)

    def pdu_traced(self, sent: bool, pdu_type: int, length: int) -> None:
        log.log(
            TRACE, "%s: %s %s, %d bytes", self.name, "sent" if sent else "received",
            PDU_NAMES.get(pdu_type, f"type {pdu_type:02X}"), length, extra=self._telling.about(),
        )  # fmt: skip

    def command_traced(self, sent: bool, context_id: int, command: bytes) -> None:
        log.log(
            TRACE, "%s: %s %s", self.name, "sent" if sent else "received",
            command_line(context_id, command, self._telling.named), extra=self._telling.about(),
        )  # fmt: skip

    # Ending --------------------------------------------------------------------------------------

    def _release_requested(self) -> None:
        self._machine.handle(Event.EVT12)
        if self.drop_message():
            log.warning(
                "%s: asks for release inside a message, which is dropped", self.name,
                extra=self._telling.about("release inside a message"),
            )  # fmt: skip
        self.end_transfer()
        # Responses owed may still go out, and do, before the A-RELEASE-RP (AR-7).
        self.outbox.tell_responses_sent = True
        if not self.outbox.owed:
            self._release()

    def _release(self) -> None:
        self._machine.handle(Event.EVT14)
        self._ending = Ending("released")
        self._end_with(encode_release_rp())

    def _aborted(self, pdu: bytes) -> None:
        try:
            abort = decode_abort(pdu)
            self._ending = Ending("aborted by the peer", f"{abort.source},{abort.reason}")
        except PDUError:
            self._ending = Ending("aborted by the peer")
        self._machine.handle(Event.EVT16)
        self.stop()
        self._close(self._ending)

    def _out_of_place(self, event: Event, why: str, reason: int = 1) -> None:
        action = self._machine.handle(event)
        if action in (Action.AA_1, Action.AA_7, Action.AA_8):
            source, code = abort_for(action, event, reason)
            self._send_abort(source, code, why)

    def _abort(self, why: str) -> None:
        """Abort in the name of the service user (Evt15)."""
        if self.state in (State.STA1, State.STA13):
            return
        if self.state is State.STA2:
            self._out_of_place(Event.EVT19, why)
            return
        self._machine.handle(Event.EVT15)
        self._send_abort(0, 0, why)

    def _send_abort(self, source: int, reason: int, why: str) -> None:
        self._ending = Ending("aborted", f"{source},{reason}", why)
        self.stop()
        self._end_with(encode_abort(Abort(source, reason)))

    def _end_with(self, pdu: bytes) -> None:
        """Send our last PDU (Sta13); the peer is to hang up, and what it still sends is dropped.

        Closing at once could make the kernel answer unread input with RST, which may overtake the
        PDU just sent.
        """
        # What the peer knows of the end must not be lost with this worker.
        self._note_end()
        self.outbox.send_pdu(pdu)
        self.stop()
        self._deciding = None
        self._deadline = time.monotonic() + _HANG_UP_S
        self._tell_end()
        self.pace.go_on(_ADMISSION)
        if self._transport is None:
            # The frame that is the end of it may still be in use.
            asyncio.get_running_loop().call_soon(self._end_if_lost)
            return
        if self._half_closed:
            self._close(self._ending)
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _close(self, why: Ending | None) -> None:
        self._ending = self._ending or why
        if self._transport is not None:
            self.detach()
            self._transport.close()
            # That waits for what is not sent yet; a peer that does not read ends here, too.
            self._deadline = time.monotonic() + _HANG_UP_S

    def _note_end(self) -> None:
        """Note how it ended where main finds that, should this worker die; the first time."""
        if self._told is None and self.rules is not None and self._ending is not None:
            self._told = self.outbox.end(self._ending.number)

    def _tell_end(self) -> None:
        """Have the log tell of the end; once."""
        if self._is_told:
            return
        self._is_told = True
        seconds = time.monotonic() - self._began
        rules = self._rule.name if self._rule is not None and self.rules is not None else None
        self._note_end()
        self._telling.ended(self._ending, rules, self._terms, self.outbox.done, seconds, self._told)

    # Timers --------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the timers; `now` of the monotonic clock."""
        if self._lost:
            return
        if self.pace.unread(now) > _SEND_S:
            self._drop_connection(Ending("the peer does not read what we send"))
        elif self._deadline is not None:
            if self.state is State.STA13 and self._has_place:
                # A peer that does not hang up keeps nobody out. Most have by now.
                self._has_place = False
                self._owner.over(self)
            if now > self._deadline or self.ignored_bytes > _HANG_UP_BYTES:
                if self.state is State.STA3:
                    self._undecided_in_time()
                    return
                waiting = self.state is State.STA2
                if waiting and self.request_waits:
                    self.drop("too many A-ASSOCIATE-RQs at a time")
                    return
                if self.state in (State.STA2, State.STA13):
                    self._machine.handle(Event.EVT18)
                late = Ending("no complete A-ASSOCIATE-RQ in time")
                self._drop_connection(late if waiting else None)
        elif self._is_finishing and not self._has_in_hand:
            # What TLS had kept of it held nothing to be answered.
            self.end_now(self._owner.ending)
        elif self.state is State.STA6 and self._rule is not None:
            rule = self._rule
            why = self.overdue(now, rule.message_timeout, rule.min_rate, rule.idle_timeout)
            if why:
                self._abort(why)

    def stuck_for_others(self, now: float) -> float:
        """Since when it is inside a message without progress, as its rule calls it; 0.0: it is not.

        now: of the monotonic clock.
        """
        return 0.0 if self._rule is None else self.stuck_since(now, self._rule.min_rate)

    @property
    def rests_since(self) -> float:
        """Since when nothing goes on here, in seconds of the monotonic clock; 0.0: something does.

        A connection without a whole request rests from its accept on.
        """
        return self._began if self.state is State.STA2 else self.idle_since

    def finish(self, rested_s: float) -> None:
        """End the association as soon as what has come of it is answered.

        rested_s: what rests for a shorter time, or is no association yet, may begin one message; 0:
        nobody may.
        """
        self.outbox.tell_responses_sent = True
        if not self._has_in_hand:
            self._take_arrived()
        if self._has_in_hand:
            self._is_finishing = True
            return
        is_new = self.state in (State.STA1, State.STA2, State.STA3)
        rests = time.monotonic() - self.idle_since < rested_s
        if rested_s and (is_new or rests):
            return
        self.end_now(self._owner.ending)

    def _take_arrived(self) -> None:
        """Have read what has come between two messages: the kernel keeps what is less than one."""
        if self.state is not State.STA6 or not self.idle_since or self._transport is None:
            return
        try:
            take_arrived(self, self._transport)
        except Exception as error:
            # The others are to finish, too.
            self.failed(error)

    def _finish_if_done(self) -> None:
        if not self._has_in_hand:
            self.end_now(self._owner.ending)

    @property
    def _has_in_hand(self) -> bool:
        """Whether something of what was read is still to be answered."""
        if self.mid_message or self.outbox.owed or self.rest_bytes:
            return True
        return self._transport is not None and bool(self._transport.get_extra_info("undecrypted"))

    def end_now(self, why: str) -> None:
        """End the association whatever it does: A-ABORT where there is one, else as `drop`."""
        if self.state in (State.STA3, State.STA6, State.STA8):
            self._abort(why)
        elif self.state is State.STA2:
            self.drop(why)

    def drop(self, why: str) -> None:
        """Close a connection that is no association: without a request yet, while its user is
        checked, or after its end.

        A request that is there, whether read or not, is rejected. What was sent last still arrives.
        """
        if self.is_checked:
            self.reject_user(Rejected(2, 3, 1, why))
        transport = self._transport
        if self.state is State.STA2 and transport is not None:
            self._is_to_go = why
            if self.request_waits:
                self._turn_away()
            else:
                take_arrived(self, transport)
        if self.state is State.STA13 and transport and not transport.get_write_buffer_size():
            self._close(None)
        elif self.state in (State.STA2, State.STA13):
            self._drop_connection(Ending(why))

    def _drop_connection(self, why: Ending | None) -> None:
        self._ending = self._ending or why
        if self._transport is not None:
            transport, self._transport = self._transport, None
            self.detach()
            # With RST: the kernel would otherwise keep what the peer does not read for minutes.
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()

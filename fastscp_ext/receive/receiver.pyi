"""One association's receive path: from bytes read to instances complete and responses sent."""

from collections.abc import Sequence
from typing import Protocol, Self, type_check_only

from typing_extensions import disjoint_base

from fastscp_ext.receive.outbox import Outbox
from fastscp_ext.receive.pace import Pace
from fastscp_ext.receive.reception import HeldBack, Reception
from fastscp_ext.receive.rules import Rules

__all__ = ["Receiver"]

@type_check_only
class Transport(Protocol):
    """What a receiver uses of the event loop's transport."""

    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes, /) -> object: ...
    def get_write_buffer_size(self) -> int: ...

@type_check_only
class Hooks(Protocol):
    """What a subclass of Receiver has to define; called by `buffer_updated` and the commit."""

    def pdu_received(self, pdu_type: int, pdu: bytes, /) -> None:
        """A whole PDU other than P-DATA-TF, header included; b"" if its header is out of place."""

    def framing_failed(self, source: int, reason: int, text: str, pdu_type: int, /) -> None:
        """The stream cannot be used any further; source and reason of the A-ABORT that is due."""

    def command_received(self, context_id: int, command: bytes, /) -> bytes | None:
        """The response's command set to any command but C-STORE-RQ, None for no response.

        It is sent after the data set, if one follows, was dropped.
        """

    def class_judged(self, context_id: int, sop_class: bytes, /) -> int:
        """Status for an instance whose class is not the context's; 0 to store it."""

    def long_pdu(self, length: int, /) -> bool:
        """First P-DATA-TF above what we announced; whether to go on."""

    def turn_ended(self) -> None:
        """Others are to be served first: call `next_turn` in the loop's next turn, not before."""

    def send_failed(self, error_no: int, /) -> None:
        """The socket takes nothing any more: a response is lost, and the connection is to end."""

    def failed(self, error: Exception, /) -> None:
        """Another of these methods raised this beside a call of the loop's: the end is due."""

    def responses_sent(self) -> None:
        """Nothing is owed any more; called only while `outbox.tell_responses_sent`."""

    def instance_answered(
        self,
        instance: str,
        status: int,
        path: str,
        size: int,
        comment: str,
        uid: tuple[str, bytes | None] | None,
        /,
    ) -> None:
        """An instance is answered; for 0000 only while `outbox.verbose`.

        uid: for which it was refused, by its name and as it came, at most 128 bytes without its
        padding; b"" where none was found that can be used, None where neither of two is there. Or
        None: for none.
        """

    def pdu_traced(self, sent: bool, pdu_type: int, length: int, /) -> None:
        """A PDU came or went; called only while `outbox.trace`. length: bytes of body.

        Of one that came the rest of its body may be under way still.
        """

    def command_traced(self, sent: bool, context_id: int, command: bytes, /) -> None:
        """A command set came or goes, one that can be read; called only while `outbox.trace`."""

@type_check_only
class AskedHooks(Hooks, Protocol):
    """What a subclass has to define beside that if it sets `is_asking`."""

    def instance_received(self, sop_class: bytes, /) -> int:
        """An instance is whole; what becomes of it?

        0: what would be otherwise. A status: it is refused with that, unless it is refused already.
        -1: nobody is answered, and nothing is stored; `instance_dropped` is called next.
        """

    def instance_dropped(self) -> None:
        """An instance is gone that nobody is answered about: the association has to end here."""

@disjoint_base
class Receiver:
    """One association as the event loop's protocol object; subclass it with the methods of Hooks.

    The loop calls `get_buffer` and `buffer_updated`. The class leaves the rest of the arguments to
    the subclass.

    It may pause in the middle of what was read: while as many responses are owed or instances
    uncommitted as may be, while the peer does not read what we send (`pace.hold(4)`), and after so
    many messages in one turn of the loop. What is left is copied, its reading is held, and it goes
    on with that before anything else is read: in `next_turn`.

    reception: shared with the worker's other associations. number: the association's.
    max_pdu_length: as announced. pdata_cap: bytes of P-DATA-TF body tolerated.
    """

    def __new__(
        cls,
        reception: Reception,
        number: int,
        *_args: object,
        max_pdu_length: int = 131072,
        pdata_cap: int = 16777216,
        **_options: object,
    ) -> Self: ...
    @property
    def reception(self) -> Reception: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def pace(self) -> Pace: ...
    @property
    def rules(self) -> Rules | None:
        """How its instances are treated; None before `establish`."""

    is_asking: bool
    """Whether `instance_received` says what becomes of each instance; off at first."""

    @property
    def number(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def ignored_bytes(self) -> int:
        """Bytes that came after the end of interpretation."""

    @property
    def rest_bytes(self) -> int:
        """Bytes that were read and are still to be taken in."""

    def get_buffer(self, sizehint: int) -> Self:
        """The space the next read goes to, which this object exports.

        It is the reception's buffer; only 64 KiB of it after a read that left a rest, and while the
        worker keeps more than 32 MiB of rests; 128 KiB inside a data set of which 1 MiB has come,
        while others of the worker's associations are active.
        """

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was just read. Nothing of it is needed afterwards."""

    def next_turn(self) -> None:
        """Go on, now that others had their turn: with what is left of a read, or with reading."""

    def attach(self, transport: Transport, fd: int, *, direct: bool = True) -> None:
        """Bind the transport; fd: its socket, or -1 where nothing may touch that.

        direct: it may be written to as well, past the transport; not so behind TLS.
        """

    def detach(self) -> None:
        """The socket must not be touched any more."""

    def establish(
        self,
        contexts: Sequence[tuple[int, bytes, bytes, int, bool, bool]],
        *,
        rules: Rules,
        peer_max_pdu_length: int,
        unique_ids: bool,
        journal_members: bytes,
        calling_ae: bytes,
        called_ae: bytes,
        ae_row: int = 0,
        tally: int = -1,
    ) -> None:
        """Enter data transfer (Sta6).

        contexts: (id, abstract syntax, transfer syntax, tap syntax, deflated, storage) each.
        rules: how its instances are treated; their durability has to be the worker's.
        peer_max_pdu_length: bytes of P-DATA-TF body the peer takes, 0 for any, else >= 8.
        unique_ids: refuse a Message ID that is still outstanding with 0210.
        journal_members: what the association's journal lines have in common, each led by a comma.
        calling_ae, called_ae: AE titles without their padding, any bytes, for files and paths.
        ae_row: of the calling one, among the counters. tally: the slot, cleared, in which what the
        association does is counted where it outlives this process; -1: it has none.
        Raises ValueError.
        """

    def hold_back_responses(self) -> HeldBack:
        """Keep back the responses that are owed from now on, until that is let go.

        From within `instance_received` its instance's response is the first of them. They leave in
        request order, so whatever is owed later waits, too; what was owed before does not.
        """

    def end_transfer(self) -> None:
        """Leave data transfer (Sta6): a P-DATA-TF is out of place from now on."""

    def expect_associate(self, awaited: bool) -> None:
        """Whether an A-ASSOCIATE-RQ is in its place now."""

    def keep_request(self, pdu: bytes) -> None:
        """Have a whole A-ASSOCIATE-RQ wait here to be decoded; called while it is received.

        It counts with what is not whole, and goes where that grows too large, or at the end.
        """

    def take_request(self) -> bytes | None:
        """The A-ASSOCIATE-RQ that waits, which does so no longer; None: none does."""

    @property
    def request_waits(self) -> bool:
        """Whether a whole A-ASSOCIATE-RQ waits to be decoded."""

    def stop(self) -> None:
        """Interpret nothing any more: what still arrives is counted in `ignored_bytes`.

        Complete messages are finished and not answered: the last PDU is being sent. What was read
        and not taken in counts as not read.
        Source: PS3.8 9.2.3 (Sta13).
        """

    def drop_message(self) -> bool:
        """Discard the unfinished message, if any; whether there was one."""

    def disconnected(self) -> None:
        """The connection is gone: nothing is sent any more.

        What was read and not taken in yet is taken in, turn by turn, as long as `rest_bytes` says
        that there is some; complete messages are finished and not answered.
        """

    def abandon(self) -> None:
        """The peer is gone: drop the unfinished message, finish the complete ones unanswered."""

    def outgrown(self) -> None:
        """Give back what is not whole of a request or a command set, or waits, and end.

        Of all it holds most, and together they hold more than they may.
        """

    def overdue(
        self, now: float, message_timeout: float, min_rate: float, idle_timeout: float
    ) -> str:
        """What the peer has let pass, at `now` of the monotonic clock, seconds; "" for nothing.

        "silent inside a message", "slower than the minimum rate" (bytes/s over message_timeout)
        or "idle". Nothing is overdue while we do not read or owe a response.
        """

    @property
    def idle_since(self) -> float:
        """Since when nothing is under way, in seconds of the monotonic clock.

        0.0: no association is established, a message has begun, a response is owed, or reading
        pauses. A message has begun once its command set is there; what came of a PDU before that
        counts as one for a second.
        """

    def stuck_since(self, now: float, min_rate: float) -> float:
        """Since when a message, or a PDU, makes no progress, in seconds of the monotonic clock.

        That is: for more than 5 s no byte came, or less than min_rate (bytes/s) on the average.
        0.0: it does, none has begun, a response is owed, or reading pauses.
        """

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""

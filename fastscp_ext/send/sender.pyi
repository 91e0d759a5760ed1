"""Instances from files to a socket, and the responses to them."""

from collections.abc import Callable
from typing import Generic, Literal, TypeVar, final

from fastscp_ext.send.parcel import Parcel

__all__ = ["Sender"]

_T = TypeVar("_T")

@final
class Sender(Generic[_T]):
    """C-STOREs over an association whose socket nobody else uses meanwhile.

    fd: of the socket, borrowed; blocking is faster, and both work. fragment_bytes: of one PDV,
    even. window: messages that may be outstanding. send_timeout_s: while the peer takes none of
    our data. response_timeout_s: while we have to wait for a response; the receive time-out of a
    blocking descriptor is set to it. Nothing else that the peer sends renews either of them; a peer
    that trickles bytes may stretch the latter to its double. `run` and `finish` block, without the
    interpreter's lock; one thread at a time. on_pdu: called with each P-DATA-TF sent and received,
    in the sender's thread: whether it was sent; bytes of its body; context id and message control
    header of its last PDV; bytes of data sets in it; and (message id, Command Field, status) of the
    message it is of, or of each command set that ends in it, -1 for what is not known. It costs a
    call of the system and of the interpreter for each PDU.
    Source: PS3.8 9.3.5, Annex E; PS3.7 9.3.1.
    """

    def __new__(
        cls,
        fd: int,
        fragment_bytes: int,
        window: int,
        send_timeout_s: float,
        response_timeout_s: float,
        on_pdu: Callable[[bool, int, int, int, int, list[tuple[int, int, int]]], object]
        | None = None,
    ) -> Sender[_T]: ...
    @property
    def end(
        self,
    ) -> Literal["", "closed", "pdu", "broken", "send timeout", "response timeout", "file"]:
        """What ended the use of the association; "" while it goes on.

        closed: the connection is gone. pdu: something else than P-DATA-TF came. broken: the peer
        broke the protocol, or what it sent is no usable response (see `judge_response`). file: a
        file failed in the middle of its message.
        """
    @property
    def detail(self) -> tuple[int, str, bytes]:
        """Of the end: number of the OSError or 0, what was broken, the PDU."""
    @property
    def mid_message(self) -> bool:
        """Whether part of a message is out and the rest never will be."""
    @property
    def unanswered(self) -> list[Parcel[_T]]:
        """Parcels that were sent, at least in part, and not answered."""
    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the system, headers included. Any thread may look."""
    @property
    def answered(self) -> int:
        """Responses taken in. Any thread may look."""
    def run(self, parcels: list[Parcel[_T]]) -> int:
        """Send parcels as the window allows; returns how many were begun.

        Fewer than all: see `end`, or `stop` was called. Responses to the last ones may be due yet:
        call it again, or `finish`. The file of the next one is opened while responses are awaited.
        Raises ValueError for one that `take_done` or `unanswered` would still return.
        """
    def finish(self) -> None:
        """Wait for the responses that are due, and for the rest of a PDU that has begun."""
    def look(self) -> None:
        """Take in the responses that are here, without waiting, and see if the peer has left."""
    def take_done(self) -> list[Parcel[_T]]:
        """The parcels that have an outcome since the last call, in the order of their responses."""
    def stop(self) -> None:
        """Let `run` return before its next parcel. For another thread."""
    def break_off(self) -> None:
        """Cut the connection under a blocked `run` or `finish`. For another thread."""

"""Instances from files to a socket, and the responses to them."""

from typing import Generic, Literal, TypeVar, final

__all__ = ["Parcel", "Sender"]

_T = TypeVar("_T")

@final
class Parcel(Generic[_T]):
    """An instance on its way: what to send, and then what became of it.

    item: the caller's own, untouched. path: of the file, as the system takes it. command: a whole
    C-STORE-RQ command set with any message id; the sender writes its own over it. offset, size: of
    the data set in the file, bytes; it is the rest of the file. patches: (offset in the data set,
    value) to be sent instead of what the file has there. modified_ns: of the file when it was
    looked at, 0 if unknown. Raises ValueError: no message id in the command, or no data set.
    """

    def __new__(
        cls,
        item: _T,
        path: bytes,
        command: bytes,
        context_id: int,
        offset: int,
        size: int,
        patches: tuple[tuple[int, bytes], ...] = (),
        modified_ns: int = 0,
    ) -> Parcel[_T]: ...
    @property
    def item(self) -> _T: ...
    @property
    def path(self) -> bytes: ...
    @property
    def command(self) -> bytes: ...
    @property
    def context_id(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def attempts(self) -> int:
        """How often it was sent."""
    @property
    def status(self) -> int:
        """Of the response; -1 where there is none."""
    @property
    def error(self) -> int:
        """Number of the OSError that kept it from being sent, or 0.

        ESTALE: it is no regular file, ends elsewhere than the data set, or was modified since.
        """
    @property
    def response(self) -> bytes | None:
        """The command set of a response whose status is not 0."""
    @property
    def nanoseconds(self) -> int:
        """From before its first byte was sent to its response."""
    def again(self) -> None:
        """Forget the outcome, to be sent once more."""

@final
class Sender(Generic[_T]):
    """C-STOREs over an association whose socket nobody else uses meanwhile.

    fd: of the socket, borrowed; blocking is faster, and both work. fragment_bytes: of one PDV,
    even. window: messages that may be outstanding. send_timeout_s: while the peer takes none of
    our data. response_timeout_s: while we have to wait for a response; the receive time-out of a
    blocking descriptor is set to it. Nothing else that the peer sends renews either of them; who
    trickles bytes may stretch the latter to its double.
    `run` and `finish` block, without the interpreter's lock; one thread at a time.
    Source: PS3.8 9.3.5, Annex E; PS3.7 9.3.1.
    """

    def __new__(
        cls,
        fd: int,
        fragment_bytes: int,
        window: int,
        send_timeout_s: float,
        response_timeout_s: float,
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

"""TLS between the event loop and one receiver."""

from ssl import SSLContext, SSLObject
from typing import Any, Protocol, Self, final, type_check_only

from fastscp_ext.receive.receiver import Receiver
from fastscp_ext.receive.reception import Reception

__all__ = ["Ciphertext", "Secured"]

@type_check_only
class RawTransport(Protocol):
    """What is used of the loop's transport, which knows nothing of TLS."""

    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes, /) -> object: ...
    def write_eof(self) -> None: ...
    def can_write_eof(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int, /) -> None: ...
    def get_extra_info(self, name: str, default: object = ..., /) -> object: ...

@type_check_only
class Cancellable(Protocol):
    """A call of the loop's that is to come."""

    def cancel(self) -> object: ...

@type_check_only
class Keeper(Protocol):
    """Who has the connection until an association has it, and the loop for both."""

    def turn_due(self, secured: Secured, /) -> None:
        """Others are to be served first: call `next_turn` in a later turn of the loop.

        A turn of a handshake may take as long as a signature.
        """

    def stranger(self, secured: Secured, first: int, /) -> None:
        """The first byte is none of a TLS client; the connection is closed behind this."""

    def shaken(self, secured: Secured, /) -> None:
        """The handshake is done: call `open`, now or later."""

    def broken(self, secured: Secured, error: OSError, /) -> Exception:
        """It cannot go on, inside the handshake or behind it; what its end is to be called.

        The peer was told, where there is an alert for it, and has to hang up: call `abort` if it
        takes too long, by way of `last_call`.
        """

    def lost(self, secured: Secured, error: Exception | None, /) -> None:
        """The connection is gone before `open` was called. error: as `broken` called it."""

@final
class Ciphertext:
    """What the TLS connections of one worker share: the buffer that their reads go to.

    128 KiB, which stay in the processor's cache. reception: theirs.
    """

    def __new__(cls, reception: Reception) -> Self: ...

@final
class Secured:
    """One TLS connection: the protocol that the loop sees, and the transport of its receiver.

    context: a server's, from the `ssl` module, which alone knows cryptography. Records are handed
    to it whole and one at a time, and what it decrypts goes straight into the buffer of the
    receiver. Where the receiver pauses, the ciphertext that was read waits here and counts
    among the reception's rests: at most 256 KiB, and 64 after a read that had to wait.

    A peer ends by close_notify or by FIN, which mean the same here. TLS has no half-close of ours:
    once `write_eof` was called, what still comes is counted and not decrypted.
    Source: RFC 8446, RFC 5246.
    """

    def __new__(cls, shared: Ciphertext, context: SSLContext, keeper: Keeper) -> Self: ...

    last_call: Cancellable | None
    """What is to call `abort`, if it is set: it is cancelled once the connection is gone."""

    @property
    def ssl_object(self) -> SSLObject:
        """Of the `ssl` module, until it fails or the connection is gone."""

    @property
    def rest_bytes(self) -> int:
        """Bytes of ciphertext that were read and are not decrypted."""

    @property
    def has_begun(self) -> bool:
        """Whether a byte has come."""

    def open(self, receiver: Receiver) -> None:
        """The handshake is done: a receiver gets what comes from now on, and was read already.

        It hears `connection_made`, `eof_received`, `connection_lost`, `pause_writing` and
        `resume_writing` as it would of the loop.
        """

    def next_turn(self) -> None:
        """Go on, now that others had their turn."""
    # What the loop calls.
    def connection_made(self, transport: RawTransport) -> None:
        """The connection is the loop's: this is its transport."""

    def get_buffer(self, sizehint: int) -> Self:
        """The space the next read goes to, which this object exports."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was just read."""

    def eof_received(self) -> bool:
        """The peer sends no more: FIN, which may come without close_notify."""

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone. Whose it is hears of it."""

    def pause_writing(self) -> None:
        """The peer does not read what we send."""

    def resume_writing(self) -> None:
        """It does again."""

    # What the receiver and its subclass call.

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""

    def pause_reading(self) -> None:
        """Decrypt nothing more for now."""

    def resume_reading(self) -> None:
        """Go on with what waits, in a turn of its own, then with reading."""

    def write(self, data: bytes) -> None:
        """Send this, encrypted. Raises OSError: the socket takes nothing any more."""

    def can_write_eof(self) -> bool:
        """Whether the loop's transport can."""

    def write_eof(self) -> None:
        """Say that this is the end: close_notify, then FIN."""

    def close(self) -> None:
        """Close once all is sent, close_notify last."""

    def abort(self) -> None:
        """Close at once."""

    def get_write_buffer_size(self) -> int:
        """Bytes of ciphertext that are not sent yet."""

    def set_write_buffer_limits(self, high: int) -> None:
        """From how many such bytes on `pause_writing` is called."""

    def get_extra_info(self, name: str, default: object = None) -> Any:
        """As the loop's transport has it, and `sslcontext`, `ssl_object` and `undecrypted`.

        The last one tells whether something that was read and is whole waits to be decrypted.
        """

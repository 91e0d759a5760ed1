"""What main and a worker say to each other, over one socket pair.

Messages keep their boundaries (SOCK_SEQPACKET). A connection travels with its `Offer` as a
descriptor; main keeps its own copy until `Taken` came back.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from fastscp.association.negotiation import Policy  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Abandon",
    "Ask",
    "Channel",
    "Drain",
    "Failed",
    "FromWorker",
    "Gone",
    "Offer",
    "Ready",
    "Setup",
    "Stop",
    "Taken",
    "ToWorker",
    "Verdict",
]

# A Setup carries the lists of SOP classes; everything else is a few hundred bytes.
_LONGEST: Final = 196608


class Setup(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """First message to a worker: all it needs to know, besides the descriptors it inherits.

    worker: its number, also of its row of the shared counters. life: name of its part folder.
    run: names this run of the service in association ids. compress_level:
    0 for none. Times in seconds, sizes in bytes.
    """

    worker: int
    life: str
    run: str
    policy: Policy
    layout: str
    suffix: str
    durability: str
    use_link: bool
    mixed: bool
    suspect: bool
    on_duplicate: str
    digest: str
    compress_level: int
    max_instance_size: int
    artim_timeout: float
    message_timeout: float
    idle_timeout: float
    min_rate: int
    drain_timeout: float
    log_format: str
    log_level: str


class Offer(msgspec.Struct, tag=True, frozen=True):
    """A connection, its descriptor attached. `number` is its association's from now on."""

    number: int
    host: str
    port: int


class Verdict(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Ask`: admitted where `result` is 0, else what to reject with."""

    number: int
    result: int = 0
    source: int = 0
    reason: int = 0
    why: str = ""


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """Close this connection, which has not become an association."""

    number: int


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Let associations go on for `seconds`, then end them, then exit."""

    seconds: float


class Stop(msgspec.Struct, tag=True, frozen=True):
    """End every association now and exit."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker is up."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker cannot begin to work, and exits."""

    why: str


class Taken(msgspec.Struct, tag=True, frozen=True):
    """The worker has the connection; main may close its copy."""

    number: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """May this association be admitted?"""

    number: int
    calling_ae: str
    called_ae: str


class Gone(msgspec.Struct, tag=True, frozen=True):
    """The connection is over."""

    number: int


ToWorker: TypeAlias = Setup | Offer | Verdict | Abandon | Drain | Stop
FromWorker: TypeAlias = Ready | Failed | Taken | Ask | Gone

_ENCODER: Final = msgspec.msgpack.Encoder()


class Channel:
    """One end of the pair, non-blocking.

    sock: owned. expects: the union of the messages that may arrive here.
    """

    def __init__(self, sock: socket.socket, expects: object) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(expects)
        self._add_writer: Callable[..., object] | None = None
        self._remove_writer: Callable[[int], object] | None = None
        self._backlog: deque[bytes] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def write_with(
        self, add_writer: Callable[..., object], remove_writer: Callable[[int], object]
    ) -> None:
        """Use the loop to send what does not fit at once."""
        self._add_writer = add_writer
        self._remove_writer = remove_writer

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; one that does not fit now follows in order as soon as it does.

        What waits is bounded by the connections there are: each causes a handful.
        """
        data = _ENCODER.encode(message)
        if self._backlog or not self._try([data]):
            self._backlog.append(data)
            if len(self._backlog) == 1 and self._add_writer is not None and not self.closed:
                self._add_writer(self._sock.fileno(), self._writable)

    def offer(self, message: msgspec.Struct, fd: int) -> bool:
        """Send a message with a descriptor; False where the other end takes none now or ever."""
        return not self._backlog and self._try([_ENCODER.encode(message)], fd)

    def _try(self, data: list[bytes], fd: int | None = None) -> bool:
        """Whether the message was sent."""
        if self.closed:
            return False
        try:
            socket.send_fds(self._sock, data, [] if fd is None else [fd])
        except OSError:
            # Full, gone, or out of the kernel's means: the caller does without, or tries later.
            return False
        return True

    def _writable(self) -> None:
        while self._backlog and self._try([self._backlog[0]]):
            self._backlog.popleft()
        if not self._backlog or self.closed:
            self._stop_writing()

    def _stop_writing(self) -> None:
        if self._remove_writer is not None and self._sock.fileno() >= 0:
            self._remove_writer(self._sock.fileno())

    def receive(self, most: int = 64) -> Iterator[tuple[object, int | None]]:
        """The messages that wait, at most `most`, each with its descriptor; owned by the caller.

        Sets `closed` when the other end is gone.
        """
        for _ in range(most):
            try:
                data, fds, _flags, _address = socket.recv_fds(self._sock, _LONGEST, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                self.closed = True
                return
            yield self._decoder.decode(data), fds[0] if fds else None

    def wait(self) -> object:
        """The next message, however long it takes; None when the other end is gone."""
        select.select([self._sock], [], [])
        return next((message for message, _fd in self.receive(1)), None)

    def close(self) -> None:
        if self._backlog:
            self._stop_writing()
        self.closed = True
        self._sock.close()

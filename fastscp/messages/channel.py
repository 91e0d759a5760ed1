"""The socket pair between main and a worker: messages framed, descriptors owned.

Messages keep their boundaries (SOCK_SEQPACKET), and one may carry a descriptor.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Channel"]

# A worker's first message carries the names of UIDs, and a successor hears of all that is counted;
# the others are a few hundred bytes, or as many lines of a log as fit.
_LONGEST: Final = 196608

_ENCODER: Final = msgspec.msgpack.Encoder()


class _Waiting(NamedTuple):
    """A message that did not fit, and its descriptor; -1: it has none. The descriptor is owned."""

    data: bytes
    fd: int


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
        self._backlog: deque[_Waiting] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def write_with(
        self, add_writer: Callable[..., object], remove_writer: Callable[[int], object]
    ) -> None:
        """Use the loop to send what does not fit at once."""
        self._add_writer = add_writer
        self._remove_writer = remove_writer

    def send(self, message: msgspec.Struct, fd: int = -1) -> None:
        """Send a message; one that does not fit now follows in order as soon as it does.

        fd: a descriptor that goes with it; the caller keeps its own. Raises OSError, and sends
        nothing, where that has to wait and cannot be kept for so long.
        What waits is bounded by the connections there are: each causes a handful.
        """
        data = _ENCODER.encode(message)
        if self._backlog or not self._try(data, fd):
            own_fd = os.dup(fd) if fd >= 0 and not self.closed else -1
            self._backlog.append(_Waiting(data, own_fd))
            if len(self._backlog) == 1 and self._add_writer is not None and not self.closed:
                self._add_writer(self._sock.fileno(), self._writable)

    def offer(self, message: msgspec.Struct, fd: int = -1) -> bool:
        """Send a message as `send` does; False where the other end takes none now or ever."""
        return not self._backlog and self._try(_ENCODER.encode(message), fd)

    def _try(self, data: bytes, fd: int = -1) -> bool:
        """Whether the message was sent."""
        if self.closed:
            return False
        try:
            socket.send_fds(self._sock, [data], [fd] if fd >= 0 else [])
        except OSError:
            # Full, gone, or out of the kernel's means: the caller does without, or tries later.
            return False
        return True

    def _writable(self) -> None:
        while self._backlog and self._try(*self._backlog[0]):
            self._forget(self._backlog.popleft())
        if not self._backlog or self.closed:
            self._stop_writing()

    @staticmethod
    def _forget(waiting: _Waiting) -> None:
        if waiting.fd >= 0:
            os.close(waiting.fd)

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
                # The other end is gone, and had not read all: what it said before is behind this.
                continue
            if not data:
                self.closed = True
                return
            yield self._decoder.decode(data), fds[0] if fds else None

    def wait(self) -> tuple[object, int | None]:
        """The next message, however long it takes, with its descriptor, owned by the caller.

        (None, None) when the other end is gone.
        """
        # Not select(), which knows no descriptor above 1023.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.poll()
        return next(self.receive(1), (None, None))

    def close(self) -> None:
        if self._backlog:
            self._stop_writing()
        while self._backlog:
            self._forget(self._backlog.popleft())
        self.closed = True
        self._sock.close()

"""TLS without a cipher: what stands in for the ssl module between records and their bytes.

With it a fuzzer gets behind the cipher: to where records are cut, kept, paused and ended.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from tests.reference_record import (
    ALERT,
    APPLICATION_DATA,
    CLOSE_NOTIFY,
    HANDSHAKE,
    PLAIN_MOST,
    records,
)

if TYPE_CHECKING:
    from fastscp_ext import Receiver, Secured

__all__ = ["FINISHED", "Context", "Keeper", "record"]


def record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(body).to_bytes(2, "big") + body


# With it the handshake is done.
FINISHED = record(HANDSHAKE, b"\x14")


class Passthrough:
    """An `ssl.SSLObject` whose records hold what they hold."""

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._plain = b""

    def _record(self) -> tuple[int, bytes]:
        """The one that there is; nothing but a whole one may be put in, or what is none."""
        data = self._incoming.read()
        if not data:
            raise ssl.SSLWantReadError
        sizes, _ = records(data)
        if not sizes:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no record")
        assert sizes == [len(data)], "more than one record at a time"
        return data[0], data[5:]

    def do_handshake(self) -> None:
        if self._record() != (HANDSHAKE, b"\x14"):
            raise ssl.SSLWantReadError

    def read(self, size: int, into: Any) -> int:
        if not self._plain:
            kind, body = self._record()
            if (kind, body) == (ALERT, CLOSE_NOTIFY):
                raise ssl.SSLZeroReturnError
            if kind not in (APPLICATION_DATA, HANDSHAKE) or (
                kind == APPLICATION_DATA and len(body) > PLAIN_MOST
            ):
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "unexpected record")
            if kind == HANDSHAKE or not body:
                raise ssl.SSLWantReadError
            self._plain = body
        got, self._plain = self._plain[:size], self._plain[size:]
        with memoryview(into) as room:
            assert len(room) == size
            room[: len(got)] = got
        return len(got)

    def pending(self) -> int:
        return len(self._plain)

    def write(self, data: bytes) -> int:
        with memoryview(data) as view:
            for at in range(0, len(view), PLAIN_MOST):
                self._outgoing.write(record(APPLICATION_DATA, bytes(view[at : at + PLAIN_MOST])))
            return len(view)

    def unwrap(self) -> None:
        self._outgoing.write(record(ALERT, CLOSE_NOTIFY))


class Context:
    """An `ssl.SSLContext` that makes them."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
    ) -> Passthrough:
        assert server_side
        return Passthrough(incoming, outgoing)


class Keeper:
    """Who has the connection, and opens it for one receiver; counts the turns that are due."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.turns = 0
        self.failures = 0
        self.is_shaken = False

    def turn_due(self, _secured: Secured) -> None:
        self.turns += 1

    def stranger(self, _secured: Secured, _first: int) -> None:
        raise AssertionError("it began with a handshake")

    def shaken(self, secured: Secured) -> None:
        self.is_shaken = True
        secured.open(self._receiver)

    def broken(self, _secured: Secured, error: OSError) -> Exception:
        self.failures += 1
        assert self.failures == 1
        return ConnectionError(str(error))

    def lost(self, _secured: Secured, _error: Exception | None) -> None: ...

"""TLS over a socket for tests that must see, and choose, what stands on the wire.

`ssl.SSLSocket` waits for the other end where it says that it sends no more, and decides itself how
data becomes records and records become segments. `SecuredSocket` does neither.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SecuredSocket"]

_READ: Final = 1 << 18


class SecuredSocket:
    """A socket's methods, as far as a peer needs them, with TLS below; the handshake is done.

    sock: connected; closed with this, and where the handshake fails. record: bytes of data in a
    record at most. cut: bytes of a segment handed to the kernel at most; 0 does not cut. Every
    `recv` takes in all that has come, so that a selector which calls this one readable is right as
    long as `recv` is asked for as much as `_READ`. One thread may send while another receives.
    Raises ssl.SSLError where the handshake fails, and OSError as a socket does.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        name: str | None = "127.0.0.1",
        record: int = 16384,
        cut: int = 0,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.raw = sock
        self.record, self.cut = record, cut
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=name, session=session
        )
        self._plain = bytearray()
        self._unsent = bytearray()
        self._ended = False
        # OpenSSL's object is nobody's while another thread has it; who sends may wait for long.
        self._using, self._sending = threading.Lock(), threading.Lock()
        # Whether the other end said so: a FIN alone is none.
        self.told_of_its_end = False
        try:
            self._step(self.object.do_handshake)
        except BaseException:
            sock.close()
            raise

    def _step(self, call: Callable[[], object]) -> None:
        """Do what may need more from the other end, and send what it makes."""
        while True:
            try:
                call()
            except ssl.SSLWantReadError:
                self._flush()
                self._take_in()
                continue
            except ssl.SSLError:
                # An alert of ours.
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            self._flush()
            return

    def _take_in(self) -> None:
        more = self.raw.recv(_READ)
        if more:
            self._incoming.write(more)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what is encrypted; BlockingIOError keeps the rest for the next time."""
        with self._sending:
            self._flush_alone()

    def _flush_alone(self) -> None:
        while True:
            self._unsent += self._outgoing.read()
            if not self._unsent:
                return
            done = self.raw.send(self._unsent[: self.cut or len(self._unsent)])
            del self._unsent[:done]

    def _write(self, data: memoryview) -> int:
        with self._using:
            return self.object.write(data[: self.record])

    def send(self, data: bytes | memoryview) -> int:
        """How many bytes were taken: encrypted, not always sent; 0 while there are such."""
        try:
            self._flush()
        except BlockingIOError:
            return 0
        taken = self._write(memoryview(data)) if len(data) else 0
        with contextlib.suppress(BlockingIOError):
            self._flush()
        return taken

    def sendall(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._write(rest) :]
            if self._outgoing.pending >= _READ:
                self._flush()
        self._flush()

    def recv(self, n: int) -> bytes:
        """As a socket does; b"" behind a close_notify and behind a FIN."""
        while not self._plain and not self._ended:
            self._take_in()
            self._decrypt()
        data = bytes(self._plain[:n])
        del self._plain[:n]
        return data

    def _decrypt(self) -> None:
        try:
            with self._using:
                while more := self.object.read(_READ):
                    self._plain += more
            self.told_of_its_end = self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.told_of_its_end = self._ended = True
        except ssl.SSLEOFError:
            self._ended = True
        # A KeyUpdate is answered, by whoever sends just now if there is somebody.
        if self._sending.acquire(blocking=False):
            try:
                self._flush_alone()
            except OSError:
                pass
            finally:
                self._sending.release()

    def readable(self, seconds: float) -> bool:
        """Whether data, or the end, can be read within a time; a session ticket is neither."""
        before = self.raw.gettimeout()
        end = time.monotonic() + seconds
        try:
            while not self._plain and not self._ended:
                self.raw.settimeout(max(end - time.monotonic(), 0))
                self._take_in()
                self._decrypt()
        except (BlockingIOError, TimeoutError):
            return False
        except ConnectionError:
            return True
        finally:
            self.raw.settimeout(before)
        return True

    def shutdown(self, how: int) -> None:
        """Send close_notify and FIN; what comes can still be read. how: socket.SHUT_WR."""
        assert how == socket.SHUT_WR
        self.close_notify()
        self.raw.shutdown(how)

    def close_notify(self) -> None:
        # It would like to read the other end's.
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        self._flush()

    def close(self) -> None:
        """As programs do that end in order: close_notify if there is room for it, then FIN."""
        with contextlib.suppress(OSError, ValueError):
            self.raw.setblocking(False)
            self.close_notify()
        self.raw.close()

    def fileno(self) -> int:
        return self.raw.fileno()

    def getsockname(self) -> Any:
        return self.raw.getsockname()

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        self.raw.setsockopt(level, name, value)

    def settimeout(self, seconds: float | None) -> None:
        self.raw.settimeout(seconds)

    def setblocking(self, flag: bool) -> None:
        self.raw.setblocking(flag)

"""A connection that a worker has taken, until an association has it: whose it is.

Theory of operation: a connection from a network of --proxy-protocol-from begins with a PROXY
header, which says whom the proxy speaks for. Its bytes are looked at first, and those that belong
to it are taken; whoever owns the connection next finds all the others untouched. No byte that was
looked at and stays makes the loop turn again: it is behind the header, whose end is known then.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.association.account import Ending, Who
from fastscp.log import TRACE, address, caused, fields, shown
from fastscp.tls.names import common_name
from fastscp.worker.strangers import BEFORE_A_HEADER
from fastscp_ext import ProxyHeader, ProxyHeaderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Headers", "Origin", "prepare"]

log = logging.getLogger("fastscp.association")

# Bytes that are looked at together. Most headers are shorter.
_LOOK: Final = 512
# The first byte of an A-ASSOCIATE-RQ.
_REQUEST: Final = 0x01
# And of a TLS client.
_HANDSHAKE: Final = 0x16


class Origin(NamedTuple):
    """Whose a connection is.

    host, port: of the peer; of the one that a proxy speaks for. certificate: what the peer's
    certificate shows, as `Peer.certificate`. began: when the worker took the connection, seconds
    of the monotonic clock. tls: version and cipher; "" without TLS. subject: of its certificate,
    fit to be shown; "": it showed none.
    """

    host: str
    port: int
    began: float
    certificate: tuple[str, ...] = ()
    tls: str = ""
    subject: str = ""


def prepare(sock: socket.socket) -> None:
    """Set what every connection has. Raises OSError: it is gone."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that is gone without a word is noticed within a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 10),
        (socket.TCP_KEEPCNT, 3),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


@dataclass(eq=False)
class _Waiting:
    """A connection whose header is not whole. first: its first byte; -1: none has come.

    tls: whether a TLS handshake is due behind the header.
    """

    number: int
    sock: socket.socket
    host: str
    port: int
    began: float
    tls: bool
    header: ProxyHeader = field(default_factory=ProxyHeader)
    first: int = -1


class Headers:
    """The connections of a worker whose PROXY header is not whole yet. On the loop's thread.

    run: names this run of the service in ids. known(number, sock, origin, tls): gets each
    connection once its header is whole, and owns it. closed(number): hears of each one that ended
    before.
    """

    def __init__(
        self,
        run: str,
        known: Callable[[int, socket.socket, Origin, bool], None],
        closed: Callable[[int], None],
    ) -> None:
        self._run = run
        self._known = known
        self._closed = closed
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(
        self, number: int, sock: socket.socket, host: str, port: int, *, tls: bool = False
    ) -> None:
        """Read the header of a connection, which may be there already. sock: non-blocking, ours."""
        one = self._waiting[number] = _Waiting(number, sock, host, port, time.monotonic(), tls)
        self._read(one)
        if number in self._waiting:
            asyncio.get_running_loop().add_reader(sock.fileno(), self._read, one)

    def look(self, number: int) -> None:
        """Read what has come of the header of a connection, if it is one of these."""
        one = self._waiting.get(number)
        if one is not None:
            self._read(one)

    def drop(self, number: int, why: str) -> None:
        """Close one of them, if it is one. why: for the log."""
        one = self._waiting.get(number)
        if one is not None:
            self._tell(one, logging.INFO, why)
            self._close(one)

    def drop_all(self, why: str) -> None:
        """Close all of which the header is not there."""
        for number in list(self._waiting):
            self.look(number)
            self.drop(number, why)

    def tick(self, now: float, artim_timeout: float) -> None:
        """Close those that take longer than that. now: of the monotonic clock."""
        for one in list(self._waiting.values()):
            if now > one.began + artim_timeout:
                self.drop(one.number, "no complete PROXY header in time")

    def _read(self, one: _Waiting) -> None:
        try:
            while not one.header.is_whole:
                seen = one.sock.recv(_LOOK, socket.MSG_PEEK)
                if not seen:
                    self._cut(one)
                    return
                if one.first < 0:
                    one.first = seen[0]
                one.sock.recv(one.header.feed(seen))
        except BlockingIOError:
            pass
        except OSError:
            self._cut(one)
        except ProxyHeaderError as error:
            self._refuse(one, error)
        else:
            self._whole(one)

    def _whole(self, one: _Waiting) -> None:
        self._forget(one)
        header = one.header
        host, port = header.source or (one.host, one.port)
        name = _text(header.common_name)
        certificate = (common_name(name),) if name else ()
        log.log(
            TRACE, "%s: PROXY header, version %d: speaks for %s%s", self._name(one),
            header.version, address(host, port) if header.source else "itself",
            f", whose certificate is that of '{shown(name)}'" if name else "",
            extra=self._about(one),
        )  # fmt: skip
        self._known(one.number, one.sock, Origin(host, port, one.began, certificate), one.tls)

    # Ends -----------------------------------------------------------------------------------------

    def _cut(self, one: _Waiting) -> None:
        """The peer closed. Without a byte, that is how many look whether we are there."""
        if one.first < 0:
            log.log(
                TRACE, "%s: closed before a PROXY header", self._name(one), extra=self._about(one)
            )
        else:
            self._tell(one, logging.INFO, "connection closed inside its PROXY header")
        self._close(one)

    def _refuse(self, one: _Waiting, error: ProxyHeaderError) -> None:
        if not error.is_absent:
            kind, why = "PROXY header refused", f"{error} ({error.offset} bytes of it were read)"
        elif one.first == _REQUEST:
            kind = "no PROXY header"
            why = (
                "it sends a request at once, and --proxy-protocol-from names its network: have the "
                "proxy send the header (send-proxy), or name proxies alone there"
            )
        else:
            kind = "no PROXY header"
            why = BEFORE_A_HEADER.get(one.first, f"its first byte is {one.first:02X}")
            if one.tls and one.first == _HANDSHAKE:
                why = "it begins with TLS at once: have the proxy send the header (send-proxy)"
        self._tell(one, logging.WARNING, kind, why)
        self._close(one)

    def _tell(self, one: _Waiting, level: int, kind: str, why: str = "") -> None:
        ending = Ending(kind, why=why)
        extra = {**self._about(one, ending), **caused(kind, one.host)}
        log.log(level, "%s: %s", self._name(one), ending.text, extra=extra)

    def _who(self, one: _Waiting) -> Who:
        return Who(f"{self._run}.{one.number}", address(one.host, one.port))

    def _name(self, one: _Waiting) -> str:
        return self._who(one).name

    def _about(self, one: _Waiting, ending: Ending | None = None) -> Mapping[str, object]:
        return fields(self._who(one).fields(), ending.fields() if ending else {})

    def _close(self, one: _Waiting) -> None:
        self._forget(one)
        one.sock.close()
        self._closed(one.number)

    def _forget(self, one: _Waiting) -> None:
        asyncio.get_running_loop().remove_reader(one.sock.fileno())
        del self._waiting[one.number]


def _text(name: bytes | None) -> str:
    """A common name as a rule may name it; "" where none can: a certificate may hold anything."""
    try:
        text = (name or b"").decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""

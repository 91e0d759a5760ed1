"""Listening sockets, and the connections accepted on them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from fastscp.errors import StartError
from fastscp.log import caused, concluding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["AT_ONCE", "Acceptor", "bind"]

log = logging.getLogger("fastscp.acceptor")

_BACKLOG: Final = 1024
# Connections taken in one go, before the loop looks at anything else.
AT_ONCE: Final = 64
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# How long accepting rests then.
_REST_S: Final = 0.5
# After so long without another one it is over.
_OVER_S: Final = 5.0
# Descriptors kept back for peers that can only be rejected then.
_RESERVE: Final = 3
# And where whoever takes the connections has no room.
_NO_ROOM_S: Final = 0.02


def bind(hosts: Sequence[str], port: int, flag: str = "--port") -> list[socket.socket]:
    """Take every address of `hosts`, all on one port; port 0: the system picks it once.

    flag: what the port was given by.

    Nobody listens before `Acceptor.listen`: until then peers are refused, and none waits for an
    answer in a backlog. Raises StartError, and nothing stays open.
    """
    listening: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for host in hosts:
            for family, address in _addresses(host, port):
                if any(one.getsockname()[:2] == address[:2] for one in listening):
                    continue
                sock = socket.socket(family, socket.SOCK_STREAM)
                undo.callback(sock.close)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # An IPv4 peer is known by one address only, whatever else listens.
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    sock.bind(address)
                except OSError as error:
                    raise StartError(_explained(host, port, error, flag)) from error
                sock.setblocking(False)
                listening.append(sock)
                port = port or sock.getsockname()[1]
        undo.pop_all()
    return listening


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartError(
            f"cannot listen on {host}: {error.strerror}; give an address of this machine"
        ) from error
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _explained(host: str, port: int, error: OSError, flag: str = "--port") -> str:
    what = f"cannot listen on {host} port {port}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"{what}; another program has the port: stop it, or choose one with {flag}"
    if error.errno == errno.EACCES:
        return (
            f"{what}; ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}; this machine does not have that address: choose another --host"
    return what


def _source(address: tuple[str, int]) -> tuple[str, int]:
    """The host and port of an accepted connection; an IPv4 one in IPv4 form."""
    return address[0].removeprefix("::ffff:"), address[1]


class Acceptor:
    """Accepts on one listening socket and passes connections on.

    sock: owned. tls: whether TLS is spoken there. taken(sock, host, port): gets each connection,
    blocking mode unspecified, and owns it. turned_away: likewise, those that are to be rejected
    because descriptors or memory ran out; it closes them soon. has_room(): whether `taken` takes
    another one; if not, connections wait in the backlog. add_reader, remove_reader, call_later: of
    the loop.
    """

    def __init__(
        self,
        sock: socket.socket,
        taken: Callable[[socket.socket, str, int], None],
        *,
        tls: bool = False,
        turned_away: Callable[[socket.socket, str, int], None],
        has_room: Callable[[], bool],
        add_reader: Callable[..., None],
        remove_reader: Callable[[int], object],
        call_later: Callable[..., object],
    ) -> None:
        self._sock = sock
        self.tls = tls
        self._taken = taken
        self._turned_away = turned_away
        self._has_room = has_room
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self._call_later = call_later
        self._reserve: list[int] = []
        self._fill_reserve()
        self.accepting = False
        self._is_held = False
        self._shortages = 0

    @property
    def port(self) -> int:
        port: int = self._sock.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def listen(self) -> None:
        """Let peers in as far as the backlog. Raises StartError: another program was quicker."""
        try:
            self._sock.listen(_BACKLOG)
        except OSError as error:
            host, port = self._sock.getsockname()[:2]
            flag = "--tls-port" if self.tls else "--port"
            raise StartError(_explained(host, port, error, flag)) from error

    def start(self) -> None:
        """Begin, or begin again, to accept."""
        if not self.accepting and not self._is_held and self._sock.fileno() >= 0:
            self._fill_reserve()
            self.accepting = True
            self._add_reader(self._sock.fileno(), self._accept)

    def pause(self) -> None:
        """Stop accepting; connections wait in the backlog until `start`."""
        if self.accepting:
            self.accepting = False
            self._remove_reader(self._sock.fileno())

    def hold(self) -> None:
        """Stop accepting, whatever else would begin it again; `go_on` ends that."""
        self._is_held = True
        self.pause()

    def go_on(self) -> None:
        """Accept again after `hold`."""
        self._is_held = False
        self.start()

    @property
    def fd(self) -> int:
        """Of the listening socket, borrowed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Stop for good."""
        self.pause()
        if self._sock.fileno() >= 0:
            self._sock.close()
            while self._reserve:
                os.close(self._reserve.pop())

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if not self._has_room():
                self._pause_for(_NO_ROOM_S)
                return
            try:
                connection, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._rest(error)
                    return
                # The peer was gone again before we took it.
                log.debug("accept: %s", error)
                continue
            self._taken(connection, *_source(address))

    def _rest(self, error: OSError) -> None:
        """Out of descriptors or memory: reject some peers, and let the others wait a while."""
        log.error(
            "cannot accept: %s; accepting rests for %s s; raise the limit of open files, or lower "
            "--max-associations",
            error.strerror, _REST_S, extra=caused("cannot accept"),
        )  # fmt: skip
        with contextlib.suppress(OSError):
            while self._reserve:
                os.close(self._reserve.pop())
                connection, address = self._sock.accept()
                self._turned_away(connection, *_source(address))
        self._pause_for(_REST_S)
        self._shortages += 1
        self._call_later(_OVER_S, self._tell_over, self._shortages)

    def _fill_reserve(self) -> None:
        """Keep descriptors back, as far as they are to be had: each lets one peer be rejected."""
        with contextlib.suppress(OSError):
            while len(self._reserve) < _RESERVE:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _tell_over(self, shortages: int) -> None:
        """Say that it is over, unless it came again meanwhile; at the level at which it began."""
        if shortages == self._shortages and self._sock.fileno() >= 0:
            log.error(
                "accepting goes on: nothing was lacking for %g s", _OVER_S, extra=concluding()
            )

    def _pause_for(self, seconds: float) -> None:
        self.pause()
        self._call_later(seconds, self.start)

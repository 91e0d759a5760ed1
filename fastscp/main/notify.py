"""What the service manager is told, as systemd's protocol has it.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Notify"]

log = logging.getLogger("fastscp.main")

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHED: Final = "WATCHDOG_PID"
# Messages that wait for a manager that is behind with reading; the oldest go first.
_WAITING_MOST: Final = 64
_AGAIN_S: Final = 0.2
_LOOK_S: Final = 0.02
# So often in the time that the manager has patience, so that one or two may come late.
_FEEDS: Final = 4


class Notify:
    """Tells a service manager what becomes of the service; nothing where there is none.

    address: of its socket; one that begins with @ is an abstract one. watchdog_s: how long it waits
    for a sign of life; 0: it wants none. Nothing here waits or raises. The same message is a
    datagram of its own each time.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._waiting: deque[bytes] = deque(maxlen=_WAITING_MOST)
        self._sock: socket.socket | None = None
        self._status = ""
        self._is_closed = False
        # Why a message could not be sent, as it stands in the log.
        self._told = ""
        if address and address[0] not in "/@":
            log.warning(
                "%s=%s is no socket that this service knows (a path, or @ and a name): the service "
                "manager is told nothing", _SOCKET, address,
            )  # fmt: skip
            self._address = ""

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notify:
        """As the environment says, which says so no longer: it is for this process alone."""
        address, watchdog, watched = (
            environ.pop(name, "") for name in (_SOCKET, _WATCHDOG, _WATCHED)
        )
        is_ours = watched in ("", str(os.getpid()))
        usec = int(watchdog) if is_ours and watchdog.isascii() and watchdog.isdigit() else 0
        return cls(address, usec / 1e6)

    def environment(self) -> dict[str, str]:
        """What says the same to a successor of this process."""
        if not self._address:
            return {}
        usec = round(self._watchdog_s * 1e6)
        return {_SOCKET: self._address} | ({_WATCHDOG: str(usec)} if usec else {})

    @property
    def feed_every_s(self) -> float:
        """After how long there has to be another sign of life; 0: never."""
        return self._watchdog_s / _FEEDS

    def ready(self, status: str = "") -> None:
        """The start is through, or a reload."""
        self._send("READY=1", *self._new(status))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        # In one message: the manager takes the time for that of this reload.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """The end begins, and takes so long at most."""
        self._send("STOPPING=1", self._extension(seconds), *self._new("draining"))

    def status(self, text: str) -> None:
        """In a line, for people."""
        if lines := self._new(text):
            self._send(*lines)

    def extend(self, seconds: float) -> None:
        """The start, or the end, takes so much longer from now on, at most."""
        self._send(self._extension(seconds))

    def main_is(self, pid: int) -> None:
        """Another process is the main one from now on, and tells more; this one tells no more."""
        self._send(f"MAINPID={pid}")

    def alive(self) -> None:
        """The service does what it is for."""
        # A manager that is behind learns from another message that somebody lives.
        if not self._waiting:
            self._send("WATCHDOG=1")

    async def close(self, seconds: float = 0.0) -> None:
        """Tell nothing more; what still waits to be sent has so long to go."""
        self._is_closed = True
        end = time.monotonic() + seconds
        # It is a datagram or none; a look now and then is simpler than an event.
        while self._waiting and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self._waiting.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @staticmethod
    def _extension(seconds: float) -> str:
        return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"

    def _new(self, status: str) -> list[str]:
        """A status that is not the one before, as lines of a message."""
        status = " ".join(status.split())
        if not status or status == self._status:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _send(self, *lines: str) -> None:
        if not self._address or self._is_closed:
            return
        message = "\n".join(lines).encode()
        if self._waiting or not self._has_sent(message):
            if not self._waiting:
                asyncio.get_running_loop().call_later(_AGAIN_S, self._send_waiting)
            self._waiting.append(message)

    def _send_waiting(self) -> None:
        while self._waiting and self._has_sent(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_later(_AGAIN_S, self._send_waiting)

    def _has_sent(self, message: bytes) -> bool:
        """Whether it has not to wait: it was sent, or never can be, which the log tells once."""
        address = self._address.encode()
        if address[:1] == b"@":
            address = b"\0" + address[1:]
        try:
            if self._sock is None:
                self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sock.setblocking(False)
            self._sock.sendto(message, address)
        except BlockingIOError:
            return False
        except OSError as error:
            why = error.strerror or str(error)
            if why != self._told:
                log.warning("cannot tell the service manager (%s=%s): %s",
                            _SOCKET, self._address, why)  # fmt: skip
                self._told = why
        return True

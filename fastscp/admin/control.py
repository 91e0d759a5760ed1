"""The control socket, as the service has it: made, served within bounds, and taken away.

Theory of operation: a coroutine for each connection reads a line, asks `Control` for what it wants,
and writes a line. Whatever a client does costs its own connection alone: there are few of them, a
request is short and has little time, an answer that nobody reads is given up, and the next answer
waits as long as the loop's share asks for. What somebody wants who has hung up before main came to
look at it is not done. The loop makes no call on the disk; what does stands in `Listening`, for a
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp import __version__
from fastscp.admin.accepting import Accepting
from fastscp.admin.pace import Share
from fastscp.admin.place import SOCKET_NAME, ControlSocketError, address
from fastscp.log import shown
from fastscp.messages.control import (
    CONTROL_VERSION,
    Abort,
    Answer,
    Associations,
    GetOverview,
    GetStatus,
    Overview,
    Pause,
    Reload,
    Request,
    Resume,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from fastscp.admin.door import Control

__all__ = ["CONNECTIONS_MOST", "ControlServer", "Listening"]

log = logging.getLogger("fastscp.admin")

# Connections at a time; a further one is told so, and closed.
CONNECTIONS_MOST: Final = 16
# Bytes of a request, and how long one may take to be there whole.
REQUEST_BYTES: Final = 65536
REQUEST_S: Final = 10.0
# How long a client may leave so many bytes of an answer unread.
_CHUNK_BYTES: Final = 65536
ANSWER_S: Final = 10.0
# Between empty lines that say that an answer is still to come.
_STILL_S: Final = 3.0
# How long accepting rests where the system has no means for a connection.
_REST_S: Final = 0.5
_BACKLOG: Final = 64
_MODE: Final = 0o600
_ROOT: Final = 0
# Of SO_PEERCRED: process, user, group; see unix(7).
_CREDENTIALS: Final = struct.Struct("3i")


class _Head(msgspec.Struct, frozen=True):
    """What a request of any version has."""

    version: int


class Listening:
    """The socket in its folder. All of it blocks on the disk.

    folder_fd: of the folder, owned; folder: its path, for messages.
    """

    def __init__(self, folder_fd: int, folder: Path) -> None:
        """Make the socket, and listen. Raises ControlSocketError; the descriptor is closed then.

        Whoever calls holds the store, so a socket that is there is one that a service left behind
        when it was killed, and goes. Nothing else that has the name does.
        """
        self._folder_fd = folder_fd
        self.path = folder / SOCKET_NAME
        self._made: os.stat_result | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, folder_fd)
            try:
                self._clear()
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.callback(self.sock.close)
                self._bind(address(folder_fd, folder))
                self.sock.listen(_BACKLOG)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._remove()
                raise ControlSocketError(
                    f"cannot make {self.path} ({error.strerror}): see that the service may make "
                    f"files there, and that the file system has sockets"
                ) from error
            undo.pop_all()

    def _clear(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(SOCKET_NAME, dir_fd=self._folder_fd, follow_symlinks=False)
            if not stat.S_ISSOCK(there.st_mode):
                raise ControlSocketError(
                    f"{self.path} is there already, and is no socket, so no service made it: move "
                    f"it away"
                )
            os.unlink(SOCKET_NAME, dir_fd=self._folder_fd)

    def _bind(self, address: str) -> None:
        # The name gets the mode of the socket it is for, so there is no moment with another one;
        # umask would do the same to what other threads make meanwhile.
        os.fchmod(self.sock.fileno(), _MODE)
        self.sock.bind(address)
        self._made = os.stat(SOCKET_NAME, dir_fd=self._folder_fd, follow_symlinks=False)
        if stat.S_IMODE(self._made.st_mode) != _MODE:
            # A file system that sets modes of its own.
            os.chmod(SOCKET_NAME, _MODE, dir_fd=self._folder_fd)

    def is_there(self) -> bool:
        """Whether clients find it under its name. Raises OSError."""
        try:
            there = os.stat(SOCKET_NAME, dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._made is not None and os.path.samestat(self._made, there)

    def made_anew(self) -> Listening:
        """Another one under the same name, which this one has lost. Raises ControlSocketError."""
        return Listening(os.dup(self._folder_fd), self.path.parent)

    def leave(self) -> None:
        """Leave what has its name now."""
        self._made = None
        os.close(self._folder_fd)

    def remove(self) -> None:
        """Take the socket away, unless something else has its name by now. Raises OSError."""
        try:
            self._remove()
        finally:
            os.close(self._folder_fd)

    def _remove(self) -> None:
        made, self._made = self._made, None
        if made is None:
            return
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(SOCKET_NAME, dir_fd=self._folder_fd, follow_symlinks=False)
            # A file that is made later may get the number of one that is gone.
            if stat.S_ISSOCK(there.st_mode) and os.path.samestat(made, there):
                os.unlink(SOCKET_NAME, dir_fd=self._folder_fd)


class ControlServer(Accepting):
    """Answers on a listening socket, which it owns. All methods run on its loop."""

    def __init__(self, sock: socket.socket, control: Control) -> None:
        super().__init__(sock)
        self._control = control
        self._decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
        self._conversations: dict[asyncio.Task[None], socket.socket] = {}
        # Of the loop's time, for all clients together: a list of many associations takes some.
        self._share = Share()

    def listen_on(self, sock: socket.socket) -> None:
        """Accept on another socket from now on, which it owns; who is connected stays so."""
        if self._sock.fileno() < 0:
            # It was closed meanwhile.
            sock.close()
            return
        self._stop_accepting()
        sock.setblocking(False)
        self._sock = sock
        self.start()

    def close(self) -> None:
        """Hang up on everybody, and stop."""
        self._stop_accepting()
        for task in list(self._conversations):
            task.cancel()

    def _accept(self) -> None:
        try:
            sock, _address = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Of descriptors or memory, which the associations need more.
            log.debug("cannot accept on the control socket: %s", error.strerror)
            self._pause_for(_REST_S)
            return
        sock.setblocking(False)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
        if uid not in (_ROOT, os.geteuid()):
            _turn_away(
                sock, f"only root and the service's own user (uid {os.geteuid()}) may ask, and this"
                f" is uid {uid}",
            )  # fmt: skip
        elif len(self._conversations) >= CONNECTIONS_MOST:
            _turn_away(
                sock, f"{CONNECTIONS_MOST} others are connected already: try again, or see who does"
                f" not hang up",
            )  # fmt: skip
        else:
            task = self._loop.create_task(self._converse(sock, uid))
            self._conversations[task] = sock
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        # One that was cancelled may not have begun, and has not closed it.
        self._conversations.pop(task).close()
        if not task.cancelled() and task.exception() is not None:
            log.error("the control socket failed, which is a bug", exc_info=task.exception())

    async def _converse(self, sock: socket.socket, uid: int) -> None:
        """Answer one request after the other, until the client hangs up or is too slow."""
        rest = bytearray()
        with contextlib.suppress(OSError, TimeoutError):
            while True:
                try:
                    line = await self._read(sock, rest)
                except _UnusableError as error:
                    await self._send(sock, _error(str(error)))
                    return
                if line is None:
                    return
                await self._share.turn()
                if _has_hung_up(sock):
                    # It was told that this is not done: main was late, and it lost its patience.
                    return
                await self._send(sock, await self._answer(line, sock, uid))

    async def _read(self, sock: socket.socket, rest: bytearray) -> bytes | None:
        """The next request; None: there is none any more. rest: what was read behind the last."""
        try:
            async with asyncio.timeout(REQUEST_S):
                while (end := rest.find(b"\n")) < 0:
                    if len(rest) > REQUEST_BYTES:
                        raise _UnusableError(f"a request has at most {REQUEST_BYTES} bytes")
                    data = await self._loop.sock_recv(sock, 4096)
                    if not data:
                        return None
                    rest += data
        except TimeoutError:
            if not rest:
                return None
            raise _UnusableError(f"no whole request within {REQUEST_S:g} s") from None
        line = bytes(rest[:end])
        del rest[: end + 1]
        return line

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        """Write whatever its length, as long as the client reads on. Raises OSError."""
        whole = memoryview(data)
        for at in range(0, len(whole), _CHUNK_BYTES):
            async with asyncio.timeout(ANSWER_S):
                await self._loop.sock_sendall(sock, whole[at : at + _CHUNK_BYTES])

    async def _answer(self, line: bytes, sock: socket.socket, uid: int) -> bytes:
        try:
            version = msgspec.json.decode(line, type=_Head).version
            if version != CONTROL_VERSION:
                return _error(
                    f"this service is fastscp {__version__}, and its control socket speaks version "
                    f"{CONTROL_VERSION}, not {version}: use the `fastscp` that it runs from"
                )
            request = self._decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            # The second: it nests without an end.
            return _error(f"no request that fastscp {__version__} knows: {shown(str(error))}", 2)
        try:
            return _encoded(Answer(CONTROL_VERSION, ok=await self._done(request, sock, uid)))
        except Exception:
            log.exception("a request on the control socket failed, which is a bug")
            return _error("a bug in the service, which its log tells of; it goes on")

    async def _done(self, request: Request, sock: socket.socket, uid: int) -> msgspec.Raw:
        by = f"fastscp {request.__struct_config__.tag}, uid {uid}"
        control = self._control
        result: object
        began = time.monotonic()
        match request:
            case GetStatus():
                result = control.status()
            case Associations():
                result = control.associations()
            case GetOverview():
                result = Overview(status=control.status(), associations=control.associations())
            case Pause():
                result = control.pause(request.why, by)
            case Resume():
                result = control.resume(by)
            case Abort():
                result = await self._patiently(control.abort(request.id, by), sock)
                began = time.monotonic()
            case Reload():
                result = await self._patiently(control.reload(by), sock)
                began = time.monotonic()
        encoded = msgspec.Raw(msgspec.json.encode(result))
        self._share.spend(began)
        return encoded

    async def _patiently(
        self, work: Coroutine[object, object, object], sock: socket.socket
    ) -> object:
        """What `work` returns; meanwhile the client hears now and then that it goes on.

        Its connection counts until the end of it, also if the client is gone: so there are never
        more of these than connections.
        """
        task = self._loop.create_task(work)
        is_heard = True
        try:
            while True:
                await asyncio.wait([task], timeout=_STILL_S)
                if task.done():
                    return task.result()
                if is_heard:
                    try:
                        await self._send(sock, b"\n")
                    except (OSError, TimeoutError):
                        is_heard = False
        finally:
            task.cancel()


class _UnusableError(Exception):
    """What came is no request, and what follows cannot be told from it."""


def _has_hung_up(sock: socket.socket) -> bool:
    """Whether nobody has the other end any more. Who only ends what it sends still reads."""
    look = select.poll()
    look.register(sock, 0)
    return any(event & select.POLLHUP for _fd, event in look.poll(0))


def _encoded(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def _error(why: str, code: int = 1) -> bytes:
    return _encoded(Answer(CONTROL_VERSION, error=why, code=code))


def _turn_away(sock: socket.socket, why: str) -> None:
    # A new connection has room for a line.
    with sock, contextlib.suppress(OSError):
        sock.send(_error(why))

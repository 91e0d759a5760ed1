"""The main process that this one takes over from: what it passes, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.errors import StartError
from fastscp.main.listening import ADMIN, NAMES, adopted
from fastscp.main.successor import VARIABLE
from fastscp.messages.channel import Channel
from fastscp.messages.handover import (
    COMMON,
    HANDOVER_VERSION,
    LOCK,
    Counting,
    DrainToo,
    Go,
    Handover,
    Left,
    Named,
    Passed,
    Prepared,
    Serving,
    ToSuccessor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fastscp.main.listening import Listening
    from fastscp.messages.totals import Totals

__all__ = ["Predecessor"]

log = logging.getLogger("fastscp.main")

# All that is passed was sent before this process began.
_PASSED_MS: Final = 10_000
_GONE: Final = "the main process that started this one is gone: it takes over from nobody"


class Predecessor:
    """What is taken over, and the channel to whom it is taken over from.

    lock_fd, common_fd: owned by whoever takes them out with `take`. sockets: likewise. Until `Go`
    this process is nobody's service, and ends with its predecessor.
    """

    def __init__(self, channel: Channel) -> None:
        """Hear all that is passed. Raises StartError; nothing stays open then, but the channel."""
        self._channel = channel
        self._fds: dict[str, int] = {}
        self.sockets: list[Listening] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.give_back)
            self.told = self._handover()
            for _ in range(self.told.passed):
                self._take_passed()
            if missing := {LOCK, COMMON} - self._fds.keys():
                raise StartError(f"the main process that started this one passes no {missing}")
            undo.pop_all()
        # The worker processes of it that may still write, by number.
        self.workers = dict(self.told.workers)
        self.is_gone = False
        self._has_gone_ahead = False
        self._is_clean = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of its workers. Their ids may be others' once they are gone, these never.
        self._pidfds: dict[int, int] = {}

    @classmethod
    def found(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """The one that started this process, if that was to take over. Raises StartError.

        The environment says nothing of it any more afterwards.
        """
        number = environ.pop(VARIABLE, "")
        if not number:
            return None
        try:
            fd = int(number)
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except (ValueError, OSError) as error:
            raise StartError(
                f"{VARIABLE}={number} leads to no main process to take over from; unset it"
            ) from error
        channel = Channel(sock, ToSuccessor)
        try:
            return cls(channel)
        except BaseException:
            channel.close()
            raise

    def _next(self) -> tuple[object, int | None]:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.poll(_PASSED_MS)
        try:
            return next(self._channel.receive(1), (None, None))
        except msgspec.DecodeError as error:
            raise StartError(
                f"the main process that started this one says what fastscp here does not know "
                f"({error}): stop the service, and start this version"
            ) from error

    def _handover(self) -> Handover:
        told, _fd = self._next()
        if not isinstance(told, Handover):
            raise StartError(_GONE)
        if told.version != HANDOVER_VERSION:
            raise StartError(
                f"the main process that started this one hands over in version {told.version}, and "
                f"this program knows version {HANDOVER_VERSION}: stop the service, and start this "
                f"version"
            )
        return told

    def _take_passed(self) -> None:
        message, fd = self._next()
        if not isinstance(message, Passed) or fd is None:
            raise StartError(_GONE)
        # For those alone whom it is given to.
        os.set_inheritable(fd, False)
        if message.name in (LOCK, COMMON):
            self._fds[message.name] = fd
        else:
            what = "a socket that is handed over"
            self.sockets.append(adopted(fd, message.name, what, (*NAMES, ADMIN)))

    def take(self, name: str) -> int:
        """A descriptor, which is the caller's from here on."""
        return self._fds.pop(name)

    def give_back(self) -> None:
        """Close what nobody took."""
        while self._fds:
            os.close(self._fds.popitem()[1])
        while self.sockets:
            self.sockets.pop().sock.close()

    # Taking over ---------------------------------------------------------------------------------

    def watch(
        self,
        orphaned: Callable[[], None],
        left: Callable[[bool], None],
        counted: Callable[[Totals], None],
    ) -> None:
        """Hear it on the loop. orphaned(): it is gone before it let this process go ahead.

        left(clean): it is gone with its workers, and whether all went in order; called once.
        counted(totals): all that it has counted until now; first before this process may go ahead.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._orphaned, self._left, self._counted = orphaned, left, counted
        self._went_ahead: asyncio.Future[None] = loop.create_future()
        self._is_named: asyncio.Future[None] = loop.create_future()
        self._all_left: asyncio.Future[None] = loop.create_future()
        for number, pid in self.workers.items():
            with contextlib.suppress(OSError):
                self._pidfds[number] = os.pidfd_open(pid)
        self._channel.write_with(loop.add_writer, loop.remove_writer)
        loop.add_reader(self._channel.fileno(), self._messages, loop)

    def prepared(self) -> asyncio.Future[None]:
        """Say that all is prepared; what is returned is done once it does not accept any more."""
        self._channel.send(Prepared(counts=True))
        return self._went_ahead

    def serving(self) -> None:
        """Say that this process accepts."""
        self._channel.send(Serving())

    async def named(self) -> None:
        """Wait until the service manager listens to this process, or nobody will tell it to."""
        await self._is_named

    def drain(self, seconds: float) -> None:
        """Have it end with what it still has, in so many seconds; it ends at once for 0."""
        self._channel.send(DrainToo(seconds))

    async def left(self, seconds: float) -> bool:
        """Wait until it is gone with its workers; whether it is."""
        await asyncio.wait([self._all_left], timeout=seconds)
        return self._all_left.done()

    def close(self) -> None:
        """Hear it no more."""
        self.give_back()
        if self._loop is not None:
            if not self._channel.closed:
                self._loop.remove_reader(self._channel.fileno())
            for fd in self._pidfds.values():
                self._loop.remove_reader(fd)
                os.close(fd)
        self._channel.close()
        self._pidfds = {}

    def _messages(self, loop: asyncio.AbstractEventLoop) -> None:
        for message, fd in self._channel.receive():
            if fd is not None:
                os.close(fd)
            match message:
                case Go(totals):
                    self._has_gone_ahead = True
                    self._take_totals(totals)
                    self._went_ahead.set_result(None)
                case Named():
                    self._is_named.set_result(None)
                case Counting(totals):
                    self._take_totals(totals)
                case Left(clean, totals):
                    self._is_clean = clean
                    self._take_totals(totals)
        if not self._channel.closed:
            return
        loop.remove_reader(self._channel.fileno())
        if not self._has_gone_ahead:
            self._orphaned()
            return
        if not self._is_named.done():
            self._is_named.set_result(None)
        # It was killed if it did not say so; its workers finish what they have in hand then.
        for number, fd in self._pidfds.items():
            loop.add_reader(fd, self._worker_left, loop, number)
        self._maybe_left()

    def _take_totals(self, totals: Totals | None) -> None:
        if totals is not None:
            self._counted(totals)

    def _worker_left(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        fd = self._pidfds.pop(number)
        loop.remove_reader(fd)
        os.close(fd)
        self._maybe_left()

    def _maybe_left(self) -> None:
        if not self._pidfds and not self.is_gone:
            self.is_gone = True
            self._all_left.set_result(None)
            self._left(self._is_clean)

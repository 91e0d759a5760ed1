"""The program that takes over from this one: started, handed what it needs, heard and missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from fastscp.main.spawn import how, spawn_main
from fastscp.messages.channel import Channel
from fastscp.messages.handover import FromSuccessor, Passed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import msgspec

    from fastscp.messages.handover import Handover

__all__ = ["VARIABLE", "Successor", "own_command"]

log = logging.getLogger("fastscp.main")

# Where a successor finds the descriptor of its end of the channel.
VARIABLE: Final = "_FASTSCP_SUCCESSOR"
# Between looks at a process that is about to be over, and how many there are.
_REAP_S: Final = 0.02
_REAPS: Final = 250


def own_command() -> list[str]:
    """The command line of this process, to be run anew; the program is the one that is there then.

    A script is run as one, for an upgrade may have given it another interpreter.
    """
    script = sys.argv[0] if sys.argv else ""
    if script and not script.endswith(".py") and os.access(script, os.X_OK):
        return [os.path.abspath(script), *sys.argv[1:]]  # noqa: PTH100 - no link is followed
    # As it was called, with the interpreter's own options, such as -X and -m.
    return [sys.executable, *sys.orig_argv[1:]]


class Successor:
    """A process that is to take over, and the channel to it; `close` it at the end.

    told(message): what it says. gone(why): called once, when it hangs up, which its end does.
    Raises OSError where it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        handover: Handover,
        passed: Sequence[tuple[str, int]],
        *,
        told: Callable[[object], None],
        gone: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._gone = gone
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            self._channel = Channel(ours, FromSuccessor)
            undo.callback(self._channel.close)
            # Before there is anybody: they wait in the channel, and cannot be missed.
            self._channel.write_with(self._loop.add_writer, self._loop.remove_writer)
            self._channel.send(handover)
            for name, fd in passed:
                self._channel.send(Passed(name), fd)
            variable = {VARIABLE: str(theirs.fileno())}
            self._process = spawn_main(command, {**environment, **variable}, theirs.fileno())
            undo.pop_all()
        self._loop.add_reader(ours.fileno(), self._messages)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: msgspec.Struct) -> None:
        self._channel.send(message)

    def offer(self, message: msgspec.Struct) -> bool:
        """Send a message, unless others wait to be read; whether it was sent."""
        return self._channel.offer(message)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Hang up, and see that no process is left unreaped, if it has ended."""
        if not self._channel.closed:
            self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._process.has_ended()

    def _messages(self) -> None:
        for message, fd in self._channel.receive():
            if fd is not None:
                os.close(fd)
            self._told(message)
        if self._channel.closed:
            self._loop.remove_reader(self._channel.fileno())
            self._reap(_REAPS)

    def _reap(self, looks: int) -> None:
        if self._process.has_ended():
            self._gone(how(self._process.code))
        elif looks:
            self._loop.call_later(_REAP_S, self._reap, looks - 1)
        else:
            # It lives, and nobody can speak to it.
            self._process.kill()
            self._gone("it hung up")

"""Child processes as the system knows them: started, told to end, reaped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.messages.worker import CHECKPOINT_FAILED, HELD_OFF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Process", "how", "spawn", "spawn_main"]

# Nothing is imported from the package before the worst is provided for: it may be in the middle of
# an upgrade. The first message is read in any case, or its sender would lose our answer.
_BOOTSTRAP: Final = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    from fastscp.worker.process import main
except Exception as error:
    import msgspec, socket
    channel = socket.socket(fileno=int(sys.argv[2]))
    channel.setblocking(True)
    channel.recv(1)
    why = f"cannot import the worker's program ({type(error).__name__}: {error})"
    channel.send(msgspec.msgpack.encode({"type": "Failed", "why": why}))
    sys.exit(3)
main(sys.argv[2:])
"""


class Process:
    """A child of ours. `code`: its exit code once it was reaped, negative: killed by that signal.

    A code that somebody else took is 255.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def has_ended(self) -> bool:
        """Whether it is over; reaps it if so."""
        if self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.code = 255
            else:
                if pid:
                    self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def is_runnable(self) -> bool:
        """Whether its main thread runs or waits for a processor, and for nothing else."""
        try:
            stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_bytes()
        except OSError:
            # It is gone, or there is no /proc.
            return False
        # The name in parentheses may hold any byte.
        return stat.rpartition(b") ")[2][:1] == b"R"

    def kill(self) -> None:
        # Until it is reaped its id is nobody else's.
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def spawn(descriptors: Sequence[int]) -> Process:
    """Start a worker, which inherits these descriptors, the channel first. Raises OSError.

    Not fork and exec with Python in between: main has threads, and one of them may hold a lock that
    the child would need. And not by the loop, whose child lets go of all signals before it is ours.
    """
    with _inherited(descriptors):
        pid = os.posix_spawn(
            sys.executable,
            [
                sys.executable,
                "-c",
                _BOOTSTRAP,
                json.dumps(sys.path),
                *map(str, descriptors),
            ],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            # A terminal's ^C is for main alone: it drains its workers. Not a session each: the
            # kernel shares processor time out by sessions, and would break into the senders'
            # work for each worker.
            setpgroup=0,
            setsigmask=HELD_OFF,
        )
    return Process(pid)


def spawn_main(command: Sequence[str], environment: Mapping[str, str], fd: int) -> Process:
    """Start a main process, which inherits one descriptor. Raises OSError.

    It stays in our process group, as a shell or a terminal knows the service.
    """
    with _inherited([fd]):
        # It lets signals through once it knows what they mean to it.
        pid = os.posix_spawn(command[0], [*command], environment, setsigmask=HELD_OFF)
    return Process(pid)


@contextlib.contextmanager
def _inherited(descriptors: Sequence[int]) -> Iterator[None]:
    """Let the child that is started in the block inherit these descriptors.

    No other child can: main starts its children only in the thread of its loop.
    """
    before = [os.get_inheritable(fd) for fd in descriptors]
    try:
        for fd in descriptors:
            os.set_inheritable(fd, True)
        yield
    finally:
        for fd, inheritable in zip(descriptors, before, strict=True):
            os.set_inheritable(fd, inheritable)


def how(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "no exit code"
    if code == CHECKPOINT_FAILED:
        return f"exit code {code}: it gave its redo log up, as it has said"
    if code < 0:
        with contextlib.suppress(ValueError):  # real-time signals have no names
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    return f"exit code {code}"

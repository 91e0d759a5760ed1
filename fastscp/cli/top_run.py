"""`fastscp top` at work: looks at the service, the terminal, and when the screen is drawn anew."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.live import Live

from fastscp.cli.operate import moment, service_of
from fastscp.cli.status import cannot_ask
from fastscp.cli.top_screen import Screen
from fastscp.errors import FastscpError
from fastscp.messages.control import GetOverview, Overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

__all__ = ["Looks", "Terminal", "Watch", "run"]

_STDIN: Final = 0
_SUSPENDS: Final = b"\x1a"
_ENDS: Final = b"qQ"
# How long a look may take before the screen says that it is old, and how often it says so.
_SLOW_S: Final = 2.0
_SAYS_S: Final = 1.0
# What a signal that ended a program is told as, above the signal's number.
_ENDED_BY: Final = 128


def run(store: Path, every_s: float, *, once: bool) -> int:
    """Show screens until somebody ends it, or one; returns the exit code. Raises FastscpError.

    every_s: seconds from one look to the next.
    """
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    watch = Watch(_first(store))
    if not once and _is_live(console):
        with Terminal() as terminal:
            _show_live(
                console, watch, Looks(lambda: _look(store), terminal.wake), terminal, every_s
            )
        return 0
    time.sleep(every_s)
    watch.answered(_first(store))
    console.print(watch.screen())
    return 0


def _is_live(console: Console) -> bool:
    # The environment may have rich take any output for a terminal, and a terminal for none.
    is_terminal = sys.stdout.isatty() and console.is_terminal
    return is_terminal and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def _show_live(
    console: Console, watch: Watch, looks: Looks, terminal: Terminal, every_s: float
) -> None:
    while True:
        with terminal.by_keys(), _live(console) as live:
            is_over = _follow(watch, looks, terminal, live, every_s)
        if is_over:
            return
        # As the terminal would do it, whose screen is itself again by now.
        os.kill(0, signal.SIGTSTP)


def _live(console: Console) -> Live:
    return Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False,
        redirect_stderr=False,
    )  # fmt: skip


def _look(store: Path) -> Overview:
    with service_of(store) as service:
        return service.ask(GetOverview(), Overview)


def _first(store: Path) -> Overview:
    try:
        return _look(store)
    except FastscpError as error:
        raise cannot_ask(error) from error


def _follow(watch: Watch, looks: Looks, terminal: Terminal, live: Live, every_s: float) -> bool:
    """Look and draw until a key ends that; returns whether it is over, and not only suspended."""
    foot = ("q ends; " if terminal.has_keys else "") + f"every {every_s:g} s"
    next_look = time.monotonic() + every_s
    while True:
        live.update(watch.screen(foot, looks.waited_s), refresh=True)
        if not looks.is_under_way and time.monotonic() >= next_look:
            next_look = time.monotonic() + every_s
            looks.begin()
        left = _SAYS_S if looks.is_under_way else max(0.0, next_look - time.monotonic())
        keys = terminal.wait(left)
        if any(key in _ENDS for key in keys):
            return True
        if _SUSPENDS in keys:
            return False
        match looks.take():
            case Overview() as seen:
                watch.answered(seen)
            case FastscpError() as error:
                watch.failed(error)


class Watch:
    """What was seen of the service so far. clock: seconds of the epoch."""

    def __init__(self, first: Overview, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen = first
        self._before: Overview | None = None
        self._changed = ""
        self._trouble = ""
        self._since = 0.0

    def answered(self, seen: Overview) -> None:
        before, now = self._seen.status, seen.status
        # After a while without answers rates would be of that while, not of the interval.
        self._before = None if self._trouble else self._seen
        self._trouble, self._seen = "", seen
        if (before.pid, before.run) == (now.pid, now.run):
            return
        self._before = None
        began = moment(self._clock() - now.uptime_s)
        how = "took over from" if now.predecessor == before.pid else "serves instead of"
        self._changed = (
            f"process {now.pid} {how} process {before.pid}; it counts from its start, {began}"
        )

    def failed(self, error: FastscpError) -> None:
        if not self._trouble:
            self._since = self._clock()
        self._trouble = str(error)
        self._before = None

    def screen(self, foot: str = "", waited_s: float = 0.0) -> Screen:
        """What to show now. waited_s: how long a look has been under way."""
        trouble = ""
        if self._trouble:
            trouble = (
                f"no answer since {moment(self._since)}, and asked again; the figures are older: "
                f"{self._trouble}"
            )
        elif waited_s >= _SLOW_S:
            trouble = f"no answer for {waited_s:.0f} s; the figures are older"
        return Screen(self._seen, self._before, trouble, self._changed, foot)


class Looks:
    """One look after the other, each in a thread: a service that hangs holds up no key.

    look: blocks; raises FastscpError. wake: called when one is over, in that thread.
    """

    def __init__(self, look: Callable[[], Overview], wake: Callable[[], None]) -> None:
        self._look = look
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._found: Overview | Exception | None = None
        self._began = 0.0

    @property
    def waited_s(self) -> float:
        """How long the one under way takes by now; 0: there is none."""
        return time.monotonic() - self._began if self.is_under_way else 0.0

    @property
    def is_under_way(self) -> bool:
        return self._thread is not None

    def begin(self) -> None:
        self._began = time.monotonic()
        # Nobody waits for it at the end of the program.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._look()
        except Exception as error:  # raised again where it is taken
            self._found = error
        self._wake()

    def take(self) -> Overview | FastscpError | None:
        """What the look found, or why it found nothing; None: none is over."""
        found = self._found
        if found is None or self._thread is None:
            return None
        self._thread.join()
        self._thread = self._found = None
        if isinstance(found, (Overview, FastscpError)):
            return found
        raise found


class Terminal:
    """Keys as they are pressed, and an end to waiting for them.

    A context manager. Its methods are for the main thread, except `wake`.
    """

    def __init__(self) -> None:
        self.has_keys = os.isatty(_STDIN)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._awake, self._wake = map(stack.enter_context, socket.socketpair())
            self._awake.setblocking(False)
            self._wake.setblocking(False)
            before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, before)
            # That the size changed ends the wait; what is drawn then asks for the size itself.
            for number, handler in ((signal.SIGWINCH, _heard), (signal.SIGTERM, _end)):
                stack.callback(signal.signal, number, signal.signal(number, handler))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def by_keys(self) -> Iterator[None]:
        """Each key at once, and not shown; the terminal is as it was at the end.

        Ctrl-Z is a key, too, so that the screen can be left before.
        """
        if not self.has_keys:
            yield
            return
        before, modes = termios.tcgetattr(_STDIN), termios.tcgetattr(_STDIN)
        modes[3] &= ~(termios.ICANON | termios.ECHO)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        modes[6][termios.VSUSP] = b"\0"
        try:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, modes)
            yield
        finally:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)

    def wake(self) -> None:
        """End the wait, from any thread."""
        # One that is full wakes, too; and one that is closed is not waited for any more.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def wait(self, seconds: float) -> bytes:
        """Wait for keys, a signal, `wake`, or so long; returns the keys."""
        awake = self._awake.fileno()
        watched = [awake, _STDIN] if self.has_keys else [awake]
        ready, _, _ = select.select(watched, [], [], seconds)
        if awake in ready:
            self._awake.recv(4096)
        if _STDIN not in ready:
            return b""
        # A terminal that is gone has nothing to read, or fails.
        with contextlib.suppress(OSError):
            return os.read(_STDIN, 4096) or _ENDS
        return _ENDS


def _heard(_number: int, _frame: FrameType | None) -> None:
    pass


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_ENDED_BY + number)

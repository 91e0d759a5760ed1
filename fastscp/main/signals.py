"""What signals mean to main. TERM and INT end it; HUP reloads; USR2 upgrades; USR1 does nothing.

The last three are blocked from the first line of the program on, until somebody hears them here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

from fastscp.log import caused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

__all__ = ["heard", "hold_off"]

log = logging.getLogger("fastscp.main")

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_IGNORED: Final = {signal.SIGUSR1: "it means nothing to this service"}
_ALL: Final = {*_ENDING, signal.SIGHUP, signal.SIGUSR2, *_IGNORED}


def hold_off() -> None:
    """Let signals wait until `heard`; the first thing a service does.

    What ends a service waits, too: it then ends in order, however early it comes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)


@contextlib.contextmanager
def heard(
    loop: asyncio.AbstractEventLoop,
    end: Callable[[signal.Signals], None],
    reload: Callable[[], None],
    upgrade: Callable[[], None],
) -> Iterator[None]:
    """Hear signals on the loop while the block lasts.

    end(which): called for those that end it. reload(): for HUP, unless the terminal has gone.
    upgrade(): for USR2.
    After the block all of them wait: the process is about to end, and has its exit code.
    """
    # nohup asks for just this: a terminal that closes changes nothing.
    is_under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    had_terminal = _has_terminal()

    def hung_up() -> None:
        nonlocal had_terminal
        if not had_terminal or _has_terminal():
            reload()
        elif is_under_nohup:
            had_terminal = False
            log.info(
                "HUP: the terminal is gone, which changes nothing under nohup; another HUP reads "
                "the configuration anew"
            )
        else:
            log.info("HUP: the terminal is gone, which ends the service as TERM does")
            end(signal.SIGTERM)

    def ignored(name: signal.Signals) -> None:
        said = f"{name.name.removeprefix('SIG')} ignored"
        log.warning("%s: %s", said, _IGNORED[name], extra=caused(said))

    for name in _ENDING:
        loop.add_signal_handler(name, end, name)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGUSR2, upgrade)
    for name in _IGNORED:
        loop.add_signal_handler(name, ignored, name)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        fd = os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True

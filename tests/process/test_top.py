"""`fastscp top` on a terminal, of a service that ends and comes back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import threading
from typing import TYPE_CHECKING, Self

import pytest

from tests.kit import DEADLINE_S, Peer, Service, associate_rq, wait_for
from tests.process.upgrading import Upgrading

if TYPE_CHECKING:
    from pathlib import Path

ENTERS, LEAVES, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
HOME = "\x1b[H"


class OnTerminal:
    """`fastscp top` with a terminal of its own, of 100 columns and 30 lines."""

    def __init__(self, store: Path, *words: str) -> None:
        self._master, slave = os.openpty()
        self.resize(100)
        self.modes = termios.tcgetattr(slave)
        self._written = bytearray()

        def begin() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment = {
            **Service.environment(), "TERM": "xterm-256color", "PYTHONUTF8": "1", "NO_COLOR": "1"
        }  # fmt: skip
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*Service.program(), "top", "--store", str(store), "--interval", "0.1", *words],
            env=environment, stdin=slave, stdout=slave, stderr=slave, preexec_fn=begin,
        )  # fmt: skip
        # Kept open: its modes are looked at, and what is written last can be read.
        self._slave = slave
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._slave)
        # What reads hears of the last end that closes.
        self._reader.join(DEADLINE_S)
        os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self._written += data

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    @property
    def written(self) -> str:
        return self._written.decode("utf-8", "replace")

    def screens(self) -> list[list[str]]:
        """Those that are drawn whole, as lines without what is no text."""
        found = self.written.split(HOME)[1:-1]
        texts = (re.sub("\x1b[^A-Za-z]*[A-Za-z]", "", one) for one in found)
        return [[line.rstrip() for line in one.split("\r\n")] for one in texts]

    def shows(self, *texts: str) -> list[str]:
        """Waits for a screen drawn from now on that has these; returns it."""
        before = len(self.screens())
        found: list[list[str]] = []

        def has_all(screen: list[str]) -> bool:
            # A state may run on in the next line.
            text = " ".join(" ".join(screen).split())
            return all(map(text.__contains__, texts))

        def is_there() -> bool:
            assert self.process.poll() is None, self.written[-500:]
            found[:] = filter(has_all, self.screens()[before:])
            return bool(found)

        wait_for(is_there, f"a screen with {texts}")
        return found[-1]

    def ends(self) -> int:
        """Its exit code; the terminal is as it was before."""
        code = self.process.wait(DEADLINE_S)
        wait_for(lambda: self.written.count(LEAVES) == 1, "the end of the screen")
        assert self.written.count(ENTERS) == 1
        assert self.written.rfind(CURSOR) > self.written.rfind("\x1b[?25l")
        assert termios.tcgetattr(self._slave) == self.modes
        return code


def test_a_service_is_watched_while_it_ends_and_another_comes(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Service(tmp_path, workers=1))
        store, first = service.store, service.pid
        with OnTerminal(store) as top:
            with Peer(service.host, service.port) as peer:
                assert (peer.associate(associate_rq(calling="[bold]CT")) or b"")[0] == 2
                screen = top.shows("state accepting", "[bold]CT > FASTSCP", "0.0/s; ")
                assert "q ends; every 0.1 s" in screen
                assert 60 < max(map(len, screen)) <= 100
                top.resize(40)
                assert max(map(len, top.shows("version ", "..."))) <= 40
                top.resize(100)
            stack.close()
            top.shows("no answer since ", "no service runs on the store")
            with Service(tmp_path, store=store, workers=1):
                screen = top.shows("state accepting", f" instead of process {first}; it ")
                assert "no connections" in screen
                top.type(b"xq")
                assert top.ends() == 0


def test_an_upgrade_is_told_of(tmp_path: Path) -> None:
    with Upgrading(tmp_path, workers=1) as service, OnTerminal(service.store) as top:
        top.shows("state accepting")
        before = service.main()
        now = service.upgrade()
        top.shows("state accepting", f"process {now} ", f" process {before}; it counts")
        top.type(b"q")
        assert top.ends() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_the_terminal_as_it_was(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with Service(tmp_path, workers=1) as service, OnTerminal(service.store) as top:
        top.shows("no connections")
        if number == signal.SIGINT:
            top.type(b"\x03")
        else:
            top.process.send_signal(number)
        assert top.ends() == code
        assert ("fastscp: interrupted" in top.written) is (number == signal.SIGINT)


def test_a_service_that_hangs_holds_up_no_key(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service, OnTerminal(service.store) as top:
        top.shows("no connections")
        os.kill(service.pid, signal.SIGSTOP)
        try:
            drawn = len(top.screens())
            # A key has the screen drawn anew, also while the service is asked.
            top.type(b"x")
            wait_for(lambda: len(top.screens()) > drawn, "another screen")
            top.type(b"q")
            assert top.ends() == 0
        finally:
            os.kill(service.pid, signal.SIGCONT)

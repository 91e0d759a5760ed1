"""The log of the whole service: nobody who reads it, or does not, and no peer does it harm."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import (
    DEADLINE_S,
    Peer,
    Service,
    echo,
    store,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Piped(Service):
    """A service whose stderr is a pipe or a terminal that only the test reads, when it wants to."""

    def __init__(self, tmp_path: Path, ends: tuple[int, int], *flags: str) -> None:
        super().__init__(tmp_path, *flags)
        self.ours, self._theirs = ends
        os.set_blocking(self.ours, False)
        self._got = b""

    def __enter__(self) -> Piped:
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._theirs,
        )  # fmt: skip
        try:
            wait_for(lambda: b"\n" in self.read(), "the service listening")
            first = self._got.split(b"\n")[0].decode().strip()
            assert first.startswith("listening on "), first
            self.port = int(first.rpartition(":")[2])
            self.worker_pids()
        except BaseException:
            self.kill()
            raise
        return self

    def read(self) -> bytes:
        """All that was read up to now, and what can be read now."""
        with contextlib.suppress(BlockingIOError, OSError):
            while more := os.read(self.ours, 65536):
                self._got += more
        return self._got

    def log(self) -> str:
        return self._got.decode("utf-8", "replace")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def _fill(write_end: int) -> None:
    """Fill a pipe, without making it non-blocking for those who share it."""
    own = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(own, b"x")
    os.close(own)


def _works(service: Service) -> None:
    """Associations, stores, refusals and echoes in both workers, each with its lines."""
    for _ in range(20):
        with service.peer() as peer:
            peer.send(store(1) + store(2, sop="1..2") + echo(3))
            assert peer.read_statuses(3) == [(1, 0), (2, 0x0117), (3, 0)]
            peer.release()
    with Peer(service.host, service.port) as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        peer.read_until_close()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_pipe_stops_nothing(tmp_path: Path, pipe: tuple[int, int], form: str) -> None:
    with Piped(tmp_path, pipe, "--log-format", form, "--log-level", "trace") as service:
        service.read()
        _fill(pipe[1])
        _works(service)
        service.stop()


def test_who_reads_again_sees_what_was_lost(tmp_path: Path, pipe: tuple[int, int]) -> None:
    with Piped(tmp_path, pipe, "--log-level", "trace") as service:
        _fill(pipe[1])
        # Echoes until both workers' queues are full of what half of them is for.
        with service.peer() as one, service.peer() as other:
            for peer in (one, other):
                for _ in range(200):
                    peer.send(b"".join(echo(n) for n in range(50)))
                    for _ in range(50):
                        assert peer.read_response().status == 0
            text = r"WARNING (worker-\d): [\d,]+ lines were lost since 20[-0-9T:.]+Z"

            def told() -> set[str]:
                return set(re.findall(text, service.read().decode("utf-8", "replace")))

            wait_for(lambda: len(told()) == 2, "both workers telling what was lost")
        # From here on nothing is lost.
        with service.peer(calling="LATER") as peer:
            wait_for(lambda: f"{peer.name}: associated" in service.read().decode(), "a line")
        for pid in service.worker_pids():
            assert Path("/proc", str(pid)).exists()
        service.process.send_signal(signal.SIGTERM)
        # The rest is read while it ends.
        wait_for(lambda: service.read() is not None and service.process.poll() is not None, "end")
        service.ends(0)
        assert "main: stopped" in service.read().decode()


def test_the_first_line_waits_for_a_reader_and_stays_first(
    tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """Nobody reads from the start on; the service begins, and its first line is not lost."""
    _fill(pipe[1])
    service = Piped(tmp_path, pipe, "--log-level", "trace")
    with subprocess.Popen(
        service._command, cwd=tmp_path, env=service._environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=pipe[1],
    ) as process:  # fmt: skip
        service._process = process
        try:
            title = "fastscp: main, port "
            said = wait_for(
                lambda: Path("/proc", str(process.pid), "cmdline").read_text().partition(title)[2],
                "its port",
            )
            service.port = int(said.strip("\0 "))
            # It accepts a moment after it has its title.
            wait_for(lambda: _accepts(service), "the service listening")
            _works(service)
            wait_for(lambda: b"main: fastscp" in service.read(), "the lines")
            # The workers write by themselves: whose line gets the first room, nobody decides.
            lines = service.log().lstrip("x\n").split("\n")
            ours = [line for line in lines if " worker-" not in line]
            assert ours[0] == f"listening on 127.0.0.1:{service.port}"
            process.send_signal(signal.SIGTERM)
            service.ends(0)
        finally:
            service.kill()


def _accepts(service: Service) -> bool:
    try:
        service.echoes()
    except (OSError, AssertionError):
        return False
    return True


def test_a_stopped_terminal_stops_nothing(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with Piped(tmp_path, (ours, theirs)) as service:
            # What Ctrl-S does.
            termios.tcflow(theirs, termios.TCOOFF)
            _works(service)
            service.stop()
            termios.tcflow(theirs, termios.TCOON)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_reader_that_is_gone_ends_nothing(tmp_path: Path, pipe: tuple[int, int]) -> None:
    with Piped(tmp_path, pipe) as service:
        os.close(pipe[0])
        os.close(pipe[1])
        _works(service)
        service.stop()


def test_a_closed_stderr_is_no_file_of_the_store(tmp_path: Path) -> None:
    """Nobody gets descriptor 2 in its stead, and a log line with it."""
    with contextlib.ExitStack() as undo:
        service = Service(tmp_path)
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *service._command],
            cwd=tmp_path, env=service._environment,
        )  # fmt: skip
        service._process = process
        undo.callback(service.kill)
        wait_for(lambda: len(service.worker_pids()) == 2, "two workers")
        for pid in (process.pid, *service.worker_pids()):
            for fd in range(3):
                link = Path("/proc", str(pid), "fd", str(fd))
                assert wait_for(lambda one=link: os.readlink(one), "a descriptor") == os.devnull  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)


_FAILS = """
import sys, threading, warnings
from fastscp import log

class Fails:
    def __del__(self):
        raise ValueError("in a finalizer")

def fails():
    raise ValueError("in a thread")

log.configure("main", queued=True)
Fails()
thread = threading.Thread(target=fails)
thread.start()
thread.join()
warnings.warn("a warning")
raise ValueError("uncaught")
"""


@pytest.mark.parametrize("full", [True, False])
def test_tracebacks_do_not_wait_for_a_reader(pipe: tuple[int, int], full: bool) -> None:
    """The interpreter prints those that nobody catches, and would wait."""
    if full:
        _fill(pipe[1])
    else:
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 1 << 16)
    program = [sys.executable, "-c", _FAILS]
    environment = Service.environment()
    ended = subprocess.run(program, env=environment, stderr=pipe[1], timeout=DEADLINE_S)
    assert ended.returncode == 1
    if not full:
        said = os.read(pipe[0], 1 << 16).decode().splitlines()
        assert all(re.match(r"20\S+Z (ERROR|CRITICAL|WARNING) main: |  \| ", line) for line in said)
        for text in ("in a finalizer", "in a thread", "a warning", "uncaught"):
            assert any(text in line for line in said)

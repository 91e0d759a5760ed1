"""The service below a service manager: its sockets, and what it tells the manager."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import (
    DEADLINE_S,
    TLS,
    Peer,
    Service,
    abort,
    associate_rq,
    errors_in,
    send_signal,
    wait_for,
)
from tests.process.test_control import status_now
from tests.process.test_reload import LONG, REDO, more_traffic, under_load
from tests.process.test_upgrade import accepted, all_kept
from tests.process.upgrading import Upgrading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates

# Passes descriptors on as a manager does: each with its name, and the last is the program's first.
_ACTIVATE = (
    "import fcntl, os, sys\n"
    "passed = [one.split('=') for one in sys.argv[1].split(',')]\n"
    "copies = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 64) for name, fd in passed]\n"
    "for number, fd in enumerate(copies, 3):\n"
    "    os.dup2(fd, number)\n"
    "names = ':'.join(name for name, fd in passed)\n"
    "count = str(len(passed))\n"
    "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': count, 'LISTEN_FDNAMES': names}\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Activated(Upgrading):
    """Its listening sockets are the test's, and outlive it."""

    def __init__(
        self,
        tmp_path: Path,
        sock: socket.socket,
        *flags: str,
        secured: socket.socket | None = None,
        tls: TLS | None = None,
    ) -> None:
        super().__init__(tmp_path, *flags, tls=tls, plain=True)
        at = self._command.index("--host")
        del self._command[at : at + 4]
        if tls is not None:
            at = self._command.index("--tls-port")
            del self._command[at : at + 2]
        program = Service.program()[0]
        # TLS first: the order says nothing.
        passed = [*([("tls", secured)] if secured is not None else ()), ("dicom", sock)]
        words = ",".join(f"{name}={one.fileno()}" for name, one in passed)
        self._command[:0] = [program, "-c", _ACTIVATE, words]
        self._pass_fds = [one.fileno() for _name, one in passed]

    def _is_up(self) -> bool:
        # Another program may have said something before it.
        assert self.process.poll() is None, self.log()
        return "\nlistening on " in f"\n{self.log()}"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        yield sock


def environment_of(pid: int) -> set[str]:
    """The names in the environment that a process began with."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {word.partition(b"=")[0].decode() for word in words}


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=LONG)])
def test_restarts_behind_a_socket_under_load(
    tmp_path: Path, listening: socket.socket, rounds: int
) -> None:
    """Who comes meanwhile waits for the next start; who is there already goes on."""
    with Activated(tmp_path, listening, *REDO) as service:
        assert service.port == listening.getsockname()[1]
        assert not {"LISTEN_FDS", "NOTIFY_SOCKET"} & environment_of(service.worker_pids()[0])
        logs = []
        with under_load(service) as senders:
            for _ in range(rounds):
                service.process.send_signal(signal.SIGTERM)
                service.ends(0)
                logs.append(service.log())
                service.__enter__()
                more_traffic(senders)
        service.stop()
        for log in (*logs, service.log()):
            assert errors_in(log) == []
            assert "redo log: on" in log
            assert "rejected (" not in log
        assert "new ones wait for the next start" in logs[0]
        all_kept(service, senders)


def test_a_drain_behind_a_socket(tmp_path: Path, listening: socket.socket) -> None:
    """It says so, and ends what it has."""
    with Activated(tmp_path, listening, "--drain-timeout", "300ms") as service:
        with (
            service.peer() as idle,
            Peer(service.host, service.port) as late,
            contextlib.ExitStack() as stopped,
        ):
            # It is accepted, and no association yet.
            wait_for(lambda: status_now(service).connections == 2, "both")
            workers = service.worker_pids()
            # The request is there when they hear of the end, whose time is short.
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
                stopped.callback(send_signal, pid, signal.SIGCONT)
            service.process.send_signal(signal.SIGTERM)
            service.in_log("SIGTERM: ")
            late.send(associate_rq())
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            answer = late.read_pdu()
            assert answer is not None
            assert answer[0] == 2
            for peer in (idle, late):
                assert peer.read_until_close() == abort(0, 0)
                peer.close()
            wait_for(lambda: service.process.poll() is not None, "the end")
        service.all_end()


def test_systemd_activates_it(tmp_path: Path, listening: socket.socket) -> None:
    """By its own program, which passes on what it is passed, and starts the service for a peer."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not there")
    with Activated(tmp_path, listening) as service:
        service.stop()
        at = service._command.index(f"dicom={listening.fileno()}") + 1
        # Nothing else comes through, such as what keeps compiled modules from beside the sources.
        kept = [one for one in Service.environment().items() if one[0].startswith("PYTHON")]
        passed = [word for name, value in kept for word in ("-E", f"{name}={value}")]
        service._command[at:at] = [program, "--fdname=dicom", *passed]
        visitor = socket.create_connection(listening.getsockname())
        with visitor, service:
            visitor.close()
            service.echoes()


def test_sockets_for_both_ports(
    tmp_path: Path, listening: socket.socket, certificates: Certificates
) -> None:
    """Each is known by its name, also to a successor."""
    tls = TLS(("--tls-cert", str(certificates.server.both)), certificates.client_context())
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as secured,
        Activated(tmp_path, listening, secured=secured, tls=tls) as service,
    ):
        assert service.port == listening.getsockname()[1]
        assert service.tls_port == secured.getsockname()[1]
        for _ in range(2):
            for is_secured in (False, True):
                with service.connect(secured=is_secured) as peer:
                    accepted(peer)
                    peer.release()
            service.upgrade()
            service.is_alone()


def test_a_port_beside_the_sockets_ends_the_start(tmp_path: Path, listening: socket.socket) -> None:
    done = subprocess.run(
        [Service.program()[0], "-c", _ACTIVATE, f"dicom={listening.fileno()}", *Service.program(),
         "serve", "--port", "11112"],
        cwd=tmp_path, env=Service.environment(), pass_fds=[listening.fileno()],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--port: contradicts the listening sockets" in done.stderr
    assert "flag --port" in done.stderr
    assert not (tmp_path / "dicom-store").exists()


class Manager(threading.Thread):
    """Reads what it is told, at once, as a service manager does."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._said: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    def run(self) -> None:
        while message := self._sock.recv(65536):
            self._said.put(dict(line.split("=", 1) for line in message.decode().split("\n")))

    def until(self, word: str) -> dict[str, str]:
        """The next message with that word; those before it are forgotten."""
        while True:
            message = self._said.get(timeout=DEADLINE_S)
            if word in message:
                return message

    def forget(self) -> None:
        """All that was said by now, also what has not been read yet: this comes behind it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"NOTHING=1", self._sock.getsockname())
        self.until("NOTHING")

    def is_silent(self, word: str, seconds: float) -> bool:
        """Whether nothing with that word comes for so long."""
        end = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while (left := end - time.monotonic()) > 0:
                if word in self._said.get(timeout=left):
                    return False
        return True

    def close(self) -> None:
        name = self._sock.getsockname()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", name)
        self.join()
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    one.start()
    yield one
    one.close()


def test_what_the_manager_is_told(tmp_path: Path, manager: Manager) -> None:
    """By whoever is the service at the time, and by nobody else."""
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with Upgrading(tmp_path, env=env, workers=1) as service:
        assert manager.until("READY")["STATUS"] == "accepting; 0 associations, 0 instances stored"
        manager.until("WATCHDOG")
        (worker,) = service.worker_pids()
        assert not env.keys() & environment_of(worker)
        before = time.monotonic_ns() // 1000
        service.process.send_signal(signal.SIGHUP)
        assert int(manager.until("RELOADING")["MONOTONIC_USEC"]) >= before
        manager.until("READY")
        now = service.upgrade()
        assert manager.until("MAINPID") == {"MAINPID": str(now)}
        manager.until("READY")
        service.is_alone()
        (worker,) = service.worker_pids()
        assert not env.keys() & environment_of(worker)
        manager.until("WATCHDOG")
        # As long as no loop of a worker goes on there is no sign of life.
        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda: status_now(service).state == "no worker answers", "silence")
        manager.forget()
        assert manager.is_silent("WATCHDOG", 0.3)
        os.kill(worker, signal.SIGCONT)
        manager.until("WATCHDOG")
        service.stop()
        assert manager.until("STOPPING")["EXTEND_TIMEOUT_USEC"] == "60000000"

"""Connections on their way to workers that are stopped, let go on and killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from tests.kit import Peer, Service, associate_rq, wait_for


def _files(pid: int, kind: str = "") -> int:
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith(kind)
    return found


def _is_up(pid: int) -> bool:
    """Whether a worker has come as far as to hear SIGTERM, which is the last thing it does."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("rounds", [20, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_no_descriptor_is_left_whatever_becomes_of_the_workers(tmp_path: Path, rounds: int) -> None:
    """Ten connections a round, of which some ask and some leave: main closes each of its copies."""
    random_ = random.Random(rounds)
    rq = associate_rq()

    def all_up() -> bool:
        pids = service.worker_pids()
        return len(pids) == 3 and all(map(_is_up, pids))

    def files() -> tuple[int, int]:
        """Of main, and the sockets of all workers."""
        return _files(service.pid), sum(_files(pid, "socket:") for pid in service.worker_pids())

    with Service(tmp_path, "-q", workers=3) as service:
        for _ in range(9):
            service.echoes()
        before = wait_for(lambda: (all_up() and files()) or None, "three workers")
        stopped: list[int] = []
        for n in range(rounds):
            if n % 10 == 3:
                stopped.append(random_.choice(service.worker_pids()))
                os.kill(stopped[-1], signal.SIGSTOP)
            with contextlib.ExitStack() as closed:
                for _ in range(10):
                    peer = closed.enter_context(Peer(service.host, service.port))
                    peer.send(rq[: random_.choice([0, 5, len(rq), len(rq)])])
                    if random_.random() < 0.3:
                        peer.reset()
                if n % 10 == 5 and stopped:
                    # With these on their way to it, or with what it has of them.
                    pid = stopped.pop()
                    os.kill(pid, signal.SIGKILL if n % 20 == 5 else signal.SIGCONT)
                elif n % 10 == 8:
                    os.kill(random_.choice(service.worker_pids()), signal.SIGKILL)
            if n % 10 in (5, 8):
                wait_for(all_up, "three workers")
            # Whoever is offered to a stopped worker goes on to another.
            service.echoes()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        wait_for(all_up, "three workers")
        for _ in range(9):
            service.echoes()
        wait_for(lambda: files() <= before and files()[1] <= before[1], "all copies closed")

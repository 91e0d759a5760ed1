"""What main's shared memory tells of a running service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from fastscp.messages.channel import Channel
from fastscp.messages.configuration import pack
from fastscp.messages.worker import Configured, Failed, FromWorker
from fastscp_ext import Shared
from tests.books import configuration
from tests.kit import ELE, SOP, Service, store, wait_for
from tests.unit.test_channel import SETUP


def shared_of(pid: int) -> Shared:
    """The block that a process holds, as another process would attach to it."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(entry).startswith("/memfd:fastscp ("):
            return Shared(os.open(entry, os.O_RDWR))
    raise AssertionError("no block")


def test_main_counts_what_its_workers_did_and_do(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        rows = shared_of(service.pid).rows
        sent = [store(1, sop=f"{SOP}.{n}") for n in range(2)]
        with service.peer() as peer:
            peer.send(sent[0])
            assert peer.read_statuses(1) == [(1, 0)]
            (worker,) = service.worker_pids()
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: service.worker_pids() not in ([], [worker]), "another worker")
        with service.peer() as peer:
            peer.send(sent[1])
            assert peer.read_statuses(1) == [(1, 0)]
            peer.release()
        counts = rows.by_ae()
        assert list(counts) == ["KIT"]
        assert counts["KIT"][::2] == (2, 0)
        assert rows.by_transfer_syntax() == {ELE: counts["KIT"]}
        assert rows.by_status() == {(0, "stored"): counts["KIT"]}
        assert rows.received() > sum(map(len, sent)) > counts["KIT"].bytes
        assert sum(rows.times()["whole"].buckets) == 2
        service.stop()


def test_a_worker_says_that_it_does_not_know_the_block() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shared = Shared()
    os.pwrite(shared.fd, b"\x0a", 8)
    channel = Channel(ours, FromWorker)
    try:
        channel.send(SETUP)
        memory = pack(configuration())
        channel.send(Configured(0), memory)
        os.close(memory)
        call = "import sys; from fastscp.worker.process import main; main(sys.argv[1:])"
        numbers = [theirs.fileno(), shared.fd, shared.common_fd, 0, 0]
        ended = subprocess.run(
            [sys.executable, "-c", call, *map(str, numbers)], pass_fds=numbers, timeout=60,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert ended.returncode == 3
        ((said, _fd),) = channel.receive()
        assert isinstance(said, Failed)
        assert "the shared block has version 10, this program knows" in said.why
    finally:
        channel.close()
        theirs.close()

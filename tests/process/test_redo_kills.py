"""Killed under load with a redo log: what was acknowledged is there, and has one line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.kept.test_redo_order import is_ready
from tests.kit import Service, data_set, path_of, store, wait_for
from tests.redo_files import write_log

if TYPE_CHECKING:
    from pathlib import Path

SENDERS = 3


class Load:
    """Senders that go on with new instances until they are told to end, whatever befalls them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        # By SOP Instance UID: the data that were acknowledged.
        self.stored: dict[str, bytes] = {}
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self, sender: int) -> None:
        number = 0
        while not self._over.is_set():
            # The connection breaks with its worker, and nobody listens after the service.
            with contextlib.suppress(Exception), self._service.peer() as peer:
                while not self._over.is_set():
                    number += 1
                    sop = f"1.2.3.{sender + 1}.{os.getpid()}.{number}"
                    data = data_set(sop=sop, seed=number)
                    peer.send(store(1, data, sop=sop))
                    if peer.read_statuses(1) == [(1, 0)]:
                        self.stored[sop] = data

    def more(self, count: int = 20) -> None:
        """Wait until so many more are acknowledged."""
        before = len(self.stored)
        wait_for(lambda: len(self.stored) >= before + count, "more instances")


def check(service: Service, stored: dict[str, bytes]) -> None:
    """Each has its file, whole, and one line; and no number stands twice."""
    facts = service.journal()
    numbers = [fact["seq"] for fact in facts]
    assert len(set(numbers)) == len(numbers)
    paths = [fact["path"] for fact in facts]
    assert len(stored) > 50
    for sop, data in stored.items():
        assert paths.count(path_of(sop)) == 1, sop
        assert service.data_of(path_of(sop)) == data


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*Service.program(), *words], env=Service.environment(), text=True, capture_output=True,
        check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.long
def test_workers_killed_under_load(tmp_path: Path) -> None:
    with Service(tmp_path, "--redo", "on", workers=2) as service:
        with Load(service) as load:
            for _ in range(4):
                load.more()
                os.kill(service.worker_pids()[0], signal.SIGKILL)
            load.more()
        # In any case it is one that has had its worker killed.
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)
        logs = list((service.store / ".fastscp/redo").glob("*.log"))
        assert logs == []
        # What the dead left was recovered: an older version may have the store.
        assert "format = 1" in (service.store / ".fastscp/store.toml").read_text()
        check(service, load.stored)
        assert "ended unexpectedly" in service.log()
    done = command("verify", "--store", str(service.store))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("by", ["start", pytest.param("recover", marks=pytest.mark.long)])
def test_all_killed_under_load(tmp_path: Path, by: str) -> None:
    service = Service(tmp_path, "--redo", "on", workers=2)
    with service, Load(service) as load:
        # Until it is made, instances go the other way.
        wait_for(lambda: is_ready(service.store, 1), "a log file")
        load.more(80)
        service.kill()
    assert "format = 2" in (service.store / ".fastscp/store.toml").read_text()
    assert list((service.store / ".fastscp/redo").glob("*.log"))
    refused = command("verify", "--store", str(service.store))
    assert (refused.returncode, "fastscp recover" in refused.stderr) == (3, True)
    if by == "recover":
        done = command("recover", "--store", str(service.store))
        assert done.returncode == 0, done.stderr
        assert "format = 1" in (service.store / ".fastscp/store.toml").read_text()
    else:
        with Service(tmp_path, "--redo", "on", store=service.store, workers=1) as after:
            after.in_log("from the redo log of workers that did not end in order")
    assert list((service.store / ".fastscp/redo").glob("*.log")) == []
    check(service, load.stored)
    done = command("verify", "--store", str(service.store))
    assert done.returncode == 0, done.stdout
    assert "format = 1" in (service.store / ".fastscp/store.toml").read_text()


@pytest.mark.long
def test_a_service_that_could_not_recover_says_so_at_its_end(tmp_path: Path) -> None:
    with Service(tmp_path, "--redo", "on", workers=1) as service:
        foreign = write_log(service.store, "5-w0-1", [], store_id="other")
        os.kill(service.worker_pids()[0], signal.SIGKILL)
        service.in_log("nothing is stored until that is done")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 1
        assert "the redo log of a dead worker stays in" in service.log()
        assert "format = 2" in (service.store / ".fastscp/store.toml").read_text()
        assert foreign.exists()

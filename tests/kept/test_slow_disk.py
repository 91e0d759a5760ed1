"""A slow disk: instances that wait for it together share its flushes; one that hangs is alone."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from tests.kept.kit_kept import CLOSE, HOLD_BEFORE, UNLINK, Interposed, items, send_all
from tests.kit import (
    DEADLINE_S,
    Service,
    data_set,
    echo,
    message,
    store,
    store_rq,
    wait_for,
)

MOST = 256


def flushes(shared: Path) -> int:
    """How many the disk has done so far; a call that shares another's is none of its own."""
    return int(struct.unpack_from("<Q", shared.read_bytes(), 16)[0])


def flushes_per_instance(
    tmp_path: Path, library: Path, n: int, *, associations: int, window: int, redo: str = "off"
) -> float:
    shared = tmp_path / "shared"
    shared.touch()
    # Long enough that a sender comes back while it goes on, where the machine is busy, too.
    delay_us = "50000" if associations * window > 1 else "5000"
    env = {"LD_PRELOAD": str(library), "SLOW_FILE": str(shared), "SLOW_US": delay_us}
    what = items("1", n, studies=1, series=1, pixels=1000)
    with Service(tmp_path, "--redo", redo, env=env, workers=1) as service:
        if redo == "on":
            # The first instance goes the other way, and has the log made.
            assert not send_all(service.port, items("2", 1)).broken
            wait_for(lambda: any((service.store / ".fastscp/redo").glob("*.log")), "a log")
        before = flushes(shared)
        sent = send_all(service.port, what, associations=associations, window=window)
        assert not sent.broken
        assert len(sent.acknowledged) == n
        return (flushes(shared) - before) / n


def test_alone_every_instance_waits_for_three(tmp_path: Path, slow_library: Path) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 40, associations=1, window=1)
    # File, folder, journal; and a few for what is new to the first one.
    assert 3 <= found < 3.5


def test_alone_every_instance_waits_for_one_with_the_redo_log(
    tmp_path: Path, slow_library: Path
) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 100, associations=1, window=1, redo="on")
    # That of the log; and its making, and what a checkpoint flushes meanwhile is merged.
    assert 1 <= found < 2


def test_associations_share_them(tmp_path: Path, slow_library: Path) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 320, associations=32, window=1)
    assert found < 1


def test_outstanding_instances_of_one_association_share_them(
    tmp_path: Path, slow_library: Path
) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 320, associations=1, window=32)
    assert found < 1


# One that hangs --------------------------------------------------------------------------------


def break_off(service: Service) -> None:
    """An association that is aborted inside a message whose part is there already."""
    before = len(service.parts())
    with service.peer() as peer:
        peer.send(
            message(store_rq(1, sop="1.2.7"), data_set(sop="1.2.7", pixels=300_000))[:200_000]
        )
        wait_for(lambda: len(service.parts()) > before, "the part")


def serves(service: Service, sop: str) -> None:
    """An association of its own is answered at once."""
    with service.peer() as peer:
        peer.send(echo(7))
        assert peer.read_response().status == 0
        peer.send(store(1, data_set(sop=sop), sop=sop))
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()


@pytest.mark.parametrize("durability", ["stable", "buffered"])
@pytest.mark.parametrize("call", [UNLINK, CLOSE], ids=["unlink", "close"])
def test_a_part_whose_removal_hangs_holds_nobody_up(
    tmp_path: Path, library: Path, durability: str, call: int
) -> None:
    flags = ("--durability", durability)
    with Interposed(tmp_path, library, *flags, log=False, workers=1) as service:
        rule = service.control.rule([call], HOLD_BEFORE, path=".part", left=1)
        break_off(service)
        wait_for(lambda: service.control.hits(rule) == 1, "the call that hangs")
        break_off(service)
        serves(service, "1.2.1")
        serves(service, "1.2.2")
        assert len(service.parts()) == 2
        service.control.lift(rule)
        wait_for(lambda: not service.parts(), "the end of the parts")


def test_parts_whose_removal_hangs_are_bounded(tmp_path: Path, library: Path) -> None:
    """Reading pauses while too many wait, and goes on when the disk does."""
    n = 3 * MOST
    flags = ("--on-duplicate", "refuse", "--durability", "buffered")
    with (
        Interposed(tmp_path, library, *flags, log=False, workers=1) as service,
        service.peer(window=64) as peer,
    ):
        rule = service.control.rule([UNLINK], HOLD_BEFORE, path=".part")
        peer.send(store(0))
        assert peer.read_statuses(1) == [(0, 0)]
        # Large enough for many reads: one that is under way is not broken off.
        large = [data_set(seed=seed, pixels=32_000) for seed in range(1, 5)]
        others = b"".join(store(k, large[k % 4]) for k in range(1, n + 1))
        sending = threading.Thread(target=peer.send, args=(others,))
        answers: list[tuple[int, int]] = []
        reading = threading.Thread(target=lambda: answers.extend(peer.read_statuses(n)))
        sending.start()
        reading.start()
        try:
            wait_for(lambda: len(service.parts()) >= MOST, "many parts")
            for _ in range(20):
                service.echoes()
            # Beside those that wait, what is owed to one association, and one read.
            assert len(service.parts()) <= MOST + 64 + 32 + 1
        finally:
            service.control.lift(rule)
            sending.join(DEADLINE_S)
            reading.join(DEADLINE_S)
        assert answers == [(k, 0xC000) for k in range(1, n + 1)]
        wait_for(lambda: not service.parts(), "the end of the parts")
        peer.release()


def test_a_worker_whose_disk_hangs_still_ends_and_says_why(tmp_path: Path, library: Path) -> None:
    with Interposed(tmp_path, library, log=False, workers=1) as service:
        rule = service.control.rule([UNLINK], HOLD_BEFORE, path=".part", left=1)
        break_off(service)
        wait_for(lambda: service.control.hits(rule) == 1, "the call that hangs")
        (worker,) = service.worker_pids()
        service.process.terminate()
        service.in_log("SIGTERM")
        # The second one ends it at once: there is no waiting for the drain time.
        service.process.terminate()
        assert "and 1 part to be removed" in service.in_log("the disk hangs: ending")
        service.process.wait(DEADLINE_S)
        wait_for(lambda: not Path("/proc", str(worker)).exists(), "the end of the worker")
    with Service(tmp_path, store=service.store) as after:
        assert after.parts() == []

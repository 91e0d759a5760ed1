"""A store that an unclean buffered life left suspect: its journal is looked into by an index."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from tests.kept.kit_kept import FAIL, HOLD_BEFORE, LOOK, Interposed, Item, items
from tests.kit import data_set, open_paths, store, wait_for

if TYPE_CHECKING:
    from pathlib import Path

KEEP = ("--on-duplicate", "keep", "--durability", "buffered")
KEPT = 0xB006
EIO = 5
BUILT = "the index of the journal is built"


def suspect_store(tmp_path: Path, library: Path, what: list[Item]) -> str:
    """Store these, and leave the mark of an unclean end; returns the name of their segment."""
    with Interposed(tmp_path, library, *KEEP, log=False, workers=1) as service:
        for item in what:
            assert put(service, item) == 0
    (tmp_path / "disk/store/.fastscp/suspect").touch()
    (segment,) = (tmp_path / "disk/store/.fastscp/journal").iterdir()
    return segment.name


def put(service: Interposed, item: Item, seed: int = -1) -> int:
    """Send an instance; seed: not -1: other bytes with its UIDs. Returns the status."""
    with service.peer() as peer:
        peer.send(store(1, item.data if seed < 0 else other(item, seed), sop=item.sop))
        status = peer.read_response().status
        peer.release()
    return status


def other(item: Item, seed: int) -> bytes:
    study, series = item.path.split("/")[:2]
    return data_set(study=study, series=series, sop=item.sop, seed=seed + 99, pixels=3000)


def has_index(pid: int) -> bool:
    return any("memfd:fastscp-lines" in path for path in open_paths(pid))


def test_every_worker_gets_the_index_and_its_successor_too(tmp_path: Path, library: Path) -> None:
    old = items("1", 4)
    suspect_store(tmp_path, library, old[:3])
    # One file without a line, and one that is not what its line says.
    home = tmp_path / "disk/store"
    (home / old[3].path).parent.mkdir(parents=True, exist_ok=True)
    (home / old[3].path).write_bytes((home / old[0].path).read_bytes())
    (home / old[2].path).write_bytes(bytes(4000))
    with Interposed(tmp_path, library, *KEEP, log=False) as service:
        assert " 3 lines" in service.in_log(BUILT)
        before = service.worker_pids()
        assert all(has_index(pid) for pid in (service.pid, *before))
        assert put(service, old[0], 1) == KEPT
        assert put(service, old[2], 1) == 0
        assert put(service, old[3], 1) == 0
        # Lines of this run, in the index or not yet.
        for seed in range(2, 5):
            assert put(service, old[2], seed) == KEPT
            assert put(service, old[3], seed) == KEPT
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(service.worker_pids()) - set(before)) == 2, "two other workers")
        assert all(put(service, old[n], 9) == KEPT for n in (0, 2, 3))
        assert all(has_index(pid) for pid in service.worker_pids())
        assert service.data_of(old[2].path) == other(old[2], 1)
        assert service.data_of(old[3].path) == other(old[3], 1)
        # Workers were killed, which the end of the service tells with its exit code.
        service.kill()


def test_a_store_that_is_not_suspect_has_no_index(tmp_path: Path, library: Path) -> None:
    (item,) = items("1", 1)
    suspect_store(tmp_path, library, [item])
    (tmp_path / "disk/store/.fastscp/suspect").unlink()
    with Interposed(tmp_path, library, *KEEP, log=False) as service:
        assert put(service, item, 1) == KEPT
        assert not any(has_index(pid) for pid in (service.pid, *service.worker_pids()))


def test_what_needs_no_line_does_not_wait_for_the_index(tmp_path: Path, library: Path) -> None:
    old, new = items("1", 1), items("2", 2)
    segment = suspect_store(tmp_path, library, old)
    service = Interposed(tmp_path, library, *KEEP, log=False, workers=1)
    # The start reads its end first.
    held = service.control.rule([LOOK], HOLD_BEFORE, path=segment, skip=1, left=1)
    with service, service.peer() as waiting:
        wait_for(lambda: service.control.hits(held) == 1, "the building of the index being held")
        waiting.send(store(1, other(old[0], 1), sop=old[0].sop))
        assert [put(service, item) for item in (*new, *old)] == [0, 0, 0]
        answered, _, _ = select.select([waiting.socket], [], [], 0.3)
        assert not answered
        assert BUILT not in service.log()
        service.control.lift(held)
        assert waiting.read_response().status == KEPT
        waiting.release()
        service.in_log(BUILT)


@pytest.mark.parametrize("told", ["once", "twice"])
def test_the_end_does_not_wait_for_the_index(tmp_path: Path, library: Path, told: str) -> None:
    segment = suspect_store(tmp_path, library, items("1", 1))
    service = Interposed(tmp_path, library, *KEEP, log=False, workers=1)
    held = service.control.rule([LOOK], HOLD_BEFORE, path=segment, skip=1, left=1)
    with service:
        wait_for(lambda: service.control.hits(held) == 1, "the building of the index being held")
        if told == "twice":
            service.process.send_signal(signal.SIGTERM)
        service.stop()
        assert service.process.returncode == 0


def test_an_index_that_cannot_be_built_is_built_later(tmp_path: Path, library: Path) -> None:
    """Until then the journal itself is read, and an error there costs only who needs its lines."""
    old, new = items("1", 1), items("2", 1)
    segment = suspect_store(tmp_path, library, old)
    service = Interposed(tmp_path, library, *KEEP, log=False, workers=1)
    bad = service.control.rule([LOOK], FAIL, error=EIO, path=segment, skip=1)
    with service:
        line = service.in_log("cannot build the index of the journal")
        assert "Input/output error" in line
        assert "reading the whole journal" in line
        assert put(service, new[0]) == 0
        assert put(service, old[0]) == 0
        assert put(service, old[0], 1) == 0xA700
        assert service.data_of(old[0].path) == old[0].data
        service.control.lift(bad)
        service.in_log(BUILT)
        assert put(service, old[0], 1) == KEPT
        assert service.log().count("cannot build the index") == 1

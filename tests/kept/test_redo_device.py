"""Power cuts under real file systems while small instances take the redo log."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.verify import verify
from tests.disks import KINDS, VARIANTS, attached, make, program
from tests.kept.device.cuts import Cuts, chosen
from tests.kept.device.disk import scratch
from tests.kept.device.record import Record
from tests.kept.kit_kept import facts_of, files_of, items, send_all
from tests.kept.model import Model, Tally, known_at
from tests.kept.test_block_device import Recorded, cut, record, workload
from tests.kept.test_redo_order import with_logs
from tests.kit import DEADLINE_S, Service, send_signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kept.conftest import Figures
    from tests.kept.kit_kept import Sending

REDO: Final = ("--redo", "on")
# Room for the log files of four workers.
SIZE: Final = 512 << 20
WORKERS: Final = 4
OK: Final = 0
# An ext4 without a journal writes the removal of a name when it likes, and may have given its inode
# to another file by then, which is flushed: the name is there again and leads to that file. A start
# that recovers removes many names and makes many files. So nothing is promised there.
RECOVERED: Final = tuple(kind for kind in (*KINDS, *VARIANTS) if kind != "ext4 without journal")


def logged(kind: str, folder: Path, recorder: Path, policy: str = "version") -> Recorded:
    """What a service did whose workers all have a log by the time that it counts as ready."""

    def first(service: Service, clock: Callable[[], int]) -> list[Sending]:
        return with_logs(service, WORKERS, clock)

    return record(
        kind, folder, recorder, *REDO,
        policy=policy, scale=6, seed=1, first=first, workers=WORKERS, size=SIZE,
    )  # fmt: skip


@pytest.mark.long
def test_a_store_and_its_logs_are_made(tmp_path: Path, recorder: Path, figures: Figures) -> None:
    """The power may go before there is a store, and while a log file is written with zeros."""
    with scratch(tmp_path) as folder:
        done = record("ext4", folder, recorder, *REDO, size=128 << 20, scale=2)
        tally, bad = cut(done, folder, 10, start=done.mounted)
    figures.add("power cuts, redo log being made", "ext4", tally)
    assert bad == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", ["version", "replace"])
@pytest.mark.parametrize("kind", [*KINDS, *VARIANTS])
def test_the_redo_log_loses_nothing_on_real_file_systems(
    tmp_path: Path, recorder: Path, kind: str, policy: str, figures: Figures
) -> None:
    with scratch(tmp_path) as folder:
        done = logged(kind, folder, recorder, policy)
        assert all(one.status == 0 for one in done.sendings)
        tally, bad = cut(done, folder, 100, seed=1, start_every=20, most=3)
    figures.add(f"power cuts, redo log, {policy}", kind, tally)
    assert bad == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_without_a_recovery_there_are_losses(tmp_path: Path, recorder: Path, kind: str) -> None:
    """What the log is for: a name may be there before its file is."""
    with scratch(tmp_path) as folder:
        done = logged(kind, folder, recorder)
        _tally, bad = cut(done, folder, 100, seed=1, most=1, recover=False)
    assert any("answered 0000 and in no version" in one for one in bad)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", ["version", "replace"])
@pytest.mark.parametrize("kind", RECOVERED)
def test_a_cut_while_a_start_recovers(
    tmp_path: Path, recorder: Path, kind: str, policy: str, figures: Figures
) -> None:
    rng = random.Random(5)
    with scratch(tmp_path) as folder:
        first = logged(kind, folder / "first", recorder, policy)
        with Record(first.log) as entries:
            cuts = Cuts(kind, first.base, entries, folder / "first/cuts")
            for number, k in enumerate(chosen(entries, first.ready, 4, rng)):
                where, image = cuts.make(k, rng)
                again = folder / f"{number}"
                second = record(
                    kind, again, recorder, *REDO, policy=policy, scale=0, image=image,
                    before=known_at(first.sendings, where.position), since=where.position + 1,
                )  # fmt: skip
                tally, bad = cut(
                    second, again, 12, seed=number, start=second.mounted, end=second.ready
                )
                figures.add(f"power cuts while a start recovers, {policy}", kind, tally)
                assert bad == [], where
                shutil.rmtree(again)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["version", "replace"])
def test_a_file_system_that_shuts_down(tmp_path: Path, policy: str, figures: Figures) -> None:
    """In the same boot: the log tells by the mount that names and bytes may have gone."""
    xfs_io = program("xfs_io", "xfsprogs")
    flags = (*REDO, "--min-free-space", "0", "--on-duplicate", policy)
    model = Model(policy, tally=Tally(cuts=1))
    with scratch(tmp_path) as folder:
        make("xfs", folder / "image", SIZE)
        store = folder / "mounted/store"
        with attached("xfs", folder / "image", store.parent):
            service = Service(folder / "run", *flags, store=store, workers=WORKERS)
            with service:
                sendings = with_logs(service, WORKERS)
                # Longer than a checkpoint is waited for.
                sendings += workload(service, time.monotonic_ns, 4, 1)
                subprocess.run([xfs_io, "-x", "-c", "shutdown", store.parent], check=True)
                late = send_all(service.port, items("8", 12))
                for pid in (service.pid, *service.worker_pids()):
                    send_signal(pid, signal.SIGKILL)
                service.process.wait(DEADLINE_S)
                service.kill()
        assert OK not in [one.status for one in late.sendings]
        model.sendings = known_at([*sendings, *late.sendings], time.monotonic_ns())
        with attached("xfs", folder / "image", store.parent):
            with Service(folder / "run", *flags, store=store) as service:
                assert "0 files written anew" not in service.in_log("recovered ")
                bad = model.faults(files_of(store), facts_of(store))
            assert [*bad, *verify(store, patience_s=0.0).findings] == []
    figures.add(f"shut down, redo log, {policy}", "xfs", model.tally)

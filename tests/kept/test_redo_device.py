"""Power cuts under real file systems while small instances take the redo log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.disks import KINDS, VARIANTS
from tests.kept.device.disk import scratch
from tests.kept.test_block_device import cut, record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kept.conftest import Figures

REDO: Final = ("--redo", "on")
# Room for the log files of four workers.
SIZE: Final = 512 << 20


@pytest.mark.long
def test_the_redo_log_loses_nothing_on_ext4(
    tmp_path: Path, recorder: Path, figures: Figures
) -> None:
    with scratch(tmp_path) as folder:
        done = record("ext4", folder, recorder, *REDO, size=128 << 20, scale=2)
        tally, bad = cut(done, folder, 10)
    figures.add("power cuts, redo log, version", "ext4", tally)
    assert bad == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", ["version", "replace"])
@pytest.mark.parametrize("kind", [*KINDS, *VARIANTS])
def test_the_redo_log_loses_nothing_on_real_file_systems(
    tmp_path: Path, recorder: Path, kind: str, policy: str, figures: Figures
) -> None:
    with scratch(tmp_path) as folder:
        done = record(
            kind, folder, recorder, *REDO, policy=policy, scale=6, seed=1, workers=4, size=SIZE
        )
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
        done = record(kind, folder, recorder, *REDO, scale=6, seed=1, workers=4, size=SIZE)
        _tally, bad = cut(done, folder, 100, seed=1, most=1, recover=False)
    assert bad

"""A slow disk: instances that wait for it together share its flushes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.kept.kit_kept import items, send_all
from tests.kit import Service

if TYPE_CHECKING:
    from pathlib import Path


def flushes(shared: Path) -> int:
    """How many the disk has done so far; a call that shares another's is none of its own."""
    return int(struct.unpack_from("<Q", shared.read_bytes(), 16)[0])


def flushes_per_instance(
    tmp_path: Path, library: Path, n: int, *, associations: int, window: int
) -> float:
    shared = tmp_path / "shared"
    shared.touch()
    # Long enough that a sender comes back while it goes on, where the machine is busy, too.
    delay_us = "50000" if associations * window > 1 else "5000"
    env = {"LD_PRELOAD": str(library), "SLOW_FILE": str(shared), "SLOW_US": delay_us}
    what = items("1", n, studies=1, series=1, pixels=1000)
    with Service(tmp_path, env=env, workers=1) as service:
        before = flushes(shared)
        sent = send_all(service.port, what, associations=associations, window=window)
        assert not sent.broken
        assert len(sent.acknowledged) == n
        return (flushes(shared) - before) / n


def test_alone_every_instance_waits_for_three(tmp_path: Path, slow_library: Path) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 40, associations=1, window=1)
    # File, folder, journal; and a few for what is new to the first one.
    assert 3 <= found < 3.5


def test_associations_share_them(tmp_path: Path, slow_library: Path) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 320, associations=32, window=1)
    assert found < 1


def test_outstanding_instances_of_one_association_share_them(
    tmp_path: Path, slow_library: Path
) -> None:
    found = flushes_per_instance(tmp_path, slow_library, 320, associations=1, window=32)
    assert found < 1

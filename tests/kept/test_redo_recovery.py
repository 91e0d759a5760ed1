"""The service's own recovery, on the disks that the model of the redo log leaves behind."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import fastscp
from fastscp.store.identity import Identity
from fastscp.store.mounts import Mounted
from fastscp.store.redo import recovery
from tests.kept.device.disk import scratch
from tests.kept.kit_kept import SYNC, Control, Disk, Event, Node, Tree, read_log, write_tree
from tests.kept.redo_model import STORE_ID, World
from tests.kept.redo_recovery import settle
from tests.kept.redo_trial import POLICIES, Line, found, played
from tests.kept.test_redo_model import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PACKAGES: Final = Path(fastscp.__file__).parents[1]
IDENTITY: Final = Identity(STORE_ID, 2, "{StudyInstanceUID}/{SOPInstanceUID}.dcm", ".dcm")


def read_tree(folder: Path) -> Tree:
    return {
        entry.name: read_tree(Path(entry)) if entry.is_dir() else Path(entry).read_bytes()
        for entry in os.scandir(folder)
    }


def recovered(
    tree: Tree,
    tmp_path: Path,
    when: tuple[str, str, str],
    distrust: Iterable[str] = (),
    identity: Identity = IDENTITY,
) -> Tree:
    """What the service's recovery makes of a store. when: the time that it is mounted."""
    with scratch(tmp_path) as into, pytest.MonkeyPatch.context() as now:
        write_tree(tree, into)
        now.setattr(recovery, "mounted", lambda _fd: Mounted(*when))
        fd = os.open(into, os.O_DIRECTORY)
        try:
            recovery.recover(fd, identity, alone=True, distrust=tuple(distrust))
        finally:
            os.close(fd)
        return read_tree(into)


@pytest.fixture
def by_service(tmp_path: Path) -> Callable[[World], Iterable[None]]:
    """A recovery of a world by the service."""

    def run(world: World) -> Iterable[None]:
        yield from settle(world)
        left = recovered(world.medium.tree(), tmp_path, world.when(), world.distrusted)
        world.medium.load(left)
        world.distrusted.clear()

    return run


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_recovery_loses_nothing(
    script: str, policy: str, by_service: Callable[[World], Iterable[None]]
) -> None:
    for seed in range(3):
        assert found(SCRIPTS[script], seed, policy=policy, recovery=by_service) == [], seed


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_recovery_never_loses_anything(
    script: str, policy: str, by_service: Callable[[World], Iterable[None]]
) -> None:
    for seed in range(1000):
        assert found(SCRIPTS[script], seed, policy=policy, recovery=by_service) == [], seed


# Cut in the middle --------------------------------------------------------------------------------

# A store is written whole, flushed, and then recovered: its tree, the store, the boot's name, and
# lives that are to be distrusted.
_RECOVER: Final = """
import ctypes, os, pickle, sys
from pathlib import Path
from fastscp.store.identity import Identity
from fastscp.store.mounts import Mounted
from fastscp.store.redo import recovery

def write(tree, folder):
    folder.mkdir()
    for name, entry in tree.items():
        if isinstance(entry, bytes):
            (folder / name).write_bytes(entry)
        else:
            write(entry, folder / name)

tree, store, boot, identity, *distrust = sys.argv[1:]
write(pickle.loads(Path(tree).read_bytes()), Path(store))
fd = os.open(store, os.O_DIRECTORY)
ctypes.CDLL(None).syncfs(fd)
recovery.mounted = lambda _fd: Mounted(boot, "1", "1")
recovery.recover(fd, Identity(identity, 2, "", ""), alone=True, distrust=distrust)
"""


def recorded(tmp_path: Path, library: Path, world: World) -> tuple[int, list[Event]]:
    """Recover a store over the interposed disk; returns its root's inode, and what happened.

    What the model's disk may lose of the store must be grafted on a disk that plays this.
    """
    root = tmp_path / "disk"
    root.mkdir()
    control = Control(tmp_path / "control")
    (tmp_path / "tree").write_bytes(pickle.dumps(world.medium.tree()))
    env = {
        **os.environ, "LD_PRELOAD": str(library), "KEPT_ROOT": str(root.resolve()),
        "KEPT_CONTROL": str(control.path), "KEPT_LOG": str(tmp_path / "log"),
        "PYTHONPATH": str(PACKAGES),
    }  # fmt: skip
    try:
        subprocess.run(
            [sys.executable, "-c", _RECOVER, tmp_path / "tree", root / "store", world.when()[0],
             STORE_ID, *world.distrusted],
            env=env, check=True, timeout=60,
        )  # fmt: skip
        return root.stat().st_ino, read_log(tmp_path / "log")
    finally:
        control.close()


def graft(store: Node, whole: Node) -> None:
    """Have of a store, all of which is flushed, on the medium what the model has of it there."""
    twins: dict[Node, Node] = {}
    pairs: list[tuple[Node, Node]] = []

    def pair(one: Node, model: Node) -> None:
        twins[model] = one
        pairs.append((one, model))
        for name, entry in model.entries.items():
            pair(one.entries[name], entry)

    def twin(model: Node) -> Node:
        # One that has lost its name, and not on the medium.
        if model not in twins:
            one = twins[model] = Node(model.is_folder, bytearray(model.data))
            copy(one, model)
        return twins[model]

    def copy(one: Node, model: Node) -> None:
        one.kept, one.pending = model.kept, list(model.pending)
        one.kept_entries = {name: twin(entry) for name, entry in model.kept_entries.items()}
        one.changed = {name: entry and twin(entry) for name, entry in model.changed.items()}

    pair(store, whole)
    for one, model in pairs:
        copy(one, model)


def cut_at(
    world: World, whole: Node, events: Sequence[Event], root: int, tmp_path: Path, seed: int
) -> list[str]:
    """Cut the power at some step of a recovery, and recover again; what is wrong, in words.

    whole: the store that was recovered.
    """
    rng = random.Random(seed)
    begin = next(k for k, event in enumerate(events, 1) if event.kind == SYNC)
    cut = rng.choice((rng.randint(begin, len(events)), len(events)))
    luck = rng.choice((0.0, 0.5, 0.9))
    disk = Disk(root)
    for number, event in enumerate(events[:cut], 1):
        disk.play(event)
        if number == begin:
            graft(disk.root.entries["store"], whole)
    tree = disk.after_cut(luck, rng)["store"]
    assert not isinstance(tree, bytes)
    world.medium.load(recovered(tree, tmp_path, ("another boot", "1", "1")))
    return [f"cut {cut} of {begin} to {len(events)}: {one}" for one in world.wrong()]


def killed(script: Sequence[Line], seed: int, policy: str, luck: float | None) -> World:
    """What a script left that was played to its end; luck: None: its processes were killed."""
    world, _rng = played(script, seed, policy=policy)
    if luck is None:
        world.kill_all()
    else:
        world.cut_power(luck, seed)
    for _step in settle(world):
        pass
    return world


def cuts_of_a_recovery(tmp_path: Path, library: Path, world: World, count: int) -> None:
    root, events = recorded(tmp_path, library, world)
    whole = world.medium.disk.root
    for seed in range(count):
        assert cut_at(world, whole, events, root, tmp_path, seed) == []


@pytest.mark.parametrize("luck", [0.5, None])
def test_a_recovery_that_is_cut_loses_nothing(
    tmp_path: Path, library: Path, luck: float | None
) -> None:
    world = killed(SCRIPTS["taken"][:3], 1, "version", luck)
    cuts_of_a_recovery(tmp_path, library, world, 12)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_recovery_that_is_cut_never_loses_anything(
    tmp_path: Path, library: Path, script: str, policy: str
) -> None:
    for seed in range(6):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        world = killed(SCRIPTS[script], seed, policy, (0.0, 0.5, None)[seed % 3])
        cuts_of_a_recovery(folder, library, world, 100)

"""Power cuts under real file systems: a block device that records, and what a cut leaves of it.

The service runs on ext4, xfs or btrfs on a device that records every write and every flush
(device/recorder.c). A cut keeps what was flushed and any part of the rest; the kernel mounts that
as after a real power cut. Then everything that was acknowledged before the cut is there, and the
service starts on it and takes the rest.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.findings import Kind
from fastscp.store.names import JOURNAL
from fastscp.store.verify import verify
from tests.disks import FAST_COMMITS, KINDS, MountError
from tests.kept.device import disk as device
from tests.kept.device.cuts import Cuts, chosen
from tests.kept.device.disk import RecordedDisk, mounted_again, recorded, scratch
from tests.kept.device.record import Record
from tests.kept.kit_kept import (
    FLUSH,
    PRETEND,
    Interposed,
    Item,
    Sending,
    facts_of,
    files_of,
    items,
    send_all,
    versions_of,
)
from tests.kept.model import Model, Tally, known_at
from tests.kept.test_order import MUTANTS, Changes, mutate
from tests.kit import Service
from tests.stores import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fastscp.store.findings import Finding
    from tests.kept.conftest import Figures

FLAGS: Final = ("--min-free-space", "0")


@dataclass(frozen=True)
class Recorded:
    """What a service did on a recorded disk.

    mounted, ready: where the record stood then. since: what the clock of the sendings showed when
    the record was empty.
    """

    kind: str
    policy: str
    flags: Sequence[str]
    base: Path
    log: Path
    mounted: int
    ready: int
    since: int
    sendings: Sequence[Sending]


def workload(service: Service, clock: Callable[[], int], scale: int, seed: int) -> list[Sending]:
    """New instances, several of one path at once, and known ones; returns what was sent."""
    rng = random.Random(seed)
    sendings: list[Sending] = []

    def send(shares: Sequence[Sequence[Item]], window: int) -> None:
        sent = send_all(service.port, (), shares=shares, window=window, clock=clock)
        assert not sent.broken
        sendings.extend(sent.sendings)

    for turn in range(scale):
        new = items(f"{turn + 1}", 12, studies=3, series=2, pixels=rng.choice((700, 9000, 40_000)))
        send([new[k::4] for k in range(4)], 3)
        several = [versions_of(item, 3) for item in rng.sample(new, 3)]
        # Each association has another version of the path first.
        send([[group[(k + turn) % 3] for group in several] for k in range(3)], 2)
        known = rng.sample(new, 4) + [group[0] for group in several]
        rng.shuffle(known)
        send([known[:4], known[4:]], 1)
    return sendings


def record(
    kind: str,
    folder: Path,
    recorder: Path,
    *flags: str,
    policy: str = "version",
    scale: int = 1,
    seed: int = 0,
    env: Mapping[str, str] | None = None,
    library: Path | None = None,
    pretend: str = "",
    image: Path | None = None,
    before: Sequence[Sending] = (),
    since: int = 0,
    beside: Callable[[Path], AbstractContextManager[object]] = contextlib.nullcontext,
    first: Callable[[Service, Callable[[], int]], list[Sending]] | None = None,
    workers: int = 2,
    size: int = 0,
) -> Recorded:
    """Let a service run on a recorded disk. pretend: flushes of these paths are not done.

    image, before: of a disk that has a store already, and what was sent to it until `since`.
    beside: what goes on meanwhile with the store. first: sends something before the service counts
    as ready, and returns it. Without --redo among the flags there is no log.
    """
    if "--redo" not in flags:
        flags = ("--redo", "off", *flags)
    flags = (*FLAGS, "--on-duplicate", policy, *flags)
    folder.mkdir(exist_ok=True)
    with recorded(kind, folder, recorder, image, size) as disk:
        mounted = disk.position()
        service = served(folder, disk, library, flags, env, workers)
        if pretend:
            assert isinstance(service, Interposed)
            service.control.rule([FLUSH], PRETEND, path=pretend)

        def clock() -> int:
            return since + disk.position()

        with service:
            sendings = first(service, clock) if first is not None else []
            ready = disk.position()
            with beside(service.store):
                sendings += workload(service, clock, scale, seed)
    everything = [*before, *sendings]
    return Recorded(kind, policy, flags, disk.base, disk.log, mounted, ready, since, everything)


def served(
    folder: Path,
    disk: RecordedDisk,
    library: Path | None,
    flags: Sequence[str],
    env: Mapping[str, str] | None,
    workers: int = 2,
) -> Service:
    place = disk.point / "store"
    (folder / "run").mkdir()
    if library is None:
        return Service(folder / "run", *flags, env=env, store=place, workers=workers)
    return Interposed(folder / "run", library, *flags, log=False, env=env, store=place)


# After a cut --------------------------------------------------------------------------------------


def look(store: Path, model: Model, *, recovered: bool) -> list[str]:
    """What is wrong with a store right after a cut, in words.

    recovered: nothing has to be brought back yet. Before that `verify` has nothing to say.
    """
    bad = model.faults(files_of(store), facts_of(store))
    if not recovered:
        return bad
    # A file without a line was never acknowledged: its resend is. Nor was anything of a line whose
    # write the disk did a part of; `verify` cannot tell it from a line that a disk has lost. What
    # is lost of an acknowledged line the model has named.
    bad += [
        f"verify: {finding.path} is {finding.kind}: {finding.why}"
        for finding in told_of(store)
        if finding.kind is not Kind.UNJOURNALED and not is_torn(finding)
    ]
    return bad


def told_of(store: Path) -> Sequence[Finding]:
    return verify(store, patience_s=0.0).findings


def is_torn(finding: Finding) -> bool:
    return finding.kind is Kind.DAMAGED and finding.path.startswith(f"{JOURNAL}/")


def go_on(folder: Path, store: Path, model: Model, done: Recorded) -> list[str]:
    """Start the service on what a cut left, send everything again, verify; what is wrong."""
    again = list({one.item: None for one in done.sendings})
    later = 1 + max(one.ended or one.began for one in done.sendings)
    with Service(folder, *done.flags, store=store) as service:
        resent = send_all(service.port, again, clock=lambda: later)
        assert not resent.broken
        model.sendings += resent.sendings
        bad = model.faults(files_of(store), facts_of(store))
    told = subprocess.run(
        [*Service.program(), "verify", "--store", store], env=Service.environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode not in (0, 1) or [one for one in told_of(store) if not is_torn(one)]:
        bad.append(f"fastscp verify: {told.stdout}{told.stderr}")
    return bad


def cut(
    done: Recorded,
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    start_every: int = 10,
    most: int = 0,
    start: int | None = None,
    end: int | None = None,
    recover: bool = True,
) -> tuple[Tally, list[str]]:
    """Cut the power `count` times; returns what was looked at, and what was wrong.

    start_every: every so many cuts the service starts on what is left. most: stop after so many
    faults; 0: never. start: no cut is before this position; None: before the service was ready.
    end: none is after this one; None: after the end of all.
    recover: let a start take the store before it is looked at, where that has something to do.
    """
    start = done.ready if start is None else start
    rng = random.Random(seed)
    tally = Tally()
    bad: list[str] = []
    with Record(done.log) as entries:
        cuts = Cuts(done.kind, done.base, entries, folder / "cuts")
        for number, k in enumerate(chosen(entries, start, count, rng, end), 1):
            where, image = cuts.make(k, rng)
            known = known_at(done.sendings, done.since + where.position)
            model = Model(done.policy, sendings=known, tally=tally)
            tally.cuts += 1
            with mounted_again(done.kind, image, folder / "after") as point:
                if recover and (done.policy == "replace" or "on" in done.flags):
                    # Only the start decides whether a replacement counts that was under way, and
                    # puts in place what stands in a log.
                    with opened(point / "store"):
                        pass
                found = look(point / "store", model, recovered=recover)
                if number % start_every == 0 and not found:
                    found = go_on(folder / "run", point / "store", model, done)
            bad += [f"{where}: {one}" for one in found]
            if most and len(bad) >= most:
                break
    return tally, bad


# Tests --------------------------------------------------------------------------------------------


def test_stable_loses_nothing_on_ext4(tmp_path: Path, recorder: Path, figures: Figures) -> None:
    with scratch(tmp_path) as folder:
        done = record("ext4", folder, recorder)
        tally, bad = cut(done, folder, 10)
    figures.add("power cuts, version", "ext4", tally)
    assert bad == []


# A directory's flush is not among these: the flush of the journal, which comes later, takes names
# given before it along on ext4, xfs and btrfs. `test_powercut` and `test_order` ask for it.
@pytest.mark.parametrize("pretend", [".part", ".jsonl"])
def test_a_flush_that_is_not_done_is_caught(
    tmp_path: Path, recorder: Path, library: Path, pretend: str
) -> None:
    with scratch(tmp_path) as folder:
        done = record("ext4", folder, recorder, library=library, pretend=pretend)
        _tally, bad = cut(done, folder, 200, most=1)
    assert bad


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutant", ["no data flush", "no journal flush"])
def test_a_commit_without_a_flush_is_caught(
    tmp_path: Path, recorder: Path, kind: str, mutant: str
) -> None:
    env = {"PYTHONPATH": str(mutate(MUTANTS[mutant], tmp_path / "mutant"))}
    with scratch(tmp_path) as folder:
        done = record(kind, folder, recorder, env=env)
        assert all(one.status == 0 for one in done.sendings)
        _tally, bad = cut(done, folder, 200, most=1)
    assert bad


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [*KINDS, "ext4 writeback"])
def test_stable_loses_nothing_on_real_file_systems(
    tmp_path: Path, recorder: Path, kind: str, figures: Figures
) -> None:
    with scratch(tmp_path) as folder:
        done = record(kind, folder, recorder, scale=8, seed=1)
        tally, bad = cut(done, folder, 300, seed=1, start_every=20, most=10)
    figures.add("power cuts, version", kind, tally)
    assert bad == []


_LACKS: Final = '_kind_of_ext4(folder_fd) if file_system == "ext4" else file_system'
ANY_EXT4: Final[Changes] = [("fastscp/store/nameless.py", _LACKS, "file_system", 1)]


def without_names(kind: str, tmp_path: Path, folder: Path, recorder: Path) -> Recorded:
    """What a service did that takes any ext4 for one where parts need no name."""
    mutant = mutate(ANY_EXT4, tmp_path / "mutant")
    done = record(kind, folder, recorder, env={"PYTHONPATH": str(mutant)})
    assert all(one.status == 0 for one in done.sendings)
    return done


@pytest.mark.long
def test_a_part_without_a_name_is_lost_without_a_journal(tmp_path: Path, recorder: Path) -> None:
    with scratch(tmp_path) as folder:
        done = without_names("ext4 without journal", tmp_path, folder, recorder)
        _tally, bad = cut(done, folder, 60)
    assert any("answered 0000 and in no version" in one for one in bad)


@pytest.mark.long
def test_a_part_without_a_name_stops_the_mount_with_fast_commits(
    tmp_path: Path, recorder: Path
) -> None:
    with scratch(tmp_path) as folder:
        done = without_names(FAST_COMMITS, tmp_path, folder, recorder)
        with pytest.raises(MountError):
            cut(done, folder, 200)


needs_replaced = pytest.mark.xfail(
    find_spec("fastscp.store.replaced") is None,
    reason="the older instance is not kept until the newer one's line is",
    strict=True,
)
REPLACE: Final = pytest.param("replace", marks=needs_replaced)


@pytest.mark.long
@pytest.mark.timeout(3600)
@needs_replaced
@pytest.mark.parametrize("kind", KINDS)
def test_a_replacement_loses_nothing_on_real_file_systems(
    tmp_path: Path, recorder: Path, kind: str, figures: Figures
) -> None:
    with scratch(tmp_path) as folder:
        done = record(kind, folder, recorder, policy="replace", scale=4, seed=1)
        tally, bad = cut(done, folder, 60, seed=1, start_every=6, most=1)
    figures.add("power cuts, replace", kind, tally)
    assert bad == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["version", REPLACE])
def test_a_second_cut_loses_nothing_either(
    tmp_path: Path, recorder: Path, kind: str, policy: str, figures: Figures
) -> None:
    """While the service starts on what the first one left, and afterwards."""
    rng = random.Random(2)
    with scratch(tmp_path) as folder:
        first = record(kind, folder / "first", recorder, policy=policy, scale=2, seed=2)
        with Record(first.log) as entries:
            cuts = Cuts(kind, first.base, entries, folder / "first/cuts")
            for number, k in enumerate(chosen(entries, first.ready, 6, rng)):
                where, image = cuts.make(k, rng)
                again = folder / f"{number}"
                second = record(
                    kind, again, recorder, policy=policy, seed=number, image=image,
                    before=known_at(first.sendings, where.position), since=where.position + 1,
                )  # fmt: skip
                tally, bad = cut(second, again, 12, seed=number, start=second.mounted)
                figures.add(f"second power cuts, {policy}", kind, tally)
                assert bad == [], where
                shutil.rmtree(again)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_while_a_store_is_made(
    tmp_path: Path, recorder: Path, kind: str, figures: Figures
) -> None:
    """Whatever there is of it then, the next start takes it."""
    rng = random.Random(3)
    tally = Tally()
    with scratch(tmp_path) as folder:
        done = record(kind, folder, recorder)
        with Record(done.log) as entries:
            cuts = Cuts(kind, done.base, entries, folder / "cuts")
            for k in chosen(entries, done.mounted, 20, rng, done.ready):
                where, image = cuts.make(k, rng)
                tally.cuts += 1
                model = Model(done.policy, tally=tally)
                with mounted_again(kind, image, folder / "after") as point:
                    bad = go_on(folder / "run", point / "store", model, done)
                    assert bad == [], where
    figures.add("power cuts at the first start", kind, tally)


@contextlib.contextmanager
def written_now_and_then(store: Path) -> Iterator[None]:
    """Let the system write what nobody flushed, as it does by itself after some seconds."""
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.02):
            subprocess.run(["sync", "-f", store], check=True)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        over.set()
        writing.join()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["version", "keep"])
def test_buffered_takes_again_what_a_cut_took(
    tmp_path: Path, recorder: Path, kind: str, policy: str, figures: Figures
) -> None:
    """Nothing is promised for a power cut, except that what is sent again is kept."""
    rng = random.Random(4)
    tally = Tally()
    flags = ("--durability", "buffered")
    with scratch(tmp_path) as folder:
        done = record(
            kind, folder, recorder, *flags, policy=policy, scale=2, beside=written_now_and_then
        )
        with Record(done.log) as entries:
            cuts = Cuts(kind, done.base, entries, folder / "cuts")
            for k in chosen(entries, done.ready, 20, rng):
                where, image = cuts.make(k, rng)
                tally.cuts += 1
                moment = done.since + where.position
                known = [Sending(one.item, one.began, moment) for one in done.sendings]
                model = Model(policy, False, known, tally)
                with mounted_again(kind, image, folder / "after") as point:
                    assert go_on(folder / "run", point / "store", model, done) == [], where
    figures.add("power cuts, buffered, sent again", kind, tally)


def test_where_it_skips(tmp_path: Path, recorder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def skips(text: str) -> None:
        with (
            pytest.raises(pytest.skip.Exception, match=text),
            recorded("ext4", tmp_path, recorder),
        ):
            raise AssertionError
        assert not os.path.ismount(tmp_path / "served")

    with monkeypatch.context() as once:
        once.setattr(os, "geteuid", lambda: 1000)
        skips("mounting ext4 takes root")
    monkeypatch.setattr(device, "_FUSE", tmp_path / "fuse")
    skips("takes /dev/fuse")


def test_nothing_stays_of_a_recorded_disk(tmp_path: Path, recorder: Path) -> None:
    def fail() -> None:
        with recorded("ext4", tmp_path, recorder) as disk:
            assert os.path.ismount(disk.point)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sorted(os.listdir(tmp_path)) == ["base", "record"]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()

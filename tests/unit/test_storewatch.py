"""What follows from free space and reachability: the state, its memory, and what the log says."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from fastscp.main.storewatch import Look, SpaceState, StoreWatch, look
from fastscp.store.store import Store
from fastscp_ext import Shared
from tests.stores import filed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
LIMIT = 1000 * MIB
FINE, SLOW, FULL, LOST = SpaceState


def test_the_numbers_of_the_shared_block() -> None:
    assert [FINE, SLOW, FULL, LOST] == [0, 1, 2, 3]


@pytest.fixture
def watch() -> StoreWatch:
    return StoreWatch(LIMIT)


def free(mib: float) -> Look:
    return Look(int(mib * MIB), None)


def judged(watch: StoreWatch, *free_mib: float) -> list[SpaceState]:
    return [watch.judge(free(mib))[0] for mib in free_mib]


def test_thresholds(watch: StoreWatch) -> None:
    assert judged(watch, 5000, 2000) == [FINE, FINE]
    assert watch.judge(Look(2000 * MIB - 1, None))[0] is SLOW
    assert judged(watch, 1000) == [SLOW]
    assert watch.judge(Look(1000 * MIB - 1, None))[0] is FULL


def test_full_resumes_a_tenth_above_the_limit(watch: StoreWatch) -> None:
    assert judged(watch, 999, 1000, 1099, 1000, 999) == [FULL] * 5
    assert judged(watch, 1100) == [SLOW]
    # From there it needs the limit itself again.
    assert judged(watch, 1050, 1000, 999, 1050) == [SLOW, SLOW, FULL, FULL]
    assert judged(watch, 2000) == [FINE]


def test_slow_has_no_memory(watch: StoreWatch) -> None:
    assert judged(watch, 1999, 2000, 1999) == [SLOW, FINE, SLOW]


def test_lost_and_back(watch: StoreWatch) -> None:
    gone = Look(0, "it is gone")
    assert watch.judge(gone)[0] is LOST
    assert judged(watch, 5000) == [FINE]
    # What was full before has to begin anew: any space above the limit will do.
    assert judged(watch, 999) == [FULL]
    assert watch.judge(gone)[0] is LOST
    assert judged(watch, 1050) == [SLOW]


def test_no_limit() -> None:
    watch = StoreWatch(0)
    assert judged(watch, 0, 1) == [FINE, FINE]
    assert watch.judge(Look(0, "gone"))[0] is LOST


def test_what_is_said(watch: StoreWatch) -> None:
    assert watch.judge(free(5000)) == (FINE, "")
    assert watch.judge(free(1500)) == (
        SLOW,
        (
            "1500 MiB free, less than twice --min-free-space 1000 MiB: reading at most 1024 KiB/s: "
            "free some space"
        ),
    )
    assert watch.judge(free(1400)) == (SLOW, "")
    assert watch.judge(free(900)) == (
        FULL,
        (
            "disk full: 900 MiB free, below --min-free-space 1000 MiB: instances are answered A700 "
            "and new associations rejected until there is a tenth more: free some space"
        ),
    )
    assert watch.judge(free(1050)) == (FULL, "")
    state, said = watch.judge(free(1200))
    assert state is SLOW
    assert ": receiving again, reading at most 1024 KiB/s: free some space" in said
    assert watch.judge(free(3000)) == (FINE, "3000 MiB free: receiving without limits again")
    assert watch.judge(Look(0, "/x is another directory now")) == (
        LOST,
        (
            "the store is gone: /x is another directory now; instances are answered A700 and new "
            "associations rejected until it is back"
        ),
    )
    assert watch.judge(Look(0, "another reason")) == (LOST, "")
    assert watch.judge(free(3000))[1] == (
        "the store is there again, 3000 MiB free: receiving without limits again"
    )


def inodes(n: int | None) -> Look:
    return Look(5000 * MIB, None, n)


def test_inodes_that_run_out_are_space_that_does(watch: StoreWatch) -> None:
    assert watch.judge(inodes(1000))[0] is FINE
    state, said = watch.judge(inodes(999))
    assert state is FULL
    assert said.startswith("disk full: 999 inodes free, below 1,000: instances are answered A700 ")
    assert said.endswith("(df -i)")
    assert watch.judge(inodes(1099))[0] is FULL
    assert watch.judge(inodes(1100))[0] is FINE
    # A file system that has no number of them, and rules that are off.
    assert watch.judge(inodes(None))[0] is FINE
    assert StoreWatch(0).judge(inodes(1))[0] is FINE


def test_a_reminder_while_nothing_can_be_stored(watch: StoreWatch) -> None:
    for seen in (Look(0, "it is gone"), free(900), inodes(5)):
        watch.judge(free(5000), 0)
        first = watch.judge(seen, 1000)[1]
        assert watch.judge(seen, 1299) == (watch.state, "")
        assert watch.judge(seen, 1300) == (watch.state, f"still: {first}")
        assert watch.judge(seen, 1301)[1] == ""
        assert watch.judge(seen, 1600)[1] != ""
    watch.judge(free(1500), 2000)
    assert watch.judge(free(1500), 9000) == (SLOW, "")


def test_back_and_still_short_of_space(watch: StoreWatch) -> None:
    watch.judge(Look(0, "it is gone"))
    assert watch.judge(free(900))[1].startswith(
        "the store is there again, disk full: 900 MiB free, below "
    )
    watch.judge(Look(0, "it is gone"))
    assert watch.judge(inodes(7))[1].startswith(
        "the store is there again, disk full: 7 inodes free, below "
    )


def test_half_the_rate_of_the_last_minute(watch: StoreWatch) -> None:
    # 100 MiB/s for a long time, then 40 MiB/s for a minute.
    total = 0
    for rate in [100] * 100 + [40] * 60:
        watch.received(total)
        total += rate * MIB
    watch.received(total)
    watch.judge(free(1500))
    assert watch.slow_rate == 20 * MIB


def test_the_rate_is_kept_while_it_is_slow(watch: StoreWatch) -> None:
    """What is received meanwhile is slow already: halving it again and again would end at none."""
    for second in range(10):
        watch.received(second * 64 * MIB)
    watch.judge(free(1500))
    assert watch.slow_rate == 32 * MIB
    for _ in range(60):
        watch.received(640 * MIB)
    assert judged(watch, 1400, 900, 1200) == [SLOW, FULL, SLOW]
    assert watch.slow_rate == 32 * MIB


def test_never_slower_than_this(watch: StoreWatch) -> None:
    for _ in range(10):
        watch.received(5)
    watch.judge(free(1500))
    assert watch.slow_rate == MIB


def test_full_at_once_resumes_slowly(watch: StoreWatch) -> None:
    """The state that slows had no chance to be taken before it was full."""
    for second in range(10):
        watch.received(second * 64 * MIB)
    assert judged(watch, 5000, 900, 1200) == [FINE, FULL, SLOW]
    assert watch.slow_rate > 0


def test_lost_then_short_of_space(watch: StoreWatch) -> None:
    watch.judge(Look(0, "gone"))
    watch.judge(free(1500))
    assert watch.slow_rate > 0


def test_a_counter_that_begins_anew(watch: StoreWatch) -> None:
    for second in range(10):
        watch.received(second * 64 * MIB)
    for second in range(3):
        watch.received(second * 8 * MIB)
    watch.judge(free(1500))
    assert watch.slow_rate == 4 * MIB


# The rate of all workers together ---------------------------------------------------------------

SECOND = 1_000_000_000


def test_one_rate_for_all_workers() -> None:
    """Whoever reads gets it, alone or beside others; none is put off for ever by the others."""
    shared = Shared()
    workers = [Shared(os.dup(shared.fd), os.dup(shared.common_fd)).store for _ in range(8)]
    shared.store.set_state(1, slow_rate=MIB)
    now = time.monotonic_ns()
    # A lone reader has all of it.
    ends = [workers[3].reserve_reading(MIB // 4, now) for _ in range(12)]
    assert abs(ends[-1] - now - 3 * SECOND) < SECOND // 10
    assert [b - a for a, b in pairwise(ends)] == [SECOND // 4] * 11
    # Readers that each go on as soon as they may: all get as often their turn, at the rate.
    until = dict.fromkeys(range(8), ends[-1])
    turns = dict.fromkeys(until, 0)
    first = ends[-1]
    for _ in range(800):
        one = min(until, key=lambda worker: until[worker])
        until[one] = workers[one].reserve_reading(65536, until[one])
        turns[one] += 1
    assert set(turns.values()) == {100}
    assert max(until.values()) - first == 800 * 65536 * SECOND // MIB
    # What nobody read is lost, except a second's worth.
    late = max(until.values()) + 60 * SECOND
    assert workers[0].reserve_reading(MIB // 2, late) == late - SECOND // 2
    assert workers[1].reserve_reading(MIB, late) == late + SECOND // 2


def test_the_rate_holds_while_processes_read_at_once() -> None:
    shared = Shared()
    shared.store.set_state(1, slow_rate=1000)
    now = time.monotonic_ns()
    start = shared.store.reserve_reading(5000, now)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(20_000):
                shared.store.reserve_reading(1, now)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert shared.store.reserve_reading(0, now) - start == 80_000 * SECOND // 1000


def test_a_rate_of_nothing_is_no_division() -> None:
    shared = Shared()
    shared.store.set_state(1)
    now = time.monotonic_ns()
    assert shared.store.reserve_reading(1, now) > now


# Looking ----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store", filed("{SOPInstanceUID}.dcm"))
    yield store
    store.close()


def test_look(store: Store) -> None:
    seen = look(store)
    found = os.statvfs(store.path)
    assert seen.lost is None
    assert abs(seen.free - found.f_bavail * found.f_frsize) < 1 << 30
    assert (seen.inodes is None) == (found.f_files == 0)


@pytest.mark.parametrize(("files", "seen"), [(0, None), (50, 7)])
def test_look_at_inodes(
    store: Store, files: int, seen: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(f_bavail=1, f_frsize=4096, f_files=files, f_favail=7, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda _fd: found)
    assert look(store) == Look(4096, None, seen)


def test_a_file_system_that_turned_read_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = os.ST_RDONLY | os.ST_NOSUID
    found = SimpleNamespace(f_bavail=1, f_frsize=4096, f_files=0, f_favail=0, f_flag=flag)
    monkeypatch.setattr(os, "statvfs", lambda _fd: found)
    seen = look(store)
    why = str(seen.lost)
    assert why.startswith(f"{store.path} is on a file system that cannot be written to any more: ")
    assert "dmesg" in why
    watch = StoreWatch(LIMIT)
    assert watch.judge(seen)[0] is LOST


def test_a_store_that_moved(store: Store) -> None:
    store.path.rename(store.path.with_name("elsewhere"))
    gone = str(look(store).lost)
    assert gone.startswith(f"{store.path} cannot be reached (No such file or directory): mount it")
    store.path.mkdir()
    assert str(look(store).lost).startswith(f"{store.path} is another directory now: mount it")
    store.path.rmdir()
    store.path.with_name("elsewhere").rename(store.path)
    assert look(store).lost is None


def test_a_store_that_lost_its_identity(store: Store) -> None:
    identity = store.path / ".fastscp/store.toml"
    kept = identity.read_text()
    identity.unlink()
    why = str(look(store).lost)
    assert why.startswith(f"{store.path} has lost its .fastscp/store.toml: put that back; ")
    identity.write_text(kept.replace(store.id, "another"))
    assert look(store).lost == why
    identity.write_text("nonsense")
    assert "cannot be read" in str(look(store).lost)
    identity.write_text(kept)
    assert look(store).lost is None


def test_a_file_system_that_does_not_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> os.statvfs_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    seen = look(store)
    assert (seen.free, seen.inodes) == (0, None)
    why = str(seen.lost)
    assert why.startswith(f"{store.path} cannot be asked for its space (Input/output error): see ")


def test_whoever_asks_is_told_why(watch: StoreWatch) -> None:
    assert (watch.why(), watch.seen) == ("", None)
    watch.judge(free(5000), 1.0)
    assert watch.why() == ""
    watch.judge(free(5), 2.0)
    assert watch.why().startswith("disk full: 5 MiB free, below --min-free-space 1000 MiB: ")
    watch.judge(free(4), 3.0)
    assert watch.why().startswith("disk full: 4 MiB free")
    # As long as nothing changes it is so since then, however often the log is told.
    watch.judge(free(4), 3000.0)
    assert (watch.seen, watch.since) == (free(4), 2.0)
    watch.judge(Look(0, "gone"), 4000.0)
    assert watch.why().startswith("the store is gone: gone; ")
    assert watch.since == 4000.0

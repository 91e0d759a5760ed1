"""The redo log on disks that fail and under workers that are killed, at each of its steps: nothing
that was acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import errno
import time
import tomllib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.errors import StoreBusyError
from fastscp.store.identity import Identity
from fastscp.store.recovering import recover_store
from fastscp.store.verify import verify
from tests.kept.kit_kept import (
    FAIL,
    FLUSH,
    HOLD_BEFORE,
    KILL_AFTER,
    KILL_ALL_AFTER,
    KILL_ALL_BEFORE,
    KILL_BEFORE,
    LINK,
    LOOK,
    MKDIR,
    RENAME,
    SEND,
    SHORT,
    WRITE,
    Interposed,
    Item,
    Tree,
    apart,
    facts_of,
    files_of,
    items,
    losses,
    send_all,
)
from tests.kept.test_redo_order import FLAGS, salts, with_logs
from tests.kept.test_redo_recovery import recovered
from tests.kit import DEADLINE_S, Service, open_paths, store, wait_for

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from fastscp.store.redo.recovery import Recovered

OK, FAILED = 0, 0xA700
# Step -> call, part of its path, calls that pass first, what the sender is told when it fails.
LANE: Final[dict[str, tuple[int, str, int, int]]] = {
    "write the log": (WRITE, "-1.log", 0, OK),
    "flush the log": (FLUSH, "-1.log", 0, OK),
    "make a folder": (MKDIR, "/store/1.2.", 0, FAILED),
    "give the name": (RENAME, "/store/1.2.", 0, FAILED),
    "write the line": (WRITE, "r-1.jsonl", 0, FAILED),
}
CHECKPOINT: Final[dict[str, tuple[int, str, int, int]]] = {
    "flush the file": (FLUSH, ".dcm", 0, OK),
    "flush its folder": (FLUSH, "/store/1.2.", 1, OK),
    "flush the journal": (FLUSH, "r-1.jsonl", 0, OK),
    "renew the log": (WRITE, "-1.log", 1, OK),
    "flush the renewed log": (FLUSH, "-1.log", 1, OK),
}
STEPS: Final = LANE | CHECKPOINT


def put(service: Interposed, item: Item) -> int | None:
    """Send one; None: there was no answer."""
    try:
        with service.peer() as peer:
            peer.send(store(1, item.data, sop=item.sop))
            status = peer.read_response().status
            peer.release()
            return status
    except (OSError, AssertionError):
        return None


def recovery_of(store: Path) -> Recovered:
    """What a recovery did, once the last of the processes that were killed is gone."""

    def look() -> Recovered | None:
        with contextlib.suppress(StoreBusyError):
            return recover_store(store)
        return None

    return wait_for(look, "the store")


def wrong(store: Path, answered: Sequence[Item]) -> list[str]:
    """What is wrong with a store whose service has ended, in words."""
    files, facts = files_of(store), facts_of(store)
    bad = [f"{one.path} is lost" for one in answered if files.get(one.path) != one.data]
    lines = Counter(fact["seq"] for fact in facts)
    bad += [f"line {seq} stands {n} times" for seq, n in lines.items() if n > 1]
    told = {fact["path"] for fact in facts}
    bad += [f"{one.path} has no line" for one in answered if one.path not in told]
    findings: Sequence[Any] = verify(store, patience_s=0.0).findings
    return bad + [f"verify: {one.path} {one.kind}" for one in findings if one.path in told]


def rule(service: Interposed, step: str, action: int, **more: Any) -> int:
    kind, path, skip, _status = STEPS[step]
    if kind == RENAME and service.nameless:
        kind = LINK
    how: dict[str, Any] = {"path": path, "skip": skip, "left": 1} | more
    return service.control.rule([kind], action, **how)


@pytest.mark.parametrize("nameless", [False, True])
def test_a_step_behind_the_log_that_fails(tmp_path: Path, library: Path, nameless: bool) -> None:
    """It costs that instance, and nothing else; what is refused does not come back."""
    answered = []
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1, nameless=nameless) as service:
        # A second one for what comes while the first is in a checkpoint.
        with_logs(service, 2)
        for number, step in enumerate(LANE, 1):
            if STEPS[step][3] == OK:
                continue
            failing, fine = items(f"{number}", 2, studies=2)
            hits = rule(service, step, FAIL, error=errno.EIO)
            assert put(service, failing) == FAILED, step
            assert service.control.hits(hits) == 1
            service.control.clear()
            assert put(service, fine) == OK
            assert put(service, failing) == OK
            answered += [failing, fine]
    assert wrong(service.store, answered) == []
    assert not list((service.store / ".fastscp/redo").glob("*.log"))


LOG_FAULTS: Final = {
    "flush": ("flush the log", FAIL, errno.EIO),
    "half a write": ("write the log", SHORT, 0),
    "write": ("write the log", FAIL, errno.EIO),
    "no space": ("write the log", FAIL, errno.ENOSPC),
}


def _some(names: Iterable[str], always: Collection[str]) -> list[Any]:
    """Parameters, of which the others take long together."""
    return [pytest.param(n, marks=() if n in always else pytest.mark.long, id=n) for n in names]


@pytest.mark.parametrize("fault", _some(LOG_FAULTS, {"flush", "half a write"}))
def test_a_log_that_fails_costs_only_time(tmp_path: Path, library: Path, fault: str) -> None:
    step, action, error = LOG_FAULTS[fault]
    what = items("1", 3)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        number = rule(service, step, action, error=error)
        assert put(service, what[0]) == OK
        assert service.control.hits(number) == 1
        service.control.clear()
        assert [put(service, one) for one in what[1:]] == [OK, OK]
    assert wrong(service.store, what) == []
    assert not list((service.store / ".fastscp/redo").glob("*.log"))


# Step -> more of the rule. The file is in a folder that is in another one, and both are new.
CHECKPOINT_FAULTS: Final[dict[str, dict[str, Any]]] = {
    "flush the file": {},
    "flush its folder": {"path": "/1.2.1.0.0"},
    "flush the journal": {},
}


@pytest.mark.parametrize("step", _some(CHECKPOINT_FAULTS, {"flush the file"}))
@pytest.mark.parametrize(
    "error",
    [
        errno.EIO,
        # What the program itself lacks it waits for; the disk's word is no such thing.
        pytest.param(errno.EAGAIN, marks=pytest.mark.long),
        pytest.param(errno.ENOSPC, marks=pytest.mark.long),
    ],
)
def test_a_checkpoint_that_fails(tmp_path: Path, library: Path, step: str, error: int) -> None:
    """The worker ends; what it had answered is put in place before another one begins."""
    (one,), (two,) = items("1", 1), items("2", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        rule(service, step, FAIL, error=error, **CHECKPOINT_FAULTS[step])
        assert put(service, one) == OK
        service.in_log("exit code 75")
        service.control.clear()
        wait_for(lambda: put(service, two) == OK, "another worker")
    assert wrong(service.store, [one, two]) == []


def test_a_flush_that_fails_lets_few_others_begin(tmp_path: Path, library: Path) -> None:
    """What a disk that fails does not answer soon would hold up the worker's end."""
    (first,), many = items("1", 1), items("2", 300)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        # While the checkpoint of the one is held, nobody makes another.
        with_logs(service, 2)
        held = rule(service, "flush the file", HOLD_BEFORE, path=f"{first.sop}.dcm")
        assert put(service, first) == OK
        wait_for(lambda: service.control.hits(held) == 1, "a checkpoint")
        # All of these are in the next one.
        fails = rule(
            service, "flush the file", FAIL, error=errno.EIO, left=-1, path="/store/1.2.2."
        )
        with service.peer() as peer:
            for number, one in enumerate(many, 1):
                peer.send(store(number, one.data, sop=one.sop))
                assert peer.read_response().status == OK
        service.control.lift(held)
        service.in_log("exit code 75")
        # As many as there are threads, and those that had one then.
        assert 1 <= service.control.hits(fails) <= 2 * 64
        service.control.clear()
        wait_for(lambda: put(service, items("3", 1)[0]) == OK, "another worker")
    assert wrong(service.store, [first, *many]) == []


def test_a_folder_whose_flush_lacked_memory_is_not_flushed_again(
    tmp_path: Path, library: Path
) -> None:
    """What it has dropped nobody knows: a second flush tells nothing."""
    (one,), (two,) = items("1", 1), items("2", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        rule(service, "flush its folder", FAIL, error=errno.ENOMEM, path=_folder(one))
        assert put(service, one) == OK
        service.in_log("exit code 75")
        service.control.clear()
        wait_for(lambda: put(service, two) == OK, "another worker")
    assert wrong(service.store, [one, two]) == []


@pytest.mark.long
def test_all_killed_while_flushes_beside_the_one_that_failed_hang(
    tmp_path: Path, library: Path
) -> None:
    """The failed one is noted at once, for the next flush of the file would succeed."""
    fine, bad, hangs = items("1", 3)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        rule(service, "flush the file", HOLD_BEFORE, path=f"{hangs.sop}.dcm")
        rule(service, "flush the file", FAIL, error=errno.EIO, path=f"{bad.sop}.dcm")
        with service.peer() as peer:
            for number, one in enumerate((fine, bad, hangs), 1):
                peer.send(store(number, one.data, sop=one.sop))
            assert [peer.read_response().status for _ in range(3)] == [OK] * 3
            wait_for(lambda: list((service.store / ".fastscp/redo").glob("*.distrust")), "the mark")
        service.kill()
        service.control.clear()
    assert recovery_of(service.store).restored >= 3
    assert wrong(service.store, [fine, bad, hangs]) == []


def test_all_killed_while_the_flush_of_another_folder_hangs(tmp_path: Path, library: Path) -> None:
    bad, hangs = items("1", 2, studies=2)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        # The files wait until both are in one checkpoint.
        files = rule(service, "flush the file", HOLD_BEFORE, left=-1)
        # Its file passes.
        held = rule(service, "flush its folder", HOLD_BEFORE, path=_folder(hangs))
        rule(service, "flush its folder", FAIL, error=errno.EIO, path=_folder(bad))
        with service.peer() as peer:
            peer.send(store(1, bad.data, sop=bad.sop) + store(2, hangs.data, sop=hangs.sop))
            assert [peer.read_response().status for _ in range(2)] == [OK] * 2
            service.control.lift(files)
            wait_for(lambda: service.control.hits(held) == 1, "the flush that hangs")
            home = service.store / ".fastscp"
            wait_for(lambda: list(home.glob("redo/*.distrust")), "the mark of the log")
            wait_for(lambda: list(home.glob("unflushed/*.json")), "the mark of the folder")
        service.kill()
        service.control.clear()
    found = recovery_of(service.store)
    assert found.renewed == (bad.path.rpartition("/")[0],)
    assert found.restored >= 2
    assert wrong(service.store, [bad, hangs]) == []


def test_a_checkpoint_without_descriptors_does_not_hold_up_a_stop(
    tmp_path: Path, library: Path
) -> None:
    """It is tried again as long as the service goes on; what is left the next start has."""
    (one,) = items("1", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        held = rule(service, "flush the file", HOLD_BEFORE, path=f"{one.sop}.dcm", skip=0)
        assert put(service, one) == OK
        wait_for(lambda: service.control.hits(held) == 1, "the checkpoint")
        lacks = service.control.rule([LOOK], FAIL, error=errno.EMFILE, path=_folder(one))
        service.control.lift(held)
        wait_for(lambda: service.control.hits(lacks) > 2, "another try")
        assert "redo log in" not in service.log()
        service.process.terminate()
        line = service.in_log("cannot end the redo log in .fastscp/redo (Too many open files)")
        assert "raise the limit of open files" in line
        service.process.wait(DEADLINE_S)
        assert "killed" not in service.log()
        assert salts(service.store)
    found = recovery_of(service.store)
    assert (found.restored, found.flushed >= 1) == (0, True)
    assert wrong(service.store, [one]) == []


def lacking(service: Interposed, one: Item) -> int:
    """Send one; its checkpoint lacks descriptors for the folder, and tries again. The rule."""
    held = rule(service, "flush the file", HOLD_BEFORE, path=f"{one.sop}.dcm")
    assert put(service, one) == OK
    wait_for(lambda: service.control.hits(held) == 1, "a checkpoint")
    lacks = service.control.rule([LOOK], FAIL, error=errno.EMFILE, path=_folder(one), left=-1)
    service.control.lift(held)
    wait_for(lambda: service.control.hits(lacks) > 1, "another try")
    return lacks


def test_a_stop_waits_as_long_as_a_checkpoint_goes_forward(tmp_path: Path, library: Path) -> None:
    """A slow disk is no lack: what waits for descriptors has 5 s once others are through."""
    one, two = items("1", 1) + items("2", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        # A second one for the other: to make it may take longer than the lane waits.
        with_logs(service, 2)
        lacks = lacking(service, one)
        held = rule(service, "flush the file", HOLD_BEFORE, path=f"{two.sop}.dcm")
        assert put(service, two) == OK
        service.process.terminate()
        wait_for(lambda: service.control.hits(held) == 1, "the flush that hangs")
        hung = time.monotonic()
        wait_for(lambda: time.monotonic() - hung > 5.5, "more than a stop waits for nothing")
        tries = service.control.hits(lacks)
        service.control.lift(held)
        wait_for(lambda: service.control.hits(lacks) > tries, "another try behind it")
        service.control.clear()
        assert service.process.wait(DEADLINE_S) == 0
        assert "redo log in" not in service.log()
        assert not salts(service.store)
    assert wrong(service.store, [one, two]) == []


def test_a_checkpoint_that_lacks_descriptors_does_not_hold_them(
    tmp_path: Path, library: Path
) -> None:
    """What waits for the next one is flushed and closed meanwhile."""
    one, two = items("1", 1) + items("2", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        # A second one for the other: to make it may take longer than the lane waits.
        with_logs(service, 2)
        lacks = lacking(service, one)
        assert put(service, two) == OK
        (pid,) = service.worker_pids()
        tries = service.control.hits(lacks)
        wait_for(lambda: not any(path.endswith(".dcm") for path in open_paths(pid)), "their end")
        wait_for(lambda: service.control.hits(lacks) > tries, "another try")
        service.control.clear()
        service.stop()
    assert wrong(service.store, [one, two]) == []


def _folder(item: Item) -> str:
    return f"/store/{item.path.rpartition('/')[0]}"


@pytest.mark.long
def test_a_checkpoint_whose_folders_fail(tmp_path: Path, library: Path) -> None:
    """No flush of the upper one tells anything: nothing is stored until it is made anew."""
    (one,) = items("1", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        # Its file passes. Those of others may wait for the same checkpoint.
        rule(service, "flush its folder", FAIL, error=errno.EIO, left=2, path="/store/1.2.1.")
        assert put(service, one) == OK
        service.in_log("exit code 75")
        service.control.clear()
        service.in_log("cannot recover the redo log of a dead worker")
        service.process.terminate()
        service.process.wait(DEADLINE_S)
    assert files_of(service.store)[one.path] == one.data
    assert list((service.store / ".fastscp/redo").glob("*.log"))
    assert recovery_of(service.store).renewed
    assert not list((service.store / ".fastscp/redo").iterdir())
    assert wrong(service.store, [one]) == []


@pytest.mark.long
@pytest.mark.parametrize("step", ["renew the log", "flush the renewed log"])
def test_a_log_that_cannot_be_used_again_goes(tmp_path: Path, library: Path, step: str) -> None:
    """Nothing in it counts any more: the worker removes it, and goes on with another one."""
    (one,) = items("1", 1)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        (log,) = (service.store / ".fastscp/redo").glob("*-1.log")
        number = rule(service, step, FAIL, error=errno.EIO)
        assert put(service, one) == OK
        wait_for(lambda: not log.exists(), "the log file being removed")
        assert service.control.hits(number) == 1
        more = [sending.item for sending in with_logs(service, 1)]
        assert "exit code" not in service.log()
    assert wrong(service.store, [one, *more]) == []


@pytest.mark.long
@pytest.mark.parametrize("action", [KILL_BEFORE, KILL_AFTER, KILL_ALL_BEFORE, KILL_ALL_AFTER])
@pytest.mark.parametrize("step", [*STEPS, "send"])
def test_a_kill_at_each_step(tmp_path: Path, library: Path, step: str, action: int) -> None:
    what = items("1", 24)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=2) as service:
        with_logs(service, 2)
        if step == "send":
            service.control.rule([SEND], action, left=1, skip=3)
        else:
            rule(service, step, action)
        sent = send_all(service.port, what, associations=3, window=2)
        if action in (KILL_BEFORE, KILL_AFTER):
            service.in_log("ended unexpectedly")
            assert not send_all(service.port, items("3", 6)).broken
        else:
            service.process.wait(60)
    answered = [one for one in what if one.sop in sent.acknowledged]
    with Service(tmp_path / "again", *FLAGS, store=service.store) as again:
        assert not send_all(again.port, items("4", 4)).broken
    assert wrong(service.store, answered) == []


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_takes_long_holds_up_nobody_else(
    tmp_path: Path, library: Path, step: str
) -> None:
    what = items("1", 12)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=2) as service:
        with_logs(service, 2)
        number = rule(service, step, HOLD_BEFORE)
        sent = put(service, what[0]) if step in CHECKPOINT else None
        if step in CHECKPOINT:
            wait_for(lambda: service.control.hits(number) == 1, "the checkpoint")
            assert not send_all(service.port, what[1:]).broken
            service.control.lift(number)
            assert sent == 0
        else:
            # Each to a worker of its own.
            with apart(service) as (peer, other):
                peer.send(store(1, what[0].data, sop=what[0].sop))
                wait_for(lambda: service.control.hits(number) == 1, "the worker being held")
                for one in what[1:]:
                    other.send(store(1, one.data, sop=one.sop))
                    assert other.read_response().status == 0
                service.control.lift(number)
                assert peer.read_response().status == 0
                peer.release()
                other.release()
    assert wrong(service.store, what) == []


@pytest.mark.long
def test_a_log_that_stays_full_is_waited_for_a_moment(tmp_path: Path, library: Path) -> None:
    """Then instances go the other way; and through the log again once there is room."""
    # More than descriptors may be kept.
    what, more = items("1", 4600, pixels=100), items("2", 8)
    with Interposed(tmp_path, library, *FLAGS, log=False, workers=1) as service:
        with_logs(service, 1)
        held = rule(service, "flush the file", HOLD_BEFORE, left=-1)
        assert not send_all(service.port, what, associations=32, window=4).broken
        assert service.control.hits(held) > 0
        last = salts(service.store)
        service.control.lift(held)
        wait_for(lambda: salts(service.store) != last, "a checkpoint")
        assert not send_all(service.port, more).broken
    assert wrong(service.store, [*what, *more]) == []


def by_start(tmp_path: Path) -> Any:
    """What a start makes of a disk that a cut left."""

    def run(tree: Tree) -> Tree:
        store = tree.get("store")
        assert isinstance(store, dict)
        home = store[".fastscp"]
        assert isinstance(home, dict)
        text = home["store.toml"]
        assert isinstance(text, bytes)
        found = Identity(tomllib.loads(text.decode())["id"], 2, "", "")
        return {"store": recovered(store, tmp_path, ("-", "1", "1"), identity=found)}

    return run


@pytest.mark.parametrize("nameless", [False, True])
@pytest.mark.parametrize(
    ("count", "every", "luck"), [(8, 150, 0.5), pytest.param(40, 7, 0.0, marks=pytest.mark.long)]
)
def test_power_cuts(
    tmp_path: Path, library: Path, count: int, every: int, luck: float, nameless: bool
) -> None:
    what = items("1", count)
    with Interposed(
        tmp_path, library, *FLAGS, workers=1 + count // 40, nameless=nameless
    ) as service:
        root = service.root.stat().st_ino
        with_logs(service, 1 + count // 40)
        before = len(service.events())
        assert not send_all(service.port, what).broken
        assert not send_all(service.port, what[:6], associations=4, all_to_each=True).broken
        events = service.events()
    sent = {one.sop: {one.data} for one in what}
    early = [e for e in events[:before] if e.kind != SEND]
    played = [*early, *events[before:]]
    cuts = range(len(early) + 1, len(played) + 1, every)
    assert losses(played, root, sent, [*cuts, len(played)], luck, 1, by_start(tmp_path)) == []
    # Not for want of looking: without a recovery there are losses, until a checkpoint.
    sends = [number for number, event in enumerate(played, 1) if event.kind == SEND]
    assert losses(played, root, sent, sends, 0.0, 1)

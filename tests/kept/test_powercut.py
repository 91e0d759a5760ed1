"""A power cut, played on the log of the disk: only what was flushed is sure to survive it."""

from __future__ import annotations

import errno
import random
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.kept.kit_kept import (
    FAIL,
    HOLD_AFTER,
    KILL_AFTER,
    MKDIR,
    RENAME,
    SEND,
    SYNC,
    UNLINK,
    Disk,
    Event,
    Interposed,
    Item,
    apart,
    items,
    losses,
    send_all,
    write_tree,
)
from tests.kit import Service, store, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def workload(service: Service) -> dict[str, set[bytes]]:
    """New and known folders, and the same UIDs from everybody at once; returns what was sent."""
    first = items("1", 60, studies=5, series=3)
    more = items("1", 90, studies=5, series=3)[60:]
    other = items("1", 12, studies=5, series=3, seed=500)
    assert not send_all(service.port, first).broken
    assert not send_all(service.port, more, associations=2, window=1).broken
    for batch in (first[:8], items("2", 8), other):
        assert not send_all(service.port, batch, associations=6, all_to_each=True).broken
    sent: dict[str, set[bytes]] = {}
    for item in (*first, *more, *other, *items("2", 8)):
        sent.setdefault(item.sop, set()).add(item.data)
    return sent


def cut_everywhere(
    events: Sequence[Event], root: int, sent: dict[str, set[bytes]], every: int = 13
) -> list[str]:
    cuts = [*range(1, len(events), every), len(events)]
    return [
        lost
        for seed, luck in enumerate((0.0, 0.5, 0.9, 1.0))
        for lost in losses(events, root, sent, cuts, luck, seed)
    ]


@pytest.mark.parametrize("nameless", [False, True])
@pytest.mark.parametrize("flags", [(), ("--on-duplicate", "replace")])
def test_stable_loses_nothing(
    tmp_path: Path, library: Path, flags: tuple[str, ...], nameless: bool
) -> None:
    with Interposed(tmp_path, library, *flags, nameless=nameless) as service:
        root = service.root.stat().st_ino
        sent = workload(service)
        events = service.events()
    assert sum(event.kind == SEND for event in events) > 50
    assert cut_everywhere(events, root, sent) == []


def test_buffered_loses(tmp_path: Path, library: Path) -> None:
    with Interposed(tmp_path, library, "--durability", "buffered") as service:
        root = service.root.stat().st_ino
        sent = workload(service)
        events = service.events()
    assert len(losses(events, root, sent, [len(events)], 0.0, 1)) >= len(sent)
    # Not for want of looking: with all the luck in the world nothing is lost.
    assert losses(events, root, sent, [len(events)], 1.0, 1) == []


def test_all_is_flushed_before_the_mark_of_a_buffered_life_goes(
    tmp_path: Path, library: Path
) -> None:
    """Without the mark every file is trusted, so nothing may be left that a cut could take."""
    with Interposed(tmp_path, library, "--durability", "buffered") as service:
        root = service.root.stat().st_ino
        sent = workload(service)
        assert (service.store / ".fastscp/buffered").exists()
    events = service.events()
    gone = [n for n, event in enumerate(events) if (event.kind, event.name) == (UNLINK, "buffered")]
    assert len(gone) == 1
    assert losses(events, root, sent, [gone[0] + 1], 0.0, 1) == []


def test_a_buffered_life_that_cannot_be_flushed_keeps_its_mark(
    tmp_path: Path, library: Path
) -> None:
    with Interposed(tmp_path, library, "--durability", "buffered", log=False, workers=1) as service:
        workload(service)
        service.control.rule([SYNC], FAIL, error=errno.EIO)
        service.process.send_signal(signal.SIGTERM)
        service.ends(1)
        service.in_log("cannot flush")
        assert (service.store / ".fastscp/buffered").exists()
        assert "Traceback" not in service.log()


def test_an_end_without_the_folder_of_unfinished_instances(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        (service.store / ".fastscp/incoming").rename(tmp_path / "away")
        service.process.send_signal(signal.SIGTERM)
        service.ends(1)
        service.in_log("cannot remove unfinished instances")
        assert "Traceback" not in service.log()


def test_the_service_starts_on_what_a_cut_leaves(tmp_path: Path, library: Path) -> None:
    everything = items("1", 60, studies=5, series=3)
    with Interposed(tmp_path, library) as service:
        root = service.root.stat().st_ino
        assert not send_all(service.port, everything).broken
        events = service.events()
    sends = [n for n, event in enumerate(events) if event.kind == SEND]
    rng = random.Random(3)
    for number, cut in enumerate((sends[0], sends[len(sends) // 2], len(events))):
        disk = Disk(root)
        for event in events[:cut]:
            disk.play(event)
        left = tmp_path / f"left-{number}"
        write_tree(disk.after_cut((0.5, 0.0, 0.7)[number], rng), left)
        with Service(tmp_path, store=left / "store") as service:
            wait_for(lambda: not service.parts(), "no part left")
            again = send_all(service.port, everything)
            assert not again.broken
            # Halves of files that were never acknowledged may have survived under a final name:
            # those are kept beside, never taken for the whole.
            assert again.acknowledged == {item.sop for item in everything}
            found = {service.data_of(path) for path in service.instances()}
            assert {item.data for item in everything} <= found
        shutil.rmtree(left)


def test_folders_made_by_a_life_that_was_killed(tmp_path: Path, library: Path) -> None:
    what = items("1", 20, studies=2)
    sent = {item.sop: {item.data} for item in what}
    first = Interposed(tmp_path, library)
    root = first.root.stat().st_ino
    # Killed right after it made the store's own folder...
    first.control.rule([MKDIR], KILL_AFTER, path="/disk/store", left=1)
    with pytest.raises(AssertionError, match="ended with -9"):
        first.__enter__()
    first.control.close()
    # ...then a worker right after it made a study's...
    second = Interposed(tmp_path, library)
    second.control.rule([MKDIR], KILL_AFTER, path="/store/1.2.", left=1)
    with second:
        # ... the next life must not trust what it finds.
        assert send_all(second.port, what, associations=1).broken
        second.in_log("ended unexpectedly")
        assert not send_all(second.port, what).broken
        events = first.events() + second.events()
    assert cut_everywhere(events, root, sent) == []


def _held(service: Interposed, kind: int, path: str, held: Item, free: Item) -> None:
    """Hold one worker after a step, and have another acknowledge something meanwhile.

    Something of the same path waits for the one that is held.
    """
    with apart(service) as (one, two):
        rule = service.control.rule([kind], HOLD_AFTER, path=path, left=1)
        one.send(store(1, held.data, sop=held.sop))
        wait_for(lambda: service.control.hits(rule) == 1, "the worker being held")
        two.send(store(1, free.data, sop=free.sop))
        if free.path == held.path:
            incoming = service.store / ".fastscp/incoming"
            wait_for(lambda: len(list(incoming.rglob("*.part"))) == 1, "the part that waits")
        else:
            assert two.read_response().status == 0
        service.control.lift(rule)
        assert one.read_response().status == 0
        if free.path == held.path:
            assert two.read_response().status == 0
        two.release()
        one.release()


def _cut_after_each_answer(service: Interposed, root: int, sent: dict[str, set[bytes]]) -> None:
    events = service.events()
    cuts = [n + 1 for n, event in enumerate(events) if event.kind == SEND]
    for luck in (0.0, 0.5):
        assert losses(events, root, sent, cuts, luck, 5) == []


def test_folders_another_worker_made_and_has_not_flushed(tmp_path: Path, library: Path) -> None:
    one, two = items("1", 2, studies=1, series=1)
    with Interposed(tmp_path, library) as service:
        root = service.root.stat().st_ino
        _held(service, MKDIR, "/store/1.2.1.0/", one, two)
        _cut_after_each_answer(service, root, {i.sop: {i.data} for i in (one, two)})


def test_between_one_workers_name_and_the_others_identical(tmp_path: Path, library: Path) -> None:
    (item,) = items("1", 1)
    with Interposed(tmp_path, library) as service:
        root = service.root.stat().st_ino
        _held(service, RENAME, "/store/1.2.", item, item)
        lines = [fact.get("duplicate") for fact in service.journal()]
        assert sorted(lines, key=str) == [None, "identical"]
        _cut_after_each_answer(service, root, {item.sop: {item.data}})


def test_folders_removed_and_made_again_by_another_worker(tmp_path: Path, library: Path) -> None:
    known, one, two = items("1", 3, studies=1, series=1)
    with Interposed(tmp_path, library) as service:
        root = service.root.stat().st_ino
        # Both workers have flushed the folder's name, and know it.
        assert not send_all(service.port, [known], associations=2, all_to_each=True).broken
        service.empty()
        before = len(service.events())
        _held(service, MKDIR, "/store/1.2.1.0/", one, two)
        events = service.events()
        cuts = [n + 1 for n, e in enumerate(events) if e.kind == SEND and n > before]
        # The files removed by hand are gone, and nobody promised them.
        gone = {item.sop: {item.data} for item in (one, two)}
        found = losses(_without(events, known), root, gone, cuts, 0.0, 5)
        assert found == []


def _without(events: Sequence[Event], item: Item) -> list[Event]:
    """The log without the answers that promised an instance."""
    return [e for e in events if e.kind != SEND or item.sop.encode() not in e.data]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_stable_loses_nothing_wherever_it_is_cut(tmp_path: Path, library: Path, seed: int) -> None:
    with Interposed(tmp_path, library, workers=2 + seed % 2, nameless=seed % 4 > 1) as service:
        root = service.root.stat().st_ino
        sent = workload(service)
        events = service.events()
    for luck in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert losses(events, root, sent, range(1, len(events) + 1), luck, seed) == []

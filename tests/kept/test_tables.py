"""Power cuts between a stable and a buffered table: each journal line's own durability decides.

Both tables take instances at once, into the same folders and into folders of their own, and the
stable one also takes what the buffered one has taken before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.kept.kit_kept import (
    SEND,
    Interposed,
    items,
    losses_by_line,
    send_all,
    versions_of,
)
from tests.kept.test_order import MUTANTS, mutate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.kept.kit_kept import Event, Item

RULES: Final = """
[ae.STABLE]

[ae.BUFFERED]
durability = "buffered"

[ae.RESEARCH]
durability = "buffered"
digest = "sha256"
layout = "_research/{PatientID}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"

[ae.ARCHIVE]
digest = "sha256"
layout = "_archive/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
"""
TITLES: Final = ("STABLE", "BUFFERED", "RESEARCH", "ARCHIVE")


def with_tables(tmp_path: Path, library: Path, *flags: str, **more: Any) -> Interposed:
    file = tmp_path / "rules.toml"
    file.write_text(RULES, "utf-8")
    return Interposed(tmp_path, library, "--config", str(file), *flags, **more)


def at_once(service: Interposed, what: dict[str, Sequence[Item]]) -> None:
    """Send to each title what is its, over two associations each."""
    with ThreadPoolExecutor(len(what)) as pool:
        sending = [
            pool.submit(send_all, service.port, those, associations=2, called=title)
            for title, those in what.items()
        ]
        for one in sending:
            assert not one.result().broken


def workload(service: Interposed, count: int) -> dict[str, set[bytes]]:
    """What is sent: data sets by UID. count: instances of each title at a time."""
    # The same studies and series, so that whoever comes second finds folders of the other's.
    pool = items("1", 6 * count, studies=4, series=2)
    shares = [pool[n * count : (n + 1) * count] for n in range(6)]
    at_once(service, dict(zip(TITLES, shares, strict=False)))
    # What the buffered table has taken comes to the stable one: as it is, and with other bytes.
    others = [versions_of(item, 1, 700)[0] for item in shares[1][: count // 2]]
    at_once(
        service,
        {"STABLE": [*shares[1], *shares[4]], "BUFFERED": shares[5], "ARCHIVE": shares[2]},
    )
    at_once(service, {"STABLE": others, "RESEARCH": shares[2]})
    # And the other way round.
    at_once(service, {"BUFFERED": shares[0], "RESEARCH": shares[3]})
    sent: dict[str, set[bytes]] = {}
    for item in (*pool, *others):
        sent.setdefault(item.sop, set()).add(item.data)
    return sent


def cut(
    events: Sequence[Event],
    root: int,
    sent: dict[str, set[bytes]],
    every: int,
    lucks: Sequence[float],
) -> dict[str, list[str]]:
    """The losses by durability, over all cuts."""
    lost: dict[str, list[str]] = {"stable": [], "buffered": []}
    for seed, luck in enumerate(lucks):
        cuts = [*range(1, len(events), every), len(events)]
        for durability, found in losses_by_line(events, root, sent, cuts, luck, seed).items():
            lost[durability] += found
    return lost


def test_each_lines_own_durability_decides(tmp_path: Path, library: Path) -> None:
    with with_tables(tmp_path, library) as service:
        root = service.root.stat().st_ino
        sent = workload(service, 12)
        events = service.events()
        durabilities = {(one["called_ae"], one.get("durability")) for one in service.journal()}
    assert durabilities == {
        ("STABLE", None), ("ARCHIVE", None), ("BUFFERED", "buffered"), ("RESEARCH", "buffered")
    }  # fmt: skip
    assert sum(event.kind == SEND for event in events) > 50
    lost = cut(events, root, sent, 29, (0.0, 0.5, 1.0))
    assert lost["stable"] == []
    # The control: without the flushes there is something to lose.
    assert len(lost["buffered"]) > 100
    # And not for want of looking: with all the luck in the world nothing is lost.
    lucky = losses_by_line(events, root, sent, [len(events)], 1.0, 1)
    assert lucky == {"stable": [], "buffered": []}


@pytest.mark.long
@pytest.mark.parametrize("name", ["no flush of an identical file", "no flush of new parents"])
def test_what_a_stable_table_takes_over_without_a_flush_is_seen(
    tmp_path: Path, library: Path, name: str
) -> None:
    """The trial itself: a stable table that trusts what a buffered one made loses instances."""
    mutant = mutate(MUTANTS[name], tmp_path / "mutant")
    with with_tables(tmp_path, library, env={"PYTHONPATH": str(mutant)}) as service:
        root = service.root.stat().st_ino
        sent = workload(service, 12)
        events = service.events()
    assert cut(events, root, sent, 29, (0.0,))["stable"]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("policy", ["version", "replace"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_lines_own_durability_decides_wherever_it_is_cut(
    tmp_path: Path, library: Path, policy: str, workers: int
) -> None:
    flags = ("--on-duplicate", policy)
    with with_tables(tmp_path, library, *flags, workers=workers) as service:
        root = service.root.stat().st_ino
        sent = workload(service, 16)
        events = service.events()
    lost = cut(events, root, sent, 1, (0.0, 0.2, 0.5, 0.8, 1.0))
    assert lost["stable"] == []
    assert lost["buffered"]

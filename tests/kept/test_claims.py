"""Two workers at one path, each held where it matters: names and lines keep their order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.compiled import compile_c
from tests.kept.kit_kept import FLUSH, HOLD_BEFORE, RENAME, WRITE, Interposed, apart, items
from tests.kept.test_order import COMMIT, Changes, mutate
from tests.kit import Service, open_paths, store, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kept.kit_kept import Item
    from tests.kit import Peer

HERE: Final = Path(__file__).resolve().parent
LOCKS: Final = ".fastscp/locks"


def locked(pid: int) -> bool:
    """Whether a worker has the file of locks open, as it has from its first claim on."""
    return any(path.endswith(LOCKS) for path in open_paths(pid))


def put(peer: Peer, item: Item) -> None:
    peer.send(store(1, item.data, sop=item.sop))


def meet(
    service: Interposed,
    rule: int,
    sent: tuple[Item, Item],
    there: Callable[[], bool],
    *,
    waits: bool,
) -> None:
    """Send one instance, held by the rule, then the other to the other worker; let the first go on.

    there: whether the second one has got its name, which it should not before. waits: it is seen
    to claim its path; else it is let go on until it is there.
    """
    with apart(service) as (one, other):
        put(one, sent[0])
        wait_for(lambda: service.control.hits(rule) == 1, "the first being held")
        free = [pid for pid in service.worker_pids() if not locked(pid)]
        put(other, sent[1])
        wait_for(
            lambda: there() or (waits and any(map(locked, free))),
            "the second being there or waiting",
        )
        service.control.lift(rule)
        assert one.read_statuses(1) == [(1, 0)]
        assert other.read_statuses(1) == [(1, 0)]
        one.release()
        other.release()


def order_of_two(tmp_path: Path, library: Path, env: dict[str, str] | None = None) -> list[str]:
    """The names and lines of two instances of one path, as they came; the first one's is slow."""
    (item,), (other,) = items("1", 1), items("1", 1, seed=1)
    with Interposed(tmp_path, library, "--redo", "off", env=env) as service:
        folder = item.path.rpartition("/")[0]
        rule = service.control.rule([FLUSH], HOLD_BEFORE, path=f"/{folder}", left=1)
        version = service.store / f"{item.path}~2"
        meet(service, rule, (item, other), version.exists, waits=env is None)
        found = []
        for event in service.events():
            if event.kind == RENAME and event.result == 0 and event.name2.startswith(item.sop):
                found.append(f"name {event.name2.removeprefix(item.sop)}")
            if event.kind == WRITE and item.path.encode() in event.data and b'"seq"' in event.data:
                found.append("line ~2" if b"~2" in event.data else "line")
        return found


def test_the_next_name_of_a_path_comes_after_the_line(tmp_path: Path, library: Path) -> None:
    assert order_of_two(tmp_path, library) == ["name .dcm", "line", "name .dcm~2", "line ~2"]


_CLAIMING: Final = "    failed = claim(&c.claims, worker, i.path, i.path_size)\n"
_GIVING_BACK: Final = "    _journal(worker, c, batch)\n    give_back(&c.claims)\n"
NO_CLAIM: Final[Changes] = [(COMMIT, _CLAIMING, "    failed = 0\n", 1)]
GIVEN_BACK_EARLY: Final[Changes] = [
    (COMMIT, _GIVING_BACK, _GIVING_BACK.replace("    give_back(&c.claims)\n", ""), 1),
    (
        COMMIT,
        "    if c.durable:\n        named_ns = monotonic_ns()\n",
        "    give_back(&c.claims)\n    if c.durable:\n        named_ns = monotonic_ns()\n",
        1,
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("changes", [NO_CLAIM, GIVEN_BACK_EARLY], ids=["none", "early"])
def test_without_a_claim_up_to_the_line_the_order_is_lost(
    tmp_path: Path, library: Path, changes: Changes
) -> None:
    env = {"PYTHONPATH": str(mutate(changes, tmp_path / "mutant"))}
    assert order_of_two(tmp_path, library, env)[:2] == ["name .dcm", "name .dcm~2"]


def test_a_system_without_locks(tmp_path: Path) -> None:
    (item,) = items("1", 1)
    library = compile_c(HERE / "nolocks.c", tmp_path, "-shared", "-fPIC")
    none = tmp_path / "none"
    env = {"LD_PRELOAD": str(library), "NO_LOCKS": str(none)}
    with Service(tmp_path, env=env, workers=1) as service, service.peer() as peer:
        none.touch()
        put(peer, item)
        assert peer.read_statuses(1) == [(1, 0xA700)]
        said = service.in_log(f"cannot lock {LOCKS}, ")
        assert "the system, or the server of the file system, is out of locks" in said
        none.unlink()
        put(peer, item)
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()

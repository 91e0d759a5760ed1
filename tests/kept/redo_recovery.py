"""What is done with the redo log of lives that are over, on the disk of `redo_model`.

Written from the design alone, as generators that stop between two calls of the disk, so that a
recovery can be cut at each of its steps, and can run beside workers that go on. It is not the
service's: it is what that one is compared with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastscp.store.journal import parse_line
from tests.kept import redo_log
from tests.kept.redo_model import ASIDE, INCOMING, JOURNAL, REDO, REPLACED, Owner
from tests.redo_files import PUT, VOID

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from tests.kept.kit_kept import Node
    from tests.kept.redo_model import World

__all__ = ["DamageError", "recover", "settle", "start"]


class DamageError(Exception):
    """A log has no header, or a valid batch behind one that is not."""


class _Put(NamedTuple):
    seq: int
    path: str
    line: bytes
    data: bytes
    life: str
    same: bool


def start(world: World) -> Generator[None, None, None]:
    """What a start does before anything else: replacements, then the logs, then the parts."""
    yield from settle(world)
    yield from recover(world, world.lives(), alone=True)


def settle(world: World) -> Generator[None, None, None]:
    """End all replacements."""
    lines = world.medium.make(f"{JOURNAL}/{_name(world, 'settled')}")
    for name in sorted(world.medium.folder(REPLACED).entries):
        yield from world.settle_path(name.rpartition(".")[0].replace("%", "/"), lines)


def _name(world: World, what: str) -> str:
    world.names += 1
    return f"20261126T9999{world.names:02d}000000Z-{what}-1.jsonl"


def recover(world: World, lives: Sequence[str], *, alone: bool) -> Generator[None, None, None]:
    """Recover lives that are over. alone: nobody else is at work. Raises DamageError."""
    medium, mutant = world.medium, world.mutant
    distrust = world.distrusted & set(lives)
    puts: list[_Put] = []
    every = [
        name for name in sorted(medium.folder(REDO).entries) if name.rpartition("-")[0] in lives
    ]
    logs = [name for name in every if name.endswith(".log")]
    yield
    for name in logs:
        log = redo_log.read(bytes(medium.folder(REDO).entries[name].data))
        if log.damaged or not log.boot:
            raise DamageError(name)
        life = name.rpartition("-")[0]
        same = log.boot == world.when()[0]
        voided = {one.seq for one in log.records if one.kind == VOID}
        if mutant == "void ignored":
            voided = set()
        puts += [
            _Put(one.seq, one.path, one.line, one.data, life, same)
            for one in log.records
            if one.kind == PUT and one.seq not in voided
        ]
    # A void may stand in another file of the life.
    puts.sort()
    world.sequence = max([world.sequence, *(one.seq for one in puts), *world.lines()])
    removed = yield from _cut_segments(world, lives, distrust, puts)
    segment = medium.make(f"{JOURNAL}/{_name(world, 'recovered')}") if puts or removed else None
    noted: dict[str, None] = {}
    if segment is not None:
        for line in removed:
            medium.write(segment, len(segment.data), line)
        for one in puts:
            yield from _put(world, one, one.life in distrust, puts, noted, segment)
        yield
        medium.flush(medium.folder(JOURNAL))
    yield from _flush_segments(world, lives, puts, segment)
    if mutant != "logs removed before folders' flush":
        yield from _flush_ways(world, noted, distrust)
    yield
    for name in every:
        medium.remove(f"{REDO}/{name}")
        yield
    if mutant == "logs removed before folders' flush":
        yield from _flush_ways(world, noted, distrust)
    medium.flush(medium.folder(REDO))
    for life in lives:
        world.distrusted.discard(life)
        if life in medium.folder(INCOMING).entries:
            medium.remove(f"{INCOMING}/{life}")


def _flush_segments(
    world: World, lives: Sequence[str], puts: Sequence[_Put], own: Node | None
) -> Generator[None, None, None]:
    """Flush every segment that has a line of these records, whoever wrote it.

    What a dead worker wrote last stands in the page cache alone, and so does what a recovery wrote
    that was killed.
    """
    logged = {one.seq for one in puts}
    for name, node in sorted(world.medium.folder(JOURNAL).entries.items()):
        is_lane = any(name.startswith(f"{life}r-") for life in lives)
        if is_lane and world.mutant == "a dead one's segments not flushed":
            continue
        if node is own and world.mutant == "recovered lines not flushed":
            continue
        is_older = "recovered" in name and node is not own
        if is_older and world.mutant == "an older recovery's segments not flushed":
            continue
        if any(fact["seq"] in logged for one, fact in world.facts() if one == name):
            yield
            world.medium.flush(node)


def _flush_ways(
    world: World, paths: dict[str, None], distrust: set[str]
) -> Generator[None, None, None]:
    nodes: dict[Node, None] = {}
    for path in paths:
        nodes |= dict.fromkeys(world.medium.flush_way(path))
    for node in nodes:
        yield
        if distrust:
            # Names whose flush failed are dirty no more: each folder is written anew.
            for name, entry in list(node.entries.items()):
                node.set(name, entry)
        world.medium.flush(node)


def _cut_segments(
    world: World, lives: Sequence[str], distrust: set[str], puts: Sequence[_Put]
) -> Generator[None, None, list[bytes]]:
    """Cut the lane's segments where they end in what is no line; returns lines cut off."""
    removed: list[bytes] = []
    logged = {one.seq for one in puts}
    for name, node in sorted(world.medium.folder(JOURNAL).entries.items()):
        life = next((life for life in lives if name.startswith(f"{life}r-")), None)
        if life is None:
            continue
        good = 0
        lines = bytes(node.data).split(b"\n")
        for line in lines[:-1]:
            fact = parse_line(line)
            if fact is None or (life in distrust and fact["seq"] in logged):
                break
            good += len(line) + 1
        rest = bytes(node.data)[good:].split(b"\n")[:-1]
        removed += [
            line + b"\n"
            for line in rest
            if (fact := parse_line(line)) is not None and fact["seq"] not in logged
        ]
        if good < len(node.data):
            yield
            node.write(good, None)
            world.medium.flush(node)
    return removed


def _last_content(world: World, one: _Put, puts: Sequence[_Put]) -> dict[str, Any]:
    """The latest fact about a path, of the journal or of the logs.

    A file may have bytes that an older record has: an identical instance came later, or what was
    replaced has its path again. Whoever wrote that line flushed a file of somebody else, who may
    know that this flush was worth nothing. So the bytes decide whether a record is superseded.
    """
    facts = [parse_line(other.line[:-1]) for other in puts if other.path == one.path]
    facts += [fact for _name_of, fact in world.facts()]
    return max(
        (f for f in facts if f and f["path"] == one.path and f.get("duplicate") != "kept"),
        key=lambda fact: int(fact["seq"]),
    )


def _content(fact: Mapping[str, Any]) -> tuple[object, object]:
    return fact.get("bytes"), fact.get("digest")


def _put(
    world: World,
    one: _Put,
    distrust: bool,
    puts: Sequence[_Put],
    noted: dict[str, None],
    segment: Node,
) -> Generator[None, None, None]:
    """Have one record's bytes at its path, unless a later fact says otherwise."""
    medium, mutant = world.medium, world.mutant
    me = Owner(None)
    while not world.claim(one.path, me):
        yield
    lines = world.lines()
    last = _last_content(world, one, puts)
    is_old = last["seq"] > one.seq
    if mutant != "identical supersedes":
        is_old = is_old and _content(last) != _content(parse_line(one.line[:-1]) or {})
    if mutant == "highest seq ignored":
        is_old = False
    node = medium.node(one.path)
    needs_line = True
    if is_old:
        pass
    elif not distrust and node is not None and bytes(node.data) == one.data:
        medium.flush(node)
        noted[one.path] = None
    elif one.same and not distrust and node is None and one.seq in lines:
        # Somebody took it away; the disk may not know that yet, and not have its bytes either.
        if mutant != "a removal not flushed":
            noted[one.path] = None
    elif one.same and not distrust and one.seq not in lines:
        noted[one.path] = None
        needs_line = False
    else:
        yield
        part = medium.make(f"{ASIDE}/{one.seq}.part")
        medium.write(part, 0, one.data)
        yield
        medium.flush(part)
        if node is not None and bytes(node.data) in world.strangers:
            medium.place(node, f"{ASIDE}/{one.seq}")
            medium.flush(medium.folder(ASIDE))
        yield
        medium.place(part, one.path)
        medium.remove(f"{ASIDE}/{one.seq}.part")
        noted[one.path] = None
    if needs_line and one.seq not in lines:
        yield
        medium.write(segment, len(segment.data), one.line)
    world.give_back(me)

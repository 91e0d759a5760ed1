"""Ends a service of `redo_model` at some moment, recovers, and judges what is left.

A trial is a script with everything that its seed decides: who goes on after each line, when it all
ends and how, and what happens while the next start recovers.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any, Final

from tests.kept.redo_model import World
from tests.kept.redo_recovery import DamageError, recover, start

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from tests.kept.kit_kept import Tree

__all__ = [
    "CONTENTS",
    "FAULTS",
    "PATHS",
    "POLICIES",
    "Line",
    "bury",
    "end",
    "found",
    "judge",
    "played",
]

POLICIES: Final = ("version", "replace", "keep")
PATHS: Final = ("a/x", "a/y", "b/z")
# Of two blocks, and of one.
CONTENTS: Final = (b"content 0 " * 500, b"content 1 ", b"content 2 " * 500, b"content 3 ")
FAULTS: Final = ("log flush", "name", "part flush", "file flush", "folder flush", "journal flush")
# What is done, and to which worker or path, with which content.
Line = tuple[Any, ...]
# How much survives a power cut; None: the processes are killed, and the system goes on.
End = float | None
_MOST_STEPS: Final = 100_000


def end(
    world: World,
    ends: Sequence[tuple[End, int]],
    seed: int,
    last: Callable[[World], Iterable[None]] = start,
) -> list[str]:
    """Let it end, and each recovery but the last one; returns what is wrong after that, in words.

    ends: how, and how many steps the recovery after it is given, except the last one. last: does
    the last one.
    """
    for number, (how, steps) in enumerate(ends, 1):
        if how is None:
            world.kill_all()
        else:
            world.cut_power(how, seed + number)
        try:
            if number == len(ends):
                for _step in last(world):
                    pass
                break
            for _step in itertools.islice(start(world), steps):
                pass
        except DamageError as error:
            return [f"{error} is damaged"]
    return world.wrong()


def judge(
    world: World,
    luck: float,
    seed: int,
    again: Callable[[World], Iterable[None]] = start,
) -> list[str]:
    """What is wrong with what a recovery left, after another one, and after a power cut."""
    seen = _without_empty(world.medium.tree())
    bad = end(world, [(None, 0)], seed, again)
    if _without_empty(world.medium.tree()) != seen:
        bad.append("a second recovery changes something")
    before = world.medium.files()
    told = {d.final for d in world.deliveries if d.status == 0 and not d.removed}
    world.cut_power(luck, seed)
    after = world.medium.files()
    bad += [f"{path} was not flushed" for path in told if before.get(path) != after.get(path)]
    return bad + world.wrong()


def _without_empty(tree: Tree) -> Tree:
    """A tree without files of the journal that have no line."""
    return {
        name: entry if isinstance(entry, bytes) else _without_empty(entry)
        for name, entry in tree.items()
        if entry != b"" or not name.endswith(".jsonl")
    }


def bury(world: World) -> Generator[None, None, None]:
    """What the main process does when a worker died: its log, then its place."""
    yield from recover(world, world.lives(), alone=False)
    world.fill()


def found(
    script: Sequence[Line],
    seed: int,
    mutant: str = "",
    policy: str = "version",
    recovery: Callable[[World], Iterable[None]] = start,
) -> list[str]:
    """Play a script with what a seed decides; returns what is wrong in the end."""
    world, rng = played(script, seed, mutant, policy)
    ends: list[tuple[End, int]] = [
        (rng.choice((0.0, 0.5, 0.8, None)), rng.randrange(30))
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    bad = end(world, ends, seed, recovery)
    return bad or judge(world, rng.choice((0.0, 0.5)), seed, recovery)


def played(
    script: Sequence[Line], seed: int, mutant: str = "", policy: str = "version"
) -> tuple[World, random.Random]:
    """Play a script, or its beginning; returns the world, and what is to decide the rest."""
    rng = random.Random(seed)
    world = World(policy, mutant)
    # Anywhere, or in the middle of what comes last.
    anywhere = rng.random() < 0.5
    left = rng.choice((rng.randrange(60), _MOST_STEPS)) if anywhere else _MOST_STEPS
    for number, (what, *numbers) in enumerate(script, 1):
        _play(world, what, numbers)
        patient = not anywhere or rng.random() < 0.5
        if number == len(script) and not anywhere:
            left = rng.randrange(15)
        while left > 0 and (world.is_busy() if patient else rng.random() < 0.8):
            world.step(rng.randrange(6), 1)
            left -= 1
    if rng.random() < 0.3:
        world.follow()
    return world, rng


def _play(world: World, what: str, numbers: Sequence[int]) -> None:
    match what:
        case "small" | "large":
            worker, path, content = numbers
            world.deliver(worker, PATHS[path], CONTENTS[content], is_small=what == "small")
        case "both":
            path, *contents = numbers
            for worker, content in enumerate(contents):
                world.deliver(worker, PATHS[path], CONTENTS[content], is_small=True)
        case "beside":
            # A large one, whose commit flushes the folder of both.
            small, large = numbers
            world.deliver(0, PATHS[small], CONTENTS[0], is_small=True)
            world.deliver(1, PATHS[large], CONTENTS[0], is_small=False)
        case "three":
            for place in PATHS:
                world.deliver(numbers[0], place, CONTENTS[1], is_small=True)
        case "seal":
            world.seal(numbers[0])
        case "kill":
            if world.workers:
                world.kill(world.workers[numbers[0] % len(world.workers)])
        case "bury":
            world.spawn("recover", bury(world), None)
        case "consume":
            world.consume(PATHS[numbers[0]])
        case "fault":
            world.faults[:] = [FAULTS[numbers[0]]]
        case _:
            raise AssertionError(what)

"""One data set of a seed, what a tap made of it, and whether that is allowed."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Protocol

from tests.datasets.faults import Fault, damage
from tests.datasets.legal import legal
from tests.datasets.sound import PADDING, sound
from tests.datasets.tree import WANTED, Element, Item, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SMALL", "Case", "Outcome", "Reads", "Verdict", "case", "judge", "reduced", "slices"]

UID = re.compile(rb"[0-9A-Za-z._-]{1,64}").fullmatch
SMALL = 3000  # bytes, up to which a data set is also fed byte by byte


@dataclass(frozen=True)
class Outcome:
    values: dict[str, bytes]
    stopped: bool
    truncated: bool


class Reads(Protocol):
    """A tap: what it makes of the slices of a data set."""

    def __call__(self, slices: Iterator[bytes], tree: Tree) -> Outcome: ...


@dataclass
class Case:
    seed: int
    tree: Tree
    faults: list[Fault] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [fault.kind for fault in self.faults]

    @property
    def family(self) -> str:
        coding = self.tree.coding
        if coding.implicit:
            return "Implicit LE"
        return "Explicit BE" if coding.order == ">" else "Explicit LE"

    def describe(self, problems: list[str]) -> str:
        return "\n".join(
            [
                f"seed {self.seed}, {self.family}, faults: {', '.join(self.kinds) or 'none'}",
                *problems,
                f"truth: {self.tree.truth}",
                self.tree.listing(),
                f"hex: {self.tree.data().hex()}",
            ]
        )


def case(seed: int, *, broken: bool | None = None) -> Case:
    """The data set of this seed. broken: with faults or without, else as the seed has it."""
    rng = random.Random(seed)
    drawn = rng.random() < 0.65
    tree = legal(rng, plain=rng.random() < 0.35)
    if not (drawn if broken is None else broken):
        return Case(seed, tree)
    return Case(seed, tree, damage(rng, tree, rng.choice((1, 1, 1, 2, 3))))


# Judging --------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """problems: what is not allowed. found: all values are there. excused: nobody could tell."""

    outcome: Outcome
    problems: list[str]
    found: bool
    wrong: dict[str, bytes]
    excused: bool = False

    @property
    def kind(self) -> str:
        """Of the first problem; "" if there is none."""
        return self.problems[0].split(":")[0] if self.problems else ""


def slices(data: bytes, places: list[int]) -> Iterator[bytes]:
    for start, end in pairwise([0, *sorted(places), len(data)]):
        yield data[start:end]


def judge(one: Case, reads: Reads) -> Verdict:
    """Feed it whole, in slices, and if small byte by byte; compare with the truth."""
    data = one.tree.data()
    whole = reads(slices(data, []), one.tree)
    problems = []
    rng = random.Random(one.seed)
    some = [rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 9))]
    ways = {"in slices": some}
    if len(data) <= SMALL:
        ways["byte by byte"] = list(range(1, len(data)))
    for how, places in ways.items():
        if (other := reads(slices(data, places), one.tree)) != whole:
            problems.append(f"depends on the cuts: {how} {other}, whole {whole}")
    truth = one.tree.truth
    told = {keyword: value.strip(PADDING) for keyword, value in whole.values.items()}
    # What is no UID at all the receiver refuses, so nothing was found.
    told = {key: value for key, value in told.items() if key[-3:] != "UID" or UID(value)}
    wrong = {
        keyword: value
        for keyword, value in told.items()
        if value not in (truth.get(keyword), one.tree.also.get(keyword))
    }
    excused = bool(wrong) and (wrong.keys() <= says_itself(one) or nobody_can_tell(one, wrong))
    if wrong and not excused:
        halves = all(is_half(value, truth.get(key, b"")) for key, value in wrong.items())
        problems.append(f"{'half' if halves else 'wrong'} value: {wrong}")
    missing = sorted(truth.keys() - told.keys())
    if not one.faults:
        if missing:
            problems.append(f"legal refused: {missing} not found, {whole}")
        elif whole.stopped or whole.truncated:
            problems.append(f"legal called broken: {whole}")
    return Verdict(whole, problems, not missing and not wrong, wrong, excused)


def says_itself(one: Case) -> set[str]:
    """Of which texts the stated length is wrong: it is taken literally, and proved by nothing."""
    return {
        WANTED[node.tag]
        for node in one.tree.elements
        if node.by and node.tag in WANTED and WANTED[node.tag][-3:] != "UID"
    }


def is_half(value: bytes, true: bytes) -> bool:
    """Whether the value is the true one cut, or with what stands behind it."""
    return bool(true) and (true.startswith(value) or value.startswith(true[:-1]))


def nobody_can_tell(one: Case, wrong: dict[str, bytes]) -> bool:
    """Whether some of the faults by themselves give a data set without any, which says this."""
    said: list[dict[str, bytes] | None] = [sound(one.tree.data(), one.tree.coding)]
    for count in range(1, len(one.faults)):
        for chosen in combinations(one.faults, count):
            for fault in reversed(one.faults):
                fault.undo()
            for fault in chosen:
                fault.redo()
            said.append(sound(one.tree.data(), one.tree.coding))
            for fault in reversed(chosen):
                fault.undo()
            for fault in one.faults:
                fault.redo()
    return any(reading is not None and wrong.items() <= reading.items() for reading in said)


# Making it smaller ----------------------------------------------------------------------------


def reduced(one: Case, reads: Reads, attempts: int = 2000) -> Case:
    """The case without what is not needed for its first problem; changes the tree.

    The instance's own values stay as they are: the truth is known of these.
    """
    problem = judge(one, reads)
    budget = [attempts]
    own = [node for node in one.tree.elements if node.tag in WANTED]
    if problem.wrong:
        own = [node for node in own if WANTED[node.tag] in problem.wrong]

    def fails() -> bool:
        budget[0] -= 1
        if budget[0] < 0:
            return False
        now = judge(one, reads)
        return now.kind == problem.kind and now.wrong.keys() == problem.wrong.keys()

    if len(one.faults) > 1:
        for fault in list(one.faults):
            _without_fault(one, fault, fails)
    changed = True
    while changed and budget[0] > 0:
        changed = False
        for node, name in _lists(one.tree):
            for part in getattr(node, name):
                whole = getattr(node, name)
                setattr(node, name, [other for other in whole if other is not part])
                if part not in own and fails():
                    changed = True
                else:
                    setattr(node, name, whole)
    for node, _ in list(one.tree.nodes()):
        if isinstance(node, Element) and len(node.value) > 4 and node not in own:
            value, node.value = node.value, node.value[:2]
            if not fails():
                node.value = value
    return one


def _without_fault(one: Case, fault: Fault, fails: Callable[[], bool]) -> None:
    """Take it back for good if it still fails; the others were done behind it."""
    faults = one.faults
    for other in reversed(faults):
        other.undo()
    one.faults = [other for other in faults if other is not fault]
    for other in one.faults:
        other.redo()
    if fails():
        return
    for other in reversed(one.faults):
        other.undo()
    one.faults = faults
    for other in faults:
        other.redo()


def _lists(tree: Tree) -> list[tuple[Tree | Element | Item, str]]:
    """What holds elements or items, the outermost first."""
    found: list[tuple[Tree | Element | Item, str]] = [(tree, "elements")]
    for node, _ in tree.nodes():
        if isinstance(node, Item):
            found.append((node, "elements"))
        elif node.items:
            found.append((node, "items"))
    return found

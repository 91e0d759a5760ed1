"""Whatever ends the service, and whenever: after recovery nothing acknowledged is lost.

A state machine over `redo_model`, and scripts that are played with many seeds; and that each step
that is left out is noticed.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.kept.redo_model import World
from tests.kept.redo_trial import (
    CONTENTS,
    FAULTS,
    PATHS,
    POLICIES,
    Line,
    bury,
    end,
    found,
    judge,
)

LUCK: Final = (0.0, 0.3, 0.5, 0.8, 1.0)


class Machine(RuleBasedStateMachine):
    """Senders, workers, the main process, a disk that fails, a hand that pulls the plug."""

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy: str) -> None:
        self.world = World(policy)

    @rule(
        worker=st.integers(0, 1),
        path=st.sampled_from(PATHS),
        content=st.sampled_from(CONTENTS),
        is_small=st.sampled_from((True, True, True, False)),
    )
    def deliver(self, worker: int, path: str, content: bytes, is_small: bool) -> None:
        self.world.deliver(worker, path, content, is_small)

    @rule(who=st.integers(0, 5), times=st.integers(1, 12))
    def step(self, who: int, times: int) -> None:
        self.world.step(who, times)

    @rule(who=st.integers(0, 5))
    def finish(self, who: int) -> None:
        self.world.step(who, 200)

    @rule(worker=st.integers(0, 1))
    def seal(self, worker: int) -> None:
        self.world.seal(worker)

    @rule(what=st.sampled_from(FAULTS))
    def fault(self, what: str) -> None:
        # A replacer whose older content could not be written has it noted as doubtful; this model
        # does not go on from there.
        if (self.world.policy, what) != ("replace", "file flush"):
            self.world.faults[:] = [what]

    @rule()
    def follow(self) -> None:
        self.world.follow()

    @rule(path=st.sampled_from(PATHS))
    def consume(self, path: str) -> None:
        self.world.consume(path)

    @rule(path=st.sampled_from(PATHS))
    def stranger(self, path: str) -> None:
        self.world.stranger(path)

    @precondition(lambda self: self.world.workers)
    @rule(worker=st.integers(0, 1))
    def kill(self, worker: int) -> None:
        self.world.kill(self.world.workers[worker % len(self.world.workers)])

    @precondition(lambda self: len(self.world.workers) < self.world.count)
    @rule(times=st.integers(1, 30))
    def bury(self, times: int) -> None:
        """The main process recovers a dead worker beside the others."""
        world = self.world
        if not any(task.worker is None for task in world.tasks):
            world.spawn("recover", bury(world), None)
        number = next(n for n, task in enumerate(world.tasks) if task.worker is None)
        world.step(number, times)

    @rule(
        power=st.booleans(),
        luck=st.sampled_from(LUCK),
        seed=st.integers(0, 1 << 16),
        again=st.lists(st.tuples(st.sampled_from((*LUCK, None)), st.integers(0, 40)), max_size=3),
        after=st.sampled_from((0.0, 0.5)),
    )
    def end(self, power: bool, luck: float, seed: int, again: list[Any], after: float) -> None:
        """All is killed, or the power goes; so it may while the next start recovers."""
        ends = [(luck if power else None, again[0][1] if again else 0), *again]
        assert end(self.world, ends, seed) == []
        assert judge(self.world, after, seed) == []
        self.world.fill()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert end(self.world, [(0.0, 0)], 1) == []


def run(examples: int, steps: int, **more: Any) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), **more,
        ),
    )  # fmt: skip


def test_nothing_acknowledged_is_lost() -> None:
    run(40, 40, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_many_lives() -> None:
    run(6000, 60)


# Scripts ------------------------------------------------------------------------------------------

PLAIN: Final[list[Line]] = [("small", 0, 2, 1), ("small", 0, 0, 0)]
TOGETHER: Final[list[Line]] = [("large", 1, 2, 0), ("three", 0)]
CHECKPOINT: Final[list[Line]] = [("small", 0, 0, 0), ("small", 0, 2, 1), ("seal", 0)]
REUSE: Final[list[Line]] = [
    ("small", 0, 0, 1), ("small", 0, 1, 1), ("seal", 0), ("small", 0, 2, 1), ("seal", 0),
    ("consume", 0), ("small", 0, 0, 0),
]  # fmt: skip
BESIDE: Final[list[Line]] = [("beside", 0, 1)]
ONE_PATH: Final[list[Line]] = [("both", 0, 1, 3)]
NAME: Final = ("fault", FAULTS.index("name"))
FOLDER: Final = ("fault", FAULTS.index("folder flush"))
JOURNAL: Final = ("fault", FAULTS.index("journal flush"))
VOID: Final[list[Line]] = [NAME, ("small", 0, 0, 1), ("small", 1, 0, 3)]
IDENTICAL: Final[list[Line]] = [
    ("small", 0, 0, 1), ("small", 1, 0, 1), FOLDER, ("seal", 0), ("bury",), ("small", 1, 1, 0)
]  # fmt: skip
NEWER: Final[list[Line]] = [("small", 0, 0, 1), ("consume", 0), ("large", 1, 0, 3)]
DEAD: Final[list[Line]] = [
    ("small", 0, 0, 1), ("small", 0, 1, 0), ("kill", 0), ("bury",), ("small", 0, 2, 1)
]  # fmt: skip
TAKEN: Final[list[Line]] = [
    ("small", 0, 0, 0), ("large", 1, 1, 1), ("consume", 0), ("kill", 0), ("bury",)
]  # fmt: skip
BROKEN: Final[list[Line]] = [
    ("small", 0, 0, 0), JOURNAL, ("small", 0, 1, 1), ("seal", 0), ("bury",), ("small", 0, 2, 1)
]  # fmt: skip
SCRIPTS: Final = {
    "plain": PLAIN, "beside": BESIDE, "together": TOGETHER, "checkpoint": CHECKPOINT,
    "reuse": REUSE, "one path": ONE_PATH, "void": VOID, "identical": IDENTICAL, "newer": NEWER,
    "dead": DEAD, "taken": TAKEN, "broken": BROKEN,
}  # fmt: skip
# Mutant -> the script that shows it.
MUTANTS: Final = {
    "no log flush": PLAIN,
    "rename before flush": BESIDE,
    "line before flush": TOGETHER,
    "answer before name": PLAIN,
    "batch b+1 before b": TOGETHER,
    "no claim": ONE_PATH,
    "void ignored": VOID,
    "sealed in the middle of a batch": CHECKPOINT,
    "log file named before it is flushed": PLAIN,
    "log file used before its name is flushed": REUSE,
    "reuse before C2": CHECKPOINT,
    "reuse before C3": CHECKPOINT,
    "reuse before C4": CHECKPOINT,
    "old salt kept": REUSE,
    "identical supersedes": IDENTICAL,
    "highest seq ignored": NEWER,
    "page cache believed": BROKEN,
    "logs removed before folders' flush": PLAIN,
    "recovered lines not flushed": PLAIN,
    "a dead one's segments not flushed": DEAD,
    "an older recovery's segments not flushed": PLAIN,
    "a removal not flushed": TAKEN,
}
SEEDS: Final = range(600)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_loses_anything(script: str, policy: str) -> None:
    for seed in SEEDS[:40]:
        assert found(SCRIPTS[script], seed, policy=policy) == [], seed


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_loses_anything_ever(script: str, policy: str) -> None:
    for seed in range(10_000):
        assert found(SCRIPTS[script], seed, policy=policy) == [], seed


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_step_left_out_is_noticed(mutant: str) -> None:
    assert any(found(MUTANTS[mutant], seed, mutant) for seed in SEEDS)

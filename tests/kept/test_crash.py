"""Killed at a step of the commit or at any moment: nothing acknowledged is lost.

One store lives through all rounds of a test. A round kills a worker or everything, and then what
was acknowledged, in this round or one before, must be there byte for byte; nothing may be visible
that was not sent; and what was not acknowledged is taken when it is sent again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from fastscp.log import counted
from fastscp.store.journal import parse_line
from tests.kept.kit_kept import (
    FLUSH,
    KILL_AFTER,
    KILL_ALL_AFTER,
    KILL_ALL_BEFORE,
    KILL_BEFORE,
    LINK,
    MKDIR,
    OPEN,
    RENAME,
    SEND,
    WRITE,
    Interposed,
    Item,
    items,
    send_all,
)
from tests.kit import DEADLINE_S, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Step -> kind of call and part of its path.
STEPS: Final = {
    "part made": (OPEN, ".part"),
    "part written": (WRITE, ".part"),
    "part flushed": (FLUSH, ".part"),
    "folder made": (MKDIR, "/store/1.2."),
    "named": (RENAME, "/store/1.2."),
    "folder flushed": (FLUSH, "/store/1.2."),
    "journaled": (WRITE, ".jsonl"),
    "journal flushed": (FLUSH, ".jsonl"),
    "answered": (SEND, "socket"),
}
# The same, where parts have no names.
NAMELESS: Final = STEPS | {
    "part made": (OPEN, "/incoming/"),
    "part written": (WRITE, "/incoming/"),
    "part flushed": (FLUSH, "/incoming/"),
    "named": (LINK, "/store/1.2."),
}
ACTIONS: Final = {
    "worker before": KILL_BEFORE,
    "worker after": KILL_AFTER,
    "all before": KILL_ALL_BEFORE,
    "all after": KILL_ALL_AFTER,
}

# So often a round sends until its step is reached.
TURNS_MOST: Final = 20


@dataclass
class History:
    """What the store must hold. sent: by path. facts are read from the journal's files.

    due: what the next start has to find, after everything was killed.
    """

    store: Path
    sent: dict[str, Item] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    due: Callable[[Service], None] | None = None

    def goes_on(self, service: Service) -> None:
        """Check what this start finds, if something is due."""
        if self.due is not None:
            self.due(service)
        self.due = None

    def facts(self) -> dict[str, dict[str, Any]]:
        """The latest fact per path. Only the last line of a file may be torn."""
        latest: dict[str, dict[str, Any]] = {}
        for segment in (self.store / ".fastscp/journal").iterdir():
            lines = segment.read_bytes().split(b"\n")
            for line in lines[:-1]:
                fact = parse_line(line)
                assert fact is not None, f"{segment.name}: {line!r}"
                known = latest.get(fact["path"])
                if known is None or known["seq"] < fact["seq"]:
                    latest[fact["path"]] = fact
        return latest

    def check(self, service: Service) -> None:
        facts = self.facts()
        visible = set(service.instances())
        for path in visible:
            assert service.data_of(path) == self.sent[path].data, f"{path} is not what was sent"
        for path in self.acknowledged:
            assert path in visible, f"{path} was acknowledged and is gone"
            assert path in facts, f"{path} was acknowledged and is not in the journal"

    def take_up(self, service: Service, what: list[Item]) -> None:
        """Send again what was not acknowledged: all of it is taken, and what was there adopted."""
        known = self.facts()
        there = set(service.instances())
        again = [item for item in what if item.path not in self.acknowledged]
        sent = send_all(service.port, again)
        assert not sent.broken
        assert sent.acknowledged == {item.sop for item in again}
        self.acknowledged |= {item.path for item in again}
        now = self.facts()
        for item in again:
            assert item.path in now
            if item.path in there and item.path not in known:
                assert now[item.path].get("duplicate") == "identical"
        self.check(service)


def one_round(
    tmp_path: Path,
    library: Path,
    history: History,
    number: int,
    *,
    step: str = "",
    action: str = "all before",
    skip: int = 0,
    moment: float = 0.0,
    nameless: bool = False,
) -> None:
    """Kill at a step, or without one at a moment (seconds after the sending began)."""
    what: list[Item] = []
    everything = action.startswith("all")
    with Interposed(
        tmp_path, library, log=False, store=history.store, nameless=nameless
    ) as service:
        history.goes_on(service)
        rule = -1
        if step:
            kind, path = (NAMELESS if nameless else STEPS)[step]
            rule = service.control.rule([kind], ACTIONS[action], path=path, skip=skip, left=1)
        victims = [*service.worker_pids(), service.pid]

        def kill() -> None:
            time.sleep(moment)
            if everything:
                # No worker is replaced before all are killed.
                os.kill(service.pid, signal.SIGSTOP)
            for pid in victims if everything else victims[:1]:
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        if not step:
            killer.start()
        # How many batches they make is not for the test to say: a step that comes once for each
        # may need more instances.
        for turn in range(TURNS_MOST):
            more = items(f"{number}.{turn}", 48, studies=4, pixels=20000)
            what += more
            history.sent |= {item.path: item for item in more}
            sent = send_all(service.port, more, associations=8)
            history.acknowledged |= {item.path for item in more if item.sop in sent.acknowledged}
            if not step or service.control.hits(rule):
                break
        if step:
            assert service.control.hits(rule) == 1, f"{step} was not reached"
        else:
            killer.join()
        if not everything:
            service.in_log("ended unexpectedly")
            wait_for(lambda: not service.parts(), "the sweep of the dead worker's parts")
            history.check(service)
            history.take_up(service, what)
            return
        service.process.wait(DEADLINE_S)
        service.kill()
        left = len(service.parts())
        # Main may have lived just long enough to sweep after the worker that died first.
        lives = len(list((service.store / ".fastscp/incoming").iterdir()))

    def due(after: Service) -> None:
        if left:
            after.in_log(
                f"swept {counted(lives, 'part folder')} of an earlier run: "
                f"{counted(left, 'unfinished instance')}"
            )
        assert after.parts() == []
        history.check(after)
        history.take_up(after, what)

    history.due = due


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """At the end of the test the last start is looked at, too."""
    (tmp_path / "disk").mkdir()
    history = History(tmp_path / "disk/store")
    yield history
    if history.due is not None:
        with Service(tmp_path, store=history.store) as service:
            history.goes_on(service)


@pytest.mark.parametrize("nameless", [False, True])
def test_killed_at_a_step(tmp_path: Path, library: Path, history: History, nameless: bool) -> None:
    # Each step once, the ways in turn: all combinations are for the long run.
    ways = ["all before", "worker after", "all after", "worker before"]
    for number, step in enumerate(STEPS):
        one_round(
            tmp_path, library, history, number + 1, step=step, action=ways[(number + nameless) % 4],
            skip=number % 3, nameless=nameless,
        )  # fmt: skip


def test_killed_at_any_moment(tmp_path: Path, library: Path, history: History) -> None:
    rng = random.Random(7)
    for number in range(4):
        one_round(
            tmp_path, library, history, number + 1, moment=rng.uniform(0, 0.06),
            action=("all", "worker")[number % 2],
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_every_step(tmp_path: Path, library: Path, history: History, action: str) -> None:
    number = 0
    for step in STEPS:
        for skip in (0, 1, 5):
            number += 1
            one_round(
                tmp_path, library, history, number, step=step, action=action, skip=skip,
                nameless=bool(number % 2),
            )  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_many_moments(tmp_path: Path, library: Path, history: History, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(50):
        one_round(
            tmp_path, library, history, number + 1, moment=rng.uniform(0, 0.1),
            action=rng.choice(("all", "worker")), nameless=rng.random() < 0.5,
        )  # fmt: skip

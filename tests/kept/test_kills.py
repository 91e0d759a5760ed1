"""Killed at any moment, under every duplicate policy: the store holds what the model allows.

Several associations send several versions of the same instances. In each round somebody is killed
with SIGKILL: a worker, all workers, the main process, or all of them. What is there then, and what
is there once everything was sent again, is held against `model`, which knows only what the senders
were told; and in the end `verify` finds nothing.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.findings import Mark
from fastscp.store.verify import verify
from tests.kept.kit_kept import (
    FLUSH,
    MKDIR,
    Interposed,
    Item,
    facts_of,
    files_of,
    items,
    send_all,
    versions_of,
)
from tests.kept.model import POLICIES, Model, Tally
from tests.kept.test_crash import ACTIONS, NAMELESS, STEPS, TURNS_MOST
from tests.kit import DEADLINE_S, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.kept.conftest import Figures

VICTIMS: Final = ("worker", "workers", "main", "all")
ASSOCIATIONS: Final = 6
FAILED: Final = 0xA700
# Of two tables that store the same instances under the same paths.
MIXED: Final = "stable and buffered"
TITLES: Final = ("STABLE", "BUFFERED")
TABLES: Final = '[ae.STABLE]\n[ae.BUFFERED]\ndurability = "buffered"\n'


class Campaign:
    """Rounds of kills on one store."""

    def __init__(
        self, tmp_path: Path, library: Path, policy: str, durability: str, seed: int
    ) -> None:
        self._folder = tmp_path
        self._library = library
        self._durability = durability
        self._flags: tuple[str, ...] = ("--on-duplicate", policy, "--durability", durability)
        if durability == MIXED:
            file = tmp_path / "rules.toml"
            file.write_text(TABLES, "utf-8")
            self._flags = ("--on-duplicate", policy, "--config", str(file))
        self._rng = random.Random(f"{policy} {durability} {seed}")
        self._number = 0
        self._known: list[Item] = []
        self.store = tmp_path / "disk/store"
        self.store.parent.mkdir()
        # After the unclean end of a buffered life a file without a line is replaced.
        self.model = Model(policy, firm_refusals=durability == "stable")

    def round(self) -> None:
        """Send, kill, look, send again, look; and every third time verify."""
        self._number += 1
        rng = self._rng
        shares = self._shares(f"{self._number}")
        if rng.random() < 0.5:
            steps = [
                step
                for step, (call, _path) in STEPS.items()
                if self._durability != "buffered" or call != FLUSH
            ]
            ended = self._killed_at(rng.choice(steps), rng.choice(list(ACTIONS)), shares)
        else:
            ended = self._killed_after(rng.choice(VICTIMS), rng.uniform(0, 0.08), shares)
        if ended:
            with Service(self._folder, *self._flags, store=self.store) as service:
                self._take_up(service, shares)
        if self._number % 3 == 0:
            report = verify(self.store, patience_s=0.0)
            assert report.clean, f"round {self._number}: {report.findings}"
            assert report.mark in (Mark.NONE, Mark.LIFTED), f"round {self._number}: {report.mark}"

    def _shares(self, prefix: str) -> list[list[Item]]:
        """What each association sends: versions of new instances and of known ones, in disorder.

        prefix: of the new ones' UIDs.
        """
        rng = self._rng
        groups = [
            versions_of(item, 3, rng.choice((500, 3000, 150_000)))
            for item in items(prefix, 6, studies=2)
        ]
        new = [item for group in groups for item in group]
        old = rng.sample(self._known, min(6, len(self._known)))
        self._known += new
        shares: list[list[Item]] = [[] for _ in range(ASSOCIATIONS)]
        for item in new + old:
            for share in rng.sample(shares, 2):
                share.append(item)
        for share in shares:
            rng.shuffle(share)
        return shares

    def _killed_at(self, step: str, action: str, shares: list[list[Item]]) -> bool:
        """Kill at a step of the commit; whether everything ended. shares: get what more it takes.

        How many batches they make is not for the test to say: a step that comes once for each may
        need more instances.
        """
        nameless = self._rng.random() < 0.5
        with Interposed(
            self._folder, self._library, *self._flags, log=False, store=self.store,
            nameless=nameless,
        ) as service:  # fmt: skip
            kind, path = (NAMELESS if nameless else STEPS)[step]
            # Few folders are made.
            skip = self._rng.randint(0, 2 if kind == MKDIR else 12)
            rule = service.control.rule([kind], ACTIONS[action], path=path, skip=skip, left=1)
            more = shares
            for turn in range(TURNS_MOST):
                self._send(service, more)
                if service.control.hits(rule):
                    break
                more = self._shares(f"{self._number}.{turn}")
                for share, added in zip(shares, more, strict=True):
                    share += added
            assert service.control.hits(rule) == 1, f"{step} was not reached"
            service.control.lift(rule)
            self.model.tally.kills += 1
            if action.startswith("all"):
                service.process.wait(DEADLINE_S)
                service.kill()
                return True
            self._go_on(service, shares)
            return False

    def _killed_after(self, victim: str, moment: float, shares: Sequence[Sequence[Item]]) -> bool:
        """Kill a moment (seconds) after the sending began; whether everything ended."""
        with Service(self._folder, *self._flags, store=self.store) as service:
            workers = service.worker_pids()
            pids = {
                "worker": workers[:1],
                "workers": workers,
                "main": [service.pid],
                "all": [*workers, service.pid],
            }[victim]

            def kill() -> None:
                time.sleep(moment)
                if victim == "all":
                    # No worker is replaced before all are killed.
                    os.kill(service.pid, signal.SIGSTOP)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            self._send(service, shares)
            killer.join()
            self.model.tally.kills += 1
            if service.pid in pids:
                service.process.wait(DEADLINE_S)
                if victim == "main":
                    # The workers finish their messages and leave, without a trace.
                    service.leaves_nothing()
                service.kill()
                return True
            self._go_on(service, shares)
            return False

    def _send(self, service: Service, shares: Sequence[Sequence[Item]]) -> None:
        self.model.sendings += send_all(
            service.port, (), shares=shares, window=3, called=TITLES
        ).sendings

    def _go_on(self, service: Service, shares: Sequence[Sequence[Item]]) -> None:
        """A worker was killed. The main process lives, and ends in order."""
        service.in_log("ended unexpectedly")
        wait_for(lambda: not service.parts(), "the sweep of a dead worker's parts")
        self._take_up(service, shares)
        service.process.send_signal(signal.SIGTERM)
        # What a killed worker wrote without a flush is suspect: the exit code says so.
        service.ends(int(self._durability != "stable"))

    def _take_up(self, service: Service, shares: Sequence[Sequence[Item]]) -> None:
        """What is there; then everything is sent again, and taken; what is there now."""
        now = time.monotonic_ns()
        for one in self.model.sendings:
            one.ended = now if one.ended is None else one.ended
        self._look("after the kill")
        again = list({item: None for share in shares for item in share})
        sent = send_all(service.port, again, associations=3, called=TITLES)
        assert not sent.broken
        self.model.sendings += sent.sendings
        assert not [one for one in sent.sendings if one.status == FAILED]
        self._look("after everything was sent again")

    def _look(self, when: str) -> None:
        bad = self.model.faults(files_of(self.store), facts_of(self.store))
        assert bad == [], f"round {self._number}, {when}: {bad}"


def campaign(
    tmp_path: Path, library: Path, policy: str, durability: str, *, rounds: int, seed: int = 0
) -> Tally:
    made = Campaign(tmp_path, library, policy, durability, seed)
    for _ in range(rounds):
        made.round()
    assert made.model.tally.kills == rounds
    return made.model.tally


@pytest.mark.parametrize(
    ("policy", "durability"),
    [
        ("version", "buffered"), ("replace", "stable"), ("keep", MIXED), ("refuse", "stable"),
    ],
)  # fmt: skip
def test_killed_under_each_policy(
    tmp_path: Path, library: Path, policy: str, durability: str, figures: Figures
) -> None:
    tally = campaign(tmp_path, library, policy, durability, rounds=2)
    figures.add(f"kills, {durability}", "", tally)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("durability", ["stable", "buffered", MIXED])
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_under_each_policy_many_times(
    tmp_path: Path, library: Path, policy: str, durability: str, figures: Figures
) -> None:
    tally = campaign(tmp_path, library, policy, durability, rounds=20, seed=1)
    figures.add(f"kills, {durability}", "", tally)

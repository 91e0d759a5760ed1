"""What a store may hold, by what its senders were told: a model of the four duplicate policies.

The model knows what was sent, when, and what was answered, and nothing of how the service works. A
sending without an answer may have been stored or not, until it ended: when the process died that it
was sent to. What was answered counts from then on, for ever, except that a later instance takes the
place of an older one under `replace`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastscp_ext import crc32c
from tests.kept.kit_kept import Sending

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["POLICIES", "Model", "Tally", "known_at"]

POLICIES: Final = ("version", "replace", "keep", "refuse")
STORED, KEPT, REFUSED, FAILED = 0, 0xB006, 0xC000, 0xA700


@dataclass
class Tally:
    """How much was tried and looked at, and what was lost.

    checks: instances whose sender was told what became of them, looked for. reads: of a reader.
    """

    cuts: int = 0
    kills: int = 0
    reads: int = 0
    checks: int = 0
    losses: int = 0


@dataclass
class Model:
    """Everything that was sent to one store.

    firm_refusals: a C000 of the policy `refuse` says that the file which is there stays: so it is
    unless a buffered life may end uncleanly, after which a file without a line is nobody's.
    """

    policy: str
    firm_refusals: bool = True
    sendings: list[Sending] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def faults(
        self,
        files: Mapping[str, bytes],
        facts: Iterable[Mapping[str, Any]],
    ) -> list[str]:
        """What is wrong, in words.

        files: every file of the store that anybody sees, its data set by its path. facts: the
        journal's whole lines.
        """
        by_path: dict[str, list[Sending]] = {}
        for one in self.sendings:
            by_path.setdefault(one.item.path, []).append(one)
        there: dict[str, dict[str, bytes]] = {}
        for path, data in files.items():
            there.setdefault(re.sub(r"~[2-9]$", "", path), {})[path] = data
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for fact in facts:
            lines.setdefault(re.sub(r"~[2-9]$", "", fact["path"]), []).append(fact)
        bad = [f"{path}: nobody sent it" for path in there.keys() - by_path.keys()]
        for path, sent in by_path.items():
            history = _History(path, sent)
            self.tally.checks += sum(one.status is not None for one in sent)
            bad += history.faults(
                self.policy, there.get(path, {}), lines.get(path, []), self.firm_refusals
            )
        self.tally.losses += len(bad)
        return bad


def known_at(sendings: Iterable[Sending], moment: int) -> list[Sending]:
    """The sendings as the world knew them at a moment, at which all that was under way ended."""
    return [
        one
        if one.ended is not None and one.ended <= moment
        else Sending(one.item, one.began, ended=moment)
        for one in sendings
        if one.began <= moment
    ]


class _History:
    """The sendings of one path."""

    def __init__(self, path: str, sent: Sequence[Sending]) -> None:
        self._path = path
        self._sent = sent

    def _told(self, status: int) -> list[Sending]:
        return [one for one in self._sent if one.status == status]

    def faults(
        self,
        policy: str,
        there: Mapping[str, bytes],
        lines: Sequence[Mapping[str, Any]],
        firm_refusals: bool,
    ) -> list[str]:
        known = {one.item.data for one in self._sent}
        bad = [f"{path} is not what anybody sent" for path, d in there.items() if d not in known]
        stored = self._told(STORED)
        bad += [
            f"{self._path}: answered 0000 without a journal line"
            for one in stored
            if not any(_tells_of(line, one.item.data) for line in lines)
        ]
        allowed = {STORED, FAILED} | {"keep": {KEPT}, "refuse": {REFUSED}}.get(policy, set())
        bad += [
            f"{self._path}: answered {one.status:04X} under {policy}"
            for one in self._sent
            if one.status is not None and one.status not in allowed
        ]
        if policy == "version":
            return bad + self._versions(there, stored)
        if beside := there.keys() - {self._path}:
            bad.append(f"{sorted(beside)}: a version under {policy}")
        data = there.get(self._path)
        if policy == "replace":
            return bad + self._replaced(data, stored)
        others = self._told(KEPT if policy == "keep" else REFUSED)
        return bad + self._first(data, stored, others, firm_refusals or policy == "keep")

    def _versions(self, there: Mapping[str, bytes], stored: Sequence[Sending]) -> list[str]:
        """Everything acknowledged is there, once, under names without a gap."""
        here = list(there.values())
        bad = [
            f"{self._path}: answered 0000 and in no version"
            for one in stored
            if one.item.data not in here
        ]
        if len(set(here)) != len(here):
            bad.append(f"{self._path}: the same bytes in two versions")
        names = [self._path, *(f"{self._path}~{n}" for n in range(2, 10))]
        if set(there) != set(names[: len(there)]):
            bad.append(f"{sorted(there)}: a gap between the versions")
        return bad

    def _replaced(self, data: bytes | None, stored: Sequence[Sending]) -> list[str]:
        """One of the last: none that was acknowledged came wholly after it."""
        if data is None:
            return [f"{self._path}: answered 0000 and gone"] if stored else []
        latest = max((one.began for one in stored), default=-1)
        ends = [
            latest if one.ended is None else one.ended
            for one in self._sent
            if one.item.data == data and one.status in (STORED, None)
        ]
        if not ends or max(ends) < latest:
            return [f"{self._path}: holds what a later instance replaced"]
        return []

    def _first(
        self,
        data: bytes | None,
        stored: Sequence[Sending],
        others: Sequence[Sending],
        firm: bool,
    ) -> list[str]:
        """The first one stays; whoever was told of another one was told the truth."""
        bad = []
        winners = {one.item.data for one in stored}
        if len(winners) > 1:
            bad.append(f"{self._path}: two different instances answered 0000")
        if winners and data not in winners:
            bad.append(f"{self._path}: answered 0000 and gone")
        if others and data is None:
            bad.append(f"{self._path}: answered {others[0].status:04X} and nothing is there")
        if firm and data is not None and any(one.item.data == data for one in others):
            bad.append(f"{self._path}: kept although its sender was told that another one is")
        return bad


def _tells_of(line: Mapping[str, Any], data: bytes) -> bool:
    return bool(
        line.get("duplicate") != "kept"
        and line["bytes"] == len(data)
        and line["digest"] == f"crc32c:{crc32c(data):08x}"
    )

"""The JSON document: cells, ratios between cells, and where they come from. See README.md."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, figure, ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT = 1


class ResultsError(ValueError):
    """The file is no document of this format; says why."""


@dataclass(slots=True)
class Cell:
    """One receiver at one point of one scenario.

    table: which of the scenario's tables it is in. point: the coordinates there. note: what a
    reader has to know, shown behind the receiver. error: why there are no figures, or not of all
    rounds.
    """

    scenario: str
    table: str
    receiver: str
    point: dict[str, Any]
    rounds: list[dict[str, float]] = field(default_factory=list)
    note: str = ""
    error: str = ""

    @property
    def figures(self) -> dict[str, Figure]:
        """Median and spread of every figure that all rounds have."""
        names = set.intersection(*map(set, self.rounds)) if self.rounds else set()
        kept = [name for name in self.rounds[0] if name in names] if self.rounds else []
        return {name: figure([one[name] for one in self.rounds]) for name in kept}

    def as_json(self) -> dict[str, Any]:
        made = dataclasses.asdict(self)
        del made["rounds"]
        return {**made, "figures": self.figures}


@dataclass(slots=True)
class Results:
    """A document that grows; `save` after every cell, so that what was measured is kept."""

    path: Path
    about: Mapping[str, Any]
    cells: list[Cell] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)

    def cell(
        self, scenario: str, table: str, receiver: str, point: Mapping[str, Any], note: str = ""
    ) -> Cell:
        """A new, empty cell."""
        made = Cell(scenario, table, receiver, dict(point), note=note)
        self.cells.append(made)
        return made

    def ratio(
        self, what: str, name: str, of: Cell | Sequence[Cell], to: Cell | Sequence[Cell]
    ) -> dict[str, Any] | None:
        """One cell's figure through another's, round by round; nothing if either is incomplete.

        Of several cells it is their mean. Gives what it put into the document, to add to it.
        """
        try:
            made = figure(ratios(_means(name, of), _means(name, to)))
        except (KeyError, ValueError, ZeroDivisionError):
            return None
        first = of if isinstance(of, Cell) else of[0]
        self.ratios.append({"scenario": first.scenario, "what": what, "figure": name, **made})
        return self.ratios[-1]

    def save(self) -> None:
        document = {
            "format": FORMAT,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.about,
            "cells": [cell.as_json() for cell in self.cells],
            "ratios": self.ratios,
        }
        partial = self.path.with_name(self.path.name + ".part")
        partial.write_text(json.dumps(document, indent=1) + "\n")
        partial.replace(self.path)


def _means(name: str, cells: Cell | Sequence[Cell]) -> list[float]:
    """The mean of the cells' figure, round by round. Raises ValueError: they have not as many."""
    among = [cells] if isinstance(cells, Cell) else cells
    rounds = zip(*([one[name] for one in cell.rounds] for cell in among), strict=True)
    return [statistics.fmean(values) for values in rounds]


def read(path: Path) -> dict[str, Any]:
    """A document. Raises ResultsError, also for one of another format."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ResultsError(f"{path}: not results of format {FORMAT}")
    return document

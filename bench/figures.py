"""What the rounds come to: medians, spreads, ratios within a round."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence


class Figure(TypedDict):
    """One figure of one cell, as the JSON has it; least and most are its spread."""

    median: float
    least: float
    most: float
    rounds: list[float]


def figure(rounds: Sequence[float]) -> Figure:
    """Median and spread over the rounds. Raises ValueError if there are none."""
    if not rounds:
        raise ValueError("no rounds")
    return {
        "median": statistics.median(rounds),
        "least": min(rounds),
        "most": max(rounds),
        "rounds": list(rounds),
    }


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """One number through the other, round by round.

    A machine that is busy with something else for a while is so for both; a ratio of medians would
    compare different moments. Raises ValueError if there are more rounds of one than of the other.
    """
    return [one / other for one, other in zip(of, to, strict=True)]

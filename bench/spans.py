"""Two ways of working, in turns: in what order, and what the pairs of spans come to.

Two spans beside each other had nearly the same machine. What a pair says is the ratio of the two;
what all pairs say is the median of their ratios, in an interval that holds for whatever is between
the machine's moods, with no shape of their distribution taken for granted.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


def turns(pairs: int, seed: int) -> list[bool]:
    """The second way or the first, for 2 * pairs spans; each pair of neighbours has one of each.

    Which is first in its pair is random, but as often the one as the other (with an odd number
    once more): a machine that becomes slower and slower favours neither, nor does anything that
    comes back every so many seconds.
    """
    first = [number % 2 == 1 for number in range(pairs)]
    random.Random(seed).shuffle(first)
    return [one for early in first for one in (early, not early)]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the median is that these are a sample of, with CONFIDENCE at least.

    By order statistics: each value is above the median as a coin falls, so the binomial
    distribution says how many of the least and of the greatest may be left out. None: there are
    too few of them (below 6) for any such interval. They have to be independent of each other.
    """
    # In whole numbers, divided at the end: of 1,024 values on 2**n is more than any float.
    n, tail, ways = len(values), 0, 1
    left_out = 0
    for k in range(n // 2):
        tail += ways
        if tail / 2**n > (1 - CONFIDENCE) / 2:
            break
        left_out = k + 1
        ways = ways * (n - k) // (k + 1)
    if not left_out:
        return None
    ordered = sorted(values)
    return ordered[left_out - 1], ordered[n - left_out]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the ratio is at most `bound`. low, high: its interval, if there is one."""

    pairs: int
    median: float
    low: float | None
    high: float | None
    bound: float
    verdict: str

    @property
    def held(self) -> str:
        """The median and where it is: `1.012, 95 % interval 0.987..1.021 of 90 pairs`."""
        if self.low is None or self.high is None:
            return f"{self.median:.3f} of {self.pairs} pairs"
        interval = f"{CONFIDENCE:.0%}".replace("%", " %")
        return (
            f"{self.median:.3f}, {interval} interval {self.low:.3f}..{self.high:.3f}"
            f" of {self.pairs} pairs"
        )

    @property
    def words(self) -> str:
        """The verdict with what was asked: `at most 5 % more: shown`."""
        return f"at most {(self.bound - 1) * 100:g} % more: {self.verdict}"


def judged(ratios: Sequence[float], bound: float, responses: float, least: int) -> Judgement:
    """What the ratios of the pairs say.

    shown: the whole interval is at or below `bound`; refuted: it is above as a whole; not shown:
    `bound` is inside, so the noise was too large, or the pairs too few, for either. responses: how
    many the poorest span had; with fewer than `least` none of its figures is judged.
    Raises ValueError without any ratio.
    """
    if not ratios:
        raise ValueError("no pairs")
    median, found = statistics.median(ratios), interval(ratios)
    low, high = found or (None, None)
    if responses < least:
        verdict = f"not shown (a span had {responses:,.0f} responses, a p99 takes {least:,})"
    elif low is None or high is None:
        verdict = f"not shown ({len(ratios)} pairs are too few)"
    elif high <= bound:
        verdict = "shown"
    elif low > bound:
        verdict = "refuted"
    else:
        verdict = "not shown"
    return Judgement(len(ratios), median, low, high, bound, verdict)


def slope(times_s: Sequence[float], values: Sequence[float]) -> float:
    """What the values grow by in an hour, by least squares; 0 for fewer than two."""
    if len(times_s) < 2:
        return 0.0
    return statistics.linear_regression(times_s, values).slope * 3600

"""What main reads of the rows, in numbers that only grow."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Counts", "Times"]


class Counts(NamedTuple):
    """What was counted in one row.

    instances: stored, or there already. bytes: of their data sets. unfinished: the association
    ended before the data set did.
    """

    instances: int
    bytes: int
    refused: int
    unfinished: int


class Times(NamedTuple):
    """How long something took, how often.

    buckets: the first counts times below 1 us, the next those below 2 us, 4 us and so on; the
    last one all that took longer. total_us: the sum of all times, microseconds.
    """

    buckets: tuple[int, ...]
    total_us: int

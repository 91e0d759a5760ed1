"""What is made of two looks at the service: rates and percentiles, each in one place.

`fastscp top`, `fastscp associations` and the page show these.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastscp.messages.control import AssociationStatus

__all__ = ["a_second", "busiest", "each_a_second", "percentile"]


def a_second(now: float, before: float, seconds: float) -> float | None:
    """How much a counter grew in a second; None where no time passed between the looks."""
    return (now - before) / seconds if seconds > 0 else None


def each_a_second(
    found: Iterable[AssociationStatus], before: Mapping[str, int], seconds: float
) -> dict[str, int]:
    """Bytes a second of those that were there at both looks. before: bytes received, by id."""
    rates = {
        one.id: a_second(one.received_bytes, before[one.id], seconds)
        for one in found
        if one.id in before
    }
    return {id_: round(rate) for id_, rate in rates.items() if rate is not None}


def busiest(
    found: Iterable[AssociationStatus], each: Mapping[str, int], most: int
) -> list[AssociationStatus]:
    """Those that send the most, and of those alike the oldest. each: as `each_a_second`."""
    return heapq.nlargest(most, found, key=lambda one: each.get(one.id, -1))


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The number below which this share of all numbers is; None: there are none.

    buckets: as those of `Distribution`. Between the bounds of a bucket the numbers count as evenly
    spread, so what is returned is right to a factor of two.
    """
    wanted = share * sum(buckets)
    if not wanted:
        return None
    below = 0
    for k, count in enumerate(buckets):
        if count and below + count >= wanted:
            low, high = (0.0 if k == 0 else float(1 << (k - 1))), float(1 << k)
            return low + (high - low) * (wanted - below) / count
        below += count
    return None

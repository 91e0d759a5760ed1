"""What the service did of late, in memory: some minutes closely, and an hour. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.messages.page import Point
from fastscp.messages.rates import a_second, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastscp.main.summary import Seen

__all__ = ["LOOK_EVERY_S", "History"]

LOOK_EVERY_S: Final = 2.0
# Points of the last minutes, one a look: five minutes.
LATEST_MOST: Final = 150
# And of the last hour, one in so many looks: ten seconds each.
_LOOKS: Final = 5
HOUR_MOST: Final = 360
_MS: Final = 1000.0


class _Reading(NamedTuple):
    """Counters at one moment. at: seconds of the epoch. buckets: of response times, in all."""

    at: float
    seen: Seen
    buckets: Sequence[int]


class History:
    """Points of the last minutes, and of the last hour; the oldest go first."""

    def __init__(self) -> None:
        self.latest: deque[Point] = deque(maxlen=LATEST_MOST)
        self.hour: deque[Point] = deque(maxlen=HOUR_MOST)
        self._before: _Reading | None = None
        self._hour_before: _Reading | None = None
        self._looks = 0

    def look(self, at: float, seen: Seen, buckets: Sequence[int]) -> None:
        """Take in what is counted by now. at: seconds of the epoch."""
        now = _Reading(at, seen, tuple(buckets))
        if self._before is None or self._hour_before is None:
            self._before = self._hour_before = now
            return
        self._looks += 1
        self.latest.append(_point(self._looks, self._before, now))
        self._before = now
        if self._looks % _LOOKS == 0:
            self.hour.append(_point(self._looks, self._hour_before, now))
            self._hour_before = now


def _point(number: int, before: _Reading, now: _Reading) -> Point:
    then, seen = before.seen, now.seen
    seconds = seen.at - then.at
    # A worker may count in the moment in which its counters are read, one after the other.
    taken = [max(0, count - was) for count, was in zip(now.buckets, before.buckets, strict=True)]
    return Point(
        n=number, at=round(now.at, 3),
        instances=_rate(seen.stored, then.stored, seconds),
        bytes=_rate(seen.bytes, then.bytes, seconds),
        received=_rate(seen.received, then.received, seconds),
        refused=seen.refused - then.refused,
        rejected=seen.rejected - then.rejected,
        p50=_ms(taken, 0.5), p90=_ms(taken, 0.9), p99=_ms(taken, 0.99),
    )  # fmt: skip


def _rate(now: float, before: float, seconds: float) -> float:
    return round(a_second(now, before, seconds) or 0.0, 2)


def _ms(buckets: Sequence[int], share: float) -> float | None:
    found = percentile(buckets, share)
    return None if found is None else round(found / _MS, 3)

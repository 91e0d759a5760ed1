"""How many new associations an address may have in a second. No I/O."""

from __future__ import annotations

from typing import Final

from fastscp.rules.networks import counted_host

__all__ = ["KEPT_MOST", "Rates"]

# Buckets that are kept at a time: addresses are the peers' to invent.
KEPT_MOST: Final = 16_384
# A second, and a token, in the unit that both are counted in: whole numbers keep it exact.
_ONE: Final = 1_000_000_000


class Rates:
    """A token bucket for each key: so many tokens at most, and so many more in each second.

    A key is the table whose limit decides, and an address. A bucket begins full. One from which
    nobody took for a second is full again, and is forgotten.

    Memory: `kept_most` buckets. Beyond that the one that was longest not taken from is forgotten,
    and is full if its address comes back: whoever has more than so many addresses in one second
    gets past this limit, and meets the others. Nobody else is held up by it.
    """

    def __init__(self, kept_most: int = KEPT_MOST) -> None:
        self._kept_most = kept_most
        # The level of each bucket in billionths of a token, and when it was so, ns. The one that
        # was longest not taken from is the first.
        self._buckets: dict[tuple[str, str], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def would_allow(self, key: tuple[str, str], per_second: int, now: float) -> bool:
        """Whether there is a token, as `allows` says it; none is taken."""
        if per_second <= 0:
            return True
        table, host = key
        return self._level((table, counted_host(host)), per_second, round(now * _ONE)) >= _ONE

    def allows(self, key: tuple[str, str], per_second: int, now: float) -> bool:
        """Take a token; whether there was one. Where there was none, nothing is taken.

        key: a table's key, an address. per_second: what a second brings, and the most there can be;
        0: any number, nothing is counted. It may differ from call to call; time that has passed
        counts at the new one. now: seconds of a clock that does not go back.
        """
        if per_second <= 0:
            return True
        now_ns = round(now * _ONE)
        self._forget_full(now_ns)
        table, host = key
        place = (table, counted_host(host))
        level = self._level(place, per_second, now_ns)
        if level < _ONE:
            return False
        # Behind all others: it is the one that was taken from last.
        self._buckets.pop(place, None)
        self._buckets[place] = (level - _ONE, now_ns)
        if len(self._buckets) > self._kept_most:
            del self._buckets[next(iter(self._buckets))]
        return True

    def _level(self, place: tuple[str, str], per_second: int, now_ns: int) -> int:
        """How full a bucket is now, in billionths of a token."""
        most = per_second * _ONE
        bucket = self._buckets.get(place)
        if bucket is None:
            return most
        before, since_ns = bucket
        return min(most, before + max(0, now_ns - since_ns) * per_second)

    def _forget_full(self, now_ns: int) -> None:
        """Forget the buckets that were not taken from for a second: they are full."""
        while self._buckets:
            place, (_level, since_ns) = next(iter(self._buckets.items()))
            if now_ns - since_ns < _ONE:
                return
            del self._buckets[place]

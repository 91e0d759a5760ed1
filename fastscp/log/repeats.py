"""Lines that a peer can cause again and again: a few are shown, the others are counted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fastscp.log.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Caused", "Repeats", "Summary", "caused", "concluding"]

# Lines of one kind from one address that an interval shows.
_SHOWN: Final = 5
_INTERVAL_S: Final = 10.0
# Pairs of kind and address under watch; those beyond share a count per kind.
_PAIRS: Final = 256


class Caused(NamedTuple):
    """Why a line is there.

    kind: one of a few words of ours. shown: how many an interval shows. tally: the instances stored
    and refused that the line tells of; None: it tells of none.
    """

    kind: str
    host: str
    shown: int
    tally: tuple[int, int] | None = None


def caused(
    kind: str, host: str = "", shown: int = _SHOWN, tally: tuple[int, int] | None = None
) -> Mapping[str, object]:
    """`extra` for a line that a peer can cause.

    kind: what happened, one of a few constant words: a peer must not be able to invent kinds.
    host: the peer's address, "" where none is known. tally: instances stored and refused, which the
    line that counts those not shown adds up.
    """
    return {"caused": Caused(kind, host, shown, tally)}


def concluding() -> Mapping[str, object]:
    """`extra` for a line that says that something is over.

    What is counted of lines that no address caused is told before it: it belongs to what is over.
    """
    return {"concludes": True}


class Summary(NamedTuple):
    """What an interval did not show: how many lines, and the highest level among them.

    extra: of the line that tells it.
    """

    level: int
    text: str
    extra: Mapping[str, object]


@dataclass(slots=True)
class _Interval:
    """One interval of one kind and address."""

    began: float
    lines: int = 0
    hidden: int = 0
    level: int = 0
    tally: tuple[int, int] | None = None


class Repeats:
    """Which lines are shown, and what is to be said of the others.

    Memory: a fixed number of pairs, whoever sends. Not for several threads at once.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        interval_s: float = _INTERVAL_S,
        pairs: int = _PAIRS,
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._pairs = pairs
        # In the order in which they began: one whose interval is over is taken out.
        self._intervals: dict[tuple[str, str], _Interval] = {}

    def shows(self, why: Caused, level: int) -> bool:
        """Whether the line is shown; it is counted otherwise. Take `over` first."""
        pair = (why.kind, why.host)
        interval = self._intervals.get(pair)
        if interval is None:
            if len(self._intervals) >= self._pairs:
                pair = (why.kind, "other addresses")
            interval = self._intervals.setdefault(pair, _Interval(self._clock()))
        interval.lines += 1
        if interval.lines <= why.shown:
            return True
        interval.hidden += 1
        interval.level = max(interval.level, level)
        if why.tally is not None:
            stored, refused = interval.tally or (0, 0)
            interval.tally = (stored + why.tally[0], refused + why.tally[1])
        return False

    def over(self, *, all_of_them: bool = False) -> list[Summary]:
        """What intervals that are over have not shown; these are forgotten."""
        now = self._clock()
        due: list[tuple[str, str]] = []
        for pair, interval in self._intervals.items():
            if now - interval.began < self._interval_s and not all_of_them:
                break
            due.append(pair)
        return self._forget(due, now)

    def over_of_ours(self) -> list[Summary]:
        """What has not been shown of lines that no address caused; these are forgotten."""
        ours = [pair for pair in self._intervals if not pair[1]]
        return self._forget(ours, self._clock())

    def _forget(self, pairs: list[tuple[str, str]], now: float) -> list[Summary]:
        said: list[Summary] = []
        for pair in pairs:
            interval = self._intervals.pop(pair)
            if interval.hidden:
                extra = {"fields": _fields_of(pair[1], interval)}
                said.append(Summary(interval.level, self._text(*pair, interval, now), extra))
        return said

    def _text(self, kind: str, host: str, interval: _Interval, now: float) -> str:
        source = f" from {host}" if host else ""
        seconds = max(1, round(now - interval.began))
        text = f"{kind}: and {interval.hidden:,} more{source} within {seconds} s"
        if interval.tally is not None:
            stored, refused = interval.tally
            text += f" (stored {stored:,}, refused {refused:,})"
        return text

    @property
    def next_s(self) -> float | None:
        """Seconds until an interval is over; None: there is none."""
        first = next(iter(self._intervals.values()), None)
        return None if first is None else first.began + self._interval_s - self._clock()


def _fields_of(host: str, interval: _Interval) -> Fields:
    told = Fields(lines_hidden=interval.hidden)
    if host:
        told["peer"] = host
    if interval.tally is not None:
        told["stored"], told["refused"] = interval.tally
    return told

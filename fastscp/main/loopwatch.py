"""Which worker's loop stands still, and for how long: told apart from a blocked disk.

Pure: main hands in what it sees, once a second, with its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["LOOK_S", "LoopWatch", "Pulse", "Still"]

# Between two looks.
LOOK_S: Final = 1.0


class Pulse(NamedTuple):
    """What main sees of a worker.

    life: tells it from the one before it. beat: anything that changes while its loop turns.
    up: it is ready; before that it imports and makes its folder, on whatever disk there is.
    on_disk: its loop is inside a file call.
    """

    number: int
    life: Hashable
    beat: Hashable
    up: bool
    on_disk: bool


class Still(NamedTuple):
    """A change worth telling: a loop stands still, goes on, or has to be ended.

    for_s: how long it stood still. what: "named", "goes on", "hangs".
    """

    number: int
    what: str
    for_s: float


@dataclass(eq=False)
class _Seen:
    life: Hashable
    beat: Hashable
    up: bool
    still_s: float = 0.0
    is_named: bool = False


class LoopWatch:
    """Counts the seconds in which main itself was awake and a loop did not turn.

    named_s, hangs_s: when a loop that stands still is named, and given up. start_factor: a worker
    that is not up yet has so many times as long; many of them share few processors. Time that main
    slept, was stopped or was late is not held against anybody: a look adds two looks' time at most.
    Nor is time inside a file call: a disk that blocks is no reason to kill.
    """

    def __init__(
        self, named_s: float = 10.0, hangs_s: float = 60.0, start_factor: float = 3.0
    ) -> None:
        self._named_s = named_s
        self._hangs_s = hangs_s
        self._start_factor = start_factor
        self._seen: dict[int, _Seen] = {}
        self._last = 0.0

    def patience_s(self, up: bool) -> float:
        """How long a loop may stand still, by whether its worker is up."""
        return self._hangs_s if up else self._hangs_s * self._start_factor

    def look(self, now: float, pulses: Iterable[Pulse]) -> list[Still]:
        """What changed since the look before; `hangs` is told again with every look."""
        passed = max(0.0, min(now - self._last, 2 * LOOK_S))
        self._last = now
        seen, self._seen = self._seen, {}
        told = []
        for pulse in pulses:
            before = seen.get(pulse.number)
            if before is None or before.life != pulse.life:
                # A look at a life is the first moment from which it can be judged.
                before = _Seen(pulse.life, pulse.beat, pulse.up)
                self._seen[pulse.number] = before
                continue
            self._seen[pulse.number] = before
            told += self._judge(before, pulse, passed)
        return told

    def _judge(self, seen: _Seen, pulse: Pulse, passed: float) -> list[Still]:
        if (seen.beat, seen.up) != (pulse.beat, pulse.up):
            said = [Still(pulse.number, "goes on", seen.still_s)] if seen.is_named else []
            seen.beat, seen.up, seen.still_s, seen.is_named = pulse.beat, pulse.up, 0.0, False
            return said
        if pulse.on_disk:
            return []
        seen.still_s += passed
        if seen.still_s >= self.patience_s(seen.up):
            return [Still(pulse.number, "hangs", seen.still_s)]
        named_s = self._named_s if seen.up else self._named_s * self._start_factor
        if seen.still_s >= named_s and not seen.is_named:
            seen.is_named = True
            return [Still(pulse.number, "named", seen.still_s)]
        return []

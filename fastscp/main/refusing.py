"""Whether every instance is refused at the moment, for a reason that lies here. No I/O, no clock.

Peers are let in then, and their instances answered A700: a balancer has to hear of it. One that
takes its senders away takes away what would show that it is over, too. So it is believed to be
over after a while without an instance, and the next one that is refused says that it is not.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from fastscp_ext import status as codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastscp_ext import Counts, Doubts

__all__ = ["OF_ONE", "Refusing"]

# Reasons of an A700 that say nothing of the next instance: of its size, of its path, of its folder;
# and what an operator asked for to test a sender.
OF_ONE: Final = frozenset({
    "data set above the size limit", "symbolic link in the way", "no regular file in the way",
    "directory in the way", "file in the way of a folder", "folder could not be flushed",
    "existing instance may not be on the disk", "refused on purpose",
})  # fmt: skip
# So many after one another, with none stored between.
_MOST: Final = 3
# Without any refused; then the next one counts for the others.
_OVER_S: Final = 60.0
# No folder has this name: it is refused where all are.
_ANY: Final = "/"


class Refusing:
    """Told once a second what was counted. why: empty, unless all is refused; since: when it began,
    by the clock of `see`.
    """

    def __init__(self) -> None:
        self.why = ""
        self.since = 0.0
        self._stored = 0
        self._refused: Counter[str] = Counter()
        # Since the last one that was stored, by reason; the last of them.
        self._in_a_row: Counter[str] = Counter()
        self._last = 0.0

    def see(
        self,
        by_status: Mapping[tuple[int | None, str | None], Counts],
        doubts: Doubts,
        now: float,
    ) -> str:
        """Judge what the rows have counted; returns a line for the log where that has changed."""
        stored, refused = 0, Counter[str]()
        for (status, reason), counts in by_status.items():
            stored += counts.instances
            if status == codes.OUT_OF_RESOURCES and reason not in OF_ONE:
                refused[reason or "the log says why"] += counts.refused
        more = refused - self._refused
        if stored > self._stored:
            # Of those refused in the same second nobody knows whether they came later.
            self._in_a_row.clear()
        elif more:
            self._in_a_row += more
            self._last = now
        elif now - self._last > _OVER_S and self._in_a_row.total() >= _MOST:
            (reason, _count), *_others = self._in_a_row.most_common()
            self._in_a_row = Counter({reason: _MOST - 1})
        self._stored, self._refused = stored, refused
        return self._told(self._judged(doubts), now)

    def _judged(self, doubts: Doubts) -> str:
        if doubts.refuses(_ANY):
            return (
                "every instance is refused (A700): more folders could not be flushed than are "
                "remembered one by one: check the disk; the log says what to do then"
            )
        if self._in_a_row.total() < _MOST:
            return ""
        (reason, _count), *_others = self._in_a_row.most_common()
        return f"every instance is refused (A700, {reason}): the log says why, and what to do"

    def _told(self, why: str, now: float) -> str:
        before, self.why = self.why, why
        if bool(before) == bool(why):
            return ""
        self.since = now
        return why or "no instance is refused for that any more, or none came for a minute"

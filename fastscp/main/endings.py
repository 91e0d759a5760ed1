"""How associations begin and end, counted: what main hears of all of them. No I/O.

A worker tells of a rejection as it sends it, and of an end once the connection is over; main counts
each then. What a worker that died had no time to tell of is counted when main finds it dead.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from fastscp.association.account import KINDS, Ending
from fastscp.messages.totals import OTHER, Aborted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LOST", "Endings"]

# What an association comes to whose worker dies.
LOST: Final = "lost with its worker"
# What the service rejects with. Source: PS3.8 Table 9-21.
_REJECTIONS: Final = (
    "1,1,1", "1,1,2", "1,1,3", "1,1,7", "1,2,1", "1,2,2", "2,3,1", "2,3,2",
)  # fmt: skip
_SIDES: Final = {"aborted": "fastscp", "aborted by the peer": "peer"}
# Of an A-ABORT; a peer may send any other. Source: PS3.8 Table 9-26.
_SOURCES: Final = ("0", "2")
_REASONS: Final = ("0", "1", "2", "4", "5", "6")
# Abstract syntaxes that are counted by themselves.
_CONTEXTS_MOST: Final = 100


class Endings:
    """Counts of rejections, of ends, and of presentation contexts that were refused.

    Each has as many keys as there are words and numbers in the standard and here, whatever peers
    send. known: the UIDs that may have a count of their own, with their names.
    """

    def __init__(self) -> None:
        # Whoever watches a counter grow has to see it before it does.
        self.rejected: Counter[str] = Counter(dict.fromkeys(_REJECTIONS, 0))
        self.ended: Counter[str] = Counter(dict.fromkeys((*KINDS, LOST), 0))
        self.aborted: Counter[Aborted] = Counter()
        self.contexts_refused: Counter[str] = Counter()
        self.known: Mapping[str, str] = {}

    def adopt(self, abstract_syntaxes: Iterable[str]) -> None:
        """Give these, which were counted before, a count of their own; as many as there may be."""
        for uid in abstract_syntaxes:
            if uid != OTHER and len(self.contexts_refused) < _CONTEXTS_MOST:
                self.contexts_refused.setdefault(uid, 0)

    def end(self, number: int) -> None:
        """An association has ended; number: as `Ending` numbers it, 0: its worker died first."""
        if number == 0:
            self.ended[LOST] += 1
            return
        ending = Ending.numbered(number)
        self.ended[ending.kind] += 1
        if ending.kind in _SIDES:
            source, _comma, reason = ending.code.partition(",")
            one = Aborted(
                _SIDES[ending.kind],
                source if source in _SOURCES else "other",
                reason if reason in _REASONS else "other",
            )
            self.aborted[one] += 1

    def refuse_contexts(self, refused: Mapping[str, int]) -> None:
        """Presentation contexts of an association were refused, so many of each abstract syntax."""
        counts = self.contexts_refused
        for uid, number in refused.items():
            has_own = uid in counts or (uid in self.known and len(counts) < _CONTEXTS_MOST)
            counts[uid if has_own else OTHER] += number

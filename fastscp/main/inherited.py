"""What was counted before this process took over from another one. No I/O.

Whoever took places in tables that are bounded keeps them: a service that is upgraded again and
again has no more AE titles than one that is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.messages.totals import Counted, Totals, among
from fastscp.titles import title_bytes
from fastscp_ext import status as codes

if TYPE_CHECKING:
    from fastscp.main.endings import Endings
    from fastscp.main.summary import Seen
    from fastscp_ext import Rows

__all__ = ["KEPT", "Inherited"]

# Under which status and reason the rows have instances for which another one stays.
KEPT: Final = (codes.ELEMENTS_DISCARDED, "existing instance kept")
_KEPT_KEY: Final = (f"{KEPT[0]:04X}", KEPT[1])
_NONE: Final = Counted(0, 0, 0, 0)


class Inherited:
    """`totals`: all that the predecessor has counted, and those before it; nothing at first."""

    def __init__(self, rows: Rows, endings: Endings) -> None:
        self._rows = rows
        self._endings = endings
        self.totals = Totals()

    def take(self, totals: Totals) -> None:
        """What the predecessor has counted until now; once the own configuration is known.

        Titles that the configuration names have taken their rows by then.
        """
        titles = [one for one in totals.by_ae if self._rows.ae_row(title_bytes(one))]
        self._endings.adopt(totals.contexts_refused)
        self.totals = msgspec.structs.replace(
            totals,
            by_ae=among(totals.by_ae, titles, Counted.plus),
            contexts_refused=among(
                totals.contexts_refused, self._endings.contexts_refused, int.__add__
            ),
        )

    def added_to(self, seen: Seen) -> Seen:
        """What was counted here, with what was before."""
        totals, by_status = self.totals, self.totals.by_status
        kept = by_status.get(_KEPT_KEY, _NONE)
        counts = _NONE
        for one in by_status.values():
            counts = counts.plus(one)
        return replace(
            seen,
            stored=seen.stored + counts.stored - kept.stored,
            bytes=seen.bytes + counts.bytes - kept.bytes,
            refused=seen.refused + counts.refused,
            unfinished=seen.unfinished + counts.unfinished,
            received=seen.received + totals.received_bytes,
            begun=seen.begun + totals.accepted,
            rejected=seen.rejected + sum(totals.rejected.values()),
            kept=seen.kept + kept.stored,
            handshakes_failed=seen.handshakes_failed + sum(totals.handshakes_failed.values()),
        )

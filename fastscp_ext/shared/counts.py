"""What main reads of the rows, in numbers that only grow."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Counts", "Tally", "Times"]


class Counts(NamedTuple):
    """What was counted in one row.

    instances: stored, or there already. bytes: of their data sets. unfinished: the association
    ended before the data set did.
    """

    instances: int
    bytes: int
    refused: int
    unfinished: int


class Tally(NamedTuple):
    """What one association has done.

    begun: C-STORE-RQs. stored, refused: those answered so, or that would have been. unfinished:
    those broken off before their last byte. bytes: of the data sets stored. received: bytes read
    from the connection. The next ones are how many of those stored were truncated, in another
    transfer syntax than negotiated, with a Part 10 header inside, with a UID not made of digits and
    dots, there already, kept beside another one, in the place of another one; kept: not stored, for
    the other one stays, and in none of the others. told: the end of the association is in the log:
    1 in a line of its own, 2 among those that a line counts. ended: how it ended, as a number of
    `Ending`'s; 0: it goes on.
    """

    begun: int = 0
    stored: int = 0
    refused: int = 0
    unfinished: int = 0
    bytes: int = 0
    received: int = 0
    truncated: int = 0
    mislabelled: int = 0
    headers: int = 0
    odd_uids: int = 0
    identical: int = 0
    versions: int = 0
    replaced: int = 0
    kept: int = 0
    told: int = 0
    ended: int = 0

    @property
    def is_told(self) -> bool:
        """Whether a line of its own tells of its end."""
        return self.told == 1

    @property
    def is_untold(self) -> bool:
        """Whether its end is on its way into the log."""
        return bool(self.ended) and not self.told

    @property
    def unanswered(self) -> int:
        """Those that are complete and have no answer, or whose data set is still to come."""
        return max(0, self.begun - self.stored - self.refused - self.unfinished - self.kept)


class Times(NamedTuple):
    """How long something took, how often.

    buckets: the first counts times below 1 us, the next those below 2 us, 4 us and so on; the
    last one all that took longer. total_us: the sum of all times, microseconds.
    """

    buckets: tuple[int, ...]
    total_us: int

"""What is counted, by calling AE title, by transfer syntax, by status and reason.

Numbers only grow, and outlive the workers that counted. Each instance that ended is in one row of
each family, in one of its three counts; the families are never multiplied, and none of them grows.
"""

from typing import Self, final

from fastscp_ext.shared.block import Block
from fastscp_ext.shared.counts import Counts, Times

__all__ = ["Rows"]

@final
class Rows:
    """The counters of all workers. What it returns is summed over those that were and are."""

    def __new__(cls, block: Block) -> Self: ...
    def ae_row(self, title: bytes, named: bool = False) -> int:
        """The row of a calling AE title; 0, that of all others, once there is no place for it.

        named: the configuration names it. Of those it does not name the first 100 get rows. For
        main alone, the one writer of titles.
        """

    def received(self, worker: int | None = None) -> int:
        """Bytes read from connections, by one worker or by all. Raises IndexError."""

    def totals(self, worker: int | None = None) -> Counts:
        """What was counted in all, of one worker or of all. Raises IndexError."""

    def by_ae(self) -> dict[str | None, Counts]:
        """What was counted by calling AE title; None: all those without a row."""

    def by_transfer_syntax(self) -> dict[str | None, Counts]:
        """What was counted by transfer syntax; None: all those without a row."""

    def by_status(self) -> dict[tuple[int | None, str | None], Counts]:
        """What was counted by status and the reason for it; see `status_name`."""

    def known_statuses(self) -> list[tuple[int | None, str | None]]:
        """The keys that `by_status` can have, except that of all others."""

    def times(self) -> dict[str, Times]:
        """How long instances took.

        receive: from the command to the last byte. commit: from there until durable. answer: from
        there until the response was handed to the socket. whole: from the command until that.
        response: from the last byte until that.
        """

    def flushes(self) -> dict[str, Times]:
        """How long flushes took, with stable durability.

        data: of the file of one instance. batch: of the folders of a batch, and of the journal.
        log: of a batch in the redo log. checkpoint: of all that a file of that log vouches for.
        """

    def batches(self) -> dict[str, Times]:
        """How many instances the batches of each durability had, in the place of times."""

    def commit_steps(self, worker: int) -> int:
        """How many flushes and batches a worker's commits are through with. Raises IndexError."""

    def redo_ways(self) -> dict[str, int]:
        """Instances of stable durability of workers that have a redo log, by how they were kept.

        log: by that. The others without it: larger, for the size of their file. full: no log file
        had room, or was made yet. taken: for what is at the path, or is about to be. other: the
        log failed, or the folder, or something was lacking.
        """

    def throttled_us(self) -> dict[str, int]:
        """How long associations were not read from, all together, in microseconds.

        space: for want of space. commit: for much was owed to them, or uncommitted.
        """

    def lose_lines(self, worker: int, lines: int) -> None:
        """Count lines of a worker's log that were lost; for that worker. Raises IndexError."""

    def lines_lost(self) -> int:
        """Lines that were lost of the logs of all workers."""

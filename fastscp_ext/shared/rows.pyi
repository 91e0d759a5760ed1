"""Counters that main and its workers share: the journal's sequence, claims, load figures."""

from typing import Self, final

__all__ = ["Shared"]

@final
class Shared:
    """One mapping of the shared block.

    fd: a descriptor of the block as another process made it, or -1 to make a new one. The
    descriptor is owned by the object and closed with it; it is inheritable only on request.
    Raises OSError.
    """

    def __new__(cls, fd: int = -1) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the block, to be inherited by workers."""

    def offer(self, ticket: int) -> None:
        """Mark `ticket` as free for the taking. Tickets 4096 apart share a place."""

    def claim(self, ticket: int) -> bool:
        """Take `ticket`; whether it was still free. Exactly one taker ever gets True."""

    def begin_sequence(self, last: int) -> None:
        """Let the journal's sequence go on after `last`."""

    def next_sequence(self) -> int:
        """The next number of the journal's sequence; each is given once, store-wide."""

    def set_store(self, state: int, slow_rate: int = 0) -> None:
        """Tell the workers of the store: 0 fine, 1 short of space, 2 out of space, 3 not there.

        slow_rate: bytes per second that a worker may read in state 1.
        """

    def disk_since(self, worker: int) -> int:
        """Since when the worker's loop is inside a file call, ms of CLOCK_MONOTONIC; 0: not."""

    def counters(self, worker: int) -> tuple[int, int, int, int]:
        """(bytes received, instances stored, instances refused, heartbeat in ms) of a worker.

        Raises IndexError.
        """

    def heartbeat(self, worker: int, now_ms: int) -> None:
        """Say that the worker's loop was alive at `now_ms` (CLOCK_MONOTONIC, milliseconds)."""

    def batches(self) -> list[tuple[int, int]]:
        """The batches under way, as (worker, number), to be asked about by `under_way`."""

    def under_way(self, batch: tuple[int, int]) -> bool:
        """Whether one of `batches` may still write journal lines. Raises IndexError."""

    def end_batches(self, worker: int) -> None:
        """Say that a worker is gone: what it had begun writes no line any more."""

    def begin_batch(self, worker: int) -> None:
        """Begin a batch as the commit does; `end_batches` ends it. For tests."""

    def clear(self, worker: int) -> None:
        """Zero a worker's counters, before a new worker takes the place."""

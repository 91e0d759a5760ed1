"""What is known of the workers that live: heartbeat, disk, batches under way."""

from typing import Self, final

from fastscp_ext.shared.block import Block

__all__ = ["Liveness"]

@final
class Liveness:
    """What each worker says of itself while it lives. Workers out of range raise IndexError."""

    def __new__(cls, block: Block) -> Self: ...
    def heartbeat(self, worker: int, now_ms: int) -> None:
        """Say that the worker's loop was alive at `now_ms` (CLOCK_MONOTONIC, milliseconds)."""

    def alive_ms(self, worker: int) -> int:
        """When the worker's loop was last known to be alive, as `heartbeat` said; 0: never."""

    def disk_since(self, worker: int) -> int:
        """Since when the worker's loop is inside a file call, ms of CLOCK_MONOTONIC; 0: not."""

    def bytes_in_flight(self, worker: int) -> int:
        """Bytes of complete instances that the worker's commits have."""

    def large_ms(self, worker: int) -> int:
        """When the worker last read of a data set that takes many reads, ms; 0: never."""

    def batches(self) -> list[tuple[int, int, int]]:
        """The batches under way, whoever the main of their workers is; `under_way` tells more.

        Each is (worker, 1 for stable or 0 for buffered instances, number).
        """

    def under_way(self, batch: tuple[int, int, int]) -> bool:
        """Whether one of `batches` may still write journal lines."""

    def end_batches(self, worker: int) -> None:
        """Say that a worker is gone: it writes no line any more, and has nothing in flight."""

    def clear(self, worker: int) -> None:
        """Forget a worker, before a new one takes its place."""

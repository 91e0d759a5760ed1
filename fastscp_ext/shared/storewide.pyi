"""What holds for the whole store: the journal's sequence, and what main found the store to be."""

from typing import Self, final

from fastscp_ext.shared.block import Block

__all__ = ["StoreWide"]

@final
class StoreWide:
    """The words of the shared block that hold for the whole store."""

    def __new__(cls, block: Block) -> Self: ...
    def begin_sequence(self, last: int) -> None:
        """Let the journal's sequence go on after `last`."""

    def next_sequence(self) -> int:
        """The next number of the journal's sequence; each is given once, store-wide."""

    def set_state(self, state: int, slow_rate: int = 0) -> None:
        """Tell the workers of the store: 0 fine, 1 short of space, 2 out of space, 3 not there.

        slow_rate: bytes per second that all workers together may read in state 1.
        """

    mixed: bool
    """Whether the store holds compressed and uncompressed files, or will.

    Where it does, a name with or without .zst takes the other, too. Main sets it, before anybody
    stores in another form than before; workers see it at once.
    """

    def reserve_reading(self, nbytes: int, now: int) -> int:
        """Count so many bytes, read in state 1 at `now`; returns when their reader may read again.

        Both in ns of the monotonic clock. Readers get on in the order in which they read. Up to a
        second's worth that nobody read is made up for later.
        """

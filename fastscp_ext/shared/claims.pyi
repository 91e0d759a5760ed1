"""Offers of connections, and who takes them."""

from typing import Self, final

from fastscp_ext.shared.block import Block

__all__ = ["Claims"]

@final
class Claims:
    """The connections on their way from main to a worker, each in a slot of its own.

    Main gives the slots out, and gives one out again only when it knows that the connection in it
    was claimed.
    """

    def __new__(cls, block: Block) -> Self: ...
    @property
    def slots(self) -> int:
        """How many there are, from 0."""

    def offer(self, slot: int, number: int) -> None:
        """Put connection `number`, which is not 0, up for the taking. Raises IndexError."""

    def claim(self, slot: int, number: int) -> bool:
        """Take connection `number`; whether it was still there.

        Exactly one taker ever gets True. Raises IndexError.
        """

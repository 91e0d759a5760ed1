"""What each association has done, where it outlives the worker."""

from typing import Self, final

from fastscp_ext.shared.block import Block
from fastscp_ext.shared.counts import Tally

__all__ = ["Tallies"]

@final
class Tallies:
    """The tallies of the associations there are, each in a slot of its own.

    Main gives the slots out, and gives one out again only when the association is over; its worker
    alone counts in it.
    """

    def __new__(cls, block: Block) -> Self: ...
    @property
    def slots(self) -> int:
        """How many there are, from 0."""

    def clear(self, slot: int) -> None:
        """Begin to count at 0. Raises IndexError."""

    def read(self, slot: int) -> Tally:
        """What is counted by now. Raises IndexError."""

    def tell(self, slot: int, in_full: bool) -> None:
        """Note that the end of its association is in the log. From any thread. Raises IndexError.

        in_full: in a line of its own, or among the lines that the log counts as lost; else only
        in a line that counts many of its kind.
        """

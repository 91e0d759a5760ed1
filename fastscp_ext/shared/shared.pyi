"""What main and its workers share, in memory that outlives any of the workers."""

from typing import Self, final

from fastscp_ext.shared.claims import Claims
from fastscp_ext.shared.liveness import Liveness
from fastscp_ext.shared.rows import Rows
from fastscp_ext.shared.storewide import StoreWide
from fastscp_ext.shared.tallies import Tallies
from fastscp_ext.shared.unflushed import Doubts

__all__ = ["Shared"]

@final
class Shared:
    """One mapping of the shared block, and what stands in it.

    fd: a descriptor of the block as another process made it, or -1 to make a new one. The
    descriptor is owned by the object and closed when it and its members are gone, also where this
    raises; it is inheritable only on request.
    Raises OSError, and ValueError for a block that this version does not know.
    """

    def __new__(cls, fd: int = -1) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the block, to be inherited by workers."""

    @property
    def store(self) -> StoreWide:
        """What holds for the whole store."""

    @property
    def claims(self) -> Claims:
        """Offers of connections."""

    @property
    def liveness(self) -> Liveness:
        """What is known of the workers that live."""

    @property
    def rows(self) -> Rows:
        """What was counted; it outlives the workers."""

    @property
    def doubts(self) -> Doubts:
        """What could not be flushed; it outlives the workers."""

    @property
    def tallies(self) -> Tallies:
        """What each association has done; it outlives the workers."""

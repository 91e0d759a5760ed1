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
    """One mapping of the shared memory, and what stands in it.

    fd, common_fd: descriptors of the block and the common block as another process made them, each
    -1 to make a new one; see `Block`. They are owned by the object and closed when it and its
    members are gone, also where this raises; they are inheritable only on request.
    Raises OSError, and ValueError for a block that this version does not know.
    """

    def __new__(cls, fd: int = -1, common_fd: int = -1) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the block, to be inherited by workers."""

    @property
    def common_fd(self) -> int:
        """The descriptor of the common block, for workers and for a successor of main."""

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
        """What could not be flushed; it outlives the workers, and main."""

    @property
    def tallies(self) -> Tallies:
        """What each association has done; it outlives the workers."""

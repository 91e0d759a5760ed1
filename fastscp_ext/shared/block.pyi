"""The memory that main and its workers share: two blocks, their layouts, and one mapping of them.

The first block is of one main and its workers.

Little-endian as the machine, all numbers unsigned. It begins with 8 bytes `fastscp` and a NUL, the
version (4 bytes), the number of regions (4 bytes), the size of the whole (8 bytes), and for each
region its offset and size (8 bytes each): store, claims, liveness, rows, tallies.
Whoever knows the version knows the regions; `block.pxd` tells.

The common block is of all that write into one store, so of a main and its successor, which may be
of two versions of the program: the journal's sequence, what could not be flushed, the batches of
each worker, whether names have two forms. It begins with 8 bytes `fastall` and a NUL, its own
version (4 bytes), 4 zeros, and the size of the whole (8 bytes).
"""

from typing import Self, final

__all__ = ["Block"]

@final
class Block:
    """One mapping of both.

    fd, common_fd: descriptors of the two as another process made them, each -1 to make a new one.
    They are owned by the object and closed with it, also where this raises; they are inheritable
    only on request.
    Raises OSError, and ValueError for a block that this version does not know.
    """

    def __new__(cls, fd: int = -1, common_fd: int = -1) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the block."""

    @property
    def common_fd(self) -> int:
        """The descriptor of the common block."""

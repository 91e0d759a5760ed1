"""The block of memory that main and its workers share: its layout, and one mapping of it.

Little-endian as the machine, all numbers unsigned. It begins with 8 bytes `fastscp` and a NUL, the
version (4 bytes), the number of regions (4 bytes), the size of the whole (8 bytes), and for each
region its offset and size (8 bytes each): store, claims, liveness, rows, unflushed, tallies.
Whoever knows the version knows the regions; `block.pxd` tells.
"""

from typing import Self, final

__all__ = ["Block"]

@final
class Block:
    """One mapping of the shared block.

    fd: a descriptor of the block as another process made it, or -1 to make a new one. The
    descriptor is owned by the object and closed with it, also where this raises; it is
    inheritable only on request.
    Raises OSError, and ValueError for a block that this version does not know.
    """

    def __new__(cls, fd: int = -1) -> Self: ...
    @property
    def fd(self) -> int:
        """The descriptor of the block."""

"""What main and its workers share. See shared.pyi."""

cimport cython

from fastscp_ext.shared.block cimport Block
from fastscp_ext.shared.claims cimport Claims
from fastscp_ext.shared.liveness cimport Liveness
from fastscp_ext.shared.rows cimport Rows
from fastscp_ext.shared.storewide cimport StoreWide
from fastscp_ext.shared.tallies cimport Tallies
from fastscp_ext.shared.unflushed cimport Doubts

__all__ = ["Shared"]


@cython.final
cdef class Shared:
    """One mapping of the shared memory, and what stands in it. See shared.pyi."""

    def __cinit__(self, int fd=-1, int common_fd=-1):
        self.block = Block(fd, common_fd)
        self.store = StoreWide(self.block)
        self.claims = Claims(self.block)
        self.liveness = Liveness(self.block)
        self.rows = Rows(self.block)
        self.doubts = Doubts(self.block)
        self.tallies = Tallies(self.block)

    @property
    def fd(self):
        """See shared.pyi."""
        return self.block.fd

    @property
    def common_fd(self):
        """See shared.pyi."""
        return self.block.common_fd

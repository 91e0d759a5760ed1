"""Offers of connections, and who takes them. See claims.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_set, word_swap
from fastscp_ext.shared.block cimport BLOCK_CLAIMS, Block

__all__ = ["Claims"]


@cython.final
cdef class Claims:
    """The tickets of connections on their way. See claims.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    def offer(self, uint64_t ticket):
        """See claims.pyi."""
        word_set(&self.block.at.claims[ticket % BLOCK_CLAIMS], ticket)

    def claim(self, uint64_t ticket):
        """See claims.pyi."""
        return bool(word_swap(&self.block.at.claims[ticket % BLOCK_CLAIMS], ticket, 0))

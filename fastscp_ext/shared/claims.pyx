"""Offers of connections, and who takes them. See claims.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_set, word_swap
from fastscp_ext.shared.block cimport BLOCK_CLAIMS, Block

__all__ = ["Claims"]


@cython.final
cdef class Claims:
    """The connections on their way, by slot. See claims.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    @property
    def slots(self):
        """See claims.pyi."""
        return BLOCK_CLAIMS

    def offer(self, Py_ssize_t slot, uint64_t number):
        """See claims.pyi."""
        word_set(self._at(slot), number)

    def claim(self, Py_ssize_t slot, uint64_t number):
        """See claims.pyi."""
        return bool(word_swap(self._at(slot), number, 0))

    cdef uint64_t* _at(self, Py_ssize_t slot) except NULL:
        if not 0 <= slot < BLOCK_CLAIMS:
            raise IndexError(slot)
        return &self.block.at.claims[slot]

"""What holds for the whole store. See storewide.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_add, word_set
from fastscp_ext.shared.block cimport Block

__all__ = ["StoreWide"]


@cython.final
cdef class StoreWide:
    """The words that hold for the whole store. See storewide.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    def begin_sequence(self, uint64_t last):
        """See storewide.pyi."""
        word_set(&self.block.at.store.journal_seq, last)

    def next_sequence(self):
        """See storewide.pyi."""
        return word_add(&self.block.at.store.journal_seq, 1)

    def set_state(self, uint64_t state, uint64_t slow_rate=0):
        """See storewide.pyi."""
        word_set(&self.block.at.store.slow_rate, slow_rate)
        word_set(&self.block.at.store.state, state)

"""What holds for the whole store. See storewide.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_add, word_get, word_set, word_swap
from fastscp_ext.shared.block cimport Block, StoreWords
from fastscp_ext.shared.clock cimport monotonic_ns

__all__ = ["StoreWide"]

cdef enum:
    SECOND = 1000000000


cdef uint64_t reserve_reading(StoreWords* store, uint64_t nbytes, uint64_t now) noexcept nogil:
    # The time that so many bytes take at the rate follows the time that is taken already, by any
    # worker: so all of them keep to one rate, and get on in the order in which they read. What
    # nobody used is lost, except the last second's.
    cdef uint64_t rate = word_get(&store.slow_rate)
    cdef uint64_t cost = nbytes * <uint64_t>SECOND // (rate if rate else 1)
    cdef uint64_t before
    cdef uint64_t after
    while True:
        before = word_get(&store.slow_until)
        after = cost + (before if before + SECOND > now else now - SECOND)
        if word_swap(&store.slow_until, before, after):
            return after


@cython.final
cdef class StoreWide:
    """The words that hold for the whole store. See storewide.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    def begin_sequence(self, uint64_t last):
        """See storewide.pyi."""
        word_set(&self.block.common.journal_seq, last)

    def next_sequence(self):
        """See storewide.pyi."""
        return word_add(&self.block.common.journal_seq, 1)

    def set_state(self, uint64_t state, uint64_t slow_rate=0):
        """See storewide.pyi."""
        word_set(&self.block.at.store.slow_rate, slow_rate)
        word_set(&self.block.at.store.slow_until, monotonic_ns())
        word_set(&self.block.at.store.state, state)

    @property
    def mixed(self):
        """See storewide.pyi."""
        return word_get(&self.block.common.mixed) != 0

    @mixed.setter
    def mixed(self, bint mixed):
        word_set(&self.block.common.mixed, mixed)

    def reserve_reading(self, uint64_t nbytes, uint64_t now):
        """See storewide.pyi."""
        return reserve_reading(&self.block.at.store, nbytes, now)

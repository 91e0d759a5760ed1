"""What each association has done. See tallies.pyi."""

cimport cython
from libc.string cimport memset

from fastscp_ext.shared.atomic cimport word_get, word_set
from fastscp_ext.shared.block cimport BLOCK_TALLIES, TALLY_COUNTED, TALLY_TOLD, Block, Tally

from fastscp_ext.shared.counts import Tally as Read

__all__ = ["Tallies"]


cdef object tally_read(const Tally* tally):
    # Each word whole; a worker may count while main reads.
    return Read(
        word_get(&tally.begun), word_get(&tally.stored), word_get(&tally.refused),
        word_get(&tally.unfinished), word_get(&tally.bytes), word_get(&tally.received),
        word_get(&tally.truncated), word_get(&tally.mislabelled), word_get(&tally.headers),
        word_get(&tally.odd_uids), word_get(&tally.identical), word_get(&tally.versions),
        word_get(&tally.replaced), word_get(&tally.kept), word_get(&tally.told),
        word_get(&tally.ended),
    )


@cython.final
cdef class Tallies:
    """The tallies of the associations there are. See tallies.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    @property
    def slots(self):
        """See tallies.pyi."""
        return BLOCK_TALLIES

    def clear(self, Py_ssize_t slot):
        """See tallies.pyi."""
        memset(self.of(slot), 0, sizeof(Tally))

    def read(self, Py_ssize_t slot):
        """See tallies.pyi."""
        return tally_read(self.of(slot))

    def tell(self, Py_ssize_t slot, bint in_full):
        """See tallies.pyi."""
        word_set(&self.of(slot).told, TALLY_TOLD if in_full else TALLY_COUNTED)

    cdef Tally* of(self, Py_ssize_t slot) except NULL:
        if not 0 <= slot < BLOCK_TALLIES:
            raise IndexError(slot)
        return &self.block.at.tallies[slot]

# What holds for the whole store.

from libc.stdint cimport uint64_t

from fastscp_ext.shared.block cimport Block, StoreWords


# What main found the store to be in.
cdef enum StoreState:
    STORE_FINE = 0
    STORE_SLOW = 1           # space runs short: reading is limited
    STORE_FULL = 2           # too short to take anything
    STORE_LOST = 3           # the path does not lead to the store any more


cdef class StoreWide:
    cdef Block block

cdef uint64_t reserve_reading(StoreWords* store, uint64_t nbytes, uint64_t now) noexcept nogil

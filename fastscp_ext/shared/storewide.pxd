# What holds for the whole store.

from fastscp_ext.shared.block cimport Block


# What main found the store to be in.
cdef enum StoreState:
    STORE_FINE = 0
    STORE_SLOW = 1           # space runs short: reading is limited
    STORE_FULL = 2           # too short to take anything
    STORE_LOST = 3           # the path does not lead to the store any more


cdef class StoreWide:
    cdef Block block

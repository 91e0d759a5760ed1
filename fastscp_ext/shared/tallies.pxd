# What each association has done, where it outlives the worker.

from fastscp_ext.shared.block cimport Block, Tally


cdef class Tallies:
    cdef Block block

    cdef Tally* of(self, Py_ssize_t slot) except NULL

cdef object tally_read(const Tally* tally)

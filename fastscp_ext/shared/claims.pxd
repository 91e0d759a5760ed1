# Offers of connections, and who takes them.

from libc.stdint cimport uint64_t

from fastscp_ext.shared.block cimport Block


cdef class Claims:
    cdef Block block

    cdef uint64_t* _at(self, Py_ssize_t slot) except NULL

# What is known of the workers that live.

from fastscp_ext.shared.block cimport Block, Live


cdef class Liveness:
    cdef Block block

    cdef Live* of(self, Py_ssize_t worker) except NULL

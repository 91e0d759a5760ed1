# What is known of the workers that live.

from fastscp_ext.shared.block cimport Batches, Block, Live


cdef class Liveness:
    cdef Block block

    cdef Live* of(self, Py_ssize_t worker) except NULL
    cdef Batches* batches_of(self, Py_ssize_t worker, int durability) except NULL

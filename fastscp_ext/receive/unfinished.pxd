# The memory that requests and command sets take in one worker while they are not whole.

from libc.stdint cimport uint32_t


cdef class Unfinished:
    cdef dict held            # by receiver: bytes, of those that hold more than ordinary ones do
    cdef readonly Py_ssize_t bytes

    cdef int weigh(self, object receiver, uint32_t size) except -1

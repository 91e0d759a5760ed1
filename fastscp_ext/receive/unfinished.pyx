"""What requests and command sets take while they are not whole. See unfinished.pyi."""

cimport cython
from libc.stdint cimport uint32_t

__all__ = ["Unfinished"]

cdef enum:
    ORDINARY = 16384             # bytes that one may hold without being counted
    UNFINISHED_MOST = 33554432   # bytes that those above it may hold together


@cython.final
cdef class Unfinished:
    """What requests and command sets take while they are not whole. See unfinished.pyi."""

    def __cinit__(self):
        self.held = {}

    cdef int weigh(self, object receiver, uint32_t size) except -1:
        # So much a receiver holds now. Beyond the bound the one that holds most goes; that calls
        # here again, with 0.
        self.bytes -= <Py_ssize_t>self.held.pop(receiver, 0)
        if size > ORDINARY:
            self.held[receiver] = size
            self.bytes += size
        while self.bytes > UNFINISHED_MOST:
            max(self.held, key=self.held.__getitem__).outgrown()
        return 0

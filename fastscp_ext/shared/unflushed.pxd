# What could not be flushed, told to all workers.

from libc.stdint cimport uint32_t

from fastscp_ext.shared.atomic cimport word_get
from fastscp_ext.shared.block cimport Block, Unflushed


# What adding a path comes to.
cdef enum Added:
    ADDED_NOTHING = 0        # it was there
    ADDED_PATH = 1
    ADDED_ALL = 2            # there was no place left: from now on it holds for all paths

cdef class Doubts:
    cdef Block block

    cdef bint _add(self, int doubt, str path) except -1
    cdef void _all(self, int doubt) noexcept
    cdef bint _has(self, int doubt, str path) except -1

cdef Added unflushed_add(
    Unflushed* unflushed, int doubt, const char* path, uint32_t size) noexcept nogil
cdef bint unflushed_find(
    const Unflushed* unflushed, int doubt, const char* path, uint32_t size) noexcept nogil


cdef inline bint unflushed_has(
    const Unflushed* unflushed, int doubt, const char* path, uint32_t size
) noexcept nogil:
    # Where no flush has failed this is one word read.
    return word_get(&unflushed.any) != 0 and unflushed_find(unflushed, doubt, path, size)

"""What could not be flushed, told to all workers. See unflushed.pyi."""

import os

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.shared.atomic cimport word_get, word_set, word_swap
from fastscp_ext.shared.block cimport (
    DOUBT_ANEW, DOUBT_LEFT, DOUBT_REFUSED, UNFLUSHED_SLOTS, Block, Unflushed,
)

__all__ = ["Doubts"]

cdef extern from *:
    """
    #include <stdint.h>
    /* FNV-1a of 64 bits; 0 is a free place. */
    static uint64_t path_hash(const char *path, uint32_t size) {
        uint64_t hash = 0xcbf29ce484222325u;
        for (uint32_t k = 0; k < size; k++) {
            hash ^= (unsigned char)path[k];
            hash *= 0x100000001b3u;
        }
        return hash ? hash : 1;
    }
    """
    uint64_t path_hash(const char* path, uint32_t size) nogil


cdef Added unflushed_add(
    Unflushed* unflushed, int doubt, const char* path, uint32_t size
) noexcept nogil:
    cdef uint64_t wanted = path_hash(path, size)
    cdef uint64_t there
    cdef Added added = ADDED_ALL
    cdef int k
    if word_get(&unflushed.all[doubt]):
        return ADDED_NOTHING
    for k in range(UNFLUSHED_SLOTS):
        there = word_get(&unflushed.paths[doubt][k])
        if there == 0 and word_swap(&unflushed.paths[doubt][k], 0, wanted):
            added = ADDED_PATH
            break
        # Another worker may have taken the place just now, for the same path.
        if word_get(&unflushed.paths[doubt][k]) == wanted:
            return ADDED_NOTHING
    if added == ADDED_ALL and not word_swap(&unflushed.all[doubt], 0, 1):
        added = ADDED_NOTHING
    # Last: whoever sees this sees the path.
    word_set(&unflushed.any, 1)
    return added


cdef bint unflushed_find(
    const Unflushed* unflushed, int doubt, const char* path, uint32_t size
) noexcept nogil:
    cdef uint64_t wanted = path_hash(path, size)
    cdef uint64_t there
    cdef int k
    if word_get(&unflushed.all[doubt]):
        return True
    for k in range(UNFLUSHED_SLOTS):
        there = word_get(&unflushed.paths[doubt][k])
        if there == 0:
            return False
        if there == wanted:
            return True
    return False


@cython.final
cdef class Doubts:
    """What could not be flushed. See unflushed.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    def refuse(self, str folder not None):
        """See unflushed.pyi."""
        return bool(self._add(DOUBT_REFUSED, folder))

    def refuse_all(self):
        """See unflushed.pyi."""
        self._all(DOUBT_REFUSED)

    def refuses(self, str folder not None):
        """See unflushed.pyi."""
        return bool(self._has(DOUBT_REFUSED, folder))

    def doubt(self, str path not None):
        """See unflushed.pyi."""
        return bool(self._add(DOUBT_ANEW, path))

    def doubt_all(self):
        """See unflushed.pyi."""
        self._all(DOUBT_ANEW)

    def leave(self, str path not None):
        """See unflushed.pyi."""
        return bool(self._add(DOUBT_LEFT, path))

    def leave_all(self):
        """See unflushed.pyi."""
        self._all(DOUBT_LEFT)

    def leaves(self, str path not None):
        """See unflushed.pyi."""
        return bool(self._has(DOUBT_LEFT, path))

    def doubts(self, str path not None):
        """See unflushed.pyi."""
        return bool(
            self._has(DOUBT_ANEW, path) or self._has(DOUBT_ANEW, path.rpartition("/")[0])
        )

    cdef bint _add(self, int doubt, str path) except -1:
        cdef bytes raw = os.fsencode(path)
        cdef const char* text = raw
        return unflushed_add(
            &self.block.common.unflushed, doubt, text, <uint32_t>len(raw)) != ADDED_NOTHING

    cdef void _all(self, int doubt) noexcept:
        word_set(&self.block.common.unflushed.all[doubt], 1)
        word_set(&self.block.common.unflushed.any, 1)

    cdef bint _has(self, int doubt, str path) except -1:
        cdef bytes raw = os.fsencode(path)
        cdef const char* text = raw
        return unflushed_has(&self.block.common.unflushed, doubt, text, <uint32_t>len(raw))

# What is left of a read where its association pauses in the middle.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from fastscp_ext.wire.cursor cimport Cursor, cursor_over


# bytes: owned; NULL: nothing is left, and the others say nothing.
ctypedef struct Rest:
    uint8_t* bytes
    uint32_t at              # of the first byte that is still to be taken in
    uint32_t size
    uint64_t read_ns         # when they were read


cdef inline bint rest_keep(Rest* rest, Cursor left, uint64_t read_ns) noexcept nogil:
    # A copy of what is left; False without memory for it.
    rest.bytes = <uint8_t*>malloc(left.left)
    if rest.bytes == NULL:
        return False
    memcpy(rest.bytes, left.at, left.left)
    rest.at = 0
    rest.size = left.left
    rest.read_ns = read_ns
    return True


cdef inline bint rest_append(Rest* rest, Cursor more) noexcept nogil:
    # Behind what is left already.
    cdef uint8_t* got = <uint8_t*>realloc(rest.bytes, <size_t>rest.size + more.left)
    if got == NULL:
        return False
    memcpy(got + rest.size, more.at, more.left)
    rest.bytes = got
    rest.size += more.left
    return True


cdef inline Cursor rest_left(const Rest* rest) noexcept nogil:
    # Nothing may be added to no address, not even 0.
    if rest.bytes == NULL:
        return cursor_over(NULL, 0)
    return cursor_over(rest.bytes + rest.at, rest.size - rest.at)


cdef inline void rest_drop(Rest* rest) noexcept nogil:
    free(rest.bytes)
    rest.bytes = NULL
    rest.at = rest.size = 0

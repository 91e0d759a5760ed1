# What may stand in an element, by its tag.
# Source: PS3.6 Table 6-1.

from libc.stdint cimport uint32_t


# Whether PS3.6 has bytes or binary numbers there, or whether nobody knows what a private element
# holds.
cdef bint may_hold_bytes(uint32_t tag) noexcept nogil

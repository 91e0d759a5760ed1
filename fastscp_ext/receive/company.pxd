# Who else of the worker's associations is about: whether a large data set has to leave them room.

from libc.stdint cimport uint64_t


cdef enum:
    ACTIVE_NS = 250000000    # so long after its last message an association counts as active


# Associations by their numbers; 0: none yet.
ctypedef struct Company:
    uint64_t latest          # whose message ended last
    uint64_t latest_ns       # when
    uint64_t other_ns        # when one of any other than that did last


cdef inline void company_note(Company* c, uint64_t number, uint64_t now_ns) noexcept nogil:
    # An association has ended a message that was not large.
    if number != c.latest:
        c.other_ns = c.latest_ns
        c.latest = number
    c.latest_ns = now_ns


cdef inline bint company_of(const Company* c, uint64_t number, uint64_t now_ns) noexcept nogil:
    # Whether any other association than that one is active.
    cdef uint64_t at_ns = c.latest_ns if number != c.latest else c.other_ns
    return at_ns != 0 and now_ns < at_ns + ACTIVE_NS

# Several parses of one data set: how they come to be, and end.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.dataset.tap_state cimport TapParse, TapState


cdef inline TapParse* parse_at(TapState* tap, uint32_t n) noexcept nogil:
    return &tap.first if n == 0 else &tap.more.parses[n - 1]


cdef inline uint64_t position_of(const TapState* tap, const TapParse* p) noexcept nogil:
    # Of the next byte that it reads.
    return tap.fed - p.left - p.again_have


# The last n bytes of the header in hand are no part of it: they are read again.
cdef void read_again(TapParse* p, uint32_t n) noexcept nogil

# One more parse, which takes the header in hand in another form. NULL: it cannot be followed.
cdef TapParse* fork_parse(TapState* tap, TapParse* p, int form) noexcept nogil

# A way to read the header in hand is not followed, though it may be the right one.
cdef void leave_out(TapState* tap, const TapParse* p) noexcept nogil

# p has taken a step: if it is dead it goes, and so does whichever is like another one now.
cdef void tidy_parses(TapState* tap, TapParse* p) noexcept nogil

# Leave one parse, which is `winner`, in its place.
cdef void keep_parse(TapState* tap, TapParse* winner) noexcept nogil

# Headers that may be meant in another way than they say, and whether a way is borne out.
# Source: PS3.5 7.1, 6.2.2.

from fastscp_ext.dataset.tap_headers cimport TapHeader, may_spell_vr
from fastscp_ext.dataset.tap_state cimport TapParse, TapState
from fastscp_ext.dataset.vr cimport VR_SHORT


cdef inline bint is_doubtful(const TapParse* p, const TapHeader* h) noexcept nogil:
    if h.implicit:
        return may_spell_vr(p)
    if h.vr == VR_SHORT:
        return p.empty
    return True


# Start a parse for each other way in which the header may be meant.
cdef void doubt(TapState* tap, TapParse* p, TapHeader* h) noexcept nogil

# Of a parse on trial, that is one more plausible header. False: more bytes are needed, or it is
# dead.
cdef bint stands_trial(TapState* tap, TapParse* p, TapHeader* h) noexcept nogil

# Whether a length taken on trust has led to a header.
cdef bint bears_out(const TapParse* p, const TapHeader* h) noexcept nogil

# A value is proved by what follows: of a wrong length it would be something else.
cdef void judge_value(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil

# A header follows as it should.
cdef void bear_out_values(TapParse* p) noexcept nogil

# At which level the tap is: the readings of it that one parse follows.
# Source: PS3.5 7.1, 7.5.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.dataset.tap_state cimport TapParse, TapReading


cdef inline bint at_elements(const TapParse* p) noexcept nogil:
    # Else in front of an item. All readings agree: their depths differ by even numbers.
    return p.readings[0].depth % 2 == 0


cdef inline bint reads_implicit(const TapReading* reading) noexcept nogil:
    return reading.depth >= reading.implicit_from


cdef inline TapReading* shallowest(TapParse* p) noexcept nogil:
    return &p.readings[p.count - 1]


cdef inline bint outermost(const TapParse* p) noexcept nogil:
    # Whether some reading is at the outermost level; only one can be.
    return p.readings[p.count - 1].depth == 0


# Whether what has passed since the last guess shows that the shallowest reading is right.
cdef bint is_level_proved(const TapParse* p) noexcept nogil

# An element has passed at the outermost level, which a guess has led to.
cdef void note_evidence(TapParse* p, uint32_t tag) noexcept nogil

# Where the parse is was guessed, in whatever reading.
cdef void doubt_level(TapParse* p, int guess) noexcept nogil


cdef inline bint readings_disagree(const TapParse* p) noexcept nogil:
    # On the encoding.
    cdef uint32_t n
    for n in range(1, p.count):
        if reads_implicit(&p.readings[n]) != reads_implicit(&p.readings[0]):
            return True
    return False


cdef void first_reading(TapParse* p) noexcept nogil
cdef void settle_if_complete(TapParse* p) noexcept nogil

cdef inline void assume_fault(TapParse* p) noexcept nogil:
    # In a header.
    p.faults += 1
    if not p.trusted:
        p.trusted = True
        p.before_fault = p.found

# The parse cannot be read any further; what its readings have not proved is given back.
cdef void die(TapParse* p) noexcept nogil

cdef void drop_reading(TapParse* p, uint32_t at) noexcept nogil

# One level down, in every reading; implicit: Implicit VR from there on.
cdef void enter(TapParse* p, bint implicit) noexcept nogil
cdef void leave(TapReading* reading, uint32_t levels) noexcept nogil

# A sequence end between elements: it ends nothing, or the item and its sequence.
cdef void fork_readings(TapParse* p) noexcept nogil

# An element where an item must be. Either the sequence has ended without an end, or an item goes on
# whose end said nothing, or which began without a start.
cdef void fork_without_item(TapParse* p) noexcept nogil

# An item where an element must be: the end of the one before was left out. False: there is none.
cdef bint leave_item(TapParse* p) noexcept nogil

# A delimiter came at the outermost level, and no sequence in front of it: the level is wrong.
cdef void stray_end(TapParse* p) noexcept nogil

# A tag at the outermost level is below the one before it.
cdef void judge_descent(TapParse* p) noexcept nogil

# A header starts, perhaps that of a delimiter. An item that began in a value too short for it may
# end there.
cdef void judge_item_end(TapParse* p, uint64_t at, bint delimiter) noexcept nogil

# What an element of this tag tells about the level.
cdef void judge_order(TapParse* p, uint32_t tag) noexcept nogil

# Some readings are inside implicit items, others outside: the header in hand tells.
cdef void judge_encoding(TapParse* p) noexcept nogil

# The last byte has passed; inside: in the middle of something. Leaves one reading, and those values
# that are proved.
cdef void prove(TapParse* p, bint inside) noexcept nogil

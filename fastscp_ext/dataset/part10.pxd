# The head of a Part 10 file: written in front of a data set, or found in front of one.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    META_ROOM = 768          # bytes: preamble, prefix and the longest meta group written here
    META_PREFIX = 132        # preamble and DICM
    EMBEDDED_LOOK = 138      # bytes needed to tell an embedded header from a data set
    EMBEDDED_CAP = 65536     # bytes of an embedded header tolerated

cdef enum Strip:
    STRIP_MORE = 0
    STRIP_DONE = 1
    STRIP_BAD = 2

# An embedded Part 10 header on its way past. `room` grows to EMBEDDED_CAP.
ctypedef struct Embedded:
    uint8_t* bytes           # owned; collected so far, or NULL
    uint32_t have
    uint32_t room
    uint32_t at              # the element header looked at next
    uint32_t want            # bytes needed before looking
    Cursor transfer_syntax   # raw value inside `bytes`; left == 0: not found


cdef uint32_t meta_build(
    uint8_t* out, Cursor sop_class, Cursor sop_instance, Cursor transfer_syntax,
    Cursor implementation, Cursor version, Cursor sender, Cursor receiver
) noexcept nogil
cdef uint32_t embedded_prefix(const uint8_t* data, uint32_t n) noexcept nogil
cdef void embedded_begin(Embedded* e) noexcept nogil
cdef void embedded_end(Embedded* e) noexcept nogil
cdef int embedded_feed(Embedded* e, Cursor* c) noexcept nogil

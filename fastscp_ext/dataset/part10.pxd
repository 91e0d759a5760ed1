# The head of a Part 10 file: written in front of a data set, or found in front of one.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.dataset.vr cimport VR


cdef enum:
    META_ROOM = 768          # bytes: preamble, prefix and the longest meta group written here
    META_PREFIX = 132        # preamble and DICM
    EMBEDDED_LOOK = 140      # bytes needed to tell an embedded header from a data set
    EMBEDDED_CAP = 65536     # bytes of an embedded header tolerated
    NO_META = 0xFFFFFFFF     # in place of a number of bytes: no File Meta Information here

cdef enum:
    META_ELEMENT = 0
    META_END = 1             # an element of another group begins here
    META_CUT = 2             # the element is not all there

# An element of group 0002, or of a command set in front of it.
ctypedef struct MetaElement:
    uint16_t group
    uint16_t number
    VR vr
    Cursor value
    uint32_t size            # bytes, header and value; META_CUT: so many at least are needed

cdef enum Strip:
    STRIP_MORE = 0
    STRIP_DONE = 1
    STRIP_BAD = 2

# What stands in front of a data set and is none of it, on its way past: elements of groups 0000 and
# 0002. `room` grows to EMBEDDED_CAP.
ctypedef struct Embedded:
    uint8_t* bytes           # owned; collected so far, or NULL
    bint meta_seen           # an element of group 0002; one of group 0000 does not follow it
    uint32_t have
    uint32_t room
    uint32_t at              # the element header looked at next
    uint32_t want            # bytes needed before looking
    Cursor transfer_syntax   # raw value inside `bytes`; left == 0: not found


# other_syntax: what else the data set may turn out to be in, written as private information; left
# == 0: none. The header is as long with the two changed for each other.
cdef uint32_t meta_build(
    uint8_t* out, Cursor sop_class, Cursor sop_instance, Cursor transfer_syntax,
    Cursor implementation, Cursor version, Cursor sender, Cursor receiver, Cursor other_syntax
) noexcept nogil

# The element at the cursor, in Explicit VR Little Endian whatever the data set is in (PS3.10 7.1).
# A VR that is not known has a 16-bit length here. The cursor moves for META_ELEMENT only.
cdef int take_meta(Cursor* c, MetaElement* found) noexcept nogil

# How many bytes precede the group 0002 or 0000 that `data` begins with: META_PREFIX, 0 or NO_META.
# Either is in Explicit or Implicit VR Little Endian. packed: a deflated data set is awaited, of
# which some may begin like the less striking of these forms; only the explicit group 0002 counts.
cdef uint32_t embedded_prefix(const uint8_t* data, uint32_t n, bint packed) noexcept nogil
cdef void embedded_begin(Embedded* e) noexcept nogil
cdef void embedded_end(Embedded* e) noexcept nogil
cdef int embedded_feed(Embedded* e, Cursor* c) noexcept nogil

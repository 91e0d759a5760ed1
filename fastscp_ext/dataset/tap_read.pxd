# The header in hand, as it says or in another form.
# Source: PS3.5 7.1.

from libc.stdint cimport uint8_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, take_u8
from fastscp_ext.dataset.tap_headers cimport (
    GROUP_DELIMITER, HEADER, LONG_HEADER, TapHeader, take_tag, take_u16, take_u32,
)
from fastscp_ext.dataset.tap_levels cimport reads_implicit
from fastscp_ext.dataset.tap_state cimport FORM_LITERAL, TAP_EXPLICIT_BE, TapParse
from fastscp_ext.dataset.vr cimport VR_INVALID, VR_SHORT, VR_UNKNOWN, vr_of


# As its form says. False: it needs 12 bytes, which are asked for.
cdef bint read_formed(TapParse* p, TapHeader* h) noexcept nogil


cdef inline bint read_long(TapParse* p, TapHeader* h, Cursor c, bint big) noexcept nogil:
    if p.header_have < LONG_HEADER:
        p.header_want = LONG_HEADER
        return False
    h.reserved = take_u16(&c, big)
    h.length = take_u32(&c, big)
    h.size = LONG_HEADER
    return True


cdef inline bint read_header(TapParse* p, TapHeader* h) noexcept nogil:
    # As it says, unless it has a form. False: it needs 12 bytes, which are asked for.
    cdef Cursor c = cursor_over(p.header, p.header_have)
    cdef bint implicit = reads_implicit(&p.readings[0])
    cdef bint big = p.syntax == TAP_EXPLICIT_BE and not implicit
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    if p.form != FORM_LITERAL:
        return read_formed(p, h)
    h.tag = take_tag(&c, big)
    h.implicit = implicit
    h.reserved = 0
    h.size = HEADER
    if implicit or h.tag >> 16 == GROUP_DELIMITER:
        h.length = take_u32(&c, big)
        h.vr = VR_UNKNOWN
        return True
    take_u8(&c, &first)
    take_u8(&c, &second)
    h.vr = vr_of(first, second)
    if h.vr == VR_SHORT or h.vr == VR_INVALID:
        h.length = take_u16(&c, big)
        return True
    return read_long(p, h, c, big)

"""The header in hand, as it says or in another form."""

from libc.stdint cimport uint8_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, take_u8
from fastscp_ext.dataset.tap_headers cimport HEADER, TapHeader, take_tag, take_u16, take_u32
from fastscp_ext.dataset.tap_levels cimport reads_implicit
from fastscp_ext.dataset.tap_state cimport (
    FORM_BEFORE_IMPLICIT, FORM_BEFORE_LONG, FORM_IMPLICIT, FORM_IMPLICIT_LEVEL, FORM_LONG,
    FORM_SHORT, TAP_EXPLICIT_BE, TapParse,
)
from fastscp_ext.dataset.vr cimport VR_SHORT, VR_UNKNOWN, vr_of

__all__ = []


cdef void read_before(const TapParse* p, TapHeader* h, bint big) noexcept nogil:
    # The header in hand is not one: it goes on with the element before, which then has a value.
    cdef Cursor before = cursor_over(p.previous, HEADER)
    cdef Cursor c = cursor_over(p.header, p.header_have)
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    h.tag = take_tag(&before, big)
    if p.form == FORM_BEFORE_IMPLICIT:
        h.length = take_u32(&before, big)
        h.vr = VR_UNKNOWN
        h.implicit = True
        h.size = 0
    else:
        take_u8(&before, &first)
        take_u8(&before, &second)
        h.vr = vr_of(first, second)
        h.length = take_u32(&c, big)
        h.size = 4


cdef bint read_formed(TapParse* p, TapHeader* h) noexcept nogil:
    cdef Cursor c = cursor_over(p.header, p.header_have)
    cdef bint implicit = reads_implicit(&p.readings[0])
    cdef bint big = p.syntax == TAP_EXPLICIT_BE and not implicit
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    h.reserved = 0
    h.implicit = False
    if p.form == FORM_BEFORE_LONG or p.form == FORM_BEFORE_IMPLICIT:
        read_before(p, h, big)
        return True
    h.tag = take_tag(&c, big)
    h.size = HEADER
    if p.form == FORM_IMPLICIT or p.form == FORM_IMPLICIT_LEVEL:
        h.implicit = True
        h.length = take_u32(&c, big)
        h.vr = VR_UNKNOWN
        return True
    take_u8(&c, &first)
    take_u8(&c, &second)
    h.vr = vr_of(first, second)
    if p.form == FORM_SHORT or p.form != FORM_LONG and h.vr == VR_SHORT:
        h.length = take_u16(&c, big)
        return True
    return read_long(p, h, c, big)

"""Headers of elements, items and ends: what they say, and whether that can be so."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport (
    Cursor, cursor_over, peek_u8, skip, take_u16_be, take_u16_le, take_u32_le, take_u8,
)
from fastscp_ext.dataset.tap_state cimport (
    FORM_BEFORE_IMPLICIT, TAP_EXPLICIT_BE, TAP_EXPLICIT_LE, TAP_IMPLICIT_LE, TapParse,
)
from fastscp_ext.dataset.vr cimport VR, VR_INVALID, VR_SHORT, VR_UNKNOWN, vr_of

__all__ = []


# Sniffing: is the first header what was negotiated? -------------------------------------------

cdef inline bint starts_a_data_set(uint32_t group) noexcept nogil:
    # Small and even: the other byte order would give a multiple of 256.
    return 2 <= group <= 0xFF and group % 2 == 0


cdef int explicit_family(uint32_t group_le, uint32_t group_be, int negotiated) noexcept nogil:
    # Where only one order gives a group that data sets start with, it is that; else the negotiated.
    if starts_a_data_set(group_le) != starts_a_data_set(group_be):
        return TAP_EXPLICIT_LE if starts_a_data_set(group_le) else TAP_EXPLICIT_BE
    if negotiated == TAP_EXPLICIT_LE or negotiated == TAP_EXPLICIT_BE:
        return negotiated
    return TAP_EXPLICIT_LE


cdef int sniff(const uint8_t* header, int negotiated, int* also) noexcept nogil:
    cdef Cursor little = cursor_over(header, HEADER)
    cdef Cursor big = little
    cdef uint16_t group_le = 0
    cdef uint16_t group_be = 0
    cdef uint32_t length = 0
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef VR vr
    cdef int family
    cdef bint explicit = negotiated == TAP_EXPLICIT_LE or negotiated == TAP_EXPLICIT_BE
    cdef bint likely
    also[0] = -1
    take_u16_le(&little, &group_le)
    take_u16_be(&big, &group_be)
    skip(&little, 2)
    peek_u8(&little, 0, &first)
    peek_u8(&little, 1, &second)
    take_u32_le(&little, &length)
    vr = vr_of(first, second)
    family = explicit_family(group_le, group_be, negotiated)
    likely = reads_as_implicit(group_le, length)
    if vr != VR_INVALID and vr != VR_UNKNOWN:
        if negotiated == TAP_IMPLICIT_LE and likely and length >> 16 == 0:
            # A length of some 20 KiB spells a VR.
            also[0] = family
            return TAP_IMPLICIT_LE
        return family
    if vr == VR_UNKNOWN and explicit:
        if likely:
            also[0] = TAP_IMPLICIT_LE
        return negotiated
    if not starts_a_data_set(group_le) and not starts_a_data_set(group_be):
        return TAP_IMPLICIT_LE if likely else -1
    # A VR that is none in front of a length, or an implicit length. The upper half of that is 0
    # in the first element of a data set, which is short.
    if explicit and length >> 16 != 0 and length != UNDEFINED_LENGTH:
        if likely:
            also[0] = TAP_IMPLICIT_LE
        return family
    if not likely:
        return family if length >> 16 != 0 else -1
    if length != UNDEFINED_LENGTH and (length >> 16 != 0 or first >= c" " and second >= c" "):
        also[0] = family
    return TAP_IMPLICIT_LE


# Reading --------------------------------------------------------------------------------------

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


# Judging --------------------------------------------------------------------------------------

cdef bint spells_vr(const TapParse* p) noexcept nogil:
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef VR vr
    peek_u8(&c, 4, &first)
    peek_u8(&c, 5, &second)
    vr = vr_of(first, second)
    return vr != VR_INVALID and vr != VR_UNKNOWN


cdef bint may_hold_bytes(uint32_t tag) noexcept nogil:
    cdef uint32_t group = tag >> 16
    if group % 2 == 1:
        return True
    if group >= 0x5000:
        # Curves, waveforms, overlays, pixel data, padding; but one sequence.
        return tag != 0x54000100
    # OB, OD, OF, OL, OV, OW and UN of PS3.6 Table 6-1.
    return tag in (
        0x00080202, 0x0008041B, 0x0008041C, 0x00142210, 0x00143050, 0x00143070, 0x00143080,
        0x0016002B, 0x0016004B, 0x00160062, 0x00160070, 0x0016008B, 0x0016008C, 0x00181638,
        0x00189445, 0x00221531, 0x00280020, 0x00281200, 0x00281201, 0x00281202, 0x00281203,
        0x00281204, 0x00281211, 0x00281212, 0x00281213, 0x00281221, 0x00281222, 0x00281223,
        0x00281224, 0x00281408, 0x00282000, 0x00283006, 0x00340002, 0x00340005, 0x00340007,
        0x003A032E, 0x0040A074, 0x0040A089, 0x00420011, 0x00640009, 0x00660016, 0x00660021,
        0x00660022, 0x00660023, 0x00660024, 0x00660025, 0x00660029, 0x00660040, 0x00660041,
        0x00660042, 0x00660043, 0x00660103, 0x00660125, 0x00660129, 0x00686300, 0x006A0011,
        0x00700256, 0x0070150D, 0x00701808, 0x00701A07, 0x00720065, 0x00720067, 0x00720069,
        0x0072006D, 0x00720073, 0x00720075, 0x00720081, 0x00800010, 0x00800011, 0x04000115,
        0x04000120, 0x04000310, 0x04000404, 0x04000520, 0x04000552, 0x300A0664, 0x300A0665,
        0x300A066B, 0x40101006, 0x4010106C,
    )


cdef bint ascends(const TapParse* p, uint32_t tag) noexcept nogil:
    cdef uint32_t n
    for n in range(p.count):
        if tag > p.readings[n].tag:
            return True
    return False


cdef bint has_group(const TapHeader* h) noexcept nogil:
    cdef uint32_t group = h.tag >> 16
    # Groups behind the pixel data are private, or those of signatures and padding.
    if group > 0x7FE0 and group % 2 == 0 and group != 0xFFFA and group != 0xFFFC:
        return False
    return group != 0


cdef bint is_placed(const TapParse* p, const TapHeader* h) noexcept nogil:
    return has_group(h) and ascends(p, h.tag)


cdef bint is_header(const TapParse* p, const TapHeader* h) noexcept nogil:
    if not has_group(h):
        return False
    if h.implicit:
        if h.tag & 0xFFFF == 0:
            return h.length == 4
        if is_pixel_data(h.tag) or h.length == UNDEFINED_LENGTH:
            return True
        return h.length < LONGEST_GUESS and not spells_vr(p)
    if h.vr == VR_INVALID or h.vr == VR_UNKNOWN or h.reserved != 0:
        return False
    # A group length (PS3.5 7.2).
    return h.tag & 0xFFFF != 0 or h.length == 4 and h.vr == VR_SHORT


cdef bint is_plausible(const TapParse* p, const TapHeader* h) noexcept nogil:
    return is_header(p, h) and ascends(p, h.tag)


cdef bint hides_a_tag(const TapParse* p, const TapHeader* h) noexcept nogil:
    # One that ascends, and is no group length's: no length below 64 KiB looks like that.
    cdef uint32_t tag = h.length
    if p.syntax != TAP_EXPLICIT_BE:
        tag = (h.length << 16) | (h.length >> 16)
    return (h.size == LONG_HEADER and tag & 0xFFFF != 0
            and tag > h.tag and tag >> 16 <= 0x7FE0)

"""Headers of elements, items and ends: what they say, and whether that can be so."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport (
    Cursor, cursor_over, peek_u8, skip, take_u16_be, take_u16_le, take_u32_le,
)
from fastscp_ext.dataset.tap_state cimport (
    TAP_EXPLICIT_BE, TAP_EXPLICIT_LE, TAP_IMPLICIT_LE, TapParse,
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
        if negotiated == TAP_IMPLICIT_LE and likely:
            if length >> 16 == 0:
                # A length of some 20 KiB spells a VR.
                also[0] = family
                return TAP_IMPLICIT_LE
            # So does a longer one, and more often an explicit element has a few bytes.
            also[0] = TAP_IMPLICIT_LE
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

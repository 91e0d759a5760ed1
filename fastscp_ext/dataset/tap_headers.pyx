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


cdef bint may_hold_numbers(uint32_t tag) noexcept nogil:
    # Binary ones, of 8 bytes or more: AT, FD, FL, SL, SS, SV, UL, US and UV of PS3.6 Table 6-1.
    return tag in (
        0x00080304, 0x00080306, 0x00080309, 0x0008030B, 0x0008040C, 0x0008040D, 0x00080428,
        0x00080429, 0x00081161, 0x00081162, 0x00081163, 0x00082134, 0x00120052, 0x001811B7,
        0x001811B9, 0x001811BD, 0x00181271, 0x00181310, 0x00181631, 0x00181632, 0x00181633,
        0x00181634, 0x00181635, 0x00181636, 0x00182043, 0x00182044, 0x00186028, 0x0018602A,
        0x0018602C, 0x0018602E, 0x00186034, 0x00186036, 0x00186052, 0x00186054, 0x00186058,
        0x0018605A, 0x00186060, 0x00187036, 0x00187056, 0x00187058, 0x00189019, 0x00189030,
        0x00189035, 0x00189052, 0x00189053, 0x00189061, 0x00189063, 0x00189069, 0x00189070,
        0x00189073, 0x00189079, 0x00189082, 0x00189087, 0x00189089, 0x00189090, 0x00189091,
        0x00189096, 0x00189098, 0x00189104, 0x00189105, 0x00189106, 0x00189155, 0x00189168,
        0x00189181, 0x00189182, 0x00189184, 0x00189195, 0x00189196, 0x00189217, 0x00189218,
        0x00189220, 0x00189254, 0x00189255, 0x00189256, 0x0018925A, 0x00189295, 0x00189296,
        0x00189303, 0x00189305, 0x00189306, 0x00189307, 0x00189309, 0x00189310, 0x00189311,
        0x00189313, 0x00189317, 0x00189318, 0x00189319, 0x00189322, 0x00189324, 0x00189327,
        0x00189328, 0x00189330, 0x00189332, 0x00189335, 0x00189345, 0x00189352, 0x00189376,
        0x00189377, 0x00189378, 0x0018937C, 0x00189404, 0x00189428, 0x00189429, 0x00189430,
        0x00189442, 0x00189461, 0x00189543, 0x00189544, 0x00189545, 0x00189546, 0x00189547,
        0x00189548, 0x00189549, 0x00189550, 0x00189551, 0x00189552, 0x00189553, 0x00189554,
        0x00189557, 0x00189558, 0x00189602, 0x00189603, 0x00189604, 0x00189605, 0x00189606,
        0x00189607, 0x00189715, 0x00189716, 0x00189717, 0x00189718, 0x00189719, 0x00189720,
        0x00189721, 0x00189722, 0x00189723, 0x00189724, 0x00189726, 0x00189727, 0x00189801,
        0x00189805, 0x00189822, 0x00189823, 0x00189824, 0x00189826, 0x0018982B, 0x0018982D,
        0x0018982E, 0x0018982F, 0x00189830, 0x00189833, 0x00189834, 0x00189938, 0x00189939,
        0x0018993A, 0x00189942, 0x00189943, 0x00189945, 0x00189946, 0x00205000, 0x00209153,
        0x00209157, 0x00209251, 0x00209252, 0x00209254, 0x00209255, 0x00209256, 0x00209257,
        0x00209301, 0x00209302, 0x00209308, 0x00209309, 0x0020930A, 0x0020930D, 0x00209518,
        0x0022000F, 0x00220032, 0x00221463, 0x00221467, 0x00221468, 0x00221646, 0x00280009,
        0x0028000A, 0x00280066, 0x00280070, 0x00280082, 0x00280123, 0x00280125, 0x00280404,
        0x00280702, 0x00280721, 0x00281111, 0x00281112, 0x00281113, 0x00281231, 0x00281232,
        0x00281406, 0x00286020, 0x00286030, 0x00286040, 0x00286102, 0x00286110, 0x00286114,
        0x00287018, 0x00289503, 0x00289506, 0x00289507, 0x00409212, 0x00409213, 0x00409214,
        0x00409224, 0x00409225, 0x0040A0B0, 0x0040A132, 0x0040A136, 0x0040A161, 0x0040A162,
        0x0040A163, 0x0040A29A, 0x0040DB73, 0x00460030, 0x00460034, 0x00460040, 0x00460042,
        0x00460044, 0x00460046, 0x00460060, 0x00460062, 0x00460063, 0x00460064, 0x00460075,
        0x00460076, 0x00460077, 0x00460104, 0x00460106, 0x00460114, 0x00460115, 0x00460137,
        0x00460146, 0x00460147, 0x00460202, 0x00460213, 0x00460247, 0x00480117, 0x00500013,
        0x00500015, 0x0050001C, 0x0050001D, 0x00520002, 0x00520003, 0x00520004, 0x00520007,
        0x00520008, 0x00520009, 0x00520011, 0x00520013, 0x00520014, 0x00520028, 0x00520033,
        0x00520034, 0x00540010, 0x00540020, 0x00540030, 0x00540050, 0x00540060, 0x00540070,
        0x00540080, 0x00540090, 0x00540100, 0x00603020, 0x0062000B, 0x00640007, 0x00640008,
        0x00660017, 0x0066001A, 0x0066001B, 0x0066001C, 0x00660020, 0x006862A5, 0x006862F2,
        0x00686346, 0x00686347, 0x00686350, 0x00686390, 0x00686450, 0x00686460, 0x00686490,
        0x006864A0, 0x006864C0, 0x006864D0, 0x006864F0, 0x00686560, 0x00686590, 0x006865B0,
        0x006865D0, 0x006865F0, 0x00686610, 0x00686620, 0x006A0010, 0x00700010, 0x00700011,
        0x00700014, 0x00700022, 0x00700052, 0x00700053, 0x00700230, 0x00700273, 0x0070030B,
        0x00700312, 0x00701205, 0x0070120C, 0x00701303, 0x00701305, 0x00701306, 0x00701503,
        0x00701505, 0x00701507, 0x00701508, 0x00701511, 0x00701512, 0x00701603, 0x00701604,
        0x00701605, 0x00701606, 0x00701607, 0x00701702, 0x00701703, 0x00701704, 0x00701705,
        0x00701706, 0x00701A03, 0x00701A05, 0x00701A06, 0x00701B14, 0x00720052, 0x00720060,
        0x00720074, 0x00720076, 0x00720078, 0x0072007A, 0x0072007C, 0x0072007E, 0x00720082,
        0x00720083, 0x00720108, 0x00720212, 0x00720218, 0x00720330, 0x00720432, 0x00720512,
        0x00720514, 0x00740120, 0x00740121, 0x00741026, 0x00741027, 0x00741028, 0x0074102A,
        0x0074102B, 0x0074102C, 0x0074102D, 0x00741338, 0x0074133A, 0x00780050, 0x00780060,
        0x00780090, 0x007800A0, 0x00800004, 0x00800005, 0x00800006, 0x00800007, 0x04000020,
        0x20400011, 0x2200000E, 0x30020106, 0x30020107, 0x3002010F, 0x3002012D, 0x30020134,
        0x30080047, 0x300800A4, 0x300A00C5, 0x300A0133, 0x300A02E6, 0x300A030A, 0x300A038F,
        0x300A0394, 0x300A0396, 0x300A0398, 0x300A0399, 0x300A0412, 0x300A0503, 0x300A0504,
        0x300A0509, 0x300A0510, 0x300A060D, 0x300A0612, 0x300A0613, 0x300A061E, 0x300A0624,
        0x300A0625, 0x300A0626, 0x300A0627, 0x300A0628, 0x300A062C, 0x300A062E, 0x300A0634,
        0x300A063C, 0x300A063D, 0x300A0640, 0x300A0642, 0x300A0643, 0x300A0645, 0x300A0649,
        0x300A064A, 0x300A064B, 0x300A0652, 0x300A0653, 0x300A0654, 0x300A0666, 0x300A0669,
        0x300A066D, 0x300A066E, 0x300A0679, 0x300A067A, 0x300A0688, 0x300A079B, 0x300C0121,
        0x300C0122, 0x300C0124, 0x30100050, 0x30100051, 0x30100074, 0x30100084, 0x30100093,
        0x30100094, 0x30100095, 0x30100096, 0x30100099, 0x3010009A, 0x40101004, 0x40101005,
        0x4010101B, 0x4010101C, 0x4010101D, 0x40101043, 0x40101060, 0x40101061, 0x40101073,
        0x4010107A,
    )


cdef bint may_hold_bytes(uint32_t tag) noexcept nogil:
    cdef uint32_t group = tag >> 16
    if group % 2 == 1:
        return True
    if group >= 0x5000:
        # Curves, waveforms, overlays, pixel data, padding; but one sequence.
        return tag != 0x54000100
    if may_hold_numbers(tag):
        return True
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

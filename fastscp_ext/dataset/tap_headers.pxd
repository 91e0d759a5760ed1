# Headers of elements, items and ends: what they say, and whether that can be so.
# Source: PS3.5 7.1, 7.5.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastscp_ext.wire.cursor cimport (
    Cursor, cursor_over, take_u16_be, take_u16_le, take_u32_be, take_u32_le,
)
from fastscp_ext.dataset.tap_state cimport TapParse
from fastscp_ext.dataset.vr cimport VR

cdef enum:
    UNDEFINED_LENGTH = 0xFFFFFFFF

    HEADER = 8        # bytes
    LONG_HEADER = 12  # of an explicit one with a 32-bit length

    GROUP_DELIMITER = 0xFFFE
    ITEM = 0xFFFEE000
    ITEM_END = 0xFFFEE00D
    SEQUENCE_END = 0xFFFEE0DD
    FLOAT_PIXEL_DATA = 0x7FE00008
    DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
    PIXEL_DATA = 0x7FE00010

    LONGEST_GUESS = 1 << 20  # an implicit length from here on is taken for something else

ctypedef struct TapHeader:
    uint32_t tag
    uint32_t length
    uint32_t reserved    # the two bytes behind the VR of a long header
    uint32_t size        # bytes
    VR vr                # VR_UNKNOWN in Implicit VR
    bint implicit


cdef inline uint32_t take_tag(Cursor* c, bint big) noexcept nogil:
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    if big:
        take_u16_be(c, &group)
        take_u16_be(c, &element)
    else:
        take_u16_le(c, &group)
        take_u16_le(c, &element)
    return (<uint32_t>group << 16) | element


cdef inline uint32_t take_u16(Cursor* c, bint big) noexcept nogil:
    cdef uint16_t number = 0
    if big:
        take_u16_be(c, &number)
    else:
        take_u16_le(c, &number)
    return number


cdef inline uint32_t take_u32(Cursor* c, bint big) noexcept nogil:
    cdef uint32_t number = 0
    if big:
        take_u32_be(c, &number)
    else:
        take_u32_le(c, &number)
    return number


cdef inline bint reads_as_implicit(uint32_t group, uint32_t length) noexcept nogil:
    if group == 0 or group > 0x7FE0:
        return False
    return length == UNDEFINED_LENGTH or length < LONGEST_GUESS


cdef inline bint may_spell_vr(const TapParse* p) noexcept nogil:
    # The bytes 4 and 5 of the header in hand are capitals.
    return (p.header[4] >= c"A" and p.header[4] <= c"Z"
            and p.header[5] >= c"A" and p.header[5] <= c"Z")


cdef inline bint spells_text(const TapParse* p) noexcept nogil:
    # The VR of the header in hand is one of text (PS3.5 6.2): AE AS CS DA DS DT IS LO LT PN SH ST
    # TM UC UI UR UT.
    cdef uint8_t first = p.header[4]
    cdef uint8_t second = p.header[5]
    if first == c"U":
        return second in (c"C", c"I", c"R", c"T")
    if first == c"S":
        return second in (c"H", c"T")
    if first == c"A":
        return second in (c"E", c"S")
    return first in (c"C", c"D", c"I", c"L", c"P", c"T")


cdef inline bint is_pixel_data(uint32_t tag) noexcept nogil:
    return (tag == PIXEL_DATA or tag == FLOAT_PIXEL_DATA or tag == DOUBLE_FLOAT_PIXEL_DATA)


cdef inline bint is_body(uint32_t tag) noexcept nogil:
    # These modules stand at the outermost level only, and tell what an instance is that is no image
    # (PS3.3 C.17.2, C.11.10, C.8.8.5, C.8.8.9, C.24.2, C.8.14.4): Completion and Verification Flag
    # of an SR, Presentation Creation Date, Structure Set Label, RT Plan Label, Encapsulated
    # Document, Spectroscopy Data.
    return tag in (
        0x0040A491, 0x0040A493, 0x00420011, 0x00700082, 0x30060002, 0x300A0002, 0x56000020,
    )


# What the first 8 bytes are. also: another family in which they can be read, or -1.
# Returns one of TAP_*, or -1 if they are no header in any.
cdef int sniff(const uint8_t* header, int negotiated, int* also) noexcept nogil

# Whether the bytes 4 and 5 of the header in hand are a known VR.
cdef bint spells_vr(const TapParse* p) noexcept nogil

# Whether an element of that tag may stand where the parse is.
cdef bint is_placed(const TapParse* p, const TapHeader* h) noexcept nogil

# Whether the bytes look like an element's header, wherever it stands.
cdef bint is_header(const TapParse* p, const TapHeader* h) noexcept nogil

# Whether an element with such a header, read as it says, may stand where the parse is.
cdef bint is_plausible(const TapParse* p, const TapHeader* h) noexcept nogil

# Whether a long header may be a short one without a value, and the next tag behind it.
cdef bint hides_a_tag(const TapParse* p, const TapHeader* h) noexcept nogil

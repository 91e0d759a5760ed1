"""The few wanted values out of a data set that passes in slices."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fastscp_ext.cursor cimport (
    Cursor,
    collect,
    cursor_over,
    peek_u8,
    skip,
    take_span,
    take_u8,
    take_u16_be,
    take_u16_le,
    take_u32_be,
    take_u32_le,
)

__all__ = ["EXPLICIT_BE", "EXPLICIT_LE", "IMPLICIT_LE", "KEYWORDS", "SYNTAX_UNKNOWN", "Tap"]

SYNTAX_UNKNOWN = TAP_SYNTAX_UNKNOWN
IMPLICIT_LE = TAP_IMPLICIT_LE
EXPLICIT_LE = TAP_EXPLICIT_LE
EXPLICIT_BE = TAP_EXPLICIT_BE

# In the order of TapKey.
KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AccessionNumber",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
)

cdef enum:
    UNDEFINED_LENGTH = 0xFFFFFFFF
    SNIFF_BYTES = 8
    SNIFF_LENGTH = 1 << 20  # an implicit length from here on is taken for something else

    GROUP_DELIMITER = 0xFFFE
    ITEM = 0xFFFEE000
    ITEM_END = 0xFFFEE00D
    SEQUENCE_END = 0xFFFEE0DD
    FLOAT_PIXEL_DATA = 0x7FE00008
    DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
    PIXEL_DATA = 0x7FE00010

    # What is read at a level, in TapState.levels; level 0 is the data set itself.
    LEVEL_ELEMENTS = 1
    LEVEL_ITEMS = 2      # of a sequence
    LEVEL_FRAGMENTS = 3  # of encapsulated pixel data: items, never of undefined length
    LEVEL_KIND = 3
    LEVEL_IMPLICIT = 4   # Implicit VR Little Endian, whatever the data set is

    ALL_FOUND = (1 << TAP_KEYS) - 1


cdef enum VR:
    VR_INVALID     # not two capitals
    VR_UNKNOWN     # two capitals: read like VR_LONG (PS3.5 7.1.2)
    VR_SHORT       # 16-bit length
    VR_LONG        # two reserved bytes, 32-bit length
    VR_SEQUENCE    # VR_LONG, holds items
    VR_UN          # VR_LONG, holds implicit items when its length is undefined


cdef inline uint32_t pair(uint8_t first, uint8_t second) noexcept nogil:
    return (<uint32_t>first << 8) | second


cdef VR vr_of(uint8_t first, uint8_t second) noexcept nogil:
    # PS3.5 7.1.2 Tables 7.1-1 and 7.1-2, 6.2.
    if first < c"A" or first > c"Z" or second < c"A" or second > c"Z":
        return VR_INVALID
    if first == c"S" and second == c"Q":
        return VR_SEQUENCE
    if first == c"U" and second == c"N":
        return VR_UN
    if first == c"O":
        if second in (c"B", c"D", c"F", c"L", c"V", c"W"):
            return VR_LONG
    elif first == c"U":
        if second in (c"C", c"R", c"T", c"V"):
            return VR_LONG
        if second in (c"I", c"L", c"S"):
            return VR_SHORT
    elif first == c"S":
        if second == c"V":
            return VR_LONG
        if second in (c"H", c"L", c"S", c"T"):
            return VR_SHORT
    elif first == c"A":
        if second in (c"E", c"S", c"T"):
            return VR_SHORT
    elif first == c"D":
        if second in (c"A", c"S", c"T"):
            return VR_SHORT
    elif first == c"L":
        if second in (c"O", c"T"):
            return VR_SHORT
    elif first == c"F":
        if second in (c"D", c"L"):
            return VR_SHORT
    elif first == c"C":
        if second == c"S":
            return VR_SHORT
    elif first == c"I":
        if second == c"S":
            return VR_SHORT
    elif first == c"P":
        if second == c"N":
            return VR_SHORT
    elif first == c"T":
        if second == c"M":
            return VR_SHORT
    return VR_UNKNOWN


cdef int key_of(uint32_t tag) noexcept nogil:
    if tag < 0x00080016 or tag > 0x00200013:
        return -1
    if tag == 0x00080016:
        return KEY_SOP_CLASS_UID
    if tag == 0x00080018:
        return KEY_SOP_INSTANCE_UID
    if tag == 0x00080020:
        return KEY_STUDY_DATE
    if tag == 0x00080050:
        return KEY_ACCESSION_NUMBER
    if tag == 0x00080060:
        return KEY_MODALITY
    if tag == 0x00100020:
        return KEY_PATIENT_ID
    if tag == 0x0020000D:
        return KEY_STUDY_UID
    if tag == 0x0020000E:
        return KEY_SERIES_UID
    if tag == 0x00200011:
        return KEY_SERIES_NUMBER
    if tag == 0x00200013:
        return KEY_INSTANCE_NUMBER
    return -1


cdef inline bint is_uid(int key) noexcept nogil:
    return (key == KEY_SOP_CLASS_UID or key == KEY_SOP_INSTANCE_UID
            or key == KEY_STUDY_UID or key == KEY_SERIES_UID)


cdef inline uint32_t room_of(int key) noexcept nogil:
    return TAP_UID_BYTES if is_uid(key) else TAP_TEXT_BYTES


cdef uint32_t place_of(int key) noexcept nogil:
    # A place of its own for every key: no value can take the room of another.
    cdef uint32_t place = 0
    cdef int before
    for before in range(key):
        place += room_of(before)
    return place


# Sniffing: is the first header what was negotiated? -------------------------------------------

cdef inline bint starts_a_data_set(uint32_t group) noexcept nogil:
    # Small and even: the other byte order would give a multiple of 256.
    return 2 <= group <= 0xFF and group % 2 == 0


cdef bint reads_as_implicit(uint32_t group, uint32_t length) noexcept nogil:
    if group == 0 or group > 0x7FE0:
        return False
    return length == UNDEFINED_LENGTH or length < SNIFF_LENGTH


cdef int sniff(const uint8_t* header, int negotiated) noexcept nogil:
    # The syntax of the 8 header bytes, or -1 if they are no header in any.
    cdef Cursor little = cursor_over(header, SNIFF_BYTES)
    cdef Cursor big = little
    cdef uint16_t group_le = 0
    cdef uint16_t group_be = 0
    cdef uint32_t length = 0
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef VR vr
    cdef bint negotiated_explicit = (
        negotiated == TAP_EXPLICIT_LE or negotiated == TAP_EXPLICIT_BE)
    take_u16_le(&little, &group_le)
    take_u16_be(&big, &group_be)
    skip(&little, 2)
    peek_u8(&little, 0, &first)
    peek_u8(&little, 1, &second)
    take_u32_le(&little, &length)
    vr = vr_of(first, second)
    if vr == VR_UNKNOWN and negotiated_explicit:
        return negotiated
    if vr == VR_INVALID or vr == VR_UNKNOWN:
        return TAP_IMPLICIT_LE if reads_as_implicit(group_le, length) else -1
    if starts_a_data_set(group_le) != starts_a_data_set(group_be):
        return TAP_EXPLICIT_LE if starts_a_data_set(group_le) else TAP_EXPLICIT_BE
    return negotiated if negotiated_explicit else TAP_EXPLICIT_LE


# Headers --------------------------------------------------------------------------------------

cdef void stop(TapState* tap) noexcept nogil:
    tap.stopped = True
    tap.settled = True


cdef void push(TapState* tap, uint8_t level) noexcept nogil:
    if tap.depth == TAP_MAX_DEPTH:
        stop(tap)
        return
    tap.depth += 1
    tap.levels[tap.depth] = level


cdef void value_passed(TapState* tap) noexcept nogil:
    tap.found |= <uint32_t>1 << tap.key
    tap.key = -1
    if tap.found == ALL_FOUND:
        tap.settled = True


cdef void take_delimiter(TapState* tap, uint32_t tag, uint32_t length) noexcept nogil:
    # An item or an end (FFFE,xxxx). The length of an end is 0 and never looked at.
    cdef uint8_t level = tap.levels[tap.depth]
    cdef uint8_t kind = level & LEVEL_KIND
    if tag == ITEM and kind != LEVEL_ELEMENTS:
        if length != UNDEFINED_LENGTH:
            tap.skip = length
        elif kind == LEVEL_ITEMS:
            push(tap, LEVEL_ELEMENTS | (level & LEVEL_IMPLICIT))
            tap.item_opened = True
        else:
            stop(tap)
    elif tag == ITEM_END and kind != LEVEL_FRAGMENTS:
        # Behind an item of defined length, or at depth 0, it ends nothing: seen, harmless.
        if kind == LEVEL_ELEMENTS and tap.depth > 0:
            tap.depth -= 1
    elif tag == SEQUENCE_END:
        if kind != LEVEL_ELEMENTS:
            tap.depth -= 1
        elif tap.depth > 0:
            tap.depth -= 2  # the end of the last item was left out
    else:
        stop(tap)


cdef void take_element(TapState* tap, uint32_t tag, VR vr, uint32_t length) noexcept nogil:
    cdef uint8_t implicit = tap.levels[tap.depth] & LEVEL_IMPLICIT
    cdef bint is_pixels = (tag == PIXEL_DATA or tag == FLOAT_PIXEL_DATA
                           or tag == DOUBLE_FLOAT_PIXEL_DATA)
    cdef int key
    tap.last_tag = tag
    if tap.depth == 0 and is_pixels:
        tap.settled = True
    if length == UNDEFINED_LENGTH:
        if vr == VR_UN:
            push(tap, LEVEL_ITEMS | LEVEL_IMPLICIT)
        elif vr == VR_LONG or is_pixels:
            push(tap, LEVEL_FRAGMENTS | implicit)
        else:
            push(tap, LEVEL_ITEMS | implicit)
        return
    tap.skip = length
    if tap.depth > 0 or tap.settled:
        return
    key = key_of(tag)
    if key < 0 or tap.found & (<uint32_t>1 << key):
        return
    tap.key = key
    tap.sizes[key] = 0
    if length == 0:
        value_passed(tap)


cdef void take_header(TapState* tap) noexcept nogil:
    # The header is as long as it was wanted: asks for 12 bytes, or takes it in and starts anew.
    cdef Cursor c = cursor_over(tap.header, tap.header_have)
    cdef bint implicit = tap.levels[tap.depth] & LEVEL_IMPLICIT
    cdef bint big = tap.syntax == TAP_EXPLICIT_BE and not implicit
    cdef bint suspect = tap.suspect
    cdef bint item_opened = tap.item_opened
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    cdef uint16_t short_length = 0
    cdef uint32_t tag
    cdef uint32_t length = 0
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef VR vr
    cdef Cursor vr_and_length = c
    if big:
        take_u16_be(&c, &group)
        take_u16_be(&c, &element)
    else:
        take_u16_le(&c, &group)
        take_u16_le(&c, &element)
    tag = (<uint32_t>group << 16) | element
    if group == GROUP_DELIMITER or implicit:
        if big:
            take_u32_be(&c, &length)
        else:
            take_u32_le(&c, &length)
        vr = VR_UNKNOWN
    else:
        vr_and_length = c
        take_u8(&c, &first)
        take_u8(&c, &second)
        vr = vr_of(first, second)
        if vr == VR_SHORT or vr == VR_INVALID:
            if big:
                take_u16_be(&c, &short_length)
            else:
                take_u16_le(&c, &short_length)
            length = short_length
        elif tap.header_want == 8:
            tap.header_want = 12
            return
        else:
            skip(&c, 2)
            if big:
                take_u32_be(&c, &length)
            else:
                take_u32_le(&c, &length)
    tap.scanned += tap.header_have
    if tap.scanned >= TAP_SCAN_LIMIT:
        tap.scanned = TAP_SCAN_LIMIT
        tap.settled = True
    tap.header_have = 0
    tap.header_want = 8
    tap.suspect = False
    tap.item_opened = False
    if group == GROUP_DELIMITER:
        take_delimiter(tap, tag, length)
        return
    if tap.levels[tap.depth] & LEVEL_KIND != LEVEL_ELEMENTS:
        stop(tap)
        return
    if vr == VR_INVALID:
        # Private sequences with implicit items inside explicit data sets are seen.
        if item_opened and not big:
            take_u32_le(&vr_and_length, &length)
            if reads_as_implicit(group, length):
                tap.levels[tap.depth] |= LEVEL_IMPLICIT
                take_element(tap, tag, VR_UNKNOWN, length)
                return
            length = short_length
        tap.suspect = True
    if (suspect and (vr == VR_INVALID or vr == VR_UNKNOWN)
            and (tag <= tap.last_tag or tag >> 16 != tap.last_tag >> 16)):
        # The 16-bit length taken on trust has led to something that is no header.
        stop(tap)
        return
    take_element(tap, tag, vr, length)


cdef void take_value(TapState* tap, Cursor* c) noexcept nogil:
    # What of the passing value the slice holds; its first bytes are kept if it is wanted.
    cdef uint32_t n = tap.skip if tap.skip < c.left else c.left
    cdef uint32_t have
    cdef uint32_t keep
    cdef Cursor passing = cursor_over(NULL, 0)
    take_span(c, n, &passing)
    tap.skip -= n
    if tap.key < 0:
        return
    have = tap.sizes[tap.key]
    keep = room_of(tap.key) - have
    if keep > n:
        keep = n
    memcpy(&tap.values[place_of(tap.key) + have], passing.at, keep)
    tap.sizes[tap.key] = <uint16_t>(have + keep)
    if tap.skip == 0:
        value_passed(tap)


# The contract of tap.pxd ----------------------------------------------------------------------

cdef void tap_begin(TapState* tap, int negotiated) noexcept nogil:
    # `values` and `sizes` are left as they were: `found` says which count.
    tap.syntax = negotiated
    tap.sniffed = False
    tap.stopped = False
    tap.truncated = False
    tap.settled = False
    tap.found = 0
    tap.suspect = False
    tap.item_opened = False
    tap.key = -1
    tap.skip = 0
    tap.scanned = 0
    tap.last_tag = 0
    tap.depth = 0
    tap.header_have = 0
    tap.header_want = SNIFF_BYTES
    tap.levels[0] = 0  # not sniffed yet


cdef void begin_reading(TapState* tap) noexcept nogil:
    cdef int syntax = sniff(tap.header, tap.syntax)
    tap.levels[0] = LEVEL_ELEMENTS
    if syntax < 0:
        stop(tap)
        return
    tap.sniffed = tap.syntax != TAP_SYNTAX_UNKNOWN and syntax != tap.syntax
    tap.syntax = syntax
    if syntax == TAP_IMPLICIT_LE:
        tap.levels[0] |= LEVEL_IMPLICIT


cdef void tap_feed(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef Cursor c = cursor_over(data, n)
    while c.left > 0 and not tap.stopped:
        if tap.skip > 0:
            take_value(tap, &c)
            continue
        tap.header_have = collect(&c, tap.header, tap.header_have, tap.header_want)
        if tap.header_have < tap.header_want:
            return
        if tap.levels[0] == 0:
            begin_reading(tap)
            if tap.stopped:
                return
        take_header(tap)


cdef void tap_end(TapState* tap) noexcept nogil:
    tap.settled = True
    tap.truncated = not tap.stopped and (
        tap.header_have > 0 or tap.skip > 0 or tap.depth > 0)


cdef Cursor tap_value(const TapState* tap, int key) noexcept nogil:
    cdef Cursor value = cursor_over(&tap.values[place_of(key)], 0)
    cdef uint8_t byte = 0
    cdef uint32_t n
    if not tap.found & (<uint32_t>1 << key):
        return value
    value.left = tap.sizes[key]
    for n in range(value.left):
        peek_u8(&value, n, &byte)
        if byte == c"\\":
            value.left = n
            break
    while (value.left > 0 and peek_u8(&value, value.left - 1, &byte)
           and (byte == c" " or byte == 0)):
        value.left -= 1
    if not is_uid(key):
        while peek_u8(&value, 0, &byte) and byte == c" ":
            skip(&value, 1)
    return value


@cython.final
cdef class Tap:
    """The tap as Python sees it: for tests and tools, not for the receiving path.

    negotiated: SYNTAX_UNKNOWN, IMPLICIT_LE, EXPLICIT_LE or EXPLICIT_BE; else ValueError.
    Source: PS3.5 7.1, 7.5, A.4.
    """

    cdef TapState state

    def __cinit__(self, int negotiated):
        if not TAP_SYNTAX_UNKNOWN <= negotiated <= TAP_EXPLICIT_BE:
            raise ValueError(f"{negotiated} is no transfer syntax family (0 to 3)")
        tap_begin(&self.state, negotiated)

    def feed(self, const uint8_t[::1] data not None):
        """Take in the next bytes of the data set, cut anywhere."""
        cdef Py_ssize_t size = data.shape[0]
        if size > <Py_ssize_t>0xFFFFFFFF:
            raise ValueError(f"{size} bytes in one slice, at most 4 GiB")
        if size > 0:
            tap_feed(&self.state, &data[0], <uint32_t>size)

    def end(self):
        """Say that the last byte was fed."""
        tap_end(&self.state)

    def values(self):
        """The values found that are not empty, by keyword, without their padding."""
        cdef int key
        cdef Cursor value
        found = {}
        for key in range(<int>TAP_KEYS):
            value = tap_value(&self.state, key)
            if value.left > 0:
                found[KEYWORDS[key]] = <bytes>value.at[:value.left]
        return found

    @property
    def syntax(self):
        """The family the bytes are read in; the negotiated one until 8 have passed."""
        return self.state.syntax

    @property
    def sniffed(self):
        """Whether the bytes contradict the negotiated family."""
        return bool(self.state.sniffed)

    @property
    def stopped(self):
        """Whether the rest cannot be read; what was found stands."""
        return bool(self.state.stopped)

    @property
    def truncated(self):
        """Whether the data set ended inside an element or a sequence; known after `end`."""
        return bool(self.state.truncated)

    @property
    def settled(self):
        """Whether no later byte can change `values`."""
        return bool(self.state.settled)

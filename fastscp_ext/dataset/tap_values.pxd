# The values that the tap looks for: their places, and how they are taken.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.dataset.tap_state cimport (
    KEY_ACCESSION_NUMBER, KEY_INSTANCE_NUMBER, KEY_MODALITY, KEY_PATIENT_ID, KEY_SERIES_NUMBER,
    KEY_SERIES_UID, KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, KEY_STUDY_DATE, KEY_STUDY_UID,
    TAP_TEXT_BYTES, TAP_UID_BYTES, TapParse, TapState,
)


cdef inline int key_of(uint32_t tag) noexcept nogil:
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


cdef inline bint is_padding(int key, uint8_t byte) noexcept nogil:
    # A UID is seen with line ends as well.
    return (byte == c" " or byte == 0
            or is_uid(key) and (byte == c"\r" or byte == c"\n"))


# An element with a wanted value starts, `length` bytes from the byte `at` of the data set on.
cdef void value_starts(
    TapState* tap, TapParse* p, int key, uint32_t length, uint64_t at
) noexcept nogil

# What of the passing value the slice holds.
cdef void value_passes(TapState* tap, TapParse* p, Cursor passing) noexcept nogil

# Its last byte has passed.
cdef void value_ends(TapParse* p) noexcept nogil

# As it was sent, without its padding: of a UID on both sides. Of an element that has passed.
cdef Cursor raw_value(const TapState* tap, const TapParse* p, int key) noexcept nogil

# Whether the text of this bit's key holds what no text does.
cdef bint holds_controls(const TapState* tap, const TapParse* p, uint32_t bit) noexcept nogil

# Whether two parses found the same for a key, both of which have found it.
cdef bint same_value(
    const TapState* tap, const TapParse* p, const TapParse* q, int key
) noexcept nogil

# Move what a parse found to the keys' own places: it is the only one from here on.
cdef void settle_places(TapState* tap, TapParse* p) noexcept nogil

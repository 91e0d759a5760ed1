# The few wanted values out of a data set that passes in slices.
#
# The state is plain C and lives where the caller puts it. Begin, feed, end; the values live inside
# the state and stay valid until the next tap_begin. What is not ended is dropped.
#
# Theory of operation: values count at the outermost level only, so all depends on knowing the
# level. Levels are counted, never stored: even depths hold elements, odd ones the items of a
# sequence. A sequence end between the elements of an item can be read in two ways: it ends nothing
# (senders put one behind a sequence of defined length), or it ends the item, too (whose own end was
# left out). The tap then follows both readings, until what comes shows one of them to be wrong. A
# value that was found meanwhile is given back when the reading that found it falls, and where no
# reading is proved at the end. Two values of one key at the outermost level are none, for one of
# them is an item's, except SOP Class and SOP Instance UID, which the command tells as well. So a
# value is never guessed: it is found for sure, or not at all. A sequence of defined length has to
# hold items as its length and theirs say, or the tap stops: nobody knows the level at its end then.
#
# A header that can be read in several ways (an invalid VR, reserved bytes that are not zero, a
# length that spells a VR, UN of undefined length) starts as many parses, each of which goes on as
# if its way were the right one. The literal way stays as long as it can go on. Another one has to
# meet plausible headers in ascending order, or it is given up. Parses that come to the same place
# in the same state are one again. At the end the parse that assumed no fault has the values, if it
# ends where a data set may end, for then the data set is legal; otherwise a value counts only where
# all parses that end so agree. Steps are taken in the order of the bytes, so that nothing depends
# on how the data set was cut; the work for a byte is bounded by the number of parses.
# Source: PS3.5 7.1, 7.5, A.4; 6.2.2 for UN.

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.dataset.tap_state cimport (
    KEY_ACCESSION_NUMBER, KEY_INSTANCE_NUMBER, KEY_MODALITY, KEY_PATIENT_ID, KEY_SERIES_NUMBER,
    KEY_SERIES_UID, KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, KEY_STUDY_DATE, KEY_STUDY_UID,
    TAP_EXPLICIT_BE, TAP_EXPLICIT_LE, TAP_IMPLICIT_LE, TAP_KEYS, TAP_PIXELS_ENCAPSULATED,
    TAP_PIXELS_NATIVE, TAP_PIXELS_NONE, TAP_SYNTAX_UNKNOWN, TapState,
)


# negotiated: one of TAP_*. It decides only where the first 8 bytes can be read in two ways.
cdef void tap_begin(TapState* tap, int negotiated) noexcept nogil

# The next n bytes of the data set, cut anywhere; nothing of `data` is kept.
cdef void tap_feed(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil

# The last byte was fed: settles all that the caller reads. whole: it is the data set's last one.
cdef void tap_end(TapState* tap, bint whole) noexcept nogil

# Nothing more can be read behind the header in hand; what was found for sure stands.
cdef void tap_stop(TapState* tap) noexcept nogil

# Give the memory back that a state without an end may hold; harmless after the end, needless then.
cdef void tap_drop(TapState* tap) noexcept nogil

# A key's value without its padding; left == 0: absent, incomplete, empty, or found
# in a reading that is not proved yet.
cdef Cursor tap_value(const TapState* tap, int key) noexcept nogil

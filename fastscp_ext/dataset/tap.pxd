# The few wanted values out of a data set that passes in slices.
#
# The state owns nothing: plain bytes, at most 8 KiB, copyable and reusable. Begin, feed, end; the
# value spans live inside the state and stay valid until the next tap_begin.
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
# Source: PS3.5 7.1, 7.5, A.4; 6.2.2 for UN.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastscp_ext.wire.cursor cimport Cursor


cdef enum:
    TAP_SYNTAX_UNKNOWN = 0
    TAP_IMPLICIT_LE = 1
    TAP_EXPLICIT_LE = 2
    TAP_EXPLICIT_BE = 3

cdef enum TapKey:
    KEY_SOP_CLASS_UID = 0     # (0008,0016)
    KEY_SOP_INSTANCE_UID = 1  # (0008,0018)
    KEY_STUDY_DATE = 2        # (0008,0020)
    KEY_ACCESSION_NUMBER = 3  # (0008,0050)
    KEY_MODALITY = 4          # (0008,0060)
    KEY_PATIENT_ID = 5        # (0010,0020)
    KEY_STUDY_UID = 6         # (0020,000D)
    KEY_SERIES_UID = 7        # (0020,000E)
    KEY_SERIES_NUMBER = 8     # (0020,0011)
    KEY_INSTANCE_NUMBER = 9   # (0020,0013)
    TAP_KEYS = 10

# What the pixel data at the outermost level are: (7FE0,0008), (7FE0,0009) or (7FE0,0010).
cdef enum:
    TAP_PIXELS_NONE = 0          # none has been seen
    TAP_PIXELS_NATIVE = 1        # of defined length (PS3.5 A.1 to A.3)
    TAP_PIXELS_ENCAPSULATED = 2  # of undefined length, with a fragment (PS3.5 A.4)

cdef enum:
    TAP_READINGS = 8               # of the level, followed at a time
    TAP_SCAN_LIMIT = 4 << 20       # header bytes read before values are no longer looked for
    TAP_NEVER = 0xFFFFFFFF
    TAP_UID_BYTES = 256            # a value is cut there; a UID this long is refused anyway
    TAP_TEXT_BYTES = 1024
    TAP_VALUE_BYTES = 4 * 256 + 6 * 1024

# One way to read the levels up to here.
ctypedef struct TapReading:
    uint32_t depth          # open sequences and items of undefined length
    uint32_t implicit_from  # the depth from which on headers are Implicit VR; TAP_NEVER: none
    uint32_t tag            # of the last element at this depth; 0: none, or not known any more
    uint32_t outermost      # of the last element at depth 0

ctypedef struct TapState:
    # For the caller to read.
    int syntax            # the one in use; the negotiated one until 8 bytes have passed
    bint sniffed          # it contradicts the negotiated one
    bint stopped          # gave up: not readable any further, what was found stands
    bint truncated        # after tap_end: the data set ends inside an element or a sequence
    bint settled          # no later byte changes the values
    uint32_t found        # 1 << key: the element has passed completely, perhaps empty
    uint32_t conflicting  # 1 << key: it has passed with two values, neither of which is found
    uint32_t unproved     # 1 << key: a value was given back, and none has come since
    int pixels            # one of TAP_PIXELS_*: the last ones at the outermost level
    uint32_t stop_tag     # once stopped: of the element that cannot be read past; 0: not known
    uint64_t stop_at      # and where it starts, in bytes of the data set (inflated) from its start

    # The tap's own.
    uint64_t fed          # bytes
    uint64_t header_at    # where the header in hand starts, or the one of the passing value
    uint32_t header_tag   # of that header
    int before_pixels     # `pixels` when there was one reading, while there are more
    bint suspect          # the last VR was invalid: the next header decides
    bint item_opened      # the next header is the first of an item of undefined length
    int key               # whose value is passing, or -1
    uint32_t skip         # bytes of the passing value still to come
    uint32_t scanned      # header bytes, up to TAP_SCAN_LIMIT
    uint32_t last_tag
    bint begun            # the first header has passed
    bint fragments        # inside encapsulated pixel data
    bint behind_sequence  # a sequence ended last, so that a stray end here means nothing
    bint behind_pixels    # the last element was pixel data
    bint sequence_passed  # at depth 0
    bint image_described  # group 0028 at depth 0 of the shallowest reading, since the last guess
    bint image_passed     # pixel data likewise
    bint comparing        # the passing value, with one of its key that was found before
    bint differs          # it does
    uint32_t compared     # bytes of it
    uint32_t before_sequence  # found before the first sequence at depth 0
    uint32_t before_guess     # found when there was one reading, while there are more
    uint32_t count        # readings, at least one, the deepest first; depths differ
    TapReading readings[TAP_READINGS]
    uint32_t header_have  # <= header_want <= 12
    uint32_t header_want  # 8 or 12
    bint walking          # over the items of the passing value, by their lengths
    bint may_be_items     # its first bytes tell
    bint items_big        # big-endian
    uint32_t item_left    # bytes of its present item still to come
    uint8_t front_have    # bytes of an item's header in it
    uint8_t front[8]
    uint16_t sizes[TAP_KEYS]
    uint8_t header[12]
    uint8_t values[TAP_VALUE_BYTES]


# negotiated: one of TAP_*. It decides only where the first 8 bytes can be read in two ways.
cdef void tap_begin(TapState* tap, int negotiated) noexcept nogil

# The next n bytes of the data set, cut anywhere; nothing of `data` is kept.
cdef void tap_feed(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil

# The last byte was fed: settles `truncated` and `settled`. whole: it is the data set's last one.
cdef void tap_end(TapState* tap, bint whole) noexcept nogil

# Nothing more can be read behind the header in hand; what was found for sure stands.
cdef void tap_stop(TapState* tap) noexcept nogil

# A key's value without its padding; left == 0: absent, incomplete, empty, or found
# in a reading that is not proved yet.
cdef Cursor tap_value(const TapState* tap, int key) noexcept nogil

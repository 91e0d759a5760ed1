# What the tap keeps of a data set that passes: plain C, no code.
#
# A TapParse is one way to read the bytes up to here. There is one as long as every header says what
# it is; where a header can be read in several ways there are more, and all of them go on side by
# side, each with its place in the bytes. Inside one parse the level is known or followed in several
# readings, which share the place.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


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

cdef enum:
    # The keys without which nothing is stored, as bits.
    UIDS_FOUND = (
        1 << KEY_SOP_CLASS_UID | 1 << KEY_SOP_INSTANCE_UID | 1 << KEY_STUDY_UID
        | 1 << KEY_SERIES_UID
    )

# What the pixel data at the outermost level are: (7FE0,0008), (7FE0,0009) or (7FE0,0010).
cdef enum:
    TAP_PIXELS_NONE = 0          # none has been seen
    TAP_PIXELS_NATIVE = 1        # of defined length (PS3.5 A.1 to A.3)
    TAP_PIXELS_ENCAPSULATED = 2  # of undefined length, with a fragment (PS3.5 A.4)

cdef enum:
    TAP_READINGS = 8               # of the level, followed at a time by one parse
    TAP_PARSES = 8                 # followed at a time
    TAP_SLOTS = (TAP_PARSES - 1) * TAP_KEYS  # one for each value of each parse but one
    TAP_NEVER = 0xFFFFFFFF
    TAP_UID_BYTES = 256            # a value is cut there; a UID this long is refused anyway
    TAP_TEXT_BYTES = 1024
    TAP_VALUE_BYTES = 4 * 256 + 6 * 1024
    TAP_AGAIN = 32

# How the header in hand is taken where it is not taken as it says.
cdef enum TapForm:
    FORM_LITERAL
    FORM_SHORT            # a 16-bit length
    FORM_LONG             # two reserved bytes, a 32-bit length
    FORM_IMPLICIT         # this element is Implicit VR
    FORM_IMPLICIT_LEVEL   # and all others of its item
    FORM_EXPLICIT         # this element is Explicit VR
    FORM_EXPLICIT_ITEMS   # UN of undefined length, whose items are explicit
    FORM_BEFORE_LONG      # these bytes go on with the element before: its length is a 32-bit one
    FORM_BEFORE_IMPLICIT  # they are its value: it was Implicit VR

# How the level was guessed, the one that needs the least to be proved first.
cdef enum TapGuess:
    GUESS_NONE
    GUESS_STRAY     # an end that ended nothing, or an item that began in another one
    GUESS_NO_ITEMS  # a sequence without items and end; or bytes that are no elements were passed
    GUESS_ENDS      # ends of items and sequences

# One way to read the levels up to here.
ctypedef struct TapReading:
    uint32_t depth          # open sequences and items of undefined length
    uint32_t implicit_from  # the depth from which on headers are Implicit VR; TAP_NEVER: none
    uint32_t tag            # of the last element at this depth; 0: none, or not known any more
    uint32_t outermost      # of the last element at depth 0
    bint guessed            # it is where it is by a guess, which only what follows can prove

# One way to read the bytes up to here. What stands from `syntax` on decides its future: two parses
# that are alike there, in one place, are one.
ctypedef struct TapParse:
    uint32_t left         # bytes of the present slice that it has not read
    uint32_t again_have   # bytes in front of those, to be read first
    uint8_t again[TAP_AGAIN]
    uint64_t header_at    # where the header in hand starts, or the one of the passing value
    uint32_t header_tag   # of that header
    uint32_t faults       # of the data set that this way of reading assumes
    bint dead             # it cannot be read any further this way
    bint ended            # the data set has ended where one may end
    uint8_t trial         # headers that have to be plausible still, or it is given up
    uint8_t form          # one of TapForm: of the header in hand
    uint8_t kind          # one of TapForm: the fault assumed last, which may come in a row
    uint8_t header[12]
    uint8_t previous[8]   # the header before, where it said that there is no value

    int syntax            # one of TAP_*
    bint sniffed          # it contradicts the negotiated one
    bint settled          # no later byte changes the values
    uint32_t found        # 1 << key: the element has passed completely, perhaps empty
    uint32_t conflicting  # 1 << key: it has passed with two values, neither of which is found
    uint32_t unproved     # 1 << key: a value was given back, and none has come since
    uint32_t taken        # 1 << key: an end took a value back, which is still in its place
    uint32_t fresh        # 1 << key: of the value that passed last
    uint32_t shaky        # those with nothing plausible behind: their lengths may be wrong
    int unproved_for      # headers that have to come until they are proved
    uint32_t barred       # 1 << key: given back, though nothing showed that it was an item's
    bint trusted          # a fault was assumed: a length may have led into an item
    uint32_t before_fault  # what was found before
    uint32_t weak         # values that began like items and held none, where bytes may stand
    uint32_t weak_found   # what was found before the first
    uint32_t items_over   # bytes that an item in a value says to have behind the value; 0: none has
    uint64_t items_until  # where that item ends then, in bytes of the data set; 0: not known yet
    uint32_t items_found  # what was found before
    bint items_weak       # the value began like it, and is among the weak ones
    bint items_closing    # its sequence ends with it
    int pixels            # one of TAP_PIXELS_*
    int before_pixels     # when there was one reading, while there are more
    bint suspect          # the last length was taken on trust: the next header decides
    bint empty            # the last element had a 16-bit length, which was 0
    bint item_opened      # the next header is the first of an item of undefined length
    bint opened           # the last header opened a sequence of undefined length
    int key               # whose value is passing, or -1
    uint32_t skip         # bytes of the passing value still to come
    uint32_t last_tag
    bint fragments        # inside encapsulated pixel data
    bint behind_sequence  # a sequence ended last, so that a stray end here means nothing
    bint behind_pixels    # the last element was pixel data
    bint sequence_passed  # at depth 0
    bint later_passed     # an element behind group 0020 at depth 0, since the last guess
    bint image_described  # group 0028 likewise, of the shallowest reading
    bint image_passed     # pixel data likewise
    bint body_passed      # likewise what only a data set that is no image has, and no item
    bint named            # the patient or a number of the instance likewise, or before the guess
    bint ascending        # since the guess, as the tags of a data set do
    bint ordered          # the other readings fell because of tags or of an encoding
    uint32_t risen        # the last tag at depth 0, or the one before the guess
    bint unsure           # the shallowest reading is where it is by a guess
    uint32_t before_unsure  # what was found before that
    bint descended        # a tag at depth 0 did, since the data set began
    bint unsorted         # likewise, and no fault had been seen
    bint pixels_ended     # behind native ones at depth 0 stood an end that seemed to say nothing
    bint pixels_empty     # native ones at depth 0 had no bytes
    bint held             # a value at depth 0 had the start of an item in it: too long, perhaps
    uint32_t before_held  # what was found before
    bint looking          # for one in the passing value
    bint text             # of which the passing value, at depth 0, may hold none
    bint starting         # nothing of it has been looked at
    bint too_long         # it is no text as long as that: the parse dies at its end
    uint64_t window       # the last bytes of it
    uint32_t mark_front   # the number in front of the item that starts in it
    uint8_t mark_left     # bytes of that item's length still to come
    bint mark_big         # it is big-endian
    uint32_t lists_over   # bytes that a sequence in it says to have behind it; 0: none has
    uint32_t value_over   # likewise of the item by which it seems to be a sequence itself
    bint comparing        # the passing value, with one of its key that was found before
    bint differs          # it does
    uint32_t compared     # bytes of it
    uint32_t before_sequence  # found before the first sequence at depth 0
    uint32_t before_guess     # found when there was one reading, while there are more
    int guess             # one of TapGuess: the one that needs most, while a reading is guessed
    uint32_t header_have  # <= header_want <= 12
    uint32_t header_want  # 8 or 12
    bint walking          # over the items of the passing value, by their lengths
    bint may_be_items     # its first bytes tell
    bint by_tag           # no VR but the tag tells what it may hold
    bint items_big        # big-endian
    uint32_t item_left    # bytes of its present item still to come
    uint32_t front_have   # bytes of an item's header in it
    uint8_t front[8]
    uint8_t where[TAP_KEYS + 2]  # 0: the key's own place; else 1 + the slot
    uint16_t sizes[TAP_KEYS]
    uint32_t count        # readings, at least one, the deepest first; depths differ
    TapReading readings[TAP_READINGS]

# A value beside the one that has the key's place.
ctypedef struct TapSlot:
    int key
    uint32_t length       # of the element
    uint64_t at           # where it starts in the data set
    uint8_t bytes[TAP_UID_BYTES]

# Taken when there is more than one parse for the first time, given back at the end.
ctypedef struct TapMore:
    TapParse parses[TAP_PARSES - 1]
    TapSlot slots[TAP_SLOTS]

ctypedef struct TapState:
    # For the caller to read; of `tap_end`, the first four also after each `tap_feed`.
    int syntax            # the one in use; the negotiated one until 8 bytes have passed
    bint sniffed          # it contradicts the negotiated one
    bint stopped          # gave up: not readable any further, what was found stands
    bint settled          # no later byte changes the values
    bint truncated        # the data set ends inside an element or a sequence
    uint32_t found        # 1 << key: the element has passed completely, perhaps empty
    uint32_t conflicting  # 1 << key: it has passed with two values, neither of which is found
    uint32_t unproved     # 1 << key: a value was given back, and none has come since
    int pixels            # one of TAP_PIXELS_*: the last ones at the outermost level
    uint32_t stop_tag     # once stopped: of the element that cannot be read past; 0: not known
    uint64_t stop_at      # and where it starts, in bytes of the data set (inflated) from its start

    # The tap's own.
    bint begun            # the first header has passed
    uint64_t fed          # bytes
    uint32_t parses       # at least one: `first`, and those of `more`
    uint32_t agreed       # found when there was one parse, while there are more
    bint left_out         # a way to read could not be followed
    uint32_t left_found   # what was found before that
    uint32_t doubt_tag    # the header that could be read in several ways, while there are
    uint64_t doubt_at
    TapMore* more         # owned; NULL: none
    TapParse first
    uint32_t lengths[TAP_KEYS]  # of the elements whose values have their keys' places
    uint64_t places[TAP_KEYS]   # where those start in the data set
    uint8_t values[TAP_VALUE_BYTES]

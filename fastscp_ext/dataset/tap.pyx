"""The few wanted values out of a data set that passes in slices."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fastscp_ext.wire.cursor cimport (
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
from fastscp_ext.dataset.vr cimport (
    VR, VR_INVALID, VR_LONG, VR_SEQUENCE, VR_SHORT, VR_UN, VR_UNKNOWN, vr_of,
)

__all__ = [
    "EXPLICIT_BE",
    "EXPLICIT_LE",
    "IMPLICIT_LE",
    "KEYWORDS",
    "PIXELS_ENCAPSULATED",
    "PIXELS_NATIVE",
    "PIXELS_NONE",
    "SYNTAX_UNKNOWN",
    "Tap",
]

SYNTAX_UNKNOWN = TAP_SYNTAX_UNKNOWN
IMPLICIT_LE = TAP_IMPLICIT_LE
EXPLICIT_LE = TAP_EXPLICIT_LE
EXPLICIT_BE = TAP_EXPLICIT_BE

PIXELS_NONE = TAP_PIXELS_NONE
PIXELS_NATIVE = TAP_PIXELS_NATIVE
PIXELS_ENCAPSULATED = TAP_PIXELS_ENCAPSULATED

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

    ITEM_HEADER = 8  # bytes

    DEEPEST = 0xFFFFFFF0  # no stream comes here: each level has a header of eight bytes

    ALL_FOUND = (1 << TAP_KEYS) - 1


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


# Readings of the level ------------------------------------------------------------------------

cdef inline bint at_elements(const TapState* tap) noexcept nogil:
    # Else in front of an item. All readings agree: their depths differ by even numbers.
    return tap.readings[0].depth % 2 == 0


cdef inline bint reads_implicit(const TapReading* reading) noexcept nogil:
    return reading.depth >= reading.implicit_from


cdef inline TapReading* shallowest(TapState* tap) noexcept nogil:
    return &tap.readings[tap.count - 1]


cdef inline bint outermost(TapState* tap) noexcept nogil:
    # Whether some reading is at the outermost level; only one can be.
    return shallowest(tap).depth == 0


cdef void settle_if_complete(TapState* tap) noexcept nogil:
    # Behind a sequence an item end may still show that the level is wrong.
    if tap.found == ALL_FOUND and not tap.sequence_passed:
        tap.settled = True


cdef void give_back(TapState* tap, uint32_t keep) noexcept nogil:
    tap.unproved |= tap.found & ~keep
    tap.found &= keep


cdef void drop_reading(TapState* tap, uint32_t at) noexcept nogil:
    # The reading is wrong. Only the shallowest one has values of its own, and they fall with it.
    if at == tap.count - 1:
        give_back(tap, tap.before_guess)
        tap.pixels = tap.before_pixels
        tap.image_described = tap.image_passed = False
    tap.count -= 1
    while at < tap.count:
        tap.readings[at] = tap.readings[at + 1]
        at += 1
    settle_if_complete(tap)


cdef void tap_stop(TapState* tap) noexcept nogil:
    if tap.count > 1:
        give_back(tap, tap.before_guess)
        tap.pixels = tap.before_pixels
    if not tap.stopped:
        tap.stop_tag = tap.header_tag
        tap.stop_at = tap.header_at
    tap.stopped = True
    tap.settled = True


cdef void enter(TapState* tap, bint implicit) noexcept nogil:
    # One level down, in every reading; implicit: Implicit VR from there on.
    cdef uint32_t n
    cdef TapReading* reading
    for n in range(tap.count):
        reading = &tap.readings[n]
        if reading.depth >= DEEPEST:
            tap_stop(tap)
            return
        reading.depth += 1
        reading.tag = 0
        if implicit and not reads_implicit(reading):
            reading.implicit_from = reading.depth


cdef void leave(TapReading* reading, uint32_t levels) noexcept nogil:
    reading.depth -= levels
    if reading.depth < reading.implicit_from:
        reading.implicit_from = TAP_NEVER
    reading.tag = reading.outermost if reading.depth == 0 else 0


cdef void add_reading(
    TapState* tap, TapReading* readings, uint32_t* count, const TapReading* reading
) noexcept nogil:
    # Two that came to one depth have one future, and no values but those that both may claim.
    cdef TapReading* last
    if count[0] and readings[count[0] - 1].depth == reading.depth:
        last = &readings[count[0] - 1]
        if last.implicit_from != reading.implicit_from:
            tap_stop(tap)
        last.outermost = min(last.outermost, reading.outermost)
        last.tag = last.outermost if last.depth == 0 else 0
        give_back(tap, tap.before_guess)
        tap.pixels = tap.before_pixels
    elif count[0] == TAP_READINGS:
        tap_stop(tap)
    else:
        readings[count[0]] = reading[0]
        count[0] += 1


cdef void fork(TapState* tap) noexcept nogil:
    # A sequence end between elements: it ends nothing, or the item and its sequence.
    cdef TapReading readings[TAP_READINGS]
    cdef TapReading ended
    cdef uint32_t count = 0
    cdef uint32_t n
    if tap.count == 1:
        tap.before_guess = tap.found
        tap.before_pixels = tap.pixels
    tap.image_described = tap.image_passed = False
    for n in range(tap.count):
        add_reading(tap, readings, &count, &tap.readings[n])
        if tap.readings[n].depth > 0:
            ended = tap.readings[n]
            leave(&ended, 2)
            add_reading(tap, readings, &count, &ended)
    if tap.stopped:
        return
    for n in range(count):
        tap.readings[n] = readings[n]
    tap.count = count


cdef void stray_end(TapState* tap) noexcept nogil:
    # A delimiter came at the outermost level, and no sequence in front of it: the level is wrong.
    # What was found since a sequence passed may be an item's.
    if tap.count > 1:
        drop_reading(tap, tap.count - 1)
    elif tap.sequence_passed:
        # A value that was found before and met another one since is there still.
        give_back(tap, tap.before_sequence)
        tap.found = tap.before_sequence
        tap.pixels = TAP_PIXELS_NONE
        tap.conflicting = 0


cdef void judge_order(TapState* tap, uint32_t tag) noexcept nogil:
    # Tags ascend in a data set and in an item (PS3.5 7.1). Where they do in one reading and not in
    # another, the other one is wrong; unsorted data sets are seen, so that alone proves nothing.
    cdef uint32_t ascending = 0
    cdef uint32_t n
    for n in range(tap.count):
        ascending += tag > tap.readings[n].tag
    if ascending == 0:
        return
    n = tap.count
    while n > 0:
        n -= 1
        if tag <= tap.readings[n].tag:
            drop_reading(tap, n)


cdef void judge_encoding(TapState* tap) noexcept nogil:
    # Some readings are inside implicit items, others outside: the header tells.
    cdef Cursor c = cursor_over(tap.header, SNIFF_BYTES)
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    cdef uint32_t length = 0
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef bint implicit
    cdef uint32_t n
    cdef VR vr
    take_u16_le(&c, &group)
    take_u16_le(&c, &element)
    peek_u8(&c, 0, &first)
    peek_u8(&c, 1, &second)
    take_u32_le(&c, &length)
    vr = vr_of(first, second)
    if group == GROUP_DELIMITER:
        # Little endian: where the data set is, too, both read it alike.
        if tap.syntax != TAP_EXPLICIT_BE:
            return
        implicit = True
    elif vr != VR_INVALID and vr != VR_UNKNOWN:
        implicit = False
    elif reads_as_implicit(group, length):
        implicit = True
    else:
        implicit = False
    n = tap.count
    while n > 0:
        n -= 1
        if reads_implicit(&tap.readings[n]) != implicit:
            drop_reading(tap, n)


cdef bint readings_disagree(const TapState* tap) noexcept nogil:
    cdef uint32_t n
    for n in range(1, tap.count):
        if reads_implicit(&tap.readings[n]) != reads_implicit(&tap.readings[0]):
            return True
    return False


# Headers --------------------------------------------------------------------------------------

cdef void value_passed(TapState* tap) noexcept nogil:
    cdef uint32_t bit = <uint32_t>1 << tap.key
    tap.key = -1
    if not tap.comparing:
        tap.found |= bit
        tap.unproved &= ~bit
        settle_if_complete(tap)
        return
    tap.comparing = False
    if not tap.differs:
        return
    # Two values of a key at one level: one of them is not the instance's.
    if tap.count > 1:
        drop_reading(tap, tap.count - 1)
    else:
        tap.found &= ~bit
        tap.conflicting |= bit


cdef void take_delimiter(TapState* tap, uint32_t tag, uint32_t length) noexcept nogil:
    # An item or an end (FFFE,xxxx). The length of an end is 0 and never looked at.
    cdef bint elements = at_elements(tap)
    cdef bint behind = tap.behind_sequence
    cdef uint32_t n
    tap.behind_sequence = tag != ITEM
    if tag == ITEM and not elements:
        if length != UNDEFINED_LENGTH:
            tap.skip = length
            if tap.fragments and tap.behind_pixels and shallowest(tap).depth == 1:
                tap.pixels = TAP_PIXELS_ENCAPSULATED
        elif tap.fragments:
            tap_stop(tap)
        else:
            enter(tap, False)
            tap.item_opened = True
    elif tag == ITEM_END and not tap.fragments:
        # Behind an item of defined length it ends nothing: seen, harmless.
        if not elements:
            return
        # Also behind a sequence: that may be the last element of the item which ends here.
        if outermost(tap):
            stray_end(tap)
        for n in range(tap.count):
            if tap.readings[n].depth > 0:
                leave(&tap.readings[n], 1)
    elif tag == SEQUENCE_END:
        if not elements:
            tap.fragments = False
            for n in range(tap.count):
                leave(&tap.readings[n], 1)
            return
        # Behind native pixel data it stands where the end of encapsulated ones would.
        if outermost(tap) and not behind:
            tap.behind_sequence = False
            if not tap.behind_pixels:
                stray_end(tap)
        fork(tap)
    else:
        if elements and outermost(tap):
            stray_end(tap)
        tap_stop(tap)


cdef void note_sequence(TapState* tap) noexcept nogil:
    # If its length is wrong, what follows at this level may be an item's.
    if outermost(tap) and not tap.sequence_passed:
        tap.sequence_passed = True
        tap.before_sequence = tap.found


cdef void note_element(TapState* tap, uint32_t tag, bint is_pixels, bint defined) noexcept nogil:
    cdef TapReading* reading
    cdef uint32_t group = tag >> 16
    cdef uint32_t n
    if tap.count > 1:
        judge_order(tap, tag)
    for n in range(tap.count):
        reading = &tap.readings[n]
        reading.tag = tag
        if reading.depth == 0:
            reading.outermost = tag
    if outermost(tap):
        if group == 0x0028:
            tap.image_described = True
        elif is_pixels:
            tap.image_passed = True
            tap.pixels = TAP_PIXELS_NATIVE if defined else TAP_PIXELS_NONE


cdef void take_element(TapState* tap, uint32_t tag, VR vr, uint32_t length) noexcept nogil:
    cdef bint is_pixels = (tag == PIXEL_DATA or tag == FLOAT_PIXEL_DATA
                           or tag == DOUBLE_FLOAT_PIXEL_DATA)
    cdef bint implicit
    cdef int key
    note_element(tap, tag, is_pixels, length != UNDEFINED_LENGTH)
    implicit = reads_implicit(&tap.readings[0])
    tap.last_tag = tag
    # Without a VR only the value shows whether it is items.
    tap.behind_sequence = vr == VR_SEQUENCE or length == 0 and (implicit or vr == VR_UN)
    tap.behind_pixels = is_pixels
    if vr == VR_SEQUENCE or length == UNDEFINED_LENGTH:
        note_sequence(tap)
    if length == UNDEFINED_LENGTH:
        tap.fragments = is_pixels or vr == VR_LONG
        enter(tap, vr == VR_UN)
        return
    tap.skip = length
    tap.front_have = 0
    tap.item_left = 0
    tap.walking = vr == VR_SEQUENCE and length > 0 and not tap.settled
    tap.may_be_items = length >= ITEM_HEADER and (implicit or vr == VR_UN)
    tap.items_big = tap.syntax == TAP_EXPLICIT_BE and not tap.may_be_items
    if tap.settled or not outermost(tap):
        return
    key = key_of(tag)
    if key < 0 or tap.conflicting & (<uint32_t>1 << key):
        return
    if tap.found & (<uint32_t>1 << key):
        if length == 0 or key == KEY_SOP_CLASS_UID or key == KEY_SOP_INSTANCE_UID:
            return
        tap.comparing = True
        tap.differs = False
        tap.compared = 0
        tap.key = key
        return
    tap.key = key
    tap.sizes[key] = 0
    if length == 0:
        value_passed(tap)


cdef void take_header(TapState* tap) noexcept nogil:
    # The header is as long as it was wanted: asks for 12 bytes, or takes it in and starts anew.
    cdef Cursor c = cursor_over(tap.header, tap.header_have)
    cdef bint implicit
    cdef bint big
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
    cdef uint32_t n
    if tap.count > 1 and readings_disagree(tap):
        judge_encoding(tap)
    implicit = reads_implicit(&tap.readings[0])
    big = tap.syntax == TAP_EXPLICIT_BE and not implicit
    if big:
        take_u16_be(&c, &group)
        take_u16_be(&c, &element)
    else:
        take_u16_le(&c, &group)
        take_u16_le(&c, &element)
    tag = tap.header_tag = (<uint32_t>group << 16) | element
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
        if tap.count > 1:
            give_back(tap, tap.before_guess)
            tap.pixels = tap.before_pixels
            tap.count = 1
        tap.settled = True
    tap.header_have = 0
    tap.header_want = 8
    tap.suspect = False
    tap.item_opened = False
    if group == GROUP_DELIMITER:
        take_delimiter(tap, tag, length)
        return
    if not at_elements(tap):
        tap_stop(tap)
        return
    if vr == VR_INVALID:
        # Private sequences with implicit items inside explicit data sets are seen.
        if item_opened and not big:
            take_u32_le(&vr_and_length, &length)
            if reads_as_implicit(group, length):
                for n in range(tap.count):
                    tap.readings[n].implicit_from = tap.readings[n].depth
                take_element(tap, tag, VR_UNKNOWN, length)
                return
            length = short_length
        tap.suspect = True
    if (suspect and (vr == VR_INVALID or vr == VR_UNKNOWN)
            and (tag <= tap.last_tag or tag >> 16 != tap.last_tag >> 16)):
        # The 16-bit length taken on trust has led to something that is no header.
        tap_stop(tap)
        return
    take_element(tap, tag, vr, length)


cdef void take_items(TapState* tap, Cursor passing) noexcept nogil:
    # Of a sequence of defined length, what the slice holds: items, up to its very end. An item of
    # undefined length ends by a delimiter, which its length does not tell.
    cdef Cursor c
    cdef uint32_t n
    cdef uint32_t left
    cdef uint32_t tag
    cdef uint32_t length = 0
    while passing.left and (tap.walking or tap.may_be_items):
        n = tap.item_left if tap.item_left < passing.left else passing.left
        skip(&passing, n)
        tap.item_left -= n
        tap.front_have = <uint8_t>collect(&passing, tap.front, tap.front_have, ITEM_HEADER)
        if tap.front_have < ITEM_HEADER:
            break
        tap.front_have = 0
        c = cursor_over(tap.front, ITEM_HEADER)
        tag = take_item_header(&c, tap.items_big, &length)
        if tap.may_be_items:
            # No VR stood in front of it, or UN, whose items are implicit (PS3.5 6.2.2).
            tap.may_be_items = False
            tap.behind_sequence = tag == ITEM
            if tag != ITEM:
                return
            note_sequence(tap)
            tap.walking = not tap.settled
            if not tap.walking:
                return
        left = tap.skip + passing.left
        if tag == ITEM and length == UNDEFINED_LENGTH:
            tap.walking = False
        elif tag == ITEM and length <= left:
            tap.item_left = length
        elif not (tag == ITEM_END or tag == SEQUENCE_END and left == 0):
            tap_stop(tap)
            return
    if tap.skip == 0:
        if tap.walking and tap.front_have > 0:
            tap_stop(tap)
        tap.walking = tap.may_be_items = False


cdef uint32_t tag_of(const uint8_t* header, bint big) noexcept nogil:
    cdef Cursor c = cursor_over(header, ITEM_HEADER)
    cdef uint32_t length = 0
    return take_item_header(&c, big, &length)


cdef uint32_t take_item_header(Cursor* c, bint big, uint32_t* length) noexcept nogil:
    # The tag.
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    if big:
        take_u16_be(c, &group)
        take_u16_be(c, &element)
        take_u32_be(c, length)
    else:
        take_u16_le(c, &group)
        take_u16_le(c, &element)
        take_u32_le(c, length)
    return (<uint32_t>group << 16) | element


cdef void compare(TapState* tap, Cursor passing) noexcept nogil:
    # With the value of this key that was found first; padding does not count.
    cdef Cursor known = first_value(tap, tap.key)
    cdef uint8_t ours = 0
    cdef uint8_t byte = 0
    cdef uint32_t room = room_of(tap.key)
    while tap.compared < room and take_u8(&passing, &byte):
        if peek_u8(&known, tap.compared, &ours):
            if byte != ours:
                tap.differs = True
        elif byte != c" " and byte != 0:
            tap.differs = True
        tap.compared += 1
    if tap.skip == 0 and tap.compared < known.left:
        tap.differs = True


cdef void take_value(TapState* tap, Cursor* c) noexcept nogil:
    # What of the passing value the slice holds; its first bytes are kept if it is wanted.
    cdef uint32_t n = tap.skip if tap.skip < c.left else c.left
    cdef uint32_t have
    cdef uint32_t keep
    cdef Cursor passing = cursor_over(NULL, 0)
    take_span(c, n, &passing)
    tap.skip -= n
    if tap.walking or tap.may_be_items:
        take_items(tap, passing)
    if tap.key < 0:
        return
    if tap.comparing:
        compare(tap, passing)
        if tap.skip == 0:
            value_passed(tap)
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
    tap.pixels = tap.before_pixels = TAP_PIXELS_NONE
    tap.stop_tag = 0
    tap.stop_at = 0
    tap.fed = 0
    tap.header_at = 0
    tap.header_tag = 0
    tap.suspect = False
    tap.item_opened = False
    tap.key = -1
    tap.skip = 0
    tap.scanned = 0
    tap.last_tag = 0
    tap.begun = False
    tap.fragments = False
    tap.behind_sequence = False
    tap.behind_pixels = False
    tap.sequence_passed = False
    tap.image_passed = False
    tap.image_described = False
    tap.unproved = 0
    tap.comparing = False
    tap.before_sequence = 0
    tap.before_guess = 0
    tap.conflicting = 0
    tap.count = 1
    tap.readings[0].depth = 0
    tap.readings[0].implicit_from = TAP_NEVER
    tap.readings[0].tag = 0
    tap.readings[0].outermost = 0
    tap.header_have = 0
    tap.header_want = SNIFF_BYTES
    tap.front_have = 0
    tap.walking = False
    tap.may_be_items = False


cdef void begin_reading(TapState* tap) noexcept nogil:
    cdef int syntax = sniff(tap.header, tap.syntax)
    tap.begun = True
    if syntax < 0:
        tap.header_tag = tag_of(tap.header, tap.syntax == TAP_EXPLICIT_BE)
        tap_stop(tap)
        return
    tap.sniffed = tap.syntax != TAP_SYNTAX_UNKNOWN and syntax != tap.syntax
    tap.syntax = syntax
    if syntax == TAP_IMPLICIT_LE:
        tap.readings[0].implicit_from = 0


cdef void tap_feed(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef Cursor c = cursor_over(data, n)
    tap.fed += n
    while c.left > 0 and not tap.stopped:
        if tap.skip > 0:
            take_value(tap, &c)
            continue
        tap.header_have = collect(&c, tap.header, tap.header_have, tap.header_want)
        if tap.header_have < tap.header_want:
            return
        tap.header_at = tap.fed - c.left - tap.header_have
        if not tap.begun:
            begin_reading(tap)
            if tap.stopped:
                return
        take_header(tap)


cdef void tap_end(TapState* tap, bint whole) noexcept nogil:
    cdef bint inside = not whole or tap.header_have > 0 or tap.skip > 0
    tap.settled = True
    if tap.stopped:
        return
    if tap.count > 1:
        # The end proves the one reading in which it stands at the outermost level, if that level
        # has held a whole image. Else an item was cut, perhaps, and nothing is proved.
        if inside or not outermost(tap) or not (tap.image_described and tap.image_passed):
            give_back(tap, tap.before_guess)
            tap.pixels = tap.before_pixels
        tap.readings[0] = shallowest(tap)[0]
        tap.count = 1
    tap.truncated = inside or not outermost(tap)


cdef Cursor tap_value(const TapState* tap, int key) noexcept nogil:
    cdef Cursor value
    cdef uint8_t byte = 0
    cdef uint32_t sure = tap.found if tap.count == 1 else tap.found & tap.before_guess
    if not sure & (<uint32_t>1 << key):
        return cursor_over(&tap.values[place_of(key)], 0)
    value = first_value(tap, key)
    if not is_uid(key):
        while peek_u8(&value, 0, &byte) and byte == c" ":
            skip(&value, 1)
    return value


cdef Cursor first_value(const TapState* tap, int key) noexcept nogil:
    # Of an element that has passed, without the padding behind it. All of them have one value
    # (PS3.6), in which 5C may be the second byte of a character (GB18030, Shift JIS).
    cdef Cursor value = cursor_over(&tap.values[place_of(key)], tap.sizes[key])
    cdef uint8_t byte = 0
    while (value.left > 0 and peek_u8(&value, value.left - 1, &byte)
           and (byte == c" " or byte == 0)):
        value.left -= 1
    return value


@cython.final
cdef class Tap:
    """The tap as Python sees it. See tap.pyi."""

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

    def end(self, bint whole=True):
        """Say that the last byte was fed. whole: it is the data set's last one."""
        tap_end(&self.state, whole)

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
    def stop_tag(self):
        """Once stopped, the tag of the element that cannot be read past; 0 where none is known."""
        return self.state.stop_tag

    @property
    def stop_at(self):
        """Once stopped, where that element starts: bytes from the start of the data set."""
        return self.state.stop_at

    @property
    def pixels(self):
        """PIXELS_NONE, PIXELS_NATIVE or PIXELS_ENCAPSULATED: what the outermost level holds."""
        return self.state.pixels

    @property
    def truncated(self):
        """Whether the data set ended inside an element or a sequence; known after `end`."""
        return bool(self.state.truncated)

    @property
    def settled(self):
        """Whether no later byte can change `values`."""
        return bool(self.state.settled)

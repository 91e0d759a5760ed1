"""One way to read a data set, header by header."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove

from fastscp_ext.wire.cursor cimport Cursor, collect, cursor_over, skip, take_span, take_u8
from fastscp_ext.dataset.tap_doubt cimport (
    bear_out_values, bears_out, doubt, is_doubtful, judge_value, stands_trial,
)
from fastscp_ext.dataset.tap_forks cimport fork_parse, position_of, read_again
from fastscp_ext.dataset.tap_headers cimport (
    GROUP_DELIMITER, HEADER, ITEM, ITEM_END, LONG_HEADER, SEQUENCE_END, UNDEFINED_LENGTH,
    TapHeader, is_body, is_pixel_data, sniff, spells_text, take_tag, take_u16,
)
from fastscp_ext.dataset.tap_items cimport look_for_items, note_sequence, take_items
from fastscp_ext.dataset.tap_levels cimport (
    assume_fault, at_elements, die, doubt_level, enter, fork_readings, fork_without_item,
    judge_descent, judge_encoding, judge_item_end, judge_order, leave, leave_item, note_evidence,
    outermost, readings_disagree, shallowest, stray_end,
)
from fastscp_ext.dataset.tap_read cimport read_header
from fastscp_ext.dataset.tap_state cimport (
    FORM_EXPLICIT, FORM_EXPLICIT_ITEMS, FORM_IMPLICIT, FORM_IMPLICIT_LEVEL, FORM_LITERAL,
    FORM_LONG, FORM_SHORT, GUESS_NO_ITEMS, TAP_EXPLICIT_BE, TAP_IMPLICIT_LE,
    TAP_PIXELS_ENCAPSULATED, TAP_PIXELS_NATIVE, TAP_PIXELS_NONE, TAP_SYNTAX_UNKNOWN, UIDS_FOUND,
    TapParse, TapState,
)
from fastscp_ext.dataset.tap_values cimport key_of, value_ends, value_passes, value_starts
from fastscp_ext.dataset.vr cimport (
    VR, VR_INVALID, VR_LONG, VR_SEQUENCE, VR_SHORT, VR_UN, VR_UNKNOWN, vr_of,
)

__all__ = []


# Items and ends -------------------------------------------------------------------------------

cdef void item_starts(TapParse* p, uint32_t length) noexcept nogil:
    if length != UNDEFINED_LENGTH:
        p.skip = length
        if p.fragments and p.behind_pixels and shallowest(p).depth == 1:
            p.pixels = TAP_PIXELS_ENCAPSULATED
    elif p.fragments:
        die(p)
    else:
        enter(p, False)
        p.item_opened = True


cdef inline bint is_level_open_to_doubt(const TapParse* p) noexcept nogil:
    # A value was perhaps so long that it led into an item: then an end says that it was.
    return p.held and p.count == 1


cdef void take_delimiter(TapParse* p, uint32_t tag, uint32_t length) noexcept nogil:
    # An item or an end (FFFE,xxxx). The length of an end is 0 and never looked at.
    cdef bint elements = at_elements(p)
    cdef bint behind = p.behind_sequence
    cdef uint32_t n
    if p.trial and not (
        elements and tag == ITEM_END and not (outermost(p) and p.count == 1)
        or not elements and (tag == ITEM or tag == SEQUENCE_END)
    ):
        die(p)
        return
    p.behind_sequence = tag != ITEM
    if tag == ITEM:
        if not elements or leave_item(p):
            item_starts(p, length)
        else:
            stray_end(p)
            die(p)
    elif tag == ITEM_END and not p.fragments:
        # Behind an item of defined length it ends nothing: seen, harmless.
        if not elements:
            return
        # Also behind a sequence: that may be the last element of the item which ends here.
        if outermost(p):
            stray_end(p)
        for n in range(p.count):
            if p.readings[n].depth > 0:
                leave(&p.readings[n], 1)
    elif tag == SEQUENCE_END:
        if not elements:
            p.fragments = False
            for n in range(p.count):
                leave(&p.readings[n], 1)
            return
        # Behind native pixel data it stands where the end of encapsulated ones would.
        if outermost(p) and (not behind or is_level_open_to_doubt(p)):
            p.behind_sequence = False
            if not p.behind_pixels or is_level_open_to_doubt(p):
                stray_end(p)
            else:
                p.pixels_ended = True
        fork_readings(p)
    else:
        if elements and outermost(p):
            stray_end(p)
        die(p)


# Elements -------------------------------------------------------------------------------------

cdef void note_element(TapParse* p, uint32_t tag, uint32_t length) noexcept nogil:
    cdef uint32_t n
    if p.count > 1:
        judge_order(p, tag)
    if outermost(p) and tag < shallowest(p).outermost:
        judge_descent(p)
    for n in range(p.count):
        p.readings[n].tag = tag
    if not outermost(p):
        return
    if (tag <= shallowest(p).outermost or p.faults) and (
        not p.image_described and not p.body_passed or key_of(tag) >= 0
    ):
        p.descended = True
    if p.unsure:
        note_evidence(p, tag)
    shallowest(p).outermost = tag
    if tag >= 0x00280000:
        p.later_passed = True
        if tag >> 16 == 0x0028:
            p.image_described = True
        elif is_pixel_data(tag):
            p.image_passed = True
            p.pixels_empty = length == 0
            p.pixels = TAP_PIXELS_NONE if length == UNDEFINED_LENGTH else TAP_PIXELS_NATIVE
        elif is_body(tag):
            p.body_passed = True


cdef inline bint may_lead_into_an_item(const TapParse* p) noexcept nogil:
    # A length that is too long; then what is found behind it is another's.
    return outermost(p) and not p.settled and p.found & UIDS_FOUND != UIDS_FOUND


cdef inline void look_into_value(TapParse* p, const TapHeader* h, bint by_look) noexcept nogil:
    # Whether it holds the start of an item. Behind a sequence that tells of a value with a VR only
    # in a text, where it cannot be: the first sequence tells what an end takes back.
    p.text = by_look or p.form == FORM_LITERAL and spells_text(p)
    p.looking = p.text or not p.sequence_passed and not p.held
    p.starting = True


cdef void take_element(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
    cdef uint32_t length = h.length
    cdef bint by_look = h.implicit or h.vr == VR_UN
    cdef int key
    if h.tag >> 16 != 0:
        # No element of a data set has group 0: such a one says nothing of the order.
        note_element(p, h.tag, length)
        p.last_tag = h.tag
    # Without a VR only the value shows whether it is items.
    p.behind_sequence = h.vr == VR_SEQUENCE or length == 0 and by_look
    p.behind_pixels = is_pixel_data(h.tag)
    if h.vr == VR_SEQUENCE or length == UNDEFINED_LENGTH:
        note_sequence(p)
    if length == UNDEFINED_LENGTH:
        p.fragments = p.behind_pixels or h.vr == VR_LONG
        p.opened = not p.fragments
        enter(p, h.vr == VR_UN and p.form != FORM_EXPLICIT_ITEMS)
        return
    p.skip = length
    p.front_have = 0
    p.item_left = 0
    p.walking = h.vr == VR_SEQUENCE and length > 0 and not p.settled
    p.may_be_items = length >= HEADER and by_look
    p.by_tag = by_look
    p.items_big = p.syntax == TAP_EXPLICIT_BE and not p.may_be_items
    p.looking = p.too_long = False
    if length > HEADER and h.vr != VR_SEQUENCE and may_lead_into_an_item(p):
        look_into_value(p, h, by_look)
    if p.settled or not outermost(p):
        return
    key = key_of(h.tag)
    if key >= 0:
        value_starts(tap, p, key, length, p.header_at + h.size)


# Headers --------------------------------------------------------------------------------------

cdef bint find_level(TapParse* p, TapHeader* h) noexcept nogil:
    # An element where an item must be. False: more bytes are needed, or it is dead.
    if p.fragments or p.trial:
        die(p)
        return False
    fork_without_item(p)
    if p.dead:
        return False
    if readings_disagree(p):
        judge_encoding(p)
    return read_header(p, h)


cdef void header_taken(TapParse* p) noexcept nogil:
    p.header_have = 0
    p.header_want = HEADER
    p.form = FORM_LITERAL


cdef void delimiter_taken(TapParse* p, const TapHeader* h) noexcept nogil:
    header_taken(p)
    p.suspect = p.empty = p.item_opened = False
    p.fresh = 0
    take_delimiter(p, h.tag, h.length)
    p.opened = False


cdef void take_header(TapState* tap, TapParse* p) noexcept nogil:
    cdef TapHeader h
    cdef bint suspect = p.suspect
    cdef uint32_t n
    if p.count > 1 and readings_disagree(p):
        judge_encoding(p)
    if not read_header(p, &h):
        return
    p.header_tag = h.tag
    if p.items_over:
        judge_item_end(p, p.header_at, h.tag >> 16 == GROUP_DELIMITER)
    if h.implicit and h.tag >> 16 == 0:
        # Never inside a data set. Zeros read like that, and lead to anything.
        if tap.parses > 1:
            die(p)
            return
        assume_fault(p)
    if h.tag >> 16 == GROUP_DELIMITER:
        delimiter_taken(p, &h)
        return
    if not at_elements(p):
        if not find_level(p, &h):
            return
        if h.tag >> 16 == GROUP_DELIMITER:
            # Which it is in the byte order of the level that was found.
            delimiter_taken(p, &h)
            return
    if suspect and not bears_out(p, &h):
        die(p)
        return
    p.suspect = False
    if (p.fresh or p.shaky) and p.form == FORM_LITERAL and p.trial == 0:
        judge_value(tap, p, &h)
    if p.form != FORM_LITERAL:
        pass
    elif p.trial:
        if not stands_trial(tap, p, &h):
            return
        bear_out_values(p)
    elif is_doubtful(p, &h):
        doubt(tap, p, &h)
    if p.form == FORM_IMPLICIT_LEVEL:
        for n in range(p.count):
            p.readings[n].implicit_from = p.readings[n].depth
    if p.header_have > h.size:
        read_again(p, p.header_have - h.size)
    p.item_opened = p.opened = False
    p.empty = h.vr == VR_SHORT and h.length == 0
    if p.empty:
        memcpy(p.previous, p.header, HEADER)
    if h.tag >> 16 == 0 and (h.implicit or h.vr == VR_INVALID):
        doubt_level(p, GUESS_NO_ITEMS)
    take_element(tap, p, &h)
    header_taken(p)


# Values ---------------------------------------------------------------------------------------

cdef void take_value(TapState* tap, TapParse* p, Cursor* c) noexcept nogil:
    # What of the passing value the slice holds.
    cdef uint32_t n = p.skip if p.skip < c.left else c.left
    cdef Cursor passing = cursor_over(NULL, 0)
    take_span(c, n, &passing)
    p.skip -= n
    cdef Cursor behind = passing
    if p.may_be_items:
        # Whether these are items, take_items tells.
        n = HEADER - p.front_have
        skip(&behind, n if n < behind.left else behind.left)
    if p.walking or p.may_be_items:
        take_items(p, passing)
    if p.looking:
        look_for_items(p, behind)
    if p.skip == 0 and p.too_long:
        die(p)
    if p.key < 0 or p.dead:
        return
    value_passes(tap, p, passing)
    if p.skip == 0:
        value_ends(p)


# Steps ----------------------------------------------------------------------------------------

cdef int first_form(const TapParse* p, int syntax) noexcept nogil:
    # Of the first header, in another family than it seems to be; its bytes tell two stories.
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    cdef VR vr
    if syntax == TAP_IMPLICIT_LE:
        return FORM_IMPLICIT
    skip(&c, 4)
    take_u8(&c, &first)
    take_u8(&c, &second)
    vr = vr_of(first, second)
    if vr != VR_INVALID and vr != VR_UNKNOWN:
        return FORM_EXPLICIT
    if vr == VR_UNKNOWN and take_u16(&c, False) == 0:
        return FORM_LONG
    return FORM_SHORT


cdef void begin_reading(TapState* tap, TapParse* p) noexcept nogil:
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef int also = -1
    cdef int syntax = sniff(p.header, p.syntax, &also)
    cdef int negotiated = p.syntax
    cdef TapParse* q
    tap.begun = True
    p.header_tag = take_tag(&c, p.syntax == TAP_EXPLICIT_BE)
    if syntax < 0:
        die(p)
        return
    if also >= 0:
        tap.doubt_tag = p.header_tag
        q = fork_parse(tap, p, first_form(p, also))
        if q != NULL:
            set_syntax(q, also, negotiated)
            if also == negotiated:
                # What was agreed on is no fault.
                q.faults = 0
                q.trusted = False
    set_syntax(p, syntax, negotiated)


cdef void set_syntax(TapParse* p, int syntax, int negotiated) noexcept nogil:
    p.syntax = syntax
    p.sniffed = negotiated != TAP_SYNTAX_UNKNOWN and syntax != negotiated
    if syntax == TAP_IMPLICIT_LE:
        p.readings[0].implicit_from = 0


cdef inline void collect_header(TapParse* p, Cursor* c) noexcept nogil:
    # Copies of a known size are one instruction.
    cdef Cursor part = cursor_over(NULL, 0)
    if p.header_have == 0 and take_span(c, HEADER, &part):
        memcpy(p.header, part.at, HEADER)
        p.header_have = HEADER
    elif p.header_have == HEADER and take_span(c, LONG_HEADER - HEADER, &part):
        memcpy(&p.header[HEADER], part.at, LONG_HEADER - HEADER)
        p.header_have = LONG_HEADER
    else:
        p.header_have = collect(c, p.header, p.header_have, p.header_want)


cdef void run_alone(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef TapParse* p = &tap.first
    cdef Cursor c = cursor_over(data, n)
    cdef uint32_t amount
    skip(&c, n - p.left)
    while c.left > 0 and not p.dead:
        if p.skip > 0:
            if p.key < 0 and not p.walking and not p.may_be_items and not p.looking:
                amount = p.skip if p.skip < c.left else c.left
                skip(&c, amount)
                p.skip -= amount
            else:
                take_value(tap, p, &c)
            continue
        collect_header(p, &c)
        if p.header_have < p.header_want:
            break
        p.left = c.left
        p.header_at = tap.fed - c.left - p.header_have
        if not tap.begun:
            begin_reading(tap, p)
            if p.dead:
                break
        take_header(tap, p)
        if tap.parses > 1 or p.again_have > 0:
            return
    p.left = c.left


cdef uint32_t bytes_to_step(const TapParse* p) noexcept nogil:
    cdef uint32_t n
    if p.skip == 0:
        return p.header_want - p.header_have
    if not p.walking and not p.may_be_items:
        return p.skip
    n = p.item_left if p.item_left > 0 else HEADER - p.front_have
    return n if n < p.skip else p.skip


cdef void read_piece(TapState* tap, TapParse* p, Cursor* c) noexcept nogil:
    if p.skip > 0:
        take_value(tap, p, c)
    else:
        p.header_have = collect(c, p.header, p.header_have, p.header_want)


cdef void advance(
    TapState* tap, TapParse* p, const uint8_t* data, uint32_t n, uint32_t amount
) noexcept nogil:
    cdef bint header = p.skip == 0
    cdef uint32_t part = amount if amount < p.again_have else p.again_have
    cdef Cursor c
    if part > 0:
        c = cursor_over(p.again, part)
        read_piece(tap, p, &c)
        p.again_have -= part
        memmove(&p.again[0], &p.again[part], p.again_have)
        amount -= part
    if amount > 0 and not p.dead:
        c = cursor_over(data, n)
        skip(&c, n - p.left)
        c.left = amount
        read_piece(tap, p, &c)
        p.left -= amount
    if header and p.header_have == p.header_want and not p.dead:
        p.header_at = position_of(tap, p) - p.header_have
        take_header(tap, p)

"""One way to read a data set, header by header."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove

from fastscp_ext.wire.cursor cimport Cursor, collect, cursor_over, skip, take_span, take_u8
from fastscp_ext.dataset.tap_forks cimport fork_parse, leave_out, position_of, read_again
from fastscp_ext.dataset.tap_headers cimport (
    GROUP_DELIMITER, HEADER, ITEM, ITEM_END, LONGEST_GUESS, LONG_HEADER, SEQUENCE_END,
    UNDEFINED_LENGTH, TapHeader, hides_a_tag, is_header, is_pixel_data, is_placed, is_plausible,
    may_hold_bytes, may_spell_vr, read_before, reads_as_implicit, sniff, spells_vr, take_tag,
    take_u16, take_u32,
)
from fastscp_ext.dataset.tap_levels cimport (
    assume_fault, at_elements, die, enter, fork_readings, fork_without_item, judge_encoding,
    judge_order, leave, leave_item, outermost, readings_disagree, reads_implicit, shallowest,
    stray_end,
)
from fastscp_ext.dataset.tap_state cimport (
    FORM_BEFORE_IMPLICIT, FORM_BEFORE_LONG, FORM_EXPLICIT, FORM_EXPLICIT_ITEMS, FORM_IMPLICIT,
    FORM_IMPLICIT_LEVEL, FORM_LITERAL, FORM_LONG, FORM_SHORT, TAP_EXPLICIT_BE, TAP_IMPLICIT_LE,
    TAP_PIXELS_ENCAPSULATED, TAP_PIXELS_NATIVE, TAP_PIXELS_NONE, TAP_SYNTAX_UNKNOWN, UIDS_FOUND,
    TapParse, TapState,
)
from fastscp_ext.dataset.tap_values cimport (
    holds_controls, key_of, value_ends, value_passes, value_starts,
)
from fastscp_ext.dataset.vr cimport (
    VR, VR_INVALID, VR_LONG, VR_SEQUENCE, VR_SHORT, VR_UN, VR_UNKNOWN, vr_of,
)

__all__ = []

cdef enum:
    ITEM_LITTLE = 0xFEFF00E0  # as its tag stands in the bytes
    ITEM_BIG = 0xFFFEE000


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
        fork_readings(p)
    else:
        if elements and outermost(p):
            stray_end(p)
        die(p)


# Elements -------------------------------------------------------------------------------------

cdef void note_sequence(TapParse* p) noexcept nogil:
    # If its length is wrong, what follows at this level may be an item's.
    if outermost(p) and not p.sequence_passed:
        p.sequence_passed = True
        p.before_sequence = p.found


cdef void note_element(TapParse* p, uint32_t tag, uint32_t length) noexcept nogil:
    cdef uint32_t n
    if p.count > 1:
        judge_order(p, tag)
    for n in range(p.count):
        p.readings[n].tag = tag
    if not outermost(p):
        return
    if (tag <= shallowest(p).outermost or p.faults) and (
        not p.image_described or key_of(tag) >= 0
    ):
        p.descended = True
    shallowest(p).outermost = tag
    if tag >= 0x00280000:
        p.later_passed = True
        if tag >> 16 == 0x0028:
            p.image_described = True
        elif is_pixel_data(tag):
            p.image_passed = True
            p.pixels = TAP_PIXELS_NONE if length == UNDEFINED_LENGTH else TAP_PIXELS_NATIVE


cdef inline bint is_length_open_to_doubt(const TapParse* p) noexcept nogil:
    # A length that is too long puts into an item what is found behind it, up to a sequence, which
    # would be the first one.
    return (outermost(p) and not p.sequence_passed and not p.held and not p.settled
            and p.found & UIDS_FOUND != UIDS_FOUND)


cdef void take_element(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
    cdef uint32_t length = h.length
    cdef bint by_look = h.implicit or h.vr == VR_UN
    cdef int key
    note_element(p, h.tag, length)
    if h.tag >> 16 != 0:
        # No element of a data set has group 0: such a one says nothing of the order.
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
    p.may_be_bytes = p.may_be_items and may_hold_bytes(h.tag)
    p.items_big = p.syntax == TAP_EXPLICIT_BE and not p.may_be_items
    p.looking = length > HEADER and is_length_open_to_doubt(p)
    if p.settled or not outermost(p):
        return
    key = key_of(h.tag)
    if key >= 0:
        value_starts(tap, p, key, length, p.header_at + h.size)


# Headers --------------------------------------------------------------------------------------

cdef bint read_formed(TapParse* p, TapHeader* h) noexcept nogil:
    # As its form says. False: it needs 12 bytes, which are asked for.
    cdef Cursor c = cursor_over(p.header, p.header_have)
    cdef bint implicit = reads_implicit(&p.readings[0])
    cdef bint big = p.syntax == TAP_EXPLICIT_BE and not implicit
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    h.reserved = 0
    h.implicit = False
    if p.form == FORM_BEFORE_LONG or p.form == FORM_BEFORE_IMPLICIT:
        read_before(p, h, big)
        return True
    h.tag = take_tag(&c, big)
    h.size = HEADER
    if p.form == FORM_IMPLICIT or p.form == FORM_IMPLICIT_LEVEL:
        h.implicit = True
        h.length = take_u32(&c, big)
        h.vr = VR_UNKNOWN
        return True
    take_u8(&c, &first)
    take_u8(&c, &second)
    h.vr = vr_of(first, second)
    if p.form == FORM_SHORT or p.form != FORM_LONG and h.vr == VR_SHORT:
        h.length = take_u16(&c, big)
        return True
    return read_long(p, h, c, big)


cdef inline bint read_long(TapParse* p, TapHeader* h, Cursor c, bint big) noexcept nogil:
    if p.header_have < LONG_HEADER:
        p.header_want = LONG_HEADER
        return False
    h.reserved = take_u16(&c, big)
    h.length = take_u32(&c, big)
    h.size = LONG_HEADER
    return True


cdef inline bint read_header(TapParse* p, TapHeader* h) noexcept nogil:
    # As it says, unless it has a form. False: it needs 12 bytes, which are asked for.
    cdef Cursor c = cursor_over(p.header, p.header_have)
    cdef bint implicit = reads_implicit(&p.readings[0])
    cdef bint big = p.syntax == TAP_EXPLICIT_BE and not implicit
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    if p.form != FORM_LITERAL:
        return read_formed(p, h)
    h.tag = take_tag(&c, big)
    h.implicit = implicit
    h.reserved = 0
    h.size = HEADER
    if implicit or h.tag >> 16 == GROUP_DELIMITER:
        h.length = take_u32(&c, big)
        h.vr = VR_UNKNOWN
        return True
    take_u8(&c, &first)
    take_u8(&c, &second)
    h.vr = vr_of(first, second)
    if h.vr == VR_SHORT or h.vr == VR_INVALID:
        h.length = take_u16(&c, big)
        return True
    return read_long(p, h, c, big)


cdef void retake_before(TapParse* p) noexcept nogil:
    # The element before had a value after all: what was noted of its empty one goes.
    cdef Cursor c = cursor_over(p.previous, HEADER)
    cdef int key = key_of(take_tag(&c, p.syntax == TAP_EXPLICIT_BE))
    if key >= 0 and p.found & (<uint32_t>1 << key) and p.sizes[key] == 0:
        p.found &= ~(<uint32_t>1 << key)


cdef void doubt_before(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
    # Behind an element without a value stands something that is no header: the upper half of a
    # 32-bit length, perhaps, or the value of an implicit element.
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef TapParse* q
    if is_plausible(p, h):
        return
    if take_u32(&c, p.syntax == TAP_EXPLICIT_BE) < LONGEST_GUESS:
        q = fork_parse(tap, p, FORM_BEFORE_LONG)
        if q != NULL:
            retake_before(q)
    q = fork_parse(tap, p, FORM_BEFORE_IMPLICIT)
    if q != NULL:
        retake_before(q)


cdef bint doubt_invalid_vr(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
    # The literal way is a 16-bit length, as others read it. False: the form was set otherwise.
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef bint big = p.syntax == TAP_EXPLICIT_BE
    cdef uint32_t length
    skip(&c, 4)
    length = take_u32(&c, big)
    if reads_as_implicit(h.tag >> 16, length) and (length != 0 or p.item_opened):
        # Private sequences with implicit items inside explicit data sets are seen.
        if p.item_opened and h.length == 0 and not big:
            p.form = FORM_IMPLICIT_LEVEL
            assume_fault(p)
            return False
        fork_parse(tap, p, FORM_IMPLICIT_LEVEL if p.item_opened else FORM_IMPLICIT)
    if h.length == 0:
        fork_parse(tap, p, FORM_LONG)
    return True


cdef void doubt(TapState* tap, TapParse* p, TapHeader* h) noexcept nogil:
    # Start a parse for each other way in which the header may be meant.
    if tap.parses == 1:
        tap.doubt_tag = h.tag
        tap.doubt_at = p.header_at
    if p.empty:
        doubt_before(tap, p, h)
    if h.implicit:
        if spells_vr(p):
            fork_parse(tap, p, FORM_EXPLICIT)
        return
    if h.vr == VR_INVALID:
        if doubt_invalid_vr(tap, p, h):
            p.suspect = True
            assume_fault(p)
        else:
            read_header(p, h)
        return
    if h.vr == VR_SHORT:
        return
    if h.reserved != 0:
        fork_parse(tap, p, FORM_SHORT)
        p.suspect = True
        assume_fault(p)
    elif hides_a_tag(p, h):
        fork_parse(tap, p, FORM_SHORT)
    if h.vr == VR_UN and h.length == UNDEFINED_LENGTH:
        fork_parse(tap, p, FORM_EXPLICIT_ITEMS)


cdef inline bint is_doubtful(const TapParse* p, const TapHeader* h) noexcept nogil:
    if h.implicit:
        return may_spell_vr(p)
    if h.vr == VR_SHORT:
        return p.empty
    return True


cdef int another_form(const TapParse* p, const TapHeader* h) noexcept nogil:
    # Faults of one kind come in a row. FORM_LITERAL: it is not that.
    if p.kind == FORM_BEFORE_LONG:
        return FORM_BEFORE_LONG if p.empty else FORM_LITERAL
    if p.kind == FORM_EXPLICIT:
        return FORM_EXPLICIT if h.implicit and spells_vr(p) else FORM_LITERAL
    if h.implicit:
        return FORM_LITERAL
    if p.kind == FORM_SHORT:
        if h.size == LONG_HEADER and (h.reserved != 0 or hides_a_tag(p, h)):
            return FORM_SHORT
        return FORM_LITERAL
    if h.vr != VR_INVALID:
        return FORM_LITERAL
    if p.kind == FORM_LONG:
        return FORM_LONG if h.length == 0 else FORM_LITERAL
    if p.kind == FORM_BEFORE_IMPLICIT or p.kind == FORM_IMPLICIT:
        return FORM_IMPLICIT
    return FORM_LITERAL


cdef bint stands_trial(TapState* tap, TapParse* p, TapHeader* h) noexcept nogil:
    # False: more bytes are needed, or it is dead.
    if is_plausible(p, h) and not (p.kind == FORM_SHORT and hides_a_tag(p, h)):
        if p.kind == FORM_EXPLICIT_ITEMS and h.vr == VR_UN and h.length == UNDEFINED_LENGTH:
            p.form = FORM_EXPLICIT_ITEMS
        p.trial -= 1
        return True
    p.form = <uint8_t>another_form(p, h)
    if p.form == FORM_LITERAL:
        if not h.implicit and is_header(p, h):
            # Only the order speaks against it, and unsorted data sets are seen.
            leave_out(tap, p)
        die(p)
        return False
    p.trial -= 1
    if p.form == FORM_BEFORE_LONG:
        retake_before(p)
    if not read_header(p, h):
        return False
    if p.form != FORM_BEFORE_LONG and not is_placed(p, h) or (
        p.form == FORM_IMPLICIT and not reads_as_implicit(h.tag >> 16, h.length)
    ):
        die(p)
        return False
    return True


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


cdef inline bint is_printable(uint8_t byte) noexcept nogil:
    return c" " <= byte <= c"~"


cdef bint bears_out(const TapParse* p, const TapHeader* h) noexcept nogil:
    # Whether a length taken on trust has led to a header.
    if h.vr == VR_INVALID or h.vr == VR_UNKNOWN:
        return h.tag > p.last_tag and h.tag >> 16 == p.last_tag >> 16
    # A wrong length may lead to any header by chance, to one out of order more likely.
    return h.tag > p.last_tag


cdef void judge_value(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
    # A value is proved by what follows: of a wrong length it would be something else.
    cdef Cursor c = cursor_over(p.header, HEADER)
    cdef uint8_t first = 0
    cdef uint8_t second = 0
    if not is_header(p, h):
        if p.fresh and not p.settled and holds_controls(tap, p, p.fresh):
            # It goes on into the next element.
            p.unproved |= p.found & p.fresh
            p.found &= ~p.fresh
        take_u8(&c, &first)
        take_u8(&c, &second)
        p.shaky |= p.fresh
        # What looks like the value's rest may lead to one header by chance.
        p.unproved_for = 2 if is_printable(first) and is_printable(second) else 1
    else:
        bear_out_values(p)
    p.fresh = 0


cdef void bear_out_values(TapParse* p) noexcept nogil:
    # A header follows as it should.
    p.fresh = 0
    p.unproved_for -= 1
    if p.unproved_for <= 0:
        p.shaky = 0


cdef void header_taken(TapParse* p) noexcept nogil:
    p.header_have = 0
    p.header_want = HEADER
    p.form = FORM_LITERAL


cdef void take_header(TapState* tap, TapParse* p) noexcept nogil:
    cdef TapHeader h
    cdef bint suspect = p.suspect
    cdef uint32_t n
    if p.count > 1 and readings_disagree(p):
        judge_encoding(p)
    if not read_header(p, &h):
        return
    p.header_tag = h.tag
    if h.implicit and h.tag >> 16 == 0:
        # Never inside a data set. Zeros read like that, and lead to anything.
        if tap.parses > 1:
            die(p)
            return
        assume_fault(p)
    if h.tag >> 16 == GROUP_DELIMITER:
        header_taken(p)
        p.suspect = p.empty = p.item_opened = False
        p.fresh = 0
        take_delimiter(p, h.tag, h.length)
        p.opened = False
        return
    if not at_elements(p) and not find_level(p, &h):
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
    take_element(tap, p, &h)
    header_taken(p)


# Values ---------------------------------------------------------------------------------------

cdef void no_items(TapParse* p) noexcept nogil:
    # Where bytes may stand they are no items after all. Elsewhere the length is wrong.
    if not p.may_be_bytes:
        die(p)
        return
    p.walking = False
    p.behind_sequence = False
    if not p.weak:
        p.weak = True
        p.weak_found = p.found


cdef void take_items(TapParse* p, Cursor passing) noexcept nogil:
    # Of a sequence of defined length, what the slice holds: items, up to its very end. An item of
    # undefined length ends by a delimiter, which its length does not tell.
    cdef Cursor c
    cdef Cursor front = cursor_over(NULL, 0)
    cdef uint32_t n
    cdef uint32_t left
    cdef uint32_t tag
    cdef uint32_t length
    while passing.left and (p.walking or p.may_be_items):
        n = p.item_left if p.item_left < passing.left else passing.left
        skip(&passing, n)
        p.item_left -= n
        if p.front_have == 0 and take_span(&passing, HEADER, &front):
            memcpy(p.front, front.at, HEADER)
            p.front_have = HEADER
        else:
            p.front_have = collect(&passing, p.front, p.front_have, HEADER)
        if p.front_have < HEADER:
            break
        p.front_have = 0
        c = cursor_over(p.front, HEADER)
        tag = take_tag(&c, p.items_big)
        length = take_u32(&c, p.items_big)
        if p.may_be_items:
            # No VR stood in front of it, or UN, whose items are implicit (PS3.5 6.2.2).
            p.may_be_items = False
            p.behind_sequence = tag == ITEM
            if tag != ITEM:
                return
            note_sequence(p)
            p.walking = not p.settled
            if not p.walking:
                return
        left = p.skip + passing.left
        if tag == ITEM and length == UNDEFINED_LENGTH:
            p.walking = False
        elif tag == ITEM and length <= left:
            p.item_left = length
        elif not (tag == ITEM_END or tag == SEQUENCE_END and left == 0):
            no_items(p)
    if p.skip == 0:
        if p.walking and p.front_have > 0:
            no_items(p)
        p.walking = p.may_be_items = False


cdef void look_for_items(TapParse* p, Cursor passing) noexcept nogil:
    # Who reads over the start of an item with a value may come out in that item.
    cdef uint32_t window = p.window
    cdef uint32_t item = ITEM_BIG if p.syntax == TAP_EXPLICIT_BE else ITEM_LITTLE
    cdef uint8_t byte = 0
    while not p.sequence_passed and take_u8(&passing, &byte):
        window = (window << 8) | byte
        if (window == item or window == ITEM_LITTLE) and not p.held:
            p.held = True
            p.before_held = p.found
    p.window = window
    if p.skip == 0 or p.held or p.sequence_passed:
        p.looking = False
        p.window = 0


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

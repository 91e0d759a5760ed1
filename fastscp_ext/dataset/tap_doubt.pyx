"""Headers that may be meant in another way than they say, and whether a way is borne out."""

from libc.stdint cimport uint8_t, uint32_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, skip, take_u8
from fastscp_ext.dataset.tap_forks cimport fork_parse, leave_out
from fastscp_ext.dataset.tap_headers cimport (
    HEADER, LONGEST_GUESS, LONG_HEADER, UNDEFINED_LENGTH, TapHeader, hides_a_tag, is_header,
    is_placed, is_plausible, reads_as_implicit, spells_vr, take_tag, take_u32,
)
from fastscp_ext.dataset.tap_levels cimport assume_fault, die
from fastscp_ext.dataset.tap_read cimport read_header
from fastscp_ext.dataset.tap_state cimport (
    FORM_BEFORE_IMPLICIT, FORM_BEFORE_LONG, FORM_EXPLICIT, FORM_EXPLICIT_ITEMS, FORM_IMPLICIT,
    FORM_IMPLICIT_LEVEL, FORM_LITERAL, FORM_LONG, FORM_SHORT, TAP_EXPLICIT_BE, TapParse, TapState,
)
from fastscp_ext.dataset.tap_values cimport holds_controls, key_of
from fastscp_ext.dataset.vr cimport VR_INVALID, VR_SHORT, VR_UN, VR_UNKNOWN

__all__ = []


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


cdef inline bint is_printable(uint8_t byte) noexcept nogil:
    return c" " <= byte <= c"~"


cdef bint bears_out(const TapParse* p, const TapHeader* h) noexcept nogil:
    if h.vr == VR_INVALID or h.vr == VR_UNKNOWN:
        return h.tag > p.last_tag and h.tag >> 16 == p.last_tag >> 16
    # A wrong length may lead to any header by chance, to one out of order more likely.
    return h.tag > p.last_tag


cdef void judge_value(TapState* tap, TapParse* p, const TapHeader* h) noexcept nogil:
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
    p.fresh = 0
    p.unproved_for -= 1
    if p.unproved_for <= 0:
        p.shaky = 0

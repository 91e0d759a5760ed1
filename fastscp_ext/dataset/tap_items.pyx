"""Items inside the value of an element of defined length."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from fastscp_ext.wire.cursor cimport Cursor, collect, cursor_over, peek_u8, skip, take_span, take_u8
from fastscp_ext.dataset.tap_headers cimport (
    HEADER, ITEM, ITEM_END, SEQUENCE_END, UNDEFINED_LENGTH, take_tag, take_u32,
)
from fastscp_ext.dataset.tap_levels cimport die, outermost
from fastscp_ext.dataset.tap_state cimport TAP_EXPLICIT_BE, TapParse
from fastscp_ext.dataset.tap_tags cimport may_hold_bytes

__all__ = []

cdef enum:
    ITEM_LITTLE = 0xFEFF00E0  # as its tag stands in the bytes
    ITEM_BIG = 0xFFFEE000


cdef void note_sequence(TapParse* p) noexcept nogil:
    # If its length is wrong, what follows at this level may be an item's.
    if outermost(p) and not p.sequence_passed:
        p.sequence_passed = True
        p.before_sequence = p.found


cdef void note_item(TapParse* p, uint32_t over, bint weak, bint closing) noexcept nogil:
    # One that goes on behind the value in which it starts. closing: its sequence ends with it; such
    # a one is not there by chance, and another one in it may be.
    if outermost(p) and (closing or not p.items_closing):
        p.items_over = over
        p.items_until = 0
        p.items_found = p.found
        p.items_weak = weak
        p.items_closing = closing


cdef void no_items(TapParse* p, uint32_t over) noexcept nogil:
    # Where bytes may stand they are no items after all. Elsewhere the length is wrong. Nothing that
    # is left of the value is walked: what is found must not depend on how the bytes were cut.
    # over: bytes that an item would have behind the value.
    p.walking = False
    if not (p.by_tag and may_hold_bytes(p.header_tag)):
        die(p)
        return
    p.behind_sequence = False
    if p.weak == 0:
        p.weak_found = p.found
    p.weak += 1
    if over:
        # The value is the sequence, and its length the wrong one.
        if p.looking:
            p.value_over = over
        note_item(p, over, True, True)


cdef void take_items(TapParse* p, Cursor passing) noexcept nogil:
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
            p.text = p.text and tag != ITEM
            if tag != ITEM:
                if p.looking:
                    # Perhaps it is a sequence's header in front of its item.
                    c = cursor_over(&p.front[4], HEADER - 4)
                    p.window = take_u32(&c, True)
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
            no_items(p, length - left if tag == ITEM else 0)
    if p.skip == 0:
        if p.walking and p.front_have > 0:
            no_items(p, 0)
        p.walking = p.may_be_items = False


cdef bint may_hold_a_mark(Cursor passing) noexcept nogil:
    # Hardly a value has one of these bytes.
    return passing.left > 0 and (
        memchr(passing.at, 0xFE, passing.left) != NULL
        or memchr(passing.at, 0xFF, passing.left) != NULL)


cdef bint is_in_a_mark(const TapParse* p) noexcept nogil:
    # What follows may go on with an item's header, and hold none of these bytes itself.
    cdef uint32_t last = <uint32_t>p.window & 0xFFFFFF
    return (p.mark_left > 0 or last == ITEM_LITTLE >> 8 or last == ITEM_BIG >> 8
            or last & 0xFFFF == ITEM_LITTLE >> 16 or last & 0xFFFF == ITEM_BIG >> 16)


cdef void pass_over(Cursor* passing) noexcept nogil:
    # Except for what may be the length in front of an item's header.
    if passing.left > 4:
        skip(passing, passing.left - 4)


cdef uint32_t number_of(uint32_t number, bint big) noexcept nogil:
    # Of four bytes, the first of which was shifted in first.
    if big:
        return number
    return (
        (number >> 24) | ((number >> 16 & 0xFF) << 8) | ((number >> 8 & 0xFF) << 16)
        | (number << 24)
    )


cdef void take_mark(TapParse* p, uint32_t number, uint32_t left) noexcept nogil:
    # An item's header has passed in the value. In front of it stands the length of its sequence,
    # if it is the first one. Of sequences that go on behind the value the innermost comes last.
    cdef uint32_t length = number_of(number, p.mark_big)
    cdef uint32_t list_over = p.mark_front
    cdef uint32_t over
    if list_over >= HEADER and list_over - HEADER > left:
        list_over -= HEADER + left
        if p.lists_over == 0 or list_over <= p.lists_over:
            p.lists_over = list_over
    if length == UNDEFINED_LENGTH or length <= left:
        return
    over = length - left
    note_item(p, over, False, over == p.lists_over or over == p.value_over)


cdef void look_for_items(TapParse* p, Cursor passing) noexcept nogil:
    cdef uint64_t window = p.window
    cdef uint32_t last
    cdef uint32_t item = ITEM_BIG if p.syntax == TAP_EXPLICIT_BE else ITEM_LITTLE
    cdef uint8_t byte = 0
    if p.too_long:
        return
    if p.starting and peek_u8(&passing, 0, &byte):
        p.starting = False
        # Without a VR a value only seems to be a text.
        p.text = p.text and byte >= c" " and byte < 0x7F
    if (window == 0 or not is_in_a_mark(p)) and not may_hold_a_mark(passing):
        if p.skip > 0:
            pass_over(&passing)
        else:
            passing.left = 0
    while take_u8(&passing, &byte):
        window = (window << 8) | byte
        last = <uint32_t>window
        if p.mark_left:
            p.mark_left -= 1
            if p.mark_left == 0:
                take_mark(p, last, p.skip + passing.left)
            continue
        if last != item and last != ITEM_LITTLE:
            continue
        if p.text and not (p.by_tag and may_hold_bytes(p.header_tag)):
            # The parse goes on to its end, where others may take a step, too.
            p.too_long = True
            break
        p.text = False
        if not p.held and not p.sequence_passed:
            p.held = True
            p.before_held = p.found
        p.mark_left = 4
        p.mark_big = last != ITEM_LITTLE
        p.mark_front = number_of(<uint32_t>(window >> 32), p.mark_big)
    p.window = window
    if p.skip == 0:
        p.looking = False
        p.window = p.mark_front = p.lists_over = p.value_over = 0
        p.mark_left = 0
        p.mark_big = False

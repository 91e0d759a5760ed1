"""The values that the tap looks for: their places, and how they are taken."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, skip, take_u8
from fastscp_ext.dataset.tap_state cimport (
    KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, TAP_KEYS, TAP_SLOTS, TAP_UID_BYTES, TapParse,
    TapSlot, TapState,
)
from fastscp_ext.dataset.tap_levels cimport drop_reading, settle_if_complete

__all__ = []


cdef uint32_t place_of(int key) noexcept nogil:
    # A place of its own for every key: no value can take the room of another.
    cdef uint32_t place = 0
    cdef int before
    for before in range(key):
        place += room_of(before)
    return place


# Places ---------------------------------------------------------------------------------------

cdef bint refers(const TapParse* p, int key, int where) noexcept nogil:
    return p.where[key] == where and (
        p.key == key or (p.found | p.conflicting | p.taken) & (<uint32_t>1 << key) != 0)


cdef bint is_free(const TapState* tap, int key, int where) noexcept nogil:
    # No parse has a value there, the one that asks for a place no less than the others.
    cdef const TapParse* q = &tap.first
    cdef uint32_t n
    for n in range(tap.parses):
        if n > 0:
            q = &tap.more.parses[n - 1]
        if refers(q, key, where):
            return False
    return True


cdef int place_for(
    TapState* tap, const TapParse* p, int key, uint32_t length, uint64_t at
) noexcept nogil:
    # Where several parses read one element they share its place. -1: there is none left.
    cdef TapSlot* slot
    cdef int n
    if tap.parses > 1 and not is_free(tap, key, 0):
        if tap.places[key] == at and tap.lengths[key] == length:
            return 0
        for n in range(<int>TAP_SLOTS):
            slot = &tap.more.slots[n]
            if slot.key == key and slot.at == at and slot.length == length:
                return n + 1
        if length > <uint32_t>TAP_UID_BYTES:
            return -1
        for n in range(<int>TAP_SLOTS):
            slot = &tap.more.slots[n]
            if slot.key < 0 or is_free(tap, slot.key, n + 1):
                slot.key = key
                slot.at = at
                slot.length = length
                return n + 1
        return -1
    tap.places[key] = at
    tap.lengths[key] = length
    return 0


cdef void value_starts(
    TapState* tap, TapParse* p, int key, uint32_t length, uint64_t at
) noexcept nogil:
    cdef uint32_t bit = <uint32_t>1 << key
    cdef int where
    if (p.conflicting | p.barred) & bit:
        p.unproved |= p.barred & bit & ~p.found
        return
    if (p.found | p.taken) & bit:
        if length == 0 or p.found & bit and (
                key == KEY_SOP_CLASS_UID or key == KEY_SOP_INSTANCE_UID):
            return
        p.comparing = True
        p.differs = False
        p.compared = 0
        p.key = key
        return
    where = place_for(tap, p, key, length, at)
    if where < 0:
        # Not kept, so nothing can be said of it, nor of another one.
        p.conflicting |= bit
        p.where[key] = 0
        p.sizes[key] = 0
        return
    p.where[key] = <uint8_t>where
    p.key = key
    p.sizes[key] = 0
    if length == 0:
        value_ends(p)


cdef uint8_t* bytes_of(TapState* tap, const TapParse* p, int key) noexcept nogil:
    if p.where[key] == 0 or tap.more == NULL:
        return &tap.values[place_of(key)]
    return &tap.more.slots[p.where[key] - 1].bytes[0]


# Values ---------------------------------------------------------------------------------------

cdef void value_passes(TapState* tap, TapParse* p, Cursor passing) noexcept nogil:
    # Its first bytes are kept. Two parses that share a place write the same bytes there.
    cdef uint32_t have
    cdef uint32_t keep
    if p.comparing:
        compare(tap, p, passing)
        return
    have = p.sizes[p.key]
    keep = room_of(p.key) - have
    if keep > passing.left:
        keep = passing.left
    memcpy(bytes_of(tap, p, p.key) + have, passing.at, keep)
    p.sizes[p.key] = <uint16_t>(have + keep)


cdef void compare(TapState* tap, TapParse* p, Cursor passing) noexcept nogil:
    # With the value of this key that was found first; padding does not count.
    cdef Cursor known = raw_value(tap, p, p.key)
    cdef uint8_t ours = 0
    cdef uint8_t byte = 0
    cdef uint32_t room = room_of(p.key)
    while p.compared < room and take_u8(&passing, &byte):
        if p.compared == 0 and is_uid(p.key) and is_padding(p.key, byte):
            continue
        if peek_u8(&known, p.compared, &ours):
            if byte != ours:
                p.differs = True
        elif not is_padding(p.key, byte):
            p.differs = True
        p.compared += 1
    if p.skip == 0 and p.compared < known.left:
        p.differs = True


cdef void value_ends(TapParse* p) noexcept nogil:
    cdef uint32_t bit = <uint32_t>1 << p.key
    p.key = -1
    p.fresh = bit
    if not p.comparing:
        p.found |= bit
        p.unproved &= ~bit
        settle_if_complete(p)
        return
    p.comparing = False
    if not p.differs:
        p.found |= bit
        p.taken &= ~bit
        p.unproved &= ~bit
        return
    # Two values of a key at one level: one of them is not the instance's. Nor is it sure which one
    # is where an end took the first one back: it may have been the end of an item in an item.
    if p.count > 1 and not p.taken & bit:
        drop_reading(p, p.count - 1)
    else:
        p.found &= ~bit
        p.conflicting |= bit


cdef Cursor raw_value(const TapState* tap, const TapParse* p, int key) noexcept nogil:
    # All of them have one value (PS3.6), in which 5C may be the second byte of a character
    # (GB18030, Shift JIS).
    cdef Cursor value = cursor_over(bytes_of(<TapState*>tap, p, key), p.sizes[key])
    cdef uint8_t byte = 0
    while value.left > 0 and peek_u8(&value, value.left - 1, &byte) and is_padding(key, byte):
        value.left -= 1
    if is_uid(key):
        while peek_u8(&value, 0, &byte) and is_padding(key, byte):
            skip(&value, 1)
    return value


cdef bint holds_controls(const TapState* tap, const TapParse* p, uint32_t bit) noexcept nogil:
    cdef Cursor value
    cdef uint8_t byte = 0
    cdef int key = 0
    while bit >> key != 1:
        key += 1
    if is_uid(key) or not p.found & bit:
        return False
    value = raw_value(tap, p, key)
    while take_u8(&value, &byte):
        if byte < c" " and byte != 0x1B:
            return True
    return False


cdef bint same_value(
    const TapState* tap, const TapParse* p, const TapParse* q, int key
) noexcept nogil:
    cdef Cursor one = raw_value(tap, p, key)
    cdef Cursor other = raw_value(tap, q, key)
    return one.left == other.left and (
        one.at == other.at or memcmp(one.at, other.at, one.left) == 0)


cdef void settle_places(TapState* tap, TapParse* p) noexcept nogil:
    cdef int key
    for key in range(<int>TAP_KEYS):
        if p.where[key] and refers(p, key, p.where[key]):
            memcpy(&tap.values[place_of(key)], bytes_of(tap, p, key), p.sizes[key])
            tap.places[key] = tap.more.slots[p.where[key] - 1].at
            tap.lengths[key] = tap.more.slots[p.where[key] - 1].length
        p.where[key] = 0

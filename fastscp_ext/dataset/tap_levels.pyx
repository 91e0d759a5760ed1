"""At which level the tap is: the readings of it that one parse follows."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, take_u16_le, take_u32_le
from fastscp_ext.dataset.tap_headers cimport GROUP_DELIMITER, HEADER, reads_as_implicit
from fastscp_ext.dataset.tap_state cimport (
    GUESS_ENDS, GUESS_NO_ITEMS, GUESS_NONE, GUESS_STRAY, KEY_PATIENT_ID, TAP_EXPLICIT_BE, TAP_KEYS,
    TAP_NEVER, TAP_PIXELS_NONE, TAP_READINGS, UIDS_FOUND, TapParse, TapReading,
)
from fastscp_ext.dataset.vr cimport VR, VR_INVALID, VR_UNKNOWN, vr_of

__all__ = []

cdef enum:
    DEEPEST = 0xFFFFFFF0  # no stream comes here: each level has a header of eight bytes
    REFERENCED_CLASS = 0x00081150
    REFERENCED_INSTANCE = 0x00081155
    STUDY_ID = 0x00200010
    INSTANCE_NUMBER = 0x00200013

    ALL_FOUND = (1 << TAP_KEYS) - 1
    PATIENT_FOUND = 1 << KEY_PATIENT_ID


cdef void first_reading(TapParse* p) noexcept nogil:
    p.count = 1
    p.readings[0].depth = 0
    p.readings[0].implicit_from = TAP_NEVER
    p.readings[0].tag = 0
    p.readings[0].outermost = 0
    p.readings[0].guessed = False


cdef void settle_if_complete(TapParse* p) noexcept nogil:
    # Behind a sequence an item end may still show that the level is wrong, and behind a fault
    # that the bytes were read in the wrong way; behind a value that its length is.
    if (p.found == ALL_FOUND and not p.shaky and not p.sequence_passed and not p.held
            and p.faults == 0):
        p.settled = True


cdef void give_back(TapParse* p, uint32_t keep) noexcept nogil:
    p.unproved |= p.found & ~keep
    p.found &= keep


cdef void give_guess_back(TapParse* p) noexcept nogil:
    give_back(p, p.before_guess)
    p.pixels = p.before_pixels


# Guesses and what proves them -----------------------------------------------------------------

cdef void forget_what_passed(TapParse* p) noexcept nogil:
    p.image_described = p.image_passed = p.body_passed = p.later_passed = p.ordered = False
    p.pixels_ended = p.pixels_empty = False
    p.ascending = True
    p.risen = shallowest(p).outermost
    p.named = p.risen >> 16 >= 0x0010


cdef void note_evidence(TapParse* p, uint32_t tag) noexcept nogil:
    # References stand in items only (PS3.3 10.8): a data set has none of its own.
    if tag < p.risen or tag == REFERENCED_CLASS or tag == REFERENCED_INSTANCE:
        p.ascending = False
    p.risen = tag
    if tag >> 16 == 0x0010 or STUDY_ID <= tag <= INSTANCE_NUMBER:
        p.named = True


cdef bint is_level_proved(const TapParse* p) noexcept nogil:
    # Tags ascend in a data set and in an item (PS3.5 7.1). An item that names another study tells
    # no patient and no numbers as a rule, and holds no image. So what goes on with these where the
    # sequence stood, and comes to an image or to what another kind of instance is about, is the
    # data set.
    if not p.ascending:
        return False
    if p.ordered and p.count == 1:
        return True
    if p.guess == GUESS_STRAY:
        return p.image_passed or p.named and p.later_passed
    return p.named and (
        p.body_passed or p.image_passed and (p.image_described or p.guess != GUESS_ENDS))


cdef void keep_what_is_proved(TapParse* p) noexcept nogil:
    if not p.unsure or is_level_proved(p):
        p.before_unsure = p.found


cdef void give_unsure_back(TapParse* p) noexcept nogil:
    if not p.unsure or is_level_proved(p):
        return
    if p.found & ~p.before_unsure:
        p.pixels = TAP_PIXELS_NONE
    give_back(p, p.before_unsure)


cdef void look_at_guess(TapParse* p) noexcept nogil:
    # Readings have come or gone.
    p.unsure = shallowest(p).guessed
    if p.count == 1 and not p.unsure:
        p.guess = GUESS_NONE


cdef void doubt_level(TapParse* p, int guess) noexcept nogil:
    cdef uint32_t n
    keep_what_is_proved(p)
    for n in range(p.count):
        p.readings[n].guessed = True
    p.unsure = True
    if guess > p.guess:
        p.guess = guess
    forget_what_passed(p)


# Readings -------------------------------------------------------------------------------------

cdef void drop_reading(TapParse* p, uint32_t at) noexcept nogil:
    # The reading is wrong. Only the shallowest one has values of its own, and they fall with it.
    cdef bint last = at == p.count - 1
    if last:
        give_guess_back(p)
    p.count -= 1
    if last:
        forget_what_passed(p)
    while at < p.count:
        p.readings[at] = p.readings[at + 1]
        at += 1
    if p.count == 1 and not last:
        p.ordered = True
    look_at_guess(p)
    settle_if_complete(p)


cdef void give_doubtful_back(TapParse* p) noexcept nogil:
    if p.settled:
        return
    give_back(p, ~p.shaky)
    p.shaky = 0
    if p.weak:
        give_back(p, p.weak_found)


cdef uint32_t before_all_wrong_levels(const TapParse* p) noexcept nogil:
    # What was found before anything of which a wrong length may have led into an item.
    cdef uint32_t keep = ALL_FOUND
    if p.sequence_passed:
        keep &= p.before_sequence
    if p.held:
        keep &= p.before_held
    if p.trusted:
        keep &= p.before_fault
    return keep


cdef void give_level_back(TapParse* p) noexcept nogil:
    # The data set goes no further, and no proper end says that the level was right. Tags that
    # ascend to group 0028 do, or to what no item holds: behind the rest of an item they begin anew.
    cdef uint32_t keep = before_all_wrong_levels(p)
    if p.settled or (p.image_described or p.body_passed) and not p.descended:
        return
    if p.found & ~keep:
        p.pixels = TAP_PIXELS_NONE
    give_back(p, keep)


cdef void die(TapParse* p) noexcept nogil:
    # What is given back is given back once: a parse that is dead knows nothing to restore.
    if p.dead:
        return
    if p.count > 1:
        give_guess_back(p)
    give_unsure_back(p)
    give_doubtful_back(p)
    give_level_back(p)
    p.dead = True
    p.settled = True


cdef void enter(TapParse* p, bint implicit) noexcept nogil:
    cdef uint32_t n
    cdef TapReading* reading
    for n in range(p.count):
        reading = &p.readings[n]
        if reading.depth >= DEEPEST:
            die(p)
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


cdef void leave_by_guess(TapReading* reading, uint32_t levels) noexcept nogil:
    leave(reading, levels)
    reading.guessed = True


cdef void add_reading(
    TapParse* p, TapReading* readings, uint32_t* count, const TapReading* reading
) noexcept nogil:
    # Two that came to one depth have one future, and no values but those that both may claim.
    cdef TapReading* last
    if count[0] and readings[count[0] - 1].depth == reading.depth:
        last = &readings[count[0] - 1]
        if last.implicit_from != reading.implicit_from:
            die(p)
        last.outermost = min(last.outermost, reading.outermost)
        last.tag = last.outermost if last.depth == 0 else 0
        last.guessed = last.guessed or reading.guessed
        give_guess_back(p)
    elif count[0] == TAP_READINGS:
        die(p)
    else:
        readings[count[0]] = reading[0]
        count[0] += 1


cdef void begin_guess(TapParse* p, int guess) noexcept nogil:
    keep_what_is_proved(p)
    if p.count == 1:
        p.before_guess = p.found
        p.before_pixels = p.pixels
    if guess > p.guess:
        p.guess = guess
    p.faults += 1


cdef void take_readings(TapParse* p, const TapReading* readings, uint32_t count) noexcept nogil:
    cdef uint32_t n
    if p.dead:
        return
    for n in range(count):
        p.readings[n] = readings[n]
    p.count = count
    forget_what_passed(p)
    look_at_guess(p)


cdef void fork_readings(TapParse* p) noexcept nogil:
    cdef TapReading readings[TAP_READINGS]
    cdef TapReading ended
    cdef uint32_t count = 0
    cdef uint32_t n
    if p.readings[0].depth == 0:
        # There is nothing that it could end.
        p.faults += 1
        return
    begin_guess(p, GUESS_ENDS)
    for n in range(p.count):
        add_reading(p, readings, &count, &p.readings[n])
        if p.readings[n].depth > 0:
            ended = p.readings[n]
            leave_by_guess(&ended, 2)
            add_reading(p, readings, &count, &ended)
    take_readings(p, readings, count)


cdef void fork_without_item(TapParse* p) noexcept nogil:
    cdef TapReading readings[TAP_READINGS]
    cdef TapReading one
    cdef uint32_t count = 0
    cdef uint32_t n
    begin_guess(p, GUESS_NO_ITEMS if p.opened else GUESS_ENDS)
    for n in range(p.count):
        one = p.readings[n]
        one.depth += 1
        one.tag = 0
        add_reading(p, readings, &count, &one)
        one = p.readings[n]
        leave_by_guess(&one, 1)
        add_reading(p, readings, &count, &one)
    take_readings(p, readings, count)


cdef bint leave_item(TapParse* p) noexcept nogil:
    cdef uint32_t n
    if outermost(p):
        if p.count == 1:
            return False
        drop_reading(p, p.count - 1)
    p.faults += 1
    # Or the one that begins is in a sequence of that item, whose header is damaged.
    doubt_level(p, GUESS_STRAY)
    for n in range(p.count):
        leave(&p.readings[n], 1)
    return True


cdef void stray_end(TapParse* p) noexcept nogil:
    # What was found since a sequence passed may be an item's. Where none has, a wrong length may
    # have led into an item, but no further than since a value that held the start of one. That is
    # looked for until all UIDs are there.
    cdef uint32_t seen = p.found | p.conflicting
    cdef uint32_t keep
    p.faults += 1
    if p.settled:
        return
    if p.count > 1:
        drop_reading(p, p.count - 1)
        return
    if p.trusted:
        give_back(p, p.before_fault)
    elif not p.sequence_passed:
        keep = p.before_held if p.held else p.found & UIDS_FOUND
        # Nor whether they are an item's: another one of them is none either.
        p.barred |= p.found & ~keep
        give_back(p, keep)
    if p.sequence_passed:
        # A value that was found before and met another one since is there still.
        keep = before_all_wrong_levels(p)
        give_back(p, keep)
        p.found = keep
        p.conflicting &= p.taken
    if seen & PATIENT_FOUND:
        # An item that names another study tells no patient as a rule: these may be the instance's,
        # and others are then what another item says.
        p.taken |= seen & ~p.found
    p.pixels = TAP_PIXELS_NONE
    if p.sequence_passed or p.trusted or p.held:
        # An item may lie around this one, whose end is still to come.
        p.readings[0].outermost = p.readings[0].tag = 0
        doubt_level(p, GUESS_STRAY)


cdef void judge_descent(TapParse* p) noexcept nogil:
    if p.pixels_ended:
        # That end was one of an item's sequence, and this is the data set again.
        p.pixels_ended = False
        stray_end(p)
    elif p.pixels_empty and not p.unsorted:
        # No image is empty (PS3.3 C.7.6.3): these are the bytes of the pixel data, in which
        # another data set stands.
        p.barred = ALL_FOUND
    elif p.faults == 0:
        p.unsorted = True


cdef void judge_item_end(TapParse* p, uint64_t at, bint delimiter) noexcept nogil:
    # A value may hold the bytes of an item's header, which by chance lead to an element. An element
    # follows an item only where its sequence ends as well; and at the outermost level of a legal
    # data set no delimiter follows.
    if p.items_until == 0:
        p.items_until = at + p.items_over
    elif at >= p.items_until:
        if (at == p.items_until and (p.items_closing or delimiter)
                and at_elements(p) and outermost(p)
                and p.found & ~p.items_found & UIDS_FOUND):
            # What stands behind the value is in that item.
            stray_end(p)
            p.weak -= p.items_weak
        p.items_over = p.items_found = 0
        p.items_until = 0
        p.items_weak = p.items_closing = False


cdef void judge_order(TapParse* p, uint32_t tag) noexcept nogil:
    # Tags ascend in a data set and in an item (PS3.5 7.1). Where they do in one reading and not in
    # another, the other one is wrong; unsorted data sets are seen, so that alone proves nothing.
    cdef uint32_t ascending = 0
    cdef uint32_t n
    for n in range(p.count):
        ascending += tag > p.readings[n].tag
    if ascending == 0:
        return
    n = p.count
    while n > 0:
        n -= 1
        if tag <= p.readings[n].tag:
            drop_reading(p, n)


cdef void judge_encoding(TapParse* p) noexcept nogil:
    cdef Cursor c = cursor_over(p.header, HEADER)
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
        if p.syntax != TAP_EXPLICIT_BE:
            return
        implicit = True
    elif vr != VR_INVALID and vr != VR_UNKNOWN:
        implicit = False
    else:
        implicit = reads_as_implicit(group, length)
    n = p.count
    while n > 0:
        n -= 1
        if reads_implicit(&p.readings[n]) != implicit:
            drop_reading(p, n)


cdef void prove(TapParse* p, bint inside) noexcept nogil:
    if p.count > 1 and (inside or not outermost(p) or not is_level_proved(p)):
        # An item was cut, perhaps.
        give_guess_back(p)
    give_unsure_back(p)
    p.readings[0] = shallowest(p)[0]
    p.count = 1
    p.ended = not inside and outermost(p)
    if not p.ended or p.faults:
        give_doubtful_back(p)
    if not p.ended:
        give_level_back(p)
    p.shaky = 0

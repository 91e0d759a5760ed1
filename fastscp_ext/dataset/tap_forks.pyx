"""Several parses of one data set: how they come to be, and end."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy, memmove

from fastscp_ext.dataset.tap_levels cimport assume_fault, die
from fastscp_ext.dataset.tap_state cimport (
    FORM_LITERAL, TAP_AGAIN, TAP_PARSES, TAP_SLOTS, TapMore, TapParse, TapState,
)
from fastscp_ext.dataset.tap_values cimport settle_places

__all__ = []

cdef enum:
    TRIAL = 2  # plausible headers that a way other than the literal one has to meet


cdef void read_again(TapParse* p, uint32_t n) noexcept nogil:
    if n > p.header_have or p.again_have + n > TAP_AGAIN:
        die(p)
        return
    memmove(&p.again[n], &p.again[0], p.again_have)
    memcpy(&p.again[0], &p.header[p.header_have - n], n)
    p.again_have += n


cdef bint make_room(TapState* tap) noexcept nogil:
    cdef int n
    if tap.parses == TAP_PARSES:
        return False
    if tap.more == NULL:
        tap.more = <TapMore*>malloc(sizeof(TapMore))
        if tap.more == NULL:
            return False
        for n in range(<int>TAP_SLOTS):
            tap.more.slots[n].key = -1
    return True


cdef void leave_out(TapState* tap, const TapParse* p) noexcept nogil:
    # What stands in that way of reading behind here stays unknown.
    tap.left_found = p.found if not tap.left_out else tap.left_found & p.found
    tap.left_out = True


cdef TapParse* fork_parse(TapState* tap, TapParse* p, int form) noexcept nogil:
    cdef TapParse* q
    if not make_room(tap):
        leave_out(tap, p)
        return NULL
    if tap.parses == 1:
        tap.agreed = p.found
    q = &tap.more.parses[tap.parses - 1]
    memcpy(q, p, sizeof(TapParse))
    tap.parses += 1
    q.form = <uint8_t>form
    q.kind = <uint8_t>form
    assume_fault(q)
    q.trial = TRIAL
    return q


cdef void take_evidence(TapParse* p, const TapParse* q) noexcept nogil:
    # How q came to its level, and what speaks for it.
    cdef uint32_t n
    p.guess = q.guess
    p.later_passed = q.later_passed
    p.image_described = q.image_described
    p.image_passed = q.image_passed
    p.body_passed = q.body_passed
    p.named = q.named
    p.ascending = q.ascending
    p.ordered = q.ordered
    p.risen = q.risen
    p.unsure = q.unsure
    p.before_unsure = q.before_unsure
    for n in range(p.count):
        p.readings[n].guessed = q.readings[n].guessed


cdef bint alike(const TapParse* p, const TapParse* q) noexcept nogil:
    # In one place between two elements, and with one future. What speaks for their levels may
    # differ: one that came there without a guess is not wrong because another one did with it.
    cdef size_t own = <size_t>(<const uint8_t*>&p.syntax - <const uint8_t*>p)
    cdef TapParse other
    if p.left != q.left or p.again_have != q.again_have or p.header_have or q.header_have:
        return False
    if p.form != FORM_LITERAL or q.form != FORM_LITERAL or p.again_have:
        return False
    if p.count != q.count:
        return False
    memcpy(&other, q, sizeof(TapParse))
    take_evidence(&other, p)
    return memcmp(&p.syntax, &other.syntax, sizeof(TapParse) - own) == 0


cdef bint assumes_more(const TapParse* p, const TapParse* q) noexcept nogil:
    if p.unsure != q.unsure:
        return p.unsure
    return p.faults > q.faults or p.faults == q.faults and p.trial > q.trial


cdef void remove(TapState* tap, uint32_t at) noexcept nogil:
    # The order of the others stays.
    if at == 0:
        memcpy(&tap.first, &tap.more.parses[0], sizeof(TapParse))
        at = 1
    tap.parses -= 1
    if at < tap.parses:
        memmove(
            &tap.more.parses[at - 1], &tap.more.parses[at],
            (tap.parses - at) * sizeof(TapParse),
        )
    if tap.parses == 1:
        settle_places(tap, &tap.first)


cdef void tidy_parses(TapState* tap, TapParse* p) noexcept nogil:
    cdef TapParse* q
    cdef uint32_t at = 0
    cdef uint32_t n
    while parse_at(tap, at) != p:
        at += 1
    if p.dead:
        remove(tap, at)
        return
    for n in range(tap.parses):
        q = parse_at(tap, n)
        if q != p and alike(p, q):
            # The one that assumes less stands for both.
            if assumes_more(q, p):
                memcpy(q, p, sizeof(TapParse))
            remove(tap, at)
            return


cdef void keep_parse(TapState* tap, TapParse* winner) noexcept nogil:
    if winner != &tap.first:
        memcpy(&tap.first, winner, sizeof(TapParse))
    tap.parses = 1
    if tap.more != NULL:
        settle_places(tap, &tap.first)

"""The few wanted values out of a data set that passes in slices."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8, skip
from fastscp_ext.dataset.tap_forks cimport keep_parse, parse_at, tidy_parses
from fastscp_ext.dataset.tap_headers cimport HEADER
from fastscp_ext.dataset.tap_levels cimport (
    die, first_reading, is_level_proved, judge_item_end, prove,
)
from fastscp_ext.dataset.tap_parse cimport advance, bytes_to_step, run_alone
from fastscp_ext.dataset.tap_state cimport TapParse
from fastscp_ext.dataset.tap_values cimport is_uid, raw_value, same_value

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

cdef void tap_begin(TapState* tap, int negotiated) noexcept nogil:
    # `values` and their places are left as they were: `found` says which count.
    memset(tap, 0, <size_t>(<uint8_t*>&tap.lengths[0] - <uint8_t*>tap))
    tap.syntax = negotiated
    tap.parses = 1
    tap.first.syntax = negotiated
    tap.first.key = -1
    tap.first.header_want = HEADER
    first_reading(&tap.first)


cdef void tap_drop(TapState* tap) noexcept nogil:
    free(tap.more)
    tap.more = NULL


# Feeding --------------------------------------------------------------------------------------

cdef bint step(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil:
    # The one step that comes first in the bytes. False: all of the slice has been read.
    cdef TapParse* p
    cdef TapParse* next = NULL
    cdef uint64_t have  # perhaps more than a slice, which may be as long as 32 bits tell
    cdef uint64_t rest = 0
    cdef uint32_t amount
    cdef uint32_t k
    for k in range(tap.parses):
        p = parse_at(tap, k)
        have = <uint64_t>p.left + p.again_have
        amount = bytes_to_step(p)
        if amount <= have and (next == NULL or have - amount > rest):
            next = p
            rest = have - amount
    if next == NULL:
        for k in range(tap.parses):
            p = parse_at(tap, k)
            advance(tap, p, data, n, p.left + p.again_have)
        return False
    advance(tap, next, data, n, bytes_to_step(next))
    if tap.parses > 1:
        tidy_parses(tap, next)
    return True


cdef void publish(TapState* tap) noexcept nogil:
    cdef uint32_t k
    tap.syntax = tap.first.syntax
    tap.sniffed = tap.first.sniffed
    tap.settled = True
    for k in range(tap.parses):
        tap.settled = tap.settled and parse_at(tap, k).settled
    if tap.left_out and tap.first.found & ~tap.left_found:
        # At a bad end these are given back.
        tap.settled = False


cdef void tap_feed(TapState* tap, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef TapParse* p = &tap.first
    cdef uint32_t k
    tap.fed += n
    if tap.stopped:
        return
    for k in range(tap.parses):
        parse_at(tap, k).left = n
    while not (p.dead and tap.parses == 1):
        if tap.parses == 1 and p.again_have == 0 and bytes_to_step(p) > 0:
            run_alone(tap, data, n)
            if tap.parses == 1 and p.again_have == 0 and bytes_to_step(p) > 0:
                break
        elif not step(tap, data, n):
            break
    if p.dead and tap.parses == 1:
        stop(tap)
    publish(tap)


cdef void stop(TapState* tap) noexcept nogil:
    # The only parse left is dead. Where it had assumed a fault that nothing has borne out, it is
    # the header in doubt that cannot be read past.
    cdef TapParse* p = &tap.first
    tap.stopped = True
    if p.trial or p.suspect:
        tap.stop_tag = tap.doubt_tag
        tap.stop_at = tap.doubt_at
    else:
        tap.stop_tag = p.header_tag
        tap.stop_at = p.header_at
    if p.trial:
        p.unproved |= p.found & ~tap.agreed
        p.found &= tap.agreed
    tell(tap)


cdef void tap_stop(TapState* tap) noexcept nogil:
    cdef TapParse* p = &tap.first
    if tap.stopped:
        return
    if tap.parses > 1:
        p.unproved |= p.found & ~tap.agreed
        p.found &= tap.agreed
        keep_parse(tap, p)
    die(p)
    stop(tap)


# The end --------------------------------------------------------------------------------------

cdef void tell(TapState* tap) noexcept nogil:
    # What the only parse left has come to.
    cdef TapParse* p = &tap.first
    if tap.left_out and (p.faults or not p.ended):
        p.unproved |= p.found & ~tap.left_found
        p.found &= tap.left_found
    tap.syntax = p.syntax
    tap.sniffed = p.sniffed
    tap.settled = True
    tap.found = p.found
    tap.conflicting = p.conflicting
    tap.unproved = p.unproved
    tap.pixels = p.pixels
    tap.truncated = not tap.stopped and not p.ended


cdef bint may_be_right(const TapParse* p, bint ended, bint sure) noexcept nogil:
    # ended: others have ended where a data set may. sure: others are borne out by what came.
    if ended:
        return p.ended
    return not sure or p.trial == 0 and not p.suspect


cdef bint needs_less(const TapParse* p, const TapParse* q) noexcept nogil:
    # Fewer faults, or as many and the negotiated family.
    return p.faults < q.faults or p.faults == q.faults and q.sniffed and not p.sniffed


cdef void agree(TapState* tap, TapParse* p, const TapParse* q) noexcept nogil:
    # Leave p what q says as well.
    cdef uint32_t bit
    cdef int key
    for key in range(<int>TAP_KEYS):
        bit = <uint32_t>1 << key
        if p.found & q.found & bit and same_value(tap, p, q, key):
            continue
        if (p.found | q.found) & bit:
            p.unproved |= bit
            p.found &= ~bit
    if p.pixels != q.pixels:
        p.pixels = TAP_PIXELS_NONE
    p.conflicting |= q.conflicting


cdef void choose(TapState* tap) noexcept nogil:
    # Of several parses the one that needs no fault, if it has ended well: the data set is legal.
    # Otherwise what all agree on that may be right.
    cdef TapParse* p
    cdef TapParse* winner = NULL
    cdef bint ended = False
    cdef bint sure = False
    cdef uint32_t k
    for k in range(tap.parses):
        p = parse_at(tap, k)
        ended = ended or p.ended
        sure = sure or p.trial == 0 and not p.suspect
    for k in range(tap.parses):
        p = parse_at(tap, k)
        if may_be_right(p, ended, sure) and (winner == NULL or needs_less(p, winner)):
            winner = p
    if not (winner.ended and winner.faults == 0):
        for k in range(tap.parses):
            p = parse_at(tap, k)
            if p != winner and may_be_right(p, ended, sure):
                agree(tap, winner, p)
    keep_parse(tap, winner)


cdef void tap_end(TapState* tap, bint whole) noexcept nogil:
    cdef TapParse* p
    cdef bint inside
    cdef uint32_t k
    if tap.stopped:
        tap_drop(tap)
        return
    for k in range(tap.parses):
        p = parse_at(tap, k)
        inside = not whole or p.header_have > 0 or p.skip > 0
        if p.items_over and not inside:
            judge_item_end(p, tap.fed, False)
        prove(p, inside)
    p = &tap.first
    if tap.parses > 1:
        choose(tap)
    if p.trial and not p.ended:
        # It has read nothing that bears it out.
        stop(tap)
    else:
        tell(tap)
    tap_drop(tap)


cdef Cursor tap_value(const TapState* tap, int key) noexcept nogil:
    cdef const TapParse* p = &tap.first
    cdef Cursor value
    cdef uint8_t byte = 0
    cdef uint32_t sure = p.found
    if not p.settled:
        sure &= ~p.shaky
    if p.count > 1:
        sure &= p.before_guess
    if p.unsure and not is_level_proved(p):
        sure &= p.before_unsure
    if tap.parses > 1:
        sure &= tap.agreed
    if not sure & (<uint32_t>1 << key):
        return cursor_over(&tap.values[0], 0)
    value = raw_value(tap, p, key)
    if not is_uid(key):
        while peek_u8(&value, 0, &byte) and byte == c" ":
            skip(&value, 1)
    return value


@cython.final
cdef class Tap:
    """The tap as Python sees it. See tap.pyi."""

    cdef TapState state

    def __cinit__(self, int negotiated):
        if not TAP_SYNTAX_UNKNOWN <= negotiated <= TAP_EXPLICIT_BE:
            raise ValueError(f"{negotiated} is no transfer syntax family (0 to 3)")
        tap_begin(&self.state, negotiated)

    def __dealloc__(self):
        tap_drop(&self.state)

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

# What holds reading from one peer back, and whether that peer keeps up.

from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t


# Reasons not to read.
cdef enum Hold:
    HOLD_ADMISSION = 1       # the request is being decided
    HOLD_COMMIT = 2          # much is owed or uncommitted
    HOLD_SENDING = 4         # the peer does not read what we send
    HOLD_SLOW = 16           # space is short
    HOLD_TURN = 32           # it has had enough of this turn of the loop
    HOLD_REST = 64           # what was read before is still to be taken in
    # What is read is not taken in either.
    HOLDS_ALL = HOLD_COMMIT | HOLD_SENDING

# What the peer sends next, from its first byte on.
cdef enum Due:
    DUE_ANYTHING = 0
    DUE_HEADER = 1           # of a PDU inside a message
    DUE_DATA_SET = 2         # the first such header of a data set
    DUE_MESSAGE = 3


cdef class Pace:
    cdef PyObject* association   # the receiver, borrowed; NULL once that is gone
    cdef object transport    # None: none yet, or none any more
    cdef int fd              # of the transport's socket, or -1
    cdef bint direct         # what is sent goes straight to it
    cdef int holds
    cdef double unread_since     # when HOLD_SENDING began
    cdef int low_water       # bytes the socket holds back until they are there
    cdef int late            # how often messages were, the latest ones above all: 0 to 16
    cdef int in_pieces       # how often a data set was not there with its command set: 0 to 64
    cdef bint watched        # `let_short_in` is due
    cdef bint fresh          # there was a message or an answer since the last time
    cdef uint64_t short_until    # instances answered until short messages are expected no more
    cdef bint prompt         # acknowledge what is read at once
    cdef bint held_up        # the peer was seen to need that
    cdef bint empty_ends     # the peer was seen to end a data set with an empty fragment
    cdef uint64_t last_bytes     # of the last data set
    cdef double progress_at
    cdef double rate_at
    cdef uint64_t rate_bytes     # read since `rate_at`

    cdef int attach(self, transport, int fd, bint direct) except -1
    cdef int detach(self) except -1
    cdef void arrived(self, uint64_t nbytes, bint midway) noexcept
    cdef void restart(self) noexcept
    cdef bint quiet(self) noexcept
    cdef double stuck_since(self, double now, double min_rate) noexcept
    cdef int before_next(self, Due due, uint64_t stored, uint64_t refused, bint may_wait) except -1
    cdef bint let_short_in(self, bint owing, uint64_t stored) noexcept
    cdef int _acknowledge(self, uint64_t answered) except -1
    cdef void _await_more(self, int due) noexcept
    cdef int set_hold(self, int bit, bint on) except -1
    cdef bint _awaits_turn(self, int bit) noexcept
    cdef int end_turn(self) except -1
    cdef str overdue(
        self, bint midway, bint busy, double now, double message_timeout, double min_rate,
        double idle_timeout)

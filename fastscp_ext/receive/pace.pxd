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


cdef class Pace:
    cdef PyObject* association   # the receiver, borrowed; NULL once that is gone
    cdef object transport    # None: none yet, or none any more
    cdef int fd              # of the transport's socket, or -1
    cdef bint direct         # what is sent goes straight to it
    cdef int holds
    cdef double unread_since     # when HOLD_SENDING began
    cdef int low_water       # bytes the socket holds back until they are there
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
    cdef int before_next(self, bint header_due, uint64_t stored, uint64_t refused) except -1
    cdef int _acknowledge(self, uint64_t answered) except -1
    cdef void _await_more(self, int due) noexcept
    cdef int set_hold(self, int bit, bint on) except -1
    cdef int end_turn(self) except -1
    cdef str overdue(
        self, bint midway, bint busy, double now, double message_timeout, double min_rate,
        double idle_timeout)

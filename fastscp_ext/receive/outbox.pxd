# The responses owed to one peer, and what is sent to it.

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.receive.instance cimport Instance
from fastscp_ext.receive.pace cimport Pace
from fastscp_ext.receive.pool cimport Pool
from fastscp_ext.shared.block cimport Tally
from fastscp_ext.shared.tallies cimport Tallies


cdef class Outbox:
    cdef PyObject* association   # the receiver, borrowed; NULL once that is gone
    cdef Pace pace               # has the transport
    cdef Pool* pool              # where answered instances go
    cdef object pool_of          # keeps the pool
    cdef Instance* first         # in request order
    cdef Instance* last
    cdef uint8_t* outstanding    # a bit for each Message ID in use; NULL: not kept
    cdef uint32_t peer_max_pdu_length
    cdef bint durable            # its association's instances are stable ones
    cdef bint backlog            # the transport may hold something back
    cdef bint silent             # nobody is to be answered any more
    cdef int uncommitted         # of the reception's, those of this association
    cdef int helped              # of these, those that helper threads have or will have
    cdef bint let_go             # has room for its next turn, which is still to come
    cdef public bint trace
    cdef public bint verbose
    cdef public bint tell_responses_sent  # the association ends once nothing is owed
    cdef readonly int owed
    cdef Tally* tally            # what the association has done: in `shared`, or `own`
    cdef Tally own
    cdef Tallies shared          # has the slot; None: it has none
    cdef Py_ssize_t slot

    cdef int count_in(self, Tallies shared, Py_ssize_t slot) except -1
    cdef int keep_message_ids(self) except -1
    cdef bint claim_message_id(self, Instance* i) noexcept
    cdef bint behind_elder(self, Instance* i) noexcept
    cdef int owe(self, Instance* i) except -1
    cdef int answer(self) except -1
    cdef Instance* _next(self) noexcept
    cdef uint32_t _respond(self, Instance* i, uint8_t* out, uint32_t room) except? 0
    cdef int _tell(self, Instance* i) except -1
    cdef void silence(self) noexcept
    cdef void abandon(self) noexcept
    cdef int _write(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef int _broken(self, int error_no) except -1

# One association's receive path: from bytes read to instances complete and responses sent.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastscp_ext.wire.framing cimport Framer
from fastscp_ext.receive.instance cimport Instance
from fastscp_ext.receive.intake cimport Intake, Owing
from fastscp_ext.receive.rules cimport Rules


cdef enum Hold:
    HOLD_ADMISSION = 1
    HOLD_COMMIT = 2
    HOLD_SENDING = 4
    HOLD_STOPPED = 8
    HOLD_SLOW = 16
    HOLD_TURN = 32           # it has read enough for this turn of the loop

ctypedef struct Context:
    uint16_t abstract_at          # places in the association's `uids`
    uint16_t syntax_at
    uint8_t abstract_size         # bytes, <= 64
    uint8_t syntax_size
    uint8_t tap_syntax
    bint deflated
    bint storage


cdef class Receiver(Owing):
    cdef readonly Intake intake
    cdef readonly Rules rules     # None until `establish`
    cdef Framer framer
    cdef uint8_t in_use[256]      # context id -> accepted or not
    cdef uint8_t places[256]      # context id -> place in `accepted`
    cdef Context* accepted
    cdef bytes uids               # of all contexts, end to end
    cdef Instance* current
    cdef Instance* owed_first
    cdef Instance* owed_last
    cdef int fd
    cdef object transport
    cdef bint backlog
    cdef uint64_t last_bytes      # of the data set before this one
    cdef int low_water            # bytes the socket holds back until they are there
    cdef bint prompt              # acknowledge what is read at once
    cdef bint held_up             # the peer was seen to need that
    cdef bint established
    cdef bint awaiting_associate
    cdef uint8_t* outstanding     # a bit for each Message ID in use; NULL: not kept
    cdef bint oversize_told
    cdef int holds
    cdef uint32_t max_pdu_length
    cdef uint32_t peer_max_pdu_length
    cdef bytes tag
    cdef bytes calling
    cdef bytes called
    cdef int ae_row
    cdef double progress_at
    cdef double rate_at
    cdef uint64_t rate_bytes
    cdef public bint trace
    cdef public bint verbose
    cdef public bint wind_up      # the association ends once nothing is owed
    cdef readonly uint64_t number
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t stored
    cdef readonly uint64_t refused
    cdef readonly uint64_t ignored_bytes

    cdef bint _midway(self) noexcept
    cdef int _due(self) noexcept
    cdef void _await_more(self, int due) noexcept
    cdef int _take_in(self, Py_ssize_t nbytes) except -1
    cdef int _acknowledge(self) except -1
    cdef int _frames(self, Py_ssize_t nbytes) except -1
    cdef int _header(self) except -1
    cdef int _command(self) except -1
    cdef int _store(self, void* scan, bint data_follows) except -1
    cdef int _complete(self) except -1
    cdef bint _waits(self, Instance* i) noexcept
    cdef int _owe(self, Instance* i) except -1
    cdef int answer(self) except -1
    cdef int go_on(self) except -1
    cdef int speed_up(self) except -1
    cdef int _tell(self, Instance* i) except -1
    cdef int _write(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef int _set_hold(self, int bit, bint on) except -1

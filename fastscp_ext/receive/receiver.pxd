# One association's receive path: from bytes read to instances complete and responses sent.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.receive.contexts cimport Context, Contexts
from fastscp_ext.receive.instance cimport Instance
from fastscp_ext.receive.reception cimport Reception
from fastscp_ext.receive.outbox cimport Outbox
from fastscp_ext.receive.pace cimport Due, Pace
from fastscp_ext.receive.rest cimport Rest
from fastscp_ext.receive.rules cimport Rules
from fastscp_ext.wire.command cimport CommandScan
from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.wire.framing cimport Framer


cdef class Receiver:
    cdef readonly Reception reception
    cdef readonly Outbox outbox
    cdef readonly Pace pace
    cdef readonly Rules rules     # None until `establish`
    cdef Contexts contexts        # likewise
    cdef Framer framer
    cdef Instance* current        # of the message whose data set comes in
    cdef Rest rest                # of the last read, while it waits
    cdef bytes request            # a whole A-ASSOCIATE-RQ that waits to be decoded, or None
    cdef uint32_t unfinished      # bytes of it, and of what is not whole, last weighed
    cdef bint wary                # the last read left a rest: the next is a short one
    cdef bint established
    cdef bint stopped             # nothing is interpreted any more
    cdef bint awaiting_associate
    cdef bint oversize_told
    cdef public bint is_asking    # `instance_received` says what becomes of each instance
    cdef uint32_t max_pdu_length
    cdef bytes journal_members
    cdef bytes calling_ae
    cdef bytes called_ae
    cdef int ae_row               # of the calling AE title, among the counters
    cdef readonly uint64_t number
    cdef readonly uint64_t ignored_bytes

    cdef bint _midway(self) noexcept
    cdef Due _due(self) noexcept
    cdef Py_ssize_t _room(self) noexcept
    cdef bint _is_large(self) noexcept
    cdef int _take_in(self, Py_ssize_t nbytes) except -1
    cdef int _go_on(self) except -1
    cdef int _keep(self, Cursor left) except -1
    cdef int _pause(self) except -1
    cdef int _drop_rest(self) except -1
    cdef int _before_next(self) except -1
    cdef int _frames(self, Cursor* c) except -1
    cdef uint32_t _unfinished_now(self) noexcept
    cdef int _weigh(self) except -1
    cdef uint32_t _data(self, Cursor* c) except? 0
    cdef int _header(self) except -1
    cdef int _command(self) except -1
    cdef int _other_command(self, bint data_follows) except -1
    cdef int _store(self, const CommandScan* scan, bint data_follows) except -1
    cdef void _begin(self, Instance* i, const CommandScan* scan, Context* context) noexcept
    cdef int _judge(self, Instance* i, Context* context) except -1
    cdef int _complete(self) except -1
    cdef bint _is_dropped(self, Instance* i) except -1
    cdef int _owe(self, Instance* i) except -1

# C-STOREs over the socket of an association: the window, what goes out, what comes in.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastscp_ext.send.parcel cimport Job
from fastscp_ext.send.stage cimport Stage
from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.wire.framing cimport Framer


# How the use of an association ended. Python knows these numbers by the strings of `_ENDS`.
cdef enum End:
    GOING = 0
    END_CLOSED = 1              # end of file, or an error of the socket: `errno_of_end`
    END_PDU = 2                 # a PDU other than P-DATA-TF came: `pdu` has it
    END_BROKEN = 3              # the peer broke the protocol: `text` says how
    END_SEND_TIMEOUT = 4
    END_RESPONSE_TIMEOUT = 5
    END_FILE = 6                # a file failed in the middle of its message: `errno_of_end`

# The messages whose response is due. Invariant: count <= window <= mask + 1.
ctypedef struct Outstanding:
    Job** slots                 # owned: by the low bits of their message ids
    uint32_t mask               # of those bits
    uint32_t window             # outstanding at a time, at most
    uint32_t count
    uint16_t last_id


cdef class Sender:
    cdef int fd
    cdef int send_timeout_ms
    cdef int response_timeout_ms
    cdef bint blocking
    cdef bint stopping
    cdef Stage stage            # of the message that goes out, or of the next one
    cdef Outstanding due
    cdef Job* first_done
    cdef Job* last_done
    cdef dict held              # Parcel to None, in the order they came
    cdef Framer framer
    cdef uint8_t* received      # owned
    cdef Cursor unread          # of `received`
    cdef object on_pdu          # told of each P-DATA-TF; None: nobody is
    cdef bint tracing
    cdef bint coming            # a P-DATA-TF of the peer has begun and was not told of
    cdef uint32_t coming_length
    cdef uint32_t coming_data   # bytes of data sets in it so far
    cdef list coming_messages   # (message id, command field, status) of the commands in it
    cdef End end
    cdef int errno_of_end
    cdef str text
    cdef bytes pdu
    cdef readonly bint mid_message
    cdef readonly uint64_t sent_bytes
    cdef readonly uint64_t answered

    # What goes out
    cdef Py_ssize_t _run(self, Job* job) noexcept nogil
    cdef void _send(self, Job* job) noexcept nogil
    cdef int _push_staged(self, const Job* job) noexcept nogil
    cdef int _push(self, const uint8_t* data, uint32_t size) noexcept nogil
    # What comes in
    cdef void _settle(self, uint32_t most, bint whole) noexcept nogil
    cdef int _ended(self, int why) noexcept nogil
    cdef int _take_in(self, bint at_hand) noexcept nogil
    cdef ssize_t _read(self, int flags) noexcept nogil
    cdef bint _mid_pdu(self) noexcept nogil
    cdef int _parse(self) noexcept nogil
    cdef void _command(self) noexcept nogil
    cdef void _done(self, Job* job) noexcept nogil
    # What is told of the PDUs, where somebody asks
    cdef int _push_each(self, const Job* job) noexcept nogil
    cdef void _tell_sent(self, const Job* job, Cursor pdu) noexcept
    cdef void _trace_frame(self, int kind) noexcept
    cdef void _tell_received(self) noexcept

# TLS between the event loop and one receiver.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.receive.receiver cimport Receiver
from fastscp_ext.receive.reception cimport Reception
from fastscp_ext.receive.rest cimport Rest
from fastscp_ext.wire.cursor cimport Cursor


cdef enum SecurePhase:
    SECURE_SHAKING = 0       # the handshake is under way
    SECURE_OPEN = 1          # records are decrypted
    SECURE_HEARD = 2         # the peer has said its last; nothing is read any more
    SECURE_DEAF = 3          # what still comes is only counted
    SECURE_OVER = 4          # neither is anything sent, except what is on its way


# Bytes lent to the ssl module for one call, so that no record makes an object.
cdef class Span:
    cdef uint8_t* at
    cdef Py_ssize_t size


cdef class Ciphertext:
    cdef Reception reception
    cdef uint8_t* buffer
    cdef object incoming     # an ssl.MemoryBIO, empty between two calls
    cdef Span record         # what goes into it
    cdef Span plain          # where decrypted bytes go
    cdef object context      # of the newest connection
    cdef uint32_t sessions   # of it, that OpenSSL keeps for connections that are gone


cdef class Secured:
    cdef Ciphertext shared
    cdef object keeper
    cdef readonly object ssl_object   # None: it is over
    cdef public object last_call      # of `abort`, cancelled when the connection is gone
    cdef object outgoing     # an ssl.MemoryBIO
    cdef object read         # bound methods: one call each a record
    cdef object feed
    cdef object raw          # the loop's transport; None: none yet, or none any more
    cdef Receiver receiver   # None until `open`
    cdef Rest rest           # ciphertext that was read and is not decrypted
    cdef Py_ssize_t counted  # bytes of it that count among the reception's rests
    cdef Py_ssize_t kept     # bytes of it in front of the buffer that the next read fills
    cdef Py_ssize_t size     # bytes of that buffer which this read may use, those included
    cdef SecurePhase phase
    cdef int fd              # of the raw transport's socket, or -1
    cdef bint began          # a byte has come
    cdef bint paused         # by the receiver
    cdef bint raw_paused
    cdef bint asked          # a turn is due
    cdef bint cut            # the last turn ended although there is more
    cdef bint within         # the last record was read in part
    cdef bint peer_ended     # by close_notify or FIN, behind what is kept
    cdef bint silent         # close_notify was sent, or must not be
    cdef uint32_t empty      # records in a row that brought no plaintext
    cdef uint32_t shaken     # bytes of records of the handshake
    cdef Py_ssize_t in_a_row     # bytes of reads that filled the buffer
    cdef uint64_t ignored
    cdef object error        # why it cannot go on

    cdef bint _is_short(self) noexcept
    cdef int _hear(self, Cursor* c) except -1
    cdef int _take_in(self, Cursor* c) except -1
    cdef Py_ssize_t _collect(self, Cursor* c, uint32_t* records) except -1
    cdef int _feed(self, Cursor record) except -1
    cdef Py_ssize_t _read(self, uint8_t* at, Py_ssize_t room) except -2
    cdef int _shake(self, Cursor* c) except -1
    cdef int _keep(self, Cursor left) except -1
    cdef void _count(self, Py_ssize_t nbytes) noexcept
    cdef bint _has_more(self) noexcept
    cdef int _ask(self) except -1
    cdef int _pause_raw(self) except -1
    cdef int _resume_raw(self) except -1
    cdef int _read_on(self) except -1
    cdef bint _whole(self, Cursor c) noexcept
    cdef int _emptied(self) except -1
    cdef void _let_go(self) noexcept
    cdef int _ignore(self, Py_ssize_t nbytes) except -1
    cdef int _flush_quietly(self) except -1
    cdef int _peer_is_done(self) except -1
    cdef int _hand_over(self) except -1
    cdef int _fail(self) except -1
    cdef int _say_end(self) except -1
    cdef bint _may_leave_session(self) except -1
    cdef int _flush(self) except -1
    cdef void _deafen(self, SecurePhase phase) noexcept

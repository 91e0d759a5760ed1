"""TLS between the event loop and one receiver. See secure.pyi.

The cryptography is the ssl module's, which reads from one memory and writes to another. All that
stands here is which bytes it gets, and when. Memory decides the form: a connection that rests has
no buffer of its own, for there may be thousands of them.

Sources: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2).
"""

import ssl

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastscp_ext.receive.receiver cimport Receiver
from fastscp_ext.receive.reception cimport Reception
from fastscp_ext.receive.rest cimport Rest, rest_drop, rest_keep, rest_left
from fastscp_ext.wire.cursor cimport Cursor, cursor_over, peek_u8
from fastscp_ext.wire.record cimport (
    PLAIN_MOST, RECORD_HANDSHAKE, RECORD_MORE, RECORD_WHOLE, RECORD_WRONG, RecordFound, take_record,
)

__all__ = ["Ciphertext", "Secured"]

cdef extern from "sys/socket.h" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int fd, const void* buf, size_t len, int flags)

cdef enum:
    # Of one read, and as much is written at a time. Twice as much leaves the cache of a core before
    # it is decrypted, and costs an instance of 525 KB a sixth more.
    CIPHERTEXT_BYTES = 131072
    SHORT_BYTES = 65536          # of one where a rest is to be expected: three records and more
    EMPTY_MOST = 64              # records in a row without plaintext, of which each costs us work
    IGNORED_MOST = 16777216      # bytes that a peer sends behind its end before it is cut off
    HANDSHAKE_MOST = 24576       # bytes of records; a chain of certificates takes some 10 KiB
    RECORDS_MOST = 256           # of one turn: each costs as much, however little it holds
    SESSIONS_MOST = 32           # that a context keeps, with the chains of certificates in them

_WANT_READ = ssl.SSLWantReadError
_ZERO_RETURN = ssl.SSLZeroReturnError
_MEMORY = ssl.MemoryBIO


@cython.final
cdef class Span:
    """Bytes lent for one call."""

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.at, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer* view):
        pass


@cython.final
cdef class Ciphertext:
    """What the TLS connections of one worker share. See secure.pyi."""

    def __cinit__(self, Reception reception not None):
        self.reception = reception
        self.buffer = <uint8_t*>malloc(CIPHERTEXT_BYTES)
        if self.buffer == NULL:
            raise MemoryError()
        # One for all: whoever has put a record into it takes it out at once. The memory of one
        # stays as large as it has ever been, which is a record.
        self.incoming = _MEMORY()
        self.record = Span.__new__(Span)
        self.plain = Span.__new__(Span)
        self.context = None
        self.sessions = 0

    def __dealloc__(self):
        free(self.buffer)


@cython.final
cdef class Secured:
    """One TLS connection. See secure.pyi."""

    def __cinit__(self, Ciphertext shared not None, context not None, keeper not None):
        self.fd = -1
        self.shared = shared
        self.keeper = keeper
        self.outgoing = _MEMORY()
        self.ssl_object = context.wrap_bio(shared.incoming, self.outgoing, server_side=True)
        if context is not shared.context:
            shared.context = context
            shared.sessions = 0
        self.read = self.ssl_object.read
        self.feed = shared.incoming.write

    def __dealloc__(self):
        if self.counted:
            self.shared.reception.rests -= self.counted
        rest_drop(&self.rest)

    @property
    def rest_bytes(self):
        """Bytes of ciphertext that were read and are not decrypted."""
        return rest_left(&self.rest).left

    @property
    def has_begun(self):
        """Whether a byte has come."""
        return self.began

    # -- what the event loop calls

    def connection_made(self, transport):
        """The connection is the loop's. See secure.pyi."""
        self.raw = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self.fd = sock.fileno()
        if self.phase == SECURE_OVER:
            # It was to end before it began.
            transport.abort()

    def get_buffer(self, Py_ssize_t sizehint):
        """The space the next read goes to, which this object exports. See secure.pyi."""
        # Behind the beginning of a record that has not all come. Where nothing comes after all,
        # another connection's read overwrites it there, and `rest` still has it.
        cdef Cursor left = rest_left(&self.rest)
        self.kept = left.left
        self.size = SHORT_BYTES if self._is_short() else CIPHERTEXT_BYTES
        if left.left:
            memcpy(self.shared.buffer, left.at, left.left)
        return self

    cdef bint _is_short(self) noexcept:
        # What is left of a read is copied where its association pauses: where the receiver takes
        # little at a time for that reason, so do we.
        return self.kept < SHORT_BYTES and (
            self.receiver is None or self.receiver._room() <= SHORT_BYTES
        )

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(
            view, self, self.shared.buffer + self.kept, self.size - self.kept, 0, flags
        )

    def __releasebuffer__(self, Py_buffer* view):
        pass

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what was just read."""
        cdef Cursor c = cursor_over(self.shared.buffer, <uint32_t>(self.kept + nbytes))
        cdef bint filled = c.left == self.size
        if self.phase >= SECURE_HEARD:
            self._ignore(nbytes)
            return
        if self.phase == SECURE_SHAKING:
            self._hear(&c)
            return
        try:
            self._take_in(&c)
        finally:
            self._keep(c)
        self.in_a_row = self.in_a_row + nbytes if filled else 0
        if self.phase == SECURE_OPEN:
            # Once a read. Where a record is not whole yet, it is for us that the peer may wait.
            self.receiver._before_next()
            if self.cut and not self.paused:
                self._read_on()
            elif not self.paused and self.in_a_row >= self.receiver._room():
                # More is there, and the loop would go on reading here: the others' turn first.
                self.in_a_row = 0
                self.receiver.pace.end_turn()

    def eof_received(self):
        """The peer sends no more: FIN, which may come without close_notify."""
        if self.phase != SECURE_OPEN:
            return self.phase == SECURE_HEARD
        self.peer_ended = True
        if not self.paused and not self._has_more():
            self._peer_is_done()
        return True

    def connection_lost(self, error):
        """The connection is gone. Whose it is hears of it."""
        cdef Receiver receiver = self.receiver
        cdef object keeper = self.keeper
        self.raw = None
        self.fd = -1
        self._hand_over()
        self._deafen(SECURE_OVER)
        self.receiver = self.keeper = None
        if receiver is not None:
            receiver.connection_lost(self.error or error)
        else:
            keeper.lost(self, self.error or error)
        self._let_go()
        if self.last_call is not None:
            self.last_call.cancel()
            self.last_call = None

    def pause_writing(self):
        if self.receiver is not None:
            self.receiver.pause_writing()

    def resume_writing(self):
        if self.receiver is not None:
            self.receiver.resume_writing()

    def next_turn(self):
        """Go on, now that others had their turn. See secure.pyi."""
        cdef Rest rest = self.rest
        cdef Cursor c = rest_left(&rest)
        self.asked = False
        if self.raw is None or self.paused:
            return
        self.rest.bytes = NULL
        self.rest.at = self.rest.size = 0
        try:
            if self.phase == SECURE_SHAKING:
                self._shake(&c)
            elif self.phase == SECURE_OPEN:
                self._take_in(&c)
                if self.phase == SECURE_OPEN:
                    self.receiver._before_next()
        except Exception as error:
            # The loop would only log it.
            if self.receiver is None:
                raise
            self.receiver.failed(error)
        finally:
            self._keep(c)
            rest_drop(&rest)
        if self.phase == SECURE_OPEN and self.receiver is None:
            self.keeper.shaken(self)
        else:
            self._read_on()

    # -- the handshake

    cdef int _hear(self, Cursor* c) except -1:
        # A piece of it: a turn of its own, for it may cost a signature.
        cdef Cursor look = c[0]
        cdef Cursor record
        cdef uint8_t first = 0
        if not self.began and peek_u8(c, 0, &first):
            self.began = True
            if first != RECORD_HANDSHAKE:
                self._deafen(SECURE_OVER)
                self.silent = True
                self.keeper.stranger(self, first)
                self.raw.close()
                return 0
        self._keep(look)
        if take_record(&look, &record) != RECORD_MORE:
            self._pause_raw()
            self._ask()
        return 0

    cdef int _shake(self, Cursor* c) except -1:
        # With each record that is there, until it is done.
        cdef Cursor record
        cdef RecordFound found
        for _ in range(RECORDS_MOST):
            found = take_record(c, &record)
            if found == RECORD_MORE:
                return 0
            if found == RECORD_WRONG:
                # The ssl module says what is wrong, and has the alert for it.
                record = c[0]
                c.left = 0
            self.shaken += record.left
            if self.shaken > HANDSHAKE_MOST:
                self.error = ssl.SSLError(
                    ssl.SSL_ERROR_SSL, f"handshake longer than {HANDSHAKE_MOST >> 10} KiB"
                )
                return self._fail()
            self._feed(record)
            try:
                self.ssl_object.do_handshake()
            except _WANT_READ:
                if found == RECORD_WRONG:
                    self.error = ssl.SSLError(ssl.SSL_ERROR_SSL, "this is no TLS record")
            except OSError as error:
                self.error = error
            else:
                self.phase = SECURE_OPEN
            finally:
                self._emptied()
            if self.error is not None:
                return self._fail()
            # Whoever has gone meanwhile is heard of by the loop.
            self._flush_quietly()
            if self.phase == SECURE_OPEN:
                return 0
        return 0

    def open(self, Receiver receiver not None):
        """A receiver gets what comes from now on. See secure.pyi."""
        if self.raw is None:
            receiver.connection_lost(self.error)
            return
        self.receiver = receiver
        receiver.connection_made(self)
        self._read_on()

    # -- records

    cdef int _take_in(self, Cursor* c) except -1:
        # Decrypt what is whole, as far as the receiver takes it, and as one turn may.
        cdef Py_ssize_t got
        cdef uint32_t records = RECORDS_MOST
        self.cut = False
        while self.phase == SECURE_OPEN and not self.paused:
            got = self._collect(c, &records)
            if got:
                self.receiver._take_in(got)
                continue
            if self.error is not None:
                self._fail()
            elif self._whole(c[0]):
                self.cut = True
            elif self.peer_ended:
                self._peer_is_done()
            break
        if self.phase == SECURE_OPEN and self.outgoing.pending:
            # An alert, or the like.
            self._flush_quietly()
        return 0

    cdef Py_ssize_t _collect(self, Cursor* c, uint32_t* records) except -1:
        # Plaintext for one call of the receiver; how many bytes. 0: nothing whole is there any
        # more, `records` were taken, of which it counts down, or `error` or `peer_ended` says why.
        cdef Receiver receiver = self.receiver
        cdef Py_ssize_t room = receiver._room()
        cdef Py_ssize_t have = 0
        cdef Py_ssize_t got
        cdef Cursor record
        cdef RecordFound found
        if self.error is not None:
            return 0
        while have == 0 or room - have >= PLAIN_MOST:
            found = RECORD_WHOLE
            if not self.within:
                if records[0] == 0:
                    break
                records[0] -= 1
                found = take_record(c, &record)
                if found == RECORD_MORE:
                    break
                if found == RECORD_WRONG:
                    record = c[0]
                    c.left = 0
                self._feed(record)
            got = self._read(receiver.reception.buffer + have, room - have)
            if got < 0:
                # Nothing behind it is read.
                c.left = 0
                break
            if got == 0:
                self.empty += 1
                if found == RECORD_WRONG:
                    self.error = ssl.SSLError(ssl.SSL_ERROR_SSL, "this is no TLS record")
                    break
                if self.empty > EMPTY_MOST:
                    self.error = ssl.SSLError(
                        ssl.SSL_ERROR_SSL, "too many records in a row without data"
                    )
                    c.left = 0
                    break
                continue
            self.empty = 0
            self.within = got == room - have and self.ssl_object.pending() > 0
            have += got
            if self.within:
                break
        return have

    cdef int _feed(self, Cursor record) except -1:
        self.shared.record.at = <uint8_t*>record.at
        self.shared.record.size = record.left
        self.feed(self.shared.record)
        return 0

    cdef Py_ssize_t _read(self, uint8_t* at, Py_ssize_t room) except -2:
        # What the record holds; 0: nothing; -1: it was the last one.
        cdef Py_ssize_t got = 0
        self.shared.plain.at = at
        self.shared.plain.size = room
        try:
            got = self.read(room, self.shared.plain)
        except _WANT_READ:
            return 0
        except _ZERO_RETURN:
            got = 0
        except OSError as error:
            self.error = error
            return -1
        finally:
            self.shared.plain.size = 0
            self._emptied()
        if got == 0:
            # close_notify
            self.peer_ended = True
            return -1
        return got

    cdef int _emptied(self) except -1:
        # What a failed call may have left is nobody else's.
        self.shared.record.size = 0
        if self.shared.incoming.pending:
            self.shared.incoming.read()
        return 0

    # -- ciphertext that waits

    cdef int _keep(self, Cursor left) except -1:
        rest_drop(&self.rest)
        if self.phase >= SECURE_HEARD:
            self.ignored += left.left
            left.left = 0
        self._count(
            left.left if self.paused or self.cut or self.phase == SECURE_SHAKING else 0
        )
        if left.left and not rest_keep(&self.rest, left, 0):
            self._count(0)
            raise MemoryError()
        return 0

    cdef void _count(self, Py_ssize_t nbytes) noexcept:
        self.shared.reception.rests += nbytes - self.counted
        self.counted = nbytes

    cdef bint _whole(self, Cursor c) noexcept:
        # Whether there is something to go on with.
        cdef Cursor record
        return self.within or self.error is not None or take_record(&c, &record) != RECORD_MORE

    cdef bint _has_more(self) noexcept:
        return self._whole(rest_left(&self.rest))

    cdef int _ask(self) except -1:
        if not self.asked:
            self.asked = True
            self.keeper.turn_due(self)
        return 0

    cdef int _pause_raw(self) except -1:
        if not self.raw_paused and self.raw is not None and not self.raw.is_closing():
            self.raw_paused = True
            self.raw.pause_reading()
        return 0

    cdef int _resume_raw(self) except -1:
        if self.raw_paused and self.raw is not None and not self.raw.is_closing():
            self.raw_paused = False
            self.raw.resume_reading()
        return 0

    cdef int _read_on(self) except -1:
        # With what waits, else from the socket.
        if self.phase == SECURE_HEARD:
            return 0
        if self.paused and self.phase != SECURE_OVER:
            self._pause_raw()
        elif self.phase <= SECURE_OPEN and (self.peer_ended or self._has_more()):
            self._pause_raw()
            self._ask()
        else:
            self._resume_raw()
        return 0

    # -- ends

    cdef int _peer_is_done(self) except -1:
        self._deafen(SECURE_HEARD)
        self._pause_raw()
        if not self.receiver.eof_received():
            self.close()
        return 0

    cdef int _fail(self) except -1:
        # The peer hears why, if it reads, and has to hang up: closing at once could make the
        # kernel answer unread input with RST, which may overtake the alert.
        self.error = self.keeper.broken(self, self.error)
        self._deafen(SECURE_OVER)
        self.silent = True
        self._flush_quietly()
        self._let_go()
        if self.raw is not None and not self.raw.is_closing():
            if self.raw.can_write_eof():
                self.raw.write_eof()
            self._resume_raw()
        return 0

    cdef int _hand_over(self) except -1:
        # The connection ends, and what was read of it counts (B37): what waits here becomes a rest
        # of the receiver, which takes it in although nobody can be answered.
        cdef Rest rest = self.rest
        cdef Cursor c = rest_left(&rest)
        cdef Py_ssize_t got
        cdef uint32_t records = c.left  # no fewer than there are
        if self.phase != SECURE_OPEN or self.receiver is None or not self.receiver.established:
            return 0
        self.rest.bytes = NULL
        self.rest.at = self.rest.size = 0
        self.receiver.disconnected()
        try:
            while True:
                got = self._collect(&c, &records)
                if got == 0:
                    break
                self.receiver._take_in(got)
        except Exception as error:
            self.receiver.failed(error)
        finally:
            rest_drop(&rest)
        return 0

    cdef void _deafen(self, SecurePhase phase) noexcept:
        # Nothing is decrypted any more.
        if self.phase < phase:
            self.phase = phase
        self._count(0)
        self.ignored += rest_left(&self.rest).left
        rest_drop(&self.rest)

    cdef void _let_go(self) noexcept:
        # Of what only cryptography needs, which is most of the memory.
        self.ssl_object = self.read = self.feed = self.outgoing = None

    cdef int _ignore(self, Py_ssize_t nbytes) except -1:
        self.ignored += <uint64_t>nbytes
        if self.receiver is not None:
            self.receiver.ignored_bytes += <uint64_t>nbytes
        if self.phase == SECURE_OVER and self.ignored > IGNORED_MOST:
            self.abort()
        return 0

    cdef int _say_end(self) except -1:
        # close_notify, once.
        if self.silent or self.raw is None:
            return 0
        self.silent = True
        if not self._may_leave_session():
            return 0
        try:
            self.ssl_object.unwrap()
        except OSError:
            # It is sent where there can be one; the peer's is not waited for.
            pass
        finally:
            self._emptied()
        return self._flush_quietly()

    cdef bint _may_leave_session(self) except -1:
        # OpenSSL keeps the session of whoever it says close_notify to, for hours, and the client's
        # chain with it; the ssl module cannot forbid it. That is so in TLS 1.2, of clients that
        # take no ticket. When there are enough, an end without that word is the lesser evil: what
        # an association says has an end of its own.
        if self.ssl_object.version() == "TLSv1.3":
            return True
        context = self.ssl_object.context
        session = self.ssl_object.session
        if session is None or not session.id or context.session_stats()["number"] <= SESSIONS_MOST:
            return True
        if context is not self.shared.context or self.shared.sessions >= SESSIONS_MOST:
            return False
        self.shared.sessions += 1
        return True

    # -- sending

    cdef int _flush(self) except -1:
        # Straight to the socket while the transport holds nothing back, as an outbox does.
        cdef bytes data = self.outgoing.read()
        cdef ssize_t got = 0
        if not data or self.raw is None or self.raw.is_closing():
            return 0
        if self.fd >= 0 and self.raw.get_write_buffer_size() == 0:
            got = send(
                self.fd, PyBytes_AS_STRING(data), <size_t>len(data), MSG_DONTWAIT | MSG_NOSIGNAL
            )
            if got < 0:
                if errno not in (EAGAIN, EINTR):
                    raise OSError(errno, "cannot send")
                got = 0
        if got < len(data):
            self.raw.write(data[got:])
        return 0

    cdef int _flush_quietly(self) except -1:
        # Of what nobody waits for; that the connection is gone is heard otherwise.
        try:
            self._flush()
        except OSError:
            pass
        return 0

    # -- the receiver's transport

    def write(self, data):
        """Send this, encrypted. See secure.pyi."""
        if self.silent or self.raw is None or self.raw.is_closing():
            return
        try:
            self.ssl_object.write(data)
        except ssl.SSLError as error:
            self.error = error
            self._fail()
        else:
            self._flush()

    def is_closing(self):
        return self.raw is None or self.raw.is_closing()

    def pause_reading(self):
        self.paused = True
        if self.phase != SECURE_OVER:
            self._pause_raw()

    def resume_reading(self):
        self.paused = False
        self._read_on()

    def can_write_eof(self):
        return self.raw is not None and self.raw.can_write_eof()

    def write_eof(self):
        """Say that this is the end. See secure.pyi."""
        if self.raw is None or self.phase == SECURE_OVER:
            return
        self._say_end()
        if self.phase == SECURE_OPEN:
            self._deafen(SECURE_DEAF)
            self._read_on()
        self.raw.write_eof()

    def close(self):
        """Close once all is sent, close_notify last."""
        if self.raw is None:
            return
        self._say_end()
        self._deafen(SECURE_OVER)
        self.raw.close()

    def abort(self):
        """Close at once."""
        self.silent = True
        self._hand_over()
        self._deafen(SECURE_OVER)
        if self.raw is not None:
            self.raw.abort()

    def get_write_buffer_size(self):
        return 0 if self.raw is None else self.raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high):
        if self.raw is not None:
            self.raw.set_write_buffer_limits(high)

    def get_extra_info(self, str name not None, default=None):
        """See secure.pyi."""
        if name == "ssl_object":
            return self.ssl_object
        if name == "sslcontext":
            return None if self.ssl_object is None else self.ssl_object.context
        if name == "undecrypted":
            return self.phase == SECURE_OPEN and self._has_more()
        return default if self.raw is None else self.raw.get_extra_info(name, default)

"""What holds reading from one peer back, and whether that peer keeps up. See pace.pyi."""

cimport cython
from libc.stdint cimport uint64_t
from posix.time cimport clock_gettime, clockid_t, timespec

__all__ = ["Pace"]

# To the tick, which is what timers need, and cheaper than the exact one.
cdef extern from "time.h" nogil:
    clockid_t CLOCK_MONOTONIC_COARSE

cdef extern from "netinet/in.h" nogil:
    int IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    int TCP_QUICKACK

cdef extern from "sys/socket.h" nogil:
    int SOL_SOCKET
    int SO_RCVLOWAT
    int setsockopt(int fd, int level, int name, const void* value, unsigned int len)

cdef extern from "sys/ioctl.h" nogil:
    int FIONREAD
    int ioctl(int fd, unsigned long request, ...)

cdef enum:
    PDATA_HEADERS = 12           # bytes: of a PDU and of its first PDV
    # More bytes than the longest command set of a C-STORE has with its headers (252, PS3.7
    # 9.3.1.1), and fewer than nearly every one has with its data set.
    MESSAGE_LEAST = 512
    SHORT_MESSAGES = 256         # instances: so long it is not tried again after a short message
    PROMPT_MESSAGES = 16         # acknowledged at once before it is tried without
    MANY_MESSAGES = 256          # from so many on a release may wait a little
    IN_PIECES = 16               # so often lately: it pays to wait for the last piece
    LATE = 8                     # so often lately: it does not
    SMALL_BYTES = 131072         # a data set that is mostly read in one go

# A silence inside a message from which on it may be the peer that waits for us, in seconds. Delayed
# acknowledgements come after 40 ms; the clock goes in ticks.
cdef double DELAYED_ACK_S = 0.025

# A message is late that begins so long after the one before, or after the answer to that: at such
# a pace looking for short messages costs more than it saves. In seconds, and the clock goes in
# ticks of 4 ms or 10: a single message proves nothing.
cdef double LATE_S = 0.003

# Who is to make room for others: bytes as fresh as this protect a PDU that is not whole, and inside
# a message so long a silence or so slow a trickle is no progress.
cdef double FRESH_S = 1.0
cdef double STUCK_S = 5.0


cdef inline double _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    return <double>t.tv_sec + <double>t.tv_nsec * 1e-9


@cython.final
cdef class Pace:
    """What holds reading from one peer back. See pace.pyi."""

    def __cinit__(self):
        self.fd = -1
        self.low_water = 1
        self.prompt = True

    cdef int attach(self, transport, int fd, bint direct) except -1:
        # fd: the transport's socket, or -1 where nothing may touch it. direct: its bytes are ours,
        # and not TLS records.
        self.transport = transport
        self.fd = fd
        self.direct = direct
        self.progress_at = self.rate_at = _now()
        if self.holds:
            transport.pause_reading()
        return 0

    cdef int detach(self) except -1:
        self.fd = -1
        self.transport = None
        return 0

    # -- reads

    cdef void arrived(self, uint64_t nbytes, bint midway) noexcept:
        # midway: inside a message or a PDU.
        cdef double now = _now()
        if now - self.progress_at > DELAYED_ACK_S and midway:
            self.held_up = self.prompt = True
        if not midway:
            if now - self.progress_at >= LATE_S:
                self.late = min(self.late + 2, 2 * LATE)
            elif self.late:
                self.late -= 1
            # What begins now is timed from now on.
            self.rate_at = now
            self.rate_bytes = 0
        self.rate_bytes += nbytes
        self.progress_at = now

    cdef void restart(self) noexcept:
        # Nothing can be held against the peer: what it does is timed from now on.
        self.progress_at = self.rate_at = _now()
        self.rate_bytes = 0
        self.fresh = True

    cdef int before_next(
        self, Due due, uint64_t stored, uint64_t refused, bint may_wait
    ) except -1:
        # What was read is taken in; how should the kernel wake us next? due: what comes. stored,
        # refused: instances of this peer answered so far. may_wait: there is somebody who calls
        # `let_short_in`. Returns 1 where he has to begin with that, else 0.
        cdef int water = 1
        if self.fd < 0:
            return 0
        # Whoever has filled a read has more on its way, and waits for nothing.
        if self.prompt and not self.holds & HOLD_TURN:
            self._acknowledge(stored + refused)
        # Most peers send the command set, the headers and the data set with calls of their own, and
        # each would wake us, though nothing can be answered before the last. So where a message is
        # due the kernel keeps what is less than one, and where the data set is, what is no more
        # than its headers. But not from a peer that waits for us to acknowledge it, nor from one
        # whose data sets end with an empty fragment, which is as short as the headers: the first
        # messages tell, and one that changes its habit is kept waiting once. And where data sets
        # are large it pays to be awake when the rest comes.
        if due != DUE_ANYTHING and self.direct and not (
            self.held_up or self.empty_ends or stored < PROMPT_MESSAGES
            or self.last_bytes > SMALL_BYTES
        ):
            if due != DUE_MESSAGE:
                water = PDATA_HEADERS + 1
            elif (
                may_wait and self.in_pieces >= IN_PIECES and self.late < LATE
                and stored >= MANY_MESSAGES and stored >= self.short_until
            ):
                water = MESSAGE_LEAST
        if due == DUE_DATA_SET:
            self.in_pieces = min(self.in_pieces + 2, 4 * IN_PIECES)
        elif due == DUE_MESSAGE and self.low_water != MESSAGE_LEAST and self.in_pieces:
            self.in_pieces -= 1
        self._await_more(water)
        if water != MESSAGE_LEAST:
            return 0
        self.fresh = True
        if self.watched:
            return 0
        self.watched = True
        return 1

    cdef bint let_short_in(self, bint owing, uint64_t stored) noexcept:
        # A release, an echo or an abort is shorter than what the kernel keeps. Called every few
        # milliseconds: where neither a message nor an answer was seen since the last call, and
        # nobody waits for us, what comes is read, whatever it is. owing, stored: responses owed,
        # and instances answered. Returns whether it is to be called again.
        cdef int kept = 0
        if self.fd >= 0 and self.low_water == MESSAGE_LEAST:
            if owing or self.fresh:
                self.fresh = False
                return True
            # What is as long as a message was only not read yet.
            if ioctl(self.fd, FIONREAD, &kept) == 0 and 0 < kept < MESSAGE_LEAST:
                self.short_until = stored + SHORT_MESSAGES
            self._await_more(1)
        self.watched = False
        return False

    cdef int _acknowledge(self, uint64_t answered) except -1:
        # A peer with Nagle's algorithm on waits for an acknowledgement before it sends the tail of
        # an instance, and the kernel would put that off for 40 ms. It forgets the flag, hence each
        # time. Once some messages have passed it is left out, for it costs a packet a read, until
        # the peer is seen to be held up.
        cdef int yes = 1
        if not self.held_up and answered > PROMPT_MESSAGES:
            self.prompt = False
            return 0
        setsockopt(self.fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof(yes))
        return 0

    cdef void _await_more(self, int due) noexcept:
        # An A-ABORT is shorter than that: `let_short_in` and `overdue` take it back.
        if due != self.low_water and setsockopt(
            self.fd, SOL_SOCKET, SO_RCVLOWAT, &due, sizeof(due)
        ) == 0:
            self.low_water = due

    # -- holds

    def hold(self, int why):
        """Stop reading for one more reason. See pace.pyi."""
        self.set_hold(why, True)

    def go_on(self, int why):
        """Take one reason back. See pace.pyi."""
        self.set_hold(why, False)

    cdef int set_hold(self, int bit, bint on) except -1:
        cdef int before = self.holds
        if on:
            if bit & ~self.holds & HOLD_SENDING:
                self.unread_since = _now()
            self.holds |= bit
        else:
            self.holds &= ~bit
            if bit == HOLD_REST:
                self.progress_at = _now()
            elif bit != HOLD_TURN:
                self.restart()
                if self._awaits_turn(bit):
                    self.end_turn()
        if self.transport is None or self.transport.is_closing():
            return 0
        if before == 0 and self.holds:
            self.transport.pause_reading()
        elif before and not self.holds:
            self.transport.resume_reading()
        return 0

    cdef bint _awaits_turn(self, int bit) noexcept:
        # Whether it is to have a turn now that `bit` holds it no more: to take in what is left; or
        # to be let go, for whoever makes room passes over those whose peers do not read.
        if self.holds & HOLD_TURN:
            return False
        if self.holds & HOLDS_ALL:
            return bit == HOLD_SENDING
        return self.holds & HOLD_REST != 0

    cdef int end_turn(self) except -1:
        # The other associations' turn first.
        self.set_hold(HOLD_TURN, True)
        if self.association != NULL:
            (<object>self.association).turn_ended()
        return 0

    # -- timers

    cdef bint quiet(self) noexcept:
        # Whether nothing has come for a moment.
        return _now() - self.progress_at > FRESH_S

    cdef double stuck_since(self, double now, double min_rate) noexcept:
        # Inside a message: since when it makes no progress; 0.0: it does.
        cdef double past = now - self.rate_at
        if now - self.progress_at > STUCK_S:
            return self.progress_at
        if past > STUCK_S and <double>self.rate_bytes < min_rate * past:
            return self.rate_at
        return 0.0

    def unread(self, double now):
        """How long the peer has not read what we send, in seconds. See pace.pyi."""
        return max(now - self.unread_since, 0.0) if self.holds & HOLD_SENDING else 0.0

    cdef str overdue(
        self, bint midway, bint busy, double now, double message_timeout, double min_rate,
        double idle_timeout
    ):
        # What the peer has let pass, or "". midway: inside a message or a PDU. busy: it is we that
        # owe something.
        cdef double past
        if self.fd >= 0:
            self._await_more(1)
        if busy or self.holds & ~HOLD_TURN:
            self.progress_at = self.rate_at = now
            self.rate_bytes = 0
            return ""
        if not midway:
            self.rate_at = now
            self.rate_bytes = 0
            if 0 < idle_timeout < now - self.progress_at:
                return "idle"
            return ""
        if 0 < message_timeout < now - self.progress_at:
            return "silent inside a message"
        past = now - self.rate_at
        if 0 < message_timeout < past:
            if <double>self.rate_bytes < min_rate * past:
                return "slower than the minimum rate"
            self.rate_at = now
            self.rate_bytes = 0
        return ""

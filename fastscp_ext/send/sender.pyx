"""Instances from files to a socket, and the responses to them.

Theory of operation: a `Sender` borrows the descriptor of an established association and moves whole
C-STORE messages over it. A file is read straight into the places that its P-DATA-TF headers leave
free (`stage`), so the bytes of a data set are copied once by the kernel in, once out, and looked at
by nobody. While the peer works on one message, the next file is opened and the first of it staged.
The interpreter is met once for a batch: what is needed of a parcel is its `Job`, plain memory that
lives as long as the parcel, and those are kept in `held` until their outcome is fetched. The caller
decides what follows from statuses and the end of the association. Where somebody wants to be told
of each PDU, they go out one by one, and the interpreter is met for each.
Sources: PS3.8 9.3.5, Annex E; PS3.7 9.3.1.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.fcntl cimport F_GETFL, O_NONBLOCK, fcntl
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastscp_ext.send.parcel cimport Job, Parcel
from fastscp_ext.send.stage cimport (
    LARGEST_FRAGMENT,
    stage_begin,
    stage_end,
    stage_next,
    stage_number,
    stage_open,
    stage_shut,
)
from fastscp_ext.wire.command cimport (
    CMD_HAS_COMMAND_FIELD,
    CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO,
    CMD_HAS_STATUS,
    CommandScan,
    scan_command,
)
from fastscp_ext.wire.cursor cimport Cursor, cursor_over, skip, take_u8, take_u32_be
from fastscp_ext.wire.framing cimport (
    FRAME_COMMAND,
    FRAME_DATA,
    FRAME_ERROR,
    FRAME_HEADER,
    FRAME_MORE,
    FRAME_PDU,
    PDU_P_DATA_TF,
    Framer,
    complaint_text,
    framer_begin,
    framer_end,
    framer_expect,
    framer_next,
)
from fastscp_ext.wire.judgement cimport (
    ANSWER_USABLE,
    Answer,
    Asked,
    answer_judge,
    answer_read,
    judgement_text,
)

__all__ = ["Sender"]

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long n, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SHUT_RDWR
        SOL_SOCKET
        SO_RCVTIMEO
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_QUICKACK

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<sys/time.h>" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

cdef enum:
    RECEIVE_BYTES = 65536
    PDATA_CAP = 1048576         # bytes of a P-DATA-TF that brings responses
    C_STORE_RQ = 0x0001
    NO_DATA_SET = 0x0101
    CLOCK_CAP_MS = 0x7FFFFFFF
    MOST_TOLD = 16              # commands of one PDU

_ENDS = {
    GOING: "",
    END_CLOSED: "closed",
    END_PDU: "pdu",
    END_BROKEN: "broken",
    END_SEND_TIMEOUT: "send timeout",
    END_RESPONSE_TIMEOUT: "response timeout",
    END_FILE: "file",
}


cdef inline uint64_t _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef inline int _left_ms(uint64_t since, int allowed_ms) noexcept nogil:
    # What is left of a time that is allowed from `since` on; 0 once it is over.
    cdef uint64_t gone = (_now() - since) // 1000000
    return 0 if gone >= <uint64_t>allowed_ms else allowed_ms - <int>gone


# ---- messages that wait for their response --------------------------------------------------

cdef bint _outstanding_begin(Outstanding* o, uint32_t window) noexcept nogil:
    # False: no memory.
    o.window = window
    while o.mask < window - 1:
        o.mask = 2 * o.mask + 1
    o.slots = <Job**>calloc(o.mask + 1, sizeof(Job*))
    return o.slots != NULL


cdef uint16_t _outstanding_enter(Outstanding* o, Job* job) noexcept nogil:
    # Give it a message id that is free; fewer than `window` are outstanding, so there is one.
    while True:
        o.last_id = 1 if o.last_id == 0xFFFF else o.last_id + 1
        if o.slots[o.last_id & o.mask] == NULL:
            break
    o.slots[o.last_id & o.mask] = job
    o.count += 1
    job.message_id = o.last_id
    return o.last_id


cdef Job* _outstanding_find(const Outstanding* o, uint16_t message_id) noexcept nogil:
    # The one with this message id; NULL if there is none.
    cdef Job* job = o.slots[message_id & o.mask]
    return NULL if job == NULL or job.message_id != message_id else job


cdef void _outstanding_leave(Outstanding* o, const Job* job) noexcept nogil:
    o.slots[job.message_id & o.mask] = NULL
    o.count -= 1


@cython.final
cdef class Sender:
    """C-STOREs over an association whose socket nobody else uses meanwhile. See sender.pyi."""

    def __cinit__(
        self,
        int fd,
        uint32_t fragment_bytes,
        uint32_t window,
        double send_timeout_s,
        double response_timeout_s,
        object on_pdu=None,
    ):
        cdef timeval wait
        framer_begin(&self.framer, PDATA_CAP)
        if not 2 <= fragment_bytes <= LARGEST_FRAGMENT or fragment_bytes % 2:
            raise ValueError("fragments have an even number of bytes, 2 to 1 MiB")
        if not 1 <= window <= 0xFFFF:
            raise ValueError("the window is 1 to 65535")
        self.fd = fd
        self.send_timeout_ms = <int>min(send_timeout_s * 1000, CLOCK_CAP_MS)
        self.response_timeout_ms = <int>min(response_timeout_s * 1000, CLOCK_CAP_MS)
        self.received = <uint8_t*>malloc(RECEIVE_BYTES)
        if (
            self.received == NULL
            or not stage_begin(&self.stage, fragment_bytes)
            or not _outstanding_begin(&self.due, window)
        ):
            raise MemoryError
        self.blocking = not fcntl(fd, F_GETFL) & O_NONBLOCK
        wait.tv_sec = self.response_timeout_ms // 1000
        # A time-out of zero would last for ever.
        wait.tv_usec = self.response_timeout_ms % 1000 * 1000 or 1
        if self.blocking and setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0:
            raise OSError(errno, "SO_RCVTIMEO")
        self.on_pdu = on_pdu
        self.tracing = on_pdu is not None
        self.coming_messages = []
        self.held = {}
        self.text = ""
        self.pdu = b""

    def __dealloc__(self):
        framer_end(&self.framer)
        stage_end(&self.stage)
        free(self.received)
        free(self.due.slots)

    @property
    def end(self):
        return _ENDS[self.end]

    @property
    def detail(self):
        """Of the end: number of the OSError or 0, what was broken, the PDU."""
        return self.errno_of_end, self.text, self.pdu

    @property
    def unanswered(self):
        """Parcels that were sent, at least in part, and not answered."""
        return [parcel for parcel in self.held if (<Parcel>parcel).job.message_id]

    def stop(self):
        """Let `run` return before its next parcel. For another thread."""
        self.stopping = True

    def break_off(self):
        """Cut the connection under a blocked `run` or `finish`. For another thread."""
        shutdown(self.fd, SHUT_RDWR)

    def run(self, list parcels not None):
        """Send parcels as the window allows; returns how many were begun. See sender.pyi."""
        cdef Py_ssize_t begun = 0
        cdef Parcel parcel
        cdef Job* first = NULL
        cdef Job** link = &first
        if self.end != GOING:
            return 0
        batch = dict.fromkeys(parcels)
        if len(batch) < len(parcels) or not self.held.keys().isdisjoint(batch):
            raise ValueError("a parcel is on its way, or its outcome was not fetched")
        for parcel in batch:
            parcel.job.next = NULL
            link[0] = &parcel.job
            link = &parcel.job.next
        self.held.update(batch)
        with nogil:
            begun = self._run(first)
        for parcel in parcels[begun:]:
            del self.held[parcel]
        return begun

    def finish(self):
        """Wait for the responses that are due, and for the rest of a PDU that has begun."""
        with nogil:
            self._settle(0, True)

    def look(self):
        """Take in the responses that are here; does not wait. See sender.pyi."""
        cdef uint64_t answered
        with nogil:
            while self.end == GOING:
                answered = self.answered
                # Its end may stand behind the response that was still due. Nothing else is worth
                # reading on: the event loop waits, and bytes alone may come for ever.
                if self._take_in(True) != 0 or self.answered == answered:
                    break

    def take_done(self):
        """The parcels that have an outcome since the last call, in the order of their responses."""
        cdef list done = []
        cdef Parcel parcel
        cdef Job* job = self.first_done
        while job != NULL:
            parcel = <Parcel>job.parcel
            job = job.next
            done.append(parcel)
            del self.held[parcel]
        self.first_done = self.last_done = NULL
        return done

    cdef Py_ssize_t _run(self, Job* job) noexcept nogil:
        cdef Py_ssize_t begun = 0
        cdef Job* following
        cdef int problem
        while job != NULL:
            following = job.next
            # The peer is at work on what went before it: the time to open the next one.
            problem = stage_open(&self.stage, job)
            self._settle(self.due.window - 1, False)
            if self.end != GOING or self.stopping:
                stage_shut(&self.stage)
                break
            begun += 1
            job.attempts += 1
            if problem == 0:
                self._send(job)
            else:
                # Nothing of it is out: the association goes on without it.
                job.error = problem
                self._done(job)
            job = following
        return begun

    cdef void _settle(self, uint32_t most, bint whole) noexcept nogil:
        # Wait until no more than so many are outstanding; whole: and no PDU is half here. Only a
        # response is given new time: bytes alone may trickle for ever.
        cdef uint64_t answered = 0
        cdef uint64_t since = 0
        while self.end == GOING and (self.due.count > most or (whole and self._mid_pdu())):
            if since == 0 or self.answered != answered:
                answered = self.answered
                since = _now()
            elif _left_ms(since, self.response_timeout_ms) == 0:
                self.end = END_RESPONSE_TIMEOUT
                return
            self._take_in(False)

    cdef void _done(self, Job* job) noexcept nogil:
        job.message_id = 0
        job.next = NULL
        if self.last_done == NULL:
            self.first_done = job
        else:
            self.last_done.next = job
        self.last_done = job

    cdef void _send(self, Job* job) noexcept nogil:
        # The whole message, the first of which is staged.
        cdef int problem = 0
        stage_number(&self.stage, _outstanding_enter(&self.due, job))
        job.began = _now()
        self.mid_message = True
        while self._push_staged(job) == 0:
            if self.stage.file_at == job.size:
                self.mid_message = False
                break
            problem = stage_next(&self.stage, job)
            if problem:
                self.end = END_FILE
                self.errno_of_end = job.error = problem
                break
        stage_shut(&self.stage)

    cdef int _push_staged(self, const Job* job) noexcept nogil:
        # Send what is staged. Non-zero: it ended.
        if self.tracing:
            return self._push_each(job)
        return self._push(self.stage.bytes, self.stage.used)

    cdef int _push(self, const uint8_t* data, uint32_t size) noexcept nogil:
        # Send it all; takes responses in while the peer takes nothing. Non-zero: it ended.
        cdef pollfd watched
        cdef ssize_t n
        cdef int ready
        cdef int left_ms
        cdef uint64_t since = 0         # when it took something last, once that is asked
        while size:
            n = send(self.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)
            if n > 0:
                data += n
                size -= <uint32_t>n
                self.sent_bytes += <uint64_t>n
                since = 0
                continue
            if n < 0 and errno == EINTR:
                continue
            if n < 0 and errno != EAGAIN:
                return self._ended(errno)
            if since == 0:
                since = _now()
            watched.fd = self.fd
            watched.events = POLLIN | POLLOUT
            watched.revents = 0
            left_ms = _left_ms(since, self.send_timeout_ms)
            # Whatever the peer sends meanwhile: that it takes nothing is what counts.
            ready = poll(&watched, 1, left_ms) if left_ms else 0
            if ready == 0:
                self.end = END_SEND_TIMEOUT
                return 1
            if watched.revents & ~POLLOUT and self._take_in(True) != 0:
                return 1
        return 0

    cdef int _ended(self, int why) noexcept nogil:
        # The socket failed; but the peer's last words may be waiting to be read.
        while self._read(MSG_DONTWAIT) > 0:
            if self._parse() != 0:
                return 1
        if self.end == GOING:
            self.end = END_CLOSED
            self.errno_of_end = why
        return 1

    cdef int _take_in(self, bint at_hand) noexcept nogil:
        # Read once and parse it; at_hand: poll has seen something. Non-zero: it ended.
        cdef pollfd watched
        cdef ssize_t n
        cdef int ready
        while True:
            n = self._read(MSG_DONTWAIT if at_hand else 0)
            if n > 0:
                return self._parse()
            if n == 0:
                self.end = END_CLOSED
                return 1
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                self.end = END_CLOSED
                self.errno_of_end = errno
                return 1
            if at_hand:
                return 0
            watched.fd = self.fd
            watched.events = POLLIN
            watched.revents = 0
            # A blocking descriptor has waited already (SO_RCVTIMEO), and without another call.
            ready = 0 if self.blocking else poll(&watched, 1, self.response_timeout_ms)
            if ready == 0:
                self.end = END_RESPONSE_TIMEOUT
                return 1

    cdef ssize_t _read(self, int flags) noexcept nogil:
        cdef ssize_t n = recv(self.fd, self.received, RECEIVE_BYTES, flags)
        if n > 0:
            self.unread = cursor_over(self.received, <uint32_t>n)
        return n

    cdef bint _mid_pdu(self) noexcept nogil:
        return self.framer.header_have != 0 or self.framer.in_pdu

    cdef int _parse(self) noexcept nogil:
        cdef int kind
        cdef int now = 1
        while True:
            kind = framer_next(&self.framer, &self.unread)
            if self.tracing:
                with gil:
                    self._trace_frame(kind)
            if kind == FRAME_MORE:
                if self._mid_pdu():
                    # The rest may be waiting for our acknowledgement (Nagle's algorithm there), and
                    # ours for company: 40 ms. Harmless where the descriptor is not TCP.
                    setsockopt(self.fd, IPPROTO_TCP, TCP_QUICKACK, &now, sizeof(now))
                return 0
            if kind == FRAME_COMMAND:
                self._command()
                if self.end != GOING:
                    return 1
            elif kind == FRAME_PDU:
                with gil:
                    self.pdu = self.framer.pdu[:self.framer.pdu_size]
                self.end = END_PDU
                return 1
            elif kind == FRAME_ERROR:
                with gil:
                    self.text = complaint_text(self.framer.complaint)
                self.end = END_BROKEN
                return 1

    cdef void _command(self) noexcept nogil:
        # A response: find its parcel and note the outcome.
        cdef Answer answer
        cdef Asked asked
        cdef Framer* f = &self.framer
        cdef Job* job = NULL
        answer_read(f.command, f.command_size, f.context_id, &answer)
        if answer.judgement == ANSWER_USABLE:
            job = _outstanding_find(&self.due, answer.scan.message_id_being_responded_to)
        if job != NULL:
            asked.command_field = C_STORE_RQ
            asked.context_id = job.context_id
            asked.sent = not (self.mid_message and job.message_id == self.due.last_id)
        if not answer_judge(&answer, NULL if job == NULL else &asked):
            with gil:
                self.text = judgement_text(&answer, NULL if job == NULL else &asked)
            self.end = END_BROKEN
            return
        _outstanding_leave(&self.due, job)
        job.nanoseconds = _now() - job.began
        job.status = answer.scan.status
        if answer.scan.status:
            with gil:
                (<Parcel>job.parcel).response = f.command[:f.command_size]
        self.answered += 1
        self._done(job)
        framer_expect(f, answer.scan.data_set_type != NO_DATA_SET)

    cdef int _push_each(self, const Job* job) noexcept nogil:
        # `_push` of what is staged, a PDU at a time; each is told of once it is out.
        cdef Cursor left = cursor_over(self.stage.bytes, self.stage.used)
        cdef Cursor pdu
        cdef uint32_t length = 0
        while left.left:
            pdu = left
            skip(&left, 2)
            take_u32_be(&left, &length)
            skip(&left, length)
            pdu.left -= left.left
            if self._push(pdu.at, pdu.left) != 0:
                return 1
            with gil:
                self._tell_sent(job, pdu)
        return 0

    cdef void _tell_sent(self, const Job* job, Cursor pdu) noexcept:
        # pdu: one of ours, with its only PDV.
        cdef uint32_t length = 0
        cdef uint32_t size = 0
        cdef uint8_t context_id = 0
        cdef uint8_t control = 0
        skip(&pdu, 2)
        take_u32_be(&pdu, &length)
        take_u32_be(&pdu, &size)
        take_u8(&pdu, &context_id)
        take_u8(&pdu, &control)
        self.on_pdu(
            True, length, context_id, control, 0 if control & 1 else size - 2,
            [(job.message_id, C_STORE_RQ, -1)])

    cdef void _trace_frame(self, int kind) noexcept:
        # Note what is in the P-DATA-TF that comes, and tell of it once it is whole.
        cdef CommandScan scan
        cdef uint32_t usable
        cdef Framer* f = &self.framer
        if kind == FRAME_HEADER:
            if self.coming:
                self._tell_received()
            self.coming = f.pdu_type == PDU_P_DATA_TF
            self.coming_length = f.pdu_length
        elif kind == FRAME_COMMAND and len(self.coming_messages) < MOST_TOLD:
            scan_command(f.command, f.command_size, &scan)
            usable = scan.present & ~scan.unusable
            self.coming_messages.append((
                scan.message_id_being_responded_to
                if usable & CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO else -1,
                scan.command_field if usable & CMD_HAS_COMMAND_FIELD else -1,
                scan.status if usable & CMD_HAS_STATUS else -1,
            ))
        elif kind == FRAME_DATA:
            self.coming_data += f.data.left
        if self.coming and kind != FRAME_ERROR and f.pdu_left == 0 and not f.in_pdv:
            self._tell_received()

    cdef void _tell_received(self) noexcept:
        cdef list messages = self.coming_messages
        cdef uint32_t data_bytes = self.coming_data
        self.coming = False
        self.coming_data = 0
        self.coming_messages = []
        self.on_pdu(
            False, self.coming_length, self.framer.context_id, self.framer.control, data_bytes,
            messages)

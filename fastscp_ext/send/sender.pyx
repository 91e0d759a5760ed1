"""Instances from files to a socket, and the responses to them.

Theory of operation: a `Sender` borrows the descriptor of an established association and moves whole
C-STORE messages over it. A file is read straight into the places that its P-DATA-TF headers leave
free, so the bytes of a data set are copied once by the kernel in, once out, and looked at by
nobody. While the peer works on one message, the next file is opened and the first of it staged. The
interpreter is met once for a batch: what is needed of a parcel is its `Job`, plain memory that
lives as long as the parcel, and those are kept in `held` until their outcome is fetched. What it
makes of statuses, retries and the end of the association is the caller's.
Sources: PS3.8 9.3.5, Annex E; PS3.7 9.3.1.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, EINTR, ESTALE, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.fcntl cimport F_GETFL, O_NONBLOCK, O_RDONLY, fcntl, open as c_open
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t
from posix.unistd cimport close as c_close

from fastscp_ext.wire.cursor cimport Cursor, cursor_over
from fastscp_ext.wire.framing cimport (
    FRAME_COMMAND,
    FRAME_ERROR,
    FRAME_MORE,
    FRAME_PDU,
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
from fastscp_ext.stat cimport S_ISREG, fstat, mtime_ns, stat_t

__all__ = ["Parcel", "Sender"]

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_CLOEXEC

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

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t preadv(int fd, const iovec* places, int count, off_t offset)

cdef enum:
    # Bytes sent with one call: large enough to make the call cheap, small enough to be still in
    # the processor's cache when the kernel copies them.
    STAGE_BYTES = 262144
    RECEIVE_BYTES = 65536
    MAX_PLACES = 64             # fragments read with one call
    HEADERS = 12                # of a P-DATA-TF and its one PDV
    PDATA_CAP = 1048576         # bytes of a P-DATA-TF that brings responses
    LARGEST_FRAGMENT = 1048576
    C_STORE_RQ = 0x0001
    NO_DATA_SET = 0x0101
    CLOCK_CAP_MS = 0x7FFFFFFF

# How the use of an association ended. Python knows these numbers by the strings of `_ENDS`.
cdef enum:
    GOING = 0
    END_CLOSED = 1              # end of file, or an error of the socket: `error` is its number
    END_PDU = 2                 # a PDU other than P-DATA-TF came: `pdu` has it
    END_BROKEN = 3              # the peer broke the protocol: `text` says how
    END_SEND_TIMEOUT = 4
    END_RESPONSE_TIMEOUT = 5
    END_FILE = 6                # a file failed in the middle of its message: `error`

_ENDS = {
    GOING: "",
    END_CLOSED: "closed",
    END_PDU: "pdu",
    END_BROKEN: "broken",
    END_SEND_TIMEOUT: "send timeout",
    END_RESPONSE_TIMEOUT: "response timeout",
    END_FILE: "file",
}

# Element (0000,0110), its length, and before it only what an ascending command set has there.
_MESSAGE_ID = b"\x00\x00\x10\x01\x02\x00\x00\x00"

ctypedef struct Patch:
    uint64_t at                 # in the data set
    uint32_t size
    const uint8_t* value        # borrowed from the parcel's tuple

# What sending needs of a parcel. Pointers are borrowed from it, or to others that are held.
ctypedef struct Job:
    void* parcel
    const char* path
    const uint8_t* command
    uint32_t command_size
    uint32_t id_at              # of the two bytes of the message id, in the command
    uint64_t offset
    uint64_t size
    int64_t modified_ns         # of the file, 0 if unknown
    const Patch* patch
    uint32_t patch_count
    uint8_t context_id
    uint16_t message_id         # while a response is due; else 0
    int attempts
    int status
    int error
    uint64_t began
    uint64_t nanoseconds
    Job* next                   # in the batch, then among those that are done


cdef inline uint64_t _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef inline int _left_ms(uint64_t since, int allowed_ms) noexcept nogil:
    # Of a time that is allowed from `since` on; 0 once it is over.
    cdef uint64_t gone = (_now() - since) // 1000000
    return 0 if gone >= <uint64_t>allowed_ms else allowed_ms - <int>gone


cdef inline void _put_headers(
    uint8_t* at, uint8_t context_id, uint8_t control, uint32_t fragment
) noexcept nogil:
    cdef uint32_t pdv = fragment + 2
    cdef uint32_t pdu = fragment + 6
    at[0] = 0x04
    at[1] = 0
    at[2] = <uint8_t>(pdu >> 24)
    at[3] = <uint8_t>(pdu >> 16)
    at[4] = <uint8_t>(pdu >> 8)
    at[5] = <uint8_t>pdu
    at[6] = <uint8_t>(pdv >> 24)
    at[7] = <uint8_t>(pdv >> 16)
    at[8] = <uint8_t>(pdv >> 8)
    at[9] = <uint8_t>pdv
    at[10] = context_id
    at[11] = control


cdef void _apply(const Job* job, const iovec* places, int count, uint64_t at) noexcept nogil:
    # Write the parcel's own values over what was read; `at` is where the first place begins.
    cdef uint64_t low
    cdef uint64_t high
    cdef uint64_t end
    cdef uint32_t i
    cdef int place
    for place in range(count):
        end = at + places[place].iov_len
        for i in range(job.patch_count):
            low = max(at, job.patch[i].at)
            high = min(end, job.patch[i].at + job.patch[i].size)
            if low < high:
                memcpy(
                    <uint8_t*>places[place].iov_base + (low - at),
                    job.patch[i].value + (low - job.patch[i].at),
                    <size_t>(high - low),
                )
        at = end


@cython.final
cdef class Parcel:
    """An instance on its way: what to send, and then what became of it. See sender.pyi."""

    cdef readonly object item
    cdef readonly bytes path
    cdef readonly bytes command
    cdef readonly bytes response
    cdef tuple patches
    cdef Patch* patch
    cdef Job job

    def __cinit__(
        self,
        object item,
        bytes path not None,
        bytes command not None,
        uint8_t context_id,
        uint64_t offset,
        uint64_t size,
        tuple patches=(),
        int64_t modified_ns=0,
    ):
        cdef Py_ssize_t id_at = command.find(_MESSAGE_ID) + 8
        if id_at < 8 or id_at + 2 > PyBytes_GET_SIZE(command) or not size:
            raise ValueError("a command set with a message id, and a data set, are needed")
        self.item = item
        self.path = path
        self.command = command
        self.patches = patches
        self.job.parcel = <void*>self
        self.job.path = PyBytes_AS_STRING(path)
        self.job.command = <const uint8_t*>PyBytes_AS_STRING(command)
        self.job.command_size = <uint32_t>PyBytes_GET_SIZE(command)
        self.job.id_at = <uint32_t>id_at
        self.job.context_id = context_id
        self.job.offset = offset
        self.job.size = size
        self.job.modified_ns = modified_ns
        self.job.status = -1
        if patches:
            self._take_patches()

    cdef int _take_patches(self) except -1:
        cdef uint32_t i = 0
        cdef bytes value
        self.patch = <Patch*>PyMem_Malloc(<size_t>len(self.patches) * sizeof(Patch))
        if self.patch == NULL:
            raise MemoryError
        for at, value in self.patches:
            self.patch[i].at = at
            self.patch[i].size = <uint32_t>PyBytes_GET_SIZE(value)
            self.patch[i].value = <const uint8_t*>PyBytes_AS_STRING(value)
            i += 1
        self.job.patch = self.patch
        self.job.patch_count = i
        return 0

    def __dealloc__(self):
        PyMem_Free(self.patch)

    @property
    def context_id(self):
        return self.job.context_id

    @property
    def offset(self):
        return self.job.offset

    @property
    def size(self):
        return self.job.size

    @property
    def attempts(self):
        return self.job.attempts

    @property
    def status(self):
        return self.job.status

    @property
    def error(self):
        return self.job.error

    @property
    def nanoseconds(self):
        return self.job.nanoseconds

    def again(self):
        """Forget the outcome, to be sent once more."""
        self.job.status = -1
        self.job.error = 0
        self.job.message_id = 0
        self.response = None


@cython.final
cdef class Sender:
    """C-STOREs over an association whose socket nobody else uses meanwhile. See sender.pyi."""

    cdef int fd
    cdef uint32_t fragment
    cdef uint32_t window
    cdef int send_timeout_ms
    cdef int response_timeout_ms
    cdef Framer framer
    cdef uint8_t* stage         # the start of a message, then the rest of it piece by piece
    cdef uint32_t stage_size
    cdef uint32_t staged        # bytes of it
    cdef uint32_t id_places[2]  # where in it the message id belongs
    cdef int file               # of what is staged, -1 once all of it is read
    cdef uint64_t file_at       # bytes of its data set that are read
    cdef uint8_t* received
    cdef Cursor unread          # of `received`
    cdef Job** slots            # the outstanding ones, by the low bits of their message ids
    cdef uint32_t slot_mask
    cdef uint32_t outstanding
    cdef Job* first_done
    cdef Job* last_done
    cdef dict held              # Parcel to None, in the order they came
    cdef uint16_t last_id
    cdef int end
    cdef int errno_of_end
    cdef str text
    cdef bytes pdu
    cdef bint stopping
    cdef bint blocking
    cdef readonly bint mid_message
    cdef readonly uint64_t sent_bytes
    cdef readonly uint64_t answered

    def __cinit__(
        self,
        int fd,
        uint32_t fragment_bytes,
        uint32_t window,
        double send_timeout_s,
        double response_timeout_s,
    ):
        cdef timeval wait
        framer_begin(&self.framer, PDATA_CAP)
        if not 2 <= fragment_bytes <= LARGEST_FRAGMENT or fragment_bytes % 2:
            raise ValueError("fragments have an even number of bytes, 2 to 1 MiB")
        if not 1 <= window <= 0xFFFF:
            raise ValueError("the window is 1 to 65535")
        self.fd = fd
        self.fragment = fragment_bytes
        self.window = window
        self.file = -1
        while self.slot_mask < window - 1:
            self.slot_mask = 2 * self.slot_mask + 1
        self.send_timeout_ms = <int>min(send_timeout_s * 1000, CLOCK_CAP_MS)
        self.response_timeout_ms = <int>min(response_timeout_s * 1000, CLOCK_CAP_MS)
        self.stage_size = max(<uint32_t>STAGE_BYTES, fragment_bytes + HEADERS)
        self.stage = <uint8_t*>malloc(self.stage_size)
        self.received = <uint8_t*>malloc(RECEIVE_BYTES)
        self.slots = <Job**>calloc(self.slot_mask + 1, sizeof(Job*))
        if self.stage == NULL or self.received == NULL or self.slots == NULL:
            raise MemoryError
        self.blocking = not fcntl(fd, F_GETFL) & O_NONBLOCK
        wait.tv_sec = self.response_timeout_ms // 1000
        # All zero would be for ever.
        wait.tv_usec = self.response_timeout_ms % 1000 * 1000 or 1
        if self.blocking and setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0:
            raise OSError(errno, "SO_RCVTIMEO")
        self.held = {}
        self.text = ""
        self.pdu = b""

    def __dealloc__(self):
        framer_end(&self.framer)
        free(self.stage)
        free(self.received)
        free(self.slots)

    @property
    def end(self):
        return _ENDS[self.end]

    @property
    def detail(self):
        """(number of an OSError or 0, text, PDU) of the end."""
        return self.errno_of_end, self.text, self.pdu

    @property
    def unanswered(self):
        """Parcels that were sent, at least in part, and not answered."""
        return [parcel for parcel in self.held if (<Parcel>parcel).job.message_id]

    def stop(self):
        """Let `run` return before its next parcel. For another thread."""
        self.stopping = True

    def break_off(self):
        """Cut the connection under a blocked `run`. For another thread."""
        shutdown(self.fd, SHUT_RDWR)

    def run(self, list parcels not None):
        """Send parcels; returns how many were begun. See sender.pyi."""
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
                # Its end may stand behind the response that was still due. Nothing else is read on
                # for: who waits is the event loop, and bytes alone may come for ever.
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
            problem = self._open(job)
            self._settle(self.window - 1, False)
            if self.end != GOING or self.stopping:
                self._shut()
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
        while self.end == GOING and (self.outstanding > most or (whole and self._mid_pdu())):
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

    cdef int _open(self, Job* job) noexcept nogil:
        # Stage the first of a message. Returns 0, or the number of an error of its file.
        cdef int problem
        # What was a file may be a pipe by now, and one without a writer must not hold us up.
        self.file = c_open(job.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if self.file < 0:
            return errno
        problem = self._changed(job)
        if problem == 0:
            self.file_at = 0
            self._stage_command(job)
            problem = self._fill(job)
        if problem:
            self._shut()
        return problem

    cdef int _changed(self, const Job* job) noexcept nogil:
        # Whether it is another file than the one whose head was read: 0, or an error's number.
        cdef stat_t about
        if fstat(self.file, &about) < 0:
            return errno
        if not S_ISREG(about.st_mode) or <uint64_t>about.st_size != job.offset + job.size:
            return ESTALE
        if job.modified_ns and job.modified_ns != mtime_ns(&about):
            return ESTALE
        return 0

    cdef void _shut(self) noexcept nogil:
        if self.file >= 0:
            c_close(self.file)
            self.file = -1

    cdef void _send(self, Job* job) noexcept nogil:
        # The whole message, the first of which is staged.
        cdef int problem = 0
        self._enter(job)
        self.mid_message = True
        while self._push(self.stage, self.staged) == 0:
            if self.file_at == job.size:
                self.mid_message = False
                break
            self.staged = 0
            problem = self._fill(job)
            if problem:
                self.end = END_FILE
                self.errno_of_end = job.error = problem
                break
        self._shut()

    cdef void _enter(self, Job* job) noexcept nogil:
        # Give it a message id that is free; fewer than `window` are outstanding, so there is one.
        cdef int i
        while True:
            self.last_id = 1 if self.last_id == 0xFFFF else self.last_id + 1
            if self.slots[self.last_id & self.slot_mask] == NULL:
                break
        self.slots[self.last_id & self.slot_mask] = job
        self.outstanding += 1
        job.message_id = self.last_id
        for i in range(2):
            self.stage[self.id_places[i]] = <uint8_t>(self.last_id >> (8 * i))
        job.began = _now()

    cdef int _fill(self, Job* job) noexcept nogil:
        # Stage as much as there is room for. Returns 0, or the number of an error of the file.
        cdef iovec places[MAX_PLACES]
        cdef int count = 0
        cdef uint32_t n
        cdef uint64_t reads_at = self.file_at
        cdef ssize_t got
        while self.file_at < job.size and count < MAX_PLACES:
            n = self.fragment
            if job.size - self.file_at < n:
                n = <uint32_t>(job.size - self.file_at)
            if self.staged + HEADERS + n > self.stage_size:
                break
            self.file_at += n
            _put_headers(
                self.stage + self.staged,
                job.context_id, 0x02 if self.file_at == job.size else 0x00, n)
            places[count].iov_base = self.stage + self.staged + HEADERS
            places[count].iov_len = n
            count += 1
            self.staged += HEADERS + n
        if not count:
            return 0
        got = preadv(self.file, places, count, <off_t>(job.offset + reads_at))
        while got < 0 and errno == EINTR:
            got = preadv(self.file, places, count, <off_t>(job.offset + reads_at))
        if got < 0:
            return errno
        if <uint64_t>got != self.file_at - reads_at:
            # A short read of a file is its end: it became shorter while it was open.
            return ESTALE
        if job.patch_count:
            _apply(job, places, count, reads_at)
        if self.file_at == job.size:
            self._shut()
        return 0

    cdef void _stage_command(self, Job* job) noexcept nogil:
        # The command set, in as many P-DATA-TF as the peer's maximum asks for.
        cdef uint32_t at = 0
        cdef uint32_t n
        cdef uint32_t i
        self.staged = 0
        while at < job.command_size:
            n = job.command_size - at
            if n > self.fragment:
                n = self.fragment
            _put_headers(
                self.stage + self.staged,
                job.context_id, 0x03 if at + n == job.command_size else 0x01, n)
            memcpy(self.stage + self.staged + HEADERS, job.command + at, n)
            for i in range(2):
                if at <= job.id_at + i < at + n:
                    self.id_places[i] = self.staged + HEADERS + job.id_at + i - at
            self.staged += HEADERS + n
            at += n

    cdef int _push(self, const uint8_t* data, uint32_t size) noexcept nogil:
        # Send it all; takes responses in while the peer takes nothing. Non-zero: it ended.
        cdef pollfd watched
        cdef ssize_t n
        cdef int ready
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
            ready = poll(&watched, 1, _left_ms(since, self.send_timeout_ms))
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
            job = self._due(answer.scan.message_id_being_responded_to)
        if job != NULL:
            asked.command_field = C_STORE_RQ
            asked.context_id = job.context_id
            asked.sent = not (self.mid_message and job.message_id == self.last_id)
        if not answer_judge(&answer, NULL if job == NULL else &asked):
            with gil:
                self.text = judgement_text(&answer, NULL if job == NULL else &asked)
            self.end = END_BROKEN
            return
        self.slots[job.message_id & self.slot_mask] = NULL
        self.outstanding -= 1
        job.nanoseconds = _now() - job.began
        job.status = answer.scan.status
        if answer.scan.status:
            with gil:
                (<Parcel>job.parcel).response = f.command[:f.command_size]
        self.answered += 1
        self._done(job)
        framer_expect(f, answer.scan.data_set_type != NO_DATA_SET)

    cdef Job* _due(self, uint16_t message_id) noexcept nogil:
        # The outstanding one with this id; NULL if there is none.
        cdef Job* job = self.slots[message_id & self.slot_mask]
        return NULL if job == NULL or job.message_id != message_id else job

"""Files read into P-DATA-TF: a file is read straight into the places that the headers leave free.

Source: PS3.8 9.3.5, Annex E.
"""

from libc.errno cimport EINTR, EIO, ESTALE, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_NONBLOCK, O_RDONLY, open as c_open
from posix.types cimport off_t
from posix.unistd cimport close as c_close

from fastscp_ext.send.parcel cimport Parcel
from fastscp_ext.stat cimport S_ISREG, fstat, mark_of, stat_t

__all__ = []

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_CLOEXEC

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t preadv(int fd, const iovec* places, int count, off_t offset)

cdef enum:
    MAX_PLACES = 64             # fragments read with one call
    HEADERS = 12                # of a P-DATA-TF and its one PDV
    # Message control header: bit 0 says command, bit 1 says last fragment.
    MORE_COMMAND = 0x01
    LAST_COMMAND = 0x03
    MORE_DATA = 0x00
    LAST_DATA = 0x02


cdef bint stage_begin(Stage* s, uint32_t fragment) noexcept nogil:
    # False: no memory.
    memset(s, 0, sizeof(Stage))
    s.file = -1
    s.fragment = fragment
    s.room = max(<uint32_t>STAGE_BYTES, fragment + HEADERS)
    s.bytes = <uint8_t*>malloc(s.room)
    return s.bytes != NULL


cdef void stage_end(Stage* s) noexcept nogil:
    free(s.bytes)
    s.bytes = NULL


cdef int stage_open(Stage* s, const Job* job) noexcept nogil:
    # Stage the first of a message. Returns 0, or the number of an error of its file.
    cdef int problem
    # What was a file may be a pipe by now, and one without a writer must not hold us up.
    if job.opens:
        problem = _open_by_parcel(s, job)
        if problem:
            return problem
    else:
        s.file = c_open(job.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if s.file < 0:
            return errno
    problem = _changed(s.file, job)
    if problem == 0:
        s.file_at = 0
        _stage_command(s, job)
        problem = _fill(s, job)
    if problem:
        stage_shut(s)
    return problem


cdef int _open_by_parcel(Stage* s, const Job* job) noexcept with gil:
    # Returns 0, or the number of an error.
    cdef Parcel parcel = <Parcel>job.parcel
    try:
        s.file = parcel.opener()
    except OSError as error:
        return error.errno or EIO
    except Exception:
        # Nobody is here to take it; the instance fails, and the run goes on.
        return EIO
    return 0


cdef int stage_next(Stage* s, const Job* job) noexcept nogil:
    # Stage what follows, once what is staged was sent. Returns 0, or an error's number.
    s.used = 0
    return _fill(s, job)


cdef void stage_number(Stage* s, uint16_t message_id) noexcept nogil:
    # Write the message id into the command set, while the first of the message is staged.
    cdef int i
    for i in range(2):
        s.bytes[s.id_places[i]] = <uint8_t>(message_id >> (8 * i))


cdef void stage_shut(Stage* s) noexcept nogil:
    if s.file >= 0:
        c_close(s.file)
        s.file = -1


cdef int _changed(int file, const Job* job) noexcept nogil:
    # Whether it is another file than the one whose head was read, or was written to since: 0, or an
    # error's number.
    cdef stat_t about
    if fstat(file, &about) < 0:
        return errno
    if not S_ISREG(about.st_mode) or <uint64_t>about.st_size != job.offset + job.size:
        return ESTALE
    if job.mark and job.mark != mark_of(&about):
        return ESTALE
    return 0


cdef void _stage_command(Stage* s, const Job* job) noexcept nogil:
    # The command set, in as many P-DATA-TF as the peer's maximum asks for. It fits: COMMAND_MOST.
    cdef uint32_t at = 0
    cdef uint32_t n
    cdef uint32_t i
    s.used = 0
    while at < job.command_size:
        n = min(job.command_size - at, s.fragment)
        _put_headers(
            s.bytes + s.used,
            job.context_id, LAST_COMMAND if at + n == job.command_size else MORE_COMMAND, n)
        memcpy(s.bytes + s.used + HEADERS, job.command + at, n)
        for i in range(2):
            if at <= job.id_at + i < at + n:
                s.id_places[i] = s.used + HEADERS + job.id_at + i - at
        s.used += HEADERS + n
        at += n


cdef int _fill(Stage* s, const Job* job) noexcept nogil:
    # Stage as much as there is room for. Returns 0, or the number of an error of the file.
    cdef iovec places[MAX_PLACES]
    cdef int count = 0
    cdef uint32_t n
    cdef uint64_t reads_at = s.file_at
    cdef ssize_t got
    cdef int changed
    while s.file_at < job.size and count < MAX_PLACES:
        n = s.fragment
        if job.size - s.file_at < n:
            n = <uint32_t>(job.size - s.file_at)
        if s.used + HEADERS + n > s.room:
            break
        s.file_at += n
        _put_headers(
            s.bytes + s.used, job.context_id, LAST_DATA if s.file_at == job.size else MORE_DATA, n)
        places[count].iov_base = s.bytes + s.used + HEADERS
        places[count].iov_len = n
        count += 1
        s.used += HEADERS + n
    if not count:
        return 0
    got = preadv(s.file, places, count, <off_t>(job.offset + reads_at))
    while got < 0 and errno == EINTR:
        got = preadv(s.file, places, count, <off_t>(job.offset + reads_at))
    if got < 0:
        return errno
    if <uint64_t>got != s.file_at - reads_at:
        # A short read of a file is its end: it became shorter while it was open.
        return ESTALE
    if job.patch_count:
        _apply(job, places, count, reads_at)
    if s.file_at < job.size:
        return 0
    # Before the last of it goes out, or else a mixture of two states would be stored as one.
    changed = _changed(s.file, job)
    stage_shut(s)
    return changed


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

"""Room in the files of a worker's redo log. See log_room.pyi."""

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from posix.unistd cimport close

from fastscp_ext.commit.logfile cimport (
    LOG_BYTES, LOG_FREE, LOG_RECORDS, LOG_SEALED, LOG_WRITING, LogFile,
)
from fastscp_ext.commit.redo cimport LOG_FILES, Redo
from fastscp_ext.commit.redo_threads cimport (
    REDO_CHECKPOINT, REDO_LANE, redo_start, redo_wait, redo_wake,
)
from fastscp_ext.shared.clock cimport monotonic_ns

__all__ = []

cdef extern from "fcntl.h" nogil:
    int F_DUPFD_CLOEXEC
    int fcntl(int fd, int command, ...)

cdef uint64_t _ROOM_NS = 250000000      # the lane waits for room, at most


cdef LogFile* free_log(Redo* r) noexcept nogil:
    # A file in which nothing counts, or NULL. The lock is held.
    cdef int k
    for k in range(r.count):
        if r.files[k].state == LOG_FREE:
            return r.files[k]
    return NULL


cdef bint log_fits(const LogFile* log, int count, uint64_t nbytes) noexcept nogil:
    # Whether a file takes so many instances more, and as many records that void them, in so many
    # bytes.
    return log.records + 2 * count <= LOG_RECORDS and nbytes <= LOG_BYTES - log.at


cdef bint has_room(Redo* r, int count, uint64_t nbytes) noexcept nogil:
    # Whether so many instances may be kept, with so many bytes in a file that is there.
    return r.kept_most - r.kept >= count and (
        log_fits(r.active, count, nbytes) if r.active != NULL else free_log(r) != NULL)


cdef bint wait_for_room(Redo* r, int count, uint64_t nbytes) noexcept nogil:
    # Whether there is room, or a checkpoint gives it in time. The lane waits here with nothing in
    # hand; behind a wait that was in vain it does not wait again before there is room.
    cdef uint64_t until = monotonic_ns() + _ROOM_NS
    if r.active != NULL and not log_fits(r.active, count, nbytes):
        seal_log(r)
    while r.on and not r.stop and not has_room(r, count, nbytes):
        if r.active == NULL and free_log(r) == NULL:
            # More files let more come while a checkpoint works.
            _want(r)
        if r.active != NULL and next_sealed(r) == NULL:
            seal_log(r)
        r.too_late = r.too_late or r.count == 0 or monotonic_ns() >= until
        if r.too_late:
            r.wanted_room = 0
            return False
        r.wanted_room = count
        redo_wait(&r.threads, REDO_LANE, until)
    r.wanted_room = 0
    r.too_late = False
    return r.on and has_room(r, count, nbytes)


cdef void give_room(Redo* r, int count) noexcept nogil:
    # So many descriptors are closed, or a file can be written to. The lock is held.
    r.kept -= count
    if r.wanted_room and has_room(r, r.wanted_room, 0):
        redo_wake(&r.threads, REDO_LANE)


cdef int keep_segment(Redo* r, LogFile* log) noexcept nogil:
    # Have the file's checkpoint flush the segment that lines go to now. 0, or the errno.
    cdef int fd = fcntl(r.named.journal.fd, F_DUPFD_CLOEXEC, 3)
    if fd < 0:
        return errno
    if log.journal_fd >= 0:
        close(log.journal_fd)
    log.journal_fd = fd
    return 0


cdef bint begin_log(Redo* r, LogFile* log) noexcept nogil:
    # Have a free file written to. The lock is held. False: for want of a descriptor.
    if keep_segment(r, log):
        return False
    log.state = LOG_WRITING
    log.oldest_ns = monotonic_ns()
    r.active = log
    redo_wake(&r.threads, REDO_CHECKPOINT)
    return True


cdef void seal_log(Redo* r) noexcept nogil:
    # Nothing more goes into the file that is written to. The lock is held.
    if r.active != NULL:
        r.active.state = LOG_SEALED
        r.active = NULL
        redo_wake(&r.threads, REDO_CHECKPOINT)


cdef LogFile* next_sealed(Redo* r) noexcept nogil:
    # The one that was begun first, or NULL. The lock is held.
    cdef LogFile* found = NULL
    cdef int k
    for k in range(r.count):
        if r.files[k].state == LOG_SEALED and (
            found == NULL or r.files[k].oldest_ns < found.oldest_ns
        ):
            found = r.files[k]
    return found


cdef void _want(Redo* r) noexcept nogil:
    # One more log file, where there may be one. The lock is held.
    if r.count < LOG_FILES and redo_start(&r.threads, REDO_CHECKPOINT, r.checkpoints, r):
        r.wanted = True
        redo_wake(&r.threads, REDO_CHECKPOINT)

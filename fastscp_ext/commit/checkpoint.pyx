"""The checkpoint thread of a worker's redo log. See checkpoint.pyi."""

from libc.errno cimport EMFILE, ENFILE, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset, strlen
from posix.types cimport off_t
from posix.unistd cimport close

from fastscp_ext.commit.directories cimport FOLDER_ELSEWHERE, flush_folders
from fastscp_ext.commit.flush_pool cimport flush_file, flush_job, flusher_drop, flusher_run
from fastscp_ext.commit.log_room cimport give_room, next_sealed, seal_log
from fastscp_ext.commit.logfile cimport (
    LOG_FREE, LOG_RECORDS, LOG_SEALED, LOG_SPENT, LogFile, log_distrust, log_forget, log_make,
    log_remove, log_renew,
)
from fastscp_ext.commit.redo cimport LOG_FILES, OLD_NS, REDO_FATAL, REDO_WAITS, Redo
from fastscp_ext.commit.redo_threads cimport (
    REDO_CHECKPOINT, REDO_LANE, redo_hold, redo_let_go, redo_wait, redo_wake,
)
from fastscp_ext.shared.block cimport FLUSH_CHECKPOINT
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.rows cimport count_in

__all__ = []

cdef extern from "fcntl.h" nogil:
    int SYNC_FILE_RANGE_WRITE
    int sync_file_range(int fd, off_t offset, off_t nbytes, unsigned int flags)

cdef extern from "unistd.h" nogil:
    int syncfs(int fd)

cdef enum:
    FOLDERS_AT_ONCE = 32     # that it has open, beside those above them
    LATER = -3               # no errno: the system lacked something, and all of it is tried again

cdef uint64_t _AGAIN_NS = 100000000     # one that lacked descriptors or memory, anew
cdef uint64_t _LACKED_NS = 5000000000           # at a stop as long as it goes forward, and so long
cdef uint64_t _MAKE_AGAIN_NS = 10000000000      # and a log file that could not be made


cdef void* checkpoints(void* of) noexcept nogil:
    # The thread: makes log files, and frees them again.
    cdef Redo* r = <Redo*>of
    cdef LogFile* log
    cdef uint64_t now
    cdef bint is_due
    redo_hold(&r.threads)
    while not r.failed:
        now = monotonic_ns()
        is_due = r.active != NULL and (r.stop or now - r.active.oldest_ns >= OLD_NS)
        if is_due and not r.active.in_use:
            seal_log(r)
        log = next_sealed(r)
        if r.wanted and not r.stop and now >= r.not_before_ns:
            # First: the lane waits for it, and a checkpoint takes longer.
            _make(r)
        elif log != NULL and not log.in_use:
            _checkpoint(r, log)
        elif r.stop and log == NULL and r.active == NULL:
            break
        else:
            # What is due is in use: whoever lets it go says so.
            r.held_up = is_due or log != NULL
            redo_wait(&r.threads, REDO_CHECKPOINT, _wake_at(r, is_due))
    redo_let_go(&r.threads)
    return NULL


cdef uint64_t _wake_at(const Redo* r, bint is_due) noexcept nogil:
    # When the thread has something to do that nobody tells it of; 0: never. The lock is held.
    # is_due: what is written to is due already.
    if r.active != NULL and not is_due:
        return r.active.oldest_ns + OLD_NS
    return r.not_before_ns if r.wanted and not r.stop else 0


cdef void _make(Redo* r) noexcept nogil:
    # One more log file. The lock is held on entry and on return.
    cdef LogFile* log
    cdef int failed = 0
    r.wanted = False
    if r.count == LOG_FILES:
        return
    r.made += 1
    redo_let_go(&r.threads)
    log = log_make(r.folder_fd, r.made, &r.origin, &failed)
    redo_hold(&r.threads)
    if log == NULL:
        # Everything goes the other way meanwhile.
        r.not_before_ns = monotonic_ns() + _MAKE_AGAIN_NS
        if failed != r.not_made:
            r.not_made = failed
            redo_let_go(&r.threads)
            r.tell(r.of, b"make a file of the redo log", failed, REDO_WAITS)
            redo_hold(&r.threads)
        return
    r.not_made = 0
    r.files[r.count] = log
    r.count += 1
    give_room(r, 0)


cdef void _checkpoint(Redo* r, LogFile* log) noexcept nogil:
    # Put what a file vouches for where it belongs, and have the file free again. The lock is held
    # on entry and on return.
    cdef const char* step = NULL
    cdef uint64_t began = monotonic_ns()
    cdef int failed
    redo_let_go(&r.threads)
    r.lacked = 0
    failed = _flush_all(r, log, &step)
    if failed == LATER:
        failed = _flush_others(r, &step)
    if failed == LATER:
        redo_hold(&r.threads)
        if r.stop and monotonic_ns() - r.forward_ns >= _LACKED_NS:
            # Nothing was lost. Whoever comes next may have what is lacking.
            r.failed = True
            return
        redo_wait(&r.threads, REDO_CHECKPOINT, monotonic_ns() + _AGAIN_NS)
        return
    if not failed:
        failed = _let_go(r, log)
        step = b"renew a file of the redo log"
    if failed:
        # What is told of it may take long: all may be killed meanwhile.
        log_distrust(r.folder_fd, &r.origin)
    count_in(&r.worker.rows.flushes[<int>FLUSH_CHECKPOINT], (monotonic_ns() - began) // 1000)
    redo_hold(&r.threads)
    if failed:
        # What the file has is all there is of some instances, for all that is known. It stays.
        r.failed = True
        r.on = False
        redo_wake(&r.threads, REDO_LANE)
        redo_let_go(&r.threads)
        r.tell(r.of, step, failed, REDO_FATAL)
        redo_hold(&r.threads)
        return
    log.state = LOG_SPENT if log.broken else LOG_FREE
    r.forward_ns = monotonic_ns()
    give_room(r, 0)


cdef int _let_go(Redo* r, LogFile* log) noexcept nogil:
    # Have nothing in the file count any more, durably. 0, or the errno.
    cdef int failed = 0
    if not log.broken:
        failed = log_renew(log, &r.origin)
        if not failed:
            return 0
        log.broken = True
    # What cannot be written to can still be removed.
    failed = log_remove(r.folder_fd, log, &r.origin) or flush_file(r.folder_fd, 1)
    log_forget(log)
    return failed


cdef int _flush_all(Redo* r, LogFile* log, const char** step) noexcept nogil:
    # The files, on the descriptors that wrote them, and the segment with their lines; and the
    # folders. 0; LATER, for want of descriptors or memory (`r.lacked`); or the errno, and the step.
    cdef int failed = _flush_files(r, log, step)
    if not failed:
        failed = _flush_folders(r, log)
        step[0] = b"flush folders"
    return failed


cdef int _flush_others(Redo* r, const char** step) noexcept nogil:
    # The files that wait for a later checkpoint have descriptors, of which there are too few.
    # LATER; or the errno, and the step.
    cdef LogFile* log
    cdef bint is_due
    cdef int failed
    cdef int k
    for k in range(r.count):
        log = r.files[k]
        redo_hold(&r.threads)
        is_due = log.state == LOG_SEALED and not log.in_use
        redo_let_go(&r.threads)
        failed = _flush_files(r, log, step) if is_due else 0
        if failed and failed != LATER:
            return failed
    return LATER


cdef int _flush_files(Redo* r, LogFile* log, const char** step) noexcept nogil:
    # Side by side: as long as the log vouches for all of it, none needs another one first. Each
    # file is closed once it is flushed. Once, however often a checkpoint is tried.
    cdef flush_job* job
    cdef int count = log.kept + 1
    cdef int k
    if log.flushed:
        return 0
    if r.jobs == NULL:
        r.jobs = <flush_job*>calloc(LOG_RECORDS + 1, sizeof(flush_job))
        if r.jobs == NULL:
            r.lacked = ENOMEM
            return LATER
    r.vouched = log
    memset(r.jobs, 0, <size_t>count * sizeof(flush_job))
    r.jobs[0].fd = log.journal_fd
    r.jobs[0].of = r
    r.jobs[0].done = _journal_flushed
    for k in range(1, count):
        job = &r.jobs[k]
        job.fd = log.files[k - 1]
        job.of = r
        job.done = _file_flushed
        if job.fd >= 0:
            # All are under way before the first is waited for.
            sync_file_range(job.fd, 0, 0, SYNC_FILE_RANGE_WRITE)
    flusher_run(&r.flushers, r.jobs, count)
    for k in range(count):
        if r.jobs[k].error:
            step[0] = b"flush stored instances" if k else b"flush the journal"
            return r.jobs[k].error
    log.flushed = True
    return 0


cdef void _flush_failed(Redo* r) noexcept nogil:
    # On the thread that made the flush: others may be under way for long, and whoever comes next
    # believes the next flush of the same.
    log_distrust(r.folder_fd, &r.origin)
    flusher_drop(&r.flushers)


cdef void _go_forward(Redo* r, int closed) noexcept nogil:
    # Something is flushed that no later try flushes again; so many descriptors were closed.
    redo_hold(&r.threads)
    r.forward_ns = monotonic_ns()
    give_room(r, closed)
    redo_let_go(&r.threads)


cdef void _journal_flushed(flush_job* job) noexcept nogil:
    if job.error:
        _flush_failed(<Redo*>job.of)
    else:
        _go_forward(<Redo*>job.of, 0)


cdef void _file_flushed(flush_job* job) noexcept nogil:
    # On the thread that flushed it: the lane may wait for this one.
    cdef Redo* r = <Redo*>job.of
    if job.error:
        _flush_failed(r)
        return
    close(job.fd)
    r.vouched.files[job - r.jobs - 1] = -1
    _go_forward(r, 1)


cdef void _folder_failed(void* of, int error) noexcept nogil:
    # Also for want of memory: what a flush that failed has dropped nobody knows.
    cdef Redo* r = <Redo*>of
    redo_hold(&r.threads)
    r.folder_failed = True
    redo_let_go(&r.threads)
    log_distrust(r.folder_fd, &r.origin)


cdef int _flush_folders(Redo* r, LogFile* log) noexcept nogil:
    cdef const char* names = log.folders.bytes
    cdef uint32_t at = 0
    cdef uint32_t size
    cdef int count
    cdef int failed
    cdef int done = 0
    cdef bint elsewhere = log.elsewhere
    r.directories.telling.failed = _folder_failed
    r.directories.telling.of_failed = r
    while at < log.folders.size:
        size = 0
        count = 0
        while at + size < log.folders.size and count < FOLDERS_AT_ONCE:
            size += <uint32_t>strlen(names + at + size) + 1
            count += 1
        failed = flush_folders(
            r.worker, &r.directories, &r.flushers, names + at, size,
            log.folders.identities + done)
        if failed in (EMFILE, ENFILE, ENOMEM) and not r.folder_failed:
            # It could not be opened.
            r.lacked = failed
            return LATER
        if failed == FOLDER_ELSEWHERE:
            elsewhere = True
        elif failed:
            return failed
        at += size
        done += count
        if done > log.reached:
            log.reached = done
            _go_forward(r, 0)
    # Somebody moved a folder away, or made it unreachable: wherever it is now, the names in it are
    # to last as well.
    if elsewhere and syncfs(r.worker.store_fd) < 0:
        return errno
    return 0

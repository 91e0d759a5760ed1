# Threads that flush files side by side.

from libc.stdint cimport uint64_t


cdef extern from "flush_pool.h" nogil:
    ctypedef struct flush_job:
        int fd
        int large            # it may take long
        int whole            # a directory: fsync
        int error            # out: errno, or 0
        uint64_t took_ns     # out: how long the flush took
        void* of             # the caller's
        void (*done)(flush_job* job) noexcept nogil      # of flusher_run: told of each, or NULL

    ctypedef struct flusher:
        pass

    # 0, or the errno; EINTR is none. whole: as fsync does, else as fdatasync.
    int flush_file(int fd, int whole)
    # most: threads, up to FLUSHER_MOST.
    void flusher_begin(
        flusher* f, int most, void (*flushed)(void* owner, flush_job* job) noexcept nogil,
        void* owner)
    void flusher_post(flusher* f, flush_job* job)
    void flusher_run(flusher* f, flush_job* jobs, int count)
    # Of these, begin no job any more; from a job's `done`.
    void flusher_drop(flusher* f)
    void flusher_end(flusher* f)

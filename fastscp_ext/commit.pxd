# From part files to acknowledged instances, a batch at a time.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.instance cimport Instance, Site


cdef enum:
    DURABLE_PLACES = 512     # directories remembered as flushed into their parents
    BATCH_DIRECTORIES = 1024

ctypedef struct Line:
    char* bytes              # owned
    size_t size
    size_t room
    bint failed

# What a committer keeps between batches. Used by one thread at a time.
ctypedef struct Committed:
    char* durable[DURABLE_PLACES]    # owned, or NULL
    Line lines


cdef void committed_begin(Committed* c) noexcept nogil
cdef void committed_end(Committed* c) noexcept nogil
cdef void commit_batch(Site* site, Committed* c, Instance* batch) noexcept nogil
cdef int make_parents(int store_fd, char* path, uint32_t size) noexcept nogil

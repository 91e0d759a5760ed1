# From part files to acknowledged instances, a batch at a time.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.commit.flush_pool cimport flush_job, flusher
from fastscp_ext.receive.instance cimport Instance, Site
from fastscp_ext.commit.journal_line cimport Lines


cdef enum:
    DURABLE_PLACES = 512     # directories remembered as flushed into their parents

# What tells a directory from another one at its path: inodes are given again.
ctypedef struct Identity:
    uint64_t inode           # 0: not known
    uint64_t born            # ns since 1970, 0 where the file system does not keep it

# A directory to be flushed in a batch: the first `size` bytes of `path`, borrowed.
ctypedef struct Directory:
    char* path
    uint32_t size
    Identity identity

# A directory whose entry this process has flushed into its parent.
ctypedef struct Durable:
    char* path               # owned, or NULL
    Identity identity

# What a committer keeps between batches. Used by one thread at a time.
ctypedef struct Committed:
    flush_job* jobs          # owned
    Directory* directories   # owned, as many places as jobs
    int room                 # places in both
    int used
    Durable durable[DURABLE_PLACES]
    Lines lines


cdef void committed_begin(Committed* c) noexcept nogil
cdef void committed_end(Committed* c) noexcept nogil
cdef bint journal_is_due(const Site* site) noexcept nogil
cdef bint journal_is_gone(const Site* site) noexcept nogil
cdef void part_flushed(Site* site, Instance* i, int failed) noexcept nogil
cdef void commit_batch(
    Site* site, Committed* c, flusher* threads, Instance* batch) noexcept nogil
cdef int make_parents(int store_fd, char* path, uint32_t size) noexcept nogil

# The directories of a batch, and which of them are known to be on stable storage.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.commit.flush_pool cimport flush_job, flusher
from fastscp_ext.receive.instance cimport Instance, Worker


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

# Used by one thread at a time.
ctypedef struct Directories:
    flush_job* jobs          # owned
    Directory* listed        # owned, as many places as jobs
    int room                 # places in both
    int used
    Durable durable[DURABLE_PLACES]


cdef void directories_begin(Directories* c) noexcept nogil
cdef void directories_end(Directories* c) noexcept nogil
cdef uint32_t parent_of(const char* path, uint32_t size) noexcept nogil
cdef int make_parents(int store_fd, char* path, uint32_t size) noexcept nogil
cdef void forget_directories(Directories* c, const char* path, uint32_t size) noexcept nogil
cdef void flush_directories(
    Worker* worker, Directories* c, flusher* threads, Instance* batch) noexcept nogil

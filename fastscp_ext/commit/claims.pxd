# Claims of the paths that a batch gives names at; dead with their process.

from libc.stdint cimport uint32_t, uint64_t
from posix.time cimport timespec

from fastscp_ext.receive.instance cimport Worker


cdef enum:
    CLAIMS_MOST = 256        # at a time, as many as a batch of the committer has instances

# The claims of one batch after the other. Used by one thread at a time.
ctypedef struct Claims:
    int fd                   # of the file of locks, owned; -1: it was not opened yet
    unsigned long device     # of that file
    unsigned long inode
    uint64_t looked_ns       # when it was last found under its name
    timespec changed         # its change time then
    int count                # claims held
    uint32_t numbers[CLAIMS_MOST]


# Below the store, as `fastscp.store.names` has it.
cdef const char* LOCKS

cdef void claims_begin(Claims* c) noexcept nogil
cdef void claims_end(Claims* c) noexcept nogil
cdef uint32_t claim_number(const char* path, uint32_t size) noexcept nogil
cdef int claim(Claims* c, const Worker* worker, const char* path, uint32_t size) noexcept nogil
cdef void give_back(Claims* c) noexcept nogil
cdef void give_back_last(Claims* c) noexcept nogil

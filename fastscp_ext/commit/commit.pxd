# From part files to acknowledged instances, a batch at a time.

from fastscp_ext.commit.directories cimport Directories
from fastscp_ext.commit.flush_pool cimport flusher
from fastscp_ext.commit.journal_line cimport Lines
from fastscp_ext.receive.instance cimport Instance, Worker


# What a committer keeps between batches. Used by one thread at a time.
ctypedef struct Committed:
    Directories directories
    Lines lines


cdef void committed_begin(Committed* c) noexcept nogil
cdef void committed_end(Committed* c) noexcept nogil
cdef bint journal_is_due(const Worker* worker) noexcept nogil
cdef void part_flushed(Worker* worker, Instance* i, int failed) noexcept nogil
cdef void commit_batch(
    Worker* worker, Committed* c, flusher* threads, Instance* batch) noexcept nogil

# From part files to acknowledged instances, a batch at a time.

from libc.stdint cimport uint64_t

from fastscp_ext.commit.claims cimport Claims
from fastscp_ext.commit.directories cimport Directories
from fastscp_ext.commit.flush_pool cimport flusher
from fastscp_ext.commit.journal_line cimport Lines
from fastscp_ext.receive.instance cimport Instance, Worker
from fastscp_ext.shared.block cimport Batches


cdef enum:
    JOURNAL_PATH_ROOM = 256

# The file that lines are appended to.
ctypedef struct Journal:
    int fd                   # borrowed; -1: none
    int error_no             # of the failure that closed the one before, or 0
    uint64_t bytes           # in it
    uint64_t limit           # from which on it is full
    char path[JOURNAL_PATH_ROOM]    # in the store; empty: not known

# What the commit of one durability keeps between batches. Used by one thread at a time.
ctypedef struct Committed:
    bint durable             # flush
    Batches* batches         # in the shared block, borrowed
    Journal journal
    Claims claims            # of the paths of the batch, until its lines are written
    Directories directories
    Lines lines


cdef void committed_begin(Committed* c, bint durable) noexcept nogil
cdef void committed_end(Committed* c) noexcept nogil
cdef int give_final_name(
    Worker* worker, Committed* c, Instance* i, const char** step) noexcept nogil
cdef int name_is_taken(Worker* worker, Committed* c, Instance* i) noexcept nogil
cdef bint journal_is_due(const Journal* journal) noexcept nogil
cdef bint journal_is_gone(int store_fd, const Journal* journal) noexcept nogil
cdef int journal_append(
    int store_fd, Journal* journal, bint durable, const char* text, size_t n) noexcept nogil
cdef void part_flushed(Worker* worker, Instance* i, int failed) noexcept nogil
cdef void commit_batch(
    Worker* worker, Committed* c, flusher* threads, Instance* batch) noexcept nogil

# The commit off the loop: instances go in complete and come out settled.

from libc.stdint cimport uint64_t

from fastscp_ext.commit.commit cimport Committed
from fastscp_ext.commit.flush_pool cimport flusher
from fastscp_ext.receive.instance cimport Instance, Worker


cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum:
    GATHERINGS = 2
    BATCH_MOST = 256         # instances: their directories are open at once

cdef enum CommitState:
    COMMIT_IDLE = 0          # nothing is ready
    COMMIT_GATHERING = 1     # something is; the flushes under way beside it are to end first
    COMMIT_LEADING = 2       # one of the threads commits

# Gives the worker a journal file to append to, if one can be had.
ctypedef void (*OpenJournal)(void* of) noexcept nogil

ctypedef struct Committer:
    flusher threads
    Committed* committed     # borrowed; used by whoever leads
    Worker* worker               # borrowed
    OpenJournal open_journal
    void* of                 # what open_journal is called with
    int done_fd              # an eventfd, borrowed, for the caller to set: told what is done
    pthread_mutex_t lock     # of what follows
    CommitState state
    int gathering            # the one that instances join now: 0 or 1
    int under_way[GATHERINGS + 1]  # flushes of each, and of large instances, which are of none
    uint64_t taken           # instances so far
    uint64_t closed_at       # the ticket of the last one that the next batch takes
    Instance* ready          # flushed, or named by a comparison; by their tickets
    pthread_mutex_t done_lock    # of all below
    Instance* done           # settled, and not fetched


cdef void committer_begin(
    Committer* c, Committed* committed, Worker* worker, OpenJournal open_journal, void* of
) noexcept nogil
cdef void committer_end(Committer* c) noexcept nogil
cdef void committer_take(Committer* c, Instance* i) noexcept nogil
cdef Instance* committer_done(Committer* c) noexcept nogil
cdef void committer_settled(Committer* c, Instance* batch) noexcept nogil

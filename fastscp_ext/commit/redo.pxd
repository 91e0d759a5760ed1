# The redo log of a worker: the lane that small instances take, and its checkpoints.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.commit.commit cimport Committed
from fastscp_ext.commit.committer cimport Committer, OpenJournal
from fastscp_ext.commit.directories cimport Directories
from fastscp_ext.commit.flush_pool cimport flush_job, flusher
from fastscp_ext.commit.logfile cimport LogBatch, LogFile, LogOrigin
from fastscp_ext.commit.redo_threads cimport redo_lock
from fastscp_ext.receive.instance cimport Instance, Worker


cdef enum:
    LOG_FILES = 8            # of a worker
    LANE_MOST = 256          # instances of a batch
    OLD_NS = 1000000000      # the age at which a log file gets its checkpoint

# An instance of the lane's batch, and its line.
ctypedef struct Laned:
    Instance* instance
    size_t line_at           # in the lines of the batch
    size_t line_size
    int failed               # errno for which it has no name, or 0
    const char* step

# What follows from a step that failed.
cdef enum RedoFailure:
    REDO_WAITS = 0           # it is tried again; meanwhile there is no log, or a smaller one
    REDO_OFF = 1             # there is no log from now on
    REDO_FATAL = 2           # nothing may touch the log any more

# Told of a step that failed, and its errno.
ctypedef void (*TellRedo)(
    void* of, const char* step, int error, RedoFailure what) noexcept nogil

ctypedef struct Redo:
    redo_lock threads        # the lock of all below, and the two threads
    void* (*checkpoints)(void* of) noexcept nogil    # what one of these does
    Committer* committer     # borrowed: takes what the lane does not, and all that is settled
    Worker* worker           # borrowed
    OpenJournal open_journal
    TellRedo tell
    void* of                 # what both are called with
    int folder_fd            # of the log files; borrowed, -1: there is no log
    uint32_t most            # bytes of a file that may go through the log
    int kept_most            # descriptors of files that wait for their checkpoint
    LogOrigin origin
    bint on
    bint stop
    uint64_t forward_ns      # when a checkpoint last went forward, or the stop began
    bint failed              # a checkpoint has: nothing of the log is touched any more
    bint folder_failed       # a flush of one has, in a checkpoint
    int lacked               # the errno for which the last one has to be tried again, or 0
    bint held_up             # the checkpoint waits for a file that the lane has in use
    bint wanted              # one more log file
    uint64_t not_before_ns   # when a log file may be made, after one could not be
    int not_made             # why not, as it was told; 0: the last one could
    int kept                 # descriptors
    int wanted_room          # for so many descriptors the lane waits; 0: it does not
    bint too_late            # it waited in vain, and does not again before there is any
    Instance* first          # that wait for the lane
    Instance* last
    LogFile* files[LOG_FILES]
    int count
    int made                 # log files so far
    LogFile* active          # the one that is written to, or NULL
    # The lane's alone.
    Committed named          # its names and its lines; nothing of it is flushed by the lane
    LogBatch batch
    uint64_t batches
    Laned laned[LANE_MOST]
    int used                 # of these
    # The checkpoint's alone.
    flusher flushers
    Directories directories
    flush_job* jobs          # owned, LOG_RECORDS of them once there is one
    LogFile* vouched         # whose files these are


cdef void redo_begin(
    Redo* r, Committer* committer, Worker* worker, OpenJournal open_journal, TellRedo tell, void* of
) noexcept nogil
cdef void redo_open(
    Redo* r, int folder_fd, uint32_t most, int kept_most, const LogOrigin* origin) noexcept nogil
cdef bint redo_take(Redo* r, Instance* i) noexcept nogil
cdef int redo_close(Redo* r) noexcept nogil
cdef void redo_end(Redo* r) noexcept nogil

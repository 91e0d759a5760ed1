# The memory that main and its workers share: two blocks, their layouts, and one mapping of them.
#
# The block proper is of one main and its workers. The common block is of all that write into one
# store: where a main hands over to its successor, both have it for a while. They may be of two
# versions of the program, so it holds only what the promises to peers need, and rarely changes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


# Every change of a struct, of a number or of a table in tables.pyx is another version.
cdef enum:
    BLOCK_VERSION = 16
    COMMON_VERSION = 1
    BLOCK_WORKERS = 256
    BLOCK_CLAIMS = 512       # slots: what can be on its way to workers at once
    BLOCK_REGIONS = 5
    BLOCK_TALLIES = 16384    # associations that have a tally; those beyond count for themselves
    AE_ROWS = 256
    SYNTAX_ROWS = 80
    STATUS_ROWS = 64
    TITLE_ROOM = 31          # bytes of an AE title; PS3.5 6.2 allows 16
    BUCKETS = 31
    UNFLUSHED_SLOTS = 64     # paths of each doubt; whatever comes beyond makes it hold for all

# Instances of each are committed in batches of their own.
cdef enum:
    DURABILITY_BUFFERED = 0
    DURABILITY_STABLE = 1
    DURABILITIES = 2

# What a failed flush, or a replacement that could not be ended, makes doubtful.
cdef enum Doubt:
    DOUBT_REFUSED = 0        # directories that get no instance any more
    DOUBT_ANEW = 1           # directories and files: what is there is not adopted, but written anew
    DOUBT_LEFT = 2           # files whose older content an ended replacement has left beside them
    DOUBTS = 3

# The four moments of an instance, ns of CLOCK_MONOTONIC; 0: it did not come to that.
cdef enum Stamp:
    STAMP_COMMAND = 0        # the read that held the end of its command returned
    STAMP_LAST_BYTE = 1      # the read that held the end of its data set returned
    STAMP_DURABLE = 2        # its journal line was flushed or, with buffered durability, written
    STAMP_ANSWERED = 3       # its response was handed to the socket
    STAMPS = 4

# What is timed: from one stamp to another.
cdef enum Stretch:
    STRETCH_RECEIVE = 0      # command to last byte
    STRETCH_COMMIT = 1       # last byte to durable
    STRETCH_ANSWER = 2       # durable to answered
    STRETCH_WHOLE = 3        # command to answered
    STRETCH_RESPONSE = 4     # last byte to answered
    STRETCHES = 5

# What is flushed, with stable durability.
cdef enum Flush:
    FLUSH_DATA = 0           # the file of an instance
    FLUSH_BATCH = 1          # the folders of a batch, and the journal with its lines
    FLUSH_LOG = 2            # a batch of small instances in the redo log
    FLUSH_CHECKPOINT = 3     # of a file of that log, all that it vouches for
    FLUSHES = 4

# What is committed in batches: instances of each durability, and those that take the redo log.
cdef enum:
    BATCHES_LOG = 2
    BATCHES = 3

# Which way an instance of stable durability took where there is a redo log: that of the log, or,
# for one of these reasons, the one without.
cdef enum Way:
    WAY_LOG = 0
    WAY_LARGER = 1           # its file is larger than what the log takes
    WAY_FULL = 2             # no file of the log has room, or is made yet
    WAY_TAKEN = 3            # its path has a file, or somebody else is at it
    WAY_OTHER = 4            # the log or the instance's folder failed before, or something lacks
    WAYS = 5

# What keeps reading from an association back.
cdef enum Throttle:
    THROTTLE_SPACE = 0       # space is short
    THROTTLE_COMMIT = 1      # much is owed or uncommitted
    THROTTLES = 2

ctypedef struct Region:
    uint64_t offset          # from the start of the block, bytes
    uint64_t size

ctypedef struct Header:
    char magic[8]
    uint32_t version
    uint32_t regions
    uint64_t size            # of the whole block, bytes
    Region region[BLOCK_REGIONS]    # store, claims, liveness, rows, tallies
    uint64_t padding[3]

# What main found the store to be. One cache line, as every group of words that is written together.
ctypedef struct StoreWords:
    uint64_t state
    uint64_t slow_rate       # bytes/s that all workers may read while STORE_SLOW
    uint64_t slow_until      # up to when that rate is used up, ns of CLOCK_MONOTONIC
    uint64_t padding[5]

# The batches of one worker and one durability.
ctypedef struct Batches:
    uint64_t begun           # number of the batch that was begun last; names follow
    uint64_t ended           # the same number once its lines are in the journal, or never will be
    uint64_t padding[6]

# What is known of a worker that lives; cleared when another one takes its place.
ctypedef struct Live:
    uint64_t heartbeat       # ms of CLOCK_MONOTONIC
    uint64_t disk            # since when the loop is inside a file call, ms; 0: it is not
    uint64_t in_flight       # bytes of complete instances that its commits have
    uint64_t large           # when it last read of a large data set, ms; 0: never
    uint64_t padding[4]

# Monotonic, as all that follows. Each instance is counted in one of `instances`, `refused` and
# `unfinished`.
ctypedef struct Row:
    uint64_t instances       # stored, or there already
    uint64_t bytes           # of the data sets of these
    uint64_t refused
    uint64_t unfinished      # the association ended before the data set
    uint64_t padding[4]

# Bucket k counts numbers below 2^k that bucket k - 1 does not, the last one all others. They are
# times in us, or instances.
ctypedef struct Histogram:
    uint64_t total
    uint64_t buckets[BUCKETS]

# Written by the worker's loop alone, except where another is named.
ctypedef struct WorkerRows:
    uint64_t received        # bytes read from connections
    uint64_t throttled[THROTTLES]   # us that associations were not read from, together
    uint64_t log_lost        # lines of its log
    uint64_t padding[4]
    uint64_t ways[WAYS]      # instances; the first one by the redo log's lane, the others by anyone
    uint64_t more_padding[3]
    Histogram times[STRETCHES]
    Histogram flushes[FLUSHES]      # each by the one thread that makes it, or under a lock
    Histogram batches[BATCHES]      # instances of a batch; by whoever commits it
    Row by_ae[AE_ROWS]       # row 0 of each family: all that has no row of its own
    Row by_syntax[SYNTAX_ROWS]
    Row by_status[STATUS_ROWS]

ctypedef struct Title:
    uint8_t size
    char text[TITLE_ROOM]

# The titles are written by main alone.
ctypedef struct RowsRegion:
    uint64_t workers         # how many, from the first, ever had rows
    uint64_t titles_used     # AE rows that have a title, from row 1
    uint64_t others          # of these, the ones that no configuration names
    uint64_t padding[5]
    Title titles[AE_ROWS]
    WorkerRows worker[BLOCK_WORKERS]

# What could not be flushed, in the life of the service and its successors: nothing leaves it.
# Paths are below the store, by their hashes; 0: a free place.
ctypedef struct Unflushed:
    uint64_t any             # whether there is anything: all that is read where no flush failed
    uint64_t all[DOUBTS]     # whether it holds for all paths
    uint64_t padding[4]
    uint64_t paths[DOUBTS][UNFLUSHED_SLOTS]

cdef enum:
    TALLY_TOLD = 1           # in a line of its own, or among those that were lost
    TALLY_COUNTED = 2        # only in a line that counts many

# What one association has done: it outlives its worker, which alone writes it.
ctypedef struct Tally:
    uint64_t begun           # C-STORE-RQs; counted in one of the next three or `kept`
    uint64_t stored
    uint64_t refused
    uint64_t unfinished      # broken off before the last byte
    uint64_t bytes           # of the data sets stored
    uint64_t received        # bytes read from its connection
    uint64_t truncated       # of those stored, as the next six
    uint64_t mislabelled
    uint64_t headers         # had a Part 10 header inside the data set
    uint64_t odd_uids
    uint64_t identical
    uint64_t versions
    uint64_t replaced
    uint64_t kept            # not stored: the other one stays
    uint64_t told            # its end is in the log: TALLY_TOLD, TALLY_COUNTED
    uint64_t ended           # how it ended, in a number of its worker's; 0: it goes on

ctypedef struct BlockLayout:
    Header header
    StoreWords store
    uint64_t claims[BLOCK_CLAIMS]
    Live live[BLOCK_WORKERS]
    RowsRegion rows
    Tally tallies[BLOCK_TALLIES]

# Numbers of workers are given so that no two that live have the same, whoever their main is.
ctypedef struct CommonLayout:
    char magic[8]
    uint32_t version
    uint32_t padding_1
    uint64_t size            # of the whole, bytes
    uint64_t padding_2[5]
    uint64_t journal_seq
    uint64_t mixed           # whether a name is taken by its form with or without .zst, too
    uint64_t padding_3[6]
    Batches batches[BLOCK_WORKERS][DURABILITIES]
    Unflushed unflushed


cdef class Block:
    cdef BlockLayout* at
    cdef CommonLayout* common
    cdef readonly int fd
    cdef readonly int common_fd

    cdef int _map(self, int fd) except -1
    cdef int _map_common(self, int fd) except -1
    cdef int _check(self, uint64_t size) except -1
    cdef int _check_common(self, uint64_t size) except -1

cdef int worker_in_range(Py_ssize_t worker) except -1

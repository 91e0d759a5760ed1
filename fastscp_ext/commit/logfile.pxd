# The files of a redo log, and the batch that is about to be written to one.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.commit.directories cimport Identity


cdef enum:
    LOG_BLOCK = 4096         # batches begin at multiples of it: no durable block is written again
    LOG_BYTES = 8388608      # of a file
    LOG_RECORDS = 1024       # of a file: so many files are flushed by its checkpoint
    LOG_HEADER = 268         # bytes of block 0 that are used
    LOG_NAME_ROOM = 96       # of a name and its NUL
    BATCH_HEADER = 64
    RECORD_HEADER = 24
    RECORD_PUT = 1
    RECORD_VOID = 2

cdef enum LogState:
    LOG_FREE = 0             # nothing in it counts: to be written to
    LOG_WRITING = 1          # batches are appended to it
    LOG_SEALED = 2           # waits for its checkpoint
    LOG_SPENT = 3            # of no more use: a write to it failed

# Who made the files; all are ASCII, and end with a NUL.
ctypedef struct LogOrigin:
    char store[40]
    char boot[48]
    char life[64]
    char mount[48]
    char system[24]

# Names of folders, each with its NUL, behind each other; and which folders these were.
ctypedef struct Names:
    char* bytes              # owned
    uint32_t size
    uint32_t room
    Identity* identities     # owned, LOG_RECORDS of them once there is one
    uint32_t* starts         # where each begins; likewise
    int count

ctypedef struct LogFile:
    int fd
    int number               # from 1; part of its name
    LogState state
    bint in_use              # the lane is writing to it, whatever its state
    bint broken              # a write to it failed: it is used no more
    bint flushed             # the files and the segment are; their folders not yet
    bint elsewhere           # a folder is missing in `folders`, so only flushing all will do
    uint64_t salt
    uint64_t at              # where the next batch begins
    uint64_t oldest_ns       # when its first batch was written
    int journal_fd           # of the segment that has the lines of all its records; owned, -1: none
    int records
    int kept                 # descriptors of files that it vouches for
    int files[LOG_RECORDS]   # these, owned; -1: flushed and closed
    Names folders            # that got these files
    int reached              # so many of these have been flushed, at most, in any try

# A batch under way, as it will be in the file.
ctypedef struct LogBatch:
    uint8_t* bytes           # owned
    size_t size
    size_t room
    size_t last              # where the last record begins
    uint32_t records


cdef inline uint64_t whole_blocks(uint64_t n) noexcept nogil:
    # So many bytes, as bytes of whole blocks.
    return (n + LOG_BLOCK - 1) & ~<uint64_t>(LOG_BLOCK - 1)


cdef LogFile* log_make(
    int folder_fd, int number, const LogOrigin* origin, int* failed) noexcept nogil
cdef void log_end(LogFile* log) noexcept nogil
cdef int log_remove(int folder_fd, LogFile* log, const LogOrigin* origin) noexcept nogil
cdef void log_distrust(int folder_fd, const LogOrigin* origin) noexcept nogil
cdef void log_forget(LogFile* log) noexcept nogil
cdef int log_renew(LogFile* log, const LogOrigin* origin) noexcept nogil
cdef int log_write(LogFile* log, LogBatch* batch, uint64_t number) noexcept nogil
cdef void log_keep(
    LogFile* log, int fd, const char* folder, uint32_t size, const Identity* identity
) noexcept nogil
cdef void batch_begin(LogBatch* batch) noexcept nogil
cdef void batch_end(LogBatch* batch) noexcept nogil
cdef void batch_drop_last(LogBatch* batch) noexcept nogil
cdef uint64_t batch_bytes(const LogBatch* batch) noexcept nogil
cdef uint8_t* batch_put(
    LogBatch* batch, uint64_t sequence, const char* path, uint32_t path_size, const char* line,
    uint32_t line_size, uint32_t file_size) noexcept nogil
cdef void batch_put_checksum(LogBatch* batch, uint8_t* data, uint32_t size) noexcept nogil
cdef bint batch_void(
    LogBatch* batch, uint64_t sequence, const char* path, uint32_t path_size) noexcept nogil

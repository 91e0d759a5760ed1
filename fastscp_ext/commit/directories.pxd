# The directories of a batch, and which of them are known to be on stable storage.

from libc.stdint cimport uint32_t, uint64_t

from fastscp_ext.commit.flush_pool cimport flush_job, flusher
from fastscp_ext.receive.instance cimport Instance, Worker
from fastscp_ext.shared.block cimport Unflushed


cdef enum:
    DURABLE_PLACES = 512     # directories remembered as flushed into their parents
    OPEN_MOST = 64           # directories kept open where none is flushed
    FOLDER_ELSEWHERE = -2    # no errno: what was flushed may not be the directory that was meant

# What tells a directory from another one at its path: inodes are given again.
ctypedef struct Identity:
    uint64_t inode           # 0: not known
    uint64_t born            # ns since 1970, 0 where the file system does not keep it

# Told of a directory that is refused from now on. error: of its flush. all: the table of those is
# full, so that every directory is.
ctypedef void (*TellRefused)(
    void* of, const char* path, int error, bint lasting, bint all) noexcept nogil

# Told of any flush that failed, and its errno.
ctypedef void (*TellFailed)(void* of, int error) noexcept nogil

# Who is told of a flush that failed; at once, on the thread that made it, for others of the batch
# may hang until all are killed. failed is called first: refused may take long.
ctypedef struct Telling:
    TellFailed failed        # or NULL
    void* of_failed          # what it is called with
    TellRefused refused      # or NULL
    void* of_refused

# A directory that instances get their names in, or that is to be flushed.
ctypedef struct Directory:
    char* path               # owned; "": the store
    uint32_t size
    uint32_t hash
    int fd                   # negative: it cannot be opened
    int error                # why not, or why its flush failed
    bint due                 # to be flushed in this batch
    bint above               # for the entry of a directory in it
    bint refused             # a flush of it has failed, now or before, in any worker
    Unflushed* unflushed     # in the shared block, borrowed
    const Telling* telling   # borrowed
    Identity identity        # set where `due`, or asked for

# A directory whose entry this process has flushed into its parent.
ctypedef struct Durable:
    char* path               # owned, or NULL
    Identity identity

# Of one durability, used by one thread at a time. What is open may be up to a second old between
# batches, and is closed behind each one that is flushed.
ctypedef struct Directories:
    bint flushed             # with each batch
    flush_job* jobs          # owned
    Directory* listed        # owned, as many places as jobs
    int room                 # places in both
    int used
    uint64_t opened_ns       # when the first of them was
    Telling telling
    Durable durable[DURABLE_PLACES]


cdef void directories_begin(Directories* c, bint flushed) noexcept nogil
cdef void directories_end(Directories* c) noexcept nogil
cdef void directories_refresh(Directories* c, uint64_t now_ns) noexcept nogil
cdef uint32_t parent_of(const char* path, uint32_t size) noexcept nogil
cdef int directory_of(
    Directories* c, const Worker* worker, const char* path, uint32_t size) noexcept nogil
cdef int make_directory_of(
    Directories* c, const Worker* worker, const char* path, uint32_t size) noexcept nogil
cdef bint refuse_directory_of(
    const Worker* worker, Instance* i, uint32_t size) noexcept nogil
cdef void flush_directories(
    Worker* worker, Directories* c, flusher* threads, Instance* batch) noexcept nogil
cdef void directories_close(Directories* c) noexcept nogil
cdef int directory_identity(
    Directories* c, const Worker* worker, const char* path, uint32_t size, Identity* identity
) noexcept nogil
cdef bint is_refused(const Worker* worker, const char* path, uint32_t size) noexcept nogil
cdef int flush_folders(
    Worker* worker, Directories* c, flusher* threads, const char* names, uint32_t size,
    const Identity* identities) noexcept nogil

"""The directories of a batch: made, and flushed. See directories.pyi."""

from libc.errno cimport EEXIST, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.unistd cimport close

from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.commit.flush_pool cimport flush_job, flusher, flusher_run
from fastscp_ext.receive.instance cimport (
    STAGE_NAMED, STAGE_SETTLED, Instance, Worker, instance_fail,
)

__all__ = []

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC
    int O_DIRECTORY
    int O_RDONLY
    int openat(int dirfd, const char* path, int flags, ...)

cdef extern from "sys/stat.h" nogil:
    ctypedef unsigned int mode_t
    int mkdirat(int dirfd, const char* path, mode_t mode)

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/stat.h>
    static void identify(int fd, uint64_t *inode, uint64_t *born) {
        struct statx found;
        *inode = *born = 0;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &found) < 0) return;
        *inode = found.stx_ino;
        if (found.stx_mask & STATX_BTIME)
            *born = (uint64_t)found.stx_btime.tv_sec * 1000000000u + found.stx_btime.tv_nsec;
    }
    """
    void identify(int fd, uint64_t* inode, uint64_t* born) nogil


cdef void directories_begin(Directories* c) noexcept nogil:
    memset(c, 0, sizeof(Directories))


cdef void directories_end(Directories* c) noexcept nogil:
    cdef int i
    free(c.jobs)
    free(c.listed)
    c.jobs = NULL
    c.listed = NULL
    c.room = 0
    for i in range(DURABLE_PLACES):
        free(c.durable[i].path)
        c.durable[i].path = NULL


cdef uint32_t parent_of(const char* path, uint32_t size) noexcept nogil:
    # The length of the directory part of a relative path; 0: the store itself.
    while size and path[size - 1] != 47:
        size -= 1
    return size - 1 if size else 0


cdef Durable* _durable_place(Directories* c, const char* path, uint32_t size) noexcept nogil:
    return &c.durable[crc32c(0, <const uint8_t*>path, size) % DURABLE_PLACES]


cdef bint _is_durable(Directories* c, Directory* d) noexcept nogil:
    # Whether this very directory's entry was flushed: one removed by hand may have been made
    # again by another worker, who has yet to flush it. If it is the same, so are those above.
    cdef Durable* there = _durable_place(c, d.path, d.size)
    if d.size == 0:
        return True
    return (
        there.path != NULL and strlen(there.path) == d.size
        and memcmp(there.path, d.path, d.size) == 0 and d.identity.inode != 0
        and there.identity.inode == d.identity.inode and there.identity.born == d.identity.born
    )


cdef void _set_durable(Directories* c, Directory* d) noexcept nogil:
    cdef Durable* place = _durable_place(c, d.path, d.size)
    free(place.path)
    place.path = <char*>malloc(d.size + 1)
    place.identity = d.identity
    if place.path != NULL:
        memcpy(place.path, d.path, d.size)
        place.path[d.size] = 0


cdef void forget_directories(Directories* c, const char* path, uint32_t size) noexcept nogil:
    # A directory on the way to `path` was gone: it and those above are not known any more.
    cdef Durable* place
    while size:
        place = _durable_place(c, path, size)
        free(place.path)
        place.path = NULL
        size = parent_of(path, size)


cdef int make_parents(int store_fd, char* path, uint32_t size) noexcept nogil:
    # mkdir -p of the directories above `path`, which is restored before returning. errno or 0.
    cdef uint32_t i
    cdef int got
    for i in range(1, size):
        if path[i] == 47:
            path[i] = 0
            got = mkdirat(store_fd, path, 0o750)
            path[i] = 47
            if got < 0 and errno != EEXIST:
                return errno
    return 0


cdef int _open_directory(int store_fd, char* path, uint32_t size) noexcept nogil:
    # The directory made of the first `size` bytes of `path`, or -1.
    cdef char kept = path[size]
    cdef const char* name = b"."
    cdef int fd
    if size:
        name = path
    path[size] = 0
    fd = openat(store_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    path[size] = kept
    return fd


cdef bint _reserve(Directories* c, int places) noexcept nogil:
    # Room for so many jobs and directories.
    cdef flush_job* jobs
    cdef Directory* directories
    if places <= c.room:
        return True
    jobs = <flush_job*>realloc(c.jobs, <size_t>places * 2 * sizeof(flush_job))
    if jobs == NULL:
        return False
    c.jobs = jobs
    directories = <Directory*>realloc(c.listed, <size_t>places * 2 * sizeof(Directory))
    if directories == NULL:
        return False
    c.listed = directories
    c.room = places * 2
    return True


cdef int _listed(Directories* c, char* path, uint32_t size) noexcept nogil:
    # The place of a directory in this batch's list, or -1.
    cdef int k
    for k in range(c.used):
        if c.listed[k].size == size and memcmp(c.listed[k].path, path, size) == 0:
            return k
    return -1


cdef void _list_directories(Worker* worker, Directories* c, Instance* i) noexcept nogil:
    # The directory that got the instance's name, and upwards each one whose own entry this
    # process has not yet flushed into its parent.
    cdef uint32_t size = parent_of(i.path, i.path_size)
    cdef Directory* d
    cdef int k
    while True:
        k = _listed(c, i.path, size)
        if k < 0:
            if not _reserve(c, c.used + 1):
                return
            k = c.used
            c.used += 1
            d = &c.listed[k]
            d.path = i.path
            d.size = size
            c.jobs[k].whole = 1
            c.jobs[k].fd = _open_directory(worker.store_fd, i.path, size)
            c.jobs[k].error = errno if c.jobs[k].fd < 0 else 0
            identify(c.jobs[k].fd, &d.identity.inode, &d.identity.born)
        if _is_durable(c, &c.listed[k]):
            return
        size = parent_of(i.path, size)


cdef int _directory_error(Directories* c, Instance* i) noexcept nogil:
    # The first failure among the directories the instance depends on; ENOMEM: one is not listed.
    cdef uint32_t size = parent_of(i.path, i.path_size)
    cdef int k
    while True:
        k = _listed(c, i.path, size)
        if k < 0:
            return ENOMEM
        if c.jobs[k].error:
            return c.jobs[k].error
        if _is_durable(c, &c.listed[k]):
            return 0
        size = parent_of(i.path, size)


cdef void flush_directories(
    Worker* worker, Directories* c, flusher* threads, Instance* batch
) noexcept nogil:
    # Each touched directory once. A failure refuses all instances that depend on it.
    cdef Instance* i = batch
    cdef uint32_t size
    cdef int failed
    cdef int k
    c.used = 0
    while i != NULL:
        if i.stage == STAGE_NAMED:
            _list_directories(worker, c, i)
        i = i.next
    flusher_run(threads, c.jobs, c.used)
    for k in range(c.used):
        if c.jobs[k].fd >= 0:
            close(c.jobs[k].fd)
    i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            failed = _directory_error(c, i)
            if failed:
                instance_fail(i, failed, b"flush a directory")
                i.stage = STAGE_SETTLED
        i = i.next
    i = batch
    while i != NULL:
        # Only now: what one instance made durable must not vouch for a sibling's failure.
        if i.stage == STAGE_NAMED:
            size = parent_of(i.path, i.path_size)
            k = _listed(c, i.path, size)
            while k >= 0 and not _is_durable(c, &c.listed[k]):
                _set_durable(c, &c.listed[k])
                size = parent_of(i.path, size)
                k = _listed(c, i.path, size)
        i = i.next

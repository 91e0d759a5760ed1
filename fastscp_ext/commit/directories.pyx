"""The directories of a batch: made, and flushed. See directories.pyi."""

from libc.errno cimport EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.unistd cimport close

from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.commit.beneath cimport make_directory_beneath, open_file_beneath
from fastscp_ext.commit.flush_pool cimport flush_job, flusher, flusher_run
from fastscp_ext.receive.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_KEPT, STAGE_NAMED, STAGE_SETTLED, Instance, Worker,
    instance_fail, instance_refuse,
)
from fastscp_ext.shared.block cimport DOUBT_ANEW, DOUBT_REFUSED
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.unflushed cimport (
    ADDED_ALL, ADDED_NOTHING, Added, unflushed_add, unflushed_has,
)
from fastscp_ext.status cimport OUT_OF_RESOURCES

__all__ = []

cdef extern from "fcntl.h" nogil:
    int O_DIRECTORY
    int O_RDONLY

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

cdef enum:
    OPEN_NS = 1000000000     # how long a directory that was moved away goes on being used
    REFUSED = -1             # no errno: a flush of the directory has failed, now or before


cdef void directories_begin(Directories* c, bint flushed) noexcept nogil:
    memset(c, 0, sizeof(Directories))
    c.flushed = flushed


cdef void directories_end(Directories* c) noexcept nogil:
    cdef int i
    directories_close(c)
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


cdef void _forget(Directories* c, const char* path, uint32_t size) noexcept nogil:
    # A directory on the way was gone: it and those above are not known any more.
    cdef Durable* place
    cdef int k
    while size:
        place = _durable_place(c, path, size)
        free(place.path)
        place.path = NULL
        k = _listed(c, path, size)
        if k >= 0:
            _close(c, k)
            c.used -= 1
            c.listed[k] = c.listed[c.used]
        size = parent_of(path, size)


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


cdef int _listed(Directories* c, const char* path, uint32_t size) noexcept nogil:
    # The place of a directory in the list, or -1.
    cdef uint32_t digest = crc32c(0, <const uint8_t*>path, size)
    cdef Directory* d
    cdef int k
    for k in range(c.used):
        d = &c.listed[k]
        if d.hash == digest and d.size == size and memcmp(d.path, path, size) == 0:
            return k
    return -1


cdef int _list(
    Directories* c, const Worker* worker, const char* path, uint32_t size, bint make
) noexcept nogil:
    # Open a directory and put it on the list, also if it cannot be opened; its place, or -1: out of
    # memory. make: it and those above it, where they are missing.
    cdef Directory* d
    cdef const char* name = b"."
    if not _reserve(c, c.used + 1):
        return -1
    d = &c.listed[c.used]
    memset(d, 0, sizeof(Directory))
    d.path = <char*>malloc(size + 1)
    if d.path == NULL:
        return -1
    memcpy(d.path, path, size)
    d.path[size] = 0
    d.size = size
    d.hash = crc32c(0, <const uint8_t*>path, size)
    d.unflushed = worker.unflushed
    d.telling = &c.telling
    if size:
        name = d.path
    if make:
        d.fd = make_directory_beneath(worker.store_fd, name)
    else:
        d.fd = open_file_beneath(worker.store_fd, name, O_RDONLY | O_DIRECTORY, 0)
    if d.fd < 0:
        d.error = -d.fd
    if c.used == 0:
        c.opened_ns = monotonic_ns()
    c.used += 1
    return c.used - 1


cdef void _close(Directories* c, int k) noexcept nogil:
    free(c.listed[k].path)
    if c.listed[k].fd >= 0:
        close(c.listed[k].fd)


cdef void directories_close(Directories* c) noexcept nogil:
    # All that is open. Between batches, or where none of it is used any more.
    cdef int k
    for k in range(c.used):
        _close(c, k)
    c.used = 0


cdef void directories_refresh(Directories* c, uint64_t now_ns) noexcept nogil:
    # Close what was opened too long ago to be taken for what is at its path now. Between batches.
    if c.used and now_ns - c.opened_ns > OPEN_NS:
        directories_close(c)


cdef int directory_identity(
    Directories* c, const Worker* worker, const char* path, uint32_t size, Identity* identity
) noexcept nogil:
    # What tells the directory from another one that is at its path later; it is asked for once as
    # long as the directory is open. 0; or the errno for which it cannot be opened.
    cdef int dir_fd = directory_of(c, worker, path, size)
    cdef int k = _listed(c, path, size)
    if dir_fd < 0:
        return -dir_fd
    if k < 0:
        # The store itself.
        identify(dir_fd, &identity.inode, &identity.born)
        return 0
    if c.listed[k].identity.inode == 0:
        identify(dir_fd, &c.listed[k].identity.inode, &c.listed[k].identity.born)
    identity[0] = c.listed[k].identity
    return 0


cdef bint is_refused(const Worker* worker, const char* path, uint32_t size) noexcept nogil:
    # Whether instances in the directory made of the first `size` bytes of a path cannot be made
    # sure of: a flush of it, or of one above it, has failed.
    while not unflushed_has(worker.unflushed, DOUBT_REFUSED, path, size):
        if size == 0:
            return False
        size = parent_of(path, size)
    return True


cdef int _opened(
    Directories* c, const Worker* worker, const char* path, uint32_t size, bint make
) noexcept nogil:
    cdef int k
    cdef int fd
    if c.used >= OPEN_MOST and not c.flushed:
        directories_close(c)
    k = _list(c, worker, path, size, make)
    if k < 0:
        return -ENOMEM
    fd = c.listed[k].fd
    if fd < 0:
        # The next instance asks again.
        _close(c, k)
        c.used -= 1
    return fd


cdef int directory_of(
    Directories* c, const Worker* worker, const char* path, uint32_t size
) noexcept nogil:
    # The descriptor of the directory made of the first `size` bytes of `path`, borrowed until the
    # next call; or minus an errno.
    cdef int k
    if size == 0:
        return worker.store_fd
    k = _listed(c, path, size)
    return c.listed[k].fd if k >= 0 else _opened(c, worker, path, size, False)


cdef int make_directory_of(
    Directories* c, const Worker* worker, const char* path, uint32_t size
) noexcept nogil:
    # As directory_of, of one that was found missing.
    _forget(c, path, size)
    return _opened(c, worker, path, size, True) if size else worker.store_fd


cdef void _list_due(
    Worker* worker, Directories* c, const char* path, uint32_t size
) noexcept nogil:
    # The directory made of the first `size` bytes of `path`, which got a name, and upwards each one
    # whose own entry this process has not yet flushed into its parent.
    cdef Directory* d
    cdef bint above = False
    cdef int k
    while True:
        k = _listed(c, path, size)
        if k < 0:
            k = _list(c, worker, path, size, False)
            if k < 0:
                return
        d = &c.listed[k]
        if not d.due:
            d.due = True
            identify(d.fd, &d.identity.inode, &d.identity.born)
        if above:
            d.above = True
        if _is_durable(c, d):
            return
        above = True
        size = parent_of(path, size)


cdef bint _is_lack(int error) noexcept nogil:
    # Whether the system lacked something, and says nothing of the disk.
    return error in (ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM)


cdef void _flush_done(flush_job* job) noexcept nogil:
    # On the thread that made the flush: another worker may be about to trust the next one, and
    # whoever comes after a kill.
    cdef Directory* d = <Directory*>job.of
    cdef const Telling* telling = d.telling
    cdef bint lasting = not _is_lack(job.error)
    cdef Added added = ADDED_NOTHING
    if not job.error:
        return
    if not lasting:
        unflushed_add(d.unflushed, DOUBT_ANEW, d.path, d.size)
    if lasting or d.above:
        # A directory whose entry may be lost cannot be named anew while instances go into it.
        added = unflushed_add(d.unflushed, DOUBT_REFUSED, d.path, d.size)
    if telling.failed != NULL:
        telling.failed(telling.of_failed, job.error)
    if added != ADDED_NOTHING and telling.refused != NULL:
        telling.refused(telling.of_refused, d.path, job.error, lasting, added == ADDED_ALL)


cdef void _flush_due(Directories* c, flusher* threads) noexcept nogil:
    cdef Directory* d
    cdef int count = 0
    cdef int k
    for k in range(c.used):
        d = &c.listed[k]
        # A flush that failed is not tried again.
        d.refused = d.due and unflushed_has(d.unflushed, DOUBT_REFUSED, d.path, d.size)
        if d.due and not d.refused:
            c.jobs[count].fd = d.fd
            c.jobs[count].whole = 1
            c.jobs[count].error = d.error
            c.jobs[count].of = d
            c.jobs[count].done = _flush_done
            count += 1
    flusher_run(threads, c.jobs, count)
    for k in range(count):
        (<Directory*>c.jobs[k].of).error = c.jobs[k].error
    for k in range(c.used):
        d = &c.listed[k]
        # Once more: the failure may be one that another worker met meanwhile, and the system
        # tells only one of both.
        if d.due and unflushed_has(d.unflushed, DOUBT_REFUSED, d.path, d.size):
            d.refused = True


cdef int _directory_error(Directories* c, const char* path, uint32_t size) noexcept nogil:
    # The first failure among the directories that the name of one made of the first `size` bytes of
    # `path`, and what is in it, depends on; ENOMEM: one is not listed; REFUSED: its flush failed
    # for good.
    cdef int k
    while True:
        k = _listed(c, path, size)
        if k < 0:
            return ENOMEM
        if c.listed[k].refused:
            return REFUSED
        if c.listed[k].error:
            return c.listed[k].error
        if _is_durable(c, &c.listed[k]):
            return 0
        size = parent_of(path, size)


cdef bint refuse_directory_of(
    const Worker* worker, Instance* i, uint32_t size
) noexcept nogil:
    # Whether instances of the directory made of the first `size` bytes of its path are refused;
    # if so, this one is.
    if not unflushed_has(worker.unflushed, DOUBT_REFUSED, i.path, size):
        return False
    instance_refuse(i, OUT_OF_RESOURCES, b"folder could not be flushed")
    return True


cdef bint _is_doubtful(const Worker* worker, const Instance* i) noexcept nogil:
    # Whether the instance relies on a file that may not be on the disk. A comparison lets none
    # pass; what it did let pass may have become doubtful meanwhile.
    if i.duplicate != DUPLICATE_IDENTICAL and i.duplicate != DUPLICATE_KEPT:
        return False
    return (
        unflushed_has(worker.unflushed, DOUBT_ANEW, i.path, i.path_size)
        or unflushed_has(
            worker.unflushed, DOUBT_ANEW, i.path, parent_of(i.path, i.path_size))
    )


cdef void _judge(Worker* worker, Directories* c, Instance* i) noexcept nogil:
    # Refuse an instance whose name is not sure to be on stable storage.
    cdef int failed = _directory_error(c, i.path, parent_of(i.path, i.path_size))
    if failed == REFUSED:
        instance_refuse(i, OUT_OF_RESOURCES, b"folder could not be flushed")
    elif failed:
        # Its name may never have been written: the sender's next try must not rely on it.
        unflushed_add(worker.unflushed, DOUBT_ANEW, i.path, parent_of(i.path, i.path_size))
        instance_fail(i, failed, b"flush a directory")
    elif _is_doubtful(worker, i):
        instance_refuse(i, OUT_OF_RESOURCES, b"existing instance may not be on the disk")
    else:
        return
    i.stage = STAGE_SETTLED


cdef void _all_durable(Directories* c, const char* path, uint32_t size) noexcept nogil:
    # Note of a directory, and of those above it, that their entries were flushed.
    cdef int k = _listed(c, path, size)
    while k >= 0 and not _is_durable(c, &c.listed[k]):
        _set_durable(c, &c.listed[k])
        size = parent_of(path, size)
        k = _listed(c, path, size)


cdef int flush_folders(
    Worker* worker, Directories* c, flusher* threads, const char* names, uint32_t size,
    const Identity* identities,
) noexcept nogil:
    # As flush_directories does, of directories by their names, each with its NUL, `size` bytes in
    # all. identities: what each of them was. 0; FOLDER_ELSEWHERE where one is not at its path any
    # more, or cannot be reached there: what got a name in it needs another kind of flush. Or the
    # errno of the first failure, EIO where a flush of one has failed before.
    cdef uint32_t at = 0
    cdef int failed = 0
    cdef int got
    cdef int k = 0
    while at < size:
        _list_due(worker, c, names + at, <uint32_t>strlen(names + at))
        at += <uint32_t>strlen(names + at) + 1
    _flush_due(c, threads)
    at = 0
    while at < size and (failed == 0 or failed == FOLDER_ELSEWHERE):
        got = _folder_error(c, names + at, <uint32_t>strlen(names + at), &identities[k])
        if got:
            failed = got
        at += <uint32_t>strlen(names + at) + 1
        k += 1
    at = 0
    while at < size and not failed:
        _all_durable(c, names + at, <uint32_t>strlen(names + at))
        at += <uint32_t>strlen(names + at) + 1
    directories_close(c)
    return failed


cdef int _folder_error(
    Directories* c, const char* path, uint32_t size, const Identity* identity
) noexcept nogil:
    cdef int failed = _directory_error(c, path, size)
    cdef int k = _listed(c, path, size)
    cdef const Identity* now
    if failed == REFUSED:
        return EIO
    if failed in (EMFILE, ENFILE, ENOMEM) or k < 0:
        return failed or ENOMEM
    if c.listed[k].fd < 0:
        return FOLDER_ELSEWHERE
    now = &c.listed[k].identity
    if now.inode != identity.inode or now.born != identity.born:
        return FOLDER_ELSEWHERE
    return failed


cdef void flush_directories(
    Worker* worker, Directories* c, flusher* threads, Instance* batch
) noexcept nogil:
    # Each touched directory once. A failure refuses all instances that depend on it.
    cdef Instance* i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            _list_due(worker, c, i.path, parent_of(i.path, i.path_size))
        i = i.next
    _flush_due(c, threads)
    i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            _judge(worker, c, i)
        i = i.next
    i = batch
    while i != NULL:
        # Only now: what one instance made durable must not vouch for a sibling's failure.
        if i.stage == STAGE_NAMED:
            _all_durable(c, i.path, parent_of(i.path, i.path_size))
        i = i.next
    directories_close(c)

"""The commit: flush, name, flush the directories, journal, and only then a status of 0000.

A batch is what the committer has gathered, its data flushed. Buffered durability takes the same
steps in the same order without the flushes.

A final name is never unlinked here. What fails before naming costs its part; what fails after
leaves the file, which the sender's next try finds and adopts. A failed flush is never repeated as
if it might succeed: the kernel may have dropped the pages with the error.
"""

import os

from libc.errno cimport EEXIST, EINTR, EIO, ENOENT, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.unistd cimport close, write

from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.commit.flush_pool cimport flush_job, flusher, flusher_run
from fastscp_ext.receive.instance cimport (
    DUPLICATE_KEPT, PATH_ROOM, STAGE_DUPLICATE, STAGE_FLUSHED, STAGE_NAMED,
    STAGE_SETTLED, Instance, Site, instance_drop_part, instance_fail,
)
from fastscp_ext.commit.journal_line cimport Lines, line_stored, lines_begin, lines_end
from fastscp_ext.shared.rows cimport (
    COUNTER_BATCH_BEGUN, COUNTER_BATCH_ENDED, COUNTER_INSTANCES, COUNTER_REFUSED, shared_add,
    shared_get, shared_set,
)
from fastscp_ext.stat cimport fstat, stat_t

__all__ = ["rename_noreplace"]

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC
    int O_DIRECTORY
    int O_RDONLY
    int openat(int dirfd, const char* path, int flags, ...)

cdef extern from "sys/stat.h" nogil:
    ctypedef unsigned int mode_t
    int mkdirat(int dirfd, const char* path, mode_t mode)

cdef extern from "unistd.h" nogil:
    int F_OK
    int fdatasync(int fd)
    int faccessat(int dirfd, const char* path, int mode, int flags)
    int linkat(int olddirfd, const char* oldpath, int newdirfd, const char* newpath, int flags)
    int unlinkat(int dirfd, const char* path, int flags)

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef RENAME_NOREPLACE
    #define RENAME_NOREPLACE 1
    #endif
    /* The system call itself: some C libraries lack the wrapper. */
    static int rename_noreplace(int from_dir, const char *from, int to_dir, const char *to) {
        return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, RENAME_NOREPLACE);
    }
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
    int _rename_noreplace "rename_noreplace"(
        int from_dir, const char* old, int to_dir, const char* new) nogil


def rename_noreplace(old, new, *, int src_dir_fd, int dst_dir_fd):
    """Give `old` the name `new` unless something has it. See commit.pyi."""
    cdef bytes old_name = os.fsencode(old)
    cdef bytes new_name = os.fsencode(new)
    if _rename_noreplace(src_dir_fd, old_name, dst_dir_fd, new_name) < 0:
        raise OSError(errno, os.strerror(errno), old, None, new)


cdef void committed_begin(Committed* c) noexcept nogil:
    memset(c, 0, sizeof(Committed))
    c.lines.text_of = -1


cdef void committed_end(Committed* c) noexcept nogil:
    cdef int i
    free(c.jobs)
    free(c.directories)
    c.jobs = NULL
    c.directories = NULL
    c.room = 0
    for i in range(DURABLE_PLACES):
        free(c.durable[i].path)
        c.durable[i].path = NULL
    lines_end(&c.lines)


# ---- directories -----------------------------------------------------------------------------

cdef uint32_t _parent(const char* path, uint32_t size) noexcept nogil:
    # The length of the directory part of a relative path; 0: the store itself.
    while size and path[size - 1] != 47:
        size -= 1
    return size - 1 if size else 0


cdef Durable* _durable_place(Committed* c, const char* path, uint32_t size) noexcept nogil:
    return &c.durable[crc32c(0, <const uint8_t*>path, size) % DURABLE_PLACES]


cdef bint _is_durable(Committed* c, Directory* d) noexcept nogil:
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


cdef void _set_durable(Committed* c, Directory* d) noexcept nogil:
    cdef Durable* place = _durable_place(c, d.path, d.size)
    free(place.path)
    place.path = <char*>malloc(d.size + 1)
    place.identity = d.identity
    if place.path != NULL:
        memcpy(place.path, d.path, d.size)
        place.path[d.size] = 0


cdef void _forget_durable(Committed* c, const char* path, uint32_t size) noexcept nogil:
    # A directory on the way to `path` was gone: it and those above are not known any more.
    cdef Durable* place
    while size:
        place = _durable_place(c, path, size)
        free(place.path)
        place.path = NULL
        size = _parent(path, size)


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


# ---- steps -----------------------------------------------------------------------------------

cdef bint _reserve(Committed* c, int places) noexcept nogil:
    # Room for so many jobs and directories.
    cdef flush_job* jobs
    cdef Directory* directories
    if places <= c.room:
        return True
    jobs = <flush_job*>realloc(c.jobs, <size_t>places * 2 * sizeof(flush_job))
    if jobs == NULL:
        return False
    c.jobs = jobs
    directories = <Directory*>realloc(c.directories, <size_t>places * 2 * sizeof(Directory))
    if directories == NULL:
        return False
    c.directories = directories
    c.room = places * 2
    return True


cdef void part_flushed(Site* site, Instance* i, int failed) noexcept nogil:
    # The data is on stable storage (durable), or `failed` says why not. Its descriptor goes before
    # any name is given; the flush went through it, for it is the one that reports its errors.
    if i.fd < 0:
        failed = EIO
    elif close(i.fd) < 0 and not failed and errno != EINTR:
        failed = errno
    i.fd = -1
    if failed:
        instance_fail(i, failed, b"flush a part file")
        instance_drop_part(site, i)
        i.stage = STAGE_SETTLED
    else:
        i.stage = STAGE_FLUSHED


cdef bint _twin_exists(Site* site, Instance* i) noexcept nogil:
    # Whether the store has the instance in its other form, compressed or not.
    cdef uint32_t n = i.path_size
    cdef char kept
    cdef bint there
    if n > 4 and memcmp(i.path + n - 4, b".zst", 4) == 0:
        kept = i.path[n - 4]
        i.path[n - 4] = 0
        there = faccessat(site.store_fd, i.path, F_OK, 0) == 0
        i.path[n - 4] = kept
        return there
    if n + 5 > PATH_ROOM:
        return False
    memcpy(i.path + n, b".zst", 5)
    there = faccessat(site.store_fd, i.path, F_OK, 0) == 0
    i.path[n] = 0
    return there


cdef int _give_name(Site* site, Instance* i) noexcept nogil:
    # 0, or the errno. Never replaces.
    if site.mixed and _twin_exists(site, i):
        return EEXIST
    if site.use_link:
        if linkat(site.incoming_fd, i.part, site.store_fd, i.path, 0) < 0:
            return errno
        unlinkat(site.incoming_fd, i.part, 0)
        return 0
    if _rename_noreplace(site.incoming_fd, i.part, site.store_fd, i.path) < 0:
        return errno
    return 0


cdef void _name(Site* site, Committed* c, Instance* i) noexcept nogil:
    cdef int failed = _give_name(site, i)
    cdef int made
    if failed == ENOENT:
        _forget_durable(c, i.path, _parent(i.path, i.path_size))
        made = make_parents(site.store_fd, i.path, i.path_size)
        if made:
            instance_fail(i, made, b"make the directories of an instance")
            instance_drop_part(site, i)
            i.stage = STAGE_SETTLED
            return
        failed = _give_name(site, i)
    if failed == 0:
        i.has_part = False
        i.stage = STAGE_NAMED
    elif failed == EEXIST:
        i.stage = STAGE_DUPLICATE
    else:
        instance_fail(i, failed, b"give an instance its final name")
        instance_drop_part(site, i)
        i.stage = STAGE_SETTLED


cdef int _listed(Committed* c, char* path, uint32_t size) noexcept nogil:
    # The place of a directory in this batch's list, or -1.
    cdef int k
    for k in range(c.used):
        if c.directories[k].size == size and memcmp(c.directories[k].path, path, size) == 0:
            return k
    return -1


cdef void _list_directories(Site* site, Committed* c, Instance* i) noexcept nogil:
    # The directory that got the instance's name, and upwards each one whose own entry this
    # process has not yet flushed into its parent.
    cdef uint32_t size = _parent(i.path, i.path_size)
    cdef Directory* d
    cdef int k
    while True:
        k = _listed(c, i.path, size)
        if k < 0:
            if not _reserve(c, c.used + 1):
                return
            k = c.used
            c.used += 1
            d = &c.directories[k]
            d.path = i.path
            d.size = size
            c.jobs[k].whole = 1
            c.jobs[k].fd = _open_directory(site.store_fd, i.path, size)
            c.jobs[k].error = errno if c.jobs[k].fd < 0 else 0
            identify(c.jobs[k].fd, &d.identity.inode, &d.identity.born)
        if _is_durable(c, &c.directories[k]):
            return
        size = _parent(i.path, size)


cdef int _directory_error(Committed* c, Instance* i) noexcept nogil:
    # The first failure among the directories the instance depends on; ENOMEM: one is not listed.
    cdef uint32_t size = _parent(i.path, i.path_size)
    cdef int k
    while True:
        k = _listed(c, i.path, size)
        if k < 0:
            return ENOMEM
        if c.jobs[k].error:
            return c.jobs[k].error
        if _is_durable(c, &c.directories[k]):
            return 0
        size = _parent(i.path, size)


cdef void _flush_directories(
    Site* site, Committed* c, flusher* threads, Instance* batch
) noexcept nogil:
    # Each touched directory once. A failure refuses all instances that depend on it.
    cdef Instance* i = batch
    cdef uint32_t size
    cdef int failed
    cdef int k
    c.used = 0
    while i != NULL:
        if i.stage == STAGE_NAMED:
            _list_directories(site, c, i)
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
            size = _parent(i.path, i.path_size)
            k = _listed(c, i.path, size)
            while k >= 0 and not _is_durable(c, &c.directories[k]):
                _set_durable(c, &c.directories[k])
                size = _parent(i.path, size)
                k = _listed(c, i.path, size)
        i = i.next


# ---- journal ---------------------------------------------------------------------------------

cdef bint journal_is_due(const Site* site) noexcept nogil:
    # Whether there is no journal file, or a full one.
    return site.journal_fd < 0 or site.journal_bytes >= site.journal_limit


cdef bint journal_is_gone(const Site* site) noexcept nogil:
    # A file that was removed takes its lines with it, however well they were flushed.
    cdef stat_t about
    return fstat(site.journal_fd, &about) < 0 or about.st_nlink == 0


cdef int _append(Site* site, const char* text, size_t n) noexcept nogil:
    # Whole lines. After a short write the rest is tried: that says why. errno or 0.
    cdef ssize_t got
    cdef size_t done = 0
    while done < n:
        got = write(site.journal_fd, text + done, n - done)
        if got >= 0:
            done += <size_t>got
        elif errno != EINTR:
            return errno
    site.journal_bytes += n
    if site.durable and fdatasync(site.journal_fd) < 0:
        return errno
    if site.durable and journal_is_gone(site):
        return ENOENT
    return 0


cdef void _journal(Site* site, Committed* c, Instance* batch) noexcept nogil:
    cdef Lines* lines = &c.lines
    cdef Instance* i = batch
    cdef int failed = 0
    lines_begin(lines)
    while i != NULL:
        if i.stage == STAGE_NAMED:
            line_stored(lines, site, i)
        i = i.next
    if lines.size == 0 and not lines.failed:
        return
    if lines.failed:
        failed = ENOMEM
    elif site.journal_fd < 0:
        # No new file could be opened; that failure is the one to tell of.
        failed = site.journal_errno if site.journal_errno else EIO
    else:
        failed = _append(site, lines.bytes, lines.size)
        if failed:
            # What this file holds from here on is unknown: it is left alone for a new one.
            site.journal_errno = failed
            site.journal_fd = -1
    i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            if failed:
                instance_fail(i, failed, b"write the journal")
            elif i.duplicate == DUPLICATE_KEPT:
                i.status = 0xB006
                memcpy(i.comment, b"existing instance kept", 23)
            i.stage = STAGE_SETTLED
        i = i.next


cdef void commit_batch(
    Site* site, Committed* c, flusher* threads, Instance* batch
) noexcept nogil:
    # Takes what is STAGE_FLUSHED, STAGE_NAMED or, failed, STAGE_SETTLED. Afterwards every instance
    # is STAGE_SETTLED with its status, or STAGE_DUPLICATE: somebody must compare and bring it back
    # as STAGE_NAMED or STAGE_SETTLED. threads: NULL where nothing is to be flushed.
    cdef Instance* i = batch
    cdef uint64_t number = 0
    if site.counters != NULL:
        # Whoever finds one of the names that follow waits for the line until this batch has ended.
        number = shared_get(&site.counters[<int>COUNTER_BATCH_BEGUN]) + 1
        shared_set(&site.counters[<int>COUNTER_BATCH_BEGUN], number)
    while i != NULL:
        # The number is taken before the name is given: who replaces that file has a higher one,
        # though its line may be written first. Names given by a comparison are locked till then.
        if i.stage == STAGE_FLUSHED or i.stage == STAGE_NAMED:
            i.sequence = shared_add(site.sequence, 1)
        if i.stage == STAGE_FLUSHED:
            _name(site, c, i)
        i = i.next
    if site.durable:
        _flush_directories(site, c, threads, batch)
    _journal(site, c, batch)
    if site.counters != NULL:
        shared_set(&site.counters[<int>COUNTER_BATCH_ENDED], number)
    i = batch
    while i != NULL:
        if i.lock_fd >= 0 and i.stage == STAGE_SETTLED:
            close(i.lock_fd)
            i.lock_fd = -1
        if i.stage == STAGE_SETTLED and site.counters != NULL:
            if i.error_no:
                shared_add(&site.counters[<int>COUNTER_REFUSED], 1)
            else:
                shared_add(&site.counters[<int>COUNTER_INSTANCES], 1)
        i = i.next

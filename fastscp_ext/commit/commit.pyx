"""The commit: flush, name, flush the directories, journal, and only then 0000. See commit.pyi."""

import os

from libc.errno cimport EBUSY, EEXIST, EINTR, EIO, EMFILE, ENFILE, ENOENT, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport close, write

from fastscp_ext.commit.beneath cimport open_file_beneath
from fastscp_ext.commit.claims cimport LOCKS, claim, claims_begin, claims_end, give_back
from fastscp_ext.commit.directories cimport (
    directories_begin, directories_end, directories_refresh, directory_of, flush_directories,
    make_directory_of, parent_of, refuse_directory_of,
)
from fastscp_ext.commit.flush_pool cimport flush_file, flusher
from fastscp_ext.commit.journal_line cimport Lines, line_stored, lines_begin, lines_end
from fastscp_ext.commit.nameless cimport (
    NAMELESS_BY_PROC, NAMELESS_DIRECT, NAMELESS_NO, nameless_link, nameless_open,
)
from fastscp_ext.commit.remover cimport remover_post
from fastscp_ext.receive.instance cimport (
    DUPLICATE_KEPT, DUPLICATE_REPLACED, PATH_ROOM, STAGE_DUPLICATE, STAGE_FLUSHED, STAGE_NAMED,
    STAGE_SETTLED, Instance, Worker, instance_drop_part, instance_fail, instance_name_refused,
    instance_show_part, instance_unlock,
)
from fastscp_ext.shared.atomic cimport word_add, word_get, word_set
from fastscp_ext.shared.block cimport DOUBT_LEFT, FLUSH_BATCH, STAMP_DURABLE
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.rows cimport count_in
from fastscp_ext.shared.unflushed cimport unflushed_has
from fastscp_ext.stat cimport fstat, stat_t
from fastscp_ext.status cimport ELEMENTS_DISCARDED

__all__ = ["flush_file_system", "nameless_way", "rename_noreplace"]

cdef extern from *:
    """
    #include <fcntl.h>
    #ifndef O_PATH
    #define O_PATH 010000000
    #endif
    """
    int O_PATH

cdef extern from "unistd.h" nogil:
    int syncfs(int fd)
    int linkat(int olddirfd, const char* oldpath, int newdirfd, const char* newpath, int flags)
    int unlinkat(int dirfd, const char* path, int flags)

cdef extern from *:
    """
    #include <fcntl.h>
    #include <sys/stat.h>
    /* Whether anything has the name, were it a link that leads nowhere. */
    static int is_there(int dir, const char *name) {
        struct stat about;
        return fstatat(dir, name, &about, AT_SYMLINK_NOFOLLOW) == 0;
    }
    """
    bint is_there(int dir, const char* name) nogil

cdef extern from "no_replace.h" nogil:
    int _rename_noreplace "rename_noreplace"(
        int from_dir, const char* old, int to_dir, const char* new)


def flush_file_system(int fd):
    """Flush all of the file system that a descriptor is on. See commit.pyi."""
    cdef int got
    with nogil:
        got = syncfs(fd)
    if got < 0:
        raise OSError(errno, os.strerror(errno))


def rename_noreplace(old, new, *, int src_dir_fd, int dst_dir_fd):
    """Give `old` the name `new` unless something has it. See commit.pyi."""
    cdef bytes old_name = os.fsencode(old)
    cdef bytes new_name = os.fsencode(new)
    if _rename_noreplace(src_dir_fd, old_name, dst_dir_fd, new_name) < 0:
        raise OSError(errno, os.strerror(errno), old, None, new)


def nameless_way(int folder_fd):
    """How a file without a name gets one in a folder; 0: in no way. See commit.pyi."""
    cdef int way
    cdef int fd = nameless_open(folder_fd)
    if fd < 0:
        return NAMELESS_NO
    try:
        for way in (NAMELESS_DIRECT, NAMELESS_BY_PROC):
            # A name that something has must be refused.
            if nameless_link(fd, way, folder_fd, b"f") == 0:
                again = nameless_link(fd, way, folder_fd, b"f")
                return way if again == EEXIST else <int>NAMELESS_NO
    finally:
        close(fd)
    return NAMELESS_NO


cdef void committed_begin(Committed* c, bint durable) noexcept nogil:
    c.durable = durable
    c.batches = NULL
    memset(&c.journal, 0, sizeof(Journal))
    c.journal.fd = -1
    memset(&c.lines, 0, sizeof(Lines))
    claims_begin(&c.claims)
    directories_begin(&c.directories, durable)
    c.lines.text_of = -1


cdef void committed_end(Committed* c) noexcept nogil:
    claims_end(&c.claims)
    directories_end(&c.directories)
    lines_end(&c.lines)


cdef void part_flushed(Worker* worker, Instance* i, int failed) noexcept nogil:
    # The data is on stable storage (durable), or `failed` says why not. Its descriptor goes before
    # any name is given, for closing may fail; the flush went through it, for it is the one that
    # reports its errors. A part without a name is one of a file system whose closing tells nothing.
    if i.fd < 0:
        failed = EIO
    elif i.has_part:
        if close(i.fd) < 0 and not failed and errno != EINTR:
            failed = errno
        i.fd = -1
    if failed:
        instance_fail(i, failed, b"flush a part file")
        instance_drop_part(worker, i)
        i.stage = STAGE_SETTLED
    else:
        i.stage = STAGE_FLUSHED


cdef bint _twin_exists(int dir_fd, char* name, uint32_t n, uint32_t room) noexcept nogil:
    # Whether the directory has the instance in its other form, compressed or not. n: bytes of the
    # name, of `room` that it may use.
    cdef char kept
    cdef bint there
    if n > 4 and memcmp(name + n - 4, b".zst", 4) == 0:
        kept = name[n - 4]
        name[n - 4] = 0
        there = is_there(dir_fd, name)
        name[n - 4] = kept
        return there
    if n + 5 > room:
        return False
    memcpy(name + n, b".zst", 5)
    there = is_there(dir_fd, name)
    name[n] = 0
    return there


cdef int _give_name(
    Worker* worker, Committed* c, int dir_fd, Instance* i
) noexcept nogil:
    # 0, or the errno. dir_fd: of the directory that the name is for. Never replaces.
    cdef uint32_t above = parent_of(i.path, i.path_size)
    cdef uint32_t skip = above + 1 if above else 0
    cdef char* name = i.path + skip
    if word_get(worker.mixed) and _twin_exists(dir_fd, name, i.path_size - skip, PATH_ROOM - skip):
        return EEXIST
    if not i.has_part:
        return nameless_link(i.fd, worker.nameless, dir_fd, name)
    if worker.use_link:
        if linkat(worker.incoming_fd, i.part, dir_fd, name, 0) < 0:
            return errno
        if c.durable:
            unlinkat(worker.incoming_fd, i.part, 0)
        else:
            # The loop is here, and whatever unlinks may hang.
            remover_post(&worker.removing, -1, worker.incoming_fd, i.part)
        return 0
    if _rename_noreplace(worker.incoming_fd, i.part, dir_fd, name) < 0:
        return errno
    return 0


cdef int give_final_name(
    Worker* worker, Committed* c, Instance* i, const char** step
) noexcept nogil:
    # Whatever directory is missing is made. 0, and there is no part any more; or the errno, EEXIST
    # where the name is taken, and what was tried. The descriptor stays as it was.
    cdef uint32_t above = parent_of(i.path, i.path_size)
    cdef int dir_fd = directory_of(&c.directories, worker, i.path, above)
    cdef int failed = -dir_fd if dir_fd < 0 else _give_name(worker, c, dir_fd, i)
    if failed == ENOENT:
        dir_fd = make_directory_of(&c.directories, worker, i.path, above)
        failed = -dir_fd if dir_fd < 0 else _give_name(worker, c, dir_fd, i)
    if failed == 0:
        i.has_part = False
    elif dir_fd < 0:
        step[0] = b"open or make the directory of an instance"
    else:
        step[0] = b"give an instance its final name"
        if not i.has_part:
            instance_name_refused(worker, failed)
    return failed


cdef int name_is_taken(Worker* worker, Committed* c, Instance* i) noexcept nogil:
    # 0: nothing has the name of the instance, nor its other form where that counts; EEXIST, or
    # another errno.
    cdef uint32_t above = parent_of(i.path, i.path_size)
    cdef uint32_t skip = above + 1 if above else 0
    cdef char* name = i.path + skip
    cdef int dir_fd = directory_of(&c.directories, worker, i.path, above)
    if dir_fd < 0:
        # Nothing lies in a directory that is not there.
        return 0 if dir_fd == -ENOENT else -dir_fd
    if is_there(dir_fd, name):
        return EEXIST
    if word_get(worker.mixed) and _twin_exists(dir_fd, name, i.path_size - skip, PATH_ROOM - skip):
        return EEXIST
    return 0


cdef void _leave_to_comparison(Worker* worker, Instance* i) noexcept nogil:
    # Its name may be taken. Whoever compares opens the part by its name.
    if instance_show_part(worker, i) == 0:
        i.stage = STAGE_DUPLICATE
        return
    instance_drop_part(worker, i)
    i.stage = STAGE_SETTLED


cdef void _name(Worker* worker, Committed* c, Instance* i) noexcept nogil:
    cdef const char* step = NULL
    cdef int failed
    if refuse_directory_of(worker, i, parent_of(i.path, i.path_size)):
        instance_drop_part(worker, i)
        i.stage = STAGE_SETTLED
        return
    failed = claim(&c.claims, worker, i.path, i.path_size)
    if failed == EBUSY:
        # Whoever has the path may be about to name something there.
        _leave_to_comparison(worker, i)
        return
    if failed:
        i.error_place = LOCKS
        instance_fail(i, failed, b"lock a path")
        instance_drop_part(worker, i)
        i.stage = STAGE_SETTLED
        return
    # The commit takes the number inside the claim: what comes to this path later has a higher one.
    i.sequence = word_add(worker.sequence, 1)
    if unflushed_has(worker.unflushed, DOUBT_LEFT, i.path, i.path_size):
        # Whoever compares it ends that first: what is left would come back over this one.
        _leave_to_comparison(worker, i)
        return
    failed = give_final_name(worker, c, i, &step)
    if failed == 0:
        if i.fd >= 0:
            close(i.fd)
            i.fd = -1
        i.stage = STAGE_NAMED
    elif failed == EEXIST:
        _leave_to_comparison(worker, i)
    else:
        instance_fail(i, failed, step)
        instance_drop_part(worker, i)
        i.stage = STAGE_SETTLED


# ---- journal ---------------------------------------------------------------------------------

cdef bint journal_is_due(const Journal* journal) noexcept nogil:
    # Whether there is no journal file, or a full one.
    return journal.fd < 0 or journal.bytes >= journal.limit


cdef bint journal_is_gone(int store_fd, const Journal* journal) noexcept nogil:
    # A file that was removed, or lies elsewhere by now, takes its lines with it, however well they
    # were flushed.
    cdef stat_t about
    cdef stat_t named
    cdef int there
    cdef bint same
    if fstat(journal.fd, &about) < 0 or about.st_nlink == 0:
        return True
    if journal.path[0] == 0:
        return False
    there = open_file_beneath(store_fd, journal.path, O_PATH, 0)
    if there < 0:
        # Want of descriptors or memory says nothing of the file.
        return there not in (-EMFILE, -ENFILE, -ENOMEM)
    same = fstat(there, &named) == 0 and (
        named.st_dev == about.st_dev and named.st_ino == about.st_ino
    )
    close(there)
    return not same


cdef int journal_append(
    int store_fd, Journal* journal, bint durable, const char* text, size_t n
) noexcept nogil:
    # Whole lines. After a short write the rest is tried: that says why. errno or 0.
    cdef ssize_t got
    cdef size_t done = 0
    cdef int failed
    while done < n:
        got = write(journal.fd, text + done, n - done)
        if got >= 0:
            done += <size_t>got
        elif errno != EINTR:
            return errno
    journal.bytes += n
    if not durable:
        return 0
    failed = flush_file(journal.fd, 0)
    if not failed and journal_is_gone(store_fd, journal):
        failed = ENOENT
    return failed


cdef void _journal(Worker* worker, Committed* c, Instance* batch) noexcept nogil:
    cdef Lines* lines = &c.lines
    cdef Instance* i = batch
    cdef int failed = 0
    lines_begin(lines)
    while i != NULL:
        if i.stage == STAGE_NAMED:
            line_stored(lines, worker, i)
        i = i.next
    if lines.size == 0 and not lines.failed:
        return
    if lines.failed:
        failed = ENOMEM
    elif c.journal.fd < 0:
        # No new file could be opened; that failure is the one to tell of.
        failed = c.journal.error_no if c.journal.error_no else EIO
    else:
        failed = journal_append(
            worker.store_fd, &c.journal, c.durable, lines.bytes, lines.size
        )
        if failed:
            # Nobody knows how much of these lines the file holds: the next batch writes to a new
            # file.
            c.journal.error_no = failed
            c.journal.fd = -1
    i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            if failed:
                instance_fail(i, failed, b"write the journal")
            elif i.duplicate == DUPLICATE_KEPT:
                i.status = ELEMENTS_DISCARDED
                memcpy(i.comment, b"existing instance kept", 23)
            i.stage = STAGE_SETTLED
        i = i.next


cdef void commit_batch(
    Worker* worker, Committed* c, flusher* threads, Instance* batch
) noexcept nogil:
    # Takes what is STAGE_FLUSHED, STAGE_NAMED or, failed, STAGE_SETTLED, all of c's durability.
    # Afterwards every instance is STAGE_SETTLED with its status, or STAGE_DUPLICATE: somebody must
    # compare and bring it back as STAGE_NAMED or STAGE_SETTLED. threads: NULL where nothing is to
    # be flushed.
    cdef Instance* i = batch
    # Whoever finds one of the names that follow waits for the line until this batch has ended.
    cdef uint64_t number = word_get(&c.batches.begun) + 1
    cdef uint64_t instances = 0
    cdef uint64_t named_ns = 0
    cdef uint64_t now_ns
    word_set(&c.batches.begun, number)
    directories_refresh(&c.directories, monotonic_ns())
    while i != NULL:
        if i.stage == STAGE_FLUSHED:
            _name(worker, c, i)
        elif i.stage == STAGE_NAMED:
            # Its path is locked from the comparison on.
            i.sequence = word_add(worker.sequence, 1)
        instances += 1
        i = i.next
    if c.durable:
        named_ns = monotonic_ns()
        flush_directories(worker, &c.directories, threads, batch)
    _journal(worker, c, batch)
    give_back(&c.claims)
    word_set(&c.batches.ended, number)
    now_ns = monotonic_ns()
    count_in(&worker.rows.batches[<int>c.durable], instances)
    if c.durable:
        count_in(&worker.rows.flushes[<int>FLUSH_BATCH], (now_ns - named_ns) // 1000)
    i = batch
    while i != NULL:
        if i.stage == STAGE_SETTLED:
            # Of one that took another one's place somebody lets the older content go first, or
            # puts it back.
            if i.duplicate != DUPLICATE_REPLACED:
                instance_unlock(worker, i, c.durable)
            if not i.error_no:
                i.stamps[<int>STAMP_DURABLE] = now_ns
        i = i.next

"""The commit: flush, name, flush the directories, journal, and only then a status of 0000.

One batch holds every instance that was complete when the committer looked. Buffered durability
takes the same steps in the same order without the flushes.

A final name is never unlinked here. What fails before naming costs its part; what fails after
leaves the file, which the sender's next try finds and adopts. A failed flush is never repeated as
if it might succeed: the kernel may have dropped the pages with the error.
"""

import os

from libc.errno cimport EEXIST, EINTR, EIO, ENOENT, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from libc.time cimport gmtime_r, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close, write

from fastscp_ext.cursor cimport Cursor, cursor_over, take_u8
from fastscp_ext.digest cimport crc32c
from fastscp_ext.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_KEPT,
    DUPLICATE_REPLACED, DUPLICATE_VERSION, STAGE_COMPLETE, STAGE_DUPLICATE,
    STAGE_FLUSHED, STAGE_NAMED, STAGE_SETTLED, Instance, Site, class_uid, instance_drop_part,
    instance_fail, name_uid,
)
from fastscp_ext.shared cimport COUNTER_INSTANCES, COUNTER_REFUSED, shared_add
from fastscp_ext.tap cimport KEY_SERIES_UID, KEY_STUDY_UID, tap_value

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
    int fsync(int fd)
    int fdatasync(int fd)
    int linkat(int olddirfd, const char* oldpath, int newdirfd, const char* newpath, int flags)
    int unlinkat(int dirfd, const char* path, int flags)

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdio.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef RENAME_NOREPLACE
    #define RENAME_NOREPLACE 1
    #endif
    /* The system call itself: some C libraries lack the wrapper. */
    static int rename_noreplace(int from_dir, const char *from, int to_dir, const char *to) {
        return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, RENAME_NOREPLACE);
    }
    """
    int _rename_noreplace "rename_noreplace"(
        int from_dir, const char* old, int to_dir, const char* new) nogil


def rename_noreplace(old, new, *, int src_dir_fd, int dst_dir_fd):
    """Give `old` the name `new` unless something has it; both relative to their directories.

    Raises FileExistsError, or OSError as the system says; EINVAL where the file system cannot.
    """
    cdef bytes old_name = os.fsencode(old)
    cdef bytes new_name = os.fsencode(new)
    if _rename_noreplace(src_dir_fd, old_name, dst_dir_fd, new_name) < 0:
        raise OSError(errno, os.strerror(errno), old, None, new)


cdef void committed_begin(Committed* c) noexcept nogil:
    memset(c, 0, sizeof(Committed))


cdef void committed_end(Committed* c) noexcept nogil:
    cdef int i
    for i in range(DURABLE_PLACES):
        free(c.durable[i])
        c.durable[i] = NULL
    free(c.lines.bytes)
    c.lines.bytes = NULL
    c.lines.room = 0


# ---- directories -----------------------------------------------------------------------------

cdef uint32_t _parent(const char* path, uint32_t size) noexcept nogil:
    # The length of the directory part of a relative path; 0: the store itself.
    while size and path[size - 1] != 47:
        size -= 1
    return size - 1 if size else 0


cdef char** _durable_place(Committed* c, const char* path, uint32_t size) noexcept nogil:
    return &c.durable[crc32c(0, <const uint8_t*>path, size) % DURABLE_PLACES]


cdef bint _is_durable(Committed* c, const char* path, uint32_t size) noexcept nogil:
    cdef char* there = _durable_place(c, path, size)[0]
    if size == 0:
        return True
    return there != NULL and strlen(there) == size and memcmp(there, path, size) == 0


cdef void _set_durable(Committed* c, const char* path, uint32_t size) noexcept nogil:
    cdef char** place = _durable_place(c, path, size)
    free(place[0])
    place[0] = <char*>malloc(size + 1)
    if place[0] != NULL:
        memcpy(place[0], path, size)
        place[0][size] = 0


cdef void _forget_durable(Committed* c, const char* path, uint32_t size) noexcept nogil:
    # A directory on the way to `path` was gone: it and those above are not known any more.
    cdef char** place
    while size:
        place = _durable_place(c, path, size)
        free(place[0])
        place[0] = NULL
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


cdef int _flush_directory(int store_fd, char* path, uint32_t size) noexcept nogil:
    # fsync the directory made of the first `size` bytes of `path`. errno or 0.
    cdef char kept = path[size]
    cdef int fd
    cdef int failed = 0
    cdef const char* name = b"."
    if size:
        name = path
    path[size] = 0
    fd = openat(store_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    path[size] = kept
    if fd < 0:
        return errno
    if fsync(fd) < 0:
        failed = errno
    close(fd)
    return failed


# ---- steps -----------------------------------------------------------------------------------

cdef void _flush_part(Site* site, Instance* i) noexcept nogil:
    # Data on stable storage (durable) and the descriptor gone, before the name is given.
    cdef int failed = 0
    cdef const char* step = b"flush a part file"
    if i.fd < 0:
        instance_fail(i, EIO, b"flush a part file")
        failed = EIO
    else:
        if site.durable and fdatasync(i.fd) < 0:
            failed = errno
        if close(i.fd) < 0 and not failed and errno != EINTR:
            failed = errno
            step = b"close a part file"
        i.fd = -1
        if failed:
            instance_fail(i, failed, step)
    if failed:
        instance_drop_part(site, i)
        i.stage = STAGE_SETTLED
    else:
        i.stage = STAGE_FLUSHED


cdef int _give_name(Site* site, Instance* i) noexcept nogil:
    # 0, or the errno. Never replaces.
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


cdef void _flush_directories(Site* site, Committed* c, Instance* batch) noexcept nogil:
    # Each directory that got a name, once, and every directory above that this process has not
    # yet flushed into its parent. A failure refuses all instances that depend on it.
    cdef char* paths[BATCH_DIRECTORIES]
    cdef uint32_t sizes[BATCH_DIRECTORIES]
    cdef int errors[BATCH_DIRECTORIES]
    cdef int used = 0
    cdef int k
    cdef int failed
    cdef uint32_t size
    cdef bint known
    cdef Instance* i = batch
    while i != NULL:
        if i.stage == STAGE_NAMED:
            size = _parent(i.path, i.path_size)
            failed = 0
            while True:
                for k in range(used):
                    if sizes[k] == size and memcmp(paths[k], i.path, size) == 0:
                        break
                else:
                    k = used
                if k == used:
                    if used == BATCH_DIRECTORIES:
                        used = 0
                        k = 0
                    paths[k] = i.path
                    sizes[k] = size
                    errors[k] = _flush_directory(site.store_fd, i.path, size)
                    used += 1
                if errors[k]:
                    failed = errors[k]
                    break
                # The directory's own entry lives in its parent.
                known = _is_durable(c, i.path, size)
                if known:
                    break
                size = _parent(i.path, size)
            if failed:
                instance_fail(i, failed, b"flush a directory")
                i.stage = STAGE_SETTLED
            else:
                size = _parent(i.path, i.path_size)
                while size and not _is_durable(c, i.path, size):
                    _set_durable(c, i.path, size)
                    size = _parent(i.path, size)
        i = i.next


# ---- journal ---------------------------------------------------------------------------------

cdef void _put(Line* line, const char* text, size_t n) noexcept nogil:
    cdef char* got
    cdef size_t room
    if line.failed:
        return
    if n > line.room - line.size:
        room = line.room * 2 + n + 4096
        got = <char*>realloc(line.bytes, room)
        if got == NULL:
            line.failed = True
            return
        line.bytes = got
        line.room = room
    if n:
        memcpy(line.bytes + line.size, text, n)
    line.size += n


cdef void _put_text(Line* line, const char* text) noexcept nogil:
    _put(line, text, strlen(text))


cdef void _put_string(Line* line, const char* key, Cursor value) noexcept nogil:
    # ,"key":"value" with what JSON wants escaped. Values are ASCII or UTF-8 of the layout.
    cdef uint8_t b = 0
    cdef char unit[8]
    _put_text(line, b',"')
    _put_text(line, key)
    _put_text(line, b'":"')
    while take_u8(&value, &b):
        if b < 32 or b == 34 or b == 92 or b == 127:
            snprintf(unit, 8, b"\\u%04x", <unsigned int>b)
            _put(line, unit, 6)
        else:
            unit[0] = <char>b
            _put(line, unit, 1)
    _put_text(line, b'"')


cdef void _put_number(Line* line, const char* key, unsigned long long value) noexcept nogil:
    cdef char text[32]
    _put_text(line, b',"')
    _put_text(line, key)
    snprintf(text, 32, b'":%llu', value)
    _put_text(line, text)


cdef void _journal_line(Site* site, Line* line, Instance* i, const char* now) noexcept nogil:
    cdef size_t begin = line.size
    cdef char text[96]
    cdef uint32_t crc
    cdef Cursor syntax = cursor_over(i.syntax, i.syntax_size)
    snprintf(
        text, 96, b'{"v":1,"event":"stored","seq":%llu,"time":"%s"',
        <unsigned long long>shared_add(site.sequence, 1), now,
    )
    _put_text(line, text)
    _put_string(line, b"worker", cursor_over(<uint8_t*>site.worker, <uint32_t>strlen(site.worker)))
    _put(line, <const char*>i.tag_text.at, i.tag_text.left)
    if i.has_move:
        _put_string(line, b"move_originator_ae", cursor_over(i.move_ae, i.move_ae_size))
        _put_number(line, b"move_originator_message_id", i.move_id)
    _put_number(line, b"message_id", i.message_id)
    _put_string(line, b"sop_class_uid", class_uid(i))
    _put_string(line, b"sop_instance_uid", name_uid(i))
    _put_string(line, b"study_instance_uid", tap_value(&i.tap, KEY_STUDY_UID))
    _put_string(line, b"series_instance_uid", tap_value(&i.tap, KEY_SERIES_UID))
    _put_string(line, b"transfer_syntax_uid", syntax)
    _put_string(line, b"path", cursor_over(<uint8_t*>i.path, i.path_size))
    _put_number(line, b"bytes", i.data_bytes)
    if i.digest[0]:
        _put_string(
            line, b"digest", cursor_over(<uint8_t*>i.digest, <uint32_t>strlen(i.digest))
        )
    if i.duplicate == DUPLICATE_IDENTICAL:
        _put_text(line, b',"duplicate":"identical"')
    elif i.duplicate == DUPLICATE_VERSION:
        _put_text(line, b',"duplicate":"version"')
    elif i.duplicate == DUPLICATE_REPLACED:
        _put_text(line, b',"duplicate":"replaced"')
    elif i.duplicate == DUPLICATE_KEPT:
        _put_text(line, b',"duplicate":"kept"')
    if i.truncated:
        _put_text(line, b',"truncated":true')
    if i.sniffed:
        _put_text(line, b',"syntax_mismatch":true')
    if i.odd_uid:
        _put_text(line, b',"odd_uid":true')
    if i.stripped:
        _put_number(line, b"stripped", i.stripped)
    if i.peer_gone:
        _put_text(line, b',"responded":false')
    if line.failed:
        return
    crc = crc32c(0, <const uint8_t*>line.bytes + begin, line.size - begin)
    snprintf(text, 96, b',"crc":"%08x"}\n', <unsigned int>crc)
    _put_text(line, text)


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
    return 0


cdef void _journal(Site* site, Committed* c, Instance* batch) noexcept nogil:
    cdef Line* lines = &c.lines
    cdef Instance* i = batch
    cdef timespec now
    cdef time_t seconds
    cdef tm day
    cdef char text[40]
    cdef int failed = 0
    clock_gettime(CLOCK_REALTIME, &now)
    seconds = now.tv_sec
    gmtime_r(&seconds, &day)
    snprintf(
        text, 40, b"%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ", day.tm_year + 1900, day.tm_mon + 1,
        day.tm_mday, day.tm_hour, day.tm_min, day.tm_sec, <long>(now.tv_nsec // 1000),
    )
    lines.size = 0
    lines.failed = False
    while i != NULL:
        if i.stage == STAGE_NAMED:
            _journal_line(site, lines, i, text)
        i = i.next
    if lines.size == 0 and not lines.failed:
        return
    if lines.failed:
        failed = ENOMEM
    elif site.journal_fd < 0:
        failed = EIO
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
            i.stage = STAGE_SETTLED
        i = i.next


cdef void commit_batch(Site* site, Committed* c, Instance* batch) noexcept nogil:
    # Afterwards every instance is STAGE_SETTLED with its status, or STAGE_DUPLICATE: somebody
    # must compare and bring it back as STAGE_NAMED or STAGE_SETTLED.
    cdef Instance* i = batch
    while i != NULL:
        if i.stage == STAGE_COMPLETE:
            _flush_part(site, i)
        i = i.next
    i = batch
    while i != NULL:
        if i.stage == STAGE_FLUSHED:
            _name(site, c, i)
        i = i.next
    if site.durable:
        _flush_directories(site, c, batch)
    _journal(site, c, batch)
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

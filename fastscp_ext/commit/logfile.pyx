"""The files of a redo log, and the batch that is about to be written to one. See logfile.pyi."""

from libc.errno cimport EINTR, EIO, ENOENT, ENOSPC, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.fcntl cimport O_CREAT, O_EXCL, O_RDWR
from posix.types cimport off_t
from posix.unistd cimport close

from fastscp_ext.commit.directories cimport Identity
from fastscp_ext.commit.flush_pool cimport flush_file
from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.stat cimport fstat, stat_t
from fastscp_ext.text cimport put_decimal

__all__ = []

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC
    int O_NOFOLLOW
    int openat(int dirfd, const char* path, int flags, ...)

cdef extern from "unistd.h" nogil:
    ssize_t pwrite(int fd, const void* data, size_t n, off_t at)
    int unlinkat(int dirfd, const char* path, int flags)

cdef extern from "no_replace.h" nogil:
    int rename_noreplace(int from_dir, const char* old, int to_dir, const char* new)

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/random.h>
    #include <sys/stat.h>
    #include <sys/vfs.h>
    #include <linux/fs.h>
    #ifndef FS_NOCOW_FL
    #define FS_NOCOW_FL 0x00800000
    #endif
    /* Never 0, which an unwritten block has. */
    static uint64_t new_salt(void) {
        uint64_t salt = 0;
        while (salt == 0)
            if (getrandom(&salt, sizeof salt, 0) < 0 && errno != EINTR) return 0;
        return salt;
    }
    /* Of an empty file on btrfs: what is written again stays where it is. Elsewhere nothing. */
    static void overwrite_in_place(int fd) {
        struct statfs system;
        int flags = 0;
        if (fstatfs(fd, &system) < 0 || (uint32_t)system.f_type != 0x9123683Eu) return;
        if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) return;
        flags |= FS_NOCOW_FL;
        if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0) return;
    }
    /* Another one each time that an inode number is given to a new file; 0 where there is none. */
    static uint64_t generation_of(int fd) {
        long generation = 0;
        if (ioctl(fd, FS_IOC_GETVERSION, &generation) < 0) return 0;
        return (uint32_t)generation;
    }
    typedef struct {
        int folder_fd;
        char name[];
    } aside;
    static void *aside_run(void *of) {
        aside *one = of;
        /* Where it is there, all is well; where not, nobody is left to hear of it. */
        if (mknodat(one->folder_fd, one->name, S_IFREG | 0640, 0)) { }
        free(one);
        return NULL;
    }
    /* An empty file, by a thread that nobody waits for. n: bytes of the name, with its NUL. */
    static void make_aside(int folder_fd, const char *name, size_t n) {
        pthread_attr_t alone;
        pthread_t thread;
        aside *one = malloc(sizeof *one + n);
        if (!one) return;
        one->folder_fd = folder_fd;
        memcpy(one->name, name, n);
        if (pthread_attr_init(&alone)) {
            free(one);
            return;
        }
        pthread_attr_setdetachstate(&alone, PTHREAD_CREATE_DETACHED);
        if (pthread_create(&thread, &alone, aside_run, one)) free(one);
        pthread_attr_destroy(&alone);
    }
    """
    void make_aside(int folder_fd, const char* name, size_t n) nogil
    uint64_t new_salt() nogil
    uint64_t generation_of(int fd) nogil
    void overwrite_in_place(int fd) nogil

cdef enum:
    ZEROS = 262144           # bytes written at a time where a file is made


cdef inline uint8_t* _put2(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value & 255
    at[1] = (value >> 8) & 255
    return at + 2


cdef inline uint8_t* _put4(uint8_t* at, uint32_t value) noexcept nogil:
    return _put2(_put2(at, value & 0xFFFF), value >> 16)


cdef inline uint8_t* _put8(uint8_t* at, uint64_t value) noexcept nogil:
    return _put4(_put4(at, <uint32_t>value), <uint32_t>(value >> 32))


# ---- a file ----------------------------------------------------------------------------------

cdef void _name(
    char* name, const LogOrigin* origin, int number, const char* suffix
) noexcept nogil:
    # `<life>-<number>` and a suffix of four bytes.
    cdef size_t n = strlen(origin.life)
    memcpy(name, origin.life, n)
    name[n] = c"-"
    memcpy(put_decimal(name + n + 1, <uint64_t>number), suffix, 5)


cdef int _write_all(int fd, const uint8_t* data, size_t n, uint64_t at) noexcept nogil:
    # 0, or the errno.
    cdef ssize_t got
    while n:
        got = pwrite(fd, data, n, <off_t>at)
        if got > 0:
            data += got
            n -= <size_t>got
            at += <uint64_t>got
        elif got == 0:
            return EIO
        elif errno != EINTR:
            return errno
    return 0


cdef int _write_header(LogFile* log, const LogOrigin* origin) noexcept nogil:
    # Block 0, with the file's salt; not flushed.
    cdef uint8_t block[LOG_BLOCK]
    cdef uint8_t* at = block
    cdef stat_t about
    # All that is used of it is in one sector, which no power cut tears.
    if fstat(log.fd, &about) < 0:
        return errno
    memset(block, 0, LOG_BLOCK)
    memcpy(at, b"FSCPREDO", 8)
    at = _put4(at + 8, 1)
    at = _put4(at, <uint32_t>log.number)
    at = _put8(at, log.salt)
    # A copy of the file has another one, also where it got the inode of one that was removed.
    at = _put8(at, <uint64_t>about.st_ino ^ (generation_of(log.fd) << 32))
    at = _put8(at, LOG_BYTES)
    memcpy(at, origin.store, 40)
    memcpy(at + 40, origin.boot, 48)
    memcpy(at + 88, origin.life, 64)
    memcpy(at + 152, origin.mount, 48)
    memcpy(at + 200, origin.system, 24)
    _put4(at + 224, crc32c(0, block, LOG_HEADER - 4))
    return _write_all(log.fd, block, LOG_BLOCK, 0)


cdef int _fill(LogFile* log, const LogOrigin* origin) noexcept nogil:
    # Every block is written once before the file is used: an overwrite needs one flush, an
    # allocation two.
    cdef uint8_t* zeros = <uint8_t*>calloc(1, ZEROS)
    cdef uint64_t at = 0
    cdef int failed = 0
    if zeros == NULL:
        return errno
    while at < LOG_BYTES and not failed:
        failed = _write_all(log.fd, zeros, ZEROS, at)
        at += ZEROS
    free(zeros)
    return failed or _write_header(log, origin)


cdef int _offer(
    int folder_fd, const LogFile* log, const char* made, const char* name
) noexcept nogil:
    # Give a file its name, once it is whole on the medium: one of that name which has no header, or
    # is too short, has lost something. 0, or the errno; then nothing is left.
    cdef int failed = flush_file(log.fd, 1)
    if not failed and rename_noreplace(folder_fd, made, folder_fd, name) < 0:
        failed = errno
    if failed:
        unlinkat(folder_fd, made, 0)
        return failed
    failed = flush_file(folder_fd, 1)
    if failed:
        # What is in it counts for nothing, wherever the disk has it.
        unlinkat(folder_fd, name, 0)
    return failed


cdef LogFile* log_make(
    int folder_fd, int number, const LogOrigin* origin, int* failed
) noexcept nogil:
    # A new file of the life, LOG_FREE, flushed as its name is; or NULL, and the errno: there is
    # none then, and the next one has another number.
    cdef char made[LOG_NAME_ROOM]
    cdef char name[LOG_NAME_ROOM]
    cdef LogFile* log = <LogFile*>calloc(1, sizeof(LogFile))
    if log == NULL:
        failed[0] = errno
        return NULL
    log.number = number
    log.journal_fd = -1
    log.salt = new_salt()
    log.at = LOG_BLOCK
    _name(made, origin, number, b".new")
    _name(name, origin, number, b".log")
    log.fd = openat(
        folder_fd, made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, <int>0o640)
    if log.fd < 0:
        failed[0] = errno
        free(log)
        return NULL
    overwrite_in_place(log.fd)
    failed[0] = EIO if log.salt == 0 else _fill(log, origin)
    if failed[0]:
        unlinkat(folder_fd, made, 0)
    else:
        failed[0] = _offer(folder_fd, log, made, name)
    if not failed[0]:
        return log
    log_end(log)
    return NULL


cdef void log_end(LogFile* log) noexcept nogil:
    # Close it and all that it keeps, and free it.
    log_forget(log)
    close(log.fd)
    free(log.folders.bytes)
    free(log.folders.identities)
    free(log.folders.starts)
    free(log)


cdef int log_remove(int folder_fd, LogFile* log, const LogOrigin* origin) noexcept nogil:
    # Its name; the flush of the folder is the caller's. 0, or the errno.
    cdef char name[LOG_NAME_ROOM]
    _name(name, origin, log.number, b".log")
    if unlinkat(folder_fd, name, 0) < 0 and errno != ENOENT:
        return errno
    return 0


cdef void log_distrust(int folder_fd, const LogOrigin* origin) noexcept nogil:
    # Have whoever recovers the life believe nothing that was written and not read from the disk
    # again. Without a flush, and so at once: where the power fails, nothing is left that was only
    # written. Without a descriptor, of which there may be none. On a thread of its own: a disk that
    # fails may hang as well, and the worker has to end then. Where it cannot be done, whoever tells
    # of the failure does it.
    cdef char name[LOG_NAME_ROOM]
    cdef size_t n = strlen(origin.life)
    memcpy(name, origin.life, n)
    memcpy(name + n, b".distrust\0", 10)
    make_aside(folder_fd, name, n + 10)


cdef void log_forget(LogFile* log) noexcept nogil:
    # Close what it keeps: a checkpoint is through, and it vouches for nothing.
    cdef int k
    for k in range(log.kept):
        if log.files[k] >= 0:
            close(log.files[k])
    log.kept = log.records = log.reached = 0
    log.folders.size = 0
    log.folders.count = 0
    log.elsewhere = False
    log.flushed = False
    if log.journal_fd >= 0:
        close(log.journal_fd)
    log.journal_fd = -1


cdef int log_renew(LogFile* log, const LogOrigin* origin) noexcept nogil:
    # Make all that is in it count for nothing, durably, for it is vouched for elsewhere now. 0: it
    # is as new; or the errno.
    cdef int failed
    log_forget(log)
    log.salt = new_salt()
    if log.salt == 0:
        return EIO
    failed = _write_header(log, origin) or flush_file(log.fd, 0)
    if not failed:
        log.at = LOG_BLOCK
    return failed


cdef int log_write(LogFile* log, LogBatch* batch, uint64_t number) noexcept nogil:
    # Append a batch and flush it. number: higher than of every batch before, in all files of the
    # life. 0, or the errno; then nobody knows what the file holds behind the batch before.
    cdef uint8_t* head = batch.bytes
    cdef uint64_t payload = batch.size - BATCH_HEADER
    cdef uint64_t whole = whole_blocks(batch.size)
    cdef stat_t about
    cdef int failed
    if whole > LOG_BYTES - log.at or whole > batch.room:
        return ENOSPC
    if fstat(log.fd, &about) < 0 or about.st_nlink == 0:
        # Whoever removed it takes all with it that is written to it, however well that is flushed.
        return ENOENT
    memset(batch.bytes + batch.size, 0, <size_t>(whole - batch.size))
    memset(head, 0, BATCH_HEADER)
    memcpy(head, b"FSCPBTCH", 8)
    _put8(head + 8, log.salt)
    _put8(head + 16, number)
    _put8(head + 24, payload)
    _put4(head + 32, batch.records)
    _put4(head + 36, crc32c(0, batch.bytes + BATCH_HEADER, <size_t>payload))
    _put4(head + 60, crc32c(0, head, 60))
    failed = _write_all(log.fd, batch.bytes, <size_t>whole, log.at) or flush_file(log.fd, 0)
    if not failed:
        log.at += whole
        log.records += <int>batch.records
    return failed


cdef void log_keep(
    LogFile* log, int fd, const char* folder, uint32_t size, const Identity* identity
) noexcept nogil:
    # Take a descriptor that wrote a file, and the folder that got its name, for the checkpoint.
    # identity: of the folder; NULL: nobody knows which one it is.
    cdef Names* names = &log.folders
    log.files[log.kept] = fd
    log.kept += 1
    if identity == NULL or not _has_room(names, size + 1):
        log.elsewhere = True
        return
    if _is_listed(names, folder, size, identity):
        return
    names.identities[names.count] = identity[0]
    names.starts[names.count] = names.size
    names.count += 1
    memcpy(names.bytes + names.size, folder, size)
    names.bytes[names.size + size] = 0
    names.size += size + 1


cdef bint _is_listed(
    const Names* names, const char* folder, uint32_t size, const Identity* identity
) noexcept nogil:
    # Whether the same folder is there by the same name: each is flushed once. The last one first,
    # for most files come to the folder of one that came just before.
    cdef int k = names.count
    cdef const char* name
    while k > 0:
        k -= 1
        if (
            names.identities[k].inode == identity.inode
            and names.identities[k].born == identity.born
        ):
            name = names.bytes + names.starts[k]
            if strlen(name) == size and memcmp(name, folder, size) == 0:
                return True
    return False


cdef bint _has_room(Names* names, uint32_t more) noexcept nogil:
    cdef char* got
    cdef uint32_t room
    if names.identities == NULL:
        names.identities = <Identity*>calloc(LOG_RECORDS, sizeof(Identity))
    if names.starts == NULL:
        names.starts = <uint32_t*>calloc(LOG_RECORDS, sizeof(uint32_t))
    if names.identities == NULL or names.starts == NULL:
        return False
    if more <= names.room - names.size:
        return True
    room = names.room * 2 + more + 1024
    got = <char*>realloc(names.bytes, room)
    if got == NULL:
        return False
    names.bytes = got
    names.room = room
    return True


# ---- a batch ---------------------------------------------------------------------------------

cdef bint _reserve(LogBatch* batch, size_t more) noexcept nogil:
    # Room for so many bytes more, and for the padding behind them.
    cdef size_t need = <size_t>whole_blocks(batch.size + more)
    cdef size_t room
    cdef uint8_t* got
    if need <= batch.room:
        return True
    room = batch.room + batch.room // 2
    if room < need:
        room = need
    got = <uint8_t*>realloc(batch.bytes, room)
    if got == NULL:
        return False
    batch.bytes = got
    batch.room = room
    return True


cdef void batch_begin(LogBatch* batch) noexcept nogil:
    # Forget the one before.
    batch.size = BATCH_HEADER
    batch.records = 0


cdef void batch_end(LogBatch* batch) noexcept nogil:
    # Give its memory back.
    free(batch.bytes)
    memset(batch, 0, sizeof(LogBatch))


cdef void batch_drop_last(LogBatch* batch) noexcept nogil:
    # Take the record back that was put last.
    batch.size = batch.last
    batch.records -= 1


cdef uint64_t batch_bytes(const LogBatch* batch) noexcept nogil:
    # That it takes in a file.
    return whole_blocks(batch.size)


cdef uint8_t* _head(
    LogBatch* batch, int kind, uint64_t sequence, const char* path, uint32_t path_size,
    uint32_t line_size, uint32_t file_size,
) noexcept nogil:
    # A record up to its path; where what follows belongs, or NULL: no memory.
    cdef uint8_t* at
    cdef size_t whole = <size_t>RECORD_HEADER + path_size + line_size + file_size
    if not _reserve(batch, whole):
        return NULL
    batch.last = batch.size
    at = batch.bytes + batch.size
    at[0] = <uint8_t>kind
    at[1] = 0
    at = _put2(at + 2, path_size)
    at = _put4(at, line_size)
    at = _put8(at, sequence)
    at = _put4(at, file_size)
    at = _put4(at, 0)
    memcpy(at, path, path_size)
    batch.size += whole
    batch.records += 1
    return at + path_size


cdef uint8_t* batch_put(
    LogBatch* batch, uint64_t sequence, const char* path, uint32_t path_size, const char* line,
    uint32_t line_size, uint32_t file_size
) noexcept nogil:
    # A record whose file's bytes the caller puts where this says, before anything else is put;
    # batch_put_checksum is next. NULL: no memory, and there is no record.
    cdef uint8_t* at = _head(
        batch, RECORD_PUT, sequence, path, path_size, line_size, file_size)
    if at == NULL:
        return NULL
    memcpy(at, line, line_size)
    return at + line_size


cdef void batch_put_checksum(LogBatch* batch, uint8_t* data, uint32_t size) noexcept nogil:
    # data: what batch_put returned, filled. Of the record that is the last.
    _put4(batch.bytes + batch.last + 20, crc32c(0, data, size))


cdef bint batch_void(
    LogBatch* batch, uint64_t sequence, const char* path, uint32_t path_size
) noexcept nogil:
    # A record that says: the one of that number counts for nothing. False: no memory.
    return _head(batch, RECORD_VOID, sequence, path, path_size, 0, 0) != NULL

"""Claims of the paths that a batch gives names at. See claims.pyi."""

from libc.errno cimport EACCES, EAGAIN, EBUSY, EISDIR, ELOOP, ENOENT, ENXIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.types cimport off_t
from posix.unistd cimport close

from fastscp_ext.commit.beneath cimport open_file_beneath
from fastscp_ext.dataset.digest cimport crc32c
from fastscp_ext.receive.instance cimport Worker
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.stat cimport S_ISREG, fstat, nanoseconds_of, stat_t

__all__ = []

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/stat.h>
    #ifndef F_OFD_SETLK
    #define F_OFD_SETLK 37
    #endif
    static int ask_lock(int fd, short kind, off_t start, off_t length) {
        struct flock asked = {.l_type = kind, .l_whence = SEEK_SET};
        asked.l_start = start;
        asked.l_len = length;
        return fcntl(fd, F_OFD_SETLK, &asked) < 0 ? errno : 0;
    }
    """
    int O_CREAT
    int O_NOCTTY
    int O_NONBLOCK
    int O_RDWR
    int AT_SYMLINK_NOFOLLOW
    short F_UNLCK
    short F_WRLCK
    int ask_lock(int fd, short kind, off_t start, off_t length) nogil
    int fstatat(int dir, const char* path, stat_t* about, int flags) nogil
    bint S_ISDIR(unsigned int mode) nogil
    bint S_ISLNK(unsigned int mode) nogil

cdef enum:
    LOOK_NS = 1000000000     # how long a file of locks is used whose folder was moved away
    TICK_NS = 50000000       # no system's clock goes in longer ticks

cdef const char* LOCKS = b".fastscp/locks"


cdef void claims_begin(Claims* c) noexcept nogil:
    c.fd = -1
    c.count = 0


cdef void claims_end(Claims* c) noexcept nogil:
    # Closing gives back what is still held.
    if c.fd >= 0:
        close(c.fd)
    c.fd = -1
    c.count = 0


cdef uint32_t claim_number(const char* path, uint32_t size) noexcept nogil:
    # As `fastscp.store.waits.lock_of` has it.
    if size > 4 and memcmp(path + size - 4, b".zst", 4) == 0:
        size -= 4
    return crc32c(0, <const uint8_t*>path, size)


cdef int claim(Claims* c, const Worker* worker, const char* path, uint32_t size) noexcept nogil:
    # 0; EBUSY: somebody has it, or a path with the same number, be it in this batch; or the errno
    # of the file of locks. What is claimed stays so until give_back.
    cdef uint32_t number = claim_number(path, size)
    cdef int failed
    cdef int k
    for k in range(c.count):
        if c.numbers[k] == number:
            return EBUSY
    if c.count == CLAIMS_MOST:
        # Nobody could tell any more what this batch has.
        return EBUSY
    if c.count == 0:
        failed = _find_locks(c, worker.store_fd)
        if failed:
            return failed
    failed = ask_lock(c.fd, F_WRLCK, <off_t>number, 1)
    if failed == EAGAIN or failed == EACCES:
        return EBUSY
    if failed:
        return failed
    c.numbers[c.count] = number
    c.count += 1
    return 0


cdef void give_back(Claims* c) noexcept nogil:
    # All of them. A file system that cannot take locks away one by one gives them up with the file.
    if c.count and ask_lock(c.fd, F_UNLCK, 0, 0):
        claims_end(c)
    c.count = 0


cdef void give_back_last(Claims* c) noexcept nogil:
    # The one that was claimed last. Where that alone cannot be done, it waits for the others.
    if c.count and ask_lock(c.fd, F_UNLCK, <off_t>c.numbers[c.count - 1], 1) == 0:
        c.count -= 1


cdef bint _is_untouched(Claims* c, uint64_t now_ns) noexcept nogil:
    # Whether the open file must still have its name: whoever removes or moves it changes its change
    # time or the number of its names. Whoever moves the folder does not, so the name is looked at
    # now and then; that costs some microseconds.
    cdef stat_t about
    return (
        c.fd >= 0 and c.looked_ns and now_ns - c.looked_ns < LOOK_NS and fstat(c.fd, &about) == 0
        and about.st_nlink == 1 and about.st_ctim.tv_sec == c.changed.tv_sec
        and about.st_ctim.tv_nsec == c.changed.tv_nsec
    )


cdef void _looked(
    Claims* c, const stat_t* about, const timespec* before, uint64_t now_ns
) noexcept nogil:
    # It had its name after `before`, and this was its change time. Another change within the same
    # tick of the system's clock would leave that as it is: it must have been older by then.
    c.changed = about.st_ctim
    c.looked_ns = 0
    # Signed, for a clock may have been set back since.
    if <int64_t>(nanoseconds_of(before[0]) - nanoseconds_of(c.changed)) > TICK_NS:
        c.looked_ns = now_ns


cdef int _find_locks(Claims* c, int store_fd) noexcept nogil:
    # Have the file open that has the name now: in one that was removed, or lies elsewhere, a lock
    # keeps nobody away. 0 or an errno. No claim is held.
    cdef stat_t about
    cdef int failed
    cdef bint is_there
    cdef timespec before
    cdef uint64_t now_ns = monotonic_ns()
    if _is_untouched(c, now_ns):
        return 0
    clock_gettime(CLOCK_REALTIME, &before)
    is_there = fstatat(store_fd, LOCKS, &about, AT_SYMLINK_NOFOLLOW) == 0
    if not is_there and errno != ENOENT:
        return errno
    if is_there and c.fd >= 0 and about.st_dev == c.device and about.st_ino == c.inode:
        _looked(c, &about, &before, now_ns)
        return 0
    if is_there and not S_ISREG(about.st_mode):
        return ELOOP if S_ISLNK(about.st_mode) else EISDIR if S_ISDIR(about.st_mode) else ENXIO
    claims_end(c)
    c.fd = open_file_beneath(store_fd, LOCKS, O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, 0o640)
    if c.fd < 0:
        return -c.fd
    # It may be another one by now.
    failed = errno if fstat(c.fd, &about) < 0 else 0 if S_ISREG(about.st_mode) else ENXIO
    if failed:
        claims_end(c)
        return failed
    c.device = about.st_dev
    c.inode = about.st_ino
    c.looked_ns = 0
    return 0

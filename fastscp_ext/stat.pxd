# What the file system says of a file.

from libc.stdint cimport uint64_t
from posix.time cimport timespec
from posix.types cimport off_t


cdef extern from "<sys/stat.h>" nogil:
    struct stat_t "stat":
        unsigned long st_dev
        unsigned long st_ino
        unsigned int st_mode
        unsigned long st_nlink
        off_t st_size
        timespec st_mtim
        timespec st_ctim
    int fstat(int fd, stat_t* about)
    int stat_of "stat"(const char* path, stat_t* about)
    bint S_ISREG(unsigned int mode)


cdef inline uint64_t _mixed(uint64_t mark, uint64_t value) noexcept nogil:
    # Every bit of both counts (the finalizer of SplitMix64).
    mark = (mark ^ value) + 0x9E3779B97F4A7C15ULL
    mark = (mark ^ (mark >> 30)) * 0xBF58476D1CE4E5B9ULL
    mark = (mark ^ (mark >> 27)) * 0x94D049BB133111EBULL
    return mark ^ (mark >> 31)


cdef inline uint64_t nanoseconds_of(timespec when) noexcept nogil:
    return <uint64_t>when.tv_sec * 1000000000 + <uint64_t>when.tv_nsec


cdef inline uint64_t mark_of(const stat_t* about) noexcept nogil:
    # One number for which file this is and in what state: device, inode, size, and the times of the
    # last changes. A sender keeps one for each file of a collection. Never 0.
    cdef uint64_t mark = _mixed(0, about.st_dev)
    mark = _mixed(mark, about.st_ino)
    mark = _mixed(mark, <uint64_t>about.st_size)
    mark = _mixed(mark, nanoseconds_of(about.st_mtim))
    mark = _mixed(mark, nanoseconds_of(about.st_ctim))
    return mark or 1

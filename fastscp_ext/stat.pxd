# What the file system says of an open file.

from libc.stdint cimport int64_t
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
    int fstat(int fd, stat_t* about)
    bint S_ISREG(unsigned int mode)


cdef inline int64_t mtime_ns(const stat_t* about) noexcept nogil:
    # Nanoseconds since 1970.
    return <int64_t>about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec

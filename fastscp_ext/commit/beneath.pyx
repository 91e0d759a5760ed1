"""Paths below a descriptor without a symbolic link on the way. See beneath.pyi."""

import os

from libc.errno cimport EEXIST, ELOOP, ENAMETOOLONG, ENOSYS, ENOTDIR, EPERM, EXDEV, errno
from libc.string cimport memcpy, strcmp, strcspn
from posix.unistd cimport close

__all__ = ["open_beneath"]

cdef extern from "fcntl.h" nogil:
    int O_CLOEXEC
    int O_CREAT
    int O_DIRECTORY
    int O_NOFOLLOW
    int O_RDONLY
    int openat(int dirfd, const char* path, int flags, ...)

cdef extern from "sys/stat.h" nogil:
    ctypedef unsigned int mode_t
    int mkdirat(int dirfd, const char* path, mode_t mode)

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    /* Behind _GNU_SOURCE in some C libraries; the same number on all machines that Linux runs on
     * but three, where it is looked up. */
    #ifndef O_PATH
    #define O_PATH 010000000
    #endif
    static int ask_openat2(int dir, const char *path, int flags, int mode) {
        struct { uint64_t flags, mode, resolve; } how = {(uint64_t)(unsigned)flags, 0, 0};
        if (flags & O_CREAT) how.mode = (uint64_t)(unsigned)mode;
        /* NO_MAGICLINKS, NO_SYMLINKS, BENEATH. */
        how.resolve = 0x02 | 0x04 | 0x08;
        int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
        return fd < 0 ? -errno : fd;
    }
    static int is_link(int dir, const char *name) {
        struct stat about;
        return fstatat(dir, name, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(about.st_mode);
    }
    """
    int O_PATH
    int ask_openat2(int dir, const char* path, int flags, int mode) nogil
    bint is_link(int dir, const char* name) nogil

cdef enum:
    NAME_ROOM = 256          # NAME_MAX and a NUL

# Once the system has said that it does not know the call, it is not asked again.
cdef bint _is_unknown = False


def open_beneath(str path not None, int flags, int mode=0, *, int dir_fd):
    """Open what is called `path` below a directory. See beneath.pyi."""
    cdef bytes raw = os.fsencode(path)
    cdef const char* name = raw
    cdef int fd
    if b"\0" in raw:
        raise ValueError("a path with a NUL")
    with nogil:
        fd = open_file_beneath(dir_fd, name, flags, mode)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), path)
    return fd


cdef int open_file_beneath(int dir_fd, const char* path, int flags, int mode) noexcept nogil:
    # The descriptor, or minus an errno.
    global _is_unknown
    cdef int fd
    flags |= O_CLOEXEC
    if not _is_unknown:
        fd = ask_openat2(dir_fd, path, flags, mode)
        # A filter of system calls says EPERM where it does not know the call; should the directory
        # say so, the walk hears it again.
        if fd != -ENOSYS and fd != -EPERM:
            return fd
        _is_unknown = fd == -ENOSYS
    return _walk(dir_fd, path, flags | O_NOFOLLOW, mode, False)


cdef int make_directory_beneath(int dir_fd, const char* path) noexcept nogil:
    # The directory opened, it and those above it made where they are missing; or minus an errno.
    return _walk(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0, True)


cdef int _walk(int dir_fd, const char* path, int flags, int mode, bint make) noexcept nogil:
    # A name at a time. make: the directories that are missing.
    cdef char name[NAME_ROOM]
    cdef size_t size
    cdef int at = dir_fd
    cdef int got
    while True:
        size = strcspn(path, b"/")
        if size >= NAME_ROOM:
            got = -ENAMETOOLONG
        else:
            memcpy(name, path, size)
            name[size] = 0
            if path[size]:
                got = _step(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0, make)
            else:
                got = _step(at, name, flags, mode, make)
        if at != dir_fd:
            close(at)
        if got < 0 or not path[size]:
            return got
        at = got
        path += size + 1


cdef int _step(int at, const char* name, int flags, int mode, bint make) noexcept nogil:
    cdef int got
    if name[0] == 0 or strcmp(name, b"..") == 0:
        return -EXDEV
    if make and mkdirat(at, name, 0o750) < 0 and errno != EEXIST:
        return -errno
    got = openat(at, name, flags, mode)
    if got >= 0:
        return got
    got = errno
    # Asked for a directory, the system calls a link no directory.
    return -ELOOP if got == ENOTDIR and is_link(at, name) else -got

"""What Python's `os` cannot ask of folders. See folders.pyi."""

import os

from libc.errno cimport errno
from libc.stdint cimport uint64_t

__all__ = ["exchange", "mount_of"]

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static int exchange_names(int one_dir, const char *one, int other_dir, const char *other) {
        return (int)syscall(SYS_renameat2, one_dir, one, other_dir, other, 2); /* EXCHANGE */
    }
    /* 2: an id that no other mount ever gets; 1: one that a later mount may get; 0: none. The C
     * library may be older than the kernel, so the answer is read by its layout. */
    static int ask_mount(int fd, uint64_t *id) {
        const uint32_t unique = 0x4000, plain = 0x1000;
        uint32_t found;
        uint64_t answer[32];
        memset(answer, 0, sizeof answer);
        if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, unique | plain, answer) < 0) return 0;
        memcpy(&found, answer, sizeof found);
        *id = answer[18];
        return found & unique ? 2 : found & plain ? 1 : 0;
    }
    """
    int exchange_names(int one_dir, const char* one, int other_dir, const char* other) nogil
    int ask_mount(int fd, uint64_t* id) nogil


def exchange(str one not None, str other not None, *, int one_dir_fd, int other_dir_fd):
    """Exchange two names. See folders.pyi."""
    cdef bytes one_name = os.fsencode(one)
    cdef bytes other_name = os.fsencode(other)
    if exchange_names(one_dir_fd, one_name, other_dir_fd, other_name) < 0:
        raise OSError(errno, os.strerror(errno), one, None, other)


def mount_of(int fd):
    """The mount that a descriptor is on. See folders.pyi."""
    cdef uint64_t number = 0
    cdef int kind = ask_mount(fd, &number)
    if kind == 0:
        return ""
    return f"{'unique' if kind == 2 else 'id'} {number}"

# Files that have no name until they are whole.

cdef extern from "../commit/nameless.h" nogil:
    cdef enum nameless:
        NAMELESS_NO
        NAMELESS_DIRECT
        NAMELESS_BY_PROC
    int nameless_open(int folder)
    int nameless_link(int fd, int way, int folder, const char* name)

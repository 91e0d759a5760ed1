# The journal's lines: one JSON object an instance.

from posix.time cimport timespec

from fastscp_ext.receive.instance cimport Instance, Worker


# Lines under way. `at` is when they are written; its text is made once a second.
ctypedef struct Lines:
    char* bytes              # owned
    size_t size
    size_t room
    bint failed              # memory ran out: the lines are not whole
    timespec at
    long long text_of        # the second that `text` says
    char text[20]            # YYYY-MM-DDThh:mm:ss


cdef void lines_begin(Lines* lines) noexcept nogil
cdef void lines_end(Lines* lines) noexcept nogil
cdef void line_stored(Lines* lines, const Worker* worker, Instance* i) noexcept nogil

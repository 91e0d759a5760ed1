# Room in the files of a redo log, which the lane takes and the checkpoint gives. The lock is held.

from libc.stdint cimport uint64_t

from fastscp_ext.commit.logfile cimport LogFile
from fastscp_ext.commit.redo cimport Redo


cdef LogFile* free_log(Redo* r) noexcept nogil
cdef LogFile* next_sealed(Redo* r) noexcept nogil
cdef bint log_fits(const LogFile* log, int count, uint64_t nbytes) noexcept nogil
cdef bint has_room(Redo* r, int count, uint64_t nbytes) noexcept nogil
cdef bint wait_for_room(Redo* r, int count, uint64_t nbytes) noexcept nogil
cdef void give_room(Redo* r, int count) noexcept nogil
cdef bint begin_log(Redo* r, LogFile* log) noexcept nogil
cdef int keep_segment(Redo* r, LogFile* log) noexcept nogil
cdef void seal_log(Redo* r) noexcept nogil

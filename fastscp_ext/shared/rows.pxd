# What is counted, by calling AE title, by transfer syntax, by status and reason.

from libc.stdint cimport uint64_t

from fastscp_ext.shared.block cimport Block, Histogram, Row, WorkerRows


cdef enum Outcome:
    OUTCOME_STORED = 0
    OUTCOME_REFUSED = 1
    OUTCOME_UNFINISHED = 2

# An instance at its end, as the rows see it.
ctypedef struct Ended:
    int ae                   # its rows
    int syntax
    int status
    Outcome outcome
    uint64_t bytes           # of its data set
    const uint64_t* stamps


cdef void count_ended(WorkerRows* rows, const Ended* ended) noexcept nogil
cdef void count_in(Histogram* at, uint64_t n) noexcept nogil


cdef class Rows:
    cdef Block block

    cdef WorkerRows* of(self, Py_ssize_t worker) except NULL
    cdef object _sum(self, const Row* first)
    cdef object _summed(self, const Histogram* first)
    cdef uint64_t _total(self, const uint64_t* first)

# A deflated data set, inflated for the tap while it passes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.dataset.tap cimport TapState


cdef enum:
    # Received bytes to take at a time: deflate makes at most 1032 of one (RFC 1951), so that this
    # bounds the work of a call to some 512 KiB, and of a call that meets a fault to some 1 MiB.
    INFLATE_SLICE = 512


cdef class Inflation:
    cdef object inflater
    cdef object mark          # the inflater where `kept` begins; None: at the stream's first byte
    cdef bytes kept           # received since
    cdef Py_ssize_t kept_out  # bytes inflated since
    cdef uint64_t done        # bytes inflated, those of a second look included
    cdef bint ended           # the stream came to its end
    cdef bint faulty          # it cannot be inflated any further
    cdef bint plain           # it never was one: what was taken is the data set itself

    cdef void take(self, TapState* tap, const uint8_t* data, uint32_t n) noexcept
    cdef void _look_for_fault(self, TapState* tap, bytes pending) noexcept

"""Memory whose end a sanitizer guards, and allocations that fail on order."""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "sanitizer/asan_interface.h":
    # Nothing without AddressSanitizer.
    void ASAN_POISON_MEMORY_REGION(const void* at, size_t size)
    void ASAN_UNPOISON_MEMORY_REGION(const void* at, size_t size)

cdef extern from *:
    """
    /* What is allocated here is the harness's own and never refused. */
    #undef malloc
    extern int fuzz_allocation_countdown;
    """
    int fuzz_allocation_countdown


@cython.final
cdef class Exact:
    # A bytes object has a NUL behind its last byte: reading one too far would go unseen.
    cdef uint8_t* at
    cdef Py_ssize_t size

    def __cinit__(self, bytes data not None):
        self.size = len(data)
        self.at = <uint8_t*>malloc(<size_t>self.size)
        if self.size:
            memcpy(self.at, <const uint8_t*><const char*>data, <size_t>self.size)

    def __dealloc__(self):
        free(self.at)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.at, self.size, True, flags)


def guard(buffer, Py_ssize_t size):
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    ASAN_UNPOISON_MEMORY_REGION(view.buf, <size_t>view.len)
    if size:
        ASAN_POISON_MEMORY_REGION(<uint8_t*>view.buf + size, <size_t>(view.len - size))
    PyBuffer_Release(&view)


def refuse_allocation(int countdown):
    global fuzz_allocation_countdown
    fuzz_allocation_countdown = countdown

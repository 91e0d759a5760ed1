# The lock of a redo log, and its two threads.

from libc.stdint cimport uint64_t


cdef extern from "redo_threads.h" nogil:
    ctypedef struct redo_lock:
        pass

    int REDO_LANE
    int REDO_CHECKPOINT
    void redo_lock_begin(redo_lock* l)
    void redo_lock_end(redo_lock* l)
    void redo_hold(redo_lock* l)
    void redo_let_go(redo_lock* l)
    void redo_wake(redo_lock* l, int which)
    # The lock is held, on return as well. until: ns of the monotonic clock; 0: without an end.
    void redo_wait(redo_lock* l, int which, uint64_t until)
    # Whether the thread runs now. The lock is held.
    bint redo_start(redo_lock* l, int which, void* (*run)(void* of) noexcept nogil, void* of)
    # The lock is not held.
    void redo_join(redo_lock* l, int which)

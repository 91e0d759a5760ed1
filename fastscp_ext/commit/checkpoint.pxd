# The checkpoint thread of a redo log.


cdef void* checkpoints(void* of) noexcept nogil

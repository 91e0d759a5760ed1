# Instances kept for reuse.

from fastscp_ext.receive.instance cimport Instance, Worker


# Used on the loop's thread alone.
ctypedef struct Pool:
    Instance* spare
    int spares
    Worker* worker               # where an instance is counted that is given back


cdef Instance* pool_take(Pool* pool) except NULL
cdef Instance* pool_shrink(Instance* i) noexcept
cdef void pool_give_back(Pool* pool, Instance* i) noexcept
cdef void pool_end(Pool* pool) noexcept

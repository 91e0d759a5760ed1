# The end of every instance: it is counted.

from fastscp_ext.receive.instance cimport Instance, Worker


cdef void settled(Worker* worker, Instance* i) noexcept nogil

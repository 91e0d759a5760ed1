# The end of every instance: it is counted.

from fastscp_ext.receive.instance cimport Instance, Site


cdef void settled(Site* site, Instance* i) noexcept nogil

# Offers of connections, and who takes them.

from fastscp_ext.shared.block cimport Block


cdef class Claims:
    cdef Block block

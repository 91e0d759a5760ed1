# What main and its workers share.

from fastscp_ext.shared.block cimport Block
from fastscp_ext.shared.claims cimport Claims
from fastscp_ext.shared.liveness cimport Liveness
from fastscp_ext.shared.rows cimport Rows
from fastscp_ext.shared.storewide cimport StoreWide
from fastscp_ext.shared.tallies cimport Tallies
from fastscp_ext.shared.unflushed cimport Doubts


cdef class Shared:
    cdef Block block
    cdef readonly StoreWide store
    cdef readonly Claims claims
    cdef readonly Liveness liveness
    cdef readonly Rows rows
    cdef readonly Doubts doubts
    cdef readonly Tallies tallies

# How an association's instances are treated.

from libc.stdint cimport uint8_t, uint64_t

from fastscp_ext.dataset.layout cimport Layout


cdef enum DigestKind:
    DIGEST_NONE = 0
    DIGEST_CRC32C = 1
    DIGEST_SHA256 = 2

# The part of the rules that is read for each fragment and without the interpreter.
ctypedef struct Treatment:
    uint8_t digest           # a DigestKind
    bint strict
    bint durable
    bint discard             # instances are checked and answered, and nothing of them is kept
    int compress_level       # of Zstandard; 0: not compressed
    uint64_t max_instance_size   # bytes of data set; 0: no limit


cdef class Rules:
    cdef Treatment treatment
    cdef readonly Layout layout
    cdef readonly str digest
    cdef readonly str on_duplicate

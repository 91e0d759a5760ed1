# A message on its way from a file into P-DATA-TF, piece by piece.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastscp_ext.send.parcel cimport Job


cdef enum:
    # Bytes sent with one call: large enough to make the call cheap, small enough to be still in
    # the processor's cache when the kernel copies them.
    STAGE_BYTES = 262144
    LARGEST_FRAGMENT = 1048576

# Invariants: used <= room; fragment and its headers fit into room.
ctypedef struct Stage:
    uint8_t* bytes              # owned: the start of a message, then the rest of it
    uint32_t room
    uint32_t used
    uint32_t fragment           # bytes of one PDV, at most
    uint32_t id_places[2]       # where in `bytes` the message id belongs
    int file                    # of what is staged, -1 once all of it is read
    uint64_t file_at            # bytes of its data set that are staged or sent


cdef bint stage_begin(Stage* s, uint32_t fragment) noexcept nogil
cdef void stage_end(Stage* s) noexcept nogil
cdef int stage_open(Stage* s, const Job* job) noexcept nogil
cdef int stage_next(Stage* s, const Job* job) noexcept nogil
cdef void stage_number(Stage* s, uint16_t message_id) noexcept nogil
cdef void stage_shut(Stage* s) noexcept nogil

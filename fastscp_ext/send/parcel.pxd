# An instance on its way: what to send, and then what became of it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    # Bytes of a command set: cut into the smallest fragments it fits into a stage.
    COMMAND_MOST = 32768

# Bytes of the data set that are sent instead of what the file has there.
ctypedef struct Patch:
    uint64_t at                 # in the data set
    uint32_t size
    const uint8_t* value        # borrowed from the parcel's tuple

# What sending needs of a parcel. Pointers are borrowed from it, or to others that are held.
ctypedef struct Job:
    void* parcel
    const char* path
    const uint8_t* command
    uint32_t command_size
    uint32_t id_at              # of the two bytes of the message id, in the command
    uint64_t offset
    uint64_t size
    uint64_t mark               # of the file (`mark_of`), 0 if unknown
    bint opens                  # the parcel's opener does, not the path
    const Patch* patch
    uint32_t patch_count
    uint8_t context_id
    uint16_t message_id         # while a response is due; else 0
    int attempts
    int status
    int error
    uint64_t began
    uint64_t nanoseconds
    Job* next                   # in the batch, then among those that are done


cdef class Parcel:
    cdef readonly object item
    cdef readonly bytes path
    cdef readonly bytes command
    cdef readonly bytes response
    cdef readonly bytes before
    cdef tuple patches
    cdef object opener
    cdef Patch* patch
    cdef Job job

    cdef int _take_patches(self) except -1

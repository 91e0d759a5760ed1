# Where the lines about a path stand in the journal: a table that main fills and workers read.
#
# The memory begins with the header; then come the first slots of the chains, and then the slots,
# which only ever become more. A line takes one slot, a segment SEGMENT_SLOTS. Slots are numbered
# from 1. main fills a slot before anything leads to it, so readers need no lock.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    INDEX_VERSION = 1
    SLOT_BYTES = 24
    SEGMENT_SLOTS = 4
    NAME_ROOM = 72           # bytes of the name of a segment, with its NUL
    FOUND_MOST = 16          # lines about a path that `find` gives, those with the highest numbers

cdef enum IndexState:
    INDEX_BUILDING = 0       # nobody knows yet what it lacks
    INDEX_READY = 1          # it has all lines of each segment up to where that is covered
    INDEX_FAILED = 2         # it cannot be built; perhaps later

cdef enum SegmentState:
    SEGMENT_GROWS = 0
    SEGMENT_COMPLETE = 1     # nothing is written to it any more
    SEGMENT_GONE = 2         # it is not there any more, or is another file

ctypedef struct IndexHeader:
    char magic[8]
    uint32_t version
    uint32_t chains          # a power of two
    uint64_t key[2]          # of the hash
    uint64_t state           # an IndexState
    uint64_t slots           # in use
    uint64_t lines
    uint64_t newest          # slot of the segment that was added last; 0: there is none
    uint64_t changes         # how often a segment was added or got another state
    uint64_t padding[7]

ctypedef struct LineSlot:
    uint64_t sequence
    uint32_t hash            # of the path, its low half
    uint32_t segment         # slot
    uint32_t offset          # of the line in the segment, bytes
    uint32_t next            # slot of the same chain, added before; 0: none

ctypedef struct SegmentSlot:
    uint64_t covered         # bytes from the beginning of the segment; their lines are in the table
    uint64_t inode
    uint32_t older           # slot of the segment that was added before; 0: none
    uint32_t state           # a SegmentState
    char name[NAME_ROOM]


cdef class LineIndex:
    cdef readonly int fd
    cdef bint made
    cdef IndexHeader* at
    cdef size_t mapped       # bytes

    cdef int _map(self, size_t size) except -1
    cdef int _check(self) except -1
    cdef int _refuse_reader(self) except -1
    cdef int make_room(self, size_t slots) except -1
    cdef void put(
        self, const uint8_t* path, size_t size, uint64_t sequence, uint32_t segment,
        uint32_t offset) noexcept nogil
    cdef LineSlot* _slots(self) noexcept nogil
    cdef SegmentSlot* _segment(self, uint32_t slot) except NULL
    cdef int _reach(self, uint64_t slot) except -1
    cdef int _change(self, SegmentSlot* segment, uint32_t state) except -1

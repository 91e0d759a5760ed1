"""Where the lines about a path stand in the journal. See line_index.pyi."""

import os

cimport cython
from libc.errno cimport EFBIG, ENAMETOOLONG, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from fastscp_ext.shared.atomic cimport half_get, half_set, word_get, word_set
from fastscp_ext.shared.siphash cimport siphash

__all__ = ["LineIndex", "hash_of"]

cdef enum:
    PAGE = 4096
    CHAINS_LEAST = 1024
    CHAINS_MOST = 268435456
    STRIDE = 4096            # slots of a chain that are looked at before others get their turn


cdef inline size_t _size(const IndexHeader* header, uint64_t slots) noexcept nogil:
    # Bytes that so many slots need, with all in front of them. Slot 0 is there, and never used.
    cdef size_t front = sizeof(IndexHeader) + <size_t>header.chains * sizeof(uint32_t)
    return front + (<size_t>slots + 1) * SLOT_BYTES


cdef inline uint32_t* _chain(IndexHeader* header, uint32_t hash) noexcept nogil:
    return <uint32_t*>(header + 1) + (hash & (header.chains - 1))


def hash_of(bytes key not None, const uint8_t[::1] data not None):
    """See line_index.pyi."""
    cdef uint64_t words[2]
    if len(key) != 16:
        raise ValueError("the key has 16 bytes")
    memcpy(words, <const char*>key, 16)
    return siphash(words, &data[0] if data.shape[0] else NULL, <size_t>data.shape[0])


@cython.final
cdef class LineIndex:
    """A table of the journal's lines by path, in shared memory. See line_index.pyi."""

    BUILDING = INDEX_BUILDING
    READY = INDEX_READY
    FAILED = INDEX_FAILED

    def __cinit__(self, int fd=-1, *, Py_ssize_t chains=CHAINS_LEAST):
        cdef uint32_t number = CHAINS_LEAST
        cdef bytes key
        self.at = NULL
        self.made = fd < 0
        self.fd = fd if fd >= 0 else os.memfd_create("fastscp-lines")
        if not self.made:
            if os.fstat(self.fd).st_size < <Py_ssize_t>sizeof(IndexHeader):
                raise ValueError("the index of the journal is too short to be one")
            self._map(<size_t>os.fstat(self.fd).st_size)
            self._check()
            return
        while 2 * number <= chains and number < CHAINS_MOST:
            number *= 2
        # Memory that is there before anybody writes to it: without it the write ends the process.
        os.posix_fallocate(self.fd, 0, PAGE)
        self._map(PAGE)
        key = os.urandom(16)
        memset(self.at, 0, sizeof(IndexHeader))
        memcpy(self.at.magic, b"fastlin", 8)
        self.at.version = INDEX_VERSION
        self.at.chains = number
        memcpy(self.at.key, <const char*>key, 16)
        self.make_room(0)

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, self.mapped)
        if self.fd >= 0:
            close(self.fd)

    cdef int _map(self, size_t size) except -1:
        cdef void* at
        at = mmap(NULL, size, PROT_READ | PROT_WRITE if self.made else PROT_READ, MAP_SHARED,
                  self.fd, 0)
        if at == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        if self.at != NULL:
            munmap(self.at, self.mapped)
        self.at = <IndexHeader*>at
        self.mapped = size
        return 0

    cdef int _check(self) except -1:
        cdef uint32_t chains = self.at.chains
        if memcmp(self.at.magic, b"fastlin", 8) != 0:
            raise ValueError("the index of the journal is not one of fastscp")
        if self.at.version != INDEX_VERSION:
            raise ValueError(
                f"the index of the journal has version {self.at.version}, "
                f"this program knows version {INDEX_VERSION}"
            )
        if not chains or chains & (chains - 1) or self.mapped < _size(self.at, 0):
            raise ValueError("the index of the journal has another size than it says")
        return 0

    cdef LineSlot* _slots(self) noexcept nogil:
        return <LineSlot*>(<char*>(self.at + 1) + <size_t>self.at.chains * sizeof(uint32_t))

    cdef SegmentSlot* _segment(self, uint32_t slot) except NULL:
        cdef uint64_t last = <uint64_t>slot + SEGMENT_SLOTS - 1
        if slot < 1 or last > word_get(&self.at.slots):
            raise IndexError(slot)
        self._reach(last)
        return <SegmentSlot*>(self._slots() + slot)

    # Filling it: main alone ----------------------------------------------------------------------

    cdef int _refuse_reader(self) except -1:
        # What it would write to is not its own.
        if not self.made:
            raise TypeError("only who made the index of the journal writes to it")
        return 0

    cdef int make_room(self, size_t slots) except -1:
        # For so many more. Raises OSError: there is no memory; what is there stays.
        cdef uint64_t wanted = self.at.slots + slots
        cdef size_t size
        self._refuse_reader()
        # A slot's number has 32 bits.
        if wanted > <uint64_t>0xFFFFFFFF:
            raise OSError(EFBIG, "the index of the journal is full")
        size = (_size(self.at, wanted) + PAGE - 1) // PAGE * PAGE
        if size > self.mapped:
            os.posix_fallocate(self.fd, self.mapped, size - self.mapped)
            self._map(size)
        return 0

    cdef void put(
        self, const uint8_t* path, size_t size, uint64_t sequence, uint32_t segment,
        uint32_t offset
    ) noexcept nogil:
        # There is room. Whoever finds the slot finds all of it.
        cdef uint32_t hash = <uint32_t>siphash(self.at.key, path, size)
        cdef uint32_t* chain = _chain(self.at, hash)
        cdef uint64_t slot = self.at.slots + 1
        cdef LineSlot* line = self._slots() + slot
        line.sequence = sequence
        line.hash = hash
        line.segment = segment
        line.offset = offset
        line.next = chain[0]
        word_set(&self.at.slots, slot)
        word_set(&self.at.lines, self.at.lines + 1)
        half_set(chain, <uint32_t>slot)

    def add(self, const uint8_t[::1] path not None, uint64_t sequence, uint32_t segment,
            uint32_t offset):
        """See line_index.pyi."""
        self.make_room(1)
        self.put(
            &path[0] if path.shape[0] else NULL, <size_t>path.shape[0], sequence, segment, offset
        )

    def add_segment(self, bytes name not None, uint64_t inode):
        """See line_index.pyi."""
        cdef SegmentSlot* segment
        cdef uint64_t slot
        if not 0 < len(name) < NAME_ROOM:
            raise OSError(
                ENAMETOOLONG, f"a file of the journal has a name of more than {NAME_ROOM - 1} bytes"
            )
        self.make_room(SEGMENT_SLOTS)
        slot = self.at.slots + 1
        segment = <SegmentSlot*>(self._slots() + slot)
        memset(segment, 0, sizeof(SegmentSlot))
        memcpy(segment.name, <const char*>name, <size_t>len(name))
        segment.inode = inode
        segment.older = <uint32_t>self.at.newest
        word_set(&self.at.slots, slot + SEGMENT_SLOTS - 1)
        word_set(&self.at.newest, slot)
        word_set(&self.at.changes, self.at.changes + 1)
        return slot

    def cover(self, uint32_t slot, uint64_t offset):
        """See line_index.pyi."""
        cdef SegmentSlot* segment = self._segment(slot)
        self._refuse_reader()
        word_set(&segment.covered, offset)

    def complete(self, uint32_t slot):
        """See line_index.pyi."""
        self._change(self._segment(slot), SEGMENT_COMPLETE)

    def leave_out(self, uint32_t slot):
        """See line_index.pyi."""
        self._change(self._segment(slot), SEGMENT_GONE)

    cdef int _change(self, SegmentSlot* segment, uint32_t state) except -1:
        self._refuse_reader()
        half_set(&segment.state, state)
        word_set(&self.at.changes, self.at.changes + 1)
        return 0

    def set_state(self, uint64_t state):
        """See line_index.pyi."""
        self._refuse_reader()
        word_set(&self.at.state, state)

    # Reading it ----------------------------------------------------------------------------------

    cdef int _reach(self, uint64_t slot) except -1:
        # Have a slot in the mapping, which may be older than it.
        if _size(self.at, slot) > self.mapped:
            self._map(<size_t>os.fstat(self.fd).st_size)
            if _size(self.at, slot) > self.mapped:
                raise ValueError("the index of the journal is shorter than it says")
        return 0

    @property
    def state(self):
        """See line_index.pyi."""
        return word_get(&self.at.state)

    @property
    def lines(self):
        """See line_index.pyi."""
        return word_get(&self.at.lines)

    @property
    def size(self):
        """See line_index.pyi."""
        return os.fstat(self.fd).st_size

    @property
    def changes(self):
        """See line_index.pyi."""
        return word_get(&self.at.changes)

    def segments(self):
        """See line_index.pyi."""
        cdef uint64_t slot = word_get(&self.at.newest)
        cdef SegmentSlot* segment
        cdef uint32_t state
        found = []
        while slot:
            segment = self._segment(<uint32_t>slot)
            state = half_get(&segment.state)
            if state != SEGMENT_GONE:
                found.append(
                    (slot, segment.name[:NAME_ROOM].split(b"\0", 1)[0], segment.inode,
                     state == SEGMENT_COMPLETE)
                )
            if segment.older >= slot:
                raise ValueError("the segments of the index lead in a circle")
            slot = segment.older
        return found

    def covered(self, uint32_t slot):
        """See line_index.pyi."""
        return word_get(&self._segment(slot).covered)

    def segment_name(self, uint32_t slot):
        """See line_index.pyi."""
        cdef SegmentSlot* segment = self._segment(slot)
        if half_get(&segment.state) == SEGMENT_GONE:
            return None
        return segment.name[:NAME_ROOM].split(b"\0", 1)[0]

    def find(self, const uint8_t[::1] path not None):
        """See line_index.pyi."""
        cdef uint32_t hash = <uint32_t>siphash(
            self.at.key, &path[0] if path.shape[0] else NULL, <size_t>path.shape[0]
        )
        cdef uint64_t slot = half_get(_chain(self.at, hash))
        cdef LineSlot found[FOUND_MOST]
        cdef int count = 0
        cdef int k
        cdef bint more = False
        cdef uint64_t walked = 0
        cdef LineSlot* line
        # Once for all: a chain leads to older slots alone.
        self._reach(slot)
        while slot:
            line = self._slots() + slot
            if line.hash == hash:
                k = count
                if count == FOUND_MOST:
                    more = True
                    k -= 1
                    if line.sequence <= found[k].sequence:
                        k += 1
                else:
                    count += 1
                if k < FOUND_MOST:
                    while k > 0 and found[k - 1].sequence < line.sequence:
                        found[k] = found[k - 1]
                        k -= 1
                    found[k] = line[0]
            if line.next >= slot:
                raise ValueError("a chain of the index leads in a circle")
            slot = line.next
            walked += 1
            if walked % STRIDE == 0:
                # Another thread may map the table anew meanwhile, and nothing here points into it.
                with nogil:
                    pass
        return [(found[k].sequence, found[k].segment, found[k].offset) for k in range(count)], more

"""The memory that main and its workers share. See block.pyi."""

import os

cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

__all__ = ["Block"]


cdef void _region(Region* region, const void* block, const void* at, size_t size) noexcept nogil:
    region.offset = <uint64_t>(<const char*>at - <const char*>block)
    region.size = size


cdef void _describe(Header* header, const BlockLayout* block) noexcept nogil:
    # The header of a block as this version makes it.
    memset(header, 0, sizeof(Header))
    memcpy(header.magic, b"fastscp", 8)
    header.version = BLOCK_VERSION
    header.regions = BLOCK_REGIONS
    header.size = sizeof(BlockLayout)
    _region(&header.region[0], block, &block.store, sizeof(block.store))
    _region(&header.region[1], block, &block.claims, sizeof(block.claims))
    _region(&header.region[2], block, &block.live, sizeof(block.live))
    _region(&header.region[3], block, &block.rows, sizeof(block.rows))
    _region(&header.region[4], block, &block.tallies, sizeof(block.tallies))


cdef int worker_in_range(Py_ssize_t worker) except -1:
    if not 0 <= worker < BLOCK_WORKERS:
        raise IndexError(worker)
    return 0


cdef void* _mapped(int fd, size_t size, size_t least, str what) except NULL:
    # least: bytes that have to be there, for touching what is not would end the process.
    cdef void* at
    if os.fstat(fd).st_size < <Py_ssize_t>least:
        raise ValueError(f"{what} is too short to be one")
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if at == MAP_FAILED:
        raise OSError(f"cannot map {what}")
    return at


@cython.final
cdef class Block:
    """One mapping of the shared memory. See block.pyi."""

    def __cinit__(self, int fd=-1, int common_fd=-1):
        self.at = NULL
        self.common = NULL
        # Both are owned from here on, whatever comes.
        self.fd = fd
        self.common_fd = common_fd
        self._map(fd)
        self._map_common(common_fd)

    cdef int _map(self, int fd) except -1:
        cdef bint made = fd < 0
        if made:
            self.fd = fd = os.memfd_create("fastscp")
            os.ftruncate(fd, sizeof(BlockLayout))
        self.at = <BlockLayout*>_mapped(
            fd, sizeof(BlockLayout), sizeof(Header), "the shared block")
        if made:
            _describe(&self.at.header, self.at)
        else:
            self._check(os.fstat(fd).st_size)
        return 0

    cdef int _map_common(self, int fd) except -1:
        cdef bint made = fd < 0
        if made:
            self.common_fd = fd = os.memfd_create("fastscp-common")
            os.ftruncate(fd, sizeof(CommonLayout))
        self.common = <CommonLayout*>_mapped(
            fd, sizeof(CommonLayout), sizeof(CommonLayout), "the common block")
        if made:
            memcpy(self.common.magic, b"fastall", 8)
            self.common.version = COMMON_VERSION
            self.common.size = sizeof(CommonLayout)
        else:
            self._check_common(os.fstat(fd).st_size)
        return 0

    cdef int _check_common(self, uint64_t size) except -1:
        if memcmp(self.common.magic, b"fastall", 8) != 0:
            raise ValueError("the common block is not one of fastscp")
        if self.common.version != COMMON_VERSION:
            raise ValueError(
                f"the common block has version {self.common.version}, "
                f"this program knows version {COMMON_VERSION}"
            )
        if self.common.size != sizeof(CommonLayout) or size != sizeof(CommonLayout):
            raise ValueError(
                f"the common block has {size} bytes and says {self.common.size}, "
                f"version {COMMON_VERSION} has {sizeof(CommonLayout)}"
            )
        return 0

    cdef int _check(self, uint64_t size) except -1:
        cdef Header* found = &self.at.header
        cdef Header known
        _describe(&known, self.at)
        if memcmp(found.magic, known.magic, sizeof(known.magic)) != 0:
            raise ValueError("the shared block is not one of fastscp")
        if found.version != known.version:
            raise ValueError(
                f"the shared block has version {found.version}, "
                f"this program knows version {known.version}"
            )
        if found.size != known.size or size != known.size:
            raise ValueError(
                f"the shared block has {size} bytes and says {found.size}, "
                f"version {known.version} has {known.size}"
            )
        if memcmp(found, &known, sizeof(Header)) != 0:
            raise ValueError("the shared block has its regions in other places")
        return 0

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, sizeof(BlockLayout))
        if self.common != NULL:
            munmap(self.common, sizeof(CommonLayout))
        if self.fd >= 0:
            close(self.fd)
        if self.common_fd >= 0:
            close(self.common_fd)

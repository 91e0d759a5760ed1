"""What is known of the workers that live. See liveness.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_get, word_set
from fastscp_ext.shared.block cimport (
    BLOCK_WORKERS, DURABILITIES, Batches, Block, Live, worker_in_range,
)

__all__ = ["Liveness"]


@cython.final
cdef class Liveness:
    """What each worker says of itself while it lives. See liveness.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    cdef Live* of(self, Py_ssize_t worker) except NULL:
        worker_in_range(worker)
        return &self.block.at.live[worker]

    cdef Batches* batches_of(self, Py_ssize_t worker, int durability) except NULL:
        worker_in_range(worker)
        if not 0 <= durability < DURABILITIES:
            raise IndexError("no such durability")
        return &self.block.common.batches[worker][durability]

    def heartbeat(self, Py_ssize_t worker, uint64_t now_ms):
        """See liveness.pyi."""
        word_set(&self.of(worker).heartbeat, now_ms)

    def alive_ms(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).heartbeat)

    def disk_since(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).disk)

    def bytes_in_flight(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).in_flight)

    def large_ms(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).large)

    def batches(self):
        """See liveness.pyi."""
        cdef Py_ssize_t worker
        cdef int durability
        cdef Batches* batches
        cdef uint64_t begun
        found = []
        for worker in range(BLOCK_WORKERS):
            for durability in range(DURABILITIES):
                batches = self.batches_of(worker, durability)
                # In this order: one that ends in between is taken for one under way, and is soon
                # seen to be over.
                begun = word_get(&batches.begun)
                if word_get(&batches.ended) != begun:
                    found.append((worker, durability, begun))
        return found

    def under_way(self, batch):
        """See liveness.pyi."""
        cdef Batches* batches = self.batches_of(batch[0], batch[1])
        cdef uint64_t number = batch[2]
        return bool(word_get(&batches.ended) != number and word_get(&batches.begun) == number)

    def end_batches(self, Py_ssize_t worker):
        """See liveness.pyi."""
        cdef Batches* batches
        cdef int durability
        word_set(&self.of(worker).in_flight, 0)
        for durability in range(DURABILITIES):
            batches = self.batches_of(worker, durability)
            word_set(&batches.ended, word_get(&batches.begun))

    def clear(self, Py_ssize_t worker):
        """See liveness.pyi."""
        cdef Live* live = self.of(worker)
        word_set(&live.heartbeat, 0)
        word_set(&live.disk, 0)
        word_set(&live.in_flight, 0)
        word_set(&live.large, 0)
        cdef Batches* batches
        cdef int durability
        for durability in range(DURABILITIES):
            batches = self.batches_of(worker, durability)
            word_set(&batches.begun, 0)
            word_set(&batches.ended, 0)

"""What is known of the workers that live. See liveness.pyi."""

cimport cython
from libc.stdint cimport uint64_t

from fastscp_ext.shared.atomic cimport word_get, word_set
from fastscp_ext.shared.block cimport BLOCK_WORKERS, Block, Live, worker_in_range

__all__ = ["Liveness"]


@cython.final
cdef class Liveness:
    """What each worker says of itself while it lives. See liveness.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    cdef Live* of(self, Py_ssize_t worker) except NULL:
        worker_in_range(worker)
        return &self.block.at.live[worker]

    def heartbeat(self, Py_ssize_t worker, uint64_t now_ms):
        """See liveness.pyi."""
        word_set(&self.of(worker).heartbeat, now_ms)

    def alive_ms(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).heartbeat)

    def disk_since(self, Py_ssize_t worker):
        """See liveness.pyi."""
        return word_get(&self.of(worker).disk)

    def batches(self):
        """See liveness.pyi."""
        cdef Py_ssize_t worker
        cdef Live* live
        cdef uint64_t begun
        found = []
        for worker in range(BLOCK_WORKERS):
            live = self.of(worker)
            # In this order: one that ends in between is taken for one under way, and is soon seen
            # to be over.
            begun = word_get(&live.batch_begun)
            if word_get(&live.batch_ended) != begun:
                found.append((worker, begun))
        return found

    def under_way(self, batch):
        """See liveness.pyi."""
        cdef Live* live = self.of(batch[0])
        cdef uint64_t number = batch[1]
        return bool(
            word_get(&live.batch_ended) != number and word_get(&live.batch_begun) == number
        )

    def end_batches(self, Py_ssize_t worker):
        """See liveness.pyi."""
        cdef Live* live = self.of(worker)
        word_set(&live.batch_ended, word_get(&live.batch_begun))

    def clear(self, Py_ssize_t worker):
        """See liveness.pyi."""
        cdef Live* live = self.of(worker)
        word_set(&live.heartbeat, 0)
        word_set(&live.disk, 0)
        word_set(&live.batch_begun, 0)
        word_set(&live.batch_ended, 0)

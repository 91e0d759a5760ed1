"""Counters that main and its workers share: the journal's sequence, claims, load figures."""

import os

cimport cython
from libc.stdint cimport uint64_t
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

__all__ = ["Shared"]


@cython.final
cdef class Shared:
    """One mapping of the shared block. See rows.pyi."""

    def __cinit__(self, int fd=-1):
        cdef void* at
        self.block = NULL
        self.fd = -1
        if fd < 0:
            fd = os.memfd_create("fastscp")
            os.ftruncate(fd, sizeof(SharedBlock))
        self.fd = fd
        at = mmap(NULL, sizeof(SharedBlock), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            raise OSError("cannot map the shared counters")
        self.block = <SharedBlock*>at

    def __dealloc__(self):
        if self.block != NULL:
            munmap(self.block, sizeof(SharedBlock))
        if self.fd >= 0:
            os.close(self.fd)

    def offer(self, uint64_t ticket):
        """Mark `ticket` as free for the taking. Tickets 4096 apart share a place."""
        shared_set(&self.block.claims[ticket % SHARED_CLAIMS], ticket)

    def claim(self, uint64_t ticket):
        """Take `ticket`; whether it was still free. Exactly one taker ever gets True."""
        return bool(shared_swap(&self.block.claims[ticket % SHARED_CLAIMS], ticket, 0))

    def begin_sequence(self, uint64_t last):
        """Let the journal's sequence go on after `last`."""
        shared_set(&self.block.journal_seq, last)

    def next_sequence(self):
        """The next number of the journal's sequence; each is given once, store-wide."""
        return shared_add(&self.block.journal_seq, 1)

    def set_store(self, uint64_t state, uint64_t slow_rate=0):
        """Tell the workers of the store. See rows.pyi."""
        shared_set(&self.block.slow_rate, slow_rate)
        shared_set(&self.block.store_state, state)

    def disk_since(self, Py_ssize_t worker):
        """Since when the worker's loop is inside a file call, ms of CLOCK_MONOTONIC; 0: not."""
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        return shared_get(&self.block.workers[worker][<int>COUNTER_DISK])

    def counters(self, Py_ssize_t worker):
        """A worker's counters. See rows.pyi."""
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        cdef uint64_t* row = self.block.workers[worker]
        return (
            shared_get(&row[<int>COUNTER_BYTES]),
            shared_get(&row[<int>COUNTER_INSTANCES]),
            shared_get(&row[<int>COUNTER_REFUSED]),
            shared_get(&row[<int>COUNTER_HEARTBEAT]),
        )

    def heartbeat(self, Py_ssize_t worker, uint64_t now_ms):
        """Say that the worker's loop was alive at `now_ms` (CLOCK_MONOTONIC, milliseconds)."""
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        shared_set(&self.block.workers[worker][<int>COUNTER_HEARTBEAT], now_ms)

    def batches(self):
        """The batches under way, as (worker, number), to be asked about by `under_way`."""
        cdef Py_ssize_t worker
        cdef uint64_t* row
        cdef uint64_t begun
        found = []
        for worker in range(SHARED_WORKERS):
            row = self.block.workers[worker]
            # In this order: one that ends in between is taken for one under way, and is soon seen
            # to be over.
            begun = shared_get(&row[<int>COUNTER_BATCH_BEGUN])
            if shared_get(&row[<int>COUNTER_BATCH_ENDED]) != begun:
                found.append((worker, begun))
        return found

    def under_way(self, batch):
        """Whether one of `batches` may still write journal lines. See rows.pyi."""
        cdef Py_ssize_t worker = batch[0]
        cdef uint64_t number = batch[1]
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        cdef uint64_t* row = self.block.workers[worker]
        return bool(
            shared_get(&row[<int>COUNTER_BATCH_ENDED]) != number
            and shared_get(&row[<int>COUNTER_BATCH_BEGUN]) == number
        )

    def end_batches(self, Py_ssize_t worker):
        """Say that a worker is gone: what it had begun writes no line any more."""
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        cdef uint64_t* row = self.block.workers[worker]
        shared_set(
            &row[<int>COUNTER_BATCH_ENDED], shared_get(&row[<int>COUNTER_BATCH_BEGUN]))

    def begin_batch(self, Py_ssize_t worker):
        """Begin a batch as the commit does; `end_batches` ends it. For tests."""
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        shared_add(&self.block.workers[worker][<int>COUNTER_BATCH_BEGUN], 1)

    def clear(self, Py_ssize_t worker):
        """Zero a worker's counters, before a new worker takes the place."""
        cdef int i
        if not 0 <= worker < SHARED_WORKERS:
            raise IndexError(worker)
        for i in range(SHARED_COUNTERS):
            shared_set(&self.block.workers[worker][i], 0)

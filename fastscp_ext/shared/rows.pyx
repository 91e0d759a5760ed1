"""What is counted, by calling AE title, transfer syntax, status and reason. See rows.pyi."""

cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

from fastscp_ext.shared.atomic cimport word_count, word_get, word_set, word_swap
from fastscp_ext.shared.block cimport (
    AE_ROWS, BATCHES, BUCKETS, FLUSHES, STAMP_ANSWERED, STAMP_COMMAND, STAMP_DURABLE,
    STAMP_LAST_BYTE, STATUS_ROWS, STRETCH_ANSWER, STRETCH_COMMIT, STRETCH_RECEIVE, STRETCH_RESPONSE,
    STRETCH_WHOLE, SYNTAX_ROWS, TITLE_ROOM, Block, Histogram, Row, RowsRegion, Title, WorkerRows,
    worker_in_range,
)
from fastscp_ext.shared.tables cimport status_name, syntax_name

from fastscp_ext.shared.counts import Counts, Times

__all__ = ["Rows"]

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    /* Bits of a number: 0 for 0, 1 for 1, 2 for 2 and 3, and so on. */
    static inline int bits_of(uint64_t n) { return n ? 64 - __builtin_clzll(n) : 0; }
    """
    int bits_of(uint64_t n) noexcept nogil

cdef enum:
    OTHERS_MOST = 100        # AE titles that no configuration names and that have a row

# In the order of Stretch, of Flush, of the durabilities, of Way and of Throttle.
_STRETCHES = ("receive", "commit", "answer", "whole", "response")
_FLUSHES = ("data", "batch", "log", "checkpoint")
_BATCHES = ("buffered", "stable", "log")
_WAYS = ("log", "larger", "full", "taken", "other")
_THROTTLES = ("space", "commit")


cdef inline void _count(Row* row, const Ended* ended) noexcept nogil:
    if ended.outcome == OUTCOME_STORED:
        word_count(&row.instances, 1)
        word_count(&row.bytes, ended.bytes)
    elif ended.outcome == OUTCOME_REFUSED:
        word_count(&row.refused, 1)
    else:
        word_count(&row.unfinished, 1)


cdef inline void _put(Histogram* at, uint64_t n) noexcept nogil:
    cdef int bucket = bits_of(n)
    if bucket >= BUCKETS:
        bucket = BUCKETS - 1
    word_count(&at.total, n)
    word_count(&at.buckets[bucket], 1)


cdef void count_in(Histogram* at, uint64_t n) noexcept nogil:
    # For whoever alone writes it.
    _put(at, n)


cdef inline void _time(Histogram* at, uint64_t begin, uint64_t end) noexcept nogil:
    # It may not have come to either.
    if not begin or end < begin:
        return
    _put(at, (end - begin) // 1000)


cdef void count_ended(WorkerRows* rows, const Ended* ended) noexcept nogil:
    # Called once for each instance, on the loop's thread.
    cdef const uint64_t* at = ended.stamps
    _count(&rows.by_ae[ended.ae], ended)
    _count(&rows.by_syntax[ended.syntax], ended)
    _count(&rows.by_status[ended.status], ended)
    _time(
        &rows.times[<int>STRETCH_RECEIVE], at[<int>STAMP_COMMAND], at[<int>STAMP_LAST_BYTE])
    _time(
        &rows.times[<int>STRETCH_COMMIT], at[<int>STAMP_LAST_BYTE], at[<int>STAMP_DURABLE])
    _time(
        &rows.times[<int>STRETCH_ANSWER], at[<int>STAMP_DURABLE], at[<int>STAMP_ANSWERED])
    _time(
        &rows.times[<int>STRETCH_WHOLE], at[<int>STAMP_COMMAND], at[<int>STAMP_ANSWERED])
    _time(
        &rows.times[<int>STRETCH_RESPONSE], at[<int>STAMP_LAST_BYTE], at[<int>STAMP_ANSWERED])


@cython.final
cdef class Rows:
    """The counters of all workers. See rows.pyi."""

    def __cinit__(self, Block block not None):
        self.block = block

    cdef WorkerRows* of(self, Py_ssize_t worker) except NULL:
        # The rows of a worker, to be counted in: from now on they are read, too.
        cdef RowsRegion* rows = &self.block.at.rows
        cdef uint64_t known
        worker_in_range(worker)
        while True:
            known = word_get(&rows.workers)
            if known > <uint64_t>worker or word_swap(&rows.workers, known, <uint64_t>worker + 1):
                return &rows.worker[worker]

    def ae_row(self, bytes title not None, bint named=False):
        """See rows.pyi."""
        cdef RowsRegion* rows = &self.block.at.rows
        cdef uint64_t used = word_get(&rows.titles_used)
        cdef const char* text = title
        cdef Title* at
        cdef uint64_t row
        if len(title) > TITLE_ROOM:
            return 0
        for row in range(1, used + 1):
            at = &rows.titles[row]
            if at.size == len(title) and memcmp(at.text, text, at.size) == 0:
                return row
        if used + 1 == AE_ROWS or (not named and rows.others == OTHERS_MOST):
            return 0
        at = &rows.titles[used + 1]
        memcpy(at.text, text, <size_t>len(title))
        at.size = <unsigned char>len(title)
        word_set(&rows.titles_used, used + 1)
        if not named:
            rows.others += 1
        return used + 1

    def received(self, worker=None):
        """See rows.pyi."""
        cdef RowsRegion* rows = &self.block.at.rows
        cdef Py_ssize_t number
        if worker is not None:
            number = worker
            worker_in_range(number)
            return word_get(&rows.worker[number].received)
        return self._total(&rows.worker[0].received)

    cdef object _sum(self, const Row* first):
        # The counts of one row of all workers, given that of the first; None where nothing was
        # counted.
        cdef RowsRegion* rows = &self.block.at.rows
        cdef Py_ssize_t offset = <const char*>first - <const char*>&rows.worker[0]
        cdef uint64_t sums[4]
        cdef Py_ssize_t number
        cdef Row* row
        sums[:] = [0, 0, 0, 0]
        for number in range(<Py_ssize_t>word_get(&rows.workers)):
            row = <Row*>(<char*>&rows.worker[number] + offset)
            sums[0] += word_get(&row.instances)
            sums[1] += word_get(&row.bytes)
            sums[2] += word_get(&row.refused)
            sums[3] += word_get(&row.unfinished)
        if not (sums[0] or sums[2] or sums[3]):
            return None
        return Counts(sums[0], sums[1], sums[2], sums[3])

    def totals(self, worker=None):
        """See rows.pyi."""
        cdef RowsRegion* rows = &self.block.at.rows
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t end = <Py_ssize_t>word_get(&rows.workers)
        cdef Py_ssize_t number
        cdef uint64_t sums[4]
        cdef Row* row
        cdef int k
        if worker is not None:
            first = worker
            worker_in_range(first)
            end = first + 1
        sums[:] = [0, 0, 0, 0]
        for number in range(first, end):
            # Each instance is in one row of each family; this is the smallest.
            for k in range(STATUS_ROWS):
                row = &rows.worker[number].by_status[k]
                sums[0] += word_get(&row.instances)
                sums[1] += word_get(&row.bytes)
                sums[2] += word_get(&row.refused)
                sums[3] += word_get(&row.unfinished)
        return Counts(sums[0], sums[1], sums[2], sums[3])

    def by_ae(self):
        """See rows.pyi."""
        cdef RowsRegion* rows = &self.block.at.rows
        cdef uint64_t row
        found = {}
        for row in range(word_get(&rows.titles_used) + 1):
            counts = self._sum(&self.block.at.rows.worker[0].by_ae[row])
            if counts is not None:
                title = rows.titles[row].text[:rows.titles[row].size].decode("latin-1")
                found[title if row else None] = counts
        return found

    def by_transfer_syntax(self):
        """See rows.pyi."""
        cdef int row
        found = {}
        for row in range(SYNTAX_ROWS):
            counts = self._sum(&self.block.at.rows.worker[0].by_syntax[row])
            if counts is not None:
                found[syntax_name(row)] = counts
        return found

    def by_status(self):
        """See rows.pyi."""
        cdef int row
        found = {}
        for row in range(STATUS_ROWS):
            counts = self._sum(&self.block.at.rows.worker[0].by_status[row])
            if counts is not None:
                found[status_name(row)] = counts
        return found

    def known_statuses(self):
        """See rows.pyi."""
        names = [status_name(row) for row in range(1, STATUS_ROWS)]
        return [name for name in names if name != (None, None)]

    cdef object _summed(self, const Histogram* first):
        # One histogram of all workers, given that of the first.
        cdef RowsRegion* rows = &self.block.at.rows
        cdef Py_ssize_t offset = <const char*>first - <const char*>&rows.worker[0]
        cdef Py_ssize_t number
        cdef Histogram* at
        cdef uint64_t total = 0
        cdef int bucket
        buckets = [0] * BUCKETS
        for number in range(<Py_ssize_t>word_get(&rows.workers)):
            at = <Histogram*>(<char*>&rows.worker[number] + offset)
            total += word_get(&at.total)
            for bucket in range(BUCKETS):
                buckets[bucket] += word_get(&at.buckets[bucket])
        return Times(tuple(buckets), total)

    def times(self):
        """See rows.pyi."""
        cdef WorkerRows* first = &self.block.at.rows.worker[0]
        return {name: self._summed(&first.times[k]) for k, name in enumerate(_STRETCHES)}

    def flushes(self):
        """See rows.pyi."""
        cdef WorkerRows* first = &self.block.at.rows.worker[0]
        return {name: self._summed(&first.flushes[k]) for k, name in enumerate(_FLUSHES)}

    def batches(self):
        """See rows.pyi."""
        cdef WorkerRows* first = &self.block.at.rows.worker[0]
        return {name: self._summed(&first.batches[k]) for k, name in enumerate(_BATCHES)}

    def commit_steps(self, worker):
        """See rows.pyi."""
        cdef WorkerRows* rows = self.of(worker)
        cdef uint64_t steps = 0
        cdef int bucket
        cdef int k
        for bucket in range(BUCKETS):
            for k in range(<int>FLUSHES):
                steps += word_get(&rows.flushes[k].buckets[bucket])
            for k in range(<int>BATCHES):
                steps += word_get(&rows.batches[k].buckets[bucket])
        return steps

    cdef uint64_t _total(self, const uint64_t* first):
        # One number of all workers, given that of the first.
        cdef RowsRegion* rows = &self.block.at.rows
        cdef Py_ssize_t offset = <const char*>first - <const char*>&rows.worker[0]
        cdef Py_ssize_t number
        cdef uint64_t total = 0
        for number in range(<Py_ssize_t>word_get(&rows.workers)):
            total += word_get(<uint64_t*>(<char*>&rows.worker[number] + offset))
        return total

    def redo_ways(self):
        """See rows.pyi."""
        cdef WorkerRows* first = &self.block.at.rows.worker[0]
        return {name: self._total(&first.ways[k]) for k, name in enumerate(_WAYS)}

    def throttled_us(self):
        """See rows.pyi."""
        cdef WorkerRows* first = &self.block.at.rows.worker[0]
        return {name: self._total(&first.throttled[k]) for k, name in enumerate(_THROTTLES)}

    def lose_lines(self, Py_ssize_t worker, uint64_t lines):
        """See rows.pyi."""
        word_count(&self.of(worker).log_lost, lines)

    def lines_lost(self):
        """See rows.pyi."""
        return self._total(&self.block.at.rows.worker[0].log_lost)

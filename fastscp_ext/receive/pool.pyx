"""Instances kept for reuse: one is some ten KiB, and thousands come in a second."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from fastscp_ext.dataset.part10 cimport embedded_end
from fastscp_ext.dataset.tap cimport tap_drop
from fastscp_ext.receive.instance cimport Instance, drop, instance_unlock
from fastscp_ext.receive.settled cimport settled

__all__ = []

cdef enum:
    SPARES_MOST = 64


cdef Instance* pool_take(Pool* pool) except NULL:
    cdef Instance* i = pool.spare
    if i != NULL:
        pool.spare = i.next
        pool.spares -= 1
        # Only the small fields in front; the rest is written before it is read.
        memset(i, 0, <size_t>(<uint8_t*>i.sop_class_raw - <uint8_t*>i))
    else:
        i = <Instance*>malloc(sizeof(Instance))
        if i == NULL:
            raise MemoryError()
        memset(i, 0, sizeof(Instance))
    i.embedded.bytes = NULL
    i.tap.more = NULL
    i.comment[0] = 0
    i.part[0] = 0
    i.path[0] = 0
    i.fd = -1
    i.lock_fd = -1
    return i


cdef Instance* pool_shrink(Instance* i) noexcept:
    # Only its response is still to come, behind others: thousands of such fit one read.
    cdef Instance* got
    embedded_end(&i.embedded)
    tap_drop(&i.tap)
    i.path[0] = 0
    i.shrunk = True
    got = <Instance*>realloc(i, <size_t>(<uint8_t*>i.path - <uint8_t*>i) + 1)
    return i if got == NULL else got


cdef void pool_give_back(Pool* pool, Instance* i) noexcept:
    settled(pool.worker, i)
    drop(&i.outbox)
    drop(&i.journal_members)
    drop(&i.rules)
    drop(&i.hasher)
    drop(&i.inflater)
    drop(&i.reply)
    if not i.shrunk:
        embedded_end(&i.embedded)
        tap_drop(&i.tap)
    instance_unlock(pool.worker, i, False)
    if pool.spares < SPARES_MOST and not i.shrunk:
        i.next = pool.spare
        pool.spare = i
        pool.spares += 1
    else:
        free(i)


cdef void pool_end(Pool* pool) noexcept:
    cdef Instance* i = pool.spare
    cdef Instance* after
    while i != NULL:
        after = i.next
        free(i)
        i = after
    pool.spare = NULL
    pool.spares = 0

"""The commit off the loop, for stable durability. See committer.pyi."""

from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.unistd cimport write

from fastscp_ext.commit.commit cimport commit_batch, journal_is_due, part_flushed
from fastscp_ext.commit.flush_pool cimport flush_job, flusher_begin, flusher_end, flusher_post
from fastscp_ext.receive.instance cimport STAGE_COMPLETE, Instance
from fastscp_ext.shared.block cimport FLUSH_DATA
from fastscp_ext.shared.rows cimport count_in

__all__ = []

cdef extern from "pthread.h" nogil:
    int pthread_mutex_init(pthread_mutex_t* lock, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* lock)
    int pthread_mutex_lock(pthread_mutex_t* lock)
    int pthread_mutex_unlock(pthread_mutex_t* lock)

cdef enum:
    WORTH_WAITING_FOR = 8388608  # bytes; the flush of a larger one would hold up the others
    FLUSHERS = 32                # threads


cdef void committer_begin(
    Committer* c, Committed* committed, Worker* worker, OpenJournal open_journal, void* of
) noexcept nogil:
    memset(c, 0, sizeof(Committer))
    pthread_mutex_init(&c.lock, NULL)
    pthread_mutex_init(&c.done_lock, NULL)
    flusher_begin(&c.threads, FLUSHERS, _flushed, c)
    c.committed = committed
    c.worker = worker
    c.open_journal = open_journal
    c.of = of
    c.done_fd = -1


cdef void committer_end(Committer* c) noexcept nogil:
    # Waits for the threads, which finish what they were given. Without the interpreter's lock.
    flusher_end(&c.threads)
    pthread_mutex_destroy(&c.lock)
    pthread_mutex_destroy(&c.done_lock)


cdef void committer_take(Committer* c, Instance* i) noexcept nogil:
    # Commit an instance: complete, or named by a comparison. It is not the caller's until done.
    i.flush.fd = i.fd if i.stage == STAGE_COMPLETE else -1
    i.flush.whole = 0
    i.flush.error = 0
    i.flush.took_ns = 0
    i.flush.of = i
    pthread_mutex_lock(&c.lock)
    c.taken += 1
    i.ticket = c.taken
    i.flush.large = i.data_bytes > WORTH_WAITING_FOR
    i.gathering = GATHERINGS if i.flush.large else c.gathering
    c.under_way[i.gathering] += 1
    pthread_mutex_unlock(&c.lock)
    flusher_post(&c.threads, &i.flush)


cdef Instance* committer_done(Committer* c) noexcept nogil:
    # The instances settled since the last call, or NULL; STAGE_SETTLED or STAGE_DUPLICATE.
    cdef Instance* batch
    pthread_mutex_lock(&c.done_lock)
    batch = c.done
    c.done = NULL
    pthread_mutex_unlock(&c.done_lock)
    return batch


cdef void committer_settled(Committer* c, Instance* batch) noexcept nogil:
    # Instances that are settled are the caller's of committer_done again. It is told behind the
    # lock, which it takes next; and once, for what it has not fetched yet comes along.
    cdef uint64_t one = 1
    cdef bint is_told
    pthread_mutex_lock(&c.done_lock)
    is_told = c.done != NULL
    _append(&c.done, batch)
    pthread_mutex_unlock(&c.done_lock)
    if not is_told:
        write(c.done_fd, &one, 8)


cdef inline void _append(Instance** list, Instance* batch) noexcept nogil:
    while list[0] != NULL:
        list = &list[0].next
    list[0] = batch


cdef inline void _insert(Instance** list, Instance* i) noexcept nogil:
    # Where its ticket belongs; at most some hundred are there.
    while list[0] != NULL and list[0].ticket < i.ticket:
        list = &list[0].next
    i.next = list[0]
    list[0] = i


cdef void _flushed(void* owner, flush_job* job) noexcept nogil:
    # On one of the threads: its instance's data are on stable storage, or the error says why not.
    cdef Committer* c = <Committer*>owner
    cdef Instance* i = <Instance*>job.of
    if i.stage == STAGE_COMPLETE:
        part_flushed(c.worker, i, job.error)
    pthread_mutex_lock(&c.lock)
    if job.took_ns:
        count_in(&c.worker.rows.flushes[<int>FLUSH_DATA], job.took_ns // 1000)
    _insert(&c.ready, i)
    c.under_way[i.gathering] -= 1
    if c.state == COMMIT_IDLE:
        _close_gathering(c)
    # Where several end at once, one of them finds it so, and leads.
    while c.state == COMMIT_GATHERING and c.under_way[1 - c.gathering] == 0:
        _lead(c)
    pthread_mutex_unlock(&c.lock)


cdef inline void _close_gathering(Committer* c) noexcept nogil:
    # What is under way belongs to the next batch, what comes from here on to the one after. The
    # other gathering is empty: its batch was the last.
    c.state = COMMIT_GATHERING
    c.gathering = 1 - c.gathering
    c.closed_at = c.taken


cdef void _lead(Committer* c) noexcept nogil:
    # Commit what has gathered. The lock is held on entry and on return. What came later and is
    # flushed already is left for the next batch: an elder of it may still be under way. So is what
    # is too much for one: each association may complete what it had begun before it was held.
    cdef Instance* batch = c.ready
    cdef Instance* last = batch
    cdef int count = 1
    while last.next != NULL and last.next.ticket <= c.closed_at and count < BATCH_MOST:
        last = last.next
        count += 1
    c.ready = last.next
    last.next = NULL
    c.state = COMMIT_LEADING
    pthread_mutex_unlock(&c.lock)
    if journal_is_due(&c.committed.journal):
        c.open_journal(c.of)
    commit_batch(c.worker, c.committed, &c.threads, batch)
    committer_settled(c, batch)
    pthread_mutex_lock(&c.lock)
    c.state = COMMIT_IDLE
    if c.ready != NULL:
        _close_gathering(c)

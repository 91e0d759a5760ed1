"""The redo log of a worker: small instances in one flush. See redo.pyi."""

from libc.errno cimport EBUSY, EEXIST, EINTR, EIO, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memmove, memset
from posix.types cimport off_t

from fastscp_ext.commit.checkpoint cimport checkpoints
from fastscp_ext.commit.claims cimport claim, give_back, give_back_last
from fastscp_ext.commit.commit cimport (
    committed_begin, committed_end, give_final_name, journal_append, journal_is_due,
    journal_is_gone, name_is_taken,
)
from fastscp_ext.commit.committer cimport committer_settled, committer_take
from fastscp_ext.commit.directories cimport (
    Identity, directories_begin, directories_close, directories_end, directory_identity, is_refused,
    parent_of,
)
from fastscp_ext.commit.flush_pool cimport flush_file, flusher_begin, flusher_end
from fastscp_ext.commit.journal_line cimport line_stored, lines_begin
from fastscp_ext.commit.log_room cimport (
    begin_log, free_log, keep_segment, log_fits, seal_log, wait_for_room,
)
from fastscp_ext.commit.logfile cimport (
    BATCH_HEADER, LOG_BYTES, LOG_RECORDS, LOG_SPENT, RECORD_HEADER, LogFile, batch_begin,
    batch_bytes, batch_drop_last, batch_end, batch_put, batch_put_checksum, batch_void, log_end,
    log_keep, log_remove, log_write, whole_blocks,
)
from fastscp_ext.commit.redo_threads cimport (
    REDO_CHECKPOINT, REDO_LANE, redo_hold, redo_join, redo_let_go, redo_lock_begin, redo_lock_end,
    redo_start, redo_wait, redo_wake,
)
from fastscp_ext.receive.instance cimport (
    STAGE_COMPLETE, STAGE_SETTLED, Instance, instance_drop_part, instance_fail, instance_unlock,
)
from fastscp_ext.shared.atomic cimport word_add, word_count
from fastscp_ext.shared.block cimport (
    BATCHES_LOG, DOUBT_LEFT, FLUSH_LOG, STAMP_DURABLE, WAY_FULL, WAY_LARGER, WAY_LOG, WAY_OTHER,
    WAY_TAKEN, Way,
)
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.rows cimport count_in
from fastscp_ext.shared.unflushed cimport unflushed_has
from fastscp_ext.stat cimport fstat, stat_t

__all__ = []

cdef extern from "unistd.h" nogil:
    ssize_t pread(int fd, void* data, size_t n, off_t at)

cdef enum:
    BATCH_BYTES = 4194304    # of the files of one batch: more in one write hold up those behind it
    ROOM_MOST = 32           # instances: the lane waits for room for no more before it begins
    LINE_BYTES = 1024        # of a line beside its path, as a rule at most
    FLUSHERS = 64            # threads of a checkpoint: the more, the fewer flushes the disk makes
    BATCH_BLOCKS = 16384     # of a batch and of the one that would void it, beside their records


cdef void redo_begin(
    Redo* r, Committer* committer, Worker* worker, OpenJournal open_journal, TellRedo tell, void* of
) noexcept nogil:
    memset(r, 0, sizeof(Redo))
    redo_lock_begin(&r.threads)
    r.committer = committer
    r.worker = worker
    r.open_journal = open_journal
    r.tell = tell
    r.of = of
    r.folder_fd = -1
    r.checkpoints = checkpoints
    committed_begin(&r.named, False)
    flusher_begin(&r.flushers, FLUSHERS, NULL, NULL)
    directories_begin(&r.directories, True)


cdef void redo_open(
    Redo* r, int folder_fd, uint32_t most, int kept_most, const LogOrigin* origin
) noexcept nogil:
    # Before the first instance.
    r.folder_fd = folder_fd
    r.most = most
    r.kept_most = kept_most
    r.origin = origin[0]
    r.on = folder_fd >= 0 and most > 0


cdef void redo_end(Redo* r) noexcept nogil:
    # Without the interpreter's lock. What was logged and not checkpointed stays in its files.
    cdef int k
    _stop(r)
    for k in range(r.count):
        log_end(r.files[k])
    r.count = 0
    flusher_end(&r.flushers)
    directories_end(&r.directories)
    committed_end(&r.named)
    batch_end(&r.batch)
    free(r.jobs)
    redo_lock_end(&r.threads)


cdef void _stop(Redo* r) noexcept nogil:
    # Both threads are gone afterwards, each with what it had in hand done.
    redo_hold(&r.threads)
    r.stop = True
    r.forward_ns = monotonic_ns()
    # Nobody takes the lane any more: no thread of it may be started behind this.
    r.on = False
    redo_wake(&r.threads, REDO_LANE)
    redo_let_go(&r.threads)
    redo_join(&r.threads, REDO_LANE)
    redo_hold(&r.threads)
    redo_wake(&r.threads, REDO_CHECKPOINT)
    redo_let_go(&r.threads)
    redo_join(&r.threads, REDO_CHECKPOINT)


cdef int redo_close(Redo* r) noexcept nogil:
    # Checkpoint all, and remove the log files: a life ends in order, and nothing is under way. 0,
    # or an errno; then files are left, for whoever comes next. Blocks on the disk.
    cdef int k
    cdef int failed = 0
    cdef int got
    _stop(r)
    if r.failed:
        return r.lacked or EIO
    for k in range(r.count):
        got = 0
        if r.files[k].records:
            got = EIO
        elif r.files[k].state != LOG_SPENT:
            got = log_remove(r.folder_fd, r.files[k], &r.origin)
        if got and not failed:
            failed = got
        log_end(r.files[k])
    if r.count and not failed:
        failed = flush_file(r.folder_fd, 1)
    r.count = 0
    return failed


# ---- the lane --------------------------------------------------------------------------------

cdef bint redo_take(Redo* r, Instance* i) noexcept nogil:
    # Whether the lane commits this one; it is not the caller's until it is done. On the loop.
    cdef bint taken
    if not r.most or i.stage != STAGE_COMPLETE or i.fd < 0:
        return False
    # How long a compressed one is, its file tells.
    if not i.treatment.compress_level and i.meta_size + i.data_bytes > r.most:
        _count_way(r, WAY_LARGER)
        return False
    redo_hold(&r.threads)
    taken = r.on and redo_start(&r.threads, REDO_LANE, _lane, r)
    if taken:
        i.next = NULL
        if r.first == NULL:
            r.first = i
            redo_wake(&r.threads, REDO_LANE)
        else:
            r.last.next = i
        r.last = i
    redo_let_go(&r.threads)
    if not taken:
        _count_way(r, WAY_OTHER)
    return taken


cdef inline void _count_way(Redo* r, Way way) noexcept nogil:
    # One that does not take the log; the loop counts these, and the lane.
    word_add(&r.worker.rows.ways[<int>way], 1)


cdef inline void _go_classic(Redo* r, Instance* i, Way way) noexcept nogil:
    # Have one committed without the log.
    _count_way(r, way)
    committer_take(r.committer, i)


cdef void* _lane(void* of) noexcept nogil:
    cdef Redo* r = <Redo*>of
    cdef Instance* batch
    cdef Way way
    redo_hold(&r.threads)
    while True:
        if r.first != NULL:
            if journal_is_due(&r.named.journal):
                # The lines of a log file are all in one segment.
                seal_log(r)
            if _wait(r):
                _take_and_commit(r)
            else:
                way = WAY_FULL if r.on else WAY_OTHER
                batch = _taken(r, LANE_MOST, BATCH_BYTES)
                redo_let_go(&r.threads)
                _all_classic(r, batch, way)
                redo_hold(&r.threads)
        elif r.stop:
            break
        elif r.batch.room:
            _rest(r)
        else:
            redo_wait(&r.threads, REDO_LANE, 0)
    redo_let_go(&r.threads)
    return NULL


cdef void _rest(Redo* r) noexcept nogil:
    # Nothing waits. The memory of large batches is given back where that lasts. The lock is held.
    cdef uint64_t until = monotonic_ns() + OLD_NS
    redo_wait(&r.threads, REDO_LANE, until)
    if r.first == NULL and monotonic_ns() >= until:
        batch_end(&r.batch)


cdef uint64_t _bytes_most(const Redo* r, const Instance* i) noexcept nogil:
    # That it may take in a log file, with the record that would void it. How long a compressed one
    # is, its file tells later; and the line is short as a rule.
    cdef uint64_t n = r.most if i.treatment.compress_level else i.meta_size + i.data_bytes
    return n + 2 * RECORD_HEADER + 3 * i.path_size + LINE_BYTES


cdef bint _wait(Redo* r) noexcept nogil:
    # For room for some of what waits. Where a checkpoint is about to give it, this is the shorter
    # way: what goes the other way flushes as much, beside the checkpoint. Whether there is room.
    # The lock is held.
    cdef Instance* i = r.first
    cdef uint64_t nbytes = BATCH_BLOCKS
    cdef int count = 0
    while i != NULL and count < min(<int>ROOM_MOST, r.kept_most):
        nbytes += _bytes_most(r, i)
        count += 1
        i = i.next
    return wait_for_room(r, count, nbytes)


cdef Instance* _taken(Redo* r, int most, uint64_t room) noexcept nogil:
    # As much of what waits as one batch takes, of `most` instances and of `room` bytes; at least
    # one. The lock is held.
    cdef Instance* batch = r.first
    cdef Instance* last = batch
    cdef uint64_t nbytes = BATCH_BLOCKS + _bytes_most(r, last)
    cdef int count = 1
    while last.next != NULL and count < most:
        nbytes += _bytes_most(r, last.next)
        if nbytes > room:
            break
        last = last.next
        count += 1
    r.first = last.next
    last.next = NULL
    return batch


cdef void _take_and_commit(Redo* r) noexcept nogil:
    # A batch for which there is room. The lock is held on entry and on return.
    cdef LogFile* active = r.active
    cdef int most = min(<int>LANE_MOST, r.kept_most - r.kept)
    cdef uint64_t room = BATCH_BYTES
    cdef Instance* batch
    cdef LogFile* log
    if active != NULL:
        most = min(most, (<int>LOG_RECORDS - active.records) // 2)
        room = min(room, LOG_BYTES - active.at)
        # Nobody seals it meanwhile.
        active.in_use = True
    batch = _taken(r, most, room)
    redo_let_go(&r.threads)
    log = _commit(r, batch)
    # What is open may be moved away before the next batch, or be in the way of an unmount.
    directories_close(&r.named.directories)
    redo_hold(&r.threads)
    if active != NULL:
        active.in_use = False
    if log != NULL:
        log.in_use = False
    if r.held_up:
        r.held_up = False
        redo_wake(&r.threads, REDO_CHECKPOINT)


cdef LogFile* _commit(Redo* r, Instance* batch) noexcept nogil:
    # One batch, on the lane's thread: what may not or cannot take the lane goes the other way.
    # Returns the log file that was written to, still in use, or NULL.
    cdef Instance* after
    cdef LogFile* log
    cdef Way way = WAY_LOG
    cdef int failed
    r.used = 0
    if not _has_segment(r):
        _all_classic(r, batch, WAY_OTHER)
        return NULL
    lines_begin(&r.named.lines)
    batch_begin(&r.batch)
    while batch != NULL:
        after = batch.next
        batch.next = NULL
        way = _record(r, batch)
        if way != WAY_LOG:
            _go_classic(r, batch, way)
        batch = after
    if r.used == 0:
        return NULL
    log = _log_for(r, &way)
    if log == NULL:
        give_back(&r.named.claims)
        _laned_classic(r, way)
        return NULL
    failed = _write(r, log)
    if failed:
        _give_up(r, log, r.used, failed)
        give_back(&r.named.claims)
        _laned_classic(r, WAY_OTHER)
        return log
    _name_all(r, log)
    _journal(r, log)
    give_back(&r.named.claims)
    _settle(r)
    return log


cdef bint _has_segment(Redo* r) noexcept nogil:
    # Whether there is one for the lines.
    if journal_is_due(&r.named.journal):
        r.open_journal(r.of)
    return r.named.journal.fd >= 0


cdef void _all_classic(Redo* r, Instance* batch, Way way) noexcept nogil:
    cdef Instance* after
    while batch != NULL:
        after = batch.next
        _go_classic(r, batch, way)
        batch = after


cdef void _laned_classic(Redo* r, Way way) noexcept nogil:
    cdef int k
    for k in range(r.used):
        _go_classic(r, r.laned[k].instance, way)
    r.used = 0


cdef Way _record(Redo* r, Instance* i) noexcept nogil:
    # WAY_LOG: the instance is in the batch from now on, and its path is claimed.
    cdef Worker* worker = r.worker
    cdef stat_t about
    cdef Laned* laned = &r.laned[r.used]
    cdef int failed
    if is_refused(worker, i.path, parent_of(i.path, i.path_size)) or unflushed_has(
        worker.unflushed, DOUBT_LEFT, i.path, i.path_size
    ):
        return WAY_OTHER
    if fstat(i.fd, &about) < 0 or about.st_size <= 0:
        return WAY_OTHER
    if about.st_size > <off_t>r.most:
        return WAY_LARGER
    failed = claim(&r.named.claims, worker, i.path, i.path_size)
    if failed:
        return WAY_TAKEN if failed == EBUSY else WAY_OTHER
    # Only now: whoever had the claim may have given the name.
    failed = name_is_taken(worker, &r.named, i)
    if failed or not _put(r, i, laned, <uint32_t>about.st_size):
        give_back_last(&r.named.claims)
        return WAY_TAKEN if failed == EEXIST else WAY_OTHER
    laned.instance = i
    laned.failed = 0
    r.used += 1
    return WAY_LOG


cdef bint _put(Redo* r, Instance* i, Laned* laned, uint32_t nbytes) noexcept nogil:
    # Its record, with the line and the bytes of its part; nbytes: of these.
    cdef uint8_t* data
    laned.line_at = r.named.lines.size
    i.sequence = word_add(r.worker.sequence, 1)
    line_stored(&r.named.lines, r.worker, i)
    if r.named.lines.failed:
        r.named.lines.failed = False
        r.named.lines.size = laned.line_at
        return False
    laned.line_size = r.named.lines.size - laned.line_at
    data = batch_put(
        &r.batch, i.sequence, i.path, i.path_size, r.named.lines.bytes + laned.line_at,
        <uint32_t>laned.line_size, nbytes,
    )
    if data != NULL and _read_part(i.fd, data, nbytes):
        batch_put_checksum(&r.batch, data, nbytes)
        return True
    if data != NULL:
        batch_drop_last(&r.batch)
    r.named.lines.size = laned.line_at
    return False


cdef bint _read_part(int fd, uint8_t* data, uint32_t nbytes) noexcept nogil:
    cdef uint32_t done = 0
    cdef ssize_t got
    while done < nbytes:
        got = pread(fd, data + done, nbytes - done, <off_t>done)
        if got > 0:
            done += <uint32_t>got
        elif got == 0 or errno != EINTR:
            return False
    return True


cdef uint64_t _voids_most(Redo* r) noexcept nogil:
    # Bytes that a batch takes which voids all of this one.
    cdef uint64_t n = BATCH_HEADER
    cdef int k
    for k in range(r.used):
        n += RECORD_HEADER + r.laned[k].instance.path_size
    return whole_blocks(n)


cdef LogFile* _log_for(Redo* r, Way* way) noexcept nogil:
    # The file that takes the batch, in use from now on, with room for the records that void it. Or
    # NULL, and why: all paths are claimed, so nothing is waited for.
    cdef LogFile* log = NULL
    cdef uint64_t need = batch_bytes(&r.batch) + _voids_most(r)
    redo_hold(&r.threads)
    if r.active != NULL and not log_fits(r.active, r.used, need):
        seal_log(r)
    way[0] = WAY_OTHER
    if r.on and r.active == NULL:
        log = free_log(r)
        way[0] = WAY_FULL if log == NULL else WAY_OTHER
        if log != NULL:
            # It may lack a descriptor.
            begin_log(r, log)
    log = r.active if r.on else NULL
    if log != NULL:
        log.in_use = True
        r.kept += r.used
    redo_let_go(&r.threads)
    return log


cdef int _write(Redo* r, LogFile* log) noexcept nogil:
    # The batch, flushed: the one flush that its instances wait for.
    cdef uint64_t began = monotonic_ns()
    cdef int failed
    r.batches += 1
    failed = log_write(log, &r.batch, r.batches)
    count_in(&r.worker.rows.flushes[<int>FLUSH_LOG], (monotonic_ns() - began) // 1000)
    return failed


cdef void _give_up(Redo* r, LogFile* log, int given_back, int failed) noexcept nogil:
    # A write to the file failed. What it has from before is checkpointed; whether it has the last
    # batch, nobody knows. A worker whose log fails goes on without one. given_back: descriptors
    # that the lane does not keep after all.
    redo_hold(&r.threads)
    r.on = False
    r.kept -= given_back
    log.broken = True
    if r.active == log:
        seal_log(r)
    redo_let_go(&r.threads)
    r.tell(r.of, b"write the redo log", failed, REDO_OFF)


cdef void _name_all(Redo* r, LogFile* log) noexcept nogil:
    # The final names: what they name can be had again from the log from now on.
    cdef Laned* laned
    cdef Instance* i
    cdef Identity identity
    cdef uint32_t above
    cdef bint is_known
    cdef bint is_whole = True    # all that have no name are voided
    cdef int failed
    cdef int k
    cdef int lost = 0
    batch_begin(&r.batch)
    for k in range(r.used):
        laned = &r.laned[k]
        i = laned.instance
        laned.failed = give_final_name(r.worker, &r.named, i, &laned.step)
        if laned.failed == 0:
            above = parent_of(i.path, i.path_size)
            is_known = directory_identity(
                &r.named.directories, r.worker, i.path, above, &identity) == 0
            log_keep(log, i.fd, i.path, above, &identity if is_known else NULL)
            i.fd = -1
        else:
            lost += 1
            is_whole = batch_void(&r.batch, i.sequence, i.path, i.path_size) and is_whole
    if not lost:
        return
    redo_hold(&r.threads)
    r.kept -= lost
    redo_let_go(&r.threads)
    # Before anybody hears of it: what is refused must not come back.
    failed = _write(r, log) if is_whole else ENOMEM
    if failed:
        _give_up(r, log, 0, failed)


cdef inline bint _has_name(const Laned* laned) noexcept nogil:
    return laned.failed == 0


cdef size_t _gather_lines(Redo* r) noexcept nogil:
    # The lines of those that have a name, behind each other; their bytes.
    cdef char* lines = r.named.lines.bytes
    cdef size_t n = 0
    cdef int k
    for k in range(r.used):
        if _has_name(&r.laned[k]):
            if r.laned[k].line_at != n:
                memmove(lines + n, lines + r.laned[k].line_at, r.laned[k].line_size)
            n += r.laned[k].line_size
    return n


cdef void _journal(Redo* r, LogFile* log) noexcept nogil:
    # The lines: not flushed, for the log has them. A segment that was removed takes its lines with
    # it, so they go to the next one as well.
    cdef int store_fd = r.worker.store_fd
    cdef size_t n = _gather_lines(r)
    cdef int failed = 0
    cdef int k
    cdef bint again
    if n == 0:
        return
    failed = journal_append(store_fd, &r.named.journal, False, r.named.lines.bytes, n)
    again = not failed and journal_is_gone(store_fd, &r.named.journal)
    if failed or again:
        r.named.journal.fd = -1
        r.named.journal.error_no = failed
    if again:
        failed = _journal_anew(r, log, n)
    if not failed:
        return
    for k in range(r.used):
        if _has_name(&r.laned[k]):
            instance_fail(r.laned[k].instance, failed, b"write the journal")


cdef int _journal_anew(Redo* r, LogFile* log, size_t n) noexcept nogil:
    # The lines into a new segment, which the file's checkpoint flushes instead. 0, or the errno.
    cdef int failed
    r.open_journal(r.of)
    if r.named.journal.fd < 0:
        return r.named.journal.error_no or EIO
    failed = keep_segment(r, log)
    if failed:
        return failed
    failed = journal_append(r.worker.store_fd, &r.named.journal, False, r.named.lines.bytes, n)
    if failed:
        r.named.journal.fd = -1
    return failed


cdef void _settle(Redo* r) noexcept nogil:
    # What has its name and its line is stored; what has no name was refused, or goes the other way.
    cdef Instance* settled = NULL
    cdef Instance* last = NULL
    cdef Instance* i
    cdef Laned* laned
    cdef uint64_t now_ns = monotonic_ns()
    cdef uint64_t count = 0
    cdef int k
    for k in range(r.used):
        laned = &r.laned[k]
        i = laned.instance
        i.next = NULL
        if laned.failed == EEXIST:
            # Somebody else gave the name, who has no claims: a comparison is to decide.
            _go_classic(r, i, WAY_TAKEN)
            continue
        if laned.failed:
            instance_fail(i, laned.failed, laned.step)
            instance_drop_part(r.worker, i)
        elif not i.error_no:
            i.stamps[<int>STAMP_DURABLE] = now_ns
        instance_unlock(r.worker, i, True)
        i.stage = STAGE_SETTLED
        count += 1
        if settled == NULL:
            settled = i
        else:
            last.next = i
        last = i
    count_in(&r.worker.rows.batches[<int>BATCHES_LOG], count)
    word_count(&r.worker.rows.ways[<int>WAY_LOG], count)
    r.used = 0
    if settled != NULL:
        committer_settled(r.committer, settled)

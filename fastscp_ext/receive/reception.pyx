"""What the associations of one worker share: the receive buffer, the part folder, the commit."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport PyObject
from libc.errno cimport EBADF, EIO, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read

from fastscp_ext.commit.commit cimport (
    JOURNAL_PATH_ROOM, Committed, commit_batch, committed_begin, committed_end, journal_is_due,
    part_flushed,
)
from fastscp_ext.commit.directories cimport directories_refresh
from fastscp_ext.commit.committer cimport (
    committer_begin, committer_done, committer_end, committer_take,
)
from fastscp_ext.commit.logfile cimport LogOrigin
from fastscp_ext.commit.nameless cimport NAMELESS_BY_PROC, NAMELESS_NO
from fastscp_ext.commit.redo cimport (
    RedoFailure, redo_begin, redo_close, redo_end, redo_open, redo_take,
)
from fastscp_ext.commit.remover cimport (
    REMOVALS_MOST, remover, remover_ask, remover_begin, remover_end, remover_waiting,
)
from fastscp_ext.receive.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_KEPT, DUPLICATE_NO, DUPLICATE_REPLACED, DUPLICATE_VERSION,
    PART_ROOM, PATH_ROOM, STAGE_ANSWERABLE, STAGE_COMPLETE, STAGE_COMPRESSING, STAGE_DUPLICATE,
    STAGE_NAMED, STAGE_SETTLED, Instance, Worker, disk_begin, disk_end, instance_drop_part,
    instance_fail, instance_refuse, instance_unlock,
)
from fastscp_ext.receive.outbox cimport Outbox
from fastscp_ext.receive.pace cimport (
    HOLD_COMMIT, HOLD_REST, HOLD_SENDING, HOLD_SLOW, HOLD_TURN, Pace,
)
from fastscp_ext.receive.pool cimport pool_end, pool_give_back
from fastscp_ext.receive.rules cimport Rules
from fastscp_ext.receive.unfinished cimport Unfinished
from fastscp_ext.shared.atomic cimport word_count, word_get, word_set
from fastscp_ext.shared.block cimport (
    BLOCK_WORKERS, DURABILITIES, DURABILITY_BUFFERED, DURABILITY_STABLE, THROTTLE_COMMIT,
    THROTTLE_SPACE,
)
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.shared cimport Shared
from fastscp_ext.shared.storewide cimport STORE_SLOW, reserve_reading
from fastscp_ext.shared.tables cimport refusal_text
from fastscp_ext.status cimport OUT_OF_RESOURCES, SUCCESS

__all__ = ["Compression", "Duplicate", "HeldBack", "Reception", "Replacement"]

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef extern from "sys/mman.h" nogil:
    int MADV_HUGEPAGE
    int madvise(void* at, size_t size, int advice)

cdef extern from "sys/eventfd.h" nogil:
    int EFD_CLOEXEC
    int EFD_NONBLOCK
    int eventfd(unsigned int initval, int flags)

cdef enum:
    RECEIVE_BYTES = 1048576  # most data sets in one read, and one turn of the loop is still short
    HUGE_PAGE = 2097152


cdef uint8_t* _receive_buffer(Py_ssize_t size) except NULL:
    # Every byte passes through it three times: from the socket, to the digest, to the file. In
    # pages of 4 KiB looking up addresses is a good part of that.
    cdef void* memory = NULL
    if size < RECEIVE_BYTES:
        memory = malloc(<size_t>size)
    elif posix_memalign(&memory, HUGE_PAGE, <size_t>(size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1)):
        memory = NULL
    else:
        madvise(memory, HUGE_PAGE, MADV_HUGEPAGE)
    if memory == NULL:
        raise MemoryError()
    return <uint8_t*>memory


_DUPLICATES = {
    "named": DUPLICATE_NO, "identical": DUPLICATE_IDENTICAL, "version": DUPLICATE_VERSION,
    "replaced": DUPLICATE_REPLACED, "kept": DUPLICATE_KEPT,
}


# By RedoFailure.
_LOG_FAILURES = ("waits", "off", "fatal")


def _no_journal(bint durable):
    # Of a reception that is closed.
    raise OSError(EBADF, os.strerror(EBADF))


cdef void _open_journal(void* reception) noexcept with gil:
    # On the thread that leads the commit.
    (<Reception>reception)._journal_ready(&(<Reception>reception).committed[DURABILITY_STABLE])


cdef void _open_log_journal(void* reception) noexcept with gil:
    # On the thread of the redo log's lane.
    (<Reception>reception)._open_log_journal()


cdef void _tell_log_failed(
    void* reception, const char* step, int error, RedoFailure what
) noexcept with gil:
    # On a thread of the redo log.
    cdef object told = (<Reception>reception).on_log_failed
    if told is not None:
        told(step.decode(), error, _LOG_FAILURES[<int>what])


cdef int _note(char* at, size_t room, str text) except -1:
    # ASCII with a NUL behind it.
    cdef bytes raw = text.encode("ascii")
    if len(raw) >= <Py_ssize_t>room:
        raise ValueError(f"too long to be noted in a log file: {text!r}")
    memcpy(at, PyBytes_AS_STRING(raw), len(raw))
    return 0


cdef void _tell_refused(
    void* reception, const char* folder, int error, bint lasting, bint all
) noexcept with gil:
    # On the thread that made the flush.
    cdef object told = (<Reception>reception).on_refused
    if told is not None:
        told(os.fsdecode(<bytes>folder), error, bool(lasting), bool(all))


cdef void _tell(PyObject* association, object error) noexcept:
    # A method that was called failed. The association, if it was its, logs that and ends; what
    # belongs to none, or fails at this, is left to the interpreter to report.
    if association == NULL:
        raise error
    (<object>association).failed(error)


cdef Instance* _reversed(Instance* batch) noexcept nogil:
    cdef Instance* i = NULL
    cdef Instance* after
    while batch != NULL:
        after = batch.next
        batch.next = i
        i = batch
        batch = after
    return i


cdef Instance* _pending(Instance* i) except NULL:
    # What a Duplicate, a Replacement or a Compression stands for, until it is settled.
    if i == NULL:
        raise ValueError("settled already")
    return i


cdef class _Pending:
    # What a Duplicate, a Replacement and a Compression tell of their instance.

    cdef Reception reception
    cdef Instance* instance

    @property
    def rules(self):
        return <Rules>_pending(self.instance).rules

    @property
    def association(self):
        return <Py_ssize_t>_pending(self.instance).journal_members


@cython.final
cdef class Duplicate(_Pending):
    """An instance whose final name was taken. See reception.pyi."""

    @property
    def part(self):
        return _pending(self.instance).part.decode()

    @property
    def path(self):
        return _pending(self.instance).path.decode()

    @property
    def digest(self):
        return _pending(self.instance).digest.decode()

    def accept(self, str kind not None, str path not None, int lock_fd=-1):
        """Go on to directory flush, journal and response. See reception.pyi."""
        cdef bytes raw = os.fsencode(path)
        cdef Instance* i = _pending(self.instance)
        if len(raw) >= PATH_ROOM:
            raise ValueError("path too long")
        self.instance = NULL
        i.duplicate = _DUPLICATES[kind]
        memcpy(i.path, PyBytes_AS_STRING(raw), len(raw) + 1)
        i.path_size = <uint32_t>len(raw)
        i.lock_fd = lock_fd
        i.locked = lock_fd >= 0
        if kind in ("named", "version", "replaced"):
            i.has_part = False
        instance_drop_part(&self.reception.worker, i)
        i.stage = STAGE_NAMED
        self.reception.enqueue(i)
        self.reception.commit()

    def refuse(self, int status, bytes comment, int error_no=0):
        """Drop the part and answer with `status`. See reception.pyi."""
        cdef Instance* i = _pending(self.instance)
        cdef const char* text = refusal_text(error_no)
        self.instance = NULL
        if comment is not None:
            text = PyBytes_AS_STRING(comment)
        instance_refuse(i, <uint16_t>status, text)
        if error_no:
            # For the log: what the peer is told stands.
            instance_fail(i, error_no, b"compare with the existing instance")
        self.reception.finish_refused(i)


@cython.final
cdef class Replacement(_Pending):
    """An instance that took another one's place, behind the commit. See reception.pyi."""

    @property
    def path(self):
        return _pending(self.instance).path.decode()

    @property
    def refused(self):
        return _pending(self.instance).status != SUCCESS

    def settled(self, int error_no=0):
        """Give the lock of the path back, and answer. See reception.pyi."""
        cdef Instance* i = _pending(self.instance)
        self.instance = NULL
        if error_no:
            instance_fail(i, error_no, b"flush what takes the place of an older instance")
        instance_unlock(&self.reception.worker, i, False)
        self.reception._finish(i)


@cython.final
cdef class Compression(_Pending):
    """A complete instance whose part is to be compressed. See reception.pyi."""

    @property
    def part(self):
        return _pending(self.instance).part.decode()

    def done(self, str part not None, int fd):
        """Go on to the commit with another part, and its descriptor. See reception.pyi."""
        cdef bytes raw = os.fsencode(part)
        cdef Instance* i = _pending(self.instance)
        if len(raw) >= PART_ROOM:
            raise ValueError("part name too long")
        self.instance = NULL
        instance_drop_part(&self.reception.worker, i)
        memcpy(i.part, PyBytes_AS_STRING(raw), len(raw) + 1)
        i.has_part = True
        i.fd = fd
        i.stage = STAGE_COMPLETE
        self.reception.enqueue(i)
        self.reception.commit()

    def failed(self, int error_no):
        """Drop the instance: its part cannot be compressed. The peer gets A700."""
        cdef Instance* i = _pending(self.instance)
        self.instance = NULL
        instance_fail(i, error_no, b"compress a part file")
        self.reception.finish_refused(i)


@cython.final
cdef class HeldBack:
    """A place among the responses owed that is kept. See reception.pyi."""

    def let_go(self):
        """Let the responses behind it leave. See reception.pyi."""
        cdef Instance* i = _pending(self.instance)
        cdef PyObject* outbox = i.outbox
        self.instance = NULL
        i.stage = STAGE_ANSWERABLE
        if outbox == NULL:
            pool_give_back(&self.reception.pool, i)
        else:
            self.reception._answer(<Outbox>outbox)


cdef inline bint _is_full(remover* r) noexcept nogil:
    return remover_waiting(r) >= REMOVALS_MOST and not remover_ask(r)


@cython.final
cdef class Reception:
    """What the associations of one worker share. See reception.pyi."""

    def __cinit__(
        self, *, int store_fd, int incoming_fd, Shared shared not None,
        Py_ssize_t worker, str name not None, bint use_link,
        bytes implementation not None, bytes version not None, new_journal, on_duplicate, on_error,
        on_complete, on_unlocked=None, on_refused=None, on_replaced=None, on_short=None,
        Py_ssize_t buffer_bytes=RECEIVE_BYTES, uint64_t journal_limit=67108864,
        uint64_t max_bytes_in_flight=0, int nameless=NAMELESS_NO,
    ):
        cdef bytes raw = name.encode()
        cdef int durability
        # First of all: an object that is refused below gives back only what it took.
        self.done_fd = -1
        for durability in range(DURABILITIES):
            committed_begin(&self.committed[durability], durability == DURABILITY_STABLE)
        # Its threads come with the first stable instance.
        committer_begin(
            &self.committer, &self.committed[DURABILITY_STABLE], &self.worker, _open_journal,
            <void*>self,
        )
        redo_begin(
            &self.redo, &self.committer, &self.worker, _open_log_journal, _tell_log_failed,
            <void*>self,
        )
        self.begun = True
        if not 0 <= worker < BLOCK_WORKERS:
            raise ValueError("worker number out of range")
        if not 0 <= nameless <= <int>NAMELESS_BY_PROC:
            raise ValueError("no such way to name a part")
        if len(raw) > 23:
            raise ValueError("worker name too long")
        memset(&self.worker, 0, sizeof(Worker))
        self.buffer = _receive_buffer(buffer_bytes)
        self.buffer_size = buffer_bytes
        self.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.done_fd < 0:
            raise OSError(errno, "cannot make an eventfd")
        self.committer.done_fd = self.done_fd
        remover_begin(&self.worker.removing, self.done_fd)
        remover_begin(&self.worker.unlocking, self.done_fd)
        self.shared = shared
        self.worker.store_fd = store_fd
        self.worker.incoming_fd = incoming_fd
        self.worker.use_link = use_link
        self.worker.nameless = nameless
        self.worker.live = shared.liveness.of(worker)
        self.worker.rows = shared.rows.of(worker)
        self.worker.sequence = &shared.block.common.journal_seq
        self.worker.store_state = &shared.block.at.store.state
        self.worker.mixed = &shared.block.common.mixed
        self.worker.unflushed = &shared.block.common.unflushed
        self.pool.worker = &self.worker
        memcpy(self.worker.name, PyBytes_AS_STRING(raw), len(raw))
        self.implementation = implementation
        self.version = version
        self.new_journal = new_journal
        self.on_duplicate = on_duplicate
        self.on_error = on_error
        self.on_complete = on_complete
        self.on_unlocked = on_unlocked
        self.on_refused = on_refused
        self.on_replaced = on_replaced
        self.on_short = on_short
        self.in_flight_most = max_bytes_in_flight
        for durability in range(DURABILITIES):
            self.committed[durability].journal.limit = journal_limit
            self.committed[durability].batches = shared.liveness.batches_of(worker, durability)
            self.committed[durability].directories.telling.refused = _tell_refused
            self.committed[durability].directories.telling.of_refused = <void*>self
        self.redo.named.journal.limit = journal_limit
        self.redo.directories.telling.refused = _tell_refused
        self.redo.directories.telling.of_refused = <void*>self
        self.held = ({}, {})
        self.unfinished = Unfinished.__new__(Unfinished)
        self.slowed = {}
        self.watched = {}

    def __dealloc__(self):
        cdef int durability
        if not self.begun:
            return
        pool_end(&self.pool)
        # Not while holding what a thread may need to come to its end.
        with nogil:
            redo_end(&self.redo)
            committer_end(&self.committer)
        for durability in range(DURABILITIES):
            committed_end(&self.committed[durability])
        free(self.buffer)
        if self.done_fd >= 0:
            with nogil:
                remover_end(&self.worker.removing)
                remover_end(&self.worker.unlocking)
            close(self.done_fd)

    cdef void enqueue(self, Instance* i) noexcept:
        # To the commit. A duplicate that was compared is flushed and has its name: it only passes.
        cdef int durability = i.treatment.durable
        if i.stage == STAGE_COMPLETE:
            self._count_in_flight(i, i.data_bytes)
        i.next = NULL
        if self.waiting_last[durability] == NULL:
            self.waiting[durability] = i
        else:
            self.waiting_last[durability].next = i
        self.waiting_last[durability] = i

    cdef void _count_in_flight(self, Instance* i, uint64_t nbytes) noexcept:
        # It counts with so many bytes from now on, 0 once the commit has it no longer.
        cdef int durability = i.treatment.durable
        self.in_flight_of[durability] += nbytes - i.in_flight
        i.in_flight = nbytes
        word_set(
            &self.worker.live.in_flight,
            self.in_flight_of[DURABILITY_BUFFERED] + self.in_flight_of[DURABILITY_STABLE],
        )

    cdef bint _journal_ready(self, Committed* c) except -1:
        # Have a journal file to append to, new where the last one failed or is full. False: the
        # commit has to wait for one that somebody opens; a full one serves until then.
        if not journal_is_due(&c.journal):
            return True
        try:
            return self._take_journal(c, self.new_journal(bool(c.durable)))
        except BlockingIOError:
            return c.journal.fd >= 0
        except OSError as error:
            if c.journal.fd < 0:
                c.journal.error_no = error.errno or 0
            return True

    cdef bint _take_journal(self, Committed* c, object opened) except -1:
        # Append to this file from now on: a descriptor, the bytes in it, and where it lies.
        cdef bytes raw
        fd, size, *path = opened
        raw = os.fsencode(path[0]) if path else b""
        if len(raw) >= JOURNAL_PATH_ROOM:
            raise ValueError("journal path too long")
        memcpy(c.journal.path, PyBytes_AS_STRING(raw), len(raw) + 1)
        c.journal.fd = fd
        c.journal.bytes = size
        c.journal.error_no = 0
        return True

    cdef int _open_log_journal(self) except -1:
        cdef Committed* c = &self.redo.named
        try:
            self._take_journal(c, self.new_log_journal())
        except OSError as error:
            c.journal.fd = -1
            c.journal.error_no = error.errno or 0
        return 0

    def open_log(
        self, int folder_fd, *, uint32_t most, int kept, str store not None, str boot not None,
        str life not None, str mount not None, str system not None, new_journal, on_failed,
    ):
        """Have small stable instances take a redo log. See reception.pyi."""
        cdef LogOrigin origin
        memset(&origin, 0, sizeof(LogOrigin))
        _note(origin.store, sizeof(origin.store), store)
        _note(origin.boot, sizeof(origin.boot), boot)
        _note(origin.life, sizeof(origin.life), life)
        _note(origin.mount, sizeof(origin.mount), mount)
        _note(origin.system, sizeof(origin.system), system)
        self.new_log_journal = new_journal
        self.on_log_failed = on_failed
        redo_open(&self.redo, folder_fd, most, kept, &origin)

    def close_log(self):
        """Have all that the redo log vouches for flushed, and remove it. See reception.pyi."""
        cdef int failed
        with nogil:
            failed = redo_close(&self.redo)
        if failed:
            raise OSError(failed, os.strerror(failed))

    cdef int complete(self, Instance* i) except -1:
        # An instance whose last byte is written: to the commit, through compression where
        # its rules ask for that.
        cdef Compression compression
        if self.closed:
            instance_fail(i, EBADF, b"store in a worker that has left the store")
            return self.finish_refused(i)
        if i.treatment.discard:
            # There is nothing to commit, and nobody behind it that waits for its path.
            return self._settle(i)
        if i.treatment.compress_level == 0:
            self.enqueue(i)
            return 0
        i.stage = STAGE_COMPRESSING
        compression = Compression.__new__(Compression)
        compression.reception = self
        compression.instance = i
        try:
            self.on_complete(compression)
        except Exception as error:
            _tell(NULL, error)
            if compression.instance != NULL:
                compression.failed(EIO)
        return 0

    cdef int commit(self) except -1:
        # Take everything that waits through the commit: stable instances off the loop, buffered
        # ones here and now, whatever is being flushed meanwhile.
        if self.waiting[DURABILITY_STABLE] != NULL:
            self._commit_stable()
        if self.waiting[DURABILITY_BUFFERED] != NULL:
            self._commit_buffered()
        return 0

    cdef int _commit_stable(self) except -1:
        cdef Instance* i = self.waiting[DURABILITY_STABLE]
        cdef Instance* after
        self.waiting[DURABILITY_STABLE] = self.waiting_last[DURABILITY_STABLE] = NULL
        while i != NULL:
            after = i.next
            if not redo_take(&self.redo, i):
                committer_take(&self.committer, i)
            i = after
        return 0

    cdef int _commit_buffered(self) except -1:
        cdef Committed* buffered = &self.committed[DURABILITY_BUFFERED]
        cdef Instance* batch = self.waiting[DURABILITY_BUFFERED]
        cdef Instance* i = batch
        if not self._journal_ready(buffered):
            return 0
        self.waiting[DURABILITY_BUFFERED] = self.waiting_last[DURABILITY_BUFFERED] = NULL
        disk_begin(&self.worker)
        while i != NULL:
            if i.stage == STAGE_COMPLETE:
                part_flushed(&self.worker, i, 0)
            i = i.next
        commit_batch(&self.worker, buffered, NULL, batch)
        disk_end(&self.worker)
        return self._finish(batch)

    def release(self):
        """Go on with what was done off the loop. See reception.pyi."""
        cdef uint64_t count = 0
        read(self.done_fd, &count, 8)
        self._finish(committer_done(&self.committer))

    cdef int finish_refused(self, Instance* i) except -1:
        # A refused instance that is in nobody's batch: its part goes, its response may leave.
        instance_drop_part(&self.worker, i)
        i.stage = STAGE_SETTLED
        i.next = NULL
        return self._finish(i)

    cdef int _finish(self, Instance* batch) except -1:
        # All are taken from the batch before the first is answered: that gives instances back. An
        # exception in one association leaves nobody else unanswered.
        cdef Instance* i = batch
        cdef Instance* after
        cdef Instance* duplicates = NULL
        cdef Instance* replacing = NULL
        cdef list outboxes = []
        cdef PyObject* last = NULL
        while i != NULL:
            after = i.next
            i.next = NULL
            if i.in_flight:
                self._count_in_flight(i, 0)
            if i.stage == STAGE_DUPLICATE:
                i.next = duplicates
                duplicates = i
            elif i.lock_fd >= 0:
                i.next = replacing
                replacing = i
            else:
                if i.outbox != NULL and i.outbox != last:
                    last = i.outbox
                    outboxes.append(<object>last)
                self._settle(i)
            i = after
        for outbox in outboxes:
            self._answer(outbox)
        duplicates = _reversed(duplicates)
        while duplicates != NULL:
            after = duplicates.next
            duplicates.next = NULL
            self._compare(duplicates)
            duplicates = after
        replacing = _reversed(replacing)
        while replacing != NULL:
            after = replacing.next
            replacing.next = NULL
            self._replaced(replacing)
            replacing = after
        self.let_others_go()
        return self.commit()

    cdef int _settle(self, Instance* i) except -1:
        # Only here its response may leave: until now the committer's thread walked through it.
        cdef Instance* younger = i.younger
        cdef Outbox outbox
        i.stage = STAGE_ANSWERABLE
        i.younger = NULL
        self.uncommitted_of[i.treatment.durable] -= 1
        if i.outbox != NULL:
            outbox = <Outbox>i.outbox
            outbox.uncommitted -= 1
            outbox.helped -= i.helped
        if i.locked and self.on_unlocked is not None:
            self._tell_unlocked(i.path_hash)
        if i.error_no:
            self.tell_error(i, &i.path[0] if i.path[0] else &i.part[0])
        if i.outbox == NULL:
            pool_give_back(&self.pool, i)
        if younger != NULL:
            self.complete(younger)
        return 0

    cdef int _tell_unlocked(self, uint32_t path_hash) except -1:
        try:
            self.on_unlocked(path_hash)
        except Exception as error:
            _tell(NULL, error)
        return 0

    cdef int _compare(self, Instance* i) except -1:
        # Somebody is to settle an instance whose name is taken.
        cdef Duplicate duplicate = Duplicate.__new__(Duplicate)
        duplicate.reception = self
        duplicate.instance = i
        self._count_helped(i)
        try:
            self.on_duplicate(duplicate)
        except Exception as error:
            _tell(NULL, error)
            if duplicate.instance != NULL:
                duplicate.refuse(OUT_OF_RESOURCES, None, EIO)
        return 0

    cdef int _replaced(self, Instance* i) except -1:
        # Somebody is to let go of what it took the place of, or to put that back.
        cdef Replacement replacement = Replacement.__new__(Replacement)
        replacement.reception = self
        replacement.instance = i
        try:
            if self.on_replaced is None:
                replacement.settled()
            else:
                self.on_replaced(replacement)
        except Exception as error:
            _tell(NULL, error)
            if replacement.instance != NULL:
                replacement.settled(EIO)
        return 0

    cdef int _answer(self, Outbox outbox) except -1:
        try:
            outbox.answer()
        except Exception as error:
            _tell(outbox.association, error)
        return 0

    cdef int tell_error(self, Instance* i, const char* name) except -1:
        # A file call that failed, and cost an instance.
        try:
            self.on_error(
                (<const char*>i.error_step).decode(), i.error_no,
                (name if i.error_place == NULL else i.error_place).decode(),
            )
        except Exception as error:
            _tell(NULL, error)
        return 0

    # -- who pauses

    cdef void count(self, Instance* i, Outbox outbox) noexcept:
        # An instance is complete: whatever it waits for, it counts until it can be answered.
        self.uncommitted_of[i.treatment.durable] += 1
        outbox.uncommitted += 1
        if i.treatment.compress_level:
            self._count_helped(i)

    cdef void _count_helped(self, Instance* i) noexcept:
        if not i.helped and i.outbox != NULL:
            i.helped = True
            (<Outbox>i.outbox).helped += 1

    cdef bint _too_many(self, Outbox outbox, int share) noexcept:
        # Whether an association has more on its way than `share`, where it matters. Buffered
        # instances never wait for the flushes of stable ones, nor do their number and their bytes.
        cdef int uncommitted = self.uncommitted_of[outbox.durable]
        return (
            outbox.helped >= share
            or uncommitted >= CROWDED and outbox.uncommitted >= share
            or self._room(outbox.durable) <= 0
            or self._is_heavy(outbox.durable)
            or self._is_behind()
        )

    cdef int _room(self, int durability) noexcept:
        # Instances that may still be uncommitted, without those that were promised.
        return (
            UNCOMMITTED_MOST - self.uncommitted_of[durability] - SHARE * self.let_go_of[durability]
        )

    cdef bint _is_heavy(self, int durability) noexcept:
        # Whether the commit has as many bytes as it may. One instance may have more than that.
        return 0 < self.in_flight_most <= self.in_flight_of[durability]

    cdef bint _is_behind(self) noexcept:
        # Whether as many parts as may be wait to be removed, or locks to be closed; if so `release`
        # is due when half of them are gone.
        return _is_full(&self.worker.removing) or _is_full(&self.worker.unlocking)

    cdef int hold_back_store(self, Outbox outbox) except -1:
        # An instance is about to come in. If too many are uncommitted, its association waits until
        # the commit has settled some. The instance has no part yet, so open files are bounded, too.
        if self._too_many(outbox, SHARE):
            self._hold(outbox)
        return 0

    cdef int hold_back(self, Outbox outbox) except -1:
        # One more response is owed, whatever to.
        if outbox.owed >= OWED_MOST:
            self._hold(outbox)
        return 0

    cdef int _hold(self, Outbox outbox) except -1:
        (<dict>self.held[<int>outbox.durable]).setdefault(outbox, monotonic_ns())
        return outbox.pace.set_hold(HOLD_COMMIT, True)

    cdef int _no_longer_held(self, dict held, Outbox outbox) except -1:
        since = held.pop(outbox, None)
        if since is not None:
            self._count_throttled(THROTTLE_COMMIT, since)
        return 0

    cdef int let_others_go(self) except -1:
        # In the order in which they were held, and no more of those that have something to take in
        # than there are shares left. Each of these calls this again when it has had its turn, and
        # its share is nobody else's until then. Whoever cannot have a turn, for its peer does not
        # read, gets none, and stays held; it has one when the peer reads again.
        cdef int durability
        for durability in range(DURABILITIES):
            if not self._is_heavy(durability):
                self._let_go(self.held[durability], self._room(durability))
        return 0

    cdef int _let_go(self, dict held, int room) except -1:
        # room: instances that may still be uncommitted, of the durability of those held.
        cdef Outbox outbox
        cdef list due
        if room <= 0 or not held:
            return 0
        due = []
        for outbox in held:
            if room <= 0:
                break
            if (
                outbox.pace.holds & HOLD_SENDING or outbox.owed > OWED_MOST // 2
                or self._too_many(outbox, SHARE // 2 + 1)
            ):
                continue
            due.append(outbox)
            if outbox.pace.holds & HOLD_REST:
                room -= SHARE
        for outbox in due:
            self._no_longer_held(held, outbox)
            self._read_on(outbox.pace, HOLD_COMMIT)
            if (
                outbox.pace.holds & HOLD_REST and outbox.pace.holds & HOLD_TURN
                and not outbox.let_go
            ):
                outbox.let_go = True
                self.let_go_of[<int>outbox.durable] += 1
        return 0

    cdef int has_turn(self, Outbox outbox) except -1:
        # What it takes in counts by itself from now on. Where its peer has stopped reading since it
        # was let go, it takes in nothing, and waits for room again.
        if self._take_back(outbox) and outbox.pace.holds & HOLD_SENDING:
            self._hold(outbox)
        return 0

    cdef bint _take_back(self, Outbox outbox) noexcept:
        # Room that is kept for its turn; whether there was any.
        if not outbox.let_go:
            return False
        outbox.let_go = False
        self.let_go_of[<int>outbox.durable] -= 1
        return True

    cdef int _read_on(self, Pace pace, int bit) except -1:
        try:
            pace.set_hold(bit, False)
        except Exception as error:
            _tell(pace.association, error)
        return 0

    cdef int watch_short(self, Outbox outbox) except -1:
        # From now on the kernel keeps what is shorter than a message with a data set.
        if not self.look_is_due:
            self.on_short()
            self.look_is_due = True
        self.watched[outbox] = None
        return 0

    def let_short_in(self):
        """Let in short messages that the kernel keeps. See reception.pyi."""
        cdef Outbox outbox
        for outbox in list(self.watched):
            if not outbox.pace.let_short_in(
                outbox.owed > 0, outbox.tally.stored + outbox.tally.kept
            ):
                del self.watched[outbox]
        self.look_is_due = len(self.watched) > 0
        return self.look_is_due

    cdef int ration(self, Pace pace, Py_ssize_t nbytes) except -1:
        # So many bytes more were read. Where space is short, that may be all for now.
        cdef uint64_t until
        if word_get(self.worker.store_state) != STORE_SLOW:
            return 0
        until = reserve_reading(
            &self.shared.block.at.store, <uint64_t>nbytes, self.worker.read_ns
        )
        if until > self.worker.read_ns:
            # Behind those that wait already.
            before = self.slowed.pop(pace, None)
            self.slowed[pace] = until, self.worker.read_ns if before is None else before[1]
            pace.set_hold(HOLD_SLOW, True)
        return 0

    cdef int _no_longer_slowed(self, Pace pace) except -1:
        slowed = self.slowed.pop(pace, None)
        if slowed is not None:
            self._count_throttled(THROTTLE_SPACE, slowed[1])
        return 0

    cdef void _count_throttled(self, int why, uint64_t since_ns) noexcept:
        # An association is read from again, or gone.
        word_count(&self.worker.rows.throttled[why], (monotonic_ns() - since_ns) // 1000)

    cdef void leave(self, Outbox outbox) noexcept:
        # Of a peer that is gone.
        self._take_back(outbox)
        self._no_longer_held(self.held[<int>outbox.durable], outbox)
        self._no_longer_slowed(outbox.pace)
        self.watched.pop(outbox, None)

    @property
    def uncommitted(self):
        """Instances that are complete and cannot be answered yet, whatever they wait for."""
        return self.uncommitted_of[DURABILITY_BUFFERED] + self.uncommitted_of[DURABILITY_STABLE]

    @property
    def bytes_in_flight(self):
        """Bytes of the instances that the commit has. See reception.pyi."""
        return self.in_flight_of[DURABILITY_BUFFERED] + self.in_flight_of[DURABILITY_STABLE]

    @property
    def max_bytes_in_flight(self):
        """From how many bytes in flight on reading pauses. See reception.pyi."""
        return self.in_flight_most

    @max_bytes_in_flight.setter
    def max_bytes_in_flight(self, uint64_t most):
        self.in_flight_most = most
        self.let_others_go()

    @property
    def removals(self):
        """Parts and locks that wait to be closed or removed, off the loop."""
        return remover_waiting(&self.worker.removing) + remover_waiting(&self.worker.unlocking)

    def close(self):
        """Use the store no more. See reception.pyi."""
        self.closed = True
        self.worker.store_fd = self.worker.incoming_fd = -1
        self.committed[DURABILITY_STABLE].journal.fd = -1
        self.committed[DURABILITY_BUFFERED].journal.fd = -1
        self.new_journal = _no_journal

    def journal_opened(self):
        """See reception.pyi."""
        self.commit()

    def leave_journal(self, int fd):
        """See reception.pyi."""
        cdef Committed* buffered = &self.committed[DURABILITY_BUFFERED]
        if buffered.journal.fd == fd:
            buffered.journal.fd = -1

    def refill(self, double now):
        """Let reading go on as far as the space allows. See reception.pyi."""
        cdef Pace pace
        cdef bint slow = word_get(self.worker.store_state) == STORE_SLOW
        directories_refresh(&self.committed[DURABILITY_BUFFERED].directories, monotonic_ns())
        for pace in list(self.slowed):
            if slow and <double><uint64_t>self.slowed[pace][0] > now * 1e9:
                break
            self._no_longer_slowed(pace)
            self._read_on(pace, HOLD_SLOW)
        return slow

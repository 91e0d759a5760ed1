# What the associations of one worker share: buffer, part folder, commit.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastscp_ext.commit.commit cimport Committed
from fastscp_ext.commit.committer cimport Committer
from fastscp_ext.commit.redo cimport Redo
from fastscp_ext.receive.company cimport Company
from fastscp_ext.receive.instance cimport Instance, Worker
from fastscp_ext.receive.outbox cimport Outbox
from fastscp_ext.receive.pace cimport Pace
from fastscp_ext.receive.pool cimport Pool
from fastscp_ext.receive.unfinished cimport Unfinished
from fastscp_ext.shared.block cimport DURABILITIES
from fastscp_ext.shared.shared cimport Shared


cdef enum:
    OWED_MOST = 64           # responses owed to one association before it pauses
    # Instances of one durability complete and not settled before whoever stores such ones pauses.
    UNCOMMITTED_MOST = 256
    CROWDED = 128            # of them; from here on no association has more than its share
    SHARE = 8                # instances; also with the helper threads, however many others have
    RESTS_MOST = 33554432    # bytes of rests before all reads are short ones


# A response that is none, owed to keep those behind it back.
cdef class HeldBack:
    cdef Reception reception
    cdef Instance* instance


cdef class Reception:
    cdef Worker worker
    cdef Committed committed[DURABILITIES]
    cdef Shared shared
    cdef uint8_t* buffer
    cdef Py_ssize_t buffer_size
    cdef Pool pool
    cdef Company company
    cdef Instance* waiting[DURABILITIES]         # for `commit`
    cdef Instance* waiting_last[DURABILITIES]
    cdef int uncommitted_of[DURABILITIES]
    cdef int let_go_of[DURABILITIES]             # associations whose turn is still to come
    cdef uint64_t in_flight_of[DURABILITIES]     # bytes of instances that the commit has
    cdef uint64_t in_flight_most                 # of one durability; 0: any
    cdef readonly Py_ssize_t rests   # bytes that associations keep of their last reads
    cdef readonly Unfinished unfinished
    cdef Committer committer  # of stable instances
    cdef Redo redo            # of the small ones among them, where there is a log
    cdef bint begun           # all above is there to be ended
    cdef bint closed          # by `close`
    cdef readonly int done_fd
    cdef bytes implementation
    cdef bytes version
    cdef object new_journal
    cdef object on_duplicate
    cdef object on_error
    cdef object on_complete
    cdef object on_unlocked
    cdef object on_refused
    cdef object on_replaced
    cdef object on_short
    cdef object new_log_journal      # where the lines of what takes the redo log go
    cdef object on_log_failed
    # By durability: dicts of outboxes that pause for the commit, in order, and since when (ns).
    cdef tuple held
    # Paces of those who read enough while space is short: until when, and since when (ns).
    cdef dict slowed
    # Outboxes of those from whom the kernel may keep a short message.
    cdef dict watched
    cdef bint look_is_due        # `let_short_in` is to be called

    cdef void enqueue(self, Instance* i) noexcept
    cdef void _count_in_flight(self, Instance* i, uint64_t nbytes) noexcept
    cdef int complete(self, Instance* i) except -1
    cdef int commit(self) except -1
    cdef int _commit_stable(self) except -1
    cdef int _commit_buffered(self) except -1
    cdef bint _journal_ready(self, Committed* c) except -1
    cdef bint _take_journal(self, Committed* c, object opened) except -1
    cdef int _open_log_journal(self) except -1
    cdef bint _is_behind(self) noexcept
    cdef int finish_refused(self, Instance* i) except -1
    cdef int _finish(self, Instance* batch) except -1
    cdef int _settle(self, Instance* i) except -1
    cdef int _tell_unlocked(self, uint32_t path_hash) except -1
    cdef int _compare(self, Instance* i) except -1
    cdef int _replaced(self, Instance* i) except -1
    cdef int _answer(self, Outbox outbox) except -1
    cdef int tell_error(self, Instance* i, const char* name) except -1
    cdef void count(self, Instance* i, Outbox outbox) noexcept
    cdef void _count_helped(self, Instance* i) noexcept
    cdef int _room(self, int durability) noexcept
    cdef bint _is_heavy(self, int durability) noexcept
    cdef bint _too_many(self, Outbox outbox, int share) noexcept
    cdef int hold_back(self, Outbox outbox) except -1
    cdef int hold_back_store(self, Outbox outbox) except -1
    cdef int _hold(self, Outbox outbox) except -1
    cdef int let_others_go(self) except -1
    cdef int _let_go(self, dict held, int room) except -1
    cdef int _no_longer_held(self, dict held, Outbox outbox) except -1
    cdef int _no_longer_slowed(self, Pace pace) except -1
    cdef void _count_throttled(self, int why, uint64_t since_ns) noexcept
    cdef int _read_on(self, Pace pace, int bit) except -1
    cdef int watch_short(self, Outbox outbox) except -1
    cdef int ration(self, Pace pace, Py_ssize_t nbytes) except -1
    cdef int has_turn(self, Outbox outbox) except -1
    cdef bint _take_back(self, Outbox outbox) noexcept
    cdef void leave(self, Outbox outbox) noexcept

# One instance on its way from the wire to its final name.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from posix.uio cimport iovec

from fastscp_ext.wire.cursor cimport Cursor
from fastscp_ext.commit.flush_pool cimport flush_job
from fastscp_ext.commit.remover cimport remover
from fastscp_ext.dataset.part10 cimport META_ROOM, Embedded
from fastscp_ext.dataset.tap cimport TapState
from fastscp_ext.receive.contexts cimport Encoding
from fastscp_ext.receive.rules cimport Treatment
from fastscp_ext.shared.block cimport STAMPS, Live, Unflushed, WorkerRows


cdef enum:
    RAW_UID_ROOM = 128       # bytes of a UID of the command kept to be echoed in the response
    PATH_ROOM = 2048
    PART_ROOM = 16
    COMMENT_ROOM = 65        # Error Comment: 64 characters and NUL
    FIRST_ROOM = 144
    IOV_ROOM = 512

cdef enum Stage:
    STAGE_RECEIVING = 0
    STAGE_COMPLETE = 1       # every byte is written to the part; waits for the commit
    STAGE_FLUSHED = 2
    STAGE_NAMED = 3          # has its final name; directory and journal are due
    STAGE_DUPLICATE = 4      # the final name exists: somebody must compare
    STAGE_SETTLED = 5        # `status` is final
    STAGE_COMPRESSING = 6    # complete, on its way to a compressed part
    STAGE_ANSWERABLE = 7     # settled and no longer the committer's: the response may leave

cdef enum HeaderStage:
    HEADER_UNKNOWN = 0       # too few bytes yet to tell whether a Part 10 header is embedded
    HEADER_PASSING = 1       # one is, and passes
    HEADER_PAST = 2          # data set bytes

cdef enum DuplicateKind:
    DUPLICATE_NO = 0
    DUPLICATE_IDENTICAL = 1  # the bytes were there already: no second file
    DUPLICATE_VERSION = 2    # kept beside the other one
    DUPLICATE_REPLACED = 3   # took the other one's place
    DUPLICATE_KEPT = 4       # the other one stays, this one is dropped

# What the instances of one worker share. Descriptors are borrowed; -1: none.
ctypedef struct Worker:
    int store_fd
    int incoming_fd
    bint use_link            # name by linkat and unlinkat where renameat2 has no NOREPLACE
    int nameless             # how a part without a name gets the final one; 0: all have names
    uint64_t names_first     # 1: one was refused its name, and all have names from now on
    uint32_t parts           # part files named so far
    Live* live               # of this worker, in the shared block
    WorkerRows* rows         # likewise
    uint64_t* sequence
    uint64_t* store_state
    uint64_t* mixed          # whether a name is taken by its form with or without .zst, too
    Unflushed* unflushed     # likewise
    uint64_t read_ns         # when the last read from a connection returned, CLOCK_MONOTONIC
    char name[24]
    remover removing         # closes and removes parts that are dropped
    remover unlocking        # closes the locks of paths, which must not wait for those
    int iov_used
    iovec iov[IOV_ROOM]

# `next` belongs to the list of the commit, `next_owed` to the association's queue of responses.
# Python references are owned and only touched with the GIL.
ctypedef struct Instance:
    Instance* next
    Instance* next_owed
    Instance* younger        # the association's next one with this path, which waits for it
    PyObject* outbox         # its response is due there; NULL once the peer is gone
    PyObject* journal_members    # bytes: those that all lines of the association have
    PyObject* rules          # its association's Rules when it began
    const Treatment* treatment   # theirs
    PyObject* hasher
    PyObject* inflater       # an Inflation
    PyObject* reply          # bytes: a response made elsewhere, instead of a C-STORE-RSP
    flush_job flush          # this and the next two while it is the committer's
    uint64_t ticket
    uint64_t in_flight       # bytes it counts with while the commit has it
    uint64_t stamps[STAMPS]
    int ae_row               # of its calling AE title
    int gathering
    Cursor journal_text      # the bytes of `journal_members`
    int64_t received_s       # arrival of the command, seconds since 1970
    int fd
    bint has_part            # its part has a name; one without a name goes when `fd` is closed
    bint discarding          # the rest of its data set is read and dropped
    bint peer_gone
    bint truncated
    bint sniffed
    bint odd_uid             # letters or the like in a UID
    bint helped              # counted among those that helper threads have or will have
    bint no_reply
    bint owns_id             # its Message ID is marked as outstanding
    bint shrunk              # ends at `path`, which is empty
    bint locked              # had the lock of its path, as a duplicate
    bint has_move
    bint has_move_id
    uint8_t stage
    uint8_t header_stage
    uint8_t duplicate
    uint8_t context_id
    uint8_t offending        # bit 0: Study, bit 1: Series Instance UID
    bint neither             # it is refused for both, and no more is known of either
    uint8_t blamed           # 1 + the key of the UID for which it was refused; 0: for none
    uint8_t blamed_size      # of `blamed_uid`
    bint unread              # they were not found, for the tap stopped at `unread_tag`
    uint32_t unread_tag
    bint deflated
    bint inflating           # for the tap, which has not all it wants
    bint inflated_all        # to the end of the stream
    uint16_t message_id
    uint16_t status
    uint16_t move_id
    int error_no             # errno behind `status`, or 0
    int lock_fd              # held until the journal line is written, or -1
    const char* error_step   # what was tried when error_no came
    const char* error_place  # with what below the store, or NULL: with the instance's own file
    uint64_t sequence        # number of its journal line
    uint64_t data_bytes      # of data set, as stored
    uint64_t drained
    uint32_t stripped        # bytes of embedded header taken off
    uint64_t inflated        # bytes that were inflated for the tap
    uint32_t crc
    Cursor implementation    # for the File Meta Information; borrowed from the receiver
    Cursor version
    Cursor calling_ae
    Cursor called_ae
    uint32_t meta_size
    bint meta_due            # built once the tap has seen the first of the data set
    bint meta_stale          # in the part stands another one, of the same length
    Encoding encoding        # of `transfer_syntax`
    Encoding other           # of `other_syntax`
    uint16_t other_size
    uint8_t first_have
    uint32_t path_size
    uint32_t path_hash       # of the path it was judged to have
    uint16_t sop_class_size
    uint16_t sop_instance_size
    uint16_t move_ae_size
    uint16_t transfer_syntax_size
    uint8_t sop_class_raw[RAW_UID_ROOM]  # Affected SOP Class UID as sent, padding included
    uint8_t sop_instance_raw[RAW_UID_ROOM]  # Affected SOP Instance UID likewise
    uint8_t move_ae[16]
    uint8_t transfer_syntax[64]  # of the data set
    uint8_t other_syntax[64]     # which may still turn out to be it, and stands in `meta`, too
    char part[PART_ROOM]
    char comment[COMMENT_ROOM]
    uint8_t blamed_uid[RAW_UID_ROOM]    # as much as fits of it, for the log
    char path[PATH_ROOM]     # below the store, with its NUL
    char digest[72]          # "crc32c:..." or "sha256:...", or empty
    uint8_t first[FIRST_ROOM]    # bytes of the data set, until there are enough to know its form
    uint8_t meta[META_ROOM]
    Embedded embedded
    TapState tap


cdef void disk_begin(Worker* worker) noexcept nogil
cdef void disk_end(Worker* worker) noexcept nogil
cdef Cursor sop_class_uid(Instance* i) noexcept nogil
cdef Cursor sop_instance_uid(Instance* i) noexcept nogil
# As it was found in the data set, without its padding.
cdef Cursor tapped_uid(const Instance* i, int key) noexcept nogil
cdef void instance_begin(Instance* i, const Encoding* encoding) noexcept nogil
# Note the UID for which a refusal is to follow; the first refusal stands, and so does its UID.
cdef void instance_blame(Instance* i, int key, Cursor uid) noexcept nogil
cdef void instance_refuse(Instance* i, uint16_t status, const char* comment) noexcept nogil
cdef void instance_fail(Instance* i, int error_no, const char* step) noexcept nogil
cdef int instance_flush(Worker* worker, Instance* i, bint is_whole) noexcept nogil
# A part without a name gets none: where that is no want of the disk's, later ones have names first.
cdef void instance_name_refused(Worker* worker, int error_no) noexcept nogil
# Have a part file that others can open: whatever has no name gets one, and its descriptor goes.
cdef int instance_show_part(Worker* worker, Instance* i) noexcept nogil
cdef void instance_drop_part(Worker* worker, Instance* i) noexcept nogil
cdef void instance_unlock(Worker* worker, Instance* i, bint here) noexcept nogil
cdef uint32_t instance_append(
    Worker* worker, Instance* i, const uint8_t* data, uint32_t n) noexcept
cdef void instance_judge(Worker* worker, Instance* i) noexcept
cdef void hold(PyObject** place, object value) noexcept
cdef void drop(PyObject** place) noexcept

"""The responses owed to one peer, and what is sent to it. See outbox.pyi.

Sources: PS3.7 9.1.1 and 9.3.1 (C-STORE), PS3.8 9.3.5 (P-DATA-TF).
"""

from functools import partial

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strlen

from fastscp_ext.dataset.tap cimport (
    KEY_SERIES_UID, KEY_SOP_CLASS_UID, KEY_SOP_INSTANCE_UID, KEY_STUDY_UID,
)
from fastscp_ext.receive.instance cimport (
    DUPLICATE_IDENTICAL, DUPLICATE_KEPT, DUPLICATE_REPLACED, DUPLICATE_VERSION, STAGE_ANSWERABLE,
    Instance, drop, sop_instance_uid,
)
from fastscp_ext.receive.pace cimport Pace
from fastscp_ext.receive.pool cimport pool_give_back, pool_shrink
from fastscp_ext.shared.atomic cimport word_count, word_set
from fastscp_ext.shared.block cimport STAMP_ANSWERED, Tally
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.tallies cimport Tallies, tally_read
from fastscp_ext.status cimport ELEMENTS_DISCARDED, SUCCESS
from fastscp_ext.wire.cursor cimport Cursor, cursor_over
from fastscp_ext.wire.framing cimport PDU_P_DATA_TF
from fastscp_ext.wire.response cimport (
    RESPONSE_COMMAND_ROOM, RESPONSE_ROOM, StoreResponse, pack_command, store_response,
)

__all__ = ["Outbox"]

cdef extern from "sys/socket.h" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int fd, const void* buf, size_t len, int flags)

_UIDS = {
    KEY_STUDY_UID: "Study Instance UID", KEY_SERIES_UID: "Series Instance UID",
    KEY_SOP_INSTANCE_UID: "SOP Instance UID", KEY_SOP_CLASS_UID: "SOP Class UID",
}
# By the bits of `offending`.
_NOT_FOUND = {
    1: "Study Instance UID", 2: "Series Instance UID", 3: "Study and Series Instance UID",
}

cdef enum:
    OUT_ROOM = 65536         # bytes of responses collected for one write


cdef inline void _fill(StoreResponse* response, Instance* i) noexcept nogil:
    response.message_id = i.message_id
    response.status = i.status
    response.offending = i.offending
    response.unread = i.unread
    response.unread_tag = i.unread_tag
    response.sop_class_uid = cursor_over(i.sop_class_raw, i.sop_class_size)
    response.sop_instance_uid = cursor_over(i.sop_instance_raw, i.sop_instance_size)
    response.comment = cursor_over(<uint8_t*>i.comment, <uint32_t>strlen(i.comment))


cdef void _count_stored(Tally* tally, const Instance* i) noexcept nogil:
    if i.duplicate == DUPLICATE_KEPT:
        # The other one stays, and nothing of this one.
        word_count(&tally.kept, 1)
        return
    word_count(&tally.stored, 1)
    word_count(&tally.bytes, i.data_bytes)
    # What follows is rare.
    if i.truncated:
        word_count(&tally.truncated, 1)
    if i.sniffed:
        word_count(&tally.mislabelled, 1)
    if i.stripped:
        word_count(&tally.headers, 1)
    if i.odd_uid:
        word_count(&tally.odd_uids, 1)
    if i.duplicate == DUPLICATE_IDENTICAL:
        word_count(&tally.identical, 1)
    elif i.duplicate == DUPLICATE_VERSION:
        word_count(&tally.versions, 1)
    elif i.duplicate == DUPLICATE_REPLACED:
        word_count(&tally.replaced, 1)


cdef object _blamed(const Instance* i):
    # The UID for which it was refused, by its name and as it came; b"" where there is none that can
    # be used, None where neither of two is there. Or None.
    if i.blamed:
        return _UIDS[i.blamed - 1], i.blamed_uid[:i.blamed_size]
    if i.offending:
        return _NOT_FOUND[i.offending], None if i.neither else b""
    return None


@cython.final
cdef class Outbox:
    """The responses owed to one peer. See outbox.pyi."""

    def __cinit__(self, Pace pace not None):
        self.pace = pace
        self.tally = &self.own

    def __dealloc__(self):
        free(self.outstanding)

    # -- what the association has done

    cdef int count_in(self, Tallies shared, Py_ssize_t slot) except -1:
        # In a slot that is cleared, from now on; what is counted already goes along.
        cdef Tally* tally = shared.of(slot)
        tally[0] = self.own
        self.tally = tally
        self.shared = shared
        self.slot = slot
        return 0

    @property
    def done(self):
        """What the association has done. See outbox.pyi."""
        return tally_read(self.tally)

    def end(self, uint64_t how):
        """The association has ended. See outbox.pyi."""
        word_set(&self.tally.ended, how)
        return None if self.shared is None else partial(self.shared.tell, self.slot)

    @property
    def stored(self):
        """Instances answered with 0000."""
        return self.tally.stored

    @property
    def refused(self):
        """Instances answered with anything else but B006."""
        return self.tally.refused

    # -- Message IDs in use

    cdef int keep_message_ids(self) except -1:
        if self.outstanding == NULL:
            self.outstanding = <uint8_t*>calloc(8192, 1)
            if self.outstanding == NULL:
                raise MemoryError()
        return 0

    cdef bint claim_message_id(self, Instance* i) noexcept:
        # False where the Message ID is another one's, not answered yet.
        cdef uint8_t bit = <uint8_t>(1 << (i.message_id & 7))
        if self.outstanding == NULL:
            return True
        if self.outstanding[i.message_id >> 3] & bit:
            return False
        self.outstanding[i.message_id >> 3] |= bit
        i.owns_id = True
        return True

    # -- what is owed

    cdef bint behind_elder(self, Instance* i) noexcept:
        # Of two with one path the first is committed first: whoever is named first wins. The
        # committer writes into paths, so hashes are compared; a false match only waits.
        cdef Instance* elder = self.first
        cdef Instance* last = NULL
        while elder != NULL:
            if elder.stage != STAGE_ANSWERABLE and elder.path_hash == i.path_hash:
                last = elder
            elder = elder.next_owed
        if last != NULL:
            last.younger = i
        return last != NULL

    cdef int owe(self, Instance* i) except -1:
        # Responses leave in request order, so a settled one may have to wait for its elders. `i` is
        # not the caller's any more.
        i.peer_gone = self.silent
        if self.first != NULL and i.stage == STAGE_ANSWERABLE:
            i = pool_shrink(i)
        i.next_owed = NULL
        if self.last == NULL:
            self.first = i
        else:
            self.last.next_owed = i
        self.last = i
        self.owed += 1
        if self.first.stage == STAGE_ANSWERABLE:
            self.answer()
        return 0

    cdef int answer(self) except -1:
        # Send the responses that nothing keeps back any more.
        cdef uint8_t out[OUT_ROOM]
        cdef Instance* i = NULL
        cdef uint32_t used = 0
        cdef int sent = 0
        # For all that leave together.
        cdef uint64_t now_ns = monotonic_ns()
        try:
            while self.first != NULL and self.first.stage == STAGE_ANSWERABLE:
                i = self._next()
                sent += 1
                if not i.no_reply:
                    if OUT_ROOM - used < RESPONSE_ROOM:
                        self._write(out, used)
                        used = 0
                    used += self._respond(i, out + used, OUT_ROOM - used)
                    if not i.peer_gone:
                        i.stamps[<int>STAMP_ANSWERED] = now_ns
                pool_give_back(self.pool, i)
                i = NULL
        finally:
            # Whatever a method of the receiver raises, what is in hand goes where it belongs.
            if i != NULL:
                pool_give_back(self.pool, i)
            if used:
                self._write(out, used)
        if sent and self.owed == 0:
            self.pace.restart()
            if self.tell_responses_sent and self.association != NULL:
                (<object>self.association).responses_sent()
        return 0

    cdef Instance* _next(self) noexcept:
        # The first of what is owed, which is owed no longer.
        cdef Instance* i = self.first
        self.first = i.next_owed
        if self.first == NULL:
            self.last = NULL
        self.owed -= 1
        if i.owns_id:
            self.outstanding[i.message_id >> 3] &= <uint8_t>~(1 << (i.message_id & 7))
        return i

    cdef uint32_t _respond(self, Instance* i, uint8_t* out, uint32_t room) except? 0:
        # Write the response to where it is sent from; how long it is there.
        cdef uint8_t command[RESPONSE_COMMAND_ROOM]
        cdef StoreResponse response
        cdef Cursor reply
        cdef uint32_t got = 0
        if i.reply != NULL:
            reply = cursor_over(
                <const uint8_t*>PyBytes_AS_STRING(<bytes>i.reply),
                <uint32_t>PyBytes_GET_SIZE(<bytes>i.reply),
            )
        else:
            _fill(&response, i)
            reply = cursor_over(command, store_response(&response, command))
            if i.status == SUCCESS or i.status == ELEMENTS_DISCARDED:
                _count_stored(self.tally, i)
            else:
                word_count(&self.tally.refused, 1)
            if self.verbose or i.status:
                self._tell(i)
        if not i.peer_gone:
            got = pack_command(
                out, room, i.context_id, reply.at, reply.left, self.peer_max_pdu_length
            )
        if self.trace and got and self.association != NULL:
            (<object>self.association).command_traced(True, i.context_id, reply.at[:reply.left])
            (<object>self.association).pdu_traced(True, PDU_P_DATA_TF, got - 6)
        return got

    cdef int _tell(self, Instance* i) except -1:
        cdef Cursor name = sop_instance_uid(i)
        if self.association != NULL:
            (<object>self.association).instance_answered(
                name.at[:name.left].decode("latin-1") if name.left else "", i.status,
                i.path.decode() if i.path[0] else "", i.data_bytes, i.comment.decode(),
                _blamed(i),
            )
        return 0

    cdef void silence(self) noexcept:
        # What is owed is finished, and not answered.
        cdef Instance* i = self.first
        self.silent = True
        while i != NULL:
            i.peer_gone = True
            i = i.next_owed

    cdef void abandon(self) noexcept:
        # The peer is gone: the commit owns what it has from here on.
        cdef Instance* i = self.first
        cdef Instance* after
        while i != NULL:
            after = i.next_owed
            i.next_owed = NULL
            i.peer_gone = True
            if i.stage == STAGE_ANSWERABLE:
                pool_give_back(self.pool, i)
            else:
                drop(&i.outbox)
            i = after
        self.first = self.last = NULL
        self.owed = 0
        # Its slot may be another association's soon.
        self.own = self.tally[0]
        self.tally = &self.own
        self.shared = None

    # -- sending

    def send_pdu(self, bytes pdu not None):
        """Send an encoded PDU. See outbox.pyi."""
        if self.trace and self.association != NULL:
            (<object>self.association).pdu_traced(True, pdu[0], len(pdu) - 6)
        self._write(<const uint8_t*>PyBytes_AS_STRING(pdu), PyBytes_GET_SIZE(pdu))

    cdef int _write(self, const uint8_t* data, Py_ssize_t n) except -1:
        # Straight to the socket while the transport holds nothing back, else through it: the
        # order is kept either way. Behind TLS the transport alone knows what to send.
        cdef ssize_t got = 0
        cdef object transport = self.pace.transport
        if transport is None:
            return 0
        if not self.pace.direct:
            try:
                transport.write(data[:n])
            except OSError as error:
                return self._broken(error.errno)
            return 0
        if self.backlog and transport.get_write_buffer_size() == 0:
            self.backlog = False
        if self.pace.fd >= 0 and not self.backlog:
            got = send(self.pace.fd, data, <size_t>n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if got < 0:
                if errno not in (EAGAIN, EINTR):
                    return self._broken(errno)
                got = 0
        if got < n:
            self.backlog = True
            transport.write(data[got:n])
        return 0

    cdef int _broken(self, int error_no) except -1:
        # A response is lost, and no other may follow. What was read is still taken in.
        self.silence()
        if self.association != NULL:
            (<object>self.association).send_failed(error_no)
        return 0

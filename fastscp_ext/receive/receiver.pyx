"""One association's receive path: from bytes read to instances complete and responses sent.

The event loop reads straight into the reception's buffer and calls `buffer_updated`, which frames,
taps, digests and writes without the interpreter. A subclass in Python answers what is rare:
association, echo, errors, the end. See receiver.pyi.

Sources: PS3.7 9.1.1 and 9.3.1 (C-STORE), PS3.8 9.3.5 (P-DATA-TF), PS3.4 B.2.3 (statuses).
"""

import hashlib

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport ENOSPC
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from posix.time cimport clock_gettime, clockid_t, timespec

from fastscp_ext.dataset.tap cimport KEY_SOP_CLASS_UID
from fastscp_ext.dataset.uid cimport uid_ok
from fastscp_ext.receive.company cimport company_note, company_of
from fastscp_ext.receive.contexts cimport Context, Contexts
from fastscp_ext.receive.instance cimport (
    RAW_UID_ROOM, STAGE_ANSWERABLE, STAGE_COMPLETE, STAGE_RECEIVING, Instance, Worker,
    sop_class_uid, hold,
    instance_append, instance_begin, instance_blame, instance_drop_part, instance_flush,
    instance_judge, instance_refuse, sop_instance_uid,
)
from fastscp_ext.receive.reception cimport RESTS_MOST, HeldBack, Reception
from fastscp_ext.receive.outbox cimport Outbox
from fastscp_ext.receive.pace cimport (
    DUE_ANYTHING, DUE_DATA_SET, DUE_HEADER, DUE_MESSAGE, HOLD_REST, HOLD_SENDING, HOLD_TURN,
    HOLDS_ALL, Due, Pace,
)
from fastscp_ext.receive.pool cimport pool_give_back, pool_take
from fastscp_ext.receive.rest cimport Rest, rest_append, rest_drop, rest_keep, rest_left
from fastscp_ext.receive.rules cimport DIGEST_SHA256, Rules
from fastscp_ext.shared.atomic cimport word_count, word_get, word_set
from fastscp_ext.shared.block cimport AE_ROWS, STAMP_COMMAND, STAMP_LAST_BYTE, Tally
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.storewide cimport STORE_FULL, STORE_LOST, STORE_SLOW
from fastscp_ext.shared.tables cimport refusal_text
from fastscp_ext.status cimport (
    CANNOT_UNDERSTAND, DUPLICATE_INVOCATION, INVALID_SOP_INSTANCE, OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
)
from fastscp_ext.wire.command cimport (
    CMD_HAS_COMMAND_FIELD, CMD_HAS_DATA_SET_TYPE, CMD_HAS_MESSAGE_ID,
    CMD_HAS_MOVE_ORIGINATOR_AE, CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID, CMD_HAS_AFFECTED_SOP_CLASS,
    CMD_HAS_AFFECTED_SOP_INSTANCE, SCAN_OK, CommandScan, scan_command, trimmed_ae,
)
from fastscp_ext.wire.cursor cimport Cursor, cursor_over
from fastscp_ext.wire.framing cimport (
    COMMAND_PLACE, FRAME_COMMAND, FRAME_DATA, FRAME_HEADER, FRAME_MORE, FRAME_PDU, PDU_ABORT,
    PDU_ASSOCIATE_RQ, PDU_P_DATA_TF, PDU_RELEASE_RQ, PHASE_COMMAND, PHASE_DATA, Framer,
    complaint_text,
    framer_begin, framer_drop_pdu, framer_end, framer_expect, framer_give_back, framer_next,
)

__all__ = ["Receiver"]

# To the tick, which is what dates need, and cheaper than the exact one.
cdef extern from "time.h" nogil:
    clockid_t CLOCK_REALTIME_COARSE

cdef enum:
    DRAIN_MOST = 1073741824      # bytes of a refused data set read before the peer is aborted
    NO_DATA_SET = 0x0101         # Command Data Set Type (0000,0800), PS3.7 E.1
    C_STORE_RQ = 0x0001
    SHORT_READ = 65536           # bytes read at a time while rests are to be expected
    # Of a large data set while others are active: whoever waits for its turn waits for some 0.2 ms,
    # and it keeps most of its rate.
    BESIDE_READ = 131072
    LARGE_BYTES = 1048576        # of a data set that have come: it is one of many reads

# One turn of the loop, in about what a frame costs that does not meet the interpreter: some 64
# messages, or 4096 frames. A long command set is taken apart in Python, element for element.
cdef enum:
    WORK_MOST = 4096
    MESSAGE_WORK = 60
    PYTHON_WORK = 16             # a fragment that is hashed or inflated, or a frame that is traced
    INFLATED_WORK = 128          # bytes inflated for the tap


cdef inline Cursor _bytes_cursor(bytes value):
    return cursor_over(
        <const uint8_t*>PyBytes_AS_STRING(value), <uint32_t>PyBytes_GET_SIZE(value)
    )


# Its outbox points back to it, which its end has to undo: the collector must leave it whole.
@cython.no_gc_clear
cdef class Receiver:
    """One association as the event loop's protocol object. See receiver.pyi."""

    def __cinit__(
        self, Reception reception not None, uint64_t number, *_args,
        uint32_t max_pdu_length=131072, uint32_t pdata_cap=16777216, **_options,
    ):
        framer_begin(&self.framer, pdata_cap if pdata_cap > max_pdu_length else max_pdu_length)
        self.reception = reception
        self.pace = Pace.__new__(Pace)
        self.pace.association = <PyObject*>self
        self.outbox = Outbox.__new__(Outbox, self.pace)
        self.outbox.association = <PyObject*>self
        self.outbox.pool = &reception.pool
        self.outbox.pool_of = reception
        self.number = number
        self.max_pdu_length = max_pdu_length
        self.awaiting_associate = True
        self.journal_members = self.calling_ae = self.called_ae = b""

    def __dealloc__(self):
        framer_end(&self.framer)
        if self.rest.bytes != NULL:
            self.reception.rests -= self.rest.size
            rest_drop(&self.rest)
        if self.pace is not None:
            self.pace.association = NULL
        if self.outbox is not None:
            self.outbox.association = NULL

    # -- what the event loop calls

    def get_buffer(self, Py_ssize_t sizehint):
        """The space the next read goes to, which this object exports. See receiver.pyi."""
        return self

    def __getbuffer__(self, Py_buffer* view, int flags):
        # The reception's. One read at a time uses it, and nothing else keeps a view across calls.
        PyBuffer_FillInfo(view, self, self.reception.buffer, self._room(), 0, flags)

    def __releasebuffer__(self, Py_buffer* view):
        pass

    cdef Py_ssize_t _room(self) noexcept:
        # What is left of a read is copied where its association pauses: no more than a short one,
        # except the first time. While space is short nobody waits long for another's one read.
        cdef Py_ssize_t size = self.reception.buffer_size
        if size > SHORT_READ and (
            self.wary or self.reception.rests > RESTS_MOST
            or word_get(self.reception.worker.store_state) == STORE_SLOW
        ):
            return SHORT_READ
        if size > BESIDE_READ and self._is_large() and company_of(
            &self.reception.company, self.number, self.reception.worker.read_ns
        ):
            return BESIDE_READ
        return size

    cdef bint _is_large(self) noexcept:
        # Whether the data set that comes in is one of those that take many reads: the others of the
        # worker wait for each of these, and for what it takes to write them.
        cdef Instance* i = self.current
        return i != NULL and i.data_bytes + i.drained >= LARGE_BYTES

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what was just read. Nothing of it is needed afterwards."""
        self._take_in(nbytes)
        self._before_next()

    def next_turn(self):
        """Go on, now that others had their turn. See receiver.pyi."""
        try:
            self.reception.has_turn(self.outbox)
            self.pace.set_hold(HOLD_TURN, False)
            # Where something else holds it, whoever takes that back asks for a turn anew.
            if self.rest.bytes != NULL and not self.pace.holds & HOLDS_ALL:
                self._go_on()
                self._before_next()
        finally:
            # Others may wait for its share, and for nothing else that would tell them.
            self.reception.let_others_go()

    cdef int _before_next(self) except -1:
        cdef const Tally* tally = self.outbox.tally
        # Those that are dropped for another one tell as much of the peer as those stored.
        if self.pace.before_next(
            self._due(), tally.stored + tally.kept, tally.refused,
            self.reception.on_short is not None,
        ):
            self.reception.watch_short(self.outbox)
        return 0

    cdef bint _midway(self) noexcept:
        # Whether a message or a PDU has begun and not ended.
        return (
            self.framer.phase != PHASE_COMMAND or self.framer.in_pdu
            or self.framer.header_have > 0
        )

    cdef Due _due(self) noexcept:
        cdef Framer* f = &self.framer
        if f.in_pdu or f.header_have or f.dead or self.stopped:
            return DUE_ANYTHING
        if f.phase == PHASE_COMMAND:
            return DUE_MESSAGE
        if self.current != NULL and self.current.data_bytes + self.current.drained == 0:
            return DUE_DATA_SET
        return DUE_HEADER

    cdef int _take_in(self, Py_ssize_t nbytes) except -1:
        cdef Cursor c = cursor_over(self.reception.buffer, <uint32_t>nbytes)
        cdef bint filled = nbytes == self._room()
        self.pace.arrived(<uint64_t>nbytes, self._midway())
        word_count(&self.outbox.tally.received, <uint64_t>nbytes)
        self.reception.worker.read_ns = monotonic_ns()
        word_count(&self.reception.worker.rows.received, <uint64_t>nbytes)
        if self.framer.dead or self.stopped:
            self.ignored_bytes += <uint64_t>nbytes
            return 0
        if self.rest.bytes != NULL or self.pace.holds & HOLDS_ALL:
            # It was on its way when reading was to stop, as it may be behind TLS.
            return self._keep(c)
        try:
            self._frames(&c)
            self.wary = c.left != 0
            if c.left:
                self._keep(c)
        finally:
            # What is complete is committed, whatever a method of the subclass may raise.
            self.reception.commit()
        if self._is_large():
            # Main gives newcomers to workers without one.
            word_set(
                &self.reception.worker.live.large, self.reception.worker.read_ns // 1000000
            )
        self.reception.ration(self.pace, nbytes)
        if filled and self.rest.bytes == NULL:
            # More is there, and the loop would go on reading here: the others' turn first.
            self.pace.end_turn()
        return 0

    cdef int _go_on(self) except -1:
        # With what is left of a read. It is nobody else's meanwhile: `stop` frees what waits.
        cdef Rest rest = self.rest
        cdef Cursor c = rest_left(&rest)
        cdef bint pauses = False
        self.rest.bytes = NULL
        self.reception.worker.read_ns = rest.read_ns
        try:
            try:
                self._frames(&c)
                pauses = c.left != 0
            finally:
                if pauses:
                    rest.at = rest.size - c.left
                    self.rest = rest
                else:
                    self.reception.rests -= rest.size
                    rest_drop(&rest)
            if pauses:
                self._pause()
            else:
                self.pace.set_hold(HOLD_REST, False)
        finally:
            self.reception.commit()
        return 0

    cdef int _keep(self, Cursor left) except -1:
        # Nothing is read until this was taken in.
        if not (
            rest_append(&self.rest, left) if self.rest.bytes != NULL
            else rest_keep(&self.rest, left, self.reception.worker.read_ns)
        ):
            raise MemoryError()
        self.reception.rests += left.left
        self.pace.set_hold(HOLD_REST, True)
        return self._pause()

    cdef int _pause(self) except -1:
        # The rest waits for what holds it, or for the next turn.
        if not self.pace.holds & (HOLDS_ALL | HOLD_TURN):
            self.pace.end_turn()
        return 0

    cdef int _drop_rest(self) except -1:
        # As if it had not been read.
        if self.rest.bytes != NULL:
            self.ignored_bytes += rest_left(&self.rest).left
            self.reception.rests -= self.rest.size
            rest_drop(&self.rest)
            self.pace.set_hold(HOLD_REST, False)
        return 0

    cdef int _frames(self, Cursor* c) except -1:
        # All of it, or until this association has to pause.
        cdef Framer* f = &self.framer
        cdef Worker* worker = &self.reception.worker
        cdef uint32_t work = 0
        cdef int kind
        worker.iov_used = 0
        while True:
            kind = framer_next(f, c)
            if kind == FRAME_DATA:
                work += self._data(c)
            elif kind == FRAME_MORE:
                break
            elif kind == FRAME_HEADER:
                work += PYTHON_WORK if self.outbox.trace else 1
                self._header()
            elif kind == FRAME_COMMAND:
                work += MESSAGE_WORK
                if f.command_size > COMMAND_PLACE:
                    work += f.command_size
                self._command()
            elif kind == FRAME_PDU:
                if self.outbox.trace:
                    self.pdu_traced(False, f.pdu_type, f.pdu_length)
                work += MESSAGE_WORK
                if f.pdu_size > COMMAND_PLACE:
                    work += f.pdu_size
                self.pdu_received(f.pdu_type, f.pdu[:f.pdu_size])
                framer_drop_pdu(f)
            else:
                self.framing_failed(
                    f.abort_source, f.abort_reason, complaint_text(f.complaint), f.pdu_type
                )
            if f.dead or self.stopped:
                self.ignored_bytes += c.left
                c.left = 0
                break
            if c.left and (work >= WORK_MOST or self.pace.holds & HOLDS_ALL):
                break
        if self.current != NULL:
            # The fragments collected stay where they are until here.
            instance_flush(worker, self.current, False)
        if self._unfinished_now() != self.unfinished:
            self._weigh()
            if self.stopped:
                self.ignored_bytes += c.left
                c.left = 0
        return 0

    cdef uint32_t _unfinished_now(self) noexcept:
        cdef uint32_t waits = 0
        if self.request is not None:
            waits = <uint32_t>PyBytes_GET_SIZE(self.request)
        return self.framer.pdu_room + self.framer.command_room + waits

    cdef int _weigh(self) except -1:
        # What is not whole, or waits to be decoded, takes another amount than it did.
        self.unfinished = self._unfinished_now()
        return self.reception.unfinished.weigh(self, self.unfinished)

    cdef uint32_t _data(self, Cursor* c) except? 0:
        # A fragment of a data set, or the first of it; what it costs.
        cdef Framer* f = &self.framer
        cdef Instance* i = self.current
        cdef uint32_t work = PYTHON_WORK if i.inflating or i.hasher != NULL else 1
        cdef uint64_t inflated = i.inflated
        cdef uint32_t taken
        if f.data.left:
            taken = instance_append(&self.reception.worker, i, f.data.at, f.data.left)
            if taken < f.data.left:
                framer_give_back(f, c, f.data.left - taken)
            work += <uint32_t>((i.inflated - inflated) // INFLATED_WORK)
        if f.last:
            if i.discarding:
                # Its refusal is told in Python, too.
                work += MESSAGE_WORK
            if f.data.left == 0:
                self.pace.empty_ends = True
            self._complete()
        elif i.drained > DRAIN_MOST:
            self.framing_failed(0, 0, "refused data set does not end", f.pdu_type)
        return work

    cdef int _header(self) except -1:
        cdef Framer* f = &self.framer
        if f.pdu_type == PDU_P_DATA_TF and self.established:
            if self.outbox.trace:
                self.pdu_traced(False, f.pdu_type, f.pdu_length)
            if f.pdu_length > self.max_pdu_length and not self.oversize_told:
                self.oversize_told = True
                if not self.long_pdu(f.pdu_length):
                    self.framing_failed(2, 6, "P-DATA-TF longer than announced", f.pdu_type)
            return 0
        if f.pdu_type == PDU_ABORT or f.pdu_type == PDU_RELEASE_RQ:
            return 0
        if f.pdu_type == PDU_ASSOCIATE_RQ and self.awaiting_associate:
            return 0
        if self.outbox.trace:
            self.pdu_traced(False, f.pdu_type, f.pdu_length)
        self.pdu_received(f.pdu_type, b"")
        return 0

    # -- messages

    cdef int _command(self) except -1:
        cdef Framer* f = &self.framer
        cdef CommandScan scan
        cdef bint data_follows
        cdef uint32_t needed = CMD_HAS_COMMAND_FIELD | CMD_HAS_DATA_SET_TYPE
        if scan_command(f.command, f.command_size, &scan) != SCAN_OK:
            self.framing_failed(0, 0, "command set cannot be read", f.pdu_type)
            return 0
        if scan.present & CMD_HAS_COMMAND_FIELD and scan.command_field == C_STORE_RQ:
            needed |= CMD_HAS_MESSAGE_ID
        if (scan.present & ~scan.unusable & needed) != needed:
            self.framing_failed(
                0, 0, "command set without Command Field, Message ID or Data Set Type", f.pdu_type
            )
            return 0
        if self.outbox.trace:
            self.command_traced(False, f.context_id, f.command[:f.command_size])
        data_follows = scan.data_set_type != NO_DATA_SET
        if scan.command_field != C_STORE_RQ:
            return self._other_command(data_follows)
        self._store(&scan, data_follows)
        framer_expect(f, data_follows)
        return 0

    cdef int _other_command(self, bint data_follows) except -1:
        # The subclass answers it; the data set, if one follows, is dropped first.
        cdef Framer* f = &self.framer
        cdef Instance* i
        cdef uint8_t context_id = f.context_id
        cdef object reply = self.command_received(context_id, f.command[:f.command_size])
        if f.dead or self.stopped:
            return 0
        framer_expect(f, data_follows)
        if reply is None and not data_follows:
            return 0
        i = pool_take(&self.reception.pool)
        i.context_id = context_id
        i.discarding = True
        if reply is None:
            i.no_reply = True
        else:
            hold(&i.reply, <bytes?>reply)
        if data_follows:
            self.current = i
        else:
            i.stage = STAGE_ANSWERABLE
            self._owe(i)
        return 0

    cdef int _store(self, const CommandScan* scan, bint data_follows) except -1:
        # A C-STORE-RQ whose framing, Message ID and Data Set Type are in order (PS3.7 9.3.1.1).
        cdef Instance* i = pool_take(&self.reception.pool)
        cdef Context* context = self.contexts.of(self.framer.context_id)
        word_count(&self.outbox.tally.begun, 1)
        self.current = i
        self._begin(i, scan, context)
        if not data_follows:
            instance_refuse(i, CANNOT_UNDERSTAND, b"no data set")
            return self._complete()
        self._judge(i, context)
        if not self.outbox.claim_message_id(i):
            instance_refuse(i, DUPLICATE_INVOCATION, b"Message ID is still outstanding")
        if not i.discarding:
            i.implementation = _bytes_cursor(self.reception.implementation)
            i.version = _bytes_cursor(self.reception.version)
            i.calling_ae = _bytes_cursor(self.calling_ae)
            i.called_ae = _bytes_cursor(self.called_ae)
            if i.treatment.digest == DIGEST_SHA256:
                hold(&i.hasher, hashlib.sha256())
            self.reception.hold_back_store(self.outbox)
        return 0

    cdef void _begin(self, Instance* i, const CommandScan* scan, Context* context) noexcept:
        # What the instance keeps of its association and of the command set.
        cdef Cursor uid
        cdef Cursor ae
        cdef timespec now
        hold(&i.rules, self.rules)
        i.treatment = &self.rules.treatment
        hold(&i.journal_members, self.journal_members)
        i.journal_text = _bytes_cursor(self.journal_members)
        i.context_id = self.framer.context_id
        i.message_id = scan.message_id
        i.ae_row = self.ae_row
        i.stamps[<int>STAMP_COMMAND] = self.reception.worker.read_ns
        clock_gettime(CLOCK_REALTIME_COARSE, &now)
        i.received_s = now.tv_sec
        if scan.present & CMD_HAS_AFFECTED_SOP_INSTANCE and scan.sop_instance.left <= RAW_UID_ROOM:
            i.sop_instance_size = <uint16_t>scan.sop_instance.left
            memcpy(i.sop_instance_raw, scan.sop_instance.at, scan.sop_instance.left)
        uid = self.contexts.abstract_syntax(context)
        if scan.present & CMD_HAS_AFFECTED_SOP_CLASS and scan.sop_class.left:
            uid = scan.sop_class
        # Where the command leaves it out, the context says what it is.
        if uid.left <= RAW_UID_ROOM:
            i.sop_class_size = <uint16_t>uid.left
            memcpy(i.sop_class_raw, uid.at, uid.left)
        uid = self.contexts.transfer_syntax(context)
        i.transfer_syntax_size = <uint16_t>uid.left
        memcpy(i.transfer_syntax, uid.at, uid.left)
        if scan.present & ~scan.unusable & CMD_HAS_MOVE_ORIGINATOR_AE:
            ae = trimmed_ae(scan.move_originator_ae)
            i.has_move = True
            i.move_ae_size = <uint16_t>(ae.left if ae.left < 16 else 16)
            memcpy(i.move_ae, ae.at, i.move_ae_size)
            if scan.present & ~scan.unusable & CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID:
                i.has_move_id = True
                i.move_id = scan.move_originator_message_id
        instance_begin(i, &context.encoding)

    cdef int _judge(self, Instance* i, Context* context) except -1:
        # Refuse what the command set alone, or the state of the store, rules out.
        cdef Cursor sop_class = sop_class_uid(i)
        cdef Cursor abstract = self.contexts.abstract_syntax(context)
        cdef uint64_t state = word_get(self.reception.worker.store_state)
        cdef int status
        if state == STORE_FULL:
            instance_refuse(i, OUT_OF_RESOURCES, refusal_text(ENOSPC))
        elif state == STORE_LOST:
            instance_refuse(i, OUT_OF_RESOURCES, b"store is not there")
        elif not uid_ok(sop_instance_uid(i)):
            instance_refuse(i, INVALID_SOP_INSTANCE, b"SOP Instance UID is not usable")
        elif not uid_ok(sop_class):
            instance_blame(i, KEY_SOP_CLASS_UID, sop_class)
            instance_refuse(i, SOP_CLASS_NOT_SUPPORTED, b"SOP Class UID is not usable")
        elif not context.storage or sop_class.left != abstract.left or memcmp(
            sop_class.at, abstract.at, sop_class.left
        ) != 0:
            status = self.class_judged(i.context_id, sop_class.at[:sop_class.left])
            if status:
                instance_blame(i, KEY_SOP_CLASS_UID, sop_class)
                instance_refuse(i, <uint16_t>status, b"SOP class is not accepted here")
        return 0

    cdef int _complete(self) except -1:
        # The last fragment came, or none was due.
        cdef Instance* i = self.current
        self.current = NULL
        self.pace.last_bytes = i.data_bytes
        i.stamps[<int>STAMP_LAST_BYTE] = self.reception.worker.read_ns
        if i.reply != NULL or i.no_reply:
            i.stage = STAGE_ANSWERABLE
            return self._owe(i)
        instance_judge(&self.reception.worker, i)
        if self.is_asking and self._is_dropped(i):
            return 0
        if i.stage == STAGE_COMPLETE:
            hold(&i.outbox, self.outbox)
            self.reception.count(i, self.outbox)
            if not self.outbox.behind_elder(i):
                self.reception.complete(i)
        else:
            i.stage = STAGE_ANSWERABLE
            if i.error_no:
                self.reception.tell_error(i, i.part)
        return self._owe(i)

    cdef bint _is_dropped(self, Instance* i) except -1:
        # What the subclass makes of an instance that is whole; whether nobody is answered.
        cdef Cursor sop_class = sop_class_uid(i)
        cdef int fate = self.instance_received(sop_class.at[:sop_class.left])
        if fate == 0:
            return False
        if fate > 0:
            instance_refuse(i, <uint16_t>fate, b"refused on purpose")
        instance_drop_part(&self.reception.worker, i)
        i.stage = STAGE_RECEIVING
        if fate > 0:
            return False
        word_count(&self.outbox.tally.unfinished, 1)
        pool_give_back(&self.reception.pool, i)
        self.instance_dropped()
        return True

    cdef int _owe(self, Instance* i) except -1:
        if i.data_bytes + i.drained < LARGE_BYTES:
            company_note(&self.reception.company, self.number, self.reception.worker.read_ns)
        self.outbox.owe(i)
        return self.reception.hold_back(self.outbox)

    # -- what the subclass calls

    def attach(self, transport, int fd, *, bint direct=True):
        """Bind the transport. See receiver.pyi."""
        self.pace.attach(transport, fd, direct)

    def detach(self):
        """The socket must not be touched any more."""
        self.pace.detach()

    def establish(
        self, contexts not None, *, Rules rules not None, uint32_t peer_max_pdu_length,
        bint unique_ids, bytes journal_members not None, bytes calling_ae not None,
        bytes called_ae not None,
        int ae_row=0, Py_ssize_t tally=-1,
    ):
        """Enter data transfer (Sta6). See receiver.pyi."""
        if peer_max_pdu_length and peer_max_pdu_length < 8:
            raise ValueError("peer takes no PDV")
        if not 0 <= ae_row < AE_ROWS:
            raise ValueError("no such row")
        self.contexts = Contexts.__new__(Contexts, contexts)
        self.framer.contexts = self.contexts.in_use
        self.rules = rules
        self.outbox.peer_max_pdu_length = peer_max_pdu_length
        self.outbox.durable = rules.treatment.durable
        if tally >= 0:
            self.outbox.count_in(self.reception.shared.tallies, tally)
        if unique_ids:
            self.outbox.keep_message_ids()
        self.journal_members = journal_members
        self.calling_ae = calling_ae
        self.called_ae = called_ae
        self.ae_row = ae_row
        self.established = True
        self.pace.restart()

    def hold_back_responses(self):
        """Keep back the responses that are owed from now on. See receiver.pyi."""
        cdef HeldBack held = HeldBack.__new__(HeldBack)
        cdef Instance* i = pool_take(&self.reception.pool)
        i.no_reply = True
        hold(&i.outbox, self.outbox)
        held.reception = self.reception
        held.instance = i
        self._owe(i)
        return held

    def end_transfer(self):
        """Leave data transfer (Sta6): a P-DATA-TF is out of place from now on."""
        self.established = False

    def expect_associate(self, bint awaited):
        """Whether an A-ASSOCIATE-RQ is in its place now."""
        self.awaiting_associate = awaited

    def keep_request(self, bytes pdu not None):
        """Have a whole request wait here to be decoded. See receiver.pyi."""
        self.request = pdu

    def take_request(self):
        """The request that waits, which does so no longer. See receiver.pyi."""
        cdef bytes pdu = self.request
        if pdu is not None:
            self.request = None
            self._weigh()
        return pdu

    @property
    def request_waits(self):
        """Whether a whole A-ASSOCIATE-RQ waits to be decoded."""
        return self.request is not None

    def stop(self):
        """Interpret nothing any more. See receiver.pyi."""
        self.take_request()
        self.stopped = True
        self.established = False
        self._drop_rest()
        self.drop_message()
        self.outbox.silence()

    def drop_message(self):
        """Discard the unfinished message, if any; whether there was one."""
        cdef Instance* i = self.current
        cdef bint midway = self.framer.phase != PHASE_COMMAND
        self.framer.phase = PHASE_COMMAND
        if i == NULL:
            return midway
        self.current = NULL
        if i.reply == NULL and not i.no_reply:
            word_count(&self.outbox.tally.unfinished, 1)
        self.reception.worker.iov_used = 0
        instance_drop_part(&self.reception.worker, i)
        pool_give_back(&self.reception.pool, i)
        return True

    def disconnected(self):
        """The connection is gone. See receiver.pyi."""
        self.outbox.silence()
        self.pace.detach()
        if self.pace.holds & HOLD_SENDING:
            # It waits no longer until the peer reads.
            self.pace.set_hold(HOLD_SENDING, False)

    def abandon(self):
        """The peer is gone. See receiver.pyi."""
        self.stop()
        framer_end(&self.framer)
        self._weigh()
        self.reception.leave(self.outbox)
        self.outbox.abandon()

    def outgrown(self):
        """Give back what is not whole, and end. See receiver.pyi."""
        cdef uint8_t pdu_type = self.framer.pdu_type
        framer_end(&self.framer)
        self.request = None
        self._weigh()
        self.framing_failed(2, 0, "too many long requests at a time", pdu_type)

    def overdue(self, double now, double message_timeout, double min_rate, double idle_timeout):
        """What the peer has let pass. See receiver.pyi."""
        return self.pace.overdue(
            self._midway(), self.outbox.owed > 0 or self.stopped, now, message_timeout, min_rate,
            idle_timeout,
        )

    @property
    def bytes_received(self):
        """Bytes read from the connection. See receiver.pyi."""
        return self.outbox.tally.received

    @property
    def rest_bytes(self):
        """Bytes that were read and are still to be taken in."""
        return 0 if self.rest.bytes == NULL else rest_left(&self.rest).left

    @property
    def idle_since(self):
        """Since when nothing is under way, in seconds; 0.0: it is. See receiver.pyi."""
        if not self.established or self.outbox.owed or self.pace.holds:
            return 0.0
        # A byte of a header, or of a command set, is no message yet, and protects for a moment.
        if self.framer.phase == PHASE_DATA or self._midway() and not self.pace.quiet():
            return 0.0
        return self.pace.progress_at

    def stuck_since(self, double now, double min_rate):
        """Since when a message makes no progress, in seconds; 0.0: it does. See receiver.pyi."""
        if not self.established or self.outbox.owed or self.pace.holds or not self._midway():
            return 0.0
        return self.pace.stuck_since(now, min_rate)

    @property
    def mid_message(self):
        """Whether a message has begun and not ended."""
        return self.framer.phase != PHASE_COMMAND

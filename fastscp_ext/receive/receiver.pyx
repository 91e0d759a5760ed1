"""One association's receive path: from bytes read to instances complete and responses sent.

The event loop reads straight into the intake's buffer and calls `buffer_updated`, which frames,
taps, digests and writes without the interpreter. A subclass in Python answers what is rare:
association, echo, errors, the end.

Sources: PS3.7 9.1.1 and 9.3.1 (C-STORE), PS3.8 9.3.5 (P-DATA-TF), PS3.4 B.2.3 (statuses).
"""

import hashlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport clock_gettime, clockid_t, timespec

from fastscp_ext.wire.command cimport (
    CMD_HAS_COMMAND_FIELD, CMD_HAS_DATA_SET_TYPE, CMD_HAS_MESSAGE_ID,
    CMD_HAS_MOVE_ORIGINATOR_AE, CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID, CMD_HAS_AFFECTED_SOP_CLASS,
    CMD_HAS_AFFECTED_SOP_INSTANCE, SCAN_OK, CommandScan, scan_command, trimmed_ae,
)
from fastscp_ext.wire.cursor cimport Cursor, cursor_over
from fastscp_ext.wire.framing cimport (
    FRAME_COMMAND, FRAME_DATA, FRAME_HEADER, FRAME_MORE, FRAME_PDU, PDU_ABORT,
    PDU_ASSOCIATE_RQ, PDU_P_DATA_TF, PDU_RELEASE_RQ, PHASE_COMMAND, Framer, complaint_text,
    framer_begin, framer_drop_pdu, framer_end, framer_expect, framer_next,
)
from fastscp_ext.receive.instance cimport (
    RAW_UID_ROOM, STAGE_ANSWERABLE, STAGE_COMPLETE, Instance, Site, class_uid, drop,
    hold, instance_append, instance_begin, instance_drop_part, instance_flush, instance_judge,
    instance_refuse, name_uid,
)
from fastscp_ext.receive.intake cimport OUT_ROOM, OWED_MOST, UNCOMMITTED_MOST, Intake, Owing
from fastscp_ext.receive.rules cimport DIGEST_SHA256, Rules
from fastscp_ext.dataset.uid cimport uid_ok
from fastscp_ext.wire.response cimport (
    RESPONSE_COMMAND_ROOM, RESPONSE_ROOM, pack_command, store_response,
)
from fastscp_ext.shared.atomic cimport word_count, word_get
from fastscp_ext.shared.block cimport AE_ROWS, STAMP_ANSWERED, STAMP_COMMAND, STAMP_LAST_BYTE
from fastscp_ext.shared.clock cimport monotonic_ns
from fastscp_ext.shared.storewide cimport STORE_FULL, STORE_LOST

__all__ = ["Receiver"]

# To the tick, which is what timers and dates need, and cheaper than the exact ones.
cdef extern from "time.h" nogil:
    clockid_t CLOCK_MONOTONIC_COARSE
    clockid_t CLOCK_REALTIME_COARSE

cdef extern from "netinet/in.h" nogil:
    int IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    int TCP_QUICKACK

cdef extern from "sys/socket.h" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SOL_SOCKET
    int SO_RCVLOWAT
    ssize_t send(int fd, const void* buf, size_t len, int flags)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int len)

cdef enum:
    DRAIN_MOST = 1073741824      # bytes of a refused data set read before the peer is aborted
    PDATA_HEADERS = 12           # bytes: of a PDU and of its first PDV
    PROMPT_MESSAGES = 16         # acknowledged at once before it is tried without
    SMALL_BYTES = 131072         # a data set that is mostly read in one go


# A silence inside a message from which on it may be the peer that waits for us, in seconds. Delayed
# acknowledgements come after 40 ms; the clock goes in ticks.
cdef double DELAYED_ACK_S = 0.025


cdef inline double _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    return <double>t.tv_sec + <double>t.tv_nsec * 1e-9


cdef inline Cursor _bytes_cursor(bytes value):
    return cursor_over(
        <const uint8_t*>PyBytes_AS_STRING(value), <uint32_t>PyBytes_GET_SIZE(value)
    )


cdef class Receiver(Owing):
    """One association as the event loop's protocol object; subclass it. See receiver.pyi."""

    def __cinit__(
        self, Intake intake not None, uint64_t number, *_args,
        uint32_t max_pdu_length=131072, uint32_t pdata_cap=16777216, **_options,
    ):
        framer_begin(&self.framer, pdata_cap if pdata_cap > max_pdu_length else max_pdu_length)
        self.intake = intake
        self.number = number
        self.max_pdu_length = max_pdu_length
        self.fd = -1
        self.awaiting_associate = self.prompt = True
        self.low_water = 1
        self.tag = b""
        self.calling = self.called = b""

    def __dealloc__(self):
        framer_end(&self.framer)
        free(self.accepted)
        free(self.outstanding)

    # -- what the event loop calls

    def get_buffer(self, Py_ssize_t sizehint):
        """The space the next read goes to: the intake's buffer."""
        return self.intake

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what was just read. Nothing of it is needed afterwards."""
        self._take_in(nbytes)
        if self.fd >= 0:
            if self.prompt:
                self._acknowledge()
            self._await_more(self._due())

    cdef bint _midway(self) noexcept:
        # Whether a message or a PDU has begun and not ended.
        return (
            self.framer.phase != PHASE_COMMAND or self.framer.in_pdu
            or self.framer.header_have > 0
        )

    cdef int _due(self) noexcept:
        # How many bytes must be there before a read is worth while. Where a data set is due, its
        # PDU's header often comes alone, a moment before the rest: then it would wake us twice. But
        # not from a peer that waits for us to acknowledge it; and where data sets are large it
        # pays to be awake when the rest comes.
        cdef Framer* f = &self.framer
        if (
            f.phase == PHASE_COMMAND or f.in_pdu or f.header_have or f.dead
            or self.held_up or self.stored < PROMPT_MESSAGES or self.last_bytes > SMALL_BYTES
        ):
            return 1
        return PDATA_HEADERS + 1

    cdef void _await_more(self, int due) noexcept:
        # An A-ABORT is shorter than that, and an empty fragment: `overdue` is called often, and
        # takes it back.
        if due != self.low_water and setsockopt(
            self.fd, SOL_SOCKET, SO_RCVLOWAT, &due, sizeof(due)
        ) == 0:
            self.low_water = due

    cdef int _take_in(self, Py_ssize_t nbytes) except -1:
        cdef double now = _now()
        if now - self.progress_at > DELAYED_ACK_S and self._midway():
            self.held_up = self.prompt = True
        self.bytes_received += <uint64_t>nbytes
        self.rate_bytes += <uint64_t>nbytes
        self.progress_at = now
        self.intake.site.read_ns = monotonic_ns()
        word_count(&self.intake.site.rows.received, <uint64_t>nbytes)
        if self.framer.dead or self.holds & HOLD_STOPPED:
            self.ignored_bytes += <uint64_t>nbytes
            return 0
        try:
            self._frames(nbytes)
        finally:
            # What is complete is committed, whatever a method of the subclass may raise.
            self.intake.commit()
        if not self.intake.allowed(nbytes):
            self.intake.slowed.add(self)
            self._set_hold(HOLD_SLOW, True)
        if nbytes == self.intake.buffer_size:
            # More is there, and the loop would go on reading here: the others' turn first.
            self._set_hold(HOLD_TURN, True)
            self.turn_over()
        return 0

    cdef int _acknowledge(self) except -1:
        # A peer with Nagle's algorithm on waits for an acknowledgement before it sends the tail of
        # an instance, and the kernel would put that off for 40 ms. It forgets the flag, hence each
        # time. Once some messages have passed it is left out, for it costs a packet a read, until
        # the peer is seen to be held up.
        cdef int yes = 1
        if not self.held_up and self.stored + self.refused > PROMPT_MESSAGES:
            self.prompt = False
            return 0
        setsockopt(self.fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof(yes))
        return 0

    cdef int _frames(self, Py_ssize_t nbytes) except -1:
        cdef Framer* f = &self.framer
        cdef Cursor c = cursor_over(self.intake.buffer, <uint32_t>nbytes)
        cdef Site* site = &self.intake.site
        cdef int kind
        site.iov_used = 0
        while True:
            kind = framer_next(f, &c)
            if kind == FRAME_DATA:
                if f.data.left:
                    instance_append(site, self.current, f.data.at, f.data.left)
                if f.last:
                    self._complete()
                elif self.current.drained > DRAIN_MOST:
                    self.framing_failed(0, 0, "refused data set does not end", f.pdu_type)
            elif kind == FRAME_MORE:
                break
            elif kind == FRAME_HEADER:
                self._header()
            elif kind == FRAME_COMMAND:
                self._command()
            elif kind == FRAME_PDU:
                if self.trace:
                    self.pdu_traced(False, f.pdu_type, f.pdu_length)
                self.pdu_received(f.pdu_type, f.pdu[:f.pdu_size])
                framer_drop_pdu(f)
            else:
                self.framing_failed(
                    f.abort_source, f.abort_reason, complaint_text(f.complaint), f.pdu_type
                )
            if f.dead or self.holds & HOLD_STOPPED:
                self.ignored_bytes += c.left
                break
        if self.current != NULL:
            instance_flush(site, self.current)
        return 0

    cdef int _header(self) except -1:
        cdef Framer* f = &self.framer
        if f.pdu_type == PDU_P_DATA_TF and self.established:
            if self.trace:
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
        if self.trace:
            self.pdu_traced(False, f.pdu_type, f.pdu_length)
        self.pdu_received(f.pdu_type, b"")
        return 0

    # -- messages

    cdef int _command(self) except -1:
        cdef Framer* f = &self.framer
        cdef CommandScan scan
        cdef bint data_follows
        cdef uint32_t needed = CMD_HAS_COMMAND_FIELD | CMD_HAS_DATA_SET_TYPE
        cdef Instance* i
        cdef object reply
        cdef int context_id = f.context_id
        if scan_command(f.command, f.command_size, &scan) != SCAN_OK:
            self.framing_failed(0, 0, "command set cannot be read", f.pdu_type)
            return 0
        if scan.present & CMD_HAS_COMMAND_FIELD and scan.command_field == 0x0001:
            needed |= CMD_HAS_MESSAGE_ID
        if (scan.present & ~scan.unusable & needed) != needed:
            self.framing_failed(
                0, 0, "command set without Command Field, Message ID or Data Set Type", f.pdu_type
            )
            return 0
        data_follows = scan.data_set_type != 0x0101
        if scan.command_field == 0x0001:
            self._store(&scan, data_follows)
            framer_expect(f, data_follows)
            return 0
        reply = self.command_received(context_id, f.command[:f.command_size])
        if f.dead or self.holds & HOLD_STOPPED:
            return 0
        framer_expect(f, data_follows)
        if reply is None and not data_follows:
            return 0
        i = self.intake.take()
        i.context_id = <uint8_t>context_id
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

    cdef int _store(self, void* scanned, bint data_follows) except -1:
        # A C-STORE-RQ whose framing, Message ID and Data Set Type are in order (PS3.7 9.3.1.1).
        cdef CommandScan* scan = <CommandScan*>scanned
        cdef Intake intake = self.intake
        cdef Instance* i = intake.take()
        cdef Context* context = &self.accepted[self.places[self.framer.context_id]]
        cdef const uint8_t* uids = <const uint8_t*>PyBytes_AS_STRING(self.uids)
        cdef const uint8_t* abstract = uids + context.abstract_at
        cdef Cursor ae
        cdef Cursor sop_class
        cdef timespec now
        cdef uint64_t state
        cdef int status
        self.current = i
        hold(&i.rules, self.rules)
        i.treatment = &self.rules.treatment
        hold(&i.tag, self.tag)
        i.tag_text = _bytes_cursor(self.tag)
        i.context_id = self.framer.context_id
        i.message_id = scan.message_id
        clock_gettime(CLOCK_REALTIME_COARSE, &now)
        i.received_s = now.tv_sec
        i.stamps[<int>STAMP_COMMAND] = intake.site.read_ns
        i.ae_row = self.ae_row
        if scan.present & CMD_HAS_AFFECTED_SOP_INSTANCE and scan.sop_instance.left <= RAW_UID_ROOM:
            i.name_size = <uint16_t>scan.sop_instance.left
            memcpy(i.name_raw, scan.sop_instance.at, scan.sop_instance.left)
        if scan.present & CMD_HAS_AFFECTED_SOP_CLASS and scan.sop_class.left:
            if scan.sop_class.left <= RAW_UID_ROOM:
                i.class_size = <uint16_t>scan.sop_class.left
                memcpy(i.class_raw, scan.sop_class.at, scan.sop_class.left)
        else:
            # Left out: the context says what it is.
            i.class_size = context.abstract_size
            memcpy(i.class_raw, abstract, i.class_size)
        i.syntax_size = context.syntax_size
        memcpy(i.syntax, uids + context.syntax_at, i.syntax_size)
        if scan.present & ~scan.unusable & CMD_HAS_MOVE_ORIGINATOR_AE:
            ae = trimmed_ae(scan.move_originator_ae)
            i.has_move = True
            i.move_ae_size = <uint16_t>(ae.left if ae.left < 16 else 16)
            memcpy(i.move_ae, ae.at, i.move_ae_size)
            _plain(i.move_ae, i.move_ae_size)
            if scan.present & ~scan.unusable & CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID:
                i.has_move_id = True
                i.move_id = scan.move_originator_message_id
        instance_begin(i, context.tap_syntax, context.deflated)
        if not data_follows:
            instance_refuse(i, 0xC000, b"no data set")
            return self._complete()
        sop_class = class_uid(i)
        state = word_get(intake.site.store_state)
        if state == STORE_FULL:
            instance_refuse(i, 0xA700, b"out of disk space")
        elif state == STORE_LOST:
            instance_refuse(i, 0xA700, b"store is not there")
        elif not uid_ok(name_uid(i)):
            instance_refuse(i, 0x0117, b"SOP Instance UID is not usable")
        elif not uid_ok(sop_class):
            instance_refuse(i, 0x0122, b"SOP Class UID is not usable")
        elif not context.storage or sop_class.left != context.abstract_size or memcmp(
            sop_class.at, abstract, sop_class.left
        ) != 0:
            status = self.class_judged(i.context_id, sop_class.at[:sop_class.left])
            if status:
                instance_refuse(i, <uint16_t>status, b"SOP class is not accepted here")
        if self.outstanding != NULL:
            if self.outstanding[i.message_id >> 3] & (1 << (i.message_id & 7)):
                instance_refuse(i, 0x0210, b"Message ID is still outstanding")
            else:
                self.outstanding[i.message_id >> 3] |= <uint8_t>(1 << (i.message_id & 7))
                i.owns_id = True
        if not i.discarding:
            i.implementation = _bytes_cursor(intake.implementation)
            i.version = _bytes_cursor(intake.version)
            i.sender = _bytes_cursor(self.calling)
            i.addressee = _bytes_cursor(self.called)
            if i.treatment.digest == DIGEST_SHA256:
                hold(&i.hasher, hashlib.sha256())
        return 0

    cdef int _complete(self) except -1:
        # The last fragment came, or none was due.
        cdef Instance* i = self.current
        self.current = NULL
        self.last_bytes = i.data_bytes
        i.stamps[<int>STAMP_LAST_BYTE] = self.intake.site.read_ns
        if i.reply != NULL or i.no_reply:
            i.stage = STAGE_ANSWERABLE
            return self._owe(i)
        instance_judge(&self.intake.site, i)
        if i.stage == STAGE_COMPLETE:
            hold(&i.receiver, self)
            if not self._waits(i):
                self.intake.complete(i)
        else:
            i.stage = STAGE_ANSWERABLE
            if i.error_no:
                self.intake.on_error(
                    (<const char*>i.error_step).decode(), i.error_no, i.part.decode()
                )
        return self._owe(i)

    cdef bint _waits(self, Instance* i) noexcept:
        # Of two with one path the first is committed first: whoever is named first wins. The
        # committer writes into paths, so hashes are compared; a false match only waits.
        cdef Instance* elder = self.owed_first
        cdef Instance* last = NULL
        while elder != NULL:
            if elder.stage != STAGE_ANSWERABLE and elder.path_hash == i.path_hash:
                last = elder
            elder = elder.next_owed
        if last != NULL:
            last.younger = i
        return last != NULL

    cdef int _owe(self, Instance* i) except -1:
        # Responses leave in request order, so a settled one may have to wait for its elders.
        if self.owed_first != NULL and i.stage == STAGE_ANSWERABLE:
            i = self.intake.shrink(i)
        i.next_owed = NULL
        if self.owed_last == NULL:
            self.owed_first = i
        else:
            self.owed_last.next_owed = i
        self.owed_last = i
        self.owed += 1
        if self.owed_first.stage == STAGE_ANSWERABLE:
            self.answer()
        if self.owed >= OWED_MOST or self.intake.uncommitted >= UNCOMMITTED_MOST:
            self.intake.held.add(self)
            self._set_hold(HOLD_COMMIT, True)
        return 0

    cdef int answer(self) except -1:
        cdef Intake intake = self.intake
        cdef uint8_t command[RESPONSE_COMMAND_ROOM]
        cdef Instance* i
        cdef Cursor reply
        cdef uint32_t used = 0
        cdef uint32_t n
        cdef uint32_t got
        cdef int sent = 0
        # For all that leave together.
        cdef uint64_t now_ns = monotonic_ns()
        while self.owed_first != NULL and self.owed_first.stage == STAGE_ANSWERABLE:
            i = self.owed_first
            self.owed_first = i.next_owed
            if self.owed_first == NULL:
                self.owed_last = NULL
            self.owed -= 1
            sent += 1
            if i.owns_id:
                self.outstanding[i.message_id >> 3] &= <uint8_t>~(1 << (i.message_id & 7))
            if not i.no_reply:
                if OUT_ROOM - used < RESPONSE_ROOM:
                    self._write(intake.out, used)
                    used = 0
                if i.reply != NULL:
                    reply = _bytes_cursor(<bytes>i.reply)
                else:
                    n = store_response(i, command)
                    reply = cursor_over(command, n)
                    if i.status == 0 or i.status == 0xB006:
                        self.stored += 1
                    else:
                        self.refused += 1
                    if self.verbose or i.status:
                        self._tell(i)
                got = 0
                if not i.peer_gone:
                    i.stamps[<int>STAMP_ANSWERED] = now_ns
                    got = pack_command(
                        intake.out + used, OUT_ROOM - used, i.context_id, reply.at, reply.left,
                        self.peer_max_pdu_length,
                    )
                if self.trace and got:
                    self.pdu_traced(True, PDU_P_DATA_TF, got - 6)
                used += got
            intake.give_back(i)
        if used:
            self._write(intake.out, used)
        if sent and self.owed == 0:
            self.progress_at = self.rate_at = _now()
            self.rate_bytes = 0
            if self.wind_up:
                self.responses_sent()
        return 0

    cdef int go_on(self) except -1:
        return self._set_hold(HOLD_COMMIT, False)

    cdef int speed_up(self) except -1:
        return self._set_hold(HOLD_SLOW, False)

    cdef int _tell(self, Instance* i) except -1:
        cdef Cursor name = name_uid(i)
        self.instance_settled(
            name.at[:name.left].decode("latin-1") if name.left else "", i.status,
            i.path.decode() if i.path[0] else "", i.data_bytes, i.comment.decode(),
        )
        return 0

    # -- what the subclass calls

    def plug(self, transport, int fd):
        """Bind the transport; fd: its socket, for direct writes, or -1 to go through it."""
        self.transport = transport
        self.fd = fd
        self.progress_at = self.rate_at = _now()
        if self.holds:
            transport.pause_reading()

    def unplug(self):
        """The socket must not be touched any more."""
        self.fd = -1
        self.transport = None

    def establish(
        self, contexts not None, *, Rules rules not None, uint32_t peer_max_pdu_length,
        bint unique_ids,
        bytes tag not None, bytes calling not None, bytes called not None, int ae_row=0,
    ):
        """Enter data transfer (Sta6). See receiver.pyi."""
        cdef int used = 0
        cdef int context_id
        cdef Context* context
        cdef dict at = {}
        cdef list uids = []
        cdef int size = 0
        if len(contexts) > 256:
            raise ValueError("more than 256 accepted contexts")
        if peer_max_pdu_length and peer_max_pdu_length < 8:
            raise ValueError("peer takes no PDV")
        if not 0 <= ae_row < AE_ROWS:
            raise ValueError("no such row")
        if rules.treatment.durable != self.intake.site.durable:
            raise ValueError("durability other than the worker's")
        free(self.accepted)
        self.accepted = <Context*>calloc(len(contexts) + 1, sizeof(Context))
        if self.accepted == NULL:
            raise MemoryError()
        memset(self.in_use, 0, 256)
        for context_id, abstract, transfer, tap_syntax, deflated, storage in contexts:
            if len(transfer) > 64 or len(abstract) > 64:
                raise ValueError("UID longer than 64")
            for uid in (abstract, transfer):
                if uid not in at:
                    at[uid] = size
                    uids.append(uid)
                    size += len(uid)
            context = &self.accepted[used]
            context.abstract_at = at[abstract]
            context.abstract_size = len(abstract)
            context.syntax_at = at[transfer]
            context.syntax_size = len(transfer)
            context.tap_syntax = tap_syntax
            context.deflated = deflated
            context.storage = storage
            self.in_use[context_id & 255] = 1
            self.places[context_id & 255] = <uint8_t>used
            used += 1
        self.uids = b"".join(uids)
        self.framer.contexts = self.in_use
        self.peer_max_pdu_length = peer_max_pdu_length
        if unique_ids and self.outstanding == NULL:
            self.outstanding = <uint8_t*>calloc(8192, 1)
            if self.outstanding == NULL:
                raise MemoryError()
        self.rules = rules
        self.tag = tag
        self.calling = calling
        self.called = called
        self.ae_row = ae_row
        self.established = True
        self.progress_at = self.rate_at = _now()
        self.rate_bytes = 0

    def end_transfer(self):
        """Leave data transfer (Sta6): a P-DATA-TF is out of place from now on."""
        self.established = False

    def expect_associate(self, bint awaited):
        """Whether an A-ASSOCIATE-RQ is in its place now."""
        self.awaiting_associate = awaited

    def send_pdu(self, bytes pdu not None):
        """Send an encoded PDU, behind the responses already on their way."""
        if self.trace:
            self.pdu_traced(True, pdu[0], len(pdu) - 6)
        self._write(<const uint8_t*>PyBytes_AS_STRING(pdu), PyBytes_GET_SIZE(pdu))

    def stop(self):
        """Interpret nothing any more. See receiver.pyi."""
        cdef Instance* i = self.owed_first
        self.holds |= HOLD_STOPPED
        self.established = False
        self.drop_message()
        while i != NULL:
            i.peer_gone = True
            i = i.next_owed

    def drop_message(self):
        """Discard the unfinished message, if any; whether there was one."""
        cdef Instance* i = self.current
        cdef bint midway = self.framer.phase != PHASE_COMMAND
        self.framer.phase = PHASE_COMMAND
        if i == NULL:
            return midway
        self.current = NULL
        self.intake.site.iov_used = 0
        instance_drop_part(&self.intake.site, i)
        self.intake.give_back(i)
        return True

    def forget(self):
        """The peer is gone: drop the unfinished message, finish the complete ones unanswered."""
        cdef Instance* i = self.owed_first
        cdef Instance* after
        self.stop()
        self.intake.held.discard(self)
        self.intake.slowed.discard(self)
        while i != NULL:
            after = i.next_owed
            i.next_owed = NULL
            i.peer_gone = True
            if i.stage == STAGE_ANSWERABLE:
                self.intake.give_back(i)
            else:
                drop(&i.receiver)
            i = after
        self.owed_first = self.owed_last = NULL
        self.owed = 0

    def hold_reading(self, int why):
        """Stop reading for one more reason: 1 admission, 4 the peer does not read, 32 its turn."""
        self._set_hold(why, True)

    def go_on_reading(self, int why):
        """Take one reason back; reading goes on when none is left."""
        self._set_hold(why, False)

    def overdue(self, double now, double message_timeout, double min_rate, double idle_timeout):
        """What the peer has let pass. See receiver.pyi."""
        cdef double past
        cdef bint midway = self._midway()
        if self.fd >= 0:
            self._await_more(1)
        if self.holds & ~HOLD_TURN or self.owed:
            self.progress_at = self.rate_at = now
            self.rate_bytes = 0
            return ""
        if not midway:
            self.rate_at = now
            self.rate_bytes = 0
            if 0 < idle_timeout < now - self.progress_at:
                return "idle"
            return ""
        if 0 < message_timeout < now - self.progress_at:
            return "silent inside a message"
        past = now - self.rate_at
        if 0 < message_timeout < past:
            if <double>self.rate_bytes < min_rate * past:
                return "slower than the minimum rate"
            self.rate_at = now
            self.rate_bytes = 0
        return ""

    @property
    def mid_message(self):
        """Whether a message has begun and not ended."""
        return self.framer.phase != PHASE_COMMAND

    cdef int _set_hold(self, int bit, bint on) except -1:
        cdef int before = self.holds & ~HOLD_STOPPED
        if on:
            self.holds |= bit
        else:
            self.holds &= ~bit
            if bit != HOLD_TURN:
                self.progress_at = self.rate_at = _now()
                self.rate_bytes = 0
        if self.transport is None or self.transport.is_closing():
            return 0
        if before == 0 and self.holds & ~HOLD_STOPPED:
            self.transport.pause_reading()
        elif before and not self.holds & ~HOLD_STOPPED:
            self.transport.resume_reading()
        return 0

    cdef int _write(self, const uint8_t* data, Py_ssize_t n) except -1:
        # Straight to the socket while the transport holds nothing back, else through it: the
        # order is kept either way. A broken connection is learned from reading.
        cdef ssize_t got = 0
        if self.transport is None:
            return 0
        if self.backlog and self.transport.get_write_buffer_size() == 0:
            self.backlog = False
        if self.fd >= 0 and not self.backlog:
            got = send(self.fd, data, <size_t>n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if got < 0:
                if errno not in (EAGAIN, EINTR):
                    return 0
                got = 0
        if got < n:
            self.backlog = True
            self.transport.write(data[got:n])
        return 0


cdef void _plain(uint8_t* text, uint32_t n) noexcept nogil:
    # Titles are printable ASCII without backslash wherever we write them.
    cdef uint32_t k
    for k in range(n):
        if text[k] < 32 or text[k] > 126 or text[k] == 92:
            text[k] = 95

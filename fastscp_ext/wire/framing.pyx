"""PDU and PDV framing of the DICOM upper layer.

Sources: PS3.8 9.3.1 (headers), 9.3.5 (P-DATA-TF), Annex E (PDVs of a message).
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from fastscp_ext.wire.command cimport CMD_HAS_DATA_SET_TYPE, CommandScan, scan_command
from fastscp_ext.wire.cursor cimport Cursor, collect, cursor_over, take_span, take_u8, take_u32_be

__all__ = ["PDUStream"]

_COMPLAINTS = {
    COMPLAINT_NONE: "",
    COMPLAINT_PDU_TYPE: "unrecognized PDU type",
    COMPLAINT_ASSOCIATE_LENGTH: "A-ASSOCIATE PDU shorter than 68 bytes or longer than 1 MiB",
    COMPLAINT_PDU_LENGTH: "release, abort or reject PDU longer than 64 bytes",
    COMPLAINT_PDATA_TOO_LONG: "P-DATA-TF PDU above the hard cap",
    COMPLAINT_PDATA_EMPTY: "P-DATA-TF PDU too short for a PDV",
    COMPLAINT_PDV_LENGTH: "PDV length below 2",
    COMPLAINT_PDV_OVERRUN: "PDV runs past the end of its PDU",
    COMPLAINT_PDV_REST: "stray bytes after the last PDV",
    COMPLAINT_CONTEXT: "presentation context was not accepted",
    COMPLAINT_DATA_UNEXPECTED: "data fragment where a command was due",
    COMPLAINT_COMMAND_UNEXPECTED: "command fragment inside a data set",
    COMPLAINT_CONTEXT_CHANGED: "presentation context changes inside a message",
    COMPLAINT_COMMAND_TOO_LONG: "command set above 64 KiB",
    COMPLAINT_MEMORY: "out of memory",
}


cdef str complaint_text(int complaint):
    return _COMPLAINTS[complaint]


cdef void framer_begin(Framer* f, uint32_t pdata_cap) noexcept nogil:
    memset(f, 0, sizeof(Framer))
    f.pdata_cap = pdata_cap
    f.command = f.command_place
    f.command_room = COMMAND_PLACE


cdef void framer_end(Framer* f) noexcept nogil:
    free(f.pdu)
    f.pdu = NULL
    f.pdu_room = 0
    if f.command != f.command_place:
        free(f.command)
        f.command = f.command_place
        f.command_room = COMMAND_PLACE
    f.dead = True


cdef void framer_drop_pdu(Framer* f) noexcept nogil:
    # The PDU just delivered is done with: a request may have been 1 MiB.
    free(f.pdu)
    f.pdu = NULL
    f.pdu_room = 0
    f.pdu_size = 0


cdef void framer_expect(Framer* f, bint data_follows) noexcept nogil:
    # What follows the command set just delivered (PS3.7 E.1, Command Data Set Type).
    f.phase = PHASE_DATA if data_follows else PHASE_COMMAND
    f.command_size = 0
    if f.command != f.command_place:
        free(f.command)
        f.command = f.command_place
        f.command_room = COMMAND_PLACE


cdef inline int _refuse(
    Framer* f, uint8_t source, uint8_t reason, uint8_t complaint
) noexcept nogil:
    f.abort_source = source
    f.abort_reason = reason
    f.complaint = complaint
    f.dead = True
    return FRAME_ERROR


cdef inline uint8_t* _grown(
    uint8_t* have, const uint8_t* place, uint32_t used, uint32_t room
) noexcept nogil:
    # `room` bytes that begin with the `used` bytes of `have`; `place` is never freed.
    cdef uint8_t* got
    if have != place:
        return <uint8_t*>realloc(have, room)
    got = <uint8_t*>malloc(room)
    if got != NULL and used:
        memcpy(got, have, used)
    return got


cdef int _header(Framer* f) noexcept nogil:
    # Judge type and length before a byte of the body is waited for or stored.
    cdef Cursor c = cursor_over(f.header, 6)
    cdef uint8_t reserved = 0
    take_u8(&c, &f.pdu_type)
    take_u8(&c, &reserved)
    take_u32_be(&c, &f.pdu_length)
    f.header_have = 0
    f.pdu_left = f.pdu_length
    f.in_pdu = True
    if f.pdu_type == PDU_P_DATA_TF:
        if f.pdu_length > f.pdata_cap:
            return _refuse(f, 2, 6, COMPLAINT_PDATA_TOO_LONG)
        if f.pdu_length < 6:
            return _refuse(f, 2, 6, COMPLAINT_PDATA_EMPTY)
        return FRAME_HEADER
    if f.pdu_type == PDU_ASSOCIATE_RQ or f.pdu_type == PDU_ASSOCIATE_AC:
        if f.pdu_length < ASSOCIATE_MIN or f.pdu_length > ASSOCIATE_CAP:
            return _refuse(f, 2, 6, COMPLAINT_ASSOCIATE_LENGTH)
    elif PDU_ASSOCIATE_RJ <= f.pdu_type <= PDU_ABORT:
        if f.pdu_length > SMALL_PDU_CAP:
            return _refuse(f, 2, 6, COMPLAINT_PDU_LENGTH)
    else:
        return _refuse(f, 2, 1, COMPLAINT_PDU_TYPE)
    f.pdu_size = 0
    return FRAME_HEADER


cdef int _body(Framer* f, Cursor* c) noexcept nogil:
    # Collect a PDU other than P-DATA-TF. Room grows with what came, not with what was announced.
    cdef uint32_t whole = f.pdu_length + 6
    cdef uint32_t room
    cdef uint32_t want
    cdef uint8_t* got
    if f.pdu_size == 0:
        if f.pdu_room < 6 + SMALL_PDU_CAP:
            got = <uint8_t*>realloc(f.pdu, 512)
            if got == NULL:
                return _refuse(f, 2, 0, COMPLAINT_MEMORY)
            f.pdu = got
            f.pdu_room = 512
        memcpy(f.pdu, f.header, 6)
        f.pdu_size = 6
    while f.pdu_size < whole:
        if c.left == 0:
            return FRAME_MORE
        if f.pdu_size == f.pdu_room:
            room = f.pdu_room * 2
            if room < c.left:
                room = f.pdu_room + c.left
            if room > whole:
                room = whole
            got = <uint8_t*>realloc(f.pdu, room)
            if got == NULL:
                return _refuse(f, 2, 0, COMPLAINT_MEMORY)
            f.pdu = got
            f.pdu_room = room
        want = whole if whole < f.pdu_room else f.pdu_room
        f.pdu_size = collect(c, f.pdu, f.pdu_size, want)
    f.in_pdu = False
    return FRAME_PDU


cdef int _pdv_header(Framer* f) noexcept nogil:
    # Six bytes are there: PDV length, presentation context id, message control header.
    cdef Cursor c = cursor_over(f.pdv_header, 6)
    cdef uint32_t length = 0
    cdef uint8_t context_id = 0
    cdef uint8_t control = 0
    take_u32_be(&c, &length)
    take_u8(&c, &context_id)
    take_u8(&c, &control)
    f.pdv_have = 0
    f.pdu_left -= 6
    if length < 2:
        return _refuse(f, 2, 6, COMPLAINT_PDV_LENGTH)
    length -= 2
    if length > f.pdu_left:
        return _refuse(f, 2, 6, COMPLAINT_PDV_OVERRUN)
    # Inside a message the id that began it is the only one, accepted or not.
    if f.phase != PHASE_COMMAND:
        if context_id != f.context_id:
            return _refuse(f, 2, 5, COMPLAINT_CONTEXT_CHANGED)
    elif f.contexts != NULL and f.contexts[context_id] == 0:
        return _refuse(f, 2, 6, COMPLAINT_CONTEXT)
    # Bits 2 to 7 of the control header are not checked (PS3.8 E.2).
    if control & 1:
        if f.phase == PHASE_DATA:
            return _refuse(f, 2, 5, COMPLAINT_COMMAND_UNEXPECTED)
    elif f.phase != PHASE_DATA:
        return _refuse(f, 2, 5, COMPLAINT_DATA_UNEXPECTED)
    if f.phase == PHASE_COMMAND:
        f.phase = PHASE_COMMAND_REST
        f.context_id = context_id
        f.command_size = 0
    f.control = control
    f.pdv_left = length
    f.in_pdv = True
    return FRAME_MORE


cdef int _command_fragment(Framer* f, Cursor* c) noexcept nogil:
    cdef uint32_t n = f.pdv_left if f.pdv_left < c.left else c.left
    cdef uint32_t need = f.command_size + n
    cdef uint32_t room
    cdef uint8_t* got
    if f.pdv_left > COMMAND_CAP - f.command_size:
        return _refuse(f, 0, 0, COMPLAINT_COMMAND_TOO_LONG)
    if need > f.command_room:
        room = f.command_room * 2
        if room < need:
            room = need
        if room > COMMAND_CAP:
            room = COMMAND_CAP
        got = _grown(f.command, f.command_place, f.command_size, room)
        if got == NULL:
            return _refuse(f, 2, 0, COMPLAINT_MEMORY)
        f.command = got
        f.command_room = room
    f.command_size = collect(c, f.command, f.command_size, need)
    f.pdv_left -= n
    f.pdu_left -= n
    if f.pdv_left:
        return FRAME_MORE
    f.in_pdv = False
    return FRAME_COMMAND if f.control & 2 else FRAME_MORE


cdef int framer_next(Framer* f, Cursor* c) noexcept nogil:
    # One frame, or FRAME_MORE once the cursor is empty. `data` points into the caller's bytes and
    # is valid as long as they are; `pdu` and `command` until the next call.
    cdef int kind
    cdef uint32_t n
    if f.dead:
        return FRAME_ERROR
    while True:
        if not f.in_pdu:
            f.header_have = <uint8_t>collect(c, f.header, f.header_have, 6)
            if f.header_have < 6:
                return FRAME_MORE
            return _header(f)
        if f.pdu_type != PDU_P_DATA_TF:
            return _body(f, c)
        if not f.in_pdv:
            if f.pdu_left == 0:
                f.in_pdu = False
                continue
            if f.pdu_left < 6:
                return _refuse(f, 2, 6, COMPLAINT_PDV_REST)
            f.pdv_have = <uint8_t>collect(c, f.pdv_header, f.pdv_have, 6)
            if f.pdv_have < 6:
                return FRAME_MORE
            kind = _pdv_header(f)
            if kind != FRAME_MORE:
                return kind
        if f.control & 1:
            kind = _command_fragment(f, c)
            if kind != FRAME_MORE:
                return kind
            if f.in_pdv:
                return FRAME_MORE
            continue
        n = f.pdv_left if f.pdv_left < c.left else c.left
        take_span(c, n, &f.data)
        f.pdv_left -= n
        f.pdu_left -= n
        if f.pdv_left == 0:
            f.in_pdv = False
            f.last = (f.control & 2) != 0
            if f.last:
                f.phase = PHASE_COMMAND
                return FRAME_DATA
            if n == 0:
                continue
            return FRAME_DATA
        f.last = False
        return FRAME_DATA if n else FRAME_MORE


cdef void framer_give_back(Framer* f, Cursor* c, uint32_t n) noexcept nogil:
    f.data.left -= n
    c.at -= n
    c.left += n
    f.pdv_left += n
    f.pdu_left += n
    f.in_pdv = True
    f.last = False
    f.phase = PHASE_DATA


@cython.final
cdef class PDUStream:
    """Frames out of a byte stream, as Python objects. See framing.pyi."""

    cdef Framer framer
    cdef uint8_t accepted[256]

    def __cinit__(self, contexts=None, uint32_t pdata_cap=16777216):
        framer_begin(&self.framer, pdata_cap)
        if contexts is not None:
            self.accept(contexts)

    def __dealloc__(self):
        framer_end(&self.framer)

    def accept(self, contexts):
        """Set the accepted presentation context ids; PDVs on others are errors from now on."""
        cdef uint8_t context_id = 0
        memset(self.accepted, 0, 256)
        for context_id in contexts:
            self.accepted[context_id] = 1
        self.framer.contexts = self.accepted

    def feed(self, const uint8_t[::1] data not None):
        """The frames that `data` completes. See framing.pyi."""
        cdef Framer* f = &self.framer
        cdef Cursor c
        cdef CommandScan scan
        cdef int kind
        cdef list frames = []
        if data.shape[0] > 0xFFFFFFFF:
            raise ValueError("feed takes less than 4 GiB at a time")
        if data.shape[0] == 0:
            return frames
        c = cursor_over(&data[0], <uint32_t>data.shape[0])
        while True:
            kind = framer_next(f, &c)
            if kind == FRAME_MORE:
                return frames
            if kind == FRAME_HEADER:
                frames.append(("header", f.pdu_type, f.pdu_length))
            elif kind == FRAME_PDU:
                frames.append(("pdu", f.pdu[:f.pdu_size]))
            elif kind == FRAME_COMMAND:
                frames.append(("command", f.context_id, f.command[:f.command_size]))
                scan_command(f.command, f.command_size, &scan)
                framer_expect(
                    f,
                    (scan.present & CMD_HAS_DATA_SET_TYPE) != 0 and scan.data_set_type != 0x0101,
                )
            elif kind == FRAME_DATA:
                frames.append(
                    ("data", f.context_id, f.data.at[:f.data.left] if f.data.left else b"",
                     bool(f.last)))
            else:
                frames.append(("error", f.abort_source, f.abort_reason,
                               complaint_text(f.complaint)))
                return frames

    @property
    def mid_message(self):
        """Whether a message has begun and not ended."""
        return self.framer.phase != PHASE_COMMAND

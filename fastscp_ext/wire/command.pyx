"""Command sets: Implicit VR Little Endian, group 0000, whatever transfer syntax was negotiated.

Sources: PS3.7 6.3.1 (encoding), 9.3 and 10.3 (messages), Annex E (elements).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

cimport cython

from fastscp_ext.wire.cursor cimport (
    Cursor, cursor_over, peek_u8, skip, take_span, take_u16_le, take_u32_le,
)

from fastscp_ext.errors import CommandError

__all__ = ["CommandSet", "decode_command", "encode_command", "scan"]

cdef enum:
    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ATTRIBUTE_IDENTIFIER_LIST = 0x1005
    ACTION_TYPE_ID = 0x1008
    REMAINING_SUBOPERATIONS = 0x1020
    WARNING_SUBOPERATIONS = 0x1023
    MOVE_ORIGINATOR_AE_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

cdef enum:
    NO_DATA_SET = 0x0101
    UID_MAX = 64             # bytes, PS3.5 9.1
    AE_MAX = 16              # bytes, PS3.5 6.2
    ERROR_COMMENT_MAX = 64   # characters, PS3.7 Annex C

cdef enum ElementResult:
    ELEMENT_END = 0
    ELEMENT_READ = 1
    ELEMENT_BROKEN = 2

ctypedef struct Element:
    uint16_t number
    Cursor value


cdef ElementResult next_element(Cursor* rest, Element* out) noexcept nogil:
    # `rest` stays at the header of an element that cannot be read.
    cdef Cursor c = rest[0]
    cdef uint16_t group = 0
    cdef uint32_t length = 0
    if c.left == 0:
        return ELEMENT_END
    if not (take_u16_le(&c, &group) and take_u16_le(&c, &out.number) and take_u32_le(&c, &length)):
        return ELEMENT_BROKEN
    if group != 0 or not take_span(&c, length, &out.value):
        return ELEMENT_BROKEN
    rest[0] = c
    return ELEMENT_READ


cdef inline bint first(CommandScan* out, uint32_t bit) noexcept nogil:
    if out.present & bit:
        return False
    out.present |= bit
    return True


cdef void scan_us(CommandScan* out, uint32_t bit, Cursor value, uint16_t* field) noexcept nogil:
    if not first(out, bit):
        return
    if value.left != 2 or not take_u16_le(&value, field):
        out.unusable |= bit


cdef void scan_pair(
    CommandScan* out, uint32_t either, uint32_t affected, bint is_affected,
    Cursor value, Cursor* field,
) noexcept nogil:
    # Affected goes before Requested, whichever comes first.
    if is_affected:
        if first(out, affected):
            out.present |= either
            field[0] = value
    elif first(out, either):
        field[0] = value


cdef int scan_command(const uint8_t* data, uint32_t n, CommandScan* out) noexcept nogil:
    cdef Cursor rest = cursor_over(data, n)
    cdef Element e
    cdef ElementResult result
    memset(out, 0, sizeof(CommandScan))
    while True:
        result = next_element(&rest, &e)
        if result == ELEMENT_END:
            return SCAN_OK
        if result == ELEMENT_BROKEN:
            out.error_offset = n - rest.left
            return SCAN_BROKEN
        if e.number == AFFECTED_SOP_CLASS_UID or e.number == REQUESTED_SOP_CLASS_UID:
            scan_pair(out, CMD_HAS_SOP_CLASS, CMD_HAS_AFFECTED_SOP_CLASS,
                      e.number == AFFECTED_SOP_CLASS_UID, e.value, &out.sop_class)
        elif e.number == COMMAND_FIELD:
            scan_us(out, CMD_HAS_COMMAND_FIELD, e.value, &out.command_field)
        elif e.number == MESSAGE_ID:
            scan_us(out, CMD_HAS_MESSAGE_ID, e.value, &out.message_id)
        elif e.number == MESSAGE_ID_BEING_RESPONDED_TO:
            scan_us(out, CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO, e.value,
                    &out.message_id_being_responded_to)
        elif e.number == PRIORITY:
            scan_us(out, CMD_HAS_PRIORITY, e.value, &out.priority)
        elif e.number == COMMAND_DATA_SET_TYPE:
            scan_us(out, CMD_HAS_DATA_SET_TYPE, e.value, &out.data_set_type)
        elif e.number == STATUS:
            scan_us(out, CMD_HAS_STATUS, e.value, &out.status)
        elif e.number == AFFECTED_SOP_INSTANCE_UID or e.number == REQUESTED_SOP_INSTANCE_UID:
            scan_pair(out, CMD_HAS_SOP_INSTANCE, CMD_HAS_AFFECTED_SOP_INSTANCE,
                      e.number == AFFECTED_SOP_INSTANCE_UID, e.value, &out.sop_instance)
        elif e.number == MOVE_ORIGINATOR_AE_TITLE:
            if first(out, CMD_HAS_MOVE_ORIGINATOR_AE):
                out.move_originator_ae = e.value
        elif e.number == MOVE_ORIGINATOR_MESSAGE_ID:
            scan_us(out, CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID, e.value,
                    &out.move_originator_message_id)


cdef inline bint is_padding(uint8_t byte) noexcept nogil:
    # Of a UID: a NUL by the book, the others are seen.
    return byte == c"\0" or byte == c" " or byte == c"\r" or byte == c"\n"


cdef Cursor trimmed_uid(Cursor raw) noexcept nogil:
    cdef uint8_t byte = 0
    while peek_u8(&raw, raw.left - 1, &byte) and is_padding(byte):
        raw.left -= 1
    while peek_u8(&raw, 0, &byte) and is_padding(byte):
        skip(&raw, 1)
    return raw


cdef Cursor trimmed_ae(Cursor raw) noexcept nogil:
    cdef uint32_t size = 0
    cdef uint8_t byte = 0
    while peek_u8(&raw, size, &byte) and byte != c"\0":
        size += 1
    raw.left = size
    while peek_u8(&raw, 0, &byte) and byte == c" ":
        skip(&raw, 1)
    while peek_u8(&raw, raw.left - 1, &byte) and byte == c" ":
        raw.left -= 1
    return raw


# Everything below is for messages outside the hot path.

cdef bytes span_bytes(Cursor span):
    return PyBytes_FromStringAndSize(<const char*>span.at, span.left)


@cython.final
cdef class CommandSet:
    cdef readonly dict elements

    def __cinit__(self, elements):
        self.elements = dict(elements)

    def __repr__(self):
        fields = [f"0x{number:04x}: {value!r}" for number, value in self.elements.items()]
        return f"CommandSet({{{', '.join(fields)}}})"

    def __eq__(self, other):
        if not isinstance(other, CommandSet):
            return NotImplemented
        return self.elements == (<CommandSet>other).elements

    __hash__ = None

    cdef object us(self, int number):
        value = self.elements.get(number)
        if value is None or len(value) != 2:
            return None
        return int.from_bytes(value, "little")

    cdef object uid(self, int number):
        value = self.elements.get(number)
        return None if value is None else value.strip(b"\0 \r\n").decode("latin-1")

    cdef object text(self, int number):
        value = self.elements.get(number)
        return None if value is None else value.partition(b"\0")[0].strip(b" ").decode("latin-1")

    @property
    def command_field(self):
        return self.us(COMMAND_FIELD)

    @property
    def message_id(self):
        return self.us(MESSAGE_ID)

    @property
    def message_id_being_responded_to(self):
        return self.us(MESSAGE_ID_BEING_RESPONDED_TO)

    @property
    def data_set_type(self):
        return self.us(COMMAND_DATA_SET_TYPE)

    @property
    def has_data_set(self):
        declared = self.us(COMMAND_DATA_SET_TYPE)
        return None if declared is None else declared != NO_DATA_SET

    @property
    def priority(self):
        return self.us(PRIORITY)

    @property
    def status(self):
        return self.us(STATUS)

    @property
    def affected_sop_class_uid(self):
        return self.uid(AFFECTED_SOP_CLASS_UID)

    @property
    def affected_sop_instance_uid(self):
        return self.uid(AFFECTED_SOP_INSTANCE_UID)

    @property
    def requested_sop_class_uid(self):
        return self.uid(REQUESTED_SOP_CLASS_UID)

    @property
    def requested_sop_instance_uid(self):
        return self.uid(REQUESTED_SOP_INSTANCE_UID)

    @property
    def move_originator_ae(self):
        return self.text(MOVE_ORIGINATOR_AE_TITLE)

    @property
    def move_originator_message_id(self):
        return self.us(MOVE_ORIGINATOR_MESSAGE_ID)

    @property
    def error_comment(self):
        return self.text(ERROR_COMMENT)

    @property
    def error_id(self):
        return self.us(ERROR_ID)

    @property
    def offending_elements(self):
        value = self.elements.get(OFFENDING_ELEMENT, b"")
        return tuple([
            int.from_bytes(value[at:at + 2], "little") << 16
            | int.from_bytes(value[at + 2:at + 4], "little")
            for at in range(0, len(value) - 3, 4)
        ])

    @property
    def action_type_id(self):
        return self.us(ACTION_TYPE_ID)

    @property
    def event_type_id(self):
        return self.us(EVENT_TYPE_ID)


cdef dict collect_elements(const uint8_t* data, uint32_t size):
    cdef Cursor rest = cursor_over(data, size)
    cdef Element e
    cdef ElementResult result
    cdef dict elements = {}
    while True:
        result = next_element(&rest, &e)
        if result == ELEMENT_END:
            return elements
        if result == ELEMENT_BROKEN:
            raise broken(size - rest.left)
        if e.number not in elements:
            elements[e.number] = span_bytes(e.value)


cdef dict scan_fields(const uint8_t* data, uint32_t size):
    cdef CommandScan found
    if scan_command(data, size, &found) != SCAN_OK:
        raise broken(found.error_offset)
    fields = {
        name: None if found.unusable & bit else value
        for name, bit, value in (
            ("command_field", CMD_HAS_COMMAND_FIELD, found.command_field),
            ("message_id", CMD_HAS_MESSAGE_ID, found.message_id),
            ("message_id_being_responded_to", CMD_HAS_MESSAGE_ID_BEING_RESPONDED_TO,
             found.message_id_being_responded_to),
            ("data_set_type", CMD_HAS_DATA_SET_TYPE, found.data_set_type),
            ("priority", CMD_HAS_PRIORITY, found.priority),
            ("status", CMD_HAS_STATUS, found.status),
            ("move_originator_message_id", CMD_HAS_MOVE_ORIGINATOR_MESSAGE_ID,
             found.move_originator_message_id),
        ) if found.present & bit
    }
    if found.present & CMD_HAS_SOP_CLASS:
        whose = "affected" if found.present & CMD_HAS_AFFECTED_SOP_CLASS else "requested"
        fields[f"{whose}_sop_class"] = (
            span_bytes(found.sop_class), span_bytes(trimmed_uid(found.sop_class)))
    if found.present & CMD_HAS_SOP_INSTANCE:
        whose = "affected" if found.present & CMD_HAS_AFFECTED_SOP_INSTANCE else "requested"
        fields[f"{whose}_sop_instance"] = (
            span_bytes(found.sop_instance), span_bytes(trimmed_uid(found.sop_instance)))
    if found.present & CMD_HAS_MOVE_ORIGINATOR_AE:
        fields["move_originator_ae"] = (
            span_bytes(found.move_originator_ae), span_bytes(trimmed_ae(found.move_originator_ae)))
    return fields


cdef object broken(uint32_t offset):
    return CommandError("command element is cut, runs past the end or is not of group 0000", offset)


cdef dict read_elements(data, bint scanned):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > <Py_ssize_t>UINT32_MAX:
            raise CommandError("command set longer than any PDU")
        if scanned:
            return scan_fields(<const uint8_t*>view.buf, <uint32_t>view.len)
        return collect_elements(<const uint8_t*>view.buf, <uint32_t>view.len)
    finally:
        PyBuffer_Release(&view)


def decode_command(data):
    return CommandSet(read_elements(data, False))


def scan(data):
    return read_elements(data, True)


_UID_ELEMENTS = frozenset((
    AFFECTED_SOP_CLASS_UID, REQUESTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID, REQUESTED_SOP_INSTANCE_UID,
))
_AE_ELEMENTS = frozenset((MOVE_DESTINATION, MOVE_ORIGINATOR_AE_TITLE))
_TAG_ELEMENTS = frozenset((OFFENDING_ELEMENT, ATTRIBUTE_IDENTIFIER_LIST))
_US_ELEMENTS = frozenset((
    COMMAND_FIELD, MESSAGE_ID, MESSAGE_ID_BEING_RESPONDED_TO, PRIORITY, COMMAND_DATA_SET_TYPE,
    STATUS, ERROR_ID, EVENT_TYPE_ID, ACTION_TYPE_ID, MOVE_ORIGINATOR_MESSAGE_ID,
    *range(REMAINING_SUBOPERATIONS, WARNING_SUBOPERATIONS + 1),
))


cdef bytes encode_text(int number, str value):
    if number == ERROR_COMMENT:
        # A longer comment made servers drop the whole response; a backslash would be a second
        # value of an element that has one (PS3.5 6.2, LO).
        text = "".join([
            c if " " <= c <= "~" and c != "\\" else "?" for c in value[:ERROR_COMMENT_MAX]
        ])
        return text.encode("ascii") + b" " * (len(text) & 1)
    if not value.isascii():
        raise ValueError(f"command element 0x{number:04x}: not ASCII")
    raw = value.encode("ascii")
    if number in _UID_ELEMENTS:
        if len(raw) > UID_MAX:
            raise ValueError(f"command element 0x{number:04x}: UID longer than 64")
        return raw + b"\0" * (len(raw) & 1)
    if number in _AE_ELEMENTS:
        if len(raw) > AE_MAX:
            raise ValueError(f"command element 0x{number:04x}: AE title longer than 16")
        return raw + b" " * (len(raw) & 1)
    raise ValueError(f"command element 0x{number:04x}: takes no text")


cdef bytes encode_tags(int number, tuple tags):
    if number not in _TAG_ELEMENTS:
        raise ValueError(f"command element 0x{number:04x}: takes no tags")
    parts = []
    for tag in tags:
        if not 0 <= tag <= UINT32_MAX:
            raise ValueError(f"command element 0x{number:04x}: tag outside 32 bits")
        parts.append((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little"))
    return b"".join(parts)


cdef bytes encode_value(int number, value):
    if isinstance(value, bytes):
        return value + b"\0" * (len(value) & 1)
    if isinstance(value, str):
        return encode_text(number, value)
    if isinstance(value, tuple):
        return encode_tags(number, value)
    if not isinstance(value, int):
        raise ValueError(f"command element 0x{number:04x}: no encoding for {type(value).__name__}")
    if number not in _US_ELEMENTS:
        raise ValueError(f"command element 0x{number:04x}: takes no number")
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"command element 0x{number:04x}: number outside 16 bits")
    return value.to_bytes(2, "little")


cdef bytes encode_element(int number, bytes value):
    return b"\0\0" + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value


def encode_command(elements):
    parts = []
    for number in sorted(elements):
        if not 0 <= number <= 0xFFFF:
            raise ValueError("command element number outside 16 bits")
        if number != GROUP_LENGTH:
            parts.append(encode_element(number, encode_value(number, elements[number])))
    body = b"".join(parts)
    return encode_element(GROUP_LENGTH, len(body).to_bytes(4, "little")) + body

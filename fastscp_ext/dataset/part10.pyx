"""Preamble and File Meta Information (PS3.10 7.1), built and taken off.

A receiver builds one in front of every data set. Some senders put one inside the data set, or the
command set, or both; these are recognised, read for the transfer syntax and left out of what is
stored.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from fastscp_ext.wire.command cimport trimmed_uid
from fastscp_ext.wire.cursor cimport (
    Cursor, collect, cursor_over, peek_u8, skip, take_span, take_u16_le, take_u32_le,
)
from fastscp_ext.dataset.vr cimport VR_INVALID, VR_UNKNOWN, is_long, vr_of

__all__ = ["build_meta", "meta_values", "strip_embedded"]

cdef enum:
    GROUP_COMMAND = 0x0000
    GROUP_META = 0x0002
    TRANSFER_SYNTAX_UID = 0x0010

    SHORT_HEADER = 8    # bytes of an element's header, its length of 16 bits included
    LONG_HEADER = 12


cdef inline uint32_t _head(
    uint8_t* out, uint16_t element, uint8_t vr0, uint8_t vr1, uint32_t length
) noexcept nogil:
    # Explicit VR header with a 16-bit length, group 0002.
    out[0] = 2
    out[1] = 0
    out[2] = <uint8_t>(element & 0xFF)
    out[3] = <uint8_t>(element >> 8)
    out[4] = vr0
    out[5] = vr1
    out[6] = <uint8_t>(length & 0xFF)
    out[7] = <uint8_t>(length >> 8)
    return 8


cdef inline uint32_t _text(
    uint8_t* out, uint16_t element, uint8_t vr0, uint8_t vr1, Cursor value, uint32_t cap,
    uint8_t pad
) noexcept nogil:
    cdef uint32_t n = value.left if value.left < cap else cap
    cdef uint32_t at = _head(out, element, vr0, vr1, n + (n & 1))
    if n:
        memcpy(out + at, value.at, n)
    if n & 1:
        out[at + n] = pad
    return at + n + (n & 1)


cdef uint32_t _title(uint8_t* out, uint16_t element, Cursor value) noexcept nogil:
    # Any byte of a title is possible, and AE has printable ASCII without a backslash (PS3.5 6.2).
    cdef uint32_t size = _text(out, element, 65, 69, value, 16, 32)
    cdef uint32_t n
    for n in range(SHORT_HEADER, size):
        if out[n] < 32 or out[n] > 126 or out[n] == 92:
            out[n] = 95
    return size


cdef uint32_t _private(uint8_t* out, Cursor value) noexcept nogil:
    # Private Information (0002,0102), OB: two reserved bytes, then a 32-bit length.
    cdef uint32_t size = _text(out + 4, 0x0102, 79, 66, value, 64, 0) - SHORT_HEADER
    _head(out, 0x0102, 79, 66, 0)
    memset(out + 8, 0, 4)
    out[8] = <uint8_t>size
    return LONG_HEADER + size


cdef uint32_t meta_build(
    uint8_t* out, Cursor sop_class, Cursor sop_instance, Cursor transfer_syntax,
    Cursor implementation, Cursor version, Cursor sender, Cursor receiver, Cursor other_syntax
) noexcept nogil:
    # Writes at most META_ROOM bytes and returns how many: UIDs are cut at 64, the rest at 16.
    # `sender` is written as source and as sending AE title; an empty title is left out.
    cdef uint32_t at = META_PREFIX + 12
    cdef uint32_t group = 0
    memset(out, 0, 128)
    memcpy(out + 128, b"DICM", 4)
    at += _head(out + at, 0x0001, 79, 66, 0)     # OB: two reserved bytes, then a 32-bit length
    memset(out + at, 0, 6)
    out[at] = 2
    out[at + 5] = 1
    at += 6
    at += _text(out + at, 0x0002, 85, 73, sop_class, 64, 0)
    at += _text(out + at, 0x0003, 85, 73, sop_instance, 64, 0)
    at += _text(out + at, 0x0010, 85, 73, transfer_syntax, 64, 0)
    at += _text(out + at, 0x0012, 85, 73, implementation, 64, 0)
    at += _text(out + at, 0x0013, 83, 72, version, 16, 32)
    if sender.left:
        at += _title(out + at, 0x0016, sender)
        at += _title(out + at, 0x0017, sender)
    if receiver.left:
        at += _title(out + at, 0x0018, receiver)
    if other_syntax.left:
        at += _text(out + at, 0x0100, 85, 73, implementation, 64, 0)
        at += _private(out + at, other_syntax)
    group = at - META_PREFIX - 12
    _head(out + META_PREFIX, 0x0000, 85, 76, 4)
    out[META_PREFIX + 8] = <uint8_t>(group & 0xFF)
    out[META_PREFIX + 9] = <uint8_t>(group >> 8)
    out[META_PREFIX + 10] = 0
    out[META_PREFIX + 11] = 0
    return at


cdef bint _front_begins(Cursor c, bint packed) noexcept nogil:
    # Whether an element of group 0002 or 0000 begins here.
    cdef uint16_t group = 0
    cdef uint16_t number = 0
    cdef uint8_t vr0 = 0
    cdef uint8_t vr1 = 0
    cdef uint32_t length = 0
    cdef VR vr
    if not (take_u16_le(&c, &group) and take_u16_le(&c, &number)
            and peek_u8(&c, 0, &vr0) and peek_u8(&c, 1, &vr1) and take_u32_le(&c, &length)):
        return False
    vr = vr_of(vr0, vr1)
    if group == GROUP_META:
        if number >= 0x0200:
            return False
        if vr != VR_INVALID:
            return True
    elif group != GROUP_COMMAND or number >= 0x6000:
        return False
    elif vr != VR_INVALID:
        return vr != VR_UNKNOWN and not packed
    return not packed and length <= EMBEDDED_CAP and (number != 0 or length == 4)


cdef int take_meta(Cursor* c, MetaElement* found) noexcept nogil:
    return _take_element(c, found, False, False)


cdef int _take_front(Cursor* c, MetaElement* found, bint meta_seen) noexcept nogil:
    # As take_meta, and also group 0000 in front of group 0002, and Implicit VR.
    return _take_element(c, found, not meta_seen, True)


cdef inline int _take_element(
    Cursor* c, MetaElement* found, bint commands_too, bint implicit_too
) noexcept nogil:
    # commands_too: of group 0000, beside group 0002. implicit_too: an invalid VR is none.
    cdef Cursor at = c[0]
    cdef uint16_t group = 0
    cdef uint8_t vr0 = 0
    cdef uint8_t vr1 = 0
    cdef uint16_t short_length = 0
    cdef uint32_t length = 0
    found.vr = VR_UNKNOWN
    found.size = SHORT_HEADER
    if not take_u16_le(&at, &group):
        return META_CUT
    found.group = group
    if group != GROUP_META and not (commands_too and group == GROUP_COMMAND):
        return META_END
    if not (take_u16_le(&at, &found.number) and peek_u8(&at, 0, &vr0) and peek_u8(&at, 1, &vr1)):
        return META_CUT
    found.vr = vr_of(vr0, vr1)
    if implicit_too and found.vr == VR_INVALID:
        if not take_u32_le(&at, &length):
            return META_CUT
    else:
        skip(&at, 2)
        if not take_u16_le(&at, &short_length):
            return META_CUT
        length = short_length
    if is_long(found.vr):
        found.size = LONG_HEADER
        if not take_u32_le(&at, &length):
            return META_CUT
    found.size = found.size + length if length <= NO_META - LONG_HEADER else NO_META
    if not take_span(&at, length, &found.value):
        return META_CUT
    c[0] = at
    return META_ELEMENT


cdef uint32_t embedded_prefix(const uint8_t* data, uint32_t n, bint packed) noexcept nogil:
    cdef Cursor c = cursor_over(data, n)
    cdef Cursor behind = c
    cdef uint32_t magic = 0
    # First of all: a preamble of zeros reads like elements of group 0000.
    if skip(&behind, 128) and take_u32_le(&behind, &magic) and magic == 0x4D434944:
        if _front_begins(behind, packed):
            return META_PREFIX
    return 0 if _front_begins(c, packed) else NO_META


cdef void embedded_begin(Embedded* e) noexcept nogil:
    memset(e, 0, sizeof(Embedded))
    e.want = SHORT_HEADER


cdef void embedded_end(Embedded* e) noexcept nogil:
    free(e.bytes)
    e.bytes = NULL


cdef bint _make_room(Embedded* e) noexcept nogil:
    cdef uint8_t* got
    cdef uint32_t room = e.room * 2 if e.room * 2 > 1024 else 1024
    if room < e.want:
        room = e.want
    got = <uint8_t*>realloc(e.bytes, room)
    if got == NULL:
        return False
    if e.transfer_syntax.left:
        e.transfer_syntax.at = got + (e.transfer_syntax.at - e.bytes)
    e.bytes = got
    e.room = room
    return True


cdef int embedded_feed(Embedded* e, Cursor* c) noexcept nogil:
    # Take group 0002 off the cursor. STRIP_DONE: `bytes + at`, 8 bytes, begin the data set and
    # the cursor goes on with it. STRIP_BAD: no readable group 0002, or above the cap.
    cdef Cursor head
    cdef MetaElement found
    cdef int outcome
    while True:
        if e.want > EMBEDDED_CAP:
            return STRIP_BAD
        if e.want > e.room and not _make_room(e):
            return STRIP_BAD
        e.have = collect(c, e.bytes, e.have, e.want)
        if e.have < e.want:
            return STRIP_MORE
        head = cursor_over(e.bytes + e.at, e.have - e.at)
        outcome = _take_front(&head, &found, e.meta_seen)
        if outcome == META_END:
            return STRIP_DONE
        if found.size > EMBEDDED_CAP:
            return STRIP_BAD
        if outcome == META_CUT:
            e.want = e.at + found.size
            continue
        e.meta_seen = found.group == GROUP_META
        if (e.meta_seen and found.number == TRANSFER_SYNTAX_UID
                and not e.transfer_syntax.left):
            e.transfer_syntax = trimmed_uid(found.value)
        e.at = e.have - head.left
        e.want = e.at + SHORT_HEADER


def build_meta(
    bytes sop_class not None, bytes sop_instance not None, bytes transfer_syntax not None,
    bytes implementation not None, bytes version not None, bytes sender not None,
    bytes receiver not None, bytes other_syntax not None=b"",
):
    """Preamble, prefix and File Meta Information for a data set. See part10.pyi."""
    cdef uint8_t out[META_ROOM]
    cdef uint32_t n = meta_build(
        out, _over(sop_class), _over(sop_instance), _over(transfer_syntax),
        _over(implementation), _over(version), _over(sender), _over(receiver),
        _over(other_syntax),
    )
    return out[:n]


cdef inline Cursor _over(bytes value):
    return cursor_over(<const uint8_t*>value, <uint32_t>len(value))


def strip_embedded(data not None, Py_ssize_t step=0):
    """How much of a Part 10 header `data` begins with. See part10.pyi."""
    cdef bytes held = bytes(data)
    cdef const uint8_t* base = held
    cdef uint32_t size = <uint32_t>len(held)
    cdef uint32_t prefix = embedded_prefix(base, size, False)
    cdef uint32_t cut
    cdef Embedded e
    cdef Cursor c
    cdef int outcome = STRIP_MORE
    if prefix == NO_META:
        return None
    embedded_begin(&e)
    try:
        while prefix < size and outcome == STRIP_MORE:
            cut = size - prefix
            if step and step < cut:
                cut = <uint32_t>step
            c = cursor_over(base + prefix, cut)
            outcome = embedded_feed(&e, &c)
            prefix += cut - c.left
        if outcome != STRIP_DONE:
            return None
        # Not found, it points nowhere.
        syntax = e.transfer_syntax.at[:e.transfer_syntax.left] if e.transfer_syntax.left else b""
        return prefix - 8, syntax
    finally:
        embedded_end(&e)


def meta_values(data not None):
    """The values of the File Meta Information that `data` begins with. See part10.pyi."""
    cdef bytes held = bytes(data)
    cdef Cursor c = _over(held)
    cdef uint32_t prefix = embedded_prefix(c.at, c.left, True)
    cdef MetaElement found
    cdef Cursor value
    values = {}
    if prefix == NO_META or not skip(&c, prefix):
        return values
    while take_meta(&c, &found) == META_ELEMENT:
        value = found.value
        values[found.number] = value.at[:value.left].rstrip(b"\0 ") if value.left else b""
    return values

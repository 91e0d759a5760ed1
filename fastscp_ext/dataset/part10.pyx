"""Preamble and File Meta Information (PS3.10 7.1), built and taken off.

A receiver builds one in front of every data set. Some senders put one inside the data set; that
one is recognised, read for its transfer syntax and left out of what is stored.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from fastscp_ext.wire.command cimport trimmed_uid
from fastscp_ext.wire.cursor cimport (
    Cursor, collect, cursor_over, skip, take_span, take_u8, take_u16_le, take_u32_le,
)

__all__ = ["build_meta", "strip_embedded"]


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


cdef uint32_t meta_build(
    uint8_t* out, Cursor sop_class, Cursor sop_instance, Cursor transfer_syntax,
    Cursor implementation, Cursor version, Cursor sender, Cursor receiver
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
        at += _text(out + at, 0x0016, 65, 69, sender, 16, 32)
        at += _text(out + at, 0x0017, 65, 69, sender, 16, 32)
    if receiver.left:
        at += _text(out + at, 0x0018, 65, 69, receiver, 16, 32)
    group = at - META_PREFIX - 12
    _head(out + META_PREFIX, 0x0000, 85, 76, 4)
    out[META_PREFIX + 8] = <uint8_t>(group & 0xFF)
    out[META_PREFIX + 9] = <uint8_t>(group >> 8)
    out[META_PREFIX + 10] = 0
    out[META_PREFIX + 11] = 0
    return at


cdef inline bint _capital(uint8_t b) noexcept nogil:
    return 65 <= b <= 90


cdef bint _meta_element(Cursor c) noexcept nogil:
    # Whether an explicit VR little endian element of group 0002 begins here.
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    cdef uint8_t vr0 = 0
    cdef uint8_t vr1 = 0
    return (
        take_u16_le(&c, &group) and group == 0x0002 and take_u16_le(&c, &element)
        and element < 0x0200 and take_u8(&c, &vr0) and _capital(vr0)
        and take_u8(&c, &vr1) and _capital(vr1)
    )


cdef uint32_t embedded_prefix(const uint8_t* data, uint32_t n) noexcept nogil:
    # How many bytes precede an embedded group 0002: 132 or 0; 0xFFFFFFFF when there is none.
    cdef Cursor c = cursor_over(data, n)
    cdef uint32_t magic = 0
    if _meta_element(c):
        return 0
    if skip(&c, 128) and take_u32_le(&c, &magic) and magic == 0x4D434944 and _meta_element(c):
        return META_PREFIX
    return 0xFFFFFFFF


cdef void embedded_begin(Embedded* e) noexcept nogil:
    memset(e, 0, sizeof(Embedded))
    e.want = 8


cdef void embedded_end(Embedded* e) noexcept nogil:
    free(e.bytes)
    e.bytes = NULL


cdef bint _long_form(uint8_t vr0, uint8_t vr1) noexcept nogil:
    # OB OD OF OL OV OW, SQ SV, UC UN UR UT UV (PS3.5 7.1.2).
    if vr0 == 79:
        return vr1 in (66, 68, 70, 76, 86, 87)
    if vr0 == 83:
        return vr1 in (81, 86)
    return vr0 == 85 and vr1 in (67, 78, 82, 84, 86)


cdef int embedded_feed(Embedded* e, Cursor* c) noexcept nogil:
    # Take group 0002 off the cursor. STRIP_DONE: `bytes + at`, 8 bytes, begin the data set and
    # the cursor goes on with it. STRIP_BAD: no readable group 0002, or above the cap.
    cdef Cursor head
    cdef Cursor value
    cdef uint8_t* got
    cdef uint32_t room
    cdef uint16_t group = 0
    cdef uint16_t element = 0
    cdef uint8_t vr0 = 0
    cdef uint8_t vr1 = 0
    cdef uint16_t short_length = 0
    cdef uint32_t length = 0
    while True:
        if e.want > EMBEDDED_CAP:
            return STRIP_BAD
        if e.want > e.room:
            room = e.room * 2 if e.room * 2 > 1024 else 1024
            if room < e.want:
                room = e.want
            got = <uint8_t*>realloc(e.bytes, room)
            if got == NULL:
                return STRIP_BAD
            if e.transfer_syntax.left:
                e.transfer_syntax.at = got + (e.transfer_syntax.at - e.bytes)
            e.bytes = got
            e.room = room
        e.have = collect(c, e.bytes, e.have, e.want)
        if e.have < e.want:
            return STRIP_MORE
        head = cursor_over(e.bytes + e.at, e.have - e.at)
        take_u16_le(&head, &group)
        if group != 0x0002:
            return STRIP_DONE
        take_u16_le(&head, &element)
        take_u8(&head, &vr0)
        take_u8(&head, &vr1)
        take_u16_le(&head, &short_length)
        length = short_length
        if _long_form(vr0, vr1):
            if e.have - e.at < 12:
                e.want = e.at + 12
                continue
            take_u32_le(&head, &length)
            if length > EMBEDDED_CAP:
                return STRIP_BAD
        elif not (_capital(vr0) and _capital(vr1)):
            return STRIP_BAD
        if not take_span(&head, length, &value):
            e.want = e.have + (length - head.left)
            continue
        if element == 0x0010 and not e.transfer_syntax.left:
            e.transfer_syntax = trimmed_uid(value)
        e.at = e.have - head.left
        e.want = e.at + 8


def build_meta(
    bytes sop_class not None, bytes sop_instance not None, bytes transfer_syntax not None,
    bytes implementation not None, bytes version not None, bytes sender not None,
    bytes receiver not None,
):
    """Preamble, prefix and File Meta Information for a data set, as bytes.

    All values without padding; UIDs are cut at 64 bytes, titles and version at 16. `sender` is
    written as source and sending AE title. Empty titles are left out.
    Source: PS3.10 7.1.
    """
    cdef uint8_t out[META_ROOM]
    cdef uint32_t n = meta_build(
        out, _over(sop_class), _over(sop_instance), _over(transfer_syntax),
        _over(implementation), _over(version), _over(sender), _over(receiver),
    )
    return out[:n]


cdef inline Cursor _over(bytes value):
    return cursor_over(<const uint8_t*>value, <uint32_t>len(value))


def strip_embedded(data not None, Py_ssize_t step=0):
    """Take a Part 10 header off the front of `data`, fed in slices of `step` bytes (0: whole).

    Returns (header bytes taken off, its transfer syntax or b"") or None where `data` does not
    begin with a header, or with an unreadable or unfinished one.
    """
    cdef bytes held = bytes(data)
    cdef const uint8_t* base = held
    cdef uint32_t size = <uint32_t>len(held)
    cdef uint32_t prefix = embedded_prefix(base, size)
    cdef uint32_t cut
    cdef Embedded e
    cdef Cursor c
    cdef int outcome = STRIP_MORE
    if prefix == 0xFFFFFFFF:
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

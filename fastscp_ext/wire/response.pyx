"""C-STORE responses: from a settled instance to the PDUs on the wire.

Sources: PS3.7 9.3.1.2 (C-STORE-RSP), PS3.8 9.3.5 (P-DATA-TF) and Annex D.1 (maximum length).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from fastscp_ext.wire.cursor cimport Cursor

__all__ = []


cdef inline uint32_t _u16(uint8_t* out, uint16_t element, uint16_t value) noexcept nogil:
    memset(out, 0, 10)
    out[2] = <uint8_t>(element & 0xFF)
    out[3] = <uint8_t>(element >> 8)
    out[4] = 2
    out[8] = <uint8_t>(value & 0xFF)
    out[9] = <uint8_t>(value >> 8)
    return 10


cdef inline uint32_t _value(
    uint8_t* out, uint16_t element, const uint8_t* value, uint32_t n, uint8_t pad
) noexcept nogil:
    cdef uint32_t padded = n + (n & 1)
    memset(out, 0, 8)
    out[2] = <uint8_t>(element & 0xFF)
    out[3] = <uint8_t>(element >> 8)
    out[4] = <uint8_t>(padded & 0xFF)
    out[5] = <uint8_t>(padded >> 8)
    memcpy(out + 8, value, n)
    if n & 1:
        out[8 + n] = pad
    return 8 + padded


cdef inline uint32_t _tag(uint8_t* out, uint32_t tag) noexcept nogil:
    # AT: group, element, little endian.
    out[0] = <uint8_t>((tag >> 16) & 0xFF)
    out[1] = <uint8_t>(tag >> 24)
    out[2] = <uint8_t>(tag & 0xFF)
    out[3] = <uint8_t>((tag >> 8) & 0xFF)
    return 4


cdef uint32_t store_response(const StoreResponse* response, uint8_t* out) noexcept nogil:
    # C-STORE-RSP command set, at most 480 bytes (PS3.7 9.3.1.2).
    cdef uint8_t tags[12]
    cdef Cursor uid = response.sop_class_uid
    cdef uint32_t n = 12
    cdef uint32_t group
    cdef uint32_t offending = 0
    if uid.left:
        n += _value(out + n, 0x0002, uid.at, uid.left, 0)
    n += _u16(out + n, 0x0100, 0x8001)
    n += _u16(out + n, 0x0120, response.message_id)
    n += _u16(out + n, 0x0800, 0x0101)
    n += _u16(out + n, 0x0900, response.status)
    if response.status:
        if response.unread:
            offending += _tag(tags, response.unread_tag)
        if response.offending & 1:
            offending += _tag(tags + offending, 0x0020000D)
        if response.offending & 2:
            offending += _tag(tags + offending, 0x0020000E)
        if offending:
            n += _value(out + n, 0x0901, tags, offending, 0)
        if response.comment.left:
            n += _value(out + n, 0x0902, response.comment.at, response.comment.left, 32)
    uid = response.sop_instance_uid
    if uid.left:
        n += _value(out + n, 0x1000, uid.at, uid.left, 0)
    group = n - 12
    memset(out, 0, 12)
    out[4] = 4
    out[8] = <uint8_t>(group & 0xFF)
    out[9] = <uint8_t>(group >> 8)
    return n


cdef uint32_t pack_command(
    uint8_t* out, uint32_t room, uint8_t context_id, const uint8_t* command, uint32_t n,
    uint32_t longest
) noexcept nogil:
    # A command set as P-DATA-TF PDUs of one PDV each, cut for a peer that takes bodies of
    # `longest` bytes (0: any). 0 when it does not fit `room` (PS3.8 9.3.5, Annex D.1).
    cdef uint32_t most = n
    cdef uint32_t part
    cdef uint32_t at = 0
    cdef uint32_t used = 0
    if longest and longest - 6 < most:
        most = (longest - 6) & ~<uint32_t>1
    while at < n:
        part = n - at if n - at < most else most
        if part + 12 > room - used:
            return 0
        out[used] = 4
        out[used + 1] = 0
        _u32(out + used + 2, part + 6)
        _u32(out + used + 6, part + 2)
        out[used + 10] = context_id
        out[used + 11] = 3 if at + part == n else 1
        memcpy(out + used + 12, command + at, part)
        used += part + 12
        at += part
    return used


cdef inline void _u32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 24)
    out[1] = <uint8_t>((value >> 16) & 0xFF)
    out[2] = <uint8_t>((value >> 8) & 0xFF)
    out[3] = <uint8_t>(value & 0xFF)

# The only place that reads received bytes.
#
# A cursor is a pointer and the number of bytes left behind it. Every read says what it needs and
# returns whether it was there; a read that finds too little leaves the cursor where it stood.
# Lengths from the wire are uint32_t and compared as `n > left`: no sum that could wrap, no signed
# value.
# Sources: PS3.8 9.3.1 (big endian headers), PS3.7 6.3.1 (little endian command sets), PS3.5 7.1.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


ctypedef struct Cursor:
    const uint8_t* at
    uint32_t left


cdef inline Cursor cursor_over(const uint8_t* at, uint32_t size) noexcept nogil:
    cdef Cursor c
    c.at = at
    c.left = size
    return c


cdef inline bint take_u8(Cursor* c, uint8_t* out) noexcept nogil:
    if c.left < 1:
        return False
    out[0] = c.at[0]
    c.at += 1
    c.left -= 1
    return True


cdef inline bint take_u16_be(Cursor* c, uint16_t* out) noexcept nogil:
    if c.left < 2:
        return False
    out[0] = <uint16_t>((<uint32_t>c.at[0] << 8) | c.at[1])
    c.at += 2
    c.left -= 2
    return True


cdef inline bint take_u16_le(Cursor* c, uint16_t* out) noexcept nogil:
    if c.left < 2:
        return False
    out[0] = <uint16_t>((<uint32_t>c.at[1] << 8) | c.at[0])
    c.at += 2
    c.left -= 2
    return True


cdef inline bint take_u32_be(Cursor* c, uint32_t* out) noexcept nogil:
    if c.left < 4:
        return False
    out[0] = ((<uint32_t>c.at[0] << 24) | (<uint32_t>c.at[1] << 16)
              | (<uint32_t>c.at[2] << 8) | <uint32_t>c.at[3])
    c.at += 4
    c.left -= 4
    return True


cdef inline bint take_u32_le(Cursor* c, uint32_t* out) noexcept nogil:
    if c.left < 4:
        return False
    out[0] = ((<uint32_t>c.at[3] << 24) | (<uint32_t>c.at[2] << 16)
              | (<uint32_t>c.at[1] << 8) | <uint32_t>c.at[0])
    c.at += 4
    c.left -= 4
    return True


cdef inline bint take_span(Cursor* c, uint32_t n, Cursor* out) noexcept nogil:
    # The n bytes at the cursor, as a cursor of their own.
    if n > c.left:
        return False
    out.at = c.at
    out.left = n
    c.at += n
    c.left -= n
    return True


cdef inline bint skip(Cursor* c, uint32_t n) noexcept nogil:
    if n > c.left:
        return False
    c.at += n
    c.left -= n
    return True


cdef inline bint peek_u8(const Cursor* c, uint32_t offset, uint8_t* out) noexcept nogil:
    if offset >= c.left:
        return False
    out[0] = c.at[offset]
    return True


cdef inline uint32_t collect(Cursor* c, uint8_t* into, uint32_t have, uint32_t want) noexcept nogil:
    # Copy on from the cursor until `into` holds `want` bytes; returns how many it holds now.
    cdef uint32_t n = want - have
    cdef uint32_t i
    if n > c.left:
        n = c.left
    for i in range(n):
        into[have + i] = c.at[i]
    c.at += n
    c.left -= n
    return have + n

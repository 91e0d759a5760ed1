# SipHash-2-4: a hash that nobody without its key can make paths collide in.
#
# Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF" (2012).

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t _turned(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void _round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = _turned(v[1], 13) ^ v[0]
    v[0] = _turned(v[0], 32)
    v[2] += v[3]
    v[3] = _turned(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = _turned(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = _turned(v[1], 17) ^ v[2]
    v[2] = _turned(v[2], 32)


cdef inline uint64_t siphash(const uint64_t* key, const uint8_t* data, size_t n) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word = 0
    cdef size_t at = 0
    v[0] = key[0] ^ <uint64_t>0x736F6D6570736575
    v[1] = key[1] ^ <uint64_t>0x646F72616E646F6D
    v[2] = key[0] ^ <uint64_t>0x6C7967656E657261
    v[3] = key[1] ^ <uint64_t>0x7465646279746573
    while n - at >= 8:
        memcpy(&word, data + at, 8)
        v[3] ^= word
        _round(v)
        _round(v)
        v[0] ^= word
        at += 8
    word = 0
    if n > at:
        memcpy(&word, data + at, n - at)
    word |= <uint64_t>(n & 255) << 56
    v[3] ^= word
    _round(v)
    _round(v)
    v[0] ^= word
    v[2] ^= 255
    _round(v)
    _round(v)
    _round(v)
    _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]

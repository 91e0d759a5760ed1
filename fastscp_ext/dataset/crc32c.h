/* CRC-32C (Castagnoli, polynomial 0x1EDC6F41): by the processor's instruction where it has one,
 * else eight bytes at a time from tables.
 *
 * Inside, a checksum is in its raw form: neither inverted at the start nor at the end. Raw, it is
 * linear: raw(a, x) ^ raw(b, y) == raw(a ^ b, x ^ y) for inputs of one length. Three parts of a
 * block are therefore run at once (the instruction takes three cycles but starts every cycle) and
 * joined by moving the earlier ones over as many zero bytes as follow them: four table reads each.
 *
 * Where vectors can be multiplied without carries, long inputs are folded instead: 128 bits that
 * stand D bits in front of others can be added to them after multiplication by x^D mod P, whose two
 * halves are x^(D+32) and x^(D-32) for the bit order used here. 256 bytes are folded onto the next
 * 256 until the last 16 are left, which the instruction finishes.
 *
 * crc32c_init() must have run before anything else here. Only reads data[0..n).
 * Source: RFC 3720 12.1 and B.4 (the checksum and its known answers).
 */
#ifndef FASTSCP_CRC32C_H
#define FASTSCP_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define CRC32C_FOLD_TARGET __attribute__((target("sse4.2,pclmul,avx512f,avx512vl,vpclmulqdq")))
#define CRC32C_TARGET __attribute__((target("sse4.2")))
#define CRC32C_STEP8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define CRC32C_STEP1(crc, byte) _mm_crc32_u8((crc), (byte))
#elif defined(__aarch64__) && defined(__linux__) && defined(__AARCH64EL__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define CRC32C_TARGET __attribute__((target("+crc")))
#define CRC32C_STEP8(crc, word) __crc32cd((crc), (word))
#define CRC32C_STEP1(crc, byte) __crc32cb((crc), (byte))
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1UL << 7)
#endif
#endif

#define CRC32C_POLYNOMIAL 0x82F63B78u /* bits reversed */

/* Bytes in each of the three parts: large for fragments, small for what they leave over. */
#define CRC32C_LONG 4096u
#define CRC32C_SHORT 256u

typedef uint32_t (*crc32c_function)(uint32_t raw, const uint8_t *data, size_t n);

static uint32_t crc32c_bytes[8][256];   /* [k][b]: b, then k zero bytes */
static uint32_t crc32c_over_long[4][256]; /* [k][b]: b in byte k of a raw value, over LONG zeros */
static uint32_t crc32c_over_short[4][256];

static uint32_t crc32c_raw_portable(uint32_t raw, const uint8_t *data, size_t n)
{
    for (; n >= 8; data += 8, n -= 8) {
        uint32_t low = raw ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8
                              | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        raw = crc32c_bytes[7][low & 0xFF] ^ crc32c_bytes[6][low >> 8 & 0xFF]
              ^ crc32c_bytes[5][low >> 16 & 0xFF] ^ crc32c_bytes[4][low >> 24]
              ^ crc32c_bytes[3][data[4]] ^ crc32c_bytes[2][data[5]]
              ^ crc32c_bytes[1][data[6]] ^ crc32c_bytes[0][data[7]];
    }
    for (; n > 0; data++, n--)
        raw = raw >> 8 ^ crc32c_bytes[0][(raw ^ *data) & 0xFF];
    return raw;
}

#ifdef CRC32C_TARGET

static inline uint64_t crc32c_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint32_t crc32c_over(uint32_t over[4][256], uint32_t raw)
{
    return over[0][raw & 0xFF] ^ over[1][raw >> 8 & 0xFF]
           ^ over[2][raw >> 16 & 0xFF] ^ over[3][raw >> 24];
}

/* 3 * part bytes; part is a multiple of 8. */
CRC32C_TARGET static inline uint32_t crc32c_three_parts(
    uint32_t raw, const uint8_t *data, size_t part, uint32_t over[4][256])
{
    uint32_t second = 0, third = 0;
    for (size_t i = 0; i < part; i += 8) {
        raw = CRC32C_STEP8(raw, crc32c_word(data + i));
        second = CRC32C_STEP8(second, crc32c_word(data + part + i));
        third = CRC32C_STEP8(third, crc32c_word(data + 2 * part + i));
    }
    return crc32c_over(over, crc32c_over(over, raw) ^ second) ^ third;
}

CRC32C_TARGET static uint32_t crc32c_raw_instruction(uint32_t raw, const uint8_t *data, size_t n)
{
    for (; n >= 3 * CRC32C_LONG; data += 3 * CRC32C_LONG, n -= 3 * CRC32C_LONG)
        raw = crc32c_three_parts(raw, data, CRC32C_LONG, crc32c_over_long);
    for (; n >= 3 * CRC32C_SHORT; data += 3 * CRC32C_SHORT, n -= 3 * CRC32C_SHORT)
        raw = crc32c_three_parts(raw, data, CRC32C_SHORT, crc32c_over_short);
    for (; n >= 8; data += 8, n -= 8)
        raw = CRC32C_STEP8(raw, crc32c_word(data));
    for (; n > 0; data++, n--)
        raw = CRC32C_STEP1(raw, *data);
    return raw;
}

#endif

#ifdef CRC32C_FOLD_TARGET
/* Below this many bytes folding does not pay. */
#define CRC32C_FOLD_LEAST 1024u

static uint64_t crc32c_fold_by[3][2]; /* D = 2048, 512, 128 bits: for the lower, the upper half */

CRC32C_FOLD_TARGET static inline __m512i crc32c_fold(__m512i x, __m512i by, __m512i onto)
{
    /* 0x96: the exclusive or of all three */
    return _mm512_ternarylogic_epi64(
        _mm512_clmulepi64_epi128(x, by, 0x00), _mm512_clmulepi64_epi128(x, by, 0x11), onto, 0x96);
}

CRC32C_FOLD_TARGET static inline __m128i crc32c_fold_lane(__m128i x, __m128i by, __m128i onto)
{
    return _mm_ternarylogic_epi64(
        _mm_clmulepi64_si128(x, by, 0x00), _mm_clmulepi64_si128(x, by, 0x11), onto, 0x96);
}

CRC32C_FOLD_TARGET static uint32_t crc32c_raw_folded(uint32_t raw, const uint8_t *data, size_t n)
{
    if (n < CRC32C_FOLD_LEAST)
        return crc32c_raw_instruction(raw, data, n);
    __m128i lane[3];
    __m512i by[2], part[4];
    for (int i = 0; i < 3; i++)
        lane[i] = _mm_loadu_si128((const __m128i *)crc32c_fold_by[i]);
    for (int i = 0; i < 2; i++)
        by[i] = _mm512_broadcast_i32x4(lane[i]);
    for (int i = 0; i < 4; i++)
        part[i] = _mm512_loadu_si512(data + 64 * i);
    part[0] = _mm512_xor_si512(part[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)raw)));
    for (data += 256, n -= 256; n >= 256; data += 256, n -= 256)
        for (int i = 0; i < 4; i++)
            part[i] = crc32c_fold(part[i], by[0], _mm512_loadu_si512(data + 64 * i));
    for (int i = 1; i < 4; i++)
        part[i] = crc32c_fold(part[i - 1], by[1], part[i]);
    __m128i last = _mm512_extracti32x4_epi32(part[3], 0);
    last = crc32c_fold_lane(last, lane[2], _mm512_extracti32x4_epi32(part[3], 1));
    last = crc32c_fold_lane(last, lane[2], _mm512_extracti32x4_epi32(part[3], 2));
    last = crc32c_fold_lane(last, lane[2], _mm512_extracti32x4_epi32(part[3], 3));
    raw = CRC32C_STEP8(0, (uint64_t)_mm_extract_epi64(last, 0));
    raw = CRC32C_STEP8(raw, (uint64_t)_mm_extract_epi64(last, 1));
    return crc32c_raw_instruction(raw, data, n);
}

/* x^n mod P as a factor: its 32 bits reversed, and one place up, for a product of two reversed
 * numbers comes out one place low. */
static uint64_t crc32c_power(unsigned n)
{
    uint32_t reversed = 0x80000000u; /* x^0 */
    for (; n > 0; n--)
        reversed = reversed >> 1 ^ (reversed & 1 ? CRC32C_POLYNOMIAL : 0);
    return (uint64_t)reversed << 1;
}
#endif

static crc32c_function crc32c_raw = crc32c_raw_portable;

static void crc32c_fill_over(uint32_t over[4][256], size_t zeros)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        uint32_t raw = (uint32_t)1 << bit;
        for (size_t i = 0; i < zeros; i++)
            raw = raw >> 8 ^ crc32c_bytes[0][raw & 0xFF];
        over[bit / 8][1u << bit % 8] = raw;
    }
    for (unsigned k = 0; k < 4; k++)
        for (unsigned b = 1; b < 256; b++) /* the lowest bit, and the rest, which is smaller */
            over[k][b] = over[k][b & (b - 1)] ^ over[k][b & (~b + 1)];
}

/* Fill the tables and choose the function. Not safe against itself in two threads. */
static void crc32c_init(void)
{
    for (unsigned b = 0; b < 256; b++) {
        uint32_t raw = b;
        for (int i = 0; i < 8; i++)
            raw = raw >> 1 ^ (raw & 1 ? CRC32C_POLYNOMIAL : 0);
        crc32c_bytes[0][b] = raw;
    }
    for (unsigned k = 1; k < 8; k++)
        for (unsigned b = 0; b < 256; b++) {
            uint32_t raw = crc32c_bytes[k - 1][b];
            crc32c_bytes[k][b] = raw >> 8 ^ crc32c_bytes[0][raw & 0xFF];
        }
    crc32c_fill_over(crc32c_over_long, CRC32C_LONG);
    crc32c_fill_over(crc32c_over_short, CRC32C_SHORT);
#if defined(__x86_64__)
    static const unsigned fold_bits[3] = {2048, 512, 128};
    for (int i = 0; i < 3; i++) {
        crc32c_fold_by[i][0] = crc32c_power(fold_bits[i] + 32);
        crc32c_fold_by[i][1] = crc32c_power(fold_bits[i] - 32);
    }
    if (__builtin_cpu_supports("sse4.2"))
        crc32c_raw = crc32c_raw_instruction;
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("vpclmulqdq"))
        crc32c_raw = crc32c_raw_folded;
#elif defined(CRC32C_TARGET)
    if (getauxval(AT_HWCAP) & HWCAP_CRC32)
        crc32c_raw = crc32c_raw_instruction;
#endif
}

static inline uint32_t crc32c_extend(uint32_t crc, const uint8_t *data, size_t n)
{
    return ~crc32c_raw(~crc, data, n);
}

static inline uint32_t crc32c_extend_portable(uint32_t crc, const uint8_t *data, size_t n)
{
    return ~crc32c_raw_portable(~crc, data, n);
}

static inline uint32_t crc32c_extend_by_steps(uint32_t crc, const uint8_t *data, size_t n)
{
#ifdef CRC32C_TARGET
    if (crc32c_raw != crc32c_raw_portable)
        return ~crc32c_raw_instruction(~crc, data, n);
#endif
    return crc32c_extend_portable(crc, data, n);
}

static inline int crc32c_has_instruction(void)
{
    return crc32c_raw != crc32c_raw_portable;
}

#endif

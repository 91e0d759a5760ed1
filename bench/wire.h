/* Bytes of the DICOM upper layer and of command sets, for the C programs beside this file.
 *
 * Sources: PS3.8 9.3 (PDUs, big endian), PS3.7 6.3.1 (command sets, Implicit VR Little Endian).
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPLICIT_LE "1.2.840.10008.1.2.1"
#define IMPLICIT_LE "1.2.840.10008.1.2"
#define VERIFICATION "1.2.840.10008.1.1"
#define APPLICATION_CONTEXT "1.2.840.10008.3.1.1.1"

enum {
    PDU_ASSOCIATE_RQ = 1, PDU_ASSOCIATE_AC, PDU_ASSOCIATE_RJ, PDU_P_DATA, PDU_RELEASE_RQ,
    PDU_RELEASE_RP, PDU_ABORT,
    FRAGMENT_COMMAND = 1, FRAGMENT_LAST = 2, /* message control header, PS3.8 E.2 */
    C_STORE = 0x0001, C_ECHO = 0x0030, RESPONSE = 0x8000, NO_DATA_SET = 0x0101,
};

/* Received bytes that are still to be read. Every read asks what is left first. */
struct span {
    const uint8_t *at;
    size_t left;
};

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static inline uint16_t get16_le(const uint8_t *p) { return (uint16_t)(p[1] << 8 | p[0]); }

static inline uint32_t get32_le(const uint8_t *p) {
    return (uint32_t)get16_le(p + 2) << 16 | get16_le(p);
}

static inline uint8_t *put16(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static inline uint8_t *put32(uint8_t *p, uint32_t v) {
    return put16(put16(p, v >> 16), v & 0xffff);
}

static inline uint8_t *put16_le(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    return p + 2;
}

static inline uint8_t *put32_le(uint8_t *p, uint32_t v) {
    return put16_le(put16_le(p, v & 0xffff), v >> 16);
}

/* The first n bytes of a span as a span of their own; false where there are fewer. */
static inline bool take(struct span *from, size_t n, struct span *into) {
    if (n > from->left) return false;
    *into = (struct span){from->at, n};
    from->at += n;
    from->left -= n;
    return true;
}

static inline bool span_is(struct span s, const char *text) {
    return s.left == strlen(text) && memcmp(s.at, text, s.left) == 0;
}

/* A UID as it is compared: without its padding. */
static inline struct span trimmed(struct span s) {
    while (s.left && (s.at[s.left - 1] == 0 || s.at[s.left - 1] == ' ')) s.left--;
    return s;
}

/* The next item of an A-ASSOCIATE PDU; its type, or 0 at the end or where its length is wrong. */
static inline unsigned next_item(struct span *from, struct span *value) {
    struct span head;
    if (!take(from, 4, &head) || !take(from, get16(head.at + 2), value)) return 0;
    return head.at[0];
}

static inline uint8_t *put_item(uint8_t *p, unsigned type, const void *value, size_t n) {
    p = put16(put16(p, type << 8), (unsigned)n);
    memcpy(p, value, n);
    return p + n;
}

/* The next element of a command set; its element number, or -1 at the end or where it is wrong. */
static inline int next_element(struct span *from, struct span *value) {
    struct span head;
    if (!take(from, 8, &head) || get16_le(head.at) != 0) return -1;
    if (!take(from, get32_le(head.at + 4), value)) return -1;
    return get16_le(head.at + 2);
}

/* An element of a command set, a UID: padded to even length. */
static inline uint8_t *put_uid(uint8_t *p, unsigned element, struct span uid) {
    p = put32_le(put16_le(put16_le(p, 0), element), (uint32_t)(uid.left + (uid.left & 1)));
    memcpy(p, uid.at, uid.left);
    p[uid.left] = 0;
    return p + uid.left + (uid.left & 1);
}

static inline uint8_t *put_us(uint8_t *p, unsigned element, unsigned value) {
    return put16_le(put32_le(put16_le(put16_le(p, 0), element), 2), value);
}

/* The heads of a P-DATA-TF PDU and of its only fragment, of n bytes: 12 bytes. */
static inline uint8_t *put_head(uint8_t *p, size_t n, unsigned context, unsigned control) {
    p = put32(put16(p, PDU_P_DATA << 8), (uint32_t)n + 6);
    p = put32(p, (uint32_t)n + 2);
    return put16(p, context << 8 | control);
}

#endif

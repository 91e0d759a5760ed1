/* Data sets to send again and again under new UIDs: from a Part 10 file, or made up.
 *
 * A template's bytes never change. What is sent is cut around the SOP and the Series Instance UID,
 * whose places are found here; new ones have the old length, so that nothing else moves.
 *
 * Sources: PS3.10 7.1 (Part 10), PS3.5 7.1 (data elements), 7.5 (sequences).
 */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire.h"

#define CT "1.2.840.10008.5.1.4.1.1.2"
#define BIG_ENDIAN_SYNTAX "1.2.840.10008.1.2.2"
#define DEFLATED "1.2.840.10008.1.2.1.99"
#define UNDEFINED UINT32_MAX

enum { MOST_UID = 64, SYNTHETIC_UID = 46 };

struct template {
    struct span data_set;
    char sop_class[MOST_UID + 1], syntax[MOST_UID + 1];
    struct span sop, series; /* the UIDs inside data_set, without padding */
    bool own_series;         /* each association sends a series of its own */
    uint8_t context;
    uint64_t weight, begun;
};

struct element {
    uint32_t tag, length;
    struct span value; /* empty where the length is undefined */
};

static void wrong(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(2);
}

static bool long_form(const uint8_t *vr) {
    static const char all[] = "OB OD OF OL OV OW SQ SV UC UN UR UT UV";
    size_t i;
    for (i = 0; i < sizeof all; i += 3)
        if (memcmp(vr, all + i, 2) == 0) return true;
    return false;
}

static bool read_element(struct span *from, bool explicit_vr, struct element *e) {
    struct span head, more;
    if (!take(from, 8, &head)) return false;
    e->tag = (uint32_t)get16_le(head.at) << 16 | get16_le(head.at + 2);
    e->length = get32_le(head.at + 4);
    e->value = (struct span){from->at, 0};
    if (explicit_vr && e->tag >> 16 != 0xfffe) {
        e->length = get16_le(head.at + 6);
        if (long_form(head.at + 4)) {
            if (!take(from, 4, &more)) return false;
            e->length = get32_le(more.at);
        }
    }
    return e->length == UNDEFINED || take(from, e->length, &e->value);
}

/* Where the UIDs are. Sequences of undefined length are walked through: depth counts them, and only
 * what is outside of them is looked at. */
static void find_uids(struct template *t, const char *name) {
    struct span left = t->data_set;
    struct element e;
    bool explicit_vr = strcmp(t->syntax, IMPLICIT_LE) != 0;
    int depth = 0;
    while (read_element(&left, explicit_vr, &e) && (depth > 0 || e.tag <= 0x0020000e)) {
        if (e.tag == 0xfffee0dd)
            depth--;
        else if (e.length == UNDEFINED && e.tag != 0xfffee000)
            depth++;
        else if (depth == 0 && e.tag == 0x00080018)
            t->sop = trimmed(e.value);
        else if (depth == 0 && e.tag == 0x0020000e)
            t->series = trimmed(e.value);
    }
    if (t->sop.left == 0) wrong(name, "no SOP Instance UID found");
    if (t->sop.left > MOST_UID || t->series.left > MOST_UID) wrong(name, "a UID is too long");
    if (t->series.left == 0) t->series = (struct span){t->sop.at + t->sop.left, 0};
}

static void keep_uid(char *into, struct span value, const char *name) {
    value = trimmed(value);
    if (value.left > MOST_UID) wrong(name, "a UID is too long");
    memcpy(into, value.at, value.left);
    into[value.left] = 0;
}

static void read_template(struct template *t, const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct span left;
    struct element e;
    struct stat about;
    void *all;
    if (fd < 0 || fstat(fd, &about) < 0) wrong(name, "cannot be opened");
    all = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
    if (about.st_size < 132 || all == MAP_FAILED || memcmp((uint8_t *)all + 128, "DICM", 4) != 0)
        wrong(name, "not a Part 10 file");
    left = (struct span){(uint8_t *)all + 132, (size_t)about.st_size - 132};
    while (left.left >= 2 && get16_le(left.at) == 2 && read_element(&left, true, &e)) {
        if (e.tag == 0x00020002) keep_uid(t->sop_class, e.value, name);
        if (e.tag == 0x00020010) keep_uid(t->syntax, e.value, name);
    }
    if (!t->sop_class[0] || !t->syntax[0]) wrong(name, "no SOP class or transfer syntax");
    if (!strcmp(t->syntax, BIG_ENDIAN_SYNTAX) || !strcmp(t->syntax, DEFLATED))
        wrong(name, "neither Big Endian nor deflated data sets can be used");
    t->data_set = left;
    find_uids(t, name);
}

/* An element in Explicit VR Little Endian with a short length. */
static uint8_t *put_text(uint8_t *p, unsigned group, unsigned number, const char *vr,
                         const char *value) {
    size_t n = strlen(value), even = n + (n & 1);
    p = put16_le(put16_le(p, group), number);
    memcpy(p, vr, 2);
    p = put16_le(p + 2, (unsigned)even);
    p[even - 1] = vr[0] == 'U' ? 0 : ' ';
    memcpy(p, value, n);
    return p + even;
}

/* A CT of so many bytes, all pixels 0; the tag is in its study's UID. */
static void make_template(struct template *t, size_t size, const char *tag) {
    uint8_t *all, *p;
    char study[MOST_UID + 1], zeros[SYNTHETIC_UID + 1] = {0};
    size &= ~(size_t)1;
    if (size < 512 || size > UINT32_MAX) wrong("size", "from 512 bytes to 4 GiB");
    if ((p = all = calloc(1, size)) == NULL) wrong("size", "no memory");
    memset(zeros, '0', SYNTHETIC_UID); /* the place is all that matters */
    snprintf(study, sizeof study, "1.2.5.%s", tag);
    p = put_text(p, 0x0008, 0x0016, "UI", CT);
    p = put_text(p, 0x0008, 0x0018, "UI", zeros);
    p = put_text(p, 0x0008, 0x0060, "CS", "CT");
    p = put_text(p, 0x0010, 0x0020, "LO", "LOAD");
    p = put_text(p, 0x0020, 0x000d, "UI", study);
    p = put_text(p, 0x0020, 0x000e, "UI", zeros);
    p = put16_le(put16_le(p, 0x7fe0), 0x0010);
    memcpy(p, "OW\0\0", 4);
    put32_le(p + 4, (uint32_t)(size - (size_t)(p - all) - 8));
    strcpy(t->sop_class, CT);
    strcpy(t->syntax, EXPLICIT_LE);
    t->own_series = true;
    t->data_set = (struct span){all, size};
    find_uids(t, "the made-up data set");
}

/* A UID of so many characters: root, tag, then a component of `kind` (a digit but 0), zeros and a
 * number. False where the number does not fit. */
static bool make_uid(char *into, size_t size, const char *tag, char kind, uint64_t number) {
    size_t n = strlen(tag) + 8, at = size;
    if (size < n) return false;
    memcpy(into, "1.2.5.", 6);
    memcpy(into + 6, tag, n - 8);
    into[n - 2] = '.';
    into[n - 1] = kind;
    for (; at > n; number /= 10) into[--at] = (char)('0' + number % 10);
    return number == 0;
}

#endif

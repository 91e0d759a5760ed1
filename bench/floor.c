/* The floor: a C-STORE receiver that does what no receiver can do without: floor PORT FOLDER
 *
 * Per instance: recv, openat, writev (one per read, what it brought of the data set; the Part 10
 * head before the first), close, rename, send, epoll_wait; and TCP_QUICKACK after reads from a
 * sender that was seen to wait for it. It flushes nothing, keeps no journal, looks into no data
 * set, and a second instance of a name replaces the first. FOLDER/incoming holds what is under way,
 * FOLDER/<SOP Instance UID> what is complete. PORT 0 picks one; the first line on stderr says
 * which. TERM ends it.
 *
 * Source: PS3.10 7.1 (File Meta Information); scp.h has the network.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "wire.h"

enum { MOST_VECTORS = 1024, HEAD_ROOM = 512, PART_DIGITS = 20 };

struct instance {
    int fd; /* -1 before the first write */
    unsigned status;
    char part[PART_DIGITS + 1]; /* its name in FOLDER/incoming */
};

#include "scp.h"

static int folder, incoming;
static char next_part[PART_DIGITS + 1];

/* What one read brought of one instance; number 0 is the head's place, used or not. Empty whenever
 * another instance may begin or another association is read. */
static struct iovec vectors[MOST_VECTORS];
static int vectors_used = 1;
static uint8_t head[HEAD_ROOM];

/* An element of the meta information, Explicit VR Little Endian. PS3.5 7.1.2 */
static uint8_t *meta(uint8_t *p, unsigned element, const char *vr, struct span value) {
    size_t even = value.left + (value.left & 1);
    p = put16_le(put16_le(p, 2), element);
    memcpy(p, vr, 2);
    p = put16_le(p + 2, (unsigned)even);
    p[even - 1] = vr[0] == 'U' ? 0 : ' ';
    memcpy(p, value.at, value.left);
    return p + even;
}

static struct span text(const char *s) { return (struct span){(const uint8_t *)s, strlen(s)}; }

/* Preamble, prefix and File Meta Information; its size. */
static size_t make_head(const struct peer *p) {
    uint8_t *group = head + 132, *q = group + 12;
    memcpy(head + 128, "DICM", 4);
    memcpy(q, "\2\0\1\0OB\0\0\2\0\0\0\0\1", 14);
    q = meta(q + 14, 0x0002, "UI", trimmed(p->sop_class));
    q = meta(q, 0x0003, "UI", trimmed(p->sop_instance));
    q = meta(q, 0x0010, "UI", p->syntaxes[p->context]);
    q = meta(q, 0x0012, "UI", text(IMPLEMENTATION));
    q = meta(q, 0x0013, "SH", text(VERSION_NAME));
    memcpy(group, "\2\0\0\0UL\4\0", 8);
    put32_le(group + 8, (uint32_t)(q - group - 12));
    return (size_t)(q - head);
}

/* Digits and dots, not a dot first: a name that stays in the folder and is not `incoming`. */
static bool usable(struct span uid) {
    size_t i;
    for (i = 0; i < uid.left; i++)
        if ((uid.at[i] < '0' || uid.at[i] > '9') && (uid.at[i] != '.' || i == 0)) return false;
    return uid.left > 0;
}

/* Count up in decimal, without the cost of printing a number for each instance. */
static void name_part(char *name) {
    char *digit = next_part + PART_DIGITS - 1;
    while (++*digit > '9') *digit-- = '0';
    memcpy(name, next_part, sizeof next_part);
}

static void data_set_begins(struct peer *p) {
    p->instance.fd = -1;
    p->instance.status = usable(trimmed(p->sop_instance)) && p->sop_class.left ? 0 : 0x0117;
}

static void write_out(struct peer *p) {
    struct instance *i = &p->instance;
    int first = i->fd < 0 ? 0 : 1, last = vectors_used, k;
    ssize_t total = 0;
    vectors_used = 1;
    if (i->status) return;
    if (i->fd < 0) {
        name_part(i->part);
        i->fd = openat(incoming, i->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        vectors[0] = (struct iovec){head, make_head(p)};
    }
    for (k = first; k < last; k++) total += (ssize_t)vectors[k].iov_len;
    if (i->fd < 0 || writev(i->fd, vectors + first, last - first) != total) i->status = 0xA700;
}

static void data_set_bytes(struct peer *p, struct span bytes) {
    if (bytes.left == 0) return;
    if (vectors_used == MOST_VECTORS) write_out(p);
    vectors[vectors_used++] = (struct iovec){(void *)(uintptr_t)bytes.at, bytes.left};
}

static void data_set_pauses(struct peer *p) {
    if (vectors_used > 1) write_out(p);
}

static unsigned data_set_ends(struct peer *p, bool whole) {
    struct instance *i = &p->instance;
    struct span uid = trimmed(p->sop_instance);
    char name[MOST_UID + 1] = {0};
    if (whole && (vectors_used > 1 || i->fd < 0)) write_out(p);
    vectors_used = 1;
    if (i->fd < 0) return i->status;
    close(i->fd);
    memcpy(name, uid.at, uid.left);
    if (whole && !i->status && renameat(incoming, i->part, folder, name) == 0) return 0;
    unlinkat(incoming, i->part, 0);
    return i->status ? i->status : 0xA700;
}

static int open_folder(const char *name, int below) {
    int fd;
    if (mkdirat(below, name, 0777) < 0 && errno != EEXIST) fail(name);
    if ((fd = openat(below, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) fail(name);
    return fd;
}

int main(int argc, char **argv) {
    struct timespec now;
    if (argc != 3) {
        fprintf(stderr, "usage: floor PORT FOLDER\n");
        return 2;
    }
    folder = open_folder(argv[2], AT_FDCWD);
    incoming = open_folder("incoming", folder);
    /* Names start at the clock: what an earlier run left behind is not in the way. */
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(next_part, sizeof next_part, "%011lld%09ld", (long long)now.tv_sec, now.tv_nsec);
    serve(atoi(argv[1]));
    return 0;
}

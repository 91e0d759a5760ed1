/* A requestor's associations: opened and released, one PDU at a time, and the command sets.
 *
 * Whatever goes wrong ends the program: with a message that names the association, and code 2.
 *
 * Sources: PS3.8 9.3 (upper layer), PS3.7 9.3.1 and 9.3.5 (C-STORE, C-ECHO).
 */
#ifndef REQUESTOR_H
#define REQUESTOR_H

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "template.h"
#include "wire.h"

enum { MOST_TEMPLATES = 64, MOST_RESPONSE = 1024 };

/* How every association is opened. */
static struct {
    const char *host, *called;
    int port, timeout; /* seconds */
    unsigned window;
    uint32_t pdu;
    bool nagle;
} target = {
    .host = "127.0.0.1", .called = "ANY-SCP", .timeout = 60, .window = 1, .pdu = 131072,
};

/* What may be sent over it: template k has context 2k + 1, unless an earlier one's serves. */
static struct template templates[MOST_TEMPLATES];

struct outstanding {
    uint64_t due, sent; /* ns; sent: 0 while bytes of it are left */
    size_t size;
};

struct association {
    int fd, number;
    bool big, watched; /* watched: for room in the socket */
    size_t most;       /* bytes of data set in a PDU */
    uint64_t begun, answered;
    struct outstanding *outstanding; /* of message k: k % window */
    /* The message being sent: */
    char sop[MOST_UID], series[MOST_UID];
    uint8_t command[512], full_head[12], last_head[12];
    struct iovec *vectors;
    size_t vectors_room, vector, vector_end;
    /* The response being received: */
    uint8_t in[4096], set[MOST_RESPONSE];
    size_t in_size, set_size;
};

static void fail(const char *format, ...) {
    va_list words;
    va_start(words, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    va_end(words);
    exit(2);
}

static const char *lost_because(ssize_t got) {
    if (got == 0) return "closed by the peer";
    return errno == EAGAIN ? "no answer in time" : strerror(errno);
}

static void read_whole(struct association *a, void *into, size_t n) {
    uint8_t *p = into;
    while (n) {
        ssize_t got = recv(a->fd, p, n, 0);
        if (got <= 0) fail("association %d: %s", a->number, lost_because(got));
        p += got;
        n -= (size_t)got;
    }
}

static void write_whole(struct association *a, const void *from, size_t n) {
    if (send(a->fd, from, n, MSG_NOSIGNAL) != (ssize_t)n)
        fail("association %d: %s", a->number, strerror(errno));
}

/* Read a PDU of the type that is due; its body, until the next is read. */
static struct span read_pdu(struct association *a, unsigned type) {
    static uint8_t body[65536];
    uint8_t head[6];
    uint32_t n;
    read_whole(a, head, 6);
    n = get32(head + 2);
    if (n > sizeof body) fail("association %d: a PDU of %" PRIu32 " bytes", a->number, n);
    read_whole(a, body, n);
    if (head[0] == PDU_ASSOCIATE_RJ && n == 4)
        fail("association %d: rejected: result %d, source %d, reason %d", a->number, body[1],
             body[2], body[3]);
    if (head[0] == PDU_ABORT && n == 4)
        fail("association %d: aborted: source %d, reason %d", a->number, body[2], body[3]);
    if (head[0] != type) fail("association %d: PDU %d instead of %u", a->number, head[0], type);
    return (struct span){body, n};
}

static uint8_t *put_context(uint8_t *p, const struct template *t) {
    uint8_t value[256], *q = put32(value, (uint32_t)t->context << 24);
    q = put_item(q, 0x30, t->sop_class, strlen(t->sop_class));
    q = put_item(q, 0x40, t->syntax, strlen(t->syntax));
    return put_item(p, 0x20, value, (size_t)(q - value));
}

static size_t make_request(uint8_t *rq) {
    uint8_t user[128], number[4], *p, *q = user;
    int i;
    memset(rq, 0, 74);
    rq[7] = 1;
    memset(rq + 10, ' ', 32);
    memcpy(rq + 10, target.called, strnlen(target.called, 16));
    memcpy(rq + 26, "LOAD", 4);
    p = put_item(rq + 74, 0x10, APPLICATION_CONTEXT, strlen(APPLICATION_CONTEXT));
    for (i = 0; i < MOST_TEMPLATES; i++)
        if (templates[i].context && templates[i].context == 2 * i + 1)
            p = put_context(p, &templates[i]);
    put32(number, target.pdu);
    q = put_item(q, 0x51, number, 4);
    q = put_item(q, 0x52, "1.2.5.1", 7);
    if (target.window > 1) {
        put16(put16(number, target.window), 1);
        q = put_item(q, 0x53, number, 4);
    }
    p = put_item(p, 0x50, user, (size_t)(q - user));
    put32(put16(rq, PDU_ASSOCIATE_RQ << 8), (uint32_t)(p - rq - 6));
    return (size_t)(p - rq);
}

/* Every context must have been accepted. What is sent is no longer than the peer takes, nor than
 * --pdu. */
static void read_acceptance(struct association *a, struct span ac) {
    struct span fixed, item, sub;
    uint32_t most = target.pdu;
    bool accepted[256] = {false};
    unsigned type, sub_type;
    int i;
    if (!take(&ac, 68, &fixed)) fail("association %d: A-ASSOCIATE-AC too short", a->number);
    while ((type = next_item(&ac, &item))) {
        if (type == 0x21 && item.left >= 4) accepted[item.at[0]] = item.at[2] == 0;
        while (type == 0x50 && (sub_type = next_item(&item, &sub)))
            if (sub_type == 0x51 && sub.left == 4 && get32(sub.at) && get32(sub.at) < most)
                most = get32(sub.at);
    }
    for (i = 0; i < MOST_TEMPLATES; i++)
        if (templates[i].context && !accepted[templates[i].context])
            fail("association %d: %s in %s not accepted", a->number, templates[i].sop_class,
                 templates[i].syntax);
    if (most < 512) fail("association %d: the peer takes only %" PRIu32 " bytes", a->number, most);
    a->most = (most - 6) & ~(size_t)1;
}

static void associate(struct association *a) {
    static uint8_t rq[MOST_TEMPLATES * 160 + 512];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)target.port)};
    struct timeval patience = {.tv_sec = target.timeout};
    int on = 1;
    if (inet_pton(AF_INET, target.host, &to.sin_addr) != 1) fail("%s: not an address", target.host);
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (a->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(a->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(a->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(a->fd, (struct sockaddr *)&to, sizeof to) < 0)
        fail("association %d: connect: %s", a->number, strerror(errno));
    if (!target.nagle) setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    write_whole(a, rq, make_request(rq));
    read_acceptance(a, read_pdu(a, PDU_ASSOCIATE_AC));
}

static void ask_release(struct association *a) {
    static const uint8_t rq[10] = {PDU_RELEASE_RQ, 0, 0, 0, 0, 4};
    write_whole(a, rq, sizeof rq);
}

static void end_release(struct association *a) {
    read_pdu(a, PDU_RELEASE_RP);
    close(a->fd);
}

/* All at once: a receiver's last words take as long as they take, but not one after the other. */
static void release(struct association *some, int n) {
    int i;
    for (i = 0; i < n; i++)
        if (some[i].fd >= 0) ask_release(&some[i]);
    for (i = 0; i < n; i++)
        if (some[i].fd >= 0) end_release(&some[i]);
}

static unsigned message_id(uint64_t number) { return (unsigned)(number % 65535) + 1; }

/* A request's only PDU and fragment; its size. Priority and move originator are left at nothing. */
static size_t make_command(uint8_t *out, const struct template *t, unsigned field, unsigned id,
                           struct span sop) {
    uint8_t *set = out + 12, *p = set + 12;
    struct span sop_class = {(const uint8_t *)t->sop_class, strlen(t->sop_class)};
    p = put_uid(p, 0x0002, sop_class);
    p = put_us(p, 0x0100, field);
    p = put_us(p, 0x0110, id);
    if (field == C_STORE) p = put_us(p, 0x0700, 0);
    p = put_us(p, 0x0800, field == C_STORE ? 0x0001 : NO_DATA_SET);
    if (sop.left) p = put_uid(p, 0x1000, sop);
    put32_le(put32_le(put32_le(set, 0), 4), (uint32_t)(p - set) - 12);
    put_head(out, (size_t)(p - set), t->context, FRAGMENT_COMMAND | FRAGMENT_LAST);
    return (size_t)(p - out);
}

/* Status and message of the command set of a response to `field`; false where it is none, or where
 * they are not there. */
static bool read_response(struct span set, unsigned field, unsigned *id, unsigned *status) {
    struct span value;
    bool has_id = false, has_status = false, answers = false;
    int element;
    while ((element = next_element(&set, &value)) >= 0) {
        if (value.left != 2) continue;
        if (element == 0x0100) answers = get16_le(value.at) == (field | RESPONSE);
        if (element == 0x0120) has_id = true, *id = get16_le(value.at);
        if (element == 0x0900) has_status = true, *status = get16_le(value.at);
    }
    return answers && has_id && has_status && set.left == 0;
}

#endif

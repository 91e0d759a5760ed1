/* Load for a storage SCP: load PORT ASSOCIATIONS COUNT WINDOW BYTES TAG
 *
 * Opens the associations to 127.0.0.1, then sends COUNT instances over each, WINDOW outstanding,
 * and prints instances per second from the first byte to the last response. TAG (digits) makes the
 * UIDs of a run its own. Any status but 0000 ends it with exit code 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CT "1.2.840.10008.5.1.4.1.1.2"

struct association {
    int fd, number, begun, answered;
    uint32_t max_pdu;
    uint8_t *out; /* the message under way */
    size_t out_size, out_at;
    uint8_t in[65536];
    size_t in_size;
};

static size_t data_size;
static int count, window;
static const char *tag;
static uint8_t *data; /* a data set, its UIDs last written for one instance */

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint8_t *be16(uint8_t *p, unsigned v) {
    *p++ = (uint8_t)(v >> 8);
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *be32(uint8_t *p, uint32_t v) { return be16(be16(p, v >> 16), v & 0xffff); }

static uint8_t *le16(uint8_t *p, unsigned v) {
    *p++ = (uint8_t)v;
    *p++ = (uint8_t)(v >> 8);
    return p;
}

static uint8_t *le32(uint8_t *p, uint32_t v) { return le16(le16(p, v & 0xffff), v >> 16); }

/* An item of an A-ASSOCIATE-RQ. PS3.8 9.3.2 */
static uint8_t *item(uint8_t *p, unsigned type, const void *value, size_t n) {
    *p++ = (uint8_t)type;
    *p++ = 0;
    p = be16(p, (unsigned)n);
    memcpy(p, value, n);
    return p + n;
}

static size_t associate_rq(uint8_t *out) {
    uint8_t context[256], user[64], max[4], ops[4], *p, *q;
    memset(out, 0, 74);
    out[0] = 1;
    out[7] = 1;
    memcpy(out + 10, "ANY-SCP         LOAD            ", 32);
    p = item(out + 74, 0x10, "1.2.840.10008.3.1.1.1", 21);
    q = context;
    *q++ = 1;
    *q++ = 0;
    *q++ = 0;
    *q++ = 0;
    q = item(q, 0x30, CT, strlen(CT));
    q = item(q, 0x40, "1.2.840.10008.1.2.1", 19);
    p = item(p, 0x20, context, (size_t)(q - context));
    be32(max, 16384);
    q = item(user, 0x51, max, 4);
    q = item(q, 0x52, "1.2.3.4", 7);
    if (window > 1) {
        be16(be16(ops, (unsigned)window), 1);
        q = item(q, 0x53, ops, 4);
    }
    p = item(p, 0x50, user, (size_t)(q - user));
    be32(out + 2, (uint32_t)(p - out - 6));
    return (size_t)(p - out);
}

/* An element in Implicit VR Little Endian, for commands. PS3.7 6.3.1 */
static uint8_t *command(uint8_t *p, unsigned element, const void *value, size_t n) {
    p = le32(le16(le16(p, 0), element), (uint32_t)n);
    memcpy(p, value, n);
    return p + n;
}

/* An element in Explicit VR Little Endian. PS3.5 7.1.2 */
static uint8_t *element(uint8_t *p, unsigned group, unsigned number, const char *vr,
                        const char *value) {
    size_t n = strlen(value), even = (n + 1) & ~(size_t)1;
    p = le16(le16(p, group), number);
    memcpy(p, vr, 2);
    p = le16(p + 2, (unsigned)even);
    memset(p, vr[0] == 'U' ? 0 : ' ', even);
    memcpy(p, value, n);
    return p + even;
}

static void make_message(struct association *a) {
    char sop[80], study[64], series[80];
    uint8_t set[512], two[2], group[4], *p = set + 12, *q;
    size_t n = data_size, at = 0, sop_size;
    snprintf(sop, sizeof sop, "1.2.5.%s.%d.%d", tag, a->number, a->begun);
    snprintf(study, sizeof study, "1.2.5.%s", tag);
    snprintf(series, sizeof series, "1.2.5.%s.%d", tag, a->number);
    sop_size = (strlen(sop) + 1) & ~(size_t)1;
    p = command(p, 0x0002, CT, 26); /* its NUL included */
    le16(two, 1);
    p = command(p, 0x0100, two, 2);
    le16(two, (unsigned)(a->begun % 65535 + 1));
    p = command(p, 0x0110, two, 2);
    le16(two, 0);
    p = command(p, 0x0700, two, 2);
    le16(two, 1);
    p = command(p, 0x0800, two, 2);
    memset(sop + strlen(sop), 0, 1);
    p = command(p, 0x1000, sop, sop_size);
    le32(group, (uint32_t)(p - set - 12));
    command(set, 0x0000, group, 4);

    q = data;
    q = element(q, 8, 0x16, "UI", CT);
    q = element(q, 8, 0x18, "UI", sop);
    q = element(q, 8, 0x60, "CS", "CT");
    q = element(q, 0x10, 0x20, "LO", "LOAD");
    q = element(q, 0x20, 0x0d, "UI", study);
    q = element(q, 0x20, 0x0e, "UI", series);
    q = le16(le16(q, 0x7fe0), 0x10);
    memcpy(q, "OW\0\0", 4);
    q = le32(q + 4, (uint32_t)(data_size - (size_t)(q - data) - 8));

    q = a->out;
    *q++ = 4;
    *q++ = 0;
    q = be32(q, (uint32_t)(p - set + 6));
    q = be32(q, (uint32_t)(p - set + 2));
    *q++ = 1;
    *q++ = 3;
    memcpy(q, set, (size_t)(p - set));
    q += p - set;
    while (n) {
        size_t piece = n < a->max_pdu - 6 ? n : a->max_pdu - 6;
        *q++ = 4;
        *q++ = 0;
        q = be32(q, (uint32_t)piece + 6);
        q = be32(q, (uint32_t)piece + 2);
        *q++ = 1;
        *q++ = piece == n ? 2 : 0;
        memcpy(q, data + at, piece);
        q += piece;
        at += piece;
        n -= piece;
    }
    a->out_size = (size_t)(q - a->out);
    a->out_at = 0;
    a->begun++;
}

static void read_whole(int fd, void *into, size_t n) {
    uint8_t *p = into;
    while (n) {
        ssize_t got = recv(fd, p, n, 0);
        if (got <= 0) fail("closed while associating");
        p += got;
        n -= (size_t)got;
    }
}

static void associate(struct association *a, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    uint8_t rq[1024], head[6], *ac, *p, *end;
    int on = 1;
    uint32_t n;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (a->fd < 0 || connect(a->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (send(a->fd, rq, associate_rq(rq), 0) < 0) fail("send");
    read_whole(a->fd, head, 6);
    if (head[0] != 2) {
        fprintf(stderr, "load: association refused\n");
        exit(1);
    }
    n = (uint32_t)head[2] << 24 | (uint32_t)head[3] << 16 | (uint32_t)head[4] << 8 | head[5];
    ac = malloc(n);
    read_whole(a->fd, ac, n);
    a->max_pdu = 16384;
    for (p = ac + 68, end = ac + n; p + 4 <= end;) {
        unsigned size = (unsigned)p[2] << 8 | p[3];
        if (p[0] == 0x50) size = 0; /* its items follow */
        if (p[0] == 0x51)
            a->max_pdu = (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
        p += 4 + size;
    }
    free(ac);
    if (a->max_pdu == 0 || a->max_pdu > 131072) a->max_pdu = 131072;
    a->out = malloc(data_size + 4096 + data_size / (a->max_pdu - 6) * 12);
}

/* Look for the status in a response. */
static void take_response(struct association *a, const uint8_t *p, size_t n) {
    const uint8_t *end = p + n;
    for (p += 6; p + 8 <= end;) {
        uint32_t size = p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
        if (p[2] == 0 && p[3] == 9) {
            if (p[8] | p[9]) {
                fprintf(stderr, "load: status %02x%02x\n", p[9], p[8]);
                exit(1);
            }
            a->answered++;
            return;
        }
        p += 8 + size;
    }
    fprintf(stderr, "load: a response without a status\n");
    exit(1);
}

static void receive(struct association *a) {
    ssize_t got = recv(a->fd, a->in + a->in_size, sizeof a->in - a->in_size, MSG_DONTWAIT);
    size_t at = 0;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("closed");
    a->in_size += (size_t)got;
    while (a->in_size - at >= 6) {
        const uint8_t *p = a->in + at;
        size_t n = ((size_t)p[2] << 24 | (size_t)p[3] << 16 | (size_t)p[4] << 8 | p[5]) + 6;
        if (a->in_size - at < n) break;
        if (p[0] != 4) {
            fprintf(stderr, "load: PDU %d instead of a response\n", p[0]);
            exit(1);
        }
        take_response(a, p + 6, n - 6);
        at += n;
    }
    memmove(a->in, a->in + at, a->in_size - at);
    a->in_size -= at;
}

/* Send what may be sent; whether more has to wait for room in the socket. */
static int push(struct association *a) {
    for (;;) {
        ssize_t got;
        if (a->out_at == a->out_size) {
            if (a->begun == count || a->begun - a->answered >= window) return 0;
            make_message(a);
        }
        got = send(a->fd, a->out + a->out_at, a->out_size - a->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (got < 0 && errno == EAGAIN) return 1;
        if (got < 0) fail("send");
        a->out_at += (size_t)got;
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    int port, n, i, open;
    struct association *all;
    struct pollfd *polls;
    double begun;
    if (argc != 7) {
        fprintf(stderr, "usage: load PORT ASSOCIATIONS COUNT WINDOW BYTES TAG\n");
        return 2;
    }
    port = atoi(argv[1]);
    n = atoi(argv[2]);
    count = atoi(argv[3]);
    window = atoi(argv[4]);
    data_size = strtoull(argv[5], NULL, 10) & ~(size_t)1;
    tag = argv[6];
    data = calloc(1, data_size);
    all = calloc((size_t)n, sizeof *all);
    polls = calloc((size_t)n, sizeof *polls);
    if (n < 1 || data_size < 1024 || data == NULL || all == NULL || polls == NULL) return 2;
    for (i = 0; i < n; i++) {
        all[i].number = i;
        associate(&all[i], port);
        polls[i].fd = all[i].fd;
    }
    begun = now();
    for (;;) {
        open = 0;
        for (i = 0; i < n; i++) {
            polls[i].events = POLLIN;
            if (push(&all[i])) polls[i].events |= POLLOUT;
            open += all[i].answered < count;
        }
        if (!open) break;
        if (poll(polls, (nfds_t)n, 60000) <= 0) fail("no answer for a minute");
        for (i = 0; i < n; i++)
            if (polls[i].revents) receive(&all[i]);
    }
    printf("%.1f\n", n * count / (now() - begun));
    for (i = 0; i < n; i++) {
        uint8_t head[10] = {5, 0, 0, 0, 0, 4};
        if (send(all[i].fd, head, 10, MSG_NOSIGNAL) == 10) read_whole(all[i].fd, head, 10);
        close(all[i].fd);
    }
    return 0;
}

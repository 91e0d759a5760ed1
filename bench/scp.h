/* A storage SCP without storage: sockets, negotiation, framing and responses; one process, one
 * thread. floor.c and sink.c say what becomes of the data sets: they define `struct instance`
 * before they include this file, and the four functions declared below after it.
 *
 * It does what a receiver cannot do without, and checks what could do it harm; whatever is out of
 * place ends the association.
 *
 * Sources: PS3.8 9.3 and Annex D.1 (upper layer), PS3.7 9.3.1 and 9.3.5 (C-STORE, C-ECHO).
 */
#ifndef SCP_H
#define SCP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define IMPLEMENTATION "2.25.38390698104501948587209265606003860014"
#define VERSION_NAME "FASTSCP_BENCH"

enum {
    BUFFER = 262144,    /* bytes of one read */
    MAX_PDU = 131072,   /* as announced */
    MOST_HELD = 262144, /* no A-ASSOCIATE-RQ with 128 contexts is longer */
    MOST_CONTEXTS = 128,
    MOST_COMMAND = 1024,
    MOST_UID = 64,
    HELD_UP_MS = 25,   /* of silence in a message; delayed acknowledgements take 40 */
    LEAST_TAKEN = 512, /* a response goes out in one PDU; who takes less is refused */
};

struct peer {
    int fd;
    bool established, in_pdu, in_fragment, in_data_set;
    bool held_up;     /* it waits for acknowledgements, as was seen once */
    uint64_t read_ms; /* when something last came */
    uint8_t pdu_type, context, control;
    uint32_t pdu_left, fragment_left; /* bytes still to come of what is under way */
    uint8_t *held;                    /* the start of something needed in one piece */
    size_t held_size;
    uint8_t command[MOST_COMMAND]; /* the command set of the message under way */
    size_t command_size;
    unsigned command_field, message_id;
    struct span sop_class, sop_instance; /* inside `command`, padding included */
    uint8_t *request;                    /* the A-ASSOCIATE-RQ, and inside it */
    struct span syntaxes[256];           /* the transfer syntaxes accepted, by context ID */
    struct instance instance;
};

/* A C-STORE-RQ came and a data set follows. */
static void data_set_begins(struct peer *p);
/* Bytes of it. They stay where they are until data_set_pauses or data_set_ends. */
static void data_set_bytes(struct peer *p, struct span bytes);
/* The buffer will be read into again. */
static void data_set_pauses(struct peer *p);
/* It is complete, or (whole = false) the association ended before; gives the status to answer. */
static unsigned data_set_ends(struct peer *p, bool whole);

static uint8_t buffer[BUFFER];
static uint8_t out[65536]; /* what answers one read: it leaves in one piece */
static size_t out_size;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

/* -- What is sent */

/* Send what has gathered; false if the peer lets so much lie unread that it does not fit. */
static bool send_out(struct peer *p) {
    size_t n = out_size;
    out_size = 0;
    return n == 0 || send(p->fd, out, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

static bool room(struct peer *p, size_t n) { return n <= sizeof out - out_size || send_out(p); }

/* A-RELEASE-RP or A-ABORT; false, as the association is over. PS3.8 9.3.7, 9.3.8 */
static bool last_word(struct peer *p, unsigned type, unsigned source, unsigned reason) {
    uint8_t *to;
    if (!room(p, 10)) return false;
    to = put32(put16(out + out_size, type << 8), 4);
    put16(put16(to, 0), source << 8 | reason);
    out_size += 10;
    send_out(p);
    return false;
}

static bool unexpected(struct peer *p) { return last_word(p, PDU_ABORT, 2, 2); }

static bool respond(struct peer *p, unsigned status) {
    uint8_t set[LEAST_TAKEN - 6], *q = set + 12;
    size_t n;
    if (p->sop_class.left) q = put_uid(q, 0x0002, p->sop_class);
    q = put_us(q, 0x0100, p->command_field | RESPONSE);
    q = put_us(q, 0x0120, p->message_id);
    q = put_us(q, 0x0800, NO_DATA_SET);
    q = put_us(q, 0x0900, status);
    if (p->sop_instance.left) q = put_uid(q, 0x1000, p->sop_instance);
    n = (size_t)(q - set);
    put32_le(put32_le(put32_le(set, 0), 4), (uint32_t)n - 12);
    if (!room(p, n + 12)) return false;
    q = put_head(out + out_size, n, p->context, FRAGMENT_COMMAND | FRAGMENT_LAST);
    memcpy(q, set, n);
    out_size += n + 12;
    return true;
}

/* -- Negotiation */

/* Which of a context's transfer syntaxes: Explicit LE, else Implicit LE, else the first. */
static struct span choose(struct span item) {
    struct span uid, best = {NULL, 0};
    int rank, best_rank = 0;
    unsigned type;
    while ((type = next_item(&item, &uid))) {
        uid = trimmed(uid);
        if (type != 0x40 || uid.left == 0 || uid.left > MOST_UID) continue;
        rank = span_is(uid, EXPLICIT_LE) ? 3 : span_is(uid, IMPLICIT_LE) ? 2 : 1;
        if (rank > best_rank) {
            best = uid;
            best_rank = rank;
        }
    }
    return best;
}

static uint8_t *answer_context(struct peer *p, uint8_t *to, struct span item) {
    uint8_t value[8 + MOST_UID], *q;
    struct span head, *chosen;
    if (!take(&item, 4, &head)) return to;
    chosen = &p->syntaxes[head.at[0]];
    *chosen = choose(item);
    q = put16(put16(value, (unsigned)head.at[0] << 8), chosen->left ? 0 : 4 << 8);
    q = put_item(q, 0x40, chosen->left ? (const char *)chosen->at : IMPLICIT_LE,
                 chosen->left ? chosen->left : strlen(IMPLICIT_LE));
    return put_item(to, 0x21, value, (size_t)(q - value));
}

/* The user information: the asynchronous operations window is granted as asked. False for a peer
 * that takes less than we have to say. */
static bool answer_user(uint8_t **to, struct span item) {
    uint8_t value[128], most[4], *q = value;
    struct span sub, window = {NULL, 0};
    uint32_t taken = 0;
    unsigned type;
    while ((type = next_item(&item, &sub))) {
        if (type == 0x51 && sub.left == 4) taken = get32(sub.at);
        if (type == 0x53 && sub.left == 4) window = sub;
    }
    put32(most, MAX_PDU);
    q = put_item(q, 0x51, most, 4);
    q = put_item(q, 0x52, IMPLEMENTATION, strlen(IMPLEMENTATION));
    if (window.left) q = put_item(q, 0x53, window.at, 4);
    q = put_item(q, 0x55, VERSION_NAME, strlen(VERSION_NAME));
    *to = put_item(*to, 0x50, value, (size_t)(q - value));
    return taken == 0 || taken >= LEAST_TAKEN; /* 0: any length */
}

/* PS3.8 9.3.2, 9.3.3 */
static bool associate(struct peer *p, struct span rq) {
    struct span fixed, item;
    uint8_t *to = out;
    unsigned type, contexts = 0;
    if (p->established || (p->request = malloc(rq.left)) == NULL) return unexpected(p);
    memcpy(p->request, rq.at, rq.left);
    rq.at = p->request;
    if (!take(&rq, 68, &fixed)) return unexpected(p);
    memcpy(to + 6, fixed.at, 68); /* titles and reserved bytes go back as they came */
    put16(to + 6, 1);
    to = put_item(to + 74, 0x10, APPLICATION_CONTEXT, strlen(APPLICATION_CONTEXT));
    while ((type = next_item(&rq, &item))) {
        if (type == 0x20 && ++contexts > MOST_CONTEXTS) return unexpected(p);
        if (type == 0x20) to = answer_context(p, to, item);
        if (type == 0x50 && p->established) return unexpected(p);
        if (type == 0x50 && !answer_user(&to, item)) return unexpected(p);
        if (type == 0x50) p->established = true;
    }
    if (!p->established) return unexpected(p);
    put32(put16(out, PDU_ASSOCIATE_AC << 8), (uint32_t)(to - out - 6));
    out_size = (size_t)(to - out);
    return true;
}

/* -- What is received */

/* A command set is complete. PS3.7 9.3.1.1, 9.3.5.1 */
static bool command(struct peer *p) {
    struct span set = {p->command, p->command_size}, value;
    unsigned data_set = NO_DATA_SET;
    int element;
    p->command_size = 0;
    p->command_field = 0;
    p->message_id = 0;
    p->sop_class = p->sop_instance = (struct span){NULL, 0};
    while ((element = next_element(&set, &value)) >= 0) {
        if (element == 0x0002) p->sop_class = value;
        if (element == 0x1000) p->sop_instance = value;
        if (value.left != 2) continue;
        if (element == 0x0100) p->command_field = get16_le(value.at);
        if (element == 0x0110) p->message_id = get16_le(value.at);
        if (element == 0x0800) data_set = get16_le(value.at);
    }
    if (set.left || p->sop_class.left > MOST_UID || p->sop_instance.left > MOST_UID ||
        p->syntaxes[p->context].left == 0)
        return unexpected(p);
    if (p->command_field == C_ECHO && data_set == NO_DATA_SET) return respond(p, 0);
    if (p->command_field != C_STORE || data_set == NO_DATA_SET) return unexpected(p);
    p->in_data_set = true;
    data_set_begins(p);
    return true;
}

/* What the buffer has of the fragment under way. */
static bool fragment(struct peer *p, struct span *in) {
    struct span got;
    take(in, in->left < p->fragment_left ? in->left : p->fragment_left, &got);
    p->fragment_left -= (uint32_t)got.left;
    p->in_fragment = p->fragment_left > 0;
    if (p->control & FRAGMENT_COMMAND) {
        if (got.left > MOST_COMMAND - p->command_size) return unexpected(p);
        memcpy(p->command + p->command_size, got.at, got.left);
        p->command_size += got.left;
    } else {
        data_set_bytes(p, got);
    }
    if (p->in_fragment || !(p->control & FRAGMENT_LAST)) return true;
    if (p->control & FRAGMENT_COMMAND) return command(p);
    p->in_data_set = false;
    return respond(p, data_set_ends(p, true));
}

/* PS3.8 9.3.5.1 and Annex E.2 */
static bool fragment_head(struct peer *p, const uint8_t *at) {
    uint32_t n = get32(at);
    bool is_command = at[5] & FRAGMENT_COMMAND;
    if (n < 2 || n > p->pdu_left - 4 || is_command == p->in_data_set) return unexpected(p);
    if ((p->in_data_set || p->command_size) && at[4] != p->context) return unexpected(p);
    p->pdu_left -= n + 4;
    p->fragment_left = n - 2;
    p->context = at[4];
    p->control = at[5];
    p->in_fragment = true;
    return true;
}

static bool pdu_head(struct peer *p, const uint8_t *at) {
    p->pdu_type = at[0];
    p->pdu_left = get32(at + 2);
    p->in_pdu = true;
    if (p->pdu_type == PDU_P_DATA) return p->established || unexpected(p);
    if (p->pdu_type == PDU_ASSOCIATE_RQ) return p->pdu_left <= MOST_HELD || unexpected(p);
    return p->pdu_left == 4 || unexpected(p);
}

/* A whole PDU other than P-DATA-TF. */
static bool control(struct peer *p, struct span body) {
    p->in_pdu = false;
    if (p->pdu_type == PDU_ASSOCIATE_RQ) return associate(p, body);
    if (p->pdu_type == PDU_RELEASE_RQ) return last_word(p, PDU_RELEASE_RP, 0, 0);
    return p->pdu_type == PDU_ABORT ? false : unexpected(p);
}

/* n bytes in one piece: in the buffer, or gathered from this read and earlier ones. NULL while
 * some are still to come. */
static const uint8_t *need(struct peer *p, struct span *in, size_t n) {
    struct span got;
    if (p->held_size == 0) {
        if (take(in, n, &got)) return got.at;
        if (in->left == 0) return NULL;
        if ((p->held = realloc(p->held, n)) == NULL) fail("memory");
    }
    take(in, in->left < n - p->held_size ? in->left : n - p->held_size, &got);
    memcpy(p->held + p->held_size, got.at, got.left);
    p->held_size += got.left;
    if (p->held_size < n) return NULL;
    p->held_size = 0;
    return p->held;
}

/* Go through what one read brought; false at the end of the association. */
static bool walk(struct peer *p, struct span in) {
    const uint8_t *at;
    for (;;) {
        if (p->in_fragment) {
            if (!fragment(p, &in)) return false;
            if (p->in_fragment) return true;
        } else if (!p->in_pdu) {
            if ((at = need(p, &in, 6)) == NULL) return true;
            if (!pdu_head(p, at)) return false;
        } else if (p->pdu_type != PDU_P_DATA) {
            if ((at = need(p, &in, p->pdu_left)) == NULL) return true;
            if (!control(p, (struct span){at, p->pdu_left})) return false;
        } else if (p->pdu_left == 0) {
            p->in_pdu = false;
        } else if (p->pdu_left < 6) {
            return unexpected(p);
        } else {
            if ((at = need(p, &in, 6)) == NULL) return true;
            if (!fragment_head(p, at)) return false;
        }
    }
}

/* -- Sockets */

static void drop(struct peer *p) {
    if (p->in_data_set) data_set_ends(p, false);
    out_size = 0; /* what it was still to be told is not for the next one */
    close(p->fd);
    free(p->held);
    free(p->request);
    free(p);
}

/* To the tick of the kernel's clock. */
static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void receive(struct peer *p) {
    ssize_t got = recv(p->fd, buffer, BUFFER, MSG_DONTWAIT);
    uint64_t now = now_ms();
    int on = 1;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if ((p->in_pdu || p->in_data_set || p->held_size) && now - p->read_ms > HELD_UP_MS)
        p->held_up = true;
    p->read_ms = now;
    if (got <= 0 || !walk(p, (struct span){buffer, (size_t)got}) || !send_out(p)) {
        drop(p);
        return;
    }
    if (p->in_data_set) data_set_pauses(p);
    /* A sender with Nagle's algorithm on holds the tail of an instance back until it is told that
     * the rest came: at once, not 40 ms later. The kernel forgets the flag, hence each time; for
     * other senders it is a packet in vain. */
    if (p->held_up) setsockopt(p->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void welcome(int poll, int listener) {
    struct epoll_event event = {.events = EPOLLIN};
    struct peer *p;
    int on = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if ((p = calloc(1, sizeof *p)) == NULL) fail("memory");
        p->fd = fd;
        event.data.ptr = p;
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) fail("accept");
}

static int listen_on(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t n = sizeof at;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, n) < 0) fail("bind");
    if (listen(fd, 4096) < 0 || getsockname(fd, (struct sockaddr *)&at, &n) < 0) fail("listen");
    fprintf(stderr, "listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    return fd;
}

/* TERM and INT as something to be polled: no handler, nothing to race with. */
static int stop_signal(void) {
    sigset_t set;
    int fd;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if ((fd = signalfd(-1, &set, SFD_CLOEXEC)) < 0) fail("signalfd");
    return fd;
}

/* Serve on 127.0.0.1 until TERM. */
static void serve(int port) {
    static char listening, stopping; /* their addresses tell two descriptors from peers */
    struct rlimit files;
    struct epoll_event events[64];
    int n, i, poll = epoll_create1(EPOLL_CLOEXEC), stop = stop_signal(), listener;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    listener = listen_on(port);
    events[0] = (struct epoll_event){.events = EPOLLIN, .data.ptr = &listening};
    events[1] = (struct epoll_event){.events = EPOLLIN, .data.ptr = &stopping};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &events[0]) < 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, stop, &events[1]) < 0)
        fail("epoll");
    for (;;) {
        n = epoll_wait(poll, events, 64, -1);
        if (n < 0 && errno != EINTR) fail("epoll_wait");
        for (i = 0; i < n; i++) {
            if (events[i].data.ptr == &stopping) return;
            if (events[i].data.ptr == &listening)
                welcome(poll, listener);
            else
                receive(events[i].data.ptr);
        }
    }
}

#endif

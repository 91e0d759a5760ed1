/* A load generator for storage SCPs: load PORT [OPTIONS], see `usage` below.
 *
 * One thread; it is meant to cost far less than any receiver does. Data sets go to the socket from
 * where they lie, with heads and UIDs between (sendmsg). One JSON object on stdout:
 *
 *   instances, seconds, rate     answered (the big one apart), from first byte to
 *                                last response, per second
 *   bytes, mb_per_s              of data sets; 10^6 bytes
 *   response_us                  {p50, p90, p99, max}: last byte with the kernel to response read
 *   latency_us                   the same from the time an instance was due (--rate), else null
 *   per_association              {min, max} instances; counts: all of them (--fair), else null
 *   mix                          instances begun of each template
 *   statuses                     {"0000": n, ...}, the big one's among them
 *   big                          {bytes, seconds, mb_per_s, status} (--big), else null
 *   cpu_us                       user and system time of this process meanwhile
 *   slices                       (--slices) for each: instances, and response_us as above
 *
 *   --echo:  associations, seconds, rate, associate_us, echo_us, release_us, cpu_us
 *   --ping:  seconds, rate, echo_us, cpu_us
 *   --slices: a line `ready` before the first byte
 *   --idle:  a line `ready`, then at the end associations, lost, seconds (held), associate_us
 *
 * Exit code 1: a status other than 0000, or an idle association lost. 2: anything else, with a
 * message on stderr and no JSON.
 *
 * Sources: PS3.8 9.3 (upper layer), PS3.7 9.3.1, 9.3.5 (C-STORE, C-ECHO).
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "figures.h"
#include "requestor.h"

enum { MOST_VECTORS = 1024, BIG_VECTORS = 4, MOST_SLICES = 10000 };

static struct {
    const char *file, *mix, *big, *tag;
    int associations, idle, echo;
    uint64_t count, bytes, series_every, seed;
    double rate, fair, ping, slices;
    uint64_t burst;
} ask = {.associations = 1, .count = 100, .bytes = 34000, .burst = 1};

static int template_count; /* those that are mixed; the big one, if any, follows */
static uint64_t weights;
static struct association *all, *big;
static int poll_fd = -1, timer_fd = -1;
static uint64_t started, progress_at, planned, sequence, answered, outstanding, bytes_answered;
static uint64_t big_ns;
static unsigned big_status;
static bool big_done;
static uint64_t statuses[65536];
static struct samples responses, latencies;
/* Of each slice of time that is over: how many responses there were up to its end. */
static size_t slice_ends[MOST_SLICES], slices_over;

static void *memory(void *p, size_t n) {
    if ((p = realloc(p, n)) == NULL) fail("no memory");
    return p;
}

/* -- Messages */

static void put_vector(struct association *a, const void *at, size_t n) {
    if (n) a->vectors[a->vector_end++] = (struct iovec){(void *)(uintptr_t)at, n};
}

/* The command's PDU, then the data set's: heads, and between them `pieces` cut to fit. */
static void put_message(struct association *a, const struct template *t, size_t command_size,
                        struct span *pieces) {
    size_t left = t->data_set.left, room = 8 + 2 * (left / a->most + 1), n;
    struct span part;
    if (room > a->vectors_room) {
        a->vectors = memory(a->vectors, room * sizeof *a->vectors);
        a->vectors_room = room;
    }
    a->vector = a->vector_end = 0;
    put_vector(a, a->command, command_size);
    put_head(a->full_head, a->most, t->context, 0);
    put_head(a->last_head, (left - 1) % a->most + 1, t->context, FRAGMENT_LAST);
    while (left) {
        n = left < a->most ? left : a->most;
        put_vector(a, n == left ? a->last_head : a->full_head, 12);
        for (left -= n; n; n -= part.left) {
            while (pieces->left == 0) pieces++;
            take(pieces, n < pieces->left ? n : pieces->left, &part);
            put_vector(a, part.at, part.left);
        }
    }
}

/* A counter, mixed well (splitmix64): the k-th choice depends on nothing but the seed and k. */
static struct template *choose(uint64_t k) {
    uint64_t z = ask.seed + (k + 1) * 0x9e3779b97f4a7c15;
    struct template *t = templates;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    z = (z ^ z >> 31) % weights;
    while (z >= t->weight) z -= t++->weight;
    return t;
}

static void begin(struct association *a, uint64_t due) {
    struct template *t = a->big ? &templates[template_count] : choose(sequence);
    const uint8_t *start = t->data_set.at, *sop_end = t->sop.at + t->sop.left,
                  *series_end = t->series.at + t->series.left;
    bool new_series = t->own_series || ask.series_every;
    uint64_t series = (uint64_t)a->number;
    struct span sop = {(uint8_t *)a->sop, t->sop.left};
    struct span pieces[] = {
        {start, (size_t)(t->sop.at - start)},
        sop,
        {sop_end, (size_t)(t->series.at - sop_end)},
        {new_series ? (uint8_t *)a->series : t->series.at, t->series.left},
        {series_end, t->data_set.left - (size_t)(series_end - start)},
    };
    if (ask.series_every) series = series * 1000000 + a->begun / ask.series_every;
    if (!make_uid(a->sop, t->sop.left, ask.tag, '1', sequence++) ||
        (new_series && t->series.left &&
         !make_uid(a->series, t->series.left, ask.tag, '2', series)))
        fail("the template's UIDs have no room for tag and number");
    put_message(a, t, make_command(a->command, t, C_STORE, message_id(a->begun), sop), pieces);
    a->outstanding[a->begun++ % target.window] = (struct outstanding){due, 0, t->data_set.left};
    t->begun++;
    outstanding++;
}

static bool idle(const struct association *a) {
    return a->vector == a->vector_end && a->begun - a->answered < target.window;
}

/* Whether an association goes on by itself; with --rate the plan decides, see deal(). */
static bool goes_on(const struct association *a) {
    if (!idle(a)) return false;
    if (a->big) return a->begun == 0;
    if (ask.rate > 0) return false;
    if (ask.fair > 0) return (double)(now() - started) < ask.fair * 1e9;
    return ask.count ? a->begun < ask.count : !big_done;
}

/* How many vectors to hand over. A sender that leaves Nagle's algorithm on is one that nobody
 * tuned: it writes PDU by PDU. */
static size_t vectors_now(const struct association *a) {
    size_t n = 1, left = a->vector_end - a->vector;
    size_t most = a->big ? BIG_VECTORS : MOST_VECTORS;
    if (left > most) left = most;
    if (!target.nagle) return left;
    while (n < left && a->vectors[a->vector + n].iov_base != a->full_head &&
           a->vectors[a->vector + n].iov_base != a->last_head)
        n++;
    return n;
}

static void sent(struct association *a, size_t n) {
    struct iovec *v = a->vectors + a->vector;
    for (; n && n >= v->iov_len; v++) n -= v->iov_len;
    v->iov_base = (uint8_t *)v->iov_base + n;
    v->iov_len -= n;
    a->vector = (size_t)(v - a->vectors);
    progress_at = now();
    if (a->vector == a->vector_end)
        a->outstanding[(a->begun - 1) % target.window].sent = progress_at;
}

static void watch(struct association *a, bool room) {
    struct epoll_event event = {.events = EPOLLIN | (room ? EPOLLOUT : 0), .data.ptr = a};
    if (a->watched == room) return;
    a->watched = room;
    if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, a->fd, &event) < 0) fail("epoll: %s", strerror(errno));
}

/* Send what may be sent and the socket takes; of the big object only two PDUs, or the others would
 * wait for this program and not for the receiver. */
static void push(struct association *a) {
    struct msghdr message = {0};
    ssize_t n;
    for (;;) {
        if (a->vector == a->vector_end) {
            if (!goes_on(a)) break;
            begin(a, 0);
        }
        message.msg_iov = a->vectors + a->vector;
        message.msg_iovlen = vectors_now(a);
        n = sendmsg(a->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) fail("association %d: %s", a->number, strerror(errno));
        if (n > 0) sent(a, (size_t)n);
        if (n < 0 || (a->big && a->vector < a->vector_end)) {
            watch(a, true);
            return;
        }
    }
    watch(a, false);
}

/* -- Responses */

static void end_slices(void) {
    while (ask.slices > 0 && slices_over < MOST_SLICES &&
           (double)(progress_at - started) >= (double)(slices_over + 1) * ask.slices * 1e9)
        slice_ends[slices_over++] = responses.n;
}

static void take_response(struct association *a) {
    struct outstanding *o = &a->outstanding[a->answered % target.window];
    unsigned id, status;
    if (!read_response((struct span){a->set, a->set_size}, C_STORE, &id, &status))
        fail("association %d: no response to C-STORE, or without status or message ID", a->number);
    a->set_size = 0;
    if (a->answered == a->begun || id != message_id(a->answered))
        fail("association %d: response to message %u, which is not due", a->number, id);
    a->answered++;
    outstanding--;
    statuses[status]++;
    if (a->big) {
        big_done = true;
        big_status = status;
        big_ns = progress_at - started;
        return;
    }
    end_slices();
    answered++;
    bytes_answered += o->size;
    add_sample(&responses, o->sent ? progress_at - o->sent : 0);
    if (ask.rate > 0) add_sample(&latencies, progress_at - o->due);
}

static void take_pdu(struct association *a, unsigned type, struct span body) {
    struct span head, fragment;
    if (type == PDU_ABORT && body.left == 4)
        fail("association %d: aborted: source %d, reason %d", a->number, body.at[2], body.at[3]);
    if (type != PDU_P_DATA) fail("association %d: PDU %u instead of a response", a->number, type);
    while (take(&body, 6, &head)) {
        if (get32(head.at) < 2 || !take(&body, get32(head.at) - 2, &fragment) ||
            fragment.left > MOST_RESPONSE - a->set_size)
            fail("association %d: a fragment of a wrong length", a->number);
        memcpy(a->set + a->set_size, fragment.at, fragment.left);
        a->set_size += fragment.left;
        if (head.at[5] & FRAGMENT_LAST) take_response(a);
    }
}

static void receive(struct association *a) {
    ssize_t got = recv(a->fd, a->in + a->in_size, sizeof a->in - a->in_size, MSG_DONTWAIT);
    struct span in, head, body;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0)
        fail("association %d: %s, %" PRIu64 " responses due", a->number, lost_because(got),
             a->begun - a->answered);
    progress_at = now();
    in = (struct span){a->in, a->in_size + (size_t)got};
    while (in.left >= 6 && in.left - 6 >= get32(in.at + 2)) {
        take(&in, 6, &head);
        take(&in, get32(head.at + 2), &body);
        take_pdu(a, head.at[0], body);
    }
    if (in.left == sizeof a->in) fail("association %d: a PDU too long", a->number);
    memmove(a->in, in.at, in.left);
    a->in_size = in.left;
}

/* -- The loop */

static uint64_t due(uint64_t k) {
    return started + (uint64_t)((double)(k - k % ask.burst) / ask.rate * 1e9);
}

static uint64_t wanted(void) { return (uint64_t)ask.associations * ask.count; }

/* Give what is due to associations that are free, in turn, and set the clock for what is not. What
 * finds none free waits for the next response, and is late by as much. */
static void deal(void) {
    static int turn;
    struct itimerspec at = {0};
    uint64_t t = now();
    int tried = 0;
    while (planned < wanted() && due(planned) <= t && tried < ask.associations) {
        struct association *a = &all[turn];
        turn = (turn + 1) % ask.associations;
        tried++;
        if (!idle(a)) continue;
        begin(a, due(planned++));
        push(a);
        tried = 0;
    }
    if (planned < wanted() && due(planned) > t) {
        at.it_value.tv_sec = (time_t)(due(planned) / SECOND);
        at.it_value.tv_nsec = (long)(due(planned) % SECOND);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static bool finished(void) {
    if (outstanding || (big && !big_done)) return false;
    if (ask.fair > 0) return (double)(now() - started) >= ask.fair * 1e9;
    return ask.rate > 0 || ask.count ? answered == wanted() : true;
}

static void add_to_poll(int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll: %s", strerror(errno));
}

static void run(int n) {
    struct epoll_event events[64];
    int i, ready;
    started = progress_at = now();
    for (i = 0; i < n; i++) push(&all[i]);
    while (!finished()) {
        if (ask.rate > 0) deal();
        if ((ready = epoll_wait(poll_fd, events, 64, 1000)) < 0 && errno != EINTR)
            fail("epoll: %s", strerror(errno));
        for (i = 0; i < ready; i++) {
            struct association *a = events[i].data.ptr;
            if (a == NULL) continue; /* the timer */
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(a);
            push(a);
        }
        if (outstanding && now() - progress_at > (uint64_t)target.timeout * SECOND)
            fail("no answer for %d s, %" PRIu64 " responses due", target.timeout, outstanding);
    }
}

static void print_counts(void) {
    uint64_t least = UINT64_MAX, most = 0;
    int i;
    for (i = 0; i < ask.associations; i++) {
        if (all[i].answered < least) least = all[i].answered;
        if (all[i].answered > most) most = all[i].answered;
    }
    if (most < least) least = most;
    printf(", \"per_association\": {\"min\": %" PRIu64 ", \"max\": %" PRIu64 "}, \"counts\": ",
           least, most);
    if (ask.fair <= 0) printf("null");
    for (i = 0; ask.fair > 0 && i < ask.associations; i++)
        printf("%s%" PRIu64, i ? ", " : "[", all[i].answered);
    if (ask.fair > 0) putchar(']');
    for (i = 0; i < template_count; i++)
        printf("%s%" PRIu64, i ? ", " : ", \"mix\": [", templates[i].begun);
    putchar(']');
}

static int print_statuses(void) {
    int i, other = 0;
    const char *comma = "";
    printf(", \"statuses\": {");
    for (i = 0; i < 65536; i++) {
        if (!statuses[i]) continue;
        printf("%s\"%04X\": %" PRIu64, comma, i, statuses[i]);
        comma = ", ";
        other |= i;
    }
    putchar('}');
    return other ? 1 : 0;
}

static void print_big(void) {
    double bytes, seconds = (double)big_ns / 1e9;
    if (big == NULL) {
        printf(", \"big\": null");
        return;
    }
    bytes = (double)templates[template_count].data_set.left;
    printf(", \"big\": {\"bytes\": %.0f, \"seconds\": %.6f, \"mb_per_s\": %.1f", bytes, seconds,
           bytes / seconds / 1e6);
    printf(", \"status\": \"%04X\"}", big_status);
}

/* The rest after the last whole slice is in none. Sorts the samples of each. */
static void print_slices(void) {
    struct samples one;
    size_t k, start = 0;
    if (ask.slices <= 0) return;
    printf(", \"slices\": [");
    for (k = 0; k < slices_over; start = slice_ends[k++]) {
        one = (struct samples){responses.ns + start, slice_ends[k] - start, 0};
        printf("%s{\"instances\": %zu", k ? ", " : "", one.n);
        print_samples("response_us", &one);
        putchar('}');
    }
    putchar(']');
}

static int store(void) {
    int i, code, n = ask.associations + (ask.big ? 1 : 0);
    uint64_t cpu;
    double seconds;
    all = calloc((size_t)n, sizeof *all);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (all == NULL || poll_fd < 0 || timer_fd < 0) fail("begin: %s", strerror(errno));
    add_to_poll(timer_fd, NULL);
    for (i = 0; i < n; i++) {
        all[i].number = i;
        all[i].outstanding = memory(NULL, target.window * sizeof *all[i].outstanding);
        associate(&all[i]);
        add_to_poll(all[i].fd, &all[i]);
    }
    if (ask.big) {
        big = &all[ask.associations];
        big->big = true;
    }
    if (ask.slices > 0) {
        puts("ready");
        fflush(stdout);
    }
    cpu = cpu_us();
    run(n);
    seconds = (double)(progress_at - started) / 1e9;
    cpu = cpu_us() - cpu;
    release(all, n);
    printf("{\"instances\": %" PRIu64 ", \"seconds\": %.6f, \"rate\": %.1f", answered, seconds,
           (double)answered / seconds);
    printf(", \"bytes\": %" PRIu64 ", \"mb_per_s\": %.1f", bytes_answered,
           (double)bytes_answered / seconds / 1e6);
    /* Before all of them are sorted together. */
    print_slices();
    print_samples("response_us", &responses);
    print_samples("latency_us", &latencies);
    print_counts();
    code = print_statuses();
    print_big();
    printf(", \"cpu_us\": %" PRIu64 "}\n", cpu);
    return code;
}

/* -- Without data sets */

static int echo(void) {
    struct association a = {0};
    struct samples associate_ns = {0}, echo_ns = {0}, release_ns = {0};
    struct span none = {NULL, 0}, body, head;
    uint64_t begun = now(), cpu = cpu_us(), t0, t1, t2;
    unsigned id, status;
    double seconds;
    for (; a.number < ask.echo; a.number++) {
        t0 = now();
        associate(&a);
        t1 = now();
        write_whole(&a, a.command, make_command(a.command, templates, C_ECHO, 1, none));
        body = read_pdu(&a, PDU_P_DATA);
        if (!take(&body, 6, &head) || !read_response(body, C_ECHO, &id, &status) || status)
            fail("association %d: no success to C-ECHO", a.number);
        t2 = now();
        ask_release(&a);
        end_release(&a);
        add_sample(&associate_ns, t1 - t0);
        add_sample(&echo_ns, t2 - t1);
        add_sample(&release_ns, now() - t2);
    }
    seconds = (double)(now() - begun) / 1e9;
    printf("{\"associations\": %d, \"seconds\": %.6f, \"rate\": %.1f", ask.echo, seconds,
           ask.echo / seconds);
    print_samples("associate_us", &associate_ns);
    print_samples("echo_us", &echo_ns);
    print_samples("release_us", &release_ns);
    printf(", \"cpu_us\": %" PRIu64 "}\n", cpu_us() - cpu);
    return 0;
}

/* C-ECHO after C-ECHO over one association. */
static int ping(void) {
    struct association a = {0};
    struct samples echo_ns = {0};
    struct span none = {NULL, 0}, body, head;
    uint64_t begun, t, cpu = cpu_us(), k;
    unsigned id, status;
    double seconds;
    associate(&a);
    begun = now();
    for (k = 0; (double)(now() - begun) < ask.ping * 1e9; k++) {
        t = now();
        write_whole(&a, a.command, make_command(a.command, templates, C_ECHO, message_id(k), none));
        body = read_pdu(&a, PDU_P_DATA);
        if (!take(&body, 6, &head) || !read_response(body, C_ECHO, &id, &status) || status ||
            id != message_id(k))
            fail("no success to C-ECHO");
        add_sample(&echo_ns, now() - t);
    }
    seconds = (double)(now() - begun) / 1e9;
    ask_release(&a);
    end_release(&a);
    printf("{\"seconds\": %.6f, \"rate\": %.1f", seconds, (double)k / seconds);
    print_samples("echo_us", &echo_ns);
    printf(", \"cpu_us\": %" PRIu64 "}\n", cpu_us() - cpu);
    return 0;
}

/* Keep associations open until stdin is closed; how many the peer ended. */
static int hold(struct association *some, int n) {
    struct pollfd *polls = memory(NULL, (size_t)(n + 1) * sizeof *polls);
    char rest[4096];
    int i, lost = 0;
    for (i = 0; i < n; i++) polls[i] = (struct pollfd){.fd = some[i].fd, .events = POLLIN};
    polls[n] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    do {
        polls[n].revents = 0;
        if (poll(polls, (nfds_t)n + 1, -1) < 0 && errno != EINTR) fail("poll: %s", strerror(errno));
        for (i = 0; i < n; i++) {
            if (!polls[i].revents) continue;
            /* Nothing is due: whatever came ends it. */
            close(some[i].fd);
            some[i].fd = polls[i].fd = -1;
            polls[i].revents = 0;
            lost++;
        }
    } while (!polls[n].revents || read(STDIN_FILENO, rest, sizeof rest) > 0);
    free(polls);
    return lost;
}

static int keep_idle(void) {
    struct association *some = calloc((size_t)ask.idle, sizeof *some);
    struct samples associate_ns = {0};
    uint64_t t;
    int i, lost;
    if (some == NULL) fail("no memory");
    for (i = 0; i < ask.idle; i++) {
        some[i].number = i;
        t = now();
        associate(&some[i]);
        add_sample(&associate_ns, now() - t);
    }
    puts("ready");
    fflush(stdout);
    t = now();
    lost = hold(some, ask.idle);
    t = now() - t;
    release(some, ask.idle);
    printf("{\"associations\": %d, \"lost\": %d, \"seconds\": %.6f", ask.idle, lost,
           (double)t / 1e9);
    print_samples("associate_us", &associate_ns);
    puts("}");
    return lost ? 1 : 0;
}

/* -- Arguments */

static const char usage[] =
    "usage: load PORT [OPTIONS]\n"
    "  --host ADDRESS      IPv4 (127.0.0.1)\n"
    "  --called TITLE      called AE title (ANY-SCP)\n"
    "  --associations N    at the same time (1)\n"
    "  --count N           instances over each (100); with --big 0: until that is answered\n"
    "  --window N          outstanding over each (1)\n"
    "  --bytes N           made-up data sets of so many bytes, a series per association (34000)\n"
    "  --file FILE         this Part 10 file's data set instead, with new SOP Instance UIDs\n"
    "  --mix FILE:WEIGHT,...   several, chosen at random\n"
    "  --seed N            of the choice (0)\n"
    "  --series-every N    a new series after N instances of an association\n"
    "  --tag DIGITS        keeps the UIDs of runs apart (the time)\n"
    "  --pdu N             maximum length announced, and sent at most (131072)\n"
    "  --nagle             leave Nagle's algorithm on and write PDU by PDU\n"
    "  --timeout S         without any answer until it is an error (60)\n"
    "  --rate R            associations*count instances, the k-th due at k/R seconds\n"
    "  --burst N           with --rate: so many are due at once (1)\n"
    "  --slices S          tell response times of each S seconds, too\n"
    "  --fair S            every association sends for so many seconds\n"
    "  --big FILE|BYTES    one more association sends one object of so many bytes meanwhile\n"
    "  --idle N            only open N associations, until stdin is closed\n"
    "  --echo N            only associate, C-ECHO and release, N times\n"
    "  --ping S            only C-ECHO after C-ECHO over one association, for so many seconds\n";

enum {
    HOST = 256, CALLED, ASSOCIATIONS, COUNT, WINDOW, BYTES, FILE_NAME, MIX, SEED, SERIES_EVERY, TAG,
    PDU, NAGLE, TIMEOUT, RATE, FAIR, BIG, IDLE, ECHO, PING, BURST, SLICES,
};

static const struct option options[] = {
    {"host", 1, NULL, HOST}, {"called", 1, NULL, CALLED}, {"associations", 1, NULL, ASSOCIATIONS},
    {"count", 1, NULL, COUNT}, {"window", 1, NULL, WINDOW}, {"bytes", 1, NULL, BYTES},
    {"file", 1, NULL, FILE_NAME}, {"mix", 1, NULL, MIX}, {"seed", 1, NULL, SEED},
    {"series-every", 1, NULL, SERIES_EVERY}, {"tag", 1, NULL, TAG}, {"pdu", 1, NULL, PDU},
    {"nagle", 0, NULL, NAGLE}, {"timeout", 1, NULL, TIMEOUT}, {"rate", 1, NULL, RATE},
    {"fair", 1, NULL, FAIR}, {"big", 1, NULL, BIG}, {"idle", 1, NULL, IDLE},
    {"echo", 1, NULL, ECHO}, {"ping", 1, NULL, PING}, {"burst", 1, NULL, BURST},
    {"slices", 1, NULL, SLICES}, {NULL, 0, NULL, 0},
};

static void misused(void) {
    fputs(usage, stderr);
    exit(2);
}

static bool digits_only(const char *s) { return *s && s[strspn(s, "0123456789")] == 0; }

static uint64_t number(const char *s, uint64_t least, uint64_t most) {
    uint64_t n = strtoull(s, NULL, 10);
    if (!digits_only(s) || strlen(s) > 18 || n < least || n > most) misused();
    return n;
}

static double real(const char *s) {
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !(v > 0 && v < 1e9)) misused();
    return v;
}

static void read_option(int option, const char *value) {
    switch (option) {
    case HOST: target.host = value; break;
    case CALLED: target.called = value; break;
    case ASSOCIATIONS: ask.associations = (int)number(value, 0, 100000); break;
    case COUNT: ask.count = number(value, 0, 1000000000); break;
    case WINDOW: target.window = (unsigned)number(value, 1, 65535); break;
    case BYTES: ask.bytes = number(value, 512, UINT32_MAX); break;
    case FILE_NAME: ask.file = value; break;
    case MIX: ask.mix = value; break;
    case SEED: ask.seed = number(value, 0, UINT64_MAX); break;
    case SERIES_EVERY: ask.series_every = number(value, 1, 1000000000); break;
    case TAG: ask.tag = value; break;
    case PDU: target.pdu = (uint32_t)number(value, 512, UINT32_MAX); break;
    case NAGLE: target.nagle = true; break;
    case TIMEOUT: target.timeout = (int)number(value, 1, 86400); break;
    case RATE: ask.rate = real(value); break;
    case FAIR: ask.fair = real(value); break;
    case BIG: ask.big = value; break;
    case IDLE: ask.idle = (int)number(value, 1, 100000); break;
    case ECHO: ask.echo = (int)number(value, 1, 100000000); break;
    case PING: ask.ping = real(value); break;
    case BURST: ask.burst = number(value, 1, 1000000); break;
    case SLICES: ask.slices = real(value); break;
    default: misused();
    }
}

static void read_arguments(int argc, char **argv) {
    static char tag[24];
    struct timespec t;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) read_option(option, optarg);
    if (optind != argc - 1) misused();
    target.port = (int)number(argv[optind], 1, 65535);
    if (ask.tag && (!digits_only(ask.tag) || ask.tag[0] == '0' || strlen(ask.tag) > 20)) misused();
    if ((ask.rate > 0 && ask.fair > 0) || (ask.file && ask.mix)) misused();
    if (!ask.big && (ask.associations == 0 || ask.count == 0)) misused();
    if (ask.associations == 0) ask.count = 0;
    if (ask.count == 0 && ask.rate > 0) misused();
    if (ask.tag == NULL) {
        clock_gettime(CLOCK_REALTIME, &t);
        snprintf(tag, sizeof tag, "%lld%03ld", (long long)t.tv_sec, t.tv_nsec / 1000000);
        ask.tag = tag;
    }
}

static struct template *new_template(uint64_t weight) {
    if (template_count == MOST_TEMPLATES - 1) fail("more than %d files", MOST_TEMPLATES - 1);
    templates[template_count].weight = weight;
    weights += weight;
    return &templates[template_count++];
}

static void read_mix(void) {
    char *words = strdup(ask.mix), *word, *colon, *rest = words;
    while (rest && (word = strsep(&rest, ","))) {
        if ((colon = strrchr(word, ':')) == NULL) misused();
        *colon = 0;
        read_template(new_template(number(colon + 1, 1, 1000000)), word);
    }
    free(words);
}

/* Templates of the same class and transfer syntax share a context: the first one's. */
static void number_contexts(int n) {
    int i, k;
    for (i = 0; i < n; i++) {
        for (k = 0; strcmp(templates[k].sop_class, templates[i].sop_class) ||
                    strcmp(templates[k].syntax, templates[i].syntax);)
            k++;
        templates[i].context = (uint8_t)(2 * k + 1);
    }
}

static void make_templates(void) {
    if (ask.echo || ask.ping > 0) {
        strcpy(templates->sop_class, VERIFICATION);
        strcpy(templates->syntax, IMPLICIT_LE);
        template_count = 1;
    } else if (ask.mix) {
        read_mix();
    } else if (ask.file) {
        read_template(new_template(1), ask.file);
    } else {
        make_template(new_template(1), ask.bytes, ask.tag);
    }
    if (ask.big && digits_only(ask.big))
        make_template(&templates[template_count], number(ask.big, 512, UINT32_MAX), ask.tag);
    else if (ask.big)
        read_template(&templates[template_count], ask.big);
    number_contexts(template_count + (ask.big ? 1 : 0));
}

int main(int argc, char **argv) {
    struct rlimit files;
    read_arguments(argc, argv);
    make_templates();
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (ask.echo) return echo();
    if (ask.ping > 0) return ping();
    return ask.idle ? keep_idle() : store();
}

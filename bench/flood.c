/* Associations that send tiny requests without end: flood PORT KIND ASSOCIATIONS.
 *
 * KIND: echo (C-ECHO), unknown (an operation there is not), refused (a C-STORE without a data set),
 * mixture (all three). Each association keeps the socket full of them, and reads and drops what is
 * answered. A line `ready` once all are open; when stdin is closed one JSON object on stdout:
 * associations, lost (ended by the peer), sent_bytes, answer_bytes, seconds.
 *
 * One thread, apart from the one that measures (load.c).
 */
#define _GNU_SOURCE
#include <poll.h>

#include "figures.h"
#include "requestor.h"

enum { BLOCK = 1 << 20, MOST_FLOODS = 1000, N_GET = 0x0110 };

static uint8_t block[BLOCK + 4096];
static size_t block_size;
static struct pollfd polls[MOST_FLOODS + 1];
static size_t at[MOST_FLOODS];
static uint64_t sent_bytes, answer_bytes;
static int lost;

static size_t put_request(uint8_t *p, unsigned field, unsigned id) {
    struct span none = {NULL, 0};
    const struct template *t = field == C_STORE ? &templates[1] : &templates[0];
    size_t n = make_command(p, t, field, id, none);
    /* Command Data Set Type is the last element: no data set follows. */
    put16_le(p + n - 2, NO_DATA_SET);
    return n;
}

static void make_block(const char *kind) {
    static const unsigned all[] = {C_ECHO, N_GET, C_STORE};
    unsigned field = C_ECHO, k;
    if (strcmp(kind, "unknown") == 0) field = N_GET;
    if (strcmp(kind, "refused") == 0) field = C_STORE;
    for (k = 0; block_size < BLOCK; k++) {
        if (strcmp(kind, "mixture") == 0) field = all[k % 3];
        block_size += put_request(block + block_size, field, message_id(k));
    }
}

static void end(int i) {
    close(polls[i].fd);
    polls[i].fd = -1;
    lost++;
}

static void push(int i) {
    ssize_t n = send(polls[i].fd, block + at[i], block_size - at[i], MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return end(i);
    if (n < 0) return;
    sent_bytes += (uint64_t)n;
    at[i] = (at[i] + (size_t)n) % block_size;
}

static void drop(int i) {
    static uint8_t answers[262144];
    ssize_t n = recv(polls[i].fd, answers, sizeof answers, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return end(i);
    if (n > 0) answer_bytes += (uint64_t)n;
}

int main(int argc, char **argv) {
    struct association a = {0};
    uint64_t began;
    int i, n = argc == 4 ? atoi(argv[3]) : 0;
    if (n < 1 || n > MOST_FLOODS) {
        fputs("usage: flood PORT echo|unknown|refused|mixture ASSOCIATIONS\n", stderr);
        return 2;
    }
    target.port = atoi(argv[1]);
    strcpy(templates[0].sop_class, VERIFICATION);
    strcpy(templates[0].syntax, IMPLICIT_LE);
    templates[0].context = 1;
    strcpy(templates[1].sop_class, CT);
    strcpy(templates[1].syntax, EXPLICIT_LE);
    templates[1].context = 3;
    make_block(argv[2]);
    for (i = 0; i < n; i++) {
        a.number = i;
        associate(&a);
        polls[i] = (struct pollfd){.fd = a.fd, .events = POLLIN | POLLOUT};
    }
    polls[n] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    puts("ready");
    fflush(stdout);
    began = now();
    while (poll(polls, (nfds_t)n + 1, -1) >= 0 && !polls[n].revents)
        for (i = 0; i < n; i++) {
            if (polls[i].fd >= 0 && polls[i].revents & ~POLLOUT) drop(i);
            if (polls[i].fd >= 0 && polls[i].revents & POLLOUT) push(i);
        }
    printf("{\"associations\": %d, \"lost\": %d, \"sent_bytes\": %" PRIu64
           ", \"answer_bytes\": %" PRIu64 ", \"seconds\": %.6f}\n",
           n, lost, sent_bytes, answer_bytes, (double)(now() - began) / 1e9);
    return 0;
}

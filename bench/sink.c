/* A null sink: sink PORT
 *
 * Answers C-STORE with 0000 and drops the data sets: recv, send and epoll_wait, nothing else. What
 * a load generator reaches against it is the generator's own ceiling. PORT 0 picks one; the first
 * line on stderr says which.
 */
#define _GNU_SOURCE
#include "wire.h"

struct instance {
    uint64_t bytes;
};

#include "scp.h"

static void data_set_begins(struct peer *p) { p->instance.bytes = 0; }

static void data_set_bytes(struct peer *p, struct span bytes) { p->instance.bytes += bytes.left; }

static void data_set_pauses(struct peer *p) { (void)p; }

static unsigned data_set_ends(struct peer *p, bool whole) {
    return whole && p->instance.bytes ? 0 : 0xC000;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: sink PORT\n");
        return 2;
    }
    serve(atoi(argv[1]));
    return 0;
}

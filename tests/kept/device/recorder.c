/* A disk that keeps a record of everything that is done to it, for tests.
 *
 *   recorder IMAGE LOG POINT
 *
 * serves one file over FUSE, whose contents are IMAGE, mounted on the file POINT. A loop device on
 * POINT makes a block device of it. Every write and every flush goes to the end of LOG, a struct
 * record each, and then the data; the length of LOG tells a client where the record stands. Ends
 * when POINT is unmounted.
 *
 * one_file.h tells why the record is what a disk sees. Each request is recorded before it is
 * answered: no write that is not followed by a flush is taken for durable. (A write that is done
 * just before a flush, though the file system does not know it yet, counts as flushed here. A real
 * disk may take longer over it.)
 */
#define _GNU_SOURCE
#include "../../../bench/flush/one_file.h"

enum { WRITE = 1, FLUSH = 2 };

struct record {
    uint32_t kind, size;
    uint64_t offset;
};

static int record_fd;

static void keep(uint32_t kind, uint64_t offset, const void *data, size_t n) {
    struct record r = {.kind = kind, .size = (uint32_t)n, .offset = offset};
    struct iovec both[2] = {{&r, sizeof r}, {(void *)data, n}};
    if (writev(record_fd, both, 2) != (ssize_t)(sizeof r + n)) fail("record");
}

static void written(uint64_t offset, const void *data, size_t n) { keep(WRITE, offset, data, n); }

static void flushed(void) { keep(FLUSH, 0, NULL, 0); }

int main(int argc, char **argv) {
    const struct told told = {written, flushed};
    if (argc != 4) return 2;
    record_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (record_fd < 0) fail(argv[2]);
    return serve_image(argv[1], argv[3], "fastscp-recorder", &told);
}

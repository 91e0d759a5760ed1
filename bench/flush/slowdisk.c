/* A disk whose flush takes a time of its own, and which counts what is done to it.
 *
 *   slowdisk IMAGE STATE POINT
 *
 * serves one file over FUSE, as one_file.h tells. STATE is an empty file that whoever looks maps,
 * too: 64-bit numbers, at 0 the microseconds that a flush takes (may be changed at any time), then
 * flushes, writes and bytes written so far. Nothing is really flushed. A write that comes during a
 * flush waits for its end: the loop device has its file do one thing at a time.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <time.h>

#include "one_file.h"

static struct {
    _Atomic uint64_t delay_us, flushes, writes, bytes;
} *disk;

static void written(uint64_t offset, const void *data, size_t n) {
    (void)offset, (void)data;
    disk->writes++;
    disk->bytes += n;
}

static void flushed(void) {
    uint64_t delay_us = disk->delay_us;
    struct timespec t = {(time_t)(delay_us / 1000000), (long)(delay_us % 1000000) * 1000};
    if (delay_us) nanosleep(&t, NULL);
    disk->flushes++;
}

int main(int argc, char **argv) {
    const struct told told = {written, flushed};
    int fd;
    if (argc != 4) return 2;
    /* A sleep ends on time, and not when it is convenient. */
    prctl(PR_SET_TIMERSLACK, 1);
    fd = open(argv[2], O_RDWR | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 4096) < 0) fail(argv[2]);
    disk = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (disk == MAP_FAILED) fail(argv[2]);
    close(fd);
    return serve_image(argv[1], argv[3], "fastscp-slowdisk", &told);
}

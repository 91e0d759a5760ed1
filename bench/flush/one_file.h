/* A block device's other end: one file over FUSE, whose contents are an image.
 *
 * A loop device on the file makes a block device of it, and whoever includes this is told of every
 * write and every flush of that device.
 *
 * Why they are what a disk sees: this end never asks for FUSE_WRITEBACK_CACHE, so the kernel sends
 * each write of the loop device here before it tells the file system that the block is written, and
 * the loop device turns a flush of the block device (REQ_PREFLUSH, and REQ_FUA as a flush
 * afterwards, as it has a volatile cache and no FUA) into an fsync of its file, which comes here as
 * FUSE_FSYNC. One request is served after the other: a write that the file system knew to be done
 * before it asked for a flush is told before that flush.
 *
 * The protocol: linux/fuse.h.
 */
#ifndef ONE_FILE_H
#define ONE_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_PAGES 256
#define MOST ((size_t)MOST_PAGES * 4096)
#define ROOM (MOST + 65536)

/* What is told, before it is answered. A write is in the image by then. */
struct told {
    void (*written)(uint64_t offset, const void *data, size_t n);
    void (*flushed)(void);
};

static int fuse_device, image;
static uint64_t image_size;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void answer(const struct fuse_in_header *in, int error, const void *data, size_t n) {
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof out + n), .error = -error, .unique = in->unique};
    struct iovec both[2] = {{&out, sizeof out}, {(void *)data, n}};
    /* ENOENT: who asked was interrupted, and is gone. */
    if (writev(fuse_device, both, n ? 2 : 1) < 0 && errno != ENOENT) fail("answer");
}

static struct fuse_attr attributes(void) {
    return (struct fuse_attr){
        .ino = 1, .size = image_size, .blocks = image_size / 512, .mode = S_IFREG | 0600,
        .nlink = 1, .blksize = 4096};
}

static void begin(const struct fuse_in_header *in, const struct fuse_init_in *asked) {
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = asked->minor < FUSE_KERNEL_MINOR_VERSION ? asked->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = asked->max_readahead,
        .flags = asked->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES),
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = MOST,
        .time_gran = 1,
        .max_pages = MOST_PAGES};
    if (asked->major != FUSE_KERNEL_VERSION || asked->minor < 28) {
        fprintf(stderr, "FUSE %u.%u is too old\n", asked->major, asked->minor);
        exit(1);
    }
    answer(in, 0, &out, sizeof out);
}

static void serve(const struct fuse_in_header *in, const void *body, const struct told *told) {
    static char data[ROOM];
    switch (in->opcode) {
    case FUSE_INIT:
        begin(in, body);
        return;
    case FUSE_GETATTR: {
        struct fuse_attr_out out = {.attr_valid = 3600, .attr = attributes()};
        answer(in, 0, &out, sizeof out);
        return;
    }
    case FUSE_OPEN: {
        struct fuse_open_out out = {.fh = 1, .open_flags = FOPEN_KEEP_CACHE};
        answer(in, 0, &out, sizeof out);
        return;
    }
    case FUSE_READ: {
        const struct fuse_read_in *r = body;
        ssize_t n = pread(image, data, r->size < ROOM ? r->size : ROOM, (off_t)r->offset);
        answer(in, n < 0 ? errno : 0, data, n < 0 ? 0 : (size_t)n);
        return;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *w = body;
        struct fuse_write_out out = {.size = w->size};
        const char *bytes = (const char *)body + sizeof *w;
        if (w->offset + w->size > image_size) {
            answer(in, ENOSPC, NULL, 0);
            return;
        }
        if (pwrite(image, bytes, w->size, (off_t)w->offset) != (ssize_t)w->size) fail("image");
        told->written(w->offset, bytes, w->size);
        answer(in, 0, &out, sizeof out);
        return;
    }
    case FUSE_FSYNC:
        told->flushed();
        answer(in, 0, NULL, 0);
        return;
    case FUSE_FLUSH: /* of a descriptor that is closed: no flush of the disk */
    case FUSE_RELEASE:
    case FUSE_DESTROY:
        answer(in, 0, NULL, 0);
        return;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: /* has no answer: what takes long here ends by itself */
        return;
    default:
        /* Discards and zeroing (FUSE_FALLOCATE), too: the kernel writes zeros instead. */
        answer(in, ENOSYS, NULL, 0);
    }
}

/* Serve an image as the file `point`, mounted under a name, until it is unmounted. Says `ready`. */
static int serve_image(const char *from, const char *point, const char *name,
                       const struct told *told) {
    static _Alignas(8) char request[ROOM];
    const size_t head = sizeof(struct fuse_in_header);
    char options[128];
    struct stat st;
    /* Whoever made the disk is gone: nobody would unmount it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    image = open(from, O_RDWR | O_CLOEXEC);
    fuse_device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (image < 0 || fstat(image, &st) < 0) fail(from);
    if (fuse_device < 0) fail("/dev/fuse");
    image_size = (uint64_t)st.st_size;
    snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0", fuse_device,
             S_IFREG);
    if (mount(name, point, "fuse", MS_NOSUID | MS_NODEV, options) < 0) fail(point);
    puts("ready");
    fflush(stdout);
    for (;;) {
        ssize_t n = read(fuse_device, request, sizeof request);
        if (n < 0 && errno == ENODEV) return 0;
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
        if (n < (ssize_t)head) fail("request");
        serve((struct fuse_in_header *)request, request + head, told);
    }
}

#endif

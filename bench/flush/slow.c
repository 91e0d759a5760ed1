/* A disk whose flush takes SLOW_US microseconds (default 5000), preloaded into every process.
 *
 * One flush at a time for the whole machine; callers that come during a flush share the next one,
 * as a disk's write cache is flushed as a whole. SLOW_FILE holds what the processes share: an empty
 * file at the start; 64-bit numbers at 8 (calls), 16 (flushes done) and 24 (us per flush; can be
 * changed) for those who look. Nothing is really flushed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct disk {
    uint64_t magic, calls, finished, delay_us, begun;
    int busy;
    pthread_mutex_t lock;
    pthread_cond_t done;
};

static struct disk *disk;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SLOW_FILE"), *delay = getenv("SLOW_US");
    pthread_mutexattr_t lock;
    pthread_condattr_t done;
    int fd;
    if (name == NULL) return;
    fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0) abort();
    disk = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (disk == MAP_FAILED) abort();
    close(fd);
    if (disk->magic) return;
    /* The first process is alone: it starts the others. */
    pthread_mutexattr_init(&lock);
    pthread_mutexattr_setpshared(&lock, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&lock, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&disk->lock, &lock);
    pthread_condattr_init(&done);
    pthread_condattr_setpshared(&done, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&disk->done, &done);
    disk->delay_us = delay ? strtoull(delay, NULL, 10) : 5000;
    disk->magic = 1;
}

static void own(int got) {
    if (got == EOWNERDEAD) pthread_mutex_consistent(&disk->lock);
}

static int flush(void) {
    struct timespec t;
    uint64_t needed;
    if (disk == NULL) return 0;
    own(pthread_mutex_lock(&disk->lock));
    disk->calls++;
    /* The one under way began before this call: it does not count. */
    needed = disk->begun + 1;
    while (disk->finished < needed) {
        if (disk->busy) {
            own(pthread_cond_wait(&disk->done, &disk->lock));
            continue;
        }
        disk->busy = 1;
        disk->begun++;
        t.tv_sec = (time_t)(disk->delay_us / 1000000);
        t.tv_nsec = (long)(disk->delay_us % 1000000) * 1000;
        pthread_mutex_unlock(&disk->lock);
        nanosleep(&t, NULL);
        own(pthread_mutex_lock(&disk->lock));
        disk->busy = 0;
        disk->finished = disk->begun;
        pthread_cond_broadcast(&disk->done);
    }
    pthread_mutex_unlock(&disk->lock);
    return 0;
}

int fsync(int fd) {
    (void)fd;
    return flush();
}

int fdatasync(int fd) {
    (void)fd;
    return flush();
}

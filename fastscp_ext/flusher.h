/* A few threads that flush files side by side: a disk merges flushes that arrive together, so
 * thirty at once take little longer than one.
 *
 * flusher_run hands out the jobs, takes part itself and returns when all are done. Threads are
 * started when first needed and wait in between. One caller at a time. Where no thread can be had
 * the caller does everything: slower, never wrong.
 */
#ifndef FASTSCP_FLUSHER_H
#define FASTSCP_FLUSHER_H

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define FLUSHER_THREADS 31

typedef struct {
    int fd;
    int whole; /* fsync instead of fdatasync: directories */
    int error; /* out: errno, or 0; kept as it is where fd < 0 */
} flush_job;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_cond_t done;
    pthread_t threads[FLUSHER_THREADS];
    int started;
    int stop;
    flush_job *jobs;
    int count;
    int next;
    int finished;
} flusher;

static void flusher_one(flush_job *job) {
    int got;
    if (job->fd < 0) return;
    /* EINTR is the only error after which another try means anything. */
    do {
        got = job->whole ? fsync(job->fd) : fdatasync(job->fd);
    } while (got < 0 && errno == EINTR);
    job->error = got < 0 ? errno : 0;
}

/* Do jobs until none is left. The lock is held on entry and on return. */
static void flusher_take(flusher *f) {
    while (f->next < f->count) {
        flush_job *job = &f->jobs[f->next++];
        pthread_mutex_unlock(&f->lock);
        flusher_one(job);
        pthread_mutex_lock(&f->lock);
        if (++f->finished == f->count) pthread_cond_signal(&f->done);
    }
}

static void *flusher_thread(void *of) {
    flusher *f = of;
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        flusher_take(f);
        if (!f->stop) pthread_cond_wait(&f->work, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static inline void flusher_begin(flusher *f) {
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->done, NULL);
}

static inline void flusher_run(flusher *f, flush_job *jobs, int count) {
    pthread_attr_t small;
    if (count <= 0) return;
    pthread_mutex_lock(&f->lock);
    f->jobs = jobs;
    f->count = count;
    f->next = 0;
    f->finished = 0;
    if (count > 1) {
        if (f->started < count - 1 && f->started < FLUSHER_THREADS &&
            pthread_attr_init(&small) == 0) {
            pthread_attr_setstacksize(&small, 65536);
            while (f->started < count - 1 && f->started < FLUSHER_THREADS &&
                   pthread_create(&f->threads[f->started], &small, flusher_thread, f) == 0)
                f->started++;
            pthread_attr_destroy(&small);
        }
        pthread_cond_broadcast(&f->work);
    }
    flusher_take(f);
    while (f->finished < f->count) pthread_cond_wait(&f->done, &f->lock);
    f->count = f->next = 0;
    pthread_mutex_unlock(&f->lock);
}

static inline void flusher_end(flusher *f) {
    int i;
    pthread_mutex_lock(&f->lock);
    f->stop = 1;
    pthread_cond_broadcast(&f->work);
    pthread_mutex_unlock(&f->lock);
    for (i = 0; i < f->started; i++) pthread_join(f->threads[i], NULL);
    pthread_cond_destroy(&f->done);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
}

#endif

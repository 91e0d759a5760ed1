/* Threads that flush files side by side: a disk merges flushes that arrive together, so many at once
 * take little longer than one.
 *
 * flusher_post hands over one job and returns; when its file is flushed the thread that did it calls
 * `flushed`. Large ones get at most half of the threads, so that many of them never keep a small one
 * waiting. flusher_run takes part itself and returns when all of its jobs are done; one caller at
 * a time, who may be one of the threads. Threads are started when first needed and wait in between.
 * Where none can be had the caller does the work: slower, never wrong.
 *
 * Threads are told of work behind the lock: sooner they would meet it. So whoever calls any of this
 * is back from it before flusher_end is called, which ends what it would tell them by.
 */
#ifndef FASTSCP_FLUSHER_H
#define FASTSCP_FLUSHER_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FLUSHER_MOST 64 /* threads */
/* Room for `flushed`, which may go as far as opening a new journal file in Python. */
#define FLUSHER_STACK (512 * 1024)

typedef struct flush_job {
    int fd;
    int large;
    int whole; /* fsync instead of fdatasync: directories */
    int error; /* out: errno, or 0; kept as it is where fd < 0 */
    uint64_t took_ns; /* out: how long the flush took; kept as it is where fd < 0 */
    void *of;  /* the caller's */
    struct flush_job *next;
    /* Of flusher_run, or NULL: told at once of what became of a flush, on the thread that made it. */
    void (*done)(struct flush_job *job);
} flush_job;

typedef struct {
    flush_job *first, *last;
} flush_queue;

typedef struct {
    pthread_mutex_t lock;
    sem_t work; /* as many as were told to look, and have yet to */
    pthread_cond_t left;
    pthread_t threads[FLUSHER_MOST];
    int most; /* of these */
    int started;
    int idle; /* that wait, and were not told to look */
    int stop;
    flush_queue small, large; /* posted and not begun */
    int large_begun;
    flush_job *jobs; /* of flusher_run */
    int count;
    int next; /* the first that nobody has begun, at least; atomic */
    int helping; /* threads that may touch these jobs, beside the caller */
    void (*flushed)(void *owner, flush_job *job);
    void *owner;
} flusher;

static inline uint64_t flusher_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 0 or an errno. whole: as fsync does. */
static inline int flush_file(int fd, int whole) {
    int got;
    /* EINTR is the only error after which another try means anything. */
    do {
        got = whole ? fsync(fd) : fdatasync(fd);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? errno : 0;
}

static inline void flusher_one(flush_job *job) {
    uint64_t began;
    if (job->fd < 0) return;
    began = flusher_now();
    job->error = flush_file(job->fd, job->whole);
    job->took_ns = flusher_now() - began;
}

static inline void flusher_one_of_run(flush_job *job) {
    int is_tried = job->fd >= 0;
    flusher_one(job);
    if (is_tried && job->done) job->done(job);
}

/* Begin jobs of flusher_run until none is left. Without the lock: they stay what they are as long as
 * anybody is counted as helping. */
static inline void flusher_help(flusher *f) {
    int k;
    while ((k = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED)) < f->count)
        flusher_one_of_run(&f->jobs[k]);
}

/* The same for one of the threads. The lock is held on entry and on return. */
static inline void flusher_join(flusher *f) {
    if (__atomic_load_n(&f->next, __ATOMIC_RELAXED) >= f->count) return;
    f->helping++;
    pthread_mutex_unlock(&f->lock);
    flusher_help(f);
    pthread_mutex_lock(&f->lock);
    if (--f->helping) return;
    pthread_mutex_unlock(&f->lock);
    pthread_cond_signal(&f->left);
    pthread_mutex_lock(&f->lock);
}

static inline flush_job *flusher_pop(flush_queue *q) {
    flush_job *job = q->first;
    if (job) q->first = job->next;
    return job;
}

static inline flush_job *flusher_next(flusher *f) {
    flush_job *job = flusher_pop(&f->small);
    if (!job && f->large_begun < f->most / 2 && (job = flusher_pop(&f->large)))
        f->large_begun++;
    return job;
}

static inline void *flusher_thread(void *of) {
    flusher *f = of;
    flush_job *job;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        flusher_join(f);
        if ((job = flusher_next(f))) {
            int large = job->large; /* the job is not ours any more once it is flushed */
            pthread_mutex_unlock(&f->lock);
            flusher_one(job);
            f->flushed(f->owner, job);
            pthread_mutex_lock(&f->lock);
            f->large_begun -= large;
        } else if (f->stop) {
            break;
        } else {
            f->idle++;
            pthread_mutex_unlock(&f->lock);
            while (sem_wait(&f->work) < 0 && errno == EINTR) continue;
            pthread_mutex_lock(&f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* Let go of the lock, and have so many idle threads look for work, as far as there are any. */
static inline void flusher_tell(flusher *f, int wanted) {
    int count = wanted < f->idle ? wanted : f->idle;
    f->idle -= count;
    pthread_mutex_unlock(&f->lock);
    for (; count > 0; count--) sem_post(&f->work);
}

/* So many more threads, as far as there may be. The lock is held. */
static inline void flusher_start(flusher *f, int more) {
    pthread_attr_t small;
    if (more <= 0 || f->stop || f->started == f->most || pthread_attr_init(&small)) return;
    pthread_attr_setstacksize(&small, FLUSHER_STACK);
    for (; more > 0 && f->started < f->most; more--, f->started++)
        if (pthread_create(&f->threads[f->started], &small, flusher_thread, f)) break;
    pthread_attr_destroy(&small);
}

/* most: threads, up to FLUSHER_MOST. */
static inline void flusher_begin(
    flusher *f, int most, void (*flushed)(void *owner, flush_job *job), void *owner) {
    memset(f, 0, sizeof *f);
    f->most = most;
    pthread_mutex_init(&f->lock, NULL);
    sem_init(&f->work, 0, 0);
    pthread_cond_init(&f->left, NULL);
    f->flushed = flushed;
    f->owner = owner;
}

static inline void flusher_post(flusher *f, flush_job *job) {
    flush_queue *q = job->large ? &f->large : &f->small;
    pthread_mutex_lock(&f->lock);
    if (f->idle == 0) flusher_start(f, 1);
    if (f->started == 0) {
        pthread_mutex_unlock(&f->lock);
        flusher_one(job);
        f->flushed(f->owner, job);
        return;
    }
    job->next = NULL;
    if (q->first)
        q->last->next = job;
    else
        q->first = job;
    q->last = job;
    flusher_tell(f, 1);
}

static inline void flusher_run(flusher *f, flush_job *jobs, int count) {
    if (count == 1) flusher_one_of_run(jobs);
    if (count <= 1) return;
    pthread_mutex_lock(&f->lock);
    f->jobs = jobs;
    f->count = count;
    f->next = 0;
    flusher_start(f, count - 1 - f->idle);
    flusher_tell(f, count - 1);
    flusher_help(f);
    pthread_mutex_lock(&f->lock);
    /* What was begun is done once all have left, and nobody who comes late touches it any more. */
    while (f->helping) pthread_cond_wait(&f->left, &f->lock);
    f->count = f->next = 0;
    pthread_mutex_unlock(&f->lock);
}

/* Of flusher_run, begin no job any more; from a job's `done`. */
static inline void flusher_drop(flusher *f) {
    __atomic_store_n(&f->next, f->count, __ATOMIC_RELAXED);
}

/* Everything posted is done first. */
static inline void flusher_end(flusher *f) {
    int i;
    pthread_mutex_lock(&f->lock);
    f->stop = 1;
    flusher_tell(f, f->idle);
    for (i = 0; i < f->started; i++) pthread_join(f->threads[i], NULL);
    pthread_cond_destroy(&f->left);
    sem_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
}

#endif

/* The lock of a redo log, and its two threads: the lane, which commits, and the checkpoint.
 *
 * Each waits on a condition of its own; the lock is held on entry of every redo_wait and on return.
 * Whoever is woken is told when the lock is let go: sooner it would meet the lock. So all who hold
 * the lock are back from letting it go before redo_lock_end is called.
 * Threads are started when first needed. Where none can be had, redo_start says so.
 */
#ifndef FASTSCP_REDO_THREADS_H
#define FASTSCP_REDO_THREADS_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define REDO_LANE 0
#define REDO_CHECKPOINT 1
/* Room for what the lane calls, which may go as far as opening a new journal file in Python. */
#define REDO_STACK (512 * 1024)

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t due[2];
    pthread_t thread[2];
    int started[2];
    int waits[2];
    int woken[2]; /* to be told when the lock is let go */
} redo_lock;

static inline void redo_lock_begin(redo_lock *l) {
    pthread_condattr_t clock;
    int k;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    for (k = 0; k < 2; k++) {
        pthread_cond_init(&l->due[k], &clock);
        l->started[k] = l->waits[k] = l->woken[k] = 0;
    }
    pthread_condattr_destroy(&clock);
}

static inline void redo_hold(redo_lock *l) { pthread_mutex_lock(&l->lock); }

static inline void redo_let_go(redo_lock *l) {
    int lane = l->woken[REDO_LANE];
    int checkpoint = l->woken[REDO_CHECKPOINT];
    l->woken[REDO_LANE] = l->woken[REDO_CHECKPOINT] = 0;
    pthread_mutex_unlock(&l->lock);
    if (lane) pthread_cond_signal(&l->due[REDO_LANE]);
    if (checkpoint) pthread_cond_signal(&l->due[REDO_CHECKPOINT]);
}

/* The lock is held. One that does not wait looks for work before it does. */
static inline void redo_wake(redo_lock *l, int which) {
    l->woken[which] = l->waits[which];
}

/* until: ns of CLOCK_MONOTONIC; 0: for as long as it takes. */
static inline void redo_wait(redo_lock *l, int which, uint64_t until) {
    struct timespec at;
    int other = !which;
    if (l->woken[other]) pthread_cond_signal(&l->due[other]);
    l->woken[other] = 0;
    l->waits[which] = 1;
    if (until == 0) {
        pthread_cond_wait(&l->due[which], &l->lock);
    } else {
        at.tv_sec = (time_t)(until / 1000000000u);
        at.tv_nsec = (long)(until % 1000000000u);
        pthread_cond_timedwait(&l->due[which], &l->lock, &at);
    }
    l->waits[which] = 0;
}

/* Whether the thread runs now. The lock is held. */
static inline int redo_start(redo_lock *l, int which, void *(*run)(void *of), void *of) {
    pthread_attr_t small;
    if (l->started[which]) return 1;
    if (pthread_attr_init(&small)) return 0;
    pthread_attr_setstacksize(&small, REDO_STACK);
    l->started[which] = !pthread_create(&l->thread[which], &small, run, of);
    pthread_attr_destroy(&small);
    return l->started[which];
}

/* The thread was told to stop. The lock is not held. */
static inline void redo_join(redo_lock *l, int which) {
    if (l->started[which]) pthread_join(l->thread[which], NULL);
    l->started[which] = 0;
}

static inline void redo_lock_end(redo_lock *l) {
    pthread_cond_destroy(&l->due[0]);
    pthread_cond_destroy(&l->due[1]);
    pthread_mutex_destroy(&l->lock);
}

#endif

/* A thread that closes files and removes parts: either call may hang with its disk, and a loop must
 * not hang with it.
 *
 * remover_post hands over a descriptor, a name, or both, and returns. `remover_waiting` is how many
 * of these are not done yet: whoever gives this thread work has to stop when they grow too many.
 * After remover_ask `wake_fd` is written to once, when half of that bound is left. The thread is
 * started when first needed. Where none can be had, or no memory, the caller does the work: slower,
 * never wrong.
 */
#ifndef FASTSCP_REMOVER_H
#define FASTSCP_REMOVER_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REMOVAL_NAME 16
#define REMOVALS_MOST 256 /* that wait, before nobody may cause more */
#define REMOVER_STACK (64 * 1024)

typedef struct removal {
    struct removal *next;
    int fd;
    int folder_fd; /* of the name; borrowed */
    char name[REMOVAL_NAME];
} removal;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t thread;
    int started;
    int stop;
    int asked;
    int waiting; /* the one in hand included */
    int wake_fd; /* an eventfd, borrowed */
    removal *first, *last;
} remover;

static inline void removal_do(int fd, int folder_fd, const char *name) {
    if (fd >= 0) close(fd);
    /* One that cannot be removed is swept with its life. */
    if (name && unlinkat(folder_fd, name, 0) < 0) return;
}

static inline void *remover_thread(void *of) {
    remover *r = of;
    removal *one;
    uint64_t count = 1;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        if ((one = r->first)) {
            r->first = one->next;
            pthread_mutex_unlock(&r->lock);
            removal_do(one->fd, one->folder_fd, one->name[0] ? one->name : NULL);
            free(one);
            pthread_mutex_lock(&r->lock);
            __atomic_sub_fetch(&r->waiting, 1, __ATOMIC_RELEASE);
            if (r->asked && r->waiting <= REMOVALS_MOST / 2) {
                r->asked = 0;
                if (write(r->wake_fd, &count, 8) < 0) r->asked = 1;
            }
        } else if (r->stop) {
            break;
        } else {
            pthread_cond_wait(&r->work, &r->lock);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static inline void remover_begin(remover *r, int wake_fd) {
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    r->wake_fd = wake_fd;
}

/* The lock is held. */
static inline int remover_start(remover *r) {
    pthread_attr_t small;
    if (r->started) return 1;
    if (pthread_attr_init(&small)) return 0;
    pthread_attr_setstacksize(&small, REMOVER_STACK);
    r->started = !pthread_create(&r->thread, &small, remover_thread, r);
    pthread_attr_destroy(&small);
    return r->started;
}

/* fd: -1 where there is none. name: of at most 15 bytes, NULL where there is none. */
static inline void remover_post(remover *r, int fd, int folder_fd, const char *name) {
    removal *one = malloc(sizeof *one);
    int taken = 0;
    if (one) {
        one->next = NULL;
        one->fd = fd;
        one->folder_fd = folder_fd;
        strncpy(one->name, name ? name : "", REMOVAL_NAME - 1);
        one->name[REMOVAL_NAME - 1] = 0;
        pthread_mutex_lock(&r->lock);
        if ((taken = remover_start(r))) {
            if (r->first)
                r->last->next = one;
            else
                r->first = one;
            r->last = one;
            __atomic_add_fetch(&r->waiting, 1, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&r->lock);
    }
    if (taken) {
        /* Behind the lock: sooner the thread would meet it. */
        pthread_cond_signal(&r->work);
    } else {
        free(one);
        removal_do(fd, folder_fd, name);
    }
}

static inline int remover_waiting(const remover *r) {
    return __atomic_load_n(&r->waiting, __ATOMIC_ACQUIRE);
}

/* Whether it is too late to ask: there is room again. */
static inline int remover_ask(remover *r) {
    int room;
    pthread_mutex_lock(&r->lock);
    room = r->waiting <= REMOVALS_MOST / 2;
    r->asked = !room;
    pthread_mutex_unlock(&r->lock);
    return room;
}

/* Everything posted is done first; nobody is about to post. */
static inline void remover_end(remover *r) {
    pthread_mutex_lock(&r->lock);
    r->stop = 1;
    pthread_mutex_unlock(&r->lock);
    pthread_cond_signal(&r->work);
    if (r->started) pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
}

#endif

/* The threads of the commit under stress: what is handed over is done once, nobody waits for a wake
 * that does not come, and nothing is touched behind its end. Built with a sanitizer as well. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "flush_pool.h"
#include "redo_threads.h"
#include "remover.h"

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%d: %s\n", __LINE__, #what); \
            abort(); \
        } \
    } while (0)

#define POSTERS 3
#define POSTED 2000 /* by each */
#define RUN 40 /* jobs of a run, at most */
#define RUN_EACH 16 /* jobs posted, as a rule */
#define HANDED 20000
#define AWAITED 8 /* of so many handed over, one is waited for */
#define REMOVED 5000

static int file_fd;

/* ---- flush pool: jobs that are posted, and runs from one of the threads ---- */

typedef struct {
    flusher pool;
    pthread_mutex_t lead; /* one run at a time */
    int posted_done; /* atomic, as all that follow */
    int run_done;
    int run_wanted;
    int dropped;
} pool_test;

typedef struct {
    pool_test *test;
    int times;
    int drops; /* those that are not begun */
} run_mark;

static void one_of_run(flush_job *job) {
    run_mark *mark = job->of;
    CHECK(job->error == 0);
    mark->times++;
    __atomic_add_fetch(&mark->test->run_done, 1, __ATOMIC_RELAXED);
    if (mark->drops) flusher_drop(&mark->test->pool);
}

static void run_some(pool_test *test, int seed) {
    flush_job *jobs = calloc(RUN, sizeof *jobs);
    run_mark marks[RUN];
    int count = seed % RUN;
    int drops = seed % 3 == 0 ? count / 2 : -1;
    int k, done = 0;
    for (k = 0; k < count; k++) {
        marks[k] = (run_mark){test, 0, k == drops};
        jobs[k].fd = file_fd;
        jobs[k].of = &marks[k];
        jobs[k].done = one_of_run;
    }
    flusher_run(&test->pool, jobs, count);
    for (k = 0; k < count; k++) {
        CHECK(marks[k].times <= 1);
        CHECK(drops >= 0 || marks[k].times == 1);
        CHECK(k > drops || marks[k].times == 1);
        done += marks[k].times;
    }
    __atomic_add_fetch(&test->run_wanted, done, __ATOMIC_RELAXED);
    __atomic_add_fetch(&test->dropped, count - done, __ATOMIC_RELAXED);
    /* Whoever comes late meets a file that nobody may flush any more. */
    memset(marks, 0xee, sizeof marks);
    memset(jobs, 0xee, RUN * sizeof *jobs);
    free(jobs);
}

static void one_posted(void *of, flush_job *job) {
    pool_test *test = of;
    int number = __atomic_add_fetch(&test->posted_done, 1, __ATOMIC_RELAXED);
    CHECK(job->error == 0);
    CHECK(job->took_ns > 0);
    free(job);
    if (number % RUN_EACH) return;
    pthread_mutex_lock(&test->lead);
    run_some(test, number / RUN_EACH);
    pthread_mutex_unlock(&test->lead);
}

static void *poster(void *of) {
    pool_test *test = of;
    int k;
    for (k = 0; k < POSTED; k++) {
        flush_job *job = calloc(1, sizeof *job);
        job->fd = file_fd;
        job->large = k % 5 == 0;
        flusher_post(&test->pool, job);
    }
    return NULL;
}

static void stress_pool(int most) {
    static pool_test test;
    pthread_t posters[POSTERS];
    int k;
    memset(&test, 0, sizeof test);
    pthread_mutex_init(&test.lead, NULL);
    flusher_begin(&test.pool, most, one_posted, &test);
    for (k = 0; k < POSTERS; k++) pthread_create(&posters[k], NULL, poster, &test);
    for (k = 0; k < POSTERS; k++) pthread_join(posters[k], NULL);
    flusher_end(&test.pool);
    CHECK(test.posted_done == POSTERS * POSTED);
    CHECK(test.run_done == test.run_wanted && test.run_done > 0);
    CHECK(test.dropped > 0);
    CHECK(test.pool.helping == 0 && test.pool.large_begun == 0);
    pthread_mutex_destroy(&test.lead);
}

/* One at a time, each waited for: a wake that is lost is waited for without end. */
static void one_back(void *of, flush_job *job) {
    int *back = job->of;
    (void)of;
    __atomic_store_n(back, 1, __ATOMIC_RELEASE);
}

static void one_after_the_other(void) {
    flusher pool;
    int k;
    flusher_begin(&pool, 4, one_back, NULL);
    for (k = 0; k < POSTED; k++) {
        int back = 0;
        flush_job job = {.fd = file_fd, .of = &back};
        flusher_post(&pool, &job);
        while (!__atomic_load_n(&back, __ATOMIC_ACQUIRE)) sched_yield();
    }
    flusher_end(&pool);
}

/* ---- the lock of a redo log: from the caller to the lane to the checkpoint, and back ---- */

static struct {
    redo_lock lock;
    int for_lane, for_checkpoint, done, stop;
} handing;

static void *lane(void *of) {
    (void)of;
    redo_hold(&handing.lock);
    for (;;) {
        if (handing.for_lane) {
            handing.for_lane--;
            if (handing.done % 2) {
                redo_let_go(&handing.lock);
                redo_hold(&handing.lock);
            }
            handing.for_checkpoint++;
            redo_wake(&handing.lock, REDO_CHECKPOINT);
        } else if (handing.stop) {
            break;
        } else {
            redo_wait(&handing.lock, REDO_LANE, 0);
        }
    }
    redo_let_go(&handing.lock);
    return NULL;
}

static void *checkpoint(void *of) {
    (void)of;
    redo_hold(&handing.lock);
    while (handing.done < HANDED) {
        if (handing.for_checkpoint) {
            handing.for_checkpoint--;
            handing.done++;
        } else {
            /* Now and then the time is over first. */
            redo_wait(&handing.lock, REDO_CHECKPOINT,
                      handing.done % 32 == 1 ? flusher_now() + 20000 : 0);
        }
    }
    redo_let_go(&handing.lock);
    return NULL;
}

static int handed_back(void) {
    int done;
    redo_hold(&handing.lock);
    done = handing.done;
    redo_let_go(&handing.lock);
    return done;
}

static void stress_lock(void) {
    int k;
    redo_lock_begin(&handing.lock);
    for (k = 0; k < HANDED; k++) {
        redo_hold(&handing.lock);
        CHECK(redo_start(&handing.lock, REDO_LANE, lane, NULL));
        CHECK(redo_start(&handing.lock, REDO_CHECKPOINT, checkpoint, NULL));
        handing.for_lane++;
        redo_wake(&handing.lock, REDO_LANE);
        redo_let_go(&handing.lock);
        while (k % AWAITED == 0 && handed_back() <= k) sched_yield();
    }
    redo_hold(&handing.lock);
    handing.stop = 1;
    redo_wake(&handing.lock, REDO_LANE);
    redo_let_go(&handing.lock);
    redo_join(&handing.lock, REDO_LANE);
    redo_join(&handing.lock, REDO_CHECKPOINT);
    CHECK(handing.done == HANDED);
    redo_lock_end(&handing.lock);
}

/* ---- remover ---- */

static void stress_remover(void) {
    remover removing;
    int k, first = dup(file_fd);
    remover_begin(&removing, -1);
    close(first);
    for (k = 0; k < REMOVED; k++) {
        while (remover_waiting(&removing) >= REMOVALS_MOST) sched_yield();
        remover_post(&removing, dup(file_fd), -1, NULL);
    }
    remover_end(&removing);
    CHECK(removing.waiting == 0);
    /* None is left open. */
    CHECK((k = dup(file_fd)) == first);
    close(k);
}

int main(void) {
    file_fd = memfd_create("flushed", MFD_CLOEXEC);
    CHECK(file_fd >= 0);
    stress_pool(2);
    stress_pool(FLUSHER_MOST);
    one_after_the_other();
    stress_lock();
    stress_remover();
    puts("done");
    return 0;
}

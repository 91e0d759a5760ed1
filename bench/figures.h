/* Times, and what they come to.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define SECOND 1000000000u /* in nanoseconds */

struct samples {
    uint64_t *ns;
    size_t n, room;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void add_sample(struct samples *s, uint64_t ns) {
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 4096;
        if ((s->ns = realloc(s->ns, s->room * sizeof *s->ns)) == NULL) abort();
    }
    s->ns[s->n++] = ns;
}

static int by_size(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The smallest sample that so many of 100 do not exceed, in microseconds. */
static double percentile(const struct samples *s, size_t of_100) {
    return (double)s->ns[(s->n * of_100 + 99) / 100 - 1] / 1e3;
}

static void print_samples(const char *name, struct samples *s) {
    if (s->n == 0) {
        printf(", \"%s\": null", name);
        return;
    }
    qsort(s->ns, s->n, sizeof *s->ns, by_size);
    printf(", \"%s\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}", name,
           percentile(s, 50), percentile(s, 90), percentile(s, 99), percentile(s, 100));
}

static uint64_t cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

#endif

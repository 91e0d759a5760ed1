/* Included in front of every module of a fuzzing build: what the codec itself allocates may fail.

   The countdown is the driver's (driver.c); `exact.refuse_allocation` sets it. Python's own
   allocations do not come by here. */
#ifndef FUZZ_FAULTS_H
#define FUZZ_FAULTS_H

/* First, as everywhere: it decides what the system's headers declare. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

extern int fuzz_allocation_countdown;

static inline int fuzz_refuses(void) {
    return fuzz_allocation_countdown > 0 && --fuzz_allocation_countdown == 0;
}

static inline void *fuzz_malloc(size_t size) { return fuzz_refuses() ? NULL : malloc(size); }

static inline void *fuzz_realloc(void *at, size_t size) {
    return fuzz_refuses() ? NULL : realloc(at, size);
}

#define malloc(size) fuzz_malloc(size)
#define realloc(at, size) fuzz_realloc(at, size)

#endif

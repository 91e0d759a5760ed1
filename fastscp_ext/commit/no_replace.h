/* A rename that fails with EEXIST where something has the new name. */
#ifndef FASTSCP_NO_REPLACE_H
#define FASTSCP_NO_REPLACE_H

#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

/* The system call itself: some C libraries lack the wrapper. */
static inline int rename_noreplace(
    int from_dir, const char *from, int to_dir, const char *to) {
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, RENAME_NOREPLACE);
}

#endif

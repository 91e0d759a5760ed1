/* A clock that stands still, and a list of socket options: preloaded into a process that receives.
 *
 * The clock is the coarse one, which nobody in the process reads but the receiver.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROOM 1024

static double held_at;
static struct { int level, name; } options[ROOM];
static int used;

/* What the clock says from now on, in seconds; 0: the truth. */
void hold_clock(double seconds) { held_at = seconds; }

/* How often an option was set since the last such question. */
int times_set(int level, int name) {
    int i, n = 0, kept = 0;
    for (i = 0; i < used; i++) {
        if (options[i].level == level && options[i].name == name)
            n++;
        else
            options[kept++] = options[i];
    }
    used = kept;
    return n;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (clock != CLOCK_MONOTONIC_COARSE || held_at == 0)
        return (int)syscall(SYS_clock_gettime, clock, out);
    out->tv_sec = (time_t)held_at;
    out->tv_nsec = (long)((held_at - (double)out->tv_sec) * 1e9);
    return 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    if (used < ROOM) {
        options[used].level = level;
        options[used++].name = name;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

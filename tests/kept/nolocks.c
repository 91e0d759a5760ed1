/* Locks that the system has none of any more, while the file that NO_LOCKS names is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

static int asked(const char *name, int fd, int command, void *more) {
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    const char *file = getenv("NO_LOCKS");
    if (command == F_OFD_SETLK && file && access(file, F_OK) == 0) {
        errno = ENOLCK;
        return -1;
    }
    return real(fd, command, more);
}

int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void *more = va_arg(list, void *);
    va_end(list);
    return asked("fcntl", fd, command, more);
}

int fcntl64(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void *more = va_arg(list, void *);
    va_end(list);
    return asked("fcntl64", fd, command, more);
}

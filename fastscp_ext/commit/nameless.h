/* Files that have no name until they are whole: nothing of them is left when nobody has them open. */
#ifndef FASTSCP_NAMELESS_H
#define FASTSCP_NAMELESS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef O_TMPFILE
#define O_TMPFILE (020000000 | O_DIRECTORY)
#endif

/* How such a file gets its name. */
enum nameless {
    NAMELESS_NO,       /* there are none: each file is made with a name */
    NAMELESS_DIRECT,   /* by its descriptor: with a privilege, or since Linux 6.10 */
    NAMELESS_BY_PROC,  /* by what /proc calls the descriptor */
};

/* A file in the folder's file system, to write and to read; -1 and errno. */
static inline int nameless_open(int folder) {
    return openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0640);
}

/* Give it a name that nothing has. 0 or the errno. */
static inline int nameless_link(int fd, int way, int folder, const char *name) {
    char shown[32];
    int got;
    if (way == NAMELESS_DIRECT)
        got = linkat(fd, "", folder, name, AT_EMPTY_PATH);
    else {
        snprintf(shown, sizeof shown, "/proc/self/fd/%d", fd);
        got = linkat(AT_FDCWD, shown, folder, name, AT_SYMLINK_FOLLOW);
    }
    return got < 0 ? errno : 0;
}

#endif

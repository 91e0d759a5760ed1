/* Preloaded: fstatvfs and flock hang while $HANG/<name> exists, and leave $HANG/<name>.hangs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

static void hang(const char *name)
{
    const char *folder = getenv("HANG");
    char flag[4096], note[4096];
    int fd;

    if (folder == NULL)
        return;
    snprintf(flag, sizeof flag, "%s/%s", folder, name);
    if (access(flag, F_OK) != 0)
        return;
    snprintf(note, sizeof note, "%s/%s.hangs", folder, name);
    fd = open(note, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    while (access(flag, F_OK) == 0)
        usleep(10000);
}

int fstatvfs(int fd, struct statvfs *found)
{
    int (*real)(int, struct statvfs *) = (int (*)(int, struct statvfs *))dlsym(RTLD_NEXT, "fstatvfs");

    hang("fstatvfs");
    return real(fd, found);
}

int fstatvfs64(int fd, struct statvfs64 *found)
{
    int (*real)(int, struct statvfs64 *) =
        (int (*)(int, struct statvfs64 *))dlsym(RTLD_NEXT, "fstatvfs64");

    hang("fstatvfs");
    return real(fd, found);
}

/* Only those that wait for as long as it takes. */
int flock(int fd, int operation)
{
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");

    if (operation == LOCK_EX)
        hang("flock");
    return real(fd, operation);
}

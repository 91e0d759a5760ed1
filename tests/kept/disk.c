/* An interposed disk for tests: preloaded into every process of the service, it keeps a log of
 * what is done below one directory, lets calls fail, kills processes at a step or holds them there.
 *
 *   KEPT_ROOT     the directory; calls elsewhere are left alone
 *   KEPT_CONTROL  4 KiB shared with the test: lock, counters, rules (struct control)
 *   KEPT_LOG      the log (struct record each, then names and data); without it none is kept
 *   KEPT_NAMELESS files may be made without a name; without it no file system can. A folder: what
 *                 /proc/fs/ext4 tells of a device is read there
 *
 * The order of the log is the order of effects: whatever changes the directory happens under one
 * lock for all threads of all processes, together with its record. A flush has two records, before
 * and after, and runs without the lock: it covers what was recorded before the first and holds from
 * the second on. A response is recorded before it is sent.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ROOM 1024
#define EXT4 "/proc/fs/ext4/"
#define RULES 16
#define PIDS 64

/* Kinds of records; the bit `1 << kind` selects a kind of call in a rule. */
enum {
    K_OPEN = 1, /* that made the file, or was to */
    K_WRITE,
    K_BEGIN, /* of a flush */
    K_FLUSH,
    K_RENAME,
    K_LINK,
    K_UNLINK,
    K_MKDIR,
    K_RMDIR,
    K_CLOSE,
    K_SEND,
    K_TRUNCATE,
    K_SYNC,
    K_LOOK, /* openat without O_CREAT, openat2; in rules only */
};

enum {
    A_NONE,
    A_FAIL,
    A_KILL_BEFORE,
    A_KILL_ALL_BEFORE,
    A_KILL_AFTER,
    A_KILL_ALL_AFTER,
    A_HOLD_BEFORE,
    A_HOLD_AFTER,
    A_SHORT, /* write half and say so */
    A_COUNT, /* nothing else */
    A_PRETEND, /* say that a flush was done, and do none */
};

struct rule {
    uint32_t calls;
    int32_t error;
    int64_t skip; /* calls that pass first */
    int64_t left; /* calls it is for; negative: all */
    uint32_t action;
    uint32_t pid; /* of the only process it is for; 0: all */
    char path[64]; /* part of the path */
    uint64_t hits;
};

struct control {
    uint64_t magic;
    pthread_mutex_t lock;
    char pad[128 - 8 - sizeof(pthread_mutex_t)];
    int64_t free_bytes; /* what statvfs says, unless negative */
    int64_t unused;
    uint64_t counters[16]; /* calls per kind, below the root */
    int32_t pids[PIDS];
    struct rule rules[RULES];
};

struct record {
    uint32_t size;
    uint16_t kind, flags; /* of a flush: 1 fsync, 0 fdatasync */
    int32_t pid, tid, fd, result;
    uint64_t ino, dir, dir2;
    int64_t offset;
    uint16_t n1, n2;
    uint32_t ndata;
};

static struct control *control;
static char root[ROOM];
static size_t root_size;
static int log_fd = -1;
static char nameless[ROOM];
static long (*real)(long, ...);

__attribute__((constructor(101))) static void begin(void) {
    const char *name = getenv("KEPT_CONTROL");
    pthread_mutexattr_t shared;
    int fd, i;
    real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (name == NULL || control != NULL) return;
    snprintf(root, sizeof root, "%s", getenv("KEPT_ROOT"));
    root_size = strlen(root);
    fd = (int)real(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) abort();
    control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) abort();
    real(SYS_close, fd);
    if (control->magic == 0) {
        /* The first process is alone: it starts the others. */
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&control->lock, &shared);
        control->magic = 1;
    }
    for (i = 0; i < PIDS; i++) {
        int32_t none = 0;
        if (__atomic_compare_exchange_n(&control->pids[i], &none, getpid(), 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            break;
    }
    name = getenv("KEPT_NAMELESS");
    if (name != NULL) snprintf(nameless, sizeof nameless, "%s", name);
    name = getenv("KEPT_LOG");
    if (name != NULL) {
        fd = (int)real(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 800);
        real(SYS_close, fd);
    }
}

static long call(long number, long a, long b, long c, long d, long e) {
    if (real == NULL) begin();
    return real(number, a, b, c, d, e, 0L);
}

#define CALL(number, a, b, c, d, e) \
    call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static void lock(void) {
    /* A process that was killed inside has done its call or not, and recorded it or not: the
     * record of a killed process's last call may be missing, never wrong. */
    if (pthread_mutex_lock(&control->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&control->lock);
}

static void unlock(void) { pthread_mutex_unlock(&control->lock); }

static void add(struct record *r, const char *n1, const char *n2, const struct iovec *data,
                int pieces, size_t ndata) {
    static const struct iovec nothing;
    struct iovec all[3];
    int saved = errno, i;
    size_t left = ndata;
    if (log_fd < 0) return;
    r->pid = getpid();
    r->tid = (int32_t)real(SYS_gettid);
    r->n1 = (uint16_t)(n1 ? strlen(n1) : 0);
    r->n2 = (uint16_t)(n2 ? strlen(n2) : 0);
    r->ndata = (uint32_t)ndata;
    r->size = (uint32_t)(sizeof *r + r->n1 + r->n2 + ndata);
    all[0] = (struct iovec){r, sizeof *r};
    all[1] = n1 ? (struct iovec){(char *)n1, r->n1} : nothing;
    all[2] = n2 ? (struct iovec){(char *)n2, r->n2} : nothing;
    real(SYS_writev, (long)log_fd, all, 3L, 0L, 0L, 0L);
    for (i = 0; i < pieces && left; i++) {
        size_t n = data[i].iov_len < left ? data[i].iov_len : left;
        real(SYS_write, (long)log_fd, data[i].iov_base, n, 0L, 0L, 0L);
        left -= n;
    }
    errno = saved;
}

/* ---- paths */

static int fd_path(int fd, char *out) {
    char link[32];
    ssize_t n;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, out, ROOM - 1);
    if (n < 0) n = 0;
    out[n] = 0;
    return (int)n;
}

static void at_path(int dir, const char *name, char *out) {
    size_t n = 0;
    if (name[0] != '/') {
        if (dir == AT_FDCWD) {
            if (getcwd(out, ROOM) == NULL) out[0] = 0;
            n = strlen(out);
        } else {
            n = (size_t)fd_path(dir, out);
        }
        out[n++] = '/';
    }
    snprintf(out + n, ROOM - n, "%s", name);
}

static int inside(const char *path) {
    return control != NULL && strncmp(path, root, root_size) == 0 &&
           (path[root_size] == '/' || path[root_size] == 0);
}

static const char *base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The inode of the directory that holds the last component. */
static uint64_t holder(const char *path) {
    char copy[ROOM];
    struct stat st;
    char *slash;
    snprintf(copy, sizeof copy, "%s", path);
    slash = strrchr(copy, '/');
    if (slash == NULL) return 0;
    *slash = 0;
    return stat(copy, &st) == 0 ? st.st_ino : 0;
}

static uint64_t inode(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

/* ---- rules */

/* Under the lock: no other thread is in the middle of a record. */
static void kill_self(void) {
    lock();
    kill(getpid(), SIGKILL);
}

static void kill_all(void) {
    /* The first process to come is the parent of the others. */
    int32_t parent = control->pids[0];
    char name[32], text[256];
    int i;
    lock();
    /* It replaces nobody meanwhile. */
    if (getpid() != parent && getppid() == parent) kill(parent, SIGSTOP);
    for (i = 1; i < PIDS && control->pids[i]; i++) {
        int pid = control->pids[i], theirs = 0, fd;
        ssize_t n;
        char *after;
        if (pid == getpid()) continue;
        snprintf(name, sizeof name, "/proc/%d/stat", pid);
        fd = (int)CALL(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0, 0);
        if (fd < 0) continue;
        n = (ssize_t)CALL(SYS_read, fd, text, sizeof text - 1, 0, 0);
        CALL(SYS_close, fd, 0, 0, 0, 0);
        text[n > 0 ? n : 0] = 0;
        after = strrchr(text, ')');
        if (after != NULL) sscanf(after + 1, " %*c %d", &theirs);
        if (theirs == parent) kill(pid, SIGKILL);
    }
    if (getpid() != parent && getppid() == parent) kill(parent, SIGKILL);
    kill(getpid(), SIGKILL);
}

static void hold(struct rule *r) {
    struct timespec t = {0, 1000000};
    while (__atomic_load_n(&r->action, __ATOMIC_SEQ_CST) != A_NONE) nanosleep(&t, NULL);
}

/* Whether the rule is for one call more. */
static int taken(struct rule *r) {
    int64_t left = __atomic_load_n(&r->left, __ATOMIC_SEQ_CST);
    while (left > 0)
        if (__atomic_compare_exchange_n(&r->left, &left, left - 1, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            return 1;
    return left < 0;
}

/* Whether the call is to fail, errno set; *after: what is to happen afterwards; -2: half;
 * -3: pretend. */
static int judge(int kind, const char *path, struct rule **after) {
    int i;
    *after = NULL;
    __atomic_fetch_add(&control->counters[kind], 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < RULES; i++) {
        struct rule *r = &control->rules[i];
        if (r->action == A_NONE || !(r->calls >> kind & 1)) continue;
        if (r->pid && r->pid != (uint32_t)getpid()) continue;
        if (strstr(path, r->path) == NULL) continue;
        if (__atomic_fetch_sub(&r->skip, 1, __ATOMIC_SEQ_CST) > 0) continue;
        if (!taken(r)) continue;
        __atomic_fetch_add(&r->hits, 1, __ATOMIC_SEQ_CST);
        switch (r->action) {
        case A_FAIL:
            errno = r->error;
            return -1;
        case A_SHORT:
            return -2;
        case A_PRETEND:
            return -3;
        case A_KILL_BEFORE:
            kill_self();
            break;
        case A_KILL_ALL_BEFORE:
            kill_all();
            break;
        case A_HOLD_BEFORE:
            hold(r);
            break;
        default:
            *after = r;
        }
    }
    return 0;
}

static void then(struct rule *r) {
    int saved = errno;
    if (r == NULL) return;
    if (r->action == A_KILL_AFTER) kill_self();
    if (r->action == A_KILL_ALL_AFTER) kill_all();
    if (r->action == A_HOLD_AFTER) hold(r);
    errno = saved;
}

/* ---- the calls */

static int do_open(int dir, const char *name, int flags, mode_t mode) {
    char path[ROOM];
    struct record r = {.kind = K_OPEN};
    struct rule *after;
    struct stat st;
    int fd, made;
    char told[2 * ROOM];
    int bare = (flags & O_TMPFILE) == O_TMPFILE;
    if (control == NULL) return (int)CALL(SYS_openat, dir, name, flags, mode, 0);
    at_path(dir, name, path);
    if (nameless[0] && strncmp(path, EXT4, strlen(EXT4)) == 0) {
        snprintf(told, sizeof told, "%s/%s", nameless, base(path));
        return (int)CALL(SYS_openat, AT_FDCWD, told, flags, mode, 0);
    }
    if (!inside(path)) return (int)CALL(SYS_openat, dir, name, flags, mode, 0);
    if (bare && !nameless[0]) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (judge(flags & O_CREAT || bare ? K_OPEN : K_LOOK, path, &after) < 0) return -1;
    lock();
    made = bare || (flags & O_CREAT && inode(path) == 0);
    fd = (int)CALL(SYS_openat, dir, name, flags, mode, 0);
    if (fd >= 0 && (made || flags & O_TRUNC) && fstat(fd, &st) == 0) {
        r.fd = fd;
        r.ino = st.st_ino;
        if (!bare) r.dir = holder(path);
        if (!made) r.kind = K_TRUNCATE;
        add(&r, bare ? NULL : base(path), NULL, NULL, 0, 0);
    }
    unlock();
    then(after);
    return fd;
}

/* Folders and files to be read; never made so. */
static int do_look(int dir, const char *name, long how, long size) {
    char path[ROOM];
    struct rule *after;
    int fd;
    at_path(dir, name, path);
    if (!inside(path)) return (int)CALL(SYS_openat2, dir, name, how, size, 0);
    if (judge(K_LOOK, path, &after) < 0) return -1;
    fd = (int)CALL(SYS_openat2, dir, name, how, size, 0);
    then(after);
    return fd;
}

#define OPENS(name)                                               \
    int name(const char *path, int flags, ...) {                  \
        va_list more;                                             \
        mode_t mode;                                              \
        va_start(more, flags);                                    \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                             \
        return do_open(AT_FDCWD, path, flags, mode);              \
    }
#define OPENATS(name)                                             \
    int name(int dir, const char *path, int flags, ...) {         \
        va_list more;                                             \
        mode_t mode;                                              \
        va_start(more, flags);                                    \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                             \
        return do_open(dir, path, flags, mode);                   \
    }
OPENS(open)
OPENS(open64)
OPENATS(openat)
OPENATS(openat64)

static ssize_t do_write(long number, int fd, const struct iovec *data, int pieces, off_t at) {
    char path[ROOM];
    struct record r = {.kind = K_WRITE, .fd = fd};
    struct rule *after;
    struct sockaddr_storage name;
    socklen_t name_size = sizeof name;
    struct stat st;
    ssize_t n;
    size_t all = 0;
    int i, fault;
    for (i = 0; i < pieces; i++) all += data[i].iov_len;
    if (control == NULL || fstat(fd, &st) < 0) goto plain;
    if (S_ISSOCK(st.st_mode)) {
        if (all == 0 || *(const uint8_t *)data[0].iov_base != 4 ||
            getsockname(fd, (struct sockaddr *)&name, &name_size) < 0 || name.ss_family != AF_INET)
            goto plain;
        r.kind = K_SEND;
        if (judge(K_SEND, "socket", &after) == -1) return -1;
        lock();
        add(&r, NULL, NULL, data, pieces, all);
        unlock();
        if (number == SYS_sendto)
            n = CALL(number, fd, data[0].iov_base, data[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL, 0);
        else if (number == SYS_write)
            n = CALL(number, fd, data[0].iov_base, data[0].iov_len, 0, 0);
        else
            n = CALL(number, fd, data, pieces, 0, 0);
        then(after);
        return n;
    }
    if (!S_ISREG(st.st_mode) || (fd_path(fd, path), !inside(path))) goto plain;
    fault = judge(K_WRITE, path, &after);
    if (fault == -1) return -1;
    lock();
    if (fault == -2) {
        n = CALL(number == SYS_pwrite64 ? SYS_pwrite64 : SYS_write, fd, data[0].iov_base,
                 data[0].iov_len / 2, at, 0);
    } else if (number == SYS_writev) {
        n = CALL(number, fd, data, pieces, 0, 0);
    } else {
        n = CALL(number, fd, data[0].iov_base, data[0].iov_len, at, 0);
    }
    if (n > 0) {
        r.ino = st.st_ino;
        r.offset = number == SYS_pwrite64 ? at : lseek(fd, 0, SEEK_CUR) - n;
        add(&r, NULL, NULL, data, pieces, (size_t)n);
    }
    unlock();
    then(after);
    return n;
plain:
    if (number == SYS_writev) return CALL(number, fd, data, pieces, 0, 0);
    if (number == SYS_sendto)
        return CALL(number, fd, data[0].iov_base, data[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL, 0);
    return CALL(number, fd, data[0].iov_base, data[0].iov_len, at, 0);
}

ssize_t write(int fd, const void *data, size_t n) {
    struct iovec one = {(void *)data, n};
    return do_write(SYS_write, fd, &one, 1, 0);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    struct iovec one = {(void *)data, n};
    return do_write(SYS_pwrite64, fd, &one, 1, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return pwrite(fd, data, n, at); }

ssize_t writev(int fd, const struct iovec *data, int pieces) {
    return do_write(SYS_writev, fd, data, pieces, 0);
}

ssize_t send(int fd, const void *data, size_t n, int flags) {
    struct iovec one = {(void *)data, n};
    if (flags != (MSG_DONTWAIT | MSG_NOSIGNAL))
        return real(SYS_sendto, (long)fd, data, n, (long)flags, 0L, 0L);
    return do_write(SYS_sendto, fd, &one, 1, 0);
}

static int do_flush(long number, int fd) {
    char path[ROOM];
    struct record r = {.kind = K_BEGIN, .fd = fd};
    struct rule *after;
    struct stat st;
    int got;
    if (control == NULL || (fd_path(fd, path), !inside(path)) || fstat(fd, &st) < 0)
        return (int)CALL(number, fd, 0, 0, 0, 0);
    r.ino = st.st_ino;
    r.flags = number == SYS_fsync;
    lock();
    add(&r, NULL, NULL, NULL, 0, 0);
    unlock();
    got = judge(K_FLUSH, path, &after);
    if (got == 0)
        got = (int)CALL(number, fd, 0, 0, 0, 0);
    else if (got == -3)
        got = 0;
    r.kind = K_FLUSH;
    r.result = got < 0 ? -errno : 0;
    lock();
    add(&r, NULL, NULL, NULL, 0, 0);
    unlock();
    then(after);
    return got;
}

int fsync(int fd) { return do_flush(SYS_fsync, fd); }
int fdatasync(int fd) { return do_flush(SYS_fdatasync, fd); }

int syncfs(int fd) {
    char path[ROOM];
    struct record r = {.kind = K_SYNC, .fd = fd};
    struct rule *after;
    int got;
    if (control == NULL || (fd_path(fd, path), !inside(path)))
        return (int)CALL(SYS_syncfs, fd, 0, 0, 0, 0);
    if (judge(K_SYNC, path, &after) < 0) return -1;
    got = (int)CALL(SYS_syncfs, fd, 0, 0, 0, 0);
    lock();
    add(&r, NULL, NULL, NULL, 0, 0);
    unlock();
    then(after);
    return got;
}

static int do_move(int kind, long number, int from, const char *old, int to, const char *new,
                   unsigned flags) {
    char one[ROOM], two[ROOM];
    struct record r = {.kind = (uint16_t)kind};
    struct rule *after;
    struct stat st;
    int got, bare;
    if (control == NULL) return (int)CALL(number, from, old, to, new, flags);
    at_path(from, old, one);
    at_path(to, new, two);
    if (!inside(two)) return (int)CALL(number, from, old, to, new, flags);
    if (judge(kind, two, &after) < 0) return -1;
    lock();
    /* A file without a name is given by its descriptor. */
    bare = kind == K_LINK &&
           (flags & AT_EMPTY_PATH       ? fstat(from, &st)
            : flags & AT_SYMLINK_FOLLOW ? stat(old, &st)
                                        : -1) == 0 &&
           st.st_nlink == 0;
    r.ino = bare ? st.st_ino : inode(one);
    if (!bare) r.dir = holder(one);
    got = (int)CALL(number, from, old, to, new, flags);
    if (got == 0) {
        r.dir2 = holder(two);
        add(&r, bare ? NULL : base(one), base(two), NULL, 0, 0);
    }
    unlock();
    then(after);
    return got;
}

int renameat(int from, const char *old, int to, const char *new) {
    return do_move(K_RENAME, SYS_renameat2, from, old, to, new, 0);
}
int rename(const char *old, const char *new) {
    return do_move(K_RENAME, SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    return do_move(K_LINK, SYS_linkat, from, old, to, new, (unsigned)flags);
}
int link(const char *old, const char *new) {
    return do_move(K_LINK, SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0);
}

long syscall(long number, ...) {
    long a, b, c, d, e, f;
    va_list more;
    va_start(more, number);
    a = va_arg(more, long);
    b = va_arg(more, long);
    c = va_arg(more, long);
    d = va_arg(more, long);
    e = va_arg(more, long);
    f = va_arg(more, long);
    va_end(more);
    if (real == NULL) begin();
    /* Without RENAME_NOREPLACE a rule can tell the two kinds apart. */
    if (number == SYS_openat2) return do_look((int)a, (const char *)b, c, d);
    if (number == SYS_renameat2)
        return do_move(K_RENAME, number, (int)a, (const char *)b, (int)c, (const char *)d,
                       (unsigned)e);
    return real(number, a, b, c, d, e, f);
}

static int do_one(int kind, long number, int dir, const char *name, long more) {
    char path[ROOM];
    struct record r = {.kind = (uint16_t)kind};
    struct rule *after;
    int got;
    if (control == NULL) return (int)CALL(number, dir, name, more, 0, 0);
    at_path(dir, name, path);
    if (!inside(path)) return (int)CALL(number, dir, name, more, 0, 0);
    if (judge(kind, path, &after) < 0) return -1;
    lock();
    r.ino = inode(path);
    got = (int)CALL(number, dir, name, more, 0, 0);
    if (got == 0) {
        if (kind == K_MKDIR) r.ino = inode(path);
        r.dir = holder(path);
        add(&r, base(path), NULL, NULL, 0, 0);
    }
    unlock();
    then(after);
    return got;
}

int unlinkat(int dir, const char *name, int flags) {
    return do_one(flags & AT_REMOVEDIR ? K_RMDIR : K_UNLINK, SYS_unlinkat, dir, name, flags);
}
int unlink(const char *name) { return do_one(K_UNLINK, SYS_unlinkat, AT_FDCWD, name, 0); }
int rmdir(const char *name) { return do_one(K_RMDIR, SYS_unlinkat, AT_FDCWD, name, AT_REMOVEDIR); }
int mkdirat(int dir, const char *name, mode_t mode) {
    return do_one(K_MKDIR, SYS_mkdirat, dir, name, (long)mode);
}
int mkdir(const char *name, mode_t mode) {
    return do_one(K_MKDIR, SYS_mkdirat, AT_FDCWD, name, (long)mode);
}

static int do_truncate(int fd, off_t size) {
    char path[ROOM];
    struct record r = {.kind = K_TRUNCATE, .fd = fd, .offset = size};
    struct stat st;
    int got;
    if (control == NULL || (fd_path(fd, path), !inside(path)) || fstat(fd, &st) < 0)
        return (int)CALL(SYS_ftruncate, fd, size, 0, 0, 0);
    lock();
    got = (int)CALL(SYS_ftruncate, fd, size, 0, 0, 0);
    r.ino = st.st_ino;
    if (got == 0) add(&r, NULL, NULL, NULL, 0, 0);
    unlock();
    return got;
}

int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_truncate(fd, size); }

int close(int fd) {
    char path[ROOM];
    struct record r = {.kind = K_CLOSE, .fd = fd};
    struct rule *after = NULL;
    struct stat st;
    int got = 0, error = 0;
    if (control != NULL && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        (fd_path(fd, path), inside(path))) {
        got = judge(K_CLOSE, path, &after);
        error = errno;
        r.ino = st.st_ino;
        lock();
        add(&r, NULL, NULL, NULL, 0, 0);
        unlock();
    }
    /* One that fails gives the descriptor back all the same. */
    if (CALL(SYS_close, fd, 0, 0, 0, 0) < 0) return -1;
    then(after);
    if (got < 0) errno = error;
    return got < 0 ? -1 : 0;
}

static int do_space(int fd, struct statvfs *out) {
    static int (*next)(int, struct statvfs *);
    char path[ROOM];
    int got;
    if (next == NULL) next = (int (*)(int, struct statvfs *))dlsym(RTLD_NEXT, "fstatvfs");
    got = next(fd, out);
    if (got == 0 && control != NULL && control->free_bytes >= 0 && (fd_path(fd, path), inside(path)))
        out->f_bavail = (fsblkcnt_t)control->free_bytes / out->f_frsize;
    return got;
}

int fstatvfs(int fd, struct statvfs *out) { return do_space(fd, out); }
int fstatvfs64(int fd, struct statvfs64 *out) { return do_space(fd, (struct statvfs *)out); }

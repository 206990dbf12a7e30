/* Stands between a process and the C library (LD_PRELOAD): sees every change below one folder, writes it to a journal,
 * and lets changes fail or kills the process at a chosen one. What it is for is told in docs/reliability.md.
 *
 * Changes are made by system calls of our own under one mutex, so that the journal has them in the order they happened
 * and nothing happens between a change and the death that follows it. Whether anything gets past us is found out by
 * whoever reads the journal: replayed, it must give the very tree that is on disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_BYTES (1 << 20) /* of one write; more is a short write, which is allowed always */

/* The kinds of records; journal.py has the same. */
enum { CREATE = 1, WRITE, TRUNCATE, SYNC, MAKE_DIR, REMOVE_DIR, UNLINK, RENAME, LINK, NOTE, FAULT, SYMLINK };

struct record { /* little endian, no padding: 8 + 3 * 8 + 2 * 4 bytes */
    uint16_t kind, first_len, second_len, unused;
    uint64_t inode, offset, length;
    int32_t error;
    uint32_t step;
};

static struct {
    int on;
    int journal;
    char prefix[PATH_MAX];
    size_t prefix_len;
    long step;
    long kill_step;
    int kill_how; /* 0 before, 1 after, 2 in the middle of a write */
    long error_step, n_errors;
    int error;
    uint64_t cut;   /* state of the dice for short writes; 0: none */
    int64_t room;   /* bytes that the disk still takes; -1: no bound */
    int tells_room; /* statvfs says so */
} it = {.journal = -1};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* -- whose is it? ---------------------------------------------------------------------------------------------- */

static int is_ours(const char *path) { return strncmp(path, it.prefix, it.prefix_len) == 0; }

static int path_of_fd(int fd, char *out) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return 1;
}

static int full_path(int dirfd, const char *path, char *out) {
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return 1;
    }
    if (dirfd == AT_FDCWD) {
        if (syscall(SYS_getcwd, out, PATH_MAX) < 0) return 0;
    } else if (!path_of_fd(dirfd, out)) {
        return 0;
    }
    size_t n = strlen(out);
    return snprintf(out + n, PATH_MAX - n, "/%s", path) < (int)(PATH_MAX - n);
}

static int watches_fd(int fd, char *path) { return it.on && path_of_fd(fd, path) && is_ours(path); }

static int watches(int dirfd, const char *name, char *path) {
    return it.on && name && full_path(dirfd, name, path) && is_ours(path);
}

/* -- the journal ----------------------------------------------------------------------------------------------- */

static void put(struct record head, const char *first, const char *second, const void *data) {
    head.first_len = first ? strlen(first) : 0;
    head.second_len = second ? strlen(second) : 0;
    head.step = it.step;
    struct iovec parts[] = {
        {&head, sizeof head},
        {(void *)first, head.first_len},
        {(void *)second, head.second_len},
        {(void *)data, data ? head.length : 0},
    };
    size_t total = 0;
    for (int i = 0; i < 4; i++) total += parts[i].iov_len;
    if (syscall(SYS_writev, it.journal, parts, 4) != (long)total) abort(); /* the harness's own disk is full */
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* -- faults ---------------------------------------------------------------------------------------------------- */

enum verdict { GO, FAIL };

/* Count a change and decide about it. `n` is what it would write, and comes back as what it may; NULL where that is
 * nothing. `grows`: it needs room even so. */
static enum verdict decide(const char *what, const char *path, size_t *n, int grows) {
    it.step++;
    if (it.step == it.kill_step) {
        if (it.kill_how == 0) die();
        if (it.kill_how == 2 && n) *n = *n / 2;
    }
    int error = 0;
    if (it.step >= it.error_step && it.step < it.error_step + it.n_errors) error = it.error;
    if (!error && it.room >= 0 && (n || grows)) {
        size_t wanted = n ? *n : 1;
        if (wanted && it.room == 0) error = ENOSPC;
        else if (n && (int64_t)*n > it.room) *n = it.room;
    }
    if (error) {
        put((struct record){.kind = FAULT, .error = error}, what, path, NULL);
        errno = error;
        return FAIL;
    }
    if (n && *n > MOST_BYTES) *n = MOST_BYTES;
    if (it.cut && n && *n > 1) {
        it.cut = it.cut * 6364136223846793005ull + 1442695040888963407ull;
        if (it.cut >> 63) *n = 1 + (it.cut >> 33) % *n;
    }
    return GO;
}

static void done(void) {
    if (it.step == it.kill_step) die();
}

static void use(int64_t n) {
    if (it.room >= 0) it.room = n < it.room ? it.room - n : 0;
}

static void give(const struct stat *s) {
    if (it.room >= 0 && S_ISREG(s->st_mode) && s->st_nlink == 1) it.room += s->st_blocks * 512;
}

/* -- bytes ----------------------------------------------------------------------------------------------------- */

static uint64_t inode_of(int fd) {
    struct stat s;
    return fstat(fd, &s) ? 0 : s.st_ino;
}

static ssize_t do_write(int fd, const char *path, const void *data, size_t n, off_t at) {
    pthread_mutex_lock(&mutex);
    ssize_t result = -1;
    if (decide("write", path, &n, 0) == GO) {
        result = at < 0 ? syscall(SYS_write, fd, data, n) : syscall(SYS_pwrite64, fd, data, n, at);
        if (result >= 0) {
            off_t from = at < 0 ? lseek(fd, 0, SEEK_CUR) - result : at;
            use(result);
            put((struct record){.kind = WRITE, .inode = inode_of(fd), .offset = from, .length = result},
                NULL, NULL, data);
        }
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

ssize_t write(int fd, const void *data, size_t n) {
    char path[PATH_MAX];
    return watches_fd(fd, path) ? do_write(fd, path, data, n, -1) : syscall(SYS_write, fd, data, n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    char path[PATH_MAX];
    return watches_fd(fd, path) ? do_write(fd, path, data, n, at) : syscall(SYS_pwrite64, fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

/* Of several buffers the first alone: a short write, which is allowed. */
static const struct iovec *first_of(const struct iovec *parts, int n) {
    while (n > 1 && !parts->iov_len) parts++, n--;
    return parts;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    char path[PATH_MAX];
    if (n < 1 || !watches_fd(fd, path)) return syscall(SYS_writev, fd, parts, n);
    parts = first_of(parts, n);
    return do_write(fd, path, parts->iov_base, parts->iov_len, -1);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int n, off_t at) {
    char path[PATH_MAX];
    if (n < 1 || !watches_fd(fd, path)) return syscall(SYS_pwritev, fd, parts, n, at, 0L);
    parts = first_of(parts, n);
    return do_write(fd, path, parts->iov_base, parts->iov_len, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) { return pwritev64(fd, parts, n, at); }

/* The kernel copies between files; here by hand, in steps, so that the bytes are seen. */
static ssize_t copy(int from, off_t *from_at, int to, off_t *to_at, size_t n) {
    char path[PATH_MAX];
    path_of_fd(to, path);
    if (n > MOST_BYTES) n = MOST_BYTES;
    char *data = malloc(n ? n : 1);
    if (!data) return -1;
    ssize_t got = from_at ? syscall(SYS_pread64, from, data, n, *from_at) : syscall(SYS_read, from, data, n);
    ssize_t result = got;
    if (got > 0) {
        result = do_write(to, path, data, got, to_at ? *to_at : -1);
        ssize_t used = result > 0 ? result : 0;
        if (from_at) *from_at += used;
        else lseek(from, used - got, SEEK_CUR);
        if (to_at) *to_at += used;
    }
    free(data);
    return result;
}

ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t n, unsigned flags) {
    char path[PATH_MAX];
    if (!watches_fd(to, path)) return syscall(SYS_copy_file_range, from, from_at, to, to_at, n, flags);
    return copy(from, from_at, to, to_at, n);
}

ssize_t sendfile64(int to, int from, off_t *from_at, size_t n) {
    char path[PATH_MAX];
    if (!watches_fd(to, path)) return syscall(SYS_sendfile, to, from, from_at, n);
    return copy(from, from_at, to, NULL, n);
}

ssize_t sendfile(int to, int from, off_t *from_at, size_t n) { return sendfile64(to, from, from_at, n); }

int ftruncate64(int fd, off_t size) {
    char path[PATH_MAX];
    if (!watches_fd(fd, path)) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (decide("ftruncate", path, NULL, 0) == GO) {
        result = syscall(SYS_ftruncate, fd, size);
        if (!result) put((struct record){.kind = TRUNCATE, .inode = inode_of(fd), .offset = size}, NULL, NULL, NULL);
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char *name, off_t size) {
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size), error = errno;
    close(fd);
    errno = error;
    return result;
}

int truncate(const char *name, off_t size) { return truncate64(name, size); }

static int do_sync(int fd, const char *what, long number) {
    char path[PATH_MAX];
    if (!watches_fd(fd, path)) return syscall(number, fd);
    pthread_mutex_lock(&mutex);
    int result = -1;
    struct record head = {.kind = SYNC, .inode = inode_of(fd)};
    if (decide(what, path, NULL, 0) == GO) {
        result = syscall(number, fd);
        put(head, NULL, NULL, NULL);
        done();
    } else {
        head.error = errno;
        put(head, NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int fsync(int fd) { return do_sync(fd, "fsync", SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, "fdatasync", SYS_fdatasync); }

/* -- names ----------------------------------------------------------------------------------------------------- */

static int do_open(int dirfd, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !watches(dirfd, name, path))
        return syscall(SYS_openat, dirfd, name, flags, mode);
    pthread_mutex_lock(&mutex);
    struct stat before;
    int existed = !fstatat(dirfd, name, &before, 0), fd = -1;
    int changes = !existed || ((flags & O_TRUNC) && before.st_size);
    if (!changes || decide("open", path, NULL, !existed) == GO) {
        fd = syscall(SYS_openat, dirfd, name, flags, mode);
        if (fd >= 0 && changes) {
            if (existed) give(&before);
            put((struct record){.kind = existed ? TRUNCATE : CREATE, .inode = inode_of(fd)}, path, NULL, NULL);
        }
        if (changes) done();
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(function, dirfd, ...)               \
    int function(__VA_ARGS__, int flags, ...) {  \
        va_list rest;                            \
        va_start(rest, flags);                   \
        mode_t mode = mode_of(flags, rest);      \
        va_end(rest);                            \
        return do_open(dirfd, name, flags, mode); \
    }

OPEN(open, AT_FDCWD, const char *name)
OPEN(open64, AT_FDCWD, const char *name)
OPEN(openat, dirfd, int dirfd, const char *name)
OPEN(openat64, dirfd, int dirfd, const char *name)

int mkdirat(int dirfd, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!watches(dirfd, name, path)) return syscall(SYS_mkdirat, dirfd, name, mode);
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (decide("mkdir", path, NULL, 1) == GO) {
        result = syscall(SYS_mkdirat, dirfd, name, mode);
        struct stat s;
        if (!result && !fstatat(dirfd, name, &s, 0))
            put((struct record){.kind = MAKE_DIR, .inode = s.st_ino}, path, NULL, NULL);
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dirfd, const char *name, int flags) {
    char path[PATH_MAX];
    if (!watches(dirfd, name, path)) return syscall(SYS_unlinkat, dirfd, name, flags);
    pthread_mutex_lock(&mutex);
    int result = -1, is_dir = flags & AT_REMOVEDIR;
    if (decide(is_dir ? "rmdir" : "unlink", path, NULL, 0) == GO) {
        struct stat s;
        int known = !fstatat(dirfd, name, &s, AT_SYMLINK_NOFOLLOW);
        result = syscall(SYS_unlinkat, dirfd, name, flags);
        int error = errno;
        if (!result) {
            if (known) give(&s);
            put((struct record){.kind = is_dir ? REMOVE_DIR : UNLINK}, path, NULL, NULL);
        }
        errno = error;
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char first[PATH_MAX], second[PATH_MAX];
    if (!watches(from_dir, from, first) || !watches(to_dir, to, second))
        return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (decide("rename", second, NULL, 0) == GO) {
        struct stat old;
        int replaces = !fstatat(to_dir, to, &old, AT_SYMLINK_NOFOLLOW);
        result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
        int error = errno;
        if (!result) {
            if (replaces) give(&old);
            put((struct record){.kind = RENAME}, first, second, NULL);
        }
        errno = error;
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return renameat2(from_dir, from, to_dir, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char first[PATH_MAX], second[PATH_MAX];
    if (!watches(from_dir, from, first) || !watches(to_dir, to, second))
        return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (decide("link", second, NULL, 1) == GO) {
        result = syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
        if (!result) put((struct record){.kind = LINK}, first, second, NULL);
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *to, int dirfd, const char *name) {
    char path[PATH_MAX];
    if (!watches(dirfd, name, path)) return syscall(SYS_symlinkat, to, dirfd, name);
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (decide("symlink", path, NULL, 1) == GO) {
        result = syscall(SYS_symlinkat, to, dirfd, name);
        if (!result) put((struct record){.kind = SYMLINK}, path, to, NULL);
        done();
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int symlink(const char *to, const char *name) { return symlinkat(to, AT_FDCWD, name); }

int statvfs64(const char *name, struct statvfs64 *out) {
    int (*real)(const char *, struct statvfs64 *) = dlsym(RTLD_NEXT, "statvfs64");
    char path[PATH_MAX];
    int result = real(name, out);
    if (!result && watches(AT_FDCWD, name, path) && it.room >= 0 && it.tells_room)
        out->f_bavail = out->f_bfree = it.room / out->f_frsize;
    return result;
}

int statvfs(const char *name, struct statvfs *out) { return statvfs64(name, (struct statvfs64 *)out); }

/* -- for the harness ------------------------------------------------------------------------------------------- */

void crash_watch(const char *prefix, int journal) {
    it.prefix_len = snprintf(it.prefix, sizeof it.prefix, "%s", prefix);
    it.journal = journal;
    it.room = -1;
    it.on = 1;
}

/* Steps count from 1, from now on; 0 is never. */
void crash_kill_at(long step, int how) {
    pthread_mutex_lock(&mutex);
    it.kill_step = step ? it.step + step : 0;
    it.kill_how = how;
    pthread_mutex_unlock(&mutex);
}

void crash_fail_at(long step, long n_errors, int error) {
    pthread_mutex_lock(&mutex);
    it.error_step = step ? it.step + step : 0;
    it.n_errors = step ? n_errors : 0;
    it.error = error;
    pthread_mutex_unlock(&mutex);
}

void crash_cut_writes(uint64_t seed) { it.cut = seed; }

void crash_leave_room(int64_t n_bytes, int tells) {
    pthread_mutex_lock(&mutex);
    it.room = n_bytes;
    it.tells_room = tells;
    pthread_mutex_unlock(&mutex);
}

void crash_note(const char *text) {
    pthread_mutex_lock(&mutex);
    put((struct record){.kind = NOTE}, text, NULL, NULL);
    pthread_mutex_unlock(&mutex);
}

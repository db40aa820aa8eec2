/* A disk that fails on demand, and a diary of what was written and synced: loaded before libc (LD_PRELOAD).
 *
 * Only files whose path ends as `disk_watch` says ("ledger.db" also means "ledger.db-wal") are touched. The
 * process itself arms the faults, through ctypes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, NOTE = 8, LOST = 16 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char watched[256];
static int kinds;           /* which operations are counted, and fail */
static long nth;            /* the first that fails; 0: none does */
static long last;           /* the last that fails; 0: all from the nth on */
static long counted, failed;
static int code;            /* errno of a failure */
static int torn;            /* a write that fails has written its first half */
static int diary = -1;

void disk_watch(const char *name) { snprintf(watched, sizeof watched, "%s", name); }

void disk_arm(int what, long from, long number, int error, int half)
{
    pthread_mutex_lock(&mutex);
    kinds = what, nth = from, last = number ? from + number - 1 : 0, code = error, torn = half;
    if (from)
        counted = failed = 0;
    pthread_mutex_unlock(&mutex);
}

long disk_failed(void) { return failed; }
long disk_counted(void) { return counted; }
void disk_diary(int fd) { diary = fd; }

/* 0: not watched; 1: the file itself; 2: its WAL. The -shm is no part of what a disk keeps. */
static int which(int fd)
{
    char link[64], path[PATH_MAX];
    size_t length = strlen(watched);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = length ? readlink(link, path, sizeof path - 1) : -1;
    if (got < 0)
        return 0;
    path[got] = 0;
    if ((size_t)got >= length && strcmp(path + got - length, watched) == 0)
        return 1;
    if ((size_t)got >= length + 4 && strcmp(path + got - 4, "-wal") == 0 &&
        strncmp(path + got - 4 - length, watched, length) == 0)
        return 2;
    return 0;
}

static int strikes(int kind)
{
    if (!nth || !(kind & kinds))
        return 0;
    counted++;
    if (counted < nth || (last && counted > last))
        return 0;
    failed++;
    errno = code;
    return 1;
}

static ssize_t real_write(int fd, const void *data, size_t length)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "write");
    return next(fd, data, length);
}

static void enter(int kind, int file, int64_t offset, const void *data, int64_t length)
{
    int64_t head[4] = {kind, file, offset, length};
    if (diary < 0)
        return;
    real_write(diary, head, sizeof head);
    if (data)
        real_write(diary, data, length);
}

void disk_note(const char *text)
{
    pthread_mutex_lock(&mutex);
    enter(NOTE, 0, 0, text, strlen(text));
    pthread_mutex_unlock(&mutex);
}

static ssize_t put(const char *name, int fd, const void *data, size_t length, off64_t offset)
{
    ssize_t (*next)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, name);
    int file = which(fd);
    if (!file)
        return next(fd, data, length, offset);
    pthread_mutex_lock(&mutex);
    ssize_t done = -1;
    if (!strikes(WRITE)) {
        done = next(fd, data, length, offset);
        if (done > 0)
            enter(WRITE, file, offset, data, done);
    } else if (torn) {
        int error = errno;
        next(fd, data, length / 2, offset);
        errno = error;
    }
    pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return put("pwrite", fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return put("pwrite64", fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length)
{
    int file = which(fd);
    if (!file)
        return real_write(fd, data, length);
    pthread_mutex_lock(&mutex);
    ssize_t done = -1;
    off64_t offset = lseek64(fd, 0, SEEK_CUR);
    if (!strikes(WRITE)) {
        done = real_write(fd, data, length);
        if (done > 0)
            enter(WRITE, file, offset, data, done);
    }
    pthread_mutex_unlock(&mutex);
    return done;
}

static int sync_file(const char *name, int fd)
{
    int (*next)(int) = dlsym(RTLD_NEXT, name);
    int file = which(fd);
    if (!file)
        return next(fd);
    pthread_mutex_lock(&mutex);
    int done = -1;
    if (!strikes(SYNC)) {
        done = next(fd);
        if (done == 0)
            enter(SYNC, file, 0, NULL, 0);
    } else {
        enter(LOST, file, 0, NULL, 0);  /* as Linux does: what could not be synced is not tried again */
    }
    pthread_mutex_unlock(&mutex);
    return done;
}

int fsync(int fd) { return sync_file("fsync", fd); }
int fdatasync(int fd) { return sync_file("fdatasync", fd); }

static int cut(const char *name, int fd, off64_t length)
{
    int (*next)(int, off64_t) = dlsym(RTLD_NEXT, name);
    int file = which(fd);
    if (!file)
        return next(fd, length);
    pthread_mutex_lock(&mutex);
    int done = -1;
    if (!strikes(TRUNCATE)) {
        done = next(fd, length);
        if (done == 0)
            enter(TRUNCATE, file, length, NULL, 0);
    }
    pthread_mutex_unlock(&mutex);
    return done;
}

int ftruncate(int fd, off_t length) { return cut("ftruncate", fd, length); }
int ftruncate64(int fd, off64_t length) { return cut("ftruncate64", fd, length); }

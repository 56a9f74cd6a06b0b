/*
 * powercut.c - LD_PRELOAD library that writes down every change a process makes below a folder, so that disk.py can say
 * what a power cut at any moment may have left of it; and that gives rebuilt files the identity they had.
 *
 * Recording: LJ_CUT_ROOT is the folder (absolute), LJ_CUT_JOURNAL the file outside of it that records are appended to. Each call
 * and its record are one step under one lock, so the journal's order is the order of things, over threads and
 * processes. Synchronising is only noted, not done: what is durable is for the reader of the journal to say. Writable shared
 * mappings (the page `shared`) are compared at each step and recorded when they changed. SQLite's -shm is left out: it is
 * worth nothing after a power cut.
 *
 * Without a journal, but with LJ_CUT_FAST: fsync does nothing, for the processes that look at what is left.
 *
 * The journal is in powercut_journal.c; answers of stat() in powercut_identity.c.
 */
#define _GNU_SOURCE
#include "powercut.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../lib/interpose.h"

#define FDS_MAX 4096

static ino_t
    tracked[FDS_MAX]; /* inode of what is open below the root under this number, 0 = nothing */

/* ------------------------------------------------------------------ open and close */

static bool is_tracked(int fd)
{
    struct stat64 st;
    return pc_recording() && fd >= 0 && fd < FDS_MAX && tracked[fd] != 0 &&
           pc_look(NULL, fd, &st) && st.st_ino == tracked[fd];
}

static int opened(int fd, const char *path, int flags, bool was_there, int64_t was_bytes)
{
    struct stat64 st;
    if (fd < 0 || !pc_look(NULL, fd, &st))
        return fd;
    if ((flags & O_TMPFILE) == O_TMPFILE)
        return fd; /* no name, nothing to find after the cut */
    if (fd < FDS_MAX)
        tracked[fd] = st.st_ino;
    if (!was_there)
        pc_note_names(PC_CREATE, path, NULL, path);
    else if ((flags & O_TRUNC) != 0 && was_bytes != 0)
        pc_note_fd(PC_LENGTH, fd, 0, NULL, 0);
    return fd;
}

static int open_path(const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = NEXT(int, open64, const char *, int, ...);
    if (!pc_below(path))
        return next(path, flags, mode);
    pc_enter();
    struct stat64 st;
    bool there = pc_look(path, -1, &st);
    int fd = opened(next(path, flags, mode), path, flags, there, there ? st.st_size : 0);
    pc_leave();
    return fd;
}

static mode_t mode_of(int flags, va_list list)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        mode_t mode = mode_of(flags, list);                                                        \
        va_end(list);                                                                              \
        return open_path(path, flags, mode);                                                       \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (pc_is_journal(fd)) {
        errno = EBADF;
        return -1;
    }
    if (fd >= 0 && fd < FDS_MAX)
        tracked[fd] = 0;
    return NEXT(int, close, int)(fd);
}

/* ------------------------------------------------------------------ content */

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*next)(int, const void *, size_t) = NEXT(ssize_t, write, int, const void *, size_t);
    if (!is_tracked(fd))
        return next(fd, data, size);
    pc_enter();
    off64_t at = lseek64(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
    ssize_t n = next(fd, data, size);
    if (n > 0)
        pc_note_fd(PC_WRITE, fd, at, data, (size_t)n);
    pc_leave();
    return n;
}

static ssize_t write_at(int fd, const void *data, size_t size, off64_t at)
{
    ssize_t (*next)(int, const void *, size_t, off64_t) =
        NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (!is_tracked(fd))
        return next(fd, data, size, at);
    pc_enter();
    ssize_t n = next(fd, data, size, at);
    if (n > 0)
        pc_note_fd(PC_WRITE, fd, at, data, (size_t)n);
    pc_leave();
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return write_at(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return write_at(fd, data, size, at);
}

static int set_length(int fd, off64_t size)
{
    int (*next)(int, off64_t) = NEXT(int, ftruncate64, int, off64_t);
    if (!is_tracked(fd))
        return next(fd, size);
    pc_enter();
    int rc = next(fd, size);
    if (rc == 0)
        pc_note_fd(PC_LENGTH, fd, size, NULL, 0);
    pc_leave();
    return rc;
}

int ftruncate(int fd, off_t size)
{
    return set_length(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return set_length(fd, size);
}

static int allocate(int fd, off64_t at, off64_t size)
{
    int (*next)(int, off64_t, off64_t) = NEXT(int, posix_fallocate64, int, off64_t, off64_t);
    if (!is_tracked(fd))
        return next(fd, at, size);
    pc_enter();
    struct stat64 st;
    int rc = next(fd, at, size);
    if (rc == 0 && pc_look(NULL, fd, &st))
        pc_note_fd(PC_LENGTH, fd, st.st_size, NULL, 0);
    pc_leave();
    return rc;
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    return allocate(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    return allocate(fd, at, size);
}

/* Nothing is really synchronised: that makes hundreds of runs affordable, and the journal knows better what is durable. */
static int synchronise(int fd, int (*next)(int))
{
    if (!is_tracked(fd))
        return getenv("LJ_CUT_FAST") != NULL ? 0 : next(fd);
    pc_enter();
    pc_note_fd(PC_SYNC, fd, 0, NULL, 0);
    pc_leave();
    return 0;
}

int fsync(int fd)
{
    return synchronise(fd, NEXT(int, fsync, int));
}

int fdatasync(int fd)
{
    return synchronise(fd, NEXT(int, fdatasync, int));
}

int futimens(int fd, const struct timespec times[2])
{
    int (*next)(int, const struct timespec *) = NEXT(int, futimens, int, const struct timespec *);
    if (!is_tracked(fd))
        return next(fd, times);
    pc_enter();
    int rc = next(fd, times);
    if (rc == 0)
        pc_note_fd(PC_TIMES, fd, 0, NULL, 0);
    pc_leave();
    return rc;
}

/* ------------------------------------------------------------------ mappings */

static void *map_file(void *hint, size_t bytes, int protection, int flags, int fd, off64_t at)
{
    void *(*next)(void *, size_t, int, int, int, off64_t) =
        NEXT(void *, mmap64, void *, size_t, int, int, int, off64_t);
    void *result = next(hint, bytes, protection, flags, fd, at);
    if (result == MAP_FAILED || (flags & MAP_SHARED) == 0 || (protection & PROT_WRITE) == 0 ||
        !is_tracked(fd))
        return result;
    pc_enter();
    pc_map(result, bytes, tracked[fd]);
    pc_leave();
    return result;
}

void *mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t at)
{
    return map_file(hint, bytes, protection, flags, fd, at);
}

void *mmap64(void *hint, size_t bytes, int protection, int flags, int fd, off64_t at)
{
    return map_file(hint, bytes, protection, flags, fd, at);
}

int munmap(void *at, size_t bytes)
{
    int (*next)(void *, size_t) = NEXT(int, munmap, void *, size_t);
    if (!pc_recording() || !pc_is_mapped(at))
        return next(at, bytes);
    pc_enter();
    pc_unmap(at);
    int rc = next(at, bytes);
    pc_leave();
    return rc;
}

/* ------------------------------------------------------------------ names */

static int exchange_or_rename(const char *from, const char *to, unsigned flags)
{
    int rc = NEXT(int, renameat2, int, const char *, int, const char *,
                  unsigned)(AT_FDCWD, from, AT_FDCWD, to, flags);
    return rc;
}

static int change_name(const char *from, const char *to, unsigned flags)
{
    if (!pc_below(to))
        return exchange_or_rename(from, to, flags);
    pc_enter();
    int rc = exchange_or_rename(from, to, flags);
    if (rc == 0)
        pc_note_names((flags & RENAME_EXCHANGE) != 0 ? PC_EXCHANGE : PC_RENAME, from, to, to);
    pc_leave();
    return rc;
}

int rename(const char *from, const char *to)
{
    return change_name(from, to, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    if (from_folder != AT_FDCWD || to_folder != AT_FDCWD)
        return NEXT(int, renameat2, int, const char *, int, const char *,
                    unsigned)(from_folder, from, to_folder, to, flags);
    return change_name(from, to, flags);
}

int link(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = NEXT(int, link, const char *, const char *);
    if (!pc_below(to))
        return next(from, to);
    pc_enter();
    int rc = next(from, to);
    if (rc == 0)
        pc_note_names(PC_LINK, to, NULL, to);
    pc_leave();
    return rc;
}

int unlink(const char *path)
{
    int (*next)(const char *) = NEXT(int, unlink, const char *);
    if (!pc_below(path))
        return next(path);
    pc_enter();
    int rc = next(path);
    if (rc == 0)
        pc_note_names(PC_UNLINK, path, NULL, NULL);
    pc_leave();
    return rc;
}

int unlinkat(int folder, const char *path, int flags)
{
    int (*next)(int, const char *, int) = NEXT(int, unlinkat, int, const char *, int);
    char buffer[INTERPOSE_PATH_MAX];
    const char *full =
        path[0] != '/' && folder >= 0 ? interpose_path_at(folder, path, buffer) : NULL;
    if (!pc_below(full))
        return next(folder, path, flags);
    pc_enter();
    int rc = next(folder, path, flags);
    if (rc == 0)
        pc_note_names((flags & AT_REMOVEDIR) != 0 ? PC_RMDIR : PC_UNLINK, full, NULL, NULL);
    pc_leave();
    return rc;
}

int mkdir(const char *path, mode_t mode)
{
    int (*next)(const char *, mode_t) = NEXT(int, mkdir, const char *, mode_t);
    if (!pc_below(path))
        return next(path, mode);
    pc_enter();
    int rc = next(path, mode);
    if (rc == 0)
        pc_note_names(PC_MKDIR, path, NULL, path);
    pc_leave();
    return rc;
}

int rmdir(const char *path)
{
    int (*next)(const char *) = NEXT(int, rmdir, const char *);
    if (!pc_below(path))
        return next(path);
    pc_enter();
    int rc = next(path);
    if (rc == 0)
        pc_note_names(PC_RMDIR, path, NULL, NULL);
    pc_leave();
    return rc;
}

/* renameat2 by its number. */
long syscall(long number, ...)
{
    INTERPOSE_SYSCALL_ARGS(number, a);
    if (number == SYS_renameat2 && (int)a[0] == AT_FDCWD && (int)a[2] == AT_FDCWD)
        return change_name((const char *)a[1], (const char *)a[3], (unsigned)a[4]);
    return NEXT(long, syscall, long, ...)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

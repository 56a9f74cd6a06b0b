/*
 * killat.c - LD_PRELOAD library that kills its process (SIGKILL) right before or behind the N-th call that changes a file below
 * a folder. Lets a test die at every single step of a checkpoint, a close, a spool or an upload.
 *
 * Environment: LJ_KILL_DIR (absolute folder), LJ_KILL_AT (N, 1-based; 0 = never), LJ_KILL_LOG (optional: a file to which each
 * counted call is appended as "N NAME PATH"). To die at a step that has a name: LJ_KILL_MATCH (only calls whose "NAME PATH"
 * match this fnmatch pattern count), LJ_KILL_BEHIND=1 (when the call has returned), LJ_KILL_ARM (nothing counts before a call
 * that matches this pattern; "-": before killat_arm()).
 *
 * Or not to die, but to be slow: LJ_SLOW_US is how long each call that matches LJ_SLOW_MATCH waits ("pread" is one then too).
 */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "../lib/interpose.h"

static atomic_long calls;
static atomic_bool armed;

void killat_arm(void);
void killat_arm(void)
{
    atomic_store(&armed, true);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static bool matches(const char *variable, const char *name, const char *path)
{
    const char *pattern = getenv(variable);
    char text[4200];
    snprintf(text, sizeof text, "%s %s", name, path);
    return pattern != NULL && fnmatch(pattern, text, 0) == 0;
}

/* Whether calls count by now. The one that arms does not count itself. */
static bool is_armed(const char *name, const char *path)
{
    if (getenv("LJ_KILL_ARM") == NULL || atomic_load(&armed))
        return true;
    if (matches("LJ_KILL_ARM", name, path))
        atomic_store(&armed, true);
    return false;
}

static bool below(const char *path)
{
    const char *folder = getenv("LJ_KILL_DIR");
    return folder && path && !strncmp(path, folder, strlen(folder)) && path[strlen(folder)] == '/';
}

static void dawdle(const char *name, const char *path)
{
    const char *us = getenv("LJ_SLOW_US");
    if (us != NULL && below(path) && matches("LJ_SLOW_MATCH", name, path))
        usleep((useconds_t)strtoul(us, NULL, 10));
}

/* Counts one call on `path` (absolute); does not return from the fatal one, or returns true if that may be made yet. */
static bool step(const char *name, const char *path)
{
    dawdle(name, path);
    if (!below(path) || !is_armed(name, path) ||
        (getenv("LJ_KILL_MATCH") != NULL && !matches("LJ_KILL_MATCH", name, path)))
        return false;
    long number = atomic_fetch_add(&calls, 1) + 1;
    const char *log = getenv("LJ_KILL_LOG");
    if (log) {
        char line[4200];
        int size = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd >= 0) {
            if (NEXT(ssize_t, write, int, const void *, size_t)(fd, line, (size_t)size) < 0)
                abort();
            close(fd);
        }
    }
    const char *at = getenv("LJ_KILL_AT");
    bool fatal = at && strtol(at, NULL, 10) == number;
    if (fatal && getenv("LJ_KILL_BEHIND") == NULL)
        die();
    return fatal;
}

static bool step_fd(const char *name, int fd)
{
    char path[INTERPOSE_PATH_MAX];
    return interpose_path_of(fd, path) && step(name, path);
}

static bool step_at(const char *name, int folder, const char *path)
{
    char buffer[INTERPOSE_PATH_MAX];
    const char *full = interpose_path_at(folder, path, buffer);
    return full != NULL && step(name, full);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    char path[INTERPOSE_PATH_MAX];
    if (getenv("LJ_SLOW_US") != NULL && interpose_path_of(fd, path))
        dawdle("pread", path);
    return NEXT(ssize_t, pread64, int, void *, size_t, off64_t)(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    bool last = step_fd("write", fd);
    ssize_t rc = NEXT(ssize_t, write, int, const void *, size_t)(fd, data, size);
    if (last)
        die();
    return rc;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    bool last = step_fd("pwrite", fd);
    ssize_t rc = NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, data, size, at);
    if (last)
        die();
    return rc;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    bool last = step_fd("pwrite", fd);
    ssize_t rc = NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t)(fd, data, size, at);
    if (last)
        die();
    return rc;
}

int ftruncate(int fd, off_t size)
{
    bool last = step_fd("ftruncate", fd);
    int rc = NEXT(int, ftruncate, int, off_t)(fd, size);
    if (last)
        die();
    return rc;
}

int ftruncate64(int fd, off64_t size)
{
    bool last = step_fd("ftruncate", fd);
    int rc = NEXT(int, ftruncate64, int, off64_t)(fd, size);
    if (last)
        die();
    return rc;
}

int fsync(int fd)
{
    bool last = step_fd("fsync", fd);
    int rc = NEXT(int, fsync, int)(fd);
    if (last)
        die();
    return rc;
}

int fdatasync(int fd)
{
    bool last = step_fd("fdatasync", fd);
    int rc = NEXT(int, fdatasync, int)(fd);
    if (last)
        die();
    return rc;
}

int unlink(const char *path)
{
    bool last = step("unlink", path);
    int rc = NEXT(int, unlink, const char *)(path);
    if (last)
        die();
    return rc;
}

int unlinkat(int folder, const char *path, int flags)
{
    bool last = step_at("unlink", folder, path);
    int rc = NEXT(int, unlinkat, int, const char *, int)(folder, path, flags);
    if (last)
        die();
    return rc;
}

int rename(const char *from, const char *to)
{
    bool last = step("rename", to);
    int rc = NEXT(int, rename, const char *, const char *)(from, to);
    if (last)
        die();
    return rc;
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    bool last = step_at("rename", to_folder, to);
    int rc =
        NEXT(int, renameat, int, const char *, int, const char *)(from_folder, from, to_folder, to);
    if (last)
        die();
    return rc;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    bool last = step_at("rename", to_folder, to);
    int rc = NEXT(int, renameat2, int, const char *, int, const char *,
                  unsigned)(from_folder, from, to_folder, to, flags);
    if (last)
        die();
    return rc;
}

int link(const char *from, const char *to)
{
    bool last = step("link", to);
    int rc = NEXT(int, link, const char *, const char *)(from, to);
    if (last)
        die();
    return rc;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    bool last = step_at("link", to_folder, to);
    int rc = NEXT(int, linkat, int, const char *, int, const char *, int)(from_folder, from,
                                                                          to_folder, to, flags);
    if (last)
        die();
    return rc;
}

int mkdir(const char *path, mode_t mode)
{
    bool last = step("mkdir", path);
    int rc = NEXT(int, mkdir, const char *, mode_t)(path, mode);
    if (last)
        die();
    return rc;
}

/* renameat2 by its number. */
long syscall(long number, ...)
{
    INTERPOSE_SYSCALL_ARGS(number, a);
    bool last = number == SYS_renameat2 && step_at("rename", (int)a[2], (const char *)a[3]);
    long rc = NEXT(long, syscall, long, ...)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (last)
        die();
    return rc;
}

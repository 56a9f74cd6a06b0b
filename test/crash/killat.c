/*
 * killat.c - LD_PRELOAD library that kills its process (SIGKILL) right before the N-th call that changes a file below a
 * folder. Lets a test die at every single step of a checkpoint, a close, a spool or an upload.
 *
 * Environment: LJ_KILL_DIR (absolute folder), LJ_KILL_AT (N, 1-based; 0 = never), LJ_KILL_LOG (optional: a file to which each
 * counted call is appended as "N NAME PATH").
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static bool below(const char *path)
{
    const char *folder = getenv("LJ_KILL_DIR");
    return folder && path && !strncmp(path, folder, strlen(folder)) && path[strlen(folder)] == '/';
}

/* Counts one call on `path` (absolute); does not return from the fatal one. */
static void step(const char *name, const char *path)
{
    if (!below(path))
        return;
    long number = atomic_fetch_add(&calls, 1) + 1;
    const char *log = getenv("LJ_KILL_LOG");
    if (log) {
        char line[4200];
        int size = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd >= 0) {
            ssize_t (*write_next)(int, const void *, size_t) =
                (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
            if (write_next(fd, line, (size_t)size) < 0)
                abort();
            close(fd);
        }
    }
    const char *at = getenv("LJ_KILL_AT");
    if (at && strtol(at, NULL, 10) == number) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

static void step_fd(const char *name, int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return;
    path[size] = '\0';
    step(name, path);
}

/* A path relative to a folder's descriptor, made absolute. */
static void step_at(const char *name, int folder, const char *path)
{
    char link[64], full[8192];
    if (path[0] == '/' || folder == AT_FDCWD) {
        step(name, path);
        return;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, full, 4096);
    if (size <= 0)
        return;
    snprintf(full + size, sizeof full - (size_t)size, "/%s", path);
    step(name, full);
}

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size)
{
    step_fd("write", fd);
    return NEXT(ssize_t, write, int, const void *, size_t)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    step_fd("pwrite", fd);
    return NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    step_fd("pwrite", fd);
    return NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t)(fd, data, size, at);
}

int ftruncate(int fd, off_t size)
{
    step_fd("ftruncate", fd);
    return NEXT(int, ftruncate, int, off_t)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    step_fd("ftruncate", fd);
    return NEXT(int, ftruncate64, int, off64_t)(fd, size);
}

int fsync(int fd)
{
    step_fd("fsync", fd);
    return NEXT(int, fsync, int)(fd);
}

int fdatasync(int fd)
{
    step_fd("fdatasync", fd);
    return NEXT(int, fdatasync, int)(fd);
}

int unlink(const char *path)
{
    step("unlink", path);
    return NEXT(int, unlink, const char *)(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    step_at("unlink", folder, path);
    return NEXT(int, unlinkat, int, const char *, int)(folder, path, flags);
}

int rename(const char *from, const char *to)
{
    step("rename", to);
    return NEXT(int, rename, const char *, const char *)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    step_at("rename", to_folder, to);
    return NEXT(int, renameat, int, const char *, int, const char *)(from_folder, from, to_folder,
                                                                     to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    step_at("rename", to_folder, to);
    return NEXT(int, renameat2, int, const char *, int, const char *,
                unsigned)(from_folder, from, to_folder, to, flags);
}

int link(const char *from, const char *to)
{
    step("link", to);
    return NEXT(int, link, const char *, const char *)(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    step_at("link", to_folder, to);
    return NEXT(int, linkat, int, const char *, int, const char *, int)(from_folder, from,
                                                                        to_folder, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
    step("mkdir", path);
    return NEXT(int, mkdir, const char *, mode_t)(path, mode);
}

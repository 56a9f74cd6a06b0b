/* no_kinds.c - preloaded into sshd: what lies below a folder called "files" has permissions, but is no file and no folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef int (*stat_fn)(const char *, struct stat *);

static int forget(int rc, const char *path, struct stat *st)
{
    if (rc == 0 && strstr(path, "/files/") != NULL)
        st->st_mode &= ~(mode_t)S_IFMT;
    return rc;
}

EXPORT int stat(const char *path, struct stat *st)
{
    stat_fn real = (stat_fn)dlsym(RTLD_NEXT, "stat");
    return forget(real(path, st), path, st);
}

EXPORT int lstat(const char *path, struct stat *st)
{
    stat_fn real = (stat_fn)dlsym(RTLD_NEXT, "lstat");
    return forget(real(path, st), path, st);
}

EXPORT int fstat(int fd, struct stat *st)
{
    int (*real)(int, struct stat *) = (int (*)(int, struct stat *))dlsym(RTLD_NEXT, "fstat");
    char link[32];
    char path[4096] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof(path) - 1) < 0)
        path[0] = 0;
    return forget(real(fd, st), path, st);
}
